"""Teeth: the lockstep finds bugs that are planted on purpose, each within 500 sequences, whoever is the judge."""

import pytest
from planted_bugs import BUGS

from overlayvfs.testing.bodies import EngineOnMemory
from overlayvfs.testing.judges import Judge
from overlayvfs.testing.kernel import Kernel
from overlayvfs.testing.lockstep import try_random
from overlayvfs.testing.modelbox import Model
from overlayvfs.testing.tally import Tally


def what_shows(judge: Judge, monkeypatch: pytest.MonkeyPatch, name: str) -> list[str]:
    """Plant a bug and return the first difference that it makes."""
    bug = BUGS[name]
    monkeypatch.setattr(bug.function, "__code__", bug.code())
    tally, found = Tally(), []
    while not found and tally.sequences < 500:
        _, found = try_random(judge, EngineOnMemory, bug.profile, tally.sequences, 30, tally)
    print(f"{name}: found after {tally.sequences} sequences: {found[:1]}")
    return found


@pytest.mark.kernel
@pytest.mark.slow
@pytest.mark.parametrize("name", BUGS)
def test_a_planted_bug_is_found(oracle: Kernel, monkeypatch: pytest.MonkeyPatch, name: str):
    assert what_shows(oracle, monkeypatch, name)


@pytest.mark.slow
@pytest.mark.parametrize("name", BUGS)
def test_a_planted_bug_is_found_without_a_kernel(monkeypatch: pytest.MonkeyPatch, name: str):
    assert what_shows(Model(), monkeypatch, name)


@pytest.mark.parametrize("name", ["rename leaves no whiteout", "copy up loses the owner"])
def test_an_easy_bug_is_found_at_once_without_a_kernel(monkeypatch: pytest.MonkeyPatch, name: str):
    assert what_shows(Model(), monkeypatch, name)


@pytest.mark.parametrize("name", BUGS)
def test_a_bug_can_be_planted_where_it_was(name: str):
    assert BUGS[name].code() is not BUGS[name].function.__code__
