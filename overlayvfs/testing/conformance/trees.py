"""Literal trees: what a conformance test asks a layer to hold, and what it then reads back.

A tree is a dict from path to node, parents before children. A `str` is a regular file's text; the rest
have a word each: `directory()`, `symlink("t")`, `fifo()`, `device(rdev)`, `whiteout()`, `hard_link("/f")`.
"""

import errno
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest

from overlayvfs.layers.base import Handle, Layer, UpperLayer

WHEN = 1_600_000_000_000_000_000
"""Every literal node's mtime unless it says otherwise: even seconds, as the coarsest formats keep (ns)."""


@dataclass(frozen=True, slots=True)
class Node:
    """One object to be made; `mode` is the full st_mode, `mtime_ns` in nanoseconds."""

    mode: int
    data: bytes = b""
    target: str = ""
    rdev: int = 0
    uid: int = 0
    gid: int = 0
    mtime_ns: int = WHEN
    xattrs: Mapping[str, bytes] = field(default_factory=dict)
    link_to: str | None = None
    """Set: another name of the object at that path, and nothing else of this node counts."""


Tree = Mapping[str, "Node | str"]


def node(value: "Node | str") -> Node:
    """Return a tree's value as a Node: text is a regular file of mode 0644."""
    return Node(stat.S_IFREG | 0o644, value.encode()) if isinstance(value, str) else value


def file(
    text: str = "", mode: int = 0o644, *, uid: int = 0, gid: int = 0, xattrs: Mapping[str, bytes] | None = None
) -> Node:
    """Return a regular file with permission bits `mode`."""
    return Node(stat.S_IFREG | mode, text.encode(), uid=uid, gid=gid, xattrs=xattrs or {})


def directory(mode: int = 0o755, *, uid: int = 0, gid: int = 0, xattrs: Mapping[str, bytes] | None = None) -> Node:
    """Return a directory with permission bits `mode`."""
    return Node(stat.S_IFDIR | mode, uid=uid, gid=gid, xattrs=xattrs or {})


def symlink(target: str) -> Node:
    """Return a symlink to `target`."""
    return Node(stat.S_IFLNK | 0o777, target=target)


def fifo() -> Node:
    """Return a named pipe."""
    return Node(stat.S_IFIFO | 0o644)


def device(rdev: int) -> Node:
    """Return a character device."""
    return Node(stat.S_IFCHR | 0o600, rdev=rdev)


def whiteout() -> Node:
    """Return a whiteout as the kernel makes it: character device 0/0 of mode 0."""
    return Node(stat.S_IFCHR)


def hard_link(path: str) -> Node:
    """Return another name of the object at `path`."""
    return Node(0, link_to=path)


def holds(layer: Layer, value: "Node | str") -> bool:
    """Tell whether `layer` claims to be able to hold this kind of object (whiteouts: always, in some spelling)."""
    one = node(value)
    caps = layer.capabilities
    if one.link_to is not None:
        return caps.hard_links
    if stat.S_ISLNK(one.mode):
        return caps.symlinks
    if stat.S_ISREG(one.mode) or stat.S_ISDIR(one.mode) or (stat.S_ISCHR(one.mode) and one.rdev == 0):
        return True
    return caps.devices


def fill(layer: UpperLayer, tree: Tree) -> None:
    """Make `tree` in an upper through its own verbs, leaving out what it claims not to hold."""
    made = {path: node(value) for path, value in tree.items() if holds(layer, value)}
    for path, one in made.items():
        _make(layer, path, one)
    # Times last and children first: making a child stamps its directory.
    for path, one in reversed(made.items()):
        if one.link_to is None and layer.capabilities.times:
            layer.utime(path, one.mtime_ns, one.mtime_ns)


def _make(layer: UpperLayer, path: str, one: Node) -> None:
    permissions = stat.S_IMODE(one.mode)
    if one.link_to is not None:
        layer.link(one.link_to, path)
    elif stat.S_ISLNK(one.mode):
        layer.symlink(one.target, path, one.uid, one.gid)
    elif stat.S_ISDIR(one.mode):
        layer.mkdir(path, permissions, one.uid, one.gid)
    elif stat.S_ISREG(one.mode):
        with opened(layer.create(path, permissions, one.uid, one.gid)) as handle:
            handle.pwrite(one.data, 0)
            # Writing takes set-id bits away from whoever has no privilege (file_remove_privs).
            if permissions & 0o6000 and layer.capabilities.modes:
                handle.chmod(permissions)
    else:
        layer.mknod(path, one.mode, one.rdev, one.uid, one.gid)
    if layer.capabilities.xattrs:
        for name, value in one.xattrs.items():
            layer.setxattr(path, name, value)


def read_tree(layer: Layer, top: str = "") -> dict[str, str]:
    """Return everything a layer shows below `top`, one readable line a path, inode numbers and times left out."""
    shown: dict[str, str] = {}
    for entry in sorted(layer.listdir(top)):
        path = f"{top}/{entry.d_name}"
        shown[path] = _line(layer, path)
        if stat.S_ISDIR(layer.lstat(path).st_mode):
            shown |= read_tree(layer, path)
    return shown


def contents(layer: Layer) -> dict[str, bytes | None]:
    """Return all a layer's paths with what files hold, and None for whatever is no file."""
    files = {path: stat.S_ISREG(layer.lstat(path).st_mode) for path in read_tree(layer)}
    return {path: read(layer, path) if is_file else None for path, is_file in files.items()}


def _line(layer: Layer, path: str) -> str:
    st = layer.lstat(path)
    words = [stat.filemode(st.st_mode), f"{st.st_uid}:{st.st_gid}"]
    if stat.S_ISREG(st.st_mode):
        words += [f"n{st.st_nlink}", repr(read(layer, path))]
    elif stat.S_ISLNK(st.st_mode):
        words.append(repr(layer.readlink(path)))
    elif not stat.S_ISDIR(st.st_mode):
        words.append(f"rdev={st.st_rdev:#x}")
    words += [f"{name}={layer.getxattr(path, name)!r}" for name in sorted(layer.listxattr(path))]
    return " ".join(words)


def read(layer: Layer, path: str) -> bytes:
    """Return all of a regular file, asked for in one piece."""
    with opened(layer.open(path)) as handle:
        return handle.pread(layer.lstat(path).st_size + 1, 0)


@contextmanager
def opened(handle: Handle) -> Iterator[Handle]:
    """Close the handle at the end of the block."""
    try:
        yield handle
    finally:
        handle.close()


@contextmanager
def raises_errno(number: int) -> Iterator[pytest.ExceptionInfo[OSError]]:
    """Assert that the block raises OSError with this errno."""
    with pytest.raises(OSError) as caught:  # noqa: PT011 -- the errno is what is matched
        yield caught
    got = caught.value.errno
    assert got == number, f"expected {errno.errorcode[number]}, got {errno.errorcode.get(got or 0, got)}"


@contextmanager
def refused(layer: Layer, number: int) -> Iterator[None]:
    """Assert that the block is refused with this errno, by a message that names the layer."""
    with raises_errno(number) as caught:
        yield
    assert layer.name in str(caught.value), f"{caught.value} does not name the layer {layer.name}"
