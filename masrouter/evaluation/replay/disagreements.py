"""Which queries to read: where the router differs from what was logged, by what that would do."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from masrouter.evaluation.replay.traffic import Routed, Traffic, similar_runs
from masrouter.evaluation.replay.types import Choice, Disagreement, Tally
from masrouter.outcomes import Bools, Floats, Ints
from masrouter.types import Plan, RoutingDecision


@dataclass(frozen=True)
class Differences:
    """Runs of the logged policy beside the router's choice, all (n,); NaN is unknown."""

    candidate: Bools  # another plan was logged than the router would take
    found_score: Floats  # what the router's plan really got on this query, where it ran
    found_cost: Floats
    saving: Floats
    harm: Floats
    score_found: Bools
    cost_found: Bools


def differences(traffic: Traffic, routed: Routed, of_reference: Bools) -> Differences:
    """Compare every run `of_reference` (n,) with the router's choice on its query."""
    chosen = routed.chosen[traffic.query]  # (n,)
    score, cost = outcomes_of_choices(traffic, routed)
    found_score, found_cost = score[traffic.query], cost[traffic.query]
    expected_score, expected_cost = routed.score[traffic.query], routed.cost[traffic.query]
    score_found = np.isfinite(found_score) & np.isfinite(traffic.score)
    cost_found = np.isfinite(found_cost)
    return Differences(
        candidate=of_reference & routed.decided[traffic.query] & (traffic.plan != chosen),
        found_score=found_score,
        found_cost=found_cost,
        saving=traffic.cost - np.where(cost_found, found_cost, expected_cost),
        harm=np.where(
            score_found, traffic.score - found_score, routed.logged_score - expected_score
        ),
        score_found=score_found,
        cost_found=cost_found,
    )


def outcomes_of_choices(traffic: Traffic, routed: Routed) -> tuple[Floats, Floats]:
    """Mean score and cost, (Q,) each, of the runs of the chosen plan on the query itself."""
    mine = np.flatnonzero(traffic.plan == routed.chosen[traffic.query])
    query = traffic.query[mine]
    means = []
    for values in (traffic.score[mine], traffic.cost[mine]):
        known = np.isfinite(values)
        count = np.bincount(query[known], minlength=traffic.n_queries)
        total = np.bincount(query[known], weights=values[known], minlength=traffic.n_queries)
        means.append(np.where(count > 0, total / np.maximum(count, 1), np.nan))
    return means[0], means[1]


def tally(value: Floats, candidate: Bools, query: Ints) -> Tally:
    """Queries with a run of positive `value`, and those with none that is known; all (n,)."""
    told = np.unique(query[candidate & np.isfinite(value)])
    positive = np.unique(query[candidate & (np.nan_to_num(value) > 0)])
    return Tally(len(positive), len(np.setdiff1d(query[candidate], told)))


def worth_reading(
    traffic: Traffic,
    routed: Routed,
    found: Differences,
    domains: tuple[str, ...],
    similarity: float,
    top: int,
) -> tuple[tuple[Disagreement, ...], tuple[Disagreement, ...]]:
    """The biggest savings and the biggest harms, one a query."""
    expected = routed.score[traffic.query]
    picked = [
        # Of equal savings the one that loses least; of equal harms the one it was surest of.
        _largest(found.saving, -np.nan_to_num(found.harm), found.candidate, traffic.query, top),
        _largest(found.harm, np.nan_to_num(expected), found.candidate, traffic.query, top),
    ]
    runs = np.concatenate(picked)
    similar = similar_runs(traffic, routed, traffic.query[runs], similarity)
    of_plan = np.bincount(traffic.plan, minlength=len(traffic.plans))

    def told(position: int, by_score: bool) -> Disagreement:
        run = int(runs[position])
        i = int(traffic.query[run])
        decision = routed.decisions[i]
        assert decision is not None
        chosen = int(routed.chosen[i])
        return Disagreement(
            query_id=traffic.query_ids[i],
            query=traffic.texts[i],
            domain=domains[i],
            logged_plan=str(traffic.plans[traffic.plan[run]]),
            logged_score=_known(traffic.score[run]),
            logged_cost_usd=_known(traffic.cost[run]),
            router_plan=decision.plan,
            expected_score=decision.expected_score,
            expected_cost_usd=decision.expected_cost_usd,
            found_score=_known(found.found_score[run]),
            found_cost_usd=_known(found.found_cost[run]),
            saving_usd=_known(found.saving[run]),
            harm=_known(found.harm[run]),
            predicted=not bool((found.score_found if by_score else found.cost_found)[run]),
            why=_why(decision),
            logged_runs=int(of_plan[chosen]) if chosen >= 0 else 0,
            similar_runs=int(similar[position]),
        )

    savings = tuple(told(i, False) for i in range(len(picked[0])))
    harms = tuple(told(len(savings) + i, True) for i in range(len(picked[1])))
    return savings, harms


def _largest(value: Floats, then: Floats, candidate: Bools, query: Ints, top: int) -> Ints:
    """Runs of the largest positive `value`, at most one a query; `then` orders equals."""
    rows = np.flatnonzero(candidate & (np.nan_to_num(value, nan=-1.0) > 0))
    rows = rows[np.lexsort((rows, -then[rows], -value[rows]))]
    first = np.sort(np.unique(query[rows], return_index=True)[1])
    return rows[first[:top]]


def choices(traffic: Traffic, routed: Routed, *, grid: bool) -> tuple[Choice, ...]:
    """The plans that the router takes, most taken first, and what these logs know of each."""
    of_plan = np.bincount(traffic.plan, minlength=len(traffic.plans))
    ran = np.zeros(traffic.n_queries, dtype=np.bool_)
    ran[traffic.query[traffic.plan == routed.chosen[traffic.query]]] = True
    taken: dict[Plan, list[int]] = {}
    for i, decision in enumerate(routed.decisions):
        if decision is not None:
            taken.setdefault(decision.plan, []).append(i)
    total = sum(len(rows) for rows in taken.values())
    found = []
    for plan, rows in taken.items():
        chosen = int(routed.chosen[rows[0]])
        runs = int(of_plan[chosen]) if chosen >= 0 else 0
        lost = int((~ran[rows]).sum()) if grid or runs == 0 else 0
        found.append(Choice(str(plan), len(rows), len(rows) / total, runs, lost))
    return tuple(sorted(found, key=lambda choice: (-choice.queries, choice.plan)))


def _why(decision: RoutingDecision) -> str:
    """Of a decision's reasons those about this query: the fixed plan beside it, any fall-back."""
    rule, beside = (*decision.reasons, "", "")[1:3]
    return f"{rule}; {beside}" if decision.fallback else beside


def _known(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
