"""Device and inode numbers of the merged tree (ovl_map_dev_ino in fs/overlayfs/inode.c; KB 14)."""

from collections.abc import Sequence

from overlayvfs.abi import anonymous_dev

NO_LAYER = -1
"""Stands for the upper's file system where there is no upper: Linux counts it all the same."""


class Numbers:
    """How the layers' own numbers show; worked out once, and the same in all forks."""

    __slots__ = ("_devs", "_high", "bits", "dev", "same_fs")

    def __init__(self, dev: int, real_devs: Sequence[int], *, xino: bool) -> None:
        """Take the overlay's own device and the `st_dev` of each layer, the upper's (or NO_LAYER) first."""
        file_systems = list(dict.fromkeys(real_devs))
        anonymous = {real: anonymous_dev() for real in file_systems}
        self.dev = dev
        self.same_fs = len([real for real in file_systems if real != NO_LAYER]) == 1
        # fsid 0 is the upper's; the others count in order of first appearance (ovl_get_layers).
        self.bits = max(1, len(file_systems) - 1).bit_length() + 1 if xino and not self.same_fs else 0
        """How many high bits of st_ino name the file system; 0 if none do."""
        self._devs = tuple(anonymous[real] for real in real_devs)
        self._high = tuple(file_systems.index(real) << (65 - self.bits) for real in real_devs)

    def shown(self, number: int, ino: int) -> tuple[int, int]:
        """Return (st_dev, st_ino) shown for inode `ino` of layer `number`."""
        if self.same_fs:
            return self.dev, ino
        if self.bits and not ino >> (64 - self.bits):
            return self.dev, ino | self._high[number]
        return self._devs[number], ino
