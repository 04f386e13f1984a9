"""Means of logged runs with intervals, where queries are what chance drew and not runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from masrouter.evaluation.metrics import bootstrap_means, percentile_interval, utility
from masrouter.evaluation.replay.types import Comparison, Measured, Paired, Side
from masrouter.outcomes import Bools, Floats, Ints

FEWEST = 10
"""Queries below which no interval is given."""


@dataclass(frozen=True)
class Sample:
    """How intervals are drawn."""

    resamples: int
    seed: int


@dataclass(frozen=True)
class Columns:
    """Means of m columns over runs, and how they vary when queries are drawn anew."""

    mean: Floats  # (m,) NaN where nothing is known
    draws: Floats  # (resamples, m)
    queries: Ints  # (m,) with a known value
    varies: Bools  # (m,) whether the column holds more than one value

    def measured(self, column: int) -> Measured | None:
        """One column, None where nothing of it is known."""
        queries = int(self.queries[column])
        if queries == 0:
            return None
        told = queries >= FEWEST and bool(self.varies[column])
        interval = percentile_interval(self.draws[:, column]) if told else None
        return Measured(float(self.mean[column]), interval, queries)

    def saved(self, router: int, reference: int) -> Measured | None:
        """1 - router / reference, of two columns of costs over the same queries."""
        queries = int(self.queries[reference])
        if queries == 0 or not self.mean[reference] > 0:
            return None
        value = 1.0 - float(self.mean[router] / self.mean[reference])
        told = queries >= FEWEST and bool(self.varies[router] or self.varies[reference])
        with np.errstate(divide="ignore", invalid="ignore"):
            draws = 1.0 - self.draws[:, router] / self.draws[:, reference]
        return Measured(value, percentile_interval(draws) if told else None, queries)


def columns(query: Ints, values: Sequence[Floats], sample: Sample) -> Columns:
    """Means over runs: `query` (n,) says whose run it is, `values` are m columns (n,), NaN unknown.

    A bootstrap over queries that keeps all runs of a query together; all columns see the same
    draws. Source: Efron and Tibshirani, 1993, chapter 6; clusters: Davison and Hinkley, 1997, 3.8.
    """
    table = np.stack(values, axis=1)  # (n, m)
    _, row = np.unique(query, return_inverse=True)
    size = int(row.max()) + 1 if len(row) else 0
    m = table.shape[1]
    if size == 0:
        nothing = np.zeros(m, dtype=np.int64)
        return Columns(
            np.full(m, np.nan), np.full((1, m), np.nan), nothing, np.zeros(m, dtype=np.bool_)
        )
    known = np.isfinite(table)
    filled = np.where(known, table, 0.0)
    sums, counts = np.zeros((size, m)), np.zeros((size, m))  # by query
    for column in range(m):
        sums[:, column] = np.bincount(row, weights=filled[:, column], minlength=size)
        counts[:, column] = np.bincount(row, weights=known[:, column], minlength=size)
    means = bootstrap_means(
        np.concatenate([sums, counts], axis=1), resamples=sample.resamples, seed=sample.seed
    )
    total = counts.sum(0)
    with np.errstate(divide="ignore", invalid="ignore"):
        mean, draws = sums.sum(0) / total, means[:, :m] / means[:, m:]
    low = np.where(known, table, np.inf).min(0)
    high = np.where(known, table, -np.inf).max(0)
    return Columns(mean, draws, (counts > 0).sum(0), high > low)


def side_of(query: Ints, score: Floats, cost: Floats, cost_weight: float, sample: Sample) -> Side:
    """What runs got and paid, all (n,)."""
    found = columns(query, [score, cost, utility(score, cost, cost_weight)], sample)
    return Side(
        found.measured(0), found.measured(1), found.measured(2) if cost_weight > 0 else None
    )


def compare(
    name: str,
    query: Ints,
    reference: tuple[Floats, Floats],
    router: tuple[Floats, Floats],
    cost_weight: float,
    sample: Sample,
) -> Comparison:
    """Two sides as (score, cost), each (n,), paired: `query` (n,) holds each query once."""
    pairs = [
        (reference[0], router[0]),
        (reference[1], router[1]),
        (utility(*reference, cost_weight), utility(*router, cost_weight)),
    ]
    table: list[Floats] = []
    for ours, theirs in pairs:
        both = np.isfinite(ours) & np.isfinite(theirs)
        table += [np.where(both, x, np.nan) for x in (ours, theirs, theirs - ours)]
    found = columns(query, table, sample)

    def paired(first: int) -> Paired | None:
        sides = [found.measured(first + i) for i in range(3)]
        if sides[0] is None or sides[1] is None or sides[2] is None:
            return None
        return Paired(sides[0], sides[1], sides[2], len(query) - sides[0].queries)

    change = table[2]
    return Comparison(
        reference=name,
        score=paired(0),
        cost=paired(3),
        utility=paired(6) if cost_weight > 0 else None,
        saved=found.saved(4, 3),
        better=int((change > 0).sum()),
        worse=int((change < 0).sum()),
    )
