"""Intervals of means and ratios over rounds whose queries are resampled.

Rounds of one query share its difficulty, so that queries are the units, not rounds. Not here: what
is averaged (`off_policy`), the percentile bootstrap of complete grids (`metrics`).
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from masrouter.errors import EvaluationError
from masrouter.outcomes import Floats, Ints
from masrouter.types import Interval

_CHUNK = 64
_KEPT_COUNTS = 50_000_000
"""Up to this many counts (4 bytes each) are kept between questions; above, they are drawn anew."""
_RULE_OF_THREE = 3.0
_POISSON = np.repeat(
    np.arange(9, dtype=np.float32),
    [24109, 24110, 12054, 4019, 1004, 201, 34, 4, 1],
)
"""Quantiles of the Poisson distribution of mean 1, in steps of 2^-16: a look-up draws from it."""


class ClusterBootstrap:
    """Symmetric bootstrap-t over queries; every question sees the same resamples.

    For a ratio theta = sum A / sum D over queries, A and D a query's sums over its rounds, with the
    linearised standard error se = sqrt(sum (A - theta D)^2) / sum D: the interval is
    theta +- c * se, c the 95 % quantile of |theta* - theta| / se* over resamples of whole queries.
    A resample takes each query a Poisson(1) number of times, which for a ratio is as good as n
    draws with replacement, and much faster.
    Importance-weighted rewards are skewed and few, where percentiles, BCa and the equal-tailed
    bootstrap-t cover too seldom; this one stays near its level (tests/benchmarks/bench_off_policy).

    Source: Hall, "On symmetric bootstrap confidence intervals", JRSS B 50, 1988; resampling whole
    clusters: Davison and Hinkley, "Bootstrap methods and their application", 1997, section 3.8;
    Poisson weights: Chamandy et al., "Estimating uncertainty for massive data streams", 2012.

    Args:
        query: (n,) which query each round belongs to: any integers.
        resamples: How many.
        seed: Of the resamples.
    """

    def __init__(self, query: Ints, *, resamples: int = 2000, seed: int = 0) -> None:
        if resamples < 20:
            raise EvaluationError(f"bootstrap: expected at least 20 resamples, got {resamples}")
        queries, self.cluster = np.unique(np.asarray(query), return_inverse=True)  # (n,)
        self.clusters = len(queries)
        if self.clusters < 2:
            raise EvaluationError(
                f"bootstrap: expected rounds of at least 2 queries, got {self.clusters}; rounds of "
                "one query say nothing of others"
            )
        self.resamples = resamples
        self.seed = seed

    def by_query(self, values: Floats) -> Floats:
        """Sums over the rounds of each query: (n,) -> (C,)."""
        sums = np.bincount(self.cluster, weights=values, minlength=self.clusters)
        return sums.astype(np.float64)

    def standard_error(self, numerator: Floats, denominator: Floats) -> float:
        """Linearised standard error of sum(numerator) / sum(denominator), both (n,)."""
        error, total = self._influence(numerator, denominator)
        return float(np.sqrt((error**2).sum())) / total

    def interval(
        self,
        numerator: Floats,
        denominator: Floats,
        *,
        span: float = 0.0,
        effective: float = np.inf,
    ) -> Interval:
        """95 % interval of sum(numerator) / sum(denominator), both (n,).

        Where nothing varies (say, all matched rounds score 1) a resample says that nothing ever
        will; then the half-width is at least 3 * span / effective, the rule of three: an event not
        seen in m trials has a probability of up to 3 / m. `span` is how far rewards lie apart in
        all rounds, `effective` the number of rounds that count.
        Source: Hanley and Lippman-Hand, "If nothing goes wrong, is everything all right?", 1983.
        """
        error, total = self._influence(numerator, denominator)  # (C,)
        value = float(numerator.sum()) / total
        spread = float(np.sqrt((error**2).sum())) / total
        weight = self.by_query(denominator)
        scale = np.sqrt((error**2).mean()) or 1.0
        a, b = error / scale, weight / (total / self.clusters)
        columns = np.stack([a, b, a * a, a * b, b * b], axis=1).astype(np.float32)  # (C, 5)
        sums = np.concatenate([counts @ columns for counts in self._counts()]).astype(np.float64)
        e, d, ee, ed, dd = sums.T  # (B,) each
        with np.errstate(divide="ignore", invalid="ignore"):
            shift = e / d
            spreads = np.sqrt(np.maximum(ee - 2 * shift * ed + shift**2 * dd, 0.0)) / d
            t = np.abs(shift) / spreads
        # Without any weight, or without variation: as far off as can be.
        t = np.sort(np.where(np.isfinite(t), t, np.inf))
        quantile = float(t[int(np.ceil(0.95 * self.resamples)) - 1])
        half = quantile * spread
        # A spread of rounding errors is none.
        if not np.isfinite(half) or spread <= 1e-12 * max(abs(value), 1.0):
            finite = t[np.isfinite(t)]
            seen = float(finite[-1]) * spread if len(finite) else 0.0
            unseen = _RULE_OF_THREE * span / effective if effective > 0 else span
            half = max(seen, unseen)
        return Interval(value - half, value + half)

    def _influence(self, numerator: Floats, denominator: Floats) -> tuple[Floats, float]:
        total = float(denominator.sum())
        value = float(numerator.sum()) / total
        return self.by_query(numerator) - value * self.by_query(denominator), total

    def _counts(self) -> Iterator[NDArray[np.float32]]:
        """How often each query is drawn, by chunks of resamples: (chunk, C)."""
        if self.resamples * self.clusters <= _KEPT_COUNTS:
            yield self._kept
        else:
            yield from self._draw()

    @cached_property
    def _kept(self) -> NDArray[np.float32]:
        return np.concatenate(list(self._draw()))

    def _draw(self) -> Iterator[NDArray[np.float32]]:
        rng = np.random.default_rng(self.seed)
        for start in range(0, self.resamples, _CHUNK):
            chunk = min(_CHUNK, self.resamples - start)
            yield _POISSON[rng.integers(0, len(_POISSON), (chunk, self.clusters), dtype=np.uint16)]
