"""Intervals of what is read off a whole frontier, by drawing the queries anew.

The operating point that is read off is chosen anew in every draw too, so that an interval also
covers the luck of that choice. Not here: the measures themselves (`metrics`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from masrouter.evaluation import metrics
from masrouter.evaluation.metrics import Anchors
from masrouter.outcomes import Floats
from masrouter.types import Interval

RESAMPLES = 500
ENOUGH = 0.975
"""Share of draws in which a measure must exist for its interval to mean anything."""


@dataclass(frozen=True)
class FrontierIntervals:
    """95 % percentile intervals over queries; None where too many draws leave a measure undefined.

    A score that more than 2.5 % of the draws never reach has no interval for what it costs.
    """

    resamples: int
    aiq: Interval | None
    apgr: Interval | None
    cost_saved: Interval | None
    cost_saved_share: float
    """Share of draws in which the best fixed plan's score is reached at all."""
    cost_saved_beyond_fixed: Interval | None
    """Cost saved less what the best fixed plans of other cost weights save at the same score."""
    accuracy_gained: Interval | None
    accuracy_gained_beyond_fixed: Interval | None
    """The same for the score at the best fixed plan's cost; paired, as the other is."""


def frontier_intervals(
    cost: Floats, score: Floats, weak: int | None, fixed: int, *, seed: int
) -> list[FrontierIntervals] | None:
    """Intervals of each learner from costs and scores (L, K, n) of K operating points; NaN-free.

    `weak` and `fixed` are the positions of the cheapest and of the best fixed plan, whose first
    operating points are the anchors. None without the cheapest plan, points or queries.
    """
    learners, points, queries = cost.shape
    if weak is None or points == 0 or queries == 0:
        return None
    columns = np.concatenate([cost, score]).reshape(2 * learners * points, queries).T
    draws = metrics.bootstrap_means(columns, resamples=RESAMPLES, seed=seed)
    drawn = draws.reshape(RESAMPLES, 2, learners, points)
    table = np.array([_measures(x, y, weak, fixed) for x, y in drawn])  # (resamples, L, 4)
    return [_intervals(table[:, i], table[:, fixed]) for i in range(learners)]


def _measures(cost: Floats, score: Floats, weak: int, fixed: int) -> list[list[float]]:
    """AIQ, APGR, cost saved and accuracy gained of every learner, (L, 4); NaN where undefined."""
    anchors = Anchors(
        weak_cost=float(cost[weak, 0]),
        weak_score=float(score[weak, 0]),
        strong_cost=float(cost[fixed, 0]),
        strong_score=float(score[fixed, 0]),
    )
    low, high = float(cost.min()), float(cost.max())
    return [
        _numbers(
            (
                metrics.aiq(x, y, low, high),
                metrics.apgr(x, y, anchors),
                metrics.cost_saved(x, y, anchors),
                metrics.accuracy_gained(x, y, anchors),
            )
        )
        for x, y in zip(cost, score, strict=True)
    ]


def _numbers(values: Sequence[float | None]) -> list[float]:
    return [np.nan if value is None else value for value in values]


def _intervals(own: Floats, fixed: Floats) -> FrontierIntervals:
    """From draws (resamples, 4) of a learner and of the best fixed plan."""
    aiq, apgr, saved, gained = own.T
    return FrontierIntervals(
        resamples=len(own),
        aiq=_interval(aiq),
        apgr=_interval(apgr),
        cost_saved=_interval(saved),
        cost_saved_share=float(np.isfinite(saved).mean()),
        cost_saved_beyond_fixed=_interval(saved - fixed[:, 2]),
        accuracy_gained=_interval(gained),
        accuracy_gained_beyond_fixed=_interval(gained - fixed[:, 3]),
    )


def _interval(draws: Floats) -> Interval | None:
    """None where too many are undefined; the others count as the worst that was drawn."""
    defined = np.isfinite(draws)
    if defined.mean() < ENOUGH:
        return None
    return metrics.percentile_interval(np.where(defined, draws, draws[defined].min()))
