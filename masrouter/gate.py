"""When to leave the fixed plan: what held-out queries allowed, at each cost weight.

The best fixed plan is what is known without reading a query. The gate holds, for a grid of cost
weights, which score head of the critic (which shrinkage) had earned the right to overrule it, or
that none had. `masrouter_train.shrinkage` fills it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats32: TypeAlias = NDArray[np.float32]
Bools: TypeAlias = NDArray[np.bool_]
Ints: TypeAlias = NDArray[np.int64]
FIXED = -1
UNKNOWN = -1e30
"""Utility of an available plan about which nothing is known: chosen only if it is the only one."""


@dataclass(frozen=True)
class GateNode:
    """The verdict at one cost weight (score units per US dollar)."""

    cost_weight: float
    head: int
    """Position of the score head to use, or FIXED: take the best fixed plan."""
    gain: float
    """Held-out utility of that head minus the fixed plan's, per query."""
    gain_error: float
    """Its standard error."""


@dataclass(frozen=True)
class Gate:
    """Verdicts over cost weights, and what is known of the plans without reading a query."""

    nodes: tuple[GateNode, ...]
    mean_score: Floats32  # (P,) of logged runs; NaN where none was scored
    mean_cost: Floats32  # (P,) US dollars; NaN where unknown
    mean_utility: Floats32  # (nodes, P) over the cells whose utility is known at the node
    runs: Floats32  # (P,) logged runs
    precise: int = 0
    """Score head of least held-out error: what is expected of plans where the gate chose none."""
    pessimism: float = 0.0
    """Standard errors that a plan must win by; above 0 for observational logs."""
    default: int = -1
    """Plan of the logging policy that observational logs fall back to; -1: none."""
    added: int = 0
    """Plans that came after training, the last ones; not stored (`RouterState.additions` is)."""
    _logarithms: tuple[float, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        weights = (node.cost_weight for node in self.nodes)
        logarithms = tuple(math.log(w) if w > 0 else -math.inf for w in weights)
        object.__setattr__(self, "_logarithms", logarithms)

    def supported(self) -> Bools:
        """(C,) bool: plans with enough logged runs to be chosen.

        Observational logs promise nothing of a plan outside their support: it takes 20 runs, or 1 %
        of all logged ones if that is less. Elsewhere every plan counts.
        """
        if self.default < 0:
            return np.ones(len(self.runs), dtype=np.bool_)
        logged = float(self.runs[: len(self.runs) - self.added].sum())
        needed = min(20.0, max(1.0, math.ceil(0.01 * logged)))
        enough: Bools = self.runs >= needed
        return enough

    def at(self, cost_weight: float) -> tuple[int, GateNode]:
        """The node nearest on a logarithmic scale; cost weight 0 has a node of its own."""
        if cost_weight == 0:
            position = min(range(len(self.nodes)), key=self._logarithms.__getitem__)
        else:
            wanted = math.log(cost_weight)
            distances = [abs(logarithm - wanted) for logarithm in self._logarithms]
            position = distances.index(min(distances))
        return position, self.nodes[position]

    def fixed_utility(self, cost_weight: float) -> Floats32:
        """Mean utility of each plan, -inf where it is unknown: (P,).

        At a node it is the mean over cells whose utility is known there, elsewhere mean score minus
        cost weight times mean cost.
        """
        position, node = self.at(cost_weight)
        if math.isclose(node.cost_weight, cost_weight, rel_tol=1e-6):
            utility = self.mean_utility[position]
        else:
            utility = self.mean_score.copy()
            if cost_weight > 0:
                utility -= cost_weight * self.mean_cost
            if self.added:  # what they must still prove was worked out at the nodes
                means = self.mean_score - node.cost_weight * self.mean_cost
                held = (self.mean_utility[position] - means)[-self.added :]
                utility[-self.added :] += held
        known: Floats32 = np.where(np.isnan(utility), np.float32(-math.inf), utility)
        return known

    def extended(self, runs: Floats32) -> Gate:
        """With more plans as the last ones, of which nothing is known but their runs (Q,)."""
        unknown = np.full(len(runs), np.nan, dtype=np.float32)
        rows = np.broadcast_to(unknown, (len(self.nodes), len(runs)))
        return replace(
            self,
            mean_score=np.concatenate([self.mean_score, unknown]),
            mean_cost=np.concatenate([self.mean_cost, unknown]),
            mean_utility=np.concatenate([self.mean_utility, rows], 1),
            runs=np.concatenate([self.runs, runs]),
            added=self.added + len(runs),
        )

    def with_means(self, start: int, score: Floats32, cost: Floats32, held: Floats32) -> Gate:
        """With the means of the plans from `start` on, (Q,) each; NaN where unknown.

        `held` (nodes, Q) is taken off their utility at each node.
        """
        utility = np.stack(
            [
                score if node.cost_weight == 0 else score - node.cost_weight * cost
                for node in self.nodes
            ]
        )  # (nodes, Q)
        return replace(
            self,
            mean_score=np.concatenate([self.mean_score[:start], score]),
            mean_cost=np.concatenate([self.mean_cost[:start], cost]),
            mean_utility=np.concatenate([self.mean_utility[:, :start], utility - held], 1),
        )

    def config(self) -> dict[str, Any]:
        """JSON part of the state; the tensors travel beside it."""
        return {
            "nodes": [asdict(node) for node in self.nodes],
            "precise": self.precise,
            "pessimism": self.pessimism,
            "default": self.default,
        }

    def tensors(self) -> dict[str, NDArray[Any]]:
        """Arrays of the state. Unknown means travel as 0 beside a mask: files hold no NaN."""
        parts: dict[str, NDArray[Any]] = {"gate.runs": self.runs}
        for name in ("mean_score", "mean_cost", "mean_utility"):
            value: Floats32 = getattr(self, name)
            known = np.isfinite(value)
            parts[f"gate.{name}"] = np.where(known, value, np.float32(0))
            parts[f"gate.{name}_known"] = known
        return parts

    @classmethod
    def from_state(
        cls, config: Mapping[str, Any], tensors: Mapping[str, NDArray[Any]], *, added: int = 0
    ) -> Gate:
        """What `config` and `tensors` wrote."""
        means = {
            name: np.where(
                tensors[f"gate.{name}_known"], tensors[f"gate.{name}"], np.float32(np.nan)
            )
            for name in ("mean_score", "mean_cost", "mean_utility")
        }
        return cls(
            nodes=tuple(GateNode(**node) for node in config["nodes"]),
            runs=tensors["gate.runs"],
            precise=config["precise"],
            pessimism=config["pessimism"],
            default=config["default"],
            added=added,
            **means,
        )


def choose(utility: Floats32, available: Bools) -> Ints:
    """Best available plan of each query: (B, P), (B, P) bool -> (B,). Ties go to the first."""
    known = np.where(utility > -math.inf, utility, np.float32(UNKNOWN))
    best: Ints = np.where(available, known, np.float32(-math.inf)).argmax(1)
    return best
