"""Random stacks and random operations on them: what the lockstep test feeds to the kernel and to the engine.

Everything is drawn from a `random.Random`, so that a seed reproduces it and Hypothesis can drive it (`st.randoms`).
Operations are drawn knowing roughly which names there are, so that most of them succeed; `hostile` adds arguments
that no sane program passes.
"""

import os
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final

from overlayvfs.testing.ops import Op, Outcome, Slot, call
from overlayvfs.testing.stacks import Stack
from overlayvfs.testing.trees import (
    WHITEOUT,
    Directory,
    Node,
    Tree,
    Whiteout,
    device,
    directory,
    fifo,
    file,
    hardlink,
    normal,
    symlink,
)

NAMES: Final = ("a", "b", "d", "e", "f", "x")
"""Few names, so that layers and operations meet in them."""

DEPTH: Final = 3
SLOTS: Final = 3


@dataclass(frozen=True, slots=True)
class Profile:
    """What kind of stacks and operations to draw."""

    options: Mapping[str, str | bool] = field(default_factory=dict)
    separate: bool | None = None
    hostile: bool = False
    marks: bool = False
    """Put redirects and other hand-made marks into the layers."""
    read_only: bool = False


def random_stack(rng: Random, profile: Profile) -> Stack:
    """Return 1 to 4 lowers and a pre-populated upper, with whiteouts and opaque directories in any layer."""
    lowers = [_random_tree(rng, profile) for _ in range(rng.choice((1, 1, 2, 2, 3, 4)))]
    if profile.read_only:
        while len(lowers) < 2:
            lowers.append(_random_tree(rng, profile))
        return Stack(lowers, None, profile.options, profile.separate)
    upper = _random_tree(rng, profile, sparse=True) if rng.random() < 0.5 else {}
    return Stack(lowers, without_unlisted_whiteouts(lowers, upper), profile.options, profile.separate)


def _random_tree(rng: Random, profile: Profile, *, sparse: bool = False) -> Tree:
    tree: dict[str, Node] = {}
    _fill(rng, profile, tree, "", 1, sparse)
    return tree


def _fill(rng: Random, profile: Profile, tree: dict[str, Node], parent: str, depth: int, sparse: bool) -> None:
    likely = (0.3 if sparse else 0.5) / (1 if depth == 1 else 1.3)
    for name in NAMES:
        if rng.random() > likely:
            continue
        path = f"{parent}/{name}"
        # Names lean to a kind, so that layers often agree; often enough they don't.
        wants_dir = (name in "abde") == (rng.random() < 0.8)
        if rng.random() < 0.15:
            tree[path] = WHITEOUT
        elif wants_dir and depth < DEPTH:
            tree[path] = _random_directory(rng, profile)
            _fill(rng, profile, tree, path, depth + 1, sparse)
        else:
            tree[path] = _random_object(rng, tree)


def _random_directory(rng: Random, profile: Profile) -> Node:
    mode = rng.choice((0o755,) * 6 + (0o700, 0o2775, 0o1777))
    marks: dict[str, Any] = {"opaque": True} if rng.random() < 0.15 else {}
    if profile.marks and rng.random() < 0.25:
        marks["redirect"] = rng.choice(("a", "d", "x", "/a", "/d", "/a/b", "/d/e", "/e/d/a", "/f"))
    return directory(mode=mode, **marks)


def _random_object(rng: Random, tree: Mapping[str, Node]) -> Node:
    files = [path for path, node in tree.items() if node.CALL == "file"]
    if files and rng.random() < 0.15:
        return hardlink(rng.choice(files))
    draw = rng.random()
    if draw < 0.2:
        return symlink(rng.choice(("a", "f", "d", "../f", "/d", "/a/f", "d/e", "nowhere", ".", "x")))
    if draw < 0.25:
        return fifo()
    if draw < 0.28:
        return device()
    data = rng.choice((b"", b"abc", b"0123456789", b"x" * 300))
    xattrs = {"user.k": b"v"} if rng.random() < 0.3 else {}
    return file(data, mode=rng.choice((0o644, 0o644, 0o600, 0o4755)), uid=rng.choice((0, 0, 7)), xattrs=xattrs)


def without_unlisted_whiteouts(lowers: list[Tree], upper: Tree) -> Tree:
    """Return `upper` without whiteouts in directories that only it contributes to.

    There Linux counts them as entries and we don't (the design's first difference on purpose), which is for tests of
    its own and would only make every later step differ here.
    """
    nodes = normal(upper)
    layers = [normal(tree) for tree in lowers]
    return {
        path: node
        for path, node in nodes.items()
        if path and not (isinstance(node, Whiteout) and not _contributors(layers, nodes, path.rpartition("/")[0]))
    }


