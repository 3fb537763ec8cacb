"""Parent directories and time stamps (KB 6)."""

import os
import stat

import pytest

from overlayvfs.testing import DIR, FRESH, OLD, Slot, call, directory, symlink
from overlayvfs.testing.states import arranged

US = 1000
"""Nanoseconds in a microsecond: finer times than those no PyFilesystem holds."""

TIMES_OF_LAYERS = {"/p/": directory(mtime_ns=OLD + 1 * US), "/p/q/": directory(mtime_ns=OLD + 2 * US)}
LOWER = {**TIMES_OF_LAYERS, "/p/q/f": "low", "/p/q/sub/": DIR, "/p/q/gone": "x", "/to/": DIR}
UPPER = {**TIMES_OF_LAYERS, "/p/q/u": "upp", "/p/q/udir/": DIR, "/to/": DIR}


def mtimes(box, *paths):
    """Return each path's time stamp, in microseconds after OLD or "fresh"."""
    stamps = [box.os.stat(path).st_mtime_ns for path in paths]
    return ["fresh" if stamp >= FRESH else (stamp - OLD) / US for stamp in stamps]


MAKES_PARENT_FRESH = {
    "create": [call("open", "/p/q/n", os.O_CREAT | os.O_WRONLY, slot=0)],
    "mkdir": [call("mkdir", "/p/q/n")],
    "mknod": [call("mknod", "/p/q/n", stat.S_IFIFO | 0o600)],
    "symlink": [call("symlink", "t", "/p/q/n")],
    "link": [call("link", "/p/q/f", "/p/q/n")],
    "create over a whiteout": [
        call("unlink", "/p/q/gone"),
        call("utime", "/p/q", ns=(OLD, OLD + 2 * US)),
        call("mkdir", "/p/q/gone"),
    ],
    "unlink of a lower file": [call("unlink", "/p/q/f")],
    "unlink of an upper file": [call("unlink", "/p/q/u")],
    "rmdir of a lower directory": [call("rmdir", "/p/q/sub")],
    "rmdir of an upper directory": [call("rmdir", "/p/q/udir")],
    "rename away": [call("rename", "/p/q/f", "/to/f")],
    "rename into": [call("mkdir", "/to/n"), call("rename", "/to/n", "/p/q/n")],
    "rename inside": [call("rename", "/p/q/u", "/p/q/u2")],
}

KEEPS_PARENTS_TIME = {
    "chmod": [call("chmod", "/p/q/f", 0o600)],
    "open for writing": [call("open", "/p/q/f", os.O_RDWR, slot=0), call("write", Slot(0), b"x")],
    "truncate": [call("truncate", "/p/q/f", 0)],
    "utime": [call("utime", "/p/q/f")],
    "setxattr": [call("setxattr", "/p/q/f", "user.n", b"1")],
    "failing mkdir": [call("mkdir", "/p/q/f")],
    "failing rename": [call("rename", "/p/q/f", "/p/q/sub")],
    "failing rmdir": [call("rmdir", "/p/q")],
    "failing unlink": [call("unlink", "/p/q/missing")],
    "read": [call("open", "/p/q/f", os.O_RDONLY, slot=0), call("read", Slot(0), 9)],
    "listdir": [call("listdir", "/p/q")],
}


@pytest.mark.parametrize("upper", [{}, UPPER], ids=["lower parent", "merged parent"])
@pytest.mark.parametrize("event", MAKES_PARENT_FRESH)
def test_parent_gets_a_fresh_time_and_grandparent_keeps_its_own(box, event, upper):
    if "upper" in event or event == "rename inside":
        upper = UPPER
    if event == "rename into":
        box.require_kept_upper()
    box.lower(LOWER)
    box.upper(upper)
    assert [outcome.error for outcome in box.run(MAKES_PARENT_FRESH[event])] == [None] * len(MAKES_PARENT_FRESH[event])
    assert mtimes(box, "/p/q", "/p") == ["fresh", 1]


@pytest.mark.parametrize("upper", [{}, UPPER], ids=["lower parent", "merged parent"])
@pytest.mark.parametrize("event", KEEPS_PARENTS_TIME)
def test_parent_keeps_its_time(box, event, upper):
    box.lower(LOWER)
    box.upper(upper)
    box.run(KEEPS_PARENTS_TIME[event])
    assert mtimes(box, "/p/q", "/p", "/") == [2, 1, 0]


def test_both_parents_of_a_rename_get_fresh_times(box):
    box.lower(LOWER)
    box.os.rename("/p/q/f", "/to/f")
    assert mtimes(box, "/p/q", "/to", "/p", "/to/f") == ["fresh", "fresh", 1, 0]


def test_utime_takes_both_values_as_given(box):
    box.require_posix()
    box.lower({"/f": "x"})
    box.os.utime("/f", ns=(OLD + 5, OLD + 7))
    st = box.os.stat("/f")
    assert (st.st_atime_ns, st.st_mtime_ns) == (OLD + 5, OLD + 7)


def test_utime_of_a_symlink_itself_leaves_its_target_alone(box):
    box.lower({"/f": "x", "/s": symlink("f")})
    box.os.utime("/s", ns=(OLD + 5, OLD + 7), follow_symlinks=False)
    assert box.os.lstat("/s").st_mtime_ns == OLD + 7
    assert mtimes(box, "/f") == [0]


@pytest.mark.parametrize(
    "op",
    [
        call("chmod", "/x", 0o600),
        call("setxattr", "/x", "user.n", b"1"),
        call("open", "/x", os.O_RDWR, slot=0),
        call("link", "/x", "/n"),
        call("chown", "/x", 1, 1),
    ],
    ids=lambda op: op.name,
)
def test_copy_up_keeps_the_files_time(box, op):
    box.lower(arranged("lower file").lower)
    box.run([op])
    assert mtimes(box, "/x") == [0]


def test_writing_and_truncating_make_the_files_time_fresh(box):
    box.lower({"/f": "abc", "/g": "abc", "/h": "abc"})
    box.write("/f", b"x", os.O_WRONLY)
    box.os.truncate("/g", 3)
    box.os.close(box.os.open("/h", os.O_RDONLY | os.O_TRUNC))
    assert mtimes(box, "/f", "/g", "/h") == ["fresh", "fresh", "fresh"]


def test_a_moved_file_keeps_its_time(box):
    box.lower({"/d/f": "x", "/e/": DIR})
    box.os.rename("/d/f", "/e/f")
    assert mtimes(box, "/e/f") == [0]


def test_a_redirected_directory_keeps_its_time(box):
    box.lower({"/d/": directory(mtime_ns=OLD + 3 * US), "/d/f": "x"})
    box.mount(redirect_dir="on")
    box.os.rename("/d", "/e")
    assert mtimes(box, "/e", "/e/f") == [3, 0]


def test_reading_changes_no_lower_access_time(box):
    box.lower({"/f": "x"})
    before = box.os.stat("/f").st_atime_ns
    box.read("/f")
    assert box.os.stat("/f").st_atime_ns == before


def test_a_setgid_directory_gives_its_group_and_directories_its_bit(box):
    box.lower({"/d/": directory(mode=0o2775, gid=42)})
    box.write("/d/f", b"")
    box.os.mkdir("/d/sub")
    box.os.symlink("t", "/d/s")
    st, sub, link = (box.os.lstat(f"/d/{name}") for name in ("f", "sub", "s"))
    assert (st.st_gid, sub.st_gid, link.st_gid) == (42, 42, 42)
    assert (stat.S_IMODE(st.st_mode), stat.S_IMODE(sub.st_mode)) == (0o644, 0o2755)
