"""Names of the merged tree (struct ovl_entry, struct ovl_inode; overlayfs.rst, "Overlay objects")."""

import stat
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from overlayvfs.abi import Stat
from overlayvfs.engine.lowers import LowerDir, LowerFile
from overlayvfs.layers.base import Handle

if TYPE_CHECKING:
    from overlayvfs.engine.inode import Inode


Listing = tuple[list[str], list[int]]
"""A directory's names and, in the same order, their S_IFMT types (0: unknown)."""


_NO_CHILDREN: "dict[str, Dentry | None]" = {}


@dataclass(slots=True, eq=False, weakref_slot=True, init=False)
class Dentry:
    """One name in the overlay; live, and unique per name.

    `copy_up` sets `has_upper`; nothing else does. The path in the upper is the dentry's own path, so
    a renamed directory leaves nothing stale below it. `lower` is what the lowers contribute: the
    directories merged here, or the file that shows (has_upper False) or was copied up (has_upper True).
    """

    name: str
    parent: "Dentry | None"
    has_upper: bool
    lower: LowerDir | LowerFile | None
    kind: int
    """The S_IFMT part of the mode; never changes."""
    opaque: bool = False
    """The upper directory carries the opaque mark."""
    redirect: str | None = None
    """The redirect mark of the upper object."""
    impure: bool = False
    """The upper directory is known to carry the impure mark."""
    metacopy: bool = False
    """The upper file had no data of its own when last seen; its other names may have changed that."""
    unlinked: bool = False
    """The name is gone; only open descriptors still hold this."""
    descriptors: int = 0
    """Open descriptors that go by this name rather than by an inode (directories, O_PATH)."""
    pins: int = 0
    """Open descriptors of any kind: while there are some, this stays the one dentry of its name."""
    number: int = 0
    """The inode number of the upper object, where that finds it (NumberedLayer) and somebody asked; else 0."""
    stat: Stat | None = None
    """The lower object's own attributes, where nothing can change them; all but the numbers and links show so."""
    listing: Listing | None = None
    """What was last listed here, while no name came, went or changed its layer."""
    readers: list[None] | None = None
    """One entry a light reader (faces/lightfile.py), which opened nothing; a list, as append and pop are atomic."""
    inode: "Inode | None" = None
    """What light readers read from since the copy up."""
    ghost: Handle | None = None
    """The real object behind an unlinked name with descriptors."""
    children: "dict[str, Dentry | None]" = field(default_factory=dict)
    """Names looked up so far; None is a name that is not there. All but directories share one that stays empty."""

    # Written out, with no `__post_init__`: every name that is looked up makes one, and most need the first five only.
    def __init__(
        self, name: str, parent: "Dentry | None", has_upper: bool, lower: LowerDir | LowerFile | None, kind: int
    ) -> None:
        self.name = name
        self.parent = parent
        self.has_upper = has_upper
        self.lower = lower
        self.kind = kind
        self.opaque = self.impure = self.metacopy = self.unlinked = False
        self.redirect = self.stat = self.listing = self.readers = self.inode = self.ghost = None
        self.descriptors = self.pins = self.number = 0
        self.children = {} if kind == stat.S_IFDIR else _NO_CHILDREN

    @property
    def path(self) -> str:
        """The path from the overlay's root as layers spell it: "" or "/a/b"."""
        parts: list[str] = []
        at = self
        while at.parent is not None:
            parts.append(at.name)
            at = at.parent
        parts.append("")
        return "/".join(reversed(parts))

    @property
    def is_dir(self) -> bool:
        """Whether this is a directory."""
        return stat.S_ISDIR(self.kind)

    @property
    def is_file(self) -> bool:
        """Whether this is a regular file."""
        return stat.S_ISREG(self.kind)

    @property
    def is_merged(self) -> bool:
        """More than one layer contributes to this directory (OVL_TYPE_MERGE; the root counts as one)."""
        if self.lower is None or not isinstance(self.lower, LowerDir):
            return False
        return self.has_upper or len(self.lower.parts) > 1

    @property
    def is_merge_or_lower(self) -> bool:
        """Something below the upper contributes: what makes a directory immovable (ovl_type_merge_or_lower)."""
        if self.is_dir:
            return self.lower is not None
        return not self.has_upper or self.metacopy

    @property
    def lower_dir(self) -> LowerDir | None:
        """The lower directories merged here, None if none are."""
        return self.lower if isinstance(self.lower, LowerDir) else None

    @property
    def lower_file(self) -> LowerFile | None:
        """The lower object that shows or was copied up, None if there is none."""
        return self.lower if isinstance(self.lower, LowerFile) else None

    def forget_below(self) -> None:
        """Take all names looked up below out of the tree; who still holds one holds it alone."""
        pending = [self]
        while pending:
            at = pending.pop()
            for child in at.children.values():
                if child is not None:
                    child.unlinked = True
                    pending.append(child)
            at.children.clear()

    def is_below(self, other: "Dentry") -> bool:
        """Tell whether `other` is a proper ancestor of this name."""
        at = self.parent
        while at is not None:
            if at is other:
                return True
            at = at.parent
        return False
