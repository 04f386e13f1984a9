"""The official OpenAI client against a real server, and curl."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from tests.server.chat_samples import PLANS, Spoken, failing
from tests.server.serving import MakeService, RunningServer, running, sums

from masrouter.llms.simulated import SimulatedProvider, SimulatedTask
from masrouter.server.keys import KeyEntry, key_digest
from masrouter.types import Agent, Plan

KEY = "mr-a-key-of-the-tests"
KEYS = (KeyEntry("tests", key_digest(KEY), budget_usd=0.05),)
QUESTION = sums(2)[1]
MESSAGES: Any = [{"role": "user", "content": QUESTION.query}]
SIMULATED_PLANS = {
    **PLANS,
    "dear": Plan("io", (Agent(None, "gpt-4o"),)),
    "strange": Plan("io", (Agent(None, "nobody-serves-this"),)),
}


@pytest.fixture
def server(make_service: MakeService, simulated: SimulatedProvider) -> Iterator[RunningServer]:
    """The simulated provider behind a server with one key."""
    with running(make_service(llm=simulated, keys=KEYS, plans=SIMULATED_PLANS)) as server:
        yield server


@pytest.fixture
def client(server: RunningServer) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{server.base_url}/v1", api_key=KEY, max_retries=0) as client:
        yield client


def is_an_answer(text: str | None, task: SimulatedTask = QUESTION) -> bool:
    """Whether a text ends in one of the numbers that the provider gives, however it says it."""
    known = {_last_number(answer) for answer in (task.right, *task.wrong)}
    return text is not None and _last_number(text) in known


def _last_number(text: str) -> str | None:
    found = re.findall(r"\d+", text)
    return found[-1] if found else None


def test_a_completion(client: OpenAI) -> None:
    done = client.chat.completions.create(
        model="masrouter/auto",
        messages=MESSAGES,
        max_tokens=500,
        temperature=0.2,
        seed=1,
        user="ann",
        extra_body={"masrouter": {"include": True, "topologies": ["cot"], "cost_weight": 100}},
    )
    assert is_an_answer(done.choices[0].message.content)
    assert done.usage is not None
    assert done.usage.total_tokens == done.usage.prompt_tokens + done.usage.completion_tokens > 0
    told = done.model_extra["masrouter"]  # type: ignore[index]
    assert told["plan"]["topology"] == "cot"
    assert told["cost_weight"] == 100
    assert told["cost_usd"] > 0


def test_headers_by_the_raw_response(client: OpenAI) -> None:
    raw = client.chat.completions.with_raw_response.create(
        model="masrouter/io",
        messages=MESSAGES,
        extra_headers={"x-masrouter-session": "a thread"},
    )
    assert raw.headers["x-masrouter-decision-id"].startswith("dec_")
    assert raw.headers["x-masrouter-plan"] == "io(gpt-4o-mini)"
    assert float(raw.headers["x-masrouter-cost-usd"]) > 0
    assert is_an_answer(raw.parse().choices[0].message.content)


def test_streams(client: OpenAI) -> None:
    for model in ("masrouter/auto", "masrouter/io", "masrouter/samples", "masrouter/split"):
        stream = client.chat.completions.create(
            model=model,
            messages=MESSAGES,
            stream=True,
            stream_options={"include_usage": True},
        )
        text, usage = "", None
        for chunk in stream:
            text += "".join(choice.delta.content or "" for choice in chunk.choices)
            usage = chunk.usage or usage
        assert is_an_answer(text)
        assert usage is not None
        assert usage.total_tokens > 0


def test_the_client_s_own_helper_for_streams(client: OpenAI) -> None:
    with client.chat.completions.stream(
        model="masrouter/cot",
        messages=MESSAGES,
    ) as stream:
        done = stream.get_final_completion()
    assert is_an_answer(done.choices[0].message.content)
    assert done.choices[0].finish_reason == "stop"


def test_events_do_not_disturb_a_client_that_does_not_know_them(client: OpenAI) -> None:
    stream = client.chat.completions.create(
        model="masrouter/samples",
        messages=MESSAGES,
        stream=True,
        extra_body={"masrouter": {"events": True}},
    )
    chunks = list(stream)
    text = "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)
    assert is_an_answer(text)
    told = [(chunk.model_extra or {}).get("masrouter", {}).get("event") for chunk in chunks]
    assert {"decision", "call_started", "call_ended", "run_ended"} <= set(told)


def test_the_asynchronous_client(server: RunningServer) -> None:
    async def work() -> None:
        async with AsyncOpenAI(base_url=f"{server.base_url}/v1", api_key=KEY) as client:
            asks = [
                client.chat.completions.create(
                    model="masrouter/auto",
                    messages=[{"role": "user", "content": task.query}],
                )
                for task in sums(8)
            ]
            done = await asyncio.gather(*asks)
            for task, one in zip(sums(8), done, strict=True):
                assert is_an_answer(one.choices[0].message.content, task)
            stream = await client.chat.completions.create(
                model="masrouter/io",
                messages=MESSAGES,
                stream=True,
            )
            text = "".join([c.choices[0].delta.content or "" async for c in stream])
            assert is_an_answer(text)

    asyncio.run(work())


def test_several_turns(client: OpenAI) -> None:
    """The simulated provider knows the last question, and takes what was said before it."""
    first = client.chat.completions.create(model="masrouter/io", messages=MESSAGES)
    message = first.choices[0].message
    turns = [*MESSAGES, message, {"role": "user", "content": sums(3)[2].query}]
    then = client.chat.completions.create(model="masrouter/io", messages=turns)
    assert first.usage is not None
    assert then.usage is not None
    assert then.usage.prompt_tokens > first.usage.prompt_tokens
    assert is_an_answer(then.choices[0].message.content, sums(3)[2])


def test_models(client: OpenAI) -> None:
    assert [model.id for model in client.models.list()][:2] == ["masrouter/auto", "masrouter/io"]
    assert client.models.retrieve("masrouter/auto").owned_by == "masrouter"
    with pytest.raises(openai.NotFoundError) as missing:
        client.models.retrieve("gpt-4o")
    assert missing.value.code == "model_not_found"


def test_errors_are_those_of_the_client(server: RunningServer, client: OpenAI) -> None:
    ask = client.chat.completions.create
    with pytest.raises(openai.BadRequestError) as bad:
        ask(model="masrouter/auto", messages=MESSAGES, n=2)
    assert (bad.value.code, bad.value.param) == ("unsupported_parameter", "n")
    with pytest.raises(openai.NotFoundError, match="there is masrouter/auto"):
        ask(model="gpt-4o", messages=MESSAGES)
    with pytest.raises(openai.RateLimitError) as poor:
        ask(model="masrouter/dear", messages=MESSAGES, max_tokens=16_000)
    assert poor.value.code == "budget_exceeded"
    with pytest.raises(openai.BadRequestError) as unpriced:
        ask(model="masrouter/strange", messages=MESSAGES)
    assert unpriced.value.code == "price_unknown"
    stranger = client.with_options(api_key="mr-another-key-altogether")
    with pytest.raises(openai.AuthenticationError):
        stranger.chat.completions.create(model="masrouter/auto", messages=MESSAGES)
    with pytest.raises(openai.AuthenticationError):
        stranger.models.list()


def test_a_provider_that_fails_is_a_server_error(make_service: MakeService) -> None:
    down = Spoken(says=failing("connection"))
    half = Spoken(says=failing("connection", "half "))
    for llm, kind in ((down, openai.InternalServerError), (half, openai.APIError)):
        with (
            running(make_service(llm=llm, plans=PLANS)) as server,
            OpenAI(base_url=f"{server.base_url}/v1", api_key="-", max_retries=0) as client,
        ):
            with pytest.raises(openai.InternalServerError) as failed:
                client.chat.completions.create(model="masrouter/io", messages=MESSAGES)
            assert (failed.value.status_code, failed.value.code) == (502, "connection")
            with pytest.raises(kind) as broken:
                for _ in client.chat.completions.create(
                    model="masrouter/io",
                    messages=MESSAGES,
                    stream=True,
                ):
                    pass
            assert broken.value.code == "connection"


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl")
def test_curl(server: RunningServer) -> None:
    body = {"model": "masrouter/auto", "messages": MESSAGES, "masrouter": {"include": True}}
    done = subprocess.run(
        [
            "curl", "--silent", "--fail-with-body", "--max-time", "30",
            f"{server.base_url}/v1/chat/completions",
            "-H", f"Authorization: Bearer {KEY}",
            "-H", "Content-Type: application/json",
            "-d", json.dumps(body),
        ],
        capture_output=True,
        check=True,
    )  # fmt: skip
    told = json.loads(done.stdout)
    assert is_an_answer(told["choices"][0]["message"]["content"])
    assert told["masrouter"]["id"].startswith("dec_")
