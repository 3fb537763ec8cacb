"""Commands as they are typed: words, quotes, comments, and what ends a command."""

from dataclasses import dataclass, field

_BLANK = " \t\r"
_ENDS = ";\n"
_SPECIAL = f"{_BLANK}{_ENDS}'\"\\#"
"""What stands for itself only behind a backslash or in quotes."""


class Unfinished(ValueError):
    """The text ends inside a quotation, or after a backslash: more is to come."""


def split(text: str) -> list[list[str]]:
    r"""Return the words of each command in `text`; commands end at `;` and at the end of a line.

    Quotes and backslashes are those of sh: '…' takes everything as it is, "…" leaves `\` its meaning before `"` and
    `\`, outside `\` takes the meaning of any character and of the end of a line. `#` at the start of a word begins a
    comment. Nothing is expanded.
    """
    scan = _Scan.of(text)
    if scan.quote:
        raise Unfinished(f"no closing {scan.quote}")
    if scan.escaped:
        raise Unfinished("nothing after the backslash")
    scan.end_word()
    return [words for words in scan.commands if words]


@dataclass(frozen=True, slots=True)
class Typed:
    """The word that is being typed at the end of a text."""

    text: str
    """As it is typed, quotes and backslashes included."""
    word: str
    """What it means so far."""
    command: str | None
    """The command it is an argument of; None: it is to be one itself."""
    quote: str
    """The quotation it is in: ', " or none."""

    def completed(self, rest: str, *, ends: bool) -> str:
        """Return it as it is typed with `rest` added, and what ends a word if that is the end of it."""
        if self.quote == "'":
            added = rest.replace("'", r"'\''")
        else:
            special = '"\\' if self.quote else _SPECIAL
            added = "".join(f"\\{char}" if char in special else char for char in rest)
        return self.text + added + (f"{self.quote} " if ends else "")


def last_word(text: str) -> Typed:
    """Return the word at the end of a text, be it not begun yet or in a quotation without end."""
    scan = _Scan.of(text)
    words = scan.commands[-1]
    begun = "" if scan.word is None else text[scan.start :]
    return Typed(begun, "".join(scan.word or ()), words[0] if words else None, scan.quote)


@dataclass(slots=True)
class _Scan:
    """The words of a text read character by character."""

    commands: list[list[str]] = field(default_factory=lambda: [[]])
    word: list[str] | None = None
    start: int = 0
    """Where the word begins."""
    quote: str = ""
    escaped: bool = False
    comment: bool = False

    @classmethod
    def of(cls, text: str) -> "_Scan":
        scan = cls()
        for at, char in enumerate(text):
            scan.comment = scan.comment and char != "\n"
            if scan.escaped:
                scan._take_escaped(char, at)
            elif scan.quote:
                scan._take_quoted(char)
            elif not scan.comment:
                scan._take(char, at)
        return scan

    def end_word(self) -> None:
        """Add the word to its command."""
        if self.word is not None:
            self.commands[-1].append("".join(self.word))
            self.word = None

    def _take(self, char: str, at: int) -> None:
        if char in _BLANK or char in _ENDS:
            self.end_word()
            if char in _ENDS:
                self.commands.append([])
        elif char == "#" and self.word is None:
            self.comment = True
        elif char == "\\":
            self.escaped = True
        else:
            word = self._begun(at)
            if char in "'\"":
                self.quote = char
            else:
                word.append(char)

    def _take_quoted(self, char: str) -> None:
        if char == self.quote:
            self.quote = ""
        elif char == "\\" and self.quote == '"':
            self.escaped = True
        else:
            self._begun(0).append(char)

    def _take_escaped(self, char: str, at: int) -> None:
        self.escaped = False
        if self.quote:
            self._begun(at).append(char if char in '\\"' else f"\\{char}")
        elif char != "\n":
            self._begun(at - 1).append(char)

    def _begun(self, at: int) -> list[str]:
        """Return the word, which begins here if none has begun."""
        if self.word is None:
            self.word, self.start = [], at
        return self.word
