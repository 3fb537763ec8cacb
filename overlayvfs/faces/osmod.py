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
from overlayvfs.faces import rawio
from overlayvfs.faces.stats import nanoseconds, stat_result, statvfs_result

Path = str | os.PathLike[str]

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
        description = _Description(self._overlay.open(_path("open", path), flags, mode))
        fd = next(_numbers)
        self._descriptions[fd] = description
        return fd

    def close(self, fd: int) -> None:
        with self._lock:
            description = self._descriptions.pop(_fd(fd), None)
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
        return self._file(fd).write(_bytes_like(data))

    def pread(self, fd: int, n: int, offset: int) -> bytes:
        if n < 0:
            raise oserror(errno.EINVAL)
        return self._file(fd).pread(n, offset)

    def pwrite(self, fd: int, data: Any, offset: int) -> int:
        return self._file(fd).pwrite(_bytes_like(data), offset)

    def lseek(self, fd: int, position: int, whence: int) -> int:
        return self._file(fd).seek(position, whence)

    def ftruncate(self, fd: int, length: int) -> None:
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
            _no_fd_and_nofollow("stat", follow_symlinks)
            return self.fstat(path)
        return stat_result(self._overlay.stat(_path("stat", path), follow=follow_symlinks))

    def lstat(self, path: Path) -> os.stat_result:
        return stat_result(self._overlay.stat(_path("lstat", path), follow=False))

    def access(self, path: Path, mode: int, *, effective_ids: bool = False, follow_symlinks: bool = True) -> bool:
        """Tell whether the caller may; there is but one identity, so `effective_ids` changes nothing."""
        try:
            return self._overlay.access(_path("access", path), mode, follow=follow_symlinks)
        except OSError:
            return False

    def chmod(self, path: Path | int, mode: int, *, follow_symlinks: bool = True) -> None:
        if isinstance(path, int):
            _no_fd_and_nofollow("chmod", follow_symlinks)
            return self.fchmod(path, mode)
        return self._overlay.chmod(_path("chmod", path), mode, follow=follow_symlinks)

    def chown(self, path: Path | int, uid: int, gid: int, *, follow_symlinks: bool = True) -> None:
        if isinstance(path, int):
            _no_fd_and_nofollow("chown", follow_symlinks)
            return self.fchown(path, uid, gid)
        return self._overlay.chown(_path("chown", path), uid, gid, follow=follow_symlinks)

    def lchown(self, path: Path, uid: int, gid: int) -> None:
        self._overlay.chown(_path("lchown", path), uid, gid, follow=False)

    def utime(
        self,
        path: Path | int,
        times: tuple[float, float] | None = None,
        *,
        ns: tuple[int, int] | None = None,
        follow_symlinks: bool = True,
    ) -> None:
        times_ns = _times_ns(times, ns)
        if isinstance(path, int):
            _no_fd_and_nofollow("utime", follow_symlinks)
            return self._file(path).utime(times_ns)
        return self._overlay.utime(_path("utime", path), times_ns, follow=follow_symlinks)

    def truncate(self, path: Path | int, length: int) -> None:
        if isinstance(path, int):
            return self.ftruncate(path, length)
        return self._overlay.truncate(_path("truncate", path), length)

    def statvfs(self, path: Path | int) -> Any:
        """Return an os.statvfs_result; the tree is one file system, so a descriptor tells the same as the root."""
        if isinstance(path, int):
            self._file(path)
            path = "/"
        return statvfs_result(self._overlay.statvfs(_path("statvfs", path)))

    def fstatvfs(self, fd: int) -> Any:
        return self.statvfs(_fd(fd))

    def getxattr(self, path: Path | int, attribute: Path | bytes, *, follow_symlinks: bool = True) -> bytes:
        name = _attribute(attribute)
        if isinstance(path, int):
            _no_fd_and_nofollow("getxattr", follow_symlinks)
            return self._file(path).getxattr(name)
        return self._overlay.getxattr(_path("getxattr", path), name, follow=follow_symlinks)

    def setxattr(
        self, path: Path | int, attribute: Path | bytes, value: Any, flags: int = 0, *, follow_symlinks: bool = True
    ) -> None:
        name, data = _attribute(attribute), bytes(_bytes_like(value))
        if isinstance(path, int):
            _no_fd_and_nofollow("setxattr", follow_symlinks)
            return self._file(path).setxattr(name, data, flags)
        return self._overlay.setxattr(_path("setxattr", path), name, data, flags, follow=follow_symlinks)

    def listxattr(self, path: Path | int | None = None, *, follow_symlinks: bool = True) -> list[str]:
        if isinstance(path, int):
            _no_fd_and_nofollow("listxattr", follow_symlinks)
            return self._file(path).listxattr()
        return self._overlay.listxattr("/" if path is None else _path("listxattr", path), follow=follow_symlinks)

    def removexattr(self, path: Path | int, attribute: Path | bytes, *, follow_symlinks: bool = True) -> None:
        name = _attribute(attribute)
        if isinstance(path, int):
            _no_fd_and_nofollow("removexattr", follow_symlinks)
            return self._file(path).removexattr(name)
        return self._overlay.removexattr(_path("removexattr", path), name, follow=follow_symlinks)

    # Names

    def mkdir(self, path: Path, mode: int = 0o777) -> None:
        self._overlay.mkdir(_path("mkdir", path), mode)

    def makedirs(self, name: Path, mode: int = 0o777, exist_ok: bool = False) -> None:
        """Make a directory and the parents it lacks, as os.makedirs: `mode` is for the last one only."""
        path = _path("makedirs", name)
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
        self._overlay.mknod(_path("mknod", path), mode, device)

    def symlink(self, src: Path, dst: Path, target_is_directory: bool = False) -> None:
        self._overlay.symlink(_path("symlink", src), _path("symlink", dst))

    def readlink(self, path: Path) -> str:
        return self._overlay.readlink(_path("readlink", path))

    def link(self, src: Path, dst: Path, *, follow_symlinks: bool = False) -> None:
        """Give `src` a second name; a symlink itself unless told to follow, as link(2) does on Linux."""
        self._overlay.link(_path("link", src), _path("link", dst), follow=follow_symlinks)

    def unlink(self, path: Path) -> None:
        self._overlay.unlink(_path("unlink", path))

    remove = unlink

    def rmdir(self, path: Path) -> None:
        self._overlay.rmdir(_path("rmdir", path))

    def rename(self, src: Path, dst: Path) -> None:
        self._overlay.rename(_path("rename", src), _path("rename", dst))

    replace = rename

    def renameat2(self, src: Path, dst: Path, flags: int = 0) -> None:
        """Call renameat2(2): RENAME_NOREPLACE or RENAME_EXCHANGE; EINVAL for other flags."""
        self._overlay.rename(_path("renameat2", src), _path("renameat2", dst), flags)

    # Directories

    def listdir(self, path: Path | int | None = None) -> list[str]:
        return [entry.d_name for entry in self._entries("listdir", path)]

    def scandir(self, path: Path | int | None = None) -> "ScandirIterator":
        entries = self._entries("scandir", path)
        if isinstance(path, int):
            # Python names such entries without a directory in front, and asks about them relative to the descriptor.
            folder, prefix = self._file(path).dentry.path or "/", ""
        else:
            folder = prefix = "." if path is None else _path("scandir", path)
        return ScandirIterator([DirEntry(self._overlay, folder, prefix, entry) for entry in entries])

    def walk(
        self,
        top: Path,
        topdown: bool = True,
        onerror: Callable[[OSError], object] | None = None,
        followlinks: bool = False,
    ) -> Iterator[tuple[str, list[str], list[str]]]:
        """Walk a tree as os.walk does; `dirs` may be changed on the way when `topdown`."""
        pending: list[str | tuple[str, list[str], list[str]]] = [_path("walk", top)]
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
                (dirs if _leads_to_dir(entry) else files).append(entry.name)
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
        description = self._descriptions.get(_fd(fd))
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
        return self._overlay.listdir("." if path is None else _path(call, path))

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


