"""What a probe is worth: a learning curve of each model that joins after training.

    train without the model ──► add it by description ──► + 8 probes ──► ... ──► train with it

Queries are held out too: probes are runs on training queries, and everything is measured on the
others. Needs grid logs, where what any choice would have given can be looked up.
Not here: how a router is trained (`fit` is given), the table of results (`cold_start_report`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from masrouter.catalog import Catalog, ModelEntry
from masrouter.errors import EvaluationError
from masrouter.evaluation.cold_start_inputs import Remembering, addable, profile_of, record_of
from masrouter.evaluation.crossval import default_cost_weights, split_queries
from masrouter.evaluation.held_out import Progress
from masrouter.evaluation.learners import Embeddings, column_means
from masrouter.evaluation.metrics import paired_bootstrap
from masrouter.explanation import Z95
from masrouter.features import text_statistics
from masrouter.logs import LogKind
from masrouter.outcomes import Bools, Floats, Ints, Outcomes
from masrouter.router import Router
from masrouter.router_checks import MOST_PROBES
from masrouter.selection import decide
from masrouter.types import Interval, Plan

Fit = Callable[[Outcomes, Embeddings, tuple[float, ...], int], Router]
"""(training outcomes, their embeddings (N, E), cost weights, seed) -> a trained router."""
PROBES = (0, 8, 16, 32, 64, 128)
WITHOUT, EVERYTHING = "without", "trained with it"


@dataclass(frozen=True)
class Estimate:
    """A mean over held-out queries and its 95 % bootstrap interval."""

    mean: float
    interval: Interval


@dataclass(frozen=True)
class ColdStartPoint:
    """One stage of knowing a model."""

    name: str
    """WITHOUT, the number of probes in words, or EVERYTHING."""
    probes: int | None
    """None for the two routers that were trained."""
    squared_error: Estimate | None
    """Of the expected score of the model's plans (Brier score); None where it knows none."""
    log_loss: float | None
    plan_error: float | None
    """Mean distance of a plan's expected to its realised score over the held-out queries of a fold:
    what is left when the luck of single outcomes averages out."""
    coverage: float | None
    """Share of the plans whose realised mean lies in the mean of the 95 % intervals."""
    gain: Estimate
    """Utility less that of the router without the model, mean over cost weights."""
    gain_at: tuple[Estimate, ...]
    """The same at each cost weight."""
    taken: tuple[float, ...]
    """Share of queries that got a plan of the model, at each cost weight."""


@dataclass(frozen=True)
class ColdStart:
    """The learning curve of one model."""

    model: str
    plans: tuple[Plan, ...]
    """Those of the model that could be added."""
    cost_weights: tuple[float, ...]
    queries: int
    draws: int
    """Different sets of probes that each point is the mean of."""
    points: tuple[ColdStartPoint, ...]
    notes: tuple[str, ...] = ()


def cold_start(
    outcomes: Outcomes,
    embeddings: Embeddings,
    fit: Fit,
    *,
    catalog: Catalog | None = None,
    models: Sequence[str] | None = None,
    probes: Sequence[int] = PROBES,
    folds: int = 5,
    seed: int = 0,
    draws: int = 3,
    cost_weights: Sequence[float] | None = None,
    progress: Progress | None = None,
) -> tuple[ColdStart, ...]:
    """The value of probes for each model (all by default), by cross-validation over queries.

    Args:
        embeddings: (N, E) in the order of the queries, of the router's encoder.
        fit: trains a router on outcomes, with verdicts at these cost weights.
        catalog: describes the models; those that it lacks are known by their names.
        probes: how many runs are given; each larger set holds the smaller ones.
        draws: random sets of probes in each fold.

    Every router chooses among the plans that the router without the model knows and the model's
    plans that could be added to it. Raises EvaluationError for logs that are no grid, a model that
    no plan or every plan has, or counts that cannot be meant.
    """
    counts = _counts(probes, draws)
    if outcomes.kind is not LogKind.GRID:
        raise EvaluationError(
            f"a cold start needs grid logs, where every choice can be looked up; these are "
            f"{outcomes.kind.value} ({outcomes.why})"
        )
    if embeddings.ndim != 2 or len(embeddings) != outcomes.n_queries:
        raise EvaluationError(
            f"embeddings: expected ({outcomes.n_queries}, E), got {embeddings.shape}"
        )
    weights = tuple(cost_weights) if cost_weights is not None else default_cost_weights(outcomes)
    described, _ = (catalog or Catalog.default()).with_names_from(outcomes.plans)
    hidden = {model: _hidden(outcomes, model) for model in _named(outcomes, models)}
    fold_of = split_queries(outcomes.query_ids, folds, seed)
    curves = {
        model: _Curve(outcomes, model, at, counts, weights, draws) for model, at in hidden.items()
    }
    total, done = folds * (1 + len(hidden)), 0
    for fold in range(folds):
        train, test = np.flatnonzero(fold_of != fold), np.flatnonzero(fold_of == fold)
        x = np.asarray(embeddings, np.float32)
        everything = fit(outcomes.queries_at(train), x[train], weights, seed)
        done += 1
        if progress is not None:
            progress(done, total, f"fold {fold}: trained with everything")
        for model, curve in curves.items():
            visible = outcomes.plans_at(~hidden[model]).queries_at(train)
            filled = np.unique(visible.query)
            without = fit(visible.queries_at(filled), x[train[filled]], weights, seed)
            encoder = Remembering(without.encoder, outcomes.queries, x)
            curve.add_fold(
                Router(without.state, encoder), everything, profile_of(described, model),
                train, test, x, seed * 1000 + fold,
            )  # fmt: skip
            done += 1
            if progress is not None:
                progress(done, total, f"fold {fold}: {model}")
    return tuple(curve.result() for curve in curves.values())


