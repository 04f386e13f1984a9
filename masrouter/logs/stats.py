"""What some logs hold, and which kind of logs they are.

The kind decides what can be learned: **grid** logs ran each query under (nearly) every plan of its
list, so the best plan of a query can be looked up; **randomised** logs ran few plans but know the
probability of each, so that unseen choices can be weighed; **observational** logs know neither, and
nothing about a plan outside their support can be promised.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from masrouter.logs.table import Logs

MOST = 0.99
"""A share of rows from which a few others are called stray."""
GRID_SHARE = 0.5
"""Share of its data set's plans that the median query of a grid has run."""
DECLARED_GRID_SHARE = 0.25
"""The same, where the rows' policy says `grid`."""


class LogKind(StrEnum):
    """How the logged plans were chosen."""

    GRID = "grid"
    RANDOMISED = "randomised"
    OBSERVATIONAL = "observational"


@dataclass(frozen=True, slots=True)
class KindVerdict:
    """The kind of some logs, and the figures that say so."""

    kind: LogKind
    why: str


@dataclass(frozen=True, slots=True)
class LogStats:
    """What some logs hold. Shares are of all rows; names map to their number of rows."""

    rows: int
    queries: int
    plans: int
    coverage: float
    """Distinct (query, plan) pairs that ran, of all queries times all plans."""
    datasets: Mapping[str, int]
    tasks: Mapping[str, int]
    topologies: Mapping[str, int]
    roles: Mapping[str, int]
    """Seats by role; a seat without one counts as `(none)`."""
    models: Mapping[str, int]
    """Seats by model."""
    team_sizes: Mapping[int, int]
    score_sources: Mapping[str, int]
    policies: Mapping[str, int]
    mean_score: float | None
    """Over the rows with a score; None where there is none."""
    score_known: float
    cost_known: float
    tokens_known: float
    """Share of rows with both prompt and completion tokens."""
    propensity_known: float
    errors: int
    total_cost_usd: float | None
    """Sum of the known costs; None where none is known."""
    first_time: str | None
    last_time: str | None
    kind: LogKind
    why: str
    warnings: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """The figures as JSON-ready data."""
        data = asdict(self)
        return data | {"team_sizes": {str(k): v for k, v in self.team_sizes.items()}}


def log_stats(logs: Logs) -> LogStats:
    """Count what some logs hold."""
    n = len(logs)
    plans = logs.plan_index()
    queries = logs.codes("query_id")
    pairs = _distinct_pairs(queries.rows, plans.row_plan, len(plans.plans))
    cells = len(queries.values) * len(plans.plans)
    rows_of_plan = np.bincount(plans.row_plan, minlength=len(plans.plans))
    roles: dict[str, int] = {}
    models: dict[str, int] = {}
    sizes: dict[int, int] = {}
    for plan, count in zip(plans.plans, rows_of_plan.tolist(), strict=True):
        sizes[len(plan.agents)] = sizes.get(len(plan.agents), 0) + count
        for agent in plan.agents:
            role = agent.role or "(none)"
            roles[role] = roles.get(role, 0) + count
            models[agent.model] = models.get(agent.model, 0) + count
    score = logs.numbers("score")
    cost = logs.numbers("cost_usd")
    tokens = np.isfinite(logs.numbers("prompt_tokens") + logs.numbers("completion_tokens"))
    scored, costed = np.isfinite(score), np.isfinite(cost)
    sources = _counts(logs, "score_source")
    first, last = _time_range(logs)
    verdict = detect_kind(logs)
    return LogStats(
        rows=n,
        queries=len(queries.values),
        plans=len(plans.plans),
        coverage=len(pairs) / cells if cells else 0.0,
        datasets=_counts(logs, "dataset"),
        tasks=_counts(logs, "task"),
        topologies=_counts(logs, "topology"),
        roles=_ranked(roles),
        models=_ranked(models),
        team_sizes=dict(sorted(sizes.items())),
        score_sources=sources,
        policies=_counts(logs, "policy"),
        mean_score=float(score[scored].mean()) if scored.any() else None,
        score_known=_share(scored),
        cost_known=_share(costed),
        tokens_known=_share(tokens),
        propensity_known=_share(np.isfinite(logs.numbers("propensity"))),
        errors=n - logs.table.column("error").null_count,
        total_cost_usd=float(cost[costed].sum()) if costed.any() else None,
        first_time=first,
        last_time=last,
        kind=verdict.kind,
        why=verdict.why,
        warnings=_warnings(n, sources, scored, costed),
    )


