"""What is where in a plain PyFilesystem, seen as a layer: names, marks, numbers and open files together."""

import errno
import itertools
import stat
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import BinaryIO, Final

from overlayvfs.abi import Stat, anonymous_dev, oserror
from overlayvfs.layers.pyfs.backend import ROOT, Backend
from overlayvfs.layers.pyfs.content import Content
from overlayvfs.layers.pyfs.listings import Listing, Listings
from overlayvfs.layers.pyfs.nodes import Node, Nodes
from overlayvfs.layers.pyfs.spelling import RESERVED, STORED_WORK, is_reserved, opaque_in, stored, whiteout_of
from overlayvfs.layers.pyfs.steps import Kept, Steps

_WHITEOUT_MODE: Final = stat.S_IFCHR


@dataclass(frozen=True, slots=True)
class Found:
    """An object of the layer: where the backend would keep it, and its attributes as the layer shows them."""

    path: str
    stat: Stat

    @property
    def is_dir(self) -> bool:
        return stat.S_ISDIR(self.stat.st_mode)

    @property
    def is_whiteout(self) -> bool:
        return self.stat.st_mode == _WHITEOUT_MODE and self.stat.st_rdev == 0


def _split(where: str) -> tuple[str, str]:
    parent, _, name = where.rpartition("/")
    return parent or ROOT, name


