"""What the lowers say: immutable facts, shared by forks and by overlays over the same stack (fs/overlayfs/namei.c).

Lowers don't change while mounted, so every answer is kept for good. The search follows ovl_lookup_layer()
and ovl_lookup_single() step by step; names in comments are the kernel's.
"""

import errno
import itertools
import stat
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from stat import S_IFDIR, S_IFREG
from typing import Literal

from overlayvfs.abi import Stat, is_whiteout, oserror
from overlayvfs.engine.contents import ContentCache
from overlayvfs.layers.base import Handle, Layer
from overlayvfs.marks import MarkNames, parse_redirect

_SAME = attrgetter("st_mode", "st_ino", "st_size", "st_mtime_ns", "st_ctime_ns")
"""What stays while nobody changes an object."""

Part = tuple[int, str]
"""A directory of one lower: the layer's number (1 is the highest) and the path in it."""

S_IFMT = 0o170000

_METACOPY_MIN = 4
"""Shortest metacopy mark that says anything (struct ovl_metacopy)."""

_INDEX_FROM = 3
"""Directories with this many parts get an index of names: three probes cost more than one dict lookup."""


@dataclass(slots=True, eq=False)
class LowerFile:
    """A name the lowers show that is no directory."""

    layer: int
    path: str
    stat: Stat
    data: "Part | None" = None
    """Where the data are if this is a metacopy file; None: here, or not looked for yet."""
    data_redirect: str | None = None
    """Where in the data-only layers the data are: looked up when they are first needed."""
    handle: bytes | None = None
    """The origin mark that led here, if one did; `path` is unknown then."""
    content: bytes | None = None
    """All of the file, if it was read whole and is remembered."""

    @property
    def is_metacopy(self) -> bool:
        """Whether the contents are elsewhere (overlayfs.rst, "Metadata only copy up")."""
        return self.data is not None or self.data_redirect is not None


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
    refusal: OSError | None = None
    """Why the search ended early: a mark further down that can't or may not be followed."""


Lower = LowerDir | LowerFile


@dataclass(slots=True)
class _Search:
    """The state of one lookup on its way down (struct ovl_lookup_data)."""

    name: str
    is_dir: bool = False
    metacopy: bool = False
    redirect: str | None = None
    absolute: bool = False
    """The mark read last was an absolute redirect."""
    stop: bool = False
    last: bool = False


