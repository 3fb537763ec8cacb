"""The entries of a tar archive, each checked, in the archive's order (POSIX pax, "ustar Interchange Format"; tar(5)).

Headers are decoded by the standard library's tarfile. What it forgives or leaves to its caller is
refused here: it takes a corrupt header in the middle for the end of the archive, reads whatever length
a header claims into memory, and keeps every header it has seen.
"""

import base64
import errno
import io
import re
import stat
import tarfile
from array import array
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, cast
from urllib.parse import unquote

from overlayvfs.abi import NAME_MAX, PATH_MAX, XATTR_SIZE_MAX, makedev, oserror
from overlayvfs.layers._seekable import Source

_BLOCK: Final = tarfile.BLOCKSIZE
_END: Final = bytes(_BLOCK)
_WINDOW: Final = 16384
_HEADERS_MAX: Final = 1 << 20
"""Bytes of headers one entry may have: pax records, long names, maps of sparse files."""
_INT64: Final = (1 << 63) - 1
_UINT32: Final = (1 << 32) - 1
_NS: Final = 1_000_000_000

_KINDS: Final[dict[bytes, int]] = {
    tarfile.REGTYPE: stat.S_IFREG,
    tarfile.AREGTYPE: stat.S_IFREG,
    tarfile.CONTTYPE: stat.S_IFREG,
    tarfile.GNUTYPE_SPARSE: stat.S_IFREG,
    tarfile.DIRTYPE: stat.S_IFDIR,
    tarfile.SYMTYPE: stat.S_IFLNK,
    tarfile.CHRTYPE: stat.S_IFCHR,
    tarfile.BLKTYPE: stat.S_IFBLK,
    tarfile.FIFOTYPE: stat.S_IFIFO,
}
_PAX_NUMBER: Final = re.compile(r"(-?)([0-9]{1,20})(?:\.([0-9]*))?")


class Extents:
    """Where a file's bytes are in the archive; what lies between is a hole. Rising and disjoint."""

    __slots__ = ("_at", "_ends", "_starts", "stored")

    def __init__(self) -> None:
        self.stored = 0
        self._starts = array("q")
        self._ends = array("q")
        self._at = array("q")

    def __len__(self) -> int:
        return len(self._starts)

    def append(self, start: int, end: int, at: int) -> None:
        """Add that the file's bytes `start` to `end` are at offset `at` of the archive."""
        self.stored += end - start
        self._starts.append(start)
        self._ends.append(end)
        self._at.append(at)

    def within(self, start: int, end: int) -> Iterator[tuple[int, int, int]]:
        """Yield (start, end, offset in the archive) of all data between two offsets of the file."""
        for i in range(max(bisect_right(self._starts, start) - 1, 0), len(self)):
            first, last = max(self._starts[i], start), min(self._ends[i], end)
            if self._starts[i] >= end:
                return
            if first < last:
                yield first, last, self._at[i] + first - self._starts[i]


@dataclass(slots=True)
class Entry:
    """What one entry says: the full `st_mode`, bytes, `_ns` integers."""

    name: str
    """As the archive spells it, for messages."""
    parts: Sequence[str]
    """The path's components below the root; none is "", "." or ".."."""
    mode: int = 0
    uid: int = 0
    gid: int = 0
    size: int = 0
    mtime_ns: int = 0
    atime_ns: int | None = None
    """None where the archive has none, as most."""
    rdev: int = 0
    offset: int = 0
    """Of the data in the archive, where `extents` is None."""
    target: str = ""
    link: Sequence[str] | None = None
    """The components of a hard link's other name; None for what is no hard link."""
    xattrs: Mapping[str, bytes] | None = None
    extents: Extents | None = None


def malformed(label: str, name: str, why: str) -> OSError:
    """Return the EINVAL that refuses the archive `label` for its entry `name`."""
    return oserror(errno.EINVAL, label, reason=f"entry {name!r}: {why}")


