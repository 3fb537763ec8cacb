"""The index: lower hard links kept one inode across copy up (overlayfs.rst, "Inode properties"; KB 11).

Each lower inode with several names that was copied up has an entry in the upper's INDEX directory, named
by its file handle in hexadecimal. The names in the upper are hard links of that entry, and its nlink mark
says how the overlay's link count differs from the upper inode's own.
"""

import errno
import stat

from overlayvfs.abi import Stat, is_whiteout, oserror
from overlayvfs.engine.dentry import Dentry
from overlayvfs.engine.lowers import LowerFile, get_mark, has_metacopy
from overlayvfs.engine.mount import Mount
from overlayvfs.layers.base import INDEX, UpperLayer
from overlayvfs.marks import format_nlink, parse_nlink, parse_redirect


def wants_index(mnt: Mount, dentry: Dentry) -> bool:
    """Tell whether this name is one of several lower hard links and they are to stay one (ovl_need_index)."""
    lower = dentry.lower_file
    return mnt.has_index and lower is not None and lower.stat.st_nlink > 1


def entry_path(mnt: Mount, lower: LowerFile) -> str | None:
    """Return where the index entry of a lower inode is or would be; None if its layer gives no handles."""
    handle = lower.handle or mnt.lowers.layer(lower.layer).file_handle(lower.path)
    return None if handle is None else f"{INDEX}/{handle.hex()}"


def find(mnt: Mount, lower: LowerFile) -> str | None:
    """Return the path of a lower inode's index entry, None if it was never copied up."""
    path = entry_path(mnt, lower)
    return None if path is None or _entry_stat(mnt, path) is None else path


def _entry_stat(mnt: Mount, path: str) -> Stat | None:
    assert mnt.upper is not None
    try:
        return mnt.upper.lstat(path)
    except FileNotFoundError:
        return None


def check_entry(mnt: Mount, lower: LowerFile) -> None:
    """Refuse what an index entry says about a lower object if it can't be followed (ovl_lookup_index, ovl_lookup).

    Raises:
        EIO: the entry is a whiteout or of another type than the object; its metacopy mark is malformed.
        EINVAL: its redirect mark is malformed.
        EPERM: it is a metacopy file and metacopy=off, or has a redirect and redirect_dir=nofollow.

    """
    path = entry_path(mnt, lower) if mnt.has_index and lower.stat.st_nlink > 1 else None
    st = None if path is None else _entry_stat(mnt, path)
    if path is None or st is None:
        return
    assert mnt.upper is not None
    if is_whiteout(st) or stat.S_IFMT(st.st_mode) != stat.S_IFMT(lower.stat.st_mode):
        raise oserror(errno.EIO, reason=f"the index entry of {lower.path} is another kind of object")
    value = get_mark(mnt.upper, path, mnt.marks.redirect)
    if value is not None:
        parse_redirect(value)
    if stat.S_ISREG(st.st_mode) and has_metacopy(mnt.upper, path, mnt.marks.metacopy) and not mnt.options.metacopy:
        raise oserror(errno.EPERM, reason=f"the index entry of {lower.path} is a metacopy file and metacopy=off")
    if value is not None and not mnt.lowers.follow:
        raise oserror(errno.EPERM, reason=f"the index entry of {lower.path} has a redirect and redirect_dir=nofollow")


def nlink(mnt: Mount, dentry: Dentry, real: Stat) -> int:
    """Return the overlay's link count: upper and lower names together (ovl_get_nlink). `real` is the real object's."""
    lower = dentry.lower_file
    if lower is None or lower.stat.st_nlink == 1 or not mnt.has_index:
        return real.st_nlink
    path = entry_path(mnt, lower)
    entry = None if path is None else _entry_stat(mnt, path)
    # A name in the upper that is no link of the entry, made by hand, is a file of its own.
    if path is None or entry is None or (dentry.has_upper and entry.st_ino != real.st_ino):
        return real.st_nlink
    assert mnt.upper is not None
    union = union_nlink(get_mark(mnt.upper, path, mnt.marks.nlink), lower.stat.st_nlink, real.st_nlink)
    return union if union > 0 else real.st_nlink


def union_nlink(mark: bytes | None, lower: int, upper: int) -> int:
    """Return what an nlink mark makes of the two real link counts: the upper's where it makes no sense."""
    parsed = None if mark is None else parse_nlink(mark)
    if parsed is None:
        return upper
    relative_to, difference = parsed
    return (upper if relative_to == "U" else lower) + difference


def store_nlink(mnt: Mount, upper: UpperLayer, path: str, union: int) -> None:
    """Write the nlink mark so that it gives `union` now (ovl_set_nlink_upper)."""
    upper.setxattr(path, mnt.marks.nlink, format_nlink(union - upper.lstat(path).st_nlink))


def drop_if_last(mnt: Mount, lower: LowerFile, left: int) -> None:
    """Remove the index entry once the overlay shows no name of it any more (KB 11.12)."""
    assert mnt.upper is not None
    path = entry_path(mnt, lower) if left == 0 else None
    if path is not None:
        mnt.upper.unlink(path)
