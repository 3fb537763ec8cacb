"""The layer conformance suite: every promise of layers/base.py as a test a layer author inherits.

    class TestMine(UpperConformance):
        def make_upper(self, where):
            return MyLayer()

`LowerConformance` asks for `make_lower(tree, where)`, a layer that shows a literal tree; an upper fills
itself. A capability the layer doesn't claim is not skipped: the test then asserts the refusal instead.
`outside(layer)` may show the storage by other means than the layer's own verbs: where it does, every
tree a test ends with is compared with it too.

Importing this needs pytest (extra `[test]`).
"""

from overlayvfs.testing.conformance.lower import LowerConformance
from overlayvfs.testing.conformance.snapshot import SnapshotConformance
from overlayvfs.testing.conformance.trees import Node, Tree, directory, fill, node, read_tree
from overlayvfs.testing.conformance.upper import UpperConformance

__all__ = [
    "LowerConformance",
    "Node",
    "SnapshotConformance",
    "Tree",
    "UpperConformance",
    "directory",
    "fill",
    "node",
    "read_tree",
]
