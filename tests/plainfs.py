"""PyFilesystems to stand on: trees as a plain one holds them, and one that counts its calls and fails at will.

`shown` and what follows it look at storage by other means than a layer's verbs (`outside`, in the conformance suite).
"""

import errno
import os
import stat
from collections.abc import Callable, Mapping
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import Any

from fs.base import FS
from fs.memoryfs import MemoryFS

from overlayvfs.testing.conformance import Node, Tree, node


def spelled(tree: Tree) -> dict[str, Node]:
    """Return a tree as a plain file system holds it: no links or devices, whiteouts as names."""
    plain: dict[str, Node] = {}
    for path, value in tree.items():
        one = node(value)
        if stat.S_ISCHR(one.mode) and one.rdev == 0:
            parent, _, name = path.rpartition("/")
            plain[f"{parent}/.wh.{name}"] = node("")
        elif one.link_to is None and (stat.S_ISREG(one.mode) or stat.S_ISDIR(one.mode)):
            plain[path] = one
    return plain


Stored = Mapping[str, bytes | None]
"""Path to a file's content, None for all that is no file."""


def shown(stored: Stored) -> dict[str, bytes | None]:
    """Return what a layer is to show of plain storage: whiteouts for `.wh.` names, and no name of its own."""
    names = {path: data for path, data in stored.items() if "/.wh." not in path}
    for path in stored:
        parent, _, name = path.rpartition("/")
        if name.startswith(".wh.") and "/.wh..wh." not in path:
            names.setdefault(f"{parent}/{name.removeprefix('.wh.')}", None)
    return names


def on_host(top: str | Path) -> dict[str, bytes | None]:
    """Return what a host directory holds."""
    held: dict[str, bytes | None] = {}
    for above, directories, files in os.walk(top):
        for name in directories + files:
            path = Path(above, name)
            held[f"/{path.relative_to(top)}"] = path.read_bytes() if stat.S_ISREG(path.lstat().st_mode) else None
    return held


def in_fs(fs: FS) -> dict[str, bytes | None]:
    """Return what a PyFilesystem holds."""
    return {path: None if info.is_dir else fs.readbytes(path) for path, info in fs.walk.info()}


def by_keys(objects: Mapping[str, bytes]) -> dict[str, bytes | None]:
    """Return what a bucket's keys tell: whatever is before a slash is a directory."""
    above = {f"/{path}": None for key in objects for path in PurePosixPath(f"{key}x").parents if path.name}
    return above | {f"/{key}": data for key, data in objects.items() if not key.endswith("/")}


class Flaky(MemoryFS):
    """A backend with PyFilesystem's own, many-step `move` and `movedir`, whose `fail_at`-th call fails.

    `late`: the call has done its work when it raises. Uploading fails half way.
    """

    move = FS.move
    movedir = FS.movedir
    create = FS.create

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[str] = []
        self.fail_at: range | None = None
        self.late = False

    def _call(self, name: str, *args: Any, **kwargs: Any) -> Any:
        self.calls.append(name)
        fails = self.fail_at is not None and len(self.calls) - 1 in self.fail_at
        if not fails:
            return getattr(super(), name)(*args, **kwargs)
        if name == "upload":
            path, file = args
            super().upload(path, BytesIO(file.read()[:1]))
        elif self.late:
            getattr(super(), name)(*args, **kwargs)
        raise ConnectionResetError(errno.ECONNRESET, f"call {len(self.calls)}, {name}, lost its connection")


def _counted(name: str) -> Callable[..., Any]:
    return lambda self, *args, **kwargs: self._call(name, *args, **kwargs)


for _name in ("getinfo", "listdir", "scandir", "makedir", "openbin", "remove", "removedir", "setinfo", "upload"):
    setattr(Flaky, _name, _counted(_name))
