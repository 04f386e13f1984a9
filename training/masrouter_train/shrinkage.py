"""Shrink to the fixed plan: which part of the critic has earned its place, at each cost weight.

Two questions, both answered on held-out queries. Which shrinkage predicts the differences between
plans best? (One answer for all cost weights: squared errors use every outcome, so they are far less
noisy than the outcomes of a few changed choices.) And does following it beat the best fixed plan at
this cost weight? On logs where text says nothing the router is the fixed plan.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from masrouter.errors import TrainingError
from masrouter.gate import FIXED, Gate, GateNode, choose
from masrouter.logs import LogKind
from masrouter.outcomes import Floats, Ints, Outcomes
from masrouter_train.config import GateConfig
from masrouter_train.fit_critic import FittedCritic


@dataclass(frozen=True)
class Gains:
    """Held-out utility of each head minus the fixed plan's: mean and its standard error."""

    mean: Floats  # (nodes, heads)
    error: Floats  # (nodes, heads)


def default_nodes(outcomes: Outcomes, nodes: int) -> tuple[float, ...]:
    """Cost weight 0 and log-spaced ones up to 6 / median cost; only 0 where no cost is known."""
    costs = outcomes.cost[np.isfinite(outcomes.cost) & (outcomes.cost > 0)]
    if len(costs) == 0:
        return (0.0,)
    top = 6.0 / float(np.median(costs))
    return (0.0, *np.geomspace(top / 3000, top, max(nodes - 1, 1)).tolist())


def choose_gate(
    outcomes: Outcomes,
    fitted: FittedCritic,
    known: Ints,
    cost_weights: Sequence[float],
    config: GateConfig,
) -> Gate:
    """Take the verdict at every cost weight.

    Args:
        known: (C,) positions of the plans that can be chosen.
    """
    view = outcomes.plans_at(known)
    means = _PlanMeans(view, cost_weights)
    best_head = min(range(len(fitted.errors)), key=lambda h: float(fitted.errors[h].sum()))
    default = -1
    if outcomes.kind is LogKind.OBSERVATIONAL:
        # Nothing about unlogged choices is identified, so gains cannot be measured: the most
        # precise head proposes, and at routing time a plan must win by `pessimism` errors.
        default = int(np.argmax(means.runs))
        nodes = tuple(GateNode(w, best_head, 0.0, 0.0) for w in cost_weights)
    else:
        gains = (
            _logged_gains(view, fitted, means, cost_weights)
            if outcomes.kind is LogKind.GRID
            else _estimated_gains(outcomes, fitted, means, known, cost_weights, best_head)
        )
        picked = (
            _verdicts(gains, best_head, _proof(fitted, best_head), config)
            if config.shrink
            else [best_head] * len(cost_weights)
        )
        nodes = tuple(
            GateNode(
                float(weight),
                head,
                float(gains.mean[i, head]) if head != FIXED else 0.0,
                float(gains.error[i, head]) if head != FIXED else 0.0,
            )
            for i, (weight, head) in enumerate(zip(cost_weights, picked, strict=True))
        )
    return Gate(
        nodes=nodes,
        mean_score=torch.from_numpy(means.score).float(),
        mean_cost=torch.from_numpy(means.cost).float(),
        mean_utility=torch.from_numpy(means.utility).float(),
        runs=torch.from_numpy(means.runs).float(),
        precise=best_head,
        pessimism=config.pessimism if outcomes.kind is LogKind.OBSERVATIONAL else 0.0,
        default=default,
    )


def _proof(fitted: FittedCritic, head: int) -> float:
    """Standard errors by which a head's held-out error is below the plan effect's."""
    gain = fitted.errors[0] - fitted.errors[head]
    return float(gain.mean() / (gain.std(correction=0) / math.sqrt(len(gain))).clamp_min(1e-12))


def _verdicts(gains: Gains, head: int, proof: float, config: GateConfig) -> list[int]:
    """At each cost weight the most precise head, else the plan effect with the cost of the query,
    else FIXED.

    Neighbouring cost weights are nearly the same question, so gains are smoothed over them
    (weights 1/2, 1, 1/2). A head that is proven to predict better needs a worthwhile smoothed gain
    and one above zero at the cost weight itself; one that is not needs gains above their errors.
    """
    smooth, error = gains.mean.copy(), gains.error.copy()
    n = len(smooth)
    for i in range(n):
        near = [j for j in (i - 1, i, i + 1) if 0 <= j < n]
        share = np.array([1.0 if j == i else 0.5 for j in near])
        share /= share.sum()
        smooth[i] = share @ gains.mean[near]
        error[i] = share @ gains.error[near]
    clear = (gains.mean > config.own_preference * gains.error) & (
        smooth > config.preference * error
    )
    positive = (gains.mean > 0) & (smooth > config.worthwhile)
    verdicts = []
    for i in range(n):
        if clear[i, head] or (proof > config.proof and positive[i, head]):
            verdicts.append(head)
        else:
            verdicts.append(0 if clear[i, 0] else FIXED)
    return verdicts


