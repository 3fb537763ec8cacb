"""open(2): what the flags ask, in the order the VFS looks at them (path_openat in fs/namei.c; KB 18)."""

import errno
import stat

from overlayvfs.abi import (
    O_ACCMODE,
    O_CREAT,
    O_DIRECTORY,
    O_EXCL,
    O_NOATIME,
    O_NOFOLLOW,
    O_PATH,
    O_RDONLY,
    O_RDWR,
    O_TMPFILE,
    O_TRUNC,
    O_WRONLY,
    oserror,
)
from overlayvfs.engine.attr import resize
from overlayvfs.engine.copy_up import can_resize, copy_up
from overlayvfs.engine.create import create_file, create_tmpfile
from overlayvfs.engine.dentry import Dentry
from overlayvfs.engine.file import File
from overlayvfs.engine.inode import adopt_handle, attributes, open_inode
from overlayvfs.engine.mount import Mount
from overlayvfs.engine.permission import READ, WRITE, may, owns
from overlayvfs.engine.resolve import Last, Target, find, find_parent, follow_link, last_component

_ONLY_WITH_PATH = O_PATH | O_DIRECTORY | O_NOFOLLOW
_TMPFILE = O_TMPFILE & ~O_DIRECTORY
"""__O_TMPFILE, which is nothing alone: systems that don't know it then open the directory, and fail to write it."""


def open_file(mnt: Mount, path: str, flags: int, mode: int) -> File:
    """Open or create the object at `path`.

    Raises:
        EINVAL: flags that exclude one another.
        ENOENT, ENAMETOOLONG, ENOTDIR, ELOOP, EACCES: as path_resolution(7); ELOOP for a symlink with O_NOFOLLOW.
        EISDIR: a name with a slash to be created; a directory to be written or with O_CREAT.
        EEXIST: O_CREAT and O_EXCL, and the name shows.
        EROFS: writing or creating, and the mount has no upper.
        EPERM: O_NOATIME, and the object is somebody else's.
        ENXIO: a fifo, socket or device: nothing a library could open.

    """
    if flags & O_PATH:
        flags &= _ONLY_WITH_PATH
    elif flags & O_CREAT and flags & O_DIRECTORY:
        raise oserror(errno.EINVAL)
    elif flags & _TMPFILE:
        return _open_tmpfile(mnt, path, flags, mode)
    target = find_parent(mnt, path)
    while True:
        if flags & O_CREAT and target.slash and target.last is Last.NORM:
            raise oserror(errno.EISDIR)
        dentry = last_component(mnt, target)
        if dentry is None:
            if not flags & O_CREAT:
                raise oserror(errno.ENOENT)
            return _create(mnt, target, flags, mode)
        if not stat.S_ISLNK(dentry.kind) or not _follows(target, flags):
            return _open_existing(mnt, dentry, flags, must_be_dir=bool(flags & O_DIRECTORY) or target.slash)
        target = follow_link(mnt, target, dentry)


def _follows(target: Target, flags: int) -> bool:
    if flags & O_CREAT and flags & O_EXCL:
        return False
    return target.slash or not flags & O_NOFOLLOW


def _open_tmpfile(mnt: Mount, path: str, flags: int, mode: int) -> File:
    """Open a file without a name in directory `path` (O_TMPFILE)."""
    if flags & O_ACCMODE == O_RDONLY or flags & O_CREAT or not flags & O_DIRECTORY:
        raise oserror(errno.EINVAL)
    directory = find(mnt, path, follow=not flags & O_NOFOLLOW)
    if not directory.is_dir:
        raise oserror(errno.ENOTDIR)
    dentry, handle = create_tmpfile(mnt, directory, mode)
    return File(mnt, dentry, flags, adopt_handle(mnt, dentry, handle))


def _create(mnt: Mount, target: Target, flags: int, mode: int) -> File:
    dentry, handle = create_file(mnt, target.parent, target.name, mode)
    return File(mnt, dentry, flags, adopt_handle(mnt, dentry, handle))


def _open_existing(mnt: Mount, dentry: Dentry, flags: int, *, must_be_dir: bool) -> File:
    """Open what is there (do_open)."""
    _check_may_open(mnt, dentry, flags, must_be_dir=must_be_dir)
    # O_WRONLY | O_RDWR asks for the rights to both and grants neither.
    writes = flags & O_ACCMODE in (O_WRONLY, O_RDWR) or bool(flags & O_TRUNC)
    if flags & O_PATH or dentry.is_dir:
        return File(mnt, dentry, flags, None)
    empties = bool(flags & O_TRUNC)
    if empties and can_resize(mnt, dentry):
        copy_up(mnt, dentry, size=0, data=True)
        empties = False
    elif writes:
        copy_up(mnt, dentry, data=True)
    inode = open_inode(mnt, dentry, writable=writes)
    try:
        if empties:
            resize(mnt, inode.data, 0)
        return File(mnt, dentry, flags, inode)
    except BaseException:
        inode.release()
        raise


def _check_may_open(mnt: Mount, dentry: Dentry, flags: int, *, must_be_dir: bool) -> None:
    """Refuse what can't be opened this way, in the kernel's order (do_open, may_open)."""
    writes = flags & O_ACCMODE != O_RDONLY or bool(flags & O_TRUNC)
    if flags & O_CREAT and flags & O_EXCL:
        raise oserror(errno.EEXIST)
    if flags & O_CREAT and dentry.is_dir:
        raise oserror(errno.EISDIR)
    if must_be_dir and not dentry.is_dir:
        raise oserror(errno.ENOTDIR)
    if flags & O_PATH:
        return
    if stat.S_ISLNK(dentry.kind):
        raise oserror(errno.ELOOP)
    if dentry.is_dir and writes:
        raise oserror(errno.EISDIR)
    if writes and dentry.is_file:
        mnt.writable_upper()
    may(mnt, dentry, (WRITE if writes else 0) | (0 if flags & O_ACCMODE == O_WRONLY else READ))
    if flags & O_NOATIME and not owns(mnt, attributes(mnt, dentry)):
        raise oserror(errno.EPERM)
    if not dentry.is_dir and not dentry.is_file:
        raise oserror(errno.ENXIO, reason="fifos, sockets and devices can't be opened in an overlay without a kernel")
