"""The tree a commit writes to: another overlay, or one layer seen without a union."""

import errno
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from overlayvfs.abi import Stat
from overlayvfs.engine.overlay import Overlay
from overlayvfs.layers.base import Layer, UpperLayer
from overlayvfs.marks import MarkNames

STAGE = "/.overlayvfs-commit"
"""Where a commit prepares what is new, puts aside what was there and keeps its journal."""


@dataclass(slots=True)
class Target:
    """A tree to write to; every path is acted on itself, never through a symlink."""

    tree: Overlay
    number: int = 0
    """Which of the source's lowers this is; 0 is none of them."""
    marks: MarkNames | None = None
    """How the source's marks are called, which this lower holds as attributes."""
    above: list[Layer] = field(default_factory=list)
    """The source's lowers above this one, which hide what they have."""
    below: list[Layer] = field(default_factory=list)
    """The source's lowers below this one, which show through where it has nothing."""

    def find(self, path: str) -> Stat | None:
        """Return what is at a path; a whiteout is there only for the lowers below."""
        st = self.look(path)
        return None if st is not None and self.number and stat.S_ISCHR(st.st_mode) and st.st_rdev == 0 else st

    def look(self, path: str) -> Stat | None:
        """Return what is at a path, a whiteout included."""
        return look(self.tree, path)

    def shows_below(self, path: str) -> bool:
        """Tell whether removing `path` would let something show that a lower below this one has."""
        return any(_has(layer, path) for layer in self.below)

    def is_hidden(self, path: str) -> int:
        """Return which lower above this one has something at `path`; 0 if none."""
        return next((number for number, layer in enumerate(self.above, 1) if _has(layer, path, whiteouts=True)), 0)


def parents(path: str) -> list[str]:
    """Return the directories a path is in, the root last."""
    found = []
    while path != "/":
        path = path.rpartition("/")[0] or "/"
        found.append(path)
    return found


def look(tree: Overlay, path: str) -> Stat | None:
    """Return what is at a path, through no symlink; None if nothing."""
    try:
        for parent in reversed(parents(path)[:-1]):
            # The trees compared need not have a directory where the other has one.
            if not stat.S_ISDIR(tree.stat(parent, follow=False).st_mode):
                return None
        return tree.stat(path, follow=False)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            return None
        raise


def _has(layer: Layer, path: str, *, whiteouts: bool = False) -> bool:
    try:
        st = layer.lstat(path)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            return False
        raise
    return whiteouts or not (stat.S_ISCHR(st.st_mode) and st.st_rdev == 0)


@contextmanager
def layer_target(source: Overlay | None, layer: UpperLayer) -> Iterator[Target]:
    """Give a layer as what a commit of `source` writes to; it is prepared as an upper is, and let go at the end.

    Raises:
        EBUSY: it belongs to a live overlay other than `source`, which is named, or is the upper of `source`.
        EINVAL: it lies inside or around a lower of `source`.

    """
    number = source.lower_of(layer) if source is not None else 0
    lowers: list[Layer] = [] if source is None else list(source.lowers)
    # A plain PyFilesystem as lower remembers what it was told: written to by itself it knows what changes.
    if number and not layer.capabilities.marks and isinstance(lowers[number - 1], UpperLayer):
        layer = lowers[number - 1]  # type: ignore[assignment]
    _prepare(layer)
    tree = Overlay.bare(layer)
    try:
        if source is None or not number:
            yield Target(tree)
        else:
            yield Target(tree, number, source.marks, lowers[: number - 1], lowers[number:])
    finally:
        tree.close()
        layer.release(keep_index=True)


def _prepare(layer: UpperLayer) -> None:
    try:
        layer.prepare(index=False)
    except OSError as error:
        # A host directory with no room for a work directory beside it can be written to without one.
        if error.errno != errno.EINVAL:
            raise
