"""Log schema 1: the fields, what each may hold, and how a record becomes a row.

One record is one run of one plan on one query. The rules are a table (`FIELDS`), so that the
vectorised check, the line-by-line check and the messages cannot disagree.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import pyarrow as pa

from masrouter.errors import LogError
from masrouter.types import Agent, LogRecord, Plan, Usage

SCHEMA_VERSION = 1


class FieldType(StrEnum):
    """What a field holds, in JSON's words."""

    TEXT = "text"
    INTEGER = "integer"
    NUMBER = "number"
    TIME = "time"
    AGENTS = "agents"
    STAGES = "stages"


@dataclass(frozen=True, slots=True)
class Field:
    """One field of the schema, and the rule that its values meet."""

    name: str
    type: FieldType
    expected: str
    """The rule in words; messages are `file:line: name: expected ..., got ...`."""
    required: bool = False
    low: float | None = None
    high: float | None = None
    low_open: bool = False
    """True where `low` itself is not allowed."""


def _text(name: str) -> Field:
    return Field(name, FieldType.TEXT, "expected a non-empty string", required=True)


def _optional_text(name: str) -> Field:
    return Field(name, FieldType.TEXT, "expected a string or null")


def _count(name: str) -> Field:
    return Field(name, FieldType.INTEGER, "expected an integer >= 0 or null", low=0)


def _amount(name: str) -> Field:
    return Field(name, FieldType.NUMBER, "expected a finite number >= 0 or null", low=0)


FIELDS: tuple[Field, ...] = (
    Field("schema_version", FieldType.INTEGER, "expected the integer 1", True, low=1, high=1),
    _text("run_id"),
    _text("query_id"),
    _text("query"),
    _text("dataset"),
    _optional_text("task"),
    _text("topology"),
    Field("agents", FieldType.AGENTS, "expected a non-empty list of {role, model}", required=True),
    Field("score", FieldType.NUMBER, "expected a number in [0, 1] or null", low=0, high=1),
    _text("score_source"),
    _count("prompt_tokens"),
    _count("completion_tokens"),
    _amount("cost_usd"),
    _amount("latency_s"),
    Field(
        "propensity",
        FieldType.NUMBER,
        "expected a number in (0, 1] or null",
        low=0,
        high=1,
        low_open=True,
    ),
    Field(
        "stage_propensities",
        FieldType.STAGES,
        "expected an object whose probabilities are in (0, 1], or null",
    ),
    _optional_text("policy"),
    Field("seed", FieldType.INTEGER, "expected an integer of 64 bits or null"),
    _optional_text("error"),
    Field(
        "timestamp",
        FieldType.TIME,
        "expected an ISO 8601 time such as 2025-01-31T12:00:00Z, or null",
    ),
)

AGENT_FIELDS: tuple[Field, ...] = (
    Field("role", FieldType.TEXT, "expected a non-empty string or null"),
    _text("model"),
    _count("prompt_tokens"),
    _count("completion_tokens"),
)

AGENT_TYPE = pa.struct(
    [
        ("role", pa.string()),
        ("model", pa.string()),
        ("prompt_tokens", pa.int64()),
        ("completion_tokens", pa.int64()),
    ]
)

_ARROW = {
    FieldType.TEXT: pa.large_string(),
    FieldType.TIME: pa.large_string(),
    FieldType.INTEGER: pa.int64(),
    FieldType.NUMBER: pa.float64(),
    FieldType.AGENTS: pa.list_(AGENT_TYPE),
    # JSON text: an object of any shape survives JSONL and Parquet unchanged.
    FieldType.STAGES: pa.large_string(),
}

SCHEMA = pa.schema([(field.name, _ARROW[field.type]) for field in FIELDS])
"""The canonical columns of a batch of log rows; `stage_propensities` is JSON text."""

SEAL = b"masrouter.columns"
"""Key of the Parquet metadata that repeats the column names of a file written here.

Pages have checksums and the footer has none: a flipped bit in a name would make a column unknown.
"""


def column_names(schema: Any) -> bytes:
    """The names of a pyarrow schema's columns and of the seats' fields, one a line."""
    names = list(schema.names)
    if "agents" in names:
        kind = schema.field("agents").type
        seat = getattr(kind, "value_type", kind)
        names += [f"agents[].{seat.field(i).name}" for i in range(seat.num_fields)]
    return "\n".join(names).encode("utf-8", "replace")


