"""Overlays over backends and archives that fail, lie, vanish or mean harm: a clear error, and the tree as it was."""

import errno
import io
import os
import re
import shutil
import stat
import subprocess
import sys
import tarfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from fs.base import FS
from fs.memoryfs import MemoryFS as PlainMemoryFS
from fs.tempfs import TempFS

from overlayvfs import MemoryFS, OverlayFS
from overlayvfs.engine.copy_up import CHUNK
from overlayvfs.layers.memory import CLONE_MIN
from overlayvfs.layers.tar import TarLayer

SIZES = {"streamed": CLONE_MIN // 2, "larger than a chunk": 3 * CHUNK}
"""A memory upper copies the first, and reads the second where it is."""


class Opened:
    """A backend's file, wrapped."""

    def __init__(self, file: Any) -> None:
        self.file = file

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)

    def __enter__(self) -> "Opened":
        return self

    def __exit__(self, *args: object) -> None:
        self.file.close()


class Short(Opened):
    """Gives at most ten thousand bytes at a time."""

    def read(self, size: int = -1) -> bytes:
        return self.file.read(min(size, 10_000) if size >= 0 else 10_000)


class FailingHalfWay(Short):
    """Gives nothing of the second half."""

    fails = True

    def read(self, size: int = -1) -> bytes:
        at = self.file.tell()
        half = self.file.seek(0, os.SEEK_END) // 2
        self.file.seek(at)
        if self.fails and at >= half:
            raise ConnectionResetError(errno.ECONNRESET, "the line is dead")
        return super().read(size)


class Backend(PlainMemoryFS):
    """A backend whose files, sizes and listings may be something else than they are; it says its name."""

    def __init__(self, data: bytes = b"data") -> None:
        super().__init__()
        self.opened: Callable[[Any], Any] = lambda file: file
        self.size: int | None = None
        self.listed: list[Any] | None = None
        self.makedir("d")
        self.writebytes("d/f", data)

    def __str__(self) -> str:
        return "<the backend>"

    def openbin(self, path: str, mode: str = "r", buffering: int = -1, **options: Any) -> Any:
        return self.opened(super().openbin(path, mode, buffering, **options))

    def getinfo(self, path: str, namespaces: Any = None) -> Any:
        info = super().getinfo(path, namespaces)
        if self.size is not None and "details" in info.raw and path.endswith("f"):
            info.raw["details"]["size"] = self.size
        return info

    def listdir(self, path: str) -> list[Any]:
        return super().listdir(path) if self.listed is None else self.listed

    def scandir(self, path: str, namespaces: Any = None, page: Any = None) -> Any:
        for info in super().scandir(path, namespaces, page):
            for name in [info.name] if self.listed is None else self.listed:
                yield type(info)({**info.raw, "basic": {**info.raw["basic"], "name": name}})

    def come_to_its_senses(self) -> None:
        """Be honest from here on."""
        self.opened, self.size, self.listed = lambda file: file, None, None


UPPERS = pytest.mark.parametrize("make_upper", [MemoryFS, TempFS, PlainMemoryFS], ids=["memory", "host", "plain"])
LARGE_OR_NOT = pytest.mark.parametrize("size", SIZES.values(), ids=SIZES.keys())

COPIES_UP: dict[str, Callable[[Any], object]] = {
    "open": lambda os_: os_.open("/d/f", os.O_RDWR),
    "utime": lambda os_: os_.utime("/d/f", (5, 5)),
    "rename": lambda os_: os_.rename("/d/f", "/d/g"),
}


def refuses_to_copy_up(backend: Backend, data: bytes, upper: FS, number: int, message: str) -> None:
    """Assert that copies up fail with this errno and a message naming the layer, and that nothing is changed."""
    with OverlayFS([backend], upper) as ofs:
        for verb in COPIES_UP.values():
            with pytest.raises(OSError, match=message) as failure:
                verb(ofs.os)
            assert failure.value.errno == number
            assert failure.value.filename == "/d/f"
            assert str(backend) in failure.value.strerror
        assert [path for path, info in ofs.walk.info()] == ["/d", "/d/f"]
    assert list(upper.walk.files()) == []
    backend.come_to_its_senses()
    with OverlayFS([backend], upper) as ofs:
        ofs.appendbytes("d/f", b"!")
        assert ofs.readbytes("d/f") == data + b"!"


