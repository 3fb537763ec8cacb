"""The model in the shape of the os module."""

import os
from collections.abc import Iterator
from typing import Any

from overlayvfs.testing.hostos import Listed
from overlayvfs.testing.model.attributecalls import AttributeCalls
from overlayvfs.testing.model.filecalls import FileCalls
from overlayvfs.testing.model.namecalls import NameCalls
from overlayvfs.testing.trees import Unsupported


class ModelOs(NameCalls, AttributeCalls, FileCalls):
    """The calls of Linux's os module that the model claims, by their names, and what os itself makes of them."""

    def __getattr__(self, name: str) -> Any:
        """Return the host's constant. Raises Unsupported for a function that the model leaves out."""
        here = getattr(os, name, None)
        if here is None or callable(here):
            raise Unsupported(f"the model has no {name}")
        return here

    remove = NameCalls.unlink
    replace = NameCalls.rename

    def makedirs(self, path: str, mode: int = 0o777, exist_ok: bool = False) -> None:
        """Make a directory and what is missing above it."""
        parent = os.path.dirname(path.rstrip("/"))
        if parent.strip("/") and not self.access(parent, os.F_OK):
            self.makedirs(parent, exist_ok=True)
        try:
            self.mkdir(path, mode)
        except FileExistsError:
            if not exist_ok:
                raise

    def scandir(self, path: str | int = "/") -> list[Listed]:
        """Read a directory to its end, by its path."""
        if isinstance(path, int):
            raise Unsupported("the model has no scandir of a descriptor")
        return [self._entry(path, name) for name in self.listdir(path)]

    def _entry(self, above: str, name: str) -> Listed:
        path = os.path.join(above, name)
        st = self.lstat(path)
        try:
            target_mode = self.stat(path).st_mode
        except OSError:
            # A symlink that leads nowhere.
            target_mode = 0
        return Listed(name, path, st.st_ino, st.st_mode, target_mode)

    def walk(self, top: str) -> Iterator[tuple[str, list[str], list[str]]]:
        """Yield what os.walk does, top down, symlinks not followed."""
        entries = self.scandir(top)
        names = [entry.name for entry in entries if entry.is_dir()]
        yield top, names, [entry.name for entry in entries if not entry.is_dir()]
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield from self.walk(os.path.join(top, entry.name))
