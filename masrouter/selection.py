"""From what the critic expects to one plan: constraints, gate, pessimism, alternatives.

Pure array code over C candidate plans, the same whatever ran the networks (`scorer`); the router
turns its results into words and types.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, fields
from numbers import Integral, Real

import numpy as np

from masrouter.errors import ConstraintError, RoutingError
from masrouter.gate import FIXED, Bools, Floats32, Gate, Ints, choose
from masrouter.scorer import Reading, Scorer
from masrouter.types import Plan


@dataclass(frozen=True)
class Constraints:
    """What a request allows. None allows everything."""

    max_cost_usd: float | None = None
    max_agents: int | None = None
    models: tuple[str, ...] | None = None
    exclude_models: tuple[str, ...] = ()
    topologies: tuple[str, ...] | None = None

    def check(self, models: Collection[str], topologies: Collection[str]) -> None:
        """RoutingError for a value that cannot be meant: a wrong type, a name nobody knows."""
        if self.max_cost_usd is not None:
            number("max_cost_usd", self.max_cost_usd, above=0.0)
        if self.max_agents is not None:
            integer("max_agents", self.max_agents, at_least=1)
        for field in ("models", "topologies"):
            if getattr(self, field) == ():
                raise RoutingError(
                    f"{field}: an empty list allows nothing; leave it out to allow all"
                )
        named = (
            ("models", self.models or (), models),
            ("exclude_models", self.exclude_models, models),
            ("topologies", self.topologies or (), topologies),
        )
        for field, names, known in named:
            for name in names:
                if not isinstance(name, str) or name not in known:
                    raise RoutingError(
                        f"{field}: {name!r} is unknown to this router; "
                        f"it knows {', '.join(sorted(known))}"
                    )

    def structural(self, plans: Sequence[Plan]) -> Bools:
        """(C,) plans whose shape and models are allowed, whatever the query."""
        if not any(field != "max_cost_usd" for field in self.given()):
            return np.ones(len(plans), dtype=np.bool_)
        return np.array([self._allows(plan) for plan in plans], dtype=np.bool_)

    def _allows(self, plan: Plan) -> bool:
        return (
            (self.max_agents is None or len(plan.agents) <= self.max_agents)
            and (self.topologies is None or plan.topology in self.topologies)
            and (self.models is None or all(m in self.models for m in plan.models))
            and not any(m in self.exclude_models for m in plan.models)
        )

    def without(self, field: str) -> Constraints:
        """The same without one constraint."""
        kept = {k: getattr(self, k) for k in self.__dataclass_fields__ if k != field}
        return Constraints(**kept)

    def given(self) -> tuple[str, ...]:
        """Names of the constraints that were set."""
        return tuple(k for k in self.__dataclass_fields__ if getattr(self, k))


LARGEST = 1e12
"""Bound on money and trade-offs, so that single precision holds them."""


def number(
    field: str, value: object, *, above: float | None = None, at_least: float | None = None
) -> float:
    """A finite number within bounds, or RoutingError naming the field."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise RoutingError(f"{field}: expected a number, got {value!r}")
    number = _float(value)
    low = above if above is not None else at_least
    fits = number > above if above is not None else at_least is None or number >= at_least
    if not (fits and number <= LARGEST):
        kind = "above" if above is not None else "at least"
        raise RoutingError(
            f"{field}: expected {kind} {low:g} and at most {LARGEST:g}, got {number!r}"
        )
    return number


def _float(value: Real) -> float:
    try:
        return float(value)
    except OverflowError:  # a whole number of hundreds of digits
        return math.inf


