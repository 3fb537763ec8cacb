"""Commits of random changes into memory, a host directory and a plain file system, failing at each of their calls.

A longer run, with figures: `python tests/workspace_longrun.py commits`.
"""

import pytest
from commit_trials import HOW, KINDS, check_commit, check_failures, check_lower

pytestmark = pytest.mark.slow

SEEDS = range(20)
FAILING_SEEDS = range(3)


@pytest.mark.parametrize("kind", KINDS)
def test_target_equals_the_merged_tree(kind: str):
    changes = sum(check_commit(kind, seed) for seed in SEEDS)
    # Commits of nothing prove nothing.
    assert changes > 60


def test_commit_into_the_top_lower_changes_nothing_that_shows():
    for seed in range(40):
        check_lower(seed)


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("kind", KINDS)
def test_commit_that_fails_can_be_gone_on_with_and_rolled_back(kind: str, how: str):
    points = sum(check_failures(kind, seed, how) for seed in FAILING_SEEDS)
    print(points)
    assert points > 10
