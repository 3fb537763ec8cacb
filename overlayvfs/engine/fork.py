"""Forks and checkpoints: one overlay from now on two (restore.py goes back to one of them).

A fork is not observable: it has the parent's lowers and all that is known of them, an upper of its own that equals
the parent's, and the same device and inode numbers. Linux has no such thing; a fork is what the kernel would have
made of a full copy.
"""

import errno
from collections import ChainMap
from collections.abc import Mapping
from weakref import ref

from overlayvfs.abi import oserror
from overlayvfs.engine.duplicate import Pair, duplicate
from overlayvfs.engine.mount import Credentials, Mount
from overlayvfs.layers.base import INDEX, UpperLayer, is_copied_layer, is_snapshot_layer


class Checkpoint:
    """What an overlay's upper held at one moment. It stays until it is dropped."""

    def __init__(self, mnt: Mount) -> None:
        self.mnt = mnt
        """A mount nobody writes to, equal to the overlay then."""

    def __del__(self) -> None:
        self.mnt.close()


def fork(mnt: Mount) -> Mount:
    """Return an independent overlay that equals this one now, open files left out.

    Constant time on uppers with snapshots (memory), whatever they hold. Other uppers are copied, which takes time
    and space proportional to what they hold; where the host can, contents share their blocks.

    Raises:
        EINVAL: there is no place for the copy.
        ENOSPC, EIO: the copy failed; nothing is left of it.

    """
    with mnt.lock:
        child = _twin(mnt)
        child.parent = ref(mnt)
        child.fork_point = Checkpoint(_twin(mnt))
        child.register()
        return child


def checkpoint(mnt: Mount) -> Checkpoint:
    """Return what the overlay is now, to compare with and go back to. Costs and errnos as `fork`."""
    with mnt.lock:
        return Checkpoint(_twin(mnt))


def lowers_alone(mnt: Mount) -> Mount:
    """Return a read-only mount of what the lowers show without the upper, with this mount's numbers."""
    return _sibling(mnt, None)


def view(mnt: Mount) -> Mount:
    """Return a mount over the same layers, to read what `mnt` shows now without its open files; nobody writes to it."""
    twin = _sibling(mnt, mnt.upper)
    twin.upper_numbers, twin.origins = mnt.upper_numbers, mnt.origins
    return twin


def _sibling(mnt: Mount, upper: UpperLayer | None) -> Mount:
    """Return a mount over the same lowers that shows the same device numbers."""
    twin = Mount((), upper, mnt.options, mnt.lowers, mnt.dev)
    who = mnt.credentials
    twin.credentials = Credentials(who.uid, who.gid, who.groups, who.umask)
    twin.share_numbers(mnt)
    return twin


def _twin(mnt: Mount) -> Mount:
    upper = mnt.upper
    if upper is None:
        return _sibling(mnt, None)
    if is_snapshot_layer(upper):
        twin = _sibling(mnt, upper.snapshot())
        twin.upper_numbers = mnt.upper_numbers
        # Both go on from what is known up to here, neither sees what the other adds.
        if mnt.origins.maps[0]:
            mnt.origins = mnt.origins.new_child()
        twin.origins = mnt.origins.parents.new_child()
        twin.temp_count, twin.whiteout = mnt.temp_count, mnt.whiteout
    else:
        twin = _copied_twin(mnt, upper)
    twin.owns_upper = True
    twin.torn = mnt.torn
    return twin


def _copied_twin(mnt: Mount, upper: UpperLayer) -> Mount:
    if not is_copied_layer(upper):
        raise oserror(errno.EOPNOTSUPP, reason=f"{upper.name} can be neither snapshotted nor copied: no fork")
    copy = upper.empty_twin(index=mnt.has_index)
    try:
        numbers = duplicate(upper, copy, [("", ""), *index_pair(mnt, INDEX)])
    except BaseException:
        copy.close()
        raise
    twin = _sibling(mnt, copy)
    take_numbers(twin, numbers, mnt)
    return twin


def index_pair(mnt: Mount, place: str) -> list[Pair]:
    """Return what copies the index to `place`: nothing where there is none."""
    return [(INDEX, place)] if mnt.has_index else []


def take_numbers(mnt: Mount, numbers: Mapping[int, int], then: Mount) -> None:
    """Let copies show the numbers, and have the origins, that their originals had in `then`."""
    mnt.upper_numbers = _permutation({new: then.upper_numbers.get(old, old) for new, old in numbers.items()})
    origins = {new: then.origins[old] for new, old in numbers.items() if old in then.origins}
    mnt.origins = ChainMap(origins)


def _permutation(numbers: Mapping[int, int]) -> dict[int, int]:
    """Return `numbers` completed so that no two objects, later ones included, ever show the same."""
    complete = dict(numbers)
    sources = {shown: own for own, shown in numbers.items()}
    for shown in numbers.values():
        if shown not in numbers:
            # A later object may be given this number for its own: it shows the one that is free in exchange.
            free = shown
            while free in sources:
                free = sources[free]
            complete[shown] = free
    return {own: shown for own, shown in complete.items() if own != shown}