@UPPERS
@LARGE_OR_NOT
def test_a_lower_that_fails_in_the_middle_of_a_copy_up(size: int, make_upper: Callable[[], FS]) -> None:
    data = os.urandom(size)
    backend = Backend(data)
    backend.opened = FailingHalfWay
    refuses_to_copy_up(backend, data, make_upper(), errno.ECONNRESET, "the line is dead")


@UPPERS
@LARGE_OR_NOT
@pytest.mark.parametrize("told", [lambda size: 5, lambda size: size - 1, lambda size: size + 1, lambda size: 9 * size])
def test_a_lower_that_lies_about_a_size(
    told: Callable[[int], int], size: int, make_upper: Callable[[], FS]
) -> None:
    data = os.urandom(size)
    backend = Backend(data)
    backend.size = told(size)
    refuses_to_copy_up(backend, data, make_upper(), errno.EIO, "gives a size of")


def test_a_memory_upper_tells_what_fails_later_in_a_file_it_reads_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    data = os.urandom(3 * CHUNK)
    backend = Backend(data)
    backend.opened = FailingHalfWay
    with OverlayFS([backend], MemoryFS()) as ofs:
        monkeypatch.setattr(FailingHalfWay, "fails", False)
        fd = ofs.os.open("/d/f", os.O_RDWR)
        monkeypatch.setattr(FailingHalfWay, "fails", True)
        for verb in (lambda: ofs.os.pread(fd, 10, len(data) - 10), lambda: ofs.os.pwrite(fd, b"x", len(data) - 10)):
            with pytest.raises(OSError, match="the line is dead") as failure:
                verb()
            assert failure.value.errno == errno.ECONNRESET
            assert str(backend) in failure.value.strerror
        backend.come_to_its_senses()
        assert ofs.readbytes("d/f") == data


@UPPERS
@LARGE_OR_NOT
def test_a_lower_that_reads_little_at_a_time_is_copied_up_whole(size: int, make_upper: Callable[[], FS]) -> None:
    data = os.urandom(size)
    backend = Backend(data)
    backend.opened = Short
    with OverlayFS([backend], make_upper()) as ofs:
        ofs.appendbytes("d/f", b"!")
        assert ofs.readbytes("d/f") == data + b"!"


@pytest.mark.parametrize("name", ["a/b", "..", "nul\0"], ids=repr)
@pytest.mark.parametrize("place", ["lower", "upper"])
def test_a_layer_that_lists_names_no_directory_can_have(place: str, name: str) -> None:
    backend = Backend()
    with OverlayFS([backend], MemoryFS()) if place == "lower" else OverlayFS([MemoryFS()], backend) as ofs:
        backend.listed = ["d", name]
        for verb in (lambda: ofs.os.listdir("/"), lambda: list(ofs.os.scandir("/"))):
            with pytest.raises(OSError, match="no directory can have") as failure:
                verb()
            assert failure.value.errno == errno.EIO
            assert failure.value.filename == "/"
            assert str(backend) in failure.value.strerror
        backend.come_to_its_senses()
        assert ofs.listdir("/") == ["d"]


@pytest.mark.parametrize("place", ["lower", "upper"])
def test_a_layer_that_lists_a_name_twice_has_it_once(place: str) -> None:
    backend = Backend()
    backend.listed = ["d", "d"]
    with OverlayFS([backend], MemoryFS()) if place == "lower" else OverlayFS([MemoryFS()], backend) as ofs:
        assert ofs.listdir("/") == ["d"]
        assert [entry.name for entry in ofs.os.scandir("/")] == ["d"]
        backend.come_to_its_senses()


@UPPERS
@LARGE_OR_NOT
@pytest.mark.parametrize("make_lower", [TempFS, Backend], ids=["host", "plain"])
def test_a_lower_file_that_vanishes(make_lower: Callable[[], FS], size: int, make_upper: Callable[[], FS]) -> None:
    lower, upper = make_lower(), make_upper()
    lower.makedir("d", recreate=True).writebytes("f", bytes(size))
    with OverlayFS([lower], upper) as ofs:
        assert ofs.os.stat("/d/f").st_size == size
        lower.remove("d/f")
        for verb in COPIES_UP.values():
            with pytest.raises(OSError, match=r"any more|vanished") as failure:
                verb(ofs.os)
            assert failure.value.errno in (errno.EIO, errno.ESTALE)
            assert failure.value.filename == "/d/f"
            assert name_of(lower) in failure.value.strerror
    assert list(upper.walk.files()) == []


