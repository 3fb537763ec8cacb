"""Creating: open with O_CREAT, mkdir, mknod, symlink, link (KB 7, 18)."""

import errno
import os
import stat

import pytest

from overlayvfs.testing import DIR, WHITEOUT, Slot, call, directory, hardlink, raises_errno, symlink
from overlayvfs.testing.states import STATES, arranged

LOWER = {
    "/d/f": "x",
    "/s": symlink("d/f"),
    "/sd": symlink("d"),
    "/dangling": symlink("d/new"),
    "/loop": symlink("loop"),
}
CREATE = os.O_CREAT | os.O_WRONLY
EXCLUSIVE = CREATE | os.O_EXCL

NEW_NAMES = {
    "open": lambda path: call("open", path, EXCLUSIVE, slot=0),
    "mkdir": lambda path: call("mkdir", path),
    "mknod": lambda path: call("mknod", path, stat.S_IFREG | 0o644),
    "symlink": lambda path: call("symlink", "t", path),
    "link": lambda path: call("link", "/d/f", path),
}


@pytest.mark.parametrize("verb", NEW_NAMES)
@pytest.mark.parametrize("state", STATES)
def test_a_visible_name_is_eexist_and_any_other_is_created(box, state, verb):
    layers = arranged(state)
    box.lower({**LOWER, **layers.lower})
    box.upper(layers.upper)
    visible = "x" in box.os.listdir("/")
    [outcome] = box.run([NEW_NAMES[verb]("/x")])
    assert outcome.error == ("EEXIST" if visible else None)
    assert "x" in box.os.listdir("/")


@pytest.mark.parametrize("verb", NEW_NAMES)
@pytest.mark.parametrize(
    ("path", "error"),
    [
        ("/missing/n", "ENOENT"),
        ("/d/f/n", "ENOTDIR"),
        ("/s/n", "ENOTDIR"),
        ("/loop/n", "ELOOP"),
        ("/d/" + "n" * 256, "ENAMETOOLONG"),
        ("", "ENOENT"),
        ("/", "EEXIST"),
        ("/d/.", "EEXIST"),
        ("/d/..", "EEXIST"),
        ("/dangling", "EEXIST"),
        ("/sd/f", "EEXIST"),
        ("/sd/n", None),
    ],
    ids=lambda value: str(value)[:12],
)
def test_where_a_new_name_can_be(box, verb, path, error):
    box.lower(LOWER)
    assert box.run([NEW_NAMES[verb](path)])[0].error == error


@pytest.mark.parametrize(
    ("op", "error"),
    [
        (call("open", "/new/", CREATE, slot=0), "EISDIR"),
        (call("open", "/d", CREATE, slot=0), "EISDIR"),
        (call("open", "/d", os.O_RDONLY | os.O_CREAT, slot=0), "EISDIR"),
        (call("open", "/new", CREATE | os.O_DIRECTORY, slot=0), "EINVAL"),
        (call("open", "/d/f", os.O_RDONLY | os.O_DIRECTORY, slot=0), "ENOTDIR"),
        (call("open", "/dangling", EXCLUSIVE, slot=0), "EEXIST"),
        (call("open", "/loop", CREATE, slot=0), "ELOOP"),
        (call("open", "/s", CREATE | os.O_NOFOLLOW, slot=0), "ELOOP"),
        (call("mkdir", "/new/"), None),
        (call("mkdir", "/dangling/"), "EEXIST"),
        (call("symlink", "", "/new"), "ENOENT"),
        (call("symlink", "t", "/new/"), "ENOENT"),
        (call("symlink", "t" * 4095, "/new"), None),
        (call("symlink", "t" * 4096, "/new"), "ENAMETOOLONG"),
        (call("link", "/d/f", "/new/"), "ENOENT"),
        (call("link", "/d", "/new"), "EPERM"),
        (call("link", "/missing", "/new"), "ENOENT"),
        (call("mknod", "/new", stat.S_IFDIR | 0o755), "EPERM"),
        (call("mknod", "/new", 0o644), None),
    ],
    ids=lambda value: repr(value)[:60],
)
def test_errors_of_creating(box, op, error):
    box.lower(LOWER)
    assert box.run([op])[0].error == error


