"""From what a caller has (an FS, an FS URL, a path) to the layer that makes the most of it.

A host directory, a MemoryFS and an overlay are used with all they can hold, also through a SubFS of them;
everything else is an ordinary PyFilesystem. Adapters are imported when something asks for them.
"""

import errno
import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import NamedTuple, Protocol, runtime_checkable

from fs.base import FS
from fs.errors import FSError
from fs.opener import open as open_url
from fs.opener import registry
from fs.opener.errors import OpenerError, ParseError
from fs.osfs import OSFS
from fs.subfs import ClosingSubFS, SubFS
from fs.tempfs import TempFS

from overlayvfs.abi import oserror
from overlayvfs.layers.base import Layer, UpperLayer
from overlayvfs.layers.local import LocalLayer
from overlayvfs.layers.pyfs import PyFsLayer
from overlayvfs.layers.tar import TarLayer
from overlayvfs.marks import USER, MarkNames

LayerSpec = FS | str | os.PathLike[str] | Layer
"""What a layer may be given as: an FS, an FS URL (text with "://"), a path, or a layer as it is.

An fsspec file system is one too, and so is a URL that only fsspec knows.
"""


@runtime_checkable
class Stackable(Protocol):
    """An FS that is more than its PyFilesystem methods show: MemoryFS, OverlayFS."""

    def _overlayvfs_layer(self, path: str) -> Layer:
        """Return the layer of the directory at `path`, "" being the root. ENOENT ENOTDIR."""


class _Source(NamedTuple):
    """Where a layer's directory is: `path` on the host, or in `fs`."""

    fs: FS | None
    path: str
    owned: bool = False
    """`fs` was opened here, from a URL."""

    @property
    def host_path(self) -> str | None:
        """The directory (or archive) on the host; None if it is none. A subclass of OSFS may show anything."""
        if self.fs is None:
            return self.path
        return self.fs.getsyspath(self.path or "/") if type(self.fs) in (OSFS, TempFS) else None


def open_layer(spec: LayerSpec, role: str, *, marks: MarkNames = USER) -> Layer:
    """Return a layer to read; `role` is what errors call it ("lower 1"), `marks` the overlay's attribute names.

    A layer is returned as it is. `close` of any other lets go of what was opened here, an FS from a URL
    included, and of nothing that was given.

    Raises:
        TypeError: `spec` is nothing a layer can be given as.
        EBADF: a closed FS.
        EINVAL: a URL no opener takes.
        ENOENT ENOTDIR: no such directory; no directory and no archive either.

    """
    with _naming(role, spec):
        ready = _ready_layer(spec, marks)
        return ready or _layer(_source(spec, role), None, marks, writable=False)


def open_upper(
    spec: LayerSpec, workdir: LayerSpec | None = None, *, marks: MarkNames = USER, role: str = "upper"
) -> UpperLayer:
    """Return a layer to write; `spec`, `role`, `marks`, closing and errors as in `open_layer`, and these.

    Raises:
        EROFS: an FS that says it is read-only.
        EINVAL: what can only be a lower (an overlay, an archive), or a workdir inside it, around it or on
            another file system.

    """
    with _naming("workdir", workdir):
        work = None if workdir is None else _source(workdir, "workdir")
    with _naming(role, spec):
        ready = _ready_layer(spec, marks)
        layer = ready or _layer(_source(spec, role), work, marks, writable=True)
    try:
        with _naming(role, spec):
            if not isinstance(layer, UpperLayer):
                raise oserror(errno.EINVAL, reason=f"{layer.name} can't hold whiteouts; give it as a lower")
            if isinstance(layer, PyFsLayer) and not layer.writable:
                raise oserror(errno.EROFS)
        if work is not None:
            with _naming("workdir", workdir):
                _check_workdir(layer, work)
    except BaseException:
        if layer is not spec:
            layer.close()
        raise
    return layer


def _ready_layer(spec: object, marks: MarkNames) -> Layer | None:
    """Return the layer of what is no PyFilesystem and no path: a layer, an fsspec file system, a URL of fsspec's."""
    if isinstance(spec, Layer):
        return spec
    # Whoever has an fsspec file system has imported it; a URL is worth a look at what is installed.
    fsspec = sys.modules.get("fsspec")
    is_store = fsspec is not None and isinstance(spec, fsspec.AbstractFileSystem)
    if is_store or (_is_foreign_url(spec) and find_spec("fsspec") is not None):
        from overlayvfs.layers.fsspec import FsspecLayer

        return FsspecLayer(spec, marks=marks)
    return None


