"""A slow layer behind a cache: what it answered once, and what was read of its files, is not asked again.

For lowers every question to which is a request: object stores, FTP, HTTP. Nothing kept can go stale, for a lower
does not change while it is mounted; a new `CachedLayer` starts empty.

    OverlayFS([CachedLayer("s3://bucket/dir", cache="/var/tmp", max_bytes=10 << 30)], MemoryFS())
"""

import errno
import os
import stat
from collections import OrderedDict
from collections.abc import Callable, Collection, Hashable, Iterator, Sequence
from threading import Lock
from typing import Final, TypeVar, cast

from overlayvfs.abi import SEEK_DATA, SEEK_HOLE, Dirent, Stat, StatVfs, oserror
from overlayvfs.layers._blockcache import BLOCK, BlockCache
from overlayvfs.layers._readonly import ReadOnlyHandle
from overlayvfs.layers.adapt import LayerSpec, open_layer
from overlayvfs.layers.base import Capabilities, Handle, Layer
from overlayvfs.marks import USER, MarkNames

T = TypeVar("T")

_LASTING: Final = frozenset({errno.ENOENT, errno.ENOTDIR, errno.EINVAL, errno.ENODATA, errno.ENAMETOOLONG})
"""Refusals that are answers; any other may be a passing trouble."""

_MAX_ANSWERS: Final = 1 << 16


class CachedLayer:
    """A `Layer` that asks another one as little as it can. Threads may share it."""

    def __init__(
        self,
        layer: LayerSpec,
        *,
        cache: str | os.PathLike[str] | None = None,
        max_bytes: int = 256 << 20,
        marks: MarkNames = USER,
    ) -> None:
        """Stand before `layer`: a layer, or whatever OverlayFS takes for one (`marks` are then the overlay's).

        File contents are kept in memory or, nameless, in the directory `cache`, at most `max_bytes`; of other
        answers the last 65536. `close` lets go of the cache, and of the layer unless it was given as one.

        Raises:
            ENOENT, ENOTDIR, EACCES, ...: of the layer, or of the directory `cache`.

        """
        self._layer = open_layer(layer, "cached layer", marks=marks)
        self._owned = self._layer is not layer
        try:
            self.blocks = BlockCache(max_bytes, None if cache is None else os.fspath(cache))
        except BaseException:
            self._close_layer()
            raise
        self._answers: OrderedDict[Hashable, object] = OrderedDict()
        self._lock = Lock()

    @property
    def name(self) -> str:
        return self._layer.name

    @property
    def capabilities(self) -> Capabilities:
        return self._layer.capabilities

    def identity(self) -> Hashable:
        return self._layer.identity()

    def ancestry(self) -> Sequence[Hashable]:
        return self._layer.ancestry()

    def lstat(self, path: str) -> Stat:
        if self._is_known_missing(path):
            raise oserror(errno.ENOENT, path)
        return self._ask("lstat", self._layer.lstat, path)

    def names(self, path: str) -> Collection[str] | None:
        listing = self._listing(path)
        return self._ask("names", self._layer.names, path) if listing is None else listing

    def listdir(self, path: str) -> list[Dirent]:
        listing = self._listing(path)
        if listing is None:
            entries = self._ask("listdir", self._layer.listdir, path)
            self._keep(("names of", path), {entry.d_name: entry for entry in entries})
            return list(entries)
        return list(listing.values())

    def readlink(self, path: str) -> str:
        return self._ask("readlink", self._layer.readlink, path)

    def getxattr(self, path: str, name: str) -> bytes:
        return self._ask("getxattr", self._layer.getxattr, path, name)

    def listxattr(self, path: str) -> list[str]:
        return list(self._ask("listxattr", self._layer.listxattr, path))

    def open(self, path: str, *, writable: bool = False) -> Handle:
        st = self.lstat(path)
        if writable:
            raise oserror(errno.EISDIR if stat.S_ISDIR(st.st_mode) else errno.EROFS, path)
        if not stat.S_ISREG(st.st_mode):
            return self._layer.open(path)
        return CachedHandle(self, self._layer, path, st)

    def file_handle(self, path: str) -> bytes | None:
        return self._ask("file_handle", self._layer.file_handle, path)

    def find_handle(self, value: bytes, hint: str | None = None) -> Stat | None:
        return self._layer.find_handle(value, hint)

    def statvfs(self) -> StatVfs:
        return self._layer.statvfs()

    def close(self) -> None:
        self._answers.clear()
        self.blocks.close()
        self._close_layer()

    def _close_layer(self) -> None:
        if self._owned:
            self._layer.close()

    def _ask(self, name: str, verb: Callable[..., T], *args: str) -> T:
        """Return what the layer answers, or answered, to the verb of this name; refusals that last are answers."""
        key = (name, *args)
        with self._lock:
            known = key in self._answers
            if known:
                self._answers.move_to_end(key)
                answer = self._answers[key]
        if not known:
            try:
                answer = verb(*args)
            except OSError as error:
                if error.errno not in _LASTING:
                    raise
                answer = _Refusal(error)
            self._keep(key, answer)
        if isinstance(answer, _Refusal):
            raise answer.again()
        return cast(T, answer)

    def _keep(self, key: Hashable, answer: object) -> None:
        with self._lock:
            self._answers[key] = answer
            while len(self._answers) > _MAX_ANSWERS:
                self._answers.popitem(last=False)

    def _listing(self, path: str) -> dict[str, Dirent] | None:
        """Return a directory's entries by name if it was listed before."""
        with self._lock:
            return cast(dict[str, Dirent] | None, self._answers.get(("names of", path)))

    def _is_known_missing(self, path: str) -> bool:
        parent, _, name = path.rpartition("/")
        listing = self._listing(parent) if path else None
        return listing is not None and name not in listing


