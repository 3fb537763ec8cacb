"""The long random runs of what people do with a union: families of forks, and commits that fail; with figures.

    python tests/workspace_longrun.py forks --sequences 2000 --jobs 2
    python tests/workspace_longrun.py commits --sequences 2000 --jobs 2 --points 5

`forks`: each overlay of a family, at most five generations deep, is compared with a kernel mount that was driven the
same way. `commits`: each sequence is committed into memory, a host directory and a plain file system, whole, and
then with failures at its calls (at `--points` of them, drawn; by default at all), each rolled back or gone on with.

Exit status: 0 if all is as it should be, 1 if not, 2 if there is no kernel to ask. Seeds are `--seed` and those after.
"""

import argparse
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import get_context

from commit_trials import HOW, KINDS, check_failures
from fork_family import Tally, run_mixed_family

from overlayvfs.testing.kernel import Kernel, NoOracle

_CHUNK = 10


@dataclass
class Report:
    """What came of some seeds."""

    forks: Tally = field(default_factory=Tally)
    commits: int = 0
    failures: dict[tuple[str, str], int] = field(default_factory=dict)
    """Calls that failed, by kind of target and manner."""
    wrong: list[str] = field(default_factory=list)

    def update(self, other: "Report") -> None:
        """Add another part."""
        self.forks.update(other.forks)
        self.commits += other.commits
        for key, count in other.failures.items():
            self.failures[key] = self.failures.get(key, 0) + count
        self.wrong += other.wrong

    def __str__(self) -> str:
        if self.forks.sequences:
            return str(self.forks)
        told = [f"  {kind}, {how}: {count}" for (kind, how), count in sorted(self.failures.items())]
        return "\n".join([f"{self.commits} commits; {sum(self.failures.values())} failures:", *told])


def forks(seed: int, report: Report) -> None:
    """Drive one family."""
    report.forks.update(run_mixed_family(Kernel.find(), seed))


def commits(seed: int, report: Report, *, points: int) -> None:
    """Commit one sequence into each kind of target, in the manner of failing that is the seed's turn."""
    how = HOW[seed % len(HOW)]
    for kind in KINDS:
        failed = check_failures(kind, seed, how, points)
        report.update(Report(commits=1, failures={(kind, how): failed}))


def run(what: Callable[[int, Report], None], seeds: range) -> Report:
    """Run some seeds; whatever goes wrong is reported, and the next one is run."""
    report = Report()
    for seed in seeds:
        try:
            what(seed, report)
        except Exception:  # noqa: BLE001 - a crash is as wrong as a difference
            report.wrong.append(f"seed {seed}:\n{traceback.format_exc()}")
    return report


def main() -> int:
    """Run as the command line says; the exit status."""
    asked = _parser().parse_args()
    if asked.what == "forks":
        try:
            print(f"oracle: {Kernel.find().description}")
        except NoOracle as error:
            print(f"no overlay mount can be made here: {error}")
            return 2
    what = forks if asked.what == "forks" else partial(commits, points=asked.points)
    started, done, report = time.monotonic(), 0, Report()
    for part, count in _parts(asked, what):
        report.update(part)
        done += count
        print(f"{done} sequences, {len(report.wrong)} wrong, {time.monotonic() - started:.0f} s", file=sys.stderr)
        for wrong in part.wrong:
            print(wrong, flush=True)
    print(report)
    print(f"{len(report.wrong)} wrong; seeds {asked.seed} to {asked.seed + asked.sequences - 1}")
    return 1 if report.wrong else 0


def _parts(asked: argparse.Namespace, what: Callable[[int, Report], None]) -> Iterator[tuple[Report, int]]:
    # Not forked: each process has an oracle of its own.
    with ProcessPoolExecutor(asked.jobs, mp_context=get_context("spawn")) as pool:
        last = asked.seed + asked.sequences
        chunks = [range(at, min(at + _CHUNK, last)) for at in range(asked.seed, last, _CHUNK)]
        futures = {pool.submit(run, what, seeds): len(seeds) for seeds in chunks}
        for future in as_completed(futures):
            yield future.result(), futures[future]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("forks", "commits"))
    parser.add_argument("--sequences", type=int, default=2000, metavar="N")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="the first sequence's seed")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="processes")
    parser.add_argument("--points", type=int, default=sys.maxsize, metavar="N", help="failures of a commit, at most")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
