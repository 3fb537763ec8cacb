"""What a layer that forks in constant time promises (layers/base.py, `SnapshotLayer`)."""

# ruff: noqa: D102 -- the tests are named as sentences; a docstring would say them twice

import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from overlayvfs.layers.base import INDEX, WORK, SnapshotLayer
from overlayvfs.testing.conformance.lower import EVERYTHING
from overlayvfs.testing.conformance.trees import Tree, directory, fill, hard_link, opened, read, read_tree
from overlayvfs.testing.conformance.upper import LONG_AGO, UpperConformance, me

MakeSnapshotable = Callable[[Tree], SnapshotLayer]


class SnapshotConformance(UpperConformance):
    """Subclass it, name the class `Test…` and give `make_upper`."""

    def make_upper(self, where: Path) -> SnapshotLayer:
        raise NotImplementedError("a conformance test needs make_upper")

    @pytest.fixture
    def snapshotable(self, tmp_path: Path) -> Iterator[MakeSnapshotable]:
        """Make prepared layers that hold a literal tree; released and closed at the end."""
        made: list[SnapshotLayer] = []

        def make(tree: Tree) -> SnapshotLayer:
            where = tmp_path / f"parent{len(made)}"
            where.mkdir()
            layer = self.make_upper(where)
            made.append(layer)
            layer.prepare(index=True)
            fill(layer, tree)
            return layer

        yield make
        for layer in made:
            layer.release(keep_index=False)
            layer.close()

    def test_snapshot_is_equal_to_its_parent_numbers_and_times_included(self, snapshotable: MakeSnapshotable) -> None:
        parent = snapshotable({**EVERYTHING, "/o": directory(xattrs={"user.overlay.opaque": b"y"})})
        parent.create(f"{INDEX}/00fb", 0o600, *me()).close()
        parent.create(f"{WORK}/#1", 0o600, *me()).close()
        child = parent.snapshot()
        assert isinstance(child, SnapshotLayer)
        assert child.capabilities == parent.capabilities
        assert read_tree(child) == read_tree(parent)
        for path in ["", *read_tree(parent)]:
            there, here = parent.lstat(path), child.lstat(path)
            assert here._replace(st_dev=there.st_dev) == there, path
        assert [entry.d_name for entry in child.listdir(INDEX)] == ["00fb"]
        assert [entry.d_name for entry in child.listdir(WORK)] == ["#1"]

    def test_snapshot_is_another_file_system_for_identity(self, snapshotable: MakeSnapshotable) -> None:
        parent = snapshotable({})
        assert parent.snapshot().identity() != parent.identity()

    @pytest.mark.parametrize("changed", ["parent", "child"])
    def test_no_change_of_one_shows_in_the_other(self, snapshotable: MakeSnapshotable, changed: str) -> None:
        parent = snapshotable({"/d": directory(), "/d/f": "one", "/g": "two", "/h": hard_link("/g"), "/e": directory()})
        child = parent.snapshot()
        act, rest = (parent, child) if changed == "parent" else (child, parent)
        shown = read_tree(rest)
        stats = {path: rest.lstat(path) for path in shown}
        with opened(act.open("/d/f", writable=True)) as handle:
            handle.pwrite(b"changed", 0)
            handle.truncate(4)
        act.chmod("/d", 0o700)
        act.utime("/g", LONG_AGO, LONG_AGO)
        act.setxattr("/e", "user.overlay.opaque", b"y")
        act.rename("/d", "/n")
        act.unlink("/g")
        act.rmdir("/e")
        act.mknod("/e", stat.S_IFCHR, 0, *me())
        act.create("/new", 0o644, *me()).close()
        assert read_tree(rest) == shown
        assert {path: rest.lstat(path)._replace(st_atime_ns=0) for path in shown} == {
            path: st._replace(st_atime_ns=0) for path, st in stats.items()
        }

    def test_hard_links_stay_links_in_both(self, snapshotable: MakeSnapshotable) -> None:
        parent = snapshotable({"/f": "one", "/g": hard_link("/f")})
        child = parent.snapshot()
        for layer, text in ((parent, b"PAR"), (child, b"CHI")):
            with opened(layer.open("/f", writable=True)) as handle:
                handle.pwrite(text, 0)
            assert read(layer, "/g") == text
            assert layer.lstat("/f").st_nlink == 2
            assert layer.lstat("/f").st_ino == layer.lstat("/g").st_ino
        assert read(parent, "/f") == b"PAR"

    def test_open_handle_goes_on_writing_into_the_parent_only(self, snapshotable: MakeSnapshotable) -> None:
        parent = snapshotable({"/f": "one", "/g": "two"})
        with opened(parent.open("/f", writable=True)) as named, opened(parent.open("/g", writable=True)) as unnamed:
            parent.unlink("/g")
            child = parent.snapshot()
            named.pwrite(b"ONE", 0)
            unnamed.pwrite(b"TWO", 0)
            assert read(parent, "/f") == b"ONE"
            assert unnamed.pread(3, 0) == b"TWO"
            assert named.stat() == parent.lstat("/f")
            assert read(child, "/f") == b"one"
            with opened(child.open("/f", writable=True)) as own:
                own.pwrite(b"!", 0)
            assert named.pread(3, 0) == b"ONE"

    def test_snapshot_outlives_its_parent_and_forks_again(self, snapshotable: MakeSnapshotable) -> None:
        parent = snapshotable({"/f": "one"})
        child = parent.snapshot()
        grandchild = child.snapshot()
        parent.unlink("/f")
        with opened(child.open("/f", writable=True)) as handle:
            handle.pwrite(b"two", 0)
        assert read(grandchild, "/f") == b"one"
        assert read(child, "/f") == b"two"
