"""What cross-validation asks of anything that learns to choose plans.

Not here: the baselines (`baselines`, `predictors`), the loop that runs them (`crossval`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from masrouter.errors import EvaluationError
from masrouter.outcomes import Bools, Floats, Ints, Outcomes

Embeddings = NDArray[np.float32]


@dataclass(frozen=True)
class Queries:
    """What a chooser sees of n queries: their texts and their embeddings, nothing of outcomes."""

    texts: tuple[str, ...]  # (n,)
    embeddings: Embeddings  # (n, E)

    def __len__(self) -> int:
        return len(self.texts)


class Chooser(Protocol):
    """A fitted learner."""

    def choose(self, queries: Queries, cost_weight: float, available: Bools) -> Ints:
        """The plan for each query, (n,), as an index into `Outcomes.plans`.

        `available` is (n, P) with at least one True a row; the choice must be available.
        `cost_weight` is in score units per US dollar.
        """
        ...


@runtime_checkable
class PredictsScores(Protocol):
    """A chooser that also says what score it expects; then its calibration is measured."""

    def expected_scores(self, queries: Queries) -> Floats:
        """Expected score of every plan, (n, P), in [0, 1]; NaN where it does not know."""
        ...


@runtime_checkable
class PredictsDomains(Protocol):
    """A chooser that also reads from the text what kind of query it is; then that is compared."""

    def predicted_domains(self, queries: Queries) -> tuple[str, ...] | None:
        """The most probable data set or task of each query, (n,); None where it tells none apart.

        A name that no query has stands for all the rest (`other`).
        """
        ...


@runtime_checkable
class Remarks(Protocol):
    """A chooser with something to tell the reader of the report (a limit, a shortcut)."""

    @property
    def notes(self) -> tuple[str, ...]: ...


class Learner(Protocol):
    """Something that learns to choose plans from logged outcomes.

    `name` names its settings too: finished work in a checkpoint file is found by it.
    """

    @property
    def name(self) -> str: ...

    def fit(
        self,
        train: Outcomes,
        embeddings: Embeddings,
        *,
        cost_weights: Sequence[float],
        seed: int,
    ) -> Chooser:
        """Learn from `train` (embeddings (N, E) in the order of its queries).

        `train.plans` are all the plans of the evaluation, also those without a training cell, so
        that plan indices mean the same in training and in test. The chooser is asked for no other
        cost weight than these. Raises NotApplicable where the logs leave the learner no meaning.
        """
        ...


class NotApplicable(EvaluationError):
    """The learner has no meaning on these logs: it is left out, with its message as a note."""


def best_available(utility: Floats, available: Bools) -> Ints:
    """The available plan of highest utility, (n,), for utility (n, P) or (P,), NaN = unknown.

    A plan of unknown utility is chosen only where nothing else is available. Ties go to the first.
    """
    if not available.any(axis=1).all():
        raise EvaluationError("every query needs at least one available plan")
    utility = np.broadcast_to(utility, available.shape)
    known = available & np.isfinite(utility)
    best = np.argmax(np.where(known, utility, -np.inf), axis=1)
    choice: Ints = np.where(known.any(axis=1), best, np.argmax(available, axis=1))
    return choice


def column_means(matrix: Floats) -> Floats:
    """Mean of the known entries of each column, (P,); NaN where a column has none."""
    known = np.isfinite(matrix)
    count = known.sum(axis=0)
    total = np.where(known, matrix, 0.0).sum(axis=0)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


@dataclass(frozen=True)
class PlanMeans:
    """Means of each plan over its own training cells, (P,); NaN for a plan without any."""

    score: Floats  # over cells of known score
    cost: Floats  # over cells of known cost
    costed_score: Floats  # over cells where both are known
    costed_cost: Floats  # over cells where both are known

    @classmethod
    def of(cls, train: Outcomes) -> PlanMeans:
        score, cost = train.dense("score"), train.dense("cost")
        unknown = np.isnan(score) | np.isnan(cost)
        return cls(
            score=column_means(score),
            cost=column_means(cost),
            costed_score=column_means(np.where(unknown, np.nan, score)),
            costed_cost=column_means(np.where(unknown, np.nan, cost)),
        )

    def utility(self, cost_weight: float) -> Floats:
        """Mean utility of each plan over the cells where it is known, (P,)."""
        if cost_weight == 0:
            return self.score
        return self.costed_score - cost_weight * self.costed_cost
