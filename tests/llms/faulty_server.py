"""A chat completions endpoint on 127.0.0.1 that answers well, badly, slowly or not at all.

It counts every request, how many are in flight, and every token that such a provider would bill.
A behaviour is a coroutine function of an `Exchange`; `script` says which one each request of a
model meets: the first, the second, ... and the last one from then on.
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

Behaviour = Callable[["Exchange"], Awaitable[None]]
Answerer = Callable[["Received"], str]

PROMPT_TOKENS = 20


@dataclass(frozen=True)
class Received:
    """One request as it arrived."""

    at: float
    """time.monotonic() of its arrival."""
    model: str
    messages: tuple[tuple[str, str], ...]
    """(role, content)."""
    body: Mapping[str, Any]
    headers: Mapping[str, str]
    """Names in lower case."""
    path: str


@dataclass
class Exchange:
    """One request, and the means to answer it in any way."""

    received: Received
    server: FaultyServer
    writer: asyncio.StreamWriter
    nth: int
    """Of this model's requests, from 1."""

    async def respond(
        self,
        status: int,
        body: bytes | str | Mapping[str, Any] | Sequence[Any],
        headers: Mapping[str, str] | None = None,
        content_type: str = "application/json",
    ) -> None:
        """A whole response."""
        raw = body if isinstance(body, bytes) else _encoded(body)
        await self.head(status, {"content-length": str(len(raw)), **(headers or {})}, content_type)
        await self.send(raw)

    async def head(
        self, status: int, headers: Mapping[str, str] | None = None, content_type: str = ""
    ) -> None:
        lines = [f"HTTP/1.1 {status} Status", f"content-type: {content_type}"]
        lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
        await self.send("\r\n".join([*lines, "", ""]))

    async def send(self, data: bytes | str) -> None:
        self.writer.write(data.encode() if isinstance(data, str) else data)
        await self.writer.drain()

    async def events(self, *events: object, end: bool = True) -> None:
        """Server-sent events of a stream whose end is the connection's."""
        for event in events:
            text = event if isinstance(event, str) else json.dumps(event)
            await self.send(f"data: {text}\n\n")
        if end:
            await self.send("data: [DONE]\n\n")
            self.close()

    async def stream_head(self) -> None:
        await self.head(200, {"connection": "close"}, "text/event-stream")

    def close(self) -> None:
        """End the connection in good order."""
        self.writer.close()

    def reset(self) -> None:
        """Break the connection off with a TCP reset."""
        now = struct.pack("ii", 1, 0)
        self.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, now)
        self.writer.transport.abort()

    def bill(self, completion_tokens: int) -> None:
        """Count what a provider bills for this request."""
        self.server.billed_prompt_tokens += PROMPT_TOKENS
        self.server.billed_completion_tokens += completion_tokens

    @property
    def most_tokens(self) -> int:
        body = self.received.body
        return int(body.get("max_tokens", body.get("max_completion_tokens", 0)))


@dataclass
class FaultyServer:
    """Run it in a `with`: a server in a thread of its own, stopped at the end."""

    script: Mapping[str, Sequence[Behaviour]] = field(default_factory=dict)
    """By model; a model that is not named meets `otherwise`."""
    otherwise: Behaviour | None = None
    """None answers well."""
    latency_s: float | Callable[[], float] = 0.0
    """Before each answer begins."""
    gather: int = 0
    """Answer none before so many were in flight at once (10 s at most)."""
    input_usd_per_mtok: float = 1.0
    output_usd_per_mtok: float = 2.0

    calls: list[Received] = field(default_factory=list)
    in_flight: int = 0
    peak: int = 0
    """The most requests that were in flight at once."""
    billed_prompt_tokens: int = 0
    billed_completion_tokens: int = 0

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self._port}/v1"

    @property
    def billed_usd(self) -> float:
        dear = self.billed_completion_tokens * self.output_usd_per_mtok
        return (self.billed_prompt_tokens * self.input_usd_per_mtok + dear) / 1e6

    def __enter__(self) -> Self:
        self._seen: Counter[str] = Counter()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._port = 0
        ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve(ready)))
        self._thread.start()
        assert ready.wait(30)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(30)
        assert not self._thread.is_alive()

    async def _serve(self, ready: threading.Event) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        self._gathered = asyncio.Event()
        server = await asyncio.start_server(self._connected, "127.0.0.1", 0, backlog=512)
        self._port = server.sockets[0].getsockname()[1]
        ready.set()
        await self._stop.wait()
        server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
                while not writer.is_closing():
                    received = await _read_request(reader)
                    self.calls.append(received)
                    self.in_flight += 1
                    self.peak = max(self.peak, self.in_flight)
                    try:
                        await self._answer(received, writer)
                    finally:
                        self.in_flight -= 1
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _answer(self, received: Received, writer: asyncio.StreamWriter) -> None:
        if self.peak >= self.gather:
            self._gathered.set()
        with suppress(TimeoutError):
            await asyncio.wait_for(self._gathered.wait(), 10)
        await asyncio.sleep(self.latency_s() if callable(self.latency_s) else self.latency_s)
        self._seen[received.model] += 1
        nth = self._seen[received.model]
        steps = self.script.get(received.model) or [self.otherwise or answer()]
        behave = steps[min(nth, len(steps)) - 1]
        await behave(Exchange(received, self, writer, nth))


