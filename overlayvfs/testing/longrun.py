"""The long lockstep run: many random sequences over the engine and a judge, in several processes.

    python -m overlayvfs.testing.longrun --sequences 20000 --length 40 --hostile --marks --separate both --jobs 2
    python -m overlayvfs.testing.longrun --sequences 2000 --body back-and-forth --filesystem ext4 -o redirect_dir=on

Prints what was tried, how often each cell of the kernel's tables was hit, and every divergence as a test. Exit status:
0 if there is none, 1 otherwise. The seeds of a run are `--seed` and the numbers that follow.
"""

import argparse
import math
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import get_context

from overlayvfs.testing.backandforth import BackAndForth
from overlayvfs.testing.bodies import EngineOnHost, EngineOnMemory
from overlayvfs.testing.coverage import Coverage
from overlayvfs.testing.judges import JUDGES, Judge
from overlayvfs.testing.kernel import FILESYSTEMS, Kernel, NoOracle
from overlayvfs.testing.lockstep import Divergence, MakeBox, run_random
from overlayvfs.testing.modelbox import ModelBox, check_claimed
from overlayvfs.testing.random_stacks import Profile
from overlayvfs.testing.rotating import RotatingEngine
from overlayvfs.testing.tally import Tally
from overlayvfs.testing.trees import Unsupported

_CHUNK = 25
"""Sequences a process is given at a time: seconds of work."""

_BODIES: dict[str, MakeBox] = {
    "memory": EngineOnMemory,
    "host": EngineOnHost,
    "rotating": RotatingEngine,
    "model": ModelBox,
}
_IN_TURNS = "back-and-forth"
_SEPARATE: dict[str, tuple[bool, ...]] = {"no": (False,), "yes": (True,), "both": (False, True)}


@dataclass(slots=True)
class Report:
    """What a run, or a part of one, came to."""

    tally: Tally = field(default_factory=Tally)
    coverage: Coverage = field(default_factory=Coverage)
    divergences: list[str] = field(default_factory=list)

    def update(self, other: "Report") -> None:
        """Add another part."""
        self.tally.update(other.tally)
        self.coverage.update(other.coverage)
        self.divergences += other.divergences


def run_seeds(
    judged_by: str, filesystem: str, body: str, profiles: Sequence[Profile], seeds: Sequence[int], length: int
) -> Report:
    """Run the sequences of these seeds, each in the next profile's manner."""
    judge = judge_on(filesystem, judged_by)
    report = Report()
    for seed in seeds:
        profile = profiles[seed % len(profiles)]
        try:
            run_random(judge, maker(body, judge, profile, seed), profile, seed, length, report.tally, report.coverage)
        except Divergence as divergence:
            report.divergences.append(str(divergence))
    return report


def judge_on(filesystem: str, judged_by: str) -> Judge:
    """Return the judge of this name; the kernel's layers are on this file system. Raises NoOracle."""
    return Kernel.on(filesystem) if judged_by == "kernel" else JUDGES[judged_by]()


