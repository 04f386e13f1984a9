"""The plans that a collection may run: a list for a grid, a space to draw from at random.

    plans:                                # each problem is run under each of these
      - io: [gpt-4o-mini]
      - cot: [mathematician@gpt-4o]
      - debate: [assistant@gpt-4o-mini, critic@gpt-4o]
    space:                                # drawn from stage by stage, each stage uniformly
      topologies: {io: 1, debate: [2, 3]}       # least and most agents
      roles: {code: [coder, debugger], any: [assistant, critic]}
      models: [gpt-4o-mini, gpt-4o]

A seat is `role@model`, or `model` alone. Roles under `any` are open to every problem, the others to
problems of their task.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from masrouter.catalog import Catalog
from masrouter.errors import ConfigError, PlanError
from masrouter.problems.problem import Task
from masrouter.strict_yaml import Document, describe, did_you_mean, load_strict
from masrouter.topologies import check_plan
from masrouter.topologies import topology as topology_named
from masrouter.types import Agent, Plan

ANY = "any"


@dataclass(frozen=True, slots=True)
class PlanSpace:
    """Plans that are composed stage by stage, each stage's choice uniform."""

    topologies: Mapping[str, tuple[int, int]]
    """Least and most agents of each."""
    roles: Mapping[str, tuple[str, ...]]
    """By task; those under `any` are open to every task."""
    models: tuple[str, ...]

    def roles_of(self, task: str | None) -> tuple[str, ...]:
        """The roles that a problem of this task may seat."""
        fitting = (*self.roles.get(task or "", ()), *self.roles.get(ANY, ()))
        return tuple(dict.fromkeys(fitting))

    def draw(self, rng: random.Random, task: str | None) -> Plan:
        """One plan."""
        topology = rng.choice(tuple(self.topologies))
        count = rng.randint(*self.topologies[topology])
        roles = self.roles_of(task)
        agents = [Agent(rng.choice(roles), rng.choice(self.models)) for _ in range(count)]
        return Plan(topology, tuple(agents))

    def steps(self, plan: Plan, task: str | None) -> list[float]:
        """Probability of each choice of a plan given those before it, 0 for an impossible one.

        In the order topology, count, then role and model of each seat; the product is the plan's.
        """
        low, high = self.topologies.get(plan.topology, (0, -1))
        count = len(plan.agents)
        roles = self.roles_of(task)
        steps = [
            1 / len(self.topologies) if plan.topology in self.topologies else 0.0,
            1 / (high - low + 1) if low <= count <= high else 0.0,
        ]
        for agent in plan.agents:
            steps.append(1 / len(roles) if agent.role in roles else 0.0)
            steps.append(1 / len(self.models) if agent.model in self.models else 0.0)
        return steps


@dataclass(frozen=True, slots=True)
class PlanFile:
    """What a plan file says."""

    plans: tuple[Plan, ...]
    space: PlanSpace | None
    source: str


def read_plan_file(path: str | Path, catalog: Catalog) -> PlanFile:
    """Read a plan file; raises ConfigError as `file:line: key: why`."""
    try:
        text = Path(path).read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    document = load_strict(text, str(path), error=ConfigError)
    top = document.mapping((), ("plans", "space"))
    plans: list[Plan] = []
    for index in range(len(_list(document, ("plans",))) if "plans" in top else 0):
        plan = plan_at(document, ("plans", index), catalog)
        if plan in plans:
            raise document.problem(("plans", index), f"{plan} stands here twice")
        plans.append(plan)
    space = _space(document, catalog) if "space" in top else None
    if not plans and space is None:
        raise document.problem((), "expected `plans`, `space` or both")
    return PlanFile(tuple(plans), space, str(path))


