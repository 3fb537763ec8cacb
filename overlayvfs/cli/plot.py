"""Curves on logarithmic axes, as PNG; needs matplotlib (`pip install overlayvfs[bench]`)."""

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

Curves = Mapping[str, Sequence[tuple[int, float]]]
"""By contender: (depth, ns) for every depth."""


def can_plot() -> bool:
    """Tell whether matplotlib is installed."""
    return find_spec("matplotlib") is not None


def plot(place: str | Path, title: str, curves: Curves) -> None:
    """Draw lookup cost against depth, log-log, one line a contender, into a PNG file."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import ScalarFormatter

    figure = Figure(figsize=(9, 5.5), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for name, points in curves.items():
        axes.plot(*zip(*points, strict=True), marker="o", markersize=3, linewidth=1.5, label=name)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.set_xlabel("lowers")
    axes.set_ylabel("ns a lookup")
    axes.set_title(title)
    axes.grid(visible=True, which="both", linewidth=0.3)
    axes.legend(fontsize=8)
    figure.savefig(str(place))
