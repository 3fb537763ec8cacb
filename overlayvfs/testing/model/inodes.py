"""The model's file system: inodes, and directories that are dicts of them, with the rules of Linux's tmpfs.

Nothing here knows of overlays. A layer is the inode of its root.
"""

import itertools
import stat
import time
from collections.abc import Iterable
from dataclasses import dataclass, field

from overlayvfs.abi import PAGE_SIZE

_numbers = itertools.count(1)


@dataclass(slots=True, eq=False)
class Inode:
    """One object. Two names of it are one `Inode` in two dicts."""

    mode: int
    """Type and permissions, as st_mode."""
    uid: int = 0
    gid: int = 0
    nlink: int = 1
    """Names of a file; see `links` for what st_nlink is."""
    atime_ns: int = field(default_factory=time.time_ns)
    mtime_ns: int = field(default_factory=time.time_ns)
    ctime_ns: int = field(default_factory=time.time_ns)
    """When this object was made: the model claims no other ctime."""
    rdev: int = 0
    target: str = ""
    data: bytes = b""
    pages: set[int] = field(default_factory=set)
    """The pages that hold data: between them are holes (SEEK_DATA)."""
    names: dict[str, "Inode"] = field(default_factory=dict)
    """What a directory holds, the newest name last."""
    changes: int = 0
    """How often `touch` was called: of a directory, how often a name came or went."""
    removed: bool = False
    """A directory that rmdir(2) or rename(2) took out of the tree: nothing is created in it any more."""
    xattrs: dict[str, bytes] = field(default_factory=dict)
    origin: "Inode | None" = None
    """The lower object that this one was copied from, if it says so (`overlay.origin`)."""
    number: int = field(default_factory=lambda: next(_numbers))

    @property
    def is_dir(self) -> bool:
        """Tell whether this is a directory."""
        return stat.S_ISDIR(self.mode)

    @property
    def is_file(self) -> bool:
        """Tell whether this is a regular file."""
        return stat.S_ISREG(self.mode)

    @property
    def is_symlink(self) -> bool:
        """Tell whether this is a symbolic link."""
        return stat.S_ISLNK(self.mode)

    @property
    def is_special(self) -> bool:
        """Tell whether this is a device, fifo or socket."""
        return not (self.is_dir or self.is_file or self.is_symlink)

    @property
    def is_whiteout(self) -> bool:
        """Tell whether an overlay takes this for "not here" (KB 3.1, 3.3)."""
        return stat.S_ISCHR(self.mode) and self.rdev == 0

    @property
    def links(self) -> int:
        """Return st_nlink: a directory has one for its name, one for `.` and one for each `..` in it."""
        if not self.is_dir:
            return self.nlink
        return 0 if self.removed else 2 + sum(one.is_dir for one in self.names.values())

    @property
    def size(self) -> int:
        """Return st_size; of a directory it says nothing."""
        return len(self.target.encode()) if self.is_symlink else len(self.data)

    def touch(self) -> None:
        """Make the mtime fresh."""
        self.mtime_ns = time.time_ns()
        self.changes += 1

    def copy(self, xattrs: Iterable[str]) -> "Inode":
        """Return a new object like this one, with one name, none in it, and of its attributes only `xattrs`."""
        return Inode(
            self.mode,
            self.uid,
            self.gid,
            atime_ns=self.atime_ns,
            mtime_ns=self.mtime_ns,
            rdev=self.rdev,
            target=self.target,
            data=self.data,
            pages=set(self.pages),
            xattrs={name: self.xattrs[name] for name in xattrs},
        )

    # Contents.

    def write(self, data: bytes, offset: int) -> None:
        """Put `data` at `offset`; what lies between there and the end so far is a hole."""
        if not data:
            return
        end = offset + len(data)
        self.data = self.data[:offset].ljust(offset, b"\0") + data + self.data[end:]
        self.pages.update(range(offset // PAGE_SIZE, (end - 1) // PAGE_SIZE + 1))
        self.touch()

    def resize(self, size: int) -> None:
        """Cut the contents off, or add a hole."""
        self.data = self.data[:size].ljust(size, b"\0")
        self.pages = {page for page in self.pages if page * PAGE_SIZE < size}

    # Names.

    def put(self, name: str, inode: "Inode") -> None:
        """Let `name` be `inode`, the newest of all names; what it was before loses one."""
        self.take(name)
        self.names[name] = inode

    def take(self, name: str) -> None:
        """Let there be no `name`; what it was, if anything, loses one."""
        inode = self.names.pop(name, None)
        if inode is not None:
            inode.nlink -= 1
            inode.removed = inode.is_dir

    def give(self, name: str) -> "Inode":
        """Let there be no `name` and return what it was, which is to have another."""
        return self.names.pop(name)

    def exchange(self, name: str, other: "Inode", other_name: str) -> None:
        """Exchange a name of this directory with one of another: they are the newest then."""
        mine, others = self.give(name), other.give(other_name)
        self.names[name] = others
        other.names[other_name] = mine


def directory() -> Inode:
    """Return an empty directory, as the root of a layer."""
    return Inode(stat.S_IFDIR | 0o755)
