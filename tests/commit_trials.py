"""Random overlays committed into random kinds of targets, which may fail at any of their calls."""

import errno
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any

from fork_family import perform
from fs.errors import FSError
from fs.memoryfs import MemoryFS as PlainFS

from overlayvfs import MemoryFS, OverlayFS
from overlayvfs.engine.overlay import Overlay
from overlayvfs.faces.osmod import OsModule
from overlayvfs.layers.local import LocalLayer
from overlayvfs.layers.pyfs import PyFsLayer
from overlayvfs.testing.bodies import EngineOnMemory
from overlayvfs.testing.ops import Runner
from overlayvfs.testing.random_stacks import Profile, random_stack
from overlayvfs.testing.sequences import Operations
from overlayvfs.testing.snapshots import Snapshot, capture, differences
from overlayvfs.workspace.target import look
from overlayvfs.workspace.transfer import attributes_of, copy_object, set_attributes

KINDS = ("memory", "host", "plain")

CHANGING = (
    "create", "mkdir", "mknod", "symlink", "link", "unlink", "rmdir", "rename",
    "chmod", "chown", "utime", "setxattr", "removexattr",
)  # fmt: skip
READING = ("lstat", "look", "listdir", "names", "readlink", "listxattr", "getxattr", "mark", "open")
WRITING = ("pwrite", "truncate", "sync")
"""What fails of an open file."""

HOW = ("before", "after", "crash", "reading")
"""A changing call fails before it did its work, or after; or from that call on nothing is done; or any call fails."""


class Failing:
    """Counts the calls of a layer and of what is open in it, and has one of them fail, in one of the ways of HOW."""

    def __init__(self, how: str = "before") -> None:
        self.calls = 0
        self.fail_at = sys.maxsize
        self.how = how
        self._verbs = CHANGING + (READING if how == "reading" else ())

    def wrapped(self, layer: Any) -> Any:
        """Return the layer with its verbs counted."""
        for verb in self._verbs:
            if hasattr(layer, verb):
                setattr(layer, verb, self._counted(getattr(layer, verb)))
        return layer

    def _counted(self, verb: Callable[..., object]) -> Callable[..., object]:
        def call(*args: object, **kwargs: object) -> object:
            self.calls += 1
            number = self.calls - 1
            if number < self.fail_at or (number > self.fail_at and self.how != "crash"):
                return self._opened(verb(*args, **kwargs))
            if self.how == "after":
                made = verb(*args, **kwargs)
                if hasattr(made, "close"):
                    made.close()
            raise OSError(errno.EIO, "failed as asked")

        return call

    def _opened(self, result: object) -> object:
        return _FailingHandle(result, self._counted) if hasattr(result, "pwrite") else result


class _FailingHandle:
    """A handle whose writing is counted."""

    def __init__(self, handle: Any, counted: Callable[[Callable[..., object]], Callable[..., object]]) -> None:
        self._handle = handle
        for verb in WRITING:
            setattr(self, verb, counted(getattr(handle, verb)))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._handle, name)


