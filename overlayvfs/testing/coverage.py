"""Coverage: which operations met which states, in the terms of the kernel's tables A and B.

States are read off the layers themselves, past the overlay, so that looking changes nothing in it. A name that is
reached through a redirect or a symlink, or is in no state of the tables, counts for nothing.
"""

import os
import stat
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from overlayvfs.testing.ops import Op
from overlayvfs.testing.snapshots import kind_of
from overlayvfs.testing.states import STATES

_NEVER_MOVED: Final = ("absent", "whiteout over lower file", "whiteout over lower dir")
_NOT_IN_B: Final = (
    "upper file over lower file",
    "upper hard link (x==y)",
    "lower dangling symlink",
    "upper symlink",
    "merged dir, empty",
)
TARGETS: Final = tuple(state for state in STATES if state not in _NOT_IN_B)
"""The columns of table B."""
SOURCES: Final = tuple(state for state in TARGETS if state not in _NEVER_MOVED)
"""The rows of table B."""


def _mknod_row(op: Op) -> str | None:
    return {stat.S_IFREG: "mknod S_IFREG", stat.S_IFIFO: "mknod S_IFIFO", stat.S_IFCHR: "mknod chr 0/0"}.get(
        stat.S_IFMT(op.args[1]) if len(op.args) < 3 or op.args[2] == 0 else 0
    )


def _open_row(op: Op) -> str | None:
    flags = op.args[1] & ~os.O_NONBLOCK
    if flags & (os.O_DIRECTORY | os.O_NOFOLLOW | os.O_PATH):
        return None
    if flags & os.O_CREAT:
        return "open O_CREAT|O_EXCL" if flags & os.O_EXCL else "open O_CREAT|O_RDWR"
    if flags & os.O_TRUNC:
        return "open O_RDONLY|O_TRUNC" if flags & os.O_ACCMODE == os.O_RDONLY else "open O_WRONLY|O_TRUNC"
    if flags & os.O_ACCMODE == os.O_RDONLY:
        return "open O_RDONLY"
    return "open O_WRONLY|O_APPEND, write 1" if flags & os.O_APPEND else "open O_WRONLY (no write)"


_ROWS: Final[dict[str, Callable[[Op], str | None]]] = {
    "unlink": lambda op: "unlink",
    "rmdir": lambda op: "rmdir",
    "mkdir": lambda op: "mkdir",
    "open": _open_row,
    "mknod": _mknod_row,
    "symlink": lambda op: "symlink",
    "truncate": lambda op: "truncate(2)",
    "chmod": lambda op: "chmod 0600",
    "lchown": lambda op: "lchown same owner",
    "utime": lambda op: "utime (no follow)",
    "setxattr": lambda op: "setxattr user.q (no follow)" if op.args[1] == "user.q" else None,
    "removexattr": lambda op: "removexattr user.k (no follow)" if op.args[1] == "user.k" else "removexattr absent name",
    "link": lambda op: "link x -> n",
    "rename": lambda op: "rename x -> n",
    "readlink": lambda op: "readlink",
    "listdir": lambda op: "listdir",
    "lstat": lambda op: "lstat (nlink)",
}

OPERATIONS: Final = (
    "unlink",
    "rmdir",
    "mkdir",
    "open O_CREAT|O_EXCL",
    "open O_CREAT|O_RDWR",
    "open O_RDONLY",
    "open O_WRONLY (no write)",
    "open O_RDONLY|O_TRUNC",
    "open O_WRONLY|O_TRUNC",
    "open O_WRONLY|O_APPEND, write 1",
    "mknod S_IFREG",
    "mknod S_IFIFO",
    "mknod chr 0/0",
    "symlink",
    "truncate(2)",
    "chmod 0600",
    "lchown same owner",
    "utime (no follow)",
    "setxattr user.q (no follow)",
    "removexattr user.k (no follow)",
    "removexattr absent name",
    "link x -> n",
    "rename x -> n",
    "readlink",
    "listdir",
    "lstat (nlink)",
)
"""The rows of table A."""


