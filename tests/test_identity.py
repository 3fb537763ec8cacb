"""What a file is: (st_dev, st_ino), nlink and d_ino, over copy up, link, rename and new mounts (KB 14)."""

import errno
import os

import pytest

from overlayvfs.engine.numbers import Numbers
from overlayvfs.testing import DIR, directory, hardlink, raises_errno, symlink

LAYOUTS = {
    "same": {"separate": False},
    "separate, xino=off": {"separate": True, "xino": "off"},
    "separate, xino=auto": {"separate": True, "xino": "auto"},
    "separate, xino=on": {"separate": True, "xino": "on"},
}
OF_EACH_KIND = {"/d/c": "c", "/f": "abc", "/s": symlink("f"), "/h": "links", "/h2": hardlink("/h")}


@pytest.fixture(params=LAYOUTS)
def layout(request):
    return request.param


def arranged(box, layout, **options):
    """Mount one upper over two lowers that have an object of each kind."""
    box.lower(OF_EACH_KIND)
    box.lower({"/deep/x": "x", "/g": "ghi", "/d/below": "z"})
    box.upper({"/u": "upper", "/ud/e": "e"})
    box.mount(**LAYOUTS[layout], **options)
    return box


def identity(box, path):
    st = box.os.lstat(path)
    return st.st_dev, st.st_ino


def copy_up(box, path):
    box.os.utime(path, ns=(1, 1), follow_symlinks=False)


@pytest.mark.parametrize("path", ["/f", "/s", "/d", "/g", "/deep", "/deep/x"])
def test_copy_up_keeps_the_identity(box, layout, path):
    box.require_kept_upper()
    arranged(box, layout)
    before = identity(box, path)
    copy_up(box, path)
    assert identity(box, path) == before


def test_copy_up_of_one_of_several_hard_links_makes_another_file(box, layout):
    box.require_kept_upper()
    arranged(box, layout)
    before = identity(box, "/h")
    assert identity(box, "/h2") == before
    copy_up(box, "/h")
    after = identity(box, "/h")
    assert after[1] != before[1]
    assert (after[0] != before[0]) == (layout == "separate, xino=off")
    assert identity(box, "/h2") == before
    assert (box.os.stat("/h").st_nlink, box.os.stat("/h2").st_nlink) == (1, 2)


def test_copy_up_of_one_of_several_hard_links_keeps_the_identity_with_index(box, layout):
    arranged(box, layout, index="on")
    before = identity(box, "/h")
    copy_up(box, "/h")
    assert identity(box, "/h") == identity(box, "/h2") == before
    assert (box.os.stat("/h").st_nlink, box.os.stat("/h2").st_nlink) == (2, 2)


@pytest.mark.parametrize("path", ["/f", "/s", "/u", "/ud"])
def test_rename_keeps_the_identity(box, layout, path):
    box.require_kept_upper()
    arranged(box, layout)
    before = identity(box, path)
    box.os.rename(path, "/moved")
    box.os.rename("/moved", "/d/moved again")
    assert identity(box, "/d/moved again") == before


def test_rename_of_a_redirected_directory_keeps_the_identity(box, layout):
    box.require_kept_upper()
    arranged(box, layout, redirect_dir="on")
    before = identity(box, "/d")
    box.os.rename("/d", "/moved")
    assert identity(box, "/moved") == before


@pytest.mark.parametrize("path", ["/f", "/s", "/u", "/d/c"])
def test_a_link_is_the_same_file_as_its_source(box, layout, path):
    box.require_origins()
    box.require_kept_upper()
    arranged(box, layout)
    before = identity(box, path)
    box.os.link(path, "/n", follow_symlinks=False)
    assert identity(box, "/n") == identity(box, path) == before
    assert (box.os.lstat(path).st_nlink, box.os.lstat("/n").st_nlink) == (2, 2)


@pytest.mark.parametrize("change", ["copy up", "rename", "link"])
@pytest.mark.parametrize("path", ["/f", "/s"])
def test_numbers_survive_a_new_mount(box, layout, path, change):
    box.require_origins()
    box.require_kept_upper()
    arranged(box, layout)
    before = box.os.lstat(path).st_ino
    now = path
    if change == "copy up":
        copy_up(box, path)
    elif change == "rename":
        now = "/d/moved"
        box.os.rename(path, now)
    else:
        box.os.link(path, "/n", follow_symlinks=False)
    box.remount(**{name: value for name, value in LAYOUTS[layout].items() if name != "separate"})
    assert box.os.lstat(now).st_ino == before


@pytest.mark.parametrize("path", ["/d", "/deep", "/ud"])
def test_numbers_of_directories_survive_a_new_mount_where_they_are_real(box, layout, path):
    box.require_origins()
    box.require_kept_upper()
    if layout == "separate, xino=off":
        pytest.skip("there, numbers of directories are the mount's own (KB 14)")
    arranged(box, layout)
    before = box.os.lstat(path).st_ino
    copy_up(box, path)
    box.remount(**{name: value for name, value in LAYOUTS[layout].items() if name != "separate"})
    assert box.os.lstat(path).st_ino == before


def test_hard_links_of_the_upper_survive_a_new_mount(box):
    box.lower({"/f": "x"})
    box.os.link("/f", "/g")
    box.remount()
    assert identity(box, "/f") == identity(box, "/g")
    assert box.os.stat("/g").st_nlink == 2


