"""Any PyFilesystem as a layer: the conformance suite on it, marks in `.wh.` names, failing and lying backends."""

import errno
from pathlib import Path

import pytest
from fs.memoryfs import MemoryFS
from fs.osfs import OSFS
from fs.wrapfs import WrapFS

from overlayvfs.abi import RENAME_EXCHANGE, is_whiteout
from overlayvfs.layers.pyfs import PyFsLayer
from overlayvfs.testing.conformance import UpperConformance, read_tree
from overlayvfs.testing.conformance.trees import directory, raises_errno, read, refused, whiteout
from overlayvfs.testing.conformance.upper import MAKE, MakeUpper


class PlainOSFS(OSFS):
    """A subclass: nobody may go around it to the host directory."""


class PlainUpper(UpperConformance):
    """The suite for uppers without an index (they hold no hard links), and whose exchange is no single step."""

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


class TestWrapFS(PlainUpper):
    def make_upper(self, where: Path) -> PyFsLayer:
        memory = MemoryFS()
        return PyFsLayer(WrapFS(memory.makedir("sub")))
