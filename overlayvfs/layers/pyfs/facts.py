"""What an upper's backend told, kept until this layer changes it: an upper is nobody else's while it is mounted.

A write into a plain MemoryFS asked six times whether names are there, 10 µs each, while the write itself takes 25.
Everything may be forgotten at any time: what isn't known is asked again.
"""

from collections.abc import Callable
from typing import Final

from overlayvfs.abi import Stat

_KEPT_MAX: Final = 100_000
_UNKNOWN: Final = Stat(*(0 for _ in Stat._fields))
"""Stands for what has to be asked."""


class _Directory(dict[str, Stat | None]):
    """What is known of the names in one directory; None for those that aren't there."""

    __slots__ = ("is_complete",)

    def __init__(self, *, is_complete: bool) -> None:
        self.is_complete = is_complete
        """This layer made it: what is not in here is not in the directory."""


class Facts:
    """Attributes and absence by the backend's paths."""

    __slots__ = ("_count", "_directories", "_stamps_parents")

    def __init__(self, *, stamps_parents: bool) -> None:
        """Know nothing. `stamps_parents`: a name made or removed changes its directory's attributes."""
        self._directories: dict[str, _Directory] = {}
        self._stamps_parents = stamps_parents
        self._count = 0

    def find(self, path: str, ask: Callable[[str], Stat | None]) -> Stat | None:
        """Return what `ask` told of `path` last, or tells now."""
        parent, _, name = path.rpartition("/")
        directory = self._directories.get(parent)
        if directory is None:
            directory = self._directories[parent] = _Directory(is_complete=False)
        told = directory.get(name, None if directory.is_complete else _UNKNOWN)
        if told is _UNKNOWN:
            told = directory[name] = ask(path)
            self._count += 1
            if self._count > _KEPT_MAX:
                self.clear()
        return told

    def forget(self, path: str) -> None:
        """Note that the attributes of an object change."""
        parent, _, name = path.rpartition("/")
        directory = self._directories.get(parent)
        if directory is not None:
            directory[name] = _UNKNOWN

    def forget_name(self, path: str) -> None:
        """Note that a name comes or goes."""
        self.forget(path)
        if self._stamps_parents:
            self.forget(path.rpartition("/")[0] or "/")

    def add_dir(self, path: str) -> None:
        """Note that a directory was made, empty."""
        self._directories[path] = _Directory(is_complete=True)

    def drop_dir(self, path: str) -> None:
        """Note that a directory goes."""
        self._directories.pop(path, None)

    def move_dir(self, src: str, dst: str) -> None:
        """Note that a directory was moved with all below it."""
        below = f"{src}/"
        for path in [path for path in self._directories if path == src or path.startswith(below)]:
            self._directories[dst + path[len(src) :]] = self._directories.pop(path)

    def clear(self) -> None:
        """Forget all."""
        self._directories.clear()
        self._count = 0
