"""`overlayvfs bench depth URL…`: what a lookup costs as a stack grows, on file systems of your own.

The stack is the file systems given and, above them, empty ones in memory until it is as deep as asked. Names that only
the lowest has are looked up by this library, warm and for the first time, and by PyFilesystem's MultiFS.
"""

import argparse
import errno
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from itertools import islice
from pathlib import Path

import fs
from fs.base import FS
from fs.errors import FSError
from fs.multifs import MultiFS
from fs.opener.errors import OpenerError, ParseError

from overlayvfs import MemoryFS, OverlayFS
from overlayvfs.abi import oserror
from overlayvfs.cli.plot import can_plot, plot
from overlayvfs.cli.race import MIN_NS, Contender, Result, WrongAnswer, race
from overlayvfs.cli.sweeps import cold, reader, sweep

DEPTHS = 1, 8, 64, 512
ROUNDS = 21
FILES = 100
"""How many names are looked up."""
SAMPLE = 4
"""How many of them by who asks every layer each time."""

Work = tuple[Mapping[str, object], Callable[[FS], Callable[[str], object]]]
"""What each path comes to, and what asks a tree for it."""

Curves = dict[str, list[tuple[int, float]]]


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `bench` to the command line."""
    parser = commands.add_parser("bench", help="measure what depth costs on your own file systems")
    kinds = parser.add_subparsers(metavar="WHAT", required=True)
    depth = kinds.add_parser("depth", help="lookups in ever deeper stacks", description=__doc__)
    depth.add_argument("layers", nargs="+", metavar="URL", help="FS URLs or directories, highest first")
    depth.add_argument("--depths", type=_numbers, default=DEPTHS, help="comma-separated (default: 1,8,64,512)")
    depth.add_argument("--rounds", type=int, default=ROUNDS, help="how often each is timed (default: %(default)s)")
    depth.add_argument("--min-ns", type=int, default=MIN_NS, help="how long at least, each time (default: %(default)s)")
    depth.add_argument("--json", type=Path, help="write the figures into this file")
    depth.add_argument("--plot", type=Path, help="draw `exists` into this PNG file (needs matplotlib)")
    depth.set_defaults(run=run)


def _numbers(text: str) -> tuple[int, ...]:
    if not all(word.isdecimal() and int(word) for word in text.split(",")):
        raise argparse.ArgumentTypeError(f"{text!r}: expected numbers of lowers such as 1,8,64")
    return tuple(sorted({int(word) for word in text.split(",")}))


def run(arguments: argparse.Namespace) -> int:
    """Race all works and print them; 0, or 1 where a file system gives wrong answers or has no file to ask for."""
    if arguments.plot and not can_plot():
        raise oserror(errno.ENOSYS, reason="--plot needs matplotlib: pip install 'overlayvfs[bench]'")
    with ExitStack() as opened:
        given = [_opened(url) for url in arguments.layers]
        for layer in given:
            opened.callback(layer.close)
        measured = {}
        for name, work in _works(given).items():
            entrants = _entrants(given, arguments.depths, work)
            try:
                result = race(name, "call", entrants, rounds=arguments.rounds, min_ns=arguments.min_ns)
            except WrongAnswer as error:
                raise oserror(errno.EIO, reason=str(error)) from error
            measured[name] = _curves(result)
            _tell(name, measured[name])
    if arguments.json:
        arguments.json.write_text(json.dumps(measured, indent=1) + "\n", encoding="utf-8")
    if arguments.plot:
        plot(arguments.plot, "exists, of a name only the lowest layer has", measured["exists"])
    return 0


def _opened(url: str) -> FS:
    try:
        return fs.open_fs(url)
    except (FSError, OpenerError, ParseError) as error:
        raise oserror(errno.ENOENT, url, reason=str(error)) from error


def _works(given: Sequence[FS]) -> dict[str, Work]:
    """Return what is raced, on names that only the lowest of the file systems given has. ENOENT where it has none."""
    tree = OverlayFS(given)
    own = (path for path in given[-1].walk.files() if not any(layer.exists(path) for layer in given[:-1]))
    paths = list(islice((path for path in own if tree.exists(path)), FILES))
    if not paths:
        raise oserror(errno.ENOENT, reason=f"the lowest layer ({given[-1]}) has no file that no other has or hides")
    return {
        "exists": (dict.fromkeys(paths, True), lambda tree: tree.exists),
        "exists, of no name": ({f"{path}-absent": False for path in paths}, lambda tree: tree.exists),
        "getinfo(details)": ({path: given[-1].getsize(path) for path in paths}, _details),
        "open, read 100 bytes, close": (_heads(given[-1], paths), lambda tree: reader(tree.openbin)),
    }


def _details(tree: FS) -> Callable[[str], object]:
    return lambda path: tree.getinfo(path, ["details"]).size


def _heads(layer: FS, paths: Iterable[str]) -> dict[str, object]:
    read = reader(layer.openbin)
    return {path: read(path) for path in paths}


def _entrants(given: Sequence[FS], depths: Sequence[int], work: Work) -> Iterable[Contender]:
    model, operation = work
    sample = dict(islice(model.items(), SAMPLE))
    for depth in depths:
        stack = [*(MemoryFS() for _ in range(depth - len(given))), *given[-depth:]]
        yield sweep(f"overlayvfs, {depth}", operation(OverlayFS(stack)), model)
        yield cold(f"overlayvfs, first time, {depth}", partial(OverlayFS, stack), operation, model)
        multi = MultiFS(auto_close=False)
        for number, layer in enumerate(stack):
            multi.add_fs(str(number), layer, priority=-number)
        yield sweep(f"MultiFS, {depth}", operation(multi), sample)


def _curves(result: Result) -> Curves:
    curves: Curves = {}
    for name, times in result.times.items():
        who, _, depth = name.rpartition(", ")
        curves.setdefault(who, []).append((int(depth), times.best))
    return curves


def _tell(name: str, curves: Curves) -> None:
    """Print one table: a row a contender, a column a depth."""
    depths = [depth for depth, _ in next(iter(curves.values()))]
    print(f"{f'{name}: ns, by lowers':<36}" + "".join(f"{depth:>12,}" for depth in depths))
    for who, points in curves.items():
        print(f"  {who:<34}" + "".join(f"{ns:>12,.0f}" for _, ns in points))
    print()
