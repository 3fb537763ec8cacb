"""KB's table B: rename of a source in every state onto a target in every state, and its effect.

The table is data/kb_table_b.json: a matrix of results per value of redirect_dir, and effects on the upper. Some
failures have one: whether an upper directory is empty Linux leaves to the upper's own rename, and by then the moved
directory has been copied up and has got its mark.
"""

import json
from pathlib import Path

import pytest

from overlayvfs.testing import call
from overlayvfs.testing.effects import effect
from overlayvfs.testing.states import arranged

TABLE = json.loads(Path(__file__).with_name("data").joinpath("kb_table_b.json").read_text())
SOURCES = list(TABLE["results"]["off"])


def expected_cells(source, redirect_dir):
    """Return target state → result for one source, as the table tells it."""
    # Effects under redirect_dir=on are told only for the sources that can't move without it.
    effects = TABLE["effects"][redirect_dir].get(source) or TABLE["effects"]["off"].get(source, {})
    results = zip(TABLE["targets"], TABLE["results"][redirect_dir][source], strict=True)
    return {target: f"{result} {effects.get(target, '')}".strip() for target, result in results}


def seen_cell(box, source, target, redirect_dir):
    moved = arranged(source, x="/s", y="/s-link", t="/s-target")
    replaced = arranged(target, x="/d", y="/d-link", t="/d-target")
    box.lower(moved.lower | replaced.lower)
    box.upper(moved.upper | replaced.upper)
    box.mount(redirect_dir=redirect_dir)
    # The table's objects were looked up before: a merged directory has its origin mark by then.
    box.run([call("lstat", "/s"), call("lstat", "/d")])
    before = box.snapshot("upper")
    [outcome] = box.run([call("rename", "/s", "/d")])
    return f"{outcome.error or 'ok'} {effect(before, box.snapshot('upper'))}".strip()


@pytest.mark.parametrize("redirect_dir", ["off", "on"])
@pytest.mark.parametrize("source", SOURCES)
def test_table_b(make_box, source, redirect_dir):
    expected = expected_cells(source, redirect_dir)
    seen = {target: seen_cell(make_box(), source, target, redirect_dir) for target in expected}
    assert seen == expected
