"""Writing a tar archive that loses nothing (POSIX pax): what `TarLayer` reads back equal, and every tar(1) reads.

Times to the nanosecond and attributes (`SCHILY.xattr.*`) are pax records; holes stay holes (GNU's sparse format 1.0).
The bytes depend on what is written alone: the same tree makes the same archive.
"""

import errno
import gzip
import os
import stat
import tarfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, BinaryIO, Final, Protocol, cast

from overlayvfs.abi import SEEK_DATA, SEEK_HOLE, Stat, oserror, split_dev

_BLOCK: Final = tarfile.BLOCKSIZE
_CHUNK: Final = 1 << 20
_SPARSE_MAX: Final = 1 << 33
"""From this much data on, GNU tar and tarfile don't agree on how a sparse file is spelt."""
_NS: Final = 1_000_000_000

_TYPES: Final = {
    stat.S_IFREG: tarfile.REGTYPE,
    stat.S_IFDIR: tarfile.DIRTYPE,
    stat.S_IFLNK: tarfile.SYMTYPE,
    stat.S_IFCHR: tarfile.CHRTYPE,
    stat.S_IFBLK: tarfile.BLKTYPE,
    stat.S_IFIFO: tarfile.FIFOTYPE,
}


class Data(Protocol):
    """Where a file's bytes come from: a base.Handle, or what reads like one."""

    def pread(self, size: int, offset: int) -> bytes:
        """Return up to `size` bytes from `offset`; fewer only at the end."""

    def seek_extent(self, offset: int, whence: int) -> int:
        """Return lseek(2)'s answer for SEEK_DATA or SEEK_HOLE. ENXIO past the end."""


