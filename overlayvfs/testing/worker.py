"""The kernel's side of the test kit: a process in namespaces of its own that mounts, acts and looks.

Started by `kernel.Kernel` as `python -m overlayvfs.testing.worker SOCKET DIRECTORY root|userns tmpfs|ext4|xfs`. It
makes a private mount namespace (`root`) or a user namespace with one (`userns`), puts a tmpfs on DIRECTORY and, if
asked, an image of another file system into that for the layers, reports, then answers requests `(method of Worker,
arguments)` until the socket closes. Mounts and files go with the process.

Calls on a stack are made from inside a chroot into its mount: absolute symlinks mean what they mean there.
"""

import os
import shutil
import subprocess
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from multiprocessing.connection import Connection
from typing import Any, Final

from overlayvfs.testing import hostos
from overlayvfs.testing.ops import REMOUNT, Op, Outcome, Runner, over_remount
from overlayvfs.testing.rotation import RotatingOs, copy_root
from overlayvfs.testing.snapshots import Look, Snapshot, capture, look
from overlayvfs.testing.stacks import Stack
from overlayvfs.testing.trees import Tree, Unsupported, build

# Named in every reference mount, so that module parameters of the machine change nothing.
REFERENCE_OPTIONS: Final[Mapping[str, str]] = {"index": "off", "metacopy": "off", "xino": "auto"}

Identity = tuple[int, int, tuple[int, ...], int]
ROOT: Final[Identity] = (0, 0, (), 0o022)

_UPPER_PLACES: Final = {"upper": "tree", "work": "work"}


