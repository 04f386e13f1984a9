"""The message-length rule: from how many characters on one thing is done, and below them another.

What either gives on a query is the same for every length, so that all lengths are judged at once by
running sums: a log of n queries has up to n of them.
"""

from __future__ import annotations

import math

import numpy as np

from masrouter.delegation.calibration.choosing import Goal
from masrouter.delegation.calibration.measuring import Floats, Ints


def best_length(
    length: Ints,
    below: tuple[Floats, Floats],
    above: tuple[Floats, Floats],
    rows: Ints,
    goal: Goal,
    against: float,
) -> float:
    """From how many characters on `above` is best, on these rows; inf never does it.

    length: characters of each of n queries. below, above: scores and costs, (n,) each, of what is
    done with shorter ones, and from there on. Tried is 0, every length that occurs but the
    shortest, which is the same, and inf; `against` is as for `Goal.best`.
    """
    tried: list[float] = [0.0, *np.unique(length)[1:].tolist(), math.inf]
    # A query is above the first so many of them, (rows,): one more than the last that it reaches.
    reached = np.searchsorted(tried, length[rows], side="right")
    score, cost = (
        _means(low[rows], high[rows], reached, len(tried))
        for low, high in zip(below, above, strict=True)
    )
    return tried[goal.best(score, cost, against)]


def _means(low: Floats, high: Floats, reached: Ints, count: int) -> Floats:
    """Their mean for each of the lengths tried, (count,)."""
    lows = np.bincount(reached, low, count + 1)  # (count + 1,), by how many a query reaches
    highs = np.bincount(reached, high, count + 1)
    under = np.cumsum(lows)[:count]  # that reach at most the first k, and so not the k-th
    over = np.cumsum(highs[::-1])[::-1][1:]  # that reach it
    return (under + over) / len(reached)
