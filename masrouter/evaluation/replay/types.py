"""What a replay found: plain, frozen data, ready for JSON. None is what the logs cannot say."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from masrouter.types import Interval, Plan

Level = Literal["looked up", "identified", "weak", "not identified"]
"""How far the logs identify what the router would have got.

looked up: its plans were run on the queries (grid). identified, weak: off-policy estimates
(randomised). not identified: no figure for the router as a whole is given.
"""


@dataclass(frozen=True, slots=True)
class Measured:
    """A mean over what is known."""

    value: float
    interval: Interval | None
    """95 %; None below 10 queries, and where all values are equal and so do not say how sure."""
    queries: int
    """Queries behind it."""


@dataclass(frozen=True, slots=True)
class Side:
    """What one side got and paid; each mean over the runs where it is known."""

    score: Measured | None
    cost: Measured | None
    """US dollars a run."""
    utility: Measured | None
    """score - cost_weight * cost; None at cost weight 0, where it is the score."""


@dataclass(frozen=True, slots=True)
class Paired:
    """One figure of both sides over the queries where both are known."""

    reference: Measured
    router: Measured
    difference: Measured
    """Router minus reference, query by query."""
    left_out: int
    """Queries where one of the two is not known: in none of the means."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """The router beside something else on the same queries."""

    reference: str
    score: Paired | None
    cost: Paired | None
    utility: Paired | None
    saved: Measured | None
    """Share of the reference's cost that the router does not pay; negative where it pays more."""
    same: int | None = None
    """Queries on which both take the same plan."""
    better: int | None = None
    """Queries on which the router's plan really scored higher."""
    worse: int | None = None
    """Queries on which it really scored lower: what would have broken."""
    score_bounds: Interval | None = None
    """The router's mean score over all queries if all without support scored 0, or 1."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """Where the router takes the plan that was logged, and where not. Runs of logged traffic."""

    runs: int
    share: Measured
    """Runs whose plan the router would have taken too: their outcomes are real."""
    agreed: Side
    disagreed: Side
    """What the logged plan really got where the router would have taken another."""
    predicted_runs: int
    """Disagreements behind the predictions: those whose logged plan the critic knows too, or all
    where these are fewer than half."""
    predicted_score: float | None
    """A PREDICTION of the critic for the router's plan where the two differ, and nothing else."""
    predicted_cost: float | None
    predicted_logged_score: float | None
    """The same critic's prediction for the logged plans; None where it knows too few of them."""
    predicted_logged_cost: float | None
    supported: float | None
    """Share of disagreements whose router's plan ran on other, similar queries of these logs."""


@dataclass(frozen=True, slots=True)
class Sensitivity:
    """What holds of the router's score whatever hid behind the logged choices: ranges, no point."""

    worst_case: Interval
    """Mean score if every outcome that nobody saw were 0, or 1 (Manski, 1990)."""
    worst_case_with_chance: Interval
    """The same, widened by the 95 % that chance in the queries allows."""
    gammas: tuple[GammaRange, ...]
    covered: float
    """Share of runs in groups with enough agreement for `gammas` to narrow anything."""
    tolerated: float | None
    """Critic's mean predicted score for the router's plans less the logged plans' real score, where
    they differ: overrated by more than this, the router's plans would score lower."""


@dataclass(frozen=True, slots=True)
class GammaRange:
    """The range if hidden causes changed the odds of a logged plan by at most `gamma`."""

    gamma: float
    score: Interval
    with_chance: Interval


@dataclass(frozen=True, slots=True)
class FirstChoices:
    """The policy that takes the router's first choices and leaves the rest as it was logged."""

    up_to: str
    """The last choice that is the router's: `topology`, `count`, `role 1`, `model 1`, ..."""
    level: Level
    why: str
    score: Measured | None
    """Difference to the logged policy; None where not identified."""
    cost: Measured | None


