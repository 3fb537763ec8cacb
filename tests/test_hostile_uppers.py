"""Uppers and lowers made by hand: whatever the marks say, the kernel's errno and tree, never an escape or a hang.

Every odd value of every mark, looked at and changed through all that reads it, beside the kernel (KB 10.12 to 10.17,
11, 12.13 to 12.15). What an nlink mark says is in test_volatile_and_index.py, uppers written for other lowers too.
"""

import os

import pytest

from overlayvfs.testing import DIR, WHITEOUT, Kernel, Stack, call, directory, file, hardlink, symlink
from overlayvfs.testing.bodies import EngineOnHost, EngineOnMemory
from overlayvfs.testing.lockstep import diverges
from overlayvfs.testing.minimise import Trial

pytestmark = pytest.mark.kernel

LOWER = {
    "/d/f": "in d",
    "/d/e/g": "in e",
    "/f": "data",
    "/s": symlink("d"),
    "/h": "links",
    "/h2": hardlink("/h"),
    "/top/d/f": "below",
}
REDIRECTS = (
    *(b"", b"/", b"//", b"//d", b"/d/", b"/d//e", b"d/", b"d/e", b"./d", b"../d", b".", b"..", b"/.", b"/..", b"/../d"),
    *(b"/../../../../../../etc", b"/d/..", b"/d/../f", b"/d/.", b"/d/./e", b"/top/../d", b"...", b"/...", b"..."),
    *(b"nowhere", b"/nowhere", b"/nowhere/d", b"f", b"/f", b"/f/x", b"s", b"/s", b"/s/e", b"/d/e", b"e", b"/top/d"),
    *(b"x", b"/top/x", b"/top", b"d\0x", b"\0", b"/d\0/..", b"\xff", b"/\xff", b"\n", b"d\n"),
    *(b"n" * 255, b"n" * 256, b"/" + b"n" * 255, b"/" + b"n" * 256, b"/n" * 128, b"/d" * 2000, b"/." * 2000),
)
HEAD = b"\0\xfb"
UUID = bytes(range(16))
ORIGINS = (
    *(b"", b"\0", HEAD, HEAD + b"\x21", HEAD + bytes(31), b"\0" * 33, b"\xff" * 33, b"x" * 300),
    HEAD + b"\x21\0\1" + UUID + bytes(12),
    HEAD + b"\x21\0\1" + bytes(16) + bytes(12),
    HEAD + b"\xff\0\1" + UUID + bytes(12),
    HEAD + b"\x15\0\1" + UUID,
    HEAD + b"\x16\0\1" + UUID + b"\0",
    HEAD + b"\x05\0\1",
    HEAD + b"\x21\1\1" + UUID + bytes(12),
    HEAD + b"\x21\xf8\1" + UUID + bytes(12),
    HEAD + b"\x21\0\xff" + UUID + bytes(12),
    b"\1\xfb\x21\0\1" + UUID + bytes(12),
    b"\0\xfa\x21\0\1" + UUID + bytes(12),
)
METACOPIES = (b"", b"x", b"xxx", b"\0\4\0\0", b"\0\4\0\1" + bytes(32), b"\1\4\0\0", b"\0\5\0\0\0", b"x" * 200)
OPAQUES = (b"", b"y", b"x", b"n", b"yes", b"y\0", b"Y", b"\xff")
OPTIONS = {
    "none": {},
    "nofollow": {"redirect_dir": "nofollow"},
    "all": {"redirect_dir": "on", "index": "on", "metacopy": "on"},
}


@pytest.fixture(params=OPTIONS)
def options(request: pytest.FixtureRequest) -> dict[str, str]:
    return OPTIONS[request.param]


@pytest.fixture(params=[EngineOnMemory, pytest.param(EngineOnHost, marks=pytest.mark.slow)])
def make_box(request: pytest.FixtureRequest, oracle: Kernel):
    if oracle.kind != "root":
        pytest.skip("a user namespace's overlay follows no redirect (KB 1.10)")
    return request.param


def everything_on(*paths: str):
    """Return calls that look at objects in every way, then change them."""
    for path in paths:
        yield call("lstat", path)
        yield call("listdir", path)
        yield call("open", path, os.O_RDONLY | os.O_NONBLOCK, slot=0)
        yield call("lstat", f"{path}/e")
        yield call("open", f"{path}/f", os.O_RDONLY, slot=1)
        yield call("readlink", path)
        yield call("listxattr", path, follow_symlinks=False)
    for path in paths:
        yield call("utime", path, ns=(1, 1), follow_symlinks=False)
        yield call("open", f"{path}/new", os.O_RDWR | os.O_CREAT, 0o644, slot=2)
        yield call("truncate", path, 2)
        yield call("link", path, f"{path}-link", follow_symlinks=False)
        yield call("rename", path, f"{path}-moved")
        yield call("lstat", f"{path}-moved")
        yield call("rmdir", f"{path}-moved")
        yield call("unlink", f"{path}-link")
    yield call("listdir", "/")


