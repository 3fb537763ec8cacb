"""The inodes of a memory file system and the superblock that counts them (mm/shmem.c, fs/libfs.c).

Everything an inode leads to (its names, its content) carries the token of the superblock that may change it
in place: `Superblock.own` and `own_names` copy first what an earlier snapshot shares. A snapshot is then
one fork of the inode table.

Writers hold `Superblock.lock`. Readers hold nothing: they see each name, inode and content whole.
"""

import errno
import itertools
import os
import stat
import threading
import time
from collections.abc import Callable
from typing import Final

from overlayvfs.abi import PAGE_SIZE, Stat, StatVfs, anonymous_dev, oserror
from overlayvfs.layers.blocks import EMPTY, Content
from overlayvfs.layers.cow import Radix

ROOT_INO: Final = 1

S_IFMT: Final = 0o170000

_DIR_SIZE: Final = 40
_DIRENT_SIZE: Final = 20
_INODE_SPACE: Final = 1024
"""What one inode, or one more name of one, takes of `nr_inodes` (BOGO_INODE_SIZE); attributes take from it too."""
_XATTR_SPACE: Final = 40
_SHORT_SYMLINK: Final = 128
_SECTORS_A_PAGE: Final = PAGE_SIZE // 512


class Names(dict[str, int]):
    """The names of one directory and their inode numbers; `newest_first` is the order tmpfs lists them in.

    A dict keeps a key's place when its value is replaced, but a renamed name counts as new. Taking it out and
    in again would hide it from readers for a moment, so `late` notes those names, and all that came after.
    """

    __slots__ = ("hidden", "late", "owner")

    def __init__(self, owner: object) -> None:
        self.owner = owner
        self.late: dict[str, None] = {}
        # Directories beside the listed ones, which count for nothing: the WORK and INDEX of a layer whose root this is.
        self.hidden: dict[str, int] = {}

    def copy_for(self, owner: object) -> "Names":
        """Return the same names for `owner` to change."""
        twin = Names(owner)
        if self.late:
            twin.update((name, self[name]) for name in reversed(self.newest_first()))
        else:
            twin.update(self)
        twin.hidden = self.hidden.copy()
        return twin

    def enter(self, name: str, ino: int) -> None:
        """Let `name`, new or not, lead to `ino`, as the newest."""
        if name in self:
            self.late.pop(name, None)
            self.late[name] = None
        elif self.late:
            self.late[name] = None
        self[name] = ino

    def leave(self, name: str) -> None:
        """Take `name` out."""
        del self[name]
        if self.late:
            self.late.pop(name, None)

    def is_disordered(self) -> bool:
        """Tell whether so many names are late that a copy, which has none, pays."""
        return len(self.late) > 32 and len(self.late) * 2 > len(self)

    def newest_first(self) -> list[str]:
        """Return all names, the newest first."""
        late = self.late
        if not late:
            return list(reversed(self))
        return [*reversed(late), *(name for name in reversed(self) if name not in late)]