@dataclass(frozen=True)
class _Measured:
    """One router on n held-out queries."""

    utility: Floats  # (W, n) realised; NaN where no choice can be looked up
    taken: Floats  # (W, n) 1 where a plan of the model was chosen
    squared: Floats  # (n,) mean over the model's plans; NaN where it knows none
    log_loss: Floats  # (n,)
    plan_error: float
    covered: float

    @classmethod
    def mean(cls, draws: Sequence[_Measured]) -> _Measured:
        """Over routers that differ in their probes."""
        return cls(
            utility=np.mean([m.utility for m in draws], axis=0),
            taken=np.mean([m.taken for m in draws], axis=0),
            squared=np.mean([m.squared for m in draws], axis=0),
            log_loss=np.mean([m.log_loss for m in draws], axis=0),
            plan_error=float(np.mean([m.plan_error for m in draws])),
            covered=float(np.mean([m.covered for m in draws])),
        )


class _Curve:
    """Gathers what every stage chose and expected on held-out queries."""

    def __init__(
        self,
        outcomes: Outcomes,
        model: str,
        hidden: Bools,
        counts: tuple[int, ...],
        weights: tuple[float, ...],
        draws: int,
    ) -> None:
        self.outcomes, self.model, self.hidden = outcomes, model, hidden
        self.counts, self.weights, self.draws = counts, weights, draws
        base = [outcomes.plans[i] for i in np.flatnonzero(~hidden)]
        self.added = np.array(
            [i for i in np.flatnonzero(hidden) if addable(outcomes.plans[i], base, model)],
            dtype=np.int64,
        )
        if len(self.added) == 0:
            raise EvaluationError(
                f"model {model!r}: each of its plans has another name or size that no plan without "
                "it has, so that none can be added by itself"
            )
        self.score = outcomes.dense("score")
        self.realised = [outcomes.utility(weight) for weight in weights]  # W x (N, P)
        for at in self.realised:
            at[:, np.setdiff1d(np.flatnonzero(hidden), self.added)] = np.nan
        self.stages = (WITHOUT, *(f"{n} probes" for n in counts), EVERYTHING)
        shape = (len(self.stages), len(weights), outcomes.n_queries)
        self.utility, self.taken = np.full(shape, np.nan), np.full(shape, np.nan)  # (K, W, N)
        self.squared, self.log_loss = np.full(shape[::2], np.nan), np.full(shape[::2], np.nan)
        self.by_fold: list[list[tuple[float, float]]] = [[] for _ in self.stages]

    def add_fold(
        self,
        without: Router,
        everything: Router,
        profile: ModelEntry,
        train: Ints,
        test: Ints,
        x: Embeddings,
        seed: int,
    ) -> None:
        """Measure every stage on the test queries of a fold."""
        plans = [self.outcomes.plans[i] for i in self.added]
        scored = np.isin(self.outcomes.plan, self.added) & np.isfinite(self.outcomes.score)
        cells = np.flatnonzero(scored & np.isin(self.outcomes.query, train))
        if max(self.counts) > len(cells):
            raise EvaluationError(
                f"model {self.model!r}: {max(self.counts)} probes asked for, a training fold has "
                f"{len(cells)} scored runs of its plans"
            )
        orders = [
            np.random.default_rng([seed, draw]).permutation(cells) for draw in range(self.draws)
        ]
        self._put(0, test, self._measure(without, test, x))
        for stage, count in enumerate(self.counts, 1):
            measured = []
            for order in orders if count else orders[:1]:
                probes = [record_of(self.outcomes, int(cell)) for cell in order[:count]]
                router = without.add_model(profile, probes, plans=plans)
                measured.append(self._measure(router, test, x))
            self._put(stage, test, _Measured.mean(measured))
        self._put(len(self.stages) - 1, test, self._measure(everything, test, x))

    def result(self) -> ColdStart:
        """Means and intervals over all folds."""
        asked = np.isfinite(self.utility[0])  # (W, N)
        left_out = int(self.hidden.sum()) - len(self.added)
        notes = list(self.outcomes.notes)
        if left_out:
            notes.append(
                f"{left_out} plans of {self.model} hold another name that no other plan has; no "
                "router chooses them here"
            )
        return ColdStart(
            model=self.model,
            plans=tuple(self.outcomes.plans[i] for i in self.added),
            cost_weights=self.weights,
            queries=int(asked.any(0).sum()),
            draws=self.draws,
            points=tuple(self._point(stage) for stage in range(len(self.stages))),
            notes=tuple(notes),
        )

    def _point(self, stage: int) -> ColdStartPoint:
        gain = self.utility[stage] - self.utility[0]  # (W, N)
        errors, covered = np.array(self.by_fold[stage]).T
        knows = bool(np.isfinite(self.squared[stage]).any())
        name = self.stages[stage]
        return ColdStartPoint(
            name=name,
            probes=None if name in (WITHOUT, EVERYTHING) else self.counts[stage - 1],
            squared_error=_estimate(self.squared[stage]) if knows else None,
            log_loss=float(np.nanmean(self.log_loss[stage])) if knows else None,
            plan_error=float(errors.mean()) if knows else None,
            coverage=float(covered.mean()) if knows else None,
            gain=_estimate(column_means(gain)),
            gain_at=tuple(_estimate(at) for at in gain),
            taken=tuple(float(np.nanmean(at)) for at in self.taken[stage]),
        )

    def _put(self, stage: int, test: Ints, measured: _Measured) -> None:
        self.utility[stage][:, test] = measured.utility
        self.taken[stage][:, test] = measured.taken
        self.squared[stage, test] = measured.squared
        self.log_loss[stage, test] = measured.log_loss
        self.by_fold[stage].append((measured.plan_error, measured.covered))

    def _measure(self, router: Router, test: Ints, x: Embeddings) -> _Measured:
        state = router.state
        statistics = text_statistics([self.outcomes.queries[i] for i in test])
        position = {plan: i for i, plan in enumerate(router.plans)}
        mine = [plan for plan in self.outcomes.plans if plan in position]
        columns = np.array([self.outcomes.plans.index(plan) for plan in mine])  # (C,)
        order = np.array([position[plan] for plan in mine])
        utility = np.full((len(self.weights), len(test)), np.nan)
        taken = np.full(utility.shape, np.nan)
        visible = np.flatnonzero(~self.hidden)
        for w, weight in enumerate(self.weights):
            realised = self.realised[w][test]  # (n, P)
            rows = np.flatnonzero(np.isfinite(realised[:, visible]).any(axis=1))
            if len(rows) == 0:
                continue
            available = np.zeros((len(rows), len(router.plans)), dtype=np.bool_)
            available[:, order] = np.isfinite(realised[rows][:, columns])
            expected = router.expect(x[test][rows], statistics[rows], weight)
            chosen = decide(expected, state.gate, available)
            at = np.array([self.outcomes.plans.index(router.plans[i]) for i in chosen])
            utility[w, rows] = realised[rows, at]
            taken[w, rows] = self.hidden[at]
        squared, log_loss = np.full(len(test), np.nan), np.full(len(test), np.nan)
        plans = [self.outcomes.plans[i] for i in self.added]
        if not set(plans) <= set(position):
            return _Measured(utility, taken, squared, log_loss, math.nan, math.nan)
        expected = router.expect(x[test], statistics, 0.0)
        at_model = np.array([position[plan] for plan in plans])
        p, low, high = (
            state.calibrate(values[:, at_model], expected.head).astype(np.float64)
            for values in (
                expected.score,
                expected.score - Z95 * expected.score_error,
                expected.score + Z95 * expected.score_error,
            )
        )  # (n, A)
        actual = self.score[test][:, self.added]  # (n, A)
        p = np.where(np.isfinite(actual), p, np.nan)
        loss = -(actual * np.log(p) + (1 - actual) * np.log(1 - p))
        reached = column_means(actual)
        return _Measured(
            utility,
            taken,
            column_means(((p - actual) ** 2).T),
            column_means(loss.T),
            plan_error=float(np.nanmean(np.abs(column_means(p) - reached))),
            covered=float(np.mean((low.mean(0) <= reached) & (reached <= high.mean(0)))),
        )


