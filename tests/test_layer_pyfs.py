"""Any PyFilesystem as a layer: the conformance suite on it, what it asks, how it spells marks, what it is."""

import errno
import os
import stat
import tarfile
import time
import zipfile
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from fs.memoryfs import MemoryFS
from fs.osfs import OSFS
from fs.tarfs import TarFS
from fs.wrap import read_only
from fs.wrapfs import WrapFS
from fs.zipfs import ZipFS
from plainfs import Flaky, in_fs, on_host, shown, spelled

from overlayvfs.abi import RENAME_EXCHANGE, is_whiteout
from overlayvfs.layers.base import Layer
from overlayvfs.layers.local import LocalLayer
from overlayvfs.layers.pyfs import PyFsLayer
from overlayvfs.testing.conformance import LowerConformance, Tree, UpperConformance, fill, node, read_tree
from overlayvfs.testing.conformance.trees import directory, opened, raises_errno, read, refused, whiteout
from overlayvfs.testing.conformance.upper import MAKE, MakeUpper


class PlainOSFS(OSFS):
    """A subclass: nobody may go around it to the host directory."""


class PlainUpper(UpperConformance):
    """The suite for uppers without an index (they hold no hard links), and whose exchange is no single step."""

    def outside(self, layer: Layer) -> dict[str, bytes | None]:
        return shown(in_fs(layer._fs))  # type: ignore[attr-defined]

    def test_index_is_made_only_if_asked(self, upper: MakeUpper) -> None:
        layer = upper({})
        with refused(layer, errno.EINVAL):
            layer.prepare(index=True)
        with raises_errno(errno.ENOENT):
            layer.lstat("/\0index")

    test_prepare_leaves_the_index_alone = None
    test_release_takes_the_index_away = None

    def test_exchange_swaps_two_objects_of_any_kind(self, upper: MakeUpper) -> None:
        layer = upper({"/d": directory(), "/d/f": "x", "/f": "one", "/g": "two", "/gone": whiteout()})
        layer.rename("/f", "/g", RENAME_EXCHANGE)
        assert (read(layer, "/f"), read(layer, "/g")) == (b"two", b"one")
        layer.rename("/d", "/f", RENAME_EXCHANGE)
        assert (read(layer, "/f/f"), read(layer, "/d")) == (b"x", b"two")
        layer.rename("/gone", "/f", RENAME_EXCHANGE)
        assert is_whiteout(layer.lstat("/f"))
        assert read(layer, "/gone/f") == b"x"

    def test_exchange_with_a_missing_name_is_enoent(self, upper: MakeUpper) -> None:
        layer = upper({"/f": "one"})
        with raises_errno(errno.ENOENT):
            layer.rename("/f", "/no", RENAME_EXCHANGE)
        assert list(read_tree(layer)) == ["/f"]

    @pytest.mark.parametrize("verb", [*MAKE, "unlink", "rmdir", "rename from", "rename to"])
    def test_changing_names_stamps_the_parent(self, upper: MakeUpper, verb: str) -> None:
        super().test_changing_names_stamps_the_parent(upper, verb)


class TestMemoryFS(PlainUpper):
    def make_upper(self, where: Path) -> PyFsLayer:
        return PyFsLayer(MemoryFS())


class TestSubclassedOSFS(PlainUpper):
    def make_upper(self, where: Path) -> PyFsLayer:
        (where / "root").mkdir()
        return PyFsLayer(PlainOSFS(str(where / "root")))

    def outside(self, layer: Layer) -> dict[str, bytes | None]:
        return shown(on_host(layer._fs.getsyspath("/")))  # type: ignore[attr-defined]


class TestWrapFS(PlainUpper):
    def make_upper(self, where: Path) -> PyFsLayer:
        memory = MemoryFS()
        return PyFsLayer(WrapFS(memory.makedir("sub")))


# Lowers: storage filled from outside, whiteouts in `.wh.` names


class TestZipFS(LowerConformance):
    def make_lower(self, tree: Tree, where: Path) -> PyFsLayer:
        with zipfile.ZipFile(where / "a.zip", "w") as archive:
            for path, one in spelled(tree).items():
                is_dir = stat.S_ISDIR(one.mode)
                archive.writestr(path[1:] + "/" * is_dir, one.data)
        return PyFsLayer(ZipFS(str(where / "a.zip")))

    def outside(self, layer: Layer) -> dict[str, bytes | None]:
        with zipfile.ZipFile(layer._fs._file) as archive:  # type: ignore[attr-defined]
            held = {f"/{one.filename}": archive.read(one) for one in archive.infolist()}
        return shown({path.rstrip("/"): None if path.endswith("/") else data for path, data in held.items()})


