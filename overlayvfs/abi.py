"""The Linux file ABI as values: what crosses every floor of the house.

Nothing here does anything: records, flag numbers and the one way to make an OSError.
Numbers come from the host where it has them and are Linux's (x86-64) elsewhere, so the
memory layers work the same on macOS and Windows.
"""

import errno
import itertools
import os
import stat
from typing import Final, NamedTuple

O_RDONLY: Final[int] = os.O_RDONLY
O_WRONLY: Final[int] = os.O_WRONLY
O_RDWR: Final[int] = os.O_RDWR
O_ACCMODE: Final[int] = os.O_RDONLY | os.O_WRONLY | os.O_RDWR
O_CREAT: Final[int] = os.O_CREAT
O_EXCL: Final[int] = os.O_EXCL
O_TRUNC: Final[int] = os.O_TRUNC
O_APPEND: Final[int] = os.O_APPEND
# Where the host lacks one of these, bits that collide with none of its own: Linux's value shifted out of the way.
O_DIRECTORY: Final[int] = getattr(os, "O_DIRECTORY", 1 << 32)
O_NOFOLLOW: Final[int] = getattr(os, "O_NOFOLLOW", 1 << 33)
O_PATH: Final[int] = getattr(os, "O_PATH", 1 << 34)
O_TMPFILE: Final[int] = getattr(os, "O_TMPFILE", (1 << 35) | O_DIRECTORY)
O_NOATIME: Final[int] = getattr(os, "O_NOATIME", 1 << 36)

SEEK_DATA: Final[int] = 3
SEEK_HOLE: Final[int] = 4

RENAME_NOREPLACE: Final[int] = 1
RENAME_EXCHANGE: Final[int] = 2
RENAME_WHITEOUT: Final[int] = 4

XATTR_CREATE: Final[int] = 1
XATTR_REPLACE: Final[int] = 2
XATTR_SIZE_MAX: Final[int] = 65536

NAME_MAX: Final[int] = 255
PATH_MAX: Final[int] = 4096
SYMLOOP_MAX: Final[int] = 40
PAGE_SIZE: Final[int] = 4096

ST_RDONLY: Final[int] = 1


class Stat(NamedTuple):
    """What lstat(2) tells of one object: bytes, `_ns` integers, the full `st_mode`."""

    st_mode: int
    st_ino: int
    st_dev: int
    st_nlink: int
    st_uid: int
    st_gid: int
    st_size: int
    st_atime_ns: int
    st_mtime_ns: int
    st_ctime_ns: int
    st_blocks: int
    st_rdev: int
    st_blksize: int = PAGE_SIZE


class Dirent(NamedTuple):
    """One name of a directory, as getdents(2) gives it; `d_type` is the S_IFMT part of a mode, 0 if unknown."""

    d_name: str
    d_ino: int
    d_type: int


class StatVfs(NamedTuple):
    """What statvfs(3) tells of a file system."""

    f_bsize: int
    f_frsize: int
    f_blocks: int
    f_bfree: int
    f_bavail: int
    f_files: int
    f_ffree: int
    f_favail: int
    f_flag: int
    f_namemax: int


def oserror(
    number: int, path: str | None = None, path2: str | None = None, *, reason: str | None = None
) -> OSError:
    """Return (not raise) the OSError for `number`, with the caller's own paths and, where one helps, the reason."""
    text = os.strerror(number)
    if reason:
        text = f"{text}: {reason}"
    if path is None:
        return OSError(number, text)
    if path2 is None:
        return OSError(number, text, path)
    return OSError(number, text, path, None, path2)


def makedev(major: int, minor: int) -> int:
    """Return the device number of (major, minor) in Linux's 64-bit packing, on any host."""
    return (minor & 0xFF) | ((major & 0xFFF) << 8) | ((minor & ~0xFF) << 12) | ((major & ~0xFFF) << 32)


def split_dev(rdev: int) -> tuple[int, int]:
    """Return the (major, minor) of a device number in Linux's 64-bit packing, on any host."""
    return (rdev >> 8) & 0xFFF | (rdev >> 32) & ~0xFFF, rdev & 0xFF | (rdev >> 12) & ~0xFF


_anonymous_minors = itertools.count(0xF0000)


def anonymous_dev() -> int:
    """Return a device number no other file system of this process has (get_anon_bdev; far from the host's own)."""
    return makedev(0, next(_anonymous_minors))


def is_whiteout(st: Stat) -> bool:
    """Tell whether `st` is a whiteout: a device 0/0 of any mode (overlayfs.rst, "whiteouts and opaque directories")."""
    return st.st_rdev == 0 and stat.S_ISCHR(st.st_mode)


def check_name(name: str) -> None:
    """Raise ENAMETOOLONG if `name` has more than 255 bytes."""
    # A str of up to 63 characters can't exceed 255 bytes in UTF-8: most names need no encoding.
    if len(name) > 63 and len(name.encode("utf-8", "surrogateescape")) > NAME_MAX:
        raise oserror(errno.ENAMETOOLONG, name)
