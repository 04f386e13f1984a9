"""Rows of randomised logs as rounds: one run, its outcome, and how likely its plan was.

Repeated draws of a query stay rounds of their own. Not here: estimates from them (`off_policy`,
`policy_value`); logs without propensities, which no weight can correct.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from masrouter.errors import EvaluationError
from masrouter.logs import LogKind, Logs, detect_kind
from masrouter.outcomes import Bools, Floats, Ints
from masrouter.types import Plan

STAGE_TOLERANCE = 1e-6
"""Most that the product of a row's stages may differ from its propensity, as a share of it."""


@dataclass(frozen=True)
class LoggedRounds:
    """n rounds on Q queries under P plans. NaN and NaT are unknown.

    `stages` are the logging policy's probabilities of the choices on the path of each plan, in the
    order of `choice_path`, and 1 after its last; their product is the propensity.
    """

    query_ids: tuple[str, ...]  # (Q,) sorted
    texts: tuple[str, ...]  # (Q,)
    datasets: tuple[str, ...]  # (Q,)
    tasks: tuple[str | None, ...]  # (Q,)
    plans: tuple[Plan, ...]  # (P,)
    query: Ints  # (n,) index into query_ids
    plan: Ints  # (n,) index into plans
    score: Floats  # (n,)
    cost: Floats  # (n,) US dollars
    propensity: Floats  # (n,) in (0, 1]
    stages: Floats | None  # (n, T); None where any round lacks them
    timestamps: NDArray[np.datetime64]  # (n,) UTC, seconds
    failed: Bools  # (n,) the run ended in an error
    notes: tuple[str, ...] = ()
    """What was left out on the way from rows to rounds, and why."""

    def __len__(self) -> int:
        return len(self.query)

    @property
    def n_queries(self) -> int:
        return len(self.query_ids)

    def positions(self, plans: Sequence[Plan]) -> Ints:
        """Where plans stand in `self.plans`, -1 for one that was never logged; (len(plans),)."""
        at = {plan: index for index, plan in enumerate(self.plans)}
        return np.array([at.get(plan, -1) for plan in plans], dtype=np.int64)

    @classmethod
    def from_logs(cls, logs: Logs) -> LoggedRounds:
        """One round a row of randomised logs; rows without a propensity are left out and noted.

        Raises:
            EvaluationError: for logs that are not randomised, or a row whose stage propensities do
                not fit its plan or its propensity.
        """
        verdict = detect_kind(logs)
        if verdict.kind is not LogKind.RANDOMISED:
            raise EvaluationError(_refusal(verdict.kind, verdict.why))
        index = logs.plan_index()
        propensity = logs.numbers("propensity")
        known = np.isfinite(propensity)
        frame = logs.table.select(
            ["run_id", "query_id", "score", "cost_usd", "stage_propensities", "error", "timestamp"]
        ).to_pandas()[known]
        ids = frame["query_id"].astype(str)
        query, names = pd.factorize(ids, sort=True)
        rows = np.flatnonzero(known)[np.unique(query, return_index=True)[1]]
        texts = logs.table.select(["query", "dataset", "task"]).take(rows).to_pandas()
        tasks = texts["task"].astype(object)
        plan = index.row_plan[known].astype(np.int64)
        notes: list[str] = []
        if not known.all():
            notes.append(
                f"{int((~known).sum()):,} of {len(known):,} rows have no propensity and are left "
                "out: nothing says how to weigh them"
            )
        stages, why = _stages(frame, index.plans, plan, propensity[known])
        if why:
            notes.append(why)
        times = pd.to_datetime(frame["timestamp"], utc=True, format="ISO8601", errors="coerce")
        return cls(
            query_ids=tuple(str(name) for name in names),
            texts=tuple(texts["query"].astype(str)),
            datasets=tuple(texts["dataset"].astype(str)),
            tasks=tuple(tasks.where(tasks.notna(), None)),
            plans=index.plans,
            query=np.asarray(query, dtype=np.int64),
            plan=plan,
            score=frame["score"].to_numpy(np.float64),
            cost=frame["cost_usd"].to_numpy(np.float64),
            propensity=propensity[known],
            stages=stages,
            timestamps=times.dt.tz_localize(None).to_numpy().astype("datetime64[s]"),
            failed=frame["error"].notna().to_numpy(),
            notes=tuple(notes),
        )


