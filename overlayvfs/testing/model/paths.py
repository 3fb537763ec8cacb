"""Walking a path through the model (path_resolution(7); KB 18)."""

import errno
import os
from typing import NamedTuple

from overlayvfs.abi import PATH_MAX, SYMLOOP_MAX, oserror
from overlayvfs.testing.model.inodes import Inode
from overlayvfs.testing.model.lookup import look_up
from overlayvfs.testing.model.union import Found, Union


class Last(NamedTuple):
    """A path but for its last component: the directory, the component ("" for the root alone), a slash after it."""

    at: Found
    name: str
    slash: bool

    @property
    def is_ordinary(self) -> bool:
        """Tell whether the component is a name, not `.`, `..` or the root."""
        return self.name not in ("", ".", "..")


class Walk:
    """One path's way; it counts the symlinks it follows.

    Raises, from each of its functions:
        ENOENT: no path, or a component is missing.
        ENOTDIR: a component that is gone through is no directory.
        ENAMETOOLONG: 4096 bytes or more, or a component of more than 255.
        ELOOP: more than 40 symlinks.
    """

    def __init__(self, union: Union) -> None:
        self._union = union
        self._links = 0

    def find(self, path: str, *, follow: bool = True, directory: bool = False) -> Found:
        """Return what `path` is; with `follow` also where a symlink at its end leads."""
        return self._end(self.parent(path), follow, directory)

    def parent(self, path: str) -> Last:
        """Return all of `path` but the look at its last component."""
        if not path:
            raise oserror(errno.ENOENT, path)
        if len(os.fsencode(path)) >= PATH_MAX:
            raise oserror(errno.ENAMETOOLONG, path)
        return self._all_but_last(path, self._union.root())

    def through(self, link: Found) -> Last:
        """Return the path in a symlink, all but the look at its last component."""
        self._links += 1
        if self._links > SYMLOOP_MAX:
            raise oserror(errno.ELOOP, link.name)
        return self._all_but_last(self._inode(link).target, link.parent or link)

    def look(self, at: Found, name: str) -> Found:
        """Return one component as it is; ENOENT if it is missing."""
        match name:
            case "" | ".":
                return at
            case "..":
                return at.parent or at
        found = look_up(self._union, at, name)
        if not found.exists:
            raise oserror(errno.ENOENT, name)
        return found

    def _all_but_last(self, path: str, start: Found) -> Last:
        at = self._union.root() if path.startswith("/") else start
        *through, last = [name for name in path.split("/") if name] or [""]
        for name in through:
            at = self._end(Last(at, name, slash=False), follow=True, directory=True)
        return Last(at, last, path.endswith("/"))

    def _end(self, last: Last, follow: bool, directory: bool) -> Found:
        found = self.look(last.at, last.name)
        if self._inode(found).is_symlink and (follow or last.slash):
            found = self._end(self.through(found), follow=True, directory=directory)
        if (directory or last.slash) and not self._inode(found).is_dir:
            raise oserror(errno.ENOTDIR, last.name)
        return found

    def _inode(self, found: Found) -> Inode:
        return self._union.real(found)
