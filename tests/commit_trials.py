"""Random overlays committed into random kinds of targets, which may fail at any of their calls."""

import errno
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any

from fork_family import perform
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
from overlayvfs.testing.snapshots import Snapshot, capture
from overlayvfs.workspace.target import look
from overlayvfs.workspace.transfer import attributes_of, copy_object, set_attributes

CHANGING = (
    "create", "mkdir", "mknod", "symlink", "link", "unlink", "rmdir", "rename",
    "chmod", "chown", "utime", "setxattr", "removexattr",
)  # fmt: skip

KINDS = ("memory", "host", "plain")


class Failing:
    """Counts the changing calls of layers, and has one of them fail: before it did its work or `late`, after."""

    def __init__(self) -> None:
        self.calls = 0
        self.fail_at = -1
        self.late = False

    def wrapped(self, layer: Any) -> Any:
        """Return the layer with its changing verbs counted."""
        for verb in CHANGING:
            setattr(layer, verb, self._counted(getattr(layer, verb)))
        return layer

    def _counted(self, verb: Callable[..., object]) -> Callable[..., object]:
        def call(*args: object, **kwargs: object) -> object:
            self.calls += 1
            if self.calls - 1 != self.fail_at:
                return verb(*args, **kwargs)
            if self.late:
                made = verb(*args, **kwargs)
                if made is not None:
                    made.close()  # type: ignore[attr-defined]
            raise OSError(errno.EIO, "failed as asked")

        return call


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
        self.backend = {"memory": MemoryFS, "host": lambda: None, "plain": PlainFS}[self.kind]()
        base = self.ofs._overlay.view()
        filled = OverlayFS([MemoryFS()], MemoryFS())
        copy_tree(base, filled._overlay)
        filled.commit(self.dst)
        filled.close()
        base.close()

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