class Inode:
    """One object: what lstat tells, and one of `entries` (directory), `content` (regular file), `target` (symlink).

    `xattrs` is never changed in place, so inodes may share it.
    """

    __slots__ = (
        "atime_ns",
        "content",
        "ctime_ns",
        "entries",
        "generation",
        "gid",
        "ino",
        "mode",
        "mtime_ns",
        "nlink",
        "owner",
        "parent",
        "rdev",
        "target",
        "uid",
        "xattrs",
    )

    def __init__(self, owner: object, ino: int, generation: int, mode: int, uid: int, gid: int) -> None:
        self.owner = owner
        self.ino = ino
        self.generation = generation
        self.mode = mode
        self.uid = uid
        self.gid = gid
        self.nlink = 1
        self.rdev = 0
        self.atime_ns = self.mtime_ns = self.ctime_ns = time.time_ns()
        self.parent = 0
        self.entries: Names | None = None
        self.content: Content | None = None
        self.target: str | None = None
        self.xattrs: dict[str, bytes] | None = None

    def copy_for(self, owner: object) -> "Inode":
        """Return the same inode for `owner` to change; names and content are still shared."""
        twin = Inode.__new__(Inode)
        twin.owner = owner
        twin.ino = self.ino
        twin.generation = self.generation
        twin.mode = self.mode
        twin.uid = self.uid
        twin.gid = self.gid
        twin.nlink = self.nlink
        twin.rdev = self.rdev
        twin.atime_ns = self.atime_ns
        twin.mtime_ns = self.mtime_ns
        twin.ctime_ns = self.ctime_ns
        twin.parent = self.parent
        twin.entries = self.entries
        twin.content = self.content
        twin.target = self.target
        twin.xattrs = self.xattrs
        return twin

    def stat(self, dev: int) -> Stat:
        """Return what lstat(2) tells of this inode on device `dev`."""
        content = self.content
        blocks = 0
        if content is not None:
            size = content.size
            blocks = content.pages * _SECTORS_A_PAGE
        elif self.entries is not None:
            size = _DIR_SIZE + _DIRENT_SIZE * len(self.entries)
        elif self.target is not None:
            size = target_size(self.target)
            blocks = target_pages(size) * _SECTORS_A_PAGE
        else:
            size = 0
        # Stat(…) itself takes twice as long, and this is the hottest line of a memory layer.
        return tuple.__new__(
            Stat,
            (
                self.mode,
                self.ino,
                dev,
                self.nlink,
                self.uid,
                self.gid,
                size,
                self.atime_ns,
                self.mtime_ns,
                self.ctime_ns,
                blocks,
                self.rdev,
                PAGE_SIZE,
            ),
        )


def target_size(target: str) -> int:
    """Return the bytes of a symlink's target."""
    return len(target) if target.isascii() else len(target.encode("utf-8", "surrogateescape"))


def target_pages(size: int) -> int:
    """Return how many pages tmpfs takes for a symlink's target: short ones fit in the inode."""
    return 1 if size >= _SHORT_SYMLINK else 0


# Starting anywhere: a file handle of another process must not be taken for one of ours.
_superblock_keys = itertools.count(int.from_bytes(os.urandom(4), "little"))


