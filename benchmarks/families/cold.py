"""The first look at every name: through many layers (row 6) and on host directories (row 7)."""

from collections.abc import Callable, Mapping
from typing import Any

from fs.base import FS
from fs.osfs import OSFS

import overlayvfs
from benchmarks import peers, trees
from benchmarks.families.depth import multi
from benchmarks.lab import Lab
from benchmarks.paths import fresh, sweep
from overlayvfs.cli.race import Contender

DEPTHS = 1, 128, 512
DEEP = trees.spread(1000, 1000)
"""One file in each of 1,000 directories."""
HOST = trees.spread(1000, 100)


def run(lab: Lab) -> None:
    """Race both."""
    deep(lab)
    host(lab)


def deep(lab: Lab) -> None:
    """Ask for every file of the lowest layer, once, in an overlay mounted for this go."""
    contenders = []
    model = dict.fromkeys(DEEP, True)
    sample = dict(list(model.items())[::200])
    for depth in DEPTHS:
        stack: list[FS] = [trees.ours({f"/own{n}": b""}) for n in range(depth - 1)]
        stack.append(trees.ours(DEEP))
        contenders.append(cold(f"overlayvfs, {depth}", _overlay(stack), lambda tree: tree.exists, model))
        plain: list[FS] = [trees.plain({f"/own{n}": b""}) for n in range(depth - 1)]
        # It caches nothing: warm is cold, and a sample is enough.
        contenders.append(sweep(f"MultiFS, {depth}", multi([*plain, trees.plain(DEEP)]).exists, sample))
    result = lab.race("cold exists of files only the lowest layer has", "file", contenders)
    for depth, limit in ((128, 0.03), (512, 0.015), (1, 1.0)):
        ratio = result.ratio(f"overlayvfs, {depth}", f"MultiFS, {depth}")
        lab.goal("6", f"cold lookup at depth {depth} ÷ MultiFS", ratio, limit)
    ours = [result.times[f"overlayvfs, {depth}"].best for depth in (1, 512)]
    lab.goal("6", "cost per layer and file, µs", (ours[1] - ours[0]) / 511 / 1000, 0.1)


def host(lab: Lab) -> None:
    """Read, then look up, every file of a host directory for the first time."""
    place = str(trees.on_host(lab.scratch / "cold", HOST))
    bare = OSFS(place)
    mount = _overlay([place])
    contenders = [
        cold("overlayvfs", mount, lambda tree: tree.readbytes, HOST),
        sweep("OSFS", bare.readbytes, HOST),
    ]
    if (sandfs := peers.sandfs()) is not None:
        contenders.append(
            cold("sandfs DirSource", lambda: _workspace(sandfs, place), lambda tree: tree.read, HOST, prefix="/m")
        )
    result = lab.race("cold read of small host files", "file", contenders)
    lab.goal(
        "7", "cold read sweep of host files ÷ sandfs DirSource", result.ratio("overlayvfs", "sandfs DirSource"), 1.2
    )
    lab.goal("7", "cold read sweep of host files ÷ OSFS.readbytes", result.ratio("overlayvfs", "OSFS"), 1.5)
    model = dict.fromkeys(HOST, True)
    result = lab.race(
        "cold exists of host files",
        "file",
        [cold("overlayvfs", mount, lambda tree: tree.exists, model), sweep("OSFS", bare.exists, model)],
    )
    lab.goal("7", "cold exists of host files ÷ OSFS", result.ratio("overlayvfs", "OSFS"), 1.0)


def cold(
    name: str,
    make: Callable[[], Any],
    operation: Callable[[Any], Callable[[str], object]],
    model: Mapping[str, object],
    *,
    prefix: str = "",
) -> Contender:
    """Return a contender that does one operation to each path (below `prefix`) of a tree made anew for each go."""

    def work(given: tuple[Any, list[str]]) -> None:
        act = operation(given[0])
        for path in given[1]:
            act(path)

    def answer(given: tuple[Any, list[str]]) -> dict[str, object]:
        return {path.removeprefix(prefix): operation(given[0])(path) for path in given[1]}

    return Contender(
        name, work, answer, dict(model), len(model), prepare=lambda: (make(), fresh(prefix + path for path in model))
    )


def _overlay(stack: list[Any]) -> Callable[[], FS]:
    return lambda: overlayvfs.OverlayFS(stack, overlayvfs.MemoryFS())


def _workspace(sandfs: Any, place: str) -> Any:
    workspace = sandfs.Workspace()
    workspace.mount("/m", sandfs.DirSource(place))
    return workspace