def _estimate(values: Floats) -> Estimate:
    return Estimate(float(np.nanmean(values)), paired_bootstrap(values))


def _counts(probes: Sequence[int], draws: int) -> tuple[int, ...]:
    counts = tuple(sorted(set(probes)))
    if not counts or not all(isinstance(n, int) and 0 <= n <= MOST_PROBES for n in counts):
        raise EvaluationError(f"probes: expected whole numbers from 0 to {MOST_PROBES}: {probes}")
    if draws < 1:
        raise EvaluationError(f"draws: expected at least 1, got {draws}")
    return counts


def _named(outcomes: Outcomes, models: Sequence[str] | None) -> tuple[str, ...]:
    known = sorted({model for plan in outcomes.plans for model in plan.models})
    if models is None:
        models = [m for m in known if not _hidden(outcomes, m).all()]
    for model in models:
        if model not in known:
            raise EvaluationError(f"model {model!r} is in no plan; there are {known}")
        if _hidden(outcomes, model).all():
            raise EvaluationError(f"model {model!r} is in every plan: nothing is left to train on")
    if not models:
        raise EvaluationError("leaving a model out needs plans without it; every plan has it")
    return tuple(dict.fromkeys(models))


def _hidden(outcomes: Outcomes, model: str) -> Bools:
    return np.array([model in plan.models for plan in outcomes.plans])
