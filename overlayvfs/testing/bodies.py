"""Boxes: one way to arrange, act on and look at an overlay, with several bodies behind it.

A test arranges layers as literal trees, acts through `box.os` and asserts what shows. Which overlay it drives, the
kernel's or this library's over one or another kind of layer, it does not know.
"""

import errno
import os
import shutil
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, Final

from overlayvfs.abi import O_CREAT, O_TRUNC, O_WRONLY
from overlayvfs.testing.coverage import Layers
from overlayvfs.testing.hostos import HostOs, is_root
from overlayvfs.testing.kernel import Kernel, KernelMount
from overlayvfs.testing.ops import Op, Outcome, Runner
from overlayvfs.testing.snapshots import Look, Snapshot, capture, differences, look, nodes_of, without_marks
from overlayvfs.testing.stacks import Stack
from overlayvfs.testing.trees import Node, Tree, Unsupported, build, literal

LiteralTree = dict[str, str | bytes | Node]


@contextmanager
def raises_errno(number: int) -> Iterator[None]:
    """Expect an OSError with this errno from the block."""
    name = errno.errorcode[number]
    try:
        yield
    except OSError as error:
        if error.errno != number:
            raise AssertionError(f"expected {name}, not {errno.errorcode.get(error.errno or 0)}: {error}") from error
    else:
        raise AssertionError(f"expected {name}, but the call succeeded")


