"""Who calls the model: root, with all capabilities; and what a path or a descriptor means to it."""

import errno
import itertools

from overlayvfs.abi import oserror
from overlayvfs.testing.model import changes
from overlayvfs.testing.model.descriptors import OpenFile
from overlayvfs.testing.model.inodes import Inode
from overlayvfs.testing.model.paths import Walk
from overlayvfs.testing.model.union import Found, Union


class Caller:
    """A process that has an overlay as its root: a umask and open descriptors."""

    def __init__(self, union: Union) -> None:
        self._union = union
        self._files: dict[int, OpenFile] = {}
        self._numbers = itertools.count(1 << 20)
        self._umask = 0o022

    def umask(self, mask: int) -> int:
        """Set the mask of new objects' modes; return the one before."""
        before, self._umask = self._umask, mask & 0o777
        return before

    def _find(self, path: str, follow: bool = True) -> Found:
        return Walk(self._union).find(path, follow=follow)

    def _at(self, path: str | int, follow: bool = True) -> Found:
        return self._usable(path).found if isinstance(path, int) else self._find(path, follow)

    def _for_change(self, path: str | int, follow: bool = True) -> Found:
        found = self._at(path, follow)
        self._union.want_write()
        return found

    def _file(self, fd: int) -> OpenFile:
        if fd not in self._files:
            raise oserror(errno.EBADF)
        return self._files[fd]

    def _usable(self, fd: int) -> OpenFile:
        """Return what a descriptor was opened for; EBADF for one of O_PATH."""
        file = self._file(fd)
        if file.is_path:
            raise oserror(errno.EBADF)
        return file

    def _real(self, found: Found) -> Inode:
        return self._union.real(found)

    def _new(self, free: Found, mode: int) -> Inode:
        return changes.owned(self._union, free.parent or free, mode, self._umask)

    def _resize(self, found: Found, length: int, *, empty: bool = False) -> None:
        inode = changes.copy_up(self._union, found, empty=empty)
        inode.resize(length)
        inode.touch()
