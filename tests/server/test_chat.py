"""Chat completions: what a team is told, what a client is told, and what is refused."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from typing import Any

import httpx
import pytest
from tests.server.chat_samples import (
    COST_USD,
    KEYS,
    PLANS,
    Spoken,
    chat,
    events_of,
    failing,
    key_of,
    text_of,
)
from tests.server.serving import MakeService, ask, post

from masrouter.execution import aexecute
from masrouter.llms.chat import Message
from masrouter.server import Limits, Service
from masrouter.server.conversation import Conversation
from masrouter.types import Agent, Plan, Usage

PATH = "/v1/chat/completions"
QUESTION = "What is 1 plus 5?"


def post_all(service: Service, bodies: Sequence[dict[str, Any]]) -> list[httpx.Response]:
    """One request after another to the same app."""

    async def work(client: httpx.AsyncClient) -> list[httpx.Response]:
        return [await client.post(PATH, json=body) for body in bodies]

    return ask(service, work)


def test_an_answer_has_the_shape_of_a_completion_and_tells_the_decision_in_its_headers(
    serving: Callable[..., Service],
) -> None:
    answer = post(serving(), PATH, chat())
    assert answer.status_code == 200
    data = answer.json()
    assert data["object"] == "chat.completion"
    assert data["model"] == "masrouter/auto"
    assert data["id"].startswith("chatcmpl-")
    [choice] = data["choices"]
    assert choice["message"] == {"role": "assistant", "content": "the answer", "refusal": None}
    assert choice["finish_reason"] == "stop"
    assert "masrouter" not in data
    headers = answer.headers
    assert headers["x-masrouter-decision-id"].startswith("dec_")
    assert "(" in headers["x-masrouter-plan"]
    assert headers["x-masrouter-policy"]
    assert float(headers["x-masrouter-expected-cost-usd"]) > 0
    assert float(headers["x-masrouter-cost-usd"]) > 0
    assert "x-masrouter-session" not in headers


def test_the_usage_is_that_of_the_whole_team(
    serving: Callable[..., Service], spoken: Spoken
) -> None:
    body = chat(model="masrouter/samples", masrouter={"include": True})
    answer = post(serving(), PATH, body)
    data = answer.json()
    assert len(spoken.asked) == 3
    assert data["usage"] == {"prompt_tokens": 60, "completion_tokens": 30, "total_tokens": 90}
    told = data["masrouter"]
    assert told["cost_usd"] == pytest.approx(3 * COST_USD)
    assert float(answer.headers["x-masrouter-cost-usd"]) == pytest.approx(3 * COST_USD)
    assert [agent["cost_usd"] for agent in told["agents"]] == [pytest.approx(COST_USD)] * 3
    assert (told["calls"], told["missing"], told["error"]) == (3, [], None)
    assert told["latency_s"] > 0
    assert any("vote" in note for note in told["notes"])
    assert told["plan"] == PLANS["samples"].to_json()
    assert told["id"] == answer.headers["x-masrouter-decision-id"]


def test_a_routed_answer_tells_the_decision_beside_what_it_really_cost(
    serving: Callable[..., Service],
) -> None:
    service = serving()
    told = post(service, PATH, chat(masrouter={"include": True})).json()["masrouter"]
    decided = post(service, "/v1/decision", {"query": QUESTION}).json()
    for field in ("plan", "expected_score", "score_interval", "expected_cost_usd", "reasons"):
        assert told[field] == decided[field]
    assert told["policy"] == decided["policy"]
    assert told["cost_usd"] > 0


def test_unknown_usage_is_not_zero(make_service: MakeService) -> None:
    service = make_service(llm=Spoken(usage=Usage()), plans=PLANS)
    answer = post(service, PATH, chat(model="masrouter/io", masrouter={"include": True}))
    assert answer.json()["usage"] is None
    assert answer.json()["masrouter"]["cost_usd"] is None
    assert answer.json()["masrouter"]["reserved_usd"] > 0
    assert "x-masrouter-cost-usd" not in answer.headers


@pytest.mark.parametrize(
    ("said", "told"),
    [("length", "length"), ("content_filter", "content_filter"), ("eos", "stop")],
)
def test_the_finish_reason_is_that_of_the_reply_which_is_the_answer(
    make_service: MakeService, said: str, told: str
) -> None:
    service = make_service(llm=Spoken(finish_reason=said), plans=PLANS)
    answer = post(service, PATH, chat(model="masrouter/io"))
    assert answer.json()["choices"][0]["finish_reason"] == told


def test_a_first_message_is_run_exactly_as_logged_runs_are(
    serving: Callable[..., Service], spoken: Spoken
) -> None:
    body = chat(model="masrouter/chain", seed=7)
    assert post(serving(), PATH, body).status_code == 200
    served, spoken.asked[:] = list(spoken.asked), []
    asyncio.run(aexecute(PLANS["chain"], QUESTION, llm=spoken, seed=7))
    assert served == spoken.asked


def test_every_call_of_the_team_knows_what_was_said_before(
    serving: Callable[..., Service], spoken: Spoken
) -> None:
    turns = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Who wrote Faust?"},
        {"role": "assistant", "content": "Goethe.", "refusal": None, "tool_calls": None},
        {"role": "developer", "content": [{"type": "text", "text": "Speak German."}]},
        {"role": "user", "content": [{"type": "text", "text": "When was"}, _text("he born?")]},
    ]
    body = {"model": "masrouter/chain", "messages": turns, "temperature": 0.3, "seed": 7}
    assert post(serving(), PATH, body).status_code == 200
    told, spoken.asked[:] = list(spoken.asked), []
    query = "When was\nhe born?"
    asyncio.run(aexecute(PLANS["chain"], query, llm=spoken, seed=7))
    assert len(told) == len(spoken.asked) == 2
    for request, alone in zip(told, spoken.asked, strict=True):
        system, *earlier, last = request.messages
        assert system == Message(
            "system", f"{alone.messages[0].content}\n\nBe brief.\n\nSpeak German."
        )
        assert earlier == [Message("user", "Who wrote Faust?"), Message("assistant", "Goethe.")]
        assert last == alone.messages[1]
        assert query in last.content
        assert request.temperature == 0.3
        assert request.seed == alone.seed


def _text(text: str) -> dict[str, str]:
    return {"type": "text", "text": text}


def test_teams_that_sample_keep_their_temperature(
    serving: Callable[..., Service], spoken: Spoken
) -> None:
    assert post(serving(), PATH, chat(model="masrouter/samples", temperature=0)).is_success
    assert [request.temperature for request in spoken.asked] == [0.7] * 3


def test_the_router_reads_the_query_and_then_earlier_messages_of_the_user() -> None:
    first = Conversation("And now?", "Be brief.")
    assert first.routed_text(100) == "And now?"
    turns = (Message("user", "one"), Message("assistant", "a reply"), Message("user", "two"))
    later = Conversation("And now?", "Be brief.", turns)
    assert later.routed_text(100_000) == "And now?\n\ntwo\n\none"
    assert later.routed_text(14) == "And now?\n\ntwo"[:14]
    assert later.routed_text(8) == "And now?"
    long = Conversation("q", earlier=(Message("user", "x" * 5_000),) * 3)
    assert len(long.routed_text(100_000)) == 2_001


def test_max_tokens_holds_for_every_call(serving: Callable[..., Service], spoken: Spoken) -> None:
    service = serving(limits=Limits(max_completion_tokens=500))
    for field in ("max_tokens", "max_completion_tokens"):
        assert post(service, PATH, chat(model="masrouter/chain", **{field: 33})).is_success
    assert {request.max_tokens for request in spoken.asked} == {33}
    spoken.asked.clear()
    assert post(service, PATH, chat(model="masrouter/io")).is_success
    assert [request.max_tokens for request in spoken.asked] == [500]
    refused = post(service, PATH, chat(max_tokens=501)).json()["error"]
    assert refused["message"] == "max_tokens: at most 500 tokens can be asked for"


def test_without_a_seed_no_two_runs_share_one(
    serving: Callable[..., Service], spoken: Spoken
) -> None:
    service = serving()
    for _ in range(2):
        post(service, PATH, chat(model="masrouter/io"))
    assert len({request.seed for request in spoken.asked}) == 2


REFUSED: tuple[tuple[str, Any], ...] = (
    ("n", 2), ("n", True), ("top_p", 0.5), ("presence_penalty", 0.1), ("stop", ["x"]),
    ("frequency_penalty", 1), ("logit_bias", {"5": 1}), ("logprobs", True), ("store", True),
    ("top_logprobs", 3), ("response_format", {"type": "json_object"}), ("tools", [{}]),
    ("tool_choice", "required"), ("functions", [{}]), ("modalities", ["audio"]),
    ("audio", {}), ("prediction", {}), ("reasoning_effort", "low"), ("verbosity", "low"),
    ("web_search_options", {}), ("service_tier", "flex"),
)  # fmt: skip


def test_what_cannot_be_honoured_is_refused_by_name(
    serving: Callable[..., Service], spoken: Spoken
) -> None:
    bodies = [chat(**{field: value}) for field, value in REFUSED]
    for (field, _), answer in zip(REFUSED, post_all(serving(), bodies), strict=True):
        error = answer.json()["error"]
        told = (answer.status_code, error["code"], error["param"])
        assert told == (400, "unsupported_parameter", field)
        assert error["message"].startswith(f"{field} is not supported")
    assert spoken.asked == []


def test_what_changes_nothing_is_taken(serving: Callable[..., Service]) -> None:
    idle = {
        "n": 1, "top_p": 1.0, "presence_penalty": 0, "frequency_penalty": 0, "stop": None,
        "logit_bias": {}, "logprobs": False, "top_logprobs": 0, "store": False, "tools": [],
        "response_format": {"type": "text"}, "tool_choice": "auto", "modalities": ["text"],
        "parallel_tool_calls": True, "service_tier": "auto", "user": "u1", "metadata": {"a": "b"},
        "prompt_cache_key": "k", "safety_identifier": "s", "reasoning_effort": None,
    }  # fmt: skip
    assert post(serving(), PATH, chat(**idle)).status_code == 200


WRONG: tuple[tuple[dict[str, Any], int, str, str | None], ...] = (
    (chat(model="gpt-4o"), 404, "model_not_found", "model"),
    (chat(model="masrouter/none"), 404, "model_not_found", "model"),
    (chat(model="io"), 404, "model_not_found", "model"),
    (chat(nonsense=1), 400, "invalid_request", None),
    (chat(masrouter={"nonsense": 1}), 400, "invalid_request", "masrouter"),
    (chat(messages=[]), 400, "invalid_request", "messages"),
    (chat(" "), 400, "invalid_request", "messages[0].content"),
    (chat("x" * 101), 400, "context_length_exceeded", "messages"),
    (chat(messages=[{"role": "assistant", "content": "Yes"}]), 400, "invalid_request",
     "messages"),
    (chat(messages=[{"role": "user", "content": "Yes"}] * 9), 400, "invalid_request",
     "messages"),
    (chat(messages=[{"role": "tool", "content": "Yes"}]), 400, "invalid_request",
     "messages[0].role"),
    (chat(messages=[{"role": "user", "content": "Yes", "name": "Ann"}]), 400,
     "unsupported_parameter", "messages[0].name"),
    (chat(max_tokens=5, max_completion_tokens=6), 400, "invalid_request", "max_tokens"),
    (chat(max_tokens=0), 400, "invalid_request", "max_tokens"),
    (chat(temperature=3), 400, "invalid_request", "temperature"),
    (chat(stream_options={"include_usage": True}), 400, "invalid_request", "stream_options"),
    (chat(model="masrouter/io", masrouter={"models": ["gpt-4o"]}), 400,
     "unsupported_parameter", "masrouter.models"),
    (chat(masrouter={"models": ["nobody"]}), 400, "unknown_name", "models"),
    (chat(masrouter={"max_cost_usd": 1e-12}), 400, "no_plan_within_constraints", None),
)  # fmt: skip


def test_what_cannot_be_meant_is_refused(serving: Callable[..., Service], spoken: Spoken) -> None:
    service = serving(limits=Limits(max_query_characters=100, max_messages=8))
    answers = post_all(service, [body for body, *_ in WRONG])
    for (body, *expected), answer in zip(WRONG, answers, strict=True):
        error = answer.json()["error"]
        assert [answer.status_code, error["code"], error["param"]] == expected, body
    assert spoken.asked == []


@pytest.mark.parametrize("stream", [False, True])
def test_a_dry_run_decides_and_asks_nobody(
    serving: Callable[..., Service], spoken: Spoken, stream: bool
) -> None:
    body = chat(masrouter={"dry_run": True}, stream=stream)
    if stream:
        body["stream_options"] = {"include_usage": True}
    answer = post(serving(), PATH, body)
    assert answer.status_code == 200
    if stream:
        chunks = events_of(answer)
        data, content = chunks[-1], text_of(chunks)
        assert [c["finish_reason"] for chunk in chunks for c in chunk["choices"]] == [None, "stop"]
    else:
        data = answer.json()
        content = data["choices"][0]["message"]["content"]
        assert data["choices"][0]["finish_reason"] == "stop"
    assert content == ""
    assert data["usage"] == {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
    assert data["masrouter"]["dry_run"] is True
    assert data["masrouter"]["plan"]["agents"]
    assert data["masrouter"]["expected_score"] > 0
    assert spoken.asked == []


def test_a_server_without_models_routes_and_says_that_it_runs_nothing(
    make_service: MakeService,
) -> None:
    service = make_service(llm=None)
    answer = post(service, PATH, chat())
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "no_provider")
    assert post(service, PATH, chat(masrouter={"dry_run": True})).status_code == 200


@pytest.mark.parametrize(
    ("kind", "status"), [("server_error", 502), ("timeout", 504), ("unauthorised", 502)]
)
@pytest.mark.parametrize("stream", [False, True])
def test_a_provider_that_fails_is_told_without_its_words(
    make_service: MakeService, kind: str, status: int, stream: bool
) -> None:
    service = make_service(llm=Spoken(says=failing(kind)), plans=PLANS)
    answer = post(service, PATH, chat(model="masrouter/io", stream=stream))
    assert answer.status_code == status
    error = answer.json()["error"]
    assert (error["type"], error["code"]) == ("upstream_error", kind)
    assert "secret" not in answer.text


def test_a_session_keeps_its_first_team(serving: Callable[..., Service], spoken: Spoken) -> None:
    service = serving(keys=KEYS[1:])
    headers = {**key_of("bob"), "x-masrouter-session": "thread 7"}
    first = post(service, PATH, chat(masrouter={"topologies": ["cot"]}), **headers)
    later = post(service, PATH, chat("And what is 4 plus 11?"), **headers)
    alone = post(service, PATH, chat("And what is 4 plus 11?"), **key_of("bob"))
    assert first.headers["x-masrouter-plan"].startswith("cot(")
    assert later.headers["x-masrouter-plan"] == first.headers["x-masrouter-plan"]
    assert later.headers["x-masrouter-policy"] == "session"
    assert later.headers["x-masrouter-session"] == "thread 7"
    assert alone.headers["x-masrouter-plan"] != first.headers["x-masrouter-plan"]
    included = chat("And what is 4 plus 11?", masrouter={"include": True})
    told = post(service, PATH, included, **headers).json()["masrouter"]
    assert (told["sticky"], told["propensity"]) == (True, None)


def test_what_is_no_session_is_refused(serving: Callable[..., Service], spoken: Spoken) -> None:
    answer = post(serving(), PATH, chat(), **{"x-masrouter-session": "s" * 129})
    assert answer.status_code == 400
    assert "x-masrouter-session" in answer.json()["error"]["message"]
    assert spoken.asked == []


def test_a_team_that_takes_too_long_is_told_in_time(make_service: MakeService) -> None:
    never = threading.Event()
    service = make_service(
        llm=Spoken(says=lambda request: [never]), plans=PLANS, limits=Limits(request_timeout_s=1)
    )
    answer = post(service, PATH, chat(model="masrouter/io"))
    assert answer.status_code == 504
    # The team's time ends before the request's; on a machine that stalls, both may be over.
    assert answer.json()["error"]["code"] in ("timeout", "request_timeout")
    assert service.budgets.reserved() == 0
    assert service.budgets.spent() > 0


def test_names_and_texts_of_strangers_break_no_answer(make_service: MakeService) -> None:
    odd = Plan("io", (Agent(None, "model\r\nx-evil: 1 \u2603"),))
    service = make_service(llm=Spoken(says=lambda request: ["half \ud83d"]), plans={"odd": odd})
    for stream in (False, True):
        answer = post(service, PATH, chat(model="masrouter/odd", stream=stream))
        assert answer.status_code == 200
        assert "x-evil" not in answer.headers
        assert answer.headers["x-masrouter-plan"] == r"io(model\r\nx-evil: 1 \u2603)"
        assert r"half \ud83d" in answer.text


def test_the_models_are_the_router_and_the_fixed_plans(serving: Callable[..., Service]) -> None:
    service = serving()

    async def get(client: httpx.AsyncClient) -> tuple[httpx.Response, ...]:
        paths = ("", "/masrouter/auto", "/masrouter/chain", "/masrouter/none", "/gpt-4o")
        return tuple([await client.get(f"/v1/models{path}") for path in paths])

    listed, auto, chain, none, other = ask(service, get)
    data = listed.json()["data"]
    assert [model["id"] for model in data] == ["masrouter/auto", *(f"masrouter/{n}" for n in PLANS)]
    assert auto.json() == data[0]
    assert auto.json()["plan"] is None
    assert chain.json()["plan"] == PLANS["chain"].to_json()
    for missing in (none, other):
        assert missing.status_code == 404
        assert missing.json()["error"]["code"] == "model_not_found"
