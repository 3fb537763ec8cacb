"""From changes to the steps that bring them about in another tree, and to what stands in their way."""

import stat
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from overlayvfs.abi import O_NOFOLLOW, O_RDONLY, Stat
from overlayvfs.engine.changes import Change
from overlayvfs.engine.overlay import Overlay
from overlayvfs.workspace.target import Target, look, parents
from overlayvfs.workspace.transfer import Attributes, attributes_of, times_of

_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Conflict:
    """A path a commit can't change without losing what somebody else did."""

    path: str
    why: str

    def __str__(self) -> str:
        return f"{self.path}: {self.why}"


@dataclass(frozen=True, slots=True)
class Step:
    """One change of one name, which can be done again and undone."""

    verb: str
    """"put" (an object in place of nothing or of another that is no directory), "remove", "mkdir" or "rmdir"."""
    path: str
    number: int = 0
    """What "put" shows, and what is put aside, under STAGE."""
    replaces: bool = False
    """There is something at `path`."""


@dataclass(slots=True)
class Plan:
    """All a commit does, in order: steps, and then the attributes of directories, the deepest first."""

    steps: list[Step] = field(default_factory=list)
    contents: dict[int, tuple[str, Attributes]] = field(default_factory=dict)
    """The source's path of what each "put" shows, and its attributes; a whiteout where there is none."""
    links: dict[int, int] = field(default_factory=dict)
    """Which "put" is a hard link of which earlier one."""
    wanted: dict[str, Attributes] = field(default_factory=dict)
    """What directories are to have at the end."""
    before: dict[str, Attributes] = field(default_factory=dict)
    """What directories have that are changed or removed."""
    opaque: set[str] = field(default_factory=set)
    """New directories that must hide what lowers below the target have."""


def selected(changes: Sequence[Change], paths: Iterable[str] | None) -> list[Change]:
    """Return the changes at or below some paths (all if None), with the new directories those are in."""
    if paths is None:
        return list(changes)
    chosen = {one.path for one in changes if is_selected(one.path, paths)}
    above = {parent for path in chosen for parent in parents(path)}
    made = {one.path for one in changes if one.is_dir and (one.kind == "A" or "type" in one.what)}
    return [one for one in changes if one.path in chosen or (one.path in above and one.path in made)]


def is_selected(path: str, paths: Iterable[str] | None) -> bool:
    """Tell whether a path is one of some paths or lies below one; of None, all do."""
    if paths is None:
        return True
    roots = (root.rstrip("/") for root in paths)
    return any(path == root or path.startswith(root + "/") for root in roots)


def conflicts(source: Overlay, base: Overlay, target: Target, changes: Sequence[Change]) -> list[Conflict]:
    """Return the changed paths at which the target is neither what the source changed nor what it made of it."""
    found = []
    for change in changes:
        why = _conflict(source, base, target, change, changes)
        if why:
            found.append(Conflict(change.path, why))
    return found


def _conflict(source: Overlay, base: Overlay, target: Target, change: Change, changes: Sequence[Change]) -> str:
    path = change.path
    hidden = target.is_hidden(path)
    if hidden:
        return f"lower {hidden} hides it"
    here, old = target.find(path), look(base, path)
    if old is not None and target.number and target.number not in source.shown_by_lowers(path):
        # A lower below has it: this one has nothing there.
        old = None
    new = None if change.kind == "D" else look(source, path)
    if alike(target.tree, here, source, new, path):
        return ""
    if here is None:
        return _conflict_above(base, target, path) if old is None else "it was removed"
    if old is None:
        return "" if new is not None and stat.S_ISDIR(new.st_mode) and stat.S_ISDIR(here.st_mode) else "it was added"
    unchanged = _as_seen(here, old) if target.number else alike(target.tree, here, base, old, path)
    if not unchanged:
        return "it was changed"
    if stat.S_ISDIR(here.st_mode) and (new is None or not stat.S_ISDIR(new.st_mode)):
        return _added_below(base, target, path, here, old)
    return ""


def _conflict_above(base: Overlay, target: Target, path: str) -> str:
    """Say what became of the directory in which something new is to be."""
    above = path.rpartition("/")[0] or "/"
    old, here = look(base, above), target.find(above)
    if old is None or not stat.S_ISDIR(old.st_mode) or (here is not None and stat.S_ISDIR(here.st_mode)):
        return ""
    if target.number and target.number not in base.shown_by_lowers(above):
        return ""
    return f"{above} was removed" if here is None else f"{above} is no directory any more"


