"""Tar archives as layers: the conformance suite, then what only archives have: order, compression, malice."""

import bz2
import errno
import gzip
import io
import lzma
import os
import random
import stat
import sys
import tarfile
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest
import zstandard

from overlayvfs.abi import SEEK_DATA, SEEK_HOLE, Stat, is_whiteout, makedev
from overlayvfs.layers.base import Layer, UpperLayer
from overlayvfs.layers.tar import TarLayer
from overlayvfs.testing.conformance import LowerConformance, Node, Tree, node
from overlayvfs.testing.conformance.trees import raises_errno, read, read_tree

COMPRESSIONS: dict[str, Callable[[bytes], bytes]] = {
    "plain": bytes,
    "gzip": gzip.compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "zstd": zstandard.compress,
}
TYPES = {
    stat.S_IFREG: tarfile.REGTYPE,
    stat.S_IFDIR: tarfile.DIRTYPE,
    stat.S_IFLNK: tarfile.SYMTYPE,
    stat.S_IFCHR: tarfile.CHRTYPE,
    stat.S_IFBLK: tarfile.BLKTYPE,
    stat.S_IFIFO: tarfile.FIFOTYPE,
}


Entry = tuple[tarfile.TarInfo, bytes]


def entry(name: str, data: bytes = b"", kind: bytes = tarfile.REGTYPE, **fields: object) -> Entry:
    """Return one entry for `archive`; `fields` are TarInfo's own."""
    info = tarfile.TarInfo(name)
    info.type = kind
    info.size = len(data)
    for field, value in fields.items():
        setattr(info, field, value)
    return info, data


def folder(name: str, **fields: object) -> Entry:
    return entry(name, kind=tarfile.DIRTYPE, **{"mode": 0o755, **fields})


def link(name: str, target: str) -> Entry:
    return entry(name, kind=tarfile.LNKTYPE, linkname=target)


def symlink(name: str, target: str) -> Entry:
    return entry(name, kind=tarfile.SYMTYPE, linkname=target)


def archive(*entries: Entry, format: int = tarfile.PAX_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=format) as tar:
        for info, data in entries:
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def layer_of(*entries: Entry, **options: object) -> TarLayer:
    return TarLayer(io.BytesIO(archive(*entries)), name="it.tar", **options)  # type: ignore[arg-type]


def blocks(data: bytes) -> bytes:
    """Return `data` padded to whole blocks."""
    return data + bytes(-len(data) % tarfile.BLOCKSIZE)


def raw(*parts: bytes) -> bytes:
    """Return an archive of ready-made blocks with the end it needs."""
    return b"".join(parts) + bytes(2 * tarfile.BLOCKSIZE)


def header(name: str, size: int = 0, kind: bytes = tarfile.REGTYPE, patch: Iterable[tuple[int, bytes]] = ()) -> bytes:
    """Return one ustar header with fields overwritten at byte offsets, and the right checksum."""
    info, _ = entry(name, kind=kind, size=size)
    block = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    for at, value in patch:
        block[at : at + len(value)] = value
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def pax(*records: tuple[str, str]) -> bytes:
    """Return an extended header with these records, repeated keywords included."""
    body = b""
    for keyword, value in records:
        rest = f" {keyword}={value}\n".encode()
        length = len(rest) + len(str(len(rest)))
        length = len(rest) + len(str(length))
        body += str(length).encode() + rest
    return header("PaxHeaders/x", len(body), tarfile.XHDTYPE) + blocks(body)


def shown(layer: Layer) -> dict[str, bytes | str]:
    """Return files with their bytes and everything else by its kind."""
    tree: dict[str, bytes | str] = {}
    for path in read_tree(layer):
        mode = layer.lstat(path).st_mode
        tree[path] = read(layer, path) if stat.S_ISREG(mode) else stat.filemode(mode)[0]
    return tree


def refusal(data: bytes | io.IOBase, number: int = errno.EINVAL, **options: object) -> str:
    """Return the message with which an archive is refused; it names the archive."""
    origin = io.BytesIO(data) if isinstance(data, bytes) else data
    with raises_errno(number) as caught:
        TarLayer(origin, name="it.tar", **options)  # type: ignore[arg-type]
    assert caught.value.filename == "it.tar"
    return str(caught.value)


# Every promise of a lower, compressed or not


def tar_of(tree: Tree) -> bytes:
    entries = []
    for path, value in tree.items():
        one = node(value)
        entries.append(_tar_entry(path, one))
    return archive(*entries)


