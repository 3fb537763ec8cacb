"""What the shell can do: each command a function over a session; its name and first line are what `help` shows."""

import errno
import os
import stat
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from overlayvfs import OverlayFS
from overlayvfs.engine.changes import Change


class UsageError(Exception):
    """A command line that makes no sense, with what to say about it."""


@dataclass(slots=True)
class Session:
    """One run of the shell: the trees, each a fork of the one before, and the directory commands start from."""

    trees: list[OverlayFS]
    folder: str = "/"

    @property
    def tree(self) -> OverlayFS:
        """The tree commands work on."""
        return self.trees[-1]

    def path(self, word: str) -> str:
        """Return the absolute path a word means; `..` is the name before it, also after a symlink."""
        return os.path.normpath(os.path.join("/", self.folder, word)).replace("//", "/")


Run = Callable[[Session, frozenset[str], Sequence[str]], None]


@dataclass(frozen=True, slots=True)
class Command:
    """One command of the shell."""

    name: str
    usage: str
    """Its arguments, as `help` shows them."""
    summary: str
    flags: frozenset[str]
    least: int
    most: int | None
    on_host: bool
    """Its paths are the host's."""
    run: Run

    def __call__(self, session: Session, words: Sequence[str]) -> None:
        """Run with these arguments. UsageError, and what the verbs raise."""
        flags: set[str] = set()
        rest = list(words)
        while rest and rest[0].startswith("-") and len(rest[0]) > 1:
            word = rest.pop(0)
            if word == "--":
                break
            flags.update(word[1:])
        if not flags <= self.flags or len(rest) < self.least or (self.most is not None and len(rest) > self.most):
            raise UsageError(f"usage: {self.name} {self.usage}".rstrip())
        self.run(session, frozenset(flags), rest)


COMMANDS: Final[dict[str, Command]] = {}


def _command(
    usage: str, *, flags: str = "", least: int = 0, most: int | None = None, on_host: bool = False
) -> Callable[[Run], Run]:
    """Enter a function, by its name and first line, as a command with these arguments."""

    def enter(run: Run) -> Run:
        name = run.__name__.strip("_")
        summary = (run.__doc__ or "").partition("\n")[0].rstrip(".")
        COMMANDS[name] = Command(name, usage, summary, frozenset(flags), least, most, on_host, run)
        return run

    return enter


# Looking


@_command("[-l] [PATH…]", flags="l")
def ls(session: Session, flags: frozenset[str], words: Sequence[str]) -> None:
    """List directories (-l: with modes, owners, sizes and times)."""
    show = _long if "l" in flags else _short
    for word in words or ["."]:
        path = session.path(word)
        if not _is_dir(session, path):
            show(session, path, word)
            continue
        if len(words) > 1:
            print(f"{word}:")
        for name in sorted(session.tree.os.listdir(path)):
            show(session, os.path.join(path, name), name)


@_command("PATH…", least=1)
def cat(session: Session, flags: frozenset[str], words: Sequence[str]) -> None:
    """Show what files hold."""
    sys.stdout.flush()
    for word in words:
        with _opened(session, word, os.O_RDONLY) as fd:
            while data := session.tree.os.read(fd, 1 << 20):
                sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


@_command("[PATH]", most=1)
def tree(session: Session, flags: frozenset[str], words: Sequence[str]) -> None:
    """Draw all that is below a directory."""
    _draw(session, session.path(words[0] if words else "."), "")


@_command("PATH…", least=1)
def stat_(session: Session, flags: frozenset[str], words: Sequence[str]) -> None:
    """Show the attributes of names (of a symlink itself)."""
    tree = session.tree.os
    for word in words:
        path = session.path(word)
        st = tree.lstat(path)
        print(f"{path}: {_kind(st.st_mode)}, {st.st_size} bytes, inode {st.st_ino}, links {st.st_nlink}")
        print(f"  {stat.filemode(st.st_mode)} ({stat.S_IMODE(st.st_mode):04o}), owner {st.st_uid}:{st.st_gid}")
        print(f"  modified {_when(st.st_mtime_ns)}.{st.st_mtime_ns % 10**9:09}")
        for name in tree.listxattr(path, follow_symlinks=False):
            print(f"  {name} = {tree.getxattr(path, name, follow_symlinks=False)!r}")


@_command("PATH…", least=1)
def where(session: Session, flags: frozenset[str], words: Sequence[str]) -> None:
    """Say which layer shows a path, and why."""
    for word in words:
        found = session.tree.where(session.path(word))
        print(found.explain if found.path in found.explain else f"{found.path}: {found.explain}")


