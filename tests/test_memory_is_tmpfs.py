"""The memory layer beside a real tmpfs: the same verbs must give the same results, errnos and trees."""

import ctypes
import errno
import json
import os
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from overlayvfs.abi import RENAME_EXCHANGE, RENAME_NOREPLACE, RENAME_WHITEOUT, SEEK_DATA, SEEK_HOLE
from overlayvfs.layers.memory import MemoryLayer, Superblock

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="tmpfs is Linux's")

ROOT = hasattr(os, "geteuid") and os.geteuid() == 0
AT_FDCWD = -100


class Tmpfs:
    """A directory of a real tmpfs, driven by the layer's verbs."""

    def __init__(self, root: Path) -> None:
        self.root = str(root)
        self.fds: list[int] = []
        self.libc = ctypes.CDLL(None, use_errno=True)

    def at(self, path: str) -> str:
        above = path.rpartition("/")[0]
        while above:
            if os.path.islink(self.root + above):
                return "/dev/null/ENOTDIR"  # A layer follows no symlink.
            above = above.rpartition("/")[0]
        return self.root + path

    def create(self, path: str, mode: int) -> None:
        self.fds.append(os.open(self.at(path), os.O_RDWR | os.O_CREAT | os.O_EXCL, mode))

    def open(self, path: str) -> None:
        # A layer follows no symlink, and opens what is no regular file for its attributes only.
        if not stat.S_ISREG(os.lstat(self.at(path)).st_mode):
            raise OSError(errno.ELOOP, "the sequences open regular files")
        self.fds.append(os.open(self.at(path), os.O_RDWR))

    def close(self, index: int) -> None:
        os.close(self.fds.pop(index % len(self.fds)))

    def pwrite(self, index: int, size: int, offset: int) -> int:
        return os.pwrite(self.fds[index % len(self.fds)], b"x" * size, offset)

    def truncate(self, index: int, size: int) -> None:
        # A handle's truncate is truncate(2): what ftruncate(2) stamps besides is the engine's to do.
        os.truncate(f"/proc/self/fd/{self.fds[index % len(self.fds)]}", size)

    def fstat(self, index: int) -> tuple[int, ...]:
        return facts(os.fstat(self.fds[index % len(self.fds)]))

    def fsetxattr(self, index: int, name: str, size: int) -> None:
        os.setxattr(self.fds[index % len(self.fds)], name, b"v" * size)

    def mkdir(self, path: str, mode: int) -> None:
        os.mkdir(self.at(path), mode)
        os.chmod(self.at(path), mode)

    def mknod(self, path: str, mode: int, rdev: int) -> None:
        os.mknod(self.at(path), mode, rdev)

    def symlink(self, target: str, path: str) -> None:
        os.symlink(target, self.at(path))

    def link(self, src: str, dst: str) -> None:
        os.link(self.at(src), self.at(dst), follow_symlinks=False)

    def unlink(self, path: str) -> None:
        os.unlink(self.at(path))

    def rmdir(self, path: str) -> None:
        os.rmdir(self.at(path))

    def rename(self, src: str, dst: str, flags: int) -> None:
        paths = [os.fsencode(self.at(path)) for path in (src, dst)]
        if self.libc.renameat2(AT_FDCWD, paths[0], AT_FDCWD, paths[1], flags):
            raise OSError(ctypes.get_errno(), "renameat2")

    def chmod(self, path: str, mode: int) -> None:
        if stat.S_ISLNK(os.lstat(self.at(path)).st_mode):
            raise OSError(errno.ELOOP, "Linux has no lchmod")
        os.chmod(self.at(path), mode)

    def chown(self, path: str, uid: int, gid: int) -> None:
        mode = os.lstat(self.at(path)).st_mode
        os.chown(self.at(path), uid, gid, follow_symlinks=False)
        if not stat.S_ISLNK(mode):
            os.chmod(self.at(path), stat.S_IMODE(mode))  # A layer's chown clears no set-id bits.

    def utime(self, path: str, atime_ns: int, mtime_ns: int) -> None:
        os.utime(self.at(path), ns=(atime_ns, mtime_ns), follow_symlinks=False)

    def setxattr(self, path: str, name: str, size: int, flags: int) -> None:
        os.lstat(self.at(path))  # The kernel checks arguments first; a layer's verbs begin with the path.
        os.setxattr(self.at(path), name, b"v" * size, flags, follow_symlinks=False)

    def removexattr(self, path: str, name: str) -> None:
        os.lstat(self.at(path))
        os.removexattr(self.at(path), name, follow_symlinks=False)

    def getxattr(self, path: str, name: str) -> bytes:
        os.lstat(self.at(path))
        return os.getxattr(self.at(path), name, follow_symlinks=False)

    def readlink(self, path: str) -> str:
        return os.readlink(self.at(path))

    def lstat(self, path: str) -> tuple[int, ...]:
        return facts(os.lstat(self.at(path)))

    def seek_extent(self, index: int, offset: int, whence: int) -> int:
        return os.lseek(self.fds[index % len(self.fds)], offset, whence)

    def tree(self) -> dict[str, Any]:
        seen: dict[int, str] = {}
        return self._tree("", seen)

    def _tree(self, path: str, seen: dict[int, str]) -> dict[str, Any]:
        st_ = os.lstat(self.at(path))
        xattrs = [
            (name, os.getxattr(self.at(path), name, follow_symlinks=False))
            for name in os.listxattr(self.at(path), follow_symlinks=False)
        ]
        found: dict[str, Any] = {path: (*facts(st_), xattrs, seen.setdefault(st_.st_ino, path))}
        if stat.S_ISREG(st_.st_mode):
            with open(self.at(path), "rb") as file:
                found[path] += (hash(file.read()),)
        elif stat.S_ISLNK(st_.st_mode):
            found[path] += (os.readlink(self.at(path)),)
        elif stat.S_ISDIR(st_.st_mode):
            names = os.listdir(self.at(path))
            found[path] += (names,)
            for name in names:
                found |= self._tree(f"{path}/{name}", seen)
        return found

    def done(self) -> None:
        for fd in self.fds:
            os.close(fd)


