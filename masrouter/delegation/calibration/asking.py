"""When asking first pays: a rule for missing information, chosen by outcomes on logged queries.

Who is asked first gets no answer: on that query asking scores 0, and costs what the check cost,
which is nothing where the text alone tells. So what is saved is money that was really billed, and
what is lost is score that was really had, by luck or because the query lacked nothing. No worth is
made up for the question itself. What comes where every question is answered is known of a log that
has the query whole as well: it is shown beside, and can be chosen for instead.

Folds of groups: on all but one the signals are weighed and the threshold is chosen, on that one the
choice is judged. The rules by message length are chosen in the same way on the same folds, and so
is whether a model's own word on what is missing is worth its price.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from masrouter.delegation.calibration.agreement import Row
from masrouter.delegation.calibration.asking_outcomes import (
    Acted,
    AskingLog,
    Bools,
    Ints,
    check_logged,
)
from masrouter.delegation.calibration.choosing import Goal
from masrouter.delegation.calibration.compared import Against, against, compared, folds_of
from masrouter.delegation.calibration.lengths import best_length
from masrouter.delegation.calibration.measuring import (
    FEWEST_QUERIES,
    RESAMPLES,
    UNKNOWN,
    Floats,
    Measured,
    groups_of,
    interval_of,
    resampled_groups,
    told_json,
)
from masrouter.delegation.calibration.missing_labels import (
    LabelledGoal,
    SignalCount,
    weights_of,
)
from masrouter.delegation.calibration.sampled import SampledQuery
from masrouter.delegation.deliberation.agreement import Rule
from masrouter.delegation.deliberation.missing import MissingRule
from masrouter.delegation.deliberation.signals import SignalKind
from masrouter.errors import EvaluationError

ASK, DELIBERATE, ALWAYS, NEVER = "ask", "deliberate", "always", "never"
LENGTH, SHORT, ANSWERED = "length", "short", "answered"
Weights = dict[SignalKind, float]
THRESHOLDS = tuple(round(0.95 - 0.05 * n, 2) for n in range(19))
"""Scores from which on to ask that are tried, highest first: on a tie the one that asks least."""


@dataclass(frozen=True, slots=True)
class AskingRow(Row):
    """One policy on all queries, each judged by the choice made without it."""

    asked: float
    """Share of queries that it asks about instead of answering."""


@dataclass(frozen=True, slots=True)
class AskingCalibration:
    """The rule to use, and what its kind of choice was worth on queries not chosen on."""

    rule: MissingRule
    """Chosen on all queries. Where it weighs no `model`, a model's word is not worth its price."""
    signals: tuple[SignalCount, ...]
    lacking: int
    """Queries that are known to lack something."""
    whole: int
    """Queries that are known to lack nothing."""
    unknown: int
    """Queries of which it is not known: they count in the outcomes, not in the weights."""
    goal: Goal
    answered: bool
    """Whether it was chosen for what comes where questions are answered."""
    folds: int
    seed: int
    rows: tuple[AskingRow, ...]
    """ask: asks first, and deliberates where it does not. deliberate, always, never: without
    asking. length: the strong worker from so many characters on. short: asks below so many
    characters, else deliberates. answered: as ask, and every question is answered by giving what
    was missing; left out where the log cannot tell. Where that is chosen for, so are short's
    questions answered."""
    against: tuple[Against, ...]
    """Asking first (answered, where that is chosen for) less the others."""
    precision: Measured
    """Of the labelled queries asked about, the share that lacks something; NaN where none is."""
    recall: Measured
    """Of the queries that lack something, the share asked about."""
    chosen: tuple[MissingRule, ...]
    """By fold: where these differ, the log is too small to tell the rules apart."""

    def to_json(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "queries": self.lacking + self.whole + self.unknown,
            "lacking": self.lacking,
            "whole": self.whole,
            "folds": self.folds,
            "seed": self.seed,
            **self.goal.to_json(),
            "answered": self.answered,
            "rows": [row.to_json() for row in self.rows],
            "against": [one.to_json() for one in self.against],
            "precision": told_json(self.precision),
            "recall": told_json(self.recall),
            "signals": {one.kind: [one.lacking, one.whole] for one in self.signals if one.found},
            "chosen": [
                {"threshold": rule.threshold, "model": "model" in rule.weights}
                for rule in self.chosen
            ],
        }


