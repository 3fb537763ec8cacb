"""Extended attributes: namespaces, sizes, errors, and the overlay's own marks out of sight (KB 16, 5.1, 5.6)."""

import errno
import os

import pytest

from overlayvfs.testing import DIR, WHITEOUT, Slot, call, device, directory, fifo, file, raises_errno, symlink

USER_NAME_MAX = "user." + "n" * 250


def own(box, name):
    """Return an attribute of the namespace in which the box's mount keeps its marks."""
    return ("trusted.overlay." if box.keeps_origins else "user.overlay.") + name


def other(box, name):
    return ("user.overlay." if box.keeps_origins else "trusted.overlay.") + name


def test_attributes_of_all_namespaces_come_up_with_a_copy(box):
    box.require_root()
    xattrs = {
        "user.u": b"1",
        "trusted.t": b"2",
        "security.s": b"3",
        "user.binary": bytes(range(256)),
        "user.empty": b"",
    }
    box.lower({"/d/": directory(xattrs=xattrs), "/d/f": file("x", xattrs=xattrs)})
    box.os.chmod("/d/f", 0o600)
    assert box.upper_tree() == {"/d/": directory(xattrs=xattrs), "/d/f": file("x", mode=0o600, xattrs=xattrs)}


def test_symlinks_and_special_files_carry_trusted_attributes(box):
    box.require_root()
    box.lower({"/s": symlink("t", xattrs={"trusted.t": b"1"}), "/p": fifo(xattrs={"trusted.t": b"2"})})
    box.os.setxattr("/s", "trusted.u", b"3", follow_symlinks=False)
    box.os.setxattr("/p", "trusted.u", b"4")
    assert box.tree() == {
        "/p": fifo(xattrs={"trusted.t": b"2", "trusted.u": b"4"}),
        "/s": symlink("t", xattrs={"trusted.t": b"1", "trusted.u": b"3"}),
    }


def test_attributes_of_merged_directories_are_not_merged(box):
    box.lower({"/d/": directory(xattrs={"user.a": b"1"})})
    box.lower({"/d/": directory(xattrs={"user.b": b"2"})})
    assert box.os.listxattr("/d") == ["user.a"]
    box.os.setxattr("/d", "user.c", b"3")
    assert box.tree() == {"/d/": directory(xattrs={"user.a": b"1", "user.c": b"3"})}


@pytest.mark.parametrize("kind", ["file", "directory"])
@pytest.mark.parametrize("where", ["lower", "upper"])
def test_set_get_list_remove(box, where, kind):
    tree = {"/x": file("x", xattrs={"user.a": b"1"}) if kind == "file" else directory(xattrs={"user.a": b"1"})}
    box.lower(tree if where == "lower" else {})
    box.upper(tree if where == "upper" else {})
    box.os.setxattr("/x", "user.b", b"2")
    box.os.setxattr("/x", "user.a", b"one")
    assert sorted(box.os.listxattr("/x")) == ["user.a", "user.b"]
    box.os.removexattr("/x", "user.b")
    assert (box.os.getxattr("/x", "user.a"), box.os.listxattr("/x")) == (b"one", ["user.a"])


CASES = [
    (call("setxattr", "/f", "user.", b""), "EINVAL"),
    (call("getxattr", "/f", "user."), "EINVAL"),
    (call("removexattr", "/f", "user."), "EINVAL"),
    (call("setxattr", "/f", "unknown.n", b""), "ENOTSUP"),
    (call("setxattr", "/f", "nodot", b""), "ENOTSUP"),
    (call("getxattr", "/f", "unknown.n"), "ENOTSUP"),
    (call("removexattr", "/f", "unknown.n"), "ENOTSUP"),
    (call("setxattr", "/f", "", b""), "ERANGE"),
    (call("getxattr", "/f", ""), "ERANGE"),
    (call("removexattr", "/f", ""), "ERANGE"),
    (call("setxattr", "/f", USER_NAME_MAX, b""), None),
    (call("setxattr", "/f", USER_NAME_MAX + "n", b""), "ERANGE"),
    (call("getxattr", "/f", USER_NAME_MAX + "n"), "ERANGE"),
    (call("removexattr", "/f", USER_NAME_MAX + "n"), "ERANGE"),
    (call("setxattr", "/f", "user.v", bytes(65537)), "E2BIG"),
    (call("setxattr", "/f", "user.k", b"", os.XATTR_CREATE), "EEXIST"),
    (call("setxattr", "/f", "user.n", b"", os.XATTR_CREATE), None),
    (call("setxattr", "/f", "user.n", b"", os.XATTR_REPLACE), "ENODATA"),
    (call("setxattr", "/f", "user.k", b"", os.XATTR_REPLACE), None),
    (call("setxattr", "/f", "user.k", b"", 4), "EINVAL"),
    (call("getxattr", "/f", "user.n"), "ENODATA"),
    (call("removexattr", "/f", "user.n"), "ENODATA"),
    (call("setxattr", "/s", "user.k", b"", follow_symlinks=False), "EPERM"),
    (call("removexattr", "/s", "user.k", follow_symlinks=False), "EPERM"),
    (call("getxattr", "/s", "user.k", follow_symlinks=False), "ENODATA"),
    (call("setxattr", "/s", "user.k", b""), None),
    (call("getxattr", "/s", "user.k"), None),
    (call("setxattr", "/p", "user.k", b""), "EPERM"),
    (call("setxattr", "/c", "user.k", b""), "EPERM"),
    (call("getxattr", "/p", "user.k"), "ENODATA"),
    (call("setxattr", "/missing", "user.k", b""), "ENOENT"),
    (call("listxattr", "/dangling"), "ENOENT"),
    (call("listxattr", "/loop"), "ELOOP"),
]


