"""Requests that offer tools: what they are called and may cost, and who refuses them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.llms.meters import Tally
from tests.llms.tool_samples import ANY_TEXT, ASK, JSON, LOOK_UP

from masrouter.collection.recording import RecordingModel
from masrouter.collection.store import Store
from masrouter.errors import CallError, CollectionError, ConfigError
from masrouter.execution import Ledger
from masrouter.hosts.calling import HostModel, Said
from masrouter.llms import (
    ChatRequest,
    Message,
    Tool,
    ToolCall,
)
from masrouter.llms.chat import messages
from masrouter.llms.simulated import SimulatedProvider, SimulatedTask
from masrouter.sections import section


def test_a_request_without_tools_is_called_what_it_always_was() -> None:
    assert replace(ASK, tools=()).digest() == (
        "541ebd7c8e7659701d489507550d4f9e4940bada9387a04e80240b5764c02b5e"
    )


def test_tools_and_calls_are_part_of_what_a_request_is() -> None:
    def spoken(*turns: Message) -> ChatRequest:
        return replace(ASK, messages=turns)

    one, other = ToolCall("a", "look_up", "{}"), ToolCall("b", "look_up", "{}")
    different = [
        replace(ASK, tools=()),
        ASK,
        replace(ASK, tools=(replace(LOOK_UP, description="Looks."),)),
        replace(ASK, tools=(replace(LOOK_UP, parameters={"type": "object"}),)),
        replace(ASK, tools=(LOOK_UP, replace(LOOK_UP, name="other"))),
        spoken(Message("assistant", "")),
        spoken(Message("assistant", "", tool_calls=(one,))),
        spoken(Message("assistant", "", tool_calls=(other,))),
        spoken(Message("assistant", "", tool_calls=(one, other))),
        spoken(Message("tool", "x", tool_call_id="a")),
        spoken(Message("tool", "x", tool_call_id="b")),
    ]
    assert len({request.digest() for request in different}) == len(different)


async def never(request: ChatRequest) -> Said:
    raise AssertionError(request)


@settings(max_examples=60)
@given(
    parameters=st.dictionaries(ANY_TEXT, JSON, max_size=4),
    calls=st.lists(st.builds(ToolCall, ANY_TEXT, ANY_TEXT, ANY_TEXT), max_size=3),
    arguments=st.dictionaries(ANY_TEXT, JSON, max_size=4),
    result=ANY_TEXT,
)
def test_the_bound_on_prompt_tokens_holds_however_a_template_spells_tools_out(
    parameters: dict[str, Any], calls: list[ToolCall], arguments: dict[str, Any], result: str
) -> None:
    written = ToolCall("c", "look_up", json.dumps(arguments, separators=(",", ":")))
    tool = Tool("look_up", result, parameters)
    request = ChatRequest(
        "m",
        (
            Message("assistant", result, tool_calls=(written, *calls)),
            Message("tool", result, tool_call_id="c"),
        ),
        100,
        tools=(tool,),
    )
    prompt = [
        _escaped(json.dumps(tool.to_json(), indent=4)),
        result.encode("utf-8", "surrogatepass").decode("latin-1"),
        _escaped(json.dumps(result)),
        # Arguments are read and spelt out anew, or quoted as the text that they are, even twice.
        max(
            _escaped(json.dumps(arguments)),
            _escaped(json.dumps(json.dumps(written.arguments))),
            key=len,
        ),
        *(_escaped(json.dumps([call.id, call.name, call.arguments])) for call in calls),
    ]
    around = 16 * 3 + 32 * (1 + len(calls)) + 16
    told_how = request.most_prompt_tokens - around - sum(map(len, prompt))
    assert told_how >= 800  # what models are told of the use of tools


def _escaped(text: str) -> str:
    """As Jinja's own `tojson` writes it."""
    for mark in "<>&'":
        text = text.replace(mark, f"\\u{ord(mark):04x}")
    return text


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda: Tool("look up", "", {}), "a name is 1 to 64 letters"),
        (lambda: Tool("", "", {}), "a name is 1 to 64 letters"),
        (lambda: Tool("t", "", {"default": float("nan")}), "cannot be sent as JSON"),
        (lambda: Tool("t", "", {"default": {1}}), "cannot be sent as JSON"),
        (lambda: Message("tool", "x"), "names the call that it answers"),
        (lambda: Message("user", "x", tool_call_id="c"), "names the call that it answers"),
        (lambda: Message("user", "x", (ToolCall("c", "t", ""),)), "only an assistant calls tools"),
    ],
)
def test_a_tool_or_message_that_no_provider_takes_cannot_be_made(
    make: Callable[[], object], why: str
) -> None:
    with pytest.raises(ConfigError, match=why):
        make()


def test_the_simulated_provider_is_offered_tools_and_answers_in_text() -> None:
    task = SimulatedTask("What is 2 + 2?", "math", 1.0, "4", ("5",))
    provider = SimulatedProvider([task])
    ask = ChatRequest("gpt-4o", messages(None, section("question", task.query)), 500)
    answer = asyncio.run(provider.complete(replace(ask, tools=(LOOK_UP,))))
    assert answer.text.strip()
    assert answer.tool_calls == ()


def test_a_collection_refuses_to_record_calls_of_tools(tmp_path: Any) -> None:
    async def ask_it() -> None:
        inner = HostModel(["m"], never)
        with Store(tmp_path / "runs.sqlite") as store:
            await RecordingModel(inner, store, Ledger(), "r1", {}).complete(ASK)

    with pytest.raises(CollectionError, match="offers tools"):
        asyncio.run(ask_it())


def test_a_hosts_model_refuses_tools_rather_than_hiding_them() -> None:
    meter = Tally()
    with pytest.raises(CallError, match="asked for text alone") as error:
        asyncio.run(HostModel(["m"], never).complete(ASK, meter=meter))
    assert (error.value.kind, meter.marks) == ("rejected", "")
