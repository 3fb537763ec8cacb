"""What a family of benchmarks is given: a place for files, the host's unions, races, and goals to hold results to."""

import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from benchmarks import peers
from benchmarks.unions import Union, available
from overlayvfs.cli.race import MIN_NS, ROUNDS, Contender, Ratio, Result, race
from overlayvfs.testing import hostos
from overlayvfs.testing.worker import enter_namespaces

QUICK_ROUNDS = 2
QUICK_NS = 1000

KERNEL = "kernel overlayfs"

T = TypeVar("T")


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


@dataclass(frozen=True, slots=True)
class Count:
    """How often something asked its layers, and how often it may."""

    what: str
    counted: int
    allowed: int


@dataclass
class Lab:
    """Runs races, keeps their results and says at once how each goal fared."""

    scratch: Path
    """A directory for layers on the host: a tmpfs where the process may mount one."""
    unions: Mapping[str, Union] = field(default_factory=dict)
    """The host's own unions that can be mounted here, by the name of the contender."""
    missing: dict[str, str] = field(default_factory=dict)
    """Contenders that can't take part, and why."""
    quick: bool = False
    rounds: int = ROUNDS
    results: list[Result] = field(default_factory=list)
    goals: list[Goal] = field(default_factory=list)
    counts: list[Count] = field(default_factory=list)
    curves: dict[str, dict[str, list[tuple[int, float]]]] = field(default_factory=dict)
    """Plots: title → contender → (depth, ns)."""
    tell: Callable[[str], None] = print

    def __post_init__(self) -> None:
        if peers.sandfs() is None:
            self.missing["sandfs"] = "not installed"

    @property
    def kernel(self) -> Union | None:
        """The kernel's overlayfs, None where it can't be mounted."""
        return self.unions.get(KERNEL)

    def sized(self, full: T, quick: T) -> T:
        """Return how much to do: a quick run is for results and counts, and these show at any size."""
        return quick if self.quick else full

    def race(self, name: str, unit: str, contenders: Iterable[Contender], *, most: int = ROUNDS) -> Result:
        """Run one race of at most `most` rounds and show its table. Raises WrongAnswer."""
        rounds, min_ns = (QUICK_ROUNDS, QUICK_NS) if self.quick else (min(self.rounds, most), MIN_NS)
        result = race(name, unit, contenders, rounds=rounds, min_ns=min_ns)
        self.results.append(result)
        self.tell(f"\n{name}, ns per {unit}: best (cpu)")
        for contender, times in result.times.items():
            self.tell(f"  {contender:<40} {times.best:>14,.0f} ({times.best_cpu:,.0f})")
        return result

    def goal(self, row: str, what: str, ratio: Ratio | float | None, limit: float, *, at_least: bool = False) -> None:
        """Hold one ratio or figure to its goal."""
        note = "" if ratio is not None else "a contender is missing"
        value = ratio.best if isinstance(ratio, Ratio) else ratio
        goal = Goal(row, what, limit, value, at_least, ratio if isinstance(ratio, Ratio) else None, note)
        self.goals.append(goal)
        if not self.quick:
            self.tell(f"  → {spelt(goal)}")

    def quicker(self, row: str, what: str, ratio: Ratio | None, times: float) -> None:
        """Hold theirs ÷ ours to "at least `times`": `ratio` is ours ÷ theirs."""
        turned = None if ratio is None else Ratio(1 / ratio.best, 1 / ratio.median, 1 / max(ratio.cpu, 1e-9))
        self.goal(row, what, turned, times, at_least=True)

    def count(self, what: str, counted: int, allowed: int) -> None:
        """Check how often the layers were asked. Raises WrongCount."""
        if counted > allowed:
            raise WrongCount(f"{what}: {counted} layer calls, {allowed} allowed")
        self.counts.append(Count(what, counted, allowed))
        self.tell(f"  {what}: {counted} layer calls (at most {allowed})")

    def directory(self, name: str) -> Path:
        """Return a new directory on the host."""
        place = self.scratch / name
        place.mkdir(parents=True)
        return place

    def sandfs(self) -> Any:
        """Return the module sandfs, None where it is missing."""
        return peers.sandfs()


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
        place = Path(name)
        try:
            enter_namespaces(kind)
            hostos.mount("overlayvfs-bench", name, "tmpfs", hostos.MS_NOATIME, "mode=755,size=90%")
        except (OSError, AttributeError) as error:
            reason = f"no mount namespace: {error}"
            yield Lab(place, missing={KERNEL: reason, "fuse-overlayfs": reason}, quick=quick, rounds=rounds)
            return
        try:
            unions, missing = available(kind, place)
            yield Lab(place, unions, missing, quick, rounds)
        finally:
            hostos.umount(name, hostos.MNT_DETACH)