def _leads_to_dir(entry: "DirEntry") -> bool:
    """Tell whether walk counts an entry among the directories; a symlink loop leads nowhere."""
    try:
        return entry.is_dir()
    except OSError:
        return False


class DirEntry:
    """One name of a directory, as os.DirEntry: it keeps what it was told, and asks only where that is not enough."""

    __slots__ = ("_entry", "_lstat", "_overlay", "_stat", "_where", "name", "path")

    def __init__(self, overlay: Overlay, folder: str, prefix: str, entry: Dirent) -> None:
        """`folder` is where the entry lies, `prefix` what its path is to begin with."""
        self._overlay = overlay
        self._entry = entry
        self._where = posixpath.join(folder, entry.d_name)
        self._stat: os.stat_result | None = None
        self._lstat: os.stat_result | None = None
        self.name = entry.d_name
        self.path = posixpath.join(prefix, entry.d_name)

    def __fspath__(self) -> str:
        return self.path

    def __repr__(self) -> str:
        return f"<DirEntry {self.name!r}>"

    def inode(self) -> int:
        return self._entry.d_ino

    def is_dir(self, *, follow_symlinks: bool = True) -> bool:
        return self._type(follow_symlinks) == stat.S_IFDIR

    def is_file(self, *, follow_symlinks: bool = True) -> bool:
        return self._type(follow_symlinks) == stat.S_IFREG

    def is_symlink(self) -> bool:
        return self._type(follow_symlinks=False) == stat.S_IFLNK

    def is_junction(self) -> bool:
        return False

    def stat(self, *, follow_symlinks: bool = True) -> os.stat_result:
        if self._lstat is None and not (follow_symlinks and self.is_symlink()):
            self._lstat = stat_result(self._overlay.stat(self._where, follow=False))
        if not follow_symlinks or not self.is_symlink():
            assert self._lstat is not None
            return self._lstat
        if self._stat is None:
            self._stat = stat_result(self._overlay.stat(self._where))
        return self._stat

    def _type(self, follow_symlinks: bool) -> int:
        """Return the S_IFMT part of the mode; 0 if the object is gone."""
        kind = self._entry.d_type
        if kind and not (follow_symlinks and kind == stat.S_IFLNK):
            return kind
        try:
            return stat.S_IFMT(self._overlay.stat(self._where, follow=follow_symlinks).st_mode)
        except FileNotFoundError:
            return 0


