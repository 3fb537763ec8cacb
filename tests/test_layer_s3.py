"""S3 as a layer, against a real server on loopback (moto): by s3fs, whose requests are counted, and by fs-s3fs."""

import itertools
import logging
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
from plainfs import by_keys, shown
from test_layer_fsspec import StoreUpper, plain_tree

from overlayvfs import MemoryFS, OverlayFS
from overlayvfs.layers.base import Layer
from overlayvfs.layers.cached import CachedLayer
from overlayvfs.layers.fsspec import FsspecLayer
from overlayvfs.layers.pyfs import PyFsLayer
from overlayvfs.testing.conformance import LowerConformance, Tree
from overlayvfs.testing.conformance.lower import MakeLower
from overlayvfs.testing.conformance.trees import read

REASON = "needs an S3 server and clients (extra [test])"
moto_server = pytest.importorskip("moto.server", reason=REASON)
boto3 = pytest.importorskip("boto3", reason=REASON)
pytest.importorskip("s3fs", reason=REASON)
fs_s3fs = pytest.importorskip("fs_s3fs", reason=REASON)

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::DeprecationWarning")]

_numbers = itertools.count(1)


class S3:
    """A server, its buckets and the requests that came in: "GET key", "LIST prefix"."""

    def __init__(self) -> None:
        self.server = moto_server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        self.server.start()
        host, port = self.server.get_host_and_port()
        self.url = f"http://{host}:{port}"
        self.login = {"aws_access_key_id": "key", "aws_secret_access_key": "secret"}
        self.client = boto3.client("s3", endpoint_url=self.url, region_name="us-east-1", **self.login)
        self.requests: list[str] = []

    def bucket(self, objects: dict[str, bytes]) -> str:
        name = f"bucket-{next(_numbers)}"
        self.client.create_bucket(Bucket=name)
        for key, data in objects.items():
            self.client.put_object(Bucket=name, Key=key, Body=data)
        return name

    def keys(self, bucket: str) -> dict[str, bytes]:
        told = self.client.list_objects_v2(Bucket=bucket).get("Contents", [])
        return {
            one["Key"]: self.client.get_object(Bucket=bucket, Key=one["Key"])["Body"].read()
            for one in sorted(told, key=lambda one: one["Key"])
        }

    def layer(self, bucket: str) -> FsspecLayer:
        return FsspecLayer(
            f"s3://{bucket}", endpoint_url=self.url, key="key", secret="secret", skip_instance_cache=True
        )

    def plain(self, bucket: str) -> Any:
        return fs_s3fs.S3FS(bucket, endpoint_url=self.url, region="us-east-1", **self.login)


@pytest.fixture(scope="module")
def s3() -> Iterator[S3]:
    serving = pytest.importorskip("werkzeug.serving")
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    one = S3()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            serving.WSGIRequestHandler,
            "log_request",
            lambda self, *told: one.requests.append(self.requestline.rpartition(" ")[0]),
        )
        yield one
    one.server.stop()


# Every promise of a layer


class OnS3(LowerConformance):
    """Layers over buckets, which another client than the layer's looks into."""

    can_write = True

    @pytest.fixture(autouse=True)
    def _serve(self, s3: S3) -> None:
        self.s3 = s3

    def outside(self, layer: Layer) -> dict[str, bytes | None]:
        assert isinstance(layer, PyFsLayer)
        bucket = layer._root if isinstance(layer, FsspecLayer) else layer._fs._bucket_name  # type: ignore[attr-defined]
        return shown(by_keys(self.s3.keys(bucket)))

    def test_odd_names_are_ordinary_names(self, lower: MakeLower) -> None:
        # The server answers keys with a newline with 404.
        names = ["a b", "ünïcode", "-n", "..a", "...", "x" * 255]
        layer = lower({f"/{name}": "x" for name in names})
        assert sorted(entry.d_name for entry in layer.listdir("")) == sorted(names)
        assert all(read(layer, f"/{name}") == b"x" for name in names)


class TestS3IsALower(OnS3):
    def make_lower(self, tree: Tree, where: Path) -> Layer:
        objects = {}
        for path, data in plain_tree(tree).items():
            objects[f"{path[1:]}/.wh..wh..dir" if data is None else path[1:]] = data or b""
        return self.s3.layer(self.s3.bucket(objects))


class TestS3IsAnUpper(OnS3, StoreUpper):
    def make_upper(self, where: Path) -> FsspecLayer:
        return self.s3.layer(self.s3.bucket({}))


class TestFsS3fsIsALower(OnS3):
    def make_lower(self, tree: Tree, where: Path) -> PyFsLayer:
        files = {path[1:]: data for path, data in plain_tree(tree).items() if data is not None}
        folders = {f"{path[1:]}/": b"" for path, data in plain_tree(tree).items() if data is None}
        return PyFsLayer(self.s3.plain(self.s3.bucket(files | folders)))


class TestFsS3fsIsAnUpper(OnS3, StoreUpper):
    def make_upper(self, where: Path) -> PyFsLayer:
        return PyFsLayer(self.s3.plain(self.s3.bucket({})))


# How rarely the server is asked


