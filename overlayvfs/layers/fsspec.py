"""Any fsspec file system as a layer: object stores, HDFS, HTTP, SFTP, the inside of archives (extra `[fsspec]`).

fsspec is shown to `PyFsLayer` as one more PyFilesystem, so that what a layer does with a store that keeps
neither modes nor links nor marks (`.wh.` names, undoing half-done changes, probing before listing) is written once.

What fsspec itself makes of a store decides what shows:

- only files and directories; symlinks and special files (`file://`, `sftp://`) are left out, for fsspec
  would follow them out of the directory. A host directory is better given as a path;
- modes where the store tells them, times as exact as it tells them, no owners;
- a directory of an object store exists as long as it has a name. One made here gets an object
  `.wh..wh..dir`, which no listing of the layer shows.

**Requests.** One for a listing, which then answers for every name in it; one for a name in a directory not
listed; one for a file's bytes up to 256 KiB, or as many as are read at once. Nothing is asked of a file's
contents before it is read.
"""

import errno
import io
import os
import shutil
import stat
from collections.abc import Callable, Collection, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, BinaryIO, Final, cast

from fs import errors
from fs.base import FS
from fs.enums import ResourceType
from fs.info import Info
from fs.permissions import Permissions
from fs.subfs import SubFS

from overlayvfs.abi import oserror
from overlayvfs.layers.pyfs import PyFsLayer
from overlayvfs.layers.pyfs.spelling import RESERVED
from overlayvfs.marks import USER, MarkNames

_KEEPER: Final = f"{RESERVED}.dir"
"""The object that keeps a directory of an object store in being."""

_READ_AT_LEAST: Final = (256 << 10) + 1
"""The odd byte: most files whose size is round end inside a piece that way, and their end costs no request."""

_MODIFIED: Final = ("mtime", "modified", "LastModified", "last_modified", "updated", "created")
"""What implementations call the time of the last change."""

_ERRORS: Final[Mapping[type[Exception], Callable[..., Exception]]] = {
    FileNotFoundError: errors.ResourceNotFound,
    FileExistsError: errors.FileExists,
    IsADirectoryError: errors.FileExpected,
    NotADirectoryError: errors.DirectoryExpected,
    PermissionError: errors.PermissionDenied,
    NotImplementedError: errors.ResourceReadOnly,
}
"""fsspec raises these mostly without a number."""


class FsspecLayer(PyFsLayer):
    """A directory of an fsspec file system, as a lower or, where the file system writes, an upper.

    Given as a URL ("s3://bucket/dir", "zip://inner::https://host/a.zip"; `options` are the file system's own) or as
    a file system and a path in it. Nothing given is closed; fsspec keeps its file systems itself.
    """

    def __init__(self, url_or_fs: Any, path: str = "", *, marks: MarkNames = USER, **options: Any) -> None:
        """Open the directory.

        Raises:
            EOPNOTSUPP: fsspec, or the package behind a URL's protocol, is not installed.
            EINVAL: no such protocol, or options it does not take.
            ENOENT ENOTDIR: no such directory.

        """
        if isinstance(url_or_fs, str):
            self._store, root = _from_url(url_or_fs, options)
            root = f"{root.rstrip('/')}/{path.strip('/')}" if path.strip("/") else root
        else:
            self._store, root = url_or_fs, path
        self._root = str(self._store._strip_protocol(root)).rstrip("/")
        # Its listings may be from another time: fsspec hands out one object per store and lets them live for ever.
        self._store.invalidate_cache()
        shown = _FsspecFS(self._store, self._root)
        try:
            super().__init__(shown, marks=marks)
            if not stat.S_ISDIR(self.lstat("").st_mode):
                raise oserror(errno.ENOTDIR)
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(shown)) from error

    def ancestry(self) -> Sequence[Hashable]:
        parts = self._root.split("/")
        return [("fsspec", self._store, "/".join(parts[:depth])) for depth in range(len(parts), 0, -1)]


def _from_url(url: str, options: Mapping[str, Any]) -> tuple[Any, str]:
    try:
        from fsspec.core import url_to_fs
    except ModuleNotFoundError:
        raise oserror(errno.EOPNOTSUPP, url, reason='pip install "overlayvfs[fsspec]" to open it') from None
    try:
        store, root = url_to_fs(url, **options)
    except ImportError as error:
        raise oserror(errno.EOPNOTSUPP, url, reason=str(error)) from error
    except (ValueError, TypeError) as error:
        raise oserror(errno.EINVAL, url, reason=str(error)) from error
    return store, str(root)


