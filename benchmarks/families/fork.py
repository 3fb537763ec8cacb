"""Forks, forks of forks, and the list of what was changed (rows 8, 9 and 10)."""

import os
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import overlayvfs
from benchmarks import trees
from benchmarks.lab import KERNEL, Lab
from benchmarks.trees import MOUNTED
from overlayvfs.cli.race import Contender

OURS = "overlayvfs"
SANDFS = "sandfs"
MEMORY_FS = "fs.memoryfs, walk.files"

BASE = trees.spread(100, 10)
UNTOUCHED = next(iter(BASE))
EDITS = 50


def run(lab: Lab) -> None:
    """Race forks, chains of forks, and changes()."""
    forks(lab)
    chains(lab)
    changes(lab)


def forks(lab: Lab) -> None:
    """Fork overlays whose uppers hold few and many files, and one that was forked often."""
    few, many = lab.sized((100, 10_000), (10, 100))
    often = lab.sized(1000, 10)
    small, large, parent = (_edited(trees.spread(count, 10)) for count in (few, many, few))
    children = [parent.fork() for _ in range(often)]
    path = UNTOUCHED

    def forker(name: str, tree: Any, read: Callable[[Any], bytes]) -> Contender:
        return Contender(name, lambda _: tree.fork(), lambda _: read(tree.fork()), b"edited")

    contenders = [
        forker(f"{OURS}, {few:,} files", small, lambda tree: tree.readbytes(path)),
        forker(f"{OURS}, {many:,} files", large, lambda tree: tree.readbytes(path)),
        forker(f"{OURS}, {often:,} forks alive", parent, lambda tree: tree.readbytes(path)),
    ]
    if (sandfs := lab.sandfs()) is not None:
        workspace = trees.in_sandfs(sandfs, trees.spread(many, 10))
        workspace.write(MOUNTED + path, b"edited")
        contenders.append(forker(SANDFS, workspace, lambda tree: tree.read(MOUNTED + path)))
    contenders += [_mounter(lab, name) for name in lab.unions]
    result = lab.race("fork (the kernel: mount and umount)", "fork", contenders)
    assert len(children) == often
    ours = f"{OURS}, {many:,} files"
    lab.goal("8", "fork() ÷ sandfs.fork", result.ratio(ours, SANDFS), 20)
    lab.quicker("8", "fork(): × quicker than a kernel mount and umount", result.ratio(ours, KERNEL), 200)
    simple = f"{OURS}, {few:,} files"
    lab.goal("8", f"fork() with {many:,} files in the upper ÷ {few:,}", result.ratio(ours, simple), 1.1)
    ratio = result.ratio(f"{OURS}, {often:,} forks alive", simple)
    lab.goal("8", f"fork() after {often:,} forks ÷ after 1", ratio, 1.2)


def chains(lab: Lab) -> None:
    """Fork a fork of a fork…, one write each; then read what is far down."""
    length = lab.sized(1000, 20)
    lower = trees.ours(BASE)
    last, first = f"/d0000/n{length - 1:05}", "/d0000/n00000"

    contenders = [
        _chain(
            OURS,
            lambda: [overlayvfs.OverlayFS([lower], overlayvfs.MemoryFS())],
            lambda tree, path: tree.writebytes(path, b"new"),
            lambda tree, path: tree.readbytes(path),
            length,
        )
    ]
    sandfs = lab.sandfs()
    if sandfs is not None:
        contenders.append(
            _chain(
                SANDFS,
                lambda: [trees.in_sandfs(sandfs, BASE)],
                lambda tree, path: tree.write(MOUNTED + path, b"new"),
                lambda tree, path: tree.read(MOUNTED + path),
                length,
            )
        )
    result = lab.race(f"a chain of {length:,} forks, one write each", "fork and write", contenders)
    lab.goal("9", f"{length:,} × (fork + one write) ÷ sandfs", result.ratio(OURS, SANDFS), 2)

    def grown(contender: Contender, forks: int) -> list[Any]:
        chain = contender.prepare()
        contender.work(chain)
        return list(chain[: forks + 1])

    ours_chain = grown(contenders[0], length)
    theirs_chain = grown(contenders[1], length) if sandfs is not None else []
    for what, path, limit in (
        ("an untouched file", UNTOUCHED, 1.5),
        ("the first fork's file", first, 2),
    ):
        data = BASE.get(path, b"new")
        deep = f"{OURS}, fork {length:,}"
        readers = [
            _reader(f"{OURS}, fork 1", ours_chain[1].readbytes, path, data),
            _reader(deep, ours_chain[-1].readbytes, path, data),
        ]
        if theirs_chain:
            readers.append(_reader(SANDFS, theirs_chain[-1].read, MOUNTED + path, data))
        result = lab.race(f"read {what} at the end of {length:,} forks", "file", readers)
        lab.goal("9", f"after that, a read of {what} ÷ sandfs", result.ratio(deep, SANDFS), limit)
        lab.goal("9", f"a read of {what} at depth {length:,} ÷ at depth 1", result.ratio(deep, f"{OURS}, fork 1"), 2)
    assert ours_chain[-1].readbytes(last) == b"new"


