"""Giving one open host file the content of another without the bytes passing through Python."""

import errno
import os
from typing import Final

from overlayvfs.abi import SEEK_DATA, SEEK_HOLE
from overlayvfs.layers.base import Progress
from overlayvfs.layers.local import syscalls

_STEP: Final = 1 << 26
"""Bytes one copy_file_range is asked for (64 MiB): what a signal has to wait for."""

_NOT_HERE: Final = (
    errno.EOPNOTSUPP,
    errno.ENOTTY,
    errno.EXDEV,
    errno.EINVAL,
    errno.ENOSYS,
    errno.EPERM,
    errno.ETXTBSY,
)
"""Ways to say that these two files can't share or pass on their blocks (ioctl_ficlone(2), copy_file_range(2))."""


def clone(src: int, dst: int, size: int, progress: Progress | None = None) -> bool:
    """Make the empty file `dst` hold the first `size` bytes of `src`: a reflink, else a copy inside the kernel.

    False, and `dst` empty, where the host does neither. Holes stay holes. A copy tells `progress` after each 64 MiB.

    Raises:
        ENOSPC: there is no room; `dst` is empty again.

    """
    try:
        if not _share(src, dst):
            _copy(src, dst, size, progress)
        # A reflink takes all of the source, and a copy leaves a hole at the end to be grown.
        os.ftruncate(dst, size)
    except OSError as error:
        os.ftruncate(dst, 0)
        if error.errno in _NOT_HERE:
            return False
        raise
    return True


def _share(src: int, dst: int) -> bool:
    try:
        syscalls.share_blocks(src, dst)
    except OSError as error:
        if error.errno in _NOT_HERE:
            return False
        raise
    return True


def _copy(src: int, dst: int, size: int, progress: Progress | None) -> None:
    offset = 0
    while offset < size:
        try:
            offset = os.lseek(src, offset, SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # nothing but a hole from here on
                return
            raise
        end = min(os.lseek(src, offset, SEEK_HOLE), size)
        while offset < end:
            done = os.copy_file_range(src, dst, min(end - offset, _STEP), offset, offset)
            if done == 0:  # the source was cut meanwhile
                return
            offset += done
            if progress is not None and offset < size:
                progress(offset)
