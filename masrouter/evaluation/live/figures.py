"""The figures of a live evaluation: arms, and the first arm less each other, problem by problem.

Axes: A arms, n problems, R repeats. Not here: how they look (`table`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from masrouter.evaluation.live.design import LiveDesign
from masrouter.evaluation.live.pass_at_k import check_k, pass_at_k
from masrouter.evaluation.live.runs import LiveRuns
from masrouter.evaluation.metrics import bootstrap_means, per_query, percentile_interval
from masrouter.outcomes import Bools, Floats, Ints
from masrouter.types import Interval

RESAMPLES = 2000
FEWEST_PROBLEMS = 10
"""Percentile intervals from fewer are far too narrow, so none is given."""


@dataclass(frozen=True, slots=True)
class Measured:
    """A mean over problems; None where nothing is known."""

    mean: float | None
    interval: Interval | None
    """95 %, of a bootstrap over problems; None where these are alike, or fewer than 10."""
    runs: int
    """How many runs are behind it; of a difference, problems: those with both arms' runs known."""


@dataclass(frozen=True, slots=True)
class ArmResult:
    """One arm on one part of the problems. Figures are None while runs are missing."""

    arm: str
    planned: int
    finished: int
    failed: int
    """Without an answer; they count as wrong."""
    pass_at: dict[int, Measured] | None
    """By k."""
    cost_usd: Measured | None
    """Of a run."""
    tokens: Measured | None
    latency_s: Measured | None
    latency_median_s: float | None

    @property
    def complete(self) -> bool:
        """True when every run is finished."""
        return self.finished == self.planned


@dataclass(frozen=True, slots=True)
class Difference:
    """The first arm less another one, problem by problem."""

    arm: str
    """The other one."""
    same_plan: int
    """Problems on which both mean the same plan, so that the same runs serve both."""
    pass_at: dict[int, Measured] | None
    cost_usd: Measured | None
    tokens: Measured | None
    latency_s: Measured | None


@dataclass(frozen=True, slots=True)
class Part:
    """All problems, or those of one data set."""

    dataset: str | None
    """None: all."""
    task: str | None
    problems: int
    arms: tuple[ArmResult, ...]
    differences: tuple[Difference, ...]


@dataclass(frozen=True, slots=True)
class ArmPlans:
    """Which plans an arm takes."""

    arm: str
    plans: dict[str, int]
    """Problems by plan, most first."""


@dataclass(frozen=True, slots=True)
class LiveEvaluation:
    """All figures."""

    arms: tuple[ArmPlans, ...]
    repeats: int
    ks: tuple[int, ...]
    resamples: int
    parts: tuple[Part, ...]
    """The first one is of all problems."""

    @property
    def complete(self) -> bool:
        """True when every run is finished."""
        return all(arm.complete for arm in self.parts[0].arms)


def compare(
    design: LiveDesign, runs: LiveRuns, *, ks: Sequence[int] = (1,), resamples: int = RESAMPLES
) -> LiveEvaluation:
    """Figures of every arm, and of the first arm less each other, for all problems and by data set.

    Problems are the units: a problem's repeats are averaged (for pass@k, estimated) first.
    Intervals are percentiles of a paired bootstrap over problems (Efron and Tibshirani 1993).

    Raises EvaluationError for a k beyond the repeats.
    """
    ks = tuple(sorted(set(ks)))
    for k in ks:
        check_k(design.repeats, k)
    kinds = list(dict.fromkeys((p.dataset, p.task) for p in design.problems))
    whole = np.ones(len(design.problems), dtype=np.bool_)
    parts = [_part(None, None, whole, design, runs, ks, resamples)]
    if len(kinds) > 1:
        for kind in kinds:
            mask = np.array([(p.dataset, p.task) == kind for p in design.problems])
            parts.append(_part(*kind, mask, design, runs, ks, resamples))
    plans = tuple(
        ArmPlans(arm.name, dict(Counter(map(str, arm.plans)).most_common())) for arm in design.arms
    )
    return LiveEvaluation(plans, design.repeats, ks, resamples, tuple(parts))


