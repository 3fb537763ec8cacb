"""The host's os module with what it lacks to be the oracle: `renameat2`, mounts, listings that can be sent."""

import ctypes
import errno
import os
import platform
import stat
import struct
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

AT_FDCWD: Final = -100
CLONE_NEWNS: Final = 0x00020000
CLONE_NEWUSER: Final = 0x10000000
MNT_DETACH: Final = 2
MS_NOATIME: Final = 1024
MS_PRIVATE: Final = 1 << 18
MS_REC: Final = 16384

_GETDENTS64: Final = {"x86_64": 217, "aarch64": 61, "riscv64": 61, "ppc64le": 202, "s390x": 220}
_RENAMEAT2: Final = {"x86_64": 316, "aarch64": 276, "riscv64": 276, "ppc64le": 357, "s390x": 347}


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _check(result: int, *paths: str) -> None:
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), paths[0] if paths else None, None, paths[1] if paths[1:] else None)


def is_root() -> bool:
    """Tell whether this process is the host's superuser; False on systems without one."""
    return hasattr(os, "geteuid") and os.geteuid() == 0


def unshare(flags: int) -> None:
    """Call unshare(2). EPERM EINVAL ENOSPC."""
    _check(_libc().unshare(flags))


def mount(source: str, target: str, fstype: str, flags: int = 0, data: str = "") -> None:
    """Call mount(2)."""
    encoded = [os.fsencode(word) for word in (source, target, fstype, data)]
    _check(_libc().mount(encoded[0], encoded[1], encoded[2], ctypes.c_ulong(flags), encoded[3]), target)


def umount(target: str, flags: int = 0) -> None:
    """Call umount2(2). EBUSY while something inside is open (unless MNT_DETACH)."""
    _check(_libc().umount2(os.fsencode(target), flags), target)


def renameat2(src: str, dst: str, flags: int) -> None:
    """Call renameat2(2): RENAME_NOREPLACE, RENAME_EXCHANGE, RENAME_WHITEOUT."""
    number = _RENAMEAT2.get(platform.machine())
    if number is None:
        raise OSError(errno.ENOSYS, f"no number of renameat2 known for {platform.machine()}", src, None, dst)
    old, new = ctypes.c_char_p(os.fsencode(src)), ctypes.c_char_p(os.fsencode(dst))
    _check(_libc().syscall(ctypes.c_long(number), AT_FDCWD, old, AT_FDCWD, new, ctypes.c_uint(flags)), src, dst)


@dataclass(frozen=True, slots=True)
class Listed:
    """An os.DirEntry that can be sent to another process: what it says was asked when the directory was read."""

    name: str
    path: str
    number: int
    mode: int
    target_mode: int

    def inode(self) -> int:
        """Return d_ino."""
        return self.number

    def is_symlink(self) -> bool:
        """Tell whether the entry itself is a symlink."""
        return stat.S_ISLNK(self.mode)

    def is_dir(self, *, follow_symlinks: bool = True) -> bool:
        """Tell whether the entry is a directory or, unless told otherwise, points to one."""
        return stat.S_ISDIR(self.target_mode if follow_symlinks else self.mode)

    def is_file(self, *, follow_symlinks: bool = True) -> bool:
        """Tell whether the entry is a regular file or, unless told otherwise, points to one."""
        return stat.S_ISREG(self.target_mode if follow_symlinks else self.mode)


class HostOs:
    """The os module; remembers its open descriptors, so that `close_all` leaves none behind."""

    def __init__(self) -> None:
        self._open: set[int] = set()

    def __getattr__(self, name: str) -> Any:
        """Return what the host's os module has under this name."""
        return getattr(os, name)

    renameat2 = staticmethod(renameat2)

    def open(self, path: str, flags: int, mode: int = 0o777) -> int:
        """Call os.open."""
        return self._kept(os.open(path, flags, mode))

    def dup(self, fd: int) -> int:
        """Call os.dup."""
        return self._kept(os.dup(fd))

    def close(self, fd: int) -> None:
        """Call os.close; EBADF for a descriptor that was not opened here."""
        if fd not in self._open:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        self._open.discard(fd)
        os.close(fd)

    def close_all(self) -> None:
        """Close what was opened and not closed."""
        for fd in list(self._open):
            self.close(fd)

    def link(self, src: str, dst: str, *, follow_symlinks: bool = False) -> None:
        """Call linkat(2), following a final symlink if asked: os.link calls link(2) then, which never does."""
        if not follow_symlinks:
            os.link(src, dst, follow_symlinks=False)
            return
        here = os.open(".", os.O_PATH)
        try:
            os.link(src, dst, src_dir_fd=here, dst_dir_fd=here, follow_symlinks=True)
        finally:
            os.close(here)

    def listdir(self, path: str | int = "/") -> list[str]:
        """Call os.listdir."""
        return os.listdir(path)

    def scandir(self, path: str | int = "/") -> list[Listed]:
        """Read a directory as os.scandir does, all at once."""
        with os.scandir(path) as entries:
            return [_listed(entry) for entry in entries]

    def getdents(self, fd: int, size: int) -> list[str]:
        """Call getdents64(2) with a buffer of `size` bytes; the names it gives, empty at the end.

        os reads a directory to its end in one call, so only this shows one that changes while it is read.
        """
        buffer = ctypes.create_string_buffer(size)
        length = _libc().syscall(ctypes.c_long(_GETDENTS64[platform.machine()]), fd, buffer, ctypes.c_uint(size))
        _check(length)
        names, at = [], 0
        while at < length:
            # struct linux_dirent64: d_ino and d_off of 8 bytes each, then d_reclen (2), d_type (1) and the name.
            (record_length,) = struct.unpack_from("=H", buffer, at + 16)
            names.append(os.fsdecode(buffer.raw[at + 19 : at + record_length].split(b"\0", 1)[0]))
            at += record_length
        return names

    def walk(self, top: str, **kwargs: Any) -> list[tuple[str, list[str], list[str]]]:
        """Return all that os.walk yields."""
        return list(os.walk(top, **kwargs))

    def _kept(self, fd: int) -> int:
        self._open.add(fd)
        return fd


