"""Arguments no sane program passes: every open flag with every other, every verb on every odd path (KB 7 to 9, 17, 18).

The rules are spelt out first, for every body. The products behind them are compared with the kernel, call by call and
tree by tree, on one mount each.
"""

import errno
import itertools
import os
import stat

import pytest

from overlayvfs.testing import WHITEOUT, Kernel, Slot, Stack, call, fifo, file, raises_errno, symlink
from overlayvfs.testing.bodies import EngineOnMemory
from overlayvfs.testing.lockstep import diverges
from overlayvfs.testing.minimise import Trial

TREE = {
    "/f": file("abc", xattrs={"user.k": b"v"}),
    "/d/c": "c",
    "/s": symlink("f"),
    "/sd": symlink("d"),
    "/dangling": symlink("new"),
    "/loop": symlink("loop"),
    "/gone": "hidden",
}
UPPER = {"/gone": WHITEOUT, "/u": "upper", "/ud/e/x": "x"}
ODD_PATHS = (
    *("/f", "/f/", "/f/.", "/f/..", "/f/x", "//f", "/./f", "/d/../f"),
    *("/d", "/d/", "/d/.", "/d/..", "/d/c", "/d/c/", "/d/new", "/d/new/", "/d//c"),
    *("/s", "/s/", "/s/x", "/sd", "/sd/", "/sd/.", "/sd/..", "/sd/c", "/sd/new"),
    *("/dangling", "/dangling/", "/dangling/x", "/loop", "/loop/", "/loop/x"),
    *("/gone", "/gone/", "/gone/x", "/new", "/new/", "/new/.", "/new/..", "/new/x"),
    *("/u", "/u/", "/ud", "/ud/", "/ud/e/x", "/ud/e/../../f"),
    *("/" + "n" * 255, "/" + "n" * 256, "/d/" + "é" * 128, "/f/" + "n" * 256, "/new/" + "n" * 256),
)
FEWER_PATHS = (
    *("/f", "/f/", "/f/x", "/d", "/d/", "/d/..", "/d/c", "/d/new/", "/s", "/s/", "/sd", "/sd/", "/sd/c"),
    *("/dangling", "/loop/x", "/gone", "/new", "/new/", "/new/x", "/u", "/ud", "/ud/e", "/" + "n" * 256),
)
"""Enough to be tried in pairs."""

BARE_PATHS = ("", "/", "//", ".", "..", "/..", "/../f", "/." * 2047, "/." * 2048, "/" + "d/../" * 900 + "f")
"""Paths that mean the same wherever the calls have their directory."""


