"""What a run measured, for people (RESULTS.md and plots) and for programs (results.json)."""

import json
import os
import platform
from collections.abc import Iterable, Iterator
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import Any

import overlayvfs
from benchmarks.lab import Goal, Lab
from overlayvfs.cli.plot import can_plot, plot

HERE = Path(__file__).parent
PACKAGES = "fs", "sandfs"


def write(lab: Lab, place: str | Path) -> None:
    """Write RESULTS.md, results.json and, where matplotlib is installed, the plots into a directory."""
    place = Path(place)
    place.mkdir(parents=True, exist_ok=True)
    plots = {}
    if can_plot():
        for title, curves in lab.curves.items():
            plots[title] = f"depth-{title.replace(' ', '-')}.png"
            plot(place / plots[title], f"{title} that only the lowest layer has", curves)
    facts = machine(lab)
    (place / "results.json").write_text(json.dumps(as_json(lab, facts), indent=1) + "\n", encoding="utf-8")
    (place / "RESULTS.md").write_text("\n".join(_page(lab, facts, plots)) + "\n", encoding="utf-8")


def machine(lab: Lab) -> dict[str, str]:
    """Say when and where a run took place, and with what."""
    return {
        "date": date.today().isoformat(),
        "machine": f"{_processor()}, {os.cpu_count()} processors, {platform.system()} {platform.release()}",
        "load average": " ".join(f"{load:.1f}" for load in os.getloadavg()) if hasattr(os, "getloadavg") else "unknown",
        "Python": f"{platform.python_implementation()} {platform.python_version()}",
        "overlayvfs": overlayvfs.__version__,
        **{name: _version(name) for name in PACKAGES},
        "rounds": "quick: times mean nothing" if lab.quick else f"{lab.rounds} (fewer where one takes long)",
        **{f"without {name}": reason for name, reason in lab.missing.items()},
    }


def as_json(lab: Lab, facts: dict[str, str]) -> dict[str, Any]:
    """Return everything measured as JSON values: times in ns per operation."""
    return {
        "run": facts,
        "goals": [
            {
                "row": goal.row,
                "what": goal.what,
                "limit": goal.limit,
                "at_least": goal.at_least,
                "value": goal.value,
                "median": goal.ratio.median if goal.ratio else None,
                "cpu": goal.ratio.cpu if goal.ratio else None,
                "verdict": goal.verdict,
            }
            for goal in lab.goals
        ],
        "counts": [{"what": each.what, "counted": each.counted, "allowed": each.allowed} for each in lab.counts],
        "races": [
            {
                "name": result.name,
                "unit": result.unit,
                "times": {
                    name: {"best": times.best, "median": median(times.wall), "best_cpu": times.best_cpu}
                    for name, times in result.times.items()
                },
            }
            for result in lab.results
        ],
        "curves": lab.curves,
    }


def _page(lab: Lab, facts: dict[str, str], plots: dict[str, str]) -> Iterator[str]:
    yield "# Results"
    yield ""
    yield "Written by `python -m benchmarks`, which races all contenders in one run and checks every answer first."
    yield "Goals are ratios of the quickest rounds; beside them the median of the rounds' ratios, and the ratio of"
    yield "thread CPU time, which other work on the machine disturbs less."
    yield ""
    yield from _table(("", ""), facts.items())
    yield ""
    if not lab.quick:
        yield from _goals(sorted(lab.goals, key=lambda goal: int(goal.row.rstrip("b"))))
    for title, name in plots.items():
        yield ""
        yield f"![{title}, by depth]({name})"
    yield ""
    yield "## Layer calls"
    yield ""
    yield from _table(
        ("operation", "calls", "allowed"), ((each.what, each.counted, each.allowed) for each in lab.counts)
    )
    yield ""
    yield "## Races"
    for result in lab.results:
        yield ""
        yield f"### {result.name}"
        yield ""
        rows = (
            (name, f"{times.best:,.0f}", f"{median(times.wall):,.0f}", f"{times.best_cpu:,.0f}")
            for name, times in result.times.items()
        )
        yield from _table((f"ns per {result.unit}", "best", "median", "best CPU"), rows)


def _goals(goals: list[Goal]) -> Iterator[str]:
    verdicts = [goal.verdict for goal in goals]
    yield "## Goals"
    yield ""
    yield f"{verdicts.count('pass')} of {len(goals)} reached, {verdicts.count('MISS')} missed" + (
        f", {verdicts.count('n/a')} not measured." if "n/a" in verdicts else "."
    )
    yield ""
    yield from _table(("#", "work", "goal", "measured", "median", "CPU", ""), map(_goal_row, goals))


def _goal_row(goal: Goal) -> tuple[str, ...]:
    limit = f"{'≥' if goal.at_least else '≤'} {goal.limit:,g}"
    measured = f"{goal.value:,.4g}" if goal.value is not None else goal.note
    if goal.ratio is None:
        return goal.row, goal.what, limit, measured, "", "", goal.verdict
    return goal.row, goal.what, limit, measured, f"{goal.ratio.median:.4g}", f"{goal.ratio.cpu:.4g}", goal.verdict


def _table(head: tuple[str, ...], rows: Iterable[tuple[object, ...]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    for row in rows:
        yield f"| {' | '.join(map(str, row))} |"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(": ")[2] for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