class Box(ABC):
    """One overlay under test: layers are given first, then it mounts at the first look or call."""

    name = ""
    """What pytest calls this body."""

    is_kernel: ClassVar[bool] = False
    """Whether the kernel answers."""

    tells_impure: ClassVar[bool] = True
    """Whether directories are marked impure exactly as Linux marks them."""

    def __init__(self) -> None:
        self._lowers: list[Tree] = []
        self._data_only = 0
        self._upper: Tree | None = {}
        self._stack: Stack | None = None
        self._lowers_at_first: list[Snapshot] = []

    def lower(self, tree: Tree) -> None:
        """Add a lower beneath those already given: call it topmost first, as in `lowerdir=l1:l2`."""
        self._not_mounted()
        if self._data_only:
            raise RuntimeError("data-only lowers are the last: give all others before")
        self._lowers.append(tree)

    def data_only(self, tree: Tree) -> None:
        """Add a lower whose names don't show, beneath all others."""
        self._not_mounted()
        self._lowers.append(tree)
        self._data_only += 1

    def upper(self, tree: Tree | None) -> None:
        """Let the upper hold `tree` before the mount; None makes a read-only overlay. Without a call it is empty."""
        self._not_mounted()
        self._upper = tree

    def mount(self, *, separate: bool | None = None, **options: str | bool) -> None:
        """Mount with options by mount(8)'s names; without a call the first look or call mounts with none.

        `separate` gives every layer a file system of its own, False one to all; None takes what the body prefers.

        Raises:
            OSError: what mount(2) says.
            Unsupported: this body can't have such layers or options.

        """
        self.start(Stack(tuple(self._lowers), self._upper, options, separate, self._data_only))

    def start(self, stack: Stack) -> None:
        """Mount a stack that is described as data."""
        self._not_mounted()
        self._start(stack)
        self._stack = stack
        self._lowers_at_first = self._lower_snapshots()

    def remount(self, **options: str | bool) -> None:
        """Unmount, closing open descriptors, and mount again over the same layers with the same options or these."""
        stack = self._mounted()
        self._remount(dict(options) or stack.options)

    @property
    def os(self) -> Any:
        """The tree in the shape of the os module."""
        self._mounted()
        return self._os()

    def run(self, ops: Sequence[Op]) -> list[Outcome]:
        """Execute operations and return what each came to."""
        return Runner(self.os, identity=self.keeps_upper).run_all(ops)

    def tree(self) -> LiteralTree:
        """Return the merged tree as a literal: kinds, contents, modes, owners, xattrs and hard links; no times."""
        return literal(nodes_of(self.snapshot()))

    def upper_tree(self, *, origin: bool = False, impure: bool = False) -> LiteralTree:
        """Return what the upper holds in the kernel's terms: whiteouts, and marks (`origin` and `impure` if asked)."""
        left_out = [name for name, asked in (("origin", origin), ("impure", impure)) if not asked]
        return literal(nodes_of(without_marks(self.snapshot("upper"), left_out)))

    def lower_trees(self) -> list[LiteralTree]:
        """Return what each lower holds, topmost first."""
        return [literal(nodes_of(snapshot)) for snapshot in self._lower_snapshots()]

    def snapshot(self, which: str | int = "merged") -> Snapshot:
        """Return all that "merged", "upper" or the lower of this index shows."""
        self._mounted()
        return self._snapshot(which)

    def look(self) -> Look:
        """Return all that the merged tree shows, inode numbers included."""
        return look(self.os)

    def all_snapshots(self) -> dict[str | int, Snapshot]:
        """Return what every layer and the merged tree show; lowers that came to be on the way after those given."""
        uppers = ["upper"] if self._mounted().upper is not None else []
        # The merged tree last, as the kernel's side does: looking names up may leave origin marks in the upper.
        return {which: self._snapshot(which) for which in (*range(self.lower_count()), *uppers, "merged")}

    @property
    def keeps_origins(self) -> bool:
        """Tell whether every copy can carry the file handle of its origin.

        Where marks are spelt user.overlay.* symlinks can't, and a user namespace can't decode any (KB 14.9, 14.10).
        """
        return True

    def require_origins(self) -> None:
        """Skip the test on a body that can't keep origins."""
        if not self.keeps_origins:
            raise Unsupported("no usable origin marks in the user namespace or in user.overlay.* (KB 14.9, 14.10)")

    @property
    def acts_as_root(self) -> bool:
        """Tell whether calls are made with all rights of root (any owner, set-id bits kept at writing)."""
        return True

    def require_root(self) -> None:
        """Skip the test on a body that can't act as root."""
        if not self.acts_as_root:
            raise Unsupported("calls are made here without the rights of the host's root")

    @property
    def keeps_upper(self) -> bool:
        """Tell whether what is made stays in the upper it was made in."""
        return True

    def require_kept_upper(
        self, why: str = "what was made is in a lower by then: moving it, its links and its numbers differ"
    ) -> None:
        """Skip the test on a body whose upper becomes a lower after every change.

        There a new directory has lower contents (EXDEV, nlink 1), a hard link is one of a lower's, inode numbers are
        those of another layer, and a directory's impure mark stays behind.
        """
        if not self.keeps_upper:
            raise Unsupported(why)

    @property
    def is_posix(self) -> bool:
        """Tell whether layers are file systems as POSIX knows them."""
        return True

    def require_posix(self) -> None:
        """Skip the test on a body whose layers hold files, directories and whole microseconds alone."""
        if not self.is_posix:
            raise Unsupported("a plain PyFilesystem holds no modes, owners, links, attributes, holes or nanoseconds")

    def read(self, path: str) -> bytes:
        """Return a file's contents."""
        fd = self.os.open(path, os.O_RDONLY)
        try:
            return b"".join(iter(lambda: self.os.read(fd, 1 << 20), b""))
        finally:
            self.os.close(fd)

    def write(self, path: str, data: bytes, flags: int = O_WRONLY | O_CREAT | O_TRUNC) -> None:
        """Open with `flags`, write `data`, close."""
        fd = self.os.open(path, flags, 0o644)
        try:
            self.os.write(fd, data)
        finally:
            self.os.close(fd)

    def finish(self) -> None:
        """End the test: check that no lower changed (KB 5.10), then unmount.

        Raises:
            AssertionError: a lower is not what it was at the mount.

        """
        try:
            if self._stack is not None:
                self._check_lowers()
        finally:
            self._stop()

    def _check_lowers(self) -> None:
        for index, (before, now) in enumerate(zip(self._lowers_at_first, self._lower_snapshots(), strict=True)):
            found = differences(before, now)
            if found:
                raise AssertionError(f"lower {index} changed:\n" + "\n".join(found))

    def _lower_snapshots(self) -> list[Snapshot]:
        return [self.snapshot(index) for index in range(len(self._mounted().lowers))]

    def _mounted(self) -> Stack:
        if self._stack is None:
            self.mount()
        if self._stack is None:
            raise AssertionError("mount() returned without a stack")
        return self._stack

    def _not_mounted(self) -> None:
        if self._stack is not None:
            raise RuntimeError("the box is mounted already: arrange all layers before the first look or call")

    @abstractmethod
    def _start(self, stack: Stack) -> None: ...

    @abstractmethod
    def _remount(self, options: Mapping[str, str | bool]) -> None: ...

    @abstractmethod
    def _os(self) -> Any: ...

    @abstractmethod
    def _snapshot(self, which: str | int) -> Snapshot: ...

    @abstractmethod
    def lower_count(self) -> int:
        """Return how many lowers there are now."""

    @abstractmethod
    def _stop(self) -> None:
        """Unmount if mounted and leave nothing behind."""


