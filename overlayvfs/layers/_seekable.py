"""Bytes that can be read at any offset, from whatever an archive comes as.

A plain file is read in place. A compressed one is unpacked once, into memory while it is small and
then into a file without a name in the temporary directory (TMPDIR), so that reading it at random
costs no more than reading a plain one. Unpacking is bounded in memory and, against decompression
bombs, in size.
"""

import bz2
import errno
import gzip
import io
import lzma
import os
import tempfile
import threading
import weakref
import zlib
from collections.abc import Callable, Iterator
from typing import BinaryIO, Final, Protocol

from overlayvfs.abi import oserror

_CHUNK: Final = 1 << 20
_KEPT_IN_MEMORY: Final = 1 << 20
_XZ_MEMORY: Final = 256 << 20
"""What a .xz file may ask for to be unpacked; `xz -9` asks for 65 MiB."""


class Source(Protocol):
    """Bytes that do not change. Several threads may read at once."""

    size: int

    def pread(self, size: int, offset: int) -> bytes:
        """Return `size` bytes from `offset`; fewer only at the end. EBADF after close."""

    def close(self) -> None:
        """Let go of what was opened here; idempotent."""


class FileSource:
    """A file of the host, read by pread(2); it is closed with the source, or when the source is dropped."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.size = os.fstat(file.fileno()).st_size
        self._finalizer = weakref.finalize(self, file.close)

    def pread(self, size: int, offset: int) -> bytes:
        if self._file.closed:
            raise oserror(errno.EBADF)
        fd = self._file.fileno()
        data = os.pread(fd, size, offset)
        # One read(2) returns at most 2 GiB.
        while len(data) < size and (more := os.pread(fd, size - len(data), offset + len(data))):
            data += more
        return data

    def close(self) -> None:
        self._finalizer()


class ObjectSource:
    """A seekable file object, read under a lock; `owned` says whether closing the source closes it."""

    def __init__(self, file: BinaryIO, *, owned: bool) -> None:
        self._file = file
        self._owned = owned
        self._lock = threading.Lock()
        self._closed = False
        self.size = file.seek(0, os.SEEK_END)

    def pread(self, size: int, offset: int) -> bytes:
        with self._lock:
            if self._closed:
                raise oserror(errno.EBADF)
            self._file.seek(offset)
            data = self._file.read(size)
            # A raw file object may return less than it has.
            while len(data) < size and (more := self._file.read(size - len(data))):
                data += more
            return data

    def close(self) -> None:
        with self._lock:
            self._closed = True
            if self._owned:
                self._file.close()


def open_source(origin: str | os.PathLike[str] | BinaryIO, *, label: str, max_unpacked: int) -> Source:
    """Return the bytes at a path or in a file object (from its start where it can seek), unpacked.

    gzip, bzip2, xz and zstd are known by their first bytes; anything else is taken as it is. Errors
    name `label`.

    Raises:
        OSError: as open(2).
        EOPNOTSUPP: zstd, and the package that reads it is not installed.
        EIO: the compressed data are corrupt or end early.
        EFBIG: they unpack to more than `max_unpacked` bytes.

    """
    packed = _open_packed(origin, label, max_unpacked)
    kind = _kind(packed.pread(6, 0))
    if kind is None:
        return packed
    try:
        return _spool(_reported(_UNPACKERS[kind](packed, label), kind, label), label, max_unpacked)
    finally:
        packed.close()


def _open_packed(origin: str | os.PathLike[str] | BinaryIO, label: str, max_unpacked: int) -> Source:
    if isinstance(origin, (str, os.PathLike)):
        return _file_source(open(origin, "rb", buffering=0))
    if origin.seekable():
        return ObjectSource(origin, owned=False)
    return _spool(iter(lambda: origin.read(_CHUNK), b""), label, max_unpacked)


def _file_source(file: BinaryIO) -> Source:
    # Windows has no pread.
    return FileSource(file) if hasattr(os, "pread") else ObjectSource(file, owned=True)


def _spool(chunks: Iterator[bytes], label: str, max_unpacked: int) -> Source:
    """Return everything `chunks` yields as a source."""
    memory = io.BytesIO()
    size = 0
    for chunk in chunks:
        size += memory.write(chunk)
        if size > min(_KEPT_IN_MEMORY, max_unpacked):
            break
    else:
        return ObjectSource(memory, owned=True)
    file: BinaryIO = tempfile.TemporaryFile(buffering=0)
    try:
        _check_unpacked(size, label, max_unpacked)
        _write_all(file, memory.getbuffer())
        for chunk in chunks:
            size += len(chunk)
            _check_unpacked(size, label, max_unpacked)
            _write_all(file, memoryview(chunk))
        return _file_source(file)
    except BaseException:
        file.close()
        raise


def _check_unpacked(size: int, label: str, max_unpacked: int) -> None:
    if size > max_unpacked:
        raise oserror(errno.EFBIG, label, reason=f"it unpacks to more than {max_unpacked} bytes (max_unpacked)")


def _write_all(file: BinaryIO, data: memoryview) -> None:
    while data:
        data = data[file.write(data) :]


class _Stream(io.RawIOBase):
    """A source from its start, as the file object decompressors ask for."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._offset = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        data = self._source.pread(len(buffer), self._offset)
        buffer[: len(data)] = data
        self._offset += len(data)
        return len(data)


