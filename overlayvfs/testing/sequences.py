"""Random operations: what the lockstep test feeds to the kernel and to the engine.

Operations are aimed at what is believed to be there, so that most of them succeed; some go astray on purpose, so that
every errno comes up, and some try the operations of the kernel's tables on the names planted for them. `hostile`
profiles add arguments that no sane program passes.
"""

import os
import stat
from collections.abc import Callable, Sequence
from random import Random
from typing import Any, Final, TypeVar

from overlayvfs.abi import RENAME_EXCHANGE, RENAME_NOREPLACE
from overlayvfs.testing.beliefs import Descriptors, Names
from overlayvfs.testing.ops import Op, Outcome, Slot, call, remount
from overlayvfs.testing.random_stacks import DEPTH, IDS, NAMES, PLANTED, Profile, planted_paths
from overlayvfs.testing.stacks import Stack

SLOTS: Final = 3

_ASTRAY: Final = 0.07
"""How often an operation is pointed at just anything."""

_EARLY: Final = 12
"""For how many operations the states planted in a stack are likely to be as they were planted."""

_REMOUNTED: Final = 0.2
"""How often a remount comes instead of an operation, if remounts are wanted."""

_TWISTED: Final = 0.15
"""How often a path is spelt strangely, if hostile arguments are wanted."""

_T = TypeVar("_T")


