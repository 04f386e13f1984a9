"""Embedded queries and a checked request become decisions: one code for all that runs networks.

Not here: reading texts and options (`router`), running networks (`scorer`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from masrouter.cascade import Cascade
from masrouter.evidence import EvidenceIndex
from masrouter.explanation import Explanation, Predictions, explain, reasons
from masrouter.features import STATISTICS
from masrouter.gate import FIXED, Floats32
from masrouter.router_checks import check_finite
from masrouter.router_state import RouterState
from masrouter.scorer import Reading, Scorer
from masrouter.selection import (
    Constraints,
    Expected,
    allowed_plans,
    decide,
    expect,
    frontier,
    safe_plans,
    told_apart,
)
from masrouter.types import RoutingDecision, StageProbabilities


@dataclass(frozen=True)
class Request:
    """The options of a call, checked."""

    constraints: Constraints
    cost_weight: float
    k: int
    generator: np.random.Generator | None
    """Of the cascade's draws; None decides without drawing."""


def _product(stages: StageProbabilities) -> float:
    return math.prod((stages.topology, stages.count, *stages.roles, *stages.models))


class Decider:
    """What one router knows, unpacked for deciding. Thread-safe: nothing changes but caches."""

    def __init__(self, state: RouterState, scorer: Scorer, checkpoint: str) -> None:
        self._state = state
        self._scorer = scorer
        self._checkpoint = checkpoint
        self._evidence = EvidenceIndex(state.evidence, state.gate.runs)
        self._price_ratio = state.price_ratio()
        self._prices = state.prices()
        self._cascade = Cascade(state.networks.names.steps(state.plans), scorer)

    def decide(
        self, embeddings: Floats32, statistics: Floats32, request: Request
    ) -> list[RoutingDecision]:
        """For at most `Scorer.rows` queries: (B, E), raw statistics (B, S)."""
        state, weight = self._state, request.cost_weight
        gate, kinds = state.gate, state.networks.domains
        reading = self._scorer.read(embeddings, statistics, weight)
        expected = self._expect(reading, weight)
        allowed = allowed_plans(request.constraints, state.plans, expected.cost, weight)
        safe = told_apart(gate, safe_plans(gate, weight, allowed), expected, allowed, weight)
        cosines = self._evidence.cosines(embeddings)  # (B, Q)
        nearest = cosines.max(1)
        similar = cosines >= state.evidence.similar  # (B, Q)
        # The critic guesses on a text unlike anything logged; the fixed plan does not.
        thin = nearest < state.evidence.thin
        decided = decide(expected, gate, allowed)
        if gate.at(weight)[1].head == FIXED:
            decided = told_apart(gate, decided, expected, allowed, weight)
        chosen = np.where(thin, safe, decided)
        if request.generator is None:
            plans = chosen.tolist()
            stages = self._cascade.stages(reading.state, allowed, chosen)
        else:
            stages, plans = self._cascade.draw(reading.state, allowed, request.generator)
        predictions = Predictions(state, expected)
        known = (gate.runs > 0)[safe].tolist()
        likeliest = reading.domains.argmax(1).tolist() if kinds else None
        decisions = []
        for i, (plan, fixed) in enumerate(zip(plans, safe.tolist(), strict=True)):
            scored = predictions.of(i, plan)
            others = frontier(expected.score[i], expected.cost[i], allowed[i], request.k + 1)
            decision = RoutingDecision(
                plan=scored.plan,
                cost_weight=weight,
                propensity=1.0 if request.generator is None else _product(stages[i]),
                stage_probabilities=stages[i],
                expected_score=scored.expected_score,
                score_interval=scored.score_interval,
                expected_cost_usd=scored.expected_cost_usd,
                cost_interval=scored.cost_interval,
                domain=kinds[likeliest[i]] if likeliest else "unknown",
                domain_probability=float(reading.domains[i, likeliest[i]]) if likeliest else 0.0,
                evidence=self._evidence.look_up(similar[i], float(nearest[i]), plan),
                fallback=bool(thin[i]) and request.generator is None,
                alternatives=tuple(predictions.of(i, other) for other in others if other != plan)[
                    : request.k
                ],
                checkpoint=self._checkpoint,
            )
            decisions.append(
                reasons(decision, state, request.constraints,
                        predictions.of(i, fixed) if known[i] else None,
                        sampled=request.generator is not None,
                        added=state.added_with(plan))
            )  # fmt: skip
        return decisions

    def explain(
        self, decision: RoutingDecision, embeddings: Floats32, statistics: Floats32
    ) -> Explanation:
        """Why this decision on one query: (1, E), raw statistics (1, S)."""
        reading = self._scorer.read(embeddings, statistics, decision.cost_weight)
        expected = self._expect(reading, decision.cost_weight)
        return explain(decision, self._state, self._scorer, reading.phi, expected)

    def expect(self, embeddings: Floats32, statistics: Floats32, cost_weight: float) -> Expected:
        """For any number of queries; see `Router.expect`."""
        rows = self._scorer.rows
        parts = [
            self._expect(
                self._scorer.read(
                    embeddings[start : start + rows], statistics[start : start + rows], cost_weight
                ),
                cost_weight,
            )
            for start in range(0, len(embeddings), rows)
        ]
        return parts[0] if len(parts) == 1 else Expected.together(parts)

    def _expect(self, reading: Reading, cost_weight: float) -> Expected:
        return expect(
            self._scorer, self._state.gate, reading, cost_weight, self._price_ratio, self._prices
        )

    def check(self, where: str, dimension: int) -> None:
        """CheckpointError unless what the weights say of a made-up query is finite."""
        embedding = np.zeros((1, dimension), dtype=np.float32)
        embedding[0, 0] = 1.0
        statistics = np.zeros((1, len(STATISTICS)), dtype=np.float32)
        one_a_head = {node.head: node.cost_weight for node in self._state.gate.nodes}
        for weight in {*one_a_head.values(), self._state.default_cost_weight}:
            reading = self._scorer.read(embedding, statistics, weight)
            expected = self._expect(reading, weight)
            for what, values in (
                ("the domain", reading.phi),
                ("the score", np.concatenate([expected.score, expected.score_error])),
                ("the error of the cost", expected.cost_factor),
            ):
                check_finite(what, bool(np.isfinite(values).all()), where)
            check_finite("the cascade", self._cascade.finite(reading.state), where)