class TestTarFS(LowerConformance):
    def make_lower(self, tree: Tree, where: Path) -> PyFsLayer:
        with tarfile.open(where / "a.tar", "w") as archive:
            for path, one in spelled(tree).items():
                info = tarfile.TarInfo(path[1:])
                info.type = tarfile.DIRTYPE if stat.S_ISDIR(one.mode) else tarfile.REGTYPE
                info.mode, info.size = stat.S_IMODE(one.mode), len(one.data)
                archive.addfile(info, BytesIO(one.data))
        return PyFsLayer(TarFS(str(where / "a.tar")))

    def outside(self, layer: Layer) -> dict[str, bytes | None]:
        with tarfile.open(layer._fs._file) as archive:  # type: ignore[attr-defined]
            files = {one: archive.extractfile(one) for one in archive}
            return shown({f"/{one.name}": file.read() if file else None for one, file in files.items()})


class TestReadOnlySubclassedOSFS(LowerConformance):
    """A backend that tells all of lstat(2), symlinks that dangle included."""

    def make_lower(self, tree: Tree, where: Path) -> PyFsLayer:
        plain = spelled(tree)
        for path, value in tree.items():
            one = node(value)
            place = f"{where}{path}"
            if stat.S_ISLNK(one.mode):
                os.symlink(one.target, place)
            elif stat.S_ISFIFO(one.mode):
                os.mkfifo(place)
            elif stat.S_ISCHR(one.mode) and one.rdev:
                os.mknod(place, one.mode, one.rdev)
            elif path in plain:
                os.mkdir(place) if stat.S_ISDIR(one.mode) else Path(place).write_bytes(one.data)
        for path in plain:
            if path not in tree:
                Path(f"{where}{path}").touch()
        for path, value in reversed(tree.items()):
            if path in plain:
                one = node(value)
                os.chown(f"{where}{path}", one.uid, one.gid)
                os.chmod(f"{where}{path}", stat.S_IMODE(one.mode))
                os.utime(f"{where}{path}", ns=(one.mtime_ns, one.mtime_ns))
        return PyFsLayer(read_only(PlainOSFS(str(where))))

    def outside(self, layer: Layer) -> dict[str, bytes | None]:
        return shown(on_host(layer._fs.getsyspath("/")))  # type: ignore[attr-defined]


# Marks in `.wh.` names


def test_whiteouts_and_opaque_directories_are_oci_names_in_the_backend() -> None:
    fs = MemoryFS()
    layer = PyFsLayer(fs)
    fill(layer, {"/d": directory(), "/d/gone": whiteout()})
    layer.setxattr("/d", "user.overlay.opaque", b"y")
    assert sorted(fs.walk.files()) == ["/d/.wh..wh..opq", "/d/.wh.gone"]


def test_marks_survive_reopening_and_are_honoured_in_a_lower() -> None:
    fs = MemoryFS()
    fill(PyFsLayer(fs), {"/d": directory(), "/d/gone": whiteout()})
    fs.touch("/d/.wh..wh..opq")
    lower = PyFsLayer(read_only(fs))
    assert is_whiteout(lower.lstat("/d/gone"))
    assert lower.getxattr("/d", "user.overlay.opaque") == b"y"
    assert lower.getxattr("/d", "trusted.overlay.opaque") == b"y"
    assert lower.names("/d") == {"gone"}


def test_marks_are_no_names() -> None:
    fs = MemoryFS()
    layer = PyFsLayer(fs)
    fill(layer, {"/d": directory(), "/d/gone": whiteout()})
    layer.setxattr("/d", "user.overlay.opaque", b"y")
    for path in ("/d/.wh.gone", "/d/.wh..wh..opq", "/.wh..wh..work"):
        with raises_errno(errno.ENOENT):
            layer.lstat(path)


