"""Commits of random changes into memory, a host directory and a plain file system, failing at each of their calls."""

import pytest
from commit_trials import KINDS, Failing, Trial, comparable
from fs.errors import FSError

from overlayvfs import OverlayFS
from overlayvfs.testing.snapshots import differences

pytestmark = pytest.mark.slow

SEEDS = range(20)
FAILING_SEEDS = range(3)


def check_commit(kind: str, seed: int) -> int:
    """Commit once; return how many paths changed."""
    trial = Trial(kind, seed)
    try:
        changes = len(trial.ofs.changes(content=True))
        trial.ofs.commit(trial.dst)
        assert differences(trial.merged(), trial.shown()) == [], f"{kind}, seed {seed}"
        return changes
    finally:
        trial.close()


def check_lower(seed: int) -> None:
    """Commit into the top lower; the merged tree stays what it is, and is the lowers' own from then on."""
    trial = Trial("memory", seed)
    try:
        merged = trial.merged()
        trial.ofs.commit(trial.box._layers[0])
        assert differences(merged, trial.merged()) == [], f"seed {seed}"
        assert trial.ofs.changes(content=True) == [], f"seed {seed}"
        trial.ofs.close()
        lowers = OverlayFS(trial.box._layers, userxattr=False)
        assert differences(merged, comparable(lowers._overlay, "memory", renamed=trial.renames)) == [], f"seed {seed}"
    finally:
        # The box would complain that a lower changed.
        trial.box._stack = None
        trial.close()


def check_failures(kind: str, seed: int, *, late: bool) -> int:
    """Fail at every changing call in turn, and each time roll back or go on; return at how many."""
    trial = Trial(kind, seed)
    try:
        before, merged = trial.shown(), trial.merged()
        failing = Failing()
        failing.late = late
        points = 0
        while True:
            failing.calls, failing.fail_at = 0, points
            try:
                trial.commit(failing)
            except FSError:
                points += 1
            else:
                break
            if points % 5 == 0 and seed % 2:
                # Gone on with, it ends as if it had never failed.
                trial.commit()
                break
            was_half_way = OverlayFS.roll_back_commit(trial.dst)
            if not was_half_way and trial.shown() == merged:
                # It failed when all was done but the cleaning up.
                break
            assert differences(before, trial.shown()) == [], f"{kind}, seed {seed}, call {points}, late {late}"
        trial.commit()
        assert differences(merged, trial.shown()) == [], f"{kind}, seed {seed}, after {points} failures, late {late}"
        return points
    finally:
        trial.close()


@pytest.mark.parametrize("kind", KINDS)
def test_target_equals_the_merged_tree(kind: str):
    changes = sum(check_commit(kind, seed) for seed in SEEDS)
    # Commits of nothing prove nothing.
    assert changes > 60


def test_commit_into_the_top_lower_changes_nothing_that_shows():
    for seed in range(40):
        check_lower(seed)


@pytest.mark.parametrize("late", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("kind", KINDS)
def test_commit_that_fails_is_gone_on_with_or_rolled_back(kind: str, late: bool):
    points = sum(check_failures(kind, seed, late=late) for seed in FAILING_SEEDS)
    assert points > 10
