"""CachedLayer: every promise of a lower, and how rarely the layer behind it is asked."""

import errno
import os
import sys
from functools import partialmethod
from pathlib import Path
from typing import Any

import pytest
from fs.memoryfs import MemoryFS as PlainMemoryFS

from overlayvfs import MemoryFS, OverlayFS
from overlayvfs.abi import SEEK_DATA, SEEK_HOLE
from overlayvfs.layers._blockcache import BLOCK, BlockCache
from overlayvfs.layers.adapt import open_layer
from overlayvfs.layers.base import Capabilities, Layer
from overlayvfs.layers.cached import CachedLayer
from overlayvfs.layers.memory import MemoryLayer
from overlayvfs.testing.conformance import LowerConformance, Tree, fill
from overlayvfs.testing.conformance.trees import contents, directory, opened, raises_errno, read, symlink


class Counting:
    """A layer and the verbs it was asked, those of its open files included."""

    def __init__(self, layer: Layer) -> None:
        self._layer = layer
        self.calls: list[tuple[Any, ...]] = []
        self.failing: OSError | None = None

    @property
    def name(self) -> str:
        return self._layer.name

    @property
    def capabilities(self) -> Capabilities:
        return self._layer.capabilities

    def _ask(self, verb: str, *args: Any, **kwargs: Any) -> Any:
        self.calls.append((verb, *args))
        if self.failing is not None:
            raise self.failing
        answer = getattr(self._layer, verb)(*args, **kwargs)
        return CountingHandle(answer, self.calls) if verb == "open" else answer


# By name: from Python 3.12 on, isinstance() of a protocol looks past __getattr__.
for _verb in [verb for verb, one in vars(Layer).items() if callable(one) and not verb.startswith("_")]:
    setattr(Counting, _verb, partialmethod(Counting._ask, _verb))


class CountingHandle:
    def __init__(self, handle: Any, calls: list[tuple[Any, ...]]) -> None:
        self._handle = handle
        self._calls = calls

    def __getattr__(self, verb: str) -> Any:
        def asked(*args: Any) -> Any:
            self._calls.append((verb, *args))
            return getattr(self._handle, verb)(*args)

        return asked


def filled(tree: Tree) -> MemoryLayer:
    layer = MemoryLayer()
    fill(layer, tree)
    return layer


def counted(tree: Tree, **options: Any) -> tuple[Counting, CachedLayer]:
    behind = Counting(filled(tree))
    cached = CachedLayer(behind, **options)  # type: ignore[arg-type]
    behind.calls.clear()
    return behind, cached


class Cached(LowerConformance):
    def outside(self, layer: Layer) -> dict[str, bytes | None]:
        return contents(layer._layer)  # type: ignore[attr-defined]


class TestCachedInMemory(Cached):
    def make_lower(self, tree: Tree, where: Path) -> Layer:
        return CachedLayer(filled(tree))


class TestCachedOnDisk(Cached):
    def make_lower(self, tree: Tree, where: Path) -> Layer:
        return CachedLayer(filled(tree), cache=where)


class TestCachedButForgetting(Cached):
    """With no room for anything it must still be a layer."""

    def make_lower(self, tree: Tree, where: Path) -> Layer:
        return CachedLayer(filled(tree), max_bytes=0)


# How rarely


CACHES = pytest.mark.parametrize("on_disk", [False, True], ids=["memory", "disk"])


def test_nothing_is_asked_twice():
    behind, layer = counted({"/d": directory(), "/d/f": "x", "/s": symlink("d")})
    for _ in range(3):
        layer.lstat("/d/f")
        layer.listdir("/d")
        layer.readlink("/s")
        layer.listxattr("/d/f")
        with raises_errno(errno.ENOENT):
            layer.lstat("/no")
        with raises_errno(errno.EINVAL):
            layer.readlink("/d")
    assert sorted(behind.calls) == [
        ("listdir", "/d"),
        ("listxattr", "/d/f"),
        ("lstat", "/d/f"),
        ("lstat", "/no"),
        ("readlink", "/d"),
        ("readlink", "/s"),
    ]


def test_a_listed_directory_answers_for_the_names_it_has_not():
    behind, layer = counted({"/d": directory(), "/d/f": "x"})
    layer.listdir("/d")
    with raises_errno(errno.ENOENT):
        layer.lstat("/d/no")
    assert set(layer.names("/d") or ()) == {"f"}
    assert behind.calls == [("listdir", "/d")]


