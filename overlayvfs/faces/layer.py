"""The merged tree as a layer: what makes an overlay a lower of another (overlayfs.rst, "Nesting overlayfs mounts").

As an upper it would have to hold whiteouts, and a merged tree shows none; so it is a `Layer` and no `UpperLayer`.
"""

import errno
import stat
from collections.abc import Collection, Hashable, Sequence
from typing import Final

from overlayvfs import abi
from overlayvfs.abi import Dirent, Stat, StatVfs, oserror
from overlayvfs.engine.file import File
from overlayvfs.engine.overlay import Overlay
from overlayvfs.layers._readonly import ReadOnlyHandle
from overlayvfs.layers.base import Capabilities, Handle


class OverlayLayer:
    """A `Layer` over an open overlay, or over the directory `root` of it ("" is all of it).

    It acts with the mounter's rights, whoever calls that overlay at the time ("Permission model").
    """

    capabilities: Final = Capabilities()

    def __init__(self, overlay: Overlay, name: str, root: str = "") -> None:
        """Raise ENOENT or ENOTDIR unless `root` is a directory."""
        self.name = f"{name}{root}"
        self._overlay = overlay
        self._root = root
        with overlay.as_mounter():
            if not stat.S_ISDIR(overlay.stat(root or "/").st_mode):
                raise oserror(errno.ENOTDIR, root)

    def identity(self) -> Hashable:
        return self._overlay, self._root

    def ancestry(self) -> Sequence[Hashable]:
        names = self._root.split("/")
        return [(self._overlay, "/".join(names[:count])) for count in range(len(names), 0, -1)]

    def lstat(self, path: str) -> Stat:
        with self._overlay.as_mounter():
            return self._overlay.stat(self._at(path), follow=False)

    def names(self, path: str) -> Collection[str] | None:
        """Return None: what listing a merged directory costs depends on all that is below."""
        return None

    def listdir(self, path: str) -> list[Dirent]:
        with self._overlay.as_mounter():
            return self._overlay.listdir(self._at(path))

    def readlink(self, path: str) -> str:
        with self._overlay.as_mounter():
            return self._overlay.readlink(self._at(path))

    def getxattr(self, path: str, name: str) -> bytes:
        with self._overlay.as_mounter():
            return self._overlay.getxattr(self._at(path), name, follow=False)

    def listxattr(self, path: str) -> list[str]:
        with self._overlay.as_mounter():
            return self._overlay.listxattr(self._at(path), follow=False)

    def open(self, path: str, *, writable: bool = False) -> Handle:
        mode = self.lstat(path).st_mode
        if writable:
            raise oserror(errno.EISDIR if stat.S_ISDIR(mode) else errno.EROFS, path)
        if stat.S_ISREG(mode) or stat.S_ISDIR(mode):
            with self._overlay.as_mounter():
                return _FileHandle(self._overlay, self._overlay.open(self._at(path), abi.O_RDONLY | abi.O_NOFOLLOW))
        return _NodeHandle(self, path)

    def file_handle(self, path: str) -> bytes | None:
        """Return None: an overlay has file handles only with nfs_export, which is out of scope."""
        self.lstat(path)
        return None

    def find_handle(self, value: bytes, hint: str | None = None) -> Stat | None:
        return None

    def statvfs(self) -> StatVfs:
        with self._overlay.as_mounter():
            return self._overlay.statvfs(self._at(""))

    def close(self) -> None:
        """Do nothing: the overlay was given."""

    def _at(self, path: str) -> str:
        return f"{self._root}{path}" or "/"


class _FileHandle(ReadOnlyHandle):
    """A regular file or directory of the merged tree."""

    def __init__(self, overlay: Overlay, file: File) -> None:
        self._overlay = overlay
        self._file = file

    def pread(self, size: int, offset: int) -> bytes:
        return self._file.pread(size, offset)

    def seek_extent(self, offset: int, whence: int) -> int:
        return self._file.seek(offset, whence)

    def stat(self) -> Stat:
        return self._file.stat()

    def getxattr(self, name: str) -> bytes:
        with self._overlay.as_mounter():
            return self._file.getxattr(name)

    def listxattr(self) -> list[str]:
        with self._overlay.as_mounter():
            return self._file.listxattr()

    def close(self) -> None:
        self._file.close()


class _NodeHandle(ReadOnlyHandle):
    """A symlink, fifo, socket or device: nothing to open. Lowers don't change, so its path is as good as itself."""

    def __init__(self, layer: OverlayLayer, path: str) -> None:
        self._layer = layer
        self._path = path

    def pread(self, size: int, offset: int) -> bytes:
        raise oserror(errno.EINVAL, self._path)

    def seek_extent(self, offset: int, whence: int) -> int:
        raise oserror(errno.ESPIPE, self._path)

    def stat(self) -> Stat:
        return self._layer.lstat(self._path)

    def getxattr(self, name: str) -> bytes:
        return self._layer.getxattr(self._path, name)

    def listxattr(self) -> list[str]:
        return self._layer.listxattr(self._path)

    def close(self) -> None:
        """Do nothing: nothing is open."""
