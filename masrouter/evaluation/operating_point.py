"""Where to run a router: its cost weight chosen on training queries, and what that then gives.

A curve over cost weights shows where a router could be run; read off the test queries, its best
point is chosen by their luck. Here the point is chosen inside each training part by an inner
cross-validation, so that what is reported is what somebody would have got.
Not here: curves and their hindsight numbers (`metrics`, `summary`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from masrouter.errors import EvaluationError
from masrouter.evaluation import metrics
from masrouter.evaluation.crossval import CrossValidation, cross_validate, split_queries
from masrouter.evaluation.held_out import HeldOutRun, Split
from masrouter.evaluation.learners import Embeddings, Learner, Queries
from masrouter.evaluation.metrics import bootstrap_means, hull, percentile_interval
from masrouter.evaluation.unit_store import UnitStore
from masrouter.outcomes import Floats, Ints, Outcomes
from masrouter.types import Interval

REFERENCE = -1
"""Instead of the position of a cost weight: do what the reference does."""


@dataclass(frozen=True)
class Curve:
    """Mean score and mean cost (US dollars) at each cost weight, (W,)."""

    score: Floats
    cost: Floats


@dataclass(frozen=True)
class Point:
    """What a reference gets and pays on average."""

    score: float
    cost: float


@dataclass(frozen=True)
class Coin:
    """Two operating points, and the share of the queries that go to the first.

    Positions of cost weights, or `REFERENCE`.
    """

    first: int
    second: int
    share: float


@dataclass(frozen=True)
class Realised:
    """Score and cost (US dollars) of each query, (N,); NaN is unknown."""

    score: Floats
    cost: Floats


def cheapest_at_accuracy(curve: Curve, at_least: float) -> int:
    """The cheapest point whose score is not below; if none, the best scored."""
    enough = curve.score >= at_least - 1e-12  # means of equal values may differ in the last bit
    if not enough.any():
        return int(np.argmax(curve.score))
    return int(np.argmin(np.where(enough, curve.cost, np.inf)))


def coin_at_equal_accuracy(curve: Curve, reference: Point) -> Coin:
    """The cheapest mixture of the points and the reference with the reference's score.

    On the hull of RouterBench (arXiv 2403.12031, section 3): between two corners a coin decides.
    """
    corners = hull(np.append(curve.cost, reference.cost), np.append(curve.score, reference.score))
    return _coin(curve, corners, corners.score, reference.score)


def coin_at_equal_cost(curve: Curve, reference: Point) -> Coin:
    """The best scored mixture of the points and the reference that costs no more than it."""
    corners = hull(np.append(curve.cost, reference.cost), np.append(curve.score, reference.score))
    return _coin(curve, corners, corners.cost, reference.cost)


def _coin(curve: Curve, corners: metrics.Curve, along: Floats, wanted: float) -> Coin:
    """The mixture of neighbouring corners whose mean of `along` (rising, (k,)) is as wanted."""
    after = int(np.searchsorted(along, wanted))
    before = max(after - 1, 0)
    after = min(after, len(along) - 1)
    gap = along[after] - along[before]
    share = float((along[after] - wanted) / gap) if gap > 0 else 1.0
    ends = []
    for corner in (before, after):
        same = (curve.cost == corners.cost[corner]) & (curve.score == corners.score[corner])
        ends.append(int(np.argmax(same)) if same.any() else REFERENCE)
    return Coin(ends[0], ends[1], share)


@dataclass(frozen=True)
class NestedValidation:
    """Choices for held-out queries, and a cross-validation inside each training part."""

    outer: CrossValidation
    """One seed (S = 1): every query while it was held out."""
    fold: Ints
    """The fold in which each query of `outer` was held out, (N,)."""
    inner: tuple[CrossValidation, ...]
    """(F,): for each fold, the queries outside of it, cross-validated among themselves."""

    def curve(self, learner: str, fold: int, rows: Sequence[int] | Ints | None = None) -> Curve:
        """Mean score and cost of a learner at every cost weight on a fold's training queries.

        `rows` are positions in `outer.outcomes`; those outside the training part are left out.
        """
        cv = self.inner[fold]
        train = np.flatnonzero(self.fold != fold)
        keep = np.ones(len(train), np.bool_) if rows is None else np.isin(train, rows)
        return Curve(
            cv.score(learner)[0][:, keep].mean(axis=1), cv.cost(learner)[0][:, keep].mean(axis=1)
        )

    def at(self, learner: str, position: Ints, cv: CrossValidation | None = None) -> Realised:
        """Score and cost of every query at the cost weight chosen for its fold.

        `position` (F,) is into the cost weights. `cv` is where outcomes are looked up, if not in
        `outer` (the other half of the runs: `RunHalves.score_choices`).
        """
        cv = self.outer if cv is None else cv
        here = (position[self.fold], np.arange(len(self.fold)))
        return Realised(cv.score(learner)[0][here], cv.cost(learner)[0][here])

    def tossed(
        self,
        learner: str,
        coins: Sequence[Coin],
        reference: Realised,
        rows: Ints | None = None,
    ) -> Realised:
        """Expected score and cost of the queries at `rows` (n,), by the coin of their fold, (F,).

        `reference` (n,) is what the reference got on the same queries.
        """
        rows = np.arange(len(self.fold)) if rows is None else rows
        fold = self.fold[rows]
        ends = []
        for position in (
            np.array([coin.first for coin in coins]),
            np.array([coin.second for coin in coins]),
        ):
            mine = self.at(learner, np.maximum(position, 0))
            own = position[fold] != REFERENCE
            ends.append(
                Realised(
                    np.where(own, mine.score[rows], reference.score),
                    np.where(own, mine.cost[rows], reference.cost),
                )
            )
        share = np.array([coin.share for coin in coins])[fold]  # (n,)
        first, second = ends
        return Realised(
            share * first.score + (1.0 - share) * second.score,
            share * first.cost + (1.0 - share) * second.cost,
        )


def nested_cross_validate(
    outcomes: Outcomes,
    embeddings: Embeddings,
    learners: Sequence[Learner],
    *,
    cost_weights: Sequence[float],
    folds: int = 5,
    inner_folds: int = 4,
    seed: int = 0,
    fold: Ints | None = None,
    progress: Callable[[str], None] | None = None,
) -> NestedValidation:
    """Cross-validation by query, with another one inside each training part.

    Every learner is fitted 1 + `inner_folds` times a fold. `fold` (N,) gives the folds instead of
    the seed (to share them with other logs of the same queries). Queries of one id share a fold.
    """
    if fold is None:
        fold = split_queries(outcomes.query_ids, folds, seed)
    weights = tuple(float(weight) for weight in cost_weights)
    numbers = range(int(fold.max()) + 1)
    nothing = np.zeros(outcomes.n_plans, dtype=np.bool_)
    splits = [
        Split("", seed, k, np.flatnonzero(fold != k), np.flatnonzero(fold == k), nothing)
        for k in numbers
    ]
    protocol = f"{len(splits)}-fold cross-validation by query, nested"
    # The inner one comes first: it checks what both are given.
    inner = []
    for split in splits:
        inner.append(
            cross_validate(
                outcomes.queries_at(split.train),
                embeddings[split.train],
                learners,
                folds=inner_folds,
                seeds=(seed,),
                cost_weights=weights,
            )
        )
        if progress is not None:
            progress(f"fold {split.fold + 1} of {len(splits)}: inner cross-validation done")
    store = UnitStore(None, "kept in memory")
    run = HeldOutRun(outcomes, embeddings, tuple(learners), weights, store, None, len(splits))
    choices = run.validate(splits, (seed,))
    outer = CrossValidation(
        outcomes=outcomes,
        protocol=protocol,
        learners=choices.learners,
        seeds=(seed,),
        cost_weights=weights,
        chosen=choices.chosen,
        expected=choices.expected,
        notes=choices.notes,
        domains=choices.domains,
    )
    return NestedValidation(outer, fold, tuple(inner))


def fitted_cost(
    outcomes: Outcomes, embeddings: Embeddings, learner: Learner, *, seed: int = 0
) -> float:
    """Mean cost of what a learner takes at cost weight 0 on the queries that it was fitted on.

    What a fixed plan costs is known once it is chosen; an inner cross-validation, which may choose
    another plan in each fold, would blur it.
    """
    chooser = learner.fit(outcomes, embeddings, cost_weights=(0.0,), seed=seed)
    available = np.isfinite(outcomes.dense("score"))
    choice = chooser.choose(Queries(outcomes.queries, embeddings), 0.0, available)
    return float(outcomes.dense("cost")[np.arange(len(choice)), choice].mean())


@dataclass(frozen=True)
class Paired:
    """A choice and the reference it is compared with, query by query."""

    query_ids: tuple[str, ...]  # (n,)
    chosen: Realised  # (n,)
    reference: Realised  # (n,)


@dataclass(frozen=True)
class Comparison:
    """Means and paired differences; several parts weigh the same, whatever their size."""

    queries: int
    score: float
    cost: float | None
    """US dollars a query; None where a cost is unknown."""
    score_difference: float
    score_interval: Interval
    cost_saved: float | None
    """1 - cost / the reference's cost, of the means; negative where it costs more."""
    saved_interval: Interval | None


