"""Parts of the client that need no server: buckets, waits, the circuit, what an answer says."""

from __future__ import annotations

import asyncio
import json
import math
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from masrouter.errors import ConfigError
from masrouter.llms import Breaker, ModelOptions, RateLimit, RetryPolicy
from masrouter.llms.circuit_breaker import Circuit
from masrouter.llms.failures import Failure, retry_after_s
from masrouter.llms.rate_limit import BURST_S, Limiter, TokenBucket
from masrouter.llms.retrying import retrying
from masrouter.llms.wire import StreamedAnswer, read_answer, read_usage
from masrouter.types import Usage


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@given(
    per_minute=st.floats(1, 6000),
    steps=st.lists(st.tuples(st.floats(0, 5), st.integers(1, 50)), min_size=1, max_size=60),
)
def test_a_bucket_never_lets_more_through_than_flowed_in(
    per_minute: float, steps: list[tuple[float, int]]
) -> None:
    clock = Clock()
    bucket = TokenBucket(per_minute, clock)
    size = max(1.0, per_minute / 60 * BURST_S)
    through = 0
    last = 0.0
    for pause, amount in steps:
        clock.now += pause
        wait = bucket.take(amount, math.inf)
        assert wait is not None
        last = max(last, clock.now + wait)
        # What exceeds the bucket is owed by the next, so the last amount is not counted yet.
        assert through <= size + last * per_minute / 60 + 1e-6
        through += amount


def test_an_impatient_taker_takes_nothing() -> None:
    clock = Clock()
    bucket = TokenBucket(60, clock)
    assert bucket.take(10, 0) == 0
    assert bucket.take(5, 4.9) is None
    assert bucket.take(5, 5.1) == pytest.approx(5)
    bucket.give_back(5)
    assert bucket.take(1, 10) == pytest.approx(1)


def test_calls_that_are_short_of_tokens_use_up_no_requests() -> None:
    limiter = Limiter(RateLimit(requests_per_minute=60, tokens_per_minute=60))

    async def ask(tokens: int) -> None:
        async with limiter.grant(tokens, asyncio.get_running_loop().time() + 1) as grant:
            grant.used = tokens

    async def main() -> None:
        await ask(10)  # all there is of tokens, and one of ten requests
        for _ in range(20):
            with pytest.raises(Failure, match="limit of 60 tokens a minute"):
                await ask(10)

    asyncio.run(main())


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
        ({"retry-after": "-3"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0),
        ({"retry-after": "Wed, 21 Oct"}, None),
        ({"retry-after": "Wed, 99 Oct 2015 07:28:00 GMT"}, None),
    ],
)
def test_retry_after_is_read_in_all_its_forms(
    headers: dict[str, str], seconds: float | None
) -> None:
    assert retry_after_s(headers) == seconds


@given(st.text())
def test_no_retry_after_breaks_the_reader(text: str) -> None:
    seconds = retry_after_s({"retry-after": text})
    assert seconds is None or 0 <= seconds < math.inf


def test_waits_are_drawn_below_a_bound_that_doubles_up_to_the_longest() -> None:
    policy = RetryPolicy(tries=7, first_wait_s=1, longest_wait_s=4)

    def waits() -> list[float]:
        slept: list[float] = []

        async def sleep(seconds: float) -> None:
            slept.append(seconds)

        async def fail() -> None:
            raise Failure("server_error", "no", retry="yes")

        async def run() -> None:
            deadline = asyncio.get_running_loop().time() + 1000
            await retrying(policy, deadline).copy(sleep=sleep)(fail)

        with pytest.raises(Failure):
            asyncio.run(run())
        return slept

    runs = [waits() for _ in range(40)]
    bounds = [1, 2, 4, 4, 4, 4]
    assert all(0 <= wait <= bound for run in runs for wait, bound in zip(run, bounds, strict=True))
    tops = [max(run[i] for run in runs) for i in range(6)]
    assert all(top > bound / 2 for top, bound in zip(tops, bounds, strict=True))


def test_a_circuit_lets_one_probe_through_and_a_broken_off_probe_is_followed_by_another() -> None:
    clock = Clock()
    circuit = Circuit(Breaker(failures=2, pause_s=10), clock)
    for _ in range(2):
        assert circuit.enter() == "call"
        circuit.end("call", "fault")
    assert circuit.enter() is None
    assert circuit.open_for_s() == 10
    clock.now = 11
    assert circuit.enter() == "probe"
    assert circuit.enter() is None
    circuit.end("probe", "unknown")
    assert circuit.enter() == "probe"
    circuit.end("probe", "fault")
    assert circuit.open_for_s() == 10
    clock.now = 22
    assert circuit.enter() == "probe"
    circuit.end("probe", "works")
    assert circuit.enter() == "call"


