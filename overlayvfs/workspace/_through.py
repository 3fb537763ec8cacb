"""An upper seen through another object that passes every verb on: what wrappers of a layer start from.

A wrapper overrides the verbs it has something to say to. A verb that is not overridden costs one call more.
"""

from collections.abc import Collection, Hashable, Sequence

from overlayvfs.abi import Dirent, Stat, StatVfs
from overlayvfs.layers.base import Capabilities, Handle, Progress, UpperLayer


class ThroughHandle:
    """An open object of a `ThroughLayer`. Dropping the last reference closes it."""

    def __init__(self, layer: "ThroughLayer", inner: Handle) -> None:
        self.layer = layer
        self.inner = inner

    def __del__(self) -> None:
        self.close()

    def pread(self, size: int, offset: int) -> bytes:
        """Pass on; so does every verb of this class (base.Handle)."""
        return self.inner.pread(size, offset)

    def pwrite(self, data: bytes | memoryview, offset: int) -> int:
        """Pass on."""
        return self.inner.pwrite(data, offset)

    def truncate(self, size: int) -> None:
        """Pass on."""
        self.inner.truncate(size)

    def seek_extent(self, offset: int, whence: int) -> int:
        """Pass on."""
        return self.inner.seek_extent(offset, whence)

    def stat(self) -> Stat:
        """Pass on."""
        return self.inner.stat()

    def chmod(self, mode: int) -> None:
        """Pass on."""
        self.inner.chmod(mode)

    def chown(self, uid: int, gid: int) -> None:
        """Pass on."""
        self.inner.chown(uid, gid)

    def utime(self, atime_ns: int, mtime_ns: int) -> None:
        """Pass on."""
        self.inner.utime(atime_ns, mtime_ns)

    def getxattr(self, name: str) -> bytes:
        """Pass on."""
        return self.inner.getxattr(name)

    def setxattr(self, name: str, value: bytes, flags: int = 0) -> None:
        """Pass on."""
        self.inner.setxattr(name, value, flags)

    def removexattr(self, name: str) -> None:
        """Pass on."""
        self.inner.removexattr(name)

    def listxattr(self) -> list[str]:
        """Pass on."""
        return self.inner.listxattr()

    def sync(self) -> None:
        """Pass on."""
        self.inner.sync()

    def close(self) -> None:
        """Pass on."""
        self.inner.close()


class ThroughLayer:
    """An `UpperLayer` over another one: the same directory, so the same identity."""

    def __init__(self, inner: UpperLayer) -> None:
        self.inner = inner

    def opened(self, handle: Handle, path: str | None) -> ThroughHandle:
        """Return what stands for a handle just opened at `path`, None for a file without a name."""
        return ThroughHandle(self, handle)

    @property
    def name(self) -> str:
        """Pass on; so does every verb of this class that says no more (base.UpperLayer)."""
        return self.inner.name

    @property
    def capabilities(self) -> Capabilities:
        """Pass on."""
        return self.inner.capabilities

    def identity(self) -> Hashable:
        """Pass on."""
        return self.inner.identity()

    def ancestry(self) -> Sequence[Hashable]:
        """Pass on."""
        return self.inner.ancestry()

    def lstat(self, path: str) -> Stat:
        """Pass on."""
        return self.inner.lstat(path)

    def names(self, path: str) -> Collection[str] | None:
        """Pass on."""
        return self.inner.names(path)

    def listdir(self, path: str) -> list[Dirent]:
        """Pass on."""
        return self.inner.listdir(path)

    def readlink(self, path: str) -> str:
        """Pass on."""
        return self.inner.readlink(path)

    def getxattr(self, path: str, name: str) -> bytes:
        """Pass on."""
        return self.inner.getxattr(path, name)

    def listxattr(self, path: str) -> list[str]:
        """Pass on."""
        return self.inner.listxattr(path)

    def open(self, path: str, *, writable: bool = False) -> ThroughHandle:
        """Open what the layer below opens."""
        return self.opened(self.inner.open(path, writable=writable), path)

    def file_handle(self, path: str) -> bytes | None:
        """Pass on."""
        return self.inner.file_handle(path)

    def find_handle(self, value: bytes, hint: str | None = None) -> Stat | None:
        """Pass on."""
        return self.inner.find_handle(value, hint)

    def statvfs(self) -> StatVfs:
        """Pass on."""
        return self.inner.statvfs()

    def close(self) -> None:
        """Pass on."""
        self.inner.close()

    def prepare(self, *, index: bool) -> None:
        """Pass on."""
        self.inner.prepare(index=index)

    def release(self, *, keep_index: bool) -> None:
        """Pass on."""
        self.inner.release(keep_index=keep_index)

    def create(self, path: str, mode: int, uid: int, gid: int) -> ThroughHandle:
        """Make what the layer below makes."""
        return self.opened(self.inner.create(path, mode, uid, gid), path)

    def tmpfile(self, mode: int, uid: int, gid: int) -> ThroughHandle:
        """Make what the layer below makes."""
        return self.opened(self.inner.tmpfile(mode, uid, gid), None)

    def mkdir(self, path: str, mode: int, uid: int, gid: int) -> None:
        """Pass on."""
        self.inner.mkdir(path, mode, uid, gid)

    def mknod(self, path: str, mode: int, rdev: int, uid: int, gid: int) -> None:
        """Pass on."""
        self.inner.mknod(path, mode, rdev, uid, gid)

    def symlink(self, target: str, path: str, uid: int, gid: int) -> None:
        """Pass on."""
        self.inner.symlink(target, path, uid, gid)

    def link(self, src: str, dst: str) -> None:
        """Pass on."""
        self.inner.link(src, dst)

    def unlink(self, path: str) -> None:
        """Pass on."""
        self.inner.unlink(path)

    def rmdir(self, path: str) -> None:
        """Pass on."""
        self.inner.rmdir(path)

    def rename(self, src: str, dst: str, flags: int = 0) -> None:
        """Pass on."""
        self.inner.rename(src, dst, flags)

    def chmod(self, path: str, mode: int) -> None:
        """Pass on."""
        self.inner.chmod(path, mode)

    def chown(self, path: str, uid: int, gid: int) -> None:
        """Pass on."""
        self.inner.chown(path, uid, gid)

    def utime(self, path: str, atime_ns: int, mtime_ns: int) -> None:
        """Pass on."""
        self.inner.utime(path, atime_ns, mtime_ns)

    def setxattr(self, path: str, name: str, value: bytes, flags: int = 0) -> None:
        """Pass on."""
        self.inner.setxattr(path, name, value, flags)

    def removexattr(self, path: str, name: str) -> None:
        """Pass on."""
        self.inner.removexattr(path, name)

    def clone(self, src: Handle, dst: Handle, size: int, progress: Progress | None = None) -> bool:
        """Share blocks as the layer below does; only handles of this layer are seen through."""
        return self.inner.clone(self._below(src), self._below(dst), size, progress)

    def sync(self) -> None:
        """Pass on."""
        self.inner.sync()

    def _below(self, handle: Handle) -> Handle:
        return handle.inner if isinstance(handle, ThroughHandle) and handle.layer is self else handle
