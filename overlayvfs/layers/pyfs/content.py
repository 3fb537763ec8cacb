"""The bytes of a file: one backend file shared by everybody who has it open.

Two writers and a reader agree because they use the same file object. It is opened when first needed and
let go (`park`) before its name changes: few backends promise that an open file survives that.
"""

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import IO, Final

from overlayvfs.layers.pyfs.backend import Backend

_CHUNK: Final = 1 << 18
_KEPT_IN_MEMORY: Final = 1 << 20
"""Bytes of a local copy that stay in memory; the rest goes to a temporary file."""


class Content:
    """What is in one file; the layer's lock is held around every call."""

    def __init__(self, backend: Backend, where: Callable[[], str], told: int | None, *, in_place: bool) -> None:
        self._backend = backend
        self._where = where
        self._told = told
        """The size the backend gives; None once it was changed here."""
        self._in_place = in_place
        """The backend's files take writes at any offset; elsewhere a copy does, and is written back as a whole."""
        self._writable = False
        self._file: IO[bytes] | None = None
        self._is_copy = False
        self._dirty = False
        self._position = -1

    def make_writable(self) -> None:
        """Let `pwrite` and `truncate` be called from now on."""
        if not self._writable:
            if not self._is_copy:
                self._let_go()
            self._writable = True

    def pread(self, size: int, offset: int) -> bytes:
        """Return up to `size` bytes, fewer only at the end. EIO: the file does not end where its size says."""
        if self._told is not None and offset > self._told:
            # Some servers refuse to read from past the end.
            self._told = self._backend.stat(self._where()).st_size
            if offset >= self._told:
                return b""
        told = self._told
        # One byte more where the end should be: whether the file goes on costs no second read that way.
        want = size + 1 if offset + size == told else size
        data = self._read(want, offset)
        end = offset + len(data)
        if told is not None:
            ended = len(data) < want
            if (ended and end < told) or (data and end > told):
                self._check_size(end, ended=ended)
        return data[:size]

    def pwrite(self, data: bytes | memoryview, offset: int) -> int:
        file = self._open()
        self._told = None
        rest = bytes(data)
        with self._using():
            file.seek(offset)
            while rest:
                written = file.write(rest)
                if not 0 < written <= len(rest):
                    raise OSError(f"write() took {written!r} of {len(rest)} bytes")
                rest = rest[written:]
            file.flush()
        self._dirty = self._is_copy
        return len(data)

    def truncate(self, size: int) -> None:
        file = self._open()
        self._told = None
        with self._using():
            if size > file.seek(0, os.SEEK_END):
                # Not every truncate() grows a file.
                file.seek(size - 1)
                file.write(b"\0")
            else:
                file.seek(0)
                file.truncate(size)
            file.flush()
        self._dirty = self._is_copy

    def size(self) -> int | None:
        """Return the size where the backend does not know it yet, else None."""
        if not self._dirty:
            return None
        assert self._file is not None
        return self._file.seek(0, os.SEEK_END)

    def sync(self) -> None:
        """Give the backend what was written."""
        if self._dirty:
            assert self._file is not None
            self._file.seek(0)
            self._backend.upload(self._where(), self._file)
            self._dirty = False
            if self._file.closed:
                # boto3's upload_fileobj closes what it has read.
                self._file, self._is_copy = None, False

    def park(self) -> None:
        """Hold no file of the backend any more, so that the name may change; the next use opens it anew."""
        self.sync()
        if not self._is_copy:
            self._let_go()

    def close(self) -> None:
        try:
            self.sync()
        finally:
            self._let_go()

    def discard(self) -> None:
        """Close without giving the backend what was written: the file has no name any more."""
        self._dirty = False
        self._let_go()

    def _let_go(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            with self._backend.calls(self._where()):
                file.close()

    def _open(self) -> IO[bytes]:
        if self._file is None:
            by_copy = self._writable and not self._in_place
            file = self._backend.open(self._where(), writable=self._writable and not by_copy)
            self._file, self._position = file, -1
            with self._backend.calls(self._where()):
                self._is_copy = by_copy or not file.seekable()
            if self._is_copy:
                self._file = None
                self._file = self._copy(file)
        return self._file

    def _copy(self, file: IO[bytes]) -> IO[bytes]:
        """Return a local copy of a backend file, which is closed."""
        copy: IO[bytes] = tempfile.SpooledTemporaryFile(_KEPT_IN_MEMORY)
        size = 0
        try:
            with self._backend.calls(self._where()), file:
                while chunk := file.read(_CHUNK):
                    size += copy.write(chunk)
                    if self._told is not None and size > self._told:
                        self._check_size(size, ended=False)
            if self._told is not None and size != self._told:
                self._check_size(size, ended=True)
        except BaseException:
            copy.close()
            raise
        return copy

    def _read(self, size: int, offset: int) -> bytes:
        file = self._open()
        pieces = []
        rest = size
        with self._using():
            # A seek is dear where it opens a new connection, and needed between writing and reading.
            if self._writable or self._position != offset:
                file.seek(offset)
            self._position = -1
            while rest:
                piece: object = file.read(rest)
                if not isinstance(piece, bytes) or len(piece) > rest:
                    raise OSError(f"read({rest}) gave {piece!r:.100}")
                if not piece:
                    break
                pieces.append(piece)
                rest -= len(piece)
        self._position = offset + size - rest
        return b"".join(pieces)

    @contextmanager
    def _using(self) -> Iterator[None]:
        """Turn errors into errnos; a backend file that failed once is not used again."""
        try:
            with self._backend.calls(self._where()):
                yield
        except OSError:
            if not self._is_copy:
                with suppress(OSError):
                    self._let_go()
            raise

    def _check_size(self, end: int, *, ended: bool) -> None:
        """Ask once more for the size; EIO if the file still does not end there."""
        told = self._backend.stat(self._where()).st_size
        if (told != end) if ended else (told < end):
            how = "ends after" if ended else "goes on after"
            raise self._backend.lie(self._where(), f"gives a size of {told} bytes for a file that {how} {end}")
        self._told = told
