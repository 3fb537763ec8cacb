"""All of FSTestCases on nested overlays and all kinds of layers, over decoys behind whiteouts and opaque names."""

import io
import itertools
import stat
import tarfile
import tempfile
import unittest
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import test_fs_testcases
import test_plain_overlays
from fs.copy import copy_dir
from fs.errors import PermissionDenied
from fs.memoryfs import MemoryFS as PlainMemoryFS
from fs.osfs import OSFS
from fs.subfs import ClosingSubFS
from fs.test import FSTestCases
from fs.zipfs import ZipFS
from fsspec.implementations.memory import MemoryFileSystem
from test_fs_testcases import NAMES, Cases, decoys, installed, whiteouts
from test_layer_fsspec import Bucket
from test_layer_pyfs_ftp import ftp, port  # noqa: F401 -- fixtures

from overlayvfs import MemoryFS, OverlayFS
from overlayvfs.layers.cached import CachedLayer
from overlayvfs.layers.fsspec import FsspecLayer
from overlayvfs.layers.tar import TarLayer

MEMORY_DECOYS = decoys(NAMES)
MEMORY_WHITEOUTS = whiteouts(NAMES)
PLAIN_DECOYS, PLAIN_WHITEOUTS = test_plain_overlays.decoys(), test_plain_overlays.whiteouts()
"""Lowers: made once, as nothing may change them (the last test looks)."""

_numbers = itertools.count()


def below(directory: str, layer: Any, make: Any) -> Any:
    """Return a new layer of `make` with all of `layer` in a directory."""
    made = make()
    for path, info in layer.walk.info():
        made.makedirs(directory + path) if info.is_dir else made.writebytes(directory + path, layer.readbytes(path))
    return made


def opaque(directory: str) -> MemoryFS:
    """A layer with one directory, which hides all that other layers have in it."""
    layer = MemoryFS()
    layer.os.mkdir(directory)
    layer.os.setxattr(directory, "user.overlay.opaque", b"y")
    return layer


def plainly_opaque(directory: str) -> PlainMemoryFS:
    layer = PlainMemoryFS()
    layer.makedir(directory).touch(".wh..wh..opq")
    return layer


