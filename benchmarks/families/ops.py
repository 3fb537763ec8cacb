"""One operation on one name, warm: lookups, attributes, reads, and writes into the upper (rows 2, 3, 4 and 13).

Races of what is known already take the row they are held to: row 14 has them again with a cache that is full.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fs.memoryfs
from fs.base import FS

import overlayvfs
from benchmarks import trees
from benchmarks.lab import KERNEL, Lab
from benchmarks.trees import MOUNTED
from overlayvfs.cli.race import Contender, Result, WrongAnswer
from overlayvfs.cli.sweeps import reader, sweep

OURS = "overlayvfs"
MEMORY_FS = "fs.memoryfs"
OSFS = "OSFS"
SANDFS = "sandfs"
PLAIN_UPPER = "overlayvfs, fs.memoryfs upper"

FILES = trees.spread(500, 10)
MISSING = [path.replace("f", "g") for path in FILES]
NEW = 200
"""How many files one go of a write race writes."""


def run(lab: Lab) -> None:
    """Race them all."""
    tree = overlayvfs.OverlayFS([trees.ours(FILES)], overlayvfs.MemoryFS())
    lookups(lab, tree, "2")
    lookups_beside_writes(lab)
    attributes(lab, tree, "3")
    reads(lab, tree, "4")
    writes(lab)
    removals(lab)


def lookups(lab: Lab, tree: FS, row: str, where: str = "") -> None:
    """Ask 1,000 names, half of which are there."""
    model = dict.fromkeys(FILES, True) | dict.fromkeys(MISSING, False)
    contenders = [
        sweep(OURS, tree.exists, model),
        sweep(MEMORY_FS, trees.plain(FILES).exists, model),
        sweep(OSFS, fs.open_fs(str(_host(lab))).exists, model),
    ]
    if (sandfs := lab.sandfs()) is not None:
        contenders.append(sweep(SANDFS, _workspace(sandfs).exists, model, prefix=MOUNTED))
    for name, merged in _mounts(lab):
        contenders.append(sweep(name, os.path.exists, model, prefix=merged))
    result = lab.race(f"exists, 500 names there and 500 not{where}", "lookup", contenders)
    lab.goal(row, f"warm exists, fresh strings ÷ MemoryFS{where}", result.ratio(OURS, MEMORY_FS), 0.02)
    lab.goal(row, f"warm exists, fresh strings ÷ sandfs{where}", result.ratio(OURS, SANDFS), 0.35)
    kernel = result.ratio(OURS, KERNEL)
    lab.goal(row, f"warm exists, fresh strings ÷ os.path.exists on kernel overlayfs{where}", kernel, 0.06)


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


def attributes(lab: Lab, tree: FS, row: str, where: str = "") -> None:
    """Ask for size and times of files that are there."""
    sizes = {name: len(data) for name, data in FILES.items()}
    _check_that_infos_are_apart(tree)

    def getinfo(of: FS) -> Callable[[str], Any]:
        return lambda path: of.getinfo(path, ["details"])

    def size(of: FS) -> Callable[[str], int]:
        return lambda path: of.getinfo(path, ["details"]).size

    plain, host = trees.plain(FILES), fs.open_fs(str(_host(lab)))
    contenders = [
        sweep(OURS, getinfo(tree), sizes, see=size(tree)),
        sweep(f"{OURS}, and its size", size(tree), sizes),
        sweep(MEMORY_FS, getinfo(plain), sizes, see=size(plain)),
        sweep(f"{MEMORY_FS}, and its size", size(plain), sizes),
        sweep(OSFS, getinfo(host), sizes, see=size(host)),
    ]
    if (sandfs := lab.sandfs()) is not None:
        workspace = _workspace(sandfs)
        contenders.append(
            sweep(SANDFS, workspace.stat, sizes, see=lambda path: workspace.stat(path).size, prefix=MOUNTED)
        )
    for name, merged in _mounts(lab):
        contenders.append(sweep(name, os.stat, sizes, see=os.path.getsize, prefix=merged))
    result = lab.race(f"getinfo(details){where}", "call", contenders)
    lab.goal(row, f"warm getinfo(details) ÷ MemoryFS{where}", result.ratio(OURS, MEMORY_FS), 0.05)
    lab.goal(row, f"warm getinfo(details) ÷ sandfs.stat{where}", result.ratio(OURS, SANDFS), 0.8)


def reads(lab: Lab, tree: FS, row: str, where: str = "") -> None:
    """Read 100 bytes, through an open file and at once."""
    _check_that_handles_are_live()
    trees_by_name = {OURS: tree, MEMORY_FS: trees.plain(FILES), OSFS: fs.open_fs(str(_host(lab)))}
    opened = [sweep(name, reader(each.openbin), FILES) for name, each in trees_by_name.items()]
    whole = [sweep(name, each.readbytes, FILES) for name, each in trees_by_name.items()]
    if (sandfs := lab.sandfs()) is not None:
        opened.append(sweep(SANDFS, _workspace(sandfs).read, FILES, prefix=MOUNTED))
        whole.append(sweep(SANDFS, _workspace(sandfs).read, FILES, prefix=MOUNTED))
    for name, merged in _mounts(lab):
        opened.append(sweep(name, reader(lambda path: open(path, "rb", 0)), FILES, prefix=merged))
        whole.append(sweep(name, lambda path: Path(path).read_bytes(), FILES, prefix=merged))
    result = lab.race(f"openbin, read 100 B, close{where}", "file", opened)
    lab.goal(row, f"warm openbin+read+close ÷ MemoryFS{where}", result.ratio(OURS, MEMORY_FS), 0.06)
    lab.goal(row, f"warm openbin+read+close ÷ sandfs.read{where}", result.ratio(OURS, SANDFS), 1.5)
    result = lab.race(f"readbytes of 100 B{where}", "file", whole)
    lab.goal(row, f"warm readbytes ÷ MemoryFS{where}", result.ratio(OURS, MEMORY_FS), 0.01)
    lab.goal(row, f"warm readbytes ÷ sandfs.read{where}", result.ratio(OURS, SANDFS), 0.25)


def _check_that_infos_are_apart(tree: FS) -> None:
    """Whoever has an info may do with its dictionaries as he likes. Raises WrongAnswer."""
    path = next(iter(FILES))
    info = tree.getinfo(path, ["details"])
    raw: Any = info.raw
    before = {space: dict(values) for space, values in raw.items()}
    raw["details"]["size"] = -1
    raw["basic"].clear()
    del raw["details"]
    if tree.getinfo(path, ["details"]).raw != before:
        raise WrongAnswer("changing info.raw changes what getinfo returns next")


def _check_that_handles_are_live() -> None:
    """A file opened for reading shows what is written to it later, its first copy up included. Raises WrongAnswer."""
    tree = overlayvfs.OverlayFS([trees.ours(FILES)], overlayvfs.MemoryFS())
    path = next(iter(FILES))
    tree.readbytes(path)
    with tree.openbin(path) as file, tree.openbin(path) as other:
        seen = [other.read(3)]
        for data in (b"one", b"two"):
            tree.writebytes(path, data)
            file.seek(0)
            seen.append(file.read(100))
    if seen != [FILES[path][:3], b"one", b"two"]:
        raise WrongAnswer(f"an open file shows {seen} while others write to it")


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


def _mounts(lab: Lab) -> list[tuple[str, str]]:
    """Mount FILES by each of the host's unions."""
    return [(name, str(union.mount([_host(lab)]))) for name, union in lab.unions.items()]


def _host(lab: Lab) -> Path:
    place = lab.scratch / "ops"
    return place if place.exists() else trees.on_host(place, FILES)


def _workspace(sandfs: Any) -> Any:
    """Return a sandfs workspace over FILES below MOUNTED, each of which it has read."""
    workspace = trees.in_sandfs(sandfs, FILES)
    for path in FILES:
        workspace.read(MOUNTED + path)
    return workspace