@pytest.mark.parametrize(("op", "error"), CASES, ids=lambda value: repr(value)[:70])
@pytest.mark.parametrize("where", ["lower", "upper"])
def test_errors(box, where, op, error):
    tree = {
        "/f": file("x", xattrs={"user.k": b"v"}),
        "/s": symlink("f"),
        "/p": fifo(),
        "/dangling": symlink("nowhere"),
        "/loop": symlink("loop"),
    }
    if any("/c" in str(argument) for argument in op.args):
        box.require_root()
        tree["/c"] = device()
    box.lower(tree if where == "lower" else {})
    box.upper(tree if where == "upper" else {})
    assert box.run([op])[0].error == error


ODD_NAMES = {
    "": "ERANGE",
    "n" * 256: "ERANGE",
    USER_NAME_MAX + "n": "ERANGE",
    "nonsense": "ENOTSUP",
    "user.": "EINVAL",
    "trusted.": "EINVAL",
    "security.": "EINVAL",
}


@pytest.mark.parametrize("name", ODD_NAMES, ids=lambda name: name[:10])
def test_an_odd_name_is_refused_through_a_descriptor_as_by_path(box, name):
    box.require_root()
    box.lower({"/f": "x"})
    ops = [
        call(verb, where, name, *value)
        for where in ("/f", Slot(0))
        for verb, value in (("getxattr", ()), ("setxattr", (b"",)), ("removexattr", ()))
    ]
    outcomes = box.run([call("open", "/f", os.O_RDONLY, slot=0), *ops])[1:]
    assert [outcome.error for outcome in outcomes] == [ODD_NAMES[name]] * 6


def test_an_odd_argument_comes_before_a_bad_descriptor(box):
    box.lower({"/f": "x"})
    ops = [
        call("getxattr", Slot(0), ""),
        call("removexattr", Slot(0), ""),
        call("setxattr", Slot(0), "user.k", b"", 8),
        call("setxattr", Slot(0), "user.k", b""),
    ]
    assert [outcome.error for outcome in box.run(ops)] == ["ERANGE", "ERANGE", "EINVAL", "EBADF"]


@pytest.mark.parametrize(
    ("op", "copied"),
    [
        (call("setxattr", "/f", "user.k", b"", os.XATTR_CREATE), True),
        (call("setxattr", "/f", "user.n", b"", os.XATTR_REPLACE), True),
        (call("setxattr", "/s", "user.k", b"", follow_symlinks=False), False),
        (call("removexattr", "/f", "user.n"), False),
        (call("removexattr", "/f", "user.k"), True),
        (call("setxattr", "/f", "", b""), False),
        (call("getxattr", "/f", "user.k"), False),
        (call("listxattr", "/f"), False),
    ],
    ids=repr,
)
def test_which_calls_copy_up_even_if_they_fail(box, op, copied):
    box.lower({"/f": file("x", xattrs={"user.k": b"v"}), "/s": symlink("f")})
    box.run([op])
    assert ("/f" in box.upper_tree()) == copied


# The mount's own marks


def test_the_mounts_own_marks_are_hidden(box):
    box.lower({"/d/f": "x"})
    box.os.chmod("/d/f", 0o600)
    assert "impure" in dict(box.snapshot("upper")["/d"].marks)
    assert box.os.listxattr("/d") == box.os.listxattr("/d/f") == []
    for name in ("origin", "impure", "opaque"):
        with raises_errno(errno.ENODATA):
            box.os.getxattr("/d", own(box, name))
        with raises_errno(errno.ENODATA):
            box.os.removexattr("/d", own(box, name))
    assert "impure" in dict(box.snapshot("upper")["/d"].marks)


def test_a_callers_attribute_of_a_marks_name_is_escaped_and_means_nothing(box):
    box.lower({"/d/f": "x"})
    box.os.setxattr("/d", own(box, "opaque"), b"y")
    assert box.os.getxattr("/d", own(box, "opaque")) == b"y"
    assert box.os.listxattr("/d") == [own(box, "opaque")]
    assert box.upper_tree() == {"/d/": directory(marks={"overlay.opaque": b"y"})}
    box.remount()
    assert box.os.listdir("/d") == ["f"]
    box.os.removexattr("/d", own(box, "opaque"))
    assert box.upper_tree() == {"/d/": DIR}


