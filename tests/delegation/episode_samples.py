"""Results of subtasks for tests of episodes."""

from __future__ import annotations

from masrouter.delegation.tasks import Grading, Source, TaskError, TaskResult
from masrouter.types import (
    Agent,
    Evidence,
    Interval,
    Plan,
    RoutingDecision,
    StageProbabilities,
    Usage,
)

PLAN = Plan("cot", (Agent(None, "small"),))


def result(
    goal: str,
    name: str,
    *,
    plan: Plan | None = PLAN,
    asked: str | None = "small",
    source: Source | None = "task",
    answer: str | None = "42",
    usage: Usage = Usage(10, 5, 0.002),  # noqa: B008
    error: TaskError | None = None,
    grading: Grading | None = None,
    decision: RoutingDecision | None = None,
) -> TaskResult:
    """A subtask's result; a successful one unless told else."""
    return TaskResult(
        id=name,
        goal=goal,
        asked=asked,
        source=source,
        plan=plan,
        models=() if plan is None else plan.models,
        answer=answer,
        usage=usage,
        latency_s=1.5,
        error=error,
        grading=grading,
        decision=decision,
    )


def decision(plan: Plan = PLAN, *, propensity: float = 1.0) -> RoutingDecision:
    """A router's decision."""
    return RoutingDecision(
        plan=plan,
        cost_weight=10.0,
        propensity=propensity,
        stage_probabilities=StageProbabilities(1.0, 1.0, (1.0,), (1.0,)),
        expected_score=0.75,
        score_interval=Interval(0.5, 1.0),
        expected_cost_usd=0.001,
        cost_interval=None,
        domain="math",
        domain_probability=0.9,
        evidence=Evidence(3, 2, 0.5, 0.9, 7),
        fallback=False,
        checkpoint="router-1",
    )
