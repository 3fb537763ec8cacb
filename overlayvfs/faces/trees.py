"""Copying, moving and removing whole trees of one overlay, as cp -a, mv and rm -r do.

All of it sees symlinks themselves and never walks through one. OSError only, as from the engine's verbs.
"""

import errno
import stat
from collections.abc import Callable, Sequence

from overlayvfs import abi
from overlayvfs.abi import Stat, oserror
from overlayvfs.engine.overlay import Overlay

_CHUNK = 1 << 20
_NEW_FILE = abi.O_WRONLY | abi.O_CREAT | abi.O_TRUNC

_UNHELD = frozenset({errno.EPERM, errno.EOPNOTSUPP})
"""What a layer answers that can't hold an attribute."""


def lexists(overlay: Overlay, path: str) -> bool:
    """Tell whether there is a name `path`, be it a dangling symlink."""
    try:
        overlay.stat(path, follow=False)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def remove_tree(overlay: Overlay, path: str) -> None:
    """Remove a directory and all below it; of the root, all below it.

    Raises:
        ENOENT ENOTDIR: `path` is no directory (a symlink to one included).

    """
    _must_be_dir(overlay, path)
    pending = [(path, False)]
    while pending:
        at, emptied = pending.pop()
        if emptied:
            if at != "/":
                overlay.rmdir(at)
            continue
        pending.append((at, True))
        for child, is_dir in _children(overlay, at):
            if is_dir:
                pending.append((child, False))
            else:
                overlay.unlink(child)


def copy_file(overlay: Overlay, src: str, dst: str) -> None:
    """Copy the data of a regular file, through symlinks on both sides; a new file gets the permissions of `src`.

    Raises:
        EISDIR: either is a directory.
        EINVAL: both are the same file.

    """
    source = overlay.open(src, abi.O_RDONLY)
    try:
        if source.is_dir():
            raise oserror(errno.EISDIR, src)
        st = source.stat()
        if _is_object(overlay, dst, st):
            raise oserror(errno.EINVAL, src, dst, reason="source and destination are the same file")
        target = overlay.open(dst, _NEW_FILE, stat.S_IMODE(st.st_mode) & 0o777)
        try:
            while data := source.read(_CHUNK):
                target.write(data)
        finally:
            target.close()
    finally:
        source.close()


def copy_tree(overlay: Overlay, src: str, dst: str, *, attributes: bool, times: bool = False) -> None:
    """Copy all below the directory `src` into the directory `dst`, making it where it is missing.

    Objects keep their kind, symlinks their target, hard links among the copied stay hard links. What is
    in `dst` already and no directory is replaced. `attributes`: also owners, modes, times and xattrs, as
    far as the upper can hold them; `times` only the times; otherwise they are as new objects have them.

    Raises:
        ENOENT ENOTDIR: `src` is no directory, or something else is where a directory is to be.

    """
    _TreeCopy(overlay, attributes, times or attributes).run(src, dst)


def move_tree(overlay: Overlay, src: str, dst: str) -> None:
    """Move the directory `src` to `dst`: by rename(2), and as mv(1) does where that gives EXDEV.

    A `dst` with names in it keeps them, unless `src` has the same: directories are then merged, all
    else is replaced.

    Raises:
        ENOENT ENOTDIR: `src` is no directory, or a directory is to replace something else.

    """
    _must_be_dir(overlay, src)
    pending = [(src, dst, False)]
    while pending:
        old, new, merged = pending.pop()
        if merged:
            overlay.rmdir(old)
        elif not _must_merge(overlay, new, through_symlink=new == dst):
            _move_whole(overlay, old, new)
        else:
            pending.append((old, new, True))
            for child, is_dir in _children(overlay, old):
                target = _join(new, _name(child))
                if is_dir:
                    pending.append((child, target, False))
                else:
                    overlay.rename(child, target)


def _must_merge(overlay: Overlay, dst: str, *, through_symlink: bool) -> bool:
    """Tell whether names have to go into `dst` one by one. ENOTDIR where there is something else than a directory."""
    if not lexists(overlay, dst):
        return False
    if not through_symlink:
        _must_be_dir(overlay, dst)
    has_names = bool(overlay.listdir(dst))
    return has_names or dst == "/" or stat.S_ISLNK(overlay.stat(dst, follow=False).st_mode)


