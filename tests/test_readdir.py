"""Reading directories: order, types, one snapshot per open directory, pages (KB 15)."""

import os

import pytest

from overlayvfs import MemoryFS, OverlayFS
from overlayvfs.testing import DIR, WHITEOUT, Kernel, Stack, directory, fifo, symlink

MANY = 300


def arrange(box):
    """Three layers that share one name."""
    box.lower({"/d/l1": "", "/d/l2": "", "/d/both": ""})
    box.lower({"/d/m1": "", "/d/both": ""})
    box.upper({"/d/u1": "", "/d/u2": "", "/d/both": ""})


def test_the_lowest_layer_comes_first_then_the_upper_then_the_others(box):
    arrange(box)
    names = box.os.listdir("/d")
    assert [set(names[:2]), set(names[2:4]), set(names[4:])] == [{"both", "m1"}, {"u1", "u2"}, {"l1", "l2"}]


def test_each_name_comes_once(box):
    arrange(box)
    assert sorted(box.os.listdir("/d")) == ["both", "l1", "l2", "m1", "u1", "u2"]


def test_a_type_is_that_of_what_shows(box):
    box.lower({"/a/f": "", "/b": "", "/c": "", "/e": fifo(), "/gone": ""})
    box.upper({"/a": "", "/b/": DIR, "/c": symlink("b"), "/gone": WHITEOUT})
    kinds = {
        entry.name: (entry.is_dir(follow_symlinks=False), entry.is_file(follow_symlinks=False), entry.is_symlink())
        for entry in box.os.scandir("/")
    }
    assert kinds == {
        "a": (False, True, False),
        "b": (True, False, False),
        "c": (False, False, True),
        "e": (False, False, False),
    }


def test_entries_of_a_listing_follow_symlinks_inside_the_tree_when_asked(box):
    box.lower({"/d/f": "", "/sd": symlink("/d"), "/sf": symlink("d/f"), "/loop": symlink("loop"), "/no": symlink("x")})
    kinds = {entry.name: entry.is_dir() for entry in box.os.scandir("/") if entry.name not in ("d", "loop")}
    assert kinds == {"sd": True, "sf": False, "no": False}


@pytest.mark.parametrize("opened_before_the_copy_up", [False, True])
def test_positions_in_a_merged_directory_count_names_after_the_dots(box, opened_before_the_copy_up):
    box.lower({"/d/a": "", "/d/b": "", "/d/c": ""})
    if not opened_before_the_copy_up:
        box.os.chmod("/d", 0o700)
    fd = box.os.open("/d", os.O_RDONLY | os.O_DIRECTORY)
    box.os.chmod("/d/a", 0o600)
    names = box.os.listdir(fd)
    seen = []
    for position in (0, 1, 2, 3, 4, 5, 5000):
        box.os.lseek(fd, position, os.SEEK_SET)
        seen.append(box.os.listdir(fd))
    assert seen == [names, names, names, names[1:], names[2:], [], []]


def test_a_descriptor_lists_what_is_there_at_each_rewind(box):
    arrange(box)
    fd = box.os.open("/d", os.O_RDONLY | os.O_DIRECTORY)
    before = set(box.os.listdir(fd))
    box.os.unlink("/d/l1")
    box.write("/d/new", b"")
    box.os.lseek(fd, 0, os.SEEK_SET)
    assert set(box.os.listdir(fd)) == before - {"l1"} | {"new"}
    assert {entry.name for entry in box.os.scandir(fd)} == before - {"l1"} | {"new"}


def test_a_listing_under_way_does_not_change(box):
    arrange(box)
    under_way = iter(box.os.scandir("/d"))
    first = next(under_way).name
    box.os.unlink("/d/l1")
    box.os.rename("/d/m1", "/moved")
    box.write("/d/new", b"")
    assert sorted([first, *(entry.name for entry in under_way)]) == ["both", "l1", "l2", "m1", "u1", "u2"]


