"""What the server's tests share: questions, in-process requests, and a real server on a port."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import httpx
import uvicorn
from fastapi import FastAPI

from masrouter.llms.simulated import SimulatedTask
from masrouter.server import Service, create_app

LOCAL = "http://127.0.0.1:8484"
"""Where in-process clients believe the server to be."""

T = TypeVar("T")
MakeService = Callable[..., Service]
"""The fixture `make_service`."""


def sums(count: int = 40) -> list[SimulatedTask]:
    """Questions that the simulated provider of these tests knows."""
    return [
        SimulatedTask(
            query=f"What is {i} plus {2 * i + 3}?",
            domain="math",
            difficulty=2.0,
            right=f"The answer is {3 * i + 3}.",
            wrong=(f"The answer is {3 * i + 4}.", f"The answer is {3 * i + 13}."),
        )
        for i in range(count)
    ]


def ask(service: Service, work: Callable[[httpx.AsyncClient], Awaitable[T]], **headers: str) -> T:
    """What `work` makes of an in-process client of the service's app; the loop ends with it."""

    async def main() -> T:
        transport = httpx.ASGITransport(app=create_app(service), raise_app_exceptions=False)
        async with httpx.AsyncClient(
            transport=transport, base_url=LOCAL, headers=headers, timeout=30
        ) as client:
            return await work(client)

    return asyncio.run(main())


def post(service: Service, path: str, json: Any, **headers: str) -> httpx.Response:
    """One POST to the service's app, in process."""
    return ask(service, lambda client: client.post(path, json=json), **headers)


@dataclass(frozen=True)
class RunningServer:
    """A server on a free port of 127.0.0.1."""

    base_url: str
    service: Service


@contextlib.contextmanager
def running(service: Service, **options: Any) -> Iterator[RunningServer]:
    """The service's app behind a real uvicorn in a thread; options are `uvicorn.Config`'s."""
    with by_uvicorn(create_app(service), **options) as url:
        yield RunningServer(url, service)


@contextlib.contextmanager
def by_uvicorn(app: FastAPI, **options: Any) -> Iterator[str]:
    """Any app on a free port of this machine, in a thread; gives its address."""
    config = uvicorn.Config(app, host="127.0.0.1", port=0, log_level="warning", **options)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        until = time.monotonic() + 30
        while not server.started:
            assert thread.is_alive(), "the server ended at its start"
            assert time.monotonic() < until, "the server did not start"
            time.sleep(0.005)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(30)
        assert not thread.is_alive(), "the server did not stop"
