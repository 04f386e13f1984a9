"""What a collection holds of a live evaluation's design, and what it is held to.

Axes: A arms, n problems, R repeats. Not here: making the runs, figures (`figures`).
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from masrouter.catalog import Catalog
from masrouter.collection import Store
from masrouter.collection.store import insert, reading
from masrouter.errors import EvaluationError
from masrouter.evaluation.live.design import LiveDesign
from masrouter.outcomes import Bools, Floats
from masrouter.problems import Problem


@dataclass(frozen=True, slots=True)
class LiveRuns:
    """What a collection holds of a design; each array (A, n, R)."""

    finished: Bools
    failed: Bools
    """Finished without an answer."""
    score: Floats
    """0 for a run without an answer; NaN where it is not finished."""
    cost_usd: Floats
    """NaN where unknown, as in `tokens` and `latency_s`."""
    tokens: Floats
    """Of prompts and completions together."""
    latency_s: Floats
    """Of runs that went in one go."""
    answers: np.ndarray
    """Text, None where there is none."""
    errors: np.ndarray
    """Why there is no answer, None where there is one."""


def pin_settings(store: Store, design: LiveDesign, **settings: str) -> None:
    """Hold a collection to what its runs depend on beside plan, problem, seed and prompts.

    Other problems, plans, repeats or routers may come later: their runs are others. Raises
    CollectionError for other settings, EvaluationError where a problem is no longer what it was,
    or where there are runs that no evaluation has made.
    """
    now = {f"problem {problem.problem_id}": _digest(problem) for problem in design.problems}
    rows = store.read("SELECT key, value FROM pins WHERE key LIKE 'problem %'")
    before = {row["key"]: row["value"] for row in rows}
    if not before and store.finished():
        raise EvaluationError(
            f"{store.path}: holds runs of `masrouter collect`, of which nobody knows under what "
            "settings they were made; evaluate into another folder"
        )
    for name, value in settings.items():
        store.pin(name, value)
    for key, digest in now.items():
        if before.get(key, digest) != digest:
            raise EvaluationError(
                f"{store.path}: holds runs of {key!r} as it was before its question or its tests "
                "were changed; evaluate into another folder"
            )
    new = [insert("pins", {"key": k, "value": v}) for k, v in now.items() if k not in before]
    store.post(*new).result()


def read_runs(path: str | Path, design: LiveDesign, catalog: Catalog) -> LiveRuns:
    """Look a design's runs up in a collection; also while they are being made."""
    ids = design.run_ids(catalog)
    found: dict[str, tuple[str, str | None]] = {}
    wanted = set(ids.ravel())
    with reading(path) as connection:
        for run_id, record, answer in connection.execute("SELECT run_id, record, answer FROM runs"):
            if run_id in wanted:
                found[run_id] = (record, answer)
    shape = ids.shape
    finished, failed = np.zeros(shape, dtype=np.bool_), np.zeros(shape, dtype=np.bool_)
    values = np.full((4, *shape), np.nan)
    answers, errors = np.full((2, *shape), None, dtype=object)
    for cell in np.ndindex(*shape):
        text, answers[cell] = found.get(ids.item(cell), (None, None))
        if text is not None:
            finished[cell], failed[cell] = True, answers[cell] is None
            values[:, *cell], errors[cell] = _values(text, path)
    score, cost, tokens, latency = values
    return LiveRuns(finished, failed, score, cost, tokens, latency, answers, errors)


def _values(record: str, path: str | Path) -> tuple[list[float], str | None]:
    """Score, cost, tokens and latency of a run, and its error."""
    try:
        data: dict[str, Any] = json.loads(record)
        score, cost, latency = (data.get(k) for k in ("score", "cost_usd", "latency_s"))
        prompt, completion = data.get("prompt_tokens"), data.get("completion_tokens")
        tokens = None if prompt is None or completion is None else prompt + completion
        # A team that gives no answer has not solved the problem.
        score = 0.0 if score is None else score
        known = [np.nan if v is None else float(v) for v in (score, cost, tokens, latency)]
        return known, data.get("error")
    except (ValueError, TypeError, AttributeError) as error:
        raise EvaluationError(f"{path}: holds a run that is no log record: {error!r}") from error


def _digest(problem: Problem) -> str:
    text = json.dumps([problem.query, repr(problem.grader)])
    return hashlib.sha256(text.encode("ascii")).hexdigest()[:16]
