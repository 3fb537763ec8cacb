"""From a name to what the layers make of it (ovl_lookup in fs/overlayfs/namei.c)."""

import errno
import stat
from typing import Literal
from weakref import WeakValueDictionary

from overlayvfs.abi import Stat, check_name, oserror
from overlayvfs.engine import index
from overlayvfs.engine.dentry import Dentry
from overlayvfs.engine.lowers import LowerDir, LowerFile, get_mark, has_metacopy, look
from overlayvfs.engine.mount import NO_DENTRIES, Mount
from overlayvfs.layers.base import UpperLayer
from overlayvfs.marks import parse_redirect


def lookup(mnt: Mount, parent: Dentry, name: str, *, keep_absence: bool = True) -> Dentry | None:
    """Return the dentry of `name` in directory `parent`, None if nothing shows there; kept, unless the caller does.

    Raises:
        ENAMETOOLONG: more than 255 bytes.
        EINVAL, EACCES, EPERM, EIO: as LowerStack.lookup, for marks in the upper too.

    """
    if mnt.bare:
        return _look_up_bare(mnt, parent, name)
    known: Dentry | Literal[False] | None = parent.children.get(name, False)
    if known is not False:
        return known
    check_name(name)
    mnt.looked_up += 1
    dentry = None if parent.unlinked else _look_up(mnt, parent, name)
    if dentry is not None and isinstance(dentry.lower, LowerDir):
        _claim_lower_dir(mnt, dentry, dentry.lower)
    if dentry is not None or keep_absence:
        parent.children[name] = dentry
    return dentry


def shrink(mnt: Mount) -> None:
    """Throw away every dentry nobody holds open and all that the lowers said (shrink_dcache_parent)."""
    found = [mnt.root]
    for dentry in found:
        found.extend(child for child in dentry.children.values() if child is not None)
    kept = {id(mnt.root)}
    for dentry in reversed(found):
        if dentry.children:
            # Those thrown away are emptied too: a name and its directory refer to each other.
            dentry.children = {
                name: child for name, child in dentry.children.items() if child is not None and id(child) in kept
            }
        dentry.listing = None
        if dentry.pins or dentry.readers or dentry.children:
            kept.add(id(dentry))
    if mnt.lower_dirs:
        mnt.lower_dirs = WeakValueDictionary({key: d for key, d in mnt.lower_dirs.items() if id(d) in kept})
    mnt.lowers.forget()
    mnt.root.lower = mnt.lowers.root if mnt.lowers.layers else None
    mnt.names.flush()
    mnt.looked_up = 0


def _claim_lower_dir(mnt: Mount, dentry: Dentry, lower: LowerDir) -> None:
    """Let a directory stand for its lower one, alone (ovl_verify_inode; KB 2.10).

    Raises:
        ESTALE: another directory that redirects led to the same lower one was looked up first.

    """
    key = lower.parts[0][0], mnt.lowers.stat_of(lower).st_ino
    other = mnt.lower_dirs.get(key)
    if other is None or other.unlinked:
        if mnt.lower_dirs is NO_DENTRIES:
            mnt.lower_dirs = WeakValueDictionary()
        mnt.lower_dirs[key] = dentry
    elif other.has_upper or dentry.has_upper:
        raise oserror(errno.ESTALE, reason=f"{other.path} already shows the lower directory {lower.parts[0][1]}")


def _look_up_bare(mnt: Mount, parent: Dentry, name: str) -> Dentry | None:
    """Look a name up in a layer without a union, each time anew: overlays it is a layer of write to it too."""
    check_name(name)
    assert mnt.upper is not None
    st = None if parent.unlinked else look(mnt.upper, f"{parent.path}/{name}")
    if st is None:
        parent.children.pop(name, None)
        return None
    dentry = parent.children.get(name)
    if dentry is None or dentry.kind != stat.S_IFMT(st.st_mode):
        dentry = parent.children[name] = Dentry(name, parent, True, None, stat.S_IFMT(st.st_mode))
    return dentry


def _look_up(mnt: Mount, parent: Dentry, name: str) -> Dentry | None:
    below = parent.lower_dir
    if parent.has_upper:
        assert mnt.upper is not None
        path = f"{parent.path}/{name}"
        st = look(mnt.upper, path)
        if st is not None:
            if mnt.is_whiteout(mnt.upper, path, st):
                return None
            if stat.S_ISDIR(st.st_mode):
                return _upper_dir(mnt, mnt.upper, path, parent, name)
            return _upper_file(mnt, mnt.upper, path, parent, name, st)
    lower = None if below is None else mnt.lowers.lookup(below, name)
    if lower is None:
        return None
    if isinstance(lower, LowerDir):
        _check_refusal(lower)
    else:
        index.check_entry(mnt, lower)
    return Dentry(name, parent, False, lower, stat.S_IFMT(mnt.lowers.stat_of(lower).st_mode))


def _check_refusal(lower: LowerDir) -> None:
    if lower.refusal is not None:
        raise lower.refusal


