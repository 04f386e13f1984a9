"""One endpoint over real HTTP: concurrency, money, cancellation, limits, keys, event loops."""

from __future__ import annotations

import asyncio
import gc
import logging
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from tests.llms import faulty_server as web
from tests.llms.faulty_server import FaultyServer, answer, completion, raw, status
from tests.llms.meters import Budget, Tally

from masrouter.catalog import Catalog
from masrouter.errors import BudgetError, CallError, ConfigError
from masrouter.llms import (
    Breaker,
    ChatRequest,
    Completion,
    ModelOptions,
    OpenAICompatible,
    Price,
    RateLimit,
    RetryPolicy,
)
from masrouter.llms.chat import messages

QUICK = RetryPolicy(tries=3, first_wait_s=0.01, longest_wait_s=0.02)
ONCE = RetryPolicy(tries=1)
PRICED = ModelOptions(price=Price(1.0, 2.0, "provider file"))


def ask(**changes: Any) -> ChatRequest:
    return replace(ChatRequest("m", messages(None, "Hello"), 100), **changes)


async def together(
    endpoint: OpenAICompatible, requests: Sequence[ChatRequest], **options: Any
) -> list[Completion | BaseException]:
    async with endpoint:
        calls = [endpoint.complete(request, **options) for request in requests]
        return await asyncio.gather(*calls, return_exceptions=True)


def test_64_calls_are_all_in_flight_at_once() -> None:
    with FaultyServer(latency_s=0.3, gather=64) as server:
        done = asyncio.run(together(OpenAICompatible(server.base_url), [ask()] * 64))
        assert server.peak == 64
    assert [c.text for c in done if isinstance(c, Completion)] == ["the answer"] * 64


def test_the_limit_of_concurrent_calls_is_kept() -> None:
    limit = RateLimit(max_concurrency=5)
    with FaultyServer(latency_s=0.02, gather=5) as server:
        done = asyncio.run(
            together(OpenAICompatible(server.base_url, rate_limit=limit), [ask()] * 20)
        )
        assert server.peak == 5
    assert all(isinstance(c, Completion) for c in done)


def test_requests_per_minute_spread_the_calls() -> None:
    limit = RateLimit(requests_per_minute=240)  # four a second, of which 40 at once
    with FaultyServer() as server:
        endpoint = OpenAICompatible(server.base_url, rate_limit=limit)
        start = time.monotonic()
        asyncio.run(together(endpoint, [ask()] * 42))
        assert max(call.at for call in server.calls) - start > 0.45


def test_a_call_that_the_rate_limit_would_delay_past_its_deadline_ends_at_once() -> None:
    limit = RateLimit(requests_per_minute=1)
    with FaultyServer() as server:
        endpoint = OpenAICompatible(server.base_url, rate_limit=limit)
        first, second = asyncio.run(together(endpoint, [ask()] * 2, timeout_s=20))
        assert len(server.calls) == 1
    assert isinstance(first, Completion)
    assert isinstance(second, CallError)
    assert (second.kind, second.attempts) == ("rate_limited", 0)
    assert "limit of 1 requests a minute" in str(second)


def test_tokens_per_minute_count_what_was_used_and_not_what_was_feared() -> None:
    limit = RateLimit(tokens_per_minute=1200)  # 200 at once; a call is feared to take 110
    with FaultyServer(script={"m": [status(500)] * 3 + [answer()]}) as server:
        endpoint = OpenAICompatible(server.base_url, rate_limit=limit, retry=ONCE)

        async def one_by_one() -> list[str]:
            ends = []
            async with endpoint:
                for _ in range(8):
                    try:
                        ends.append((await endpoint.complete(ask(), timeout_s=4)).text)
                    except CallError as error:
                        ends.append(error.kind)
            return ends

        ends = asyncio.run(one_by_one())
    assert ends == ["server_error"] * 3 + ["the answer"] * 5


def test_a_wait_for_a_free_place_counts_against_the_deadline() -> None:
    async def scene(endpoint: OpenAICompatible) -> CallError:
        async with endpoint:
            first = asyncio.create_task(endpoint.complete(ask()))
            while not server.calls:
                await asyncio.sleep(0.01)
            with pytest.raises(CallError) as error:
                await endpoint.complete(ask(), timeout_s=0.2)
            first.cancel()
            await asyncio.gather(first, return_exceptions=True)
        return error.value

    with FaultyServer(otherwise=web.hang()) as server:
        limit = RateLimit(max_concurrency=1)
        error = asyncio.run(scene(OpenAICompatible(server.base_url, rate_limit=limit)))
    assert (error.kind, error.attempts) == ("timeout", 0)
    assert "one of 1 concurrent calls" in str(error)


