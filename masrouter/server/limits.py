"""What a request may take of the server before any handler sees it: pure ASGI, all of it bounded.

    head (431) ──► body (413, 408) ──► a slot, or a place in the queue (429) ──► the app (504)

Work (POST to /v1/...) and the rest (pages, health, metrics) have slots of their own, so that a
server busy with work still says how it is. A body is read whole before its request may wait, so
that a slow sender holds no slot; the bytes of all bodies together are bounded too. A slot is held
until the last byte of the answer, streams included, and is free at once when the client leaves:
that cancels the request. Not here: what only the connection can see, as slow or endless heads
(`connection`); what is wrong inside a body (`request_body`).
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any, Protocol

from masrouter.server.api_errors import ApiError
from masrouter.server.settings import Limits

Scope = MutableMapping[str, Any]
Event = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Event]]
Send = Callable[[Event], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

MAX_HEADERS = 100
_CLOSE = {"connection": "close"}


class RequestMeter(Protocol):
    """Who counts requests; `telemetry.Telemetry` is one."""

    def request(self, scope: Scope, status: int | None, seconds: float) -> None:
        """One is over. status: None where the client left before it was answered."""

    def watch_gate(self, name: str, gate: Gate) -> None:
        """Where running and waiting requests can be read from."""


class Gate:
    """Lets so many in at once; so many more wait, first come, first served; others are refused."""

    def __init__(self, *, most_running: int, most_waiting: int, timeout_s: float) -> None:
        self.running = 0
        self._most_running = most_running
        self._most_waiting = most_waiting
        self._timeout_s = timeout_s
        self._queue: dict[asyncio.Future[None], None] = {}

    @property
    def waiting(self) -> int:
        """Requests in the queue."""
        return len(self._queue)

    async def enter(self) -> bool:
        """True once inside, which `leave` ends; False where the queue is full or took too long."""
        if self.running < self._most_running:  # then nobody waits
            self.running += 1
            return True
        if len(self._queue) >= self._most_waiting:
            return False
        turn = asyncio.get_running_loop().create_future()
        self._queue[turn] = None
        try:
            async with asyncio.timeout(self._timeout_s):
                await turn
        except BaseException as error:
            if turn.done() and not turn.cancelled():
                self.leave()  # its turn came at the very moment it gave up
            self._queue.pop(turn, None)
            if isinstance(error, TimeoutError):
                return False
            raise
        return True

    def leave(self) -> None:
        """Give the slot to who waits longest, if anybody does."""
        while self._queue:
            turn = next(iter(self._queue))
            del self._queue[turn]
            if not turn.done():
                turn.set_result(None)
                return
        self.running -= 1


class LimitsMiddleware:
    """Holds `Limits` for the app behind it, and tells `meter` of every request."""

    def __init__(self, app: App, limits: Limits, meter: RequestMeter | None = None) -> None:
        self._app = app
        self._limits = limits
        self._meter = meter
        self._held_bytes = 0
        """Of all bodies that were read and whose requests are not over."""
        self._most_held_bytes = limits.max_body_bytes * limits.max_concurrent
        self._work = Gate(
            most_running=limits.max_concurrent,
            most_waiting=limits.max_queued,
            timeout_s=limits.queue_timeout_s,
        )
        # Nothing of the rest takes long, and no more can come than there are connections.
        self._rest = Gate(
            most_running=limits.max_concurrent,
            most_waiting=limits.max_connections,
            timeout_s=limits.queue_timeout_s,
        )
        if meter is not None:
            meter.watch_gate("work", self._work)
            meter.watch_gate("rest", self._rest)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        if scope["type"] != "http":
            return  # a WebSocket: none is served
        started = time.perf_counter()
        answer = _Answer(send)
        try:
            await self._answer(scope, receive, answer)
        except Exception:
            answer.status = 500 if answer.status is None else answer.status
            raise
        finally:
            if self._meter is not None:
                self._meter.request(scope, answer.status, time.perf_counter() - started)

    async def _answer(self, scope: Scope, receive: Receive, answer: _Answer) -> None:
        body = _Body()
        try:
            self._check_head(scope)
            await self._read(scope, receive, body)
            await self._work_on(scope, receive, answer, body)
        except ApiError as refusal:
            await answer.refuse(refusal)
        except _ClientLeftError:
            pass  # nobody is there to be answered
        finally:
            self._held_bytes -= body.size

    def _check_head(self, scope: Scope) -> None:
        headers, most = scope["headers"], self._limits.max_header_bytes
        size = len(scope.get("raw_path") or b"") + len(scope.get("query_string", b""))
        size += sum(len(name) + len(value) + 4 for name, value in headers)
        if size > most or len(headers) > MAX_HEADERS:
            raise ApiError(
                431,
                f"the head of a request may have {most} bytes and {MAX_HEADERS} headers",
                code="headers_too_large",
                headers=_CLOSE,
            )
        declared = next((value for name, value in headers if name == b"content-length"), b"0")
        if not declared.isdigit() or len(declared) > 20:
            raise ApiError(400, "content-length is no number", code="invalid", headers=_CLOSE)
        if int(declared) > self._limits.max_body_bytes:
            raise self._too_large()

    async def _read(self, scope: Scope, receive: Receive, body: _Body) -> None:
        """All of the body, within the limits of bytes and time."""
        try:
            async with asyncio.timeout(self._limits.body_timeout_s):
                more = True
                while more:
                    event = await receive()
                    if event["type"] != "http.request":
                        raise _ClientLeftError
                    part = event.get("body", b"")
                    body.parts.append(part)
                    body.size += len(part)
                    self._held_bytes += len(part)
                    if body.size > self._limits.max_body_bytes:
                        raise self._too_large()
                    if self._held_bytes > self._most_held_bytes:
                        raise self._overloaded(close=True)
                    more = event.get("more_body", False)
        except TimeoutError:
            raise ApiError(
                408,
                f"the body did not arrive within {self._limits.body_timeout_s:g} s",
                code="body_timeout",
                headers=_CLOSE,
            ) from None

    async def _work_on(self, scope: Scope, receive: Receive, answer: _Answer, body: _Body) -> None:
        """Wait for a slot and run the app, as long as the client is there."""
        work = asyncio.create_task(self._admitted(scope, answer, body))
        gone = asyncio.create_task(_until_gone(receive))
        try:
            await asyncio.wait((work, gone), return_when=asyncio.FIRST_COMPLETED)
            # Servers report a client as gone after the answer too; then what runs is its epilogue.
            left = not work.done() and not answer.complete.is_set()
            if left:
                work.cancel()
                await asyncio.wait((work,))
            if left and work.cancelled():
                raise _ClientLeftError
            await work
        finally:
            gone.cancel()
            if not work.done():  # this task itself is cancelled: the server stops
                work.cancel()
                await asyncio.wait((work,))

    async def _admitted(self, scope: Scope, answer: _Answer, body: _Body) -> None:
        is_work = scope["method"] == "POST" and scope["path"].startswith("/v1/")
        gate = self._work if is_work else self._rest
        if not await gate.enter():
            raise self._overloaded()
        limit = asyncio.timeout(self._limits.request_timeout_s)
        try:
            async with limit:
                await self._app(scope, _replayed(b"".join(body.parts), answer), answer.send)
        except TimeoutError:
            if not limit.expired():
                raise
            raise ApiError(
                504,
                f"the request took longer than {self._limits.request_timeout_s:g} s",
                type="server_error",
                code="request_timeout",
            ) from None
        finally:
            gate.leave()

    def _too_large(self) -> ApiError:
        return ApiError(
            413,
            f"a body may have {self._limits.max_body_bytes} bytes",
            code="body_too_large",
            headers=_CLOSE,
        )

    def _overloaded(self, *, close: bool = False) -> ApiError:
        wait = self._limits.retry_after_s
        return ApiError(
            429,
            f"the server has as many requests as it takes; ask again after {wait} s",
            type="rate_limit_exceeded",
            code="overloaded",
            headers={"retry-after": str(wait), **(_CLOSE if close else {})},
        )


class _ClientLeftError(Exception):
    """The client closed the connection."""


@dataclass(slots=True)
class _Body:
    """What has arrived of a request's body."""

    parts: list[bytes]
    size: int

    def __init__(self) -> None:
        self.parts, self.size = [], 0


