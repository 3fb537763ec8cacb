"""One operation on one name, warm: lookups, attributes, reads, and writes into the upper (rows 2, 3, 4 and 13)."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fs.memoryfs
from fs.base import FS

import overlayvfs
from benchmarks import peers, trees
from benchmarks.lab import Lab
from benchmarks.paths import reader, sweep
from overlayvfs.cli.race import Contender, Result

OURS = "overlayvfs"
MEMORY_FS = "fs.memoryfs"
SANDFS = "sandfs"
KERNEL = "kernel overlayfs"
PLAIN_UPPER = "overlayvfs, fs.memoryfs upper"

MOUNTED = "/m"
"""Where sandfs shows the files: it mounts nothing at its root."""

FILES = trees.spread(500, 10)
MISSING = [path.replace("f", "g") for path in FILES]
NEW = 200
"""How many files one go of a write race writes."""


def run(lab: Lab) -> None:
    """Race them all."""
    tree = overlayvfs.OverlayFS([trees.ours(FILES)], overlayvfs.MemoryFS())
    lookups(lab, tree)
    lookups_beside_writes(lab)
    attributes(lab, tree)
    reads(lab, tree)
    writes(lab)
    removals(lab)


def lookups(lab: Lab, tree: FS) -> None:
    """Ask 1,000 names, half of which are there."""
    model = dict.fromkeys(FILES, True) | dict.fromkeys(MISSING, False)
    contenders = [
        sweep(OURS, tree.exists, model),
        sweep(MEMORY_FS, trees.plain(FILES).exists, model),
        sweep("OSFS", fs.open_fs(str(_host(lab))).exists, model),
    ]
    if (sandfs := peers.sandfs()) is not None:
        contenders.append(sweep(SANDFS, _workspace(sandfs).exists, model, prefix=MOUNTED))
    if lab.kernel is not None:
        merged = str(lab.kernel.mount([_host(lab)]))
        contenders.append(sweep(KERNEL, os.path.exists, model, prefix=merged))
    result = lab.race("exists, 500 names there and 500 not", "lookup", contenders)
    lab.goal("2", "warm exists, fresh strings ÷ MemoryFS", result.ratio(OURS, MEMORY_FS), 0.02)
    lab.goal("2", "warm exists, fresh strings ÷ sandfs", result.ratio(OURS, SANDFS), 0.35)
    lab.goal("2", "warm exists, fresh strings ÷ os.path.exists on kernel overlayfs", result.ratio(OURS, KERNEL), 0.06)


def lookups_beside_writes(lab: Lab) -> None:
    """Write an unrelated file every 100 lookups. The writes' own time counts."""
    model = dict.fromkeys(FILES, True) | dict.fromkeys(MISSING, False)

    def hundreds(name: str, tree: FS, write: Callable[[], object]) -> Contender:
        plain = sweep(name, tree.exists, model)

        def work(given: list[str]) -> None:
            exists = tree.exists
            for start in range(0, len(given), 100):
                write()
                for path in given[start : start + 100]:
                    exists(path)

        return Contender(name, work, plain.answer, model, len(model), plain.prepare)

    def overlay() -> FS:
        tree = overlayvfs.OverlayFS([trees.ours(FILES)], overlayvfs.MemoryFS())
        tree.makedir("/unrelated")
        return tree

    calm, busy = overlay(), overlay()
    contenders = [
        hundreds("without writes", calm, lambda: None),
        hundreds("with writes", busy, lambda: busy.writebytes("/unrelated/file", b"x")),
    ]
    result = lab.race("exists, an unrelated write every 100", "lookup", contenders)
    lab.goal("2b", "lookups and writes together ÷ lookups alone", result.ratio("with writes", "without writes"), 2)


def attributes(lab: Lab, tree: FS) -> None:
    """Ask for size and times of files that are there."""
    sizes = {name: len(data) for name, data in FILES.items()}

    def getinfo(of: FS) -> Callable[[str], Any]:
        return lambda path: of.getinfo(path, ["details"])

    def size(of: FS) -> Callable[[str], int]:
        return lambda path: of.getinfo(path, ["details"]).size

    plain = trees.plain(FILES)
    contenders = [
        sweep(OURS, getinfo(tree), sizes, see=size(tree)),
        sweep(MEMORY_FS, getinfo(plain), sizes, see=size(plain)),
    ]
    if (sandfs := peers.sandfs()) is not None:
        workspace = _workspace(sandfs)
        contenders.append(
            sweep(SANDFS, workspace.stat, sizes, see=lambda path: workspace.stat(path).size, prefix=MOUNTED)
        )
    if lab.kernel is not None:
        merged = str(lab.kernel.mount([_host(lab)]))
        contenders.append(sweep(KERNEL, os.stat, sizes, see=os.path.getsize, prefix=merged))
    result = lab.race("getinfo(details)", "call", contenders)
    lab.goal("3", "warm getinfo(details) ÷ MemoryFS", result.ratio(OURS, MEMORY_FS), 0.05)
    lab.goal("3", "warm getinfo(details) ÷ sandfs.stat", result.ratio(OURS, SANDFS), 0.8)


