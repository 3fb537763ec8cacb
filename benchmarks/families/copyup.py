"""One byte written into a large lower file: the kernel copies the file, a memory upper keeps a block (row 11)."""

import os
import shutil
import tracemalloc
from collections.abc import Callable
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import overlayvfs
from benchmarks.lab import KERNEL, Lab
from overlayvfs.cli.race import Contender

MIB = 1 << 20
ON_MEMORY = "overlayvfs, lower in memory"
ON_HOST = "overlayvfs, lower on the host"
COPY = "a copy of the file"

PATH = "/data/large"
AT = 12_345


def run(lab: Lab) -> None:
    """Race copies up of a small and of a large file, and weigh what the large one leaves."""
    size = lab.sized(64, 2) * MIB
    large = _race(lab, size)
    small = _race(lab, MIB)
    for ours in (ON_MEMORY, ON_HOST):
        for theirs, other in ((KERNEL, "the kernel"), (COPY, "a whole copy")):
            what = f"1 byte into {size // MIB} MiB ({ours.partition(', ')[2]}): × quicker than {other}"
            lab.quicker("11", what, large.ratio(ours, theirs), 100)
        growth = large.times[ours].best / small.times[ours].best
        lab.goal("11", f"1 byte into {size // MIB} MiB ÷ into 1 MiB ({ours.partition(', ')[2]})", growth, 1.3)
    for where, lower in (("in memory", _in_memory(size)), ("on the host", _on_host(lab, size))):
        lab.goal("11", f"bytes that remain allocated after it (lower {where})", _weight(size, lower), 128 << 10)


def _race(lab: Lab, size: int) -> Any:
    expected = (size, b"ab")
    host = _on_host(lab, size)
    numbers = count()
    contenders = [
        Contender(ON_MEMORY, _write, _see, expected, prepare=_mounted(_in_memory(size))),
        Contender(ON_HOST, _write, _see, expected, prepare=_mounted(host)),
        Contender(
            COPY,
            _copy_and_write(host),
            _see_on_host,
            expected,
            prepare=lambda: lab.scratch / f"copy{next(numbers)}",
            finish=os.unlink,
        ),
    ]
    for name, union in lab.unions.items():
        contenders.append(
            Contender(
                name,
                lambda merged: _write_on_host(f"{merged}{PATH}"),
                lambda merged: _see_on_host(f"{merged}{PATH}"),
                expected,
                prepare=partial(union.mount, [host]),
                finish=union.discard,
            )
        )
    return lab.race(f"one byte into a lower file of {size // MIB} MiB", "write", contenders)


def _contents(size: int) -> bytes:
    return b"a" * size


def _in_memory(size: int) -> overlayvfs.MemoryFS:
    lower = overlayvfs.MemoryFS()
    lower.makedir("/data")
    lower.writebytes(PATH, _contents(size))
    return lower


def _on_host(lab: Lab, size: int) -> Path:
    place = lab.scratch / f"copyup{size}"
    if not place.exists():
        (place / "data").mkdir(parents=True)
        Path(f"{place}{PATH}").write_bytes(_contents(size))
    return place


def _mounted(lower: Any) -> Callable[[], overlayvfs.OverlayFS]:
    spec = str(lower) if isinstance(lower, Path) else lower

    def mount() -> overlayvfs.OverlayFS:
        tree = overlayvfs.OverlayFS([spec], overlayvfs.MemoryFS())
        assert tree.exists(PATH)
        return tree

    return mount


def _write(tree: overlayvfs.OverlayFS) -> None:
    with tree.openbin(PATH, "r+") as file:
        file.seek(AT)
        file.write(b"b")


def _see(tree: overlayvfs.OverlayFS) -> tuple[int, bytes]:
    with tree.openbin(PATH) as file:
        file.seek(AT - 1)
        return tree.getsize(PATH), file.read(2)


def _copy_and_write(lower: Path) -> Callable[[Path], None]:
    def work(place: Path) -> None:
        shutil.copyfile(f"{lower}{PATH}", place)
        _write_on_host(place)

    return work


def _write_on_host(path: str | Path) -> None:
    with open(path, "r+b", 0) as file:
        file.seek(AT)
        file.write(b"b")


def _see_on_host(path: str | Path) -> tuple[int, bytes]:
    with open(path, "rb", 0) as file:
        file.seek(AT - 1)
        return os.path.getsize(path), file.read(2)


def _weight(size: int, lower: Any) -> int:
    """Return the bytes Python allocated for one such write and keeps, by tracemalloc; checks what then shows."""
    tree = _mounted(lower)()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        _write(tree)
        kept = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert _see(tree) == (size, b"ab")
    return kept
