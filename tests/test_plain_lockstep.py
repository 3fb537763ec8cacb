"""Random operations on layers of plain PyFilesystems, in lockstep with the reference model of the same stack.

The model is held to the kernel elsewhere (test_model.py). Here both sides get only what every backend can hold:
directories, files, whiteouts and opaque directories. Compared are results, errnos and, at the end and reopened, all
names and contents.
"""

import errno
import itertools
import os
import stat
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from io import BytesIO
from random import Random
from typing import Any, NamedTuple

import pytest
from fs.base import FS
from fs.memoryfs import MemoryFS as PlainMemoryFS
from fs.osfs import OSFS
from fs.wrapfs import WrapFS
from fs.zipfs import ZipFS
from fsspec.implementations.memory import MemoryFileSystem
from plainfs import Flaky

from overlayvfs import OverlayFS
from overlayvfs.abi import RENAME_EXCHANGE, RENAME_NOREPLACE
from overlayvfs.layers.cached import CachedLayer
from overlayvfs.layers.fsspec import FsspecLayer
from overlayvfs.testing.modelbox import ModelBox
from overlayvfs.testing.stacks import Stack
from overlayvfs.testing.trees import DIR, Node, directory, file
from overlayvfs.testing.trees import WHITEOUT as WHITEOUT_NODE

Tree = dict[str, bytes | None]
"""Paths to contents; None is a directory, "" an opaque mark in one, and WHITEOUT a whiteout."""

WHITEOUT = b"whiteout"
OPAQUE = ".opaque"
NAMES = "abc"
DEPTH = 3

_numbers = itertools.count()


# Stacks


def random_tree(rng: Random, *, hides: bool) -> Tree:
    tree: Tree = {}

    def fill(above: str, depth: int) -> None:
        for name in NAMES:
            draw = rng.random()
            path = f"{above}/{name}"
            if draw < 0.3:
                tree[path] = rng.choice((b"", b"x", b"contents of " + path.encode(), b"y" * 5000))
            elif draw < 0.65 and depth < DEPTH:
                tree[path] = None
                if hides and rng.random() < 0.2:
                    tree[f"{path}/{OPAQUE}"] = b""
                fill(path, depth + 1)
            elif draw < 0.8 and hides:
                tree[path] = WHITEOUT

    fill("", 1)
    return tree


def as_nodes(tree: Tree) -> dict[str, Node]:
    """Return a tree as the model is given it."""
    nodes: dict[str, Node] = {}
    for path, data in tree.items():
        if path.endswith(OPAQUE):
            nodes[path.removesuffix(f"/{OPAQUE}")] = directory(opaque=True)
        elif data is WHITEOUT:
            nodes[path] = WHITEOUT_NODE
        else:
            nodes[path] = DIR if data is None else file(data)
    return nodes


def spelled(tree: Tree) -> Tree:
    """Return a tree as a plain backend holds it."""
    plain: Tree = {}
    for path, data in tree.items():
        parent, _, name = path.rpartition("/")
        if name == OPAQUE:
            plain[f"{parent}/.wh..wh..opq"] = b""
        elif data is WHITEOUT:
            plain[f"{parent}/.wh.{name}"] = b""
        else:
            plain[path] = data
    return plain


def fill_plain(fs: FS, tree: Tree) -> FS:
    for path, data in spelled(tree).items():
        fs.makedir(path) if data is None else fs.writebytes(path, data)
    return fs


# Backends


class PlainOSFS(OSFS):
    """A subclass: nobody may go around it to the host directory."""


def memory(tree: Tree, stack: ExitStack) -> Any:
    return fill_plain(PlainMemoryFS(), tree)


def many_steps(tree: Tree, stack: ExitStack) -> Any:
    return fill_plain(Flaky(), tree)


def wrapped(tree: Tree, stack: ExitStack) -> Any:
    return WrapFS(fill_plain(PlainMemoryFS(), tree))


def host(tree: Tree, stack: ExitStack) -> Any:
    return fill_plain(PlainOSFS(stack.enter_context(tempfile.TemporaryDirectory())), tree)


