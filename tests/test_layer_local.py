"""A host directory as a layer: conformance, no way out, the work area, and what the kernel writes as origin."""

import gc
import os
import shutil
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from errno import EACCES, EBADF, EINVAL, ENOENT, ENOSPC, ENOSYS, ENOTDIR, EOPNOTSUPP, EPERM, EROFS, ESTALE
from pathlib import Path

import pytest
from plainfs import on_host

from overlayvfs.abi import RENAME_EXCHANGE, makedev
from overlayvfs.layers.base import INDEX, WORK, Layer
from overlayvfs.layers.local import LocalLayer, beneath, syscalls, workarea
from overlayvfs.layers.local.names import remove_tree
from overlayvfs.layers.local.opened import KEPT_MAX
from overlayvfs.marks import FileHandle
from overlayvfs.testing.conformance import LowerConformance, Tree, UpperConformance, fill
from overlayvfs.testing.conformance.trees import opened, raises_errno, read, read_tree

ROOT = os.geteuid() == 0
NOBODY = 65534
MEMORY = Path("/dev/shm")

Make = Callable[[], LocalLayer]


class HostConformance(UpperConformance):
    """The suite, with a look at the directory by other means."""

    def outside(self, layer: Layer) -> dict[str, bytes | None]:
        return on_host(layer.name)


class TestBesideRoot(HostConformance):
    def make_upper(self, where: Path) -> LocalLayer:
        (where / "root").mkdir()
        return LocalLayer(where / "root")


class TestInMemory(HostConformance):
    """With a workdir, on tmpfs: other inode numbers, times, handles and extents."""

    @pytest.fixture(autouse=True)
    def _directories(self) -> Iterator[None]:
        self._made: list[Path] = []
        yield
        for path in self._made:
            shutil.rmtree(path)

    def make_upper(self, where: Path) -> LocalLayer:
        here = Path(tempfile.mkdtemp(dir=MEMORY))
        self._made.append(here)
        (here / "root").mkdir()
        (here / "workdir").mkdir()
        return LocalLayer(here / "root", here / "workdir")


