"""The tree's attributes in other people's records: os.stat_result, os.statvfs_result, PyFilesystem's raw info."""

import os
import stat
from typing import Any

from fs.enums import ResourceType
from fs.permissions import Permissions

from overlayvfs.abi import Stat, StatVfs
from overlayvfs.engine.where import Where

_SECOND = 10**9

# 16 fields are everybody's; st_blksize, st_blocks and st_rdev follow wherever they exist at all.
_HAS_BLOCKS = hasattr(os.stat_result, "st_blocks")

_TYPES = {
    stat.S_IFDIR: ResourceType.directory,
    stat.S_IFREG: ResourceType.file,
    stat.S_IFLNK: ResourceType.symlink,
    stat.S_IFCHR: ResourceType.character,
    stat.S_IFBLK: ResourceType.block_special_file,
    stat.S_IFIFO: ResourceType.fifo,
    stat.S_IFSOCK: ResourceType.socket,
}

_TYPE_NUMBERS = {kind: int(resource) for kind, resource in _TYPES.items()}


def seconds(time_ns: int) -> float:
    """Return a time as os.stat gives it: nearest below what a float can hold of it."""
    whole, rest = divmod(time_ns, _SECOND)
    return whole + 1e-9 * rest


def nanoseconds(time_s: float) -> int:
    """Return a time in seconds as os.utime takes it: all digits a float has, rounded down."""
    whole = int(time_s // 1)
    return whole * _SECOND + int((time_s - whole) * _SECOND)


def stat_result(st: Stat) -> os.stat_result:
    """Return `st` as os.stat would, with every field this platform's os.stat_result has."""
    atime, mtime, ctime = st.st_atime_ns, st.st_mtime_ns, st.st_ctime_ns
    fields: tuple[Any, ...] = (
        *st[:7],
        *(atime // _SECOND, mtime // _SECOND, ctime // _SECOND),
        *(seconds(atime), seconds(mtime), seconds(ctime)),
        *(atime, mtime, ctime),
    )
    return os.stat_result((*fields, st.st_blksize, st.st_blocks, st.st_rdev) if _HAS_BLOCKS else fields)


def statvfs_result(st: StatVfs) -> Any:
    """Return `st` as os.statvfs would; as it is on a platform that has no os.statvfs_result."""
    kind = getattr(os, "statvfs_result", None)
    return st if kind is None else kind((*st, 0))


def basic(name: str, mode: int) -> dict[str, object]:
    """Return PyFilesystem's namespace "basic"."""
    return {"name": name, "is_dir": stat.S_ISDIR(mode)}


def details(st: Stat) -> dict[str, object]:
    """Return PyFilesystem's namespace "details"."""
    mode, _, _, _, _, _, size, atime, mtime, ctime, *_ = st
    # `seconds`, written out: this is made for every entry of a directory.
    return {
        "_write": ["accessed", "modified"],
        "type": _TYPE_NUMBERS.get(mode & 0o170000, 0),
        "size": size,
        "accessed": atime // _SECOND + 1e-9 * (atime % _SECOND),
        "modified": mtime // _SECOND + 1e-9 * (mtime % _SECOND),
        "metadata_changed": ctime // _SECOND + 1e-9 * (ctime % _SECOND),
        "created": None,
    }


def access(st: Stat) -> dict[str, object]:
    """Return PyFilesystem's namespace "access"; numbers only: the tree may be another machine's, with its own users."""
    return {
        "_write": ["permissions", "uid", "gid"],
        "permissions": Permissions(mode=stat.S_IMODE(st.st_mode)).dump(),
        "uid": st.st_uid,
        "gid": st.st_gid,
    }


def layers(found: Where) -> dict[str, object]:
    """Return the "overlay" namespace: roles ("the upper", "lower 1") of whose attributes and contents show, and why.

    `layers` has a role and what it holds for each layer that has something there, hidden ones included.
    """
    return {
        "metadata": None if found.metadata is None else found.metadata.role,
        "data": None if found.data is None else found.data.role,
        "layers": [(one.role, one.what) for one in found.layers],
        "lost": list(found.lost),
        "explain": found.explain,
    }


def fields(st: Stat) -> dict[str, object]:
    """Return PyFilesystem's namespaces "stat" and "lstat": what os.stat_result has, by name."""
    result = stat_result(st)
    return {name: getattr(result, name) for name in dir(result) if name.startswith("st_")}
