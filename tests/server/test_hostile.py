"""The real app behind the real server, sent what nobody should send: no 5xx, no hang, no echo."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import Case, GenerationMode
from tests.server.chat_samples import PLANS, Spoken
from tests.server.raw_http import Answer, Client, listening

from masrouter.router import Router
from masrouter.server import Limits, ServerSettings, Service, create_app
from masrouter.server.running import HttpServer
from masrouter.server.telemetry import Telemetry

LIMITS = Limits(header_timeout_s=2, body_timeout_s=2)
MARK = "zq7-marker"
"""Stands in what is sent, and must not come back in an error."""
CHAT = {"model": "masrouter/auto", "messages": [{"role": "user", "content": "What is 1 plus 5?"}]}
WORK = ("/v1/decision", "/v1/outcomes", "/v1/chat/completions")


@pytest.fixture(scope="module")
def server(served_router: Router) -> Iterator[HttpServer]:
    settings_ = ServerSettings(limits=LIMITS, plans=dict(PLANS), exploration=0.2)
    service = Service(
        served_router, llm=Spoken(), settings=settings_, telemetry=Telemetry(),
        rng=random.Random(0),
    )  # fmt: skip
    with listening(create_app(service), LIMITS) as running:
        yield running
    service.records.close()


def post(server: HttpServer, path: str, body: bytes, kind: str = "application/json") -> Answer:
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {kind}\r\n"
    with Client(server.url) as client:
        client.send(f"{head}Content-Length: {len(body)}\r\n\r\n".encode("latin-1") + body)
        return client.answer()


def check_error(status: int, body: bytes) -> None:
    """OpenAI's shape, and nothing of what was sent."""
    error = json.loads(body)["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert 400 <= status < 500
    assert MARK not in error["message"]


def ask_at_random(server: HttpServer, examples: int) -> int:
    """Requests by the server's own description, as they should be and as they should not.

    Most go to operations with a body: there is little to get wrong in the others.
    """
    schema = schemathesis.openapi.from_url(f"{server.url}/openapi.json")
    asked = 0
    for found in schema.get_all_operations():
        operation = found.ok()
        with_body = bool(operation.body)
        for mode in GenerationMode:
            if mode is GenerationMode.NEGATIVE and not with_body:
                continue  # nothing in it could be wrong

            @settings(
                max_examples=examples if with_body else max(1, examples // 20),
                database=None,
                deadline=None,
                derandomize=True,
                phases=[Phase.generate],
                suppress_health_check=list(HealthCheck),
            )
            @given(case=operation.as_strategy(generation_mode=mode))
            def one(case: Case) -> None:
                nonlocal asked
                asked += 1
                response = case.call(base_url=server.url, session=session)
                assert response.status_code < 500, response.content
                if response.status_code >= 400:
                    assert json.loads(response.content)["error"]["type"]

            with requests.Session() as session:
                one()
            with Client(server.url) as client:
                assert client.get("/health").status == 200
    return asked


def test_requests_made_from_the_description_never_make_it_fail(server: HttpServer) -> None:
    assert ask_at_random(server, 20) >= 80


@pytest.mark.slow
def test_ten_thousand_of_them_never_make_it_fail(server: HttpServer) -> None:
    assert ask_at_random(server, 1800) >= 10_000


def deep(levels: int) -> bytes:
    return b'{"query":' + b"[" * levels + b"]" * levels + b"}"


@pytest.mark.parametrize("path", WORK)
@pytest.mark.parametrize(
    "body",
    [
        b"", b"null", b"[]", b"1", b'"x"', b"{", b"}", b"{}", b"\xff\xfe\x00", bytes(range(256)),
        b"\xef\xbb\xbf{}", b'{"query": NaN}', b'{"query": Infinity}', b'{"score": -Infinity}',
        b'{"query": "\\ud800' + MARK.encode() + b'"}', b'{"' + MARK.encode() + b'": 1}',
        b'{"query": "' + MARK.encode() + b'", "query": 2}',
        b'{"query": "\xed\xa0\x80"}', b'{"query": ' + b"9" * 5000 + b"}",
        b'{"score": 1e999999}', b'{"score": ' + b"1" * 400 + b"e99}", deep(100), deep(100_000),
        b"{" + b'"a":{' * 50_000, b'{"query": "' + b"a" * 900_000, b"\0" * 900_000,
        json.dumps({"query": MARK, "options": {MARK: MARK}}).encode(),
        json.dumps({"query": [MARK] * 5000}).encode(),
        json.dumps({"query": MARK, "options": {"models": [MARK]}}).encode(),
        json.dumps({"decision_id": MARK, "score": 1.0}).encode(),
        json.dumps({"decision_id": "dec_" + "0" * 32, "score": 5}).encode(),
        json.dumps({**CHAT, "model": MARK}).encode(),
        json.dumps({**CHAT, "masrouter": {"max_cost_usd": -1, MARK: MARK}}).encode(),
        json.dumps({**CHAT, "max_tokens": 10**12, "temperature": 1e308}).encode(),
        json.dumps({**CHAT, "messages": [{"role": MARK, "content": MARK}]}).encode(),
        json.dumps({**CHAT, "messages": CHAT["messages"] * 300}).encode(),
    ],
    ids=lambda body: f"{len(body)}-{body[:24]!r}" if isinstance(body, bytes) else None,
)  # fmt: skip
def test_a_body_that_means_nothing_is_a_client_s_fault(
    server: HttpServer, path: str, body: bytes
) -> None:
    answer = post(server, path, body)
    check_error(answer.status, answer.body)


@pytest.mark.parametrize("kind", ["", "text/plain", "multipart/form-data; boundary=x", "\x7f"])
def test_another_type_of_content_is_refused(server: HttpServer, kind: str) -> None:
    answer = post(server, "/v1/decision", b'{"query": "x"}', kind)
    check_error(answer.status, answer.body)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/decision", 405),
        ("DELETE", "/v1/models", 405),
        ("TRACE", "/health", 405),
        ("BREW", "/" + MARK, 404),
        ("GET", "/" + MARK, 404),
        ("GET", "/../../etc/passwd", 404),
        ("GET", "/%2e%2e/%2e%2e/etc/passwd", 404),
        ("GET", "/%00%ff%fe", 404),
        ("GET", "//", 404),
        ("GET", "/v1/models/" + MARK, 404),
    ],
)
def test_paths_and_methods_that_are_not_there_are_told_so(
    server: HttpServer, method: str, path: str, status: int
) -> None:
    with Client(server.url) as client:
        client.send(f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
        answer = client.answer()
    assert answer.status == status
    check_error(answer.status, answer.body)


@pytest.mark.parametrize(
    "header",
    [
        b"Authorization: Bearer " + b"\xff" * 100,
        b"x-api-key: \xc3\x28",
        b"x-masrouter-session: \xff\xfe",
        b"x-masrouter-session: " + b"a" * 5000,
        b"Cookie: " + b"a=b; " * 2000,
        b"traceparent: 00-" + b"z" * 100,
        b"Content-Encoding: gzip",
        b"X-Forwarded-For: 1.2.3.4, ::::, " + b"9" * 1000,
    ],
)
def test_strange_headers_break_nothing(server: HttpServer, header: bytes) -> None:
    body = b'{"query": "What is 1 plus 5?"}'
    with Client(server.url) as client:
        client.send(
            b"POST /v1/decision HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
            + header + b"\r\nContent-Length: %d\r\n\r\n" % len(body) + body
        )  # fmt: skip
        answer = client.answer()
    assert answer.status in (200, 400)


def test_random_bytes_never_end_in_silence_or_a_reset(server: HttpServer) -> None:
    draw = random.Random(0)
    parts = [
        b"GET ", b"POST ", b"/v1/decision", b" HTTP/1.1", b"\r\n", b"\r\n\r\n", b"Host: a", b"\0",
        b"Content-Length: 5", b"Transfer-Encoding: chunked", b"0\r\n\r\n", b"5\r\n", b"{}", b"\xff",
    ]  # fmt: skip
    for _ in range(150):
        said = b"".join(draw.choices(parts, k=draw.randint(1, 30)))
        with Client(server.url) as client:
            client.send(said + b"\r\n\r\n\x01\r\n\r\n")
            answer = client.answer()
            assert answer.status < 500
    with Client(server.url) as client:
        assert client.get("/health").status == 200


def test_pipelined_requests_are_answered_in_order(server: HttpServer) -> None:
    def asked(query: Any) -> bytes:
        body = json.dumps({"query": query}).encode()
        return (
            b"POST /v1/decision HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
        )

    with Client(server.url) as client:
        client.send(b"".join(asked(query) for query in ["a", 1, "b", None] * 5))
        assert [client.answer().status for _ in range(20)] == [200, 400] * 10
