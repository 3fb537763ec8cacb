"""Cutting a sequence down to what is needed: operations, layers and their entries."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

from overlayvfs.testing.ops import Op, as_source
from overlayvfs.testing.stacks import Stack
from overlayvfs.testing.trees import Tree, literal, normal


class Trial(NamedTuple):
    """A stack and what is done to it."""

    stack: Stack
    ops: tuple[Op, ...]

    def as_test(self) -> str:
        """Return the source of a test that does the same, ready to be pasted."""
        body = self.stack.as_source() + [as_source(op) for op in self.ops]
        return "\n".join(["def test_name_what_it_showed(box):", *(f"    {line}" for line in body)])


Still = Callable[[Trial], bool]


def minimised(trial: Trial, still: Still) -> Trial:
    """Return a trial for which `still` holds and from which nothing can be left out without ending that."""
    changed = True
    while changed:
        ops = _fewer(trial.ops, lambda ops, now=trial: still(now._replace(ops=tuple(ops))))  # type: ignore[misc]
        smaller = _smaller_stack(trial._replace(ops=tuple(ops)), still)
        changed = smaller != trial
        trial = smaller
    return trial


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


def _smaller_stack(trial: Trial, still: Still) -> Trial:
    for index in reversed(range(len(trial.stack.lowers))):
        lowers = [*trial.stack.lowers[:index], *trial.stack.lowers[index + 1 :]]
        candidate = _with_layers(trial, lowers, trial.stack.upper)
        if index >= len(trial.stack.shown):
            candidate = candidate._replace(stack=replace(candidate.stack, data_only=trial.stack.data_only - 1))
        if candidate.stack.shown and still(candidate):
            trial = candidate
    for index in range(-1, len(trial.stack.lowers)):
        for path in reversed(list(normal(_layer(trial.stack, index)))):
            nodes = normal(_layer(trial.stack, index))
            if not path or any(one.startswith(path + "/") for one in nodes):
                continue
            smaller = literal({one: node for one, node in nodes.items() if one != path})
            lowers = [smaller if at == index else tree for at, tree in enumerate(trial.stack.lowers)]
            candidate = _with_layers(trial, lowers, smaller if index < 0 else trial.stack.upper)
            if still(candidate):
                trial = candidate
    return trial


def _layer(stack: Stack, index: int) -> Tree:
    """Return the lower of this index, the upper for -1."""
    return stack.lowers[index] if index >= 0 else stack.upper or {}


def _with_layers(trial: Trial, lowers: Sequence[Tree], upper: Tree | None) -> Trial:
    stack = trial.stack
    return trial._replace(stack=replace(stack, lowers=lowers, upper=None if stack.upper is None else upper))