class _Answer:
    """The way to the client, remembering how far the answer got."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.status: int | None = None
        self.complete = asyncio.Event()

    async def send(self, event: Event) -> None:
        if event["type"] == "http.response.start":
            self.status = event["status"]
        await self._send(event)
        if event["type"] == "http.response.body" and not event.get("more_body", False):
            self.complete.set()

    async def refuse(self, refusal: ApiError) -> None:
        """Answer with an error; a stream that began before can only be cut off."""
        if self.status is not None:
            return
        await send_error(refusal, self.send)


async def send_error(error: ApiError, send: Send) -> None:
    """An error as the two events of an ASGI answer."""
    body = json.dumps(error.to_json()).encode()
    headers = {
        "content-type": "application/json",
        "content-length": str(len(body)),
        **error.headers,
    }
    await send(
        {
            "type": "http.response.start",
            "status": error.status,
            "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
        }
    )
    await send({"type": "http.response.body", "body": body})


def _replayed(body: bytes, answer: _Answer) -> Receive:
    """The body in one piece; then nothing until the answer is complete.

    A client that leaves is no event to the app: it is cancelled instead, at one place.
    """
    events = iter(({"type": "http.request", "body": body, "more_body": False},))

    async def receive() -> Event:
        event = next(events, None)
        if event is None:
            await answer.complete.wait()
            return {"type": "http.disconnect"}
        return event

    return receive


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
