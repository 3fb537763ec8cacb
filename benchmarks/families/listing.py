"""Directories of 10,000 names, in one layer and merged from many (row 5)."""

import os
from collections.abc import Callable
from pathlib import Path

from fs.base import FS

import overlayvfs
from benchmarks import trees
from benchmarks.lab import Lab
from overlayvfs.cli.race import Contender


def run(lab: Lab) -> None:
    """Race lists, infos and walks."""
    count = lab.sized(10_000, 300)
    big = {f"/big/f{number:05}.txt": b"x" for number in range(count)}
    one = overlayvfs.OverlayFS([trees.ours(big)], overlayvfs.MemoryFS())
    plain = trees.plain(big)
    names = sorted(path.removeprefix("/big/") for path in big)
    contenders = [
        _lister("overlayvfs", one.listdir, "/big", names),
        _lister("fs.memoryfs", plain.listdir, "/big", names),
        *_mounted(lab, [trees.on_host(lab.scratch / "big", big)], names),
    ]
    result = lab.race(f"listdir of {count:,} names", "list", contenders)
    lab.goal("5", "listdir of 10,000 ÷ MemoryFS", result.ratio("overlayvfs", "fs.memoryfs"), 0.10)
    lab.goal(
        "5", "listdir of 10,000 ÷ os.listdir on kernel overlayfs", result.ratio("overlayvfs", "kernel overlayfs"), 0.02
    )
    merged(lab, big, names)
    infos(lab, one, plain, names)
    walks(lab, one, plain, sorted(big))


def merged(lab: Lab, big: trees.Files, names: list[str]) -> None:
    """List a directory to which each of 128 layers adds its share."""
    layers = lab.sized(128, 8)
    shares = [dict(list(big.items())[number::layers]) for number in range(layers)]
    union = overlayvfs.OverlayFS([trees.ours(share) for share in shares], overlayvfs.MemoryFS())
    contenders = [
        _lister("overlayvfs", union.listdir, "/big", names),
        *_mounted(lab, [trees.on_host(lab.scratch / "m" / f"{n}", share) for n, share in enumerate(shares)], names),
    ]
    result = lab.race(f"listdir of {len(names):,} names merged from {layers} layers", "list", contenders)
    lab.goal("5", "merged listdir at 128 layers ÷ kernel", result.ratio("overlayvfs", "kernel overlayfs"), 0.005)


def infos(lab: Lab, one: FS, plain: FS, names: list[str]) -> None:
    """Scan with details."""

    def scanner(name: str, tree: FS) -> Contender:
        def see(_: object) -> list[tuple[str, int]]:
            return sorted((info.name, info.size) for info in tree.scandir("/big", ["details"]))

        expected = [(each, 1) for each in names]
        return Contender(name, lambda _: list(tree.scandir("/big", ["details"])), see, expected)

    result = lab.race(
        f"scandir(details) of {len(names):,}", "scan", [scanner("overlayvfs", one), scanner("fs.memoryfs", plain)]
    )
    lab.goal("5", "scandir(details) ÷ MemoryFS", result.ratio("overlayvfs", "fs.memoryfs"), 0.25)


def walks(lab: Lab, one: FS, plain: FS, paths: list[str]) -> None:
    """Walk all files."""

    def walker(name: str, tree: FS) -> Contender:
        return Contender(name, lambda _: list(tree.walk.files()), lambda _: sorted(tree.walk.files()), paths)

    contenders = [walker("overlayvfs", one), walker("fs.memoryfs", plain)]
    result = lab.race(f"walk.files over {len(paths):,}", "walk", contenders)
    lab.goal("5", "walk.files ÷ MemoryFS", result.ratio("overlayvfs", "fs.memoryfs"), 0.25)


def _lister(name: str, listdir: Callable[[str], list[str]], path: str, names: list[str]) -> Contender:
    return Contender(name, lambda _: listdir(path), lambda _: sorted(listdir(path)), names)


def _mounted(lab: Lab, lowers: list[Path], names: list[str]) -> list[Contender]:
    return [_lister(name, os.listdir, f"{union.mount(lowers)}/big", names) for name, union in lab.unions.items()]