# Changing


@_command("[-r] SOURCE… TARGET", flags="r", least=2)
def cp(session: Session, flags: frozenset[str], words: Sequence[str]) -> None:
    """Copy files (-r: and directories)."""
    for src, dst in _targets(session, words):
        if not _is_dir(session, src):
            session.tree.copy(src, dst, overwrite=True)
        elif "r" in flags:
            session.tree.copydir(src, dst, create=True)
        else:
            raise IsADirectoryError(errno.EISDIR, "Is a directory: cp -r copies it", src)


@_command("SOURCE… TARGET", least=2)
def mv(session: Session, flags: frozenset[str], words: Sequence[str]) -> None:
    """Move or rename; a directory that can't be renamed (EXDEV) is copied, as by mv(1)."""
    for src, dst in _targets(session, words):
        try:
            session.tree.os.rename(src, dst)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            session.tree.movedir(src, dst, create=True)


@_command("[-r] [-f] PATH…", flags="rf", least=1)
def rm(session: Session, flags: frozenset[str], words: Sequence[str]) -> None:
    """Remove files (-r: and directories, -f: what is not there is no error)."""
    for word in words:
        path = session.path(word)
        try:
            if "r" in flags and _is_dir(session, path, follow=False):
                session.tree.removetree(path)
            else:
                session.tree.os.unlink(path)
        except FileNotFoundError:
            if "f" not in flags:
                raise


@_command("[-p] PATH…", flags="p", least=1)
def mkdir(session: Session, flags: frozenset[str], words: Sequence[str]) -> None:
    """Make directories (-p: and those above)."""
    for word in words:
        if "p" in flags:
            session.tree.os.makedirs(session.path(word), exist_ok=True)
        else:
            session.tree.os.mkdir(session.path(word))


@_command("[-s] TARGET NAME", flags="s", least=2, most=2)
def ln(session: Session, flags: frozenset[str], words: Sequence[str]) -> None:
    """Give a file another name (-s: make a symlink)."""
    target, name = words
    if "s" in flags:
        session.tree.os.symlink(target, session.path(name))
    else:
        session.tree.os.link(session.path(target), session.path(name))


@_command("[-a] PATH TEXT…", flags="a", least=2)
def write(session: Session, flags: frozenset[str], words: Sequence[str]) -> None:
    """Write a line of text to a file (-a: at its end)."""
    line = f"{' '.join(words[1:])}\n".encode("utf-8", "surrogateescape")
    how = os.O_APPEND if "a" in flags else os.O_TRUNC
    with _opened(session, words[0], os.O_WRONLY | os.O_CREAT | how) as fd:
        session.tree.os.write(fd, line)


# The changes as a whole


@_command("[PATH…]")
def changes(session: Session, flags: frozenset[str], words: Sequence[str]) -> None:
    """List what differs from the lowers (A added, C changed, D deleted)."""
    for change in _chosen(session, words):
        what = f"  ({', '.join(change.what)})" if change.what else ""
        origin = f"  (was {change.renamed_from})" if change.renamed_from else ""
        print(f"{change.kind} {change.path}{'/' if change.is_dir else ''}{what}{origin}")


@_command("[PATH…]")
def diff(session: Session, flags: frozenset[str], words: Sequence[str]) -> None:
    """Show what changed in files, line by line."""
    for word in words or ["/"]:
        print(session.tree.diff(session.path(word)), end="")


@_command("[-n] [DIRECTORY]", flags="n", most=1, on_host=True)
def commit(session: Session, flags: frozenset[str], words: Sequence[str]) -> None:
    """Bring all changes into a directory; those of a fork into what it was forked from."""
    tries = "n" in flags
    if words:
        done = session.tree.commit(words[0], dry_run=tries)
    elif len(session.trees) == 1:
        raise UsageError("usage: commit [-n] DIRECTORY (without one only in a fork)")
    elif tries:
        done = session.tree.changes(session.trees[-2])
    else:
        done = session.trees[-2].merge(session.tree)
        session.trees.pop().close()
    print(f"{len(done)} change{'' if len(done) == 1 else 's'} {'would be ' if tries else ''}committed")


@_command("", most=0)
def fork(session: Session, flags: frozenset[str], words: Sequence[str]) -> None:
    """Go on in a copy of the tree: `commit` keeps it, `rollback` forgets it."""
    session.trees.append(session.tree.fork())


