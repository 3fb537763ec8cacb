"""Whiteouts (KB 3; overlayfs.rst, "whiteouts and opaque directories")."""

import errno
import os
import stat

import pytest

from overlayvfs.testing import DIR, WHITEOUT, directory, fifo, file, raises_errno, symlink, whiteout
from overlayvfs.testing.states import arranged


def test_a_whiteout_is_a_character_device_0_0_without_permissions(box):
    box.lower({"/f": "x"})
    box.os.unlink("/f")
    entry = box.snapshot("upper")["/f"]
    assert (entry.kind, entry.mode, entry.uid, entry.gid) == ("whiteout", 0, 0, 0)


@pytest.mark.parametrize("mode", [0, 0o600, 0o4777])
def test_a_hand_made_whiteout_of_any_mode_hides_the_name(box, mode):
    box.lower({"/d/f": "x", "/d/g": "y"})
    box.upper({"/d/f": whiteout(mode=mode)})
    assert box.tree() == {"/d/g": "y"}
    with raises_errno(errno.ENOENT):
        box.os.lstat("/d/f")


def test_a_whiteout_in_a_lower_hides_only_the_layers_below_it(box):
    box.lower({"/d/f": "above"})
    box.lower({"/d/f": WHITEOUT, "/d/g": WHITEOUT})
    box.lower({"/d/f": "below", "/d/g": "below"})
    assert box.tree() == {"/d/f": "above"}


@pytest.mark.parametrize(
    ("state", "left"),
    [
        ("upper file", {}),
        ("upper file over lower file", {"/x": WHITEOUT}),
        ("upper file over lower dir", {"/x": WHITEOUT}),
        ("lower file", {"/x": WHITEOUT}),
        ("lower dangling symlink", {"/x": WHITEOUT}),
    ],
)
def test_unlink_leaves_a_whiteout_exactly_if_something_would_show_through(box, state, left):
    layers = arranged(state)
    box.lower(layers.lower)
    box.upper(layers.upper)
    box.os.unlink("/x")
    assert box.upper_tree() == left
    assert "x" not in box.os.listdir("/")


def test_no_whiteout_is_left_where_a_lower_has_one_already(box):
    box.lower({"/f": WHITEOUT})
    box.lower({"/f": "hidden"})
    box.write("/f", b"new")
    box.os.unlink("/f")
    assert box.upper_tree() == {}
    assert box.tree() == {}


def test_no_whiteout_is_left_in_an_opaque_directory(box):
    box.lower({"/d/f": "hidden"})
    box.upper({"/d/": directory(opaque=True), "/d/f": "shown"})
    box.os.unlink("/d/f")
    assert box.upper_tree() == {"/d/": directory(opaque=True)}


def test_no_whiteout_is_left_in_a_pure_upper_directory(box):
    box.lower({"/f": "x"})
    box.os.mkdir("/new")
    box.os.rename("/f", "/new/f")
    box.os.unlink("/new/f")
    assert box.upper_tree() == {"/f": WHITEOUT, "/new/": DIR}


def test_creating_over_a_whiteout_replaces_it_without_a_trace(box):
    box.lower({"/f": "x"})
    box.upper({"/f": WHITEOUT})
    box.write("/f", b"new")
    assert box.upper_tree(origin=True, impure=True) == {"/f": "new"}


def test_deleting_and_creating_a_hundred_times_ends_as_once(box):
    box.lower({"/f": "x"})
    for _ in range(100):
        box.os.unlink("/f")
        box.write("/f", b"y")
    assert box.upper_tree() == {"/f": "y"}


def test_whiteouts_never_show_in_a_merged_directory(box):
    box.lower({"/d/a": "x", "/d/b": WHITEOUT})
    box.lower({"/d/b": "y", "/d/c": "z"})
    box.upper({"/d/c": WHITEOUT})
    assert box.os.listdir("/d") == ["a"]


