"""Arguments as Linux's os takes them, and what it raises for others."""

import os
from typing import Any

from overlayvfs.faces.stats import nanoseconds

Path = str | os.PathLike[str]


def path_text(call: str, path: object) -> str:
    """Return a path argument as text, or raise what the os module raises for it."""
    text = path if isinstance(path, str) else getattr(type(path), "__fspath__", _not_a_path)(path)
    if not isinstance(text, str):
        raise TypeError(f"{call}: path should be string or os.PathLike, not {type(path).__name__}")
    if "\0" in text:
        raise ValueError(f"{call}: embedded null character in path")
    if not text.isascii():
        # A lone surrogate that stands for no byte: the name can't exist, and os says so in the same way.
        text.encode("utf-8", "surrogateescape")
    return text


def _not_a_path(path: object) -> None:
    """Stand for __fspath__ on what has none."""


def number(fd: object) -> int:
    """Return a descriptor argument, or raise what os raises for what is no int."""
    if not isinstance(fd, int):
        raise TypeError(f"'{type(fd).__name__}' object cannot be interpreted as an integer")
    return fd


def attribute_name(name: Path | bytes) -> str:
    """Return the name of an extended attribute as text."""
    text = os.fsdecode(name) if isinstance(name, bytes) else os.fspath(name)
    if "\0" in text:
        raise ValueError("embedded null character in attribute")
    return text


def bytes_like(data: Any) -> bytes | memoryview:
    """Return data to write, uncopied; TypeError for text and what has no buffer."""
    if isinstance(data, str):
        raise TypeError("a bytes-like object is required, not 'str'")
    return data if isinstance(data, bytes) else memoryview(data).cast("B")


def no_fd_and_nofollow(call: str, follow_symlinks: bool) -> None:
    """Raise ValueError for follow_symlinks=False beside a descriptor."""
    if not follow_symlinks:
        raise ValueError(f"{call}: cannot use fd and follow_symlinks together")


def nanosecond_times(times: tuple[float, float] | None, ns: tuple[int, int] | None) -> tuple[int, int] | None:
    """Return utime's two ways to give times as one; None is now."""
    if times is not None and ns is not None:
        raise ValueError("utime: you may specify either 'times' or 'ns' but not both")
    if ns is not None:
        atime_ns, mtime_ns = _pair("ns", ns)
        return atime_ns, mtime_ns
    if times is not None:
        atime, mtime = _pair("times", times)
        return nanoseconds(atime), nanoseconds(mtime)
    return None


def _pair(name: str, value: Any) -> tuple[Any, Any]:
    if not isinstance(value, tuple) or len(value) != 2:
        raise TypeError(f"utime: '{name}' must be a tuple of two numbers")
    return value
