"""Axes and marks that several figures share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from masrouter.evaluation.baselines import BEST_FIXED
from masrouter.reporting.exhibit import named
from masrouter.reporting.number_formats import dollars, signed, weight
from masrouter.reporting.palette import FIXED, INK, ROUTER
from masrouter.types import Interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FAR = 4.0
"""Times the usual distance from 0 at which a value is far out."""
COST_WEIGHT = "cost weight (score that a US dollar is worth)"


def reach(values: Sequence[float], intervals: Sequence[Interval]) -> list[list[float]]:
    """How far intervals reach below and above their values, as matplotlib's `yerr`."""
    below = [max(0.0, v - i.low) for v, i in zip(values, intervals, strict=True)]
    above = [max(0.0, i.high - v) for v, i in zip(values, intervals, strict=True)]
    return [below, above]


def forest(
    axes: Axes,
    entries: Sequence[tuple[str, float, Interval]],
    strong: str | None,
    label: str,
) -> None:
    """Values with intervals, one a line, the first on top.

    What lies far out would flatten all the rest: it is an arrow at the edge, with its value.
    """
    sizes = sorted(max(abs(i.low), abs(i.high)) for _, _, i in entries)
    usual = FAR * max(sizes[len(sizes) // 2], 1e-3)
    limit = 1.15 * max(1e-3, *(size for size in sizes if size <= usual), 0.0)
    axes.axvline(0.0, color=FIXED.light, linewidth=1.4)
    for y, (name, value, interval) in enumerate(entries):
        colour = (ROUTER if name == strong else FIXED if name == BEST_FIXED else INK).light
        size = 5 if name == strong else 3.5
        if abs(value) > limit:
            side = 1 if value > 0 else -1
            axes.plot([side * limit], [y], ">" if side > 0 else "<", color=colour, clip_on=False)
            axes.text(
                0.92 * side * limit, y, signed(value), va="center",
                ha="right" if side > 0 else "left", color=colour,
            )  # fmt: skip
            continue
        axes.errorbar(
            [value],
            [y],
            xerr=reach([value], [interval]),
            color=colour,
            marker="o",
            markersize=size,
            elinewidth=2.0 if name == strong else 1.0,
            capsize=2,
        )
    axes.set_xlim(-limit, limit)
    axes.set_yticks(range(len(entries)), [named(name, 24) for name, *_ in entries])
    axes.set_ylim(len(entries) - 0.5, -0.5)
    axes.set_xlabel(label)
    axes.locator_params(axis="x", nbins=5)


def weight_axis(axes: Axes, cost_weights: Sequence[float]) -> None:
    """Cost weights side by side: they begin at 0, which no logarithm shows."""
    axes.set_xticks(range(len(cost_weights)), [weight(w) for w in cost_weights])
    axes.set_xlabel(COST_WEIGHT)


def dollar_axis(axes: Axes, *, logarithmic: bool = True) -> None:
    """An axis of US dollars with few, plain labels; a cost of 0 has no logarithm."""
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

    locator: LogLocator | MaxNLocator = MaxNLocator(4)
    if logarithmic:
        axes.set_xscale("log")
        low, high = axes.get_xlim()
        few = math.log10(high / low) > 1.5
        locator = LogLocator(base=10.0, subs=(1.0,) if few else (1.0, 2.0, 5.0))
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: dollars(value)))
    axes.xaxis.set_minor_formatter(NullFormatter())


def legend_below(axes: Axes, columns: int = 2) -> None:
    handles, labels = axes.get_legend_handles_labels()
    axes.figure.legend(
        handles, labels, loc="outside lower center", ncols=columns, handlelength=1.6,
        columnspacing=1.0, labelspacing=0.35,
    )  # fmt: skip
