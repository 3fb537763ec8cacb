"""Doing to one's own tree what root may do: lending its owner, for one call, the rights the modes withhold.

An overlay is its own superuser, as a kernel mount in a user namespace is; the process that runs it may
not be. Copying up a file of mode 0444 or removing a name from a directory of mode 0555 must work all the
same. It is tried only where a call was refused with EACCES. A crash in the middle leaves an object with
more rights for its owner, and with nothing else changed.
"""

import os
import stat
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from overlayvfs.abi import O_NOFOLLOW, O_PATH
from overlayvfs.layers.local.beneath import path_of

# Two loans of one object would take the one's rights for what the other is to restore.
_lock = threading.RLock()


@contextmanager
def lent(top: int, path: str, *, to_object: bool) -> Iterator[None]:
    """Let the owner use each directory on the relative `path` below `top` and, `to_object`, what it leads to.

    What belongs to somebody else stays as it is.

    Raises:
        ENOENT ENOTDIR: there is no such way to the last name.

    """
    *directories, last = path.split("/")
    with _lock, ExitStack() as loan:
        # The path "" leads to `top` itself.
        if last or to_object:
            _lend(loan, top)
        directory = top
        for name in directories:
            directory = _lend_name(loan, directory, name)
        if last and to_object:
            try:
                _lend_name(loan, directory, last)
            except FileNotFoundError:
                pass  # it is to be made
        yield


@contextmanager
def lent_object(fd: int) -> Iterator[None]:
    """Let the owner use the object `fd` is of."""
    with _lock, ExitStack() as loan:
        _lend(loan, fd)
        yield


def _lend_name(loan: ExitStack, directory: int, name: str) -> int:
    fd = os.open(name, O_PATH | O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    loan.callback(os.close, fd)
    _lend(loan, fd)
    return fd


def _lend(loan: ExitStack, fd: int) -> None:
    mode = os.fstat(fd).st_mode
    if not stat.S_ISDIR(mode) and not stat.S_ISREG(mode):
        return
    old = stat.S_IMODE(mode)
    new = old | (0o700 if stat.S_ISDIR(mode) else 0o600)
    if new == old:
        return
    try:
        os.chmod(path_of(fd), new)
    except PermissionError:
        return  # not ours to lend
    loan.callback(os.chmod, path_of(fd), old)
