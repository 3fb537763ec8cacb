"""What differs between two moments of one overlay, or between the overlay and its lowers.

Both sides are mounts over the same lowers, so whatever neither upper touches is equal and not looked at: the time
taken is proportional to what the uppers hold. A redirected, opaque or replaced directory is expanded into the
names it hides and shows.
"""

import errno
import stat
from collections.abc import Hashable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Final

from overlayvfs.abi import Stat, oserror
from overlayvfs.engine.copy_up import CHUNK
from overlayvfs.engine.dentry import Dentry
from overlayvfs.engine.fork import lowers_alone
from overlayvfs.engine.inode import attributes, is_metacopy, open_inode, real, real_stat
from overlayvfs.engine.lookup import lookup
from overlayvfs.engine.lowers import LowerFile
from overlayvfs.engine.mount import Mount
from overlayvfs.engine.readdir import list_names
from overlayvfs.layers.base import INDEX, SnapshotLayer, is_snapshot_layer

ADDED: Final = "A"
CHANGED: Final = "C"
DELETED: Final = "D"


@dataclass(frozen=True, slots=True)
class Change:
    """One path that differs; what a directory holds is listed path by path."""

    path: str
    kind: str
    """"A" (added), "C" (changed) or "D" (deleted)."""
    what: tuple[str, ...] = ()
    """Of a changed one, what differs, of: type, content, mode, owner, times (the mtime), xattrs."""
    renamed_from: str | None = None
    """Of an added one, the deleted path it was renamed from, where a redirect or an origin tells."""
    is_dir: bool = False
    """Whether it is a directory; of a deleted one, whether it was."""


def compare(now: Mount, then: Mount, *, content: bool = False, directory_times: bool = False) -> list[Change]:
    """Return what differs in `now` from `then`, sorted by path.

    Files whose size differs have changed; of one size they are compared byte by byte, but only if their mtimes
    differ, unless `content` asks for all. A directory whose mtime alone differs is left out unless
    `directory_times` asks for it. Attributes of the root count where both sides have an upper.

    Raises:
        EINVAL: the two have different lowers.
        ESTALE, EPERM, EINVAL, EIO: a name can't be looked up, as in `lookup`.

    """
    if now.lowers is not then.lowers:
        raise oserror(errno.EINVAL, reason="these are not two states of one overlay: their lowers differ")
    with locked(now, then):
        comparison = _Comparison(now, then, content=content, directory_times=directory_times)
        comparison.run()
        return sorted(comparison.with_renames(), key=lambda change: change.path)


def compare_with_lowers(now: Mount, *, content: bool, directory_times: bool) -> list[Change]:
    """Return what `compare` finds different from the lowers alone; found once for as long as nothing changes.

    Only an upper in memory tells whether it is what it was. Raises as `compare`.
    """
    with now.lock:
        upper = now.upper
        version = None
        if upper is not None and is_snapshot_layer(upper) and not (now.lowers.detect or now.closed):
            # The root stands for what is known of the lowers: whoever is told to forget that makes a new one.
            version = upper.version(), now.lowers.root
        kind = content, directory_times
        known = now.known_changes.get(kind)
        if version is not None and known is not None and known[0] == version:
            return list(known[1])
        then = lowers_alone(now)
        try:
            changes = compare(now, then, content=content, directory_times=directory_times)
        finally:
            then.close()
        if version is not None:
            now.known_changes[kind] = version, tuple(changes)
        return changes


@contextmanager
def locked(*mounts: Mount) -> Iterator[None]:
    """Hold the locks of several mounts, always taken in the same order. EBADF: one is closed."""
    with ExitStack() as locks:
        for mnt in sorted(mounts, key=id):
            locks.enter_context(mnt.lock)
        if any(mnt.closed for mnt in mounts):
            raise oserror(errno.EBADF, reason="the overlay is closed")
        yield


def touched(mnt: Mount) -> list[str]:
    """Return the path of everything in the upper that shows and is no directory, sorted."""
    found: list[str] = []
    pending = [mnt.root]
    while pending:
        directory = pending.pop()
        for name in _upper_names(mnt, directory):
            dentry = lookup(mnt, directory, name)
            if dentry is None:
                continue
            if dentry.is_dir:
                pending.append(dentry)
            else:
                found.append(dentry.path)
    return sorted(found)


