"""What runs a router's networks, seen from outside: arrays in, arrays out.

Whatever a scorer is made of (`scorer_torch`, `scorer_exported`), everything after it is one code:
constraints, gate, evidence, the probability of every stage, draws and words. So two backends that
score alike decide alike.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from masrouter.gate import Floats32, Ints


@dataclass(frozen=True)
class Reading:
    """B queries as the networks see them at one cost weight, and what is expected to be spent on C
    plans. None where the logs had nothing to learn it from."""

    phi: Floats32  # (B, F) features of the critic
    domains: Floats32  # (B, D) probabilities
    state: Floats32  # (B, W) of the cascade, before its first choice
    cost: Floats32 | None  # (B, C) US dollars at the prices of the day of training
    cost_factor: Floats32  # (B, C) multiplicative standard error of cost, at least 1
    prompt_tokens: Floats32 | None  # (B, C) of the whole run
    completion_tokens: Floats32 | None  # (B, C)

    @classmethod
    def of(cls, parts: Mapping[str, Floats32]) -> Reading:
        """From arrays by the names of the fields; those that may be missing may be missing."""
        phi = parts["phi"]
        return cls(
            phi=phi,
            domains=parts.get("domains", phi[:, :0]),
            state=parts["state"],
            cost=parts.get("cost"),
            cost_factor=parts["cost_factor"],
            prompt_tokens=parts.get("prompt_tokens"),
            completion_tokens=parts.get("completion_tokens"),
        )


@dataclass(frozen=True)
class Scores:
    """Of C plans on B queries, as the critic compares them; not calibrated."""

    score: Floats32  # (B, C)
    error: Floats32  # (B, C) standard error


class Scorer(Protocol):
    """The networks of one router, for the plans that it chooses from. Thread-safe."""

    @property
    def backend(self) -> str:
        """torch, onnx or openvino."""

    @property
    def rows(self) -> int:
        """Queries that may be scored at once: bounds memory."""

    def read(self, embeddings: Floats32, statistics: Floats32, cost_weight: float) -> Reading:
        """(B, E), raw statistics (B, S) -> Reading."""

    def score(self, phi: Floats32, head: int) -> Scores:
        """One score head of the critic: (B, F) -> (B, C). Only heads that the gate may use."""

    def logits(self, state: Floats32, steps: Ints) -> Mapping[int, Floats32]:
        """What the cascade says at each open stage after the choices before it, one path a query.

        States (B, W), steps (B, L) as in `plan_steps` -> (B, choices) by depth. The logits of a
        depth depend on the steps before it alone.
        """
