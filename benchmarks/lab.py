"""What a family of benchmarks is given: a place for files, overlay mounts, races, and goals to hold results to."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

from overlayvfs.cli.race import MIN_NS, ROUNDS, Contender, Ratio, Result, race
from overlayvfs.testing import hostos
from overlayvfs.testing.worker import enter_namespaces

QUICK_ROUNDS = 3
QUICK_NS = 20_000


@dataclass(frozen=True, slots=True)
class Goal:
    """One figure that is to be reached, and what was measured."""

    row: str
    """The row of the goals table in the issue."""
    what: str
    limit: float
    value: float | None
    """None: could not be measured; `note` says why."""
    at_least: bool = False
    """The figure is to be no less than the limit (otherwise: no more)."""
    ratio: Ratio | None = None
    """All about `value` where it is the ratio of two contenders."""
    note: str = ""

    @property
    def verdict(self) -> str:
        """Whether it was reached, in one word."""
        if self.value is None:
            return "n/a"
        reached = self.value >= self.limit if self.at_least else self.value <= self.limit
        return "pass" if reached else "MISS"


class WrongCount(Exception):
    """An operation asked its layers more often than it may."""


class Overlays:
    """The kernel's overlayfs, mounted in this process's own mount namespace, on layers in a tmpfs."""

    def __init__(self, kind: str, place: Path) -> None:
        self.kind = kind
        self._place = place
        self._numbers = count()

    def mount(self, lowers: Sequence[Path]) -> Path:
        """Mount read-only layers (highest first) below a fresh upper and return where the merged tree is."""
        place = self._place / f"k{next(self._numbers)}"
        for name in ("u", "w", "m"):
            (place / name).mkdir(parents=True)
        # Relative to where the lowers are: mount(2) takes one page of options, and they may be 500.
        base = os.path.commonpath([lower.parent for lower in lowers])
        data = "lowerdir=" + ":".join(os.path.relpath(lower, base) for lower in lowers)
        data += "".join(f",{name}={os.path.relpath(place, base)}/{name[0]}" for name in ("upperdir", "workdir"))
        here = os.open(".", os.O_PATH)
        try:
            os.chdir(base)
            hostos.mount("overlay", str(place / "m"), "overlay", 0, data + self._options())
        finally:
            os.fchdir(here)
            os.close(here)
        return place / "m"

    def discard(self, merged: Path) -> None:
        """Take a mount and its upper away."""
        hostos.umount(str(merged))
        shutil.rmtree(merged.parent)

    def _options(self) -> str:
        return ",userxattr" if self.kind == "userns" else ""


@dataclass
class Lab:
    """Runs races, keeps their results and says at once how each goal fared."""

    scratch: Path
    """A directory for layers on the host: a tmpfs where the process may mount one."""
    kernel: Overlays | None
    """None where no overlay can be mounted; `kernel_note` says why."""
    kernel_note: str = ""
    quick: bool = False
    rounds: int = ROUNDS
    results: list[Result] = field(default_factory=list)
    goals: list[Goal] = field(default_factory=list)
    tell: Callable[[str], None] = print

    def race(self, name: str, unit: str, contenders: Iterable[Contender]) -> Result:
        """Run one race and show its table. Raises WrongAnswer."""
        rounds, min_ns = (QUICK_ROUNDS, QUICK_NS) if self.quick else (self.rounds, MIN_NS)
        result = race(name, unit, contenders, rounds=rounds, min_ns=min_ns)
        self.results.append(result)
        self.tell(f"\n{name}, ns per {unit}: best (cpu)")
        for contender, times in result.times.items():
            self.tell(f"  {contender:<40} {times.best:>14,.0f} ({times.best_cpu:,.0f})")
        return result

    def goal(self, row: str, what: str, ratio: Ratio | float | None, limit: float, *, at_least: bool = False) -> None:
        """Hold one ratio or figure to its goal."""
        note = "" if ratio is not None else (self.kernel_note or "a contender is missing")
        value = ratio.best if isinstance(ratio, Ratio) else ratio
        goal = Goal(row, what, limit, value, at_least, ratio if isinstance(ratio, Ratio) else None, note)
        self.goals.append(goal)
        self.tell(f"  → {spelt(goal)}")

    def quicker(self, row: str, what: str, ratio: Ratio | None, times: float) -> None:
        """Hold theirs ÷ ours to "at least `times`": `ratio` is ours ÷ theirs."""
        turned = None if ratio is None else Ratio(1 / ratio.best, 1 / ratio.median, 1 / max(ratio.cpu, 1e-9))
        self.goal(row, what, turned, times, at_least=True)

    def count(self, what: str, counted: int, allowed: int) -> None:
        """Check how often the layers were asked. Raises WrongCount."""
        if counted > allowed:
            raise WrongCount(f"{what}: {counted} layer calls, {allowed} allowed")
        self.tell(f"  {what}: {counted} layer calls (at most {allowed})")

    def directory(self, name: str) -> Path:
        """Return a new directory on the host."""
        place = self.scratch / name
        place.mkdir(parents=True)
        return place


def spelt(goal: Goal) -> str:
    """Return a goal as one line of text."""
    sign = "≥" if goal.at_least else "≤"
    value = goal.note if goal.value is None else f"{goal.value:.4g}"
    more = "" if goal.ratio is None else f" (median {goal.ratio.median:.4g}, cpu {goal.ratio.cpu:.4g})"
    return f"{goal.row:>3} {goal.verdict:<4} {value}{more}, goal {sign} {goal.limit:g}: {goal.what}"


@contextmanager
def open_lab(*, quick: bool = False, rounds: int = ROUNDS) -> Iterator[Lab]:
    """Make a laboratory: on Linux in a mount namespace of its own, so that nothing is left behind.

    Call it in a process without other threads: a threaded one can't enter a user namespace.
    """
    with tempfile.TemporaryDirectory(prefix="overlayvfs-bench-") as name:
        kind = "root" if hostos.is_root() else "userns"
        try:
            enter_namespaces(kind)
            hostos.mount("overlayvfs-bench", name, "tmpfs", hostos.MS_NOATIME, "mode=755")
        except (OSError, AttributeError) as error:
            yield Lab(Path(name), None, f"no mount namespace: {error}", quick, rounds)
            return
        try:
            overlays = Overlays(kind, Path(name))
            (Path(name) / "empty").mkdir()
            try:
                overlays.discard(overlays.mount([Path(name) / "empty"]))
            except OSError as error:
                yield Lab(Path(name), None, f"no overlay mount: {error}", quick, rounds)
            else:
                yield Lab(Path(name), overlays, "", quick, rounds)
        finally:
            hostos.umount(name, hostos.MNT_DETACH)
