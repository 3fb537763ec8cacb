"""Hypothesis at the wheel: engine and judge side by side, one operation at a time.

    class TestLockstep(machine(EngineOnMemory, Profile())):
        pass

Each result is compared at once and the trees at the end. A failure shrinks to few operations and carries a test that
can be pasted (`lockstep.run_random` is many times faster and finds as much; Hypothesis shrinks what it found itself).
"""

from collections.abc import Callable
from random import Random
from typing import Any, Final

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from overlayvfs.testing.judges import Judge
from overlayvfs.testing.kernel import Kernel, Transcript
from overlayvfs.testing.lockstep import Divergence, EngineSide, MakeBox
from overlayvfs.testing.minimise import Trial
from overlayvfs.testing.ops import Outcome, as_source
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
    find_judge: Callable[[], Judge]

    def __init__(self) -> None:
        super().__init__()
        self._judge = type(self).find_judge()
        self._theirs: list[Outcome] = []
        self._engine: EngineSide | None = None

    @initialize(rng=st.randoms(use_true_random=False))
    def mount(self, rng: Random) -> None:
        """Mount one random stack on both sides."""
        self._stack = random_stack(rng, self.profile)
        self._engine = EngineSide(type(self).make_box, self._stack)
        self._mount = self._judge.mount(self._stack, rotating=not self._engine.box.keeps_upper)
        self._operations = Operations(rng, self._stack, self.profile)

    @precondition(lambda self: self._engine is not None)
    @rule(rng=st.randoms(use_true_random=False))
    def step(self, rng: Random) -> None:
        """Execute one random operation on both sides."""
        engine = self._side()
        self._operations.draw_from(rng)
        ours = engine.perform(self._operations.draw())
        op = engine.ops[-1]
        [theirs] = self._mount.run([op])
        self._operations.learn(op, ours)
        self._theirs.append(theirs)
        if ours != theirs:
            raise Divergence(self._trial(), [f"{as_source(op)}: expected {theirs!r}, engine {ours!r}"])

    def teardown(self) -> None:
        """Compare the trees, then unmount both."""
        if self._engine is None:
            return
        engine = self._engine
        engine.finish()
        snapshots = {which: self._mount.snapshot(which) for which in (*range(self._mount.lower_count()), *self._tops())}
        self._mount.close()
        # A step that differed has said so itself.
        if engine.outcomes == self._theirs:
            found = engine.compare(Transcript(self._theirs, snapshots), self._judge)
            if found:
                raise Divergence(self._trial(), found)

    def _side(self) -> EngineSide:
        if self._engine is None:
            raise RuntimeError("not mounted")
        return self._engine

    def _tops(self) -> tuple[str, ...]:
        return ("merged",) if self._stack.upper is None else ("upper", "merged")

    def _trial(self) -> Trial:
        return Trial(self._stack, tuple(self._side().ops))


def machine(make_box: MakeBox, profile: Profile, find_judge: Callable[[], Judge] = Kernel.find) -> Any:
    """Return the unittest.TestCase of a machine over these boxes, for a test class to inherit."""
    members = {"make_box": staticmethod(make_box), "profile": profile, "find_judge": staticmethod(find_judge)}
    made: Any = type("LockstepOf", (Lockstep,), members)
    case = made.TestCase
    case.settings = SETTINGS
    return case
