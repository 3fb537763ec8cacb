"""Removing: unlink and rmdir (KB 8, 18)."""

import errno
import os

import pytest

from overlayvfs.testing import DIR, WHITEOUT, call, directory, hardlink, raises_errno, symlink
from overlayvfs.testing.states import arranged

LOWER = {"/d/f": "x", "/e/": DIR, "/s": symlink("d/f"), "/sd": symlink("e"), "/dangling": symlink("nowhere")}


@pytest.mark.parametrize(
    ("op", "error"),
    [
        (call("unlink", "/d"), "EISDIR"),
        (call("unlink", "/e"), "EISDIR"),
        (call("unlink", "/"), "EISDIR"),
        (call("unlink", "/d/."), "EISDIR"),
        (call("unlink", "/d/.."), "EISDIR"),
        (call("unlink", "/d/f/"), "ENOTDIR"),
        (call("unlink", "/s/"), "ENOTDIR"),
        (call("unlink", "/sd/"), "ENOTDIR"),
        (call("unlink", "/missing"), "ENOENT"),
        (call("unlink", "/missing/f"), "ENOENT"),
        (call("unlink", "/d/f/g"), "ENOTDIR"),
        (call("unlink", ""), "ENOENT"),
        (call("unlink", "/" + "n" * 256), "ENAMETOOLONG"),
        (call("unlink", "/s"), None),
        (call("unlink", "/sd"), None),
        (call("unlink", "/dangling"), None),
        (call("rmdir", "/"), "EBUSY"),
        (call("rmdir", "/d"), "ENOTEMPTY"),
        (call("rmdir", "/d/f"), "ENOTDIR"),
        (call("rmdir", "/s"), "ENOTDIR"),
        (call("rmdir", "/sd"), "ENOTDIR"),
        (call("rmdir", "/sd/"), "ENOTDIR"),
        (call("rmdir", "/e/."), "EINVAL"),
        (call("rmdir", "/e/.."), "ENOTEMPTY"),
        (call("rmdir", "/missing"), "ENOENT"),
        (call("rmdir", "/e/"), None),
        (call("rmdir", "/e"), None),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_errors_of_removing(box, op, error):
    box.lower(LOWER)
    assert box.run([op])[0].error == error


def test_unlink_removes_the_symlink_and_not_its_target(box):
    box.lower({"/f": "x", "/s": symlink("f")})
    box.os.unlink("/s")
    assert box.tree() == {"/f": "x"}


@pytest.mark.parametrize(
    ("state", "left"),
    [
        ("upper dir, empty", {}),
        ("lower dir, empty", {"/x": WHITEOUT}),
        ("merged dir, empty", {"/x": WHITEOUT}),
        ("merged dir, all whited out", {"/x": WHITEOUT}),
        ("opaque dir over lower dir, empty", {"/x": WHITEOUT}),
        ("upper dir over lower file", {"/x": WHITEOUT}),
    ],
)
def test_rmdir_of_what_shows_empty_leaves_what_hides_the_rest(box, state, left):
    layers = arranged(state)
    box.lower(layers.lower)
    box.upper(layers.upper)
    box.os.rmdir("/x")
    assert box.upper_tree() == left
    assert box.tree() == {}


@pytest.mark.parametrize(
    "state",
    ["upper dir, non-empty", "lower dir, non-empty", "merged dir, non-empty", "opaque dir over lower dir, non-empty"],
)
def test_rmdir_of_what_shows_a_name_is_enotempty_and_changes_nothing(box, state):
    layers = arranged(state)
    box.lower(layers.lower)
    box.upper(layers.upper)
    before = box.tree()
    with raises_errno(errno.ENOTEMPTY):
        box.os.rmdir("/x")
    assert box.tree() == before


def test_a_recreated_directory_is_opaque_empty_and_unmerged(box):
    box.lower({"/d/": DIR})
    box.os.rmdir("/d")
    box.os.mkdir("/d")
    assert box.os.listdir("/d") == []
    assert box.os.stat("/d").st_nlink == 2
    assert box.upper_tree() == {"/d/": directory(opaque=True)}


def test_removing_one_hard_link_leaves_the_other(box):
    box.lower({"/f": "x", "/g": hardlink("/f")})
    box.os.unlink("/f")
    assert box.read("/g") == b"x"
    assert box.upper_tree() == {"/f": WHITEOUT}


def test_an_open_file_outlives_its_name(box):
    box.lower({"/f": "lower"})
    box.upper({"/g": "upper"})
    one, two = box.os.open("/f", os.O_RDWR), box.os.open("/g", os.O_RDWR)
    box.os.unlink("/f")
    box.os.unlink("/g")
    box.os.write(one, b"LO")
    box.os.write(two, b"UP")
    assert (box.os.pread(one, 9, 0), box.os.pread(two, 9, 0)) == (b"LOwer", b"UPper")
    assert (box.os.fstat(one).st_nlink, box.os.fstat(two).st_nlink) == (0, 0)
    assert box.upper_tree() == {"/f": WHITEOUT}


def test_whiteouts_inside_a_removed_directory_go_with_it(box):
    box.lower({"/d/a": "1", "/d/b": "2"})
    box.os.unlink("/d/a")
    box.os.unlink("/d/b")
    assert box.upper_tree() == {"/d/a": WHITEOUT, "/d/b": WHITEOUT}
    box.os.rmdir("/d")
    assert box.upper_tree() == {"/d": WHITEOUT}


def test_removing_needs_no_whiteout_where_nothing_is_below(box):
    box.lower({})
    box.write("/f", b"x")
    box.os.mkdir("/d")
    box.os.unlink("/f")
    box.os.rmdir("/d")
    assert box.upper_tree() == {}
