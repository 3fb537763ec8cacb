"""What a face remembers of a path is forgotten by every verb that makes it wrong (engine/namecache.py)."""

import errno
import os

import pytest
from fs.errors import InsufficientStorage, PermissionDenied

from overlayvfs import MemoryFS, OverlayFS
from overlayvfs.layers.memory import MemoryLayer


@pytest.fixture
def ofs():
    lower = MemoryFS()
    lower.makedirs("d/sub")
    lower.writetext("d/f", "lower")
    lower.writetext("d/g", "lower")
    lower.writetext("d/sub/h", "lower")
    with OverlayFS([lower], MemoryFS()) as overlay:
        look_at_everything(overlay)
        yield overlay


def look_at_everything(overlay):
    """Fill every memory there is: names, attributes, listings, contents, absent names."""
    for path in ("/d", "d", "/d/f", "d/f", "/d/g", "/d/sub", "/d/sub/h", "/d/n", "/e", "/e/f", "/l", "/l/f"):
        overlay.exists(path)
        overlay.isfile(path)
        if overlay.exists(path):
            overlay.getinfo(path, ["details", "access", "stat"])
        if overlay.isfile(path):
            assert overlay.readtext(path) == "lower"
            assert overlay.openbin(path).read() == b"lower"
        if overlay.isdir(path):
            overlay.listdir(path)


def test_attributes_of_a_lower_file_follow_its_copy_up(ofs):
    ofs.os.chmod("/d/f", 0o600)
    ofs.os.utime("/d/f", ns=(0, 10**18))
    info = ofs.getinfo("/d/f", ["access", "stat"])
    assert info.permissions.mode == 0o600
    assert info.raw["stat"]["st_mtime_ns"] == 10**18
    ofs.writetext("d/f", "much longer")
    assert ofs.getsize("/d/f") == 11 == ofs.getsize("d/f")


def test_attributes_of_a_lower_directory_follow_its_copy_up(ofs):
    assert ofs.getinfo("/d", ["stat"]).raw["stat"]["st_nlink"] == 3
    ofs.touch("/d/n")
    assert ofs.getinfo("/d", ["stat"]).raw["stat"]["st_nlink"] == 1
    ofs.os.chmod("/d", 0o700)
    assert ofs.getinfo("/d", ["access"]).permissions.mode == 0o700


def test_a_file_read_before_is_read_anew_after_a_write(ofs):
    light = ofs.openbin("/d/f")
    assert light.read(2) == b"lo"
    ofs.writetext("/d/f", "LOWERED")
    assert ofs.readtext("/d/f") == "LOWERED"
    assert light.read() == b"WERED"
    light.close()


def test_a_light_reader_keeps_the_file_over_copy_up_and_removal(ofs):
    light = ofs.openbin("/d/f")
    with ofs.openbin("/d/f", "r+") as writer:
        writer.write(b"W")
        ofs.remove("/d/f")
        assert light.read() == b"Wower"
    light.close()
    assert not ofs.exists("/d/f")


def test_a_light_reader_keeps_a_file_removed_without_copy_up(ofs):
    light = ofs.openbin("/d/f")
    ofs.remove("/d/f")
    assert light.read() == b"lower"
    light.close()


def test_names_come_and_go(ofs):
    ofs.remove("/d/f")
    ofs.touch("/d/n")
    assert not ofs.exists("/d/f") and not ofs.exists("d/f")
    assert ofs.exists("/d/n")
    assert sorted(ofs.listdir("/d")) == ["g", "n", "sub"]
    ofs.writetext("/d/f", "again")
    assert ofs.readtext("d/f") == "again"


def test_a_moved_directory_takes_its_names_along(ofs):
    ofs.makedir("/e")
    ofs.movedir("/d", "/e")
    assert not ofs.exists("/d/f") and not ofs.exists("/d/sub/h")
    assert ofs.readtext("/e/f") == "lower"
    ofs.os.rename("/e/sub", "/moved")
    assert ofs.exists("/moved/h") and not ofs.exists("/e/sub/h")


def test_absent_names_appear_through_a_new_symlink(ofs):
    ofs.os.symlink("d", "/l")
    assert ofs.exists("/l/f")
    assert ofs.readtext("/l/f") == "lower"
    ofs.os.unlink("/l")
    assert not ofs.exists("/l/f")


def test_exchange_swaps_what_is_known(ofs):
    ofs.writetext("/d/f", "new")
    assert ofs.readtext("/d/f") == "new"
    ofs.os.renameat2("/d/f", "/d/g", 2)
    assert ofs.readtext("/d/g") == "new"
    assert ofs.readtext("/d/f") == "lower"


