"""Whether logs can tell what a policy would earn: diagnostics, and a verdict in words.

Identified: rounds with the target's plans are there, enough of them weigh something, none decides
alone. Weak: an estimate can be shown, with its interval and a warning. Not identified: no estimate
is; a small randomised probe is what would help. Not here: the estimates (`policy_value`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from masrouter.errors import EvaluationError
from masrouter.evaluation.off_policy.estimators import effective_sample_size
from masrouter.evaluation.off_policy.resampling import ClusterBootstrap
from masrouter.evaluation.off_policy.rounds import LoggedRounds
from masrouter.outcomes import Bools, Floats, Ints, Outcomes

Level = Literal["identified", "weak", "not identified"]

ENOUGH_QUERIES = 50.0
"""Effective queries from which an estimate counts as identified, and FEW_QUERIES as weak.

In simulations with 4, 20 and 64 plans (tests/benchmarks/bench_off_policy.py) 95 % intervals cover
the truth in 92 to 97 of 100 draws above the first; below the second the number of matched rounds
itself is a matter of luck.
"""
FEW_QUERIES = 10.0
MOST_WEIGHT_OF_ONE = 0.10
"""Largest share of all weight on one query, for an estimate to be identified."""
MOST_UNKNOWN = 0.05
"""Largest share without support, or with unknown outcome, that a warning is enough for."""
EXPECTED = 5.0
"""Rounds from which on their absence is no accident: chance has it in under 1 of 100."""
_DOUBT, _CONTRADICTION = 2.58, 3.29
"""Standard errors that chance exceeds in 1 and in 0.1 of 100 draws."""
HALF_WIDTH = 0.02
"""Wanted half-width of the interval of a difference in score, by default."""


@dataclass(frozen=True)
class Probe:
    """A randomised experiment that would tell target and logging policy apart."""

    runs: int
    half_width: float
    """Of the 95 % interval of the difference in score."""
    cost_usd: float | None
    """None where the logs do not know what the target's plans cost."""

    def __str__(self) -> str:
        cost = "cost unknown" if self.cost_usd is None else f"about {self.cost_usd:,.2f} US dollars"
        return (
            f"{self.runs:,} runs on as many different queries, a coin deciding for each between "
            f"the target's plan and the logging policy's, with its probability logged: the "
            f"difference in score to within {self.half_width:g} ({cost})"
        )


@dataclass(frozen=True)
class Verdict:
    """What the logs can tell of a target policy, and why."""

    level: Level
    reasons: tuple[str, ...]
    effective_sample_size: float | None
    """Of queries, by their weights; None without propensities."""
    largest_weight: float | None
    """Of a round."""
    support_share: float
    """Share of queries whose chosen plan was logged on their data set and may be drawn there."""
    matched_rounds: int
    """Rounds in which the logging policy took the target's plan, of known outcome."""
    mean_weight: float | None
    """1 in expectation under full support; what is missing is the target's share without it."""
    probe: Probe | None


@dataclass(frozen=True)
class _Faults:
    """Reasons by what they forbid."""

    forbid: list[str]
    warn: list[str]
    tell: list[str]

    @property
    def level(self) -> Level:
        return "not identified" if self.forbid else "weak" if self.warn else "identified"

    @property
    def reasons(self) -> tuple[str, ...]:
        return (*self.forbid, *self.warn, *self.tell)


def judge(
    rounds: LoggedRounds,
    chosen: Ints,
    weight: Floats,
    known: Bools,
    *,
    agreement: tuple[float, float] | None = None,
    half_width: float = HALF_WIDTH,
) -> Verdict:
    """The verdict on estimates from `rounds` for a target that takes plan `chosen` (Q,).

    `chosen` beyond the logged plans, or negative, is a plan that was never logged. `weight` (n,) is
    1[logged plan = chosen plan] / propensity, `known` (n,) marks rounds whose outcome is known.
    `agreement` is DR minus SNIPS and its standard error.

    That weights average 1 under full support, and less by the target's share without it, is the
    arithmetic-mean test of Li et al. 2015, arXiv 1403.1891.
    """
    found = _Faults([], [], [])
    support = _support(rounds, chosen)
    matched = (weight > 0) & known
    _judge_choices(found, support)
    mean_weight = _judge_mean(found, rounds, weight)
    effective = _judge_overlap(found, rounds, np.where(known, weight, 0.0), matched)
    _judge_unknown(found, rounds, weight, known)
    if agreement is not None and not found.forbid:
        apart, error = agreement
        if abs(apart) > _DOUBT * error:
            found.warn.append(
                f"DR and SNIPS differ by {abs(apart):.3g}, more than chance explains (99 % of "
                f"draws: {_DOUBT * error:.3g}): the propensities may be wrong"
            )
    level = found.level
    return Verdict(
        level=level,
        reasons=found.reasons,
        effective_sample_size=effective,
        largest_weight=float(weight[matched].max()) if matched.any() else 0.0,
        support_share=float(support.there.mean()),
        matched_rounds=int(matched.sum()),
        mean_weight=mean_weight,
        probe=None if level == "identified" else _probe_of(rounds, chosen, half_width),
    )