def read_entries(source: Source, label: str) -> Iterator[Entry]:
    """Yield every entry, in order. Memory: one entry's headers, at most 1 MiB.

    Raises:
        EINVAL: no tar archive, a corrupt header, or an entry that can't be placed in a tree.
        EIO: the archive ends in the middle of an entry or without the zero block that ends it.

    """
    reader = _HeaderReader(source)
    # Over an empty archive, since the constructor reads a header and errors would differ there.
    archive = tarfile.TarFile(fileobj=io.BytesIO(_END), encoding="utf-8", errors="surrogateescape")
    archive.fileobj = reader  # type: ignore[assignment]
    offset = 0
    last = ""
    while (block := reader.begin(offset)) != _END:
        if len(block) < _BLOCK:
            raise _truncated(label, offset, last) if offset else _no_archive(label)
        member = _next_member(archive, offset, last, label)
        # From the data on to the next header, the last block's padding included.
        room = archive.offset - member.offset_data
        if archive.offset <= offset or room < 0:
            raise malformed(label, member.name, "its size is negative")
        if archive.offset > source.size:
            raise _truncated(label, source.size, member.name)
        yield _entry(member, room, label)
        offset = archive.offset
        last = member.name


def _next_member(archive: tarfile.TarFile, offset: int, last: str, label: str) -> tarfile.TarInfo:
    archive.offset = offset
    assert archive.fileobj is not None
    archive.fileobj.seek(offset)
    try:
        return tarfile.TarInfo.fromtarfile(archive)
    # The last four are what a header of wild numbers brings about inside tarfile.
    except (tarfile.TarError, _TooLong, ValueError, OverflowError, IndexError, RecursionError) as error:
        if offset == 0 and isinstance(error, tarfile.TarError):
            raise _no_archive(label) from None
        where = f"after entry {last!r}" if last else "of the first entry"
        why = "too many headers" if isinstance(error, RecursionError) else str(error)
        raise oserror(errno.EINVAL, label, reason=f"corrupt header {where}, at byte {offset}: {why}") from None


def _no_archive(label: str) -> OSError:
    return oserror(errno.EINVAL, label, reason="it is no tar archive")


def _truncated(label: str, offset: int, last: str) -> OSError:
    return oserror(errno.EIO, label, reason=f"truncated archive: it ends at byte {offset}, in or after entry {last!r}")


class _TooLong(Exception):
    """An entry has more headers than are read into memory."""


