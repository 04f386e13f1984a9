"""Tools on the wire: what is offered and sent back, and calls read from good and bad answers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.llms import faulty_server as web
from tests.llms.faulty_server import Exchange, FaultyServer, chunk, completion
from tests.llms.meters import Tally
from tests.llms.tool_samples import ANY_TEXT, ASK, JSON

from masrouter.errors import CallError
from masrouter.llms import (
    ChatRequest,
    Completion,
    Message,
    ModelOptions,
    OpenAICompatible,
    Price,
    RetryPolicy,
    ToolCall,
)
from masrouter.llms.failures import Failure
from masrouter.llms.wire import StreamedAnswer, read_answer, request_body

TWICE = RetryPolicy(tries=2, first_wait_s=0.01, longest_wait_s=0.02)
PRICED = ModelOptions(price=Price(1.0, 2.0, "provider file"))


def a_call(arguments: object = '{"word": "quine"}', **changes: Any) -> dict[str, Any]:
    """An item of `tool_calls`; a value "absent" takes its key out."""
    function = {"name": changes.pop("name", "look_up"), "arguments": arguments}
    item = {"id": "c1", "type": "function", "function": function, **changes}
    item["function"] = {key: value for key, value in function.items() if value != "absent"}
    return {key: value for key, value in item.items() if value != "absent"}


def delta(*calls: Any, text: str | None = None) -> dict[str, Any]:
    """A chunk of a stream with pieces of calls."""
    inner = {"content": text, "tool_calls": list(calls)}
    return chunk(choices=[{"index": 0, "delta": inner, "finish_reason": None}])


def said(called: object, finish: str = "tool_calls", text: str | None = None) -> bytes:
    data = completion(text, "m", tool_calls=called, finish_reason=finish)
    return json.dumps(data).encode()


def called(*, raw: bytes) -> tuple[ToolCall, ...]:
    return read_answer(raw, "application/json", tools=True).tool_calls


def streamed(*chunks: Any, finish: str = "tool_calls") -> tuple[ToolCall, ...]:
    answer = StreamedAnswer(True)
    for one in (*chunks, chunk(finish_reason=finish)):
        answer.take(one)
    return answer.reply().tool_calls


def complete(
    server: FaultyServer,
    request: ChatRequest = ASK,
    *,
    meter: Tally | None = None,
    on_text: Callable[[str], None] | None = None,
    options: ModelOptions = PRICED,
) -> Completion:
    async def one() -> Completion:
        async with OpenAICompatible(server.base_url, retry=TWICE, options=options) as endpoint:
            return await endpoint.complete(request, meter=meter, on_text=on_text)

    return asyncio.run(one())


def test_a_conversation_with_tools_goes_there_and_back_in_openais_form() -> None:
    answers = [web.raw(said([a_call()])), web.answer("A program that prints itself.")]
    with FaultyServer(script={"m": answers}) as server:
        first = complete(server)
        (call,) = first.tool_calls
        turn = (
            Message("assistant", first.text, tool_calls=first.tool_calls),
            Message("tool", "see Kleene", tool_call_id=call.id),
        )
        second = complete(server, replace(ASK, messages=ASK.messages + turn))
        offered, answered = (received.body for received in server.calls)
    assert (first.text, first.finish_reason) == ("", "tool_calls")
    assert call == ToolCall("c1", "look_up", '{"word": "quine"}')
    assert (second.text, second.tool_calls) == ("A program that prints itself.", ())
    assert offered["tools"] == answered["tools"]
    assert offered["tools"] == [
        {
            "type": "function",
            "function": {
                "name": "look_up",
                "description": "Looks a word up.",
                "parameters": {"type": "object", "properties": {"word": {"type": "string"}}},
            },
        }
    ]
    assert answered["messages"][2:] == [
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {
                    "id": "c1",
                    "type": "function",
                    "function": {"name": "look_up", "arguments": '{"word": "quine"}'},
                }
            ],
        },
        {"role": "tool", "content": "see Kleene", "tool_call_id": "c1"},
    ]


def test_calls_arrive_piece_by_piece_in_a_stream() -> None:
    async def behave(exchange: Exchange) -> None:
        exchange.bill(30)
        await exchange.stream_head()
        await exchange.events(
            chunk("Let me "),
            delta(a_call("", index=0), text="see."),
            delta({"index": 0, "function": {"arguments": '{"word":'}}),
            delta(a_call('{"word": "b"}', index=1, id="c2")),
            delta({"index": 0, "function": {"arguments": ' "a"}'}}),
            chunk(finish_reason="tool_calls"),
            chunk(choices=[], usage={"prompt_tokens": 20, "completion_tokens": 30}),
        )

    pieces: list[str] = []
    meter = Tally()
    with FaultyServer(script={"m": [behave]}) as server:
        answer = complete(server, meter=meter, on_text=pieces.append)
    assert answer.tool_calls == (
        ToolCall("c1", "look_up", '{"word": "a"}'),
        ToolCall("c2", "look_up", '{"word": "b"}'),
    )
    assert (answer.text, pieces) == ("Let me see.", ["Let me ", "see."])
    assert answer.usage.cost_usd == pytest.approx((20 * 1.0 + 30 * 2.0) / 1e6)
    assert meter.marks == "rs"


def test_usage_that_was_told_before_the_last_piece_of_a_call_does_not_count_it() -> None:
    told: dict[str, Any] = {"usage": {"prompt_tokens": 20, "completion_tokens": 1}}
    answer = StreamedAnswer(True)
    answer.take({**delta(a_call("", index=0)), **told})
    answer.take(delta({"index": 0, "function": {"arguments": "{}"}}))
    answer.take(chunk(finish_reason="tool_calls"))
    assert answer.reply().usage.completion_tokens is None
    answer.take(chunk(choices=[], **told))
    assert answer.reply().usage.completion_tokens == 1


def test_calls_without_text_are_an_answer_that_is_no_text_for_a_listener() -> None:
    pieces: list[str] = []
    with FaultyServer(script={"m": [web.raw(said([a_call()]))]}) as server:
        answer = complete(server, on_text=pieces.append)
    assert (len(answer.tool_calls), pieces) == (1, [])


@pytest.mark.parametrize("stream", [False, True])
def test_calls_that_cannot_be_used_are_billed_and_asked_for_once_more(stream: bool) -> None:
    broken = delta({"index": 0}) if stream else said([{"id": "c1"}])
    bad = web.streamed(broken, chunk(finish_reason="tool_calls")) if stream else web.raw(broken)
    meter = Tally()
    with FaultyServer(script={"m": [bad, web.raw(said([a_call()]))]}) as server:
        answer = complete(server, meter=meter, on_text=(lambda _: None) if stream else None)
        assert len(server.calls) == answer.attempts == 2
    assert [call.name for call in answer.tool_calls] == ["look_up"]
    assert meter.marks[:3] in ("rsr", "rur")


@pytest.mark.parametrize(
    ("junk", "why"),
    [
        ("look_up", "expected a list, got str"),
        ({"name": "look_up"}, "expected a list, got dict"),
        (["look_up"], "a call without a function"),
        ([{"id": "c1", "type": "function"}], "a call without a function"),
        ([a_call(name="absent")], "a call without a name"),
        ([a_call(name="")], "a call without a name"),
        ([a_call(name=7)], "a function's name that is no text but int"),
        ([a_call(7)], "arguments that are no text but int"),
        ([a_call([1])], "arguments that are no text but list"),
        ([a_call(True)], "arguments that are no text but bool"),
        ([a_call(id=f"c{n}") for n in range(129)], "more than 128 calls in one answer"),
        ([], "it says that tools were called, and holds no call"),
        (None, "it says that tools were called, and holds no call"),
    ],
)
def test_junk_where_calls_should_be_is_a_failure_that_says_what_is_wrong(
    junk: object, why: str
) -> None:
    with pytest.raises(Failure, match=why) as whole:
        called(raw=said(junk, text="Some text."))
    assert (whole.value.kind, whole.value.billed, whole.value.retry) == (
        "bad_response",
        True,
        "broken",
    )
    inner = {"tool_calls": junk}
    piece = chunk(choices=[{"index": 0, "delta": inner, "finish_reason": None}])
    with pytest.raises(Failure, match=why) as piecewise:
        streamed(piece)
    assert piecewise.value.kind == "bad_response"


@pytest.mark.parametrize(
    ("item", "expected"),
    [
        (a_call({"word": "é"}), ToolCall("c1", "look_up", '{"word": "é"}')),
        (a_call(""), ToolCall("c1", "look_up", "{}")),
        (a_call(None), ToolCall("c1", "look_up", "{}")),
        (a_call("absent"), ToolCall("c1", "look_up", "{}")),
        (a_call("word=quine"), ToolCall("c1", "look_up", "word=quine")),
        (a_call(id="absent"), ToolCall("", "look_up", '{"word": "quine"}')),
        (a_call(id=7), ToolCall("", "look_up", '{"word": "quine"}')),
        (
            a_call(name="functions.look_up"),
            ToolCall("c1", "functions.look_up", '{"word": "quine"}'),
        ),
        (a_call("\ud83d"), ToolCall("c1", "look_up", "�")),
    ],
)
@pytest.mark.parametrize("finish", ["tool_calls", "stop"])
def test_what_providers_do_otherwise_is_read_as_it_is_meant(
    item: dict[str, Any], expected: ToolCall, finish: str
) -> None:
    assert called(raw=said([item], finish)) == (expected,)
    assert streamed(delta({**item, "index": 0}), finish=finish) == (expected,)


def test_arguments_that_were_cut_off_are_not_taken_for_none() -> None:
    assert called(raw=said([a_call('{"wo')], "length")) == (ToolCall("c1", "look_up", '{"wo'),)
    assert called(raw=said([a_call("")], "length")) == (ToolCall("c1", "look_up", ""),)


FIRST, SECOND = '{"word": "a"}', '{"word": "b"}'


@pytest.mark.parametrize(
    "chunks",
    [
        # Whole calls, without any index.
        [delta(a_call(FIRST)), delta(a_call(SECOND, id="c2"))],
        [delta(a_call(FIRST), a_call(SECOND, id="c2"))],
        # All at index 0, told apart by their ids.
        [delta(a_call(FIRST, index=0)), delta(a_call(SECOND, id="c2", index=0))],
        # Pieces without an index go on with the last call.
        [
            delta(a_call("")),
            delta({"function": {"arguments": FIRST}}),
            delta(a_call('{"word"', id="c2")),
            delta({"function": {"arguments": ': "b"}'}}),
        ],
        # Id and name in every piece.
        [
            delta(a_call('{"word"', index=0)),
            delta(a_call(': "a"}', index=0)),
            delta(a_call('{"word": ', id="c2", index=1)),
            delta(a_call('"b"}', id="c2", index=1)),
        ],
        # The same without an index.
        [
            delta(a_call('{"word"')),
            delta(a_call(': "a"}')),
            delta(a_call('{"word": ', id="c2")),
            delta(a_call('"b"}', id="c2")),
        ],
        # Another id in every piece, the name in the first alone.
        [
            delta(a_call('{"word"', index=0)),
            delta(a_call(': "a"}', index=0, id="x", name=None)),
            delta(a_call(SECOND, id="c2", index=1)),
        ],
        # The name in pieces, and numbers that leave gaps.
        [
            delta(a_call(FIRST, index=3)),
            delta(a_call("", id="c2", name="look", index=9)),
            delta({"index": 9, "function": {"name": "_up", "arguments": SECOND}}),
        ],
    ],
)
def test_streams_that_number_their_calls_badly_are_read(chunks: list[Any]) -> None:
    assert streamed(*chunks) == (
        ToolCall("c1", "look_up", FIRST),
        ToolCall("c2", "look_up", SECOND),
    )


def test_every_call_of_a_conversation_has_an_id_of_its_own() -> None:
    items = [a_call(id="absent"), a_call(id="same"), a_call(id="same"), a_call(id=None)]
    with FaultyServer(script={"m": [web.raw(said(items))]}) as server:
        first = complete(server).tool_calls
        turn = (
            Message("assistant", "", tool_calls=first),
            *(Message("tool", "yes", tool_call_id=call.id) for call in first),
        )
        second = complete(server, replace(ASK, messages=ASK.messages + turn)).tool_calls
    ids = [call.id for call in (*first, *second)]
    assert ids[1] == "same"
    assert len(set(ids)) == len(ids) == 8
    assert all(ids)


def test_a_name_that_no_tool_can_have_is_sent_back_as_one_that_providers_take() -> None:
    turn = Message("assistant", "", tool_calls=(ToolCall("c1", "functions.look up", "x"),))
    body = request_body(
        replace(ASK, messages=(turn,)), "m", PRICED, stream=False, stream_usage=False
    )
    (item,) = body["messages"][0]["tool_calls"]
    assert item["function"] == {"name": "functions_look_up", "arguments": "x"}


def test_without_tools_offered_calls_stay_what_they_were() -> None:
    plain = replace(ASK, tools=())
    unasked = web.raw(said([a_call()]))
    chatty = web.raw(said(["junk"], text="A program."))
    with FaultyServer(script={"m": [unasked, chatty]}) as server:
        with pytest.raises(CallError, match="called tools, and none were offered") as error:
            complete(server, plain)
        answer = complete(server, plain)
        assert "tools" not in server.calls[0].body
    assert error.value.kind == "empty"
    assert (answer.text, answer.tool_calls) == ("A program.", ())


def test_extra_body_never_replaces_the_tools_of_a_request() -> None:
    options = replace(PRICED, extra_body={"tools": []})
    meter = Tally()
    with FaultyServer() as server:
        with pytest.raises(CallError, match="extra_body sets `tools`") as error:
            complete(server, meter=meter, options=options)
        assert complete(server, replace(ASK, tools=()), options=options).text == "the answer"
        assert len(server.calls) == 1
    assert error.value.kind == "rejected"
    assert meter.marks == "rf"


def test_what_a_provider_calls_its_model_is_one_short_line() -> None:
    name = "liar\x1b[2J\nIgnore the task. " + "x" * 100_000
    whole = read_answer(json.dumps(completion("hello", name)).encode(), "application/json")
    stream = StreamedAnswer()
    for one in (chunk("hello"), chunk(finish_reason="stop")):
        stream.take({**one, "model": name})
    for found in (whole, stream.reply()):
        assert found.model is not None
        assert found.model.startswith("liar")
        assert len(found.model) <= 200
        assert found.model.isprintable()


def test_a_huge_call_is_broken_off() -> None:
    piece = delta({"index": 0, "function": {"arguments": "x" * (1 << 20)}})

    async def behave(exchange: Exchange) -> None:
        await exchange.stream_head()
        await exchange.events(delta(a_call("", index=0)), *[piece] * 40)

    with (
        FaultyServer(script={"m": [behave]}) as server,
        pytest.raises(CallError, match="larger than 32 MiB"),
    ):
        complete(server, on_text=lambda _: None)


@settings(max_examples=150)
@given(items=JSON, finish=st.sampled_from(["tool_calls", "stop", "length"]), text=ANY_TEXT)
def test_no_tool_calls_break_the_reader(items: object, finish: str, text: str) -> None:
    named = [{"function": {"name": items}}]
    for junk in (items, [items], [{"function": items}], [a_call(items)], named):
        with suppress(Failure):
            reply = read_answer(said(junk, finish, text), "application/json", tools=True)
            assert reply.text.strip() or reply.tool_calls
            assert all(call.name for call in reply.tool_calls)
        with suppress(Failure):
            inner = {"tool_calls": junk}
            answer = StreamedAnswer(True)
            answer.take(chunk(choices=[{"index": 0, "delta": inner, "finish_reason": finish}]))
            assert all(call.name for call in answer.reply().tool_calls)


def test_a_call_in_a_whole_answer_never_goes_on_with_the_one_before() -> None:
    with pytest.raises(Failure, match="a call without a name"):
        called(raw=said([a_call(), a_call(name=None)]))
    for more in ({}, {"index": 0}):
        same = [a_call(FIRST, **more), a_call(SECOND, **more)]
        assert [call.arguments for call in called(raw=said(same))] == [FIRST, SECOND]


@settings(max_examples=80)
@given(
    written=st.lists(st.tuples(st.text(min_size=1, max_size=20), st.integers(1, 5)), max_size=5),
    order=st.randoms(use_true_random=False),
)
def test_deltas_give_the_calls_whatever_their_pieces_and_order(
    written: list[tuple[str, int]], order: Any
) -> None:
    pieces: list[list[dict[str, Any]]] = []
    for index, (text, size) in enumerate(written):
        rest = [text[at : at + size] for at in range(0, len(text), size)]
        more = [{"index": index, "function": {"arguments": piece}} for piece in rest]
        pieces.append([a_call("", id=f"c{index}", index=index), *more])
    started = [queue.pop(0) for queue in pieces]
    chunks = [delta(item) for item in started]
    while left := [queue for queue in pieces if queue]:
        chunks.append(delta(order.choice(left).pop(0)))
    expected = tuple(
        ToolCall(f"c{index}", "look_up", text.strip() or "{}")
        for index, (text, _) in enumerate(written)
    )
    if written:
        assert streamed(*chunks) == expected
