"""What a provider may do, over real HTTP: each ends in an answer or in one typed error.

Every case is one call, with an endpoint object, a retry policy and a meter of its own; all of them
run at once against one server. `marks` is what the meter was told, attempt by attempt: `rs`
billed as the response says, `ru` billed at an unknown amount, `rf` not billed.
"""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from tests.llms import faulty_server as web
from tests.llms.faulty_server import FaultyServer, answer, chunk, completion, raw, status
from tests.llms.meters import Tally

from masrouter.errors import CallError
from masrouter.llms import ChatRequest, Completion, ModelOptions, OpenAICompatible, Price
from masrouter.llms.chat import messages
from masrouter.llms.retrying import RetryPolicy

KEY = "sk-a-very-secret-key"
PRICE = Price(1.0, 2.0, "provider file")
QUICK = RetryPolicy(
    tries=3, first_wait_s=0.01, longest_wait_s=0.02, longest_retry_after_s=0.3, deadline_s=300
)
IMPATIENT = replace(QUICK, tries=2, attempt_timeout_s=1.0)
EASILY_STALLED = replace(QUICK, stall_timeout_s=0.5)


@dataclass(frozen=True)
class Case:
    """One provider's behaviour and what a call makes of it."""

    name: str
    script: list[web.Behaviour]
    ends: str
    """`answer`, or the kind of the error."""
    marks: str
    says: str = ""
    """In the error's text."""
    status: int | None = None
    stream: bool = False
    timeout_s: float | None = None
    policy: RetryPolicy = QUICK
    usage: tuple[int | None, int | None, float | None] | None = (20, 2, 24e-6)
    """Of an answer: prompt and completion tokens, US dollars."""
    text: str = "the answer"


def date_in(seconds: float) -> str:
    return format_datetime(datetime.now(UTC) + timedelta(seconds=seconds), usegmt=True)


def then(*behaviours: web.Behaviour) -> list[web.Behaviour]:
    return [*behaviours, answer()]


GOOD = completion("the answer", "m")
UNKNOWN = (None, None, None)
SO_FAR = {"prompt_tokens": 20, "completion_tokens": 1}
TWO = {"completion_tokens": 2}
STOP = chunk(finish_reason="stop")
BOMB = gzip.compress(b" " * (64 << 20))

