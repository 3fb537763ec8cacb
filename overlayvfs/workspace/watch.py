"""Watching an overlay: one record for each verb that changes something, or was to.

The engine tells its watchers inside the verb, so records come in the order of the changes and none is lost; where
nobody watches, nothing is made and nobody is called. What works on the layers behind the tree (fork, discard) is no
verb; a rollback is one.
"""

import errno
import json
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, Self
from weakref import ref

from overlayvfs.engine.overlay import Overlay

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Record:
    """A verb that changed something, or failed to."""

    verb: str
    """As the `os` module calls it: "open" (for writing or creating), "write", "mkdir", "rename", …"""
    paths: tuple[str, ...]
    """The caller's own, in the verb's order; for a descriptor the path of what it has open."""
    errno: int | None
    """Why it failed; None where it did not."""
    bytes: int
    """Written by this verb; 0 for all but "write"."""


Callback = Callable[[Record], object]


class Watch:
    """A callback that is being told; `close` ends that. Dropping it ends nothing, and it keeps no overlay open."""

    def __init__(self, overlay: Overlay, callback: Callback) -> None:
        """Begin. TypeError: `callback` can't be called."""
        if not callable(callback):
            raise TypeError(f"callback: expected a function of a Record, not {type(callback).__name__}")

        # No method: the overlay must not refer to what refers to the overlay.
        def report(verb: str, paths: tuple[str, ...], error: OSError | None, size: int) -> None:
            try:
                callback(Record(verb, paths, None if error is None else error.errno, size))
            except Exception:  # noqa: BLE001 -- whatever the callback is; the verb is done and must not seem to have failed
                _log.exception("a watch callback failed at %s %s", verb, " ".join(paths))

        self._report = report
        self._overlay = ref(overlay)
        overlay.watch(report)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Tell the callback nothing more; idempotent."""
        overlay = self._overlay()
        if overlay is not None:
            overlay.unwatch(self._report)


class TextFile(Protocol):
    """What an audit log is written to."""

    def write(self, text: str, /) -> object:
        """Take one line."""

    def flush(self) -> object:
        """Pass on what was taken."""


def audit_log(file: TextFile) -> Callback:
    """Return a callback that writes each record to a text file as one line of JSON, flushed at once.

    `time_ns`, `verb`, `paths`, `errno` (its name, null where it succeeded) and `bytes`; names that are no UTF-8 come
    as lone surrogates, as Python has them.
    """

    def write(record: Record) -> None:
        line = {
            "time_ns": time.time_ns(),
            "verb": record.verb,
            "paths": record.paths,
            "errno": None if record.errno is None else errno.errorcode.get(record.errno, str(record.errno)),
            "bytes": record.bytes,
        }
        file.write(json.dumps(line) + "\n")
        file.flush()

    return write