def test_retry_after_is_waited_for() -> None:
    script = {"m": [status(429, headers={"Retry-After": "0.4"}), answer()]}
    with FaultyServer(script=script) as server:
        asyncio.run(together(OpenAICompatible(server.base_url, retry=QUICK), [ask()]))
        first, second = server.calls
    assert second.at - first.at > 0.39


@pytest.mark.parametrize("seats", [1, 4, 9])
def test_spend_stays_within_the_budget_whatever_the_provider_does(seats: int) -> None:
    behaviours = [
        answer(),
        raw("<html>"),
        status(500),
        web.reset(),
        answer(usage="absent"),
        web.cut(),
        status(429),
        raw(completion("", "m", finish_reason="length")),
        web.shut(),
    ]
    request = ask()
    worst = (request.most_prompt_tokens + request.max_tokens * 2) / 1e6
    budget = Budget(limit_usd=worst * seats + 1e-9, worst_usd=worst)
    with FaultyServer(script={"m": behaviours * 4}) as server:
        endpoint = OpenAICompatible(server.base_url, options=PRICED, retry=QUICK)
        done = asyncio.run(together(endpoint, [request] * 24, meter=budget))
        assert 0 < server.billed_usd <= budget.spent_usd <= budget.limit_usd
    assert budget.held_usd == pytest.approx(0)
    assert any(isinstance(row, BudgetError) for row in done)
    assert all(isinstance(row, Completion | CallError | BudgetError) for row in done)


def test_a_budget_that_is_used_up_ends_the_retries() -> None:
    request = ask()
    worst = (request.most_prompt_tokens + request.max_tokens * 2) / 1e6
    budget = Budget(limit_usd=worst * 2.5, worst_usd=worst)
    with FaultyServer(otherwise=web.reset()) as server:
        endpoint = OpenAICompatible(server.base_url, options=PRICED, retry=QUICK)
        (row,) = asyncio.run(together(endpoint, [request], meter=budget))
        assert len(server.calls) == 2
    assert isinstance(row, BudgetError)


def test_a_cancelled_call_counts_as_billed_and_leaves_nothing_behind() -> None:
    tally = Tally()

    async def cancel(endpoint: OpenAICompatible) -> None:
        async with endpoint:
            task = asyncio.create_task(endpoint.complete(ask(), meter=tally))
            while not server.calls:
                await asyncio.sleep(0.01)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    with FaultyServer(otherwise=web.hang()) as server:
        asyncio.run(cancel(OpenAICompatible(server.base_url)))
    assert tally.marks == "ru"


def test_what_a_listener_raises_is_no_fault_of_the_provider() -> None:
    def listen(piece: str) -> None:
        raise OSError("the listener's disk is full")

    tally = Tally()
    with FaultyServer() as server:
        endpoint = OpenAICompatible(server.base_url, retry=QUICK)
        (row,) = asyncio.run(together(endpoint, [ask()], meter=tally, on_text=listen))
        assert len(server.calls) == 1
    assert isinstance(row, OSError)
    assert tally.marks == "ru"


def test_a_refused_connection_is_tried_again_and_never_billed() -> None:
    with FaultyServer() as server:
        address = server.base_url
    tally = Tally()
    (row,) = asyncio.run(together(OpenAICompatible(address, retry=QUICK), [ask()], meter=tally))
    assert isinstance(row, CallError)
    assert (row.kind, row.attempts, tally.marks) == ("connection", 3, "rfrfrf")


def test_no_time_left_sends_nothing() -> None:
    with FaultyServer() as server:
        endpoint = OpenAICompatible(server.base_url)
        (row,) = asyncio.run(together(endpoint, [ask()], timeout_s=0))
        assert server.calls == []
    assert isinstance(row, CallError)
    assert (row.kind, row.attempts) == ("timeout", 0)


