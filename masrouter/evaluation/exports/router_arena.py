"""RouterArena's prediction file: for each of its queries, the model that should answer.

A JSON list; an entry has `global index`, `prompt`, `prediction` (a model's name) and, null until
its own pipeline has asked that model, `generated_result`, `cost` and `accuracy`. Beside it, a
config file names the router and its models.

RouterArena asks one model once. A team of several agents cannot be said in it and is refused. A
topology that one agent plays (io, cot, self-refinement) cannot be said either: its model is named,
and a note counts how often.
Source: github.com/RouteWorks/RouterArena, arXiv 2510.00202 (README.md,
router_inference/generate_prediction_file.py, check_config_prediction_files.py).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from masrouter.errors import EvaluationError
from masrouter.evaluation.exports.files import write_json
from masrouter.evaluation.exports.routing import Progress, RouteOptions
from masrouter.router import Router
from masrouter.strict_yaml import describe, did_you_mean

INDEX = ("global index", "global_index", "Global Index")
PROMPT = ("prompt_formatted", "prompt")


@dataclass(frozen=True, slots=True)
class ArenaQuery:
    """A query of RouterArena."""

    index: str
    """Its `global index`."""
    prompt: str
    """As it is sent to the model (`prompt_formatted`)."""


@dataclass(frozen=True)
class ArenaPredictions:
    """The entries of a prediction file."""

    entries: tuple[Mapping[str, Any], ...]
    models: tuple[str, ...]
    """Every model that is predicted, sorted: the config's list."""
    notes: tuple[str, ...]


def read_arena_queries(path: str | Path) -> list[ArenaQuery]:
    """RouterArena's data set: .json (a list, as its own script writes it), .jsonl, .csv, .parquet.

    Each entry has an index (`global index`, `global_index` or `Global Index`) and a prompt
    (`prompt_formatted`, else `prompt`). Raises EvaluationError with file, entry and field.
    """
    path = Path(path)
    queries: list[ArenaQuery] = []
    seen: set[str] = set()
    for where, row in _rows(path):
        if not isinstance(row, Mapping):
            raise EvaluationError(f"{where}: expected an object, got {describe(row)}")
        query = ArenaQuery(_text(row, INDEX, where), _text(row, PROMPT, where))
        if query.index in seen:
            raise EvaluationError(f"{where}: {INDEX[0]}: {query.index!r} stands twice")
        seen.add(query.index)
        queries.append(query)
    if not queries:
        raise EvaluationError(f"{path}: no queries")
    return queries


def _rows(path: Path) -> Iterator[tuple[str, Any]]:
    """Each entry, with where it stands."""
    try:
        if path.suffix == ".json":
            data = json.loads(path.read_bytes())
            if not isinstance(data, list):
                raise EvaluationError(f"{path}: expected a list, got {describe(data)}")
            yield from ((f"{path}: entry {i}", row) for i, row in enumerate(data))
        elif path.suffix == ".jsonl":
            with path.open(encoding="utf-8") as lines:
                for number, line in enumerate(lines, start=1):
                    if line.strip():
                        yield f"{path}:{number}", _object(line, path, number)
        elif path.suffix == ".csv":
            table = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig")
            rows = table.to_dict("records")
            yield from ((f"{path}: row {i}", row) for i, row in enumerate(rows))
        elif path.suffix == ".parquet":
            rows = pq.read_table(path).to_pylist()
            yield from ((f"{path}: row {i}", row) for i, row in enumerate(rows))
        else:
            raise EvaluationError(f"{path}: expected a .json, .jsonl, .csv or .parquet file")
    except OSError as error:
        raise EvaluationError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError, pa.ArrowException) as error:
        raise EvaluationError(f"{path}: not a file of its kind: {error}") from error


def _object(line: str, path: Path, number: int) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        raise EvaluationError(f"{path}:{number}: not JSON: {error}") from error


def _text(row: Mapping[str, Any], fields: Sequence[str], where: str) -> str:
    """The first of the fields that is there, which must be text."""
    for field in fields:
        if row.get(field) is None:
            continue
        value = row[field]
        if not isinstance(value, str) or not value.strip():
            raise EvaluationError(f"{where}: {field}: expected text, got {describe(value)}")
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise EvaluationError(f"{where}: {field}: not text: {error.reason}") from error
        return value
    raise EvaluationError(f"{where}: {fields[0]}: missing; the entry has {_listed(row)}")


def _listed(row: Mapping[str, Any]) -> str:
    return ", ".join(sorted(map(str, row))[:10]) or "no field"


def arena_predictions(
    router: Router,
    queries: Sequence[ArenaQuery],
    options: RouteOptions,
    *,
    names: Mapping[str, str] | None = None,
    progress: Progress | None = None,
) -> ArenaPredictions:
    """Route every query and name the model.

    Args:
        names: from masrouter's names of models to RouterArena's; others keep their own.

    Raises EvaluationError where the router chooses a team of several agents (`max_agents` = 1
    keeps it to single ones), and for an entry of `names` that is no model of the router.
    """
    names = names or {}
    known = {model for plan in router.plans for model in plan.models}
    for name in names:
        if name not in known:
            raise EvaluationError(
                f"names: {name!r} is no model of this router{did_you_mean(name, known)}"
            )
    decisions = options.decide(router, [query.prompt for query in queries], progress)
    teams = [decision.plan for decision in decisions if len(decision.plan.agents) > 1]
    if teams:
        raise EvaluationError(
            f"on {len(teams)} of {len(queries)} queries the router chooses a team, such as "
            f"{teams[0]}; RouterArena asks one model once: route with max_agents=1 "
            "(--max-agents 1) to keep to single agents"
        )
    chosen = [decision.plan.agents[0].model for decision in decisions]
    entries = tuple(
        {
            "global index": query.index,
            "prompt": query.prompt,
            "prediction": names.get(model, model),
            "generated_result": None,
            "cost": None,
            "accuracy": None,
        }
        for query, model in zip(queries, chosen, strict=True)
    )
    shapes = Counter(decision.plan.topology for decision in decisions)
    notes = [
        "RouterArena asks the bare model; the plans were "
        + ", ".join(f"{topology} ({times})" for topology, times in shapes.most_common())
    ]
    own = sorted(set(chosen) - set(names))
    if own:
        notes.append(f"named as in masrouter: {', '.join(own)}")
    models = tuple(sorted({str(entry["prediction"]) for entry in entries}))
    return ArenaPredictions(entries, models, tuple(notes))


def write_arena_predictions(predictions: ArenaPredictions, path: str | Path) -> None:
    """Write the prediction file (that benchmark's router_inference/predictions/NAME.json)."""
    write_json(Path(path), list(predictions.entries))


def write_arena_config(predictions: ArenaPredictions, path: str | Path) -> None:
    """Write the config (that benchmark's router_inference/config/NAME.json): name and models."""
    path = Path(path)
    parameters = {"router_name": path.stem, "models": list(predictions.models)}
    write_json(path, {"pipeline_params": parameters})
