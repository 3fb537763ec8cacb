"""Looking a name up in the model: which layers show it (KB 2, 3, 4, 10)."""

import errno
import os

from overlayvfs.abi import NAME_MAX, oserror
from overlayvfs.testing.model.inodes import Inode
from overlayvfs.testing.model.union import HANDLE, Found, Place, Union, marks_of, redirect_of, set_mark


def look_up(union: Union, parent: Found, name: str) -> Found:
    """Return what `name` is in the directory `parent`; a merged directory of the upper is given an origin (KB 2.9).

    Raises:
        ENAMETOOLONG: the name has more than 255 bytes.
        EINVAL: a malformed redirect (KB 10.14).
        EACCES: a redirect through `.` or `..`.
        EPERM: a redirect, and none is to be followed (redirect_dir=nofollow, KB 10.15).
        ESTALE: another directory showed the same lower one first (KB 2.10).

    """
    if len(os.fsencode(name)) > NAME_MAX:
        raise oserror(errno.ENAMETOOLONG, name)
    upper_dir = union.upper_of(parent)
    if union.is_plain:
        return Found(parent, name, upper_dir.names.get(name) if upper_dir is not None else None)
    search = _Search(name)
    held = None
    if upper_dir is not None:
        held = search.in_layer(upper_dir, lowest=not (union.follows_redirects or parent.lowers))
        search.check_may_follow(union)
    whiteout = upper_dir is not None and name in upper_dir.names and upper_dir.names[name].is_whiteout
    result = Found(parent, name, held, whiteout=whiteout)
    _look_below(union, search, result)
    if result.lowers and result.lowers[0][1].is_dir and union.ways.setdefault(result.lowers[0][1], held) is not held:
        raise oserror(errno.ESTALE, name)
    return result


def _look_below(union: Union, search: "_Search", result: Found) -> None:
    """Search the lowers that are merged in the parent or, after an absolute redirect, all that are left."""
    parent = result.parent or result
    roots = list(enumerate(union.lowers))
    waiting = list(roots if search.is_absolute else parent.lowers)
    from_roots = search.is_absolute
    while waiting and not search.stop:
        number, base = waiting.pop(0)
        # A mark in the lowest layer could only speak of layers below it.
        lowest = number == len(roots) - 1 if union.follows_redirects else not waiting
        inode = search.in_layer(base, lowest=lowest)
        if inode is None:
            continue
        if not result.lowers:
            result.place = search.place
            _note_origin(union, result, inode)
        result.lowers.append((number, inode))
        search.check_may_follow(union)
        if search.is_absolute and not from_roots:
            waiting, from_roots = roots[number + 1 :], True


def _note_origin(union: Union, merged: Found, lower: Inode) -> None:
    """Let a directory of the upper say which lower one it is merged with, if it does not yet."""
    upper_dir = union.upper_of(merged.parent or merged)
    if merged.held is None or upper_dir is None or "origin" in marks_of(merged.held):
        return
    merged.held.origin = lower
    set_mark(merged.held, "origin", HANDLE)
    set_mark(upper_dir, "impure", b"y")


class _Search:
    """One name on its way down the layers; redirects change what it is called (KB 10)."""

    def __init__(self, name: str) -> None:
        self.stop = False
        """What is below is hidden."""
        self.place: Place | None = None
        """Where the last object was found."""
        self._is_redirected = False
        self._name = name
        self._is_dir = False

    @property
    def is_absolute(self) -> bool:
        """Tell whether the search goes on from the roots of the layers."""
        return self._name.startswith("/")

    def check_may_follow(self, union: Union) -> None:
        """Raise EPERM if a redirect was found that is not to be followed."""
        if self._is_redirected and not union.follows_redirects:
            raise oserror(errno.EPERM, self._name)

    def in_layer(self, base: Inode, *, lowest: bool) -> Inode | None:
        """Return what one layer has below its directory `base`, None if nothing that counts."""
        rest = self._name.split("/")
        if self.is_absolute:
            del rest[0]
        at: Inode | None = base
        while rest and at is not None:
            name = rest.pop(0)
            self.place = (at, name)
            at = self._step(at, name, "".join(f"/{one}" for one in rest), lowest)
        return at

    def _step(self, base: Inode, name: str, after: str, lowest: bool) -> Inode | None:
        """Return one component of the name, None if it ends there; `after` is what comes below it."""
        if name in (".", ".."):
            raise oserror(errno.EACCES, name)
        found = base.names.get(name)
        if found is None:
            return None
        if found.is_whiteout or (not found.is_dir and (self._is_dir or after)):
            self.stop = True
            return None
        if not found.is_dir:
            self.stop = True
            return found
        self._is_dir = self._is_dir or not after
        if lowest:
            return found
        if marks_of(found).get("opaque") == b"y":
            self.stop = True
            return found
        self._redirect(found, name, after)
        return found

    def _redirect(self, found: Inode, name: str, after: str) -> None:
        redirect = redirect_of(found)
        if redirect is None:
            return
        self._is_redirected = True
        if redirect.startswith("/"):
            # Also below an opaque directory an absolute one leads on (KB 10.9).
            self.stop = False
            self._name = redirect + after
        else:
            self._name = self._name[: len(self._name) - len(name + after)] + redirect + after


def lower_shows(union: Union, found: Found) -> bool:
    """Tell whether something would show through at this name if the upper had nothing there (KB 3.5)."""
    if not found.exists:
        return found.whiteout
    if union.upper_of(found) is None:
        return True
    for _, base in found.parent.lowers if found.parent else ():
        if found.name in base.names:
            return not base.names[found.name].is_whiteout
    return False
