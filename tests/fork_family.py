"""An overlay and its forks under random operations, each compared with a kernel mount that was driven the same way."""

import copy
import os
from dataclasses import dataclass, field
from random import Random

from overlayvfs.engine.overlay import Overlay
from overlayvfs.faces.osmod import OsModule
from overlayvfs.layers.local import LocalLayer
from overlayvfs.testing.bodies import EngineBox
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

SLOTS = range(4)


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
class Member:
    """One overlay of the family and all that was ever done to it, what was done to its ancestors before it included."""

    box: EngineBox
    runner: Runner
    operations: Operations
    generation: int = 0
    ops: list[Op] = field(default_factory=list)
    outcomes: list[Outcome | None] = field(default_factory=list)
    """None: the kernel's answer does not count."""

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
        for number in SLOTS:
            closing = call("close", Slot(number))
            child.operations.learn(closing, Outcome())
            child.ops.append(closing)
            child.outcomes.append(None)
        return child

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
        return compare(Transcript(ours, snapshots), theirs, self.ops)

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


def run_family(kernel: Kernel, make_box: MakeBox, profile: Profile, seed: int, length: int) -> int:
    """Drive a family of at most six with `length` operations; compare each when it is closed, return how many.

    Raises:
        ForkDivergence: naming the seed, the member and what differs.

    """
    rng = Random(seed)
    stack = random_stack(rng, profile)
    box = make_box()
    try:
        box.start(stack)
        family = [Member(box, Runner(box.os), Operations(rng, stack, profile))]
        compared = 0
        for _ in range(length):
            rng.choice(family).act()
            draw = rng.random()
            parent = rng.choice(family)
            if draw < 0.15 and parent.generation < DEPTH and len(family) < 6:
                family.append(parent.fork(rng))
            elif draw > 0.97 and len(family) > 1:
                # Whoever goes, ancestor or fork, leaves the others as they are.
                family.remove(parent)
                compared += _compare_and_close(parent, kernel, stack, seed)
        for member in family:
            compared += _compare_and_close(member, kernel, stack, seed)
        return compared
    finally:
        box.finish()


def _compare_and_close(member: Member, kernel: Kernel, stack: Stack, seed: int) -> int:
    found = member.differences(kernel, stack)
    member.close()
    if found:
        history = "\n".join(f"    {op!r}" for op in member.ops)
        raise ForkDivergence(
            "\n".join([f"seed {seed}, a fork of generation {member.generation} differs:", *found, history])
        )
    return 1
