"""A memory layer: tmpfs as a data structure (mm/shmem.c), with a snapshot in constant time.

Several layers may be views of one superblock, each of a directory in it: one file system, one `st_dev`.
As tmpfs mounted `noatime`, with one difference: a write that does not fit fails whole.

WORK and INDEX hang beside the entries of the layer's root directory: they are in no listing and no count,
and live, fork and vanish with that directory.
"""

import errno
import stat
import struct
import time
from collections.abc import Collection, Hashable, Mapping, Sequence
from typing import Final

from overlayvfs.abi import (
    PATH_MAX,
    RENAME_EXCHANGE,
    RENAME_NOREPLACE,
    RENAME_WHITEOUT,
    Dirent,
    Stat,
    StatVfs,
    check_name,
    oserror,
)
from overlayvfs.layers import _attributes as attributes
from overlayvfs.layers import blocks
from overlayvfs.layers._bynumber import ByNumber, enter
from overlayvfs.layers._inodes import ROOT_INO, S_IFMT, Inode, Names, Superblock, target_pages, target_size
from overlayvfs.layers._memoryhandle import MemoryHandle
from overlayvfs.layers.base import INDEX, WORK, Capabilities, Handle, Progress
from overlayvfs.layers.blocks import Content, Paged
from overlayvfs.layers.cow import BITS, MASK
from overlayvfs.marks import FileHandle

__all__ = ["CLONE_MIN", "MemoryLayer", "Superblock"]

CLONE_MIN: Final = 128 * 1024
"""From this size on, `clone` keeps another layer's open file as a base instead of having it copied."""

_CAPABILITIES: Final = Capabilities()
_NO_XATTRS: Final[Mapping[str, bytes]] = {}
_HANDLE_KIND: Final = 1
_HANDLE_BODY: Final = struct.Struct("=III")
_NEAR_MAX: Final = 1000
# Where every path starts: its first name, "", leads to the root.
_START: Final = Names(None)
_START[""] = ROOT_INO
_RENAME_FLAGS: Final = (0, RENAME_NOREPLACE, RENAME_EXCHANGE, RENAME_WHITEOUT, RENAME_NOREPLACE | RENAME_WHITEOUT)


