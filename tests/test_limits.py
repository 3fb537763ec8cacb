"""Bounds around an upper: refused exactly at the limit, nothing half done, and room given back at once."""

import errno
import os
import random
import stat
from contextlib import ExitStack
from pathlib import Path

import pytest
from fs.errors import FSError
from fs.memoryfs import MemoryFS as PlainMemoryFS

from overlayvfs import MemoryFS, OverlayFS, limited
from overlayvfs.abi import RENAME_EXCHANGE, RENAME_WHITEOUT
from overlayvfs.layers.base import SnapshotLayer, UpperLayer
from overlayvfs.layers.local import LocalLayer
from overlayvfs.layers.memory import MemoryLayer
from overlayvfs.testing.conformance import SnapshotConformance, UpperConformance
from overlayvfs.testing.conformance.trees import raises_errno
from overlayvfs.workspace.limits import Bounds, Limited, SnapshotLimited
from overlayvfs.workspace.readonly import ReadOnlySubtrees, SnapshotReadOnly

PLENTY = Bounds(size=1 << 40, nr_inodes=1 << 20, file_size=1 << 62)


class TestLimitedMemoryConformance(SnapshotConformance):
    def make_upper(self, where: Path) -> SnapshotLayer:
        return SnapshotLimited(MemoryLayer(), PLENTY)


class TestReadOnlySubtreesConformance(SnapshotConformance):
    def make_upper(self, where: Path) -> SnapshotLayer:
        return SnapshotReadOnly(MemoryLayer(), ["/not/here"])


@pytest.mark.skipif(not hasattr(os, "O_PATH"), reason="host directories as uppers need Linux")
class TestLimitedHostConformance(UpperConformance):
    def make_upper(self, where: Path) -> UpperLayer:
        return Limited(LocalLayer(where, writable=True), PLENTY)


@pytest.fixture(params=["memory", "host", "plain"])
def upper(request, tmp_path):
    """Something to bound: a MemoryFS, a host directory, a plain PyFilesystem."""
    if request.param == "memory":
        return MemoryFS()
    if request.param == "plain":
        return PlainMemoryFS()
    (tmp_path / "upper").mkdir()
    return str(tmp_path / "upper")


@pytest.fixture
def stack():
    """OverlayFS, closed at the end of the test."""
    with ExitStack() as opened:
        yield lambda *args: opened.enter_context(OverlayFS(*args))


@pytest.fixture
def lower():
    lower = MemoryFS()
    lower.writebytes("big", b"b" * 600)
    lower.writebytes("small", b"s" * 10)
    lower.makedir("d").writebytes("f", b"f" * 10)
    return lower


def test_size_is_exact_to_the_byte(upper, lower, stack):
    ofs = stack([lower], limited(upper, size=100))
    ofs.writebytes("full", b"x" * 100)
    with raises_errno(errno.ENOSPC):
        ofs.os.write(ofs.os.open("/full", os.O_WRONLY | os.O_APPEND), b"y")
    assert ofs.readbytes("full") == b"x" * 100


def test_a_write_that_does_not_fit_writes_nothing(upper, lower, stack):
    ofs = stack([lower], limited(upper, size=100))
    fd = ofs.os.open("/f", os.O_RDWR | os.O_CREAT)
    ofs.os.write(fd, b"x" * 60)
    with raises_errno(errno.ENOSPC):
        ofs.os.pwrite(fd, b"y" * 60, 50)
    assert ofs.os.pread(fd, 200, 0) == b"x" * 60
    assert ofs.os.pwrite(fd, b"y" * 50, 50) == 50


def test_overwriting_takes_no_room(upper, lower, stack):
    ofs = stack([lower], limited(upper, size=100))
    fd = ofs.os.open("/f", os.O_RDWR | os.O_CREAT)
    ofs.os.write(fd, b"x" * 100)
    assert ofs.os.pwrite(fd, b"y" * 100, 0) == 100


