"""fsspec file systems as layers: the conformance suite on them, an object store's ways, and how rarely it is asked."""

import errno
import io
import itertools
import os
import sys
import zipfile
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import fsspec
import pytest
from fsspec.implementations.dirfs import DirFileSystem
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.spec import AbstractFileSystem
from plainfs import by_keys, on_host, shown
from test_layer_pyfs import PlainUpper

from overlayvfs import OverlayFS
from overlayvfs.abi import O_CREAT, O_RDONLY, O_RDWR, O_TRUNC, is_whiteout
from overlayvfs.engine.overlay import Overlay
from overlayvfs.layers.base import Layer
from overlayvfs.layers.fsspec import FsspecLayer
from overlayvfs.testing.conformance import LowerConformance, Tree, node
from overlayvfs.testing.conformance.trees import raises_errno, read
from overlayvfs.testing.conformance.upper import MakeUpper

_numbers = itertools.count()


class Bucket(AbstractFileSystem):
    """An object store as fsspec shows one: keys and no directories, whole objects written, ranges past the end refused.

    `requests` says what the store was asked, in the store's words.
    """

    protocol = "bucket"
    cachable = False

    def __init__(self, name: str = "") -> None:
        super().__init__(name)
        self.objects: dict[str, bytes] = {}
        self.requests: list[str] = []
        self.told: dict[str, object] = {}

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(path).strip("/")

    def _list(self, path):
        self.requests.append(f"LIST {path}")
        prefix = f"{path}/" if path else ""
        below = {key[len(prefix) :] for key in self.objects if key.startswith(prefix)}
        return sorted({name.partition("/")[0] + ("/" if "/" in name else "") for name in below})

    def _entry(self, path):
        return {"name": path, "type": "file", "size": len(self.objects[path]), **self.told}

    def info(self, path, **kwargs):
        path = self._strip_protocol(path)
        if path:
            self.requests.append(f"HEAD {path}")
        if path in self.objects:
            return self._entry(path)
        if path and not self._list(path):
            raise FileNotFoundError(path)
        return {"name": path, "type": "directory", "size": 0}

    def ls(self, path, detail=True, **kwargs):
        path = self._strip_protocol(path)
        found = []
        for name in self._list(path):
            where = f"{path}/{name}".strip("/")
            if name.endswith("/"):
                found.append({"name": where, "type": "directory", "size": 0})
            else:
                found.append(self._entry(where))
        return found if detail else [one["name"] for one in found]

    def cat_file(self, path, start=None, end=None, **kwargs):
        path = self._strip_protocol(path)
        self.requests.append(f"GET {path}")
        if path not in self.objects:
            raise FileNotFoundError(path)
        if start is not None and start >= len(self.objects[path]):
            raise OSError("InvalidRange")
        return self.objects[path][start:end]

    def pipe_file(self, path, value, mode="overwrite", **kwargs):
        self.objects[self._strip_protocol(path)] = bytes(value)

    def cp_file(self, path1, path2, **kwargs):
        self.objects[self._strip_protocol(path2)] = self.objects[self._strip_protocol(path1)]

    def rm_file(self, path):
        del self.objects[self._strip_protocol(path)]

    def mkdir(self, path, create_parents=True, **kwargs):
        pass

    def rmdir(self, path):
        raise OSError("a store without directories can't remove one")

    def _open(self, path, mode="rb", **kwargs):
        bucket = self

        class Upload(io.BytesIO):
            def close(self):
                if not self.closed:
                    bucket.objects[path] = self.getvalue()
                super().close()

        assert mode == "wb"
        return Upload()


def plain_tree(tree: Tree) -> dict[str, bytes | None]:
    """Return what of a tree a store without links and marks of its own can hold: files' bytes, None for directories."""
    held: dict[str, bytes | None] = {}
    for path, value in tree.items():
        one = node(value)
        parent, _, name = path.rpartition("/")
        if one.link_to is not None:
            continue
        if one.mode == 0o020000:
            held[f"{parent}/.wh.{name}"] = b""
        elif one.mode & 0o170000 == 0o040000:
            held[path] = None
            if any("opaque" in attribute for attribute in one.xattrs):
                held[f"{path}/.wh..wh..opq"] = b""
        elif one.mode & 0o170000 == 0o100000:
            held[path] = one.data
    return held