@pytest.mark.parametrize(
    ("op", "error"),
    [
        (call("lstat", ""), "ENOENT"),
        (call("lstat", "/" + "n" * 255), "ENOENT"),
        (call("lstat", "/" + "n" * 256), "ENAMETOOLONG"),
        (call("lstat", "/." * 2047), None),
        (call("lstat", "/." * 2048), "ENAMETOOLONG"),
        *[(call("lstat", path), "ENOTDIR") for path in ("/f/", "/f/.", "/f/..", "/s/")],
        (call("lstat", "/sd/"), None),
        (call("stat", "/loop"), "ELOOP"),
        (call("open", "/new/", os.O_CREAT | os.O_WRONLY, slot=0), "EISDIR"),
        *[(call("open", "/d", flags, slot=0), "EISDIR") for flags in (os.O_CREAT, os.O_WRONLY, os.O_RDWR, os.O_TRUNC)],
        (call("open", "/new", os.O_CREAT | os.O_DIRECTORY, slot=0), "EINVAL"),
        (call("open", "/f", os.O_DIRECTORY, slot=0), "ENOTDIR"),
        (call("open", "/s", os.O_NOFOLLOW, slot=0), "ELOOP"),
        (call("open", "/s", os.O_NOFOLLOW | os.O_DIRECTORY, slot=0), "ENOTDIR"),
        (call("open", "/s", os.O_NOFOLLOW | os.O_PATH, slot=0), None),
        (call("open", "/dangling", os.O_CREAT | os.O_EXCL, slot=0), "EEXIST"),
        (call("open", "/f", os.O_EXCL, slot=0), None),
        (call("open", "/f", os.O_TMPFILE | os.O_WRONLY, slot=0), "ENOTDIR"),
        (call("open", "/d", os.O_TMPFILE, slot=0), "EINVAL"),
        (call("mkdir", "/new/"), None),
        *[(call("mkdir", path), "EEXIST") for path in ("/dangling", "/dangling/", "/d/.", "/d/..", "/")],
        (call("rmdir", "/d/."), "EINVAL"),
        (call("rmdir", "/d/.."), "ENOTEMPTY"),
        *[(call("rmdir", path), "ENOTDIR") for path in ("/sd", "/sd/", "/f")],
        (call("rmdir", "/"), "EBUSY"),
        *[(call("unlink", path), "EISDIR") for path in ("/d/.", "/d/..", "/d", "/")],
        *[(call("unlink", path), "ENOTDIR") for path in ("/f/", "/s/")],
        *[(call("rename", path, "/new"), "EBUSY") for path in ("/d/.", "/d/..", "/")],
        *[(call("rename", "/u", path), "EBUSY") for path in ("/d/.", "/d/..", "/")],
        *[(call("rename", *paths), "ENOTDIR") for paths in (("/f", "/new/"), ("/f/", "/new"), ("/sd/", "/new"))],
        (call("rename", "/ud/", "/new/"), None),
        (call("rename", "/ud", "/ud/e"), "EINVAL"),
        (call("rename", "/ud/e", "/ud"), "ENOTEMPTY"),
        (call("rename", "/d", "/d"), None),
        (call("symlink", "", "/new"), "ENOENT"),
        (call("symlink", "t", "/new/"), "ENOENT"),
        (call("symlink", "t" * 4095, "/new"), None),
        (call("symlink", "t" * 4096, "/new"), "ENAMETOOLONG"),
        (call("link", "/f", "/new/"), "ENOENT"),
        (call("readlink", "/f"), "EINVAL"),
        (call("truncate", "/d", 0), "EISDIR"),
        (call("truncate", "/sd", 0), "EISDIR"),
        (call("truncate", "/f", -1), "EINVAL"),
        (call("mknod", "/new", stat.S_IFDIR | 0o755), "EPERM"),
        (call("mknod", "/new", stat.S_IFLNK | 0o755), "EINVAL"),
    ],
    ids=lambda value: repr(value)[:60],
)
def test_an_odd_argument(box, op, error):
    box.lower(TREE)
    box.upper(UPPER)
    assert box.run([op])[0].error == error


def test_mknod_without_a_type_makes_a_regular_file(box):
    box.require_posix()
    box.lower({})
    box.os.mknod("/new", 0o640)
    assert box.tree() == {"/new": file(mode=0o640)}


@pytest.mark.parametrize(
    ("flags", "errors"),
    [
        (os.O_RDONLY, {"write": "EBADF", "pwrite": "EBADF", "ftruncate": "EINVAL"}),
        (os.O_WRONLY, {"read": "EBADF", "pread": "EBADF"}),
        (os.O_RDWR, {}),
        (os.O_ACCMODE, dict.fromkeys(("read", "pread", "write", "pwrite"), "EBADF") | {"ftruncate": "EINVAL"}),
        (
            os.O_PATH,
            dict.fromkeys(("read", "pread", "write", "pwrite", "lseek", "ftruncate", "fchmod", "fsync"), "EBADF"),
        ),
    ],
    ids=["O_RDONLY", "O_WRONLY", "O_RDWR", "O_ACCMODE", "O_PATH"],
)
def test_what_a_descriptor_of_a_file_is_good_for(box, flags, errors):
    box.lower({"/f": "abc"})
    ops = [
        call("read", Slot(0), 1),
        call("pread", Slot(0), 1, 0),
        call("write", Slot(0), b"x"),
        call("pwrite", Slot(0), b"x", 0),
        call("lseek", Slot(0), 0, os.SEEK_END),
        call("fstat", Slot(0)),
        call("ftruncate", Slot(0), 1),
        call("fchmod", Slot(0), 0o600),
        call("fsync", Slot(0)),
    ]
    outcomes = box.run([call("open", "/f", flags, slot=0), *ops])[1:]
    assert {op.name: outcome.error for op, outcome in zip(ops, outcomes, strict=True) if outcome.error} == errors


