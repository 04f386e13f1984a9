"""Measures of routing, as pure functions of arrays.

Axes: n queries, S seeds, m operating points (one a cost weight) of a learner. Costs are US dollars
a query, scores are in [0, 1].
Not here: which learner chose what (`crossval`), the table of it all (`summary`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from masrouter.errors import EvaluationError
from masrouter.outcomes import Bools, Floats, Ints
from masrouter.types import Interval


def utility(score: Floats, cost: Floats, cost_weight: float) -> Floats:
    """score - cost_weight * cost, of any shape; at cost weight 0 an unknown cost is no matter."""
    return score if cost_weight == 0 else score - cost_weight * cost


# Curves of score over cost


@dataclass(frozen=True)
class Curve:
    """A non-decreasing concave curve of score over cost: corners by rising cost."""

    cost: Floats  # (k,) strictly rising
    score: Floats  # (k,) strictly rising

    def score_at(self, cost: float) -> float:
        """Score on the curve, linear between corners, flat after the last; NaN before the first.

        Between corners it is what a coin between the two operating points reaches.
        """
        if cost < self.cost[0]:
            return float("nan")
        return float(np.interp(cost, self.cost, self.score))

    def cost_of(self, score: float) -> float | None:
        """The least cost at which the curve reaches a score; None where it never does."""
        if score > self.score[-1]:
            return None
        return float(np.interp(score, self.score, self.cost))


def hull(cost: Floats, score: Floats) -> Curve:
    """Non-decreasing convex hull of operating points (m,): the upper left of their convex hull.

    Source: RouterBench, Hu et al. 2024, arXiv 2403.12031, section 3.
    """
    if len(cost) == 0 or len(cost) != len(score):
        raise EvaluationError(
            f"hull: expected as many costs as scores, got {len(cost)}, {len(score)}"
        )
    if not (np.isfinite(cost).all() and np.isfinite(score).all()):
        raise EvaluationError("hull: costs and scores must be finite")
    order = np.lexsort((-score, cost))
    corners: list[tuple[float, float]] = []
    for x, y in zip(cost[order].tolist(), score[order].tolist(), strict=True):
        if corners and y <= corners[-1][1]:
            continue  # dearer and no better, or of the same cost and no better
        # Drop corners that a line from the one before to the new point passes above.
        while len(corners) >= 2 and _below(corners[-2], corners[-1], (x, y)):
            corners.pop()
        corners.append((x, y))
    return Curve(np.array([x for x, _ in corners]), np.array([y for _, y in corners]))


def _below(a: tuple[float, float], b: tuple[float, float], c: tuple[float, float]) -> bool:
    return (b[1] - a[1]) * (c[0] - a[0]) <= (c[1] - a[1]) * (b[0] - a[0])


def aiq(cost: Floats, score: Floats, low: float, high: float) -> float | None:
    """Average improvement in quality: mean height of the hull over costs from `low` to `high`.

    AIQ = 1 / (high - low) * integral from low to high of hull(c) dc. A null router (cost 0,
    score 0) is added to the points (m,), so that a learner is defined, and punished, below its
    cheapest one; after its dearest one the hull is flat. None where high <= low.
    Lies between 0 and the best score. Source: RouterBench, arXiv 2403.12031, section 3.
    """
    if not high > low:
        return None
    curve = hull(np.append(cost, 0.0), np.append(score, 0.0))
    return _area(curve, low, high) / (high - low)


def _area(curve: Curve, low: float, high: float) -> float:
    inside = curve.cost[(curve.cost > low) & (curve.cost < high)]
    x = np.concatenate([[low], inside, [high]])
    y = np.interp(x, curve.cost, curve.score)
    return float(np.sum(np.diff(x) * (y[1:] + y[:-1]) / 2.0))


@dataclass(frozen=True)
class Anchors:
    """The two plans between which gaps are measured, by their mean cost and score."""

    weak_cost: float
    weak_score: float
    strong_cost: float
    strong_score: float

    @property
    def ordered(self) -> bool:
        """Whether there is a gap at all: the strong plan both dearer and better."""
        return self.strong_cost > self.weak_cost and self.strong_score > self.weak_score


def pgr(score: float, anchors: Anchors) -> float | None:
    """Performance gap recovered: (score - weak) / (strong - weak); None without a gap.

    Source: RouteLLM, Ong et al. 2024, arXiv 2406.18665, section 2. Weak and strong are generalised
    from two models to the cheapest plan and the best fixed plan by score. May exceed 1.
    """
    if not anchors.strong_score > anchors.weak_score:
        return None
    return (score - anchors.weak_score) / (anchors.strong_score - anchors.weak_score)


def _gap_curve(cost: Floats, score: Floats, anchors: Anchors) -> Curve:
    """The hull of the operating points and the weak plan, which can always be taken instead."""
    return hull(np.append(cost, anchors.weak_cost), np.append(score, anchors.weak_score))


def apgr(cost: Floats, score: Floats, anchors: Anchors) -> float | None:
    """Average performance gap recovered: the mean of PGR over cost shares from 0 to 1.

    RouteLLM's axis is the share of calls that go to the strong model. With more than two plans it
    becomes the cost share (cost - weak cost) / (strong cost - weak cost), which is the same thing
    for two models of constant cost. The curve is the hull of the operating points (m,) and the weak
    plan; a coin between the weak and the strong plan has 0.5. None where the strong plan is not
    both dearer and better. Source: arXiv 2406.18665, section 2.
    """
    if not anchors.ordered:
        return None
    curve = _gap_curve(cost, score, anchors)
    span = anchors.strong_cost - anchors.weak_cost
    mean = _area(curve, anchors.weak_cost, anchors.strong_cost) / span
    return pgr(mean, anchors)


def cpt(cost: Floats, score: Floats, anchors: Anchors, share: float) -> float | None:
    """Call-performance threshold: the least cost share at which PGR reaches `share`.

    On the curve and the axis of `apgr`; a coin between the weak and the strong plan has `share`.
    None where it is never reached or there is no gap. Source: arXiv 2406.18665, section 2.
    """
    if not anchors.ordered:
        return None
    wanted = anchors.weak_score + share * (anchors.strong_score - anchors.weak_score)
    reached = _gap_curve(cost, score, anchors).cost_of(wanted)
    if reached is None:
        return None
    return (reached - anchors.weak_cost) / (anchors.strong_cost - anchors.weak_cost)


def cost_saved(cost: Floats, score: Floats, anchors: Anchors) -> float | None:
    """Share of the strong plan's cost saved at its score: 1 - hull^-1(strong score) / strong cost.

    On the hull of the operating points (m,), interpolated. Negative where the score costs more;
    None where the points never reach it.
    """
    reached = hull(cost, score).cost_of(anchors.strong_score)
    if reached is None or not anchors.strong_cost > 0:
        return None
    return 1.0 - reached / anchors.strong_cost


def accuracy_gained(cost: Floats, score: Floats, anchors: Anchors) -> float | None:
    """Score above the strong plan's at its cost: hull(strong cost) - strong score.

    None where every operating point (m,) costs more than the strong plan.
    """
    at = hull(cost, score).score_at(anchors.strong_cost)
    return None if np.isnan(at) else at - anchors.strong_score


def oracle_gap_share(value: float, fixed: float, oracle: float) -> float | None:
    """Share of the utility between the best fixed plan and the oracle that is recovered.

    (value - fixed) / (oracle - fixed); None where the oracle is no better than the fixed plan.
    """
    return (value - fixed) / (oracle - fixed) if oracle > fixed else None


# Calibration


def brier(expected: Floats, outcome: Floats) -> float:
    """Mean squared difference of expected and realised scores, both (n,). Source: Brier, 1950."""
    _same_length("brier", expected, outcome)
    return float(np.mean((expected - outcome) ** 2))


def calibration_error(expected: Floats, outcome: Floats, bins: int = 10) -> float:
    """Expected calibration error with bins of equal mass.

    Sum over bins of (bin's share of queries) * |mean expected - mean realised|, both (n,). The
    queries are sorted by expected score and cut into `bins` groups of equal size; equal expected
    scores share a bin, so that the order of queries does not matter.
    Source: Naeini et al., AAAI 2015; equal mass after Nixon et al. 2019, arXiv 1904.01685.
    """
    _same_length("calibration_error", expected, outcome)
    assigned = equal_mass_bins(expected, bins)
    gap = np.bincount(assigned, weights=expected - outcome, minlength=bins)
    return float(np.abs(gap).sum() / len(expected))


def equal_mass_bins(expected: Floats, bins: int = 10) -> Ints:
    """The bin, 0 to `bins` - 1, of each expected score (n,); bins hold about as many each.

    Equal expected scores share a bin, so bins may be empty.
    """
    if bins < 1:
        raise EvaluationError(f"calibration_error: expected at least one bin, got {bins}")
    _, member = np.unique(expected, return_inverse=True)
    count = np.bincount(member)
    middle = np.cumsum(count) - count / 2.0
    bin_of_value = np.minimum((middle * bins / len(expected)).astype(np.int64), bins - 1)
    assigned: Ints = bin_of_value[member]
    return assigned


def _same_length(name: str, a: Floats, b: Floats) -> None:
    if a.ndim != 1 or a.shape != b.shape or len(a) == 0:
        raise EvaluationError(f"{name}: expected two (n,) arrays, n > 0, got {a.shape}, {b.shape}")
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise EvaluationError(f"{name}: values must be finite")


# Teams where one agent would have done


def harmful_collaboration(chosen: np.ndarray, score: Floats, cost: Floats, single: Bools) -> Floats:
    """Whether a team was chosen although one agent did as well for no more, (n,): 1, 0 or NaN.

    `chosen` (n,) are plan indices, negative for no choice; `score`, `cost` (n, P), NaN = unknown;
    `single` (P,) marks the plans with one agent. 1 where the chosen plan has several agents, and
    some single-agent plan had on this query a score at least as high at a cost at most as high.
    NaN where it cannot be told: no choice, or a team whose own score or cost is unknown.
    """
    chosen = np.asarray(chosen)
    at = np.arange(len(chosen))
    plan = np.maximum(chosen, 0)
    own_score, own_cost = score[at, plan], cost[at, plan]
    # Comparisons with NaN are False: a single-agent plan of unknown outcome does not count.
    as_good = (score >= own_score[:, None]) & (cost <= own_cost[:, None]) & single
    harmful = as_good.any(axis=1).astype(np.float64)
    team = ~single[plan]
    untold = (chosen < 0) | (team & (np.isnan(own_score) | np.isnan(own_cost)))
    return np.where(untold, np.nan, np.where(team, harmful, 0.0))


# Intervals


def per_query(values: Floats) -> Floats:
    """Mean over seeds of values (S, n), (n,), so that queries are what is resampled.

    NaN where no seed has a value.
    """
    known = np.isfinite(values)
    count = known.sum(axis=0)
    total = np.where(known, values, 0.0).sum(axis=0)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def bootstrap_means(values: Floats, *, resamples: int = 2000, seed: int = 0) -> Floats:
    """Means of columns over queries drawn with replacement: values (n, m) -> (resamples, m).

    Every column sees the same draws, so that differences of columns are paired. NaN entries are
    left out of a column's mean. Source: Efron and Tibshirani, 1993, chapter 6.
    """
    if values.ndim != 2 or len(values) == 0:
        raise EvaluationError(f"bootstrap: expected an (n, m) array, n > 0, got {values.shape}")
    known = np.isfinite(values)
    return bootstrap_ratios(
        np.where(known, values, 0.0),
        known.astype(np.float64),
        resamples=resamples,
        seed=seed,
    )


def bootstrap_ratios(
    numerator: Floats, denominator: Floats, *, resamples: int = 2000, seed: int = 0
) -> Floats:
    """Ratios of column sums over queries drawn with replacement: (n, m) each -> (resamples, m).

    For means over what a query holds several of: the query is drawn, with all that is its own. NaN
    where a draw's denominator is 0. Draws are those of `bootstrap_means` for the same n and seed.
    """
    if resamples < 1:
        raise EvaluationError(f"bootstrap: expected at least one resample, got {resamples}")
    n, m = numerator.shape
    rng = np.random.default_rng(seed)
    stacked = np.concatenate([numerator, denominator], axis=1)  # (n, 2m)
    ratios = np.empty((resamples, m))
    for start in range(0, resamples, 128):  # a chunk at a time keeps (chunk, n) small
        chunk = min(128, resamples - start)
        drawn = rng.integers(0, n, (chunk, n)) + np.arange(chunk)[:, None] * n
        counts = np.bincount(drawn.ravel(), minlength=chunk * n).reshape(chunk, n)
        sums = counts.astype(np.float64) @ stacked  # (chunk, 2m)
        with np.errstate(invalid="ignore"):  # 0 / 0 where a draw holds no known value: NaN
            ratios[start : start + chunk] = sums[:, :m] / sums[:, m:]
    return ratios


def percentile_interval(means: Floats) -> Interval | None:
    """The 2.5 % and 97.5 % percentiles of bootstrap means (resamples,), NaN left out.

    None where there are none.
    """
    finite = means[np.isfinite(means)]
    if len(finite) == 0:
        return None
    low, high = np.percentile(finite, [2.5, 97.5])
    return Interval(float(low), float(high))


def paired_bootstrap(difference: Floats, *, resamples: int = 2000, seed: int = 0) -> Interval:
    """95 % percentile interval of the mean of paired differences, (n,) or by seed (S, n).

    With several seeds a query's values are averaged first: queries are the units, not runs.
    Raises EvaluationError where no difference is known.
    """
    if difference.ndim == 2:
        difference = per_query(difference)
    interval = percentile_interval(
        bootstrap_means(difference[:, None], resamples=resamples, seed=seed)[:, 0]
    )
    if interval is None:
        raise EvaluationError("bootstrap: no difference is known")
    return interval
