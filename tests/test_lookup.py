"""Lookup and merging of layers (KB 2, 1.12, 1.13; overlayfs.rst, "Overlay objects")."""

import errno
import os
import stat

import pytest

from overlayvfs.testing import DIR, OLD, WHITEOUT, call, directory, file, raises_errno, symlink


def test_the_upper_hides_a_lower_file(box):
    box.lower({"/f": "lower"})
    box.upper({"/f": "upper"})
    assert box.tree() == {"/f": "upper"}


def test_a_higher_lower_hides_a_deeper_one(box):
    box.lower({"/f": "one"})
    box.lower({"/f": "two", "/g": "two"})
    box.lower({"/f": "three", "/g": "three", "/h": "three"})
    assert box.tree() == {"/f": "one", "/g": "two", "/h": "three"}


def test_directories_of_all_layers_merge(box):
    box.lower({"/d/one": "1", "/d/e/one": "1"})
    box.lower({"/d/two": "2", "/d/e/two": "2"})
    box.upper({"/d/zero": "0"})
    assert box.tree() == {"/d/e/one": "1", "/d/e/two": "2", "/d/one": "1", "/d/two": "2", "/d/zero": "0"}


@pytest.mark.parametrize(
    "between",
    [{"/d": "file"}, {"/d": symlink("e")}, {"/d": WHITEOUT}],
    ids=["file", "symlink", "whiteout"],
)
def test_merging_ends_at_a_layer_with_something_else(box, between):
    box.lower({"/d/top": "1"})
    box.lower(between)
    box.lower({"/d/bottom": "3"})
    assert box.tree() == {"/d/top": "1"}
    assert box.os.stat("/d").st_nlink == 2


def test_merging_ends_after_an_opaque_directory(box):
    box.lower({"/d/top": "1"})
    box.lower({"/d/": directory(opaque=True), "/d/middle": "2"})
    box.lower({"/d/bottom": "3"})
    assert box.tree() == {"/d/middle": "2", "/d/top": "1"}


def test_a_file_over_a_directory_is_a_file(box):
    box.lower({"/x": "file"})
    box.lower({"/x/c": "hidden"})
    assert box.tree() == {"/x": "file"}
    with raises_errno(errno.ENOTDIR):
        box.os.lstat("/x/c")


def test_unlinking_a_file_over_a_directory_shows_nothing_and_mkdir_is_empty(box):
    box.lower({"/x": "file"})
    box.lower({"/x/c": "hidden"})
    box.os.unlink("/x")
    assert box.tree() == {}
    assert box.upper_tree() == {"/x": WHITEOUT}
    box.os.mkdir("/x")
    assert box.tree() == {"/x/": DIR}
    assert box.upper_tree() == {"/x/": directory(opaque=True)}


def test_a_symlink_in_the_upper_hides_a_directory_and_leads_elsewhere(box):
    box.lower({"/d/f": "1", "/e/g": "2"})
    box.upper({"/d": symlink("e")})
    assert box.os.listdir("/d") == ["g"]
    assert box.tree() == {"/d": symlink("e"), "/e/g": "2"}


def test_attributes_of_a_merged_directory_are_the_topmost_ones(box):
    box.lower({"/d/": directory(mode=0o750, mtime_ns=OLD + 1, xattrs={"user.one": b"1"}), "/d/f": "x"})
    box.lower({"/d/": directory(mode=0o700, mtime_ns=OLD + 2, xattrs={"user.two": b"2"}), "/d/g": "y"})
    st = box.os.stat("/d")
    assert (stat.S_IMODE(st.st_mode), st.st_mtime_ns) == (0o750, OLD + 1)
    assert box.os.listxattr("/d") == ["user.one"]


def test_attributes_of_the_root_are_the_uppers(box):
    box.lower({"/": directory(mode=0o700)})
    box.upper({"/": directory(mode=0o711, mtime_ns=OLD + 7)})
    st = box.os.stat("/")
    assert (stat.S_IMODE(st.st_mode), st.st_mtime_ns, st.st_nlink) == (0o711, OLD + 7, 1)


def test_attributes_of_the_root_without_an_upper_are_the_topmost_lowers(box):
    box.lower({"/": directory(mode=0o711)})
    box.lower({"/": directory(mode=0o700), "/f": "x"})
    box.upper(None)
    assert stat.S_IMODE(box.os.stat("/").st_mode) == 0o711


@pytest.mark.parametrize("name", [".wh.f", ".wh..wh..opq", ".wh..wh.plnk", "." * 3])
def test_names_of_other_unions_whiteouts_are_ordinary(box, name):
    box.lower({"/d/f": "x", f"/d/{name}": "y"})
    box.lower({"/d/g": "z"})
    assert sorted(box.os.listdir("/d")) == sorted([name, "f", "g"])
    assert box.read(f"/d/{name}") == b"y"