class LowerStack:
    """The lowers of an overlay and all that was ever learnt about them.

    `layers` are the lowers, then the data-only ones (overlayfs.rst, "Data-only lower layers"): these hold contents
    that redirects of metacopy files lead to, and no name of theirs shows.
    """

    def __init__(
        self,
        lowers: Sequence[Layer],
        marks: MarkNames,
        *,
        follow: bool,
        metacopy: bool,
        data_only: Sequence[Layer] = (),
    ) -> None:
        self.layers = (*lowers, *data_only)
        self.marks = marks
        self.follow = follow
        self.metacopy = metacopy
        self.reads_redirects = follow or bool(data_only)
        parts = tuple((number, "") for number in range(1, len(lowers) + 1))
        self.root = LowerDir(parts, None)
        self._data_only = range(len(lowers) + 1, len(self.layers) + 1)
        self._redirected: dict[tuple[tuple[Part, ...], str, bool], Lower | None] = {}
        self._dir_numbers: dict[tuple[int, int], int] = {}
        # Far from the numbers of upper directories, which are shown on the same device.
        self._next_dir_number = itertools.count(1 << 32)
        # Whether all layers say at once that there is nothing.
        self._closely = [_look_closely(layer) for layer in self.layers]
        self._tell_absence = all(hasattr(layer, "look_closely") for layer in self.layers)
        self.contents = ContentCache()
        self.detect = False
        """Lowers may change against the rule: look again at each object in use."""

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

        What was found of a directory until then comes with `refusal` set and the error is the caller's to raise.
        """
        # An exception where nothing is known yet would take as long as one of the layers.
        known: Lower | Literal[False] | None = parent.children.get(name, False)
        if known is not False:
            return known
        probe: Sequence[Part] = parent.parts
        if len(probe) >= _INDEX_FROM and not parent.unindexable:
            probe = self._parts_with(parent, name)
        found: Lower | Literal[False] | None = self._find_simple(parent.parts, probe, name)
        if found is False:
            found = self._find(parent.parts, probe, _Search(name))
        if found is None and (parent.index is not None or self._tell_absence):
            # To keep what is asked again as quickly would take as much room as a name that is there.
            return None
        if not _is_refused(found):
            parent.children[name] = found
        return found

    def lookup_dir(self, parent: LowerDir, name: str) -> Lower | None:
        """Return what a directory of this name in the upper merges with; errors are as for lookup.

        Anything but a directory ends the search here, whatever its marks.
        """
        if not self._data_only:
            try:
                # Shared with those who ask for the lowers alone, and the same unless what is first is no directory.
                return self.lookup(parent, name)
            except OSError:
                pass
        return self.resolve(parent, name)

    def resolve(self, parent: LowerDir | None, redirect: str, *, metacopy: bool = False) -> Lower | None:
        """Return what an upper object with this redirect mark merges with or takes its data from.

        `metacopy`: the upper object is a file without data; otherwise it is a directory. Errors are as for lookup.
        """
        if redirect.startswith("/"):
            parts = self.root.parts
        elif parent is not None:
            parts = parent.parts
        else:
            return None
        key = (parts, redirect, metacopy)
        if key in self._redirected:
            return self._redirected[key]
        found = self._find(parts, parts, _Search(redirect, is_dir=not metacopy, metacopy=metacopy))
        if not _is_refused(found):
            self._redirected[key] = found
        return found

    def data_of(self, file: LowerFile) -> Part:
        """Return where a file's contents are; a data-only layer is searched at the first call (KB 12; lazy lookup).

        Raises:
            ENOENT: no data-only layer has a regular file there; the last one's answer counts.
            ELOOP, ENOTDIR: a symlink, or something else that is no directory, on the way.
            EXDEV: the redirect climbs out of the layer.

        """
        if file.data is None and file.data_redirect is not None:
            file.data = self._find_data(file.data_redirect)
        return file.data or (file.layer, file.path)

    def _find_data(self, redirect: str) -> Part:
        failure = oserror(errno.ENOENT)
        for number in self._data_only:
            try:
                return number, find_beneath(self.layer(number), redirect)
            except OSError as error:
                failure = error
        reason = f"no data-only layer holds the contents at {redirect}"
        raise oserror(failure.errno or errno.EIO, reason=reason) from failure

    def check_unchanged(self, lower: Lower) -> None:
        """Raise ESTALE if the object is not what it was when it was found."""
        if lower.stat is None:
            return
        number, path = lower.parts[0] if isinstance(lower, LowerDir) else (lower.layer, lower.path)
        layer = self.layer(number)
        now = look(layer, path)
        if now is None or _SAME(now) != _SAME(lower.stat):
            raise oserror(errno.ESTALE, reason=f"{path} in lower {layer.name} changed while it was mounted")

    def vanished(self) -> list[str]:
        """Return the paths of what was looked up and is there no more, or is of another kind: against the rule."""
        found = []
        pending: list[tuple[str, LowerDir]] = [("", self.root)]
        while pending:
            above, directory = pending.pop()
            for name, lower in list(directory.children.items()):
                if lower is None or lower.stat is None:
                    continue
                path = f"{above}/{name}"
                number, place = lower.parts[0] if isinstance(lower, LowerDir) else (lower.layer, lower.path)
                now = _look_below(self.layer(number), place)
                if now is None or stat.S_IFMT(now.st_mode) != stat.S_IFMT(lower.stat.st_mode):
                    found.append(path)
                elif isinstance(lower, LowerDir):
                    pending.append((path, lower))
        return sorted(found)

    def forget(self) -> None:
        """Forget what was looked up; who holds a part of it keeps that."""
        self.root = LowerDir(self.root.parts, self.root.stat)
        self._redirected.clear()

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

    def _find_simple(self, parts: Sequence[Part], probe: Sequence[Part], name: str) -> Lower | Literal[False] | None:
        """Return what `_find` would, in a third of the time, where no mark has a say; else False.

        That is nothing, a file without marks, and a directory with no layer below it to merge with.
        """
        for number, base in probe:
            path = f"{base}/{name}"
            st, xattrs = self._closely[number - 1](path)
            if st is None:
                continue
            layer = self.layers[number - 1]
            kind = st.st_mode & S_IFMT
            if kind == S_IFDIR:
                bottom = parts[-1] if not self.reads_redirects else self.root.parts[-1]
                return LowerDir(((number, path),), st) if number == bottom[0] and not self._data_only else False
            if kind != S_IFREG or _mark(layer, path, xattrs, self.marks.metacopy) is not None:
                return False
            if st.st_size == 0 and _mark(layer, path, xattrs, self.marks.whiteout) is not None:
                return False
            return LowerFile(number, path, st)
        return None

    def _find(self, parts: Sequence[Part], probe: Sequence[Part], search: _Search) -> Lower | None:
        """Walk down `parts` (the loop of ovl_lookup); `probe` are those of them known to hold the name."""
        upper_metacopy = search.metacopy
        found: list[tuple[int, str, Stat]] = []
        try:
            self._walk_down(parts, probe, search, found)
            if self._has_data_elsewhere(search, found):
                number, path, st = found[0]
                return LowerFile(number, path, st, data_redirect=search.redirect)
            self._check_follow(search)
        except OSError as error:
            if not (search.is_dir and found):
                raise
            return LowerDir(tuple((n, p) for n, p, _ in found), found[0][2], refusal=error)
        if search.metacopy or (upper_metacopy and not found):
            raise oserror(errno.EIO, reason="metacopy file without data in the lowers")
        if not found:
            return None
        number, path, st = found[0]
        if search.is_dir:
            return LowerDir(tuple((n, p) for n, p, _ in found), st)
        return LowerFile(number, path, st, None if len(found) == 1 else found[-1][:2])

    def _walk_down(
        self,
        parts: Sequence[Part],
        probe: Sequence[Part],
        search: _Search,
        found: list[tuple[int, str, Stat]],
    ) -> None:
        """Ask each of `probe` in turn, or of other parts once a redirect says so, until one ends the search."""
        name, bottom = search.name, self.root.parts[-1][0]
        at = 0
        while at < len(probe) and not search.stop:
            self._check_follow(search)
            number, base = probe[at]
            at += 1
            if not self.reads_redirects:
                search.last = number == parts[-1][0]
            elif search.is_dir or not self._data_only:
                search.last = number == bottom
            this = self._look_in_layer(number, base, search)
            # Only the topmost of several metacopy files counts, and the data at the end of the chain.
            if this is not None and not (search.metacopy and found):
                found.append((number, *this))
            if search.name != name:
                # From here on another name counts, so the parts known to hold the old one say nothing.
                name = search.name
                probe = parts = self.root.parts if name.startswith("/") else parts
                at = sum(1 for part in parts if part[0] <= number)

    def _has_data_elsewhere(self, search: _Search, found: list[tuple[int, str, Stat]]) -> bool:
        """Tell whether a metacopy file's data are left to the data-only layers: no option is needed for that."""
        return search.metacopy and bool(found) and bool(self._data_only) and search.absolute

    def _check_follow(self, search: _Search) -> None:
        """Raise EPERM for marks met so far that the options forbid to follow (ovl_check_follow_redirect)."""
        if search.metacopy and not self.metacopy:
            raise oserror(errno.EPERM, reason=f"{search.name} is a metacopy file and metacopy=off")
        if search.redirect is not None and not self.follow:
            raise oserror(errno.EPERM, reason=f"a redirect leads to {search.redirect} and redirect_dir=nofollow")

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
        if path.endswith(("/.", "/..", "/")):
            raise oserror(errno.EACCES, reason=f"redirect {search.name!r} climbs, or leads to no name")
        layer = self.layer(number)
        st = look(layer, path)
        if st is None:
            return None
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
            search.metacopy = stat.S_ISREG(st.st_mode) and has_metacopy(layer, path, self.marks.metacopy)
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
        search.absolute = False
        value = get_mark(layer, path, self.marks.redirect)
        if value is None:
            return
        redirect = parse_redirect(value)
        if redirect.startswith("/"):
            # An opaque ancestor on an absolute path no longer matters: the search goes on elsewhere.
            search.stop, search.absolute = False, True
        else:
            redirect = prefix + redirect
        search.redirect = search.name = redirect + rest