class MergedOs(HostOs):
    """The os module inside an overlay mount, less a leak: Linux lists whiteouts of a directory with a single layer.

    Such a name can't be looked up. The library never lists it (a difference on purpose), so it is left out here too.

    And less what the file system of the upper has of its own: an overlay leaves it to that to find a pure upper
    directory crowded. xfs calls that EEXIST; on ext4 the rename that fails has made the parent's mtime fresh.
    """

    def __init__(self, filesystem: str = "tmpfs") -> None:
        super().__init__()
        self._makes_fresh = filesystem == "ext4"

    def rename(self, src: str, dst: str) -> None:
        """Call os.rename; ENOTEMPTY, and nothing changed, whatever the file system."""
        with _crowded(src if self._makes_fresh else None):
            os.rename(src, dst)

    def renameat2(self, src: str, dst: str, flags: int) -> None:
        """Call renameat2(2); ENOTEMPTY, and nothing changed, whatever the file system."""
        with nullcontext() if flags else _crowded(src if self._makes_fresh else None):
            renameat2(src, dst, flags)

    def listdir(self, path: str | int = "/") -> list[str]:
        """Call os.listdir; names that are only whiteouts are left out."""
        return [entry.name for entry in _without_leaks(path)]

    def scandir(self, path: str | int = "/") -> list[Listed]:
        """Read a directory as os.scandir does; names that are only whiteouts are left out."""
        return [_listed(entry) for entry in _without_leaks(path)]


@contextmanager
def _crowded(src: str | None) -> Iterator[None]:
    """Answer for a rename that may fail; with `src`, its directory keeps its mtime then."""
    parent, before = None if src is None else os.path.dirname(src.rstrip("/")) or "/", 0
    try:
        if parent is not None:
            before = os.stat(parent).st_mtime_ns
    except OSError:
        parent = None
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
            raise
        if parent is not None and os.stat(parent).st_mtime_ns != before:
            os.utime(parent, ns=(before, before))
        raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY), error.filename, None, error.filename2) from None


def _without_leaks(path: str | int) -> "list[os.DirEntry[str]]":
    with os.scandir(path) as found:
        entries = list(found)
    # By descriptor: the path of an entry may be too long where that of its directory is not.
    at = path if isinstance(path, int) else os.open(path, os.O_PATH | os.O_DIRECTORY)
    try:
        with _all_rights():
            return [entry for entry in entries if not _is_leak(at, entry)]
    finally:
        if at != path:
            os.close(at)


def _is_leak(directory: int, entry: "os.DirEntry[str]") -> bool:
    # A directory is no whiteout, and looking one up may leave an origin mark (ovl_fix_origin): it is not touched.
    # A regular file may be one, and lists unless its directory is marked (KB 3.18): the library does the same.
    if entry.is_dir(follow_symlinks=False) or entry.is_file(follow_symlinks=False):
        return False
    try:
        os.stat(entry.name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return True
    except OSError:
        # Marks that can't be followed: such a name is there.
        return False
    return False


@contextmanager
def _all_rights() -> Iterator[None]:
    """Ask as root: who may list a directory may not be allowed to look its names up."""
    caller = os.geteuid()
    if caller == 0:
        yield
        return
    os.seteuid(0)
    try:
        yield
    finally:
        os.seteuid(caller)


def _listed(entry: "os.DirEntry[str]") -> Listed:
    return Listed(entry.name, entry.path, entry.inode(), _type_of(entry), _target_type_of(entry))


def _type_of(entry: "os.DirEntry[str]") -> int:
    if entry.is_symlink():
        return stat.S_IFLNK
    if entry.is_dir(follow_symlinks=False):
        return stat.S_IFDIR
    return stat.S_IFREG if entry.is_file(follow_symlinks=False) else 0


def _target_type_of(entry: "os.DirEntry[str]") -> int:
    try:
        if entry.is_dir():
            return stat.S_IFDIR
        return stat.S_IFREG if entry.is_file() else 0
    except OSError:
        # A symlink that leads nowhere (ELOOP, ENOTDIR): os.DirEntry raises when asked, a record has no such moment.
        return 0
