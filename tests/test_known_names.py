"""What a face remembers of a path is forgotten by every verb that makes it wrong (engine/namecache.py)."""

import os

import pytest

from overlayvfs import MemoryFS, OverlayFS


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
