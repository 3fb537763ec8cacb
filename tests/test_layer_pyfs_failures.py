"""A plain PyFilesystem that fails, lies or disappears: a clear error naming the layer, and the tree before or after."""

import errno
import io
import stat
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

import pytest
from fs import errors
from fs.base import FS
from fs.info import Info
from fs.memoryfs import MemoryFS
from fs.wrap import cache_directory, read_only
from fs.wrapfs import WrapFS
from plainfs import Flaky

from overlayvfs.abi import RENAME_EXCHANGE, RENAME_WHITEOUT
from overlayvfs.layers.base import WORK, Torn
from overlayvfs.layers.pyfs import PyFsLayer
from overlayvfs.testing.conformance import Tree, fill, read_tree
from overlayvfs.testing.conformance.trees import directory, opened, raises_errno, read, refused, whiteout

BEFORE: Tree = {
    "/f": "one",
    "/g": "two",
    "/gone": whiteout(),
    "/lost": whiteout(),
    "/d": directory(),
    "/d/f": "three",
    "/d/sub": directory(),
    "/d/sub/gone": whiteout(),
    "/e": directory(),
    "/opaque": directory(),
}

LATE = [pytest.param(False, id="undone"), pytest.param(True, id="done", marks=pytest.mark.slow)]
"""Whether a failing call has done its work when it raises."""

VERBS: dict[str, Callable[[PyFsLayer], object]] = {
    "create": lambda layer: layer.create("/d/new", 0o600, 0, 0).close(),
    "mkdir": lambda layer: layer.mkdir("/d/new", 0o700, 0, 0),
    "mknod whiteout": lambda layer: layer.mknod("/d/new", stat.S_IFCHR, 0, 0, 0),
    "unlink": lambda layer: layer.unlink("/f"),
    "unlink whiteout": lambda layer: layer.unlink("/gone"),
    "rmdir": lambda layer: layer.rmdir("/e"),
    "rmdir opaque": lambda layer: layer.rmdir("/opaque"),
    "rename file": lambda layer: layer.rename("/f", "/d/new"),
    "rename over file": lambda layer: layer.rename("/f", "/g"),
    "rename over whiteout": lambda layer: layer.rename("/f", "/gone"),
    "rename leaving a whiteout": lambda layer: layer.rename("/f", "/g", RENAME_WHITEOUT),
    "rename directory": lambda layer: layer.rename("/d", "/e/new"),
    "rename over directory": lambda layer: layer.rename("/d", "/opaque"),
    "rename whiteout": lambda layer: layer.rename("/gone", "/d/new"),
    "rename whiteout over file": lambda layer: layer.rename("/gone", "/f"),
    "rename whiteout over whiteout": lambda layer: layer.rename("/gone", "/lost"),
    "exchange files": lambda layer: layer.rename("/f", "/g", RENAME_EXCHANGE),
    "exchange file and whiteout": lambda layer: layer.rename("/f", "/gone", RENAME_EXCHANGE),
    "exchange whiteout and directory": lambda layer: layer.rename("/gone", "/d", RENAME_EXCHANGE),
    "exchange directories": lambda layer: layer.rename("/d", "/opaque", RENAME_EXCHANGE),
    "set opaque": lambda layer: layer.setxattr("/d", "user.overlay.opaque", b"y"),
    "remove opaque": lambda layer: layer.removexattr("/opaque", "user.overlay.opaque"),
}


def flaky_layer() -> tuple[Flaky, PyFsLayer]:
    fs = Flaky()
    layer = PyFsLayer(fs)
    layer.prepare(index=False)
    fill(layer, BEFORE)
    layer.setxattr("/opaque", "user.overlay.opaque", b"y")
    fs.calls.clear()
    return fs, layer


def trees_around(verb: str) -> tuple[dict[str, str], dict[str, str], int]:
    """Return the tree before and after, and how many backend calls are between."""
    fs, layer = flaky_layer()
    before = read_tree(layer)
    fs.calls.clear()
    VERBS[verb](layer)
    count = len(fs.calls)
    return before, read_tree(layer), count


def attempt(verb: str, fs: Flaky, layer: PyFsLayer) -> OSError | None:
    try:
        VERBS[verb](layer)
    except OSError as error:
        return error
    finally:
        fs.fail_at = None
    return None


