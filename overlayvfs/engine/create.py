"""Making new objects (ovl_create_or_link in fs/overlayfs/dir.c; KB 7)."""

import errno
import stat
from collections.abc import Callable

from overlayvfs.abi import RENAME_EXCHANGE, Stat, oserror
from overlayvfs.engine.copy_up import copy_up, set_impure
from overlayvfs.engine.dentry import Dentry
from overlayvfs.engine.inode import has_origin
from overlayvfs.engine.lowers import look
from overlayvfs.engine.mount import Mount
from overlayvfs.engine.permission import may_create, may_link
from overlayvfs.engine.redirect import set_link_redirect
from overlayvfs.engine.work import discard, set_opaque, staged
from overlayvfs.layers.base import Handle, UpperLayer

Make = Callable[[UpperLayer, str, int, int, int], Handle | None]
"""Makes an object in the upper: layer, path, mode, uid, gid; the handle of a regular file."""


def create_file(mnt: Mount, parent: Dentry, name: str, mode: int) -> tuple[Dentry, Handle]:
    """Make an empty regular file; the open handle on it."""
    dentry, handle = _create(mnt, parent, name, stat.S_IFREG | mode & 0o7777, _make_file)
    assert handle is not None
    return dentry, handle


def create_tmpfile(mnt: Mount, directory: Dentry, mode: int) -> tuple[Dentry, Handle]:
    """Make a regular file without a name (ovl_tmpfile). EROFS ENOENT EACCES EOPNOTSUPP."""
    upper = mnt.writable_upper()
    may_create(mnt, directory)
    copy_up(mnt, directory)
    mode, uid, gid = _ownership(mnt, upper.lstat(directory.path), stat.S_IFREG | mode & 0o7777)
    handle = upper.tmpfile(stat.S_IMODE(mode), uid, gid)
    dentry = Dentry("", directory, True, None, stat.S_IFREG)
    dentry.unlinked = True
    return dentry, handle


def mkdir(mnt: Mount, parent: Dentry, name: str, mode: int) -> Dentry:
    """Make a directory; opaque where KB 4.1 and 4.3 say."""
    return _create(mnt, parent, name, stat.S_IFDIR | mode & 0o1777, _make_dir)[0]


def symlink(mnt: Mount, parent: Dentry, name: str, target: str) -> Dentry:
    """Make a symlink."""

    def make(upper: UpperLayer, path: str, mode: int, uid: int, gid: int) -> None:
        upper.symlink(target, path, uid, gid)

    return _create(mnt, parent, name, stat.S_IFLNK | 0o777, make)[0]


def mknod(mnt: Mount, parent: Dentry, name: str, mode: int, rdev: int) -> Dentry:
    """Make a fifo, socket, device node or regular file.

    Raises:
        EPERM: a device without privilege, or a character device 0/0: it would be a whiteout (KB 3.16).

    """
    kind = stat.S_IFMT(mode) or stat.S_IFREG
    is_device = kind in (stat.S_IFCHR, stat.S_IFBLK)
    makes_whiteout = kind == stat.S_IFCHR and rdev == 0
    mnt.writable_upper()
    may_create(mnt, parent)
    if is_device and mnt.credentials.uid != 0 and not makes_whiteout:
        raise oserror(errno.EPERM)
    if makes_whiteout and not mnt.bare:
        raise oserror(errno.EPERM, reason="a character device 0/0 is a whiteout, which only the overlay makes")
    if kind == stat.S_IFREG:
        dentry, handle = create_file(mnt, parent, name, mode)
        handle.close()
        return dentry

    def make(upper: UpperLayer, path: str, mode: int, uid: int, gid: int) -> None:
        upper.mknod(path, mode, rdev, uid, gid)

    return _create(mnt, parent, name, kind | mode & 0o7777, make)[0]


def _make_file(upper: UpperLayer, path: str, mode: int, uid: int, gid: int) -> Handle:
    return upper.create(path, stat.S_IMODE(mode), uid, gid)


def _make_dir(upper: UpperLayer, path: str, mode: int, uid: int, gid: int) -> None:
    upper.mkdir(path, stat.S_IMODE(mode), uid, gid)


