"""What a layer that can be written promises (layers/base.py, `UpperLayer`)."""

# ruff: noqa: D102 -- the tests are named as sentences; a docstring would say them twice

import errno
import os
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from overlayvfs.abi import (
    RENAME_EXCHANGE,
    RENAME_NOREPLACE,
    RENAME_WHITEOUT,
    SEEK_DATA,
    SEEK_HOLE,
    XATTR_CREATE,
    XATTR_REPLACE,
    XATTR_SIZE_MAX,
    Stat,
    is_whiteout,
    makedev,
)
from overlayvfs.layers.base import INDEX, WORK, Handle, Layer, UpperLayer
from overlayvfs.testing.conformance.lower import NULL_DEVICE, LowerConformance
from overlayvfs.testing.conformance.trees import (
    Tree,
    device,
    directory,
    fifo,
    file,
    fill,
    hard_link,
    opened,
    raises_errno,
    read,
    read_tree,
    refused,
    symlink,
    whiteout,
)

MakeUpper = Callable[[Tree], UpperLayer]

LONG_AGO: Final = 1_000_000_007
"""A time no operation sets by itself (ns), with a nanosecond part."""

MAKE: Final[dict[str, Callable[[UpperLayer, str], None]]] = {
    "create": lambda layer, path: layer.create(path, 0o644, *me()).close(),
    "mkdir": lambda layer, path: layer.mkdir(path, 0o755, *me()),
    "mknod": lambda layer, path: layer.mknod(path, stat.S_IFCHR, 0, *me()),
    "symlink": lambda layer, path: layer.symlink("target", path, *me()),
    "link": lambda layer, path: layer.link("/f", path),
}
"""Every verb that makes a name; `link` needs a file /f."""

CHANGE: Final[dict[str, Callable[[UpperLayer, str], None]]] = {
    "unlink": lambda layer, path: layer.unlink(path),
    "rmdir": lambda layer, path: layer.rmdir(path),
    "rename": lambda layer, path: layer.rename(path, "/elsewhere"),
    "link": lambda layer, path: layer.link(path, "/elsewhere"),
    "chmod": lambda layer, path: layer.chmod(path, 0o600),
    "chown": lambda layer, path: layer.chown(path, *me()),
    "utime": lambda layer, path: layer.utime(path, LONG_AGO, LONG_AGO),
    "setxattr": lambda layer, path: layer.setxattr(path, "user.overlay.opaque", b"y"),
    "removexattr": lambda layer, path: layer.removexattr(path, "user.k"),
    "open": lambda layer, path: layer.open(path, writable=True).close(),
}
"""Every verb that changes something that is there."""

STAMPING: Final = ("chmod", "chown", "utime", "setxattr", "removexattr", "link")
"""Those of CHANGE that stamp the ctime of the object itself."""


def me() -> tuple[int, int]:
    """Return the one owner anybody may ask for: the owner of this process."""
    return (os.getuid(), os.getgid()) if hasattr(os, "getuid") else (0, 0)


def _can(layer: Layer, verb: str) -> bool:
    caps = layer.capabilities
    needs = {
        "symlink": caps.symlinks,
        "link": caps.hard_links,
        "chmod": caps.modes,
        "utime": caps.times,
        "removexattr": caps.xattrs,
    }
    return needs.get(verb, True)


def _wait_for_the_clock() -> None:
    """Let the kernel's coarse clock (a jiffy) move on, so that a fresh time differs from the one before."""
    time.sleep(0.02)


