"""Draw the results of `make bench` as `throughput.png` and `growth.png`; run it with `.venv-bench/bin/python`.

The results are JSON: `{"throughput": {name: rps, …}, "growth": {"tenants": [[count, rps], …], "live": [[count, rps],
…]}}`, rps being mints a second, counts ascending. A cost is the inverse of a rate; 1 is that of the smallest count.
"""

import argparse
import json
from pathlib import Path
from typing import Literal

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

OURS, PEER, SECOND, INK = "#0b6e4f", "#a9b2bc", "#c4622d", "#22272e"
SERIES = {"tenants": ("tenants", OURS, "o"), "live": ("live sessions", SECOND, "s")}
"""Of each growth: what is counted, its colour, its marker; the markers tell them apart without colour."""

DOCS = Path(__file__).parents[2] / "docs"
INCHES = 8.0
DPI = 150


def bare(figure: Figure, title: str, grid: Literal["x", "y"]) -> Axes:
    """Return axes with a title at the left, a faint *grid* along `x` or `y`, and no frame."""
    axes = figure.add_subplot()
    axes.set_title(title, loc="left", color=INK, fontsize=12, pad=14)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(which="both", colors=INK, length=0)
    axes.grid(axis=grid, color="#e3e6ea")
    axes.set_axisbelow(True)
    return axes


def throughput(rates: dict[str, float]) -> Figure:
    """Bars from zero, the fastest on top, each with its mints a second."""
    names = sorted(rates, key=lambda name: rates[name])
    figure = Figure(figsize=(INCHES, 1.4 + 0.5 * len(names)), layout="constrained")
    axes = bare(figure, "Mints a second", "x")
    colours = [OURS if name.startswith("chatkit-mint") else PEER for name in names]
    bars = axes.barh(names, [rates[name] for name in names], color=colours, height=0.65)
    axes.bar_label(bars, [f"{rates[name]:,.0f}" for name in names], padding=5, color=INK)
    axes.set_xlim(0, max(rates.values()) * 1.12)
    axes.xaxis.set_major_formatter("{x:,.0f}")
    return figure


def growth(curves: dict[str, list[tuple[float, float]]]) -> Figure:
    """Lines of relative cost over a logarithmic count; flat at 1 is no growth."""
    figure = Figure(figsize=(INCHES, 4.0), layout="constrained")
    axes = bare(figure, "What a mint costs as the service fills up", "y")
    highest = 1.0
    for name, points in curves.items():
        counted, colour, marker = SERIES[name]
        counts = [count for count, _ in points]
        costs = [points[0][1] / rate for _, rate in points]
        highest = max(highest, *costs)
        axes.plot(counts, costs, color=colour, marker=marker, linewidth=2, label=counted)
        axes.annotate(
            f"{costs[-1]:.2f} times",
            (counts[-1], costs[-1]),
            xytext=(0, 9),
            textcoords="offset points",
            ha="center",
            color=colour,
        )
    axes.axhline(1, color=INK, linewidth=0.8, linestyle=":", zorder=1)
    axes.set_xscale("log")
    axes.margins(x=0.08)
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 5, 10]))
    axes.set_ylim(0, max(2.0, highest * 1.2))
    axes.set_xlabel("how many there are", color=INK)
    axes.set_ylabel("cost of a mint, smallest count = 1", color=INK)
    axes.legend(frameon=False, loc="lower right", labelcolor=INK)
    return figure


def main() -> None:
    """Read the results file, write both pictures, say where."""
    parser = argparse.ArgumentParser(description="Draw the results of `make bench`.")
    parser.add_argument("results", type=Path, help="the JSON file")
    parser.add_argument("directory", type=Path, nargs="?", default=DOCS, help="where the PNGs go; default: docs")
    given = parser.parse_args()
    results = json.loads(given.results.read_text())
    for name, figure in (("throughput", throughput(results["throughput"])), ("growth", growth(results["growth"]))):
        path = given.directory / f"{name}.png"
        # Without a software version the same results give the same bytes.
        figure.savefig(path, dpi=DPI, facecolor="white", metadata={"Software": None})
        print(f"wrote {path}")


if __name__ == "__main__":
    main()
