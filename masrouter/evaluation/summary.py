"""From choices to a table: every metric of every learner, with intervals over queries.

Not here: the metrics themselves (`metrics`), how the table looks (`report`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from masrouter.errors import EvaluationError
from masrouter.evaluation import metrics
from masrouter.evaluation.baselines import BEST_FIXED, CHEAPEST, ORACLE
from masrouter.evaluation.calibration import Calibration, calibrate
from masrouter.evaluation.choices import Mix, mix_of
from masrouter.evaluation.crossval import CrossValidation
from masrouter.evaluation.domains import Confusion, InDomain, by_domain, confusion, domain_names
from masrouter.evaluation.examples import Example
from masrouter.evaluation.frontier_intervals import FrontierIntervals, frontier_intervals
from masrouter.evaluation.metrics import Anchors
from masrouter.evaluation.routing_cost import RoutingCost
from masrouter.outcomes import Floats
from masrouter.types import Interval


@dataclass(frozen=True)
class AtCostWeight:
    """One learner at one cost weight: means over queries (a query's seeds averaged first)."""

    cost_weight: float
    queries: int
    """Queries that can be evaluated here."""
    plans: int
    """Different plans that were chosen."""
    utility: float
    score: float
    cost: float | None
    """US dollars a query; None where a choice of unknown cost was made."""
    difference: float
    """Mean paired difference in utility to the best fixed plan."""
    interval: Interval
    """95 % bootstrap interval of the difference, over queries."""
    pgr: float | None
    oracle_gap_share: float | None
    harmful_collaboration: float | None
    calibration_error: float | None
    """None where the learner says no expected score."""
    brier: float | None
    harmful_interval: Interval | None
    """95 % bootstrap interval of the harmful collaboration, over queries."""
    mix: Mix | None
    """What was chosen; None where no query can be evaluated."""


@dataclass(frozen=True)
class CurvePoint:
    """Mean cost and score of a learner at one cost weight, over the queries of the curve."""

    cost_weight: float
    cost: float
    score: float
    score_interval: Interval


@dataclass(frozen=True)
class LearnerResult:
    """One learner over all cost weights; curve metrics are None where costs do not allow them."""

    name: str
    at: tuple[AtCostWeight, ...]
    difference: float
    """Mean over the cost weights of the paired difference to the best fixed plan."""
    interval: Interval
    curve: tuple[CurvePoint, ...]
    aiq: float | None
    apgr: float | None
    cpt50: float | None
    cpt80: float | None
    cost_saved: float | None
    accuracy_gained: float | None
    frontier: FrontierIntervals | None
    """Intervals of the measures above that are read off the curve."""
    calibration: Calibration | None
    domains: tuple[InDomain, ...]
    """Beside the best fixed plan by domain, the largest first; empty where there is only one."""
    confusion: Confusion | None
    """None where the learner does not say what it takes a query for."""


@dataclass(frozen=True)
class Evaluation:
    """All results of one cross-validation; plain data."""

    data: str
    synthetic: bool
    protocol: str
    queries: int
    plans: int
    seeds: tuple[int, ...]
    cost_weights: tuple[float, ...]
    resamples: int
    learners: tuple[LearnerResult, ...]
    """By falling mean difference to the best fixed plan."""
    anchors: Anchors | None
    """The cheapest plan, and the best fixed plan at the lowest cost weight of the curve."""
    curve_queries: int
    """Queries that can be evaluated at every cost weight of the curve."""
    notes: tuple[str, ...]
    logs: str
    """The kind of logs and how it was told, in words."""
    examples: tuple[Example, ...] = ()
    """Single queries, explained by a router that did not see them."""
    example_queries: int = 0
    """Queries that the examples were taken from."""
    routing: RoutingCost | None = None
    """What routing itself takes, where it was measured."""

    def learner(self, name: str) -> LearnerResult:
        for result in self.learners:
            if result.name == name:
                return result
        raise EvaluationError(
            f"no learner {name!r} here; there are {[result.name for result in self.learners]}"
        )


def summarise(
    cv: CrossValidation,
    *,
    data: str = "",
    synthetic: bool = False,
    notes: Sequence[str] = (),
    resamples: int = 2000,
    seed: int = 0,
) -> Evaluation:
    """Every metric of every learner.

    `data` says in words what the logs are, `notes` what their reader has to know. Differences are
    to the best fixed plan of the same cost weight, chosen on the training queries. Bootstrap draws
    are the same for all learners and cost weights. The curve is over queries that can be evaluated
    at all its cost weights; cost weight 0 is on it only where every learner's choices there have a
    known cost.

    Raises EvaluationError where the best fixed plan is not among the learners.
    """
    if BEST_FIXED not in cv.learners:
        raise EvaluationError(f"summarise: {BEST_FIXED!r} must be among the learners")
    names, weights = cv.learners, cv.cost_weights
    score = np.stack([_over_seeds(cv.score(name)) for name in names])  # (L, W, N)
    cost = np.stack([_over_seeds(cv.cost(name)) for name in names])
    utility = np.stack([_over_seeds(cv.utility(name)) for name in names])
    difference = utility - utility[names.index(BEST_FIXED)]
    draws = _draws(difference, resamples, seed)  # (resamples, L, W)

    curve = _curve_points(cv, score, cost)
    anchors = _anchors(names, curve)
    on_curve = [values[..., curve.queries][:, curve.weights] for values in (cost, score)]
    score_draws = _draws(on_curve[1], resamples, seed)
    span = _span(curve)
    fixed = names.index(BEST_FIXED)
    weak = names.index(CHEAPEST) if CHEAPEST in names else None
    frontiers = frontier_intervals(on_curve[0], on_curve[1], weak, fixed, seed=seed)
    options = {"resamples": resamples, "seed": seed}
    domains = by_domain(domain_names(cv.outcomes), score, cost, difference, fixed, **options)

    results = []
    for i, name in enumerate(names):
        at = tuple(
            _at_cost_weight(cv, i, w, score, cost, utility, draws[:, i, w], anchors, options)
            for w in range(len(weights))
        )
        points = tuple(
            CurvePoint(weights[w], x, y, _interval(score_draws[:, i, k]))
            for k, (w, x, y) in enumerate(
                zip(curve.weights, curve.cost[i].tolist(), curve.score[i].tolist(), strict=True)
            )
        )
        x, y = curve.cost[i], curve.score[i]
        gap = anchors if len(points) else None
        results.append(
            LearnerResult(
                name=name,
                at=at,
                difference=float(np.mean([result.difference for result in at])),
                interval=_interval(draws[:, i].mean(axis=1)),
                curve=points,
                aiq=metrics.aiq(x, y, *span) if span else None,
                apgr=metrics.apgr(x, y, gap) if gap else None,
                cpt50=metrics.cpt(x, y, gap, 0.5) if gap else None,
                cpt80=metrics.cpt(x, y, gap, 0.8) if gap else None,
                cost_saved=metrics.cost_saved(x, y, gap) if gap else None,
                accuracy_gained=metrics.accuracy_gained(x, y, gap) if gap else None,
                frontier=frontiers[i] if frontiers else None,
                calibration=calibrate(cv.expected[i], cv.score(name), **options),
                domains=domains[i],
                confusion=confusion(cv, name, **options),
            )
        )
    results.sort(key=lambda result: -result.difference)
    return Evaluation(
        data=data,
        synthetic=synthetic,
        protocol=cv.protocol,
        queries=cv.outcomes.n_queries,
        plans=cv.outcomes.n_plans,
        seeds=cv.seeds,
        cost_weights=weights,
        resamples=resamples,
        learners=tuple(results),
        anchors=anchors,
        curve_queries=len(curve.queries),
        notes=(*cv.notes, *curve.notes, *notes),
        logs=f"{cv.outcomes.kind.value}: {cv.outcomes.why}",
    )


def _over_seeds(values: Floats) -> Floats:
    """(S, W, N) -> (W, N); an unknown cost of any seed's choice leaves the query's mean unknown."""
    return np.asarray(values.mean(axis=0))


def _draws(values: Floats, resamples: int, seed: int) -> Floats:
    """Bootstrap means over queries of values (L, W, N): (resamples, L, W)."""
    learners, weights, queries = values.shape
    if weights == 0 or queries == 0:
        return np.empty((resamples, learners, weights))
    columns = values.reshape(learners * weights, queries).T  # (N, L * W)
    means = metrics.bootstrap_means(columns, resamples=resamples, seed=seed)
    return means.reshape(resamples, learners, weights)


def _interval(means: Floats) -> Interval:
    interval = metrics.percentile_interval(means)
    if interval is None:
        raise EvaluationError("bootstrap: no query can be evaluated")
    return interval


@dataclass(frozen=True)
class _Curves:
    weights: list[int]  # (K,) positions in the cost weights
    queries: np.ndarray  # positions of the queries of the curve
    cost: Floats  # (L, K)
    score: Floats  # (L, K)
    notes: tuple[str, ...]


def _curve_points(cv: CrossValidation, score: Floats, cost: Floats) -> _Curves:
    """The cost weights and queries on which all learners have a known cost, and the means there."""
    at = [w for w, weight in enumerate(cv.cost_weights) if weight > 0]
    reference = score[cv.index(BEST_FIXED)]  # (W, N): known where the query can be evaluated
    queries = np.flatnonzero(np.isfinite(reference[at or slice(None)]).all(axis=0))
    notes: list[str] = []
    for w, weight in enumerate(cv.cost_weights):
        if weight > 0:
            continue
        if len(queries) and np.isfinite(cost[:, w][:, queries]).all():
            at.append(w)
        elif cv.outcomes.has_costs:
            notes.append("curve: cost weight 0 is left out, since plans of unknown cost are chosen")
    at.sort()
    if at and len(queries) < cv.outcomes.n_queries:
        notes.append(
            f"curve: over the {len(queries)} of {cv.outcomes.n_queries} queries that can be "
            "evaluated at every cost weight"
        )
    if len(queries) == 0:
        at = []
    return _Curves(
        at,
        queries,
        cost[:, at][..., queries].mean(axis=-1) if at else np.empty((len(cost), 0)),
        score[:, at][..., queries].mean(axis=-1) if at else np.empty((len(cost), 0)),
        tuple(notes),
    )


def _anchors(names: tuple[str, ...], curve: _Curves) -> Anchors | None:
    if CHEAPEST not in names or not curve.weights:
        return None
    weak, strong = names.index(CHEAPEST), names.index(BEST_FIXED)
    return Anchors(
        weak_cost=float(curve.cost[weak, 0]),
        weak_score=float(curve.score[weak, 0]),
        strong_cost=float(curve.cost[strong, 0]),
        strong_score=float(curve.score[strong, 0]),
    )


def _span(curve: _Curves) -> tuple[float, float] | None:
    """Costs over which AIQ is averaged: the span of all learners' points, as in RouterBench."""
    if curve.cost.size == 0:
        return None
    return float(curve.cost.min()), float(curve.cost.max())


def _at_cost_weight(
    cv: CrossValidation,
    i: int,
    w: int,
    score: Floats,  # (L, W, N), as the next two
    cost: Floats,
    utility: Floats,
    draws: Floats,  # (resamples,)
    anchors: Anchors | None,
    options: dict[str, int],
) -> AtCostWeight:
    names = cv.learners
    rows = np.flatnonzero(np.isfinite(utility[i, w]))
    chosen = cv.chosen[i, :, w]  # (S, N)
    mean_score = float(score[i, w, rows].mean())
    mean_cost = float(cost[i, w, rows].mean())
    means = utility[:, w, rows].mean(axis=1)  # (L,)
    fixed, oracle = float(means[names.index(BEST_FIXED)]), float(means[names.index(ORACLE)])
    expected = cv.expected[i, :, w].ravel()
    told = np.isfinite(expected)
    realised = cv.score(names[i])[:, w].ravel()[told]
    harmful = _harmful(cv, i, w)  # (N,) or None
    return AtCostWeight(
        cost_weight=cv.cost_weights[w],
        queries=len(rows),
        plans=len(np.unique(chosen[chosen >= 0])),
        utility=float(means[i]),
        score=mean_score,
        cost=mean_cost if np.isfinite(mean_cost) else None,
        difference=float(means[i]) - fixed,
        interval=_interval(draws),
        pgr=metrics.pgr(mean_score, anchors) if anchors else None,
        oracle_gap_share=metrics.oracle_gap_share(float(means[i]), fixed, oracle),
        harmful_collaboration=None if harmful is None else float(np.nanmean(harmful)),
        calibration_error=(
            metrics.calibration_error(expected[told], realised) if told.any() else None
        ),
        brier=metrics.brier(expected[told], realised) if told.any() else None,
        harmful_interval=None if harmful is None else metrics.paired_bootstrap(harmful, **options),
        mix=mix_of(chosen, cv.outcomes.plans),
    )


def _harmful(cv: CrossValidation, i: int, w: int) -> Floats | None:
    """Share of seeds in which a team was chosen for nothing, (N,); None where none can be told."""
    single = np.array([len(plan.agents) == 1 for plan in cv.outcomes.plans])
    if not single.any() or single.all():
        return None  # nothing to compare: no team, or nothing but teams
    score, cost = cv.outcomes.dense("score"), cv.outcomes.dense("cost")
    told = metrics.per_query(
        np.stack(
            [
                metrics.harmful_collaboration(chosen, score, cost, single)
                for chosen in cv.chosen[i, :, w]
            ]
        )
    )
    return told if np.isfinite(told).any() else None
