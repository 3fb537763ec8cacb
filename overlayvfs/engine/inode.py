"""What an object of the merged tree is: attributes, numbers, the real object behind it (fs/overlayfs/inode.c)."""

import stat
from collections.abc import Hashable
from weakref import WeakValueDictionary

from overlayvfs.abi import Stat
from overlayvfs.engine import index
from overlayvfs.engine.dentry import Dentry
from overlayvfs.engine.lowers import LowerDir, LowerFile, get_mark, open_found, read_whole
from overlayvfs.engine.mount import NO_INODES, Mount
from overlayvfs.layers.base import Handle, Layer


def real(mnt: Mount, dentry: Dentry) -> tuple[Layer, str]:
    """Return the layer and path that hold the object's attributes (ovl_path_real)."""
    if dentry.has_upper:
        assert mnt.upper is not None
        return mnt.upper, dentry.path
    lower = dentry.lower
    if mnt.lowers.detect and lower is not None:
        mnt.lowers.check_unchanged(lower)
    if isinstance(lower, LowerFile):
        if mnt.has_index and lower.stat.st_nlink > 1:
            indexed = index.find(mnt, lower)
            if indexed is not None:
                assert mnt.upper is not None
                return mnt.upper, indexed
        return mnt.lowers.layer(lower.layer), lower.path
    assert isinstance(lower, LowerDir)
    number, path = lower.parts[0]
    return mnt.lowers.layer(number), path


def real_stat(mnt: Mount, dentry: Dentry) -> Stat:
    """Return the real object's own attributes."""
    if not dentry.has_upper and not (mnt.has_index and dentry.is_file):
        assert dentry.lower is not None
        if mnt.lowers.detect:
            mnt.lowers.check_unchanged(dentry.lower)
        return mnt.lowers.stat_of(dentry.lower)
    layer, path = real(mnt, dentry)
    return layer.lstat(path)


def attributes(mnt: Mount, dentry: Dentry) -> Stat:
    """Return the attributes the merged tree shows (ovl_getattr; KB 14)."""
    if dentry.ghost is not None:
        return mapped(mnt, dentry, dentry.ghost.stat())
    return mapped(mnt, dentry, real_stat(mnt, dentry))


def mapped(mnt: Mount, dentry: Dentry, st: Stat) -> Stat:
    """Return a real object's attributes with the numbers the merged tree shows."""
    if mnt.bare:
        return st
    if stat.S_ISDIR(st.st_mode):
        dev, ino = _dir_numbers(mnt, dentry, st)
        return st._replace(st_dev=dev, st_ino=ino, st_nlink=1 if dentry.is_merged else st.st_nlink)
    number, ino = _file_origin(mnt, dentry, st)
    nlink = index.nlink(mnt, dentry, st)
    dev, ino = map_numbers(mnt, number, ino)
    contents = contents_below(mnt, dentry)
    blocks = st.st_blocks if contents is None else _blocks_below(mnt, contents, st)
    # Written out: three times _replace took as long as the rest of a lookup.
    return Stat(st.st_mode, ino, dev, nlink, *st[4:10], blocks, *st[11:])


def contents_below(mnt: Mount, dentry: Dentry) -> LowerFile | None:
    """Return the lower file whose contents a metacopy file shows, None for an object with contents of its own."""
    lower = dentry.lower_file
    if lower is None:
        return None
    if is_metacopy(mnt, dentry):
        return lower
    return lower if lower.is_metacopy and real(mnt, dentry)[0] is not mnt.upper else None