def changes(lab: Lab) -> None:
    """List 50 edits in trees of different sizes, on overlays that go on living."""
    small, large = lab.sized((10_000, 100_000), (200, 400))
    files = trees.spread(small, 100)
    edited = list(files)[:: small // EDITS][:EDITS]
    contenders = []
    for count in (small, large):
        tree = overlayvfs.OverlayFS([trees.ours(trees.spread(count, 100))], overlayvfs.MemoryFS())
        for path in edited:
            tree.writebytes(path, b"edited")
        contenders.append(_lister(f"{OURS}, {count:,} files", tree, "", edited))
        # What was found is kept until something changes: this one makes it compare all edits again.
        edit = partial(tree.writebytes, edited[0], b"again")
        contenders.append(_lister(f"{OURS}, {count:,} files, right after an edit", tree, "", edited, edit))
    if (sandfs := lab.sandfs()) is not None:
        workspace = trees.in_sandfs(sandfs, files)
        for path in edited:
            workspace.write(MOUNTED + path, b"edited")
        contenders.append(_lister(SANDFS, workspace, MOUNTED, edited))
    plain = trees.plain(files)
    contenders.append(
        Contender(MEMORY_FS, lambda _: list(plain.walk.files()), lambda _: sorted(plain.walk.files()), sorted(files))
    )
    result = lab.race(f"changes() of {EDITS} edits", "list", contenders)
    ours = f"{OURS}, {small:,} files"
    what = f"changes(), {EDITS} edits in {small:,} files"
    lab.goal("10", f"{what} ÷ sandfs", result.ratio(ours, SANDFS), 2)
    lab.goal("10", f"{what} ÷ MemoryFS.walk.files", result.ratio(ours, MEMORY_FS), 0.002)
    lab.goal("10", f"changes(), a tree of {large:,} ÷ {small:,}", result.ratio(f"{OURS}, {large:,} files", ours), 1.1)


def _lister(
    name: str, tree: Any, prefix: str, edited: list[str], prepare: Callable[[], object] = lambda: None
) -> Contender:
    def answer(_: object) -> list[str]:
        return sorted(change.path.removeprefix(prefix) for change in tree.changes())

    return Contender(name, lambda _: tree.changes(), answer, sorted(edited), prepare=prepare)


def _edited(files: trees.Files) -> overlayvfs.OverlayFS:
    """Return an overlay over BASE whose upper holds `files`, one of them an edit of what is below."""
    tree = overlayvfs.OverlayFS([trees.ours(BASE)], overlayvfs.MemoryFS())
    trees.fill(tree, files)
    tree.writebytes(UNTOUCHED, b"edited")
    return tree


def _mounter(lab: Lab, name: str) -> Contender:
    union = lab.unions[name]
    lower = lab.scratch / "fork"
    if not lower.exists():
        trees.on_host(lower, BASE)
    places = [union.place()]

    def work(_: object) -> None:
        union.attach(places[0], [lower])
        union.detach(places[0])

    def answer(_: object) -> bytes:
        union.attach(places[0], [lower])
        try:
            (places[0] / "m/edit").write_bytes(b"edited")
            return (places[0] / "m/edit").read_bytes()
        finally:
            os.unlink(places[0] / "m/edit")
            union.detach(places[0])

    return Contender(name, work, answer, b"edited")


def _chain(
    name: str,
    start: Callable[[], list[Any]],
    write: Callable[[Any, str], object],
    read: Callable[[Any, str], bytes],
    length: int,
) -> Contender:
    """Return a contender that appends `length` forks to a list, each of the one before and with one file more."""
    paths = [f"/d0000/n{number:05}" for number in range(length)]

    def work(chain: list[Any]) -> None:
        tree = chain[-1]
        for path in paths:
            tree = tree.fork()
            write(tree, path)
            chain.append(tree)

    def answer(chain: Sequence[Any]) -> tuple[list[bytes], bytes]:
        return [read(chain[-1], path) for path in paths], read(chain[-1], UNTOUCHED)

    return Contender(name, work, answer, ([b"new"] * length, BASE[UNTOUCHED]), length, start)


def _reader(name: str, read: Callable[[str], bytes], path: str, data: bytes) -> Contender:
    return Contender(name, lambda _: read(path), lambda _: read(path), data)