@dataclass(slots=True)
class Coverage:
    """How often each cell was hit: table A (operation, state), table B (source's state, target's state)."""

    a: Counter[tuple[str, str]] = field(default_factory=Counter)
    b: Counter[tuple[str, str]] = field(default_factory=Counter)

    def see(self, op: Op, layers: "Layers") -> None:
        """Count an operation that is about to be executed."""
        row = _ROWS[op.name](op) if op.name in _ROWS else None
        if row is None:
            return
        path = op.args[1] if op.name == "symlink" else op.args[0]
        state = layers.state(path) if isinstance(path, str) else None
        if state is None:
            return
        if op.name in ("link", "rename"):
            target = layers.state(op.args[1])
            if op.name == "rename" and path != op.args[1] and state in SOURCES and target in TARGETS:
                self.b[state, target] += 1
            if target != "absent":
                return
        self.a[row, state] += 1

    def update(self, other: "Coverage") -> None:
        """Count what another coverage counted."""
        self.a.update(other.a)
        self.b.update(other.b)

    def least(self) -> int:
        """Return how often the least-hit cell of both tables was hit."""
        return min(count for count, *_ in self._cells())

    def _cells(self) -> list[tuple[int, str, str, str]]:
        cells = [(self.a[row, state], "A", row, state) for row in OPERATIONS for state in STATES]
        cells += [(self.b[source, target], "B", source, target) for source in SOURCES for target in TARGETS]
        return cells

    def __str__(self) -> str:
        """Return both tables and the cells that were hit least."""
        lines = _table("A: operation x state", self.a, OPERATIONS, STATES)
        lines += _table("B: rename source x target", self.b, SOURCES, TARGETS)
        lines.append("least hit:")
        lines += [f"  {count:6} {table}: {row} x {column}" for count, table, row, column in sorted(self._cells())[:12]]
        return "\n".join(lines)


def _table(title: str, cells: Counter[tuple[str, str]], rows: Sequence[str], columns: Sequence[str]) -> list[str]:
    wide = max(len(row) for row in rows)
    lines = [title, " " * wide + "".join(f"{f'{number}.':>7}" for number in range(1, len(columns) + 1))]
    lines += [f"{row:{wide}}" + "".join(f"{cells[row, column]:7}" for column in columns) for row in rows]
    names = ", ".join(f"{number}. {column}" for number, column in enumerate(columns, 1))
    return [*lines, f"columns: {names}"]


class _InRedirect(Exception):
    """A name is reached through a redirect: the tables say nothing of it."""


class _Place(NamedTuple):
    """A directory: its path in the upper (None: not there) and the lowers merged in it, as (layer, path)."""

    upper: str | None
    lowers: tuple[tuple[int, str], ...]


class _Found(NamedTuple):
    """What a name is: its kind in the upper and in the lowers, and the place it is if it is a directory."""

    upper: str | None
    lower: str | None
    nlink: int
    place: _Place
    path: str
    """Where a lower's object is, in layer `layer`."""
    layer: int


