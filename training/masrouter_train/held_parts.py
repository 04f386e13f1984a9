"""Ablated stages: a part of the plan that is not chosen but held at the best fixed plan's.

The plans that can be chosen, at every cost weight, are those that agree in the part with the best
fixed plan at the default cost weight: the same topology, set of roles, or set of models. Sets,
because the number of agents is a choice of its own: with the models held at {a, b}, teams of any
size and topology that are made of a and b, and of both, remain. All logged runs still teach; only
the choice is narrowed.

Not here: which parts are held (`config`), what is learned about the plans that are left.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from masrouter.logs import LogKind
from masrouter.outcomes import Floats, Ints, Outcomes
from masrouter.types import Plan
from masrouter_train.config import TrainConfig


@dataclass(frozen=True)
class HeldParts:
    """Which parts of a plan are held; agreeing in them is an equivalence of plans."""

    topology: bool
    roles: bool
    models: bool

    @classmethod
    def of(cls, config: TrainConfig) -> HeldParts:
        return cls(not config.choose_topology, not config.choose_roles, not config.choose_models)

    def __bool__(self) -> bool:
        """Whether anything is held."""
        return self.topology or self.roles or self.models

    def agree(self, one: Plan, other: Plan) -> bool:
        """Whether the plans are the same in every held part."""
        return (
            (not self.topology or one.topology == other.topology)
            and (not self.roles or _roles(one) == _roles(other))
            and (not self.models or set(one.models) == set(other.models))
        )

    def describe(self, plan: Plan) -> str:
        """What is held, in words: `topology cot, models gpt-4o`."""
        said = []
        if self.topology:
            said.append(f"topology {plan.topology}")
        if self.roles:
            said.append(f"roles {', '.join(sorted(role or 'none' for role in _roles(plan)))}")
        if self.models:
            said.append(f"models {', '.join(sorted(plan.models))}")
        return ", ".join(said)

    def choosable(self, outcomes: Outcomes, known: Ints, cost_weight: float) -> Ints:
        """Those of the known plans (C,) that agree with the best fixed one at the cost weight."""
        if not self:
            return known
        best = outcomes.plans[best_fixed(outcomes, known, cost_weight)]
        return np.array([i for i in known if self.agree(outcomes.plans[i], best)], dtype=np.int64)


def best_fixed(outcomes: Outcomes, known: Ints, cost_weight: float) -> int:
    """Position of the known plan of highest mean utility over its own cells.

    On randomised logs cells count by runs over propensity (self-normalised); on observational ones,
    where means of different plans compare different queries, it is the plan with the most runs.
    A plan of unknown utility is taken only where none is known.
    """
    size = outcomes.n_plans
    if outcomes.kind is LogKind.OBSERVATIONAL:
        value = np.bincount(outcomes.plan, outcomes.runs, minlength=size).astype(np.float64)
    else:
        utility = outcomes.score
        if cost_weight > 0:
            utility = utility - cost_weight * outcomes.cost
        weight: Floats = np.ones(len(utility))
        if outcomes.kind is LogKind.RANDOMISED:
            weight = outcomes.runs / outcomes.propensity
        seen = np.isfinite(utility) & np.isfinite(weight)
        sums = np.bincount(outcomes.plan[seen], (utility * weight)[seen], minlength=size)
        weights = np.bincount(outcomes.plan[seen], weight[seen], minlength=size)
        value = np.where(weights > 0, sums / np.maximum(weights, 1e-300), -np.inf)
    return int(known[int(np.argmax(value[known]))])


def _roles(plan: Plan) -> set[str | None]:
    return {agent.role for agent in plan.agents}
