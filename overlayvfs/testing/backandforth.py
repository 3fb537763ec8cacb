"""One upper that this library and the kernel mount in turns: the format on disk is the kernel's, both ways.

    box = BackAndForth(Kernel.on("ext4"))

Each remount hands the same directories to the other one. In lockstep with a kernel that has an upper of its own and
remounts whenever this hands over (`Profile.remounts`), everything must come out the same: what either one wrote the
other shows, and goes on with, as if it had been the kernel all the time.
"""

import os
from collections.abc import Mapping
from typing import Any

from overlayvfs.testing.bodies import EngineBox
from overlayvfs.testing.hostos import HostOs
from overlayvfs.testing.kernel import Kernel, KernelMount
from overlayvfs.testing.snapshots import Look, Snapshot
from overlayvfs.testing.stacks import Stack
from overlayvfs.testing.trees import Tree, Unsupported


class BackAndForth(EngineBox):
    """The engine and the kernel over the same directories, which the kernel's worker made."""

    name = "back-and-forth"

    def __init__(self, kernel: Kernel | None = None, *, engine_first: bool = True) -> None:
        """Let the engine mount first, or the kernel. `kernel` says on which file system; None: this process's own."""
        super().__init__()
        self._kernel = kernel or Kernel.find()
        self._engines_turn = engine_first
        self._mount: KernelMount | None = None
        self._descriptors: list[int] = []
        self._work: str | None = None

    def look(self) -> Look:
        """Return all that the merged tree shows, inode numbers included."""
        return super().look() if self._engines_turn else self._live().look()

    def lost_its_place(self, fd: int) -> bool:
        """As of every engine; what the kernel does in its own turn is what the kernel does."""
        return self._engines_turn and super().lost_its_place(fd)

    def _start(self, stack: Stack) -> None:
        if self._kernel.kind != "root":
            raise Unsupported("a user namespace's overlay reads only some of what this library writes (KB 1.7, 1.10)")
        self._mount = self._kernel.prepare(stack)
        self._layers, self._hidden = [self._opened(index) for index in range(len(stack.lowers))], stack.data_only
        if stack.upper is not None:
            self._upper_layer, self._work = self._opened("upper"), self._opened("work")
        self._options = stack.options
        self._take_turn()

    def _opened(self, which: str | int) -> str:
        fd = self._live().layer(which)
        self._descriptors.append(fd)
        # The dot: the name in /proc itself is a symlink.
        return f"/proc/self/fd/{fd}/."

    def _remount(self, options: Mapping[str, str | bool]) -> None:
        if self._engines_turn:
            self._overlay.close()
        else:
            self._live().lay_down()
        self._options = options
        self._engines_turn = not self._engines_turn
        self._take_turn()

    def _take_turn(self) -> None:
        if self._engines_turn:
            self._open_overlay()
        else:
            self._live().take_up(self._options)

    def _places(self) -> dict[str, Any]:
        return {} if self._work is None else {"workdir": self._work}

    def _os(self) -> Any:
        return super()._os() if self._engines_turn else self._live().os

    def _snapshot(self, which: str | int) -> Snapshot:
        if which == "merged" and not self._engines_turn:
            return self._live().snapshot("merged")
        return super()._snapshot(which)

    def _stop(self) -> None:
        super()._stop()
        for fd in self._descriptors:
            os.close(fd)
        if self._mount is not None:
            self._mount.close()

    def _inspect(self, layer: Any) -> tuple[Any, str]:
        return HostOs(), layer

    def _check_layout(self, separate: bool | None) -> None:
        """Take whatever the worker made."""

    def _make_layer(self, tree: Tree) -> Any:
        raise AssertionError("the worker makes the layers")

    def _live(self) -> KernelMount:
        if self._mount is None:
            raise RuntimeError("not mounted")
        return self._mount
