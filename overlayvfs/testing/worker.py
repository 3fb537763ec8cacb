"""The kernel's side of the test kit: a process in namespaces of its own that mounts, acts and looks.

Started by `kernel.Kernel` as `python -m overlayvfs.testing.worker SOCKET DIRECTORY root|userns`. It makes a private
mount namespace (`root`) or a user namespace with one (`userns`), puts a tmpfs on DIRECTORY, reports, then answers
requests `(method of Worker, arguments)` until the socket closes. Mounts and files go with the process.

Calls on a stack are made from inside a chroot into its mount: absolute symlinks mean what they mean there.
"""

import os
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from multiprocessing.connection import Connection
from typing import Any, Final

from overlayvfs.testing import hostos
from overlayvfs.testing.ops import Op, Outcome, Runner
from overlayvfs.testing.rotation import RotatingOs, copy_root
from overlayvfs.testing.snapshots import Snapshot, capture
from overlayvfs.testing.stacks import Stack
from overlayvfs.testing.trees import Tree, Unsupported, build

# Named in every reference mount, so that module parameters of the machine change nothing.
REFERENCE_OPTIONS: Final[Mapping[str, str]] = {"index": "off", "metacopy": "off", "xino": "auto"}

Identity = tuple[int, int, tuple[int, ...], int]
ROOT: Final[Identity] = (0, 0, (), 0o022)

_UPPER_PLACES: Final = {"upper": "tree", "work": "work"}


class Worker:
    """Answers requests about numbered stacks. Every path it uses outside a chroot is relative to its own tmpfs."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._base = os.open(".", os.O_PATH)
        self._host = os.open("/", os.O_PATH)
        self._stacks: dict[int, _Mounted] = {}
        self._next = 0
        self._inside: _Mounted | None = None

    def open(self, stack: Stack, rotating: bool = False) -> int:
        """Build the layers, mount them and return the number of the new stack."""
        self._leave()
        number, self._next = self._next, self._next + 1
        mounted = _Mounted(str(number), stack, self.kind, partial(self._rotate, number) if rotating else None)
        try:
            mounted.make_layers()
            mounted.mount()
        except BaseException:
            mounted.destroy()
            raise
        self._stacks[number] = mounted
        return number

    def call(self, number: int, name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Call one function of the os module inside the mount."""
        return getattr(self._enter(number).os, name)(*args, **kwargs)

    def run(self, number: int, ops: Sequence[Op]) -> list[Outcome]:
        """Execute operations inside the mount."""
        return self._enter(number).runner.run_all(ops)

    def snapshot(self, number: int, which: str | int) -> Snapshot:
        """Return what the "merged" tree, the "upper" or the lower of this index shows."""
        if which == "merged":
            # Past the rotation: looking changes nothing.
            return capture(self._enter(number).host_os, "")
        self._leave()
        return self._stacks[number].layer_snapshot(which)

    def lower_count(self, number: int) -> int:
        """Return how many lowers there are now."""
        return len(self._stacks[number].lowers)

    def remount(self, number: int, options: Mapping[str, str | bool]) -> None:
        """Unmount and mount again over the same layers with these options. Open descriptors are closed."""
        self._leave()
        self._stacks[number].remount(options)

    def close(self, number: int) -> None:
        """Unmount the stack and forget its layers."""
        self._leave()
        self._stacks.pop(number).destroy()

    def transcript(
        self, stack: Stack, ops: Sequence[Op], rotating: bool = False
    ) -> tuple[list[Outcome], dict[str | int, Snapshot]]:
        """Open a stack, execute operations, look at every layer and then at the merged tree, close it."""
        number = self.open(stack, rotating)
        try:
            outcomes = self.run(number, ops)
            uppers = ["upper"] if stack.upper is not None else []
            layers: list[str | int] = [*range(self.lower_count(number)), *uppers]
            # The merged tree last: looking names up may leave origin marks in the upper (ovl_fix_origin).
            return outcomes, {which: self.snapshot(number, which) for which in [*layers, "merged"]}
        finally:
            self.close(number)

    def _rotate(self, number: int) -> None:
        self._leave()
        self._stacks[number].rotate()
        self._enter(number)

    def _enter(self, number: int) -> "_Mounted":
        mounted = self._stacks[number]
        if self._inside is not mounted:
            self._leave()
            os.fchdir(mounted.root)
            os.chroot(".")
            mounted.assume()
            self._inside = mounted
        return mounted

    def _leave(self) -> None:
        if self._inside is None:
            return
        self._inside.resign()
        self._inside = None
        os.fchdir(self._host)
        os.chroot(".")
        os.fchdir(self._base)


