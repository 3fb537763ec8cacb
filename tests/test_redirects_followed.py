"""Redirects that exist are followed, whoever made them (KB 2.10, 10.7 to 10.17)."""

import errno
import os

import pytest

from overlayvfs.testing import DIR, WHITEOUT, Kernel, directory, file, raises_errno

D = {"/d/f": "x", "/d/sub/g": "y"}


def need_redirects(box):
    """Skip where the mount can't follow redirects: a user namespace's has only redirect_dir=nofollow."""
    if box.is_kernel and Kernel.find().kind != "root":
        pytest.skip("a user namespace's overlay follows no redirect (KB 1.10)")


def shown(box, path):
    """Return all below `path`, as far as it can be looked up."""
    found = []
    for at, dirs, files in box.os.walk(path):
        found += [f"{at}/{name}"[len(path) :] for name in (*dirs, *files)]
    return sorted(found)


@pytest.mark.parametrize("option", [None, "off", "follow", "on"])
@pytest.mark.parametrize("redirect", ["d", "/d"])
def test_a_redirect_shows_the_lower_directory_of_another_name(box, redirect, option):
    need_redirects(box)
    box.lower(D)
    box.upper({"/d": WHITEOUT, "/n/": directory(redirect=redirect), "/n/own": "z"})
    box.mount(**({} if option is None else {"redirect_dir": option}))
    assert shown(box, "/n") == ["/f", "/own", "/sub", "/sub/g"]
    assert box.read("/n/sub/g") == b"y"


def test_children_of_a_redirected_directory_need_no_redirect(box):
    need_redirects(box)
    box.lower(D)
    box.upper({"/d": WHITEOUT, "/n/": directory(redirect="/d"), "/n/sub/h": "z"})
    assert shown(box, "/n") == ["/f", "/sub", "/sub/g", "/sub/h"]
    box.write("/n/sub/g", b"changed")
    assert box.upper_tree()["/n/sub/g"] == "changed"


@pytest.mark.parametrize("parent", [DIR, directory(opaque=True)], ids=["pure upper", "opaque"])
def test_an_absolute_redirect_is_followed_from_anywhere(box, parent):
    need_redirects(box)
    box.lower({**D, "/p/hidden": ""})
    box.upper({"/d": WHITEOUT, "/p/": parent, "/p/n/": directory(redirect="/d")})
    assert shown(box, "/p/n") == ["/f", "/sub", "/sub/g"]


def test_a_relative_redirect_below_an_opaque_directory_leads_nowhere(box):
    need_redirects(box)
    box.lower({"/p/d/f": "x"})
    box.upper({"/p/": directory(opaque=True), "/p/n/": directory(redirect="d")})
    assert shown(box, "/p/n") == []


def test_all_lowers_that_contribute_follow(box):
    need_redirects(box)
    box.lower({"/d/one": ""})
    box.lower({"/d/two": ""})
    box.upper({"/d": WHITEOUT, "/n/": directory(redirect="d")})
    assert shown(box, "/n") == ["/one", "/two"]


def test_a_redirect_in_a_lower_counts_below_that_lower(box):
    need_redirects(box)
    box.lower({"/n/": directory(redirect="/d"), "/n/top": "", "/d": WHITEOUT})
    box.lower({"/d/below": "", "/n/not here": ""})
    assert shown(box, "/n") == ["/below", "/top"]


def test_redirects_chain_through_the_lowers(box):
    need_redirects(box)
    box.lower({"/n/": directory(redirect="/d")})
    box.lower({"/d/": directory(redirect="/z"), "/d/two": ""})
    box.lower({"/z/three": "", "/d/not here": ""})
    assert shown(box, "/n") == ["/three", "/two"]


def test_an_absolute_redirect_takes_up_a_redirect_on_its_way(box):
    need_redirects(box)
    box.lower({"/a/": directory(redirect="/b"), "/a/d/one": ""})
    box.lower({"/b/d/two": "", "/a/d/not here": ""})
    box.upper({"/n/": directory(redirect="/a/d")})
    assert shown(box, "/n") == ["/one", "/two"]


@pytest.mark.parametrize(
    ("first", "names"),
    [
        ({"/a/other": ""}, ["/two"]),
        ({"/a": WHITEOUT}, []),
        ({"/a": "file"}, []),
        ({"/a/d": WHITEOUT}, []),
        ({"/a/d": "file"}, []),
        ({"/a/": directory(opaque=True), "/a/d/one": ""}, ["/one"]),
        ({"/a/d/": directory(opaque=True), "/a/d/one": ""}, ["/one"]),
        ({"/a/d/one": ""}, ["/one", "/two"]),
    ],
    ids=[
        "component missing",
        "component whited out",
        "component a file",
        "target whited out",
        "target a file",
        "component opaque",
        "target opaque",
        "all there",
    ],
)
def test_how_far_down_an_absolute_redirect_is_searched(box, first, names):
    need_redirects(box)
    box.lower(first)
    box.lower({"/a/d/two": ""})
    box.upper({"/n/": directory(redirect="/a/d")})
    assert shown(box, "/n") == names


