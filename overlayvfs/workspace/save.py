"""An upper to one file and back: a tar archive of everything in it, marks included.

The archive is an upper as tar(1) would store it: whiteouts are devices 0/0, marks and all other attributes pax records.
Three things tar has no place for are attributes `trusted.overlayvfs.*`: that this is a saved upper (on the root), that
a fifo is a socket, and which directory is the index of hard links.
"""

import errno
import os
import stat
from collections.abc import Mapping
from typing import Final

from overlayvfs.abi import Stat, oserror
from overlayvfs.engine.duplicate import duplicate
from overlayvfs.engine.overlay import Overlay
from overlayvfs.layers.base import INDEX, Layer
from overlayvfs.layers.memory import MemoryLayer
from overlayvfs.layers.tar import TarLayer
from overlayvfs.layers.tarwriter import TarWriter, write_archive
from overlayvfs.marks import USER, MarkNames

_SAVED: Final = "trusted.overlayvfs.saved"
_SOCKET: Final = "trusted.overlayvfs.socket"
_INDEX: Final = "trusted.overlayvfs.index"


def save(overlay: Overlay, path: str | os.PathLike[str]) -> None:
    """Write the upper as it is now to `path`; see `tarwriter.write_archive` for compression, and errnos besides these.

    Raises:
        EROFS: there is no upper.

    """
    with overlay.inspect() as mnt:
        if mnt.upper is None:
            raise oserror(errno.EROFS, reason="this overlay has no upper to save")
        saver = _Saver(mnt.upper, index=mnt.has_index)
        write_archive(path, saver.run)


def load(path: str | os.PathLike[str], marks: MarkNames = USER) -> MemoryLayer:
    """Return a memory layer that holds a saved upper, or a layer of an image (whose whiteouts are spelt in `marks`).

    All of it is read now; the file is not looked at again. Errnos as TarLayer.
    """
    archive = TarLayer(path)
    try:
        saved = _SAVED in archive.listxattr("")
        if not saved:
            archive.close()
            archive = TarLayer(path, whiteouts=True, marks=[marks])
        layer = MemoryLayer(name=os.fspath(path))
        duplicate(archive, layer, [("", "")])
    finally:
        archive.close()
    if saved:
        _restore(layer)
    return layer


class _Saver:
    """One run of `save`."""

    def __init__(self, upper: Layer, *, index: bool) -> None:
        self._upper = upper
        self._has_index = index
        self._first_names: dict[int, str] = {}

    def run(self, archive: TarWriter) -> None:
        """Write the tree in the layer's own order, so that the same order can be made again; then the index."""
        self._archive = archive
        self._object("", "", {_SAVED: b"1"})
        self._tree("", "")
        if self._has_index and self._upper.listdir(INDEX):
            place = self._free_name()
            self._object(INDEX, place, {_INDEX: b"1"})
            self._tree(INDEX, place)

    def _tree(self, folder: str, place: str) -> None:
        pending = [(folder, place)]
        while pending:
            folder, place = pending.pop()
            for entry in self._upper.listdir(folder):
                path, name = f"{folder}/{entry.d_name}", f"{place}/{entry.d_name}"
                if stat.S_ISDIR(self._object(path, name, {}).st_mode):
                    pending.append((path, name))

    def _object(self, path: str, name: str, notes: Mapping[str, bytes]) -> Stat:
        upper, archive = self._upper, self._archive
        st = upper.lstat(path)
        is_dir = stat.S_ISDIR(st.st_mode)
        first = name if is_dir or st.st_nlink == 1 else self._first_names.setdefault(st.st_ino, name)
        if first != name:
            archive.add(name, st, link=first)
            return st
        xattrs = {**notes, **{each: upper.getxattr(path, each) for each in upper.listxattr(path)}}
        if stat.S_ISREG(st.st_mode):
            handle = upper.open(path)
            try:
                archive.add(name, st, xattrs=xattrs, data=handle)
            finally:
                handle.close()
        elif stat.S_ISSOCK(st.st_mode):
            fifo = st._replace(st_mode=stat.S_IFIFO | stat.S_IMODE(st.st_mode))
            archive.add(name, fifo, xattrs=xattrs | {_SOCKET: b"1"})
        else:
            archive.add(name, st, xattrs=xattrs, target=upper.readlink(path) if stat.S_ISLNK(st.st_mode) else "")
        return st

    def _free_name(self) -> str:
        taken = {entry.d_name for entry in self._upper.listdir("")}
        name = "index"
        while name in taken:
            name += "_"
        return f"/{name}"


def _restore(layer: MemoryLayer) -> None:
    """Make what the notes of a saved upper say, and remove them."""
    layer.removexattr("", _SAVED)
    pending = [""]
    while pending:
        folder = pending.pop()
        for entry in layer.listdir(folder):
            path = f"{folder}/{entry.d_name}"
            if entry.d_type == stat.S_IFDIR:
                pending.append(path)
            elif entry.d_type == stat.S_IFIFO and _SOCKET in layer.listxattr(path):
                _make_socket(layer, path)
    for entry in layer.listdir(""):
        if entry.d_type == stat.S_IFDIR and _INDEX in layer.listxattr(f"/{entry.d_name}"):
            _make_index(layer, f"/{entry.d_name}")


def _make_socket(layer: MemoryLayer, path: str) -> None:
    parent = path.rpartition("/")[0]
    before, st = layer.lstat(parent), layer.lstat(path)
    xattrs = {name: layer.getxattr(path, name) for name in layer.listxattr(path) if name != _SOCKET}
    layer.unlink(path)
    layer.mknod(path, stat.S_IFSOCK | stat.S_IMODE(st.st_mode), 0, st.st_uid, st.st_gid)
    for name, value in xattrs.items():
        layer.setxattr(path, name, value)
    layer.utime(path, st.st_atime_ns, st.st_mtime_ns)
    layer.utime(parent, before.st_atime_ns, before.st_mtime_ns)


def _make_index(layer: MemoryLayer, place: str) -> None:
    before = layer.lstat("")
    layer.prepare(index=True)
    for entry in layer.listdir(place):
        layer.rename(f"{place}/{entry.d_name}", f"{INDEX}/{entry.d_name}")
    layer.release(keep_index=True)
    layer.rmdir(place)
    layer.utime("", before.st_atime_ns, before.st_mtime_ns)
