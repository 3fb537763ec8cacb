"""What a generator of operations believes the merged tree and the descriptors to be.

Good enough to aim operations so that most of them succeed; never what an overlay is judged by: redirects are left
aside, and what a belief is wrong about simply fails on both sides.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass

from overlayvfs.testing.ops import REMOUNT, Op, Outcome, Slot
from overlayvfs.testing.stacks import Stack
from overlayvfs.testing.trees import Directory, File, Hardlink, Symlink, Tree, Whiteout, normal


@dataclass(slots=True)
class Name:
    """One name: "dir", "file", "symlink" or "special"; `own` is a directory that the upper alone makes up."""

    kind: str
    own: bool
    attributes: set[str]


class Names:
    """The names of the merged tree. The root, which is always there, is ""."""

    def __init__(self, stack: Stack) -> None:
        self._names: dict[str, Name] = {"": Name("dir", False, set())}
        for tree in reversed(stack.shown):
            self._cover(tree, own=False)
        if stack.upper is not None:
            self._cover(stack.upper, own=True)

    def _cover(self, tree: Tree, *, own: bool) -> None:
        """Put a layer on top of those below."""
        for path, node in normal(tree).items():
            if not path:
                continue
            below = self._names.get(path)
            if not isinstance(node, Directory) or node.marks.get("opaque") == b"y" or (below and below.kind != "dir"):
                self.forget(path)
                below = None
            match node:
                case Whiteout():
                    continue
                case Directory():
                    kind = "dir"
                case File() | Hardlink():
                    kind = "file"
                case Symlink():
                    kind = "symlink"
                case _:
                    kind = "special"
            self._names[path] = Name(kind, own and below is None, set(node.xattrs))

    def paths(self, *kinds: str) -> list[str]:
        """Return the names of these kinds (of all, if none are named) without the root."""
        return [path for path, name in self._names.items() if path and (not kinds or name.kind in kinds)]

    def directories(self) -> list[str]:
        """Return all directories, the root included."""
        return [path for path, name in self._names.items() if name.kind == "dir"]

    def empty_directories(self) -> list[str]:
        """Return the directories without names."""
        crowded = {path.rpartition("/")[0] for path in self._names if path}
        return [path for path in self.paths("dir") if path not in crowded]

    def movable_directories(self) -> list[str]:
        """Return the directories that rename(2) moves without a redirect."""
        return [path for path in self.paths("dir") if self._names[path].own]

    def attributed(self) -> list[tuple[str, str]]:
        """Return (path, name) of every extended attribute."""
        return [(path, one) for path, name in self._names.items() for one in sorted(name.attributes)]

    def kind(self, path: str) -> str | None:
        """Return the kind of a name, None if nothing is there."""
        name = self._names.get(path)
        return None if name is None else name.kind

    def learn(self, op: Op, outcome: Outcome) -> None:
        """Take note of what an operation did."""
        paths = [arg.rstrip("/") for arg in op.args if isinstance(arg, str)]
        if outcome.error is not None:
            if outcome.error == "ENOENT" and paths:
                self.forget(paths[0])
            return
        match op.name:
            case "unlink" | "rmdir":
                self.forget(paths[0])
            case "mkdir":
                self._add(paths[0], "dir", own=True)
            case "mknod":
                self._add(paths[0], "file" if op.args[1] & 0o170000 == 0o100000 else "special")
            case "symlink":
                self._add(paths[1], "symlink")
            case "link":
                self._add(paths[1], self.kind(paths[0]) or "file")
            case "open" if op.args[1] & os.O_CREAT:
                self._names.setdefault(paths[0], Name("file", True, set()))
            case "setxattr" if paths[0] in self._names:
                self._names[paths[0]].attributes.add(op.args[1])
            case "removexattr" if paths[0] in self._names:
                self._names[paths[0]].attributes.discard(op.args[1])
            case "rename" | "renameat2" if paths[0] != paths[1]:
                self._move(paths[0], paths[1], exchange=op.name == "renameat2" and op.args[2] == 2)

    def forget(self, path: str) -> None:
        """Take a name and all below it out."""
        if path:
            self._names = {one: name for one, name in self._names.items() if not _at_or_below(one, path)}

    def _add(self, path: str, kind: str, *, own: bool = True) -> None:
        self._names[path] = Name(kind, own, set())

    def _move(self, old: str, new: str, *, exchange: bool) -> None:
        moved = dict(self._moved(old, new))
        back = dict(self._moved(new, old)) if exchange else {}
        self.forget(old)
        self.forget(new)
        self._names |= moved | back

    def _moved(self, old: str, new: str) -> Iterator[tuple[str, Name]]:
        for one, name in self._names.items():
            if _at_or_below(one, old):
                yield new + one[len(old) :], name


def _at_or_below(path: str, top: str) -> bool:
    return path == top or path.startswith(top + "/")


class Descriptors:
    """Which slots hold an open descriptor, and what for."""

    def __init__(self) -> None:
        self._flags: dict[Slot, tuple[int, bool]] = {}

    def learn(self, op: Op, outcome: Outcome, names: Names) -> None:
        """Take note of what an operation did."""
        if op.name == REMOUNT:
            self._flags.clear()
        elif op.slot is not None:
            # Opening closes what the slot held before, also where it fails.
            self._flags.pop(op.slot, None)
            if outcome.error is None:
                path = op.args[0].rstrip("/")
                is_dir = bool(op.args[1] & os.O_DIRECTORY) or names.kind(path) == "dir"
                self._flags[op.slot] = op.args[1], is_dir
        elif op.name == "close" and outcome.error is None:
            self._flags.pop(op.args[0], None)

    def all(self) -> list[Slot]:
        """Return the slots that hold a descriptor."""
        return list(self._flags)

    def files(self, *, reads: bool = False, writes: bool = False) -> list[Slot]:
        """Return the slots that hold a regular file, open for this."""
        return [slot for slot, (flags, is_dir) in self._flags.items() if not is_dir and _allows(flags, reads, writes)]

    def directories(self) -> list[Slot]:
        """Return the slots that hold a directory."""
        return [slot for slot, (flags, is_dir) in self._flags.items() if is_dir and not flags & os.O_PATH]


def _allows(flags: int, reads: bool, writes: bool) -> bool:
    mode = flags & os.O_ACCMODE
    if flags & os.O_PATH and (reads or writes):
        return False
    return not (reads and mode == os.O_WRONLY) and not (writes and mode == os.O_RDONLY)