def test_an_opaque_mark_on_the_root_of_a_layer_says_nothing(box):
    box.lower({"/": directory(opaque=True), "/f": "1"})
    box.lower({"/g": "2"})
    box.upper({"/": directory(opaque=True), "/h": "0"})
    assert sorted(box.os.listdir("/")) == ["f", "g", "h"]


def test_looking_up_a_hand_made_merged_directory_gives_it_an_origin(box):
    box.require_origins()
    box.lower({"/d/f": "x"})
    box.upper({"/d/": DIR})
    box.os.lstat("/d")
    assert box.upper_tree(origin=True, impure=True) == {
        "/": directory(marks={"impure": b"y"}),
        "/d/": directory(origin=True),
    }
    assert {entry.mtime for entry in box.snapshot("upper").values()} == {OLD}


def test_looking_up_a_hand_made_upper_file_over_a_lower_one_leaves_no_mark(box):
    box.lower({"/f": "x"})
    box.upper({"/f": "y"})
    box.os.lstat("/f")
    assert box.upper_tree(origin=True, impure=True) == {"/f": "y"}


def test_nlink_of_a_directory_tells_whether_it_is_merged(box):
    box.require_posix()
    box.lower({"/merged/f": "x", "/lower/a/b": "x", "/lower/c/": DIR})
    box.upper({"/merged/": DIR, "/upper/": DIR})
    links = {path: box.os.stat(path).st_nlink for path in ("/", "/merged", "/lower", "/upper")}
    assert links == {"/": 1, "/merged": 1, "/lower": 4, "/upper": 2}


def test_many_lowers_all_contribute(box):
    for number in range(40):
        box.lower({f"/d/f{number:02}": str(number), "/d/g": str(number)})
    assert sorted(box.os.listdir("/d")) == [f"f{number:02}" for number in range(40)] + ["g"]
    assert box.read("/d/g") == b"0"


@pytest.mark.parametrize(
    ("path", "error"),
    [
        ("/missing", "ENOENT"),
        ("/missing/f", "ENOENT"),
        ("/d/f/g", "ENOTDIR"),
        ("/d/f/", "ENOTDIR"),
        ("/d/f/.", "ENOTDIR"),
        ("/d/f/..", "ENOTDIR"),
        ("/loop", "ELOOP"),
        ("/loop/x", "ELOOP"),
        ("/dangling", "ENOENT"),
        ("", "ENOENT"),
        ("/" + "n" * 256, "ENAMETOOLONG"),
        ("/" + "n/" * 2048, "ENAMETOOLONG"),
    ],
    ids=lambda value: value[:12],
)
def test_path_errors(box, path, error):
    box.lower({"/d/f": "x", "/loop": symlink("loop"), "/dangling": symlink("nowhere")})
    box.upper({"/d/g": "y"})
    assert box.run([call("stat", path)])[0].error == error


@pytest.mark.parametrize(
    "path", ["/d/../d/f", "//d//f", "/d/./f", "/../../d/f", "d/f", "/abs/f", "/rel/f", "/up/f", "/chain", "/sd/s"]
)
def test_paths_that_lead_to_one_file(box, path):
    box.lower(
        {
            "/d/f": "x",
            "/abs": symlink("/d"),
            "/rel": symlink("./d/../d"),
            "/up": symlink("../../../d"),
            "/chain": symlink("/abs/../rel/f"),
        }
    )
    box.lower({"/sd": symlink("d"), "/d/s": symlink("/d/f")})
    assert box.read(path) == b"x"


def test_a_symlink_is_followed_only_where_asked(box):
    box.lower({"/f": file("four"), "/s": symlink("f")})
    assert box.os.lstat("/s").st_size == 1
    assert box.os.stat("/s").st_size == 4
    assert box.os.stat("/s", follow_symlinks=False).st_size == 1
    with raises_errno(errno.ELOOP):
        box.os.open("/s", os.O_RDONLY | os.O_NOFOLLOW)


def test_forty_symlinks_are_followed_and_no_more(box):
    chain = {f"/s{number}": symlink(f"s{number + 1}") for number in range(41)}
    box.lower({**chain, "/s41": "end"})
    assert box.read("/s1") == b"end"
    with raises_errno(errno.ELOOP):
        box.os.stat("/s0")


def test_a_listing_has_every_name_once_and_the_visible_type(box):
    box.lower({"/d/both": "file", "/d/gone": "x", "/d/dir/c": "x"})
    box.lower({"/d/both/": DIR, "/d/deep": symlink("x")})
    box.upper({"/d/gone": WHITEOUT, "/d/new": "y"})
    assert box.run([call("scandir", "/d")])[0].value == [
        ("both", "file"),
        ("deep", "symlink"),
        ("dir", "dir"),
        ("new", "file"),
    ]
