"""On your traffic, what would a router have saved, and what would it have broken?

    replay(logs, router) -> Replay: what the logged policy got and paid, what the router would have,
    by domain and over time, the queries worth reading, and what these logs cannot say.

What can be said depends on the logs. Grid: the router's plan is looked up among the runs of the
query. Randomised: off-policy estimates with a verdict. Observational: nothing is identified, so
real outcomes are shown where the router agrees, predictions are called predictions, and the rest is
a range.
Not here: running anything; how it looks (`report`); held-out figures (`crossval`).
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import Any

import numpy as np

from masrouter.errors import EvaluationError
from masrouter.evaluation.replay.case import Case, Reading
from masrouter.evaluation.replay.disagreements import choices, differences, tally, worth_reading
from masrouter.evaluation.replay.grid import GridReading
from masrouter.evaluation.replay.means import Sample
from masrouter.evaluation.replay.observed import ObservedReading
from masrouter.evaluation.replay.parts import domains, spans
from masrouter.evaluation.replay.randomised import RandomisedReading
from masrouter.evaluation.replay.traffic import (
    BLANK,
    REFUSED,
    OnProgress,
    Routed,
    Traffic,
    route_traffic,
)
from masrouter.evaluation.replay.types import Part, Replay
from masrouter.logs import LogKind, Logs, log_stats
from masrouter.router import Router
from masrouter.types import Plan

SEEN = 0.999
"""Cosine from which a query is (nearly) one that the router was trained on; the evidence is kept in
half precision, which moves a cosine by less than this."""

LOUD = 0.02
"""Share of such queries from which it is a caution, and below a note."""


@dataclass(frozen=True)
class Limits:
    """What the router is asked for, as in `Router.route`. None asks for nothing."""

    cost_weight: float | None = None
    willingness_to_pay: float | None = None
    max_cost_usd: float | None = None
    max_agents: int | None = None
    models: tuple[str, ...] | None = None
    exclude_models: tuple[str, ...] = ()
    topologies: tuple[str, ...] | None = None

    def given(self) -> dict[str, Any]:
        """The options that ask for something."""
        return {k: v for k, v in vars(self).items() if v is not None and v != ()}


def replay(
    logs: Logs,
    router: Router,
    *,
    limits: Limits | None = None,
    current_plan: Plan | None = None,
    top: int = 5,
    resamples: int = 2000,
    seed: int = 0,
    progress: OnProgress | None = None,
) -> Replay:
    """Replay logged traffic through a router. Nothing is run and nothing leaves the machine.

    Args:
        limits: trade-off and constraints, obeyed as when served; the checkpoint's default if None.
        current_plan: for grid logs, the plan that is run today, to compare with.
        top: how many of the biggest savings and harms to tell.
        resamples: bootstrap draws of the intervals. seed: of the draws.
        progress: called with (done, total, what) while it works.

    Raises EvaluationError for what the logs cannot answer at all, LogError for empty logs, and
    RoutingError for limits that cannot be meant.
    """
    _check(top, resamples)
    limits = limits or Limits()
    traffic = Traffic.from_logs(logs)
    current = _current(traffic, current_plan)
    routed = route_traffic(traffic, router, limits.given(), progress)
    case = Case(traffic, routed, Sample(resamples, seed), router.state.evidence.similar)
    tell = progress or (lambda done, total, what: None)
    reading: Reading
    if traffic.kind is LogKind.GRID:
        reading = GridReading(case, current)
    elif traffic.kind is LogKind.RANDOMISED:
        tell(0, 1, "estimating")
        reading = RandomisedReading(case, logs)
    else:
        reading = ObservedReading(case)

    by_query = domains(traffic, routed, len(router.state.critic.query_features.domains) > 1)
    by_time = spans(traffic.time)
    steps = len(by_query.names) + len(by_time.names)
    parts: list[Part] = []
    for cut, labels in (
        (by_query, by_query.label[traffic.query]),
        (by_time, by_time.label),
    ):
        for i, name in enumerate(cut.names):
            tell(len(parts), steps, "domains and times")
            parts.append(reading.part(name, labels == i))
    tell(steps, steps, "domains and times")
    found = differences(traffic, routed, reading.of_reference)
    names = tuple(by_query.names[i] for i in by_query.label)
    savings, harms = worth_reading(traffic, routed, found, names, case.similarity, top)
    cut_at = len(by_query.names)
    seen, loud = _trained_on(traffic, routed, router)
    return Replay(
        kind=str(traffic.kind),
        why=traffic.why,
        checkpoint=router.checkpoint,
        cost_weight=routed.cost_weight,
        options=limits.given(),
        queries=traffic.n_queries,
        runs=len(logs),
        logged_plans=len(traffic.plans),
        router_plans=len(router.plans),
        verdict=reading.verdict(),
        reference=reading.reference,
        logged=reading.logged(),
        comparisons=reading.comparisons(),
        agreement=reading.agreement(),
        sensitivity=reading.sensitivity(by_query.label),
        first_choices=reading.first_choices(),
        domains=by_query.source,
        by_domain=tuple(parts[:cut_at]),
        times=by_time.source,
        over_time=tuple(parts[cut_at:]),
        choices=choices(traffic, routed, grid=traffic.kind is LogKind.GRID),
        disagreements=len(np.unique(traffic.query[found.candidate])),
        saving=tally(found.saving, found.candidate, traffic.query),
        harm=tally(found.harm, found.candidate, traffic.query),
        savings=savings,
        harms=harms,
        cautions=(*(seen if loud else ()), *_cautions(traffic, routed, router)),
        notes=(*(() if loud else seen), *_notes(logs, traffic, routed, current_plan, reading)),
        synthetic=any("synthetic" in name for name in traffic.datasets),
        resamples=resamples,
    )


def _check(top: int, resamples: int) -> None:
    if top < 0:
        raise EvaluationError(f"replay: top: expected at least 0, got {top}")
    if resamples < 100:
        raise EvaluationError(f"replay: resamples: expected at least 100, got {resamples}")


def _current(traffic: Traffic, plan: Plan | None) -> int | None:
    """Position of the plan that is run today."""
    if plan is None:
        return None
    if traffic.kind is not LogKind.GRID:
        raise EvaluationError(
            f"current plan: these logs are {traffic.kind}, where what ran is the logged policy "
            "itself; leave the current plan out"
        )
    if plan in traffic.plans:
        return traffic.plans.index(plan)
    names = [str(logged) for logged in traffic.plans]
    near = difflib.get_close_matches(str(plan), names, n=3, cutoff=0.3) or names[:3]
    raise EvaluationError(
        f"current plan: {plan} was never run in these logs ({len(names)} plans were); "
        f"did you mean {' or '.join(near)}?"
    )


def _trained_on(traffic: Traffic, routed: Routed, router: Router) -> tuple[tuple[str, ...], bool]:
    """That queries were in the router's training logs, and whether it is to be said loudly."""
    decisions = [decision for decision in routed.decisions if decision is not None]
    seen = sum(decision.evidence.nearest >= SEEN for decision in decisions)
    if not seen:
        return (), False
    trained = router.state.training.get("queries")
    sampled = isinstance(trained, int) and trained > len(router.state.evidence.embeddings)
    optimistic = {
        LogKind.GRID: "what is looked up for it is optimistic",
        LogKind.RANDOMISED: "the estimates below are optimistic",
        LogKind.OBSERVATIONAL: "its predictions below are optimistic",
    }[traffic.kind]
    said = (
        f"{'at least ' if sampled else ''}{seen:,} of {len(decisions):,} queries are (nearly) in "
        f"the router's own training logs: it has seen their outcomes, so {optimistic}. Use "
        "`masrouter evaluate` for held-out figures, or replay logs of other queries"
    )
    return (said,), seen >= LOUD * len(decisions)


