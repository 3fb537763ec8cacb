"""What the lockstep found once: every disagreement with the kernel stays a test, named for what it showed."""

import errno
import os
import stat

import pytest

from overlayvfs.abi import RENAME_EXCHANGE
from overlayvfs.testing import DIR, FRESH, WHITEOUT, call, directory, file, hardlink, raises_errno, symlink


def is_fresh(box, path):
    return box.os.lstat(path).st_mtime_ns >= FRESH


# Renaming.


def test_rename_of_a_directory_over_a_whiteout_replaces_it(box):
    box.lower({"/gone": "x"})
    box.upper({"/d/f": "y", "/gone": WHITEOUT})
    box.os.rename("/d", "/gone")
    assert box.tree() == {"/gone/f": "y"}
    assert box.upper_tree() == {"/gone/": directory(opaque=True), "/gone/f": "y"}


def test_rename_over_a_whiteout_that_leaves_one_swaps_the_two(box):
    box.lower({"/f": "x", "/gone": "y"})
    box.upper({"/gone": WHITEOUT})
    box.os.rename("/f", "/gone")
    assert box.tree() == {"/gone": "x"}
    assert box.upper_tree() == {"/f": WHITEOUT, "/gone": "x"}


def test_rename_refused_by_a_full_upper_directory_leaves_the_source_opaque(box):
    box.lower({"/l": "x"})
    box.upper({"/d/": DIR, "/full/f": "y"})
    with raises_errno(errno.ENOTEMPTY):
        box.os.rename("/d", "/full")
    assert box.upper_tree() == {"/d/": directory(opaque=True), "/full/f": "y"}


def test_whiteout_left_by_rename_has_the_group_of_a_setgid_parent(box):
    box.require_root()
    box.lower({"/d/": directory(mode=0o2775, gid=5), "/d/f": "x"})
    box.os.rename("/d/f", "/f")
    left = box.snapshot("upper")["/d/f"]
    assert (left.kind, left.uid, left.gid) == ("whiteout", 0, 5)


def test_rename_of_a_lower_hard_link_onto_the_other_is_carried_out(box):
    box.lower({"/x": "x", "/y": hardlink("/x")})
    box.os.rename("/x", "/y")
    assert box.tree() == {"/y": "x"}


# Times.


@pytest.mark.parametrize(("has", "size", "fresh"), [("", 0, False), ("abc", 3, True), ("abc", 0, True), ("", 3, True)])
@pytest.mark.parametrize("layer", ["lower", "upper"])
def test_truncate_to_the_same_size_keeps_the_mtime_of_an_empty_file_only(box, layer, has, size, fresh):
    getattr(box, layer)({"/f": has})
    if layer == "upper":
        box.lower({})
    box.os.truncate("/f", size)
    assert is_fresh(box, "/f") == fresh


@pytest.mark.parametrize("has", ["", "abc"])
@pytest.mark.parametrize("mode", [os.O_RDONLY, os.O_WRONLY])
def test_opening_with_o_trunc_always_makes_the_mtime_fresh(box, mode, has):
    box.lower({"/f": has})
    box.os.close(box.os.open("/f", mode | os.O_TRUNC))
    assert is_fresh(box, "/f")


def test_ftruncate_to_the_same_size_makes_the_mtime_fresh(box):
    box.lower({"/f": ""})
    fd = box.os.open("/f", os.O_WRONLY)
    box.os.ftruncate(fd, 0)
    box.os.close(fd)
    assert is_fresh(box, "/f")


# Descriptors.


def test_empty_write_with_o_append_does_not_move_the_position(box):
    box.lower({"/f": "abc"})
    fd = box.os.open("/f", os.O_RDWR | os.O_APPEND)
    written = box.os.write(fd, b"")
    seen = box.os.read(fd, 10)
    box.os.close(fd)
    assert (written, seen) == (0, b"abc")