class MemoryLayer(ByNumber):
    """A directory of a memory file system as a layer (base.SnapshotLayer, base.NumberedLayer)."""

    def __init__(self, superblock: Superblock | None = None, root: int = ROOT_INO, *, name: str = "memory") -> None:
        """Show the directory with inode number `root`, which stays there, even removed, until the layer is closed."""
        self._superblock = superblock or Superblock()
        self._table = self._superblock.table
        self._root = root
        self._name = name
        self._start = _START
        # superblock.moves and the inode numbers directories had then, by path: most questions are about names in one.
        self._near: tuple[int, dict[str, int]] = (0, {})
        self._hold: MemoryHandle | None = None
        # Nobody can remove the root of all, so it needs no holding; and so a snapshot of it is quicker to make.
        if root != ROOT_INO:
            self._start = Names(None)
            self._start[""] = root
            with self._superblock.lock:
                self._hold = MemoryHandle(self._superblock, root, writable=False)

    def subtree(self, path: str) -> "MemoryLayer":
        """Return a layer over the directory `path` of this one: the same file system. ENOENT ENOTDIR."""
        inode = self._find(path)
        if inode.entries is None:
            raise oserror(errno.ENOTDIR, path)
        return MemoryLayer(self._superblock, inode.ino, name=self._name + path)

    def snapshot(self) -> "MemoryLayer":
        """Return an independent layer equal to this one now. Constant time; open files stay with this one."""
        with self._superblock.lock:
            twin = self._superblock.fork()
        return MemoryLayer(twin, self._root, name=self._name)

    def version(self) -> object:
        """Return an object that stays the same one until something changes, anywhere in the superblock."""
        with self._superblock.lock:
            return self._table.version()

    @property
    def name(self) -> str:
        """How messages call this layer."""
        return self._name

    @property
    def capabilities(self) -> Capabilities:
        """Everything."""
        return _CAPABILITIES

    def identity(self) -> Hashable:
        """Return which directory of which superblock this is; a snapshot's is another."""
        return ("memory", self._superblock.key, self._root)

    def ancestry(self) -> Sequence[Hashable]:
        """Return the identities of the root and all directories above it, nearest first."""
        found: list[Hashable] = []
        ino = self._root
        while True:
            found.append(("memory", self._superblock.key, ino))
            inode = self._table.get(ino)
            if inode is None or inode.parent == ino:
                return found
            ino = inode.parent

    # Reading

    def lstat(self, path: str) -> Stat:
        """Return the object's own attributes. ENOENT ENOTDIR ENAMETOOLONG."""
        return self._find(path).stat(self._superblock.dev)

    def look(self, path: str) -> Stat | None:
        """Return what lstat does, None where nothing is: an exception would cost five times the answer. ENOTDIR."""
        inode = self._seek(path)
        return None if inode is None else inode.stat(self._superblock.dev)

    def look_closely(self, path: str) -> tuple[Stat | None, Mapping[str, bytes]]:
        """Return what `look` does, and all attributes: one way to the object instead of two. ENOTDIR."""
        inode = self._seek(path)
        if inode is None:
            return None, _NO_XATTRS
        return inode.stat(self._superblock.dev), inode.xattrs or _NO_XATTRS

    def mark(self, path: str, name: str) -> bytes | None:
        """Return an attribute's value, None where there is none. ENOTDIR."""
        inode = self._seek(path)
        return None if inode is None or inode.xattrs is None else inode.xattrs.get(name)

    def names(self, path: str) -> Collection[str]:
        """Return a directory's names uncopied: right until the layer is next written to. ENOENT ENOTDIR."""
        entries = self._find(path).entries
        if entries is None:
            raise oserror(errno.ENOTDIR, path)
        return entries.keys()

    def listdir(self, path: str) -> list[Dirent]:
        """Return a directory's entries, the newest first, as tmpfs does. ENOENT ENOTDIR."""
        new = tuple.__new__
        with self._superblock.lock:
            entries = self._find(path).entries
            if entries is None:
                raise oserror(errno.ENOTDIR, path)
            names = entries.newest_first()
            inodes = self._table.get_all([entries[name] for name in names])
            # Dirent(…) itself and a `get` for each make 0.9 µs a name of this 0.35.
            return [
                new(Dirent, (name, inode.ino, inode.mode & S_IFMT))
                for name, inode in zip(names, inodes, strict=True)
                if inode is not None
            ]

    def readlink(self, path: str) -> str:
        """Return a symlink's target. ENOENT ENOTDIR EINVAL."""
        target = self._find(path).target
        if target is None:
            raise oserror(errno.EINVAL, path)
        return target

    def getxattr(self, path: str, name: str) -> bytes:
        """Return one attribute. ENOENT ENOTDIR, xattrs.check_get's, ENODATA."""
        return attributes.getxattr(self._find(path), name)

    def listxattr(self, path: str) -> list[str]:
        """Return all attribute names. ENOENT ENOTDIR."""
        return attributes.listxattr(self._find(path))

    def open(self, path: str, *, writable: bool = False) -> MemoryHandle:
        """Open any object. ENOENT ENOTDIR, EISDIR if `writable` on a directory."""
        with self._superblock.lock:
            inode = self._find(path)
            if writable and inode.entries is not None:
                raise oserror(errno.EISDIR, path)
            return MemoryHandle(self._superblock, inode.ino, writable)

    def file_handle(self, path: str) -> bytes:
        """Return the origin mark's value: generation and inode number, as tmpfs has it. ENOENT ENOTDIR."""
        inode = self._find(path)
        body = _HANDLE_BODY.pack(inode.generation, inode.ino & 0xFFFFFFFF, inode.ino >> 32)
        return FileHandle(self._superblock.uuid, _HANDLE_KIND, body).encode()

    def find_handle(self, value: bytes, hint: str | None = None) -> Stat | None:
        """Return the attributes of the object an origin mark names; None if this superblock has it not, or no more."""
        handle = FileHandle.decode(value)
        if handle is None or handle.uuid != self._superblock.uuid or handle.kind != _HANDLE_KIND:
            return None
        if len(handle.body) != _HANDLE_BODY.size:
            return None
        generation, low, high = _HANDLE_BODY.unpack(handle.body)
        inode = self._table.get(low | high << 32)
        if inode is None or inode.generation != generation or inode.nlink == 0:
            return None
        return inode.stat(self._superblock.dev)

    def statvfs(self) -> StatVfs:
        """Return sizes and counts of the superblock."""
        with self._superblock.lock:
            return self._superblock.statvfs()

    def close(self) -> None:
        """Let go of the root directory; idempotent."""
        if self._hold is not None:
            self._hold.close()

    # Writing

    def prepare(self, *, index: bool) -> None:
        """Make WORK, empty, and INDEX if asked and not there from before."""
        with self._superblock.lock:
            self._superblock.remove_hidden(self._find(""), WORK[1:])
            self._superblock.make_hidden(self._find(""), WORK[1:])
            if index:
                self._superblock.make_hidden(self._find(""), INDEX[1:])

    def release(self, *, keep_index: bool) -> None:
        """Remove WORK, and INDEX unless it is to be kept; idempotent."""
        with self._superblock.lock:
            self._superblock.remove_hidden(self._find(""), WORK[1:])
            if not keep_index:
                self._superblock.remove_hidden(self._find(""), INDEX[1:])

    def create(self, path: str, mode: int, uid: int, gid: int) -> MemoryHandle:
        """Make an empty regular file, open for reading and writing. ENOENT ENOTDIR EEXIST ENAMETOOLONG ENOSPC."""
        superblock = self._superblock
        with superblock.lock:
            parent, name = self._new_name(path)
            inode = superblock.new_inode(stat.S_IFREG | mode & 0o7777, uid, gid)
            enter(superblock, parent, name, inode)
            return MemoryHandle(superblock, inode.ino, writable=True)

    def tmpfile(self, mode: int, uid: int, gid: int) -> MemoryHandle:
        """Return a new regular file without a name. ENOSPC."""
        superblock = self._superblock
        with superblock.lock:
            inode = superblock.new_inode(stat.S_IFREG | mode & 0o7777, uid, gid)
            handle = MemoryHandle(superblock, inode.ino, writable=True)
            superblock.drop_link(inode, inode.ctime_ns)
            return handle

    def mkdir(self, path: str, mode: int, uid: int, gid: int) -> None:
        """Make a directory. ENOENT ENOTDIR EEXIST ENAMETOOLONG ENOSPC."""
        with self._superblock.lock:
            parent, name = self._new_name(path)
            inode = self._superblock.new_directory(mode, uid, gid, parent.ino)
            enter(self._superblock, parent, name, inode)

    def mknod(self, path: str, mode: int, rdev: int, uid: int, gid: int) -> None:
        """Make a file of the type in `mode` (none: regular).

        ENOENT ENOTDIR EEXIST ENAMETOOLONG EPERM (a directory) EINVAL (no type of Linux) ENOSPC.
        """
        kind = mode & S_IFMT or stat.S_IFREG
        with self._superblock.lock:
            parent, name = self._new_name(path)
            if kind == stat.S_IFDIR:
                raise oserror(errno.EPERM, path)
            if kind not in (stat.S_IFREG, stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFCHR, stat.S_IFBLK):
                raise oserror(errno.EINVAL, path)
            inode = self._superblock.new_inode(kind | mode & 0o7777, uid, gid)
            if kind in (stat.S_IFCHR, stat.S_IFBLK):
                inode.rdev = rdev
            enter(self._superblock, parent, name, inode)

    def symlink(self, target: str, path: str, uid: int, gid: int) -> None:
        """Make a symlink. ENOENT ENOTDIR EEXIST ENAMETOOLONG (also a target of 4096 bytes) ENOSPC."""
        with self._superblock.lock:
            parent, name = self._new_name(path)
            size = target_size(target)
            if size >= PATH_MAX:
                raise oserror(errno.ENAMETOOLONG, target, path)
            pages = target_pages(size)
            self._superblock.check_pages(pages)
            inode = self._superblock.new_inode(stat.S_IFLNK | 0o777, uid, gid)
            self._superblock.blocks_used += pages
            inode.target = target
            enter(self._superblock, parent, name, inode)

    def link(self, src: str, dst: str) -> None:
        """Give the object at `src` a second name. ENOENT ENOTDIR EEXIST ENAMETOOLONG EPERM (a directory) ENOSPC."""
        with self._superblock.lock:
            inode = self._find(src)
            parent, name = self._new_name(dst)
            if inode.entries is not None:
                raise oserror(errno.EPERM, src, dst)
            inode = self._superblock.own(inode)
            now = time.time_ns()
            self._superblock.add_link(inode, now)
            parent, names = self._superblock.own_names(parent)
            names.enter(name, inode.ino)
            parent.mtime_ns = parent.ctime_ns = now

    def unlink(self, path: str) -> None:
        """Remove a name that is no directory. ENOENT ENOTDIR ENAMETOOLONG EISDIR."""
        with self._superblock.lock:
            parent, name, inode = self._old_name(path, errno.EISDIR)
            if inode.entries is not None:
                raise oserror(errno.EISDIR, path)
            self._leave(parent, name, inode)

    def rmdir(self, path: str) -> None:
        """Remove an empty directory. ENOENT ENOTDIR ENAMETOOLONG EBUSY (the root) ENOTEMPTY."""
        with self._superblock.lock:
            parent, name, inode = self._old_name(path, errno.EBUSY)
            if inode.entries is None:
                raise oserror(errno.ENOTDIR, path)
            if inode.entries:
                raise oserror(errno.ENOTEMPTY, path)
            self._leave(parent, name, inode)

    def rename(self, src: str, dst: str, flags: int = 0) -> None:
        """Move, replace or swap (fs/namei.c, do_renameat2; simple_rename).

        Two names of one inode are left alone. A reader sees `dst` lead to the old or the new object, never to none.

        Raises:
            EINVAL: unknown flags, or RENAME_EXCHANGE with another.
            ENOENT, ENOTDIR: of the leading components of `src`, then `dst`.
            EBUSY: the root.
            ENOENT, ENAMETOOLONG: `src` is missing; then EEXIST with RENAME_NOREPLACE; then `dst` for RENAME_EXCHANGE.
            EINVAL: `dst` is inside `src`, or, swapping, `src` inside `dst`.
            ENOTEMPTY: `src` is inside `dst`.
            ENOTDIR: a directory would replace something else.
            EISDIR: something else would replace a directory.
            ENOTEMPTY: `dst` is a directory with names.
            ENOSPC: no inode is left for the whiteout of RENAME_WHITEOUT.

        """
        if flags not in _RENAME_FLAGS:
            raise oserror(errno.EINVAL, src, dst)
        with self._superblock.lock:
            old_dir, old_name = self._parent(src, errno.EBUSY)
            new_dir, new_name = self._parent(dst, errno.EBUSY)
            moved = self._entry(old_dir, old_name, src)
            found = self._entry_or_none(new_dir, new_name, dst)
            if found is not None and flags & RENAME_NOREPLACE:
                raise oserror(errno.EEXIST, src, dst)
            if found is None and flags == RENAME_EXCHANGE:
                raise oserror(errno.ENOENT, src, dst)
            if dst.startswith(src + "/"):
                raise oserror(errno.EINVAL, src, dst)
            if src.startswith(dst + "/"):
                raise oserror(errno.EINVAL if flags == RENAME_EXCHANGE else errno.ENOTEMPTY, src, dst)
            if new_dir.nlink == 0:
                raise oserror(errno.ENOENT, src, dst)
            if found is not None and found.ino == moved.ino:
                return
            if flags == RENAME_EXCHANGE and found is not None:
                self._swap(old_dir, old_name, moved, new_dir, new_name, found)
                return
            if found is not None:
                _check_replaces(moved, found, src, dst)
            whiteout = None
            if flags & RENAME_WHITEOUT:
                gid = old_dir.gid if old_dir.mode & stat.S_ISGID else 0
                whiteout = self._superblock.new_inode(stat.S_IFCHR, 0, gid)
            self._move(old_dir, old_name, moved, new_dir, new_name, found, whiteout)

    def chmod(self, path: str, mode: int) -> None:
        """Set the 12 permission bits. ENOENT ENOTDIR."""
        with self._superblock.lock:
            attributes.chmod(self._superblock, self._find(path), mode)

    def chown(self, path: str, uid: int, gid: int) -> None:
        """Set owner and group; -1 keeps one. ENOENT ENOTDIR."""
        with self._superblock.lock:
            attributes.chown(self._superblock, self._find(path), uid, gid)

    def utime(self, path: str, atime_ns: int, mtime_ns: int) -> None:
        """Set access and modification time. ENOENT ENOTDIR."""
        with self._superblock.lock:
            attributes.utime(self._superblock, self._find(path), atime_ns, mtime_ns)

    def setxattr(self, path: str, name: str, value: bytes, flags: int = 0) -> None:
        """Set an attribute. ENOENT ENOTDIR, xattrs.check_set's, EEXIST ENODATA (flags) ENOSPC."""
        with self._superblock.lock:
            attributes.setxattr(self._superblock, self._find(path), name, value, flags)

    def removexattr(self, path: str, name: str) -> None:
        """Remove an attribute. ENOENT ENOTDIR, xattrs.check_remove's, ENODATA."""
        with self._superblock.lock:
            attributes.removexattr(self._superblock, self._find(path), name)

    def clone(self, src: Handle, dst: Handle, size: int, progress: Progress | None = None) -> bool:
        """Let `dst` have the first `size` bytes of `src` without copying them. EXDEV (`dst` is another's) ENOSPC.

        From a memory layer the blocks are shared as they are now, and `src` stays the caller's. Any other file of
        CLONE_MIN bytes or more is read where it is, from now on: if True, `src` belongs to this layer, which closes
        it when no file needs it any more. A file whose last byte is not there is left to be copied, which finds out.
        """
        if not isinstance(dst, MemoryHandle) or not dst.is_open_on(self._superblock):
            raise oserror(errno.EXDEV)
        if isinstance(src, MemoryHandle):
            dst.adopt_content(_head(src.share_content(), size))
            return True
        if size < CLONE_MIN or not src.pread(1, size - 1):
            return False
        content = Paged.over(src, size)
        dst.adopt_content(content)
        content.own_base()
        return True

    def sync(self) -> None:
        """Nothing is behind memory."""

    # Steps

    def _find(self, path: str) -> Inode:
        """Return the inode at `path`. ENOENT ENOTDIR ENAMETOOLONG."""
        inode = self._seek(path)
        if inode is None:
            raise self._missing(path)
        return inode

    def _missing(self, path: str) -> OSError:
        """Return the error for a path that leads nowhere: the first name that is missing decides."""
        *above, last = path.split("/")
        for count in range(2, len(above) + 1):
            if self._walk("/".join(above[:count])) is None:
                last = above[count - 1]
                break
        try:
            check_name(last)
        except OSError as error:
            return error
        return oserror(errno.ENOENT, path)

    def _seek(self, path: str) -> Inode | None:
        """Return the inode at `path`, None if there is none. ENOTDIR."""
        above, _, name = path.rpartition("/")
        if not above:
            return self._walk(path)
        near = self._near_now()
        # What is asked of one name of a directory, or of the next: 1.0 µs instead of 1.6, and more below others.
        parent = self._table.get(near.get(above, 0))
        if parent is None:
            parent = self._walk(above)
            if parent is None:
                return None
            if parent.entries is not None:
                # Only directories: what else moves or goes is not counted in `moves`.
                near[above] = parent.ino
        entries = parent.entries
        if entries is None:
            raise oserror(errno.ENOTDIR, path)
        child = entries.get(name)
        if child is None:
            return None
        # A reader holds no lock: if this was replaced or removed since its name was read, the name itself tells.
        return self._table.get(child) or self._walk(path)

    def _near_now(self) -> dict[str, int]:
        """Return what is known of directories' paths; a reader adds to the dict it got before it walked."""
        moves = self._superblock.moves
        then, near = self._near
        if then != moves or len(near) > _NEAR_MAX:
            near = {}
            self._near = moves, near
        return near

    def _walk(self, path: str) -> Inode | None:
        """Do what `_seek` does, name by name from the root."""
        table = self._table
        entries: Names | None = self._start
        for name in path.split("/"):
            if entries is None:
                raise oserror(errno.ENOTDIR, path)
            ino = entries.get(name) or entries.hidden.get(name)
            if ino is None:
                return None
            # Radix.get, written out: this loop is what every lookup costs.
            node, shift = table.top
            while shift:
                node = node[ino >> shift & MASK]
                shift -= BITS
            inode: Inode | None = node[ino & MASK]
            if inode is None:
                return self._walk(path) if name else None
            entries = inode.entries
        assert inode is not None, "a path has at least the name of the root"
        return inode

    def _parent(self, path: str, if_root: int) -> tuple[Inode, str]:
        """Return the directory a name is in, and the name. ENOENT ENOTDIR, `if_root` for the root, which has none."""
        above, _, name = path.rpartition("/")
        if not name:
            raise oserror(if_root, path)
        near = self._near_now()
        parent = self._table.get(near.get(above, 0))
        if parent is None:
            parent = self._find(above)
            if parent.entries is not None:
                near[above] = parent.ino
        if parent.entries is None:
            raise oserror(errno.ENOTDIR, path)
        return parent, name

    def _entry_or_none(self, parent: Inode, name: str, path: str) -> Inode | None:
        """Return what `name` in `parent` leads to. ENAMETOOLONG."""
        entries = parent.entries
        ino = None if entries is None else entries.get(name)
        if ino is None:
            check_name(name)
            return None
        return self._table.get(ino)

    def _entry(self, parent: Inode, name: str, path: str) -> Inode:
        """Return what `name` in `parent` leads to. ENAMETOOLONG ENOENT."""
        inode = self._entry_or_none(parent, name, path)
        if inode is None:
            raise oserror(errno.ENOENT, path)
        return inode

    def _old_name(self, path: str, if_root: int) -> tuple[Inode, str, Inode]:
        """Return parent, name and inode of a name to remove. ENOENT ENOTDIR ENAMETOOLONG, `if_root`."""
        parent, name = self._parent(path, if_root)
        return parent, name, self._entry(parent, name, path)

    def _new_name(self, path: str) -> tuple[Inode, str]:
        """Return parent and name of an object to make.

        ENOENT ENOTDIR EEXIST ENAMETOOLONG, ENOENT in a removed directory.
        """
        parent, name = self._parent(path, errno.EEXIST)
        entries = parent.entries
        if entries is not None and name in entries:
            raise oserror(errno.EEXIST, path)
        check_name(name)
        if parent.nlink == 0:
            raise oserror(errno.ENOENT, path)
        return parent, name

    def _leave(self, parent: Inode, name: str, inode: Inode) -> None:
        """Take a name away, and the inode with its last one."""
        now = time.time_ns()
        parent, names = self._superblock.own_names(parent)
        names.leave(name)
        if inode.entries is not None:
            parent.nlink -= 1
            self._superblock.moves += 1
        parent.mtime_ns = parent.ctime_ns = now
        self._superblock.drop_link(inode, now)

    def _move(
        self,
        old_dir: Inode,
        old_name: str,
        moved: Inode,
        new_dir: Inode,
        new_name: str,
        replaced: Inode | None,
        whiteout: Inode | None,
    ) -> None:
        """Rename one name, over `replaced` and leaving `whiteout` if there are such; all is checked."""
        superblock = self._superblock
        now = time.time_ns()
        moved = superblock.own(moved)
        new_dir, new_names = superblock.own_names(new_dir)
        old_dir, old_names = superblock.own_names(old_dir)
        # The new name first: a reader never finds the object nowhere.
        new_names.enter(new_name, moved.ino)
        if whiteout is None:
            old_names.leave(old_name)
        else:
            old_names.enter(old_name, whiteout.ino)
            # Newer than the whiteout, as on tmpfs.
            new_names.enter(new_name, moved.ino)
        if moved.entries is not None:
            moved.parent = new_dir.ino
            old_dir.nlink -= 1
            if replaced is None:
                new_dir.nlink += 1
            superblock.moves += 1
        if replaced is not None:
            superblock.drop_link(replaced, now)
        moved.ctime_ns = now
        old_dir.mtime_ns = old_dir.ctime_ns = new_dir.mtime_ns = new_dir.ctime_ns = now

    def _swap(self, old_dir: Inode, old_name: str, moved: Inode, new_dir: Inode, new_name: str, other: Inode) -> None:
        """Let two names lead to each other's inode; all is checked."""
        superblock = self._superblock
        now = time.time_ns()
        moved = superblock.own(moved)
        other = superblock.own(other)
        old_dir, old_names = superblock.own_names(old_dir)
        new_dir, new_names = superblock.own_names(new_dir)
        old_names.enter(old_name, other.ino)
        new_names.enter(new_name, moved.ino)
        superblock.moves += 1
        for inode, left, entered in ((moved, old_dir, new_dir), (other, new_dir, old_dir)):
            if inode.entries is not None:
                inode.parent = entered.ino
                left.nlink -= 1
                entered.nlink += 1
            inode.ctime_ns = now
        old_dir.mtime_ns = old_dir.ctime_ns = new_dir.mtime_ns = new_dir.ctime_ns = now


def _check_replaces(moved: Inode, replaced: Inode, src: str, dst: str) -> None:
    """Check that rename may put `moved` in the place of `replaced`. ENOTDIR EISDIR ENOTEMPTY."""
    if moved.entries is not None and replaced.entries is None:
        raise oserror(errno.ENOTDIR, src, dst)
    if moved.entries is None and replaced.entries is not None:
        raise oserror(errno.EISDIR, src, dst)
    if replaced.entries:
        raise oserror(errno.ENOTEMPTY, src, dst)


def _head(content: Content, size: int) -> Content:
    """Return the first `size` bytes of a content that is nobody's, as one that is nobody's."""
    if size >= content.size:
        return content
    head = blocks.truncate(content, size, object())
    head.owner = None
    return head