def _buffered(source: Source) -> io.BufferedReader:
    return io.BufferedReader(_Stream(source), _CHUNK)


def _kind(head: bytes) -> str | None:
    for magic, kind in _MAGICS:
        if head.startswith(magic):
            return kind
    return None


def _gzip_chunks(source: Source, label: str) -> Iterator[bytes]:
    with gzip.GzipFile(fileobj=_buffered(source)) as file:
        yield from iter(lambda: file.read(_CHUNK), b"")


def _bzip2_chunks(source: Source, label: str) -> Iterator[bytes]:
    with bz2.BZ2File(_buffered(source)) as file:
        yield from iter(lambda: file.read(_CHUNK), b"")


def _xz_chunks(source: Source, label: str) -> Iterator[bytes]:
    # lzma.LZMAFile takes no memlimit, and a few bytes of .xz can ask for a dictionary of 4 GiB.
    packed = _buffered(source)
    data = packed.read(_CHUNK)
    while data:
        unpacker = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY)
        while not unpacker.eof:
            if not data and unpacker.needs_input:
                raise EOFError
            yield unpacker.decompress(data, _CHUNK)
            data = packed.read(_CHUNK) if unpacker.needs_input else b""
        # Streams may follow one another, with padding of NULs between (xz(1)).
        data = unpacker.unused_data.lstrip(b"\0") or packed.read(_CHUNK).lstrip(b"\0")


def _zstd_chunks(source: Source, label: str) -> Iterator[bytes]:
    try:
        import zstandard
    except ModuleNotFoundError:
        raise oserror(
            errno.EOPNOTSUPP, label, reason='it is compressed with zstd: pip install "overlayvfs[zstd]" to read it'
        ) from None
    try:
        # The package's own bound on the window holds: 128 MiB.
        with zstandard.ZstdDecompressor().stream_reader(_buffered(source), read_across_frames=True) as file:
            yield from iter(lambda: file.read(_CHUNK), b"")
    except zstandard.ZstdError as error:
        raise _corrupt(label, "zstd", error) from None


_MAGICS: Final = (
    (b"\x1f\x8b", "gzip"),
    (b"BZh", "bzip2"),
    (b"\xfd7zXZ\0", "xz"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
)
_UNPACKERS: Final[dict[str, Callable[[Source, str], Iterator[bytes]]]] = {
    "gzip": _gzip_chunks,
    "bzip2": _bzip2_chunks,
    "xz": _xz_chunks,
    "zstd": _zstd_chunks,
}


def _reported(chunks: Iterator[bytes], kind: str, label: str) -> Iterator[bytes]:
    """Yield `chunks`, telling what the decompressor dislikes as EIO."""
    try:
        yield from chunks
    except EOFError:
        raise oserror(errno.EIO, label, reason=f"the {kind} data end early") from None
    except (zlib.error, lzma.LZMAError) as error:
        raise _corrupt(label, kind, error) from None
    except OSError as error:
        # gzip and bz2 raise an OSError without a number; one with a number is a failing read of the file itself.
        if error.errno is not None:
            raise
        raise _corrupt(label, kind, error) from None


def _corrupt(label: str, kind: str, error: Exception) -> OSError:
    return oserror(errno.EIO, label, reason=f"the {kind} data are corrupt: {error}")
