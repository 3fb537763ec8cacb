"""Snapshots: all that can be seen of a tree, as comparable values.

A snapshot maps paths ("" is the root) to entries. What differs between two runs of the same operations although they
did the same is normalised away: inode numbers become groups of names, time stamps made during the run become "fresh",
file handles become their presence. Sizes of directories and all of atime and ctime are left out.
"""

import errno
import os
import stat
from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

from overlayvfs.testing.trees import (
    FRESH,
    HANDLE,
    Directory,
    File,
    Hardlink,
    Node,
    Special,
    Symlink,
    Whiteout,
)

ANY_PLACE_MARKS: Final = ("uuid",)
"""Marks that say which mount wrote them, never what the tree is."""


class Entry(NamedTuple):
    """One name as seen; `group` is the first of all names of the object, `error` the errno where it can't be seen."""

    kind: str
    mode: int = 0
    uid: int = 0
    gid: int = 0
    size: int = 0
    nlink: int = 0
    data: bytes = b""
    target: str = ""
    rdev: int = 0
    mtime: int | str = 0
    xattrs: tuple[tuple[str, bytes], ...] = ()
    marks: tuple[tuple[str, bytes], ...] = ()
    group: str = ""
    error: str = ""


Snapshot = dict[str, Entry]


class Look(NamedTuple):
    """A merged tree, and under which inode number each name shows."""

    tree: Snapshot
    numbers: dict[str, int]


_KINDS: Final = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "dir",
    stat.S_IFLNK: "symlink",
    stat.S_IFCHR: "char",
    stat.S_IFBLK: "block",
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
}
_FORMATS: Final = {kind: number for number, kind in _KINDS.items()}


def kind_of(st: Any) -> str:
    """Return what `st` is in one word; a character device 0/0 is a "whiteout"."""
    kind = _KINDS[stat.S_IFMT(st.st_mode)]
    return "whiteout" if kind == "char" and st.st_rdev == 0 else kind


def seen_mtime(mtime_ns: int) -> int | str:
    """Return a time stamp, or "fresh" for one that was made during the run."""
    return "fresh" if mtime_ns >= FRESH else mtime_ns


def capture(osmod: Any, root: str, *, prefix: str | None = None) -> Snapshot:
    """Return all that `osmod` shows below `root`.

    With `prefix` the tree is a layer: attributes of that namespace are marks, whiteouts are entries. Without, it is a
    merged tree: a name that is listed but can't be looked up (ENOENT) is left out, as Linux lists whiteouts in
    directories of a single layer and the design says we don't.
    """
    snapshot: Snapshot = {}
    groups: dict[tuple[int, int], str] = {}
    waiting = [""]
    while waiting:
        path = waiting.pop()
        try:
            entry = _look(osmod, root, path, prefix, groups)
        except FileNotFoundError:
            continue
        except OSError as error:
            snapshot[path] = Entry("error", error=errno.errorcode[error.errno or 0])
            continue
        snapshot[path] = entry
        if entry.kind == "dir":
            # Popped from the end: names are met in order, so that a group is called by the first of them.
            try:
                names = osmod.listdir(root + path or "/")
            except OSError as error:
                # A directory that can be looked at but not read: an entry of it is stale (KB 2.10).
                snapshot[path] = entry._replace(error=errno.errorcode[error.errno or 0])
                continue
            waiting += sorted((f"{path}/{name}" for name in names), reverse=True)
    return snapshot


def look(osmod: Any) -> Look:
    """Return all that the merged tree of `osmod` shows, inode numbers included."""
    tree = capture(osmod, "")
    return Look(tree, {path: osmod.lstat(path or "/").st_ino for path, entry in tree.items() if not entry.error})


