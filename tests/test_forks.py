"""Forks, checkpoints and going back: what both sides see, what it costs, and what is left when they end."""

import errno
import gc
import os
import weakref
from collections.abc import Callable, Iterator

import pytest
from fs.errors import FilesystemClosed, InsufficientStorage, OperationFailed
from fs.memoryfs import MemoryFS as PlainFS
from fs.osfs import OSFS

from overlayvfs import MemoryFS, OverlayFS
from overlayvfs.layers.cow import Radix
from overlayvfs.layers.memory import MemoryLayer
from overlayvfs.testing.bodies import raises_errno

Uppers = Callable[[], object]


@pytest.fixture(params=["memory", "host", "plain"])
def upper(request, tmp_path):
    if request.param == "memory":
        return MemoryFS()
    if request.param == "plain":
        return PlainFS()
    (tmp_path / "upper").mkdir()
    return str(tmp_path / "upper")


@pytest.fixture
def lower() -> MemoryFS:
    lower = MemoryFS()
    lower.makedirs("/d/e")
    lower.writetext("/d/f", "lower")
    lower.writetext("/d/e/g", "lower")
    lower.writetext("/a", "lower")
    return lower


@pytest.fixture
def ofs(lower, upper) -> Iterator[OverlayFS]:
    with OverlayFS([lower], upper) as ofs:
        yield ofs


def tree(ofs: OverlayFS) -> dict[str, str]:
    return {path: ofs.readtext(path) for path in sorted(ofs.walk.files())}


def test_fork_and_parent_each_go_their_own_way(ofs):
    ofs.writetext("/b", "before")
    fork = ofs.fork()
    ofs.writetext("/b", "parent")
    ofs.remove("/a")
    fork.writetext("/a", "fork")
    fork.removetree("/d")
    assert tree(ofs) == {"/b": "parent", "/d/f": "lower", "/d/e/g": "lower"}
    assert tree(fork) == {"/a": "fork", "/b": "before"}


def test_fork_of_a_fork_survives_both_its_ancestors(ofs):
    fork = ofs.fork()
    fork.writetext("/b", "fork")
    grandchild = fork.fork()
    ofs.close()
    fork.close()
    grandchild.appendtext("/b", " and on")
    assert tree(grandchild)["/b"] == "fork and on"


@pytest.mark.parametrize("options", [{}, {"redirect_dir": "on", "index": True}, {"metacopy": True}])
def test_fork_shows_the_numbers_links_and_times_of_its_parent(lower, tmp_path, options):
    lower.os.link("/a", "/a2")
    for upper in (MemoryFS(), str(tmp_path)):
        with OverlayFS([lower], upper, **options) as ofs:
            ofs.writetext("/new", "x")
            ofs.os.link("/new", "/d/link")
            ofs.os.symlink("new", "/s")
            ofs.os.chmod("/a", 0o600)
            ofs.writetext("/d/f", "upper")
            ofs.os.rename("/d/f", "/moved")
            before = {path: ofs.os.lstat(path) for path in everything(ofs)}
            with ofs.fork() as fork:
                assert {path: all_but_ctime(fork.os.lstat(path)) for path in everything(fork)} == {
                    path: all_but_ctime(st) for path, st in before.items()
                }
                assert sorted(fork.os.listdir("/")) == sorted(ofs.os.listdir("/"))


def everything(ofs: OverlayFS) -> list[str]:
    found = ["/"]
    for at, dirs, files in ofs.os.walk("/"):
        found += [f"{at.rstrip('/')}/{name}" for name in (*dirs, *files)]
    return sorted(found)


def all_but_ctime(st: os.stat_result) -> tuple[int, ...]:
    """A copy on the host has a ctime of its own, which nothing can set; looking at directories changes their atime."""
    return (st.st_mode, st.st_ino, st.st_dev, st.st_nlink, st.st_uid, st.st_gid, st.st_size, st.st_mtime_ns, st.st_rdev)


