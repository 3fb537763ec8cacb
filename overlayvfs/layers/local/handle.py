"""Open objects of a host directory: one descriptor each, so they stay good whatever happens to the name."""

import errno
import os
import stat
from collections.abc import Callable
from operator import attrgetter
from typing import Final, Self, TypeVar

from overlayvfs.abi import O_PATH, Stat, oserror
from overlayvfs.layers.local.beneath import path_of
from overlayvfs.layers.local.loan import lent_object

T = TypeVar("T")

_NAMESPACES: Final = ("user.", "trusted.", "security.", "system.posix_acl_")
_LISTED: Final = ("user.", "trusted.")
"""Namespaces whose attributes are in the object's list wherever they can be read (xattr_permission)."""


_fields: Final = attrgetter(*Stat._fields)


def to_stat(st: os.stat_result) -> Stat:
    """Return the host's answer as the ABI's value."""
    # Stat(…) of the fields one by one takes 0.9 µs, this 0.6: as much as half a stat(2).
    return tuple.__new__(Stat, _fields(st))


def find_attribute(ref: int | str, name: str, *, follow: bool = True) -> bytes | None:
    """Return an attribute, None where there is none: also where the file system holds none of a namespace there is."""
    try:
        # Most objects have no attributes at all. A list says so in 0.4 µs, a refusal in 1.6.
        if name.startswith(_LISTED) and name not in (*_LISTED, *os.listxattr(ref, follow_symlinks=follow)):
            return None
    except OSError:
        pass  # it may have no list, or too long a one, and the attribute all the same
    try:
        return os.getxattr(ref, name, follow_symlinks=follow)
    except OSError as error:
        if error.errno == errno.ENODATA or (error.errno == errno.EOPNOTSUPP and name.startswith(_NAMESPACES)):
            return None
        raise


def list_attributes(ref: int | str, *, follow: bool = True) -> list[str]:
    """Return all attribute names; none where the file system holds none."""
    try:
        return os.listxattr(ref, follow_symlinks=follow)
    except OSError as error:
        if error.errno == errno.EOPNOTSUPP:
            return []
        raise


def change_owner(ref: int | str, uid: int, gid: int) -> None:
    """chown(2) that keeps the set-id bits, which Linux clears for root too (setattr_prepare)."""
    mode = os.stat(ref).st_mode
    os.chown(ref, uid, gid)
    if mode & (stat.S_ISUID | stat.S_ISGID) and not stat.S_ISDIR(mode):
        os.chmod(ref, stat.S_IMODE(mode))


class HostHandle:
    """An open object of a host directory.

    Regular files and directories are opened; everything else is held by O_PATH, which opens nothing: no
    fifo waits and no device driver acts.
    """

    __slots__ = ("_kind", "_read_only", "_ref", "_takes_data", "fd")

    def __init__(self, fd: int, kind: int, flags: int, *, read_only: bool = False) -> None:
        """Own `fd`, of an object of this S_IFMT kind opened with these flags; `read_only` refuses every change."""
        self.fd = fd
        self._kind = kind
        self._ref: int | str = path_of(fd) if flags & O_PATH else fd
        self._takes_data = flags & os.O_RDWR != 0
        self._read_only = read_only

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        if self.fd >= 0:
            self.close()

    def close(self) -> None:
        fd, self.fd, self._ref = self.fd, -1, -1
        if fd >= 0:
            os.close(fd)

    def pread(self, size: int, offset: int) -> bytes:
        self._check_has_data()
        data = os.pread(self.fd, size, offset)
        # Linux reads at most 2 GiB at once, and a network file system what it has at hand.
        while len(data) < size and (more := os.pread(self.fd, size - len(data), offset + len(data))):
            data += more
        return data

    def pwrite(self, data: bytes | memoryview, offset: int) -> int:
        self._check_has_data()
        done = os.pwrite(self.fd, data, offset)
        if done < len(data):
            rest = memoryview(data)
            while done < len(rest):
                done += os.pwrite(self.fd, rest[done:], offset + done)
        return done

    def truncate(self, size: int) -> None:
        self._check_has_data()
        if not self._takes_data:
            raise oserror(errno.EBADF)  # ftruncate(2) says EINVAL
        os.ftruncate(self.fd, size)

    def truncate_by_path(self, size: int) -> None:
        """Call truncate(2), not ftruncate(2): what happens to the times is up to the file system."""
        self._check_has_data()
        try:
            os.truncate(path_of(self.fd), size)
        except PermissionError:
            # The rights to open it were lent.
            self.truncate(size)

    def seek_extent(self, offset: int, whence: int) -> int:
        self._check_has_data()
        return os.lseek(self.fd, offset, whence)

    def _check_has_data(self) -> None:
        if self._kind == stat.S_IFREG:
            return
        raise oserror(errno.EISDIR if self._kind == stat.S_IFDIR else errno.EINVAL)

    def stat(self) -> Stat:
        return to_stat(os.fstat(self.fd))

    def chmod(self, mode: int) -> None:
        os.chmod(self._changeable(), mode)

    def chown(self, uid: int, gid: int) -> None:
        change_owner(self._changeable(), uid, gid)

    def utime(self, atime_ns: int, mtime_ns: int) -> None:
        os.utime(self._changeable(), ns=(atime_ns, mtime_ns))

    def getxattr(self, name: str) -> bytes:
        value = self._as_owner(lambda: find_attribute(self._ref, name))
        if value is None:
            raise oserror(errno.ENODATA)
        return value

    def setxattr(self, name: str, value: bytes, flags: int = 0) -> None:
        ref = self._changeable()
        self._as_owner(lambda: os.setxattr(ref, name, value, flags))

    def removexattr(self, name: str) -> None:
        ref = self._changeable()
        self._as_owner(lambda: os.removexattr(ref, name))

    def listxattr(self) -> list[str]:
        return list_attributes(self._ref)

    def sync(self) -> None:
        if isinstance(self._ref, int):
            os.fsync(self._ref)

    def _as_owner(self, act: Callable[[], T]) -> T:
        # The mode says who may use a file's user attributes, whatever it was opened for.
        try:
            return act()
        except PermissionError as error:
            if error.errno != errno.EACCES or self._read_only:
                raise
        with lent_object(self.fd):
            return act()

    def _changeable(self) -> int | str:
        if self._read_only:
            raise oserror(errno.EROFS)
        return self._ref