def test_only_faults_in_a_row_open_a_circuit() -> None:
    circuit = Circuit(Breaker(failures=2, pause_s=10), Clock())
    for outcome in ("fault", "works", "fault", "unknown", "works", "fault"):
        assert circuit.enter() == "call"
        circuit.end("call", outcome)  # type: ignore[arg-type]
    assert circuit.enter() == "call"


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (None, None),
        ([], None),
        ({"prompt_tokens": 5}, Usage(5, None, None)),
        ({"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 3}, Usage(5, 7, None)),
        ({"prompt_tokens": 1.5, "completion_tokens": True}, None),
        ({"prompt_tokens": 5, "completion_tokens": 2**60}, Usage(5, None, None)),
        ({"prompt_tokens": 5, "cost": 0}, Usage(5, None, 0.0)),
        ({"prompt_tokens": 5, "cost": -1}, Usage(5, None, None)),
        ({"prompt_tokens": 5, "cost": 1e999}, Usage(5, None, None)),
        ({"prompt_tokens": 5, "cost": 10**400}, Usage(5, None, None)),
        ({"prompt_tokens": 5, "cost": 1, "is_byok": True}, Usage(5, None, None)),
        (
            {"cost": 1, "is_byok": True, "cost_details": {"upstream_inference_cost": 2}},
            Usage(None, None, 3.0),
        ),
    ],
)
def test_usage_is_what_was_billed_and_absurd_numbers_are_unknown(
    data: Any, expected: Usage | None
) -> None:
    assert read_usage(data) == expected


def test_text_parts_are_joined_and_thinking_is_not_the_answer() -> None:
    parts = [{"type": "thinking", "text": "hm"}, {"type": "text", "text": "a"}, 5,
             {"type": "text", "text": "b"}]  # fmt: skip
    message = {"content": parts, "reasoning_content": "hm"}
    raw = json.dumps({"choices": [{"message": message, "finish_reason": "stop"}]}).encode()
    assert read_answer(raw, "application/json").text == "ab"


ODD = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["choices", "message", "delta", "content", "usage", "error", "code", "cost",
                 "message", "finish_reason", "refusal", "prompt_tokens", "total_tokens", "text"]
            ),
            inner,
            max_size=5,
        )
    ),
    max_leaves=30,
)  # fmt: skip


@given(ODD)
def test_no_answer_breaks_the_reader(data: Any) -> None:
    with suppress(Failure):
        reply = read_answer(json.dumps(data).encode(), "application/json")
        assert reply.text.strip()
        assert reply.text.encode()


@given(st.lists(ODD, max_size=4))
def test_no_stream_breaks_the_reader(chunks: list[Any]) -> None:
    answer = StreamedAnswer()
    with suppress(Failure):
        pieces = [answer.take(chunk) for chunk in chunks]
        assert answer.reply().text == "".join(pieces)


@given(st.binary(max_size=200))
def test_no_bytes_break_the_reader(raw: bytes) -> None:
    with pytest.raises(Failure):
        read_answer(raw, "")


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: RetryPolicy(tries=0), "retry: tries: expected at least 1, got 0"),
        (lambda: RetryPolicy(first_wait_s=math.nan), "retry: first_wait_s: expected seconds >= 0"),
        (lambda: RateLimit(max_concurrency=2.5), "rate limit: max_concurrency: expected a whole"),
        (lambda: RateLimit(tokens_per_minute=0), "rate limit: tokens_per_minute: expected a numb"),
        (lambda: Breaker(failures=0), "breaker: failures: expected at least 1"),
        (lambda: ModelOptions(extra_body={"stream": True}), "extra_body: 'stream' is set by each"),
        (lambda: ModelOptions(extra_body={"x": float("nan")}), "extra_body: it cannot be sent"),
        (lambda: ModelOptions(extra_body={"x": {1, 2}}), "extra_body: it cannot be sent"),
        (lambda: ModelOptions(omit=("top_p",)), "omit: 'top_p'"),
    ],
)
def test_a_wrong_setting_is_refused(make: Any, says: str) -> None:
    with pytest.raises(ConfigError) as error:
        make()
    assert str(error.value).startswith(says)
