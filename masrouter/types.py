"""The nouns: plain, frozen data that is logged, routed, served and executed alike."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from masrouter.errors import PlanError


@dataclass(frozen=True, slots=True)
class Agent:
    """One seat of a team. `role` is None where nobody named one."""

    role: str | None
    model: str

    def __post_init__(self) -> None:
        if not isinstance(self.model, str) or not self.model:
            raise PlanError(f"agent: model: expected a non-empty string, got {self.model!r}")
        if self.role is not None and (not isinstance(self.role, str) or not self.role):
            raise PlanError(f"agent: role: expected a non-empty string or None, got {self.role!r}")

    def __str__(self) -> str:
        return self.model if self.role is None else f"{self.role}@{self.model}"


@dataclass(frozen=True, slots=True)
class Plan:
    """A whole team: how it talks and who sits in it, in speaking order.

    The count is `len(plan.agents)`, so that it cannot disagree with the seats.
    """

    topology: str
    agents: tuple[Agent, ...]

    def __post_init__(self) -> None:
        if not isinstance(self.topology, str) or not self.topology:
            raise PlanError(f"plan: topology: expected a non-empty string, got {self.topology!r}")
        if not self.agents:
            raise PlanError(f"plan: agents: {self.topology!r} needs at least one agent")
        if not isinstance(self.agents, tuple):
            object.__setattr__(self, "agents", tuple(self.agents))

    def __str__(self) -> str:
        seats: list[str] = []
        for agent in dict.fromkeys(self.agents):
            times = self.agents.count(agent)
            seats.append(str(agent) if times == 1 else f"{times}x {agent}")
        return f"{self.topology}({', '.join(seats)})"

    @property
    def models(self) -> tuple[str, ...]:
        """Distinct models in speaking order."""
        return tuple(dict.fromkeys(agent.model for agent in self.agents))

    def to_json(self) -> dict[str, Any]:
        """The plan as JSON-ready data; `from_json` reads it back unchanged."""
        return {
            "topology": self.topology,
            "agents": [{"role": agent.role, "model": agent.model} for agent in self.agents],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Plan:
        """Read what `to_json` wrote; raises PlanError naming the field that is wrong."""
        if not isinstance(data, Mapping):
            raise PlanError(f"plan: expected an object, got {type(data).__name__}")
        unknown = set(data) - {"topology", "agents"}
        if unknown:
            raise PlanError(f"plan: unknown keys {sorted(map(str, unknown))}")
        agents = data.get("agents")
        if not isinstance(agents, list | tuple):
            raise PlanError(f"plan: agents: expected a list, got {agents!r}")
        seats = []
        for index, agent in enumerate(agents):
            if not isinstance(agent, Mapping) or set(agent) - {"role", "model"}:
                raise PlanError(f"plan: agents[{index}]: expected {{role, model}}, got {agent!r}")
            seats.append(Agent(role=agent.get("role"), model=agent.get("model")))  # type: ignore[arg-type]
        return cls(topology=data.get("topology"), agents=tuple(seats))  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class Usage:
    """What a run or a call used. None is unknown; unknown is not zero."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cost_usd: float | None = None


@dataclass(frozen=True, slots=True)
class LogRecord:
    """One run of one plan on one query, with its outcome (log schema, version 1)."""

    run_id: str
    query_id: str
    query: str
    dataset: str
    plan: Plan
    score: float | None
    """Outcome in [0, 1]; None when it is not known."""
    score_source: str
    """What scored it: `tests`, `exact_match`, `judge`, `human`, ..."""
    usage: Usage = Usage()
    """Totals of the run."""
    agent_usage: tuple[Usage, ...] = ()
    """Tokens of each agent in the order of `plan.agents`; empty where no split is known."""
    task: str | None = None
    latency_s: float | None = None
    propensity: float | None = None
    """Probability with which the logging policy picked this plan."""
    stage_propensities: Mapping[str, Any] | None = None
    policy: str | None = None
    seed: int | None = None
    error: str | None = None
    timestamp: str | None = None
    schema_version: int = 1


@dataclass(frozen=True, slots=True)
class Call:
    """One call that a team made, as its trace keeps it."""

    agent: int
    """Index into `plan.agents`."""
    step: str
    """What it was for, unique in the run with `agent`: `answer`, `round 2`, `judge`, ..."""
    model: str
    messages: tuple[tuple[str, str], ...]
    """(speaker, content) as sent."""
    reply: str | None
    """None where the call failed."""
    usage: Usage
    started_s: float
    """Seconds since the run began."""
    latency_s: float
    attempts: int
    error: str | None = None
    """`kind: message` of what failed."""
    finish_reason: str | None = None
    answered_by: str | None = None
    """The model as its provider names it; None where nothing came back."""


@dataclass(frozen=True, slots=True)
class Run:
    """What executing a plan gave."""

    plan: Plan
    query: str
    answer: str | None
    """None where the team gave none: then `error` says why."""
    usage: Usage
    """Totals of all calls; a part is None where it is unknown for any call that may be billed."""
    agent_usage: tuple[Usage, ...]
    """The same for each agent, in the order of `plan.agents`."""
    calls: tuple[Call, ...]
    """In the order in which they ended."""
    latency_s: float
    error: str | None = None
    missing: tuple[int, ...] = ()
    """Agents that failed while the others still reached an answer."""
    reserved_usd: float = 0.0
    """Worst cost of attempts that may have been billed though nothing said what they cost."""
    notes: tuple[str, ...] = ()
    """What the topology decided: votes, agreement, why it stopped."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A 95 % interval."""

    low: float
    high: float

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high


@dataclass(frozen=True, slots=True)
class StageProbabilities:
    """The cascade's probability of each choice that made a plan; their product is the plan's."""

    topology: float
    count: float
    roles: tuple[float, ...]
    """One per agent, each given all that was chosen before it."""
    models: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Evidence:
    """What in the training logs stands behind a decision."""

    similar_queries: int
    """Logged queries whose embedding has a cosine of at least `similarity` to this one."""
    similar_runs_of_plan: int
    """Runs of the chosen plan on those queries."""
    similarity: float
    nearest: float
    """Cosine of the nearest logged query."""
    runs_of_plan: int
    """Runs of the chosen plan in the whole training logs."""


@dataclass(frozen=True, slots=True)
class ScoredPlan:
    """A plan with what the critic expects of it on one query."""

    plan: Plan
    expected_score: float
    score_interval: Interval
    expected_cost_usd: float | None
    cost_interval: Interval | None
    expected_prompt_tokens: float | None = None
    expected_completion_tokens: float | None = None


@dataclass(frozen=True, slots=True)
class RoutingDecision:
    """The team that should answer a query, and why."""

    plan: Plan
    cost_weight: float
    """lambda: score units a US dollar is worth (1 / willingness to pay)."""
    propensity: float
    """Probability with which this call picked the plan: 1 when not sampled."""
    stage_probabilities: StageProbabilities
    """What the cascade gives the plan, stage by stage."""
    expected_score: float
    score_interval: Interval
    expected_cost_usd: float | None
    cost_interval: Interval | None
    domain: str
    """Predicted from the text."""
    domain_probability: float
    evidence: Evidence
    fallback: bool
    """True when the evidence was too thin and the checkpoint's safe plan was taken."""
    alternatives: tuple[ScoredPlan, ...] = ()
    """Plans on the expected cost-score frontier, cheapest first."""
    reasons: tuple[str, ...] = field(default=())
    checkpoint: str = ""
    """Identity of the router that decided."""
