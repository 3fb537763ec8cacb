"""Copy-up: what triggers it, what it takes along, what it marks (KB 5; overlayfs.rst, "Non-directories")."""

import errno
import os

import pytest

from overlayvfs.testing import (
    OLD,
    Slot,
    call,
    device,
    directory,
    fifo,
    file,
    hardlink,
    raises_errno,
    symlink,
)

LOWER = {
    "/d/f": file("data", mode=0o644, xattrs={"user.k": b"v"}),
    "/d/g": "other",
    "/d/s": symlink("f"),
    "/d/sub/c": "x",
    "/d/empty/": directory(),
}
F = "/d/f"
FD = Slot(0)


def opened(flags, *more):
    return [call("open", F, flags, slot=0), *more]


COPIES_UP = {
    "open O_WRONLY": opened(os.O_WRONLY),
    "open O_RDWR": opened(os.O_RDWR),
    "open O_RDWR|O_CREAT": opened(os.O_RDWR | os.O_CREAT),
    "open O_RDONLY|O_TRUNC": opened(os.O_RDONLY | os.O_TRUNC),
    "open O_WRONLY|O_TRUNC": opened(os.O_WRONLY | os.O_TRUNC),
    "open O_WRONLY through a symlink": [call("open", "/d/s", os.O_WRONLY, slot=0)],
    "truncate to the same size": [call("truncate", F, 4)],
    "truncate to less": [call("truncate", F, 1)],
    "chmod to the same mode": [call("chmod", F, 0o644)],
    "chown to the same owner": [call("chown", F, 0, 0)],
    "chown to nobody in particular": [call("chown", F, -1, -1)],
    "utime to the same times": [call("utime", F, ns=(OLD, OLD))],
    "utime to now": [call("utime", F)],
    "setxattr": [call("setxattr", F, "user.n", b"1")],
    "setxattr XATTR_CREATE of a present name": [call("setxattr", F, "user.k", b"1", os.XATTR_CREATE)],
    "setxattr XATTR_REPLACE of an absent name": [call("setxattr", F, "user.n", b"1", os.XATTR_REPLACE)],
    "removexattr": [call("removexattr", F, "user.k")],
    "link": [call("link", F, "/d/n")],
    "rename": [call("rename", F, "/d/n")],
    "fchmod through O_RDONLY": opened(os.O_RDONLY, call("fchmod", FD, 0o600)),
    "fchown through O_RDONLY": opened(os.O_RDONLY, call("fchown", FD, 0, 0)),
    "utime through O_RDONLY": opened(os.O_RDONLY, call("utime", FD, ns=(1, 1))),
    "setxattr through O_RDONLY": opened(os.O_RDONLY, call("setxattr", FD, "user.n", b"1")),
}

COPIES_NOTHING_UP = {
    "open O_RDONLY": opened(os.O_RDONLY),
    "open O_RDONLY|O_CREAT": opened(os.O_RDONLY | os.O_CREAT),
    "open O_PATH": opened(os.O_PATH),
    "open O_RDONLY|O_SYNC": opened(os.O_RDONLY | os.O_SYNC),
    "open O_RDONLY|O_NOATIME": opened(os.O_RDONLY | os.O_NOATIME),
    "open O_CREAT|O_EXCL": opened(os.O_WRONLY | os.O_CREAT | os.O_EXCL),
    "read": opened(os.O_RDONLY, call("read", FD, 10)),
    "fsync": opened(os.O_RDONLY, call("fsync", FD)),
    "stat": [call("stat", F)],
    "lstat": [call("lstat", "/d/s")],
    "readlink": [call("readlink", "/d/s")],
    "listdir": [call("listdir", "/d")],
    "access W_OK": [call("access", F, os.W_OK)],
    "getxattr": [call("getxattr", F, "user.k")],
    "listxattr": [call("listxattr", F)],
    "statvfs": [call("statvfs", F)],
    "setxattr user.* on a symlink": [call("setxattr", "/d/s", "user.n", b"1", follow_symlinks=False)],
    "removexattr of an absent name": [call("removexattr", F, "user.absent")],
    "rename onto itself": [call("rename", F, F)],
    "rename a lower directory": [call("rename", "/d/sub", "/d/n")],
    "rename a file onto a directory": [call("rename", F, "/d/sub")],
    "rename a directory onto a file": [call("rename", "/d/sub", F)],
    "rename of a missing name": [call("rename", "/d/missing", F)],
    "link onto an existing name": [call("link", F, "/d/g")],
    "link of a directory": [call("link", "/d/sub", "/d/n")],
    "mkdir of an existing name": [call("mkdir", F)],
    "symlink of an existing name": [call("symlink", "t", F)],
    "rmdir of a non-empty directory": [call("rmdir", "/d/sub")],
    "rmdir of a file": [call("rmdir", F)],
    "unlink of a directory": [call("unlink", "/d/sub")],
    "unlink of a missing name": [call("unlink", "/d/missing")],
    "truncate to a negative size": [call("truncate", F, -1)],
}


