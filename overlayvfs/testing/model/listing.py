"""Listing a directory of the model (KB 3.9, 8.2, 15.2)."""

from dataclasses import dataclass, field
from typing import Final

from overlayvfs.testing.model.inodes import Inode
from overlayvfs.testing.model.lookup import look_up
from overlayvfs.testing.model.union import Found, Union, marks_of

_DOTS: Final = 2


@dataclass(slots=True)
class LeftOut:
    """Names that a list of a merged directory does without, as they could not be looked up.

    Linux keeps the list, and that with it, for as long as a descriptor does and no name comes or goes.
    """

    directory: Inode
    changes: int
    names: set[str] = field(default_factory=set)

    def holds_for(self, directory: Inode) -> bool:
        """Tell whether a list of this directory would be the one that was kept."""
        return self.directory is directory and self.changes == directory.changes


def listing(union: Union, found: Found, left_out: set[str], position: int = 0) -> list[str]:
    """Return the names that a directory shows. Whiteouts never do (the first difference from Linux on purpose).

    Names `left_out` before don't show; those that can't be looked up are added to them.

    In a merged directory `position` counts names, whiteouts and the two dots too. In one of a single layer it is that
    layer's own affair: in tmpfs every name stands at a small number, and lies behind any great one.

    Raises:
        EINVAL EACCES: names had to be looked up and could not be; see `_looked_up`.

    """
    upper = union.upper_of(found)
    if upper is not None and upper.removed:
        return []
    layers = _layers(union, found)
    if union.is_plain:
        return [name for layer in layers for name in _in_order(layer)]
    # The first layer that has a name decides what it is, the lowest one where it stands (KB 15.2).
    shown = {name: inode for layer in reversed(layers) for name, inode in layer.names.items()}
    order = [name for layer in [layers[-1], *layers[:-1]] for name in _in_order(layer)]
    order = list(dict.fromkeys(order))[max(position - _DOTS, 0) if _is_merged(union, found) else 0 :]
    names = [name for name in order if not shown[name].is_whiteout and name not in left_out]
    return _looked_up(union, found, names, left_out)


def _looked_up(union: Union, found: Found, names: list[str], left_out: set[str]) -> list[str]:
    """Look up the names of which Linux must, to tell their numbers; return `names` without those for which it fails.

    That is every name of a merged directory if numbers are mapped, and those of an upper's that holds copies; none at
    all if they stay apart. Where nothing is merged they are looked up before any is told, and a failure is the
    listing's. Else getdents(2) ends at such a name and the next call goes on behind it: only if that one can tell
    nothing at all, its failure shows.
    """
    if union.numbers == "apart":
        return names
    upper = union.upper_of(found)
    impure = upper is not None and "impure" in marks_of(upper)
    merged = _is_merged(union, found)
    told: list[str] = []
    failed_before = False
    for name in names:
        if (merged and union.numbers == "mapped") or (impure and upper is not None and name in upper.names):
            try:
                look_up(union, found, name)
            except OSError:
                if merged:
                    left_out.add(name)
                if failed_before or not merged:
                    raise
                failed_before = True
                continue
        told.append(name)
        failed_before = False
    return told


def _is_merged(union: Union, found: Found) -> bool:
    """Tell whether Linux makes a list of the names, or has the one layer tell them."""
    upper = union.upper_of(found)
    return union.is_merged(found) or (upper is not None and "origin" in marks_of(upper))


def _layers(union: Union, found: Found) -> list[Inode]:
    """Return the directories of all layers that contribute, topmost first."""
    upper = union.upper_of(found)
    return [*([upper] if upper is not None else []), *(inode for _, inode in found.lowers)]


def _in_order(directory: Inode) -> list[str]:
    """Return names as tmpfs lists them: the newest first."""
    return list(reversed(directory.names))


def shows_a_name(union: Union, found: Found) -> bool:
    """Tell whether rmdir(2) says ENOTEMPTY."""
    hidden: set[str] = set()
    for layer in _layers(union, found):
        for name, inode in layer.names.items():
            if name not in hidden and not inode.is_whiteout:
                return True
            hidden.add(name)
    return False
