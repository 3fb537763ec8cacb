"""What scandir and walk of `ofs.os` are made of: entries and iterators in os's shape."""

import os
import posixpath
import stat
from collections.abc import Iterator

from overlayvfs.abi import Dirent
from overlayvfs.engine.overlay import Overlay
from overlayvfs.faces.stats import stat_result


class DirEntry:
    """One name of a directory, as os.DirEntry: it keeps what it was told, and asks only where that is not enough."""

    __slots__ = ("_entry", "_lstat", "_overlay", "_stat", "_where", "name", "path")

    def __init__(self, overlay: Overlay, folder: str, prefix: str, entry: Dirent) -> None:
        """`folder` is where the entry lies, `prefix` what its path is to begin with."""
        self._overlay = overlay
        self._entry = entry
        self._where = posixpath.join(folder, entry.d_name)
        self._stat: os.stat_result | None = None
        self._lstat: os.stat_result | None = None
        self.name = entry.d_name
        self.path = posixpath.join(prefix, entry.d_name)

    def __fspath__(self) -> str:
        return self.path

    def __repr__(self) -> str:
        return f"<DirEntry {self.name!r}>"

    def inode(self) -> int:
        return self._entry.d_ino

    def is_dir(self, *, follow_symlinks: bool = True) -> bool:
        return self._type(follow_symlinks) == stat.S_IFDIR

    def is_file(self, *, follow_symlinks: bool = True) -> bool:
        return self._type(follow_symlinks) == stat.S_IFREG

    def is_symlink(self) -> bool:
        return self._type(follow_symlinks=False) == stat.S_IFLNK

    def is_junction(self) -> bool:
        return False

    def stat(self, *, follow_symlinks: bool = True) -> os.stat_result:
        if self._lstat is None and not (follow_symlinks and self.is_symlink()):
            self._lstat = stat_result(self._overlay.stat(self._where, follow=False))
        if not follow_symlinks or not self.is_symlink():
            assert self._lstat is not None
            return self._lstat
        if self._stat is None:
            self._stat = stat_result(self._overlay.stat(self._where))
        return self._stat

    def _type(self, follow_symlinks: bool) -> int:
        """Return the S_IFMT part of the mode; 0 if the object is gone."""
        kind = self._entry.d_type
        if kind and not (follow_symlinks and kind == stat.S_IFLNK):
            return kind
        try:
            return stat.S_IFMT(self._overlay.stat(self._where, follow=follow_symlinks).st_mode)
        except FileNotFoundError:
            return 0


class ScandirIterator(Iterator[DirEntry]):
    """What scandir returns: an iterator that can be closed."""

    def __init__(self, entries: list[DirEntry]) -> None:
        self._entries = iter(entries)

    def __next__(self) -> DirEntry:
        return next(self._entries)

    def __enter__(self) -> "ScandirIterator":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the iteration."""
        self._entries = iter(())


def leads_to_dir(entry: DirEntry) -> bool:
    """Tell whether walk counts an entry among the directories; a symlink loop leads nowhere."""
    try:
        return entry.is_dir()
    except OSError:
        return False
