"""All of PyFilesystem's own FSTestCases, on every kind of tree the library makes of memory and host layers."""

import stat
import tempfile
import unittest
from importlib.metadata import PackageNotFoundError, version

import pytest
from fs.test import FSTestCases

from overlayvfs import MemoryFS, OverlayFS

NAMES = ["foo", "foo2", "foofoo", "bar", "baz", "egg", "spam", "dir", "file.bin", "text", "foo.txt", "top.txt", "Foo"]
"""Names FSTestCases works with."""


class Cases(FSTestCases):
    # fs 2.4 looks it up even where it goes on to use assertRaisesRegex; Python 3.12 dropped it.
    assertRaisesRegexp = unittest.TestCase.assertRaisesRegex  # noqa: N815


class TestMemoryFS(Cases, unittest.TestCase):
    def make_fs(self):
        return MemoryFS()


class TestMemoryUpperOverEmptyLower(Cases, unittest.TestCase):
    def make_fs(self):
        return OverlayFS([MemoryFS()], MemoryFS())


class TestMemoryUpperOverHiddenLowers(Cases, unittest.TestCase):
    """Everything the tests are about to make is there already, two layers deep, and hidden by whiteouts."""

    def make_fs(self):
        return OverlayFS([whiteouts(NAMES), decoys(NAMES), decoys(NAMES)], MemoryFS())


class TestMemoryUpperOfWhiteoutsOverLower(Cases, unittest.TestCase):
    def make_fs(self):
        return OverlayFS([decoys(NAMES)], whiteouts(NAMES))


class TestHostUpper(Cases, unittest.TestCase):
    def make_fs(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        return OverlayFS([whiteouts(NAMES), decoys(NAMES)], directory.name)


def whiteouts(names):
    layer = MemoryFS()
    for name in names:
        layer.os.mknod(name, stat.S_IFCHR, 0)
    return layer


def decoys(names):
    """A layer with a directory of each name, in it a file and a directory of each name."""
    layer = MemoryFS()
    for outer in names:
        layer.makedir(outer)
        for inner in names:
            layer.makedir(f"{outer}/{inner}")
        layer.writebytes(f"{outer}/decoy", b"decoy")
    return layer


CONFIGURATIONS = [case for case in list(globals().values()) if isinstance(case, type) and issubclass(case, Cases)]
CONFIGURATIONS.remove(Cases)


@pytest.mark.parametrize("case", CONFIGURATIONS)
def test_every_configuration_runs_all_of_them(case):
    names = unittest.TestLoader().getTestCaseNames(case)
    assert len(names) == (79 if installed("fs") == "2.4.16" else len([n for n in dir(FSTestCases) if n[:5] == "test_"]))
    assert not [name for name in names if getattr(getattr(case, name), "__unittest_skip__", False)]


def installed(package):
    try:
        return version(package)
    except PackageNotFoundError:
        return None
