"""One mounted overlay: its layers, options and live names (fs/overlayfs/super.c, params.c)."""

import errno
import threading
from collections import ChainMap
from collections.abc import Callable, Hashable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from stat import S_IFDIR
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary
from weakref import ref as weakref

from overlayvfs.abi import Stat, anonymous_dev, is_whiteout, oserror
from overlayvfs.engine.contents import CONTENTS_MAX
from overlayvfs.engine.dentry import Dentry
from overlayvfs.engine.lowers import LowerFile, LowerStack
from overlayvfs.engine.namecache import NAMES_MAX, NameCache
from overlayvfs.engine.numbers import NO_LAYER, Numbers
from overlayvfs.layers.base import Layer, SnapshotLayer, Torn, UpperLayer, is_numbered_layer
from overlayvfs.marks import TRUSTED, USER, MarkNames

if TYPE_CHECKING:
    from overlayvfs.engine.changes import Change
    from overlayvfs.engine.fork import Checkpoint
    from overlayvfs.engine.inode import Inode

CopyUpCallback = Callable[[str, int, int], None]
"""Is told a file's path, how many of its bytes are copied up and how many there are."""

RAW = MarkNames("\0", *("\0",) * 9)
"""Marks no object can carry (NUL): for a layer seen without a union."""

Report = Callable[[str, tuple[str, ...], OSError | None, int], None]
"""Told of a verb that was to change something: its name, the paths, how it failed, the bytes written. Never raises."""

_REDIRECT_DIR = ("on", "off", "follow", "nofollow")
_XINO = ("on", "off", "auto")


@dataclass(frozen=True, slots=True)
class Options:
    """Mount options, under mount(8)'s names and with its values."""

    redirect_dir: str = "off"
    index: bool = False
    metacopy: bool = False
    xino: str = "auto"
    userxattr: bool = True
    volatile: bool = False

    @classmethod
    def parse(
        cls,
        *,
        redirect_dir: str | bool | None = None,
        index: str | bool = False,
        metacopy: str | bool = False,
        xino: str | bool = "auto",
        userxattr: str | bool = True,
        volatile: str | bool = False,
        read_only: bool = False,
    ) -> "Options":
        """Check and complete options as they were given.

        Raises:
            EINVAL: a value mount(8) does not know, or metacopy with a redirect_dir that excludes it (KB 1.5, 1.8).

        """
        with_metacopy = _on_off("metacopy", metacopy)
        if redirect_dir is None:
            redirect = "on" if with_metacopy else "off"
        else:
            redirect = _choice("redirect_dir", redirect_dir, _REDIRECT_DIR)
            if with_metacopy and (redirect == "nofollow" or (redirect != "on" and not read_only)):
                raise oserror(errno.EINVAL, reason=f"metacopy=on needs redirect_dir=on, not {redirect}")
        return cls(
            redirect_dir=redirect,
            index=_on_off("index", index),
            metacopy=with_metacopy,
            xino=_choice("xino", xino, _XINO),
            userxattr=_on_off("userxattr", userxattr),
            volatile=_on_off("volatile", volatile),
        )

    @property
    def allows_offline_changes(self) -> bool:
        """Whether lowers may change while not mounted (ovl_allow_offline_changes; KB 4.3)."""
        return not (self.index or self.metacopy or self.redirect_dir == "on" or self.xino == "on")


@dataclass(frozen=True, slots=True)
class Memory:
    """How much is remembered of what was found out, and whether it is trusted."""

    names: int = NAMES_MAX
    """Names, and with them attributes and listings; 0: none beyond the verb that asked."""
    contents: int = CONTENTS_MAX
    """Bytes of small lower files."""
    detect: bool = False
    """Look again at each lower object in use: one that changed is ESTALE."""


def _choice(option: str, value: str | bool, choices: Sequence[str]) -> str:
    text = {True: "on", False: "off"}[value] if isinstance(value, bool) else value
    if text not in choices:
        raise oserror(errno.EINVAL, reason=f"{option}={value!r}: choose one of {', '.join(choices)}")
    return text


def _on_off(option: str, value: str | bool) -> bool:
    return _choice(option, value, ("on", "off")) == "on"


@dataclass(slots=True)
class Credentials:
    """Who calls (credentials(7)): what permission checks and new objects go by."""

    uid: int = 0
    gid: int = 0
    groups: tuple[int, ...] = ()
    umask: int = 0o022

    def is_member(self, gid: int) -> bool:
        """Tell whether `gid` is one of the caller's groups."""
        return gid == self.gid or gid in self.groups


