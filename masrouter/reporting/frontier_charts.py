"""Figures of what is gained: the frontier, the ranking, the difference at each cost weight.

Each function gives a figure with its data as a table.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from masrouter.evaluation.baselines import BEST_FIXED, ORACLE
from masrouter.evaluation.summary import Evaluation, LearnerResult
from masrouter.reporting.chart_axes import dollar_axis, forest, legend_below, reach, weight_axis
from masrouter.reporting.charts import draw
from masrouter.reporting.exhibit import Exhibit, named
from masrouter.reporting.number_formats import dollars, fixed, percent, signed, spread, weight
from masrouter.reporting.palette import FIXED, ORACLE_COLOUR, OTHERS, ROUTER, SERIES

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MARKERS = "^vDPX<>hp"
"""One fewer than the colours, so that no pair comes again soon."""


def frontier(evaluation: Evaluation, subject: str) -> tuple[Exhibit, ...]:
    """Mean score over mean cost, a point a cost weight: all learners, then closer, without the
    oracle. Nothing where costs do not allow it."""
    drawn = [result for result in evaluation.learners if result.curve]
    if not drawn:
        return ()
    rows = tuple(
        (
            result.name,
            weight(point.cost_weight),
            dollars(point.cost),
            fixed(point.score),
            spread(point.score_interval, fixed),
        )
        for result in drawn
        for point in result.curve
    )
    header = ("learner", "cost weight", "cost", "score", "95 % interval")
    whole = draw(
        "frontier",
        "Mean score over mean cost of every learner",
        lambda axes: _curves(axes, drawn, subject),
        size=(4.2, 5.2),
    )
    near = [result for result in drawn if result.name != ORACLE]
    close = draw(
        "frontier-close",
        "The same around the best fixed plan, without the oracle",
        lambda axes: _closer(axes, near, subject),
        size=(4.2, 5.2),
    )
    bars = "bars: 95 % bootstrap intervals over queries"
    return (
        Exhibit(
            whole,
            f"Score and cost over {evaluation.curve_queries} held-out queries, a point a cost "
            f"weight; up and left is better; {bars}. The oracle sees the outcomes before it "
            "chooses: much of its lead is luck that no router can have.",
            header,
            rows,
        ),
        Exhibit(
            close,
            f"The same, closer: without the oracle, around {named(subject)} and the best fixed "
            f"plan; {bars}.",
            header,
            tuple(row for row in rows if row[0] in (subject, BEST_FIXED)),
        ),
    )


def _curves(axes: Axes, drawn: Sequence[LearnerResult], subject: str) -> None:
    others = 0
    for result in sorted(drawn, key=lambda r: (r.name == subject, r.name == BEST_FIXED)):
        points = sorted(result.curve, key=lambda point: point.cost)
        x, y = [p.cost for p in points], [p.score for p in points]
        if result.name in (subject, BEST_FIXED):
            mine = result.name == subject
            axes.errorbar(
                x,
                y,
                yerr=reach(y, [p.score_interval for p in points]),
                label=named(result.name),
                color=(ROUTER if mine else FIXED).light,
                marker="o" if mine else "s",
                markersize=5 if mine else 4,
                linewidth=2.4 if mine else 1.6,
                elinewidth=0.7,
                capsize=1.5,
                zorder=5 if mine else 4,
            )
        elif result.name == ORACLE:
            axes.plot(x, y, ":", color=ORACLE_COLOUR.light, marker="*", markersize=5, label=ORACLE)
        else:
            axes.plot(
                x,
                y,
                color=SERIES[others % len(SERIES)].light,
                marker=MARKERS[others % len(MARKERS)],
                markersize=3,
                linewidth=0.8,
                label=named(result.name),
            )
            others += 1
    costs = [point.cost for result in drawn for point in result.curve]
    dollar_axis(axes, logarithmic=min(costs) > 0)
    axes.set_xlabel("mean cost of a query (US dollars)")
    axes.set_ylabel("mean score")
    legend_below(axes)


def _closer(axes: Axes, drawn: Sequence[LearnerResult], subject: str) -> None:
    _curves(axes, drawn, subject)
    points = [p for result in drawn if result.name in (subject, BEST_FIXED) for p in result.curve]
    costs, scores = [p.cost for p in points], [p.score for p in points]
    if min(costs) > 0:
        axes.set_xlim(min(costs) / 1.4, max(costs) * 1.4)
    room = max(0.15 * (max(scores) - min(scores)), 0.02)
    axes.set_ylim(min(scores) - room, max(scores) + 1.5 * room)


def ranking(evaluation: Evaluation, subject: str) -> Exhibit:
    """Every learner's mean difference in utility to the best fixed plan."""
    shown = [result for result in evaluation.learners if result.name != ORACLE]
    rows = tuple(
        (result.name, signed(result.difference), spread(result.interval))
        for result in evaluation.learners
    )
    chart = draw(
        "ranking",
        "Mean difference in utility to the best fixed plan, of every learner",
        lambda axes: forest(
            axes,
            [(r.name, r.difference, r.interval) for r in shown],
            subject,
            "utility above the best fixed plan",
        ),
        size=(4.2, 0.9 + 0.24 * len(shown)),
    )
    return Exhibit(
        chart,
        "Utility (score less cost weight times US dollars) above the best fixed plan's, mean over "
        "the cost weights. Bars: paired 95 % bootstrap intervals; one that crosses the line may be "
        "chance.",
        ("learner", "difference", "95 % interval"),
        rows,
    )


