"""Live evaluation: a routed team against fixed plans on the same problems, by running them.

An arm says which plan each problem is run under. The runs are a collection (masrouter.collection):
they are made once, kept, and shared by arms that mean the same plan. What is here is the design,
what the collection holds of it, and the figures.

Axes: A arms, n problems, R repeats. Not here: making the runs, tables (`live_table`).
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from masrouter.catalog import Catalog
from masrouter.collection import Assignment, Store, paired
from masrouter.collection.store import insert, reading
from masrouter.errors import EvaluationError
from masrouter.evaluation.metrics import bootstrap_means, per_query, percentile_interval
from masrouter.evaluation.pass_at_k import check_k, pass_at_k
from masrouter.outcomes import Bools, Floats
from masrouter.problems import Problem
from masrouter.topologies import prompt_version, topology
from masrouter.types import Interval, Plan

POLICY = "live evaluation"
"""Of the runs' records: which arms a run belongs to may change, the run does not."""
RESAMPLES = 2000
FEWEST_PROBLEMS = 10
"""Percentile intervals from fewer are far too narrow, so none is given."""


@dataclass(frozen=True, slots=True)
class Arm:
    """One side of the comparison."""

    name: str
    plans: tuple[Plan, ...]  # (n,) one a problem

    @classmethod
    def fixed(cls, plan: Plan, problems: int) -> Arm:
        """The same plan for every problem."""
        return cls(str(plan), (plan,) * problems)


@dataclass(frozen=True, slots=True)
class LiveDesign:
    """What is compared with what. The first arm is the one that the others are compared to."""

    problems: tuple[Problem, ...]
    arms: tuple[Arm, ...]
    repeats: int = 1

    def __post_init__(self) -> None:
        if not self.problems or not self.arms:
            raise EvaluationError("a live evaluation needs problems and arms")
        if self.repeats < 1:
            raise EvaluationError(f"repeats: expected at least 1, got {self.repeats}")
        if len({arm.name for arm in self.arms}) < len(self.arms):
            raise EvaluationError("two arms have the same name")
        for arm in self.arms:
            if len(arm.plans) != len(self.problems):
                raise EvaluationError(
                    f"arm {arm.name!r}: {len(arm.plans)} plans for {len(self.problems)} problems"
                )

    def assignments(self) -> list[Assignment]:
        """The runs; the same plan on the same problem with the same seed is one run for all."""
        plans = list(zip(*(arm.plans for arm in self.arms), strict=True))
        return list(paired(self.problems, plans, policy=POLICY, seeds=self.repeats))

    def run_ids(self, catalog: Catalog) -> np.ndarray:
        """The id of each cell's run: (A, n, R) of text."""
        versions: dict[Plan, str] = {}
        ids = np.empty((len(self.arms), len(self.problems), self.repeats), dtype=object)
        for a, arm in enumerate(self.arms):
            for i, (problem, plan) in enumerate(zip(self.problems, arm.plans, strict=True)):
                if plan not in versions:
                    versions[plan] = prompt_version(plan, catalog, topology(plan.topology))
                for seed in range(self.repeats):
                    run = Assignment(problem, plan, seed, POLICY)
                    ids[a, i, seed] = run.run_id(versions[plan])
        return ids


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


def pin_settings(store: Store, design: LiveDesign, **settings: str) -> None:
    """Hold a collection to what its runs depend on beside plan, problem, seed and prompts.

    Other problems, plans, repeats or routers may come later: their runs are others. Raises
    CollectionError for other settings, EvaluationError where a problem is no longer what it was.
    """
    for name, value in settings.items():
        store.pin(name, value)
    now = {f"problem {problem.problem_id}": _digest(problem) for problem in design.problems}
    rows = store.read("SELECT key, value FROM pins WHERE key LIKE 'problem %'")
    before = {row["key"]: row["value"] for row in rows}
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
    answers = np.full(shape, None, dtype=object)
    for cell in np.ndindex(*shape):
        text, answers[cell] = found.get(ids.item(cell), (None, None))
        if text is not None:
            finished[cell], failed[cell] = True, answers[cell] is None
            values[:, *cell] = _values(text, path)
    score, cost, tokens, latency = values
    return LiveRuns(finished, failed, score, cost, tokens, latency, answers)


