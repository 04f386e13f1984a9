"""The playground's page with answers that a test writes: a server without a router or a model.

`serving(stub_app())` runs it on a free port, for a real browser.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

from masrouter.catalog import Catalog
from masrouter.server.api_errors import install_error_handlers
from masrouter.server.keys import caller
from masrouter.server.playground.page import router as playground
from masrouter.server.service import get_service
from masrouter.types import Agent, Plan

IO = Plan("io", (Agent(None, "small"),))
CHAIN = Plan("chain", (Agent("planner", "small"), Agent("solver", "large")))
DEBATE = Plan("debate", tuple(Agent(role, "large") for role in ("pro", "contra", "judge")))
ID = "dec_" + "0" * 32

Offer = tuple[Plan, float, tuple[float, float], float | None, tuple[float, float] | None]
OFFERS: tuple[Offer, ...] = (
    (IO, 0.61, (0.50, 0.72), 0.00002, (0.000015, 0.00003)),
    (CHAIN, 0.82, (0.74, 0.90), 0.0011, (0.0008, 0.0015)),
    (DEBATE, 0.91, (0.85, 0.97), 0.0140, (0.009, 0.021)),
)


def decision(offers: tuple[Offer, ...], chosen: int, **more: Any) -> dict[str, Any]:
    """A decision of the shape that `/v1/decision` answers with."""
    figures = [
        {
            "plan": plan.to_json(),
            "expected_score": score,
            "score_interval": score_interval,
            "expected_cost_usd": cost,
            "cost_interval": cost_interval,
        }
        for plan, score, score_interval, cost, cost_interval in offers
    ]
    own = figures.pop(chosen)
    rest: dict[str, Any] = {
        "object": "masrouter.decision",
        "id": ID,
        "alternatives": figures,
        "policy": "c32e579e2ef8d909",
        "propensity": 1.0,
        "cost_weight": 100.0,
        "domain": "math",
        "domain_probability": 0.93,
        "fallback": False,
        "explored": False,
        "sticky": False,
        "reasons": ["on held-out queries it gained +0.0200", "reads as 'math' (93%)"],
        "evidence": {
            "similar_queries": 12, "similar_runs_of_plan": 3, "similarity": 0.45, "nearest": 0.71,
            "runs_of_plan": 580,
        },
        "checkpoint": "c32e579e2ef8d909",
    }  # fmt: skip
    return {**own, **rest, **more}


def by_cost_weight(body: dict[str, Any]) -> dict[str, Any]:
    """The dearer team, the less a dollar weighs."""
    weight = body["options"]["cost_weight"]
    return decision(OFFERS, 2 if weight < 10 else 1 if weight < 1000 else 0)


def chunk(event: dict[str, Any] | None = None, text: str | None = None) -> str:
    """A chunk of a completion with a team's event, a piece of the answer, or both."""
    choices = [] if text is None else [{"index": 0, "delta": {"content": text}}]
    body = {"object": "chat.completion.chunk", "choices": choices}
    return json.dumps(body if event is None else {**body, "masrouter": event})


def call_ended(agent: int, step: str, model: str, reply: str | None, cost: float | None) -> str:
    return chunk({
        "event": "call_ended", "agent": agent, "step": step, "model": model, "reply": reply,
        "prompt_tokens": 40, "completion_tokens": 12, "cost_usd": cost, "started_s": 0.0,
        "latency_s": 0.84, "attempts": 1, "finish_reason": "stop",
        "error": None if reply is not None else "rate_limited",
    })  # fmt: skip


def chain_run(cost: float | None = 0.0009, answer: str = "The answer is 42.") -> list[str]:
    """The stream of a chain of two that works."""
    total = {"prompt_tokens": 80, "completion_tokens": 24, "cost_usd": cost, "error": None}
    return [
        chunk({"event": "decision", **decision(OFFERS, 1)}),
        chunk({"event": "call_started", "agent": 0, "step": "plan", "model": "small"}),
        chunk({"event": "text", "agent": 0, "step": "plan", "text": "First "}),
        chunk({"event": "text", "agent": 0, "step": "plan", "text": "think. ✓"}),
        call_ended(0, "plan", "small", "First think. ✓", 0.0001),
        chunk({"event": "call_started", "agent": 1, "step": "answer", "model": "large"}),
        call_ended(1, "answer", "large", answer, cost and cost - 0.0001),
        chunk({"event": "note", "text": "the last agent's answer stands"}),
        chunk(text=answer),
        chunk({"event": "run_ended", **total, "latency_s": 1.7}),
        "[DONE]",
    ]  # fmt: skip


