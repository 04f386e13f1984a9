"""Cross-validation on grid logs: fit on some queries, look up what was chosen on the others.

Splits are by query, never by row. Also out of domain (a dataset left out) and cold start (a model
left out).
Not here: the learners (`baselines`, `predictors`), the table of results (`summary`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from masrouter.errors import EvaluationError
from masrouter.evaluation.baselines import ORACLE
from masrouter.evaluation.held_out import HeldOutRun, Names, Progress, Split
from masrouter.evaluation.learners import Embeddings, Learner
from masrouter.evaluation.metrics import utility
from masrouter.evaluation.unit_store import UnitStore, fingerprint
from masrouter.logs import LogKind
from masrouter.outcomes import Bools, Floats, Ints, Outcomes


@dataclass(frozen=True)
class CrossValidation:
    """Which plan every learner chose for every query while that query was held out.

    Axes: L learners (the oracle last), S seeds, W cost weights, N queries. Scores and costs are
    looked up in `outcomes`.
    """

    outcomes: Outcomes
    protocol: str
    learners: tuple[str, ...]  # (L,)
    seeds: tuple[int, ...]  # (S,)
    cost_weights: tuple[float, ...]  # (W,) score units per US dollar
    chosen: Ints  # (L, S, W, N) plan index; -1 where the query cannot be evaluated
    expected: Floats  # (L, S, W, N) score that the learner expected; NaN where it said none
    notes: tuple[str, ...] = ()
    domains: dict[str, Names] = field(default_factory=dict)
    """What learners took each held-out query for, (S, N), by learner; only those that say."""

    def score(self, learner: str) -> Floats:
        """Realised score, (S, W, N); NaN where the query cannot be evaluated."""
        return self._realised(learner, self.outcomes.dense("score"))

    def cost(self, learner: str) -> Floats:
        """Realised cost in US dollars, (S, W, N); NaN where it is unknown."""
        return self._realised(learner, self.outcomes.dense("cost"))

    def utility(self, learner: str) -> Floats:
        """Realised utility, (S, W, N); NaN where the query cannot be evaluated."""
        score, cost = self.score(learner), self.cost(learner)
        return np.stack(
            [utility(score[:, w], cost[:, w], at) for w, at in enumerate(self.cost_weights)], axis=1
        )

    def index(self, learner: str) -> int:
        if learner not in self.learners:
            raise EvaluationError(f"no learner {learner!r} here; there are {list(self.learners)}")
        return self.learners.index(learner)

    def _realised(self, learner: str, values: Floats) -> Floats:
        chosen = self.chosen[self.index(learner)]  # (S, W, N)
        looked_up = values[np.arange(chosen.shape[-1]), np.maximum(chosen, 0)]
        return np.where(chosen >= 0, looked_up, np.nan)


def default_cost_weights(outcomes: Outcomes) -> tuple[float, ...]:
    """0 and six log-spaced cost weights from top / 300 to top = 2 / median cost.

    The median is over cells of known, positive cost. At the top, a run of median cost has to be
    worth two whole score points; at top / 300, less than a hundredth of one. Only 0 where no cost
    is known.
    """
    known = outcomes.cost[np.isfinite(outcomes.cost) & (outcomes.cost > 0)]
    if len(known) == 0:
        return (0.0,)
    top = 2.0 / float(np.median(known))
    return (0.0, *(float(weight) for weight in np.geomspace(top / 300.0, top, 6)))


def split_queries(query_ids: Sequence[str], folds: int, seed: int) -> Ints:
    """The fold of each query, (N,), in 0 .. folds - 1; the same id always has the same fold.

    Depends on the set of ids and the seed, not on their order: ids are sorted by the sha256 of seed
    and id, and dealt out in turn, so that folds differ by one query at most.
    """
    unique = sorted(
        set(query_ids), key=lambda i: (hashlib.sha256(f"{seed}:{i}".encode()).digest(), i)
    )
    if not 2 <= folds <= len(unique):
        raise EvaluationError(
            f"folds: expected 2 to {len(unique)} (the number of queries), got {folds}"
        )
    fold_of = {query_id: position % folds for position, query_id in enumerate(unique)}
    return np.array([fold_of[query_id] for query_id in query_ids], dtype=np.int64)


def cross_validate(
    outcomes: Outcomes,
    embeddings: Embeddings,
    learners: Sequence[Learner],
    *,
    folds: int = 5,
    seeds: Sequence[int] = (0, 1, 2),
    cost_weights: Sequence[float] | None = None,
    progress: Progress | None = None,
    checkpoint_file: Path | None = None,
) -> CrossValidation:
    """Every learner fitted on all folds but one and asked for plans on that one.

    `embeddings` is (N, E), in the order of the queries. Each seed splits anew. A plan is available
    for a query where its utility is known: a known score, and above cost weight 0 a known cost too.
    Queries without any are left out of that cost weight, and a note counts them. The oracle, which
    sees the test outcomes, is added last. Finished units in `checkpoint_file` are not done again.

    Raises EvaluationError for logs that are not a grid, for shapes that do not fit, for a learner
    that chooses a plan that is not available, and for a checkpoint file of other data.
    """
    protocol = f"{folds}-fold cross-validation by query"
    weights = _weights(outcomes, cost_weights)
    splits = [s for seed in seeds for s in _fold_splits(outcomes, folds, seed, "", None)]
    _check(outcomes, embeddings, learners, seeds)
    store = UnitStore(checkpoint_file, fingerprint(outcomes, embeddings, protocol, weights))
    run = HeldOutRun(outcomes, embeddings, tuple(learners), weights, store, progress, len(splits))
    return _result(outcomes, protocol, run, splits, seeds)


def leave_one_dataset_out(
    outcomes: Outcomes,
    embeddings: Embeddings,
    learners: Sequence[Learner],
    *,
    seeds: Sequence[int] = (0,),
    cost_weights: Sequence[float] | None = None,
    progress: Progress | None = None,
    checkpoint_file: Path | None = None,
) -> CrossValidation:
    """As `cross_validate`, with a fold for each dataset: how well does it do out of domain?

    Raises EvaluationError where there is only one dataset.
    """
    names = sorted(set(outcomes.datasets))
    if len(names) < 2:
        raise EvaluationError(f"leaving a dataset out needs two of them, the logs have {names}")
    dataset = np.array(outcomes.datasets)
    nothing = np.zeros(outcomes.n_plans, dtype=np.bool_)
    splits = [
        Split(
            name,
            seed,
            fold,
            np.flatnonzero(dataset != name),
            np.flatnonzero(dataset == name),
            nothing,
        )
        for seed in seeds
        for fold, name in enumerate(names)
    ]
    protocol = "leave one dataset out"
    weights = _weights(outcomes, cost_weights)
    _check(outcomes, embeddings, learners, seeds)
    store = UnitStore(checkpoint_file, fingerprint(outcomes, embeddings, protocol, weights))
    run = HeldOutRun(outcomes, embeddings, tuple(learners), weights, store, progress, len(splits))
    return _result(outcomes, protocol, run, splits, seeds)


def leave_one_model_out(
    outcomes: Outcomes,
    embeddings: Embeddings,
    learners: Sequence[Learner],
    *,
    models: Sequence[str] | None = None,
    folds: int = 5,
    seeds: Sequence[int] = (0,),
    cost_weights: Sequence[float] | None = None,
    progress: Progress | None = None,
    checkpoint_file: Path | None = None,
) -> dict[str, CrossValidation]:
    """As `cross_validate`, once for each model, with its plans hidden in training (a cold start).

    Training sees no cell of a plan with the model in any seat; in test all plans may be chosen. A
    learner that only knows plans by their cells cannot choose the hidden ones; one that knows them
    by what they are made of can. Without `models`, every model whose plans are not all there is.

    Raises EvaluationError for a model that no plan has, or that every plan has.
    """
    by_model: dict[str, Bools] = {
        model: np.array([model in plan.models for plan in outcomes.plans])
        for model in sorted({model for plan in outcomes.plans for model in plan.models})
    }
    if models is None:
        models = [model for model, hidden in by_model.items() if not hidden.all()]
        if not models:
            raise EvaluationError("leaving a model out needs plans without it; every plan has it")
    for model in models:
        if model not in by_model:
            raise EvaluationError(f"model {model!r} is in no plan; there are {list(by_model)}")
        if by_model[model].all():
            raise EvaluationError(f"model {model!r} is in every plan: nothing is left to train on")
    protocol = f"leave one model out, {folds}-fold cross-validation by query"
    weights = _weights(outcomes, cost_weights)
    _check(outcomes, embeddings, learners, seeds)
    store = UnitStore(checkpoint_file, fingerprint(outcomes, embeddings, protocol, weights))
    total = len(models) * len(seeds) * folds
    run = HeldOutRun(outcomes, embeddings, tuple(learners), weights, store, progress, total)
    results = {}
    for model in models:
        splits = [
            s for seed in seeds for s in _fold_splits(outcomes, folds, seed, model, by_model[model])
        ]
        results[model] = _result(outcomes, f"{protocol}: {model}", run, splits, seeds)
    return results


def _fold_splits(
    outcomes: Outcomes, folds: int, seed: int, left_out: str, hidden: Bools | None
) -> list[Split]:
    fold_of = split_queries(outcomes.query_ids, folds, seed)
    if hidden is None:
        hidden = np.zeros(outcomes.n_plans, dtype=np.bool_)
    return [
        Split(
            left_out,
            seed,
            fold,
            np.flatnonzero(fold_of != fold),
            np.flatnonzero(fold_of == fold),
            hidden,
        )
        for fold in range(folds)
    ]


def _result(
    outcomes: Outcomes,
    protocol: str,
    run: HeldOutRun,
    splits: Sequence[Split],
    seeds: Sequence[int],
) -> CrossValidation:
    choices = run.validate(splits, tuple(seeds))
    return CrossValidation(
        outcomes=outcomes,
        protocol=protocol,
        learners=choices.learners,
        seeds=tuple(seeds),
        cost_weights=run.cost_weights,
        chosen=choices.chosen,
        expected=choices.expected,
        notes=choices.notes,
        domains=choices.domains,
    )


def _weights(outcomes: Outcomes, cost_weights: Sequence[float] | None) -> tuple[float, ...]:
    if cost_weights is None:
        return default_cost_weights(outcomes)
    weights = tuple(float(weight) for weight in cost_weights)
    if not weights or len(set(weights)) != len(weights):
        raise EvaluationError(f"cost_weights: expected distinct numbers, got {list(weights)}")
    for weight in weights:
        if not (np.isfinite(weight) and weight >= 0):
            raise EvaluationError(f"cost_weights: expected finite numbers >= 0, got {weight!r}")
        if not np.isfinite(outcomes.utility(weight)).any():
            raise EvaluationError(
                f"cost weight {weight:g}: no cell has both a known score and a known cost"
            )
    return weights


def _check(
    outcomes: Outcomes, embeddings: Embeddings, learners: Sequence[Learner], seeds: Sequence[int]
) -> None:
    if outcomes.kind is not LogKind.GRID:
        raise EvaluationError(
            f"choices can be looked up in grid logs only; these are {outcomes.kind.value} "
            f"({outcomes.why}). For randomised logs use the off-policy estimators"
        )
    if embeddings.ndim != 2 or len(embeddings) != outcomes.n_queries:
        raise EvaluationError(
            f"embeddings: expected ({outcomes.n_queries}, E), got {embeddings.shape}"
        )
    if not np.isfinite(embeddings).all():
        raise EvaluationError("embeddings: expected finite numbers, got NaN or infinity")
    names = [learner.name for learner in learners]
    if len(set(names)) != len(names) or ORACLE in names:
        raise EvaluationError(f"learners: names must differ, and {ORACLE!r} is taken; got {names}")
    if not seeds or len(set(seeds)) != len(seeds):
        raise EvaluationError(f"seeds: expected at least one, all different, got {list(seeds)}")
