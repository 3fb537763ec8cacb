"""What the lowers say: immutable facts, shared by forks and by overlays over the same stack (fs/overlayfs/namei.c).

Lowers don't change while mounted, so every answer is kept for good. The search follows ovl_lookup_layer()
and ovl_lookup_single() step by step; names in comments are the kernel's.
"""

import errno
import itertools
import stat
from collections.abc import Sequence
from dataclasses import dataclass, field

from overlayvfs.abi import Stat, is_whiteout, oserror
from overlayvfs.layers.base import Layer
from overlayvfs.marks import MarkNames, parse_redirect

Part = tuple[int, str]
"""A directory of one lower: the layer's number (1 is the highest) and the path in it."""

_INDEX_FROM = 3
"""Directories with this many parts get an index of names: three probes cost more than one dict lookup."""


@dataclass(slots=True, eq=False)
class LowerFile:
    """A name the lowers show that is no directory."""

    layer: int
    path: str
    stat: Stat
    data: "Part | None" = None
    """Where the data are if this is a metacopy file; None: here."""

    @property
    def data_part(self) -> Part:
        """Where the file's contents are."""
        return self.data or (self.layer, self.path)


@dataclass(slots=True, eq=False)
class LowerDir:
    """A directory the lowers show: `parts` are merged, the highest first."""

    parts: tuple[Part, ...]
    stat: Stat | None
    """Attributes of the highest part; None for the root, which nobody touched yet."""
    children: "dict[str, LowerDir | LowerFile | None]" = field(default_factory=dict)
    index: dict[str, list[Part]] | None = None
    """name → the parts that hold it, where every part could list its names cheaply."""
    unindexable: bool = False


Lower = LowerDir | LowerFile


@dataclass(slots=True)
class _Search:
    """The state of one lookup on its way down (struct ovl_lookup_data)."""

    name: str
    is_dir: bool = False
    metacopy: bool = False
    redirect: str | None = None
    stop: bool = False
    last: bool = False