@dataclass
class Stub:
    """What the server answers, and what it was asked."""

    decide: Callable[[dict[str, Any]], dict[str, Any]] = by_cost_weight
    """Of a request's body. With `status` and `error` it is a refusal, with `html` a page."""
    delays: list[float] = field(default_factory=list)
    """Seconds that the next decisions take; without any, none."""
    stream: list[str] = field(default_factory=chain_run)
    """Data of the completion's events."""
    hold: float = 0.0
    """Seconds between two events."""
    cut: int = 0
    """Bytes in each piece that is sent; 0 sends whole events."""
    runs: bool = True
    key: str | None = None
    plans: tuple[Plan, ...] = (IO, CHAIN, DEBATE)
    asked: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    """Paths and bodies."""

    def bodies(self, path: str) -> list[dict[str, Any]]:
        return [body for asked, body in self.asked if asked == path]

    def service(self) -> Any:
        nodes = [SimpleNamespace(cost_weight=weight) for weight in (0.0, 1.0, 100.0, 10_000.0)]
        state = SimpleNamespace(default_cost_weight=100.0, gate=SimpleNamespace(nodes=nodes))
        routing = SimpleNamespace(
            plans=self.plans, state=state, checkpoint="c32e579e2ef8d909", catalog=Catalog.default()
        )
        limits = SimpleNamespace(max_query_characters=100_000)
        return SimpleNamespace(
            router=routing, unserved=(), llm=object() if self.runs else None,
            settings=SimpleNamespace(limits=limits, keys=()),
        )  # fmt: skip


def stub_app() -> FastAPI:
    """The page's own routes, and the rest as `app.state.stub` says, which a test sets."""
    app = FastAPI(openapi_url=None)
    app.state.stub = Stub()
    app.include_router(playground)
    app.dependency_overrides[get_service] = lambda: app.state.stub.service()
    app.dependency_overrides[caller] = lambda: None
    install_error_handlers(app)

    @app.middleware("http")
    async def keyed(request: Request, go_on: Any) -> Response:
        key = app.state.stub.key
        given = request.headers.get("authorization", "")
        if key and request.url.path.startswith("/v1/") and given != f"Bearer {key}":
            return refusal(401, "a valid API key is needed: send `Authorization: Bearer KEY`")
        answer: Response = await go_on(request)
        return answer

    @app.post("/v1/decision")
    async def decide(request: Request) -> Response:
        stub, body = app.state.stub, await request.json()
        stub.asked.append(("/v1/decision", body))
        await asyncio.sleep(stub.delays.pop(0) if stub.delays else 0)
        answer = stub.decide(body)
        if "status" in answer:
            return refusal(answer["status"], answer["error"])
        if "html" in answer:
            return Response(answer["html"], status_code=502, media_type="text/html")
        return JSONResponse(answer)

    @app.post("/v1/outcomes")
    async def outcome(request: Request) -> Response:
        app.state.stub.asked.append(("/v1/outcomes", await request.json()))
        return JSONResponse({"recorded": True})

    @app.post("/v1/chat/completions")
    async def complete(request: Request) -> Response:
        stub = app.state.stub
        stub.asked.append(("/v1/chat/completions", await request.json()))
        return StreamingResponse(_events(stub), media_type="text/event-stream")

    return app


async def _events(stub: Stub) -> AsyncIterator[bytes]:
    for data in stub.stream:
        event = f"data: {data}\n\n".encode()
        size = stub.cut or len(event)
        for start in range(0, len(event), size):
            yield event[start : start + size]
            await asyncio.sleep(0)
        await asyncio.sleep(stub.hold)


def refusal(status: int, message: str) -> JSONResponse:
    error = {"message": message, "type": "invalid_request_error", "param": None, "code": None}
    return JSONResponse({"error": error}, status_code=status)
