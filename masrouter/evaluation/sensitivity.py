"""What observational logs say of a policy's score whatever hid behind the logged choices.

Where the policy takes the plan that was logged, its outcome was seen; elsewhere it was not, and the
logs identify no mean. Two ranges are honest:

- worst case: every unseen outcome may be 0 or 1 (Manski 1990, "Nonparametric bounds on treatment
  effects", American Economic Review 80);
- bounded confounding: within a group of queries (a domain, and the plan that the policy takes),
  hidden causes change the odds of having been given that plan by a factor of at most Gamma (the
  marginal sensitivity model: Tan 2006, JASA 101). The unseen outcomes are then those seen, tilted
  by weights between 1 / Gamma and Gamma of mean 1, so that the highest mean puts Gamma on the best
  1 / (1 + Gamma) of them (Dorn and Guo 2023, JASA 118, "Sharp sensitivity analysis for inverse
  propensity weighting via quantile balancing").

Not here: any point estimate. At Gamma = 1 the second would be one, and nothing supports it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from masrouter.errors import EvaluationError
from masrouter.outcomes import Bools, Floats, Ints
from masrouter.types import Interval

FEWEST_SEEN = 20
"""Seen outcomes below which a group's unseen ones stay between 0 and 1, whatever Gamma."""
DRAWS = 500


@dataclass(frozen=True)
class Range:
    """A range of means, and the same widened for chance in the queries."""

    value: Interval
    with_chance: Interval
    """From the 2.5 % percentile of the lower end to the 97.5 % of the upper one."""


def score_ranges(
    score: Floats,
    seen: Bools,
    group: Ints,
    query: Ints,
    gammas: tuple[float | None, ...],
    *,
    draws: int = DRAWS,
    seed: int = 0,
) -> tuple[Range, ...]:
    """The range of a policy's mean score over n runs for each Gamma; None is the worst case.

    Args:
        score: (n,) in [0, 1], of the logged plan. seen: (n,) bool, True where the policy takes the
            logged plan and the score is known. group: (n,) within which Gamma holds.
        query: (n,) whose runs they are; chance draws queries.
    """
    if not len(score):
        raise EvaluationError("sensitivity: there are no runs")
    for gamma in gammas:
        if gamma is not None and not gamma > 1:
            raise EvaluationError(f"sensitivity: gamma: expected a number above 1, got {gamma!r}")
    order = np.lexsort((np.where(seen, score, 2.0), group))
    groups = _groups(np.where(seen, score, 0.0)[order], seen[order], group[order])
    _, member = np.unique(query, return_inverse=True)
    size = int(member.max()) + 1
    ends = _ends(groups, np.ones(len(score)), gammas)  # (len(gammas), 2)
    rng = np.random.default_rng(seed)
    drawn = np.empty((draws, len(gammas), 2))
    for draw in range(draws):
        times = np.bincount(rng.integers(0, size, size), minlength=size)
        weight = times[member[order]].astype(np.float64)
        drawn[draw] = _ends(groups, weight, gammas)
    low = np.percentile(drawn[:, :, 0], 2.5, axis=0)
    high = np.percentile(drawn[:, :, 1], 97.5, axis=0)
    return tuple(
        Range(
            Interval(float(a), float(b)),
            Interval(float(min(a, low[i])), float(max(b, high[i]))),
        )
        for i, (a, b) in enumerate(ends)
    )


def covered_share(seen: Bools, group: Ints) -> float:
    """Share of runs in groups with enough seen outcomes for Gamma to matter; both (n,)."""
    count = np.bincount(group, weights=seen)
    return float((count[group] >= FEWEST_SEEN).mean())


@dataclass(frozen=True)
class _Group:
    """Runs of one group, in the order of all: first the seen ones by rising score."""

    first: int
    middle: int
    last: int
    score: Floats  # (middle - first,)
    enough: bool


def _groups(score: Floats, seen: Bools, group: Ints) -> list[_Group]:
    edges = np.flatnonzero(np.diff(group, prepend=group[0] - 1, append=group[-1] + 1))
    found = []
    for first, last in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        middle = first + int(seen[first:last].sum())
        enough = middle - first >= FEWEST_SEEN
        found.append(_Group(first, middle, last, score[first:middle], enough))
    return found


def _ends(groups: list[_Group], weight: Floats, gammas: tuple[float | None, ...]) -> Floats:
    """Lower and upper mean for each Gamma, (len(gammas), 2), with `weight` (n,) runs each."""
    ends = np.zeros((len(gammas), 2))
    for part in groups:
        of_seen = weight[part.first : part.middle]
        count = float(of_seen.sum())
        unseen = float(weight[part.middle : part.last].sum())
        ends += float(of_seen @ part.score)
        for i, gamma in enumerate(gammas):
            if gamma is None or not part.enough or count == 0:
                ends[i, 1] += unseen
            else:
                ends[i, 0] += unseen * (1 - _highest(1 - part.score[::-1], of_seen[::-1], gamma))
                ends[i, 1] += unseen * _highest(part.score, of_seen, gamma)
    means: Floats = ends / weight.sum()
    return means


def _highest(score: Floats, weight: Floats, gamma: float) -> float:
    """Highest mean of rising `score` (k,) under tilts in [1 / gamma, gamma] of mean 1."""
    total = float(weight.sum())
    top = total / (1 + gamma)  # how many of the best weigh gamma
    above = weight[::-1].cumsum()[::-1] - weight  # (k,) weight of what is better
    taken = np.clip(top - above, 0.0, weight)
    return float((weight @ score) / gamma + (gamma - 1 / gamma) * (taken @ score)) / total
