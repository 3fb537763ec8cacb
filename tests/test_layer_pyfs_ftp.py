"""FTPFS as a layer, against a server on loopback: no seeking while writing, no modes, every question a round trip."""

import errno
import socket
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from fs.ftpfs import FTPFS
from plainfs import on_host, shown, spelled
from test_layer_pyfs import PlainUpper

from overlayvfs.layers.base import WORK, Layer
from overlayvfs.layers.pyfs import PyFsLayer
from overlayvfs.testing.conformance import LowerConformance, Tree, read_tree
from overlayvfs.testing.conformance.lower import MakeLower
from overlayvfs.testing.conformance.trees import directory, opened, raises_errno, read, refused
from overlayvfs.testing.conformance.upper import MakeUpper

authorizers = pytest.importorskip("pyftpdlib.authorizers", reason="needs pyftpdlib (extra [test])")
handlers = pytest.importorskip("pyftpdlib.handlers")
servers = pytest.importorskip("pyftpdlib.servers")

pytestmark = pytest.mark.filterwarnings("ignore:write permissions assigned to anonymous user:RuntimeWarning")


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Serve all temporary directories of this run; anybody may write."""
    authorizer = authorizers.DummyAuthorizer()
    authorizer.add_anonymous(str(tmp_path_factory.getbasetemp()), perm="elradfmwMT")
    handler = type("Handler", (handlers.FTPHandler,), {"authorizer": authorizer})
    server = servers.ThreadedFTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"timeout": 0.05, "handle_exit": False}, daemon=True)
    thread.start()
    yield server.address[1]
    server.close_all()
    thread.join(5)


@pytest.fixture
def ftp(port: int) -> Iterator[FTPFS]:
    with FTPFS("127.0.0.1", port=port) as fs:
        yield fs


def layer_of(ftp: FTPFS, where: Path, base: Path) -> PyFsLayer:
    return PyFsLayer(ftp.opendir(f"/{where.relative_to(base)}"))


class Served(LowerConformance):
    """Layers over directories of this host, which the server shows."""

    can_write = True

    @pytest.fixture(autouse=True)
    def _connect(self, ftp: FTPFS, tmp_path_factory: pytest.TempPathFactory) -> None:
        self.ftp = ftp
        self.base = tmp_path_factory.getbasetemp()

    def outside(self, layer: Layer) -> dict[str, bytes | None]:
        return shown(on_host(f"{self.base}{layer._backend.base_path}"))  # type: ignore[attr-defined]

    def test_odd_names_are_ordinary_names(self, lower: MakeLower) -> None:
        # The protocol is made of lines, and FTPFS strips them.
        names = ["a b", "ünïcode", "-n", "..a", "...", "x" * 255]
        layer = lower({f"/{name}": "x" for name in names})
        assert sorted(entry.d_name for entry in layer.listdir("")) == sorted(names)
        assert all(read(layer, f"/{name}") == b"x" for name in names)


class TestFTPFSIsALower(Served):
    def make_lower(self, tree: Tree, where: Path) -> PyFsLayer:
        for path, one in spelled(tree).items():
            place = Path(f"{where}{path}")
            place.mkdir() if stat.S_ISDIR(one.mode) else place.write_bytes(one.data)
        return layer_of(self.ftp, where, self.base)


@pytest.mark.slow
class TestFTPFSIsAnUpper(Served, PlainUpper):
    """The suite where times are whole seconds (MFMT), and only those of files, and only the last change's."""

    # Asks for a refusal where not all times are kept.
    test_every_change_of_an_object_stamps_its_ctime = None

    def make_upper(self, where: Path) -> PyFsLayer:
        return layer_of(self.ftp, where, self.base)

    def test_utime_sets_both_times_of_any_object_or_is_refused(self, upper: MakeUpper) -> None:
        layer = upper({"/f": "x", "/d": directory()})
        layer.utime("/f", 1_000_000_000, 2_000_000_007)
        assert layer.lstat("/f").st_mtime_ns == 2_000_000_000
        with refused(layer, errno.EPERM):
            layer.utime("/d", 1_000_000_000, 2_000_000_000)

    def test_metadata_verbs_work_on_a_read_only_handle_of_any_kind(self, upper: MakeUpper) -> None:
        layer = upper({"/f": "x", "/d": directory()})
        with opened(layer.open("/d")) as handle, refused(layer, errno.EPERM):
            handle.utime(1_000_000_000, 3_000_000_000)
        with opened(layer.open("/f")) as handle:
            handle.utime(1_000_000_000, 3_000_000_007)
            assert handle.stat().st_mtime_ns == layer.lstat("/f").st_mtime_ns == 3_000_000_000


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "root").mkdir()
    return tmp_path / "root"


@pytest.fixture
def layer(ftp: FTPFS, root: Path, tmp_path_factory: pytest.TempPathFactory) -> PyFsLayer:
    return layer_of(ftp, root, tmp_path_factory.getbasetemp())


def test_a_dear_directory_is_not_listed_for_its_names(layer: PyFsLayer, root: Path) -> None:
    (root / "f").touch()
    assert layer.names("") is None


def test_an_upper_writes_back_what_was_changed(layer: PyFsLayer, root: Path) -> None:
    layer.prepare(index=False)
    layer.mkdir("/d", 0o755, 0, 0)
    with opened(layer.create(f"{WORK}/#1", 0o644, 0, 0)) as handle:
        handle.pwrite(b"twelve bytes", 0)
        handle.pwrite(b"TWELVE", 0)
        layer.rename(f"{WORK}/#1", "/d/f")
        handle.truncate(9)
        assert layer.lstat("/d/f").st_size == 9
        handle.sync()
        assert (root / "d/f").read_bytes() == b"TWELVE by"
        layer.unlink("/d/f")
        assert handle.pread(99, 0) == b"TWELVE by"
    layer.mknod("/d/gone", stat.S_IFCHR, 0, 0, 0)
    layer.rename("/d", "/e")
    assert sorted(read_tree(layer)) == ["/e", "/e/gone"]
    layer.release(keep_index=False)
    assert sorted(str(path.relative_to(root)) for path in root.rglob("*")) == ["e", "e/.wh.gone"]


def test_what_was_not_synced_is_written_back_at_close(layer: PyFsLayer, root: Path) -> None:
    (root / "f").write_bytes(b"one")
    with opened(layer.open("/f", writable=True)) as handle:
        handle.pwrite(b"two", 3)
        assert read(layer, "/f") == b"onetwo"
    assert (root / "f").read_bytes() == b"onetwo"


def test_a_lost_connection_is_eio_naming_the_layer(ftp: FTPFS, layer: PyFsLayer, root: Path) -> None:
    (root / "f").write_bytes(b"x")
    assert read(layer, "/f") == b"x"
    ftp.ftp.sock.shutdown(socket.SHUT_RDWR)
    with raises_errno(errno.EIO) as caught:
        layer.lstat("/f")
    assert layer.name in str(caught.value)
