"""Bringing an overlay's changes into another tree, or forgetting them.

A commit is all or nothing for whoever looks at its end: what stands in its way is found before anything is
written, and a failure in the middle leaves a journal (journal.py) that the same commit goes on from, or that
`roll_back` undoes.
"""

import errno
import os
from collections.abc import Collection, Sequence

from overlayvfs.abi import oserror
from overlayvfs.engine.changes import Change
from overlayvfs.engine.overlay import Overlay, held
from overlayvfs.workspace.journal import Journal, Progress, clear
from overlayvfs.workspace.plan import Conflict, conflicts, is_selected, make_plan, selected
from overlayvfs.workspace.target import STAGE, Target

ON_CONFLICT = ("error", "overwrite", "skip")


class CommitConflict(OSError):
    """The target is not what the changes were made to: ESTALE; `conflicts` says where."""

    def __init__(self, found: Sequence[Conflict]) -> None:
        self.conflicts = tuple(found)
        told = "; ".join(map(str, found[:10])) + ("; …" if len(found) > 10 else "")
        count = "1 path conflicts" if len(found) == 1 else f"{len(found)} paths conflict"
        super().__init__(errno.ESTALE, f"nothing was written, {count}: {told}")


class CommitInterrupted(OSError):
    """A step failed when others were done. The errno is its; commit again to go on, or roll back."""

    def __init__(self, error: OSError) -> None:
        reason = f"{error.strerror} (the commit stopped half way: commit again to go on, or roll it back)"
        super().__init__(error.errno, reason, error.filename)


def commit(
    source: Overlay,
    target: Target,
    *,
    paths: Collection[str] | None = None,
    dry_run: bool = False,
    on_conflict: str = "error",
    progress: Progress | None = None,
) -> list[Change]:
    """Bring what differs from the lowers into a tree that equals them; return the changes, sorted.

    Afterwards the target equals the merged tree, as far as it can hold what that holds; with `paths` only at and
    below these. If the target is a lower of `source`, the changes then leave its upper.

    Raises:
        EINVAL: an unknown `on_conflict`.
        CommitConflict: the target was changed since it was stacked; nothing was written.
        CommitInterrupted: a step failed; commit again, or roll back.
        EPERM, ENOSPC, EIO: what is new can't be made there; nothing was changed.

    """
    if on_conflict not in ON_CONFLICT:
        raise oserror(errno.EINVAL, reason=f"on_conflict={on_conflict!r}: choose one of {', '.join(ON_CONFLICT)}")
    paths = _all_or(paths)
    with held(source, target.tree):
        if not dry_run and settle(target.tree, progress) and target.number:
            source.forget_lowers()
        every, gone = _changes(source, target, on_conflict)
        base = source.view()
        try:
            chosen = selected(every, paths)
            if any(related(one.path, STAGE) and one.path != "/" for one in chosen):
                raise oserror(errno.EINVAL, STAGE, reason="commits need this name for themselves: remove it")
            differing = settled_conflicts(source, base, target, chosen, on_conflict, gone)
            if not dry_run:
                changed = {one.path for one in every}
                unchanged = [one for one in source.touched() if one not in changed and is_selected(one, paths)]
                apply(source, base, target, differing, unchanged, progress)
        finally:
            base.close()
        if target.number and not dry_run:
            # A directory that is committed has nothing below it that was skipped.
            done = [one.path for one in differing if is_selected(one.path, paths)]
            _leave_upper(source, paths if len(differing) == len(chosen) else done)
    return [one for one in differing if not (one.is_dir and one.what == ("times",))]


def _changes(source: Overlay, target: Target, on_conflict: str) -> tuple[list[Change], list[Conflict]]:
    """Return what differs from the lowers, and what vanished from the target while it was one of them."""
    try:
        return source.changes(content=True, directory_times=True), []
    except OSError as error:
        if not target.number or error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ESTALE):
            raise
        gone = [Conflict(path, "it was removed or replaced") for path in source.vanished_from_lowers()]
        if not gone:
            raise
        if on_conflict == "error":
            raise CommitConflict(gone) from error
        # What the lower has now is what there is to compare with.
        source.forget_lowers()
        return source.changes(content=True, directory_times=True), gone


def settled_conflicts(
    source: Overlay,
    base: Overlay,
    target: Target,
    changes: Sequence[Change],
    on_conflict: str,
    known: Sequence[Conflict] = (),
) -> list[Change]:
    """Return the changes to make: all if nothing conflicts, else what `on_conflict` says. CommitConflict."""
    found = [] if on_conflict == "overwrite" else [*known, *conflicts(source, base, target, changes)]
    if found and on_conflict == "error":
        raise CommitConflict(found)
    roots = tuple(one.path for one in found)
    return [one for one in changes if not any(related(one.path, root) for root in roots)]


def related(path: str, root: str) -> bool:
    """Tell whether one is the other or lies below it: a directory is left as long as anything in it is."""
    return path == root or path.startswith(root + "/") or root.startswith(path + "/")


def apply(
    source: Overlay,
    base: Overlay,
    target: Target,
    changes: Sequence[Change],
    unchanged: Sequence[str] = (),
    progress: Progress | None = None,
) -> None:
    """Make the target equal `source` at the changed paths, as one change. CommitInterrupted."""
    plan = make_plan(source, base, target, changes, unchanged)
    if not plan.steps and not plan.wanted:
        return
    journal = Journal.begin(source, target, plan, source.marks.opaque)
    try:
        journal.finish(progress)
    except OSError as error:
        raise CommitInterrupted(error) from error


def settle(tree: Overlay, progress: Progress | None = None) -> bool:
    """Go on with a commit that was interrupted, if one was; tell whether. CommitInterrupted."""
    journal = Journal.find(tree)
    if journal is None:
        clear(tree)
        return False
    try:
        journal.finish(progress)
    except OSError as error:
        raise CommitInterrupted(error) from error
    return True


def roll_back(tree: Overlay) -> bool:
    """Undo a commit into this tree that was interrupted, if one was; tell whether. CommitInterrupted."""
    with held(tree):
        journal = Journal.find(tree)
        if journal is None:
            clear(tree)
            return False
        try:
            journal.undo()
        except OSError as error:
            raise CommitInterrupted(error) from error
        return True


def discard(source: Overlay, paths: Collection[str] | None = None) -> None:
    """Forget the changes, at and below some paths or all of them: the lowers show again.

    Raises:
        EROFS: there is no upper.

    """
    paths = _all_or(paths)
    if paths is None:
        source.empty()
        return
    with held(source):
        base = source.view()
        try:
            for path in _topmost(paths):
                if not _dropped(source, path):
                    # The directory it is in hides what the lowers have at its path: that is copied back.
                    back = selected(base.changes(source, content=True, directory_times=True), [path])
                    apply(base, source, Target(source), back)
        finally:
            base.close()


def _dropped(source: Overlay, path: str) -> bool:
    try:
        return source.drop(path)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTDIR):
            raise
        return False


def _leave_upper(source: Overlay, paths: Collection[str] | None) -> None:
    if paths is None:
        source.empty()
        return
    source.forget_lowers()
    for path in _topmost(paths):
        _dropped(source, path)


def _all_or(paths: Collection[str] | None) -> Collection[str] | None:
    """Return the paths, None if they mean all."""
    return None if paths is None or any(not path.strip("/") for path in paths) else paths


def _topmost(paths: Collection[str]) -> list[str]:
    """Return the paths that lie below none of the others."""
    plain = sorted({os.path.normpath(path) for path in paths})
    return [path for path in plain if not any(path.startswith(other + "/") for other in plain)]