@pytest.mark.parametrize(("name", "args"), [("pread", (1, -1)), ("pwrite", (b"x", -1)), ("ftruncate", (-1,))])
def test_a_negative_offset_or_length_is_einval_before_a_bad_descriptor_is_ebadf(box, name, args):
    box.lower({"/f": "x"})
    fd = box.os.open("/f", os.O_RDONLY)
    box.os.close(fd)
    with raises_errno(errno.EINVAL):
        getattr(box.os, name)(fd, *args)


def open_and_remove(box, *paths):
    """Return a descriptor of the first path, after all of them were removed in this order."""
    fd = box.os.open(paths[0], os.O_RDONLY)
    for path in paths:
        is_dir = stat.S_ISDIR(box.os.lstat(path).st_mode)
        (box.os.rmdir if is_dir else box.os.unlink)(path)
    return fd


@pytest.mark.parametrize(
    ("lower", "removed", "number"),
    [
        ({"/f": "x"}, ["/f"], errno.EEXIST),
        ({"/d/": DIR}, ["/d"], errno.ENOTDIR),
        ({"/p/f": "x"}, ["/p/f", "/p"], errno.ENOENT),
        ({"/p/d/": DIR}, ["/p/d", "/p"], errno.EIO),
    ],
)
def test_changing_what_was_removed_before_it_was_copied_up_tells_what_is_in_the_way(box, lower, removed, number):
    box.lower(lower)
    fd = open_and_remove(box, *removed)
    with raises_errno(number):
        box.os.fchmod(fd, 0o600)
    box.os.close(fd)


def test_changing_a_removed_directory_whose_name_a_full_one_has_is_enotempty(box):
    box.lower({"/d/": DIR})
    fd = open_and_remove(box, "/d")
    box.os.mkdir("/d")
    box.os.mkdir("/d/sub")
    with raises_errno(errno.ENOTEMPTY):
        box.os.fchmod(fd, 0o700)
    box.os.close(fd)


# Redirects.


def test_a_directory_that_two_names_lead_to_is_stale_at_the_second(box):
    box.lower({"/a/f": "x"})
    box.upper({"/r/": directory(redirect="/a")})
    box.mount(redirect_dir="follow")
    box.os.lstat("/a")
    with raises_errno(errno.ESTALE):
        box.os.lstat("/r")


def test_a_merged_directory_does_not_list_a_stale_name_where_it_looks_numbers_up(box):
    box.lower({"/a/f": "x", "/l": "y"})
    # Entries of an impure directory are looked up for their numbers; what can't be is left out.
    box.upper({"/r/": directory(redirect="/a"), "/": directory(marks={"impure": b"y"})})
    box.mount(redirect_dir="follow", separate=False)
    box.os.lstat("/a")
    assert sorted(box.os.listdir("/")) == ["a", "l"]


# Attributes.


def test_setxattr_on_an_indexed_hard_link_does_not_bring_its_name_up(box):
    box.lower({"/x": "x", "/y": hardlink("/x")})
    box.mount(index=True)
    box.os.setxattr("/x", "user.k", b"v")
    box.os.setxattr("/y", "user.q", b"w")
    assert box.os.getxattr("/x", "user.q") == b"w"
    assert "/y" not in box.upper_tree()


@pytest.mark.parametrize("gone", ["removed", "replaced"])
def test_fsetxattr_on_an_indexed_hard_link_does_not_bring_its_name_up(box, gone):
    box.lower({"/x": "x", "/y": hardlink("/x"), "/s": "s"})
    box.mount(index=True)
    box.os.unlink("/x") if gone == "removed" else box.os.rename("/s", "/x")
    fd = box.os.open("/y", os.O_RDONLY)
    box.os.setxattr(fd, "user.q", b"w")
    assert box.os.getxattr("/y", "user.q") == b"w"
    assert "/y" not in box.upper_tree()


