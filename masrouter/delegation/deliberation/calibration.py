"""When delegating pays: a rule for agreement, chosen on logged samples and judged on others.

Folds of queries: on all but one the rule is chosen, on that one it is judged, so that every figure
is of queries that the choice has not seen. The message-length rule, the usual heuristic, is chosen
in the same way on the same folds. Always asking the strong worker and never asking it have nothing
to choose.

The figures hold for the models, the prompts and the queries of the log, and for no others.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from masrouter.answers import answer_key
from masrouter.delegation.deliberation.agreement import Rule
from masrouter.delegation.deliberation.sampled import SampledQuery
from masrouter.errors import EvaluationError
from masrouter.types import Interval

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

DELIBERATE, VOTE = "deliberate", "vote"
ALWAYS, NEVER, LENGTH, COIN = "always", "never", "length", "coin"
RESAMPLES = 2000
FEWEST_QUERIES = 20


@dataclass(frozen=True, slots=True)
class Goal:
    """What a rule is chosen for; one of the two."""

    tolerance: float | None = 0.01
    """Cheapest whose mean score is at most so much below always asking the strong worker; where
    none is, the best."""
    cost_weight: float | None = None
    """Highest mean of score - cost_weight * cost; where it is given, it counts."""

    def __post_init__(self) -> None:
        given = self.tolerance if self.cost_weight is None else self.cost_weight
        if given is None or not math.isfinite(given) or given < 0:
            raise EvaluationError(
                f"calibration: expected a tolerance or a cost weight >= 0, got {given!r}"
            )


@dataclass(frozen=True, slots=True)
class Outcomes:
    """What a rule gives on each of n queries."""

    score: Floats  # (n,)
    cost: Floats  # (n,) US dollars
    delegated: Floats  # (n,) 1 where the strong worker was asked, else 0


@dataclass(frozen=True, slots=True)
class Measured:
    """A mean over queries with its 95 % bootstrap interval."""

    mean: float
    interval: Interval


@dataclass(frozen=True, slots=True)
class Row:
    """One rule on all queries, each judged by the choice made without it."""

    name: str
    score: Measured
    cost_usd: Measured
    delegated: float
    """Share of queries that the strong worker was asked."""


@dataclass(frozen=True, slots=True)
class Against:
    """Deliberating less another rule, query by query."""

    name: str
    score: Measured
    """Difference of scores."""
    cost_saved: Measured
    """1 - cost / the other's cost; negative where deliberating costs more."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """The rule to use, and what its kind of choice was worth on queries not chosen on."""

    rule: Rule
    """Chosen on all queries."""
    length: int | None
    """The length rule on all queries: characters from which it asks the strong worker; None never
    asks."""
    goal: Goal
    queries: int
    folds: int
    seed: int
    rows: tuple[Row, ...]
    """deliberate, always, never and length. Then, to see what does it: the vote, which takes the
    samples' most frequent answer and never delegates; and the coin, always or never at random at
    deliberate's cost (or one of the two, where that lies outside)."""
    against: tuple[Against, ...]
    """The same without deliberate itself."""
    chosen: tuple[Rule, ...]
    """By fold: where these differ, the log is too small to tell the rules apart."""

    def to_json(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "queries": self.queries,
            "folds": self.folds,
            "seed": self.seed,
            "tolerance": None if self.goal.cost_weight is not None else self.goal.tolerance,
            "cost_weight": self.goal.cost_weight,
            "length": self.length,
            "rows": [
                {
                    "name": row.name,
                    "score": _told(row.score),
                    "cost_usd": _told(row.cost_usd),
                    "delegated": row.delegated,
                }
                for row in self.rows
            ],
            "against": [
                {"name": row.name, "score": _told(row.score), "saved": _told(row.cost_saved)}
                for row in self.against
            ],
            "chosen": [[rule.samples, rule.needed] for rule in self.chosen],
        }


