"""Acting on one name in one open directory: where every path verb of the layer ends.

No call here follows a symlink, and none takes more than one component.
"""

import errno
import os
import stat
from typing import Final

from overlayvfs.abi import O_DIRECTORY, O_NOFOLLOW, O_PATH, O_TMPFILE, Dirent, Stat, oserror
from overlayvfs.layers.local import syscalls
from overlayvfs.layers.local.beneath import path_of
from overlayvfs.layers.local.handle import HostHandle, change_owner, to_stat

_CLOEXEC: Final[int] = getattr(os, "O_CLOEXEC", 0)
_OBJECT: Final[int] = O_PATH | O_NOFOLLOW | _CLOEXEC

_LIST: Final[int] = os.O_RDONLY | O_DIRECTORY | O_NOFOLLOW | _CLOEXEC
# Should a fifo take a file's place before it is opened, it must not make us wait; to files it means nothing.
_DATA: Final[int] = O_NOFOLLOW | _CLOEXEC | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0)

_CHEAP_DIRECTORY: Final = 1 << 15
"""Directories up to this st_size are listed for hardly more than an lstat: a few hundred names."""

_FILE: Final = stat.S_IFREG
_new = tuple.__new__

_NOT_OURS_TO_GIVE: Final = (errno.EPERM, errno.EINVAL)
"""chown(2) without privilege, or to an owner this user namespace does not map."""


def name_path(directory: int, name: str) -> str:
    """Return a path for the calls that take no directory descriptor (the xattr family)."""
    return f"{path_of(directory)}/{name}"


def lstat(directory: int, name: str) -> Stat:
    """Return the object's own attributes."""
    # Looking "." up would need the right to search the directory.
    st = os.fstat(directory) if name == "." else os.stat(name, dir_fd=directory, follow_symlinks=False)
    return to_stat(st)


def entries(directory: int) -> list[Dirent]:
    """Return what getdents(2) gives of an open directory."""
    with os.scandir(directory) as found:
        # Dirent(…) itself takes twice as long, and a call for every entry as long again.
        return [
            _new(Dirent, (entry.name, entry.inode(), _FILE if entry.is_file(follow_symlinks=False) else _kind(entry)))
            for entry in found
        ]


def _kind(entry: "os.DirEntry[str]") -> int:
    if entry.is_dir(follow_symlinks=False):
        return stat.S_IFDIR
    if entry.is_symlink():
        return stat.S_IFLNK
    # Python keeps the rest of d_type to itself.
    return stat.S_IFMT(entry.stat(follow_symlinks=False).st_mode)


def cheap_names(directory: int) -> list[str] | None:
    """Return an open directory's names, None if it is big."""
    if os.fstat(directory).st_size > _CHEAP_DIRECTORY:
        return None
    return os.listdir(directory)


def object_handle(directory: int, name: str, kind: int = 0, *, read_only: bool) -> HostHandle:
    """Return the object itself for its attributes; opens nothing (O_PATH)."""
    fd = os.dup(directory) if name == "." else os.open(name, _OBJECT, dir_fd=directory)
    return HostHandle(fd, kind, _OBJECT, read_only=read_only)


def open_handle(directory: int, name: str, *, writable: bool, read_only: bool) -> HostHandle:
    """Return the object open for what it is: a file for its data, a directory to be synced, the rest for attributes.

    Raises:
        EISDIR: `writable`, and it is a directory.
        ESTALE: it became a symlink meanwhile.

    """
    kind = stat.S_IFMT(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode)
    return open_kind(directory, name, kind, writable=writable, read_only=read_only)


def open_kind(directory: int, name: str, kind: int, *, writable: bool, read_only: bool) -> HostHandle:
    """Do what `open_handle` does with an object whose S_IFMT kind is known. EISDIR ESTALE."""
    if kind == stat.S_IFDIR and writable:
        raise oserror(errno.EISDIR, name)
    if kind not in (stat.S_IFREG, stat.S_IFDIR):
        return object_handle(directory, name, kind, read_only=read_only)
    flags = _DATA | (os.O_RDWR if writable else os.O_RDONLY)
    try:
        fd = os.open(name, flags, dir_fd=directory)
    except PermissionError:
        if kind == stat.S_IFREG:
            raise
        # A directory's attributes can be had without the right to list it.
        return object_handle(directory, name, kind, read_only=read_only)
    except OSError as error:
        raise oserror(errno.ESTALE, name) if error.errno == errno.ELOOP else error from None
    return HostHandle(fd, kind, flags, read_only=read_only)