@pytest.mark.parametrize("ops", COPIES_UP.values(), ids=COPIES_UP)
def test_copies_up(box, ops):
    box.lower(LOWER)
    box.run(ops)
    assert {"/d/f", "/d/n"} & set(box.snapshot("upper"))


@pytest.mark.parametrize("ops", COPIES_NOTHING_UP.values(), ids=COPIES_NOTHING_UP)
def test_copies_nothing_up(box, ops):
    box.lower(LOWER)
    box.run(ops)
    assert box.upper_tree() == {}


def test_everything_of_a_file_is_copied(box):
    copied = file("data", mode=0o6751, uid=5, gid=7, mtime_ns=OLD + 123_456_789, xattrs={"user.a": b"1", "user.b": b""})
    box.lower({"/d/f": copied})
    box.os.close(box.os.open("/d/f", os.O_WRONLY))
    entry, original = box.snapshot("upper")["/d/f"], box.snapshot(0)["/d/f"]
    assert entry._replace(marks=(), mtime=0) == original._replace(mtime=0)
    assert entry.mtime == OLD + 123_456_789


def test_trusted_attributes_are_copied(box):
    box.lower({"/f": file("x", xattrs={"trusted.a": b"1", "user.a": b"2"})})
    box.os.chmod("/f", 0o600)
    assert box.upper_tree() == {"/f": file("x", mode=0o600, xattrs={"trusted.a": b"1", "user.a": b"2"})}


def test_both_times_are_copied_to_the_nanosecond(box):
    box.lower({"/f": file("x", mtime_ns=OLD + 987_654_321)})
    before = box.os.stat("/f")
    box.os.chmod("/f", 0o600)
    after = box.os.stat("/f")
    assert (after.st_mtime_ns, after.st_atime_ns) == (before.st_mtime_ns, before.st_atime_ns)
    assert after.st_ctime_ns > before.st_mtime_ns


@pytest.mark.parametrize(
    "node",
    [symlink("any/where", uid=3), fifo(mode=0o640, gid=4), device(mode=0o666)],
    ids=["symlink", "fifo", "device"],
)
def test_special_objects_are_copied_with_what_makes_them(box, node):
    box.lower({"/d/n": node})
    box.os.lchown("/d/n", 8, 9)
    [copied] = [value for path, value in box.upper_tree().items() if path == "/d/n"]
    assert (copied.uid, copied.gid, copied.mode) == (8, 9, node.mode)
    assert type(copied) is type(node)


def test_missing_ancestors_are_copied_up_as_directories(box):
    box.lower(
        {
            "/a/": directory(mode=0o750, mtime_ns=OLD + 1, xattrs={"user.k": b"a"}),
            "/a/b/": directory(mode=0o2711, uid=5, mtime_ns=OLD + 2),
            "/a/b/f": "x",
            "/a/sibling": "y",
        }
    )
    box.os.chmod("/a/b/f", 0o600)
    assert box.upper_tree() == {
        "/a/": directory(mode=0o750, xattrs={"user.k": b"a"}),
        "/a/b/": directory(mode=0o2711, uid=5),
        "/a/b/f": file("x", mode=0o600),
    }
    assert [box.snapshot("upper")[path].mtime for path in ("", "/a", "/a/b")] == [OLD, OLD + 1, OLD + 2]


def test_ancestors_take_after_the_topmost_lower(box):
    box.lower({"/a/": directory(mode=0o700)})
    box.lower({"/a/": directory(mode=0o777), "/a/f": "x"})
    box.os.chmod("/a/f", 0o600)
    assert box.upper_tree() == {"/a/": directory(mode=0o700), "/a/f": file("x", mode=0o600)}


def test_a_copy_has_an_origin_and_its_parents_are_impure(box):
    box.require_origins()
    box.lower({"/d/f": "x", "/d/s": symlink("f")})
    box.os.chmod("/d/f", 0o600)
    box.os.lchown("/d/s", 0, 0)
    impure = {"impure": b"y"}
    assert box.upper_tree(origin=True, impure=True) == {
        "/": directory(marks=impure),
        "/d/": directory(origin=True, marks=impure),
        "/d/f": file("x", mode=0o600, origin=True),
        "/d/s": symlink("f", origin=True),
    }


