"""Modes, owners, times and extended attributes of a memory inode (fs/attr.c, fs/xattr.c, simple_xattrs of tmpfs).

Changing functions are called under the superblock's lock. POSIX ACLs (`system.*`) are not held: EOPNOTSUPP, as
on a mount with `noacl`.
"""

import errno
import stat
import time
from typing import Final

from overlayvfs.abi import XATTR_CREATE, XATTR_REPLACE, XATTR_SIZE_MAX, oserror
from overlayvfs.layers._inodes import S_IFMT, Inode, Superblock, xattr_space

_NAMESPACES: Final = ("user.", "trusted.", "security.")
_XATTR_NAME_MAX: Final = 255


def chmod(superblock: Superblock, inode: Inode, mode: int) -> None:
    """Set the 12 permission bits."""
    inode = superblock.own(inode)
    inode.mode = inode.mode & S_IFMT | mode & 0o7777
    inode.ctime_ns = time.time_ns()


def chown(superblock: Superblock, inode: Inode, uid: int, gid: int) -> None:
    """Set owner and group; -1 keeps one."""
    inode = superblock.own(inode)
    if uid != -1:
        inode.uid = uid
    if gid != -1:
        inode.gid = gid
    inode.ctime_ns = time.time_ns()


def utime(superblock: Superblock, inode: Inode, atime_ns: int, mtime_ns: int) -> None:
    """Set access and modification time."""
    inode = superblock.own(inode)
    inode.atime_ns = atime_ns
    inode.mtime_ns = mtime_ns
    inode.ctime_ns = time.time_ns()


def getxattr(inode: Inode, name: str) -> bytes:
    """Return one attribute.

    Raises:
        ERANGE: the name is empty or longer than 255 bytes.
        ENODATA: `user.*` on what is neither a regular file nor a directory.
        EOPNOTSUPP: no such namespace.
        EINVAL: a namespace and nothing more.
        ENODATA: there is none of this name.

    """
    _check_get(inode.mode, name)
    value = (inode.xattrs or {}).get(name)
    if value is None:
        raise oserror(errno.ENODATA)
    return value


def listxattr(inode: Inode) -> list[str]:
    """Return all names, in the order of tmpfs."""
    # tmpfs keeps them in a tree and lists it from the far end.
    return sorted(inode.xattrs or (), reverse=True)


def setxattr(superblock: Superblock, inode: Inode, name: str, value: bytes, flags: int) -> None:
    """Set an attribute; the old value counts against the limit until it is replaced, as on tmpfs.

    Raises:
        EINVAL: unknown flags.
        ERANGE: the name is empty or longer than 255 bytes.
        E2BIG: the value is longer than 65536 bytes.
        EPERM: `user.*` on what is neither a regular file nor a directory.
        EOPNOTSUPP, EINVAL: as getxattr.
        EEXIST, ENODATA: XATTR_CREATE and it is there, XATTR_REPLACE and it is not.
        ENOSPC: nr_inodes leaves no room.

    """
    _check_set(inode.mode, name, value, flags)
    old = (inode.xattrs or {}).get(name)
    _check_presence(old is not None, flags)
    superblock.take_space(xattr_space(name, value))
    inode = superblock.own(inode)
    # A new dict, for readers that are listing the old one.
    inode.xattrs = {**(inode.xattrs or {}), name: bytes(value)}
    if old is not None:
        superblock.give_space(xattr_space(name, old))
    inode.ctime_ns = time.time_ns()


def removexattr(superblock: Superblock, inode: Inode, name: str) -> None:
    """Remove an attribute: as getxattr, with EPERM for a misplaced `user.*`."""
    _check_remove(inode.mode, name)
    old = (inode.xattrs or {}).get(name)
    if old is None:
        raise oserror(errno.ENODATA)
    inode = superblock.own(inode)
    inode.xattrs = {key: value for key, value in (inode.xattrs or {}).items() if key != name} or None
    superblock.give_space(xattr_space(name, old))
    inode.ctime_ns = time.time_ns()


def _check_get(mode: int, name: str) -> None:
    _check_length(name)
    if name.startswith("user.") and not _holds_user(mode):
        raise oserror(errno.ENODATA)
    _check_namespace(name)


def _check_remove(mode: int, name: str) -> None:
    _check_length(name)
    if name.startswith("user.") and not _holds_user(mode):
        raise oserror(errno.EPERM)
    _check_namespace(name)


def _check_set(mode: int, name: str, value: bytes, flags: int) -> None:
    if flags & ~(XATTR_CREATE | XATTR_REPLACE):
        raise oserror(errno.EINVAL)
    _check_length(name)
    if len(value) > XATTR_SIZE_MAX:
        raise oserror(errno.E2BIG)
    _check_remove(mode, name)


def _check_presence(present: bool, flags: int) -> None:
    if flags & XATTR_CREATE and present:
        raise oserror(errno.EEXIST)
    if flags & XATTR_REPLACE and not present:
        raise oserror(errno.ENODATA)


def _check_length(name: str) -> None:
    if not 0 < len(name.encode("utf-8", "surrogateescape")) <= _XATTR_NAME_MAX:
        raise oserror(errno.ERANGE)


def _check_namespace(name: str) -> None:
    if not name.startswith(_NAMESPACES):
        raise oserror(errno.EOPNOTSUPP)
    if name in _NAMESPACES:
        raise oserror(errno.EINVAL)


def _holds_user(mode: int) -> bool:
    return stat.S_ISREG(mode) or stat.S_ISDIR(mode)
