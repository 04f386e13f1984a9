"""When to match a request with a worker: threshold and weight chosen on outcomes, judged on others.

A worker may be better than a model or worse, and cheaper or dearer; which of the two a request is
for shows in what both gave. Folds of requests: on all but one the rule is chosen, on that one it is
judged. The message-length heuristic (short requests are a worker's) is chosen in the same way on
the same folds; always and never have nothing to choose.

A worker that fails is followed by `otherwise`, as in a policy of matching that falls back: such a
request ends as `otherwise` ends it, and costs what both cost. Without falling back it is lost.

The figures hold for these workers, this encoder, `otherwise` and requests of the log's kind.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from masrouter.delegation.calibration.choosing import Goal
from masrouter.delegation.calibration.compared import Compared, folds_of
from masrouter.delegation.calibration.matching_outcomes import MatchedRequest, matched_requests
from masrouter.delegation.calibration.measuring import (
    FEWEST_QUERIES,
    RESAMPLES,
    Floats,
    Ints,
    Measured,
    mean_of,
    resampled,
    told_json,
)
from masrouter.delegation.workers.matching import MEASURED, MatchingRule
from masrouter.encoder import Encoder
from masrouter.errors import EvaluationError
from masrouter.types import LogRecord

if TYPE_CHECKING:
    from masrouter.delegation.workers.worker import Worker

Flags = npt.NDArray[np.bool_]

MATCH, NEAREST, NEVER, LENGTH = "match", "nearest", "never", "length"
SHIPPED, BEST = "shipped", "best"
WEIGHTS = (0.0, 0.25, 0.5, 0.75, 1.0)
MOST_BORDERS = 200
"""Thresholds, and lengths, that are tried."""
_NONE = 2.0
"""A threshold that no match reaches."""


@dataclass(frozen=True, slots=True)
class MatchingRow(Compared):
    """With how often a worker was given the request."""

    matched: float
    """Share of requests that a worker was given."""


@dataclass(frozen=True, slots=True)
class MatchingAgainst:
    """Matching less another way, request by request."""

    name: str
    score: Measured
    cost_usd: Measured
    """Negative where matching is cheaper."""


@dataclass(frozen=True, slots=True)
class MatchingCalibration:
    """The rule to use, and what its kind of choice was worth on requests not chosen on."""

    rule: MatchingRule
    """Chosen on all requests."""
    length: int
    """The length rule on all requests: a worker is given those of at most so many characters."""
    otherwise: str
    fall_back: bool
    """Whether `otherwise` was asked after a worker that failed, in every row."""
    tolerance: float | None
    """None where a cost weight was given."""
    cost_weight: float | None
    requests: int
    failed: tuple[int, int]
    """Runs that failed: of workers, of `otherwise`. Each counts as a wrong answer, but for those of
    workers where `otherwise` is asked next."""
    folds: int
    seed: int
    rows: tuple[MatchingRow, ...]
    """match, nearest (always the nearest worker), never (always `otherwise`) and length. Then
    shipped, the default rule, where it is for this encoder; and best, who knows both outcomes
    beforehand and takes the better, or the cheaper of equals: no rule can do more."""
    against: tuple[MatchingAgainst, ...]
    """The same without match itself."""
    chosen: tuple[MatchingRule, ...]
    """By fold: where these differ much, the log is too small to tell rules apart."""

    @property
    def asks_nobody(self) -> bool:
        """Whether no worker is worth asking: every request is for `otherwise`."""
        return self.rule.threshold >= _NONE

    def to_json(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "otherwise": self.otherwise,
            "fall_back": self.fall_back,
            "requests": self.requests,
            "failed": {"workers": self.failed[0], "otherwise": self.failed[1]},
            "folds": self.folds,
            "seed": self.seed,
            "tolerance": self.tolerance,
            "cost_weight": self.cost_weight,
            "length": self.length,
            "rows": [row.to_json() for row in self.rows],
            "against": [
                {
                    "name": row.name,
                    "score": told_json(row.score),
                    "cost_usd": told_json(row.cost_usd),
                }
                for row in self.against
            ],
            "chosen": [[rule.threshold, rule.chat_weight] for rule in self.chosen],
        }


def calibrate_matching(
    records: Iterable[LogRecord],
    workers: Sequence[Worker],
    encoder: Encoder,
    *,
    otherwise: str,
    tolerance: float = 0.01,
    cost_weight: float | None = None,
    fall_back: bool = True,
    folds: int = 5,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> MatchingCalibration:
    """Choose a rule on logged outcomes, and measure what choosing it so is worth.

    fall_back: whether `otherwise` is asked after a worker that failed, as the policy does that the
    rule is for.
    tolerance: the cheapest rule is taken whose mean score is at most so much below the best rule's.
    cost_weight: in its place, the rule with the highest mean of score - cost_weight * cost.
    Intervals are percentiles of a paired bootstrap over requests.

    Raises EvaluationError as `matched_requests`, for fewer than 20 requests or 2 folds, and for a
    tolerance or cost weight below 0.
    """
    goal = Goal(tolerance, cost_weight)
    found = matched_requests(records, workers, encoder, otherwise=otherwise)
    n = len(found)
    if n < FEWEST_QUERIES:
        raise EvaluationError(
            f"matching: {n} requests are too few to choose on; log {FEWEST_QUERIES}"
        )
    if not 2 <= folds <= n:
        raise EvaluationError(f"matching: folds: expected 2 to {n}, got {folds}")
    outcomes = _Outcomes.of(found, fall_back)
    space = encoder.identity.partition("+windows")[0]
    rules = _rules(found, space)
    by_rule = np.stack([_matched(found, rule) for rule in rules])  # (rules, n)
    lengths = _lengths(found)
    characters = np.array([len(one.request) for one in found])
    by_length = np.stack([characters <= length for length in lengths])  # (lengths, n)

    fold = folds_of(np.arange(n), folds, seed)
    match, length = np.zeros(n, dtype=np.bool_), np.zeros(n, dtype=np.bool_)
    chosen: list[MatchingRule] = []
    for k in range(folds):
        train, test = np.flatnonzero(fold != k), np.flatnonzero(fold == k)
        at = outcomes.best(by_rule, train, goal)
        chosen.append(rules[at])
        match[test] = by_rule[at, test]
        length[test] = by_length[outcomes.best(by_length, train, goal), test]
    ways = {
        MATCH: match,
        NEAREST: np.ones(n, dtype=np.bool_),
        NEVER: np.zeros(n, dtype=np.bool_),
        LENGTH: length,
    }
    if MEASURED.is_for(encoder):
        ways[SHIPPED] = _matched(found, MEASURED)
    ways[BEST] = outcomes.better()
    everything = np.arange(n)
    counts = resampled(n, resamples, seed)
    given = {name: outcomes.under(way) for name, way in ways.items()}
    score, cost = given[MATCH]
    return MatchingCalibration(
        rule=rules[outcomes.best(by_rule, everything, goal)],
        length=lengths[outcomes.best(by_length, everything, goal)],
        otherwise=otherwise,
        fall_back=fall_back,
        tolerance=None if cost_weight is not None else tolerance,
        cost_weight=cost_weight,
        requests=n,
        failed=(sum(one.worker.failed for one in found), sum(o.otherwise.failed for o in found)),
        folds=folds,
        seed=seed,
        rows=tuple(
            MatchingRow(
                name, mean_of(s, counts), mean_of(c, counts), float(ways[name].mean())
            )
            for name, (s, c) in given.items()
        ),
        against=tuple(
            MatchingAgainst(name, mean_of(score - s, counts), mean_of(cost - c, counts))
            for name, (s, c) in given.items()
            if name != MATCH
        ),
        chosen=tuple(chosen),
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Outcomes:
    """Scores and costs of n requests, by their nearest worker and without it; each (n,)."""

    score: Floats
    cost: Floats
    other_score: Floats
    other_cost: Floats

    @classmethod
    def of(cls, found: Sequence[MatchedRequest], fall_back: bool) -> _Outcomes:
        tried = [one.tried(fall_back=fall_back) for one in found]
        return cls(
            np.array([one.score for one in tried]),
            np.array([one.cost_usd for one in tried]),
            np.array([one.otherwise.score for one in found]),
            np.array([one.otherwise.cost_usd for one in found]),
        )

    def under(self, matched: Flags) -> tuple[Floats, Floats]:
        """Score and cost of each request, where `matched`, (n,), go to their worker."""
        return (
            np.where(matched, self.score, self.other_score),
            np.where(matched, self.cost, self.other_cost),
        )

    def better(self) -> Flags:
        """Where the worker scores more, or as much and costs no more."""
        gain = self.score - self.other_score
        better: Flags = (gain > 0) | ((gain == 0) & (self.cost <= self.other_cost))
        return better

    def best(self, ways: Flags, rows: Ints, goal: Goal) -> int:
        """Which of `ways`, (ways, n), is best on some requests; the first of equals."""
        there = ways[:, rows]
        score, cost = (
            np.where(there, mine[rows], other[rows]).mean(axis=1)
            for mine, other in ((self.score, self.other_score), (self.cost, self.other_cost))
        )  # (ways,)
        return goal.best(score, cost, float(score.max()))


def _rules(found: Sequence[MatchedRequest], space: str) -> list[MatchingRule]:
    """Every weight with the thresholds that lie between two requests, and that all or none reach.

    The most cautious first, since the first of equals is taken. What all reach is the lowest score
    there is: of requests further away the log says nothing.
    """
    rules = []
    for weight in WEIGHTS:
        scores = np.unique([one.cosine - weight * one.chat for one in found])
        between = (scores[1:] + scores[:-1]) / 2
        if len(between) > MOST_BORDERS:
            between = np.quantile(between, np.linspace(0, 1, MOST_BORDERS))
        rules += [
            MatchingRule(float(at), weight, space) for at in (_NONE, *between[::-1], scores[0])
        ]
    return rules


def _matched(found: Sequence[MatchedRequest], rule: MatchingRule) -> Flags:
    fits = [one.cosine - rule.chat_weight * one.chat >= rule.threshold for one in found]
    return np.array(fits, dtype=np.bool_)


def _lengths(found: Sequence[MatchedRequest]) -> list[int]:
    """Lengths worth trying: below all, and every one that occurs."""
    lengths = np.unique([len(one.request) for one in found])
    if len(lengths) > MOST_BORDERS:
        at = np.linspace(0, len(lengths) - 1, MOST_BORDERS).round().astype(int)
        lengths = lengths[at]
    return [0, *map(int, lengths)]
