"""Runs all families of benchmarks, or those named: `python -m benchmarks [--quick] [depth ops …]`."""

import argparse
import sys

from benchmarks.families import cold, depth, listing, ops
from benchmarks.lab import open_lab, spelt
from overlayvfs.cli.race import ROUNDS

FAMILIES = {"depth": depth, "ops": ops, "cold": cold, "listing": listing}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("families", nargs="*", choices=[*FAMILIES, []], metavar="FAMILY", help=f"{' '.join(FAMILIES)}")
    parser.add_argument("--quick", action="store_true", help="check results and counts only: times mean nothing")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="for a first impression; figures need %(default)s")
    arguments = parser.parse_args()
    with open_lab(quick=arguments.quick, rounds=arguments.rounds) as lab:
        for name in arguments.families or FAMILIES:
            FAMILIES[name].run(lab)
        print("\nGoals")
        for goal in lab.goals:
            print(spelt(goal))
    return 0


if __name__ == "__main__":
    sys.exit(main())