@pytest.mark.parametrize("late", LATE)
@pytest.mark.parametrize("verb", VERBS)
def test_one_failing_call_leaves_the_tree_before_or_after(verb: str, late: bool) -> None:
    before, after, count = trees_around(verb)
    assert before != after
    for number in range(count):
        fs, layer = flaky_layer()
        fs.late, fs.fail_at = late, range(number, number + 1)
        error = attempt(verb, fs, layer)
        assert not isinstance(error, Torn), f"{verb}, call {number} of {count}: {error}"
        expected = [after] if error is None else [before, after]
        assert read_tree(layer) in expected, f"{verb}, call {number} of {count}"
        assert read_tree(PyFsLayer(fs)) == read_tree(layer), f"{verb}, call {number} of {count}: reopened"
        layer.prepare(index=False)
        assert layer.listdir(WORK) == []


@pytest.mark.parametrize("late", LATE)
@pytest.mark.parametrize("verb", VERBS)
def test_a_backend_gone_for_good_leaves_the_tree_or_says_it_is_torn(verb: str, late: bool) -> None:
    before, after, count = trees_around(verb)
    for number in range(count):
        fs, layer = flaky_layer()
        fs.late, fs.fail_at = late, range(number, 1_000_000)
        error = attempt(verb, fs, layer)
        if read_tree(PyFsLayer(fs)) not in (before, after):
            assert isinstance(error, Torn), f"{verb}, call {number} of {count}: {error!r}"
            assert error.errno == errno.EIO
            assert layer.name in str(error)
            assert error.filename


# Backends that lie


class Lying(WrapFS[FS]):
    """A memory file system with one thing wrong, set by the test."""

    def __init__(self) -> None:
        super().__init__(MemoryFS())
        self.listed: list[Any] | None = None
        self.told: dict[str, Any] = {}
        self.opened: Callable[[BinaryIO], Any] = lambda file: file
        self.error: Exception | None = None

    def __str__(self) -> str:
        return "<lying>"

    def listdir(self, path: str) -> list[Any]:
        return super().listdir(path) if self.listed is None else self.listed

    def scandir(self, path: str, namespaces: Any = None, page: Any = None) -> Iterator[Info]:
        for name in self.listdir(path):
            yield Info({"basic": {"name": name, "is_dir": False}, "details": {"type": 2, "size": 0}})

    def getinfo(self, path: str, namespaces: Any = None) -> Info:
        if self.error is not None:
            raise self.error
        raw = super().getinfo(path, namespaces).raw
        if not raw["basic"]["is_dir"]:
            raw = {**raw, "details": {**raw["details"], **self.told}}
        return Info(raw)

    def openbin(self, path: str, mode: str = "r", buffering: int = -1, **options: Any) -> Any:
        return self.opened(super().openbin(path, mode, buffering, **options))


class Stuttering(io.RawIOBase):
    """A file that reads and writes three bytes at a time, as a raw file may."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        return self.file.seek(offset, whence)

    def read(self, size: int = -1) -> bytes:
        return self.file.read(min(size, 3))

    def write(self, data: Any) -> int:
        return self.file.write(bytes(data[:3]))

    def flush(self) -> None:
        self.file.flush()

    def truncate(self, size: int | None = None) -> int:
        return self.file.truncate(size)


class Stream(Stuttering):
    """A file that can't seek."""

    def seekable(self) -> bool:
        return False

    def seek(self, offset: int, whence: int = 0) -> int:
        raise io.UnsupportedOperation("a stream can't seek")


def lying(data: str = "twelve bytes") -> tuple[Lying, PyFsLayer]:
    fs = Lying()
    fs.writetext("/f", data)
    return fs, PyFsLayer(fs)


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/", "nul\0", "x" * 256, b"bytes", None, 7], ids=repr)
def test_impossible_names_are_eio_naming_the_layer(name: object) -> None:
    fs, layer = lying()
    fs.listed = ["f", name]
    for ask in (layer.listdir, layer.names):
        with refused(layer, errno.EIO):
            ask("")


def test_a_name_listed_twice_is_one_name() -> None:
    fs, layer = lying()
    fs.listed = ["f", "g", "f"]
    assert [entry.d_name for entry in layer.listdir("")] == ["f", "g"]
    assert layer.names("") == {"f", "g"}


@pytest.mark.parametrize(
    "told",
    [{"size": -1}, {"size": "big"}, {"size": 1 << 70}, {"modified": float("nan")}, {"modified": 1e300}],
    ids=repr,
)
def test_impossible_attributes_are_eio_naming_the_layer(told: dict[str, Any]) -> None:
    fs, layer = lying()
    fs.told = told
    with refused(layer, errno.EIO):
        layer.lstat("/f")


