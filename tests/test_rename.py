"""Renaming (KB 9, 4.5; overlayfs.rst, "renaming directories")."""

import errno
import os

import pytest

from overlayvfs.testing import DIR, WHITEOUT, Slot, call, directory, file, hardlink, raises_errno, symlink
from overlayvfs.testing.states import arranged

NOREPLACE, EXCHANGE, LEAVE_WHITEOUT = 1, 2, 4
OPAQUE = directory(opaque=True)
LOWER = {"/f": "f", "/g": "g", "/d/a/": DIR, "/d/c": "c", "/e/": DIR, "/s": symlink("f"), "/sd": symlink("d")}


@pytest.mark.parametrize(
    ("src", "dst", "error"),
    [
        ("/missing", "/n", "ENOENT"),
        ("/f", "/missing/n", "ENOENT"),
        ("/f", "", "ENOENT"),
        ("", "/n", "ENOENT"),
        ("/f/x", "/n", "ENOTDIR"),
        ("/f", "/g/n", "ENOTDIR"),
        ("/f", "/" + "n" * 256, "ENAMETOOLONG"),
        ("/d/.", "/n", "EBUSY"),
        ("/d/..", "/n", "EBUSY"),
        ("/", "/n", "EBUSY"),
        ("/f", "/d/.", "EBUSY"),
        ("/f", "/", "EBUSY"),
        ("/d", "/d/x", "EINVAL"),
        ("/d", "/d/a", "EINVAL"),
        ("/d/a", "/d", "ENOTEMPTY"),
        ("/d", "/f", "ENOTDIR"),
        ("/d", "/s", "ENOTDIR"),
        ("/f", "/d", "EISDIR"),
        ("/f", "/e", "EISDIR"),
        ("/f", "/n/", "ENOTDIR"),
        ("/f/", "/n", "ENOTDIR"),
        ("/sd/", "/n", "ENOTDIR"),
        ("/d", "/n", "EXDEV"),
        ("/d", "/e", "EXDEV"),
        ("/e", "/d", "EXDEV"),
        ("/e/", "/n/", "EXDEV"),
        ("/f", "/f", None),
        ("/d", "/d", None),
        ("/f", "/g", None),
        ("/s", "/n", None),
        ("/sd", "/n", None),
        ("/sd/c", "/n", None),
    ],
    ids=lambda value: str(value)[:12],
)
def test_order_of_checks(box, src, dst, error):
    box.lower(LOWER)
    before = box.tree()
    assert box.run([call("rename", src, dst)])[0].error == error
    if error:
        assert box.tree() == before
        assert box.upper_tree() == {}


def test_rename_lower_dir_without_redirect_is_exdev(box):
    box.lower({"/d/f": "x"})
    with raises_errno(errno.EXDEV):
        box.os.rename("/d", "/e")
    assert box.tree() == {"/d/f": "x"}


def test_rename_of_a_merged_directory_is_exdev_even_if_all_is_whited_out(box):
    box.lower({"/d/f": "x"})
    box.upper({"/d/f": WHITEOUT})
    with raises_errno(errno.EXDEV):
        box.os.rename("/d", "/e")
    assert box.tree() == {"/d/": DIR}


@pytest.mark.parametrize("redirect_dir", ["off", "follow", "nofollow"])
def test_rename_of_a_lower_directory_onto_a_full_one_is_exdev(box, redirect_dir):
    box.lower({"/d/f": "x", "/e/g": "y"})
    box.mount(redirect_dir=redirect_dir)
    with raises_errno(errno.EXDEV):
        box.os.rename("/d", "/e")


def test_rename_of_a_lower_directory_onto_a_full_one_with_redirect_is_enotempty(box):
    box.lower({"/d/f": "x", "/e/g": "y"})
    box.mount(redirect_dir="on")
    with raises_errno(errno.ENOTEMPTY):
        box.os.rename("/d", "/e")
    assert box.tree() == {"/d/f": "x", "/e/g": "y"}