def _upper_dir(mnt: Mount, upper: UpperLayer, path: str, parent: Dentry, name: str) -> Dentry:
    """Make the dentry of a directory in the upper, merged with what the lowers have of it."""
    dentry = Dentry(name, parent, True, None, stat.S_IFDIR)
    if not _reads_marks(mnt, parent):
        return dentry
    if get_mark(upper, path, mnt.marks.opaque) == b"y":
        dentry.opaque = True
        return dentry
    value = get_mark(upper, path, mnt.marks.redirect)
    if value is not None:
        dentry.redirect = parse_redirect(value)
        if not mnt.lowers.follow:
            raise oserror(errno.EPERM, reason=f"{path} in the upper has a redirect and redirect_dir=nofollow")
        lower = mnt.lowers.resolve(parent.lower_dir, dentry.redirect)
    else:
        lower = None if parent.lower_dir is None else mnt.lowers.lookup_dir(parent.lower_dir, name)
    if isinstance(lower, LowerDir):
        dentry.lower = lower
        # Linux marks the directory as soon as it has found one to merge with, whatever comes below that.
        _fix_origin(mnt, upper, path, dentry)
        _check_refusal(lower)
    return dentry


def _reads_marks(mnt: Mount, parent: Dentry) -> bool:
    """Tell whether marks can matter: without redirects to follow, only below a merged parent (d.last)."""
    return bool(mnt.lowers.layers) and (mnt.lowers.reads_redirects or parent.lower_dir is not None)


def _fix_origin(mnt: Mount, upper: UpperLayer, path: str, dentry: Dentry) -> None:
    """Give a merged directory made by hand its origin mark (ovl_fix_origin, KB 2.9); some can hold none."""
    if not upper.capabilities.marks or get_mark(upper, path, mnt.marks.origin) is not None:
        return
    lower = dentry.lower
    assert isinstance(lower, LowerDir) and dentry.parent is not None
    handle = mnt.layer(lower.parts[0][0]).file_handle(lower.parts[0][1])
    try:
        upper.setxattr(path, mnt.marks.origin, handle or b"")
        upper.setxattr(dentry.parent.path, mnt.marks.impure, b"y")
    except OSError:
        return
    dentry.parent.impure = True


def _upper_file(mnt: Mount, upper: UpperLayer, path: str, parent: Dentry, name: str, st: Stat) -> Dentry:
    """Make the dentry of an upper object that is no directory, with its origin in the lowers if it has one."""
    dentry = Dentry(name, parent, True, None, stat.S_IFMT(st.st_mode))
    if not mnt.lowers.layers:
        return dentry
    dentry.lower = _origin(mnt, upper, path, dentry, st)
    if dentry.is_file and has_metacopy(upper, path, mnt.marks.metacopy):
        dentry.lower = _find_data(mnt, upper, path, dentry, dentry.lower)
        dentry.metacopy = True
    if dentry.lower is not None and mnt.has_index:
        index.check_entry(mnt, dentry.lower)
    return dentry


def _find_data(mnt: Mount, upper: UpperLayer, path: str, dentry: Dentry, origin: LowerFile | None) -> LowerFile:
    """Return where the data of a metacopy file are, by its redirect or its name (KB 12.13 to 12.15)."""
    assert dentry.parent is not None
    value = get_mark(upper, path, mnt.marks.redirect) if _reads_marks(mnt, dentry.parent) else None
    if value is not None:
        dentry.redirect = parse_redirect(value)
    if not mnt.options.metacopy:
        raise oserror(errno.EPERM, reason=f"{path} in the upper is a metacopy file and metacopy=off")
    if value is not None and not mnt.lowers.follow:
        raise oserror(errno.EPERM, reason=f"{path} in the upper has a redirect and redirect_dir=nofollow")
    place = dentry.name if dentry.redirect is None else dentry.redirect
    lower = mnt.lowers.resolve(dentry.parent.lower_dir, place, metacopy=True)
    if not isinstance(lower, LowerFile):
        raise oserror(errno.EIO, reason=f"{path} in the upper is a metacopy file without data in the lowers")
    if mnt.has_index and origin is not None and not _is_same(mnt, origin, lower):
        raise oserror(errno.ESTALE, reason=f"{path} in the upper was copied up from another file than {lower.path}")
    return lower


def _is_same(mnt: Mount, origin: LowerFile, lower: LowerFile) -> bool:
    """Tell whether an origin mark names this very file (ovl_verify_origin)."""
    return origin.handle == mnt.lowers.layer(lower.layer).file_handle(lower.path)


def _origin(mnt: Mount, upper: UpperLayer, path: str, dentry: Dentry, st: Stat) -> LowerFile | None:
    """Return the lower object an upper one was copied up from, by its origin mark (ovl_check_origin).

    Raises:
        EIO: the mark names an object of another type.

    """
    value = get_mark(upper, path, mnt.marks.origin)
    if value is None:
        return None
    if not value:
        # From a lower without file handles: Linux forgets it with the dentry, a fork must not.
        return mnt.origins.get(st.st_ino)
    # Where handles can only be verified, the name it had before copy up is the one candidate.
    hint = f"{dentry.parent.path}/{dentry.name}" if dentry.parent is not None else None
    for number, layer in enumerate(mnt.lowers.layers, 1):
        origin = layer.find_handle(value, hint)
        if origin is not None:
            if stat.S_IFMT(origin.st_mode) != dentry.kind:
                raise oserror(errno.EIO, reason=f"{path} in the upper has an origin mark of another kind of object")
            return LowerFile(number, "", origin, handle=value)
    return None
