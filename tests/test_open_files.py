"""Open files: what descriptors show over copy up, unlink, rename, replacement and truncation (KB 13)."""

import errno
import os
import stat

import pytest

from overlayvfs.testing import DIR, WHITEOUT, Slot, call, file, hardlink, raises_errno

CREATE = os.O_CREAT | os.O_RDWR
SEEK_DATA, SEEK_HOLE = 3, 4
PAGE = 4096
MIB = 1 << 20


def same_object(box, fd, path):
    of_fd, of_path = box.os.fstat(fd), box.os.stat(path)
    return (of_fd.st_dev, of_fd.st_ino) == (of_path.st_dev, of_path.st_ino)


# Over copy up


WRITES = {
    "another descriptor": lambda box: box.write("/f", b"new data", os.O_WRONLY),
    "truncate": lambda box: box.os.truncate("/f", 8),
    "another name": lambda box: (box.os.link("/f", "/g"), box.write("/g", b"new data", os.O_WRONLY)),
}


@pytest.mark.parametrize("how", WRITES)
def test_a_read_only_descriptor_sees_what_is_written_later(box, how):
    box.lower({"/f": "old"})
    fd = box.os.open("/f", os.O_RDONLY)
    WRITES[how](box)
    assert box.os.lseek(fd, 0, os.SEEK_END) == 8
    assert box.os.fstat(fd).st_size == 8
    assert box.os.pread(fd, 99, 0) == box.read("/f")


def test_all_descriptors_of_a_file_see_one_write(box):
    box.lower({"/f": "0123456789"})
    before = [box.os.open("/f", os.O_RDONLY) for _ in range(3)]
    writer = box.os.open("/f", os.O_RDWR)
    after = box.os.open("/f", os.O_RDONLY)
    box.os.pwrite(writer, b"abc", 4)
    assert {box.os.pread(fd, 99, 0) for fd in (*before, writer, after)} == {b"0123abc789"}


def test_the_position_of_a_reader_stays_over_copy_up(box):
    box.lower({"/f": "0123456789"})
    fd = box.os.open("/f", os.O_RDONLY)
    assert box.os.read(fd, 4) == b"0123"
    box.write("/f", b"ABCDEFGH", os.O_WRONLY)
    assert box.os.read(fd, 9) == b"EFGH89"


def test_a_descriptor_and_its_path_stay_one_file_over_copy_up(box):
    box.lower({"/f": "x"})
    fd = box.os.open("/f", os.O_RDONLY)
    before = box.os.fstat(fd)
    box.write("/f", b"y", os.O_WRONLY)
    after = box.os.fstat(fd)
    assert (before.st_dev, before.st_ino) == (after.st_dev, after.st_ino)
    assert same_object(box, fd, "/f")


def test_a_descriptor_of_one_hard_link_does_not_see_a_write_to_another(box):
    box.lower({"/x": "old", "/y": hardlink("/x")})
    fd = box.os.open("/y", os.O_RDONLY)
    box.write("/x", b"new", os.O_WRONLY)
    assert box.os.pread(fd, 9, 0) == b"old"


def test_a_descriptor_of_one_hard_link_sees_a_write_to_another_with_index(box):
    box.lower({"/x": "old", "/y": hardlink("/x")})
    box.mount(index="on")
    fd = box.os.open("/y", os.O_RDONLY)
    box.write("/x", b"new", os.O_WRONLY)
    assert box.os.pread(fd, 9, 0) == b"new"


F_CALLS = {
    "fchmod": (call("fchmod", Slot(0), 0o600), file("x", mode=0o600)),
    "fchown": (call("fchown", Slot(0), 3, 4), file("x", uid=3, gid=4)),
    "utime": (call("utime", Slot(0), ns=(5, 5)), "x"),
    "setxattr": (call("setxattr", Slot(0), "user.k", b"v"), file("x", xattrs={"user.k": b"v"})),
}


@pytest.mark.parametrize("name", F_CALLS)
def test_calls_through_a_read_only_descriptor_copy_up(box, name):
    op, expected = F_CALLS[name]
    if name == "fchown":
        box.require_root()
    box.lower({"/f": "x"})
    outcomes = box.run([call("open", "/f", os.O_RDONLY, slot=0), op])
    assert outcomes[1].error is None
    assert box.upper_tree() == {"/f": expected}


def test_removexattr_through_a_read_only_descriptor_copies_up(box):
    box.lower({"/f": file("x", xattrs={"user.k": b"v"})})
    fd = box.os.open("/f", os.O_RDONLY)
    with raises_errno(errno.ENODATA):
        box.os.removexattr(fd, "user.absent")
    assert box.upper_tree() == {}
    box.os.removexattr(fd, "user.k")
    assert box.upper_tree() == {"/f": "x"}