def test_rename_of_a_lower_file_leaves_a_whiteout_and_a_copy(box):
    box.lower({"/d/f": file("x", mode=0o600), "/e/": DIR})
    box.os.rename("/d/f", "/e/g")
    assert box.tree() == {"/d/": DIR, "/e/g": file("x", mode=0o600)}
    assert box.upper_tree() == {"/d/f": WHITEOUT, "/e/g": file("x", mode=0o600)}


def test_rename_over_whiteout_replaces_it(box):
    box.lower({"/f": "x", "/g": "y"})
    box.upper({"/g": WHITEOUT})
    box.os.rename("/f", "/g")
    assert box.upper_tree() == {"/f": WHITEOUT, "/g": "x"}


def test_rename_onto_a_lower_file_covers_it_without_copying_it(box):
    box.lower({"/f": "new", "/g": "old"})
    box.os.rename("/f", "/g")
    assert box.tree() == {"/g": "new"}
    assert box.upper_tree() == {"/f": WHITEOUT, "/g": "new"}


def test_rename_there_and_back_again_leaves_no_whiteout(box):
    box.lower({"/f": "x"})
    box.os.rename("/f", "/g")
    box.os.rename("/g", "/f")
    assert box.upper_tree() == {"/f": "x"}


def test_rename_of_a_symlink_moves_the_symlink(box):
    box.lower({"/f": "x", "/s": symlink("f")})
    box.os.rename("/s", "/s2")
    assert box.tree() == {"/f": "x", "/s2": symlink("f")}


@pytest.mark.parametrize(
    "target", ["lower dir, empty", "merged dir, all whited out", "opaque dir over lower dir, empty"]
)
def test_rename_of_a_pure_upper_directory_onto_what_shows_empty_makes_it_opaque(box, target):
    layers = arranged(target)
    box.lower(layers.lower)
    box.upper({**layers.upper, "/new/f": "x"})
    box.os.rename("/new", "/x")
    assert box.tree() == {"/x/f": "x"}
    assert box.upper_tree() == {"/x/": OPAQUE, "/x/f": "x"}


def test_rename_of_an_upper_directory_takes_everything_below_along(box):
    box.require_kept_upper()
    box.lower({"/f": "x"})
    box.os.makedirs("/a/b")
    box.os.rename("/f", "/a/b/f")
    box.os.rename("/a", "/z")
    assert box.tree() == {"/z/b/f": "x"}
    box.write("/z/b/f", b"y")
    box.os.rename("/z/b", "/b")
    assert box.tree() == {"/b/f": "y", "/z/": DIR}


def test_a_failed_rename_onto_a_full_upper_directory_leaves_the_mark_it_had_made(box):
    # Linux leaves the check for emptiness to the upper's rename, and by then the source is opaque.
    box.lower({})
    box.upper({"/a/f": "x", "/b/g": "y"})
    with raises_errno(errno.ENOTEMPTY):
        box.os.rename("/a", "/b")
    assert box.tree() == {"/a/f": "x", "/b/g": "y"}
    assert box.upper_tree() == {"/a/": OPAQUE, "/a/f": "x", "/b/g": "y"}


def test_rename_between_two_upper_hard_links_does_nothing(box):
    box.lower({})
    box.upper({"/f": "x", "/g": hardlink("/f")})
    box.os.rename("/f", "/g")
    assert box.tree() == {"/f": "x", "/g": hardlink("/f")}


def test_rename_between_two_lower_hard_links_is_carried_out(box):
    box.lower({"/f": "x", "/g": hardlink("/f")})
    box.os.rename("/f", "/g")
    assert box.upper_tree() == {"/f": WHITEOUT, "/g": "x"}


def test_rename_between_two_lower_hard_links_with_index_does_nothing(box):
    box.lower({"/f": "x", "/g": hardlink("/f")})
    box.mount(index=True)
    box.os.rename("/f", "/g")
    assert sorted(box.os.listdir("/")) == ["f", "g"]


def test_an_open_file_follows_its_object_and_not_its_name(box):
    box.lower({"/f": "lower"})
    reader = box.os.open("/f", os.O_RDONLY)
    box.os.rename("/f", "/g")
    box.write("/g", b"newer", os.O_WRONLY)
    box.write("/f", b"other")
    assert box.os.read(reader, 10) == b"newer"
    assert box.os.fstat(reader).st_ino == box.os.stat("/g").st_ino


