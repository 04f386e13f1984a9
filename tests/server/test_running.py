"""The real server over small apps: connections that misbehave, and its end."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from tests.server.raw_http import Answer, Client, listening, wait_until

from masrouter.errors import ConfigError
from masrouter.server import Limits, ServerSettings, running
from masrouter.server.limits import LimitsMiddleware, Receive, Scope, Send
from masrouter.server.running import HttpServer, serve

CHUNKED = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
QUICK = Limits(header_timeout_s=0.15, body_timeout_s=0.15, max_body_bytes=1000)


class Echo:
    """Answers with the body; `/slow` when told to, `/stream` in pieces without end."""

    def __init__(self) -> None:
        self.door = threading.Event()
        self.slow = 0
        self.states: list[bool] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        body = (await receive())["body"]
        self.states.append(scope["state"].get("draining", False))
        if scope["path"] == "/slow":
            self.slow += 1
            while not self.door.is_set():
                await asyncio.sleep(0.002)
        headers = [(b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})


@pytest.fixture(scope="module")
def quick() -> Iterator[HttpServer]:
    """A server that loses patience quickly."""
    with listening(LimitsMiddleware(Echo(), QUICK), QUICK) as server:
        yield server


def post(body: bytes, path: str = "/", *headers: str) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: a", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def test_connections_are_kept_and_pipelined_requests_answered_in_order(quick: HttpServer) -> None:
    with Client(quick.url) as client:
        client.send(post(b"one") + post(b"two") + post(b"three"))
        assert [client.answer().body for _ in range(3)] == [b"one", b"two", b"three"]
        answer = client.get()
    assert "server" not in answer.headers
    assert "connection" not in answer.headers


def test_a_head_that_does_not_come_ends_in_408(quick: HttpServer) -> None:
    with Client(quick.url) as client:
        answer = client.send(b"GET / HTTP/1.1\r\nHost").answer()
        assert (answer.status, answer.code) == (408, "header_timeout")
        assert answer.headers["connection"] == "close"
        assert client.is_ended()


def test_a_second_head_that_does_not_come_ends_in_408_too(quick: HttpServer) -> None:
    with Client(quick.url) as client:
        client.send(post(b"one") + b"GET / HT")
        assert client.answer().body == b"one"
        assert client.answer().code == "header_timeout"
        assert client.is_ended()


def test_a_head_in_drops_ends_in_408_however_long_it_drips(quick: HttpServer) -> None:
    stop = threading.Event()
    with Client(quick.url) as client:

        def drip() -> None:
            client.send(b"GET / HTTP/1.1\r\n")
            while not stop.wait(0.01):
                client.send(b"x: y\r\n")

        dripping = threading.Thread(target=drip)
        dripping.start()
        answer = client.answer()
        stop.set()
        dripping.join()
    assert answer.code == "header_timeout"


def test_a_connection_without_a_request_is_ended_without_an_answer(quick: HttpServer) -> None:
    with Client(quick.url) as client:
        assert client.is_ended()


def test_an_idle_connection_outlives_the_time_of_a_head(quick: HttpServer) -> None:
    with Client(quick.url) as client:
        assert client.get().status == 200
        time.sleep(QUICK.header_timeout_s * 2)
        assert client.get().status == 200


def test_a_body_that_does_not_come_ends_in_408(quick: HttpServer) -> None:
    with Client(quick.url) as client:
        answer = client.send(post(b"12345")[:-2]).answer()
        assert (answer.status, answer.code) == (408, "body_timeout")
        assert client.is_ended()


@pytest.mark.parametrize(
    ("said", "status"),
    [
        (b"garbage\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(256)), 400),
        (b"\0" * 100 + b"\r\n\r\n", 400),
        (b"GET / HTTX/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\n folded: x\r\nbad header\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", 400),
        (CHUNKED + b"xyz\r\n", 400),
        (CHUNKED + b"5\r\nabc", 408),
        (CHUNKED + b"-5\r\n", 400),
        (CHUNKED + b"ffffffffffffffffffffff\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999\r\n\r\n", 413),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1001\r\n\r\n", 413),
        (b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: a\r\nx: " + b"y" * 300_000, 431),
        (b"GET / HTTP/1.1\r\nHost: a\r\n" + b"x: y\r\n" * 101 + b"\r\n", 431),
    ],
)  # fmt: skip
def test_what_is_no_request_is_told_so_and_the_connection_ends(
    quick: HttpServer, said: bytes, status: int
) -> None:
    with Client(quick.url) as client:
        answer = client.send(said).answer()
        assert answer.status == status
        assert answer.headers["connection"] == "close"
        assert answer.headers["content-type"] == "application/json"
        assert answer.code
        assert client.is_ended()


def test_trailers_without_end_are_cut_off(quick: HttpServer) -> None:
    with Client(quick.url) as client:
        client.send(CHUNKED + b"0\r\n")
        answer = client.send(b"x: y\r\n" * 4000).answer()
        assert answer.status == 431
        assert client.is_ended()


def test_an_offer_of_another_protocol_is_passed_over(quick: HttpServer) -> None:
    """As Java's HTTP client makes it, with a body."""
    headers = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABk")
    with Client(quick.url) as client:
        assert client.send(post(b"body", "/", *headers)).answer().body == b"body"
        assert client.get().status == 200


