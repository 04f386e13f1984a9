"""What is true in the synthetic world: its models, its plans, and how they do on a task.

The truth is a formula, so that expected scores and costs are known exactly. Every number below is
invented; none describes a real model.

    logit P(success) = skill + role bonus + topology effect - difficulty[level] - residual
    skill            = half the best and half the mean over seats of
                       skill[model, domain] + stamina[model] * (level - 2)
    role bonus       = mean over seats of 0.4 where the role is of the domain, -0.3 where of another
    topology effect  = (base[domain] + slope * (level - 2)) * size,  size = 1 for one agent, else
                       log2(agents)

so that a team pays on hard tasks and harms on easy ones. Mean tokens of a seat, W words of text:

    prompt     = calls * (40 + 1.35 W) + reads * message
    completion = writes * message
    message    = verbosity[model] * (length[domain] * (1 + 0.3 level) + W)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from masrouter.catalog import Catalog, ModelEntry
from masrouter.types import Agent, Plan
from masrouter_train.synthetic_text import DOMAINS, LEVELS

Floats = NDArray[np.float64]

DIFFICULTY = (-1.8, -0.7, 0.5, 1.7, 2.9)
"""By level, in logits."""
MESSAGE_TOKENS: Mapping[str, float] = {"code": 180, "math": 130, "knowledge": 90, "writing": 200}
ROLE_FITS, ROLE_MISFITS = 0.4, -0.3


@dataclass(frozen=True, slots=True)
class ModelTruth:
    """An invented model."""

    description: str
    input_usd_per_mtok: float
    output_usd_per_mtok: float
    skill: Mapping[str, float]
    """Logits at the middle level, by domain."""
    stamina: float
    """Logits won for each level above the middle: weak models fall off as tasks get harder."""
    verbosity: float


@dataclass(frozen=True, slots=True)
class TopologyTruth:
    """What a way of working together does to success (logits) and to tokens (per seat)."""

    base: Mapping[str, float]
    slope: float
    calls: float
    """Times that a seat reads the task."""
    reads: float
    """Messages that a seat reads, for each other agent of the team (for itself where alone)."""
    writes: float
    """Messages that a seat writes."""


MODELS: Mapping[str, ModelTruth] = {
    "synthetic-small": ModelTruth(
        "Invented small model of the synthetic world: very cheap, fit for easy tasks.",
        0.15,
        0.6,
        {"code": 0.6, "math": 0.4, "knowledge": 0.7, "writing": 1.0},
        -0.6,
        1.0,
    ),
    "synthetic-medium": ModelTruth(
        "Invented medium model of the synthetic world: a generalist at a middle price.",
        0.8,
        3.2,
        {"code": 1.3, "math": 1.2, "knowledge": 1.4, "writing": 1.6},
        -0.3,
        1.1,
    ),
    "synthetic-large": ModelTruth(
        "Invented large model of the synthetic world: strong at everything and expensive.",
        3.0,
        15.0,
        {"code": 1.9, "math": 2.2, "knowledge": 3.0, "writing": 2.4},
        0.1,
        1.3,
    ),
    "synthetic-coder": ModelTruth(
        "Invented specialist of the synthetic world: writes programs well, cheaply, and little "
        "else.",
        0.3,
        1.2,
        {"code": 3.0, "math": 1.2, "knowledge": -0.4, "writing": -0.6},
        -0.2,
        0.9,
    ),
}

TOPOLOGIES: Mapping[str, TopologyTruth] = {
    "io": TopologyTruth({"code": 0.0, "math": 0.0, "knowledge": 0.0, "writing": 0.0}, 0.0, 1, 0, 1),
    "cot": TopologyTruth(
        {"code": 0.1, "math": 0.9, "knowledge": -0.5, "writing": -1.0}, 0.2, 1, 0, 2
    ),
    "reflection": TopologyTruth(
        {"code": 0.8, "math": -0.3, "knowledge": -1.0, "writing": 0.0}, 0.5, 1.5, 1, 1.5
    ),
    "chain": TopologyTruth(
        {"code": 0.0, "math": -0.8, "knowledge": -0.9, "writing": 1.0}, 0.3, 1, 0.7, 1
    ),
    "debate": TopologyTruth(
        {"code": -0.6, "math": 0.6, "knowledge": -0.5, "writing": -1.2}, 0.7, 2, 2, 2
    ),
}
"""Topologies are those of the default catalog."""

ROLE_DOMAIN: Mapping[str, str | None] = {
    "assistant": None,
    "coder": "code",
    "mathematician": "math",
    "editor": "writing",
    "fact_checker": "knowledge",
    "critic": None,
}
"""Roles are those of the default catalog."""


def synthetic_models() -> Catalog:
    """The invented models alone."""
    entries = {
        name: ModelEntry(
            name,
            model.description,
            provider="synthetic",
            input_usd_per_mtok=model.input_usd_per_mtok,
            output_usd_per_mtok=model.output_usd_per_mtok,
            context_window=32_000,
        )
        for name, model in MODELS.items()
    }
    return Catalog(entries, {}, {})


def synthetic_plans() -> tuple[Plan, ...]:
    """The plans of the world, sorted as `Logs.plan_index` sorts them."""
    small, medium, large, coder = MODELS
    seats = [
        ("io", [("assistant", small)]),
        ("io", [("assistant", medium)]),
        ("io", [("assistant", large)]),
        ("io", [("coder", coder)]),
        ("cot", [("assistant", small)]),
        ("cot", [("mathematician", medium)]),
        ("cot", [("mathematician", large)]),
        ("cot", [("coder", coder)]),
        ("reflection", [("assistant", medium), ("critic", medium)]),
        ("reflection", [("assistant", large), ("critic", large)]),
        ("reflection", [("coder", coder), ("critic", medium)]),
        ("reflection", [("coder", coder), ("critic", large)]),
        ("chain", [("assistant", small), ("editor", medium)]),
        ("chain", [("assistant", large), ("editor", medium)]),
        ("chain", [("assistant", large), ("fact_checker", medium), ("editor", large)]),
        ("chain", [("assistant", medium), ("coder", coder), ("critic", medium)]),
        ("debate", [("assistant", small)] * 3),
        ("debate", [("mathematician", large)] * 2),
        ("debate", [("assistant", large), ("mathematician", large), ("critic", medium)]),
        ("debate", [("assistant", small), ("critic", medium), ("coder", coder), ("critic", large)]),
    ]
    plans = [
        Plan(topology, tuple(Agent(role, model) for role, model in team))
        for topology, team in seats
    ]
    return tuple(
        sorted(plans, key=lambda p: (p.topology, [(a.role or "", a.model) for a in p.agents]))
    )


def success_logits(plans: Sequence[Plan]) -> Floats:
    """Logit of success at residual 0; (D, L, P): domains, levels, plans."""
    logits = np.empty((len(DOMAINS), LEVELS, len(plans)))
    for d, domain in enumerate(DOMAINS):
        for p, plan in enumerate(plans):
            models = [MODELS[agent.model] for agent in plan.agents]
            topology = TOPOLOGIES[plan.topology]
            size = max(1.0, float(np.log2(len(plan.agents))))
            for level in range(LEVELS):
                skills = [m.skill[domain] + m.stamina * (level - 2) for m in models]
                effect = (topology.base[domain] + topology.slope * (level - 2)) * size
                logits[d, level, p] = (
                    0.5 * (max(skills) + float(np.mean(skills)))
                    + float(np.mean([_role_bonus(a.role, domain) for a in plan.agents]))
                    + effect
                    - DIFFICULTY[level]
                )
    return logits


def _role_bonus(role: str | None, domain: str) -> float:
    own = None if role is None else ROLE_DOMAIN[role]
    if own is None:
        return 0.0
    return ROLE_FITS if own == domain else ROLE_MISFITS


@dataclass(frozen=True)
class TokenTruth:
    """Mean tokens of every seat are `base[d, l] + slope * words`. K seats at most, empty ones 0."""

    prompt_base: Floats  # (D, L, P, K)
    prompt_slope: Floats  # (P, K) tokens for a word of the text
    completion_base: Floats  # (D, L, P, K)
    completion_slope: Floats  # (P, K)
    input_price: Floats  # (P, K) US dollars for a token
    output_price: Floats  # (P, K)


def token_truth(plans: Sequence[Plan]) -> TokenTruth:
    """How many tokens each seat of each plan uses on average, and what they cost."""
    length = np.array(
        [[tokens * (1 + 0.3 * lv) for lv in range(LEVELS)] for tokens in MESSAGE_TOKENS.values()]
    )  # (D, L)
    seats = (len(plans), max(len(plan.agents) for plan in plans))
    calls, reads, writes = np.zeros(seats), np.zeros(seats), np.zeros(seats)
    input_price, output_price = np.zeros(seats), np.zeros(seats)
    for p, plan in enumerate(plans):
        topology = TOPOLOGIES[plan.topology]
        verbosity = [MODELS[agent.model].verbosity for agent in plan.agents]
        for k, agent in enumerate(plan.agents):
            others = [v for j, v in enumerate(verbosity) if j != k] or [verbosity[k]]
            calls[p, k] = topology.calls
            reads[p, k] = topology.reads * sum(others)
            writes[p, k] = topology.writes * verbosity[k]
            input_price[p, k] = MODELS[agent.model].input_usd_per_mtok / 1e6
            output_price[p, k] = MODELS[agent.model].output_usd_per_mtok / 1e6
    message = length[:, :, None, None]  # (D, L, 1, 1)
    return TokenTruth(
        prompt_base=40 * calls + reads * message,
        prompt_slope=1.35 * calls + reads,
        completion_base=writes * message,
        completion_slope=writes,
        input_price=input_price,
        output_price=output_price,
    )
