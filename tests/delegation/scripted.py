"""A chat model for tests of delegation: it says what it is told to, and writes down what it met.

    ScriptedModel({"small": "4", "big": lambda request: "42", "down": DOWN})

A reply is a text, a whole Completion (with tool calls, say), an exception to raise, or a function
of the request that gives or awaits one of these; a list is gone through call by call, and its last
one stays.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from masrouter.errors import CallError
from masrouter.llms.chat import ChatRequest, Completion, Meter, Price
from masrouter.types import Usage

Said = str | Completion | Exception
Reply = Said | Callable[[ChatRequest], Said | Awaitable[Said]]

PRICE = Price(1.0, 2.0, "test")
PROMPT_TOKENS = 20

DOWN = CallError("the provider is down", kind="connection", model="down", attempts=1)


@dataclass
class ScriptedModel:
    """A ChatModel. Names that have no reply are unknown models."""

    replies: Mapping[str, Reply | Sequence[Reply]]
    """By model name."""
    prices: Mapping[str, Price | None] = field(default_factory=dict)
    """Other models cost `PRICE`; None is unknown."""
    delays_s: Mapping[str, float] = field(default_factory=dict)
    """Before a model answers."""
    calls_itself: Mapping[str, str] = field(default_factory=dict)
    """Under which name a model answers, where that is not the one it was asked by."""
    gather: int = 0
    """Answer none before so many calls were in flight at once (10 s at most)."""

    requests: list[ChatRequest] = field(default_factory=list)
    """In the order in which they came."""
    in_flight: int = 0
    peak: int = 0
    """The most calls that were in flight at once."""
    cancelled: int = 0
    billed_usd: float = 0.0
    """What a provider would bill for all answers."""

    @property
    def models(self) -> tuple[str, ...]:
        """What may be asked."""
        return tuple(self.replies)

    def price(self, model: str) -> Price | None:
        """See ChatModel."""
        return self.prices.get(model, PRICE) if model in self.replies else None

    def requests_of(self, model: str) -> list[ChatRequest]:
        """The requests to one model."""
        return [request for request in self.requests if request.model == model]

    async def complete(
        self,
        request: ChatRequest,
        *,
        timeout_s: float | None = None,
        meter: Meter | None = None,
        on_text: Callable[[str], None] | None = None,
    ) -> Completion:
        """See ChatModel."""
        if request.model not in self.replies:
            raise CallError("no such model", kind="unknown_model", model=request.model)
        if meter is not None:
            meter.reserve()
        usage: Usage | None = None
        free = False
        self.requests.append(request)
        self.in_flight += 1
        self.peak = max(self.peak, self.in_flight)
        try:
            await self._in_time(request.model, timeout_s)
            said = await self._said(request)
            if isinstance(said, Exception):
                free = isinstance(said, CallError) and said.kind in ("connection", "rate_limited")
                raise said
            usage = said.usage
            if usage.cost_usd is not None:
                self.billed_usd += usage.cost_usd
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.in_flight -= 1
            if meter is not None:
                meter.release() if free else meter.settle(usage)
        if on_text is not None:
            on_text(said.text)
        return said

    async def _in_time(self, model: str, timeout_s: float | None) -> None:
        try:
            async with asyncio.timeout(timeout_s):
                until = asyncio.get_running_loop().time() + 10
                while self.peak < self.gather and asyncio.get_running_loop().time() < until:
                    await asyncio.sleep(0.001)
                await asyncio.sleep(self.delays_s.get(model, 0.0))
        except TimeoutError:
            raise CallError("too late", kind="timeout", model=model, attempts=1) from None

    async def _said(self, request: ChatRequest) -> Completion | Exception:
        replies = self.replies[request.model]
        reply: Reply
        if isinstance(replies, Sequence) and not isinstance(replies, str):
            nth = Counter(past.model for past in self.requests)[request.model]
            reply = replies[min(nth, len(replies)) - 1]
        else:
            reply = replies
        given = reply(request) if callable(reply) else reply
        said = await given if isinstance(given, Awaitable) else given
        if isinstance(said, Exception):
            return said
        if isinstance(said, str):
            said = Completion(said, Usage(), self.calls_itself.get(request.model, request.model))
        return said if said.usage != Usage() else replace(said, usage=self._usage(request, said))

    def _usage(self, request: ChatRequest, said: Completion) -> Usage:
        tokens = max(1, len(said.text) // 4)
        price = self.price(request.model)
        cost = None if price is None else price.cost_usd(PROMPT_TOKENS, tokens)
        return Usage(PROMPT_TOKENS, tokens, cost)
