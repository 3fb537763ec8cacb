"""How the commands write to a terminal: a few columns, and colour only where someone is looking."""

import os
import shutil
import sys
import textwrap

_BOLD, _DIM, _CODE, _PLAIN = "\x1b[1m", "\x1b[2m", "\x1b[36m", "\x1b[0m"
_LABEL, _TEXT = 11, 46
"""Columns of the first two of a row's three parts."""


class Page:
    """A report on standard output, top to bottom: titles, labelled rows, calls with their times, remarks."""

    def __init__(self) -> None:
        self._out = sys.stdout
        # https://no-color.org
        self._coloured = self._out.isatty() and "NO_COLOR" not in os.environ
        self._width = min(shutil.get_terminal_size((100, 0)).columns, 100)

    def title(self, text: str) -> None:
        """Start a part of the page."""
        self._line(f"\n{self._ink(_BOLD, text)}")

    def row(self, label: str, text: str, note: str = "") -> None:
        """Write one labelled fact, and what there is to say about it at the right."""
        self._line(f"  {label:<{_LABEL}}{text:<{_TEXT}}  {self._ink(_DIM, note)}")

    def call(self, label: str, code: str, seconds: float) -> None:
        """Write a call that was made and the time it took."""
        took = f"{seconds * 1e3:.1f} ms"
        gap = max(2, self._width - 2 - _LABEL - len(code) - len(took))
        left = self._ink(_BOLD, f"{label:<{_LABEL}}") + self._ink(_CODE, code)
        self._line(f"  {left}{' ' * gap}{self._ink(_DIM, took)}")

    def command(self, prompt: str, line: str) -> None:
        """Write a command as it is typed; what it says comes below it."""
        self._line(f"{prompt}{self._ink(_CODE, line)}")

    def remark(self, text: str) -> None:
        """Say in words what is to be seen."""
        margin = " " * (2 + _LABEL)
        self._line(textwrap.fill(text, self._width, initial_indent=margin, subsequent_indent=margin))

    def _ink(self, ink: str, text: str) -> str:
        return f"{ink}{text}{_PLAIN}" if self._coloured and text else text

    def _line(self, text: str) -> None:
        print(text.rstrip(), file=self._out)
