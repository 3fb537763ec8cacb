"""The read-only overlay: no upper (KB 17)."""

import os
import stat

import pytest

from overlayvfs.testing import Slot, call, file, symlink

TOP = {
    "/f": file("x", xattrs={"user.k": b"v"}),
    "/d/c": "c",
    "/e": symlink("f"),
    "/sd": symlink("d"),
    "/dangling": symlink("nowhere"),
    "/loop": symlink("loop"),
}
LONG = "/" + "n" * 256
RW_MODES = {"O_WRONLY": os.O_WRONLY, "O_RDWR": os.O_RDWR, "O_TRUNC": os.O_RDONLY | os.O_TRUNC}


def opened(path, flags):
    return call("open", path, flags, slot=0)


CASES = [
    (opened("/f", os.O_RDONLY), None),
    (opened("/f", os.O_RDONLY | os.O_CREAT), None),
    (call("listdir", "/d"), None),
    (call("stat", "/f"), None),
    (call("readlink", "/e"), None),
    (call("getxattr", "/f", "user.k"), None),
    *[(opened("/f", flags), "EROFS") for flags in RW_MODES.values()],
    *[(opened("/f", flags | os.O_CREAT), "EROFS") for flags in RW_MODES.values()],
    (opened("/new", os.O_WRONLY | os.O_CREAT), "EROFS"),
    (opened("/f", os.O_WRONLY | os.O_CREAT | os.O_EXCL), "EEXIST"),
    (opened("/missing/new", os.O_WRONLY | os.O_CREAT), "ENOENT"),
    (opened("/missing", os.O_WRONLY), "ENOENT"),
    (opened("/d", os.O_WRONLY), "EISDIR"),
    (opened("/new/", os.O_WRONLY | os.O_CREAT), "EISDIR"),
    (opened("/f", os.O_WRONLY | os.O_DIRECTORY), "ENOTDIR"),
    (opened("/e", os.O_WRONLY | os.O_NOFOLLOW), "ELOOP"),
    *[
        (call(name, *before, path, *after), error)
        for name, before, after in (
            ("mkdir", (), ()),
            ("mknod", (), (stat.S_IFREG | 0o644,)),
            ("symlink", ("t",), ()),
        )
        for path, error in (
            ("/new", "EROFS"),
            ("/f", "EEXIST"),
            ("/missing/new", "ENOENT"),
            ("/f/new", "ENOTDIR"),
            ("/loop/new", "ELOOP"),
            (LONG, "ENAMETOOLONG"),
        )
    ],
    *[
        (call(name, path), "EROFS")
        for name in ("unlink", "rmdir")
        for path in ("/f", "/d", "/missing", LONG, "/f/", "/sd/")
    ],
    *[
        (call("rename", src, dst), "EROFS")
        for src, dst in (
            ("/f", "/n"),
            ("/f", "/f"),
            ("/missing", "/n"),
            ("/d", "/d/x"),
            ("/f", "/n/"),
            ("/f", LONG),
            (LONG, "/n"),
            ("/d", "/f"),
        )
    ],
    (call("rename", "/missing/f", "/n"), "ENOENT"),
    (call("rename", "/f", "/missing/n"), "ENOENT"),
    (call("rename", "/f/x", "/n"), "ENOTDIR"),
    (call("unlink", "/missing/f"), "ENOENT"),
    (call("rmdir", "/f/x"), "ENOTDIR"),
    *[(call("renameat2", "/f", "/n", flags), "EROFS") for flags in (1, 2)],
    (call("rmdir", "/d/."), "EINVAL"),
    (call("rmdir", "/d/.."), "ENOTEMPTY"),
    (call("unlink", "/d/."), "EISDIR"),
    (call("unlink", "/d/.."), "EISDIR"),
    (call("rename", "/d/.", "/n"), "EBUSY"),
    (call("rename", "/f", "/d/.."), "EBUSY"),
    (call("mkdir", "/new/"), "EROFS"),
    (call("symlink", "t", "/new/"), "ENOENT"),
    (call("symlink", "", "/new"), "ENOENT"),
    (call("link", "/f", "/new/"), "ENOENT"),
    (call("link", "/missing", "/new"), "ENOENT"),
    (call("link", "/f", "/d"), "EEXIST"),
    (call("link", "/f", "/new"), "EROFS"),
    (call("link", "/d", "/new"), "EROFS"),
    (call("link", "/f", LONG), "ENAMETOOLONG"),
    (call("mknod", "/new", stat.S_IFCHR, 0), "EROFS"),
    (call("mknod", "/new", stat.S_IFDIR | 0o755), "EPERM"),
    (call("truncate", "/f", 0), "EROFS"),
    (call("truncate", "/d", 0), "EISDIR"),
    (call("truncate", "/missing", 0), "ENOENT"),
    (call("truncate", "/f", -1), "EINVAL"),
    (call("chmod", "/f", 0o644), "EROFS"),
    (call("chmod", "/missing", 0o644), "ENOENT"),
    (call("chown", "/f", 0, 0), "EROFS"),
    (call("lchown", "/e", 0, 0), "EROFS"),
    (call("utime", "/f"), "EROFS"),
    (call("utime", "/missing"), "ENOENT"),
    (call("setxattr", "/f", "user.n", b""), "EROFS"),
    (call("setxattr", "/e", "user.n", b"", follow_symlinks=False), "EROFS"),
    (call("setxattr", "/f", "unknown.n", b""), "EROFS"),
    (call("setxattr", "/f", "user.", b""), "EROFS"),
    (call("setxattr", "/f", "user." + "n" * 251, b""), "ERANGE"),
    (call("removexattr", "/f", "user.k"), "EROFS"),
    (call("removexattr", "/f", "user.absent"), "EROFS"),
    (call("getxattr", "/f", "user.absent"), "ENODATA"),
]


def arrange(box):
    box.lower(TOP)
    box.lower({"/f": "hidden", "/deep/g": "y"})
    box.upper(None)


@pytest.mark.parametrize(("op", "error"), CASES, ids=lambda value: repr(value)[:70])
def test_calls_on_a_read_only_overlay(box, op, error):
    arrange(box)
    assert box.run([op])[0].error == error


def test_access_tells_reading_from_writing(box):
    arrange(box)
    assert box.os.access("/f", os.R_OK)
    assert not box.os.access("/f", os.W_OK)


def test_f_calls_through_a_read_only_descriptor_are_erofs(box):
    arrange(box)
    outcomes = box.run(
        [
            opened("/f", os.O_RDONLY),
            call("fchmod", Slot(0), 0o600),
            call("fsync", Slot(0)),
            call("ftruncate", Slot(0), 0),
            call("read", Slot(0), 9),
        ]
    )
    assert [outcome.error for outcome in outcomes] == [None, "EROFS", None, "EINVAL", None]


def test_a_read_only_overlay_says_so_in_statvfs(box):
    arrange(box)
    assert box.run([call("statvfs", "/")])[0].value["read-only"]


def test_a_read_only_overlay_merges_its_lowers(box):
    arrange(box)
    assert sorted(box.os.listdir("/")) == ["d", "dangling", "deep", "e", "f", "loop", "sd"]
    assert box.read("/deep/g") == b"y"
    assert box.read("/e") == b"x"