@pytest.mark.parametrize(
    "free",
    [
        lambda ofs: ofs.os.unlink("/f"),
        lambda ofs: ofs.os.truncate("/f", 0),
        lambda ofs: ofs.os.rename("/empty", "/f"),
        lambda ofs: ofs.writebytes("f", b""),
    ],
    ids=["unlink", "truncate", "rename over it", "O_TRUNC"],
)
def test_freed_room_counts_back_at_once(upper, lower, free, stack):
    ofs = stack([lower], limited(upper, size=100))
    ofs.touch("empty")
    ofs.writebytes("f", b"x" * 100)
    free(ofs)
    ofs.writebytes("g", b"y" * 100)
    assert ofs.getsize("g") == 100


def test_a_copy_up_that_does_not_fit_leaves_the_tree_as_it_was(upper, lower, stack):
    layer = limited(upper, size=100)
    ofs = stack([lower], layer)
    with raises_errno(errno.ENOSPC):
        ofs.os.open("/big", os.O_WRONLY)
    assert ofs.readbytes("big") == b"b" * 600
    assert layer.listdir("") == []
    ofs.writebytes("f", b"x" * 100)


def test_a_file_counts_once_however_many_names_it_has(stack):
    ofs = stack([MemoryFS()], limited(MemoryFS(), size=100))
    ofs.writebytes("f", b"x" * 60)
    ofs.os.link("/f", "/g")
    ofs.os.unlink("/f")
    with raises_errno(errno.ENOSPC):
        ofs.os.truncate("/g", 101)
    ofs.os.unlink("/g")
    ofs.writebytes("h", b"x" * 100)


def test_an_unlinked_file_counts_until_its_last_descriptor_is_closed(upper, lower, stack):
    ofs = stack([lower], limited(upper, size=100))
    fd = ofs.os.open("/f", os.O_RDWR | os.O_CREAT)
    ofs.os.write(fd, b"x" * 60)
    ofs.os.unlink("/f")
    other = ofs.os.open("/g", os.O_RDWR | os.O_CREAT)
    with raises_errno(errno.ENOSPC):
        ofs.os.write(other, b"y" * 50)
    ofs.os.close(fd)
    assert ofs.os.write(other, b"y" * 100) == 100


def test_what_is_there_already_counts(upper, lower, stack):
    before = OverlayFS([lower], upper)
    before.writebytes("old", b"x" * 60)
    before.close()
    ofs = stack([lower], limited(upper, size=100))
    with raises_errno(errno.ENOSPC):
        ofs.os.truncate("/old", 101)
    ofs.remove("old")
    ofs.writebytes("new", b"x" * 100)


def test_symlinks_and_attributes_count_but_marks_do_not(stack):
    ofs = stack([MemoryFS()], limited(MemoryFS(), size=100))
    ofs.os.symlink("t" * 40, "/link")
    ofs.touch("f")
    with raises_errno(errno.ENOSPC):
        ofs.os.setxattr("/f", "user.a", b"v" * 55)
    ofs.os.setxattr("/f", "user.a", b"v" * 54)
    ofs.os.setxattr("/f", "user.a", b"w" * 54)
    with raises_errno(errno.ENOSPC):
        ofs.os.truncate("/f", 1)
    ofs.os.removexattr("/f", "user.a")
    ofs.os.truncate("/f", 60)


def test_nothing_is_in_the_way_of_deleting_when_full(upper, lower, stack):
    ofs = stack([lower], limited(upper, size=20))
    ofs.writebytes("full", b"x" * 20)
    ofs.removetree("/")
    assert ofs.listdir("/") == []
    ofs.writebytes("again", b"x" * 20)


def test_nr_inodes_counts_the_root_as_tmpfs_does(upper, stack):
    ofs = stack([MemoryFS()], limited(upper, nr_inodes=3))
    ofs.touch("one")
    ofs.makedir("two")
    with raises_errno(errno.ENOSPC):
        ofs.os.mkdir("/three")
    ofs.removedir("two")
    ofs.makedir("three")
    assert sorted(ofs.listdir("/")) == ["one", "three"]


def test_another_name_is_no_inode(stack):
    ofs = stack([MemoryFS()], limited(MemoryFS(), nr_inodes=2))
    ofs.touch("one")
    ofs.os.link("/one", "/two")
    with raises_errno(errno.ENOSPC):
        ofs.os.symlink("one", "/three")


