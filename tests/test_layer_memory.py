import errno
import gc
import itertools
import threading
import tracemalloc
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from overlayvfs.abi import PAGE_SIZE, RENAME_EXCHANGE, RENAME_NOREPLACE, RENAME_WHITEOUT, XATTR_CREATE
from overlayvfs.layers import _inodes as inodes
from overlayvfs.layers.base import INDEX, WORK
from overlayvfs.layers.local import LocalLayer
from overlayvfs.layers.memory import CLONE_MIN, MemoryLayer, Superblock
from overlayvfs.marks import FileHandle
from overlayvfs.testing.conformance import SnapshotConformance
from overlayvfs.testing.conformance.trees import raises_errno, read, read_tree

MIB = 1 << 20


class TestConformance(SnapshotConformance):
    def make_upper(self, where: Path) -> MemoryLayer:
        return MemoryLayer()


class TestSubtreeConformance(SnapshotConformance):
    def make_upper(self, where: Path) -> MemoryLayer:
        whole = MemoryLayer()
        whole.mkdir("/upper", 0o755, 0, 0)
        return whole.subtree("/upper")


def write(layer: MemoryLayer, path: str, data: bytes) -> None:
    try:
        handle = layer.create(path, 0o644, 0, 0)
    except FileExistsError:
        handle = layer.open(path, writable=True)
        handle.truncate(0)
    handle.pwrite(data, 0)
    handle.close()


def fill(layer: MemoryLayer, files: dict[str, str]) -> None:
    """Make the files, and the directories they are in."""
    for path, text in files.items():
        at = path.find("/", 1)
        while at > 0:
            if path[1:at].rpartition("/")[2] not in layer.names(path[:at].rpartition("/")[0]):
                layer.mkdir(path[:at], 0o755, 0, 0)
            at = path.find("/", at + 1)
        write(layer, path, text.encode())


def listed(layer: MemoryLayer, path: str = "") -> list[str]:
    return [entry.d_name for entry in layer.listdir(path)]


def stored(layer: MemoryLayer, path: str) -> int:
    handle = layer.open(path)
    try:
        return handle.share_content().stored_bytes
    finally:
        handle.close()


def living_inodes() -> int:
    return sum(type(one) is inodes.Inode for one in gc.get_objects())


@contextmanager
def without_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


# Numbers, views, identity


def test_inode_numbers_are_given_in_sequence_and_never_again() -> None:
    layer = MemoryLayer()
    write(layer, "/a", b"")
    layer.unlink("/a")
    write(layer, "/b", b"")
    assert [layer.lstat(path).st_ino for path in ("", "/b")] == [1, 3]


def test_two_memory_layers_are_two_file_systems() -> None:
    assert MemoryLayer().lstat("").st_dev != MemoryLayer().lstat("").st_dev


def test_subtree_is_a_view_of_the_same_file_system() -> None:
    whole = MemoryLayer()
    fill(whole, {"/d/e/f": "x"})
    part = whole.subtree("/d/e")
    assert part.lstat("/f") == whole.lstat("/d/e/f")
    assert part.ancestry() == [part.identity(), whole.subtree("/d").identity(), whole.identity()]
    assert whole.subtree("/d/e").identity() == part.identity()
    assert part.name == "memory/d/e"


@pytest.mark.parametrize(("path", "number"), [("/none", errno.ENOENT), ("/f", errno.ENOTDIR)])
def test_subtree_of_no_directory_is_refused(path: str, number: int) -> None:
    layer = MemoryLayer()
    fill(layer, {"/f": "x"})
    with raises_errno(number):
        layer.subtree(path)


def test_ancestry_follows_a_directory_that_moves() -> None:
    whole = MemoryLayer()
    fill(whole, {"/d/e/f": "x", "/g/h": "x"})
    part = whole.subtree("/d/e")
    whole.rename("/d/e", "/g/e")
    assert part.ancestry() == [part.identity(), whole.subtree("/g").identity(), whole.identity()]
    whole.rename("/g/e", "/d", RENAME_EXCHANGE)
    assert part.ancestry() == [part.identity(), whole.identity()]