def plan_at(document: Document, path: tuple[str | int, ...], catalog: Catalog) -> Plan:
    """The plan that stands at `path` as `topology: [seats]`, with names of the catalog.

    Raises the document's error as `file:line: key: why`.
    """
    entry = document.mapping(path)
    if len(entry) != 1:
        raise document.problem(path, "expected one `topology: [seats]`")
    topology = next(iter(entry))
    _check_name(document, (*path, topology), topology, "topology", catalog.topologies)
    agents: list[Agent] = []
    for index, seat in enumerate(_list(document, (*path, topology))):
        where = (*path, topology, index)
        if not isinstance(seat, str) or not seat:
            raise document.problem(where, f"expected `role@model`, got {describe(seat)}")
        role, mark, model = seat.partition("@")
        if mark:
            _check_name(document, where, role, "role", catalog.roles)
        if mark and not model:
            raise document.problem(where, f"expected `role@model`, got {describe(seat)}")
        agents.append(Agent(role, model) if mark else Agent(None, seat))
    plan = Plan(topology, tuple(agents))
    _check_runs(document, (*path, topology), plan, catalog)
    return plan


def _space(document: Document, catalog: Catalog) -> PlanSpace:
    parts = ("topologies", "roles", "models")
    missing = [part for part in parts if part not in document.mapping(("space",), parts)]
    if missing:
        raise document.problem(("space",), f"needs {', '.join(parts)}; got no {missing[0]}")
    topologies: dict[str, tuple[int, int]] = {}
    for name, sizes in document.mapping(("space", "topologies")).items():
        where = ("space", "topologies", name)
        _check_name(document, where, name, "topology", catalog.topologies)
        pair = [sizes, sizes] if isinstance(sizes, int) else sizes
        if not (
            isinstance(pair, list) and len(pair) == 2 and all(type(size) is int for size in pair)
        ):
            raise document.problem(where, "expected a number of agents or [least, most]")
        if not 1 <= pair[0] <= pair[1]:
            raise document.problem(where, f"expected [least, most] agents, got {pair}")
        topologies[name] = (pair[0], pair[1])
    roles: dict[str, tuple[str, ...]] = {}
    for task in document.mapping(("space", "roles"), (*get_args(Task), ANY)):
        names = _names(document, ("space", "roles", task))
        for index, name in enumerate(names):
            _check_name(document, ("space", "roles", task, index), name, "role", catalog.roles)
        roles[task] = names
    models = _names(document, ("space", "models"))
    for part, found in (("topologies", topologies), ("roles", roles)):
        if not found:
            raise document.problem(("space", part), "expected at least one")
    for name, sizes in topologies.items():
        for role in dict.fromkeys(role for names in roles.values() for role in names):
            for count in sizes:
                plan = Plan(name, (Agent(role, models[0]),) * count)
                _check_runs(document, ("space", "topologies", name), plan, catalog)
    return PlanSpace(topologies, roles, models)


def _list(document: Document, path: tuple[str | int, ...]) -> list[object]:
    value = document.at(path)
    if not isinstance(value, list) or not value:
        raise document.problem(path, f"expected a list that is not empty, got {describe(value)}")
    return value


def _names(document: Document, path: tuple[str | int, ...]) -> tuple[str, ...]:
    names: list[str] = []
    for index, name in enumerate(_list(document, path)):
        if not isinstance(name, str) or not name or name in names:
            raise document.problem((*path, index), f"expected a new name, got {describe(name)}")
        names.append(name)
    return tuple(names)


def _check_runs(
    document: Document, path: tuple[str | int, ...], plan: Plan, catalog: Catalog
) -> None:
    try:
        check_plan(plan, catalog, topology_named(plan.topology))
    except PlanError as error:
        raise document.problem(path, str(error).removeprefix("plan: ")) from error


def _check_name(
    document: Document,
    path: tuple[str | int, ...],
    name: str,
    kind: str,
    known: Mapping[str, object],
) -> None:
    if name not in known:
        near = did_you_mean(name, known)
        raise document.problem(path, f"{kind} {name!r} is not in the catalog{near}")
