"""Streams: what goes out and when, what is never said, and what ends with the client."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import httpx
import pytest
from tests.llms.faulty_server import Exchange, FaultyServer, answer
from tests.server.chat_samples import (
    COST_USD,
    PLANS,
    Spoken,
    chat,
    events_of,
    failing,
    text_of,
    told_of,
)
from tests.server.serving import MakeService, post, running

from masrouter.execution import CallEnded, TextArrived
from masrouter.llms import ModelOptions, OpenAICompatible, Price, RetryPolicy
from masrouter.llms.chat import ChatRequest
from masrouter.server import Limits, Service, chat_stream
from masrouter.server.chat_stream import Feed
from masrouter.types import Call, Usage

PATH = "/v1/chat/completions"


def streamed(service: Service, plan: str, **more: Any) -> list[dict[str, Any]]:
    """The chunks of a fixed plan's stream."""
    return events_of(post(service, PATH, chat(model=f"masrouter/{plan}", stream=True, **more)))


def wait_for(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < until, "it did not happen within 20 s"
        time.sleep(0.005)


@pytest.mark.parametrize("plan", ["io", "cot", "split"])
def test_text_goes_out_as_it_arrives_where_the_answer_is_one_calls_reply(
    make_service: MakeService, plan: str
) -> None:
    """The reply goes on only when its first piece has come through."""
    heard = threading.Event()

    def says(request: ChatRequest) -> Iterable[str | threading.Event]:
        if "Split the work" in request.messages[-1].content:
            return ["Subtask 1: add"]
        if "Do the subtask" in request.messages[-1].content:
            return ["Result: 6"]
        return ["one ", heard, "two ", "three"]

    service = make_service(llm=Spoken(says=says), plans=PLANS)
    body = chat(model=f"masrouter/{plan}", stream=True)
    chunks = []
    with (
        running(service) as server,
        httpx.stream("POST", server.base_url + PATH, json=body, timeout=20) as response,
    ):
        for line in response.iter_lines():
            if line.startswith("data: {"):
                chunks.append(json.loads(line.removeprefix("data: ")))
            if text_of(chunks) == "one ":
                heard.set()
    assert text_of(chunks) == "one two three"
    assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop"
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert len({chunk["id"] for chunk in chunks}) == 1
    assert all("usage" not in chunk and "masrouter" not in chunk for chunk in chunks)


def test_nothing_goes_out_that_is_not_part_of_the_answer(make_service: MakeService) -> None:
    def says(request: ChatRequest) -> Iterable[str]:
        return ["draft ", "words"] if request.model == "gpt-4o-mini" else ["a" * 1300]

    service = make_service(llm=Spoken(says=says), plans=PLANS)
    for plan in ("chain", "pair"):
        answer = post(service, PATH, chat(model=f"masrouter/{plan}", stream=True))
        chunks = events_of(answer)
        assert len(text_of(chunks)) == 1300
        assert sum(bool(text_of([chunk])) for chunk in chunks) == 3
        assert "draft" not in answer.text


def test_a_last_call_that_breaks_off_leaves_no_trace_where_an_earlier_answer_stands(
    make_service: MakeService,
) -> None:
    def says(request: ChatRequest) -> Iterable[str | threading.Event]:
        if request.model == "gpt-4o":
            return failing("server_error", "half an answer ")(request)
        return ["the whole answer"]

    service = make_service(llm=Spoken(says=says), plans=PLANS)
    answer = post(service, PATH, chat(model="masrouter/pair", stream=True))
    assert text_of(events_of(answer)) == "the whole answer"
    assert "half" not in answer.text


def test_a_stream_whose_call_breaks_off_ends_with_an_error(make_service: MakeService) -> None:
    service = make_service(llm=Spoken(says=failing("connection", "half ")), plans=PLANS)
    answer = post(service, PATH, chat(model="masrouter/io", stream=True))
    chunks = events_of(answer)
    assert text_of(chunks) == "half "
    assert chunks[-1]["error"]["code"] == "connection"
    assert "[DONE]" not in answer.text
    assert "secret" not in answer.text


def test_usage_and_the_decision_come_last_where_they_were_asked_for(
    make_service: MakeService,
) -> None:
    service = make_service(llm=Spoken(), plans=PLANS)
    chunks = streamed(
        service, "samples", stream_options={"include_usage": True}, masrouter={"include": True}
    )
    *rest, last = chunks
    assert last["choices"] == []
    assert last["usage"] == {"prompt_tokens": 60, "completion_tokens": 30, "total_tokens": 90}
    assert last["masrouter"]["cost_usd"] == pytest.approx(3 * COST_USD)
    assert last["masrouter"]["plan"] == PLANS["samples"].to_json()
    assert all(chunk["usage"] is None for chunk in rest)


def test_events_tell_what_the_team_does(make_service: MakeService) -> None:
    service = make_service(llm=Spoken(), plans=PLANS)
    chunks = streamed(service, "chain", masrouter={"events": True})
    told = told_of(chunks)
    assert [one["event"] for one in told if one["event"] != "text"] == [
        "decision", "call_started", "call_ended", "call_started", "call_ended", "run_ended",
    ]  # fmt: skip
    assert told[0]["plan"] == PLANS["chain"].to_json()
    started, ended = (
        [one for one in told if one["event"] == name] for name in ("call_started", "call_ended")
    )
    assert [(one["agent"], one["step"], one["model"], one["role"]) for one in started] == [
        (0, "plan", "gpt-4o-mini", "planner"), (1, "answer", "gpt-4o", "assistant"),
    ]  # fmt: skip
    assert [one["reply"] for one in ended] == ["the answer"] * 2
    assert [one["cost_usd"] for one in ended] == [pytest.approx(COST_USD)] * 2
    for agent in (0, 1):
        pieces = [one["text"] for one in told if one["event"] == "text" and one["agent"] == agent]
        assert "".join(pieces) == "the answer"
    assert told[-1]["cost_usd"] == pytest.approx(2 * COST_USD)
    assert all(chunk["choices"] == [] for chunk in chunks if "masrouter" in chunk)
    assert text_of(chunks) == "the answer"


def test_events_of_calls_that_fail_tell_the_kind_alone(make_service: MakeService) -> None:
    service = make_service(llm=Spoken(says=failing("rejected")), plans=PLANS)
    answer = post(
        service, PATH, chat(model="masrouter/io", stream=True, masrouter={"events": True})
    )
    told = told_of(events_of(answer))
    ended = next(one for one in told if one["event"] == "call_ended")
    assert (ended["error"], ended["reply"]) == ("rejected", None)
    assert told[-1]["event"] == "run_ended"
    assert "secret" not in answer.text


def test_comments_keep_a_quiet_connection_alive(
    make_service: MakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chat_stream, "KEEP_ALIVE_S", 0.02)
    monkeypatch.setattr(chat_stream, "_BEGIN_S", 0.02)
    heard = threading.Event()
    service = make_service(llm=Spoken(says=lambda request: [heard, "late"]), plans=PLANS)
    lines = []
    with (
        running(service) as server,
        httpx.stream(
            "POST", server.base_url + PATH, json=chat(model="masrouter/io", stream=True), timeout=20
        ) as response,
    ):
        for line in response.iter_lines():
            lines.append(line)
            if sum(line.startswith(":") for line in lines) == 3:
                heard.set()
    assert lines[0].startswith("data: {")
    assert lines[-2:] == ["data: [DONE]", ""]
    assert text_of([json.loads(one[6:]) for one in lines if one.startswith("data: {")]) == "late"


def test_what_waits_for_a_slow_client_is_bounded_by_the_number_of_calls() -> None:
    async def work() -> None:
        feed = Feed(PLANS["samples"], events=True)
        for number in range(3_000):
            feed(TextArrived(number % 3, "answer", f"{number} "))
        for agent in range(3):
            feed(CallEnded(_call(agent)))
        assert len(feed) == 6
        taken = feed.take()
        assert len(feed) == 0
        assert taken[1]["text"] == "".join(f"{number} " for number in range(1, 3_000, 3))
        assert [item["event"] for item in taken] == ["text"] * 3 + ["call_ended"] * 3

    asyncio.run(work())


def _call(agent: int) -> Call:
    return Call(agent, "answer", "m", (), "x", Usage(), 0.0, 0.0, 1)


@contextlib.contextmanager
def sent(base_url: str, body: dict[str, Any]) -> Iterator[socket.socket]:
    """A request on a connection that nobody reads, which is closed at the end."""
    host, port = base_url.removeprefix("http://").split(":")
    content = json.dumps(body).encode()
    head = (
        f"POST {PATH} HTTP/1.1\r\nhost: {host}:{port}\r\ncontent-type: application/json\r\n"
        f"content-length: {len(content)}\r\n\r\n"
    )
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect((host, int(port)))
        connection.sendall(head.encode() + content)
        yield connection


OPTIONS = ModelOptions(price=Price(1.0, 2.0, "test"))


def provider(server: FaultyServer) -> OpenAICompatible:
    return OpenAICompatible(server.base_url, options=OPTIONS, retry=RetryPolicy(tries=1))


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_takes_its_team_along(make_service: MakeService, stream: bool) -> None:
    """The planner's call is under way; the agent after it is never asked."""
    under_way = threading.Event()

    async def stall(exchange: Exchange) -> None:
        under_way.set()
        await asyncio.sleep(30)

    with FaultyServer(script={"gpt-4o-mini": [stall]}) as models:
        service = make_service(llm=provider(models), plans=PLANS, budget_usd=1.0)
        body = chat(model="masrouter/chain", stream=stream, masrouter={"events": stream})
        with running(service) as server:
            with sent(server.base_url, body):
                assert under_way.wait(20)
            wait_for(lambda: service.budgets.reserved() == 0)
            service.records.flush()
            spent = service.records.spending()["anonymous"]
        assert [call.model for call in models.calls] == ["gpt-4o-mini"]
    # Nobody knows what the call that was broken off costs: its worst is charged.
    assert spent == pytest.approx(service.budgets.spent())
    assert spent > 0


def test_a_client_that_leaves_in_the_middle_of_the_text_ends_the_call(
    make_service: MakeService,
) -> None:
    never = threading.Event()
    spoken = Spoken(says=lambda request: ["one ", never, "two"])
    service = make_service(llm=spoken, plans=PLANS)
    with running(service) as server:
        with httpx.stream(
            "POST", server.base_url + PATH, json=chat(model="masrouter/io", stream=True), timeout=20
        ) as response:
            next(line for line in response.iter_lines() if '"one "' in line)
        wait_for(lambda: spoken.cancelled == 1)
        wait_for(lambda: service.budgets.reserved() == 0)


def test_a_client_that_never_reads_is_let_go_in_the_end(make_service: MakeService) -> None:
    """More text than sockets hold: the stream stands, until the request's time is over."""
    spoken = Spoken(says=lambda request: ["x" * 100_000 for _ in range(300)])
    service = make_service(llm=spoken, plans=PLANS, limits=Limits(request_timeout_s=1.0))
    body = chat(model="masrouter/io", stream=True)
    with running(service) as server, sent(server.base_url, body) as slow:
        wait_for(lambda: len(spoken.asked) == 1)
        wait_for(lambda: service.budgets.reserved() == 0)
        received = 0
        with contextlib.suppress(ConnectionResetError):
            while piece := slow.recv(1_000_000):
                received += len(piece)
                time.sleep(0.001)
        assert 0 < received < 30_000_000
        assert httpx.get(f"{server.base_url}/v1/models", timeout=20).status_code == 200


def test_a_provider_that_streams_over_http_is_passed_on_whole(make_service: MakeService) -> None:
    said = "a longer answer, word for word, with ünïcödé and \u2028 in it"
    with FaultyServer(otherwise=answer(said)) as models:
        service = make_service(llm=provider(models), plans=PLANS)
        body = chat(model="masrouter/io", stream=True, stream_options={"include_usage": True})
        with running(service) as server:
            chunks = events_of(httpx.post(server.base_url + PATH, json=body, timeout=20))
        assert models.calls[0].body["stream"] is True
    assert text_of(chunks) == said
    assert chunks[-1]["usage"]["prompt_tokens"] == 20


def test_60_streams_over_http_bill_no_more_than_the_budget(make_service: MakeService) -> None:
    with FaultyServer(input_usd_per_mtok=1.0, output_usd_per_mtok=2.0) as models:
        limits = Limits(max_concurrent=60, queue_timeout_s=20)
        service = make_service(llm=provider(models), plans=PLANS, budget_usd=0.0014, limits=limits)
        body = chat(model="masrouter/io", stream=True, max_tokens=20)

        async def all_at_once(url: str) -> list[httpx.Response]:
            async with httpx.AsyncClient(timeout=60) as client:
                return list(await asyncio.gather(*(client.post(url, json=body) for _ in range(60))))

        with running(service) as server:
            answers = asyncio.run(all_at_once(server.base_url + PATH))
        # Who waited for room may have begun before it was told that there is none.
        refused = [one for one in answers if "budget_exceeded" in one.text]
        answered = [one for one in answers if one.text.endswith("data: [DONE]\n\n")]
        assert len(answered) + len(refused) == 60
        assert 0 < len(answered) == len(models.calls) < 60
        assert models.billed_usd <= 0.0014
        assert service.budgets.spent() == pytest.approx(models.billed_usd)
        assert service.budgets.reserved() == 0
