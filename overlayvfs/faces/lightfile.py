"""A file of a lower, open for reading without anything opened (KB 13.1: it still sees every later write).

Most files of a stack are opened, read whole once and closed. This reads from what is remembered of the file and
opens it for real only when that is not enough: too large, or copied up in the meantime.
"""

import io
from typing import Any

from overlayvfs.engine.dentry import Dentry
from overlayvfs.engine.lowers import LowerFile
from overlayvfs.engine.overlay import Overlay
from overlayvfs.faces.rawio import RawFile


class LightFile(io.RawIOBase):
    """An open lower file; its registration in `dentry.readers` makes a copy up keep the file open for it."""

    # Measured: RawIOBase.__init__ left out and `closed` a slot, which is asked for when this goes, halve the time of
    # open, read and close.
    __slots__ = ("_dentry", "_overlay", "_position", "_raw", "closed", "name")

    mode = "rb"

    closed: bool

    def __init__(self, overlay: Overlay, dentry: Dentry, name: str) -> None:
        self._overlay = overlay
        self._dentry = dentry
        self._position = 0
        self._raw: RawFile | None = None
        self.closed = False
        self.name = name

    def close(self) -> None:
        if self.closed:
            return
        self.closed = True
        if self._raw is not None:
            self._raw.close()
        dentry = self._dentry
        readers = dentry.readers
        if readers:
            readers.pop()
            if dentry.inode is not None:
                self._overlay.dismiss_readers(dentry)

    def read(self, size: int | None = -1) -> bytes:
        if self._raw is None and not self.closed:
            dentry = self._dentry
            # In this order: what is remembered of the file counts for as long as there was no copy up.
            lower = dentry.lower
            content = lower.content if type(lower) is LowerFile else None
            if content is not None and not dentry.has_upper:
                start = self._position
                if start == 0 and (size is None or size < 0 or size >= len(content)):
                    self._position = len(content)
                    return content
                end = len(content) if size is None or size < 0 else start + size
                piece = content[start:end]
                self._position = start + len(piece)
                return piece
            if content is None and not dentry.has_upper and self._overlay.content(dentry) is not None:
                return self.read(size)
        return self._open().read(size)

    def readall(self) -> bytes:
        return self.read()

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        data = self.read(len(view))
        view[: len(data)] = data
        return len(data)

    def readline(self, size: int | None = -1) -> bytes:
        return self._open().readline(size)

    def readable(self) -> bool:
        return self._open().readable()

    def writable(self) -> bool:
        return self._open().writable()

    def seekable(self) -> bool:
        return self._open().seekable()

    def write(self, data: Any) -> int:
        return self._open().write(data)

    def truncate(self, size: int | None = None) -> int:
        return self._open().truncate(size)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._open().seek(offset, whence)

    def tell(self) -> int:
        return self._open().tell()

    def __repr__(self) -> str:
        state = " [closed]" if self.closed else ""
        return f"<{type(self).__module__}.{type(self).__qualname__} name={self.name!r} mode={self.mode!r}{state}>"

    def _open(self) -> RawFile:
        """Return the file opened for real, at the position this has reached."""
        if self._raw is None:
            if self.closed:
                raise ValueError("I/O operation on closed file")
            file = self._overlay.reopen(self._dentry)
            file.seek(self._position)
            self._raw = RawFile(file, self.name, "rb", self._overlay)
        return self._raw
