"""A provider's rate limit, kept on this side: requests and tokens per minute, calls at once.

Buckets refill steadily and hold ten seconds' worth. Who comes first is served first: a call takes
its share at once and then sleeps until the share has really flowed in. The buckets are shared by
all threads and event loops that use the provider; the number of calls at once is per event loop.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from masrouter.errors import ConfigError
from masrouter.llms.failures import Failure
from masrouter.llms.per_loop import PerLoop

BURST_S = 10.0
"""Seconds of flow that a bucket holds when it is full."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RateLimit:
    """What a provider allows; None is no limit."""

    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None
    """Prompt and completion; before a call they are estimated (4 bytes a token, and all of
    `max_tokens`), and corrected by what the response says."""
    max_concurrency: int | None = None

    def __post_init__(self) -> None:
        for name in ("requests_per_minute", "tokens_per_minute", "max_concurrency"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ConfigError(f"rate limit: {name}: expected a number above 0, got {value!r}")
        calls = self.max_concurrency
        if calls is not None and not isinstance(calls, int):
            raise ConfigError(
                f"rate limit: max_concurrency: expected a whole number, got {calls!r}"
            )


class TokenBucket:
    """A bucket that refills at a steady rate and may be overdrawn; never blocks."""

    def __init__(self, per_minute: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate = per_minute / 60
        self._size = max(1.0, self._rate * BURST_S)
        self._level = self._size
        self._clock = clock
        self._at = clock()
        self._lock = threading.Lock()

    def take(self, amount: float, patience_s: float) -> float | None:
        """Take `amount`; the seconds to wait before using it.

        None where that is longer than `patience_s`: then nothing was taken. An amount larger than
        the bucket waits for a full one and leaves a debt to whoever comes next.
        """
        with self._lock:
            now = self._clock()
            self._level = min(self._size, self._level + (now - self._at) * self._rate)
            self._at = now
            wait = max(0.0, (min(amount, self._size) - self._level) / self._rate)
            if wait > patience_s:
                return None
            self._level -= amount
            return wait

    def give_back(self, amount: float) -> None:
        """What was taken and not used; a negative amount was used beyond what was taken."""
        with self._lock:
            self._level += amount


@dataclass(slots=True)
class Grant:
    """Leave to send one attempt."""

    estimate: float
    """Tokens that were taken for it."""
    used: float = 0
    """What it really used, to be set once it is sent; the rest is given back."""


class Limiter:
    """Keeps one provider's rate limit."""

    def __init__(self, limit: RateLimit | None) -> None:
        self._limit = limit or RateLimit()
        self._requests = _bucket(self._limit.requests_per_minute)
        self._tokens = _bucket(self._limit.tokens_per_minute)
        self._slots = PerLoop(self._new_slots)

    @asynccontextmanager
    async def grant(self, tokens: int, deadline: float) -> AsyncIterator[Grant]:
        """Wait for leave to send an attempt of about `tokens` tokens.

        deadline: on the running loop's clock. Raises Failure where leave would come too late.
        """
        slots = self._slots.get()
        if slots is None:
            async with self._flow(tokens, deadline) as grant:
                yield grant
            return
        try:
            async with asyncio.timeout_at(deadline):
                await slots.acquire()
        except TimeoutError:
            why = f"waited in vain for one of {self._limit.max_concurrency} concurrent calls"
            raise Failure("timeout", f"{why}; nothing was sent") from None
        try:
            async with self._flow(tokens, deadline) as grant:
                yield grant
        finally:
            slots.release()

    @asynccontextmanager
    async def _flow(self, tokens: int, deadline: float) -> AsyncIterator[Grant]:
        grant = Grant(tokens)
        await self._take(self._requests, 1, deadline, "requests")
        try:
            await self._take(self._tokens, tokens, deadline, "tokens")
        except BaseException:
            if self._requests:
                self._requests.give_back(1)  # nothing is sent
            raise
        try:
            yield grant
        finally:
            if self._tokens:
                self._tokens.give_back(tokens - grant.used)

    async def _take(
        self, bucket: TokenBucket | None, amount: int, deadline: float, unit: str
    ) -> None:
        if bucket is None:
            return
        wait = bucket.take(amount, deadline - asyncio.get_running_loop().time())
        if wait is None:
            limit = getattr(self._limit, f"{unit}_per_minute")
            why = f"the limit of {limit:g} {unit} a minute leaves no room before the deadline"
            raise Failure("rate_limited", f"{why}; nothing was sent")
        if wait > 0:
            try:
                await asyncio.sleep(wait)
            except BaseException:
                bucket.give_back(amount)
                raise

    def _new_slots(self) -> asyncio.Semaphore | None:
        most = self._limit.max_concurrency
        return None if most is None else asyncio.Semaphore(most)


def _bucket(per_minute: float | None) -> TokenBucket | None:
    return None if per_minute is None else TokenBucket(per_minute)