class _Mounted:
    """One stack: its layers below a directory of the worker's tmpfs, its mount, and who acts in it."""

    def __init__(self, name: str, stack: Stack, kind: str, rotate: Callable[[], None] | None = None) -> None:
        self._name = name
        self._stack = stack
        self._kind = kind
        self._options = dict(stack.options)
        self._mounts: list[str] = []
        self._identity = ROOT
        self.root = -1
        self.lowers = [str(index) for index in range(len(stack.lowers))]
        """Where each lower is, those given first; what rotated away comes after, the oldest first."""
        self._upper = "upper"
        self.host_os = hostos.MergedOs() if stack.lowers else hostos.HostOs()
        self._rotating_os = None if rotate is None or stack.upper is None else RotatingOs(lambda: self.host_os, rotate)
        self.os = self._rotating_os or self.host_os
        self.runner = self._new_runner()

    def make_layers(self) -> None:
        os.mkdir(self._name)
        self._mount_tmpfs(self._name)
        for name, tree in zip(self.lowers, self._stack.lowers, strict=True):
            self._make_layer(name, tree)
        if self._stack.upper is not None:
            self._make_upper(self._stack.upper)
        os.mkdir(f"{self._name}/merged")

    def mount(self) -> None:
        place = f"{self._name}/merged" if self._stack.lowers else f"{self._name}/{self._upper}/tree"
        if self._stack.lowers:
            hostos.mount("overlay", place, "overlay", 0, self._mount_data())
            self._mounts.append(place)
        self.root = os.open(place, os.O_PATH)

    def remount(self, options: Mapping[str, str | bool]) -> None:
        self._options = dict(options)
        self._unmount()
        self.runner = self._new_runner()
        self.mount()

    def rotate(self) -> None:
        """Mount anew with the upper as the highest lower and a fresh one on top. No descriptor is open."""
        self._unmount()
        old = self._upper
        self.lowers.append(old)
        self._upper = f"upper{len(self.lowers)}"
        self._make_upper({})
        host = hostos.HostOs()
        copy_root(host, f"{self._name}/{old}/tree", host, f"{self._name}/{self._upper}/tree", marks=self._prefix())
        self.mount()

    def layer_snapshot(self, which: str | int) -> Snapshot:
        layer = self._upper if isinstance(which, str) else self.lowers[which]
        return capture(hostos.HostOs(), f"{self._name}/{layer}/tree", prefix=self._prefix())

    def assume(self) -> None:
        """Become who acts in this stack: groups and ids last, as only root may change them."""
        uid, gid, groups, umask = self._identity
        os.umask(umask)
        if self._identity[:3] != ROOT[:3]:
            os.setgroups(groups)
            os.setegid(gid)
            os.seteuid(uid)

    def resign(self) -> None:
        """Become root again, remembering who acted."""
        umask = os.umask(0o022)
        self._identity = (os.geteuid(), os.getegid(), tuple(os.getgroups()), umask)
        if self._identity[:3] != ROOT[:3]:
            os.seteuid(0)
            os.setegid(0)
            os.setgroups(())

    def destroy(self) -> None:
        if self.root != -1:
            self._unmount()
        for place in reversed(self._mounts):
            hostos.umount(place, hostos.MNT_DETACH)
        os.rmdir(self._name)

    def _unmount(self) -> None:
        self.host_os.close_all()
        if self._rotating_os is not None:
            self._rotating_os.forget()
        os.close(self.root)
        self.root = -1
        if self._stack.lowers:
            hostos.umount(self._mounts.pop())

    def _new_runner(self) -> Runner:
        return Runner(self.os, identity=self._rotating_os is None)

    def _make_upper(self, tree: Tree) -> None:
        self._make_layer(self._upper, tree)
        os.mkdir(f"{self._name}/{self._upper}/work")

    def _make_layer(self, name: str, tree: Tree) -> None:
        place = f"{self._name}/{name}"
        os.mkdir(place)
        if self._stack.separate:
            self._mount_tmpfs(place)
        os.mkdir(f"{place}/tree")
        build(hostos.HostOs(), f"{place}/tree", tree, prefix=self._prefix())

    def _mount_tmpfs(self, place: str) -> None:
        hostos.mount("layers", place, "tmpfs", hostos.MS_NOATIME, "mode=755")
        self._mounts.append(place)

    def _userxattr(self) -> bool:
        return self._kind == "userns" or self._options.get("userxattr") in (True, "on")

    def _prefix(self) -> str:
        return "user.overlay." if self._userxattr() else "trusted.overlay."

    def _mount_data(self) -> str:
        given = len(self._stack.lowers)
        highest_first = [*reversed(self.lowers[given:]), *self.lowers[:given]]
        words = ["lowerdir=" + ":".join(f"{self._name}/{name}/tree" for name in highest_first)]
        if self._stack.upper is not None:
            words += [f"{what}dir={self._name}/{self._upper}/{place}" for what, place in _UPPER_PLACES.items()]
        return ",".join(words + self._option_words())

    def _option_words(self) -> list[str]:
        asked = {name: _word(value) for name, value in self._options.items() if name != "userxattr"}
        if not self._userxattr():
            defaults = dict(REFERENCE_OPTIONS)
            if asked.get("metacopy") != "on":
                defaults["redirect_dir"] = "off"
            words = {**defaults, **asked}
        else:
            words = self._checked_for_namespace(asked)
        volatile = words.pop("volatile", "off") == "on"
        flags = [*(["userxattr"] if self._userxattr() else []), *(["volatile"] if volatile else [])]
        return [f"{name}={value}" for name, value in words.items()] + flags

    def _checked_for_namespace(self, asked: dict[str, str]) -> dict[str, str]:
        if self._kind == "userns":
            for name, value in asked.items():
                if (name == "redirect_dir" and value != "nofollow") or (name != "redirect_dir" and value == "on"):
                    raise Unsupported(f"a user namespace's overlay has no {name}={value}")
        return asked


