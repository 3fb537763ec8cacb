"""What is remembered never shows: with every cache, with none, and with room for 8 names a tree behaves the same.

Two ways to see that. In lockstep with the kernel, every look an operation takes is also taken through the PyFilesystem
face, which answers from the caches. And three overlays over equal layers, one for each bound, are asked about names all
over the tree after every operation. The third part is about threads: whoever looks after a write returned sees it.
"""

import os
import stat
import sys
import threading
from functools import partial
from random import Random

import pytest
from fs.errors import FSError

from overlayvfs import MemoryFS, OverlayFS
from overlayvfs.testing.bodies import EngineOnHost, EngineOnMemory
from overlayvfs.testing.kernel import Kernel
from overlayvfs.testing.lockstep import run_random
from overlayvfs.testing.machine import machine
from overlayvfs.testing.ops import Runner
from overlayvfs.testing.random_stacks import NAMES, PLANTED, Profile, random_stack
from overlayvfs.testing.sequences import Operations
from overlayvfs.testing.tally import Tally

BOUNDS = {"all": {}, "none": {"cache_names": 0, "cache_bytes": 0}, "8 names": {"cache_names": 8, "cache_bytes": 64}}

# Hand-made redirects are left out: which of two directories that lead to one lower is ESTALE depends on which was
# looked up first, and Linux's own answer on how much memory there is.
PROFILES = {
    "plain": Profile(),
    "hostile": Profile(hostile=True),
    "redirect_dir": Profile(options={"redirect_dir": "on"}),
    "index": Profile(options={"index": "on"}),
    "metacopy": Profile(options={"metacopy": "on"}),
    "separate": Profile(separate=True),
}


def bounded(body, bounds):
    """Return a kind of box whose overlay remembers so much, and whose looks are also taken through the face."""

    class Bounded(body):
        @property
        def os(self):
            return Looking(super().os, self.face)

        @property
        def face(self):
            return self._overlay

        def _places(self):
            return super()._places() | bounds

    return Bounded


class Looking:
    """An os module whose looks at a path have to agree with the PyFilesystem face, asked before and after."""

    def __init__(self, osmod, face):
        self._os = osmod
        self._face = face

    def __getattr__(self, name):
        return getattr(self._os, name)

    def stat(self, path, **options):
        before = shown(self._face, "stat", path)
        seen = answer(lambda: fields(self._os.stat(path, **options)))
        after = shown(self._face, "stat", path)
        assert before == seen == after, f"{path!r}: face {before}, os {seen}, then face {after}"
        return self._os.stat(path, **options)

    def listdir(self, path):
        before = shown(self._face, "listdir", path)
        seen = answer(lambda: sorted(self._os.listdir(path)))
        after = shown(self._face, "listdir", path)
        assert before == seen == after, f"{path!r}: face {before}, os {seen}, then face {after}"
        return self._os.listdir(path)

    def open(self, path, flags, *mode, **options):
        fd = self._os.open(path, flags, *mode, **options)
        if flags == os.O_RDONLY and is_plain(path) and stat.S_ISREG(self._os.fstat(fd).st_mode):
            size = self._os.fstat(fd).st_size
            data = self._os.pread(fd, size, 0)
            assert self._face.readbytes(path) == data, f"{path!r}: face {self._face.readbytes(path)!r}, os {data!r}"
            with self._face.openbin(path) as file:
                assert file.read() == data
        return fd


def is_plain(path):
    """Tell whether a path means the same to both faces: PyFilesystem resolves `..` before symlinks."""
    if not isinstance(path, str) or len(path) > 1000:
        return False
    return path == "/" or (path.startswith("/") and {"", ".", ".."}.isdisjoint(path[1:].split("/")))


def shown(face, what, path):
    """Return what the face says in the os module's terms; for paths that mean something else to it, nothing."""
    if not is_plain(path):
        return Anything()
    if what == "listdir":
        return answer(lambda: sorted(face.listdir(path)))
    seen = answer(lambda: face_fields(face, path))
    assert face.exists(path) == isinstance(seen, dict) or seen == "EIO"
    return seen


class Anything:
    def __eq__(self, other):
        return True

    __hash__ = None


def answer(look):
    """Return what a look comes to, an errno's name if it fails."""
    try:
        return look()
    except FSError as error:
        return os.strerror(error.__cause__.errno)
    except OSError as error:
        return os.strerror(error.errno)


