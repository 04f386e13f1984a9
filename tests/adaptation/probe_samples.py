"""What the tests of new candidates share: made-up probe runs, and predictions as numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from masrouter.gate import FIXED
from masrouter.router import Router
from masrouter.types import Agent, LogRecord, Plan, Usage

NEW = "brand-new"
SOLO = Plan("io", (Agent("assistant", NEW),))
QUERY = "Write a Rust function that groups orders by price and returns the 7 largest groups."
Score = Callable[[int], float]


def probes(
    texts: Sequence[str], plan: Plan, score: Score, cost: float | None = 1e-4
) -> list[LogRecord]:
    """A run of the plan on each text; `score` of its position."""
    return [
        LogRecord(
            f"probe-{i}", f"probe-query-{i}", text, "probes", plan, score(i), "tests",
            Usage(100, 200, cost),
        )
        for i, text in enumerate(texts)
    ]  # fmt: skip


def raw(router: Router, texts: Sequence[str], cost_weight: float = 0.0) -> dict[Plan, np.ndarray]:
    """Score, its error, cost and its factor of every plan on the texts: (4, B)."""
    e = router.expect(*router.read(texts), cost_weight)
    parts = np.stack([e.score, e.score_error, e.cost, e.cost_factor])  # (4, B, C)
    return {plan: parts[:, :, i] for i, plan in enumerate(router.plans)}


def always(value: float) -> Score:
    return lambda i: value


def only_fixed(router: Router) -> Router:
    """The same router where the gate takes the best fixed plan at every cost weight."""
    gate = router.state.gate
    nodes = tuple(replace(node, head=FIXED) for node in gate.nodes)
    return Router(replace(router.state, gate=replace(gate, nodes=nodes)), router.encoder)