def not_identified(outcomes: Outcomes, chosen: Ints, *, half_width: float = HALF_WIDTH) -> Verdict:
    """The verdict on any target policy from logs without propensities.

    `chosen` (N,) is the target's plan for each query, -1 for one that the logs do not hold.
    """
    chosen = np.asarray(chosen)
    if chosen.shape != (outcomes.n_queries,):
        raise EvaluationError(
            f"chosen: expected a plan for each of {outcomes.n_queries} queries, got {chosen.shape}"
        )
    has_runs = np.bincount(outcomes.plan, minlength=outcomes.n_plans + 1) > 0
    supported = (chosen >= 0) & has_runs[np.where(chosen >= 0, chosen, -1)]
    matched = outcomes.plan == chosen[outcomes.query]
    reason = (
        "the logs have no propensities: why a query got its plan is not known, and what the "
        "target's plans would have scored on the other queries cannot be told from them"
    )
    return Verdict(
        level="not identified",
        reasons=(reason,),
        effective_sample_size=None,
        largest_weight=None,
        support_share=float(supported.mean()),
        matched_rounds=int((matched & np.isfinite(outcomes.score)).sum()),
        mean_weight=None,
        probe=plan_probe(
            outcomes.score,
            outcomes.cost,
            _mean_cost_of_choices(outcomes.plan, outcomes.cost, outcomes.n_plans, chosen),
            half_width=half_width,
        ),
    )


def plan_probe(
    score: Floats, cost: Floats, target_cost: float | None, *, half_width: float = HALF_WIDTH
) -> Probe:
    """The runs that tell the difference in mean score to within `half_width`, and their cost.

    Half of them take the target's plan and half the logging policy's:
    runs = 2 (1.96 / half_width)^2 (v_logged + v_target), v the variance of a run's score: the
    logs' own, and 1/4, the most that a score in [0, 1] can have, for the target. `score`, `cost`
    (n,) are those of logged runs, NaN = unknown; `target_cost` is the mean of the target's plans.
    """
    if not 0 < half_width < 1:
        raise EvaluationError(
            f"probe: half_width: expected a score between 0 and 1, got {half_width!r}"
        )
    known = score[np.isfinite(score)]
    variance = float(known.var()) if len(known) > 1 else 0.25
    runs = math.ceil(2 * (1.96 / half_width) ** 2 * (variance + 0.25))
    runs += runs % 2
    costs = cost[np.isfinite(cost)]
    total = None
    if target_cost is not None and len(costs):
        total = runs / 2 * (float(costs.mean()) + target_cost)
    return Probe(runs, half_width, total)


@dataclass(frozen=True)
class _Support:
    """What the logs know of the choice for each round's query; all (n,)."""

    there: Bools  # the plan was logged on the query's data set, and may be drawn for the query
    unlogged: Bools  # it was never logged at all
    excluded: Bools  # it was logged, but the logging policy does not take it here


def _support(rounds: LoggedRounds, chosen: Ints) -> _Support:
    """It is not taken where the round's own plan, or the plans drawn on the query together, have
    all the probability; nor where its frequency on other data sets would have made EXPECTED rounds
    on this one, and there is none.
    """
    n_plans = len(rounds.plans)
    names = np.array(rounds.datasets, dtype=object).astype(str)
    dataset = np.unique(names, return_inverse=True)[1]  # (Q,)
    counts = np.zeros((int(dataset.max()) + 1, n_plans))
    np.add.at(counts, (dataset[rounds.query], rounds.plan), 1.0)
    unlogged = (chosen < 0) | (chosen >= n_plans)
    plan = np.where(unlogged, 0, chosen)
    unlogged = unlogged | (counts.sum(axis=0)[plan] == 0)
    here = counts[dataset, plan]  # (Q,) rounds of the chosen plan on the query's data set
    size = counts.sum(axis=1)
    elsewhere = counts.sum(axis=0)[plan] - here
    others = np.maximum(size.sum() - size[dataset], 1.0)
    missed = (here == 0) & (elsewhere / others * size[dataset] >= EXPECTED)
    # Distinct plans drawn on a query and their probabilities.
    _, first = np.unique(rounds.query * n_plans + rounds.plan, return_index=True)
    mass = np.bincount(
        rounds.query[first], weights=rounds.propensity[first], minlength=rounds.n_queries
    )
    match = rounds.plan == chosen[rounds.query]  # (n,)
    drawn = np.bincount(rounds.query, weights=match, minlength=rounds.n_queries) > 0
    # A sum above 1 is of several policies: it says nothing.
    exhausted = ~drawn & (np.abs(mass - 1) < 1e-9)
    certain = (rounds.propensity > 1 - 1e-9) & ~match  # (n,)
    excluded = ~unlogged[rounds.query] & (certain | (missed | exhausted)[rounds.query])
    there = ~unlogged[rounds.query] & ~excluded & (here > 0)[rounds.query]
    return _Support(there, unlogged[rounds.query], excluded)


