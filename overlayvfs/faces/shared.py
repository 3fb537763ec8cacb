"""What an overlay and its forks have opened together: the last of them closes it."""

import threading
from collections.abc import Callable
from contextlib import ExitStack
from typing import Self


class Shared:
    """Things to close, and how many overlays still use them."""

    def __init__(self, closers: ExitStack) -> None:
        """Take over what `closers` would close, for one user."""
        self._closers = closers
        self._users = 1
        self._lock = threading.Lock()

    def also(self, close: Callable[[], object]) -> None:
        """Have `close` called, too, before all the rest."""
        self._closers.callback(close)

    def shared(self) -> Self:
        """Count one user more."""
        with self._lock:
            self._users += 1
        return self

    def close(self) -> None:
        """Count one user less; with the last one everything is closed."""
        with self._lock:
            self._users -= 1
            last = self._users == 0
        if last:
            self._closers.close()
