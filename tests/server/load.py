"""Clients by the hundred, in one event loop: what became of every request, and how long it took."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

Request = tuple[str, bytes]
"""Path and JSON body of a POST."""


@dataclass
class Outcome:
    """What many clients met."""

    statuses: Counter[int] = field(default_factory=Counter)
    broken: list[str] = field(default_factory=list)
    """Requests that were sent, in part or whole, and had no whole answer."""
    refused: int = 0
    """Connections that were not accepted: nothing was sent on them."""
    without_retry_after: int = 0
    """429s that do not say when to come back."""
    seconds: list[float] = field(default_factory=list)
    """Of answers that were 200."""
    elapsed_s: float = 0.0

    @property
    def answered(self) -> int:
        return self.statuses.total()

    def quantile(self, share: float) -> float:
        """Seconds of the answers that were 200."""
        ordered = sorted(self.seconds)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


class _Client:
    def __init__(self, host: str, port: int, outcome: Outcome) -> None:
        self._host, self._port, self._outcome = host, port, outcome
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def ask(self, request: Request) -> tuple[int, Mapping[str, str]] | None:
        """Status and headers; None where the port is closed. Raises OSError, EOFError."""
        if self._writer is None or self._reader is None:
            try:
                self._reader, self._writer = await asyncio.open_connection(self._host, self._port)
            except ConnectionRefusedError:
                self._outcome.refused += 1
                return None
        path, body = request
        head = (
            f"POST {path} HTTP/1.1\r\nHost: {self._host}:{self._port}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        self._writer.write(head.encode() + body)
        await self._writer.drain()
        first, *lines = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        pairs = (line.partition(":") for line in lines)
        headers = {name.lower(): value.strip() for name, _, value in pairs if name}
        await self._reader.readexactly(int(headers["content-length"]))
        if headers.get("connection", "").lower() == "close":
            await self.close()
        return int(first.split()[1]), headers

    async def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
        self._reader = self._writer = None


async def load(
    url: str,
    *,
    clients: int,
    requests: int,
    make: Callable[[int], Request],
    patient: bool = False,
    until: Callable[[], bool] | None = None,
) -> Outcome:
    """Every client sends its requests one after another on a connection that it keeps.

    make: the n-th request. patient: ask again after a 429, when it says so. until: stop when true.
    """
    host, _, port = url.removeprefix("http://").rpartition(":")
    outcome = Outcome()

    async def one(number: int) -> None:
        client = _Client(host, int(port), outcome)
        for index in range(requests):
            if until is not None and until():
                break
            request = make(number * requests + index)
            while True:
                began = time.perf_counter()
                try:
                    answer = await client.ask(request)
                except (OSError, EOFError, asyncio.IncompleteReadError) as error:
                    outcome.broken.append(f"{type(error).__name__}: {error}")
                    await client.close()
                    break
                if answer is None:
                    return
                status, headers = answer
                outcome.statuses[status] += 1
                if status == 200:
                    outcome.seconds.append(time.perf_counter() - began)
                if status == 429 and "retry-after" not in headers:
                    outcome.without_retry_after += 1
                if status != 429 or not patient:
                    break
                await asyncio.sleep(float(headers["retry-after"]) * (1 + number / clients))
        await client.close()

    began = time.perf_counter()
    await asyncio.gather(*(one(number) for number in range(clients)))
    outcome.elapsed_s = time.perf_counter() - began
    return outcome