@pytest.mark.parametrize("make_lower", [TempFS, Backend], ids=["host", "plain"])
def test_a_lower_directory_that_vanishes_is_not_listed_as_empty(make_lower: Callable[[], FS]) -> None:
    lower = make_lower()
    lower.makedir("d", recreate=True)
    lower.makedir("e")
    with OverlayFS([lower], MemoryFS()) as ofs:
        assert stat.S_ISDIR(ofs.os.stat("/d").st_mode)
        lower.removetree("d")
        for verb in (lambda: ofs.os.listdir("/d"), lambda: list(ofs.os.scandir("/d"))):
            with pytest.raises(OSError, match=re.escape(name_of(lower))) as failure:
                verb()
            assert (failure.value.errno, failure.value.filename) == (errno.ESTALE, "/d")
        assert ofs.os.listdir("/e") == []


@UPPERS
def test_a_lower_host_directory_that_vanishes_is_not_copied_up(make_upper: Callable[[], FS]) -> None:
    lower, upper = TempFS(), make_upper()
    lower.makedir("d")
    with OverlayFS([lower], upper) as ofs:
        assert stat.S_ISDIR(ofs.os.stat("/d").st_mode)
        lower.removetree("d")
        with pytest.raises(OSError, match=re.escape(name_of(lower))) as failure:
            ofs.os.mkdir("/d/new")
        assert failure.value.errno == errno.ESTALE
    assert upper.listdir("/") == []


@UPPERS
@pytest.mark.parametrize("make_lower", [TempFS, Backend], ids=["host", "plain"])
def test_a_lower_that_vanishes_altogether(make_lower: Callable[[], FS], make_upper: Callable[[], FS]) -> None:
    lower, upper = make_lower(), make_upper()
    lower.makedir("d", recreate=True).writebytes("f", b"data")
    with OverlayFS([lower], upper) as ofs:
        ofs.makedir("mine").writebytes("f", b"mine")
        assert ofs.os.stat("/d/f").st_size == 4
        vanish(lower)
        for verb in (lambda: ofs.os.open("/d/f", os.O_RDWR), lambda: ofs.os.listdir("/d")):
            with pytest.raises(OSError, match=re.escape(name_of(lower))) as failure:
                verb()
            assert failure.value.errno in (errno.EIO, errno.ESTALE)
        assert ofs.readbytes("mine/f") == b"mine"
    assert sorted(upper.walk.files()) == ["/mine/f"]


@pytest.mark.parametrize("make_upper", [TempFS, Backend], ids=["host", "plain"])
def test_an_upper_that_vanishes_altogether(make_upper: Callable[[], FS]) -> None:
    lower, upper = PlainMemoryFS(), make_upper()
    lower.writebytes("low", b"low")
    ofs = OverlayFS([lower], upper)
    ofs.writebytes("f", b"mine")
    assert ofs.readbytes("low") == b"low"
    vanish(upper)
    for verb in (lambda: ofs.os.open("/low", os.O_RDWR), lambda: ofs.os.mkdir("/new"), lambda: ofs.os.unlink("/f")):
        with pytest.raises(OSError, match=re.escape(name_of(upper))) as failure:
            verb()
        assert failure.value.errno in (errno.EIO, errno.ESTALE, errno.EROFS)
    assert ofs.readbytes("low") == b"low"
    # A backend that can't be asked any more is told of once more, and the overlay ends all the same.
    with suppress(OSError):
        ofs.close()
    assert ofs.isclosed()


def name_of(layer: FS) -> str:
    """Return what messages call a layer."""
    return layer.getsyspath("/").rstrip("/") if isinstance(layer, TempFS) else str(layer)


def vanish(layer: FS) -> None:
    if isinstance(layer, TempFS):
        shutil.rmtree(layer.getsyspath("/"))
    else:
        layer.close()