def store_with(tree: Tree, store: AbstractFileSystem, root: str) -> FsspecLayer:
    store.makedirs(root, exist_ok=True)
    for path, data in plain_tree(tree).items():
        if data is None:
            store.makedirs(root + path, exist_ok=True)
        else:
            store.pipe_file(root + path, data)
    return FsspecLayer(store, root)


def bucket_with(objects: dict[str, bytes]) -> tuple[Bucket, FsspecLayer]:
    """Return a store and a layer over it that has asked nothing yet but what opening asks."""
    bucket = Bucket()
    bucket.objects.update(objects)
    layer = FsspecLayer(bucket)
    bucket.requests.clear()
    return bucket, layer


def in_store(layer: Layer) -> dict[str, bytes | None]:
    """Return what the layer's store holds, as fsspec tells it, asked anew."""
    assert isinstance(layer, FsspecLayer)
    store, root = layer._store, layer._root
    store.invalidate_cache()
    held = {}
    for path, told in store.find(root, withdirs=True, detail=True).items():
        name = store._strip_protocol(path)[len(root) :]
        if name.strip("/"):
            held[f"/{name.strip('/')}"] = None if told["type"] == "directory" else store.cat_file(path)
    return shown(held)


# Every promise of a layer


class TestMemoryStoreIsALower(LowerConformance):
    can_write = True

    def outside(self, layer: Layer) -> dict[str, bytes | None]:
        return in_store(layer)

    def make_lower(self, tree: Tree, where: Path) -> Layer:
        return store_with(tree, MemoryFileSystem(), f"/lower{next(_numbers)}")


class TestLocalStoreIsALower(LowerConformance):
    can_write = True

    def outside(self, layer: Layer) -> dict[str, bytes | None]:
        return shown(on_host(layer._root))  # type: ignore[attr-defined]

    def make_lower(self, tree: Tree, where: Path) -> Layer:
        return store_with(tree, fsspec.filesystem("file"), str(where / "root"))


class StoreUpper(PlainUpper):
    """The suite for uppers that can't set times: what is moved there is a copy with a time of its own."""

    def outside(self, layer: Layer) -> dict[str, bytes | None]:
        return in_store(layer)

    def test_rename_keeps_the_mtime_of_what_moves(self, upper: MakeUpper) -> None:
        assert not upper({}).capabilities.times


class TestMemoryStoreIsAnUpper(StoreUpper):
    def make_upper(self, where: Path) -> FsspecLayer:
        root = f"/upper{next(_numbers)}"
        MemoryFileSystem().mkdir(root)
        return FsspecLayer(f"memory:/{root}")


class TestLocalStoreIsAnUpper(StoreUpper):
    def make_upper(self, where: Path) -> FsspecLayer:
        (where / "root").mkdir()
        return FsspecLayer(f"file://{where}/root")

    def outside(self, layer: Layer) -> dict[str, bytes | None]:
        return shown(on_host(layer._root))  # type: ignore[attr-defined]


class TestObjectStoreIsAnUpper(StoreUpper):
    def make_upper(self, where: Path) -> FsspecLayer:
        return FsspecLayer(Bucket(str(where)))

    def outside(self, layer: Layer) -> dict[str, bytes | None]:
        return shown(by_keys(layer._store.objects))  # type: ignore[attr-defined]


# How rarely a store is asked


def test_walking_a_store_costs_one_request_a_directory():
    bucket, layer = bucket_with({"a/f": b"1", "a/b/f": b"2", "a/b/g": b"3", "c/f": b"4"})
    assert sorted(read_names(layer)) == ["/a", "/a/b", "/a/b/f", "/a/b/g", "/a/f", "/c", "/c/f"]
    assert sorted(bucket.requests) == ["LIST ", "LIST a", "LIST a/b", "LIST c"]


