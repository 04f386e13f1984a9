"""AG2: a config that routes, and plans whose seats are AG2 agents."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from ag2 import Agent, MemoryStream
from ag2.config import LLMClient, ModelConfig, ModelProvider
from ag2.context import ConversationContext
from ag2.events import (
    BaseEvent,
    ImageInput,
    ModelMessage,
    ModelRequest,
    ModelResponse,
    ToolCallEvent,
    ToolCallsEvent,
    ToolResultsEvent,
    Usage,
)
from ag2.tools.schemas import ToolSchema
from tests.hosts.host_samples import (
    MODELS,
    PLANS,
    QUERY,
    Down,
    expected,
    picks,
    say,
    told,
)

from masrouter.errors import BudgetError, ConfigError, PlanError, RoutingError
from masrouter.hosts.ag2 import RoutingConfig, run_plan
from masrouter.router import Router


@dataclass
class Scripted:
    """Says by script; with tools, it calls the first one once. Copies as AG2's own configs do."""

    model: str
    down: bool = False
    max_tokens: int | None = None
    temperature: float | None = None
    seen: list[dict[str, Any]] = field(default_factory=list)

    @property
    def provider(self) -> ModelProvider:
        return ModelProvider.OPENAI

    def copy(self, /, **overrides: Any) -> Scripted:
        return replace(self, **overrides)

    def create(self) -> LLMClient:
        return Client(self)


class Client(LLMClient):
    def __init__(self, config: Any) -> None:
        self.config = config

    async def __call__(
        self, messages: Sequence[BaseEvent], context: ConversationContext, *,
        tools: Iterable[ToolSchema], response_schema: Any, serializer: Any,
    ) -> ModelResponse:  # fmt: skip
        names = [tool.function.name for tool in tools]  # type: ignore[attr-defined]
        limits = [getattr(self.config, key, None) for key in ("max_tokens", "temperature")]
        self.config.seen.append({"tools": names, "settings": limits})
        if getattr(self.config, "down", False):
            raise Down
        usage = Usage(prompt_tokens=7, completion_tokens=5)
        results = [event for event in messages if isinstance(event, ToolResultsEvent)]
        if names and not results:
            call = ToolCallEvent(name=names[0], arguments='{"a": 2}')
            return ModelResponse(tool_calls=ToolCallsEvent([call]), usage=usage)
        text = next(e for e in reversed(messages) if isinstance(e, ModelRequest)).parts[-1].content  # type: ignore[attr-defined]
        reply = say(self.config.model, "\n".join(context.prompt), text) + " done" * len(results)
        return ModelResponse(
            ModelMessage(reply), usage=usage, model=self.config.model, finish_reason="stop"
        )


class Unbounded(ModelConfig):
    """A config that knows no limit of tokens."""

    def __init__(self, model: str) -> None:
        self._model = model
        self.seen: list[dict[str, Any]] = []

    @property
    def model(self) -> str:
        return self._model

    def create(self) -> LLMClient:
        return Client(self)


def configs(*names: str) -> dict[str, Scripted]:
    return {name: Scripted(name) for name in names}


def called(models: dict[str, Scripted]) -> list[str]:
    return [name for name, model in models.items() if model.seen]


def test_each_question_goes_to_the_model_that_the_router_picks(
    one_call_router: Router, some_texts: list[str]
) -> None:
    for text, pick in zip(some_texts, picks(one_call_router, some_texts), strict=True):
        models = configs(*MODELS)
        config = RoutingConfig(one_call_router, models)
        assert (config.model, config.provider) == ("masrouter/auto", ModelProvider.OPENAI)
        reply = asyncio.run(Agent("auto", config=config.copy()).ask(text))
        assert called(models) == [pick]
        assert reply.body == say(pick, "", text)
        assert reply.response.metadata["masrouter"]["model"] == pick


def test_tools_and_the_prompt_go_to_the_chosen_model_which_stays_the_same_for_a_turn(
    one_call_router: Router, some_texts: list[str]
) -> None:
    def double(a: int) -> str:
        """Twice a number."""
        return str(2 * a)

    pick = picks(one_call_router, some_texts)[0]
    models = configs(*MODELS)
    config = RoutingConfig(one_call_router, models)
    agent = Agent("auto", "Be kind.", config=config, tools=[double])
    reply = asyncio.run(agent.ask(some_texts[0]))
    assert called(models) == [pick]
    assert [seen["tools"] for seen in models[pick].seen] == [["double"], ["double"]]
    assert reply.body == say(pick, "Be kind.", some_texts[0]) + " done"


def test_the_last_request_of_a_conversation_is_routed_on(
    one_call_router: Router, some_texts: list[str]
) -> None:
    agent = Agent("auto", config=RoutingConfig(one_call_router, configs(*MODELS)))

    async def talk() -> list[str]:
        stream = MemoryStream()
        replies = [await agent.ask(text, stream=stream) for text in some_texts]
        return [reply.response.metadata["masrouter"]["model"] for reply in replies]

    assert asyncio.run(talk()) == picks(one_call_router, some_texts)
    with pytest.raises(RoutingError, match="no text"):
        asyncio.run(agent.ask(ImageInput("https://example.com/a.png")))


def test_a_model_that_the_router_could_never_choose_is_refused(one_call_router: Router) -> None:
    with pytest.raises(ConfigError, match="'gpt-9'"):
        RoutingConfig(one_call_router, configs("gpt-9"))


@pytest.mark.parametrize("name", PLANS)
def test_a_plan_runs_with_an_agent_in_every_seat_as_it_does_without_ag2(name: str) -> None:
    plan = PLANS[name]
    run = asyncio.run(run_plan(plan, QUERY, models=configs(*plan.models)))
    assert told(run) == told(expected(plan))
    assert run.usage.prompt_tokens == 7 * len(run.calls)
    assert {call.finish_reason for call in run.calls} == {"stop"}


def test_settings_and_failures_of_a_member_are_those_of_the_team() -> None:
    plan = PLANS["self_consistency"]
    models = configs(*plan.models)
    models["m2"] = Scripted("m2", down=True)
    run = asyncio.run(run_plan(plan, QUERY, models=models, max_tokens=99))
    assert told(run) == told(expected(plan, down="m2"))
    assert models["m1"].seen[0]["settings"] == [99, 0.7]
    with pytest.raises(PlanError, match="needs 'm3'"):
        asyncio.run(run_plan(plan, QUERY, models=configs("m1", "m2")))


def test_a_config_without_a_limit_of_tokens_runs_but_takes_no_budget() -> None:
    plan = PLANS["examples/plan.json"]
    models = {name: Unbounded(name) for name in plan.models}
    run = asyncio.run(run_plan(plan, QUERY, models=models))
    assert told(run) == told(expected(plan))
    with pytest.raises(BudgetError, match=r"'gpt-4o-mini', .* takes no max_tokens"):
        asyncio.run(run_plan(plan, QUERY, models=models, budget_usd=1.0))
    bounded = configs(*plan.models)
    run = asyncio.run(run_plan(plan, QUERY, models=bounded, budget_usd=1.0))
    assert run.usage.cost_usd
