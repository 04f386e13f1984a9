"""Grid logs: what the router's choices got is looked up among the runs of each query."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from masrouter.errors import EvaluationError
from masrouter.evaluation.replay.case import Case, bounds
from masrouter.evaluation.replay.disagreements import outcomes_of_choices
from masrouter.evaluation.replay.means import compare, side_of
from masrouter.evaluation.replay.types import (
    Agreement,
    Comparison,
    FirstChoices,
    Level,
    Part,
    Sensitivity,
    Side,
    Verdict,
)
from masrouter.outcomes import Bools, Floats, Ints

DOMINANT = 0.5
"""Share of rows from which one plan counts as what is run today."""
WEAK = 0.8
"""Share of queries with a look-up below which what is looked up stands for the rest weakly."""


class GridReading:
    """Every choice is looked up among the runs of its query. Queries are the units."""

    notes: tuple[str, ...] = ()

    def __init__(self, case: Case, current: int | None) -> None:
        """`current`: position of the plan that is run today, if somebody said so."""
        self.case = case
        traffic = case.traffic
        self._score, self._cost = traffic.dense(traffic.score), traffic.dense(traffic.cost)
        self._found = outcomes_of_choices(traffic, case.routed)
        self._best = self._best_fixed()
        self._current = current
        if current is None:
            rows = np.bincount(traffic.plan, minlength=len(traffic.plans))
            most = int(rows.argmax())
            self._current = most if rows[most] > DOMINANT * rows.sum() else None
        first = self._best if self._current is None else self._current
        self.of_reference: Bools = traffic.plan == first
        what = "best fixed plan of these logs in hindsight"
        if self._current is not None:
            what = "run today" if current is not None else f"over {DOMINANT:.0%} of the runs"
        self._names = {
            first: f"{traffic.plans[first]} ({what})",
            self._best: f"{traffic.plans[self._best]} (best fixed plan of these logs in hindsight)",
        }
        self._first = first
        self.reference = self._names[first]

    def _best_fixed(self) -> int:
        """Of the plans that ran on at least half as many queries as the most run one, the one of
        the highest mean utility."""
        known = np.isfinite(self._utility())
        count = known.sum(0)
        if not count.any():
            raise EvaluationError(
                "no run of these logs has a score: nothing to compare"
                if not np.isfinite(self._score).any()
                else "no run of these logs has both a score and a cost, which cost weight "
                f"{self.case.weight:.4g} needs: replay at cost weight 0, or log `cost_usd`"
            )
        mean = np.where(known, self._utility(), 0.0).sum(0) / np.maximum(count, 1)
        return int(np.where(count >= 0.5 * count.max(), mean, -np.inf).argmax())

    def _utility(self) -> Floats:
        weight = self.case.weight
        return self._score if weight == 0 else self._score - weight * self._cost

    def verdict(self) -> Verdict:
        decided = self.case.routed.decided
        known = decided & np.isfinite(self._found[0])
        total, seen = int(decided.sum()), int(known.sum())
        share = seen / total
        level: Level = "looked up" if share >= WEAK else "weak" if seen else "not identified"
        reasons = [
            f"on {seen:,} of {total:,} queries ({share:.1%}) the router's plan was run and scored: "
            "what it got there is looked up, not predicted"
            if seen
            else f"on none of {total:,} queries the router's plan was run and scored"
        ]
        if seen < total:
            unscored = int((decided & np.isfinite(self._found[1]) & ~known).sum())
            reasons.append(
                f"no support in your logs for {total - seen:,} queries: the router's plan was not "
                f"run on them{f' (or has no score: {unscored:,})' if unscored else ''}. They are "
                "left out of the means; the bounds say what they could change"
            )
        probe = None
        if level != "looked up":
            probe = (
                f"run the router's plans on the {total - seen:,} queries where they were not run "
                "(`masrouter collect`), or route a random share of live traffic"
            )
        return Verdict(level, tuple(reasons), probe, share)

    def logged(self) -> Side:
        return self._side(np.arange(self.case.traffic.n_queries))

    def _side(self, rows: Ints) -> Side:
        score, cost = self._score[rows, self._first], self._cost[rows, self._first]
        return side_of(rows, score, cost, self.case.weight, self.case.sample)

    def comparisons(self) -> tuple[Comparison, ...]:
        rows = np.flatnonzero(self.case.routed.decided)
        found = [self._compare(plan, rows) for plan in self._names]
        with np.errstate(invalid="ignore"):
            uniform = _row_means(self._score), _row_means(self._cost)
        even = self._against(
            "every logged plan equally often (uniform)", rows, uniform[0], uniform[1]
        )
        return (*found, replace(even, same=None))

    def _compare(self, plan: int, rows: Ints) -> Comparison:
        found = self._against(self._names[plan], rows, self._score[:, plan], self._cost[:, plan])
        return replace(found, same=int((self.case.routed.chosen[rows] == plan).sum()))

    def _against(self, name: str, rows: Ints, score: Floats, cost: Floats) -> Comparison:
        mine = self._found[0][rows], self._found[1][rows]
        found = compare(
            name, rows, (score[rows], cost[rows]), mine, self.case.weight, self.case.sample
        )
        return replace(found, score_bounds=bounds(mine[0]))

    def agreement(self) -> Agreement | None:
        return None

    def sensitivity(self, domain: Ints) -> Sensitivity | None:
        return None

    def first_choices(self) -> tuple[FirstChoices, ...]:
        return ()

    def part(self, name: str, runs: Bools) -> Part:
        queries = np.unique(self.case.traffic.query[runs])
        rows = queries[self.case.routed.decided[queries]]
        known = int(np.isfinite(self._found[0][rows]).sum())
        level: Level = "looked up" if known else "not identified"
        return Part(
            name=name,
            queries=len(queries),
            runs=int(runs.sum()),
            logged=self._side(queries),
            level=level,
            why=f"{known:,} of {len(rows):,} choices were run and scored",
            comparison=self._compare(self._first, rows) if known else None,
            agreement=None,
            score_bounds=bounds(self._found[0][rows]) if len(rows) else None,
            no_support=len(rows) - known,
        )


def _row_means(values: Floats) -> Floats:
    """(Q, P) -> (Q,) over what is known."""
    known = np.isfinite(values)
    count = known.sum(1)
    total = np.where(known, values, 0.0).sum(1)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)