class UpperConformance(LowerConformance):
    """Subclass it, name the class `Test…` and give `make_upper`; its trees are filled through the layer's own verbs."""

    can_write = True

    def make_upper(self, where: Path) -> UpperLayer:
        """Return an empty layer that can be written; `where` is an empty directory for it to use."""
        raise NotImplementedError("a conformance test needs make_upper")

    def make_lower(self, tree: Tree, where: Path) -> Layer:
        layer = self.make_upper(where)
        fill(layer, tree)
        return layer

    @pytest.fixture
    def upper(self, tmp_path: Path) -> Iterator[MakeUpper]:
        """Make prepared layers that hold a literal tree; released and closed at the end."""
        made: list[UpperLayer] = []

        def make(tree: Tree) -> UpperLayer:
            where = tmp_path / f"upper{len(made)}"
            where.mkdir()
            layer = self.make_upper(where)
            made.append(layer)
            layer.prepare(index=False)
            fill(layer, tree)
            return layer

        yield make
        for layer in made:
            self.check_outside(layer)
            layer.release(keep_index=False)
            layer.close()

    def test_it_is_an_upper_layer(self, upper: MakeUpper) -> None:
        assert isinstance(upper({}), UpperLayer)

    # WORK and INDEX

    def test_prepare_makes_a_work_directory_no_listing_shows(self, upper: MakeUpper) -> None:
        layer = upper({"/f": "x"})
        assert stat.S_ISDIR(layer.lstat(WORK).st_mode)
        assert [entry.d_name for entry in layer.listdir("")] == ["f"]
        assert layer.listdir(WORK) == []

    def test_index_is_made_only_if_asked(self, upper: MakeUpper) -> None:
        layer = upper({})
        with raises_errno(errno.ENOENT):
            layer.lstat(INDEX)
        layer.release(keep_index=False)
        layer.prepare(index=True)
        assert stat.S_ISDIR(layer.lstat(INDEX).st_mode)
        assert layer.listdir("") == []

    def test_prepare_empties_work_of_what_a_crash_left(self, upper: MakeUpper) -> None:
        layer = upper({})
        layer.create(f"{WORK}/#1", 0o600, *me()).close()
        layer.mkdir(f"{WORK}/d", 0o700, *me())
        layer.mkdir(f"{WORK}/d/e", 0o700, *me())
        layer.create(f"{WORK}/d/e/f", 0o600, *me()).close()
        layer.mknod(f"{WORK}/d/gone", stat.S_IFCHR, 0, *me())
        layer.prepare(index=False)
        assert layer.listdir(WORK) == []

    def test_prepare_leaves_the_index_alone(self, upper: MakeUpper) -> None:
        layer = upper({})
        layer.prepare(index=True)
        layer.create(f"{INDEX}/00fb", 0o600, *me()).close()
        layer.prepare(index=True)
        assert [entry.d_name for entry in layer.listdir(INDEX)] == ["00fb"]

    def test_release_takes_work_away_and_is_idempotent(self, upper: MakeUpper) -> None:
        layer = upper({"/f": "x"})
        layer.release(keep_index=False)
        layer.release(keep_index=False)
        with raises_errno(errno.ENOENT):
            layer.lstat(WORK)
        assert read(layer, "/f") == b"x"

    def test_release_takes_the_index_away(self, upper: MakeUpper) -> None:
        layer = upper({})
        layer.prepare(index=True)
        layer.create(f"{INDEX}/00fb", 0o600, *me()).close()
        layer.release(keep_index=False)
        layer.prepare(index=True)
        assert layer.listdir(INDEX) == []

    def test_objects_made_in_work_are_renamed_into_place(self, upper: MakeUpper) -> None:
        layer = upper({"/d": directory(), "/f": "old"})
        with opened(layer.create(f"{WORK}/#1", 0o644, *me())) as handle:
            handle.pwrite(b"new", 0)
        layer.rename(f"{WORK}/#1", "/f")
        layer.mkdir(f"{WORK}/#2", 0o755, *me())
        layer.rename(f"{WORK}/#2", "/d/sub")
        assert read(layer, "/f") == b"new"
        assert stat.S_ISDIR(layer.lstat("/d/sub").st_mode)
        assert layer.listdir(WORK) == []

    def test_objects_are_renamed_out_of_the_tree_into_work(self, upper: MakeUpper) -> None:
        layer = upper({"/d": directory(), "/d/f": "x"})
        layer.rename("/d", f"{WORK}/#1")
        assert layer.listdir("") == []
        assert read(layer, f"{WORK}/#1/f") == b"x"

    # Making

    @pytest.mark.parametrize("verb", MAKE)
    def test_making_a_taken_name_is_eexist(self, upper: MakeUpper, verb: str) -> None:
        tree: Tree = {"/f": "one", "/d": directory(), "/s": symlink("no"), "/gone": whiteout()}
        layer = upper(tree)
        before = read_tree(layer)
        for path in before if _can(layer, verb) else ():
            with raises_errno(errno.EEXIST):
                MAKE[verb](layer, path)
        assert read_tree(layer) == before

    @pytest.mark.parametrize("verb", MAKE)
    def test_making_without_a_parent_is_enoent_or_enotdir(self, upper: MakeUpper, verb: str) -> None:
        layer = upper({"/f": "one", "/d": directory(), "/s": symlink("d")})
        before = read_tree(layer)
        if _can(layer, verb):
            with raises_errno(errno.ENOENT):
                MAKE[verb](layer, "/no/x")
            with raises_errno(errno.ENOTDIR):
                MAKE[verb](layer, "/f/x")
            with raises_errno(errno.ENOTDIR if layer.capabilities.symlinks else errno.ENOENT):
                MAKE[verb](layer, "/s/x")
        else:
            with refused(layer, errno.EPERM):
                MAKE[verb](layer, "/x")
        assert read_tree(layer) == before

    @pytest.mark.parametrize("mode", [0o000, 0o600, 0o666, 0o755, 0o1777, 0o2755, 0o4711])
    def test_modes_asked_for_are_modes_made_whatever_the_umask(self, upper: MakeUpper, mode: int) -> None:
        layer = upper({})
        with _umask(0o777):
            layer.create("/f", mode, *me()).close()
            layer.mkdir("/d", mode, *me())
            layer.mknod("/gone", stat.S_IFCHR | (mode & 0o777), 0, *me())
        kinds = {path: stat.S_IFMT(layer.lstat(path).st_mode) for path in ("/f", "/d", "/gone")}
        assert kinds == {"/f": stat.S_IFREG, "/d": stat.S_IFDIR, "/gone": stat.S_IFCHR}
        if layer.capabilities.modes:
            assert stat.S_IMODE(layer.lstat("/f").st_mode) == mode
            assert stat.S_IMODE(layer.lstat("/d").st_mode) == mode
            # Whoever looks from outside, or clears up, may have no privilege.
            layer.chmod("/f", 0o600)
            layer.chmod("/d", 0o700)

    def test_owners_asked_for_are_owners_made(self, upper: MakeUpper) -> None:
        layer = upper({"/sgid": directory(0o2777, gid=77)})
        # Making keeps what fits; only an explicit chown is refused.
        layer.create("/f", 0o644, 12, 34).close()
        layer.mkdir("/d", 0o755, 12, 34)
        layer.mknod("/gone", stat.S_IFCHR, 0, 12, 34)
        layer.create("/sgid/f", 0o644, 12, 34).close()
        layer.mkdir("/sgid/d", 0o755, 12, 34)
        paths = ["/f", "/d", "/gone", "/sgid/f", "/sgid/d"]
        if layer.capabilities.symlinks:
            layer.symlink("t", "/s", 12, 34)
            paths.append("/s")
        if layer.capabilities.owners:
            assert {(layer.lstat(path).st_uid, layer.lstat(path).st_gid) for path in paths} == {(12, 34)}
        if layer.capabilities.owners and layer.capabilities.modes:
            assert stat.S_IMODE(layer.lstat("/sgid/d").st_mode) == 0o755

    def test_a_created_file_is_empty_and_open_for_both(self, upper: MakeUpper) -> None:
        layer = upper({})
        with opened(layer.create("/f", 0o400, *me())) as handle:
            assert handle.stat() == layer.lstat("/f")
            assert handle.stat().st_size == 0
            assert handle.stat().st_nlink == 1
            assert handle.pwrite(b"one", 0) == 3
            assert handle.pread(9, 0) == b"one"

    def test_tmpfile_has_no_name(self, upper: MakeUpper) -> None:
        layer = upper({"/f": "x"})
        handle = _tmpfile(layer, 0o640)
        if handle is None:
            return
        with opened(handle):
            handle.pwrite(b"unnamed", 0)
            assert handle.pread(9, 0) == b"unnamed"
            assert handle.stat().st_nlink == 0
            assert stat.S_ISREG(handle.stat().st_mode)
            if layer.capabilities.modes:
                assert stat.S_IMODE(handle.stat().st_mode) == 0o640
            assert list(read_tree(layer)) == ["/f"]
            assert layer.listdir(WORK) == []

    def test_device_nodes_and_fifos_are_made_or_refused(self, upper: MakeUpper) -> None:
        layer = upper({})
        if layer.capabilities.devices:
            for kind, path in ((stat.S_IFIFO, "/p"), (stat.S_IFSOCK, "/q"), (stat.S_IFCHR, "/c"), (stat.S_IFBLK, "/b")):
                rdev = NULL_DEVICE if kind in (stat.S_IFCHR, stat.S_IFBLK) else 0
                layer.mknod(path, kind | 0o640, rdev, *me())
                assert stat.S_IFMT(layer.lstat(path).st_mode) == kind
                assert layer.lstat(path).st_rdev == rdev
                if layer.capabilities.modes:
                    assert stat.S_IMODE(layer.lstat(path).st_mode) == 0o640
        else:
            with refused(layer, errno.EPERM):
                layer.mknod("/c", stat.S_IFCHR | 0o640, NULL_DEVICE, *me())
            assert layer.listdir("") == []

    def test_whiteouts_are_made_wherever_the_layer_cannot_hold_other_devices(self, upper: MakeUpper) -> None:
        layer = upper({"/d": directory()})
        layer.mknod("/d/gone", stat.S_IFCHR, 0, *me())
        assert is_whiteout(layer.lstat("/d/gone"))
        layer.unlink("/d/gone")
        with raises_errno(errno.ENOENT):
            layer.lstat("/d/gone")
        assert layer.listdir("/d") == []

    def test_a_whiteout_is_replaced_by_renaming_over_it(self, upper: MakeUpper) -> None:
        layer = upper({"/a": whiteout(), "/b": "x"})
        layer.rename("/b", "/a")
        assert read(layer, "/a") == b"x"
        assert [entry.d_name for entry in layer.listdir("")] == ["a"]

    def test_a_whiteout_replaces_a_file_by_renaming_over_it(self, upper: MakeUpper) -> None:
        layer = upper({"/f": "x"})
        layer.mknod(f"{WORK}/#1", stat.S_IFCHR, 0, *me())
        layer.rename(f"{WORK}/#1", "/f")
        assert is_whiteout(layer.lstat("/f"))
        assert [entry.d_name for entry in layer.listdir("")] == ["f"]

    # Hard links

    def test_link_gives_one_object_two_names(self, upper: MakeUpper) -> None:
        layer = upper({"/d": directory(), "/f": "one"})
        if not layer.capabilities.hard_links:
            with refused(layer, errno.EPERM):
                layer.link("/f", "/d/g")
            assert layer.lstat("/f").st_nlink == 1
            return
        layer.link("/f", "/d/g")
        assert layer.lstat("/f") == layer.lstat("/d/g")
        assert layer.lstat("/f").st_nlink == 2
        with opened(layer.open("/d/g", writable=True)) as handle:
            handle.pwrite(b"two", 0)
        assert read(layer, "/f") == b"two"
        layer.unlink("/f")
        assert layer.lstat("/d/g").st_nlink == 1
        assert read(layer, "/d/g") == b"two"

    def test_link_of_a_symlink_links_the_symlink(self, upper: MakeUpper) -> None:
        layer = upper({"/f": "x", "/s": symlink("f")})
        if layer.capabilities.symlinks and layer.capabilities.hard_links:
            layer.link("/s", "/t")
            assert layer.readlink("/t") == "f"
            assert layer.lstat("/t").st_ino == layer.lstat("/s").st_ino
        assert layer.lstat("/f").st_nlink == 1

    def test_link_of_a_directory_is_eperm(self, upper: MakeUpper) -> None:
        layer = upper({"/d": directory()})
        with raises_errno(errno.EPERM):
            layer.link("/d", "/e")
        assert [entry.d_name for entry in layer.listdir("")] == ["d"]

    # Removing

    def test_unlink_of_a_directory_is_eisdir(self, upper: MakeUpper) -> None:
        layer = upper({"/d": directory()})
        with raises_errno(errno.EISDIR):
            layer.unlink("/d")
        assert list(read_tree(layer)) == ["/d"]

    def test_unlink_takes_the_symlink_and_not_its_target(self, upper: MakeUpper) -> None:
        layer = upper({"/f": "x", "/s": symlink("f")})
        if layer.capabilities.symlinks:
            layer.unlink("/s")
        assert list(read_tree(layer)) == ["/f"]

    def test_rmdir_of_what_is_no_directory_is_enotdir(self, upper: MakeUpper) -> None:
        layer = upper({"/f": "x", "/s": symlink("no"), "/gone": whiteout()})
        before = read_tree(layer)
        for path in before:
            with raises_errno(errno.ENOTDIR):
                layer.rmdir(path)
        assert read_tree(layer) == before

    def test_rmdir_of_a_directory_with_names_is_enotempty_whiteouts_included(self, upper: MakeUpper) -> None:
        layer = upper({"/d": directory(), "/d/f": "x", "/e": directory(), "/e/gone": whiteout()})
        before = read_tree(layer)
        for path in ("/d", "/e"):
            with raises_errno(errno.ENOTEMPTY):
                layer.rmdir(path)
        assert read_tree(layer) == before

    def test_rmdir_takes_an_empty_directory_and_its_marks(self, upper: MakeUpper) -> None:
        layer = upper({"/d": directory()})
        layer.setxattr("/d", "user.overlay.opaque", b"y")
        layer.rmdir("/d")
        assert layer.listdir("") == []
        layer.mkdir("/d", 0o755, *me())
        assert "user.overlay.opaque" not in layer.listxattr("/d")

    # Errors of what changes something that is there

    @pytest.mark.parametrize("verb", CHANGE)
    def test_changing_a_missing_name_is_enoent(self, upper: MakeUpper, verb: str) -> None:
        layer = upper({"/d": directory()})
        for path in ("/no", "/d/no", "/no/such"):
            with raises_errno(errno.ENOENT):
                CHANGE[verb](layer, path)
        assert list(read_tree(layer)) == ["/d"]

    @pytest.mark.parametrize("verb", CHANGE)
    def test_changing_through_a_file_or_symlink_is_enotdir(self, upper: MakeUpper, verb: str) -> None:
        layer = upper({"/d": directory(), "/d/f": "x", "/s": symlink("d")})
        before = read_tree(layer)
        with raises_errno(errno.ENOTDIR):
            CHANGE[verb](layer, "/d/f/x")
        with raises_errno(errno.ENOTDIR if layer.capabilities.symlinks else errno.ENOENT):
            CHANGE[verb](layer, "/s/f")
        assert read_tree(layer) == before

    def test_rename_into_a_missing_directory_is_enoent(self, upper: MakeUpper) -> None:
        layer = upper({"/f": "x"})
        with raises_errno(errno.ENOENT):
            layer.rename("/f", "/no/f")
        assert read(layer, "/f") == b"x"

    # Renaming

    def test_rename_moves_an_object_with_its_number(self, upper: MakeUpper) -> None:
        layer = upper({"/d": directory(), "/e": directory(), "/e/f": "x"})
        number = layer.lstat("/e/f").st_ino
        layer.rename("/e/f", "/d/g")
        assert sorted(read_tree(layer)) == ["/d", "/d/g", "/e"]
        assert layer.lstat("/d/g").st_ino == number

    def test_rename_moves_a_directory_with_all_below(self, upper: MakeUpper) -> None:
        tree: Tree = {"/d": directory(), "/d/e": directory(), "/d/e/f": "x", "/d/gone": whiteout(), "/x": directory()}
        layer = upper(tree)
        layer.rename("/d", "/x/n")
        assert sorted(read_tree(layer)) == ["/x", "/x/n", "/x/n/e", "/x/n/e/f", "/x/n/gone"]
        assert read(layer, "/x/n/e/f") == b"x"
        assert is_whiteout(layer.lstat("/x/n/gone"))

    def test_rename_carries_the_opaque_mark_along(self, upper: MakeUpper) -> None:
        layer = upper({"/d": directory()})
        layer.setxattr("/d", "user.overlay.opaque", b"y")
        layer.rename("/d", "/e")
        assert layer.getxattr("/e", "user.overlay.opaque") == b"y"

    def test_rename_replaces_a_file(self, upper: MakeUpper) -> None:
        layer = upper({"/f": "one", "/g": "two"})
        layer.rename("/f", "/g")
        assert list(read_tree(layer)) == ["/g"]
        assert read(layer, "/g") == b"one"

    def test_rename_replaces_an_empty_directory(self, upper: MakeUpper) -> None:
        layer = upper({"/d": directory(), "/d/f": "x", "/e": directory()})
        layer.rename("/d", "/e")
        assert sorted(read_tree(layer)) == ["/e", "/e/f"]

    def test_rename_refuses_what_rename_2_refuses(self, upper: MakeUpper) -> None:
        layer = upper({"/d": directory(), "/d/f": "x", "/e": directory(), "/e/f": "x", "/f": "x"})
        before = read_tree(layer)
        cases = {
            ("/d", "/e"): errno.ENOTEMPTY,
            ("/f", "/e"): errno.EISDIR,
            ("/d", "/f"): errno.ENOTDIR,
            ("/d", "/d/sub"): errno.EINVAL,
            ("/e/f", "/e"): errno.ENOTEMPTY,
        }
        for (src, dst), number in cases.items():
            with raises_errno(number):
                layer.rename(src, dst)
        assert read_tree(layer) == before

    def test_rename_between_two_names_of_one_object_keeps_both(self, upper: MakeUpper) -> None:
        layer = upper({"/f": "x", "/g": hard_link("/f")})
        layer.rename("/f", "/f")
        if layer.capabilities.hard_links:
            layer.rename("/f", "/g")
            assert sorted(read_tree(layer)) == ["/f", "/g"]
        assert read(layer, "/f") == b"x"

    def test_exchange_swaps_two_objects_of_any_kind(self, upper: MakeUpper) -> None:
        layer = upper({"/d": directory(), "/d/f": "x", "/f": "one", "/g": "two", "/gone": whiteout()})
        if not layer.capabilities.atomic_rename:
            with refused(layer, errno.EINVAL):
                layer.rename("/f", "/g", RENAME_EXCHANGE)
            assert read(layer, "/f") == b"one"
            return
        layer.rename("/f", "/g", RENAME_EXCHANGE)
        assert (read(layer, "/f"), read(layer, "/g")) == (b"two", b"one")
        layer.rename("/d", "/f", RENAME_EXCHANGE)
        assert read(layer, "/f/f") == b"x"
        assert read(layer, "/d") == b"two"
        layer.rename("/gone", "/f", RENAME_EXCHANGE)
        assert is_whiteout(layer.lstat("/f"))
        assert read(layer, "/gone/f") == b"x"

    def test_noreplace_moves_but_does_not_replace(self, upper: MakeUpper) -> None:
        layer = upper({"/f": "one", "/g": "two"})
        with raises_errno(errno.EEXIST):
            layer.rename("/f", "/g", RENAME_NOREPLACE)
        assert read(layer, "/g") == b"two"
        layer.rename("/f", "/h", RENAME_NOREPLACE)
        assert list(read_tree(layer)) == ["/g", "/h"]

    def test_rename_leaves_a_whiteout_if_asked(self, upper: MakeUpper) -> None:
        layer = upper({"/d": directory(), "/d/f": "x", "/f": "one", "/g": "two"})
        layer.rename("/f", "/g", RENAME_WHITEOUT)
        layer.rename("/d", "/e", RENAME_WHITEOUT)
        assert is_whiteout(layer.lstat("/f"))
        assert is_whiteout(layer.lstat("/d"))
        if layer.capabilities.modes:
            assert layer.lstat("/f").st_mode == stat.S_IFCHR
        assert read(layer, "/g") == b"one"
        assert read(layer, "/e/f") == b"x"
        assert sorted(entry.d_name for entry in layer.listdir("")) == ["d", "e", "f", "g"]

    def test_exchange_with_a_missing_name_is_enoent(self, upper: MakeUpper) -> None:
        layer = upper({"/f": "one"})
        with raises_errno(errno.ENOENT if layer.capabilities.atomic_rename else errno.EINVAL):
            layer.rename("/f", "/no", RENAME_EXCHANGE)
        assert list(read_tree(layer)) == ["/f"]

    # Attributes

    def test_chmod_sets_twelve_bits_or_is_refused(self, upper: MakeUpper) -> None:
        layer = upper({"/f": file("x", 0o644), "/d": directory(0o755)})
        before = read_tree(layer)
        for path in ("/f", "/d", ""):
            if layer.capabilities.modes:
                layer.chmod(path, 0o5741)
                assert stat.S_IMODE(layer.lstat(path).st_mode) == 0o5741
            else:
                with refused(layer, errno.EPERM):
                    layer.chmod(path, 0o5741)
        if not layer.capabilities.modes:
            assert read_tree(layer) == before

    def test_chown_sets_owners_and_keeps_what_is_minus_one_or_is_refused(self, upper: MakeUpper) -> None:
        layer = upper({"/f": "x", "/d": directory(), "/s": symlink("f")})
        paths = ["/f", "/d", "/s"] if layer.capabilities.symlinks else ["/f", "/d"]
        for path in paths:
            if layer.capabilities.owners:
                layer.chown(path, 12, 34)
                layer.chown(path, -1, 56)
                layer.chown(path, 78, -1)
                layer.chown(path, -1, -1)
                assert (layer.lstat(path).st_uid, layer.lstat(path).st_gid) == (78, 56)
            else:
                st = layer.lstat(path)
                with refused(layer, errno.EPERM):
                    layer.chown(path, st.st_uid + 1, st.st_gid + 1)
                assert (layer.lstat(path).st_uid, layer.lstat(path).st_gid) == (st.st_uid, st.st_gid)

    def test_chown_clears_no_set_id_bits(self, upper: MakeUpper) -> None:
        layer = upper({"/f": file("x", 0o6755)})
        if layer.capabilities.owners and layer.capabilities.modes:
            layer.chown("/f", 12, 34)
            assert stat.S_IMODE(layer.lstat("/f").st_mode) == 0o6755
        with opened(layer.open("/f")) as handle:
            st = handle.stat()
            handle.chown(st.st_uid, st.st_gid)
            assert handle.stat().st_mode == st.st_mode

    def test_utime_sets_both_times_of_any_object_or_is_refused(self, upper: MakeUpper) -> None:
        layer = upper({"/f": "x", "/d": directory(), "/s": symlink("f"), "/gone": whiteout()})
        for path in [*read_tree(layer), ""]:
            if layer.capabilities.times:
                layer.utime(path, LONG_AGO, 2 * LONG_AGO)
                st = layer.lstat(path)
                assert (st.st_atime_ns, st.st_mtime_ns) == (LONG_AGO, 2 * LONG_AGO), path
            else:
                with refused(layer, errno.EPERM):
                    layer.utime(path, LONG_AGO, LONG_AGO)

    @pytest.mark.parametrize("verb", [*MAKE, "unlink", "rmdir", "rename from", "rename to", "exchange"])
    def test_changing_names_stamps_the_parent(self, upper: MakeUpper, verb: str) -> None:
        layer = upper({"/f": "x", "/p": directory(), "/p/f": "x", "/p/d": directory(), "/q": directory(), "/q/g": "x"})
        if not layer.capabilities.times:
            with refused(layer, errno.EPERM):
                layer.utime("/p", LONG_AGO, LONG_AGO)
            return
        if verb == "exchange" and not layer.capabilities.atomic_rename:
            with refused(layer, errno.EINVAL):
                layer.rename("/p/f", "/q/g", RENAME_EXCHANGE)
            return
        if verb in MAKE and not _can(layer, verb):
            with refused(layer, errno.EPERM):
                MAKE[verb](layer, "/p/new")
            return
        acts: dict[str, Callable[[], None]] = {
            "unlink": lambda: layer.unlink("/p/f"),
            "rmdir": lambda: layer.rmdir("/p/d"),
            "rename from": lambda: layer.rename("/p/f", "/q/n"),
            "rename to": lambda: layer.rename("/q/g", "/p/n"),
            "exchange": lambda: layer.rename("/p/f", "/q/g", RENAME_EXCHANGE),
        }
        layer.utime("/p", LONG_AGO, LONG_AGO)
        layer.utime("", LONG_AGO, LONG_AGO)
        before = layer.lstat("/p")
        _wait_for_the_clock()
        acts[verb]() if verb in acts else MAKE[verb](layer, "/p/new")
        assert layer.lstat("/p").st_mtime_ns > LONG_AGO
        assert layer.lstat("/p").st_ctime_ns > before.st_ctime_ns
        assert layer.lstat("").st_mtime_ns == LONG_AGO

    def test_rename_keeps_the_mtime_of_what_moves(self, upper: MakeUpper) -> None:
        layer = upper({"/f": "x", "/d": directory()})
        before = {path: layer.lstat(path).st_mtime_ns for path in ("/f", "/d")}
        layer.rename("/f", "/g")
        layer.rename("/d", "/e")
        assert {path: layer.lstat(new).st_mtime_ns for path, new in (("/f", "/g"), ("/d", "/e"))} == before

    @pytest.mark.parametrize("verb", [*STAMPING, "write", "truncate"])
    def test_every_change_of_an_object_stamps_its_ctime(self, upper: MakeUpper, verb: str) -> None:
        layer = upper({"/f": file("x", xattrs={"user.k": b"v"})})
        if not layer.capabilities.times:
            with refused(layer, errno.EPERM):
                layer.utime("/f", LONG_AGO, LONG_AGO)
            return
        if not layer.capabilities.xattrs and "xattr" in verb:
            with refused(layer, errno.EOPNOTSUPP):
                layer.setxattr("/f", "user.k", b"v")
            return
        layer.utime("/f", LONG_AGO, LONG_AGO)
        before = layer.lstat("/f")
        _wait_for_the_clock()
        if verb in ("write", "truncate"):
            with opened(layer.open("/f", writable=True)) as handle:
                handle.pwrite(b"y", 0) if verb == "write" else handle.truncate(0)
            assert layer.lstat("/f").st_mtime_ns > LONG_AGO
        elif verb == "setxattr":
            layer.setxattr("/f", "user.k", b"w")
        elif _can(layer, verb):
            CHANGE[verb](layer, "/f")
        else:
            with refused(layer, errno.EPERM):
                CHANGE[verb](layer, "/f")
            return
        assert layer.lstat("/f").st_ctime_ns > before.st_ctime_ns

    # Extended attributes

    def test_opaque_mark_is_kept_in_any_spelling(self, upper: MakeUpper) -> None:
        layer = upper({"/d": directory()})
        layer.setxattr("/d", "user.overlay.opaque", b"y")
        assert layer.getxattr("/d", "user.overlay.opaque") == b"y"
        assert "user.overlay.opaque" in layer.listxattr("/d")
        assert layer.listdir("/d") == []
        layer.removexattr("/d", "user.overlay.opaque")
        with raises_errno(errno.ENODATA):
            layer.getxattr("/d", "user.overlay.opaque")

    def test_attributes_are_set_replaced_and_removed_or_refused(self, upper: MakeUpper) -> None:
        layer = upper({"/f": "x", "/d": directory()})
        for path in ("/f", "/d"):
            if not layer.capabilities.xattrs:
                with refused(layer, errno.EOPNOTSUPP):
                    layer.setxattr(path, "user.k", b"v")
                assert layer.listxattr(path) == []
                continue
            layer.setxattr(path, "user.k", b"v")
            layer.setxattr(path, "user.k", b"w\0")
            layer.setxattr(path, "user.empty", b"")
            assert layer.getxattr(path, "user.k") == b"w\0"
            assert sorted(layer.listxattr(path)) == ["user.empty", "user.k"]
            layer.removexattr(path, "user.k")
            assert layer.listxattr(path) == ["user.empty"]

    def test_attribute_flags_and_absences(self, upper: MakeUpper) -> None:
        layer = upper({"/f": "x"})
        if layer.capabilities.xattrs:
            with raises_errno(errno.ENODATA):
                layer.setxattr("/f", "user.k", b"v", XATTR_REPLACE)
            layer.setxattr("/f", "user.k", b"v", XATTR_CREATE)
            with raises_errno(errno.EEXIST):
                layer.setxattr("/f", "user.k", b"w", XATTR_CREATE)
            layer.setxattr("/f", "user.k", b"x", XATTR_REPLACE)
            assert layer.getxattr("/f", "user.k") == b"x"
        with raises_errno(errno.ENODATA if layer.capabilities.xattrs else errno.EOPNOTSUPP):
            layer.removexattr("/f", "user.absent")

    def test_attribute_names_and_sizes_are_checked(self, upper: MakeUpper) -> None:
        layer = upper({"/f": "x"})
        cases = {"user.": errno.EINVAL, "nodot": errno.EOPNOTSUPP, "strange.k": errno.EOPNOTSUPP}
        cases |= {"": errno.ERANGE, "user." + "k" * 251: errno.ERANGE}
        for name, number in cases.items():
            with raises_errno(number if layer.capabilities.xattrs else errno.EOPNOTSUPP):
                layer.setxattr("/f", name, b"v")
        with raises_errno(errno.E2BIG if layer.capabilities.xattrs else errno.EOPNOTSUPP):
            layer.setxattr("/f", "user.k", bytes(XATTR_SIZE_MAX + 1))
        assert layer.listxattr("/f") == []
        if layer.capabilities.xattrs:
            layer.setxattr("/f", "user." + "k" * 250, b"v")
            assert layer.listxattr("/f") == ["user." + "k" * 250]

    def test_user_attributes_are_for_files_and_directories_only(self, upper: MakeUpper) -> None:
        layer = upper({"/s": symlink("no"), "/pipe": fifo(), "/null": device(makedev(1, 3)), "/gone": whiteout()})
        for path in read_tree(layer):
            with raises_errno(errno.EPERM if layer.capabilities.xattrs else errno.EOPNOTSUPP):
                layer.setxattr(path, "user.k", b"v")
            assert layer.listxattr(path) == []

    def test_trusted_attributes_go_on_every_kind(self, upper: MakeUpper) -> None:
        layer = upper({"/f": "x", "/d": directory(), "/s": symlink("no"), "/gone": whiteout()})
        caps = layer.capabilities
        if caps.xattrs and caps.trusted_xattrs:
            for path in read_tree(layer):
                layer.setxattr(path, "trusted.overlay.origin", b"v")
                assert layer.listxattr(path) == ["trusted.overlay.origin"]
                assert layer.getxattr(path, "trusted.overlay.origin") == b"v"
                layer.removexattr(path, "trusted.overlay.origin")
                assert layer.listxattr(path) == []
        else:
            with raises_errno(errno.EPERM if caps.xattrs else errno.EOPNOTSUPP):
                layer.setxattr("/f", "trusted.k", b"v")
            with raises_errno(errno.ENODATA):
                layer.getxattr("/f", "trusted.k")

    # Handles for writing

    def test_writable_open_of_a_directory_is_eisdir(self, upper: MakeUpper) -> None:
        layer = upper({"/d": directory()})
        for path in ("/d", ""):
            with raises_errno(errno.EISDIR):
                layer.open(path, writable=True)

    def test_pwrite_writes_all_and_grows_with_a_hole(self, upper: MakeUpper) -> None:
        layer = upper({"/f": "one"})
        with opened(layer.open("/f", writable=True)) as handle:
            assert handle.pwrite(memoryview(b"TWO!"), 1) == 4
            assert handle.pwrite(b"x", 100_000) == 1
            assert handle.pwrite(b"", 0) == 0
            assert handle.stat().st_size == 100_001
            assert handle.pread(10, 0) == b"oTWO!\0\0\0\0\0"
            assert handle.pread(10, 99_999) == b"\0x"
        assert len(read(layer, "/f")) == 100_001

    def test_truncate_cuts_and_grows_with_zeros(self, upper: MakeUpper) -> None:
        layer = upper({"/f": "twelve bytes"})
        with opened(layer.open("/f", writable=True)) as handle:
            handle.truncate(3)
            assert handle.pread(99, 0) == b"twe"
            handle.truncate(6)
            assert handle.pread(99, 0) == b"twe\0\0\0"
            handle.truncate(0)
        assert layer.lstat("/f").st_size == 0

    def test_holes_are_told_as_zeros_or_as_holes(self, upper: MakeUpper) -> None:
        layer = upper({})
        with opened(layer.create("/f", 0o644, *me())) as handle:
            handle.pwrite(b"x", 1 << 20)
            data = handle.seek_extent(0, SEEK_DATA)
            assert 0 <= data <= 1 << 20
            assert handle.pread(data, 0) == bytes(data)
            assert handle.seek_extent(1 << 20, SEEK_DATA) == 1 << 20
            assert handle.seek_extent(1 << 20, SEEK_HOLE) == (1 << 20) + 1

    def test_sync_of_layer_and_handle(self, upper: MakeUpper) -> None:
        layer = upper({"/f": "x", "/d": directory()})
        for path in ("/f", "/d"):
            with opened(layer.open(path)) as handle:
                handle.sync()
        layer.sync()
        assert read(layer, "/f") == b"x"

    # Handles are of objects, not of names

    def test_handle_survives_rename(self, upper: MakeUpper) -> None:
        layer = upper({"/d": directory(), "/d/f": "one"})
        with opened(layer.open("/d/f", writable=True)) as handle:
            layer.rename("/d/f", "/d/g")
            layer.rename("/d", "/e")
            handle.pwrite(b"two", 0)
            assert handle.stat().st_ino == layer.lstat("/e/g").st_ino
            assert read(layer, "/e/g") == b"two"

    def test_handle_survives_unlink(self, upper: MakeUpper) -> None:
        layer = upper({"/f": "one"})
        with opened(layer.open("/f", writable=True)) as handle, opened(layer.open("/f")) as reader:
            layer.unlink("/f")
            assert handle.pread(9, 0) == b"one"
            handle.pwrite(b"TWO!", 0)
            assert reader.pread(9, 0) == b"TWO!"
            assert reader.stat().st_size == 4
            if layer.capabilities.hard_links:
                assert handle.stat().st_nlink == 0
            assert layer.listdir("") == []

    def test_handle_survives_replacement(self, upper: MakeUpper) -> None:
        layer = upper({"/f": "one", "/g": "new"})
        with opened(layer.open("/f", writable=True)) as handle:
            layer.rename("/g", "/f")
            handle.pwrite(b"two", 0)
            assert handle.pread(9, 0) == b"two"
            assert read(layer, "/f") == b"new"

    def test_handle_survives_removal_and_remaking_of_its_name(self, upper: MakeUpper) -> None:
        layer = upper({"/f": "one"})
        with opened(layer.open("/f")) as handle:
            layer.unlink("/f")
            with opened(layer.create("/f", 0o644, *me())) as fresh:
                fresh.pwrite(b"two", 0)
            assert handle.pread(9, 0) == b"one"
            assert read(layer, "/f") == b"two"

    def test_directory_handle_survives_rename_and_rmdir(self, upper: MakeUpper) -> None:
        layer = upper({"/d": directory()})
        with opened(layer.open("/d")) as handle:
            number = handle.stat().st_ino
            layer.rename("/d", "/e")
            assert handle.stat().st_ino == number
            layer.rmdir("/e")
            assert stat.S_ISDIR(handle.stat().st_mode)

    def test_two_handles_see_each_other_s_writes(self, upper: MakeUpper) -> None:
        layer = upper({"/f": "one"})
        with opened(layer.open("/f")) as reader, opened(layer.open("/f", writable=True)) as one:
            with opened(layer.open("/f", writable=True)) as two:
                one.pwrite(b"ONE", 0)
                two.pwrite(b"!", 3)
            assert reader.pread(9, 0) == b"ONE!"
            assert reader.stat().st_size == layer.lstat("/f").st_size == 4

    def test_metadata_verbs_work_on_a_read_only_handle_of_any_kind(self, upper: MakeUpper) -> None:
        layer = upper({"/f": "x", "/d": directory()})
        for path in ("/f", "/d"):
            with opened(layer.open(path)) as handle:
                self._change_by_handle(layer, handle, path)

    def _change_by_handle(self, layer: UpperLayer, handle: Handle, path: str) -> None:
        caps = layer.capabilities
        if caps.modes:
            handle.chmod(0o711)
            assert stat.S_IMODE(layer.lstat(path).st_mode) == 0o711
        if caps.owners:
            handle.chown(12, -1)
            handle.chown(-1, 34)
            assert (layer.lstat(path).st_uid, layer.lstat(path).st_gid) == (12, 34)
        if caps.times:
            handle.utime(LONG_AGO, 2 * LONG_AGO)
            assert layer.lstat(path).st_mtime_ns == 2 * LONG_AGO
        if caps.xattrs:
            handle.setxattr("user.k", b"v")
            assert layer.getxattr(path, "user.k") == handle.getxattr("user.k") == b"v"
            assert handle.listxattr() == ["user.k"]
            with raises_errno(errno.EEXIST):
                handle.setxattr("user.k", b"w", XATTR_CREATE)
            handle.removexattr("user.k")
            assert layer.listxattr(path) == []
        assert handle.stat() == layer.lstat(path)

    def test_metadata_verbs_work_on_a_handle_of_a_symlink_and_of_a_device(self, upper: MakeUpper) -> None:
        layer = upper({"/f": "x", "/s": symlink("f"), "/gone": whiteout()})
        target: Stat = layer.lstat("/f")
        for path in ["/s", "/gone"] if layer.capabilities.symlinks else ["/gone"]:
            with opened(layer.open(path)) as handle:
                if layer.capabilities.times and layer.capabilities.marks:
                    handle.utime(LONG_AGO, 2 * LONG_AGO)
                    assert layer.lstat(path).st_mtime_ns == 2 * LONG_AGO
                if layer.capabilities.owners and layer.capabilities.marks:
                    handle.chown(12, 34)
                    assert (layer.lstat(path).st_uid, layer.lstat(path).st_gid) == (12, 34)
                assert handle.stat().st_ino == layer.lstat(path).st_ino
        assert layer.lstat("/f") == target

    def test_handle_of_an_unlinked_file_keeps_its_attributes(self, upper: MakeUpper) -> None:
        layer = upper({"/f": "x"})
        with opened(layer.open("/f", writable=True)) as handle:
            layer.unlink("/f")
            layer.create("/f", 0o604, *me()).close()
            if layer.capabilities.modes:
                handle.chmod(0o700)
                assert stat.S_IMODE(handle.stat().st_mode) == 0o700
                assert stat.S_IMODE(layer.lstat("/f").st_mode) == 0o604
            if layer.capabilities.xattrs:
                handle.setxattr("user.k", b"v")
                assert handle.listxattr() == ["user.k"]
            assert layer.listxattr("/f") == []

    # Origin marks, clones

    def test_a_removed_object_s_handle_is_found_no_more(self, upper: MakeUpper) -> None:
        layer = upper({"/f": "x", "/g": "x"})
        value = layer.file_handle("/f")
        if value is not None:
            layer.unlink("/f")
            assert layer.find_handle(value, "/f") is None
            assert layer.find_handle(value, "/g") is None

    def test_a_renamed_object_keeps_its_file_handle(self, upper: MakeUpper) -> None:
        layer = upper({"/f": "x", "/d": directory()})
        value = layer.file_handle("/f")
        layer.rename("/f", "/d/f")
        assert layer.file_handle("/d/f") == value
        if value is not None:
            assert layer.find_handle(value, "/d/f") == layer.lstat("/d/f")

    def test_clone_gives_the_first_bytes_or_nothing(self, upper: MakeUpper) -> None:
        layer = upper({"/f": "0123456789" * 1000})
        for size in (10_000, 5_000, 0):
            with opened(layer.open("/f")) as src, opened(layer.create(f"/{size}", 0o644, *me())) as dst:
                if layer.clone(src, dst, size):
                    assert dst.pread(20_000, 0) == b"0123456789" * (size // 10)
                    dst.pwrite(b"x", 0)
                    assert src.pread(1, 0) == b"0"
                else:
                    assert dst.stat().st_size == 0

    def test_clone_keeps_holes_readable_as_zeros(self, upper: MakeUpper) -> None:
        layer = upper({})
        with opened(layer.create("/f", 0o644, *me())) as src, opened(layer.create("/g", 0o644, *me())) as dst:
            src.pwrite(b"a", 100_000)
            src.truncate(300_000)
            if layer.clone(src, dst, 300_000):
                assert dst.pread(400_000, 0) == bytes(100_000) + b"a" + bytes(199_999)
            else:
                assert dst.stat().st_size == 0


def _tmpfile(layer: UpperLayer, mode: int) -> Handle | None:
    """Return a file without a name, None where the layer says it has none (EOPNOTSUPP, and nothing else)."""
    try:
        return layer.tmpfile(mode, *me())
    except OSError as error:
        if error.errno != errno.EOPNOTSUPP:
            raise
        return None


@contextmanager
def _umask(mask: int) -> Iterator[None]:
    old = os.umask(mask)
    try:
        yield
    finally:
        os.umask(old)