_live_uppers: "WeakValueDictionary[Hashable, Mount]" = WeakValueDictionary()
_live_mounts: "WeakValueDictionary[int, Mount]" = WeakValueDictionary()
# Re-entrant: a collector's run closes the overlays it finds, also in the middle of what its thread does under the lock.
_live_lock = threading.RLock()


def live_mounts() -> "list[Mount]":
    """Return the overlays that are mounted now, read-only ones included."""
    with _live_lock:
        # Its own iterator would notice that a mount went meanwhile.
        found = [reference() for reference in _live_mounts.valuerefs()]
    return [mnt for mnt in found if mnt is not None and not mnt.closed]


# Shared by all mounts that have none, as a fork that is only looked at needs neither: each table costs 2 µs to make.
NO_INODES: "MutableMapping[Hashable, Inode]" = {}
NO_DENTRIES: MutableMapping[Hashable, Dentry] = {}


class Mount:
    """The state all verbs share.

    `lock` is held by every verb that looks at or changes dentries; nothing else is locked inside it
    but a layer's own state.
    """

    def __init__(
        self,
        lowers: Sequence[Layer],
        upper: UpperLayer | None,
        options: Options,
        stack: LowerStack | None = None,
        dev: int | None = None,
        *,
        data_only: Sequence[Layer] = (),
    ) -> None:
        self.options = options
        self.upper = upper
        self.numbered_upper = upper if upper is not None and is_numbered_layer(upper) else None
        """The upper, if it finds objects by number (see whole.py)."""
        self.bare = False
        self.marks = USER if options.userxattr else TRUSTED
        self.lowers = stack or LowerStack(
            lowers,
            self.marks,
            follow=options.redirect_dir != "nofollow",
            metacopy=options.metacopy,
            data_only=data_only,
        )
        self.root = Dentry("", None, upper is not None, self.lowers.root if self.lowers.layers else None, S_IFDIR)
        self.lock = threading.RLock()
        self.credentials = Credentials()
        self.inodes: MutableMapping[Hashable, Inode] = NO_INODES
        """Open inodes by what tells them apart; a table of its own from the first one on."""
        self.lower_dirs: MutableMapping[Hashable, Dentry] = NO_DENTRIES
        """Which directory shows a lower one; a table of its own from the first one on."""
        self.names = NameCache(NAMES_MAX)
        self.looked_up = 0
        """Names looked up since dentries were last thrown away."""
        self.dev = anonymous_dev() if dev is None else dev
        self.closed = False
        self.on_copy_up: CopyUpCallback | None = None
        self.torn: str | None = None
        """Why nothing is written any more, though there is an upper."""
        self.claimed = False
        """The upper was prepared for this mount. Of a bare layer or a view, WORK is somebody else's."""
        self.owns_upper = False
        """The upper was made for this mount, a fork, and ends with it."""
        self.upper_numbers: Mapping[int, int] = {}
        """What the upper's objects show for their own inode number, where they are copies of others: those others'."""
        self.parent: weakref[Mount] | None = None
        """What this was forked from."""
        self.fork_point: Checkpoint | None = None
        """What the parent was then, or this when it was last merged into the parent."""
        self.origins: ChainMap[int, LowerFile] = ChainMap()
        """What the upper's objects were copied up from, by inode number: for where an origin mark can't tell."""
        self.known_changes: dict[tuple[bool, bool], tuple[object, tuple[Change, ...]]] = {}
        """What differed from the lowers, by kind of comparison, and the version of both sides that it holds for."""
        self.watchers: tuple[Report, ...] = ()
        self.whiteout: str | None = None
        self.temp_count = 0
        self._shared_numbers: list[Numbers | None] = [None]

    @property
    def has_index(self) -> bool:
        """Whether lower hard links are kept one (index=on, and an upper to keep the index)."""
        return self.options.index and self.upper is not None

    @property
    def leaves_note(self) -> bool:
        """Whether the work directory stays, to tell later mounts of a volatile one; what lives in memory needs none."""
        return self.options.volatile and self.upper is not None and not isinstance(self.upper, SnapshotLayer)

    def claim_upper(self) -> None:
        """Take the upper for this mount alone.

        Raises:
            EBUSY: another live overlay writes to it.
            EINVAL: there is no place for the work directory.

        """
        self.register()
        if self.upper is None:
            return
        try:
            self.upper.prepare(index=self.options.index)
        except BaseException:
            self._forget()
            raise
        self.claimed = True

    def register(self) -> None:
        """Count among the live overlays. EBUSY: the upper belongs to another one."""
        upper = self.upper
        key = None if upper is None else upper.identity()
        with _live_lock:
            if upper is not None:
                if key in _live_uppers:
                    raise oserror(errno.EBUSY, reason=f"upper {upper.name} belongs to a live overlay; close that first")
                _live_uppers[key] = self
            _live_mounts[id(self)] = self

    def close(self) -> None:
        """End the mount and set its upper free; idempotent."""
        with self.lock:
            if self.closed:
                return
            self.closed = True
            self.fork_point = None
            self.names.flush()
            # Names refer to one another in circles; nothing of them is to wait for a collector.
            self.root.forget_below()
            self._forget()
            if self.upper is None:
                return
            if self.owns_upper:
                self.upper.close()
            elif self.claimed and not self.leaves_note:
                # An index stays the upper's, also through mounts that don't ask for one.
                self.upper.release(keep_index=True)

    def _forget(self) -> None:
        """Count among the live overlays no more."""
        key = None if self.upper is None else self.upper.identity()
        with _live_lock:
            _live_mounts.pop(id(self), None)
            if self.upper is not None and _live_uppers.get(key) is self:
                del _live_uppers[key]

    def report(self, verb: str, paths: tuple[str, ...], error: OSError | None = None, size: int = 0) -> None:
        """Tell those who watch of a verb, under the lock: reports come in the order of the changes."""
        for watcher in self.watchers:
            watcher(verb, paths, error, size)

    def layer(self, number: int) -> Layer:
        """Return layer `number` as the kernel counts: 0 is the upper."""
        if number == 0:
            assert self.upper is not None
            return self.upper
        return self.lowers.layer(number)

    def writable_upper(self) -> UpperLayer:
        """Return the upper; EROFS where there is none, or none that can be relied on."""
        if self.upper is None:
            raise oserror(errno.EROFS, reason="this overlay has no upper")
        if self.torn is not None:
            raise oserror(errno.EROFS, reason=self.torn)
        return self.upper

    @property
    def read_only(self) -> bool:
        """Whether every change is EROFS."""
        return self.upper is None or self.torn is not None

    def turn_read_only(self, torn: Torn) -> None:
        """Write nothing more: a layer says that it holds neither the tree before a change nor the one after."""
        if self.torn is None:
            where = self.upper.name if self.upper is not None else "a layer"
            self.torn = f"read-only since {where} was left half changed ({torn.strerror})"

    def is_whiteout(self, layer: Layer, path: str, st: Stat) -> bool:
        """Tell whether an object of a layer is a whiteout; a bare layer has none."""
        return not self.bare and (is_whiteout(st) or self.lowers.is_whiteout(layer, path, st))

    @property
    def numbers(self) -> Numbers:
        """How device and inode numbers show. Looks at the layers' roots the first time."""
        numbers = self._shared_numbers[0]
        if numbers is None:
            devs = [self.upper.lstat("").st_dev if self.upper else NO_LAYER]
            devs += [layer.lstat("").st_dev for layer in self.lowers.layers]
            numbers = self._shared_numbers[0] = Numbers(self.dev, devs, xino=self.options.xino != "off")
        return numbers

    def share_numbers(self, other: "Mount") -> None:
        """Show the numbers `other` shows, now and for whatever is worked out later."""
        self.dev = other.dev
        self._shared_numbers = other._shared_numbers


def check_overlap(lowers: Sequence[Layer], upper: UpperLayer | None) -> None:
    """Refuse layers that are or contain one another (ovl_check_overlapping_layers).

    Raises:
        ELOOP: naming the two.

    """
    layers: list[tuple[str, Layer]] = [("upper", upper)] if upper is not None else []
    layers += [(f"lower {number}", layer) for number, layer in enumerate(lowers, 1)]
    roots: dict[Hashable, str] = {}
    for role, layer in layers:
        other = roots.setdefault(layer.identity(), f"{role} ({layer.name})")
        if other != f"{role} ({layer.name})":
            raise oserror(errno.ELOOP, reason=f"{role} ({layer.name}) is the same directory as {other}")
    for role, layer in layers:
        for above in layer.ancestry()[1:]:
            if above in roots:
                raise oserror(errno.ELOOP, reason=f"{role} ({layer.name}) lies inside {roots[above]}")
