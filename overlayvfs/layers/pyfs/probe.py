"""What a PyFilesystem keeps of what it is told: nothing says so in advance, so it is tried out, once, in WORK."""

import errno
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from overlayvfs.abi import Stat, oserror
from overlayvfs.layers.pyfs.backend import Backend
from overlayvfs.layers.pyfs.spelling import RESERVED, STORED_WORK
from overlayvfs.layers.pyfs.steps import Kept

_DIR: Final = f"{STORED_WORK}/{RESERVED}.probe"
_FILE: Final = f"{_DIR}/file"
_OTHER: Final = f"{_DIR}/other"
_NEW: Final = f"{_DIR}/new"
_WHEN: Final = 1_000_000_000 * 10**9
"""A time no clock gives (ns), in whole seconds: some keep no more."""


def probe(backend: Backend) -> Kept:
    """Return what is kept of modes, owners and times, and how files are written; WORK is left as it was.

    Raises:
        EINVAL: what was written does not show (a wrapper that caches for ever).
        EROFS, EACCES, ...: it can't be written at all.

    """
    backend.make_dir(_DIR, None)
    was_there = backend.find(_FILE)
    backend.make_file(_FILE)
    if was_there is not None or backend.find(_FILE) is None:
        raise oserror(errno.EINVAL, reason=f"{backend.name} can't be an upper: it does not show what was just written")
    in_place = not backend.is_network and _writes_in_place(backend)
    kept = Kept(
        times=_keeps(backend, _FILE, lambda: backend.set_times(_FILE, _WHEN, _WHEN), _is_then),
        dir_times=_keeps(backend, _DIR, lambda: backend.set_times(_DIR, _WHEN, _WHEN), _is_then),
        # With a set-id bit: nine of the twelve bits are not a mode.
        modes=_keeps(backend, _FILE, lambda: backend.set_mode(_FILE, 0o4710), lambda st: st.st_mode & 0o7777 == 0o4710),
        owners=_keeps(
            backend, _FILE, lambda: backend.set_owner(_FILE, 12, 34), lambda st: (st.st_uid, st.st_gid) == (12, 34)
        ),
        stamps_parents=_stamps_parents(backend),
        writes_in_place=in_place,
        writes_at_once=in_place and _writes_at_once(backend),
    )
    backend.remove(_OTHER)
    backend.remove(_FILE)
    backend.remove_dir(_DIR)
    return kept


def _is_then(st: Stat) -> bool:
    return st.st_mtime_ns == _WHEN


def _keeps(backend: Backend, path: str, change: Callable[[], None], shows: Callable[[Stat], bool]) -> bool:
    """Tell whether a change of an object's attributes is kept. One that fails, however it does, is not."""
    try:
        change()
    except OSError:
        return False
    return shows(backend.stat(path))


def _stamps_parents(backend: Backend) -> bool:
    """Tell whether a new name changes the directory's mtime, set before (and make one)."""
    backend.make_file(_OTHER)
    return not _is_then(backend.stat(_DIR))


def _writes_in_place(backend: Backend) -> bool:
    """Tell whether one file object reads and writes at any offset, and others see it at once."""
    try:
        with backend.open(_FILE, writable=True) as file, backend.calls(_FILE):
            file.write(b"abcdef")
            file.seek(1)
            file.write(b"B")
            file.flush()
            file.seek(0)
            file.truncate(5)
            file.flush()
            file.seek(0)
            seen_here = file.read(9)
            seen_size = backend.stat(_FILE).st_size
    except OSError:
        return False
    return (seen_here, seen_size) == (b"aBcde", 5)


def _writes_at_once(backend: Backend) -> bool:
    """Tell whether a file made by opening it is there and takes writes and times before it is closed."""
    try:
        with backend.open_new(_NEW) as file, backend.calls(_NEW):
            is_there = backend.find(_NEW) is not None
            file.write(b"abc")
            file.flush()
            seen_size = backend.stat(_NEW).st_size
            file.seek(0)
            seen_here = file.read(9)
            with suppress(OSError):
                backend.set_times(_NEW, _WHEN, _WHEN)
            seen_time = backend.stat(_NEW).st_mtime_ns
        is_unchanged = backend.stat(_NEW).st_mtime_ns == seen_time
        backend.remove(_NEW)
    except OSError:
        with suppress(OSError):
            backend.remove(_NEW)
        return False
    return is_there and is_unchanged and (seen_here, seen_size) == (b"abc", 3)
