"""Figures of how good the choices are: calibration, domains, teams that were chosen for nothing.

Each function gives a figure with its data as a table, or None where the logs cannot tell.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from masrouter.evaluation.baselines import BEST_FIXED
from masrouter.evaluation.summary import Evaluation, LearnerResult
from masrouter.reporting.chart_axes import forest, legend_below, reach, weight_axis
from masrouter.reporting.charts import draw
from masrouter.reporting.exhibit import Exhibit, named
from masrouter.reporting.number_formats import dollars, fixed, percent, signed, spread, weight
from masrouter.reporting.palette import FIXED, MUTED, OTHERS, ROUTER
from masrouter.types import Interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_DOMAINS = 12
"""Domains that a figure shows; the table behind it has them all."""


def calibration(result: LearnerResult) -> Exhibit | None:
    """Realised over expected score; None where the learner expects none aloud."""
    told = result.calibration
    if told is None:
        return None

    def paint(axes: Axes) -> None:
        x, y = [b.expected for b in told.bins], [b.realised for b in told.bins]
        reached = [
            *x,
            *y,
            *(bound for b in told.bins for bound in (b.interval.low, b.interval.high)),
        ]
        low, high = max(0.0, min(reached) - 0.04), min(1.0, max(reached) + 0.04)
        axes.plot([low, high], [low, high], color=MUTED.light, linewidth=0.8, linestyle="--")
        axes.errorbar(
            x,
            y,
            yerr=reach(y, [b.interval for b in told.bins]),
            color=ROUTER.light,
            marker="o",
            markersize=5,
            linewidth=1.2,
            elinewidth=0.9,
            capsize=2,
        )
        axes.set_xlim(low, high)
        axes.set_ylim(low, high)
        axes.set_xlabel("expected score of the chosen plan")
        axes.set_ylabel("score that it got")

    rows = tuple(
        (
            fixed(b.expected),
            fixed(b.realised),
            spread(b.interval, fixed),
            str(b.choices),
            str(b.queries),
        )
        for b in told.bins
    )
    return Exhibit(
        draw("calibration", "Realised over expected score", paint),
        f"On the dashed line, expected scores mean what they say. {told.choices} choices at all "
        f"cost weights in {len(told.bins)} groups of about equal size; bars: 95 % bootstrap "
        f"intervals over queries. Expected calibration error {told.error:.3f}, Brier score "
        f"{told.brier:.3f}.",
        ("expected", "got", "95 % interval", "choices", "queries"),
        rows,
    )


def confusion(result: LearnerResult) -> Exhibit | None:
    """Predicted by true domain; None where the learner predicts none."""
    told = result.confusion
    if told is None:
        return None
    rows = tuple(
        (domain, str(n), *(percent(share) for share in shares))
        for domain, n, shares in zip(told.domains, told.queries, told.share, strict=True)
    )
    largest = sorted(range(len(told.domains)), key=lambda i: -told.queries[i])[:MOST_DOMAINS]
    shown = sorted(largest)
    weight_of = [sum(told.share[i][k] for i in shown) for k in range(len(told.predicted))]
    columns = sorted(sorted(range(len(told.predicted)), key=lambda k: -weight_of[k])[:MOST_DOMAINS])

    def paint(axes: Axes) -> None:
        from matplotlib.patches import Rectangle

        for y, i in enumerate(shown):
            for x, k in enumerate(columns):
                share = told.share[i][k]
                same = told.domains[i] == told.predicted[k]
                axes.add_patch(
                    Rectangle(
                        (x - 0.5, y - 0.5),
                        1,
                        1,
                        facecolor=(FIXED if same else ROUTER).light,
                        alpha=0.6 * share,
                        linewidth=0,
                    )
                )
                if share >= 0.005:
                    axes.text(x, y, f"{100 * share:.0f}", ha="center", va="center")
        axes.set_xlim(-0.5, len(columns) - 0.5)
        axes.set_ylim(len(shown) - 0.5, -0.5)
        axes.set_xticks(
            range(len(columns)), [named(told.predicted[k], 22) for k in columns], rotation=90
        )
        axes.set_yticks(range(len(shown)), [named(told.domains[i], 22) for i in shown])
        axes.set_xlabel("predicted from the text")
        axes.set_ylabel("true")

    cut = "" if len(shown) == len(told.domains) else f" The {len(shown)} largest are drawn."
    return Exhibit(
        draw(
            "confusion",
            "Predicted by true domain",
            paint,
            size=(4.2, 2.2 + 0.26 * len(shown)),
            grid=False,
        ),
        "What the router takes a held-out query for, in percent of each row; "
        f"{percent(told.accuracy)} right (95 % interval {spread(told.interval, percent)}); always "
        f"naming the largest would be {percent(told.largest)}.{cut}",
        ("true domain", "queries", *told.predicted),
        rows,
    )


def domains(result: LearnerResult) -> Exhibit | None:
    """The difference to the best fixed plan in each domain; None where there is only one."""
    if not result.domains:
        return None
    shown = result.domains[:MOST_DOMAINS]
    rows = tuple(
        (
            d.domain,
            str(d.queries),
            signed(d.difference),
            spread(d.interval),
            fixed(d.score),
            fixed(d.fixed_score),
            dollars(d.cost),
            dollars(d.fixed_cost),
        )
        for d in result.domains
    )
    chart = draw(
        "domains",
        "Difference in utility to the best fixed plan in each domain",
        lambda axes: forest(
            axes,
            [(d.domain, d.difference, d.interval) for d in shown],
            None,
            "utility above the best fixed plan",
        ),
        size=(4.2, 1.0 + 0.28 * len(shown)),
    )
    cut = "" if len(shown) == len(result.domains) else f" The {len(shown)} largest are drawn."
    return Exhibit(
        chart,
        "Where the router gains and loses: utility above the best fixed plan's, mean over the cost "
        f"weights. Bars: paired 95 % bootstrap intervals over the domain's queries.{cut}",
        (
            "domain",
            "queries",
            "difference",
            "95 % interval",
            "score",
            "best fixed plan's",
            "cost",
            "best fixed plan's",
        ),
        rows,
    )


def harmful(evaluation: Evaluation, result: LearnerResult) -> Exhibit | None:
    """Teams chosen for nothing, at each cost weight; None where these logs cannot tell."""
    told = [(i, at) for i, at in enumerate(result.at) if at.harmful_collaboration is not None]
    if not told:
        return None
    best = evaluation.learner(BEST_FIXED).at

    def paint(axes: Axes) -> None:
        x = [i for i, _ in told]
        y = [100 * (at.harmful_collaboration or 0.0) for _, at in told]
        known = [at.harmful_interval for _, at in told if at.harmful_interval is not None]
        bounds = [Interval(100 * interval.low, 100 * interval.high) for interval in known]
        axes.plot(
            x,
            [100 * (best[i].harmful_collaboration or 0.0) for i in x],
            color=FIXED.light,
            marker="s",
            markersize=4,
            label=BEST_FIXED,
        )
        axes.plot(
            x,
            [100 * _teams(at.mix.counts if at.mix else {}) for _, at in told],
            color=OTHERS.light,
            linewidth=6,
            alpha=0.6,
            label=f"{named(result.name)}: teams chosen",
        )
        axes.errorbar(
            x,
            y,
            yerr=reach(y, bounds),
            color=ROUTER.light,
            marker="o",
            markersize=5,
            linewidth=2.4,
            elinewidth=0.9,
            capsize=2,
            label=f"{named(result.name)}: for nothing",
        )
        axes.set_ylim(bottom=-0.04 * max(1.0, axes.get_ylim()[1]))
        weight_axis(axes, evaluation.cost_weights)
        axes.set_ylabel("% of queries")
        legend_below(axes, columns=1)

    rows = tuple(
        (
            weight(at.cost_weight),
            percent(at.harmful_collaboration, 1),
            spread(at.harmful_interval, percent),
            percent(_teams(at.mix.counts if at.mix else {}), 1),
            percent(best[i].harmful_collaboration, 1),
        )
        for i, at in told
    )
    return Exhibit(
        draw("harmful", "Harmful collaboration at each cost weight", paint, size=(4.2, 3.7)),
        "Harmful collaboration: a team was chosen where some single agent did as well on that "
        "query for no more money (known only afterwards). Bars: 95 % bootstrap intervals over "
        "queries.",
        ("cost weight", "for nothing", "95 % interval", "teams chosen", "best fixed plan's"),
        rows,
    )


def _teams(counts: dict[str, float]) -> float:
    return sum(share for size, share in counts.items() if size != "1")
