"""LEDGER.md tells the truth: it is up to date, complete, and every test it names is there and asks whom it says."""

import subprocess
import sys

import ledger
import pytest

SECTIONS = (
    *("Overlay objects", "Inode properties", "Upper and Lower", "Directories", "whiteouts and opaque directories"),
    *("readdir", "renaming directories", "Non-directories", "Permission model", "Multiple lower layers"),
    *("Metadata only copy up", "Data-only lower layers", "Specifying layers via file descriptors"),
    *("fs-verity support", "Sharing and copying layers", "Nesting overlayfs mounts", "Non-standard behavior"),
    *("redirect_dir", "index", "xino", "Changes to underlying filesystems", "NFS export", "UUID and fsid"),
    *("Volatile mount", "User xattr", "Testsuite"),
)
"""The titles of Documentation/filesystems/overlayfs.rst in its own order."""

ROWS = [row for rows in ledger.load().values() for row in rows]


def test_the_ledger_is_up_to_date():
    assert ledger.LEDGER.read_text(encoding="utf-8") == ledger.page(), "run: python -m tests.ledger"


def test_every_section_has_a_row():
    assert tuple(row["title"] for row in ledger.load()["section"]) == SECTIONS


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["title"])
def test_what_holds_has_a_test_and_what_does_not_a_reason(row):
    tests = [*row.get("linux", []), *row.get("ours", [])]
    assert row["verdict"] in "✓◐✗"
    assert len(set(tests)) == len(tests)
    assert tests or row["verdict"] == "✗"
    assert ("why" in row) == (row["verdict"] != "✓")
    # What no mount is asked says who judges instead.
    assert row.get("linux") or "judge" in row or row["verdict"] == "✗"


def collected(*arguments):
    """Return the tests pytest finds in the files named, as `file::function`."""
    files = {f"tests/{test.partition('::')[0]}.py" for row in ROWS for key in KEYS for test in row.get(key, [])}
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", *arguments]
    found = subprocess.run(
        [*command, *sorted(files)], cwd=ledger.HERE.parent, capture_output=True, text=True, check=False
    )
    assert found.returncode == 0, found.stdout + found.stderr
    return {line.partition("[")[0] for line in found.stdout.splitlines() if "::" in line}


KEYS = ("linux", "ours")


@pytest.fixture(scope="module")
def named():
    """Return which tests there are, and which of them ask a mount."""
    nodes = {key: collected(*arguments) for key, arguments in (("all", ()), ("linux", ("-m", "kernel")))}
    return {key: {node.removeprefix("tests/").replace(".py::", "::") for node in found} for key, found in nodes.items()}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["title"])
def test_every_test_named_is_there_and_asks_whom_it_says(row, named):
    linux, ours = (set(row.get(key, [])) for key in KEYS)
    assert linux | ours <= named["all"]
    assert linux <= named["linux"]
    assert not ours & named["linux"]
