"""What a PyFilesystem tells of an object, as attributes: the `Info` namespaces, from the fullest to the barest.

Nothing told is believed to be well formed. What is not told is made up as a mount of vfat does: 0644
and 0755, root's, of no time.
"""

import math
import stat
from collections.abc import Collection, Mapping
from decimal import Decimal
from typing import Any, Final

from fs.enums import ResourceType
from fs.permissions import Permissions

from overlayvfs.abi import Stat, makedev

Raw = Mapping[str, Mapping[str, Any]]
"""`Info.raw`: namespace → key → value."""

EVERYTHING: Final = ("details", "access", "link", "stat", "lstat")

UNKNOWN_DEVICE: Final = makedev(0, 0xFFFFF)
"""The number of a device node whose number isn't told: anything but 0/0, which would make it a whiteout."""

_MAX: Final = (1 << 63) - 1
"""loff_t and ktime_t: what no size and no time exceeds."""

_KINDS: Final = {
    ResourceType.directory: stat.S_IFDIR,
    ResourceType.symlink: stat.S_IFLNK,
    ResourceType.character: stat.S_IFCHR,
    ResourceType.block_special_file: stat.S_IFBLK,
    ResourceType.fifo: stat.S_IFIFO,
    ResourceType.socket: stat.S_IFSOCK,
}


def wanted(offered: Collection[str]) -> tuple[str, ...]:
    """Return the fewest namespaces that tell all of an object, of those a backend offers.

    "stat" and "details" follow symlinks on an OSFS (and fail where they dangle), so "lstat" makes them needless.
    """
    if "lstat" in offered:
        return ("lstat", "link")
    if "stat" in offered:
        return ("details", "stat", "link")
    return ("details", "access", "link")


def target(raw: Raw) -> str | None:
    """Return a symlink's target; None where it is no symlink or the backend does not tell."""
    told = raw.get("link", {}).get("target")
    return told if isinstance(told, str) and told else None


def attributes(raw: Raw) -> Stat:
    """Return what is told; `st_ino` and `st_dev` are 0, and so is `st_ctime_ns` where it isn't told.

    Raises:
        ValueError, TypeError, ...: what is told is no number, or one no file can have.

    """
    full = raw.get("lstat")
    if full:
        return _from_stat(full, int(full["st_mode"]))
    told = raw.get("stat")
    kind = _kind(raw)
    if told:
        # "stat" is of what a symlink leads to: its size and mode are not the link's own.
        if kind == stat.S_IFLNK:
            return _link(raw)
        return _from_stat(told, kind | stat.S_IMODE(int(told["st_mode"])))
    return _link(raw) if kind == stat.S_IFLNK else _from_details(raw, kind)


def _kind(raw: Raw) -> int:
    if target(raw) is not None:
        return stat.S_IFLNK
    kind = _KINDS.get(raw.get("details", {}).get("type", 0))
    if kind is not None:
        return kind
    return stat.S_IFDIR if raw["basic"]["is_dir"] else stat.S_IFREG


def _link(raw: Raw) -> Stat:
    bare = _from_details(raw, stat.S_IFLNK)
    size = len((target(raw) or "").encode("utf-8", "surrogateescape"))
    return bare._replace(st_mode=stat.S_IFLNK | 0o777, st_size=size, st_blocks=0)


def _from_details(raw: Raw, kind: int) -> Stat:
    details, access = raw.get("details", {}), raw.get("access", {})
    permissions = access.get("permissions")
    if permissions is not None:
        mode = Permissions(names=permissions).mode
    else:
        mode = 0o755 if kind == stat.S_IFDIR else 0o644
    size = _count(details.get("size"))
    modified = details.get("modified")
    if modified is None:
        modified = details.get("created")
    accessed = details.get("accessed")
    mtime_ns = nanoseconds(modified)
    # By position: with names it takes twice as long.
    return Stat(
        kind | mode,
        0,
        0,
        _nlink(kind),
        _count(access.get("uid")),
        _count(access.get("gid")),
        size,
        mtime_ns if accessed is None else nanoseconds(accessed),
        mtime_ns,
        nanoseconds(details.get("metadata_changed")),
        -(-size // 512),
        UNKNOWN_DEVICE if kind in (stat.S_IFCHR, stat.S_IFBLK) else 0,
    )


def _from_stat(told: Mapping[str, Any], mode: int) -> Stat:
    size = _count(told.get("st_size"))
    is_device = stat.S_ISCHR(mode) or stat.S_ISBLK(mode)
    return Stat(
        st_mode=mode,
        st_ino=0,
        st_dev=0,
        st_nlink=_count(told.get("st_nlink")) or _nlink(stat.S_IFMT(mode)),
        st_uid=_count(told.get("st_uid")),
        st_gid=_count(told.get("st_gid")),
        st_size=size,
        st_atime_ns=_time(told, "st_atime"),
        st_mtime_ns=_time(told, "st_mtime"),
        st_ctime_ns=_time(told, "st_ctime"),
        st_blocks=_count(told.get("st_blocks", -(-size // 512))),
        st_rdev=int(told.get("st_rdev", UNKNOWN_DEVICE)) if is_device else 0,
    )


def _time(told: Mapping[str, Any], name: str) -> int:
    exact = told.get(f"{name}_ns")
    return nanoseconds(told.get(name)) if exact is None else int(exact)


def _nlink(kind: int) -> int:
    return 2 if kind == stat.S_IFDIR else 1


def _count(value: Any) -> int:
    number = int(value or 0)
    if not 0 <= number <= _MAX:
        raise ValueError(f"{value!r} where a size or number was expected")
    return number


def seconds(nanoseconds: int) -> float:
    """Return ns as the float PyFilesystem wants: `nanoseconds` of it is the same again, for whole microseconds."""
    # int / int is correctly rounded.
    nearest = nanoseconds / 10**9
    # os.utime cuts to ns: where a float is finer than that, one just above says what is meant.
    return math.nextafter(nearest, math.inf) if math.ulp(nearest) < 1e-10 else nearest


def nanoseconds(seconds: float | None) -> int:
    """Return seconds since the epoch in ns: what was written, not its binary expansion (0.1 is 100,000,000 ns)."""
    if not seconds:
        return 0
    written = repr(seconds)
    if "e" in written:
        number = int(Decimal(written).scaleb(9))
    else:
        # The same digits, in a third of the time.
        whole, _, fraction = written.partition(".")
        number = int(whole + fraction[:9].ljust(9, "0"))
    if abs(number) > _MAX:
        raise ValueError(f"{seconds!r} is no time")
    return number
