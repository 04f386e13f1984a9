"""Whether expected scores mean what they say: a reliability diagram with intervals.

Not here: the error and the Brier score as functions (`metrics`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from masrouter.evaluation import metrics
from masrouter.outcomes import Floats
from masrouter.types import Interval

BINS = 10


@dataclass(frozen=True)
class ReliabilityBin:
    """Choices of similar expected score."""

    expected: float
    """Mean expected score."""
    realised: float
    """Mean score that was got."""
    interval: Interval
    """95 % bootstrap interval of `realised`, over queries."""
    choices: int
    queries: int
    """Different queries among the choices: a query is chosen for once a cost weight and seed."""


@dataclass(frozen=True)
class Calibration:
    """All choices of a learner, at every cost weight and seed together."""

    bins: tuple[ReliabilityBin, ...]
    """Of about equal numbers of choices, by rising expected score."""
    error: float
    """Expected calibration error over these bins."""
    brier: float
    choices: int


def calibrate(
    expected: Floats, realised: Floats, *, resamples: int, seed: int
) -> Calibration | None:
    """Compare expected with realised scores, both (..., N) with queries last, NaN where unknown.

    None where no score was expected aloud. A query's choices are resampled together, since they
    share its luck.
    """
    told = np.isfinite(expected) & np.isfinite(realised)
    if not told.any():
        return None
    query = np.broadcast_to(np.arange(expected.shape[-1]), expected.shape)[told]  # (n,)
    said, got = expected[told], realised[told]
    bin_of = metrics.equal_mass_bins(said, BINS)
    used = np.unique(bin_of)
    column = np.searchsorted(used, bin_of)
    total = np.zeros((expected.shape[-1], len(used)))  # (N, bins)
    count = np.zeros_like(total)
    np.add.at(total, (query, column), got)
    np.add.at(count, (query, column), 1.0)
    draws = metrics.bootstrap_ratios(total, count, resamples=resamples, seed=seed)
    bins = []
    for k in range(len(used)):
        mine = column == k
        interval = metrics.percentile_interval(draws[:, k])
        assert interval is not None  # a bin has choices, so some draw has
        bins.append(
            ReliabilityBin(
                expected=float(said[mine].mean()),
                realised=float(got[mine].mean()),
                interval=interval,
                choices=int(mine.sum()),
                queries=int((count[:, k] > 0).sum()),
            )
        )
    return Calibration(
        bins=tuple(bins),
        error=metrics.calibration_error(said, got, BINS),
        brier=metrics.brier(said, got),
        choices=len(said),
    )
