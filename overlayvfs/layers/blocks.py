"""What a regular file of a memory layer holds: bytes, holes and blocks shared with others (mm/shmem.c).

`write` and `truncate` return the content that holds the result. There are two forms:

- `Flat`: one run of bytes without holes. What is written whole is stored, and read back, uncopied.
- `Paged`: an immutable base (another content's bytes, or the open file of another layer) under the pages
  written since, which sit in a persistent tree. Holes are where neither has anything.

A content is changed in place only for the holder of its `owner` token; for everyone else it is forked first.
So a snapshot copies none, and a clone is the same content without an owner, held by two inodes.

Sizes and offsets are bytes, `pages` counts 4096-byte pages as tmpfs does: exactly those that hold data.
"""

import errno
from bisect import bisect_right
from collections.abc import Sequence
from typing import Final, TypeAlias

from overlayvfs.abi import PAGE_SIZE, SEEK_DATA, SEEK_HOLE, oserror
from overlayvfs.layers.base import Handle
from overlayvfs.layers.cow import Radix

SHARE_MIN: Final = 64 * 1024
"""A content up to this size is copied when a sharer first writes to it; a larger one becomes a base."""

_ZERO_PAGE: Final = bytes(PAGE_SIZE)
_NO_END: Final = 1 << 63


def write(content: "Content", data: bytes | memoryview, offset: int, owner: object) -> "Content":
    """Return the content for `owner` to hold after writing `data`, not empty, at `offset` of `content`."""
    if not offset and len(data) >= content.size:
        return Flat(bytes(data), owner)
    if content.owner is not owner:
        content = content.fork(owner)
    return content.pwrite(data, offset)


def truncate(content: "Content", size: int, owner: object) -> "Content":
    """Return the content for `owner` to hold after cutting or growing `content` to `size`."""
    if size == 0:
        return EMPTY
    if content.owner is not owner:
        content = content.fork(owner)
    return content.truncate(size)


