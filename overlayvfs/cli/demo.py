"""`overlayvfs demo`: this machine's Python library and a wheel, changed in memory, and what each change leaves there.

Every call it shows is the call it made; every number it gives was counted, on this machine, in this run.
"""

import argparse
import errno
import operator
import os
import stat
import sysconfig
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

import fs
from fs.base import FS
from fs.osfs import OSFS
from fs.zipfs import ZipFS

from overlayvfs import MemoryFS, OverlayFS
from overlayvfs.cli.commands import Session
from overlayvfs.cli.fingerprint import LEFT_OUT, fingerprint, paths
from overlayvfs.cli.page import Page
from overlayvfs.cli.shell import prompt, run_command
from overlayvfs.cli.words import split
from overlayvfs.marks import USER

SCRIPT = """\
where /zen.py /json/decoder.py /email/README {wheel}
diff /json/__init__.py
fork
rm -r json; mkdir json; where json json/decoder.py
rollback
where json json/decoder.py
"""


class Lower(NamedTuple):
    """A lower of the demo: what to call it, the file system that is stacked, and what on the host that shows."""

    name: str
    layer: FS
    path: str

    def files(self) -> list[str]:
        """Return the paths of its files, less those in directories LEFT_OUT."""
        return list(self.layer.walk.files(exclude_dirs=list(LEFT_OUT)))


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `demo` to the command line."""
    parser = commands.add_parser("demo", help="change this machine's Python library and a wheel, in memory only")
    parser.set_defaults(run=run)


def run(_: argparse.Namespace) -> int:
    """Show the demo on standard output; 0 if the lowers' hashes are the same before and after, else 1."""
    library = sysconfig.get_path("stdlib")
    with ExitStack() as opened:
        lowers = [Lower(library, OSFS(library), library), wheel()]
        for lower in lowers:
            opened.callback(lower.layer.close)
        return 0 if tell(Page(), lowers) else 1


def wheel() -> Lower:
    """Return the pip wheel that this Python carries; the installed package `fs` where it carries none."""
    # Debian keeps its wheels elsewhere, and says where.
    places = sysconfig.get_config_var("WHEEL_PKG_DIR"), f"{sysconfig.get_path('stdlib')}/ensurepip/_bundled"
    for place in filter(None, places):
        for path in Path(place).glob("pip-*.whl"):
            return Lower(path.name, ZipFS(str(path)), str(path))
    package = str(Path(fs.__file__).parent)
    return Lower(package, OSFS(package), package)


def tell(page: Page, lowers: Sequence[Lower]) -> bool:
    """Tell the story on `page`; True if every lower has the same fingerprint before and after."""
    page.title("Two lowers, read-only, and an upper in memory that takes every change")
    before = [fingerprint(lower.path) for lower in lowers]
    contents = [lower.files() for lower in lowers]
    upper = MemoryFS()
    page.row("upper", "MemoryFS()", "empty")
    for number, (lower, files) in enumerate(zip(lowers, contents, strict=True), 1):
        page.row(f"lower {number}", lower.name, f"{len(files):,} files")

    page.title("ofs = OverlayFS([lower1, lower2], upper)")
    ofs = OverlayFS([lower.layer for lower in lowers], upper)
    with ofs:
        change(page, ofs)
        page.title("The same tree in `overlayvfs shell LOWER…`, which takes a script, too: -c COMMANDS")
        type_commands(page, ofs, SCRIPT.format(wheel=contents[1][0]))

    page.title("What the upper holds now, in the kernel's own terms")
    show_upper(page, upper.os, lowers)

    page.title("The lowers again, by SHA-256 of every path, mode, size, mtime and byte")
    after = [fingerprint(lower.path) for lower in lowers]
    for number, (old, new) in enumerate(zip(before, after, strict=True), 1):
        verdict = "untouched" if old == new else "CHANGED"
        page.row(f"lower {number}", f"{old[:16]} before, {new[:16]} after", verdict)
    return before == after


def change(page: Page, ofs: OverlayFS) -> None:
    """Read, edit, delete, recreate and rename in `ofs`, and say what each call did."""

    def call(label: str, verb: str, *arguments: object) -> Any:
        function = operator.attrgetter(verb)(ofs)
        start = perf_counter()
        try:
            return function(*arguments)
        finally:
            page.call(label, f"ofs.{verb}({', '.join(map(repr, arguments))})", perf_counter() - start)

    text = call("read", "readtext", "this.py")
    page.remark(f"{len(text)} characters, straight from a lower. Reading leaves nothing behind.")
    names = call("list", "listdir", "/")
    page.remark(f"{len(names)} names: two layers, one directory.")

    call("edit", "appendtext", "json/__init__.py", "\n# edited\n")
    page.remark("Copied up first, with its mode, owner and times, then written. The lower keeps the original.")

    call("delete", "remove", "antigravity.py")
    page.remark("A lower cannot lose a name, so the upper gets a whiteout that hides it.")
    doomed = sum(1 for _ in ofs.walk.files("email"))
    call("delete", "removetree", "email")
    page.remark(f"{doomed} files gone, one whiteout: what hides a directory hides all below it.")

    call("recreate", "makedir", "email")
    call("", "writetext", "email/README", "A fresh start.\n")
    page.remark(f"The new directory is opaque: it shows {ofs.listdir('email')} and none of the {doomed}.")

    call("rename", "os.rename", "/this.py", "/zen.py")
    page.remark("A file is copied up, moved, and its old name whited out.")
    try:
        call("rename", "os.rename", "/json", "/yaml")
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        page.remark(f"EXDEV, {error.strerror}. So says the kernel too; mv(1) then copies, as ofs.movedir does.")


def type_commands(page: Page, ofs: OverlayFS, script: str) -> None:
    """Run commands of the shell on `ofs`, each shown as it is typed, with what it says."""
    session = Session([ofs])
    for line in script.splitlines():
        page.command(prompt(session), line)
        for words in split(line):
            run_command(session, words)


def show_upper(page: Page, tree: Any, lowers: Sequence[Lower]) -> None:
    """List everything in the upper as `ls -l` would, and say what each entry means to an overlay."""
    for path in paths(tree, "/"):
        st = tree.lstat(path)
        size = "0, 0" if is_whiteout(st) else f"{st.st_size:,}"
        page.row(stat.filemode(st.st_mode), f"{size:>8}  {path}", meaning(tree, path, st, lowers))


def meaning(tree: Any, path: str, st: os.stat_result, lowers: Sequence[Lower]) -> str:
    """Say what one entry of an upper does to what lies below it."""
    below = any(lower.layer.exists(path) for lower in lowers)
    marks = tree.listxattr(path, follow_symlinks=False)
    if is_whiteout(st):
        return "whiteout: hides the name below"
    if USER.opaque in marks:
        return f"opaque: {USER.opaque}={tree.getxattr(path, USER.opaque).decode()}"
    if stat.S_ISDIR(st.st_mode):
        return "merged with the directory below" if below else "new"
    if below:
        return "copied up"
    return "copied up, then moved" if USER.origin in marks else "new"


def is_whiteout(st: os.stat_result) -> bool:
    """Tell whether this is the character device 0/0 that hides a name."""
    return stat.S_ISCHR(st.st_mode) and st.st_rdev == 0
