"""The engine and a judge side by side: the same stack, the same operations, and everything compared.

The judge is the kernel or, where there is none to ask, the reference model. A sequence is generated while the engine
executes it; the judge then executes the same list, the kernel in one round trip. What is compared: every result and
errno, the merged tree, the upper with its marks, and every lower. A sequence on which they differ is cut down to what
is needed and printed as a test. (machine.py has Hypothesis at the wheel instead.)
"""

import os
from collections.abc import Callable, Sequence
from random import Random
from typing import Any, Protocol

from overlayvfs.testing.coverage import Coverage, Layers
from overlayvfs.testing.judges import Judge
from overlayvfs.testing.kernel import Transcript
from overlayvfs.testing.minimise import Trial, minimised
from overlayvfs.testing.ops import (
    REMOUNT,
    Op,
    Outcome,
    Remounted,
    Runner,
    Slot,
    as_source,
    call,
    over_remount,
    remount,
)
from overlayvfs.testing.random_stacks import Profile, random_stack
from overlayvfs.testing.sequences import Operations
from overlayvfs.testing.snapshots import Look, Snapshot, differences, without_marks
from overlayvfs.testing.stacks import Stack
from overlayvfs.testing.tally import Tally


class Driven(Protocol):
    """A box that can be on the engine's side: the sequence is generated while it executes it."""

    def start(self, stack: Stack) -> None:
        """Mount a stack."""

    @property
    def os(self) -> Any:
        """The tree in the shape of the os module."""

    @property
    def tells_impure(self) -> bool:
        """Tell whether directories are marked impure exactly as Linux marks them."""

    @property
    def keeps_upper(self) -> bool:
        """Tell whether what is made stays in the upper it was made in."""

    def all_snapshots(self) -> dict[str | int, Snapshot]:
        """Return what every layer and the merged tree show."""

    def finish(self) -> None:
        """Check that no lower changed, unmount."""

    def raw_layers(self) -> Layers:
        """Return the layers past the overlay."""

    def lost_its_place(self, fd: int) -> bool:
        """Tell whether a descriptor is a directory's that was only in a lower, and another directory has its name."""

    def look(self) -> Look:
        """Return all that the merged tree shows, inode numbers included."""

    def remount(self) -> None:
        """Unmount and mount again over the same layers."""


MakeBox = Callable[[], Driven]


class Divergence(AssertionError):
    """The engine and its judge differ; carries the sequence and prints it as a test."""

    def __init__(self, trial: Trial, found: Sequence[str], told: str = "the engine and its judge differ") -> None:
        self.trial = trial
        self.found = found
        super().__init__("\n".join([f"{told}:", *found, "", trial.as_test()]))


def run_random(
    judge: Judge,
    make_box: MakeBox,
    profile: Profile,
    seed: int,
    length: int,
    tally: Tally,
    coverage: Coverage | None = None,
) -> None:
    """Generate the sequence of this seed, run it on both sides and compare.

    Raises:
        Divergence: with the sequence cut down.

    """
    trial, found = try_random(judge, make_box, profile, seed, length, tally, coverage)
    if found:
        smallest = minimised(trial, lambda candidate: still_diverges(judge, make_box, candidate))
        # What depends on more than the sequence is told as it was seen.
        found = diverges(judge, make_box, smallest) or [*found, "(gone when run again)"]
        raise Divergence(smallest, found, f"the engine and {judge.title} differ (seed {seed}, {profile})")


def try_random(
    judge: Judge,
    make_box: MakeBox,
    profile: Profile,
    seed: int,
    length: int,
    tally: Tally,
    coverage: Coverage | None = None,
) -> tuple[Trial, list[str]]:
    """Return the sequence of this seed and how the two sides differ on it, empty if they don't."""
    rng = Random(seed)
    stack = random_stack(rng, profile)
    operations = Operations(rng, stack, profile)
    engine = EngineSide(make_box, stack)
    try:
        while len(engine.ops) < length:
            op = operations.draw()
            if coverage is not None:
                coverage.see(op, engine.box.raw_layers())
            outcome = engine.perform(op)
            operations.learn(engine.ops[-1], outcome)
        if profile.remounts:
            engine.perform(remount(look=True))
    finally:
        engine.finish()
    tally.add(engine.ops, engine.outcomes)
    return Trial(stack, tuple(engine.ops)), engine.compare(engine.asked_of(judge), judge)


_CHANGES_BY_DESCRIPTOR = ("fchmod", "fchown", "utime", "setxattr", "removexattr")