def _word(value: str | bool) -> str:
    return value if isinstance(value, str) else "on" if value else "off"


def enter_namespaces(kind: str) -> None:
    """Leave the host's mounts alone from here on. As `userns`, be root of a new user namespace."""
    if kind == "root":
        hostos.unshare(hostos.CLONE_NEWNS)
    else:
        uid, gid = os.geteuid(), os.getegid()
        hostos.unshare(hostos.CLONE_NEWUSER | hostos.CLONE_NEWNS)
        _write("/proc/self/setgroups", "deny")
        _write("/proc/self/uid_map", f"0 {uid} 1")
        _write("/proc/self/gid_map", f"0 {gid} 1")
    hostos.mount("none", "/", "", hostos.MS_REC | hostos.MS_PRIVATE)


def _write(path: str, text: str) -> None:
    with open(path, "w", encoding="ascii") as stream:
        stream.write(text)


def answer(handler: Callable[..., Any], arguments: Sequence[Any]) -> tuple[str, Any]:
    """Return ("value", result), ("error", exception to raise again) or ("failure", traceback of a bug of this kit)."""
    try:
        return "value", handler(*arguments)
    except (OSError, Unsupported, ValueError, TypeError, AttributeError, OverflowError) as error:
        return "error", error
    except Exception:  # noqa: BLE001 - whatever it was is told to the one who asked
        return "failure", traceback.format_exc()


def main() -> None:
    """Prepare as the command line says, try one overlay, then serve until the socket closes."""
    connection = Connection(int(sys.argv[1]))
    directory, kind = sys.argv[2:]
    os.umask(0o022)
    try:
        enter_namespaces(kind)
        hostos.mount("overlayvfs-oracle", directory, "tmpfs", hostos.MS_NOATIME, "mode=755")
        os.chdir(directory)
        worker = Worker(kind)
        worker.close(worker.open(Stack([{"/f": "x"}])))
    except (OSError, Unsupported) as error:
        connection.send(("error", f"{type(error).__name__}: {error}"))
        return
    connection.send(("value", kind))
    while True:
        try:
            method, arguments = connection.recv()
        except EOFError:
            return
        connection.send(answer(getattr(worker, method), arguments))


if __name__ == "__main__":
    main()