class TestByWalking(HostConformance):
    """The same on a kernel, or in a sandbox, without openat2."""

    @pytest.fixture(autouse=True)
    def _no_openat2(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(beneath, "has_openat2", lambda: False)

    def make_upper(self, where: Path) -> LocalLayer:
        (where / "root").mkdir()
        return LocalLayer(where / "root")


@pytest.mark.skipif(not ROOT, reason="needs root: only root can fill a lower with every owner, device and mode")
class TestReadOnly(LowerConformance):
    def make_lower(self, tree: Tree, where: Path) -> LocalLayer:
        (where / "root").mkdir()
        writer = LocalLayer(where / "root")
        fill(writer, tree)
        writer.close()
        return LocalLayer(where / "root", writable=False)

    def outside(self, layer: Layer) -> dict[str, bytes | None]:
        return on_host(layer.name)


@pytest.mark.skipif(not ROOT, reason="run by somebody else already: every class above was unprivileged")
def test_the_suite_passes_for_somebody_without_privilege() -> None:
    # Only the tests run without rights: the interpreter's own files may be out of nobody's reach.
    code = f"""
import ctypes, fcntl, os, pytest, sys

class Unprivileged:
    def pytest_collection_finish(self):
        os.setgroups([]); os.setgid({NOBODY}); os.setresuid({NOBODY}, {NOBODY}, 0)

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self):
        os.setresuid(0, 0, 0)

arguments = [{__file__!r} + "::TestBesideRoot", "-q", "-p", "no:cacheprovider", "--basetemp", sys.argv[1] + "/t"]
sys.exit(pytest.main(arguments, plugins=[Unprivileged()]))
"""
    base = tempfile.mkdtemp()
    os.chmod(base, 0o777)
    try:
        run = python(code, base)
    finally:
        shutil.rmtree(base)
    assert run.returncode == 0, run.stdout + run.stderr
    assert " passed" in run.stdout


def python(code: str, *arguments: str, before: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
    """Run a script with the modules this process can import, by way of the command `before`."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [*before, sys.executable, "-c", code, *arguments]
    return subprocess.run(command, check=False, capture_output=True, text=True, env=environment)


@pytest.fixture
def host(tmp_path: Path) -> Path:
    """A directory with a tree, and beside it what no verb may reach."""
    for top, text in (("root", "inside"), ("outside", "secret")):
        (tmp_path / top / "a/b/c/d").mkdir(parents=True)
        (tmp_path / top / "a/b/c/f").write_text(text)
    return tmp_path


@pytest.fixture
def upper(host: Path) -> Iterator[LocalLayer]:
    layer = LocalLayer(host / "root")
    layer.prepare(index=False)
    yield layer
    layer.release(keep_index=False)
    layer.close()


@pytest.fixture
def lower(host: Path) -> Iterator[LocalLayer]:
    layer = LocalLayer(host / "root", writable=False)
    yield layer
    layer.close()


def snapshot(top: Path) -> dict[str, tuple[object, ...]]:
    """Everything about a directory that a verb led astray could have changed."""
    seen: dict[str, tuple[object, ...]] = {}
    for path in [top, *top.rglob("*")]:
        st = path.lstat()
        text = path.read_text() if path.is_file() else ""
        seen[str(path)] = (st.st_ino, st.st_mode, st.st_uid, st.st_nlink, st.st_mtime_ns, os.listxattr(path), text)
    return seen


OWNER = (os.getuid(), os.getgid())

VERBS: dict[str, Callable[[LocalLayer], object]] = {
    "lstat": lambda layer: layer.lstat("/a/b/c/f"),
    "names": lambda layer: layer.names("/a/b/c"),
    "listdir": lambda layer: layer.listdir("/a/b/c"),
    "readlink": lambda layer: layer.readlink("/a/b/c/f"),
    "getxattr": lambda layer: layer.getxattr("/a/b/c/f", "user.k"),
    "listxattr": lambda layer: layer.listxattr("/a/b/c/f"),
    "open": lambda layer: layer.open("/a/b/c/f"),
    "open writable": lambda layer: layer.open("/a/b/c/f", writable=True),
    "file_handle": lambda layer: layer.file_handle("/a/b/c/f"),
    "create": lambda layer: layer.create("/a/b/c/n", 0o644, *OWNER),
    "create with another mode": lambda layer: layer.create("/a/b/c/n", 0o666, *OWNER),
    "mkdir": lambda layer: layer.mkdir("/a/b/c/n", 0o755, *OWNER),
    "mknod": lambda layer: layer.mknod("/a/b/c/n", stat.S_IFCHR, 0, *OWNER),
    "symlink": lambda layer: layer.symlink("t", "/a/b/c/n", *OWNER),
    "link from": lambda layer: layer.link("/a/b/c/f", "/n"),
    "link to": lambda layer: layer.link("/g", "/a/b/c/n"),
    "unlink": lambda layer: layer.unlink("/a/b/c/f"),
    "rmdir": lambda layer: layer.rmdir("/a/b/c/d"),
    "rename from": lambda layer: layer.rename("/a/b/c/f", "/n"),
    "rename to": lambda layer: layer.rename("/g", "/a/b/c/f"),
    "exchange": lambda layer: layer.rename("/g", "/a/b/c/f", RENAME_EXCHANGE),
    "chmod": lambda layer: layer.chmod("/a/b/c/f", 0o600),
    "chown": lambda layer: layer.chown("/a/b/c/f", *OWNER),
    "utime": lambda layer: layer.utime("/a/b/c/f", 1, 1),
    "setxattr": lambda layer: layer.setxattr("/a/b/c/f", "user.k", b"v"),
    "removexattr": lambda layer: layer.removexattr("/a/b/c/f", "user.k"),
}


@pytest.fixture(params=["openat2", "walk"])
def resolution(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "walk":
        monkeypatch.setattr(beneath, "has_openat2", lambda: False)
    elif not beneath.has_openat2():
        pytest.skip("this kernel or sandbox has no openat2")


@pytest.mark.usefixtures("resolution")
@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("swapped", ["a", "a/b", "a/b/c"])
def test_no_verb_goes_through_a_symlink_swapped_in(host: Path, upper: LocalLayer, verb: str, swapped: str) -> None:
    (host / "root/g").write_text("inside")
    shutil.rmtree(host / "root" / swapped)
    (host / "root" / swapped).symlink_to(host / "outside" / swapped)
    before = snapshot(host / "outside"), snapshot(host / "root")
    with raises_errno(ENOTDIR):
        VERBS[verb](upper)
    assert (snapshot(host / "outside"), snapshot(host / "root")) == before
    assert upper.listdir(WORK) == []


@pytest.mark.usefixtures("resolution")
@pytest.mark.parametrize(
    "verb", ["lstat", "names", "listdir", "readlink", "getxattr", "listxattr", "open", "file_handle"]
)
@pytest.mark.parametrize("swapped", ["a", "a/b", "a/b/c"])
def test_no_verb_of_a_lower_goes_through_a_symlink_swapped_in(
    host: Path, lower: LocalLayer, verb: str, swapped: str
) -> None:
    shutil.rmtree(host / "root" / swapped)
    (host / "root" / swapped).symlink_to(host / "outside" / swapped)
    with raises_errno(ENOTDIR):
        VERBS[verb](lower)


@pytest.mark.usefixtures("resolution")
def test_what_a_lower_has_opened_stays_inside_when_a_symlink_takes_its_place(host: Path, lower: LocalLayer) -> None:
    assert lower.lstat("/a/b/c/f")
    (host / "root/a").rename(host / "root/moved")
    (host / "root/a").symlink_to(host / "outside/a")
    assert os.path.samestat(os.lstat(host / "root/moved/b/c/f"), lower.lstat("/a/b/c/f"))  # type: ignore[arg-type]
    with opened(lower.open("/a/b/c/f")) as handle:
        assert handle.pread(7, 0) == b"inside"


@pytest.mark.usefixtures("resolution")
@pytest.mark.parametrize("verb", VERBS)
def test_no_verb_follows_a_symlink_in_the_last_place(host: Path, upper: LocalLayer, verb: str) -> None:
    (host / "root/g").write_text("inside")
    for name in ("f", "d"):
        shutil.rmtree(host / f"root/a/b/c/{name}", ignore_errors=True)
        (host / f"root/a/b/c/{name}").unlink(missing_ok=True)
        (host / f"root/a/b/c/{name}").symlink_to(host / f"outside/a/b/c/{name}")
    before = snapshot(host / "outside")
    try:
        # It may act on the symlink itself, as its name says, or refuse.
        VERBS[verb](upper)
    except OSError:
        pass
    assert snapshot(host / "outside") == before


@pytest.mark.usefixtures("resolution")
@pytest.mark.parametrize("path", ["/..", "/../outside/a/b/c/f", "/a/../../outside/a/b/c/f", "//etc/passwd"])
def test_no_path_climbs_or_starts_at_the_host_s_root(upper: LocalLayer, path: str) -> None:
    with pytest.raises((NotADirectoryError, FileNotFoundError)):
        upper.lstat(path)
    with pytest.raises((NotADirectoryError, FileNotFoundError)):
        upper.listdir(path)


def test_open_of_a_symlink_is_the_symlink_itself(host: Path, upper: LocalLayer) -> None:
    (host / "root/s").symlink_to(host / "outside/a/b/c/f")
    with opened(upper.open("/s", writable=True)) as handle:
        assert stat.S_ISLNK(handle.stat().st_mode)
        with raises_errno(EINVAL):
            handle.pread(10, 0)
        with raises_errno(EINVAL):
            handle.pwrite(b"x", 0)


def test_no_read_gets_out_while_a_directory_and_a_symlink_change_places(host: Path, upper: LocalLayer) -> None:
    (host / "root/swap").symlink_to(host / "outside/a")
    stop = threading.Event()
    fd = os.open(host / "root", os.O_RDONLY)

    def swap() -> None:
        while not stop.is_set():
            syscalls.renameat2(fd, "a", fd, "swap", RENAME_EXCHANGE)

    thread = threading.Thread(target=swap)
    thread.start()
    seen = set()
    try:
        while not {b"inside", ENOTDIR} <= seen:
            try:
                seen.add(read(upper, "/a/b/c/f"))
            except OSError as error:
                seen.add(error.errno)
    finally:
        stop.set()
        thread.join()
        os.close(fd)
    assert seen == {b"inside", ENOTDIR}


def test_a_fifo_is_not_opened_for_real(host: Path, upper: LocalLayer) -> None:
    os.mkfifo(host / "root/p")
    with opened(upper.open("/p")), pytest.raises(OSError, match="No such device or address"):
        # Were the handle a reader, this writer would get in.
        os.open(host / "root/p", os.O_WRONLY | os.O_NONBLOCK)


# What a layer that must not be written does


def test_a_read_only_layer_refuses_every_change_and_tries_nothing_out(host: Path) -> None:
    (host / "root/g").write_text("inside")
    before = snapshot(host)
    layer = LocalLayer(host / "root", writable=False)
    assert layer.capabilities.marks
    reads = ("lstat", "names", "listdir", "readlink", "getxattr", "listxattr", "open", "file_handle")
    for verb in VERBS.keys() - set(reads):
        with raises_errno(EROFS) as caught:
            VERBS[verb](layer)
        assert layer.name in str(caught.value)
    with raises_errno(EROFS):
        layer.prepare(index=False)
    with raises_errno(EROFS):
        layer.tmpfile(0o600, *OWNER)
    with opened(layer.open("/a/b/c/f")) as handle:
        changes: list[Callable[[], None]] = [
            lambda: handle.chmod(0o600),
            lambda: handle.chown(-1, -1),
            lambda: handle.utime(1, 1),
            lambda: handle.setxattr("user.k", b"v"),
            lambda: handle.removexattr("user.k"),
        ]
        for change in changes:
            with raises_errno(EROFS):
                change()
    layer.close()
    assert snapshot(host) == before


def test_opening_a_lower_opens_its_root_and_touches_no_tree(host: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    for name in ("open", "stat", "listdir", "scandir", "mkdir", "getxattr", "listxattr", "readlink"):
        real = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *a, _n=name, _r=real, **k: (calls.append((_n, a[0])), _r(*a, **k))[1])
    layer = LocalLayer(host / "root", writable=False)
    _ = (layer.capabilities, layer.identity(), layer.name)
    monkeypatch.undo()
    layer.close()
    assert calls == [("open", str(host / "root"))]


def count_calls(monkeypatch: pytest.MonkeyPatch, act: Callable[[], object]) -> list[str]:
    """Return the names of the system calls `act` makes on descriptors and paths."""
    calls: list[str] = []
    with monkeypatch.context() as patch:
        for name in ("open", "stat", "fstat", "close", "getxattr", "listxattr", "pread"):
            real = getattr(os, name)
            patch.setattr(os, name, lambda *a, _n=name, _r=real, **k: (calls.append(_n), _r(*a, **k))[1])
        act()
    return calls


def test_a_lower_opens_each_directory_once(lower: LocalLayer, monkeypatch: pytest.MonkeyPatch) -> None:
    assert count_calls(monkeypatch, lambda: lower.lstat("/a")) == ["stat"]
    assert count_calls(monkeypatch, lambda: lower.lstat("/a/b")) == ["open", "stat"]
    assert count_calls(monkeypatch, lambda: lower.lstat("/a/b")) == ["stat"]
    assert count_calls(monkeypatch, lambda: lower.lstat("/a/b/c")) == ["open", "stat"]
    assert count_calls(monkeypatch, lambda: lower.mark("/a/b/c", "user.overlay.opaque")) == ["listxattr"]


def test_a_file_of_a_lower_is_opened_by_what_was_seen_of_it(lower: LocalLayer, monkeypatch: pytest.MonkeyPatch) -> None:
    lower.lstat("/a/b/c/f")
    assert count_calls(monkeypatch, lambda: lower.open("/a/b/c/f").close()) == ["open", "close"]
    lower.lstat("/a")
    assert count_calls(monkeypatch, lambda: lower.open("/a/b/c/f").close()) == ["stat", "open", "close"]


def test_a_directory_put_in_the_place_of_another_is_noticed_when_it_is_looked_at(host: Path, lower: LocalLayer) -> None:
    for path in ("/a", "/a/b", "/a/b/c", "/a/b/c/f"):
        lower.lstat(path)
    (host / "root/a").rename(host / "gone")
    (host / "root/a/b/c").mkdir(parents=True)
    (host / "root/a/b/c/g").touch()
    for path in ("/a", "/a/b", "/a/b/c", "/a/b/c/g"):
        lower.lstat(path)
    assert [entry.d_name for entry in lower.listdir("/a/b/c")] == ["g"]
    with raises_errno(ENOENT):
        lower.lstat("/a/b/c/f")


def test_directories_kept_open_are_few_however_many_layers_there_are(host: Path) -> None:
    for number in range(20):
        (host / f"root/a/d{number}").mkdir()
    before = len(os.listdir("/proc/self/fd"))
    layers = [LocalLayer(host / "root", writable=False) for _ in range(10)]
    for layer in layers:
        for number in range(20):
            assert layer.look(f"/a/d{number}/no") is None
    assert len(os.listdir("/proc/self/fd")) <= before + len(layers) + KEPT_MAX
    for layer in layers:
        assert layer.look("/a/b/c/f") is not None
        layer.close()
    assert len(os.listdir("/proc/self/fd")) <= before


@pytest.mark.parametrize("path", ["/..", "/../root/a", "/a/../../root/a", "/a/..", "//etc", "/\0", "/a/\0/f"])
def test_no_path_of_a_lower_climbs_or_starts_at_the_host_s_root(lower: LocalLayer, path: str) -> None:
    lower.lstat("/a/b/c/f")
    with pytest.raises((FileNotFoundError, NotADirectoryError)):
        lower.lstat(path)


def test_a_mark_is_found_beside_other_attributes(host: Path, lower: LocalLayer) -> None:
    os.setxattr(host / "root/a", "user.other", b"1")
    assert lower.mark("/a", "user.overlay.opaque") is None
    os.setxattr(host / "root/a", "user.overlay.opaque", b"y")
    assert lower.mark("/a", "user.overlay.opaque") == b"y"


def test_an_attribute_no_list_tells_of_is_found(host: Path, lower: LocalLayer, monkeypatch: pytest.MonkeyPatch) -> None:
    def unlisted(*_: object, **__: object) -> list[str]:
        raise OSError(EOPNOTSUPP, "Operation not supported")

    os.setxattr(host / "root/a", "user.overlay.opaque", b"y")
    monkeypatch.setattr(os, "listxattr", unlisted)
    assert lower.mark("/a", "user.overlay.opaque") == b"y"
    assert lower.mark("/a", "user.overlay.redirect") is None


def test_a_closed_layer_answers_ebadf(host: Path) -> None:
    layer = LocalLayer(host / "root")
    layer.close()
    for verb in ("lstat", "listdir", "create", "rename to"):
        with raises_errno(EBADF):
            VERBS[verb](layer)
    lower = LocalLayer(host / "root", writable=False)
    lower.lstat("/a/b/c/f")
    lower.close()
    for verb in ("lstat", "listdir", "getxattr", "open"):
        with raises_errno(EBADF):
            VERBS[verb](lower)


def test_a_missing_root_or_one_that_is_no_directory_is_an_error(host: Path) -> None:
    with raises_errno(ENOENT):
        LocalLayer(host / "no")
    with raises_errno(ENOTDIR):
        LocalLayer(host / "root/a/b/c/f")


def test_big_directories_do_not_tell_their_names_at_once(host: Path, upper: LocalLayer) -> None:
    for number in range(2000):
        (host / f"root/a/b/a name as long as most, number {number}").touch()
    assert upper.names("/a/b") is None
    assert upper.names("/a/b/c") == ["f", "d"] or upper.names("/a/b/c") == ["d", "f"]


# Identity


def test_two_ways_to_one_directory_are_one_identity(host: Path) -> None:
    (host / "alias").symlink_to(host / "root")
    one, two = LocalLayer(host / "root"), LocalLayer(host / "alias", writable=False)
    inner = LocalLayer(host / "root/a/b", writable=False)
    assert one.identity() == two.identity()
    assert inner.ancestry()[2] == one.identity()
    assert inner.identity() not in one.ancestry()
    for layer in (one, two, inner):
        layer.close()


# The work area


@pytest.fixture
def workdir(host: Path) -> Path:
    (host / "work").mkdir()
    return host / "work"


def test_work_and_index_are_where_the_kernel_has_them(host: Path, workdir: Path) -> None:
    layer = LocalLayer(host / "root", workdir)
    layer.prepare(index=True)
    layer.create(f"{INDEX}/00fb", 0o600, *OWNER).close()
    assert sorted(os.listdir(workdir)) == ["index", "work"]
    assert stat.S_IMODE((workdir / "work").stat().st_mode) == (0 if ROOT else 0o700)
    layer.release(keep_index=True)
    assert os.listdir(workdir) == ["index"]
    layer.prepare(index=True)
    assert [entry.d_name for entry in layer.listdir(INDEX)] == ["00fb"]
    layer.release(keep_index=False)
    layer.close()
    assert os.listdir(workdir) == []


def test_what_an_earlier_mount_left_in_work_can_be_seen_before_it_is_emptied(host: Path, workdir: Path) -> None:
    (workdir / "work/incompat/volatile").mkdir(parents=True)
    layer = LocalLayer(host / "root", workdir)
    assert stat.S_ISDIR(layer.lstat(f"{WORK}/incompat/volatile").st_mode)
    layer.release(keep_index=False)
    assert (workdir / "work/incompat/volatile").is_dir()
    layer.prepare(index=False)
    assert layer.listdir(WORK) == []
    layer.release(keep_index=False)
    layer.close()


def test_emptying_work_follows_no_symlink(host: Path, workdir: Path) -> None:
    (workdir / "work/d").mkdir(parents=True)
    (workdir / "work/s").symlink_to(host / "outside")
    (workdir / "work/d/s").symlink_to(host / "outside")
    before = snapshot(host / "outside")
    layer = LocalLayer(host / "root", workdir)
    layer.prepare(index=False)
    layer.release(keep_index=False)
    layer.close()
    assert snapshot(host / "outside") == before
    assert os.listdir(workdir) == []


@pytest.mark.parametrize(
    ("where", "sentence"),
    [("root", "contain"), ("root/a", "contain"), (".", "contain"), ("/proc", "same file system")],
)
def test_a_workdir_that_cannot_serve_is_einval(host: Path, where: str, sentence: str) -> None:
    layer = LocalLayer(host / "root", host / where)
    before = snapshot(host)
    with raises_errno(EINVAL) as caught:
        layer.prepare(index=False)
    assert sentence in str(caught.value)
    assert layer.name in str(caught.value)
    layer.close()
    assert snapshot(host) == before


def test_a_missing_workdir_is_enoent(host: Path) -> None:
    layer = LocalLayer(host / "root", host / "no")
    with raises_errno(ENOENT):
        layer.prepare(index=False)
    layer.close()


def test_without_a_workdir_work_is_beside_the_root_until_release(host: Path) -> None:
    layer = LocalLayer(host / "root")
    assert sorted(os.listdir(host)) == ["outside", "root"]
    layer.prepare(index=True)
    (private,) = set(os.listdir(host)) - {"outside", "root"}
    assert private.startswith(".overlayvfs-work-")
    assert stat.S_IMODE((host / private).stat().st_mode) == 0o700
    layer.release(keep_index=True)
    assert sorted(os.listdir(host)) == ["outside", "root"]
    with raises_errno(ENOENT):
        layer.lstat(WORK)
    layer.close()


@pytest.mark.parametrize("way", ["closed", "dropped"])
def test_a_private_work_directory_goes_with_its_layer(host: Path, way: str) -> None:
    layer = LocalLayer(host / "root")
    layer.prepare(index=True)
    layer.create(f"{WORK}/#1", 0o600, *OWNER).close()
    if way == "closed":
        layer.close()
    del layer
    assert sorted(os.listdir(host)) == ["outside", "root"]


def test_a_forked_child_that_ends_leaves_the_parent_its_work_directory(host: Path, upper: LocalLayer) -> None:
    pid = os.fork()
    if pid == 0:
        upper.close()
        os._exit(0)
    os.waitpid(pid, 0)
    assert upper.listdir(WORK) == []
    upper.create("/n", 0o666, *OWNER).close()


def test_no_place_beside_the_root_asks_for_a_workdir(host: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> str:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(workarea.tempfile, "mkdtemp", refuse)
    layer = LocalLayer(host / "root")
    with raises_errno(EINVAL) as caught:
        layer.prepare(index=False)
    assert "give a workdir" in str(caught.value)
    layer.close()


def test_a_root_that_is_a_mount_point_asks_for_a_workdir() -> None:
    # Whatever is above a mount point is on another file system.
    layer = LocalLayer(MEMORY)
    try:
        with raises_errno(EINVAL) as caught:
            layer.prepare(index=False)
        assert "give a workdir" in str(caught.value)
    finally:
        layer.close()


def test_a_host_without_whiteouts_can_be_no_upper(host: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(EPERM, "Operation not permitted")

    layer = LocalLayer(host / "root")
    monkeypatch.setattr(os, "mknod", refuse)
    with raises_errno(EINVAL) as caught:
        layer.prepare(index=False)
    assert "whiteouts" in str(caught.value)
    monkeypatch.undo()
    layer.close()


# Objects are made whole


@pytest.mark.skipif(not ROOT, reason="only root may give objects away")
def test_an_object_of_another_owner_shows_only_when_it_is_whole(
    host: Path, upper: LocalLayer, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    real = os.chown

    def chown(*args: object, **kwargs: object) -> None:
        seen.append(sorted(os.listdir(host / "root")))
        real(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "chown", chown)
    upper.mkdir("/new", 0o2775, 12, 34)
    upper.create("/file", 0o4666, 12, 34).close()
    assert seen == [["a"], ["a", "new"]]
    st = upper.lstat("/file")
    assert (stat.S_IMODE(st.st_mode), st.st_uid, st.st_gid) == (0o4666, 12, 34)


def test_an_object_whose_mode_cannot_be_set_is_not_made(
    host: Path, upper: LocalLayer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "chmod", refuse)
    with raises_errno(ENOSPC) as caught:
        upper.mkdir("/new", 0o1777, *OWNER)
    assert caught.value.filename == "/new"
    assert upper.name in str(caught.value)
    with raises_errno(ENOSPC):
        upper.create("/new", 0o1666, *OWNER)
    monkeypatch.undo()
    assert os.listdir(host / "root") == ["a"]
    assert upper.listdir(WORK) == []


# Origins


def test_a_handle_is_verified_at_its_name_and_found_by_root_wherever_it_is(host: Path, upper: LocalLayer) -> None:
    value = upper.file_handle("/a/b/c/f")
    assert value is not None
    upper.rename("/a", "/x")
    there = upper.lstat("/x/b/c/f")
    assert upper.find_handle(value, "/x/b/c/f") == there
    assert upper.find_handle(value) == (there if ROOT else None)
    assert upper.find_handle(value, "/a/b/c/f") == (there if ROOT else None)


def test_a_directory_outside_the_root_is_not_found(host: Path, upper: LocalLayer) -> None:
    whole = LocalLayer(host, writable=False)
    inside, outside = whole.file_handle("/root/a"), whole.file_handle("/outside/a")
    assert inside is not None
    assert outside is not None
    assert upper.find_handle(outside) is None
    assert upper.find_handle(inside, "/a") == upper.lstat("/a")
    whole.close()


def test_a_handle_of_another_file_system_is_not_asked_for(upper: LocalLayer) -> None:
    value = upper.file_handle("/a")
    assert value is not None
    handle = FileHandle.decode(value)
    assert handle is not None
    assert upper.find_handle(FileHandle(b"another system's", handle.kind, handle.body).encode(), "/a") is None


@pytest.mark.kernel
@pytest.mark.skipif(not ROOT, reason="needs root: a user namespace's mount has its own idea of file handles (KB 14.10)")
def test_file_handles_are_the_origins_the_kernel_writes(tmp_path: Path) -> None:
    script = """
import os, sys, ctypes, subprocess
from overlayvfs.layers.local import LocalLayer
os.chdir(sys.argv[1])
subprocess.run(["mount", "-t", "tmpfs", "none", "."], check=True)
os.chdir(sys.argv[1])
for name in ("l", "u", "w", "o", "l/d"):
    os.mkdir(name)
open("l/f", "w").close()
os.symlink("x", "l/s")
os.mkfifo("l/p")
options = "lowerdir=l,upperdir=u,workdir=w"
if subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, "o"]).returncode:
    sys.exit(77)
