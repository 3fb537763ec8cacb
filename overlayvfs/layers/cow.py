"""A persistent array over dense integers: what makes a snapshot of a memory layer O(1).

A radix tree of fanout 64. Its nodes carry the token of the tree that may write them, as a transient
persistent vector's do: `fork` shares all nodes and gives both trees new tokens, after which a write
copies the path to its slot once and then writes in place.

Readers take no lock: a write publishes whole nodes, equal to those they replace but for one slot.
"""

from collections.abc import Iterable, Iterator
from typing import Any, Final, Generic, TypeVar

T = TypeVar("T")

BITS: Final = 6
MASK: Final = (1 << BITS) - 1
_FANOUT: Final = 1 << BITS
_OWNER: Final = _FANOUT

# 64 children (nodes; items in a leaf, None where there is none), then the owner's token.
_Node = list[Any]

# What stands where there is no node, by shift: nobody's, and empty down to its leaves. So a reader never has to ask.
_VOIDS: Final[dict[int, _Node]] = {0: [None] * (_FANOUT + 1)}
for _shift in range(BITS, 64, BITS):
    _VOIDS[_shift] = [_VOIDS[_shift - BITS]] * _FANOUT + [None]


class Radix(Generic[T]):
    """Items by number, below 2**64; missing ones are None.

    `owner` is the token of everything this tree may write in place; users mark what they store with it too.
    `top` is (root node, shift of its slots), one tuple so that a reader never sees half of a growing tree.
    """

    __slots__ = ("owner", "top")

    def __init__(self) -> None:
        self.owner = object()
        self.top: tuple[_Node, int] = (_VOIDS[0], 0)

    def fork(self) -> "Radix[T]":
        """Return a tree with the same items that no longer follows this one's changes. O(1)."""
        twin: Radix[T] = Radix.__new__(Radix)
        twin.top = self.top
        twin.owner = object()
        self.owner = object()
        return twin

    def version(self) -> object:
        """Return an object that stays the same one until something is written; what was written is shared from then on.

        That is the owner's token: no node has it before the first write, and the root has it from then on.
        """
        if self.top[0][_OWNER] is self.owner:
            self.owner = object()
        return self.owner

    def get(self, key: int) -> T | None:
        """Return the item at `key` >= 0, None where there is none."""
        node, shift = self.top
        if key >> shift > MASK:
            return None
        while shift:
            node = node[key >> shift & MASK]
            shift -= BITS
        item: T | None = node[key & MASK]
        return item

    def get_all(self, keys: Iterable[int]) -> list[T | None]:
        """Return what `get` does of each key: neighbours cost 0.1 µs instead of 0.4, as they share a leaf."""
        root, top = self.top
        found: list[T | None] = []
        leaf, leaf_number = root, -1
        for key in keys:
            if key >> BITS != leaf_number:
                if key >> top > MASK:
                    found.append(None)
                    continue
                leaf, shift, leaf_number = root, top, key >> BITS
                while shift:
                    leaf = leaf[key >> shift & MASK]
                    shift -= BITS
            found.append(leaf[key & MASK])
        return found

    def set(self, key: int, item: T | None) -> _Node:
        """Put `item` at `key` >= 0; returns the leaf it is in."""
        owner = self.owner
        node, shift = self.top
        if key >> shift > MASK or node[_OWNER] is not owner:
            node, shift = self._own_root(key)
        while shift:
            slot = key >> shift & MASK
            child = node[slot]
            if child[_OWNER] is not owner:
                child = child.copy()
                child[_OWNER] = owner
                node[slot] = child
            node = child
            shift -= BITS
        node[key & MASK] = item
        return node

    def discard(self, key: int) -> None:
        """Forget the item at `key`, and the nodes that held nothing else."""
        leaf = self.set(key, None)
        # Mostly a neighbour is still there, so no node goes: 0.5 µs instead of 2.5.
        if leaf[key + 1 & MASK] is not None or leaf[key - 1 & MASK] is not None:
            return
        void: _Node | None = None
        for node, shift in reversed(self._own_path(key)):
            node[key >> shift & MASK] = void
            void = _VOIDS[shift]
            # Compared by identity first, and rarely beyond the first child that is there.
            if node[:_FANOUT] != void[:_FANOUT]:
                return

    def cut(self, key: int) -> None:
        """Forget every item from `key` >= 0 on."""
        if key >> self.top[1] > MASK:
            return
        for node, shift in self._own_path(key):
            # The child on the boundary stays: the next node of the path cuts inside it.
            first = (key >> shift & MASK) + (shift > 0)
            node[first:_FANOUT] = _VOIDS[shift][first:_FANOUT]

    def items(self, start: int, stop: int) -> Iterator[tuple[int, T]]:
        """Yield (key, item) for `start` <= key < `stop`, ascending, in time proportional to what is there."""
        node, shift = self.top
        return _items(node, shift, 0, start, min(stop, _FANOUT << shift))

    def _own_root(self, key: int) -> tuple[_Node, int]:
        """Return the root, writable and high enough for `key`, and its shift."""
        owner = self.owner
        node, shift = self.top
        while key >> shift > MASK:
            shift += BITS
            root = _VOIDS[shift].copy()
            root[_OWNER] = owner
            root[0] = node
            node = root
            self.top = (node, shift)
        if node[_OWNER] is not owner:
            node = node.copy()
            node[_OWNER] = owner
            self.top = (node, shift)
        return node, shift

    def _own_path(self, key: int) -> list[tuple[_Node, int]]:
        """Return (node, shift) from the root to the leaf of `key`, all writable."""
        owner = self.owner
        node, shift = self._own_root(key)
        path = [(node, shift)]
        while shift:
            slot = key >> shift & MASK
            child = node[slot]
            if child[_OWNER] is not owner:
                child = child.copy()
                child[_OWNER] = owner
                node[slot] = child
            node = child
            shift -= BITS
            path.append((node, shift))
        return path


def _items(node: _Node, shift: int, base: int, start: int, stop: int) -> Iterator[tuple[int, Any]]:
    first = max(start - base, 0) >> shift
    last = min(stop - 1 - base >> shift, MASK)
    void = _VOIDS[shift - BITS] if shift else None
    for slot in range(first, last + 1):
        child = node[slot]
        if child is void:
            continue
        key = base + (slot << shift)
        if shift:
            yield from _items(child, shift - BITS, key, start, stop)
        else:
            yield key, child
