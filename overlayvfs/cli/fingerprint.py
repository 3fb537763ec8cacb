"""A hash of a file or of a whole tree on the host: what proves that nothing was touched.

It reads through `os` alone, so it sees what is there and not what an overlay makes of it.
"""

import hashlib
import os
import stat
from collections.abc import Iterator
from typing import Any

LEFT_OUT = frozenset({"__pycache__", "site-packages", "dist-packages"})
"""Directories not looked into: Python itself may write to the first at any time, and the others can be huge."""


def fingerprint(root: str) -> str:
    """Return the SHA-256 of every path, mode, size, mtime and byte from `root` down, less the directories LEFT_OUT."""
    digest = hashlib.sha256()
    for path in (root, *paths(os, root)):
        st = os.lstat(path)
        digest.update(os.fsencode(f"{path}\0{st.st_mode}\0"))
        if stat.S_ISREG(st.st_mode):
            digest.update(f"{st.st_size}\0{st.st_mtime_ns}\0".encode())
            with open(path, "rb") as file:
                while chunk := file.read(1 << 20):
                    digest.update(chunk)
    return digest.hexdigest()


def paths(tree: Any, root: str) -> Iterator[str]:
    """Yield every path below `root` but those in LEFT_OUT, a directory before what it holds, names sorted.

    `tree` is the `os` module or what has its shape. Nothing if `root` is no directory.
    """
    if not stat.S_ISDIR(tree.lstat(root).st_mode):
        return
    for name in sorted(tree.listdir(root)):
        if name not in LEFT_OUT:
            path = f"{root.rstrip('/')}/{name}"
            yield path
            yield from paths(tree, path)
