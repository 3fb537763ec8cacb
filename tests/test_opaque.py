"""Opaque directories (KB 4; overlayfs.rst, "whiteouts and opaque directories")."""

import pytest

from overlayvfs.testing import DIR, WHITEOUT, directory

OPAQUE = directory(opaque=True)
FEATURES = [{"redirect_dir": "on"}, {"index": True}, {"metacopy": True}, {"xino": "on"}]


@pytest.mark.parametrize("hidden", [{"/x": "file"}, {"/x/c": "in a dir"}], ids=["file", "dir"])
@pytest.mark.parametrize("options", [{}, {"redirect_dir": "follow"}, *FEATURES], ids=str)
def test_mkdir_over_a_whiteout_is_opaque(box, hidden, options):
    box.lower(hidden)
    box.upper({"/x": WHITEOUT})
    box.mount(**options)
    box.os.mkdir("/x")
    assert box.upper_tree() == {"/x/": OPAQUE}
    assert box.tree() == {"/x/": DIR}


@pytest.mark.parametrize("redirect_dir", ["off", "follow", "nofollow"])
def test_mkdir_of_an_absent_name_is_not_marked(box, redirect_dir):
    box.lower({"/d/f": "x"})
    box.mount(redirect_dir=redirect_dir)
    box.os.mkdir("/new")
    box.os.mkdir("/d/new")
    assert box.upper_tree() == {"/d/new/": DIR, "/new/": DIR}


@pytest.mark.parametrize("options", FEATURES, ids=str)
def test_mkdir_of_an_absent_name_with_a_feature_on_is_opaque_in_a_merged_parent(box, options):
    box.lower({"/d/f": "x"})
    box.mount(**options)
    box.os.mkdir("/new")
    box.os.mkdir("/d/new")
    box.os.mkdir("/new/inner")
    assert box.upper_tree() == {"/d/new/": OPAQUE, "/new/": OPAQUE, "/new/inner/": DIR}


def test_mkdir_over_a_whiteout_of_a_lower_is_not_marked(box):
    box.lower({"/x": WHITEOUT})
    box.lower({"/x/c": "hidden"})
    box.os.mkdir("/x")
    assert box.upper_tree() == {"/x/": DIR}
    assert box.tree() == {"/x/": DIR}


@pytest.mark.parametrize("target", ["/a2", "/merged/a"])
def test_a_moved_pure_upper_directory_becomes_opaque_in_a_merged_parent(box, target):
    box.lower({"/merged/f": "x"})
    box.upper({"/a/": DIR})
    box.os.rename("/a", target)
    assert box.upper_tree() == {f"{target}/": OPAQUE}


def test_a_directory_moved_into_a_pure_upper_parent_is_not_marked(box):
    box.lower({})
    box.upper({"/a/": DIR, "/b/": DIR})
    box.os.rename("/a", "/b/a")
    assert box.upper_tree() == {"/b/a/": DIR}


def test_an_opaque_directory_stays_so_wherever_it_moves(box):
    box.lower({"/a/f": "hidden"})
    box.upper({"/a/": OPAQUE, "/b/": DIR})
    box.os.rename("/a", "/b/a")
    assert box.upper_tree() == {"/a": WHITEOUT, "/b/a/": OPAQUE}


@pytest.mark.parametrize("value", [b"n", b"", b"yes", b"x"])
def test_only_y_means_opaque(box, value):
    box.lower({"/d/f": "shown"})
    box.upper({"/d/": directory(marks={"opaque": value})})
    assert box.tree() == {"/d/f": "shown"}


def test_an_opaque_directory_in_a_middle_lower_hides_what_is_below(box):
    box.lower({"/d/one": "1"})
    box.lower({"/d/": OPAQUE, "/d/two": "2"})
    box.lower({"/d/three": "3"})
    box.upper({"/d/zero": "0"})
    assert box.tree() == {"/d/one": "1", "/d/two": "2", "/d/zero": "0"}


def test_opaque_wins_over_redirect(box):
    box.lower({"/d/f": "x"})
    box.upper({"/n/": directory(opaque=True, redirect="/d")})
    assert box.os.listdir("/n") == []


def test_a_recreated_directory_hides_the_old_tree_at_every_depth(box):
    box.lower({"/d/e/f": "1", "/d/g": "2"})
    box.os.unlink("/d/e/f")
    box.os.rmdir("/d/e")
    box.os.mkdir("/d/e")
    box.os.mkdir("/d/e/e")
    assert box.tree() == {"/d/e/e/": DIR, "/d/g": "2"}
    assert box.upper_tree() == {"/d/e/": OPAQUE, "/d/e/e/": DIR}


def test_opaque_survives_a_new_mount(box):
    box.lower({"/d/f": "hidden"})
    box.upper({"/d": WHITEOUT})
    box.os.mkdir("/d")
    box.remount()
    assert box.tree() == {"/d/": DIR}