FIELD_NAMES = frozenset(field.name for field in FIELDS)
AGENT_FIELD_NAMES = frozenset(field.name for field in AGENT_FIELDS)


def refuse_version(where: str, version: object) -> LogError:
    """The error for a log that a later program wrote."""
    return LogError(
        f"{where}: schema_version: the log is of schema version {version}, and this program reads "
        f"version {SCHEMA_VERSION}; upgrade masrouter to read it"
    )


def record_to_json(record: LogRecord) -> dict[str, Any]:
    """A record as the JSON object of one log line; optional fields that are null are left out.

    Raises LogError where the record holds what the schema has no place for.
    """
    where = f"record {record.run_id!r}"
    split = record.agent_usage
    if split and len(split) != len(record.plan.agents):
        raise LogError(
            f"{where}: agent_usage: expected one entry for each of the "
            f"{len(record.plan.agents)} agents or none, got {len(split)}"
        )
    if any(usage.cost_usd is not None for usage in split):
        raise LogError(
            f"{where}: agent_usage: the schema has no cost for single agents; "
            "put the total in usage.cost_usd"
        )
    agents: list[dict[str, Any]] = []
    for index, agent in enumerate(record.plan.agents):
        seat: dict[str, Any] = {"role": agent.role, "model": agent.model}
        if split:
            tokens = {
                "prompt_tokens": split[index].prompt_tokens,
                "completion_tokens": split[index].completion_tokens,
            }
            seat |= {name: count for name, count in tokens.items() if count is not None}
        agents.append(seat)
    stages = record.stage_propensities
    row: dict[str, Any] = {
        "schema_version": record.schema_version,
        "run_id": record.run_id,
        "query_id": record.query_id,
        "query": record.query,
        "dataset": record.dataset,
        "task": record.task,
        "topology": record.plan.topology,
        "agents": agents,
        "score": record.score,
        "score_source": record.score_source,
        "prompt_tokens": record.usage.prompt_tokens,
        "completion_tokens": record.usage.completion_tokens,
        "cost_usd": record.usage.cost_usd,
        "latency_s": record.latency_s,
        "propensity": record.propensity,
        "stage_propensities": dict(stages) if isinstance(stages, Mapping) else stages,
        "policy": record.policy,
        "seed": record.seed,
        "error": record.error,
        "timestamp": record.timestamp,
    }
    return _compact(row)


def row_to_json(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of a `SCHEMA` batch (`to_pylist`) as the JSON object of one log line."""
    data = dict(row)
    stages = row["stage_propensities"]
    data["stage_propensities"] = None if stages is None else json.loads(stages)
    data["agents"] = [
        {name: value for name, value in agent.items() if value is not None or name == "role"}
        for agent in row["agents"]
    ]
    return _compact(data)


def row_to_record(row: Mapping[str, Any]) -> LogRecord:
    """A valid row of a `SCHEMA` batch (`to_pylist`) as a record."""
    agents = row["agents"]
    split = tuple(Usage(agent["prompt_tokens"], agent["completion_tokens"]) for agent in agents)
    known = any(usage != Usage() for usage in split)
    stages = row["stage_propensities"]
    return LogRecord(
        run_id=row["run_id"],
        query_id=row["query_id"],
        query=row["query"],
        dataset=row["dataset"],
        plan=Plan(
            topology=row["topology"],
            agents=tuple(Agent(agent["role"], agent["model"]) for agent in agents),
        ),
        score=row["score"],
        score_source=row["score_source"],
        usage=Usage(row["prompt_tokens"], row["completion_tokens"], row["cost_usd"]),
        agent_usage=split if known else (),
        task=row["task"],
        latency_s=row["latency_s"],
        propensity=row["propensity"],
        stage_propensities=None if stages is None else json.loads(stages),
        policy=row["policy"],
        seed=row["seed"],
        error=row["error"],
        timestamp=row["timestamp"],
        schema_version=row["schema_version"],
    )


def _compact(row: dict[str, Any]) -> dict[str, Any]:
    # `score` stays: "not known" is an outcome that a reader should see.
    return {name: value for name, value in row.items() if value is not None or name == "score"}