def _part(
    dataset: str | None,
    task: str | None,
    mask: Bools,
    design: LiveDesign,
    runs: LiveRuns,
    ks: tuple[int, ...],
    resamples: int,
) -> Part:
    count = int(mask.sum())
    planned = count * design.repeats
    columns = [_columns(runs, a, mask, ks) for a in range(len(design.arms))]  # (n, K + 3) each
    known = [_known(runs, a, mask, ks) for a in range(len(design.arms))]  # (n, K + 3) each
    arms, differences = [], []
    for a, arm in enumerate(design.arms):
        done, lost = runs.finished[a, mask], runs.failed[a, mask]
        finished, failed = int(done.sum()), int(lost.sum())
        if finished < planned:
            empty = ArmResult(arm.name, planned, finished, failed, None, None, None, None, None)
            arms.append(empty)
            continue
        behind = known[a].sum(axis=0).tolist()
        *passes, cost, tokens, latency = _measured(columns[a], behind, resamples)
        at = dict(zip(ks, passes, strict=True))
        clock = runs.latency_s[a, mask]
        clock = clock[np.isfinite(clock)]
        median = float(np.median(clock)) if clock.size else None
        arms.append(
            ArmResult(arm.name, planned, finished, failed, at, cost, tokens, latency, median)
        )
    for a, arm in enumerate(design.arms[1:], start=1):
        both = zip(design.arms[0].plans, arm.plans, mask, strict=True)
        same = sum(bool(inside) and mine == other for mine, other, inside in both)
        if not (arms[0].complete and arms[a].complete):
            differences.append(Difference(arm.name, same, None, None, None, None))
            continue
        # Of a problem with an unknown run nothing is compared: often it is unknown since it failed.
        pairs = (known[0] == design.repeats) & (known[a] == design.repeats)
        gap = np.where(pairs, columns[0] - columns[a], np.nan)
        *passes, cost, tokens, latency = _measured(gap, pairs.sum(axis=0).tolist(), resamples)
        at = dict(zip(ks, passes, strict=True))
        differences.append(Difference(arm.name, same, at, cost, tokens, latency))
    return Part(dataset, task, count, tuple(arms), tuple(differences))


def _columns(runs: LiveRuns, arm: int, mask: Bools, ks: tuple[int, ...]) -> Floats:
    """pass@k for each k, cost, tokens, latency by problem: (n, K + 3)."""
    score = runs.score[arm, mask]  # (n, R)
    correct = (score == 1.0).sum(axis=1)
    passes = [pass_at_k(score.shape[1], correct, k) for k in ks]
    others = [
        per_query(values[arm, mask].T) for values in (runs.cost_usd, runs.tokens, runs.latency_s)
    ]
    return np.stack([*passes, *others], axis=1)


def _known(runs: LiveRuns, arm: int, mask: Bools, ks: tuple[int, ...]) -> Ints:
    """How many runs are behind each of `_columns`: (n, K + 3)."""
    values = [runs.score] * len(ks) + [runs.cost_usd, runs.tokens, runs.latency_s]
    return np.stack([np.isfinite(each[arm, mask]).sum(axis=1) for each in values], axis=1)


def _measured(columns: Floats, known: Sequence[int], resamples: int) -> Iterator[Measured]:
    """The mean of each column (n, m) with its interval; every column meets the same draws."""
    means = bootstrap_means(columns, resamples=resamples)  # (resamples, m)
    for j, runs in enumerate(known):
        values = columns[:, j]
        values = values[np.isfinite(values)]
        if not values.size:
            yield Measured(None, None, runs)
            continue
        # Resampling values that are all alike gives them back: that is no interval.
        told = len(values) >= FEWEST_PROBLEMS and bool((values != values[0]).any())
        interval = percentile_interval(means[:, j]) if told else None
        yield Measured(float(values.mean()), interval, runs)