def test_fchmod_on_an_indexed_hard_link_brings_its_own_name_up(box):
    box.lower({"/x": "x", "/d/y": hardlink("/x")})
    box.mount(index=True)
    fd = box.os.open("/d/y", os.O_RDONLY)
    box.os.chmod("/x", 0o600)
    assert "/d/y" not in box.upper_tree()
    box.os.fchmod(fd, 0o640)
    assert box.upper_tree()["/x"] == hardlink("/d/y")


def test_metacopy_names_of_one_file_share_whether_it_has_data(box):
    box.require_kept_upper()
    box.lower({"/f": "abc"})
    box.mount(metacopy=True, redirect_dir="on")
    box.os.link("/f", "/g", follow_symlinks=False)
    box.write("/g", b"D", os.O_WRONLY)
    assert (box.read("/f"), box.read("/g")) == (b"Dbc", b"Dbc")


def impure(box, path):
    """Return the impure mark of an upper directory."""
    node = box.upper_tree(impure=True).get(path + "/")
    return None if node is None else node.marks.get("impure")


def test_a_broken_hard_link_moved_elsewhere_makes_no_directory_impure(box):
    box.lower({"/a/x": "x", "/a/y": hardlink("/a/x")})
    box.mount(metacopy=True, redirect_dir="on")
    box.os.mkdir("/d")
    box.os.rename("/a/x", "/d/x")
    assert impure(box, "/d") is None


def test_listing_takes_the_mark_off_a_directory_without_copies(box):
    box.require_origins()
    box.lower({"/s": symlink("nowhere")})
    box.upper({"/d/": DIR})
    box.mount(separate=False)
    box.os.rename("/s", "/d/s")
    assert impure(box, "/d") == b"y"
    box.os.rename("/d/s", "/s")
    box.os.listdir("/d")
    assert impure(box, "/d") is None


@pytest.mark.parametrize(("path", "number"), [("/d/f", errno.EEXIST), ("/d/sub", errno.ENOTDIR)])
def test_a_copy_up_that_comes_too_late_leaves_the_parent_impure(box, path, number):
    box.lower({"/d/f": "x", "/d/sub/": DIR})
    box.require_posix()
    fd = box.os.open(path, os.O_RDONLY)
    box.os.rmdir(path) if path == "/d/sub" else box.os.unlink(path)
    assert impure(box, "/d") is None
    with raises_errno(number):
        box.os.fchmod(fd, 0o700)
    assert impure(box, "/d") == b"y"


# Data-only lowers.


def test_contents_that_are_nowhere_stop_a_copy_up_before_it_begins(box):
    box.lower({"/d/f": file("abc", metacopy=True, redirect="/nowhere")})
    box.data_only({})
    for act in (lambda: box.os.chmod("/d/f", 0o600), lambda: box.os.truncate("/d/f", 3)):
        with raises_errno(errno.ENOENT):
            act()
    assert box.upper_tree() == {}


def test_contents_that_are_nowhere_stop_an_exchange_once_the_parents_are_up(box):
    box.lower({"/d/f": file("abc", metacopy=True, redirect="/nowhere"), "/g": "x"})
    box.data_only({})
    with raises_errno(errno.ENOENT):
        box.os.renameat2("/g", "/d/f", RENAME_EXCHANGE)
    assert box.upper_tree() == {"/d/": DIR, "/g": "x"}


def test_contents_redirected_to_a_symlink_are_enoent_through_one_eloop(box):
    box.lower({
        "/f": file("abc", metacopy=True, redirect="/link"),
        "/g": file("abc", metacopy=True, redirect="/link/x"),
        "/h": file("abc", metacopy=True, redirect="/dir/x"),
    })  # fmt: skip
    box.data_only({"/link": symlink("dir"), "/dir/x": "abc"})
    assert box.read("/h") == b"abc"
    for path, number in (("/f", errno.ENOENT), ("/g", errno.ELOOP)):
        with raises_errno(number):
            box.read(path)