class KernelBox(Box):
    """The real overlay mount."""

    name = "kernel"
    is_kernel = True

    def __init__(self) -> None:
        super().__init__()
        self._mount: KernelMount | None = None

    @property
    def keeps_origins(self) -> bool:
        """Tell whether the mount is the reference one."""
        return Kernel.find().kind == "root"

    @property
    def acts_as_root(self) -> bool:
        """Tell whether this is no user namespace: its root is an ordinary user to the file systems of the host."""
        return Kernel.find().kind == "root"

    def run(self, ops: Sequence[Op]) -> list[Outcome]:
        """Execute operations in one round trip."""
        self._mounted()
        return self._live().run(ops)

    def _start(self, stack: Stack) -> None:
        self._mount = Kernel.find().mount(stack)

    def _remount(self, options: Mapping[str, str | bool]) -> None:
        self._live().remount(options)

    def _os(self) -> Any:
        return self._live().os

    def _snapshot(self, which: str | int) -> Snapshot:
        return self._live().snapshot(which)

    def lower_count(self) -> int:
        """Return how many lowers there are now."""
        return self._live().lower_count()

    def _stop(self) -> None:
        if self._mount is not None:
            self._mount.close()

    def _live(self) -> KernelMount:
        if self._mount is None:
            raise RuntimeError("not mounted")
        return self._mount


class EngineBox(Box):
    """This library's overlay; subclasses say what its layers are made of."""

    def __init__(self) -> None:
        super().__init__()
        self._overlay: Any = None
        self._options: Mapping[str, str | bool] = {}
        self._layers: list[Any] = []
        self._hidden = 0
        self._upper_layer: Any = None

    def _start(self, stack: Stack) -> None:
        self._options = stack.options
        self._check_layout(stack.separate)
        self._layers, self._hidden = [self._make_layer(tree) for tree in stack.lowers], stack.data_only
        self._upper_layer = None if stack.upper is None else self._make_layer(stack.upper)
        self._open_overlay()

    def lost_its_place(self, fd: int) -> bool:
        """Tell whether a descriptor is a directory's that was only in a lower, and another directory has its name.

        Changing it has Linux replace the other one if that is empty; this library refuses to.
        """
        dentry = self._overlay.os._file(fd).dentry
        if not dentry.is_dir or dentry.has_upper or not dentry.unlinked:
            return False
        successor = dentry.parent.children.get(dentry.name)
        return successor is not None and successor.is_dir

    def raw_layers(self) -> Layers:
        """Return the layers as they are past the overlay, to be read without it noticing."""
        self._mounted()
        upper = None if self._upper_layer is None else self._inspect(self._upper_layer)
        return Layers(upper, [self._inspect(layer) for layer in self._shown_layers()], self._prefix())

    def _shown_layers(self) -> list[Any]:
        return self._layers[: len(self._layers) - self._hidden]

    def _remount(self, options: Mapping[str, str | bool]) -> None:
        self._overlay.close()
        self._options = options
        self._open_overlay()

    def _open_overlay(self) -> None:
        from overlayvfs import OverlayFS

        # The reference mount spells its marks in trusted.overlay.*: only so are the two uppers comparable.
        arguments = {"userxattr": False, **self._places(), **self._options}
        shown = self._shown_layers()
        hidden = self._layers[len(shown) :]
        self._overlay = OverlayFS(shown, self._upper_layer, data_only=hidden, **arguments)

    def _os(self) -> Any:
        return self._overlay.os

    def _snapshot(self, which: str | int) -> Snapshot:
        if which == "merged":
            return capture(self._overlay.os, "")
        layer = self._upper_layer if which == "upper" else self._layer_of(int(which))
        osmod, root = self._inspect(layer)
        return capture(osmod, root, prefix=self._prefix())

    def lower_count(self) -> int:
        """Return how many lowers there are now."""
        return len(self._layers)

    def _layer_of(self, which: int) -> Any:
        return self._layers[which]

    def _stop(self) -> None:
        if self._overlay is not None:
            self._overlay.close()

    def _prefix(self) -> str:
        return "user.overlay." if self._options.get("userxattr") in (True, "on") else "trusted.overlay."

    def _places(self) -> dict[str, Any]:
        """Return the keyword arguments that say where work is done."""
        return {}

    @abstractmethod
    def _check_layout(self, separate: bool | None) -> None:
        """Raise Unsupported if the layers can't be on one file system, or not on several, as asked."""

    @abstractmethod
    def _make_layer(self, tree: Tree) -> Any:
        """Return a layer that holds `tree`, as OverlayFS takes it."""

    @abstractmethod
    def _inspect(self, layer: Any) -> tuple[Any, str]:
        """Return an os module and the path at which it shows `layer` raw."""