class Operations:
    """Draws operations; learns from their outcomes what is there."""

    def __init__(self, rng: Random, stack: Stack, profile: Profile) -> None:
        self._rng = rng
        self._hostile = profile.hostile
        self._remounts = profile.remounts
        self._closing = profile.closing
        self._names = Names(stack)
        self._descriptors = Descriptors()
        self._planted = planted_paths(stack)
        self._drawn = 0
        weights = _WEIGHTS + (_CREDENTIAL_WEIGHTS if profile.credentials else ())
        self._makers = [maker for maker, weight in weights for _ in range(weight)]

    def draw(self) -> Op:
        """Return the next operation."""
        self._drawn += 1
        if self._remounts and self._mostly(_REMOUNTED):
            # Looking up may itself leave origin marks in the upper: half of the time they are left to the next mount.
            return remount(look=self._mostly(0.5))
        if self._closing and self._descriptors.all() and self._mostly(0.6):
            return self.on_any_slot("close")
        if self._drawn <= _EARLY and self._mostly(0.6):
            return self._table_a() if self._mostly(0.4) else self._table_b()
        return self._rng.choice(self._makers)(self)

    def draw_from(self, rng: Random) -> None:
        """Let what follows be drawn from `rng`."""
        self._rng = rng

    def learn(self, op: Op, outcome: Outcome) -> None:
        """Take note of what an operation did."""
        self._descriptors.learn(op, outcome, self._names)
        self._names.learn(op, outcome)

    # What to aim at.

    def _one(self, *pools: Sequence[_T]) -> _T | None:
        """Return one of the first pool that has any."""
        return next((self._rng.choice(pool) for pool in pools if pool), None)

    def _mostly(self, likely: float) -> bool:
        return self._rng.random() < likely

    def _existing(self, *kinds: str) -> str:
        """Return a name of one of these kinds, of any kind where there is none; "" is the root."""
        return self._one(self._names.paths(*kinds), self._names.paths()) or ""

    def _object(self) -> str:
        """Return any name, mostly not a directory's."""
        kinds = ("file", "symlink", "special") if self._mostly(0.7) else ()
        return self._existing(*kinds)

    def _attributed(self) -> str:
        """Return a name that can have `user.*` attributes."""
        return self._existing("file", "dir")

    def _new(self) -> str:
        """Return a free name."""
        for _ in range(10):
            path = f"{self._rng.choice(self._names.directories())}/{self._rng.choice(NAMES)}"
            if path.count("/") <= DEPTH + 1 and self._names.kind(path) is None:
                return path
        return f"/new{self._rng.randrange(100)}"

    def _anything(self) -> str:
        draw = self._rng.random()
        if draw < 0.4:
            return self._existing()
        if draw < 0.6:
            return self._new()
        if draw < 0.7:
            return f"{self._existing('file', 'symlink')}/{self._rng.choice(NAMES)}"
        if draw < 0.9:
            return self._table_name()
        return f"/{self._rng.choice(NAMES)}/{self._rng.choice(NAMES)}"

    def _path(self, path: str) -> str:
        """Return the argument to pass: mostly `path`, sometimes a strange spelling or another name altogether."""
        if self._mostly(_ASTRAY):
            path = self._anything()
        if self._hostile and self._mostly(_TWISTED):
            return self._twisted(path)
        return path or "/"

    def _twisted(self, path: str) -> str:
        parent, _, name = path.rpartition("/")
        return self._rng.choice(
            (
                path + "/",
                path + "/.",
                path + "/..",
                f"{parent}//{name}",
                f"{parent}/./{name}",
                f"/../{path}",
                f"{path}/{self._rng.choice(NAMES)}/..",
                f"{path}/../{name}",
                "",
                "/",
                "/" + "n" * self._rng.choice((255, 256)),
                parent + "/" + "é" * 128,
                "/." * 2047 + "/x",
                "/." * 2048,
            )
        )

    # Operations on names.

    def on(self, name: str, path: str, *args: Any, **kwargs: Any) -> Op:
        """Return the operation on this path, give or take."""
        return call(name, self._path(path), *args, **kwargs)

    def _mkdir(self) -> Op:
        return self.on("mkdir", self._new(), self._rng.choice((0o755, 0o700, 0o1777)))

    def _rmdir(self) -> Op:
        empty = self._names.empty_directories()
        if empty and self._mostly(0.9):
            return self.on("rmdir", self._rng.choice(empty))
        return self._mkdir() if self._mostly(0.7) else self.on("rmdir", self._existing("dir"))

    def _mknod(self) -> Op:
        kind = self._rng.choice((stat.S_IFREG, stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFCHR, stat.S_IFCHR))
        rdev = self._rng.choice((0, 0x0103, 0x0103)) if kind == stat.S_IFCHR else 0
        return self.on("mknod", self._new(), kind | self._rng.choice((0o644, 0o600)), rdev)

    def _symlink(self) -> Op:
        target = self._rng.choice(("a", "f", "/d", "../x", "d/f", "nowhere", "/a/b", "."))
        return call("symlink", target, self._path(self._new()))

    def _link(self) -> Op:
        return call("link", self._path(self._existing("file", "symlink", "special")), self._path(self._new()),
                    follow_symlinks=False)  # fmt: skip

    def _rename(self) -> Op:
        source = self._movable()
        return call("rename", self._path(source), self._path(self._target(source)))

    def _movable(self) -> str:
        movable = self._names.movable_directories()
        if movable and self._mostly(0.3):
            return self._rng.choice(movable)
        return self._existing("file", "symlink", "special") if self._mostly(0.8) else self._existing()

    def _target(self, source: str) -> str:
        """Return where to move `source`: mostly a free name, or one that it may replace."""
        draw = self._rng.random()
        if draw < 0.5:
            return self._new()
        if draw < 0.85:
            if self._names.kind(source) == "dir":
                return self._one(self._names.empty_directories()) or self._new()
            return self._existing("file", "symlink", "special")
        return self._existing()

    def _renameat2(self) -> Op:
        flags = self._rng.choice((0, RENAME_NOREPLACE, RENAME_NOREPLACE, *(RENAME_EXCHANGE,) * 4))
        source, target = self._movable(), self._new()
        if flags == RENAME_EXCHANGE:
            target = self._movable()
        elif self._mostly(0.3):
            target = self._target(source)
        if self._hostile and self._mostly(0.3):
            flags = self._rng.choice((3, 4, 5, 6, 8))
        return call("renameat2", self._path(source), self._path(target), flags)

    def _listdir(self) -> Op:
        return self.on("listdir", self._rng.choice(self._names.directories()))

    def _stat(self) -> Op:
        return self.on("stat", self._existing("file", "dir", "special") if self._mostly(0.8) else self._existing())

    def _truncate(self) -> Op:
        return self.on("truncate", self._existing("file"), self._size())

    def _chmod(self) -> Op:
        kinds = ("file", "dir", "special") if self._mostly(0.8) else ()
        return self.on("chmod", self._existing(*kinds), self._rng.choice((0o600, 0o755, 0o6755)))

    def _chown(self) -> Op:
        if self._mostly(0.5):
            return self.on("lchown", self._object(), 0, 0)
        return self.on("chown", self._object(), self._rng.choice((0, 5, -1)), 7, follow_symlinks=False)

    def _utime(self) -> Op:
        return self.on("utime", self._object(), follow_symlinks=False, **self._times())

    def _setxattr(self) -> Op:
        name = self._rng.choice(("user.k", "user.q", "trusted.t", "trusted.overlay.opaque", "user.overlay.redirect"))
        path = self._attributed() if name.startswith("user.") else self._object()
        if self._hostile and self._mostly(0.3):
            strange = ("user.", "nonsense", "foo.bar", "user." + "n" * 251, "", "trusted.overlay.overlay.x")
            name = self._rng.choice(strange)
        flags = self._rng.choice((0, 0, 0, 0, os.XATTR_CREATE, os.XATTR_REPLACE))
        return self.on("setxattr", path, name, self._rng.choice((b"", b"v", b"w")), flags, follow_symlinks=False)

    def _xattr(self, verb: str) -> Op:
        """Return `verb` on an attribute: mostly one that is there."""
        attributed = self._names.attributed()
        if attributed and self._mostly(0.8):
            path, name = self._rng.choice(attributed)
        else:
            path = self._attributed()
            name = self._rng.choice(("user.k", "user.q", "trusted.overlay.opaque", "trusted.overlay.origin"))
        return self.on(verb, path, name, follow_symlinks=False)

    def _open(self, path: str, flags: int) -> Op:
        # A fifo without O_NONBLOCK would wait for its other end.
        mode = self._rng.choice((0o644, 0o600))
        return self.on("open", path, flags | os.O_NONBLOCK, mode, slot=self._rng.randrange(SLOTS))

    def _open_file(self) -> Op:
        flags = self._rng.choice((os.O_RDONLY, os.O_RDONLY, os.O_WRONLY, os.O_RDWR, os.O_RDWR))
        for flag, likely in ((os.O_TRUNC, 0.2), (os.O_APPEND, 0.15), (os.O_CREAT, 0.4)):
            flags |= flag if self._mostly(likely) else 0
        path = self._existing("file") if self._mostly(0.9) else self._existing()
        if flags & os.O_CREAT and self._mostly(0.5):
            path, flags = self._new(), flags | (os.O_EXCL if self._mostly(0.4) else 0)
        elif self._mostly(0.05):
            flags |= os.O_EXCL
        if self._hostile:
            for flag in (os.O_DIRECTORY, os.O_NOFOLLOW, os.O_PATH):
                flags |= flag if self._mostly(0.07) else 0
        return self._open(path, flags)

    def _open_dir(self) -> Op:
        if self._hostile and self._mostly(0.1):
            return self._open(self._rng.choice(self._names.directories()), os.O_TMPFILE | os.O_RDWR)
        return self._open(self._rng.choice(self._names.directories()), os.O_RDONLY | os.O_DIRECTORY)

    # Operations on descriptors.

    def on_slot(self, slots: Sequence[Slot], otherwise: int, name: str, *args: Any, **kwargs: Any) -> Op:
        """Return the operation on one of these slots; where there is none mostly open something with these flags."""
        if self._mostly(_ASTRAY):
            return call(name, Slot(self._rng.randrange(SLOTS)), *args, **kwargs)
        if slots:
            return call(name, self._rng.choice(slots), *args, **kwargs)
        if otherwise & os.O_DIRECTORY:
            return self._open_dir()
        return self._open(self._existing("file"), otherwise)

    def _read(self) -> Op:
        return self.on_slot(self._descriptors.files(reads=True), os.O_RDONLY, "read", self._rng.choice((1, 10, 10_000)))

    def _pread(self) -> Op:
        return self.on_slot(self._descriptors.files(reads=True), os.O_RDONLY, "pread", 10_000, self._offset())

    def _write(self) -> Op:
        data = self._rng.choice((b"", b"W", b"written", b"y" * 300))
        return self.on_slot(self._descriptors.files(writes=True), os.O_RDWR, "write", data)

    def _pwrite(self) -> Op:
        return self.on_slot(self._descriptors.files(writes=True), os.O_RDWR, "pwrite", b"P", self._offset())

    def _ftruncate(self) -> Op:
        return self.on_slot(self._descriptors.files(writes=True), os.O_RDWR, "ftruncate", self._size())

    def _lseek(self) -> Op:
        whence = self._rng.choice((os.SEEK_SET, os.SEEK_CUR, os.SEEK_END))
        if self._mostly(0.2):
            return self.on_slot(
                self._descriptors.files(), os.O_RDONLY, "lseek", 0, self._rng.choice((os.SEEK_DATA, os.SEEK_HOLE))
            )
        op = self.on_slot(self._descriptors.files(), os.O_RDONLY, "lseek", self._offset(), whence)
        if op.args[0] in self._descriptors.directories():
            # Places in a directory of one layer are that layer's affair: all of tmpfs's are before 5000.
            return op._replace(args=(op.args[0], self._rng.choice((0, 5000)), whence))
        return op

    def on_any_slot(self, name: str, *args: Any, **kwargs: Any) -> Op:
        """Return an operation that any descriptor allows."""
        return self.on_slot(self._descriptors.all(), os.O_RDONLY, name, *args, **kwargs)

    def _list_slot(self) -> Op:
        return self.on_slot(self._descriptors.directories(), os.O_DIRECTORY, "listdir")

    # Operations of the kernel's tables, on the names planted for them.

    def _table_name(self) -> str:
        """Return a name with a state, or one in the root that is free or may be."""
        return self._rng.choice(self._planted) if self._planted and self._mostly(0.9) else self._spare()

    def _spare(self) -> str:
        return f"/{self._rng.choice(PLANTED)}"

    def _table_a(self) -> Op:
        return self._rng.choice(_TABLE_A)(self, self._table_name())

    def _table_b(self) -> Op:
        sources = [path for path in self._planted if self._names.kind(path) is not None]
        source = self._one(sources) or self._spare()
        others = [path for path in self._planted if path != source]
        return call("rename", source, self._rng.choice(others) if others and self._mostly(0.85) else self._spare())

    # Arguments.

    def _times(self) -> dict[str, Any]:
        return {"ns": (self._rng.randrange(10**9), self._rng.randrange(10**18))}

    def _size(self) -> int:
        return self._rng.choice((0, 1, 3, 10, 5000, 100_000) + ((-1,) if self._hostile else ()))

    def _offset(self) -> int:
        return self._rng.choice((0, 1, 3, 4096, 5000) + ((-1,) if self._hostile else ()))


