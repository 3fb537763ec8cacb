"""The bytes of a file: one backend file shared by everybody who has it open.

Two writers and a reader agree because they use the same file object. It is opened when first needed and
let go (`park`) before its name changes: few backends promise that an open file survives that.
"""

import os
import tempfile
from collections.abc import Callable
from contextlib import suppress
from typing import IO, Final

from overlayvfs.layers.pyfs.backend import Backend

_CHUNK: Final = 1 << 18
_KEPT_IN_MEMORY: Final = 1 << 20
"""Bytes of a local copy that stay in memory; the rest goes to a temporary file."""


class Content:
    """What is in one file; the layer's lock is held around every call."""

    def __init__(
        self,
        backend: Backend,
        where: Callable[[], str],
        told: int | None,
        *,
        in_place: bool,
        file: IO[bytes] | None = None,
    ) -> None:
        """Open nothing yet, or go on with `file`, which takes writes in place."""
        self._backend = backend
        self._where = where
        self._told = told
        """The size the backend gives; None once it was changed here."""
        self._in_place = in_place
        """The backend's files take writes at any offset; elsewhere a copy does, and is written back as a whole."""
        self._writable = file is not None
        self._file = file
        self._is_copy = False
        self._dirty = False
        # Where the next read or write goes on without a seek: between reading and writing there must be one.
        self._read_at = -1
        self._write_at = -1 if file is None else 0

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
        with _Use(self):
            if self._write_at != offset:
                file.seek(offset)
            self._read_at = self._write_at = -1
            while rest:
                written = file.write(rest)
                if not 0 < written <= len(rest):
                    raise OSError(f"write() took {written!r} of {len(rest)} bytes")
                rest = rest[written:]
            file.flush()
        self._write_at = offset + len(data)
        self._dirty = self._is_copy
        return len(data)

    def truncate(self, size: int) -> None:
        file = self._open()
        self._told = None
        with _Use(self):
            if size and size > file.seek(0, os.SEEK_END):
                # Not every truncate() grows a file.
                file.seek(size - 1)
                file.write(b"\0")
            else:
                if self._write_at:
                    file.seek(0)
                file.truncate(size)
            self._read_at = self._write_at = -1
            file.flush()
        if not size:
            self._write_at = 0
        self._dirty = self._is_copy

    @property
    def is_used(self) -> bool:
        """Whether size and times may change: something was read or written, and the file is still open."""
        return self._file is not None

    def size(self) -> int | None:
        """Return the size where the backend does not know it yet, else None."""
        if not self._dirty:
            return None
        assert self._file is not None
        self._read_at = self._write_at = -1
        return self._file.seek(0, os.SEEK_END)

    def sync(self) -> None:
        """Give the backend what was written."""
        if self._dirty:
            assert self._file is not None
            self._read_at = self._write_at = -1
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
            self._backend.forget(self._where())
            by_copy = self._writable and not self._in_place
            try:
                file = self._backend.open(self._where(), writable=self._writable and not by_copy)
            except FileNotFoundError as error:
                raise self._backend.lie(self._where(), "does not show any more what was open") from error
            self._file, self._read_at, self._write_at = file, 0, 0
            with self._backend.calls(self._where()):
                self._is_copy = by_copy or not file.seekable()
            if self._is_copy:
                self._file = None
                self._file = self._copy(file)
                self._read_at = self._write_at = -1
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
        with _Use(self):
            # A seek is dear where it opens a new connection.
            if self._read_at != offset:
                file.seek(offset)
            self._read_at = self._write_at = -1
            while rest:
                piece: object = file.read(rest)
                if not isinstance(piece, bytes) or len(piece) > rest:
                    raise OSError(f"read({rest}) gave {piece!r:.100}")
                if not piece:
                    break
                pieces.append(piece)
                rest -= len(piece)
        self._read_at = offset + size - rest
        return b"".join(pieces)

    def failed(self, error: Exception) -> OSError:
        """Return what the backend's file raised as an errno; a file that failed once is not used again."""
        where = self._where()
        if not self._is_copy:
            with suppress(OSError):
                self._let_go()
        return self._backend.error(error, where)

    def _check_size(self, end: int, *, ended: bool) -> None:
        """Ask once more for the size; EIO if the file still does not end there."""
        told = self._backend.stat(self._where()).st_size
        if (told != end) if ended else (told < end):
            how = "ends after" if ended else "goes on after"
            raise self._backend.lie(self._where(), f"gives a size of {told} bytes for a file that {how} {end}")
        self._told = told


class _Use:
    """The block in which a content's file is used."""

    __slots__ = ("_content",)

    def __init__(self, content: Content) -> None:
        self._content = content

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, Exception):
            raise self._content.failed(error) from error
