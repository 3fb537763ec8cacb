"""Where an upper on a host directory prepares objects, and how a workdir is made ready (ovl_workdir_create)."""

import errno
import os
import stat
import tempfile
from collections.abc import Callable
from typing import Final

from overlayvfs.abi import O_DIRECTORY, O_NOFOLLOW, RENAME_EXCHANGE, makedev, oserror
from overlayvfs.layers.base import Capabilities
from overlayvfs.layers.local import syscalls
from overlayvfs.layers.local.beneath import ancestry, identity, path_of
from overlayvfs.layers.local.names import remove_tree

WORK_NAME: Final = "work"
INDEX_NAME: Final = "index"

_OPEN: Final[int] = os.O_RDONLY | O_DIRECTORY | O_NOFOLLOW | getattr(os, "O_CLOEXEC", 0)


class WorkArea:
    """The directory that holds `work` and `index`: the caller's workdir, or a private one beside the root.

    A private one is made when first needed and is gone with `dispose`.
    """

    def __init__(self, root: str, root_fd: int, workdir: str | None) -> None:
        """Nothing is opened or made yet; `root_fd` stays the layer's."""
        self.fd = -1
        self._root = root
        self._root_fd = root_fd
        self._workdir = workdir
        self._private: str | None = None
        self._owner = os.getpid()

    def open(self) -> int:
        """Return the area's descriptor.

        Raises:
            EINVAL: the workdir is on another file system than the root, or one of them contains the other;
                or none was given and none can be made beside the root.
            ENOENT ENOTDIR: there is no such workdir.

        """
        if self.fd < 0:
            path = self._workdir if self._workdir is not None else self._make_private()
            fd = os.open(path, _OPEN & ~O_NOFOLLOW)
            try:
                self._check(fd, path)
            except OSError:
                os.close(fd)
                self._remove_private()
                raise
            self.fd = fd
        return self.fd

    @property
    def is_private(self) -> bool:
        """Whether there is a private area now."""
        return self._private is not None

    def find(self) -> int:
        """Return the area's descriptor, but make none. ENOENT."""
        if self.fd < 0 and self._workdir is None:
            raise oserror(errno.ENOENT)
        return self.open()

    def dispose(self) -> None:
        """Close the area; a private one goes with all that is in it. Idempotent."""
        fd, self.fd = self.fd, -1
        if fd < 0:
            return
        # A forked child that ends must not take the parent's work away.
        try:
            if self._private is not None and os.getpid() == self._owner:
                for name in os.listdir(fd):
                    remove_tree(fd, name)
                self._remove_private()
        finally:
            os.close(fd)

    def _make_private(self) -> str:
        above = os.path.join(self._root, os.pardir)
        try:
            self._private = tempfile.mkdtemp(prefix=".overlayvfs-work-", dir=os.path.realpath(above))
        except OSError as error:
            raise oserror(
                errno.EINVAL,
                self._root,
                reason=f"no work directory can be made beside it ({error.strerror}): give a workdir on its file system",
            ) from error
        return self._private

    def _remove_private(self) -> None:
        path, self._private = self._private, None
        if path is None:
            return
        try:
            os.rmdir(path)
        except FileNotFoundError:
            pass  # whoever removed the directory it was in has done it

    def _check(self, fd: int, path: str) -> None:
        root, area = os.fstat(self._root_fd), os.fstat(fd)
        if root.st_dev != area.st_dev:
            advice = "" if self._workdir is not None else ": give a workdir on the file system of the upper"
            raise oserror(
                errno.EINVAL,
                path,
                reason=f"the work directory must be on the same file system as {self._root}{advice}",
            )
        if self._workdir is not None and (identity(area) in ancestry(self._root_fd) or identity(root) in ancestry(fd)):
            raise oserror(errno.EINVAL, path, reason=f"the work directory and {self._root} must not contain each other")

    def make(self, name: str, mode: int) -> None:
        """Make a directory of the area if it is not there."""
        try:
            os.mkdir(name, 0o700, dir_fd=self.open())
        except FileExistsError:
            return
        if mode != 0o700:
            os.chmod(name, mode, dir_fd=self.fd)

    def remove(self, name: str) -> None:
        """Remove a directory of the area with all below it, if it is there."""
        if self.fd >= 0:
            try:
                remove_tree(self.fd, name)
            except FileNotFoundError:
                pass

    def probe(self) -> Capabilities:
        """Try what objects of this file system, made by this process, can hold; leaves nothing behind."""
        area = self.open()
        name = os.path.basename(tempfile.mkdtemp(prefix="probe-", dir=path_of(area)))
        fd = os.open(name, _OPEN, dir_fd=area)
        try:
            return _probe(fd)
        finally:
            os.close(fd)
            remove_tree(area, name)


def _probe(fd: int) -> Capabilities:
    """Try every capability on objects made in the directory `fd`."""
    os.close(os.open("a", os.O_CREAT | os.O_WRONLY, 0o600, dir_fd=fd))
    a = f"{path_of(fd)}/a"
    whiteouts = _works(lambda: os.mknod("w", stat.S_IFCHR, 0, dir_fd=fd))
    users = _works(lambda: os.setxattr(a, "user.overlay.probe", b"y"))
    trusted = _works(lambda: os.setxattr(a, "trusted.overlay.probe", b"y"))
    return Capabilities(
        marks=whiteouts and (users or trusted),
        symlinks=_works(lambda: os.symlink("a", "s", dir_fd=fd)),
        hard_links=_works(lambda: os.link("a", "l", src_dir_fd=fd, dst_dir_fd=fd)),
        modes=_works(lambda: os.chmod(a, 0o751)) and stat.S_IMODE(os.stat(a).st_mode) == 0o751,
        xattrs=users,
        devices=_works(lambda: os.mknod("c", stat.S_IFCHR | 0o600, makedev(1, 3), dir_fd=fd)),
        trusted_xattrs=trusted,
        atomic_rename=whiteouts and _works(lambda: syscalls.renameat2(fd, "a", fd, "w", RENAME_EXCHANGE)),
        # Last: it gives the file away.
        owners=_works(lambda: os.chown("w", os.geteuid() + 1, os.getegid() + 1, dir_fd=fd)),
    )


def _works(act: Callable[[], object]) -> bool:
    try:
        act()
    except OSError:
        return False
    return True
