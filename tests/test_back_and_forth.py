"""One upper for the engine and the kernel in turns: the format on disk is the kernel's, both ways.

On tmpfs, and on ext4 and xfs in images on loop devices where these can be had. A longer run, with figures:
`python -m overlayvfs.testing.longrun --body back-and-forth --filesystem ext4 --sequences 2000`.
"""

import os
import shutil
import stat
import time
from functools import partial

import pytest

from overlayvfs.testing import DIR, FRESH, WHITEOUT, Kernel, NoOracle, fifo, file, hardlink, symlink
from overlayvfs.testing.backandforth import BackAndForth
from overlayvfs.testing.kernel import FILESYSTEMS
from overlayvfs.testing.lockstep import Divergence, run_random
from overlayvfs.testing.longrun import maker
from overlayvfs.testing.random_stacks import Profile
from overlayvfs.testing.tally import Tally

pytestmark = pytest.mark.kernel

OPTIONS = {
    "none": {},
    "redirect_dir=on": {"redirect_dir": "on"},
    "index=on": {"index": "on"},
    "metacopy=on": {"metacopy": "on"},
    "all": {"redirect_dir": "on", "index": "on", "metacopy": "on", "xino": "on"},
}
FIXED = 25
"""Sequences of fixed seeds for each file system and set of options: a minute together."""


@pytest.fixture(params=FILESYSTEMS)
def kernel(request: pytest.FixtureRequest, oracle: Kernel) -> Kernel:
    if oracle.kind != "root":
        pytest.skip("a user namespace's overlay reads only some of what this library writes (KB 1.7, 1.10)")
    try:
        return Kernel.on(request.param)
    except NoOracle as error:
        pytest.skip(f"no {request.param} image can be mounted here: {error}")


@pytest.fixture(params=["engine first", "kernel first"])
def box(request: pytest.FixtureRequest, kernel: Kernel):
    made = BackAndForth(kernel, engine_first=request.param == "engine first")
    yield made
    made.finish()


def run(kernel: Kernel, options: dict[str, str], seeds: range) -> None:
    for seed in seeds:
        manner = Profile(options, marks=True, hostile=kernel.filesystem == "tmpfs", remounts=True)
        run_random(kernel, maker("back-and-forth", kernel, manner, seed), manner, seed, 30, Tally())


# In random sequences.


@pytest.mark.slow
@pytest.mark.parametrize("options", OPTIONS)
def test_fixed_seeds_show_no_divergence(kernel: Kernel, options: str):
    run(kernel, OPTIONS[options], range(FIXED))


def test_a_few_sequences_show_no_divergence(kernel: Kernel):
    run(kernel, {}, range(4))
    run(kernel, OPTIONS["all"], range(4, 8))


@pytest.mark.slow
def test_fresh_seeds_show_no_divergence(kernel: Kernel, pytestconfig: pytest.Config):
    # A third of what was asked for each file system.
    seconds = pytestconfig.option.kernel_seconds / len(FILESYSTEMS)
    at = pytestconfig.option.seed
    every = list(OPTIONS.values())
    started = time.monotonic()
    while at == pytestconfig.option.seed or time.monotonic() - started < seconds:
        run(kernel, every[at % len(every)], range(at, at + 1))
        at += 1
    print(f"{at - pytestconfig.option.seed} fresh sequences on {kernel.filesystem}")


class Misspelt(BackAndForth):
    """An engine that spells its marks in a namespace the kernel does not look at."""

    def _places(self):
        return {**super()._places(), "userxattr": True}


def run_misspelt(kernel: Kernel) -> None:
    for seed in range(20):
        run_random(kernel, partial(Misspelt, kernel), Profile(remounts=True), seed, 30, Tally())


def test_marks_in_another_namespace_show_as_a_divergence(oracle: Kernel):
    with pytest.raises(Divergence):
        run_misspelt(oracle)


# What one wrote the other shows.


def test_whiteouts_and_opaque_directories(box: BackAndForth):
    box.lower({"/d/f": "x", "/d/g": "y", "/gone": "z"})
    box.os.unlink("/gone")
    box.os.unlink("/d/f")
    box.os.unlink("/d/g")
    box.os.rmdir("/d")
    box.os.mkdir("/d")
    box.remount()
    assert box.tree() == {"/d/": DIR}
    box.os.rmdir("/d")
    box.remount()
    assert box.tree() == {}
    assert box.upper_tree() == {"/d": WHITEOUT, "/gone": WHITEOUT}


def test_redirects(box: BackAndForth):
    box.lower({"/d/sub/f": "x"})
    box.mount(redirect_dir="on")
    numbers = {path: box.os.stat(path).st_ino for path in ("/d", "/d/sub", "/d/sub/f")}
    box.os.rename("/d", "/e")
    box.os.rename("/e/sub", "/s")
    box.remount()
    assert box.tree() == {"/e/": DIR, "/s/f": "x"}
    assert [box.os.stat(path).st_ino for path in ("/e", "/s", "/s/f")] == list(numbers.values())
    box.os.rename("/s", "/e/sub")
    box.os.rename("/e", "/d")
    box.remount()
    assert {path: box.os.stat(path).st_ino for path in numbers} == numbers