def _tar_entry(path: str, one: Node) -> Entry:
    if one.link_to is not None:
        return link(path[1:], one.link_to[1:])
    headers = {f"SCHILY.xattr.{name}": value.decode() for name, value in one.xattrs.items()}
    return entry(
        path[1:],
        one.data,
        TYPES[stat.S_IFMT(one.mode)],
        mode=stat.S_IMODE(one.mode),
        uid=one.uid,
        gid=one.gid,
        mtime=one.mtime_ns // 1_000_000_000,
        linkname=one.target,
        devmajor=os.major(one.rdev),
        devminor=os.minor(one.rdev),
        pax_headers=headers,
    )


class TestTarIsALower(LowerConformance):
    compression = "plain"

    def make_lower(self, tree: Tree, where: Path) -> Layer:
        path = where / "root.tar"
        path.write_bytes(COMPRESSIONS[self.compression](tar_of(tree)))
        return TarLayer(path)

    def outside(self, layer: Layer) -> dict[str, bytes | None]:
        with self.archive(layer.name) as tar:
            files = {info.name: tar.extractfile(info) for info in tar if info.isreg() or info.islnk()}
            return {f"/{info.name}": file.read() if (file := files.get(info.name)) else None for info in tar}


    def archive(self, path: str) -> tarfile.TarFile:
        return tarfile.open(path)


class TestGzippedTarIsALower(TestTarIsALower):
    compression = "gzip"


class TestZstdTarIsALower(TestTarIsALower):
    compression = "zstd"

    def archive(self, path: str) -> tarfile.TarFile:
        # The module itself reads it from Python 3.14 on.
        with open(path, "rb") as packed:
            return tarfile.open(fileobj=io.BytesIO(zstandard.ZstdDecompressor().stream_reader(packed).read()))


class TestTarInAFileObjectIsALower(LowerConformance):
    def make_lower(self, tree: Tree, where: Path) -> Layer:
        return TarLayer(io.BytesIO(tar_of(tree)))


# What entries say


def test_tar_is_a_layer_and_no_upper():
    layer = layer_of()
    assert isinstance(layer, Layer)
    assert not isinstance(layer, UpperLayer)


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_every_format_shows_the_same_tree(format):
    name = "/".join(["x" * 30] * 6)
    data = archive(entry(name, b"deep", mode=0o4711, uid=7, gid=8, mtime=9), symlink("s", "t" * 90), format=format)
    layer = TarLayer(io.BytesIO(data))
    st = layer.lstat("/" + name)
    assert (stat.S_IMODE(st.st_mode), st.st_uid, st.st_gid, st.st_mtime_ns) == (0o4711, 7, 8, 9_000_000_000)
    assert read(layer, "/" + name) == b"deep"
    assert layer.readlink("/s") == "t" * 90


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        ("1700000000.123456789", 1_700_000_000_123_456_789),
        ("1700000000.5", 1_700_000_000_500_000_000),
        ("-1.25", -1_250_000_000),
        ("1e3", None),
        ("9" * 20, (1 << 63) - 1),
    ],
)
def test_times_are_exact_to_the_nanosecond_and_clamped(text, ns):
    data = raw(pax(("mtime", text)), header("f"))
    if ns is None:
        assert "mtime" in refusal(data)
    else:
        assert TarLayer(io.BytesIO(data)).lstat("/f").st_mtime_ns == ns


def test_xattrs_are_read_in_both_spellings():
    data = raw(
        pax(
            ("SCHILY.xattr.user.a%3Db", "v"),
            ("LIBARCHIVE.xattr.user.sp%20ace", "AAH/"),
            ("LIBARCHIVE.xattr.user.short", "eA"),
        ),
        header("f"),
    )
    layer = TarLayer(io.BytesIO(data))
    assert {name: layer.getxattr("/f", name) for name in layer.listxattr("/f")} == {
        "user.a=b": b"v",
        "user.sp ace": b"\0\1\xff",
        "user.short": b"x",
    }


def test_binary_xattr_survives():
    value = bytes(range(256))
    records = b" SCHILY.xattr.user.k=" + value + b"\n"
    body = str(len(records) + 3).encode() + records
    data = raw(header("x", len(body), tarfile.XHDTYPE), blocks(body), header("f"))
    assert TarLayer(io.BytesIO(data)).getxattr("/f", "user.k") == value


def test_names_that_are_no_utf8_keep_their_bytes():
    data = raw(header("f", patch=[(0, b"caf\xe9")]))
    assert [entry.d_name for entry in TarLayer(io.BytesIO(data)).listdir("")] == [os.fsdecode(b"caf\xe9")]


def test_device_numbers_are_kept():
    layer = layer_of(entry("b", kind=tarfile.BLKTYPE, devmajor=8, devminor=300))
    st = layer.lstat("/b")
    assert stat.S_ISBLK(st.st_mode)
    assert st.st_rdev == makedev(8, 300)


