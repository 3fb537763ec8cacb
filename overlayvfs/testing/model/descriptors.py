"""The model's open files: what read(2), write(2) and lseek(2) do to one (KB 13, 18).

A descriptor keeps what its name was when it was opened; which object that is by now, the overlay is asked each time.
"""

import errno
import os
from dataclasses import dataclass

from overlayvfs.abi import O_ACCMODE, O_APPEND, O_PATH, PAGE_SIZE, SEEK_DATA, SEEK_HOLE, oserror
from overlayvfs.testing.model.inodes import Inode
from overlayvfs.testing.model.listing import LeftOut
from overlayvfs.testing.model.union import Found, Union


@dataclass(slots=True, eq=False)
class OpenFile:
    """One open file description."""

    union: Union
    found: Found
    flags: int
    position: int = 0
    left_out: LeftOut | None = None
    """What the list of a directory does without that this descriptor keeps."""

    @property
    def inode(self) -> Inode:
        """Return the object as it is by now: the copy, if it was copied up since."""
        return self.union.real(self.found)

    @property
    def is_path(self) -> bool:
        """Tell whether it was opened with O_PATH: to look at, not to use."""
        return bool(self.flags & O_PATH)

    @property
    def writes(self) -> bool:
        """Tell whether it was opened for writing."""
        return not self.is_path and self.flags & O_ACCMODE in (os.O_WRONLY, os.O_RDWR)

    def read(self, size: int) -> bytes:
        """EBADF EISDIR."""
        data = self.read_at(size, self.position)
        self.position += len(data)
        return data

    def read_at(self, size: int, offset: int) -> bytes:
        """EBADF EISDIR."""
        if self.is_path or self.flags & O_ACCMODE not in (os.O_RDONLY, os.O_RDWR):
            raise oserror(errno.EBADF)
        if self.inode.is_dir:
            raise oserror(errno.EISDIR)
        return self.inode.data[offset : offset + size]

    def write(self, data: bytes) -> int:
        """EBADF."""
        self.write_at(data, self.position)
        if data:
            # With O_APPEND the data are at the end now, wherever the position was.
            self.position = self.inode.size if self.flags & O_APPEND else self.position + len(data)
        return len(data)

    def write_at(self, data: bytes, offset: int) -> int:
        """EBADF. With O_APPEND Linux writes at the end whatever the offset."""
        if not self.writes:
            raise oserror(errno.EBADF)
        self.inode.write(data, self.inode.size if self.flags & O_APPEND else offset)
        return len(data)

    def seek(self, offset: int, whence: int) -> int:
        """EBADF EINVAL ENXIO."""
        if self.is_path:
            raise oserror(errno.EBADF)
        self.position = self._sought(offset, whence)
        return self.position

    def _sought(self, offset: int, whence: int) -> int:
        inode = self.inode
        if inode.is_dir and whence not in (os.SEEK_SET, os.SEEK_CUR):
            raise oserror(errno.EINVAL)
        if whence in (SEEK_DATA, SEEK_HOLE):
            return _next_edge(inode, offset, data=whence == SEEK_DATA)
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self.position, os.SEEK_END: inode.size}.get(whence)
        if start is None or start + offset < 0:
            raise oserror(errno.EINVAL)
        return start + offset


def _next_edge(inode: Inode, offset: int, *, data: bool) -> int:
    """Return where the next data or hole begins; the end of a file counts as a hole."""
    if not 0 <= offset < inode.size:
        raise oserror(errno.ENXIO)
    pages = range(offset // PAGE_SIZE, (inode.size - 1) // PAGE_SIZE + 1)
    edge = next((page for page in pages if (page in inode.pages) == data), None)
    if edge is not None:
        return max(offset, edge * PAGE_SIZE)
    if data:
        raise oserror(errno.ENXIO)
    return inode.size
