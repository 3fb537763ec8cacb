"""rename(2) on a file system that can only move: each case as steps, the one that shows last where there is a choice.

A whiteout is put before the object goes and taken away after the object came (spelling.py: where both
are there the object shows), so the move between is the one moment anything changes.
"""

import errno
from contextlib import suppress

from overlayvfs.abi import RENAME_EXCHANGE, RENAME_NOREPLACE, RENAME_WHITEOUT, oserror
from overlayvfs.layers.pyfs.spelling import is_reserved, opaque_in, stored, whiteout_of
from overlayvfs.layers.pyfs.steps import Steps
from overlayvfs.layers.pyfs.tree import Found, Tree


def rename(tree: Tree, src: str, dst: str, flags: int) -> None:
    """Move, replace, exchange, or leave a whiteout, as UpperLayer.rename.

    Raises:
        EINVAL: flags that exclude one another, a directory into itself, or a new name that would be a mark.
        ENOENT: `src`, with RENAME_EXCHANGE also `dst`.
        EEXIST: with RENAME_NOREPLACE.
        EISDIR, ENOTDIR, ENOTEMPTY: `dst` can't be replaced by `src`.

    """
    if flags & RENAME_EXCHANGE and flags & (RENAME_NOREPLACE | RENAME_WHITEOUT):
        raise oserror(errno.EINVAL, src, dst)
    old = tree.get(src)
    tree.check_parent(dst)
    if is_reserved(dst):
        raise oserror(errno.EINVAL, dst, reason=f"{tree.backend.name} keeps its marks in names starting .wh.")
    new = tree.find(dst)
    _check(old, new, src, dst, flags)
    if src == dst:
        return
    where = stored(dst)
    tree.park(old.path, where)
    if flags & RENAME_EXCHANGE:
        assert new is not None
        _exchange(tree, old, new)
    elif old.is_whiteout:
        _move_whiteout(tree, old, new, where, leave=bool(flags & RENAME_WHITEOUT))
    else:
        _move(tree, old, new, where, leave=bool(flags & RENAME_WHITEOUT))
    tree.stamp_parent(old.path)
    tree.stamp_parent(where)


def _check(old: Found, new: Found | None, src: str, dst: str, flags: int) -> None:
    if new is not None and flags & RENAME_NOREPLACE:
        raise oserror(errno.EEXIST, src, dst)
    if new is None and flags & RENAME_EXCHANGE:
        raise oserror(errno.ENOENT, dst)
    if dst.startswith(f"{src}/") or (flags & RENAME_EXCHANGE and src.startswith(f"{dst}/")):
        raise oserror(errno.EINVAL, src, dst)
    if src.startswith(f"{dst}/"):
        raise oserror(errno.ENOTEMPTY, src, dst)
    if new is None or flags & RENAME_EXCHANGE or src == dst:
        return
    if new.is_dir and not old.is_dir:
        raise oserror(errno.EISDIR, src, dst)
    if old.is_dir and not new.is_dir:
        raise oserror(errno.ENOTDIR, src, dst)


def _move(tree: Tree, old: Found, new: Found | None, where: str, *, leave: bool) -> None:
    """Move an object to a name that is free, a whiteout or may be replaced."""
    aside = None
    with tree.steps() as steps:
        if leave:
            steps.put_mark(whiteout_of(old.path))
        if new is not None and new.is_dir:
            remove_empty_dir(tree, steps, new)
        elif new is not None and not new.is_whiteout:
            # Replacing is no one step everywhere: a move that copies destroys the old file before the new one is there.
            aside = _put_aside(tree, steps, new)
        steps.move(old.path, where, old.stat)
    # Committed.
    if aside is not None:
        assert new is not None
        tree.lose_name(where, aside, new.stat)
    elif new is not None and new.is_dir:
        tree.forget(where, new.stat)
    elif new is not None:
        _drop_mark(tree, where)
    tree.nodes.move(old.path, where)
    tree.stamp(tree.nodes.at(where))


def _move_whiteout(tree: Tree, old: Found, new: Found | None, where: str, *, leave: bool) -> None:
    """Move a whiteout to a name that is free or no directory's."""
    mark = whiteout_of(where)
    with tree.steps() as steps:
        if new is None or not new.is_whiteout:
            steps.put_mark(mark)
        if not leave:
            steps.remove_mark(whiteout_of(old.path))
        if new is not None and not new.is_whiteout:
            remove_or_put_aside(tree, steps, new)


def _exchange(tree: Tree, old: Found, new: Found) -> None:
    if old.is_whiteout and new.is_whiteout:
        return
    if old.is_whiteout or new.is_whiteout:
        whiteout, found = (old, new) if old.is_whiteout else (new, old)
        with tree.steps() as steps:
            steps.put_mark(whiteout_of(found.path))
            steps.move(found.path, whiteout.path, found.stat)
        _drop_mark(tree, whiteout.path)
        tree.nodes.move(found.path, whiteout.path)
        return
    with tree.steps() as steps:
        aside = _put_aside(tree, steps, old)
        steps.move(new.path, old.path, new.stat)
        steps.move(aside, new.path, old.stat)
    tree.nodes.exchange(old.path, new.path)


def remove_or_put_aside(tree: Tree, steps: Steps, found: Found) -> None:
    """Take an object that is no directory out of its name, as the last step: gone, or unseen while it is open."""
    if tree.nodes.at(found.path).content is None:
        steps.remove_file(found.path)
        tree.forget(found.path, found.stat)
    else:
        tree.lose_name(found.path, _put_aside(tree, steps, found), found.stat)


def remove_empty_dir(tree: Tree, steps: Steps, found: Found) -> None:
    """Remove a directory that shows no name, whiteouts included. ENOTEMPTY."""
    listing = tree.listing(found.path)
    if listing.objects or listing.whiteouts:
        raise oserror(errno.ENOTEMPTY, found.path)
    if listing.opaque:
        steps.remove_mark(opaque_in(found.path))
    steps.remove_dir(found.path, found.stat)


def _put_aside(tree: Tree, steps: Steps, found: Found) -> str:
    """Move an object to a name nobody sees, and return that."""
    tree.ensure_work()
    aside = tree.orphan_path()
    steps.move(found.path, aside, found.stat)
    return aside


def _drop_mark(tree: Tree, where: str) -> None:
    """Remove the mark of a whiteout that does not show any more, because an object does."""
    with suppress(OSError):
        tree.backend.remove(whiteout_of(where))