def read_names(layer: Layer, top: str = "") -> list[str]:
    """Return every path below `top` after asking for its attributes too."""
    found = []
    for child in layer.listdir(top):
        path = f"{top}/{child.d_name}"
        found.append(path)
        if layer.lstat(path).st_mode & 0o170000 == 0o040000:
            found += read_names(layer, path)
    return found


def test_listing_twice_asks_once():
    bucket, layer = bucket_with({"a/f": b"1"})
    layer.listdir("/a")
    asked = list(bucket.requests)
    layer.listdir("/a")
    layer.lstat("/a/f")
    with raises_errno(errno.ENOENT):
        layer.lstat("/a/no")
    assert bucket.requests == asked


def test_reading_a_file_for_the_first_time_costs_two_requests():
    bucket, layer = bucket_with({"a/f": b"one", "a/g": b"two"})
    layer.lstat("/a")
    for name, data in (("f", b"one"), ("g", b"two")):
        bucket.requests.clear()
        assert layer.open(f"/a/{name}").pread(100, 0) == data
        assert bucket.requests == [f"HEAD a/{name}", f"GET a/{name}"]


def test_reading_a_listed_file_costs_one_request_and_two_if_it_is_empty():
    # A range of an empty object is an error, and whether it is empty is then asked.
    bucket, layer = bucket_with({"f": b"one", "empty": b""})
    layer.listdir("")
    bucket.requests.clear()
    assert layer.open("/f").pread(100, 0) == b"one"
    assert layer.open("/empty").pread(100, 0) == b""
    assert bucket.requests == ["GET f", "GET empty", "HEAD empty"]


def test_reading_in_small_pieces_asks_for_large_ones():
    bucket, layer = bucket_with({"f": bytes(1 << 20)})
    handle = layer.open("/f")
    bucket.requests.clear()
    assert b"".join(handle.pread(4096, at) for at in range(0, 1 << 20, 4096)) == bytes(1 << 20)
    assert bucket.requests.count("GET f") == 4
    handle.close()


def test_reading_at_and_past_the_end_is_no_error():
    _, layer = bucket_with({"f": b"twelve bytes", "empty": b""})
    handle = layer.open("/f")
    assert [handle.pread(4, at) for at in (8, 12, 4000)] == [b"ytes", b"", b""]
    assert layer.open("/empty").pread(10, 0) == b""


def test_names_are_looked_up_without_listing():
    bucket, layer = bucket_with({"f": b"1"})
    assert layer.names("") is None
    layer.lstat("/f")
    assert not any(request.startswith("LIST ") and request != "LIST " for request in bucket.requests)


# What a store makes of directories, links and names


def test_directory_made_in_an_object_store_lasts_and_its_keeper_does_not_show():
    bucket, layer = bucket_with({})
    layer.mkdir("/d", 0o755, 0, 0)
    assert bucket.objects == {"d/.wh..wh..dir": b""}
    assert layer.listdir("/d") == []
    layer.create("/d/f", 0o644, 0, 0).close()
    layer.unlink("/d/f")
    assert read_names(FsspecLayer(bucket)) == ["/d"]
    layer.rmdir("/d")
    assert bucket.objects == {}


def test_marks_survive_reopening():
    bucket, layer = bucket_with({"d/f": b"x"})
    layer.mknod("/gone", 0o020000, 0, 0, 0)
    layer.setxattr("/d", "user.overlay.opaque", b"y")
    again = FsspecLayer(bucket)
    assert is_whiteout(again.lstat("/gone"))
    assert again.getxattr("/d", "user.overlay.opaque") == b"y"
    assert sorted(bucket.objects) == [".wh.gone", "d/.wh..wh..opq", "d/f"]


def test_names_with_wildcards_are_names():
    bucket, layer = bucket_with({"a*": b"star", "ab": b"other", "[x]": b"brackets", "x": b"plain"})
    layer.rename("/a*", "/c?")
    layer.unlink("/[x]")
    assert bucket.objects == {"c?": b"star", "ab": b"other", "x": b"plain"}


