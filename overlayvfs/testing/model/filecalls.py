"""The model's calls that open files and directories, and those on what is open (KB 7, 13, 15, 18)."""

import errno
import os
import stat

from overlayvfs.abi import O_ACCMODE, O_CREAT, O_DIRECTORY, O_EXCL, O_NOFOLLOW, O_PATH, O_TMPFILE, O_TRUNC, oserror
from overlayvfs.testing.model import changes
from overlayvfs.testing.model.caller import Caller
from overlayvfs.testing.model.descriptors import OpenFile
from overlayvfs.testing.model.inodes import Inode
from overlayvfs.testing.model.listing import LeftOut, listing
from overlayvfs.testing.model.lookup import look_up
from overlayvfs.testing.model.paths import Walk
from overlayvfs.testing.model.union import Found


class FileCalls(Caller):
    """open close dup, read write pread pwrite lseek ftruncate fsync, listdir."""

    def open(self, path: str, flags: int, mode: int = 0o777) -> int:
        """Call open(2). ENXIO for devices, fifos and sockets: the model has no drivers."""
        if flags & O_PATH:
            follow, directory = not flags & O_NOFOLLOW, bool(flags & O_DIRECTORY)
            found = Walk(self._union).find(path, follow=follow, directory=directory)
        elif flags & O_CREAT and flags & O_DIRECTORY:
            raise oserror(errno.EINVAL, path)
        elif flags & O_TMPFILE == O_TMPFILE:
            found = self._unnamed(path, flags, mode)
        else:
            found = self._opened(path, flags, mode)
        fd = next(self._numbers)
        self._files[fd] = OpenFile(self._union, found, flags)
        return fd

    def _unnamed(self, path: str, flags: int, mode: int) -> Found:
        """Return a new file without a name (O_TMPFILE)."""
        if flags & O_ACCMODE == os.O_RDONLY:
            raise oserror(errno.EINVAL, path)
        directory = Walk(self._union).find(path, follow=not flags & O_NOFOLLOW, directory=True)
        self._union.want_write()
        changes.copy_up(self._union, directory)
        inode = changes.owned(self._union, directory, stat.S_IFREG | stat.S_IMODE(mode), self._umask)
        inode.nlink = 0
        return Found(directory, "", inode)

    def _opened(self, path: str, flags: int, mode: int) -> Found:
        """Return what is to be opened, created if need be, copied up and emptied as the flags say."""
        found, made, directory = self._found_or_made(path, flags, mode)
        if made:
            return found
        if flags & O_CREAT:
            if flags & O_EXCL:
                raise oserror(errno.EEXIST, path)
            if self._real(found).is_dir:
                raise oserror(errno.EISDIR, path)
        self._check_open(self._real(found), flags, directory)
        if flags & O_TRUNC:
            self._resize(found, 0, empty=True)
        elif flags & O_ACCMODE in (os.O_WRONLY, os.O_RDWR):
            changes.copy_up(self._union, found)
        return found

    def _found_or_made(self, path: str, flags: int, mode: int) -> tuple[Found, bool, bool]:
        """Return what a path to be opened leads to, whether it was made now, and whether it must be a directory."""
        walk = Walk(self._union)
        follow = not (flags & O_NOFOLLOW or (flags & O_CREAT and flags & O_EXCL))
        directory = bool(flags & O_DIRECTORY)
        last = walk.parent(path)
        while last.is_ordinary:
            if last.slash:
                if flags & O_CREAT:
                    raise oserror(errno.EISDIR, path)
                follow = directory = True
            found = look_up(self._union, last.at, last.name)
            if not found.exists:
                return self._made(found, flags, mode), True, directory
            if not (self._real(found).is_symlink and follow):
                return found, False, directory
            last = walk.through(found)
        return walk.look(last.at, last.name), False, directory

    def _made(self, free: Found, flags: int, mode: int) -> Found:
        if not flags & O_CREAT:
            raise oserror(errno.ENOENT, free.name)
        self._union.want_write()
        changes.created(self._union, free, self._new(free, stat.S_IFREG | stat.S_IMODE(mode)))
        return look_up(self._union, free.parent or free, free.name)

    def _check_open(self, inode: Inode, flags: int, directory: bool) -> None:
        """Check whether what is there can be opened so.

        Raises:
            ENOTDIR: it is to be a directory.
            ELOOP: a symlink that is not to be followed.
            EISDIR: a directory, for writing.
            EROFS: a file, for writing, and there is no upper.
            ENXIO: a device, fifo or socket.

        """
        writes = flags & O_ACCMODE != os.O_RDONLY or bool(flags & O_TRUNC)
        if directory and not inode.is_dir:
            raise oserror(errno.ENOTDIR)
        if inode.is_symlink:
            raise oserror(errno.ELOOP)
        if inode.is_dir and writes:
            raise oserror(errno.EISDIR)
        if inode.is_special:
            raise oserror(errno.ENXIO)
        if writes:
            self._union.want_write()

    def close(self, fd: int) -> None:
        """Call close(2)."""
        self._file(fd)
        del self._files[fd]

    def dup(self, fd: int) -> int:
        """Call dup(2)."""
        new = next(self._numbers)
        self._files[new] = self._file(fd)
        return new

    def read(self, fd: int, size: int) -> bytes:
        """Call read(2)."""
        return self._file(fd).read(size)

    def pread(self, fd: int, size: int, offset: int) -> bytes:
        """Call pread(2)."""
        if offset < 0:
            raise oserror(errno.EINVAL)
        return self._file(fd).read_at(size, offset)

    def write(self, fd: int, data: bytes) -> int:
        """Call write(2)."""
        return self._file(fd).write(data)

    def pwrite(self, fd: int, data: bytes, offset: int) -> int:
        """Call pwrite(2)."""
        if offset < 0:
            raise oserror(errno.EINVAL)
        return self._file(fd).write_at(data, offset)

    def lseek(self, fd: int, offset: int, whence: int) -> int:
        """Call lseek(2)."""
        return self._file(fd).seek(offset, whence)

    def ftruncate(self, fd: int, length: int) -> None:
        """Call ftruncate(2)."""
        if length < 0:
            raise oserror(errno.EINVAL)
        file = self._usable(fd)
        if not (file.inode.is_file and file.writes):
            raise oserror(errno.EINVAL)
        self._resize(file.found, length)

    def fsync(self, fd: int) -> None:
        """Call fsync(2)."""
        self._usable(fd)

    def listdir(self, path: str | int = "/") -> list[str]:
        """List a directory as opendir(3) or fdopendir(3) would."""
        if not isinstance(path, int):
            found = Walk(self._union).find(path, directory=True)
            return listing(self._union, found, self._left_out(self._real(found)).names)
        file = self._file(path)
        if not file.inode.is_dir:
            raise oserror(errno.ENOTDIR)
        if file.is_path:
            raise oserror(errno.EBADF)
        file.left_out = self._left_out(file.inode)
        return listing(self._union, file.found, file.left_out.names, file.position)

    def _left_out(self, directory: Inode) -> LeftOut:
        """Return what a list of the directory does without: what one does that a descriptor keeps, at first nothing."""
        kept = (file.left_out for file in self._files.values() if file.left_out is not None)
        return next((one for one in kept if one.holds_for(directory)), LeftOut(directory, directory.changes))

    def lost_its_place(self, fd: int) -> bool:
        """Tell whether a descriptor is a directory's that was only in a lower, and another directory has its name."""
        found = self._file(fd).found
        if found.parent is None or self._union.upper_of(found) is not None or not self._real(found).is_dir:
            return False
        into = self._union.upper_of(found.parent)
        return into is not None and found.name in into.names and into.names[found.name].is_dir
