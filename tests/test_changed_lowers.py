"""Lowers that change while mounted, against the kernel's rule: told with invalidate, or found with lower="detect"."""

import errno

import pytest
from fs.memoryfs import MemoryFS as PlainMemoryFS

from overlayvfs import MemoryFS, OverlayFS
from overlayvfs.faces.errors import MountFailed
from overlayvfs.testing import raises_errno


def test_invalidate_shows_what_a_lower_has_now():
    lower = MemoryFS()
    lower.writetext("f", "old")
    with OverlayFS([lower], MemoryFS()) as ofs:
        assert ofs.readtext("/f") == "old"
        assert not ofs.exists("/g")
        lower.writetext("f", "newer")
        lower.writetext("g", "here")
        ofs.invalidate("/")
        assert ofs.readtext("/f") == "newer"
        assert ofs.listdir("/") == lower.listdir("/")
        assert ofs.exists("/g")


def test_invalidate_leaves_open_files_what_they_have():
    lower = MemoryFS()
    lower.writetext("f", "old")
    with OverlayFS([lower], MemoryFS()) as ofs:
        fd = ofs.os.open("/f", 0)
        ofs.invalidate("/f")
        ofs.writetext("/f", "written")
        assert ofs.os.read(fd, 10) == b"written"


def test_detect_makes_a_changed_lower_file_estale():
    lower = MemoryFS()
    lower.writetext("f", "old")
    lower.writetext("same", "same")
    with OverlayFS([lower], MemoryFS(), lower="detect") as ofs:
        assert ofs.readtext("/f") == "old"
        lower.writetext("f", "newer")
        for look in (ofs.os.stat, lambda path: ofs.os.open(path, 0), lambda path: ofs.os.chmod(path, 0o600)):
            with raises_errno(errno.ESTALE):
                look("/f")
        assert ofs.readtext("/same") == "same"
        ofs.invalidate("/f")
        assert ofs.readtext("/f") == "newer"


def test_detect_works_over_a_plain_pyfilesystem():
    lower = PlainMemoryFS()
    lower.writetext("f", "old")
    with OverlayFS([lower], MemoryFS(), lower="detect") as ofs:
        assert ofs.readtext("/f") == "old"
        lower.remove("f")
        with raises_errno(errno.ESTALE):
            ofs.os.stat("/f")


def test_an_unknown_way_to_treat_lowers_is_einval():
    with pytest.raises(MountFailed) as caught:
        OverlayFS([MemoryFS()], MemoryFS(), lower="hope")
    assert caught.value.errno == errno.EINVAL