class _HeaderReader:
    """The file object tarfile reads headers from: a window over the source, at most `_HEADERS_MAX` an entry."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._position = 0
        self._window = b""
        self._window_start = 0
        self._left = 0

    def begin(self, offset: int) -> bytes:
        """Return the block at `offset`, where an entry begins, and allow for its headers."""
        self._left = _HEADERS_MAX
        self._position = offset
        return self.read(_BLOCK)

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int) -> int:
        self._position = offset
        return offset

    def read(self, size: int) -> bytes:
        # tarfile passes on what a header claims, negative sizes included.
        if not 0 <= size <= self._left:
            raise _TooLong(f"its headers have more than {_HEADERS_MAX} bytes")
        self._left -= size
        start = self._position - self._window_start
        if not 0 <= start <= len(self._window) - size:
            self._window = self._source.pread(max(size, _WINDOW), self._position)
            self._window_start = self._position
            start = 0
        data = self._window[start : start + size]
        self._position += len(data)
        return data


def _entry(member: tarfile.TarInfo, room: int, label: str) -> Entry:
    name = member.name
    parts = _components(name, label, name)
    if member.type == tarfile.LNKTYPE:
        return Entry(name, parts, link=_components(member.linkname, label, name))
    kind = _KINDS.get(member.type)
    if kind is None:
        raise malformed(label, name, f"its type {member.type!r} is unknown")
    if not (0 <= member.uid <= _UINT32 and 0 <= member.gid <= _UINT32):
        raise malformed(label, name, f"its owner {member.uid}:{member.gid} is none")
    entry = Entry(name, parts, kind | stat.S_IMODE(member.mode), member.uid, member.gid)
    entry.mtime_ns = _clamped(int(member.mtime) * _NS)
    if member.pax_headers:
        exact = _time_ns(member, "mtime", label)
        entry.mtime_ns = entry.mtime_ns if exact is None else exact
        entry.atime_ns = _time_ns(member, "atime", label)
        _check_numbers(member, label)
        entry.xattrs = _xattrs(member, label)
    if kind == stat.S_IFREG:
        _describe_data(entry, member, room, label)
    elif kind == stat.S_IFLNK:
        entry.target = member.linkname
        if not entry.target or "\0" in entry.target or _length(entry.target) >= PATH_MAX:
            raise malformed(label, name, f"its target is empty, holds a NUL or has {PATH_MAX} bytes or more")
        entry.size = _length(entry.target)
    elif kind in (stat.S_IFCHR, stat.S_IFBLK):
        if not (0 <= member.devmajor <= _UINT32 and 0 <= member.devminor <= _UINT32):
            raise malformed(label, name, f"its device number {member.devmajor}:{member.devminor} is none")
        entry.rdev = makedev(member.devmajor, member.devminor)
    return entry


def _check_numbers(member: tarfile.TarInfo, label: str) -> None:
    # tarfile takes what is no number for 0: root's.
    for keyword in ("uid", "gid", "size"):
        if not _PAX_NUMBER.fullmatch(member.pax_headers.get(keyword, "0")):
            raise malformed(label, member.name, f"its {keyword} is no number")


def _length(text: str) -> int:
    return len(text.encode("utf-8", "surrogateescape"))


def _components(path: str, label: str, name: str) -> list[str]:
    """Return the components of a name below the root, "" and "." left out."""
    if "\0" in path:
        raise malformed(label, name, "a name holds a NUL")
    if len(path) * 4 >= PATH_MAX and _length(path) >= PATH_MAX:
        raise malformed(label, name[:NAME_MAX], f"a name has {PATH_MAX} bytes or more")
    parts = [part for part in path.split("/") if part not in ("", ".")]
    for part in parts:
        if part == "..":
            raise malformed(label, name, f"{path!r} leads out of the archive")
        if len(part) > NAME_MAX // 4 and _length(part) > NAME_MAX:
            raise malformed(label, name, f"a component of its name has more than {NAME_MAX} bytes")
    return parts


def _clamped(when: int) -> int:
    """Return a time as 64 bits of nanoseconds hold it (1677 to 2262)."""
    return max(-_INT64, min(when, _INT64))


def _time_ns(member: tarfile.TarInfo, keyword: str, label: str) -> int | None:
    """Return a time of the pax records as exact as the archive has it, None if it has none."""
    text = member.pax_headers.get(keyword)
    if text is None:
        return None
    match = _PAX_NUMBER.fullmatch(text)
    if match is None:
        raise malformed(label, member.name, f"its {keyword} {text[:40]!r} is no number")
    sign, seconds, fraction = match.groups(default="")
    when = int(seconds) * _NS + int(fraction[:9].ljust(9, "0"))
    return _clamped(-when if sign else when)


def _xattrs(member: tarfile.TarInfo, label: str) -> Mapping[str, bytes] | None:
    """Return the attributes in the spellings of star and GNU tar (SCHILY) and of bsdtar (LIBARCHIVE)."""
    found: dict[str, bytes] = {}
    for keyword, text in member.pax_headers.items():
        if keyword.startswith("SCHILY.xattr."):
            name = keyword.removeprefix("SCHILY.xattr.").replace("%3D", "=").replace("%25", "%")
            found[name] = text.encode("utf-8", "surrogateescape")
        elif keyword.startswith("LIBARCHIVE.xattr."):
            name = unquote(keyword.removeprefix("LIBARCHIVE.xattr."))
            try:
                # bsdtar leaves the padding out.
                value = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
            except ValueError:
                raise malformed(label, member.name, f"the value of its attribute {name!r} is no base64") from None
            found.setdefault(name, value)
        else:
            continue
        if not 0 < _length(name) <= NAME_MAX or "\0" in name or len(found[name]) > XATTR_SIZE_MAX:
            raise malformed(label, member.name, f"its attribute {name[:NAME_MAX]!r} is none Linux can hold")
    return found or None


def _describe_data(entry: Entry, member: tarfile.TarInfo, room: int, label: str) -> None:
    if not 0 <= member.size <= _INT64:
        raise malformed(label, entry.name, f"its size {member.size} is none")
    entry.size = member.size
    if not member.issparse():
        if member.size > room:
            raise malformed(label, entry.name, "it claims more data than it holds")
        entry.offset = member.offset_data
        return
    if "size" in member.pax_headers:
        # tarfile then looks for the next header in the wrong place: GNU tar writes it from 8 GiB of data on.
        raise malformed(label, entry.name, "a sparse file with 8 GiB of data or more can't be read")
    entry.extents = Extents()
    end = at = 0
    for start, length in cast(Sequence[tuple[int, int]], member.sparse):
        # Of no length are a hole at the end of the file and the unused places of GNU tar's old map.
        if not length:
            continue
        if length < 0 or start < end or start + length > entry.size or at + length > room:
            raise malformed(label, entry.name, "the map of its holes is none")
        entry.extents.append(start, start + length, member.offset_data + at)
        end = start + length
        at += length
