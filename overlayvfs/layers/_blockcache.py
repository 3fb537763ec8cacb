"""Blocks of files kept within a bound, in memory or in a temporary file; the least recently used go first."""

import tempfile
from collections import OrderedDict
from collections.abc import Hashable
from threading import Lock
from typing import IO, Final, Protocol

BLOCK: Final = 256 << 10
"""Bytes of a block; the last one of a file may be shorter."""


class _Store(Protocol):
    """Where blocks are; a token stands for one that is kept."""

    def cost(self, data: bytes) -> int: ...
    def keep(self, data: bytes) -> object: ...
    def load(self, token: object) -> bytes: ...
    def drop(self, token: object) -> None: ...
    def close(self) -> None: ...


class BlockCache:
    """At most `max_bytes` of blocks by key, in memory or in a nameless file in `directory`. Threads may share it."""

    def __init__(self, max_bytes: int, directory: str | None) -> None:
        """Raise ENOENT, ENOTDIR, EACCES...: of the directory."""
        self._lock = Lock()
        self._max_bytes = max_bytes
        self._store: _Store = _InMemory() if directory is None else _OnDisk(directory)
        self._tokens: OrderedDict[Hashable, tuple[object, int]] = OrderedDict()
        self.used_bytes = 0

    def get(self, key: Hashable) -> bytes | None:
        """Return a block, None if it is not kept (any more)."""
        with self._lock:
            found = self._tokens.get(key)
            if found is None:
                return None
            self._tokens.move_to_end(key)
            try:
                return self._store.load(found[0])
            except OSError:
                # The cache is not what the caller asked about: without it the layer itself answers.
                self._drop(key)
                return None

    def put(self, key: Hashable, data: bytes) -> None:
        """Keep a block, at the cost of others; one that does not fit at all is not kept."""
        cost = self._store.cost(data)
        with self._lock:
            if key in self._tokens or cost > self._max_bytes:
                return
            while self.used_bytes + cost > self._max_bytes:
                self._drop(next(iter(self._tokens)))
            try:
                token = self._store.keep(data)
            except OSError:
                # As above: a full disk under the cache is no reason for a read to fail.
                return
            self._tokens[key] = token, cost
            self.used_bytes += cost

    def close(self) -> None:
        """Forget everything and keep nothing from now on."""
        with self._lock:
            self._tokens.clear()
            self.used_bytes = self._max_bytes = 0
            self._store.close()

    def _drop(self, key: Hashable) -> None:
        token, cost = self._tokens.pop(key)
        self.used_bytes -= cost
        self._store.drop(token)


class _InMemory:
    """The token is the block."""

    def cost(self, data: bytes) -> int:
        return len(data)

    def keep(self, data: bytes) -> object:
        return data

    def load(self, token: object) -> bytes:
        assert isinstance(token, bytes)
        return token

    def drop(self, token: object) -> None:
        """Do nothing: the last reference was the cache's."""

    def close(self) -> None:
        """Do nothing: there is nothing open."""


class _OnDisk:
    """One file of places of a block each, which are used again; nobody can name it, so a crash leaves nothing."""

    def __init__(self, directory: str) -> None:
        self._file: IO[bytes] = tempfile.TemporaryFile(dir=directory, buffering=0)
        self._free: list[int] = []
        self._places = 0

    def cost(self, data: bytes) -> int:
        return BLOCK

    def keep(self, data: bytes) -> object:
        place = self._free.pop() if self._free else self._places
        self._places = max(self._places, place + 1)
        try:
            self._file.seek(place * BLOCK)
            written = self._file.write(data)
            if written != len(data):
                raise OSError("the disk is full")
        except OSError:
            self._free.append(place)
            raise
        return place, len(data)

    def load(self, token: object) -> bytes:
        assert isinstance(token, tuple)
        place, size = token
        self._file.seek(place * BLOCK)
        data = self._file.read(size)
        if len(data) != size:
            raise OSError("the cache file was cut")
        return data

    def drop(self, token: object) -> None:
        assert isinstance(token, tuple)
        self._free.append(token[0])

    def close(self) -> None:
        self._file.close()