class Tree:
    """The state the verbs share. The layer's lock is held around every call."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.nodes = Nodes()
        self.dev = anonymous_dev()
        self.kept = Kept(writes_in_place=not backend.is_network)
        self.has_work = False
        """WORK is there, made or found by this layer."""
        # The directory checked last, with `nodes.moves` then: what is asked next is mostly in it.
        self._checked = ("", -1)
        self._open: set[Node] = set()
        self._restamped: set[Node] = set()
        """Directories whose times the backend was not told yet."""
        self._orphan_numbers = itertools.count(1)
        # Listing answers what lookups would ask one by one: worth keeping where asking is dear, and where
        # only a listing shows a symlink that dangles.
        self._listings: Listings | None = Listings() if backend.is_network or backend.tells_links else None
        self._root_times: tuple[int, int] | None = None
        """Access and modification of a root the backend gives none (ns); as on vfat, they last as long as the mount."""

    def check_writable(self) -> None:
        """Raise EROFS on a backend that can't be written. What is written is no lower: nothing told stays true."""
        if self.backend.read_only:
            raise oserror(errno.EROFS, reason=f"{self.backend.name} is read-only")
        self._listings = None

    def steps(self) -> Steps:
        """Return the block for a change. EROFS."""
        self.check_writable()
        return Steps(self.backend, self.kept)

    # Looking up

    def find(self, path: str) -> Found | None:
        """Return what is at a layer's path, None if nothing. ENOENT, ENOTDIR: of its directory."""
        where = stored(path)
        if where == ROOT:
            return Found(ROOT, self._completed(ROOT, self._told_of_root()))
        if where != STORED_WORK:
            self.check_parent(path)
        told = self._told(where)
        if told is not None:
            return Found(where, self._completed(where, told))
        mark = self._told_of_mark(where)
        return None if mark is None else Found(where, self.as_whiteout(mark))

    def get(self, path: str) -> Found:
        """Return what is at a layer's path. ENOENT ENOTDIR."""
        found = self.find(path)
        if found is None:
            raise oserror(errno.ENOENT, path)
        return found

    def get_node(self, path: str) -> Node | None:
        """Return the node of what is at a layer's path, None for a whiteout; nothing is asked twice for it."""
        node = self.nodes.known(stored(path))
        if node is not None and node.kind:
            return node
        found = self.get(path)
        return None if found.is_whiteout else self.nodes.at(found.path)

    def check_parent(self, path: str) -> None:
        """Raise ENOENT or ENOTDIR unless the directory of a layer's path is one.

        A backend would follow a symlink there, and most don't tell a missing directory from a file.
        """
        above = path.rpartition("/")[0]
        if self._checked == (above, self.nodes.moves):
            return
        parent = self.get_node(above)
        if parent is None or parent.kind != stat.S_IFDIR:
            raise oserror(errno.ENOTDIR, path)
        self._checked = above, self.nodes.moves

    def check_free(self, path: str) -> str:
        """Return where a new object will be. ENOENT ENOTDIR EEXIST; EINVAL: its name would be a mark."""
        self.check_parent(path)
        if is_reserved(path):
            raise oserror(errno.EINVAL, path, reason=f"{self.backend.name} keeps its marks in names starting .wh.")
        where = stored(path)
        if where == ROOT or self._told(where) is not None or self._told_of_mark(where) is not None:
            raise oserror(errno.EEXIST, path)
        return where

    def target(self, found: Found) -> str:
        """Return where a symlink points."""
        parent, name = _split(found.path)
        listing = self._listed(parent)
        told = None if listing is None else listing.objects[name].target
        return self.backend.target(found.path) if told is None else told

    def _told_of_root(self) -> Stat:
        """Return what the backend tells of the root; where asking is dear, what it told when it was opened."""
        if self._listings is not None:
            return self.backend.first_told_of_root
        return self.backend.recall(ROOT) or self.backend.stat(ROOT)

    def _told(self, where: str) -> Stat | None:
        """Return what the backend tells of an object, None if there is none."""
        if self._listings is None:
            return self._recall(where)
        parent, name = _split(where)
        listing = self._listings.get(parent)
        if listing is None:
            told = self.backend.find(where)
            if told is not None or not self.backend.tells_links:
                return told
            # Nothing, or a symlink that dangles: asked about, the backend follows it.
            listing = self.listing(parent)
        entry = listing.objects.get(name)
        return None if entry is None else entry.stat

    def _recall(self, where: str) -> Stat | None:
        """Return what the backend told of an object; while it is read or written it is asked."""
        if self._open:
            node = self.nodes.known(where)
            if node is not None and node.content is not None and node.content.is_used:
                return self.backend.find(where)
        return self.backend.recall(where)

    def _told_of_mark(self, where: str) -> Stat | None:
        """Return what the backend tells of a name's whiteout, None if it has none."""
        if self._listings is None:
            return self.backend.recall(whiteout_of(where))
        parent, name = _split(where)
        listing = self._listed(parent)
        if listing is None:
            return self.backend.find(whiteout_of(where))
        entry = listing.whiteouts.get(name)
        return None if entry is None else entry.stat

    def _listed(self, where: str) -> Listing | None:
        return None if self._listings is None else self._listings.get(where)

    def listing(self, where: str) -> Listing:
        """Return what is in a backend's directory."""
        listing = self._listed(where)
        if listing is None:
            listing = Listing.of(self.backend.scan(where))
            if self._listings is not None:
                self._listings.keep(where, listing)
        return listing

    def is_opaque(self, where: str) -> bool:
        listing = self._listed(where)
        if listing is not None:
            return listing.opaque
        return self.backend.recall(opaque_in(where)) is not None

    # Attributes

    def _completed(self, where: str, told: Stat) -> Stat:
        """Return what the backend tells with what only this layer knows."""
        node = self.nodes.at(where)
        node.kind = stat.S_IFMT(told.st_mode)
        node.size = told.st_size
        return self.shown(node, told)

    def shown(self, node: Node, told: Stat) -> Stat:
        """Return a node's attributes from what the backend tells of it."""
        atime, mtime = told.st_atime_ns, told.st_mtime_ns
        if node is self.nodes.root and self._root_times is not None:
            atime, mtime = self._root_times
        if node.mtime_ns is not None:
            mtime = node.mtime_ns
        size = node.content.size() if node.content is not None else None
        if size is None:
            size, blocks = told.st_size, told.st_blocks
        else:
            blocks = -(-size // 512)
        # `_replace` takes four times as long.
        return tuple.__new__(
            Stat,
            (
                told.st_mode,
                node.ino,
                self.dev,
                0 if node.unlinked else told.st_nlink,
                told.st_uid,
                told.st_gid,
                size,
                atime,
                mtime,
                max(told.st_ctime_ns, node.ctime_ns) or mtime,
                blocks,
                told.st_rdev,
                told.st_blksize,
            ),
        )

    def as_whiteout(self, mark: Stat) -> Stat:
        """Return how a whiteout shows whose mark has these attributes: as the kernel's, one inode for all."""
        return mark._replace(
            st_mode=_WHITEOUT_MODE,
            st_ino=self.nodes.whiteout_number,
            st_dev=self.dev,
            st_nlink=1,
            st_uid=0,
            st_gid=0,
            st_size=0,
            st_blocks=0,
            st_rdev=0,
            st_ctime_ns=mark.st_ctime_ns or mark.st_mtime_ns,
        )

    def found_of(self, node: Node) -> Found:
        """Return the object of a handle, wherever it is now. ESTALE: nothing is left of it but `node.last`."""
        self.check_named(node)
        told = self._told_of_root() if node is self.nodes.root else self._told(node.path)
        if told is None:
            raise self.backend.lie(node.path, "does not show any more what was open")
        return Found(node.path, self.shown(node, told))

    def check_named(self, node: Node) -> None:
        """Raise ESTALE if nothing is left of an object but `node.last`."""
        if node.parent is None and node is not self.nodes.root:
            raise oserror(errno.ESTALE, reason=f"{self.backend.name} can't change what has no name any more")

    def set_times(self, where: str, atime_ns: int | None, mtime_ns: int) -> None:
        """Set the times of an object the backend keeps at `where`; None leaves the access time to the backend."""
        node = self.nodes.known(where)
        if node is not None:
            node.mtime_ns = None
        if where != ROOT:
            self.backend.set_times(where, atime_ns, mtime_ns)
            return
        # Some have a root without times, and say so or not.
        with suppress(OSError):
            self.backend.set_times(ROOT, atime_ns, mtime_ns)
            if self.backend.stat(ROOT).st_mtime_ns == mtime_ns:
                self._root_times = None
                return
        self._root_times = (mtime_ns if atime_ns is None else atime_ns, mtime_ns)

    def stamp(self, node: Node) -> None:
        """Note that an object was changed."""
        node.ctime_ns = time.time_ns()

    def stamp_parent(self, where: str) -> None:
        """Note that a name in a directory was made or removed. The change is done, so nothing here may fail."""
        parent = self.nodes.at(where.rpartition("/")[0] or ROOT)
        self.stamp(parent)
        if self.kept.dir_times and not self.kept.stamps_parents:
            # Told to the backend with the next sync or the release: each name would cost a call as dear as a lookup.
            parent.mtime_ns = parent.ctime_ns
            self._restamped.add(parent)

    def write_times(self) -> None:
        """Tell the backend the directories' times that names changed, where it doesn't keep them up itself."""
        restamped, self._restamped = self._restamped, set()
        for node in restamped:
            if node.mtime_ns is not None and not node.unlinked:
                with suppress(OSError):
                    self.set_times(node.path, None, node.mtime_ns)

    # Open files

    def take_handle(self, node: Node, *, writable: bool, file: BinaryIO | None = None) -> None:
        """Count one more handle on a node; `file` is the backend's, where it was made by opening it."""
        if node.kind == stat.S_IFREG:
            if node.content is None:
                in_place = self.kept.writes_in_place
                node.content = Content(self.backend, lambda: node.path, node.size, in_place=in_place, file=file)
                self._open.add(node)
            if writable:
                node.content.make_writable()
        node.handles += 1

    def drop_handle(self, node: Node) -> None:
        """Count one handle less; with the last one the file is closed, and gone if it had lost its name."""
        node.handles -= 1
        if node.handles or node.content is None:
            return
        content, node.content = node.content, None
        self._open.discard(node)
        if node.unlinked:
            content.discard()
            self.remove_orphan(node)
        else:
            content.close()

    def park(self, *paths: str) -> None:
        """Let go of the backend's files at and below its `paths`, whose names are about to change."""
        for node in self._open:
            where = node.path
            if any(where == path or where.startswith(f"{path}/") for path in paths):
                assert node.content is not None
                node.content.park()

    def sync(self) -> None:
        self.write_times()
        for node in self._open:
            assert node.content is not None
            node.content.sync()

    # Objects without a name

    def orphan_path(self) -> str:
        """Return a backend's path in WORK that no listing shows and nobody can ask for."""
        return f"{STORED_WORK}/{RESERVED}.{next(self._orphan_numbers)}"

    def ensure_work(self) -> None:
        """Make WORK unless it is there; removing a file that is open takes one, `prepare` or not."""
        if not self.has_work and self.backend.find(STORED_WORK) is None:
            self.backend.make_dir(STORED_WORK, None)
        self.has_work = True

    def lose_name(self, where: str, orphan: str, st: Stat) -> None:
        """Note that the object at `where` was moved to `orphan`; it is removed unless it is open."""
        node = self.nodes.drop(where)
        node.unlinked = True
        node.last = st._replace(st_nlink=0)
        self.nodes.place(node, orphan)
        self.stamp(node)
        if node.content is None:
            self.remove_orphan(node)

    def remove_orphan(self, node: Node) -> None:
        """Remove an object without a name. What fails to go is in nobody's way, and goes with WORK."""
        where = node.path
        with suppress(OSError):
            self.backend.remove(where)
        self.nodes.drop(where)

    def forget(self, where: str, st: Stat) -> None:
        """Note that the object at `where` is gone; its handles still tell what it was."""
        node = self.nodes.drop(where)
        node.unlinked = True
        node.last = st._replace(st_nlink=0)