def _create(mnt: Mount, parent: Dentry, name: str, mode: int, make: Make) -> tuple[Dentry, Handle | None]:
    """Make an object at a name where nothing shows.

    Raises:
        EROFS: the mount has no upper.
        ENOENT: the directory was removed.
        EACCES: it is not the caller's to write.

    """
    upper = mnt.writable_upper()
    may_create(mnt, parent)
    copy_up(mnt, parent)
    path = f"{parent.path}/{name}"
    mode, uid, gid = _ownership(mnt, upper.lstat(parent.path), mode)
    below = look(upper, path)
    if below is None:
        handle = _make_in_place(mnt, upper, parent, path, mode, uid, gid, make)
    else:
        handle = _make_over_whiteout(mnt, upper, path, mode, uid, gid, make)
    # Committed: the upper shows the object.
    dentry = Dentry(name, parent, True, None, stat.S_IFMT(mode))
    parent.children[name] = dentry
    mnt.names.changed(dentry)
    return dentry, handle


def _ownership(mnt: Mount, parent: Stat, mode: int) -> tuple[int, int, int]:
    """Return mode, uid and gid of a new object: umask and set-group-id directories count (inode_init_owner)."""
    who = mnt.credentials
    kind, bits = stat.S_IFMT(mode), stat.S_IMODE(mode)
    if kind != stat.S_IFLNK:
        bits &= ~who.umask
    gid = who.gid
    if parent.st_mode & stat.S_ISGID:
        gid = parent.st_gid
        if kind == stat.S_IFDIR:
            bits |= stat.S_ISGID
        elif bits & stat.S_ISGID and bits & stat.S_IXGRP and who.uid != 0 and not who.is_member(gid):
            bits &= ~stat.S_ISGID
    return kind | bits, who.uid, gid


def _make_in_place(
    mnt: Mount, upper: UpperLayer, parent: Dentry, path: str, mode: int, uid: int, gid: int, make: Make
) -> Handle | None:
    """Make an object at a free name of the upper (ovl_create_upper)."""
    handle = make(upper, path, mode, uid, gid)
    if stat.S_ISDIR(mode) and parent.is_merged and not mnt.options.allows_offline_changes:
        # Saves lookups below it and guards against a lower that changes while not mounted; nothing is lost without.
        try:
            set_opaque(mnt, upper, path)
        except OSError:
            pass
    return handle


def _make_over_whiteout(
    mnt: Mount, upper: UpperLayer, path: str, mode: int, uid: int, gid: int, make: Make
) -> Handle | None:
    """Make an object aside and put it in the whiteout's place; a directory opaque (ovl_create_over_whiteout)."""
    with staged(mnt, upper) as temp:
        handle = make(upper, temp, mode, uid, gid)
        try:
            if stat.S_ISDIR(mode):
                set_opaque(mnt, upper, temp)
                upper.rename(temp, path, RENAME_EXCHANGE)
            else:
                upper.rename(temp, path)
        except BaseException:
            if handle is not None:
                handle.close()
            raise
    if stat.S_ISDIR(mode):
        discard(upper, temp)
    return handle


def link(mnt: Mount, source: Dentry, parent: Dentry, name: str) -> None:
    """Give an object a second name where nothing shows (ovl_link; KB 11.4).

    Raises:
        EROFS: the mount has no upper.
        EPERM: the source is neither the caller's nor a file it may read and write.
        ENOENT: the directory or the source was removed.
        EACCES: the directory is not the caller's to write.
        EPERM: the source is a directory, or the upper has no hard links.

    """
    upper = mnt.writable_upper()
    may_link(mnt, source)
    may_create(mnt, parent)
    if source.is_dir:
        raise oserror(errno.EPERM)
    if source.unlinked:
        raise oserror(errno.ENOENT)
    copy_up(mnt, source)
    copy_up(mnt, parent)
    set_link_redirect(mnt, upper, source)
    path = f"{parent.path}/{name}"
    if has_origin(mnt, source):
        set_impure(mnt, upper, parent)
    if look(upper, path) is None:
        upper.link(source.path, path)
    else:
        with staged(mnt, upper) as temp:
            upper.link(source.path, temp)
            upper.rename(temp, path)
    # Committed: the upper shows the second name.
    twin = Dentry(name, parent, True, source.lower, source.kind)
    twin.metacopy, twin.redirect = source.metacopy, source.redirect
    parent.children[name] = twin
    if source.metacopy:
        # As Linux does of every link (ovl_instantiate): whether its redirect leads to the contents shows at a lookup.
        del parent.children[name]
    mnt.names.changed(twin)
