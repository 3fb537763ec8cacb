"""What changes the model's upper: copying up, creating, linking, removing, renaming (KB 3, 4, 5, 7, 8, 9, 11).

What a name is was looked up and checked before, as the VFS does; here is what an overlay adds.
"""

import errno
import os
import stat
from typing import Final

from overlayvfs.abi import oserror
from overlayvfs.testing.model.inodes import Inode
from overlayvfs.testing.model.listing import shows_a_name
from overlayvfs.testing.model.lookup import lower_shows
from overlayvfs.testing.model.union import HANDLE, Found, Union, is_mark, redirect_of, set_mark

_REDIRECT_MAX: Final = 256


def copy_up(union: Union, found: Found, *, empty: bool = False) -> Inode:
    """Return the upper's object of a name, copied from the lower one if need be; `empty`: without its contents.

    Raises:
        ENOENT EIO: its directory is gone, and it is no directory or is one itself.
        EEXIST ENOTDIR ENOTEMPTY: something else has its name by now (KB 13.8).

    """
    held = union.upper_of(found)
    if held is not None:
        return held
    if found.parent is None or found.place is None:
        raise oserror(errno.EROFS)
    lower = union.real(found)
    into = copy_up(union, found.parent)
    _check_vacant(into, found.name, lower)
    copy = lower.copy(name for name in lower.xattrs if not is_mark(name))
    if empty:
        copy.resize(0)
    # The names of a lower hard link part here: none of the copies is the original (KB 5.4, 11.3).
    if lower.is_dir or lower.nlink == 1:
        set_mark(copy, "origin", HANDLE)
        copy.origin = lower
    set_mark(into, "impure", b"y")
    into.put(found.name, copy)
    union.copies[found.place] = copy
    if lower in union.ways:
        union.ways[lower] = copy
    return copy


def _check_vacant(into: Inode, name: str, lower: Inode) -> None:
    """Check what a link(2) or, for a directory, a rename(2) to the name would."""
    if into.removed:
        raise oserror(errno.EIO if lower.is_dir else errno.ENOENT, name)
    there = into.names.get(name)
    if there is None:
        return
    if not lower.is_dir:
        raise oserror(errno.EEXIST, name)
    if not there.is_dir:
        raise oserror(errno.ENOTDIR, name)
    if there.names:
        raise oserror(errno.ENOTEMPTY, name)


def created(union: Union, free: Found, inode: Inode) -> None:
    """Let the free name be a new object or, for link(2), one more name of the upper's `inode`."""
    into = copy_up(union, free.parent or free)
    into.put(free.name, inode)
    into.touch()
    if inode.is_dir and free.whiteout:
        set_mark(inode, "opaque", b"y")
    elif inode.is_dir and union.expects_no_offline_changes and _is_merged_upper(union, free.parent):
        # There is nothing to hide: it spares Linux looking there.
        set_mark(inode, "opaque", b"y")


def owned(union: Union, parent: Found, mode: int, umask: int) -> Inode:
    """Return a new object of root's for the directory `parent`, to be put there (KB 6.4)."""
    return _made_in(union.real(parent), Inode(mode & ~umask))


def link(union: Union, source: Found, free: Found) -> None:
    """Give an object one more name; a lower one is copied up first."""
    inode = copy_up(union, source)
    into = copy_up(union, free.parent or free)
    if _is_copy(union, source):
        set_mark(into, "impure", b"y")
    inode.nlink += 1
    created(union, free, inode)


def remove(union: Union, found: Found) -> None:
    """Take a name away; a whiteout stays if something would show through.

    Raises:
        ENOTEMPTY: a directory that shows a name.

    """
    if union.real(found).is_dir and shows_a_name(union, found):
        raise oserror(errno.ENOTEMPTY, found.name)
    leaves_whiteout = lower_shows(union, found)
    directory = copy_up(union, found.parent or found)
    _gone(union, found)
    if leaves_whiteout:
        # Linux makes it in the workdir, where no set-gid bit reaches it.
        directory.put(found.name, Inode(stat.S_IFCHR))
    else:
        directory.take(found.name)
    directory.touch()


