"""Removing names (ovl_do_remove in fs/overlayfs/dir.c; KB 8)."""

import errno

from overlayvfs.abi import oserror
from overlayvfs.engine import index
from overlayvfs.engine.copy_up import copy_up
from overlayvfs.engine.dentry import Dentry
from overlayvfs.engine.inode import real, real_stat
from overlayvfs.engine.mount import Mount
from overlayvfs.engine.permission import may_delete
from overlayvfs.engine.readdir import shows_nothing
from overlayvfs.engine.work import discard, put_whiteout, temp_path
from overlayvfs.layers.base import UpperLayer


def unlink(mnt: Mount, dentry: Dentry) -> None:
    """Remove a name that is no directory.

    Raises:
        EROFS: the mount has no upper.
        EACCES, EPERM: the parent is not the caller's to change.
        EISDIR: it is a directory.

    """
    _remove(mnt, dentry, is_dir=False)


def rmdir(mnt: Mount, dentry: Dentry) -> None:
    """Remove a directory that shows no name.

    Raises:
        EROFS: the mount has no upper.
        EACCES, EPERM: the parent is not the caller's to change.
        ENOTDIR: it is no directory.
        EBUSY: it is the root.
        ENOTEMPTY: a name shows in it.

    """
    _remove(mnt, dentry, is_dir=True)


def _remove(mnt: Mount, dentry: Dentry, *, is_dir: bool) -> None:
    upper = mnt.writable_upper()
    parent = dentry.parent
    if parent is None:
        raise oserror(errno.EBUSY if is_dir else errno.EISDIR)
    may_delete(mnt, parent, dentry, is_dir=is_dir)
    if is_dir and not shows_nothing(mnt, dentry):
        raise oserror(errno.ENOTEMPTY)
    copy_up(mnt, parent)
    links_left = prepare_unlink(mnt, dentry)
    if shows_below(mnt, dentry):
        put_whiteout(mnt, upper, dentry.path, over=dentry.kind if dentry.has_upper else 0)
    else:
        _remove_upper(mnt, upper, dentry)
    # Committed: the upper shows the name no more.
    mnt.names.changed(dentry)
    forget(dentry)
    if links_left == 0 and dentry.lower_file is not None:
        index.drop_if_last(mnt, dentry.lower_file, links_left)


def shows_below(mnt: Mount, dentry: Dentry) -> bool:
    """Tell whether the lowers would show something once the upper's object goes (ovl_lower_positive)."""
    if not dentry.has_upper:
        return True
    parent = dentry.parent
    return parent is not None and parent.lower_dir is not None and mnt.lowers.positive(parent.lower_dir, dentry.name)


def _remove_upper(mnt: Mount, upper: UpperLayer, dentry: Dentry) -> None:
    """Remove an object only the upper has (ovl_remove_upper); whiteouts in a directory go with it."""
    path = dentry.path
    if not dentry.is_dir:
        upper.unlink(path)
    elif upper.listdir(path):
        aside = temp_path(mnt)
        upper.rename(path, aside)
        discard(upper, aside)
    else:
        upper.rmdir(path)


def prepare_unlink(mnt: Mount, dentry: Dentry) -> int | None:
    """Get ready for a name to go: keep what its descriptors need and count its links (ovl_nlink_start).

    Returns the links the overlay will show without it, None where no index counts them.
    """
    links = None
    if index.wants_index(mnt, dentry):
        copy_up(mnt, dentry)
        links = index.nlink(mnt, dentry, real_stat(mnt, dentry)) - 1
    if dentry.descriptors and dentry.ghost is None:
        layer, path = real(mnt, dentry)
        dentry.ghost = layer.open(path)
    return links


def forget(dentry: Dentry) -> None:
    """Take a removed or replaced name out of the tree."""
    parent = dentry.parent
    assert parent is not None
    dentry.unlinked = True
    dentry.children.clear()
    if parent.children.get(dentry.name) is dentry:
        parent.children[dentry.name] = None
