"""The host's own unions, mounted in this process's mount namespace: the kernel's overlayfs, and fuse-overlayfs."""

import os
import shutil
import subprocess
from collections.abc import Sequence
from itertools import count
from pathlib import Path

from overlayvfs.testing import hostos


class Union:
    """A way to mount layers of the host as one tree; raises OSError where that can't be done."""

    name = "kernel overlayfs"
    lowers_max = 500

    def __init__(self, kind: str, place: Path) -> None:
        """Be "root", or the root of a user namespace ("userns"); every mount has a directory of its own in `place`."""
        self.kind = kind
        self._place = place
        self._numbers = count()

    def mount(self, lowers: Sequence[Path]) -> Path:
        """Mount read-only layers (highest first) below a fresh upper and return where the merged tree is."""
        place = self.place()
        self.attach(place, lowers)
        return place / "m"

    def place(self) -> Path:
        """Make the directories of one mount."""
        place = self._place / f"{self.name.split()[0]}{next(self._numbers)}"
        for name in ("u", "w", "m"):
            (place / name).mkdir(parents=True)
        return place

    def attach(self, place: Path, lowers: Sequence[Path]) -> None:
        """Mount at m in `place`, with u and w there as upper and work directory."""
        # Relative to where the lowers are: mount(2) takes one page of options, and they may be 500.
        base = os.path.commonpath([lower.parent for lower in lowers])
        data = "lowerdir=" + ":".join(os.path.relpath(lower, base) for lower in lowers)
        data += "".join(f",{name}={os.path.relpath(place, base)}/{name[0]}" for name in ("upperdir", "workdir"))
        self._mount(base, str(place / "m"), data)

    def detach(self, place: Path) -> None:
        """Unmount what `attach` mounted."""
        hostos.umount(str(place / "m"))

    def discard(self, merged: Path) -> None:
        """Take a mount and its upper away."""
        self.detach(merged.parent)
        shutil.rmtree(merged.parent)

    def _mount(self, base: str, target: str, data: str) -> None:
        here = os.open(".", os.O_PATH)
        try:
            os.chdir(base)
            hostos.mount("overlay", target, "overlay", 0, data + (",userxattr" if self.kind == "userns" else ""))
        finally:
            os.fchdir(here)
            os.close(here)


class FuseOverlayfs(Union):
    """The same in user space (containers/fuse-overlayfs): one process a mount, which ends with it."""

    name = "fuse-overlayfs"

    def _mount(self, base: str, target: str, data: str) -> None:
        program = shutil.which("fuse-overlayfs")
        if program is None:
            raise FileNotFoundError("fuse-overlayfs is not installed")
        ran = subprocess.run([program, "-o", data, target], cwd=base, capture_output=True, text=True, check=False)
        if ran.returncode:
            raise OSError(ran.stderr.strip())


def available(kind: str, place: Path) -> tuple[dict[str, Union], dict[str, str]]:
    """Return the unions that can be mounted here, by name, and for each other one the reason why not."""
    there: dict[str, Union] = {}
    missing: dict[str, str] = {}
    empty = place / "empty"
    empty.mkdir()
    for union in (Union(kind, place), FuseOverlayfs(kind, place)):
        try:
            union.discard(union.mount([empty]))
        except OSError as error:
            missing[union.name] = str(error)
        else:
            there[union.name] = union
    return there, missing
