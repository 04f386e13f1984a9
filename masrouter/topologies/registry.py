"""Which topologies there are. Packages add their own by the entry points `masrouter.topologies`.

An entry point's name is the topology's, and what it names is a `Topology` or a class of one that
needs no arguments. The names that ship cannot be taken.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import ClassVar, Protocol

from masrouter.catalog import Catalog
from masrouter.errors import PlanError
from masrouter.strict_yaml import did_you_mean
from masrouter.topologies.chain import Chain
from masrouter.topologies.cot import ChainOfThought
from masrouter.topologies.debate import Debate
from masrouter.topologies.delegate import Delegate
from masrouter.topologies.escalate import Escalate
from masrouter.topologies.full_graph import FullGraph
from masrouter.topologies.io import InputOutput
from masrouter.topologies.iterate import Iterate
from masrouter.topologies.orchestrate import Orchestrate
from masrouter.topologies.panel import Panel
from masrouter.topologies.prompts import system_prompt
from masrouter.topologies.reflection import Reflection
from masrouter.topologies.self_consistency import SelfConsistency
from masrouter.topologies.team import Team
from masrouter.types import Plan

ENTRY_POINTS = "masrouter.topologies"


class Topology(Protocol):
    """How a team works together on a query."""

    name: ClassVar[str]
    version: ClassVar[int]
    """Raised whenever its prompts or its flow change."""

    def check(self, plan: Plan) -> None:
        """Raises PlanError where the plan's seats do not fit, whatever the catalog allows."""

    async def answer(self, team: Team) -> str:
        """The team's answer.

        It asks agents by `team` alone, and what it asks depends on nothing but the team and the
        replies: no clock, no randomness. Raises TeamError where it cannot go on.
        """


BUILT_IN: Mapping[str, Topology] = {
    shape.name: shape
    for shape in (
        InputOutput(), ChainOfThought(), SelfConsistency(), Chain(), FullGraph(), Debate(),
        Reflection(), Panel(), Orchestrate(), Escalate(), Iterate(), Delegate(),
    )
}  # fmt: skip


def topology_names() -> tuple[str, ...]:
    """Every topology that can be executed here, those of other packages last."""
    others = {point.name for point in entry_points(group=ENTRY_POINTS)}
    return (*BUILT_IN, *sorted(others - set(BUILT_IN)))


def topology(name: str) -> Topology:
    """The topology of this name; raises PlanError where none can be executed."""
    if name in BUILT_IN:
        return BUILT_IN[name]
    points = [point for point in entry_points(group=ENTRY_POINTS) if point.name == name]
    if len({point.value for point in points}) > 1:
        values = ", ".join(sorted({point.value for point in points}))
        raise PlanError(f"plan: topology {name!r} is offered more than once: {values}; keep one")
    if points:
        return _loaded(points[0])
    near = did_you_mean(name, topology_names())
    raise PlanError(f"plan: topology {name!r} is not one that can be executed{near}")


def check_plan(plan: Plan, catalog: Catalog, shape: Topology) -> None:
    """Raises PlanError where no team of this plan could start.

    The number of agents must be one that the catalog allows, where it has the topology, and that
    the topology itself can seat; every role must have a prompt.
    """
    entry = catalog.topologies.get(plan.topology)
    count = len(plan.agents)
    if entry is not None and not entry.allows(count):
        raise PlanError(
            f"plan: agents: the catalog gives {plan.topology!r} {entry.min_agents} to "
            f"{entry.max_agents} agents, got {count}"
        )
    shape.check(plan)
    for agent in plan.agents:
        system_prompt(agent, catalog)


def prompt_version(plan: Plan, catalog: Catalog, shape: Topology | None = None) -> str:
    """16 hex digits that change when what the plan's agents are told may change.

    They stand for the topology with its version and settings, and for every system prompt.
    """
    used = topology(plan.topology) if shape is None else shape
    settings: dict[str, object] = (
        asdict(used) if is_dataclass(used) and not isinstance(used, type) else {}
    )
    systems = [system_prompt(agent, catalog) for agent in plan.agents]
    parts = [used.name, used.version, sorted(settings.items()), systems]
    text = json.dumps(parts, ensure_ascii=False, default=repr)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _loaded(point: EntryPoint) -> Topology:
    where = f"topology {point.name!r}: entry point {point.value}"
    try:
        found = point.load()
        shape = found() if isinstance(found, type) else found
    except Exception as error:
        raise PlanError(f"{where} cannot be loaded: {type(error).__name__}: {error}") from error
    lacking = [part for part in ("name", "version", "check", "answer") if not hasattr(shape, part)]
    if lacking:
        raise PlanError(f"{where} is no topology: it has no {', '.join(lacking)}")
    if shape.name != point.name:
        raise PlanError(f"{where} names itself {shape.name!r}; give both the same name")
    checked: Topology = shape
    return checked