def calibrate_asking(
    queries: Sequence[SampledQuery],
    *,
    rule: Rule,
    tolerance: float = 0.005,
    cost_weight: float | None = None,
    answered: bool = False,
    labelled: Sequence[LabelledGoal] = (),
    folds: int = 5,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> AskingCalibration:
    """Weigh the signals of missing information, and choose from which score on to ask.

    rule: how is deliberated where nothing is asked; it is given, not chosen here. tolerance: the
    cheapest is chosen whose mean score is at most so much below not asking. cost_weight: instead,
    the highest mean of score - cost_weight * cost. answered: judge a question by what comes where
    it is answered, at no price for whoever answers; else it scores nothing. labelled: tasks without
    outcomes, which count in the weights only. A model's word is considered where every query was
    checked for it.

    Intervals are percentiles of a paired bootstrap over groups. Raises EvaluationError for too few
    labels, an unknown cost, a rule that wants more samples than are logged, bad folds, and where
    the log does not say what answers would bring, though that is chosen for.
    """
    goal = Goal(tolerance, cost_weight)
    group = groups_of([(query.query_id, query.group) for query in queries])  # (n,)
    _check(queries, rule, folds, int(group.max(initial=-1)) + 1)
    log = AskingLog(queries, rule, labelled)
    lost = log.unanswerable()
    if answered and lost is not None:
        raise EvaluationError(
            f"asking: query {lost.query_id!r}: the log does not say what an answered question "
            "would bring; label every query, and log those that lack something whole as well, in "
            "the same group"
        )

    def judged(one: Acted) -> Acted:
        return log.answered(one) if answered else one

    questioned = judged(log.questioned)
    fold = folds_of(group, folds, seed)
    found = {name: log.blank() for name in (ASK, LENGTH, SHORT)}
    chosen: list[MissingRule] = []
    for k in range(folds):
        train, test = np.flatnonzero(fold != k), np.flatnonzero(fold == k)
        picked = _choose(log, judged, train, goal)
        chosen.append(picked)
        _fill(found[ASK], log.asking(picked), test)
        for name, below, above in (
            (LENGTH, log.never, log.always), (SHORT, questioned, log.plain)
        ):  # fmt: skip
            least = best_length(
                log.length, (below.score, below.cost), (above.score, above.cost), train, goal,
                float(log.plain.score[train].mean()),
            )  # fmt: skip
            _fill(found[name], above, test[log.length[test] >= least])
            _fill(found[name], below, test[log.length[test] < least])
    acted = {
        ASK: found[ASK], DELIBERATE: log.plain, ALWAYS: log.always, NEVER: log.never,
        LENGTH: found[LENGTH], SHORT: found[SHORT],
    }  # fmt: skip
    if lost is None:
        acted[ANSWERED] = log.answered(found[ASK])
    counts = resampled_groups(group, resamples, seed)  # (resamples, n)
    mine = judged(found[ASK])
    everything = np.arange(len(queries))
    known, lacks = log.known, log.lacks
    hits = mine.asked & lacks
    return AskingCalibration(
        rule=_choose(log, judged, everything, goal),
        signals=log.count(everything),
        lacking=int(lacks.sum()),
        whole=int((known & ~lacks).sum()),
        unknown=int((~known).sum()),
        goal=goal,
        answered=answered,
        folds=folds,
        seed=seed,
        rows=tuple(
            AskingRow(
                name,
                *compared(one, counts),
                float(one.delegated.mean()),
                float(one.asked.mean()),
            )
            for name, one in acted.items()
        ),
        against=against(mine, acted, counts, without=(ASK, ANSWERED)),
        precision=_ratio(hits, mine.asked & known, counts),
        recall=_ratio(hits, lacks, counts),
        chosen=tuple(chosen),
    )


def _choose(
    log: AskingLog, judged: Callable[[Acted], Acted], rows: Ints, goal: Goal
) -> MissingRule:
    """The rule that pays best on these queries, its signals weighed on them."""
    weights = weights_of(log.count(rows))
    silent: Weights = {kind: weight for kind, weight in weights.items() if kind != "model"}
    tried = [silent, weights] if log.checked else [silent]
    rules = [MissingRule(one, threshold) for one in tried for threshold in THRESHOLDS]
    rules.insert(0, MissingRule(silent, 1.0))  # does not ask, and keeps what was measured
    acted = [judged(log.asking(one)) for one in rules]
    score = np.array([one.score[rows].mean() for one in acted])
    cost = np.array([one.cost[rows].mean() for one in acted])
    return rules[goal.best(score, cost, float(log.plain.score[rows].mean()))]


def _fill(into: Acted, values: Acted, rows: Ints) -> None:
    into.score[rows] = values.score[rows]
    into.cost[rows] = values.cost[rows]
    into.delegated[rows] = values.delegated[rows]
    into.asked[rows] = values.asked[rows]


def _ratio(top: Bools, bottom: Bools, counts: Floats) -> Measured:
    """NaN where nothing is to be divided by."""
    if not bottom.any():
        return UNKNOWN
    tops, bottoms = counts @ top, counts @ bottom  # (resamples,)
    drawn = tops[bottoms > 0] / bottoms[bottoms > 0]
    return Measured(float(top.sum() / bottom.sum()), interval_of(drawn))


def _check(queries: Sequence[SampledQuery], rule: Rule, folds: int, groups: int) -> None:
    labels = [query.lacks for query in queries if query.lacks is not None]
    if len(labels) < FEWEST_QUERIES or all(labels) or not any(labels):
        raise EvaluationError(
            f"asking: {len(labels)} of {len(queries)} queries say whether they lack something, and "
            f"{sum(labels)} of these do; log {FEWEST_QUERIES} or more that say it, some of either "
            "kind: set `lacks` in the log, or collect with `--gaps 0.25`"
        )
    if not 2 <= folds <= groups:
        raise EvaluationError(f"asking: folds: expected 2 to {groups}, got {folds}")
    check_logged(queries, rule)
