"""Going back: an overlay is what it was at a checkpoint again, or shows what its lowers have.

What goes is put aside in the work directory by one rename a name, and is there to be taken back until all is done.
Descriptors keep what they have open, as after unlink(2).
"""

import errno
import stat

from overlayvfs.abi import RENAME_EXCHANGE, oserror
from overlayvfs.engine.dentry import Dentry
from overlayvfs.engine.duplicate import Pair, duplicate
from overlayvfs.engine.fork import Checkpoint, index_pair, take_numbers
from overlayvfs.engine.inode import real
from overlayvfs.engine.lowers import Lower, LowerDir, look
from overlayvfs.engine.mount import NO_INODES, Mount
from overlayvfs.engine.resolve import Last, Target
from overlayvfs.engine.work import discard, keep_what_fits, temp_path
from overlayvfs.layers.base import INDEX, UpperLayer


def rollback(mnt: Mount, to: Checkpoint) -> None:
    """Make the overlay what it was at a checkpoint of it, or of one it is a fork of.

    The upper's tree is made anew beside the present one, in time and space proportional to its objects (contents
    shared where the upper can), and put in its place name by name. Files open in the upper keep what they have,
    as after unlink(2).

    Raises:
        EINVAL: the checkpoint is of an overlay with other lowers.
        EROFS: the upper can't be relied on any more.
        ENOSPC, EIO: the overlay is as it was before.

    """
    with mnt.lock:
        then = to.mnt
        if then.lowers is not mnt.lowers or (then.upper is None) != (mnt.upper is None):
            raise oserror(errno.EINVAL, reason="the checkpoint is of another overlay")
        if mnt.upper is None:
            return
        assert then.upper is not None
        _restore(mnt, mnt.writable_upper(), then, then.upper)


def _restore(mnt: Mount, upper: UpperLayer, then: Mount, source: UpperLayer) -> None:
    staged, staged_index = temp_path(mnt), temp_path(mnt)
    try:
        root = source.lstat("")
        upper.mkdir(staged, stat.S_IMODE(root.st_mode), root.st_uid, root.st_gid)
        pairs: list[Pair] = [("", staged)]
        if mnt.has_index:
            upper.mkdir(staged_index, 0o700, 0, 0)
            pairs += index_pair(then, staged_index)
        numbers = duplicate(source, upper, pairs)
        # The root itself stays, and stands for the root there was.
        numbers[upper.lstat("").st_ino] = numbers.pop(upper.lstat(staged).st_ino)
        _keep_for_descriptors(mnt)
        swap = _Swap(mnt, upper)
        try:
            swap.contents(staged, "")
            if mnt.has_index:
                swap.contents(staged_index, INDEX)
            _copy_root(source, upper)
        except BaseException:
            swap.undo()
            raise
    finally:
        discard(upper, staged)
        discard(upper, staged_index)
    # Committed: the upper holds what it held.
    swap.clear()
    forget_names(mnt)
    take_numbers(mnt, numbers, then)


def drop(mnt: Mount, target: Target) -> bool:
    """Let the lowers show again what they have at a name, with all below; False where the parent hides them.

    Files open in the upper keep what they hold, as after unlink(2).

    Raises:
        EINVAL: `.`, `..` or the root.
        EROFS: the mount has no upper.

    """
    if target.last is not Last.NORM:
        raise oserror(errno.EINVAL)
    upper = mnt.writable_upper()
    if not _shows_the_lowers(mnt, target.parent):
        return False
    path = f"{target.parent.path}/{target.name}"
    if target.parent.has_upper and look(upper, path) is not None:
        _keep_for_descriptors(mnt)
        before = upper.lstat(target.parent.path)
        aside = temp_path(mnt)
        upper.rename(path, aside)
        # Committed: the lowers show.
        keep_what_fits(upper.utime, target.parent.path, before.st_atime_ns, before.st_mtime_ns)
        discard(upper, aside)
        forget_names(mnt)
    return True


def _shows_the_lowers(mnt: Mount, directory: Dentry) -> bool:
    """Tell whether a directory merges what the lowers alone show at its path."""
    below: Lower | None = mnt.lowers.root
    for name in directory.path.split("/")[1:]:
        below = mnt.lowers.lookup(below, name) if isinstance(below, LowerDir) else None
    if isinstance(below, LowerDir):
        return directory.lower_dir is not None and directory.lower_dir.parts == below.parts
    return directory.lower_dir is None


