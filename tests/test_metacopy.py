"""Metadata only copy up: which calls leave the data below, and what brings them up (KB 12)."""

import errno
import os

import pytest

from overlayvfs.testing import (
    DIR,
    FRESH,
    OLD,
    WHITEOUT,
    Slot,
    call,
    directory,
    fifo,
    file,
    hardlink,
    raises_errno,
    symlink,
)

F = file("abc", xattrs={"user.k": b"v"})


def mounted(box, lower=None):
    # The user namespace's mount has no metacopy.
    box.require_root()
    box.lower({"/f": F, "/d/": DIR} if lower is None else lower)
    box.mount(metacopy="on")
    return box


def empty(mode=0o644, size=3, **kwargs):
    """Return a copy without data: it has the right size, and reads as zeros in the upper."""
    return file(bytes(size), mode=mode, metacopy=True, **{"xattrs": {"user.k": b"v"}, **kwargs})


METADATA = {
    "chmod": ([call("chmod", "/f", 0o600)], {"/f": empty(0o600)}),
    "chown": ([call("chown", "/f", 5, 7)], {"/f": empty(uid=5, gid=7)}),
    "utime": ([call("utime", "/f", ns=(OLD, OLD))], {"/f": empty()}),
    "setxattr": ([call("setxattr", "/f", "user.n", b"w")], {"/f": empty(xattrs={"user.k": b"v", "user.n": b"w"})}),
    "removexattr": ([call("removexattr", "/f", "user.k")], {"/f": empty(xattrs={})}),
    "rename": ([call("rename", "/f", "/g")], {"/f": WHITEOUT, "/g": empty(redirect="f")}),
    "rename elsewhere": (
        [call("rename", "/f", "/d/g")],
        {"/f": WHITEOUT, "/d/g": empty(redirect="/f")},
    ),
    "link": (
        [call("link", "/f", "/g", follow_symlinks=False)],
        {"/f": empty(redirect="/f"), "/g": hardlink("/f")},
    ),
    "fchmod": ([call("open", "/f", os.O_RDONLY, slot=0), call("fchmod", Slot(0), 0o600)], {"/f": empty(0o600)}),
    "fsetxattr": (
        [call("open", "/f", os.O_RDONLY, slot=0), call("setxattr", Slot(0), "user.k", b"w")],
        {"/f": empty(xattrs={"user.k": b"w"})},
    ),
}


@pytest.mark.parametrize("verb", METADATA)
def test_a_change_of_metadata_copies_metadata_only(box, verb):
    ops, upper = METADATA[verb]
    mounted(box)
    assert [outcome.error for outcome in box.run(ops)] == [None] * len(ops)
    assert box.upper_tree() == upper
    shown = next(path for path, node in upper.items() if node != WHITEOUT)
    assert box.read(shown) == b"abc"


def test_the_copy_has_an_origin_and_the_data_an_xattr_says_are_below(box):
    mounted(box)
    box.os.chmod("/f", 0o600)
    assert box.upper_tree(origin=True) == {"/f": empty(0o600, origin=True)}


def test_an_empty_file_is_copied_without_data_too(box):
    mounted(box, {"/f": ""})
    box.os.chmod("/f", 0o600)
    assert box.upper_tree() == {"/f": file(mode=0o600, metacopy=True)}


def test_only_regular_files_are_copied_without_data(box):
    mounted(box, {"/s": symlink("t"), "/p": fifo(), "/d/": DIR})
    box.os.lchown("/s", 1, 1)
    box.os.chmod("/p", 0o600)
    box.os.chmod("/d", 0o700)
    assert box.upper_tree() == {"/d/": directory(mode=0o700), "/p": fifo(mode=0o600), "/s": symlink("t", uid=1, gid=1)}


WRITES = {
    "open O_WRONLY": ([call("open", "/f", os.O_WRONLY, slot=0)], b"abc"),
    "open O_RDWR": ([call("open", "/f", os.O_RDWR, slot=0)], b"abc"),
    "open O_TRUNC": ([call("open", "/f", os.O_RDONLY | os.O_TRUNC, slot=0)], b""),
    "truncate": ([call("truncate", "/f", 1)], b"a"),
    "truncate to the same size": ([call("truncate", "/f", 3)], b"abc"),
    "write": ([call("open", "/f", os.O_WRONLY, slot=0), call("pwrite", Slot(0), b"X", 1)], b"aXc"),
}


@pytest.mark.parametrize("copied_before", [True, False], ids=["metadata first", "at once"])
@pytest.mark.parametrize("verb", WRITES)
def test_what_asks_to_write_brings_the_data_up(box, verb, copied_before):
    ops, data = WRITES[verb]
    mounted(box)
    if copied_before:
        box.os.chmod("/f", 0o644)
    assert [outcome.error for outcome in box.run(ops)] == [None] * len(ops)
    assert box.upper_tree() == {"/f": file(data, xattrs={"user.k": b"v"})}


