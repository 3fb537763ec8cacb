"""Each POSIX verb by path: resolve, lock, call. What the verbs do is in the files named after them."""

import errno
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from types import TracebackType

from overlayvfs.abi import (
    O_ACCMODE,
    O_CREAT,
    O_RDONLY,
    O_TRUNC,
    O_WRONLY,
    PATH_MAX,
    ST_RDONLY,
    Dirent,
    Stat,
    StatVfs,
    oserror,
)
from overlayvfs.engine import attr, create, remove, restore, xattr
from overlayvfs.engine import fork as forking
from overlayvfs.engine import rename as renaming
from overlayvfs.engine.changes import Change, compare, compare_with_lowers, locked, touched
from overlayvfs.engine.checks import check_not_volatile, make_ready
from overlayvfs.engine.dentry import Dentry, Listing
from overlayvfs.engine.file import File
from overlayvfs.engine.fork import Checkpoint
from overlayvfs.engine.inode import attributes, dismiss_readers, expect_readers, lower_content, remember, share_inode
from overlayvfs.engine.lookup import shrink
from overlayvfs.engine.mount import RAW, CopyUpCallback, Credentials, Memory, Mount, Options, Report, check_overlap
from overlayvfs.engine.namecache import NameCache
from overlayvfs.engine.open import open_file
from overlayvfs.engine.permission import READ, acting_as, allowed, may
from overlayvfs.engine.readdir import list_dir, listing, scan
from overlayvfs.engine.resolve import (
    Last,
    NotPlain,
    Target,
    find,
    find_parent,
    find_plain,
    last_component,
    read_link,
)
from overlayvfs.engine.sharing import lower_of
from overlayvfs.engine.where import Where, shown_by_lowers, where
from overlayvfs.engine.whole import know_parent, numbered, rewrite_at_once, write_at_once
from overlayvfs.layers.base import Layer, Torn, UpperLayer
from overlayvfs.marks import MarkNames

# Linux reports these for what the path itself is, before it asks whether the mount can be written.
_UNLINK_LAST = {Last.DOT: errno.EISDIR, Last.DOTDOT: errno.EISDIR, Last.ROOT: errno.EISDIR}
_RMDIR_LAST = {Last.DOT: errno.EINVAL, Last.DOTDOT: errno.ENOTEMPTY, Last.ROOT: errno.EBUSY}


_FOR_CHANGE = O_ACCMODE | O_CREAT | O_TRUNC
"""An open with any of these copies up, creates or cuts: O_RDONLY is 0."""


