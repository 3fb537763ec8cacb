"""Copying all that an upper holds into another layer: marks, hard links, owners and times included.

What is copied is as the engine sees it, in the kernel's spelling, so any upper can be copied into any other.
"""

import stat
from collections.abc import Sequence

from overlayvfs.abi import Stat
from overlayvfs.engine.copy_up import stream
from overlayvfs.engine.work import keep_what_fits
from overlayvfs.layers.base import Layer, UpperLayer

Pair = tuple[str, str]
"""A directory to copy and the existing one, of the other layer, that is to equal it."""


def duplicate(src: Layer, dst: UpperLayer, pairs: Sequence[Pair]) -> dict[int, int]:
    """Let each directory of `dst` equal the one of `src` it is paired with; hard links between them stay links.

    Takes time proportional to the objects; contents are shared where `dst` can. What `dst` can't hold is left
    out. Returns the originals' inode numbers by the copies'.
    """
    copy = _Copy(src, dst)
    for old, new in pairs:
        copy.tree(old, new)
    copy.finish()
    return copy.numbers


class _Copy:
    """One run of `duplicate`."""

    def __init__(self, src: Layer, dst: UpperLayer) -> None:
        self._src = src
        self._dst = dst
        self.numbers: dict[int, int] = {}
        self._linked: dict[int, str] = {}
        self._directories: list[tuple[str, str, Stat]] = []
        # A clone may read from the source for as long as it lives: that is for lowers, which don't change.
        self._shares = type(src) is type(dst)

    def tree(self, src: str, dst: str) -> None:
        """Copy what is in a directory; attributes of directories wait for `finish`."""
        pending = [(src, dst)]
        while pending:
            old, new = pending.pop()
            self._directories.append((old, new, self._src.lstat(old)))
            # The newest first, as a memory file system and tmpfs list: made in the order in which they once were.
            for entry in reversed(self._src.listdir(old)):
                below = f"{old}/{entry.d_name}", f"{new}/{entry.d_name}"
                st = self._src.lstat(below[0])
                if stat.S_ISDIR(st.st_mode):
                    self._dst.mkdir(below[1], stat.S_IMODE(st.st_mode) | stat.S_IRWXU, st.st_uid, st.st_gid)
                    pending.append(below)
                else:
                    self._other(*below, st)

    def finish(self) -> None:
        """Give the directories their attributes, now that nothing more is made in them."""
        for old, new, st in reversed(self._directories):
            keep_what_fits(self._dst.chown, new, st.st_uid, st.st_gid)
            self._attributes(old, new, st)

    def _other(self, old: str, new: str, st: Stat) -> None:
        first = self._linked.get(st.st_ino) if st.st_nlink > 1 else None
        if first is not None and self._dst.capabilities.hard_links:
            self._dst.link(first, new)
            return
        self._linked[st.st_ino] = new
        if stat.S_ISREG(st.st_mode):
            self._file(old, new, st)
        elif stat.S_ISLNK(st.st_mode):
            self._dst.symlink(self._src.readlink(old), new, st.st_uid, st.st_gid)
        else:
            self._dst.mknod(new, st.st_mode, st.st_rdev, st.st_uid, st.st_gid)
        self._attributes(old, new, st)

    def _file(self, old: str, new: str, st: Stat) -> None:
        source = self._src.open(old)
        try:
            target = self._dst.create(new, stat.S_IMODE(st.st_mode), st.st_uid, st.st_gid)
            try:
                if st.st_size and not (self._shares and self._dst.clone(source, target, st.st_size)):
                    stream(self._src, old, source, target, st.st_size)
            finally:
                target.close()
        finally:
            source.close()

    def _attributes(self, old: str, new: str, st: Stat) -> None:
        for name in self._src.listxattr(old):
            keep_what_fits(self._dst.setxattr, new, name, self._src.getxattr(old, name))
        if not stat.S_ISLNK(st.st_mode):
            keep_what_fits(self._dst.chmod, new, stat.S_IMODE(st.st_mode))
        keep_what_fits(self._dst.utime, new, st.st_atime_ns, st.st_mtime_ns)
        self.numbers[self._dst.lstat(new).st_ino] = st.st_ino