def test_file_size_is_efbig_and_writes_nothing(upper, lower, stack):
    ofs = stack([lower], limited(upper, file_size=100))
    fd = ofs.os.open("/f", os.O_RDWR | os.O_CREAT)
    ofs.os.write(fd, b"x" * 100)
    with raises_errno(errno.EFBIG):
        ofs.os.write(fd, b"y")
    with raises_errno(errno.EFBIG):
        ofs.os.truncate("/f", 101)
    with raises_errno(errno.EFBIG):
        ofs.os.open("/big", os.O_RDWR)
    assert ofs.os.fstat(fd).st_size == 100
    ofs.writebytes("other", b"x" * 100)


def test_statvfs_shows_the_bounds(stack):
    ofs = stack([MemoryFS()], limited(MemoryFS(), size=1 << 20, nr_inodes=10))
    ofs.writebytes("f", b"x" * 5000)
    st = ofs.os.statvfs("/")
    assert st.f_blocks * st.f_frsize == 1 << 20
    assert st.f_bfree == st.f_bavail == ((1 << 20) - 5000) // st.f_frsize
    assert (st.f_files, st.f_ffree) == (10, 8)


def test_statvfs_promises_no_more_than_there_is_below(stack):
    ofs = stack([MemoryFS()], limited(MemoryFS(size=8192, nr_inodes=5), size=1 << 20, nr_inodes=10))
    st = ofs.os.statvfs("/")
    assert (st.f_bfree * st.f_frsize, st.f_ffree) == (8192, 4)


def test_figures_are_those_of_a_walk_after_all_kinds_of_changes(upper, lower, stack):
    layer = limited(upper, size=1 << 20, nr_inodes=1000)
    ofs = stack([lower], layer)
    ofs.appendbytes("small", b"!")
    ofs.makedirs("a/b").writebytes("f", b"12345")
    ofs.os.setxattr("/a", "user.k", b"value") if not isinstance(upper, PlainMemoryFS) else None
    ofs.os.rename("/a/b/f", "/small")
    ofs.os.rename("/small", "/d/f")
    ofs.os.renameat2("/d/f", "/a/b", RENAME_EXCHANGE)
    ofs.removetree("d")
    ofs.remove("big")
    with ofs.open("gone", "wb") as file:
        file.write(b"abc")
        ofs.remove("gone")
    shown = layer.usage
    ofs.close()
    assert layer.usage == Limited(layer.inner, PLENTY).usage
    # The one whiteout all others are links of is kept in the work directory while mounted.
    assert shown.size == layer.usage.size
    assert 0 <= shown.inodes - layer.usage.inodes <= 1


def test_rename_with_a_whiteout_takes_an_inode():
    layer = SnapshotLimited(MemoryLayer(), Bounds(nr_inodes=2))
    layer.create("/f", 0o644, 0, 0).close()
    with raises_errno(errno.ENOSPC):
        layer.rename("/f", "/g", RENAME_WHITEOUT)
    assert [entry.d_name for entry in layer.listdir("")] == ["f"]


def test_a_snapshot_has_the_same_bounds_and_figures_of_its_own():
    parent = SnapshotLimited(MemoryLayer(), Bounds(size=100))
    with_f = parent.create("/f", 0o644, 0, 0)
    with_f.pwrite(b"x" * 60, 0)
    child = parent.snapshot()
    parent.unlink("/f")
    with_f.close()
    with_g = child.create("/g", 0o644, 0, 0)
    with raises_errno(errno.ENOSPC):
        with_g.pwrite(b"y" * 41, 0)
    assert with_g.pwrite(b"y" * 40, 0) == 40
    assert (parent.usage.size, child.usage.size) == (0, 100)


def test_a_snapshot_does_not_count_what_only_a_descriptor_of_its_parent_held():
    parent = SnapshotLimited(MemoryLayer(), Bounds(size=100))
    handle = parent.tmpfile(0o600, 0, 0)
    handle.pwrite(b"x" * 60, 0)
    assert (parent.usage.size, parent.snapshot().usage.size) == (60, 0)