# Archives


def tar(*entries: tuple[str, bytes, str | bytes]) -> io.BytesIO:
    """Return an archive of (name, type, contents or target)."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, kind, what in entries:
            entry = tarfile.TarInfo(name)
            entry.type = kind
            if isinstance(what, str):
                entry.linkname = what
            else:
                entry.size = len(what)
            archive.addfile(entry, io.BytesIO(what) if isinstance(what, bytes) else None)
    packed.seek(0)
    return packed


def test_symlinks_out_of_an_archive_lead_to_places_in_the_overlay(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_text("not yours")
    links = {"up": "../../../../../../.." + str(outside), "absolute": str(outside), "dir": "/.."}
    archive = tar(*((name, tarfile.SYMTYPE, target) for name, target in links.items()), ("f", tarfile.REGTYPE, b"f"))
    with OverlayFS([TarLayer(archive)], MemoryFS()) as ofs:
        for name in ("up", "absolute"):
            assert not ofs.exists(name)
        assert sorted(ofs.os.listdir("/dir")) == ["absolute", "dir", "f", "up"]
        ofs.makedirs(str(outside.parent))
        ofs.writetext("up", "mine")
        assert ofs.readtext("absolute") == ofs.readtext(str(outside)) == "mine"
    assert outside.read_text() == "not yours"


@pytest.mark.parametrize(
    ("archive", "number"),
    [
        (tar(("fine", tarfile.REGTYPE, b"x"), ("../f", tarfile.REGTYPE, b"x")).getvalue(), errno.EINVAL),
        (tar(("f", tarfile.REGTYPE, b"x" * 5000)).getvalue()[:2000], errno.EIO),
    ],
    ids=["reaching out", "cut short"],
)
def test_a_bad_archive_is_refused_by_name_when_it_is_stacked(archive: bytes, number: int, tmp_path: Path) -> None:
    path = tmp_path / "evil.tar"
    path.write_bytes(archive)
    with pytest.raises(OSError, match=r"evil\.tar") as failure:
        OverlayFS([str(path)], MemoryFS())
    assert failure.value.errno == number


def test_an_archive_cut_while_it_is_stacked_is_eio_and_leaves_nothing_half_copied(tmp_path: Path) -> None:
    path = tmp_path / "shrinking.tar"
    path.write_bytes(tar(("f", tarfile.REGTYPE, bytes(3 * CHUNK))).getvalue())
    upper = PlainMemoryFS()
    with OverlayFS([str(path)], upper) as ofs:
        os.truncate(path, 2 * CHUNK)
        with pytest.raises(OSError, match="shorter") as failure:
            ofs.os.open("/f", os.O_RDWR)
        assert (failure.value.errno, failure.value.filename) == (errno.EIO, "/f")
        assert "shrinking.tar" in failure.value.strerror
        assert ofs.getsize("f") == 3 * CHUNK
    assert upper.listdir("/") == []


_OPEN_AND_MEASURE = """
import resource, sys
from overlayvfs.layers.memory import CLONE_MIN
from overlayvfs.layers.tar import TarLayer
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
layer = TarLayer(sys.argv[1])
print(len(layer.names("/d7")), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads ru_maxrss in KiB, as Linux counts it")
def test_a_million_entries_are_indexed_in_bounded_memory(tmp_path: Path) -> None:
    path = tmp_path / "million.tar"
    empty = tarfile.TarInfo("d0/00000000").tobuf(tarfile.USTAR_FORMAT)
    with open(path, "wb") as file:
        for number in range(1_000_000):
            header = bytearray(empty)
            name = f"d{number % 10}/{number:08}".encode()
            header[: len(name)] = name
            header[148:156] = b" " * 8
            header[148:156] = b"%06o\0 " % sum(header)
            file.write(header)
        file.write(bytes(1024))
    try:
        told = subprocess.run(
            [sys.executable, "-c", _OPEN_AND_MEASURE, str(path)], check=True, capture_output=True, text=True
        ).stdout.split()
    finally:
        path.unlink()
    names, kib = map(int, told)
    assert names == 100_000
    # tar.py counts 250 bytes an entry.
    assert kib < 250 * 1_000_000 >> 10, f"{kib} KiB"
