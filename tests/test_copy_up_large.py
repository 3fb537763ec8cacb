"""Copying large files up: bounded memory, holes kept, blocks shared where they can be, and how far it is."""

import errno
import os
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fs.memoryfs import MemoryFS as PlainMemoryFS
from fs.osfs import OSFS

from overlayvfs import MemoryFS, OverlayFS
from overlayvfs.engine.copy_up import CHUNK
from overlayvfs.layers.local import clone as cloning
from overlayvfs.testing import raises_errno

GIB = 1 << 30
MIB = 1 << 20

linux = pytest.mark.skipif(sys.platform != "linux", reason="host directories as layers need Linux")

DATA = {0: b"at the start", 20 * GIB + 5: b"in the middle" * 1000, 64 * GIB - 3: b"end"}
"""What a sparse file of 64 GiB holds, and where."""


class PlainOSFS(OSFS):
    """A subclass: an ordinary PyFilesystem, which tells of no holes."""


@pytest.fixture
def sparse(tmp_path: Path) -> Iterator[Path]:
    """A host directory with a sparse file of 64 GiB, gone at once after the test."""
    directory = tmp_path / "lower"
    directory.mkdir()
    with open(directory / "big", "wb") as file:
        for at, data in DATA.items():
            file.seek(at)
            file.write(data)
    yield directory
    (directory / "big").unlink()


def check_big(ofs: OverlayFS) -> None:
    with ofs.openbin("big") as file:
        for at, data in DATA.items():
            file.seek(at)
            assert file.read(len(data)) == data
        file.seek(40 * GIB)
        assert file.read(1000) == bytes(1000)
    assert ofs.getsize("big") == 64 * GIB


def peak_of(act: Callable[[], object]) -> int:
    """Return how many bytes of memory Python had at once because of `act`."""
    tracemalloc.start()
    try:
        act()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@linux
def test_64_gib_are_opened_read_and_copied_up_into_memory_without_being_there(sparse: Path) -> None:
    def use() -> None:
        mine = MemoryFS()
        with OverlayFS([str(sparse)], mine) as ofs:
            check_big(ofs)
            with ofs.os.fdopen(ofs.os.open("/big", os.O_RDWR), "r+b") as file:
                file.seek(30 * GIB)
                file.write(b"written")
            check_big(ofs)
            assert mine.os.stat("/big").st_size == 64 * GIB
            # 512-byte units: a page for each run of data, as tmpfs counts, and one for what was written.
            assert mine.os.stat("/big").st_blocks < 1000

    assert peak_of(use) < 4 * MIB


@linux
def test_64_gib_are_copied_from_host_to_host_in_constant_memory(sparse: Path, tmp_path: Path) -> None:
    upper = tmp_path / "upper"
    upper.mkdir()

    def use() -> None:
        with OverlayFS([str(sparse)], str(upper)) as ofs:
            ofs.os.chmod("/big", 0o600)
            check_big(ofs)

    try:
        assert peak_of(use) < 4 * MIB
        assert os.stat(upper / "big").st_size == 64 * GIB
        assert os.stat(upper / "big").st_blocks * 512 < MIB
    finally:
        (upper / "big").unlink()