@pytest.mark.parametrize(
    ("lower", "upper"),
    [
        ({"/x": DIR}, {"/d/gone": WHITEOUT, "/d/f": "x"}),
        ({"/d/gone": "x"}, {"/d/": directory(opaque=True), "/d/gone": WHITEOUT, "/d/f": "x"}),
        ({"/d/gone": WHITEOUT, "/d/f": "x"}, {}),
    ],
    ids=["pure upper", "opaque upper", "lower only"],
)
def test_whiteouts_never_show_in_a_directory_of_one_layer(box, lower, upper):
    # Linux lists them there although they can't be looked up (KB 3.10); the kernel's body leaves them out for us.
    box.lower(lower)
    box.upper(upper)
    assert box.os.listdir("/d") == ["f"]


def test_a_whiteout_in_a_pure_upper_directory_does_not_count_for_enotempty(box):
    box.lower({})
    box.upper({"/d/gone": WHITEOUT})
    if box.is_kernel:
        # A difference on purpose: Linux lists this whiteout and counts it (KB 3.12).
        with raises_errno(errno.ENOTEMPTY):
            box.os.rmdir("/d")
        return
    box.os.rmdir("/d")
    assert box.upper_tree() == {}


def test_rmdir_of_an_opaque_directory_with_only_whiteouts_leaves_a_whiteout(box):
    box.lower({"/d/f": "x"})
    box.upper({"/d/": directory(opaque=True), "/d/f": WHITEOUT})
    box.os.rmdir("/d")
    assert box.upper_tree() == {"/d": WHITEOUT}


def test_rmdir_of_a_lower_directory_with_only_whiteouts_leaves_a_whiteout(box):
    box.lower({"/d/f": WHITEOUT})
    box.os.rmdir("/d")
    assert box.upper_tree() == {"/d": WHITEOUT}


def test_rename_over_a_lower_directory_with_only_whiteouts_replaces_it(box):
    box.lower({"/d/f": WHITEOUT})
    box.upper({"/new/": DIR})
    box.os.rename("/new", "/d")
    assert box.upper_tree() == {"/d/": directory(opaque=True)}


def test_mknod_of_a_whiteout_is_eperm_and_copies_nothing_up(box):
    box.lower({"/d/f": "x"})
    with raises_errno(errno.EPERM):
        box.os.mknod("/d/w", stat.S_IFCHR | 0o644, 0)
    with raises_errno(errno.EEXIST):
        box.os.mknod("/d/f", stat.S_IFCHR | 0o644, 0)
    assert box.upper_tree() == {}


@pytest.mark.parametrize("kind", [stat.S_IFIFO, stat.S_IFSOCK], ids=["fifo", "socket"])
def test_mknod_of_a_fifo_or_socket_is_ordinary(box, kind):
    box.lower({"/d/f": "x"})
    box.os.mknod("/d/n", kind | 0o600)
    assert stat.S_IFMT(box.os.lstat("/d/n").st_mode) == kind


# The other form: an empty file with a mark, in a directory marked to have some (KB 3.17 to 3.20).

HIDES = file(marks={"whiteout": b""})
HAS_SOME = directory(marks={"opaque": b"x"})


def test_an_empty_file_marked_as_whiteout_hides_the_name(box):
    box.lower({"/d/": HAS_SOME, "/d/f": HIDES})
    box.lower({"/d/f": "x", "/d/g": "y"})
    assert box.os.listdir("/d") == ["g"]
    with raises_errno(errno.ENOENT):
        box.os.open("/d/f", os.O_RDONLY)


def test_a_marked_file_in_a_middle_lower_hides_only_what_is_below(box):
    box.lower({"/d/g": "above"})
    box.lower({"/d/": HAS_SOME, "/d/f": HIDES, "/d/g": HIDES})
    box.lower({"/d/f": "below", "/d/g": "below", "/d/h": "below"})
    assert box.tree() == {"/d/g": "above", "/d/h": "below"}


