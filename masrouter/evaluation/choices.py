"""What a learner chose at one cost weight: topologies, counts, roles and models, as shares.

Not here: what the choices got and paid (`summary`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from masrouter.outcomes import Ints
from masrouter.types import Plan

NO_ROLE = "no role"
"""How a seat is counted whose role nobody named."""


@dataclass(frozen=True)
class Mix:
    """Shares of choices, over queries and seeds; largest first."""

    topologies: dict[str, float]
    """Of choices."""
    counts: dict[str, float]
    """Of choices, by the number of agents, in its order."""
    roles: dict[str, float]
    """Of seats."""
    models: dict[str, float]
    """Of seats."""
    plan: Plan
    """The plan chosen most often."""
    plan_share: float
    """Of choices that are that plan."""


def mix_of(chosen: Ints, plans: Sequence[Plan]) -> Mix | None:
    """The mix of plan indices of any shape, negative for no choice; None where all are."""
    index, times = np.unique(chosen[chosen >= 0], return_counts=True)
    if len(index) == 0:
        return None
    by: dict[str, Counter[str]] = {k: Counter() for k in ("topology", "count", "role", "model")}
    for plan, n in zip((plans[i] for i in index), times.tolist(), strict=True):
        by["topology"][plan.topology] += n
        by["count"][str(len(plan.agents))] += n
        for agent in plan.agents:
            by["role"][agent.role or NO_ROLE] += n
            by["model"][agent.model] += n
    most = int(times.argmax())
    counts = _shares(by["count"])
    return Mix(
        topologies=_shares(by["topology"]),
        counts={size: counts[size] for size in sorted(counts, key=int)},
        roles=_shares(by["role"]),
        models=_shares(by["model"]),
        plan=plans[int(index[most])],
        plan_share=float(times[most] / times.sum()),
    )


def _shares(counted: Counter[str]) -> dict[str, float]:
    total = counted.total()
    ranked = sorted(counted.items(), key=lambda item: (-item[1], item[0]))
    return {name: n / total for name, n in ranked}
