"""Listing directories that hold names no lookup can follow: what redirect_dir=nofollow refuses (KB 10.15)."""

import errno

from overlayvfs.testing.bodies import Box, raises_errno
from overlayvfs.testing.trees import DIR, directory

REFUSED = directory(redirect="elsewhere")


def test_a_name_that_cannot_be_looked_up_is_left_out_of_an_impure_merged_listing(box: Box):
    box.require_kept_upper()
    box.lower({"/f": "x"})
    box.upper({"/d/": REFUSED})
    box.mount(redirect_dir="nofollow")
    box.os.chmod("/f", 0o600)
    assert box.os.listdir("/") == ["f"]


def test_two_such_names_in_a_row_are_an_error(box: Box):
    box.require_kept_upper()
    box.lower({"/f": "x"})
    box.upper({"/d/": REFUSED, "/e/": REFUSED})
    box.mount(redirect_dir="nofollow")
    box.os.chmod("/f", 0o600)
    with raises_errno(errno.EPERM):
        box.os.listdir("/")


def test_a_directory_without_copies_lists_them_unseen(box: Box):
    box.lower({"/f": "x"})
    box.upper({"/d/": REFUSED, "/e/": REFUSED})
    box.mount(redirect_dir="nofollow")
    assert sorted(box.os.listdir("/")) == ["d", "e", "f"]


def test_the_origin_is_marked_before_a_redirect_further_down_is_refused(box: Box):
    box.require_origins()
    box.lower({"/e/": directory(redirect="x")})
    box.lower({"/x/": DIR})
    box.upper({"/e/": DIR})
    box.mount(redirect_dir="nofollow")
    with raises_errno(errno.EPERM):
        box.os.stat("/e")
    assert box.upper_tree(origin=True) == {"/e/": directory(origin=True)}
