"""The protocols a layer fulfils: all the engine knows of what a stack is made of.

**Paths** inside a layer are `str`, surrogateescaped: `""` is its root, `"/a/b"` a name below it, so
`f"{dir}/{name}"` is right everywhere. The engine resolves symlinks and `..` itself: a layer is only
ever asked for a path whose leading components are directories of its own, and follows no symlink.

**Errors** are OSError. Every verb raises ENOENT (a component is missing) and ENOTDIR (a leading
component is no directory) before its own, and may raise EIO. `reason` names the layer where that
helps; the engine puts the caller's paths in.

**Marks** are the kernel's: whiteouts are character devices 0/0, the rest are `trusted.overlay.*` and
`user.overlay.*` attributes. A layer that can hold neither translates in its adapter.
"""

from collections.abc import Callable, Collection, Hashable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol, TypeGuard, runtime_checkable

from overlayvfs.abi import Dirent, Stat, StatVfs

WORK: Final = "/\0work"
"""Where an upper prepares objects before one rename puts them in place; no caller can name it (NUL)."""

INDEX: Final = "/\0index"
"""Where an upper keeps the index of hard links (overlayfs.rst, "Inode properties")."""


Progress = Callable[[int], None]
"""Is told how many bytes of a copy are done; whatever it raises ends the copy."""


class Torn(OSError):
    """A verb failed half way and could not be taken back: EIO; what shows is neither the tree before nor the one after.

    Only layers without one-step verbs raise it; the overlay on top turns read-only.
    """


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a layer can keep. Read once at mount."""

    marks: bool = True
    """Whiteout devices and overlay attributes are held as such (False: `.wh.` names stand for them)."""
    symlinks: bool = True
    hard_links: bool = True
    modes: bool = True
    owners: bool = True
    times: bool = True
    """Of files and of directories."""
    xattrs: bool = True
    devices: bool = True
    """Fifos, sockets and device nodes other than 0/0."""
    trusted_xattrs: bool = True
    atomic_rename: bool = True
    """RENAME_EXCHANGE, and replacement in one step: what crash safety stands on."""


class Handle(Protocol):
    """An open object of a layer; stays good over rename, unlink and replacement of its name.

    The data verbs are for regular files. A handle opened read-only refuses pwrite and truncate with
    EBADF; the metadata verbs work on any handle of a writable layer, as f-calls do.
    """

    def pread(self, size: int, offset: int) -> bytes:
        """Return up to `size` bytes from `offset`; fewer only at the end of the file. EISDIR on a directory."""

    def pwrite(self, data: bytes | memoryview, offset: int) -> int:
        """Write all of `data` at `offset`, growing the file with a hole where needed. ENOSPC EFBIG."""

    def truncate(self, size: int) -> None:
        """Cut or grow (with a hole) to `size` bytes. ENOSPC EFBIG."""

    def seek_extent(self, offset: int, whence: int) -> int:
        """Return lseek(2)'s answer for SEEK_DATA or SEEK_HOLE. ENXIO past the end or before 0."""

    def stat(self) -> Stat: ...
    def chmod(self, mode: int) -> None: ...
    def chown(self, uid: int, gid: int) -> None: ...
    def utime(self, atime_ns: int, mtime_ns: int) -> None: ...
    def getxattr(self, name: str) -> bytes: ...
    def setxattr(self, name: str, value: bytes, flags: int = 0) -> None: ...
    def removexattr(self, name: str) -> None: ...
    def listxattr(self) -> list[str]: ...
    def sync(self) -> None: ...
    def close(self) -> None:
        """Let go of the object; idempotent."""


@runtime_checkable
class Layer(Protocol):
    """A tree that can be read: what a lower must be."""

    @property
    def name(self) -> str:
        """How messages call this layer: a path, an FS's own str()."""

    @property
    def capabilities(self) -> Capabilities: ...

    def identity(self) -> Hashable:
        """Return what two layers over the same directory have in common."""

    def ancestry(self) -> Sequence[Hashable]:
        """Return the identities of this layer's root and of every directory above it, nearest first."""

    def lstat(self, path: str) -> Stat:
        """Return the object's own attributes. `st_dev` is the same for all of one file system."""

    def names(self, path: str) -> Collection[str] | None:
        """Return a directory's names if they cost hardly more than one lstat, None if they cost more.

        The engine probes a directory name by name where this is None (an object store, a million entries).
        """

    def listdir(self, path: str) -> list[Dirent]:
        """Return a directory's entries without `.` and `..`, in the layer's own order. ENOTDIR."""

    def readlink(self, path: str) -> str:
        """Return a symlink's target. EINVAL if it is none."""

    def getxattr(self, path: str, name: str) -> bytes:
        """Return one attribute. ENODATA if absent, also where the layer or object can hold none."""

    def listxattr(self, path: str) -> list[str]:
        """Return all attribute names, marks included."""

    def open(self, path: str, *, writable: bool = False) -> Handle:
        """Open any object: a regular file for data, everything else for stat and attributes only.

        EROFS if `writable` on a layer that can't write, EISDIR if `writable` on a directory.
        """

    def file_handle(self, path: str) -> bytes | None:
        """Return the origin mark's value for this object (marks.FileHandle, encoded); None if it has none."""

    def find_handle(self, value: bytes, hint: str | None = None) -> Stat | None:
        """Return the attributes of the object an origin mark names; None if it is not (or no longer) here.

        `hint` is the path it probably has, for layers that can only verify a candidate.
        """

    def statvfs(self) -> StatVfs: ...
    def close(self) -> None:
        """Let go of what the adapter itself opened; never of a file system it was given."""