@linux
def test_what_does_not_fit_in_memory_is_enospc_and_leaves_nothing_behind(sparse: Path) -> None:
    with open(sparse / "big", "r+b") as file:
        file.seek(10 * GIB)
        file.write(bytes(range(256)) * 4 * (3 * MIB // 1024))
    mine = MemoryFS(size=MIB)
    free = mine.os.statvfs("/").f_bfree
    with OverlayFS([str(sparse)], mine) as ofs:
        for _ in range(2):
            with raises_errno(errno.ENOSPC):
                ofs.os.open("/big", os.O_RDWR)
        check_big(ofs)
        assert mine.os.listdir("/") == []
    assert mine.os.statvfs("/").f_bfree == free


def test_a_file_of_a_memory_lower_is_shared_and_not_copied() -> None:
    base, mine = MemoryFS(), MemoryFS()
    base.writebytes("f", b"x" * (64 * MIB))

    def copy_up() -> None:
        with OverlayFS([base], mine) as ofs:
            ofs.appendbytes("f", b"y")

    assert peak_of(copy_up) < 2 * MIB
    assert mine.getsize("f") == 64 * MIB + 1
    assert base.getsize("f") == 64 * MIB


def test_a_plain_backend_is_streamed_in_pieces(tmp_path: Path) -> None:
    (tmp_path / "lower").mkdir()
    (tmp_path / "upper").mkdir()
    (tmp_path / "lower/f").write_bytes(b"0123456789abcdef" * (32 * MIB // 16))

    def copy_up() -> None:
        with OverlayFS([PlainOSFS(str(tmp_path / "lower"))], PlainOSFS(str(tmp_path / "upper"))) as ofs:
            ofs.appendbytes("f", b"y")

    assert peak_of(copy_up) < 4 * CHUNK
    assert (tmp_path / "upper/f").stat().st_size == 32 * MIB + 1


@linux
def test_host_to_host_asks_for_a_reflink_and_then_for_a_copy_inside_the_kernel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def noting(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def noted(*args: Any) -> Any:
            asked.append(name)
            return call(*args)

        return noted

    def no_reflink(src: int, dst: int) -> None:
        raise OSError(errno.EOPNOTSUPP, "this file system shares no blocks")

    def bytes_through_python(*args: Any) -> Any:
        raise AssertionError("the kernel was to copy")

    monkeypatch.setattr(cloning.syscalls, "share_blocks", noting("reflink", no_reflink))
    monkeypatch.setattr(os, "copy_file_range", noting("copy_file_range", os.copy_file_range))
    monkeypatch.setattr(os, "pwrite", bytes_through_python)
    (tmp_path / "lower").mkdir()
    (tmp_path / "upper").mkdir()
    (tmp_path / "lower/f").write_bytes(b"x" * MIB)
    with OverlayFS([str(tmp_path / "lower")], str(tmp_path / "upper")) as ofs:
        ofs.os.close(ofs.os.open("/f", os.O_RDWR))
    assert (tmp_path / "upper/f").read_bytes() == b"x" * MIB
    assert asked == ["reflink", "copy_file_range"]

    asked.clear()
    monkeypatch.setattr(cloning.syscalls, "share_blocks", noting("reflink", lambda src, dst: None))
    (tmp_path / "upper/f").unlink()
    with OverlayFS([str(tmp_path / "lower")], str(tmp_path / "upper")) as ofs:
        ofs.os.close(ofs.os.open("/f", os.O_RDWR))
    assert asked == ["reflink"]


# How far it is


def overlay(size: int) -> tuple[OverlayFS, PlainMemoryFS]:
    base, mine = PlainMemoryFS(), PlainMemoryFS()
    base.makedir("d")
    base.writebytes("d/f", b"x" * size)
    return OverlayFS([base], mine), mine


def test_progress_is_told_piece_by_piece_and_when_all_is_done() -> None:
    ofs, _ = overlay(3 * CHUNK + 7)
    told: list[tuple[str, int, int]] = []
    ofs.on_copy_up = lambda *how: told.append(how)
    total = 3 * CHUNK + 7
    ofs.appendbytes("d/f", b"y")
    assert told == [("/d/f", done, total) for done in (CHUNK, 2 * CHUNK, 3 * CHUNK, total)]
    ofs.appendbytes("d/f", b"y")
    ofs.makedir("d/e")
    assert len(told) == 4


def test_progress_counts_what_is_copied_and_not_what_is_cut_off() -> None:
    ofs, _ = overlay(5 * CHUNK)
    told: list[tuple[str, int, int]] = []
    ofs.on_copy_up = lambda *how: told.append(how)
    ofs.os.truncate("/d/f", CHUNK + 1)
    assert told == [("/d/f", CHUNK, CHUNK + 1), ("/d/f", CHUNK + 1, CHUNK + 1)]


def test_what_is_shared_is_told_once() -> None:
    base = MemoryFS()
    base.writebytes("f", b"x" * (5 * CHUNK))
    ofs = OverlayFS([base], MemoryFS())
    told: list[tuple[str, int, int]] = []
    ofs.on_copy_up = lambda *how: told.append(how)
    ofs.appendbytes("f", b"y")
    assert told == [("/f", 5 * CHUNK, 5 * CHUNK)]


@linux
def test_a_copy_inside_the_kernel_tells_how_far_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_reflink(src: int, dst: int) -> None:
        raise OSError(errno.EOPNOTSUPP, "this file system shares no blocks")

    monkeypatch.setattr(cloning.syscalls, "share_blocks", no_reflink)
    monkeypatch.setattr(cloning, "_STEP", MIB)
    (tmp_path / "lower").mkdir()
    (tmp_path / "upper").mkdir()
    (tmp_path / "lower/f").write_bytes(b"x" * (2 * MIB + 9))
    told: list[int] = []
    with OverlayFS([str(tmp_path / "lower")], str(tmp_path / "upper")) as ofs:
        ofs.on_copy_up = lambda path, done, total: told.append(done)
        ofs.os.close(ofs.os.open("/f", os.O_RDWR))
    assert told == [MIB, 2 * MIB, 2 * MIB + 9]


class Enough(Exception):
    """What a caller raises to stop a copy."""


def test_a_caller_may_stop_a_copy_and_finds_the_tree_as_it_was() -> None:
    ofs, mine = overlay(3 * CHUNK)

    def stop(path: str, done: int, total: int) -> None:
        if done == 2 * CHUNK:
            raise Enough(path)

    ofs.on_copy_up = stop
    with pytest.raises(Enough, match="/d/f"):
        ofs.appendbytes("d/f", b"y")
    assert not mine.exists("d/f")
    ofs.on_copy_up = None
    ofs.appendbytes("d/f", b"y")
    assert ofs.getsize("d/f") == 3 * CHUNK + 1
    ofs.close()
    assert mine.listdir("/") == ["d"]