def test_what_a_descriptor_of_a_directory_is_good_for(box):
    box.lower({"/d/f": "abc"})
    outcomes = box.run(
        [
            call("open", "/d", os.O_RDONLY, slot=0),
            call("read", Slot(0), 1),
            call("pread", Slot(0), 1, 0),
            call("write", Slot(0), b"x"),
            call("ftruncate", Slot(0), 0),
            call("fsync", Slot(0)),
            call("fchmod", Slot(0), 0o700),
            call("listdir", Slot(0)),
        ]
    )
    assert [outcome.error for outcome in outcomes] == [None, "EISDIR", "EISDIR", "EBADF", "EINVAL", None, None, None]


@pytest.mark.parametrize(
    ("op", "error"),
    [
        (call("pread", Slot(0), 1, -1), "EINVAL"),
        (call("pwrite", Slot(0), b"x", -1), "EINVAL"),
        (call("lseek", Slot(0), -1, os.SEEK_SET), "EINVAL"),
        (call("lseek", Slot(0), -4, os.SEEK_END), "EINVAL"),
        (call("lseek", Slot(0), -1, os.SEEK_CUR), "EINVAL"),
        (call("lseek", Slot(0), 0, 9), "EINVAL"),
        (call("lseek", Slot(0), 3, 3), "ENXIO"),
        (call("lseek", Slot(0), -1, 3), "ENXIO"),
        (call("lseek", Slot(0), 1 << 40, os.SEEK_SET), None),
        (call("ftruncate", Slot(0), -1), "EINVAL"),
        (call("pwrite", Slot(0), b"", 1 << 62), None),
        (call("pread", Slot(0), 1, 1 << 62), None),
        (call("read", Slot(1), 1), "EBADF"),
        (call("close", Slot(1)), "EBADF"),
    ],
    ids=repr,
)
def test_an_odd_offset_or_descriptor(box, op, error):
    box.lower({"/f": "abc"})
    assert box.run([call("open", "/f", os.O_RDWR, slot=0), op])[1].error == error


def test_a_nameless_file_is_written_and_vanishes(box):
    box.require_posix()
    box.lower({"/d/f": "x"})
    outcomes = box.run(
        [
            call("open", "/d", os.O_TMPFILE | os.O_RDWR, 0o600, slot=0),
            call("write", Slot(0), b"abc"),
            call("pread", Slot(0), 9, 0),
            call("fstat", Slot(0)),
            call("close", Slot(0)),
        ]
    )
    assert [outcome.value for outcome in outcomes[:3]] == ["fd", 3, b"abc"]
    assert (outcomes[3].value["nlink"], outcomes[3].value["mode"]) == (0, "600")
    assert box.tree() == {"/d/f": "x"}


def test_a_nameless_file_is_made_where_a_symlink_leads_unless_it_must_not_be_followed(box):
    box.lower({"/d/f": "x", "/sd": symlink("d")})
    flags = os.O_TMPFILE | os.O_RDWR
    box.os.close(box.os.open("/sd", flags))
    with raises_errno(errno.ENOTDIR):
        box.os.open("/sd", flags | os.O_NOFOLLOW)


