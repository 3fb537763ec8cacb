"""Judges: who knows what is right when two implementations differ.

The kernel, where an overlay mount can be made; elsewhere the reference model, which is held to the kernel by the same
sequences (tests/test_model.py) and claims less of it (overlayvfs.testing.model says what it leaves out).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Final, Protocol

from overlayvfs.testing.kernel import Kernel, Transcript
from overlayvfs.testing.modelbox import Model
from overlayvfs.testing.ops import Op, Outcome
from overlayvfs.testing.snapshots import Snapshot
from overlayvfs.testing.stacks import Stack


class Mounted(Protocol):
    """One stack that a judge has mounted."""

    def run(self, ops: Sequence[Op]) -> list[Outcome]:
        """Execute operations; descriptors stay open for the next ones."""

    def snapshot(self, which: str | int) -> Snapshot:
        """Return what "merged", "upper" or the lower of this index shows."""

    def lower_count(self) -> int:
        """Return how many lowers there are now."""

    def close(self) -> None:
        """Unmount."""


class Judge(Protocol):
    """What answers for a stack and operations on it."""

    @property
    def title(self) -> str:
        """What a divergence calls it."""

    @property
    def tells_impure(self) -> bool:
        """Tell whether it marks directories impure exactly as Linux does."""

    @property
    def description(self) -> str:
        """Who it is, in words."""

    def mount(self, stack: Stack, *, rotating: bool = False) -> Mounted:
        """Mount a stack, whose layers rotate if asked. Raises Unsupported for what it does not judge."""

    def transcript(self, stack: Stack, ops: Sequence[Op], *, rotating: bool = False) -> Transcript:
        """Mount a stack, execute operations, look at everything, unmount."""


JUDGES: Final[Mapping[str, Callable[[], Judge]]] = {"kernel": Kernel.find, "model": Model}
"""The judges by name. Raise NoOracle where there is none."""