def test_a_copy_of_one_of_several_hard_links_has_no_origin(box):
    box.lower({"/f": "x", "/g": hardlink("/f")})
    box.os.chmod("/f", 0o600)
    assert box.upper_tree(origin=True) == {"/f": file("x", mode=0o600)}


def test_a_copy_of_one_of_several_hard_links_parts_from_the_others(box):
    box.lower({"/f": "x", "/g": hardlink("/f"), "/h": hardlink("/f")})
    box.write("/f", b"new")
    assert (box.read("/f"), box.read("/g"), box.read("/h")) == (b"new", b"x", b"x")
    assert [box.os.stat(path).st_nlink for path in ("/f", "/g", "/h")] == [1, 3, 3]


def test_a_link_of_a_lower_file_makes_two_names_of_one_upper_object(box):
    box.require_kept_upper()
    box.lower({"/d/f": "x"})
    box.os.link("/d/f", "/n")
    box.write("/n", b"new")
    assert box.read("/d/f") == b"new"
    assert box.upper_tree() == {"/d/f": "new", "/n": hardlink("/d/f")}


def test_the_targets_of_rename_and_unlink_are_not_copied(box):
    box.lower({"/f": "source", "/g": "replaced", "/h": "removed"})
    box.os.rename("/f", "/g")
    box.os.unlink("/h")
    assert sorted(path for path, node in box.upper_tree().items() if node == "source") == ["/g"]


def test_opening_for_writing_copies_the_data_even_if_nothing_is_written(box):
    box.lower({"/f": "data"})
    box.os.close(box.os.open("/f", os.O_RDWR))
    assert box.upper_tree() == {"/f": "data"}


def test_truncation_at_open_copies_no_data(box):
    box.lower({"/f": "data"})
    box.os.close(box.os.open("/f", os.O_RDONLY | os.O_TRUNC))
    assert box.upper_tree() == {"/f": ""}


def test_root_keeps_set_id_bits_at_writing_and_loses_them_at_chown(box):
    box.require_root()
    box.lower({"/f": file("x", mode=0o6755), "/g": file("x", mode=0o6755)})
    box.write("/f", b"y", os.O_WRONLY)
    box.os.truncate("/f", 0)
    box.os.chown("/g", 0, 0)
    assert box.upper_tree() == {"/f": file(mode=0o6755), "/g": file("x", mode=0o755)}


def test_writing_goes_to_the_copy_and_the_rest_of_the_data_stays(box):
    box.lower({"/f": "abcdef"})
    fd = box.os.open("/f", os.O_RDWR)
    box.os.pwrite(fd, b"XY", 2)
    assert box.os.pread(fd, 10, 0) == b"abXYef"
    box.os.close(fd)
    assert box.upper_tree() == {"/f": "abXYef"}


def test_a_large_file_is_copied_whole(box):
    data = bytes(range(256)) * 8192 + b"end"
    box.lower({"/f": file(data)})
    box.os.chmod("/f", 0o600)
    assert box.read("/f") == data


def test_marks_of_a_lower_are_not_copied(box):
    box.lower({"/d/": directory(opaque=True, xattrs={"user.k": b"v"}), "/d/f": "x"})
    box.os.chmod("/d", 0o700)
    assert box.upper_tree() == {"/d/": directory(mode=0o700, xattrs={"user.k": b"v"})}


def test_a_copied_up_file_stays_the_same_file(box):
    box.require_kept_upper()
    box.lower({"/d/f": "x", "/d/s": symlink("f")})
    before = [box.os.lstat(path) for path in ("/d", "/d/f", "/d/s")]
    box.os.chmod("/d/f", 0o600)
    box.os.lchown("/d/s", 0, 0)
    after = [box.os.lstat(path) for path in ("/d", "/d/f", "/d/s")]
    assert [(st.st_dev, st.st_ino) for st in after] == [(st.st_dev, st.st_ino) for st in before]


def test_a_reader_opened_before_sees_what_is_written_after(box):
    box.lower({"/f": "old"})
    reader = box.os.open("/f", os.O_RDONLY)
    box.write("/f", b"newer", os.O_WRONLY)
    assert box.os.pread(reader, 10, 0) == b"newer"
    assert box.os.fstat(reader).st_size == 5


def test_failing_exclusive_create_copies_nothing_and_keeps_the_data(box):
    box.lower({"/d/f": "x"})
    with raises_errno(errno.EEXIST):
        box.os.open("/d/f", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_TRUNC)
    assert box.upper_tree() == {}