FLAGS = (
    *(os.O_CREAT, os.O_EXCL, os.O_TRUNC, os.O_APPEND, os.O_DIRECTORY, os.O_NOFOLLOW, os.O_PATH),
    # Alone it is nothing: O_TMPFILE is this bit and O_DIRECTORY.
    os.O_TMPFILE & ~os.O_DIRECTORY,
)
ALL_FLAGS = [
    access | sum(chosen)
    for access in (os.O_RDONLY, os.O_WRONLY, os.O_RDWR, os.O_ACCMODE)
    for count in range(len(FLAGS) + 1)
    for chosen in itertools.combinations(FLAGS, count)
]
TARGETS = {
    "lower file": ({"/x": "abc"}, {}, "/x"),
    "upper file": ({}, {"/x": "abc"}, "/x"),
    "lower file and a slash": ({"/x": "abc"}, {}, "/x/"),
    "nothing": ({"/y": "abc"}, {}, "/x"),
    "nothing and a slash": ({"/y": "abc"}, {}, "/x/"),
    "whiteout": ({"/x": "abc"}, {"/x": WHITEOUT}, "/x"),
    "lower directory": ({"/x/f": "abc"}, {}, "/x"),
    "merged directory and a slash": ({"/x/f": "abc"}, {"/x/g": "abc"}, "/x/"),
    "symlink to a file": ({"/t": "abc", "/x": symlink("t")}, {}, "/x"),
    "symlink to a file and a slash": ({"/t": "abc", "/x": symlink("t")}, {}, "/x/"),
    "symlink to a directory": ({"/t/f": "abc", "/x": symlink("t")}, {}, "/x"),
    "symlink to a directory and a slash": ({"/t/f": "abc", "/x": symlink("t")}, {}, "/x/"),
    "dangling symlink": ({"/x": symlink("t")}, {}, "/x"),
    "dangling symlink and a slash": ({"/x": symlink("t")}, {}, "/x/"),
    "symlink loop": ({"/x": symlink("x")}, {}, "/x"),
    "below a file": ({"/x": "abc"}, {}, "/x/y"),
    "dot": ({"/x/f": "abc"}, {}, "/x/."),
    "dot dot": ({"/x/f": "abc"}, {}, "/x/.."),
}


SLOW_WHERE_WRITABLE = pytest.mark.parametrize(
    "writable", [pytest.param(True, marks=pytest.mark.slow), False], ids=["writable", "read-only"]
)
"""Products with a directory for each of a thousand cells take seconds; read-only they need but one."""


def compared(oracle, lower, upper, cells):
    """Run every cell, operations made for the directory it is given, on both sides; return what differs.

    Each has a directory of its own, but where nothing can change (no upper) one serves all.
    """
    if upper is None:
        stack = Stack([{"/one" + path: node for path, node in lower.items()}, {"/below": "x"}], None)
        ops = [op for cell in cells for op in cell("/one")]
        return diverges(oracle, EngineOnMemory, Trial(stack, tuple(ops)))
    lowers, uppers, ops = {}, {}, []
    for number, cell in enumerate(cells):
        place = f"/{number:04}"
        lowers |= {place + path: node for path, node in lower.items()}
        uppers |= {place + path: node for path, node in upper.items()}
        ops += cell(place)
    return diverges(oracle, EngineOnMemory, Trial(Stack([lowers], uppers), tuple(ops)))


def opening(path, flags):
    # Without O_NONBLOCK a fifo would wait for its other end.
    return lambda place: [
        call("open", place + path, flags | os.O_NONBLOCK, 0o640, slot=0),
        call("fstat", Slot(0)),
        call("close", Slot(0)),
    ]


@pytest.mark.kernel
@SLOW_WHERE_WRITABLE
@pytest.mark.parametrize("target", TARGETS)
def test_every_combination_of_open_flags_comes_to_what_it_does_in_linux(oracle: Kernel, target, writable):
    lower, upper, path = TARGETS[target]
    cells = [opening(path, flags) for flags in ALL_FLAGS]
    assert compared(oracle, {**lower, **({} if writable else upper)}, upper if writable else None, cells) == []


@pytest.mark.kernel
def test_a_fifo_can_be_named_with_every_combination_of_flags(oracle: Kernel):
    """Opening one is left out: Linux has a driver there, and a library has none."""
    cells = [
        opening("/x", flags) for flags in ALL_FLAGS if flags & os.O_PATH or (flags & os.O_CREAT and flags & os.O_EXCL)
    ]
    assert compared(oracle, {"/x": fifo()}, {}, cells) == []


