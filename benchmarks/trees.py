"""The same tree for every contender: a dict from path to contents is the model, and what each tree is made from."""

import posixpath
from collections.abc import Mapping
from pathlib import Path

import fs.memoryfs
from fs.base import FS

import overlayvfs

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


def spread(count: int, directories: int, data: bytes = b"x" * 100) -> dict[str, bytes]:
    """Return `count` files in `directories` directories: /d0003/f0042.txt."""
    return {f"/d{number % directories:04}/f{number:05}.txt": data for number in range(count)}
