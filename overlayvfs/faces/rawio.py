"""An open file of the tree as an `io` object, and the buffering and text `io.open` would put over it."""

import io
from typing import IO, Any, Protocol, cast

from overlayvfs import abi

_CHUNK = 1 << 20
_LINE_CHUNK = 1024
_WHENCES = (io.SEEK_SET, io.SEEK_CUR, io.SEEK_END, abi.SEEK_DATA, abi.SEEK_HOLE)


class OpenFile(Protocol):
    """What a RawFile stands on: engine.file.File, or a descriptor of `ofs.os`."""

    def read(self, size: int) -> bytes: ...
    def write(self, data: bytes | memoryview) -> int: ...
    def pread(self, size: int, offset: int) -> bytes: ...
    def seek(self, offset: int, whence: int = 0) -> int: ...
    def truncate(self, size: int) -> None: ...
    def close(self) -> None: ...


class RawFile(io.RawIOBase):
    """An open file without a buffer: every read sees every write made before it, whoever made it.

    Reads stop short only at the end of the file and writes write everything, so it also serves where
    buffered objects are expected. Errors are OSError, as in all of `io`.
    """

    name: str | int
    mode: str

    def __init__(self, file: OpenFile, name: str | int, mode: str, owner: object = None) -> None:
        """Take over `file`; `owner` is kept alive as long as this is."""
        super().__init__()
        self._file = file
        self._owner = owner
        self._reading = "r" in mode or "+" in mode
        self._writing = mode[0] != "r" or "+" in mode
        self.name = name
        self.mode = mode

    def __repr__(self) -> str:
        state = " [closed]" if self.closed else ""
        return f"<{type(self).__module__}.{type(self).__qualname__} name={self.name!r} mode={self.mode!r}{state}>"

    def readable(self) -> bool:
        self._check_open()
        return self._reading

    def writable(self) -> bool:
        self._check_open()
        return self._writing

    def seekable(self) -> bool:
        self._check_open()
        return True

    def read(self, size: int | None = -1) -> bytes:
        self._check_reading()
        return self.readall() if size is None or size < 0 else self._file.read(size)

    def readall(self) -> bytes:
        self._check_reading()
        data = self._file.read(_CHUNK)
        if len(data) < _CHUNK:
            return data
        chunks = [data]
        while data := self._file.read(_CHUNK):
            chunks.append(data)
        return b"".join(chunks)

    def readinto(self, buffer: Any) -> int:
        self._check_reading()
        view = memoryview(buffer).cast("B")
        data = self._file.read(len(view))
        view[: len(data)] = data
        return len(data)

    def readline(self, size: int | None = -1) -> bytes:
        """Return the next line, as `IOBase.readline` does; a chunk at a time instead of its byte at a time."""
        self._check_reading()
        limit = None if size is None or size < 0 else size
        parts: list[bytes] = []
        start = position = self._file.seek(0, io.SEEK_CUR)
        while limit is None or position - start < limit:
            want = _LINE_CHUNK if limit is None else min(_LINE_CHUNK, limit - (position - start))
            chunk = self._file.pread(want, position)
            end = chunk.find(b"\n") + 1
            parts.append(chunk[:end] if end else chunk)
            position += len(parts[-1])
            if end or not chunk:
                break
        self._file.seek(position)
        return b"".join(parts)

    def write(self, data: Any) -> int:
        if not self._writing or self.closed:
            self._check_open()
            raise io.UnsupportedOperation("not writable")
        if isinstance(data, str):
            raise TypeError("a bytes-like object is required, not 'str'")
        return self._file.write(data if isinstance(data, bytes) else memoryview(data).cast("B"))

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._check_open()
        if whence not in _WHENCES:
            raise ValueError(f"invalid whence ({whence}, should be 0, 1 or 2)")
        return self._file.seek(offset, whence)

    def truncate(self, size: int | None = None) -> int:
        if not self._writing or self.closed:
            self._check_open()
            raise io.UnsupportedOperation("truncate")
        if size is None:
            size = self._file.seek(0, io.SEEK_CUR)
        self._file.truncate(size)
        return size

    def close(self) -> None:
        if not self.closed:
            super().close()
            self._file.close()
            self._owner = None

    def _check_open(self) -> None:
        if self.closed:
            raise ValueError("I/O operation on closed file")

    def _check_reading(self) -> None:
        if not self._reading or self.closed:
            self._check_open()
            raise io.UnsupportedOperation("not readable")


class DescriptorFile(RawFile):
    """A RawFile over a descriptor of `ofs.os`, what os.fdopen makes; `fileno` is that descriptor."""

    def __init__(self, file: OpenFile, fd: int, mode: str) -> None:
        super().__init__(file, fd, mode)
        self._fd = fd

    def fileno(self) -> int:
        self._check_open()
        return self._fd


def binary_mode(mode: str) -> str:
    """Return an open() mode as FileIO spells it, without buffering or text: "r", "w+t" → "rb", "wb+".

    Raises:
        ValueError: open() would refuse it.

    """
    kinds = [letter for letter in mode if letter in "rwxa"]
    if len(set(mode)) != len(mode) or not set(mode) <= set("rwxabt+") or len(kinds) != 1:
        raise ValueError(f"invalid mode: {mode!r}")
    if "t" in mode and "b" in mode:
        raise ValueError("can't have text and binary mode at once")
    return f"{kinds[0]}b{'+' if '+' in mode else ''}"


def buffered(raw: RawFile, buffering: int) -> IO[bytes]:
    """Return `raw` under a buffer of `buffering` bytes (1: of the default size)."""
    size = buffering if buffering > 1 else io.DEFAULT_BUFFER_SIZE
    if raw.readable() and raw.writable():
        return io.BufferedRandom(raw, size)
    return io.BufferedReader(raw, size) if raw.readable() else io.BufferedWriter(raw, size)


def text(
    binary: RawFile | IO[bytes],
    mode: str,
    encoding: str | None,
    errors: str | None,
    newline: str | None,
    *,
    line_buffering: bool = False,
) -> io.TextIOWrapper:
    """Return `binary` as text; `mode` is what the wrapper will call its own."""
    wrapper = io.TextIOWrapper(cast("IO[bytes]", binary), encoding, errors, newline, line_buffering)
    wrapper.mode = mode  # type: ignore[misc]
    return wrapper
