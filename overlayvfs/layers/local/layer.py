"""A host directory as a layer, with full metadata and never through a symlink.

Every path is resolved beneath the root's descriptor (beneath.py); the last component is then acted on
by its own name in the directory found. What the tree shows is what the host has: whiteouts are
character devices 0/0, marks are attributes, and an upper is one the kernel can mount.

Creating keeps what this process may set and drops the rest, as cp does; only an explicit chown, mknod or
setxattr is refused, naming the layer.
"""

import errno
import itertools
import os
import stat
import weakref
from collections.abc import Callable, Collection, Hashable, Sequence
from contextlib import ExitStack, closing
from functools import cached_property, partial
from typing import Final, TypeVar

from overlayvfs.abi import O_PATH, RENAME_NOREPLACE, Dirent, Stat, StatVfs, oserror
from overlayvfs.layers.base import INDEX, WORK, Capabilities, Handle, Progress, UpperLayer
from overlayvfs.layers.local import names, syscalls
from overlayvfs.layers.local.beneath import ancestry, identity, is_removed, open_directory
from overlayvfs.layers.local.clone import clone
from overlayvfs.layers.local.handle import HostHandle, find_attribute, list_attributes, to_stat
from overlayvfs.layers.local.loan import lent
from overlayvfs.layers.local.opened import Directories
from overlayvfs.layers.local.workarea import INDEX_NAME, WORK_NAME, WorkArea
from overlayvfs.marks import FileHandle

T = TypeVar("T")

_UNUSUAL: Final = frozenset(
    {
        errno.EPERM,
        errno.EACCES,
        errno.EROFS,
        errno.ENOSPC,
        errno.EDQUOT,
        errno.EIO,
        errno.EBADF,
        errno.EMFILE,
        errno.ENFILE,
        errno.ESTALE,
        errno.EOPNOTSUPP,
        errno.EXDEV,
        errno.ENOSYS,
    }
)
"""Errnos that say more about this layer than about the path: their message names it."""


