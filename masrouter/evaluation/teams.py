"""Is a team worth it? Accuracy and cost by topology and models, each team beside a single agent.

A team is compared with the best single agent on one of its own models, problem by problem: what
would that member have got alone, and at what cost? The best is the one of the highest mean score
over the team's problems. Means over other problems would compare problems and not teams.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from rich.table import Table

from masrouter.errors import EvaluationError
from masrouter.logs import Logs
from masrouter.types import Interval, Plan

Z95 = 1.959964
ALONE = ("io", "cot")
"""Topologies of one agent and one call."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """A team beside the best single agent on one of its models, over the problems of both."""

    single: str
    """Its plan."""
    problems: int
    gain: float
    """Mean over problems of the team's score minus the single agent's."""
    gain_interval: Interval
    worse: float
    """Share of problems on which the team's mean score is lower."""
    better: float
    cost_ratio: float | None
    """Mean cost of the team over that of the single agent; None where one is unknown."""


@dataclass(frozen=True, slots=True)
class TeamRow:
    """All runs of one topology with the same models, whatever the roles."""

    topology: str
    models: str
    """Seats: `2x gpt-4o-mini + gpt-4o`."""
    agents: int
    runs: int
    problems: int
    accuracy: float
    """Mean score over runs."""
    interval: Interval
    """Of the accuracy, from the spread of problems' means."""
    mean_cost_usd: float | None
    against_single: Comparison | None
    """None for single agents, and where no member was run alone on the same problems."""


@dataclass(frozen=True, slots=True)
class TeamTable:
    """The rows, and what they leave out."""

    rows: tuple[TeamRow, ...]
    unscored_runs: int
    """Runs without a score; in no row."""
    rare_teams: int
    """Topologies with models that have fewer runs than asked for."""
    rare_runs: int


def team_table(logs: Logs, *, least_runs: int = 50) -> TeamTable:
    """Compare teams with single agents.

    least_runs: topologies with models of fewer runs are counted and not shown. Raises
    EvaluationError where nothing is scored, or nothing has that many runs.
    """
    frame = _frame(logs)
    unscored = int(frame["score"].isna().sum())
    frame = frame[frame["score"].notna()]
    if frame.empty:
        raise EvaluationError("no run has a score, so teams cannot be compared")
    singles = {
        (str(topology), str(model)): _by_problem(part)
        for (topology, model), part in frame[frame["topology"].isin(ALONE)].groupby(
            ["topology", "models"], observed=True
        )
        if len(part) >= least_runs
    }
    rows: list[TeamRow] = []
    rare_teams = rare_runs = 0
    for (topology, models), part in frame.groupby(["topology", "models"], observed=True):
        if len(part) < least_runs:
            rare_teams += 1
            rare_runs += len(part)
            continue
        found = _by_problem(part)
        seats = int(part["agents"].iloc[0])
        mean = float(part["score"].mean())
        half = _half_width(found["score"].to_numpy())
        rows.append(
            TeamRow(
                str(topology),
                str(models),
                seats,
                len(part),
                len(found),
                mean,
                Interval(max(0.0, mean - half), min(1.0, mean + half)),
                _mean_cost(part),
                None if topology in ALONE else _compare(found, _members(str(models)), singles),
            )
        )
    if not rows:
        raise EvaluationError(
            f"no topology with the same models has {least_runs} scored runs; lower --least-runs"
        )
    rows.sort(key=lambda r: (r.topology not in ALONE, r.topology, r.mean_cost_usd or 0.0))
    return TeamTable(tuple(rows), unscored, rare_teams, rare_runs)


def render_teams(table: TeamTable) -> Table:
    """The table as people read it."""
    out = Table(box=None, padding=(0, 2, 0, 0))
    for name in ("topology", "models", "runs", "accuracy", "95 %", "cost a run"):
        out.add_column(name, justify="left" if name in ("topology", "models") else "right")
    for name in ("against one agent", "worse on", "better on", "cost x"):
        out.add_column(name, justify="right")
    for row in table.rows:
        shown = [
            row.topology,
            row.models,
            f"{row.runs:,}",
            f"{row.accuracy:.3f}",
            f"{row.interval.low:.3f}-{row.interval.high:.3f}",
            "unknown" if row.mean_cost_usd is None else f"${row.mean_cost_usd:.6f}",
        ]
        against = row.against_single
        if against is None:
            shown += ["", "", "", ""]
        else:
            half = against.gain_interval.high - against.gain
            ratio = against.cost_ratio
            shown += [
                f"{against.gain:+.3f} +-{half:.3f}",
                f"{against.worse:.1%}",
                f"{against.better:.1%}",
                "unknown" if ratio is None else f"{ratio:.1f}",
            ]
        out.add_row(*shown)
    return out


def _frame(logs: Logs) -> pd.DataFrame:
    index = [_seats(record.plan) for record in logs]
    frame = logs.to_pandas()[["query_id", "topology", "score", "cost_usd"]].copy()
    frame["models"] = [models for models, _ in index]
    frame["agents"] = [agents for _, agents in index]
    return frame


def _seats(plan: Plan) -> tuple[str, int]:
    counts = Counter(agent.model for agent in plan.agents)
    seats = [name if n == 1 else f"{n}x {name}" for name, n in sorted(counts.items())]
    return " + ".join(seats), len(plan.agents)


def _members(models: str) -> list[str]:
    return [seat.split("x ", 1)[-1] if seat[0].isdigit() else seat for seat in models.split(" + ")]


def _by_problem(part: pd.DataFrame) -> pd.DataFrame:
    """Mean score and cost of each problem; a cost that is unknown for any run is unknown."""
    grouped = part.groupby("query_id", observed=True)
    return pd.DataFrame(
        {
            "score": grouped["score"].mean(),
            "cost": grouped["cost_usd"].agg(lambda column: column.mean(skipna=False)),
        }
    )


def _compare(
    team: pd.DataFrame, members: Sequence[str], singles: dict[tuple[str, str], pd.DataFrame]
) -> Comparison | None:
    best: tuple[float, str, pd.DataFrame] | None = None
    for (topology, model), alone in singles.items():
        both = team.join(alone.add_suffix("_single"), how="inner")
        if model not in members or both.empty:
            continue
        score = float(both["score_single"].mean())
        if best is None or score > best[0]:
            best = score, f"{topology}({model})", both
    if best is None:
        return None
    _, single, both = best
    gain = (both["score"] - both["score_single"]).to_numpy()
    half = _half_width(gain)
    mean = float(gain.mean())
    team_cost, single_cost = both["cost"].mean(skipna=False), both["cost_single"].mean(skipna=False)
    known = np.isfinite(team_cost) and np.isfinite(single_cost) and single_cost > 0
    return Comparison(
        single,
        len(both),
        mean,
        Interval(mean - half, mean + half),
        float((gain < 0).mean()),
        float((gain > 0).mean()),
        float(team_cost / single_cost) if known else None,
    )


def _half_width(values: np.ndarray) -> float:
    """Half of a 95 % normal interval of a mean; problems are the independent units."""
    if len(values) < 2:
        return 1.0
    return float(Z95 * values.std(ddof=1) / np.sqrt(len(values)))


def _mean_cost(part: pd.DataFrame) -> float | None:
    mean = part["cost_usd"].mean(skipna=False)
    return float(mean) if np.isfinite(mean) else None
