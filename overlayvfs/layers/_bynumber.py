"""What a memory layer does to objects by their numbers (base.NumberedLayer): no path, no open file, one step each."""

import stat
import time

from overlayvfs.abi import Stat
from overlayvfs.layers._inodes import Inode, Superblock
from overlayvfs.layers.blocks import Flat
from overlayvfs.layers.cow import BITS, MASK, Radix


class ByNumber:
    """The part of a memory layer that goes by inode numbers."""

    _superblock: Superblock
    _table: Radix[Inode]

    def stat_of(self, ino: int) -> Stat | None:
        """Return the attributes of inode `ino`, None if it is gone."""
        inode = self._table.get(ino)
        return None if inode is None or not inode.nlink else inode.stat(self._superblock.dev)

    def content_of(self, ino: int) -> bytes | None:
        """Return all a regular file holds, uncopied; None if it is not stored so, or gone."""
        # Radix.get, written out: a call more is a fifth of the whole.
        node, shift = self._table.top
        if ino >> shift > MASK:
            return None
        while shift:
            node = node[ino >> shift & MASK]
            shift -= BITS
        inode: Inode | None = node[ino & MASK]
        if inode is None or type(inode.content) is not Flat:
            return None
        data = inode.content.data
        return data if type(data) is bytes else None

    def make(self, parent: int, name: str, mode: int, uid: int, gid: int, data: bytes) -> int:
        """Make a regular file that holds `data`; its number.

        0 if the name is taken, the directory is gone or hands on its group, or what is free would have to be counted.
        """
        superblock = self._superblock
        with superblock.lock:
            directory = self._table.get(parent)
            if directory is None or directory.entries is None or name in directory.entries or not directory.nlink:
                return 0
            if directory.mode & stat.S_ISGID or superblock.max_blocks is not None:
                return 0
            inode = superblock.new_inode(stat.S_IFREG | mode & 0o7777, uid, gid)
            if data:
                content = inode.content = Flat(data, inode.owner)
                superblock.blocks_used += content.pages
            enter(superblock, directory, name, inode)
            return inode.ino

    def rewrite(self, ino: int, data: bytes) -> bool:
        """Let a regular file hold `data`, not empty; False if it is gone, or what is free would have to be counted."""
        superblock = self._superblock
        with superblock.lock:
            inode = self._table.get(ino)
            old = None if inode is None else inode.content
            if inode is None or old is None or superblock.max_blocks is not None:
                return False
            if inode.owner is not self._table.owner:
                inode = superblock.own(inode)
            content = Flat(data, inode.owner)
            superblock.blocks_used += content.pages - old.pages
            inode.content = content
            inode.mtime_ns = inode.ctime_ns = time.time_ns()
            return True


def enter(superblock: Superblock, parent: Inode, name: str, inode: Inode) -> None:
    """Give a new inode its name. Under the lock."""
    parent, names = superblock.own_names(parent)
    if inode.entries is not None:
        parent.nlink += 1
    names.enter(name, inode.ino)
    parent.mtime_ns = parent.ctime_ns = inode.ctime_ns