def test_absolute_and_dotted_names_are_names_below_the_root():
    layer = layer_of(entry("/etc/passwd", b"1"), entry("./a//b/./c", b"2"))
    assert shown(layer) == {"/etc": "d", "/etc/passwd": b"1", "/a": "d", "/a/b": "d", "/a/b/c": b"2"}


def test_entry_for_the_root_gives_its_attributes():
    st = layer_of(folder("./", mode=0o1777, uid=5)).lstat("")
    assert (st.st_mode, st.st_uid) == (stat.S_IFDIR | 0o1777, 5)


def test_missing_parents_and_root_are_plain_directories_of_root():
    layer = layer_of(entry("a/b/f"))
    for path in ("", "/a", "/a/b"):
        st = layer.lstat(path)
        assert (st.st_mode, st.st_uid, st.st_gid, st.st_mtime_ns) == (stat.S_IFDIR | 0o755, 0, 0, 0)


def test_directory_entry_after_its_contents_brings_its_attributes():
    layer = layer_of(entry("d/f", b"x"), folder("d", mode=0o700, uid=3))
    assert (layer.lstat("/d").st_mode, layer.lstat("/d").st_uid) == (stat.S_IFDIR | 0o700, 3)
    assert read(layer, "/d/f") == b"x"


def test_inode_numbers_count_from_the_root_in_the_archives_order():
    layer = layer_of(folder("d"), entry("d/f"), link("g", "d/f"), entry("h"))
    assert [layer.lstat(path).st_ino for path in ("", "/d", "/d/f", "/g", "/h")] == [1, 2, 3, 3, 4]


def test_directories_count_their_subdirectories():
    layer = layer_of(folder("d"), folder("d/e"), folder("d/g"), entry("d/f"), entry("d/g"))
    assert [layer.lstat(path).st_nlink for path in ("", "/d", "/d/e")] == [3, 3, 2]


# Duplicates: the last entry of a name wins


def test_later_file_replaces_an_earlier_one():
    assert shown(layer_of(entry("f", b"old"), entry("f", b"newer"))) == {"/f": b"newer"}


def test_later_symlink_replaces_a_file_and_the_other_way_round():
    layer = layer_of(entry("a"), symlink("a", "t"), symlink("b", "t"), entry("b", b"x"))
    assert shown(layer) == {"/a": "l", "/b": b"x"}
    with raises_errno(errno.EINVAL):
        layer.readlink("/b")


def test_file_over_a_directory_removes_all_below():
    layer = layer_of(folder("d"), folder("d/e"), entry("d/e/f"), link("kept", "d/e/f"), entry("d", b"x"))
    assert shown(layer) == {"/kept": b"", "/d": b"x"}
    assert layer.lstat("/kept").st_nlink == 1
    assert layer.lstat("").st_nlink == 2


def test_directory_over_a_file_replaces_it():
    layer = layer_of(entry("d", b"x"), folder("d"), entry("d/f", b"y"))
    assert shown(layer) == {"/d": "d", "/d/f": b"y"}
    assert layer.lstat("").st_nlink == 3


def test_directory_over_a_directory_keeps_its_contents():
    layer = layer_of(folder("d", pax_headers={"SCHILY.xattr.user.k": "v"}), entry("d/f", b"y"), folder("d", mode=0o711))
    assert shown(layer) == {"/d": "d", "/d/f": b"y"}
    assert layer.lstat("/d").st_mode == stat.S_IFDIR | 0o711
    assert layer.listxattr("/d") == []


def test_hard_link_stays_with_a_file_whose_name_is_replaced():
    layer = layer_of(entry("a", b"old"), link("b", "a"), entry("a", b"new"), link("c", "a"))
    assert shown(layer) == {"/a": b"new", "/b": b"old", "/c": b"new"}
    assert [layer.lstat(path).st_nlink for path in ("/a", "/b", "/c")] == [2, 1, 2]


def test_hard_link_over_an_existing_name_replaces_it():
    layer = layer_of(entry("a", b"x"), entry("b", b"y"), link("b", "./a"), link("b", "/b"))
    assert shown(layer) == {"/a": b"x", "/b": b"x"}
    assert layer.lstat("/a").st_nlink == 2


def test_hard_link_that_replaces_the_directory_its_target_is_in_keeps_the_target():
    layer = layer_of(folder("d"), entry("d/f", b"x"), link("d", "d/f"))
    assert shown(layer) == {"/d": b"x"}
    assert layer.lstat("/d").st_nlink == 1


def test_hard_link_to_a_symlink_is_a_second_name_of_the_link():
    layer = layer_of(symlink("a", "t"), link("b", "a"))
    assert layer.readlink("/b") == "t"
    assert layer.lstat("/a").st_nlink == 2


# Sparse files, in the four forms GNU tar writes

