"""Finished pieces of a cross-validation on disk, so that an interrupted one goes on.

JSON lines: a header with the fingerprint of the data and the protocol, then one line a piece.
Not here: what a piece is made of (`crossval`).
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from masrouter.errors import EvaluationError
from masrouter.evaluation.learners import Embeddings
from masrouter.outcomes import Floats, Ints, Outcomes

FORMAT = "masrouter cross-validation"
VERSION = 2


@dataclass(frozen=True)
class UnitKey:
    """One learner on one split."""

    left_out: str
    seed: int
    fold: int
    learner: str


@dataclass(frozen=True)
class UnitResult:
    """What one learner chose on the n test queries of one split, at W cost weights."""

    chosen: Ints  # (W, n) plan index, -1 where the query cannot be evaluated
    expected: Floats  # (W, n) expected score of the choice, NaN where none was said
    notes: tuple[str, ...] = ()
    not_applicable: str | None = None
    domains: tuple[str, ...] | None = None  # (n,) predicted from the text, where the learner does


class UnitStore:
    """Append-only file of finished units; without a path, it only remembers.

    Raises EvaluationError where the file belongs to other data or settings, or is damaged. A last
    line that was cut off while it was written is dropped, and its unit is done again.
    """

    def __init__(self, path: Path | None, fingerprint: str) -> None:
        self._path = path
        self._units: dict[UnitKey, UnitResult] = {}
        if path is None:
            return
        header = {"format": FORMAT, "version": VERSION, "fingerprint": fingerprint}
        if path.exists() and path.stat().st_size > 0:
            self._read(path, header)
        if not path.exists() or path.stat().st_size == 0:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(header) + "\n", encoding="utf-8")

    def get(self, key: UnitKey) -> UnitResult | None:
        return self._units.get(key)

    def put(self, key: UnitKey, result: UnitResult) -> None:
        self._units[key] = result
        if self._path is None:
            return
        line = {
            "left_out": key.left_out,
            "seed": key.seed,
            "fold": key.fold,
            "learner": key.learner,
            "chosen": result.chosen.tolist(),
            "expected": [
                [None if np.isnan(value) else value for value in row]
                for row in result.expected.tolist()
            ],
            "notes": list(result.notes),
            "not_applicable": result.not_applicable,
            "domains": None if result.domains is None else list(result.domains),
        }
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def _read(self, path: Path, header: dict[str, Any]) -> None:
        content = path.read_bytes()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            with path.open("r+b") as file:
                file.truncate(whole)
        for number, line in enumerate(content[:whole].splitlines(), start=1):
            try:
                data = json.loads(line)
                if number > 1:
                    self._units[_key(data)] = _result(data)
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise EvaluationError(
                    f"{path}:{number}: not a line of a cross-validation ({error}); "
                    "delete the file to start over"
                ) from error
            if number == 1 and isinstance(data, dict) and data.get("version") != VERSION:
                raise EvaluationError(
                    f"{path}:1: unfinished work of version {data.get('version')!r}; this masrouter "
                    f"goes on with version {VERSION}; delete the file to start over"
                )
            if number == 1 and data != header:
                raise EvaluationError(
                    f"{path}:1: the file holds work on other data, embeddings, cost weights or "
                    "folds; delete it or name another file"
                )


def _key(data: dict[str, Any]) -> UnitKey:
    return UnitKey(
        str(data["left_out"]), int(data["seed"]), int(data["fold"]), str(data["learner"])
    )


def _result(data: dict[str, Any]) -> UnitResult:
    chosen = np.array(data["chosen"], dtype=np.int64)
    expected = np.array(data["expected"], dtype=np.float64)  # null reads as NaN
    if chosen.ndim != 2 or chosen.shape != expected.shape:
        raise ValueError(f"chosen {chosen.shape} and expected {expected.shape} differ")
    why, domains = data["not_applicable"], data["domains"]
    if domains is not None and len(domains) != chosen.shape[1]:
        raise ValueError(f"{len(domains)} domains for {chosen.shape[1]} queries")
    return UnitResult(
        chosen,
        expected,
        tuple(str(note) for note in data["notes"]),
        None if why is None else str(why),
        None if domains is None else tuple(str(name) for name in domains),
    )


def fingerprint(
    outcomes: Outcomes, embeddings: Embeddings, protocol: str, cost_weights: tuple[float, ...]
) -> str:
    """sha256 of all that finished work depends on, apart from the learners, which go by name."""
    digest = hashlib.sha256()
    texts = [
        protocol,
        list(cost_weights),
        outcomes.query_ids,
        outcomes.queries,
        outcomes.datasets,
        [plan.to_json() for plan in outcomes.plans],
    ]
    digest.update(json.dumps(texts).encode())
    for array in (outcomes.query, outcomes.plan, outcomes.score, outcomes.cost, embeddings):
        digest.update(str(array.dtype).encode() + str(array.shape).encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