@pytest.mark.parametrize("size", [0, 5, 11, 13, 4096])
@pytest.mark.parametrize("opened_as", [lambda file: file, Stuttering, Stream], ids=["plain", "stuttering", "stream"])
def test_a_size_that_lies_is_eio_when_the_end_is_read(size: int, opened_as: Callable[[BinaryIO], Any]) -> None:
    fs, layer = lying("twelve bytes")
    fs.told, fs.opened = {"size": size}, opened_as
    for count in {size, 4096}:
        with opened(layer.open("/f")) as handle, refused(layer, errno.EIO):
            handle.pread(count, 0) or handle.pread(1, 0)


def test_a_file_that_grew_since_it_was_looked_up_is_no_lie() -> None:
    fs, layer = lying("one")
    layer.lstat("/f")
    fs.appendtext("/f", " more")
    assert read(layer, "/f") == b"one more"


def test_short_reads_and_writes_are_completed() -> None:
    fs, layer = lying("")
    fs.opened = Stuttering
    with opened(layer.open("/f", writable=True)) as handle:
        assert handle.pwrite(b"twelve bytes", 0) == 12
        assert handle.pread(100, 0) == b"twelve bytes"
    assert fs.readtext("/f") == "twelve bytes"


def test_a_stream_that_cannot_seek_is_read_at_random() -> None:
    fs, layer = lying("twelve bytes")
    fs.opened = Stream
    with opened(layer.open("/f")) as handle:
        assert handle.pread(5, 7) == b"bytes"
        assert handle.pread(6, 0) == b"twelve"


@pytest.mark.parametrize("given", [None, "text", b"too many bytes for a read of five"], ids=repr)
def test_reads_that_give_no_bytes_or_too_many_are_eio(given: Any) -> None:
    fs, layer = lying()

    class Odd(Stuttering):
        def read(self, size: int = -1) -> Any:
            return given

    fs.opened = Odd
    with opened(layer.open("/f")) as handle, refused(layer, errno.EIO):
        handle.pread(5, 0)


@pytest.mark.parametrize("taken", [None, 0, -1, 99])
def test_writes_that_take_nothing_or_too_much_are_eio(taken: Any) -> None:
    fs, layer = lying()

    class Odd(Stuttering):
        def write(self, data: Any) -> Any:
            return taken

    fs.opened = Odd
    with opened(layer.open("/f", writable=True)) as handle, refused(layer, errno.EIO):
        handle.pwrite(b"data", 0)


@pytest.mark.parametrize(
    ("error", "number"),
    [
        (errors.PermissionDenied("/f"), errno.EACCES),
        (errors.OperationFailed("/f", exc=OSError(errno.EDQUOT, "quota")), errno.EDQUOT),
        (errors.RemoteConnectionError("/f", msg="no {route}"), errno.EIO),
        (errors.InsufficientStorage("/f"), errno.ENOSPC),
        (errors.FilesystemClosed(), errno.EIO),
        (OSError("without a number"), errno.EIO),
        (TimeoutError(), errno.ETIMEDOUT),
        (KeyError("bug"), errno.EIO),
        (RuntimeError("bug"), errno.EIO),
    ],
    ids=lambda value: type(value).__name__,
)
def test_whatever_a_backend_raises_is_an_errno_naming_the_layer(error: Exception, number: int) -> None:
    fs, layer = lying()
    fs.error = error
    with raises_errno(number) as caught:
        layer.lstat("/f")
    assert "<lying>" in str(caught.value)
    assert caught.value.__cause__ is error
    assert caught.value.filename == "/f"


def test_a_backend_that_does_not_show_what_was_written_is_no_upper() -> None:
    memory = MemoryFS()
    cached = cache_directory(memory)
    cached.listdir("/")
    layer = PyFsLayer(cached)
    with raises_errno(errno.EINVAL) as caught:
        layer.prepare(index=False)
    assert "does not show" in str(caught.value)


def test_a_read_only_backend_is_no_upper() -> None:
    memory = MemoryFS()
    memory.writetext("/f", "x")
    layer = PyFsLayer(read_only(memory))
    assert not layer.writable
    for act in (lambda: layer.prepare(index=False), lambda: layer.unlink("/f"), lambda: layer.chmod("/f", 0o600)):
        with refused(layer, errno.EROFS):
            act()
    assert memory.listdir("/") == ["f"]
