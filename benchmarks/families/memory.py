"""What remembering costs: bytes a cached name, and the races of what is known with a cache that is full (row 14)."""

import tracemalloc
from collections.abc import Iterable

from fs.base import FS

import overlayvfs
from benchmarks import trees
from benchmarks.families import ops
from benchmarks.families.depth import layers_of
from benchmarks.lab import Lab
from overlayvfs.cli.sweeps import fresh, sweep

AT_THE_BOUND = ", cache full"


def run(lab: Lab) -> None:
    """Weigh names, then race rows 1 to 4 at the bound."""
    count = lab.sized(20_000, 500)
    files = trees.spread(count, 100)
    tree = overlayvfs.OverlayFS([trees.ours(files)], overlayvfs.MemoryFS())
    lab.tell("\nbytes a cached name")
    lab.goal("14", "bytes per cached name that is there", _weight(tree, files, True), 500)
    lab.goal("14", "bytes per cached name that is not there", _weight(tree, [path + "-" for path in files], False), 100)
    names = len(ops.FILES) + len(ops.MISSING) + 10
    full = filled([trees.ours(ops.FILES | _others(names))], names)
    ops.lookups(lab, full, "14", AT_THE_BOUND)
    ops.attributes(lab, full, "14", AT_THE_BOUND)
    ops.reads(lab, full, "14", AT_THE_BOUND)
    depths(lab)


def depths(lab: Lab) -> None:
    """Look names up below one layer and below many."""
    deep = lab.sized(128, 8)
    model = dict.fromkeys(ops.FILES, True)
    names = len(model) + 10
    contenders = []
    for depth in (1, deep):
        tree = filled(layers_of(depth, ops.FILES | _others(names)), names)
        contenders.append(sweep(f"overlayvfs, {depth}", tree.exists, model))
    result = lab.race(f"depth: exists, hit{AT_THE_BOUND}", "lookup", contenders)
    ratio = result.ratio(f"overlayvfs, {deep}", "overlayvfs, 1")
    lab.goal("14", f"exists, hit: depth {deep} ÷ 1{AT_THE_BOUND}", ratio, 1.05)


def filled(stack: list[overlayvfs.MemoryFS], names: int) -> overlayvfs.OverlayFS:
    """Return an overlay that remembers at most `names` names and has met twice as many."""
    tree = overlayvfs.OverlayFS(stack, overlayvfs.MemoryFS(), cache_names=names)
    for path in _others(names):
        assert tree.exists(path)
    return tree


def _others(names: int) -> dict[str, bytes]:
    return {f"/other/{number:05}": b"" for number in range(2 * names)}


def _weight(tree: FS, paths: Iterable[str], there: bool) -> float:
    """Return the bytes Python allocates for asking each path once, those of its own string included, by tracemalloc."""
    asked = list(paths)
    for path in {path.rpartition("/")[0] for path in asked}:
        assert tree.listdir(path)
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for path in asked:
            assert tree.exists(fresh([path])[0]) is there
        return (tracemalloc.get_traced_memory()[0] - before) / len(asked)
    finally:
        tracemalloc.stop()