@pytest.mark.parametrize(
    "node",
    [file("data", marks={"whiteout": b""}), symlink("f", marks={"whiteout": b""}), fifo(marks={"whiteout": b""})],
    ids=["file with data", "symlink", "fifo"],
)
def test_a_mark_on_anything_but_an_empty_file_hides_nothing(box, node):
    if not isinstance(node, type(HIDES)):
        # Marks of the user namespace are spelt user.*, which only files and directories hold.
        box.require_root()
    box.lower({"/d/": HAS_SOME, "/d/f": node})
    box.lower({"/d/f": "x", "/d/g": "y"})
    assert sorted(box.os.listdir("/d")) == ["f", "g"]
    box.os.lstat("/d/f")


@pytest.mark.parametrize("value", [b"", b"n"])
@pytest.mark.parametrize(
    ("marked", "where"), [(False, "lower"), (False, "upper"), (True, "upper")], ids=["lower", "upper", "marked upper"]
)
def test_a_marked_file_where_none_is_announced_is_absent_and_still_listed(box, value, marked, where):
    """What Linux saves is a look at every file of a listing; the mark on a directory counts in lowers only."""
    tree = {"/d/f": file(marks={"whiteout": value}), **({"/d/": HAS_SOME} if marked else {})}
    if where == "lower":
        box.lower(tree)
    box.lower({"/d/f": "1", "/d/g": "2"})
    box.upper(tree if where == "upper" else {})
    assert sorted(box.os.listdir("/d")) == ["f", "g"]
    with raises_errno(errno.ENOENT):
        box.os.lstat("/d/f")


@pytest.mark.parametrize("where", ["lower", "upper"])
def test_creating_over_a_marked_file_is_creating_over_a_whiteout(box, where):
    box.lower({"/d/f/below": "1", "/d/g": "2"} if where == "upper" else {"/d/": HAS_SOME, "/d/f": HIDES})
    box.lower({"/d/f/below": "1", "/d/g": "2"})
    box.upper({"/d/f": HIDES} if where == "upper" else {})
    box.os.mkdir("/d/f")
    assert box.tree() == {"/d/f/": DIR, "/d/g": "2"}
    assert box.upper_tree() == {"/d/f/": directory(opaque=True) if where == "upper" else DIR}


def test_the_mark_that_announces_whiteouts_is_not_copied_up(box):
    box.lower({"/d/": HAS_SOME, "/d/f": HIDES, "/d/g": "2"})
    box.lower({"/d/f": "1"})
    box.os.chmod("/d/g", 0o600)
    assert box.upper_tree() == {"/d/g": file("2", mode=0o600)}
    assert box.os.listdir("/d") == ["g"]


@pytest.mark.parametrize("below", [{}, {"/d/f": "hidden"}], ids=["of one layer", "merged"])
def test_an_announced_whiteout_never_keeps_a_directory_from_being_removed(box, below):
    box.lower({"/d/": HAS_SOME, "/d/f": HIDES})
    box.lower(below)
    if box.is_kernel:
        # A difference on purpose: Linux looks for them only when a merged directory is listed.
        with raises_errno(errno.ENOTEMPTY):
            box.os.rmdir("/d")
        return
    assert box.os.listdir("/d") == []
    box.os.rmdir("/d")
    assert box.upper_tree() == {"/d": WHITEOUT}


def test_opaque_x_does_not_make_a_directory_opaque(box):
    box.lower({"/d/": directory(marks={"opaque": b"x"}), "/d/f": "1"})
    box.lower({"/d/g": "2"})
    assert box.tree()["/d/g"] == "2"


def test_a_removed_tree_is_one_whiteout(box):
    box.lower({"/d/a/b/c": "1", "/d/a/f": "2", "/d/g": "3"})
    for path in ("/d/a/b/c", "/d/a/f", "/d/g"):
        box.os.unlink(path)
    for path in ("/d/a/b", "/d/a", "/d"):
        box.os.rmdir(path)
    assert box.upper_tree() == {"/d": WHITEOUT}


def test_whiteouts_survive_a_new_mount(box):
    box.lower({"/d/f": "x", "/e/g": "y"})
    box.os.unlink("/d/f")
    box.os.unlink("/e/g")
    box.os.rmdir("/e")
    box.remount()
    assert box.tree() == {"/d/": DIR}
