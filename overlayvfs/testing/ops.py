"""Operations as data: one call of the os module, run against anything shaped like it, with an outcome to compare.

An `Op` names a function of `os` (or `renameat2`) and its arguments; descriptors are symbolic slots, so that the same
list of operations means the same to every implementation. A `Runner` executes them and normalises what they return:
identity becomes "the n-th object seen", fresh time stamps become "fresh", listings are sorted. An `Op` prints as the
line of a test that does the same.
"""

import errno
import os
import stat
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, NamedTuple

from overlayvfs.testing.snapshots import Look, Snapshot, kind_of, seen_mtime
from overlayvfs.testing.trees import Unsupported

NO_FD: Final = 1 << 29
"""A descriptor nobody has: EBADF everywhere (a negative one is a ValueError to some functions)."""


class Slot(NamedTuple):
    """The descriptor that an earlier operation of the same run put here; EBADF if it failed to."""

    number: int

    def __repr__(self) -> str:
        """Return the variable that holds the descriptor in a printed test."""
        return f"fd{self.number}"


class Op(NamedTuple):
    """One call: `name` of the os module, its arguments, and the slot that keeps a descriptor it returns."""

    name: str
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = {}
    slot: Slot | None = None

    def __repr__(self) -> str:
        """Return the call as it is typed in a test."""
        return as_source(self)


class Outcome(NamedTuple):
    """What an operation came to: a comparable value, or the errno's name (an exception's, if it was no OSError)."""

    value: Any = None
    error: str | None = None

    def __repr__(self) -> str:
        """Return the errno's name or the value."""
        return self.error or repr(self.value)


def call(name: str, *args: Any, slot: int | None = None, **kwargs: Any) -> Op:
    """Return the operation `os.name(*args, **kwargs)`, whose result goes to `slot` if one is given."""
    return Op(name, args, kwargs, None if slot is None else Slot(slot))


REMOUNT: Final = "remount"
"""The name of the operation that is none of `os`: see `remount`."""


class Remounted(NamedTuple):
    """What a remount showed: the tree before, the tree after, and the names whose inode number it changed."""

    before: Snapshot
    after: Snapshot
    renumbered: tuple[str, ...]


def remount(*, look: bool = False) -> Op:
    """Return the operation that unmounts and mounts again over the same layers, looking at either side if asked.

    It closes all descriptors. Whoever executes operations on something that can be mounted has to know it: see
    `over_remount`.
    """
    return Op(REMOUNT, (), {"look": look})


def over_remount(op: Op, look: Callable[[], Look], again: Callable[[], None]) -> Outcome:
    """Execute a remount: `again` unmounts and mounts."""
    if not op.kwargs["look"]:
        again()
        return Outcome()
    before = look()
    again()
    after = look()
    same = before.numbers.keys() & after.numbers.keys()
    renumbered = sorted(path for path in same if before.numbers[path] != after.numbers[path])
    return Outcome(Remounted(before.tree, after.tree, tuple(renumbered)))