class EngineOnMemory(EngineBox):
    """The engine over memory: directories of one `MemoryFS` or, if asked to be separate, a `MemoryFS` each."""

    name = "engine-memory"

    def __init__(self) -> None:
        super().__init__()
        self._shared: Any = None

    def _check_layout(self, separate: bool | None) -> None:
        from overlayvfs import MemoryFS

        self._shared = None if separate else MemoryFS()

    def _make_layer(self, tree: Tree) -> Any:
        from overlayvfs import MemoryFS

        if self._shared is None:
            layer = MemoryFS()
            build(layer.os, "", tree, prefix=self._prefix())
            return layer
        place = f"/layer{len(self._shared.os.listdir('/'))}"
        self._shared.os.mkdir(place)
        build(self._shared.os, place, tree, prefix=self._prefix())
        return self._shared.opendir(place)

    def _inspect(self, layer: Any) -> tuple[Any, str]:
        return (layer.os, "") if self._shared is None else (self._shared.os, layer.delegate_path("/")[1].rstrip("/"))


class EngineOnHost(EngineBox):
    """The engine over host directories of one file system, with a workdir of its own."""

    name = "engine-local"

    def __init__(self) -> None:
        super().__init__()
        self._directory = tempfile.mkdtemp(prefix="overlayvfs-box-", dir=HOST_DIRECTORY)

    @property
    def keeps_origins(self) -> bool:
        """Tell whether marks are spelt trusted.overlay.*."""
        return is_root()

    @property
    def acts_as_root(self) -> bool:
        """Tell whether this process is root: host layers are written with its rights."""
        return is_root()

    def _start(self, stack: Stack) -> None:
        os.mkdir(f"{self._directory}/work")
        super()._start(stack)

    def _check_layout(self, separate: bool | None) -> None:
        if separate:
            raise Unsupported("host layers on separate file systems need mounts")

    def _prefix(self) -> str:
        # Only root may keep trusted.*; elsewhere the library's own default does as well.
        return super()._prefix() if is_root() else "user.overlay."

    def _places(self) -> dict[str, Any]:
        places: dict[str, Any] = {"userxattr": self._prefix() == "user.overlay."}
        if self._upper_layer is not None:
            places["workdir"] = f"{self._directory}/work"
        return places

    def _make_layer(self, tree: Tree) -> str:
        place = tempfile.mkdtemp(dir=self._directory)
        previous = os.umask(0o022)
        try:
            build(HostOs(), place, tree, prefix=self._prefix())
        finally:
            os.umask(previous)
        return place

    def _inspect(self, layer: Any) -> tuple[Any, str]:
        return HostOs(), layer

    def _stop(self) -> None:
        super()._stop()
        shutil.rmtree(self._directory)


HOST_DIRECTORY: Final = "/dev/shm" if os.path.isdir("/dev/shm") else None
"""Where host layers are made: a tmpfs, as the kernel's are, so that both give the same sizes and times."""
