"""The first look at every name: through many layers (row 6) and on host directories (row 7)."""

from collections.abc import Callable
from typing import Any

from fs.base import FS
from fs.osfs import OSFS

import overlayvfs
from benchmarks import trees
from benchmarks.families.depth import multi
from benchmarks.lab import Lab
from overlayvfs.cli.sweeps import cold, sweep

LIMITS = {128: 0.03, 512: 0.015, 1: 1.0}
"""What a lookup at each depth may take of MultiFS's."""


def run(lab: Lab) -> None:
    """Race both."""
    deep(lab)
    host(lab)


def deep(lab: Lab) -> None:
    """Ask for every file of the lowest layer, one in each of 1,000 directories, in an overlay mounted for this go."""
    count = lab.sized(1000, 30)
    files = trees.spread(count, count)
    limits = lab.sized(LIMITS, {8: 0.03, 1: 1.0})
    contenders = []
    model = dict.fromkeys(files, True)
    sample = dict(list(model.items())[:: count // 5])
    for depth in limits:
        stack: list[FS] = [trees.ours({f"/own{n}": b""}) for n in range(depth - 1)]
        stack.append(trees.ours(files))
        contenders.append(cold(f"overlayvfs, {depth}", _overlay(stack), lambda tree: tree.exists, model))
        plain: list[FS] = [trees.plain({f"/own{n}": b""}) for n in range(depth - 1)]
        # It caches nothing: warm is cold, and a sample is enough.
        contenders.append(sweep(f"MultiFS, {depth}", multi([*plain, trees.plain(files)]).exists, sample))
    result = lab.race("cold exists of files only the lowest layer has", "file", contenders)
    for depth, limit in limits.items():
        ratio = result.ratio(f"overlayvfs, {depth}", f"MultiFS, {depth}")
        lab.goal("6", f"cold lookup at depth {depth} ÷ MultiFS", ratio, limit)
    deepest = max(limits)
    ours = [result.times[f"overlayvfs, {depth}"].best for depth in (1, deepest)]
    lab.goal("6", "cost per layer and file, µs", (ours[1] - ours[0]) / (deepest - 1) / 1000, 0.1)


def host(lab: Lab) -> None:
    """Read, then look up, every file of a host directory for the first time."""
    files = trees.spread(*lab.sized((1000, 100), (50, 5)))
    place = str(trees.on_host(lab.scratch / "cold", files))
    bare = OSFS(place)
    mount = _overlay([place])
    contenders = [
        cold("overlayvfs", mount, lambda tree: tree.readbytes, files),
        sweep("OSFS", bare.readbytes, files),
    ]
    if (sandfs := lab.sandfs()) is not None:
        contenders.append(
            cold("sandfs DirSource", lambda: _workspace(sandfs, place), lambda tree: tree.read, files, prefix="/m")
        )
    result = lab.race("cold read of small host files", "file", contenders)
    lab.goal(
        "7", "cold read sweep of host files ÷ sandfs DirSource", result.ratio("overlayvfs", "sandfs DirSource"), 1.2
    )
    lab.goal("7", "cold read sweep of host files ÷ OSFS.readbytes", result.ratio("overlayvfs", "OSFS"), 1.5)
    model = dict.fromkeys(files, True)
    result = lab.race(
        "cold exists of host files",
        "file",
        [cold("overlayvfs", mount, lambda tree: tree.exists, model), sweep("OSFS", bare.exists, model)],
    )
    lab.goal("7", "cold exists of host files ÷ OSFS", result.ratio("overlayvfs", "OSFS"), 1.0)


def _overlay(stack: list[Any]) -> Callable[[], FS]:
    return lambda: overlayvfs.OverlayFS(stack, overlayvfs.MemoryFS())


def _workspace(sandfs: Any, place: str) -> Any:
    workspace = sandfs.Workspace()
    workspace.mount("/m", sandfs.DirSource(place))
    return workspace
