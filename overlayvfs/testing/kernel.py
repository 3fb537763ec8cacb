"""The kernel as oracle: a real overlay mount behind the interface every body of the test kit has.

`Kernel.find()` starts a worker process (worker.py) as root in a private mount namespace or, for anyone else, in a user
namespace. Nothing of it shows on the host and nothing is left behind when this process ends.
"""

import atexit
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from functools import cache
from multiprocessing.connection import Connection
from types import TracebackType
from typing import IO, Any, Final, NamedTuple, Self

from overlayvfs.testing.hostos import is_root
from overlayvfs.testing.ops import Op, Outcome
from overlayvfs.testing.snapshots import Look, Snapshot
from overlayvfs.testing.stacks import Stack

START_SECONDS: Final = 60.0
ANSWER_SECONDS: Final = 60.0
"""How long the worker may take for one request: mounts and calls take milliseconds, a hang takes for ever."""

FILESYSTEMS: Final = ("tmpfs", "ext4", "xfs")
"""What layers can be on: the last two in an image on a loop device."""


class OracleError(Exception):
    """The kernel's worker died, hung or has a bug: says nothing about the implementation under test."""


class NoOracle(Exception):
    """No overlay can be mounted by this process; says why."""


class Transcript(NamedTuple):
    """What a sequence of operations came to: outcomes, and snapshots of each lower (by index), "upper" and "merged"."""

    outcomes: list[Outcome]
    snapshots: dict[str | int, Snapshot]


