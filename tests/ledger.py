"""The ledger: which section of overlayfs.rst holds, by which tests. `python -m tests.ledger` writes LEDGER.md.

What it says is in ledger.toml beside this file.
"""

import tomllib
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
LEDGER = HERE.parent / "LEDGER.md"

HEAD = """# Ledger

What Linux's [overlayfs.rst](https://docs.kernel.org/filesystems/overlayfs.html) promises, section by section, whether
it holds here, and the tests that show it. Made of `tests/ledger.toml` by `python -m tests.ledger`; that the tests are
there, and which of them a real mount is asked too, is a test itself (`tests/test_ledger.py`).

✓ holds, ◐ holds in part, ✗ does not hold. What differs on purpose is in the
[README](README.md#where-it-differs-from-linux).
"""


def load() -> dict[str, list[dict[str, Any]]]:
    """Return the rows: of each "section", and of what Linux has "beside" the document."""
    return tomllib.loads((HERE / "ledger.toml").read_text(encoding="utf-8"))


def page() -> str:
    """Return LEDGER.md."""
    rows = load()
    counts = ", ".join(f"{sum(row['verdict'] == mark for row in rows['section'])} {mark}" for mark in "✓◐✗")
    return "\n".join(
        [
            HEAD,
            f"{len(rows['section'])} sections: {counts}.",
            "",
            *_table("Section", rows["section"]),
            "",
            "Beside the document:",
            "",
            *_table("Subject", rows["beside"]),
            "",
        ]
    )


def _table(of: str, rows: list[dict[str, Any]]) -> list[str]:
    head = [f"| {of} | | What holds, and what not | Tests that Linux is asked too | Tests of this library alone |"]
    return [*head, "|---|---|---|---|---|", *map(_line, rows)]


def _line(row: dict[str, Any]) -> str:
    words = " ".join(row[key] for key in ("says", "why") if key in row)
    ours = [*_links(row.get("ours", [])), *([f"({row['judge']})"] if "judge" in row else [])]
    cells = (row["title"], row["verdict"], words, "<br>".join(_links(row.get("linux", []))), "<br>".join(ours))
    return f"| {' | '.join(cells)} |"


def _links(tests: list[str]) -> list[str]:
    return [f"[{test.partition('::')[2]}](tests/{test.partition('::')[0]}.py)" for test in tests]


if __name__ == "__main__":
    LEDGER.write_text(page(), encoding="utf-8")
