"""The rotating bodies: what an overlay shows must not depend on which layers it is spread over (rotation.py).

Left out by name is what does: the marks of an upper that is gone, and what `Box.require_kept_upper` lists. The kernel's
mount rotates like the engine's, and says what that is.
"""

from typing import Any

from overlayvfs.testing.bodies import Box, EngineOnMemory, KernelBox
from overlayvfs.testing.kernel import Kernel
from overlayvfs.testing.rotation import RotatingOs, copy_root
from overlayvfs.testing.snapshots import Snapshot
from overlayvfs.testing.stacks import Stack
from overlayvfs.testing.trees import Unsupported


class Rotating(Box):
    """What the rotating bodies have in common."""

    @property
    def keeps_upper(self) -> bool:
        """Tell that it does not: what was made is in a lower soon after."""
        return False

    def snapshot(self, which: str | int = "merged") -> Snapshot:
        """Return what "merged", "upper" or the lower of this index shows; "upper" only until it rotated away."""
        given = len(self._mounted().lowers)
        if which == "upper" and self.lower_count() > given:
            raise Unsupported("the upper that held the marks is a lower by now")
        return super().snapshot(which)

    def _check_options(self, stack: Stack) -> None:
        if stack.options.get("index") in (True, "on"):
            raise Unsupported("the index is in the upper, which rotates away here")


class RotatingKernel(Rotating, KernelBox):
    """The real overlay mount, unmounted and mounted anew."""

    name = "kernel-rotating"

    def _start(self, stack: Stack) -> None:
        self._check_options(stack)
        self._mount = Kernel.find().mount(stack, rotating=True)


class RotatingEngine(Rotating, EngineOnMemory):
    """The engine over memory layers."""

    name = "engine-rotating"

    def __init__(self) -> None:
        super().__init__()
        self._rotating_os = RotatingOs(super()._os, self._rotate)
        self._given = 0

    @property
    def rotations(self) -> int:
        """Return how often the layers have rotated."""
        return len(self._layers) - self._given

    def _start(self, stack: Stack) -> None:
        self._check_options(stack)
        super()._start(stack)
        self._given = len(stack.lowers)

    def _remount(self, options: Any) -> None:
        self._rotating_os.forget()
        super()._remount(options)

    def _os(self) -> Any:
        return self._rotating_os

    def _rotate(self) -> None:
        if self._upper_layer is None:
            return
        before = self._overlay.os
        who = before.geteuid(), before.getegid(), before.getgroups(), before.umask(0)
        self._overlay.close()
        old = self._upper_layer
        self._layers.insert(0, old)
        self._upper_layer = self._make_layer({})
        (old_os, old_root), (new_os, new_root) = self._inspect(old), self._inspect(self._upper_layer)
        copy_root(old_os, old_root or "/", new_os, new_root or "/", marks=self._prefix())
        self._open_overlay()
        now = self._overlay.os
        now.umask(who[3])
        now.setgroups(who[2])
        now.setegid(who[1])
        now.seteuid(who[0])

    def _layer_of(self, which: int) -> Any:
        # Those given first, then the rotated ones, the oldest first.
        at = self.rotations + which if which < self._given else self.rotations + self._given - 1 - which
        return self._layers[at]