@pytest.mark.kernel
def test_linux_gives_one_snapshot_of_a_merged_directory_from_rewind_to_rewind(oracle: Kernel):
    stack = Stack([{"/d/l1": "", "/d/l2": ""}, {"/d/m1": ""}], {"/d/u1": ""})
    mounted = oracle.mount(stack)
    try:
        fd = mounted.os.open("/d", os.O_RDONLY)
        start = mounted.os.getdents(fd, 64)
        mounted.os.unlink("/d/l1")
        mounted.os.close(mounted.os.open("/d/new", os.O_CREAT | os.O_WRONLY))
        rest = []
        while more := mounted.os.getdents(fd, 64):
            rest += more
        assert start == [".", ".."]
        assert sorted(rest) == ["l1", "l2", "m1", "u1"]
        mounted.os.lseek(fd, 0, os.SEEK_SET)
        assert sorted(mounted.os.getdents(fd, 4096)) == [".", "..", "l2", "m1", "new", "u1"]
    finally:
        mounted.close()


def test_the_position_of_a_directory_tells_only_its_beginning(box):
    arrange(box)
    fd = box.os.open("/d", os.O_RDONLY)
    assert box.os.lseek(fd, 0, os.SEEK_CUR) == 0
    assert box.os.lseek(fd, 0, os.SEEK_SET) == 0


def test_a_large_merged_directory_is_listed_whole_while_it_shrinks(box):
    box.require_kept_upper("a rotation for each name makes more lowers than a mount takes")
    box.lower({f"/d/{number:03}": "" for number in range(0, MANY, 2)})
    box.upper({f"/d/{number:03}": "" for number in range(1, MANY, 2)})
    for name in box.os.listdir("/d"):
        box.os.unlink(f"/d/{name}")
    box.os.rmdir("/d")
    assert box.os.listdir("/") == []


def test_whiteouts_and_what_they_hide_are_not_listed(box):
    box.lower({"/d/a": "", "/d/b": WHITEOUT})
    box.lower({"/d/b": "", "/d/c": "", "/d/e": ""})
    box.upper({"/d/c": WHITEOUT})
    assert sorted(box.os.listdir("/d")) == ["a", "e"]


def test_an_opaque_directory_lists_only_its_own(box):
    box.lower({"/d/a": ""})
    box.upper({"/d/": directory(opaque=True), "/d/b": ""})
    assert box.os.listdir("/d") == ["b"]


def test_a_file_made_in_the_place_of_a_directory_is_not_listed(box):
    box.lower({"/d/a": "", "/f": ""})
    with pytest.raises(NotADirectoryError):
        box.os.listdir("/f")
    with pytest.raises(FileNotFoundError):
        box.os.listdir("/missing")


def overlay_of_many():
    lower = MemoryFS()
    for number in range(10):
        lower.writetext(f"lower{number}", "")
    overlay = OverlayFS([lower], MemoryFS())
    for number in range(10):
        overlay.writetext(f"upper{number}", "")
    overlay.remove("lower3")
    return overlay


def test_pages_of_scandir_make_up_the_listing():
    overlay = overlay_of_many()
    whole = [info.name for info in overlay.scandir("/")]
    pages = [[info.name for info in overlay.scandir("/", page=(at, at + 7))] for at in range(0, 28, 7)]
    assert [len(page) for page in pages] == [7, 7, 5, 0]
    assert [name for page in pages for name in page] == whole


def test_a_page_may_lie_anywhere_and_have_details():
    overlay = overlay_of_many()
    whole = [info.name for info in overlay.scandir("/")]
    page = list(overlay.scandir("/", namespaces=["details"], page=(5, 9)))
    assert [info.name for info in page] == whole[5:9]
    assert all(info.size == 0 for info in page)


def test_a_page_of_a_directory_that_changes_is_of_what_is_there_then():
    overlay = overlay_of_many()
    first = {info.name for info in overlay.scandir("/", page=(0, 5))}
    overlay.remove(sorted(first)[0])
    left = {info.name for info in overlay.scandir("/")}
    assert {info.name for info in overlay.scandir("/", page=(0, 100))} == left
    assert sorted(first)[0] not in left