def reads(lab: Lab, tree: FS) -> None:
    """Read 100 bytes, through an open file and at once."""
    plain = trees.plain(FILES)
    opened = [sweep(OURS, reader(tree.openbin), FILES), sweep(MEMORY_FS, reader(plain.openbin), FILES)]
    whole = [sweep(OURS, tree.readbytes, FILES), sweep(MEMORY_FS, plain.readbytes, FILES)]
    if (sandfs := peers.sandfs()) is not None:
        opened.append(sweep(SANDFS, _workspace(sandfs).read, FILES, prefix=MOUNTED))
        whole.append(sweep(SANDFS, _workspace(sandfs).read, FILES, prefix=MOUNTED))
    if lab.kernel is not None:
        merged = str(lab.kernel.mount([_host(lab)]))
        opened.append(sweep(KERNEL, reader(lambda path: open(path, "rb", 0)), FILES, prefix=merged))
        whole.append(sweep(KERNEL, lambda path: Path(path).read_bytes(), FILES, prefix=merged))
    result = lab.race("openbin, read 100 B, close", "file", opened)
    lab.goal("4", "warm openbin+read+close ÷ MemoryFS", result.ratio(OURS, MEMORY_FS), 0.06)
    lab.goal("4", "warm openbin+read+close ÷ sandfs.read", result.ratio(OURS, SANDFS), 1.5)
    result = lab.race("readbytes of 100 B", "file", whole)
    lab.goal("4", "warm readbytes ÷ MemoryFS", result.ratio(OURS, MEMORY_FS), 0.01)
    lab.goal("4", "warm readbytes ÷ sandfs.read", result.ratio(OURS, SANDFS), 0.25)


def writes(lab: Lab) -> None:
    """Write new files, then write them again."""
    new = {f"/d0000/new{number:04}": b"y" * 100 for number in range(NEW)}
    makers: dict[str, Callable[[], FS]] = {
        OURS: lambda: overlayvfs.OverlayFS([lower], overlayvfs.MemoryFS()),
        "overlayvfs.MemoryFS": lambda: trees.ours(FILES),
        PLAIN_UPPER: lambda: overlayvfs.OverlayFS([lower], fs.memoryfs.MemoryFS()),
        MEMORY_FS: lambda: trees.plain(FILES),
    }
    lower = trees.ours(FILES)
    result = _race_writes(lab, "writebytes, new file of 100 B", makers, new, before={})
    _judge_writes(lab, "new", result)
    result = _race_writes(lab, "writebytes over a file of 100 B", makers, new, before=dict.fromkeys(new, b"x"))
    _judge_writes(lab, "overwrite", result)


def _judge_writes(lab: Lab, kind: str, result: Result) -> None:
    lab.goal("13", f"writebytes, {kind}, memory upper ÷ MemoryFS", result.ratio(OURS, MEMORY_FS), 0.25)
    lab.goal(
        "13",
        f"writebytes, {kind}, on a plain MemoryFS upper ÷ bare MemoryFS",
        result.ratio(PLAIN_UPPER, MEMORY_FS),
        1.3,
    )


def _race_writes(
    lab: Lab, name: str, makers: dict[str, Callable[[], FS]], new: dict[str, bytes], before: dict[str, bytes]
) -> Result:
    def contender(kind: str, make: Callable[[], FS]) -> Contender:
        def prepare() -> FS:
            tree = make()
            tree.makedirs("/d0000", recreate=True)
            tree.writebytes("/d0000/first", b"")
            trees.fill(tree, before)
            return tree

        def work(tree: FS) -> None:
            for path, data in new.items():
                tree.writebytes(path, data)

        return Contender(kind, work, lambda tree: {path: tree.readbytes(path) for path in new}, new, NEW, prepare)

    return lab.race(name, "file", [contender(kind, make) for kind, make in makers.items()])


def removals(lab: Lab) -> None:
    """Remove every file of a lower."""
    lower = trees.ours(FILES)

    def prepare() -> FS:
        tree = overlayvfs.OverlayFS([lower], overlayvfs.MemoryFS())
        assert all(tree.exists(path) for path in FILES)
        return tree

    def remove(tree: FS) -> None:
        for path in FILES:
            tree.remove(path)

    contenders = [Contender(OURS, remove, lambda tree: list(tree.walk.files()), [], len(FILES), prepare)]
    if lab.kernel is not None:
        kernel, host = lab.kernel, _host(lab)

        def mount() -> Path:
            merged = kernel.mount([host])
            assert all(os.path.exists(f"{merged}{path}") for path in FILES)
            return merged

        def unlink(merged: Path) -> None:
            at = str(merged)
            for path in FILES:
                os.unlink(at + path)

        def left(merged: Path) -> list[str]:
            return [name for _, _, names in os.walk(merged) for name in names]

        contenders.append(Contender(KERNEL, unlink, left, [], len(FILES), mount, kernel.discard))
    result = lab.race("remove a lower file", "file", contenders)
    lab.goal("13", "remove of a lower file ÷ kernel unlink", result.ratio(OURS, KERNEL), 0.5)


def _host(lab: Lab) -> Path:
    place = lab.scratch / "ops"
    return place if place.exists() else trees.on_host(place, FILES)


def _workspace(sandfs: Any) -> Any:
    """Return a sandfs workspace over FILES below MOUNTED, each of which it has read."""
    workspace = sandfs.Workspace()
    workspace.mount(MOUNTED, sandfs.MemorySource({path[1:]: data for path, data in FILES.items()}))
    for path in FILES:
        workspace.read(MOUNTED + path)
    return workspace
