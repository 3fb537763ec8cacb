"""The plain body: layers that are ordinary PyFilesystems, which hold files, directories and times and nothing else.

What they can't hold is left out by name: arranging it or asking for it raises Unsupported, which skips the test.
"""

import errno
from typing import Any, Final

from overlayvfs.testing.bodies import EngineBox
from overlayvfs.testing.stacks import Stack
from overlayvfs.testing.trees import Directory, File, Node, Tree, Unsupported, Whiteout, normal

_REFUSALS: Final = (errno.EPERM, errno.EOPNOTSUPP, errno.EXDEV)
"""What it comes to that a layer can't hold something; the reason then names the layer."""

_LAYER_NAME: Final = "<memfs>"


class EngineOnPlain(EngineBox):
    """The engine over `fs.memoryfs.MemoryFS` layers: marks are `.wh.` names there."""

    name = "engine-pyfs"

    @property
    def keeps_origins(self) -> bool:
        """Tell that it does not: a plain file system has no file handles."""
        return False

    @property
    def acts_as_root(self) -> bool:
        """Tell that it does not: there is nobody to be."""
        return False

    @property
    def is_posix(self) -> bool:
        """Tell that it is not."""
        return False

    def _start(self, stack: Stack) -> None:
        if stack.options.get("index") in (True, "on"):
            raise Unsupported("a plain PyFilesystem can't hold the hard links an index is made of")
        super()._start(stack)

    def _os(self) -> Any:
        return PlainOs(super()._os())

    def _check_layout(self, separate: bool | None) -> None:
        if separate is False:
            raise Unsupported("plain PyFilesystems are file systems of their own")

    def _make_layer(self, tree: Tree) -> Any:
        from fs.memoryfs import MemoryFS

        # Not its root: that has no times to set.
        layer = MemoryFS().makedir("layer")
        nodes = normal(tree)
        for path, node in nodes.items():
            _make(layer, path, node)
        for path, node in reversed(nodes.items()):
            if not isinstance(node, Whiteout):
                layer.setinfo(path or "/", {"details": {"modified": node.mtime_ns / 10**9}})
        return layer

    def _inspect(self, layer: Any) -> tuple[Any, str]:
        from overlayvfs.engine.overlay import Overlay
        from overlayvfs.faces.osmod import OsModule
        from overlayvfs.layers.pyfs import PyFsLayer
        from overlayvfs.marks import TRUSTED

        return OsModule(Overlay.bare(PyFsLayer(layer, marks=TRUSTED))), ""


def _make(layer: Any, path: str, node: Node) -> None:
    parent, _, name = path.rpartition("/")
    if name.startswith(".wh."):
        raise Unsupported(f"{name!r} is a mark in a plain PyFilesystem")
    match node:
        case Whiteout() if node.is_plain():
            layer.touch(f"{parent}/.wh.{name}")
        case Directory() if Directory(marks=node.marks, mtime_ns=node.mtime_ns) == node:
            if path:
                layer.makedir(path)
            if node.marks.get("opaque") == b"y":
                layer.touch(f"{path}/.wh..wh..opq")
            elif node.marks:
                raise Unsupported(f"a plain PyFilesystem holds no marks like {sorted(node.marks)}")
        case File() if File(data=node.data, mtime_ns=node.mtime_ns) == node:
            layer.writebytes(path, node.data)
        case _:
            raise Unsupported(f"a plain PyFilesystem holds no {node!r}")


class PlainOs:
    """The overlay's os module; what is refused because a layer can't hold it is Unsupported, with the layer's words."""

    def __init__(self, osmod: Any) -> None:
        self._os = osmod

    def __getattr__(self, name: str) -> Any:
        """Return the overlay's constant or function."""
        here = getattr(self._os, name)
        if not callable(here) or isinstance(here, type):
            return here

        def call(*args: Any, **kwargs: Any) -> Any:
            try:
                return here(*args, **kwargs)
            except OSError as error:
                if error.errno in _REFUSALS and _LAYER_NAME in (error.strerror or ""):
                    raise Unsupported(f"a plain PyFilesystem refuses: {error}") from error
                raise

        return call
