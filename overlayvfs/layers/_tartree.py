"""The tree that an archive's entries make, kept small: a row of numbers per inode, a dict per directory.

What is rare (targets, device numbers, access times, attributes, maps of holes) is kept beside the rows. What an entry
may cost is counted as it comes, so that an archive can't ask for more memory than it is allowed.
"""

import errno
import stat
from array import array
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Final

from overlayvfs.abi import Dirent, Stat, oserror
from overlayvfs.layers._tarentries import Entry, Extents, malformed
from overlayvfs.marks import WH_OPAQUE, WH_PREFIX, MarkNames

ROOT: Final = 1

# Measured on CPython 3.11 to 3.13, rounded up: 32-bit and 64-bit columns, the name, its slot in a dict, its number.
_ENTRY_COST: Final = 250
_DIRECTORY_COST: Final = 350
_EXTENT_COST: Final = 24
_ATIME_COST: Final = 130


class TarTree:
    """Directories by inode number, inodes by row; numbers count from 1 (the root) in the archive's order.

    Every name is placed below the root by its own spelling, never through a symlink.
    """

    def __init__(
        self, entries: Iterable[Entry], label: str, *, whiteouts: bool, marks: Sequence[MarkNames], max_index: int
    ) -> None:
        """Place all `entries`. EINVAL for one that can't be; EFBIG where the tree needs more than `max_index` bytes."""
        self._opaque_marks = {names.opaque: b"y" for names in marks}
        self._label = label
        self._left = self._max_index = max_index
        self._modes = array("I", [0])
        self._uids = array("I", [0])
        self._gids = array("I", [0])
        self._nlinks = array("I", [0])
        self._sizes = array("q", [0])
        self._mtimes = array("q", [0])
        self._offsets = array("q", [0])
        self._names: dict[int, dict[str, int]] = {}
        self._targets: dict[int, str] = {}
        self._devices: dict[int, int] = {}
        self._atimes: dict[int, int] = {}
        self._xattrs: dict[int, Mapping[str, bytes]] = {}
        self._extents: dict[int, Extents] = {}
        # Of an image layer, by directory: the names it hides, and which directories hide all below them.
        self._hidden: dict[int, set[str]] = {}
        self._opaque: set[int] = set()

        self._add_directory(Entry("./", (), stat.S_IFDIR | 0o755))
        for entry in entries:
            if not (whiteouts and self._place_whiteout(entry)):
                self._place(entry)
        self._apply_whiteouts()

    # Reading

    def __len__(self) -> int:
        """Return how many inode numbers there are."""
        return len(self._modes) - 1

    def find(self, path: str) -> int:
        """Return the inode number at `path`, following no symlink. ENOENT ENOTDIR."""
        ino = ROOT
        try:
            for part in path.split("/")[1:]:
                ino = self._names[ino][part]
        except KeyError:
            raise oserror(errno.ENOENT if ino in self._names else errno.ENOTDIR, path) from None
        return ino

    def stat(self, ino: int, dev: int) -> Stat:
        """Return the attributes of an inode on device `dev`. Times the archive has not are its mtime."""
        mode = self._modes[ino]
        size = self._sizes[ino]
        mtime_ns = self._mtimes[ino]
        if stat.S_ISREG(mode):
            stored = self._extents[ino].stored if ino in self._extents else size
        else:
            stored = 0
        return Stat(
            mode,
            ino,
            dev,
            self._nlinks[ino],
            self._uids[ino],
            self._gids[ino],
            size,
            self._atimes.get(ino, mtime_ns),
            mtime_ns,
            mtime_ns,
            (stored + 511) // 512,
            self._devices.get(ino, 0),
        )

    def kind(self, ino: int) -> int:
        """Return the S_IFMT part of the mode."""
        return stat.S_IFMT(self._modes[ino])

    def names(self, ino: int) -> Collection[str]:
        """Return a live view of a directory's names. ENOTDIR."""
        return self._directory(ino).keys()

    def dirents(self, ino: int) -> list[Dirent]:
        """Return a directory's entries in the order its names came. ENOTDIR."""
        return [Dirent(name, child, stat.S_IFMT(self._modes[child])) for name, child in self._directory(ino).items()]

    def target(self, ino: int) -> str:
        """Return a symlink's target. EINVAL."""
        if ino not in self._targets:
            raise oserror(errno.EINVAL)
        return self._targets[ino]

    def xattrs(self, ino: int) -> Mapping[str, bytes]:
        """Return the extended attributes of an inode."""
        return self._xattrs.get(ino, {})

    def extents(self, ino: int) -> Extents:
        """Return where a regular file's data are in the archive."""
        if ino in self._extents:
            return self._extents[ino]
        whole = Extents()
        if size := self._sizes[ino]:
            whole.append(0, size, self._offsets[ino])
        return whole

    def _directory(self, ino: int) -> dict[str, int]:
        if ino not in self._names:
            raise oserror(errno.ENOTDIR)
        return self._names[ino]

    # Placing

    def _place(self, entry: Entry) -> None:
        """Put an entry in the tree: the last of a name wins, a directory over a directory brings its attributes."""
        is_directory = stat.S_ISDIR(entry.mode)
        if not entry.parts:
            if not is_directory:
                raise malformed(self._label, entry.name, "the root is a directory")
            self._describe(ROOT, entry)
            return
        parent = self._parent(entry)
        siblings = self._names[parent]
        name = entry.parts[-1]
        old = siblings.get(name)
        if old is not None and is_directory and old in self._names:
            self._describe(old, entry)
            return
        if entry.link is not None:
            ino = self._linked(entry.link, entry)
            if ino == old:
                return
            self._nlinks[ino] += 1
            self._charge(_ENTRY_COST + len(name))
        elif is_directory:
            ino = self._add_directory(entry)
            self._nlinks[parent] += 1
        else:
            ino = self._add(entry)
        # The new object first: a hard link's target may be inside the directory that goes.
        if old is not None:
            self._remove(parent, old)
        siblings[name] = ino

    def _parent(self, entry: Entry) -> int:
        """Return the directory an entry belongs to, made (0755, root) where the archive has left it out."""
        ino = ROOT
        for part in entry.parts[:-1]:
            if ino not in self._names:
                break
            child = self._names[ino].get(part)
            if child is None:
                child = self._add_directory(Entry(part, (part,), stat.S_IFDIR | 0o755))
                self._names[ino][part] = child
                self._nlinks[ino] += 1
            ino = child
        if ino not in self._names:
            # Often a symlink. Extracting would write where it leads; replacing it would break what relies on it.
            raise malformed(self._label, entry.name, "what it is in is no directory in this archive")
        return ino

    def _linked(self, parts: Sequence[str], entry: Entry) -> int:
        ino: int | None = ROOT
        for part in parts:
            ino = self._names[ino].get(part) if ino in self._names else None
        if ino is None or ino in self._names:
            why = "is a directory" if ino else "is nothing the archive has held before"
            raise malformed(self._label, entry.name, f"{'/'.join(parts)!r}, which it links to, {why}")
        return ino

    def _add_directory(self, entry: Entry) -> int:
        ino = self._add(entry)
        self._charge(_DIRECTORY_COST)
        self._names[ino] = {}
        self._nlinks[ino] = 2
        return ino

    def _add(self, entry: Entry) -> int:
        """Make the row of a new inode with one link."""
        self._charge(_ENTRY_COST + (len(entry.parts[-1]) if entry.parts else 0))
        ino = len(self._modes)
        self._nlinks.append(1)
        for column in (self._modes, self._uids, self._gids, self._sizes, self._mtimes, self._offsets):
            column.append(0)
        self._describe(ino, entry)
        return ino

    def _describe(self, ino: int, entry: Entry) -> None:
        self._modes[ino] = entry.mode
        self._uids[ino] = entry.uid
        self._gids[ino] = entry.gid
        self._sizes[ino] = entry.size
        self._mtimes[ino] = entry.mtime_ns
        self._offsets[ino] = entry.offset
        self._xattrs.pop(ino, None)
        self._atimes.pop(ino, None)
        if entry.atime_ns is not None:
            self._charge(_ATIME_COST)
            self._atimes[ino] = entry.atime_ns
        if entry.xattrs:
            self._charge(sum(200 + len(name) + len(value) for name, value in entry.xattrs.items()))
            self._xattrs[ino] = entry.xattrs
        if entry.target:
            self._charge(200 + len(entry.target))
            self._targets[ino] = entry.target
        if entry.rdev:
            self._devices[ino] = entry.rdev
        if entry.extents is not None:
            self._charge(_ENTRY_COST + _EXTENT_COST * len(entry.extents))
            self._extents[ino] = entry.extents

    def _remove(self, parent: int, ino: int) -> None:
        """Take a name's inode, and what is below a directory, out of the tree; other links of a file live on."""
        if ino in self._names:
            self._nlinks[parent] -= 1
        going = [ino]
        while going:
            ino = going.pop()
            below = self._names.pop(ino, None)
            if below is not None:
                going.extend(below.values())
                self._hidden.pop(ino, None)
                self._opaque.discard(ino)
                self._nlinks[ino] = 0
            else:
                self._nlinks[ino] -= 1
            if not self._nlinks[ino]:
                for facts in (self._targets, self._devices, self._atimes, self._xattrs, self._extents):
                    facts.pop(ino, None)

    def _charge(self, cost: int) -> None:
        self._left -= cost
        if self._left < 0:
            why = f"its index needs more than {self._max_index} bytes of memory (max_index)"
            raise oserror(errno.EFBIG, self._label, reason=why)

    # Image layers

    def _place_whiteout(self, entry: Entry) -> bool:
        """Note what a `.wh.` entry hides (image-spec, layer.md, "Whiteouts"); False if it is an ordinary one."""
        depth = next((i for i, part in enumerate(entry.parts) if part.startswith(WH_PREFIX)), None)
        if depth is None:
            return False
        name = entry.parts[depth]
        is_last = depth == len(entry.parts) - 1
        hidden = name.removeprefix(WH_PREFIX)
        if name == WH_OPAQUE and is_last:
            self._opaque.add(self._parent(entry))
        elif hidden.startswith(WH_PREFIX):
            pass  # AUFS kept its own state in such names; everyone who reads image layers skips them.
        elif is_last and hidden not in ("", ".", ".."):
            self._charge(_ENTRY_COST + len(hidden))
            self._hidden.setdefault(self._parent(entry), set()).add(hidden)
        else:
            raise malformed(self._label, entry.name, "it is no whiteout an image layer can have")
        return True

    def _apply_whiteouts(self) -> None:
        """Turn what was noted into the kernel's marks. Wherever one stands, it hides lower layers only."""
        for parent, names in self._hidden.items():
            siblings = self._names[parent]
            for name in names:
                shown = siblings.get(name)
                if shown is None:
                    siblings[name] = self._add(Entry(name, (name,), stat.S_IFCHR))
                elif shown in self._names:
                    self._opaque.add(shown)
        for ino in self._opaque:
            self._xattrs[ino] = {**self._xattrs.get(ino, {}), **self._opaque_marks}
        self._hidden.clear()
        self._opaque.clear()
