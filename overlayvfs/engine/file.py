"""Open files (fs/overlayfs/file.c; KB 13): a position and a way to an inode or a directory.

Every access goes through the inode's present handle, so a descriptor opened before a copy up sees
what was written after it.
"""

import errno
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from overlayvfs.abi import (
    O_ACCMODE,
    O_APPEND,
    O_PATH,
    O_RDONLY,
    O_RDWR,
    O_WRONLY,
    SEEK_DATA,
    SEEK_HOLE,
    Dirent,
    Stat,
    oserror,
)
from overlayvfs.engine import xattr
from overlayvfs.engine.attr import drop_set_ids, resize
from overlayvfs.engine.copy_up import copy_up
from overlayvfs.engine.dentry import Dentry
from overlayvfs.engine.inode import Inode, attributes, mapped, real
from overlayvfs.engine.mount import Mount
from overlayvfs.engine.namecache import LeftOut
from overlayvfs.engine.permission import (
    check_chmod,
    check_chown,
    check_utime,
    mode_after_chown,
)
from overlayvfs.engine.readdir import list_dir
from overlayvfs.layers.base import Handle, Torn

_DOTS: Final = 2
"""How many names come before all others: "." and ".."."""


class File:
    """An open file description: what dup(2) shares. Regular files have an inode, all else goes by its dentry."""

    __slots__ = ("__weakref__", "_left_out", "_listing", "_mnt", "closed", "dentry", "flags", "inode", "position")

    def __init__(self, mnt: Mount, dentry: Dentry, flags: int, inode: Inode | None) -> None:
        self._mnt = mnt
        self.dentry = dentry
        self.flags = flags
        self.inode = inode
        self.position = 0
        self.closed = False
        self._listing: list[Dirent] | None = None
        self._left_out: LeftOut | None = None
        dentry.pins += 1
        if inode is None:
            dentry.descriptors += 1

    def __del__(self) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the object; idempotent."""
        if self.closed:
            return
        self.closed = True
        with self._mnt.lock:
            self.dentry.pins -= 1
            if self.inode is not None:
                self.inode.release()
                return
            self._keep(None)
            self.dentry.descriptors -= 1
            if self.dentry.descriptors == 0 and self.dentry.ghost is not None:
                self.dentry.ghost.close()
                self.dentry.ghost = None

    def is_dir(self) -> bool:
        """Tell whether this is a directory's descriptor."""
        return self.dentry.is_dir

    def read(self, size: int) -> bytes:
        """Return up to `size` bytes and move on. EBADF (not open for reading) EISDIR."""
        with self._mnt.lock:
            data = self._readable().data.pread(size, self.position)
            self.position += len(data)
            return data

    def pread(self, size: int, offset: int) -> bytes:
        """Return up to `size` bytes from `offset`. EINVAL (negative) EBADF EISDIR."""
        if offset < 0:
            raise oserror(errno.EINVAL)
        with self._mnt.lock:
            return self._readable().data.pread(size, offset)

    def write(self, data: bytes | memoryview) -> int:
        """Write at the position (O_APPEND: at the end) and move on; the bytes written. EBADF ENOSPC."""
        with self._mnt.lock:
            inode = self._writable()
            if self.flags & O_APPEND and len(data):
                self.position = inode.data.stat().st_size
            written = self._pwrite(inode, data, self.position)
            self.position += written
            return written

    def pwrite(self, data: bytes | memoryview, offset: int) -> int:
        """Write at `offset` (O_APPEND: at the end, as Linux does). EINVAL (negative) EBADF ENOSPC."""
        if offset < 0:
            raise oserror(errno.EINVAL)
        with self._mnt.lock:
            inode = self._writable()
            return self._pwrite(inode, data, inode.data.stat().st_size if self.flags & O_APPEND else offset)

    def _pwrite(self, inode: Inode, data: bytes | memoryview, offset: int) -> int:
        if not len(data):
            return 0
        try:
            written = inode.data.pwrite(data, offset)
        except OSError as error:
            self._mnt.report("write", (self.dentry.path or "/",), error)
            raise
        drop_set_ids(self._mnt, inode.data)
        if self._mnt.watchers:
            self._mnt.report("write", (self.dentry.path or "/",), None, written)
        return written

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Set the position; the new one.

        A directory knows only its beginning (a rewind: what is read then is current) and where it is.

        Raises:
            EBADF: O_PATH, or closed.
            EINVAL: unknown whence, or before the start.
            ENXIO: SEEK_DATA or SEEK_HOLE past the end.

        """
        with self._mnt.lock:
            self._check_open()
            if self.inode is None:
                return self._seek_dir(offset, whence)
            if whence in (SEEK_DATA, SEEK_HOLE):
                position = self.inode.data.seek_extent(offset, whence)
            elif whence in (os.SEEK_SET, os.SEEK_CUR, os.SEEK_END):
                base = {os.SEEK_SET: 0, os.SEEK_CUR: self.position}.get(whence)
                position = (self.inode.data.stat().st_size if base is None else base) + offset
            else:
                raise oserror(errno.EINVAL)
            if position < 0:
                raise oserror(errno.EINVAL)
            self.position = position
            return position

    def _seek_dir(self, offset: int, whence: int) -> int:
        if whence == os.SEEK_CUR:
            offset += self.position
        elif whence != os.SEEK_SET:
            raise oserror(errno.EINVAL)
        if offset < 0:
            raise oserror(errno.EINVAL)
        if offset == 0:
            self._listing = None
        self.position = offset
        return offset

    def truncate(self, size: int) -> None:
        """Set the file's size. EINVAL (negative, or not open for writing) EBADF (O_PATH)."""
        with self._change("truncate"):
            self._check_open()
            if size < 0 or self.inode is None or not self._may_write:
                raise oserror(errno.EINVAL)
            self._mnt.writable_upper()
            resize(self._mnt, self.inode.data, size)

    def listdir(self) -> list[Dirent]:
        """Return the directory's names from the position on, as they were at the first call since open or rewind.

        In a merged directory positions count names, "." and ".." included. In one of a single layer they are that
        layer's own affair, and none but the beginning is known here.

        Raises:
            EBADF: closed.
            ENOTDIR: no directory, asked by fdopendir(3) even of O_PATH.
            EBADF: O_PATH.

        """
        with self._mnt.lock:
            self._check_not_closed()
            if not self.dentry.is_dir:
                raise oserror(errno.ENOTDIR)
            self._check_open()
            if self._listing is None:
                self._listing = self._list()
            return self._listing[max(self.position - _DOTS, 0) :] if self.dentry.is_merged else self._listing

    def _list(self) -> list[Dirent]:
        left_out = self._mnt.names.left_out.get(self.dentry) or LeftOut()
        try:
            return list_dir(self._mnt, self.dentry, left_out)
        finally:
            self._keep(left_out if left_out.names else None)

    def _keep(self, left_out: LeftOut | None) -> None:
        names = self._mnt.names
        if left_out is not None:
            names.keep(self.dentry, left_out)
        if self._left_out is not None:
            names.release(self.dentry, self._left_out)
        self._left_out = left_out

    def stat(self) -> Stat:
        """Return the object's attributes, also after its name went. EBADF."""
        with self._mnt.lock:
            self._check_not_closed()
            if self.inode is None:
                return attributes(self._mnt, self.dentry)
            return mapped(self._mnt, self.inode.dentry, self.inode.handle.stat())

    def chmod(self, mode: int) -> None:
        """Set the permission bits. EBADF (O_PATH) EROFS EPERM EEXIST (KB 13.8)."""
        with self._change("chmod"):
            self._check_open()
            self._mnt.writable_upper()
            mode = check_chmod(self._mnt, self.stat(), mode)
            with self._changeable() as handle:
                handle.chmod(mode)

    def chown(self, uid: int, gid: int) -> None:
        """Set owner and group. EBADF EROFS EPERM EEXIST."""
        with self._change("chown"):
            self._check_open()
            self._mnt.writable_upper()
            st = self.stat()
            check_chown(self._mnt, st, uid, gid)
            mode = mode_after_chown(self._mnt.credentials, st)
            with self._changeable() as handle:
                if mode is not None:
                    handle.chmod(mode)
                handle.chown(uid, gid)

    def utime(self, times_ns: tuple[int, int] | None) -> None:
        """Set atime and mtime, to the present if None. EBADF EROFS EPERM EACCES EEXIST."""
        with self._change("utime"):
            self._check_open()
            self._mnt.writable_upper()
            check_utime(self._mnt, self.dentry, self.stat(), now=times_ns is None)
            now = time.time_ns()
            with self._changeable() as handle:
                handle.utime(*(times_ns or (now, now)))

    def getxattr(self, name: str) -> bytes:
        """Return an attribute (the name was checked by check_name). EBADF ENODATA EACCES EOPNOTSUPP."""
        with self._mnt.lock:
            self._check_open()
            stored = xattr.stored_name(self._mnt, self.dentry.kind, self.stat(), name, writing=False)
            with self._real() as handle:
                return handle.getxattr(stored)

    def listxattr(self) -> list[str]:
        """Return the names of the attributes. EBADF."""
        with self._mnt.lock:
            self._check_open()
            with self._real() as handle:
                return xattr.visible(self._mnt, handle.listxattr())

    def setxattr(self, name: str, value: bytes, flags: int = 0) -> None:
        """Set an attribute (arguments were checked by check_setxattr); errnos as xattr.set_value, and EBADF, EEXIST."""
        with self._change("setxattr"):
            self._check_open()
            self._mnt.writable_upper()
            stored = xattr.stored_name(self._mnt, self.dentry.kind, self.stat(), name, writing=True)
            with self._changeable(by_inode=True) as handle:
                handle.setxattr(stored, value, flags)

    def removexattr(self, name: str) -> None:
        """Remove an attribute (the name was checked by check_name); errnos as xattr.remove, and EBADF, EEXIST."""
        with self._change("removexattr"):
            self._check_open()
            self._mnt.writable_upper()
            stored = xattr.stored_name(self._mnt, self.dentry.kind, self.stat(), name, writing=True)
            with self._real() as handle:
                handle.getxattr(stored)
            with self._changeable(by_inode=True) as handle:
                handle.removexattr(stored)

    def sync(self) -> None:
        """Put the file's data on the upper's medium. EBADF (O_PATH)."""
        with self._mnt.lock:
            self._check_open()
            if self.inode is not None and self.inode.in_upper and not self._mnt.options.volatile:
                self.inode.data.sync()

    @contextmanager
    def _change(self, verb: str) -> Iterator[None]:
        """Hold the lock for a verb that changes something, and tell those who watch how it went."""
        with self._mnt.lock:
            try:
                yield
            except OSError as error:
                self._mnt.report(verb, (self.dentry.path or "/",), error)
                raise
            self._mnt.report(verb, (self.dentry.path or "/",))

    @property
    def _may_write(self) -> bool:
        return self.flags & O_ACCMODE in (O_WRONLY, O_RDWR) and not self.flags & O_PATH

    def _check_not_closed(self) -> None:
        if self.closed or self._mnt.closed:
            raise oserror(errno.EBADF)

    def _check_open(self) -> None:
        """Raise EBADF where the descriptor is closed or only stands for a path."""
        self._check_not_closed()
        if self.flags & O_PATH:
            raise oserror(errno.EBADF)

    def _readable(self) -> Inode:
        self._check_open()
        if self.flags & O_ACCMODE not in (O_RDONLY, O_RDWR):
            raise oserror(errno.EBADF)
        if self.inode is None:
            raise oserror(errno.EISDIR)
        return self.inode

    def _writable(self) -> Inode:
        self._check_open()
        if not self._may_write or self.inode is None:
            raise oserror(errno.EBADF)
        self._mnt.writable_upper()
        return self.inode

    @contextmanager
    def _real(self) -> Iterator[Handle]:
        """Give a handle on the real object as it is now."""
        if self.inode is not None:
            yield self.inode.handle
        elif self.dentry.ghost is not None:
            yield self.dentry.ghost
        else:
            layer, path = real(self._mnt, self.dentry)
            handle = layer.open(path)
            try:
                yield handle
            finally:
                handle.close()

    @contextmanager
    def _changeable(self, *, by_inode: bool = False) -> Iterator[Handle]:
        """Give a handle on the real object in the upper, copied up if need be; EEXIST if its name went before that.

        `by_inode`: of one of several lower hard links it is enough that the index has the inode (ovl_xattr_set),
        where otherwise this name is to be in the upper (ovl_setattr).
        """
        inode_is_up = self.inode is not None and self.inode.in_upper
        if not inode_is_up or not (by_inode or self.dentry.has_upper):
            try:
                copy_up(self._mnt, self.dentry)
            except Torn as torn:
                self._mnt.turn_read_only(torn)
                raise
        with self._real() as handle:
            yield handle