def test_symlinks_of_a_host_directory_are_not_shown_and_not_written_through(tmp_path):
    outside = tmp_path / "outside"
    outside.write_text("keep")
    root = tmp_path / "root"
    root.mkdir()
    (root / "f").write_text("x")
    (root / "link").symlink_to(outside)
    (root / "dangling").symlink_to(tmp_path / "new")
    layer = FsspecLayer(f"file://{root}")
    assert read_names(layer) == ["/f"]
    for name in ("link", "dangling"):
        with raises_errno(errno.ENOENT):
            layer.lstat(f"/{name}")
        for change in (
            lambda name=name: layer.create(f"/{name}", 0o644, 0, 0),
            lambda name=name: layer.rename("/f", f"/{name}"),
        ):
            with raises_errno(errno.EEXIST):
                change()
    assert outside.read_text() == "keep"
    assert not (tmp_path / "new").exists()
    assert read(layer, "/f") == b"x"


def test_times_and_modes_are_those_the_store_tells(tmp_path):
    (tmp_path / "f").write_text("x")
    (tmp_path / "f").chmod(0o751)
    os.utime(tmp_path / "f", (1, 1_500_000_000.25))
    st = FsspecLayer(f"file://{tmp_path}").lstat("/f")
    assert (st.st_mode, st.st_mtime_ns) == (0o100751, 1_500_000_000_250_000_000)


@pytest.mark.parametrize(
    ("told", "ns"),
    [
        ({"LastModified": datetime(2020, 1, 1, tzinfo=UTC)}, 1_577_836_800_000_000_000),
        ({"last_modified": datetime(2020, 1, 1)}, 1_577_836_800_000_000_000),
        ({"mtime": 5, "created": 9.0}, 5_000_000_000),
        ({"created": "yesterday"}, 0),
        ({}, 0),
    ],
)
def test_time_is_found_under_any_name(told, ns):
    bucket, layer = bucket_with({"f": b""})
    bucket.told = told
    assert layer.lstat("/f").st_mtime_ns == ns


def test_archive_in_fsspec_is_a_lower(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("d/f", "in a zip")
    layer = FsspecLayer(f"zip://d::file://{tmp_path}/a.zip")
    assert read_names(layer) == ["/f"]
    assert read(layer, "/f") == b"in a zip"


# Opening


@pytest.mark.parametrize("prefix", ["", "/"])
def test_a_directory_of_a_file_system_is_one_all_the_way_down(tmp_path, prefix):
    (tmp_path / "lower/d/e").mkdir(parents=True)
    (tmp_path / "lower/d/e/f").write_text("deep")
    (tmp_path / "upper").mkdir()
    host = fsspec.filesystem("file")
    lower, upper = (DirFileSystem(f"{tmp_path}/{name}{prefix}", host) for name in ("lower", "upper"))
    with OverlayFS([lower], upper) as ofs:
        assert list(ofs.walk.files()) == ["/d/e/f"]
        ofs.appendtext("d/e/f", "er")
        ofs.makedirs("x/y")
        ofs.removetree("x")
    assert (tmp_path / "upper/d/e/f").read_text() == "deeper"
    assert (tmp_path / "lower/d/e/f").read_text() == "deep"


def test_two_layers_over_one_directory_are_the_same():
    store = MemoryFileSystem()
    store.makedirs("/same/below")
    one, two = FsspecLayer(store, "/same"), FsspecLayer("memory://same")
    assert one.identity() == two.identity()
    below = FsspecLayer("memory://", "same/below")
    assert below.identity() == FsspecLayer("memory://same", "below").identity()
    assert one.identity() in below.ancestry()
    assert below.identity() not in one.ancestry()
    assert FsspecLayer(store).identity() in one.ancestry()


@pytest.mark.parametrize(
    ("url", "number"),
    [
        ("memory://no-such-directory", errno.ENOENT),
        ("memory://a-file", errno.ENOTDIR),
        ("nosuchprotocol://x", errno.EINVAL),
    ],
)
def test_what_cannot_be_opened_is_refused_by_name(url, number):
    MemoryFileSystem().pipe_file("/a-file", b"")
    with raises_errno(number) as caught:
        FsspecLayer(url)
    assert url.partition("://")[2] in f"{caught.value} {caught.value.filename}"


def test_missing_fsspec_asks_for_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "fsspec.core", None)
    with raises_errno(errno.EOPNOTSUPP) as caught:
        FsspecLayer("memory://")
    assert "overlayvfs[fsspec]" in str(caught.value)