def test_fork_keeps_the_number_of_a_copy_whose_lower_gives_no_handles(tmp_path):
    plain = PlainFS()
    plain.writetext("/a", "plain")
    ofs = OverlayFS([plain], MemoryFS())
    ofs.appendtext("/a", "!")
    ofs.os.rename("/a", "/moved")
    number = ofs.os.stat("/moved").st_ino
    grandchild = ofs.fork().fork()
    assert grandchild.os.stat("/moved").st_ino == number
    grandchild.os.rename("/moved", "/again")
    assert ofs.fork().os.stat("/moved").st_ino == grandchild.fork().os.stat("/again").st_ino == number


def test_fork_acts_as_whom_its_parent_acts(ofs):
    ofs.os.umask(0o077)
    fork = ofs.fork()
    fork.os.umask(0o007)
    fork.os.mkdir("/m", 0o777)
    ofs.os.mkdir("/m", 0o777)
    assert fork.os.umask(0) == 0o007
    assert ofs.os.umask(0) == 0o077


def test_open_file_stays_with_the_parent(ofs):
    fd = ofs.os.open("/a", os.O_RDWR)
    fork = ofs.fork()
    ofs.os.write(fd, b"PARENT")
    assert (ofs.readtext("/a"), fork.readtext("/a")) == ("PARENT", "lower")
    with raises_errno(errno.EBADF):
        fork.os.read(fd, 1)


def test_unlinked_open_file_of_the_parent_is_no_part_of_the_fork(ofs):
    fd = ofs.os.open("/gone", os.O_RDWR | os.O_CREAT)
    ofs.os.unlink("/gone")
    fork = ofs.fork()
    ofs.os.write(fd, b"still here")
    assert not fork.exists("/gone")
    assert ofs.os.pread(fd, 20, 0) == b"still here"


def test_rename_of_a_merged_directory_works_in_parent_and_fork(lower):
    ofs = OverlayFS([lower], MemoryFS(), redirect_dir=True)
    ofs.writetext("/d/new", "upper")
    fork = ofs.fork()
    fork.os.rename("/d", "/forked")
    ofs.os.rename("/d", "/kept")
    assert tree(fork) == {"/a": "lower", "/forked/f": "lower", "/forked/e/g": "lower", "/forked/new": "upper"}
    assert tree(ofs) == {"/a": "lower", "/kept/f": "lower", "/kept/e/g": "lower", "/kept/new": "upper"}


def test_read_only_overlay_forks_and_rolls_back(lower):
    ofs = OverlayFS([lower])
    fork = ofs.fork()
    ofs.rollback(ofs.checkpoint())
    ofs.close()
    assert tree(fork) == {"/a": "lower", "/d/f": "lower", "/d/e/g": "lower"}
    with raises_errno(errno.EROFS):
        fork.os.mkdir("/m")


def test_fork_of_a_closed_overlay_is_refused(ofs):
    kept = ofs.checkpoint()
    ofs.close()
    for verb in (ofs.fork, ofs.checkpoint, lambda: ofs.rollback(kept)):
        with pytest.raises(FilesystemClosed):
            verb()


def test_layers_opened_for_an_overlay_live_as_long_as_its_last_fork(tmp_path):
    (tmp_path / "l").mkdir()
    (tmp_path / "l" / "f").write_text("lower")
    before = descriptors()
    ofs = OverlayFS([str(tmp_path / "l")], MemoryFS())
    fork = ofs.fork()
    ofs.close()
    assert fork.readtext("/f") == "lower"
    fork.close()
    assert descriptors() == before


def test_given_lowers_are_closed_with_the_last_fork_if_asked(tmp_path):
    lower, upper = OSFS(str(tmp_path)), MemoryFS()
    ofs = OverlayFS([lower], upper, close_layers=True)
    fork = ofs.fork()
    ofs.close()
    assert (lower.isclosed(), upper.isclosed()) == (False, True)
    fork.close()
    assert lower.isclosed()


# What it costs


