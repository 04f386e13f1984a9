"""The cascade over a router's own plans: how probable each choice of a plan is, and draws.

Not here: the network (`controller`), the tree of choices (`plan_space`).
"""

from __future__ import annotations

import threading

import torch
from torch import Tensor

from masrouter.candidates import PlanIndex
from masrouter.controller import Controller
from masrouter.plan_space import PlanTree
from masrouter.types import StageProbabilities

TREES_KEPT = 64


class Cascade:
    """A controller and the plans that it may compose. Thread-safe: only its trees are cached."""

    def __init__(self, controller: Controller, index: PlanIndex) -> None:
        self.controller = controller
        self._index = index
        with torch.inference_mode():
            self._prepared = controller.prepare()
        self._trees: dict[bytes, tuple[PlanTree, Tensor]] = {}
        self._lock = threading.Lock()

    def plan_log_probabilities(self, encoded: Tensor) -> Tensor:
        """Of every plan where all are allowed: states (B, D) -> (B, C)."""
        tree, _ = self._tree(torch.ones(len(self._index), dtype=torch.bool))
        return self.controller.log_probabilities(encoded, self._prepared, tree)

    def stages(
        self, encoded: Tensor, allowed: Tensor, chosen: Tensor, generator: torch.Generator | None
    ) -> tuple[list[StageProbabilities], list[int]]:
        """The probabilities of the chosen plans; with a generator, the cascade's own choices.

        States (B, D), allowed (B, C) bool, chosen (B,) -> B of each.
        """
        plans = chosen.tolist()
        stages = [StageProbabilities(1.0, 1.0, (), ())] * len(plans)
        alike: dict[bytes, list[int]] = {}  # rows by what is allowed: they share a tree
        for row, pattern in enumerate(allowed.numpy()):
            alike.setdefault(pattern.tobytes(), []).append(row)
        for rows in alike.values():
            tree, kept = self._tree(allowed[rows[0]])
            state = encoded[rows]
            if generator is None:
                at = torch.searchsorted(kept, chosen[rows])
                log_p = self.controller.path_log_probabilities(
                    state, self._prepared, tree, at
                )  # (b, L)
            else:
                drawn = self.controller.sample(state, self._prepared, tree, generator)
                at = (tree.steps == drawn.steps[:, None]).all(2).long().argmax(1)  # (b,)
                log_p = drawn.log_probabilities
            for row, plan, p in zip(rows, kept[at].tolist(), log_p.exp().tolist(), strict=True):
                end = 2 + 2 * int(self._index.count[plan])
                plans[row] = plan
                stages[row] = StageProbabilities(p[0], p[1], tuple(p[2:end:2]), tuple(p[3:end:2]))
        return stages, plans

    def _tree(self, allowed: Tensor) -> tuple[PlanTree, Tensor]:
        """The tree of the allowed plans (C,) bool, and their positions."""
        key = allowed.numpy().tobytes()
        with self._lock:
            if key in self._trees:
                return self._trees[key]
        kept = allowed.nonzero()[:, 0]
        tree = PlanTree.build(self._index.at(kept), self.controller.sizes)
        with self._lock:
            if len(self._trees) >= TREES_KEPT:
                self._trees.clear()
            self._trees[key] = (tree, kept)
        return tree, kept