def _values(record: str, path: str | Path) -> tuple[float, float, float, float]:
    try:
        data: dict[str, Any] = json.loads(record)
        score, cost, latency = (data.get(k) for k in ("score", "cost_usd", "latency_s"))
        prompt, completion = data.get("prompt_tokens"), data.get("completion_tokens")
        tokens = None if prompt is None or completion is None else prompt + completion
        known = [np.nan if v is None else float(v) for v in (cost, tokens, latency)]
    except (ValueError, TypeError, AttributeError) as error:
        raise EvaluationError(f"{path}: holds a run that is no log record: {error!r}") from error
    # A team that gives no answer has not solved the problem.
    return (0.0 if score is None else float(score), *known)  # type: ignore[return-value]


@dataclass(frozen=True, slots=True)
class Measured:
    """A mean over problems; None where nothing is known."""

    mean: float | None
    interval: Interval | None
    """95 %, of a bootstrap over problems; None where these are alike, or fewer than 10."""
    runs: int
    """How many runs are behind it; of a difference, problems."""


@dataclass(frozen=True, slots=True)
class ArmResult:
    """One arm on one part of the problems. Figures are None while runs are missing."""

    arm: str
    planned: int
    finished: int
    failed: int
    """Without an answer; they count as wrong."""
    pass_at: dict[int, Measured] | None
    """By k."""
    cost_usd: Measured | None
    """Of a run."""
    tokens: Measured | None
    latency_s: Measured | None
    latency_median_s: float | None

    @property
    def complete(self) -> bool:
        """True when every run is finished."""
        return self.finished == self.planned


@dataclass(frozen=True, slots=True)
class Difference:
    """The first arm less another one, problem by problem."""

    arm: str
    """The other one."""
    same_plan: int
    """Problems on which both mean the same plan, so that the same runs serve both."""
    pass_at: dict[int, Measured] | None
    cost_usd: Measured | None
    tokens: Measured | None
    latency_s: Measured | None


@dataclass(frozen=True, slots=True)
class Part:
    """All problems, or those of one data set."""

    dataset: str | None
    """None: all."""
    task: str | None
    problems: int
    arms: tuple[ArmResult, ...]
    differences: tuple[Difference, ...]


@dataclass(frozen=True, slots=True)
class ArmPlans:
    """Which plans an arm takes."""

    arm: str
    plans: dict[str, int]
    """Problems by plan, most first."""


@dataclass(frozen=True, slots=True)
class LiveEvaluation:
    """All figures."""

    arms: tuple[ArmPlans, ...]
    repeats: int
    ks: tuple[int, ...]
    resamples: int
    parts: tuple[Part, ...]
    """The first one is of all problems."""

    @property
    def complete(self) -> bool:
        """True when every run is finished."""
        return all(arm.complete for arm in self.parts[0].arms)


def compare(
    design: LiveDesign, runs: LiveRuns, *, ks: Sequence[int] = (1,), resamples: int = RESAMPLES
) -> LiveEvaluation:
    """Figures of every arm, and of the first arm less each other, for all problems and by data set.

    Problems are the units: a problem's repeats are averaged (for pass@k, estimated) first.
    Intervals are percentiles of a paired bootstrap over problems (Efron and Tibshirani 1993).

    Raises EvaluationError for a k beyond the repeats.
    """
    ks = tuple(sorted(set(ks)))
    for k in ks:
        check_k(design.repeats, k)
    kinds = list(dict.fromkeys((p.dataset, p.task) for p in design.problems))
    whole = np.ones(len(design.problems), dtype=np.bool_)
    parts = [_part(None, None, whole, design, runs, ks, resamples)]
    if len(kinds) > 1:
        for kind in kinds:
            mask = np.array([(p.dataset, p.task) == kind for p in design.problems])
            parts.append(_part(*kind, mask, design, runs, ks, resamples))
    plans = tuple(
        ArmPlans(arm.name, dict(Counter(map(str, arm.plans)).most_common())) for arm in design.arms
    )
    return LiveEvaluation(plans, design.repeats, ks, resamples, tuple(parts))