def test_old_listings_of_a_shared_store_are_not_believed():
    bucket, _ = bucket_with({})
    forgotten = []
    bucket.invalidate_cache = lambda path=None: forgotten.append(path)
    FsspecLayer(bucket)
    assert forgotten == [None]


# Stores that fail and lie


@pytest.mark.parametrize(
    ("failure", "number"),
    [
        (PermissionError("no"), errno.EACCES),
        (FileNotFoundError("f"), errno.ENOENT),
        (ConnectionResetError(errno.ECONNRESET, "reset"), errno.ECONNRESET),
        (RuntimeError("odd"), errno.EIO),
    ],
)
def test_failures_of_a_store_come_as_errnos(failure, number):
    bucket, layer = bucket_with({"f": b"x"})
    handle = layer.open("/f")

    def fail(*args, **kwargs):
        raise failure

    bucket.cat_file = fail
    with raises_errno(number):
        handle.pread(1, 0)
    bucket.info = fail
    with raises_errno(number):
        FsspecLayer(bucket)


@pytest.mark.parametrize("given", [b"", b"xx", b"x" * 1_000_000])
def test_file_that_is_not_as_long_as_told_is_eio(given):
    bucket, layer = bucket_with({"f": b"x"})
    handle = layer.open("/f")
    bucket.cat_file = lambda path, start=None, end=None: given
    with raises_errno(errno.EIO):
        handle.pread(10, 0)


@pytest.mark.parametrize("name", ["..", ".", "a\0b", "x" * 300])
def test_name_no_directory_can_have_is_eio(name):
    bucket, layer = bucket_with({})
    bucket.ls = lambda path, detail=True: [{"name": f"d/{name}", "type": "file", "size": 0}]
    with raises_errno(errno.EIO):
        layer.listdir("")


def test_store_that_only_reads_refuses_writing():
    bucket, layer = bucket_with({"f": b"x"})

    def refuse(*args, **kwargs):
        raise NotImplementedError

    for verb in ("pipe_file", "mkdir", "cp_file", "rm_file"):
        setattr(bucket, verb, refuse)
    for change in (
        lambda: layer.create("/g", 0o644, 0, 0),
        lambda: layer.mkdir("/d", 0o755, 0, 0),
        lambda: layer.unlink("/f"),
    ):
        with raises_errno(errno.EROFS):
            change()
    assert bucket.objects == {"f": b"x"}


def test_overlay_stands_on_a_store():
    bucket, lower = bucket_with({"d/f": b"below", "g": b"x"})
    upper = FsspecLayer(Bucket("upper"))
    overlay = Overlay.mount([lower], upper)
    with closing(overlay.open("/d/f", O_RDWR)) as file:
        file.write(b"above")
    overlay.unlink("/g")
    assert [child.d_name for child in overlay.listdir("/")] == ["d"]
    with closing(overlay.open("/d/f", O_RDONLY)) as file:
        assert file.read(100) == b"above"
    overlay.close()
    assert bucket.objects == {"d/f": b"below", "g": b"x"}


def test_rename_over_a_directory_of_whiteouts_where_no_times_are_kept():
    bucket = Bucket("upper")
    bucket.objects.update({"d/.wh.f": b"", "e/.wh..wh..dir": b""})
    overlay = Overlay.mount([bucket_with({"d/f": b"x"})[1]], FsspecLayer(bucket))
    overlay.rename("/e", "/d")
    assert [entry.d_name for entry in overlay.listdir("/")] == ["d"]
    assert overlay.listdir("/d") == []
    overlay.close()


def test_overlay_empties_a_file_where_no_times_are_kept():
    upper = FsspecLayer(Bucket("upper"))
    overlay = Overlay.mount([], upper)
    for data in (b"one and more", b"two"):
        with closing(overlay.open("/f", O_RDWR | O_CREAT | O_TRUNC)) as file:
            file.write(data)
            assert file.pread(99, 0) == data
    with raises_errno(errno.EPERM):
        overlay.utime("/f", (0, 0))
    overlay.close()