class _PlanMeans:
    """What is known of each plan without reading a query; (C,) each."""

    def __init__(self, view: Outcomes, cost_weights: Sequence[float]) -> None:
        self.runs = np.bincount(view.plan, weights=view.runs, minlength=view.n_plans)
        self.weight = np.ones(len(view.score))
        if view.kind is LogKind.RANDOMISED:  # self-normalised: plans are drawn unevenly by query
            self.weight = view.runs / view.propensity
        self.view = view
        self.score = self._mean(view.score)
        self.cost = self._mean(view.cost)
        self.utility = np.stack(
            [self.score if w == 0 else self._mean(view.score - w * view.cost) for w in cost_weights]
        )  # (nodes, C)

    def _mean(self, values: Floats) -> Floats:
        known = np.isfinite(values) & np.isfinite(self.weight)
        size = self.view.n_plans
        sums = np.bincount(self.view.plan[known], (values * self.weight)[known], minlength=size)
        weights = np.bincount(self.view.plan[known], self.weight[known], minlength=size)
        with np.errstate(invalid="ignore", divide="ignore"):
            mean: Floats = np.where(weights > 0, sums / weights, np.nan)
        return mean


def _utilities(fitted: FittedCritic, cost_weight: float) -> list[Tensor]:
    """Held-out predicted utility of each head: (N, C) each."""
    penalty = 0.0 if cost_weight == 0 or fitted.cost is None else cost_weight * fitted.cost.grid
    return [head.grid - penalty for head in fitted.scores]


def _logged_gains(
    view: Outcomes, fitted: FittedCritic, means: _PlanMeans, cost_weights: Sequence[float]
) -> Gains:
    """Grid logs hold the outcome of every choice: look it up."""
    mean, error = [], []
    for i, weight in enumerate(cost_weights):
        utility = torch.from_numpy(view.utility(weight)).float()  # (N, C)
        available = torch.isfinite(utility)
        rows = available.any(1)
        if not bool(rows.any()):
            raise TrainingError(f"no query has a plan of known utility at cost weight {weight:g}")
        fixed = torch.from_numpy(means.utility[i]).float().expand_as(utility)
        at_fixed = _take(utility, choose(fixed, available))[rows]
        gains = [
            _take(utility, choose(predicted, available))[rows] - at_fixed
            for predicted in _utilities(fitted, weight)
        ]
        mean.append([float(g.mean()) for g in gains])
        error.append([float(g.std(correction=0)) / math.sqrt(len(g)) for g in gains])
    return Gains(np.array(mean), np.array(error))


def _estimated_gains(
    outcomes: Outcomes,
    fitted: FittedCritic,
    means: _PlanMeans,
    known: Ints,
    cost_weights: Sequence[float],
    best_head: int,
) -> Gains:
    """Randomised logs: the doubly robust difference to the fixed plan, query by query.

        V(pi) = mean of q(x, pi(x)) + 1[a = pi(x)] / p(a|x) * (u - q(x, a))

    with the cross-fitted critic as q (Dudik, Langford & Li, arXiv 1103.4601).
    """
    position = np.full(outcomes.n_plans, -1, dtype=np.int64)
    position[known] = np.arange(len(known))
    scored = np.isfinite(outcomes.score) & np.isfinite(outcomes.propensity)
    mean, error = [], []
    for i, weight in enumerate(cost_weights):
        predicted = _utilities(fitted, weight)
        q = predicted[best_head]  # (N, C)
        usable = scored & (np.isfinite(outcomes.cost) if weight else True)
        cells = np.flatnonzero(usable & (position[outcomes.plan] >= 0))
        query = torch.from_numpy(outcomes.query[cells])
        plan = torch.from_numpy(position[outcomes.plan[cells]])
        reward = outcomes.score[cells] - (weight * outcomes.cost[cells] if weight else 0.0)
        surprise = torch.from_numpy(reward).float() - q[query, plan]
        surprise = surprise / torch.from_numpy(outcomes.propensity[cells]).float()
        draws = torch.from_numpy(outcomes.runs[cells]).float()  # a query may have several
        all_draws = torch.zeros(outcomes.n_queries).index_add(0, query, draws)
        share = draws / all_draws.clamp_min(1)[query]
        fixed_utility = torch.from_numpy(means.utility[i]).float().expand_as(q)
        available = torch.isfinite(fixed_utility)

        def value(choice: Tensor) -> Tensor:
            total = _take(q, choice)  # noqa: B023 (called in this iteration only)
            taken = (choice[query] == plan).float() * surprise * share  # noqa: B023
            return total.index_add(0, query, taken)  # noqa: B023

        at_fixed = value(choose(fixed_utility, available))
        gains = [value(choose(head, available)) - at_fixed for head in predicted]
        mean.append([float(g.mean()) for g in gains])
        error.append([float(g.std(correction=0)) / math.sqrt(len(g)) for g in gains])
    return Gains(np.array(mean), np.array(error))


def _take(matrix: Tensor, choice: Tensor) -> Tensor:
    """(N, C), (N,) -> (N,)."""
    return matrix.gather(1, choice[:, None])[:, 0]