_Maker = Callable[[Operations], Op]


def _opening(flags: int) -> Callable[[Operations, str], Op]:
    return lambda self, path: call("open", path, flags | os.O_NONBLOCK, 0o644, slot=self._rng.randrange(SLOTS))


_TABLE_A: Final[tuple[Callable[[Operations, str], Op], ...]] = (
    lambda self, path: call("unlink", path),
    lambda self, path: call("rmdir", path),
    lambda self, path: call("mkdir", path, 0o755),
    _opening(os.O_RDWR | os.O_CREAT | os.O_EXCL),
    _opening(os.O_RDWR | os.O_CREAT),
    _opening(os.O_RDONLY),
    _opening(os.O_WRONLY),
    _opening(os.O_RDONLY | os.O_TRUNC),
    _opening(os.O_WRONLY | os.O_TRUNC),
    _opening(os.O_WRONLY | os.O_APPEND),
    lambda self, path: call("mknod", path, stat.S_IFREG | 0o644),
    lambda self, path: call("mknod", path, stat.S_IFIFO | 0o644),
    lambda self, path: call("mknod", path, stat.S_IFCHR | 0o644, 0),
    lambda self, path: call("symlink", "anywhere", path),
    lambda self, path: call("truncate", path, 2),
    lambda self, path: call("chmod", path, 0o600),
    lambda self, path: call("lchown", path, 0, 0),
    lambda self, path: call("utime", path, follow_symlinks=False, **self._times()),
    lambda self, path: call("setxattr", path, "user.q", b"1", follow_symlinks=False),
    lambda self, path: call("removexattr", path, "user.k", follow_symlinks=False),
    lambda self, path: call("removexattr", path, "user.absent", follow_symlinks=False),
    lambda self, path: call("link", path, self._new(), follow_symlinks=False),
    lambda self, path: call("rename", path, self._new()),
    lambda self, path: call("readlink", path),
    lambda self, path: call("listdir", path),
    lambda self, path: call("lstat", path),
)
"""The operations of KB's table A."""

