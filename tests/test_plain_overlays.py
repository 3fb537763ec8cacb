"""Overlays on plain PyFilesystems: all of FSTestCases, and backends that fail in the middle of what the union does."""

import errno
import os
import tempfile
import unittest
from collections.abc import Callable
from typing import Any

import pytest
from fs.memoryfs import MemoryFS
from fs.osfs import OSFS
from fs.wrap import read_only
from fs.wrapfs import WrapFS
from plainfs import Flaky
from test_fs_testcases import NAMES, Cases

from overlayvfs import OverlayFS
from overlayvfs.layers.base import Torn
from overlayvfs.testing import raises_errno


class PlainOSFS(OSFS):
    """A subclass: nobody may go around it to the host directory."""


def decoys() -> MemoryFS:
    """A plain layer with a directory of each name, in it a file and a directory of each name."""
    layer = MemoryFS()
    for outer in NAMES:
        layer.makedir(outer)
        for inner in NAMES:
            layer.makedir(f"{outer}/{inner}")
        layer.writebytes(f"{outer}/decoy", b"decoy")
    return layer


def whiteouts() -> MemoryFS:
    layer = MemoryFS()
    for name in NAMES:
        layer.touch(f".wh.{name}")
    return layer


HIDDEN = [whiteouts(), decoys(), read_only(decoys())]
"""Lowers that show nothing: made once, as nothing may change them."""


class TestPlainMemoryUpper(Cases, unittest.TestCase):
    def make_fs(self):
        return OverlayFS([MemoryFS()], MemoryFS())


class TestPlainMemoryUpperOverHiddenLowers(Cases, unittest.TestCase):
    def make_fs(self):
        return OverlayFS(HIDDEN, MemoryFS())


class TestPlainUpperOfWhiteoutsOverLower(Cases, unittest.TestCase):
    def make_fs(self):
        return OverlayFS(HIDDEN[1:], WrapFS(whiteouts()))