def test_a_negative_bound_is_einval():
    with raises_errno(errno.EINVAL):
        limited(MemoryFS(), size=-1)


def test_an_overlay_can_not_be_bounded_as_an_upper():
    with raises_errno(errno.EINVAL):
        limited(OverlayFS([MemoryFS()]), size=1)


def test_the_same_upper_bounded_or_not_is_one_upper():
    upper = MemoryFS()
    with OverlayFS([MemoryFS()], limited(upper, size=1)), pytest.raises(OSError, match="busy"):
        OverlayFS([MemoryFS()], upper)


# Read-only subtrees


CHANGES = {
    "write": lambda os_: os_.open("/ro/f", os.O_WRONLY),
    "create": lambda os_: os_.open("/ro/new", os.O_WRONLY | os.O_CREAT),
    "mkdir": lambda os_: os_.mkdir("/ro/new"),
    "symlink": lambda os_: os_.symlink("x", "/ro/new"),
    "unlink": lambda os_: os_.unlink("/ro/f"),
    "rmdir": lambda os_: os_.rmdir("/ro/empty"),
    "rename": lambda os_: os_.rename("/ro/f", "/f"),
    "rename into": lambda os_: os_.rename("/rw/f", "/ro/f"),
    "link": lambda os_: os_.link("/ro/f", "/f"),
    "chmod": lambda os_: os_.chmod("/ro/f", 0o600),
    "chown": lambda os_: os_.chown("/ro/f", 1, 1),
    "utime": lambda os_: os_.utime("/ro/f", ns=(1, 1)),
    "setxattr": lambda os_: os_.setxattr("/ro/f", "user.k", b"v"),
    "truncate": lambda os_: os_.truncate("/ro/f", 0),
    "chmod of itself": lambda os_: os_.chmod("/ro", 0o700),
}


@pytest.fixture(params=["in the lower", "in the upper"])
def protected(request, stack):
    """An overlay with /ro/f, /ro/empty and /rw/f, /ro protected."""
    lower, upper = MemoryFS(), MemoryFS()
    tree = lower if request.param == "in the lower" else upper
    tree.makedirs("ro/empty")
    tree.writetext("ro/f", "fixed")
    tree.makedir("rw").writetext("f", "free")
    return stack([lower], limited(upper, read_only=["/ro"]))


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_read_only_subtree_can_not_be_changed(protected, change):
    with raises_errno(errno.EROFS):
        change(protected.os)
    assert protected.readtext("ro/f") == "fixed"
    assert sorted(protected.listdir("ro")) == ["empty", "f"]
    assert protected.readtext("rw/f") == "free"


def test_a_descriptor_of_a_read_only_file_changes_nothing_either(protected):
    fd = protected.os.open("/ro/f", os.O_RDONLY)
    with raises_errno(errno.EROFS):
        protected.os.fchmod(fd, 0o600)
    assert stat.S_IMODE(protected.os.stat("/ro/f").st_mode) != 0o600


def test_beside_a_read_only_subtree_all_is_as_ever(protected):
    protected.writetext("rw/f", "changed")
    protected.os.rename("/rw/f", "/g")
    protected.removetree("rw")
    assert sorted(protected.listdir("/")) == ["g", "ro"]


def test_what_holds_a_read_only_subtree_can_be_neither_moved_nor_hidden(stack):
    lower, upper = MemoryFS(), MemoryFS()
    upper.makedirs("a/ro").touch("f")
    ofs = stack([lower], limited(upper, read_only=["a/ro"]))
    ofs.makedir("b")
    for src, dst, flags in (("/a", "/c", 0), ("/b", "/a", RENAME_EXCHANGE)):
        with raises_errno(errno.EROFS):
            ofs.os.renameat2(src, dst, flags)
    with raises_errno(errno.EROFS):
        ofs.os.unlink("/a/ro/f")
    ofs.writetext("a/free", "")
    assert sorted(ofs.listdir("a")) == ["free", "ro"]


