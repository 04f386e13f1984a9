"""Observational logs: real outcomes where the router agrees, ranges elsewhere, and no estimate."""

from __future__ import annotations

import numpy as np

from masrouter.evaluation.off_policy.support import plan_probe
from masrouter.evaluation.replay.case import (
    Case,
    agreement_of,
    agreement_share,
    bounds,
    known_mean,
    runs_side,
    supported_runs,
)
from masrouter.evaluation.replay.traffic import NOT_LOGGED, Traffic
from masrouter.evaluation.replay.types import (
    Agreement,
    Comparison,
    FirstChoices,
    GammaRange,
    Part,
    Sensitivity,
    Side,
    Verdict,
)
from masrouter.evaluation.sensitivity import covered_share, score_ranges
from masrouter.outcomes import Bools, Ints

GAMMAS = (1.25, 1.5, 2.0, 3.0)


class ObservedReading:
    """Nobody drew the logged plans by known chances: real outcomes where both agree, else ranges.

    Runs are the units. No mean of the router is given.
    """

    reference = "the logged policy"
    notes: tuple[str, ...] = ()

    def __init__(self, case: Case) -> None:
        self.case = case
        traffic, routed = case.traffic, case.routed
        chosen = routed.chosen[traffic.query]
        self.of_reference: Bools = np.ones(len(traffic.query), dtype=np.bool_)
        self._decided = routed.decided[traffic.query]
        self._agrees = self._decided & (traffic.plan == chosen)
        self._supported = supported_runs(case, self._decided & ~self._agrees)

    def verdict(self) -> Verdict:
        share = float(self._agrees[self._decided].mean())
        reasons = (
            "the logs do not hold the probability with which each plan was picked: whoever picked "
            "may have known what the text does not show, so what another plan would have got on "
            "the same query is not identified, however many logs there are",
        )
        found = plan_probe(
            self.case.traffic.score, self.case.traffic.cost, known_mean(self.case.routed.cost)
        )
        probe = f"{found}. Log that probability as `propensity`; more runs without one do not help"
        return Verdict("not identified", reasons, probe, share)

    def logged(self) -> Side:
        return self._side(np.ones(len(self._decided), dtype=np.bool_))

    def _side(self, runs: Bools) -> Side:
        return runs_side(self.case, runs)

    def comparisons(self) -> tuple[Comparison, ...]:
        return ()

    def agreement(self) -> Agreement | None:
        return agreement_of(self.case, self._supported)

    def sensitivity(self, domain: Ints) -> Sensitivity | None:
        traffic, routed = self.case.traffic, self.case.routed
        rows = np.flatnonzero(self._decided)
        seen = (self._agrees & np.isfinite(traffic.score))[rows]
        # What is unscored where both agree is as unseen as what was not run.
        group = np.unique(
            np.stack([domain[traffic.query[rows]], routed.chosen[traffic.query[rows]]]),
            axis=1, return_inverse=True,
        )[1].reshape(-1).astype(np.int64)  # fmt: skip
        never = routed.chosen[traffic.query[rows]] == NOT_LOGGED
        ranges = score_ranges(
            np.nan_to_num(traffic.score[rows]), seen, group, traffic.query[rows], (None, *GAMMAS),
            seed=self.case.sample.seed,
        )  # fmt: skip
        differ = self._decided & ~self._agrees & np.isfinite(traffic.score)
        gain = routed.score[traffic.query[differ]] - traffic.score[differ]
        return Sensitivity(
            worst_case=ranges[0].value,
            worst_case_with_chance=ranges[0].with_chance,
            gammas=tuple(
                GammaRange(gamma, found.value, found.with_chance)
                for gamma, found in zip(GAMMAS, ranges[1:], strict=True)
            ),
            covered=covered_share(seen & ~never, group),
            tolerated=float(gain.mean()) if len(gain) else None,
        )

    def first_choices(self) -> tuple[FirstChoices, ...]:
        return ()

    def part(self, name: str, runs: Bools) -> Part:
        traffic = self.case.traffic
        decided = runs & self._decided
        score = np.where(self._agrees, traffic.score, np.nan)[decided]
        return Part(
            name=name,
            queries=len(np.unique(traffic.query[runs])),
            runs=int(runs.sum()),
            logged=self._side(runs),
            level="not identified",
            why="no propensities",
            comparison=None,
            agreement=agreement_share(self.case, decided, self._agrees),
            score_bounds=bounds(score) if decided.any() else None,
            no_support=_count_queries(traffic, decided & ~self._agrees & ~self._supported),
        )


def _count_queries(traffic: Traffic, runs: Bools) -> int:
    return len(np.unique(traffic.query[runs]))
