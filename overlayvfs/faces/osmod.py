"""The tree in the shape of the `os` module: `ofs.os`.

Names, signatures, types and errors are those of Linux's os, minus dir_fd. Paths are `str` or PathLike,
surrogateescaped; a relative one starts at the root. Descriptors are numbers no kernel hands out, so the
real `os.read` on one is EBADF and never someone else's file.
"""

import errno
import io
import itertools
import os
import posixpath
import stat
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import IO, Any

from overlayvfs import abi
from overlayvfs.abi import Dirent, oserror
from overlayvfs.engine.file import File
from overlayvfs.engine.overlay import Overlay
from overlayvfs.engine.xattr import check_name, check_setxattr
from overlayvfs.faces import osargs, rawio
from overlayvfs.faces.osargs import Path
from overlayvfs.faces.osdirs import DirEntry, ScandirIterator, leads_to_dir
from overlayvfs.faces.stats import stat_result, statvfs_result

_numbers = itertools.count(1 << 30)
"""Shared by all trees of the process: a descriptor of one is never a descriptor of another."""

_NO_ID = (1 << 32) - 1
"""(uid_t) -1: "no change" to chown(2), invalid to the set*id calls."""


class _Description:
    """An open file description: what descriptors made by `dup` share."""

    __slots__ = ("descriptors", "file")

    def __init__(self, file: File) -> None:
        self.file = file
        self.descriptors = 1