def store(tree: Tree, stack: ExitStack) -> Any:
    files, top = MemoryFileSystem(), f"/lockstep-{next(_numbers)}"
    files.mkdir(top)
    # All of them are one store, which looks through everything it holds for each listing.
    stack.callback(files.rm, top, recursive=True)
    for path, data in spelled(tree).items():
        files.mkdir(top + path) if data is None else files.pipe_file(top + path, data)
    return FsspecLayer(files, top)


def archive(tree: Tree, stack: ExitStack) -> Any:
    packed = BytesIO()
    with ZipFS(packed, write=True) as writing:
        fill_plain(writing, tree)
    packed.seek(0)
    return ZipFS(packed)


def cached(tree: Tree, stack: ExitStack) -> Any:
    return CachedLayer(memory(tree, stack))


class Kind(NamedTuple):
    """What lowers and uppers are made of."""

    lower: Callable[[Tree, ExitStack], Any]
    upper: Callable[[Tree, ExitStack], Any]
    nested: bool = False
    """All lowers but the first are an overlay of their own."""


KINDS = {
    "memory": Kind(memory, memory),
    "memory, nested": Kind(memory, memory, nested=True),
    "moves in many steps": Kind(memory, many_steps),
    "wrapped": Kind(wrapped, wrapped),
    "host": Kind(host, host),
    "fsspec": Kind(store, store),
    "archives below memory": Kind(archive, memory),
    "cached below fsspec": Kind(cached, store),
}


# Operations


Op = tuple[Any, ...]


def random_op(rng: Random, likely: Sequence[str]) -> Op:
    """Return an operation, mostly on one of the `likely` paths."""

    def path() -> str:
        if likely and rng.random() < 0.7:
            return rng.choice(likely)
        return "".join(f"/{rng.choice(NAMES)}" for _ in range(rng.choice((1, 1, 2, 2, 3))))

    def slot() -> int:
        return rng.randrange(2)

    flags = rng.choice(
        (
            os.O_RDONLY,
            os.O_RDWR,
            os.O_WRONLY | os.O_APPEND,
            os.O_RDWR | os.O_CREAT,
            os.O_RDWR | os.O_CREAT | os.O_TRUNC,
            os.O_WRONLY | os.O_CREAT | os.O_EXCL,
            os.O_RDWR | os.O_TRUNC,
        )
    )
    return rng.choice(
        [
            *[("open", slot(), path(), flags)] * 12,
            *[("mkdir", path())] * 4,
            *[("unlink", path())] * 4,
            *[("rmdir", path())] * 4,
            *[("rename", path(), path())] * 6,
            ("renameat2", path(), path(), rng.choice((RENAME_NOREPLACE, RENAME_EXCHANGE))),
            ("truncate", path(), rng.choice((0, 1, 7, 6000))),
            *[("listdir", path())] * 2,
            ("stat", path()),
            *[("read", slot(), rng.choice((3, 9999)))] * 2,
            *[("write", slot(), rng.choice((b"W", b"written" * 3, b"z" * 5000)))] * 3,
            ("pwrite", slot(), b"P", rng.choice((0, 3, 5001))),
            ("lseek", slot(), rng.choice((0, 2)), rng.choice((os.SEEK_SET, os.SEEK_END))),
            ("ftruncate", slot(), rng.choice((0, 2, 6000))),
            ("close", slot()),
            ("reopen",),
        ]
    )


class Side:
    """One stack and the descriptors open on it."""

    def __init__(self) -> None:
        self.slots: dict[int, int] = {}

    @property
    def os(self) -> Any:
        raise NotImplementedError

    def reopen(self) -> None:
        raise NotImplementedError

    def do(self, op: Op) -> object:
        """Return what an operation gives, or its errno's name."""
        try:
            return self._do(*op)
        except OSError as error:
            return errno.errorcode[error.errno or 0]

    def _do(self, name: str, *args: Any) -> object:
        if name == "reopen":
            for slot in list(self.slots):
                self._do("close", slot)
            self.reopen()
            return None
        os_ = self.os
        if name == "open":
            slot, path, flags = args
            fd = os_.open(path, flags)
            self._do("close", slot)
            self.slots[slot] = fd
            return None
        if isinstance(args[0], int):
            if args[0] not in self.slots:
                return "nothing open"
            fd = self.slots.pop(args[0]) if name == "close" else self.slots[args[0]]
            return getattr(os_, name)(fd, *args[1:])
        result = getattr(os_, name)(*args)
        if name == "listdir":
            return sorted(result)
        return _seen(result) if name == "stat" else result

    def tree(self) -> dict[str, object]:
        os_ = self.os
        seen: dict[str, object] = {}
        for above, names, files in os_.walk("/"):
            seen |= {f"{above}/{name}": _seen(os_.lstat(f"{above}/{name}")) for name in names}
            seen |= {f"{above}/{name}": self._contents(f"{above}/{name}") for name in files}
        return seen

    def _contents(self, path: str) -> bytes:
        fd = self.os.open(path, os.O_RDONLY)
        try:
            return self.os.read(fd, 1 << 20)
        finally:
            self.os.close(fd)