def differences(evaluation: Evaluation, subject: str) -> Exhibit:
    """The difference in utility to the best fixed plan at each cost weight."""
    mine = evaluation.learner(subject)
    others = [r for r in evaluation.learners if r.name not in (subject, ORACLE, BEST_FIXED)]

    def paint(axes: Axes) -> None:
        x = range(len(mine.at))
        for i, result in enumerate(others):
            axes.plot(
                x,
                [at.difference for at in result.at],
                color=OTHERS.light,
                linewidth=0.7,
                label="other learners" if i == 0 else None,
            )
        axes.axhline(0.0, color=FIXED.light, linewidth=1.6, label=BEST_FIXED)
        axes.errorbar(
            x,
            [at.difference for at in mine.at],
            yerr=reach([at.difference for at in mine.at], [at.interval for at in mine.at]),
            color=ROUTER.light,
            marker="o",
            markersize=5,
            linewidth=2.4,
            elinewidth=0.9,
            capsize=2,
            label=named(subject),
            zorder=5,
        )
        # A learner that is far off would flatten all that matters.
        low = min(at.interval.low for at in mine.at)
        high = max(at.interval.high for at in mine.at)
        room = max(high - low, 0.02)
        axes.set_ylim(min(low, 0.0) - 0.6 * room, max(high, 0.0) + 0.6 * room)
        weight_axis(axes, evaluation.cost_weights)
        axes.set_ylabel("utility above best fixed plan")
        legend_below(axes)

    rows = tuple(
        (
            weight(at.cost_weight),
            signed(at.difference),
            spread(at.interval),
            fixed(at.score),
            fixed(best.score),
            dollars(at.cost),
            dollars(best.cost),
            percent(at.pgr),
            percent(at.oracle_gap_share, 1),
        )
        for at, best in zip(mine.at, evaluation.learner(BEST_FIXED).at, strict=True)
    )
    return Exhibit(
        draw("differences", "Difference in utility at each cost weight", paint, size=(4.2, 3.6)),
        "The same at each cost weight. The scale fits the router; learners beyond it are cut off.",
        (
            "cost weight",
            "difference",
            "95 % interval",
            "score",
            "best fixed plan's",
            "cost",
            "best fixed plan's",
            "gap recovered (PGR)",
            "oracle gap",
        ),
        rows,
    )
