"""What requests and answers look like; the fields' bounds are here, the limits in `settings`.

Unknown fields are refused. Nothing is coerced: a number in a string is a string.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from masrouter.router import Router
from masrouter.server.api_errors import ApiError
from masrouter.types import Interval, Plan, RoutingDecision, ScoredPlan

MOST_USD = 1e12
MOST_ALTERNATIVES = 50
_MOST_NAMES = 256
_MOST_TOKENS = 2**53

Name = Annotated[str, Field(min_length=1, max_length=256)]
Names = Annotated[list[Name], Field(min_length=1, max_length=_MOST_NAMES)]
Label = Annotated[str, Field(min_length=1, max_length=128)]
Query = Annotated[str, Field(min_length=1)]
Count = Annotated[int, Field(ge=0, le=_MOST_TOKENS)]
Amount = Annotated[float, Field(ge=0, le=MOST_USD)]


class Strict(BaseModel):
    """A part of a request."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, frozen=True)


class RoutingOptions(Strict):
    """What a request may ask of the router; see `Router.route`."""

    cost_weight: Amount | None = None
    """Score units that a US dollar is worth."""
    willingness_to_pay: Annotated[float, Field(ge=1e-9, le=MOST_USD)] | None = None
    """The same, as US dollars for a whole unit of score."""
    max_cost_usd: Annotated[float, Field(gt=0, le=MOST_USD)] | None = None
    max_agents: Annotated[int, Field(ge=1, le=1024)] | None = None
    models: Names | None = None
    exclude_models: Annotated[list[Name], Field(max_length=_MOST_NAMES)] = []
    topologies: Names | None = None
    k: Annotated[int, Field(ge=0, le=MOST_ALTERNATIVES)] = 3
    """Alternatives to tell, beside the choice."""

    @model_validator(mode="after")
    def _one_trade_off(self) -> Self:
        if self.cost_weight is not None and self.willingness_to_pay is not None:
            raise ValueError("cost_weight and willingness_to_pay say the same thing: give one")
        return self

    def check_names(self, router: Router) -> None:
        """Raises ApiError 400 for a name that the router does not know, listing those it does."""
        models = sorted({model for plan in router.plans for model in plan.models})
        topologies = sorted({plan.topology for plan in router.plans})
        for field, given, known in (
            ("models", self.models, models),
            ("exclude_models", self.exclude_models, models),
            ("topologies", self.topologies, topologies),
        ):
            if not set(given or ()) <= set(known):
                raise ApiError(
                    400,
                    f"{field}: a name is unknown to this router; it knows {', '.join(known)}",
                    code="unknown_name",
                    param=field,
                )

    def arguments(self, *, unserved: Sequence[str] = ()) -> dict[str, Any]:
        """As keyword arguments of `Router.route`; models that nobody serves are excluded."""
        return {
            "cost_weight": self.cost_weight,
            "willingness_to_pay": self.willingness_to_pay,
            "max_cost_usd": self.max_cost_usd,
            "max_agents": self.max_agents,
            "models": self.models,
            "exclude_models": list(dict.fromkeys([*self.exclude_models, *unserved])),
            "topologies": self.topologies,
            "k": self.k,
        }

    def allows(self, plan: Plan) -> bool:
        """Whether the plan's shape and models are allowed; its cost is not looked at."""
        return (
            (self.max_agents is None or len(plan.agents) <= self.max_agents)
            and (self.topologies is None or plan.topology in self.topologies)
            and (self.models is None or set(plan.models) <= set(self.models))
            and not set(plan.models) & set(self.exclude_models)
        )


class DecisionRequest(Strict):
    """A query, or several, to be routed and not run."""

    query: Query | Annotated[list[Query], Field(min_length=1, fail_fast=True)]
    options: RoutingOptions = RoutingOptions()
    explain: bool = False
    """Tell the figures of every plan."""
    dataset: Label | None = None
    """Where the query comes from, for the served log."""
    task: Label | None = None
    """Its domain, where the caller knows it, for the served log."""


class OutcomeRequest(Strict):
    """How good the answer to a decision was."""

    decision_id: Annotated[str, Field(min_length=1, max_length=64)]
    score: Annotated[float, Field(ge=0, le=1)] | None
    """In [0, 1]; null where there is none, which then `error` explains."""
    score_source: Label = "human"
    """What scored it: `tests`, `judge`, `human`, ..."""
    cost_usd: Amount | None = None
    """What the answer really cost, where the caller ran the team."""
    prompt_tokens: Count | None = None
    completion_tokens: Count | None = None
    latency_s: Amount | None = None
    error: Annotated[str, Field(min_length=1, max_length=2000)] | None = None
    """Why there was no answer."""

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if self.score is None and self.error is None:
            raise ValueError("score: expected a number in [0, 1]; null needs an error")
        return self


class AgentBody(BaseModel):
    """One seat of a team."""

    role: str | None
    model: str


class PlanBody(BaseModel):
    """A team: `masrouter.Plan` as JSON."""

    topology: str
    agents: list[AgentBody]


class PlanFiguresBody(BaseModel):
    """A plan with what is expected of it on the query."""

    plan: PlanBody
    expected_score: float
    score_interval: tuple[float, float]
    expected_cost_usd: float | None
    cost_interval: tuple[float, float] | None


class EvidenceBody(BaseModel):
    """What in the training logs stands behind a decision; see `masrouter.types.Evidence`."""

    similar_queries: int
    similar_runs_of_plan: int
    similarity: float
    nearest: float
    runs_of_plan: int


class ComparedPlanBody(BaseModel):
    """A plan as the critic compares it; not calibrated."""

    plan: PlanBody
    score: float
    cost_usd: float | None
    utility: float | None
    logged_runs: int


class DecisionBody(BaseModel):
    """The team that should answer a query, and why."""

    plan: PlanBody
    expected_score: float | None = None
    """Null, as the intervals, for a session's plan that is not today's choice."""
    score_interval: tuple[float, float] | None = None
    expected_cost_usd: float | None
    cost_interval: tuple[float, float] | None = None
    object: Literal["masrouter.decision"] = "masrouter.decision"
    id: str
    policy: str
    propensity: float | None
    cost_weight: float
    domain: str
    domain_probability: float
    fallback: bool
    explored: bool
    sticky: bool
    reasons: list[str]
    alternatives: list[PlanFiguresBody]
    evidence: EvidenceBody | None
    checkpoint: str
    plans: list[ComparedPlanBody] | None = None


class DecisionListBody(BaseModel):
    """Several decisions, in the order of the queries."""

    object: Literal["list"] = "list"
    data: list[DecisionBody]


class OutcomeBody(BaseModel):
    """What is kept of an outcome."""

    object: Literal["masrouter.outcome"] = "masrouter.outcome"
    decision_id: str
    score: float | None
    score_source: str
    recorded: Literal[True] = True


def plan_body(plan: Plan) -> PlanBody:
    """A plan for an answer."""
    return PlanBody(
        topology=plan.topology,
        agents=[AgentBody(role=agent.role, model=agent.model) for agent in plan.agents],
    )


def plan_figures(scored: ScoredPlan | RoutingDecision) -> dict[str, Any]:
    """The fields of `PlanFiguresBody`."""
    return {
        "plan": plan_body(scored.plan),
        "expected_score": scored.expected_score,
        "score_interval": _pair(scored.score_interval),
        "expected_cost_usd": scored.expected_cost_usd,
        "cost_interval": _pair(scored.cost_interval),
    }


def _pair(interval: Interval | None) -> tuple[float, float] | None:
    return None if interval is None else (interval.low, interval.high)