def test_hard_links_with_an_index(box: BackAndForth):
    box.lower({"/a": "x", "/b": hardlink("/a"), "/c": hardlink("/a")})
    box.mount(index="on")
    number = box.os.stat("/a").st_ino
    box.write("/a", b"one")
    box.remount()
    assert (box.read("/b"), box.os.stat("/b").st_nlink, box.os.stat("/b").st_ino) == (b"one", 3, number)
    box.os.link("/b", "/d")
    box.write("/c", b"two")
    box.os.unlink("/a")
    box.remount()
    assert box.tree() == {"/b": "two", "/c": hardlink("/b"), "/d": hardlink("/b")}
    assert (box.os.stat("/d").st_nlink, box.os.stat("/d").st_ino) == (3, number)


def test_metadata_only_copies(box: BackAndForth):
    box.lower({"/f": file("data", mode=0o600), "/g": "other"})
    box.mount(metacopy="on", redirect_dir="on")
    box.os.chmod("/f", 0o755)
    box.os.rename("/f", "/moved")
    box.remount()
    assert box.tree() == {"/g": "other", "/moved": file("data", mode=0o755)}
    box.write("/moved", b"D", os.O_WRONLY)
    box.os.link("/g", "/h")
    box.remount()
    assert box.tree() == {"/g": "other", "/h": hardlink("/g"), "/moved": file("Data", mode=0o755)}


def test_the_root_has_one_number(box: BackAndForth):
    box.lower({"/f": "x"})
    number = box.os.stat("/").st_ino
    box.remount()
    assert box.os.stat("/").st_ino == number


def test_truncate_to_the_same_size_leaves_the_times_to_the_file_system(kernel: Kernel):
    seen = []
    for engine_first in (True, False):
        box = BackAndForth(kernel, engine_first=engine_first)
        box.upper({"/empty": "", "/three": "abc"})
        box.lower({"/low": "", "/low three": "abc"})
        sizes = {"/empty": 0, "/three": 3, "/low": 0, "/low three": 3}
        for path, size in sizes.items():
            box.os.truncate(path, size)
        seen.append([box.os.stat(path).st_mtime_ns >= FRESH for path in sizes])
        box.finish()
    assert seen[0] == seen[1]


# The marks themselves.


class FromScratch(BackAndForth):
    """Whoever's turn it is finds an empty upper and an empty work directory."""

    def _take_turn(self) -> None:
        for place in (self._upper_layer, self._work):
            for name in os.listdir(place):
                path = f"{place}/{name}"
                shutil.rmtree(path) if stat.S_ISDIR(os.lstat(path).st_mode) else os.unlink(path)
            for name in os.listxattr(place):
                os.removexattr(place, name)
        super()._take_turn()

    def marks(self) -> dict[str, dict[str, bytes]]:
        """Return every mark of the upper, of the index and of its entries, as they are on disk.

        Less a whiteout that Linux keeps in the index to link others from, and which mount made the upper.
        """
        found = {}
        for top in (self._upper_layer, f"{self._work}/index"):
            for directory, dirs, files in os.walk(top):
                for path in (directory, *(f"{directory}/{name}" for name in (*dirs, *files))):
                    names = os.listxattr(path, follow_symlinks=False)
                    marks = {name: os.getxattr(path, name, follow_symlinks=False) for name in names}
                    if not path.rpartition("/")[2].startswith("#"):
                        found[path] = {name: value for name, value in marks.items() if not name.endswith(".uuid")}
        return found


@pytest.mark.parametrize("separate", [False, True])
def test_every_mark_is_the_kernels_byte_for_byte(kernel: Kernel, separate: bool):
    box = FromScratch(kernel)
    box.lower({"/d/f": "x", "/s": symlink("d"), "/p": fifo(), "/e/x": "y", "/a": "z", "/b": hardlink("/a"), "/m": "m"})
    box.lower({"/below/f": "x", "/below/g": hardlink("/below/f")})
    box.mount(separate=separate, index="on", redirect_dir="on", metacopy="on")
    seen = []
    for _ in ("engine", "kernel"):
        box.os.rename("/e", "/d/moved")
        for path in ("/d/f", "/s", "/p", "/b", "/below/g"):
            box.os.utime(path, ns=(1, 1), follow_symlinks=False)
        box.os.link("/m", "/n")
        box.os.unlink("/a")
        seen.append(box.marks())
        box.remount()
    engine, kernels = seen
    box.finish()
    assert engine == kernels
    origins = [marks["trusted.overlay.origin"] for marks in engine.values() if "trusted.overlay.origin" in marks]
    assert len(set(origins)) >= 9
    assert all(value[:2] == b"\0\xfb" and len(value) > 21 for value in origins)