def test_reading_through_a_descriptor_copies_nothing_up(box):
    box.lower({"/f": file("x", xattrs={"user.k": b"v"})})
    fd = box.os.open("/f", os.O_RDONLY)
    box.os.read(fd, 1)
    box.os.fstat(fd)
    box.os.fsync(fd)
    assert box.os.getxattr(fd, "user.k") == b"v"
    assert box.os.listxattr(fd) == ["user.k"]
    assert box.upper_tree() == {}


# Over unlink and replacement

GOING = {
    "unlink": lambda box: box.os.unlink("/x"),
    "replacement": lambda box: (box.write("/other", b"o"), box.os.rename("/other", "/x")),
}


@pytest.mark.parametrize("how", GOING)
@pytest.mark.parametrize(
    ("lower", "upper", "flags", "links"),
    [
        ({}, {"/x": "abc"}, os.O_RDONLY, (1, 0)),
        ({"/x": "low"}, {"/x": "abc"}, os.O_RDONLY, (1, 0)),
        ({"/x": "abc"}, {}, os.O_RDWR, (1, 0)),
        ({"/x": "abc"}, {}, os.O_RDONLY, (1, 1)),
        ({"/x": "abc", "/y": hardlink("/x")}, {}, os.O_RDONLY, (2, 2)),
        ({"/x": "abc", "/y": hardlink("/x")}, {}, os.O_RDWR, (1, 0)),
        ({}, {"/x": "abc", "/y": hardlink("/x")}, os.O_RDONLY, (2, 1)),
    ],
    ids=["upper", "upper over lower", "copied up", "lower", "lower hard link", "copied hard link", "upper hard link"],
)
def test_a_descriptor_of_a_name_that_went_reads_on(box, how, lower, upper, flags, links):
    box.lower(lower)
    box.upper(upper)
    fd = box.os.open("/x", flags)
    before = box.os.fstat(fd).st_nlink
    GOING[how](box)
    assert (before, box.os.fstat(fd).st_nlink) == links
    assert box.os.read(fd, 9) == b"abc"


@pytest.mark.parametrize(("flags", "links"), [(os.O_RDONLY, (2, 1)), (os.O_RDWR, (2, 1))], ids=["lower", "copied up"])
def test_an_index_counts_the_links_of_a_descriptors_file(box, flags, links):
    box.lower({"/x": "abc", "/y": hardlink("/x")})
    box.mount(index="on")
    fd = box.os.open("/x", flags)
    before = box.os.fstat(fd).st_nlink
    box.os.unlink("/x")
    assert (before, box.os.fstat(fd).st_nlink) == links


def test_an_unlinked_file_is_written_on_and_leaves_only_a_whiteout(box):
    box.lower({"/f": "abc"})
    fd = box.os.open("/f", os.O_RDWR)
    box.os.unlink("/f")
    box.os.write(fd, b"xyz!")
    box.os.ftruncate(fd, 3)
    box.os.fchmod(fd, 0o600)
    assert box.os.pread(fd, 9, 0) == b"xyz"
    assert stat.S_IMODE(box.os.fstat(fd).st_mode) == 0o600
    assert box.upper_tree() == {"/f": WHITEOUT}
    assert box.tree() == {}


@pytest.mark.parametrize("op", [op for op, _ in F_CALLS.values()], ids=F_CALLS)
def test_changing_a_file_that_went_without_copy_up_is_eexist(box, op):
    box.lower({"/f": "abc"})
    outcomes = box.run(
        [
            call("open", "/f", os.O_RDONLY, slot=0),
            call("unlink", "/f"),
            op,
            call("read", Slot(0), 9),
        ]
    )
    assert outcomes[2].error == "EEXIST"
    assert outcomes[3].value == b"abc"
    assert box.upper_tree() == {"/f": WHITEOUT}


def test_a_new_file_of_the_old_name_is_another_file(box):
    box.lower({"/f": "old"})
    fd = box.os.open("/f", os.O_RDWR)
    box.os.unlink("/f")
    box.write("/f", b"new")
    box.os.pwrite(fd, b"OLD", 0)
    assert box.read("/f") == b"new"
    assert not same_object(box, fd, "/f")


def test_a_descriptor_of_one_upper_hard_link_lives_on_through_the_other(box):
    box.require_kept_upper()
    box.lower({"/f": "x"})
    box.os.link("/f", "/g")
    fd = box.os.open("/f", os.O_RDWR)
    box.os.unlink("/f")
    box.os.write(fd, b"y")
    assert box.read("/g") == b"y"
    assert same_object(box, fd, "/g")


