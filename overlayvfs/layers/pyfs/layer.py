"""`PyFsLayer`: the verbs of a layer over any PyFilesystem."""

import errno
import stat
from collections.abc import Collection, Hashable, Sequence

from fs.base import FS

from overlayvfs.abi import NAME_MAX, PAGE_SIZE, ST_RDONLY, Dirent, Stat, StatVfs, oserror
from overlayvfs.layers.base import Capabilities, Handle, Progress, UpperLayer
from overlayvfs.layers.memory import MemoryLayer
from overlayvfs.layers.pyfs import metadata
from overlayvfs.layers.pyfs.backend import Backend
from overlayvfs.layers.pyfs.facts import Facts
from overlayvfs.layers.pyfs.handle import PyFsHandle
from overlayvfs.layers.pyfs.nodes import Node
from overlayvfs.layers.pyfs.probe import probe
from overlayvfs.layers.pyfs.rename import remove_empty_dir, remove_or_put_aside, rename
from overlayvfs.layers.pyfs.spelling import OPAQUE, STORED_WORK, sorted_out, stored, whiteout_of
from overlayvfs.layers.pyfs.tree import Tree
from overlayvfs.marks import USER, MarkNames


class PyFsLayer:
    """A tree in a PyFilesystem, as lower or upper.

    One lock, the FS's own, is held around every verb and every read: PyFilesystem's files share
    positions and connections behind one's back.
    """

    def __init__(self, fs: FS, *, marks: MarkNames = USER) -> None:
        """Open `fs` at its root.

        `marks` is how an opaque directory's mark is called when it is listed or set; it is told under either name.

        Raises:
            EIO, ENOENT, ...: naming the FS, if it is closed or its root can't be reached.

        """
        self._backend = Backend(fs)
        self._fs = fs
        self.lock = self._backend.lock
        self.tree = Tree(self._backend)
        self.marks = marks
        self._capabilities = self._as_told()

    @property
    def name(self) -> str:
        return self._backend.name

    @property
    def capabilities(self) -> Capabilities:
        return self._capabilities

    @property
    def writable(self) -> bool:
        """Whether the FS says that it can be written."""
        return not self._backend.read_only

    def _as_told(self) -> Capabilities:
        """Return what a lower shows. What an upper keeps is known from `prepare` on; until then it is nothing."""
        told = self._backend.tells_links and self._backend.read_only
        return Capabilities(
            marks=False,
            symlinks=told,
            hard_links=False,
            modes=told,
            owners=told,
            times=told,
            xattrs=False,
            devices=told,
            trusted_xattrs=False,
            atomic_rename=False,
        )

    def _as_kept(self) -> Capabilities:
        """Return what an upper keeps: PyFilesystem can't make symlinks, links, devices or attributes."""
        kept = self.tree.kept
        return Capabilities(
            marks=False,
            symlinks=False,
            hard_links=False,
            modes=kept.modes,
            owners=kept.owners,
            times=kept.times and kept.dir_times,
            xattrs=False,
            devices=False,
            trusted_xattrs=False,
            atomic_rename=False,
        )

    def identity(self) -> Hashable:
        return self.ancestry()[0]

    def ancestry(self) -> Sequence[Hashable]:
        return self._backend.ancestry()

    # Reading

    def lstat(self, path: str) -> Stat:
        with self.lock:
            return self.tree.get(path).stat

    def look(self, path: str) -> Stat | None:
        with self.lock:
            try:
                found = self.tree.find(path)
            except FileNotFoundError:
                return None
            return None if found is None else found.stat

    def mark(self, path: str, name: str) -> bytes | None:
        if name not in OPAQUE:
            return None
        with self.lock:
            where, kind = self._place(path)
            return b"y" if kind == stat.S_IFDIR and self.tree.is_opaque(where) else None

    def names(self, path: str) -> Collection[str] | None:
        if self._backend.is_network:
            return None
        with self.lock:
            objects, whiteouts = sorted_out((name, None) for name in self._backend.names(self._dir(path)))
            return frozenset((*objects, *whiteouts))

    def listdir(self, path: str) -> list[Dirent]:
        with self.lock:
            where = self._dir(path)
            listing = self.tree.listing(where)
            above = where.rstrip("/")
            entries = [
                Dirent(name, self.tree.nodes.at(f"{above}/{name}").ino, stat.S_IFMT(entry.stat.st_mode))
                for name, entry in listing.objects.items()
            ]
            number = self.tree.nodes.whiteout_number
            return entries + [Dirent(name, number, stat.S_IFCHR) for name in listing.whiteouts]

    def readlink(self, path: str) -> str:
        with self.lock:
            found = self.tree.get(path)
            if not stat.S_ISLNK(found.stat.st_mode):
                raise oserror(errno.EINVAL, path)
            return self.tree.target(found)

    def getxattr(self, path: str, name: str) -> bytes:
        with self.lock:
            return metadata.get_attribute(self.tree, *self._place(path), name)

    def listxattr(self, path: str) -> list[str]:
        with self.lock:
            return metadata.list_attributes(self.tree, *self._place(path), self.marks)

    def open(self, path: str, *, writable: bool = False) -> Handle:
        with self.lock:
            node = self.tree.get_node(path)
            if writable:
                self.tree.check_writable()
                if node is not None and node.kind == stat.S_IFDIR:
                    raise oserror(errno.EISDIR, path)
            if node is None:
                node = Node("", None, self.tree.nodes.whiteout_number, unlinked=True, last=self.tree.get(path).stat)
            return PyFsHandle(self, node, writable=writable)

    def file_handle(self, path: str) -> bytes | None:
        with self.lock:
            # Numbers are this object's own and end with it: nothing to know an object by later.
            self.tree.get_node(path)
            return None

    def find_handle(self, value: bytes, hint: str | None = None) -> Stat | None:
        return None

    def statvfs(self) -> StatVfs:
        # PyFilesystem has no word for room: none used and none free, as file systems without a limit say.
        flags = ST_RDONLY if self._backend.read_only else 0
        return StatVfs(PAGE_SIZE, PAGE_SIZE, 0, 0, 0, 0, 0, 0, flags, NAME_MAX)

    def close(self) -> None:
        self.release(keep_index=False)

    def _dir(self, path: str) -> str:
        node = self.tree.get_node(path)
        if node is None or node.kind != stat.S_IFDIR:
            raise oserror(errno.ENOTDIR, path)
        return stored(path)

    def _place(self, path: str) -> tuple[str, int]:
        """Return where an object is and its kind, without asking again what was asked before."""
        node = self.tree.get_node(path)
        return stored(path), 0 if node is None else node.kind

    # Writing

    def prepare(self, *, index: bool) -> None:
        if index:
            raise oserror(errno.EINVAL, reason=f"{self.name} can't hold the hard links an index is made of: index=off")
        with self.lock:
            self.tree.check_writable()
            self._remove_work()
            self.tree.ensure_work()
            self.tree.kept = probe(self._backend)
            self._backend.facts = Facts(stamps_parents=self.tree.kept.stamps_parents)
            self._capabilities = self._as_kept()

    def release(self, *, keep_index: bool) -> None:
        with self.lock:
            if self.tree.has_work:
                self.tree.sync()
                self._backend.facts = None
                self._remove_work()

    def empty_twin(self, *, index: bool) -> UpperLayer:
        """Return a memory layer: it holds the marks as the kernel spells them, and all else this one may be given."""
        twin = MemoryLayer(name=f"{self.name} (copy)")
        twin.prepare(index=index)
        return twin

    def create(self, path: str, mode: int, uid: int, gid: int) -> Handle:
        with self.lock:
            return self._create(self.tree.check_free(path), mode, uid, gid)

    def tmpfile(self, mode: int, uid: int, gid: int) -> Handle:
        with self.lock:
            self.tree.check_writable()
            self.tree.ensure_work()
            where = self.tree.orphan_path()
            self.tree.nodes.at(where).unlinked = True
            return self._create(where, mode, uid, gid)

    def _create(self, where: str, mode: int, uid: int, gid: int) -> Handle:
        file = None
        with self.tree.steps() as steps:
            if self.tree.kept.writes_at_once:
                # Made and opened in one call: the next thing is a write.
                file = steps.open_new(where)
            else:
                steps.make_file(where)
        node = self._made(where, stat.S_IFREG, mode, uid, gid)
        return PyFsHandle(self, node, writable=True, file=file)

    def mkdir(self, path: str, mode: int, uid: int, gid: int) -> None:
        with self.lock:
            where = self.tree.check_free(path)
            with self.tree.steps() as steps:
                steps.make_dir(where, mode)
            self._made(where, stat.S_IFDIR, mode, uid, gid)

    def _made(self, where: str, kind: int, mode: int, uid: int, gid: int) -> Node:
        metadata.keep_what_fits(self.tree, where, mode, uid, gid)
        node = self.tree.nodes.at(where)
        node.kind, node.size = kind, 0
        self.tree.stamp(node)
        self.tree.stamp_parent(where)
        return node

    def mknod(self, path: str, mode: int, rdev: int, uid: int, gid: int) -> None:
        with self.lock:
            where = self.tree.check_free(path)
            if stat.S_IFMT(mode) == stat.S_IFREG:
                self._create(where, stat.S_IMODE(mode), uid, gid).close()
                return
            if stat.S_IFMT(mode) != stat.S_IFCHR or rdev:
                raise self._refusal(path, "can't hold device nodes, fifos and sockets")
            with self.tree.steps() as steps:
                steps.put_mark(whiteout_of(where))
            self.tree.stamp_parent(where)

    def symlink(self, target: str, path: str, uid: int, gid: int) -> None:
        with self.lock:
            self.tree.check_free(path)
            raise self._refusal(path, "can't make symlinks")

    def link(self, src: str, dst: str) -> None:
        with self.lock:
            self.tree.get(src)
            self.tree.check_free(dst)
            raise self._refusal(dst, "can't hold hard links")

    def unlink(self, path: str) -> None:
        with self.lock:
            found = self.tree.get(path)
            if found.is_dir:
                raise oserror(errno.EISDIR, path)
            with self.tree.steps() as steps:
                if found.is_whiteout:
                    steps.remove_file(whiteout_of(found.path))
                else:
                    self.tree.park(found.path)
                    remove_or_put_aside(self.tree, steps, found)
            self.tree.stamp_parent(found.path)

    def rmdir(self, path: str) -> None:
        with self.lock:
            found = self.tree.get(path)
            if not found.is_dir:
                raise oserror(errno.ENOTDIR, path)
            with self.tree.steps() as steps:
                remove_empty_dir(self.tree, steps, found)
            self.tree.forget(found.path, found.stat)
            self.tree.stamp_parent(found.path)

    def rename(self, src: str, dst: str, flags: int = 0) -> None:
        with self.lock:
            rename(self.tree, src, dst, flags)

    def chmod(self, path: str, mode: int) -> None:
        with self.lock:
            metadata.set_mode(self.tree, self.tree.get(path), mode)

    def chown(self, path: str, uid: int, gid: int) -> None:
        with self.lock:
            metadata.set_owner(self.tree, self.tree.get(path), uid, gid)

    def utime(self, path: str, atime_ns: int, mtime_ns: int) -> None:
        with self.lock:
            metadata.set_times(self.tree, self.tree.get(path), atime_ns, mtime_ns)

    def setxattr(self, path: str, name: str, value: bytes, flags: int = 0) -> None:
        with self.lock:
            metadata.set_attribute(self.tree, self.tree.get(path), name, value, flags, self.marks)

    def removexattr(self, path: str, name: str) -> None:
        with self.lock:
            metadata.remove_attribute(self.tree, self.tree.get(path), name, self.marks)

    def clone(self, src: Handle, dst: Handle, size: int, progress: Progress | None = None) -> bool:
        return False

    def sync(self) -> None:
        with self.lock:
            self.tree.sync()

    def _refusal(self, path: str, what: str) -> OSError:
        return oserror(errno.EPERM, path, reason=f"{self.name} {what}")

    def _remove_work(self) -> None:
        """Remove WORK with all it holds."""
        self.tree.has_work = False
        if self._backend.find(STORED_WORK) is None:
            return
        directories = [STORED_WORK]
        for directory in directories:
            for entry in self._backend.scan(directory):
                path = f"{directory}/{entry.name}"
                if stat.S_ISDIR(entry.stat.st_mode):
                    directories.append(path)
                else:
                    self._backend.remove(path)
        for directory in reversed(directories):
            self._backend.remove_dir(directory)
        self.tree.nodes.drop(STORED_WORK)
