"""A private host directory beside an upper's, to hold a copy of it: what a fork of that upper writes to."""

import os
import tempfile
import weakref

from overlayvfs.abi import oserror
from overlayvfs.layers.base import UpperLayer
from overlayvfs.layers.local.layer import LocalLayer
from overlayvfs.layers.local.names import remove_tree

_PREFIX = ".overlayvfs-fork-"


class TwinLayer(LocalLayer):
    """An empty directory with a workdir of its own, on the file system of `root`; gone when closed or dropped."""

    def __init__(self, root: str, *, index: bool) -> None:
        """Make it and prepare it. The errno of what forbids a directory beside `root`."""
        try:
            place = tempfile.mkdtemp(prefix=_PREFIX, dir=os.path.realpath(os.path.join(root, os.pardir)))
        except OSError as error:
            raise oserror(error.errno or 0, root, reason="no directory for a copy can be made beside it") from error
        self._place = weakref.finalize(self, _remove, place, os.getpid())
        self._root = root
        try:
            os.mkdir(f"{place}/upper")
            os.mkdir(f"{place}/work")
            super().__init__(f"{place}/upper", f"{place}/work")
            self.prepare(index=index)
        except BaseException:
            self._place()
            raise

    def empty_twin(self, *, index: bool) -> UpperLayer:
        # Not beside itself: that goes when this one is closed.
        return TwinLayer(self._root, index=index)

    def close(self) -> None:
        super().close()
        self._place()


def _remove(place: str, owner: int) -> None:
    # A forked process that ends must not take its parent's directory away.
    if os.getpid() != owner:
        return
    try:
        above = os.open(os.path.dirname(place), os.O_RDONLY | os.O_DIRECTORY)
        try:
            remove_tree(above, os.path.basename(place))
        finally:
            os.close(above)
    except FileNotFoundError:
        pass  # whoever removed the directory it was in has done it
