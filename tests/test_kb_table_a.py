"""KB's table A: what every operation gives, and does to the upper, for every state of the name it is called on.

The table is data/kb_table_a.json: rows of states with one result, and for option sets with another result that one.
"""

import json
import os
import stat
from pathlib import Path

import pytest

from overlayvfs.testing import OLD, Slot, call
from overlayvfs.testing.effects import effect
from overlayvfs.testing.states import STATES, arranged

TABLE = json.loads(Path(__file__).with_name("data").joinpath("kb_table_a.json").read_text())

OPTION_SETS = {
    "off": {},
    "redirect_dir=on": {"redirect_dir": "on"},
    "index=on": {"index": True},
    "metacopy=on": {"metacopy": True, "redirect_dir": "on"},
}

X = "/x"
RDWR_NEW = os.O_CREAT | os.O_EXCL | os.O_RDWR
LATER = OLD + 5_000_000_000

OPERATIONS = {
    "unlink": [call("unlink", X)],
    "rmdir": [call("rmdir", X)],
    "mkdir": [call("mkdir", X)],
    "open O_CREAT|O_EXCL": [call("open", X, RDWR_NEW, 0o644, slot=0)],
    "open O_CREAT|O_RDWR": [call("open", X, os.O_CREAT | os.O_RDWR, 0o644, slot=0)],
    "open O_RDONLY": [call("open", X, os.O_RDONLY, slot=0)],
    "open O_WRONLY (no write)": [call("open", X, os.O_WRONLY, slot=0)],
    "open O_RDONLY|O_TRUNC": [call("open", X, os.O_RDONLY | os.O_TRUNC, slot=0)],
    "open O_WRONLY|O_TRUNC": [call("open", X, os.O_WRONLY | os.O_TRUNC, slot=0)],
    "open O_WRONLY|O_APPEND, write 1": [
        call("open", X, os.O_WRONLY | os.O_APPEND, slot=0),
        call("write", Slot(0), b"+"),
    ],
    "mknod S_IFREG": [call("mknod", X, stat.S_IFREG | 0o644)],
    "mknod S_IFIFO": [call("mknod", X, stat.S_IFIFO | 0o644)],
    "mknod chr 0/0": [call("mknod", X, stat.S_IFCHR | 0o644, 0)],
    "symlink": [call("symlink", "anywhere", X)],
    "truncate(2)": [call("truncate", X, 2)],
    "chmod 0600": [call("chmod", X, 0o600)],
    "lchown same owner": [call("lchown", X, 0, 0)],
    "utime (no follow)": [call("utime", X, ns=(LATER, LATER), follow_symlinks=False)],
    "setxattr user.q (no follow)": [call("setxattr", X, "user.q", b"1", follow_symlinks=False)],
    "removexattr user.k (no follow)": [call("removexattr", X, "user.k", follow_symlinks=False)],
    "removexattr absent name": [call("removexattr", X, "user.absent", follow_symlinks=False)],
    "link x -> n": [call("link", X, "/n", follow_symlinks=False)],
    "rename x -> n": [call("rename", X, "/n")],
    "readlink": [call("readlink", X)],
    "listdir": [call("listdir", X)],
    "lstat (nlink)": [call("lstat", X)],
}


def expected_cells(operation, option_set):
    """Return state → result for one operation and option set, as the table tells it."""
    cells = {}
    for row in TABLE[operation]:
        # metacopy=on turns redirect_dir=on on, so the table names it only where it differs from that.
        chain = ("metacopy=on", "redirect_dir=on", "off") if option_set == "metacopy=on" else (option_set, "off")
        result = next(row[name] for name in chain if name in row)
        cells.update(dict.fromkeys(row["states"], result))
    return cells


def seen_cell(box, state, operation, options):
    layers = arranged(state, x=X)
    box.lower(layers.lower)
    box.upper(layers.upper)
    box.mount(**options)
    # The table's objects were looked up before: a merged directory has its origin mark by then.
    box.run([call("lstat", X)])
    before = box.snapshot("upper")
    outcomes = box.run([*OPERATIONS[operation], call("close", Slot(0))])[:-1]
    failed = next((outcome.error for outcome in outcomes if outcome.error), None)
    told = failed or shown(operation, outcomes[-1].value)
    return f"{told} {effect(before, box.snapshot('upper'))}".strip()


def shown(operation, value):
    if operation == "lstat (nlink)":
        return f"nlink={value['nlink']}"
    return str(value) if operation in ("readlink", "listdir") else "ok"


def test_table_a_has_a_row_for_every_operation_and_state():
    assert set(TABLE) == set(OPERATIONS)
    for operation in TABLE:
        assert sorted(expected_cells(operation, "off")) == sorted(STATES)


@pytest.mark.parametrize("option_set", OPTION_SETS)
@pytest.mark.parametrize("operation", OPERATIONS)
def test_table_a(make_box, operation, option_set):
    expected = expected_cells(operation, option_set)
    if not make_box().keeps_origins:
        # There a copy of a symlink has no origin mark (KB 14.9).
        expected = {
            state: cell for state, cell in expected.items() if not state.endswith(("symlink to file", "symlink"))
        }
    seen = {state: seen_cell(make_box(), state, operation, OPTION_SETS[option_set]) for state in expected}
    assert seen == expected
