"""What every layer promises, whether or not it can be written (layers/base.py, `Layer` and `Handle`)."""

# ruff: noqa: D102 -- the tests are named as sentences; a docstring would say them twice

import errno
import stat
from collections.abc import Callable, Hashable, Iterator
from pathlib import Path
from typing import Final

import pytest

from overlayvfs.abi import SEEK_DATA, SEEK_HOLE, is_whiteout, makedev
from overlayvfs.layers.base import Capabilities, Layer
from overlayvfs.marks import FileHandle
from overlayvfs.testing.conformance.trees import (
    WHEN,
    Tree,
    contents,
    device,
    directory,
    fifo,
    file,
    hard_link,
    holds,
    node,
    opened,
    raises_errno,
    read,
    read_tree,
    symlink,
    whiteout,
)

MakeLower = Callable[[Tree], Layer]

NULL_DEVICE: Final = makedev(1, 3)

EVERYTHING: Final[Tree] = {
    "/d": directory(0o750),
    "/d/f": "one",
    "/d/s": symlink("f"),
    "/d/e": directory(0o700),
    "/f": file("twelve bytes", 0o640, uid=12, gid=34, xattrs={"user.k": b"v"}),
    "/g": hard_link("/f"),
    "/empty": "",
    "/to-dir": symlink("d"),
    "/dangling": symlink("no/such"),
    "/pipe": fifo(),
    "/null": device(NULL_DEVICE),
    "/gone": whiteout(),
}
"""A tree with one of each kind of object."""

BY_PATH: Final[dict[str, Callable[[Layer, str], object]]] = {
    "lstat": lambda layer, path: layer.lstat(path),
    "listdir": lambda layer, path: layer.listdir(path),
    "readlink": lambda layer, path: layer.readlink(path),
    "getxattr": lambda layer, path: layer.getxattr(path, "user.k"),
    "listxattr": lambda layer, path: layer.listxattr(path),
    "open": lambda layer, path: layer.open(path).close(),
    "file_handle": lambda layer, path: layer.file_handle(path),
}
"""Every verb of a lower that looks a path up."""


