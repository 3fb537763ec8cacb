"""Inode numbers for a file system that has none: a tree of the names ever asked for.

A number belongs to a name until that is removed, and goes along when it is renamed. What is open
hangs here too, so a handle finds its object wherever it was moved to.
"""

import itertools
import stat
from dataclasses import dataclass, field

from overlayvfs.abi import Stat
from overlayvfs.layers.pyfs.content import Content


@dataclass(slots=True, eq=False)
class Node:
    """One object, by its name in the backend; `parent` is None for the root and for what was removed."""

    name: str
    parent: "Node | None"
    ino: int
    children: "dict[str, Node]" = field(default_factory=dict)
    kind: int = 0
    """S_IFMT as last seen, 0 before."""
    size: int = 0
    """The size as last told."""
    ctime_ns: int = 0
    """When it was last changed through this layer, for backends that don't keep that."""
    mtime_ns: int | None = None
    """The modification time of a directory the backend was not told yet."""
    handles: int = 0
    content: Content | None = None
    """Of a regular file with handles."""
    unlinked: bool = False
    """It has lost its name: a file lives on in WORK until its last handle goes, of others only `last` is left."""
    last: Stat | None = None

    @property
    def path(self) -> str:
        """Where the object is in the backend."""
        names = []
        node = self
        while node.parent is not None:
            names.append(node.name)
            node = node.parent
        return "/" + "/".join(reversed(names))


class Nodes:
    """All nodes of a layer, by the backend's paths."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self.root = Node("", None, self.new_number(), kind=stat.S_IFDIR)
        self.whiteout_number = self.new_number()
        """Of all whiteouts: in the kernel's uppers, too, they are links of one inode (KB 3.2)."""
        self.moves = 0
        """Grows when a node loses its name: until then a path leads to the node it led to."""

    def new_number(self) -> int:
        return next(self._numbers)

    def at(self, path: str) -> Node:
        """Return the node of a path, made if it was never asked for."""
        node = self.root
        for name in path.split("/"):
            if name:
                child = node.children.get(name)
                if child is None:
                    child = node.children[name] = Node(name, node, self.new_number())
                node = child
        return node

    def known(self, path: str) -> Node | None:
        """Return the node of a path, None if it was never asked for."""
        node = self.root
        for name in path.split("/"):
            if name:
                child = node.children.get(name)
                if child is None:
                    return None
                node = child
        return node

    def drop(self, path: str) -> Node:
        """Take the node at `path` out of the tree and return it; the next object there gets a number of its own."""
        self.moves += 1
        node = self.at(path)
        assert node.parent is not None
        del node.parent.children[node.name]
        node.parent = None
        return node

    def place(self, node: Node, path: str) -> None:
        """Put a node that is in no tree at `path`, in place of what was there."""
        parent, _, name = path.rpartition("/")
        node.parent, node.name = self.at(parent), name
        node.parent.children[name] = node

    def move(self, src: str, dst: str) -> None:
        self.place(self.drop(src), dst)

    def exchange(self, one: str, other: str) -> None:
        first, second = self.drop(one), self.drop(other)
        self.place(first, other)
        self.place(second, one)
