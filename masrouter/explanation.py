"""Decisions in numbers and in words."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import SupportsFloat

import numpy as np

from masrouter.features import STATISTICS
from masrouter.gate import FIXED, Floats32
from masrouter.router_state import Added, RouterState
from masrouter.scorer import Scorer
from masrouter.selection import Constraints, Expected
from masrouter.types import Interval, Plan, RoutingDecision, ScoredPlan

Z95 = 1.959964


class Predictions:
    """What is expected of B queries, as plain numbers: a decision reads a few of many."""

    def __init__(self, state: RouterState, expected: Expected) -> None:
        error = Z95 * expected.score_error
        self._plans = state.plans
        score = expected.score
        self._low, self._score, self._high = state.calibrate(
            np.stack([score - error, score, score + error]), expected.head
        )  # (B, C) each
        self._cost = expected.cost
        self._factor = expected.cost_factor
        self._prompt = expected.prompt_tokens
        self._completion = expected.completion_tokens

    def of(self, row: int, plan: int) -> ScoredPlan:
        """One plan on one query."""
        at = row, plan
        cost, factor = _known(self._cost[at]), float(self._factor[at]) ** Z95
        return ScoredPlan(
            self._plans[plan],
            expected_score=float(self._score[at]),
            score_interval=Interval(float(self._low[at]), float(self._high[at])),
            expected_cost_usd=cost,
            cost_interval=None if cost is None else Interval(cost / factor, cost * factor),
            expected_prompt_tokens=_known(self._prompt[at]),
            expected_completion_tokens=_known(self._completion[at]),
        )


@dataclass(frozen=True)
class PlanFigures:
    """One plan on the query."""

    plan: Plan
    score: float
    """As the critic compares plans; not calibrated."""
    cost_usd: float | None
    utility: float | None
    logged_runs: int


@dataclass(frozen=True)
class Explanation:
    """Why this team."""

    decision: RoutingDecision
    parts: dict[str, float]
    """Contributions to the chosen plan's expected score: plan, statistics, domain, text."""
    plans: tuple[PlanFigures, ...]
    """Every plan, best utility first."""

    def __str__(self) -> str:
        d = self.decision
        lines = [f"{d.plan}"]
        lines += [f"  - {reason}" for reason in d.reasons]
        parts = ", ".join(f"{name} {value:+.3f}" for name, value in self.parts.items())
        lines += [
            f"  expected score by part: {parts}",
            "  plans by expected utility (scores as compared: linear, not bounded by 1):",
        ]
        for figures in self.plans[:10]:
            cost = "unknown cost" if figures.cost_usd is None else f"${figures.cost_usd:.6f}"
            utility = "-" if figures.utility is None else f"{figures.utility:.4f}"
            lines.append(
                f"    {utility:>8}  score {figures.score:.3f}  {cost}  "
                f"{figures.logged_runs} runs  {figures.plan}"
            )
        return "\n".join(lines)


def explain(
    decision: RoutingDecision,
    state: RouterState,
    scorer: Scorer,
    phi: Floats32,
    expected: Expected,
) -> Explanation:
    """Take the prediction apart; phi (1, F), expected of (1, C)."""
    chosen = state.plans.index(decision.plan)
    edges = np.cumsum([0, 1, len(STATISTICS), len(state.networks.domains)])
    blocks = np.zeros((4, phi.shape[1]), dtype=np.float32)  # phi with one part each
    for row, (start, end) in enumerate(pairwise([*edges.tolist(), phi.shape[1]])):
        blocks[row, start:end] = phi[0, start:end]
    contributions = scorer.score(blocks, expected.head).score[:, chosen].tolist()
    parts = dict(zip(("plan", "statistics", "domain", "text"), contributions, strict=True))
    figures = [
        PlanFigures(
            plan,
            float(expected.score[0, i]),
            _known(expected.cost[0, i]),
            _known(expected.utility[0, i]),
            int(state.gate.runs[i]),
        )
        for i, plan in enumerate(state.plans)
    ]
    figures.sort(key=lambda f: -float("inf") if f.utility is None else f.utility, reverse=True)
    return Explanation(decision, parts, tuple(figures))


def reasons(
    decision: RoutingDecision,
    state: RouterState,
    constraints: Constraints,
    safe: ScoredPlan | None,
    *,
    sampled: bool,
    added: Added | None = None,
) -> RoutingDecision:
    """The decision with its reasons in words.

    `safe`: the best fixed plan within constraints, None where nothing was run; `added`: what
    brought the plan after training.
    """
    weight, gate = decision.cost_weight, state.gate
    worth = f" ({1 / weight:.4g} US dollars for a whole unit of score)" if weight else ""
    lines = [f"cost weight {weight:.4g} score units per US dollar{worth}"]
    _, node = gate.at(weight)
    if sampled:
        lines.append(f"drawn from the cascade with probability {decision.propensity:.4g}")
    elif decision.fallback:
        lines.append(
            f"unlike anything logged (nearest cosine {decision.evidence.nearest:.2f}): "
            f"took the safe plan"
        )
    elif gate.default >= 0:
        lines.append(
            "the logs are observational: a plan had to beat the logged default by "
            f"{gate.pessimism:g} standard errors"
        )
    elif node.head == FIXED:
        lines.append(
            "on held-out queries nothing beat the best fixed plan at this cost weight, so it is "
            "taken"
        )
    else:
        lines.append(
            f"on held-out queries '{state.networks.heads[node.head]}' gained "
            f"{node.gain:+.4f} +- {1.96 * node.gain_error:.4f} utility over the best fixed plan"
        )
    if added is not None:
        probes = f"{added.probes} probe outcomes" if added.probes else "no probe"
        lines.append(
            f"added after training ({added.title or 'a plan of known parts'}): judged by "
            f"description and {probes}"
        )
    if safe is None:
        lines.append("no plan within the constraints was ever run: expectations alone compare them")
    elif decision.plan == safe.plan:
        lines.append("it is the best fixed plan within the constraints")
    else:
        lines.append(
            f"the best fixed plan, {safe.plan}, is expected to score {safe.expected_score:.3f}"
            f"{_at_cost(safe.expected_cost_usd)}; this one {decision.expected_score:.3f}"
            f"{_at_cost(decision.expected_cost_usd)}"
        )
    if decision.domain_probability:
        lines.append(f"reads as '{decision.domain}' ({decision.domain_probability:.0%})")
    lines.append(
        f"{decision.evidence.similar_queries} similar logged queries, "
        f"{decision.evidence.similar_runs_of_plan} runs of this plan on them "
        f"({decision.evidence.runs_of_plan} in all)"
    )
    given = constraints.given()
    if given:
        lines.append("within " + ", ".join(f"{f}={getattr(constraints, f)!r}" for f in given))
    return replace(decision, reasons=tuple(lines))


def _at_cost(cost: float | None) -> str:
    return " at unknown cost" if cost is None else f" at ${cost:.6f}"


def _known(value: SupportsFloat) -> float | None:
    number = float(value)
    return number if math.isfinite(number) else None