def _added_below(base: Overlay, target: Target, path: str, here: Stat, old: Stat) -> str:
    """Say what a directory about to be removed holds that nobody knew of."""
    if target.number and here.st_mtime_ns != old.st_mtime_ns:
        # Names of lowers are not remembered, so what is new can't be told from what was there.
        return "it was changed"
    known = {entry.d_name for entry in base.listdir(path)}
    for entry in target.tree.listdir(path):
        if entry.d_name not in known and target.find(f"{path}/{entry.d_name}") is not None:
            return f"{entry.d_name} was added in it"
    return ""


def _as_seen(here: Stat, old: Stat) -> bool:
    """Tell whether an object of a lower is still what it was when it was first looked up."""
    if stat.S_ISDIR(old.st_mode):
        return stat.S_ISDIR(here.st_mode)
    fields = ("st_mode", "st_uid", "st_gid", "st_size", "st_mtime_ns", "st_rdev")
    return all(getattr(here, name) == getattr(old, name) for name in fields)


def alike(one: Overlay, st: Stat | None, other: Overlay, st2: Stat | None, path: str) -> bool:
    """Tell whether two trees have the same at a path: kind and content. How much else they hold differs."""
    if st is None or st2 is None:
        return st is st2
    if stat.S_IFMT(st.st_mode) != stat.S_IFMT(st2.st_mode) or st.st_rdev != st2.st_rdev:
        return False
    if stat.S_ISLNK(st.st_mode):
        return one.readlink(path) == other.readlink(path)
    return not stat.S_ISREG(st.st_mode) or (st.st_size == st2.st_size and _same_bytes(one, other, path))


def _same_bytes(one: Overlay, other: Overlay, path: str) -> bool:
    left = one.open(path, O_RDONLY | O_NOFOLLOW)
    try:
        right = other.open(path, O_RDONLY | O_NOFOLLOW)
        try:
            while piece := left.read(_CHUNK):
                if piece != right.read(_CHUNK):
                    return False
            return not right.read(1)
        finally:
            right.close()
    finally:
        left.close()


def make_plan(
    source: Overlay, base: Overlay, target: Target, changes: Sequence[Change], unchanged: Iterable[str]
) -> Plan:
    """Return what brings the changes of `source` since `base` about in the target.

    `unchanged` are files that may be replaced by equal ones, where their hard links are others than in the target.
    """
    return _Planner(source, base, target, changes, unchanged).plan


