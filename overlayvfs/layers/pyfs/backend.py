"""A PyFilesystem that isn't trusted: every call on it is made here, errors come out as errnos, answers are checked.

Paths are PyFilesystem's ("/", "/a/b"). Nothing here knows marks, inode numbers or what to do about a failure.
"""

import errno
from collections.abc import Hashable
from contextlib import AbstractContextManager
from pathlib import Path, PurePosixPath
from typing import IO, BinaryIO, Final, NamedTuple, cast

from fs.base import FS
from fs.memoryfs import MemoryFS
from fs.osfs import OSFS
from fs.permissions import Permissions
from fs.wrapfs import WrapFS

from overlayvfs.abi import Stat, check_name, oserror
from overlayvfs.layers.pyfs import attributes
from overlayvfs.layers.pyfs.errors import as_os_error, os_errors
from overlayvfs.layers.pyfs.facts import Facts

ROOT: Final = "/"


class Entry(NamedTuple):
    """One line of a listing; `target` is a symlink's."""

    name: str
    stat: Stat
    target: str | None


class Backend:
    """One `fs.base.FS` and what it says of itself."""

    def __init__(self, fs: FS) -> None:
        self.name = _name_of(fs)
        self._fs = fs
        with os_errors(self.name, ROOT):
            meta = fs.getmeta()
            # Every view of one FS shares it. It is held around reads too: files of a TarFS share a position.
            self.lock: AbstractContextManager[object] = fs.lock()
            offered = fs.getinfo(ROOT, attributes.EVERYTHING).raw
            self.first_told_of_root = attributes.attributes(offered)
            self.base, self.base_path = unwrapped(fs)
        self.facts: Facts | None = None
        """What is remembered of what was told, while this is an upper."""
        self.read_only = bool(meta.get("read_only"))
        self.is_network = bool(meta.get("network"))
        self.tells_links = "lstat" in offered
        self._namespaces = attributes.wanted(offered)
        in_memory = type(self.base).movedir is MemoryFS.movedir
        self.moves_in_place = in_memory or bool(meta.get("supports_rename"))
        """Moving a file keeps its attributes; elsewhere it is a copy and a removal."""
        self.moves_trees = in_memory
        """Moving a directory is one step; elsewhere PyFilesystem copies all below, and may stop half way."""

    def ancestry(self) -> list[Hashable]:
        """Return what tells the root and each directory above it from others; host directories as LocalLayer does."""
        if isinstance(self.base, OSFS):
            top = Path(self.base.getsyspath(self.base_path)).resolve()
            stats = [directory.stat() for directory in (top, *top.parents)]
            return [("host", st.st_dev, st.st_ino) for st in stats]
        above = PurePosixPath(self.base_path)
        return [("pyfs", id(self.base), str(path)) for path in (above, *above.parents)]

    # Asking

    def stat(self, path: str) -> Stat:
        with os_errors(self.name, path):
            return attributes.attributes(self._fs.getinfo(path, self._namespaces).raw)

    def find(self, path: str) -> Stat | None:
        """Return the object's attributes, None where there is none (or can be none: the name is too long)."""
        try:
            return self.stat(path)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENAMETOOLONG, errno.ENOTDIR):
                return None
            raise

    def recall(self, path: str) -> Stat | None:
        """Return what `find` does, without asking where nothing has changed since it was asked."""
        return self.find(path) if self.facts is None else self.facts.find(path, self.find)

    def forget(self, path: str) -> None:
        """Note that an object's attributes change."""
        if self.facts is not None:
            self.facts.forget(path)

    def _forget_name(self, path: str) -> None:
        if self.facts is not None:
            self.facts.forget_name(path)

    def is_there(self, path: str) -> bool:
        """Tell whether a name is taken, also by a symlink that dangles, which can be listed and not asked about."""
        if self.find(path) is not None:
            return True
        parent, _, name = path.rpartition("/")
        return self.tells_links and name in self.names(parent or ROOT)

    def target(self, path: str) -> str:
        """Return where a symlink points. EIO: the backend says it is one, and not where to."""
        with os_errors(self.name, path):
            told = attributes.target(self._fs.getinfo(path, ("link",)).raw)
        if told is None:
            raise oserror(errno.EIO, path, reason=f"{self.name}: shows a symlink and not where it points")
        return told

    def scan(self, path: str) -> list[Entry]:
        """Return a directory's names with their attributes, in one call. EIO: a name no directory can have."""
        with os_errors(self.name, path):
            told = [(info.raw["basic"]["name"], info.raw) for info in self._fs.scandir(path, self._namespaces)]
        # A name told twice is one name.
        named = {self._checked_name(path, name): raw for name, raw in told}
        with os_errors(self.name, path):
            return [Entry(name, attributes.attributes(raw), attributes.target(raw)) for name, raw in named.items()]

    def names(self, path: str) -> list[str]:
        """Return a directory's names. EIO: a name no directory can have."""
        with os_errors(self.name, path):
            told: list[object] = list(self._fs.listdir(path))
        return list(dict.fromkeys(self._checked_name(path, name) for name in told))

    def _checked_name(self, path: str, name: object) -> str:
        # Any of these would lead out of the directory, or nowhere.
        if not isinstance(name, str) or name in ("", ".", "..") or "/" in name or "\0" in name or _is_too_long(name):
            raise self.lie(path, f"lists a name no directory can have: {name!r:.300}")
        return name

    # Changing: each is one call, and a failing one may have done its work or part of it

    def make_file(self, path: str) -> None:
        """Make an empty file. EEXIST: there is one."""
        self._forget_name(path)
        with os_errors(self.name, path):
            made = self._fs.create(path)
        if not made:
            raise oserror(errno.EEXIST, path)

    def open_new(self, path: str) -> BinaryIO:
        """Make an empty file and return it open for reading and writing. EEXIST: there is one."""
        self._forget_name(path)
        with os_errors(self.name, path):
            return self._fs.openbin(path, "x+b")

    def make_dir(self, path: str, mode: int | None) -> None:
        self._forget_name(path)
        with os_errors(self.name, path):
            self._fs.makedir(path, None if mode is None else Permissions(mode=mode))
        if self.facts is not None:
            self.facts.add_dir(path)

    def remove(self, path: str) -> None:
        self._forget_name(path)
        with os_errors(self.name, path):
            self._fs.remove(path)

    def remove_dir(self, path: str) -> None:
        self._forget_name(path)
        if self.facts is not None:
            self.facts.drop_dir(path)
        with os_errors(self.name, path):
            self._fs.removedir(path)

    def move_file(self, src: str, dst: str) -> None:
        self._forget_name(src)
        self._forget_name(dst)
        with os_errors(self.name, src):
            # The caller knows that dst is free; without `overwrite` PyFilesystem asks again.
            self._fs.move(src, dst, overwrite=True)

    def move_dir(self, src: str, dst: str) -> None:
        self._forget_name(src)
        self._forget_name(dst)
        with os_errors(self.name, src):
            self._fs.movedir(src, dst, create=True)
        if self.facts is not None:
            self.facts.move_dir(src, dst)

    def set_times(self, path: str, atime_ns: int | None, mtime_ns: int) -> None:
        times: dict[str, object] = {"modified": attributes.seconds(mtime_ns)}
        if atime_ns is not None:
            times["accessed"] = attributes.seconds(atime_ns)
        self._set_info(path, {"details": times})

    def set_mode(self, path: str, mode: int) -> None:
        self._set_info(path, {"access": {"permissions": Permissions(mode=mode).dump()}})

    def set_owner(self, path: str, uid: int, gid: int) -> None:
        self._set_info(path, {"access": {"uid": uid, "gid": gid}})

    def _set_info(self, path: str, raw: dict[str, dict[str, object]]) -> None:
        self.forget(path)
        with os_errors(self.name, path):
            self._fs.setinfo(path, raw)

    # Data

    def open(self, path: str, *, writable: bool) -> BinaryIO:
        with os_errors(self.name, path):
            return self._fs.openbin(path, "r+b" if writable else "rb")

    def upload(self, path: str, data: IO[bytes]) -> None:
        """Make a file's contents those of `data` from its position."""
        self.forget(path)
        with os_errors(self.name, path):
            self._fs.upload(path, cast(BinaryIO, data))

    def calls(self, path: str) -> AbstractContextManager[None]:
        """Return the block in which a file object of this backend is used: its errors come out as errnos too."""
        return os_errors(self.name, path)

    def error(self, error: Exception, path: str) -> OSError:
        """Return what a file object of this backend raised as an errno."""
        return as_os_error(error, self.name, path)

    def lie(self, path: str, what: str) -> OSError:
        """Return the EIO for an answer that can't be true."""
        return oserror(errno.EIO, path, reason=f"{self.name}: {what}")


def unwrapped(fs: FS) -> tuple[FS, str]:
    """Return the FS that holds the tree, and where in it, below all SubFS and other wrappers."""
    path = ROOT
    while isinstance(fs, WrapFS):
        fs, path = fs.delegate_path(path)
    return fs, path.rstrip("/") or ROOT


def _is_too_long(name: str) -> bool:
    try:
        check_name(name)
    except (OSError, UnicodeError):
        return True
    return False


def _name_of(fs: FS) -> str:
    try:
        return str(fs)
    except Exception:  # noqa: BLE001 - a name is for messages, and one is needed to complain
        return type(fs).__name__