class _FsspecFS(FS):
    """A directory of an fsspec file system as a PyFilesystem: what `PyFsLayer` asks of one.

    Only primitives of fsspec are used: `mv`, `copy` and `rm` take names for patterns.
    """

    _meta = {  # noqa: RUF012 - PyFilesystem's way to say what an FS is like
        "invalid_path_chars": "\0",
        # Every question may be a request, and files are written as a whole.
        "network": True,
        "read_only": False,
        "supports_rename": False,
        "thread_safe": True,
        "unicode_paths": True,
        "virtual": False,
    }

    def __init__(self, store: Any, root: str) -> None:
        super().__init__()
        self._store = store
        self._root = root

    def __str__(self) -> str:
        return str(self._store.unstrip_protocol(self._root or self._store.root_marker))

    def getinfo(self, path: str, namespaces: Collection[str] | None = None) -> Info:
        path = self.validatepath(path)
        with _fs_errors(path):
            told = self._store.info(self._where(path))
        if not _is_shown(told):
            raise errors.ResourceNotFound(path)
        return _info(path.rpartition("/")[2], told)

    def listdir(self, path: str) -> list[str]:
        return [info.name for info in self.scandir(path)]

    def scandir(
        self, path: str, namespaces: Collection[str] | None = None, page: tuple[int, int] | None = None
    ) -> Iterator[Info]:
        path = self.validatepath(path)
        where = self._where(path)
        with _fs_errors(path):
            told = self._store.ls(where, detail=True)
        found = []
        for one in told:
            name = str(one["name"]).rstrip("/")
            # Some list the directory itself, and all list a file as itself.
            if name.strip("/") == where.strip("/"):
                if one["type"] != "directory" and not str(one["name"]).endswith("/"):
                    raise errors.DirectoryExpected(path)
            elif _is_shown(one) and name.rpartition("/")[2] != _KEEPER:
                found.append(_info(name.rpartition("/")[2], one))
        return iter(found[slice(*page)] if page else found)

    def openbin(self, path: str, mode: str = "r", buffering: int = -1, **options: Any) -> BinaryIO:
        path = self.validatepath(path)
        if mode.strip("bt") != "r":
            raise errors.Unsupported(msg=f"{self} opens files for reading only; upload() replaces them")
        return cast(BinaryIO, _Reader(self._store, self._where(path), path))

    def create(self, path: str, wipe: bool = False) -> bool:
        path = self.validatepath(path)
        where = self._where(path)
        with _fs_errors(path):
            # What is not shown is in the way all the same: a symlink would be written through.
            if not wipe and self._store.lexists(where):
                return False
            self._store.pipe_file(where, b"")
        return True

    def upload(self, path: str, file: BinaryIO, chunk_size: int | None = None, **options: Any) -> None:
        path = self.validatepath(path)
        with _fs_errors(path), self._store.open(self._where(path), "wb") as out:
            shutil.copyfileobj(file, out, chunk_size or 1 << 20)

    def makedir(self, path: str, permissions: Permissions | None = None, recreate: bool = False) -> SubFS[FS]:
        path = self.validatepath(path)
        where = self._where(path)
        with _fs_errors(path):
            if self._store.lexists(where):
                if not recreate:
                    raise errors.DirectoryExists(path)
            else:
                self._store.mkdir(where, create_parents=False)
                if not self._store.isdir(where):
                    self._store.pipe_file(f"{where}/{_KEEPER}", b"")
        return self.opendir(path)

    def remove(self, path: str) -> None:
        path = self.validatepath(path)
        with _fs_errors(path):
            self._store.rm_file(self._where(path))

    def removedir(self, path: str) -> None:
        path = self.validatepath(path)
        where = self._where(path)
        with _fs_errors(path):
            names = [str(name).rstrip("/").rpartition("/")[2] for name in self._store.ls(where, detail=False)]
            if names == [_KEEPER]:
                self._store.rm_file(f"{where}/{_KEEPER}")
                # An object store has forgotten the directory now.
                if not self._store.isdir(where):
                    return
            self._store.rmdir(where)

    def move(self, src_path: str, dst_path: str, overwrite: bool = False, preserve_time: bool = False) -> None:
        src, dst = self.validatepath(src_path), self.validatepath(dst_path)
        with _fs_errors(src):
            if self._store.lexists(self._where(dst)):
                raise errors.DestinationExists(dst)
            self._store.cp_file(self._where(src), self._where(dst))
            self._store.rm_file(self._where(src))

    def setinfo(self, path: str, info: Mapping[str, Mapping[str, object]]) -> None:
        """Keep nothing: fsspec has no word for it, and PyFilesystem's for that is to do nothing."""
        self.getinfo(path)

    def _where(self, path: str) -> str:
        marker = str(self._store.root_marker)
        # Where the root is called "", no path begins with a slash (DirFileSystem puts its own before it).
        return (f"{self._root}{path.rstrip('/')}" if self._root or marker else path.strip("/")) or marker