class LocalLayer:
    """A directory of the host (Layer and UpperLayer of layers/base.py)."""

    def __init__(
        self, root: str | os.PathLike[str], workdir: str | os.PathLike[str] | None = None, *, writable: bool = True
    ) -> None:
        """Open the directory `root`; symlinks in `root` and `workdir` themselves are followed.

        `workdir` is where WORK and INDEX live, on the same file system; None: in a private directory beside
        `root` that is gone at close. `writable=False` refuses every change with EROFS and tries nothing out.

        Raises:
            ENOSYS: this host is not Linux.
            ENOENT ENOTDIR EACCES: there is no such directory, or none that can be opened.

        """
        self.name = os.path.abspath(os.fspath(root))
        if not hasattr(os, "O_PATH"):
            raise oserror(
                errno.ENOSYS, self.name, reason="host directories as layers need Linux; copy into memory instead"
            )
        self._fd = os.open(self.name, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._identity = identity(os.fstat(self._fd))
        self._writable = writable
        self._area = WorkArea(self.name, self._fd, None if workdir is None else os.path.abspath(os.fspath(workdir)))
        self._prepared = False
        self._numbers = itertools.count()
        # The directories of an upper come, go and move.
        self._directories = None if writable else Directories(self._fd)
        self._last_seen = ("", stat.S_IFDIR)
        self._finalizer = weakref.finalize(self, _let_go, self._fd, self._area, self._directories)

    # What the layer is

    @cached_property
    def capabilities(self) -> Capabilities:
        # Of a lower only what is there counts, and it must not be written to.
        if not self._writable:
            return Capabilities()
        return self._area.probe()

    def identity(self) -> Hashable:
        return self._identity

    def ancestry(self) -> Sequence[Hashable]:
        return ancestry(self._fd)

    def statvfs(self) -> StatVfs:
        vfs = os.fstatvfs(self._fd)
        return StatVfs(
            vfs.f_bsize,
            vfs.f_frsize,
            vfs.f_blocks,
            vfs.f_bfree,
            vfs.f_bavail,
            vfs.f_files,
            vfs.f_ffree,
            vfs.f_favail,
            vfs.f_flag,
            vfs.f_namemax,
        )

    def sync(self) -> None:
        syscalls.syncfs(self._fd)

    def close(self) -> None:
        self._finalizer()
        self._fd = -1

    # From a path to a directory and a name in it

    def _locate(self, path: str) -> tuple[int, str]:
        """Return the directory a path starts at and the rest of the path, relative."""
        if "\0" not in path:
            return self._fd, path[1:]
        for private, name in ((WORK, WORK_NAME), (INDEX, INDEX_NAME)):
            if path == private or path.startswith(private + "/"):
                top = self._area.find()
                return top, name + path[len(private) :]
        raise oserror(errno.ENOENT, path)

    def _parent(self, path: str) -> tuple[int, str, int]:
        """Return the directory a path's last name is in, that name, and the descriptor to close after use (or -1)."""
        top, relative = self._locate(path)
        above, _, name = relative.rpartition("/")
        if name == "..":
            raise oserror(errno.ENOTDIR, path, reason="no path of a layer climbs")
        if not above:
            return top, name or ".", -1
        fd = open_directory(top, above)
        return fd, name, fd

    def _at(self, path: str, act: Callable[[int, str], T], *, lend_object: bool = True) -> T:
        """Return `act(directory, name)` for the directory the path's last name is in, reached through no symlink."""
        try:
            return self._reach(path, act)
        except OSError as error:
            return self._as_owner(error, lambda: self._reach(path, act), path, lend_object=lend_object)

    def _reach(self, path: str, act: Callable[[int, str], T]) -> T:
        if self._directories is not None:
            kept, name = self._directories.parent(path)
            return act(kept.fd, name)
        directory, name, opened = self._parent(path)
        try:
            return act(directory, name)
        finally:
            if opened >= 0:
                os.close(opened)

    def _at_both(self, src: str, dst: str, act: Callable[[int, str, int, str], None]) -> None:
        def reach() -> None:
            self._reach(
                src, lambda old_dir, old: self._reach(dst, lambda new_dir, new: act(old_dir, old, new_dir, new))
            )

        try:
            reach()
        except OSError as error:
            self._as_owner(error, reach, src, dst)

    def _as_owner(self, error: OSError, act: Callable[[], T], *paths: str, lend_object: bool = True) -> T:
        """Answer an error: return `act()` with the owner's rights lent if that is what was missing, else raise it."""
        if error.errno == errno.EACCES and self._writable:
            try:
                with ExitStack() as loan:
                    for path in paths:
                        loan.enter_context(lent(*self._locate(path), to_object=lend_object))
                    return act()
            except OSError as second:
                error = second
        try:
            raise self._explained(error, *paths) from None
        finally:
            # An error refers to this frame: held by it, both would wait for a collector, and all callers with them.
            del error

    def _explained(self, error: OSError, path: str, path2: str | None = None) -> OSError:
        if error.errno in _UNUSUAL:
            return oserror(error.errno, path, path2, reason=self.name)
        if error.errno == errno.ENOENT and is_removed(self._fd):
            return self._gone(path, path2)
        if path2 is None and error.filename2 is None:
            error.filename = path
            return error
        return oserror(error.errno or errno.EIO, path, path2)

    def _gone(self, path: str, path2: str | None = None) -> OSError:
        return oserror(errno.ESTALE, path, path2, reason=f"{self.name} was removed")

    def _check_writable(self, path: str) -> None:
        if not self._writable:
            raise oserror(errno.EROFS, path, reason=self.name)

    # Reading

    def lstat(self, path: str) -> Stat:
        try:
            return self._seen(path)
        except OSError as error:
            raise self._explained(error, path) from None

    def look(self, path: str) -> Stat | None:
        try:
            return self._seen(path)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENAMETOOLONG):
                return None
            raise self._explained(error, path) from None

    def look_closely(self, path: str) -> tuple[Stat | None, None]:
        try:
            return self._seen(path), None
        except OSError:
            return self.look(path), None

    def _seen(self, path: str) -> Stat:
        directories = self._directories
        if directories is None:
            # The object itself must not show rights that are lent.
            return self._at(path, names.lstat, lend_object=False)
        directory, name = directories.parent(path)
        st = names.lstat(directory.fd, name)
        self._last_seen = path, st.st_mode
        if stat.S_ISDIR(st.st_mode):
            directories.verify(path, st)
        return st

    def names(self, path: str) -> Collection[str] | None:
        return self._listed(path, names.cheap_names)

    def listdir(self, path: str) -> list[Dirent]:
        return self._listed(path, names.entries)

    def _listed(self, path: str, act: Callable[[int], T]) -> T:
        if not path and is_removed(self._fd):
            # It can still be listed, and has no names.
            raise self._gone(path)

        def reach() -> T:
            if self._directories is not None:
                kept, relative = self._directories.parent(path)
                top = kept.fd
            else:
                top, relative = self._locate(path)
            fd = open_directory(top, relative or ".", os.O_RDONLY)
            try:
                return act(fd)
            finally:
                os.close(fd)

        try:
            return reach()
        except OSError as error:
            return self._as_owner(error, reach, path)

    def readlink(self, path: str) -> str:
        return self._at(path, lambda directory, name: os.readlink(name, dir_fd=directory))

    def getxattr(self, path: str, name: str) -> bytes:
        value = self.mark(path, name)
        if value is None:
            raise oserror(errno.ENODATA, path)
        return value

    def mark(self, path: str, name: str) -> bytes | None:
        if self._directories is None:
            return self._at(path, lambda fd, last: find_attribute(names.name_path(fd, last), name, follow=False))
        try:
            directory, last = self._directories.parent(path)
            return find_attribute(directory.prefix + last, name, follow=False)
        except OSError as error:
            raise self._explained(error, path) from None

    def listxattr(self, path: str) -> list[str]:
        return self._at(path, lambda fd, last: list_attributes(names.name_path(fd, last), follow=False))

    def open(self, path: str, *, writable: bool = False) -> Handle:
        if writable:
            self._check_writable(path)
        directories = self._directories
        if directories is None:
            return self._at(path, lambda fd, last: names.open_handle(fd, last, writable=writable, read_only=False))
        seen, mode = self._last_seen
        try:
            directory, last = directories.parent(path)
            # Most are opened right after they were looked at, and asking again would be a fourth of the time.
            if seen != path:
                mode = names.lstat(directory.fd, last).st_mode
            return names.open_kind(directory.fd, last, stat.S_IFMT(mode), writable=False, read_only=True)
        except OSError as error:
            raise self._explained(error, path) from None

    def read_whole(self, path: str, size: int) -> bytes:
        directories = self._directories
        if directories is not None:
            try:
                directory, last = directories.parent(path)
                data = names.read_file(directory.fd, last, size)
            except OSError as error:
                raise self._explained(error, path) from None
            if len(data) == size:
                return data
        # Somebody has cut it, or the host gives less at once.
        with closing(self.open(path)) as handle:
            return handle.pread(size, 0)

    # Origin marks

    @cached_property
    def _uuid(self) -> bytes:
        try:
            return syscalls.fs_uuid(self._fd)
        except OSError:
            # Before Linux 6.9 nobody is told; overlayfs itself takes zeros where a file system has none.
            return bytes(16)

    def file_handle(self, path: str) -> bytes | None:
        try:
            kind, body = self._at(path, syscalls.name_to_handle)
        except OSError as error:
            if error.errno in (errno.EOPNOTSUPP, errno.EOVERFLOW, errno.ENOSYS):
                return None
            raise
        return FileHandle(self._uuid, kind, body).encode()

    def find_handle(self, value: bytes, hint: str | None = None) -> Stat | None:
        handle = FileHandle.decode(value)
        if handle is None or handle.uuid != self._uuid:
            return None
        if hint is not None:
            try:
                if self.file_handle(hint) == value:
                    return self.lstat(hint)
            except (FileNotFoundError, NotADirectoryError):
                pass
        return self._found_by_handle(handle)

    def _found_by_handle(self, handle: FileHandle) -> Stat | None:
        try:
            fd = syscalls.open_by_handle(self._fd, handle.kind, handle.body, O_PATH)
        except OSError:
            # Not privileged to ask, gone (ESTALE), or nothing this file system made.
            return None
        try:
            st = to_stat(os.fstat(fd))
            if st.st_nlink == 0:
                return None
            # As the kernel: a directory must be below the layer's root, of a file nobody can tell (ovl_acceptable).
            if stat.S_ISDIR(st.st_mode) and self._identity not in ancestry(fd):
                return None
            return st
        finally:
            os.close(fd)

    # The work area

    def prepare(self, *, index: bool) -> None:
        self._check_writable(self.name)
        self._area.open()
        if not self.capabilities.marks:
            reason = "this file system holds no whiteouts (character devices 0/0) or no extended attributes"
            raise oserror(errno.EINVAL, self.name, reason=f"{reason}, so it can be no upper")
        self._area.remove(WORK_NAME)
        # Mode 0 as the kernel's: nobody else is to look. Without privilege we could not look ourselves.
        mode = 0 if os.geteuid() == 0 else 0o700
        self._area.make(WORK_NAME, mode)
        if index:
            self._area.make(INDEX_NAME, mode)
        self._prepared = True

    def release(self, *, keep_index: bool) -> None:
        if not self._prepared:
            return
        self._prepared = False
        self._area.remove(WORK_NAME)
        if not keep_index:
            self._area.remove(INDEX_NAME)
        if self._area.is_private:
            self._area.dispose()

    def empty_twin(self, *, index: bool) -> UpperLayer:
        """Return a private directory beside this one, gone when it is closed."""
        from overlayvfs.layers.local.twin import TwinLayer

        return TwinLayer(self.name, index=index)

    # Making

    def create(self, path: str, mode: int, uid: int, gid: int) -> Handle:
        return self._make(path, partial(names.create, mode=mode, uid=uid, gid=gid), mode, uid, gid)

    def tmpfile(self, mode: int, uid: int, gid: int) -> Handle:
        self._check_writable(self.name)
        where = WORK if self._prepared else ""
        return self._at(where, lambda directory, name: names.unnamed(directory, name, mode, uid, gid))

    def mkdir(self, path: str, mode: int, uid: int, gid: int) -> None:
        def make(directory: int, name: str) -> None:
            os.mkdir(name, mode, dir_fd=directory)
            names.settle(directory, name, mode, uid, gid)

        self._make(path, make, mode, uid, gid)

    def mknod(self, path: str, mode: int, rdev: int, uid: int, gid: int) -> None:
        def make(directory: int, name: str) -> None:
            os.mknod(name, mode, rdev, dir_fd=directory)
            names.settle(directory, name, stat.S_IMODE(mode), uid, gid)

        self._make(path, make, stat.S_IMODE(mode), uid, gid)

    def symlink(self, target: str, path: str, uid: int, gid: int) -> None:
        def make(directory: int, name: str) -> None:
            os.symlink(target, name, dir_fd=directory)
            names.settle(directory, name, 0o777, uid, gid)

        self._make(path, make, 0, uid, gid)

    def _make(self, path: str, make: Callable[[int, str], T], mode: int, uid: int, gid: int) -> T:
        """Make an object at `path`: in place or, where owner and mode can't be right at once, in WORK first."""
        self._check_writable(path)
        if not self._needs_staging(path, mode, uid, gid):
            return self._at(path, make)
        staged = f"{WORK}/made-{next(self._numbers)}"
        try:
            made = self._at(staged, make)
            try:
                self._at_both(staged, path, partial(names.rename, flags=RENAME_NOREPLACE))
            except OSError:
                self._at(staged, names.remove_tree)
                raise
        except OSError as error:
            raise self._explained(error, path) from None
        return made

    def _needs_staging(self, path: str, mode: int, uid: int, gid: int) -> bool:
        if not self._prepared or path.startswith(WORK):
            return False
        # Only root may give objects away, and bits an ordinary umask leaves alone are made at once.
        return os.geteuid() == 0 and ((uid, gid) != (0, os.getegid()) or mode & 0o7022 != 0)

    def link(self, src: str, dst: str) -> None:
        self._check_writable(dst)
        self._at_both(src, dst, names.link)

    # Removing and renaming

    def unlink(self, path: str) -> None:
        self._check_writable(path)
        self._at(path, lambda directory, name: os.unlink(name, dir_fd=directory))

    def rmdir(self, path: str) -> None:
        self._check_writable(path)
        self._at(path, lambda directory, name: os.rmdir(name, dir_fd=directory))

    def rename(self, src: str, dst: str, flags: int = 0) -> None:
        self._check_writable(src)
        self._at_both(src, dst, partial(names.rename, flags=flags))

    # Attributes

    def chmod(self, path: str, mode: int) -> None:
        self._with_object(path, lambda handle: handle.chmod(mode))

    def chown(self, path: str, uid: int, gid: int) -> None:
        self._with_object(path, lambda handle: handle.chown(uid, gid))

    def _with_object(self, path: str, act: Callable[[HostHandle], None]) -> None:
        self._check_writable(path)

        def on_object(directory: int, name: str) -> None:
            with names.object_handle(directory, name, read_only=False) as handle:
                act(handle)

        # A mode that is lent meanwhile would be restored over the one that is set.
        self._at(path, on_object, lend_object=False)

    def utime(self, path: str, atime_ns: int, mtime_ns: int) -> None:
        self._check_writable(path)
        times = (atime_ns, mtime_ns)
        self._at(path, lambda fd, name: os.utime(name, ns=times, dir_fd=fd, follow_symlinks=False))

    def setxattr(self, path: str, name: str, value: bytes, flags: int = 0) -> None:
        self._check_writable(path)
        self._at(
            path, lambda fd, last: os.setxattr(names.name_path(fd, last), name, value, flags, follow_symlinks=False)
        )

    def removexattr(self, path: str, name: str) -> None:
        self._check_writable(path)
        self._at(path, lambda fd, last: os.removexattr(names.name_path(fd, last), name, follow_symlinks=False))

    # Data

    def clone(self, src: Handle, dst: Handle, size: int, progress: Progress | None = None) -> bool:
        if not isinstance(src, HostHandle) or not isinstance(dst, HostHandle):
            return False
        return clone(src.fd, dst.fd, size, progress)


def _let_go(fd: int, area: WorkArea, directories: Directories | None) -> None:
    if directories is not None:
        directories.close()
    try:
        area.dispose()
    finally:
        os.close(fd)