def choice_path(plan: Plan) -> tuple[object, ...]:
    """The choices of the cascade that make a plan: topology, count, then role and model a seat."""
    path: list[object] = [plan.topology, len(plan.agents)]
    for agent in plan.agents:
        path += [agent.role, agent.model]
    return tuple(path)


def stage_name(stage: int) -> str:
    """The choice at a position of `choice_path`: `topology`, `count`, `role 1`, `model 1`, ..."""
    if stage < 2:
        return ("topology", "count")[stage]
    return f"{('role', 'model')[stage % 2]} {stage // 2}"


def prefix_codes(plans: Sequence[Plan]) -> Ints:
    """Which plans share their first choices, (P + 1, T): equal codes in a column are equal paths.

    A path that has ended goes on with its own last code. The last row, -1, is of a plan that is not
    known: it shares nothing.
    """
    paths = [choice_path(plan) for plan in plans]
    depth = max((len(path) for path in paths), default=1)
    codes = np.full((len(plans) + 1, depth), -1, dtype=np.int64)
    numbers: dict[tuple[object, ...], int] = {}
    for row, path in enumerate(paths):
        for t in range(depth):
            if t < len(path):
                code = numbers.setdefault(path[: t + 1], len(numbers))
            codes[row, t] = code
    return codes


def _refusal(kind: LogKind, why: str) -> str:
    if kind is LogKind.GRID:
        todo = "`masrouter evaluate` looks choices up in a grid instead"
    else:
        todo = (
            "what other plans would have scored cannot be told from these logs; collect some at "
            "random (`masrouter collect --plans random` or `--plans router`), which logs them"
        )
    return f"the logs are {kind}, and estimates need propensities ({why}); {todo}"


def _stages(
    frame: pd.DataFrame, plans: Sequence[Plan], plan: Ints, propensity: Floats
) -> tuple[Floats | None, str]:
    """The stage probabilities (n, T), or None and why there are none."""
    texts = frame["stage_propensities"]
    missing = int(texts.isna().sum())
    if missing:
        why = (
            f"{missing:,} of {len(texts):,} rounds have no stage_propensities: no estimate by stage"
        )
        return None, why
    sizes = [len(p.agents) for p in plans]
    stages = np.ones((len(texts), 2 + 2 * max(sizes)))
    run_ids = frame["run_id"].astype(str).tolist()
    parsed: dict[str, list[float]] = {}
    for row, (text, which) in enumerate(zip(texts.tolist(), plan.tolist(), strict=True)):
        steps = parsed.get(text)
        if steps is None:
            steps = parsed[text] = _steps(text, run_ids[row])
        if len(steps) != 2 + 2 * sizes[which]:
            raise EvaluationError(
                f"run {run_ids[row]!r}: stage_propensities: expected a role and a model for each "
                f"of {sizes[which]} agents, got {len(steps) - 2} probabilities; correct them, or "
                "set them to null in every row"
            )
        stages[row, : len(steps)] = steps
    product = stages.prod(axis=1)
    wrong = np.flatnonzero(np.abs(product - propensity) > STAGE_TOLERANCE * propensity)
    if len(wrong):
        row = int(wrong[0])
        raise EvaluationError(
            f"run {run_ids[row]!r}: stage_propensities: their product is {product[row]:.6g}, but "
            f"propensity is {propensity[row]:.6g} ({len(wrong):,} such rows); correct them, or set "
            "stage_propensities to null in every row"
        )
    return stages, ""


def _steps(text: str, run_id: str) -> list[float]:
    data: Any = json.loads(text)
    wanted = {"topology": float, "count": float, "roles": list, "models": list}
    for name, kind in wanted.items():
        value = data.get(name)
        seats = value if kind is list and isinstance(value, list) else [value]
        fits = (kind is list) == isinstance(value, list)
        fits = fits and all(isinstance(item, int | float) for item in seats)
        if not fits:
            raise EvaluationError(
                f"run {run_id!r}: stage_propensities: {name}: expected "
                f"{'a list with one probability an agent' if kind is list else 'a probability'}, "
                f"got {value!r}; correct it, or set stage_propensities to null in every row"
            )
    if len(data["roles"]) != len(data["models"]):
        raise EvaluationError(
            f"run {run_id!r}: stage_propensities: {len(data['roles'])} roles, but "
            f"{len(data['models'])} models; correct them, or set them to null in every row"
        )
    seats = [p for seat in zip(data["roles"], data["models"], strict=True) for p in seat]
    return [float(data["topology"]), float(data["count"]), *map(float, seats)]
