"""Racing ways to do the same work: interleaved, in one process, and only after each gave the right answer.

One round times every contender once, for at least a millisecond, starting with another one each time. What is
compared are times of one run: minimum over minimum, and the median of the rounds' ratios. Garbage is collected
between rounds and never inside one.
"""

import gc
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from statistics import median
from typing import Any, Final

ROUNDS: Final = 61
MIN_NS: Final = 1_000_000
"""How long a contender is timed in one round, at least."""


class WrongAnswer(Exception):
    """A contender did not come to what the model says: its times would mean nothing."""


@dataclass(frozen=True, slots=True)
class Contender:
    """One way to do the work of a race.

    One go is `prepare`, `work`, `finish`; only `work` is timed. What `prepare` returns is handed to the others.
    """

    name: str
    work: Callable[[Any], object]
    answer: Callable[[Any], object]
    """What there is after one go."""
    expected: object
    """What the model says that is."""
    units: int = 1
    """How many operations one go makes: times are given per operation."""
    prepare: Callable[[], Any] = lambda: None
    finish: Callable[[Any], object] = lambda prepared: None


@dataclass(frozen=True, slots=True)
class Times:
    """What one contender took per operation, round by round, in ns."""

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    """The time of the thread on a processor."""

    @property
    def best(self) -> float:
        """The quickest round."""
        return min(self.wall)

    @property
    def best_cpu(self) -> float:
        """The round that needed the processor least."""
        return min(self.cpu)


@dataclass(frozen=True, slots=True)
class Ratio:
    """How two contenders of a race compare."""

    best: float
    """Minimum over minimum."""
    median: float
    """Median of the ratios of each round."""
    cpu: float
    """Minimum over minimum of processor time."""


@dataclass(frozen=True, slots=True)
class Result:
    """A race that was run."""

    name: str
    unit: str
    """What one operation is."""
    times: dict[str, Times]

    def ratio(self, ours: str, theirs: str) -> Ratio | None:
        """Return `ours` ÷ `theirs`, None where one of them could not take part."""
        mine, other = self.times.get(ours), self.times.get(theirs)
        if mine is None or other is None:
            return None
        rounds = [a / b for a, b in zip(mine.wall, other.wall, strict=True)]
        return Ratio(mine.best / other.best, median(rounds), mine.best_cpu / max(other.best_cpu, 1e-9))


def race(
    name: str,
    unit: str,
    contenders: Iterable[Contender],
    *,
    rounds: int = ROUNDS,
    min_ns: int = MIN_NS,
) -> Result:
    """Check every contender against the model, then time them in turn.

    Raises:
        WrongAnswer: a contender's answer is not the expected one.

    """
    entered = list(contenders)
    for contender in entered:
        _check(name, contender)
    goes = [_goes_for(contender, min_ns) for contender in entered]
    times = {contender.name: Times() for contender in entered}
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        for number in range(rounds):
            for index in range(len(entered)):
                index = (index + number) % len(entered)
                _time(entered[index], goes[index], times[entered[index].name])
            gc.collect(1)
    finally:
        gc.enable()
        gc.unfreeze()
    return Result(name, unit, times)


def _check(name: str, contender: Contender) -> None:
    prepared = contender.prepare()
    try:
        contender.work(prepared)
        answer = contender.answer(prepared)
    finally:
        contender.finish(prepared)
    if answer != contender.expected:
        raise WrongAnswer(f"{name}: {contender.name} gives {answer!r:.300}, the model {contender.expected!r:.300}")


def _goes_for(contender: Contender, min_ns: int) -> int:
    """Return how many goes take `min_ns`, by the quicker of two trials (the first of them warms up)."""
    trial = Times()
    for _ in range(2):
        _time(contender, 1, trial)
        if trial.best * contender.units >= _LONG * min_ns:
            break
    return max(1, -int(-min_ns // (trial.best * contender.units)))


_LONG: Final = 10
"""A first trial of this many times what is needed settles it: one go is enough, warm or not."""


def _time(contender: Contender, goes: int, times: Times) -> None:
    """Add one round to `times`: `goes` goes, each prepared before the clocks start."""
    work = contender.work
    prepared = [contender.prepare() for _ in range(goes)]
    cpu = time.thread_time_ns()
    start = time.perf_counter_ns()
    for each in prepared:
        work(each)
    wall = time.perf_counter_ns() - start
    cpu = time.thread_time_ns() - cpu
    for each in prepared:
        contender.finish(each)
    operations = goes * contender.units
    times.wall.append(wall / operations)
    times.cpu.append(cpu / operations)