lower, upper = LocalLayer("l", writable=False), LocalLayer("u", writable=False)
for name in ("f", "d", "s", "p"):
    os.chown(f"o/{name}", 1, 1, follow_symlinks=False)
    ours, theirs = lower.file_handle(f"/{name}"), upper.getxattr(f"/{name}", "trusted.overlay.origin")
    assert ours == theirs, (name, ours, theirs)
    assert lower.find_handle(theirs) == lower.lstat(f"/{name}"), name
"""
    run = python(script, str(tmp_path), before=["unshare", "-m"])
    if run.returncode == 77 or "unshare" in run.stderr:
        pytest.skip(f"no overlay mount here: {run.stderr.strip()}")
    assert run.returncode == 0, run.stderr


# Data


def test_a_clone_keeps_holes(upper: LocalLayer) -> None:
    with opened(upper.create("/sparse", 0o644, *OWNER)) as src, opened(upper.create("/copy", 0o644, *OWNER)) as dst:
        src.pwrite(b"x" * 4096, 32 << 20)
        src.truncate(64 << 20)
        assert upper.clone(src, dst, 64 << 20)
        assert dst.stat().st_size == 64 << 20
        assert dst.stat().st_blocks == src.stat().st_blocks
        assert dst.pread(4097, 32 << 20) == b"x" * 4096 + b"\0"


def test_a_clone_that_runs_out_of_room_leaves_an_empty_file(upper: LocalLayer, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(ENOSPC, "No space left on device")

    def unshared(*_: object) -> None:
        raise OSError(EOPNOTSUPP, "Operation not supported")

    with opened(upper.open("/a/b/c/f")) as src, opened(upper.create("/copy", 0o644, *OWNER)) as dst:
        monkeypatch.setattr(syscalls, "share_blocks", unshared)
        monkeypatch.setattr(os, "copy_file_range", full)
        with raises_errno(ENOSPC):
            upper.clone(src, dst, 6)
        assert dst.stat().st_size == 0
        monkeypatch.setattr(os, "copy_file_range", unshared)
        assert not upper.clone(src, dst, 6)


def test_a_handle_of_another_kind_is_not_cloned(upper: LocalLayer) -> None:
    with opened(upper.create("/copy", 0o644, *OWNER)) as dst:
        assert not upper.clone(object(), dst, 6)  # type: ignore[arg-type]


# Lifetime


def test_dropped_layers_and_handles_give_their_descriptors_back_at_once(host: Path) -> None:
    gc.collect()
    gc.disable()
    try:
        before = len(os.listdir("/proc/self/fd"))
        layer = LocalLayer(host / "root")
        layer.prepare(index=True)
        handles = [layer.open(path, writable=False) for path in ("/a", "/a/b/c/f", "")]
        handles.append(layer.create("/n", 0o666, *OWNER))
        lower = LocalLayer(host / "root", writable=False)
        lower.lstat("/a/b/c/f")
        assert len(os.listdir("/proc/self/fd")) > before
        del layer, handles, lower
        assert len(os.listdir("/proc/self/fd")) == before
    finally:
        gc.enable()


# Hosts that lack something


def test_another_host_can_import_it_and_is_told_why_it_cannot_use_it() -> None:
    script = """
