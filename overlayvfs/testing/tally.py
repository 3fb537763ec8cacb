"""Tallies: what a lockstep run tried, and what it came to."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from overlayvfs.testing.ops import Op, Outcome


@dataclass(slots=True)
class Tally:
    """How often each operation came to each outcome."""

    sequences: int = 0
    outcomes: Counter[tuple[str, str]] = field(default_factory=Counter)

    def add(self, ops: Sequence[Op], outcomes: Sequence[Outcome]) -> None:
        """Count one sequence."""
        self.sequences += 1
        self.outcomes.update((op.name, outcome.error or "ok") for op, outcome in zip(ops, outcomes, strict=True))

    def update(self, other: "Tally") -> None:
        """Count what another tally counted."""
        self.sequences += other.sequences
        self.outcomes.update(other.outcomes)

    @property
    def operations(self) -> int:
        """How many operations were tried."""
        return self.outcomes.total()

    @property
    def success_share(self) -> float:
        """Which part of the operations succeeded."""
        return self._share(self.outcomes)

    def success_share_of(self, name: str) -> float:
        """Return which part of the operations of this name succeeded."""
        return self._share(self._outcomes_of(name))

    def names(self) -> list[str]:
        """Return the operations that were tried."""
        return sorted({name for name, _ in self.outcomes})

    def _outcomes_of(self, name: str) -> Counter[tuple[str, str]]:
        return Counter({key: count for key, count in self.outcomes.items() if key[0] == name})

    @staticmethod
    def _share(outcomes: Counter[tuple[str, str]]) -> float:
        good = sum(count for (_, outcome), count in outcomes.items() if outcome == "ok")
        return good / max(1, outcomes.total())

    def __str__(self) -> str:
        """Return a summary of one line and one line an operation."""
        head = f"{self.sequences} sequences, {self.operations} operations, {self.success_share:.0%} succeeded"
        rows = []
        for name in self.names():
            mine = self._outcomes_of(name)
            told = ", ".join(f"{outcome} {count}" for (_, outcome), count in mine.most_common())
            rows.append(f"  {name}: {self._share(mine):.0%} of {mine.total()}: {told}")
        return "\n".join([head, *rows])