@pytest.mark.parametrize("verb", [*MAKE, "rename"])
def test_a_caller_s_own_wh_names_are_refused_with_the_reason(verb: str) -> None:
    layer = PyFsLayer(MemoryFS())
    fill(layer, {"/f": "x"})
    act = MAKE.get(verb, lambda layer, path: layer.rename("/f", path))
    with refused(layer, errno.EINVAL):
        act(layer, "/.wh.mine")
    assert list(read_tree(layer)) == ["/f"]


def test_an_object_shows_where_its_whiteout_is_still_there() -> None:
    fs = MemoryFS()
    fs.writetext("/x", "object")
    fs.touch("/.wh.x")
    layer = PyFsLayer(fs)
    assert read(layer, "/x") == b"object"
    assert [entry.d_name for entry in layer.listdir("")] == ["x"]


@pytest.mark.parametrize("name", ["user.overlay.origin", "user.overlay.redirect", "trusted.overlay.metacopy", "user.k"])
def test_other_attributes_are_refused_by_name(name: str) -> None:
    layer = PyFsLayer(MemoryFS())
    fill(layer, {"/d": directory()})
    with refused(layer, errno.EOPNOTSUPP):
        layer.setxattr("/d", name, b"y")
    with raises_errno(errno.ENODATA):
        layer.getxattr("/d", name)


# Identity


def test_views_of_one_directory_are_one_layer_and_a_sub_directory_lies_inside() -> None:
    memory = MemoryFS()
    sub = memory.makedirs("/a/b")
    whole, view, inside = PyFsLayer(memory), PyFsLayer(read_only(memory)), PyFsLayer(WrapFS(sub))
    assert whole.identity() == view.identity()
    assert whole.identity() in inside.ancestry()
    assert inside.identity() == PyFsLayer(memory.opendir("/a").opendir("b")).identity()
    assert PyFsLayer(MemoryFS()).identity() != whole.identity()