@pytest.mark.parametrize("declared", [True, False], ids=["content-length", "chunked"])
def test_a_client_that_sends_20_megabytes_first_can_read_why_not(
    quick: HttpServer, declared: bool
) -> None:
    piece = b"x" * 100_000
    with Client(quick.url) as client:
        if declared:
            client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 20000000\r\n\r\n")
        else:
            client.send(CHUNKED + b"")
            piece = b"186a0\r\n" + piece + b"\r\n"
        for _ in range(200):
            client.send(piece)
        answer = client.answer()
        assert (answer.status, answer.code) == (413, "body_too_large")
        assert client.is_ended()


def test_who_asks_before_it_sends_is_told_before_it_sends(quick: HttpServer) -> None:
    expect = b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n"
    with Client(quick.url) as client:
        assert client.send(expect % 5000).answer().status == 413
    with Client(quick.url) as client:
        assert client.send(expect % 4).interim().startswith(b"HTTP/1.1 100")
        assert client.send(b"body").answer().body == b"body"


def test_more_connections_than_allowed_wait_and_an_idle_one_makes_place() -> None:
    limits = Limits(max_connections=2, max_concurrent=8)
    app = Echo()
    with listening(LimitsMiddleware(app, limits), limits) as server, ExitStack() as stack:
        slow, idle = (stack.enter_context(Client(server.url)) for _ in range(2))
        slow.send(post(b"slow", "/slow"))
        assert idle.get().status == 200
        third = stack.enter_context(Client(server.url)).send(post(b"third", "/slow"))
        wait_until(lambda: app.slow == 2)
        assert idle.is_ended()
        fourth = stack.enter_context(Client(server.url)).send(post(b"fourth"))
        time.sleep(0.1)
        assert len(app.states) == 3, "there is room for two connections"
        app.door.set()
        assert (slow.answer().body, third.answer().body) == (b"slow", b"third")
        assert fourth.answer().body == b"fourth"


def test_a_draining_server_answers_what_it_accepted_and_ends() -> None:
    app = Echo()
    with listening(app) as server, ExitStack() as stack:
        slow, kept, fresh = (stack.enter_context(Client(server.url)) for _ in range(3))
        assert kept.get().status == 200
        slow.send(post(b"slow", "/slow"))
        wait_until(lambda: app.slow == 1)
        server.stop()
        wait_until(lambda: server.draining)
        late = stack.enter_context(Client(server.url))
        answers: list[Answer] = [one.send(post(b"late")).answer() for one in (kept, fresh, late)]
        assert [(one.status, one.body) for one in answers] == [(200, b"late")] * 3
        assert app.states == [False, False, True, True, True]
        app.door.set()
        answers.append(slow.answer())
        assert answers[-1].body == b"slow"
        assert {one.headers["connection"] for one in answers} == {"close"}
        assert all(client.is_ended() for client in (slow, kept, fresh, late))
        url = server.url
    with pytest.raises(ConnectionRefusedError):
        Client(url)


def test_after_the_port_is_closed_a_kept_connection_is_still_answered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(running, "NOTICE_S", 0.0)
    monkeypatch.setattr(running, "IDLE_S", 10.0)  # a refusal takes its second
    with listening(Echo()) as server, Client(server.url) as kept:
        assert kept.get().status == 200
        server.stop()
        wait_until(lambda: server.draining and not can_connect(server.url))
        time.sleep(0.2)
        answer = kept.get()
        assert (answer.status, answer.headers["connection"]) == (200, "close")
        assert kept.is_ended()


def test_who_waits_in_the_backlog_when_the_port_is_closed_is_answered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(running, "NOTICE_S", 0.0)
    app, limits = Echo(), Limits(max_connections=1)
    with listening(app, limits) as server, ExitStack() as stack:
        slow, waits = (stack.enter_context(Client(server.url)) for _ in range(2))
        slow.send(post(b"slow", "/slow"))
        wait_until(lambda: app.slow == 1)
        waits.send(post(b"waits"))
        server.stop()
        assert waits.answer().body == b"waits"
        app.door.set()
        assert slow.answer().body == b"slow"


def can_connect(url: str) -> bool:
    try:
        Client(url).__exit__()
    except ConnectionRefusedError:
        return False
    return True


def test_what_is_not_done_in_time_is_told_so_at_the_end() -> None:
    app, limits = Echo(), Limits(drain_s=0.2)
    with listening(LimitsMiddleware(app, limits), limits) as server, Client(server.url) as client:
        client.send(post(b"slow", "/slow"))
        wait_until(lambda: app.slow == 1)
        server.stop()
        answer = client.answer()
    assert (answer.status, answer.code) == (503, "shutting_down")
    assert answer.headers["retry-after"] == "1"


def test_the_app_s_own_end_comes_after_the_last_answer() -> None:
    order = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            order.append("closed")
            await send({"type": "lifespan.shutdown.complete"})
            return
        await asyncio.sleep(0.1)
        order.append("answered")
        await send({"type": "http.response.start", "status": 200,
                    "headers": [(b"content-length", b"0")]})  # fmt: skip
        await send({"type": "http.response.body"})

    with listening(app) as server, Client(server.url) as client:
        client.send(post(b""))
        wait_until(lambda: len(server.server_state.tasks) == 1)
        server.stop()
        assert client.answer().status == 200
    assert order == ["answered", "closed"]


def test_a_port_that_is_taken_and_an_app_that_does_not_start_are_told() -> None:
    async def broken(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no"})

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"127.0.0.1:{port}: cannot listen there"):
            serve(Echo(), ServerSettings(port=port))
    with pytest.raises(ConfigError, match="did not start"):
        serve(broken, ServerSettings(port=0))
