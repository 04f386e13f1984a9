"""LLMRouterBench's result files: for each data set and model, a record a query.

    FOLDER/<dataset>/<split>/<model>/<dataset>-<split>-<model>-<YYYYMMDD_HHMMSS>.json

A file has `performance` (mean score), `time_taken`, `prompt_tokens`, `completion_tokens`, `cost`
(US dollars), `counts`, `model_name`, `dataset_name`, `split`, `demo`, `extra_metrics`,
`data_fingerprint` and `records`; a record has `index` (of the query in its data set, from 0),
`origin_query`, `prompt`, `prompt_tokens`, `completion_tokens`, `cost`, `score`, `prediction`,
`ground_truth`, `raw_output` and `extra_fields`. That benchmark has no file of its own for a
router's choices: a router is one more model here, with the records of the plans that it chose.

What logs do not hold is null or empty: responses, answers, time. A cell without a score is left
out, since that benchmark reads a missing score as 0. An unknown cost is null.
Source: github.com/ynulihao/LLMRouterBench, arXiv 2601.07206 (README.md, data_collector/storage.py,
baselines/data_loader.py).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from masrouter.errors import EvaluationError
from masrouter.evaluation.exports.files import write_json
from masrouter.evaluation.exports.names import plan_names, renamed, require_grid
from masrouter.evaluation.exports.routing import Progress, RouteOptions
from masrouter.outcomes import Ints, Outcomes
from masrouter.router import Router

_PLAIN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,63}")  # three and a date fit a file name


@dataclass(frozen=True)
class BenchResult:
    """One model on one data set, as the file holds it."""

    dataset: str
    split: str
    model: str
    data: Mapping[str, Any]

    def path(self, when: datetime) -> Path:
        """Where that benchmark looks for it; names that no folder should have are made plain."""
        dataset, split, model = map(_folder, (self.dataset, self.split, self.model))
        stamp = when.astimezone(UTC).strftime("%Y%m%d_%H%M%S")
        return Path(dataset, split, model, f"{dataset}-{split}-{model}-{stamp}.json")


@dataclass(frozen=True)
class BenchResults:
    """The files to write, and what a reader has to know."""

    results: tuple[BenchResult, ...]
    notes: tuple[str, ...]


def bench_results(
    outcomes: Outcomes, *, split: str = "test", names: Mapping[str, str] | None = None
) -> BenchResults:
    """A result for every data set and plan with a scored run; repeated runs are their mean.

    Args:
        names: from the names of `plan_names` to theirs.

    Raises EvaluationError for logs that are not a grid or hold no score.
    """
    require_grid(outcomes, "LLMRouterBench")
    models = renamed(plan_names(outcomes.plans), names or {})
    cells = _Cells(outcomes, split)
    found = [
        result
        for p, model in enumerate(models)
        for result in cells.results(model, np.full(outcomes.n_queries, p))
    ]
    if not found:
        raise EvaluationError("no run has a score, so there are no results to export")
    lacking = outcomes.n_queries * outcomes.n_plans - int(np.isfinite(cells.score).sum())
    notes = [*outcomes.notes, "logs hold no responses: prediction, ground_truth are empty"]
    if lacking:
        notes.append(f"{lacking} pairs of query and plan without a score are left out")
    unpriced = int((np.isfinite(cells.score) & np.isnan(cells.cost)).sum())
    if unpriced:
        notes.append(f"{unpriced} records have no known cost: null")
    return BenchResults(tuple(found), tuple(notes))


def routed_result(
    router: Router,
    outcomes: Outcomes,
    options: RouteOptions,
    *,
    name: str,
    split: str = "test",
    progress: Progress | None = None,
) -> BenchResults:
    """The router as one more model: on each query, the record of the plan that it chooses.

    Queries on which the chosen plan has no score are left out and counted. Results on queries that
    the router was trained on flatter it: export logs that it has not seen.
    """
    require_grid(outcomes, "LLMRouterBench")
    decisions = options.decide(router, outcomes.queries, progress)
    position = {plan: i for i, plan in enumerate(outcomes.plans)}
    chosen = np.array([position.get(decision.plan, -1) for decision in decisions])
    cells = _Cells(outcomes, split)
    found = cells.results(name, chosen)
    if not found:
        raise EvaluationError("no query has a scored run of the plan that the router chooses")
    kept = sum(len(result.data["records"]) for result in found)
    notes = [f"{name}: on queries that it was trained on, its results are in sample"]
    if kept < outcomes.n_queries:
        notes.append(
            f"{name}: on {outcomes.n_queries - kept} of {outcomes.n_queries} queries the chosen "
            "plan has no scored run; they are left out"
        )
    return BenchResults(tuple(found), tuple(notes))


class _Cells:
    """The logs as matrices (N, P), and records out of them."""

    def __init__(self, outcomes: Outcomes, split: str) -> None:
        self.outcomes = outcomes
        self.split = split
        self.score, self.cost = outcomes.dense("score"), outcomes.dense("cost")
        self.prompt = outcomes.dense("prompt_tokens")
        self.completion = outcomes.dense("completion_tokens")
        self.shown = tuple(map(str, outcomes.plans))
        self.queries: dict[str, list[int]] = {}  # by data set, in the order of their ids
        for i, dataset in enumerate(outcomes.datasets):
            self.queries.setdefault(dataset, []).append(i)

    def results(self, model: str, chosen: Ints) -> list[BenchResult]:
        """One for each data set with a record; `chosen` (N,) plan positions, negative for none."""
        found = []
        for dataset, queries in sorted(self.queries.items()):
            records = [
                self._record(index, i, int(chosen[i]))
                for index, i in enumerate(queries)
                if chosen[i] >= 0 and np.isfinite(self.score[i, chosen[i]])
            ]
            if records:
                data = self._file(dataset, model, records)
                found.append(BenchResult(dataset, self.split, model, data))
        return found

    def _record(self, index: int, query: int, plan: int) -> dict[str, Any]:
        text = self.outcomes.queries[query]
        return {
            "index": index,
            "origin_query": text,
            "prompt": text,
            "prompt_tokens": _tokens(self.prompt[query, plan]),
            "completion_tokens": _tokens(self.completion[query, plan]),
            "cost": float(cost) if np.isfinite(cost := self.cost[query, plan]) else None,
            "score": float(self.score[query, plan]),
            "prediction": "",
            "ground_truth": "",
            "raw_output": None,
            "extra_fields": {
                "query_id": self.outcomes.query_ids[query],
                "plan": self.shown[plan],
            },
        }

    def _file(self, dataset: str, model: str, records: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "performance": float(np.mean([record["score"] for record in records])),
            "time_taken": None,
            "prompt_tokens": _total(records, "prompt_tokens"),
            "completion_tokens": _total(records, "completion_tokens"),
            "cost": _total(records, "cost"),
            "counts": len(records),
            "model_name": model,
            "dataset_name": dataset,
            "split": self.split,
            "demo": False,
            "extra_metrics": {},
            "data_fingerprint": "",
            "records": records,
        }


def write_bench(
    results: Sequence[BenchResult], folder: str | Path, *, when: datetime | None = None
) -> list[Path]:
    """Write the files below `folder` (that benchmark's results/bench) and return their paths.

    `when` stands in the names; now if None. That benchmark reads the latest of a model. Raises
    EvaluationError where two results are of the same data set and model.
    """
    when = when or datetime.now(UTC)
    seen: set[tuple[str, str]] = set()
    for result in results:
        if (result.dataset, result.model) in seen:
            raise EvaluationError(
                f"name: {result.model!r} stands for two models; give the router another name"
            )
        seen.add((result.dataset, result.model))
    paths = []
    for result in results:
        path = Path(folder) / result.path(when)
        write_json(path, result.data)
        paths.append(path)
    return paths


def _tokens(mean: float) -> float | int | None:
    """A count, broken only where it is the mean of several runs; None for unknown."""
    if not np.isfinite(mean):
        return None
    return int(mean) if float(mean).is_integer() else float(mean)


def _total(records: Sequence[Mapping[str, Any]], field: str) -> float | int | None:
    """The sum, None where any is unknown."""
    values = [record[field] for record in records]
    return None if None in values else sum(values)


def _folder(name: str) -> str:
    """A name as a folder's: one that is not plain is made so, with a digest to stay distinct."""
    if _PLAIN.fullmatch(name):
        return name
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip(".-")[:60]
    return f"{plain or 'name'}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