class Worker:
    """Answers requests about numbered stacks. Every path it uses outside a chroot is relative to its own tmpfs."""

    def __init__(self, kind: str, directory: str, filesystem: str) -> None:
        self.kind = kind
        self._directory = directory
        self._filesystem = filesystem
        self._base = os.open(".", os.O_PATH)
        self._host = os.open("/", os.O_PATH)
        self._stacks: dict[int, _Mounted] = {}
        self._next = 0
        self._inside: _Mounted | None = None

    def open(self, stack: Stack, rotating: bool = False) -> int:
        """Build the layers, mount them and return the number of the new stack."""
        number = self.prepare(stack, rotating)
        try:
            self.mount(number, stack.options)
        except BaseException:
            self.close(number)
            raise
        return number

    def prepare(self, stack: Stack, rotating: bool = False) -> int:
        """Build the layers and return the number of the new stack, not mounted yet."""
        self._leave()
        number, self._next = self._next, self._next + 1
        mounted = _Mounted(
            str(number), stack, self.kind, self._filesystem, partial(self._rotate, number) if rotating else None
        )
        try:
            mounted.make_layers()
        except BaseException:
            mounted.destroy()
            raise
        self._stacks[number] = mounted
        return number

    def mount(self, number: int, options: Mapping[str, str | bool]) -> None:
        """Mount a stack that is not mounted."""
        self._leave()
        self._stacks[number].mount(options)

    def unmount(self, number: int) -> None:
        """Unmount a stack and keep its layers. Open descriptors are closed."""
        self._leave()
        self._stacks[number].unmount()

    def place(self, number: int, which: str | int) -> str:
        """Return where in this process's mount namespace a layer or the "work" directory of a stack is."""
        self._leave()
        return f"{self._directory}/{self._stacks[number].place(which)}"

    def call(self, number: int, name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Call one function of the os module inside the mount."""
        return getattr(self._enter(number).os, name)(*args, **kwargs)

    def run(self, number: int, ops: Sequence[Op]) -> list[Outcome]:
        """Execute operations inside the mount."""
        return [
            self._remounted(number, op) if op.name == REMOUNT else self._enter(number).runner.run(op) for op in ops
        ]

    def look(self, number: int) -> Look:
        """Return all that the merged tree shows, inode numbers included."""
        return look(self._enter(number).os)

    def _remounted(self, number: int, op: Op) -> Outcome:
        options = self._stacks[number].options
        return over_remount(op, lambda: self.look(number), lambda: self.remount(number, options))

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
    """One stack: its layers below a directory of the worker's file system, its mount, and who acts in it."""

    def __init__(
        self, name: str, stack: Stack, kind: str, filesystem: str, rotate: Callable[[], None] | None = None
    ) -> None:
        self._name = name
        self._stack = stack
        self._kind = kind
        self._filesystem = filesystem
        self.options = stack.options
        self._mounts: list[str] = []
        self._identity = ROOT
        self.root = -1
        self.lowers = [str(index) for index in range(len(stack.lowers))]
        """Where each lower is, those given first; what rotated away comes after, the oldest first."""
        self._upper = "upper"
        self.host_os = hostos.MergedOs(filesystem) if stack.lowers else hostos.HostOs()
        self._rotating_os = None if rotate is None or stack.upper is None else RotatingOs(lambda: self.host_os, rotate)
        self.os = self._rotating_os or self.host_os
        self.runner = self._new_runner()

    def make_layers(self) -> None:
        os.mkdir(self._name)
        if self._filesystem == "tmpfs":
            self._mount_tmpfs(self._name)
        for name, tree in zip(self.lowers, self._stack.lowers, strict=True):
            self._make_layer(name, tree)
        if self._stack.upper is not None:
            self._make_upper(self._stack.upper)
        os.mkdir(f"{self._name}/merged")

    def mount(self, options: Mapping[str, str | bool]) -> None:
        self.options = options
        place = f"{self._name}/merged" if self._stack.lowers else self.place("upper")
        if self._stack.lowers:
            hostos.mount("overlay", place, "overlay", 0, self._mount_data())
            self._mounts.append(place)
        self.root = os.open(place, os.O_PATH)

    def remount(self, options: Mapping[str, str | bool]) -> None:
        self.unmount()
        self.mount(options)

    def rotate(self) -> None:
        """Mount anew with the upper as the highest lower and a fresh one on top. No descriptor is open."""
        self._release()
        before = self.place("upper")
        self.lowers.append(self._upper)
        self._upper = f"upper{len(self.lowers)}"
        self._make_upper({})
        host = hostos.HostOs()
        copy_root(host, before, host, self.place("upper"), marks=self._prefix())
        self.mount(self.options)

    def place(self, which: str | int) -> str:
        if which == "work":
            return f"{self._name}/{self._upper}/work"
        return f"{self._name}/{self._upper if isinstance(which, str) else self.lowers[which]}/tree"

    def layer_snapshot(self, which: str | int) -> Snapshot:
        return capture(hostos.HostOs(), self.place(which), prefix=self._prefix())

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
            self.unmount()
        for place in reversed(self._mounts):
            hostos.umount(place, hostos.MNT_DETACH)
        shutil.rmtree(self._name)

    def unmount(self) -> None:
        self._release()
        self.runner = self._new_runner()

    def _release(self) -> None:
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
        # Beside an image only the lowers can be: there is one of each kind.
        if self._stack.separate and (self._filesystem == "tmpfs" or name != "upper"):
            self._mount_tmpfs(place)
        os.mkdir(f"{place}/tree")
        build(hostos.HostOs(), f"{place}/tree", tree, prefix=self._prefix())

    def _mount_tmpfs(self, place: str) -> None:
        hostos.mount("layers", place, "tmpfs", hostos.MS_NOATIME, "mode=755")
        self._mounts.append(place)

    def _userxattr(self) -> bool:
        return self._kind == "userns" or self.options.get("userxattr") in (True, "on")

    def _prefix(self) -> str:
        return "user.overlay." if self._userxattr() else "trusted.overlay."

    def _mount_data(self) -> str:
        given = len(self._stack.lowers)
        highest_first = [*reversed(range(given, len(self.lowers))), *range(given)]
        places = [self.place(index) for index in highest_first]
        shown = len(places) - self._stack.data_only
        words = ["lowerdir=" + "::".join([":".join(places[:shown]), *places[shown:]])]
        if self._stack.upper is not None:
            words += [f"{what}dir={self._name}/{self._upper}/{place}" for what, place in _UPPER_PLACES.items()]
        return ",".join(words + self._option_words())

    def _option_words(self) -> list[str]:
        asked = {name: _word(value) for name, value in self.options.items() if name != "userxattr"}
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
            if self._stack.data_only:
                raise Unsupported("a user namespace's overlay follows no redirect, so none into data-only lowers")
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


IMAGE_BYTES: Final = 320 << 20
"""How big an image is at most: the least that mkfs.xfs takes. What is not written takes no room."""


def mount_image(directory: str, filesystem: str) -> str:
    """Make an image of a file system in `directory`, mount it beside that and return where."""
    image, place = f"{directory}/image", f"{directory}/layers"
    os.close(os.open(image, os.O_WRONLY | os.O_CREAT, 0o600))
    os.truncate(image, IMAGE_BYTES)
    os.mkdir(place)
    commands = [f"mkfs.{filesystem}", "-q", image], ["mount", "-o", "loop,noatime", "-t", filesystem, image, place]
    for command in commands:
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    return place


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
    directory, kind, filesystem = sys.argv[2:]
    os.umask(0o022)
    try:
        enter_namespaces(kind)
        hostos.mount("overlayvfs-oracle", directory, "tmpfs", hostos.MS_NOATIME, "mode=755")
        if filesystem != "tmpfs":
            directory = mount_image(directory, filesystem)
        os.chdir(directory)
        worker = Worker(kind, directory, filesystem)
        worker.close(worker.open(Stack([{"/f": "x"}])))
    except (OSError, Unsupported, subprocess.SubprocessError) as error:
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