class Memory:
    """The same verbs on a memory layer, which may be replaced by its snapshot at any moment."""

    def __init__(self) -> None:
        self.layer = MemoryLayer()
        self.handles: list[Any] = []
        self.me = (os.geteuid(), os.getegid())
        self.layer.chmod("", 0o700)
        self.layer.chown("", *self.me)

    def create(self, path: str, mode: int) -> None:
        self.handles.append(self.layer.create(path, mode, *self.me))

    def open(self, path: str) -> None:
        if not stat.S_ISREG(self.layer.lstat(path).st_mode):
            raise OSError(errno.ELOOP, "the sequences open regular files")
        self.handles.append(self.layer.open(path, writable=True))

    def close(self, index: int) -> None:
        self.handles.pop(index % len(self.handles)).close()

    def pwrite(self, index: int, size: int, offset: int) -> Any:
        return self.handles[index % len(self.handles)].pwrite(b"x" * size, offset)

    def truncate(self, index: int, size: int) -> None:
        self.handles[index % len(self.handles)].truncate(size)

    def fstat(self, index: int) -> tuple[int, ...]:
        return facts(self.handles[index % len(self.handles)].stat())

    def setxattr(self, path: str, name: str, size: int, flags: int) -> None:
        self.layer.setxattr(path, name, b"v" * size, flags)

    def fsetxattr(self, index: int, name: str, size: int) -> None:
        self.handles[index % len(self.handles)].setxattr(name, b"v" * size)

    def mkdir(self, path: str, mode: int) -> None:
        self.layer.mkdir(path, mode, *self.me)

    def mknod(self, path: str, mode: int, rdev: int) -> None:
        self.layer.mknod(path, mode, rdev, *self.me)

    def symlink(self, target: str, path: str) -> None:
        self.layer.symlink(target, path, *self.me)

    def link(self, src: str, dst: str) -> None:
        self.layer.link(src, dst)

    def chmod(self, path: str, mode: int) -> None:
        if stat.S_ISLNK(self.layer.lstat(path).st_mode):
            raise OSError(errno.ELOOP, "Linux has no lchmod")
        self.layer.chmod(path, mode)

    def lstat(self, path: str) -> tuple[int, ...]:
        return facts(self.layer.lstat(path))

    def seek_extent(self, index: int, offset: int, whence: int) -> Any:
        return self.handles[index % len(self.handles)].seek_extent(offset, whence)

    def __getattr__(self, verb: str) -> Any:
        return getattr(self.layer, verb)

    def tree(self) -> dict[str, Any]:
        seen: dict[int, str] = {}
        return self._tree("", seen)

    def _tree(self, path: str, seen: dict[int, str]) -> dict[str, Any]:
        st_ = self.layer.lstat(path)
        xattrs = [(name, self.layer.getxattr(path, name)) for name in self.layer.listxattr(path)]
        found: dict[str, Any] = {path: (*facts(st_), xattrs, seen.setdefault(st_.st_ino, path))}
        if stat.S_ISREG(st_.st_mode):
            handle = self.layer.open(path)
            found[path] += (hash(handle.pread(st_.st_size + 1, 0)),)
            handle.close()
        elif stat.S_ISLNK(st_.st_mode):
            found[path] += (self.layer.readlink(path),)
        elif stat.S_ISDIR(st_.st_mode):
            names = [entry.d_name for entry in self.layer.listdir(path)]
            assert sorted(names) == sorted(self.layer.names(path))
            found[path] += (names,)
            for name in names:
                found |= self._tree(f"{path}/{name}", seen)
        return found


