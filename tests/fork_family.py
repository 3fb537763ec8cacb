"""An overlay and its forks under random operations, each compared with a kernel mount that was driven the same way.

A fork has its parent's history up to there; who goes back to a checkpoint has the history up to that.
"""

import copy
import os
from dataclasses import dataclass, field
from random import Random

from overlayvfs.engine.fork import Checkpoint
from overlayvfs.engine.overlay import Overlay
from overlayvfs.faces.osmod import OsModule
from overlayvfs.layers.local import LocalLayer
from overlayvfs.testing.bodies import EngineBox, EngineOnHost, EngineOnMemory
from overlayvfs.testing.hostos import HostOs
from overlayvfs.testing.kernel import Kernel, Transcript
from overlayvfs.testing.lockstep import MakeBox, compare
from overlayvfs.testing.ops import Op, Outcome, Runner, Slot, call
from overlayvfs.testing.random_stacks import Profile, random_stack
from overlayvfs.testing.sequences import Operations
from overlayvfs.testing.snapshots import Snapshot, capture
from overlayvfs.testing.stacks import Stack

DEPTH = 5
"""Generations of forks, the first overlay not counted."""

LENGTH = 50
"""Operations in a sequence, those of all members together."""

SLOTS = range(4)

PROFILES = {
    "plain": Profile(),
    "hostile": Profile(hostile=True),
    "marks": Profile(marks=True),
    "redirect_dir": Profile(options={"redirect_dir": "on"}),
    "index": Profile(options={"index": "on"}),
    "metacopy": Profile(options={"metacopy": "on"}),
}
BODIES: dict[str, MakeBox] = {"memory": EngineOnMemory, "host": EngineOnHost}

_BY_DESCRIPTOR = ("fchmod", "fchown", "utime", "setxattr", "removexattr")


def perform(box: EngineBox, runner: Runner, op: Op) -> tuple[Op, Outcome]:
    """Execute `op` or, where this library differs on purpose, one that looks instead; what was executed, and how.

    A fifo, socket or device is opened only as a path: there Linux has a driver, and we have none.
    """
    if op.name in _BY_DESCRIPTOR and isinstance(op.args[0], Slot):
        fd = runner.descriptor(op.args[0])
        if fd is not None and box.lost_its_place(fd):
            op = call("fstat", op.args[0])
    outcome = runner.run(op)
    if op.name == "open" and outcome.error == "ENXIO":
        op = op._replace(args=(op.args[0], os.O_PATH))
        outcome = runner.run(op)
    return op, outcome


@dataclass
class Moment:
    """What is known of an overlay at a checkpoint."""

    checkpoint: Checkpoint
    operations: Operations
    ops: list[Op]
    outcomes: list[Outcome | None]
    met: dict[tuple[int, int], int]


@dataclass
class Tally:
    """What came of some families."""

    sequences: int = 0
    compared: int = 0
    """Overlays compared with a mount of their own."""
    rollbacks: int = 0
    set_aside: int = 0
    """Overlays in which two redirects made by hand lead to one directory."""
    generations: dict[int, int] = field(default_factory=dict)
    """How many overlays there were of each; the first is 0."""

    def update(self, other: "Tally") -> None:
        """Add others."""
        self.sequences += other.sequences
        self.compared += other.compared
        self.rollbacks += other.rollbacks
        self.set_aside += other.set_aside
        for generation, count in other.generations.items():
            self.generations[generation] = self.generations.get(generation, 0) + count

    def __str__(self) -> str:
        deep = ", ".join(f"{self.generations[one]} of generation {one}" for one in sorted(self.generations))
        return (
            f"{self.sequences} sequences, {self.rollbacks} rollbacks, {self.compared} overlays compared: {deep}; "
            f"{self.set_aside} set aside (ESTALE)"
        )


