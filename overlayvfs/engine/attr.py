"""Changing attributes: mode, owner, times, size (ovl_setattr in fs/overlayfs/inode.c; KB 5.6, 6)."""

import errno
import stat
import time
from collections.abc import Callable

from overlayvfs.abi import oserror
from overlayvfs.engine.copy_up import can_resize, copy_up
from overlayvfs.engine.dentry import Dentry
from overlayvfs.engine.inode import attributes
from overlayvfs.engine.mount import Mount
from overlayvfs.engine.permission import (
    WRITE,
    check_chmod,
    check_chown,
    check_utime,
    may,
    mode_after_chown,
    mode_after_write,
)
from overlayvfs.engine.work import keep_what_fits
from overlayvfs.layers.base import Handle


def chmod(mnt: Mount, dentry: Dentry, mode: int) -> None:
    """Set the permission bits.

    Raises:
        EROFS: the mount has no upper.
        EOPNOTSUPP: it is a symlink.
        EPERM: it is not the caller's.

    """
    mnt.writable_upper()
    if stat.S_ISLNK(dentry.kind):
        raise oserror(errno.EOPNOTSUPP)
    mode = check_chmod(mnt, attributes(mnt, dentry), mode)
    copy_up(mnt, dentry).chmod(dentry.path, mode)


def chown(mnt: Mount, dentry: Dentry, uid: int, gid: int) -> None:
    """Set owner and group (-1: as it is); set-id bits of other than directories go. EROFS EPERM."""
    mnt.writable_upper()
    st = attributes(mnt, dentry)
    check_chown(mnt, st, uid, gid)
    upper = copy_up(mnt, dentry)
    mode = mode_after_chown(mnt.credentials, st)
    if mode is not None:
        upper.chmod(dentry.path, mode)
    upper.chown(dentry.path, uid, gid)


def utime(mnt: Mount, dentry: Dentry, times_ns: tuple[int, int] | None) -> None:
    """Set atime and mtime, to the present if None. EROFS EPERM EACCES."""
    mnt.writable_upper()
    check_utime(mnt, dentry, attributes(mnt, dentry), now=times_ns is None)
    now = time.time_ns()
    copy_up(mnt, dentry).utime(dentry.path, *(times_ns or (now, now)))


def truncate(mnt: Mount, dentry: Dentry, size: int) -> None:
    """Cut or grow a regular file.

    Raises:
        EISDIR, EINVAL: it is a directory; it is no regular file.
        EROFS: the mount has no upper.
        EACCES: it is not the caller's to write.

    """
    if dentry.is_dir:
        raise oserror(errno.EISDIR)
    if not dentry.is_file:
        raise oserror(errno.EINVAL)
    mnt.writable_upper()
    may(mnt, dentry, WRITE)
    # What becomes of the times of a file that has this size already is for the upper to say.
    if can_resize(mnt, dentry) and size != attributes(mnt, dentry).st_size:
        copy_up(mnt, dentry, size=size, data=True)
        return
    upper = copy_up(mnt, dentry, data=True)
    handle = upper.open(dentry.path, writable=True)
    try:
        _cut(handle, size)
        drop_set_ids(mnt, handle)
    finally:
        handle.close()


def _cut(handle: Handle, size: int) -> None:
    """Do what truncate(2) does, which leaves the times of a file that had this size already to the file system."""
    by_path: Callable[[int], None] | None = getattr(handle, "truncate_by_path", None)
    if by_path is not None:
        by_path(size)
        return
    st = handle.stat()
    # As tmpfs does.
    if size != st.st_size or st.st_blocks:
        handle.truncate(size)


def resize(mnt: Mount, handle: Handle, size: int) -> None:
    """Cut or grow an open file; unlike truncate(2), ftruncate(2) and O_TRUNC make the mtime fresh in any case."""
    st = handle.stat()
    handle.truncate(size)
    drop_set_ids(mnt, handle)
    # Where the layer keeps no times it tells its own.
    keep_what_fits(handle.utime, st.st_atime_ns, time.time_ns())


def drop_set_ids(mnt: Mount, handle: Handle) -> None:
    """Take set-id bits away after somebody without privilege changed the data."""
    if mnt.credentials.uid != 0:
        mode = mode_after_write(mnt.credentials, handle.stat())
        if mode is not None:
            handle.chmod(mode)
