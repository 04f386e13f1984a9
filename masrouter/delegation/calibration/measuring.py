"""Means over logged queries and their bootstrap intervals: what every calibration here reports.

A paired bootstrap (Efron and Tibshirani 1993): the same draws for whatever is compared, so that a
difference of two rules has an interval of its own. It knows nothing of other models, or of how the
samples would fall another time.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from masrouter.types import Interval

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

RESAMPLES = 2000
FEWEST_QUERIES = 20
"""Fewer are too few to choose anything on."""


@dataclass(frozen=True, slots=True)
class Measured:
    """A mean over queries with its 95 % bootstrap interval."""

    mean: float
    interval: Interval


UNKNOWN = Measured(math.nan, Interval(math.nan, math.nan))
"""Where nothing could be measured."""


def resampled(n: int, resamples: int, seed: int) -> Floats:
    """How often each of n queries is drawn, (resamples, n); a seed's draws are the same always."""
    rng = np.random.default_rng(seed + 1)
    return rng.multinomial(n, np.full(n, 1 / n), size=resamples).astype(np.float64)


def groups_of(names: Sequence[tuple[str, str | None]]) -> Ints:
    """Which group each query is of, (n,), 0 and up in the order in which they come.

    names: of each query, its id and its group's; a query without a group is one of its own.
    """
    # Pairs, so that no id can be taken for a group's name.
    keys = [("query", id) if group is None else ("group", group) for id, group in names]
    rank = {key: place for place, key in enumerate(dict.fromkeys(keys))}
    return np.array([rank[key] for key in keys], dtype=np.int64)


def resampled_groups(group: Ints, resamples: int, seed: int) -> Floats:
    """As `resampled`, where whole groups are drawn; all draws weigh the same."""
    groups = int(group.max()) + 1
    counts = resampled(groups, resamples, seed)  # (resamples, groups)
    if groups == len(group):  # each of one query, in their order: a large log is not held twice
        return counts
    counts = counts[:, group]  # (resamples, n)
    counts *= len(group) / counts.sum(axis=1, keepdims=True)
    return counts


def mean_of(values: Floats, counts: Floats) -> Measured:
    """The mean of `values`, (n,), with the interval of its means over `counts` (`resampled`)."""
    means = counts @ values / len(values)  # (resamples,)
    return Measured(float(values.mean()), interval_of(means))


def saved(mine: Floats, other: Floats, counts: Floats) -> Measured:
    """The share of `other`'s cost, (n,), that `mine` does without; negative where it costs more.

    `UNKNOWN` where `other` costs nothing at all: there is no share of that.
    """
    if not other.sum() > 0:
        return UNKNOWN
    with np.errstate(divide="ignore", invalid="ignore"):  # a draw may cost nothing
        shares = 1 - (counts @ mine) / (counts @ other)  # (resamples,)
    return Measured(1 - float(mine.sum() / other.sum()), interval_of(shares[np.isfinite(shares)]))


def interval_of(values: Floats) -> Interval:
    """The middle 95 % of resampled values."""
    low, high = np.percentile(values, [2.5, 97.5])
    return Interval(float(low), float(high))


def told_json(measured: Measured) -> dict[str, float | None]:
    """JSON-ready; null where nothing could be measured."""
    values = {
        "mean": measured.mean, "low": measured.interval.low, "high": measured.interval.high
    }  # fmt: skip
    return {name: None if math.isnan(value) else value for name, value in values.items()}