def maker(body: str, judge: Judge, profile: Profile, seed: int) -> MakeBox:
    """Return what makes the boxes of a sequence: in turns the engine or the kernel begins, as the seed says."""
    kernel = judge if isinstance(judge, Kernel) else None
    if body == _IN_TURNS:
        return partial(BackAndForth, kernel, engine_first=seed % 2 == 0)
    if body == "host" and profile.separate:
        # File systems of their own are the worker's to mount; without a remount they are never handed over.
        return partial(BackAndForth, kernel)
    return _BODIES[body]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run as the command line says; the exit status."""
    asked = _parser().parse_args(arguments)
    profiles = _profiles(asked)
    try:
        judge = judge_on(asked.filesystem, asked.judge).description
        if "model" in (asked.judge, asked.body):
            check_claimed(profiles, rotating=asked.body == "rotating")
    except (NoOracle, Unsupported) as error:
        print(f"no judge for this: {error}")  # noqa: T201 - a command speaks
        return 2
    last = asked.seed + asked.sequences - 1
    print(f"judge: {judge}", f"seeds {asked.seed} to {last}, {asked.length} operations each", sep="\n")  # noqa: T201
    started = time.monotonic()
    report = Report()
    for part in _parts(asked, profiles, started + asked.minutes * 60):
        report.update(part)
        if report.tally.sequences % 1000 < _CHUNK:
            print(f"{report.tally.sequences} sequences", file=sys.stderr, flush=True)  # noqa: T201
        for divergence in part.divergences:
            print(divergence, flush=True)  # noqa: T201
    print(report.tally, report.coverage, sep="\n")  # noqa: T201
    print(  # noqa: T201
        f"{len(report.divergences)} divergences in {report.tally.sequences} sequences "
        f"of {asked.length} operations; every cell hit at least {report.coverage.least()} times; "
        f"first seed {asked.seed}; {time.monotonic() - started:.0f} s"
    )
    return 1 if report.divergences else 0


def _parts(asked: argparse.Namespace, profiles: Sequence[Profile], deadline: float) -> Iterator[Report]:
    # Not forked: each process has a judge of its own.
    with ProcessPoolExecutor(asked.jobs, mp_context=get_context("spawn")) as pool:
        seeds = range(asked.seed, asked.seed + asked.sequences)
        futures = [
            pool.submit(
                run_seeds, asked.judge, asked.filesystem, asked.body, profiles, seeds[at : at + _CHUNK], asked.length
            )
            for at in range(0, asked.sequences, _CHUNK)
        ]
        for future in as_completed(futures):
            yield future.result()
            if time.monotonic() > deadline:
                pool.shutdown(cancel_futures=True)
                return


def _profiles(asked: argparse.Namespace) -> list[Profile]:
    options = dict(option.split("=", 1) for option in asked.option)
    closing = asked.body == "rotating"
    return [
        Profile(
            options,
            separate,
            asked.hostile,
            asked.marks,
            asked.read_only,
            asked.credentials,
            closing,
            asked.data_only,
            asked.remounts or asked.body == _IN_TURNS,
        )
        for separate in _SEPARATE[asked.separate]
    ]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m overlayvfs.testing.longrun",
        description="Run random sequences over this library's overlay and a judge, and compare everything.",
    )
    parser.add_argument("--sequences", type=int, default=2000, metavar="N")
    parser.add_argument("--length", type=int, default=30, metavar="N", help="operations in a sequence")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="the first sequence's seed")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="processes, each with a judge of its own")
    parser.add_argument("--minutes", type=float, default=math.inf, metavar="N", help="stop after that long")
    parser.add_argument("--judge", choices=JUDGES, default="kernel", help="who knows what is right")
    parser.add_argument(
        "--body",
        choices=(*_BODIES, _IN_TURNS),
        default="memory",
        help="what the engine's layers are (rotating: the judge's too), or the model in the engine's place, "
        f"or {_IN_TURNS}: directories that the kernel mounts at every other remount",
    )
    parser.add_argument(
        "--filesystem", choices=FILESYSTEMS, default="tmpfs", help="what the kernel's layers are on"
    )
    parser.add_argument("--separate", choices=_SEPARATE, default="no", help="every layer on a file system of its own")
    parser.add_argument("--hostile", action="store_true", help="arguments that no sane program passes")
    parser.add_argument("--marks", action="store_true", help="redirects made by hand in the initial layers")
    parser.add_argument("--read-only", action="store_true", help="no upper")
    parser.add_argument("--credentials", action="store_true", help="callers without privilege")
    parser.add_argument("--data-only", action="store_true", help="layers of contents alone at the bottom")
    parser.add_argument("--remounts", action="store_true", help="unmount and mount again every few operations")
    parser.add_argument("-o", "--option", action="append", default=[], metavar="NAME=VALUE", help="a mount option")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