def test_a_provider_that_keeps_failing_is_left_alone_and_probed_with_one_call() -> None:
    async def scene(endpoint: OpenAICompatible) -> list[str]:
        kinds = []

        async def one() -> None:
            try:
                await endpoint.complete(ask())
                kinds.append("answer")
            except CallError as error:
                kinds.append(error.kind)

        async with endpoint:
            for _ in range(5):
                await one()
            await asyncio.sleep(0.6)
            await asyncio.gather(*(one() for _ in range(8)))
            await asyncio.sleep(0.6)
            await one()
            await asyncio.gather(*(one() for _ in range(8)))
        return kinds

    script = {"m": [status(500), status(503), status(500), status(500), answer()]}
    with FaultyServer(script=script, latency_s=0.05) as server:
        breaker = Breaker(failures=3, pause_s=0.5)
        endpoint = OpenAICompatible(server.base_url, retry=ONCE, breaker=breaker)
        kinds = asyncio.run(scene(endpoint))
        assert len(server.calls) == 3 + 1 + 1 + 8
    assert kinds[:5] == ["server_error"] * 3 + ["circuit_open"] * 2
    assert sorted(kinds[5:13]) == ["circuit_open"] * 7 + ["server_error"]
    assert kinds[13:] == ["answer"] * 9


@pytest.mark.parametrize("code", [400, 401, 404, 429])
def test_what_the_caller_does_wrong_does_not_open_the_circuit(code: int) -> None:
    with FaultyServer(otherwise=status(code)) as server:
        endpoint = OpenAICompatible(server.base_url, retry=ONCE, breaker=Breaker(failures=2))
        done = asyncio.run(together(endpoint, [ask()] * 6))
        assert len(server.calls) == 6
    assert [row.status for row in done if isinstance(row, CallError)] == [code] * 6


def test_one_endpoint_serves_one_event_loop_after_another_and_leaves_no_socket_open() -> None:
    with FaultyServer() as server:
        endpoint = OpenAICompatible(server.base_url)
        for _ in range(3):
            assert asyncio.run(endpoint.complete(ask())).text == "the answer"

        async def twice() -> None:
            async with endpoint:
                await endpoint.complete(ask())
            await endpoint.complete(ask())

        asyncio.run(twice())
        gc.collect()  # an open socket would warn here, and a warning is an error
        assert len(server.calls) == 5


def test_the_request_says_what_was_asked_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-another-provider")
    monkeypatch.setenv("OPENAI_ORG_ID", "org-secret")
    monkeypatch.setenv("OPENAI_PROJECT_ID", "project-secret")
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "X-Ambient: ambient-secret")
    options = ModelOptions(
        name="vendor/m:free",
        max_tokens_field="max_completion_tokens",
        omit=("temperature",),
        extra_body={"reasoning_effort": "low"},
    )
    request = ask(messages=messages("Be kind.", "1", "2", "3"), temperature=0.5, seed=7)
    with FaultyServer() as server:
        endpoint = OpenAICompatible(
            f"{server.base_url}/", models={"m": options}, headers={"X-Title": "masrouter"}
        )
        done = asyncio.run(together(endpoint, [request]))
        (call,) = server.calls
    assert isinstance(done[0], Completion)
    assert call.path == "/v1/chat/completions"
    assert call.body == {
        "model": "vendor/m:free",
        "messages": [
            {"role": "system", "content": "Be kind."},
            {"role": "user", "content": "1"},
            {"role": "assistant", "content": "2"},
            {"role": "user", "content": "3"},
        ],
        "max_completion_tokens": 100,
        "seed": 7,
        "reasoning_effort": "low",
    }
    assert call.headers["x-title"] == "masrouter"
    assert "authorization" not in call.headers
    assert "secret" not in str(call.headers)
    assert "another-provider" not in str(call.headers)


def test_a_rejected_stream_option_is_learned_once() -> None:
    script = {"m": [status(422, "extra field stream_options"), answer()]}
    with FaultyServer(script=script) as server:
        endpoint = OpenAICompatible(server.base_url, retry=QUICK)

        async def twice() -> None:
            async with endpoint:
                for _ in range(2):
                    await endpoint.complete(ask(), on_text=lambda piece: None)

        asyncio.run(twice())
        assert ["stream_options" in call.body for call in server.calls] == [True, False, False]


def test_half_a_character_is_replaced_and_not_passed_on() -> None:
    with FaultyServer(otherwise=answer("a\ud800b \U0001f600")) as server:
        endpoint = OpenAICompatible(server.base_url)
        (row,) = asyncio.run(together(endpoint, [ask(messages=messages(None, "x\udc00y"))]))
        assert server.calls[0].messages == (("user", "x\ufffdy"),)
    assert isinstance(row, Completion)
    assert row.text == "a\ufffdb \U0001f600"


