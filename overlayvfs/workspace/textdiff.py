"""Changes as text: a unified diff, as diff -u and git spell it."""

import difflib
import stat
from collections.abc import Iterator, Sequence

from overlayvfs.abi import O_NOFOLLOW, O_RDONLY
from overlayvfs.engine.changes import Change
from overlayvfs.engine.overlay import Overlay
from overlayvfs.workspace.target import look

_CHUNK = 1 << 20
_NOWHERE = "/dev/null"


def unified_diff(now: Overlay, then: Overlay, changes: Sequence[Change]) -> str:
    """Return what changed in the contents of files and the targets of symlinks; "" if nothing did.

    What is no UTF-8 text, on either side, is said to be binary. Changes of attributes alone are left out, and so
    are directories and special files.
    """
    return "".join("".join(_one(now, then, change.path)) for change in changes)


def _one(now: Overlay, then: Overlay, path: str) -> Iterator[str]:
    old, new = _contents(then, path), _contents(now, path)
    if old == new:
        return
    names = (_NOWHERE if old is None else f"a{path}", _NOWHERE if new is None else f"b{path}")
    lines = _lines(old), _lines(new)
    if lines[0] is None or lines[1] is None:
        yield f"Binary files {names[0]} and {names[1]} differ\n"
        return
    for line in difflib.unified_diff(lines[0], lines[1], *names):
        yield line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n"


def _contents(tree: Overlay, path: str) -> bytes | None:
    st = look(tree, path)
    if st is None:
        return None
    if stat.S_ISLNK(st.st_mode):
        return tree.readlink(path).encode("utf-8", "surrogateescape")
    if not stat.S_ISREG(st.st_mode):
        return None
    file = tree.open(path, O_RDONLY | O_NOFOLLOW)
    try:
        return b"".join(iter(lambda: file.read(_CHUNK), b""))
    finally:
        file.close()


def _lines(data: bytes | None) -> list[str] | None:
    """Return the lines of a text, None if it is none."""
    if data is None:
        return []
    if b"\0" in data:
        return None
    try:
        # Only a newline ends a line: splitlines() knows a dozen other ways.
        lines = data.decode().split("\n")
    except UnicodeDecodeError:
        return None
    return [f"{line}\n" for line in lines[:-1]] + ([lines[-1]] if lines[-1] else [])
