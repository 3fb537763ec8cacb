"""The model's calls on names: what Linux checks, in order, before an overlay is asked (KB 7, 8, 9, 17, 18)."""

import errno
import os
import stat
from typing import Final

from overlayvfs.abi import PATH_MAX, RENAME_EXCHANGE, RENAME_NOREPLACE, RENAME_WHITEOUT, oserror
from overlayvfs.testing.model import changes
from overlayvfs.testing.model.caller import Caller
from overlayvfs.testing.model.lookup import look_up
from overlayvfs.testing.model.paths import Last, Walk
from overlayvfs.testing.model.union import Found

_KINDS: Final = (stat.S_IFREG, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO, stat.S_IFSOCK)


class NameCalls(Caller):
    """mkdir mknod symlink link, unlink rmdir, rename renameat2."""

    def mkdir(self, path: str, mode: int = 0o777) -> None:
        """Call mkdir(2)."""
        free = self._free(path, slash=True)
        changes.created(self._union, free, self._new(free, stat.S_IFDIR | mode & 0o1777))

    def mknod(self, path: str, mode: int = 0o600, device: int = 0) -> None:
        """Call mknod(2)."""
        kind = stat.S_IFMT(mode) or stat.S_IFREG
        if kind not in _KINDS:
            raise oserror(errno.EPERM if kind == stat.S_IFDIR else errno.EINVAL, path)
        free = self._free(path)
        inode = self._new(free, kind | stat.S_IMODE(mode))
        inode.rdev = device if kind in (stat.S_IFCHR, stat.S_IFBLK) else 0
        if inode.is_whiteout and not self._union.is_plain:
            raise oserror(errno.EPERM, path)
        changes.created(self._union, free, inode)

    def symlink(self, target: str, path: str) -> None:
        """Call symlink(2)."""
        if not target:
            raise oserror(errno.ENOENT, target)
        if len(os.fsencode(target)) >= PATH_MAX:
            raise oserror(errno.ENAMETOOLONG, target)
        free = self._free(path)
        inode = changes.owned(self._union, free.parent or free, stat.S_IFLNK | 0o777, 0)
        inode.target = target
        changes.created(self._union, free, inode)

    def link(self, source: str, path: str, *, follow_symlinks: bool = False) -> None:
        """Call linkat(2)."""
        found = self._find(source, follow_symlinks)
        free = self._free(path)
        if self._real(found).is_dir:
            raise oserror(errno.EPERM, source)
        changes.link(self._union, found, free)

    def _free(self, path: str, *, slash: bool = False) -> Found:
        """Return the free name at which something is to be created; a slash after it is for directories.

        Raises:
            EEXIST: it is not free.
            ENOENT: a slash after it, but no directory is to be made.
            EROFS: there is no upper.

        """
        last = Walk(self._union).parent(path)
        if not last.is_ordinary:
            raise oserror(errno.EEXIST, path)
        free = look_up(self._union, last.at, last.name)
        if free.exists:
            raise oserror(errno.EEXIST, path)
        if last.slash and not slash:
            raise oserror(errno.ENOENT, path)
        self._union.want_write()
        return free

    def unlink(self, path: str) -> None:
        """Call unlink(2)."""
        last = Walk(self._union).parent(path)
        if not last.is_ordinary:
            raise oserror(errno.EISDIR, path)
        self._union.want_write()
        found = Walk(self._union).look(last.at, last.name)
        if self._real(found).is_dir:
            raise oserror(errno.EISDIR, path)
        if last.slash:
            raise oserror(errno.ENOTDIR, path)
        changes.remove(self._union, found)

    def rmdir(self, path: str) -> None:
        """Call rmdir(2)."""
        last = Walk(self._union).parent(path)
        if not last.is_ordinary:
            raise oserror({".": errno.EINVAL, "..": errno.ENOTEMPTY, "": errno.EBUSY}[last.name], path)
        self._union.want_write()
        found = Walk(self._union).look(last.at, last.name)
        if not self._real(found).is_dir:
            raise oserror(errno.ENOTDIR, path)
        changes.remove(self._union, found)

    def rename(self, source: str, target: str) -> None:
        """Call rename(2)."""
        self.renameat2(source, target, 0)

    def renameat2(self, source: str, target: str, flags: int) -> None:
        """Call renameat2(2)."""
        exchange = bool(flags & RENAME_EXCHANGE)
        if flags & ~7 or (exchange and flags & (RENAME_NOREPLACE | RENAME_WHITEOUT)):
            raise oserror(errno.EINVAL, source, target)
        last_old, last_new = Walk(self._union).parent(source), Walk(self._union).parent(target)
        old, new = self._pair(last_old, last_new, flags)
        self._check_slashes(last_old, last_new, old, new, exchange)
        if last_new.at.path()[: len(old.path())] == old.path():
            raise oserror(errno.EINVAL, source, target)
        if last_old.at.path()[: len(new.path())] == new.path():
            raise oserror(errno.EINVAL if exchange else errno.ENOTEMPTY, source, target)
        if self._is_same(old, new):
            return
        if new.exists and not exchange:
            moves_dir, onto_dir = self._real(old).is_dir, self._real(new).is_dir
            if moves_dir != onto_dir:
                raise oserror(errno.ENOTDIR if moves_dir else errno.EISDIR, source, target)
        if flags & RENAME_WHITEOUT:
            raise oserror(errno.EINVAL, source, target)
        changes.rename(self._union, old, new, exchange=exchange)

    def _pair(self, last_old: Last, last_new: Last, flags: int) -> tuple[Found, Found]:
        """Return both names of a rename.

        Raises:
            EBUSY: one is `.`, `..` or the root (the new one with RENAME_NOREPLACE: EEXIST).
            EROFS: there is no upper.
            ENOENT: the old name is missing (with RENAME_EXCHANGE: the new one).
            EEXIST: the new one is there and RENAME_NOREPLACE.

        """
        if not last_old.is_ordinary:
            raise oserror(errno.EBUSY)
        if not last_new.is_ordinary:
            raise oserror(errno.EEXIST if flags & RENAME_NOREPLACE else errno.EBUSY)
        self._union.want_write()
        old = Walk(self._union).look(last_old.at, last_old.name)
        new = look_up(self._union, last_new.at, last_new.name)
        if flags & RENAME_EXCHANGE and not new.exists:
            raise oserror(errno.ENOENT)
        if flags & RENAME_NOREPLACE and new.exists:
            raise oserror(errno.EEXIST)
        return old, new

    def _check_slashes(self, last_old: Last, last_new: Last, old: Found, new: Found, exchange: bool) -> None:
        """Raise ENOTDIR if a slash follows the name of what is no directory."""
        if exchange and last_new.slash and not self._real(new).is_dir:
            raise oserror(errno.ENOTDIR)
        if not self._real(old).is_dir and (last_old.slash or (last_new.slash and not exchange)):
            raise oserror(errno.ENOTDIR)

    def _is_same(self, old: Found, new: Found) -> bool:
        """Tell whether two names are one object. Two names of a lower hard link are none: they part (KB 9.12)."""
        if not new.exists:
            return False
        return old.path() == new.path() or (old.held is not None and old.held is new.held)