def test_what_the_superuser_learnt_is_not_told_to_others(ofs):
    ofs.os.chmod("/d", 0o700)
    assert ofs.exists("/d/f")
    ofs.os.seteuid(1000)
    with pytest.raises(PermissionError):
        ofs.os.stat("/d/f")
    assert not ofs.os.access("/d/f", os.R_OK, effective_ids=True)
    with pytest.raises(Exception, match="f"):
        ofs.getinfo("/d/f")


def test_a_closed_overlay_answers_nothing(ofs):
    ofs.close()
    for ask in (ofs.exists, ofs.getinfo, ofs.listdir, ofs.readbytes, ofs.openbin, ofs.isdir):
        with pytest.raises(Exception, match="closed"):
            ask("/d/f")


def test_a_mutated_info_changes_nothing(ofs):
    info = ofs.getinfo("/d/f", ["details"])
    info.raw["details"]["size"] = -1
    info.raw.clear()
    assert ofs.getinfo("/d/f", ["details"]).size == 5
    (entry,) = [one for one in ofs.scandir("/d", ["details"]) if one.name == "f"]
    entry.raw["details"]["size"] = -1
    assert ofs.getinfo("/d/f", ["details"]).size == 5


def test_a_directory_emptied_for_a_rename_that_failed_is_written_to_where_it_is(monkeypatch):
    lower, upper = MemoryFS(), MemoryFS()
    lower.makedirs("/d")
    lower.writebytes("/d/f", b"lower")
    ofs = OverlayFS([lower], upper)
    ofs.makedir("/e")
    ofs.remove("/d/f")
    ofs.writebytes("/d/known", b"x")
    ofs.remove("/d/known")
    rename = MemoryLayer.rename

    def fails(layer, src, dst, flags=0):
        if (src, dst) == ("/e", "/d"):
            raise OSError(errno.EIO, "EIO")
        rename(layer, src, dst, flags)

    monkeypatch.setattr(MemoryLayer, "rename", fails)
    with pytest.raises(OSError, match="EIO"):
        ofs.os.rename("/e", "/d")
    ofs.writebytes("/d/new", b"1")
    ofs.close()
    assert OverlayFS([lower], upper).readtext("/d/new") == "1"


def test_an_upper_file_changed_behind_the_overlay_is_read_as_it_is():
    upper = MemoryFS()
    ofs = OverlayFS([MemoryFS()], upper)
    ofs.writebytes("/f", b"one")
    assert ofs.readtext("/f") == "one"
    upper.writebytes("/f", b"another")
    assert ofs.readtext("/f") == "another"
    assert ofs.getsize("/f") == 7


def test_a_whole_write_tells_those_who_have_the_file_open(ofs):
    ofs.writebytes("/new", b"one")
    with ofs.openbin("/new") as reader, ofs.openbin("/new", "a") as writer:
        assert reader.read() == b"one"
        ofs.writebytes("/new", b"other")
        writer.write(b"!")
        reader.seek(0)
        assert reader.read() == b"other!" == ofs.readbytes("/new")


def test_a_whole_write_that_does_not_fit_leaves_an_empty_file():
    ofs = OverlayFS([MemoryFS()], MemoryFS(size=8192))
    ofs.writebytes("/f", b"x")
    with pytest.raises(InsufficientStorage):
        ofs.writebytes("/f", b"y" * 10_000)
    assert ofs.readbytes("/f") == b""


def test_a_new_file_in_a_set_group_id_directory_is_of_its_group(ofs):
    ofs.os.chown("/d", 0, 7)
    ofs.os.chmod("/d", 0o2755)
    ofs.writebytes("/d/new", b"x")
    assert ofs.os.stat("/d/new").st_gid == 7


def test_a_whole_write_asks_for_the_rights_of_the_caller(ofs):
    ofs.writebytes("/d/new", b"x")
    ofs.os.seteuid(1000)
    with pytest.raises(PermissionDenied):
        ofs.writebytes("/d/new", b"y")
    with pytest.raises(PermissionDenied):
        ofs.writebytes("/d/more", b"y")


def test_a_read_only_checkpoint_is_not_written_to(ofs):
    ofs.writebytes("/new", b"one")
    point = ofs.checkpoint()
    ofs.writebytes("/new", b"two")
    ofs.writebytes("/newer", b"x")
    ofs.rollback(point)
    assert ofs.readtext("/new") == "one"
    ofs.writebytes("/new", b"three")
    assert ofs.readtext("/new") == "three"
    assert not ofs.exists("/newer")
