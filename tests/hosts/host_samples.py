"""What the tests of all hosts share: a plan file, models that answer by script, expectations."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

from tests.topologies import scripted

from masrouter.errors import CallError
from masrouter.execution import execute
from masrouter.llms import ChatRequest, Completion, Message, Meter, Price
from masrouter.router import Router
from masrouter.types import Plan, Run, Usage

QUERY = scripted.QUERY
ONE_PLAN = Plan.from_json(
    json.loads((Path(__file__).parents[2] / "examples/plan.json").read_text(encoding="utf-8"))
)
"""The plan file that every host executes."""

PLANS = {**scripted.PLANS, "examples/plan.json": ONE_PLAN}
"""Every topology that ships, and the plan file."""

MODELS = ("synthetic-small", "synthetic-medium", "synthetic-large", "synthetic-coder")
"""What the small router knows."""


def say(model: str, system: str, text: str) -> str:
    """A reply in the form that is asked for. It depends on all that a model is shown, so that a
    host which shows it anything else gives other answers."""
    shown = hashlib.sha256("\n".join((model, system, text)).encode()).hexdigest()
    request = ChatRequest(model, (Message("system", system), Message("user", text)), 1)
    return scripted.reply(request, answer=str(int(shown[0], 16) % 3))


class Scripted:
    """A ChatModel that says the same without any host."""

    def price(self, model: str) -> Price | None:
        return None

    async def complete(
        self,
        request: ChatRequest,
        *,
        timeout_s: float | None = None,
        meter: Meter | None = None,
        on_text: Callable[[str], None] | None = None,
    ) -> Completion:
        system, user = (message.content for message in request.messages)
        text = say(request.model, system, user)
        return Completion(text, Usage(7, 5), request.model, "stop")


class Down(Exception):
    """What a provider's SDK raises; it has a status."""

    status_code = 503


class OneDown(Scripted):
    """The same, where one model's calls fail."""

    def __init__(self, model: str) -> None:
        self.model = model

    async def complete(self, request: ChatRequest, **options: object) -> Completion:  # type: ignore[override]
        if request.model == self.model:
            raise CallError("down", kind="server_error", model=request.model, status=503)
        return await super().complete(request)


def expected(plan: Plan, *, down: str | None = None) -> Run:
    return execute(plan, QUERY, llm=Scripted() if down is None else OneDown(down))


def told(run: Run) -> list[object]:
    """All that was said in a run, whichever call ended first; and how it was decided."""
    calls = [(call.agent, call.step, call.messages, call.reply) for call in run.calls]
    return [run.answer, run.notes, run.missing, sorted(calls, key=str)]


def picks(router: Router, texts: list[str], **options: object) -> list[str]:
    """The models that a host has to choose."""
    found = [
        router.route(text, models=MODELS, max_agents=1, topologies=("io", "cot"), **options)  # type: ignore[arg-type]
        for text in texts
    ]
    assert len({decision.plan.models for decision in found}) >= 3
    return [decision.plan.agents[0].model for decision in found]
