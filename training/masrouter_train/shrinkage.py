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
from masrouter_train.fit_critic import PRIOR_RUNS, FittedCritic


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
    best_head = min(range(len(fitted.errors)), key=lambda h: float(fitted.errors[h].sum()))
    means = _PlanMeans(view, cost_weights, fitted, best_head)
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
        mean_score=means.score.astype(np.float32),
        mean_cost=means.cost.astype(np.float32),
        mean_utility=means.utility.astype(np.float32),
        runs=means.runs.astype(np.float32),
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
    """What is known of each plan without reading a query; (C,) each.

    On randomised logs plans are drawn unevenly, by query and among each other, and the best of many
    means of a few runs is mostly luck. There a mean is doubly robust, and corrected only as far as
    runs carry it (Buehlmann credibility):

        m(a) = mean of q(x, a) over queries + n / (n + PRIOR_RUNS) * weighted mean of (y - q)

    with the cross-fitted critic as q, weights 1 / p(a|x), and n = (sum w)^2 / sum w^2. And a plan
    is taken at the lower bound m - sigma / sqrt(n + PRIOR_RUNS), so that what is hardly known does
    not replace what is (pessimism: Jin, Yang & Wang, ICML 2021).
    """

    def __init__(
        self, view: Outcomes, cost_weights: Sequence[float], fitted: FittedCritic, head: int
    ) -> None:
        self.runs = np.bincount(view.plan, weights=view.runs, minlength=view.n_plans)
        self.view = view
        if view.kind is not LogKind.RANDOMISED:
            self.score, self.cost = self._mean(view.score), self._mean(view.cost)
            utility = [self._mean(view.score - w * view.cost) for w in cost_weights if w]
        else:
            score = fitted.scores[head].grid.numpy().astype(np.float64)  # (N, C)
            cost = np.full_like(score, np.nan)
            if fitted.cost is not None:
                cost = fitted.cost.grid.numpy().astype(np.float64)
            doubt = self._doubt(score)
            self.score = np.clip(self._credible(view.score, score) - doubt, 0, 1)
            self.cost = self._credible(view.cost, cost)
            utility = [
                self._credible(view.score - w * view.cost, score - w * cost) - doubt
                for w in cost_weights
                if w
            ]
        free = [self.score] * sum(w == 0 for w in cost_weights)
        self.utility = np.stack([*free, *utility])  # (nodes, C)

    def _mean(self, values: Floats) -> Floats:
        known = np.isfinite(values)
        plan, size = self.view.plan[known], self.view.n_plans
        sums = np.bincount(plan, values[known], minlength=size)
        with np.errstate(invalid="ignore", divide="ignore"):
            mean: Floats = sums / np.bincount(plan, minlength=size)
        return mean

    def _credible(self, values: Floats, predicted: Floats) -> Floats:
        """Of cells (R,), with what is predicted of every pair (N, C) -> (C,)."""
        surprise = values - predicted[self.view.query, self.view.plan]
        weight = self._weight(surprise)
        runs = self._effective_runs(weight)
        size = self.view.n_plans
        sums = np.bincount(self.view.plan, np.nan_to_num(surprise) * weight, minlength=size)
        weights = np.bincount(self.view.plan, weight, minlength=size)
        with np.errstate(invalid="ignore", divide="ignore"):
            mean: Floats = predicted.mean(0) + sums / weights * runs / (runs + PRIOR_RUNS)
        return mean

    def _doubt(self, predicted: Floats) -> Floats:
        """How far above the truth a plan's mean score may well be, (C,)."""
        surprise = self.view.score - predicted[self.view.query, self.view.plan]
        runs = self._effective_runs(self._weight(surprise))
        noise = float(np.nanmean(surprise**2))
        doubt: Floats = np.sqrt(noise / (runs + PRIOR_RUNS))
        return doubt

    def _weight(self, values: Floats) -> Floats:
        """1 / p(a|x) of each run of a cell, 0 where the value is not known: (R,)."""
        weight = np.where(np.isfinite(values), self.view.runs / self.view.propensity, 0.0)
        return np.nan_to_num(weight)

    def _effective_runs(self, weight: Floats) -> Floats:
        """Runs of equal weight that would tell as much, (C,)."""
        size, runs = self.view.n_plans, np.maximum(self.view.runs, 1)
        squares = np.bincount(self.view.plan, weight**2 / runs, minlength=size)
        sums = np.bincount(self.view.plan, weight, minlength=size)
        effective: Floats = sums**2 / np.maximum(squares, 1e-300)
        return effective


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
        at_fixed = _take(utility, _choose(fixed, available))[rows]
        gains = [
            _take(utility, _choose(predicted, available))[rows] - at_fixed
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

        at_fixed = value(_choose(fixed_utility, available))
        gains = [value(_choose(head, available)) - at_fixed for head in predicted]
        mean.append([float(g.mean()) for g in gains])
        error.append([float(g.std(correction=0)) / math.sqrt(len(g)) for g in gains])
    return Gains(np.array(mean), np.array(error))


def _take(matrix: Tensor, choice: Tensor) -> Tensor:
    """(N, C), (N,) -> (N,)."""
    return matrix.gather(1, choice[:, None])[:, 0]


def _choose(utility: Tensor, available: Tensor) -> Tensor:
    """`gate.choose` for tensors: (N, C), (N, C) bool -> (N,)."""
    return torch.from_numpy(choose(utility.numpy(), available.numpy()))
