"""How often operations ask their layers, which a slow machine can't change: checked in every run, never timed."""

from collections.abc import Callable, Sequence
from typing import Any

import overlayvfs
from benchmarks import trees
from benchmarks.counting import CountingLayer
from benchmarks.lab import Lab
from overlayvfs.layers.adapt import open_layer, open_upper

FILES = trees.spread(40, 4)
DEPTH = 20


def run(lab: Lab) -> None:
    """Check them all."""
    lab.tell("\nlayer calls")
    for check in CHECKS:
        check(lab)


def opening(lab: Lab) -> None:
    """Opening a stack touches no tree, and asks each layer for its name and place a few times only.

    One look into the upper's work directory tells whether the mount before may be relied on ("volatile").
    """
    for depth in (DEPTH, 10 * DEPTH):
        lowers = stack(depth)
        upper = counting_upper()
        overlayvfs.OverlayFS(lowers, upper)
        lab.count(f"opening {depth} layers, calls a layer", max(layer.calls.total() for layer in lowers), 6)
        lab.count(f"opening {depth} layers, calls in trees of lowers", asked(lowers), 0)
        lab.count(f"opening {depth} layers, calls in the upper", asked([upper]), 1)


def second_lookup(lab: Lab) -> None:
    """What was looked up once is known: there or not, through either face."""
    lowers, upper = stack(DEPTH), counting_upper()
    ofs = overlayvfs.OverlayFS(lowers, upper)
    absent = [path + "-" for path in FILES]
    looks: list[tuple[str, Callable[[str], object], Sequence[str]]] = [
        ("exists", ofs.exists, [*FILES, *absent]),
        ("getinfo(details)", lambda path: ofs.getinfo(path, ["details"]), list(FILES)),
        ("os.stat", ofs.os.stat, list(FILES)),
        ("readbytes", ofs.readbytes, list(FILES)),
        ("openbin, read, close", lambda path: ofs.openbin(path).read(), list(FILES)),
        ("listdir", ofs.listdir, ["/", *ofs.listdir("/")]),
    ]
    for name, look, paths in looks:
        first = [look(path) for path in paths]
        asked([*lowers, upper])
        if [str(look(path)) for path in paths] != [str(answer) for answer in first]:
            raise AssertionError(f"{name} gives another answer the second time")
        lab.count(f"{name} of {len(paths)} known names, {DEPTH} layers", asked([*lowers, upper]), 0)


def first_lookup(lab: Lab) -> None:
    """A name costs one look in the layer that has it; its directory one look, two marks and one list of each layer."""
    for depth in (DEPTH, 10 * DEPTH):
        lowers = stack(depth)
        ofs = overlayvfs.OverlayFS(lowers)
        directories = ofs.listdir("/")
        for path in FILES:
            assert ofs.exists(path)
        what = f"first exists of {len(FILES)} names in {len(directories)} directories, {depth} layers"
        lab.count(what, asked(lowers), (len(directories) + 1) * depth * 4 + len(FILES) * 3)


def merged_listing(lab: Lab) -> None:
    """A merged list reads each layer's directory once."""
    lowers = stack(DEPTH)
    ofs = overlayvfs.OverlayFS(lowers)
    assert ofs.exists("/d0000")
    asked(lowers)
    names = ofs.listdir("/d0000")
    assert len(names) == DEPTH - 1 + len(FILES) // 4
    calls = [layer.taken() for layer in lowers]
    what = f"listdir merged from {DEPTH} layers"
    lab.count(f"{what}, lists of any one layer", max(taken["listdir"] for taken in calls), 1)
    # The opaque mark also says whether a directory's whiteouts are attributes.
    lab.count(f"{what}, calls of any one layer", max(taken.total() for taken in calls), 2)


def second_write(lab: Lab) -> None:
    """A file is copied up once: from then on no lower is asked."""
    lowers, upper = stack(DEPTH), counting_upper()
    ofs = overlayvfs.OverlayFS(lowers, upper)
    path = next(iter(FILES))
    ofs.appendbytes(path, b"1")
    asked(lowers)
    ofs.appendbytes(path, b"2")
    lab.count("second write to a copied-up file, calls of lowers", asked(lowers), 0)
    assert ofs.readbytes(path) == FILES[path] + b"12"


def forking(lab: Lab) -> None:
    """A fork asks a memory upper for two snapshots, its own and one to merge from, and nothing else."""
    lowers, upper = stack(DEPTH), counting_upper()
    ofs = overlayvfs.OverlayFS(lowers, upper)
    for path in FILES:
        ofs.appendbytes(path, b"!")
    asked([*lowers, upper])
    child = ofs.fork()
    calls = upper.taken()
    lab.count("fork, snapshots of the upper", calls.pop("snapshot"), 2)
    lab.count("fork, other calls", calls.total() + asked(lowers), 0)
    assert all(child.readbytes(path) == data + b"!" for path, data in FILES.items())


CHECKS = opening, second_lookup, first_lookup, merged_listing, second_write, forking


def stack(depth: int) -> list[Any]:
    """Return `depth` memory layers, highest first: all have the same directories, only the lowest has FILES."""
    above = [{f"/d{d:04}/own{number}": b"" for d in range(4)} for number in range(depth - 1)]
    return [CountingLayer(open_layer(trees.ours(files), "lower")) for files in (*above, FILES)]


def counting_upper() -> Any:
    """Return an empty memory upper."""
    return CountingLayer(open_upper(overlayvfs.MemoryFS()))


def asked(layers: Sequence[CountingLayer]) -> int:
    """Return how often layers were asked for anything in their trees since the last time."""
    return sum(layer.taken().total() for layer in layers)