SPARSE_SIZE = 1 << 36
SPARSE_MAP = [(4096, 5), (SPARSE_SIZE - 8192, 3)]
SPARSE_DATA = b"firstend"


def _old_gnu_sparse() -> bytes:
    # 64 GiB has no place in eleven octal digits: base 256.
    fields = b"".join(_number(offset) + _number(length) for offset, length in SPARSE_MAP)
    return header("s", 8, tarfile.GNUTYPE_SPARSE, [(386, fields), (483, _number(SPARSE_SIZE))]) + blocks(SPARSE_DATA)


def _number(value: int) -> bytes:
    return b"\x80" + value.to_bytes(11, "big")


def _sparse_00() -> bytes:
    records = [("GNU.sparse.size", str(SPARSE_SIZE)), ("GNU.sparse.numblocks", "2")]
    for offset, length in SPARSE_MAP:
        records += [("GNU.sparse.offset", str(offset)), ("GNU.sparse.numbytes", str(length))]
    return pax(*records) + header("s", 8) + blocks(SPARSE_DATA)


def _sparse_01() -> bytes:
    numbers = ",".join(f"{offset},{length}" for offset, length in SPARSE_MAP)
    records = [("GNU.sparse.size", str(SPARSE_SIZE)), ("GNU.sparse.name", "s"), ("GNU.sparse.map", numbers)]
    return pax(*records) + header("GNUSparseFile.0/s", 8) + blocks(SPARSE_DATA)


def _sparse_10() -> bytes:
    records = [("GNU.sparse.major", "1"), ("GNU.sparse.minor", "0"), ("GNU.sparse.name", "s")]
    records.append(("GNU.sparse.realsize", str(SPARSE_SIZE)))
    table = blocks("".join(f"{n}\n" for n in [2, *SPARSE_MAP[0], *SPARSE_MAP[1]]).encode())
    return pax(*records) + header("GNUSparseFile.0/s", len(table) + 8) + table + blocks(SPARSE_DATA)


@pytest.mark.parametrize("form", [_old_gnu_sparse, _sparse_00, _sparse_01, _sparse_10])
def test_sparse_file_shows_its_size_its_data_and_its_holes(form):
    layer = TarLayer(io.BytesIO(raw(form(), header("after", 0))))
    handle = layer.open("/s")
    last = SPARSE_SIZE - 8192
    assert (handle.stat().st_size, handle.stat().st_blocks) == (SPARSE_SIZE, 1)
    assert handle.pread(10, 4094) == b"\0\0first\0\0\0"
    assert handle.pread(8, last - 1) == b"\0end\0\0\0\0"
    assert handle.pread(100, SPARSE_SIZE - 4) == b"\0\0\0\0"
    assert [handle.seek_extent(n, SEEK_DATA) for n in (0, 4096, 4098, 4101)] == [4096, 4096, 4098, last]
    assert [handle.seek_extent(n, SEEK_HOLE) for n in (0, 4096, 4100, last)] == [0, 4101, 4101, last + 3]
    with raises_errno(errno.ENXIO):
        handle.seek_extent(last + 3, SEEK_DATA)
    assert [entry.d_name for entry in layer.listdir("")] == ["s", "after"]


def test_extents_that_touch_are_no_hole():
    data = raw(pax(("GNU.sparse.size", "10"), ("GNU.sparse.map", "0,4,4,4")), header("s", 8), blocks(b"abcdefgh"))
    handle = TarLayer(io.BytesIO(data)).open("/s")
    assert handle.seek_extent(1, SEEK_HOLE) == 8
    assert handle.pread(10, 0) == b"abcdefgh\0\0"


@pytest.mark.parametrize("numbers", ["4,4,0,4", "0,4,2,4", "0,9", "0,4,4,4,8,2"])
def test_sparse_map_that_contradicts_itself_is_refused(numbers):
    # Falling, overlapping, past the file's end, more data than the archive holds.
    length = 8 if numbers == "0,9" else 10
    data = raw(pax(("GNU.sparse.size", str(length)), ("GNU.sparse.map", numbers)), header("s", 8), blocks(b"abcdefgh"))
    if numbers == "0,4,4,4,8,2":
        data = raw(pax(("GNU.sparse.size", "2000"), ("GNU.sparse.map", "0,2000")), header("s", 8), blocks(b"abcdefgh"))
    assert "'s'" in refusal(data)


# Compression and where archives come from


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_every_compression_shows_the_same_tree(compression, tmp_path):
    # More than is kept in memory, and nothing a compressor makes small.
    big = os.urandom(3 << 20)
    path = tmp_path / "root.tar.any"
    path.write_bytes(COMPRESSIONS[compression](archive(entry("a", b"x"), entry("big", big), entry("z", b"y"))))
    layer = TarLayer(path)
    assert shown(layer) == {"/a": b"x", "/big": big, "/z": b"y"}
    layer.close()


