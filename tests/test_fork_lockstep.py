"""Forks of forks under random operations: each equals a kernel mount of a full copy that was driven the same way."""

import time

import pytest
from fork_family import run_family

from overlayvfs.testing.bodies import EngineOnHost, EngineOnMemory
from overlayvfs.testing.kernel import Kernel
from overlayvfs.testing.random_stacks import Profile

pytestmark = [pytest.mark.kernel, pytest.mark.slow]

PROFILES = {
    "plain": Profile(),
    "hostile": Profile(hostile=True),
    "marks": Profile(marks=True),
    "redirect_dir": Profile(options={"redirect_dir": "on"}),
    "index": Profile(options={"index": "on"}),
    "metacopy": Profile(options={"metacopy": "on"}),
}
BODIES = {"memory": EngineOnMemory, "host": EngineOnHost}

LENGTH = 50


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("on", BODIES)
def test_forks_of_fixed_seeds_equal_the_kernel(oracle: Kernel, on: str, profile: str):
    compared = sum(run_family(oracle, BODIES[on], PROFILES[profile], seed, LENGTH) for seed in range(12))
    # A family of one proves nothing about forks.
    assert compared > 36


def test_forks_of_fresh_seeds_equal_the_kernel(oracle: Kernel, pytestconfig: pytest.Config):
    first = pytestconfig.option.seed
    sequences = compared = 0
    started = time.monotonic()
    while sequences == 0 or time.monotonic() - started < pytestconfig.option.kernel_seconds:
        profile = list(PROFILES.values())[sequences % len(PROFILES)]
        body = EngineOnHost if sequences % 4 == 3 else EngineOnMemory
        compared += run_family(oracle, body, profile, first + sequences, LENGTH)
        sequences += 1
    print(f"fresh families from seed {first}: {sequences} sequences, {compared} overlays compared")