def _look(osmod: Any, root: str, path: str, prefix: str | None, groups: dict[tuple[int, int], str]) -> Entry:
    where = root + path or "/"
    st = osmod.lstat(where)
    kind = kind_of(st)
    xattrs, marks = _attributes(osmod, where, prefix)
    mode = stat.S_IMODE(st.st_mode)
    if kind == "whiteout":
        # Linux hard-links all whiteouts of a mount: number of names and times say nothing about this one.
        return Entry(kind, mode, st.st_uid, st.st_gid)
    group = path
    if kind != "dir" and st.st_nlink > 1:
        group = groups.setdefault((st.st_dev, st.st_ino), path)
    return Entry(
        kind,
        mode,
        st.st_uid,
        st.st_gid,
        st.st_size if kind == "file" else 0,
        st.st_nlink,
        _contents(osmod, where) if kind == "file" else b"",
        osmod.readlink(where) if kind == "symlink" else "",
        st.st_rdev if kind in ("char", "block") else 0,
        seen_mtime(st.st_mtime_ns),
        xattrs,
        marks if path else tuple(mark for mark in marks if mark[0] != "origin"),
        group,
    )


def _attributes(
    osmod: Any, where: str, prefix: str | None
) -> tuple[tuple[tuple[str, bytes], ...], tuple[tuple[str, bytes], ...]]:
    plain, marks = [], []
    for name in sorted(osmod.listxattr(where, follow_symlinks=False)):
        value = osmod.getxattr(where, name, follow_symlinks=False)
        if prefix is None or not name.startswith(prefix):
            plain.append((name, value))
        elif (short := name[len(prefix) :]) not in ANY_PLACE_MARKS:
            marks.append((short, HANDLE if short == "origin" and value[:2] == b"\0\xfb" else value))
    return tuple(plain), tuple(marks)


def _contents(osmod: Any, where: str) -> bytes:
    fd = osmod.open(where, os.O_RDONLY)
    try:
        pieces = []
        while piece := osmod.read(fd, 1 << 20):
            pieces.append(piece)
        return b"".join(pieces)
    finally:
        osmod.close(fd)


def without_marks(snapshot: Snapshot, names: Iterable[str]) -> Snapshot:
    """Return `snapshot` as if the named marks were not there."""
    left_out = frozenset(names)
    return {
        path: entry._replace(marks=tuple(mark for mark in entry.marks if mark[0] not in left_out))
        for path, entry in snapshot.items()
    }


def without_mtimes(snapshot: Snapshot) -> Snapshot:
    """Return `snapshot` as if no time stamp had been looked at."""
    return {path: entry._replace(mtime=0) for path, entry in snapshot.items()}


def nodes_of(snapshot: Snapshot) -> dict[str, Node]:
    """Return what `snapshot` shows as the nodes of a tree, for `trees.literal`. Times are left out.

    Raises:
        OSError: an entry that could not be looked at.

    """
    return {path: _node(path, entry) for path, entry in snapshot.items()}


def _node(path: str, entry: Entry) -> Node:
    if entry.kind == "error":
        raise OSError(getattr(errno, entry.error), f"{os.strerror(getattr(errno, entry.error))} in a snapshot", path)
    if entry.group and entry.group != path:
        return Hardlink(other=entry.group)
    attributes: dict[str, Any] = {
        "mode": entry.mode,
        "uid": entry.uid,
        "gid": entry.gid,
        "xattrs": dict(entry.xattrs),
        "marks": dict(entry.marks),
    }
    match entry.kind:
        case "file":
            return File(data=entry.data, **attributes)
        case "dir":
            return Directory(**attributes)
        case "symlink":
            return Symlink(target=entry.target, **attributes)
        case "whiteout":
            return Whiteout(**attributes)
        case _:
            return Special(kind=_FORMATS[entry.kind], rdev=entry.rdev, **attributes)


def differences(expected: Mapping[str, Entry], actual: Mapping[str, Entry]) -> list[str]:
    """Return one line per path that differs, naming the fields that do; empty if the two are equal."""
    lines = []
    for path in sorted({*expected, *actual}):
        left, right = expected.get(path), actual.get(path)
        if left == right:
            continue
        if left is None or right is None:
            lines.append(f"{path or '/'}: expected {_brief(left)}, found {_brief(right)}")
            continue
        pairs = zip(Entry._fields, left, right, strict=True)
        told = [f"{name} {want!r} -> {have!r}" for name, want, have in pairs if want != have]
        lines.append(f"{path or '/'} ({left.kind}): {', '.join(told)}")
    return lines


def _brief(entry: Entry | None) -> str:
    return "nothing" if entry is None else entry.error or entry.kind
