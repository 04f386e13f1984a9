"""A server's records as a log of schema 1, which `masrouter train` reads: the loop is closed.

One decision is one row. The run id is the decision's id, the query id follows from the text. Where
the team ran here, tokens, cost and time are the run's; else they are what the client told with the
outcome, or unknown. A score comes from an outcome alone.
"""

from __future__ import annotations

import json
import sqlite3
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from masrouter.errors import ConfigError, LogError
from masrouter.importers.options import UNSCORED
from masrouter.logs import convert
from masrouter.logs.schema import record_to_json
from masrouter.server.records_file import reading
from masrouter.types import LogRecord, Plan, Usage

_ROWS = """
SELECT d.*, r.cost_usd AS run_cost, r.prompt_tokens AS run_prompt,
  r.completion_tokens AS run_completion, r.agents, r.latency_s AS run_latency,
  r.error AS run_error, r.decision_id IS NOT NULL AS ran, o.score, o.score_source,
  o.cost_usd AS told_cost, o.prompt_tokens AS told_prompt, o.completion_tokens AS told_completion,
  o.latency_s AS told_latency, o.error AS told_error
FROM decisions d LEFT JOIN runs r ON r.decision_id = d.id
  LEFT JOIN outcomes o ON o.decision_id = d.id
WHERE d.time >= ? ORDER BY d.time, d.id
"""


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written, and what was left out."""

    path: Path
    rows: int
    scored: int
    """Rows with a score; the others teach nothing of how good a plan is."""
    with_propensity: int
    left_out: int
    """Decisions that `scored` or `randomised` left out."""


@dataclass(frozen=True, slots=True)
class Served:
    """What a records file holds."""

    decisions: int
    with_propensity: int
    runs: int
    failed: int
    """Runs without an answer."""
    outcomes: int
    scored: int
    mean_score: float | None
    policies: tuple[tuple[str, int], ...]
    spent_usd: tuple[tuple[str, float], ...]
    """By key, of all time; a lower bound where a price was unknown."""
    first: str | None
    last: str | None
    megabytes: float


def export(
    path: str | Path,
    destination: str | Path,
    *,
    since: datetime | None = None,
    scored: bool = False,
    randomised: bool = False,
) -> Exported:
    """Write records as .parquet, .jsonl or .jsonl.gz, oldest first; also while they are served.

    The destination is replaced as a whole, at the end. since: only decisions made then or later.
    scored: only those with a score. randomised: only those with a propensity, since in a log that
    mixes them with others nothing can be weighed. Raises ConfigError where the records cannot be
    read or there is nothing to write, LogError where the destination cannot be written.
    """
    target = Path(destination)
    rows = with_score = with_propensity = left_out = 0
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="masrouter-served-") as folder:
            lines = Path(folder) / "served.jsonl"
            with lines.open("w", encoding="utf-8") as file:
                for record in served_records(path, since=since):
                    lacking = (scored and record.score is None) or (
                        randomised and record.propensity is None
                    )
                    if lacking:
                        left_out += 1
                        continue
                    rows += 1
                    with_score += record.score is not None
                    with_propensity += record.propensity is not None
                    file.write(json.dumps(record_to_json(record), allow_nan=False) + "\n")
            if not rows:
                why = f"all {left_out} are left out" if left_out else "there is no decision"
                raise ConfigError(f"{path}: nothing to export: {why}")
            # One reader and one writer of logs: what is exported has passed the schema's checks.
            convert(lines, target, strict=True)
    except OSError as error:
        raise LogError(f"{target}: cannot be written: {error.strerror or error}") from error
    return Exported(target, rows, with_score, with_propensity, left_out)


def served_records(path: str | Path, *, since: datetime | None = None) -> Iterator[LogRecord]:
    """The log records of a file, oldest first, one at a time; raises ConfigError."""
    with reading(path) as db:
        db.row_factory = sqlite3.Row
        for row in db.execute(_ROWS, (0.0 if since is None else since.timestamp(),)):
            yield _record(row)


def summary(path: str | Path) -> Served:
    """Count what a records file holds; also while it is being served. Raises ConfigError."""
    with reading(path) as db:

        def one(sql: str) -> tuple[float, ...]:
            return tuple(db.execute(sql).fetchone())

        made, free, first, last = one(
            "SELECT COUNT(*), COUNT(propensity), MIN(time), MAX(time) FROM decisions"
        )
        runs, failed = one("SELECT COUNT(*), COUNT(error) FROM runs")
        told, scored, mean = one("SELECT COUNT(*), COUNT(score), AVG(score) FROM outcomes")
        return Served(
            decisions=int(made),
            with_propensity=int(free),
            runs=int(runs),
            failed=int(failed),
            outcomes=int(told),
            scored=int(scored),
            mean_score=mean,
            policies=tuple(
                db.execute("SELECT policy, COUNT(*) FROM decisions GROUP BY 1 ORDER BY 2 DESC")
            ),
            spent_usd=tuple(db.execute("SELECT caller, usd FROM spending ORDER BY 1")),
            first=None if first is None else _time(first),
            last=None if last is None else _time(last),
            megabytes=Path(path).stat().st_size / 1e6,
        )


def _record(row: sqlite3.Row) -> LogRecord:
    ran = bool(row["ran"])
    kind = "run" if ran else "told"
    # Where a run's cost could not be known here, the client may have seen the bill.
    cost = row["told_cost"] if row[f"{kind}_cost"] is None else row[f"{kind}_cost"]
    tokens = json.loads(row["agents"]) if ran else []
    split = tuple(Usage(prompt, completion) for prompt, completion in tokens)
    return LogRecord(
        run_id=row["id"],
        query_id=row["query_id"],
        query=row["query"],
        dataset=row["dataset"],
        task=row["task"],
        plan=Plan.from_json(json.loads(row["plan"])),
        score=row["score"],
        score_source=row["score_source"] or UNSCORED,
        usage=Usage(row[f"{kind}_prompt"], row[f"{kind}_completion"], cost),
        agent_usage=split,
        latency_s=row[f"{kind}_latency"],
        propensity=row["propensity"],
        stage_propensities=None if row["stages"] is None else json.loads(row["stages"]),
        policy=row["policy"],
        error=row["run_error"] or row["told_error"],
        timestamp=_time(row["time"]),
    )


def _time(seconds: float) -> str:
    moment = datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
    return moment.replace("+00:00", "Z")
