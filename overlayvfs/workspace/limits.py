"""Bounds for an upper of any kind: how much it may hold, and (readonly.py) which subtrees nobody may change.

`limited` is what a caller uses; the wrappers are `UpperLayer`s themselves and can be put around one another.

**What counts.** Bytes: the size of a regular file (holes included), the target of a symlink, names and values of
attributes; an object with several names once; marks nothing, so that deleting needs no room for them. Inodes: every
object, the root and whiteouts included, as on tmpfs; another name of an object costs nothing, and whiteouts are names
of one object where the upper holds hard links. A file counts until it has neither a name nor an open descriptor. What
a copy up is making ready counts too. A verb that would exceed a bound raises before it changes anything.
"""

import errno
import stat
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Self

from overlayvfs.abi import RENAME_EXCHANGE, RENAME_WHITEOUT, Stat, StatVfs, oserror
from overlayvfs.layers.adapt import LayerSpec, open_upper
from overlayvfs.layers.base import INDEX, WORK, CopiedLayer, Handle, Layer, Progress, SnapshotLayer, UpperLayer
from overlayvfs.marks import TRUSTED, USER
from overlayvfs.workspace._through import ThroughHandle, ThroughLayer
from overlayvfs.workspace.readonly import ReadOnlySubtrees, SnapshotReadOnly


def limited(
    upper: LayerSpec,
    *,
    workdir: LayerSpec | None = None,
    size: int | None = None,
    nr_inodes: int | None = None,
    file_size: int | None = None,
    read_only: Iterable[str] = (),
    userxattr: bool = True,
) -> UpperLayer:
    """Return `upper` (an FS, FS URL, path or layer) bounded, to be an OverlayFS's upper.

    `size` bounds the bytes in it and `nr_inodes` its objects (ENOSPC), `file_size` each file (EFBIG); what is at or
    below a path of `read_only` can't be changed (EROFS). None is no bound. `workdir` and `userxattr` are what OverlayFS
    would be given. What the upper holds already counts: one walk over it, when it is first asked or mounted. Nobody
    else may write to it meanwhile. The caller closes what is returned, or OverlayFS does with `close_layers`.

    Raises:
        EINVAL: a negative bound; else as OverlayFS for an upper it can't have.

    """
    bounds = Bounds(size, nr_inodes, file_size)
    protected = list(read_only)
    layer = open_upper(upper, workdir, marks=USER if userxattr else TRUSTED)
    if bounds != Bounds():
        layer = _bounded(layer, bounds)
    if protected:
        forks = isinstance(layer, SnapshotLayer)
        layer = SnapshotReadOnly(layer, protected) if forks else ReadOnlySubtrees(layer, protected)
    return layer


