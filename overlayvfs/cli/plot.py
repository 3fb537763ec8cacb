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
    from matplotlib.ticker import EngFormatter, FixedFormatter, FixedLocator, NullLocator

    figure = Figure(figsize=(9, 5.5), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for number, (name, points) in enumerate(curves.items()):
        depths, costs = zip(*points, strict=True)
        # Thinner and thinner: lines that lie upon one another all show.
        width = max(1.2, 4.4 - 0.6 * number)
        axes.plot(depths, [ns * 1e-9 for ns in costs], marker="o", markersize=width + 2, linewidth=width, label=name)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    asked = sorted({depth for points in curves.values() for depth, _ in points})
    # Beside the powers of two there are limits such as the 500 lowers of the kernel.
    labelled = [depth for depth in asked if depth & (depth - 1) == 0 or depth == asked[-1]]
    axes.xaxis.set_major_locator(FixedLocator(labelled))
    axes.xaxis.set_major_formatter(FixedFormatter([str(depth) for depth in labelled]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(EngFormatter(unit="s"))
    axes.set_xlabel("lowers")
    axes.set_ylabel("time of one lookup")
    axes.set_title(title)
    axes.grid(visible=True, linewidth=0.4)
    axes.legend(fontsize=8)
    figure.savefig(str(place))