@pytest.mark.parametrize("compression", ["gzip", "bzip2", "xz", "zstd"])
def test_members_after_one_another_are_one_archive(compression):
    data = archive(entry("a", b"x"), entry("b", b"y"))
    pack = COMPRESSIONS[compression]
    assert shown(TarLayer(io.BytesIO(pack(data[:700]) + pack(data[700:])))) == {"/a": b"x", "/b": b"y"}


@pytest.mark.parametrize("compression", ["gzip", "bzip2", "xz", "zstd"])
def test_compressed_data_cut_short_are_eio(compression):
    packed = COMPRESSIONS[compression](archive(entry("f", os.urandom(300_000))))
    refusal(packed[: len(packed) // 2], errno.EIO)


@pytest.mark.parametrize("compression", ["gzip", "bzip2", "xz", "zstd"])
def test_corrupt_compressed_data_are_eio(compression):
    packed = bytearray(COMPRESSIONS[compression](archive(entry("f", os.urandom(100_000)))))
    packed[6:40] = bytes(34)
    assert f"the {compression} data are corrupt" in refusal(bytes(packed), errno.EIO)


def test_xz_that_asks_for_more_memory_than_it_may_have_is_eio():
    filters = [{"id": lzma.FILTER_LZMA2, "dict_size": 1 << 20}]
    packed = bytearray(lzma.compress(archive(), filters=filters))
    # The block header's dictionary size: 40 is 4 GiB less one byte; the header's CRC follows three bytes of padding.
    at = packed.index(b"\x21\x01", 12)
    packed[at + 2] = 40
    packed[20:24] = _crc32(packed[12:20])
    assert "xz" in refusal(bytes(packed), errno.EIO)


def _crc32(data: bytes) -> bytes:
    import zlib

    return zlib.crc32(data).to_bytes(4, "little")


@pytest.mark.parametrize("compression", ["gzip", "bzip2", "xz", "zstd"])
def test_decompression_bomb_is_efbig_and_leaves_nothing(compression, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    packed = COMPRESSIONS[compression](bytes(32 << 20))
    for bound in (1000, 4 << 20):
        assert "max_unpacked" in refusal(packed, errno.EFBIG, max_unpacked=bound)
    assert os.listdir(tmp_path) == []


def test_zstd_without_its_package_asks_for_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "zstandard", None)
    assert "overlayvfs[zstd]" in refusal(zstandard.compress(archive()), errno.EOPNOTSUPP)


class OneWay(io.RawIOBase):
    """A file object that can't seek, as a pipe or socket is one."""

    def __init__(self, data: bytes) -> None:
        self._data = io.BytesIO(data)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        return self._data.readinto(memoryview(buffer)[:1000])


@pytest.mark.parametrize("compression", ["plain", "gzip"])
def test_file_object_that_cannot_seek_is_read_once(compression):
    big = os.urandom(2 << 20)
    layer = TarLayer(OneWay(COMPRESSIONS[compression](archive(entry("big", big), entry("f", b"x")))))
    assert shown(layer) == {"/big": big, "/f": b"x"}


def test_file_object_is_left_open():
    file = io.BytesIO(archive(entry("f", b"x")))
    TarLayer(file).close()
    assert not file.closed


def test_archive_from_a_path_holds_one_descriptor(tmp_path):
    count = lambda: len(os.listdir("/proc/self/fd"))  # noqa: E731 -- one expression, used four times
    if not os.path.isdir("/proc/self/fd"):
        pytest.skip("descriptors are counted in /proc")
    for compression in ("plain", "gzip"):
        path = tmp_path / compression
        path.write_bytes(COMPRESSIONS[compression](archive(entry("f", os.urandom(2 << 20)))))
        before = count()
        layer = TarLayer(path)
        handles = [layer.open("/f") for _ in range(10)]
        assert count() == before + 1
        assert all(handle.pread(1, 0) for handle in handles)
        layer.close()
        assert count() == before
        dropped = TarLayer(path)
        del dropped
        assert count() == before


def test_reading_after_close_is_ebadf(tmp_path):
    path = tmp_path / "t"
    path.write_bytes(archive(entry("f", b"x")))
    for layer in (TarLayer(path), TarLayer(io.BytesIO(path.read_bytes()))):
        handle = layer.open("/f")
        layer.close()
        with raises_errno(errno.EBADF):
            handle.pread(1, 0)
    open_layer = TarLayer(path)
    closed = open_layer.open("/f")
    closed.close()
    with raises_errno(errno.EBADF):
        closed.pread(1, 0)


def test_archive_that_shrinks_under_a_reader_is_eio(tmp_path):
    path = tmp_path / "t"
    path.write_bytes(archive(entry("f", b"x" * 4000)))
    handle = TarLayer(path).open("/f")
    os.truncate(path, 1000)
    with raises_errno(errno.EIO) as caught:
        handle.pread(4000, 0)
    assert str(path) in str(caught.value)


def test_threads_read_one_file_object_at_once():
    files = {f"f{i}": bytes([i]) * 5000 for i in range(8)}
    layer = layer_of(*(entry(name, data) for name, data in files.items()))
    wrong: list[str] = []

    def reader(name: str) -> None:
        handle = layer.open(f"/{name}")
        wrong.extend(name for _ in range(200) if handle.pread(5000, 0) != files[name])

    threads = [threading.Thread(target=reader, args=(name,)) for name in files]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_two_layers_over_one_archive_are_the_same(tmp_path):
    path = tmp_path / "t"
    path.write_bytes(archive())
    file = io.BytesIO(archive())
    assert TarLayer(path).identity() == TarLayer(str(path)).identity()
    assert TarLayer(file).identity() == TarLayer(file).identity()
    assert TarLayer(path).identity() != TarLayer(file).identity()
    assert TarLayer(path).lstat("").st_dev != TarLayer(path).lstat("").st_dev


# Image layers


def test_whiteout_names_are_ordinary_in_a_plain_archive():
    layer = layer_of(folder("d"), entry("d/.wh.x"), entry("d/.wh..wh..opq"))
    assert shown(layer) == {"/d": "d", "/d/.wh.x": b"", "/d/.wh..wh..opq": b""}
    assert layer.listxattr("/d") == []


def test_whiteout_of_an_image_layer_is_the_kernels():
    layer = layer_of(folder("d"), entry("d/.wh.x"), entry(".wh.y"), entry("f", b"x"), whiteouts=True)
    assert sorted(read_tree(layer)) == ["/d", "/d/x", "/f", "/y"]
    for path in ("/d/x", "/y"):
        assert layer.lstat(path).st_mode == stat.S_IFCHR
        assert is_whiteout(layer.lstat(path))


def test_opaque_whiteout_marks_its_directory_in_both_namespaces():
    headers = {"SCHILY.xattr.user.k": "v"}
    layer = layer_of(entry("d/.wh..wh..opq"), folder("d", pax_headers=headers), entry("d/f"), whiteouts=True)
    assert sorted(read_tree(layer)) == ["/d", "/d/f"]
    assert {name: layer.getxattr("/d", name) for name in layer.listxattr("/d")} == {
        "user.k": b"v",
        "user.overlay.opaque": b"y",
        "trusted.overlay.opaque": b"y",
    }


@pytest.mark.parametrize("whiteout_first", [True, False])
def test_whiteout_hides_lower_layers_and_nothing_of_its_own(whiteout_first):
    entries = [entry(".wh.d"), entry(".wh.f")]
    own = [folder("d"), entry("d/g"), entry("f", b"x")]
    layer = layer_of(*(entries + own if whiteout_first else own + entries), whiteouts=True)
    assert shown(layer) == {"/d": "d", "/d/g": b"", "/f": b"x"}
    assert layer.getxattr("/d", "trusted.overlay.opaque") == b"y"
    assert layer.listxattr("/f") == []


def test_whiteouts_go_with_their_directory():
    layer = layer_of(folder("d"), entry("d/.wh.x"), entry("d/.wh..wh..opq"), entry("d", b"x"), whiteouts=True)
    assert shown(layer) == {"/d": b"x"}
    assert layer.listxattr("/d") == []


def test_state_of_aufs_is_left_out_of_an_image_layer():
    layer = layer_of(folder(".wh..wh.plnk"), entry(".wh..wh.plnk/1.2", b"x"), entry(".wh..wh.aufs"), whiteouts=True)
    assert shown(layer) == {}


@pytest.mark.parametrize("name", [".wh.", ".wh...", ".wh..", ".wh.d/f"])
def test_impossible_whiteout_is_refused(name):
    assert repr(name) in refusal(archive(entry(name)), whiteouts=True)


# Corrupt and hostile archives


@pytest.mark.parametrize("name", ["../f", "a/../b", "a/..", "/../etc/passwd"])
def test_name_with_dotdot_is_refused(name):
    assert repr(name) in refusal(archive(folder("a"), entry(name)))


@pytest.mark.parametrize("target", ["../../etc/passwd", "/etc/passwd", "no", "f/x", "", "d"])
def test_hard_link_to_what_the_archive_does_not_hold_is_refused(target):
    assert "'l'" in refusal(archive(entry("f"), folder("d"), link("l", target)))


def test_hard_link_before_its_target_is_refused():
    assert "'l'" in refusal(archive(link("l", "f"), entry("f")))


def test_entry_below_a_symlink_is_refused_and_not_followed():
    assert "'a/passwd'" in refusal(archive(folder("b"), symlink("a", "b"), entry("a/passwd", b"x")))
    assert "'l'" in refusal(archive(folder("b"), entry("b/f"), symlink("a", "b"), link("l", "a/f")))


def test_entry_below_a_file_is_refused():
    assert "'f/g/h'" in refusal(archive(entry("f"), entry("f/g/h")))


@pytest.mark.parametrize("name", ["", ".", "/", "./."])
def test_root_that_is_no_directory_is_refused(name):
    assert "the root is a directory" in refusal(raw(header(name)))


def test_names_too_long_for_linux_are_refused():
    layer = layer_of(entry("ü" * 127))
    assert [entry.d_name for entry in layer.listdir("")] == ["ü" * 127]
    assert "255" in refusal(archive(entry("ü" * 128)))
    assert "4096" in refusal(archive(entry("/".join(["x" * 100] * 41))))


def test_nul_in_a_name_or_target_is_refused():
    assert "NUL" in refusal(raw(pax(("path", "a\0b")), header("f")))
    assert "NUL" in refusal(raw(pax(("linkpath", "a\0b")), header("f", kind=tarfile.SYMTYPE)))


def test_symlink_to_nothing_is_refused():
    assert "target" in refusal(raw(header("s", kind=tarfile.SYMTYPE)))


@pytest.mark.parametrize(
    ("at", "value"),
    [
        (124, b"\xff" * 11 + b"\0"),
        (108, b"\xff" * 8),
        (116, b"\x80" + b"\xff" * 7),
        (156, b"M"),
    ],
    ids=["negative size", "negative owner", "absurd group", "unknown type"],
)
def test_numbers_no_file_can_have_are_refused(at, value):
    refusal(raw(header("a"), header("f", patch=[(at, value)])))


def test_absurd_size_is_eio_at_once():
    assert "'f'" in refusal(raw(header("f", patch=[(124, _number(1 << 62))])), errno.EIO)


def test_owner_that_is_no_number_does_not_become_roots():
    assert "uid" in refusal(raw(pax(("uid", "nobody")), header("f")))


def test_absurd_device_number_is_refused():
    assert "device" in refusal(raw(header("f", kind=tarfile.CHRTYPE, patch=[(329, b"\xff" * 8)])))


@pytest.mark.parametrize("value", ["not base64!", "A" * 90_000])
def test_attribute_linux_cannot_hold_is_refused(value):
    assert "user.k" in refusal(raw(pax(("LIBARCHIVE.xattr.user.k", value)), header("f")))


@pytest.mark.parametrize("keep", [100, 512, 700, 1024, 1300])
def test_truncated_archive_is_refused_wherever_it_ends(keep):
    whole = archive(entry("a", b"x" * 100), entry("b", b"y" * 100), format=tarfile.GNU_FORMAT)
    number = errno.EINVAL if keep < 512 else errno.EIO
    refusal(whole[:keep], number)


def test_archive_without_an_end_is_truncated():
    whole = archive(entry("a", b"x" * 100), format=tarfile.GNU_FORMAT)
    assert "truncated" in refusal(whole[:1024], errno.EIO)
    assert shown(TarLayer(io.BytesIO(whole[:1536]))) == {"/a": b"x" * 100}


def test_corrupt_header_in_the_middle_is_refused_and_no_end():
    data = bytearray(archive(entry("a"), entry("b"), entry("c"), format=tarfile.GNU_FORMAT))
    data[512 + 10] ^= 0xFF
    assert "after entry 'a'" in refusal(bytes(data))


@pytest.mark.parametrize("data", [b"", b"x", b"hello world" * 100, b"PK\3\4" + bytes(2000)])
def test_what_is_no_archive_is_refused(data):
    assert "no tar archive" in refusal(data)


@pytest.mark.parametrize("data", [b"BZh", b"\x1f\x8b", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd"])
def test_compression_without_data_is_eio_or_no_archive(data):
    refusal(data, errno.EINVAL if data.startswith(b"\x28") else errno.EIO)


def test_headers_that_claim_gigabytes_are_not_read_into_memory():
    for kind in (tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XGLTYPE):
        assert "headers" in refusal(raw(header("x", 4 << 30, kind)))


def test_endless_chain_of_headers_is_refused():
    assert "too many headers" in refusal(raw(pax(("comment", "x")) * 1000, header("f")))


def test_endless_map_of_holes_is_refused():
    first = header("s", 0, tarfile.GNUTYPE_SPARSE, [(482, b"\1")])
    more = bytearray(512)
    more[504] = 1
    assert "headers" in refusal(raw(first, bytes(more) * 3000))


@pytest.mark.parametrize(
    "records",
    [
        [("GNU.sparse.map", "1,x"), ("GNU.sparse.size", "4")],
        [("GNU.sparse.major", "1"), ("GNU.sparse.minor", "0"), ("GNU.sparse.realsize", "9")],
        [("GNU.sparse.size", "-5")],
        [("size", "-1024")],
        [("size", "9" * 19)],
    ],
)
def test_wild_pax_records_are_refused(records):
    with pytest.raises(OSError, match=r"it\.tar") as caught:
        TarLayer(io.BytesIO(raw(pax(*records), header("f", 512), b"no number\n" + bytes(502))), name="it.tar")
    assert caught.value.errno in (errno.EINVAL, errno.EIO)


def test_index_is_bounded_in_memory():
    entries = [entry(f"f{i}") for i in range(2000)]
    assert len(layer_of(*entries, max_index=1 << 20).listdir("")) == 2000
    assert "max_index" in refusal(archive(*entries), errno.EFBIG, max_index=100_000)


@pytest.mark.parametrize(
    "entries",
    [
        [entry("/".join(["d"] * 1000))],
        [entry("f", pax_headers={"SCHILY.xattr.user.k": "v" * 60_000})] * 4,
        [symlink("f", "t" * 4000)] * 60,
        [entry("f")] * 1000,
    ],
    ids=["directories", "attributes", "targets", "duplicates"],
)
def test_everything_an_entry_brings_counts_for_the_bound(entries):
    assert "max_index" in refusal(archive(*entries), errno.EFBIG, max_index=200_000)


def test_index_costs_less_memory_than_it_counts():
    import tracemalloc

    data = archive(*(entry(f"d{i // 100}/some-name-{i}", mtime=i) for i in range(5000)))
    tracemalloc.start()
    try:
        layer = TarLayer(io.BytesIO(data), max_index=5050 * 300)
        used, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert layer.lstat("/d3/some-name-310").st_mtime_ns == 310_000_000_000
    assert used < 5050 * 250
    assert peak < 5050 * 300


def test_opening_an_archive_reads_headers_and_no_contents():
    class Counting(io.BytesIO):
        asked = 0

        def read(self, size=-1):
            self.asked += size
            return super().read(size)

    file = Counting(archive(*(entry(f"f{i}", bytes(1 << 20)) for i in range(8))))
    layer = TarLayer(file)
    assert file.asked < 10 * 16_384 + 1000
    before = file.asked
    assert isinstance(layer.lstat("/f3"), Stat)
    assert layer.names("") == {f"f{i}" for i in range(8)}
    assert file.asked == before
    layer.open("/f3").pread(100, 0)
    assert file.asked == before + 100


@pytest.mark.parametrize("seed", range(20))
def test_random_damage_is_refused_or_read_and_nothing_else(seed):
    chance = random.Random(seed)
    one = raw(
        folder("d")[0].tobuf(tarfile.GNU_FORMAT),
        pax(("mtime", "1.5"), ("SCHILY.xattr.user.k", "v"), ("size", "600")) + header("d/f", 600) + bytes(1024),
        *(form() for form in (_old_gnu_sparse, _sparse_00, _sparse_01, _sparse_10)),
        header("d/" + "x" * 90, kind=tarfile.LNKTYPE, patch=[(157, b"d/f")]),
        header("dev", kind=tarfile.CHRTYPE),
    )
    errnos: set[int | None] = set()
    for _ in range(30):
        data = bytearray(one)
        for _ in range(chance.randint(1, 4)):
            at = chance.randrange(len(data))
            data[at : at + chance.choice((1, 1, 8))] = chance.randbytes(1) * chance.choice((1, 8))
            start = at - at % 512
            if chance.random() < 0.8 and data[start + 257 : start + 262] == b"ustar":
                data[start + 148 : start + 156] = b" " * 8
                data[start + 148 : start + 156] = b"%06o\0 " % sum(data[start : start + 512])
        try:
            layer = TarLayer(io.BytesIO(data), whiteouts=chance.random() < 0.5)
        except OSError as error:
            errnos.add(error.errno)
            continue
        for path in _all_paths(layer):
            st = layer.lstat(path)
            assert st.st_nlink > 0
            if stat.S_ISREG(st.st_mode):
                assert len(layer.open(path).pread(100, 0)) == min(st.st_size, 100)
    assert errnos <= {errno.EINVAL, errno.EIO}


def _all_paths(layer: Layer, top: str = "") -> Iterator[str]:
    for child in layer.listdir(top):
        yield f"{top}/{child.d_name}"
        if stat.S_ISDIR(child.d_type):
            yield from _all_paths(layer, f"{top}/{child.d_name}")
