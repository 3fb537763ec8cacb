"""`overlayvfs shell`: look at and change a stack of layers by hand or by script."""

import argparse
import cmd
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from fs.errors import FSError

from overlayvfs import MemoryFS, OverlayFS
from overlayvfs.cli.commands import COMMANDS, Session, UsageError
from overlayvfs.cli.words import Unfinished, last_word, split

_EPILOG = """\
Without --upper all changes are in memory and gone at the end, unless `commit` or `save` keeps them.
Exit status: 0; 1 for the first command of a script that fails, which is its last; 2 for one that makes no sense.
"""


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `shell` to the command line."""
    parser = commands.add_parser(
        "shell",
        help="look at and change a stack of directories, archives, or anything else that can be a layer",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("lowers", metavar="LOWER", nargs="+", help="a directory, archive or FS URL; the highest first")
    parser.add_argument("--upper", metavar="DIR", help="what takes the changes: a directory, FS URL or saved upper")
    parser.add_argument("-c", dest="script", metavar="COMMANDS", help="run these (separated by ; or lines) and leave")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run the commands of -c, of standard input, or of whoever is typing; return the exit status."""
    upper = MemoryFS() if arguments.upper is None else arguments.upper
    session = Session([OverlayFS(arguments.lowers, upper)])
    # Names that are no UTF-8 are shown as they are.
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="surrogateescape")
    with ExitStack() as closing:
        closing.callback(_close, session)
        if arguments.script is None and sys.stdin.isatty():
            Prompt(session).cmdloop()
            return 0
        return run_script(session, sys.stdin.read() if arguments.script is None else arguments.script)


def run_script(session: Session, text: str) -> int:
    """Run commands until one fails; return the exit status."""
    try:
        for words in split(text):
            status = run_command(session, words)
            if status:
                return status
    except Unfinished as error:
        print(f"overlayvfs: {error}", file=sys.stderr)
        return 2
    except EOFError:
        pass
    return 0


def run_command(session: Session, words: list[str]) -> int:
    """Run one command; say on standard error how it failed. EOFError: it was `exit`."""
    name, *rest = words
    try:
        if name not in COMMANDS:
            raise UsageError("there is no such command; `help` lists those there are")
        COMMANDS[name](session, rest)
    except UsageError as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        raise
    except (OSError, FSError) as error:
        sys.stdout.flush()
        print(f"{name}: {_reason(error)}", file=sys.stderr)
        return 1
    return 0


def _reason(error: OSError | FSError) -> str:
    """Return what went wrong, as other commands say it: the paths, then why."""
    cause = error if isinstance(error, OSError) else getattr(error, "exc", None)
    if not isinstance(cause, OSError) or not cause.strerror:
        return str(error)
    paths = [path for path in (cause.filename, cause.filename2) if isinstance(path, str) and path]
    return f"{' -> '.join(paths)}: {cause.strerror}" if paths else cause.strerror


def _close(session: Session) -> None:
    while session.trees:
        session.trees.pop().close()


def prompt(session: Session) -> str:
    """Say where we are and how many forks deep."""
    return f"{session.folder}{'+' * (len(session.trees) - 1)}> "


class Prompt(cmd.Cmd):
    """The shell as someone types: completion and history where Python has readline."""

    intro = "Type `help` for what there is, `exit` to leave."

    def __init__(self, session: Session) -> None:
        super().__init__()
        self._session = session
        self._begun = ""

    @property
    def prompt(self) -> str:  # type: ignore[override]
        """Say where we are, or that a quotation is open."""
        return "… " if self._begun else prompt(self._session)

    def cmdloop(self, intro: Any = None) -> None:
        """Ask for commands until `exit` or the end of the input; an interrupt gives up a line."""
        with _history():
            while True:
                try:
                    super().cmdloop(intro)
                except KeyboardInterrupt:
                    self._begun, intro = "", ""
                    print("^C")
                else:
                    return

    def onecmd(self, line: str) -> bool:
        """Run a line, or keep it until the rest of it comes; True to leave."""
        if line == "EOF":
            print()
            return True
        try:
            commands = split(self._begun + line)
        except Unfinished:
            self._begun += f"{line}\n"
            return False
        self._begun = ""
        try:
            for words in commands:
                run_command(self._session, words)
        except EOFError:
            return True
        return False

    def emptyline(self) -> bool:
        """Do nothing."""
        return False

    def completenames(self, text: str, line: str, begins: int, ends: int) -> list[str]:
        """Return what the word at the end of the line may become, from where readline says that it begins."""
        typed = last_word(self._begun + line[:ends])
        if typed.command is None:
            whole = [typed.completed(name[len(typed.word) :], ends=True) for name in self._names(typed.word)]
        else:
            folder, begun = os.path.split(typed.word)
            on_host = typed.command in COMMANDS and COMMANDS[typed.command].on_host
            whole = [
                typed.completed(name[len(begun) :] + "/" * is_dir, ends=not is_dir)
                for name, is_dir in self._entries(folder, begun, on_host=on_host)
            ]
        # Readline takes every blank for the end of a word, the quoted ones too.
        known = len(typed.text) - (ends - begins)
        return sorted(word[known:] for word in whole)

    completedefault = completenames

    def _names(self, begun: str) -> list[str]:
        return [name for name in COMMANDS if name.startswith(begun)]

    def _entries(self, folder: str, begun: str, *, on_host: bool) -> list[tuple[str, bool]]:
        """Return the names in a directory that begin so, and which are directories."""
        try:
            session = self._session
            entries = os.scandir(folder or ".") if on_host else session.tree.os.scandir(session.path(folder))
            return [(entry.name, entry.is_dir()) for entry in entries if entry.name.startswith(begun)]
        except OSError:
            return []


@contextmanager
def _history() -> Iterator[None]:
    """Let readline complete and remember, in this run and the next ones (XDG base directories: state)."""
    try:
        import readline
    except ImportError:
        yield
        return
    readline.set_completer_delims(" \t\n;")
    state = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "overlayvfs"
    with suppress(OSError):
        readline.read_history_file(state / "history")
    readline.set_history_length(1000)
    try:
        yield
    finally:
        with suppress(OSError):
            state.mkdir(parents=True, exist_ok=True)
            readline.write_history_file(state / "history")