class EngineSide:
    """The engine's side of a sequence: what was executed, what it came to, and what there was to see at the end."""

    def __init__(self, make_box: MakeBox, stack: Stack) -> None:
        self.box = make_box()
        self.box.start(stack)
        self.ops: list[Op] = []
        self.outcomes: list[Outcome] = []
        self._runner = Runner(self.box.os, identity=self.box.keeps_upper)
        self._stack = stack
        self._snapshots: dict[str | int, Snapshot] = {}
        self._complaints: list[str] = []

    def perform(self, op: Op) -> Outcome:
        """Execute `op` or, where what it does differs on purpose, one that looks instead.

        A fifo, socket or device is opened only as a path: there Linux has a driver, and we have none.
        """
        if op.name == REMOUNT:
            return self._remount(op)
        if op.name in _CHANGES_BY_DESCRIPTOR and isinstance(op.args[0], Slot):
            fd = self._runner.descriptor(op.args[0])
            if fd is not None and self.box.lost_its_place(fd):
                op = call("fstat", op.args[0])
        outcome = self._runner.run(op)
        if op.name == "open" and outcome.error == "ENXIO":
            op = op._replace(args=(op.args[0], os.O_PATH))
            outcome = self._runner.run(op)
        self.ops.append(op)
        self.outcomes.append(outcome)
        return outcome

    def _remount(self, op: Op) -> Outcome:
        self._runner.close()
        outcome = over_remount(op, self.box.look, self.box.remount)
        self._runner = Runner(self.box.os, identity=self.box.keeps_upper)
        self.ops.append(op)
        self.outcomes.append(outcome)
        return outcome

    def finish(self) -> None:
        """Look at everything and unmount. Never raises: what goes wrong here is a difference to report."""
        try:
            self._snapshots = self.box.all_snapshots()
            self._runner.close()
        except Exception as error:  # noqa: BLE001 - whatever a broken engine raises
            self._complaints.append(f"looking at the engine's trees: {type(error).__name__}: {error}")
        try:
            self.box.finish()
        except AssertionError as error:
            self._complaints.append(str(error))

    def asked_of(self, judge: Judge) -> Transcript:
        """Return what the same comes to where the judge is asked."""
        return judge.transcript(self._stack, self.ops, rotating=not self.box.keeps_upper)

    def compare(self, theirs: Transcript, judge: Judge) -> list[str]:
        """Return how this side differs from the judge's, empty if it doesn't."""
        if self._complaints:
            return self._complaints
        impure = judge.tells_impure and self.box.tells_impure
        return compare(Transcript(self.outcomes, self._snapshots), theirs, self.ops, impure=impure)


def diverges(judge: Judge, make_box: MakeBox, trial: Trial) -> list[str]:
    """Run a sequence on both sides; return how they differ, empty if they don't."""
    engine = EngineSide(make_box, trial.stack)
    for op in trial.ops:
        engine.perform(op)
    engine.finish()
    return engine.compare(engine.asked_of(judge), judge)


def still_diverges(judge: Judge, make_box: MakeBox, trial: Trial) -> bool:
    """Tell whether the two sides differ; a stack that can't be built or mounted shows nothing."""
    try:
        return bool(diverges(judge, make_box, trial))
    except OSError:
        return False


def compare(ours: Transcript, theirs: Transcript, ops: Sequence[Op], *, impure: bool) -> list[str]:
    """Return what differs, one line each: first the operations in order, then the trees, `impure` marks if asked."""
    found: list[str] = []
    for op, wanted, had in zip(ops, theirs.outcomes, ours.outcomes, strict=True):
        if wanted != had:
            found += _told(op, wanted, had)
    for which, expected_tree in theirs.snapshots.items():
        where = f"lower {which}" if isinstance(which, int) else which
        expected, actual = expected_tree, ours.snapshots.get(which, {})
        if not impure and which != "merged":
            expected, actual = (without_marks(tree, ("impure",)) for tree in (expected, actual))
        found += [f"{where} {line}" for line in differences(expected, actual)]
    return found


def _told(op: Op, expected: Outcome, actual: Outcome) -> list[str]:
    """Return the lines that say how two outcomes of an operation differ."""
    want, have = expected.value, actual.value
    if not isinstance(want, Remounted) or not isinstance(have, Remounted):
        return [f"{as_source(op)}: expected {expected!r}, engine {actual!r}"]
    lines = [f"before {line}" for line in differences(want.before, have.before)]
    lines += [f"after {line}" for line in differences(want.after, have.after)]
    if want.renumbered != have.renumbered:
        lines.append(f"other inode numbers than before: {want.renumbered} -> {have.renumbered}")
    return [f"{as_source(op)}: {line}" for line in lines]
