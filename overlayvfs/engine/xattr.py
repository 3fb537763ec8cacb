"""Extended attributes of the merged tree (fs/overlayfs/xattrs.c, fs/xattr.c; KB 16).

The mount's own marks are hidden; a caller's attribute of such a name is escaped into a layer.
"""

import errno
import stat

from overlayvfs.abi import XATTR_CREATE, XATTR_REPLACE, XATTR_SIZE_MAX, Stat, oserror
from overlayvfs.engine.copy_up import copy_up
from overlayvfs.engine.dentry import Dentry
from overlayvfs.engine.inode import attributes, real
from overlayvfs.engine.mount import Mount
from overlayvfs.engine.permission import READ, WRITE, allowed, owns

_NAME_MAX = 255


def check_name(name: str) -> None:
    """Raise ERANGE for an empty name or one over 255 bytes."""
    if not name or _length(name) > _NAME_MAX:
        raise oserror(errno.ERANGE)


def _length(name: str) -> int:
    return len(name.encode("utf-8", "surrogateescape"))


def check_setxattr(name: str, value: bytes, flags: int) -> None:
    """Check the arguments that need no object (setxattr_copy).

    Raises:
        EINVAL: flags other than XATTR_CREATE or XATTR_REPLACE.
        ERANGE: as check_name.
        E2BIG: a value over 65536 bytes.

    """
    if flags & ~(XATTR_CREATE | XATTR_REPLACE):
        raise oserror(errno.EINVAL)
    check_name(name)
    if len(value) > XATTR_SIZE_MAX:
        raise oserror(errno.E2BIG)


def get(mnt: Mount, dentry: Dentry, name: str) -> bytes:
    """Return an attribute's value.

    Raises:
        ENODATA: absent, hidden, `user.*` on other than a file or directory, or `trusted.*` without privilege.
        EACCES: `user.*` of an object the caller can't read.
        EOPNOTSUPP, EINVAL: no such namespace; nothing after its dot.

    """
    stored = stored_name(mnt, dentry.kind, attributes(mnt, dentry), name, writing=False)
    layer, path = real(mnt, dentry)
    return layer.getxattr(path, stored)


def list_names(mnt: Mount, dentry: Dentry) -> list[str]:
    """Return the names a caller may see."""
    layer, path = real(mnt, dentry)
    return visible(mnt, layer.listxattr(path))


def visible(mnt: Mount, stored: list[str]) -> list[str]:
    """Return the caller's names for stored attributes, without the mount's own marks."""
    shown = (mnt.marks.unescape(name) for name in stored)
    privileged = mnt.credentials.uid == 0
    return [name for name in shown if name is not None and (privileged or not name.startswith("trusted."))]


def set_value(mnt: Mount, dentry: Dentry, name: str, value: bytes, flags: int) -> None:
    """Set an attribute (arguments were checked by check_setxattr).

    Raises:
        EROFS: no upper.
        EPERM: `user.*` on other than a file or directory, a foreign sticky directory, `trusted.*` without privilege.
        EACCES: `user.*` of an object the caller can't write.
        EEXIST, ENODATA: XATTR_CREATE of a present name, XATTR_REPLACE of an absent one.
        EOPNOTSUPP, EINVAL: no such namespace; nothing after its dot.

    """
    upper = mnt.writable_upper()
    stored = stored_name(mnt, dentry.kind, attributes(mnt, dentry), name, writing=True)
    if real(mnt, dentry)[0] is not upper:
        copy_up(mnt, dentry)
    # A lower hard link whose inode is in the index needs no name of its own in the upper for this.
    upper.setxattr(real(mnt, dentry)[1], stored, value, flags)


def remove(mnt: Mount, dentry: Dentry, name: str) -> None:
    """Remove an attribute; ENODATA (and no copy up) if it is not there; else as set_value."""
    upper = mnt.writable_upper()
    stored = stored_name(mnt, dentry.kind, attributes(mnt, dentry), name, writing=True)
    layer, path = real(mnt, dentry)
    if layer is not upper:
        layer.getxattr(path, stored)
        copy_up(mnt, dentry)
    upper.removexattr(real(mnt, dentry)[1], stored)


def stored_name(mnt: Mount, kind: int, st: Stat, name: str, *, writing: bool) -> str:
    """Return under which name a layer keeps an attribute the caller may read or write.

    Raises:
        EPERM, ENODATA, EACCES: the caller may not.
        EINVAL: nothing after the prefix of the mount's own marks.
        EOPNOTSUPP: a name that is too long once it is escaped (ovl_xattr_escape_name).

    """
    _permit(mnt, kind, st, name, writing=writing)
    if name == mnt.marks.prefix:
        raise oserror(errno.EINVAL)
    stored = mnt.marks.escape(name)
    if _length(stored) > _NAME_MAX:
        raise oserror(errno.EOPNOTSUPP)
    return stored


def _permit(mnt: Mount, kind: int, st: Stat, name: str, *, writing: bool) -> None:
    """Check the rules of the name's namespace for an object of this kind and attributes (xattr_permission)."""
    refusal = errno.EPERM if writing else errno.ENODATA
    who = mnt.credentials
    if name.startswith("system."):
        # What is behind such a name decides, and here there is nothing: the layer says so.
        return
    if name.startswith("security."):
        if writing and who.uid != 0:
            raise oserror(errno.EPERM)
        return
    if name.startswith("trusted."):
        if who.uid != 0:
            raise oserror(refusal)
        return
    if name.startswith("user."):
        if kind not in (stat.S_IFREG, stat.S_IFDIR):
            raise oserror(refusal)
        if writing and kind == stat.S_IFDIR and st.st_mode & stat.S_ISVTX and not owns(mnt, st):
            raise oserror(errno.EPERM)
    # Asked for names of no known namespace too, before their layer refuses them.
    if not allowed(who, st, WRITE if writing else READ):
        raise oserror(errno.EACCES)
