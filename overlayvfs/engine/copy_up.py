"""Copying an object from a lower to the upper (fs/overlayfs/copy_up.c; overlayfs.rst, "Upper and Lower").

The copy is made ready in the work directory and shown by one rename: whatever fails, the tree is the
one before. What the upper can't hold (an owner, an attribute) is left out, as cp(1) to vfat does.
"""

import errno
import stat
import time
from collections.abc import Callable
from functools import partial

from overlayvfs.abi import SEEK_DATA, SEEK_HOLE, Stat, oserror
from overlayvfs.engine import index
from overlayvfs.engine.dentry import Dentry
from overlayvfs.engine.inode import Inode, adopt_readers, inode_key, is_metacopy, live_inode, real
from overlayvfs.engine.lowers import LowerFile, open_found, vanished
from overlayvfs.engine.mount import Mount
from overlayvfs.engine.permission import mode_after_write
from overlayvfs.engine.work import keep_what_fits, staged
from overlayvfs.layers.base import Handle, Layer, Progress, UpperLayer
from overlayvfs.marks import MarkNames

CHUNK = 1 << 20
"""Bytes copied at a time."""


def copy_up(mnt: Mount, dentry: Dentry, *, size: int | None = None, data: bool = False) -> UpperLayer:
    """See to it that `dentry` and all above it are in the upper (ovl_copy_up_flags).

    `data` asks for contents even with metacopy=on. `size` has a regular file shown as truncate(2) then leaves it,
    with no moment at which it shows otherwise; only where `can_resize`.

    Raises:
        EROFS: the mount has no upper.
        EEXIST, ENOTDIR, ENOTEMPTY, ENOENT, EIO: the name is gone (KB 13.8).
        ENOSPC, EIO and what else a layer raises; the tree is then the one before.

    """
    upper = mnt.writable_upper()
    if not dentry.has_upper:
        if dentry.lower_file is not None:
            # Whether or not they are taken from there yet, the contents have to be there (ovl_verify_lowerdata).
            mnt.lowers.data_of(dentry.lower_file)
        if dentry.unlinked:
            if dentry.parent is not None and not dentry.parent.unlinked:
                set_impure(mnt, upper, dentry.parent)
            raise oserror(_in_the_way(upper, dentry), reason="the name was removed before anything was copied up")
        assert dentry.parent is not None
        copy_up(mnt, dentry.parent)
        adopt_readers(mnt, dentry)
        lower = dentry.lower_file
        entry = index.entry_path(mnt, lower) if lower is not None and index.wants_index(mnt, dentry) else None
        if entry is None or lower is None:
            _copy_up_one(mnt, upper, dentry, size, data, None)
        else:
            if index.find(mnt, lower) is None:
                _copy_up_one(mnt, upper, dentry, size, data, entry)
            _link_up(mnt, upper, dentry, entry)
        # What was remembered of the lower object no longer holds (tests/test_known_names.py).
        dentry.stat = dentry.parent.listing = None
        # Once more for a light reader that came while this went on and still saw the lower.
        adopt_readers(mnt, dentry)
    if data and is_metacopy(mnt, dentry):
        copy_up_data(mnt, upper, dentry)
    return upper


def _in_the_way(upper: UpperLayer, dentry: Dentry) -> int:
    """Return the errno of copying up what has lost its name: what is there now is in the way.

    Linux links a file into its place but renames a directory there, which an empty directory would not hinder:
    it is replaced then, by one that no path leads to. We don't do that.
    """
    parent = dentry.parent
    if parent is None or parent.unlinked:
        return errno.EIO if dentry.is_dir else errno.ENOENT
    if not dentry.is_dir:
        return errno.EEXIST
    there = upper.lstat(f"{parent.path}/{dentry.name}")
    return errno.ENOTEMPTY if stat.S_ISDIR(there.st_mode) else errno.ENOTDIR


def can_resize(mnt: Mount, dentry: Dentry) -> bool:
    """Tell whether copy_up can show a regular file at another size at once: no name of it is in the upper yet."""
    lower = dentry.lower_file
    return not dentry.has_upper and not index.wants_index(mnt, dentry) and not (lower is not None and lower.is_metacopy)


def _copy_up_one(
    mnt: Mount, upper: UpperLayer, dentry: Dentry, size: int | None, data: bool, entry: str | None
) -> None:
    """Copy one object whose parent is in the upper to its place there or to its index `entry` (ovl_do_copy_up)."""
    assert dentry.parent is not None and dentry.lower is not None
    lower = dentry.lower
    st = mnt.lowers.stat_of(lower)
    layer, lower_path = real(mnt, dentry)
    metacopy = mnt.options.metacopy and dentry.is_file and not data and size is None
    keeps_origin = dentry.is_dir or st.st_nlink == 1 or entry is not None
    inode = live_inode(mnt, dentry)
    handle: Handle | None = None
    with staged(mnt, upper) as temp:
        handle = _make_copy(mnt, upper, dentry, st, layer, lower_path, temp, size=size, metacopy=metacopy)
        try:
            origin = _set_origin(mnt, upper, temp, layer, lower_path) if keeps_origin else None
            if origin == b"" and isinstance(lower, LowerFile):
                mnt.origins[upper.lstat(temp).st_ino] = lower
            if entry is None:
                _show(mnt, upper, dentry, partial(upper.rename, temp, dentry.path))
            else:
                index.store_nlink(mnt, upper, temp, st.st_nlink)
                upper.rename(temp, entry)
        except BaseException:
            if handle is not None:
                handle.close()
            raise
    # Committed: the upper shows the copy or, indexed, every name of it does.
    dentry.has_upper = entry is None
    dentry.metacopy = metacopy
    if not keeps_origin and not metacopy:
        dentry.lower = None
    if handle is not None:
        _hand_over(mnt, upper, dentry, inode, handle)