def test_a_snapshot_keeps_its_read_only_subtrees():
    layer = SnapshotReadOnly(SnapshotLimited(MemoryLayer(), PLENTY), ["/ro"])
    with raises_errno(errno.EROFS):
        layer.snapshot().mkdir("/ro", 0o755, 0, 0)


def test_bounds_and_read_only_subtrees_come_together(stack):
    layer = limited(MemoryFS(), size=10, read_only=["/ro"])
    assert isinstance(layer, ReadOnlySubtrees) and isinstance(layer, SnapshotLayer)
    ofs = stack([MemoryFS()], layer)
    with raises_errno(errno.EROFS):
        ofs.os.mkdir("/ro")
    with raises_errno(errno.ENOSPC):
        ofs.os.truncate(ofs.os.open("/f", os.O_RDWR | os.O_CREAT), 11)


def test_a_fork_of_a_bounded_overlay_is_bounded(upper, stack):
    ofs = stack([MemoryFS()], limited(upper, size=100))
    ofs.writebytes("f", b"x" * 60)
    with ofs.fork() as fork:
        with raises_errno(errno.ENOSPC):
            fork.os.truncate("/f", 101)
        fork.remove("f")
        fork.writebytes("g", b"y" * 100)
        assert ofs.readbytes("f") == b"x" * 60


def test_a_bounded_and_protected_overlay_can_be_rolled_back(stack):
    lower, upper = MemoryFS(), MemoryFS()
    lower.makedirs("a/ro")
    upper.makedir("ro").touch("f")
    ofs = stack([lower], limited(upper, size=100, read_only=["ro", "a/ro"]))
    ofs.makedir("b")
    before = ofs.checkpoint()
    ofs.writetext("a/f", "new")
    ofs.removedir("b")
    ofs.rollback(before)
    assert sorted(ofs.listdir("/")) == ["a", "b", "ro"]
    assert ofs.listdir("a") == ["ro"] and ofs.listdir("ro") == ["f"]


@pytest.mark.parametrize("seed", range(8))
def test_after_random_changes_the_figures_are_those_of_a_walk(upper, stack, seed):
    chance = random.Random(seed)
    lower = MemoryFS()
    lower.makedirs("d/e").writebytes("f", b"f" * 300)
    lower.writebytes("a", b"a" * 200)
    layer = limited(upper, size=350, nr_inodes=7, file_size=300)
    ofs = stack([lower], layer)
    names = ["/a", "/d", "/d/e", "/d/e/f", "/n", "/n/m", "/d/n"]
    opened = []
    verbs = [
        lambda: ofs.os.unlink(chance.choice(names)),
        lambda: ofs.removetree(chance.choice(names)),
        lambda: ofs.os.mkdir(chance.choice(names)),
        lambda: ofs.os.rename(chance.choice(names), chance.choice(names)),
        lambda: ofs.os.link(chance.choice(names), chance.choice(names)),
        lambda: ofs.os.symlink("t" * chance.randrange(1, 300), chance.choice(names)),
        lambda: ofs.os.setxattr(chance.choice(names), "user.k", b"v" * chance.randrange(300)),
        lambda: ofs.os.removexattr(chance.choice(names), "user.k"),
        lambda: ofs.os.truncate(chance.choice(names), chance.randrange(450)),
        lambda: opened.append(ofs.os.open(chance.choice(names), os.O_RDWR | os.O_CREAT)),
        lambda: ofs.os.pwrite(chance.choice(opened), b"w" * chance.randrange(300), chance.randrange(200)),
        lambda: ofs.os.close(opened.pop(chance.randrange(len(opened)))),
    ]
    refusals = set()
    for _ in range(150):
        try:
            chance.choice(verbs)()
        except (OSError, FSError, IndexError, ValueError) as error:
            refusals.add(getattr(error, "errno", None))
        assert layer.usage.size <= 350 and layer.usage.inodes <= 7
    for fd in opened:
        ofs.os.close(fd)
    assert errno.ENOSPC in refusals or errno.EFBIG in refusals
    assert layer.usage == Limited(layer.inner, PLENTY).usage