class Superblock:
    """One memory file system: an inode table, a device number, and limits, as `mount -t tmpfs` makes one.

    Numbers are given out in sequence and never again. Files without a name live while they are open here;
    a fork leaves them behind, as it does all open files.

    `blocks_used` (pages) is kept by whoever changes a content; `opens` counts the open handles of each inode, `moves`
    how often a directory lost its path, right after it did: until then a path leads to the inode it led to.

    A collector's run can end anything in the middle of a verb. So `lock` is one that its thread may take again, and
    `in_a_verb` tells whether this thread has it: what is not to happen in between then waits or is refused.
    """

    __slots__ = (
        "_dropped",
        "_generation",
        "_max_inodes",
        "_next_ino",
        "_orphans",
        "_space_left",
        "blocks_used",
        "dev",
        "in_a_verb",
        "key",
        "lock",
        "max_blocks",
        "moves",
        "opens",
        "table",
        "uuid",
    )

    def __init__(self, size: int | None = None, nr_inodes: int | None = None) -> None:
        """Make an empty file system of `size` bytes (whole pages, rounded up) and `nr_inodes`; None or 0: no limit.

        Raises:
            EINVAL: a negative limit.

        """
        if (size or 0) < 0 or (nr_inodes or 0) < 0:
            raise oserror(errno.EINVAL, reason="a memory file system's limits can't be negative")
        self.dev = anonymous_dev()
        self.uuid = os.urandom(16)
        self.max_blocks = -(-size // PAGE_SIZE) if size else None
        self._max_inodes = nr_inodes or None
        self.blocks_used = 0
        self._space_left = (nr_inodes or 0) * _INODE_SPACE
        self._next_ino = ROOT_INO
        self.table: Radix[Inode] = Radix()
        self._start()
        self.new_directory(0o1777, 0, 0, ROOT_INO)

    def _start(self) -> None:
        """Set what two superblocks never share."""
        self.key = next(_superblock_keys)
        # Numbers made after a fork mean different files in parent and child: their handles must differ.
        self._generation = self.key & 0xFFFFFFFF
        self.lock = threading.RLock()
        # Of RLock's C code since 3.2, and what threading.Condition asks: no public name tells as much.
        self.in_a_verb: Callable[[], bool] = self.lock._is_owned  # type: ignore[attr-defined]
        self.opens: dict[int, int] = {}
        self.moves = 0
        self._orphans: set[int] = set()
        self._dropped: list[int] = []

    def fork(self) -> "Superblock":
        """Return an independent copy in constant time: same device, uuid and numbers, no open files. Under the lock."""
        twin = Superblock.__new__(Superblock)
        twin.dev = self.dev
        twin.uuid = self.uuid
        twin.max_blocks = self.max_blocks
        twin._max_inodes = self._max_inodes
        twin.blocks_used = self.blocks_used
        twin._space_left = self._space_left
        twin._next_ino = self._next_ino
        twin.table = self.table.fork()
        twin._start()
        for ino in self._orphans:
            twin._evict(ino)
        return twin

    def statvfs(self) -> StatVfs:
        """Return sizes and counts as tmpfs does: zeros where there is no limit."""
        blocks = self.max_blocks or 0
        free = blocks - self.blocks_used if self.max_blocks else 0
        inodes = self._max_inodes or 0
        free_inodes = self._space_left // _INODE_SPACE if self._max_inodes else 0
        return StatVfs(PAGE_SIZE, PAGE_SIZE, blocks, free, free, inodes, free_inodes, free_inodes, 0, 255)

    # Inodes, all under the lock

    def own(self, inode: Inode) -> Inode:
        """Return the inode that may be changed in place of `inode`: itself, or from now on its copy."""
        table = self.table
        owner = table.owner
        if inode.owner is owner:
            return inode
        current = table.get(inode.ino)
        if current is not None and current.owner is owner:
            return current
        twin = inode.copy_for(owner)
        table.set(inode.ino, twin)
        return twin

    def own_names(self, inode: Inode) -> tuple[Inode, Names]:
        """Return a directory and its names, both for changing."""
        owner = self.table.owner
        if inode.owner is not owner:
            inode = self.own(inode)
        names = inode.entries
        assert names is not None, "the caller has checked that this is a directory"
        if names.owner is not owner or (names.late and names.is_disordered()):
            names = inode.entries = names.copy_for(owner)
        return inode, names

    def own_file(self, ino: int) -> tuple[Inode, Content]:
        """Return an open inode for changing, and its content as it is. EINVAL if it is no regular file."""
        inode = self.table.get(ino)
        assert inode is not None, "an open inode stays in the table"
        content = inode.content
        if content is None:
            raise oserror(errno.EINVAL)
        if inode.owner is not self.table.owner:
            inode = self.own(inode)
        return inode, content

    def new_inode(self, mode: int, uid: int, gid: int) -> Inode:
        """Return a new inode that is in the table, but under no name yet. ENOSPC."""
        if self._dropped:
            self.reap()
        left = self._space_left - _INODE_SPACE
        if left < 0 and self._max_inodes is not None:
            raise oserror(errno.ENOSPC)
        self._space_left = left
        ino = self._next_ino
        self._next_ino = ino + 1
        inode = Inode(self.table.owner, ino, self._generation, mode, uid, gid)
        if mode & S_IFMT == stat.S_IFREG:
            inode.content = EMPTY
        self.table.set(ino, inode)
        return inode

    def new_directory(self, mode: int, uid: int, gid: int, parent: int) -> Inode:
        """Return a new empty directory that is in the table, but under no name yet. ENOSPC."""
        inode = self.new_inode(stat.S_IFDIR | mode & 0o7777, uid, gid)
        inode.nlink = 2
        inode.parent = parent
        inode.entries = Names(inode.owner)
        return inode

    def add_link(self, inode: Inode, now: int) -> None:
        """Count one more name of an owned inode; tmpfs charges it like an inode. ENOSPC."""
        if self._dropped:
            self.reap()
        self.take_space(_INODE_SPACE)
        inode.nlink += 1
        inode.ctime_ns = now

    def drop_link(self, inode: Inode, now: int) -> None:
        """Count one name less of `inode`; with the last one it goes, unless it is open."""
        inode = self.own(inode)
        inode.ctime_ns = now
        if inode.entries is not None:
            inode.nlink = 0
        else:
            inode.nlink -= 1
            if inode.nlink:
                self._space_left += _INODE_SPACE
                return
        self._forget(inode)

    def _forget(self, inode: Inode) -> None:
        if self._dropped:
            self.reap()
        if inode.ino in self.opens:
            self._orphans.add(inode.ino)
        else:
            self._evict(inode.ino)

    def _evict(self, ino: int) -> None:
        """Give back all that a nameless, unopened inode held."""
        inode = self.table.get(ino)
        assert inode is not None, "only an inode of this table becomes nameless"
        if inode.entries is not None:
            for hidden in list(inode.entries.hidden):
                self.remove_hidden(inode, hidden)
        self.blocks_used -= inode_pages(inode)
        self._space_left += _INODE_SPACE
        for name, value in (inode.xattrs or {}).items():
            self._space_left += xattr_space(name, value)
        self.table.discard(ino)

    # Hidden directories, all under the lock

    def make_hidden(self, root: Inode, name: str) -> None:
        """Make an empty hidden directory, if there is none, at no cost of nr_inodes: nobody asked for it."""
        root, names = self.own_names(root)
        if name not in names.hidden:
            self.give_space(_INODE_SPACE)
            names.hidden[name] = self.new_directory(0o700, 0, 0, root.ino).ino

    def remove_hidden(self, root: Inode, name: str) -> None:
        """Remove a hidden directory, if there is one, and all that only it leads to."""
        root, names = self.own_names(root)
        ino = names.hidden.pop(name, None)
        if ino is None:
            return
        self.moves += 1
        now = time.time_ns()
        pending = [ino]
        while pending:
            directory = self.table.get(pending.pop())
            assert directory is not None and directory.entries is not None, "only directories are pending"
            for child_ino in directory.entries.values():
                child = self.table.get(child_ino)
                assert child is not None, "a name leads to an inode of the table"
                if child.entries is not None:
                    pending.append(child_ino)
                else:
                    self.drop_link(child, now)
            self.drop_link(directory, now)
        self._space_left -= _INODE_SPACE

    # Limits, all under the lock

    def take_space(self, space: int) -> None:
        """Take `space` of what nr_inodes allows. ENOSPC."""
        left = self._space_left - space
        if left < 0 and self._max_inodes is not None:
            raise oserror(errno.ENOSPC)
        self._space_left = left

    def give_space(self, space: int) -> None:
        """Give back what `take_space` took."""
        self._space_left += space

    def check_pages(self, growth: int) -> None:
        """Raise ENOSPC unless `growth` more pages fit."""
        if self.max_blocks is not None:
            if self._dropped:
                self.reap()
            if growth > self.max_blocks - self.blocks_used:
                raise oserror(errno.ENOSPC)

    # Open files

    def unpin(self, ino: int) -> None:
        """Count one open handle less; the last one frees an inode that has no name. Under the lock."""
        count = self.opens[ino] - 1
        if count:
            self.opens[ino] = count
            return
        del self.opens[ino]
        if ino in self._orphans:
            self._orphans.remove(ino)
            self._evict(ino)

    def seal(self, ino: int) -> None:
        """Let the content be read uncopied, as a writer has finished. Under the lock."""
        inode = self.table.get(ino)
        if inode is not None and inode.content is not None and inode.content.owner is self.table.owner:
            inode.content.seal()

    def drop(self, ino: int) -> None:
        """Unpin for a handle that was never closed, at any moment: now if the lock is free, else with the next verb."""
        # A collector run may call this in the middle of a verb of the same thread.
        self._dropped.append(ino)
        if not self.in_a_verb() and self.lock.acquire(blocking=False):
            try:
                self.reap()
            finally:
                self.lock.release()

    def reap(self) -> None:
        """Unpin what `drop` could not. Under the lock."""
        while self._dropped:
            self.unpin(self._dropped.pop())


def inode_pages(inode: Inode) -> int:
    """Return how many pages an inode takes of the file system's size."""
    if inode.content is not None:
        return inode.content.pages
    return target_pages(target_size(inode.target)) if inode.target is not None else 0


def xattr_space(name: str, value: bytes) -> int:
    """Return what an attribute takes of nr_inodes' space (simple_xattr_space)."""
    return _XATTR_SPACE + len(name.encode("utf-8", "surrogateescape")) + len(value)