def test_each_level_of_escaping_adds_one(box):
    box.lower({"/f": "x"})
    box.os.setxattr("/f", own(box, "overlay.k"), b"1")
    box.os.setxattr("/f", own(box, "k"), b"2")
    assert dict(box.snapshot("upper")["/f"].marks) | {"origin": b""} == {
        "overlay.overlay.k": b"1",
        "overlay.k": b"2",
        "origin": b"",
    }
    assert sorted(box.os.listxattr("/f")) == [own(box, "k"), own(box, "overlay.k")]


@pytest.mark.parametrize(
    ("rest", "error"),
    [("", "EINVAL"), ("n" * 231, None), ("n" * 232, "ENOTSUP"), ("n" * 239, "ENOTSUP")],
    ids=["0", "231", "232", "239"],
)
def test_a_name_that_can_not_be_escaped_is_refused_and_copies_nothing_up(box, rest, error):
    """Nothing after the prefix is no name, and eight bytes more must fit (ovl_xattr_escape_name)."""
    box.require_root()
    box.lower({"/f": "x"})
    name = own(box, rest)
    ops = [call("getxattr", "/f", name), call("removexattr", "/f", name), call("setxattr", "/f", name, b"")]
    assert [outcome.error for outcome in box.run(ops)] == [error or "ENODATA", error or "ENODATA", error]
    assert ("/f" in box.upper_tree()) == (error is None)


def test_an_escaped_mark_in_a_lower_shows_and_is_copied_and_a_plain_one_is_neither(box):
    box.lower({"/f": file("x", marks={"redirect": b"plain", "overlay.redirect": b"escaped"})})
    assert box.os.listxattr("/f") == [own(box, "redirect")]
    assert box.os.getxattr("/f", own(box, "redirect")) == b"escaped"
    box.os.chmod("/f", 0o600)
    assert box.upper_tree() == {"/f": file("x", mode=0o600, marks={"overlay.redirect": b"escaped"})}


def test_the_other_namespace_of_marks_is_ordinary(box):
    box.require_root()
    name = other(box, "opaque")
    box.lower({"/d/": directory(xattrs={name: b"y"}), "/d/f": "x"})
    box.lower({"/d/g": "y"})
    assert sorted(box.os.listdir("/d")) == ["f", "g"]
    box.os.setxattr("/d", name, b"n")
    assert box.os.getxattr("/d", name) == b"n"
    assert box.upper_tree() == {"/d/": directory(xattrs={name: b"n"})}


def test_with_userxattr_marks_are_user_attributes_and_trusted_ones_ordinary(box):
    box.require_root()
    box.lower({"/d/f": file("x", marks={"redirect": b"hidden"}, xattrs={"trusted.overlay.opaque": b"y"}), "/gone": "y"})
    box.mount(userxattr=True)
    assert box.os.listxattr("/d/f") == ["trusted.overlay.opaque"]
    box.os.setxattr("/d", "user.overlay.opaque", b"y")
    box.os.setxattr("/d", "trusted.overlay.opaque", b"y")
    box.os.unlink("/gone")
    assert box.upper_tree() == {
        "/d/": directory(xattrs={"trusted.overlay.opaque": b"y"}, marks={"overlay.opaque": b"y"}),
        "/gone": WHITEOUT,
    }
    assert box.os.listdir("/d") == ["f"]


def test_an_overlay_may_be_kept_inside_an_overlay(box):
    """Marks set through the mount come back as they were: an inner upper finds them (overlayfs.rst, "Nesting")."""
    box.require_kept_upper()
    box.lower({})
    box.os.mkdir("/upper")
    for name, value in (("opaque", b"y"), ("redirect", b"/x"), ("origin", bytes(30)), ("metacopy", b"")):
        box.os.setxattr("/upper", own(box, name), value)
    box.os.rename("/upper", "/moved")
    box.remount()
    assert {name: box.os.getxattr("/moved", name) for name in box.os.listxattr("/moved")} == {
        own(box, "opaque"): b"y",
        own(box, "redirect"): b"/x",
        own(box, "origin"): bytes(30),
        own(box, "metacopy"): b"",
    }


def test_attributes_go_with_their_object(box):
    box.lower({"/f": file("x", xattrs={"user.k": b"v"})})
    box.os.unlink("/f")
    box.write("/f", b"new")
    assert box.os.listxattr("/f") == []
    assert box.tree() == {"/f": "new"}


def test_attributes_follow_a_rename_and_are_shared_by_links(box):
    box.require_kept_upper()
    box.lower({"/f": file("x", xattrs={"user.k": b"v"})})
    box.os.rename("/f", "/g")
    box.os.link("/g", "/h")
    box.os.setxattr("/h", "user.k", b"w")
    assert box.os.getxattr("/g", "user.k") == b"w"
    assert box.upper_tree()["/f"] == WHITEOUT
