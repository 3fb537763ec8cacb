"""From a path to dentries: symlinks, `.`, `..`, trailing slashes (path_resolution(7); fs/namei.c).

Symlinks are resolved in the merged tree; absolute targets start at its root and `..` never leaves it.
"""

import enum
import errno
import stat
from dataclasses import dataclass

from overlayvfs.abi import PATH_MAX, SYMLOOP_MAX, oserror
from overlayvfs.engine.dentry import Dentry
from overlayvfs.engine.inode import real
from overlayvfs.engine.lookup import lookup
from overlayvfs.engine.mount import Mount
from overlayvfs.engine.permission import may_search


class Last(enum.Enum):
    """What the last component of a path is (enum in fs/internal.h)."""

    NORM = enum.auto()
    DOT = enum.auto()
    DOTDOT = enum.auto()
    ROOT = enum.auto()


@dataclass(slots=True)
class Target:
    """The directory a path leads to and the last component, which need not exist."""

    parent: Dentry
    name: str
    last: Last
    slash: bool
    """The path ended in a slash: only a directory will do."""
    budget: int
    """How many more symlinks may be followed."""


def check_path(path: str) -> None:
    """Raise ENOENT for an empty path, ENAMETOOLONG from 4096 bytes on."""
    if not path:
        raise oserror(errno.ENOENT)
    if len(path) > 1000 and len(path.encode("utf-8", "surrogateescape")) >= PATH_MAX:
        raise oserror(errno.ENAMETOOLONG)
    if "\0" in path:
        raise ValueError("embedded null character in path")


def find(mnt: Mount, path: str, *, follow: bool = True) -> Dentry:
    """Return the object at `path`; a final symlink itself unless `follow` (or the path ends in a slash).

    Raises:
        ENOENT, ENAMETOOLONG, ENOTDIR, ELOOP, EACCES: in the order the walk meets them.

    """
    return _final(mnt, find_parent(mnt, path), follow=follow)


class NotPlain(Exception):
    """A path that is not plain: its answer is for this once (see namecache)."""


def find_plain(mnt: Mount, path: str) -> Dentry | None:
    """Return what a plain path leads to, None if nothing.

    Raises:
        NotPlain: `.`, `..`, a slash too many, a symlink on the way, or a caller other than the superuser.
        ENAMETOOLONG, EIO, ESTALE…: as `lookup`.

    """
    if mnt.bare or mnt.credentials.uid != 0:
        raise NotPlain
    at = mnt.root
    if path in _ROOT:
        return at
    above, _, last = path.rpartition("/")
    parent = mnt.names.paths.get(above)
    if parent is not None and above not in _ROOT:
        return _plain_child(mnt, parent, last)
    for name in (path[1:] if path.startswith("/") else path).split("/"):
        child = _plain_child(mnt, at, name)
        if child is None:
            return None
        at = child
    if above and at.parent is not None:
        # Most who ask for one name of a directory ask for others.
        mnt.names.learn(above, at.parent)
    return at


def _plain_child(mnt: Mount, parent: Dentry, name: str) -> Dentry | None:
    if name in _NOT_PLAIN:
        raise NotPlain
    if parent.kind != stat.S_IFDIR:
        return None
    # That a name is absent is kept by path: once is enough.
    child = lookup(mnt, parent, name, keep_absence=False)
    if child is not None and child.kind == stat.S_IFLNK:
        raise NotPlain
    return child


_NOT_PLAIN = frozenset(("", ".", ".."))
_ROOT = frozenset(("", "/"))


def find_parent(mnt: Mount, path: str) -> Target:
    """Walk to the directory of the last component (filename_parentat)."""
    check_path(path)
    return _walk(mnt, path, mnt.root, SYMLOOP_MAX)


def _walk(mnt: Mount, path: str, start: Dentry, budget: int) -> Target:
    names = [name for name in path.split("/") if name]
    at = mnt.root if path.startswith("/") else start
    if not names:
        return Target(mnt.root, "", Last.ROOT, True, budget)
    last = names.pop()
    # A stack: the targets of symlinks are pushed in front of what is left.
    names.reverse()
    while names:
        name = names.pop()
        may_search(mnt, at)
        if name == ".":
            continue
        if name == "..":
            at = at.parent or at
            continue
        child = lookup(mnt, at, name)
        if child is None:
            raise oserror(errno.ENOENT)
        if stat.S_ISLNK(child.kind):
            budget = _spend(budget)
            target = read_link(mnt, child)
            if target.startswith("/"):
                at = mnt.root
            names.extend(reversed([part for part in target.split("/") if part]))
            continue
        if not child.is_dir:
            raise oserror(errno.ENOTDIR)
        at = child
    kind = {".": Last.DOT, "..": Last.DOTDOT}.get(last, Last.NORM)
    may_search(mnt, at)
    return Target(at, last, kind, path.endswith("/"), budget)


def _spend(budget: int) -> int:
    if budget == 0:
        raise oserror(errno.ELOOP)
    return budget - 1


def _final(mnt: Mount, target: Target, *, follow: bool) -> Dentry:
    """Return the object a target names, following symlinks where asked."""
    while True:
        dentry = last_component(mnt, target)
        if dentry is None:
            raise oserror(errno.ENOENT)
        if stat.S_ISLNK(dentry.kind) and (follow or target.slash):
            target = follow_link(mnt, target, dentry)
            follow = True
            continue
        if target.slash and not dentry.is_dir:
            raise oserror(errno.ENOTDIR)
        return dentry


def last_component(mnt: Mount, target: Target) -> Dentry | None:
    """Return what the last component is now, None if nothing; symlinks are not followed."""
    if target.last is Last.NORM:
        return lookup(mnt, target.parent, target.name)
    if target.last is Last.DOTDOT:
        return target.parent.parent or target.parent
    return target.parent


def follow_link(mnt: Mount, target: Target, link: Dentry) -> Target:
    """Return where a symlink in last place leads; a slash after it stays in force."""
    budget = _spend(target.budget)
    onward = _walk(mnt, read_link(mnt, link), target.parent, budget)
    onward.slash = onward.slash or target.slash
    return onward


def read_link(mnt: Mount, dentry: Dentry) -> str:
    """Return a symlink's target; EINVAL if it is none."""
    if not stat.S_ISLNK(dentry.kind):
        raise oserror(errno.EINVAL)
    layer, path = real(mnt, dentry)
    return layer.readlink(path)
