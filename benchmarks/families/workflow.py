"""Eight attempts at a change to one large tree, each in a view of its own: what the library is for (row 12)."""

import os
import shutil
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import overlayvfs
from benchmarks import trees
from benchmarks.lab import KERNEL, Lab
from benchmarks.trees import MOUNTED
from benchmarks.unions import Union
from overlayvfs.cli.race import Contender

OURS = "overlayvfs"
SANDFS = "sandfs DirSource"
COPIES = "full copies"

ATTEMPTS = 8
ROUNDS = 7
"""A go of all contenders takes 20 seconds."""

NEEDLE = b"needle"
LARGE = "/large/blob"
PIECE = 1 << 20

Found = list[str]
Changes = list[tuple[str, str]]
"""(kind, path): A, C or D."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The tree and what every attempt does to it."""

    files: dict[str, bytes]
    large: int
    """The size of the one large file, LARGE."""
    holding: Found
    """The files that hold NEEDLE."""
    rewritten: list[str]
    added: list[str]
    deleted: list[str]

    @property
    def changes(self) -> Changes:
        """What each attempt comes to."""
        kinds = (("A", self.added), ("C", self.rewritten), ("D", self.deleted))
        return sorted((kind, path) for kind, paths in kinds for path in paths)


class Attempt(Protocol):
    """A private view of the tree, by the calls its kind of tree has."""

    def read(self, path: str) -> bytes:
        """Return a whole small file. OSError or FSError where there is none."""

    def pieces(self, path: str) -> Iterator[bytes]:
        """Yield a large file, PIECE by PIECE."""

    def write(self, path: str, data: bytes) -> object:
        """Write a whole file."""

    def remove(self, path: str) -> object:
        """Remove a file."""

    def exists(self, path: str) -> bool:
        """Tell whether there is a file."""

    def changes(self) -> Changes:
        """Return the files that differ from the tree."""


Opener = Callable[[], AbstractContextManager[Attempt]]