# Over rename


def test_rename_does_not_disturb_a_reader_of_a_lower_file(box):
    box.lower({"/f": "old"})
    fd = box.os.open("/f", os.O_RDONLY)
    box.os.rename("/f", "/g")
    box.write("/g", b"new", os.O_WRONLY)
    assert box.os.pread(fd, 9, 0) == b"new"
    assert same_object(box, fd, "/g")


def test_a_writer_writes_to_its_file_under_whatever_name(box):
    box.lower({"/d/f": "old", "/e/": DIR})
    fd = box.os.open("/d/f", os.O_WRONLY)
    box.os.rename("/d/f", "/e/g")
    box.write("/d/f", b"another")
    box.os.write(fd, b"new")
    assert box.tree() == {"/d/f": "another", "/e/g": "new"}


def test_renaming_a_directory_above_does_not_disturb_descriptors(box):
    box.require_kept_upper()
    box.lower({})
    box.os.mkdir("/d")
    fd = box.os.open("/d/f", CREATE, 0o644)
    at_dir = box.os.open("/d", os.O_RDONLY)
    box.os.rename("/d", "/e")
    box.os.write(fd, b"x")
    box.os.fchmod(fd, 0o600)
    assert box.os.listdir(at_dir) == ["f"]
    assert box.tree() == {"/e/f": file("x", mode=0o600)}


def test_exchange_leaves_every_descriptor_with_its_own_file(box):
    box.lower({"/a": "A", "/b": "B"})
    at_a, at_b = (box.os.open(path, os.O_RDONLY) for path in ("/a", "/b"))
    box.os.renameat2("/a", "/b", 2)
    assert (box.os.read(at_a, 9), box.os.read(at_b, 9)) == (b"A", b"B")
    assert same_object(box, at_a, "/b")


# Truncation


def test_truncation_shows_through_all_descriptors(box):
    box.lower({"/f": "0123456789"})
    reader = box.os.open("/f", os.O_RDONLY)
    box.os.read(reader, 6)
    box.write("/f", b"", os.O_WRONLY | os.O_TRUNC)
    assert box.os.read(reader, 9) == b""
    assert box.os.fstat(reader).st_size == 0


def test_opening_with_truncation_only_truncates_once(box):
    box.lower({"/f": "old"})
    fd = box.os.open("/f", os.O_RDWR | os.O_TRUNC)
    box.os.write(fd, b"abc")
    box.os.lseek(fd, 0, os.SEEK_SET)
    assert box.os.read(fd, 9) == b"abc"


# O_APPEND, dup


def test_appending_goes_to_the_end_as_it_is_then(box):
    box.lower({"/f": "abc"})
    fd = box.os.open("/f", os.O_RDWR | os.O_APPEND)
    box.os.lseek(fd, 0, os.SEEK_SET)
    box.write("/f", b"abcdef", os.O_WRONLY)
    box.os.write(fd, b"!")
    assert box.os.lseek(fd, 0, os.SEEK_CUR) == 7
    assert box.read("/f") == b"abcdef!"


def test_pwrite_to_a_descriptor_that_appends_appends(box):
    box.lower({"/f": "abc"})
    fd = box.os.open("/f", os.O_WRONLY | os.O_APPEND)
    box.os.pwrite(fd, b"!", 0)
    assert box.read("/f") == b"abc!"


def test_two_appenders_lose_nothing(box):
    box.lower({"/f": ""})
    fds = [box.os.open("/f", os.O_WRONLY | os.O_APPEND) for _ in range(2)]
    for count in range(6):
        box.os.write(fds[count % 2], bytes([0x61 + count]))
    assert box.read("/f") == b"abcdef"


def test_dup_shares_the_position_and_outlives_its_original(box):
    box.lower({"/f": "0123456789"})
    fd = box.os.open("/f", os.O_RDONLY)
    twin = box.os.dup(fd)
    box.os.read(fd, 4)
    assert box.os.read(twin, 2) == b"45"
    box.os.close(fd)
    box.os.unlink("/f")
    assert box.os.read(twin, 9) == b"6789"


def test_two_opens_have_positions_of_their_own(box):
    box.lower({"/f": "0123456789"})
    one, two = (box.os.open("/f", os.O_RDONLY) for _ in range(2))
    box.os.read(one, 4)
    assert box.os.read(two, 2) == b"01"


# Sparse files


