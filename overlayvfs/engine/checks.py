"""What a mount checks and notes in its upper before anything shows (ovl_get_workdir, ovl_get_indexdir in super.c).

An index belongs to one upper over one lower, and says so in marks: on the upper's root the handle of the highest
lower's root (origin), on the index the handle of the upper's root (upper). A volatile mount leaves a note in the
work directory that keeps later mounts away: nobody knows what of it reached the disk.
"""

import errno
import stat

from overlayvfs.abi import Stat, is_whiteout, oserror
from overlayvfs.engine.index import union_nlink
from overlayvfs.engine.lowers import get_mark
from overlayvfs.engine.mount import Mount
from overlayvfs.engine.work import discard
from overlayvfs.layers.base import INDEX, WORK, SnapshotLayer, UpperLayer
from overlayvfs.marks import FileHandle

_VOLATILE = f"{WORK}/incompat/volatile"


def check_not_volatile(upper: UpperLayer) -> None:
    """Refuse an upper that a volatile mount wrote: some of it may never have reached the disk (ovl_workdir_cleanup).

    Raises:
        EINVAL: the work directory says so, or names another feature nobody here knows.

    """
    try:
        features = upper.listdir(f"{WORK}/incompat")
    except (FileNotFoundError, NotADirectoryError):
        return
    for feature in features:
        reason = f"work/incompat/{feature.d_name} of {upper.name}: a volatile mount wrote it; remove that to go on"
        raise oserror(errno.EINVAL, reason=reason)


def make_ready(mnt: Mount) -> None:
    """Check that the upper goes with this mount, and note in it what later mounts must know.

    Raises:
        ESTALE: with index=on, an upper written for other lowers, or an index that belongs to another upper.
        EINVAL: an index entry whose name is no file handle.
        ENODATA: an index entry without an origin mark.

    """
    upper = mnt.upper
    if upper is None:
        return
    if mnt.has_index and mnt.lowers.layers:
        _check_root_origin(mnt, upper)
        if _has_index_directory(upper):
            _check_index_owner(mnt, upper)
            for entry in upper.listdir(INDEX):
                _check_entry(mnt, upper, entry.d_name)
    if mnt.leaves_note:
        upper.mkdir(f"{WORK}/incompat", 0o700, 0, 0)
        upper.mkdir(_VOLATILE, 0o700, 0, 0)
        upper.create(f"{_VOLATILE}/dirty", 0o600, 0, 0).close()


def _has_index_directory(upper: UpperLayer) -> bool:
    try:
        upper.lstat(INDEX)
    except FileNotFoundError:
        return False
    return True


def _check_root_origin(mnt: Mount, upper: UpperLayer) -> None:
    """Verify or set which lower the upper was written for (ovl_verify_origin)."""
    top = mnt.lowers.layer(1)
    handle = top.file_handle("")
    if handle is None or not upper.capabilities.marks:
        return
    if not _holds(upper, "", mnt.marks.origin, handle):
        reason = f"{upper.name} was written for another lower than {top.name}; mount with index=off"
        raise oserror(errno.ESTALE, reason=reason)


def _check_index_owner(mnt: Mount, upper: UpperLayer) -> None:
    """Verify or set whose index this is (ovl_verify_upper)."""
    # An index that is part of its upper can't be taken for another's, and a snapshot is as good as the original.
    value = None if isinstance(upper, SnapshotLayer) else upper.file_handle("")
    handle = None if value is None else FileHandle.decode(value)
    if handle is None:
        return
    if not _holds(upper, INDEX, mnt.marks.upper, handle.encode(of_upper=True)):
        reason = (
            f"the index in the workdir belongs to another upper than {upper.name}: remove it, or mount with index=off"
        )
        raise oserror(errno.ESTALE, reason=reason)


def _holds(upper: UpperLayer, path: str, mark: str, handle: bytes) -> bool:
    """Tell whether a mark holds this handle; where there is none, it does from now on (ovl_verify_set_fh)."""
    found = get_mark(upper, path, mark)
    if not found or FileHandle.decode(found) is None:
        upper.setxattr(path, mark, handle)
        return True
    return found == handle


def _check_entry(mnt: Mount, upper: UpperLayer, name: str) -> None:
    """Remove an index entry nobody can reach any more; refuse one that makes no sense (ovl_verify_index)."""
    path = f"{INDEX}/{name}"
    if name.startswith("#"):
        discard(upper, path)
        return
    try:
        handle = bytes.fromhex(name)
    except ValueError:
        handle = b""
    if FileHandle.decode(handle) is None:
        raise oserror(errno.EINVAL, reason=f"{name} in the index is no file handle; remove it, or mount with index=off")
    st = upper.lstat(path)
    if is_whiteout(st) or stat.S_ISDIR(st.st_mode):
        return
    origin = get_mark(upper, path, mnt.marks.origin)
    if origin is None:
        reason = f"the index entry {name} has no origin mark; remove it, or mount with index=off"
        raise oserror(errno.ENODATA, reason=reason)
    if origin != handle or (st.st_nlink == 1 and _is_orphan(mnt, upper, path, handle, st)):
        upper.unlink(path)


def _is_orphan(mnt: Mount, upper: UpperLayer, path: str, handle: bytes, st: Stat) -> bool:
    """Tell whether no name of an entry is left, in the upper or in the lowers."""
    for layer in mnt.lowers.layers:
        lower = layer.find_handle(handle)
        if lower is not None:
            return union_nlink(get_mark(upper, path, mnt.marks.nlink), lower.st_nlink, st.st_nlink) == 0
    return True
