"""Logged outcomes as arrays: what learning and evaluation read.

Not here: reading and validating log files (`masrouter.logs`), embeddings (`masrouter.encoder`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from masrouter.errors import LogError
from masrouter.logs import LogKind, Logs, detect_kind
from masrouter.types import Plan

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Column = Literal["score", "cost", "prompt_tokens", "completion_tokens", "propensity"]


@dataclass(frozen=True)
class Outcomes:
    """N queries, P plans and R cells; a cell is what is known of one plan on one query.

    Repeated runs of a plan on a query are one cell that holds their mean. NaN is unknown.
    Cells are sorted by (query, plan).
    """

    query_ids: tuple[str, ...]  # (N,)
    queries: tuple[str, ...]  # (N,)
    datasets: tuple[str, ...]  # (N,)
    tasks: tuple[str | None, ...]  # (N,)
    plans: tuple[Plan, ...]  # (P,)
    query: Ints  # (R,) index into queries
    plan: Ints  # (R,) index into plans
    score: Floats  # (R,) mean over scored runs, in [0, 1]
    cost: Floats  # (R,) mean over runs of known cost, US dollars
    prompt_tokens: Floats  # (R,)
    completion_tokens: Floats  # (R,)
    propensity: Floats  # (R,) probability with which the logging policy picked the plan
    runs: Ints  # (R,) number of scored runs
    kind: LogKind
    why: str
    """How the kind was told, in words."""
    notes: tuple[str, ...] = ()
    """What was merged or left out on the way from rows to cells."""

    @property
    def n_queries(self) -> int:
        return len(self.query_ids)

    @property
    def n_plans(self) -> int:
        return len(self.plans)

    @property
    def has_costs(self) -> bool:
        """Whether any cell knows its cost: without, only cost weight 0 means anything."""
        return bool(np.isfinite(self.cost).any())

    def dense(self, column: Column) -> Floats:
        """A column as a (N, P) matrix; NaN where nothing is logged or known."""
        matrix = np.full((self.n_queries, self.n_plans), np.nan)
        matrix[self.query, self.plan] = getattr(self, column)
        return matrix

    def utility(self, cost_weight: float) -> Floats:
        """score - cost_weight * cost, (N, P); NaN where it cannot be known.

        At cost weight 0 a plan of unknown cost still counts; above 0 it cannot.
        """
        score = self.dense("score")
        return score if cost_weight == 0 else score - cost_weight * self.dense("cost")

    def queries_at(self, index: Sequence[int] | Ints | Bools) -> Outcomes:
        """The same plans, with only these queries (a boolean mask or positions)."""
        index = np.asarray(index)
        keep = np.flatnonzero(index) if index.dtype == bool else index.astype(np.int64)
        position = np.full(self.n_queries, -1, dtype=np.int64)
        position[keep] = np.arange(len(keep))
        cells = np.flatnonzero(position[self.query] >= 0)
        moved = position[self.query[cells]]
        cells = cells[np.lexsort((self.plan[cells], moved))]
        return replace(
            self._cells_at(cells),
            query_ids=tuple(self.query_ids[i] for i in keep),
            queries=tuple(self.queries[i] for i in keep),
            datasets=tuple(self.datasets[i] for i in keep),
            tasks=tuple(self.tasks[i] for i in keep),
            query=position[self.query[cells]],
        )

    def plans_at(self, index: Sequence[int] | Ints | Bools) -> Outcomes:
        """Only these plans; queries that lose every cell stay, with none."""
        index = np.asarray(index)
        keep = np.flatnonzero(index) if index.dtype == bool else index.astype(np.int64)
        position = np.full(self.n_plans, -1, dtype=np.int64)
        position[keep] = np.arange(len(keep))
        cells = np.flatnonzero(position[self.plan] >= 0)
        cells = cells[np.lexsort((position[self.plan[cells]], self.query[cells]))]
        return replace(
            self._cells_at(cells),
            plans=tuple(self.plans[i] for i in keep),
            plan=position[self.plan[cells]],
        )

    def _cells_at(self, cells: Ints) -> Outcomes:
        return replace(
            self,
            query=self.query[cells],
            plan=self.plan[cells],
            score=self.score[cells],
            cost=self.cost[cells],
            prompt_tokens=self.prompt_tokens[cells],
            completion_tokens=self.completion_tokens[cells],
            propensity=self.propensity[cells],
            runs=self.runs[cells],
        )

    @classmethod
    def from_logs(cls, logs: Logs) -> Outcomes:
        """Gather rows into cells.

        A team whose size was decided while it ran (one size a query, several over the log, the same
        seats otherwise) is one plan, not one plan a size: the size is an outcome there, and a
        router could not have chosen it.
        """
        if len(logs) == 0:
            raise LogError("the logs hold no valid rows; `masrouter logs check` says what is wrong")
        verdict = detect_kind(logs)
        index = logs.plan_index()
        frame = logs.table.select(
            ["query_id", "score", "cost_usd", "prompt_tokens", "completion_tokens", "propensity"]
        ).to_pandas()
        # Sorted by id, so that the order of queries does not depend on the order of rows.
        query, _ = pd.factorize(frame.pop("query_id").astype(str), sort=True)
        frame["query"] = query
        plans, row_plan = index.plans, index.row_plan.astype(np.int64)
        notes: tuple[str, ...] = ()
        if verdict.kind is LogKind.GRID:  # elsewhere one plan a query is the design, not an outcome
            plans, row_plan, notes = _merge_run_time_sizes(
                plans, row_plan, query, logs.codes("dataset").rows
            )
        frame["plan"] = row_plan
        first = np.unique(query, return_index=True)[1]
        texts = logs.table.select(["query_id", "query", "dataset", "task"]).take(first).to_pandas()
        unscored = int(frame["score"].isna().sum())
        if unscored:
            notes = (*notes, f"{unscored} rows without a score teach cost and tokens only")
        cells = frame.groupby(["query", "plan"], sort=True, observed=True).agg(
            score=("score", "mean"),
            cost=("cost_usd", "mean"),
            prompt_tokens=("prompt_tokens", "mean"),
            completion_tokens=("completion_tokens", "mean"),
            propensity=("propensity", "mean"),
            runs=("score", "count"),
        )
        tasks = texts["task"].astype(object)
        return cls(
            query_ids=tuple(texts["query_id"].astype(str)),
            queries=tuple(texts["query"].astype(str)),
            datasets=tuple(texts["dataset"].astype(str)),
            tasks=tuple(tasks.where(tasks.notna(), None)),
            plans=plans,
            query=cells.index.get_level_values("query").to_numpy(np.int64),
            plan=cells.index.get_level_values("plan").to_numpy(np.int64),
            score=cells["score"].to_numpy(np.float64),
            cost=cells["cost"].to_numpy(np.float64),
            prompt_tokens=cells["prompt_tokens"].to_numpy(np.float64),
            completion_tokens=cells["completion_tokens"].to_numpy(np.float64),
            propensity=cells["propensity"].to_numpy(np.float64),
            runs=cells["runs"].to_numpy(np.int64),
            kind=verdict.kind,
            why=verdict.why,
            notes=notes,
        )


def _merge_run_time_sizes(
    plans: tuple[Plan, ...], row_plan: Ints, row_query: Ints, row_dataset: NDArray[np.integer]
) -> tuple[tuple[Plan, ...], Ints, tuple[str, ...]]:
    """Merge plans whose seats differ only in how often they spoke, if a run decided how often.

    That is so where a data set holds several sizes and none of its queries saw two of them.
    """
    families: dict[tuple[str, tuple[object, ...]], list[int]] = {}
    for i, plan in enumerate(plans):
        families.setdefault((plan.topology, tuple(dict.fromkeys(plan.agents))), []).append(i)
    target = np.arange(len(plans), dtype=np.int64)
    rows_of = np.bincount(row_plan, minlength=len(plans))
    notes: list[str] = []
    for (topology, _), members in families.items():
        sizes = sorted({len(plans[i].agents) for i in members})
        if len(sizes) < max(len(members), 2):  # one size, or several orders of the same seats
            continue
        rows = np.isin(row_plan, members)
        pairs = pd.DataFrame(
            {"query": row_query[rows], "plan": row_plan[rows], "dataset": row_dataset[rows]}
        ).drop_duplicates()
        compared = pairs.duplicated(["dataset", "query"]).any()
        if compared or pairs.groupby("dataset")["plan"].nunique().max() < 2:
            continue  # sizes were compared on the same query, or each data set has its own
        usual = max(members, key=lambda i: int(rows_of[i]))
        target[members] = usual
        notes.append(
            f"{topology}: team sizes {sizes} were decided while running (one size a query); "
            f"taken as one plan, written with its usual size {len(plans[usual].agents)}"
        )
    kept, compact = np.unique(target, return_inverse=True)
    return tuple(plans[i] for i in kept), compact[row_plan].astype(np.int64), tuple(notes)
