"""The engine and the kernel side by side: the same stack, the same operations, and everything compared.

A sequence is generated while the engine executes it; the kernel then executes the same list in one round trip. What is
compared: every result and errno, the merged tree, the upper with its marks, and every lower. A sequence on which they
differ is cut down to what is needed and printed as a test.
"""

import stat
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import NamedTuple

from overlayvfs.testing.bodies import Box
from overlayvfs.testing.kernel import Kernel, Transcript
from overlayvfs.testing.ops import Op, Outcome, Runner, as_source
from overlayvfs.testing.sequences import Operations, Profile, random_stack
from overlayvfs.testing.snapshots import Snapshot, differences, without_marks
from overlayvfs.testing.stacks import Stack
from overlayvfs.testing.trees import literal, normal

MakeBox = Callable[[], Box]


class Sequence_(NamedTuple):  # noqa: N801 - Sequence is the collection
    """A stack and what is done to it."""

    stack: Stack
    ops: tuple[Op, ...]


@dataclass(slots=True)
class Tally:
    """What was tried: how often each operation came to each outcome."""

    sequences: int = 0
    outcomes: Counter[tuple[str, str]] = field(default_factory=Counter)

    def add(self, ops: Sequence[Op], outcomes: Sequence[Outcome]) -> None:
        """Count one sequence."""
        self.sequences += 1
        self.outcomes.update((op.name, outcome.error or "ok") for op, outcome in zip(ops, outcomes, strict=True))

    @property
    def operations(self) -> int:
        """How many operations were tried."""
        return self.outcomes.total()

    @property
    def success_share(self) -> float:
        """Which part of the operations succeeded."""
        good = sum(count for (_, outcome), count in self.outcomes.items() if outcome == "ok")
        return good / max(1, self.operations)

    def __str__(self) -> str:
        """Return a summary of one line and one line an operation."""
        head = f"{self.sequences} sequences, {self.operations} operations, {self.success_share:.0%} succeeded"
        names = sorted({name for name, _ in self.outcomes})
        rows = []
        for name in names:
            mine = Counter({outcome: count for (one, outcome), count in self.outcomes.items() if one == name})
            rows.append(f"  {name}: " + ", ".join(f"{outcome} {count}" for outcome, count in mine.most_common()))
        return "\n".join([head, *rows])


class Divergence(AssertionError):
    """The engine and the kernel differ; carries the smallest sequence found and prints it as a test."""

    def __init__(self, sequence: Sequence_, found: list[str]) -> None:
        self.sequence = sequence
        self.found = found
        super().__init__("\n".join(["the engine and the kernel differ:", *found, "", as_test(sequence)]))


def as_test(sequence: Sequence_) -> str:
    """Return a sequence as the source of a test that can be pasted."""
    lines = ["def test_name_what_it_showed(box):"]
    body = sequence.stack.as_source() + [as_source(op) for op in sequence.ops]
    return "\n".join(lines + [f"    {line}" for line in body])


def run_random(kernel: Kernel, make_box: MakeBox, profile: Profile, seed: int, length: int, tally: Tally) -> None:
    """Generate the sequence of this seed, run it on both sides and compare.

    Raises:
        Divergence: with the sequence cut down.

    """
    rng = Random(seed)
    stack = random_stack(rng, profile)
    operations = Operations(rng, stack, profile)
    ops: list[Op] = []
    outcomes: list[Outcome] = []
    box = make_box()
    try:
        box.start(stack)
        runner = Runner(box.os)
        while len(ops) < length:
            op = operations.draw()
            if _opens_special(box, op):
                continue
            outcome = runner.run(op)
            operations.learn(op, outcome)
            ops.append(op)
            outcomes.append(outcome)
        kernel.submit(stack, ops)
        ours = Transcript(outcomes, _snapshots(box, stack))
        runner.close()
    finally:
        box.finish()
    tally.add(ops, outcomes)
    theirs = kernel.collect()
    if compare(ours, theirs, ops):
        sequence = minimised(kernel, make_box, Sequence_(stack, tuple(ops)))
        raise Divergence(sequence, diverges(kernel, make_box, sequence) or ["(gone when run again)"])


def _opens_special(box: Box, op: Op) -> bool:
    """Tell whether an operation opens a fifo, socket or device: there Linux has a driver, and we have none."""
    if op.name not in ("open", "truncate"):
        return False
    try:
        kind = stat.S_IFMT(box.os.stat(op.args[0]).st_mode)
    except OSError:
        return False
    return kind not in (stat.S_IFREG, stat.S_IFDIR)