def facts(st_: Any) -> tuple[int, ...]:
    return (st_.st_mode, st_.st_nlink, st_.st_uid, st_.st_gid, st_.st_size, st_.st_blocks, st_.st_rdev, st_.st_blksize)


def outcome(verb: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    try:
        return verb(*args)
    except OSError as error:
        return errno.errorcode[error.errno or 0]


def tmpfs_root() -> str | None:
    """Return a directory of a tmpfs this user can write to."""
    for line in Path("/proc/mounts").read_text().splitlines():
        _, where, kind, options, *_ = line.split()
        if kind == "tmpfs" and "rw" in options.split(",") and os.access(where, os.W_OK | os.X_OK):
            return where
    return None


@pytest.fixture(scope="module")
def root() -> Iterator[Path]:
    where = tmpfs_root()
    if where is None:
        pytest.skip("no writable tmpfs is mounted here")
    old = os.umask(0)
    try:
        with tempfile.TemporaryDirectory(dir=where) as made:
            yield Path(made)
    finally:
        os.umask(old)


paths = st.builds("".join, st.lists(st.sampled_from(["/a", "/b", "/c"]), min_size=1, max_size=3))
long_names = st.sampled_from(["/a/" + "n" * 255, "/a/" + "n" * 256, "/" + "é" * 128])
index = st.integers(0, 3)
sizes = st.one_of(
    st.integers(0, 20), st.integers(0, 30_000), st.sampled_from([4095, 4096, 4097, 8192, 70_000, 200_000])
)
# A layer asks for no permission and clears no set-id bits: what Linux does to others than root is left out for them.
modes = st.sampled_from([0o755, 0o700, 0o1777] + [0o4755, 0o2755, 0o644, 0] * ROOT)
namespaces = ["user."] + ["security.", "trusted."] * ROOT
xattr_names = st.one_of(
    st.builds(str.__add__, st.sampled_from(namespaces), st.sampled_from(["", "a", "b", "overlay.opaque"])),
    st.sampled_from(["", "user", "foo.a", "system.a", "user." + "n" * 250, "user." + "n" * 251]),
)
values = st.sampled_from([0, 1, 1000, 65537])
kinds = st.sampled_from([stat.S_IFREG, stat.S_IFIFO, stat.S_IFSOCK] + [stat.S_IFCHR, stat.S_IFBLK] * ROOT)
renames = st.sampled_from([0, 0, 0, RENAME_NOREPLACE, RENAME_EXCHANGE] + [RENAME_WHITEOUT] * ROOT)
owners = st.sampled_from([-1, 0, 7]) if ROOT else st.just(-1)

verbs = st.one_of(
    st.tuples(st.just("create"), st.one_of(paths, paths, long_names), modes),
    st.tuples(st.just("mkdir"), st.one_of(paths, paths, paths, long_names), modes),
    st.tuples(st.just("pwrite"), index, sizes, sizes),
    st.tuples(st.just("truncate"), index, sizes),
    st.tuples(st.just("close"), index),
    st.tuples(st.just("open"), paths),
    st.tuples(st.just("fstat"), index),
    st.tuples(st.just("fsetxattr"), index, st.just("user.f"), values),
    st.tuples(st.just("seek_extent"), index, sizes, st.sampled_from([SEEK_DATA, SEEK_HOLE])),
    st.tuples(st.just("mknod"), paths, st.builds(int.__or__, kinds, modes), st.sampled_from([0, 0x0105])),
    st.tuples(st.just("symlink"), st.sampled_from(["t", "a/b", "é" * 63, "é" * 64, "t" * 127, "t" * 4095]), paths),
    st.tuples(st.just("link"), paths, paths),
    st.tuples(st.just("unlink"), paths),
    st.tuples(st.just("rmdir"), paths),
    st.tuples(st.just("rename"), paths, paths, renames),
    st.tuples(st.just("rename"), paths, paths, renames),
    st.tuples(st.just("chmod"), paths, modes),
    st.tuples(st.just("chown"), paths, owners, owners),
    st.tuples(st.just("setxattr"), paths, xattr_names, values, st.sampled_from([0, 0, 1, 2, 3, 4])),
    st.tuples(st.just("removexattr"), paths, xattr_names),
    st.tuples(st.just("getxattr"), paths, xattr_names),
    st.tuples(st.just("readlink"), paths),
    st.tuples(st.just("lstat"), paths),
    st.tuples(st.just("snapshot"), st.booleans()),
)
HANDLE_VERBS = {"pwrite", "truncate", "close", "fstat", "fsetxattr", "seek_extent"}


def play(root: Path, plan: list[tuple[Any, ...]]) -> tuple[int, int]:
    """Play `plan` on both, comparing as it goes; return how many verbs succeeded, of how many."""
    succeeded = 0
    played = 0
    with tempfile.TemporaryDirectory(dir=root) as made:
        real, ours = Tmpfs(Path(made)), Memory()
        try:
            for verb, *args in plan:
                if verb == "snapshot":
                    # The copy goes on as if it were the original; with open files only the original has them.
                    kept = ours.layer.snapshot()
                    if args[0] and not ours.handles:
                        ours.layer = kept
                    continue
                if verb in HANDLE_VERBS and not ours.handles:
                    continue
                want = outcome(getattr(real, verb), tuple(args))
                got = outcome(getattr(ours, verb), tuple(args))
                assert got == want, f"{verb}{tuple(args)}: tmpfs {want}, memory {got}"
                assert ours.tree() == real.tree(), f"after {verb}{tuple(args)}"
                played += 1
                succeeded += not (isinstance(got, str) and got.startswith("E") and got.isupper())
        finally:
            real.done()
    return succeeded, played


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(plan=st.lists(verbs, min_size=5, max_size=40))
def test_any_sequence_gives_the_same_results_and_tree(root: Path, plan: list[tuple[Any, ...]]) -> None:
    setup = [("mkdir", "/a", 0o755), ("mkdir", "/a/b", 0o755), ("create", "/b", 0o644), ("create", "/a/c", 0o644)]
    play(root, [*setup, *plan])


def test_the_sequences_mostly_succeed(root: Path) -> None:
    plan = [
        ("mkdir", "/a", 0o755),
        ("create", "/a/b", 0o644),
        ("pwrite", 0, 10, 5000),
        ("symlink", "b", "/a/c"),
        ("link", "/a/b", "/b"),
        ("rename", "/a", "/c", 0),
        ("rmdir", "/c"),
    ]
    assert play(root, plan) == (6, 7)


STAMPED: list[tuple[str, tuple[Any, ...]]] = [
    ("create", ("/d/new", 0o644)),
    ("mkdir", ("/d/new", 0o755)),
    ("mknod", ("/d/new", stat.S_IFIFO | 0o644, 0)),
    ("symlink", ("t", "/d/new")),
    ("link", ("/f", "/d/new")),
    ("unlink", ("/d/x",)),
    ("unlink", ("/d/l",)),
    ("rmdir", ("/d/e",)),
    ("rename", ("/f", "/d/new", 0)),
    ("rename", ("/f", "/d/x", 0)),
    ("rename", ("/d/l", "/d/x", 0)),
    ("rename", ("/d/l", "/l", 0)),
    ("rename", ("/d/e", "/e", 0)),
    ("rename", ("/f", "/d/x", RENAME_EXCHANGE)),
    ("rename", ("/f", "/d/e", RENAME_EXCHANGE)),
    ("pwrite", (0, 5, 0)),
    ("pwrite", (0, 0, 0)),
    ("truncate", (0, 0)),
    ("truncate", (0, 3)),
    ("chmod", ("/f", 0o600)),
    ("chown", ("/f", -1, -1)),
    ("setxattr", ("/f", "user.a", 1, 0)),
    ("setxattr", ("/d", "user.a", 1, 0)),
    ("removexattr", ("/f", "user.b")),
    ("utime", ("/f", 5, 6)),
    ("open", ("/d/x",)),
    ("fstat", (0,)),
    ("lstat", ("/f",)),
]


@pytest.mark.parametrize(("verb", "args"), STAMPED, ids=[f"{verb}{args}" for verb, args in STAMPED])
def test_a_verb_stamps_what_tmpfs_stamps(root: Path, verb: str, args: tuple[Any, ...]) -> None:
    with tempfile.TemporaryDirectory(dir=root) as made:
        bodies: list[Any] = [Tmpfs(Path(made)), Memory()]
        stamped = []
        for body in bodies:
            body.create("/f", 0o644)
            body.mkdir("/d", 0o755)
            body.mkdir("/d/e", 0o755)
            body.create("/d/x", 0o644)
            body.link("/f", "/d/l")
            body.setxattr("/f", "user.b", 1, 0)
            now = time.time_ns()
            time.sleep(0.015)  # The clock of file times lags by up to 10 ms.
            assert outcome(getattr(body, verb), args) not in errno.errorcode.values()
            stamped.append(fresh(body, now))
        bodies[0].done()
    assert stamped[1] == stamped[0]


def fresh(body: Tmpfs | Memory, since: int) -> dict[str, tuple[bool, bool]]:
    """Tell by name, and for the open file, whether mtime and ctime are later than `since`."""
    opened: Any = os.fstat(body.fds[0]) if isinstance(body, Tmpfs) else body.handles[0].stat()
    found: dict[str, Any] = {"open": opened}
    for path in ("", "/f", "/d", "/d/e", "/d/x", "/d/l", "/d/new"):
        try:
            found[path] = os.lstat(body.at(path)) if isinstance(body, Tmpfs) else body.layer.lstat(path)
        except FileNotFoundError:
            continue
    return {name: (st_.st_mtime_ns > since, st_.st_ctime_ns > since) for name, st_ in found.items()}


LIMITED = """
import ctypes, errno, json, os, subprocess, sys
size, inodes, where, plan = json.loads(sys.argv[1])
subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size},nr_inodes={inodes}", "tmpfs", where], check=True)
os.chdir(where)
results, fds = [], {}
for verb, *args in plan:
    try:
        if verb == "create":
            fds[args[0]] = os.open(args[0], os.O_RDWR | os.O_CREAT | os.O_EXCL)
            got = None
        elif verb == "pwrite":
            got = os.pwrite(fds[args[0]], b"x" * args[1], args[2])
        elif verb == "truncate":
            got = os.ftruncate(fds[args[0]], args[1])
        elif verb == "close":
            got = os.close(fds.pop(args[0]))
        elif verb == "setxattr":
            got = os.setxattr(args[0], args[1], b"x" * args[2])
        else:
            got = getattr(os, verb)(*args)
    except OSError as error:
        got = errno.errorcode[error.errno]
    vfs = os.statvfs(".")
    results.append([got, vfs.f_bsize, vfs.f_blocks, vfs.f_bfree, vfs.f_bavail, vfs.f_files, vfs.f_ffree, vfs.f_favail])
print(json.dumps(results))
"""


def limited_on_tmpfs(size: int, inodes: int, plan: list[list[Any]]) -> list[Any]:
    """Play `plan` on a tmpfs mounted for it in a private mount namespace."""
    namespace = ["unshare", "-m"] if ROOT else ["unshare", "-Urm"]
    with tempfile.TemporaryDirectory() as where:
        argument = json.dumps([size, inodes, where, plan])
        try:
            subprocess.run([*namespace, sys.executable, "-c", ""], check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError) as error:
            pytest.skip(f"no Python in a private mount namespace here: {error}")
        done = subprocess.run(
            [*namespace, sys.executable, "-c", LIMITED, argument], check=True, capture_output=True, text=True
        )
        results: list[Any] = json.loads(done.stdout)
        return results


def limited_in_memory(size: int, inodes: int, plan: list[list[Any]]) -> list[Any]:
    layer = MemoryLayer(Superblock(size, inodes))
    handles: dict[str, Any] = {}
    results = []
    for verb, *args in plan:
        name = "/" + args[0]
        got: Any = None
        try:
            if verb == "create":
                handles[args[0]] = layer.create(name, 0o644, 0, 0)
            elif verb == "pwrite":
                got = handles[args[0]].pwrite(b"x" * args[1], args[2])
            elif verb == "truncate":
                handles[args[0]].truncate(args[1])
            elif verb == "close":
                handles.pop(args[0]).close()
            elif verb == "setxattr":
                layer.setxattr(name, args[1], b"x" * args[2])
            elif verb == "mkdir":
                layer.mkdir(name, 0o755, 0, 0)
            elif verb == "symlink":
                layer.symlink(args[0], "/" + args[1], 0, 0)
            elif verb in ("rename", "link"):
                getattr(layer, verb)(name, "/" + args[1])
            else:
                getattr(layer, verb)(name, *args[1:])
        except OSError as error:
            got = errno.errorcode[error.errno or 0]
        vfs = layer.statvfs()
        results.append(
            [got, vfs.f_bsize, vfs.f_blocks, vfs.f_bfree, vfs.f_bavail, vfs.f_files, vfs.f_ffree, vfs.f_favail]
        )
    return results


LIMITS: dict[str, tuple[int, int, list[list[Any]]]] = {
    "bytes end at the last page, and a hole takes none": (
        4 * 4096 - 100,
        100,
        [
            ["create", "f"],
            ["pwrite", "f", 8192, 0],
            ["truncate", "f", 1 << 20],
            ["pwrite", "f", 1, 40960],
            ["pwrite", "f", 1, 81920],
            ["pwrite", "f", 1, 122880],
            ["pwrite", "f", 1, 81921],
            ["symlink", "t" * 128, "s"],
            ["symlink", "t" * 127, "s"],
            ["truncate", "f", 4097],
            ["symlink", "t" * 128, "s2"],
            ["pwrite", "f", 4096, 8192],
            ["pwrite", "f", 4096, 12288],
            ["unlink", "s2"],
            ["pwrite", "f", 4096, 12288],
        ],
    ),
    "an unlinked open file counts until it is closed": (
        4096,
        4,
        [
            ["create", "f"],
            ["pwrite", "f", 10, 0],
            ["unlink", "f"],
            ["create", "g"],
            ["pwrite", "g", 1, 0],
            ["create", "h"],
            ["create", "i"],
            ["close", "f"],
            ["pwrite", "g", 1, 0],
            ["create", "i"],
        ],
    ),
    "names of one inode count, and what rename replaces does not": (
        40960,
        5,
        [
            ["create", "f"],
            ["link", "f", "g"],
            ["link", "f", "h"],
            ["mkdir", "d"],
            ["mkdir", "e"],
            ["link", "f", "i"],
            ["unlink", "g"],
            ["mkdir", "e"],
            ["create", "x"],
            ["rename", "f", "h"],
            ["rename", "d", "e"],
            ["create", "x"],
            ["rename", "x", "f"],
            ["close", "x"],
            ["rmdir", "e"],
        ],
    ),
    "attributes take from the inodes": (
        40960,
        4,
        [
            ["create", "f"],
            ["setxattr", "f", "user.a", 900],
            ["setxattr", "f", "user.b", 900],
            ["setxattr", "f", "user.c", 900],
            ["setxattr", "f", "user.a", 100],
            ["setxattr", "f", "user.a", 99],
            ["create", "g"],
            ["removexattr", "f", "user.b"],
            ["create", "g"],
            ["unlink", "f"],
            ["close", "f"],
        ],
    ),
    "without limits all counts are zero": (0, 0, [["create", "f"], ["pwrite", "f", 5000, 0], ["mkdir", "d"]]),
}


@pytest.mark.parametrize("name", LIMITS)
def test_limits_are_those_of_tmpfs(name: str) -> None:
    size, inodes, plan = LIMITS[name]
    assert limited_in_memory(size, inodes, plan) == limited_on_tmpfs(size, inodes, plan)