@pytest.mark.parametrize(
    ("src", "dst", "flags", "error"),
    [
        ("/f", "/g", NOREPLACE, "EEXIST"),
        ("/f", "/f", NOREPLACE, "EEXIST"),
        ("/f", "/e", NOREPLACE, "EEXIST"),
        ("/f", "/new", NOREPLACE, None),
        ("/missing", "/g", NOREPLACE, "ENOENT"),
        ("/d", "/new", NOREPLACE, "EXDEV"),
        ("/f", "/g", EXCHANGE, None),
        ("/f", "/s", EXCHANGE, None),
        ("/f", "/new", EXCHANGE, "ENOENT"),
        ("/missing", "/f", EXCHANGE, "ENOENT"),
        ("/f", "/d", EXCHANGE, "EXDEV"),
        ("/d", "/f", EXCHANGE, "EXDEV"),
        ("/d", "/d/a", EXCHANGE, "EINVAL"),
        ("/d/a", "/d", EXCHANGE, "EINVAL"),
        ("/f", "/g", LEAVE_WHITEOUT, "EINVAL"),
        ("/f", "/g", NOREPLACE | EXCHANGE, "EINVAL"),
        ("/f", "/g", 8, "EINVAL"),
        ("/f", "/g", 0, None),
    ],
)
def test_flags_of_renameat2(box, src, dst, flags, error):
    box.lower(LOWER)
    assert box.run([call("renameat2", src, dst, flags)])[0].error == error


def test_noreplace_over_a_whiteout_is_a_plain_rename(box):
    box.lower({"/f": "x", "/g": "y"})
    box.upper({"/g": WHITEOUT})
    box.os.renameat2("/f", "/g", NOREPLACE)
    assert box.upper_tree() == {"/f": WHITEOUT, "/g": "x"}


def test_exchange_with_a_whited_out_name_is_enoent(box):
    box.lower({"/f": "x", "/g": "y"})
    box.upper({"/g": WHITEOUT})
    with raises_errno(errno.ENOENT):
        box.os.renameat2("/f", "/g", EXCHANGE)
    assert box.tree() == {"/f": "x"}


def test_exchange_of_lower_files_copies_both_up_without_whiteouts(box):
    box.lower({"/d/f": "f", "/e/g": "g"})
    box.os.renameat2("/d/f", "/e/g", EXCHANGE)
    assert box.upper_tree() == {"/d/f": "g", "/e/g": "f"}


def test_exchange_of_an_upper_directory_with_a_lower_file_makes_it_opaque(box):
    box.lower({"/f": "x"})
    box.upper({"/d/c": "c"})
    box.os.renameat2("/d", "/f", EXCHANGE)
    assert box.upper_tree() == {"/d": "x", "/f/": OPAQUE, "/f/c": "c"}


def test_exchange_with_redirect_redirects_both_directories(box):
    box.lower({"/d/a": "a", "/e/b": "b"})
    box.mount(redirect_dir="on")
    box.os.renameat2("/d", "/e", EXCHANGE)
    assert box.tree() == {"/d/b": "b", "/e/a": "a"}
    assert box.upper_tree() == {"/d/": directory(redirect="e"), "/e/": directory(redirect="d")}


def test_rename_into_a_lower_directory_copies_that_directory_up(box):
    box.lower({"/a/b/": directory(mode=0o700), "/f": "x"})
    box.os.rename("/f", "/a/b/f")
    assert box.upper_tree() == {"/a/b/": directory(mode=0o700), "/a/b/f": "x", "/f": WHITEOUT}


def test_descriptors_of_a_replaced_file_keep_its_data(box):
    box.lower({"/f": "new", "/g": "old"})
    outcomes = box.run([call("open", "/g", os.O_RDONLY, slot=0), call("rename", "/f", "/g"), call("read", Slot(0), 9)])
    assert outcomes[2].value == b"old"