@_command("", most=0)
def rollback(session: Session, flags: frozenset[str], words: Sequence[str]) -> None:
    """Forget a fork; outside of one, all changes."""
    if len(session.trees) > 1:
        session.trees.pop().close()
    else:
        session.tree.discard()


@_command("FILE", least=1, most=1, on_host=True)
def save(session: Session, flags: frozenset[str], words: Sequence[str]) -> None:
    """Save the upper to a file of the host, for `--upper FILE` another time."""
    session.tree.save(words[0])


# The shell itself


@_command("[PATH]", most=1)
def cd(session: Session, flags: frozenset[str], words: Sequence[str]) -> None:
    """Start from another directory."""
    path = session.path(words[0] if words else "/")
    if not _is_dir(session, path):
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
    session.folder = path


@_command("", most=0)
def pwd(session: Session, flags: frozenset[str], words: Sequence[str]) -> None:
    """Show the directory paths start from."""
    print(session.folder)


@_command("[COMMAND]", most=1)
def help_(session: Session, flags: frozenset[str], words: Sequence[str]) -> None:
    """Say what there is."""
    if words and words[0] not in COMMANDS:
        raise UsageError(f"there is no command {words[0]}")
    for name in words or COMMANDS:
        command = COMMANDS[name]
        print(f"  {f'{name} {command.usage}':<28}{command.summary}")


@_command("", most=0)
def exit_(session: Session, flags: frozenset[str], words: Sequence[str]) -> None:
    """Leave; so does the end of the input."""
    raise EOFError


@contextmanager
def _opened(session: Session, word: str, flags: int) -> Iterator[int]:
    """Give a descriptor of the session's tree; errors name the path."""
    path = session.path(word)
    fd = session.tree.os.open(path, flags, 0o666)
    try:
        yield fd
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from error
    finally:
        session.tree.os.close(fd)


def _is_dir(session: Session, path: str, *, follow: bool = True) -> bool:
    return stat.S_ISDIR(session.tree.os.stat(path, follow_symlinks=follow).st_mode)


def _short(session: Session, path: str, name: str) -> None:
    print(name)


def _long(session: Session, path: str, name: str) -> None:
    st = session.tree.os.lstat(path)
    size = f"{os.major(st.st_rdev)}, {os.minor(st.st_rdev)}" if stat.S_ISCHR(st.st_mode) else str(st.st_size)
    target = f" -> {session.tree.os.readlink(path)}" if stat.S_ISLNK(st.st_mode) else ""
    owner = f"{st.st_uid}:{st.st_gid}"
    print(f"{stat.filemode(st.st_mode)} {st.st_nlink:3} {owner:<9} {size:>9} {_when(st.st_mtime_ns)} {name}{target}")


def _when(when_ns: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(when_ns // 10**9))


def _kind(mode: int) -> str:
    return _KINDS.get(stat.S_IFMT(mode), "object")


_KINDS: Final = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "directory",
    stat.S_IFLNK: "symlink",
    stat.S_IFCHR: "character device",
    stat.S_IFBLK: "block device",
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
}


def _draw(session: Session, path: str, margin: str) -> None:
    """Print what is below a directory, never through a symlink."""
    tree = session.tree.os
    names = sorted(tree.listdir(path))
    for name in names:
        at = os.path.join(path, name)
        st = tree.lstat(at)
        target = f" -> {tree.readlink(at)}" if stat.S_ISLNK(st.st_mode) else ""
        last = name == names[-1]
        print(f"{margin}{'`-- ' if last else '|-- '}{name}{target}")
        if stat.S_ISDIR(st.st_mode):
            _draw(session, at, margin + ("    " if last else "|   "))


def _targets(session: Session, words: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield (source, target): what is given last is a directory to put things in, or the new name of one. ENOTDIR."""
    *sources, last = words
    target = session.path(last)
    try:
        into = _is_dir(session, target)
    except FileNotFoundError:
        into = False
    if len(sources) > 1 and not into:
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), target)
    for word in sources:
        src = session.path(word)
        yield src, os.path.join(target, os.path.basename(src)) if into else target


def _chosen(session: Session, words: Sequence[str]) -> list[Change]:
    """Return the changes at and below the paths that were given, or all."""
    roots = [session.path(word) for word in words]
    return [
        change
        for change in session.tree.changes()
        if not roots or any(root in ("/", change.path) or change.path.startswith(f"{root}/") for root in roots)
    ]