def _warnings(
    n: int, sources: Mapping[str, int], scored: npt.NDArray[Any], costed: npt.NDArray[Any]
) -> tuple[str, ...]:
    out: list[str] = []
    if len(sources) > 1:
        named = ", ".join(f"{name} ({rows:,} rows)" for name, rows in sources.items())
        out.append(f"scores of several sources are mixed: {named}; compare them only knowingly")
    if n and not scored.any():
        out.append("no row has a score: nothing can be learned from these logs")
    if n and not costed.any():
        out.append("no row has a cost: plans can be told apart by score alone")
    return tuple(out)


def detect_kind(logs: Logs) -> KindVerdict:
    """Tell grid, randomised and observational logs apart.

    Randomised: a propensity on at least 99 % of the rows. Grid: no propensities (or on less than
    1 % of the rows), 2 plans or more for the average query, and a median query that has run at
    least half of the plans ever run on its data set (a quarter where the rows' policy is `grid`).
    Observational: all else.
    """
    n = len(logs)
    if n == 0:
        return KindVerdict(LogKind.OBSERVATIONAL, "there are no rows to tell from")
    known = int(np.isfinite(logs.numbers("propensity")).sum())
    spread = _spread(logs)
    per_query = (
        f"a query has run {spread.mean_plans:.1f} plans on average, "
        f"and the median query {spread.median_share:.0%} of its data set's plans"
    )
    if known and known / n >= MOST:
        why = f"{known:,} of {n:,} rows have a propensity; {per_query}"
        if known < n:
            why += f"; the {n - known:,} without (under 1 %) have no weight and help no estimate"
        return KindVerdict(LogKind.RANDOMISED, why)
    if known and known / n > 1 - MOST:
        return KindVerdict(
            LogKind.OBSERVATIONAL,
            f"only {known:,} of {n:,} rows have a propensity, so the rows cannot be weighed as one "
            f"experiment; {per_query}; train on either part alone to use it as what it is",
        )
    few = f"{known:,} of {n:,} rows have a propensity (under 1 %, not used)" if known else ""
    few = few or "no row has a propensity"
    declared = _counts(logs, "policy").get("grid", 0) / n >= MOST
    needed = DECLARED_GRID_SHARE if declared else GRID_SHARE
    said = "; the rows' policy is `grid`" if declared else ""
    if spread.mean_plans >= 2 and spread.median_share >= needed:
        return KindVerdict(LogKind.GRID, f"{few}; {per_query}{said}")
    return KindVerdict(
        LogKind.OBSERVATIONAL,
        f"{few}, and {per_query}{said}; a grid needs 2 plans a query and a share of {needed:.0%}",
    )


@dataclass(frozen=True, slots=True)
class _Spread:
    mean_plans: float
    median_share: float


def _spread(logs: Logs) -> _Spread:
    plans = logs.plan_index()
    count = len(plans.plans)
    blocks = logs.codes("dataset").rows.astype(np.int64)
    queries = logs.codes("query_id")
    # A query that stands in two data sets is two queries here: each was run on its own list.
    units, _ = pd.factorize(blocks * len(queries.values) + queries.rows)
    unit_pairs = _distinct_pairs(units, plans.row_plan, count)
    per_unit = np.bincount(unit_pairs // count)  # (units,) distinct plans of each
    block_plans = np.bincount(_distinct_pairs(blocks, plans.row_plan, count) // count)
    block_of_unit = np.empty(len(per_unit), dtype=np.int64)
    block_of_unit[units] = blocks
    share = per_unit / block_plans[block_of_unit]
    return _Spread(float(per_unit.mean()), float(np.median(share)))


def _distinct_pairs(
    left: npt.NDArray[Any], right: npt.NDArray[Any], right_count: int
) -> npt.NDArray[np.int64]:
    """left * right_count + right, each once."""
    keys = left.astype(np.int64) * right_count + right
    return np.asarray(pd.unique(keys), dtype=np.int64)


def _counts(logs: Logs, name: str) -> dict[str, int]:
    codes = logs.codes(name)
    rows = np.bincount(codes.rows[codes.rows >= 0], minlength=len(codes.values))
    return _ranked(dict(zip(codes.values, rows.tolist(), strict=True)))


def _ranked(counts: Mapping[str, int]) -> dict[str, int]:
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _share(mask: npt.NDArray[Any]) -> float:
    return float(mask.mean()) if len(mask) else 0.0


def _time_range(logs: Logs) -> tuple[str | None, str | None]:
    texts = logs.codes("timestamp").values
    times = [datetime.fromisoformat(text) for text in texts]
    # The schema's times are UTC, so one without a zone is UTC too.
    utc = [t.replace(tzinfo=UTC) if t.tzinfo is None else t.astimezone(UTC) for t in times]
    if not utc:
        return None, None
    return min(utc).isoformat(), max(utc).isoformat()
