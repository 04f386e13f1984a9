"""How far the signals of missing information can be trusted: measured on labelled goals.

A signal's weight is the share of goals that lack something among those that show it, smoothed by
one of each (Laplace); a signal that no goal shows has none and counts for nothing. So the score of
a goal estimates how likely it lacks something, and it is asked about from the wanted likelihood on.
Weights are taken from all folds but one, and precision and recall are of the fold left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from masrouter.delegation.deliberation.calibration import FEWEST_QUERIES, Measured
from masrouter.delegation.deliberation.missing import MissingRule
from masrouter.delegation.deliberation.signals import KINDS, SignalKind, missing_signals
from masrouter.errors import EvaluationError
from masrouter.types import Interval


@dataclass(frozen=True, slots=True)
class LabelledGoal:
    """A task of which it is known whether something is missing."""

    goal: str
    lacks: bool
    context: str = ""
    group: str | None = None
    """Goals of one group (a question whole, and with a gap) are never parted by folds."""
    named: bool | None = None
    """Whether a model named something as missing; None where none was asked."""

    def kinds(self) -> frozenset[SignalKind]:
        """The signals that it shows."""
        found = {signal.kind for signal in missing_signals(self.goal, self.context)}
        return frozenset(found | ({"model"} if self.named else set()))


@dataclass(frozen=True, slots=True)
class SignalCount:
    """How often a signal shows."""

    kind: SignalKind
    lacking: int
    """Goals that show it and lack something."""
    whole: int
    """Goals that show it and lack nothing."""

    @property
    def found(self) -> bool:
        """Whether any goal shows it."""
        return self.lacking + self.whole > 0


@dataclass(frozen=True, slots=True)
class MissingCalibration:
    """The rule to use, and how good such a choice is on goals it was not made on."""

    rule: MissingRule
    signals: tuple[SignalCount, ...]
    lacking: int
    whole: int
    folds: int
    precision: Measured
    """Of the goals asked about, the share that lacks something."""
    recall: Measured
    """Of the goals that lack something, the share asked about."""

    def to_json(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "lacking": self.lacking,
            "whole": self.whole,
            "folds": self.folds,
            "precision": _told(self.precision),
            "recall": _told(self.recall),
            "signals": {one.kind: [one.lacking, one.whole] for one in self.signals if one.found},
        }


def calibrate_missing(
    goals: Sequence[LabelledGoal],
    *,
    precision: float = 0.75,
    folds: int = 5,
    seed: int = 0,
    resamples: int = 2000,
) -> MissingCalibration:
    """Weigh the signals, and ask where a goal lacks something with probability `precision`.

    Intervals are percentiles of a bootstrap over groups. Raises EvaluationError for too few goals,
    goals of one label only, or a precision outside (0, 1].
    """
    labels = np.array([goal.lacks for goal in goals], dtype=np.float64)  # (n,)
    if len(goals) < FEWEST_QUERIES or labels.all() or not labels.any():
        raise EvaluationError(
            f"calibration: expected {FEWEST_QUERIES} goals or more, some of which lack something "
            f"and some nothing; got {len(goals)}, {int(labels.sum())} of which lack something"
        )
    if not 0 < precision <= 1:
        raise EvaluationError(f"calibration: precision: expected (0, 1], got {precision!r}")
    names = [str(at) if goal.group is None else goal.group for at, goal in enumerate(goals)]
    _, group = np.unique(names, return_inverse=True)  # (n,)
    if not 2 <= folds <= group.max() + 1:
        raise EvaluationError(f"calibration: folds: expected 2 to {group.max() + 1}, got {folds}")
    kinds = [goal.kinds() for goal in goals]
    fold = np.random.default_rng(seed).permutation(np.arange(group.max() + 1) % folds)[group]
    asked = np.zeros(len(goals))
    for k in range(folds):
        train = [at for at in range(len(goals)) if fold[at] != k]
        rule = _chosen([kinds[at] for at in train], labels[train], precision)
        for at in np.flatnonzero(fold == k):
            asked[at] = float(rule.asks(kinds[at]))
    hits = asked * labels
    by_group = np.stack(
        [np.bincount(group, weights=column) for column in (hits, asked, labels)], axis=1
    )  # (groups, 3)
    rng = np.random.default_rng(seed + 1)
    groups = len(by_group)
    counts = rng.multinomial(groups, np.full(groups, 1 / groups), size=resamples)
    drawn = counts.astype(np.float64) @ by_group  # (resamples, 3)
    return MissingCalibration(
        rule=_chosen(kinds, labels, precision),
        signals=tuple(_counts(kinds, labels).values()),
        lacking=int(labels.sum()),
        whole=len(goals) - int(labels.sum()),
        folds=folds,
        precision=_ratio(float(hits.sum()), float(asked.sum()), drawn[:, 0], drawn[:, 1]),
        recall=_ratio(float(hits.sum()), float(labels.sum()), drawn[:, 0], drawn[:, 2]),
    )


def _counts(
    kinds: Sequence[frozenset[SignalKind]], labels: np.ndarray
) -> Mapping[SignalKind, SignalCount]:
    found = {}
    for kind in KINDS:
        shown = [bool(label) for has, label in zip(kinds, labels, strict=True) if kind in has]
        found[kind] = SignalCount(kind, sum(shown), len(shown) - sum(shown))
    return found


def _chosen(
    kinds: Sequence[frozenset[SignalKind]], labels: np.ndarray, precision: float
) -> MissingRule:
    weights: dict[SignalKind, float] = {
        kind: (one.lacking + 1) / (one.lacking + one.whole + 2)
        for kind, one in _counts(kinds, labels).items()
        if one.found
    }
    return MissingRule(weights, precision)


def _ratio(top: float, bottom: float, tops: np.ndarray, bottoms: np.ndarray) -> Measured:
    """NaN where nothing is to be divided by."""
    if not bottom:
        return Measured(float("nan"), Interval(float("nan"), float("nan")))
    drawn = tops[bottoms > 0] / bottoms[bottoms > 0]
    low, high = np.percentile(drawn, [2.5, 97.5])
    return Measured(top / bottom, Interval(float(low), float(high)))


def _told(measured: Measured) -> dict[str, float | None]:
    values = (measured.mean, measured.interval.low, measured.interval.high)
    mean, low, high = (None if np.isnan(value) else value for value in values)
    return {"mean": mean, "low": low, "high": high}
