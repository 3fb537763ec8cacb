"""The upper as a layer of an image (image-spec, layer.md): the changes an overlay made, for others to stack.

Whiteouts are `.wh.` names and opaque directories hold `.wh..wh..opq`, before their siblings. What only an overlay could
read is spelt out: a directory moved by a redirect comes whole (and opaque), a metacopy file with its data. The root's
own attributes are no part of a layer, and sockets are left out, as by all who make images.
"""

import errno
import os
import stat

from overlayvfs.abi import O_NOFOLLOW, O_RDONLY, Stat, oserror
from overlayvfs.engine.file import File
from overlayvfs.engine.lowers import get_mark
from overlayvfs.engine.mount import Mount
from overlayvfs.engine.overlay import Overlay
from overlayvfs.layers.base import UpperLayer
from overlayvfs.layers.tarwriter import TarWriter, write_archive
from overlayvfs.marks import WH_OPAQUE, WH_PREFIX


def export_layer(overlay: Overlay, path: str | os.PathLike[str]) -> None:
    """Write the changes to a layer tar at `path`; the same changes make the same bytes.

    Compression, and errnos besides these: `tarwriter.write_archive`.

    Raises:
        EROFS: there is no upper.
        EINVAL: a name begins with `.wh.`, which would be a whiteout there.

    """
    with overlay.inspect() as mnt, overlay.as_mounter():
        if mnt.upper is None:
            raise oserror(errno.EROFS, reason="this overlay has no upper to export")
        write_archive(path, _Export(overlay, mnt, mnt.upper).run)


class _Export:
    """One run of `export_layer`: the upper says what changed, the merged tree what it is now."""

    def __init__(self, overlay: Overlay, mnt: Mount, upper: UpperLayer) -> None:
        self._overlay = overlay
        self._mnt = mnt
        self._upper = upper
        self._first_names: dict[tuple[int, int], str] = {}

    def run(self, archive: TarWriter) -> None:
        """Add all that is in the upper, names sorted."""
        self._archive = archive
        pending = [""]
        while pending:
            folder = pending.pop()
            if folder:
                self._object(folder)
            if folder and get_mark(self._upper, folder, self._mnt.marks.redirect) is not None:
                self._whole(folder)
            else:
                pending += reversed(self._changed(folder))

    def _changed(self, folder: str) -> list[str]:
        """Add what an upper directory hides and holds, but directories: those are returned."""
        mnt, upper = self._mnt, self._upper
        names = sorted(entry.d_name for entry in upper.listdir(folder))
        stats = {name: upper.lstat(f"{folder}/{name}") for name in names}
        hidden = {name for name in names if mnt.is_whiteout(upper, f"{folder}/{name}", stats[name])}
        if get_mark(upper, folder, mnt.marks.opaque) == b"y":
            self._marker(folder, WH_OPAQUE, upper.lstat(folder))
        for name in sorted(hidden):
            self._marker(folder, f"{WH_PREFIX}{name}", stats[name])
        directories = []
        for name in names:
            if stat.S_ISDIR(stats[name].st_mode):
                directories.append(f"{folder}/{name}")
            elif name not in hidden:
                self._object(f"{folder}/{name}")
        return directories

    def _whole(self, folder: str) -> None:
        """Add all a directory shows, and that nothing else does."""
        self._marker(folder, WH_OPAQUE, self._overlay.stat(folder))
        pending = [folder]
        while pending:
            folder = pending.pop()
            for entry in sorted(self._overlay.listdir(folder)):
                child = f"{folder}/{entry.d_name}"
                if stat.S_ISDIR(self._object(child).st_mode):
                    pending.append(child)

    def _marker(self, folder: str, name: str, st: Stat) -> None:
        """Add an empty file that stands for a mark made when `st` was."""
        plain = st._replace(st_mode=stat.S_IFREG, st_uid=0, st_gid=0, st_size=0, st_atime_ns=st.st_mtime_ns)
        self._archive.add(f"{folder}/{name}", plain)

    def _object(self, path: str) -> Stat:
        """Add one object of the merged tree."""
        name = path.rpartition("/")[2]
        if name.startswith(WH_PREFIX):
            raise oserror(errno.EINVAL, path, reason=f"no name in a layer of an image begins with {WH_PREFIX}")
        overlay, archive = self._overlay, self._archive
        st = overlay.stat(path, follow=False)
        # When somebody last looked is no change.
        st = st._replace(st_atime_ns=st.st_mtime_ns)
        if stat.S_ISSOCK(st.st_mode):
            return st
        if not stat.S_ISDIR(st.st_mode) and st.st_nlink > 1:
            first = self._first_names.setdefault((st.st_dev, st.st_ino), path)
            if first != path:
                archive.add(path, st, link=first)
                return st
        xattrs = {
            each: overlay.getxattr(path, each, follow=False) for each in sorted(overlay.listxattr(path, follow=False))
        }
        if stat.S_ISREG(st.st_mode):
            file = overlay.open(path, O_RDONLY | O_NOFOLLOW)
            try:
                archive.add(path, st, xattrs=xattrs, data=_FileData(file))
            finally:
                file.close()
        else:
            target = overlay.readlink(path) if stat.S_ISLNK(st.st_mode) else ""
            archive.add(path, st, xattrs=xattrs, target=target)
        return st


class _FileData:
    """An open file of the overlay, read as a layer's handle is."""

    def __init__(self, file: File) -> None:
        self._file = file

    def pread(self, size: int, offset: int) -> bytes:
        """Return up to `size` bytes from `offset`."""
        return self._file.pread(size, offset)

    def seek_extent(self, offset: int, whence: int) -> int:
        """Return lseek(2)'s answer."""
        return self._file.seek(offset, whence)