def _is_foreign_url(spec: object) -> bool:
    return isinstance(spec, str) and "://" in spec and spec.partition("://")[0] not in registry.protocols


def _source(spec: object, role: str) -> _Source:
    if isinstance(spec, FS):
        return _unwrapped(spec, owned=False)
    if isinstance(spec, str) and "://" in spec:
        return _from_url(spec)
    if isinstance(spec, (str, os.PathLike)):
        return _Source(None, os.fsdecode(spec))
    raise TypeError(f"{role}: expected an FS, an FS URL or a path, not {type(spec).__name__}")


def _unwrapped(fs: FS, *, owned: bool) -> _Source:
    """Look through SubFS to the file system whose directory it is."""
    path, given = "", fs
    while type(fs) in (SubFS, ClosingSubFS):
        assert isinstance(fs, SubFS)
        if fs.isclosed():
            break
        fs, path = fs.delegate_path(path or "/")
    if fs.isclosed():
        raise oserror(errno.EBADF, str(given), reason="closed")
    return _Source(fs, path.rstrip("/"), owned)


def _from_url(url: str) -> _Source:
    try:
        fs, path = open_url(url, writeable=False)
        return _unwrapped(fs.opendir(path) if path else fs, owned=True)
    except FSError as error:
        raise oserror(errno.ENOENT, url, reason=str(error)) from error
    except (OpenerError, ParseError) as error:
        raise oserror(errno.EINVAL, url, reason=str(error)) from error


def _layer(source: _Source, work: _Source | None, marks: MarkNames, *, writable: bool) -> Layer:
    """Make the adapter and see that there is a directory."""
    path = source.host_path
    if path is not None:
        if source.fs is None and os.path.isfile(path):
            return TarLayer(path)
        return _HostLayer(source, path, None if work is None else work.host_path, writable)
    assert source.fs is not None
    if isinstance(source.fs, Stackable):
        return source.fs._overlayvfs_layer(source.path)
    layer = _PyFsLayer(source, marks)
    if not stat.S_ISDIR(layer.lstat("").st_mode):
        raise oserror(errno.ENOTDIR)
    return layer


def _check_workdir(upper: Layer, work: _Source) -> None:
    """Refuse a workdir the upper can't be prepared in (ovl_get_workdir, ovl_workdir_ok).

    Raises:
        EINVAL: it is inside the upper or around it, or on another file system.

    """
    layer = _layer(work, None, USER, writable=False)
    try:
        if upper.identity() in layer.ancestry() or layer.identity() in upper.ancestry():
            raise oserror(errno.EINVAL, reason="workdir and upper must be separate subtrees")
        if layer.lstat("").st_dev != upper.lstat("").st_dev:
            raise oserror(errno.EINVAL, reason=f"workdir and upper ({upper.name}) must be on the same file system")
    finally:
        layer.close()


class _HostLayer(LocalLayer):
    """A host directory and the FS it was given as: a TempFS that nobody holds any more takes its directory with it."""

    def __init__(self, source: _Source, path: str, workdir: str | None, writable: bool) -> None:
        super().__init__(path, workdir=workdir, writable=writable)
        self._source = source

    def close(self) -> None:
        super().close()
        _let_go(self._source)


class _PyFsLayer(PyFsLayer):
    """An ordinary PyFilesystem, closed with the layer if it was opened for it."""

    def __init__(self, source: _Source, marks: MarkNames) -> None:
        assert source.fs is not None
        super().__init__(source.fs.opendir(source.path) if source.path else source.fs, marks=marks)
        self._source = source

    def close(self) -> None:
        super().close()
        _let_go(self._source)


def _let_go(source: _Source) -> None:
    if source.owned and source.fs is not None:
        source.fs.close()


@contextmanager
def _naming(role: str, spec: object) -> Iterator[None]:
    """Say in every error which layer it is about."""
    try:
        yield
    except OSError as error:
        filename = error.filename if isinstance(error.filename, str) and error.filename else str(spec)
        raise OSError(error.errno, f"{error.strerror} ({role})", filename) from error
