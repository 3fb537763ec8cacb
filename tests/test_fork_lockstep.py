"""Forks of forks under random operations: each equals a kernel mount of a full copy that was driven the same way.

A longer run, with figures: `python tests/workspace_longrun.py forks`.
"""

import time

import pytest
from fork_family import BODIES, LENGTH, PROFILES, Tally, run_family, run_mixed_family

from overlayvfs.testing.kernel import Kernel

pytestmark = [pytest.mark.kernel, pytest.mark.slow]


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("on", BODIES)
def test_forks_of_fixed_seeds_equal_the_kernel(oracle: Kernel, on: str, profile: str):
    tally = Tally()
    for seed in range(12):
        tally.update(run_family(oracle, BODIES[on], PROFILES[profile], seed, LENGTH))
    # A family of one proves nothing about forks.
    assert tally.compared > 36
    assert tally.rollbacks > 0


def test_forks_of_fresh_seeds_equal_the_kernel(oracle: Kernel, pytestconfig: pytest.Config):
    first = pytestconfig.option.seed
    tally = Tally()
    started = time.monotonic()
    while tally.sequences == 0 or time.monotonic() - started < pytestconfig.option.kernel_seconds:
        tally.update(run_mixed_family(oracle, first + tally.sequences))
    print(f"fresh families from seed {first}: {tally}")
