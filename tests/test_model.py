"""The reference model against the kernel, and the engine against the model, which needs no kernel.

A longer run of either: `python -m overlayvfs.testing.longrun --body model` and `… --judge model`.
"""

import os
import time
from random import Random

import pytest

from overlayvfs.testing.bodies import EngineOnHost, EngineOnMemory, KernelBox
from overlayvfs.testing.hostos import is_root
from overlayvfs.testing.kernel import Kernel
from overlayvfs.testing.lockstep import EngineSide, run_random
from overlayvfs.testing.longrun import main as longrun
from overlayvfs.testing.machine import machine
from overlayvfs.testing.modelbox import Model, ModelBox, check_claimed
from overlayvfs.testing.ops import Outcome, Slot, call
from overlayvfs.testing.random_stacks import Profile, random_stack
from overlayvfs.testing.sequences import Operations
from overlayvfs.testing.stacks import Stack
from overlayvfs.testing.tally import Tally
from overlayvfs.testing.trees import DIR, WHITEOUT, Unsupported, directory

PROFILES = {
    "plain": Profile(),
    "hostile": Profile(hostile=True),
    "read-only": Profile(read_only=True, hostile=True),
    "separate": Profile(separate=True, hostile=True),
    "marks": Profile(marks=True, hostile=True),
    "marks-separate": Profile(marks=True, separate=True),
    "marks-read-only": Profile(marks=True, read_only=True, hostile=True),
    "redirect_dir=on": Profile({"redirect_dir": "on"}, marks=True, hostile=True),
    "redirect_dir=nofollow": Profile({"redirect_dir": "nofollow"}, marks=True, hostile=True),
    "xino=on": Profile({"xino": "on"}),
    "xino=off": Profile({"xino": "off"}, separate=True, marks=True),
}
"""All that the model claims."""

FEW, FIXED = 8, 200
"""Sequences of each profile: in every run of the tests, and in the slow ones."""


def run_seeds(judge, make_box, profile, seeds, tally=None):
    for seed in seeds:
        run_random(judge, make_box, profile, seed, 30, tally or Tally())


# The model against the kernel.


@pytest.mark.kernel
@pytest.mark.parametrize("profile", PROFILES)
def test_the_model_does_what_the_kernel_does(oracle: Kernel, profile: str):
    run_seeds(oracle, ModelBox, PROFILES[profile], range(FEW))


@pytest.mark.kernel
@pytest.mark.slow
@pytest.mark.parametrize("profile", PROFILES)
def test_the_model_does_what_the_kernel_does_at_length(oracle: Kernel, profile: str):
    tally = Tally()
    run_seeds(oracle, ModelBox, PROFILES[profile], range(1000, 1000 + FIXED), tally)
    print(f"{profile}: {tally}")


@pytest.mark.kernel
def test_the_model_lists_names_in_the_kernels_order(oracle: Kernel):
    # Outcomes have listings sorted: each layer's order is its file system's affair. This one's is tmpfs's.
    for seed in range(FEW):
        rng = Random(seed)
        stack = random_stack(rng, Profile())
        side, operations = EngineSide(ModelBox, stack), Operations(rng, stack, Profile())
        while len(side.ops) < 30:
            outcome = side.perform(operations.draw())
            operations.learn(side.ops[-1], outcome)
        theirs = KernelBox()
        theirs.start(stack)
        theirs.run(side.ops)
        directories = [path for path, entry in side.box.snapshot().items() if entry.kind == "dir"]
        expected = {path: theirs.os.listdir(path or "/") for path in directories}
        theirs.finish()
        assert {path: side.box.os.listdir(path or "/") for path in directories} == expected


@pytest.mark.kernel
@pytest.mark.slow
class TestTheModelWithHypothesisAtTheWheel(machine(ModelBox, PROFILES["hostile"])):
    """Each result compared at once, the trees at the end."""


# The engine against the model.


@pytest.mark.parametrize("profile", PROFILES)
def test_the_engine_does_what_the_model_does(profile: str):
    run_seeds(Model(), EngineOnMemory, PROFILES[profile], range(FEW))


@pytest.mark.slow
@pytest.mark.parametrize("profile", PROFILES)
def test_the_engine_does_what_the_model_does_at_length(profile: str):
    tally = Tally()
    run_seeds(Model(), EngineOnMemory, PROFILES[profile], range(2000, 2000 + FIXED), tally)
    print(f"{profile}: {tally}")


@pytest.mark.slow
@pytest.mark.skipif(not is_root(), reason="only root can keep trusted.overlay.* marks, which are the model's")
def test_the_engine_on_host_directories_does_what_the_model_does():
    run_seeds(Model(), EngineOnHost, PROFILES["hostile"], range(FIXED))


@pytest.mark.slow
def test_fresh_sequences_show_no_difference_from_the_model(pytestconfig: pytest.Config):
    seconds, first = pytestconfig.option.kernel_seconds, pytestconfig.option.seed
    tally, profiles = Tally(), list(PROFILES.values())
    started = time.monotonic()
    while tally.sequences == 0 or time.monotonic() - started < seconds:
        run_seeds(Model(), EngineOnMemory, profiles[tally.sequences % len(profiles)], [first + tally.sequences], tally)
    print(f"fresh sequences from seed {first}: {tally}")


@pytest.mark.slow
class TestHypothesisAtTheWheelWithTheModel(machine(EngineOnMemory, PROFILES["hostile"], Model)):
    """Each result compared with the model's at once, the trees at the end."""


def test_the_long_run_takes_the_model_for_a_judge(capsys: pytest.CaptureFixture):
    assert longrun(["--judge", "model", "--sequences", "3", "--hostile", "--marks"]) == 0
    assert "judge: the reference model" in capsys.readouterr().out


# What the model is.


def test_the_model_shows_the_upper_in_the_kernels_terms():
    box = ModelBox()
    box.lower({"/d/f": "x", "/gone": "x"})
    box.os.unlink("/gone")
    box.os.unlink("/d/f")
    box.os.rmdir("/d")
    box.os.mkdir("/d", 0o755)
    box.finish()
    assert box.upper_tree() == {"/d/": directory(opaque=True), "/gone": WHITEOUT}


def test_the_model_keeps_descriptors_between_calls_of_a_judge():
    mount = Model().mount(Stack([{"/f": "abc"}]))
    mount.run([call("open", "/f", os.O_RDONLY, slot=0)])
    outcomes = mount.run([call("read", Slot(0), 2)])
    mount.close()
    assert outcomes == [Outcome(b"ab")]


@pytest.mark.parametrize("options", [{"index": "on"}, {"metacopy": "on"}, {"userxattr": "on"}])
def test_the_model_refuses_what_it_does_not_claim_by_name(options: dict[str, str]):
    [(name, value)] = options.items()
    box = ModelBox()
    box.lower({"/d/": DIR})
    with pytest.raises(Unsupported, match=f"{name}={value}"):
        box.mount(**options)
    with pytest.raises(Unsupported, match=f"{name}={value}"):
        check_claimed([Profile(options)])


def test_the_model_refuses_rotating_layers(capsys: pytest.CaptureFixture):
    with pytest.raises(Unsupported, match="rotates"):
        Model().mount(Stack([{"/f": "x"}]), rotating=True)
    assert longrun(["--judge", "model", "--body", "rotating"]) == 2
    assert "the model rotates no layers" in capsys.readouterr().out


def test_the_model_refuses_callers_without_privilege():
    with pytest.raises(Unsupported, match="privilege"):
        check_claimed([Profile(credentials=True)])
