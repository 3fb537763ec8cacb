"""The public test kit: literal trees, one language for tests of any overlay, the kernel as oracle.

    def test_rename_lower_dir_without_redirect_is_exdev(box):
        box.lower({"/d/f": "x"})
        with raises_errno(errno.EXDEV):
            box.os.rename("/d", "/e")
        assert box.tree() == {"/d/f": "x"}

The `box` fixture comes from the pytest plugin: `pytest_plugins = ["overlayvfs.testing.plugin"]`.
"""

from overlayvfs.testing.bodies import Box, raises_errno
from overlayvfs.testing.kernel import Kernel, NoOracle, OracleError
from overlayvfs.testing.modelbox import Model, ModelBox
from overlayvfs.testing.ops import Op, Outcome, Runner, Slot, call
from overlayvfs.testing.registry import BODIES
from overlayvfs.testing.snapshots import Entry, Snapshot, capture, differences
from overlayvfs.testing.stacks import Stack
from overlayvfs.testing.trees import (
    DIR,
    FRESH,
    OLD,
    WHITEOUT,
    Node,
    Tree,
    Unsupported,
    device,
    directory,
    fifo,
    file,
    hardlink,
    symlink,
    whiteout,
)

__all__ = [
    "BODIES",
    "DIR",
    "FRESH",
    "OLD",
    "WHITEOUT",
    "Box",
    "Entry",
    "Kernel",
    "Model",
    "ModelBox",
    "NoOracle",
    "Node",
    "Op",
    "OracleError",
    "Outcome",
    "Runner",
    "Slot",
    "Snapshot",
    "Stack",
    "Tree",
    "Unsupported",
    "call",
    "capture",
    "device",
    "differences",
    "directory",
    "fifo",
    "file",
    "hardlink",
    "raises_errno",
    "symlink",
    "whiteout",
]