def diverges(kernel: Kernel, make_box: MakeBox, sequence: Sequence_) -> list[str]:
    """Run a sequence on both sides; return how they differ, empty if they don't."""
    kernel.submit(sequence.stack, sequence.ops)
    box = make_box()
    try:
        box.start(sequence.stack)
        runner = Runner(box.os)
        outcomes = runner.run_all(sequence.ops)
        ours = Transcript(outcomes, _snapshots(box, sequence.stack))
        runner.close()
    finally:
        theirs = kernel.collect()
        box.finish()
    return compare(ours, theirs, sequence.ops)


def _snapshots(box: Box, stack: Stack) -> dict[str | int, Snapshot]:
    layers: list[str | int] = [*range(len(stack.lowers)), *(["upper"] if stack.upper is not None else [])]
    # The merged tree last, as the kernel's side does: looking names up may leave origin marks in the upper.
    return {which: box.snapshot(which) for which in [*layers, "merged"]}


def compare(ours: Transcript, theirs: Transcript, ops: Sequence[Op]) -> list[str]:
    """Return what differs, one line each: first the operations in order, then the trees."""
    found = [
        f"{as_source(op)}: kernel {expected!r}, engine {actual!r}"
        for op, expected, actual in zip(ops, theirs.outcomes, ours.outcomes, strict=True)
        if expected != actual
    ]
    for which, expected_tree in theirs.snapshots.items():
        where = f"lower {which}" if isinstance(which, int) else which
        expected, actual = expected_tree, ours.snapshots[which]
        if which == "upper":
            expected, actual = (without_marks(tree, ("impure",)) for tree in (expected, actual))
        found += [f"{where} {line}" for line in differences(expected, actual)]
    return found


def minimised(kernel: Kernel, make_box: MakeBox, sequence: Sequence_) -> Sequence_:
    """Return a sequence that still diverges and from which nothing can be left out: operations, entries, layers."""

    def still(candidate: Sequence_) -> bool:
        try:
            return bool(diverges(kernel, make_box, candidate))
        except OSError:
            # A stack that can't be built or mounted any more shows nothing.
            return False

    changed = True
    while changed:
        ops = _fewer(sequence.ops, lambda ops, now=sequence: still(now._replace(ops=tuple(ops))))  # type: ignore[misc]
        smaller = _smaller_stack(sequence._replace(ops=tuple(ops)), still)
        changed = smaller != sequence
        sequence = smaller
    return sequence


def _fewer(items: Sequence[Op], still: Callable[[Sequence[Op]], bool]) -> Sequence[Op]:
    """Leave out runs of items, halving their length, for as long as `still` holds."""
    size = max(1, len(items) // 2)
    while size:
        at = 0
        while at < len(items):
            candidate = [*items[:at], *items[at + size :]]
            if still(candidate):
                items = candidate
            else:
                at += size
        size //= 2
    return items


def _smaller_stack(sequence: Sequence_, still: Callable[[Sequence_], bool]) -> Sequence_:
    stack = sequence.stack
    for index in reversed(range(len(stack.lowers))):
        lowers = [*stack.lowers[:index], *stack.lowers[index + 1 :]]
        candidate = _with_stack(sequence, lowers, stack.upper)
        if lowers and still(candidate):
            sequence, stack = candidate, candidate.stack
    for index in range(-1, len(stack.lowers)):
        tree = stack.upper if index < 0 else stack.lowers[index]
        for path in reversed(list(normal(tree or {}))):
            tree = stack.upper if index < 0 else stack.lowers[index]
            nodes = {one: node for one, node in normal(tree or {}).items() if one != path and one}
            if not path or any(one.startswith(path + "/") for one in nodes):
                continue
            lowers = [literal(nodes) if at == index else tree for at, tree in enumerate(stack.lowers)]
            candidate = _with_stack(sequence, lowers, literal(nodes) if index < 0 else stack.upper)
            if still(candidate):
                sequence, stack = candidate, candidate.stack
    return sequence


def _with_stack(sequence: Sequence_, lowers: Sequence[object], upper: object) -> Sequence_:
    stack = sequence.stack
    return sequence._replace(stack=Stack(lowers, upper, stack.options, stack.separate))  # type: ignore[arg-type]
