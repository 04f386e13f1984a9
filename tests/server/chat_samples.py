"""A chat model that says what a test wants, at the pace that a test wants."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx

from masrouter.errors import CallError
from masrouter.llms.chat import ChatRequest, Completion, Meter, Price
from masrouter.server.keys import KeyEntry, key_digest
from masrouter.types import Agent, Plan, Usage

IO = Plan("io", (Agent(None, "gpt-4o-mini"),))
COT = Plan("cot", (Agent(None, "gpt-4o-mini"),))
CHAIN = Plan("chain", (Agent("planner", "gpt-4o-mini"), Agent("assistant", "gpt-4o")))
SAMPLES = Plan("self_consistency", (Agent(None, "gpt-4o-mini"),) * 3)
SPLIT = Plan("orchestrate", (Agent("assistant", "gpt-4o"), Agent("assistant", "gpt-4o-mini")))
PAIR = Plan("chain", (Agent("assistant", "gpt-4o-mini"), Agent("assistant", "gpt-4o")))
PLANS: Mapping[str, Plan] = {
    "io": IO, "cot": COT, "chain": CHAIN, "pair": PAIR, "samples": SAMPLES, "split": SPLIT,
}  # fmt: skip

PROMPT_TOKENS, COMPLETION_TOKENS = 20, 10
BILLED = Usage(PROMPT_TOKENS, COMPLETION_TOKENS)
PRICE = Price(1.0, 2.0, "test")
COST_USD = (PROMPT_TOKENS * 1.0 + COMPLETION_TOKENS * 2.0) / 1e6
"""Of one call."""

Says = Callable[[ChatRequest], Iterable[str | threading.Event]]


@dataclass
class Spoken:
    """A ChatModel. `says` gives the pieces of a reply, or raises what the call fails with; an event
    among them is waited for."""

    says: Says = lambda request: ["the ", "answer"]
    price_of: Callable[[str], Price | None] = lambda model: PRICE
    finish_reason: str = "stop"
    usage: Usage = BILLED
    asked: list[ChatRequest] = field(default_factory=list)
    cancelled: int = 0

    def price(self, model: str) -> Price | None:
        return self.price_of(model)

    async def complete(
        self,
        request: ChatRequest,
        *,
        timeout_s: float | None = None,
        meter: Meter | None = None,
        on_text: Callable[[str], None] | None = None,
    ) -> Completion:
        assert meter is not None
        meter.reserve()
        self.asked.append(request)
        said: list[str] = []
        try:
            await asyncio.sleep(0)
            for piece in self.says(request):
                if isinstance(piece, threading.Event):
                    while not piece.is_set():
                        await asyncio.sleep(0.002)
                    continue
                said.append(piece)
                if on_text is not None:
                    on_text(piece)
                await asyncio.sleep(0)
        except asyncio.CancelledError:
            self.cancelled += 1
            meter.settle(None)
            raise
        except CallError:
            meter.release()
            raise
        meter.settle(self.usage)
        return Completion(
            "".join(said), self.usage, model=request.model, finish_reason=self.finish_reason
        )


def failing(kind: str = "server_error", *first: str) -> Says:
    """Fails, after these pieces."""

    def says(request: ChatRequest) -> Any:
        yield from first
        raise CallError("a secret of the provider", kind=kind, model=request.model)  # type: ignore[arg-type]

    return says


def chat(text: str = "What is 1 plus 5?", **more: Any) -> dict[str, Any]:
    """A request's body."""
    return {
        "model": "masrouter/auto",
        "messages": [{"role": "user", "content": text}],
        **more,
    }


def events_of(response: httpx.Response) -> list[dict[str, Any]]:
    """The chunks of a whole stream, which must end as it should."""
    assert response.headers["content-type"].startswith("text/event-stream")
    lines = [line for line in response.text.split("\n\n") if line and not line.startswith(":")]
    assert all(line.startswith("data: ") for line in lines)
    data = [line.removeprefix("data: ") for line in lines]
    if data[-1] != "[DONE]":
        assert "error" in json.loads(data[-1])
        return [json.loads(one) for one in data]
    return [json.loads(one) for one in data[:-1]]


def text_of(chunks: Sequence[Mapping[str, Any]]) -> str:
    """The answer that chunks make."""
    return "".join(
        choice["delta"].get("content", "")
        for chunk in chunks
        for choice in chunk.get("choices", [])
    )


def told_of(chunks: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The events that chunks tell."""
    told = [chunk["masrouter"] for chunk in chunks if "masrouter" in chunk]
    return [one for one in told if "event" in one]


KEYS = (
    KeyEntry("ann", key_digest("key-of-ann"), budget_usd=0.001),
    KeyEntry("bob", key_digest("key-of-bob"), budget_usd=None),
)


def key_of(name: str) -> dict[str, str]:
    return {"authorization": f"Bearer key-of-{name}"}
