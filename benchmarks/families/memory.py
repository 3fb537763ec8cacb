"""What remembering costs: bytes a cached name, and the races of what is known with a cache that is full (row 14)."""

import tracemalloc
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial

from fs.base import FS

import overlayvfs
from benchmarks import trees
from benchmarks.families import ops
from benchmarks.families.depth import LIMITS, layers_of, works
from benchmarks.lab import Lab
from overlayvfs.cli.sweeps import fresh, sweep

AT_THE_BOUND = ", cache full"


def run(lab: Lab) -> None:
    """Weigh names and contents, with bounds and without, then race rows 1 to 4 at the bounds."""
    weights(lab)
    names = len(ops.FILES) + len(ops.MISSING) + 20
    full = filled([trees.ours(ops.FILES | _others(names))], names)
    ops.lookups(lab, full, "14", AT_THE_BOUND)
    ops.attributes(lab, full, "14", AT_THE_BOUND)
    ops.reads(lab, full, "14", AT_THE_BOUND)
    depths(lab)


def weights(lab: Lab) -> None:
    """Weigh what is kept of names and of contents."""
    count = lab.sized(20_000, 500)
    files = trees.spread(count, 100)
    layer = trees.ours(files)
    lab.tell("\nbytes a cached name")
    bound = count // 20
    with _traced():
        tree = overlayvfs.OverlayFS([layer], overlayvfs.MemoryFS())
        there = _weight(tree, files, True)
        absent = _weight(tree, [path + "-" for path in files], False)
    with _traced():
        bounded = overlayvfs.OverlayFS([layer], overlayvfs.MemoryFS(), cache_names=bound)
        assert all(bounded.exists(path) for path in fresh(files))
        kept = tracemalloc.get_traced_memory()[0]
    lab.goal("14", "bytes per cached name that is there", there, 500)
    lab.goal("14", "bytes per cached name that is not there", absent, 100)
    what = f"bytes kept after {count:,} names with room for {bound:,} ÷ without a bound"
    lab.goal("14", what, kept / (there * count), 0.1)
    size, count = 240 << 10, lab.sized(400, 20)
    place = trees.on_host(lab.scratch / "contents", trees.spread(count, 10, b"x" * size))
    lab.tell(f"\nMiB kept while {size * count >> 20} MiB are read")
    mounted = partial(overlayvfs.OverlayFS, [str(place)], overlayvfs.MemoryFS())
    for what, limit, mount in (
        ("with room for 64 MiB (the default)", 65, mounted),
        ("with room for 1 MiB", 2, partial(mounted, cache_bytes=1 << 20)),
        ("with room for none", 2, partial(mounted, cache_bytes=0)),
    ):
        with mount() as shown:
            most = _most_kept(shown, size)
        lab.goal("14", f"MiB of contents and names, at most, {what}", most, limit)


def depths(lab: Lab) -> None:
    """Do the works of row 1 below one layer and below many."""
    deep = lab.sized((128, 512), (4, 8))
    names = len(ops.FILES) + 520
    overlays = {depth: filled(layers_of(depth, ops.FILES | _others(names)), names) for depth in (1, *deep)}
    for name, model, work in works(ops.FILES):
        contenders = [sweep(f"overlayvfs, {depth}", work(tree), model) for depth, tree in overlays.items()]
        result = lab.race(f"depth: {name}{AT_THE_BOUND}", "call", contenders)
        for depth, limit in zip(deep, LIMITS, strict=True):
            ratio = result.ratio(f"overlayvfs, {depth}", "overlayvfs, 1")
            lab.goal("14", f"{name}: depth {depth} ÷ 1{AT_THE_BOUND}", ratio, limit)


def filled(stack: list[overlayvfs.MemoryFS], names: int) -> overlayvfs.OverlayFS:
    """Return an overlay that has met more names and contents than it may remember."""
    room = 110 * len(ops.FILES)
    tree = overlayvfs.OverlayFS(stack, overlayvfs.MemoryFS(), cache_names=names, cache_bytes=room)
    for path, data in _others(names).items():
        assert tree.readbytes(path) == data
    return tree


def _others(names: int) -> dict[str, bytes]:
    return {f"/other/{number:05}": b"y" * 100 for number in range(2 * names)}


def _most_kept(tree: FS, size: int) -> float:
    """Return the MiB that are allocated at most while every file of a tree is read, the one at hand included."""
    with _traced():
        for path in tree.walk.files():
            assert len(tree.readbytes(path)) == size
        return tracemalloc.get_traced_memory()[1] / (1 << 20)


def _weight(tree: FS, paths: Iterable[str], there: bool) -> float:
    """Return the bytes Python allocates for asking each path once, those of its own string included. While traced."""
    asked = list(paths)
    for path in {path.rpartition("/")[0] for path in asked}:
        assert tree.listdir(path)
    before = tracemalloc.get_traced_memory()[0]
    for path in asked:
        assert tree.exists(fresh([path])[0]) is there
    return (tracemalloc.get_traced_memory()[0] - before) / len(asked)


@contextmanager
def _traced() -> Iterator[None]:
    """Have tracemalloc count what is allocated in a block, and what of that is freed."""
    tracemalloc.start()
    try:
        yield
    finally:
        tracemalloc.stop()