def test_a_subclassed_osfs_is_known_as_the_host_directory_it_is(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    outer = LocalLayer(tmp_path)
    inner = PyFsLayer(PlainOSFS(str(tmp_path)).opendir("sub"))
    assert outer.identity() in inner.ancestry()[1:]
    assert inner.identity() == LocalLayer(tmp_path / "sub").identity()
    outer.close()


# What is asked


def test_a_remembered_path_is_not_asked_about_again() -> None:
    fs = Flaky()
    fs.makedirs("/d/e")
    fs.writetext("/d/e/f", "x")
    layer = PyFsLayer(fs)
    for path in ("", "/d", "/d/e"):
        layer.lstat(path)
    fs.calls.clear()
    layer.lstat("/d/e/f")
    assert fs.calls == ["getinfo"]
    layer.open("/d/e/f").close()
    assert fs.calls == ["getinfo"]


def prepared(fs: Flaky) -> PyFsLayer:
    layer = PyFsLayer(fs)
    layer.prepare(index=False)
    layer.mkdir("/d", 0o755, 0, 0)
    fs.calls.clear()
    return layer


def test_a_file_in_a_directory_the_upper_made_costs_one_call_and_a_write() -> None:
    fs = Flaky()
    layer = prepared(fs)
    assert layer.look("/d/f") is None
    with opened(layer.create("/d/f", 0o644, 0, 0)) as handle:
        handle.pwrite(b"new", 0)
    assert fs.calls == ["openbin"]
    assert fs.readbytes("/d/f") == b"new"


def test_a_file_of_the_upper_is_asked_about_once_until_it_changes() -> None:
    fs = Flaky()
    layer = prepared(fs)
    layer.create("/d/f", 0o644, 0, 0).close()
    fs.calls.clear()
    assert layer.lstat("/d/f") == layer.lstat("/d/f")
    assert fs.calls == ["getinfo"]
    with opened(layer.open("/d/f", writable=True)) as handle:
        for text in (b"one", b"longer"):
            handle.pwrite(text, 0)
            assert (layer.lstat("/d/f").st_size, handle.stat().st_size) == (len(text), len(text))
    assert layer.lstat("/d/f").st_size == 6
    layer.utime("/d/f", 1_000_000_000, 2_000_000_000)
    assert layer.lstat("/d/f").st_mtime_ns == 2_000_000_000


def test_names_move_with_the_directory_they_are_in() -> None:
    fs = MemoryFS()
    layer = PyFsLayer(fs)
    layer.prepare(index=False)
    fill(layer, {"/d": directory(), "/d/sub": directory(), "/d/sub/f": "one"})
    assert layer.look("/d/sub/g") is None
    layer.rename("/d", "/e")
    assert layer.look("/d/sub/f") is None
    assert layer.look("/e/sub/f") is not None
    layer.create("/e/sub/g", 0o644, 0, 0).close()
    layer.mkdir("/d", 0o755, 0, 0)
    assert layer.look("/d/sub") is None
    assert read_tree(PyFsLayer(fs)) == read_tree(layer)


@pytest.mark.parametrize("end", ["sync", "release"])
def test_a_directory_s_time_reaches_a_backend_that_does_not_keep_it(end: str) -> None:
    fs = MemoryFS()
    layer = PyFsLayer(fs)
    layer.prepare(index=False)
    layer.mkdir("/d", 0o755, 0, 0)
    layer.utime("/d", 1_000_000_000, 1_000_000_000)
    layer.create("/d/f", 0o644, 0, 0).close()
    changed = layer.lstat("/d").st_mtime_ns
    assert changed > 1_000_000_000
    layer.sync() if end == "sync" else layer.release(keep_index=False)
    assert fs.getinfo("/d", ["details"]).raw["details"]["modified"] == pytest.approx(changed / 10**9, abs=1e-6)
    assert layer.lstat("/d").st_atime_ns == 1_000_000_000


def test_a_time_set_by_hand_is_not_overtaken_by_an_earlier_change() -> None:
    fs = MemoryFS()
    layer = PyFsLayer(fs)
    layer.prepare(index=False)
    layer.mkdir("/d", 0o755, 0, 0)
    layer.create("/d/f", 0o644, 0, 0).close()
    layer.utime("/d", 1_000_000_000, 1_000_000_000)
    layer.release(keep_index=False)
    assert PyFsLayer(fs).lstat("/d").st_mtime_ns == 1_000_000_000


class Lazy(MemoryFS):
    """A backend whose files get their time when they are closed, as many a server's do."""

    def openbin(self, path: str, mode: str = "r", buffering: int = -1, **options: Any) -> Any:
        file: Any = super().openbin(path, mode, buffering, **options)
        close = file.close

        def stamping() -> None:
            if "r" != mode != "rb" and not file.closed:
                self.setinfo(path, {"details": {"modified": time.time()}})
            close()

        file.close = stamping
        return file


def test_times_survive_the_closing_of_a_file_that_stamps_it() -> None:
    layer = PyFsLayer(Lazy())
    layer.prepare(index=False)
    with opened(layer.create("/f", 0o644, 0, 0)) as handle:
        handle.pwrite(b"x", 0)
        handle.utime(1_000_000_000, 2_000_000_000)
    assert layer.lstat("/f").st_mtime_ns == 2_000_000_000


class Far(Flaky):
    """A backend that says that every question is dear."""

    def getmeta(self, namespace: str = "standard") -> Any:
        return {**super().getmeta(namespace), "network": True}


def test_a_listed_directory_of_a_dear_lower_answers_for_all_in_it() -> None:
    fs = Far()
    fs.makedirs("/d/sub")
    fs.writetext("/d/f", "x")
    layer = PyFsLayer(fs)
    assert layer.names("/d") is None
    layer.lstat("/d")
    fs.calls.clear()
    layer.listdir("/d")
    assert fs.calls == ["scandir"]
    for name in ("f", "sub", "absent"):
        try:
            layer.lstat(f"/d/{name}")
        except FileNotFoundError:
            pass
    with raises_errno(errno.ENODATA):
        layer.getxattr("/d", "user.overlay.opaque")
    assert fs.calls == ["scandir"]
    assert read(layer, "/d/f") == b"x"
    assert fs.calls == ["scandir", "openbin"]


class ClosingFar(Far):
    """A backend that closes the file it is given, as boto3 does."""

    def upload(self, path: str, file: Any, chunk_size: int | None = None, **options: Any) -> None:
        self.writebytes(path, file.read())
        file.close()


def test_a_file_that_was_written_back_can_still_be_used() -> None:
    fs = ClosingFar()
    layer = PyFsLayer(fs)
    with opened(layer.create("/f", 0o644, 0, 0)) as handle:
        handle.pwrite(b"one", 0)
        handle.sync()
        assert fs.readbytes("/f") == b"one"
        handle.pwrite(b"two", 3)
        assert handle.pread(9, 0) == b"onetwo"
    assert fs.readbytes("/f") == b"onetwo"
