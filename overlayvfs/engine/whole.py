"""Whole files written in one step, where the upper finds its objects by number (NumberedLayer).

open(2), write(2) and close(2) of a name that needs no symlink, no copy up and no whiteout come to one step of a memory
layer. Whatever needs more is left to the verbs, which check everything in the kernel's order.
"""

import stat

from overlayvfs.engine.dentry import Dentry
from overlayvfs.engine.lookup import lookup
from overlayvfs.engine.mount import Mount
from overlayvfs.engine.resolve import NotPlain, find_plain
from overlayvfs.layers.base import NumberedLayer


def write_at_once(mnt: Mount, path: str, data: bytes, mode: int) -> bool:
    """Write a whole file by path; False, and nothing is done, where that takes more than one step. Under the lock."""
    upper = _upper(mnt, data)
    if upper is None:
        return False
    above, slash, name = path.rpartition("/")
    try:
        known = mnt.names.paths.get(above or "/")
        parent = known or find_plain(mnt, above)
        if parent is None or not parent.is_dir or name in _NOT_PLAIN:
            return False
        dentry = lookup(mnt, parent, name)
    except (NotPlain, OSError):
        return False
    if dentry is not None:
        return rewrite_at_once(mnt, dentry, data) and _learn(mnt, path, dentry)
    if not parent.has_upper or parent.unlinked:
        return False
    directory = numbered(mnt, parent)
    above_st = upper.stat_of(directory)
    if above_st is None or above_st.st_mode & stat.S_ISGID:
        return False
    if known is None:
        mnt.names.learn(above or "/", parent)
    who = mnt.credentials
    number = upper.make(directory, name, mode & ~who.umask, who.uid, who.gid, data)
    if not number:
        return False
    # Committed: the upper shows the file.
    dentry = Dentry(name, parent, True, None, stat.S_IFREG, number=number)
    parent.children[name] = dentry
    mnt.names.changed(dentry)
    return _learn(mnt, path, dentry)


def rewrite_at_once(mnt: Mount, dentry: Dentry, data: bytes) -> bool:
    """Write all of a known file anew; False, and nothing is done, where that takes more. Under the lock."""
    upper = _upper(mnt, data)
    if upper is None or not data or dentry.unlinked or dentry.kind != stat.S_IFREG:
        return False
    number = dentry.number or numbered(mnt, dentry)
    return number > 0 and upper.rewrite(number, data)


def numbered(mnt: Mount, dentry: Dentry) -> int:
    """Return the number by which the upper finds an object of its own, 0 where it can't; kept on the dentry."""
    if not dentry.number and mnt.numbered_upper is not None and dentry.has_upper and not dentry.metacopy:
        dentry.number = mnt.numbered_upper.lstat(dentry.path).st_ino
    return dentry.number


def _upper(mnt: Mount, data: bytes) -> NumberedLayer | None:
    """Return the upper if it can do it and nobody else has a say: no rights to check, nobody to be told."""
    if mnt.watchers or mnt.torn is not None or mnt.closed or mnt.credentials.uid != 0 or type(data) is not bytes:
        return None
    return mnt.numbered_upper


def _learn(mnt: Mount, path: str, dentry: Dentry) -> bool:
    mnt.names.learn(path, dentry)
    return True


_NOT_PLAIN = frozenset(("", ".", ".."))
