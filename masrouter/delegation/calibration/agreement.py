"""When delegating pays: a rule for agreement, chosen on logged samples and judged on others.

Folds of queries: on all but one the rule is chosen, on that one it is judged, so that every figure
is of queries that the choice has not seen. The message-length rule, the usual heuristic, is chosen
in the same way on the same folds. Always asking the strong worker and never asking it have nothing
to choose. Where the log has samples in steps, rules that delegate the step at which samples part
are tried as well.

The figures hold for the models, the prompts and the queries of the log, and for no others.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from masrouter.delegation.calibration.choosing import Goal
from masrouter.delegation.calibration.compared import Against, Compared, against, compared, folds_of
from masrouter.delegation.calibration.lengths import best_length
from masrouter.delegation.calibration.measuring import (
    FEWEST_QUERIES,
    RESAMPLES,
    Ints,
    groups_of,
    resampled_groups,
)
from masrouter.delegation.calibration.replaying import (
    Outcomes,
    ReadQuery,
    blank,
    known,
    replay,
    rules_of,
)
from masrouter.delegation.calibration.sampled import SampledQuery
from masrouter.delegation.deliberation.agreement import Rule
from masrouter.errors import EvaluationError

DELIBERATE, WHOLE, STEP, VOTE = "deliberate", "whole", "step", "vote"
ALWAYS, NEVER, LENGTH, COIN = "always", "never", "length", "coin"


@dataclass(frozen=True, slots=True)
class Row(Compared):
    """With how often the strong worker was asked."""

    delegated: float
    """Share of queries."""


@dataclass(frozen=True, slots=True)
class RuleRow(Row):
    """With how often a step alone was delegated."""

    handed: float
    """Share of queries of which the strong worker was asked for a step."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """The rule to use, and what its kind of choice was worth on queries not chosen on."""

    rule: Rule
    """Chosen on all queries."""
    length: int | None
    """The length rule on all queries: characters from which it asks the strong worker; None never
    asks."""
    goal: Goal
    queries: int
    folds: int
    seed: int
    rows: tuple[RuleRow, ...]
    """deliberate, always, never and length. Then, to see what does it: the vote, which takes the
    samples' most frequent answer and never delegates; and the coin, always or never at random at
    deliberate's cost (or one of the two, where that lies outside). Where both were tried, whole and
    step behind deliberate: chosen among the rules that delegate the whole task, or a step, alone.
    """
    against: tuple[Against, ...]
    """The same without deliberate itself."""
    chosen: tuple[Rule, ...]
    """By fold: where these differ, the log is too small to tell the rules apart."""

    def to_json(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "queries": self.queries,
            "folds": self.folds,
            "seed": self.seed,
            **self.goal.to_json(),
            "length": self.length,
            "rows": [row.to_json() for row in self.rows],
            "against": [one.to_json() for one in self.against],
            "chosen": [rule_json(rule) for rule in self.chosen],
        }


def rule_json(rule: Rule) -> dict[str, Any]:
    """What was chosen of a rule; how alike steps must be only where it matters."""
    told: dict[str, Any] = {"samples": rule.samples, "needed": rule.needed, "at": rule.at}
    return {**told, "alike": rule.alike} if rule.at == "step" else told


def calibrate(
    queries: Sequence[SampledQuery],
    *,
    goal: Goal | None = None,
    stop_early: bool = True,
    rules: Sequence[Rule] | None = None,
    folds: int = 5,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Calibration:
    """Choose a rule on logged samples, and measure what choosing it so is worth.

    rules: those to choose from; None takes every number of samples that all queries have, with
    every number of them that must agree, and where all were collected with steps, the same once
    more at the step. stop_early: whether these ask one after the other. Queries of one group are
    never parted by folds or draws. Intervals are percentiles of a paired bootstrap (`measuring`).

    Raises EvaluationError for fewer than 20 queries, for an unknown cost, for rules that want more
    samples than are logged, for steps in some queries only, and for fewer than 2 folds.
    """
    goal = Goal() if goal is None else goal
    group = groups_of([(query.query_id, query.group) for query in queries])  # (n,)
    _check(queries, folds, int(group.max(initial=-1)) + 1)
    rules = _rules(queries, stop_early) if rules is None else rules
    read = [ReadQuery.read(query) for query in queries]
    acted = [replay(read, rule) for rule in rules]
    votes = [replay(read, rule, delegate=False) for rule in rules]
    length = np.array([len(query.query) + len(query.context) for query in queries])  # (n,)
    always, never = _strong(queries), _first(queries)
    kinds = {DELIBERATE: list(range(len(rules)))}
    for name, at in ((WHOLE, "task"), (STEP, "step")):
        if 0 < sum(rule.at == at for rule in rules) < len(rules):
            kinds[name] = [n for n, rule in enumerate(rules) if rule.at == at]

    fold = folds_of(group, folds, seed)
    found = {name: blank(len(queries)) for name in (*kinds, LENGTH, VOTE)}
    chosen: list[Rule] = []
    for k in range(folds):
        train, test = np.flatnonzero(fold != k), np.flatnonzero(fold == k)
        best = {
            name: those[_best([acted[n] for n in those], always, train, goal)]
            for name, those in kinds.items()
        }
        for name, n in best.items():
            _fill(found[name], acted[n], test)
        chosen.append(rules[best[DELIBERATE]])
        _fill(found[VOTE], votes[best[DELIBERATE]], test)
        least = _best_length(length, always, never, train, goal)
        _fill(found[LENGTH], always, test[length[test] >= least])
        _fill(found[LENGTH], never, test[length[test] < least])
    mine = found[DELIBERATE]
    shown: Mapping[str, Outcomes] = {
        **{name: found[name] for name in kinds},
        ALWAYS: always,
        NEVER: never,
        LENGTH: found[LENGTH],
        VOTE: found[VOTE],
        COIN: _coin(mine, always, never),
    }
    everything = np.arange(len(queries))
    counts = resampled_groups(group, resamples, seed)
    least = _best_length(length, always, never, everything, goal)
    return Calibration(
        rule=rules[_best(acted, always, everything, goal)],
        length=None if math.isinf(least) else int(least),
        goal=goal,
        queries=len(queries),
        folds=folds,
        seed=seed,
        rows=tuple(
            RuleRow(
                name,
                *compared(one, counts),
                float(one.delegated.mean()),
                float(one.handed.mean()),
            )
            for name, one in shown.items()
        ),
        against=against(mine, shown, counts, without=(DELIBERATE,)),
        chosen=tuple(chosen),
    )


def _rules(queries: Sequence[SampledQuery], stop_early: bool) -> tuple[Rule, ...]:
    """All that the log can answer for."""
    whole = rules_of(min(len(query.samples) for query in queries), stop_early=stop_early)
    stepped = [query for query in queries if query.stepped]
    if not stepped:
        return whole
    if len(stepped) < len(queries):
        bare = next(query for query in queries if not query.stepped)
        raise EvaluationError(
            f"calibration: {len(stepped)} of {len(queries)} queries were collected with steps, and "
            f"{bare.query_id!r} was not; calibrate the two kinds apart, or collect all with steps"
        )
    most = min(len(query.stepped) for query in queries)
    return (*whole, *rules_of(most, stop_early=stop_early, at_step=True))


def _strong(queries: Sequence[SampledQuery]) -> Outcomes:
    """The strong worker on every query."""
    score = np.array([query.strong.score for query in queries])
    cost = np.array([known(query.strong.cost_usd) for query in queries])
    return Outcomes(score, cost, np.ones(len(queries)), np.zeros(len(queries)))


def _first(queries: Sequence[SampledQuery]) -> Outcomes:
    """One sample of the cheap model on every query."""
    score = np.array([query.samples[0].score for query in queries])
    cost = np.array([known(query.samples[0].cost_usd) for query in queries])
    return Outcomes(score, cost, np.zeros(len(queries)), np.zeros(len(queries)))


def _best_length(length: Ints, always: Outcomes, never: Outcomes, rows: Ints, goal: Goal) -> float:
    against = float(always.score[rows].mean())
    below, above = (never.score, never.cost), (always.score, always.cost)
    return best_length(length, below, above, rows, goal, against)


def _best(found: Sequence[Outcomes], always: Outcomes, rows: Ints, goal: Goal) -> int:
    score = np.array([one.score[rows].mean() for one in found])
    cost = np.array([one.cost[rows].mean() for one in found])
    return goal.best(score, cost, float(always.score[rows].mean()))


def _coin(mine: Outcomes, always: Outcomes, never: Outcomes) -> Outcomes:
    """What always or never, drawn at random for each query, gives on average at `mine`'s cost."""
    span = always.cost.mean() - never.cost.mean()
    share = 0.0 if span <= 0 else float((mine.cost.mean() - never.cost.mean()) / span)
    share = min(max(share, 0.0), 1.0)
    return Outcomes(
        share * always.score + (1 - share) * never.score,
        share * always.cost + (1 - share) * never.cost,
        np.full(len(mine.score), share),
        np.zeros(len(mine.score)),
    )


def _fill(into: Outcomes, values: Outcomes, rows: Ints) -> None:
    into.score[rows] = values.score[rows]
    into.cost[rows] = values.cost[rows]
    into.delegated[rows] = values.delegated[rows]
    into.handed[rows] = values.handed[rows]


def _check(queries: Sequence[SampledQuery], folds: int, groups: int) -> None:
    if len(queries) < FEWEST_QUERIES:
        raise EvaluationError(
            f"calibration: {len(queries)} queries are too few to choose on; log {FEWEST_QUERIES}"
        )
    if not 2 <= folds <= groups:
        raise EvaluationError(f"calibration: folds: expected 2 to {groups}, got {folds}")
    for query in queries:
        samples = [*query.samples, *query.stepped]
        costs = [query.strong.cost_usd]
        for parting in query.partings:
            costs.append(parting.step.cost_usd)
            samples += parting.samples
        if None in [*costs, *(sample.cost_usd for sample in samples)]:
            raise EvaluationError(
                f"calibration: query {query.query_id!r}: an unknown cost; give the model's price "
                "when collecting, or leave the query out"
            )