def _part(
    dataset: str | None,
    task: str | None,
    mask: Bools,
    design: LiveDesign,
    runs: LiveRuns,
    ks: tuple[int, ...],
    resamples: int,
) -> Part:
    count = int(mask.sum())
    planned = count * design.repeats
    columns = [_columns(runs, a, mask, ks) for a in range(len(design.arms))]  # (n, K + 3) each
    arms, differences = [], []
    for a, arm in enumerate(design.arms):
        done, lost = runs.finished[a, mask], runs.failed[a, mask]
        finished, failed = int(done.sum()), int(lost.sum())
        if finished < planned:
            empty = ArmResult(arm.name, planned, finished, failed, None, None, None, None, None)
            arms.append(empty)
            continue
        known = [planned] * len(ks)
        measured = (runs.cost_usd, runs.tokens, runs.latency_s)
        known += [int(np.isfinite(values[a, mask]).sum()) for values in measured]
        *passes, cost, tokens, latency = _measured(columns[a], known, resamples)
        at = dict(zip(ks, passes, strict=True))
        clock = runs.latency_s[a, mask]
        clock = clock[np.isfinite(clock)]
        median = float(np.median(clock)) if clock.size else None
        arms.append(
            ArmResult(arm.name, planned, finished, failed, at, cost, tokens, latency, median)
        )
    for a, arm in enumerate(design.arms[1:], start=1):
        pairs = zip(design.arms[0].plans, arm.plans, mask, strict=True)
        same = sum(bool(inside) and mine == other for mine, other, inside in pairs)
        if not (arms[0].complete and arms[a].complete):
            differences.append(Difference(arm.name, same, None, None, None, None))
            continue
        gap = columns[0] - columns[a]
        told = np.isfinite(gap).sum(axis=0).tolist()
        *passes, cost, tokens, latency = _measured(gap, told, resamples)
        at = dict(zip(ks, passes, strict=True))
        differences.append(Difference(arm.name, same, at, cost, tokens, latency))
    return Part(dataset, task, count, tuple(arms), tuple(differences))


def _columns(runs: LiveRuns, arm: int, mask: Bools, ks: tuple[int, ...]) -> Floats:
    """pass@k for each k, cost, tokens, latency by problem: (n, K + 3)."""
    score = runs.score[arm, mask]  # (n, R)
    correct = (score == 1.0).sum(axis=1)
    passes = [pass_at_k(score.shape[1], correct, k) for k in ks]
    others = [
        per_query(values[arm, mask].T) for values in (runs.cost_usd, runs.tokens, runs.latency_s)
    ]
    return np.stack([*passes, *others], axis=1)


def _measured(columns: Floats, known: Sequence[int], resamples: int) -> Iterator[Measured]:
    """The mean of each column (n, m) with its interval; every column meets the same draws."""
    means = bootstrap_means(columns, resamples=resamples)  # (resamples, m)
    for j, runs in enumerate(known):
        values = columns[:, j]
        values = values[np.isfinite(values)]
        if not values.size:
            yield Measured(None, None, runs)
            continue
        # Resampling values that are all alike gives them back: that is no interval.
        told = len(values) >= FEWEST_PROBLEMS and bool((values != values[0]).any())
        interval = percentile_interval(means[:, j]) if told else None
        yield Measured(float(values.mean()), interval, runs)


def _digest(problem: Problem) -> str:
    text = json.dumps([problem.query, repr(problem.grader)])
    return hashlib.sha256(text.encode("ascii")).hexdigest()[:16]