ONE_PATH = {
    "open O_RDONLY": lambda path: call("open", path, os.O_RDONLY, slot=0),
    "open O_WRONLY": lambda path: call("open", path, os.O_WRONLY, slot=0),
    "open O_CREAT": lambda path: call("open", path, os.O_CREAT | os.O_RDWR, 0o600, slot=0),
    "open O_EXCL": lambda path: call("open", path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600, slot=0),
    "stat": lambda path: call("stat", path),
    "lstat": lambda path: call("lstat", path),
    "readlink": lambda path: call("readlink", path),
    "listdir": lambda path: call("listdir", path),
    "access": lambda path: call("access", path, os.W_OK),
    "mkdir": lambda path: call("mkdir", path),
    "rmdir": lambda path: call("rmdir", path),
    "unlink": lambda path: call("unlink", path),
    "mknod": lambda path: call("mknod", path, stat.S_IFIFO | 0o644),
    "mknod 0/0": lambda path: call("mknod", path, stat.S_IFCHR, 0),
    "mknod S_IFDIR": lambda path: call("mknod", path, stat.S_IFDIR),
    "symlink": lambda path: call("symlink", "t", path),
    "truncate": lambda path: call("truncate", path, 1),
    "truncate -1": lambda path: call("truncate", path, -1),
    "chmod": lambda path: call("chmod", path, 0o640),
    "chown": lambda path: call("chown", path, 1, 2),
    "lchown": lambda path: call("lchown", path, 1, 2),
    "utime": lambda path: call("utime", path, ns=(1, 2)),
    "utime nofollow": lambda path: call("utime", path, ns=(1, 2), follow_symlinks=False),
    "getxattr": lambda path: call("getxattr", path, "user.k"),
    "listxattr": lambda path: call("listxattr", path, follow_symlinks=False),
    "setxattr": lambda path: call("setxattr", path, "user.k", b"w"),
    "setxattr nofollow": lambda path: call("setxattr", path, "user.k", b"w", follow_symlinks=False),
    "setxattr nonsense": lambda path: call("setxattr", path, "nonsense", b"w"),
    "removexattr": lambda path: call("removexattr", path, "user.k"),
    "removexattr empty": lambda path: call("removexattr", path, ""),
    "statvfs": lambda path: call("statvfs", path),
}
TWO_PATHS = {
    "rename": lambda src, dst: call("rename", src, dst),
    "noreplace": lambda src, dst: call("renameat2", src, dst, 1),
    "exchange": lambda src, dst: call("renameat2", src, dst, 2),
    "unknown flags": lambda src, dst: call("renameat2", src, dst, 8),
    "link": lambda src, dst: call("link", src, dst, follow_symlinks=False),
    "link following": lambda src, dst: call("link", src, dst, follow_symlinks=True),
}


@pytest.mark.kernel
@pytest.mark.parametrize("writable", [True, False], ids=["writable", "read-only"])
@pytest.mark.parametrize("verb", ONE_PATH)
def test_every_verb_on_every_odd_path_comes_to_what_it_does_in_linux(oracle: Kernel, verb, writable):
    make = ONE_PATH[verb]
    cells = [lambda place, path=path: [make(place + path)] for path in ODD_PATHS]
    cells += [lambda place, path=path: [make(path)] for path in BARE_PATHS]
    assert compared(oracle, TREE, UPPER if writable else None, cells) == []


@pytest.mark.kernel
@SLOW_WHERE_WRITABLE
@pytest.mark.parametrize("verb", TWO_PATHS)
def test_every_verb_on_every_two_odd_paths_comes_to_what_it_does_in_linux(oracle: Kernel, verb, writable):
    make = TWO_PATHS[verb]
    bare = list(itertools.product(("/f", "/d", "/new", "/ud/"), BARE_PATHS))
    cells = [lambda place, a=a, b=b: [make(place + a, place + b)] for a, b in itertools.product(FEWER_PATHS, repeat=2)]
    cells += [lambda place, a=a, b=b: [make(place + a, b)] for a, b in bare]
    cells += [lambda place, a=a, b=b: [make(b, place + a)] for a, b in bare]
    assert compared(oracle, TREE, UPPER if writable else None, cells) == []
