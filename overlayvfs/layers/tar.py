"""A tar archive as a lower: a root file system (`docker export`, debootstrap) or one layer of an image.

The archive is read once, header by header, into an index; file contents are read from it where they
are. Plain archives are read in place through one descriptor, compressed ones (gzip, bzip2, xz, zstd)
are unpacked once, see `_seekable.py`.

**How an archive is read.** An archive describes a tree; every entry is placed in it by its own name:

- a leading `/`, `./` and repeated slashes say nothing; `..` anywhere is refused;
- the last entry of a name wins: a directory over a directory brings its attributes and keeps the
  contents, anything else replaces what was there, all below a directory included;
- missing parents are directories, 0755, root's, of 1970; so is a root without an entry;
- nothing is ever placed through a symlink: an entry "below" one (or below a file) is refused, since
  extracting it would write elsewhere and replacing the link would break what relies on it;
- a hard link is a name of what its target names at that point of the archive, a directory excepted;
  the link stays with it when that name is replaced later. A target not held before is refused;
- names over 255 bytes, paths of 4096 and more, a NUL in a name, types, owners, device numbers and maps of
  holes that Linux has no place for are refused; a time outside 1677 to 2262 is the nearest inside;
- a corrupt header is refused wherever it is, and so is an archive without the zero block that ends it.

Refused is EINVAL (malformed), EIO (cut short, or unreadable compressed data) or EFBIG (a bound), for
the archive as a whole, naming it and the entry. Attributes come from `SCHILY.xattr.*` and
`LIBARCHIVE.xattr.*`, times from pax records to the nanosecond. POSIX ACLs and SELinux records of star
are not attributes and are left out.

**Bounds.** Memory: about 170 bytes an entry (CPython 3.11, names of 12 letters; 250 are counted), never more than
`max_index`; one entry's headers at most 1 MiB. Disk: `max_unpacked` for a compressed archive.

**Marks.** Device nodes 0/0 and `*.overlay.*` attributes in an archive are marks as everywhere. `.wh.` names
are ordinary ones (KB 2.8) unless `whiteouts` is set, as it is for the layers of an image.
"""

import errno
import os
import stat
from collections.abc import Collection, Hashable, Iterator, Mapping, Sequence
from typing import BinaryIO, Final

from overlayvfs.abi import (
    NAME_MAX,
    PAGE_SIZE,
    SEEK_DATA,
    SEEK_HOLE,
    ST_RDONLY,
    Dirent,
    Stat,
    StatVfs,
    anonymous_dev,
    oserror,
)
from overlayvfs.layers._readonly import ReadOnlyHandle
from overlayvfs.layers._seekable import Source, open_source
from overlayvfs.layers._tarentries import Extents, read_entries
from overlayvfs.layers._tartree import TarTree
from overlayvfs.layers.base import Capabilities
from overlayvfs.marks import TRUSTED, USER, MarkNames

_MAX_UNPACKED: Final = 16 << 30
_MAX_INDEX: Final = 1 << 30
_PIECE: Final = 1 << 20


