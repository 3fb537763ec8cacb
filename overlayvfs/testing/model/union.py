"""The model's overlay: layers, what a name in it comes to, and the marks by which it keeps things in a layer.

Two things are remembered, as Linux does in its inodes: which lower object was copied up to which upper one, which lets
a descriptor that was opened before see the copy (KB 13.1), and to whom a lower directory belongs (KB 2.10). What a
*name* is, neither decides.
"""

import errno
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

from overlayvfs.abi import oserror
from overlayvfs.testing.model.inodes import Inode

MARKS: Final = "trusted.overlay."
"""How this overlay's own attributes begin."""

ESCAPED: Final = f"{MARKS}overlay."
"""How a layer has a caller's attribute that would begin so (KB 16.2)."""

HANDLE: Final = b"\0\xfb<file handle>"
"""What stands for a file handle in an origin mark: the two bytes with which Linux's begin, and a word."""

Place = tuple[Inode, str]
"""A directory of a lower and a name in it. Lowers don't change, so this is an object as long as the overlay lives."""


@dataclass(slots=True, eq=False)
class Found:
    """What looking a name up came to. `held` is its object in the upper, `lowers` are those that it shows from below.

    A directory shows the directories of all lowers that are merged in it; anything else at most one lower object, and
    only if the upper has none.
    """

    parent: "Found | None"
    name: str
    held: Inode | None = None
    lowers: list[tuple[int, Inode]] = field(default_factory=list)
    """Number of the layer and object, topmost first."""
    place: Place | None = None
    """Where the first of `lowers` is."""
    whiteout: bool = False
    """The upper has a whiteout at this name."""

    @property
    def exists(self) -> bool:
        """Tell whether the name shows."""
        return self.held is not None or bool(self.lowers)

    def chain(self) -> "Iterator[Found]":
        """Return this name and the directories above it, the root last."""
        at: Found | None = self
        while at is not None:
            yield at
            at = at.parent

    def path(self) -> tuple[str, ...]:
        """Return the names from the root down to this one."""
        return tuple(found.name for found in self.chain() if found.parent is not None)[::-1]


@dataclass(slots=True)
class Union:
    """An upper (None: a read-only overlay) and lowers, topmost first; without lowers a plain tree, marks and all.

    `numbers` says whether inode numbers come from one file system, from several and are mapped into one range (xino),
    or stay apart: it decides which names Linux looks up to list a directory.
    """

    upper: Inode | None
    lowers: Sequence[Inode] = ()
    options: Mapping[str, str | bool] = field(default_factory=dict)
    numbers: Literal["of one", "mapped", "apart"] = "of one"
    copies: dict[Place, Inode] = field(default_factory=dict)
    """What lower objects were copied up to."""
    ways: dict[Inode, Inode | None] = field(default_factory=dict)
    """The lower directories that show, each with what is merged with it in the upper."""

    @property
    def is_plain(self) -> bool:
        """Tell whether this is no overlay at all: whiteouts are devices, marks are attributes like any other."""
        return not self.lowers

    @property
    def moves_lower_directories(self) -> bool:
        """Tell whether rename(2) may move what is not the upper's alone (redirect_dir=on)."""
        return self.options.get("redirect_dir") in (True, "on")

    @property
    def follows_redirects(self) -> bool:
        """Tell whether redirects that exist count (KB 1.3)."""
        return self.options.get("redirect_dir") != "nofollow"

    @property
    def expects_no_offline_changes(self) -> bool:
        """Tell whether an option forbids changing layers while they are not mounted (KB 4.3)."""
        return self.moves_lower_directories or self.options.get("xino") in (True, "on")

    def root(self) -> Found:
        """Return the root; marks on a layer's root mean nothing (KB 1.13)."""
        return Found(None, "", self.upper, list(enumerate(self.lowers)))

    def upper_of(self, found: Found) -> Inode | None:
        """Return the upper's object of a name, also if it was copied up since it was looked up."""
        if found.held is not None or found.place is None:
            return found.held
        return self.copies.get(found.place)

    def real(self, found: Found) -> Inode:
        """Return the object with the attributes and, of a file, the contents: the upper's or the topmost lower's."""
        return self.upper_of(found) or found.lowers[0][1]

    def is_merged(self, found: Found) -> bool:
        """Tell whether two or more layers contribute to a directory."""
        return len(found.lowers) + (self.upper_of(found) is not None) > 1

    def want_write(self) -> None:
        """Raise EROFS if there is no upper."""
        if self.upper is None:
            raise oserror(errno.EROFS)


# Marks.


def is_mark(name: str) -> bool:
    """Tell whether an attribute is the overlay's own."""
    return name.startswith(MARKS) and not name.startswith(ESCAPED)


def marks_of(inode: Inode) -> dict[str, bytes]:
    """Return the overlay's own attributes by their short names."""
    return {name.removeprefix(MARKS): value for name, value in inode.xattrs.items() if is_mark(name)}


def set_mark(inode: Inode, name: str, value: bytes) -> None:
    """Set one of the overlay's own attributes."""
    inode.xattrs[MARKS + name] = value


def redirect_of(inode: Inode) -> str | None:
    """Return where a directory's lowers are, None if under its own name.

    Raises:
        EINVAL: an absolute value with an empty component, a relative one with a slash, no value (KB 10.14).

    """
    value = marks_of(inode).get("redirect")
    if value is None:
        return None
    redirect = os.fsdecode(value)
    names = redirect.split("/")
    absolute = redirect.startswith("/")
    if not all(names[absolute:]) or (not absolute and len(names) > 1):
        raise oserror(errno.EINVAL, redirect)
    return redirect
