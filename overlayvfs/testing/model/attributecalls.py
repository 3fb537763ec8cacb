"""The model's calls that look at objects and change their attributes (KB 5.6, 14, 16, 17)."""

import errno
import os
import time

from overlayvfs.abi import NAME_MAX, ST_RDONLY, oserror
from overlayvfs.testing.model import attributes, changes
from overlayvfs.testing.model.caller import Caller


class AttributeCalls(Caller):
    """stat and its kin, readlink access statvfs; truncate chmod chown utime; getxattr and its kin."""

    def stat(self, path: str, *, follow_symlinks: bool = True) -> os.stat_result:
        """Call stat(2)."""
        return attributes.stat_result(self._union, self._find(path, follow_symlinks))

    def lstat(self, path: str) -> os.stat_result:
        """Call lstat(2)."""
        return self.stat(path, follow_symlinks=False)

    def fstat(self, fd: int) -> os.stat_result:
        """Call fstat(2)."""
        return attributes.stat_result(self._union, self._file(fd).found)

    def readlink(self, path: str) -> str:
        """Call readlink(2)."""
        inode = self._real(self._find(path, follow=False))
        if not inode.is_symlink:
            raise oserror(errno.EINVAL, path)
        return inode.target

    def access(self, path: str, mode: int) -> bool:
        """Call access(2) as root, who may do anything but execute what nobody may."""
        try:
            inode = self._real(self._find(path))
        except OSError:
            return False
        if mode & os.W_OK and self._union.upper is None and not inode.is_special:
            return False
        return not mode & os.X_OK or inode.is_dir or bool(inode.mode & 0o111)

    def statvfs(self, path: str) -> os.statvfs_result:
        """Call statvfs(3); only f_namemax and whether it is read-only say something."""
        self._find(path)
        return os.statvfs_result((0,) * 8 + (ST_RDONLY if self._union.upper is None else 0, NAME_MAX))

    def truncate(self, path: str, length: int) -> None:
        """Call truncate(2)."""
        if length < 0:
            raise oserror(errno.EINVAL, path)
        found = self._find(path)
        inode = self._real(found)
        if not inode.is_file:
            raise oserror(errno.EISDIR if inode.is_dir else errno.EINVAL, path)
        self._union.want_write()
        # Unlike ftruncate(2) and O_TRUNC this leaves the time to tmpfs, which sees nothing to do in an empty file.
        inode = changes.copy_up(self._union, found)
        if length != inode.size or inode.pages:
            self._resize(found, length)

    def chmod(self, path: str | int, mode: int) -> None:
        """Call chmod(2) or fchmod(2)."""
        attributes.change_mode(self._union, self._for_change(path), mode)

    def chown(self, path: str | int, uid: int, gid: int, *, follow_symlinks: bool = True) -> None:
        """Call fchownat(2) or fchown(2)."""
        attributes.change_owner(self._union, self._for_change(path, follow_symlinks), uid, gid)

    def lchown(self, path: str, uid: int, gid: int) -> None:
        """Call lchown(2)."""
        self.chown(path, uid, gid, follow_symlinks=False)

    def utime(self, path: str | int, *, ns: tuple[int, int] | None = None, follow_symlinks: bool = True) -> None:
        """Call utimensat(2) or futimens(3)."""
        found = self._for_change(path, follow_symlinks)
        attributes.change_times(self._union, found, *(ns or (time.time_ns(),) * 2))

    fchmod = chmod
    fchown = chown

    def getxattr(self, path: str | int, name: str, *, follow_symlinks: bool = True) -> bytes:
        """Call getxattr(2) and its kin."""
        attributes.check_name(name)
        return attributes.get_value(self._union, self._at(path, follow_symlinks), name)

    def listxattr(self, path: str | int, *, follow_symlinks: bool = True) -> list[str]:
        """Call listxattr(2) and its kin."""
        return attributes.names_of(self._union, self._at(path, follow_symlinks))

    def setxattr(
        self, path: str | int, name: str, value: bytes, flags: int = 0, *, follow_symlinks: bool = True
    ) -> None:
        """Call setxattr(2) and its kin."""
        attributes.check_value(value, flags)
        attributes.check_name(name)
        attributes.set_value(self._union, self._for_change(path, follow_symlinks), name, value, flags)

    def removexattr(self, path: str | int, name: str, *, follow_symlinks: bool = True) -> None:
        """Call removexattr(2) and its kin."""
        attributes.check_name(name)
        attributes.remove_value(self._union, self._for_change(path, follow_symlinks), name)