class ScandirIterator(Iterator[DirEntry]):
    """What scandir returns: an iterator that can be closed."""

    def __init__(self, entries: list[DirEntry]) -> None:
        self._entries = iter(entries)

    def __next__(self) -> DirEntry:
        return next(self._entries)

    def __enter__(self) -> "ScandirIterator":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the iteration."""
        self._entries = iter(())


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


def _path(call: str, path: object) -> str:
    """Return a path argument as text, or raise what the os module raises for it."""
    text = path if isinstance(path, str) else getattr(type(path), "__fspath__", _not_a_path)(path)
    if not isinstance(text, str):
        raise TypeError(f"{call}: path should be string or os.PathLike, not {type(path).__name__}")
    if "\0" in text:
        raise ValueError(f"{call}: embedded null character in path")
    if not text.isascii():
        # A lone surrogate that stands for no byte: the name can't exist, and os says so in the same way.
        text.encode("utf-8", "surrogateescape")
    return text


def _not_a_path(path: object) -> None:
    """Stand for __fspath__ on what has none."""


def _fd(fd: object) -> int:
    if not isinstance(fd, int):
        raise TypeError(f"'{type(fd).__name__}' object cannot be interpreted as an integer")
    return fd


def _attribute(name: Path | bytes) -> str:
    text = os.fsdecode(name) if isinstance(name, bytes) else os.fspath(name)
    if "\0" in text:
        raise ValueError("embedded null character in attribute")
    return text


def _bytes_like(data: Any) -> bytes | memoryview:
    if isinstance(data, str):
        raise TypeError("a bytes-like object is required, not 'str'")
    return data if isinstance(data, bytes) else memoryview(data).cast("B")


def _no_fd_and_nofollow(call: str, follow_symlinks: bool) -> None:
    if not follow_symlinks:
        raise ValueError(f"{call}: cannot use fd and follow_symlinks together")


def _times_ns(times: tuple[float, float] | None, ns: tuple[int, int] | None) -> tuple[int, int] | None:
    if times is not None and ns is not None:
        raise ValueError("utime: you may specify either 'times' or 'ns' but not both")
    if ns is not None:
        atime_ns, mtime_ns = _pair("ns", ns)
        return atime_ns, mtime_ns
    if times is not None:
        atime, mtime = _pair("times", times)
        return nanoseconds(atime), nanoseconds(mtime)
    return None


def _pair(name: str, value: Any) -> tuple[Any, Any]:
    if not isinstance(value, tuple) or len(value) != 2:
        raise TypeError(f"utime: '{name}' must be a tuple of two numbers")
    return value