def test_all_directories_are_on_one_device(box, layout):
    arranged(box, layout)
    assert len({identity(box, path)[0] for path in ("/", "/d", "/deep", "/ud")}) == 1


def test_files_are_on_one_device_or_without_xino_on_one_for_each_layer(box, layout):
    arranged(box, layout)
    devices = [identity(box, path)[0] for path in ("/", "/f", "/s", "/g", "/u")]
    if layout == "separate, xino=off":
        root, f, s, g, u = devices
        assert f == s
        assert len({root, f, g, u}) == 4
    else:
        assert len(set(devices)) == 1


@pytest.mark.parametrize("xino", ["on", "auto"])
def test_the_high_bits_of_a_number_tell_the_layer(box, xino):
    arranged(box, f"separate, xino={xino}")
    high = {path: box.os.lstat(path).st_ino >> 62 for path in ("/", "/u", "/ud", "/f", "/d", "/g", "/deep")}
    assert high == {"/": 0, "/u": 0, "/ud": 0, "/f": 1, "/d": 1, "/g": 2, "/deep": 2}


def test_a_number_that_needs_the_high_bits_itself_shows_as_without_xino():
    """No file system at hand has such numbers, so no kernel is asked (ovl_map_dev_ino)."""
    numbers = Numbers(99, [1, 2, 3], xino=True)
    fits, overflows = (1 << 61) - 1, 1 << 62
    assert numbers.shown(2, fits)[0] == numbers.shown(0, 7)[0] == 99
    device, number = numbers.shown(2, overflows)
    assert number == overflows
    assert device not in (99, 1, 2, 3)


def test_no_two_files_are_one(box, layout):
    arranged(box, layout)
    paths = ["/", "/d", "/d/c", "/d/below", "/f", "/s", "/h", "/deep", "/deep/x", "/g", "/u", "/ud", "/ud/e"]
    assert len({identity(box, path) for path in paths}) == len(paths)


def listed(box, place):
    return {entry.name: entry.inode() for entry in box.os.scandir(place)}


@pytest.mark.parametrize("layout", ["same", "separate, xino=auto", "separate, xino=on"])
def test_a_listing_gives_the_number_that_lstat_gives(box, layout):
    arranged(box, layout)
    for path in ("/f", "/s", "/h", "/d/c", "/deep"):
        copy_up(box, path)
    box.os.rename("/g", "/deep/moved")
    for place in ("/", "/d", "/deep", "/ud"):
        numbers = {name: box.os.lstat(f"{place}/{name}").st_ino for name in box.os.listdir(place)}
        assert listed(box, place) == numbers


def test_a_listing_without_xino_gives_the_number_of_what_was_never_copied(box):
    arranged(box, "separate, xino=off")
    for place, names in (("/", ("f", "s", "g", "u")), ("/d", ("c", "below")), ("/ud", ("e",))):
        numbers = listed(box, place)
        assert {name: numbers[name] for name in names} == {
            name: box.os.lstat(f"{place}/{name}").st_ino for name in names
        }


@pytest.mark.parametrize(
    ("path", "nlink"),
    [("/", 1), ("/merged", 1), ("/lowers", 1), ("/lower", 3), ("/upper", 3), ("/opaque", 2), ("/f", 1), ("/h", 2)],
)
def test_nlink(box, path, nlink):
    box.lower(
        {
            "/merged/a/": DIR,
            "/lower/a/": DIR,
            "/lowers/a/": DIR,
            "/opaque/a/": DIR,
            "/f": "",
            "/h": "",
            "/h2": hardlink("/h"),
        }
    )
    box.lower({"/lowers/b/": DIR})
    box.upper({"/merged/b/": DIR, "/upper/a/": DIR, "/opaque/": directory(opaque=True)})
    assert box.os.lstat(path).st_nlink == nlink


def test_a_lower_directory_shows_one_link_once_it_is_copied_up(box):
    box.require_posix()
    box.lower({"/d/e/": DIR})
    before = box.os.lstat("/d").st_nlink
    copy_up(box, "/d")
    assert (before, box.os.lstat("/d").st_nlink) == (3, 1)


def test_nlink_of_lower_hard_links_is_the_lowers_whatever_happens_to_the_others(box):
    box.lower({"/x": "l", "/y": hardlink("/x"), "/z": hardlink("/x")})
    box.write("/x", b"n", os.O_WRONLY)
    box.os.unlink("/y")
    assert (box.os.stat("/x").st_nlink, box.os.stat("/z").st_nlink) == (1, 3)
    assert box.read("/z") == b"l"


def test_the_broken_link_stays_broken_after_a_new_mount(box):
    box.lower({"/x": "l", "/y": hardlink("/x")})
    box.write("/x", b"n", os.O_WRONLY)
    before = identity(box, "/x")[1], identity(box, "/y")[1]
    box.remount()
    assert (identity(box, "/x")[1], identity(box, "/y")[1]) == before
    assert before[0] != before[1]


def test_a_new_file_of_an_old_name_has_a_number_of_its_own(box, layout):
    arranged(box, layout)
    before = identity(box, "/f")
    box.os.unlink("/f")
    box.write("/f", b"new")
    assert identity(box, "/f") != before
    with raises_errno(errno.ENOENT):
        box.os.lstat("/missing")


def test_statvfs_tells_whether_the_tree_is_read_only(box, layout):
    arranged(box, layout)
    assert not box.os.statvfs("/f").f_flag & os.ST_RDONLY
