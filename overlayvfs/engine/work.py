"""The work directory: where objects are made ready before one rename shows them (overlayfs.rst, "Upper and Lower")."""

import errno
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from overlayvfs.abi import RENAME_EXCHANGE, oserror
from overlayvfs.engine.lowers import get_mark
from overlayvfs.engine.mount import Mount
from overlayvfs.layers.base import WORK, UpperLayer

_DOES_NOT_FIT = (errno.EOPNOTSUPP, errno.EPERM, errno.EINVAL, errno.ENOSYS)


def temp_path(mnt: Mount) -> str:
    """Return a name in the work directory nobody has used (ovl_tempname)."""
    mnt.temp_count += 1
    return f"{WORK}/#{mnt.temp_count:x}"


@contextmanager
def staged(mnt: Mount, upper: UpperLayer) -> Iterator[str]:
    """Give a temporary path; whatever fails, nothing stays there."""
    path = temp_path(mnt)
    try:
        yield path
    except BaseException:
        discard(upper, path)
        raise


def discard(upper: UpperLayer, path: str) -> None:
    """Remove what is at a work path, with all it holds; it may be gone already (ovl_cleanup).

    Called when the change itself is done or given up, so a failure here must not become the verb's:
    the next mount empties the work directory.
    """
    try:
        _remove_tree(upper, path)
    except OSError:
        pass


def _remove_tree(upper: UpperLayer, path: str) -> None:
    if not stat.S_ISDIR(upper.lstat(path).st_mode):
        upper.unlink(path)
        return
    for entry in upper.listdir(path):
        _remove_tree(upper, f"{path}/{entry.d_name}")
    upper.rmdir(path)


def _make_whiteout(mnt: Mount, upper: UpperLayer, path: str) -> None:
    """Make a whiteout at a free path; all of them are links of one (ovl_whiteout, KB 3.2)."""
    if mnt.whiteout is None and upper.capabilities.hard_links:
        first = temp_path(mnt)
        upper.mknod(first, stat.S_IFCHR, 0, 0, 0)
        mnt.whiteout = first
    if mnt.whiteout is not None:
        try:
            upper.link(mnt.whiteout, path)
        except OSError as error:
            if error.errno != errno.EMLINK:
                raise
            mnt.whiteout = None
        else:
            return
    upper.mknod(path, stat.S_IFCHR, 0, 0, 0)


def put_whiteout(mnt: Mount, upper: UpperLayer, path: str, *, over: int) -> None:
    """Put a whiteout at `path` in one step, over an object of type `over`, 0 for none (ovl_cleanup_and_whiteout)."""
    if not over:
        # Linux stages this one too; a link is as much one step as a rename, and half the work.
        _make_whiteout(mnt, upper, path)
        return
    over_dir = over == stat.S_IFDIR
    staged_path = temp_path(mnt)
    _make_whiteout(mnt, upper, staged_path)
    try:
        upper.rename(staged_path, path, RENAME_EXCHANGE if over_dir else 0)
    except BaseException:
        discard(upper, staged_path)
        raise
    if over_dir:
        discard(upper, staged_path)


def set_opaque(mnt: Mount, upper: UpperLayer, path: str) -> None:
    """Mark an upper directory opaque: nothing below it shows (overlayfs.rst, "whiteouts and opaque directories")."""
    upper.setxattr(path, mnt.marks.opaque, b"y")


def whiteout_names(mnt: Mount, upper: UpperLayer, path: str) -> list[str]:
    """Return the names in an upper directory, which shows none: whiteouts all.

    Raises:
        ENOTEMPTY: an object that is none.

    """
    names = []
    for entry in upper.listdir(path):
        child = f"{path}/{entry.d_name}"
        if not mnt.is_whiteout(upper, child, upper.lstat(child)):
            raise oserror(errno.ENOTEMPTY)
        names.append(entry.d_name)
    return names


def clear_whiteouts(mnt: Mount, upper: UpperLayer, path: str) -> str | None:
    """Make room over an upper directory that shows nothing: swap in an empty opaque one (ovl_clear_empty).

    Returns the work path of the old directory, None if it was empty already. The swap changes nothing
    anybody can see: opaque and empty shows what all whited out showed.
    """
    if not whiteout_names(mnt, upper, path):
        return None
    st = upper.lstat(path)
    with staged(mnt, upper) as empty:
        upper.mkdir(empty, stat.S_IMODE(st.st_mode), st.st_uid, st.st_gid)
        copy_xattrs(mnt, upper, path, empty)
        if get_mark(upper, path, mnt.marks.opaque) is None:
            set_opaque(mnt, upper, empty)
        keep_what_fits(upper.utime, empty, st.st_atime_ns, st.st_mtime_ns)
        upper.rename(empty, path, RENAME_EXCHANGE)
    return empty


def keep_what_fits(verb: Callable[..., object], *args: object) -> None:
    """Call a verb of a layer; what the layer can't hold is left out."""
    try:
        verb(*args)
    except OSError as error:
        if error.errno not in _DOES_NOT_FIT:
            raise


def copy_xattrs(mnt: Mount, upper: UpperLayer, src: str, dst: str) -> None:
    """Copy the caller's attributes (not the marks) of one upper object to another."""
    for name in upper.listxattr(src):
        if not mnt.marks.is_private(name):
            upper.setxattr(dst, name, upper.getxattr(src, name))