def fields(st):
    return {
        name: getattr(st, name) for name in ("st_mode", "st_ino", "st_dev", "st_nlink", "st_uid", "st_gid", "st_size")
    }


def face_fields(face, path):
    info = face.getinfo(path, ["stat", "details"])
    assert info.is_dir == face.isdir(path) != face.isfile(path)
    assert info.size == info.get("stat", "st_size")
    return {name: info.get("stat", name) for name in fields(os.stat("/"))}


@pytest.mark.kernel
@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("bounds", BOUNDS)
def test_bounds_agree_with_the_kernel(oracle: Kernel, bounds, profile):
    body = bounded(EngineOnMemory, BOUNDS[bounds])
    for seed in range(15):
        run_random(oracle, body, PROFILES[profile], seed, 40, Tally())


@pytest.mark.kernel
@pytest.mark.parametrize("bounds", BOUNDS)
def test_bounds_agree_with_the_kernel_over_host_directories(oracle: Kernel, bounds):
    body = bounded(EngineOnHost, BOUNDS[bounds])
    for seed in range(8):
        run_random(oracle, body, Profile(), seed, 40, Tally())


def at_the_wheel(bounds):
    return machine(bounded(EngineOnMemory, BOUNDS[bounds]), PROFILES["redirect_dir"])


@pytest.mark.kernel
@pytest.mark.slow
class TestHypothesisAtTheWheelWithAllCaches(at_the_wheel("all")):
    """Hypothesis draws; looks are taken through the face too."""


@pytest.mark.kernel
@pytest.mark.slow
class TestHypothesisAtTheWheelWithoutCaches(at_the_wheel("none")):
    """The same, and nothing is remembered."""


@pytest.mark.kernel
@pytest.mark.slow
class TestHypothesisAtTheWheelWithRoomFor8Names(at_the_wheel("8 names")):
    """The same, and eight names are remembered."""


@pytest.mark.parametrize("profile", PROFILES)
def test_three_bounds_show_one_tree(profile):
    for seed in range(5):
        makers = {name: bounded(EngineOnMemory, each) for name, each in BOUNDS.items()}
        walk_in_step(PROFILES[profile], makers, seed, 40)


class VerbByVerb(EngineOnMemory):
    """An overlay whose upper finds nothing by number: whole reads and writes take a path and an open file."""

    def start(self, stack):
        super().start(stack)
        mnt = self._overlay._overlay._mnt
        mnt.numbered_upper = None
        self._overlay._stored_content = self._overlay._stored_stat = lambda number: None


@pytest.mark.parametrize("profile", PROFILES)
def test_whole_files_are_written_at_once_as_verb_by_verb(profile):
    for seed in range(8):
        makers = {"at once": EngineOnMemory, "8 names": EngineOnMemory, "none": VerbByVerb}
        makers = {name: bounded(body, BOUNDS.get(name, {})) for name, body in makers.items()}
        walk_in_step(PROFILES[profile], makers, seed, 40)


def walk_in_step(profile, makers, seed, length):
    rng = Random(seed)
    stack = random_stack(rng, profile)
    operations = Operations(rng, stack, profile)
    boxes = {name: make() for name, make in makers.items()}
    try:
        for box in boxes.values():
            box.start(stack)
        runners = {name: Runner(box.os) for name, box in boxes.items()}
        done = []
        for _ in range(length):
            op = operations.draw()
            done.append(op)
            outcomes = {name: runner.run(op) for name, runner in runners.items()}
            assert_same(outcomes, seed, done)
            operations.learn(op, outcomes["none"])
            path, data = rng.choice(some_paths(rng)), rng.choice((b"", b"short", b"x" * 5000))
            done.append(("writebytes", path, len(data)))
            assert_same({name: written(box, path, data) for name, box in boxes.items()}, seed, done)
            for path in some_paths(rng):
                assert_same({name: look_around(box.face, path) for name, box in boxes.items()}, seed, [*done, path])
        if stack.upper is not None:
            assert_same({name: box.snapshot("upper") for name, box in boxes.items()}, seed, done)
        for runner in runners.values():
            runner.close()
    finally:
        for box in boxes.values():
            box.finish()