class TarLayer:
    """A `Layer` over a tar archive at a path or in a file object, which is read from its start where it can seek.

    `whiteouts` says that it is an image's layer: `.wh.x` is then a whiteout for `x` and `.wh..wh..opq` makes
    its directory opaque, in the spelling of each of `marks` (of those that are not the overlay's, attributes would
    show). `max_unpacked` bounds the disk a compressed archive may take, `max_index` the memory
    of the index, both in bytes. A file object stays open and must not change.
    """

    capabilities: Final = Capabilities()

    def __init__(
        self,
        origin: str | os.PathLike[str] | BinaryIO,
        *,
        name: str | None = None,
        whiteouts: bool = False,
        marks: Sequence[MarkNames] = (TRUSTED, USER),
        max_unpacked: int = _MAX_UNPACKED,
        max_index: int = _MAX_INDEX,
    ) -> None:
        """Open and index the archive. EINVAL EIO EFBIG, as the module says; EOPNOTSUPP for zstd without its package."""
        self.name = name or (os.fspath(origin) if isinstance(origin, (str, os.PathLike)) else repr(origin))
        # The file object is kept: its id is this layer's identity.
        self._origin = origin
        self._identity = _identity(origin)
        self._dev = anonymous_dev()
        self._source = open_source(origin, label=self.name, max_unpacked=max_unpacked)
        try:
            entries = read_entries(self._source, self.name)
            self._tree = TarTree(entries, self.name, whiteouts=whiteouts, marks=marks, max_index=max_index)
        except BaseException:
            self._source.close()
            raise

    def identity(self) -> Hashable:
        return self._identity

    def ancestry(self) -> Sequence[Hashable]:
        return (self._identity,)

    def lstat(self, path: str) -> Stat:
        return self._tree.stat(self._tree.find(path), self._dev)

    def names(self, path: str) -> Collection[str]:
        return self._tree.names(self._tree.find(path))

    def listdir(self, path: str) -> list[Dirent]:
        return self._tree.dirents(self._tree.find(path))

    def readlink(self, path: str) -> str:
        return self._tree.target(self._tree.find(path))

    def getxattr(self, path: str, name: str) -> bytes:
        return _attribute(self._tree.xattrs(self._tree.find(path)), name)

    def listxattr(self, path: str) -> list[str]:
        return list(self._tree.xattrs(self._tree.find(path)))

    def open(self, path: str, *, writable: bool = False) -> "TarHandle":
        ino = self._tree.find(path)
        if writable:
            raise oserror(errno.EROFS, path, reason=f"{self.name} is an archive")
        return TarHandle(self.name, self._source, self._tree, ino, self._dev)

    def file_handle(self, path: str) -> bytes | None:
        self._tree.find(path)
        return None

    def find_handle(self, value: bytes, hint: str | None = None) -> Stat | None:
        return None

    def statvfs(self) -> StatVfs:
        blocks = -(-self._source.size // PAGE_SIZE)
        files = len(self._tree)
        return StatVfs(PAGE_SIZE, PAGE_SIZE, blocks, 0, 0, files, 0, 0, ST_RDONLY, NAME_MAX)

    def content(self) -> Iterator[bytes]:
        """Yield the archive itself, unpacked, piece by piece."""
        offset = 0
        while piece := self._source.pread(_PIECE, offset):
            yield piece
            offset += len(piece)

    def close(self) -> None:
        self._source.close()


class TarHandle(ReadOnlyHandle):
    """An object of an archive. Threads may share it."""

    def __init__(self, name: str, source: Source, tree: TarTree, ino: int, dev: int) -> None:
        self._name = name
        self._source: Source | None = source
        self._tree = tree
        self._ino = ino
        self._stat = tree.stat(ino, dev)
        self._extents = tree.extents(ino) if stat.S_ISREG(self._stat.st_mode) else None

    def pread(self, size: int, offset: int) -> bytes:
        extents = self._regular()
        if self._source is None:
            raise oserror(errno.EBADF)
        end = min(offset + size, self._stat.st_size)
        read: list[bytes] = []
        for start, stop, at in extents.within(offset, end):
            read.append(bytes(start - offset))
            data = self._source.pread(stop - start, at)
            if len(data) != stop - start:
                raise oserror(errno.EIO, reason=f"{self._name} has become shorter")
            read.append(data)
            offset = stop
        read.append(bytes(max(end - offset, 0)))
        return b"".join(read)

    def seek_extent(self, offset: int, whence: int) -> int:
        extents = self._regular()
        size = self._stat.st_size
        if whence not in (SEEK_DATA, SEEK_HOLE):
            raise oserror(errno.EINVAL)
        if not 0 <= offset < size:
            raise oserror(errno.ENXIO)
        if whence == SEEK_DATA:
            for start, _, _ in extents.within(offset, size):
                return start
            raise oserror(errno.ENXIO)
        for start, stop, _ in extents.within(offset, size):
            if start > offset:
                break
            offset = stop
        return offset

    def stat(self) -> Stat:
        return self._stat

    def getxattr(self, name: str) -> bytes:
        return _attribute(self._tree.xattrs(self._ino), name)

    def listxattr(self) -> list[str]:
        return list(self._tree.xattrs(self._ino))

    def close(self) -> None:
        self._source = None

    def _regular(self) -> Extents:
        if self._extents is None:
            raise oserror(errno.EISDIR if stat.S_ISDIR(self._stat.st_mode) else errno.EINVAL)
        return self._extents


def _identity(origin: str | os.PathLike[str] | BinaryIO) -> Hashable:
    """Return what two layers over the same archive have in common: the file, or the file object itself."""
    if isinstance(origin, (str, os.PathLike)):
        st = os.stat(origin)
        return ("tar", st.st_dev, st.st_ino)
    return ("tar", id(origin))


def _attribute(xattrs: Mapping[str, bytes], name: str) -> bytes:
    if name not in xattrs:
        raise oserror(errno.ENODATA)
    return xattrs[name]
