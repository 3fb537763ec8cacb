"""Layers that count what they are asked: what an operation costs where a call is a round trip."""

from collections import Counter
from collections.abc import Callable
from typing import Any

from overlayvfs.layers.base import Handle, SnapshotLayer

ASKED_AT_MOUNT = frozenset(("name", "capabilities", "identity", "ancestry", "prepare", "release", "close"))
"""What says nothing about the tree in a layer."""


class CountingLayer:
    """A layer as good as the one it passes every verb on to, and a count of the calls by verb.

    What is done through its open files counts too, as `Handle.pread` and so on.
    """

    def __init__(self, inner: Any, calls: Counter[str] | None = None) -> None:
        self.inner = inner
        self.calls: Counter[str] = Counter() if calls is None else calls

    @property
    def name(self) -> str:
        """How messages call the layer."""
        return str(self.inner.name)

    @property
    def capabilities(self) -> Any:
        """What the layer can keep."""
        return self.inner.capabilities

    def clone(self, src: Handle, dst: Handle, size: int, *more: Any) -> bool:
        """Pass on what the handles stand for: a layer knows its own."""
        self.calls["clone"] += 1
        shared: bool = self.inner.clone(_unwrapped(src), _unwrapped(dst), size, *more)
        return shared

    def snapshot(self) -> "CountingLayer":
        """Return a snapshot that counts in the same place."""
        self.calls["snapshot"] += 1
        return CountingLayer(self.inner.snapshot(), self.calls)

    def taken(self) -> Counter[str]:
        """Return the calls since this was last asked, less those that say nothing about a tree."""
        taken = Counter({verb: calls for verb, calls in self.calls.items() if verb not in ASKED_AT_MOUNT})
        self.calls.clear()
        return taken


class CountingHandle:
    """An open file of a CountingLayer."""

    def __init__(self, inner: Handle, calls: Counter[str]) -> None:
        self.inner = inner
        self.calls = calls


def _unwrapped(handle: Any) -> Any:
    return handle.inner if isinstance(handle, CountingHandle) else handle


def _passing_on(verb: str, counted_as: str) -> Callable[..., Any]:
    def call(self: Any, *arguments: Any, **named: Any) -> Any:
        self.calls[counted_as] += 1
        result = getattr(self.inner, verb)(*arguments, **named)
        return CountingHandle(result, self.calls) if verb in ("open", "create", "tmpfile") else result

    return call


def _verbs(protocol: type) -> list[str]:
    return [name for name in dir(protocol) if not name.startswith("_") and callable(getattr(protocol, name))]


for _verb in _verbs(SnapshotLayer):
    if _verb not in vars(CountingLayer):
        setattr(CountingLayer, _verb, _passing_on(_verb, _verb))
for _verb in _verbs(Handle):
    setattr(CountingHandle, _verb, _passing_on(_verb, f"Handle.{_verb}"))