_WEIGHTS: Final[tuple[tuple[_Maker, int], ...]] = (
    (Operations._mkdir, 12),
    (Operations._open_file, 26),
    (Operations._open_dir, 5),
    (Operations._mknod, 5),
    (Operations._symlink, 5),
    (lambda self: self.on("unlink", self._existing("file", "symlink", "special")), 14),
    (Operations._rmdir, 16),
    (Operations._rename, 32),
    (Operations._renameat2, 8),
    (Operations._link, 9),
    (Operations._listdir, 7),
    (lambda self: self.on("lstat", self._existing()), 10),
    (Operations._stat, 6),
    (lambda self: self.on("readlink", self._existing("symlink")), 5),
    (Operations._truncate, 5),
    (Operations._chmod, 6),
    (Operations._chown, 7),
    (Operations._utime, 4),
    (lambda self: self.on("access", self._object(), self._rng.choice((os.R_OK, os.W_OK, os.X_OK))), 2),
    (Operations._setxattr, 9),
    (lambda self: self._xattr("getxattr"), 3),
    (lambda self: self.on("listxattr", self._object(), follow_symlinks=False), 2),
    (lambda self: self._xattr("removexattr"), 9),
    (lambda self: self.on("statvfs", self._existing("file", "dir")), 1),
    (Operations._read, 6),
    (Operations._pread, 6),
    (Operations._write, 12),
    (Operations._pwrite, 5),
    (Operations._lseek, 5),
    (Operations._ftruncate, 5),
    (lambda self: self.on_any_slot("fstat"), 8),
    (lambda self: self.on_any_slot("fchmod", 0o640), 3),
    (lambda self: self.on_any_slot("fchown", -1, 5), 2),
    (lambda self: self.on_any_slot("utime", **self._times()), 2),
    (lambda self: self.on_any_slot("setxattr", "user.q", b"by descriptor"), 2),
    (lambda self: self.on_any_slot("listxattr"), 1),
    (lambda self: self.on_any_slot("fsync"), 2),
    (lambda self: self.on_any_slot("close"), 2),
    (Operations._list_slot, 2),
    (Operations._table_a, 10),
    (Operations._table_b, 5),
)

_CREDENTIAL_WEIGHTS: Final[tuple[tuple[_Maker, int], ...]] = (
    (lambda self: call("seteuid", self._rng.choice((0, 0, 5, 7))), 50),
    (lambda self: call("setegid", self._rng.choice(IDS)), 15),
    (lambda self: call("setgroups", self._rng.choice(([], [5], [7], [5, 7]))), 15),
    (lambda self: call("umask", self._rng.choice((0o022, 0, 0o077, 0o002))), 5),
    (lambda self: self.on("chmod", self._existing(), self._rng.randrange(0o10000)), 10),
    (
        lambda self: self.on("chown", self._existing(), self._rng.choice((-1, 0, 5, 7)), self._rng.choice((-1, *IDS))),
        10,
    ),
    (lambda self: self.on("utime", self._existing()), 5),
    (lambda self: self.on_any_slot("fchown", self._rng.choice((-1, 5)), self._rng.choice((-1, *IDS))), 5),
    (lambda self: self.on("access", self._existing(), self._rng.randrange(8)), 5),
    (lambda self: self.on("access", self._existing(), self._rng.randrange(8), effective_ids=True), 7),
)
