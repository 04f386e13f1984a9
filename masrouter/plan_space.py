"""The plans that a cascade may compose, as a tree of choices.

A plan is a path: topology, count, then role and model of each agent in speaking order. A node is a
prefix of that path; its mask says which next choices lead to an allowed plan. So every stage is
masked by what the topology and the logs allow, without a rule of its own. Training walks the tree;
routing needs only the path of one plan (`cascade`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from masrouter.candidates import PlanIndex

BLOCKED = -1e9
"""Added to the logit of a choice that is not allowed; finite, so that a path that has already ended
still has a softmax."""


@dataclass(frozen=True)
class Level:
    """All prefixes of one length; U nodes, C choices of the stage."""

    mask: Tensor  # (U, C) bool: choices that some plan takes
    child: Tensor  # (U, C) node of the next level, 0 where masked
    parent: Tensor  # (U,) node of the level above
    choice: Tensor  # (U,) choice that led here from the parent
    plan_node: Tensor  # (P,) node of each plan, 0 for plans that have ended
    plan_choice: Tensor  # (P,) choice of each plan, -1 for plans that have ended
    penalty: Tensor  # (U, C) 0 where allowed, a large negative number elsewhere
    only: Tensor  # (U,) the first allowed choice, which is the only one where `forced`
    forced: bool
    """No node of this level leaves a choice."""

    def to(self, device: torch.device) -> Level:
        """The same level with its tensors on a device."""
        return Level(
            self.mask.to(device),
            self.child.to(device),
            self.parent.to(device),
            self.choice.to(device),
            self.plan_node.to(device),
            self.plan_choice.to(device),
            self.penalty.to(device),
            self.only.to(device),
            self.forced,
        )


@dataclass(frozen=True)
class PlanTree:
    """P plans. Level 0 chooses the topology, 1 the count, 2 + 2j a role, 3 + 2j a model."""

    levels: tuple[Level, ...]
    n_plans: int
    steps: Tensor  # (P, L) choices of each plan, -1 after its end

    def to(self, device: torch.device) -> PlanTree:
        """The same tree with its tensors on a device."""
        levels = tuple(level.to(device) for level in self.levels)
        return replace(self, levels=levels, steps=self.steps.to(device))

    @classmethod
    def build(cls, index: PlanIndex, sizes: tuple[int, int, int, int]) -> PlanTree:
        """From plans; `sizes` are the numbers of topologies, counts, roles and models."""
        steps = plan_steps(index)  # (P, L)
        longest = 2 + 2 * int(index.count.max())
        steps = steps[:, :longest]
        node = np.zeros(len(steps), dtype=np.int64)
        parent, came_by = np.zeros(1, dtype=np.int64), np.zeros(1, dtype=np.int64)
        levels = []
        for depth in range(longest):
            choices = _stage_size(depth, sizes)
            alive = steps[:, depth] >= 0
            nodes = len(parent)
            key = node[alive] * choices + steps[alive, depth]
            unique, position = np.unique(key, return_inverse=True)
            mask = np.zeros((nodes, choices), dtype=bool)
            child = np.zeros((nodes, choices), dtype=np.int64)
            mask.reshape(-1)[unique] = True
            child.reshape(-1)[unique] = np.arange(len(unique))
            levels.append(
                Level(
                    torch.from_numpy(mask),
                    torch.from_numpy(child),
                    torch.from_numpy(parent),
                    torch.from_numpy(came_by),
                    torch.from_numpy(np.where(alive, node, 0)),
                    torch.from_numpy(np.where(alive, steps[:, depth], -1)),
                    torch.where(torch.from_numpy(mask), 0.0, BLOCKED),
                    torch.from_numpy(mask.argmax(1)),
                    forced=bool((mask.sum(1) <= 1).all()),
                )
            )
            parent, came_by = unique // choices, unique % choices
            node = node.copy()
            node[alive] = position
        return cls(tuple(levels), len(steps), torch.from_numpy(steps))


def plan_steps(index: PlanIndex) -> NDArray[np.int64]:
    """Plans as choices, one a stage: (P, 2 + 2K), -1 after the end. Count c is choice c - 1."""
    seats = torch.stack([index.role, index.model], 2).flatten(1)  # (P, 2K)
    steps = torch.cat([index.topology[:, None], index.count[:, None] - 1, seats], 1)
    array: NDArray[np.int64] = steps.numpy().astype(np.int64)
    return array


def _stage_size(depth: int, sizes: tuple[int, int, int, int]) -> int:
    return sizes[depth] if depth < 2 else sizes[2 + depth % 2]
