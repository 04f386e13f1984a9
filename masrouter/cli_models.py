"""What `--llm` and `--plan` mean: a chat model, who of a plan it can play, a plan in short."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from typing import TypeAlias

from masrouter.catalog import Catalog
from masrouter.errors import CallError, ConfigError
from masrouter.llms import Providers
from masrouter.llms.simulated import SimulatedProvider
from masrouter.problems import Problem, simulated_task
from masrouter.strict_yaml import did_you_mean
from masrouter.types import Agent, Plan

SIMULATED = "simulated"
ServingModel: TypeAlias = Providers | SimulatedProvider

_PLAN = re.compile(r"\s*([\w-]+)\s*\((.+)\)\s*")
_TIMES = re.compile(r"(\d{1,2})x\s+(.+)")


def chat_model(
    llm: str, problems: Sequence[Problem], catalog: Catalog, *, seed: int = 0
) -> ServingModel:
    """The model behind `--llm`: `simulated`, in world `seed`, or a providers file."""
    if llm != SIMULATED:
        return Providers.load(llm, catalog=catalog)
    if not problems:
        raise ConfigError(
            "the simulated provider answers problems only (--problems); for other queries name a "
            "providers file with --llm"
        )
    return SimulatedProvider(map(simulated_task, problems), catalog=catalog, seed=seed)


def unserved(llm: ServingModel, models: Iterable[str]) -> dict[str, str]:
    """Which of these models cannot be asked, each with the reason."""
    why: dict[str, str] = {}
    for model in dict.fromkeys(models):
        if isinstance(llm, SimulatedProvider):
            if model not in llm.models:
                near = did_you_mean(model, llm.models)
                why[model] = f"model {model!r}: the simulated provider does not play it{near}"
            continue
        try:
            llm.endpoint_of(model)
        except CallError as error:
            why[model] = str(error)
    return why


def check_served(llm: ServingModel, plans: Iterable[Plan]) -> None:
    """Raises ConfigError for plans with models that nobody serves, naming each."""
    lost = unserved(llm, (model for plan in plans for model in plan.models))
    if lost:
        raise ConfigError("; ".join(lost.values()))


def read_plan(text: str) -> Plan:
    """A plan as it is shown, `debate(critic@gpt-4o, 2x gpt-4o-mini)`, or as JSON."""
    if text.lstrip().startswith("{"):
        try:
            data = json.loads(text)
        except json.JSONDecodeError as error:
            raise ConfigError(f"--plan: no JSON: {error}") from error
        return Plan.from_json(data)
    whole = _PLAN.fullmatch(text)
    if whole is None:
        raise ConfigError(
            f"--plan: expected `topology(role@model, ...)` or JSON, got {text!r}; for example "
            "'debate(critic@gpt-4o, 2x gpt-4o-mini)'"
        )
    agents: list[Agent] = []
    for seat in whole[2].split(","):
        times = _TIMES.fullmatch(seat.strip())
        role, mark, model = (times[2] if times else seat.strip()).partition("@")
        agent = Agent(role, model) if mark else Agent(None, role)
        agents += [agent] * (int(times[1]) if times else 1)
    return Plan(whole[1], tuple(agents))
