"""Doing many changes as one: prepared beside the tree, written down, then done, and undone if asked.

All that is new is made under STAGE first; then the journal is written, in one rename; then each step moves one
name: what was there to STAGE, what is new from there. So every step can be done again (it sees that it was done)
and undone, from the journal alone, by another process too. The work is over when the journal is gone.

    STAGE/new/7     what step 7 shows
    STAGE/old/7     what was in its place
    STAGE/journal   the steps, and the attributes of directories before and after, as JSON
"""

import errno
import json
import stat
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from overlayvfs.abi import O_CREAT, O_EXCL, O_RDONLY, O_WRONLY, RENAME_NOREPLACE, oserror
from overlayvfs.engine.overlay import Overlay
from overlayvfs.workspace.plan import Plan, Step
from overlayvfs.workspace.target import STAGE, Target, look
from overlayvfs.workspace.transfer import Attributes, copy_object, set_attributes, times_of

Progress = Callable[[int, int, str], object]
"""Called with the steps done, the steps in all, and the path of the last one."""

_JOURNAL = f"{STAGE}/journal"
_OURS = frozenset({"new", "old", "journal", "journal.new"})
_CHUNK = 1 << 20


class Journal:
    """The steps of one commit into one tree."""

    def __init__(
        self, tree: Overlay, steps: list[Step], wanted: dict[str, Attributes], before: dict[str, Attributes]
    ) -> None:
        self._tree = tree
        self._steps = steps
        self._wanted = wanted
        self._before = before

    @classmethod
    def find(cls, tree: Overlay) -> "Journal | None":
        """Return the journal a commit left behind, None if there is none. EIO: it is none of ours."""
        if look(tree, _JOURNAL) is None:
            return None
        try:
            told: dict[str, Any] = json.loads(_read(tree, _JOURNAL))
            return cls(tree, [Step(*step) for step in told["steps"]], told["wanted"], told["before"])
        except (ValueError, TypeError, KeyError) as error:
            raise oserror(errno.EIO, _JOURNAL, reason="this is no journal of a commit: move it away") from error

    @classmethod
    def begin(cls, source: Overlay, target: Target, plan: Plan, opaque_mark: str) -> "Journal":
        """Prepare all that is new and write the journal; whatever fails, the tree is as it was."""
        tree = target.tree
        root = tree.stat("/")
        journal = cls(tree, plan.steps, plan.wanted, plan.before)
        journal._before.setdefault("/", times_of(root))
        journal._wanted.setdefault("/", times_of(root))
        for path in plan.opaque:
            journal._wanted[path]["xattrs"][opaque_mark] = "eQ=="
        try:
            clear(tree)
            for directory in (STAGE, f"{STAGE}/new", f"{STAGE}/old"):
                tree.mkdir(directory, 0o700)
            for step in plan.steps:
                if step.verb == "put":
                    _stage(source, tree, plan, step)
            journal._write()
        except BaseException:
            with suppress(OSError):
                clear(tree)
                set_attributes(tree, "/", times_of(root))
            raise
        return journal

    def _write(self) -> None:
        told = {"steps": self._steps_told(), "wanted": self._wanted, "before": self._before}
        _write(self._tree, f"{_JOURNAL}.new", json.dumps(told).encode())
        self._tree.rename(f"{_JOURNAL}.new", _JOURNAL, RENAME_NOREPLACE)

    def _steps_told(self) -> list[list[Any]]:
        return [[step.verb, step.path, step.number, step.replaces] for step in self._steps]

    def finish(self, progress: Progress | None = None) -> None:
        """Do every step that is not done yet; an error leaves the journal, to go on or to undo."""
        total = len(self._steps)
        for done, step in enumerate(self._steps, 1):
            _DO[step.verb](self._tree, step)
            if progress is not None:
                progress(done, total, step.path)
        self._set(self._wanted)
        self._end(self._wanted["/"])

    def undo(self) -> None:
        """Undo every step that was done; an error leaves the journal, to undo again or to go on."""
        for step in reversed(self._steps):
            _UNDO[step.verb](self._tree, step)
        self._set(self._before)
        self._end(self._before["/"])

    def _set(self, attributes: dict[str, Attributes]) -> None:
        # The deepest first: nothing below changes a directory's times afterwards.
        for path in sorted(attributes, reverse=True):
            if look(self._tree, path) is not None:
                set_attributes(self._tree, path, attributes[path])

    def _end(self, root: Attributes) -> None:
        """Forget the journal, which is the end of it, and clean up."""
        self._tree.unlink(_JOURNAL)
        clear(self._tree)
        set_attributes(self._tree, "/", root)


