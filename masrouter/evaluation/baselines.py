"""Rules that a router has to beat: fixed plans, and thresholds between two of them.

Not here: baselines that predict each plan's utility from the text (`predictors`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.model_selection import KFold

from masrouter.evaluation.learners import (
    Chooser,
    Embeddings,
    Learner,
    NotApplicable,
    PlanMeans,
    Queries,
    best_available,
    column_means,
)
from masrouter.evaluation.linear import fit_probability
from masrouter.evaluation.predictors import (
    KMeansClusters,
    Logistic,
    NearestNeighbours,
    NeuralNetwork,
    Ridge,
)
from masrouter.outcomes import Bools, Floats, Ints, Outcomes

BEST_FIXED = "best fixed plan"
CHEAPEST = "cheapest plan"
ORACLE = "oracle"


def default_baselines() -> tuple[Learner, ...]:
    """Every baseline of an honest table; the oracle is added by cross-validation itself."""
    return (
        RandomPlan(),
        CheapestPlan(),
        BestSingleModel(),
        BestFixedPlan(),
        BestFixedPlanAdjusted(),
        MessageLength(),
        CheapFirst(),
        NearestNeighbours(),
        KMeansClusters(),
        Ridge(),
        Logistic(),
        NeuralNetwork(),
    )


@dataclass(frozen=True)
class FixedOrder:
    """The same order of plans for every query; the first available one is taken."""

    rank: Callable[[float], Floats]  # cost weight -> (P,), higher is better, NaN is unknown

    def choose(self, queries: Queries, cost_weight: float, available: Bools) -> Ints:
        return best_available(self.rank(cost_weight), available)


@dataclass(frozen=True)
class RandomPlan:
    """A plan drawn uniformly from those that are available and were seen in training."""

    name: str = "random"

    def fit(
        self, train: Outcomes, embeddings: Embeddings, *, cost_weights: Sequence[float], seed: int
    ) -> Chooser:
        return _RandomChooser(PlanMeans.of(train), seed)


@dataclass(frozen=True)
class _RandomChooser:
    means: PlanMeans
    seed: int

    def choose(self, queries: Queries, cost_weight: float, available: Bools) -> Ints:
        draw = np.random.default_rng(self.seed).random(available.shape)
        unseen = np.isnan(self.means.utility(cost_weight))
        return best_available(np.where(unseen, np.nan, draw), available)


@dataclass(frozen=True)
class CheapestPlan:
    """The plan of the lowest mean cost on the training queries, else the next cheapest."""

    name: str = CHEAPEST

    def fit(
        self, train: Outcomes, embeddings: Embeddings, *, cost_weights: Sequence[float], seed: int
    ) -> Chooser:
        costs = _known_costs(train, self.name)
        return FixedOrder(lambda _: -costs)


@dataclass(frozen=True)
class BestFixedPlan:
    """The plan of the highest mean utility on the training queries, for each cost weight.

    A plan's mean is over its own cells. Where a query lacks the best plan, the next best is taken.
    Where plans were run on different queries, such means also compare the queries:
    `BestFixedPlanAdjusted` does not.
    """

    name: str = BEST_FIXED

    def fit(
        self, train: Outcomes, embeddings: Embeddings, *, cost_weights: Sequence[float], seed: int
    ) -> Chooser:
        return FixedOrder(PlanMeans.of(train).utility)


@dataclass(frozen=True)
class BestFixedPlanAdjusted:
    """The best fixed plan, with plans compared as if all had been run on the same queries.

    Means over a plan's own cells favour plans that were run on easy or short queries. Here a plan's
    score is its effect in score = query effect + plan effect, and its cost is its factor in
    cost = query factor * plan factor (costs multiply: a long query costs more under every plan),
    both by least squares on the training cells. Where every query was run under every plan, the
    order is the one of the means.
    """

    name: str = "best fixed plan, adjusted"

    def fit(
        self, train: Outcomes, embeddings: Embeddings, *, cost_weights: Sequence[float], seed: int
    ) -> Chooser:
        score, cost = train.dense("score"), train.dense("cost")
        both = np.isfinite(score) & np.isfinite(cost)
        costed_score = _adjusted_mean(np.where(both, score, np.nan))
        costed_cost = _adjusted_cost(np.where(both, cost, np.nan))
        scores = _adjusted_mean(score)
        return FixedOrder(
            lambda weight: scores if weight == 0 else costed_score - weight * costed_cost
        )


def plan_effects(values: Floats) -> Floats:
    """Plan effects (P,) of values (N, P), NaN = missing, in an additive model with query effects.

    The query effects are eliminated: with `known` (N, P) of 0 and 1, the effects b solve
    (diag(cells a plan) - known' diag(1 / cells a query) known) b = sum of (value - query's mean).
    NaN for a plan without a cell. Plans that no chain of queries links are compared as if their
    queries were alike.
    """
    known = np.isfinite(values)
    cells = np.maximum(known.sum(axis=1, keepdims=True), 1)
    filled = np.where(known, values, 0.0)
    centred = np.where(known, filled - filled.sum(axis=1, keepdims=True) / cells, 0.0)
    k = known.astype(np.float64)
    system = np.diag(k.sum(axis=0)) - k.T @ (k / cells)
    effects = np.linalg.lstsq(system, centred.sum(axis=0), rcond=1e-10)[0]
    return np.where(known.any(axis=0), effects, np.nan)


def _query_effects(values: Floats, effects: Floats) -> Floats:
    """Mean over its cells of what the plan effects leave of a query, (N,); NaN without cells."""
    return column_means((values - effects).T)


def _adjusted_mean(score: Floats) -> Floats:
    effects = plan_effects(score)
    everywhere = column_means(_query_effects(score, effects)[:, None])  # (1,)
    return effects + everywhere


def _adjusted_cost(cost: Floats) -> Floats:
    """Mean cost of each plan had it run on every query, by the ratio to what its queries cost."""
    if not (cost > 0).any():
        return column_means(cost)
    logs = np.log(np.where(cost > 0, cost, np.nan))
    size = np.exp(_query_effects(logs, plan_effects(logs)))  # (N,) cost factor of a query
    own = column_means(np.where(np.isfinite(cost), size[:, None], np.nan))  # (P,)
    return column_means(cost) / own * column_means(size[:, None])


@dataclass(frozen=True)
class BestSingleModel:
    """The best fixed plan among those with one agent.

    Where a query has none of them, the best plan of any size is taken.
    """

    name: str = "best single model"

    def fit(
        self, train: Outcomes, embeddings: Embeddings, *, cost_weights: Sequence[float], seed: int
    ) -> Chooser:
        means = PlanMeans.of(train)
        single = np.array([len(plan.agents) == 1 for plan in train.plans])
        if not (single & np.isfinite(means.score)).any():
            raise NotApplicable(f"{self.name}: no plan with a single agent has a training cell")

        def rank(cost_weight: float) -> Floats:
            utility = means.utility(cost_weight)
            spread = np.nanmax(utility) - np.nanmin(utility) if np.isfinite(utility).any() else 0.0
            return np.where(single, utility, utility - spread - 1.0)  # teams after all singles

        return FixedOrder(rank)


@dataclass(frozen=True)
class MessageLength:
    """The cheapest plan for short texts, the best fixed plan for longer ones.

    The length (in characters) from which the best fixed plan is taken is the one of the highest
    mean utility on the training queries, for each cost weight.
    """

    name: str = "message length"

    def fit(
        self, train: Outcomes, embeddings: Embeddings, *, cost_weights: Sequence[float], seed: int
    ) -> Chooser:
        return _fit_two_plans(
            train, self.name, cost_weights, _lengths(train.queries), _TextLength()
        )


@dataclass(frozen=True)
class CheapFirst:
    """Cheap first, escalate: the pre-routing variant.

    The cheapest plan where a logistic model of its score expects enough of it, else the best fixed
    plan. Logs hold no intermediate answers, so that escalation cannot look at the cheap answer and
    does not pay for it either. The threshold is the one of the highest mean utility on the training
    queries, for each cost weight, on predictions of models that had not seen the query (5 folds).
    """

    name: str = "cheap first, escalate"
    c: float = 1.0
    """Inverse strength of the logistic model's L2 penalty."""

    def fit(
        self, train: Outcomes, embeddings: Embeddings, *, cost_weights: Sequence[float], seed: int
    ) -> Chooser:
        costs = _known_costs(train, self.name)
        score = train.dense("score")
        cheap = np.where(np.isnan(score).all(axis=0), np.nan, costs)
        if np.isnan(cheap).all():
            raise NotApplicable(f"{self.name}: no plan of known cost has a known score in training")
        plan = int(np.nanargmin(cheap))
        seen = np.flatnonzero(np.isfinite(score[:, plan]))
        x, y = np.asarray(embeddings, np.float64), score[:, plan]
        model = fit_probability(x[seen], y[seen], c=self.c)
        success = model.predict(x)  # in sample only where no held-out model can be had
        if len(seen) >= 10:
            for rest, held_out in KFold(5, shuffle=True, random_state=seed).split(seen):
                part = fit_probability(x[seen[rest]], y[seen[rest]], c=self.c)
                success[seen[held_out]] = part.predict(x[seen[held_out]])
        # Doubt plays the part of length: from the threshold on, the best fixed plan is taken.
        return _fit_two_plans(train, self.name, cost_weights, 1.0 - success, _Doubt(model.predict))