@pytest.mark.parametrize(
    ("moves", "seen"),
    [
        ([("/a/d", "/a/e", 0)], None),
        ([("/a", "/b", 0)], None),
        ([("/x", "/a/d", RENAME_EXCHANGE)], "new"),
        ([("/x", "/a", RENAME_EXCHANGE), ("/a/y", "/a/d", 0)], "below"),
        ([("/a/d/f", "/g", 0), ("/x", "/a/d", 0)], "new"),
    ],
)
def test_a_path_leads_where_another_view_has_moved_its_directories(
    moves: list[tuple[str, str, int]], seen: str | None
) -> None:
    layer = MemoryLayer()
    fill(layer, {"/a/d/f": "old", "/x/f": "new", "/x/y/f": "below"})
    view = layer.subtree("")
    assert layer.look("/a/d/f") is not None
    for src, dst, flags in moves:
        view.rename(src, dst, flags)
    if seen is None:
        assert layer.look("/a/d/f") is None
        with raises_errno(errno.ENOENT):
            layer.create("/a/d/g", 0o644, 0, 0)
    else:
        assert read(layer, "/a/d/f") == seen.encode()
        layer.create("/a/d/g", 0o644, 0, 0).close()
        assert view.look("/a/d/g") is not None


def test_a_reader_in_the_middle_of_a_move_learns_nothing_that_outlasts_it(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = MemoryLayer()
    fill(layer, {"/a/d/f": "old", "/x/f": "new"})
    enter = inodes.Names.enter

    def watched(names: inodes.Names, name: str, ino: int) -> None:
        layer.look("/a/d/f")
        enter(names, name, ino)

    monkeypatch.setattr(inodes.Names, "enter", watched)
    layer.rename("/x", "/a/d", RENAME_EXCHANGE)
    assert read(layer, "/a/d/f") == b"new"


def test_a_directory_made_where_another_was_is_the_one_that_is_written() -> None:
    layer = MemoryLayer()
    layer.mkdir("/d", 0o755, 0, 0)
    layer.create("/d/f", 0o644, 0, 0).close()
    layer.unlink("/d/f")
    layer.rmdir("/d")
    layer.mkdir("/d", 0o755, 0, 0)
    layer.create("/d/f", 0o644, 0, 0).close()
    assert [entry.d_name for entry in layer.listdir("/d")] == ["f"]


@pytest.mark.parametrize(
    ("path", "number"),
    [("/none/" + "n" * 300, errno.ENOENT), ("/d/" + "n" * 300, errno.ENAMETOOLONG), ("/d/none/f", errno.ENOENT)],
)
def test_the_first_missing_name_of_a_path_decides(path: str, number: int) -> None:
    layer = MemoryLayer()
    layer.mkdir("/d", 0o755, 0, 0)
    with raises_errno(number):
        layer.lstat(path)


def test_layer_on_a_removed_directory_is_an_empty_dead_directory() -> None:
    whole = MemoryLayer()
    whole.mkdir("/d", 0o755, 0, 0)
    part = whole.subtree("/d")
    whole.rmdir("/d")
    assert (part.lstat("").st_nlink, part.listdir("")) == (0, [])
    with raises_errno(errno.ENOENT):
        part.create("/f", 0o644, 0, 0)
    part.close()
    with raises_errno(errno.ENOENT):
        part.lstat("")


# WORK and INDEX


def test_hidden_directories_show_nowhere_and_count_for_nothing() -> None:
    layer = MemoryLayer(Superblock(nr_inodes=10))
    before = (layer.lstat(""), layer.statvfs())
    layer.prepare(index=True)
    assert (layer.lstat(""), layer.statvfs()) == before
    assert (layer.listdir(""), list(layer.names(""))) == ([], [])
    layer.release(keep_index=False)
    assert layer.statvfs() == before[1]


def test_released_work_gives_back_all_it_held() -> None:
    layer = MemoryLayer(Superblock(size=MIB, nr_inodes=100))
    write(layer, "/f", b"x")
    before = layer.statvfs()
    layer.prepare(index=True)
    layer.mkdir(f"{WORK}/d", 0o700, 0, 0)
    layer.mkdir(f"{WORK}/d/e", 0o700, 0, 0)
    write(layer, f"{WORK}/d/e/g", b"x" * 5000)
    layer.link("/f", f"{INDEX}/00fb")
    assert layer.lstat("/f").st_nlink == 2
    layer.release(keep_index=False)
    assert layer.lstat("/f").st_nlink == 1
    assert layer.statvfs() == before


def test_index_waits_in_its_directory_for_the_next_overlay() -> None:
    whole = MemoryLayer()
    fill(whole, {"/u/f": "x"})
    upper = whole.subtree("/u")
    upper.prepare(index=True)
    upper.link("/f", f"{INDEX}/00fb")
    upper.release(keep_index=True)
    again = whole.subtree("/u")
    again.prepare(index=True)
    assert listed(again, INDEX) == ["00fb"]


def test_two_uppers_of_one_file_system_have_their_own_work() -> None:
    whole = MemoryLayer()
    fill(whole, {"/u/f": "x", "/v/f": "x"})
    uppers = [whole.subtree("/u"), whole.subtree("/v")]
    for upper in uppers:
        upper.prepare(index=False)
    uppers[0].mkdir(f"{WORK}/only", 0o700, 0, 0)
    assert (listed(uppers[0], WORK), listed(uppers[1], WORK)) == (["only"], [])


def test_hidden_directories_vanish_with_their_directory() -> None:
    whole = MemoryLayer(Superblock(size=MIB, nr_inodes=100))
    empty = whole.statvfs()
    whole.mkdir("/u", 0o755, 0, 0)
    upper = whole.subtree("/u")
    upper.prepare(index=True)
    write(upper, f"{WORK}/f", b"x" * 5000)
    whole.rmdir("/u")
    upper.close()
    assert whole.statvfs() == empty


# Names


def test_listing_is_newest_first_and_a_renamed_name_is_new() -> None:
    layer = MemoryLayer()
    for name in "abcd":
        write(layer, f"/{name}", b"")
    layer.rename("/a", "/c")
    write(layer, "/e", b"")
    assert listed(layer) == ["e", "c", "d", "b"]
    assert listed(layer.snapshot()) == ["e", "c", "d", "b"]


def test_order_survives_any_number_of_replacements() -> None:
    layer = MemoryLayer()
    expected: list[str] = []
    for count in range(400):
        name = f"f{count % 37}"
        write(layer, "/new", b"")
        layer.rename("/new", f"/{name}")
        expected = [name, *(other for other in expected if other != name)]
        assert listed(layer) == expected


def test_rename_leaves_a_whiteout_where_asked() -> None:
    layer = MemoryLayer()
    fill(layer, {"/a": "1", "/b": "2"})
    layer.rename("/a", "/b", RENAME_WHITEOUT)
    assert read(layer, "/b") == b"1"
    whiteout = layer.lstat("/a")
    assert (whiteout.st_mode, whiteout.st_rdev) == (0o020000, 0)
    assert listed(layer) == ["b", "a"]


@pytest.mark.parametrize("flags", [8, RENAME_EXCHANGE | RENAME_NOREPLACE, RENAME_EXCHANGE | RENAME_WHITEOUT])
def test_rename_with_flags_that_make_no_sense_is_einval(flags: int) -> None:
    layer = MemoryLayer()
    fill(layer, {"/a": "1", "/b": "2"})
    with raises_errno(errno.EINVAL):
        layer.rename("/a", "/b", flags)


@pytest.mark.parametrize("verb", ["unlink", "rmdir", "rename", "mkdir"])
def test_the_root_has_no_name_to_change(verb: str) -> None:
    layer = MemoryLayer()
    expected = {"unlink": errno.EISDIR, "rmdir": errno.EBUSY, "rename": errno.EBUSY, "mkdir": errno.EEXIST}
    args: tuple[Any, ...] = {"rename": ("/x",), "mkdir": (0o755, 0, 0)}.get(verb, ())
    with raises_errno(expected[verb]):
        getattr(layer, verb)("", *args)


def test_readers_never_miss_a_name_that_is_always_there() -> None:
    layer = MemoryLayer()
    fill(layer, {"/d/f": "x", "/e": ""})
    stop = threading.Event()
    failures: list[BaseException] = []
    looked = itertools.count()

    def look() -> None:
        try:
            while not stop.is_set():
                assert layer.lstat("/d/f").st_size in (1, 2)
                assert "f" in listed(layer, "/d")
                next(looked)
        except BaseException as error:  # noqa: BLE001 -- handed to the test's own thread
            failures.append(error)

    readers = [threading.Thread(target=look) for _ in range(4)]
    for reader in readers:
        reader.start()
    for count in range(3000):
        write(layer, "/e", b"xx")
        layer.rename("/e", "/d/f")
        if count % 100 == 0:
            layer.snapshot()
    stop.set()
    for reader in readers:
        reader.join()
    assert not failures
    assert next(looked) > 0


def test_writers_on_two_views_lose_nothing() -> None:
    whole = MemoryLayer()
    fill(whole, {"/a/x": "", "/b/x": ""})

    def make(layer: MemoryLayer) -> None:
        for count in range(1000):
            write(layer, f"/{count}", b"1")

    writers = [threading.Thread(target=make, args=[whole.subtree(path)]) for path in ("/a", "/b")]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    numbers = {whole.lstat(f"{path}/{count}").st_ino for path in ("/a", "/b") for count in range(1000)}
    assert len(numbers) == 2000


# Open files


@pytest.mark.parametrize("by", ["close", "drop"])
def test_unlinked_file_lives_until_its_last_handle_goes(by: str) -> None:
    layer = MemoryLayer(Superblock(size=MIB, nr_inodes=10))
    empty = layer.statvfs()
    write(layer, "/f", b"x" * 5000)
    first: Any = layer.open("/f", writable=True)
    second: Any = layer.open("/f")
    layer.unlink("/f")
    first.pwrite(b"new", 0)
    assert (second.pread(3, 0), second.stat().st_nlink) == (b"new", 0)
    with without_collector():
        if by == "close":
            first.close()
            second.close()
        else:
            first = second = None
    assert layer.statvfs() == empty


def test_handle_dropped_in_the_middle_of_a_verb_is_closed_with_the_next() -> None:
    layer = MemoryLayer(Superblock(size=MIB, nr_inodes=2))
    handle: Any = layer.tmpfile(0o600, 0, 0)
    with layer._superblock.lock:  # What a collector run inside a verb meets.
        handle = None
    assert handle is None
    write(layer, "/f", b"")


@pytest.mark.parametrize(
    ("verb", "args"),
    [
        ("pread", (1, 0)),
        ("pwrite", (b"1", 0)),
        ("truncate", (0,)),
        ("seek_extent", (0, 3)),
        ("stat", ()),
        ("chmod", (0o600,)),
        ("chown", (1, 1)),
        ("utime", (1, 1)),
        ("getxattr", ("user.a",)),
        ("setxattr", ("user.a", b"1")),
        ("removexattr", ("user.a",)),
        ("listxattr", ()),
        ("sync", ()),
    ],
)
def test_closed_handle_is_ebadf(verb: str, args: tuple[Any, ...]) -> None:
    handle = MemoryLayer().create("/f", 0o644, 0, 0)
    handle.close()
    with raises_errno(errno.EBADF):
        getattr(handle, verb)(*args)


def test_handle_stays_with_the_parent_of_a_snapshot() -> None:
    layer = MemoryLayer()
    handle = layer.create("/f", 0o644, 0, 0)
    handle.pwrite(b"before", 0)
    twin = layer.snapshot()
    handle.pwrite(b"parent", 0)
    handle.chmod(0o600)
    assert (read(twin, "/f"), twin.lstat("/f").st_mode) == (b"before", 0o100644)
    assert (read(layer, "/f"), layer.lstat("/f").st_mode) == (b"parent", 0o100600)


def test_snapshot_leaves_unlinked_open_files_behind() -> None:
    layer = MemoryLayer(Superblock(size=MIB, nr_inodes=10))
    empty = layer.statvfs()
    write(layer, "/f", b"x" * 5000)
    handle = layer.open("/f")
    layer.unlink("/f")
    assert layer.snapshot().statvfs() == empty
    assert handle.pread(1, 0) == b"x"


@pytest.mark.parametrize(("offset", "number"), [((1 << 63) - 1, errno.EFBIG), (1 << 63, errno.EFBIG)])
def test_no_file_is_longer_than_an_offset_can_say(offset: int, number: int) -> None:
    handle = MemoryLayer().create("/f", 0o644, 0, 0)
    with raises_errno(number):
        handle.pwrite(b"1", offset)
    assert handle.stat().st_size == 0


# Limits


def test_write_that_does_not_fit_leaves_the_file_as_it_was() -> None:
    layer = MemoryLayer(Superblock(size=4 * PAGE_SIZE))
    write(layer, "/f", b"x" * PAGE_SIZE)
    before = (layer.lstat("/f"), layer.statvfs())
    handle = layer.open("/f", writable=True)
    with raises_errno(errno.ENOSPC):
        handle.pwrite(b"y" * 5 * PAGE_SIZE, 0)
    assert (layer.lstat("/f"), layer.statvfs(), handle.pread(PAGE_SIZE, 0)) == (*before, b"x" * PAGE_SIZE)


@pytest.mark.parametrize("verb", ["create", "tmpfile", "mkdir", "mknod", "symlink", "link", "rename", "setxattr"])
def test_no_inode_left_changes_nothing(verb: str) -> None:
    layer = MemoryLayer(Superblock(nr_inodes=2))
    write(layer, "/f", b"")
    before = (read_tree(layer), layer.lstat(""), layer.lstat("/f"), layer.statvfs())
    calls: dict[str, tuple[Any, ...]] = {
        "create": ("/g", 0o644, 0, 0),
        "tmpfile": (0o644, 0, 0),
        "mkdir": ("/g", 0o755, 0, 0),
        "mknod": ("/g", 0o010644, 0, 0, 0),
        "symlink": ("t", "/g", 0, 0),
        "link": ("/f", "/g"),
        "rename": ("/f", "/g", RENAME_WHITEOUT),
        "setxattr": ("/f", "user.a", b"1"),
    }
    with raises_errno(errno.ENOSPC):
        getattr(layer, verb)(*calls[verb])
    assert (read_tree(layer), layer.lstat(""), layer.lstat("/f"), layer.statvfs()) == before


def test_clone_that_does_not_fit_leaves_its_source_open(tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(b"x" * CLONE_MIN)
    source = LocalLayer(tmp_path).open("/big")
    layer = MemoryLayer(Superblock(size=PAGE_SIZE))
    target = layer.create("/f", 0o644, 0, 0)
    with raises_errno(errno.ENOSPC):
        layer.clone(source, target, CLONE_MIN)
    assert (source.pread(1, 0), layer.lstat("/f").st_size) == (b"x", 0)


def test_fork_has_the_limits_and_counts_of_its_parent() -> None:
    layer = MemoryLayer(Superblock(size=2 * PAGE_SIZE, nr_inodes=3))
    write(layer, "/f", b"x" * PAGE_SIZE)
    twin = layer.snapshot()
    write(twin, "/g", b"x" * PAGE_SIZE)
    with raises_errno(errno.ENOSPC):
        twin.create("/h", 0o644, 0, 0)
    assert layer.statvfs().f_bfree == 1


@pytest.mark.parametrize("limits", [{"size": -1}, {"nr_inodes": -1}])
def test_negative_limit_is_einval(limits: dict[str, int]) -> None:
    with raises_errno(errno.EINVAL):
        Superblock(**limits)


# Snapshots


def test_snapshot_copies_nothing_and_a_write_copies_what_it_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = MemoryLayer()
    for number in range(40):
        fill(layer, {f"/d{number}/f{count}": "x" for count in range(50)})
    copied: list[int] = []
    original = inodes.Inode.copy_for

    def counting(inode: inodes.Inode, owner: object) -> inodes.Inode:
        copied.append(inode.ino)
        return original(inode, owner)

    monkeypatch.setattr(inodes.Inode, "copy_for", counting)
    twin = layer.snapshot()
    assert copied == []
    handle = twin.open("/d7/f7", writable=True)
    handle.pwrite(b"y", 0)
    handle.pwrite(b"z", 0)
    assert copied == [twin.lstat("/d7/f7").st_ino]
    write(twin, "/d7/new", b"")
    assert copied == [twin.lstat("/d7/f7").st_ino, twin.lstat("/d7").st_ino]


def test_the_thousandth_snapshot_costs_what_the_first_did() -> None:
    layer = MemoryLayer()
    for number in range(40):
        fill(layer, {f"/d{number}/f{count}": "x" for count in range(50)})
    peaks = []
    for count in range(1000):
        tracemalloc.start()
        layer = layer.snapshot()
        write(layer, f"/d{count % 40}/f7", b"y")
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert max(peaks[-10:]) <= 1.2 * max(peaks[:10])
    assert layer._superblock.table.top[1] == 6  # No chain: as high a tree as 2,000 inodes need.


def test_dropped_snapshots_are_freed_at_once() -> None:
    layer = MemoryLayer()
    fill(layer, {f"/f{count}": "x" for count in range(100)})
    with without_collector():
        before = living_inodes()
        for count in range(100):
            twin = layer.snapshot()
            write(twin, f"/f{count}", b"y")
            write(twin, "/new", b"y")
            handle = twin.open("/new")
            twin.unlink("/new")
            del twin, handle
        assert living_inodes() <= before + 1  # The parent owns nothing after a snapshot: it may hold one copy.


def test_a_dropped_layer_is_freed_at_once() -> None:
    with without_collector():
        before = living_inodes()
        layer = MemoryLayer()
        fill(layer, {"/d/f": "x", "/d/g": "y"})
        part = layer.subtree("/d")
        del layer, part
        assert living_inodes() == before


def test_snapshot_of_a_grown_file_is_not_written_to_by_its_handle() -> None:
    layer = MemoryLayer()
    handle = layer.create("/f", 0o644, 0, 0)
    for count in range(200):
        handle.pwrite(b"x" * 1000, count * 1000)
    twin = layer.snapshot()
    handle.pwrite(b"y" * 1000, 200_000)
    handle.pwrite(b"y", 0)
    handle.truncate(5)
    assert read(twin, "/f") == b"x" * 200_000


def test_attributes_of_a_snapshot_are_its_own() -> None:
    layer = MemoryLayer()
    write(layer, "/f", b"")
    layer.setxattr("/f", "user.a", b"1")
    twin = layer.snapshot()
    twin.setxattr("/f", "user.a", b"2")
    layer.removexattr("/f", "user.a")
    assert (layer.listxattr("/f"), twin.getxattr("/f", "user.a")) == ([], b"2")


# Clones


def test_a_file_asked_for_names_below_it_is_not_remembered_when_its_own_name_goes() -> None:
    layer = MemoryLayer()
    with closing(layer.create("/f", 0o644, 0, 0)):
        for ask in (lambda: layer.create("/f/x", 0o644, 0, 0), lambda: layer.lstat("/f/x")):
            with raises_errno(errno.ENOTDIR):
                ask()
        layer.unlink("/f")
        for ask in (lambda: layer.create("/f/x", 0o644, 0, 0), lambda: layer.lstat("/f/x")):
            with raises_errno(errno.ENOENT):
                ask()


def test_clone_shares_the_blocks_and_no_later_write() -> None:
    layer, other = MemoryLayer(), MemoryLayer()
    write(layer, "/f", b"x" * MIB)
    source = layer.open("/f", writable=True)
    target = other.create("/g", 0o644, 0, 0)
    assert other.clone(source, target, MIB)
    assert target.pread(MIB, 0) is source.pread(MIB, 0)
    source.pwrite(b"source", 0)
    target.pwrite(b"target", MIB - 6)
    assert (source.pread(6, 0), source.pread(6, MIB - 6)) == (b"source", b"xxxxxx")
    assert (target.pread(6, 0), target.pread(6, MIB - 6)) == (b"xxxxxx", b"target")


@pytest.mark.parametrize("size", [MIB, 64 * MIB])
def test_one_byte_into_a_cloned_file_stores_next_to_nothing(size: int) -> None:
    lower, upper = MemoryLayer(), MemoryLayer()
    write(lower, "/f", bytes(size))
    source = lower.open("/f")
    tracemalloc.start()
    target = upper.create("/f", 0o644, 0, 0)
    assert upper.clone(source, target, size)
    target.pwrite(b"1", size // 2)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak <= 64 * 1024
    assert upper.lstat("/f").st_blocks == size // 512
    assert stored(upper, "/f") == PAGE_SIZE


def test_clone_of_a_part_has_that_part() -> None:
    layer = MemoryLayer()
    write(layer, "/f", b"x" * MIB)
    source, target = layer.open("/f"), layer.create("/g", 0o644, 0, 0)
    assert layer.clone(source, target, 5000)
    assert target.pread(MIB, 0) == b"x" * 5000
    assert layer.lstat("/g").st_blocks == 16


def test_clone_of_a_host_file_takes_the_handle_over(tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(b"x" * MIB)
    source = LocalLayer(tmp_path).open("/big")
    layer = MemoryLayer()
    target = layer.create("/f", 0o644, 0, 0)
    assert layer.clone(source, target, MIB)
    target.pwrite(b"1", 0)
    twin = layer.snapshot()
    layer.unlink("/f")
    target.close()
    assert read(twin, "/f") == b"1" + b"x" * (MIB - 1)
    twin.unlink("/f")
    with raises_errno(errno.EBADF):
        source.pread(1, 0)


def test_small_host_files_are_left_to_the_caller(tmp_path: Path) -> None:
    (tmp_path / "small").write_bytes(b"x" * 100)
    source = LocalLayer(tmp_path).open("/small")
    layer = MemoryLayer()
    assert not layer.clone(source, layer.create("/f", 0o644, 0, 0), 100)
    assert source.pread(1, 0) == b"x"


def test_clone_into_another_file_system_is_exdev() -> None:
    layer, other = MemoryLayer(), MemoryLayer()
    source, target = layer.create("/f", 0o644, 0, 0), other.create("/f", 0o644, 0, 0)
    with raises_errno(errno.EXDEV):
        layer.clone(source, target, 0)


# File handles


def test_file_handle_is_as_long_as_tmpfs_has_it_and_survives_rename() -> None:
    layer = MemoryLayer()
    write(layer, "/f", b"")
    value = layer.file_handle("/f")
    layer.rename("/f", "/g")
    assert len(value) == 33
    assert layer.find_handle(value) == layer.lstat("/g")


def test_file_handle_is_good_in_a_snapshot_for_what_was_there() -> None:
    layer = MemoryLayer()
    write(layer, "/f", b"")
    twin = layer.snapshot()
    assert twin.find_handle(layer.file_handle("/f")) == twin.lstat("/f")
    write(layer, "/new", b"")
    write(twin, "/other", b"")
    assert layer.lstat("/new").st_ino == twin.lstat("/other").st_ino
    assert twin.find_handle(layer.file_handle("/new")) is None


def test_file_handle_of_what_is_gone_or_elsewhere_finds_nothing() -> None:
    layer = MemoryLayer()
    write(layer, "/f", b"")
    value = layer.file_handle("/f")
    handle = layer.open("/f")
    layer.unlink("/f")
    decoded = FileHandle.decode(value)
    assert decoded is not None
    wrong = [FileHandle(decoded.uuid, kind, body) for kind, body in ((2, decoded.body), (1, decoded.body[:8]))]
    assert [layer.find_handle(one) for one in (value, MemoryLayer().file_handle(""), b"")] == [None] * 3
    assert [layer.find_handle(one.encode()) for one in wrong] == [None] * 2
    assert handle.stat().st_nlink == 0


def test_posix_acls_are_not_held() -> None:
    layer = MemoryLayer()
    with raises_errno(errno.EOPNOTSUPP):
        layer.setxattr("", "system.posix_acl_access", b"", XATTR_CREATE)