def _bounded(layer: UpperLayer, bounds: "Bounds") -> "Limited":
    """Return the wrapper that can be forked in the way `layer` can."""
    if isinstance(layer, SnapshotLayer):
        return SnapshotLimited(layer, bounds)
    return CopiedLimited(layer, bounds) if isinstance(layer, CopiedLayer) else Limited(layer, bounds)


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much a layer may hold; None is no bound. EINVAL for a negative one."""

    size: int | None = None
    nr_inodes: int | None = None
    file_size: int | None = None

    def __post_init__(self) -> None:
        for bound in (self.size, self.nr_inodes, self.file_size):
            if bound is not None and bound < 0:
                raise oserror(errno.EINVAL, reason=f"a limit can't be negative ({bound})")


@dataclass(slots=True)
class Usage:
    """What a layer holds, in the terms of `Bounds`."""

    size: int = 0
    inodes: int = 0

    def copy(self) -> "Usage":
        """Return the same figures for another layer to go on with."""
        return Usage(self.size, self.inodes)


class Limited(ThroughLayer):
    """An upper that refuses what would exceed its bounds. Threads may share it."""

    def __init__(self, inner: UpperLayer, bounds: Bounds) -> None:
        super().__init__(inner)
        self.bounds = bounds
        self._lock = threading.RLock()
        self._usage: Usage | None = None
        # By inode number: how many handles are open, and which of those objects have no name any more.
        self._handles: dict[int, int] = {}
        self._nameless: set[int] = set()

    @property
    def usage(self) -> Usage:
        """What the layer holds; counted by a walk where it isn't known."""
        if self._usage is None:
            self._usage = _count(self.inner)
        return self._usage

    def statvfs(self) -> StatVfs:
        """Return the bounds as the size of the file system; what lies below may be fuller than that."""
        st, bounds = self.inner.statvfs(), self.bounds
        with self._lock:
            usage = self.usage
            if bounds.size is not None:
                unit = st.f_frsize
                free = max(0, bounds.size - usage.size) // unit
                # All zeros is how a file system says that it has no bound of its own.
                bfree, bavail = (min(free, st.f_bfree), min(free, st.f_bavail)) if st.f_blocks else (free, free)
                st = st._replace(f_blocks=bounds.size // unit, f_bfree=bfree, f_bavail=bavail)
            if bounds.nr_inodes is not None:
                free = max(0, bounds.nr_inodes - usage.inodes)
                free = min(free, st.f_ffree) if st.f_files else free
                st = st._replace(f_files=bounds.nr_inodes, f_ffree=free, f_favail=free)
        return st

    def prepare(self, *, index: bool) -> None:
        """Count anew: what a crash left is gone now, and between two mounts the layer is its owner's."""
        with self._lock:
            self.inner.prepare(index=index)
            self._usage = _count(self.inner)

    def release(self, *, keep_index: bool) -> None:
        """Forget the figures."""
        with self._lock:
            self.inner.release(keep_index=keep_index)
            self._usage = None

    # What takes room

    def create(self, path: str, mode: int, uid: int, gid: int) -> ThroughHandle:
        """Make a file. ENOSPC: no inode is left; else as the layer below."""
        with self._lock, self._adding(inodes=1):
            return super().create(path, mode, uid, gid)

    def tmpfile(self, mode: int, uid: int, gid: int) -> ThroughHandle:
        """Make a file without a name. ENOSPC."""
        with self._lock, self._adding(inodes=1):
            handle = super().tmpfile(mode, uid, gid)
            self._nameless.add(handle.stat().st_ino)
            return handle

    def mkdir(self, path: str, mode: int, uid: int, gid: int) -> None:
        """Make a directory. ENOSPC."""
        with self._lock, self._adding(inodes=1):
            super().mkdir(path, mode, uid, gid)

    def mknod(self, path: str, mode: int, rdev: int, uid: int, gid: int) -> None:
        """Make a device, fifo, socket or whiteout. ENOSPC."""
        with self._lock, self._adding(inodes=1):
            super().mknod(path, mode, rdev, uid, gid)

    def symlink(self, target: str, path: str, uid: int, gid: int) -> None:
        """Make a symlink. ENOSPC."""
        with self._lock, self._adding(size=_length(target), inodes=1):
            super().symlink(target, path, uid, gid)

    def setxattr(self, path: str, name: str, value: bytes, flags: int = 0) -> None:
        """Set an attribute. ENOSPC."""
        with self._lock, self._adding(size=_growth(name, value, lambda: self.inner.getxattr(path, name))):
            super().setxattr(path, name, value, flags)

    def removexattr(self, path: str, name: str) -> None:
        """Remove an attribute: its room is free at once."""
        with self._lock, self._adding(size=_growth(name, None, lambda: self.inner.getxattr(path, name))):
            super().removexattr(path, name)

    def clone(self, src: Handle, dst: Handle, size: int, progress: Progress | None = None) -> bool:
        """Share blocks as the layer below does; they count as a copy would. ENOSPC EFBIG."""
        with self._lock:
            growth = self.growth_to(size, dst.stat().st_size)
            self._check(size=growth, inodes=0)
            if not super().clone(src, dst, size, progress):
                return False
            self.usage.size += growth
            return True

    def growth_to(self, end: int, size: int) -> int:
        """Return by how much a file of `size` bytes grows if it is to have `end`. EFBIG: no file may."""
        limit = self.bounds.file_size
        if limit is not None and end > max(limit, size):
            raise oserror(errno.EFBIG, reason=f"files here have at most {limit} bytes")
        return end - size

    # What gives room back

    def unlink(self, path: str) -> None:
        """Remove a name; with the last one, and no descriptor open, the object's room is free at once."""
        with self._lock:
            st = self.inner.lstat(path)
            cost = self._cost_of(path, st)
            super().unlink(path)
            self._lost_name(st, cost)

    def rmdir(self, path: str) -> None:
        """Remove a directory."""
        with self._lock:
            st = self.inner.lstat(path)
            cost = self._cost_of(path, st)
            super().rmdir(path)
            self._lost_name(st, cost)

    def rename(self, src: str, dst: str, flags: int = 0) -> None:
        """Move; what is replaced gives its room back. ENOSPC: RENAME_WHITEOUT, and no inode is left."""
        with self._lock:
            replaced = None if flags & RENAME_EXCHANGE else _lstat_or_none(self.inner, dst)
            if replaced is not None and replaced.st_nlink > 1 and not stat.S_ISDIR(replaced.st_mode):
                moved = _lstat_or_none(self.inner, src)
                # Two names of one object: rename(2) leaves both.
                if moved is not None and moved.st_ino == replaced.st_ino:
                    super().rename(src, dst, flags)
                    return
            cost = 0 if replaced is None else self._cost_of(dst, replaced)
            with self._adding(inodes=1 if flags & RENAME_WHITEOUT else 0):
                super().rename(src, dst, flags)
            if replaced is not None:
                self._lost_name(replaced, cost)

    # Open objects

    def opened(self, handle: Handle, path: str | None) -> ThroughHandle:
        """Return the handle that counts."""
        with self._lock:
            return LimitedHandle(self, handle)

    def took(self, ino: int) -> None:
        """Count one more open handle of an object."""
        with self._lock:
            self._handles[ino] = self._handles.get(ino, 0) + 1

    def let_go(self, ino: int, handle: Handle) -> None:
        """Close `handle`; the last one of an object without a name gives its room back."""
        with self._lock:
            count = self._handles.pop(ino) - 1
            if count:
                self._handles[ino] = count
            elif ino in self._nameless:
                self._nameless.remove(ino)
                self._give(_cost(handle.stat(), handle.listxattr, handle.getxattr) if self._counts_bytes else 0)
            handle.close()

    def change(self, growth: int, act: Callable[[], None]) -> None:
        """Do what makes a file or attribute grow by `growth` bytes (or shrink, below 0). ENOSPC."""
        with self._lock, self._adding(size=growth):
            act()

    # The books, all under the lock

    @property
    def lock(self) -> threading.RLock:
        """Held while the layer below changes and the figures with it."""
        return self._lock

    @property
    def _counts_bytes(self) -> bool:
        return self.bounds.size is not None

    def _adding(self, *, size: int = 0, inodes: int = 0) -> "_Charge":
        """Check that so much more fits, and count it when the block has succeeded. ENOSPC."""
        self._check(size=size, inodes=inodes)
        return _Charge(self, size, inodes)

    def _check(self, *, size: int, inodes: int) -> None:
        bounds, usage = self.bounds, self.usage
        if bounds.size is not None and size > 0 and usage.size + size > bounds.size:
            raise oserror(errno.ENOSPC, reason=f"{self.name} is limited to {bounds.size} bytes")
        if bounds.nr_inodes is not None and inodes and usage.inodes + inodes > bounds.nr_inodes:
            raise oserror(errno.ENOSPC, reason=f"{self.name} is limited to {bounds.nr_inodes} inodes")

    def _cost_of(self, path: str, st: Stat) -> int:
        """Return the bytes an object gives back if the name at `path` is its last one and nobody has it open."""
        if not self._counts_bytes or _has_other_names(st) or st.st_ino in self._handles:
            return 0
        return _cost_at(self.inner, path, st)

    def _lost_name(self, st: Stat, cost: int) -> None:
        if _has_other_names(st):
            return
        if st.st_ino in self._handles:
            self._nameless.add(st.st_ino)
        else:
            self._give(cost)

    def _give(self, size: int) -> None:
        usage = self.usage
        usage.size -= size
        usage.inodes -= 1


class SnapshotLimited(Limited):
    """Bounds around an upper that forks: each fork may grow to them on its own."""

    def snapshot(self) -> Self:
        """Return an independent layer equal to this one now; constant time, open files stay here."""
        with self._lock:
            assert isinstance(self.inner, SnapshotLayer)
            twin = type(self)(self.inner.snapshot(), self.bounds)
            # With open files left behind, what had no other claim is gone there: counted when it is asked for.
            twin._usage = None if self._nameless else self.usage.copy()
            return twin

    def version(self) -> object:
        """Return what the layer itself does."""
        assert isinstance(self.inner, SnapshotLayer)
        return self.inner.version()


class CopiedLimited(Limited):
    """Bounds around an upper that is forked by copying it."""

    def empty_twin(self, *, index: bool) -> UpperLayer:
        """Return an empty layer to copy this one into, with the same bounds."""
        assert isinstance(self.inner, CopiedLayer)
        return _bounded(self.inner.empty_twin(index=index), self.bounds)


class _Charge:
    """Counts what a block takes, once it has succeeded."""

    __slots__ = ("_inodes", "_layer", "_size")

    def __init__(self, layer: Limited, size: int, inodes: int) -> None:
        self._layer = layer
        self._size = size
        self._inodes = inodes

    def __enter__(self) -> None: ...

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            usage = self._layer.usage
            usage.size += self._size
            usage.inodes += self._inodes


class LimitedHandle(ThroughHandle):
    """An open object whose growth counts."""

    def __init__(self, layer: Limited, inner: Handle) -> None:
        super().__init__(layer, inner)
        self._limits = layer
        self._ino = inner.stat().st_ino
        self._open = True
        layer.took(self._ino)

    def pwrite(self, data: bytes | memoryview, offset: int) -> int:
        """Write all of `data` or nothing. EFBIG ENOSPC, and as the layer below."""
        if not len(data):
            return self.inner.pwrite(data, offset)
        with self._limits.lock:
            size = self.inner.stat().st_size
            growth = max(0, self._limits.growth_to(offset + len(data), size))
            self._limits.change(growth, lambda: self._write(data, offset))
            return len(data)

    def _write(self, data: bytes | memoryview, offset: int) -> None:
        self.inner.pwrite(data, offset)

    def truncate(self, size: int) -> None:
        """Cut (that room is free at once) or grow. EFBIG ENOSPC, and as the layer below."""
        with self._limits.lock:
            growth = self._limits.growth_to(size, self.inner.stat().st_size)
            self._limits.change(growth, lambda: self.inner.truncate(size))

    def setxattr(self, name: str, value: bytes, flags: int = 0) -> None:
        """Set an attribute. ENOSPC, and as the layer below."""
        with self._limits.lock:
            growth = _growth(name, value, lambda: self.inner.getxattr(name))
            self._limits.change(growth, lambda: self.inner.setxattr(name, value, flags))

    def removexattr(self, name: str) -> None:
        """Remove an attribute."""
        with self._limits.lock:
            growth = _growth(name, None, lambda: self.inner.getxattr(name))
            self._limits.change(growth, lambda: self.inner.removexattr(name))

    def close(self) -> None:
        """Let go of the object; idempotent."""
        if self.__dict__.get("_open"):
            self._open = False
            self._limits.let_go(self._ino, self.inner)


def _count(layer: Layer) -> Usage:
    """Walk over all a layer holds, its index and what is being made ready included."""
    usage = Usage(_cost_at(layer, "", layer.lstat("")), inodes=1)
    seen: set[int] = set()
    pending = ["", WORK, INDEX]
    while pending:
        above = pending.pop()
        try:
            entries = layer.listdir(above)
        except FileNotFoundError:
            # WORK is there while it is mounted, INDEX where one was asked for.
            continue
        for entry in entries:
            path = f"{above}/{entry.d_name}"
            st = layer.lstat(path)
            if stat.S_ISDIR(st.st_mode):
                pending.append(path)
            elif st.st_nlink > 1:
                if st.st_ino in seen:
                    continue
                seen.add(st.st_ino)
            usage.inodes += 1
            usage.size += _cost_at(layer, path, st)
    return usage


def _cost_at(layer: Layer, path: str, st: Stat) -> int:
    return _cost(st, lambda: layer.listxattr(path), lambda name: layer.getxattr(path, name))


def _cost(st: Stat, names: Callable[[], list[str]], value: Callable[[str], bytes]) -> int:
    """Return the bytes an object counts for."""
    size = st.st_size if stat.S_ISREG(st.st_mode) or stat.S_ISLNK(st.st_mode) else 0
    return size + sum(_length(name) + len(value(name)) for name in names() if not _is_mark(name))


def _growth(name: str, value: bytes | None, old: Callable[[], bytes]) -> int:
    """Return how many bytes more an attribute counts for with this value (None: none of this name)."""
    if _is_mark(name):
        return 0
    try:
        before = _length(name) + len(old())
    except OSError:
        # There is none; whatever else is wrong, the change itself will say.
        before = 0
    return (0 if value is None else _length(name) + len(value)) - before


def _is_mark(name: str) -> bool:
    return USER.is_private(name) or TRUSTED.is_private(name)


def _has_other_names(st: Stat) -> bool:
    return st.st_nlink > 1 and not stat.S_ISDIR(st.st_mode)


def _lstat_or_none(layer: Layer, path: str) -> Stat | None:
    try:
        return layer.lstat(path)
    except FileNotFoundError:
        return None


def _length(text: str) -> int:
    return len(text.encode("utf-8", "surrogateescape"))
