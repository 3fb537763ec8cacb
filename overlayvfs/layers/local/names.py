"""Acting on one name in one open directory: where every path verb of the layer ends.

No call here follows a symlink, and none takes more than one component.
"""

import errno
import os
import stat
from typing import Final

from overlayvfs.abi import O_NOFOLLOW, O_PATH, O_TMPFILE, Dirent, Stat, oserror
from overlayvfs.layers.local import syscalls
from overlayvfs.layers.local.handle import HostHandle, change_owner, path_of, to_stat

_CLOEXEC: Final[int] = getattr(os, "O_CLOEXEC", 0)
_OBJECT: Final[int] = O_PATH | O_NOFOLLOW | _CLOEXEC

_CHEAP_DIRECTORY: Final = 1 << 15
"""Directories up to this st_size are listed for hardly more than an lstat: a few hundred names."""

_NOT_OURS_TO_GIVE: Final = (errno.EPERM, errno.EINVAL)
"""chown(2) without privilege, or to an owner this user namespace does not map."""


def name_path(directory: int, name: str) -> str:
    """Return a path for the calls that take no directory descriptor (the xattr family)."""
    return f"{path_of(directory)}/{name}"


def lstat(directory: int, name: str) -> Stat:
    """Return the object's own attributes."""
    return to_stat(os.stat(name, dir_fd=directory, follow_symlinks=False))


def entries(directory: int) -> list[Dirent]:
    """Return what getdents(2) gives of an open directory."""
    with os.scandir(directory) as found:
        return [Dirent(entry.name, entry.inode(), _kind(entry)) for entry in found]


def _kind(entry: "os.DirEntry[str]") -> int:
    if entry.is_file(follow_symlinks=False):
        return stat.S_IFREG
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


def object_handle(directory: int, name: str, *, read_only: bool) -> HostHandle:
    """Return the object itself for its attributes; opens nothing (O_PATH)."""
    return HostHandle(os.open(name, _OBJECT, dir_fd=directory), read_only=read_only)


def open_handle(directory: int, name: str, *, writable: bool, read_only: bool) -> HostHandle:
    """Return the object open for what it is: a file for its data, a directory to be synced, the rest for attributes.

    The kind is asked of the very object that is then opened, through its descriptor: whatever is swapped
    in meanwhile, no fifo waits and no device driver acts.
    """
    handle = object_handle(directory, name, read_only=read_only)
    try:
        if handle.kind == stat.S_IFDIR and writable:
            raise oserror(errno.EISDIR, name)
        if handle.kind == stat.S_IFREG:
            handle.reopen(os.O_RDWR if writable else os.O_RDONLY)
        elif handle.kind == stat.S_IFDIR:
            try:
                handle.reopen(os.O_RDONLY)
            except PermissionError:
                pass  # its attributes can be had without the right to list it
    except OSError:
        handle.close()
        raise
    return handle


def create(directory: int, name: str, mode: int, uid: int, gid: int) -> HostHandle:
    """Make a file of exactly this mode and, as far as this process may set it, owner. EEXIST."""
    fd = os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL | O_NOFOLLOW | _CLOEXEC, mode, dir_fd=directory)
    try:
        _settle(fd, os.fstat(fd), mode, uid, gid)
    except OSError:
        os.close(fd)
        os.unlink(name, dir_fd=directory)
        raise
    return HostHandle(fd, opened=True)


def unnamed(directory: int, name: str, mode: int, uid: int, gid: int) -> HostHandle:
    """Make a file without a name on the file system of the directory `name`. EOPNOTSUPP."""
    fd = os.open(name, O_TMPFILE | os.O_RDWR | _CLOEXEC, mode, dir_fd=directory)
    try:
        _settle(fd, os.fstat(fd), mode, uid, gid)
    except OSError:
        os.close(fd)
        raise
    return HostHandle(fd, opened=True)


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
    fd = _open_to_empty(directory, name)
    try:
        for below in os.listdir(fd):
            remove_tree(fd, below)
    finally:
        os.close(fd)
    os.rmdir(name, dir_fd=directory)


def _open_to_empty(directory: int, name: str) -> int:
    flags = os.O_RDONLY | os.O_DIRECTORY | O_NOFOLLOW | _CLOEXEC
    try:
        return os.open(name, flags, dir_fd=directory)
    except PermissionError:
        # A directory made without rights for its owner, who we are.
        with object_handle(directory, name, read_only=False) as handle:
            handle.chmod(0o700)
        return os.open(name, flags, dir_fd=directory)
