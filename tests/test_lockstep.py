"""The engine and the kernel in lockstep over random stacks: fixed seeds, then fresh ones for as long as asked.

A longer run, with figures: `python -m overlayvfs.testing.longrun --help`.
"""

import time
from dataclasses import replace

import pytest
from hypothesis import Phase, settings

from overlayvfs.testing.bodies import EngineOnMemory
from overlayvfs.testing.coverage import OPERATIONS, SOURCES, TARGETS, Coverage
from overlayvfs.testing.kernel import Kernel
from overlayvfs.testing.lockstep import Divergence, run_random
from overlayvfs.testing.longrun import maker
from overlayvfs.testing.machine import SETTINGS, machine
from overlayvfs.testing.ops import call
from overlayvfs.testing.random_stacks import Profile
from overlayvfs.testing.rotating import RotatingEngine
from overlayvfs.testing.states import STATES, arranged
from overlayvfs.testing.tally import Tally

pytestmark = pytest.mark.kernel

PROFILES = {
    "plain": Profile(),
    "hostile": Profile(hostile=True),
    "read-only": Profile(read_only=True, hostile=True),
    "separate": Profile(separate=True, hostile=True),
    "marks": Profile(marks=True, hostile=True),
    "marks-separate": Profile(marks=True, separate=True),
    "credentials": Profile(credentials=True),
}
ALL = {"redirect_dir": "on", "index": "on", "metacopy": "on"}
OPTIONS = {
    "redirect_dir=on": Profile({"redirect_dir": "on"}, marks=True, hostile=True),
    "redirect_dir=follow": Profile({"redirect_dir": "follow"}, marks=True, hostile=True),
    "redirect_dir=nofollow": Profile({"redirect_dir": "nofollow"}, marks=True, hostile=True),
    "index=on": Profile({"index": "on"}, marks=True, hostile=True),
    "metacopy=on": Profile({"metacopy": "on"}, marks=True, hostile=True),
    "xino=on": Profile({"xino": "on"}, separate=True, marks=True),
    "all": Profile(ALL, marks=True, hostile=True),
    "all-separate": Profile({**ALL, "xino": "on"}, separate=True, marks=True),
    "all-remounts": Profile(ALL, marks=True, remounts=True),
    "data-only": Profile(data_only=True, marks=True, hostile=True),
    "data-only-metacopy": Profile({"metacopy": "on"}, data_only=True, marks=True),
    "data-only-read-only": Profile(data_only=True, read_only=True),
}
ROTATING = {
    **{name: replace(profile, closing=True) for name, profile in PROFILES.items() if not profile.read_only},
    "redirects": Profile(options={"redirect_dir": "on"}, hostile=True, closing=True),
    "metacopy": Profile(options={"metacopy": "on"}, closing=True),
}
"""What both sides are given while the layers of both rotate: every mark that one step leaves is read by the next."""
SHARE = 200
FIXED = {**dict.fromkeys(PROFILES, SHARE), **dict.fromkeys(OPTIONS, 80)}
"""Sequences of fixed seeds for each profile and body: together they may take three or four minutes."""

PROFILES |= OPTIONS
BODIES = ("memory", "host")


def run_seeds(oracle, make_box, profile, seeds, tally):
    for seed in seeds:
        run_random(oracle, make_box, profile, seed, 30, tally)


@pytest.mark.slow
@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("on", BODIES)
def test_fixed_seeds_show_no_divergence(oracle: Kernel, on: str, profile: str):
    tally = Tally()
    manner = PROFILES[profile]
    run_seeds(oracle, maker(on, oracle, manner, 0), manner, range(FIXED[profile]), tally)
    print(f"{on}, {profile}: {tally}")


def test_a_few_sequences_of_every_profile_show_no_divergence(oracle: Kernel):
    for profile in PROFILES.values():
        run_seeds(oracle, EngineOnMemory, profile, range(5), Tally())


@pytest.mark.slow
@pytest.mark.parametrize("profile", ROTATING)
def test_fixed_seeds_show_no_divergence_while_layers_rotate(oracle: Kernel, profile: str):
    tally = Tally()
    run_seeds(oracle, RotatingEngine, ROTATING[profile], range(SHARE), tally)
    print(f"rotating, {profile}: {tally}")