class Runner:
    """Executes operations through `osmod`; remembers descriptors and which objects it has met."""

    def __init__(self, osmod: Any, *, identity: bool = True) -> None:
        """Tell which objects are the same, unless what is mounted changes on the way."""
        self._os = osmod
        self._identity = identity
        self._fds: dict[Slot, int] = {}
        self._met: dict[tuple[int, int], int] = {}

    def run(self, op: Op) -> Outcome:
        """Execute one operation. Also an error that no os function should raise is an outcome.

        Raises:
            Unsupported: the body can't have it.

        """
        if op.slot is not None:
            self._close(op.slot)
        args = [self._fds.get(arg, NO_FD) if isinstance(arg, Slot) else arg for arg in op.args]
        try:
            result = getattr(self._os, op.name)(*args, **op.kwargs)
        except Unsupported:
            raise
        except OSError as error:
            return Outcome(error=errno.errorcode.get(error.errno or 0, f"{type(error).__name__} without errno"))
        except Exception as error:  # noqa: BLE001 - a crash of the implementation is a difference to report, not ours
            return Outcome(error=f"{type(error).__name__}: {error}")
        if op.slot is not None:
            self._fds[op.slot] = result
            return Outcome("fd")
        if op.name == "close":
            self._fds = {slot: fd for slot, fd in self._fds.items() if fd != args[0]}
        return Outcome(self._comparable(op, result))

    def run_all(self, ops: Iterable[Op]) -> list[Outcome]:
        """Execute operations in order."""
        return [self.run(op) for op in ops]

    def descriptor(self, slot: Slot) -> int | None:
        """Return the descriptor a slot holds, None if there is none."""
        return self._fds.get(slot)

    def close(self) -> None:
        """Close every descriptor that is still open."""
        for slot in list(self._fds):
            self._close(slot)

    def _close(self, slot: Slot) -> None:
        fd = self._fds.pop(slot, None)
        if fd is not None:
            self._os.close(fd)

    def _comparable(self, op: Op, result: Any) -> Any:
        match op.name:
            case "stat" | "lstat" | "fstat":
                return self._seen_stat(result)
            case "listdir" | "listxattr":
                return sorted(result)
            case "scandir":
                return sorted((entry.name, _entry_kind(entry)) for entry in result)
            case "statvfs" | "fstatvfs":
                # How much room there is differs between any two file systems.
                return {"f_namemax": result.f_namemax, "read-only": bool(result.f_flag & os.ST_RDONLY)}
            case _:
                return result

    def _seen_stat(self, st: Any) -> dict[str, Any]:
        kind = kind_of(st)
        identity = (st.st_dev, st.st_ino)
        return {
            "kind": kind,
            "mode": f"{stat.S_IMODE(st.st_mode):o}",
            "nlink": st.st_nlink,
            "owner": (st.st_uid, st.st_gid),
            # A directory's size is its file system's business; a device number only a device's.
            "size": st.st_size if kind != "dir" else None,
            "rdev": st.st_rdev if kind in ("char", "block") else None,
            "mtime": seen_mtime(st.st_mtime_ns),
            "object": self._met.setdefault(identity, len(self._met)) if self._identity else None,
        }


def _entry_kind(entry: Any) -> str:
    if entry.is_symlink():
        return "symlink"
    if entry.is_dir(follow_symlinks=False):
        return "dir"
    return "file" if entry.is_file(follow_symlinks=False) else "special"


_FLAG_NAMES: Final = {
    "open": (1, ("O_CREAT", "O_EXCL", "O_TRUNC", "O_APPEND", "O_NOFOLLOW", "O_PATH", "O_TMPFILE", "O_DIRECTORY")),
    "setxattr": (3, ("XATTR_CREATE", "XATTR_REPLACE")),
    "access": (1, ("R_OK", "W_OK", "X_OK")),
}
_RENAME_NAMES: Final = {1: "RENAME_NOREPLACE", 2: "RENAME_EXCHANGE", 4: "RENAME_WHITEOUT"}
_MODE_ARGUMENTS: Final = {"open": 2, "mkdir": 1, "makedirs": 1, "chmod": 1, "fchmod": 1, "mknod": 1, "umask": 0}


def as_source(op: Op) -> str:
    """Return the line of a test that does what `op` does (`box` in scope, `errno`, `os` and `stat` imported)."""
    if op.name == REMOUNT:
        return "box.remount()"
    arguments = [_argument(op, index, value) for index, value in enumerate(op.args)]
    arguments += [f"{name}={value!r}" for name, value in op.kwargs.items()]
    line = f"box.os.{op.name}({', '.join(arguments)})"
    return line if op.slot is None else f"{op.slot!r} = {line}"


def _argument(op: Op, index: int, value: Any) -> str:
    if not isinstance(value, int):
        return repr(value)
    if op.name in _FLAG_NAMES and _FLAG_NAMES[op.name][0] == index:
        return _flags(value, _FLAG_NAMES[op.name][1], accmode=op.name == "open")
    if _MODE_ARGUMENTS.get(op.name) == index:
        return f"0o{value:o}"
    return str(value)


def _flags(value: int, names: tuple[str, ...], *, accmode: bool) -> str:
    words = []
    if accmode:
        modes = {os.O_RDONLY: "os.O_RDONLY", os.O_WRONLY: "os.O_WRONLY", os.O_RDWR: "os.O_RDWR"}
        words.append(modes.get(value & os.O_ACCMODE, "os.O_ACCMODE"))
        value &= ~os.O_ACCMODE
    for name in names:
        bits = getattr(os, name, 0)
        if bits and value & bits == bits:
            words.append(f"os.{name}")
            value &= ~bits
    if value or not words:
        words.append(str(value))
    return " | ".join(words)
