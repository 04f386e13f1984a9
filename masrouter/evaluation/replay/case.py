"""The ground of a replay: traffic with choices on it, and what every kind of logs is asked.

Not here: the answers (`grid`, `randomised`, `observed`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from masrouter.evaluation.replay.means import Sample, columns, side_of
from masrouter.evaluation.replay.traffic import Routed, Traffic, similar_runs
from masrouter.evaluation.replay.types import (
    Agreement,
    Comparison,
    FirstChoices,
    Measured,
    Part,
    Sensitivity,
    Side,
    Verdict,
)
from masrouter.outcomes import Bools, Floats, Ints
from masrouter.types import Interval

PAIRED = 0.5
"""Share of disagreements whose logged plan the critic must know to be compared with the other."""


@dataclass(frozen=True)
class Case:
    """Traffic, the choices on it, and how to measure."""

    traffic: Traffic
    routed: Routed
    sample: Sample
    similarity: float
    """Cosine from which the router calls two queries similar."""

    @property
    def weight(self) -> float:
        """Score units that a US dollar is worth."""
        return self.routed.cost_weight


class Reading(Protocol):
    """What one kind of logs says."""

    @property
    def reference(self) -> str:
        """Name of what the router is compared with first."""

    @property
    def of_reference(self) -> Bools:
        """(n,) runs of the reference."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What was left out."""

    def verdict(self) -> Verdict: ...

    def logged(self) -> Side: ...

    def comparisons(self) -> tuple[Comparison, ...]: ...

    def agreement(self) -> Agreement | None: ...

    def sensitivity(self, domain: Ints) -> Sensitivity | None:
        """`domain` (Q,): labels of queries."""

    def first_choices(self) -> tuple[FirstChoices, ...]: ...

    def part(self, name: str, runs: Bools) -> Part:
        """The same of some runs, (n,) bool."""


def runs_side(case: Case, runs: Bools) -> Side:
    """What some runs, (n,) bool, got and paid."""
    traffic = case.traffic
    return side_of(
        traffic.query[runs], traffic.score[runs], traffic.cost[runs], case.weight, case.sample
    )


def agreement_share(case: Case, runs: Bools, agrees: Bools) -> Measured | None:
    """Share of some runs whose plan is the router's too; all (n,) bool."""
    return columns(
        case.traffic.query[runs], [agrees[runs].astype(np.float64)], case.sample
    ).measured(0)


def agreement_of(case: Case, supported: Bools) -> Agreement:
    """Real outcomes by whether the router takes the logged plan; `supported` (n,)."""
    traffic, routed = case.traffic, case.routed
    decided = routed.decided[traffic.query]
    agrees = decided & (traffic.plan == routed.chosen[traffic.query])
    differs = decided & ~agrees
    share = agreement_share(case, decided, agrees)
    assert share is not None
    # The critic's two predictions are compared where it can make both.
    judged = differs & np.isfinite(routed.logged_score)
    compared = int(judged.sum()) >= PAIRED * int(differs.sum())
    judged = judged if compared else differs
    cost, logged_cost = routed.cost[traffic.query[judged]], routed.logged_cost[judged]
    both = np.isfinite(cost) & np.isfinite(logged_cost)
    return Agreement(
        runs=int(decided.sum()),
        share=share,
        agreed=runs_side(case, agrees),
        disagreed=runs_side(case, differs),
        predicted_runs=int(judged.sum()),
        predicted_score=known_mean(routed.score[traffic.query[judged]]),
        predicted_cost=known_mean(cost[both] if compared and both.any() else cost),
        predicted_logged_score=known_mean(routed.logged_score[judged]) if compared else None,
        predicted_logged_cost=known_mean(logged_cost[both]) if compared else None,
        supported=known_mean(supported[differs].astype(np.float64)),
    )


def supported_runs(case: Case, differs: Bools) -> Bools:
    """(n,) of the runs `differs` (n,), those whose choice ran on other, similar queries."""
    queries = np.unique(case.traffic.query[differs])
    found = np.zeros(case.traffic.n_queries, dtype=np.bool_)
    found[queries] = similar_runs(case.traffic, case.routed, queries, case.similarity) > 0
    return differs & found[case.traffic.query]


def bounds(score: Floats) -> Interval:
    """Mean of (k,) scores if all unknown ones were 0, or 1."""
    known = np.isfinite(score)
    low = float(np.where(known, score, 0.0).mean())
    return Interval(low, low + float((~known).mean()))


def known_mean(values: Floats) -> float | None:
    """Mean of what is known, None where nothing is."""
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else None