def test_fork_of_a_memory_upper_costs_the_same_whatever_it_holds(monkeypatch, lower):
    calls: list[str] = []
    for verb in (verb for verb in vars(MemoryLayer) if not verb.startswith("__")):
        if callable(getattr(MemoryLayer, verb)):
            monkeypatch.setattr(MemoryLayer, verb, counted(calls, verb, getattr(MemoryLayer, verb)))
    monkeypatch.setattr(Radix, "fork", counted(calls, "Radix.fork", Radix.fork))
    monkeypatch.setattr(Radix, "set", counted(calls, "Radix.set", Radix.set))
    costs = []
    for objects in (1, 1000):
        ofs = OverlayFS([lower], MemoryFS())
        for number in range(objects):
            ofs.writetext(f"/file{number}", "x")
        ofs.fork().close()
        calls.clear()
        fork = ofs.fork()
        fork.close()
        costs.append(list(calls))
    assert costs[0] == costs[1]
    assert len(costs[0]) < 20


def counted(calls: list[str], name: str, verb: Callable[..., object]) -> Callable[..., object]:
    def call(*args: object, **kwargs: object) -> object:
        calls.append(name)
        return verb(*args, **kwargs)

    return call


def test_fork_asks_no_lower_what_its_parent_knows(tmp_path, monkeypatch):
    lower = MemoryFS()
    lower.makedirs("/a/b")
    lower.writetext("/a/b/f", "x")
    ofs = OverlayFS([lower], MemoryFS())
    ofs.os.stat("/a/b/f")
    asked: list[str] = []
    layer = ofs._overlay._mnt.lowers.layer(1)
    monkeypatch.setattr(layer, "lstat", counted(asked, "lstat", layer.lstat))
    ofs.fork().os.stat("/a/b/f")
    assert asked == []


# Going back


def test_rollback_makes_the_tree_what_it_was(ofs):
    ofs.writetext("/b", "then")
    ofs.remove("/d/f")
    then, kept = tree(ofs), ofs.checkpoint()
    ofs.writetext("/b", "now")
    ofs.writetext("/a", "now")
    ofs.removetree("/d")
    ofs.makedirs("/new/dir")
    ofs.rollback(kept)
    assert tree(ofs) == then
    assert sorted(ofs.listdir("/")) == ["a", "b", "d"]


def test_checkpoint_can_be_gone_back_to_again_and_again(ofs):
    kept = ofs.checkpoint()
    then = tree(ofs)
    for text in ("one", "two"):
        ofs.writetext("/a", text)
        ofs.removetree("/d")
        ofs.rollback(kept)
        assert tree(ofs) == then


def test_rollback_is_in_the_upper_when_it_is_opened_again(lower, upper):
    with OverlayFS([lower], upper) as ofs:
        ofs.writetext("/a", "then")
        then, kept = tree(ofs), ofs.checkpoint()
        ofs.removetree("/d")
        ofs.remove("/a")
        ofs.rollback(kept)
    with OverlayFS([lower], upper) as again:
        assert tree(again) == then


@pytest.mark.parametrize("options", [{}, {"redirect_dir": "on", "index": True}])
def test_rollback_gives_back_numbers_links_and_times(lower, tmp_path, options):
    lower.os.link("/a", "/a2")
    for upper in (MemoryFS(), str(tmp_path)):
        with OverlayFS([lower], upper, **options) as ofs:
            ofs.writetext("/new", "x")
            ofs.os.link("/new", "/d/link")
            ofs.os.chmod("/a", 0o600)
            ofs.os.setxattr("/d", "user.k", b"v")
            before = {path: all_but_ctime(ofs.os.lstat(path)) for path in everything(ofs)}
            kept = ofs.checkpoint()
            ofs.os.unlink("/new")
            ofs.writetext("/a", "changed")
            ofs.os.removexattr("/d", "user.k")
            ofs.os.chmod("/", 0o700)
            ofs.rollback(kept)
            assert {path: all_but_ctime(ofs.os.lstat(path)) for path in everything(ofs)} == before
            assert ofs.os.getxattr("/d", "user.k") == b"v"


def test_no_number_shows_twice_after_rollback(lower, tmp_path):
    with OverlayFS([lower], str(tmp_path)) as ofs:
        for name in "bcde":
            ofs.writetext(f"/{name}.txt", name)
        kept = ofs.checkpoint()
        for name in "bcde":
            ofs.remove(f"/{name}.txt")
        ofs.rollback(kept)
        for number in range(8):
            ofs.writetext(f"/later{number}", "")
        numbers = [ofs.os.lstat(path).st_ino for path in everything(ofs)]
        assert len(set(numbers)) == len(numbers)


