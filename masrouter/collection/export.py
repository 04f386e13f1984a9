"""What a collection's file holds: a summary, and its runs as logs of schema 1."""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from masrouter.collection.store import Spending, reading, spending
from masrouter.errors import CollectionError
from masrouter.logs import convert

_CLOCK = ("latency_s", "timestamp")


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written."""

    runs: int
    failed: int
    """Runs without a score; they are in the logs too, with their error."""
    path: Path


@dataclass(frozen=True, slots=True)
class PolicyStatus:
    """The finished runs of one policy."""

    policy: str
    runs: int
    failed: int
    """Without an answer."""
    mean_score: float | None


@dataclass(frozen=True, slots=True)
class Status:
    """How far a collection is."""

    policies: tuple[PolicyStatus, ...]
    spending: Spending


def status(path: str | Path) -> Status:
    """Count what a collection has finished and spent; also while it is being collected."""
    with reading(path) as connection:
        rows = connection.execute(
            "SELECT COALESCE(json_extract(record, '$.policy'), '') AS policy, COUNT(*) AS runs,"
            " SUM(answer IS NULL) AS failed, AVG(json_extract(record, '$.score')) AS score"
            " FROM runs GROUP BY 1 ORDER BY 1"
        ).fetchall()
        return Status(tuple(PolicyStatus(*row) for row in rows), spending(connection))


def export(
    path: str | Path,
    destination: str | Path,
    *,
    policies: tuple[str, ...] = (),
    clock: bool = True,
) -> Exported:
    """Write a collection's finished runs as .parquet, .jsonl or .jsonl.gz, in a fixed order.

    policies: only these; all where empty. clock: False leaves out latency_s and timestamp, the only
    fields that another collection of the same runs would not repeat. Also while it is being
    collected: then what is finished now. Raises CollectionError where there is nothing to write,
    LogError where the destination cannot be written.
    """
    rows = _rows(path, policies)
    if not clock:
        rows = [{k: v for k, v in row.items() if k not in _CLOCK} for row in rows]
    target = Path(destination)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="masrouter-export-") as folder:
            lines = Path(folder) / f"{Path(path).stem}.jsonl"
            with lines.open("w", encoding="utf-8") as file:
                file.writelines(json.dumps(row, allow_nan=False) + "\n" for row in rows)
            # One reader and one writer of logs: what is exported has passed the schema's checks.
            convert(lines, target, strict=True)
    except OSError as error:
        raise CollectionError(f"{target}: cannot be written: {error.strerror or error}") from error
    return Exported(len(rows), sum(row.get("score") is None for row in rows), target)


def _rows(path: str | Path, policies: tuple[str, ...]) -> list[dict[str, Any]]:
    with reading(path) as connection:
        found = [row["record"] for row in connection.execute("SELECT record FROM runs")]
    try:
        rows: list[dict[str, Any]] = [json.loads(record) for record in found]
        rows.sort(key=lambda r: (r["dataset"], r["query_id"], str(r.get("policy")), r["run_id"]))
    except (ValueError, KeyError, TypeError) as error:
        raise CollectionError(f"{path}: holds a run that is no log record: {error!r}") from error
    there = {str(row.get("policy")) for row in rows}
    if unknown := [policy for policy in policies if policy not in there]:
        raise CollectionError(
            f"{path}: no finished run of policy {unknown[0]!r}; there are "
            f"{', '.join(map(repr, sorted(there))) or 'none at all'}"
        )
    if not rows:
        raise CollectionError(f"{path}: no finished run to export")
    return [row for row in rows if not policies or row.get("policy") in policies]
