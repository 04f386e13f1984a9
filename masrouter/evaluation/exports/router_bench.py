"""RouterBench's wide table: a row a query, and of each model its performance and its cost.

Columns: `sample_id`, `prompt`, `eval_name`; a column MODEL with its performance; `MODEL|total_cost`
in US dollars; `MODEL|model_response`; `oracle_model_to_route_to`, the cheapest of the models of the
highest performance, or `no_model_correct` where no performance is above 0. Missing is empty.

RouterBench finds its models by the columns of responses, so these are there; logs hold no
responses, so they are empty.
Source: Hu et al. 2024, arXiv 2403.12031; github.com/withmartian/routerbench (convertors/common.py,
utils.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from masrouter.errors import EvaluationError
from masrouter.evaluation.exports.files import appearing
from masrouter.evaluation.exports.names import plan_names, renamed, require_grid
from masrouter.outcomes import Floats, Outcomes

COLUMNS = ("sample_id", "prompt", "eval_name", "oracle_model_to_route_to")
NO_MODEL = "no_model_correct"
COST, RESPONSE = "|total_cost", "|model_response"


@dataclass(frozen=True)
class RouterBenchTable:
    """The table, the names of its models, and what a reader has to know."""

    frame: pd.DataFrame
    models: tuple[str, ...]
    notes: tuple[str, ...]


def router_bench_table(
    outcomes: Outcomes, names: Mapping[str, str] | None = None
) -> RouterBenchTable:
    """The logs as RouterBench's table; repeated runs are their mean.

    Args:
        names: from the names of `plan_names` to theirs.

    Raises EvaluationError for logs that are not a grid, and for names that the format cannot hold.
    """
    require_grid(outcomes, "RouterBench")
    models = renamed(plan_names(outcomes.plans), names or {})
    for model in models:
        if "|" in model or model in (*COLUMNS, NO_MODEL):
            raise EvaluationError(
                f"names: RouterBench cannot hold a model called {model!r}; give it another name"
            )
    score, cost = outcomes.dense("score"), outcomes.dense("cost")  # (N, P)
    scored = np.isfinite(score).any(axis=1)
    if not scored.any():
        raise EvaluationError("no run has a score, so there is no performance to export")
    rows = np.flatnonzero(scored)
    score, cost = score[rows], cost[rows]
    columns: dict[str, object] = {
        "sample_id": [outcomes.query_ids[i] for i in rows],
        "prompt": [outcomes.queries[i] for i in rows],
        "eval_name": [outcomes.datasets[i] for i in rows],
    }
    columns |= {model: score[:, p] for p, model in enumerate(models)}
    columns |= {model + RESPONSE: [None] * len(rows) for model in models}
    columns |= {model + COST: cost[:, p] for p, model in enumerate(models)}
    columns["oracle_model_to_route_to"] = [
        NO_MODEL if best < 0 else models[best] for best in _oracle(score, cost)
    ]
    notes = [*outcomes.notes, "logs hold no responses: the columns MODEL|model_response are empty"]
    if len(rows) < outcomes.n_queries:
        notes.append(f"{outcomes.n_queries - len(rows)} queries without any score are left out")
    lacking = int(np.isnan(score).sum())
    if lacking:
        notes.append(f"{lacking} of {score.size} performances are unknown and empty")
    unpriced = int((np.isfinite(score) & np.isnan(cost)).sum())
    if unpriced:
        notes.append(f"{unpriced} costs of scored cells are unknown and empty")
    return RouterBenchTable(pd.DataFrame(columns), models, tuple(notes))


def _oracle(score: Floats, cost: Floats) -> list[int]:
    """The cheapest plan of the highest score, unknown costs last; -1 where none is above 0."""
    known = np.where(np.isfinite(score), score, -np.inf)
    best = known.max(axis=1, keepdims=True)
    priced = np.minimum(np.nan_to_num(cost, nan=np.inf), np.finfo(np.float64).max)
    cheapest = np.where(known == best, priced, np.inf).argmin(axis=1)
    return [int(i) if top > 0 else -1 for i, top in zip(cheapest, best[:, 0], strict=True)]


def write_router_bench(table: RouterBenchTable, path: str | Path) -> None:
    """Write the table as .csv or .parquet; EvaluationError for any other name."""
    path = Path(path)
    if path.suffix not in (".csv", ".parquet"):
        raise EvaluationError(
            f"{path}: a RouterBench table is written as .csv or .parquet (never as a pickle, which "
            "runs code when it is read)"
        )
    with appearing(path) as partial:
        if path.suffix == ".csv":
            table.frame.to_csv(partial, index=False)
        else:
            table.frame.to_parquet(partial, index=False)
