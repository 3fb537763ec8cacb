"""Attributes in the model: stat, modes, owners, extended attributes (KB 14, 16)."""

import errno
import os
import stat

from overlayvfs.abi import NAME_MAX, PAGE_SIZE, XATTR_CREATE, XATTR_REPLACE, XATTR_SIZE_MAX, oserror
from overlayvfs.testing.model.changes import copy_up
from overlayvfs.testing.model.inodes import Inode
from overlayvfs.testing.model.union import ESCAPED, MARKS, Found, Union, is_mark


def stat_result(union: Union, found: Found) -> os.stat_result:
    """Return what stat(2) tells. The number is the lower object's if one is known (KB 14)."""
    inode = union.real(found)
    links = 1 if inode.is_dir and union.is_merged(found) else inode.links
    number = (found.lowers[0][1] if inode.is_dir and found.lowers else inode.origin or inode).number
    seconds = (time_ns // 10**9 for time_ns in (inode.atime_ns, inode.mtime_ns, inode.ctime_ns))
    return os.stat_result(
        (inode.mode, number, 1, links, inode.uid, inode.gid, inode.size, *seconds),
        {
            "st_rdev": inode.rdev,
            "st_blocks": len(inode.pages) * PAGE_SIZE // 512,
            "st_atime_ns": inode.atime_ns,
            "st_mtime_ns": inode.mtime_ns,
            "st_ctime_ns": inode.ctime_ns,
        },
    )


def change_mode(union: Union, found: Found, mode: int) -> None:
    """Set the permission bits."""
    inode = copy_up(union, found)
    inode.mode = stat.S_IFMT(inode.mode) | stat.S_IMODE(mode)


def change_owner(union: Union, found: Found, uid: int, gid: int) -> None:
    """Set user and group, -1 leaves one; what is no directory loses its set-id bits."""
    inode = copy_up(union, found)
    inode.uid = inode.uid if uid == -1 else uid
    inode.gid = inode.gid if gid == -1 else gid
    if not inode.is_dir:
        inode.mode &= ~stat.S_ISUID
        if inode.mode & stat.S_IXGRP:
            inode.mode &= ~stat.S_ISGID


def change_times(union: Union, found: Found, atime_ns: int, mtime_ns: int) -> None:
    """Set both times."""
    inode = copy_up(union, found)
    inode.atime_ns, inode.mtime_ns = atime_ns, mtime_ns


# Extended attributes.


def check_name(name: str) -> None:
    """Raise ERANGE for a name that no system call takes."""
    if not 0 < len(os.fsencode(name)) <= NAME_MAX:
        raise oserror(errno.ERANGE, name)


def check_value(value: bytes, flags: int) -> None:
    """Raise EINVAL or E2BIG for flags and a value that no system call takes."""
    if flags & ~(XATTR_CREATE | XATTR_REPLACE):
        raise oserror(errno.EINVAL)
    if len(value) > XATTR_SIZE_MAX:
        raise oserror(errno.E2BIG)


def get_value(union: Union, found: Found, name: str) -> bytes:
    """Return an attribute's value.

    Raises:
        ENODATA: there is none, or it is one of the overlay's own, or `user.*` of other than a file or directory.
        EINVAL EOPNOTSUPP: no such kind of name.

    """
    inode = union.real(found)
    if name.startswith("user.") and not (inode.is_file or inode.is_dir):
        raise oserror(errno.ENODATA, name)
    return _value(inode, _stored(union, name))


def names_of(union: Union, found: Found) -> list[str]:
    """Return the names of all attributes but the overlay's own."""
    names = list(union.real(found).xattrs)
    if union.is_plain:
        return names
    return [
        MARKS + name.removeprefix(ESCAPED) if name.startswith(ESCAPED) else name for name in names if not is_mark(name)
    ]


def set_value(union: Union, found: Found, name: str, value: bytes, flags: int) -> None:
    """Set an attribute; a lower object is copied up even if that fails (KB 5.6).

    Raises:
        EPERM: `user.*` on other than a file or directory.
        EINVAL EOPNOTSUPP: no such kind of name.
        EEXIST ENODATA: what XATTR_CREATE and XATTR_REPLACE say.

    """
    _check_may_have(union.real(found), name)
    stored = _stored(union, name)
    inode = copy_up(union, found)
    _check_kind(stored)
    if flags & XATTR_CREATE and stored in inode.xattrs:
        raise oserror(errno.EEXIST, name)
    if flags & XATTR_REPLACE and stored not in inode.xattrs:
        raise oserror(errno.ENODATA, name)
    inode.xattrs[stored] = value


def remove_value(union: Union, found: Found, name: str) -> None:
    """Remove an attribute. A lower object is not copied up if it has none of this name.

    Raises:
        EPERM: `user.*` on other than a file or directory.
        EINVAL EOPNOTSUPP: no such kind of name.
        ENODATA: it has none.

    """
    _check_may_have(union.real(found), name)
    stored = _stored(union, name)
    _value(union.real(found), stored)
    del copy_up(union, found).xattrs[stored]


def _check_may_have(inode: Inode, name: str) -> None:
    if name.startswith("user.") and not (inode.is_file or inode.is_dir):
        raise oserror(errno.EPERM, name)


def _stored(union: Union, name: str) -> str:
    """Return the name under which a layer has an attribute: a caller's is none of the overlay's own (KB 16.2)."""
    if union.is_plain or not name.startswith(MARKS):
        return name
    if name == MARKS:
        raise oserror(errno.EINVAL, name)
    stored = ESCAPED + name.removeprefix(MARKS)
    if len(os.fsencode(stored)) > NAME_MAX:
        raise oserror(errno.EOPNOTSUPP, name)
    return stored


def _value(inode: Inode, stored: str) -> bytes:
    _check_kind(stored)
    if stored not in inode.xattrs:
        raise oserror(errno.ENODATA, stored)
    return inode.xattrs[stored]


def _check_kind(stored: str) -> None:
    """Check what tmpfs says of a name."""
    kind, dot, rest = stored.partition(".")
    if not dot or kind not in ("user", "trusted", "security"):
        raise oserror(errno.EOPNOTSUPP, stored)
    if not rest:
        raise oserror(errno.EINVAL, stored)