class Overlay:
    """A merged tree (overlayfs.rst) as POSIX verbs by path; every verb raises OSError with the caller's own paths.

    A path may start at the root or leave the slash out. Verbs may be called from any thread.
    """

    def __init__(self, mnt: Mount) -> None:
        self._mnt = mnt

    @classmethod
    def mount(
        cls,
        lowers: Sequence[Layer],
        upper: UpperLayer | None,
        options: Options | None = None,
        memory: Memory | None = None,
        *,
        data_only: Sequence[Layer] = (),
    ) -> "Overlay":
        """Stack `lowers` (highest first) below `upper`, and `data_only` out of sight; touches no tree.

        Raises:
            EINVAL: no layer at all, or data-only ones alone; no place for the upper's work directory, or a volatile
                mount left that as it is.
            ELOOP: layers that are, or lie inside, one another.
            EBUSY: the upper belongs to a live overlay.
            ESTALE, ENODATA: as make_ready: an index that is not this stack's.

        """
        if data_only and not lowers:
            raise oserror(errno.EINVAL, reason="data-only lowers need at least one lower that shows names")
        if not lowers and upper is None:
            raise oserror(errno.EINVAL, reason="an overlay needs at least one layer")
        check_overlap([*lowers, *data_only], upper)
        mnt = Mount(lowers, upper, options or Options(), data_only=data_only)
        if memory is not None:
            mnt.names.names_max = memory.names
            mnt.lowers.contents.bytes_max = memory.contents
            mnt.lowers.detect = memory.detect
        if upper is not None:
            check_not_volatile(upper)
        mnt.claim_upper()
        try:
            make_ready(mnt)
        except BaseException:
            mnt.close()
            raise
        return cls(mnt)

    @classmethod
    def bare(cls, layer: UpperLayer) -> "Overlay":
        """Show one layer without a union: marks are plain attributes and whiteouts plain devices."""
        mnt = Mount((), layer, Options())
        mnt.bare = True
        mnt.marks = RAW
        return cls(mnt)

    @property
    def credentials(self) -> Credentials:
        """Who calls: what permission checks and new objects go by; the superuser unless changed."""
        with self._mnt.lock:
            # Whoever gets them may change them, and what is known holds for the superuser only.
            self._mnt.names.flush()
            return self._mnt.credentials

    def invalidate(self, path: str) -> None:
        """Forget what was found at `path` and below: a lower was changed there (today: all that is not open)."""
        with _Verb(self._mnt, path) as mnt:
            mnt.lowers.contents.flush()
            shrink(mnt)

    def as_mounter(self) -> AbstractContextManager[None]:
        """Let the verbs of a block act with all rights, as an overlay acts on its layers whoever calls."""
        return acting_as(self._mnt, Credentials())

    @contextmanager
    def inspect(self) -> Iterator[Mount]:
        """Give the mount itself to look at: layers, marks. No other thread changes anything meanwhile. EBADF."""
        with self._mnt.lock:
            if self._mnt.closed:
                raise oserror(errno.EBADF, reason="the overlay is closed")
            yield self._mnt

    @property
    def options(self) -> Options:
        """The mount options in force."""
        return self._mnt.options

    @property
    def read_only(self) -> bool:
        """Whether there is no upper, or none that can be written any more."""
        return self._mnt.read_only

    @property
    def on_copy_up(self) -> CopyUpCallback | None:
        """Is called while a file's contents are copied up, and once when all are: path, bytes done, bytes in all.

        The overlay is locked meanwhile and must not be used; whatever it raises leaves the tree as it was.
        """
        return self._mnt.on_copy_up

    @on_copy_up.setter
    def on_copy_up(self, callback: CopyUpCallback | None) -> None:
        self._mnt.on_copy_up = callback

    @property
    def closed(self) -> bool:
        """Whether the overlay was ended."""
        return self._mnt.closed

    def close(self) -> None:
        """End the overlay and set its upper free; idempotent. Every verb after that is EBADF."""
        self._mnt.close()

    def __del__(self) -> None:
        mnt = self.__dict__.get("_mnt")
        if mnt is not None:
            mnt.close()

    def watch(self, report: Report) -> None:
        """Have `report` told of every verb that changes something, or was to, by path or by descriptor."""
        with self._mnt.lock:
            self._mnt.watchers = (*self._mnt.watchers, report)

    def unwatch(self, report: Report) -> None:
        """Undo `watch`; idempotent."""
        with self._mnt.lock:
            self._mnt.watchers = tuple(one for one in self._mnt.watchers if one is not report)

    def fork(self) -> "Overlay":
        """Return an independent overlay that equals this one now; see engine.fork for costs and errnos."""
        with _Verb(self._mnt, "/") as mnt:
            return Overlay(forking.fork(mnt))

    def fork_point(self, parent: "Overlay") -> Checkpoint:
        """Return what this fork and its parent were last both. EINVAL: it was not forked from `parent`."""
        point, forked_from = self._mnt.fork_point, self._mnt.parent
        if point is None or forked_from is None or forked_from() is not parent._mnt:
            raise oserror(errno.EINVAL, reason="this is no fork of the overlay it is to be merged into")
        return point

    def merged_into(self, parent: "Overlay") -> None:
        """Take what this fork is now as what it and its parent have in common."""
        self.fork_point(parent)
        self._mnt.fork_point = self.checkpoint()

    def checkpoint(self) -> Checkpoint:
        """Return what this overlay is now, to compare with and go back to; see engine.fork for costs and errnos."""
        with _Verb(self._mnt, "/") as mnt:
            return forking.checkpoint(mnt)

    def rollback(self, to: Checkpoint) -> None:
        """Make this overlay what it was at a checkpoint; see engine.restore for errnos and what open files see."""
        with _Change(self._mnt, "rollback", "/") as mnt:
            restore.rollback(mnt, to)

    def view(self, since: "Checkpoint | Overlay | None" = None) -> "Overlay":
        """Return what this overlay is compared with, to read it: its lowers alone, a checkpoint, a fork. EINVAL."""
        with _Verb(self._mnt, "/") as mnt:
            if since is None:
                return Overlay(forking.lowers_alone(mnt))
            other = since._mnt if isinstance(since, Overlay) else since.mnt
            if other.closed:
                raise oserror(errno.EBADF, reason="the overlay to compare with is closed")
            if other.lowers is not mnt.lowers:
                raise oserror(errno.EINVAL, reason="this is no checkpoint or fork of the overlay")
            return Overlay(forking.view(other))

    def changes(
        self,
        since: "Checkpoint | Overlay | None" = None,
        *,
        content: bool = False,
        directory_times: bool = False,
    ) -> list[Change]:
        """Return what differs from the lowers, a checkpoint or a fork, sorted by path; see engine.changes. EINVAL."""
        if since is None:
            return compare_with_lowers(self._mnt, content=content, directory_times=directory_times)
        base = self.view(since)
        try:
            return compare(self._mnt, base._mnt, content=content, directory_times=directory_times)
        finally:
            base.close()

    @property
    def lowers(self) -> Sequence[Layer]:
        """The lowers, the highest first."""
        return self._mnt.lowers.layers

    @property
    def marks(self) -> MarkNames:
        """How this overlay's marks are called."""
        return self._mnt.marks

    @property
    def hard_links(self) -> bool:
        """Whether an object can be given a second name."""
        return self._mnt.upper is not None and self._mnt.upper.capabilities.hard_links

    def forget_lowers(self) -> None:
        """Look everything up anew: a lower was changed with this overlay's knowledge."""
        with _Verb(self._mnt, "/") as mnt:
            restore.forget_lowers(mnt)

    def vanished_from_lowers(self) -> list[str]:
        """Return the paths of what the lowers showed and have no more: somebody changed them against the rule."""
        with _Verb(self._mnt, "/") as mnt:
            return mnt.lowers.vanished()

    def where(self, path: str) -> Where:
        """Tell which layer shows `path` (a symlink itself) and why, or why nothing does; errnos as engine.where."""
        with _Verb(self._mnt, path) as mnt:
            return where(mnt, path)

    def shown_by_lowers(self, path: str) -> tuple[int, ...]:
        """Return the lowers that show what is at a plain path without the upper: several if they merge a directory."""
        with _Verb(self._mnt, path) as mnt:
            return shown_by_lowers(mnt, path)

    def touched(self) -> list[str]:
        """Return the path of everything in the upper that shows and is no directory, sorted."""
        with _Verb(self._mnt, "/") as mnt:
            return touched(mnt)

    def drop(self, path: str) -> bool:
        """Let the lowers show again what they have at `path`, with all below; False where the parent hides them."""
        with _Change(self._mnt, "discard", path) as mnt:
            return restore.drop(mnt, find_parent(mnt, path))

    def empty(self) -> None:
        """Remove everything from the upper but its root's attributes, and look everything up anew, the lowers too."""
        with _Change(self._mnt, "discard", "/") as mnt:
            restore.empty(mnt)

    def lower_of(self, layer: Layer) -> int:
        """Return which lower `layer` is, 1 being the highest; 0 if it is none.

        EBUSY: it is the upper of a live overlay, or other live overlays have a lower in it, around it or of it.
        EINVAL: it lies inside or around a lower of this one.
        """
        return lower_of(self._mnt, layer)

    def stat(self, path: str, *, follow: bool = True) -> Stat:
        """Return an object's attributes. ENOENT ENAMETOOLONG ENOTDIR ELOOP EACCES."""
        with _Verb(self._mnt, path) as mnt:
            return attributes(mnt, find(mnt, path, follow=follow))

    def listdir(self, path: str) -> list[Dirent]:
        """Return a directory's names without `.` and `..` (readdir(3)). ENOTDIR EACCES."""
        with _Verb(self._mnt, path) as mnt:
            return list_dir(mnt, _readable_dir(mnt, find(mnt, path)))

    @property
    def known_names(self) -> NameCache:
        """What plain paths were found to be: answers that need no lock (see namecache)."""
        return self._mnt.names

    def known(self, path: str) -> Dentry | None:
        """Find out what a plain path is, None for nothing, and keep the answer in `known_names`.

        Raises:
            NotPlain: the answer can't be kept; ask the other verbs.
            OSError: as stat.

        """
        with _Verb(self._mnt, path) as mnt:
            return _know(mnt, path)

    def read_lower(self, path: str) -> bytes | None:
        """Return all of a small file that only a lower has, and keep it; None if it is not such a file. As `known`."""
        with _Verb(self._mnt, path) as mnt:
            dentry = _know(mnt, path)
            return None if dentry is None else lower_content(mnt, dentry)

    @property
    def stored_content(self) -> Callable[[int], bytes | None]:
        """Returns what a file of the upper holds by the number of its dentry, where that is at hand: needs no lock."""
        upper = self._mnt.numbered_upper
        return _nothing if upper is None else upper.content_of

    @property
    def stored_stat(self) -> Callable[[int], Stat | None]:
        """Returns the upper's own attributes of an object by the number of its dentry: needs no lock."""
        upper = self._mnt.numbered_upper
        return _nothing if upper is None else upper.stat_of

    def listing(self, path: str) -> Listing:
        """Return a directory's names and types, not to be changed; kept while they hold. ENOTDIR EACCES."""
        with _Verb(self._mnt, path) as mnt:
            try:
                dentry = find_plain(mnt, path)
            except NotPlain:
                dentry = None
            if dentry is None:
                dentry = find(mnt, path)
            else:
                mnt.names.learn(path, dentry)
            return listing(mnt, _readable_dir(mnt, dentry))

    def scan(self, path: str, *, numbers: bool) -> list[tuple[str, Stat]]:
        """Return a directory's names with their attributes, links as links; see readdir.scan. ENOTDIR EACCES."""
        with _Verb(self._mnt, path) as mnt:
            return scan(mnt, _readable_dir(mnt, find(mnt, path)), numbers=numbers)

    def content(self, dentry: Dentry) -> bytes | None:
        """Return all of a small file that only a lower has, and remember it; None if it is not such a file."""
        with _Verb(self._mnt, dentry.name) as mnt:
            return lower_content(mnt, dentry)

    def expect_readers(self, dentry: Dentry) -> bool:
        """Get ready to count light readers of a file; False if it can't have any."""
        with _Verb(self._mnt, dentry.name) as mnt:
            return expect_readers(mnt, dentry)

    def reopen(self, dentry: Dentry) -> File:
        """Open for reading what a light reader had found, under whatever name it has now, if any."""
        with _Verb(self._mnt, dentry.name) as mnt:
            return File(mnt, dentry, O_RDONLY, share_inode(mnt, dentry))

    def dismiss_readers(self, dentry: Dentry) -> None:
        """Let go of a file that was kept open for light readers, if no one is left."""
        dismiss_readers(self._mnt, dentry)

    def open(self, path: str, flags: int, mode: int = 0o777) -> File:
        """Open or create an object (open(2)); see engine.open for the errnos and their order."""
        with _Change(self._mnt, "open", path) if flags & _FOR_CHANGE else _Verb(self._mnt, path) as mnt:
            return open_file(mnt, path, flags, mode)

    def write_whole(self, path: str, data: bytes, mode: int) -> None:
        """Make a file, or empty the one there, and write all of it (open(2), write(2), close(2)). EISDIR ENOSPC."""
        with _Verb(self._mnt, path) as mnt:
            know_parent(mnt, path)
            if write_at_once(mnt, path, data, mode):
                return
        file = self.open(path, O_WRONLY | O_CREAT | O_TRUNC, mode)
        try:
            file.write(data)
        finally:
            file.close()

    def write_at_once(self, path: str, data: bytes, mode: int, dentry: Dentry | None) -> bool:
        """Do what `write_whole` does to what is known, `dentry` if it is; False if that takes more than one step."""
        mnt = self._mnt
        with mnt.lock:
            if dentry is not None and rewrite_at_once(mnt, dentry, data):
                return True
            return mnt.looked_up <= mnt.names.names_max and write_at_once(mnt, path, data, mode)

    def readlink(self, path: str) -> str:
        """Return a symlink's target. EINVAL."""
        with _Verb(self._mnt, path) as mnt:
            return read_link(mnt, find(mnt, path, follow=False))

    def mkdir(self, path: str, mode: int = 0o777) -> None:
        """Make a directory (mkdir(2)). EEXIST EROFS EACCES ENOSPC."""
        with _Change(self._mnt, "mkdir", path) as mnt:
            target = _free_name(mnt, path, directory=True)
            create.mkdir(mnt, target.parent, target.name, mode)

    def mknod(self, path: str, mode: int = 0o600, rdev: int = 0) -> None:
        """Make a fifo, socket, device or file (mknod(2)). EPERM (a directory, a whiteout) EINVAL EEXIST EROFS."""
        with _Change(self._mnt, "mknod", path) as mnt:
            kind = stat.S_IFMT(mode)
            if kind == stat.S_IFDIR:
                raise oserror(errno.EPERM)
            if kind not in (0, stat.S_IFREG, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO, stat.S_IFSOCK):
                raise oserror(errno.EINVAL)
            target = _free_name(mnt, path)
            create.mknod(mnt, target.parent, target.name, mode, rdev)

    def symlink(self, target: str, path: str) -> None:
        """Make a symlink holding `target` (symlink(2)). ENOENT (empty) ENAMETOOLONG EEXIST EROFS."""
        with _Change(self._mnt, "symlink", target, path) as mnt:
            if not target:
                raise oserror(errno.ENOENT)
            if len(target.encode("utf-8", "surrogateescape")) >= PATH_MAX:
                raise oserror(errno.ENAMETOOLONG)
            place = _free_name(mnt, path)
            create.symlink(mnt, place.parent, place.name, target)

    def link(self, src: str, dst: str, *, follow: bool = False) -> None:
        """Give `src` a second name (link(2)). ENOENT EEXIST EROFS EPERM (a directory)."""
        with _Change(self._mnt, "link", src, dst) as mnt:
            source = find(mnt, src, follow=follow)
            target = _free_name(mnt, dst)
            create.link(mnt, source, target.parent, target.name)

    def unlink(self, path: str) -> None:
        """Remove a name that is no directory (unlink(2)). EISDIR EROFS ENOENT ENOTDIR (a slash)."""
        with _Change(self._mnt, "unlink", path) as mnt:
            remove.unlink(mnt, _victim(mnt, path, _UNLINK_LAST, directory=False))

    def rmdir(self, path: str) -> None:
        """Remove a directory that shows no name (rmdir(2)). EINVAL (.) ENOTEMPTY EBUSY (root) EROFS ENOENT ENOTDIR."""
        with _Change(self._mnt, "rmdir", path) as mnt:
            remove.rmdir(mnt, _victim(mnt, path, _RMDIR_LAST, directory=True))

    def rename(self, src: str, dst: str, flags: int = 0) -> None:
        """Move `src` to `dst` (renameat2(2)); see engine.rename for the errnos and their order."""
        with _Change(self._mnt, "rename", src, dst) as mnt:
            renaming.check_flags(flags)
            renaming.rename(mnt, find_parent(mnt, src), find_parent(mnt, dst), flags)

    def truncate(self, path: str, size: int) -> None:
        """Set a file's size (truncate(2)). EINVAL (negative) EISDIR EROFS EACCES."""
        with _Change(self._mnt, "truncate", path) as mnt:
            if size < 0:
                raise oserror(errno.EINVAL)
            attr.truncate(mnt, find(mnt, path), size)

    def chmod(self, path: str, mode: int, *, follow: bool = True) -> None:
        """Set permission bits (chmod(2)). EROFS EOPNOTSUPP (a symlink) EPERM."""
        with _Change(self._mnt, "chmod", path) as mnt:
            attr.chmod(mnt, find(mnt, path, follow=follow), mode)

    def chown(self, path: str, uid: int, gid: int, *, follow: bool = True) -> None:
        """Set owner and group, -1 for as it is (chown(2)). EROFS EPERM."""
        with _Change(self._mnt, "chown", path) as mnt:
            attr.chown(mnt, find(mnt, path, follow=follow), uid, gid)

    def utime(self, path: str, times_ns: tuple[int, int] | None, *, follow: bool = True) -> None:
        """Set atime and mtime; None is now (utimensat(2)). EROFS EPERM EACCES."""
        with _Change(self._mnt, "utime", path) as mnt:
            attr.utime(mnt, find(mnt, path, follow=follow), times_ns)

    def access(self, path: str, mode: int, *, effective_ids: bool = False, follow: bool = True) -> bool:
        """Tell whether the caller may read (R_OK), write (W_OK), run or search (X_OK) an object (access(2)).

        The question is what the real user may, which is the superuser; with `effective_ids`, what other verbs go by.
        """
        try:
            with _Verb(self._mnt, path) as mnt, acting_as(mnt, mnt.credentials if effective_ids else Credentials()):
                dentry = find(mnt, path, follow=follow)
                if mode & os.W_OK and mnt.read_only and dentry.kind in (stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK):
                    return False
                return allowed(mnt.credentials, attributes(mnt, dentry), mode & 7)
        except OSError as error:
            if error.errno == errno.EBADF:
                raise
            return False

    def getxattr(self, path: str, name: str, *, follow: bool = True) -> bytes:
        """Return an attribute (getxattr(2)). ERANGE (the name) ENODATA EOPNOTSUPP."""
        with _Verb(self._mnt, path) as mnt:
            xattr.check_name(name)
            return xattr.get(mnt, find(mnt, path, follow=follow), name)

    def listxattr(self, path: str, *, follow: bool = True) -> list[str]:
        """Return the names of an object's attributes (listxattr(2)), the overlay's own marks left out."""
        with _Verb(self._mnt, path) as mnt:
            return xattr.list_names(mnt, find(mnt, path, follow=follow))

    def setxattr(self, path: str, name: str, value: bytes, flags: int = 0, *, follow: bool = True) -> None:
        """Set an attribute (setxattr(2)). EINVAL ERANGE E2BIG EROFS EPERM EEXIST ENODATA EOPNOTSUPP."""
        with _Change(self._mnt, "setxattr", path) as mnt:
            xattr.check_setxattr(name, value, flags)
            xattr.set_value(mnt, find(mnt, path, follow=follow), name, value, flags)

    def removexattr(self, path: str, name: str, *, follow: bool = True) -> None:
        """Remove an attribute (removexattr(2)). ERANGE EROFS EPERM ENODATA EOPNOTSUPP."""
        with _Change(self._mnt, "removexattr", path) as mnt:
            xattr.check_name(name)
            xattr.remove(mnt, find(mnt, path, follow=follow), name)

    def statvfs(self, path: str) -> StatVfs:
        """Return the upper's file system, or the highest lower's with ST_RDONLY (statvfs(3); KB 14.4)."""
        with _Verb(self._mnt, path) as mnt:
            find(mnt, path)
            st = (mnt.upper or mnt.lowers.layers[0]).statvfs()
            return st._replace(f_flag=st.f_flag | ST_RDONLY) if mnt.read_only else st


