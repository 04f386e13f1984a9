"""When asking for more pays: rounds, requests and a look-up ahead, chosen on logged outcomes.

Folds of groups of queries: on all but one the way of iterating is chosen, on that one it is judged,
so that every figure is of queries that the choice has not seen. The message-length heuristic (to
iterate from so many characters on) is chosen in the same way on the same folds, and so is how it
iterates. Never asking and always taking the strong model have nothing to choose.

The figures hold for the models, the workers and the queries of the log, and for no others.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from masrouter.delegation.calibration.choosing import Goal
from masrouter.delegation.calibration.compared import Against, Compared, against, compared, folds_of
from masrouter.delegation.calibration.iterations import IteratedQuery, Outcome, Way
from masrouter.delegation.calibration.lengths import best_length
from masrouter.delegation.calibration.measuring import (
    FEWEST_QUERIES,
    RESAMPLES,
    Floats,
    Ints,
    groups_of,
    resampled_groups,
)
from masrouter.delegation.deliberation.iterating_rule import DEFAULT, IteratingRule
from masrouter.errors import EvaluationError

ITERATE, ALWAYS, NEVER, LENGTH = "iterate", "always", "never", "length"
DRAFT, AHEAD, SHIPPED = "draft", "ahead", "shipped"


@dataclass(frozen=True, slots=True)
class IteratingRow(Compared):
    """With how often more may be asked for."""

    asking: float
    """Share of queries on which more may be asked for, after a draft or ahead of it."""


@dataclass(frozen=True, slots=True)
class IteratingCalibration:
    """The way to iterate, and what its kind of choice was worth on queries not chosen on."""

    rule: IteratingRule
    """Chosen on all queries. One round without a look-up ahead: asking for more does not pay."""
    length: int | None
    """The length rule on all queries: characters from which it iterates; None never does."""
    length_rule: IteratingRule
    """How it iterates then."""
    goal: Goal
    queries: int
    folds: int
    seed: int
    rows: tuple[IteratingRow, ...]
    """iterate, always (the strong model), never (the model itself, once) and length (iterates from
    so many characters on, else never). Then those of these that the log has: draft, one draft that
    says what it lacks and is asked nothing; ahead, one draft after a look-up; and shipped, the
    default of `iterate`."""
    against: tuple[Against, ...]
    """Iterating less the others."""
    chosen: tuple[IteratingRule, ...]
    """By fold: where these differ, the log is too small to tell the ways apart."""

    def to_json(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "queries": self.queries,
            "folds": self.folds,
            "seed": self.seed,
            **self.goal.to_json(),
            "length": self.length,
            "length_rule": asdict(self.length_rule),
            "rows": [row.to_json() for row in self.rows],
            "against": [one.to_json() for one in self.against],
            "chosen": [asdict(rule) for rule in self.chosen],
        }


def calibrate_iterating(
    queries: Sequence[IteratedQuery],
    *,
    goal: Goal | None = None,
    folds: int = 5,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> IteratingCalibration:
    """Choose rounds, requests and whether to look up ahead, and measure what that is worth.

    goal: by its tolerance, the cheapest way is taken whose mean score is at most so much below the
    best way's. Queries of one group are never parted by folds or draws. Intervals are percentiles
    of a paired bootstrap (`measuring`).

    Raises EvaluationError for fewer than 20 queries, for an unknown cost, for queries that were
    collected in different ways, and for fewer than 2 folds.
    """
    goal = Goal() if goal is None else goal
    group = groups_of([(query.query_id, query.group) for query in queries])  # (n,)
    _check(queries, folds, int(group.max(initial=-1)) + 1)
    log = _Log.of(queries, goal)
    n = len(queries)
    fold = folds_of(group, folds, seed)
    found = {name: _Worked.blank(n) for name in (ITERATE, LENGTH)}
    chosen: list[IteratingRule] = []
    for k in range(folds):
        train, test = np.flatnonzero(fold != k), np.flatnonzero(fold == k)
        way = log.best(train)
        chosen.append(log.rules[way])
        found[ITERATE].fill(log.ways[way], test)
        way, least = log.best_by_length(train)
        found[LENGTH].fill(log.ways[way], test[log.length[test] >= least])
        found[LENGTH].fill(log.never, test[log.length[test] < least])
    mine = found[ITERATE]
    shown = {ITERATE: mine, ALWAYS: log.always, NEVER: log.never, LENGTH: found[LENGTH]}
    for name, rule in (
        (DRAFT, IteratingRule(1, 1)), (AHEAD, IteratingRule(1, 1, True)), (SHIPPED, DEFAULT)
    ):  # fmt: skip
        if rule in log.rules:
            shown[name] = log.ways[log.rules.index(rule)]
    counts = resampled_groups(group, resamples, seed)  # (resamples, n)
    everything = np.arange(n)
    way, least = log.best_by_length(everything)
    return IteratingCalibration(
        rule=log.rules[log.best(everything)],
        length=None if math.isinf(least) else int(least),
        length_rule=log.rules[way],
        goal=goal,
        queries=n,
        folds=folds,
        seed=seed,
        rows=tuple(
            IteratingRow(
                name,
                *compared(one, counts),
                float(one.asking.mean()),
            )
            for name, one in shown.items()
        ),
        against=against(mine, shown, counts, without=(ITERATE,)),
        chosen=tuple(chosen),
    )


@dataclass(frozen=True, slots=True)
class _Worked:
    """What a way of working gave on n queries; each (n,)."""

    score: Floats
    cost: Floats
    asking: Floats

    @classmethod
    def blank(cls, n: int) -> _Worked:
        return cls(np.zeros(n), np.zeros(n), np.zeros(n))

    @classmethod
    def of(cls, found: Sequence[Way | Outcome], *, asking: bool) -> _Worked:
        costs = [math.nan if one.cost_usd is None else one.cost_usd for one in found]  # checked
        return cls(
            np.array([one.score for one in found]),
            np.array(costs),
            np.full(len(found), float(asking)),
        )

    def fill(self, values: _Worked, rows: Ints) -> None:
        self.score[rows] = values.score[rows]
        self.cost[rows] = values.cost[rows]
        self.asking[rows] = values.asking[rows]


@dataclass(frozen=True, slots=True)
class _Log:
    """All ways on n queries."""

    rules: tuple[IteratingRule, ...]
    """The least that is asked for first: of equals the first is taken."""
    ways: tuple[_Worked, ...]
    never: _Worked
    always: _Worked
    length: Ints
    """Characters, (n,)."""
    goal: Goal

    @classmethod
    def of(cls, queries: Sequence[IteratedQuery], goal: Goal) -> _Log:
        by_rule = [{way.rule: way for way in query.ways} for query in queries]
        rules = tuple(sorted(by_rule[0]))
        return cls(
            rules,
            tuple(
                _Worked.of([ways[rule] for ways in by_rule], asking=rule.rounds > 1 or rule.ahead)
                for rule in rules
            ),
            _Worked.of([query.plain for query in queries], asking=False),
            _Worked.of([query.strong for query in queries], asking=False),
            np.array([len(query.query) + len(query.context) for query in queries]),
            goal,
        )

    def best(self, rows: Ints) -> int:
        """Which way is best on some queries."""
        score = np.array([one.score[rows].mean() for one in self.ways])  # (ways,)
        cost = np.array([one.cost[rows].mean() for one in self.ways])
        return self.goal.best(score, cost, float(score.max()))

    def best_by_length(self, rows: Ints) -> tuple[int, float]:
        """Which way is best from how many characters on; inf where never asking is."""
        against = max(float(one.score[rows].mean()) for one in self.ways)
        below = (self.never.score, self.never.cost)
        lengths, score, cost = [], [], []
        for one in self.ways:
            above = (one.score, one.cost)
            least = best_length(self.length, below, above, rows, self.goal, against)
            longer = self.length[rows] >= least
            lengths.append(least)
            score.append(np.where(longer, one.score[rows], self.never.score[rows]).mean())
            cost.append(np.where(longer, one.cost[rows], self.never.cost[rows]).mean())
        way = self.goal.best(np.array(score), np.array(cost), against)
        return way, lengths[way]


def _check(queries: Sequence[IteratedQuery], folds: int, groups: int) -> None:
    if len(queries) < FEWEST_QUERIES:
        raise EvaluationError(
            f"iterating: {len(queries)} queries are too few to choose on; log {FEWEST_QUERIES}"
        )
    if not 2 <= folds <= groups:
        raise EvaluationError(f"iterating: folds: expected 2 to {groups}, got {folds}")
    first = {way.rule for way in queries[0].ways}
    for query in queries:
        if {way.rule for way in query.ways} != first:
            raise EvaluationError(
                f"iterating: query {query.query_id!r} was collected in other ways than "
                f"{queries[0].query_id!r}; calibrate them apart, or collect all alike"
            )
        costs = [query.plain.cost_usd, query.strong.cost_usd, *(w.cost_usd for w in query.ways)]
        if None in costs:
            raise EvaluationError(
                f"iterating: query {query.query_id!r}: an unknown cost; give the price of every "
                "model and worker when collecting, or leave the query out"
            )