@dataclass
class Member:
    """One overlay of the family and all that was ever done to it, what was done to its ancestors before it included."""

    box: EngineBox
    runner: Runner
    operations: Operations
    generation: int = 0
    ops: list[Op] = field(default_factory=list)
    outcomes: list[Outcome | None] = field(default_factory=list)
    """None: the kernel's answer does not count."""
    moment: Moment | None = None

    def act(self) -> None:
        """Do one random operation."""
        op, outcome = perform(self.box, self.runner, self.operations.draw())
        self.operations.learn(op, outcome)
        self.ops.append(op)
        self.outcomes.append(outcome)

    def fork(self, rng: Random) -> "Member":
        """Return a new member: open files stay behind, and every object must show the number it had."""
        box = copy.copy(self.box)
        box._overlay = self.box._overlay.fork()
        runner = Runner(box.os)
        runner._met = dict(self.runner._met)
        child = Member(box, runner, copy.deepcopy(self.operations), self.generation + 1)
        child.operations.draw_from(rng)
        child.ops, child.outcomes = list(self.ops), list(self.outcomes)
        child.leave_files_behind()
        return child

    def leave_files_behind(self) -> None:
        """Have the kernel close what this side has not open any more."""
        for number in SLOTS:
            closing = call("close", Slot(number))
            self.operations.learn(closing, Outcome())
            self.ops.append(closing)
            self.outcomes.append(None)

    def remember(self) -> None:
        """Take a checkpoint."""
        checkpoint = self.box._overlay.checkpoint()
        known = copy.deepcopy(self.operations), list(self.ops), list(self.outcomes), dict(self.runner._met)
        self.moment = Moment(checkpoint, *known)

    def go_back(self, rng: Random) -> None:
        """Go back to the checkpoint with files still open; what is done to those from then on is not looked at."""
        moment = self.moment
        assert moment is not None
        self.box._overlay.rollback(moment.checkpoint)
        self.runner.close()
        self.runner = Runner(self.box.os)
        self.runner._met = dict(moment.met)
        self.operations = copy.deepcopy(moment.operations)
        self.operations.draw_from(rng)
        self.ops, self.outcomes = list(moment.ops), list(moment.outcomes)
        self.leave_files_behind()

    def differences(self, kernel: Kernel, stack: Stack) -> list[str]:
        """Return how this member and a kernel mount with its history differ."""
        kernel.submit(stack, self.ops)
        snapshots: dict[str | int, Snapshot] = {which: self.box.snapshot(which) for which in range(len(stack.lowers))}
        if stack.upper is not None:
            snapshots["upper"] = self._upper()
        snapshots["merged"] = capture(self.box.os, "")
        theirs = kernel.collect()
        pairs = zip(self.outcomes, theirs.outcomes, strict=True)
        ours = [expected if outcome is None else outcome for outcome, expected in pairs]
        impure = kernel.tells_impure and self.box.tells_impure
        return compare(Transcript(ours, snapshots), theirs, self.ops, impure=impure)

    def _upper(self) -> Snapshot:
        layer = self.box._overlay._overlay._mnt.upper
        prefix = self.box._prefix()
        if isinstance(layer, LocalLayer):
            return capture(HostOs(), layer.name, prefix=prefix)
        return capture(OsModule(Overlay.bare(layer)), "", prefix=prefix)

    def close(self) -> None:
        self.runner.close()
        self.box._overlay.close()


class ForkDivergence(AssertionError):
    """A member of the family is not what the kernel makes of its history."""


def run_family(kernel: Kernel, make_box: MakeBox, profile: Profile, seed: int, length: int) -> Tally:
    """Drive a family of at most seven with `length` operations; compare each when it is closed.

    Raises:
        ForkDivergence: naming the seed, the member and what differs.

    """
    rng = Random(seed)
    stack = random_stack(rng, profile)
    box = make_box()
    tally = Tally(sequences=1)
    try:
        box.start(stack)
        family = [Member(box, Runner(box.os), Operations(rng, stack, profile))]
        for _ in range(length):
            rng.choice(family).act()
            draw = rng.random()
            one = rng.choice(family)
            if draw < 0.15 and len(family) < 7:
                # Of three, the one of the latest generation: or hardly any family would reach the last.
                parent = max(one, *rng.choices(family, k=2), key=lambda one: one.generation)
                if parent.generation < DEPTH:
                    family.append(parent.fork(rng))
            elif 0.5 < draw < 0.55:
                one.remember()
            elif 0.6 < draw < 0.65 and one.moment is not None:
                one.go_back(rng)
                tally.rollbacks += 1
            elif draw > 0.97 and len(family) > 1:
                # Whoever goes, ancestor or fork, leaves the others as they are.
                family.remove(one)
                _compare_and_close(one, kernel, stack, profile, seed, tally)
        for member in family:
            _compare_and_close(member, kernel, stack, profile, seed, tally)
        return tally
    finally:
        box.finish()


def run_mixed_family(kernel: Kernel, seed: int) -> Tally:
    """Drive a family whose profile and body the seed chooses."""
    profile = list(PROFILES.values())[seed % len(PROFILES)]
    body = EngineOnHost if seed // len(PROFILES) % 4 == 3 else EngineOnMemory
    return run_family(kernel, body, profile, seed, LENGTH)


def _compare_and_close(
    member: Member, kernel: Kernel, stack: Stack, profile: Profile, seed: int, tally: Tally
) -> None:
    found = member.differences(kernel, stack)
    member.close()
    if found and profile.marks and any("ESTALE" in line for line in found):
        # The one looked up first since the mount is the directory, the other is ESTALE: a fork, as the mount of a
        # copy would, begins with nothing looked up, while the kernel here goes on from its ancestor's history.
        tally.update(Tally(set_aside=1))
        return
    if found:
        history = "\n".join(f"    {op!r}" for op in member.ops)
        raise ForkDivergence(
            "\n".join([f"seed {seed}, a fork of generation {member.generation} differs:", *found, history])
        )
    tally.update(Tally(compared=1, generations={member.generation: 1}))