class Kernel:
    """One worker process and the requests it answers. Not for use by several threads at once."""

    title = "the kernel"
    tells_impure = True

    def __init__(self, kind: str, *, filesystem: str = "tmpfs", answer_seconds: float = ANSWER_SECONDS) -> None:
        """Start a worker as "root" or "userns", with layers on "tmpfs" or, on a loop device, "ext4" or "xfs".

        Raises:
            NoOracle: it can't have namespaces, the file system or an overlay mount.

        """
        self.kind = kind
        self.filesystem = filesystem
        self._answer_seconds = answer_seconds
        self._directory = tempfile.mkdtemp(prefix="overlayvfs-oracle-")
        self._messages: IO[bytes] = tempfile.TemporaryFile()
        ours, theirs = socket.socketpair()
        command = [sys.executable, "-m", "overlayvfs.testing.worker", str(theirs.fileno()), self._directory, kind]
        command.append(filesystem)
        self._process = subprocess.Popen(
            command,
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stderr=self._messages,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
        theirs.close()
        self._connection = Connection(ours.detach())
        atexit.register(self.close)
        # Starting a Python is slower than any answer, and says nothing about the kernel.
        outcome, text = self._receive("its start", START_SECONDS)
        if outcome == "error":
            self.close()
            raise NoOracle(text)

    @classmethod
    def find(cls) -> "Kernel":
        """Return this process's oracle, started at the first call and again after its worker was lost.

        Raises:
            NoOracle: neither as root nor in a user namespace, and why.

        """
        kernel = _found(_preferred_kind())
        if kernel.lost:
            _found.cache_clear()
            kernel = _found(_preferred_kind())
        return kernel

    @classmethod
    def on(cls, filesystem: str) -> "Kernel":
        """Return this process's oracle with layers on "tmpfs", "ext4" or "xfs", started at the first call.

        Raises:
            NoOracle: why there is none: loop devices, mkfs and the file system are needed, and root.

        """
        if filesystem == "tmpfs":
            return cls.find()
        kernel = _found_on(filesystem)
        if kernel.lost:
            _found_on.cache_clear()
            kernel = _found_on(filesystem)
        return kernel

    @property
    def lost(self) -> bool:
        """Tell whether the worker is gone."""
        return self._connection.closed

    @property
    def pid(self) -> int:
        """The worker's process."""
        return self._process.pid

    @property
    def description(self) -> str:
        """Return what kind of mount answers, in words."""
        words = {"root": "a root mount in a private mount namespace", "userns": "a user namespace's mount (userxattr)"}
        on = "" if self.filesystem == "tmpfs" else f" over {self.filesystem} on a loop device"
        return f"{words[self.kind]}{on}, Linux {os.uname().release}"

    def mount(self, stack: Stack, *, rotating: bool = False) -> "KernelMount":
        """Build and mount a stack, whose layers rotate if asked (rotating.py). Raises what mount(2) raises."""
        return KernelMount(self, self.request("open", stack, rotating))

    def prepare(self, stack: Stack) -> "KernelMount":
        """Build a stack without mounting it."""
        return KernelMount(self, self.request("prepare", stack))

    def transcript(self, stack: Stack, ops: Sequence[Op], *, rotating: bool = False) -> Transcript:
        """Mount a stack, execute operations, look at everything, unmount: one round trip."""
        self.submit(stack, ops, rotating=rotating)
        return self.collect()

    def submit(self, stack: Stack, ops: Sequence[Op], *, rotating: bool = False) -> None:
        """Ask for a transcript without waiting for it. No other request may come before `collect`."""
        self._send("transcript", (stack, ops, rotating))

    def collect(self) -> Transcript:
        """Return the transcript that `submit` asked for."""
        outcomes, snapshots = self._answer("a transcript")
        return Transcript(outcomes, snapshots)

    def request(self, method: str, *arguments: Any) -> Any:
        """Send one request to the worker and return its answer.

        Raises:
            OSError: what the kernel said.
            Unsupported: this kind of mount can't have what was asked for.
            OracleError: the worker died, did not answer in time or failed by a bug of its own.

        """
        self._send(method, arguments)
        return self._answer(f"{method}{arguments!r}")

    def close(self) -> None:
        """End the worker, and with it everything it mounted. Idempotent."""
        if self._connection.closed:
            return
        self._connection.close()
        try:
            self._process.wait(timeout=2)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._messages.close()
        os.rmdir(self._directory)
        atexit.unregister(self.close)

    def __enter__(self) -> Self:
        """Return the oracle, to be closed at the end of the block."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""
        self.close()

    def _send(self, method: str, arguments: Sequence[Any]) -> None:
        if self._connection.closed:
            raise OracleError("the kernel's worker is gone")
        try:
            self._connection.send((method, arguments))
        except (BrokenPipeError, ConnectionResetError):
            self._lose(f"died before {method}")

    def _answer(self, question: str) -> Any:
        outcome, value = self._receive(question, self._answer_seconds)
        if outcome == "error":
            raise value
        if outcome == "failure":
            raise OracleError(f"the kernel's worker failed at {question[:500]}:\n{value}")
        return value

    def _receive(self, question: str, seconds: float) -> tuple[str, Any]:
        try:
            if not self._connection.poll(seconds):
                self._process.kill()
                self._lose(f"did not answer {question[:500]} within {seconds:g} s")
            outcome, value = self._connection.recv()
        except (EOFError, ConnectionResetError):
            self._lose(f"died at {question[:500]}")
        return outcome, value

    def _lose(self, what: str) -> None:
        status = self._process.wait()
        self._messages.seek(0)
        told = self._messages.read()[-2000:].decode(errors="replace")
        self.close()
        raise OracleError(f"the kernel's worker {what} (exit status {status})\n{told}")


class KernelMount:
    """One stack mounted by the worker."""

    def __init__(self, kernel: Kernel, number: int) -> None:
        self._kernel = kernel
        self._number = number
        self.os = RemoteOs(kernel, number)

    def run(self, ops: Sequence[Op]) -> list[Outcome]:
        """Execute operations in one round trip."""
        outcomes: list[Outcome] = self._kernel.request("run", self._number, ops)
        return outcomes

    def snapshot(self, which: str | int) -> Snapshot:
        """Return what "merged", "upper" or the lower of this index shows."""
        snapshot: Snapshot = self._kernel.request("snapshot", self._number, which)
        return snapshot

    def look(self) -> Look:
        """Return all that the merged tree shows, inode numbers included."""
        seen: Look = self._kernel.request("look", self._number)
        return seen

    def lower_count(self) -> int:
        """Return how many lowers there are now."""
        count: int = self._kernel.request("lower_count", self._number)
        return count

    def remount(self, options: Mapping[str, str | bool]) -> None:
        """Unmount and mount again with these options."""
        self._kernel.request("remount", self._number, options)

    def take_up(self, options: Mapping[str, str | bool]) -> None:
        """Mount what was only prepared or laid down, with these options. Raises what mount(2) raises."""
        self._kernel.request("mount", self._number, options)

    def lay_down(self) -> None:
        """Unmount, closing open descriptors, and leave the layers to others."""
        self._kernel.request("unmount", self._number)

    def layer(self, which: str | int) -> int:
        """Return a descriptor (O_PATH) of "upper", "work" or the lower of this index."""
        place = self._kernel.request("place", self._number, which)
        return os.open(f"/proc/{self._kernel.pid}/root{place}", os.O_PATH | os.O_DIRECTORY)

    def close(self) -> None:
        """Unmount; the layers are gone."""
        if not self._kernel.lost:
            self._kernel.request("close", self._number)


class RemoteOs:
    """The os module as the worker has it inside one mount. Constants and classes are the host's own."""

    def __init__(self, kernel: Kernel, number: int) -> None:
        self._kernel = kernel
        self._number = number

    def __getattr__(self, name: str) -> Any:
        """Return the host's constant, or a function that makes this call inside the mount."""
        if name not in ("renameat2", "getdents"):
            here = getattr(os, name)
            if not callable(here) or isinstance(here, type):
                return here

        def remote(*args: Any, **kwargs: Any) -> Any:
            return self._kernel.request("call", self._number, name, args, kwargs)

        return remote


def _preferred_kind() -> str:
    """Return OVERLAYVFS_ORACLE if set ("root", "userns", "none"), else the best this user can hope for."""
    return os.environ.get("OVERLAYVFS_ORACLE") or ("root" if is_root() else "userns")


@cache
def _found_on(filesystem: str) -> Kernel:
    if sys.platform != "linux" or not is_root():
        raise NoOracle(f"an image of {filesystem} can be mounted by root on Linux only")
    return Kernel("root", filesystem=filesystem)


@cache
def _found(kind: str) -> Kernel:
    if sys.platform != "linux":
        raise NoOracle(f"no overlayfs on {sys.platform}")
    if kind == "none":
        raise NoOracle("switched off by OVERLAYVFS_ORACLE=none")
    try:
        return Kernel(kind)
    except NoOracle as first:
        if kind == "userns" or "OVERLAYVFS_ORACLE" in os.environ:
            raise
        # Root in a container without CAP_SYS_ADMIN may still have a user namespace.
        try:
            return Kernel("userns")
        except NoOracle as second:
            raise NoOracle(f"as root: {first}; in a user namespace: {second}") from second