def _contributors(lowers: list[dict[str, Node]], upper: dict[str, Node], path: str) -> list[dict[str, Node]]:
    """Return the lowers merged with the upper's directory at `path` (redirects left aside)."""
    if not path:
        return lowers
    if upper[path].marks.get("opaque") == b"y" or "redirect" in upper[path].marks:
        return []
    merged: list[dict[str, Node]] = []
    for nodes in _contributors(lowers, upper, path.rpartition("/")[0]):
        node = nodes.get(path)
        if node is None:
            continue
        if not isinstance(node, Directory):
            break
        merged.append(nodes)
        if node.marks.get("opaque") == b"y":
            break
    return merged


class Operations:
    """Draws operations; learns from their outcomes which names there are."""

    def __init__(self, rng: Random, stack: Stack, profile: Profile) -> None:
        self._rng = rng
        self._profile = profile
        self._dirs: set[str] = {""}
        self._others: set[str] = set()
        layers = [*stack.lowers, *([] if stack.upper is None else [stack.upper])]
        for tree in layers:
            for path, node in normal(tree).items():
                if isinstance(node, Directory):
                    self._dirs.add(path)
                elif not isinstance(node, Whiteout):
                    self._others.add(path)
        self._open: list[Slot] = []
        self._makers = [maker for maker, weight in _WEIGHTS for _ in range(weight)]

    def draw(self) -> Op:
        """Return the next operation."""
        return self._rng.choice(self._makers)(self)

    def learn(self, op: Op, outcome: Outcome) -> None:
        """Take note of what an operation did."""
        if outcome.error is not None:
            if outcome.error == "ENOENT" and op.args and isinstance(op.args[0], str):
                self._forget(op.args[0].rstrip("/"))
            return
        paths = [arg.rstrip("/") for arg in op.args if isinstance(arg, str)]
        if op.name in ("unlink", "rmdir"):
            self._forget(paths[0])
        elif op.name == "mkdir":
            self._dirs.add(paths[0])
        elif op.name in ("mknod", "symlink", "link"):
            self._others.add(paths[-1])
        elif op.name == "open":
            if op.args[1] & os.O_CREAT:
                self._others.add(paths[0])
            if op.slot is not None and op.slot not in self._open:
                self._open.append(op.slot)
        elif op.name in ("rename", "renameat2") and paths[0] != paths[1]:
            self._move(paths[0], paths[1])

    def _forget(self, path: str) -> None:
        if path:
            self._dirs = {one for one in self._dirs if one != path and not one.startswith(path + "/")}
            self._others = {one for one in self._others if one != path and not one.startswith(path + "/")}

    def _move(self, old: str, new: str) -> None:
        dirs = {one for one in self._dirs if one == old or one.startswith(old + "/")}
        others = {one for one in self._others if one == old or one.startswith(old + "/")}
        self._forget(new)
        self._forget(old)
        self._dirs |= {new + one[len(old) :] for one in dirs}
        self._others |= {new + one[len(old) :] for one in others}

    def _directory(self) -> str:
        return self._twisted(self._rng.choice(sorted(self._dirs)))

    def _existing(self) -> str:
        pool = sorted(self._others) if self._others and self._rng.random() < 0.7 else sorted(self._dirs)
        return self._twisted(self._rng.choice(pool))

    def _file(self) -> str:
        if not self._others or self._rng.random() < 0.1:
            return self._any()
        return self._twisted(self._rng.choice(sorted(self._others)))

    def _new(self) -> str:
        path = f"{self._rng.choice(sorted(self._dirs))}/{self._rng.choice(NAMES)}"
        if path.count("/") > DEPTH + 1:
            path = "/" + self._rng.choice(NAMES)
        return self._twisted(path)

    def _any(self) -> str:
        return self._existing() if self._rng.random() < 0.6 else self._new()

    def _twisted(self, path: str) -> str:
        """Return a path as one would write it or, if hostile arguments are wanted, as one would not."""
        if not self._profile.hostile or self._rng.random() > 0.15:
            return path or "/"
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

    def _slot(self) -> Slot:
        if self._open and self._rng.random() < 0.9:
            return self._rng.choice(self._open)
        return Slot(self._rng.randrange(SLOTS))

    def _open_file(self) -> Op:
        rng = self._rng
        flags = rng.choice((os.O_RDONLY, os.O_RDONLY, os.O_WRONLY, os.O_RDWR, os.O_RDWR))
        for flag, likely in ((os.O_CREAT, 0.4), (os.O_TRUNC, 0.2), (os.O_EXCL, 0.1), (os.O_APPEND, 0.15)):
            flags |= flag if rng.random() < likely else 0
        if self._profile.hostile:
            for flag in (os.O_DIRECTORY, os.O_NOFOLLOW, os.O_PATH):
                flags |= flag if rng.random() < 0.1 else 0
        path = self._any() if flags & os.O_CREAT else self._file()
        # A fifo without O_NONBLOCK would wait for its other end.
        return call("open", path, flags | os.O_NONBLOCK, rng.choice((0o644, 0o600)), slot=rng.randrange(SLOTS))

    def _open_dir(self) -> Op:
        return call("open", self._directory(), os.O_RDONLY | os.O_DIRECTORY, slot=self._rng.randrange(SLOTS))

    def _mknod(self) -> Op:
        kind = self._rng.choice((stat.S_IFREG, stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFCHR))
        rdev = self._rng.choice((0, 0x0103)) if kind == stat.S_IFCHR else 0
        return call("mknod", self._new(), kind | 0o644, rdev)

    def _symlink(self) -> Op:
        target = self._rng.choice(("a", "f", "/d", "../x", "d/f", "nowhere", "/a/b", "."))
        return call("symlink", target, self._new())

    def _rename_dir(self) -> Op:
        return call("rename", self._directory(), self._any())

    def _renameat2(self) -> Op:
        flags = self._rng.choice((0, 1, 1, 2, 2, 2, 2))
        if self._profile.hostile:
            flags = self._rng.choice((flags, 3, 4, 5, 6, 8))
        target = self._existing() if flags & 2 else self._any()
        return call("renameat2", self._existing(), target, flags)

    def _setxattr(self) -> Op:
        name = self._rng.choice(("user.k", "user.q", "trusted.t", "trusted.overlay.opaque", "user.overlay.redirect"))
        if self._profile.hostile:
            name = self._rng.choice(
                (name, "user.", "nonsense", "foo.bar", "user." + "n" * 251, "", "trusted.overlay.overlay.x")
            )
        flags = self._rng.choice((0, 0, os.XATTR_CREATE, os.XATTR_REPLACE))
        return call(
            "setxattr", self._existing(), name, self._rng.choice((b"", b"v", b"w")), flags, follow_symlinks=False
        )

    def _xattr_name(self) -> str:
        return self._rng.choice(("user.k", "user.q", "trusted.t", "trusted.overlay.opaque", "trusted.overlay.origin"))

    def _times(self) -> dict[str, Any]:
        return {"ns": (self._rng.randrange(10**9), self._rng.randrange(10**18))}

    def _truncate_size(self) -> int:
        return self._rng.choice((0, 1, 3, 10, 5000, 100_000) + ((-1,) if self._profile.hostile else ()))

    def _offset(self) -> int:
        return self._rng.choice((0, 1, 3, 4096, 5000) + ((-1,) if self._profile.hostile else ()))


