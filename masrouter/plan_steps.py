"""Plans as choices, one a stage: topology, count, then role and model of each agent in turn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from masrouter.errors import PlanError
from masrouter.types import Plan

Ints = NDArray[np.int64]
NO_ROLE = ""


@dataclass(frozen=True)
class StageNames:
    """What each stage chooses from, in order. Role 0 is 'no role named'."""

    topologies: tuple[str, ...]
    roles: tuple[str, ...]
    models: tuple[str, ...]
    max_agents: int

    @property
    def stages(self) -> int:
        """L, of the largest team."""
        return 2 + 2 * self.max_agents

    @property
    def sizes(self) -> tuple[int, ...]:
        """Choices of each stage: (L,)."""
        seat = (len(self.roles), len(self.models))
        return (len(self.topologies), self.max_agents, *(seat * self.max_agents))

    def steps(self, plans: Sequence[Plan]) -> Ints:
        """Plans as choices: (P, 2 + 2K), -1 after the end. Count c is choice c - 1.

        PlanError for a name or a size that is not there.
        """
        topologies, roles, models = self._positions
        steps = np.full((len(plans), self.stages), -1, dtype=np.int64)
        for i, plan in enumerate(plans):
            size = len(plan.agents)
            if size > self.max_agents:
                raise PlanError(f"{plan}: {size} agents, at most {self.max_agents} here")
            end = 2 + 2 * size
            steps[i, 1] = size - 1
            steps[i, 2:end:2] = [position(roles, a.role or NO_ROLE, "role") for a in plan.agents]
            steps[i, 3:end:2] = [position(models, a.model, "model") for a in plan.agents]
            steps[i, 0] = position(topologies, plan.topology, "topology")
        return steps

    @cached_property
    def _positions(self) -> tuple[dict[str, int], dict[str, int], dict[str, int]]:
        topologies, roles, models = (
            {name: i for i, name in enumerate(names)}
            for names in (self.topologies, self.roles, self.models)
        )
        return topologies, roles, models


def position(positions: Mapping[str, int], name: str, kind: str) -> int:
    """Where a name stands; PlanError for one that is unknown."""
    at = positions.get(name)
    if at is None:
        known = ", ".join(repr(n) for n in list(positions)[:12])
        raise PlanError(f"{kind} {name!r} is unknown to this router; it knows {known}")
    return at


def stage_name(depth: int) -> str:
    """topology, count, role or model."""
    return ("topology", "count")[depth] if depth < 2 else ("role", "model")[depth % 2]


def open_depths(steps: Ints) -> tuple[int, ...]:
    """Stages at which the plans of these steps (P, L) leave a choice to somebody.

    Where some of the plans are allowed, no other stage is open.
    """
    found = []
    node = np.zeros(len(steps), dtype=np.int64)  # the prefix of each plan
    for depth in range(steps.shape[1]):
        alive = steps[:, depth] >= 0
        prefixes = len(np.unique(node[alive]))
        width = int(steps[:, depth].max(initial=0)) + 2
        _, node = np.unique(node * width + steps[:, depth] + 1, return_inverse=True)
        if len(np.unique(node[alive])) > prefixes:
            found.append(depth)
    return tuple(found)
