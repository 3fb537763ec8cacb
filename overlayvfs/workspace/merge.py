"""Bringing a fork's changes back into the overlay it was forked from, with the fork point as the base of both."""

import errno
import stat
from collections.abc import Collection, Sequence

from overlayvfs.abi import Stat, oserror
from overlayvfs.engine.changes import Change
from overlayvfs.engine.overlay import Overlay, held
from overlayvfs.workspace.commit import ON_CONFLICT, CommitConflict, apply, related, settle
from overlayvfs.workspace.journal import Journal
from overlayvfs.workspace.plan import Conflict, alike
from overlayvfs.workspace.target import Target, look, parents
from overlayvfs.workspace.transfer import attributes_of


def merge(parent: Overlay, fork: Overlay, *, on_conflict: str = "error") -> list[Change]:
    """Change in the parent what the fork changed since it was made (or last merged); return that, sorted.

    The fork stays what it is and can be merged again. Whatever fails, the parent is as it was.

    Raises:
        EINVAL: an unknown `on_conflict`; `fork` was not forked from `parent`.
        CommitConflict: both changed the same path, and not alike.
        ENOSPC, EIO: nothing was changed.

    """
    if on_conflict not in ON_CONFLICT:
        raise oserror(errno.EINVAL, reason=f"on_conflict={on_conflict!r}: choose one of {', '.join(ON_CONFLICT)}")
    with held(parent, fork):
        base = fork.fork_point(parent)
        settle(parent)
        theirs = _of_substance(fork.changes(base, content=True))
        ours = _of_substance(parent.changes(base, content=True))
        found = _conflicts(parent, fork, ours, theirs)
        if found and on_conflict == "error":
            raise CommitConflict(found)
        kept = [one.path for one in found] if on_conflict == "skip" else []
        wanted = [one for one in theirs if not any(related(one.path, path) for path in kept)]
        done = [one for one in wanted if not _same(parent, fork, one.path)]
        _apply_whole(parent, fork, done)
        fork.merged_into(parent)
        return done


def _apply_whole(parent: Overlay, fork: Overlay, changes: Sequence[Change]) -> None:
    try:
        apply(fork, parent, Target(parent), changes)
    except OSError:
        journal = Journal.find(parent)
        if journal is not None:
            journal.undo()
        raise


def _of_substance(changes: Sequence[Change]) -> list[Change]:
    """Leave out the root: its attributes are each overlay's own."""
    return [one for one in changes if one.path != "/"]


def _conflicts(parent: Overlay, fork: Overlay, ours: Sequence[Change], theirs: Sequence[Change]) -> list[Conflict]:
    mine = {one.path for one in ours}
    found = {
        one.path: "both changed it" for one in theirs if one.path in mine and not _same(parent, fork, one.path)
    }
    gone_here, gone_there = _removed_directories(ours), _removed_directories(theirs)
    for one in theirs:
        if one.kind != "D" and _is_below(one.path, gone_here):
            found.setdefault(one.path, "the fork changed it, and the directory it is in was removed here")
    for one in ours:
        if one.kind != "D" and _is_below(one.path, gone_there):
            found.setdefault(one.path, "it was changed here, and the fork removed the directory it is in")
    return [Conflict(path, found[path]) for path in sorted(found)]


def _removed_directories(changes: Sequence[Change]) -> set[str]:
    """Return the paths at which there is no directory any more, though there may have been one."""
    return {one.path for one in changes if one.kind == "D" or ("type" in one.what and not one.is_dir)}


def _is_below(path: str, directories: Collection[str]) -> bool:
    return any(parent in directories for parent in parents(path))


def _same(one: Overlay, other: Overlay, path: str) -> bool:
    """Tell whether two overlays show the same at a path, times aside."""
    st, st2 = look(one, path), look(other, path)
    if not alike(one, st, other, st2, path):
        return False
    return st is None or st2 is None or _attributes(one, path, st) == _attributes(other, path, st2)


def _attributes(tree: Overlay, path: str, st: Stat) -> tuple[object, ...]:
    told = attributes_of(tree, path, st)
    mode = None if stat.S_ISLNK(st.st_mode) else told["mode"]
    return mode, told["uid"], told["gid"], told["xattrs"]