_Maker = Callable[[Operations], Op]


def _mkdir(self: Operations) -> Op:
    return call("mkdir", self._new(), self._rng.choice((0o755, 0o700, 0o1777)))


_WEIGHTS: Final[tuple[tuple[_Maker, int], ...]] = (
    (_mkdir, 6),
    (Operations._open_file, 14),
    (Operations._open_dir, 2),
    (Operations._mknod, 2),
    (Operations._symlink, 2),
    (lambda self: call("unlink", self._file()), 8),
    (lambda self: call("rmdir", self._directory()), 5),
    (lambda self: call("rename", self._existing(), self._any()), 8),
    (Operations._rename_dir, 4),
    (Operations._renameat2, 3),
    (lambda self: call("link", self._existing(), self._new(), follow_symlinks=False), 4),
    (lambda self: call("listdir", self._directory()), 3),
    (lambda self: call("lstat", self._any()), 4),
    (lambda self: call("stat", self._existing()), 3),
    (lambda self: call("readlink", self._existing()), 1),
    (lambda self: call("truncate", self._file(), self._truncate_size()), 2),
    (lambda self: call("chmod", self._existing(), self._rng.choice((0o600, 0o755, 0o6755))), 3),
    (lambda self: call("chown", self._existing(), self._rng.choice((0, 5, -1)), 7, follow_symlinks=False), 2),
    (lambda self: call("utime", self._existing(), follow_symlinks=False, **self._times()), 2),
    (lambda self: call("access", self._existing(), self._rng.choice((os.R_OK, os.W_OK, os.X_OK))), 1),
    (Operations._setxattr, 4),
    (lambda self: call("getxattr", self._existing(), self._xattr_name(), follow_symlinks=False), 1),
    (lambda self: call("listxattr", self._existing(), follow_symlinks=False), 1),
    (lambda self: call("removexattr", self._existing(), self._xattr_name(), follow_symlinks=False), 2),
    (lambda self: call("statvfs", self._existing()), 1),
    (lambda self: call("read", self._slot(), self._rng.choice((1, 10, 10_000))), 3),
    (lambda self: call("pread", self._slot(), 10_000, self._offset()), 3),
    (lambda self: call("write", self._slot(), self._rng.choice((b"", b"W", b"written", b"y" * 300))), 5),
    (lambda self: call("pwrite", self._slot(), b"P", self._offset()), 2),
    (lambda self: call("lseek", self._slot(), self._offset(), self._rng.choice((0, 1, 2))), 2),
    (lambda self: call("ftruncate", self._slot(), self._truncate_size()), 2),
    (lambda self: call("fstat", self._slot()), 3),
    (lambda self: call("fchmod", self._slot(), 0o640), 1),
    (lambda self: call("fsync", self._slot()), 1),
    (lambda self: call("close", self._slot()), 1),
)