def _know(mnt: Mount, path: str) -> Dentry | None:
    dentry = find_plain(mnt, path)
    if dentry is not None:
        if dentry.has_upper:
            numbered(mnt, dentry)
        else:
            remember(mnt, dentry)
    mnt.names.learn(path, dentry)
    return dentry


def _nothing(number: int) -> None:
    """Answer for an upper that finds nothing by number."""


@contextmanager
def held(*overlays: Overlay) -> Iterator[None]:
    """Keep other threads out of some overlays, and act with all rights in them."""
    with locked(*(overlay._mnt for overlay in overlays)), ExitStack() as rights:
        for overlay in overlays:
            rights.enter_context(overlay.as_mounter())
        yield


class _Verb:
    """Holds the lock for one verb and gives its errors the caller's own paths; a torn one is the last that changes."""

    __slots__ = ("_mnt", "_path", "_path2")

    def __init__(self, mnt: Mount, path: str, path2: str | None = None) -> None:
        self._mnt = mnt
        self._path = path
        self._path2 = path2

    def __enter__(self) -> Mount:
        mnt = self._mnt
        mnt.lock.acquire()
        if mnt.looked_up > mnt.names.names_max:
            shrink(mnt)
        if mnt.closed:
            mnt.lock.release()
            raise oserror(errno.EBADF, self._path, self._path2, reason="the overlay is closed")
        return mnt

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, Torn):
            self._mnt.turn_read_only(error)
        self._mnt.lock.release()
        if isinstance(error, OSError):
            error.filename = self._path
            if self._path2 is None:
                # Not set to None: str() would show it.
                del error.filename2
            else:
                error.filename2 = self._path2


