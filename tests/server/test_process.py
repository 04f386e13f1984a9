"""A server in a process of its own, under load, flooded, and told to stop."""

from __future__ import annotations

import asyncio
import http.client
import json
import signal
import socket
import sqlite3
import time
from pathlib import Path

import pytest
from tests.live_samples import small_checkpoint
from tests.server.child import Child, child
from tests.server.load import Outcome, Request, load
from tests.server.raw_http import Client


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_checkpoint(tmp_path_factory)


def decision(index: int) -> Request:
    return "/v1/decision", json.dumps({"query": f"What is {index} plus {index % 7}?"}).encode()


def chat(index: int) -> Request:
    said = [{"role": "user", "content": f"What is {index} plus {index % 7}?"}]
    return "/v1/chat/completions", json.dumps(
        {"model": "masrouter/auto", "messages": said}
    ).encode()


def check_all_answered(outcome: Outcome, requests: int) -> None:
    assert outcome.broken == []
    assert outcome.refused == 0
    assert outcome.answered == requests
    assert set(outcome.statuses) <= {200, 429}
    assert outcome.statuses[200] > 0
    assert outcome.without_retry_after == 0


def flood(server: Child, megabytes: int) -> int:
    """The status that a client reads which sends all of its body first."""
    piece = bytes(1_000_000)
    connection = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=60)
    connection.putrequest("POST", "/v1/chat/completions")
    connection.putheader("Content-Length", str(megabytes * len(piece)))
    connection.endheaders()
    for _ in range(megabytes):
        connection.send(piece)
    status = connection.getresponse().status
    connection.close()
    return status


def test_a_flood_is_answered_memory_stays_bounded_and_a_signal_loses_no_request(
    folder: Path, tmp_path: Path
) -> None:
    """One process for all of it: to start it is what takes long."""
    records = tmp_path / "served.sqlite"
    options = ("--delay", "0.1", "--records", str(records))
    with child(folder, *options) as server:
        assert server.url.startswith("http://127.0.0.1:")
        before = server.memory_mb("VmHWM")
        assert flood(server, 200) == 413
        assert server.memory_mb("VmHWM") < before + 50
        crowd = asyncio.run(load(server.url, clients=100, requests=5, make=decision))
        check_all_answered(crowd, 500)

        async def stopped_at_work() -> Outcome:
            began = asyncio.create_task(load(server.url, clients=40, requests=1000, make=chat))
            await asyncio.sleep(1)
            server.signal(signal.SIGTERM)
            return await began

        outcome = asyncio.run(stopped_at_work())
        assert server.process.wait(30) == 0
    assert outcome.broken == []
    assert set(outcome.statuses) == {200}
    assert outcome.refused == 40, "each client ends when the port is closed"
    with sqlite3.connect(records) as kept:
        [[runs]] = kept.execute("SELECT count(*) FROM runs")
    assert runs == outcome.answered, "every answer was recorded before the end"


@pytest.mark.slow
def test_a_request_on_a_kept_connection_is_answered_while_the_server_drains(folder: Path) -> None:
    with child(folder, "--delay", "1.5") as server:
        slow, kept = Client(server.url), Client(server.url)
        with slow, kept:
            assert kept.get("/ready").status == 200
            path, body = chat(1)
            head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
            slow.send(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
            time.sleep(0.5)
            server.signal(signal.SIGTERM)
            time.sleep(0.5)
            answer = kept.get("/ready")
            assert (answer.status, answer.code) == (503, "draining")
            assert answer.headers["connection"] == "close"
            assert kept.is_ended()
            assert slow.answer().status == 200
        assert server.process.wait(30) == 0


@pytest.mark.slow
def test_a_second_signal_ends_it_at_once(folder: Path) -> None:
    with child(folder, "--delay", "60") as server, Client(server.url) as client:
        path, body = chat(1)
        head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        client.send(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        time.sleep(0.5)
        server.signal(signal.SIGINT)
        time.sleep(0.5)
        assert server.process.poll() is None
        server.signal(signal.SIGINT)
        assert server.process.wait(2) == 128 + signal.SIGINT


@pytest.mark.slow
@pytest.mark.parametrize("make", [decision, chat], ids=["decision", "chat"])
def test_a_thousand_clients_are_all_answered(folder: Path, make: object) -> None:
    with child(folder) as server:
        outcome = asyncio.run(load(server.url, clients=1000, requests=10, make=make))  # type: ignore[arg-type]
        check_all_answered(outcome, 10_000)


@pytest.mark.slow
def test_floods_from_many_clients_and_slow_ones_leave_memory_bounded(folder: Path) -> None:
    limits = json.dumps({"header_timeout_s": 3, "body_timeout_s": 3})
    with child(folder, "--limits", limits) as server:
        before = server.memory_mb()
        host, _, port = server.url.removeprefix("http://").rpartition(":")
        slow = [socket.create_connection((host, int(port)), timeout=20) for _ in range(1000)]
        for index, one in enumerate(slow):
            head = b"POST /v1/decision HTTP/1.1\r\nHost: a\r\nContent-Length: 900000\r\n\r\n"
            one.sendall(head + bytes(20_000) if index % 2 else head[:30])
        assert flood(server, 200) == 413
        with Client(server.url) as client:
            assert client.get("/health").status == 200
        codes = [one.recv(12)[9:12] for one in slow]
        assert set(codes) == {b"408"}
        for one in slow:
            one.close()
        assert server.memory_mb("VmHWM") < before + 150