@dataclass
class Trial:
    """An overlay with random changes, and a target that equals its lowers."""

    kind: str
    seed: int
    length: int = 25
    box: EngineOnMemory = field(default_factory=EngineOnMemory)
    place: str = ""

    def __post_init__(self) -> None:
        rng = Random(self.seed)
        profile = Profile(options={"redirect_dir": "on"} if self.renames else {})
        stack = random_stack(rng, profile)
        self.box.start(stack)
        operations, runner = Operations(rng, stack, profile), Runner(self.box.os)
        for _ in range(self.length):
            op, outcome = perform(self.box, runner, operations.draw())
            operations.learn(op, outcome)
        runner.close()
        self.ofs: OverlayFS = self.box._overlay
        if self.kind == "host":
            self.place = tempfile.mkdtemp(prefix="overlayvfs-commit-", dir="/dev/shm")
        if self.kind == "plain":
            self._make_plain()
        base = self.ofs._overlay.view()
        self._filled = OverlayFS([MemoryFS()], MemoryFS())
        copy_tree(base, self._filled._overlay)
        base.close()
        self.start_again()

    def start_again(self) -> None:
        """Make the target equal the lowers."""
        if self.place:
            shutil.rmtree(self.place)
            os.mkdir(self.place)
        self.backend = {"memory": MemoryFS, "host": lambda: None, "plain": PlainFS}[self.kind]()
        self._filled.commit(self.dst)

    def _make_plain(self) -> None:
        """Take out of both sides what a plain file system can not hold: it would be refused at once."""
        base = self.ofs._overlay.view()
        lower, upper = OverlayFS([MemoryFS()], MemoryFS()), None
        copy_tree(base, lower._overlay, plain=True)
        base.close()
        below = MemoryFS()
        lower.commit(below)
        upper = OverlayFS([below], MemoryFS())
        now = OverlayFS([MemoryFS()], MemoryFS())
        copy_tree(self.ofs._overlay, now._overlay, plain=True)
        # The changes anew: what is there no more goes, and all the rest is written over.
        remove_what_is_not_in(upper._overlay, now._overlay)
        copy_tree(now._overlay, upper._overlay)
        self.ofs = upper

    @property
    def renames(self) -> bool:
        return self.seed % 3 == 0

    @property
    def dst(self) -> object:
        return self.place or self.backend

    def layer(self) -> Any:
        """Return the target as a layer to write to."""
        if self.kind == "host":
            return LocalLayer(self.place)
        return PyFsLayer(self.backend) if self.kind == "plain" else self.backend._overlayvfs_layer("")

    def shown(self) -> Snapshot:
        """Return what the target shows."""
        layer = self.layer()
        bare = Overlay.bare(layer)
        try:
            return comparable(bare, self.kind, renamed=self.renames)
        finally:
            bare.close()
            layer.close()

    def merged(self) -> Snapshot:
        """Return what the overlay shows, as the target would show it."""
        return comparable(self.ofs._overlay, self.kind, renamed=self.renames)

    def commit(self, failing: "Failing | None" = None) -> None:
        """Commit into the target, by way of a layer some call of which fails."""
        layer = self.layer()
        try:
            self.ofs.commit(layer if failing is None else failing.wrapped(layer))
        finally:
            layer.close()

    def close(self) -> None:
        self.box.finish()
        self._filled.close()
        if self.place:
            shutil.rmtree(self.place)


def comparable(tree: Overlay, kind: str, *, renamed: bool = False) -> Snapshot:
    """Return what is comparable of a tree: not the root's attributes, nor counts of links, which overlays make up.

    `renamed`: directories of lowers may have moved; their files are copies in the target, and no links of others.
    """
    shown = {}
    for path, entry in capture(OsModule(tree), "").items():
        if not path:
            continue
        if kind == "plain":
            entry = entry._replace(mode=0, uid=0, gid=0, mtime=0, xattrs=(), group="")
        if renamed:
            entry = entry._replace(group="")
        shown[path] = entry._replace(nlink=0)
    return shown


def _paths(tree: Overlay) -> list[tuple[str, int]]:
    found, pending = [], [""]
    while pending:
        directory = pending.pop()
        for entry in tree.listdir(directory or "/"):
            path = f"{directory}/{entry.d_name}"
            mode = tree.stat(path, follow=False).st_mode
            found.append((path, mode))
            if mode & 0o170000 == 0o040000:
                pending.append(path)
    return sorted(found)


