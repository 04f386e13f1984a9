"""What asking first, deliberating and the plain policies give on logged queries.

Of each query its score, its cost and what was done, all of it as logged. Not here: which of them is
chosen (`asking`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from masrouter.delegation.calibration.measuring import Floats
from masrouter.delegation.calibration.missing_labels import (
    LabelledGoal,
    SignalCount,
    count_signals,
)
from masrouter.delegation.calibration.replaying import replay
from masrouter.delegation.calibration.sampled import SampledQuery
from masrouter.delegation.deliberation.agreement import Rule
from masrouter.delegation.deliberation.missing import MissingRule
from masrouter.delegation.deliberation.signals import SignalKind, missing_signals
from masrouter.errors import EvaluationError

Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Acted:
    """What a policy gives on each of n queries."""

    score: Floats  # (n,)
    cost: Floats  # (n,) US dollars
    delegated: Floats  # (n,) share that the strong worker answered
    asked: Bools  # (n,) whether a question was returned instead of an answer


def replay_asking(
    queries: Sequence[SampledQuery], rule: MissingRule, *, deliberating: Rule
) -> Acted:
    """What asking first by `rule`, and else deliberating, would have given on each query.

    The model is asked, and paid, where `check_missing` would ask it. Raises EvaluationError for an
    unknown cost, where too few samples are logged, and where the rule wants a word of the model
    that is not.
    """
    check_logged(queries, deliberating)
    log = AskingLog(queries, deliberating)
    for query, shown in zip(queries, log.shown, strict=True):
        if query.check is None and rule.asks_model(shown):
            raise EvaluationError(
                f"asking: query {query.query_id!r}: the rule asks a model, whose word is not "
                "logged; collect with `--check`"
            )
    return log.asking(rule)


class AskingLog:
    """Queries with what each policy gives on them."""

    def __init__(
        self,
        queries: Sequence[SampledQuery],
        rule: Rule,
        labelled: Sequence[LabelledGoal] = (),
    ) -> None:
        """rule: of deliberating. labelled: more tasks to count signals on, without outcomes."""
        self.queries = queries
        self.labelled = labelled
        self.known = np.array([query.lacks is not None for query in queries])  # (n,)
        self.lacks = np.array([query.lacks is True for query in queries])  # (n,)
        self._wholes: dict[str | None, int] = {
            query.group: at
            for at, query in enumerate(queries)
            if query.group is not None and query.lacks is False
        }
        self.shown = [
            frozenset(signal.kind for signal in missing_signals(query.query, query.context))
            for query in queries
        ]
        self.checked = all(query.check is not None for query in queries)
        checks = [query.check for query in queries]
        self.named = np.array([check is not None and check.named for check in checks])  # (n,)
        self.check_usd = np.array(
            [0.0 if check is None else _known(check.cost_usd) for check in checks]
        )  # (n,)
        nobody, free = np.zeros(len(queries), dtype=np.bool_), np.zeros(len(queries))  # (n,) each
        replayed = replay(queries, rule)
        self.plain = Acted(replayed.score, replayed.cost, replayed.delegated, nobody)
        strong = np.array([[q.strong.score, _known(q.strong.cost_usd)] for q in queries])  # (n, 2)
        first = np.array([[q.samples[0].score, _known(q.samples[0].cost_usd)] for q in queries])
        self.length = np.array([len(q.query) + len(q.context) for q in queries])  # (n,)

        def delegating(those: Bools) -> Acted:
            score, cost = np.where(those[:, None], strong, first).T
            return Acted(score, cost, those.astype(np.float64), nobody)

        self.always, self.never = delegating(~nobody), delegating(nobody)
        self.questioned = self._instead(~nobody, free)  # whatever the query

    def blank(self) -> Acted:
        """To be filled fold by fold."""
        n = len(self.queries)
        return Acted(np.zeros(n), np.zeros(n), np.zeros(n), np.zeros(n, dtype=np.bool_))

    def count(self, rows: Ints) -> tuple[SignalCount, ...]:
        """How often signals show on the labelled of these queries, and on other labelled tasks."""
        those = [at for at in rows if self.known[at]]
        kinds = [self._kinds(at) for at in those] + [goal.kinds() for goal in self.labelled]
        lacks = [bool(self.lacks[at]) for at in those] + [goal.lacks for goal in self.labelled]
        return count_signals(kinds, lacks)

    def asking(self, rule: MissingRule) -> Acted:
        """Asks first by a rule, as `check_missing` does, and deliberates on the others."""
        at_once = np.array([rule.asks(shown) for shown in self.shown])  # (n,)
        paid = np.array([rule.asks_model(shown) for shown in self.shown])  # (n,)
        return self._instead(at_once | (paid & self.named), paid * self.check_usd)

    def unanswerable(self) -> SampledQuery | None:
        """A query of which the log cannot tell what an answered question would bring, if any."""
        return next(
            (
                query
                for at, query in enumerate(self.queries)
                if not self.known[at] or (self.lacks[at] and query.group not in self._wholes)
            ),
            None,
        )

    def answered(self, mine: Acted) -> Acted:
        """As it was, and what each question asked for is given: where nothing is `unanswerable`.

        A query that lacks nothing is then deliberated on as it stands. One that does is taken up
        as the whole query of its group.
        """
        again = np.arange(len(self.queries))
        for at in np.flatnonzero(mine.asked & self.lacks).tolist():
            again[at] = self._wholes[self.queries[at].group]
        asked = mine.asked
        return Acted(
            np.where(asked, self.plain.score[again], mine.score),
            mine.cost + np.where(asked, self.plain.cost[again], 0.0),
            np.where(asked, self.plain.delegated[again], mine.delegated),
            asked,
        )

    def _kinds(self, at: int) -> frozenset[SignalKind]:
        return self.shown[at] | ({"model"} if self.checked and self.named[at] else set())

    def _instead(self, asked: Bools, check_usd: Floats) -> Acted:
        plain = self.plain
        return Acted(
            np.where(asked, 0.0, plain.score),
            np.where(asked, 0.0, plain.cost) + check_usd,
            np.where(asked, 0.0, plain.delegated),
            asked,
        )


def check_logged(queries: Sequence[SampledQuery], rule: Rule) -> None:
    """Raises EvaluationError for an unknown cost, and where too few samples are logged."""
    for query in queries:
        drawn = query.stepped if rule.at == "step" else query.samples
        partings = query.partings if rule.at == "step" else ()
        if len(drawn) < rule.samples:
            raise EvaluationError(
                f"asking: query {query.query_id!r}: the rule wants {rule.samples} samples, and "
                f"{len(drawn)} are logged"
            )
        costs = [query.strong.cost_usd, *(one.cost_usd for one in (*query.samples, *drawn))]
        for parting in partings:
            costs += [parting.step.cost_usd, *(one.cost_usd for one in parting.samples)]
        if None in costs or (query.check is not None and query.check.cost_usd is None):
            raise EvaluationError(
                f"asking: query {query.query_id!r}: an unknown cost; give the model's price when "
                "collecting, or leave the query out"
            )


def _known(cost: float | None) -> float:
    assert cost is not None
    return cost
