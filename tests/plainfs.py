"""PyFilesystems to stand on: trees as a plain one holds them, and one that counts its calls and fails at will."""

import errno
import stat
from collections.abc import Callable
from io import BytesIO
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