def _link_up(mnt: Mount, upper: UpperLayer, dentry: Dentry, entry: str) -> None:
    """Show one of several lower hard links in the upper: a link of their index entry (ovl_link_up; KB 11.7)."""
    metacopy = is_metacopy(mnt, dentry)
    union = index.nlink(mnt, dentry, upper.lstat(entry))
    # Until the name is there its link is counted below; a crash between the two leaves the count one too high.
    _show(mnt, upper, dentry, partial(upper.link, entry, dentry.path))
    # Committed: the name is a link of the index entry.
    dentry.has_upper, dentry.metacopy = True, metacopy
    index.store_nlink(mnt, upper, entry, union)


def _show(mnt: Mount, upper: UpperLayer, dentry: Dentry, commit: Callable[[], None]) -> None:
    """Put the copy in its place by `commit`; the parent is marked impure and keeps its times (KB 5.3, 5.5)."""
    parent = dentry.parent
    assert parent is not None
    set_impure(mnt, upper, parent)
    before = upper.lstat(parent.path)
    commit()
    # Committed. A parent left with a fresh mtime is no reason to fail.
    try:
        upper.utime(parent.path, before.st_atime_ns, before.st_mtime_ns)
    except OSError:
        pass


def set_impure(mnt: Mount, upper: UpperLayer, directory: Dentry) -> None:
    """Mark an upper directory as holding copied-up objects (ovl_set_impure)."""
    if directory.impure:
        return
    keep_what_fits(upper.setxattr, directory.path, mnt.marks.impure, b"y")
    directory.impure = True


def _hand_over(mnt: Mount, upper: UpperLayer, dentry: Dentry, inode: Inode | None, handle: Handle) -> None:
    """Let those who have the file open go on with the copy."""
    if inode is None:
        handle.close()
        return
    mnt.inodes.pop(inode.key, None)
    inode.key = inode_key(mnt, dentry)
    mnt.inodes[inode.key] = inode
    inode.replace(handle, inode.data if dentry.metacopy else handle, writable=not dentry.metacopy)


def _make_copy(
    mnt: Mount,
    upper: UpperLayer,
    dentry: Dentry,
    st: Stat,
    layer: Layer,
    lower_path: str,
    temp: str,
    *,
    size: int | None,
    metacopy: bool,
) -> Handle | None:
    """Make a full copy at a work path; the open handle of a regular file."""
    mode = stat.S_IMODE(st.st_mode)
    handle: Handle | None = None
    if stat.S_ISREG(st.st_mode):
        handle = _create_file(upper, temp, mode, st)
        try:
            if metacopy:
                handle.truncate(st.st_size)
                upper.setxattr(temp, mnt.marks.metacopy, b"")
            else:
                _fill(mnt, upper, dentry, handle, st.st_size, st.st_size if size is None else size)
        except BaseException:
            handle.close()
            raise
    elif stat.S_ISDIR(st.st_mode):
        _with_owner(st, lambda uid, gid: upper.mkdir(temp, mode, uid, gid))
    elif stat.S_ISLNK(st.st_mode):
        target = layer.readlink(lower_path)
        _with_owner(st, lambda uid, gid: upper.symlink(target, temp, uid, gid))
    else:
        _with_owner(st, lambda uid, gid: upper.mknod(temp, st.st_mode, st.st_rdev, uid, gid))
    try:
        _copy_attributes(mnt.marks, upper, layer, lower_path, temp, st if size is None else _as_written(mnt, st))
    except BaseException:
        if handle is not None:
            handle.close()
        raise
    return handle


def _fill(mnt: Mount, upper: UpperLayer, dentry: Dentry, handle: Handle, has: int, size: int) -> None:
    """Give an empty copy the first `size` of the `has` bytes of a lower file, and a hole where it has fewer."""
    length = min(has, size)
    lower = dentry.lower_file
    assert lower is not None
    number, path = mnt.lowers.data_of(lower)
    if lower.is_metacopy:
        # Its size and its data were put together by somebody: Linux copies what there is.
        length = min(length, mnt.lowers.layer(number).lstat(path).st_size)
    if length:
        _copy_data(upper, mnt.lowers.layer(number), path, handle, length, _progress(mnt, dentry, length))
    # A metacopy file has its size already, and where nothing is written its mtime stays.
    if size > length and handle.stat().st_size != size:
        handle.truncate(size)
    if size and not mnt.options.volatile:
        handle.sync()


