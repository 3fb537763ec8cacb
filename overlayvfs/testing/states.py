"""The states one name can be in, between one lower and the upper: where the kernel's rules differ.

Each state says what the layers hold about the object `x`: `y` is its other name where it is a hard link, `t` what it
points to where it is a symlink. Contents of lower and upper differ and are of one length, so that only where they come
from tells them apart.
"""

from collections.abc import Mapping
from typing import Final, NamedTuple

from overlayvfs.testing.trees import DIR, WHITEOUT, Hardlink, Node, Symlink, Tree, directory, file, hardlink, symlink

_LOW: Final = file("low", xattrs={"user.k": b"v"})
_UPP: Final = file("upp", xattrs={"user.k": b"v"})
_OPAQUE: Final = directory(opaque=True)

_LOWER_DIR: Final[Tree] = {"x/c": _LOW}
_ALL: Final[Mapping[str, tuple[Tree, Tree]]] = {
    "absent": ({}, {}),
    "upper file": ({}, {"x": _UPP}),
    "upper file over lower file": ({"x": _LOW}, {"x": _UPP}),
    "lower file": ({"x": _LOW}, {}),
    "lower hard link (x==y)": ({"x": _LOW, "y": hardlink("x")}, {}),
    "upper hard link (x==y)": ({}, {"x": _UPP, "y": hardlink("x")}),
    "lower symlink to file": ({"x": symlink("t"), "t": _LOW}, {}),
    "lower dangling symlink": ({"x": symlink("t")}, {}),
    "upper symlink": ({"t": _LOW}, {"x": symlink("t")}),
    "upper dir, empty": ({}, {"x": DIR}),
    "upper dir, non-empty": ({}, {"x/c": _UPP}),
    "lower dir, empty": ({"x": DIR}, {}),
    "lower dir, non-empty": (_LOWER_DIR, {}),
    "merged dir, empty": ({"x": DIR}, {"x": DIR}),
    "merged dir, non-empty": (_LOWER_DIR, {"x/e": _UPP}),
    "merged dir, all whited out": (_LOWER_DIR, {"x/c": WHITEOUT}),
    "opaque dir over lower dir, empty": (_LOWER_DIR, {"x": _OPAQUE}),
    "opaque dir over lower dir, non-empty": (_LOWER_DIR, {"x": _OPAQUE, "x/e": _UPP}),
    "whiteout over lower file": ({"x": _LOW}, {"x": WHITEOUT}),
    "whiteout over lower dir": (_LOWER_DIR, {"x": WHITEOUT}),
    "upper file over lower dir": (_LOWER_DIR, {"x": _UPP}),
    "upper dir over lower file": ({"x": _LOW}, {"x": DIR}),
}

STATES: Final = tuple(_ALL)
"""The names of all states."""


class Arranged(NamedTuple):
    """What a state puts into the lower and into the upper."""

    lower: dict[str, Node]
    upper: dict[str, Node]


def arranged(state: str, *, x: str = "/x", y: str = "/y", t: str = "/t") -> Arranged:
    """Return the layers' entries that bring the object `x` into `state`; `x`, `y`, `t` are paths in one directory."""
    paths = {"x": x, "y": y, "t": t}
    lower, upper = _ALL[state]
    return Arranged(_placed(lower, paths), _placed(upper, paths))


def _placed(tree: Tree, paths: Mapping[str, str]) -> dict[str, Node]:
    placed: dict[str, Node] = {}
    for key, node in tree.items():
        letter, slash, rest = key.partition("/")
        if isinstance(node, Hardlink):
            node = hardlink(paths[node.other])
        elif isinstance(node, Symlink):
            node = symlink(paths[node.target].rpartition("/")[2])
        elif not isinstance(node, Node):
            raise TypeError(f"{key!r} of a state is no Node")
        placed[paths[letter] + slash + rest] = node
    return placed
