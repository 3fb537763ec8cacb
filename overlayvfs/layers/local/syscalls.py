"""System calls Python has no name for: openat2, renameat2, file handles, a file system's UUID.

Each raises OSError with the call's errno: ENOSYS where the kernel, the C library or the machine has no
such call. Nothing is loaded before the first call, so importing this is harmless anywhere.
"""

import ctypes
import errno
import functools
import os
import platform
import struct
from collections.abc import Callable
from typing import Any, Final

from overlayvfs.abi import oserror

RESOLVE_NO_SYMLINKS: Final = 0x04
RESOLVE_BENEATH: Final = 0x08

_FICLONE: Final = 0x40049409
_FS_IOC_GETFSUUID: Final = 0x80111500
_MAX_HANDLE_SZ: Final = 128

# openat2 came after all machines had agreed on numbers; renameat2 is missing from older C libraries.
_SYS_OPENAT2: Final = 437
_SYS_RENAMEAT2: Final = {"x86_64": 316, "aarch64": 276, "riscv64": 276, "ppc64le": 357, "s390x": 347}

_OPEN_HOW: Final = struct.Struct("=QQQ")
_FILE_HANDLE: Final = struct.Struct("=Ii")


@functools.cache
def _function(name: str, *argtypes: Any) -> Callable[..., int]:
    try:
        function = ctypes.CDLL(None, use_errno=True)[name]
    except AttributeError as error:
        raise oserror(errno.ENOSYS, reason=f"the C library has no {name}") from error
    function.argtypes = argtypes
    function.restype = ctypes.c_long if name == "syscall" else ctypes.c_int
    return function


def _checked(result: int) -> int:
    if result < 0:
        raise oserror(ctypes.get_errno())
    return result


@functools.cache
def opener(flags: int, resolve: int) -> Callable[[int, bytes], int]:
    """Return openat2(2) with these flags and RESOLVE_ bits: (directory fd, relative path) to a new descriptor."""
    function = _function("syscall", ctypes.c_long, ctypes.c_long, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_size_t)
    # Built once: every path of a layer is opened with one of two or three such records.
    how = _OPEN_HOW.pack(flags | os.O_CLOEXEC, 0, resolve)

    def openat2(dir_fd: int, path: bytes) -> int:
        fd = function(_SYS_OPENAT2, dir_fd, path, how, _OPEN_HOW.size)
        if fd < 0:
            raise oserror(ctypes.get_errno())
        return fd

    return openat2


def renameat2(src_fd: int, src: str, dst_fd: int, dst: str, flags: int) -> None:
    """renameat2(2). EINVAL where the file system doesn't know the flag."""
    names = (src_fd, os.fsencode(src), dst_fd, os.fsencode(dst), flags)
    types = (ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)
    try:
        function = _function("renameat2", *types)
    except OSError:
        number = _SYS_RENAMEAT2.get(platform.machine())
        if number is None:
            raise
        _checked(_function("syscall", ctypes.c_long, *types)(number, *names))
    else:
        _checked(function(*names))


def name_to_handle(dir_fd: int, name: str) -> tuple[int, bytes]:
    """Return type and body of the file handle of `name` itself. EOPNOTSUPP: it has none."""
    buffer = ctypes.create_string_buffer(_FILE_HANDLE.pack(_MAX_HANDLE_SZ, 0), _FILE_HANDLE.size + _MAX_HANDLE_SZ)
    mount_id = ctypes.c_int()
    types = (ctypes.c_int, ctypes.c_char_p, ctypes.c_char_p, ctypes.POINTER(ctypes.c_int), ctypes.c_int)
    call = _function("name_to_handle_at", *types)
    _checked(call(dir_fd, os.fsencode(name), buffer, ctypes.byref(mount_id), 0))
    length, kind = _FILE_HANDLE.unpack_from(buffer)
    return kind, buffer.raw[_FILE_HANDLE.size : _FILE_HANDLE.size + length]


def open_by_handle(mount_fd: int, kind: int, body: bytes, flags: int) -> int:
    """open_by_handle_at(2). EPERM without CAP_DAC_READ_SEARCH, ESTALE if the object is gone."""
    call = _function("open_by_handle_at", ctypes.c_int, ctypes.c_char_p, ctypes.c_int)
    return _checked(call(mount_fd, _FILE_HANDLE.pack(len(body), kind) + body, flags | os.O_CLOEXEC))


def share_blocks(src: int, dst: int) -> None:
    """ioctl_ficlone(2): make `dst` a reflink of all of `src`. EOPNOTSUPP EXDEV EINVAL where they can't share."""
    import fcntl  # not on every host

    fcntl.ioctl(dst, _FICLONE, src)


def fs_uuid(fd: int) -> bytes:
    """Return the 16 bytes that identify the file system of `fd` (super_block.s_uuid). ENOTTY where none is told."""
    import fcntl  # not on every host

    answer = bytearray(17)  # struct fsuuid2: length, bytes
    fcntl.ioctl(fd, _FS_IOC_GETFSUUID, answer)
    return bytes(answer[1:])


def syncfs(fd: int) -> None:
    """syncfs(2): write the whole file system of `fd` to its disk."""
    _checked(_function("syncfs", ctypes.c_int)(fd))
