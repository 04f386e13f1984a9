"""Randomised logs: doubly robust estimates of the router's choices, and whether to trust them.

Not here: the estimators (`off_policy`), the verdict (`support`).
"""

from __future__ import annotations

import numpy as np

from masrouter.errors import EvaluationError
from masrouter.evaluation.off_policy import Estimate
from masrouter.evaluation.off_policy.policy_value import Estimates, PolicyValue, estimate_policy
from masrouter.evaluation.off_policy.rounds import LoggedRounds
from masrouter.evaluation.replay.case import (
    Case,
    agreement_of,
    agreement_share,
    runs_side,
    supported_runs,
)
from masrouter.evaluation.replay.types import (
    Agreement,
    Comparison,
    FirstChoices,
    Level,
    Measured,
    Paired,
    Part,
    Sensitivity,
    Side,
    Verdict,
)
from masrouter.logs import Logs
from masrouter.outcomes import Bools, Ints


class RandomisedReading:
    """The logged choices were drawn with known chances, so others can be weighed. Units: runs."""

    reference = "the logged policy"

    def __init__(self, case: Case, logs: Logs) -> None:
        """Raises EvaluationError where not even the whole of the logs can be judged."""
        self.case = case
        traffic, routed = case.traffic, case.routed
        self._logs = logs
        self._decided = routed.decided[traffic.query]
        self._weighed = self._decided & np.isfinite(logs.numbers("propensity"))
        self._agrees = self._decided & (traffic.plan == routed.chosen[traffic.query])
        self.of_reference: Bools = np.ones(len(traffic.query), dtype=np.bool_)
        self._rounds, self._value = self._estimate(self._weighed)
        self.notes = self._value.notes

    def _estimate(self, runs: Bools) -> tuple[LoggedRounds, PolicyValue]:
        """Rounds of some runs, (n,) bool, and what the router's choices are worth on them."""
        case = self.case
        rounds = LoggedRounds.from_logs(self._logs.select(runs))
        position = {name: i for i, name in enumerate(case.traffic.query_ids)}
        queries = [position[name] for name in rounds.query_ids]
        decisions = [case.routed.decisions[i] for i in queries]
        value = estimate_policy(
            rounds,
            [decision.plan for decision in decisions if decision is not None],
            embeddings=case.routed.embeddings[queries],
            cost_weight=case.weight,
            seed=case.sample.seed,
            resamples=case.sample.resamples,
        )
        return rounds, value

    def verdict(self) -> Verdict:
        found = self._value.verdict
        return Verdict(
            level=found.level,
            reasons=found.reasons,
            probe=None if found.probe is None else str(found.probe),
            support_share=found.support_share,
            effective_sample_size=found.effective_sample_size,
            largest_weight=found.largest_weight,
        )

    def logged(self) -> Side:
        return runs_side(self.case, self.of_reference)

    def comparisons(self) -> tuple[Comparison, ...]:
        found = self._compare(self._rounds, self._value)
        return () if found is None else (found,)

    def _compare(self, rounds: LoggedRounds, value: PolicyValue) -> Comparison | None:
        if value.best is None or value.difference is None:
            return None
        sides = value.logged, value.estimates[value.best], value.difference
        worth = rounds.score if self.case.weight == 0 else rounds.score + rounds.cost  # NaN in one
        score, cost, utility = (
            _paired(
                [getattr(side, name) for side in sides],
                len(np.unique(rounds.query[np.isfinite(column)])),
                rounds.n_queries,
            )
            for name, column in (("score", rounds.score), ("cost", rounds.cost), ("utility", worth))
        )
        return Comparison(
            reference=self.reference,
            score=score,
            cost=cost,
            utility=utility if self.case.weight > 0 else None,
            saved=_saved(cost),
        )

    def agreement(self) -> Agreement | None:
        return agreement_of(self.case, supported_runs(self.case, self._decided & ~self._agrees))

    def sensitivity(self, domain: Ints) -> Sensitivity | None:
        return None

    def first_choices(self) -> tuple[FirstChoices, ...]:
        queries = self._rounds.n_queries
        return tuple(
            FirstChoices(
                prefix.up_to,
                prefix.verdict.level,
                prefix.verdict.reasons[0] if prefix.verdict.reasons else "",
                _measured(prefix.difference, "score", queries),
                _measured(prefix.difference, "cost", queries),
            )
            for prefix in self._value.prefixes
        )

    def part(self, name: str, runs: Bools) -> Part:
        traffic = self.case.traffic
        decided = runs & self._decided
        comparison: Comparison | None = None
        level: Level = "not identified"
        try:
            rounds, value = self._estimate(runs & self._weighed)
        except EvaluationError as error:  # too few rounds to judge, or none of known outcome
            why = str(error)
        else:
            comparison, level = self._compare(rounds, value), value.verdict.level
            why = value.verdict.reasons[0]
        unmatched = np.setdiff1d(traffic.query[decided], traffic.query[decided & self._agrees])
        return Part(
            name=name,
            queries=len(np.unique(traffic.query[runs])),
            runs=int(runs.sum()),
            logged=runs_side(self.case, runs),
            level=level,
            why=why,
            comparison=comparison,
            agreement=agreement_share(self.case, decided, self._agrees),
            score_bounds=None,
            no_support=len(unmatched),
        )


def _paired(sides: list[Estimate | None], queries: int, of: int) -> Paired | None:
    """`queries` are known, `of` all."""
    logged, target, difference = sides
    if logged is None or target is None or difference is None:
        return None
    return Paired(
        Measured(logged.value, logged.interval, queries),
        Measured(target.value, target.interval, queries),
        Measured(difference.value, difference.interval, queries),
        left_out=of - queries,
    )


def _saved(cost: Paired | None) -> Measured | None:
    """No interval: that of the difference in cost is there, and this one is a ratio to a mean."""
    if cost is None or not cost.reference.value > 0:
        return None
    share = -cost.difference.value / cost.reference.value
    return Measured(share, None, cost.difference.queries)


def _measured(found: Estimates | None, name: str, queries: int) -> Measured | None:
    estimate: Estimate | None = None if found is None else getattr(found, name)
    return None if estimate is None else Measured(estimate.value, estimate.interval, queries)