def calibrate(
    queries: Sequence[SampledQuery],
    *,
    goal: Goal | None = None,
    stop_early: bool = True,
    rules: Sequence[Rule] | None = None,
    folds: int = 5,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Calibration:
    """Choose a rule on logged samples, and measure what choosing it so is worth.

    rules: those to choose from; None takes every number of samples that all queries have, with
    every number of them that must agree. stop_early: whether these ask one after the other.
    Intervals are percentiles of a paired bootstrap over queries (Efron and Tibshirani 1993); they
    know nothing of other models or of how the samples would fall another time.

    Raises EvaluationError for fewer than 20 queries, for an unknown cost, for rules that want more
    samples than are logged, and for fewer than 2 folds.
    """
    goal = Goal() if goal is None else goal
    most = min((len(query.samples) for query in queries), default=0)
    _check(queries, folds)
    if rules is None:
        rules = [
            Rule(samples, needed / samples, stop_early)
            for samples in range(2, most + 1)
            for needed in range(2, samples + 1)
        ]
    for rule in rules:
        if rule.samples > most:
            raise EvaluationError(
                f"calibration: a rule wants {rule.samples} samples, and a query has {most}"
            )
    keys = [tuple(_key(sample.text) for sample in query.samples) for query in queries]
    deliberate = [replay(queries, rule, keys=keys) for rule in rules]
    votes = [replay(queries, rule, keys=keys, delegate=False) for rule in rules]
    lengths = _lengths(queries)
    by_length = [_by_length(queries, length) for length in lengths]
    always, never = _by_length(queries, 0), _by_length(queries, None)

    rng = np.random.default_rng(seed)
    fold = rng.permutation(np.arange(len(queries)) % folds)  # (n,)
    held_out = {name: _blank(len(queries)) for name in (DELIBERATE, LENGTH, VOTE)}
    chosen: list[Rule] = []
    for k in range(folds):
        train, test = np.flatnonzero(fold != k), np.flatnonzero(fold == k)
        at = _best(deliberate, always, train, goal)
        chosen.append(rules[at])
        _fill(held_out[DELIBERATE], deliberate[at], test)
        _fill(held_out[VOTE], votes[at], test)
        _fill(held_out[LENGTH], by_length[_best(by_length, always, train, goal)], test)
    found = {
        DELIBERATE: held_out[DELIBERATE],
        ALWAYS: always,
        NEVER: never,
        LENGTH: held_out[LENGTH],
        VOTE: held_out[VOTE],
        COIN: _coin(held_out[DELIBERATE], always, never),
    }
    everything = np.arange(len(queries))
    counts = _resampled(len(queries), resamples, seed)
    mine = found[DELIBERATE]
    return Calibration(
        rule=rules[_best(deliberate, always, everything, goal)],
        length=lengths[_best(by_length, always, everything, goal)],
        goal=goal,
        queries=len(queries),
        folds=folds,
        seed=seed,
        rows=tuple(
            Row(
                name,
                _mean(one.score, counts),
                _mean(one.cost, counts),
                float(one.delegated.mean()),
            )
            for name, one in found.items()
        ),
        against=tuple(
            Against(
                name, _mean(mine.score - one.score, counts), _saved(mine.cost, one.cost, counts)
            )
            for name, one in found.items()
            if name != DELIBERATE
        ),
        chosen=tuple(chosen),
    )


def replay(
    queries: Sequence[SampledQuery],
    rule: Rule,
    *,
    keys: Sequence[tuple[str | None, ...]] | None = None,
    delegate: bool = True,
) -> Outcomes:
    """What `deliberate` would have given on each query with the logged samples, in their order.

    keys: of the samples' answers, where they are known already; None of a blank one.
    delegate: False takes the most frequent answer whatever its votes; without any the score is 0.
    """
    found = _blank(len(queries))
    for at, query in enumerate(queries):
        said = tuple(_key(sample.text) for sample in query.samples) if keys is None else keys[at]
        tried = rule.needed if rule.stop_early else rule.samples
        while True:
            votes = Counter(key for key in said[:tried] if key is not None)
            # On equal votes the first answer wins, as a Counter keeps its order.
            winner, count = votes.most_common(1)[0] if votes else (None, 0)
            wanting = rule.wanting(count, tried)
            if not wanting:
                break
            tried += wanting
        found.cost[at] = math.fsum(_known(sample.cost_usd) for sample in query.samples[:tried])
        if winner is not None and (count >= rule.needed or not delegate):
            found.score[at] = query.samples[said.index(winner)].score
        elif delegate:
            found.score[at] = query.strong.score
            found.cost[at] += _known(query.strong.cost_usd)
            found.delegated[at] = 1.0
    return found


def _key(text: str) -> str | None:
    return answer_key(text) if text.strip() else None


def _by_length(queries: Sequence[SampledQuery], length: int | None) -> Outcomes:
    """The strong worker from so many characters on, else one sample; None never asks it."""
    found = _blank(len(queries))
    for at, query in enumerate(queries):
        strong = length is not None and len(query.query) >= length
        one = query.strong if strong else query.samples[0]
        found.score[at], found.cost[at] = one.score, _known(one.cost_usd)
        found.delegated[at] = float(strong)
    return found


def _lengths(queries: Sequence[SampledQuery]) -> list[int | None]:
    """Thresholds worth trying: always, between any two lengths that occur, never."""
    lengths = sorted({len(query.query) for query in queries})
    return [0, *lengths[1:], None]


def _best(found: Sequence[Outcomes], always: Outcomes, rows: Ints, goal: Goal) -> int:
    score = np.array([one.score[rows].mean() for one in found])
    cost = np.array([one.cost[rows].mean() for one in found])
    if goal.cost_weight is not None:
        return int(np.lexsort((cost, -(score - goal.cost_weight * cost)))[0])
    assert goal.tolerance is not None
    enough = score >= always.score[rows].mean() - goal.tolerance - 1e-12
    if enough.any():
        return int(np.lexsort((-score, np.where(enough, cost, np.inf)))[0])
    return int(np.lexsort((cost, -score))[0])


def _coin(mine: Outcomes, always: Outcomes, never: Outcomes) -> Outcomes:
    """What always or never, drawn at random for each query, gives on average at `mine`'s cost."""
    span = always.cost.mean() - never.cost.mean()
    share = 0.0 if span <= 0 else float((mine.cost.mean() - never.cost.mean()) / span)
    share = min(max(share, 0.0), 1.0)
    return Outcomes(
        share * always.score + (1 - share) * never.score,
        share * always.cost + (1 - share) * never.cost,
        np.full(len(mine.score), share),
    )


def _resampled(n: int, resamples: int, seed: int) -> Floats:
    """How often each query is drawn, (resamples, n); the same for all rules, so that they pair."""
    rng = np.random.default_rng(seed + 1)
    return rng.multinomial(n, np.full(n, 1 / n), size=resamples).astype(np.float64)


def _mean(values: Floats, counts: Floats) -> Measured:
    means = counts @ values / len(values)  # (resamples,)
    return Measured(float(values.mean()), _interval(means))


def _saved(mine: Floats, other: Floats, counts: Floats) -> Measured:
    if not other.sum() > 0:
        raise EvaluationError("calibration: a rule costs nothing at all, so no share can be saved")
    with np.errstate(divide="ignore", invalid="ignore"):  # a draw may cost nothing
        saved = 1 - (counts @ mine) / (counts @ other)  # (resamples,)
    return Measured(1 - float(mine.sum() / other.sum()), _interval(saved[np.isfinite(saved)]))


def _interval(values: Floats) -> Interval:
    low, high = np.percentile(values, [2.5, 97.5])
    return Interval(float(low), float(high))


def _blank(n: int) -> Outcomes:
    return Outcomes(np.zeros(n), np.zeros(n), np.zeros(n))


def _fill(into: Outcomes, values: Outcomes, rows: Ints) -> None:
    into.score[rows] = values.score[rows]
    into.cost[rows] = values.cost[rows]
    into.delegated[rows] = values.delegated[rows]


def _check(queries: Sequence[SampledQuery], folds: int) -> None:
    if len(queries) < FEWEST_QUERIES:
        raise EvaluationError(
            f"calibration: {len(queries)} queries are too few to choose on; log {FEWEST_QUERIES}"
        )
    if not 2 <= folds <= len(queries):
        raise EvaluationError(f"calibration: folds: expected 2 to {len(queries)}, got {folds}")
    for query in queries:
        costs = [query.strong.cost_usd, *(sample.cost_usd for sample in query.samples)]
        if None in costs:
            raise EvaluationError(
                f"calibration: query {query.query_id!r}: an unknown cost; give the model's price "
                "when collecting, or leave the query out"
            )


def _known(cost: float | None) -> float:
    assert cost is not None
    return cost


def _told(measured: Measured) -> dict[str, float]:
    return {
        "mean": measured.mean, "low": measured.interval.low, "high": measured.interval.high
    }  # fmt: skip
