"""Open objects of a memory layer, and whole contents handed from one to another."""

import errno
import time
from typing import Final

from overlayvfs.abi import Stat, oserror
from overlayvfs.layers import _attributes as attributes
from overlayvfs.layers import blocks
from overlayvfs.layers._inodes import Inode, Superblock
from overlayvfs.layers.blocks import Content

_SIZE_MAX: Final = (1 << 63) - 1


class MemoryHandle:
    """An open object, by superblock and inode number: a snapshot of the layer does not take it along.

    Dropping the last reference closes it.
    """

    __slots__ = ("_in_pieces", "_ino", "_superblock", "_writable")

    def __init__(self, superblock: Superblock, ino: int, writable: bool) -> None:
        """Open inode `ino`, under the lock of `superblock`."""
        superblock.opens[ino] = superblock.opens.get(ino, 0) + 1
        self._superblock: Superblock | None = superblock
        self._ino = ino
        self._writable = writable
        self._in_pieces = False

    def __del__(self) -> None:
        superblock = self._superblock
        if superblock is not None:
            # In garbage that goes all at once, whoever holds this may still close it after this ran.
            self._superblock = None
            superblock.drop(self._ino)

    def close(self) -> None:
        """Let go of the object; idempotent."""
        superblock = self._superblock
        if superblock is not None:
            self._superblock = None
            if superblock.in_a_verb():
                superblock.drop(self._ino)
                return
            with superblock.lock:
                if self._in_pieces:
                    superblock.seal(self._ino)
                superblock.unpin(self._ino)

    def pread(self, size: int, offset: int) -> bytes:
        """Return up to `size` bytes from `offset`. EBADF (closed) EISDIR EINVAL (no regular file)."""
        content = self._inode().content
        if content is None:
            raise self._no_data()
        return content.pread(size, offset)

    def pwrite(self, data: bytes | memoryview, offset: int) -> int:
        """Write all of `data` or nothing.

        Raises:
            EBADF: closed, or read-only.
            EFBIG, EINVAL (no regular file), ENOSPC.
            EDEADLK: a collector's run flushes a dropped file in the middle of another verb of its thread.

        """
        superblock = self._superblock
        if superblock is None or not self._writable:
            raise oserror(errno.EBADF)
        length = len(data)
        if not length:
            return 0
        if offset + length > _SIZE_MAX:
            raise oserror(errno.EFBIG)
        if superblock.in_a_verb():
            raise oserror(errno.EDEADLK)
        with superblock.lock:
            inode, content = superblock.own_file(self._ino)
            before = content.pages
            if superblock.max_blocks is not None:
                superblock.check_pages(content.growth(length, offset))
            content = inode.content = blocks.write(content, data, offset, inode.owner)
            superblock.blocks_used += content.pages - before
            inode.mtime_ns = inode.ctime_ns = time.time_ns()
        if content.size != length:
            self._in_pieces = True
        return length

    def truncate(self, size: int) -> None:
        """Cut or grow (with a hole) to `size` bytes. EBADF (closed or read-only) EINVAL EFBIG."""
        superblock = self._superblock
        if superblock is None or not self._writable:
            raise oserror(errno.EBADF)
        if size < 0:
            raise oserror(errno.EINVAL)
        if size > _SIZE_MAX:
            raise oserror(errno.EFBIG)
        with superblock.lock:
            inode, content = superblock.own_file(self._ino)
            before = content.pages
            # truncate(2) of tmpfs keeps the times where the size stays and there is no page to look at (shmem_setattr).
            changes = before > 0 or size != content.size
            content = inode.content = blocks.truncate(content, size, inode.owner)
            superblock.blocks_used += content.pages - before
            if changes:
                inode.mtime_ns = inode.ctime_ns = time.time_ns()

    def seek_extent(self, offset: int, whence: int) -> int:
        """Return lseek(2)'s answer for SEEK_DATA or SEEK_HOLE. EBADF EISDIR EINVAL ENXIO."""
        content = self._inode().content
        if content is None:
            raise self._no_data()
        return content.seek_extent(offset, whence)

    def stat(self) -> Stat:
        """Return the object's attributes now. EBADF."""
        return self._inode().stat(self._open_superblock().dev)

    def chmod(self, mode: int) -> None:
        """Set the 12 permission bits. EBADF."""
        superblock = self._open_superblock()
        with superblock.lock:
            attributes.chmod(superblock, self._inode(), mode)

    def chown(self, uid: int, gid: int) -> None:
        """Set owner and group; -1 keeps one. EBADF."""
        superblock = self._open_superblock()
        with superblock.lock:
            attributes.chown(superblock, self._inode(), uid, gid)

    def utime(self, atime_ns: int, mtime_ns: int) -> None:
        """Set access and modification time. EBADF."""
        superblock = self._open_superblock()
        with superblock.lock:
            attributes.utime(superblock, self._inode(), atime_ns, mtime_ns)

    def getxattr(self, name: str) -> bytes:
        """Return one attribute. EBADF, then as MemoryLayer.getxattr."""
        return attributes.getxattr(self._inode(), name)

    def setxattr(self, name: str, value: bytes, flags: int = 0) -> None:
        """Set an attribute. EBADF, then as MemoryLayer.setxattr."""
        superblock = self._open_superblock()
        with superblock.lock:
            attributes.setxattr(superblock, self._inode(), name, value, flags)

    def removexattr(self, name: str) -> None:
        """Remove an attribute. EBADF, then as MemoryLayer.removexattr."""
        superblock = self._open_superblock()
        with superblock.lock:
            attributes.removexattr(superblock, self._inode(), name)

    def listxattr(self) -> list[str]:
        """Return all attribute names. EBADF."""
        return attributes.listxattr(self._inode())

    def sync(self) -> None:
        """Nothing is behind memory. EBADF."""
        self._open_superblock()

    def share_content(self) -> Content:
        """Return the content as it is now, which nobody changes any more: whoever writes next forks it first.

        EBADF EISDIR EINVAL.
        """
        superblock = self._open_superblock()
        with superblock.lock:
            content = self._inode().content
            if content is None:
                raise self._no_data()
            content.owner = None
            return content

    def adopt_content(self, content: Content) -> None:
        """Hold `content` (nobody's) instead of what the file held. EBADF EISDIR EINVAL ENOSPC."""
        superblock = self._open_superblock()
        with superblock.lock:
            inode = superblock.own(self._inode())
            old = inode.content
            if old is None:
                raise self._no_data()
            superblock.check_pages(content.pages - old.pages)
            superblock.blocks_used += content.pages - old.pages
            inode.content = content
            inode.mtime_ns = inode.ctime_ns = time.time_ns()

    def is_open_on(self, superblock: Superblock) -> bool:
        """Tell whether this is an open file of `superblock`."""
        return self._superblock is superblock

    def _open_superblock(self) -> Superblock:
        superblock = self._superblock
        if superblock is None:
            raise oserror(errno.EBADF, reason="closed")
        return superblock

    def _inode(self) -> Inode:
        superblock = self._superblock
        if superblock is None:
            raise oserror(errno.EBADF, reason="closed")
        inode = superblock.table.get(self._ino)
        assert inode is not None, "an open inode stays in the table"
        return inode

    def _no_data(self) -> OSError:
        return oserror(errno.EISDIR if self._inode().entries is not None else errno.EINVAL)
