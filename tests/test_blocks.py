import errno
import tracemalloc
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from overlayvfs.abi import PAGE_SIZE, SEEK_DATA, SEEK_HOLE, Stat
from overlayvfs.layers.blocks import EMPTY, SHARE_MIN, Content, Flat, Paged, truncate, write
from overlayvfs.testing.conformance.trees import raises_errno

ME = object()


@dataclass
class Source:
    """An open file of another layer, with holes where `data` has whole zero pages; counts what is asked of it."""

    data: bytes
    reads: int = 0
    bytes_read: int = 0
    closed: int = 0

    def pread(self, size: int, offset: int) -> bytes:
        assert not self.closed
        self.reads += 1
        part = self.data[offset : offset + size]
        self.bytes_read += len(part)
        return part

    def seek_extent(self, offset: int, whence: int) -> int:
        pages = [any(self.data[at : at + PAGE_SIZE]) for at in range(0, len(self.data), PAGE_SIZE)]
        if offset >= len(self.data):
            raise OSError(errno.ENXIO, "ENXIO")
        for index in range(offset // PAGE_SIZE, len(pages)):
            if pages[index] == (whence == SEEK_DATA):
                return max(offset, index * PAGE_SIZE)
        if whence == SEEK_DATA:
            raise OSError(errno.ENXIO, "ENXIO")
        return len(self.data)

    def pwrite(self, data: bytes | memoryview, offset: int) -> int:
        raise OSError(errno.EBADF, "EBADF")

    def truncate(self, size: int) -> None:
        raise OSError(errno.EBADF, "EBADF")

    def stat(self) -> Stat:
        at = blocks = 0
        try:
            while True:
                start = self.seek_extent(at, SEEK_DATA)
                at = self.seek_extent(start, SEEK_HOLE)
                blocks += -(-(at - start) // 512)
        except OSError:
            return Stat(0o100644, 1, 1, 1, 0, 0, len(self.data), 0, 0, 0, blocks, 0)

    def chmod(self, mode: int) -> None:
        raise AssertionError("a clone changes no source")

    def chown(self, uid: int, gid: int) -> None:
        raise AssertionError("a clone changes no source")

    def utime(self, atime_ns: int, mtime_ns: int) -> None:
        raise AssertionError("a clone changes no source")

    def getxattr(self, name: str) -> bytes:
        raise AssertionError("a clone reads data only")

    def setxattr(self, name: str, value: bytes, flags: int = 0) -> None:
        raise AssertionError("a clone changes no source")

    def removexattr(self, name: str) -> None:
        raise AssertionError("a clone changes no source")

    def listxattr(self) -> list[str]:
        raise AssertionError("a clone reads data only")

    def sync(self) -> None:
        raise AssertionError("a clone changes no source")

    def close(self) -> None:
        self.closed += 1


@dataclass
class Model:
    """A file as bytes and the set of its pages that hold data: what tmpfs would have."""

    data: bytearray = field(default_factory=bytearray)
    pages: set[int] = field(default_factory=set)

    def pwrite(self, data: bytes, offset: int) -> None:
        if offset > len(self.data):
            self.data.extend(bytes(offset - len(self.data)))
        self.data[offset : offset + len(data)] = data
        self.pages.update(range(offset // PAGE_SIZE, (offset + len(data) - 1) // PAGE_SIZE + 1))

    def truncate(self, size: int) -> None:
        del self.data[size:]
        self.data.extend(bytes(size - len(self.data)))
        self.pages = {index for index in self.pages if index * PAGE_SIZE < size}

    def seek_extent(self, offset: int, whence: int) -> int | None:
        if offset >= len(self.data):
            return None
        for index in range(offset // PAGE_SIZE, -(-len(self.data) // PAGE_SIZE)):
            if (index in self.pages) == (whence == SEEK_DATA):
                return max(offset, index * PAGE_SIZE)
        return None if whence == SEEK_DATA else len(self.data)

    def copy(self) -> "Model":
        return Model(bytearray(self.data), set(self.pages))


def seek(content: Content, offset: int, whence: int) -> int | None:
    """Return lseek(2)'s answer, None for ENXIO."""
    try:
        return content.seek_extent(offset, whence)
    except OSError as error:
        if error.errno != errno.ENXIO:
            raise
        return None


def assert_same(content: Content, model: Model) -> None:
    assert content.size == len(model.data)
    assert content.pages == len(model.pages)
    assert content.pread(content.size + 1, 0) == model.data
    for at in {0, 1, PAGE_SIZE - 1, PAGE_SIZE, 5 * PAGE_SIZE + 7, 17 * PAGE_SIZE, max(0, len(model.data) - 3)}:
        assert content.pread(PAGE_SIZE + 2, at) == model.data[at : at + PAGE_SIZE + 2]
        assert seek(content, at, SEEK_DATA) == model.seek_extent(at, SEEK_DATA)
        assert seek(content, at, SEEK_HOLE) == model.seek_extent(at, SEEK_HOLE)


def pattern(size: int) -> bytes:
    return (bytes(range(1, 252)) * (size // 251 + 1))[:size]


def sparse(pages: list[bool], tail: int) -> bytes:
    return b"".join(pattern(PAGE_SIZE) if full else bytes(PAGE_SIZE) for full in pages) + pattern(tail)


offsets = st.one_of(
    st.integers(0, 40 * PAGE_SIZE),
    st.builds(lambda page, by: max(0, page * PAGE_SIZE + by), st.integers(0, 40), st.integers(-2, 2)),
)
lengths = st.one_of(st.integers(1, 64), st.integers(PAGE_SIZE - 2, 2 * PAGE_SIZE + 2), st.integers(1, 24 * PAGE_SIZE))
steps = st.lists(
    st.one_of(
        st.tuples(st.just("write"), offsets, lengths),
        st.tuples(st.just("append"), st.just(0), lengths),
        st.tuples(st.just("truncate"), offsets, st.just(0)),
        st.tuples(st.just("share"), st.just(0), st.just(0)),
        st.tuples(st.just("seal"), st.just(0), st.just(0)),
    ),
    max_size=12,
)


def run(content: Content, model: Model, plan: list[tuple[str, int, int]]) -> None:
    """Drive both; a content that was shared on the way must stay as it was then."""
    left: list[tuple[Content, Model]] = []
    for verb, offset, length in plan:
        if verb in ("write", "append"):
            at = content.size if verb == "append" else offset
            growth = content.growth(length, at)
            before = content.pages
            content = write(content, pattern(length), at, ME)
            model.pwrite(pattern(length), at)
            assert content.pages - before == growth
        elif verb == "truncate":
            content = truncate(content, offset, ME)
            model.truncate(offset)
        elif verb == "share":
            left.append((content, model.copy()))
            content.owner = None
        elif content.owner is ME:
            content.seal()
        assert_same(content, model)
    for old, then in left:
        assert_same(old, then)


@settings(max_examples=150, deadline=None)
@given(steps)
def test_any_sequence_leaves_the_bytes_and_holes_a_page_cache_has(plan: list[tuple[str, int, int]]) -> None:
    run(EMPTY, Model(), plan)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.booleans(), max_size=24), st.integers(0, PAGE_SIZE - 1), offsets, steps)
def test_any_sequence_over_another_layers_file_does_too(
    pages: list[bool], tail: int, size: int, plan: list[tuple[str, int, int]]
) -> None:
    source = Source(sparse(pages, tail))
    size = min(size, len(source.data))
    content = Paged.over(source, size)
    content.own_base()
    model = Model(bytearray(source.data[:size]), {i for i, full in enumerate([*pages, tail > 0]) if full})
    model.truncate(size)
    assert_same(content, model)
    run(content, model, plan)


def test_what_was_written_whole_is_read_back_uncopied() -> None:
    data = pattern(1 << 20)
    assert write(EMPTY, data, 0, ME).pread(1 << 30, 0) is data


def test_what_was_appended_is_read_back_uncopied_once_sealed() -> None:
    content: Content = EMPTY
    for _ in range(100):
        content = write(content, b"0123456789", content.size, ME)
    content.seal()
    assert content.pread(1000, 0) is content.pread(1000, 0)


def test_appending_small_pieces_does_not_copy_what_is_there() -> None:
    content = write(write(EMPTY, b"x", 0, ME), b"x", 1, ME)
    assert isinstance(content, Flat)
    grown = content.data
    for _ in range(10_000):
        content = write(content, b"0123456789", content.size, ME)
    assert isinstance(content, Flat)
    assert content.data is grown


def test_one_byte_changed_in_a_large_file_copies_a_page() -> None:
    data = pattern(1 << 20)
    content = write(write(EMPTY, data, 0, ME), b"1", 7, ME)
    assert content.stored_bytes == PAGE_SIZE
    assert content.pread(1 << 20, 0) == data[:7] + b"1" + data[8:]


def test_small_fork_costs_a_copy_only_when_written() -> None:
    content = write(EMPTY, pattern(SHARE_MIN), 0, None)
    twin = content.fork(object())
    assert twin.pread(SHARE_MIN, 0) is content.pread(SHARE_MIN, 0)


@pytest.mark.parametrize("size", [1 << 20, 64 << 20])
def test_one_byte_written_into_a_clone_stores_a_page(size: int) -> None:
    whole = write(EMPTY, bytes(size), 0, None)
    tracemalloc.start()
    content = write(whole, b"1", size // 2, ME)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert content.stored_bytes == PAGE_SIZE
    assert peak <= 16 * 1024
    assert content.pages == size // PAGE_SIZE


def test_one_byte_written_over_another_layers_file_reads_one_page_of_it() -> None:
    source = Source(pattern(1 << 20))
    write(Paged.over(source, 1 << 20), b"1", 123_456, ME)
    assert (source.reads, source.bytes_read) == (1, PAGE_SIZE)


def test_a_page_written_whole_reads_nothing_of_the_base() -> None:
    source = Source(pattern(1 << 20))
    write(Paged.over(source, 1 << 20), pattern(PAGE_SIZE), 3 * PAGE_SIZE, ME)
    assert source.reads == 0


def test_reading_untouched_contents_asks_the_base_once() -> None:
    source = Source(pattern(1 << 20))
    content = write(Paged.over(source, 1 << 20), b"1", 0, ME)
    source.reads = 0
    assert content.pread(1 << 20, 0)[1:] == source.data[1:]
    assert source.reads == 1


def test_last_reader_closes_the_base() -> None:
    source = Source(pattern(SHARE_MIN))
    content = Paged.over(source, SHARE_MIN)
    content.own_base()
    twin = content.fork(ME)
    del content
    assert source.closed == 0
    del twin
    assert source.closed == 1


def test_base_is_let_go_when_the_file_is_emptied() -> None:
    source = Source(pattern(SHARE_MIN))
    content = Paged.over(source, SHARE_MIN)
    content.own_base()
    emptied = truncate(content, 0, ME)
    del content
    assert (emptied.size, source.closed) == (0, 1)


def test_base_that_was_never_handed_over_stays_open() -> None:
    source = Source(pattern(SHARE_MIN))
    Paged.over(source, SHARE_MIN)
    assert source.closed == 0


def test_base_cut_behind_our_back_reads_as_zeros() -> None:
    source = Source(pattern(SHARE_MIN))
    content = Paged.over(source, SHARE_MIN)
    source.data = source.data[:10]
    assert content.pread(SHARE_MIN, 0) == pattern(10) + bytes(SHARE_MIN - 10)


def test_extents_that_meet_inside_a_page_are_one() -> None:
    class Fine(Source):
        """Data in blocks of 512 bytes: 0-511 and 1024-1535, then 3 pages on."""

        def seek_extent(self, offset: int, whence: int) -> int:
            edges = [(0, 512), (1024, 1536), (3 * PAGE_SIZE + 512, 4 * PAGE_SIZE)]
            for start, end in edges:
                if offset < end:
                    return max(offset, start) if whence == SEEK_DATA else end
            raise OSError(errno.ENXIO, "ENXIO")

    content = Paged.over(Fine(pattern(5 * PAGE_SIZE)), 5 * PAGE_SIZE)
    assert content.pages == 2
    assert content.seek_extent(0, SEEK_HOLE) == PAGE_SIZE
    assert content.seek_extent(PAGE_SIZE, SEEK_DATA) == 3 * PAGE_SIZE
    assert content.seek_extent(3 * PAGE_SIZE, SEEK_HOLE) == 4 * PAGE_SIZE


def test_a_file_with_all_its_blocks_is_not_searched_for_holes() -> None:
    class Full(Source):
        """Says how many blocks it has; its holes nobody is to ask for."""

        def stat(self) -> Stat:
            return Stat(0o100644, 1, 1, 1, 0, 0, len(self.data), 0, 0, 0, len(self.data) // 512, 0)

        def seek_extent(self, offset: int, whence: int) -> int:
            raise AssertionError("the blocks say that there are none")

    content = Paged.over(Full(pattern(5 * PAGE_SIZE)), 3 * PAGE_SIZE + 1)
    assert content.pages == 4
    assert content.seek_extent(0, SEEK_HOLE) == 3 * PAGE_SIZE + 1


def test_the_head_of_a_file_with_holes_has_those_it_had() -> None:
    source = Source(bytes(2 * PAGE_SIZE) + pattern(2 * PAGE_SIZE))
    content = Paged.over(source, PAGE_SIZE)
    assert content.pages == 0


def test_a_page_far_out_in_a_sparse_file_stores_a_page() -> None:
    content = write(EMPTY, b"1", (1 << 62) + 5, ME)
    assert (content.size, content.pages, content.stored_bytes) == ((1 << 62) + 6, 1, PAGE_SIZE)
    assert content.seek_extent(0, SEEK_DATA) == 1 << 62
    assert content.pread(2, (1 << 62) + 4) == b"\x001"
    assert truncate(content, 1 << 61, ME).pages == 0


@pytest.mark.parametrize("whence", [0, 1, 2, 5])
def test_other_whence_is_einval(whence: int) -> None:
    content = write(EMPTY, b"1", 0, ME)
    with raises_errno(errno.EINVAL):
        content.seek_extent(0, whence)
