"""How a plain PyFilesystem holds marks: OCI's `.wh.` names (image-spec, layer.md, "Whiteouts"), and nothing else.

    /d/.wh.x             a whiteout /d/x
    /d/.wh..wh..opq      /d is opaque
    /.wh..wh..work       WORK; names starting ".wh..wh." are nobody's, so this hides nothing and nobody can ask for it

Where both x and .wh.x are there, x shows: it hides what is below just as well, and it is what makes a
whiteout that is put in place before the object goes, or taken away after it came, change nothing by itself.
"""

import errno
from collections.abc import Iterable
from typing import Final, TypeVar

from overlayvfs.abi import oserror
from overlayvfs.layers.base import WORK
from overlayvfs.marks import TRUSTED, USER, WH_OPAQUE, WH_PREFIX

RESERVED: Final = WH_PREFIX + WH_PREFIX
"""What names start with that are neither a caller's nor the whiteout of a caller's."""

STORED_WORK: Final = f"/{RESERVED}.work"

OPAQUE: Final = (USER.opaque, TRUSTED.opaque)

_T = TypeVar("_T")


def stored(path: str) -> str:
    """Return where the backend keeps the object at a layer's path.

    Raises:
        ENOENT: a component is a mark, which is no name (or INDEX, for which there is no place).

    """
    if path == WORK or path.startswith(f"{WORK}/"):
        head, tail = STORED_WORK, path[len(WORK) :]
    else:
        head, tail = "", path
    if f"/{WH_PREFIX}" in tail or "\0" in tail:
        raise oserror(errno.ENOENT, path)
    return head + tail or "/"


def is_reserved(path: str) -> bool:
    """Tell whether the last component could not be told from a mark."""
    return path.rpartition("/")[2].startswith(WH_PREFIX)


def whiteout_of(stored_path: str) -> str:
    """Return where the whiteout of a name is."""
    parent, _, name = stored_path.rpartition("/")
    return f"{parent}/{WH_PREFIX}{name}"


def opaque_in(stored_dir: str) -> str:
    """Return where a directory's opaque mark is."""
    return f"{stored_dir.rstrip('/')}/{WH_OPAQUE}"


def sorted_out(entries: Iterable[tuple[str, _T]]) -> tuple[dict[str, _T], dict[str, _T]]:
    """Return a backend's listing as the objects in it and, by the names they stand for, the whiteouts that show."""
    objects: dict[str, _T] = {}
    whiteouts: dict[str, _T] = {}
    for name, value in entries:
        if not name.startswith(WH_PREFIX):
            objects[name] = value
        elif not name.startswith(RESERVED) and name != WH_PREFIX:
            whiteouts[name[len(WH_PREFIX) :]] = value
    return objects, {name: value for name, value in whiteouts.items() if name not in objects}