def _blocks_below(mnt: Mount, lower: LowerFile, st: Stat) -> int:
    if lower.is_metacopy and lower.data is None:
        # Nobody has needed the contents yet: Linux guesses from the size, and so do we.
        return -(-st.st_size // st.st_blksize) * st.st_blksize // 512
    number, path = mnt.lowers.data_of(lower)
    return mnt.lowers.layer(number).lstat(path).st_blocks


def is_metacopy(mnt: Mount, dentry: Dentry) -> bool:
    """Tell whether an upper file has no data of its own yet (overlayfs.rst, "Metadata only copy up")."""
    path: str | None = None
    if dentry.has_upper:
        path = dentry.path if dentry.metacopy and not dentry.unlinked else None
    elif dentry.lower_file is not None and index.wants_index(mnt, dentry):
        path = index.find(mnt, dentry.lower_file)
    if path is not None:
        assert mnt.upper is not None
        dentry.metacopy = get_mark(mnt.upper, path, mnt.marks.metacopy) is not None
    return dentry.metacopy


def _file_origin(mnt: Mount, dentry: Dentry, st: Stat) -> tuple[int, int]:
    """Return (layer number, inode number there) that give a non-directory its numbers."""
    lower = dentry.lower
    if not isinstance(lower, LowerFile) or not has_origin(mnt, dentry):
        return 0, st.st_ino
    return lower.layer, lower.stat.st_ino


def has_origin(mnt: Mount, dentry: Dentry) -> bool:
    """Tell whether an object shows the number of the lower one it was copied up from, or is (ovl_type_origin)."""
    lower = dentry.lower
    # Lower hard links broken by copy up are different files now: only an index keeps them one.
    broken = isinstance(lower, LowerFile) and dentry.has_upper and lower.stat.st_nlink > 1 and not mnt.has_index
    return lower is not None and not broken


def _dir_numbers(mnt: Mount, dentry: Dentry, st: Stat) -> tuple[int, int]:
    """Return (st_dev, st_ino) of a directory, whose device is always the overlay's own."""
    lower = dentry.lower
    numbers = mnt.numbers
    # The root is the one merged directory without an origin in the lowers (ovl_get_root).
    if not isinstance(lower, LowerDir) or (dentry.parent is None and dentry.has_upper):
        ino = mnt.upper_numbers.get(st.st_ino, st.st_ino)
        return numbers.dev, numbers.shown(0, ino)[1]
    number = lower.parts[0][0]
    real_ino = mnt.lowers.stat_of(lower).st_ino
    dev, ino = numbers.shown(number, real_ino)
    return numbers.dev, ino if dev == numbers.dev else mnt.lowers.number_of_dir(number, real_ino)


def map_numbers(mnt: Mount, number: int, ino: int) -> tuple[int, int]:
    """Return (st_dev, st_ino) shown for inode `ino` of layer `number`."""
    if number == 0 and mnt.upper_numbers:
        ino = mnt.upper_numbers.get(ino, ino)
    return (mnt.dev, ino) if mnt.bare else mnt.numbers.shown(number, ino)


class Inode:
    """The object behind open descriptors (struct ovl_inode): names may come and go, this stays.

    It holds the real handles and swaps them at copy up, so every descriptor sees the write (KB 13.1).
    `handle` is the object itself; `data` holds its contents and differs only for a metacopy file.
    """

    __slots__ = ("__weakref__", "data", "dentry", "handle", "in_upper", "key", "users", "writable")

    def __init__(
        self, key: Hashable, dentry: Dentry, handle: Handle, data: Handle, *, in_upper: bool, writable: bool
    ) -> None:
        self.key = key
        self.dentry = dentry
        self.handle = handle
        self.data = data
        self.in_upper = in_upper
        self.writable = writable
        self.users = 0

    def replace(self, handle: Handle, data: Handle, *, writable: bool) -> None:
        """Let these handles stand for the (upper) object from now on."""
        old = {id(self.handle): self.handle, id(self.data): self.data}
        self.handle, self.data = handle, data
        self.in_upper, self.writable = True, writable
        for one in old.values():
            if one is not handle and one is not data:
                one.close()

    def release(self) -> None:
        """Count one descriptor less; the last one closes the real handles."""
        self.users -= 1
        if self.users == 0:
            self.handle.close()
            self.data.close()


def inode_key(mnt: Mount, dentry: Dentry) -> Hashable:
    """Return what two names of one overlay inode have in common (ovl_hash_bylower)."""
    layer, path = real(mnt, dentry)
    if layer is mnt.upper:
        return "upper", layer.lstat(path).st_ino
    lower = dentry.lower
    assert isinstance(lower, LowerFile)
    if lower.stat.st_nlink == 1 or mnt.has_index:
        return "lower", lower.layer, lower.stat.st_ino
    # A lower hard link will be broken by copy up: each of its names is an inode of its own.
    return "name", lower.layer, lower.path


def live_inode(mnt: Mount, dentry: Dentry) -> Inode | None:
    """Return the inode of a regular file if a descriptor holds it open."""
    if not mnt.inodes or not dentry.is_file:
        return None
    inode = mnt.inodes.get(inode_key(mnt, dentry))
    return inode if inode is not None and inode.users else None


def _keep(mnt: Mount, inode: Inode) -> None:
    """Let others who open the object find its inode."""
    if mnt.inodes is NO_INODES:
        mnt.inodes = WeakValueDictionary()
    mnt.inodes[inode.key] = inode


def open_inode(mnt: Mount, dentry: Dentry, *, writable: bool) -> Inode:
    """Return the inode of a regular file, opened (or shared with those who have it open); one user more."""
    inode = live_inode(mnt, dentry)
    if inode is None:
        handle, data, writable = _open_real(mnt, dentry, writable=writable)
        in_upper = dentry.has_upper or (mnt.has_index and real(mnt, dentry)[0] is mnt.upper)
        inode = Inode(inode_key(mnt, dentry), dentry, handle, data, in_upper=in_upper, writable=writable)
        _keep(mnt, inode)
    elif writable and not inode.writable:
        handle, data, writable = _open_real(mnt, dentry, writable=True)
        inode.replace(handle, data, writable=writable)
    inode.users += 1
    return inode


def is_fixed(mnt: Mount, dentry: Dentry) -> bool:
    """Tell whether nothing can change an object before it is copied up."""
    if dentry.has_upper or mnt.lowers.detect:
        return False
    lower = dentry.lower
    return not (mnt.has_index and isinstance(lower, LowerFile) and lower.stat.st_nlink > 1)


def remember(mnt: Mount, dentry: Dentry) -> Stat | None:
    """Return the real object's attributes where nothing can change them, kept on the dentry; else None."""
    if dentry.stat is None and dentry.lower is not None and is_fixed(mnt, dentry):
        dentry.stat = mnt.lowers.stat_of(dentry.lower)
    return dentry.stat


def expect_readers(mnt: Mount, dentry: Dentry) -> bool:
    """Get ready to count light readers of a file; False if it can't have any (see faces/lightfile.py)."""
    if not dentry.is_file or not is_fixed(mnt, dentry):
        return False
    if dentry.readers is None:
        dentry.readers = []
    return True


def lower_content(mnt: Mount, dentry: Dentry) -> bytes | None:
    """Return all of a small file that only a lower has, remembering it; None if it is not such a file."""
    lower = dentry.lower
    if not isinstance(lower, LowerFile) or not dentry.is_file or not is_fixed(mnt, dentry):
        return None
    if lower.content is None and mnt.lowers.contents.takes(lower.stat.st_size):
        number, path = mnt.lowers.data_of(lower)
        content = read_whole(mnt.lowers.layer(number), path, lower.stat.st_size)
        mnt.lowers.contents.keep(lower, content)
    return lower.content


def share_inode(mnt: Mount, dentry: Dentry) -> Inode:
    """Return the inode light readers of a file share; one user more."""
    inode = dentry.inode
    if inode is None:
        return open_inode(mnt, dentry, writable=False)
    inode.users += 1
    return inode


def adopt_readers(mnt: Mount, dentry: Dentry) -> None:
    """Open a file for the light readers that have not opened anything, so that they see what comes after a copy up."""
    if dentry.readers and dentry.inode is None:
        dentry.inode = open_inode(mnt, dentry, writable=False)


def dismiss_readers(mnt: Mount, dentry: Dentry) -> None:
    """Let go of what `adopt_readers` opened when the last light reader is gone."""
    with mnt.lock:
        if dentry.inode is not None and not dentry.readers:
            dentry.inode.release()
            dentry.inode = None


def _open_real(mnt: Mount, dentry: Dentry, *, writable: bool) -> tuple[Handle, Handle, bool]:
    """Open the object and its data; True if for writing too. What lies in a lower is never opened for writing."""
    layer, path = real(mnt, dentry)
    in_upper = layer is mnt.upper
    handle = open_found(layer, path, writable=writable and in_upper)
    contents = contents_below(mnt, dentry)
    if contents is not None:
        try:
            number, data_path = mnt.lowers.data_of(contents)
            return handle, open_found(mnt.lowers.layer(number), data_path), False
        except BaseException:
            handle.close()
            raise
    return handle, handle, writable and in_upper


def adopt_handle(mnt: Mount, dentry: Dentry, handle: Handle) -> Inode:
    """Return the inode of a file just made, from the handle it was made with; one user more."""
    key = "upper", handle.stat().st_ino
    inode = Inode(key, dentry, handle, handle, in_upper=True, writable=True)
    _keep(mnt, inode)
    inode.users = 1
    return inode
