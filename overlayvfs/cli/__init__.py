"""The `overlayvfs` command: each subcommand is a module of this package that adds its own parser."""

import argparse
import os
import sys
from collections.abc import Sequence

from overlayvfs import __version__
from overlayvfs.cli import bench, demo, shell

COMMANDS = (demo, shell, bench)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status: 0, 1 where it failed, 2 for a command line that makes no sense."""
    parser = argparse.ArgumentParser(
        prog="overlayvfs", description="Linux's OverlayFS in pure Python: read-only lowers, one writable upper."
    )
    parser.add_argument("--version", action="version", version=f"overlayvfs {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for command in COMMANDS:
        command.add_parser(commands)
    arguments = parser.parse_args(argv)
    try:
        status: int = arguments.run(arguments)
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read the output has seen enough; what is still buffered must not complain at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        print(f"overlayvfs: {error}", file=sys.stderr)
        return 1
    return status