def test_writing_beyond_the_end_leaves_a_hole_of_zeros(box):
    box.require_posix()
    box.lower({"/f": "abc"})
    fd = box.os.open("/f", os.O_RDWR)
    box.os.pwrite(fd, b"end", 4 * PAGE)
    assert box.os.fstat(fd).st_size == 4 * PAGE + 3
    assert box.os.pread(fd, 5, PAGE) == bytes(5)
    assert box.os.lseek(fd, 0, SEEK_HOLE) == PAGE
    assert box.os.lseek(fd, PAGE, SEEK_DATA) == 4 * PAGE
    assert box.os.lseek(fd, 4 * PAGE, SEEK_HOLE) == 4 * PAGE + 3


def test_growing_by_truncation_makes_a_hole(box):
    box.require_posix()
    box.lower({"/f": "abc"})
    box.os.truncate("/f", 8 * PAGE)
    fd = box.os.open("/f", os.O_RDONLY)
    assert box.os.lseek(fd, 0, SEEK_HOLE) == PAGE
    with raises_errno(errno.ENXIO):
        box.os.lseek(fd, PAGE, SEEK_DATA)
    assert box.os.fstat(fd).st_blocks == PAGE // 512


def test_a_hole_stays_a_hole_when_the_file_is_a_lowers_and_copied_up(box):
    box.require_posix()
    box.lower({"/s": "start"})
    box.os.truncate("/s", 4 * MIB)
    # The file is a lower's by now where layers rotate.
    box.write("/s", b"", os.O_WRONLY)
    fd = box.os.open("/s", os.O_RDWR)
    # Linux copies the whole MiB that holds data (OVL_COPY_UP_CHUNK_SIZE).
    with raises_errno(errno.ENXIO):
        box.os.lseek(fd, MIB, SEEK_DATA)
    box.os.pwrite(fd, b"end", 4 * MIB - 3)
    assert box.os.lseek(fd, MIB, SEEK_DATA) == 4 * MIB - PAGE
    assert box.os.fstat(fd).st_blocks <= (MIB + PAGE) // 512


def test_seeking_for_data_moves_the_position(box):
    box.require_posix()
    box.lower({"/f": "abc"})
    fd = box.os.open("/f", os.O_RDWR)
    box.os.pwrite(fd, b"xyz", 2 * PAGE)
    assert box.os.lseek(fd, PAGE, SEEK_DATA) == 2 * PAGE
    assert box.os.read(fd, 3) == b"xyz"


# Directories


def test_a_descriptor_of_a_removed_upper_directory_is_empty_and_unlinked(box):
    box.require_kept_upper()
    box.lower({})
    box.os.mkdir("/d")
    fd = box.os.open("/d", os.O_RDONLY)
    box.os.rmdir("/d")
    assert box.os.listdir(fd) == []
    assert box.os.fstat(fd).st_nlink == 0


def test_a_descriptor_of_a_removed_merged_directory_is_empty_but_linked(box):
    box.lower({"/d/f": "x"})
    box.upper({"/d/g": "y"})
    fd = box.os.open("/d", os.O_RDONLY)
    box.os.unlink("/d/f")
    box.os.unlink("/d/g")
    box.os.rmdir("/d")
    assert box.os.listdir(fd) == []
    assert box.os.fstat(fd).st_nlink == 1


def test_a_directory_made_anew_is_not_the_one_a_descriptor_has(box):
    box.lower({"/d/": DIR})
    fd = box.os.open("/d", os.O_RDONLY)
    box.os.rmdir("/d")
    box.os.mkdir("/d")
    box.write("/d/new", b"")
    assert box.os.listdir(fd) == []
    assert not same_object(box, fd, "/d")


def test_a_descriptor_of_a_lower_directory_sees_what_is_made_in_its_copy(box):
    box.lower({"/d/f": "x"})
    fd = box.os.open("/d", os.O_RDONLY)
    box.write("/d/g", b"y")
    box.os.fchmod(fd, 0o700)
    assert sorted(box.os.listdir(fd)) == ["f", "g"]
    assert stat.S_IMODE(box.os.stat("/d").st_mode) == 0o700
    box.os.fsync(fd)


def test_a_descriptor_that_only_names_a_file_still_tells_its_attributes_when_it_went(box):
    box.lower({"/f": "abc"})
    box.upper({"/u": "upper"})
    fds = [box.os.open(path, os.O_PATH) for path in ("/f", "/u")]
    box.os.unlink("/f")
    box.os.unlink("/u")
    assert [box.os.fstat(fd).st_size for fd in fds] == [3, 5]
    with raises_errno(errno.EBADF):
        box.os.read(fds[0], 1)


def test_a_descriptor_of_the_root_lists_the_root(box):
    box.lower({"/f": "x"})
    fd = box.os.open("/", os.O_RDONLY | os.O_DIRECTORY)
    box.write("/g", b"")
    assert sorted(box.os.listdir(fd)) == ["f", "g"]
