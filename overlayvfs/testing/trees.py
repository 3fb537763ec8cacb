"""Literal trees: what a layer holds, written down as a dict.

    {"/d/f": "text", "/d/g": file("text", mode=0o600), "/empty/": DIR, "/gone": WHITEOUT}

A key is an absolute path; a trailing slash is a reminder for the reader that the value is a directory. Missing parents
are plain directories. Everything built has old time stamps, so that a later time stamp shows as fresh. `build` makes a
tree through anything shaped like the os module; `snapshots.capture` reads one back, and `literal` of that equals what
was built: trees are compared by `==` and print as they would be typed.
"""

import errno
import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Final, TypedDict, Unpack

OLD: Final = 1_000_000_000_000_000_000
"""The time stamp of everything `build` makes unless told otherwise: September 2001, in nanoseconds."""

FRESH: Final = 1_600_000_000_000_000_000
"""Time stamps from here on were made by the operations under test."""

HANDLE: Final = b"<file handle>"
"""Stands for any real file handle in an origin mark: handles differ between mounts, their presence counts."""


class Unsupported(Exception):
    """What a test asks for can't be had on this body or machine; the pytest plugin makes it a skip with this reason."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One object of a tree; `mode` is the 12 permission bits, `marks` the overlay's attributes by their short names."""

    DEFAULT_MODE: ClassVar[int] = 0o644
    CALL: ClassVar[str] = ""

    mode: int = -1
    uid: int = 0
    gid: int = 0
    mtime_ns: int = OLD
    xattrs: Mapping[str, bytes] = field(default_factory=dict)
    marks: Mapping[str, bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Fill in the kind's ordinary mode, so that two spellings of one object are equal."""
        if self.mode == -1:
            object.__setattr__(self, "mode", self.DEFAULT_MODE)

    def _leading(self) -> list[str]:
        """Return the positional arguments of the helper call that spells this node."""
        return []

    def __repr__(self) -> str:
        """Return the helper call that makes an equal node: it can be pasted into a test."""
        parts = self._leading()
        if self.mode != self.DEFAULT_MODE:
            parts.append(f"mode=0o{self.mode:o}")
        parts += [f"{name}={getattr(self, name)}" for name in ("uid", "gid") if getattr(self, name)]
        if self.mtime_ns != OLD:
            parts.append(f"mtime_ns={self.mtime_ns}")
        if self.xattrs:
            parts.append(f"xattrs={dict(self.xattrs)!r}")
        parts += _marks_source(self.marks)
        return f"{self.CALL}({', '.join(parts)})"

    def is_plain(self) -> bool:
        """Tell whether nothing but the kind (and contents) distinguishes this node from a default one."""
        shown = {item.name for item in fields(Node)}
        return all(getattr(self, name) == getattr(type(self)(), name) for name in shown)


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class File(Node):
    """A regular file."""

    CALL: ClassVar[str] = "file"
    data: bytes = b""

    def _leading(self) -> list[str]:
        return [repr(text_or_bytes(self.data))] if self.data else []


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Directory(Node):
    """A directory; its entries are the tree's longer paths."""

    DEFAULT_MODE: ClassVar[int] = 0o755
    CALL: ClassVar[str] = "directory"

    def __repr__(self) -> str:
        if self.is_plain():
            return "DIR"
        return Node.__repr__(self)


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Symlink(Node):
    """A symbolic link."""

    DEFAULT_MODE: ClassVar[int] = 0o777
    CALL: ClassVar[str] = "symlink"
    target: str = "target"

    def _leading(self) -> list[str]:
        return [repr(self.target)]


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Special(Node):
    """A device node, fifo or socket; `kind` is the S_IFMT part of its mode."""

    CALL: ClassVar[str] = "device"
    kind: int = stat.S_IFIFO
    rdev: int = 0

    def _leading(self) -> list[str]:
        return [_KIND_NAMES[self.kind], *([f"0x{self.rdev:x}"] if self.rdev else [])]

    def __repr__(self) -> str:
        text = Node.__repr__(self)
        return text.replace("device(stat.S_IFIFO", "fifo(").replace("(, ", "(")


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Whiteout(Node):
    """A character device 0/0 (overlayfs.rst, "whiteouts and opaque directories")."""

    DEFAULT_MODE: ClassVar[int] = 0
    CALL: ClassVar[str] = "whiteout"

    def __repr__(self) -> str:
        return "WHITEOUT" if self.is_plain() else Node.__repr__(self)


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Hardlink(Node):
    """Another name of the object at `other`, an absolute path of the same tree."""

    CALL: ClassVar[str] = "hardlink"
    other: str = ""

    def _leading(self) -> list[str]:
        return [repr(self.other)]


Tree = Mapping[str, str | bytes | Node]

_KIND_NAMES: Final = {
    stat.S_IFCHR: "stat.S_IFCHR",
    stat.S_IFBLK: "stat.S_IFBLK",
    stat.S_IFIFO: "stat.S_IFIFO",
    stat.S_IFSOCK: "stat.S_IFSOCK",
}


class Attributes(TypedDict, total=False):
    """What every helper takes beside the contents: a node's attributes, and shorthands for the common marks.

    `opaque` and `redirect` (overlayfs.rst, "whiteouts and opaque directories", "renaming directories"), `metacopy`
    ("Metadata only copy up"); `origin` can be expected, not built: it stands for any file handle.
    """

    mode: int
    uid: int
    gid: int
    mtime_ns: int
    xattrs: Mapping[str, bytes]
    marks: Mapping[str, bytes]
    opaque: bool
    redirect: str
    metacopy: bool
    origin: bool


def _spelt_out(attributes: Attributes) -> dict[str, Any]:
    """Return `attributes` as fields of a Node: the shorthands become marks."""
    known: dict[str, Any] = dict(attributes)
    marks = dict(known.pop("marks", {}))
    marks |= {name: value for name, value in _SHORTHANDS.items() if known.pop(name, False)}
    if "redirect" in known:
        marks["redirect"] = os.fsencode(known.pop("redirect"))
    return {**known, "marks": marks}


def _marks_source(marks: Mapping[str, bytes]) -> list[str]:
    """Return marks as keyword arguments of a helper, by shorthands where these say all."""
    parts = [f"{name}=True" for name, value in _SHORTHANDS.items() if marks.get(name) == value]
    if "redirect" in marks:
        parts.append(f"redirect={os.fsdecode(marks['redirect'])!r}")
    others = {name: value for name, value in marks.items() if name != "redirect" and _SHORTHANDS.get(name) != value}
    return parts + ([f"marks={others!r}"] if others else [])


_SHORTHANDS: Final[Mapping[str, bytes]] = {"opaque": b"y", "metacopy": b"", "origin": HANDLE}


def file(data: str | bytes = b"", **attributes: Unpack[Attributes]) -> File:
    """Return a regular file."""
    return File(data=as_bytes(data), **_spelt_out(attributes))


def directory(**attributes: Unpack[Attributes]) -> Directory:
    """Return a directory."""
    return Directory(**_spelt_out(attributes))


def symlink(target: str, **attributes: Unpack[Attributes]) -> Symlink:
    """Return a symbolic link to `target`."""
    return Symlink(target=target, **_spelt_out(attributes))


def hardlink(other: str) -> Hardlink:
    """Return a further name of the object that `other` names in the same tree."""
    return Hardlink(other=other)


def fifo(**attributes: Unpack[Attributes]) -> Special:
    """Return a named pipe."""
    return Special(kind=stat.S_IFIFO, **_spelt_out(attributes))


def device(kind: int = stat.S_IFCHR, rdev: int = 0x0103, **attributes: Unpack[Attributes]) -> Special:
    """Return a device node (by default the null device, 1/3) or, given its kind, a socket."""
    has_number = stat.S_ISCHR(kind) or stat.S_ISBLK(kind)
    return Special(kind=kind, rdev=rdev if has_number else 0, **_spelt_out(attributes))


def whiteout(**attributes: Unpack[Attributes]) -> Whiteout:
    """Return a whiteout as somebody may have made it by hand: of any mode."""
    return Whiteout(**_spelt_out(attributes))


DIR: Final = Directory()
WHITEOUT: Final = Whiteout()


def as_bytes(data: str | bytes) -> bytes:
    """Return contents as bytes; text is UTF-8."""
    return data.encode("utf-8", "surrogateescape") if isinstance(data, str) else data


def text_or_bytes(data: bytes) -> str | bytes:
    """Return contents as the text they are, as bytes where they are none."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return data
    return text if text.isprintable() or text.replace("\n", "").isprintable() else data


def normal(tree: Tree) -> dict[str, Node]:
    """Return `tree` with every parent present, every value a Node, no trailing slashes, parents before children."""
    nodes: dict[str, Node] = {"": DIR}
    for key, value in tree.items():
        path = key.rstrip("/")
        if path and not path.startswith("/"):
            raise ValueError(f"a tree's paths are absolute: {key!r}")
        nodes[path] = value if isinstance(value, Node) else File(data=as_bytes(value))
        for parent in _parents(path):
            nodes.setdefault(parent, DIR)
    # "/a" < "/a/b" but also "/a-" < "/a/b": compared by component a directory always precedes what is in it.
    return {path: nodes[path] for path in sorted(nodes, key=lambda path: path.split("/"))}


def literal(nodes: Mapping[str, Node]) -> dict[str, str | bytes | Node]:
    """Return `nodes` (as from `normal`) as one would type them: text for plain files, no implied directories."""
    crowded = {path.rpartition("/")[0] for path in nodes if path}
    tree: dict[str, str | bytes | Node] = {}
    for path, node in nodes.items():
        if isinstance(node, Directory):
            if node.is_plain() and (path in crowded or not path):
                continue
            tree[path + "/"] = node
        elif isinstance(node, File) and File(data=node.data) == node:
            tree[path] = text_or_bytes(node.data)
        else:
            tree[path] = node
    return tree


def build(osmod: Any, root: str, tree: Tree, *, prefix: str) -> None:
    """Make `tree` below the existing directory `root` through `osmod`; marks are spelt `prefix` + short name.

    Raises:
        Unsupported: an owner, device node or attribute that this process may not make here.

    """
    nodes = normal(tree)
    # Hard links last: what they name may sort after them.
    for path, node in sorted(nodes.items(), key=lambda item: isinstance(item[1], Hardlink)):
        try:
            _make(osmod, root, path, node, prefix)
        except PermissionError as error:
            raise Unsupported(f"can't build {path!r} as {node!r} here: {error}") from error
    # Deepest first: making an entry changes its parent's times.
    for path in reversed(nodes):
        node = nodes[path]
        if not isinstance(node, Hardlink):
            osmod.utime(root + path or "/", ns=(node.mtime_ns, node.mtime_ns), follow_symlinks=False)


def _parents(path: str) -> Iterator[str]:
    while path:
        path = path.rpartition("/")[0]
        yield path


def _make(osmod: Any, root: str, path: str, node: Node, prefix: str) -> None:
    where = root + path or "/"
    # The mode as umask 022 leaves it: asking again is needed only for the unusual ones.
    made_mode = node.mode & 0o755
    match node:
        case Hardlink():
            osmod.link(root + node.other, where, follow_symlinks=False)
            return
        case File():
            made_mode = _make_file(osmod, where, node)
        case Directory() if not path:
            made_mode = -1
        case Directory():
            osmod.mkdir(where, made_mode)
        case Symlink():
            osmod.symlink(node.target, where)
            made_mode = node.mode
        case Whiteout():
            osmod.mknod(where, stat.S_IFCHR, 0)
            made_mode = 0
        case Special():
            osmod.mknod(where, node.kind | made_mode, node.rdev)
    if node.uid or node.gid:
        _chown(osmod, where, node)
        made_mode = -1 if not isinstance(node, Symlink) else made_mode
    if node.mode != made_mode:
        osmod.chmod(where, node.mode)
    for name, value in node.xattrs.items():
        osmod.setxattr(where, name, value, follow_symlinks=False)
    for name, value in node.marks.items():
        osmod.setxattr(where, prefix + name, value, follow_symlinks=False)


def _chown(osmod: Any, where: str, node: Node) -> None:
    try:
        osmod.chown(where, node.uid, node.gid, follow_symlinks=False)
    except OSError as error:
        # What a user namespace says of an owner that it does not map.
        if error.errno == errno.EINVAL:
            raise Unsupported(f"no owner {node.uid}:{node.gid} in this user namespace") from error
        raise


def _make_file(osmod: Any, where: str, node: File) -> int:
    mode = node.mode & 0o755
    fd = osmod.open(where, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        if node.data:
            osmod.write(fd, node.data)
    finally:
        osmod.close(fd)
    return mode