def _is_refused(found: Lower | None) -> bool:
    return isinstance(found, LowerDir) and found.refusal is not None


def find_beneath(layer: Layer, path: str) -> str:
    """Return the way to the regular file at `path` from the layer's root, through no symlink (RESOLVE_BENEATH).

    Raises:
        ENOENT: nothing there, or no regular file.
        ENOTDIR, ELOOP: a file, or a symlink, on the way.
        EXDEV: ".." above the root.

    """
    at: list[str] = []
    st = layer.lstat("")
    for name in path.split("/"):
        if stat.S_ISLNK(st.st_mode):
            raise oserror(errno.ELOOP)
        if not stat.S_ISDIR(st.st_mode):
            raise oserror(errno.ENOTDIR)
        if name in ("", "."):
            continue
        if name != "..":
            at.append(name)
        elif at:
            at.pop()
        else:
            raise oserror(errno.EXDEV)
        st = layer.lstat("".join(f"/{part}" for part in at))
    if not stat.S_ISREG(st.st_mode):
        raise oserror(errno.ENOENT)
    return "".join(f"/{part}" for part in at)


def open_found(layer: Layer, path: str, *, writable: bool = False) -> Handle:
    """Open what a lookup found in a layer. ESTALE: it has vanished since."""
    try:
        return layer.open(path, writable=writable)
    except FileNotFoundError as error:
        raise vanished(layer, path) from error


