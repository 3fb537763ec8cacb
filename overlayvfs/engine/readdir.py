"""Merging the name lists of a directory's layers (fs/overlayfs/readdir.c; KB 15).

A merged list is computed once per open directory and does not change while it is read.
"""

import errno
import stat

from overlayvfs.abi import Dirent, Stat, is_whiteout, oserror
from overlayvfs.engine.dentry import Dentry, Listing
from overlayvfs.engine.inode import attributes, map_numbers, remember
from overlayvfs.engine.lookup import lookup
from overlayvfs.engine.lowers import LowerDir, get_mark, vanished
from overlayvfs.engine.mount import Mount
from overlayvfs.engine.namecache import LeftOut
from overlayvfs.layers.base import Layer

Place = tuple[int, str]
"""A layer's number (0: the upper) and the directory in it."""

Entry = tuple[int, Dirent]
"""A name and the number of the layer that shows it."""


def list_dir(mnt: Mount, dentry: Dentry, left_out: LeftOut | None = None) -> list[Dirent]:
    """Return the names a directory shows, in the kernel's order, without `.` and `..`.

    Names `left_out` before do not show; those that can't be looked up are added to them.

    Raises:
        ENOTDIR: it is no directory.

    """
    if not dentry.is_dir:
        raise oserror(errno.ENOTDIR)
    if dentry.unlinked:
        return []
    places = _places(mnt, dentry)
    merged = _merge(mnt, places)
    if mnt.bare:
        return [entry for _, entry in merged]
    impure = _is_impure(mnt, dentry)
    if len(places) == 1 and not dentry.is_merged:
        shown = [_real_entry(mnt, dentry, number, entry, impure=impure) for number, entry in merged]
        if impure and all(entry.d_ino == own.d_ino for entry, (_, own) in zip(shown, merged, strict=True)):
            _forget_impure(mnt, dentry)
        return shown
    if left_out is None:
        left_out = mnt.names.left_out.get(dentry) or LeftOut()
    return _numbered(mnt, dentry, merged, left_out, remapped=mnt.numbers.bits > 0, impure=impure)


def listing(mnt: Mount, dentry: Dentry) -> Listing:
    """Return the names a directory shows, in the kernel's order, and their types; kept while they hold. ENOTDIR."""
    if not dentry.is_dir:
        raise oserror(errno.ENOTDIR)
    if dentry.unlinked:
        return [], []
    if dentry.listing is not None:
        return dentry.listing
    entries = [entry for _, entry in _merge(mnt, _places(mnt, dentry))]
    found = [entry.d_name for entry in entries], [entry.d_type or _type_of(mnt, dentry, entry) for entry in entries]
    if not mnt.bare:
        dentry.listing = found
    return found


def _type_of(mnt: Mount, parent: Dentry, entry: Dirent) -> int:
    """Return the type of an entry whose layer does not list it; 0 if it can't be looked up."""
    try:
        dentry = lookup(mnt, parent, entry.d_name)
    except OSError:
        return 0
    return 0 if dentry is None else dentry.kind


def list_names(mnt: Mount, dentry: Dentry) -> list[str]:
    """Return the names a directory shows, in the kernel's order; not to be changed. ENOTDIR."""
    return listing(mnt, dentry)[0]


def scan(mnt: Mount, dentry: Dentry, *, numbers: bool) -> list[tuple[str, Stat]]:
    """Return the names a directory shows with their attributes; names that can't be looked up are left out. ENOTDIR.

    Without `numbers`, those of device, inode and links may be the layer's own: that costs nothing.
    """
    found = []
    for name in listing(mnt, dentry)[0]:
        try:
            child = lookup(mnt, dentry, name)
        except OSError:
            continue
        if child is not None:
            st = None if numbers else remember(mnt, child)
            found.append((name, st or attributes(mnt, child)))
    return found


def shows_nothing(mnt: Mount, dentry: Dentry) -> bool:
    """Tell whether no name shows in a directory: it may be removed or replaced (ovl_check_empty_dir)."""
    return not _merge(mnt, _places(mnt, dentry))


def _places(mnt: Mount, dentry: Dentry) -> list[Place]:
    places: list[Place] = [(0, dentry.path)] if dentry.has_upper else []
    if isinstance(dentry.lower, LowerDir):
        places += dentry.lower.parts
    return places