@runtime_checkable
class UpperLayer(Layer, Protocol):
    """A tree that can be written: what an upper must be.

    Each verb either happens or raises and leaves the tree as it was. Times are set as Linux does:
    mtime and ctime of the parent on every change of its names, ctime of the object on every change.
    None of them consults a umask or a caller's identity: `mode`, `uid`, `gid` are what the object gets.
    """

    def prepare(self, *, index: bool) -> None:
        """Make WORK (emptied of what a crash left) and, if asked, INDEX. EINVAL where there is no place for them."""

    def release(self, *, keep_index: bool) -> None:
        """Undo `prepare`: WORK goes; INDEX too unless it is to be kept. Idempotent."""

    def create(self, path: str, mode: int, uid: int, gid: int) -> Handle:
        """Make an empty regular file and return it open for reading and writing. EEXIST ENOSPC."""

    def tmpfile(self, mode: int, uid: int, gid: int) -> Handle:
        """Return a new regular file without a name (O_TMPFILE). EOPNOTSUPP ENOSPC."""

    def mkdir(self, path: str, mode: int, uid: int, gid: int) -> None: ...
    def mknod(self, path: str, mode: int, rdev: int, uid: int, gid: int) -> None: ...
    def symlink(self, target: str, path: str, uid: int, gid: int) -> None: ...
    def link(self, src: str, dst: str) -> None:
        """Give the object at `src` (a symlink itself) a second name. EEXIST EPERM (a directory) EMLINK."""

    def unlink(self, path: str) -> None:
        """Remove a name that is no directory. EISDIR."""

    def rmdir(self, path: str) -> None:
        """Remove an empty directory. ENOTDIR ENOTEMPTY."""

    def rename(self, src: str, dst: str, flags: int = 0) -> None:
        """Move, replace (as rename(2) does); one step, also into and out of WORK.

        With RENAME_EXCHANGE swap two objects; with RENAME_WHITEOUT leave a whiteout (mode 0, uid 0) at `src`;
        with RENAME_NOREPLACE raise EEXIST rather than replace.
        """

    def chmod(self, path: str, mode: int) -> None: ...
    def chown(self, path: str, uid: int, gid: int) -> None:
        """Set owner and group; -1 keeps one. Clears no set-id bits: the engine decides."""

    def utime(self, path: str, atime_ns: int, mtime_ns: int) -> None: ...
    def setxattr(self, path: str, name: str, value: bytes, flags: int = 0) -> None:
        """Set an attribute. EPERM (`user.*` on other than a file or directory) EOPNOTSUPP EEXIST ENODATA ENOSPC."""

    def removexattr(self, path: str, name: str) -> None: ...
    def clone(self, src: Handle, dst: Handle, size: int, progress: Progress | None = None) -> bool:
        """Give `dst` (empty, of this layer) the first `size` bytes of `src` without reading them here.

        Shared blocks, a reflink: whatever this layer has for `src`'s kind. False if nothing: the engine copies.
        What copies all the same (copy_file_range) tells `progress` now and then how many bytes are done.
        """

    def sync(self) -> None: ...


@runtime_checkable
class SnapshotLayer(UpperLayer, Protocol):
    """An upper that can be forked in constant time."""

    def snapshot(self) -> "SnapshotLayer":
        """Return an independent layer equal to this one now: marks, links, inode numbers, WORK and INDEX."""

    def version(self) -> object:
        """Return an object that stays the same one until something changes: a name, an attribute, contents."""


class NumberedLayer(SnapshotLayer, Protocol):
    """An upper that finds its objects by number at once: what is known needs no path and no open file.

    Numbers are those of lstat; 0 is none. Where an answer takes more than that, it is None or False, and the verbs by
    path say what there is.
    """

    def stat_of(self, ino: int) -> Stat | None:
        """Return an object's attributes."""

    def content_of(self, ino: int) -> bytes | None:
        """Return all that a regular file holds, where that is stored as one object."""

    def rewrite(self, ino: int, data: bytes) -> bool:
        """Let a regular file hold `data`, not empty, instead of what it held, in one step; times as after write(2)."""

    def make(self, parent: int, name: str, mode: int, uid: int, gid: int, data: bytes) -> int:
        """Make a regular file that holds `data` in one step, in a directory that hands on no group; its number."""


@runtime_checkable
class CopiedLayer(UpperLayer, Protocol):
    """An upper that is forked by copying what it holds."""

    def empty_twin(self, *, index: bool) -> UpperLayer:
        """Return an empty layer to copy all of this one into: prepared, and gone when it is closed.

        EINVAL where there is no place for it.
        """


# isinstance() on a protocol compares all its members, 30 µs a time on Python 3.11; a fork takes 3.


def is_snapshot_layer(layer: Layer) -> TypeGuard[SnapshotLayer]:
    """Tell whether an upper can be forked in constant time."""
    return hasattr(layer, "snapshot")


def is_numbered_layer(layer: Layer) -> TypeGuard[NumberedLayer]:
    """Tell whether an upper finds objects by number."""
    return hasattr(layer, "content_of")


def is_copied_layer(layer: Layer) -> TypeGuard[CopiedLayer]:
    """Tell whether an upper can be forked by copying."""
    return hasattr(layer, "empty_twin")