def vanished(layer: Layer, path: str) -> OSError:
    """Return the ESTALE for what a lookup found in a layer and somebody removed behind the overlay's back."""
    return oserror(errno.ESTALE, reason=f"{path} has vanished from {layer.name}")


def look(layer: Layer, path: str) -> Stat | None:
    """Return an object's attributes, None where there is none. A layer may answer without an exception (`look`)."""
    quick: Callable[[str], Stat | None] | None = getattr(layer, "look", None)
    if quick is not None:
        return quick(path)
    try:
        return layer.lstat(path)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENAMETOOLONG):
            return None
        raise


def read_whole(layer: Layer, path: str, size: int) -> bytes:
    """Return the first `size` bytes of a regular file. ESTALE. A layer may do it without a Handle (`read_whole`)."""
    quick: Callable[[str, int], bytes] | None = getattr(layer, "read_whole", None)
    if quick is not None:
        try:
            return quick(path, size)
        except FileNotFoundError as error:
            raise vanished(layer, path) from error
    handle = open_found(layer, path)
    try:
        return handle.pread(size, 0)
    finally:
        handle.close()


Xattrs = Mapping[str, bytes]


Look = Callable[[str], tuple[Stat | None, Xattrs | None]]


def _look_closely(layer: Layer) -> Look:
    """Return what does what `look` does and tells all attributes, None where the layer has to be asked for them."""
    quick: Look | None = getattr(layer, "look_closely", None)
    return (lambda path: (look(layer, path), None)) if quick is None else quick


def _mark(layer: Layer, path: str, xattrs: Xattrs | None, name: str) -> bytes | None:
    return get_mark(layer, path, name) if xattrs is None else xattrs.get(name)


def _look_below(layer: Layer, path: str) -> Stat | None:
    """Return an object's attributes, None where there is none, be it that its parent is no directory any more."""
    try:
        return look(layer, path)
    except NotADirectoryError:
        return None


def get_mark(layer: Layer, path: str, name: str) -> bytes | None:
    """Return a mark's value, None where there is none or the layer can hold none."""
    quick: Callable[[str, str], bytes | None] | None = getattr(layer, "mark", None)
    if quick is not None:
        return quick(path, name)
    try:
        return layer.getxattr(path, name)
    except OSError as error:
        if error.errno in (errno.ENODATA, errno.EOPNOTSUPP):
            return None
        raise


def has_metacopy(layer: Layer, path: str, name: str) -> bool:
    """Tell whether a regular file has the metacopy mark `name` (ovl_check_metacopy_xattr).

    Raises:
        EIO: the mark is neither empty nor long enough for its header of 4 bytes.

    """
    value = get_mark(layer, path, name)
    if value is not None and 0 < len(value) < _METACOPY_MIN:
        raise oserror(errno.EIO, reason=f"{path} in {layer.name} has a malformed metacopy mark")
    return value is not None
