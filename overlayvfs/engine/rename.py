"""Renaming (ovl_rename in fs/overlayfs/dir.c; overlayfs.rst, "renaming directories"; KB 9).

The order of checks is the kernel's: first what the VFS asks, then what the overlay must refuse.
"""

import errno

from overlayvfs.abi import RENAME_EXCHANGE, RENAME_NOREPLACE, RENAME_WHITEOUT, oserror
from overlayvfs.engine import index
from overlayvfs.engine.copy_up import copy_up, set_impure
from overlayvfs.engine.dentry import Dentry
from overlayvfs.engine.inode import has_origin, inode_key, is_metacopy
from overlayvfs.engine.lookup import lookup
from overlayvfs.engine.lowers import look
from overlayvfs.engine.mount import Mount
from overlayvfs.engine.permission import WRITE, may, may_create, may_delete
from overlayvfs.engine.readdir import shows_nothing
from overlayvfs.engine.redirect import can_move, set_redirect
from overlayvfs.engine.remove import forget, prepare_unlink, shows_below
from overlayvfs.engine.resolve import Last, Target
from overlayvfs.engine.work import clear_whiteouts, discard, set_opaque
from overlayvfs.layers.base import UpperLayer


def check_flags(flags: int) -> None:
    """Raise EINVAL for flags renameat2(2) does not know or combine."""
    if flags & ~(RENAME_NOREPLACE | RENAME_EXCHANGE | RENAME_WHITEOUT):
        raise oserror(errno.EINVAL)
    if flags & RENAME_EXCHANGE and flags & (RENAME_NOREPLACE | RENAME_WHITEOUT):
        raise oserror(errno.EINVAL)


def rename(mnt: Mount, source: Target, target: Target, flags: int) -> None:
    """Move what `source` names to where `target` says, replacing, or with RENAME_EXCHANGE swapping (do_renameat2).

    Raises:
        EBUSY: `.`, `..` or the root on either side (EEXIST for the new one with RENAME_NOREPLACE).
        EROFS: the mount has no upper.
        ENOENT: nothing to move, or nothing to swap with.
        EEXIST: RENAME_NOREPLACE and the new name shows.
        ENOTDIR: a slash after a name that is no directory; a directory onto something else.
        EINVAL: a directory into itself; RENAME_WHITEOUT, which an overlay does not have.
        ENOTEMPTY: onto a directory that lies above; onto one that shows a name.
        EACCES, EPERM: a parent is not the caller's to change.
        EISDIR: something else onto a directory.
        EXDEV: a directory with lower contents and redirect_dir is not "on".

    """
    if source.last is not Last.NORM:
        raise oserror(errno.EBUSY)
    if target.last is not Last.NORM:
        raise oserror(errno.EEXIST if flags & RENAME_NOREPLACE else errno.EBUSY)
    mnt.writable_upper()
    old = lookup(mnt, source.parent, source.name)
    if old is None:
        raise oserror(errno.ENOENT)
    new = lookup(mnt, target.parent, target.name)
    _check_targets(old, new, source, target, flags)
    if new is not None and _same_object(mnt, old, new):
        return
    _check_may_move(mnt, old, new, source.parent, target.parent, flags)
    if flags & RENAME_WHITEOUT:
        raise oserror(errno.EINVAL)
    if not can_move(mnt, old):
        raise _immovable(old)
    if flags & RENAME_EXCHANGE:
        assert new is not None
        if not can_move(mnt, new):
            raise _immovable(new)
        _exchange(mnt, old, new)
    else:
        # A directory only the upper has is left to the upper to refuse, once the marks are set: so does Linux.
        if new is not None and new.lower_dir is not None and not shows_nothing(mnt, new):
            raise oserror(errno.ENOTEMPTY)
        _replace(mnt, old, new, target.parent, target.name)


def _check_targets(old: Dentry, new: Dentry | None, source: Target, target: Target, flags: int) -> None:
    if new is not None and flags & RENAME_NOREPLACE:
        raise oserror(errno.EEXIST)
    if flags & RENAME_EXCHANGE:
        if new is None:
            raise oserror(errno.ENOENT)
        if target.slash and not new.is_dir:
            raise oserror(errno.ENOTDIR)
    if not old.is_dir and (source.slash or (target.slash and not flags & RENAME_EXCHANGE)):
        raise oserror(errno.ENOTDIR)
    if old is target.parent or target.parent.is_below(old):
        raise oserror(errno.EINVAL)
    if new is not None and (new is source.parent or source.parent.is_below(new)):
        raise oserror(errno.EINVAL if flags & RENAME_EXCHANGE else errno.ENOTEMPTY)