def written(box, path, data):
    """Write a whole file, and again: the second time it is known."""
    return [answer(partial(box.face.writebytes, path, each)) for each in (data, data + data)]


def assert_same(answers, seed, done):
    first = next(iter(answers.values()))
    told = "\n".join(f"{name}: {each}" for name, each in answers.items())
    assert all(each == first for each in answers.values()), f"seed {seed}\n{told}\nafter {done}"


def some_paths(rng):
    """Return paths all over a random tree, as callers spell them: with a slash in front or without."""
    names = (*NAMES, *PLANTED)
    paths = ["/".join(rng.choice(names) for _ in range(depth)) for depth in (1, 1, 2, 2, 3)]
    return [rng.choice(("/", "")) + path for path in paths] + ["/"]


def look_around(face, path):
    return {
        "exists": face.exists(path),
        "isdir": face.isdir(path),
        "isfile": face.isfile(path),
        "islink": answer(lambda: face.islink(path)),
        "getinfo": answer(lambda: without_identity(face, path)),
        "listdir": answer(lambda: sorted(face.listdir(path))),
        "scandir": answer(lambda: sorted((info.name, info.is_dir) for info in face.scandir(path))),
        "readbytes": answer(lambda: face.readbytes(path)) if face.isfile(path) and is_regular(face, path) else None,
    }


def is_regular(face, path):
    return stat.S_ISREG(face.getinfo(path, ["stat"]).get("stat", "st_mode"))


def without_identity(face, path):
    """Return attributes: three overlays have numbers of their own."""
    seen = face_fields(face, path)
    return {name: value for name, value in seen.items() if name not in ("st_ino", "st_dev")}


VERSIONS = 120
"""How many changes the writer makes."""
READERS = 7
KEPT = 3
"""How many of the names that come and go are there at a time."""


