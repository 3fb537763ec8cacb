"""An overlay below another: marks for the one above pass through it (overlayfs.rst, "Nesting overlayfs mounts").

What one mount shows, marks as plain attributes, is built as the lower of a second one of the same body, the kernel's
too. Overlays of this library that are lowers themselves come at the end.
"""

import errno
from dataclasses import replace

import pytest

from overlayvfs import MemoryFS, OverlayFS
from overlayvfs.testing import WHITEOUT, directory, file, raises_errno

HIDES = file(marks={"whiteout": b""})
HAS_SOME = directory(marks={"opaque": b"x"})


def escaped(node, levels=1):
    """Return the node with its marks for an overlay so many levels further up."""
    return replace(node, marks={"overlay." * levels + name: value for name, value in node.marks.items()})


@pytest.fixture
def nested(make_box):
    """Return a function that mounts a lower and then what shows over another lower, and returns both boxes."""

    def nest(lower, beneath):
        below, above = make_box(), make_box()
        below.require_root()
        below.lower(lower)
        above.lower(below.tree())
        above.lower(beneath)
        return below, above

    return nest


def test_an_escaped_whiteout_is_a_file_below_and_a_whiteout_above(nested):
    below, above = nested({"/d/": escaped(HAS_SOME), "/d/f": escaped(HIDES)}, {"/d/f": "hidden", "/d/g": "shown"})
    assert below.os.listdir("/d") == ["f"]
    assert below.os.getxattr("/d/f", "trusted.overlay.whiteout") == b""
    assert above.os.listdir("/d") == ["g"]
    with raises_errno(errno.ENOENT):
        above.os.lstat("/d/f")


def test_each_overlay_takes_one_level_of_escaping_off(nested):
    tree = {"/d/": escaped(directory(opaque=True), 2), "/d/f": "x"}
    below, above = nested(tree, {"/d/g": "shown"})
    assert below.os.listxattr("/d") == ["trusted.overlay.overlay.opaque"]
    assert above.os.listxattr("/d") == ["trusted.overlay.opaque"]
    assert sorted(above.os.listdir("/d")) == ["f", "g"]


@pytest.mark.parametrize(
    ("node", "shown"),
    [
        (directory(opaque=True), ["own"]),
        (directory(redirect="/other"), ["else", "own"]),
        (directory(redirect="other"), ["else", "own"]),
    ],
    ids=["opaque", "absolute redirect", "relative redirect"],
)
def test_an_escaped_mark_of_a_directory_means_something_above_alone(nested, node, shown):
    below, above = nested({"/d/": escaped(node), "/d/own": ""}, {"/d/hidden": "", "/other/else": ""})
    assert below.os.listdir("/d") == ["own"]
    assert sorted(above.os.listdir("/d")) == shown


def test_an_escaped_mark_of_a_file_means_something_above_alone(make_box):
    below, above = make_box(), make_box()
    below.require_root()
    node = file(bytes(4), metacopy=True, redirect="/data")
    below.lower({"/f": escaped(node)})
    above.lower(below.tree())
    above.lower({"/data": "data"})
    above.mount(metacopy="on")
    assert (below.read("/f"), above.read("/f")) == (bytes(4), b"data")


def test_marks_set_through_a_mount_are_found_by_the_mount_above_it(make_box):
    """As a tool does that makes lowers inside a container: it can't make devices 0/0 there, nor need it."""
    below, above = make_box(), make_box()
    below.require_root()
    below.lower({"/lower/d/f": "x"})
    with raises_errno(errno.EPERM):
        below.os.mknod("/lower/d/f2", 0o20000, 0)
    below.write("/lower/d/f", b"")
    below.os.setxattr("/lower/d/f", "trusted.overlay.whiteout", b"")
    below.os.setxattr("/lower/d", "trusted.overlay.opaque", b"x")
    assert below.upper_tree() == {"/lower/d/": escaped(HAS_SOME), "/lower/d/f": escaped(HIDES)}
    above.lower({path.removeprefix("/lower"): node for path, node in below.tree().items()})
    above.lower({"/d/f": "hidden", "/d/g": "shown"})
    assert above.os.listdir("/d") == ["g"]


def test_a_whiteout_of_the_lower_overlay_hides_from_the_upper_one_too(nested):
    below, above = nested({"/f": WHITEOUT, "/g": "x"}, {"/f": "below both"})
    assert below.os.listdir("/") == ["g"]
    assert above.tree() == {"/f": "below both", "/g": "x"}


# An overlay of this library as it is, as the lower of another.


def memory(path, text):
    fs = MemoryFS()
    fs.makedirs(path.rpartition("/")[0]).writetext(path.rpartition("/")[2], text)
    return fs


def test_an_overlay_that_is_a_lower_hands_escaped_whiteouts_up():
    lower = memory("d/f", "")
    lower.os.setxattr("/d/f", "trusted.overlay.overlay.whiteout", b"")
    lower.os.setxattr("/d", "trusted.overlay.overlay.opaque", b"x")
    inner = OverlayFS([lower], MemoryFS(), userxattr=False)
    outer = OverlayFS([inner, memory("d/f", "hidden"), memory("d/g", "shown")], userxattr=False)
    assert inner.listdir("d") == ["f"]
    assert outer.listdir("d") == ["g"]
    assert not outer.exists("d/f")


def test_a_name_deleted_in_an_overlay_that_is_a_lower_lets_what_is_below_show():
    """Its whiteout is its own business, as that of a mount is the kernel's."""
    inner = OverlayFS([memory("d/f", "deleted")], MemoryFS())
    inner.remove("d/f")
    assert OverlayFS([inner, memory("d/f", "below")]).readtext("d/f") == "below"