def _same_object(mnt: Mount, old: Dentry, new: Dentry) -> bool:
    if old is new:
        return True
    if old.kind != new.kind or old.is_dir:
        return False
    return inode_key(mnt, old) == inode_key(mnt, new)


def _check_may_move(
    mnt: Mount, old: Dentry, new: Dentry | None, old_parent: Dentry, new_parent: Dentry, flags: int
) -> None:
    may_delete(mnt, old_parent, old, is_dir=old.is_dir)
    if new is None:
        may_create(mnt, new_parent)
    else:
        may_delete(mnt, new_parent, new, is_dir=new.is_dir if flags & RENAME_EXCHANGE else old.is_dir)
    if mnt.credentials.uid != 0 and old_parent is not new_parent:
        # A directory that changes its parent has its ".." rewritten.
        for moved in (old, new if flags & RENAME_EXCHANGE else None):
            if moved is not None and moved.is_dir:
                may(mnt, moved, WRITE)


def _immovable(dentry: Dentry) -> OSError:
    return oserror(
        errno.EXDEV, reason=f"directory {dentry.path} has contents in a lower; copy it, or mount with redirect_dir=on"
    )


def _replace(mnt: Mount, old: Dentry, new: Dentry | None, new_parent: Dentry, new_name: str) -> None:
    """Move over nothing, a whiteout or what may be replaced."""
    old_parent = old.parent
    assert old_parent is not None
    upper = copy_up(mnt, old)
    copy_up(mnt, new_parent)
    links_left = None if new is None else prepare_unlink(mnt, new)
    leaves_whiteout = shows_below(mnt, old)
    if old_parent is not new_parent and has_origin(mnt, old):
        set_impure(mnt, upper, new_parent)
    path = f"{new_parent.path}/{new_name}"
    over_whiteout = new is None and look(upper, path) is not None
    _mark_directory(mnt, upper, old, new_parent, same_dir=old_parent is new_parent)
    cleared = clear_whiteouts(mnt, upper, path) if new is not None and new.is_dir and new.has_upper else None
    try:
        old_path = old.path
        if over_whiteout and (leaves_whiteout or old.is_dir):
            # The whiteout there changes places with the object: it is the one to leave behind, or goes.
            upper.rename(old_path, path, RENAME_EXCHANGE)
            if not leaves_whiteout:
                discard(upper, old_path)
        else:
            upper.rename(old_path, path, RENAME_WHITEOUT if leaves_whiteout else 0)
    finally:
        if cleared is not None:
            discard(upper, cleared)
    # Committed: the upper shows the new name.
    if new is not None:
        mnt.names.changed(new)
        forget(new)
        if links_left == 0 and new.lower_file is not None:
            index.drop_if_last(mnt, new.lower_file, links_left)
    old_parent.children[old.name] = None
    _move_dentry(mnt, old, new_parent, new_name)


def _mark_directory(mnt: Mount, upper: UpperLayer, dentry: Dentry, new_parent: Dentry, *, same_dir: bool) -> None:
    """Give a moved object the mark its new place asks for (KB 4.5, 10.1, 12.7)."""
    # Another name of a file may have got it its data meanwhile.
    if dentry.is_merge_or_lower if dentry.is_dir else is_metacopy(mnt, dentry):
        set_redirect(mnt, upper, dentry, same_dir=same_dir)
    elif dentry.is_dir and not dentry.opaque and new_parent.is_merged:
        set_opaque(mnt, upper, dentry.path)
        dentry.opaque = True


def _move_dentry(mnt: Mount, dentry: Dentry, new_parent: Dentry, new_name: str) -> None:
    mnt.names.moves(dentry)
    dentry.parent, dentry.name = new_parent, new_name
    new_parent.children[new_name] = dentry
    mnt.names.moves(dentry)


def _exchange(mnt: Mount, old: Dentry, new: Dentry) -> None:
    """Swap two names (RENAME_EXCHANGE)."""
    old_parent, new_parent = old.parent, new.parent
    assert old_parent is not None and new_parent is not None
    upper = copy_up(mnt, old)
    # Also if `new` itself can't be copied up.
    copy_up(mnt, new_parent)
    copy_up(mnt, new)
    same_dir = old_parent is new_parent
    if not same_dir:
        if has_origin(mnt, old):
            set_impure(mnt, upper, new_parent)
        if has_origin(mnt, new):
            set_impure(mnt, upper, old_parent)
    _mark_directory(mnt, upper, old, new_parent, same_dir=same_dir)
    _mark_directory(mnt, upper, new, old_parent, same_dir=same_dir)
    upper.rename(old.path, new.path, RENAME_EXCHANGE)
    # Committed: the upper shows the two swapped.
    old_name = old.name
    _move_dentry(mnt, old, new_parent, new.name)
    _move_dentry(mnt, new, old_parent, old_name)