async def _read_request(reader: asyncio.StreamReader) -> Received:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    start, *lines = head.rstrip("\r\n").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (x.partition(":") for x in lines)}
    raw = await reader.readexactly(int(headers.get("content-length", 0)))
    body = json.loads(raw) if raw else {}
    turns = tuple((turn["role"], turn["content"]) for turn in body.get("messages", []))
    path = start.split(" ")[1]
    return Received(time.monotonic(), body.get("model", ""), turns, body, headers, path)


def _encoded(body: object) -> bytes:
    return (body if isinstance(body, str) else json.dumps(body)).encode()


def completion(text: str | None, model: str, **changes: Any) -> dict[str, Any]:
    """A good response's JSON; `changes` are made to it, at the top or in its message."""
    message = {"role": "assistant", "content": text}
    message |= {key: changes.pop(key) for key in ("refusal", "tool_calls") if key in changes}
    tokens = _tokens(text or "")
    usage = {
        "prompt_tokens": PROMPT_TOKENS,
        "completion_tokens": tokens,
        "total_tokens": PROMPT_TOKENS + tokens,
    }
    usage |= changes.pop("more_usage", {})
    finish = changes.pop("finish_reason", "stop")
    data = {
        "id": "1",
        "object": "chat.completion",
        "created": 1,
        "model": model,
        "choices": [{"index": 0, "message": message, "finish_reason": finish}],
        "usage": usage,
    }
    return {key: value for key, value in (data | changes).items() if value != "absent"}


def chunk(text: str | None = None, **changes: Any) -> dict[str, Any]:
    """One chunk of a stream."""
    delta = {} if text is None else {"content": text}
    choice = {"index": 0, "delta": delta, "finish_reason": changes.pop("finish_reason", None)}
    data = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    return {**data, "choices": [choice], **changes}


def _tokens(text: str) -> int:
    return max(1, len(text) // 4) if text else 0


def answer(text: str | Answerer = "the answer", **changes: Any) -> Behaviour:
    """A good answer, streamed where the request asks for it; billed as it says."""

    async def behave(exchange: Exchange) -> None:
        said = text if isinstance(text, str) else text(exchange.received)
        exchange.bill(_tokens(said))
        body = exchange.received.body
        data = completion(said, exchange.received.model, **changes)
        if not body.get("stream"):
            await exchange.respond(200, data)
            return
        await exchange.stream_head()
        await exchange.events(*(chunk(word) for word in _words(said)), end=False)
        await exchange.events(chunk(finish_reason="stop"), end=False)
        if (body.get("stream_options") or {}).get("include_usage"):
            await exchange.events(chunk(choices=[], usage=data.get("usage")), end=False)
        await exchange.events()

    return behave


def _words(text: str) -> list[str]:
    return [word + " " for word in text.split(" ")[:-1]] + [text.split(" ")[-1]]


def status(
    number: int, message: str = "no", headers: Mapping[str, str] | None = None, **error: Any
) -> Behaviour:
    """An error in OpenAI's shape; not billed."""

    async def behave(exchange: Exchange) -> None:
        await exchange.respond(number, {"error": {"message": message, **error}}, headers)

    return behave


def raw(
    body: bytes | str | Mapping[str, Any] | Sequence[Any],
    content_type: str = "application/json",
    code: int = 200,
    headers: Mapping[str, str] | None = None,
) -> Behaviour:
    """Any body; billed in full, as nobody can know."""

    async def behave(exchange: Exchange) -> None:
        exchange.bill(exchange.most_tokens)
        await exchange.respond(code, body, headers, content_type)

    return behave


def streamed(*events: object, end: bool = True, then: str = "close") -> Behaviour:
    """A stream of these events, then [DONE]; or, without `end`: close, reset or stall."""

    async def behave(exchange: Exchange) -> None:
        exchange.bill(exchange.most_tokens)
        await exchange.stream_head()
        await exchange.events(*events, end=end)
        if not end:
            await _then(exchange, then)

    return behave


def cut(then: str = "close", share: float = 0.5) -> Behaviour:
    """A good answer of which only a part arrives: then close, reset or stall. Billed."""

    async def behave(exchange: Exchange) -> None:
        exchange.bill(exchange.most_tokens)
        data = _encoded(completion("the answer", exchange.received.model))
        await exchange.head(200, {"content-length": str(len(data))}, "application/json")
        await exchange.send(data[: int(len(data) * share)])
        await _then(exchange, then)

    return behave


def reset(*, billed: bool = True) -> Behaviour:
    """The connection breaks before a byte of the answer."""

    async def behave(exchange: Exchange) -> None:
        if billed:
            exchange.bill(exchange.most_tokens)
        exchange.reset()

    return behave


def shut() -> Behaviour:
    """The connection is closed in good order, without an answer. Billed."""

    async def behave(exchange: Exchange) -> None:
        exchange.bill(exchange.most_tokens)
        exchange.close()

    return behave


def hang() -> Behaviour:
    """No answer, ever. Billed."""

    async def behave(exchange: Exchange) -> None:
        exchange.bill(exchange.most_tokens)
        await _then(exchange, "stall")

    return behave


def drip(pause_s: float = 0.05) -> Behaviour:
    """A good answer, one byte at a time. Billed."""

    async def behave(exchange: Exchange) -> None:
        exchange.bill(exchange.most_tokens)
        data = _encoded(completion("the answer", exchange.received.model))
        await exchange.head(200, {"content-length": str(len(data))}, "application/json")
        for byte in data:
            await exchange.send(bytes([byte]))
            await asyncio.sleep(pause_s)

    return behave


async def _then(exchange: Exchange, what: str) -> None:
    if what == "stall":
        await asyncio.sleep(60)
    elif what == "reset":
        exchange.reset()
    else:
        exchange.close()