import errno, os, sys
for module in ("fcntl", "grp", "pwd"):
    sys.modules[module] = None
for name in [name for name in dir(os) if name.startswith("O_") and name not in
             ("O_RDONLY", "O_WRONLY", "O_RDWR", "O_CREAT", "O_EXCL", "O_TRUNC", "O_APPEND")]:
    delattr(os, name)
del os.mknod, os.getxattr, os.copy_file_range, os.statvfs
from overlayvfs.layers.local.layer import LocalLayer
try:
    LocalLayer(".")
except OSError as error:
    assert error.errno == errno.ENOSYS and "Linux" in str(error), error
else:
    raise AssertionError("it was made")
"""
    # Without overlayvfs/__init__.py: what else that imports is others' to test.
    bare = (
        "import sys, types; sys.modules['overlayvfs'] = p = types.ModuleType('overlayvfs'); p.__path__ = sys.argv[1:]"
    )
    run = python(bare + script, str(Path(beneath.__file__).parents[2]))
    assert run.returncode == 0, run.stderr


def test_a_missing_function_of_the_c_library_is_enosys() -> None:
    with raises_errno(ENOSYS):
        syscalls._function("no_such_function")


def test_a_stale_handle_is_estale(upper: LocalLayer, host: Path) -> None:
    value = upper.file_handle("/a/b/c/f")
    assert value is not None
    handle = FileHandle.decode(value)
    assert handle is not None
    upper.unlink("/a/b/c/f")
    fd = os.open(host / "root", os.O_RDONLY)
    try:
        with raises_errno(ESTALE if ROOT else EPERM):
            syscalls.open_by_handle(fd, handle.kind, handle.body, os.O_PATH)
    finally:
        os.close(fd)


def test_a_device_node_of_the_host_is_only_looked_at(host: Path, upper: LocalLayer) -> None:
    if not upper.capabilities.devices:
        with raises_errno(EPERM) as caught:
            upper.mknod("/null", stat.S_IFCHR | 0o600, makedev(1, 3), *OWNER)
        assert upper.name in str(caught.value)
        return
    # No driver has this number: opening it for real would fail.
    upper.mknod("/none", stat.S_IFCHR | 0o600, makedev(500, 77), *OWNER)
    with opened(upper.open("/none")) as handle:
        assert handle.stat().st_rdev == makedev(500, 77)


def test_a_tree_reads_the_same_through_two_layers(host: Path) -> None:
    one = LocalLayer(host / "root", writable=False)
    two = LocalLayer(host, writable=False)
    assert read_tree(one) == {path.removeprefix("/root"): line for path, line in read_tree(two, "/root").items()}
    one.close()
    two.close()


def test_errors_carry_the_layer_s_own_paths(upper: LocalLayer) -> None:
    cases: dict[Callable[[], object], str] = {
        lambda: upper.lstat("/a/no"): "[Errno 2] No such file or directory: '/a/no'",
        lambda: upper.rename("/a/no", "/n"): "[Errno 2] No such file or directory: '/a/no' -> '/n'",
        lambda: upper.mkdir("/a", 0o1777, 0, 0): "[Errno 17] File exists: '/a'",
    }
    for act, message in cases.items():
        with pytest.raises(OSError, match="Errno") as caught:
            act()
        assert str(caught.value) == message


# Modes that shut out their owner


@pytest.fixture
def unprivileged() -> Iterator[None]:
    """Run the test as nobody, if it is root that runs it."""
    if ROOT:
        os.seteuid(NOBODY)
    yield
    if ROOT:
        os.seteuid(0)


@pytest.fixture
def shut(unprivileged: None) -> Iterator[LocalLayer]:
    """An upper of this process in which no mode lets the owner do anything."""
    here = Path(tempfile.mkdtemp(dir=MEMORY))
    (here / "root/d/e").mkdir(parents=True)
    (here / "root/d/f").write_text("inside")
    os.setxattr(here / "root/d/f", "user.k", b"v")
    layer = LocalLayer(here / "root")
    layer.prepare(index=False)
    for path in ("d/f", "d/e", "d", "."):
        (here / "root" / path).chmod(0)
    yield layer
    layer.close()
    fd = os.open(MEMORY, os.O_RDONLY)
    remove_tree(fd, here.name)
    os.close(fd)


def test_every_verb_works_on_a_tree_whose_modes_shut_its_owner_out(shut: LocalLayer) -> None:
    assert shut.getxattr("/d/f", "user.k") == b"v"
    assert read(shut, "/d/f") == b"inside"
    with opened(shut.open("/d/f", writable=True)) as handle:
        handle.setxattr("user.k", b"w")
        assert handle.getxattr("user.k") == b"w"
        handle.removexattr("user.k")
        handle.pwrite(b"INSIDE", 0)
    shut.setxattr("/d/e", "user.overlay.opaque", b"y")
    assert sorted(entry.d_name for entry in shut.listdir("/d")) == ["e", "f"]
    shut.rename("/d/e", "/moved")
    shut.create("/d/n", 0, *OWNER).close()
    shut.mkdir("/d/m", 0, *OWNER)
    shut.unlink("/d/n")
    assert shut.getxattr("/moved", "user.overlay.opaque") == b"y"
    modes = {path: stat.S_IMODE(shut.lstat(path).st_mode) for path in ("", "/d", "/d/f", "/d/m", "/moved")}
    assert set(modes.values()) == {0}


def test_a_chmod_is_not_undone_by_what_was_lent(shut: LocalLayer) -> None:
    for mode in (0o600, 0o700):
        shut.chmod("/d/f", mode)
        assert stat.S_IMODE(shut.lstat("/d/f").st_mode) == mode
    shut.chmod("/d", 0o700)
    assert stat.S_IMODE(shut.lstat("/d").st_mode) == 0o700
    with raises_errno(ENOENT):
        shut.lstat("/d/no")


def test_a_read_only_layer_lends_nothing(shut: LocalLayer) -> None:
    shut.chmod("", 0o500)
    lower = LocalLayer(shut.name, writable=False)
    with raises_errno(EACCES):
        lower.listdir("/d")
    with raises_errno(EACCES):
        lower.lstat("/d/f")
    lower.close()
    assert stat.S_IMODE(shut.lstat("/d").st_mode) == 0