@CACHES
def test_a_file_is_read_once_and_by_blocks(on_disk: bool, tmp_path: Path):
    text = "0123456789abcdef" * (BLOCK // 16 * 2 + 3)
    data = text.encode()
    behind, layer = counted({"/f": text}, cache=tmp_path if on_disk else None)
    for _ in range(3):
        with opened(layer.open("/f")) as handle:
            assert handle.pread(10, 5) == data[5:15]
            assert handle.pread(len(data) + 99, 0) == data
            assert handle.pread(9, BLOCK - 4) == data[BLOCK - 4 : BLOCK + 5]
            assert handle.pread(9, len(data)) == b""
    asked = [call for call in behind.calls if call[0] in ("open", "pread")]
    assert asked == [("open", "/f"), ("pread", BLOCK, 0), ("pread", len(data) - BLOCK, BLOCK)]


@CACHES
def test_what_is_kept_is_bounded_and_the_least_used_goes_first(on_disk: bool, tmp_path: Path):
    tree: Tree = {f"/{name}": name * BLOCK for name in "abcd"}
    behind, layer = counted(tree, cache=tmp_path if on_disk else None, max_bytes=3 * BLOCK)
    for name in "abcabd":
        assert read(layer, f"/{name}") == name.encode() * BLOCK
    assert layer.blocks.used_bytes == 3 * BLOCK
    behind.calls.clear()
    assert read(layer, "/a") + read(layer, "/b") + read(layer, "/d") == b"".join(n.encode() * BLOCK for n in "abd")
    assert not [call for call in behind.calls if call[0] == "pread"]
    assert read(layer, "/c") == b"c" * BLOCK
    assert [call for call in behind.calls if call[0] == "pread"] == [("pread", BLOCK, 0)]


def test_an_overlay_reads_a_slow_file_once_and_copies_it_up_from_the_cache():
    text = "slow" * BLOCK
    data = text.encode()
    behind, layer = counted({"/d": directory(), "/d/f": text})
    with OverlayFS([layer], MemoryFS()) as ofs:
        assert ofs.readbytes("d/f") == data
        asked = len(behind.calls)
        ofs.appendbytes("d/f", b"more")
        assert ofs.readbytes("d/f") == data + b"more"
        assert not [call for call in behind.calls[asked:] if call[0] == "pread"]


def test_a_second_overlay_over_the_same_cache_asks_nothing():
    behind, layer = counted({"/d": directory(), "/d/f": "x", "/d/e": directory()})
    for _ in range(2):
        with OverlayFS([layer]) as ofs:
            assert [path for path, _ in ofs.walk.info()] == ["/d", "/d/e", "/d/f"]
            assert ofs.readtext("d/f") == "x"
        seen, behind.calls[:] = list(behind.calls), []
    assert [call for call in seen if call[0] not in ("identity", "ancestry")] == []


# Trouble


def test_a_passing_trouble_is_not_kept():
    behind, layer = counted({"/f": "x"})
    behind.failing = OSError(errno.ECONNRESET, "gone")
    with raises_errno(errno.ECONNRESET):
        layer.lstat("/f")
    behind.failing = None
    assert layer.lstat("/f").st_size == 1


def test_a_file_shorter_than_its_size_is_eio_naming_the_layer_and_nothing_is_kept_of_it():
    behind, layer = counted({"/f": "twelve bytes"})
    handle = layer.open("/f")
    fd = behind._layer.open("/f", writable=True)
    fd.truncate(5)
    with pytest.raises(OSError, match="ends at 5 of 12") as failure:
        handle.pread(12, 0)
    assert failure.value.errno == errno.EIO
    assert layer.name in failure.value.strerror
    assert layer.blocks.used_bytes == 0


def test_a_closed_file_is_ebadf_even_if_all_of_it_is_kept():
    _, layer = counted({"/f": "x"})
    handle = layer.open("/f")
    assert handle.pread(1, 0) == b"x"
    handle.close()
    with raises_errno(errno.EBADF):
        handle.pread(1, 0)


def test_holes_are_those_of_the_layer():
    _, layer = counted({})
    source = layer._layer._layer.create("/f", 0o644, 0, 0)  # type: ignore[attr-defined]
    source.truncate(1 << 30)
    source.pwrite(b"x", 1 << 20)
    source.close()
    with opened(layer.open("/f")) as handle:
        assert handle.seek_extent(0, SEEK_DATA) == 1 << 20
        assert handle.seek_extent(1 << 20, SEEK_HOLE) == (1 << 20) + 4096


def test_a_file_whose_blocks_cover_it_is_not_asked_for_holes():
    behind, layer = counted({"/f": "x" * 9})
    with opened(layer.open("/f")) as handle:
        behind.calls.clear()
        assert (handle.seek_extent(3, SEEK_DATA), handle.seek_extent(3, SEEK_HOLE)) == (3, 9)
        for whence in (SEEK_DATA, SEEK_HOLE):
            with raises_errno(errno.ENXIO):
                handle.seek_extent(9, whence)
        with raises_errno(errno.EINVAL):
            handle.seek_extent(0, os.SEEK_END)
    assert behind.calls == []


@pytest.mark.skipif(sys.platform != "linux", reason="looks at descriptors in /proc")
def test_a_cache_that_cannot_be_written_or_read_is_no_trouble(tmp_path: Path):
    kept = BlockCache(4 * BLOCK, os.fspath(tmp_path))
    kept.put("a", b"x" * BLOCK)
    os.ftruncate(kept._store._file.fileno(), 9)  # type: ignore[attr-defined]
    assert kept.get("a") is None
    assert kept.used_bytes == 0
    kept._store._file.close()  # type: ignore[attr-defined]
    kept._store._file = open("/dev/full", "r+b", buffering=0)  # type: ignore[attr-defined]
    kept.put("b", b"y")
    assert kept.get("b") is None
    kept.close()


def test_a_cache_in_no_directory_is_refused(tmp_path: Path):
    with raises_errno(errno.ENOENT):
        CachedLayer(filled({}), cache=tmp_path / "no")


def test_what_is_given_as_a_layer_stays_open_and_what_was_opened_for_it_is_closed():
    plain = PlainMemoryFS()
    plain.writebytes("f", b"x")
    given = open_layer(plain, "lower")
    for _ in range(2):
        cached = CachedLayer(given)
        assert read(cached, "/f") == b"x"
        cached.close()
    opened_here = CachedLayer("mem://")
    opened_here.close()
    with pytest.raises(OSError, match="closed"):
        opened_here.lstat("/f")