@pytest.mark.parametrize("lower", [{}, {"/d": "file"}, {"/d": WHITEOUT}], ids=["nothing", "a file", "a whiteout"])
def test_a_redirect_that_leads_nowhere_is_no_error(box, lower):
    need_redirects(box)
    box.lower(lower)
    box.upper({"/n/": directory(redirect="/d"), "/n/own": ""})
    assert shown(box, "/n") == ["/own"]


@pytest.mark.parametrize(
    ("value", "number"),
    [
        (b"", errno.EINVAL),
        (b"/", errno.EINVAL),
        (b"//d", errno.EINVAL),
        (b"d/x", errno.EINVAL),
        (b".", errno.EACCES),
        (b"..", errno.EACCES),
        (b"/d/..", errno.EACCES),
        (b"/./d", errno.EACCES),
    ],
)
@pytest.mark.parametrize("layer", ["upper", "lower"])
def test_a_malformed_redirect_is_an_error(box, layer, value, number):
    need_redirects(box)
    marked = {"/n/": directory(marks={"redirect": value})}
    if layer == "lower":
        box.lower(marked)
    box.lower({"/d/f": ""})
    box.upper(marked if layer == "upper" else {})
    with raises_errno(number):
        box.os.lstat("/n")


@pytest.mark.parametrize("layer", ["upper", "lower"])
def test_with_nofollow_a_redirected_directory_is_eperm_and_still_listed(box, layer):
    marked = {"/n/": directory(redirect="/d")}
    if layer == "lower":
        box.lower(marked)
    box.lower(D)
    box.upper(marked if layer == "upper" else {})
    box.mount(redirect_dir="nofollow")
    for access in (box.os.lstat, box.os.listdir, box.os.rmdir, lambda path: box.os.rename(path, "/m")):
        with raises_errno(errno.EPERM):
            access("/n")
    assert sorted(box.os.listdir("/")) == ["d", "n"]


@pytest.mark.parametrize("option", ["off", "follow"])
def test_a_followed_directory_is_merged_and_so_is_not_renamed(box, option):
    need_redirects(box)
    box.lower(D)
    box.upper({"/d": WHITEOUT, "/n/": directory(redirect="/d")})
    box.mount(redirect_dir=option)
    with raises_errno(errno.EXDEV):
        box.os.rename("/n", "/m")
    assert box.os.lstat("/n").st_nlink == 1


def test_a_redirect_that_leads_nowhere_leaves_a_directory_that_moves(box):
    need_redirects(box)
    box.lower({})
    box.upper({"/n/": directory(redirect="/missing"), "/n/own": "z"})
    box.os.rename("/n", "/m")
    assert shown(box, "/m") == ["/own"]


def test_opaque_wins_over_a_redirect(box):
    need_redirects(box)
    box.lower(D)
    box.upper({"/n/": directory(redirect="/d", opaque=True)})
    assert shown(box, "/n") == []


def test_a_redirect_on_a_file_without_metacopy_says_nothing(box):
    box.lower({"/d": "lower"})
    box.upper({"/f": file("upper", redirect="/d")})
    assert box.read("/f") == b"upper"


def test_of_two_directories_that_show_one_lower_directory_the_second_is_stale(box):
    need_redirects(box)
    box.lower(D)
    box.upper({"/m/": directory(redirect="/d"), "/n/": directory(redirect="/d")})
    assert shown(box, "/m") == ["/f", "/sub", "/sub/g"]
    with raises_errno(errno.ESTALE):
        box.os.lstat("/n")
    with raises_errno(errno.ESTALE):
        box.os.lstat("/d")
    assert box.os.lstat("/m").st_nlink == 1


def test_removing_a_redirected_directory_hides_only_its_own_name(box):
    need_redirects(box)
    box.lower({"/d/f": "x", "/n/old": ""})
    box.upper({"/d": WHITEOUT, "/n/": directory(redirect="/d")})
    box.os.unlink("/n/f")
    box.os.rmdir("/n")
    assert box.tree() == {}
    assert box.upper_tree() == {"/d": WHITEOUT, "/n": WHITEOUT}


def test_what_is_written_below_a_redirect_is_found_after_a_new_mount(box):
    need_redirects(box)
    box.lower(D)
    box.upper({"/d": WHITEOUT, "/p/n/": directory(redirect="/d")})
    box.write("/p/n/sub/g", b"changed")
    box.os.unlink("/p/n/f")
    box.remount()
    assert box.tree() == {"/p/n/sub/g": "changed"}


def test_a_redirect_without_an_upper_is_followed(box):
    need_redirects(box)
    box.lower({"/n/": directory(redirect="/d")})
    box.lower(D)
    box.upper(None)
    assert box.read("/n/f") == b"x"
    with raises_errno(errno.EROFS):
        box.os.open("/n/f", os.O_WRONLY)
