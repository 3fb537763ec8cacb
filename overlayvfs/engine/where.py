"""Which layer shows a path, and why: every layer's part in it, told in words.

It asks layers what the walk of a lookup asks, and more: what is hidden is looked at too.
"""

import errno
import stat
from dataclasses import dataclass

from overlayvfs.abi import Stat
from overlayvfs.engine.changes import visible_attributes
from overlayvfs.engine.dentry import Dentry
from overlayvfs.engine.inode import is_metacopy, real
from overlayvfs.engine.lowers import Lower, LowerDir, LowerFile, get_mark, look
from overlayvfs.engine.mount import Mount
from overlayvfs.engine.resolve import Last, find_parent, last_component

_NOUNS = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "directory",
    stat.S_IFLNK: "symlink",
    stat.S_IFCHR: "character device",
    stat.S_IFBLK: "block device",
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
}


@dataclass(frozen=True, slots=True)
class Held:
    """What one layer has at, or for, a path."""

    layer: int
    """0 is the upper, 1 the highest lower."""
    name: str
    """What messages call the layer: the host's path, an FS's own name."""
    path: str
    """Where in the layer; "" is its root."""
    what: str
    """"file", "directory", "opaque directory", "whiteout", "symlink", "fifo"…"""
    shows: bool
    """It is (part of) what is seen at the path."""

    @property
    def role(self) -> str:
        """What the stack calls the layer: "the upper" or "lower 2"."""
        return role_of(self.layer)


@dataclass(frozen=True, slots=True)
class Where:
    """The layers' parts in one path."""

    path: str
    exists: bool
    metadata: Held | None
    """Whose attributes show."""
    data: Held | None
    """Whose contents show, of a regular file; differs from `metadata` after a metadata-only copy up."""
    layers: tuple[Held, ...]
    """All that have something there, the highest first, hidden ones included."""
    lost: tuple[str, ...]
    """What of the lower's attributes was left out at copy up, as the upper can't hold it."""
    explain: str
    """The same in a sentence."""


def role_of(layer: int) -> str:
    """Return what the stack calls a layer."""
    return "the upper" if layer == 0 else f"lower {layer}"


def where(mnt: Mount, path: str) -> Where:
    """Tell which layer shows `path` (a symlink itself) and why, or why nothing does.

    Raises:
        ENAMETOOLONG, ELOOP, EACCES: as a lookup; EIO, EPERM, EINVAL, ESTALE: what is there can't be looked up.

    """
    try:
        target = find_parent(mnt, path)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTDIR) or not path.strip("/"):
            raise
        return _below_nothing(mnt, path)
    dentry = last_component(mnt, target)
    if dentry is not None:
        parent, name = dentry.parent, dentry.name
    elif target.last is Last.NORM:
        parent, name = target.parent, target.name
    else:
        parent, name = None, ""
    return _Finding(mnt, parent, name, dentry).where()


def shown_by_lowers(mnt: Mount, path: str) -> tuple[int, ...]:
    """Return the numbers of the lowers that show what is at a plain path without the upper."""
    found = _lowers_have(mnt, path.rstrip("/"))
    if isinstance(found, LowerDir):
        return tuple(number for number, _ in found.parts)
    return () if found is None else (found.layer,)


def _below_nothing(mnt: Mount, path: str) -> Where:
    """Tell about a path below something that is no directory, or is not there."""
    above = where(mnt, path.rstrip("/").rpartition("/")[0] or "/")
    if above.exists and above.metadata is not None:
        why = f"{above.path} is a {above.metadata.what} in {above.metadata.role}"
    else:
        why = above.explain if above.path in above.explain else f"{above.path} is not there: {above.explain}"
    return Where(path, False, None, None, (), (), why)