def test_file_open_in_the_upper_keeps_what_it_holds_over_a_rollback(ofs):
    ofs.writetext("/b", "then")
    kept = ofs.checkpoint()
    fd = ofs.os.open("/b", os.O_RDWR)
    ofs.os.pwrite(fd, b"NOW!", 0)
    ofs.rollback(kept)
    ofs.os.pwrite(fd, b"and on", 4)
    assert ofs.os.pread(fd, 20, 0) == b"NOW!and on"
    assert ofs.readtext("/b") == "then"


def test_open_directory_of_a_rolled_back_tree_is_empty(ofs):
    kept = ofs.checkpoint()
    ofs.makedir("/new")
    ofs.writetext("/new/f", "")
    fd = ofs.os.open("/new", os.O_RDONLY)
    ofs.rollback(kept)
    assert ofs.os.listdir(fd) == []
    assert ofs.os.fstat(fd).st_nlink in (0, 1, 2)


def test_fork_can_go_back_to_a_checkpoint_of_its_parent(ofs):
    kept = ofs.checkpoint()
    ofs.writetext("/a", "parent")
    fork = ofs.fork()
    fork.rollback(kept)
    assert (ofs.readtext("/a"), fork.readtext("/a")) == ("parent", "lower")


def test_rollback_to_a_checkpoint_of_another_overlay_is_einval(ofs):
    other = OverlayFS([MemoryFS()], MemoryFS())
    with pytest.raises(OperationFailed) as caught:
        ofs.rollback(other.checkpoint())
    assert caught.value.exc.errno == errno.EINVAL


def test_rollback_that_does_not_fit_leaves_the_tree_as_it_is(lower):
    upper = MemoryFS(nr_inodes=12)
    ofs = OverlayFS([lower], upper)
    for name in "bcdefg":
        ofs.writetext(f"/{name}.txt", name)
    kept = ofs.checkpoint()
    ofs.writetext("/b.txt", "now")
    now = tree(ofs)
    with pytest.raises(InsufficientStorage):
        ofs.rollback(kept)
    assert tree(ofs) == now


# Lifecycle


def descriptors() -> set[str]:
    return {
        os.readlink(f"/proc/self/fd/{fd}")
        for fd in os.listdir("/proc/self/fd")
        if os.path.exists(f"/proc/self/fd/{fd}")
    }


@pytest.fixture
def no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def test_dropped_overlays_and_forks_free_memory_and_descriptors_at_once(no_collector, tmp_path):
    for name in ("lower", "upper"):
        (tmp_path / name).mkdir()
    (tmp_path / "lower" / "f").write_text("lower")
    before = descriptors()
    alive = []
    for upper in (MemoryFS(), str(tmp_path / "upper")):
        ofs = OverlayFS([str(tmp_path / "lower")], upper)
        ofs.makedirs("/x/y")
        ofs.appendtext("/f", "!")
        fork = ofs.fork()
        fork.removetree("/x")
        fork.os.open("/f", os.O_RDONLY)
        kept = fork.checkpoint()
        fork.rollback(kept)
        alive += [weakref.ref(one._overlay._mnt.upper) for one in (ofs, fork)]
        alive += [weakref.ref(one._overlay._mnt) for one in (ofs, fork)]
        alive += [weakref.ref(kept)]
        ofs.exists("/not/there")
        del ofs, fork, kept, upper
    assert [one() for one in alive if one() is not None] == []
    assert descriptors() == before
    assert sorted(os.listdir(tmp_path)) == ["lower", "upper"]


def test_use_after_close_is_filesystem_closed(ofs):
    fork = ofs.fork()
    fork.close()
    for verb in (fork.fork, lambda: fork.listdir("/"), lambda: fork.readtext("/a")):
        with pytest.raises(FilesystemClosed):
            verb()
    assert tree(ofs)
