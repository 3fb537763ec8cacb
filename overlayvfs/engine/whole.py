"""Whole files written in one step, where the upper finds its objects by number (NumberedLayer).

open(2), write(2) and close(2) of a name that needs no symlink, no copy up and no whiteout come to one step of a memory
layer. Whatever needs more is left to the verbs, which check everything in the kernel's order.
"""

import stat

from overlayvfs.engine.dentry import Dentry
from overlayvfs.engine.mount import Mount
from overlayvfs.engine.resolve import NotPlain, find_plain
from overlayvfs.layers.base import NumberedLayer


def write_at_once(mnt: Mount, path: str, data: bytes, mode: int) -> bool:
    """Write a whole file in a directory that is known as it is spelt; False, and nothing is done, where more is needed.

    Under the lock. What is written is known from then on.
    """
    upper = _upper(mnt, data)
    if upper is None:
        return False
    paths = mnt.names.paths
    above, _, name = path.rpartition("/")
    parent = paths.get(above or "/")
    if parent is None or parent.kind != stat.S_IFDIR or not _is_simple(name) or above == "/":
        return False
    dentry = parent.children.get(name)
    if dentry is not None:
        if not rewrite_at_once(mnt, dentry, data):
            return False
        mnt.names.learn(path, dentry)
        return True
    if not parent.has_upper or parent.unlinked or (name not in parent.children and _shows_below(mnt, parent, name)):
        return False
    who = mnt.credentials
    number = upper.make(numbered(mnt, parent), name, mode & ~who.umask, who.uid, who.gid, data)
    if not number:
        return False
    # Committed: the upper shows the file.
    dentry = Dentry(name, parent, True, None, stat.S_IFREG)
    dentry.number = number
    parent.children[name] = dentry
    mnt.names.changed(dentry)
    mnt.names.learn(path, dentry)
    return True


def know_parent(mnt: Mount, path: str) -> None:
    """Have the directory of a plain path known as it is spelt, if it can be. Under the lock."""
    above = path.rpartition("/")[0]
    if mnt.numbered_upper is not None and mnt.names.paths.get(above or "/") is None:
        try:
            mnt.names.learn(above or "/", find_plain(mnt, above))
        except (NotPlain, OSError):
            return


def _is_simple(name: str) -> bool:
    """Tell whether a name needs no check: neither too long for any layer nor more than a name."""
    return 0 < len(name) < _SHORT and name.isascii() and "\0" not in name and name != "." and name != ".."


def _shows_below(mnt: Mount, parent: Dentry, name: str) -> bool:
    """Tell whether the lowers show a name, or can't say."""
    lower = parent.lower_dir
    try:
        return lower is not None and mnt.lowers.lookup(lower, name) is not None
    except OSError:
        return True


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


_SHORT = 64
