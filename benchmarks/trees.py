"""The same tree for every contender: a dict from path to contents is the model, and what each tree is made from."""

import io
import posixpath
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import fs.memoryfs
from fs.base import FS

import overlayvfs

MOUNTED = "/m"
"""Where sandfs shows files: it mounts nothing at its root."""

Files = Mapping[str, bytes]
"""Absolute paths → contents; directories are those the paths need."""


def fill(tree: FS, files: Files) -> None:
    """Write `files` into a PyFilesystem."""
    made = set()
    for path, data in files.items():
        parent = posixpath.dirname(path)
        if parent not in made:
            tree.makedirs(parent, recreate=True)
            made.add(parent)
        tree.writebytes(path, data)


def ours(files: Files) -> overlayvfs.MemoryFS:
    """Return this library's memory file system with `files`."""
    tree = overlayvfs.MemoryFS()
    fill(tree, files)
    return tree


def plain(files: Files) -> fs.memoryfs.MemoryFS:
    """Return PyFilesystem's own memory file system with `files`."""
    tree = fs.memoryfs.MemoryFS()
    fill(tree, files)
    return tree


def on_host(place: Path, files: Files) -> Path:
    """Write `files` below a directory of the host and return it."""
    for path, data in files.items():
        target = place / path[1:]
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
    return place


def in_sandfs(sandfs: Any, files: Files) -> Any:
    """Return a sandfs workspace over `files` below MOUNTED."""
    workspace = sandfs.Workspace()
    workspace.mount(MOUNTED, sandfs.MemorySource({path[1:]: data for path, data in files.items()}))
    return workspace


def in_tar(place: Path, files: Files) -> Path:
    """Write `files` into a tar archive of the host and return its path."""
    place.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(place, "w") as archive:
        for path, data in files.items():
            member = tarfile.TarInfo(path[1:])
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return place


def spread(count: int, directories: int, data: bytes = b"x" * 100) -> dict[str, bytes]:
    """Return `count` files in `directories` directories: /d0003/f0042.txt."""
    return {f"/d{number % directories:04}/f{number:05}.txt": data for number in range(count)}