class TestSubclassedOSFSUpper(Cases, unittest.TestCase):
    def make_fs(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        return OverlayFS(HIDDEN, PlainOSFS(directory.name))


def test_hidden_lowers_are_as_they_were_made() -> None:
    assert [sorted(layer.walk.files()) for layer in HIDDEN] == [
        sorted(layer.walk.files()) for layer in (whiteouts(), decoys(), decoys())
    ]


LOWER = {"/f": b"lower", "/g": b"another", "/d/f": b"in d", "/d/e/f": b"in e"}

LATE = [pytest.param(False, id="undone"), pytest.param(True, id="done", marks=pytest.mark.slow)]
"""Whether a failing call has done its work when it raises."""

UNION: dict[str, Callable[[Any], object]] = {
    "open a lower file for writing": lambda os_: os_.close(os_.open("/d/e/f", os.O_WRONLY | os.O_APPEND)),
    "open a lower file to empty it": lambda os_: os_.close(os_.open("/d/e/f", os.O_WRONLY | os.O_TRUNC)),
    "cut a lower file": lambda os_: os_.truncate("/d/e/f", 2),
    "grow a lower file": lambda os_: os_.truncate("/d/e/f", 9),
    "make a file": lambda os_: os_.close(os_.open("/d/new", os.O_CREAT | os.O_EXCL | os.O_WRONLY)),
    "make a file over a whiteout": lambda os_: os_.close(os_.open("/gone", os.O_CREAT | os.O_EXCL | os.O_WRONLY)),
    "make a directory": lambda os_: os_.mkdir("/d/new"),
    "make a directory over a whiteout": lambda os_: os_.mkdir("/gone"),
    "remove a lower file": lambda os_: os_.unlink("/f"),
    "remove an upper file": lambda os_: os_.unlink("/up"),
    "remove a merged directory": lambda os_: os_.rmdir("/shadow"),
    "rename a lower file": lambda os_: os_.rename("/f", "/d/moved"),
    "rename over a lower file": lambda os_: os_.rename("/f", "/g"),
    "rename an upper file over a lower one": lambda os_: os_.rename("/up", "/g"),
    "rename an upper directory": lambda os_: os_.rename("/updir", "/d/moved"),
    "set the times of a lower file": lambda os_: os_.utime("/d/f", (5, 5)),
}
"""One system call each: what takes several may be seen half done when the second fails."""

CALLED_WITH = {"/d/e/f", "/d/f", "/d/new", "/f", "/gone", "/shadow", "/up", "/updir"}


def filled(layer: Flaky) -> Flaky:
    for path, data in LOWER.items():
        layer.makedirs(path.rpartition("/")[0], recreate=True)
        layer.writebytes(path, data)
        layer.setinfo(path, {"details": {"modified": 1}})
    layer.makedir("/gone")
    layer.makedirs("/shadow/sub")
    return layer


def flaky_stack() -> tuple[Flaky, Flaky]:
    lower, upper = filled(Flaky()), Flaky()
    upper.touch("/.wh.gone")
    upper.writebytes("/up", b"upper")
    upper.makedirs("/updir/sub")
    upper.makedir("/shadow")
    upper.touch("/shadow/.wh.sub")
    return lower, upper


def shown(ofs: OverlayFS) -> dict[str, tuple[bytes, int] | None]:
    """Return all an overlay shows: contents of files and whether their mtime is old, None for directories."""
    tree = {path: None if info.is_dir else ofs.readbytes(path) for path, info in ofs.walk.info()}
    return {path: None if data is None else (data, min(ofs.os.stat(path).st_mtime, 10)) for path, data in tree.items()}


@pytest.mark.parametrize("late", LATE)
@pytest.mark.parametrize("faulty", ["lower", "upper"])
@pytest.mark.parametrize("verb", UNION)
def test_a_failing_call_in_the_middle_leaves_the_tree_before_or_after(verb: str, faulty: str, late: bool) -> None:
    lower, upper = flaky_stack()
    with OverlayFS([lower], upper) as ofs:
        before = shown(ofs)
    lower, upper = flaky_stack()
    with OverlayFS([lower], upper) as ofs:
        layer = lower if faulty == "lower" else upper
        layer.calls.clear()
        UNION[verb](ofs.os)
        count = len(layer.calls)
        after = shown(ofs)
    for number in range(count):
        lower, upper = flaky_stack()
        with OverlayFS([lower], upper) as ofs:
            layer = lower if faulty == "lower" else upper
            layer.calls.clear()
            layer.late, layer.fail_at = late, range(number, number + 1)
            failure = None
            try:
                UNION[verb](ofs.os)
            except OSError as error:
                failure = error
            layer.fail_at = None
            seen = shown(ofs)
            assert seen in ([after] if failure is None else [before, after]), f"call {number}: {failure!r}"
        with OverlayFS([lower], upper) as ofs:
            assert shown(ofs) == seen, f"call {number}, reopened: {failure!r}"


@pytest.mark.parametrize(("userxattr", "other"), [(True, "trusted.overlay.opaque"), (False, "user.overlay.opaque")])
def test_an_attribute_called_as_a_mark_of_the_other_dialect_is_refused_and_hides_nothing(
    userxattr: bool, other: str
) -> None:
    lower, upper = MemoryFS(), MemoryFS()
    lower.makedir("d").writetext("f", "x")
    with OverlayFS([lower], upper, userxattr=userxattr) as ofs:
        with raises_errno(errno.EOPNOTSUPP):
            ofs.os.setxattr("/d", other, b"y")
        assert ofs.os.listdir("/d") == ["f"]
    with OverlayFS([lower], upper, userxattr=userxattr) as ofs:
        assert ofs.os.listdir("/d") == ["f"]


def test_an_overlay_left_half_changed_says_so_and_writes_nothing_more() -> None:
    lower, upper = flaky_stack()
    with OverlayFS([lower], upper) as ofs:
        fd = ofs.os.open("/up", os.O_RDWR)
        upper.calls.clear()
        upper.fail_at = range(30, 1000)
        with pytest.raises(OSError, match="half done") as failure:
            ofs.os.rename("/updir", "/d/moved")
        upper.fail_at = None
        assert failure.value.errno == errno.EIO
        assert (failure.value.filename, failure.value.filename2) == ("/updir", "/d/moved")
        assert str(upper) in failure.value.strerror
        for change in (lambda: ofs.os.mkdir("/more"), lambda: ofs.os.write(fd, b"x"), lambda: ofs.os.ftruncate(fd, 1)):
            with pytest.raises(OSError, match="left half changed") as refusal:
                change()
            assert refusal.value.errno == errno.EROFS
        assert ofs.os.read(fd, 9) == b"upper"
        assert ofs.readbytes("/d/f") == b"in d"
        assert not ofs.os.access("/up", os.W_OK)
        assert ofs.os.statvfs("/").f_flag & os.ST_RDONLY
        assert ofs.getmeta()["read_only"]
    with OverlayFS([lower], upper) as ofs:
        ofs.os.mkdir("/more")


@pytest.mark.parametrize("faulty_for", [2, *(pytest.param(count, marks=pytest.mark.slow) for count in (3, 99))])
@pytest.mark.parametrize("verb", UNION)
def test_what_cannot_be_taken_back_turns_the_overlay_read_only(verb: str, faulty_for: int) -> None:
    lower, upper = flaky_stack()
    with OverlayFS([lower], upper) as ofs:
        before = shown(ofs)
        upper.calls.clear()
        UNION[verb](ofs.os)
        count = len(upper.calls)
        after = shown(ofs)
    for number in range(count):
        lower, upper = flaky_stack()
        with OverlayFS([lower], upper) as ofs:
            upper.calls.clear()
            upper.fail_at = range(number, number + faulty_for)
            failure = None
            try:
                UNION[verb](ofs.os)
            except OSError as error:
                failure = error
            upper.fail_at = None
            if isinstance(failure, Torn):
                assert failure.errno == errno.EIO
                assert str(upper) in failure.strerror
                assert failure.filename in CALLED_WITH
                with pytest.raises(OSError, match="left half changed") as refused:
                    ofs.os.mkdir("/more")
                assert refused.value.errno == errno.EROFS
            else:
                assert shown(ofs) in ([after] if failure is None else [before, after]), f"call {number}: {failure!r}"
                ofs.os.mkdir("/more")