OBJECTS = {"top": b"at the top", "d/f": b"in d", "d/g": b"in d too", "d/e/h": b"in e", "c/e/i": b"in c"}


@pytest.fixture
def untouched(s3: S3) -> FsspecLayer:
    """A lower nobody looked into. (The first read of a client asks, once, which region the bucket is in.)"""
    layer = s3.layer(s3.bucket(OBJECTS))
    layer._store.cat_file(f"{layer._root}/top")
    layer._store.invalidate_cache()
    s3.requests.clear()
    return layer


def test_walking_an_untouched_s3_lower_costs_one_request_a_directory(s3: S3, untouched: FsspecLayer) -> None:
    with OverlayFS([untouched], MemoryFS()) as ofs:
        assert sorted(ofs.walk.files()) == sorted(f"/{key}" for key in OBJECTS)
        assert len(s3.requests) == len(["/", "/c", "/c/e", "/d", "/d/e"])
        s3.requests.clear()
        assert {path[1:]: ofs.readbytes(path) for path in ofs.walk.files()} == OBJECTS
        assert len(s3.requests) == len(OBJECTS)
        s3.requests.clear()
        assert [len(names) for _, names, _ in ofs.os.walk("/")] == [2, 1, 0, 1, 0]
        assert s3.requests == []


def test_two_s3_lowers_are_asked_one_listing_each(s3: S3, untouched: FsspecLayer) -> None:
    other = s3.layer(s3.bucket({"d/x": b"x"}))
    s3.requests.clear()
    with OverlayFS([other, untouched], MemoryFS()) as ofs:
        assert sorted(ofs.listdir("/")) == ["c", "d", "top"]
        assert len(s3.requests) == 2
        assert sorted(ofs.listdir("/d")) == ["e", "f", "g", "x"]
        # Of a directory that others lie under, two requests more ask whether it is opaque, before it is listed.
        assert len(s3.requests) == 6


def test_reading_a_file_for_the_first_time_costs_two_requests(s3: S3, untouched: FsspecLayer) -> None:
    with OverlayFS([untouched], MemoryFS()) as ofs:
        assert ofs.readbytes("top") == OBJECTS["top"]
        assert len(s3.requests) == 2
        assert ofs.readbytes("d/f") == OBJECTS["d/f"]
        s3.requests.clear()
        assert ofs.readbytes("d/g") == OBJECTS["d/g"]
        assert len(s3.requests) == 2


def test_a_cached_s3_lower_is_asked_for_a_file_once(s3: S3, untouched: FsspecLayer) -> None:
    layer = CachedLayer(untouched)
    with OverlayFS([layer], MemoryFS()) as ofs:
        assert ofs.readbytes("top") == OBJECTS["top"]
    s3.requests.clear()
    with OverlayFS([layer], MemoryFS()) as ofs:
        assert ofs.readbytes("top") == OBJECTS["top"]
        ofs.appendbytes("top", b"!")
        assert ofs.readbytes("top") == OBJECTS["top"] + b"!"
    assert s3.requests == []


# Overlays on it


def use(lower: Any, upper: Any) -> None:
    """Change a lower of OBJECTS in every plain way."""
    with OverlayFS([lower], upper) as ofs:
        ofs.appendbytes("d/f", b", edited")
        ofs.writebytes("new", b"new")
        ofs.remove("top")
        ofs.removetree("c")
        ofs.makedir("c").writebytes("x", b"x")
        ofs.move("d/g", "moved")


USED = {"/d/f": b"in d, edited", "/d/e/h": b"in e", "/new": b"new", "/c/x": b"x", "/moved": b"in d too"}


def check(lower: Any, upper: Any) -> None:
    with OverlayFS([lower], upper) as ofs:
        assert {path: ofs.readbytes(path) for path in ofs.walk.files()} == USED


def test_overlay_stands_on_s3_and_writes_to_s3(s3: S3) -> None:
    below, above = s3.bucket(OBJECTS), s3.bucket({})
    use(s3.layer(below), s3.layer(above))
    assert s3.keys(below) == dict(sorted(OBJECTS.items()))
    assert {"c/.wh..wh..opq", "c/x", ".wh.top", "d/.wh.g", "d/f", "moved", "new"} <= set(s3.keys(above))
    assert not [key for key in s3.keys(above) if "work" in key]
    check(s3.layer(below), s3.layer(above))


def with_folders(objects: dict[str, bytes]) -> dict[str, bytes]:
    """Return objects with one for every directory: fs-s3fs sees none without."""
    folders = {f"{above}/" for key in objects for above in PurePosixPath(key).parents if above.name}
    return objects | dict.fromkeys(folders, b"")


def test_fs_s3fs_is_a_lower_and_an_upper(s3: S3) -> None:
    below, above = s3.bucket(with_folders(OBJECTS)), s3.bucket({})
    with s3.plain(below) as lower, s3.plain(above) as upper:
        use(lower, upper)
    assert {"c/.wh..wh..opq", "c/x", ".wh.top", "d/.wh.g", "d/f", "moved", "new"} <= set(s3.keys(above))
    with s3.plain(below) as lower, s3.plain(above) as upper:
        check(lower, upper)