@pytest.mark.parametrize(("size", "metadata_first", "fresh"), [(3, True, True), (3, False, False), (0, True, False)])
def test_data_that_come_later_make_the_time_fresh(box, size, metadata_first, fresh):
    box.require_kept_upper("the copy without data is a lower's by then, and the data come up with a whole copy")
    mounted(box, {"/f": "x" * size})
    if metadata_first:
        box.os.chmod("/f", 0o600)
    box.write("/f", b"", os.O_RDWR)
    assert (box.os.stat("/f").st_mtime_ns >= FRESH) == fresh


def test_reading_leaves_the_data_below(box):
    mounted(box)
    box.os.chmod("/f", 0o600)
    fd = box.os.open("/f", os.O_RDONLY)
    assert box.os.read(fd, 9) == b"abc"
    assert box.upper_tree() == {"/f": empty(0o600)}


def test_size_and_blocks_are_those_of_the_data(box):
    mounted(box, {"/f": "x" * 10000})
    before = box.os.stat("/f")
    box.os.chmod("/f", 0o600)
    after = box.os.stat("/f")
    assert (after.st_size, after.st_blocks) == (before.st_size, before.st_blocks) == (10000, 24)


def test_a_descriptor_opened_before_sees_what_is_written_later(box):
    mounted(box)
    fd = box.os.open("/f", os.O_RDONLY)
    box.os.chmod("/f", 0o600)
    assert box.os.pread(fd, 9, 0) == b"abc"
    box.write("/f", b"new data", os.O_WRONLY)
    assert box.os.pread(fd, 9, 0) == b"new data"


FILE, LINKED, BELOW = {"/f": "abc", "/d/": DIR}, {"/f": "abc", "/l": hardlink("/f")}, {"/d/f": "abc"}


@pytest.mark.parametrize(
    ("lower", "moves", "value"),
    [
        (FILE, ["/f /g"], "f"),
        (FILE, ["/f /g", "/g /h"], "f"),
        (FILE, ["/f /g", "/g /d/h"], "/f"),
        (FILE, ["/f /d/g", "/d/g /d/h"], "/f"),
        (LINKED, ["/f /g"], "/f"),
        (BELOW, ["/d /n", "/n/f /n/g"], "f"),
        (BELOW, ["/d /n", "/n/f /g"], "/d/f"),
    ],
)
def test_a_renamed_copy_is_redirected_to_its_data(box, lower, moves, value):
    mounted(box, lower)
    for move in moves:
        src, dst = move.split()
        box.os.rename(src, dst)
    assert box.upper_tree()[dst] == file(bytes(3), metacopy=True, redirect=value)
    box.remount()
    assert box.read(dst) == b"abc"


def test_the_redirect_stays_when_the_data_have_come(box):
    mounted(box)
    box.os.rename("/f", "/g")
    box.write("/g", b"new", os.O_WRONLY)
    assert box.upper_tree() == {"/f": WHITEOUT, "/g": file("new", xattrs={"user.k": b"v"}, redirect="f")}


def test_a_copy_without_data_in_a_middle_lower_reads_from_below(box):
    box.lower({"/f": empty(0o600)})
    mounted(box)
    assert box.read("/f") == b"abc"
    box.os.chmod("/f", 0o640)
    assert box.upper_tree() == {"/f": empty(0o640)}
    assert box.read("/f") == b"abc"


def test_a_copy_without_data_below_is_eio(box):
    box.upper({"/f": file(bytes(3), metacopy=True)})
    mounted(box, {"/d/": DIR})
    with raises_errno(errno.EIO):
        box.os.lstat("/f")


def test_a_mount_without_metacopy_refuses_copies_without_data(box):
    mounted(box)
    box.os.chmod("/f", 0o600)
    box.remount(metacopy="off")
    with raises_errno(errno.EPERM):
        box.os.lstat("/f")


@pytest.mark.parametrize("redirect_dir", ["off", "follow", "nofollow"])
def test_an_explicit_redirect_dir_other_than_on_is_einval(box, redirect_dir):
    box.require_root()
    box.lower({"/f": "x"})
    with raises_errno(errno.EINVAL):
        box.mount(metacopy="on", redirect_dir=redirect_dir)


@pytest.mark.parametrize("redirect_dir", ["on", "off", "follow", "nofollow"])
def test_without_an_upper_only_nofollow_conflicts(box, redirect_dir):
    box.require_root()
    box.lower({"/f": file(bytes(3), metacopy=True, redirect="/data")})
    box.lower({"/data": "abc"})
    box.upper(None)
    options = {"metacopy": "on", "redirect_dir": redirect_dir}
    if redirect_dir == "nofollow":
        with raises_errno(errno.EINVAL):
            box.mount(**options)
    else:
        box.mount(**options)
        assert box.read("/f") == b"abc"


def test_a_verity_digest_in_the_mark_is_passed_over(box):
    """As with verity=off, the kernel's default: version 0, length, flags, algorithm, digest (struct ovl_metacopy)."""
    box.lower({"/f": file(bytes(3), marks={"metacopy": bytes([0, 36, 0, 1]) + bytes(32)})})
    mounted(box, {"/f": "abc"})
    assert box.read("/f") == b"abc"


def test_a_malformed_mark_is_eio(box):
    box.lower({"/f": file(bytes(3), marks={"metacopy": b"\1\2\3"})})
    mounted(box, {"/f": "abc"})
    with raises_errno(errno.EIO):
        box.os.lstat("/f")
