"""Directories renamed with redirect_dir=on: what is marked, and with what (KB 10.1 to 10.8, 10.16)."""

import errno
import itertools

import pytest

from overlayvfs.testing import DIR, WHITEOUT, directory, raises_errno

D = {"/d/f": "x", "/d/s/g": "y"}
LONG = "n" * 200


def redirected(value, **kwargs):
    return directory(redirect=value, **kwargs)


def renamed(box, *paths):
    """Rename from name to name with redirect_dir=on, which a user namespace's mount has not."""
    box.require_root()
    box.mount(redirect_dir="on")
    for src, dst in itertools.pairwise(paths):
        box.os.rename(src, dst)
    return box.upper_tree(origin=True)


def test_a_lower_directory_is_copied_up_without_its_contents_and_marked(box):
    box.lower(D)
    assert renamed(box, "/d", "/n") == {"/d": WHITEOUT, "/n/": redirected("d", origin=True)}
    assert box.tree() == {"/n/f": "x", "/n/s/g": "y"}


def test_a_merged_directory_takes_its_own_entries_along(box):
    box.lower(D)
    box.upper({"/d/own": "z"})
    assert renamed(box, "/d", "/n") == {"/d": WHITEOUT, "/n/": redirected("d", origin=True), "/n/own": "z"}
    assert box.tree() == {"/n/f": "x", "/n/own": "z", "/n/s/g": "y"}


def test_a_directory_of_two_lowers_is_redirected_too(box):
    box.lower({"/d/a": "1"})
    box.lower({"/d/b": "2"})
    assert renamed(box, "/d", "/n") == {"/d": WHITEOUT, "/n/": redirected("d", origin=True)}
    assert box.tree() == {"/n/a": "1", "/n/b": "2"}


@pytest.mark.parametrize(
    ("names", "value"),
    [
        (("/d", "/n"), "d"),
        (("/d", "/n", "/n2"), "d"),
        (("/d", "/x/n"), "/d"),
        (("/d", "/n", "/x/n3"), "/d"),
        (("/d", "/x/n", "/x/n4"), "/d"),
        (("/d", "/x/n", "/d"), "/d"),
        (("/d/s", "/d/t"), "s"),
        (("/d/s", "/t"), "/d/s"),
        (("/d/s", "/t", "/u", "/d/s"), "/d/s"),
    ],
    ids="->".join,
)
def test_a_redirect_is_relative_until_the_directory_leaves_its_parent(box, names, value):
    box.lower({**D, "/x/": DIR})
    assert renamed(box, *names)[f"{names[-1]}/"] == redirected(value, origin=True)
    moved = {f"{names[-1]}/g": "y"} if names[0] == "/d/s" else {f"{names[-1]}/f": "x", f"{names[-1]}/s/g": "y"}
    assert moved.items() <= box.tree().items()


def test_a_directory_back_in_its_place_merges_and_keeps_its_redirect(box):
    box.lower({**D, "/x/": DIR})
    assert renamed(box, "/d", "/x/n", "/d") == {"/d/": redirected("/d", origin=True), "/x/": directory(origin=True)}
    assert box.tree() == {**D, "/x/": DIR}


def test_an_absolute_redirect_is_the_path_in_the_lowers(box):
    """Redirects of the directories above are applied to it (KB 10.2)."""
    box.lower({**D, "/x/": DIR})
    upper = renamed(box, "/d", "/n")
    box.os.rename("/n/s", "/x/s")
    upper = box.upper_tree()
    assert (upper["/n/"], upper["/x/s/"], upper["/n/s"]) == (redirected("d"), redirected("/d/s"), WHITEOUT)
    assert box.tree() == {"/n/f": "x", "/x/s/g": "y"}


def test_children_of_a_moved_directory_have_no_redirect_of_their_own(box):
    box.lower(D)
    renamed(box, "/d", "/n")
    box.write("/n/s/g", b"changed")
    assert box.upper_tree() == {"/d": WHITEOUT, "/n/": redirected("d"), "/n/s/g": "changed"}


def test_a_pure_upper_directory_moves_with_the_redirects_inside_it(box):
    box.lower(D)
    box.upper({"/u/own": "z"})
    renamed(box, "/d", "/u/d")
    box.os.rename("/u", "/v")
    assert box.upper_tree() == {
        "/d": WHITEOUT,
        "/v/": directory(opaque=True),
        "/v/d/": redirected("/d"),
        "/v/own": "z",
    }
    assert box.tree() == {"/v/d/f": "x", "/v/d/s/g": "y", "/v/own": "z"}


@pytest.mark.parametrize(("extra", "error"), [("n" * 54, None), ("n" * 55, "EXDEV")], ids=["256", "257"])
def test_an_absolute_redirect_of_more_than_256_bytes_is_exdev(box, extra, error):
    """What can't be written can't be moved (redirect_max); the tree stays as it was."""
    box.require_root()
    place = f"/{LONG}/{extra}"
    box.lower({f"{place}/f": "x"})
    box.mount(redirect_dir="on")
    if error:
        with raises_errno(errno.EXDEV):
            box.os.rename(place, "/n")
        assert box.tree() == {f"{place}/f": "x"}
    else:
        box.os.rename(place, "/n")
        assert box.tree() == {f"/{LONG}/": DIR, "/n/f": "x"}


def test_a_relative_redirect_does_not_go_by_the_length_of_the_path(box):
    place = f"/{LONG}/{LONG}"
    box.lower({f"{place}/d/f": "x"})
    assert renamed(box, f"{place}/d", f"{place}/n")[f"{place}/n/"] == redirected("d", origin=True)


def test_redirects_are_found_again_by_the_next_mount(box):
    box.lower({**D, "/x/": DIR})
    renamed(box, "/d", "/n", "/x/n")
    box.os.rename("/x/n/s", "/t")
    box.remount(redirect_dir="off")
    assert box.tree() == {"/t/g": "y", "/x/n/f": "x"}


@pytest.mark.parametrize("option", ["off", "follow", "nofollow"])
def test_without_the_feature_a_directory_of_a_lower_is_exdev_and_stays(box, option):
    box.require_root()
    box.lower(D)
    box.mount(redirect_dir=option)
    with raises_errno(errno.EXDEV):
        box.os.rename("/d", "/n")
    assert (box.tree(), box.upper_tree()) == (D, {})
