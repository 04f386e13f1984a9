"""What the cascade is taught, by cost weight: the critic's held-out opinion and logged outcomes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from masrouter.critic import jackknife_error
from masrouter.gate import FIXED, Gate
from masrouter.logs import LogKind
from masrouter.outcomes import Ints, Outcomes
from masrouter_train.fit_critic import FittedCritic


@dataclass(frozen=True)
class Lessons:
    """N training queries, C plans, V cost weights (the gate's nodes), H score heads."""

    kind: LogKind
    embeddings: Tensor  # (N, E)
    statistics: Tensor  # (N, S) standardised
    cost_weights: Tensor  # (V,)
    scale: Tensor  # (V,) 1 + cost weight * typical cost
    scores: Tensor  # (H, N, C) held-out predictions, less pessimism on observational logs
    costs: Tensor  # (N, C) held-out predictions; 0 where no cost is known
    head: Tensor  # (V,) the gate's head, FIXED for the fixed plan
    mean_utility: Tensor  # (V, C)
    logged_score: Tensor  # (N, C) NaN where not logged
    logged_cost: Tensor  # (N, C)
    supported: Tensor  # (C,) bool: plans that may be chosen
    drawn: Tensor  # (N,) randomised logs: the logged plan, -1 if it is not among the C
    propensity: Tensor  # (N,)

    @property
    def n(self) -> int:
        return len(self.embeddings)

    def predicted(self, queries: Tensor, node: Tensor) -> Tensor:
        """The gate's opinion, (B,) queries at (B,) nodes -> utility (B, C); NaN where unknown."""
        head = self.head[node]
        weight = self.cost_weights[node][:, None]
        score = self.scores[head.clamp_min(0), queries]  # (B, C)
        utility = score - weight * torch.where(weight > 0, self.costs[queries], 0.0)
        return torch.where((head == FIXED)[:, None], self.mean_utility[node], utility)

    def utility(self, queries: Tensor, node: Tensor) -> Tensor:
        """Logged utility, (B,), (B,) -> (B, C); NaN where unknown."""
        weight = self.cost_weights[node][:, None]
        score = self.logged_score[queries]
        return torch.where(weight > 0, score - weight * self.logged_cost[queries], score)

    def available(self, queries: Tensor, node: Tensor) -> Tensor:
        """Plans between which the lesson is defined: (B, C) bool."""
        allowed = self.supported & torch.isfinite(self.mean_utility[node])
        if self.kind is LogKind.GRID:
            return allowed & torch.isfinite(self.utility(queries, node))
        return allowed


def make_lessons(
    outcomes: Outcomes,
    fitted: FittedCritic,
    gate: Gate,
    known: Ints,
    reference_cost: float,
    seed: int,
) -> Lessons:
    """Gather lessons; `known` (C,) are the plans that can be chosen."""
    view = outcomes.plans_at(known)
    weights = torch.tensor([node.cost_weight for node in gate.nodes])
    scores = torch.stack([head.grid for head in fitted.scores])  # (H, N, C)
    supported = torch.from_numpy(gate.runs > 0)
    if outcomes.kind is LogKind.OBSERVATIONAL:
        scores = scores - gate.pessimism * _head_errors(fitted, known)
        supported = supported & torch.from_numpy(gate.supported())
    drawn = torch.full((outcomes.n_queries,), -1, dtype=torch.long)
    propensity = torch.ones(outcomes.n_queries)
    if outcomes.kind is LogKind.RANDOMISED:
        # Of several draws for one query one is the lesson, by lot; the critic learns from all.
        usable = np.flatnonzero(np.isfinite(view.propensity) & (view.runs > 0))
        lot = np.random.default_rng(seed).random(len(usable)) ** (1 / view.runs[usable])
        usable = usable[np.lexsort((-lot, view.query[usable]))]
        first = usable[np.unique(view.query[usable], return_index=True)[1]]
        drawn[view.query[first]] = torch.from_numpy(view.plan[first])
        propensity[view.query[first]] = torch.from_numpy(view.propensity[first]).float()
    return Lessons(
        kind=outcomes.kind,
        embeddings=fitted.inputs.embeddings,
        statistics=fitted.critic.query_features.standardise(fitted.inputs.statistics),
        cost_weights=weights,
        scale=1 + weights * reference_cost,
        scores=scores,
        costs=torch.zeros_like(scores[0]) if fitted.cost is None else fitted.cost.grid,
        head=torch.tensor([node.head for node in gate.nodes]),
        mean_utility=torch.from_numpy(gate.mean_utility),
        logged_score=torch.from_numpy(view.dense("score")).float(),
        logged_cost=torch.from_numpy(view.dense("cost")).float(),
        supported=supported,
        drawn=drawn,
        propensity=propensity,
    )


def _head_errors(fitted: FittedCritic, known: Ints) -> Tensor:
    """Standard error of each head's predictions on the training queries: (H, N, C)."""
    critic = fitted.critic
    inputs = fitted.inputs
    phi = critic.query_features(inputs.embeddings, inputs.statistics, inputs.domains)
    z = critic.describe(critic.known)
    errors = []
    for position in range(len(critic.score_scales)):
        folded = critic.head(critic.score_head(position)).weight[1:] @ z.T  # (M - 1, F, C)
        errors.append(jackknife_error(torch.matmul(phi, folded)))
    return torch.stack(errors)
