"""Hard links of a lower kept over copy up: the index (KB 11.6 to 11.14)."""

import errno
import os

import pytest

from overlayvfs.testing import WHITEOUT, hardlink, raises_errno

PAIR = {"/x": "old", "/y": hardlink("/x")}
THREE = {**PAIR, "/z": hardlink("/x")}


def indexed(box, lower):
    # The user namespace's mount takes no index.
    box.require_root()
    box.lower(lower)
    box.mount(index="on")
    return box


def links(box, *paths):
    return [box.os.lstat(path).st_nlink for path in paths]


def identities(box, *paths):
    return {(st.st_dev, st.st_ino) for st in (box.os.lstat(path) for path in paths)}


def nlink_mark(box, path):
    return dict(box.snapshot("upper")[path].marks).get("nlink")


def test_a_write_to_one_name_shows_through_all(box):
    indexed(box, THREE)
    before = identities(box, "/x", "/y", "/z")
    box.write("/y", b"new", os.O_WRONLY)
    assert [box.read(path) for path in THREE] == [b"new"] * 3
    assert links(box, *THREE) == [3, 3, 3]
    assert identities(box, *THREE) == before


def test_only_the_name_that_was_touched_comes_up(box):
    indexed(box, THREE)
    box.os.chmod("/y", 0o600)
    assert list(box.upper_tree()) == ["/y"]
    assert [box.os.lstat(path).st_mode & 0o777 for path in THREE] == [0o600] * 3


@pytest.mark.parametrize(
    ("lower", "touched", "mark"),
    [
        (PAIR, ["/x"], b"U+0"),
        (THREE, ["/x"], b"U+1"),
        (PAIR, ["/x", "/y"], b"U-1"),
        ({"/x": "alone"}, ["/x"], None),
    ],
    ids=["one of 2", "one of 3", "both of 2", "the only one"],
)
def test_the_nlink_mark_tells_how_many_names_the_upper_lacks(box, lower, touched, mark):
    indexed(box, lower)
    for path in touched:
        box.write(path, b"", os.O_WRONLY)
    assert nlink_mark(box, touched[-1]) == mark
    assert links(box, *lower) == [len(lower)] * len(lower)


def test_links_made_and_removed_in_the_upper_leave_the_mark_alone(box):
    indexed(box, PAIR)
    box.write("/x", b"", os.O_WRONLY)
    before = nlink_mark(box, "/x")
    box.os.link("/x", "/n")
    assert (nlink_mark(box, "/x"), links(box, "/x", "/y", "/n")) == (before, [3, 3, 3])
    box.os.unlink("/n")
    assert (nlink_mark(box, "/x"), links(box, "/x", "/y")) == (before, [2, 2])


@pytest.mark.parametrize("touched", [True, False])
def test_unlink_of_one_name_leaves_a_whiteout_and_one_link_less(box, touched):
    indexed(box, THREE)
    if touched:
        box.os.chmod("/x", 0o600)
    box.os.unlink("/x")
    assert box.upper_tree() == {"/x": WHITEOUT}
    assert links(box, "/y", "/z") == [2, 2]
    assert box.read("/y") == b"old"


def test_rename_of_one_name_keeps_it_with_the_others(box):
    indexed(box, THREE)
    before = identities(box, "/x")
    box.os.rename("/x", "/moved")
    assert links(box, "/moved", "/y", "/z") == [3, 3, 3]
    assert identities(box, "/moved", "/y", "/z") == before
    box.write("/z", b"new", os.O_WRONLY)
    assert box.read("/moved") == b"new"


def test_the_last_name_takes_all_with_it(box):
    indexed(box, PAIR)
    box.write("/x", b"new", os.O_WRONLY)
    box.os.unlink("/x")
    box.os.unlink("/y")
    assert box.upper_tree() == {"/x": WHITEOUT, "/y": WHITEOUT}
    assert box.tree() == {}


def test_a_link_of_a_file_with_one_name_needs_no_index(box):
    indexed(box, {"/f": "x"})
    box.os.link("/f", "/g")
    assert box.upper_tree() == {"/f": "x", "/g": hardlink("/f")}
    assert (links(box, "/f", "/g"), nlink_mark(box, "/f")) == ([2, 2], None)


def test_all_this_outlasts_the_mount(box):
    indexed(box, THREE)
    box.write("/x", b"new", os.O_WRONLY)
    box.os.unlink("/y")
    before = identities(box, "/x", "/z")
    box.remount()
    assert (box.read("/z"), links(box, "/x", "/z"), len(before)) == (b"new", [2, 2], 1)
    assert len(identities(box, "/x", "/z")) == 1
    assert "/z" not in box.upper_tree()


def test_failing_to_link_over_a_name_copies_nothing_up(box):
    indexed(box, PAIR)
    with raises_errno(errno.EEXIST):
        box.os.link("/x", "/y")
    assert box.upper_tree() == {}
