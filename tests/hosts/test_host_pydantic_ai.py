"""pydantic-ai: a model that routes, and plans whose seats are pydantic-ai agents."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from pydantic import BaseModel
from pydantic_ai import Agent, ImageUrl
from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart, ToolCallPart
from pydantic_ai.models.function import AgentInfo, DeltaToolCall, FunctionModel
from pydantic_ai.usage import RequestUsage
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

from masrouter.errors import ConfigError, PlanError, RoutingError
from masrouter.hosts.pydantic_ai import RoutingModel, run_plan
from masrouter.router import Router


class Scripted:
    """Says by script; calls a tool that it is given, once."""

    def __init__(self, name: str, *, down: bool = False) -> None:
        self.name, self.down = name, down
        self.seen: list[AgentInfo] = []
        self.entered = 0

    def answer(self, messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        self.seen.append(info)
        if self.down:
            raise Down
        tools = info.function_tools or info.output_tools
        last = messages[-1].parts[-1]
        part: TextPart | ToolCallPart
        if tools and last.part_kind != "tool-return":
            part = ToolCallPart(tools[0].name, {"a": 2})
        else:
            part = TextPart(say(self.name, info.instructions or "", str(last.content)))  # type: ignore[union-attr]
        return ModelResponse([part], usage=RequestUsage(input_tokens=7, output_tokens=5))

    async def stream(
        self, messages: list[ModelMessage], info: AgentInfo
    ) -> AsyncIterator[str | dict[int, DeltaToolCall]]:
        (part,) = self.answer(messages, info).parts
        assert isinstance(part, TextPart)
        for word in part.content.split(" "):
            yield word + " "

    def model(self) -> FunctionModel:
        return FunctionModel(self.answer, stream_function=self.stream, model_name=self.name)


class Models(dict[str, FunctionModel]):
    def __init__(self, *names: str, down: str | None = None) -> None:
        self.scripts = {name: Scripted(name, down=name == down) for name in names}
        super().__init__({name: script.model() for name, script in self.scripts.items()})

    @property
    def called(self) -> list[str]:
        return [name for name, script in self.scripts.items() if script.seen]


def test_each_question_goes_to_the_model_that_the_router_picks(
    one_call_router: Router, some_texts: list[str]
) -> None:
    for text, pick in zip(some_texts, picks(one_call_router, some_texts), strict=True):
        models = Models(*MODELS)
        result = asyncio.run(Agent(RoutingModel(one_call_router, models)).run(text))
        assert models.called == [pick]
        assert result.output == say(pick, "", text)
        assert result.response.model_name == pick
        assert result.response.metadata is not None
        assert result.response.metadata["masrouter"]["model"] == pick


def test_streams_come_from_the_chosen_model(one_call_router: Router, some_texts: list[str]) -> None:
    models = Models(*MODELS)

    async def stream() -> tuple[list[str], Any]:
        agent = Agent(RoutingModel(one_call_router, models))
        async with agent.run_stream(some_texts[0]) as result:
            pieces = [piece async for piece in result.stream_text(delta=True, debounce_by=None)]
        return pieces, result.response.metadata

    pieces, metadata = asyncio.run(stream())
    pick = picks(one_call_router, some_texts)[0]
    assert models.called == [pick]
    assert "".join(pieces).strip() == say(pick, "", some_texts[0])
    assert len(pieces) > 1
    assert metadata["masrouter"]["model"] == pick


def test_tools_settings_and_instructions_go_to_the_chosen_model_for_the_whole_turn(
    one_call_router: Router, some_texts: list[str]
) -> None:
    pick = picks(one_call_router, some_texts)[0]
    models = Models(*MODELS)
    agent = Agent(RoutingModel(one_call_router, models), instructions="Be kind.")

    @agent.tool_plain
    def double(a: int) -> int:
        """Twice a number."""
        return 2 * a

    result = asyncio.run(agent.run(some_texts[0], model_settings={"temperature": 0.1}))
    assert models.called == [pick]
    seen = models.scripts[pick].seen
    assert [[tool.name for tool in info.function_tools] for info in seen] == [["double"]] * 2
    assert seen[0].model_settings is not None
    assert seen[0].model_settings["temperature"] == 0.1
    assert result.output == say(pick, "Be kind.", "4")


def test_structured_output_is_the_chosen_models(
    one_call_router: Router, some_texts: list[str]
) -> None:
    class Number(BaseModel):
        a: int

    agent = Agent(RoutingModel(one_call_router, Models(*MODELS)), output_type=Number)
    assert asyncio.run(agent.run(some_texts[0])).output == Number(a=2)


def test_the_last_prompt_of_a_conversation_is_routed_on(
    one_call_router: Router, some_texts: list[str]
) -> None:
    models = Models(*MODELS)
    agent = Agent(RoutingModel(one_call_router, models))
    chosen = []
    history: list[ModelMessage] = []
    for text in some_texts:
        image = ImageUrl("https://example.com/a.png")
        result = asyncio.run(agent.run([image, text], message_history=history))
        history = result.all_messages()
        chosen.append(result.response.model_name)
    assert chosen == picks(one_call_router, some_texts)
    with pytest.raises(RoutingError, match="no text"):
        asyncio.run(agent.run([ImageUrl("https://example.com/a.png")]))


def test_its_models_are_opened_and_closed_with_it(one_call_router: Router) -> None:
    inside = []

    class Opened(FunctionModel):
        async def __aenter__(self) -> Any:
            inside.append(self.model_name)
            return await super().__aenter__()

        async def __aexit__(self, *error: Any) -> None:
            inside.remove(self.model_name)
            await super().__aexit__(*error)

    models = {name: Opened(Scripted(name).answer, model_name=name) for name in MODELS}

    async def use() -> list[str]:
        async with RoutingModel(one_call_router, models) as model, model:
            return sorted(inside)

    assert asyncio.run(use()) == sorted([*MODELS, *MODELS])
    assert inside == []


def test_a_model_that_the_router_could_never_choose_is_refused(one_call_router: Router) -> None:
    with pytest.raises(ConfigError, match="'gpt-9'"):
        RoutingModel(one_call_router, Models("gpt-9"))


@pytest.mark.parametrize("name", PLANS)
def test_a_plan_runs_with_an_agent_in_every_seat_as_it_does_without_pydantic_ai(name: str) -> None:
    plan = PLANS[name]
    run = asyncio.run(run_plan(plan, QUERY, models=Models(*plan.models)))
    assert told(run) == told(expected(plan))
    assert run.usage.prompt_tokens == 7 * len(run.calls)


def test_settings_and_failures_of_a_member_are_those_of_the_team() -> None:
    plan = PLANS["self_consistency"]
    models = Models(*plan.models, down="m2")
    run = asyncio.run(run_plan(plan, QUERY, models=models, max_tokens=99))
    assert told(run) == told(expected(plan, down="m2"))
    settings = models.scripts["m1"].seen[0].model_settings
    assert settings is not None
    assert (settings["max_tokens"], settings["temperature"]) == (99, 0.7)
    with pytest.raises(PlanError, match="needs 'm3'"):
        asyncio.run(run_plan(plan, QUERY, models=Models("m1", "m2")))
