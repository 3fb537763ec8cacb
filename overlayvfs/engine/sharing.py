"""Who else stands on a layer: what must be known before a lower is written to."""

import errno
from collections.abc import Hashable, Sequence

from overlayvfs.abi import oserror
from overlayvfs.engine.mount import Mount, live_mounts
from overlayvfs.layers.base import Layer


def lower_of(mnt: Mount, layer: Layer) -> int:
    """Return which lower of this mount a layer is, 1 being the highest; 0 if it is none.

    Raises:
        EBUSY: it is, lies in or around the upper or a lower of another live overlay, naming those; or its own upper.
        EINVAL: it lies inside or around a lower of this mount, so that no lower is what it is.

    """
    above = layer.ancestry()
    others = [
        other
        for other in live_mounts()
        if any(_overlap(one, layer.identity(), above) for one in _layers(other, but_lowers=other is mnt))
    ]
    if others:
        names = "; ".join(_describe(other) for other in others)
        raise oserror(errno.EBUSY, reason=f"{layer.name} is a layer of a live overlay: {names}")
    for number, lower in enumerate(mnt.lowers.layers, 1):
        if lower.identity() == layer.identity():
            return number
        if _overlap(lower, layer.identity(), above):
            raise oserror(errno.EINVAL, reason=f"{layer.name} lies inside or around lower {number} ({lower.name})")
    return 0


def _layers(mnt: Mount, *, but_lowers: bool) -> list[Layer]:
    layers: list[Layer] = [] if mnt.upper is None or mnt.owns_upper else [mnt.upper]
    return layers if but_lowers else [*layers, *mnt.lowers.layers]


def _overlap(one: Layer, identity: Hashable, above: Sequence[Hashable]) -> bool:
    """Tell whether a layer is, contains or lies in the one with this identity and ancestry."""
    return one.identity() in above or identity in one.ancestry()


def _describe(mnt: Mount) -> str:
    lowers = ":".join(layer.name for layer in mnt.lowers.layers)
    return f"lowerdir={lowers}" + ("" if mnt.upper is None else f",upperdir={mnt.upper.name}")