@dataclass(frozen=True, slots=True)
class Part:
    """A domain, or a span of time."""

    name: str
    queries: int
    runs: int
    logged: Side
    """Of the main reference."""
    level: Level
    why: str
    comparison: Comparison | None
    """None where it is not identified."""
    agreement: Measured | None
    score_bounds: Interval | None
    no_support: int
    """Queries whose router's plan has no run that could be looked up or weighed."""


@dataclass(frozen=True, slots=True)
class Choice:
    """A plan that the router takes."""

    plan: str
    queries: int
    share: float
    logged_runs: int
    """Runs of this plan anywhere in these logs; 0: no support in your logs."""
    no_support: int
    """Queries, of those above, on which this plan was not run (grid), or all where it never was."""


@dataclass(frozen=True, slots=True)
class Disagreement:
    """One query on which the router takes another plan than was logged."""

    query_id: str
    query: str
    domain: str
    logged_plan: str
    logged_score: float | None
    logged_cost_usd: float | None
    router_plan: Plan
    expected_score: float
    expected_cost_usd: float | None
    found_score: float | None
    """What the router's plan really got on this query, where it was run."""
    found_cost_usd: float | None
    saving_usd: float | None
    """Logged cost less the found one, else less the expected one."""
    harm: float | None
    """Score lost: found where the plan was run, else expected against expected."""
    predicted: bool
    """True where saving and harm rest on the critic, not on a run."""
    why: str
    """The router's reason for this plan and no other."""
    logged_runs: int
    """Runs of the router's plan in these logs."""
    similar_runs: int
    """Those of them on other queries that are similar."""

    @property
    def support(self) -> str:
        """In words."""
        if self.logged_runs == 0:
            return "no support in your logs: this plan was never run"
        runs = "1 logged run" if self.logged_runs == 1 else f"{self.logged_runs:,} logged runs"
        similar = f"{self.similar_runs:,} on other, similar queries"
        return f"{runs} of this plan, {similar}"


@dataclass(frozen=True, slots=True)
class Tally:
    """Queries on which the router differs from the reference."""

    found: int
    """Where something is saved, or lost: looked up or predicted."""
    unknown: int
    """Where that can neither be looked up nor predicted."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """How far these logs answer the question, in words."""

    level: Level
    reasons: tuple[str, ...]
    probe: str | None
    """A small experiment that would answer it; None where none is needed."""
    support_share: float
    """Share of the router's choices that these logs can say something about."""
    effective_sample_size: float | None = None
    largest_weight: float | None = None


@dataclass(frozen=True)
class Replay:
    """What the logged policy got and paid, and what a router would have."""

    kind: str
    why: str
    """How the kind of the logs was told."""
    checkpoint: str
    cost_weight: float
    options: Mapping[str, Any]
    """Constraints that were given."""
    queries: int
    runs: int
    logged_plans: int
    router_plans: int
    verdict: Verdict
    reference: str
    """What `logged`, the parts and the disagreements compare with."""
    logged: Side
    comparisons: tuple[Comparison, ...]
    """The main reference first; empty where the router's value is not identified."""
    agreement: Agreement | None
    """None for grid logs, where no policy chose."""
    sensitivity: Sensitivity | None
    """For observational logs."""
    first_choices: tuple[FirstChoices, ...]
    """For randomised logs with stage propensities: may be identified where whole plans are not."""
    domains: str
    """Where the domains come from."""
    by_domain: tuple[Part, ...]
    times: str
    """What the spans are, or why there are none."""
    over_time: tuple[Part, ...]
    choices: tuple[Choice, ...]
    disagreements: int
    """Queries on which the router differs from the reference."""
    saving: Tally
    harm: Tally
    savings: tuple[Disagreement, ...]
    """Biggest first; one a query."""
    harms: tuple[Disagreement, ...]
    cautions: tuple[str, ...]
    """To read before any figure."""
    notes: tuple[str, ...]
    synthetic: bool
    resamples: int

    def to_json(self) -> str:
        """Everything, as strict JSON; what is not known is null."""
        return json.dumps(asdict(self), indent=2, allow_nan=False)
