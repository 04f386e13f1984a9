"""The two figures of a single decision: all plans by expected cost and score, and the parts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from masrouter.explanation import Explanation, PlanFigures
from masrouter.reporting.chart_axes import dollar_axis, legend_below
from masrouter.reporting.charts import draw
from masrouter.reporting.exhibit import Exhibit, named
from masrouter.reporting.number_formats import dollars, fixed, signed
from masrouter.reporting.palette import BAD, FIXED, GOOD, MUTED, ROUTER
from masrouter.types import Plan

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_ROWS = 40


def plans_chart(explanation: Explanation, name: str, other: Plan | None = None) -> Exhibit | None:
    """Expected score over expected cost of every plan; None where no cost is known.

    `other` is a plan to compare with, such as the best fixed plan.
    """
    priced = [p for p in explanation.plans if p.cost_usd is not None and p.cost_usd > 0]
    if not priced:
        return None
    chosen = explanation.decision.plan

    def paint(axes: Axes) -> None:
        _points(axes, priced, "every plan", color=MUTED.light, marker="o", s=12, alpha=0.7)
        best = _frontier(priced)
        axes.plot(
            [p.cost_usd or 0.0 for p in best],
            [p.score for p in best],
            color=MUTED.light,
            linewidth=0.9,
            label="nothing better for less",
        )
        compared = [p for p in priced if p.plan == other and other != chosen]
        if compared:
            _points(axes, compared, "best fixed plan", color=FIXED.light, marker="s", s=45)
        _points(
            axes,
            [p for p in priced if p.plan == chosen],
            "chosen",
            color=ROUTER.light,
            marker="*",
            s=120,
            zorder=5,
        )
        dollar_axis(axes)
        axes.set_xlabel("expected cost (US dollars, log scale)")
        axes.set_ylabel("expected score")
        legend_below(axes)

    shown = list(explanation.plans[:MOST_ROWS])
    if all(p.plan != chosen for p in shown):
        shown += [p for p in explanation.plans if p.plan == chosen]
    rows = tuple(
        (
            str(p.plan),
            fixed(p.utility, 4),
            fixed(p.score),
            dollars(p.cost_usd),
            str(p.logged_runs),
        )
        for p in shown
    )
    left_out = len(explanation.plans) - len(shown)
    cut = f" The table leaves out the last {left_out}." if left_out > 0 else ""
    return Exhibit(
        draw(f"{name}-plans", "Expected score over expected cost of every plan", paint,
             size=(4.2, 3.7)),
        f"All {len(explanation.plans)} plans on this query, as the critic compares them: scores "
        f"are linear, not bounded by 1.{cut}",
        ("plan", "utility", "expected score", "expected cost", "logged runs"),
        rows,
    )  # fmt: skip


def parts_chart(explanation: Explanation, name: str) -> Exhibit:
    """What each part of the model adds to the chosen plan's expected score."""
    parts = list(explanation.parts.items())

    def paint(axes: Axes) -> None:
        values = [value for _, value in parts]
        axes.barh(
            range(len(parts)),
            values,
            height=0.6,
            color=[(GOOD if value >= 0 else BAD).light for value in values],
        )
        span = max((abs(v) for v in values), default=1.0) or 1.0
        for y, value in enumerate(values):
            axes.text(
                value + (0.03 if value >= 0 else -0.03) * span,
                y,
                signed(value),
                va="center",
                ha="left" if value >= 0 else "right",
            )
        axes.axvline(0.0, color=MUTED.light, linewidth=0.8)
        axes.set_xlim(min(0.0, *values) - 0.28 * span, max(0.0, *values) + 0.28 * span)
        axes.set_yticks(range(len(parts)), [named(part) for part, _ in parts])
        axes.set_ylim(len(parts) - 0.5, -0.5)
        axes.set_xlabel("added to the expected score")

    return Exhibit(
        draw(f"{name}-parts", "Parts of the chosen plan's expected score", paint, size=(4.2, 2.0)),
        "The chosen plan's expected score by part: the plan whatever the query, counts of the "
        "text, its predicted domain, and its meaning. A part of 0 did not pay on held-out queries.",
        ("part", "added to the expected score"),
        tuple((part, signed(value, 4)) for part, value in parts),
    )


def _points(axes: Axes, plans: list[PlanFigures], label: str, **style: object) -> None:
    axes.scatter(
        [p.cost_usd or 0.0 for p in plans],
        [p.score for p in plans],
        label=label,
        linewidths=0,
        **style,  # type: ignore[arg-type]
    )


def _frontier(plans: list[PlanFigures]) -> list[PlanFigures]:
    """Plans that no other beats on both counts, cheapest first."""
    kept: list[PlanFigures] = []
    for plan in sorted(plans, key=lambda p: (p.cost_usd or 0.0, -p.score)):
        if not kept or plan.score > kept[-1].score:
            kept.append(plan)
    return kept