class _Reader(io.RawIOBase):
    """A file's bytes, asked for piece by piece; where it ends is learnt from the first short piece."""

    def __init__(self, store: Any, where: str, path: str) -> None:
        self._store = store
        self._where = where
        self._path = path
        self._position = 0
        self._end: int | None = None
        self._piece = b""
        self._piece_start = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        if whence == os.SEEK_CUR:
            offset += self._position
        elif whence == os.SEEK_END:
            offset += self._size()
        self._position = offset
        return offset

    def read(self, size: int = -1) -> bytes:
        if size < 0:
            size = max(self._size() - self._position, 0)
        data = self._at_hand(size)
        if len(data) < size and not (self._end is not None and self._position + len(data) >= self._end):
            self._fetch(self._position + len(data), max(size - len(data), _READ_AT_LEAST))
            data += self._piece[: size - len(data)]
        self._position += len(data)
        return data

    def _at_hand(self, size: int) -> bytes:
        start = self._position - self._piece_start
        return self._piece[start : start + size] if 0 <= start < len(self._piece) else b""

    def _fetch(self, start: int, size: int) -> None:
        """Ask for a piece of the file."""
        with _fs_errors(self._path):
            try:
                piece = bytes(self._store.cat_file(self._where, start=start, end=start + size))
            except FileNotFoundError:
                raise
            # A range that begins at the end is an error to object stores, in words of their own.
            except Exception:
                if start < self._size():
                    raise
                piece = b""
        if len(piece) > size:
            raise OSError(errno.EIO, f"the store gave {len(piece)} bytes when asked for {size}")
        if len(piece) < size:
            self._end = start + len(piece)
        self._piece, self._piece_start = piece, start

    def _size(self) -> int:
        if self._end is None:
            with _fs_errors(self._path):
                self._end = int(self._store.info(self._where)["size"])
        return self._end


def _is_shown(told: Mapping[str, Any]) -> bool:
    return told["type"] in ("file", "directory") and not told.get("islink")


def _info(name: str, told: Mapping[str, Any]) -> Info:
    is_dir = told["type"] == "directory"
    details: dict[str, object] = {
        "type": int(ResourceType.directory if is_dir else ResourceType.file),
        "size": 0 if is_dir else told.get("size") or 0,
        "modified": _modified(told),
    }
    raw: dict[str, dict[str, object]] = {"basic": {"name": name, "is_dir": is_dir}, "details": details}
    mode = told.get("mode")
    if isinstance(mode, int):
        raw["access"] = {"permissions": Permissions(mode=mode & 0o7777).dump()}
    return Info(raw)


def _modified(told: Mapping[str, Any]) -> float | None:
    """Return when a file was changed last, in seconds since the epoch; None where the store does not tell."""
    for key in _MODIFIED:
        when = told.get(key)
        if isinstance(when, datetime):
            # One without a zone is UTC: so the stores speak.
            return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()
        if isinstance(when, (int, float)) and not isinstance(when, bool):
            return when
    return None


@contextmanager
def _fs_errors(path: str) -> Iterator[None]:
    """Turn what fsspec raises into PyFilesystem's exceptions; what has a number of its own keeps it."""
    try:
        yield
    except Exception as error:
        if isinstance(error, OSError) and error.errno:
            raise
        for kind, replacement in _ERRORS.items():
            if isinstance(error, kind):
                raise replacement(path, exc=error) from error
        raise
