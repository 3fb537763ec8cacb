"""Hypothesis at the wheel: engine and kernel side by side, one operation at a time.

    class TestLockstep(machine(EngineOnMemory, Profile())):
        pass

Each result is compared at once and the trees at the end. A failure shrinks to few operations and carries a test that
can be pasted (`lockstep.run_random` is many times faster and finds as much; Hypothesis shrinks what it found itself).
"""

from random import Random
from typing import Any, Final

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from overlayvfs.testing.kernel import Kernel, Transcript
from overlayvfs.testing.lockstep import Divergence, MakeBox, compare, perform, snapshots_of
from overlayvfs.testing.minimise import Trial
from overlayvfs.testing.ops import Op, Outcome, Runner, as_source
from overlayvfs.testing.random_stacks import Profile, random_stack
from overlayvfs.testing.sequences import Operations

SETTINGS: Final = settings(
    deadline=None,
    max_examples=60,
    stateful_step_count=25,
    phases=(Phase.generate, Phase.shrink),
    database=None,
    # Stacks are drawn value by value and are large; the kernel is asked once a step.
    suppress_health_check=[HealthCheck.data_too_large, HealthCheck.large_base_example, HealthCheck.too_slow],
    print_blob=False,
)
"""What suits the machine: half a minute."""


class Lockstep(RuleBasedStateMachine):
    """The machine; subclasses say what is under test (`machine` makes one)."""

    make_box: MakeBox
    profile: Profile

    def __init__(self) -> None:
        super().__init__()
        self._kernel = Kernel.find()
        self._ops: list[Op] = []
        self._ours: list[Outcome] = []
        self._theirs: list[Outcome] = []
        self._mounted = False

    @initialize(rng=st.randoms(use_true_random=False))
    def mount(self, rng: Random) -> None:
        """Mount one random stack on both sides."""
        self._stack = random_stack(rng, self.profile)
        self._box = type(self).make_box()
        self._box.start(self._stack)
        self._runner = Runner(self._box.os)
        self._mount = self._kernel.mount(self._stack)
        self._operations = Operations(rng, self._stack, self.profile)
        self._mounted = True

    @precondition(lambda self: self._mounted)
    @rule(rng=st.randoms(use_true_random=False))
    def step(self, rng: Random) -> None:
        """Execute one random operation on both sides."""
        self._operations.draw_from(rng)
        op, ours = perform(self._box, self._runner, self._operations.draw())
        [theirs] = self._mount.run([op])
        self._operations.learn(op, ours)
        self._ops.append(op)
        self._ours.append(ours)
        self._theirs.append(theirs)
        if ours != theirs:
            raise Divergence(self._trial(), [f"{as_source(op)}: kernel {theirs!r}, engine {ours!r}"])

    def teardown(self) -> None:
        """Compare the trees, then unmount both."""
        if not self._mounted:
            return
        try:
            theirs = {which: self._mount.snapshot(which) for which in (*range(len(self._stack.lowers)), *self._tops())}
            ours = Transcript(self._ours, snapshots_of(self._box, self._stack))
            # A step that differed has said so itself.
            if self._ours == self._theirs:
                found = compare(ours, Transcript(self._theirs, theirs), self._ops)
                if found:
                    raise Divergence(self._trial(), found)
        finally:
            self._runner.close()
            self._mount.close()
            self._box.finish()

    def _tops(self) -> tuple[str, ...]:
        return ("merged",) if self._stack.upper is None else ("upper", "merged")

    def _trial(self) -> Trial:
        return Trial(self._stack, tuple(self._ops))


def machine(make_box: MakeBox, profile: Profile) -> Any:
    """Return the unittest.TestCase of a machine over these boxes, for a test class to inherit."""
    made: Any = type("LockstepOf", (Lockstep,), {"make_box": staticmethod(make_box), "profile": profile})
    case = made.TestCase
    case.settings = SETTINGS
    return case
