"""Opening paths beneath a directory without ever following a symlink or leaving it.

One openat2(2) with RESOLVE_BENEATH and RESOLVE_NO_SYMLINKS where the kernel has it (5.6) and a sandbox
lets it through; otherwise a walk that opens component after component with O_NOFOLLOW. In both the kernel
checks what it opens: nothing swapped in between can lead outside.
"""

import errno
import functools
import os
from typing import Final

from overlayvfs.abi import O_DIRECTORY, O_NOFOLLOW, O_PATH, oserror
from overlayvfs.layers.local import syscalls

_CLOEXEC: Final[int] = getattr(os, "O_CLOEXEC", 0)
_STEP: Final[int] = O_PATH | O_DIRECTORY | O_NOFOLLOW | _CLOEXEC
_BENEATH: Final = syscalls.RESOLVE_BENEATH | syscalls.RESOLVE_NO_SYMLINKS

# A symlink on the way is ELOOP to openat2, ENOTDIR to O_DIRECTORY|O_NOFOLLOW; ".." out of the top is EXDEV.
_IS_NO_DIRECTORY: Final = (errno.ELOOP, errno.EXDEV, errno.ENOTDIR)


@functools.cache
def has_openat2() -> bool:
    """Tell whether this process may call openat2."""
    if not hasattr(os, "O_PATH"):
        return False
    try:
        fd = os.open("/", _STEP)
        try:
            os.close(syscalls.opener(_STEP, _BENEATH)(fd, b"."))
        finally:
            os.close(fd)
    except OSError:
        return False
    return True


def open_directory(top: int, path: str, flags: int = O_PATH) -> int:
    """Return a descriptor of the directory at the relative `path` below `top`.

    Raises:
        ENOENT: a component is missing.
        ENOTDIR: a component, the last one included, is no directory, or is a symlink, or leads out of `top`.

    """
    flags |= O_DIRECTORY | O_NOFOLLOW | _CLOEXEC
    try:
        # One component can't lead anywhere else, and Python's own call is quicker than ctypes.
        if "/" not in path and path != "..":
            return os.open(path, flags, dir_fd=top)
        if has_openat2():
            return syscalls.opener(flags, _BENEATH)(top, os.fsencode(path))
        return _walk(top, path, flags)
    except OSError as error:
        if error.errno in _IS_NO_DIRECTORY:
            raise oserror(errno.ENOTDIR, path) from None
        raise


def path_of(fd: int) -> str:
    """Return a path that means the very object `fd` is open on, a symlink itself included (proc(5), "magic links")."""
    return f"/proc/self/fd/{fd}"


def _walk(top: int, path: str, flags: int) -> int:
    components = path.split("/")
    if ".." in components:
        raise oserror(errno.EXDEV, path)
    fd = top
    try:
        for component in components[:-1]:
            below = os.open(component, _STEP, dir_fd=fd)
            if fd != top:
                os.close(fd)
            fd = below
        return os.open(components[-1], flags, dir_fd=fd)
    finally:
        if fd != top:
            os.close(fd)


def is_removed(fd: int) -> bool:
    """Tell whether an open directory has no place in its file system any more."""
    return os.fstat(fd).st_nlink == 0


def identity(st: os.stat_result) -> tuple[str, int, int]:
    """Return what tells one host directory from any other."""
    return ("host", st.st_dev, st.st_ino)


def ancestry(fd: int) -> list[tuple[str, int, int]]:
    """Return the identities of a directory and of all above it up to /, nearest first."""
    found = [identity(os.fstat(fd))]
    above = os.open("..", _STEP, dir_fd=fd)
    try:
        while (one := identity(os.fstat(above))) != found[-1]:
            found.append(one)
            further = os.open("..", _STEP, dir_fd=above)
            os.close(above)
            above = further
    finally:
        os.close(above)
    return found