CASES = [
    Case("a good answer", then(), "answer", "rs"),
    Case("429, then well", then(status(429)), "answer", "rfrs"),
    Case("429 with Retry-After", then(status(429, headers={"Retry-After": "0"})), "answer", "rfrs"),
    Case(
        "429 with a date in Retry-After",
        then(status(429, headers={"Retry-After": date_in(-5)})),
        "answer",
        "rfrs",
    ),
    Case(
        "429 with a long Retry-After is cut",
        then(status(429, headers={"Retry-After": "200"})),
        "answer",
        "rfrs",
    ),
    Case(
        "429 with a Retry-After that cannot be read",
        then(status(429, headers={"Retry-After": "soon"})),
        "answer",
        "rfrs",
    ),
    Case("429 for ever", [status(429, "slow down")], "rate_limited", "rf" * 3, "slow down", 429),
    Case(
        "429 until after the deadline",
        then(status(429, headers={"Retry-After": "3600"})),
        "rate_limited",
        "rf",
        status=429,
    ),
    Case(
        "429 for want of money",
        [status(429, "You exceeded your quota", code="insufficient_quota")],
        "rate_limited",
        "rf",
        "quota",
        429,
    ),
    Case("500, then well", then(status(500), status(503)), "answer", "rfrfrs"),
    Case("500 for ever", [status(500, "boom")], "server_error", "rf" * 3, "boom", 500),
    Case("408 and 409", then(status(408), status(409)), "answer", "rfrfrs"),
    Case("401", [status(401, f"bad key {KEY}!")], "unauthorised", "rf", "bad key ***!", 401),
    Case("403", [status(403)], "unauthorised", "rf", status=403),
    Case("400", [status(400, "too long")], "rejected", "rf", "too long", 400),
    Case("402", [status(402, "no credit")], "rejected", "rf", "no credit", 402),
    Case("404 as HTML", [raw("<h1>No</h1>", "text/html", 404)], "rejected", "rf", "<h1>No", 404),
    Case(
        "a redirect is not followed",
        [raw("", code=307, headers={"location": "/elsewhere"})],
        "rejected",
        "rf",
        "base_url",
        307,
    ),
    Case(
        "HTML with status 200",
        [raw("<html>log in</html>", "text/html")],
        "bad_response",
        "ru" * 2,
        "text/html: <html>log in",
        200,
    ),
    Case("HTML once", then(raw("<html>", "text/html")), "answer", "rurs"),
    Case("an empty body", [raw("")], "empty", "ru" * 2, status=200),
    Case("truncated JSON", [raw(json.dumps(GOOD)[:60])], "bad_response", "ru" * 2, status=200),
    Case("JSON of another kind", [raw([1, 2])], "bad_response", "ru" * 2, "[1, 2]", 200),
    Case("JSON nested without end", [raw("[" * 200_000)], "bad_response", "ru" * 2, status=200),
    Case("no choices", [raw({**GOOD, "choices": []})], "bad_response", "rs" * 2, status=200),
    Case(
        "an answer of no size",
        [raw(BOMB, headers={"content-encoding": "gzip"})],
        "bad_response",
        "ru",
        "larger than 32 MiB",
        200,
    ),
    Case(
        "gzip that is none",
        [raw(b"no gzip", headers={"content-encoding": "gzip"})],
        "bad_response",
        "ru" * 2,
        status=200,
    ),
    Case("text that is null", [answer("")], "empty", "rs" * 2, "without text", 200),
    Case(
        "a refusal",
        [raw(completion(None, "m", refusal="I will not"))],
        "empty",
        "rs",
        "refused: I will not",
        200,
    ),
    Case(
        "only tool calls",
        [raw(completion(None, "m", tool_calls=[{"id": "1"}]))],
        "empty",
        "rs",
        "called tools",
        200,
    ),
    Case(
        "all tokens went to reasoning",
        [raw(completion("", "m", finish_reason="length"))],
        "empty",
        "rs",
        "max_tokens",
        200,
    ),
    Case(
        "a content filter",
        [raw(completion(None, "m", finish_reason="content_filter"))],
        "rejected",
        "rs",
        "content filter",
        200,
    ),
    Case(
        "an error with status 200",
        then(raw({"error": {"code": 502, "message": "upstream down"}})),
        "answer",
        "rurs",
    ),
    Case(
        "a hopeless error with status 200",
        [raw({"error": {"code": 400, "message": "bad prompt"}})],
        "rejected",
        "ru",
        "bad prompt",
        200,
    ),
    Case("no usage", [answer(usage="absent")], "answer", "ru", usage=UNKNOWN),
    Case("usage of nothing", [answer(usage={})], "answer", "ru", usage=UNKNOWN),
    Case(
        "usage that is absurd",
        [answer(usage={"prompt_tokens": -3, "completion_tokens": "many", "cost": True})],
        "answer",
        "ru",
        usage=UNKNOWN,
    ),
    Case(
        "usage of zero tokens",
        [answer(usage={"prompt_tokens": 0, "completion_tokens": 0})],
        "answer",
        "ru",
        usage=UNKNOWN,
    ),
    Case(
        "a cost in the response",
        [answer(more_usage={"cost": 0.5})],
        "answer",
        "rs",
        usage=(20, 2, 0.5),
    ),
    Case(
        "reasoning in the total alone",
        [answer(more_usage={"total_tokens": 122})],
        "answer",
        "rs",
        usage=(20, 102, 224e-6),
    ),
    Case("reset before the answer", then(web.reset()), "answer", "rurs"),
    Case("closed without an answer", then(web.shut()), "answer", "rurs"),
    Case("reset for ever", [web.reset()], "connection", "ru" * 3),
    Case("closed inside the answer", then(web.cut()), "answer", "rurs"),
    Case("reset inside the answer", [web.cut("reset")], "connection", "ru" * 3),
    Case("a hang", [web.hang()], "timeout", "ru" * 2, "one attempt", policy=IMPATIENT),
    Case("a hang past the deadline", [web.hang()], "timeout", "ru", "deadline", timeout_s=1.0),
    Case("a slow drip", [web.drip()], "timeout", "ru", "deadline", timeout_s=1.5),
    Case(
        "a stall inside the answer", [web.cut("stall")], "timeout", "ru", "deadline", timeout_s=1.0
    ),
    Case("a stream", then(), "answer", "rs", stream=True),
    Case("500 before a stream", then(status(500)), "answer", "rfrs", stream=True),
    Case(
        "a stream without usage",
        [web.streamed(chunk("the answer"), chunk(finish_reason="stop"))],
        "answer",
        "ru",
        stream=True,
        usage=UNKNOWN,
    ),
    Case(
        "stream_options unknown",
        then(status(400, "Unknown field: stream_options")),
        "answer",
        "rfru",
        stream=True,
        usage=UNKNOWN,
    ),
    Case(
        "a whole answer where a stream was asked for",
        [raw(GOOD)],
        "answer",
        "rs",
        stream=True,
    ),
    Case(
        "HTML where a stream was asked for",
        [raw("<html>", "text/html")],
        "bad_response",
        "ru" * 2,
        status=200,
        stream=True,
    ),
    Case("a stream of nothing", [web.streamed()], "empty", "ru" * 2, status=200, stream=True),
    Case(
        "a stream that breaks off before text",
        then(web.streamed(chunk(), end=False)),
        "answer",
        "rurs",
        stream=True,
    ),
    Case(
        "a stream that breaks off after text",
        then(web.streamed(chunk("the"), end=False)),
        "bad_response",
        "ru",
        "broke off; not tried again, as text was passed on",
        200,
        stream=True,
        text="the",
    ),
    Case(
        "a stream reset after text",
        then(web.streamed(chunk("the"), end=False, then="reset")),
        "connection",
        "ru",
        "text was passed on",
        stream=True,
        text="the",
    ),
    Case(
        "a stream that stalls after text",
        then(web.streamed(chunk("the"), end=False, then="stall")),
        "timeout",
        "ru",
        "stalled for 0.5 s",
        stream=True,
        text="the",
        policy=EASILY_STALLED,
    ),
    Case(
        "a stream that counts as it goes and breaks off",
        then(web.streamed(chunk("the", usage=SO_FAR), end=False)),
        "bad_response", "ru", "text was passed on", 200, stream=True, text="the",
    ),
    Case(
        "a stream that counts as it goes and stalls",
        then(web.streamed(chunk("the", usage=SO_FAR), end=False, then="stall")),
        "timeout", "ru", "stalled", stream=True, text="the", policy=EASILY_STALLED,
    ),
    Case(
        "a stream that counts as it goes and ends in an error",
        then(web.streamed(chunk(usage=SO_FAR), {"error": {"code": 503}})),
        "answer", "rurs", stream=True,
    ),
    Case(
        "a stream whose count came before its text",
        [web.streamed(chunk(usage=SO_FAR), chunk("the answer"), STOP)],
        "answer", "ru", stream=True, usage=UNKNOWN,
    ),
    Case(
        "a stream that counts as it goes",
        [web.streamed(chunk("the", usage=SO_FAR), chunk(" answer", usage={**SO_FAR, **TWO}), STOP)],
        "answer", "rs", stream=True,
    ),
    Case(
        "a stream of no JSON",
        [web.streamed("{oh")],
        "bad_response",
        "ru" * 2,
        status=200,
        stream=True,
    ),
    Case(
        "an error inside a stream",
        then(web.streamed({"error": {"code": 503, "message": "overloaded"}})),
        "answer",
        "rurs",
        stream=True,
    ),
]  # fmt: skip


