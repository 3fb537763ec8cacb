"""Read-only subtrees of an upper that can otherwise be written: EROFS at or below certain paths of the merged tree."""

import errno
import stat
from collections.abc import Iterable
from typing import Self

from overlayvfs.abi import RENAME_EXCHANGE, oserror
from overlayvfs.layers.base import INDEX, WORK, Handle, SnapshotLayer, UpperLayer
from overlayvfs.workspace._through import ThroughHandle, ThroughLayer


class ReadOnlySubtrees(ThroughLayer):
    """An upper that can't be changed at or below certain paths, nor be rid of them by what is done above: EROFS.

    Whoever holds the overlay itself may still roll it back. A host upper protected so can't be forked, since the copy
    would have to be written.
    """

    def __init__(self, inner: UpperLayer, paths: Iterable[str]) -> None:
        """Protect `paths`, of the merged tree (they need not be there)."""
        super().__init__(inner)
        self.paths = tuple("/" + path.strip("/") if path.strip("/") else "" for path in paths)

    def opened(self, handle: Handle, path: str | None) -> ThroughHandle:
        """Return a handle that can't change a protected object."""
        if path is None or not self._covers(path):
            return super().opened(handle, path)
        return ReadOnlyHandle(self, handle)

    def open(self, path: str, *, writable: bool = False) -> ThroughHandle:
        """Open. EROFS if `writable` and protected."""
        if writable:
            self._check(path)
        return super().open(path, writable=writable)

    def create(self, path: str, mode: int, uid: int, gid: int) -> ThroughHandle:
        """Make a file. EROFS."""
        self._check(path)
        return super().create(path, mode, uid, gid)

    def mkdir(self, path: str, mode: int, uid: int, gid: int) -> None:
        """Make a directory. EROFS."""
        self._check(path)
        super().mkdir(path, mode, uid, gid)

    def mknod(self, path: str, mode: int, rdev: int, uid: int, gid: int) -> None:
        """Make a device, fifo, socket or whiteout. EROFS."""
        self._check(path)
        super().mknod(path, mode, rdev, uid, gid)

    def symlink(self, target: str, path: str, uid: int, gid: int) -> None:
        """Make a symlink. EROFS."""
        self._check(path)
        super().symlink(target, path, uid, gid)

    def link(self, src: str, dst: str) -> None:
        """Give an object a second name. EROFS for either."""
        self._check(src, dst)
        super().link(src, dst)

    def unlink(self, path: str) -> None:
        """Remove a name. EROFS."""
        self._check(path)
        super().unlink(path)

    def rmdir(self, path: str) -> None:
        """Remove a directory. EROFS, also if a protected path lies in it."""
        self._check(path)
        self._check_holds_none(path)
        super().rmdir(path)

    def rename(self, src: str, dst: str, flags: int = 0) -> None:
        """Move. EROFS for either, and if a protected path lies in what is moved or replaced."""
        staged = src.startswith(WORK)
        if not (staged and flags == RENAME_EXCHANGE and self._is_dir(src) == self._is_dir(dst)):
            self._check(src, dst)
            # What is put aside shows nothing any more, and a directory copied up hides nothing.
            if not dst.startswith(WORK):
                self._check_holds_none(src)
                if not (staged and self._is_dir(src)):
                    self._check_holds_none(dst)
        # Else a rollback; or rmdir, which first swaps an empty copy in for a directory that shows nothing.
        super().rename(src, dst, flags)

    def _is_dir(self, path: str) -> bool:
        return stat.S_ISDIR(self.inner.lstat(path).st_mode)

    def chmod(self, path: str, mode: int) -> None:
        """Set permission bits. EROFS."""
        self._check(path)
        super().chmod(path, mode)

    def chown(self, path: str, uid: int, gid: int) -> None:
        """Set owner and group. EROFS."""
        self._check(path)
        super().chown(path, uid, gid)

    def utime(self, path: str, atime_ns: int, mtime_ns: int) -> None:
        """Set times. EROFS."""
        self._check(path)
        super().utime(path, atime_ns, mtime_ns)

    def setxattr(self, path: str, name: str, value: bytes, flags: int = 0) -> None:
        """Set an attribute. EROFS."""
        self._check(path)
        super().setxattr(path, name, value, flags)

    def removexattr(self, path: str, name: str) -> None:
        """Remove an attribute. EROFS."""
        self._check(path)
        super().removexattr(path, name)

    def _check(self, *paths: str) -> None:
        for path in paths:
            if self._covers(path):
                raise oserror(errno.EROFS, path, reason="this subtree is read-only")

    def _check_holds_none(self, path: str) -> None:
        for protected in self.paths:
            if protected.startswith(path + "/"):
                raise oserror(errno.EROFS, path, reason=f"{protected} in it is read-only")

    def _covers(self, path: str) -> bool:
        return not path.startswith((WORK, INDEX)) and any(
            path == protected or path.startswith(protected + "/") for protected in self.paths
        )


class SnapshotReadOnly(ReadOnlySubtrees):
    """Read-only subtrees of an upper that forks."""

    def snapshot(self) -> Self:
        """Return an independent layer equal to this one now, with the same subtrees protected."""
        assert isinstance(self.inner, SnapshotLayer)
        return type(self)(self.inner.snapshot(), self.paths)

    def version(self) -> object:
        """Return what the layer itself does."""
        assert isinstance(self.inner, SnapshotLayer)
        return self.inner.version()


class ReadOnlyHandle(ThroughHandle):
    """An open object that can't be changed: EROFS."""

    def pwrite(self, data: bytes | memoryview, offset: int) -> int:
        """Raise EBADF: nothing protected is open for writing."""
        raise oserror(errno.EBADF)

    def truncate(self, size: int) -> None:
        """Raise EBADF, as pwrite."""
        raise oserror(errno.EBADF)

    def chmod(self, mode: int) -> None:
        """Raise EROFS; so do the other four."""
        raise _read_only()

    def chown(self, uid: int, gid: int) -> None:
        """Raise EROFS."""
        raise _read_only()

    def utime(self, atime_ns: int, mtime_ns: int) -> None:
        """Raise EROFS."""
        raise _read_only()

    def setxattr(self, name: str, value: bytes, flags: int = 0) -> None:
        """Raise EROFS."""
        raise _read_only()

    def removexattr(self, name: str) -> None:
        """Raise EROFS."""
        raise _read_only()


def _read_only() -> OSError:
    return oserror(errno.EROFS, reason="this subtree is read-only")