def test_a_few_sequences_show_no_divergence_while_layers_rotate(oracle: Kernel):
    boxes = []

    def make_box():
        boxes.append(RotatingEngine())
        return boxes[-1]

    for profile in ROTATING.values():
        run_seeds(oracle, make_box, profile, range(3), Tally())
    assert sum(box.rotations for box in boxes) >= 5 * len(boxes)


def test_most_operations_of_the_plain_profile_succeed(oracle: Kernel):
    tally = Tally()
    run_seeds(oracle, EngineOnMemory, PROFILES["plain"], range(150), tally)
    print(tally)
    assert tally.success_share >= 0.5
    # A generator whose operations mostly fail proves little, whatever the others do.
    failing = {name: tally.success_share_of(name) for name in tally.names() if tally.success_share_of(name) < 0.4}
    assert failing == {}


@pytest.mark.slow
def test_fresh_seeds_show_no_divergence(oracle: Kernel, pytestconfig: pytest.Config):
    seconds = pytestconfig.option.kernel_seconds
    first = pytestconfig.option.seed
    tally = Tally()
    profiles = list(PROFILES.values())
    started = time.monotonic()
    while tally.sequences == 0 or time.monotonic() - started < seconds:
        seed = first + tally.sequences
        run_random(oracle, EngineOnMemory, profiles[tally.sequences % len(profiles)], seed, 40, tally)
    print(f"fresh sequences from seed {first}: {tally}")


@pytest.mark.slow
class TestHypothesisAtTheWheel(machine(EngineOnMemory, PROFILES["plain"])):
    """Each result compared at once, the trees at the end."""


@pytest.mark.slow
class TestHypothesisAtTheWheelWithHostileArguments(machine(EngineOnMemory, PROFILES["hostile"])):
    """The same with arguments that no sane program passes."""


class Forgetful(EngineOnMemory):
    """An engine that tells every file's size as one more than it is."""

    def _os(self):
        real = super()._os()

        class Os:
            def __getattr__(self, name):
                return getattr(real, name)

            def truncate(self, path, size):
                real.truncate(path, size + 1)

        return Os()


def test_a_divergence_is_told_as_a_test_of_what_is_needed_for_it(oracle: Kernel):
    with pytest.raises(Divergence) as told:
        run_seeds(oracle, Forgetful, Profile(), range(100), Tally())
    lines = str(told.value).splitlines()
    test = lines[lines.index("def test_name_what_it_showed(box):") :]
    assert "seed" in lines[0]
    assert len(test) <= 4
    assert test[-1].startswith("    box.os.truncate(")


@pytest.mark.slow
def test_the_machine_tells_what_it_finds_as_a_test(oracle: Kernel):
    case = machine(Forgetful, Profile())("runTest")
    case.settings = settings(SETTINGS, phases=(Phase.generate,))
    with pytest.raises(Divergence) as told:
        case.runTest()
    lines = str(told.value).splitlines()
    test = lines[lines.index("def test_name_what_it_showed(box):") :]
    assert any(line.startswith("    box.os.truncate(") for line in test)


@pytest.mark.parametrize("state", STATES)
def test_coverage_knows_every_state_of_the_tables(state):
    box = EngineOnMemory()
    layers = arranged(state, x="/x")
    box.lower(layers.lower)
    box.upper(layers.upper)
    seen = box.raw_layers().state("/x")
    box.finish()
    assert seen == state


def test_coverage_counts_an_operation_in_its_cell():
    box = EngineOnMemory()
    box.lower(arranged("lower file", x="/x").lower)
    box.upper(arranged("upper dir, empty", x="/d").upper)
    layers, coverage = box.raw_layers(), Coverage()
    coverage.see(call("unlink", "/x"), layers)
    coverage.see(call("rename", "/d", "/x"), layers)
    coverage.see(call("rename", "/x", "/new"), layers)
    coverage.see(call("read", 0), layers)
    box.finish()
    assert dict(coverage.a) == {("unlink", "lower file"): 1, ("rename x -> n", "lower file"): 1}
    assert dict(coverage.b) == {("upper dir, empty", "lower file"): 1, ("lower file", "absent"): 1}
    assert coverage.least() == 0


def test_coverage_has_the_rows_and_columns_of_the_tables():
    assert (len(OPERATIONS), len(STATES)) == (26, 22)
    assert (len(SOURCES), len(TARGETS)) == (14, 17)
