"""OpenAI Agents SDK: a provider that routes, and plans whose seats are agents of the SDK.

Nothing is traced to anywhere: the processor that would send traces is taken out.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import agents
import pytest
from agents.items import ModelResponse, TResponseStreamEvent
from agents.tracing import CustomSpanData, Span, Trace, TracingProcessor, set_trace_processors
from openai.types.responses import (
    Response,
    ResponseCompletedEvent,
    ResponseFunctionToolCall,
    ResponseOutputMessage,
    ResponseOutputText,
    ResponseTextDeltaEvent,
)
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
from masrouter.hosts.openai_agents import RoutingProvider, run_plan
from masrouter.router import Router


class Spans(TracingProcessor):
    """Keeps traces and spans here."""

    def __init__(self) -> None:
        self.traces: list[str] = []
        self.spans: list[Any] = []

    def on_trace_start(self, trace: Trace) -> None:
        self.traces.append(trace.name)

    def on_span_end(self, span: Span[Any]) -> None:
        self.spans.append(span.span_data)

    def on_trace_end(self, trace: Trace) -> None: ...
    def on_span_start(self, span: Span[Any]) -> None: ...
    def shutdown(self) -> None: ...
    def force_flush(self) -> None: ...


@pytest.fixture(autouse=True)
def spans() -> Iterator[Spans]:
    kept = Spans()
    set_trace_processors([kept])
    yield kept
    set_trace_processors([])


class Scripted(agents.Model):
    """Says by script; with tools, it calls the first one once."""

    def __init__(self, name: str, *, down: bool = False) -> None:
        self.name, self.down = name, down
        self.seen: list[dict[str, Any]] = []

    async def get_response(
        self, system_instructions: str | None, input: Any, model_settings: Any,
        tools: list[agents.Tool], *rest: Any, **more: Any,
    ) -> ModelResponse:  # fmt: skip
        self.seen.append({"tools": [t.name for t in tools], "settings": model_settings})
        if self.down:
            raise Down
        items = [{"role": "user", "content": input}] if isinstance(input, str) else input
        if tools and not any(item.get("type") == "function_call_output" for item in items):
            item: Any = ResponseFunctionToolCall(
                arguments='{"a": 2}', call_id="1", name=tools[0].name, type="function_call"
            )
        else:
            last = items[-1].get("content") or items[-1]["output"]
            text = say(self.name, system_instructions or "", str(last))
            part = ResponseOutputText(annotations=[], text=text, type="output_text")
            item = ResponseOutputMessage(
                id="1", content=[part], role="assistant", status="completed", type="message"
            )
        usage = agents.Usage(requests=1, input_tokens=7, output_tokens=5, total_tokens=12)
        return ModelResponse(output=[item], usage=usage, response_id=None)

    async def stream_response(self, *arguments: Any, **more: Any) -> AsyncIterator[Any]:
        whole = await self.get_response(*arguments, **more)
        yield ResponseTextDeltaEvent(
            content_index=0, delta=whole.output[0].content[0].text, item_id="1", logprobs=[],  # type: ignore[union-attr]
            output_index=0, sequence_number=0, type="response.output_text.delta",
        )  # fmt: skip
        response = Response(
            id="1", created_at=0, model=self.name, object="response", output=whole.output,
            parallel_tool_calls=False, tool_choice="auto", tools=[],
        )  # fmt: skip
        yield ResponseCompletedEvent(
            response=response, sequence_number=1, type="response.completed"
        )


class Provider(agents.ModelProvider):
    """Makes a model for any name, once."""

    def __init__(self, *, down: str | None = None) -> None:
        self.models: dict[str | None, Scripted] = {}
        self.down = down
        self.closed = False

    def get_model(self, model_name: str | None) -> Scripted:
        made = Scripted(str(model_name), down=model_name == self.down)
        return self.models.setdefault(model_name, made)

    async def aclose(self) -> None:
        self.closed = True

    @property
    def called(self) -> list[str | None]:
        return [name for name, model in self.models.items() if model.seen]


def run_agent(agent: agents.Agent[Any], text: Any, provider: agents.ModelProvider) -> Any:
    config = agents.RunConfig(model_provider=provider)
    return asyncio.run(agents.Runner.run(agent, text, run_config=config))


AUTO = agents.Agent[None](name="Auto", model="masrouter/auto")


def test_each_question_goes_to_the_model_that_the_router_picks(
    one_call_router: Router, some_texts: list[str], spans: Spans
) -> None:
    for text, pick in zip(some_texts, picks(one_call_router, some_texts), strict=True):
        provider = Provider()
        result = run_agent(AUTO, text, RoutingProvider(one_call_router, MODELS, provider=provider))
        assert provider.called == [pick]
        assert result.final_output == say(pick, "", text)
        decision = next(s for s in reversed(spans.spans) if isinstance(s, CustomSpanData))
        assert (decision.name, decision.data["model"]) == ("masrouter", pick)


def test_streams_come_from_the_chosen_model(one_call_router: Router, some_texts: list[str]) -> None:
    pick = picks(one_call_router, some_texts)[0]
    provider = Provider()
    config = agents.RunConfig(
        model_provider=RoutingProvider(one_call_router, MODELS, provider=provider)
    )

    async def stream() -> tuple[list[str], Any]:
        result = agents.Runner.run_streamed(AUTO, some_texts[0], run_config=config)
        raw: list[TResponseStreamEvent] = [
            event.data async for event in result.stream_events()
            if event.type == "raw_response_event"
        ]  # fmt: skip
        return [event.delta for event in raw if hasattr(event, "delta")], result.final_output

    pieces, answer = asyncio.run(stream())
    assert provider.called == [pick]
    assert "".join(pieces) == answer == say(pick, "", some_texts[0])


def test_tools_go_to_the_chosen_model_which_stays_the_same_for_a_turn(
    one_call_router: Router, some_texts: list[str]
) -> None:
    @agents.function_tool
    def double(a: int) -> str:
        """Twice a number."""
        return str(2 * a)

    pick = picks(one_call_router, some_texts)[0]
    provider = Provider()
    agent = agents.Agent[None](
        name="Auto", model="masrouter/auto", instructions="Be kind.", tools=[double],
        model_settings=agents.ModelSettings(temperature=0.1),
    )  # fmt: skip
    routing = RoutingProvider(one_call_router, MODELS, provider=provider)
    result = run_agent(agent, some_texts[0], routing)
    assert provider.called == [pick]
    assert [seen["tools"] for seen in provider.models[pick].seen] == [["double"], ["double"]]
    assert provider.models[pick].seen[0]["settings"].temperature == 0.1
    assert result.final_output == say(pick, "Be kind.", "4")


def test_the_last_user_message_of_a_conversation_is_routed_on(
    one_call_router: Router, some_texts: list[str]
) -> None:
    for text, pick in zip(some_texts, picks(one_call_router, some_texts), strict=True):
        provider = Provider()
        said = [
            {"role": "user", "content": "Hello."},
            {"role": "assistant", "content": "Write a haiku."},
            {"role": "user", "content": [{"type": "input_text", "text": text}]},
        ]
        run_agent(AUTO, said, RoutingProvider(one_call_router, MODELS, provider=provider))
        assert provider.called == [pick]
    image = [{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}]
    with pytest.raises(RoutingError, match="no text"):
        run_agent(AUTO, image, RoutingProvider(one_call_router, MODELS, provider=provider))


def test_other_names_are_the_providers_and_models_may_have_other_names_there(
    one_call_router: Router, some_texts: list[str]
) -> None:
    provider = Provider()
    own = {name: f"theirs/{name}" for name in MODELS}
    routing = RoutingProvider(one_call_router, own, provider=provider)
    assert routing.get_model("gpt-9") is provider.get_model("gpt-9")
    run_agent(AUTO, some_texts[0], routing)
    assert provider.called == [f"theirs/{picks(one_call_router, some_texts)[0]}"]
    asyncio.run(routing.aclose())
    assert provider.closed
    with pytest.raises(ConfigError, match="'gpt-9'"):
        RoutingProvider(one_call_router, ["gpt-9"], provider=provider)


@pytest.mark.parametrize("name", PLANS)
def test_a_plan_runs_with_an_agent_in_every_seat_as_it_does_without_the_sdk(
    name: str, spans: Spans
) -> None:
    plan = PLANS[name]
    run = asyncio.run(run_plan(plan, QUERY, models=Provider()))
    assert told(run) == told(expected(plan))
    assert run.usage.prompt_tokens == 7 * len(run.calls)
    assert spans.traces == [f"masrouter {plan.topology}"]
    seats = {span.name for span in spans.spans if span.type == "agent"}
    assert seats == {str(plan.agents[call.agent]) for call in run.calls}


def test_settings_and_failures_of_a_member_are_those_of_the_team() -> None:
    plan = PLANS["self_consistency"]
    provider = Provider(down="m2")
    models = {name: provider.get_model(name) for name in plan.models}
    run = asyncio.run(run_plan(plan, QUERY, models=models, max_tokens=99))
    assert told(run) == told(expected(plan, down="m2"))
    settings = provider.models["m1"].seen[0]["settings"]
    assert (settings.max_tokens, settings.temperature) == (99, 0.7)
    with pytest.raises(PlanError, match="needs 'm3'"):
        asyncio.run(run_plan(plan, QUERY, models={"m1": models["m1"], "m2": models["m2"]}))


def test_a_run_that_is_not_to_be_traced_is_not(spans: Spans) -> None:
    config = agents.RunConfig(tracing_disabled=True)
    asyncio.run(run_plan(PLANS["io"], QUERY, models=Provider(), run_config=config))
    assert (spans.traces, spans.spans) == ([], [])
