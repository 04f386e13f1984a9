"""Runs of the synthetic world as logs of schema 1, column by column."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from masrouter.logs import SCHEMA_VERSION, Logs
from masrouter.logs.table import TABLE_SCHEMA
from masrouter.outcomes import Floats, Ints
from masrouter.types import Plan
from masrouter_train.synthetic_text import DOMAINS, SyntheticQueries

SOURCE = "synthetic"
"""`score_source` of every synthetic row."""


@dataclass(frozen=True)
class Runs:
    """R runs on N queries; K seats at most, and an empty seat has no tokens."""

    query: Ints  # (R,)
    plan: Ints  # (R,)
    chances: Floats | None  # (N, P) of the logging policy; None where nobody noted them
    policy: str
    score: Floats  # (R,) 0 or 1
    prompt_tokens: Ints  # (R, K)
    completion_tokens: Ints  # (R, K)
    cost: Floats  # (R,) US dollars


def logs_of(queries: SyntheticQueries, plans: Sequence[Plan], runs: Runs, kind: str) -> Logs:
    """The runs as checked logs hold them; `kind` becomes a part of each run's id."""
    n = len(runs.query)
    order = np.lexsort((runs.plan, runs.query))
    pair = runs.query[order] * len(plans) + runs.plan[order]
    # Which repetition of its plan on its query a run is.
    repeat = np.empty(n, dtype=np.int64)
    first = np.flatnonzero(np.diff(pair, prepend=-1))
    repeat[order] = np.arange(n) - np.repeat(first, np.diff(first, append=n))
    run_ids = [
        f"{queries.ids[q]}-{kind}-{p:02d}-{r}"
        for q, p, r in zip(runs.query.tolist(), runs.plan.tolist(), repeat.tolist(), strict=True)
    ]
    columns: dict[str, Any] = {
        "schema_version": pa.array(np.full(n, SCHEMA_VERSION, dtype=np.int64)),
        "run_id": pa.array(run_ids, pa.large_string()),
        "query_id": _coded(runs.query, queries.ids),
        "query": _coded(runs.query, queries.texts),
        "dataset": _coded(queries.domain[runs.query], [f"synthetic-{name}" for name in DOMAINS]),
        "task": _coded(queries.domain[runs.query], tuple(DOMAINS)),
        "topology": _coded(runs.plan, [plan.topology for plan in plans]),
        "agents": _agents(runs, plans),
        "score": pa.array(runs.score),
        "score_source": _coded(np.zeros(n, dtype=np.int64), [SOURCE]),
        "prompt_tokens": pa.array(runs.prompt_tokens.sum(1)),
        "completion_tokens": pa.array(runs.completion_tokens.sum(1)),
        "cost_usd": pa.array(runs.cost),
        "policy": _coded(np.zeros(n, dtype=np.int64), [runs.policy]),
    }
    if runs.chances is not None:
        columns["propensity"] = pa.array(runs.chances[runs.query, runs.plan])
        columns["stage_propensities"] = _stages(runs.chances, runs, plans)
    arrays = [
        columns[item.name] if item.name in columns else pa.nulls(n, item.type)
        for item in TABLE_SCHEMA
    ]
    return Logs(pa.Table.from_arrays(arrays, schema=TABLE_SCHEMA))


def stage_propensities(plans: Sequence[Plan], chances: Floats) -> tuple[dict[str, Any], ...]:
    """What a policy over whole plans, (P,), gives each stage of each plan.

    A stage's probability is that of its choice given all choices before it, in the order topology,
    count, then role and model of each seat; the product over stages is the plan's own. A plan
    without a chance has no stages: {}.
    """
    prefixes = [_prefixes(plan) for plan in plans]
    mass: dict[tuple[object, ...], float] = {}
    for path, chance in zip(prefixes, chances.tolist(), strict=True):
        for prefix in path:
            mass[prefix] = mass.get(prefix, 0.0) + chance
    stages: list[dict[str, Any]] = []
    for path, chance in zip(prefixes, chances.tolist(), strict=True):
        if chance == 0:
            stages.append({})
            continue
        # Sums of the same chances in another order may differ in the last digit.
        steps = [min(mass[b] / mass[a], 1.0) for a, b in pairwise(path)]
        topology, count, *seats = steps
        stages.append(
            {"topology": topology, "count": count, "roles": seats[0::2], "models": seats[1::2]}
        )
    return tuple(stages)


def _prefixes(plan: Plan) -> list[tuple[object, ...]]:
    choices: list[object] = [plan.topology, len(plan.agents)]
    for agent in plan.agents:
        choices += [agent.role, agent.model]
    return [tuple(choices[:end]) for end in range(len(choices) + 1)]


def _stages(chances: Floats, runs: Runs, plans: Sequence[Plan]) -> Any:
    """JSON text of each run's stages, worked out once for each distinct row of chances."""
    rows, which = np.unique(chances, axis=0, return_inverse=True)
    texts = [json.dumps(s) for row in rows for s in stage_propensities(plans, row)]
    code = which.reshape(-1)[runs.query] * len(plans) + runs.plan  # (R,)
    return pa.array(texts, pa.large_string()).take(pa.array(code))


def _coded(codes: Ints, values: Sequence[str]) -> Any:
    """`values[codes]` as a dictionary array whose dictionary holds each value once."""
    distinct = list(dict.fromkeys(values))
    position = {value: i for i, value in enumerate(distinct)}
    merged = np.array([position[value] for value in values], dtype=np.int32)
    return pa.DictionaryArray.from_arrays(
        pa.array(merged[codes]), pa.array(distinct, pa.large_string())
    )


def _agents(runs: Runs, plans: Sequence[Plan]) -> Any:
    counts = np.array([len(plan.agents) for plan in plans])
    start = np.concatenate(([0], np.cumsum(counts)))  # (P + 1,) of each plan's seats
    roles = pa.array([agent.role for plan in plans for agent in plan.agents], pa.string())
    models = pa.array([agent.model for plan in plans for agent in plan.agents], pa.string())
    filled: NDArray[np.bool_] = (
        np.arange(runs.prompt_tokens.shape[1]) < counts[runs.plan][:, None]
    )  # (R, K)
    seat = (start[runs.plan][:, None] + np.arange(filled.shape[1]))[filled]
    structs = pa.StructArray.from_arrays(
        [
            roles.take(pa.array(seat)),
            models.take(pa.array(seat)),
            pa.array(runs.prompt_tokens[filled]),
            pa.array(runs.completion_tokens[filled]),
        ],
        names=["role", "model", "prompt_tokens", "completion_tokens"],
    )
    offsets = np.concatenate(([0], np.cumsum(counts[runs.plan]))).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), structs)
