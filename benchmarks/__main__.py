"""Runs all families of benchmarks, or those named: `python -m benchmarks [--quick] [depth ops …]`.

A full run of all writes what it measured into benchmarks/: RESULTS.md, results.json and the plots.
"""

import argparse
import sys

from benchmarks import report
from benchmarks.families import cold, copyup, counts, depth, fork, listing, memory, ops, workflow
from benchmarks.lab import open_lab, spelt
from overlayvfs.cli.race import ROUNDS

FAMILIES = {
    "counts": counts,
    "depth": depth,
    "ops": ops,
    "cold": cold,
    "listing": listing,
    "copyup": copyup,
    "fork": fork,
    "workflow": workflow,
    "memory": memory,
}


def main() -> int:
    """Run what the command line names; 1 if a result or a count is wrong, never for a time."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("families", nargs="*", choices=[*FAMILIES, []], metavar="FAMILY", help=f"{' '.join(FAMILIES)}")
    parser.add_argument("--quick", action="store_true", help="check results and counts only: times mean nothing")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="for a first impression; figures need %(default)s")
    parser.add_argument("--out", help="write the report into this directory (a full run of all: benchmarks/)")
    arguments = parser.parse_args()
    with open_lab(quick=arguments.quick, rounds=arguments.rounds) as lab:
        for name in arguments.families or FAMILIES:
            FAMILIES[name].run(lab)
    if not arguments.quick:
        print("\nGoals")
        for goal in lab.goals:
            print(spelt(goal))
    complete = not (arguments.families or arguments.quick) and arguments.rounds == ROUNDS
    if arguments.out or complete:
        report.write(lab, arguments.out or report.HERE)
    return 0


if __name__ == "__main__":
    sys.exit(main())