def test_marks_of_what_a_directory_of_the_upper_covers_do_not_count(box):
    box.lower({"/e": file("abc", metacopy=True, redirect="//f"), "/d/": directory(redirect="/")})
    box.data_only({})
    box.upper({"/e/": DIR, "/d/": DIR})
    assert box.os.listdir("/e") == box.os.listdir("/d") == []


def test_a_link_of_a_metadata_only_copy_is_looked_up_and_may_lead_nowhere(box):
    box.require_kept_upper()
    box.lower({"/e/": directory(redirect="//d"), "/e/f": file(bytes(3), metacopy=True, redirect="/blob")})
    box.data_only({"/blob": "abc"})
    box.upper({"/e/": DIR})
    box.mount(metacopy=True, redirect_dir="on")
    box.os.link("/e/f", "/n", follow_symlinks=False)
    assert box.os.lstat("/e/f").st_nlink == 2
    with raises_errno(errno.EINVAL):
        box.os.lstat("/n")


def test_truncate_to_the_size_of_an_empty_blob_keeps_the_mtime(box):
    box.lower({"/f": file(bytes(10), metacopy=True, redirect="/blob")})
    box.data_only({"/blob": ""})
    box.mount(separate=False)
    box.os.truncate("/f", 10)
    assert not is_fresh(box, "/f")


def test_opening_a_metadata_only_copy_of_an_empty_blob_keeps_the_mtime(box):
    box.lower({"/q": file(bytes(3), metacopy=True, redirect="/blob")})
    box.data_only({"/blob": ""})
    box.mount(metacopy=True, redirect_dir="on")
    box.os.rename("/q", "/s")
    box.os.close(box.os.open("/s", os.O_RDWR))
    assert not is_fresh(box, "/s")


# Errors and their order.


def test_read_only_mknod_of_a_whiteout_is_erofs(box):
    box.lower({"/f": "x"})
    box.lower({"/g": "y"})
    box.upper(None)
    with raises_errno(errno.EROFS):
        box.os.mknod("/new", stat.S_IFCHR, 0)


def test_a_path_that_could_be_opened_is_not_looked_up_for_a_negative_size(box):
    box.lower({"/d/": DIR})
    box.upper({"/d/": DIR})
    with raises_errno(errno.EINVAL):
        box.os.truncate("/d/f", -1)
    assert box.upper_tree(origin=True) == {"/d/": DIR}


def test_a_dangling_symlink_made_over_a_whiteout_is_just_a_symlink(box):
    box.lower({"/f": "x"})
    [removed, made] = box.run([call("unlink", "/f"), call("symlink", "nowhere", "/f")])
    assert (removed.error, made.error) == (None, None)
    assert box.tree() == {"/f": symlink("nowhere")}
    assert box.upper_tree() == {"/f": symlink("nowhere")}


def test_listing_what_is_no_directory_is_enotdir_even_through_o_path(box):
    box.lower({"/f": "x", "/d/": DIR})
    fd = box.os.open("/f", os.O_PATH)
    with raises_errno(errno.ENOTDIR):
        box.os.listdir(fd)
    fd = box.os.open("/d", os.O_PATH)
    with raises_errno(errno.EBADF):
        box.os.listdir(fd)


@pytest.mark.parametrize("change", [None, "create", "chmod"])
def test_names_that_could_not_be_looked_up_stay_out_while_a_descriptor_keeps_the_listing(box, change):
    box.lower({"/d/": directory(redirect="..")})
    box.lower({"/f": "x", "/z/": directory(redirect="..")})
    box.lower({})
    box.mount(separate=True)
    fd = box.os.open("/", os.O_RDONLY)
    with raises_errno(errno.EACCES):
        box.os.listdir(fd)
    if change == "create":
        box.write("/new", b"")
        with raises_errno(errno.EACCES):
            box.os.listdir("/")
    else:
        if change == "chmod":
            box.os.chmod("/f", 0o600)
        assert box.os.listdir("/") == ["f"]
        assert box.os.listdir(fd) == ["f"]
    box.os.close(fd)
    with raises_errno(errno.EACCES):
        box.os.listdir("/")