class Layers:
    """The layers of an overlay as they are, past the overlay: what an os module shows of each below a root."""

    def __init__(self, upper: tuple[Any, str] | None, lowers: Sequence[tuple[Any, str]], prefix: str) -> None:
        self._upper = upper
        self._lowers = lowers
        self._prefix = prefix

    def state(self, path: str) -> str | None:
        """Return the state `path` is in, None if it is none of the tables'."""
        names = path.split("/")[1:]
        if not path.startswith("/") or any(name in ("", ".", "..") or len(os.fsencode(name)) > 255 for name in names):
            return None
        try:
            parent = self._walk(names[:-1])
            if parent is None:
                return None
            return self._named(self._look(parent, names[-1]), parent)
        except _InRedirect:
            return None

    def _walk(self, names: Sequence[str]) -> _Place | None:
        """Return the directory at the end of these names, None if there is none."""
        place = _Place("" if self._upper is not None else None, tuple((n, "") for n in range(len(self._lowers))))
        for name in names:
            found = self._look(place, name)
            if (found.upper or found.lower) != "dir":
                return None
            place = found.place
        return place

    def _look(self, place: _Place, name: str) -> _Found:
        lowers: list[tuple[int, str]] = []
        lower, nlink = None, 0
        at = "", -1
        for number, base in place.lowers:
            path = f"{base}/{name}"
            kind, links = self._kind(self._lowers[number], path)
            if kind is None:
                continue
            if kind == "whiteout" or (lower and kind != "dir"):
                break
            if lower is None:
                lower, nlink, at = kind, links, (path, number)
            if kind != "dir":
                break
            lowers.append((number, path))
            if self._is_opaque(self._lowers[number], path):
                break
        if self._upper is None or place.upper is None:
            return _Found(None, lower, nlink, _Place(None, tuple(lowers)), *at)
        path = f"{place.upper}/{name}"
        upper, links = self._kind(self._upper, path)
        if upper == "dir":
            merged = () if self._is_opaque(self._upper, path) else tuple(lowers)
            return _Found(upper, lower, links, _Place(path, merged), *at)
        return _Found(upper, lower, links if upper else nlink, _Place(None, tuple(lowers)), *at)

    def _kind(self, layer: tuple[Any, str], path: str) -> tuple[str | None, int]:
        osmod, root = layer
        try:
            st = osmod.lstat(root + path)
        except (FileNotFoundError, NotADirectoryError):
            return None, 0
        return kind_of(st), st.st_nlink

    def _is_opaque(self, layer: tuple[Any, str], path: str) -> bool:
        osmod, root = layer
        marks = osmod.listxattr(root + path, follow_symlinks=False)
        if self._prefix + "redirect" in marks:
            raise _InRedirect
        name = self._prefix + "opaque"
        return name in marks and osmod.getxattr(root + path, name, follow_symlinks=False) == b"y"

    def _named(self, found: _Found, parent: _Place) -> str | None:
        """Return the tables' name for what was found."""
        upper, lower = found.upper, found.lower
        if upper is None:
            return self._named_lower(found, parent)
        if upper == "whiteout":
            return {"file": "whiteout over lower file", "dir": "whiteout over lower dir"}.get(lower or "")
        if upper == "file" and lower == "dir":
            return "upper file over lower dir"
        if upper == "file" and found.nlink > 1:
            return "upper hard link (x==y)" if lower is None else None
        if upper == "file":
            return {None: "upper file", "file": "upper file over lower file"}.get(lower)
        if upper == "symlink":
            return "upper symlink" if lower is None else None
        return self._named_directory(found) if upper == "dir" else None

    def _named_lower(self, found: _Found, parent: _Place) -> str | None:
        match found.lower:
            case None:
                return "absent"
            case "file":
                return "lower hard link (x==y)" if found.nlink > 1 else "lower file"
            case "dir":
                return "lower dir, non-empty" if self._shows_a_name(found.place) else "lower dir, empty"
            case "symlink":
                target = self._target(found, parent)
                return {None: "lower dangling symlink", "file": "lower symlink to file"}.get(target)
            case _:
                return None

    def _named_directory(self, found: _Found) -> str | None:
        shows = self._shows_a_name(found.place)
        if found.lower is None:
            return "upper dir, non-empty" if shows else "upper dir, empty"
        if found.lower != "dir":
            return "upper dir over lower file" if found.lower == "file" else None
        if not found.place.lowers:
            return f"opaque dir over lower dir, {'non-empty' if shows else 'empty'}"
        if shows:
            return "merged dir, non-empty"
        return "merged dir, all whited out" if self._names(found.place) else "merged dir, empty"

    def _target(self, link: _Found, parent: _Place) -> str | None:
        """Return the kind of what a lower symlink points to, "elsewhere" where it does not point right beside it."""
        osmod, root = self._lowers[link.layer]
        target = osmod.readlink(root + link.path)
        if "/" in target or target in (".", ".."):
            return "elsewhere"
        found = self._look(parent, target)
        kind = found.upper or found.lower
        return None if kind == "whiteout" else kind

    def _names(self, place: _Place) -> set[str]:
        names: set[str] = set()
        for number, path in place.lowers:
            osmod, root = self._lowers[number]
            names.update(osmod.listdir(root + path))
        if place.upper is not None and self._upper is not None:
            osmod, root = self._upper
            names.update(osmod.listdir(root + place.upper))
        return names

    def _shows_a_name(self, place: _Place) -> bool:
        for name in self._names(place):
            try:
                found = self._look(place, name)
            except _InRedirect:
                return True
            if found.upper not in (None, "whiteout") or (found.upper is None and found.lower is not None):
                return True
        return False