def tar_of(layer: Any) -> TarLayer:
    """Return an archive of a plain layer, as an image's: with whiteouts."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for path, info in layer.walk.info():
            entry = tarfile.TarInfo(path[1:])
            entry.type = tarfile.DIRTYPE if info.is_dir else tarfile.REGTYPE
            entry.size = 0 if info.is_dir else layer.getsize(path)
            tar.addfile(entry, None if info.is_dir else io.BytesIO(layer.readbytes(path)))
    packed.seek(0)
    return TarLayer(packed, whiteouts=True)


def zip_of(layer: Any) -> ZipFS:
    packed = io.BytesIO()
    with ZipFS(packed, write=True) as archive:
        for path, info in layer.walk.info():
            archive.makedir(path) if info.is_dir else archive.writebytes(path, layer.readbytes(path))
    packed.seek(0)
    return ZipFS(packed)


def store_of(layer: Any) -> FsspecLayer:
    store, top = MemoryFileSystem(), f"/cases-{next(_numbers)}"
    store.mkdir(top)
    for path, info in layer.walk.info():
        store.mkdir(top + path) if info.is_dir else store.pipe_file(top + path, layer.readbytes(path))
    return FsspecLayer(store, top)


class Hosted(Cases):
    def directory(self) -> Path:
        made = tempfile.TemporaryDirectory()
        self.addCleanup(made.cleanup)
        return Path(made.name)


# Nested, three deep


class TestNestedThreeDeepWithWhiteoutsAtEachDepth(Cases, unittest.TestCase):
    def make_fs(self):
        one = OverlayFS([decoys(NAMES)], whiteouts(NAMES))
        two = OverlayFS([one, MEMORY_DECOYS], whiteouts(NAMES))
        assert list(two.walk.files()) == []
        return OverlayFS([two, MEMORY_DECOYS], whiteouts(NAMES))


class TestNestedThreeDeepEachDepthHidingTheOneBelow(Cases, unittest.TestCase):
    """What each depth makes, the next removes: its whiteouts are its own doing."""

    def make_fs(self):
        tree = MEMORY_DECOYS
        for _ in range(3):
            tree = OverlayFS([tree], MemoryFS())
            for name in NAMES:
                tree.removetree(name)
            assert tree.listdir("/") == []
            for name in NAMES:
                tree.makedirs(f"{name}/egg").writebytes("decoy", b"of this depth")
        for name in NAMES:
            tree.removetree(name)
        return tree


class TestNestedOnPlainFileSystems(Cases, unittest.TestCase):
    def make_fs(self):
        one = OverlayFS([PLAIN_DECOYS], test_plain_overlays.whiteouts())
        two = OverlayFS([one, PLAIN_DECOYS], test_plain_overlays.whiteouts())
        return OverlayFS([two, PLAIN_DECOYS], test_plain_overlays.whiteouts())


# In a directory that is opaque over decoys


MEMORY_DECOYS_BELOW = below("base", MEMORY_DECOYS, MemoryFS)
PLAIN_DECOYS_BELOW = below("base", PLAIN_DECOYS, PlainMemoryFS)


class TestOpaqueInAMemoryLower(Cases, unittest.TestCase):
    def make_fs(self):
        return OverlayFS([opaque("base"), MEMORY_DECOYS_BELOW], MemoryFS()).opendir("base", factory=ClosingSubFS)


class TestOpaqueInAMemoryUpper(Cases, unittest.TestCase):
    def make_fs(self):
        return OverlayFS([MEMORY_DECOYS_BELOW], opaque("base")).opendir("base", factory=ClosingSubFS)


class TestOpaqueInAPlainLower(Cases, unittest.TestCase):
    def make_fs(self):
        lowers = [plainly_opaque("base"), PLAIN_DECOYS_BELOW]
        return OverlayFS(lowers, PlainMemoryFS()).opendir("base", factory=ClosingSubFS)


class TestOpaqueInAPlainUpper(Cases, unittest.TestCase):
    def make_fs(self):
        return OverlayFS([PLAIN_DECOYS_BELOW], plainly_opaque("base")).opendir("base", factory=ClosingSubFS)


class TestOpaqueByRemovingAndMakingADirectoryAnew(Hosted, unittest.TestCase):
    def make_fs(self):
        ofs = OverlayFS([MEMORY_DECOYS_BELOW], str(self.directory()))
        ofs.removetree("base")
        return ofs.makedir("base").delegate_fs().opendir("base", factory=ClosingSubFS)


# Every other kind of lower, hidden by its own kind of whiteouts


@pytest.mark.slow
class TestHostLowers(Hosted, unittest.TestCase):
    def make_fs(self):
        low, high = self.directory(), self.directory()
        with OSFS(str(low)) as filled:
            for path, info in PLAIN_DECOYS.walk.info():
                filled.makedir(path) if info.is_dir else filled.writebytes(path, PLAIN_DECOYS.readbytes(path))
        with OverlayFS([str(low)], str(high)) as hiding:
            for name in NAMES:
                hiding.removetree(name)
        assert all(stat.S_ISCHR((high / name).lstat().st_mode) for name in NAMES)
        return OverlayFS([str(high), str(low)], str(self.directory()))


@pytest.mark.slow
class TestTarLowers(Cases, unittest.TestCase):
    def make_fs(self):
        return OverlayFS([tar_of(PLAIN_WHITEOUTS), tar_of(PLAIN_DECOYS)], MemoryFS())


@pytest.mark.slow
class TestZipLowers(Cases, unittest.TestCase):
    def make_fs(self):
        return OverlayFS([zip_of(PLAIN_WHITEOUTS), zip_of(PLAIN_DECOYS)], MemoryFS())


@pytest.mark.slow
class TestCachedLowers(Cases, unittest.TestCase):
    def make_fs(self):
        return OverlayFS([CachedLayer(PLAIN_WHITEOUTS), CachedLayer(MEMORY_DECOYS)], MemoryFS())


@pytest.mark.slow
class TestFsspecLowers(Cases, unittest.TestCase):
    def make_fs(self):
        return OverlayFS([store_of(PLAIN_WHITEOUTS), store_of(PLAIN_DECOYS)], MemoryFS())


# Uppers far away: all but what times they are to keep


class WithoutTimes(Cases):
    """A request to set times is refused; that goes for touching what is there, too."""

    def test_setinfo(self):
        self.fs.touch("foo")
        for times in ({"modified": 5}, {"accessed": 5}):
            with pytest.raises(PermissionDenied):
                self.fs.setinfo("foo", {"details": times})

    def test_settimes(self):
        self.fs.touch("foo")
        with pytest.raises(PermissionDenied):
            self.fs.settimes("foo", accessed=datetime(2016, 7, 5, tzinfo=UTC))

    def test_touch(self):
        self.fs.touch("foo")
        assert self.fs.getsize("foo") == 0
        with pytest.raises(PermissionDenied):
            self.fs.touch("foo")


@pytest.mark.slow
class TestStoreUpper(WithoutTimes, unittest.TestCase):
    def make_fs(self):
        return OverlayFS([store_of(PLAIN_WHITEOUTS), PLAIN_DECOYS], store_of(PlainMemoryFS()))


@pytest.mark.slow
class TestObjectStoreUpper(WithoutTimes, unittest.TestCase):
    """Where a directory exists as long as it has a name."""

    def make_fs(self):
        return OverlayFS(test_plain_overlays.HIDDEN, FsspecLayer(Bucket(f"cases-{next(_numbers)}")))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:write permissions assigned to anonymous user:RuntimeWarning")
class TestFTPUpperOverFTPLower(Hosted, unittest.TestCase):
    @pytest.fixture(autouse=True)
    def _connect(self, request, tmp_path, tmp_path_factory):
        self.place, self.base, self.ftp = tmp_path, tmp_path_factory.getbasetemp(), request.getfixturevalue("ftp")

    def make_fs(self):
        for name in ("lower", "upper"):
            (self.place / name).mkdir()
        copy_dir(PLAIN_DECOYS, "/", f"osfs://{self.place}/lower", "/")
        copy_dir(PLAIN_WHITEOUTS, "/", f"osfs://{self.place}/upper", "/")
        served = self.ftp.opendir(f"/{self.place.relative_to(self.base)}")
        return OverlayFS([served.opendir("lower")], served.opendir("upper"))

    def test_setinfo(self):
        # A file has one time there.
        self.fs.touch("foo")
        self.fs.setinfo("foo", {"details": {"modified": 5}})
        details = self.fs.getinfo("foo", ["details"]).raw["details"]
        assert (details["modified"], details["accessed"]) == (5, 5)


NOT_ALL = {TestStoreUpper, TestObjectStoreUpper, TestFTPUpperOverFTPLower}
CONFIGURATIONS = [
    case
    for module in (vars(test_fs_testcases), vars(test_plain_overlays), dict(globals()))
    for name, case in module.items()
    if name.startswith("Test") and isinstance(case, type) and issubclass(case, Cases) and case not in NOT_ALL
]


@pytest.mark.parametrize("case", CONFIGURATIONS)
def test_every_configuration_runs_all_of_them(case):
    names = unittest.TestLoader().getTestCaseNames(case)
    assert len(names) == (79 if installed("fs") == "2.4.16" else len([n for n in dir(FSTestCases) if n[:5] == "test_"]))
    assert not [name for name in names if getattr(getattr(case, name), "__unittest_skip__", False)]


def test_there_are_at_least_seven_configurations_each_unlike_the_others():
    assert len({case.make_fs.__code__.co_code for case in CONFIGURATIONS}) >= 7
    assert len(CONFIGURATIONS) == len(set(CONFIGURATIONS)) >= 7


def test_what_was_shared_as_a_lower_is_as_it_was_made():
    assert sorted(MEMORY_DECOYS.walk.files()) == sorted(decoys(NAMES).walk.files())
    assert sorted(MEMORY_WHITEOUTS.os.listdir("/")) == sorted(NAMES)
    assert sorted(PLAIN_DECOYS.walk.files()) == sorted(test_plain_overlays.decoys().walk.files())
    assert sorted(PLAIN_WHITEOUTS.walk.files()) == sorted(test_plain_overlays.whiteouts().walk.files())
    assert sorted(MEMORY_DECOYS_BELOW.walk.files()) == sorted(f"/base{path}" for path in MEMORY_DECOYS.walk.files())