def clear(tree: Overlay) -> None:
    """Remove STAGE with all it holds; the journal first. EEXIST: it is none of ours."""
    st = look(tree, STAGE)
    if st is None:
        return
    if not stat.S_ISDIR(st.st_mode) or not _OURS.issuperset(entry.d_name for entry in tree.listdir(STAGE)):
        raise oserror(errno.EEXIST, STAGE, reason="commits prepare what is new under this name: move it away")
    if look(tree, _JOURNAL) is not None:
        tree.unlink(_JOURNAL)
    pending = [STAGE]
    for directory in pending:
        for entry in tree.listdir(directory):
            path = f"{directory}/{entry.d_name}"
            if stat.S_ISDIR(tree.stat(path, follow=False).st_mode):
                pending.append(path)
            else:
                tree.unlink(path)
    for directory in reversed(pending):
        tree.rmdir(directory)


def _stage(source: Overlay, tree: Overlay, plan: Plan, step: Step) -> None:
    """Make what a step shows; errors name the path it will have."""
    try:
        _make(source, tree, plan, step)
    except OSError as error:
        raise OSError(error.errno, error.strerror, step.path) from error


def _make(source: Overlay, tree: Overlay, plan: Plan, step: Step) -> None:
    new = _new(step)
    if step.number in plan.links and tree.hard_links:
        tree.link(f"{STAGE}/new/{plan.links[step.number]}", new)
    elif step.number in plan.contents:
        path, attributes = plan.contents[step.number]
        copy_object(source, path, tree, new, attributes)
    else:
        tree.mknod(new, stat.S_IFCHR, 0)


def _new(step: Step) -> str:
    return f"{STAGE}/new/{step.number}"


def _old(step: Step) -> str:
    return f"{STAGE}/old/{step.number}"


# Each looks where things are before it moves them, so that doing or undoing it twice, or from the middle, is right.


def _put(tree: Overlay, step: Step) -> None:
    if look(tree, _new(step)) is None:
        return
    if step.replaces and look(tree, _old(step)) is None:
        tree.rename(step.path, _old(step), RENAME_NOREPLACE)
    tree.rename(_new(step), step.path, RENAME_NOREPLACE)


def _unput(tree: Overlay, step: Step) -> None:
    if look(tree, _new(step)) is None:
        tree.rename(step.path, _new(step), RENAME_NOREPLACE)
    if look(tree, _old(step)) is not None:
        tree.rename(_old(step), step.path, RENAME_NOREPLACE)


def _remove(tree: Overlay, step: Step) -> None:
    if look(tree, _old(step)) is None:
        tree.rename(step.path, _old(step), RENAME_NOREPLACE)


def _restore(tree: Overlay, step: Step) -> None:
    if look(tree, _old(step)) is not None:
        tree.rename(_old(step), step.path, RENAME_NOREPLACE)


def _mkdir(tree: Overlay, step: Step) -> None:
    if look(tree, step.path) is None:
        tree.mkdir(step.path, 0o700)


def _rmdir(tree: Overlay, step: Step) -> None:
    st = look(tree, step.path)
    # What is no directory is what took its place, or what it was to take the place of.
    if st is not None and stat.S_ISDIR(st.st_mode):
        tree.rmdir(step.path)


_DO: dict[str, Callable[[Overlay, Step], None]] = {"put": _put, "remove": _remove, "mkdir": _mkdir, "rmdir": _rmdir}
_UNDO: dict[str, Callable[[Overlay, Step], None]] = {
    "put": _unput,
    "remove": _restore,
    "mkdir": _rmdir,
    "rmdir": _mkdir,
}


def _write(tree: Overlay, path: str, data: bytes) -> None:
    file = tree.open(path, O_WRONLY | O_CREAT | O_EXCL, 0o600)
    try:
        file.write(data)
        file.sync()
    finally:
        file.close()


def _read(tree: Overlay, path: str) -> bytes:
    file = tree.open(path, O_RDONLY)
    try:
        return b"".join(iter(lambda: file.read(_CHUNK), b""))
    finally:
        file.close()