def _progress(mnt: Mount, dentry: Dentry, total: int) -> Progress | None:
    """Return what tells the caller how far the copy of a file is, None if nobody asked."""
    report = mnt.on_copy_up
    if report is None:
        return None
    path = dentry.path
    return lambda done: report(path, done, total)


def _as_written(mnt: Mount, st: Stat) -> Stat:
    """Return a file's attributes as they are after somebody changed its data."""
    mode = mode_after_write(mnt.credentials, st) if mnt.credentials.uid != 0 else None
    return st._replace(st_mode=st.st_mode if mode is None else mode, st_mtime_ns=time.time_ns())


def _create_file(upper: UpperLayer, temp: str, mode: int, st: Stat) -> Handle:
    try:
        return upper.create(temp, mode, st.st_uid, st.st_gid)
    except PermissionError:
        # The upper's host forbids giving files away: the copy belongs to whoever runs this.
        return upper.create(temp, mode, -1, -1)


def _with_owner(st: Stat, make: Callable[[int, int], object]) -> None:
    try:
        make(st.st_uid, st.st_gid)
    except PermissionError:
        make(-1, -1)


def _copy_attributes(marks: MarkNames, upper: UpperLayer, layer: Layer, lower_path: str, temp: str, st: Stat) -> None:
    try:
        names = layer.listxattr(lower_path)
    except FileNotFoundError as error:
        raise vanished(layer, lower_path) from error
    for name in names:
        if not marks.is_private(name):
            keep_what_fits(upper.setxattr, temp, name, layer.getxattr(lower_path, name))
    if not stat.S_ISLNK(st.st_mode):
        # Some systems drop set-id bits with a change of owner: the mode comes after it.
        keep_what_fits(upper.chmod, temp, stat.S_IMODE(st.st_mode))
    keep_what_fits(upper.utime, temp, st.st_atime_ns, st.st_mtime_ns)


def _set_origin(mnt: Mount, upper: UpperLayer, temp: str, layer: Layer, lower_path: str) -> bytes:
    """Note where the copy comes from, so that its numbers stay (ovl_set_origin); what is noted."""
    # An empty mark says "copied up from somewhere that gives no handles", as the kernel writes it.
    value = layer.file_handle(lower_path) or b""
    keep_what_fits(upper.setxattr, temp, mnt.marks.origin, value)
    return value


def _copy_data(
    upper: UpperLayer, layer: Layer, path: str, dst: Handle, size: int, progress: Progress | None
) -> None:
    """Copy `size` bytes, sharing blocks where the upper can and leaving holes where the source has them."""
    src = open_found(layer, path)
    cloned = False
    try:
        cloned = upper.clone(src, dst, size, progress)
        if not cloned:
            stream(layer, path, src, dst, size, progress)
        if progress is not None:
            progress(size)
    finally:
        # A clone that reads through keeps the source open itself.
        if not cloned:
            src.close()


def stream(
    layer: Layer, path: str, src: Handle, dst: Handle, size: int, progress: Progress | None = None
) -> None:
    """Copy the first `size` bytes, holes as holes. EIO: the file of `layer` ends before that."""
    at = 0
    while at < size:
        start = _next_data(src, at, size)
        if start >= size:
            break
        end = min(_next_hole(src, start, size), size)
        at = start
        while at < end:
            piece = src.pread(min(CHUNK, end - at), at)
            if not piece:
                raise oserror(errno.EIO, reason=f"{path} in {layer.name} ends at {at} of {size} bytes")
            dst.pwrite(piece, at)
            at += len(piece)
            if progress is not None and at < size:
                progress(at)
    dst.truncate(size)


def _next_data(src: Handle, at: int, size: int) -> int:
    try:
        return src.seek_extent(at, SEEK_DATA)
    except OSError as error:
        return size if error.errno == errno.ENXIO else at


def _next_hole(src: Handle, at: int, size: int) -> int:
    try:
        return src.seek_extent(at, SEEK_HOLE)
    except OSError:
        return size


def copy_up_data(mnt: Mount, upper: UpperLayer, dentry: Dentry) -> None:
    """Give a metacopy file its contents (ovl_copy_up_meta_inode_data; KB 12.4, 12.5)."""
    inode = live_inode(mnt, dentry)
    st = upper.lstat(dentry.path)
    handle = upper.open(dentry.path, writable=True)
    try:
        # All of it, even if it is about to be cut: until the mark goes, the file shows its size and the lower's data.
        _fill(mnt, upper, dentry, handle, st.st_size, st.st_size)
        upper.removexattr(dentry.path, mnt.marks.metacopy)
    except BaseException:
        handle.close()
        raise
    # Committed: the upper file has its own data.
    dentry.metacopy = False
    if inode is None:
        handle.close()
    else:
        inode.replace(handle, handle, writable=True)
