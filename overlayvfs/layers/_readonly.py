"""What every handle of a layer that can't be written refuses in the same way."""

import errno

from overlayvfs.abi import oserror


class ReadOnlyHandle:
    """The writing half of a `Handle`: EBADF for data, as on a descriptor open for reading; EROFS for attributes."""

    def pwrite(self, data: bytes | memoryview, offset: int) -> int:
        raise oserror(errno.EBADF)

    def truncate(self, size: int) -> None:
        raise oserror(errno.EBADF)

    def chmod(self, mode: int) -> None:
        raise oserror(errno.EROFS)

    def chown(self, uid: int, gid: int) -> None:
        raise oserror(errno.EROFS)

    def utime(self, atime_ns: int, mtime_ns: int) -> None:
        raise oserror(errno.EROFS)

    def setxattr(self, name: str, value: bytes, flags: int = 0) -> None:
        raise oserror(errno.EROFS)

    def removexattr(self, name: str) -> None:
        raise oserror(errno.EROFS)

    def sync(self) -> None:
        """Do nothing: nothing was written."""