def rename(union: Union, old: Found, new: Found, *, exchange: bool) -> None:
    """Move `old` to the name of `new` or exchange the two.

    Raises:
        EXDEV: a directory that is not the upper's alone (KB 9.2).
        ENOTEMPTY: `new` is a directory that shows a name. If it is the upper's alone, Linux leaves that to the upper's
            own rename(2), after the mark on the source.

    """
    if not _may_move(union, old) or (exchange and not _may_move(union, new)):
        raise oserror(errno.EXDEV, old.name)
    is_full = not exchange and new.exists and union.real(new).is_dir and shows_a_name(union, new)
    if is_full and new.lowers:
        raise oserror(errno.ENOTEMPTY, new.name)
    leaves_whiteout = lower_shows(union, old)
    old_parent, new_parent = old.parent or old, new.parent or new
    copy_up(union, old)
    into = copy_up(union, new_parent)
    if exchange:
        copy_up(union, new)
    out_of = copy_up(union, old_parent)
    _mark_moved(union, old, new_parent, into)
    if is_full:
        raise oserror(errno.ENOTEMPTY, new.name)
    if exchange:
        _mark_moved(union, new, old_parent, out_of)
    if exchange or (leaves_whiteout and new.whiteout):
        # Also two whiteouts are not made where one can change places.
        out_of.exchange(old.name, into, new.name)
    else:
        _gone(union, new)
        moved = out_of.give(old.name)
        if leaves_whiteout:
            out_of.put(old.name, _made_in(out_of, Inode(stat.S_IFCHR)))
        into.put(new.name, moved)
    out_of.touch()
    into.touch()


def _gone(union: Union, found: Found) -> None:
    """Take note that a directory goes: first Linux takes the whiteouts out of it, then its lower one is free."""
    upper = union.upper_of(found)
    if upper is not None and upper.names:
        upper.names.clear()
        upper.touch()
    if found.lowers:
        union.ways.pop(found.lowers[0][1], None)


def _made_in(directory: Inode, inode: Inode) -> Inode:
    """Return a new object as the directory it is made in has it: its group and set-gid bit may come from there."""
    if directory.mode & stat.S_ISGID:
        inode.gid = directory.gid
        inode.mode |= stat.S_ISGID if inode.is_dir else 0
    return inode


def _may_move(union: Union, found: Found) -> bool:
    return union.moves_lower_directories or not union.real(found).is_dir or not found.lowers


def _mark_moved(union: Union, found: Found, to: Found, into: Inode) -> None:
    """Mark what is about to move: a directory must go on showing what it shows, and nothing else (KB 4.5, 10.2)."""
    moved = copy_up(union, found)
    if _is_copy(union, found):
        set_mark(into, "impure", b"y")
    if not moved.is_dir:
        return
    if found.lowers:
        _set_redirect(union, found, moved, stays=to.path() == (found.parent or found).path())
    elif _is_merged_upper(union, to):
        set_mark(moved, "opaque", b"y")


def _set_redirect(union: Union, found: Found, moved: Inode, *, stays: bool) -> None:
    redirect = redirect_of(moved)
    if redirect is not None and (stays or redirect.startswith("/")):
        return
    value = found.name if stays else _path_below(union, found)
    if not stays and len(os.fsencode(value)) > _REDIRECT_MAX:
        raise oserror(errno.EXDEV, found.name)
    set_mark(moved, "redirect", os.fsencode(value))


def _path_below(union: Union, found: Found) -> str:
    """Return the path at which the lowers have a directory, by the redirects on the way up."""
    path = ""
    for at in found.chain():
        if at.parent is None:
            return path
        upper = union.upper_of(at)
        name = (redirect_of(upper) if upper is not None else None) or at.name
        if name.startswith("/"):
            return name + path
        path = f"/{name}{path}"
    return path


def _is_merged_upper(union: Union, directory: Found | None) -> bool:
    """Tell whether a directory of the upper has lowers below it."""
    return directory is not None and bool(directory.lowers) and union.upper_of(directory) is not None


def _is_copy(union: Union, found: Found) -> bool:
    """Tell whether the upper's object says which lower one it comes from: its number is that one's then."""
    upper = union.upper_of(found)
    return upper is not None and upper.origin is not None and (not upper.is_dir or bool(found.lowers))