def read_file(directory: int, name: str, size: int) -> bytes:
    """Return up to `size` bytes of what is known to be a regular file: open and close without an object. ESTALE."""
    try:
        fd = os.open(name, _DATA | os.O_RDONLY, dir_fd=directory)
    except OSError as error:
        raise oserror(errno.ESTALE, name) if error.errno == errno.ELOOP else error from None
    try:
        return os.pread(fd, size, 0)
    finally:
        os.close(fd)


def create(directory: int, name: str, mode: int, uid: int, gid: int) -> HostHandle:
    """Make a file of exactly this mode and, as far as this process may set it, owner. EEXIST."""
    fd = os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL | O_NOFOLLOW | _CLOEXEC, mode, dir_fd=directory)
    try:
        _settle(fd, os.fstat(fd), mode, uid, gid)
    except OSError:
        os.close(fd)
        os.unlink(name, dir_fd=directory)
        raise
    return HostHandle(fd, stat.S_IFREG, os.O_RDWR)


def unnamed(directory: int, name: str, mode: int, uid: int, gid: int) -> HostHandle:
    """Make a file without a name on the file system of the directory `name`. EOPNOTSUPP."""
    fd = os.open(name, O_TMPFILE | os.O_RDWR | _CLOEXEC, mode, dir_fd=directory)
    try:
        _settle(fd, os.fstat(fd), mode, uid, gid)
    except OSError:
        os.close(fd)
        raise
    return HostHandle(fd, stat.S_IFREG, os.O_RDWR)


def settle(directory: int, name: str, mode: int, uid: int, gid: int) -> None:
    """Give an object just made exactly this mode and, as far as this process may, owner; remove it if that fails."""
    st = os.stat(name, dir_fd=directory, follow_symlinks=False)
    if _is_settled(st, mode, uid, gid):
        return
    fd = os.open(name, _OBJECT, dir_fd=directory)
    try:
        _settle(path_of(fd), st, mode, uid, gid)
    except OSError:
        remove_tree(directory, name)
        raise
    finally:
        os.close(fd)


def _is_settled(st: os.stat_result, mode: int, uid: int, gid: int) -> bool:
    # A symlink has no mode of its own.
    return (st.st_uid, st.st_gid) == (uid, gid) and (stat.S_IMODE(st.st_mode) == mode or stat.S_ISLNK(st.st_mode))


def _settle(ref: int | str, st: os.stat_result, mode: int, uid: int, gid: int) -> None:
    if (st.st_uid, st.st_gid) != (uid, gid):
        try:
            change_owner(ref, uid, gid)
        except OSError as error:
            if error.errno not in _NOT_OURS_TO_GIVE:
                raise
    if not stat.S_ISLNK(st.st_mode) and stat.S_IMODE(st.st_mode) != mode:
        os.chmod(ref, mode)


def link(src: int, old: str, dst: int, new: str) -> None:
    """Give the object `old`, a symlink itself, a second name. EPERM (a directory) EEXIST."""
    os.link(old, new, src_dir_fd=src, dst_dir_fd=dst, follow_symlinks=False)


def rename(src: int, old: str, dst: int, new: str, flags: int) -> None:
    """rename(2), renameat2(2) with flags. EINVAL where the file system doesn't know them."""
    if flags:
        syscalls.renameat2(src, old, dst, new, flags)
    else:
        os.rename(old, new, src_dir_fd=src, dst_dir_fd=dst)


def remove_tree(directory: int, name: str) -> None:
    """Remove whatever `name` is, a directory with all below it. ENOENT."""
    try:
        os.unlink(name, dir_fd=directory)
        return
    except IsADirectoryError:
        pass
    with object_handle(directory, name, read_only=False) as handle:
        mode = handle.stat().st_mode
        if mode & 0o700 != 0o700:
            handle.chmod(0o700)
    fd = os.open(name, _LIST, dir_fd=directory)
    try:
        for below in os.listdir(fd):
            remove_tree(fd, below)
    finally:
        os.close(fd)
    os.rmdir(name, dir_fd=directory)