def _pages(size: int) -> int:
    return -(-size // PAGE_SIZE)


class Flat:
    """A content without holes.

    `data` is a bytearray only while its owner is writing it piece by piece; once sealed it never changes again.
    """

    __slots__ = ("data", "owner", "pages", "size")

    def __init__(self, data: bytes | bytearray, owner: object) -> None:
        size = len(data)
        self.data = data
        self.size = size
        self.pages = -(-size // PAGE_SIZE)
        self.owner = owner

    @property
    def stored_bytes(self) -> int:
        """How many bytes of memory the data takes that are not shared with a base."""
        return self.size

    def fork(self, owner: object) -> "Content":
        """Return an equal content that `owner` may change, in time independent of the size."""
        if self.size > SHARE_MIN:
            return Paged(_Bytes(self.data), self.size, owner)
        return Flat(bytes(self.data), owner)

    def seal(self) -> None:
        """Give up ownership when a writer has finished: readers then get the stored bytes themselves."""
        if isinstance(self.data, bytearray):
            self.data = bytes(self.data)
            self.owner = None

    def pread(self, size: int, offset: int) -> bytes:
        """Return up to `size` bytes from `offset`; the stored object itself where that is everything."""
        data = self.data
        if offset == 0 and size >= len(data):
            return data if isinstance(data, bytes) else bytes(data)
        part = data[offset : offset + size]
        return part if isinstance(part, bytes) else bytes(part)

    def growth(self, length: int, offset: int) -> int:
        """Return how many pages writing `length` > 0 bytes at `offset` would add."""
        return max(0, _pages(offset + length) - max(self.pages, offset // PAGE_SIZE))

    def pwrite(self, data: bytes | memoryview, offset: int) -> "Content":
        """Put `data` at `offset` and return the content that holds it."""
        end = offset + len(data)
        if offset // PAGE_SIZE > self.pages or (offset < self.size > SHARE_MIN and isinstance(self.data, bytes)):
            # At least one whole page is left out, a hole; or the copy below would be dear. An append pays for its copy.
            return self._paged().pwrite(data, offset)
        growing = self.data if isinstance(self.data, bytearray) else bytearray(self.data)
        if offset > self.size:
            growing += bytes(offset - self.size)
        growing[offset:end] = data
        self.data = growing
        if end > self.size:
            self.size = end
            self.pages = _pages(end)
        return self

    def truncate(self, size: int) -> "Content":
        """Cut or grow to `size` > 0 and return the content that holds the result."""
        if size > self.size and _pages(size) == self.pages and self.size <= SHARE_MIN:
            return self.pwrite(bytes(size - self.size), self.size)
        if size > self.size or (self.size > SHARE_MIN and isinstance(self.data, bytes)):
            return self._paged().truncate(size)
        if isinstance(self.data, bytearray):
            del self.data[size:]
        else:
            self.data = self.data[:size]
        self.size = size
        self.pages = _pages(size)
        return self

    def seek_extent(self, offset: int, whence: int) -> int:
        """Return lseek(2)'s answer: all is data up to the end. ENXIO EINVAL."""
        _check_seek(offset, whence, self.size)
        return offset if whence == SEEK_DATA else self.size

    def _paged(self) -> "Paged":
        return Paged(_Bytes(self.data), self.size, self.owner)


class Paged:
    """A content with holes, or one that shares a base.

    The base shows up to `_base_end` where no page was written since; cutting the file lowers that for good.
    A page is immutable and whole, and zero past the end of the file.
    """

    __slots__ = ("_base", "_base_end", "_table", "owner", "pages", "size")

    def __init__(self, base: "_Base", size: int, owner: object) -> None:
        self._base: _Base = base
        self._base_end = size
        self._table: Radix[bytes] = Radix()
        self.size = size
        self.pages = base.count_pages(_pages(size))
        self.owner = owner

    @classmethod
    def over(cls, source: Handle, size: int) -> "Paged":
        """Return a content, nobody's, that reads the first `size` bytes of `source` and leaves its holes holes.

        `source` stays the caller's until `own_base`.
        """
        return cls(_Source(source, _data_bounds(source, size)), size, None)

    def own_base(self) -> None:
        """Take the source over: from here on it is closed with the last content that reads it."""
        self._base.owned = True

    @property
    def stored_bytes(self) -> int:
        """How many bytes of memory the data takes that are not shared with a base."""
        return PAGE_SIZE * sum(1 for _ in self._table.items(0, _NO_END))

    def fork(self, owner: object) -> "Paged":
        """Return an equal content that `owner` may change, in time independent of the size."""
        twin = Paged.__new__(Paged)
        twin._base = self._base
        twin._base_end = self._base_end
        twin._table = self._table.fork()
        twin.size = self.size
        twin.pages = self.pages
        twin.owner = owner
        return twin

    def seal(self) -> None:
        """Nothing to do: pages are immutable already."""

    def pread(self, size: int, offset: int) -> bytes:
        """Return up to `size` bytes from `offset`."""
        end = min(offset + size, self.size)
        position = offset
        parts = []
        for index, page in self._table.items(offset // PAGE_SIZE, _pages(end)):
            start = index * PAGE_SIZE
            if start > position:
                parts.append(self._read_base(position, start))
                position = start
            part = page[position - start : end - start]
            parts.append(part)
            position += len(part)
        if position < end:
            parts.append(self._read_base(position, end))
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def growth(self, length: int, offset: int) -> int:
        """Return how many pages writing `length` > 0 bytes at `offset` would add."""
        first, last = offset // PAGE_SIZE, _pages(offset + length)
        limit = _pages(self._base_end)
        held = self._base.count_pages(min(last, limit)) - self._base.count_pages(min(first, limit))
        held += sum(1 for index, _ in self._table.items(first, last) if not self._in_base(index))
        return last - first - held

    def pwrite(self, data: bytes | memoryview, offset: int) -> "Paged":
        """Put `data` at `offset` and return this."""
        end = offset + len(data)
        position = offset
        while position < end:
            index, start = divmod(position, PAGE_SIZE)
            stop = min(start + end - position, PAGE_SIZE)
            part = data[position - offset : position - offset + stop - start]
            old = self._table.get(index)
            if old is None and not self._in_base(index):
                self.pages += 1
            if stop - start < PAGE_SIZE:
                if old is None:
                    old = self._base_page(index)
                part = b"".join((old[:start], part, old[stop:]))
            self._table.set(index, bytes(part))
            position += stop - start
        self.size = max(self.size, end)
        return self

    def truncate(self, size: int) -> "Paged":
        """Cut or grow to `size` > 0 and return this."""
        if size < self.size:
            self._cut(size)
        self.size = size
        return self

    def _cut(self, size: int) -> None:
        kept = _pages(size)
        limit = _pages(self._base_end)
        self.pages -= sum(1 for index, _ in self._table.items(kept, _NO_END) if not self._in_base(index))
        self.pages -= self._base.count_pages(limit) - self._base.count_pages(min(kept, limit))
        self.size = size
        self._table.cut(kept)
        last, used = divmod(size, PAGE_SIZE)
        page = self._table.get(last)
        if page is not None:
            self._table.set(last, page[:used] + bytes(PAGE_SIZE - used))
        self._base_end = min(self._base_end, size)

    def seek_extent(self, offset: int, whence: int) -> int:
        """Return lseek(2)'s answer for the pages that hold data. ENXIO EINVAL."""
        _check_seek(offset, whence, self.size)
        index = offset // PAGE_SIZE
        found = self._next_data(index) if whence == SEEK_DATA else self._next_hole(index)
        if found is None or found * PAGE_SIZE >= self.size:
            if whence == SEEK_DATA:
                raise oserror(errno.ENXIO)
            return self.size
        return max(offset, found * PAGE_SIZE)

    def _next_data(self, index: int) -> int | None:
        written = next((key for key, _ in self._table.items(index, _NO_END)), None)
        below = index if self._in_base(index) else self._base.next_bound(index)
        if below is None or below >= _pages(self._base_end):
            return written
        return below if written is None else min(written, below)

    def _next_hole(self, index: int) -> int:
        limit = _pages(self._base_end)
        while True:
            if self._in_base(index):
                index = min(self._base.next_bound(index) or limit, limit)
            elif self._table.get(index) is not None:
                index += 1
            else:
                return index

    def _in_base(self, index: int) -> bool:
        return index < _pages(self._base_end) and self._base.has_page(index)

    def _base_page(self, index: int) -> bytes:
        if not self._in_base(index):
            return _ZERO_PAGE
        start = index * PAGE_SIZE
        return self._read_base(start, start + PAGE_SIZE)

    def _read_base(self, start: int, end: int) -> bytes:
        """Return the bytes from `start` to `end` as they were before any page was written."""
        stop = min(end, self._base_end)
        if stop <= start:
            return bytes(end - start)
        # Short only where somebody cut the source, against the rules: zeros then, as a page cache would show.
        return self._base.pread(stop - start, start).ljust(end - start, b"\0")


Content: TypeAlias = Flat | Paged

EMPTY: Final = Flat(b"", None)
"""What every empty file holds: nobody's."""


class _Bytes:
    """A base that is another content's bytes, without holes. Nobody may change them any more."""

    __slots__ = ("_data", "owned")

    def __init__(self, data: bytes | bytearray) -> None:
        self._data = data
        self.owned = True

    def pread(self, size: int, offset: int) -> bytes:
        data = self._data
        if offset == 0 and size >= len(data) and isinstance(data, bytes):
            return data
        return bytes(data[offset : offset + size])

    def has_page(self, index: int) -> bool:
        return index < _pages(len(self._data))

    def next_bound(self, index: int) -> int | None:
        bound = _pages(len(self._data))
        return bound if index < bound else None

    def count_pages(self, limit: int) -> int:
        return min(limit, _pages(len(self._data)))


class _Source:
    """A base that is an open file of another layer; once owned, closed when nothing reads it any more.

    `bounds` are ascending page numbers where data starts, ends, starts again…
    """

    __slots__ = ("_bounds", "_handle", "owned")

    def __init__(self, handle: Handle, bounds: Sequence[int]) -> None:
        self._handle = handle
        self._bounds = bounds
        self.owned = False

    def __del__(self) -> None:
        if self.owned:
            self._handle.close()

    def pread(self, size: int, offset: int) -> bytes:
        return self._handle.pread(size, offset)

    def has_page(self, index: int) -> bool:
        return bisect_right(self._bounds, index) % 2 == 1

    def next_bound(self, index: int) -> int | None:
        position = bisect_right(self._bounds, index)
        return self._bounds[position] if position < len(self._bounds) else None

    def count_pages(self, limit: int) -> int:
        starts_and_ends = zip(self._bounds[::2], self._bounds[1::2], strict=True)
        return sum(min(end, limit) - start for start, end in starts_and_ends if start < limit)


_Base: TypeAlias = _Bytes | _Source


def _data_bounds(source: Handle, size: int) -> list[int]:
    """Return the page numbers where data of `source` starts and ends, below `size`."""
    st = source.stat()
    if st.st_blocks * 512 >= st.st_size > 0:
        # As many blocks as a file without holes has. To be told so by SEEK_HOLE takes tmpfs 35 ns a page, most of a
        # copy up; where some of the blocks lie unused or hold attributes, a hole counts as data: it reads the same.
        return [0, _pages(size)]
    bounds: list[int] = []
    position = 0
    while position < size:
        try:
            start = source.seek_extent(position, SEEK_DATA)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            break
        if start >= size:
            break
        position = min(source.seek_extent(start, SEEK_HOLE), size)
        first = start // PAGE_SIZE
        # Extents of a file system with smaller blocks may meet inside a page.
        if bounds and first <= bounds[-1]:
            bounds.pop()
        else:
            bounds.append(first)
        bounds.append(_pages(position))
    return bounds


def _check_seek(offset: int, whence: int, size: int) -> None:
    if whence not in (SEEK_DATA, SEEK_HOLE):
        raise oserror(errno.EINVAL)
    if not 0 <= offset < size:
        raise oserror(errno.ENXIO)