class _Finding:
    """One run of `where`."""

    def __init__(self, mnt: Mount, parent: Dentry | None, name: str, dentry: Dentry | None) -> None:
        self._mnt = mnt
        self._parent = parent
        self._dentry = dentry
        self._path = f"{parent.path}/{name}" if parent is not None else ""
        self._base = _lowers_have(mnt, self._path)
        self._shown = self._showing()
        places = dict.fromkeys([*self._shown, *self._candidates(name)])
        held = (self._held(number, at) for number, at in places)
        self._layers = sorted((one for one in held if one is not None), key=lambda one: one.layer)

    def where(self) -> Where:
        """Return all that was found."""
        return Where(
            self._path or "/",
            self._dentry is not None,
            self._find(self._place_of_metadata()),
            self._find(self._place_of_data()),
            tuple(self._layers),
            tuple(self._lost()),
            self._explain(),
        )

    def _showing(self) -> list[tuple[int, str]]:
        """Return the places that are seen."""
        dentry = self._dentry
        if dentry is None:
            return []
        if not dentry.is_dir:
            return list(dict.fromkeys(one for one in (self._place_of_metadata(), self._place_of_data()) if one))
        places = [(0, dentry.path)] if dentry.has_upper else []
        return [*places, *(dentry.lower_dir.parts if dentry.lower_dir is not None else ())]

    def _candidates(self, name: str) -> list[tuple[int, str]]:
        """Return the places that could have been seen: by name in each layer of the parent, and in the lowers alone."""
        places = []
        parent = self._parent
        if parent is not None:
            places = [(0, self._path)] if parent.has_upper else []
            if parent.lower_dir is not None:
                places += [(number, f"{base}/{name}") for number, base in parent.lower_dir.parts]
        if isinstance(self._base, LowerDir):
            places += self._base.parts
        elif self._base is not None:
            places.append((self._base.layer, self._base.path))
        return places

    def _held(self, number: int, path: str) -> Held | None:
        layer = self._mnt.layer(number)
        st = look(layer, path)
        if st is None:
            return None
        what = _NOUNS[stat.S_IFMT(st.st_mode)]
        if self._mnt.is_whiteout(layer, path, st):
            what = "whiteout"
        elif what == "directory" and get_mark(layer, path, self._mnt.marks.opaque) == b"y":
            what = "opaque directory"
        return Held(number, layer.name, path, what, (number, path) in self._shown)

    def _place_of_metadata(self) -> tuple[int, str] | None:
        if self._dentry is None:
            return None
        layer, path = real(self._mnt, self._dentry)
        if layer is self._mnt.upper:
            return 0, path
        lower = self._dentry.lower
        return lower.parts[0] if isinstance(lower, LowerDir) else (self._mnt.lowers.layers.index(layer) + 1, path)

    def _place_of_data(self) -> tuple[int, str] | None:
        dentry = self._dentry
        if dentry is None or not dentry.is_file:
            return None
        place = self._place_of_metadata()
        lower = dentry.lower_file
        if lower is not None and (is_metacopy(self._mnt, dentry) or (place is not None and place[0] != 0)):
            return self._mnt.lowers.data_of(lower)
        return place

    def _find(self, place: tuple[int, str] | None) -> Held | None:
        return next((one for one in self._layers if (one.layer, one.path) == place), None)

    def _lost(self) -> list[str]:
        """Return what the upper could not take over from what the lowers have at this path."""
        dentry, upper, base = self._dentry, self._mnt.upper, self._base
        if dentry is None or upper is None or not dentry.has_upper or base is None:
            return []
        was = self._mnt.lowers.stat_of(base)
        if stat.S_IFMT(was.st_mode) != dentry.kind:
            return []
        now, can = upper.lstat(dentry.path), upper.capabilities
        number, path = base.parts[0] if isinstance(base, LowerDir) else (base.layer, base.path)
        facts = []
        if not can.owners and (now.st_uid, now.st_gid) != (was.st_uid, was.st_gid):
            facts.append(f"owner {was.st_uid}:{was.st_gid}")
        if not can.modes and stat.S_IMODE(now.st_mode) != stat.S_IMODE(was.st_mode):
            facts.append(f"mode {stat.S_IMODE(was.st_mode):04o}")
        if not can.xattrs:
            kept = visible_attributes(self._mnt, dentry)
            stored = self._mnt.layer(number).listxattr(path)
            names = {self._mnt.marks.unescape(name) for name in stored} - {None, *kept}
            facts += [f"attribute {name}" for name in sorted(str(name) for name in names)]
        return facts

    def _explain(self) -> str:
        hidden = [one for one in self._layers if not one.shows and one.what != "whiteout"]
        if self._dentry is None:
            return _sentence(self._why_nothing(), *(f"{one.role} has a {one.what}" for one in hidden))
        told = self._what_shows(self._dentry)
        behind = [f"it hides {one.role}'s {one.what}" for one in hidden if not self._is_original(one)]
        lost = self._lost()
        left_out = [f"{self._layers[0].name} could not take over {', '.join(lost)}"] if lost else []
        return _sentence(told, *behind, *left_out)

    def _why_nothing(self) -> str:
        for one in self._layers:
            if one.what == "whiteout":
                return f"deleted by a whiteout in {one.role}"
        if not self._layers:
            return "no layer has it"
        return f"the directory {self._hiding_directory()} in the upper hides it"

    def _hiding_directory(self) -> str:
        """Return the nearest directory that hides what the lowers have in it: opaque, new or moved there."""
        at = self._parent
        while at is not None and at.parent is not None:
            if at.opaque or at.redirect is not None or at.parent.lower_dir is not None:
                return at.path
            at = at.parent
        return "/"

    def _what_shows(self, dentry: Dentry) -> str:
        showing = [one for one in self._layers if one.shows]
        if dentry.is_dir:
            if len(showing) == 1:
                return f"{showing[0].role} has the directory"
            redirect = "" if dentry.redirect is None else f", where it is {dentry.redirect}"
            return f"merged from {_listed([one.role for one in showing])}{redirect}"
        metadata, data = self._find(self._place_of_metadata()), self._find(self._place_of_data())
        assert metadata is not None
        told = f"{metadata.role} has the {metadata.what}"
        if dentry.has_upper and (originals := [one for one in self._layers if self._is_original(one)]):
            told = f"{told}, copied up from {originals[0].role}"
        if data is not None and data != metadata:
            told = f"{told} without contents; these are in {data.role} at {data.path}"
        return told

    def _is_original(self, one: Held) -> bool:
        """Tell whether something hidden is what the upper's object was copied up from."""
        dentry = self._dentry
        if dentry is None or not dentry.has_upper or one.layer == 0 or dentry.is_dir:
            return False
        lower = dentry.lower_file
        st = look(self._mnt.layer(one.layer), one.path)
        return lower is not None and st is not None and _same_object(lower, one.layer, st)


def _same_object(lower: LowerFile, layer: int, st: Stat) -> bool:
    return (lower.layer, lower.stat.st_ino) == (layer, st.st_ino)


def _lowers_have(mnt: Mount, path: str) -> Lower | None:
    """Return what the lowers alone show at a path, None if nothing."""
    at: Lower | None = mnt.lowers.root if mnt.lowers.layers else None
    for name in path.split("/")[1:]:
        at = mnt.lowers.lookup(at, name) if isinstance(at, LowerDir) else None
    return at


def _listed(words: list[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def _sentence(*parts: str) -> str:
    return "; ".join(parts)
