"""Rotation: after every change the upper becomes the highest lower, and a fresh upper is put on top.

When that happens is decided here for the engine's overlay and the kernel's alike, so that they stay comparable.
"""

import stat
from collections.abc import Callable
from typing import Any, Final

from overlayvfs.testing.trees import Unsupported

_CHANGES: Final = frozenset(
    {
        *("mkdir", "makedirs", "mknod", "symlink", "link", "unlink", "remove", "rmdir", "rename", "replace"),
        *("renameat2", "truncate", "ftruncate", "write", "pwrite", "chmod", "fchmod", "chown", "fchown", "lchown"),
        *("utime", "setxattr", "removexattr"),
        # Any open may have created, cut or copied up; whether it did shows only in the layers.
        "open",
    }
)


class RotatingOs:
    """The os module over the overlay that is mounted now, which rotates after a change once no descriptor is open."""

    def __init__(self, now: Callable[[], Any], rotate: Callable[[], None]) -> None:
        """Call what `now` returns, and `rotate` when it is time to."""
        self._now = now
        self._rotate = rotate
        self._open: set[int] = set()
        self._changed = False

    def __getattr__(self, name: str) -> Any:
        """Return the present overlay's constant, or its function that rotates the layers after it."""
        here = getattr(self._now(), name)
        if not callable(here) or isinstance(here, type):
            return here
        if name == "fdopen":
            raise Unsupported("a file object's descriptor is closed behind the rotation's back")

        def call(*args: Any, **kwargs: Any) -> Any:
            result = getattr(self._now(), name)(*args, **kwargs)
            self._after(name, args, result)
            return result

        return call

    def forget(self) -> None:
        """Forget the descriptors: what they were of is unmounted."""
        self._open.clear()

    def _after(self, name: str, args: tuple[Any, ...], result: Any) -> None:
        if name in ("open", "dup"):
            self._open.add(result)
        elif name == "close":
            self._open.discard(args[0])
        self._changed |= name in _CHANGES
        if self._changed and not self._open:
            self._changed = False
            self._rotate()


def copy_root(old_os: Any, old: str, new_os: Any, new: str, *, marks: str) -> None:
    """Give a fresh upper's root the attributes of the one before; those that start with `marks` are the mount's."""
    st = old_os.lstat(old)
    for name in old_os.listxattr(old):
        if not name.startswith(marks):
            new_os.setxattr(new, name, old_os.getxattr(old, name))
    new_os.chown(new, st.st_uid, st.st_gid)
    new_os.chmod(new, stat.S_IMODE(st.st_mode))
    new_os.utime(new, ns=(st.st_atime_ns, st.st_mtime_ns))