class LowerConformance:
    """Subclass it, name the class `Test…` and give `make_lower`."""

    can_write = False
    """Whether layers of `make_lower` may be opened for writing."""

    def make_lower(self, tree: Tree, where: Path) -> Layer:
        """Return a layer that shows `tree` less what its capabilities exclude; `where` is an empty directory."""
        raise NotImplementedError("a conformance test needs make_lower")

    def outside(self, layer: Layer) -> dict[str, bytes | None] | None:
        """Return the storage as seen by other means than the layer: path to file content, None for other kinds.

        Only names the layer should show: not WORK, not INDEX. None: there is no other way to look.
        """
        return None

    @pytest.fixture
    def lower(self, tmp_path: Path) -> Iterator[MakeLower]:
        """Make layers of literal trees; closed at the end."""
        made: list[Layer] = []

        def make(tree: Tree) -> Layer:
            where = tmp_path / f"layer{len(made)}"
            where.mkdir()
            made.append(self.make_lower(tree, where))
            return made[-1]

        yield make
        for layer in made:
            self.check_outside(layer)
            layer.close()

    def check_outside(self, layer: Layer) -> None:
        """Assert that the storage holds what the layer shows, where there is a way to look."""
        seen = self.outside(layer)
        assert seen is None or seen == contents(layer)

    # What a layer says of itself

    def test_layer_has_a_name_and_capabilities(self, lower: MakeLower) -> None:
        layer = lower({})
        assert isinstance(layer, Layer)
        assert layer.name
        assert isinstance(layer.name, str)
        assert isinstance(layer.capabilities, Capabilities)

    def test_identity_is_the_nearest_of_the_ancestry(self, lower: MakeLower) -> None:
        layer = lower({})
        assert isinstance(layer.identity(), Hashable)
        assert layer.ancestry()[0] == layer.identity()

    def test_two_trees_have_two_identities(self, lower: MakeLower) -> None:
        one, two = lower({}), lower({})
        assert one.identity() != two.identity()
        assert one.identity() not in two.ancestry()

    def test_statvfs_tells_plausible_numbers(self, lower: MakeLower) -> None:
        vfs = lower({"/f": "x"}).statvfs()
        assert vfs.f_bsize > 0
        assert vfs.f_frsize > 0
        assert 0 <= vfs.f_bavail <= vfs.f_blocks
        assert vfs.f_namemax > 0

    def test_closing_twice_is_closing_once(self, tmp_path: Path) -> None:
        layer = self.make_lower({"/f": "x"}, tmp_path)
        layer.close()
        layer.close()

    # lstat

    def test_root_is_a_directory(self, lower: MakeLower) -> None:
        assert stat.S_ISDIR(lower({}).lstat("").st_mode)

    def test_lstat_tells_each_kind(self, lower: MakeLower) -> None:
        layer = lower(EVERYTHING)
        for path, value in EVERYTHING.items():
            if holds(layer, value) and node(value).link_to is None:
                assert stat.S_IFMT(layer.lstat(path).st_mode) == stat.S_IFMT(node(value).mode), path

    def test_kinds_a_layer_cannot_hold_are_not_there(self, lower: MakeLower) -> None:
        layer = lower(EVERYTHING)
        for path, value in EVERYTHING.items():
            if not holds(layer, value):
                with raises_errno(errno.ENOENT):
                    layer.lstat(path)

    def test_lstat_tells_sizes(self, lower: MakeLower) -> None:
        layer = lower({"/f": "twelve bytes", "/empty": ""})
        assert layer.lstat("/f").st_size == 12
        assert layer.lstat("/empty").st_size == 0

    def test_modes_are_kept_exactly_or_only_as_types(self, lower: MakeLower) -> None:
        layer = lower({"/f": file("x", 0o4751), "/d": directory(0o1730)})
        f, d = layer.lstat("/f").st_mode, layer.lstat("/d").st_mode
        if layer.capabilities.modes:
            assert (f, d) == (stat.S_IFREG | 0o4751, stat.S_IFDIR | 0o1730)
        else:
            # A mode made up must still let its owner use the object.
            assert f & 0o400
            assert d & 0o500 == 0o500

    def test_owners_are_kept_or_all_the_same(self, lower: MakeLower) -> None:
        layer = lower({"/f": file("x", uid=12, gid=34), "/g": "x"})
        f, g = layer.lstat("/f"), layer.lstat("/g")
        if layer.capabilities.owners:
            assert (f.st_uid, f.st_gid) == (12, 34)
            assert (g.st_uid, g.st_gid) == (0, 0)
        else:
            assert (f.st_uid, f.st_gid) == (g.st_uid, g.st_gid)

    def test_mtimes_are_kept_or_at_least_stand_still(self, lower: MakeLower) -> None:
        layer = lower({"/f": "x"})
        first = layer.lstat("/f").st_mtime_ns
        if layer.capabilities.times:
            assert first == WHEN
        assert layer.lstat("/f").st_mtime_ns == first

    def test_a_whiteout_shows_as_device_0_0_in_any_spelling(self, lower: MakeLower) -> None:
        layer = lower({"/d": directory(), "/d/gone": whiteout()})
        assert is_whiteout(layer.lstat("/d/gone"))
        assert [entry.d_name for entry in layer.listdir("/d")] == ["gone"]

    def test_a_device_number_is_kept(self, lower: MakeLower) -> None:
        layer = lower({"/null": device(NULL_DEVICE)})
        if layer.capabilities.devices:
            assert layer.lstat("/null").st_rdev == NULL_DEVICE
        else:
            assert layer.listdir("") == []

    def test_inode_numbers_are_stable_and_tell_objects_apart(self, lower: MakeLower) -> None:
        layer = lower({"/d": directory(), "/d/f": "x", "/f": "x"})
        paths = ["", "/d", "/d/f", "/f"]
        numbers = [layer.lstat(path).st_ino for path in paths]
        assert len(set(numbers)) == len(paths)
        assert [layer.lstat(path).st_ino for path in paths] == numbers

    def test_all_of_a_layer_is_one_device(self, lower: MakeLower) -> None:
        layer = lower(EVERYTHING)
        assert {layer.lstat(path).st_dev for path in ["", *read_tree(layer)]} == {layer.lstat("").st_dev}

    def test_hard_links_are_one_inode(self, lower: MakeLower) -> None:
        layer = lower({"/f": "x", "/g": hard_link("/f")})
        f = layer.lstat("/f")
        if layer.capabilities.hard_links:
            g = layer.lstat("/g")
            assert (f.st_ino, f.st_nlink) == (g.st_ino, g.st_nlink)
            assert f.st_nlink == 2
        else:
            assert f.st_nlink == 1

    # Errors every verb has in common

    @pytest.mark.parametrize("verb", BY_PATH)
    def test_missing_name_is_enoent(self, lower: MakeLower, verb: str) -> None:
        layer = lower({"/d": directory()})
        for path in ("/no", "/d/no", "/no/such"):
            with raises_errno(errno.ENOENT):
                BY_PATH[verb](layer, path)

    @pytest.mark.parametrize("verb", BY_PATH)
    def test_path_through_a_file_is_enotdir(self, lower: MakeLower, verb: str) -> None:
        layer = lower({"/d": directory(), "/d/f": "x"})
        with raises_errno(errno.ENOTDIR):
            BY_PATH[verb](layer, "/d/f/x")

    @pytest.mark.parametrize("verb", BY_PATH)
    def test_no_path_leads_through_a_symlink(self, lower: MakeLower, verb: str) -> None:
        layer = lower({"/d": directory(), "/d/f": "x", "/s": symlink("d")})
        with raises_errno(errno.ENOTDIR if layer.capabilities.symlinks else errno.ENOENT):
            BY_PATH[verb](layer, "/s/f")

    # Directories

    def test_listdir_tells_names_kinds_and_numbers_as_lstat_does(self, lower: MakeLower) -> None:
        layer = lower(EVERYTHING)
        for top in ("", "/d", "/d/e"):
            entries = layer.listdir(top)
            held = [path.rpartition("/") for path, value in EVERYTHING.items() if holds(layer, value)]
            assert sorted(entry.d_name for entry in entries) == sorted(name for above, _, name in held if above == top)
            for entry in entries:
                st = layer.lstat(f"{top}/{entry.d_name}")
                assert entry.d_type in (stat.S_IFMT(st.st_mode), 0)
                assert entry.d_ino == st.st_ino

    def test_listdir_of_what_is_no_directory_is_enotdir(self, lower: MakeLower) -> None:
        layer = lower({"/d": directory(), "/f": "x", "/s": symlink("d")})
        for path in ["/f", "/s"] if layer.capabilities.symlinks else ["/f"]:
            with raises_errno(errno.ENOTDIR):
                layer.listdir(path)

    def test_names_are_those_listed_or_not_told(self, lower: MakeLower) -> None:
        layer = lower(EVERYTHING)
        for top in ("", "/d", "/d/e"):
            names = layer.names(top)
            if names is not None:
                assert set(names) == {entry.d_name for entry in layer.listdir(top)}
                assert "no such name" not in names

    def test_odd_names_are_ordinary_names(self, lower: MakeLower) -> None:
        names = ["a b", "ünïcode", "new\nline", "-n", "..a", "...", "x" * 255]
        layer = lower({f"/{name}": "x" for name in names})
        assert sorted(entry.d_name for entry in layer.listdir("")) == sorted(names)
        assert all(read(layer, f"/{name}") == b"x" for name in names)

    # Symlinks

    def test_readlink_gives_the_target_as_it_was_written(self, lower: MakeLower) -> None:
        targets = {"/a": "d/../f", "/b": "/abs/olute", "/c": "no/such", "/d": "x" * 200}
        layer = lower({path: symlink(target) for path, target in targets.items()})
        if layer.capabilities.symlinks:
            assert {path: layer.readlink(path) for path in targets} == targets
            assert all(layer.lstat(path).st_size == len(target) for path, target in targets.items())
        else:
            assert layer.listdir("") == []

    def test_readlink_of_what_is_no_symlink_is_einval(self, lower: MakeLower) -> None:
        layer = lower({"/d": directory(), "/f": "x"})
        for path in ("", "/d", "/f"):
            with raises_errno(errno.EINVAL):
                layer.readlink(path)

    # Attributes

    def test_attributes_are_kept_or_absent(self, lower: MakeLower) -> None:
        layer = lower({"/f": file("x", xattrs={"user.k": b"v\0w", "user.e": b""}), "/g": "x"})
        if layer.capabilities.xattrs:
            assert layer.getxattr("/f", "user.k") == b"v\0w"
            assert layer.getxattr("/f", "user.e") == b""
            assert {"user.k", "user.e"} <= set(layer.listxattr("/f"))
        else:
            assert layer.listxattr("/f") == []
            with raises_errno(errno.ENODATA):
                layer.getxattr("/f", "user.k")
        assert "user.k" not in layer.listxattr("/g")

    def test_marks_are_listed_raw(self, lower: MakeLower) -> None:
        layer = lower({"/d": directory(xattrs={"user.overlay.opaque": b"y"})})
        if layer.capabilities.xattrs:
            assert layer.getxattr("/d", "user.overlay.opaque") == b"y"
            assert "user.overlay.opaque" in layer.listxattr("/d")
        else:
            assert "user.overlay.redirect" not in layer.listxattr("/d")

    def test_absent_attribute_is_enodata_on_every_kind(self, lower: MakeLower) -> None:
        layer = lower(EVERYTHING)
        for path in ["", *read_tree(layer)]:
            with raises_errno(errno.ENODATA):
                layer.getxattr(path, "user.absent")

    # Handles

    def test_pread_gives_what_there_is_and_no_more(self, lower: MakeLower) -> None:
        with opened(lower({"/f": "twelve bytes"}).open("/f")) as handle:
            assert handle.pread(6, 0) == b"twelve"
            assert handle.pread(100, 7) == b"bytes"
            assert handle.pread(4, 12) == b""
            assert handle.pread(4, 4000) == b""
            assert handle.pread(0, 0) == b""

    def test_pread_is_short_only_at_the_end(self, lower: MakeLower) -> None:
        text = "0123456789abcdef" * 65536
        with opened(lower({"/f": text}).open("/f")) as handle:
            assert handle.pread(len(text), 0) == text.encode()
            assert handle.pread(len(text), 5) == text[5:].encode()

    def test_handles_tell_the_attributes_lstat_tells(self, lower: MakeLower) -> None:
        layer = lower(EVERYTHING)
        # Opening a fifo must not wait for a writer, nor a device do whatever its driver does.
        for path in ["", *read_tree(layer)]:
            with opened(layer.open(path)) as handle:
                assert handle.stat()._replace(st_atime_ns=0) == layer.lstat(path)._replace(st_atime_ns=0)
                assert sorted(handle.listxattr()) == sorted(layer.listxattr(path))
                with raises_errno(errno.ENODATA):
                    handle.getxattr("user.absent")

    def test_pread_of_a_directory_is_eisdir(self, lower: MakeLower) -> None:
        with opened(lower({"/d": directory()}).open("/d")) as handle, raises_errno(errno.EISDIR):
            handle.pread(1, 0)

    def test_read_only_handle_refuses_data_with_ebadf(self, lower: MakeLower) -> None:
        layer = lower({"/f": "one"})
        with opened(layer.open("/f")) as handle:
            with raises_errno(errno.EBADF):
                handle.pwrite(b"x", 0)
            with raises_errno(errno.EBADF):
                handle.truncate(0)
        assert read(layer, "/f") == b"one"

    def test_handle_closes_twice(self, lower: MakeLower) -> None:
        handle = lower({"/f": "x"}).open("/f")
        handle.close()
        handle.close()

    def test_two_handles_of_one_file_are_independent(self, lower: MakeLower) -> None:
        layer = lower({"/f": "one"})
        with opened(layer.open("/f")) as second:
            layer.open("/f").close()
            assert second.pread(3, 0) == b"one"

    def test_seek_extent_of_a_file_without_holes(self, lower: MakeLower) -> None:
        with opened(lower({"/f": "twelve bytes"}).open("/f")) as handle:
            assert handle.seek_extent(0, SEEK_DATA) == 0
            assert handle.seek_extent(5, SEEK_DATA) == 5
            assert handle.seek_extent(0, SEEK_HOLE) == 12

    def test_seek_extent_past_the_end_or_before_the_start_is_enxio(self, lower: MakeLower) -> None:
        with opened(lower({"/f": "twelve bytes"}).open("/f")) as handle:
            for whence in (SEEK_DATA, SEEK_HOLE):
                for offset in (12, 13, 100_000, -1):
                    with raises_errno(errno.ENXIO):
                        handle.seek_extent(offset, whence)

    def test_writable_open_of_a_layer_that_cannot_write_is_erofs(self, lower: MakeLower) -> None:
        layer = lower({"/f": "one"})
        if self.can_write:
            layer.open("/f", writable=True).close()
        else:
            with raises_errno(errno.EROFS):
                layer.open("/f", writable=True)
        assert read(layer, "/f") == b"one"

    # Origin marks

    def test_file_handle_is_an_origin_mark_or_none(self, lower: MakeLower) -> None:
        layer = lower(EVERYTHING)
        for path in read_tree(layer):
            value = layer.file_handle(path)
            assert value is None or FileHandle.decode(value) is not None

    def test_file_handles_tell_objects_apart_and_not_names(self, lower: MakeLower) -> None:
        layer = lower({"/f": "x", "/g": "x", "/h": hard_link("/f")})
        first = layer.file_handle("/f")
        if first is not None:
            assert first == layer.file_handle("/f")
            assert first != layer.file_handle("/g")
            if layer.capabilities.hard_links:
                assert first == layer.file_handle("/h")

    def test_find_handle_finds_or_verifies_the_object(self, lower: MakeLower) -> None:
        layer = lower({"/d": directory(), "/d/f": "x", "/g": "x"})
        value = layer.file_handle("/d/f")
        if value is not None:
            assert layer.find_handle(value, "/d/f") == layer.lstat("/d/f")
            for wrong in (None, "/g", "/no", "/g/x"):
                found = layer.find_handle(value, wrong)
                assert found is None or found.st_ino == layer.lstat("/d/f").st_ino

    def test_find_handle_of_anything_else_finds_nothing(self, lower: MakeLower) -> None:
        layer = lower({"/f": "x"})
        foreign = FileHandle(b"not this system!", 1, b"12345678").encode()
        for value in (b"", b"y", foreign, foreign[:10]):
            assert layer.find_handle(value, "/f") is None

    def test_reading_changes_nothing(self, lower: MakeLower) -> None:
        layer = lower(EVERYTHING)
        before = {path: layer.lstat(path) for path in read_tree(layer)}
        shown = read_tree(layer)
        for path in before:
            for verb in BY_PATH.values():
                try:
                    verb(layer, path)
                except OSError:
                    pass  # not every verb fits every kind; which errno it is, the tests above say
        assert read_tree(layer) == shown
        assert {path: layer.lstat(path)._replace(st_atime_ns=0) for path in before} == {
            path: st._replace(st_atime_ns=0) for path, st in before.items()
        }
