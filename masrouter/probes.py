"""Probe runs of a new candidate, gathered into cells: what a few dozen runs say, checked.

Not here: what is learned from them (`adaptation`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from masrouter.candidates import Candidates
from masrouter.errors import LogError
from masrouter.logs import Logs
from masrouter.router_checks import MOST_PROBES
from masrouter.tensor_layout import TARGETS
from masrouter.types import LogRecord, Plan

Kind = Literal["model", "role", "topology"]
KINDS: tuple[Kind, ...] = ("model", "role", "topology")
LEAST_AMOUNT = 1e-9
"""US dollars or tokens that a free call counts as, under a logarithm."""


@dataclass(frozen=True)
class Probes:
    """n probe cells: mean outcomes of one plan on one query."""

    texts: tuple[str, ...]  # (q,) distinct queries
    query: Tensor  # (n,) int32 index into texts
    plan: Tensor  # (n,) int32 index into the plans that are added
    runs: Tensor  # (n,) int32
    targets: Tensor  # (n, 4) see `additions.TARGETS`; NaN unknown

    @classmethod
    def none(cls) -> Probes:
        """No cell at all."""
        empty = torch.zeros(0, dtype=torch.int32)
        return cls((), empty, empty, empty, torch.zeros(0, len(TARGETS)))


def uses(plan: Plan, kind: Kind, name: str) -> bool:
    """Whether a plan has this model, role or topology."""
    if kind == "topology":
        return plan.topology == name
    if kind == "role":
        return any(agent.role == name for agent in plan.agents)
    return name in plan.models


def unknown_name(plan: Plan, known: Candidates, kind: Kind, name: str) -> str:
    """The first name that is neither known nor the new one, with its kind; else empty."""
    new = {key: {name} if key == kind else set() for key in KINDS}
    if plan.topology not in {*known.topologies.names, *new["topology"]}:
        return f"topology {plan.topology!r}"
    for agent in plan.agents:
        if agent.role is not None and agent.role not in {*known.roles.names, *new["role"]}:
            return f"role {agent.role!r}"
        if agent.model not in {*known.models.names, *new["model"]}:
            return f"model {agent.model!r}"
    return ""


def read_probes(probes: Iterable[LogRecord]) -> list[LogRecord]:
    """Checked by the rules of log files; LogError names the row."""
    if isinstance(probes, Logs):
        return list(probes)
    records = list(probes) if isinstance(probes, Iterable) else [probes]
    for row, record in enumerate(records, 1):
        if not isinstance(record, LogRecord):
            raise LogError(
                f"probes: row {row}: expected a LogRecord, got {record!r}; masrouter.read_logs "
                "reads them from files"
            )
    return list(Logs.from_records(records, source="probes"))


def gather(
    records: Sequence[LogRecord], plans: Sequence[Plan], kind: Kind, name: str, known: Candidates
) -> Probes:
    """Runs as cells; LogError for a run that says nothing of the new candidate."""
    position = {plan: i for i, plan in enumerate(plans)}
    queries: dict[str, int] = {}  # by text: whatever its ids, it is read the same
    cells: dict[tuple[int, int], list[LogRecord]] = {}
    for row, record in enumerate(records, 1):
        where = f"probes:row {row}"
        if not uses(record.plan, kind, name):
            raise LogError(
                f"{where}: agents: {record.plan} does not use {kind} {name!r}; a probe is a run of "
                "what is added"
            )
        unknown = unknown_name(record.plan, known, kind, name)
        if unknown:
            raise LogError(f"{where}: agents: {unknown} is unknown to this router")
        if record.plan not in position:
            raise LogError(f"{where}: agents: {record.plan} is not among the plans to add")
        if record.score is None:
            raise LogError(f"{where}: score: expected a number in [0, 1], got null; grade the run")
        query = queries.setdefault(record.query, len(queries))
        cells.setdefault((query, position[record.plan]), []).append(record)
    if len(cells) > MOST_PROBES:
        raise LogError(
            f"probes: {len(cells)} outcomes, at most {MOST_PROBES} can be added to a trained "
            "router; train on them together with the logs"
        )
    order = sorted(cells)
    return Probes(
        tuple(queries),
        torch.tensor([query for query, _ in order], dtype=torch.int32),
        torch.tensor([plan for _, plan in order], dtype=torch.int32),
        torch.tensor([len(cells[key]) for key in order], dtype=torch.int32),
        torch.tensor([_targets(cells[key]) for key in order]).reshape(-1, len(TARGETS)),
    )


def _targets(runs: Sequence[LogRecord]) -> list[float]:
    """Mean score, and logarithms of mean cost and tokens; NaN where no run knows it."""
    score = _mean([run.score for run in runs])
    usages = [run.usage for run in runs]
    amounts = (
        _mean([usage.cost_usd for usage in usages]),
        _mean([usage.prompt_tokens for usage in usages]),
        _mean([usage.completion_tokens for usage in usages]),
    )
    return [score, *(math.log(max(a, LEAST_AMOUNT)) if a == a else a for a in amounts)]


def _mean(values: Sequence[float | None]) -> float:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else math.nan