@dataclass
class Row:
    """What one case came to."""

    completion: Completion | None = None
    error: CallError | None = None
    tally: Tally = field(default_factory=Tally)
    pieces: list[str] = field(default_factory=list)
    requests: int = 0


@pytest.fixture(scope="module")
def rows() -> dict[str, Row]:
    """All cases, run at once."""
    rows = {case.name: Row() for case in CASES}
    with FaultyServer(script={case.name: case.script for case in CASES}) as server:

        async def run(case: Case) -> None:
            row = rows[case.name]
            options = ModelOptions(price=PRICE)
            endpoint = OpenAICompatible(
                server.base_url, KEY, name="here", options=options, retry=case.policy
            )
            try:
                async with endpoint:
                    row.completion = await endpoint.complete(
                        ChatRequest(case.name, messages("Be kind.", "Hello"), 100),
                        timeout_s=case.timeout_s,
                        meter=row.tally,
                        on_text=row.pieces.append if case.stream else None,
                    )
            except CallError as error:
                row.error = error

        async def run_all() -> None:
            # Those that are short of time come last, with the machine to themselves.
            for late in (False, True):
                await asyncio.gather(*(run(c) for c in CASES if (c.ends == "timeout") is late))

        asyncio.run(run_all())
        for call in server.calls:
            rows[call.model].requests += 1
    return rows


def test_the_matrix_is_large_and_names_each_case_once() -> None:
    assert len({case.name for case in CASES}) == len(CASES) >= 24


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_each_behaviour_ends_in_an_answer_or_one_typed_error(
    case: Case, rows: dict[str, Row]
) -> None:
    row = rows[case.name]
    assert row.tally.marks == case.marks
    attempts = len(case.marks) // 2
    # A call that was short of time may have been broken off before its request arrived.
    assert row.requests == attempts or (case.ends == "timeout" and row.requests < attempts)
    if case.ends == "answer":
        assert row.error is None
        assert row.completion is not None
        used = row.completion.usage
        assert (row.completion.text, row.completion.attempts) == ("the answer", attempts)
        assert (used.prompt_tokens, used.completion_tokens, used.cost_usd) == pytest.approx(
            case.usage
        )
        assert row.tally.usages[-1] == used
    else:
        assert row.completion is None
        error = row.error
        assert error is not None
        assert (error.kind, error.status, error.attempts) == (case.ends, case.status, attempts)
        assert error.model == f"here/{case.name}"
        assert str(error).startswith(f"here/{case.name}: ")
        assert case.says in str(error)
        assert len(str(error)) < 700
    if case.stream:
        passed_on = case.text if case.ends == "answer" or case.text != "the answer" else ""
        assert "".join(row.pieces) == passed_on


def test_no_error_shows_the_key(rows: dict[str, Row]) -> None:
    def told(error: BaseException | None) -> Iterator[Any]:
        while error is not None:
            yield from (str(error), repr(error), repr(vars(error)))
            error = error.__cause__ or error.__context__

    texts = [text for row in rows.values() for text in told(row.error)]
    assert len(texts) > 60
    assert not [text for text in texts if KEY in text]