def integer(field: str, value: object, *, at_least: int, at_most: int = 2**62) -> int:
    """A whole number within bounds, or RoutingError naming the field."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise RoutingError(f"{field}: expected a whole number, got {value!r}")
    whole = int(value)
    if not at_least <= whole <= at_most:
        raise RoutingError(f"{field}: expected {at_least} to {at_most}, got {_float(value):g}")
    return whole


@dataclass(frozen=True)
class Expected:
    """What is expected of C plans on B queries."""

    score: Floats32  # (B, C) of the head that the gate chose, else of the most precise one
    score_error: Floats32  # (B, C) standard error
    cost: Floats32  # (B, C) US dollars; NaN where it cannot be told
    cost_factor: Floats32  # (B, C) multiplicative standard error of cost, at least 1
    prompt_tokens: Floats32  # (B, C) of the whole run; NaN where the logs had none
    completion_tokens: Floats32  # (B, C)
    utility: Floats32  # (B, C) what the choice maximises; NaN where unknown
    head: int
    """Score head that `score` comes from."""

    @classmethod
    def together(cls, parts: Sequence[Expected]) -> Expected:
        """Of all queries, for the same plans at the same cost weight."""
        arrays = [f.name for f in fields(cls) if f.name != "head"]
        return cls(
            **{name: np.concatenate([getattr(part, name) for part in parts]) for name in arrays},
            head=parts[0].head,
        )


def expect(
    scorer: Scorer,
    gate: Gate,
    reading: Reading,
    cost_weight: float,
    price_ratio: Floats32,
    prices: Floats32,
) -> Expected:
    """Predict every plan on every query at one cost weight.

    Args:
        price_ratio: (C,) today's price of a plan over the price when it was trained.
        prices: (2, C) US dollars per million prompt and completion tokens, NaN where unknown; used
            with expected tokens for plans whose logs had no cost.
    """
    _, node = gate.at(cost_weight)
    head = gate.precise if node.head == FIXED else node.head
    scores = scorer.score(reading.phi, head)
    score = scores.score
    unknown = np.full_like(score, np.nan)
    prompt, completion = (
        unknown if tokens is None else tokens
        for tokens in (reading.prompt_tokens, reading.completion_tokens)
    )
    cost = (prompt * prices[0] + completion * prices[1]) / np.float32(1e6)
    if reading.cost is not None:
        billed = np.where(np.isfinite(gate.mean_cost), reading.cost * price_ratio, np.nan)
        cost = np.where(np.isfinite(billed), billed, cost)
    if node.head == FIXED:
        utility = np.broadcast_to(gate.fixed_utility(cost_weight), score.shape)
    else:
        utility = score if cost_weight == 0 else score - cost_weight * cost
    return Expected(
        score, scores.error, cost, reading.cost_factor, prompt, completion, utility, head
    )


def allowed_plans(
    constraints: Constraints, plans: Sequence[Plan], cost: Floats32, cost_weight: float
) -> Bools:
    """(B, C) plans that meet every constraint.

    Money is never guessed: under a budget or a cost weight a plan of unknown cost is not allowed.
    Raises ConstraintError naming which constraint to relax if a query is left with none.
    """
    structural = constraints.structural(plans)
    allowed: Bools = np.broadcast_to(structural, cost.shape)
    if constraints.max_cost_usd is not None:
        allowed = allowed & (cost <= constraints.max_cost_usd)
    elif cost_weight > 0:
        allowed = allowed & np.isfinite(cost)
    empty = ~allowed.any(1)
    if empty.any():
        raise ConstraintError(_relax(constraints, plans, cost[empty][0], cost_weight))
    return allowed


def _relax(
    constraints: Constraints, plans: Sequence[Plan], cost: Floats32, cost_weight: float
) -> str:
    """Which constraint to relax, and how far; cost (C,) on the query."""
    given = constraints.given()
    structural = constraints.structural(plans)
    if structural.any():
        known = cost[structural]
        if not np.isfinite(known).any():
            names = sorted({m for p, ok in zip(plans, structural, strict=True) if ok
                            for m in p.models})  # fmt: skip
            what = "max_cost_usd" if constraints.max_cost_usd is not None else "the cost weight"
            return (
                f"no allowed plan has a known cost (models: {', '.join(names)}); drop {what}, or "
                f"give these models a price in the catalog"
            )
        least = float(known[np.isfinite(known)].min())
        if constraints.max_cost_usd is not None:
            return (
                f"max_cost_usd={constraints.max_cost_usd:g}: the cheapest allowed plan is expected "
                f"to cost {least:.6g} US dollars on this query; raise max_cost_usd to that"
            )
    for field in given:
        if constraints.without(field).structural(plans).any():
            return f"{field}={getattr(constraints, field)!r}: no plan is left; relax {field}"
    return f"no plan meets {', '.join(given)} together; relax two of them"


def decide(expected: Expected, gate: Gate, allowed: Bools) -> Ints:
    """The plan of each query: (B, C) -> (B,).

    On observational logs a plan needs support, and must beat the logged default by `pessimism`
    standard errors.
    """
    if gate.default < 0:
        return choose(expected.utility, allowed)
    utility = expected.utility - gate.pessimism * expected.score_error
    utility[:, gate.default] = expected.utility[:, gate.default]
    return choose(utility, _supported(gate, allowed))


def safe_plans(gate: Gate, cost_weight: float, allowed: Bools) -> Ints:
    """The best plan that is known without reading a query: (B, C) allowed -> (B,).

    On observational logs it is the logged default, or the best supported plan without it.
    """
    utility = gate.fixed_utility(cost_weight)
    if gate.default >= 0:
        utility[gate.default] = math.inf
    return choose(utility, _supported(gate, allowed))


def told_apart(
    gate: Gate, chosen: Ints, expected: Expected, allowed: Bools, cost_weight: float
) -> Ints:
    """Fixed plans (B,), by what is expected of them where nothing that is allowed was ever run.

    `allowed` (B, C) bool. Only plans that came after training were never run, and the gate knows
    such plans no better than one another.
    """
    if not gate.added:
        return chosen
    run = np.isfinite(gate.fixed_utility(cost_weight))[chosen]
    utility = expected.score - cost_weight * expected.cost if cost_weight else expected.score
    return np.where(run, chosen, choose(utility, allowed))


def _supported(gate: Gate, allowed: Bools) -> Bools:
    """Allowed plans with support; where constraints leave none, what they leave is all there is."""
    if gate.default < 0:
        return allowed
    supported = allowed & gate.supported()
    return np.where(supported.any(1, keepdims=True), supported, allowed)


def frontier(score: Floats32, cost: Floats32, allowed: Bools, k: int) -> list[int]:
    """Up to k plans that no other plan beats on both counts, cheapest first: (C,) each.

    Plans of unknown cost take part only where no allowed plan has a known one.
    """
    scores, costs = score.tolist(), cost.tolist()
    candidates = [i for i, ok in enumerate(allowed.tolist()) if ok]
    priced = [i for i in candidates if math.isfinite(costs[i])]
    if not priced:
        return sorted(candidates, key=lambda i: -scores[i])[:k]
    kept: list[int] = []
    best = -math.inf
    for i in sorted(priced, key=lambda i: (costs[i], -scores[i])):
        if scores[i] > best:
            kept.append(i)
            best = scores[i]
    if len(kept) <= k:
        return kept
    return [kept[i] for i in np.linspace(0, len(kept) - 1, k).round().astype(int).tolist()]
