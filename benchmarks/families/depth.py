"""What depth costs on every kind of layer: names only the lowest has, asked warm (row 1) and for the first time."""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from fs.base import FS
from fs.multifs import MultiFS

import overlayvfs
from benchmarks import trees
from benchmarks.lab import Lab
from overlayvfs.cli.race import Contender, Ratio, Result
from overlayvfs.cli.sweeps import cold, reader, sweep

DEPTHS = 1, 2, 4, 8, 16, 32, 64, 128, 256, 512
JUDGED = 1, 128, 512
LIMITS = 1.05, 1.10
"""What the deeper two may take of the first."""
KINDS = "memory", "host", "fs.memoryfs", "tar", "an overlay"

FILES = trees.spread(100, 10)
ROUNDS_TO_DRAW = 11
"""A line on a logarithmic axis needs no more."""

SAMPLE = 2
"""How many paths contenders are given that ask every layer each time."""

Layers = Mapping[str, Sequence[Any]]
Work = Callable[[FS], Callable[[str], object]]


def run(lab: Lab) -> None:
    """Race each kind of work over all depths."""
    layers = stacks(lab)
    judge(lab, layers)
    draw(lab, layers)


def stacks(lab: Lab) -> Layers:
    """Return as many layers of each kind as the deepest stack needs, highest first; only the lowest has FILES."""
    contents = _contents(lab.sized(DEPTHS[-1], 8), FILES)
    makers: dict[str, Callable[[int, trees.Files], Any]] = {
        "memory": lambda _, files: trees.ours(files),
        "host": lambda number, files: trees.on_host(lab.scratch / f"depth/{number}", files),
        "fs.memoryfs": lambda _, files: trees.plain(files),
        "tar": lambda number, files: trees.in_tar(lab.scratch / f"depth/{number}.tar", files),
        "an overlay": lambda _, files: overlayvfs.OverlayFS([trees.ours(files)], overlayvfs.MemoryFS()),
    }
    # Not raced: fsspec. Its own memory looks through all it holds for every list, so it would be measured itself.
    return {kind: [make(number, files) for number, files in enumerate(contents)] for kind, make in makers.items()}


def layers_of(depth: int, files: trees.Files) -> list[overlayvfs.MemoryFS]:
    """Return `depth` layers in memory, highest first, of which only the lowest has `files`."""
    return [trees.ours(each) for each in _contents(depth, files)]


def judge(lab: Lab, layers: Layers) -> None:
    """Race four kinds of work at three depths and hold the slowest kind of layer to the goals."""
    depths = lab.sized(JUDGED, (1, 4, 8))
    entrants = Entrants(lab, layers, depths)
    for name, model, work in works(FILES):
        result = lab.race(f"depth: {name}", "call", entrants.warm(model, work, HOST_WORKS[name]))
        for depth, limit in zip(depths[1:], LIMITS, strict=True):
            kind, ratio = _worst(result, depth)
            lab.goal("1", f"{name}: depth {depth} ÷ 1 (at worst: {kind})", ratio, limit)


def works(files: trees.Files) -> list[tuple[str, Mapping[str, object], Work]]:
    """Return what row 1 asks of a tree that holds `files`: a name, what each path comes to, and what asks for it."""
    return [
        ("exists, hit", dict.fromkeys(files, True), lambda tree: tree.exists),
        ("exists, miss", {path + "-": False for path in files}, lambda tree: tree.exists),
        ("getinfo(details)", {path: len(data) for path, data in files.items()}, _details),
        ("openbin, read, close", files, lambda tree: reader(tree.openbin)),
    ]