def empty(mnt: Mount) -> None:
    """Remove everything from the upper but its root's attributes, and look everything up anew, the lowers too.

    Files open in the upper keep what they hold, as after unlink(2).

    Raises:
        EROFS: the mount has no upper.
        EIO: the tree is as it was before.

    """
    upper = mnt.writable_upper()
    nothing = temp_path(mnt)
    _keep_for_descriptors(mnt)
    swap = _Swap(mnt, upper)
    upper.mkdir(nothing, 0o700, 0, 0)
    try:
        before = upper.lstat("")
        swap.contents(nothing, "")
        if mnt.has_index:
            swap.contents(nothing, INDEX)
    except BaseException:
        swap.undo()
        raise
    finally:
        discard(upper, nothing)
    # Committed: the upper holds nothing.
    swap.clear()
    keep_what_fits(upper.utime, "", before.st_atime_ns, before.st_mtime_ns)
    forget_lowers(mnt)


def forget_lowers(mnt: Mount) -> None:
    """Look everything up anew from now on, the lowers too."""
    _keep_for_descriptors(mnt)
    mnt.lowers.forget()
    mnt.lowers.root.stat = None
    mnt.root.lower = mnt.lowers.root if mnt.lowers.layers else None
    forget_names(mnt)


def forget_names(mnt: Mount) -> None:
    """Look every name up anew from now on: the upper was changed behind the dentries."""
    mnt.root.forget_below()
    mnt.root.impure = False
    mnt.root.stat = mnt.root.listing = None
    mnt.names.flush()
    # What is open stays open, but is no name's inode any more.
    mnt.inodes = NO_INODES


def _keep_for_descriptors(mnt: Mount) -> None:
    """Give the descriptors that go by a name the object itself: the name is about to go."""
    pending: list[Dentry] = [mnt.root]
    while pending:
        for child in pending.pop().children.values():
            if child is None:
                continue
            pending.append(child)
            if child.descriptors and child.ghost is None:
                layer, path = real(mnt, child)
                child.ghost = layer.open(path)


class _Swap:
    """Puts new names in the place of old ones, each in one step, and takes all of it back if one fails."""

    def __init__(self, mnt: Mount, upper: UpperLayer) -> None:
        self._mnt = mnt
        self._upper = upper
        self._aside: list[str] = []
        self._undo: list[tuple[str, str, int]] = []

    def contents(self, new: str, old: str) -> None:
        """Let directory `old` hold what `new` holds, and the other way round as far as names are in both."""
        upper = self._upper
        names = [entry.d_name for entry in upper.listdir(new)]
        for name in [entry.d_name for entry in upper.listdir(old)]:
            if name not in names:
                aside = temp_path(self._mnt)
                self._aside.append(aside)
                self._rename(f"{old}/{name}", aside, 0)
        for name in names:
            replaces = look(upper, f"{old}/{name}") is not None
            self._rename(f"{new}/{name}", f"{old}/{name}", RENAME_EXCHANGE if replaces else 0)

    def _rename(self, src: str, dst: str, flags: int) -> None:
        self._upper.rename(src, dst, flags)
        self._undo.append((dst, src, flags))

    def undo(self) -> None:
        """Take everything back."""
        while self._undo:
            self._upper.rename(*self._undo.pop())

    def clear(self) -> None:
        """Remove what was put aside."""
        for path in self._aside:
            discard(self._upper, path)


def _copy_root(src: UpperLayer, dst: UpperLayer) -> None:
    """Give the root of one layer all attributes of another's."""
    st = src.lstat("")
    wanted = src.listxattr("")
    for name in dst.listxattr(""):
        if name not in wanted:
            keep_what_fits(dst.removexattr, "", name)
    for name in wanted:
        keep_what_fits(dst.setxattr, "", name, src.getxattr("", name))
    keep_what_fits(dst.chown, "", st.st_uid, st.st_gid)
    keep_what_fits(dst.chmod, "", stat.S_IMODE(st.st_mode))
    keep_what_fits(dst.utime, "", st.st_atime_ns, st.st_mtime_ns)