class _Refusal:
    """An error that was an answer."""

    def __init__(self, error: OSError) -> None:
        self._args = error.errno, error.strerror, error.filename

    def again(self) -> OSError:
        """Return a new error like it; one object can't be raised in two threads."""
        return OSError(*self._args)


class CachedHandle(ReadOnlyHandle):
    """A regular file, read in blocks. The layer is not asked for the file before a block is missing."""

    def __init__(self, cached: CachedLayer, layer: Layer, path: str, st: Stat) -> None:
        self._cached: CachedLayer | None = cached
        self._layer = layer
        self._path = path
        self._stat = st
        self._handle: Handle | None = None
        self._lock = Lock()

    def pread(self, size: int, offset: int) -> bytes:
        cached = self._open()
        end = min(offset + size, self._stat.st_size)
        if end <= offset:
            return b""
        first = offset // BLOCK
        blocks = {number: cached.blocks.get((self._stat.st_ino, number)) for number in range(first, -(-end // BLOCK))}
        for start, stop in _runs([number for number, data in blocks.items() if data is None]):
            fetched = self._fetch(start * BLOCK, min(stop * BLOCK, self._stat.st_size))
            for number in range(start, stop):
                data = fetched[(number - start) * BLOCK : (number - start + 1) * BLOCK]
                cached.blocks.put((self._stat.st_ino, number), data)
                blocks[number] = data
        whole = b"".join(data for data in blocks.values() if data is not None)
        return whole[offset - first * BLOCK : end - first * BLOCK]

    def seek_extent(self, offset: int, whence: int) -> int:
        st = self.stat()
        if st.st_blocks * 512 < st.st_size:
            return self._real().seek_extent(offset, whence)
        # Blocks enough for all of it: one extent of data, and no request to hear so.
        if whence not in (SEEK_DATA, SEEK_HOLE):
            raise oserror(errno.EINVAL)
        if not 0 <= offset < st.st_size:
            raise oserror(errno.ENXIO)
        return offset if whence == SEEK_DATA else st.st_size

    def stat(self) -> Stat:
        self._open()
        return self._stat

    def getxattr(self, name: str) -> bytes:
        return self._open().getxattr(self._path, name)

    def listxattr(self) -> list[str]:
        return self._open().listxattr(self._path)

    def close(self) -> None:
        with self._lock:
            handle, self._handle, self._cached = self._handle, None, None
        if handle is not None:
            handle.close()

    def _open(self) -> CachedLayer:
        if self._cached is None:
            raise oserror(errno.EBADF)
        return self._cached

    def _real(self) -> Handle:
        """Return the layer's own handle, opened when first needed."""
        with self._lock:
            self._open()
            if self._handle is None:
                self._handle = self._layer.open(self._path)
            return self._handle

    def _fetch(self, start: int, end: int) -> bytes:
        """Ask the layer for bytes. EIO: there are fewer than it says."""
        data = self._real().pread(end - start, start)
        if len(data) != end - start:
            size = self._stat.st_size
            raise oserror(errno.EIO, reason=f"{self._path} in {self._layer.name} ends at {start + len(data)} of {size}")
        return data


def _runs(numbers: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Return (first, after the last) of each run in rising numbers: what one request can ask for."""
    for at, number in enumerate(numbers):
        if at == 0 or numbers[at - 1] != number - 1:
            start = number
        if at == len(numbers) - 1 or numbers[at + 1] != number + 1:
            yield start, number + 1