def _merge(mnt: Mount, places: list[Place]) -> list[Entry]:
    """Merge listings, the highest first: each name is what the highest layer makes of it.

    The lowest layer's names come first and in its order, then the upper's, then the others' (KB 15.2).
    """
    seen: dict[str, Entry | None] = {}
    for place in places[:-1]:
        for name, entry in _entries(mnt, place).items():
            seen.setdefault(name, entry)
    lowest = _entries(mnt, places[-1])
    order = {name: seen.get(name, entry) for name, entry in lowest.items()}
    for name, entry in seen.items():
        order.setdefault(name, entry)
    return [entry for entry in order.values() if entry is not None]


def _entries(mnt: Mount, place: Place) -> dict[str, Entry | None]:
    """Return one layer's names; None for a whiteout. ESTALE: the directory has vanished from there."""
    number, path = place
    layer = mnt.layer(number)
    entries: dict[str, Entry | None] = {}
    # First of all: where every question is a request, a listing answers those that follow.
    try:
        listing = layer.listdir(path)
    except FileNotFoundError as error:
        raise vanished(layer, path) from error
    # Whiteouts that are attributes count in a listing only where the lower directory says they are there (KB 3.18).
    with_xattrs = number > 0 and get_mark(layer, path, mnt.marks.opaque) == b"x"
    for entry in listing:
        hidden = not mnt.bare and _is_whiteout(mnt, layer, f"{path}/{entry.d_name}", entry.d_type, with_xattrs)
        entries[entry.d_name] = None if hidden else (number, entry)
    return entries


def _is_whiteout(mnt: Mount, layer: Layer, path: str, kind: int, with_xattrs: bool) -> bool:
    """Tell whether a listed object is a whiteout; asks the layer only about those that may be one."""
    if kind in (0, stat.S_IFCHR):
        return is_whiteout(layer.lstat(path))
    return with_xattrs and kind == stat.S_IFREG and mnt.lowers.is_whiteout(layer, path, layer.lstat(path))


def _is_impure(mnt: Mount, dentry: Dentry) -> bool:
    """Tell whether an upper directory holds copies, whose numbers are their origins'."""
    if not dentry.has_upper or mnt.upper is None:
        return False
    if not (mnt.numbers.same_fs or mnt.numbers.bits):
        # Numbers of several file systems side by side: Linux doesn't look any up (ovl_same_dev).
        return False
    return dentry.impure or get_mark(mnt.upper, dentry.path, mnt.marks.impure) is not None


def _forget_impure(mnt: Mount, dentry: Dentry) -> None:
    """Take the impure mark off a directory that holds no copies any more (ovl_cache_get_impure)."""
    assert mnt.upper is not None
    # One that was merged itself is listed as if it still were (OVL_WHITEOUTS), and keeps the mark.
    if get_mark(mnt.upper, dentry.path, mnt.marks.origin) is not None:
        return
    dentry.impure = False
    try:
        mnt.upper.removexattr(dentry.path, mnt.marks.impure)
    except OSError:
        pass  # a mark too many costs the next listing some lookups


def _real_entry(mnt: Mount, parent: Dentry, number: int, entry: Dirent, *, impure: bool) -> Dirent:
    """Return an entry of a directory of one layer with the number lstat shows (ovl_iterate_real; KB 14.12).

    Raises:
        ESTALE, EPERM, EINVAL, EIO: the directory holds copies and this name can't be looked up.

    """
    dentry = lookup(mnt, parent, entry.d_name) if impure else None
    if dentry is None:
        return entry._replace(d_ino=map_numbers(mnt, number, entry.d_ino)[1])
    return entry._replace(d_ino=attributes(mnt, dentry).st_ino)


def _numbered(
    mnt: Mount, parent: Dentry, entries: list[Entry], left_out: LeftOut, *, remapped: bool, impure: bool
) -> list[Dirent]:
    """Return entries of a merged directory with the numbers lstat shows (ovl_iterate_merged, ovl_cache_update).

    Raises:
        ESTALE, EPERM, EINVAL, EIO: two names in a row can't be looked up. A single one is left out: getdents(2)
            keeps its error back while it has names to return, and the next call goes on behind it.

    """
    shown = []
    # "." and ".." come before all others.
    returned_some = True
    for number, entry in entries:
        if entry.d_name in left_out.names:
            continue
        if not (remapped or (impure and number == 0)):
            shown.append(entry._replace(d_ino=map_numbers(mnt, number, entry.d_ino)[1]))
            returned_some = True
            continue
        try:
            dentry = lookup(mnt, parent, entry.d_name)
        except OSError:
            left_out.names.add(entry.d_name)
            if not returned_some:
                raise
            returned_some = False
            continue
        if dentry is not None:
            shown.append(entry._replace(d_ino=attributes(mnt, dentry).st_ino))
            returned_some = True
    return shown