def _judge_choices(found: _Faults, support: _Support) -> None:
    for rows, what in (
        (support.unlogged, "was never logged"),
        (support.excluded, "is one that the logging policy does not take there"),
    ):
        share = float(rows.mean())
        if share > 0:
            why = (
                f"the plan chosen in {_percent(share)} of the rounds {what}: its score there could "
                f"be anything, which moves the mean by up to {share:.3f}"
            )
            (found.forbid if share > MOST_UNKNOWN else found.warn).append(why)
    rare = float((~support.there & ~support.unlogged & ~support.excluded).mean())
    if rare > 0:
        found.tell.append(
            f"the plan chosen in {_percent(rare)} of the rounds was logged on other data sets only"
        )


def _judge_mean(found: _Faults, rounds: LoggedRounds, weight: Floats) -> float:
    """Whether weights average 1, as they do where every chosen plan can be drawn."""
    mean = float(weight.mean())
    queries = ClusterBootstrap(rounds.query, resamples=20)
    error = queries.standard_error(weight, np.ones(len(weight)))
    told = f"weights average {mean:.2f} (standard error {error:.2f}) where full support has 1"
    if mean == 0:
        return mean  # no matched round: said elsewhere
    if mean < 1 - _DOUBT * error:
        # A mean that is low by chance has a standard error that is low, too: doubt comes early.
        sure = mean < 1 - _CONTRADICTION * error and 1 - mean > MOST_UNKNOWN
        why = f"{told}: the logging policy may never take about {_percent(1 - mean)} of the choices"
        (found.forbid if sure else found.warn).append(why)
    elif mean > 1 + _CONTRADICTION * error:
        found.forbid.append(f"{told}: the logged propensities are too small to be right")
    elif mean > 1 + _DOUBT * error:
        found.warn.append(f"{told}: the logged propensities may be too small")
    else:
        found.tell.append(told)
    return mean


def _judge_overlap(found: _Faults, rounds: LoggedRounds, weight: Floats, matched: Bools) -> float:
    by_query = np.bincount(rounds.query, weights=weight, minlength=rounds.n_queries)
    effective = effective_sample_size(by_query.astype(np.float64))
    if not matched.any():
        found.forbid.append(
            f"in none of {len(rounds):,} rounds did the logging policy take the target's plan "
            "(with a known outcome)"
        )
        return effective
    told = (
        f"the logging policy took the target's plan in {int(matched.sum()):,} of {len(rounds):,} "
        f"rounds, on {int((by_query > 0).sum()):,} queries, which tell as much as "
        f"{effective:.0f} of equal weight"
    )
    if effective < FEW_QUERIES:
        found.forbid.append(f"{told}: fewer than {FEW_QUERIES:.0f}")
    elif effective < ENOUGH_QUERIES:
        found.warn.append(f"{told}: fewer than {ENOUGH_QUERIES:.0f}")
    else:
        found.tell.append(told)
    heaviest = float(by_query.max() / by_query.sum())
    if heaviest > MOST_WEIGHT_OF_ONE and effective >= FEW_QUERIES:
        found.warn.append(f"one query carries {_percent(heaviest)} of all weight")
    return effective


def _judge_unknown(found: _Faults, rounds: LoggedRounds, weight: Floats, known: Bools) -> None:
    if known.all():
        return
    missing = ~known
    of_target = float(weight[missing].sum() / weight.sum()) if weight.any() else 0.0
    errors = int((missing & rounds.failed).sum())
    why = (
        f"{int(missing.sum()):,} of {len(rounds):,} rounds have no known outcome ({errors:,} ended "
        f"in an error) and are left out, with {_percent(of_target)} of the target's weight: right "
        "only if they are like the others"
    )
    worst = max(of_target, float(missing.mean()))
    (found.warn if worst > MOST_UNKNOWN else found.tell).append(why)


def _mean_cost_of_choices(plan: Ints, cost: Floats, n_plans: int, chosen: Ints) -> float | None:
    """Mean over choices of their plan's mean known cost; None where any has none."""
    known = np.isfinite(cost)
    count = np.bincount(plan[known], minlength=n_plans)
    total = np.bincount(plan[known], weights=cost[known], minlength=n_plans)
    if not ((chosen >= 0) & (chosen < n_plans)).all() or not count[chosen].all():
        return None
    return float((total[chosen] / count[chosen]).mean())


def _probe_of(rounds: LoggedRounds, chosen: Ints, half_width: float) -> Probe:
    of_choices = _mean_cost_of_choices(
        rounds.plan, rounds.cost, len(rounds.plans), chosen[rounds.query]
    )
    return plan_probe(rounds.score, rounds.cost, of_choices, half_width=half_width)


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %" if share < 0.1 else f"{100 * share:.0f} %"