class _TextLength:
    def __call__(self, queries: Queries) -> Floats:
        return _lengths(queries.texts)


@dataclass(frozen=True)
class _Doubt:
    success: Callable[[Floats], Floats]

    def __call__(self, queries: Queries) -> Floats:
        return 1.0 - self.success(np.asarray(queries.embeddings, np.float64))


@dataclass(frozen=True)
class _TwoPlans:
    """The cheapest plan below a threshold of some measure of the query, the best fixed from it."""

    costs: Floats  # (P,)
    means: PlanMeans
    threshold: dict[float, float]  # cost weight -> measure
    measure: Callable[[Queries], Floats]

    def choose(self, queries: Queries, cost_weight: float, available: Bools) -> Ints:
        cheap = best_available(-self.costs, available)
        best = best_available(self.means.utility(cost_weight), available)
        hard = self.measure(queries) >= self.threshold[float(cost_weight)]
        return np.where(hard, best, cheap)


def _fit_two_plans(
    train: Outcomes,
    name: str,
    cost_weights: Sequence[float],
    measured: Floats,  # (N,) of the training queries
    measure: Callable[[Queries], Floats],
) -> _TwoPlans:
    costs = _known_costs(train, name)
    means = PlanMeans.of(train)
    # "never" and "always" are among the candidates, so that a useless measure does no harm.
    candidates = np.append(np.unique(np.quantile(measured, np.linspace(0, 1, 41))), np.inf)
    threshold: dict[float, float] = {}
    for weight in cost_weights:
        utility = train.utility(weight)
        rows = np.flatnonzero(np.isfinite(utility).any(axis=1))
        if len(rows) == 0:
            threshold[float(weight)] = -np.inf
            continue
        utility = utility[rows]
        available = np.isfinite(utility)
        at = np.arange(len(rows))
        cheap = utility[at, best_available(-costs, available)]
        best = utility[at, best_available(means.utility(weight), available)]
        hard = measured[rows, None] >= candidates  # (rows, candidates)
        value = np.where(hard, best[:, None], cheap[:, None]).mean(axis=0)
        threshold[float(weight)] = float(candidates[int(np.argmax(value))])
    return _TwoPlans(costs, means, threshold, measure)


def _lengths(texts: Sequence[str]) -> Floats:
    return np.array([len(text) for text in texts], dtype=np.float64)


def _known_costs(train: Outcomes, name: str) -> Floats:
    costs = PlanMeans.of(train).cost
    if np.isnan(costs).all():
        raise NotApplicable(f"{name}: no cost is known in training")
    return costs