def test_open_without_excl_opens_the_existing_file(box):
    box.lower({"/f": "data"})
    fd = box.os.open("/f", os.O_RDWR | os.O_CREAT, 0o600)
    assert box.os.read(fd, 10) == b"data"
    assert stat.S_IMODE(box.os.fstat(fd).st_mode) == 0o644


@pytest.mark.parametrize("layer", ["lower", "upper"])
def test_creating_through_a_dangling_symlink_creates_its_target(box, layer):
    links = {"/s": symlink("d/new"), "/d/": DIR}
    box.lower(links if layer == "lower" else {"/d/": DIR})
    box.upper(links if layer == "upper" else {})
    box.write("/s", b"made")
    assert box.tree() == {"/d/new": "made", "/s": symlink("d/new")}


def test_opening_through_a_symlink_copies_the_target_up_and_not_the_symlink(box):
    box.lower({"/d/f": "x", "/s": symlink("d/f")})
    box.write("/s", b"y")
    assert box.upper_tree() == {"/d/f": "y"}


def test_what_is_made_carries_no_marks(box):
    box.lower({"/d/f": "x"})
    box.upper({"/u/": DIR})
    box.write("/u/f", b"")
    box.os.mkdir("/u/d")
    box.os.symlink("t", "/u/s")
    assert {path: node for path, node in box.upper_tree(origin=True, impure=True).items() if path != "/"} == {
        "/u/d/": DIR,
        "/u/f": "",
        "/u/s": symlink("t"),
    }


def test_a_new_object_has_the_asked_mode_less_the_umask(box):
    box.lower({})
    box.os.close(box.os.open("/f", CREATE, 0o666))
    box.os.mkdir("/d", 0o7777)
    box.os.mknod("/p", stat.S_IFIFO | 0o666)
    modes = [stat.S_IMODE(box.os.stat(path).st_mode) for path in ("/f", "/d", "/p")]
    assert [oct(mode) for mode in modes] == ["0o644", "0o1755", "0o644"]


def test_creating_in_a_lower_directory_copies_only_that_directory_up(box):
    box.lower({"/a/b/": directory(mode=0o711), "/a/b/f": "x", "/a/g": "y"})
    box.os.mkdir("/a/b/new")
    assert box.upper_tree() == {"/a/b/": directory(mode=0o711), "/a/b/new/": DIR}


def test_creating_in_a_removed_directory_is_enoent(box):
    box.lower({"/d/": DIR})
    box.os.rmdir("/d")
    with raises_errno(errno.ENOENT):
        box.os.mkdir("/d/new")


def test_a_file_in_place_of_a_lower_directory(box):
    box.lower({"/d/f": "x"})
    box.upper({"/d": WHITEOUT})
    box.write("/d", b"file")
    assert box.tree() == {"/d": "file"}
    with raises_errno(errno.ENOTDIR):
        box.os.stat("/d/f")


def test_link_of_a_symlink_links_the_symlink(box):
    box.lower({"/f": "x", "/s": symlink("f")})
    box.os.link("/s", "/s2", follow_symlinks=False)
    assert box.upper_tree() == {"/s": symlink("f"), "/s2": hardlink("/s")}


def test_a_new_file_is_written_and_read_through_one_descriptor(box):
    box.lower({})
    outcomes = box.run(
        [
            call("open", "/f", os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600, slot=0),
            call("write", Slot(0), b"hello"),
            call("lseek", Slot(0), 1, os.SEEK_SET),
            call("read", Slot(0), 3),
            call("ftruncate", Slot(0), 2),
            call("fstat", Slot(0)),
        ]
    )
    assert [outcome.value for outcome in outcomes[:5]] == ["fd", 5, 1, b"ell", None]
    assert outcomes[5].value["size"] == 2


@pytest.mark.parametrize("name", ["spaced name", "ünïcödé", "newline\n", "\udcff\udcfe", "a" * 255, "...", "-rf", "*"])
def test_unusual_names_come_back_as_they_were(box, name):
    box.lower({"/d/f": "x"})
    box.write(f"/d/{name}", b"y")
    assert sorted(box.os.listdir("/d")) == sorted(["f", name])
    assert box.read(f"/d/{name}") == b"y"