def draw(lab: Lab, layers: Layers) -> None:
    """Race lookups at every depth, for the plots."""
    entrants = Entrants(lab, layers, lab.sized(DEPTHS, (1, 4, 8)))
    model: dict[str, object] = dict.fromkeys(FILES, True)
    for title, contenders in (
        ("warm exists of a name", entrants.warm(model, lambda tree: tree.exists, os.path.exists)),
        ("first exists of a name", entrants.cold(model)),
    ):
        result = lab.race(f"depth: {title}, at every depth", "call", contenders, most=ROUNDS_TO_DRAW)
        curve: dict[str, list[tuple[int, float]]] = {}
        for name, times in result.times.items():
            who, _, depth = name.rpartition(", ")
            curve.setdefault(who, []).append((int(depth), times.best))
        lab.curves[title] = curve


class Entrants:
    """All that take part, each at every depth."""

    def __init__(self, lab: Lab, layers: Layers, depths: Sequence[int]) -> None:
        self._layers = layers
        self._unions = {
            (f"overlayvfs on {kind}", depth): overlay(stack[-depth:])
            for kind, stack in layers.items()
            for depth in depths
        }
        self._multis = {("MultiFS", depth): multi(layers["fs.memoryfs"][-depth:]) for depth in depths}
        self._merged = {
            (name, depth): union.mount(layers["host"][-depth:])
            for name, union in lab.unions.items()
            for depth in (min(depth, union.lowers_max) for depth in depths)
        }

    def warm(self, model: Mapping[str, object], work: Work, host_work: Callable[[str], object]) -> Iterable[Contender]:
        """Yield who does the work again and again in one tree."""
        for (name, depth), tree in self._unions.items():
            yield sweep(f"{name}, {depth}", work(tree), model)
        # It keeps nothing: warm is cold, and a sample is enough.
        for (name, depth), union in self._multis.items():
            yield sweep(f"{name}, {depth}", work(union), dict(list(model.items())[:SAMPLE]))
        for (name, depth), place in self._merged.items():
            yield sweep(f"{name}, {depth}", host_work, model, prefix=str(place))

    def cold(self, model: Mapping[str, object]) -> Iterable[Contender]:
        """Yield who asks each name once in a tree mounted for that."""
        for name, depth in self._unions:
            stack = self._layers[name.removeprefix("overlayvfs on ")][-depth:]
            yield cold(f"{name}, {depth}", partial(overlay, stack), lambda tree: tree.exists, model)
        for (name, depth), union in self._multis.items():
            yield sweep(f"{name}, {depth}", union.exists, dict(list(model.items())[:SAMPLE]))


def overlay(stack: Sequence[Any]) -> overlayvfs.OverlayFS:
    """Return an overlay with a memory upper."""
    return overlayvfs.OverlayFS(stack, overlayvfs.MemoryFS())


def multi(stack: Sequence[FS]) -> MultiFS:
    """Return PyFilesystem's union, with a writable layer on top as an overlay has."""
    union = MultiFS(auto_close=False)
    union.add_fs("upper", trees.plain({}), write=True, priority=len(stack))
    for number, layer in enumerate(stack):
        union.add_fs(str(number), layer, priority=-number)
    return union


def _contents(depth: int, files: trees.Files) -> list[trees.Files]:
    """Return what each of `depth` layers holds: all have ten directories, only the lowest has `files`."""
    return [*({f"/d{d:04}/own{number}": b"" for d in range(10)} for number in range(depth - 1)), files]


def _worst(result: Result, depth: int) -> tuple[str, Ratio]:
    ratios = {kind: result.ratio(f"overlayvfs on {kind}, {depth}", f"overlayvfs on {kind}, 1") for kind in KINDS}
    return max(((kind, ratio) for kind, ratio in ratios.items() if ratio), key=lambda pair: pair[1].best)


def _details(tree: FS) -> Callable[[str], object]:
    return lambda path: tree.getinfo(path, ["details"]).size


def _read(path: str) -> bytes:
    with open(path, "rb", 0) as file:
        return file.read(100)


HOST_WORKS: Mapping[str, Callable[[str], object]] = {
    "exists, hit": os.path.exists,
    "exists, miss": os.path.exists,
    "getinfo(details)": os.path.getsize,
    "openbin, read, close": _read,
}
