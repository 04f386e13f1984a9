"""The critic of off-policy estimates: what score and what cost a plan has on a query, cross-fitted.

A ridge regression on the plan's parts (topology, count, mix of roles, mix of models), the query
(principal components of its embedding, its task) and their products shares strength between plans
that were hardly ever logged. On top of it, level by level down the tree of choices, stands the
shrunken mean residual of each prefix: the value models Q_t of the stages. A round's predictions
come from a model that never saw an outcome of its query.

Chernozhukov et al., "Double/debiased machine learning", 2018, arXiv 1608.00060, say why that makes
doubly robust estimates right with any such model. It is cheap and rough by intent. Not here: the
router's own critic (`masrouter.critic`), which must not judge itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from masrouter.errors import EvaluationError
from masrouter.evaluation.off_policy.rounds import LoggedRounds, prefix_codes
from masrouter.outcomes import Floats, Ints
from masrouter.types import Plan

FOLDS = 5
COMPONENTS = 16
"""Principal components of the embeddings that the ridge sees."""
_MOST_TASKS = 8
_MOST_PARTS = 200
_MOST_CROSSED = 400
"""Limits of one-hot features, the most frequent first: the ridge stays a matter of seconds."""
_ROWS = 8192
_PENALTIES = (1.0, 10.0, 100.0, 1000.0, 1e5)
_START = (10.0, 100.0, 100.0)
"""Penalties of the blocks plan, query, plan by task to start the search from."""
_SHRINKAGES = (2.0, 5.0, 20.0, 100.0, 500.0, np.inf)
"""Rounds that a prefix's mean residual is worth zero for."""


@dataclass(frozen=True)
class Predictions:
    """What models of other queries' rounds say of each round."""

    logged: Floats  # (n,) of the round's own plan
    target: Floats  # (n,) of the plan that the target chooses for the round's query
    target_by_stage: Floats  # (n, T) the same as known at each stage: Q_t on the target's path
    blind: Floats  # (n,) of the query alone, whatever the plan


