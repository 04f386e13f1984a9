"""Decisions that now and then try something else, and say how probable what they took was.

With probability epsilon the plan is drawn from the cascade, else it is the router's choice. So a
plan's propensity is (1 - epsilon) [plan is the choice] + epsilon pi(plan), with pi the cascade's
probability within the request's constraints; logged with it, decisions can train the next router.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from masrouter.errors import ConfigError, RoutingError
from masrouter.router import Router
from masrouter.types import Plan, RoutingDecision, StageProbabilities


@dataclass(frozen=True, slots=True)
class Explored:
    """A decision, and with what probability it came out as it did."""

    decision: RoutingDecision
    propensity: float | None
    """None where it was too small for a number."""
    stages: Mapping[str, Any] | None
    """The same stage by stage: topology, count, roles, models; their product is the propensity."""
    drawn: bool
    """Whether the cascade was asked; it may have drawn the router's own choice."""


class Explorer:
    """Routes with a share of exploration. Thread-safe.

    rng: decides when to explore, and seeds the draws; the system's randomness without it.
    """

    def __init__(self, router: Router, epsilon: float, rng: random.Random | None = None) -> None:
        """Raises ConfigError where there is nothing that could be drawn from."""
        self.epsilon = epsilon
        self._router = router
        self._rng = rng or random.SystemRandom()
        if epsilon > 0:
            try:
                router.route("Which plans may be drawn?", sample=True, seed=0)
            except RoutingError as error:
                raise ConfigError(
                    f"exploration: {epsilon:g} of the decisions should be drawn, but {error}; use "
                    "a checkpoint with a trained cascade, or no exploration"
                ) from error

    def route(self, queries: Sequence[str], arguments: Mapping[str, Any]) -> list[Explored]:
        """Decide for each query; arguments of `Router.route_batch`. Raises what that raises."""
        chosen = self._router.route_batch(queries, **arguments)
        drawing = [i for i in range(len(queries)) if self._rng.random() < self.epsilon]
        decisions = dict(enumerate(chosen))
        if drawing:
            drawn = self._router.route_batch(
                [queries[i] for i in drawing],
                **arguments,
                sample=True,
                seed=self._rng.getrandbits(48),
            )
            decisions |= dict(zip(drawing, drawn, strict=True))
        return [
            self._explored(decisions[i], choice.plan, drawn=i in drawing)
            for i, choice in enumerate(chosen)
        ]

    def _explored(self, decision: RoutingDecision, choice: Plan, *, drawn: bool) -> Explored:
        if self.epsilon == 0:
            return Explored(decision, 1.0, None, False)
        steps = mixture(decision.plan, choice, decision.stage_probabilities, self.epsilon)
        propensity = math.prod(steps)
        if not propensity > 0:  # underflow
            return Explored(decision, None, None, drawn)
        topology, count, *seats = steps
        stages = {"topology": topology, "count": count, "roles": seats[0::2], "models": seats[1::2]}
        return Explored(decision, propensity, stages, drawn)


def mixture(plan: Plan, choice: Plan, cascade: StageProbabilities, epsilon: float) -> list[float]:
    """Probability of each choice that makes the plan, given those before it, under the mixture.

    Each is the mass of a prefix of choices over the mass of the prefix before it; their product is
    (1 - epsilon) [plan is the choice] + epsilon pi(plan).
    """
    path, own = _choices(plan), _choices(choice)
    mass, share = [1.0], epsilon
    for end, step in enumerate(_steps(cascade), start=1):
        share *= step
        mass.append(share + (1.0 - epsilon) * (path[:end] == own[:end]))
    return [min(after / before, 1.0) if before > 0 else 0.0 for before, after in pairwise(mass)]


def _steps(cascade: StageProbabilities) -> list[float]:
    seats = zip(cascade.roles, cascade.models, strict=True)
    return [cascade.topology, cascade.count, *(p for seat in seats for p in seat)]


def _choices(plan: Plan) -> list[object]:
    path: list[object] = [plan.topology, len(plan.agents)]
    for agent in plan.agents:
        path += [agent.role, agent.model]
    return path
