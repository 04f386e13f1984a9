"""Logged traffic beside what a router would choose on it: the ground that a replay stands on.

Not here: what the choices are worth (`replay`), off-policy estimates (`policy_value`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from masrouter.encoder import Encoder
from masrouter.errors import ConstraintError, LogError
from masrouter.explanation import Predictions
from masrouter.logs import LogKind, Logs, detect_kind
from masrouter.outcomes import Bools, Floats, Ints, Outcomes
from masrouter.router import Router
from masrouter.types import Plan, RoutingDecision

CHUNK = 256
"""Queries routed together: bounds memory, and is how often progress is told."""
REFUSED, BLANK = -2, -3
"""Values of `Routed.chosen` where there is no decision."""
NOT_LOGGED = -1
"""Value of `Routed.chosen` where the logs hold no run of the plan at all."""

Times = NDArray[np.datetime64]
OnProgress = Callable[[int, int, str], None]
"""Called with (done, total, what is being done)."""


@dataclass(frozen=True)
class Traffic:
    """Q queries and n runs of P plans on them; in grid logs a run is a cell, mean of repeats.

    NaN and NaT are unknown.
    """

    query_ids: tuple[str, ...]  # (Q,) sorted
    texts: tuple[str, ...]  # (Q,)
    datasets: tuple[str, ...]  # (Q,)
    tasks: tuple[str | None, ...]  # (Q,)
    plans: tuple[Plan, ...]  # (P,)
    query: Ints  # (n,)
    plan: Ints  # (n,)
    score: Floats  # (n,)
    cost: Floats  # (n,) US dollars
    time: Times  # (n,) UTC, seconds
    kind: LogKind
    why: str
    notes: tuple[str, ...]

    @classmethod
    def from_logs(cls, logs: Logs) -> Traffic:
        """Gather the rows; LogError where there are none."""
        if len(logs) == 0:
            raise LogError("the logs hold no valid rows; `masrouter logs check` says what is wrong")
        verdict = detect_kind(logs)
        ids = logs.codes("query_id")
        order = np.argsort(np.array(ids.values, dtype=object), kind="stable")
        rank = np.empty(len(order), dtype=np.int64)
        rank[order] = np.arange(len(order))
        row_query = rank[ids.rows]
        time = _times(logs)
        if verdict.kind is LogKind.GRID:
            outcomes = Outcomes.from_logs(logs)
            started = pd.Series(time).groupby(row_query).min()  # NaT where no row has a time
            first = started.reindex(range(outcomes.n_queries)).to_numpy("datetime64[s]")
            return cls(
                outcomes.query_ids, outcomes.queries, outcomes.datasets, outcomes.tasks,
                outcomes.plans, outcomes.query, outcomes.plan, outcomes.score, outcomes.cost,
                first[outcomes.query], verdict.kind, verdict.why, outcomes.notes,
            )  # fmt: skip
        index = logs.plan_index()
        first_row = np.unique(row_query, return_index=True)[1]
        texts = logs.table.select(["query_id", "query", "dataset", "task"]).take(first_row)
        frame = texts.to_pandas()
        return cls(
            query_ids=tuple(frame["query_id"].astype(str)),
            texts=tuple(frame["query"].astype(str)),
            datasets=tuple(frame["dataset"].astype(str)),
            tasks=tuple(None if pd.isna(task) else str(task) for task in frame["task"]),
            plans=index.plans,
            query=row_query,
            plan=index.row_plan.astype(np.int64),
            score=logs.numbers("score"),
            cost=logs.numbers("cost_usd"),
            time=time,
            kind=verdict.kind,
            why=verdict.why,
            notes=(),
        )

    @property
    def n_queries(self) -> int:
        return len(self.query_ids)

    def dense(self, values: Floats) -> Floats:
        """One value a run as a (Q, P) matrix, NaN where nothing ran; for grid logs."""
        matrix = np.full((self.n_queries, len(self.plans)), np.nan)
        matrix[self.query, self.plan] = values
        return matrix


@dataclass(frozen=True)
class Routed:
    """What the router would choose on each query, and what it expects of that and of the logged."""

    decisions: tuple[RoutingDecision | None, ...]  # (Q,) None where there is none
    chosen: Ints  # (Q,) index into Traffic.plans, or NOT_LOGGED, REFUSED, BLANK
    score: Floats  # (Q,) expected of the chosen plan
    cost: Floats  # (Q,) NaN unknown
    logged_score: Floats  # (n,) expected of each run's own plan; NaN where the router knows it not
    logged_cost: Floats  # (n,)
    embeddings: NDArray[np.float32]  # (Q, E)
    cost_weight: float
    refusal: str
    """Why a query was refused, where one was."""

    @property
    def decided(self) -> Bools:
        """(Q,) queries that the router has a plan for."""
        return self.chosen >= NOT_LOGGED


class _Remembered:
    """An encoder that has read the texts already."""

    def __init__(
        self, encoder: Encoder, texts: Sequence[str], vectors: NDArray[np.float32]
    ) -> None:
        self.identity = encoder.identity
        self.dimension = encoder.dimension
        self._vectors = dict(zip(texts, vectors, strict=True))

    def encode(self, texts: Sequence[str], *, progress: bool = False) -> NDArray[np.float32]:
        return np.stack([self._vectors[text] for text in texts])


def route_traffic(
    traffic: Traffic,
    router: Router,
    options: Mapping[str, Any],
    progress: OnProgress | None = None,
) -> Routed:
    """Route every query once, by the rules of serving. `options`: those of `Router.route_batch`.

    A query that no plan is allowed on is refused, as it would be when served; ConstraintError
    where that is so of all.
    """
    readable = [i for i, text in enumerate(traffic.texts) if text.strip()]
    if not readable:
        raise LogError("no query of the logs has a text to route on")
    texts = [traffic.texts[i] for i in readable]
    embeddings = np.zeros((traffic.n_queries, router.encoder.dimension), dtype=np.float32)
    embeddings[readable] = router.encoder.encode(texts, progress=progress is not None)
    remembered = _Remembered(router.encoder, texts, embeddings[readable])
    quick = Router(router.state, remembered, checkpoint=router.checkpoint)

    decisions: list[RoutingDecision | None] = [None] * traffic.n_queries
    logged = np.full((2, len(traffic.query)), np.nan)  # expected score and cost of each run's plan
    known = {plan: i for i, plan in enumerate(router.plans)}
    position = np.array([known.get(plan, -1) for plan in traffic.plans], dtype=np.int64)
    by_query = _runs_by_query(traffic)
    refusal, weight = "", None
    for start in range(0, len(readable), CHUNK):
        part = readable[start : start + CHUNK]
        found, why = _route(quick, [traffic.texts[i] for i in part], options)
        refusal = refusal or why
        for i, decision in zip(part, found, strict=True):
            decisions[i] = decision
            weight = decision.cost_weight if decision and weight is None else weight
        if progress is not None:
            progress(min(start + CHUNK, len(readable)), len(readable), "routing")
    if weight is None:
        raise ConstraintError(refusal)
    for start in range(0, len(readable), CHUNK):
        part = readable[start : start + CHUNK]
        _expect_logged(quick, traffic, part, by_query, position, weight, logged)
    index = {plan: i for i, plan in enumerate(traffic.plans)}
    chosen = np.full(traffic.n_queries, BLANK, dtype=np.int64)
    chosen[readable] = REFUSED
    expected = np.full((2, traffic.n_queries), np.nan)
    for i, decision in enumerate(decisions):
        if decision is not None:
            chosen[i] = index.get(decision.plan, NOT_LOGGED)
            expected[0, i] = decision.expected_score
            if decision.expected_cost_usd is not None:
                expected[1, i] = decision.expected_cost_usd
    return Routed(
        tuple(decisions), chosen, expected[0], expected[1], logged[0], logged[1], embeddings,
        weight, refusal,
    )  # fmt: skip


def _route(
    router: Router, texts: Sequence[str], options: Mapping[str, Any]
) -> tuple[list[RoutingDecision | None], str]:
    """Decisions, None where a query is refused, and why the first of those was."""
    try:
        return list(router.route_batch(texts, **{"k": 0, **options})), ""
    except ConstraintError as error:
        if len(texts) == 1:
            return [None], str(error)
    half = len(texts) // 2
    left, why = _route(router, texts[:half], options)
    right, other = _route(router, texts[half:], options)
    return left + right, why or other


def _expect_logged(
    router: Router,
    traffic: Traffic,
    part: Sequence[int],
    by_query: Sequence[Ints],
    position: Ints,
    weight: float,
    out: Floats,
) -> None:
    """Fill (2, n) with what the critic expects of the plans that ran on the queries `part`."""
    embeddings, statistics = router.read([traffic.texts[i] for i in part])
    predictions = Predictions(router.state, router.expect(embeddings, statistics, weight))
    for row, i in enumerate(part):
        for run in by_query[i]:
            plan = int(position[traffic.plan[run]])
            if plan >= 0:
                found = predictions.of(row, plan)
                out[0, run] = found.expected_score
                if found.expected_cost_usd is not None:
                    out[1, run] = found.expected_cost_usd


def _runs_by_query(traffic: Traffic) -> list[Ints]:
    order = np.argsort(traffic.query, kind="stable")
    edges = np.searchsorted(traffic.query[order], np.arange(traffic.n_queries + 1))
    return [order[a:b] for a, b in pairwise(edges)]


def similar_runs(traffic: Traffic, routed: Routed, queries: Ints, similarity: float) -> Ints:
    """Logged runs of each query's chosen plan on *other* queries like it, for `queries` (k,).

    Alike are queries whose embeddings have a cosine of at least `similarity`.
    """
    out = np.zeros(len(queries), dtype=np.int64)
    chosen = routed.chosen[queries]
    for plan in np.unique(chosen[chosen >= 0]):
        runs = traffic.query[traffic.plan == plan]
        ran_on, times = np.unique(runs, return_counts=True)
        mine = np.flatnonzero(chosen == plan)
        for start in range(0, len(mine), 1024):  # bounds the (b, m) cosines
            rows = mine[start : start + 1024]
            cosine = routed.embeddings[queries[rows]] @ routed.embeddings[ran_on].T
            alike = (cosine >= similarity) & (ran_on != queries[rows][:, None])
            out[rows] = alike @ times
    return out


def _times(logs: Logs) -> Times:
    codes = logs.codes("timestamp")
    stamps = np.full(len(codes.values) + 1, np.datetime64("NaT"), dtype="datetime64[s]")
    for i, text in enumerate(codes.values):
        moment = datetime.fromisoformat(text)
        # The schema's times are UTC, so one without a zone is UTC too.
        utc = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
        stamps[i] = np.datetime64(utc.replace(tzinfo=None), "s")
    found: Times = stamps[codes.rows]  # code -1 is the last one, NaT
    return found
