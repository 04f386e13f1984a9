"""What a routed team is compared with where nobody says, and what arms are expected to cost."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from masrouter.outcomes import Floats
from masrouter.router import Router
from masrouter.selection import safe_plans
from masrouter.types import Plan

ROWS = 256
"""Queries that are looked at together: bounds the memory of a large set."""


def best_fixed_plan(
    router: Router,
    plans: Sequence[Plan],
    *,
    cost_weight: float,
    max_cost_usd: float | None = None,
) -> Plan | None:
    """The one of `plans` that the router's logs favour at a trade-off, without reading a query.

    max_cost_usd: of the plan's mean cost; None where no plan keeps to it.
    """
    allowed = np.array([plan in plans for plan in router.plans])
    if max_cost_usd is not None:
        allowed &= _mean_costs(router) <= max_cost_usd
    if not allowed.any():
        return None
    return router.plans[int(safe_plans(router.state.gate, cost_weight, allowed[None])[0])]


def cheapest_single_agent(router: Router, plans: Sequence[Plan]) -> Plan | None:
    """The one-agent plan of the least mean cost in the router's logs; None where none is known."""
    costs = _mean_costs(router)
    single = [
        (float(cost), plan)
        for plan, cost in zip(router.plans, costs, strict=True)
        if plan in plans and len(plan.agents) == 1 and math.isfinite(cost)
    ]
    return min(single, key=lambda item: item[0])[1] if single else None


def expected_costs(router: Router, queries: Sequence[str], cost_weight: float) -> Floats:
    """US dollars of each of the router's plans on each query as its critic expects: (n, C)."""
    parts = []
    for start in range(0, len(queries), ROWS):
        embeddings, statistics = router.read(queries[start : start + ROWS])
        parts.append(router.expect(embeddings, statistics, cost_weight).cost)
    return np.concatenate(parts).astype(np.float64)


def _mean_costs(router: Router) -> Floats:
    """Of the logs, at today's prices: (C,); NaN where unknown."""
    costs = router.state.gate.mean_cost * router.state.price_ratio()
    return costs.astype(np.float64)