class LowerStack:
    """The lowers of an overlay and all that was ever learnt about them."""

    def __init__(self, layers: Sequence[Layer], marks: MarkNames, *, follow: bool, metacopy: bool) -> None:
        self.layers = tuple(layers)
        self.marks = marks
        self.follow = follow
        self.metacopy = metacopy
        parts = tuple((number, "") for number in range(1, len(self.layers) + 1))
        self.root = LowerDir(parts, None)
        self._redirected: dict[tuple[tuple[Part, ...], str], Lower | None] = {}
        self._dir_numbers: dict[tuple[int, int], int] = {}
        self._next_dir_number = itertools.count(1)

    def layer(self, number: int) -> Layer:
        """Return lower `number`; 1 is the highest."""
        return self.layers[number - 1]

    def lookup(self, parent: LowerDir, name: str) -> Lower | None:
        """Return what `name` in `parent` is to the lowers alone, None if nothing (ovl_lookup).

        Raises:
            EINVAL: a malformed redirect.
            EACCES: a redirect with "." or "..".
            EPERM: a redirect and redirect_dir=nofollow, or a metacopy file and metacopy=off.
            EIO: a metacopy file without data below.

        """
        try:
            return parent.children[name]
        except KeyError:
            pass
        probe: Sequence[Part] = parent.parts
        if len(probe) >= _INDEX_FROM and not parent.unindexable:
            probe = self._parts_with(parent, name)
        found = self._find(parent.parts, probe, _Search(name)) if probe else None
        parent.children[name] = found
        return found

    def resolve(self, parent: LowerDir | None, redirect: str, *, metacopy: bool = False) -> Lower | None:
        """Return what an upper object with this redirect mark merges with or takes its data from.

        `metacopy`: the upper object is a file without data; otherwise it is a directory.
        """
        if redirect.startswith("/"):
            parts = self.root.parts
        elif parent is not None:
            parts = parent.parts
        else:
            return None
        key = (parts, redirect)
        if key not in self._redirected:
            self._redirected[key] = self._find(parts, parts, _Search(redirect, is_dir=not metacopy, metacopy=metacopy))
        return self._redirected[key]

    def positive(self, parent: LowerDir, name: str) -> bool:
        """Tell whether something shows at `name` in the lowers alone (ovl_lower_positive)."""
        if parent.children.get(name) is not None:
            return True
        for number, base in parent.parts:
            path = f"{base}/{name}"
            try:
                st = self.layer(number).lstat(path)
            except FileNotFoundError:
                continue
            return not self.is_whiteout(self.layer(number), path, st)
        return False

    def stat_of(self, lower: Lower) -> Stat:
        """Return the attributes of what shows (of a merged directory: its highest part's)."""
        if lower.stat is None:
            assert isinstance(lower, LowerDir)
            number, path = lower.parts[0]
            lower.stat = self.layer(number).lstat(path)
        return lower.stat

    def number_of_dir(self, layer: int, ino: int) -> int:
        """Return the overlay's own number for a lower directory (KB 14, separate file systems with xino=off)."""
        key = (layer, ino)
        number = self._dir_numbers.get(key)
        if number is None:
            # Overlays that share this hold no common lock: the first number stays.
            number = self._dir_numbers.setdefault(key, next(self._next_dir_number))
        return number

    def is_whiteout(self, layer: Layer, path: str, st: Stat) -> bool:
        """Tell whether an object is a whiteout in either form (ovl_path_is_whiteout, KB 3.1 and 3.17)."""
        if is_whiteout(st):
            return True
        if st.st_size or not stat.S_ISREG(st.st_mode):
            return False
        return get_mark(layer, path, self.marks.whiteout) is not None

    def _parts_with(self, parent: LowerDir, name: str) -> Sequence[Part]:
        """Return the parts that hold `name`, from an index made of their listings where those are cheap."""
        if parent.index is None:
            index: dict[str, list[Part]] = {}
            for part in parent.parts:
                names = self.layer(part[0]).names(part[1])
                if names is None:
                    parent.unindexable = True
                    return parent.parts
                for one in names:
                    index.setdefault(one, []).append(part)
            parent.index = index
        return parent.index.get(name, ())

    def _find(self, parts: Sequence[Part], probe: Sequence[Part], search: _Search) -> Lower | None:
        """Walk down `parts` (the loop of ovl_lookup); `probe` are those of them known to hold the name."""
        upper_metacopy, dir_only = search.metacopy, search.is_dir
        name = search.name
        found: list[tuple[int, str, Stat]] = []
        at = 0
        while at < len(probe):
            number, base = probe[at]
            at += 1
            search.last = number == (len(self.layers) if self.follow else parts[-1][0])
            this = self._look_in_layer(number, base, search)
            if this is not None:
                self._check_allowed(search, upper_metacopy, number, this[0])
                # Only the topmost of several metacopy files counts, and the data at the end of the chain.
                if not (search.metacopy and found):
                    found.append((number, *this))
            if search.stop:
                break
            if search.name != name:
                # From here on another name counts, so the parts known to hold the old one say nothing.
                name = search.name
                probe = parts = self.root.parts if name.startswith("/") else parts
                at = sum(1 for part in parts if part[0] <= number)
        if search.metacopy or (upper_metacopy and not found):
            raise oserror(errno.EIO, reason="metacopy file without data in the lowers")
        if not found:
            return None
        number, path, st = found[0]
        if stat.S_ISDIR(st.st_mode):
            return LowerDir(tuple((n, p) for n, p, _ in found), st)
        if dir_only:
            return None
        return LowerFile(number, path, st, None if len(found) == 1 else found[-1][:2])

    def _check_allowed(self, search: _Search, upper_metacopy: bool, number: int, path: str) -> None:
        """Raise EPERM for marks the options forbid to follow."""
        if (upper_metacopy or search.metacopy) and not self.metacopy:
            raise self._refuse(errno.EPERM, number, path, "is a metacopy file and metacopy=off")
        if search.redirect and not self.follow and not search.stop:
            raise self._refuse(errno.EPERM, number, path, "has a redirect and redirect_dir=nofollow")

    def _refuse(self, number: int, layer: int, path: str, why: str) -> OSError:
        return oserror(number, reason=f"{path} in lower {self.layer(layer).name} {why}")

    def _look_in_layer(self, number: int, base: str, search: _Search) -> tuple[str, Stat] | None:
        """Look up a name, or an absolute redirect component by component, in one layer (ovl_lookup_layer)."""
        name = search.name
        if not name.startswith("/"):
            return self._look_up_single(number, f"{base}/{name}", "", "", search)
        path, remaining = "", name[1:]
        while True:
            component, slash, tail = remaining.partition("/")
            # A redirect found on the way has changed the name before `remaining`, for the layers below.
            prefix = search.name[: len(search.name) - len(remaining)]
            this = self._look_up_single(number, f"{path}/{component}", prefix, slash + tail, search)
            if this is None or not slash:
                return this
            if not stat.S_ISDIR(this[1].st_mode):
                return None
            path, remaining = this[0], tail

    def _look_up_single(
        self, number: int, path: str, prefix: str, rest: str, search: _Search
    ) -> tuple[str, Stat] | None:
        """Look at one object and decide what the layers below still may add (ovl_lookup_single)."""
        if path.endswith(("/.", "/..")):
            raise oserror(errno.EACCES, reason=f"redirect {search.name!r} climbs")
        layer = self.layer(number)
        try:
            st = layer.lstat(path)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENAMETOOLONG):
                return None
            raise
        if self.is_whiteout(layer, path, st):
            search.stop = True
            return None
        is_last = not rest
        if is_last and search.metacopy and not stat.S_ISREG(st.st_mode):
            search.stop = True
            return None
        if not stat.S_ISDIR(st.st_mode):
            if search.is_dir or not is_last:
                search.stop = True
                return None
            search.metacopy = stat.S_ISREG(st.st_mode) and get_mark(layer, path, self.marks.metacopy) is not None
            search.stop = not search.metacopy
            if search.stop or search.last:
                return path, st
        else:
            if is_last:
                search.is_dir = True
            if search.last:
                return path, st
            if get_mark(layer, path, self.marks.opaque) == b"y":
                search.stop = True
                return path, st
        self._take_redirect(layer, path, prefix, rest, search)
        return path, st

    def _take_redirect(self, layer: Layer, path: str, prefix: str, rest: str, search: _Search) -> None:
        """Let a redirect mark name the place in the layers below (ovl_check_redirect)."""
        value = get_mark(layer, path, self.marks.redirect)
        if value is None:
            return
        redirect = parse_redirect(value)
        if redirect.startswith("/"):
            # An opaque ancestor on an absolute path no longer matters: the search goes on elsewhere.
            search.stop = False
        else:
            redirect = prefix + redirect
        search.redirect = search.name = redirect + rest


def get_mark(layer: Layer, path: str, name: str) -> bytes | None:
    """Return a mark's value, None where there is none or the layer can hold none."""
    try:
        return layer.getxattr(path, name)
    except OSError as error:
        if error.errno in (errno.ENODATA, errno.EOPNOTSUPP):
            return None
        raise
