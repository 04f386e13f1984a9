"""What is chosen as money matters more: topologies, counts, roles and models in stacked bars."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from masrouter.evaluation.choices import Mix
from masrouter.evaluation.summary import Evaluation, LearnerResult
from masrouter.reporting.chart_axes import legend_below, weight_axis
from masrouter.reporting.charts import draw
from masrouter.reporting.exhibit import Exhibit, named
from masrouter.reporting.number_formats import percent, weight
from masrouter.reporting.palette import OTHERS, PAPER, SERIES

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_NAMES = 9
"""Names with a colour of their own; the others are one."""


def mixes(evaluation: Evaluation, result: LearnerResult) -> tuple[Exhibit, ...]:
    """The four figures of what a learner chooses at each cost weight."""
    parts: tuple[tuple[str, str, str, Callable[[Mix], Mapping[str, float]]], ...] = (
        ("topologies", "Topologies", "% of queries", lambda mix: mix.topologies),
        ("counts", "Number of agents", "% of queries", lambda mix: mix.counts),
        ("roles", "Roles", "% of seats", lambda mix: mix.roles),
        ("models", "Models", "% of seats", lambda mix: mix.models),
    )
    return tuple(_mix(evaluation, result, *part) for part in parts)


def _mix(
    evaluation: Evaluation,
    result: LearnerResult,
    name: str,
    title: str,
    unit: str,
    shares: Callable[[Mix], Mapping[str, float]],
) -> Exhibit:
    told = [{} if at.mix is None else shares(at.mix) for at in result.at]
    total: dict[str, float] = {}
    for at in told:
        for key, share in at.items():
            total[key] = total.get(key, 0.0) + share
    if name == "counts":
        order = sorted(total, key=int)
    else:
        order = sorted(total, key=lambda key: (-total[key], key))
    shown, rest = order[:MOST_NAMES], order[MOST_NAMES:]

    def paint(axes: Axes) -> None:
        bottom = [0.0] * len(told)
        layers = [(key, [at.get(key, 0.0) for at in told], SERIES[i].light)
                  for i, key in enumerate(shown)]  # fmt: skip
        if rest:
            others = [sum(at.get(key, 0.0) for key in rest) for at in told]
            layers.append((f"{len(rest)} others", others, OTHERS.light))
        for key, heights, colour in layers:
            axes.bar(
                range(len(told)),
                [100 * height for height in heights],
                bottom=bottom,
                width=0.86,
                color=colour,
                edgecolor=PAPER.light,
                linewidth=0.5,
                label=named(_spoken(name, key), 24),
            )
            bottom = [b + 100 * h for b, h in zip(bottom, heights, strict=True)]
        axes.set_ylim(0, 100)
        axes.grid(visible=False)
        weight_axis(axes, evaluation.cost_weights)
        axes.set_ylabel(unit)
        legend_below(axes)

    lines = (min(len(order), MOST_NAMES + 1) + 1) // 2
    rows = tuple(
        (_spoken(name, key), *(percent(at.get(key, 0.0), 1) for at in told)) for key in order
    )
    return Exhibit(
        draw(
            f"mix-{name}",
            f"{title} chosen at each cost weight",
            paint,
            size=(4.2, 2.9 + 0.17 * lines),
        ),
        f"{title} that {result.name} chooses, in {unit}.",
        (title.lower(), *(weight(w) for w in evaluation.cost_weights)),
        rows,
    )


def _spoken(part: str, key: str) -> str:
    if part != "counts":
        return key
    return "1 agent" if key == "1" else f"{key} agents"