def _cautions(traffic: Traffic, routed: Routed, router: Router) -> tuple[str, ...]:
    """What must be read before the figures."""
    out: list[str] = []
    if not set(router.plans) & set(traffic.plans):
        out.append(
            f"none of the router's {len(router.plans)} plans occurs in these logs: nothing can be "
            "looked up or weighed. Names of models, roles and topologies must match to the letter"
        )
    for code, what in (
        (REFUSED, f"are refused, as they would be when served: {routed.refusal}"),
        (BLANK, "have no text to route on"),
    ):
        count = int((routed.chosen == code).sum())
        if count:
            out.append(
                f"{count:,} of {traffic.n_queries:,} queries {what}. They are in no figure of the "
                "router"
            )
    return tuple(out)


def _notes(
    logs: Logs, traffic: Traffic, routed: Routed, current: Plan | None, reading: Reading
) -> tuple[str, ...]:
    decisions = [decision for decision in routed.decisions if decision is not None]
    out = [*traffic.notes, *reading.notes]
    out += log_stats(logs).warnings
    safe = sum(decision.fallback for decision in decisions)
    if safe:
        out.append(
            f"on {safe:,} of {len(decisions):,} queries, unlike anything that the router learned "
            "from, it takes its safe plan, as when served"
        )
    for values, what in ((traffic.score, "score"), (traffic.cost, "cost")):
        unknown = int(np.isnan(values[reading.of_reference]).sum())
        if unknown:
            out.append(
                f"{unknown:,} logged outcomes of {reading.reference} have no {what}: they are in "
                f"no mean of it, and not counted as 0"
            )
    unpriced = sum(decision.expected_cost_usd is None for decision in decisions)
    if unpriced:
        out.append(
            f"the cost of {unpriced:,} of the router's choices cannot be told: no price is known"
        )
    if traffic.kind is LogKind.GRID and current is None:
        out.append(
            "in grid logs no policy chose: name what you run today with --current-plan, else the "
            "router is compared with the plan that these very logs show to be best"
        )
    return tuple(out)