class _Change(_Verb):
    """A verb that changes something: those who watch are told, still under the lock."""

    __slots__ = ("_name",)

    def __init__(self, mnt: Mount, name: str, path: str, path2: str | None = None) -> None:
        self._mnt = mnt
        self._path = path
        self._path2 = path2
        self._name = name

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._mnt.watchers and (error is None or isinstance(error, OSError)):
            paths = (self._path,) if self._path2 is None else (self._path, self._path2)
            self._mnt.report(self._name, paths, error)
        super().__exit__(kind, error, trace)


def _readable_dir(mnt: Mount, dentry: Dentry) -> Dentry:
    """Return the dentry if it is a directory the caller may list. ENOTDIR EACCES."""
    if not dentry.is_dir:
        raise oserror(errno.ENOTDIR)
    may(mnt, dentry, READ)
    return dentry


def _free_name(mnt: Mount, path: str, *, directory: bool = False) -> Target:
    """Return where an object is to be made (filename_create).

    Raises:
        EEXIST: something shows there, or the last component is `.`, `..` or the root.
        ENOENT: the path ends in a slash and no directory is made.

    """
    target = find_parent(mnt, path)
    if target.last is not Last.NORM or last_component(mnt, target) is not None:
        raise oserror(errno.EEXIST)
    if target.slash and not directory:
        raise oserror(errno.ENOENT)
    return target


def _victim(mnt: Mount, path: str, refused: dict[Last, int], *, directory: bool) -> Dentry:
    """Return the name to remove (do_unlinkat, do_rmdir)."""
    target = find_parent(mnt, path)
    if target.last is not Last.NORM:
        raise oserror(refused[target.last])
    mnt.writable_upper()
    dentry = last_component(mnt, target)
    if dentry is None:
        raise oserror(errno.ENOENT)
    if target.slash and not directory:
        raise oserror(errno.EISDIR if dentry.is_dir else errno.ENOTDIR)
    return dentry