class Shared:
    """A tree one thread changes, version by version, while others look; all the same is known of each version.

    Version `v` replaces /d/counter (rename: it is always there), writes /d/whole anew where it is, adds /d/n<v> and
    removes /d/n<v - KEPT>, moves the directory /moved<v - 1> to /moved<v>, and of the lower's files removes
    /low/gone<v>, replaces /low/new<v> and changes the mode of /low/mode<v>.
    """

    def __init__(self, bounds):
        lower = MemoryFS()
        lower.makedir("/low")
        for version in range(1, VERSIONS + 10):
            for name in ("gone", "new", "mode"):
                lower.writebytes(f"/low/{name}{version}", b"old")
        self.tree = OverlayFS([lower], MemoryFS(), **bounds)
        self.tree.makedir("/d")
        self.tree.writebytes("/d/counter", self.counter(0))
        self.tree.writebytes("/d/whole", self.counter(0))
        self.tree.makedir("/moved0")
        self.tree.writebytes("/moved0/f", b"")
        self.version = 0
        """The last one that is complete."""
        self.wrong = []

    @staticmethod
    def counter(version):
        return b"%d" % version + b"." * version

    def write(self):
        try:
            for version in range(1, VERSIONS + 1):
                self._write(version)
                self.version = version
        except BaseException as error:
            self.wrong.append(f"{type(error).__name__}: {error}")
            raise
        finally:
            # Readers wait for the last version.
            self.version = VERSIONS

    def _write(self, version):
        tree = self.tree
        for path, data in (("/d/counter", self.counter(version)), (f"/low/new{version}", b"new")):
            tree.writebytes("/d/temporary", data)
            tree.os.rename("/d/temporary", path)
        tree.writebytes("/d/whole", self.counter(version))
        tree.writebytes(f"/d/n{version}", b"")
        if version > KEPT:
            tree.remove(f"/d/n{version - KEPT}")
        tree.os.rename(f"/moved{version - 1}", f"/moved{version}")
        tree.remove(f"/low/gone{version}")
        tree.os.chmod(f"/low/mode{version}", 0o600)

    def read(self, seed):
        rng = Random(seed)
        looks = [self.look_at_counter, self.look_at_whole, self.look_at_names, self.look_at_moved, self.look_at_lower]
        # Takes a hundred times as long as the others.
        looks = [*looks * 5, self.look_at_changes]
        try:
            while self.version < VERSIONS:
                rng.choice(looks)(rng, rng.choice(("/", "")))
        except BaseException as error:
            self.wrong.append(f"{type(error).__name__}: {error}")
            raise

    def expect(self, allowed, seen, what):
        if seen not in allowed:
            self.wrong.append(f"{what}: {seen!r}, not {allowed!r}")

    def look_at_counter(self, rng, root):
        path = f"{root}d/counter"
        for look, answer_of in (
            (self.tree.readbytes, bytes),
            (lambda path: read_and_close(self.tree.openbin(path)), bytes),
            (self.tree.getsize, len),
        ):
            start = self.version
            seen = look(path)
            allowed = [answer_of(self.counter(version)) for version in range(start, self.version + 2)]
            self.expect(allowed, seen, f"{path} at {start}")

    def look_at_whole(self, rng, root):
        path = f"{root}d/whole"
        start = self.version
        seen = self.tree.readbytes(path)
        # open(2), write(2): between the two it is empty.
        allowed = [self.counter(version) for version in range(start, self.version + 2)] + [b""]
        self.expect(allowed, seen, f"{path} at {start}")

    def look_at_changes(self, rng, root):
        start = self.version
        changes = {change.path: change.kind for change in self.tree.changes()}
        end = self.version
        for number in range(max(1, start - KEPT - 2), end + 4):
            shown = changes.get(f"/d/n{number}") == "A"
            self.expect(there(start, number, number + KEPT, end), shown, f"n{number} among changes at {start}")
            gone = changes.get(f"/low/gone{number}") == "D"
            self.expect(there(start, number, VERSIONS + 20, end), gone, f"gone{number} among changes at {start}")

    def look_at_names(self, rng, root):
        start = self.version
        names = set(self.tree.listdir(f"{root}d"))
        end = self.version
        version = start + rng.randint(-KEPT - 2, 3)
        path = f"{root}d/n{version}"
        for number in range(max(1, start - KEPT - 2), end + 4):
            self.expect(there(start, number, number + KEPT, end), f"n{number}" in names, f"n{number} listed at {start}")
        start = self.version
        seen = self.tree.exists(path)
        if version > 0:
            self.expect(there(start, version, version + KEPT, self.version), seen, f"{path} at {start}")

    def look_at_moved(self, rng, root):
        start = self.version
        version = max(0, start + rng.randint(-2, 3))
        for path in (f"{root}moved{version}", f"{root}moved{version}/f"):
            start = self.version
            seen = self.tree.exists(path)
            self.expect(there(start, version, version + 1, self.version), seen, f"{path} at {start}")

    def look_at_lower(self, rng, root):
        version = max(1, self.version + rng.randint(-3, 3))
        start = self.version
        seen = self.tree.exists(f"{root}low/gone{version}")
        self.expect(there(start, -1, version, self.version), seen, f"gone{version} at {start}")
        start = self.version
        data = self.tree.readbytes(f"{root}low/new{version}")
        replaced = there(start, version, VERSIONS + 1, self.version)
        self.expect([b"new" if new else b"old" for new in replaced], data, f"new{version} at {start}")
        start = self.version
        permissions = self.tree.getinfo(f"{root}low/mode{version}", ["access"]).permissions.mode
        changed = there(start, version, VERSIONS + 1, self.version)
        self.expect([0o600 if new else 0o644 for new in changed], permissions, f"mode{version} at {start}")


def there(start, since, until, end):
    """Return the answers a look may give at something that is there since one version and until another.

    The look began after version `start` was complete and ended before `end` + 2 was.
    """
    certain = start >= since and end + 1 < until
    impossible = end + 1 < since or start >= until
    return [True] if certain else [False] if impossible else [False, True]


def read_and_close(file):
    with file:
        return file.read()


@pytest.fixture
def eager_threads():
    """Threads take turns a thousand times as often as they do by themselves."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(5e-6)
    yield
    sys.setswitchinterval(interval)


@pytest.mark.parametrize("bounds", BOUNDS)
def test_readers_never_see_what_was_before_a_write_that_returned(eager_threads, bounds):
    shared = Shared(BOUNDS[bounds])
    threads = [threading.Thread(target=shared.read, args=(seed,)) for seed in range(READERS)]
    threads.append(threading.Thread(target=shared.write))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert shared.wrong == []
    assert sorted(shared.tree.listdir("/d")) == sorted(
        ["counter", "whole", *(f"n{VERSIONS - back}" for back in range(KEPT))]
    )
