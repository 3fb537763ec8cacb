"""A stack as data: the layers and options a test or a generated sequence starts from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from overlayvfs.testing.trees import Tree, literal, normal


@dataclass(frozen=True, slots=True)
class Stack:
    """Lowers (topmost first), an upper (None: a read-only overlay) and mount options by mount(8)'s names.

    `separate` puts every layer on a file system of its own, False all on one; None leaves it to the body.
    A stack without lowers is no union at all: the upper as a plain directory. The last `data_only` lowers show no names
    (overlayfs.rst, "Data-only lower layers").
    """

    lowers: Sequence[Tree] = ()
    upper: Tree | None = field(default_factory=dict)
    options: Mapping[str, str | bool] = field(default_factory=dict)
    separate: bool | None = None
    data_only: int = 0

    @property
    def shown(self) -> Sequence[Tree]:
        """The lowers whose names show."""
        return self.lowers[: len(self.lowers) - self.data_only]

    def as_source(self) -> list[str]:
        """Return the lines of a test that arrange this stack."""
        lines = [f"box.lower({_tree_source(tree)})" for tree in self.shown]
        lines += [f"box.data_only({_tree_source(tree)})" for tree in self.lowers[len(self.shown) :]]
        if self.upper is None or self.upper:
            lines.append(f"box.upper({None if self.upper is None else _tree_source(self.upper)})")
        arguments = [f"{name}={value!r}" for name, value in self.options.items()]
        if self.separate is not None:
            arguments.append(f"separate={self.separate}")
        if arguments:
            lines.append(f"box.mount({', '.join(arguments)})")
        return lines


def _tree_source(tree: Tree) -> str:
    return repr(literal(normal(tree)))
