"""The one table from errnos to PyFilesystem's errors.

PyFilesystem's own `convert_os_errors` drops the errno of what it does not know and reads EINVAL as
"should be a file"; here every error keeps the OSError it came from as `.exc`.
"""

import errno
from types import TracebackType
from typing import Any

from fs import errors

from overlayvfs.workspace import commit

IllegalDestination: type[errors.OperationFailed] = getattr(errors, "IllegalDestination", errors.OperationFailed)
"""A copy or move onto or into itself; `fs` 2.4 has no word of its own for it, `fs-next` has."""

INTO_ITSELF = "'{path}' is what is to be copied or moved there, or lies in it"
"""What is said of an illegal destination."""

_FILE: dict[int, type[errors.FSError]] = {
    errno.ENOENT: errors.ResourceNotFound,
    # A leading component is no directory: to someone who asked for a file, the file is not there.
    errno.ENOTDIR: errors.ResourceNotFound,
    errno.EEXIST: errors.FileExists,
    errno.EISDIR: errors.FileExpected,
    errno.ENOTEMPTY: errors.DirectoryNotEmpty,
    errno.ELOOP: errors.ResourceInvalid,
    errno.EROFS: errors.ResourceReadOnly,
    errno.EBUSY: errors.ResourceLocked,
    errno.EACCES: errors.PermissionDenied,
    errno.EPERM: errors.PermissionDenied,
    errno.ENOSPC: errors.InsufficientStorage,
    errno.EDQUOT: errors.InsufficientStorage,
    errno.ENAMETOOLONG: errors.InvalidPath,
    errno.EOPNOTSUPP: errors.Unsupported,
    errno.ENOSYS: errors.Unsupported,
    errno.ETIMEDOUT: errors.OperationTimeout,
    errno.ECONNREFUSED: errors.RemoteConnectionError,
    errno.ECONNRESET: errors.RemoteConnectionError,
    errno.ENETDOWN: errors.RemoteConnectionError,
}
_DIRECTORY = _FILE | {errno.ENOTDIR: errors.DirectoryExpected, errno.EEXIST: errors.DirectoryExists}


class CommitConflict(errors.OperationFailed):
    """What a commit or merge was to change was changed by somebody else too; nothing was written."""

    default_message = "{details}"

    def __init__(self, path: str | None = None, exc: Exception | None = None, msg: str | None = None) -> None:
        super().__init__(path, exc, msg)
        self.conflicts = exc.conflicts if isinstance(exc, commit.CommitConflict) else ()
        """Where and why: each has a `path` and a `why`."""


def fs_error(error: OSError, path: str | None, *, directory: bool = False) -> errors.FSError:
    """Return (not raise) what PyFilesystem calls `error`; `directory`: `path` was to be a directory.

    Without a `path`, for what is about the whole tree, it has the error's own and says all that the error says.
    """
    if isinstance(error, commit.CommitConflict):
        return CommitConflict(path or "/", exc=error)
    if error.errno == errno.EBADF:
        # No verb that takes a path has another reason for it.
        return errors.FilesystemClosed()
    kind: Any = (_DIRECTORY if directory else _FILE).get(error.errno or 0, errors.OperationFailed)
    # An OperationFailed by default hides the reason; "{exc}" is str(error), errno, layer and path included.
    message = "{exc}" if path is None or issubclass(kind, errors.OperationFailed) else None
    if path is None:
        path = error.filename if isinstance(error.filename, str) and error.filename else "/"
    translated: errors.FSError = kind(path, exc=error, msg=message)
    return translated


class fs_errors:  # noqa: N801 (a context manager, named as one reads)
    """Within it an OSError becomes PyFilesystem's error for `path`, as in `fs_error`."""

    __slots__ = ("_directory", "_path")

    def __init__(self, path: str | None = None, *, directory: bool = False) -> None:
        self._path = path
        self._directory = directory

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if isinstance(error, OSError):
            raise fs_error(error, self._path, directory=self._directory) from error


class MountFailed(errors.CreateFailed, OSError):
    """An overlay could not be made: to PyFilesystem a CreateFailed, and an OSError with mount(2)'s errno."""

    default_message = "{details}"

    def __init__(self, exc: OSError) -> None:
        OSError.__init__(self, exc.errno, exc.strerror, exc.filename)
        errors.CreateFailed.__init__(self, exc=exc)

    def __reduce__(self) -> tuple[type["MountFailed"], tuple[Exception | None]]:
        return type(self), (self.exc,)
