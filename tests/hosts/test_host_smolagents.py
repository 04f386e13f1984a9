"""smolagents: a model that routes, and plans on smolagents' models."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from smolagents import Tool, ToolCallingAgent
from smolagents.models import (
    ChatMessage,
    ChatMessageStreamDelta,
    ChatMessageToolCall,
    ChatMessageToolCallFunction,
    MessageRole,
    Model,
)
from smolagents.monitoring import LogLevel, TokenUsage
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
from masrouter.hosts.smolagents import RoutingModel, run_plan
from masrouter.router import Router
from masrouter.types import RoutingDecision


class Scripted(Model):  # type: ignore[misc]
    """Says by script; for an agent, it calls the tool `double` and then answers with the result."""

    def __init__(self, name: str, *, down: bool = False) -> None:
        super().__init__(model_id=name)
        self.down = down
        self.seen: list[dict[str, Any]] = []

    def generate(
        self, messages: list[ChatMessage], stop_sequences: Any = None, response_format: Any = None,
        tools_to_call_from: list[Tool] | None = None, **settings: Any,
    ) -> ChatMessage:  # fmt: skip
        names = [tool.name for tool in tools_to_call_from or ()]
        self.seen.append({"tools": names, "stop": stop_sequences, **settings})
        if self.down:
            raise Down
        content = messages[-1].content
        text = content if isinstance(content, str) else content[0]["text"]  # type: ignore[index]
        usage = TokenUsage(input_tokens=7, output_tokens=5)
        if names:
            results = [m.content for m in messages if m.role == MessageRole.TOOL_RESPONSE]
            function = (
                ChatMessageToolCallFunction(name="final_answer", arguments={"answer": results[-1]})
                if results
                else ChatMessageToolCallFunction(name=names[0], arguments={"a": 2})
            )
            call = ChatMessageToolCall(function=function, id="1", type="function")
            return ChatMessage(MessageRole.ASSISTANT, "", [call], token_usage=usage)
        system = messages[0].content[0]["text"] if len(messages) > 1 else ""  # type: ignore[index]
        reply = say(str(self.model_id), str(system), text)
        return ChatMessage(MessageRole.ASSISTANT, reply, token_usage=usage)


class Streaming(Scripted):
    def generate_stream(
        self, messages: list[ChatMessage], *rest: Any, **more: Any
    ) -> Iterator[ChatMessageStreamDelta]:
        for word in str(self.generate(messages, *rest, **more).content).split(" "):
            yield ChatMessageStreamDelta(content=word + " ")


class Double(Tool):  # type: ignore[misc]
    name = "double"
    description = "Twice a number."
    inputs = {"a": {"type": "integer", "description": "The number."}}  # noqa: RUF012
    output_type = "integer"

    def forward(self, a: int) -> int:
        return 2 * a


def models_of(*names: str, kind: type[Scripted] = Scripted) -> dict[str, Scripted]:
    return {name: kind(name) for name in names}


def called(models: dict[str, Scripted]) -> list[str]:
    return [name for name, model in models.items() if model.seen]


def user(text: str) -> ChatMessage:
    return ChatMessage(MessageRole.USER, [{"type": "text", "text": text}])


def test_each_question_goes_to_the_model_that_the_router_picks(
    one_call_router: Router, some_texts: list[str]
) -> None:
    for text, pick in zip(some_texts, picks(one_call_router, some_texts), strict=True):
        models = models_of(*MODELS)
        reply = RoutingModel(one_call_router, models)([user(text)], stop_sequences=["END"])
        assert called(models) == [pick]
        assert reply.content == say(pick, "", text)
        assert models[pick].seen[0]["stop"] == ["END"]


@pytest.mark.parametrize("planning", [False, True])
def test_an_agents_task_is_routed_on_and_all_its_steps_go_to_the_same_model(
    one_call_router: Router, some_texts: list[str], planning: bool
) -> None:
    for text, pick in zip(some_texts, picks(one_call_router, some_texts), strict=True):
        models = models_of(*MODELS)
        decisions: list[RoutingDecision] = []
        model = RoutingModel(one_call_router, models, on_decision=decisions.append)
        agent = ToolCallingAgent(
            [Double()],
            model=model,
            planning_interval=1 if planning else None,
            verbosity_level=LogLevel.OFF,
        )
        assert "4" in str(agent.run(text))
        # The first plan is asked for in a prompt of smolagents' own, before there is a task.
        chosen = [decision.plan.agents[0].model for decision in decisions]
        assert chosen[planning:] == [pick] * (3 if planning else 2)
        tools = [seen["tools"] for seen in models[pick].seen if seen["tools"]]
        assert tools == [["double", "final_answer"]] * 2


def test_streams_come_from_the_chosen_model_where_it_can(
    one_call_router: Router, some_texts: list[str]
) -> None:
    models = models_of(*MODELS, kind=Streaming)
    model = RoutingModel(one_call_router, models)
    pieces = [delta.content for delta in model.generate_stream([user(some_texts[0])])]
    pick = picks(one_call_router, some_texts)[0]
    assert called(models) == [pick]
    assert len(pieces) > 1
    assert "".join(pieces).strip() == say(pick, "", some_texts[0])
    mute = RoutingModel(one_call_router, models_of(*MODELS))
    with pytest.raises(ConfigError, match="cannot stream; make the agent with stream_outputs=Fal"):
        next(mute.generate_stream([user(some_texts[0])]))


def test_what_cannot_be_routed_is_refused(one_call_router: Router) -> None:
    with pytest.raises(ConfigError, match="'gpt-9'"):
        RoutingModel(one_call_router, models_of("gpt-9"))
    with pytest.raises(RoutingError, match="no text"):
        RoutingModel(one_call_router, models_of(*MODELS))([])


@pytest.mark.parametrize("name", PLANS)
def test_a_plan_runs_on_models_of_smolagents_as_it_does_without_it(name: str) -> None:
    plan = PLANS[name]
    run = asyncio.run(run_plan(plan, QUERY, models=models_of(*plan.models)))
    assert told(run) == told(expected(plan))
    assert run.usage.prompt_tokens == 7 * len(run.calls)


def test_settings_and_failures_of_a_member_are_those_of_the_team() -> None:
    plan = PLANS["self_consistency"]
    models = models_of(*plan.models)
    models["m2"] = Scripted("m2", down=True)
    run = asyncio.run(run_plan(plan, QUERY, models=models, max_tokens=99))
    assert told(run) == told(expected(plan, down="m2"))
    settings = models["m1"].seen[0]
    assert (settings["max_tokens"], settings["temperature"]) == (99, 0.7)
    with pytest.raises(PlanError, match="needs 'm3'"):
        asyncio.run(run_plan(plan, QUERY, models=models_of("m1", "m2")))