class _Comparison:
    """One run of `compare`."""

    def __init__(self, now: Mount, then: Mount, *, content: bool, directory_times: bool) -> None:
        self._now = now
        self._then = then
        self._content = content
        self._directory_times = directory_times
        # A hard link of an indexed inode changes with it, and the upper does not say where its names are.
        self._looks_everywhere = _has_indexed(now) or _has_indexed(then)
        self._found: list[Change] = []
        self._added: dict[str, Hashable] = {}
        self._deleted: dict[Hashable, str] = {}
        self._pending: list[tuple[Dentry | None, Dentry | None]] = [(now.root, then.root)]

    def run(self) -> None:
        """Compare the two trees."""
        if self._now.upper is not None and self._then.upper is not None:
            self._both(self._now.root, self._then.root, "/")
        while self._pending:
            left, right = self._pending.pop()
            for name in self._names(left, right):
                new = None if left is None else lookup(self._now, left, name)
                old = None if right is None else lookup(self._then, right, name)
                self._one(new, old)

    def with_renames(self) -> Iterator[Change]:
        """Return the changes, each added one with the deleted one it was before."""
        for change in self._found:
            before = self._deleted.get(self._added.get(change.path))
            yield change if before is None else replace(change, renamed_from=before)

    def _names(self, left: Dentry | None, right: Dentry | None) -> Iterable[str]:
        """Return the names under which two directories can differ."""
        if left is not None and right is not None and _merge_the_same(left, right) and not self._looks_everywhere:
            return dict.fromkeys([*_upper_names(self._now, left), *_upper_names(self._then, right)])
        names = [] if left is None else list_names(self._now, left)
        return dict.fromkeys([*names, *([] if right is None else list_names(self._then, right))])

    def _one(self, new: Dentry | None, old: Dentry | None) -> None:
        below = tuple(one if one is not None and one.is_dir else None for one in (new, old))
        if below != (None, None):
            self._pending.append((below[0], below[1]))
        if new is not None and old is not None:
            self._both(new, old, new.path)
        elif new is not None:
            self._found.append(Change(new.path, ADDED, is_dir=new.is_dir))
            self._added[new.path] = _identity(self._now, new)
        elif old is not None:
            self._found.append(Change(old.path, DELETED, is_dir=old.is_dir))
            identity = _identity(self._then, old)
            if identity is not None:
                self._deleted.setdefault(identity, old.path)

    def _both(self, new: Dentry, old: Dentry, path: str) -> None:
        if _is_untouched(self._now, new) and _is_untouched(self._then, old) and _same_lower(new, old):
            return
        what = tuple(self._differences(new, old))
        if what == ("times",) and new.is_dir and not self._directory_times:
            return
        if what:
            self._found.append(Change(path, CHANGED, what, is_dir=new.is_dir))

    def _differences(self, new: Dentry, old: Dentry) -> Iterator[str]:
        here, there = real_stat(self._now, new), real_stat(self._then, old)
        if new.kind != old.kind or here.st_rdev != there.st_rdev:
            yield "type"
        elif self._content_differs(new, old, here, there):
            yield "content"
        if stat.S_IMODE(here.st_mode) != stat.S_IMODE(there.st_mode):
            yield "mode"
        if (here.st_uid, here.st_gid) != (there.st_uid, there.st_gid):
            yield "owner"
        if here.st_mtime_ns != there.st_mtime_ns:
            yield "times"
        if visible_attributes(self._now, new) != visible_attributes(self._then, old):
            yield "xattrs"

    def _content_differs(self, new: Dentry, old: Dentry, here: Stat, there: Stat) -> bool:
        if stat.S_ISLNK(new.kind):
            return _target(self._now, new) != _target(self._then, old)
        if not new.is_file:
            return False
        if here.st_size != there.st_size:
            return True
        if _data_in_lowers(self._now, new) == _data_in_lowers(self._then, old) is not None:
            return False
        if here.st_mtime_ns == there.st_mtime_ns and not self._content:
            return False
        return not _same_bytes(self._now, new, self._then, old)


def _upper_names(mnt: Mount, dentry: Dentry) -> list[str]:
    if not dentry.has_upper or mnt.upper is None:
        return []
    return [entry.d_name for entry in mnt.upper.listdir(dentry.path)]


def _has_indexed(mnt: Mount) -> bool:
    return mnt.has_index and mnt.upper is not None and bool(mnt.upper.listdir(INDEX))


def _merge_the_same(left: Dentry, right: Dentry) -> bool:
    """Tell whether the lowers contribute the same to two directories."""
    one, other = left.lower_dir, right.lower_dir
    if one is None or other is None:
        return one is other
    return one.parts == other.parts


def _is_untouched(mnt: Mount, dentry: Dentry) -> bool:
    return not dentry.has_upper and real(mnt, dentry)[0] is not mnt.upper


def _same_lower(new: Dentry, old: Dentry) -> bool:
    if isinstance(new.lower, LowerFile) and isinstance(old.lower, LowerFile):
        return (new.lower.layer, new.lower.path) == (old.lower.layer, old.lower.path)
    return new.kind == old.kind and _merge_the_same(new, old)


def _identity(mnt: Mount, dentry: Dentry) -> Hashable:
    """Return what tells an object from all others of both sides; None where its number may be used a second time."""
    if dentry.lower is None and not isinstance(mnt.upper, SnapshotLayer):
        return None
    st = attributes(mnt, dentry)
    return dentry.kind, st.st_dev, st.st_ino


def visible_attributes(mnt: Mount, dentry: Dentry) -> dict[str, bytes]:
    """Return the extended attributes an object shows, the overlay's own marks left out."""
    layer, path = real(mnt, dentry)
    names = {stored: mnt.marks.unescape(stored) for stored in layer.listxattr(path)}
    return {shown: layer.getxattr(path, stored) for stored, shown in names.items() if shown is not None}


def _target(mnt: Mount, dentry: Dentry) -> str:
    layer, path = real(mnt, dentry)
    return layer.readlink(path)


def _data_in_lowers(mnt: Mount, dentry: Dentry) -> tuple[int, str] | None:
    """Return where in the lowers a file's contents are, None if the upper has them."""
    if dentry.lower_file is None or (not is_metacopy(mnt, dentry) and not _is_untouched(mnt, dentry)):
        return None
    return mnt.lowers.data_of(dentry.lower_file)


def _same_bytes(now: Mount, new: Dentry, then: Mount, old: Dentry) -> bool:
    one = open_inode(now, new, writable=False)
    try:
        other = open_inode(then, old, writable=False)
        try:
            at = 0
            while piece := one.data.pread(CHUNK, at):
                if piece != other.data.pread(CHUNK, at):
                    return False
                at += len(piece)
            return True
        finally:
            other.release()
    finally:
        one.release()
