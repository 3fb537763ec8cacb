"""The reference model behind the interfaces of the kit: a body, and a judge in the kernel's place."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from overlayvfs.testing.bodies import Box
from overlayvfs.testing.coverage import Layers
from overlayvfs.testing.kernel import Transcript
from overlayvfs.testing.model import Inode, ModelOs, Union, directory
from overlayvfs.testing.ops import Op, Outcome, Runner
from overlayvfs.testing.random_stacks import Profile
from overlayvfs.testing.snapshots import Snapshot, capture
from overlayvfs.testing.stacks import Stack
from overlayvfs.testing.trees import Tree, Unsupported, build, normal

_PREFIX: Final = "trusted.overlay."
_CLAIMED: Final = {"redirect_dir": ("on", "off", "follow", "nofollow", True, False), "xino": ("on", "off", "auto")}
"""The options that the model knows, and their values."""


class ModelBox(Box):
    """The reference model; every layer a dict."""

    name = "model"
    tells_impure = False

    def __init__(self) -> None:
        super().__init__()
        self._upper_layer: Inode | None = None
        self._layers: list[Inode] = []
        self._union = Union(None)
        self._model = ModelOs(self._union)

    def _start(self, stack: Stack) -> None:
        _check_options(stack.options)
        self._layers = [_layer(tree) for tree in stack.lowers]
        self._upper_layer = None if stack.upper is None else _layer(stack.upper)
        self._mount(stack)

    def _remount(self, options: Mapping[str, str | bool]) -> None:
        _check_options(options)
        self._mount(replace(self._mounted(), options=options))

    def _mount(self, stack: Stack) -> None:
        self._union = Union(self._upper_layer, self._layers, stack.options)
        if stack.separate:
            self._union.numbers = "apart" if stack.options.get("xino") == "off" else "mapped"
        self._model = ModelOs(self._union)

    def lost_its_place(self, fd: int) -> bool:
        """Tell whether a descriptor is a directory's that was only in a lower, and another directory has its name."""
        return self._model.lost_its_place(fd)

    def raw_layers(self) -> Layers:
        """Return the layers as they are past the overlay."""
        self._mounted()
        upper = None if self._upper_layer is None else (_plain(self._upper_layer), "")
        return Layers(upper, [(_plain(layer), "") for layer in self._layers], _PREFIX)

    def _os(self) -> Any:
        return self._model

    def _snapshot(self, which: str | int) -> Snapshot:
        if which == "merged":
            return capture(self._model, "")
        layer = self._layers[which] if isinstance(which, int) else self._upper_layer
        if layer is None:
            raise LookupError("a read-only overlay has no upper")
        return capture(_plain(layer), "", prefix=_PREFIX)

    def lower_count(self) -> int:
        """Return how many lowers there are."""
        return len(self._layers)

    def _stop(self) -> None:
        pass


class Model:
    """The reference model as judge: answers as `Kernel` does."""

    title = "the model"
    tells_impure = False
    description = "the reference model"

    def mount(self, stack: Stack, *, rotating: bool = False) -> "ModelMount":
        """Mount a stack. Raises Unsupported for options that the model does not claim, and for rotating layers."""
        check_claimed([Profile(stack.options)], rotating=rotating)
        return ModelMount(stack)

    def transcript(self, stack: Stack, ops: Sequence[Op], *, rotating: bool = False) -> Transcript:
        """Mount a stack, execute operations, look at everything."""
        mount = self.mount(stack, rotating=rotating)
        return Transcript(mount.run(ops), mount.box.all_snapshots())


class ModelMount:
    """One stack that the model has mounted."""

    def __init__(self, stack: Stack) -> None:
        self.box = ModelBox()
        self.box.start(stack)
        self._runner = Runner(self.box.os)
        self._lower_count = len(stack.lowers)

    def run(self, ops: Sequence[Op]) -> list[Outcome]:
        """Execute operations; descriptors stay open for the next ones."""
        return self._runner.run_all(ops)

    def snapshot(self, which: str | int) -> Snapshot:
        """Return what "merged", "upper" or the lower of this index shows."""
        return self.box.snapshot(which)

    def lower_count(self) -> int:
        """Return how many lowers there are."""
        return self._lower_count

    def close(self) -> None:
        """Unmount: check that no lower changed."""
        self.box.finish()


def check_claimed(profiles: Iterable[Profile], *, rotating: bool = False) -> None:
    """Raise Unsupported for sequences of which the model says nothing."""
    if rotating:
        raise Unsupported("the model rotates no layers")
    for profile in profiles:
        _check_options(profile.options)
        if profile.data_only or profile.remounts:
            raise Unsupported("the model knows no data-only lowers, and mounts once")
        if profile.credentials:
            raise Unsupported("the model knows no callers without privilege")


def _check_options(options: Mapping[str, str | bool]) -> None:
    unknown = [f"{name}={value}" for name, value in options.items() if value not in _CLAIMED.get(name, ())]
    if unknown:
        raise Unsupported(f"the model knows nothing of {', '.join(unknown)}")


def _layer(tree: Tree) -> Inode:
    if any("whiteout" in node.marks for node in normal(tree).values()):
        raise Unsupported("the model knows no whiteouts that are attributes (KB 3.17)")
    root = directory()
    build(_plain(root), "", tree, prefix=_PREFIX)
    return root


def _plain(layer: Inode) -> ModelOs:
    """Return a layer as a tree of its own: whiteouts are devices, marks are attributes."""
    return ModelOs(Union(layer))
