"""Modes, owners, times and attributes of a plain PyFilesystem: what it keeps is set, what it can't is refused by name.

The refusals are vfat's: EPERM unless nothing would change, and no attributes but the one mark `.wh.` names can hold.
"""

import errno
import stat
from contextlib import suppress

from overlayvfs.abi import XATTR_CREATE, XATTR_REPLACE, oserror
from overlayvfs.layers.pyfs.nodes import Node
from overlayvfs.layers.pyfs.spelling import OPAQUE, opaque_in, whiteout_of
from overlayvfs.layers.pyfs.tree import Found, Tree
from overlayvfs.marks import MarkNames


def set_mode(tree: Tree, found: Found, mode: int) -> None:
    """Set the permission bits. EPERM: they are not kept (a symlink's never are)."""
    tree.check_writable()
    if mode != stat.S_IMODE(found.stat.st_mode):
        # PyFilesystem's setinfo follows symlinks.
        if not tree.kept.modes or not _is_plain(found):
            raise _refusal(tree, found.path, f"does not keep mode {mode:04o}")
        tree.backend.set_mode(found.path, mode)
    _stamp(tree, found)


def set_owner(tree: Tree, found: Found, uid: int, gid: int) -> None:
    """Set owner and group, -1 keeps one. EPERM: they are not kept."""
    tree.check_writable()
    uid = found.stat.st_uid if uid == -1 else uid
    gid = found.stat.st_gid if gid == -1 else gid
    if (uid, gid) != (found.stat.st_uid, found.stat.st_gid):
        if not tree.kept.owners or not _is_plain(found):
            raise _refusal(tree, found.path, f"does not keep owner {uid}:{gid}")
        tree.backend.set_owner(found.path, uid, gid)
    _stamp(tree, found)


def set_times(tree: Tree, found: Found, atime_ns: int, mtime_ns: int) -> None:
    """Set access and modification time. EPERM: they are not kept."""
    tree.check_writable()
    if not _keeps_times(tree, stat.S_IFREG if found.is_whiteout else stat.S_IFMT(found.stat.st_mode)):
        raise _refusal(tree, found.path, "does not keep times")
    _set_times(tree, whiteout_of(found.path) if found.is_whiteout else found.path, atime_ns, mtime_ns)
    _stamp(tree, found)


def set_times_of(tree: Tree, node: Node, atime_ns: int, mtime_ns: int) -> None:
    """Set the times of an open object, and ask nothing about it. EPERM: they are not kept; ESTALE: it is gone."""
    tree.check_named(node)
    tree.check_writable()
    if not _keeps_times(tree, node.kind):
        raise _refusal(tree, node.path, "does not keep times")
    _set_times(tree, node.path, atime_ns, mtime_ns)
    tree.stamp(node)


def _keeps_times(tree: Tree, kind: int) -> bool:
    return {stat.S_IFREG: tree.kept.times, stat.S_IFDIR: tree.kept.dir_times}.get(kind, False)


def _set_times(tree: Tree, where: str, atime_ns: int, mtime_ns: int) -> None:
    if not tree.kept.writes_at_once:
        # What is still to be written would stamp the file anew.
        tree.park(where)
    tree.set_times(where, atime_ns, mtime_ns)


def keep_what_fits(tree: Tree, where: str, mode: int, uid: int, gid: int) -> None:
    """Give a new object its mode and owner as far as the backend holds them, as cp to vfat does."""
    if tree.kept.owners:
        with suppress(OSError):
            tree.backend.set_owner(where, uid, gid)
    if tree.kept.modes:
        with suppress(OSError):
            tree.backend.set_mode(where, mode)


def list_attributes(tree: Tree, where: str, kind: int, names: MarkNames) -> list[str]:
    """Return the opaque mark of a directory that has it; nothing else can be held."""
    return [names.opaque] if kind == stat.S_IFDIR and tree.is_opaque(where) else []


def get_attribute(tree: Tree, where: str, kind: int, name: str) -> bytes:
    """Return the opaque mark's value. ENODATA: any other attribute."""
    if name in OPAQUE and kind == stat.S_IFDIR and tree.is_opaque(where):
        return b"y"
    raise oserror(errno.ENODATA, where)


def set_attribute(tree: Tree, found: Found, name: str, value: bytes, flags: int, names: MarkNames) -> None:
    """Set the opaque mark. EOPNOTSUPP: any other attribute; EEXIST ENODATA: by `flags`."""
    tree.check_writable()
    if name != names.opaque or value != b"y" or not found.is_dir:
        raise _unsupported(tree, found, name)
    is_set = tree.is_opaque(found.path)
    if is_set and flags & XATTR_CREATE:
        raise oserror(errno.EEXIST, found.path)
    if not is_set and flags & XATTR_REPLACE:
        raise oserror(errno.ENODATA, found.path)
    with tree.steps() as steps:
        steps.put_mark(opaque_in(found.path))
    _stamp(tree, found)


def remove_attribute(tree: Tree, found: Found, name: str, names: MarkNames) -> None:
    """Remove the opaque mark. EOPNOTSUPP: any other attribute; ENODATA: it is not there."""
    tree.check_writable()
    if name != names.opaque or not found.is_dir:
        raise _unsupported(tree, found, name)
    if not tree.is_opaque(found.path):
        raise oserror(errno.ENODATA, found.path)
    with tree.steps() as steps:
        steps.remove_mark(opaque_in(found.path))
    _stamp(tree, found)


def _is_plain(found: Found) -> bool:
    return found.is_dir or stat.S_ISREG(found.stat.st_mode)


def _stamp(tree: Tree, found: Found) -> None:
    if not found.is_whiteout:
        tree.stamp(tree.nodes.at(found.path))


def _refusal(tree: Tree, where: str, what: str) -> OSError:
    return oserror(errno.EPERM, where, reason=f"{tree.backend.name} {what}")


def _unsupported(tree: Tree, found: Found, name: str) -> OSError:
    return oserror(errno.EOPNOTSUPP, found.path, reason=f"{tree.backend.name} can't hold attribute {name!r}")