class PairFeatures:
    """Features of (query, plan) pairs; plan -1 is the average plan. Fitted to no outcome."""

    def __init__(
        self,
        rounds: LoggedRounds,
        plans: Sequence[Plan],
        embeddings: NDArray[Any] | None,
    ) -> None:
        parts = _parts(plans)  # (P, p)
        frequency = parts[rounds.plan].mean(axis=0)
        kept = np.argsort(-frequency, kind="stable")[:_MOST_PARTS]
        parts = (parts - frequency)[:, kept]
        self.parts = np.concatenate([parts, np.zeros((1, parts.shape[1]))])  # (P + 1, p)
        self.prefixes = prefix_codes(plans)  # (P + 1, T)
        labels = [
            task or dataset for task, dataset in zip(rounds.tasks, rounds.datasets, strict=True)
        ]
        names, self.task, count = np.unique(
            np.array(labels, dtype=object).astype(str), return_inverse=True, return_counts=True
        )
        most = min(_MOST_TASKS, _MOST_CROSSED // parts.shape[1])
        frequent = np.argsort(-count, kind="stable")[:most]
        one_hot = (self.task[:, None] == frequent).astype(np.float64)  # (Q, tasks)
        one_hot = one_hot if len(names) > 1 else one_hot[:, :0]
        text = _components(embeddings, rounds.n_queries)
        query = np.concatenate([one_hot, text], axis=1)
        self.query = query - query.mean(axis=0)  # (Q, k)
        self.one_hot = one_hot - one_hot.mean(axis=0)
        sizes = (self.parts.shape[1], self.query.shape[1], one_hot.shape[1] * parts.shape[1])
        self.block = np.repeat(np.arange(3), sizes)  # (F,) which block a feature is of

    def of(self, query: Ints, plan: Ints) -> Floats:
        """(m,), (m,) -> (m, F)."""
        parts = self.parts[plan]
        crossed = (self.one_hot[query][:, :, None] * parts[:, None, :]).reshape(len(query), -1)
        return np.concatenate([parts, self.query[query], crossed], axis=1)

    def times(self, weights: Floats, query: Ints, plan: Ints) -> Floats:
        """of(query, plan) @ weights, (m,), without the features of each pair."""
        plans, queries, crossed = (weights[self.block == b] for b in range(3))
        by_task = crossed.reshape(self.one_hot.shape[1], self.parts.shape[1])  # (tasks, p)
        product = (self.parts @ plans)[plan] + (self.query @ queries)[query]
        crossing = (self.parts @ by_task.T)[plan] * self.one_hot[query]  # (m, tasks)
        return np.asarray(product + crossing.sum(axis=1))

    def levels(self, query: Ints, plan: Ints) -> Ints:
        """Groups whose residuals are averaged, by stage and then by (plan, task): (m, T + 1).

        -1 is no group.
        """
        path = self.prefixes[plan]
        tasks = int(self.task.max()) + 1
        own = np.where(plan >= 0, plan * tasks + self.task[query], -1)
        return np.concatenate([path, own[:, None]], axis=1)


def cross_fit(
    features: PairFeatures,
    rounds: LoggedRounds,
    chosen: Ints,
    reward: Floats,
    *,
    log: bool,
    seed: int,
) -> Predictions:
    """Predict `reward` (n,), NaN = unknown, for logged and chosen (Q,) plans of every round.

    With `log`, the logarithm is modelled (costs), and predictions are scaled so that their mean
    over the training rounds is the rewards' (smearing by ratio; Duan, 1983). Predictions stay
    within the rewards' range. Folds are of queries; the strengths of the ridge's blocks have the
    lowest error over them all, a level's shrinkage is chosen in each fold's training rounds by
    leaving out one query at a time.

    Raises EvaluationError where fewer than 2 queries have a known reward.
    """
    known = np.flatnonzero(np.isfinite(reward))
    queries = np.unique(rounds.query[known])
    if len(queries) < 2:
        raise EvaluationError(
            f"outcome model: expected known rewards of at least 2 queries, got {len(queries)}"
        )
    y = np.log(_positive(reward[known])) if log else reward[known]
    fold_of = np.random.default_rng(seed).integers(0, FOLDS, rounds.n_queries)
    shuffled = np.random.default_rng(seed).permutation(queries)
    fold_of[shuffled] = np.arange(len(queries)) % min(FOLDS, len(queries))  # (Q,)
    levels = features.levels(rounds.query[known], rounds.plan[known])  # (m, T + 1)
    fold = fold_of[rounds.query[known]]  # (m,)
    ridge = _FoldedRidge(features, rounds.query[known], rounds.plan[known], y, fold)
    penalty = ridge.choose()
    low, high = float(np.nanmin(reward)), float(np.nanmax(reward))

    stages = features.prefixes.shape[1]
    logged, blind = np.empty(len(rounds)), np.empty(len(rounds))
    by_stage = np.empty((len(rounds), stages))
    for k in np.unique(fold_of):
        train = fold != k
        rows = known[train]
        intercept, weights = ridge.fit(int(k), penalty)
        fitted = intercept + features.times(weights, rounds.query[rows], rounds.plan[rows])
        effects = _Effects.fit(levels[train], y[train] - fitted, rounds.query[rows])
        fitted = fitted + effects.at(levels[train]).sum(axis=1)
        scale = float(reward[rows].mean() / np.exp(fitted).mean()) if log else 1.0

        def finish(value: Floats, scale: float = scale) -> Floats:
            value = np.exp(value) * scale if log else value
            return np.clip(value, low, high)

        rows = np.flatnonzero(fold_of[rounds.query] == k)
        query = rounds.query[rows]
        blind[rows] = finish(intercept + features.times(weights, query, np.full(len(rows), -1)))
        plan = rounds.plan[rows]
        own = effects.at(features.levels(query, plan)).sum(axis=1)
        logged[rows] = finish(intercept + features.times(weights, query, plan) + own)
        plan = chosen[query]
        steps = effects.at(features.levels(query, plan))  # (rows, T + 1)
        path = steps[:, :-1].cumsum(axis=1)
        path[:, -1] += steps[:, -1]
        base = intercept + features.times(weights, query, plan)
        by_stage[rows] = finish(base[:, None] + path)
    return Predictions(logged, by_stage[:, -1], by_stage, blind)


class _FoldedRidge:
    """Ridge regressions that leave one fold out, from each fold's moments alone."""

    def __init__(
        self, features: PairFeatures, query: Ints, plan: Ints, y: Floats, fold: Ints
    ) -> None:
        self.block = features.block
        self.folds = np.unique(fold)
        size = 1 + len(self.block)
        self.gram: dict[int, Floats] = {}
        self.moment: dict[int, Floats] = {}
        self.square: dict[int, float] = {}
        for k in self.folds.tolist():
            gram, moment = np.zeros((size, size)), np.zeros(size)
            rows = np.flatnonzero(fold == k)
            for start in range(0, len(rows), _ROWS):  # features of all rows may not fit in memory
                part = rows[start : start + _ROWS]
                x = features.of(query[part], plan[part])
                x = np.concatenate([np.ones((len(x), 1)), x], axis=1)  # (rows, 1 + F)
                gram += x.T @ x
                moment += x.T @ y[part]
            self.gram[k], self.moment[k] = gram, moment
            self.square[k] = float(y[rows] @ y[rows])
        self.whole: Floats = np.sum(list(self.gram.values()), axis=0)
        self.right: Floats = np.sum(list(self.moment.values()), axis=0)

    def fit(self, left_out: int, penalty: Sequence[float]) -> tuple[float, Floats]:
        """Intercept and weights (F,) without a fold."""
        gram, right = self.whole, self.right
        if left_out in self.gram:
            gram, right = gram - self.gram[left_out], right - self.moment[left_out]
        diagonal = np.concatenate([[1e-9], np.asarray(penalty)[self.block]])
        solution = np.asarray(np.linalg.solve(gram + np.diag(diagonal), right), np.float64)
        return float(solution[0]), solution[1:]

    def error(self, penalty: Sequence[float]) -> float:
        """Sum of squared errors over the folds left out."""
        total = 0.0
        for k in self.folds.tolist():
            intercept, weights = self.fit(k, penalty)
            beta = np.concatenate([[intercept], weights])
            total += self.square[k] - 2 * float(beta @ self.moment[k])
            total += float(beta @ self.gram[k] @ beta)
        return total

    def choose(self) -> tuple[float, ...]:
        """A penalty for each block: one block after the other, twice, while the error falls."""
        best = list(_START)
        least = self.error(best)
        present = np.unique(self.block).tolist()
        for _ in range(2):
            before = least
            for block in present:
                for value in _PENALTIES:
                    tried = [*best[:block], value, *best[block + 1 :]]
                    if tried != best and (error := self.error(tried)) < least:
                        best, least = tried, error
            if least == before:
                break
        return tuple(best)


@dataclass(frozen=True)
class _Effects:
    """Shrunken mean residuals of groups, level upon level."""

    groups: tuple[Ints, ...]  # of each level, sorted
    means: tuple[Floats, ...]

    @classmethod
    def fit(cls, levels: Ints, residual: Floats, query: Ints) -> _Effects:
        """levels (m, L), residual (m,): each level explains what the ones before left.

        A group of n rounds with residual sum S has S / (n + kappa); a level's kappa has the least
        squared error on each query's rounds when they are left out of their group's S and n.
        """
        groups, means = [], []
        for column in levels.T:
            names, at = np.unique(column, return_inverse=True)
            total = np.bincount(at, weights=residual)
            count = np.bincount(at).astype(np.float64)
            _, pair = np.unique(at * (int(query.max()) + 1) + query, return_inverse=True)
            others = total[at] - np.bincount(pair, weights=residual)[pair]
            n_others = count[at] - np.bincount(pair)[pair]
            errors = [
                float(((residual - others / (n_others + kappa)) ** 2).sum())
                for kappa in _SHRINKAGES
            ]
            # The last of equals is the strongest: nothing is believed for nothing.
            kappa = _SHRINKAGES[len(errors) - 1 - int(np.argmin(errors[::-1]))]
            mean = total / (count + kappa)
            residual = residual - mean[at]
            groups.append(names)
            means.append(mean)
        return cls(tuple(groups), tuple(means))

    def at(self, levels: Ints) -> Floats:
        """Each level's effect, 0 for a group never seen: (m, L) -> (m, L)."""
        out = np.zeros(levels.shape)
        for level, (names, mean) in enumerate(zip(self.groups, self.means, strict=True)):
            place = np.minimum(np.searchsorted(names, levels[:, level]), len(names) - 1)
            found = (names[place] == levels[:, level]) & (levels[:, level] >= 0)
            out[found, level] = mean[place[found]]
        return out


def _positive(cost: Floats) -> Floats:
    """Costs with a cost of 0 taken as the lowest positive one, of which there is a logarithm."""
    positive = cost[cost > 0]
    return np.maximum(cost, positive.min() if len(positive) else 1.0)


def _parts(plans: Sequence[Plan]) -> Floats:
    """One-hot topology and count, shares of roles and of models: (P, p)."""
    names: dict[tuple[str, object], int] = {}
    entries: list[tuple[int, int, float]] = []
    for row, plan in enumerate(plans):
        size = len(plan.agents)
        found: list[tuple[tuple[str, object], float]] = [
            (("topology", plan.topology), 1.0),
            (("count", size), 1.0),
        ]
        for agent in plan.agents:
            found += [(("role", agent.role), 1.0 / size), (("model", agent.model), 1.0 / size)]
        for name, value in found:
            entries.append((row, names.setdefault(name, len(names)), value))
    parts = np.zeros((len(plans), len(names)))
    rows, columns, values = (np.array(column) for column in zip(*entries, strict=True))
    np.add.at(parts, (rows.astype(np.int64), columns.astype(np.int64)), values)
    return parts


def _components(embeddings: NDArray[Any] | None, n_queries: int) -> Floats:
    """The embeddings' first principal components with a standard deviation of 1 at most, (Q, k)."""
    if embeddings is None:
        return np.zeros((n_queries, 0))
    x = np.asarray(embeddings, np.float64)
    if x.ndim != 2 or len(x) != n_queries or not np.isfinite(x).all():
        raise EvaluationError(
            f"embeddings: expected finite numbers, one row for each of {n_queries} queries, "
            f"got shape {x.shape}"
        )
    centred = x - x.mean(axis=0)
    values, axes = np.linalg.eigh(centred.T @ centred / n_queries)  # (E,), (E, E) rising
    kept = min(COMPONENTS, x.shape[1], n_queries - 1)
    scores = centred @ axes[:, ::-1][:, :kept]
    return np.asarray(scores / max(np.sqrt(max(values[-1], 0.0)), 1e-12))
