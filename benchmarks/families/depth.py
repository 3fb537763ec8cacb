"""Warm work on names only the lowest of many layers has: what depth costs once a name is known (row 1)."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path

from fs.base import FS
from fs.multifs import MultiFS

import overlayvfs
from benchmarks import trees
from benchmarks.lab import Lab
from benchmarks.paths import reader, sweep
from overlayvfs.cli.race import Contender

DEPTHS = 1, 128, 512
KERNEL_DEPTHS = 1, 128, 500
"""The kernel takes 500 lowers at most."""

FILES = trees.spread(100, 10)
SAMPLE = dict(list(FILES.items())[:2])
"""For contenders that ask every layer each time."""

Work = Callable[[FS], Callable[[str], object]]


def run(lab: Lab) -> None:
    """Race each kind of work over all depths."""
    unions = {depth: overlayvfs.OverlayFS(layers(depth, trees.ours), overlayvfs.MemoryFS()) for depth in DEPTHS}
    multis = {depth: multi(layers(depth, trees.plain)) for depth in DEPTHS}
    merged = mounts(lab)
    there: dict[str, object] = dict.fromkeys(FILES, True)
    absent: dict[str, object] = {path + "-": False for path in FILES}
    sizes: dict[str, object] = {path: len(data) for path, data in FILES.items()}
    _race(lab, "exists, hit", there, lambda tree: tree.exists, os.path.exists, unions, multis, merged)
    _race(lab, "exists, miss", absent, lambda tree: tree.exists, os.path.exists, unions, multis, merged)
    _race(lab, "getinfo(details)", sizes, _details, os.path.getsize, unions, multis, merged)
    _race(lab, "openbin, read, close", FILES, lambda tree: reader(tree.openbin), _read, unions, multis, merged)


def layers(depth: int, make: Callable[[trees.Files], FS]) -> list[FS]:
    """Return `depth` layers, highest first: all have the same directories, only the lowest has FILES."""
    above = {f"/d{number:04}/own": b"" for number in range(10)}
    return [make({f"{path}{layer}": data for path, data in above.items()}) for layer in range(depth - 1)] + [
        make(FILES)
    ]


def multi(stack: list[FS]) -> MultiFS:
    """Return PyFilesystem's union, with a writable layer on top as an overlay has."""
    union = MultiFS()
    union.add_fs("upper", trees.plain({}), write=True, priority=len(stack))
    for number, layer in enumerate(stack):
        union.add_fs(str(number), layer, priority=-number)
    return union


def mounts(lab: Lab) -> dict[int, Path]:
    """Return kernel mounts at KERNEL_DEPTHS, none where there is no kernel to ask."""
    if lab.kernel is None:
        return {}
    found = {}
    for depth in KERNEL_DEPTHS:
        above = [
            trees.on_host(lab.scratch / f"l{depth}" / f"{n}", {f"/d{d:04}/own{n}": b"" for d in range(10)})
            for n in range(depth - 1)
        ]
        found[depth] = lab.kernel.mount([*above, trees.on_host(lab.scratch / f"l{depth}" / "b", FILES)])
    return found


def _race(
    lab: Lab,
    name: str,
    model: Mapping[str, object],
    work: Work,
    host_work: Callable[[str], object],
    unions: Mapping[int, FS],
    multis: Mapping[int, FS],
    merged: Mapping[int, Path],
) -> None:
    sample = dict(list(model.items())[: len(SAMPLE)])
    contenders: list[Contender] = []
    contenders += [sweep(f"overlayvfs, {depth}", work(tree), model) for depth, tree in unions.items()]
    contenders += [sweep(f"MultiFS, {depth}", work(tree), sample) for depth, tree in multis.items()]
    contenders += [
        sweep(f"kernel overlayfs, {depth}", host_work, model, prefix=str(path)) for depth, path in merged.items()
    ]
    result = lab.race(f"depth: {name}", "call", contenders)
    lab.goal("1", f"{name}: depth 128 ÷ 1", result.ratio("overlayvfs, 128", "overlayvfs, 1"), 1.05)
    lab.goal("1", f"{name}: depth 512 ÷ 1", result.ratio("overlayvfs, 512", "overlayvfs, 1"), 1.10)


def _details(tree: FS) -> Callable[[str], object]:
    return lambda path: tree.getinfo(path, ["details"]).size


def _read(path: str) -> bytes:
    with open(path, "rb", 0) as file:
        return file.read(100)
