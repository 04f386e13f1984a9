"""Repeated runs split in two: choose on one half of the runs, score on the other.

Where a plan was run several times on a query, the best plan of the query by those runs is partly
luck, and luck does not repeat. Choosing on some runs and scoring on others takes the luck out: what
is left is what a second run would have given.
Not here: who chooses (`crossval`, `operating_point`), intervals (`metrics`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from masrouter.errors import EvaluationError
from masrouter.evaluation.crossval import CrossValidation
from masrouter.logs import Logs
from masrouter.outcomes import Bools, Ints, Outcomes

_CELL_COLUMNS = (
    "query", "plan", "score", "cost", "prompt_tokens", "completion_tokens", "propensity", "runs",
)  # fmt: skip


@dataclass(frozen=True)
class RunHalves:
    """The same queries, plans and cells twice, each time by other runs."""

    choose: Outcomes
    """Means over the half that choices may be made from."""
    score: Outcomes
    """Means over the other half: what the choices are worth."""
    in_choose: Bools
    """Which rows of the logs are in the half to choose from, (rows,); the others score."""
    notes: tuple[str, ...]
    """What was left out, in words."""

    def score_choices(self, cv: CrossValidation) -> CrossValidation:
        """What a cross-validation on the half to choose from is worth on the other half.

        The choices stay; scores and costs are looked up in the other half. The oracle of `cv`, the
        best plan of each query on the first half, becomes the repeatable ceiling: what a chooser
        gets who has seen every plan's other runs on the very same query.

        Raises EvaluationError where `cv` is not of the half to choose from.
        """
        mine, asked = self.choose, cv.outcomes
        same = (
            mine.query_ids == asked.query_ids
            and mine.plans == asked.plans
            and np.array_equal(mine.score, asked.score, equal_nan=True)
        )
        if not same:
            raise EvaluationError(
                "these choices were not made on the half to choose from: cross-validate "
                "`RunHalves.choose` of the same split"
            )
        return replace(
            cv,
            outcomes=self.score,
            protocol=f"{cv.protocol}, chosen on one half of the runs and scored on the other",
            notes=(*cv.notes, *self.notes),
        )

    def plans_at(self, index: Ints | Bools) -> RunHalves:
        """Only these plans, in both halves."""
        return replace(self, choose=self.choose.plans_at(index), score=self.score.plans_at(index))


def split_runs(logs: Logs, *, seed: int = 0, min_runs: int = 2) -> RunHalves:
    """A random half of every query's runs, and the rest.

    Runs of one query that share a number go to the same half under every plan: strategies that
    start from the same first draft share it by the number of the run, and a draft in both halves
    would carry luck across. The number is the logged `seed` where that tells the runs of
    every cell apart, else the order of the runs. Of an odd count of numbers, a coin decides which
    half gets one more.

    A cell (a query under a plan) is kept where both halves have a scored run of it and it has at
    least `min_runs`; a query or plan left without cells goes too, and notes count all of it.
    Depends on the seed and on the runs, not on the order of queries or plans in the logs.

    Raises EvaluationError where no cell is left.
    """
    if min_runs < 2:
        raise EvaluationError(f"min_runs: expected at least 2 (one for each half), got {min_runs}")
    in_choose = _deal(logs, seed)
    if in_choose.all() or not in_choose.any():
        raise EvaluationError("no query was run twice: there is nothing to split")
    halves = [Outcomes.from_logs(logs.select(rows)) for rows in (in_choose, ~in_choose)]
    return _aligned(halves[0], halves[1], in_choose, min_runs)


def _deal(logs: Logs, seed: int) -> Bools:
    """Whether each row is in the half to choose from, (rows,)."""
    rows = pd.DataFrame(
        {
            "query": logs.table.column("query_id").to_pandas().astype(str).to_numpy(),
            "plan": logs.plan_index().row_plan,
            "number": logs.numbers("seed"),
        }
    )
    if rows["number"].isna().any() or rows.duplicated().any():
        rows["number"] = rows.groupby(["query", "plan"]).cumcount()
    pairs = rows[["query", "number"]].drop_duplicates().sort_values(["query", "number"])
    rng = np.random.default_rng(seed)
    pairs["draw"] = rng.random(len(pairs))
    by_query = pairs.groupby("query", sort=True)
    count = by_query["number"].transform("size").to_numpy()
    coin = rng.integers(0, 2, by_query.ngroups)[by_query.ngroup().to_numpy()]  # one a query
    half = (count + coin) // 2
    pairs["choose"] = by_query["draw"].rank(method="first").to_numpy() <= half
    choose = rows.merge(pairs, on=["query", "number"], how="left", sort=False)["choose"]
    chosen: Bools = choose.to_numpy(np.bool_)
    return chosen


def _aligned(choose: Outcomes, score: Outcomes, in_choose: Bools, min_runs: int) -> RunHalves:
    """Both halves with the queries, plans and cells that they share, in the same order."""
    plans = [plan for plan in choose.plans if plan in set(score.plans)]
    queries = [query for query in choose.query_ids if query in set(score.query_ids)]
    both = [
        half.plans_at([half.plans.index(plan) for plan in plans]).queries_at(
            _positions(half.query_ids, queries)
        )
        for half in (choose, score)
    ]
    runs = np.zeros((2, len(queries), len(plans)), dtype=np.int64)
    for i, half in enumerate(both):
        runs[i, half.query, half.plan] = half.runs
    kept = np.asarray((runs > 0).all(axis=0) & (runs.sum(axis=0) >= min_runs), np.bool_)  # (N, P)
    if not kept.any():
        raise EvaluationError(
            f"no query has a plan with a scored run in each half and {min_runs} in all"
        )
    notes = list(dict.fromkeys((*choose.notes, *score.notes)))
    lost_cells = len({*_cells(choose), *_cells(score)}) - int(kept.sum())
    if lost_cells:
        notes.append(
            f"{lost_cells} cells (a query under a plan) with fewer than {min_runs} scored runs or "
            "with none in one of the halves are left out"
        )
    with_cells, with_queries = np.flatnonzero(kept.any(axis=0)), np.flatnonzero(kept.any(axis=1))
    gone = {*choose.plans, *score.plans} - {plans[i] for i in with_cells}
    if gone:
        notes.append("plans left out whole: " + "; ".join(sorted(str(plan) for plan in gone)))
    first, second = (
        _only(half, kept).plans_at(with_cells).queries_at(with_queries) for half in both
    )
    return RunHalves(first, second, in_choose, tuple(notes))


def _positions(query_ids: tuple[str, ...], wanted: list[str]) -> Ints:
    at = {query: i for i, query in enumerate(query_ids)}
    return np.array([at[query] for query in wanted], dtype=np.int64)


def _cells(half: Outcomes) -> list[tuple[str, object]]:
    return [
        (half.query_ids[query], half.plans[plan])
        for query, plan in zip(half.query.tolist(), half.plan.tolist(), strict=True)
    ]


def _only(half: Outcomes, kept: Bools) -> Outcomes:
    """The cells where `kept` (N, P) is True."""
    cells = kept[half.query, half.plan]
    return replace(half, **{name: getattr(half, name)[cells] for name in _CELL_COLUMNS})
