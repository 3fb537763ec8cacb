"""Teeth: the lockstep finds bugs that are planted on purpose, each within 500 sequences."""

import pytest
from planted_bugs import BUGS

from overlayvfs.testing.bodies import EngineOnMemory
from overlayvfs.testing.kernel import Kernel
from overlayvfs.testing.lockstep import try_random
from overlayvfs.testing.tally import Tally

pytestmark = [pytest.mark.kernel, pytest.mark.slow]


@pytest.mark.parametrize("name", BUGS)
def test_a_planted_bug_is_found(oracle: Kernel, monkeypatch: pytest.MonkeyPatch, name: str):
    bug = BUGS[name]
    monkeypatch.setattr(bug.function, "__code__", bug.code())
    tally, found = Tally(), []
    while not found and tally.sequences < 500:
        _, found = try_random(oracle, EngineOnMemory, bug.profile, tally.sequences, 30, tally)
    print(f"{name}: found after {tally.sequences} sequences: {found[:1]}")
    assert found