class OsModule:
    """One tree, one table of descriptors. It keeps the tree open; nothing in the tree refers back to it."""

    O_RDONLY, O_WRONLY, O_RDWR, O_ACCMODE = abi.O_RDONLY, abi.O_WRONLY, abi.O_RDWR, abi.O_ACCMODE
    O_CREAT, O_EXCL, O_TRUNC, O_APPEND = abi.O_CREAT, abi.O_EXCL, abi.O_TRUNC, abi.O_APPEND
    O_DIRECTORY, O_NOFOLLOW, O_PATH, O_TMPFILE = abi.O_DIRECTORY, abi.O_NOFOLLOW, abi.O_PATH, abi.O_TMPFILE
    SEEK_SET, SEEK_CUR, SEEK_END = os.SEEK_SET, os.SEEK_CUR, os.SEEK_END
    SEEK_DATA, SEEK_HOLE = abi.SEEK_DATA, abi.SEEK_HOLE
    F_OK, R_OK, W_OK, X_OK = os.F_OK, os.R_OK, os.W_OK, os.X_OK
    XATTR_CREATE, XATTR_REPLACE, XATTR_SIZE_MAX = abi.XATTR_CREATE, abi.XATTR_REPLACE, abi.XATTR_SIZE_MAX
    RENAME_NOREPLACE, RENAME_EXCHANGE = abi.RENAME_NOREPLACE, abi.RENAME_EXCHANGE

    def __init__(self, overlay: Overlay) -> None:
        self._overlay = overlay
        self._descriptions: dict[int, _Description] = {}
        self._lock = threading.Lock()

    # Descriptors

    def open(self, path: Path, flags: int, mode: int = 0o777) -> int:
        description = _Description(self._overlay.open(osargs.path_text("open", path), flags, mode))
        fd = next(_numbers)
        self._descriptions[fd] = description
        return fd

    def close(self, fd: int) -> None:
        with self._lock:
            description = self._descriptions.pop(osargs.number(fd), None)
            if description is None:
                raise oserror(errno.EBADF)
            description.descriptors -= 1
            last = description.descriptors == 0
        if last:
            description.file.close()

    def dup(self, fd: int) -> int:
        with self._lock:
            description = self._description(fd)
            description.descriptors += 1
            copy = next(_numbers)
            self._descriptions[copy] = description
        return copy

    def fdopen(
        self,
        fd: int,
        mode: str = "r",
        buffering: int = -1,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
        closefd: bool = True,
    ) -> IO[Any]:
        """Return an `io` object over a descriptor, built of the same layers as open() builds.

        Raises:
            ValueError: open() would refuse `mode`, or unbuffered text.
            EBADF: no such descriptor.
            EISDIR: a directory.

        """
        raw_mode = rawio.binary_mode(mode)
        if self._file(fd).is_dir():
            raise oserror(errno.EISDIR)
        raw = rawio.DescriptorFile(_Descriptor(self, fd, closefd), fd, raw_mode)
        if "b" in mode:
            return rawio.buffered(raw, buffering) if buffering else raw  # type: ignore[return-value]
        if buffering == 0:
            raise ValueError("can't have unbuffered text I/O")
        binary = rawio.buffered(raw, buffering)
        return rawio.text(binary, mode, encoding, errors, newline, line_buffering=buffering == 1)

    def read(self, fd: int, n: int) -> bytes:
        if n < 0:
            raise oserror(errno.EINVAL)
        return self._file(fd).read(n)

    def write(self, fd: int, data: Any) -> int:
        return self._file(fd).write(osargs.bytes_like(data))

    def pread(self, fd: int, n: int, offset: int) -> bytes:
        # As Linux: a bad argument comes before a bad descriptor.
        if n < 0 or offset < 0:
            raise oserror(errno.EINVAL)
        return self._file(fd).pread(n, offset)

    def pwrite(self, fd: int, data: Any, offset: int) -> int:
        if offset < 0:
            raise oserror(errno.EINVAL)
        return self._file(fd).pwrite(osargs.bytes_like(data), offset)

    def lseek(self, fd: int, position: int, whence: int) -> int:
        return self._file(fd).seek(position, whence)

    def ftruncate(self, fd: int, length: int) -> None:
        if length < 0:
            raise oserror(errno.EINVAL)
        self._file(fd).truncate(length)

    def fsync(self, fd: int) -> None:
        self._file(fd).sync()

    fdatasync = fsync

    def fstat(self, fd: int) -> os.stat_result:
        return stat_result(self._file(fd).stat())

    def fchmod(self, fd: int, mode: int) -> None:
        self._file(fd).chmod(mode)

    def fchown(self, fd: int, uid: int, gid: int) -> None:
        self._file(fd).chown(uid, gid)

    # Attributes

    def stat(self, path: Path | int, *, follow_symlinks: bool = True) -> os.stat_result:
        if isinstance(path, int):
            osargs.no_fd_and_nofollow("stat", follow_symlinks)
            return self.fstat(path)
        return stat_result(self._overlay.stat(osargs.path_text("stat", path), follow=follow_symlinks))

    def lstat(self, path: Path) -> os.stat_result:
        return stat_result(self._overlay.stat(osargs.path_text("lstat", path), follow=False))

    def access(self, path: Path, mode: int, *, effective_ids: bool = False, follow_symlinks: bool = True) -> bool:
        """Tell whether the real user may, which stays root whatever `seteuid` says; or the effective one."""
        where = osargs.path_text("access", path)
        try:
            return self._overlay.access(where, mode, effective_ids=effective_ids, follow=follow_symlinks)
        except OSError:
            return False

    def chmod(self, path: Path | int, mode: int, *, follow_symlinks: bool = True) -> None:
        if isinstance(path, int):
            osargs.no_fd_and_nofollow("chmod", follow_symlinks)
            return self.fchmod(path, mode)
        return self._overlay.chmod(osargs.path_text("chmod", path), mode, follow=follow_symlinks)

    def chown(self, path: Path | int, uid: int, gid: int, *, follow_symlinks: bool = True) -> None:
        if isinstance(path, int):
            osargs.no_fd_and_nofollow("chown", follow_symlinks)
            return self.fchown(path, uid, gid)
        return self._overlay.chown(osargs.path_text("chown", path), uid, gid, follow=follow_symlinks)

    def lchown(self, path: Path, uid: int, gid: int) -> None:
        self._overlay.chown(osargs.path_text("lchown", path), uid, gid, follow=False)

    def utime(
        self,
        path: Path | int,
        times: tuple[float, float] | None = None,
        *,
        ns: tuple[int, int] | None = None,
        follow_symlinks: bool = True,
    ) -> None:
        times_ns = osargs.nanosecond_times(times, ns)
        if isinstance(path, int):
            osargs.no_fd_and_nofollow("utime", follow_symlinks)
            return self._file(path).utime(times_ns)
        return self._overlay.utime(osargs.path_text("utime", path), times_ns, follow=follow_symlinks)

    def truncate(self, path: Path | int, length: int) -> None:
        if isinstance(path, int):
            return self.ftruncate(path, length)
        return self._overlay.truncate(osargs.path_text("truncate", path), length)

    def statvfs(self, path: Path | int) -> Any:
        """Return an os.statvfs_result; the tree is one file system, so a descriptor tells the same as the root."""
        if isinstance(path, int):
            self._file(path)
            path = "/"
        return statvfs_result(self._overlay.statvfs(osargs.path_text("statvfs", path)))

    def fstatvfs(self, fd: int) -> Any:
        return self.statvfs(osargs.number(fd))

    def getxattr(self, path: Path | int, attribute: Path | bytes, *, follow_symlinks: bool = True) -> bytes:
        name = osargs.attribute_name(attribute)
        if isinstance(path, int):
            osargs.no_fd_and_nofollow("getxattr", follow_symlinks)
            # As Linux, here and below: a bad argument comes before a bad descriptor.
            check_name(name)
            return self._file(path).getxattr(name)
        return self._overlay.getxattr(osargs.path_text("getxattr", path), name, follow=follow_symlinks)

    def setxattr(
        self, path: Path | int, attribute: Path | bytes, value: Any, flags: int = 0, *, follow_symlinks: bool = True
    ) -> None:
        name, data = osargs.attribute_name(attribute), bytes(osargs.bytes_like(value))
        if isinstance(path, int):
            osargs.no_fd_and_nofollow("setxattr", follow_symlinks)
            check_setxattr(name, data, flags)
            return self._file(path).setxattr(name, data, flags)
        return self._overlay.setxattr(osargs.path_text("setxattr", path), name, data, flags, follow=follow_symlinks)

    def listxattr(self, path: Path | int | None = None, *, follow_symlinks: bool = True) -> list[str]:
        if isinstance(path, int):
            osargs.no_fd_and_nofollow("listxattr", follow_symlinks)
            return self._file(path).listxattr()
        where = "." if path is None else osargs.path_text("listxattr", path)
        return self._overlay.listxattr(where, follow=follow_symlinks)

    def removexattr(self, path: Path | int, attribute: Path | bytes, *, follow_symlinks: bool = True) -> None:
        name = osargs.attribute_name(attribute)
        if isinstance(path, int):
            osargs.no_fd_and_nofollow("removexattr", follow_symlinks)
            check_name(name)
            return self._file(path).removexattr(name)
        return self._overlay.removexattr(osargs.path_text("removexattr", path), name, follow=follow_symlinks)

    # Names

    def mkdir(self, path: Path, mode: int = 0o777) -> None:
        self._overlay.mkdir(osargs.path_text("mkdir", path), mode)

    def makedirs(self, name: Path, mode: int = 0o777, exist_ok: bool = False) -> None:
        """Make a directory and the parents it lacks, as os.makedirs: `mode` is for the last one only."""
        path = osargs.path_text("makedirs", name)
        head, tail = posixpath.split(path)
        if not tail:
            head, tail = posixpath.split(head)
        if head and tail and not self._exists(head):
            try:
                self.makedirs(head, exist_ok=exist_ok)
            except FileExistsError:
                # Someone else made it in the meantime; if it is no directory, mkdir says so.
                pass
            if tail == ".":
                return
        try:
            self._overlay.mkdir(path, mode)
        except OSError:
            if not exist_ok or not self._is_dir(path):
                raise

    def mknod(self, path: Path, mode: int = 0o600, device: int = 0) -> None:
        self._overlay.mknod(osargs.path_text("mknod", path), mode, device)

    def symlink(self, src: Path, dst: Path, target_is_directory: bool = False) -> None:
        self._overlay.symlink(osargs.path_text("symlink", src), osargs.path_text("symlink", dst))

    def readlink(self, path: Path) -> str:
        return self._overlay.readlink(osargs.path_text("readlink", path))

    def link(self, src: Path, dst: Path, *, follow_symlinks: bool = False) -> None:
        """Give `src` a second name; a symlink itself unless told to follow, as link(2) does on Linux."""
        self._overlay.link(osargs.path_text("link", src), osargs.path_text("link", dst), follow=follow_symlinks)

    def unlink(self, path: Path) -> None:
        self._overlay.unlink(osargs.path_text("unlink", path))

    remove = unlink

    def rmdir(self, path: Path) -> None:
        self._overlay.rmdir(osargs.path_text("rmdir", path))

    def rename(self, src: Path, dst: Path) -> None:
        self._overlay.rename(osargs.path_text("rename", src), osargs.path_text("rename", dst))

    replace = rename

    def renameat2(self, src: Path, dst: Path, flags: int = 0) -> None:
        """Call renameat2(2): RENAME_NOREPLACE or RENAME_EXCHANGE; EINVAL for other flags."""
        self._overlay.rename(osargs.path_text("renameat2", src), osargs.path_text("renameat2", dst), flags)

    # Directories

    def listdir(self, path: Path | int | None = None) -> list[str]:
        return [entry.d_name for entry in self._entries("listdir", path)]

    def scandir(self, path: Path | int | None = None) -> ScandirIterator:
        entries = self._entries("scandir", path)
        if isinstance(path, int):
            # Python names such entries without a directory in front, and asks about them relative to the descriptor.
            folder, prefix = self._file(path).dentry.path or "/", ""
        else:
            folder = prefix = "." if path is None else osargs.path_text("scandir", path)
        return ScandirIterator([DirEntry(self._overlay, folder, prefix, entry) for entry in entries])

    def walk(
        self,
        top: Path,
        topdown: bool = True,
        onerror: Callable[[OSError], object] | None = None,
        followlinks: bool = False,
    ) -> Iterator[tuple[str, list[str], list[str]]]:
        """Walk a tree as os.walk does; `dirs` may be changed on the way when `topdown`."""
        pending: list[str | tuple[str, list[str], list[str]]] = [osargs.path_text("walk", top)]
        while pending:
            at = pending.pop()
            if not isinstance(at, str):
                yield at
                continue
            try:
                entries = list(self.scandir(at))
            except OSError as error:
                if onerror is not None:
                    onerror(error)
                continue
            dirs: list[str] = []
            files: list[str] = []
            for entry in entries:
                (dirs if leads_to_dir(entry) else files).append(entry.name)
            if topdown:
                yield at, dirs, files
            else:
                pending.append((at, dirs, files))
            below = [posixpath.join(at, name) for name in dirs]
            pending += [path for path in reversed(below) if followlinks or not self._is_symlink(path)]

    # Who calls

    def umask(self, mask: int) -> int:
        credentials = self._overlay.credentials
        old, credentials.umask = credentials.umask, mask & 0o777
        return old

    def geteuid(self) -> int:
        return self._overlay.credentials.uid

    def getegid(self) -> int:
        return self._overlay.credentials.gid

    def getgroups(self) -> list[int]:
        return list(self._overlay.credentials.groups)

    def seteuid(self, euid: int) -> None:
        """Go on as another user. The real user stays root, so the way back is open.

        Raises:
            EINVAL: -1.
            EPERM: neither root nor going back to it.

        """
        credentials = self._overlay.credentials
        credentials.uid = self._new_id(euid, credentials.uid)

    def setegid(self, egid: int) -> None:
        """Go on as another group. EINVAL EPERM as seteuid."""
        credentials = self._overlay.credentials
        credentials.gid = self._new_id(egid, credentials.gid)

    def setgroups(self, groups: Iterable[int]) -> None:
        """Set the supplementary groups. EPERM unless root."""
        if self._overlay.credentials.uid != 0:
            raise oserror(errno.EPERM)
        self._overlay.credentials.groups = tuple(groups)

    def _new_id(self, wanted: int, current: int) -> int:
        if not 0 <= wanted < _NO_ID:
            raise oserror(errno.EINVAL)
        if self._overlay.credentials.uid != 0 and wanted not in (0, current):
            raise oserror(errno.EPERM)
        return wanted

    def _description(self, fd: int) -> _Description:
        description = self._descriptions.get(osargs.number(fd))
        if description is None:
            raise oserror(errno.EBADF)
        return description

    def _file(self, fd: int) -> File:
        return self._description(fd).file

    def _entries(self, call: str, path: Path | int | None) -> list[Dirent]:
        if isinstance(path, int):
            file = self._file(path)
            entries = file.listdir()
            # os rewinds a descriptor it has listed: the next time it lists what is there then.
            file.seek(0)
            return entries
        return self._overlay.listdir("." if path is None else osargs.path_text(call, path))

    def _exists(self, path: str) -> bool:
        try:
            self._overlay.stat(path)
        except OSError:
            return False
        return True

    def _is_dir(self, path: str) -> bool:
        try:
            return stat.S_ISDIR(self._overlay.stat(path).st_mode)
        except OSError:
            return False

    def _is_symlink(self, path: str) -> bool:
        try:
            return stat.S_ISLNK(self._overlay.stat(path, follow=False).st_mode)
        except OSError:
            return False


class _Descriptor:
    """What an `io` object over a descriptor reads and writes through: by number, so that closing the number ends it."""

    def __init__(self, osmod: OsModule, fd: int, closefd: bool) -> None:
        self._osmod = osmod
        self._fd = fd
        self._closefd = closefd

    def read(self, size: int) -> bytes:
        return self._osmod.read(self._fd, size)

    def write(self, data: bytes | memoryview) -> int:
        return self._osmod.write(self._fd, data)

    def pread(self, size: int, offset: int) -> bytes:
        return self._osmod.pread(self._fd, size, offset)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._osmod.lseek(self._fd, offset, whence)

    def truncate(self, size: int) -> None:
        self._osmod.ftruncate(self._fd, size)

    def close(self) -> None:
        if self._closefd:
            self._osmod.close(self._fd)