def test_keys_stand_in_no_repr_and_no_log(caplog: pytest.LogCaptureFixture) -> None:
    key = "sk-a-very-secret-key"
    caplog.set_level(logging.DEBUG)
    with FaultyServer(script={"m": [status(500, key), answer()]}) as server:
        endpoint = OpenAICompatible(server.base_url, key, headers={"X-Api-Key": key}, retry=QUICK)
        done = asyncio.run(together(endpoint, [ask()]))
        assert server.calls[0].headers["authorization"] == f"Bearer {key}"
    assert isinstance(done[0], Completion)
    assert key not in repr(endpoint)
    assert key not in caplog.text


@pytest.mark.parametrize(
    ("value", "says"), [(None, "is not set"), (" ", "or empty"), ("a\nb", "characters")]
)
def test_a_missing_key_is_named_at_the_first_call(
    value: str | None, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MY_KEY", raising=False)
    if value is not None:
        monkeypatch.setenv("MY_KEY", value)
    with FaultyServer() as server:
        endpoint = OpenAICompatible(server.base_url, api_key_env="MY_KEY", source="p.yaml:3")
        (row,) = asyncio.run(together(endpoint, [ask()]))
        assert server.calls == []
        monkeypatch.setenv("MY_KEY", "sk-now-it-is-there")
        (fine,) = asyncio.run(together(endpoint, [ask()]))
    assert isinstance(row, CallError)
    assert (row.kind, row.attempts) == ("unauthorised", 0)
    assert "p.yaml:3: the environment variable MY_KEY" in str(row)
    assert says in str(row)
    assert isinstance(fine, Completion)


@pytest.mark.parametrize(
    "url",
    ["", "api.openai.com/v1", "ftp://x/v1", "https://", "http://x:99999999/v1", "http://[::1/v1",
     "https://user:sk-secret@x/v1", "https://x/v1?key=sk-secret"],
)  # fmt: skip
def test_a_wrong_url_is_refused_without_being_shown(url: str) -> None:
    with pytest.raises(ConfigError, match="base_url: ") as error:
        OpenAICompatible(url)
    assert "sk-secret" not in str(error.value)


@pytest.mark.parametrize(
    ("model", "url", "expected"),
    [
        ("gpt-4o", "https://api.openai.com/v1", (2.5, 10.0, "catalog")),
        ("here/gpt-4o", "https://api.openai.com/v1", (2.5, 10.0, "catalog")),
        ("gpt-4o-2024-08-06", "http://localhost:8000/v1", (2.5, 10.0, "catalog")),
        ("renamed", "http://localhost:8000/v1", (2.5, 10.0, "catalog")),
        ("given", "http://localhost:8000/v1", (0.0, 0.0, "provider file")),
        ("openai/gpt-3.5-turbo", "https://openrouter.ai/api/v1", (0.5, 1.5, "genai-prices")),
        ("openai/gpt-3.5-turbo", "http://localhost:8000/v1", None),
        ("gpt-4o:thinking", "http://localhost:8000/v1", None),
        ("nobody-knows", "https://api.openai.com/v1", None),
    ],
)
def test_a_price_is_the_files_then_the_catalogs_then_that_of_genai_prices(
    model: str, url: str, expected: tuple[float, float, str] | None
) -> None:
    models = {
        "renamed": ModelOptions(name="gpt-4o"),
        "given": ModelOptions(name="gpt-4o", price=Price(0.0, 0.0, "provider file")),
    }
    endpoint = OpenAICompatible(url, name="here", catalog=Catalog.default(), models=models)
    assert endpoint.price(model) == (None if expected is None else Price(*expected))


def test_a_price_that_rises_with_the_prompt_bounds_a_call_by_its_highest() -> None:
    google = "https://generativelanguage.googleapis.com/v1beta/openai"
    price = OpenAICompatible(google).price("gemini-2.5-pro")
    assert price == Price(2.5, 15.0, "genai-prices")


def test_a_price_per_request_is_unknown_as_tokens_do_not_tell_it() -> None:
    assert OpenAICompatible("https://api.perplexity.ai").price("sonar") is None


def test_without_the_extra_the_error_says_what_to_install() -> None:
    program = (
        "import sys, asyncio\n"
        "sys.modules['openai'] = None\n"
        "from masrouter.llms import OpenAICompatible, ChatRequest\n"
        "request = ChatRequest('m', (), 1)\n"
        "asyncio.run(OpenAICompatible('http://localhost:1/v1').complete(request))\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=120
    )
    assert run.returncode == 1
    last = run.stderr.strip().splitlines()[-1]
    assert last.startswith("masrouter.errors.ConfigError: ")
    assert "pip install 'masrouter[llm]'" in last