def _move_whole(overlay: Overlay, src: str, dst: str) -> None:
    try:
        overlay.rename(src, dst)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        copy_tree(overlay, src, dst, attributes=True)
        remove_tree(overlay, src)


class _TreeCopy:
    """One run of copy_tree."""

    def __init__(self, overlay: Overlay, attributes: bool, times: bool) -> None:
        self._overlay = overlay
        self._attributes = attributes
        self._times = times
        self._linked: dict[tuple[int, int], str] = {}

    def run(self, src: str, dst: str) -> None:
        """Copy `src` to `dst`; a directory gets its attributes when all in it is there (its mtime would not last)."""
        pending: list[tuple[str, str, Stat | None]] = [(src, dst, None)]
        while pending:
            old, new, filled = pending.pop()
            if filled is None:
                pending += self._directory(old, new)
            else:
                self._copy_attributes(old, new, filled)

    def _directory(self, src: str, dst: str) -> list[tuple[str, str, Stat | None]]:
        """Copy a directory and what is no directory in it; return what is left to do."""
        overlay = self._overlay
        children = _children(overlay, src)
        st = overlay.stat(src)
        if not lexists(overlay, dst):
            overlay.mkdir(dst, stat.S_IMODE(st.st_mode) if self._attributes else 0o777)
        left: list[tuple[str, str, Stat | None]] = [(src, dst, st)]
        for child, is_dir in children:
            target = _join(dst, _name(child))
            if is_dir:
                if lexists(overlay, target):
                    _must_be_dir(overlay, target)
                left.append((child, target, None))
            else:
                self._other(child, target)
        return left

    def _other(self, src: str, dst: str) -> None:
        overlay = self._overlay
        st = overlay.stat(src, follow=False)
        if lexists(overlay, dst):
            # Not written through: it may be a symlink out of here, or share its data with another name.
            overlay.unlink(dst)
        first = self._linked.setdefault((st.st_dev, st.st_ino), dst) if st.st_nlink > 1 else dst
        if first != dst:
            overlay.link(first, dst)
            return
        if stat.S_ISLNK(st.st_mode):
            overlay.symlink(overlay.readlink(src), dst)
        elif stat.S_ISREG(st.st_mode):
            copy_file(overlay, src, dst)
        else:
            overlay.mknod(dst, st.st_mode, st.st_rdev)
        self._copy_attributes(src, dst, st)

    def _copy_attributes(self, src: str, dst: str, st: Stat) -> None:
        """Give `dst` of `src`'s attributes what was asked for; the mode after the owner (chown clears set-id bits)."""
        overlay = self._overlay
        if self._attributes:
            _where_held(overlay.chown, dst, st.st_uid, st.st_gid)
            for name in overlay.listxattr(src, follow=False):
                _where_held(overlay.setxattr, dst, name, overlay.getxattr(src, name, follow=False), 0)
            if not stat.S_ISLNK(st.st_mode):
                _where_held(overlay.chmod, dst, stat.S_IMODE(st.st_mode))
        if self._times:
            _where_held(overlay.utime, dst, (st.st_atime_ns, st.st_mtime_ns))


def _where_held(verb: Callable[..., None], *args: object) -> None:
    """Call a verb, on a symlink itself; what the upper can't hold is left out, as cp -a does."""
    try:
        verb(*args, follow=False)
    except OSError as error:
        if error.errno not in _UNHELD:
            raise


def _children(overlay: Overlay, path: str) -> Sequence[tuple[str, bool]]:
    """Return (path, is a directory) of all in a directory; `d_type` 0 means asking."""
    children = []
    for name, _, kind in overlay.listdir(path):
        child = _join(path, name)
        if not kind:
            kind = stat.S_IFMT(overlay.stat(child, follow=False).st_mode)
        children.append((child, kind == stat.S_IFDIR))
    return children


def _join(folder: str, name: str) -> str:
    return f"{folder.rstrip('/')}/{name}"


def _name(path: str) -> str:
    return path.rpartition("/")[2]


def _must_be_dir(overlay: Overlay, path: str) -> None:
    if not stat.S_ISDIR(overlay.stat(path, follow=False).st_mode):
        raise oserror(errno.ENOTDIR, path)


def _is_object(overlay: Overlay, path: str, st: Stat) -> bool:
    try:
        other = overlay.stat(path)
    except OSError:
        return False
    return (other.st_dev, other.st_ino) == (st.st_dev, st.st_ino)