def copy_tree(source: Overlay, target: Overlay, *, plain: bool = False) -> None:
    """Copy all that is in one overlay into another, over what is there; `plain`: directories and regular files only."""
    linked: dict[tuple[int, int], str] = {}
    directories = []
    for path, mode in _paths(source):
        kind = mode & 0o170000
        if plain and kind not in (0o040000, 0o100000):
            continue
        there = look(target, path)
        if kind == 0o040000:
            directories.append(path)
            if there is None:
                target.mkdir(path)
            continue
        if there is not None:
            target.unlink(path)
        st = source.stat(path, follow=False)
        first = linked.setdefault((st.st_dev, st.st_ino), path)
        if first != path and st.st_nlink > 1 and not plain:
            target.link(first, path)
        else:
            copy_object(source, path, target, path)
    for path in reversed(directories):
        set_attributes(target, path, attributes_of(source, path))


def remove_what_is_not_in(target: Overlay, wanted: Overlay) -> None:
    """Remove all of `target` that `wanted` has not, or has of another kind."""
    kinds = {path: mode & 0o170000 for path, mode in _paths(wanted)}
    for path, mode in reversed(_paths(target)):
        if kinds.get(path) == mode & 0o170000:
            continue
        if mode & 0o170000 == 0o040000:
            target.rmdir(path)
        else:
            target.unlink(path)


def check_commit(kind: str, seed: int) -> int:
    """Commit once; return how many paths changed."""
    trial = Trial(kind, seed)
    try:
        changes = len(trial.ofs.changes(content=True))
        trial.ofs.commit(trial.dst)
        assert differences(trial.merged(), trial.shown()) == [], f"{kind}, seed {seed}"
        return changes
    finally:
        trial.close()


def check_lower(seed: int) -> None:
    """Commit into the top lower; the merged tree stays what it is, and is the lowers' own from then on."""
    trial = Trial("memory", seed)
    try:
        merged = trial.merged()
        trial.ofs.commit(trial.box._layers[0])
        assert differences(merged, trial.merged()) == [], f"seed {seed}"
        assert trial.ofs.changes(content=True) == [], f"seed {seed}"
        trial.ofs.close()
        lowers = OverlayFS(trial.box._layers, userxattr=False)
        assert differences(merged, comparable(lowers._overlay, "memory", renamed=trial.renames)) == [], f"seed {seed}"
    finally:
        # The box would complain that a lower changed.
        trial.box._stack = None
        trial.close()


def check_failures(kind: str, seed: int, how: str, most: int = sys.maxsize) -> int:
    """Commit, then fail at each call of that (at `most`, drawn, if so many are enough), and each time go on or back.

    Whether it is rolled back or gone on with takes turns. Returns how many failures there were.
    """
    trial = Trial(kind, seed)
    try:
        before, merged = trial.shown(), trial.merged()
        failing = Failing(how)
        assert not _fails(trial, failing, sys.maxsize)
        assert differences(merged, trial.shown()) == [], f"{kind}, seed {seed}"
        trial.start_again()
        drawn = Random(seed).sample(range(failing.calls), min(most, failing.calls))
        return sum(_check_failure(trial, failing, point, before, merged) for point in drawn)
    finally:
        trial.close()


def _check_failure(trial: Trial, failing: Failing, point: int, before: Snapshot, merged: Snapshot) -> bool:
    """Fail at one call and go back, or on; tell whether it was a failure and nothing that was got over."""
    told = f"{trial.kind}, seed {trial.seed}, call {point}, {failing.how}"
    failed = _fails(trial, failing, point)
    if failed and (point + trial.seed) % 2:
        was_half_way = OverlayFS.roll_back_commit(trial.dst)
        # Else it was over, or there was no more to do than cleaning up.
        expected = before if was_half_way or differences(merged, trial.shown()) else merged
    else:
        trial.commit()
        expected = merged
    assert differences(expected, trial.shown()) == [], told
    if expected is merged:
        trial.start_again()
    return failed


def _fails(trial: Trial, failing: Failing, at: int) -> bool:
    failing.calls, failing.fail_at = 0, at
    try:
        trial.commit(failing)
    except FSError:
        return True
    return False