class TarWriter:
    """An archive being written to a file object; `finish` ends it and closes nothing."""

    def __init__(self, out: BinaryIO) -> None:
        self._out = out

    def add(
        self,
        path: str,
        st: Stat,
        *,
        xattrs: Mapping[str, bytes] | None = None,
        target: str = "",
        link: str | None = None,
        data: Data | None = None,
    ) -> None:
        """Add the object at `path` ("" is the root): with its symlink target or data, or as a hard link of `link`.

        Raises:
            EINVAL: a socket, for which tar has no type.
            EIO: the data end early.

        """
        info = tarfile.TarInfo(path[1:] or ".")
        info.mode = stat.S_IMODE(st.st_mode)
        info.uid, info.gid = st.st_uid, st.st_gid
        records = _times(info, st)
        if link is not None:
            info.type, info.linkname = tarfile.LNKTYPE, link[1:]
            self._header(info, records)
            return
        kind = _TYPES.get(stat.S_IFMT(st.st_mode))
        if kind is None:
            raise oserror(errno.EINVAL, path, reason="tar has no sockets")
        info.type, info.linkname = kind, target
        if kind in (tarfile.CHRTYPE, tarfile.BLKTYPE):
            info.devmajor, info.devminor = split_dev(st.st_rdev)
        for name, value in (xattrs or {}).items():
            keyword = name.replace("%", "%25").replace("=", "%3D")
            records[f"SCHILY.xattr.{keyword}"] = value.decode("utf-8", "surrogateescape")
        if data is None:
            self._header(info, records)
        else:
            self._file(path, info, records, data, st.st_size)

    def finish(self) -> None:
        """Write the end of the archive."""
        self._out.write(bytes(2 * _BLOCK))

    def _file(self, path: str, info: tarfile.TarInfo, records: dict[str, str], data: Data, size: int) -> None:
        extents = list(_extents(data, size))
        stored = sum(end - start for start, end in extents)
        places = b""
        if stored < size and stored < _SPARSE_MAX:
            places = _sparse_map(extents, size)
            records |= {
                "GNU.sparse.major": "1",
                "GNU.sparse.minor": "0",
                "GNU.sparse.name": info.name,
                "GNU.sparse.realsize": str(size),
            }
        else:
            extents, stored = [(0, size)], size
        info.size = len(places) + stored
        self._header(info, records)
        self._out.write(places)
        for start, end in extents:
            while start < end:
                piece = data.pread(min(_CHUNK, end - start), start)
                if not piece:
                    raise oserror(errno.EIO, path, reason=f"it ends at byte {start} of {size}")
                self._out.write(piece)
                start += len(piece)
        self._out.write(bytes(-info.size % _BLOCK))

    def _header(self, info: tarfile.TarInfo, records: dict[str, str]) -> None:
        info.pax_headers = records
        self._out.write(info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape"))


def write_archive(path: str | os.PathLike[str], fill: Callable[[TarWriter], None]) -> None:
    """Write what `fill` adds to an archive at `path`, compressed if the name ends in .gz or .zst.

    The file is there when all is written and on the medium; until then what was at `path` stays.

    Raises:
        EOPNOTSUPP: .zst, and the package that writes it is not installed.
        OSError: as open(2) and write(2), and what `fill` raises.

    """
    name = os.fspath(path)
    with _replacing(name) as file, _compressing(file, name) as out:
        writer = TarWriter(out)
        fill(writer)
        writer.finish()


@contextmanager
def _replacing(path: str) -> Iterator[BinaryIO]:
    """Give a new file that takes the place of `path` if the block succeeds, and goes if it fails."""
    parent, name = os.path.split(path)
    temporary = os.path.join(parent, f".{name}.{os.urandom(4).hex()}.part")
    try:
        # Not a NamedTemporaryFile, whose mode no umask decides.
        with open(temporary, "xb") as file:
            try:
                yield file
                file.flush()
                os.fsync(file.fileno())
                file.close()
                os.replace(temporary, path)
            except BaseException:
                file.close()
                os.unlink(temporary)
                raise
    except OSError as error:
        if error.filename != temporary:
            raise
        raise OSError(error.errno, error.strerror, path) from error


@contextmanager
def _compressing(file: BinaryIO, path: str) -> Iterator[BinaryIO]:
    if path.endswith(".gz"):
        # Without name and time: the same tree makes the same bytes.
        with gzip.GzipFile("", "wb", 6, file, 0) as packed:
            yield cast(BinaryIO, packed)
    elif path.endswith(".zst"):
        with _zstd(path).ZstdCompressor().stream_writer(file, closefd=False) as packed:
            yield packed
    else:
        yield file


def _zstd(path: str) -> Any:
    try:
        import zstandard
    except ImportError:
        raise oserror(errno.EOPNOTSUPP, path, reason="install overlayvfs[zstd] to write .zst") from None
    return zstandard


def _times(info: tarfile.TarInfo, st: Stat) -> dict[str, str]:
    """Set the header's time; return the records for what it can't say."""
    records = {}
    seconds, rest = divmod(st.st_mtime_ns, _NS)
    if rest or seconds < 0:
        records["mtime"] = _decimal(st.st_mtime_ns)
    else:
        info.mtime = seconds
    if st.st_atime_ns != st.st_mtime_ns:
        records["atime"] = _decimal(st.st_atime_ns)
    return records


def _decimal(when_ns: int) -> str:
    seconds, rest = divmod(abs(when_ns), _NS)
    sign = "-" if when_ns < 0 else ""
    return f"{sign}{seconds}.{rest:09}".rstrip("0").rstrip(".")


def _extents(data: Data, size: int) -> Iterator[tuple[int, int]]:
    """Yield (start, end) of what is data and not hole."""
    at = 0
    while at < size:
        try:
            start = data.seek_extent(at, SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return
            raise
        at = min(data.seek_extent(start, SEEK_HOLE), size)
        if start < at:
            yield start, at


def _sparse_map(extents: list[tuple[int, int]], size: int) -> bytes:
    """Return the map of a sparse file, whole blocks; an empty extent at the end says where the file ends."""
    places = [*((start, end - start) for start, end in extents), (size, 0)]
    text = "".join(f"{number}\n" for number in (len(places), *(number for place in places for number in place)))
    return text.encode().ljust(-(-len(text) // _BLOCK) * _BLOCK, b"\0")
