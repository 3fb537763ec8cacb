"""Answers the faces may read without a lock: what a path, spelt plainly, was found to be.

`paths` maps a path as a caller spelt it, "/a/b" or "a/b", to its dentry, or to None where nothing shows. Only
plain spellings are kept: no `.`, `..`, doubled or trailing slashes, and no symlink anywhere on the way, so that
the two spellings are all that a change of one name can make wrong. A dentry carries what else was found out:
`stat` and `listing`, while they hold.

Answers are put in under the mount's lock, into the dict that is there then; a writer, under the lock too and
after the upper has changed, drops the answers its verb made wrong, or publishes a new dict where it can't tell
them apart (a directory moved, a symlink came or went). A reader that got an answer just before that is one that
came before the verb. Only the superuser's answers are kept: anybody else's depend on every directory on the way.
"""

import stat
from typing import Final

from overlayvfs.engine.dentry import Dentry

NAMES_MAX: Final = 1 << 18
"""How many names are remembered unless the overlay is told otherwise."""


class LeftOut:
    """Names a listing could not look up: listings that share it do without (is_whiteout of struct ovl_cache_entry)."""

    __slots__ = ("keepers", "names")

    def __init__(self) -> None:
        self.names: set[str] = set()
        self.keepers = 0
        """Open descriptors with such a listing."""


class NameCache:
    """What is known of plain paths, at most `names_max` of them."""

    __slots__ = ("left_out", "names_max", "paths")

    def __init__(self, names_max: int) -> None:
        self.names_max = names_max
        self.paths: dict[str, Dentry | None] = {}
        self.left_out: dict[Dentry, LeftOut] = {}
        """What was left out of a directory's listing, while a descriptor keeps that."""

    def learn(self, path: str, dentry: Dentry | None) -> None:
        """Keep an answer; when there are too many, all go."""
        if len(self.paths) >= self.names_max:
            self.flush()
            if self.names_max == 0:
                return
        self.paths[path] = dentry

    def flush(self) -> None:
        """Forget every path."""
        if self.paths:
            self.paths = {}

    def keep(self, directory: Dentry, left_out: LeftOut) -> None:
        """Let all listings of a directory do without these names, until `release` or a change of its names."""
        left_out.keepers += 1
        self.left_out[directory] = left_out

    def release(self, directory: Dentry, left_out: LeftOut) -> None:
        """Let go of what was kept: with the last keeper it is forgotten."""
        left_out.keepers -= 1
        if left_out.keepers == 0 and self.left_out.get(directory) is left_out:
            del self.left_out[directory]

    def changed(self, dentry: Dentry) -> None:
        """Forget what was known of a name that came or went."""
        if dentry.parent is not None:
            dentry.parent.listing = None
            if self.left_out:
                self.left_out.pop(dentry.parent, None)
        if stat.S_ISLNK(dentry.kind):
            # Paths that led nowhere may lead somewhere through it.
            self.flush()
        elif self.paths:
            path = dentry.path
            self.paths.pop(path, None)
            self.paths.pop(path[1:], None)

    def moves(self, dentry: Dentry) -> None:
        """Forget what was known of a name about to move, or of the place it moved to: call it for both."""
        if stat.S_ISDIR(dentry.kind):
            self.flush()
        self.changed(dentry)