class _Planner:
    """One run of `make_plan`: removals from the deepest on, then what is new from the highest on."""

    def __init__(
        self, source: Overlay, base: Overlay, target: Target, changes: Sequence[Change], unchanged: Iterable[str]
    ) -> None:
        self.plan = Plan()
        self._source = source
        self._base = base
        self._target = target
        self._links: dict[tuple[int, int], int] = {}
        self._gone: set[str] = set()
        self._made: set[str] = set()
        for change in sorted(changes, key=lambda one: one.path, reverse=True):
            self._make_room(change)
        for change in changes:
            if change.kind != "D":
                self._make_room_above(change.path)
        new = {change.path: change.is_dir for change in changes if change.kind != "D"}
        for path in sorted(new | dict.fromkeys(self._relinked(new, unchanged), False)):
            self._show(path, is_dir=new.get(path, False))
        for change in changes:
            if change.kind == "D" and self._shows_directory(change.path) and target.shows_below(change.path):
                self._make_parents(change.path)
                self._put(change.path, None)
        self._directories(changes)

    def _make_room(self, change: Change) -> None:
        """Remove what is deleted, and what a directory replaces or is replaced by."""
        st = self._target.look(change.path)
        if st is None:
            return
        is_dir = stat.S_ISDIR(st.st_mode)
        if change.kind != "D" and is_dir == change.is_dir:
            return
        if change.kind != "D" and not change.is_dir and not is_dir:
            return
        self._remove(change.path, st)

    def _make_room_above(self, path: str) -> None:
        """Remove what is in the place of a directory the path is in."""
        for parent in parents(path):
            st = None if parent in self._gone else self._target.look(parent)
            if st is not None and not stat.S_ISDIR(st.st_mode):
                self._remove(parent, st)

    def _remove(self, path: str, st: Stat) -> None:
        """Remove a name with all below it: whiteouts, and what is there against the source's knowledge."""
        if stat.S_ISDIR(st.st_mode):
            for entry in self._target.tree.listdir(path):
                below = f"{path}/{entry.d_name}"
                here = None if below in self._gone else self._target.look(below)
                if here is not None:
                    self._remove(below, here)
            self.plan.before[path] = attributes_of(self._target.tree, path, st)
            self.plan.steps.append(Step("rmdir", path))
        else:
            self.plan.steps.append(Step("remove", path, self._next()))
        self._gone.add(path)

    def _show(self, path: str, *, is_dir: bool) -> None:
        self._make_parents(path)
        if not is_dir:
            self._put(path, path)
        elif self._is_missing(path):
            self._mkdir(path)

    def _make_parents(self, path: str) -> None:
        """Make the directories a path is in that only lowers below the target have, or that it lost."""
        for parent in reversed(parents(path)):
            if parent != "/" and self._is_missing(parent):
                self._mkdir(parent)

    def _mkdir(self, path: str) -> None:
        self._made.add(path)
        self.plan.steps.append(Step("mkdir", path))
        old = self._source.shown_by_lowers(path)
        if self._target.shows_below(path) and (not old or not self._base_has_directory(path)):
            # What a lower below has there did not show, and is not to.
            self.plan.opaque.add(path)

    def _base_has_directory(self, path: str) -> bool:
        st = look(self._base, path)
        return st is not None and stat.S_ISDIR(st.st_mode)

    def _is_missing(self, path: str) -> bool:
        return path not in self._made and (path in self._gone or self._target.look(path) is None)

    def _put(self, path: str, content: str | None) -> None:
        number = self._next()
        replaces = path not in self._gone and self._target.look(path) is not None
        self.plan.steps.append(Step("put", path, number, replaces))
        if content is None:
            return
        st = self._source.stat(content, follow=False)
        self.plan.contents[number] = (content, self._attributes(content, st))
        if st.st_nlink > 1:
            first = self._links.setdefault((st.st_dev, st.st_ino), number)
            if first != number:
                self.plan.links[number] = first

    def _attributes(self, path: str, st: Stat) -> Attributes:
        """Return what an object of the source has, as the target spells it."""
        wanted = attributes_of(self._source, path, st)
        marks = self._target.marks
        if marks is not None:
            wanted["xattrs"] = {marks.escape(name): value for name, value in wanted["xattrs"].items()}
            wanted["keep"] = marks.prefix
        return wanted

    def _next(self) -> int:
        return len(self.plan.steps)

    def _shows_directory(self, path: str) -> bool:
        """Tell whether there will be a directory for the name `path` to be in."""
        st = look(self._source, path.rpartition("/")[0] or "/")
        return st is not None and stat.S_ISDIR(st.st_mode)

    def _relinked(self, new: dict[str, bool], unchanged: Iterable[str]) -> list[str]:
        """Return unchanged files to be put all the same, as their hard links are others than in the target."""
        files = {path: self._source.stat(path, follow=False) for path in {*unchanged, *new} if not new.get(path)}
        groups = {(st.st_dev, st.st_ino) for path, st in files.items() if st.st_nlink > 1 and path in new}
        return [path for path, st in files.items() if path not in new and self._is_relinked(path, st, groups)]

    def _is_relinked(self, path: str, st: Stat, groups: set[tuple[int, int]]) -> bool:
        here = self._target.find(path)
        if here is None:
            # A file of a lower below the target, whose links the target gets or is to part it from.
            old = look(self._base, path) if self._target.number else None
            return old is not None and ((st.st_dev, st.st_ino) in groups if st.st_nlink > 1 else old.st_nlink > 1)
        if stat.S_ISDIR(here.st_mode):
            return False
        others = (st.st_dev, st.st_ino) in groups if st.st_nlink > 1 else here.st_nlink > 1
        return others and alike(self._target.tree, here, self._source, st, path)

    def _directories(self, changes: Sequence[Change]) -> None:
        """Set the attributes of changed directories, and the times of those in which a name changed."""
        changed = {change.path for change in changes if change.is_dir and change.kind != "D"} | self._made
        stepped = {step.path.rpartition("/")[0] or "/" for step in self.plan.steps}
        for path in sorted(changed | stepped, reverse=True):
            st = look(self._source, path)
            if st is None or not stat.S_ISDIR(st.st_mode):
                continue
            whole = path in changed and path != "/"
            self.plan.wanted[path] = self._attributes(path, st) if whole else times_of(st)
            here = self._target.look(path)
            if here is not None and stat.S_ISDIR(here.st_mode):
                self.plan.before[path] = attributes_of(self._target.tree, path, here)
        for step in self.plan.steps:
            parent = step.path.rpartition("/")[0] or "/"
            here = self._target.look(parent)
            if parent not in self.plan.before and here is not None and stat.S_ISDIR(here.st_mode):
                self.plan.before[parent] = attributes_of(self._target.tree, parent, here)
