"""Commands as they are typed: words, quotes, comments, and what ends a command."""

_BLANK = " \t\r"


class Unfinished(ValueError):
    """The text ends inside a quotation, or after a backslash: more is to come."""


def split(text: str) -> list[list[str]]:
    r"""Return the words of each command in `text`; commands end at `;` and at the end of a line.

    Quotes and backslashes are those of sh: '…' takes everything as it is, "…" leaves `\` its meaning before `"` and
    `\`, outside `\` takes the meaning of any character and of the end of a line. `#` at the start of a word begins a
    comment. Nothing is expanded.
    """
    commands: list[list[str]] = [[]]
    word: list[str] | None = None
    at = 0
    while at < len(text):
        char = text[at]
        at += 1
        if char in _BLANK or char in ";\n":
            if word is not None:
                commands[-1].append("".join(word))
                word = None
            if char in ";\n":
                commands.append([])
        elif char == "#" and word is None:
            end = text.find("\n", at)
            at = len(text) if end < 0 else end
        elif char in "'\"":
            quoted, at = _quoted(text, at, char)
            word = [*(word or ()), quoted]
        elif char == "\\":
            if at == len(text):
                raise Unfinished("nothing after the backslash")
            if text[at] != "\n":
                word = [*(word or ()), text[at]]
            at += 1
        else:
            word = [*(word or ()), char]
    if word is not None:
        commands[-1].append("".join(word))
    return [words for words in commands if words]


def _quoted(text: str, at: int, quote: str) -> tuple[str, int]:
    """Return what is quoted from `at` on, and where the text goes on."""
    found: list[str] = []
    while at < len(text):
        char = text[at]
        at += 1
        if char == quote:
            return "".join(found), at
        if char == "\\" and quote == '"' and text[at : at + 1] in ("\\", '"'):
            char = text[at]
            at += 1
        found.append(char)
    raise Unfinished(f"no closing {quote}")