def run(lab: Lab) -> None:
    """Race the whole workflow."""
    plan = _plan(*lab.sized((10_000, 256 << 20), (200, 4 << 20)))
    place = trees.on_host(lab.scratch / "workflow", plan.files)
    large = Path(f"{place}{LARGE}")
    large.parent.mkdir()
    with large.open("wb") as file:
        for _ in range(plan.large // PIECE):
            file.write(b"." * PIECE)
    result = lab.race(
        f"{ATTEMPTS} attempts at a tree of {len(plan.files):,} files and one of {plan.large >> 20} MiB",
        "attempt",
        [_contender(name, plan, start) for name, start in _starts(lab, place)],
        most=ROUNDS,
    )
    lab.goal("12", "the workflow ÷ sandfs DirSource", result.ratio(OURS, SANDFS), 1.5)
    lab.goal("12", "the workflow ÷ kernel overlayfs", result.ratio(OURS, KERNEL), 0.6)
    lab.goal("12", "the workflow ÷ full copies", result.ratio(OURS, COPIES), 0.06)


def _plan(count: int, large: int) -> Plan:
    files = trees.spread(count, max(1, count // 100), b"x" * 500)
    paths = list(files)
    holding = paths[7 :: count // 20]
    files |= {path: files[path] + NEEDLE for path in holding}
    added = [f"/d0000/added{number}" for number in range(10)]
    return Plan(files, large, holding, paths[:: count // 50][:50], added, paths[3 :: count // 5][:5])


def _starts(lab: Lab, place: Path) -> Iterable[tuple[str, Callable[[], Opener]]]:
    """Yield each contender with what starts a whole go, cold, and then returns what opens an attempt."""
    yield OURS, lambda: _ours(place)
    if (sandfs := lab.sandfs()) is not None:
        yield SANDFS, lambda: _theirs(sandfs, place)
    for name, union in lab.unions.items():
        yield name, partial(partial, _mounted, union, place)
    yield COPIES, lambda: lambda: _copied(lab, place)


def _contender(name: str, plan: Plan, start: Callable[[], Opener]) -> Contender:
    results: list[tuple[Found, Changes]] = []

    def work(_: object) -> None:
        opened = start()
        results.clear()
        for _ in range(ATTEMPTS):
            with opened() as attempt:
                results.append(_do(plan, attempt))

    expected = [(plan.holding, plan.changes)] * ATTEMPTS
    return Contender(name, work, lambda _: list(results), expected, ATTEMPTS)


def _do(plan: Plan, attempt: Attempt) -> tuple[Found, Changes]:
    """Search every file, rewrite, add and delete some, check that, and list the changes."""
    found = [path for path in plan.files if NEEDLE in attempt.read(path)]
    found += [LARGE for piece in attempt.pieces(LARGE) if NEEDLE in piece]
    for path in (*plan.rewritten, *plan.added):
        attempt.write(path, path.encode())
    for path in plan.deleted:
        attempt.remove(path)
    if any(attempt.read(path) != path.encode() for path in (*plan.rewritten, *plan.added)):
        raise AssertionError("what was written is not there")
    if any(attempt.exists(path) for path in plan.deleted):
        raise AssertionError("what was deleted is there")
    return found, attempt.changes()


class _Ours:
    def __init__(self, tree: overlayvfs.OverlayFS) -> None:
        self._tree = tree
        self.read: Callable[[str], bytes] = tree.readbytes
        self.write: Callable[[str, bytes], object] = tree.writebytes
        self.remove: Callable[[str], object] = tree.remove
        self.exists: Callable[[str], bool] = tree.exists

    def pieces(self, path: str) -> Iterator[bytes]:
        with self._tree.openbin(path) as file:
            yield from iter(lambda: file.read(PIECE), b"")

    def changes(self) -> Changes:
        return sorted((change.kind, change.path) for change in self._tree.changes())


def _ours(place: Path) -> Opener:
    base = overlayvfs.OverlayFS([str(place)], overlayvfs.MemoryFS())

    @contextmanager
    def fork() -> Iterator[Attempt]:
        tree = base.fork()
        yield _Ours(tree)
        tree.close()

    return fork


class _Theirs:
    def __init__(self, workspace: Any) -> None:
        self._workspace = workspace

    def read(self, path: str) -> bytes:
        data: bytes = self._workspace.read(MOUNTED + path)
        return data

    def pieces(self, path: str) -> Iterator[bytes]:
        offset = 0
        while data := self._workspace.read(MOUNTED + path, offset=offset, length=PIECE):
            yield data
            offset += len(data)

    def write(self, path: str, data: bytes) -> None:
        self._workspace.write(MOUNTED + path, data)

    def remove(self, path: str) -> None:
        self._workspace.remove(MOUNTED + path)

    def exists(self, path: str) -> bool:
        there: bool = self._workspace.exists(MOUNTED + path)
        return there

    def changes(self) -> Changes:
        listed = self._workspace.changes()
        return sorted((_KINDS[change.kind], change.path.removeprefix(MOUNTED)) for change in listed)


_KINDS = {"added": "A", "modified": "C", "deleted": "D"}


def _theirs(sandfs: Any, place: Path) -> Opener:
    base = sandfs.Workspace()
    base.mount(MOUNTED, sandfs.DirSource(str(place)))

    @contextmanager
    def fork() -> Iterator[Attempt]:
        yield _Theirs(base.fork())

    return fork


class _OnHost:
    """A tree of the host at `root`; what `original` shows in its place is the tree before."""

    def __init__(self, root: str, original: str) -> None:
        self.root = root
        self.original = original

    def read(self, path: str) -> bytes:
        with open(self.root + path, "rb", 0) as file:
            return file.read()

    def pieces(self, path: str) -> Iterator[bytes]:
        with open(self.root + path, "rb", 0) as file:
            yield from iter(lambda: file.read(PIECE), b"")

    def write(self, path: str, data: bytes) -> None:
        with open(self.root + path, "wb", 0) as file:
            file.write(data)

    def remove(self, path: str) -> None:
        os.unlink(self.root + path)

    def exists(self, path: str) -> bool:
        return os.path.exists(self.root + path)


class _Mounted(_OnHost):
    """A mounted overlay: its upper tells the changes."""

    def changes(self) -> Changes:
        upper = self.root[:-1] + "u"
        found: Changes = []
        for folder, _, names in os.walk(upper):
            for name in names:
                path = f"{folder}/{name}"
                st = os.lstat(path)
                shown = path.removeprefix(upper)
                if stat.S_ISCHR(st.st_mode) and st.st_rdev == 0:
                    found.append(("D", shown))
                else:
                    found.append(("C" if os.path.lexists(self.original + shown) else "A", shown))
        return sorted(found)


@contextmanager
def _mounted(union: Union, place: Path) -> Iterator[Attempt]:
    merged = union.mount([place])
    try:
        yield _Mounted(str(merged), str(place))
    finally:
        union.discard(merged)


class _Copied(_OnHost):
    """A copy with the times of the original: what differs in size or time is a change."""

    def changes(self) -> Changes:
        before, after = (self._stats(root) for root in (self.original, self.root))
        kinds = {path: "A" if path not in before else "C" for path, seen in after.items() if before.get(path) != seen}
        kinds |= dict.fromkeys(before.keys() - after.keys(), "D")
        return sorted((kind, path) for path, kind in kinds.items())

    @staticmethod
    def _stats(root: str) -> dict[str, tuple[int, int]]:
        found = {}
        pending = [root]
        while pending:
            with os.scandir(pending.pop()) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        pending.append(entry.path)
                    else:
                        st = entry.stat(follow_symlinks=False)
                        found[entry.path.removeprefix(root)] = st.st_size, st.st_mtime_ns
        return found


@contextmanager
def _copied(lab: Lab, place: Path) -> Iterator[Attempt]:
    copy = lab.scratch / "copy-of-workflow"
    shutil.copytree(place, copy)
    try:
        yield _Copied(str(copy), str(place))
    finally:
        shutil.rmtree(copy)
