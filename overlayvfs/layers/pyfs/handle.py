"""An open object of a plain PyFilesystem: it holds a node, and so finds the object under whatever name it has now."""

import errno
import stat
from typing import TYPE_CHECKING, BinaryIO

from overlayvfs.abi import SEEK_DATA, Stat, oserror
from overlayvfs.layers.pyfs import metadata
from overlayvfs.layers.pyfs.content import Content
from overlayvfs.layers.pyfs.nodes import Node

if TYPE_CHECKING:
    from overlayvfs.layers.pyfs.layer import PyFsLayer


class PyFsHandle:
    """A Handle (layers/base.py). What was removed without being a file keeps its last attributes, and only those."""

    def __init__(self, layer: "PyFsLayer", node: Node, *, writable: bool, file: BinaryIO | None = None) -> None:
        """Hold `node`; `file` is the backend's file, where one was made by opening it."""
        self._layer = layer
        self._tree = layer.tree
        self._lock = layer.lock
        self._node = node
        self._writable = writable
        self._closed = False
        self._tree.take_handle(node, writable=writable, file=file)

    def pread(self, size: int, offset: int) -> bytes:
        with self._lock:
            return self._content().pread(size, offset)

    def pwrite(self, data: bytes | memoryview, offset: int) -> int:
        with self._lock:
            self._check_writable()
            written = self._content().pwrite(data, offset)
            self._tree.stamp(self._node)
            return written

    def truncate(self, size: int) -> None:
        with self._lock:
            self._check_writable()
            self._content().truncate(size)
            self._tree.stamp(self._node)

    def seek_extent(self, offset: int, whence: int) -> int:
        # No PyFilesystem tells of holes: a file is one extent of data.
        size = self.stat().st_size
        if not 0 <= offset < size:
            raise oserror(errno.ENXIO)
        return offset if whence == SEEK_DATA else size

    def stat(self) -> Stat:
        with self._lock:
            last = self._node.last
            if self._node.parent is None and last is not None:
                return last
            return self._tree.found_of(self._node).stat

    def chmod(self, mode: int) -> None:
        with self._lock:
            metadata.set_mode(self._tree, self._tree.found_of(self._node), mode)

    def chown(self, uid: int, gid: int) -> None:
        with self._lock:
            metadata.set_owner(self._tree, self._tree.found_of(self._node), uid, gid)

    def utime(self, atime_ns: int, mtime_ns: int) -> None:
        with self._lock:
            metadata.set_times_of(self._tree, self._node, atime_ns, mtime_ns)

    def getxattr(self, name: str) -> bytes:
        with self._lock:
            return metadata.get_attribute(self._tree, self._node.path, self._kind(), name)

    def listxattr(self) -> list[str]:
        with self._lock:
            return metadata.list_attributes(self._tree, self._node.path, self._kind(), self._layer.marks)

    def setxattr(self, name: str, value: bytes, flags: int = 0) -> None:
        with self._lock:
            metadata.set_attribute(
                self._tree, self._tree.found_of(self._node), name, value, flags, self._layer.marks
            )

    def removexattr(self, name: str) -> None:
        with self._lock:
            metadata.remove_attribute(self._tree, self._tree.found_of(self._node), name, self._layer.marks)

    def sync(self) -> None:
        with self._lock:
            if self._node.content is not None:
                self._node.content.sync()

    def close(self) -> None:
        with self._lock:
            if not self._closed:
                self._closed = True
                self._tree.drop_handle(self._node)

    def _kind(self) -> int:
        """Return what kind the object is as to attributes: nothing holds any once it has no name."""
        return 0 if self._node.unlinked else self._node.kind

    def _check_writable(self) -> None:
        if not self._writable:
            raise oserror(errno.EBADF)

    def _content(self) -> Content:
        if self._closed:
            raise oserror(errno.EBADF)
        if self._node.content is None:
            raise oserror(errno.EISDIR if self._node.kind == stat.S_IFDIR else errno.EINVAL)
        return self._node.content
