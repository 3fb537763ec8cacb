"""Changing a backend so that one failing call leaves the tree before or the tree after.

PyFilesystem promises nothing about a call that fails: a directory may be there though `makedir` raised
(it ends with an `opendir`), a file in two places after `move`. So each step looks, when it fails, at
what came of it, and a change of several steps takes back those it did.
"""

import errno
import os
import stat
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import BinaryIO, Self, TypeVar

from overlayvfs.abi import Stat
from overlayvfs.layers.base import Torn
from overlayvfs.layers.pyfs.backend import Backend

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Kept:
    """What an upper's backend holds of what it is told; found out by trying (probe.py)."""

    modes: bool = False
    owners: bool = False
    times: bool = False
    dir_times: bool = False
    """Those of directories, too: FTP's MFMT is for files."""
    stamps_parents: bool = True
    """Making or removing a name changes its directory's mtime without being told to."""
    writes_in_place: bool = True
    """Files open for reading and writing at any offset, and others see at once what was written."""
    writes_at_once: bool = False
    """A file can be made by opening it, is there from then on, and closing it changes nothing any more."""


class Steps:
    """A change under way: at the end of the block it stands, and an exception takes it back.

    Every step is done when it returns and not done when it raises.

    Raises:
        Torn: a step could neither be finished nor taken back.

    """

    def __init__(self, backend: Backend, kept: Kept) -> None:
        self._backend = backend
        self._kept = kept
        self._undo: list[Callable[[], None]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None:
            return
        if self._backend.facts is not None:
            # What failed may have done part of its work.
            self._backend.facts.clear()
        if isinstance(error, Torn):
            return
        for undo in reversed(self._undo):
            try:
                undo()
            except OSError as failure:
                raise self._torn(str(failure.filename), f"{failure}, while taking back after {error}") from error

    def make_file(self, path: str) -> None:
        """Make an empty file. EEXIST: there is one."""
        self._make(self._backend.make_file, path)

    def open_new(self, path: str) -> BinaryIO:
        """Make an empty file and return it open for reading and writing. EEXIST: there is one."""
        return self._make(self._backend.open_new, path)

    def _make(self, make: Callable[[str], T], path: str) -> T:
        try:
            made = make(path)
        except OSError as failure:
            if failure.errno != errno.EEXIST and self._is_there(path, failure):
                self._take_back(self._backend.remove, path, failure)
            raise
        self._undo.append(lambda: self._remove(self._backend.remove, path))
        return made

    def put_mark(self, path: str) -> None:
        """Make a mark unless it is there."""
        with suppress(FileExistsError):
            self.make_file(path)

    def make_dir(self, path: str, mode: int | None = None) -> None:
        try:
            self._backend.make_dir(path, mode if self._kept.modes else None)
        except OSError as failure:
            if failure.errno != errno.EEXIST and self._is_there(path, failure):
                self._take_back(self._backend.remove_dir, path, failure)
            raise
        self._undo.append(lambda: self._remove(self._backend.remove_dir, path))

    def remove_mark(self, path: str) -> None:
        self._remove(self._backend.remove, path)
        self._undo.append(lambda: self._backend.make_file(path))

    def remove_dir(self, path: str, st: Stat) -> None:
        """Remove an empty directory with these attributes."""
        self._remove(self._backend.remove_dir, path)

        def undo() -> None:
            self._backend.make_dir(path, stat.S_IMODE(st.st_mode) if self._kept.modes else None)
            with suppress(OSError):
                self._keep(path, st)

        self._undo.append(undo)

    def remove_file(self, path: str) -> None:
        """Remove a file for good: it can't be taken back, so this is the last step."""
        self._remove(self._backend.remove, path)

    def move(self, src: str, dst: str, st: Stat) -> None:
        """Move the object with these attributes to a free name."""
        if stat.S_ISDIR(st.st_mode):
            self._move_dir(src, dst, st)
        else:
            self._move_file(src, dst)
            self._undo.append(lambda: self._move_file_back(src, dst, st))
            if not self._backend.moves_in_place:
                self._keep(dst, st)

    def _move_file_back(self, src: str, dst: str, st: Stat) -> None:
        self._move_file(dst, src)
        if not self._backend.moves_in_place:
            with suppress(OSError):
                self._keep(src, st)

    def _move_file(self, src: str, dst: str) -> None:
        try:
            self._backend.move_file(src, dst)
        except OSError as failure:
            has_arrived, has_stayed = self._is_there(dst, failure), self._is_there(src, failure)
            if has_arrived and has_stayed:
                # Copied, perhaps in part, and not yet removed.
                self._take_back(self._backend.remove, dst, failure)
            if has_stayed:
                raise
            if not has_arrived:
                raise self._torn(src, f"it is gone, and not at {dst}: {failure}") from failure

    def _move_dir(self, src: str, dst: str, st: Stat) -> None:
        if self._backend.moves_trees:
            self._backend.move_dir(src, dst)
            self._undo.append(lambda: self._backend.move_dir(dst, src))
            return
        directories = [("", st)]
        # With the backend's own permissions, which let it be filled; `_keep` gives it the right ones.
        self.make_dir(dst)
        # Grows while it is walked: parents before what is in them.
        for below, _ in directories:
            for name, child, _ in self._backend.scan(src + below):
                path = f"{below}/{name}"
                if stat.S_ISDIR(child.st_mode):
                    self.make_dir(dst + path)
                    directories.append((path, child))
                else:
                    self.move(src + path, dst + path, child)
        for below, child in reversed(directories):
            self._keep(dst + below, child)
            self.remove_dir(src + below, child)

    def _keep(self, path: str, st: Stat) -> None:
        """Give a moved object its attributes back, as far as the backend holds them."""
        if stat.S_ISLNK(st.st_mode):
            # PyFilesystem's setinfo follows symlinks.
            return
        if self._kept.owners:
            self._backend.set_owner(path, st.st_uid, st.st_gid)
        if self._kept.modes:
            self._backend.set_mode(path, stat.S_IMODE(st.st_mode))
        if self._kept.times:
            self._backend.set_times(path, st.st_atime_ns, st.st_mtime_ns)

    def _remove(self, remove: Callable[[str], None], path: str) -> None:
        try:
            remove(path)
        except OSError as failure:
            if self._is_there(path, failure):
                raise

    def _is_there(self, path: str, failure: OSError) -> bool:
        try:
            return self._backend.is_there(path)
        except OSError as second:
            raise self._torn(path, f"{second}, while looking what came of: {failure}") from failure

    def _take_back(self, remove: Callable[[str], None], path: str, failure: OSError) -> None:
        try:
            remove(path)
        except OSError as second:
            raise self._torn(path, f"{second}, while taking back after: {failure}") from failure

    def _torn(self, path: str, what: str) -> Torn:
        return Torn(errno.EIO, f"{os.strerror(errno.EIO)}: {self._backend.name}: half done: {what}", path)