class Plain(Side):
    """The engine over layers of a kind."""

    def __init__(self, lowers: Sequence[Any], upper: Any) -> None:
        super().__init__()
        self._layers = lowers, upper
        self._ofs = OverlayFS(lowers, upper)

    @property
    def os(self) -> Any:
        return self._ofs.os

    def reopen(self) -> None:
        self.close()
        self._ofs = OverlayFS(*self._layers)

    def close(self) -> None:
        self._ofs.close()


class Model(Side):
    """The reference model."""

    def __init__(self, lowers: Sequence[Tree], upper: Tree) -> None:
        super().__init__()
        self._box = ModelBox()
        self._box.start(Stack([as_nodes(tree) for tree in lowers], as_nodes(upper)))

    @property
    def os(self) -> Any:
        return self._box.os

    def reopen(self) -> None:
        self._box.remount()


def _seen(st: os.stat_result) -> tuple[int, int]:
    kind = stat.S_IFMT(st.st_mode)
    return kind, st.st_size if kind == stat.S_IFREG else 0


def differences(kind: Kind, lowers: Sequence[Tree], upper: Tree, ops: Sequence[Op]) -> list[str]:
    """Run a sequence on both sides; return the first difference, an empty list if there is none."""
    with ExitStack() as stack:
        layers = [kind.lower(tree, stack) for tree in lowers]
        if kind.nested and len(layers) > 1:
            layers[1:] = [OverlayFS(layers[1:])]
        plain = Plain(layers, kind.upper(upper, stack))
        stack.callback(plain.close)
        model = Model(lowers, upper)
        for op in [*ops, ("reopen",)]:
            expected, actual = model.do(op), plain.do(op)
            if expected != actual:
                return [f"{op}: expected {expected!r:.200}, not {actual!r:.200}"]
            if op == ("reopen",) and model.tree() != plain.tree():
                return [f"{op}: expected {model.tree()}, not {plain.tree()}"]
    return []


def smallest(kind: Kind, lowers: Sequence[Tree], upper: Tree, ops: Sequence[Op]) -> Sequence[Op]:
    """Leave out every operation without which the sides still differ."""
    at = 0
    while at < len(ops):
        fewer = [*ops[:at], *ops[at + 1 :]]
        if differences(kind, lowers, upper, fewer):
            ops = fewer
        else:
            at += 1
    return ops


def check(kind: Kind, seed: int, length: int) -> None:
    rng = Random(seed)
    lowers = [random_tree(rng, hides=number > 0) for number in reversed(range(rng.choice((1, 2, 3))))]
    upper = random_tree(rng, hides=True) if rng.random() < 0.5 else {}
    likely = sorted({path for tree in (*lowers, upper) for path in tree if not path.endswith(OPAQUE)})
    ops = [random_op(rng, likely) for _ in range(length)]
    if differences(kind, lowers, upper, ops):
        ops = list(smallest(kind, lowers, upper, ops))
        found = differences(kind, lowers, upper, ops)
        pytest.fail("\n".join([f"seed {seed}", *found, f"{lowers = }", f"{upper = }", f"{ops = }"]))


@pytest.mark.parametrize("kind", KINDS)
def test_plain_layers_do_what_the_model_does(kind: str) -> None:
    for seed in range(25):
        check(KINDS[kind], seed, 40)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_plain_layers_do_what_the_model_does_at_length(kind: str) -> None:
    for seed in range(1000, 1300):
        check(KINDS[kind], seed, 60)