def compare(*parts: Paired, resamples: int = 2000, seed: int = 0) -> Comparison:
    """A choice against its reference, with 95 % bootstrap intervals over queries.

    With several parts (data sets), each one's mean difference and its share of cost saved are
    averaged; a query id that several parts hold is drawn in all of them at once. Choices are held
    fixed: the interval is that of these choices on other queries, not of training anew.
    """
    if not parts:
        raise EvaluationError("compare: expected at least one part")
    ids = {
        query: i for i, query in enumerate(sorted({q for part in parts for q in part.query_ids}))
    }
    columns = np.full((len(ids), len(parts), 3), np.nan)  # score difference, cost, its reference
    for i, part in enumerate(parts):
        rows = [ids[query] for query in part.query_ids]
        columns[rows, i, 0] = part.chosen.score - part.reference.score
        columns[rows, i, 1] = part.chosen.cost
        columns[rows, i, 2] = part.reference.cost
        if np.isnan(columns[rows, i, 0]).any():
            raise EvaluationError("compare: a score is unknown; leave such queries out before")
    flat = columns.reshape(len(ids), -1)
    draws = bootstrap_means(flat, resamples=resamples, seed=seed).reshape(resamples, -1, 3)
    costed = all(np.isfinite(p.chosen.cost).all() for p in parts) and all(
        np.isfinite(p.reference.cost).all() for p in parts
    )
    means = np.nanmean(columns, axis=0) if costed else None  # (parts, 3)
    interval = percentile_interval(draws[..., 0].mean(axis=1))
    if interval is None:
        raise EvaluationError("compare: every resample misses a whole part; it has too few queries")
    return Comparison(
        queries=sum(len(part.query_ids) for part in parts),
        score=float(np.mean([part.chosen.score.mean() for part in parts])),
        cost=float(means[:, 1].mean()) if means is not None else None,
        score_difference=float(np.mean([np.nanmean(columns[:, i, 0]) for i in range(len(parts))])),
        score_interval=interval,
        cost_saved=float(np.mean(1.0 - means[:, 1] / means[:, 2])) if means is not None else None,
        saved_interval=(
            percentile_interval((1.0 - draws[..., 1] / draws[..., 2]).mean(axis=1))
            if costed
            else None
        ),
    )