def check(oracle: Kernel, make_box, lowers, upper, options, *paths: str) -> None:
    trial = Trial(Stack(lowers, upper, options, False), tuple(everything_on(*paths)))
    assert diverges(oracle, make_box, trial) == []


@pytest.mark.parametrize("value", dict.fromkeys(REDIRECTS), ids=lambda value: repr(value[:20]))
def test_redirects(oracle: Kernel, make_box, options, value: bytes):
    marked = directory(marks={"redirect": value})
    # At the root, in a merged, an opaque and a pure upper directory; what it may lead to is hidden at its own place.
    upper = {
        "/n/": marked,
        "/top/n/": marked,
        "/o/": directory(opaque=True),
        "/o/n/": marked,
        "/p/n/": marked,
        "/d": WHITEOUT,
        "/top/d": WHITEOUT,
    }
    for path in ("/n", "/top/n", "/o/n", "/p/n"):
        alone = {one: node for one, node in upper.items() if node is not marked or one == f"{path}/"}
        check(oracle, make_box, [LOWER], alone, options, path)
    check(oracle, make_box, [{"/n/": marked, "/d": WHITEOUT}, LOWER], {}, options, "/n")


@pytest.mark.parametrize("value", dict.fromkeys(REDIRECTS), ids=lambda value: repr(value[:20]))
def test_redirects_of_files_without_contents(oracle: Kernel, make_box, options, value: bytes):
    marked = file(bytes(4), marks={"metacopy": b"", "redirect": value})
    check(oracle, make_box, [LOWER], {"/n": marked, "/f": WHITEOUT, "/d/f": WHITEOUT}, options, "/n")
    check(oracle, make_box, [{"/n": marked, "/f": WHITEOUT}, LOWER], {}, options, "/n")


@pytest.mark.parametrize("value", METACOPIES, ids=lambda value: repr(value[:20]))
def test_metacopy_marks(oracle: Kernel, make_box, options, value: bytes):
    marked = file(bytes(4), marks={"metacopy": value})
    upper = {"/f": marked, "/d/": directory(marks={"metacopy": value}), "/s": symlink("d", marks={"metacopy": value})}
    check(oracle, make_box, [LOWER], upper, options, "/f", "/d", "/s")
    check(oracle, make_box, [LOWER], {"/n": marked}, options, "/n")
    check(oracle, make_box, [{"/f": marked, "/n": marked}, LOWER], {}, options, "/f", "/n")


@pytest.mark.parametrize("value", ORIGINS, ids=lambda value: repr(value[:20]))
def test_origin_marks(oracle: Kernel, make_box, options, value: bytes):
    marks = {"origin": value}
    upper = {
        "/f": file("upper", marks=marks),
        "/d/": directory(marks=marks),
        "/s": symlink("d", marks=marks),
        "/h": file("upper", marks=marks),
        "/n": file("upper", marks=marks),
        "/p/": directory(marks=marks),
    }
    check(oracle, make_box, [LOWER], upper, options, "/f", "/d", "/s", "/h", "/n", "/p")


@pytest.mark.parametrize("value", OPAQUES, ids=repr)
def test_opaque_marks(oracle: Kernel, make_box, options, value: bytes):
    marked = directory(marks={"opaque": value})
    upper = {"/d/": marked, "/f": file("upper", marks={"opaque": value}), "/p/": marked}
    check(oracle, make_box, [LOWER], upper, options, "/d", "/f", "/p")
    check(oracle, make_box, [{"/d/": marked}, LOWER], {}, options, "/d")


def test_redirects_in_a_circle(oracle: Kernel, make_box, options):
    there = {"/a/": directory(redirect="/b"), "/a/one": "1"}
    back = {"/b/": directory(redirect="/a"), "/b/two": "2"}
    lowers = [there, back] * 4
    check(oracle, make_box, lowers, {}, options, "/a")
    check(oracle, make_box, lowers, {"/c/": directory(redirect="/a"), "/a": WHITEOUT}, options, "/c")
    check(oracle, make_box, [LOWER], {"/d/": directory(redirect="/d/e"), "/n/": DIR}, options, "/d")
    check(oracle, make_box, [LOWER], {"/n/": directory(redirect="/n")}, options, "/n")
