"""Directories of a lower that were listed once: a lower does not change, and a listing tells all a lookup would."""

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from overlayvfs.layers.pyfs.backend import Entry
from overlayvfs.layers.pyfs.spelling import sorted_out
from overlayvfs.marks import WH_OPAQUE

_ENTRIES_KEPT: Final = 100_000


@dataclass(frozen=True, slots=True)
class Listing:
    """One directory: objects, whiteouts and whether it is opaque."""

    objects: dict[str, Entry]
    whiteouts: dict[str, Entry]
    opaque: bool

    @classmethod
    def of(cls, entries: Iterable[Entry]) -> "Listing":
        told = {entry.name: entry for entry in entries}
        objects, whiteouts = sorted_out(told.items())
        return cls(objects, whiteouts, WH_OPAQUE in told)


class Listings:
    """The directories listed last, as many as hold 100,000 entries together."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, Listing] = OrderedDict()
        self._entries = 0

    def get(self, path: str) -> Listing | None:
        listing = self._kept.get(path)
        if listing is not None:
            self._kept.move_to_end(path)
        return listing

    def keep(self, path: str, listing: Listing) -> None:
        self._kept[path] = listing
        self._entries += len(listing.objects) + len(listing.whiteouts) + 1
        # The one just kept stays, whatever its size: it is what is asked about next.
        while self._entries > _ENTRIES_KEPT and len(self._kept) > 1:
            _, oldest = self._kept.popitem(last=False)
            self._entries -= len(oldest.objects) + len(oldest.whiteouts) + 1

    def clear(self) -> None:
        self._kept.clear()
        self._entries = 0
