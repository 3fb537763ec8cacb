"""The index: lower hard links kept one inode across copy up (overlayfs.rst, "Inode properties"; KB 11).

Each lower inode with several names that was copied up has an entry in the upper's INDEX directory, named
by its file handle in hexadecimal. The names in the upper are hard links of that entry, and its nlink mark
says how the overlay's link count differs from the upper inode's own.
"""

from overlayvfs.engine.dentry import Dentry
from overlayvfs.engine.lowers import LowerFile, get_mark
from overlayvfs.engine.mount import Mount
from overlayvfs.layers.base import INDEX, UpperLayer
from overlayvfs.marks import format_nlink, parse_nlink


def wants_index(mnt: Mount, dentry: Dentry) -> bool:
    """Tell whether this name is one of several lower hard links and they are to stay one (ovl_need_index)."""
    lower = dentry.lower_file
    return mnt.has_index and lower is not None and lower.stat.st_nlink > 1 and dentry.is_file


def entry_path(mnt: Mount, lower: LowerFile) -> str | None:
    """Return where the index entry of a lower inode is or would be; None if its layer gives no handles."""
    handle = mnt.lowers.layer(lower.layer).file_handle(lower.path) if lower.path else None
    return None if handle is None else f"{INDEX}/{handle.hex()}"


def find(mnt: Mount, lower: LowerFile) -> str | None:
    """Return the path of a lower inode's index entry, None if it was never copied up."""
    assert mnt.upper is not None
    path = entry_path(mnt, lower)
    if path is None:
        return None
    try:
        mnt.upper.lstat(path)
    except FileNotFoundError:
        return None
    return path


def nlink(mnt: Mount, dentry: Dentry, real_nlink: int) -> int:
    """Return the overlay's link count: upper and lower names together (ovl_get_nlink)."""
    lower = dentry.lower_file
    if lower is None or lower.stat.st_nlink == 1 or mnt.upper is None:
        return real_nlink
    path = find(mnt, lower)
    value = None if path is None else get_mark(mnt.upper, path, mnt.marks.nlink)
    parsed = None if value is None else parse_nlink(value)
    if parsed is None:
        return real_nlink
    relative_to, difference = parsed
    return (real_nlink if relative_to == "U" else lower.stat.st_nlink) + difference


def store_nlink(mnt: Mount, upper: UpperLayer, path: str, union: int) -> None:
    """Write the nlink mark so that it gives `union` now (ovl_set_nlink_upper)."""
    upper.setxattr(path, mnt.marks.nlink, format_nlink(union - upper.lstat(path).st_nlink))


def drop_if_last(mnt: Mount, lower: LowerFile, left: int) -> None:
    """Remove the index entry once the overlay shows no name of it any more (KB 11.12)."""
    assert mnt.upper is not None
    path = entry_path(mnt, lower) if left == 0 else None
    if path is not None:
        mnt.upper.unlink(path)
