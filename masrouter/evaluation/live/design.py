"""What is compared with what: arms, each a plan for every problem, and the runs that they need.

The runs are a collection (masrouter.collection): they are made once, kept, and shared by arms that
mean the same plan. Not here: making the runs, what came of them (`runs`).

Axes: A arms, n problems, R repeats.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from masrouter.catalog import Catalog
from masrouter.collection import Assignment, paired
from masrouter.errors import EvaluationError
from masrouter.problems import Problem
from masrouter.topologies import prompt_version, topology
from masrouter.types import Plan

POLICY = "live evaluation"
"""Of the runs' records: which arms a run belongs to may change, the run does not."""


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
