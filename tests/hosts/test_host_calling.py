"""A framework's calls as a ChatModel: money, time, and failures as a team knows them."""

from __future__ import annotations

import asyncio

import pytest
from tests.hosts.host_samples import PLANS, QUERY, say
from tests.llms.meters import Budget, Tally

from masrouter.errors import BudgetError, CallError, ExecutionError
from masrouter.hosts.calling import AskModel, HostModel, Said, run_in_host
from masrouter.llms import ChatRequest, Completion, Message, Meter
from masrouter.types import Run, Usage

REQUEST = ChatRequest("gpt-4o", (Message("system", "Be kind."), Message("user", "Hello.")), 100)


class Answered(Exception):
    """An error of a framework with an HTTP status."""

    def __init__(self, status: int) -> None:
        super().__init__(f"status {status}")
        self.status_code = status


class ReadTimeout(Exception): ...


class APIConnectionError(Exception): ...


async def hello(request: ChatRequest) -> Said:
    return Said("Hello!", 12, 3, "stop")


async def forever(request: ChatRequest) -> Said:
    await asyncio.Event().wait()
    raise AssertionError


def failing(error: Exception) -> AskModel:
    async def ask(request: ChatRequest) -> Said:
        raise error

    return ask


def call(ask: AskModel, meter: Meter, timeout_s: float | None = None) -> Completion:
    llm = HostModel(["gpt-4o"], ask)
    return asyncio.run(llm.complete(REQUEST, meter=meter, timeout_s=timeout_s))


def test_a_call_is_reserved_and_settled_with_its_tokens_and_the_catalogs_price() -> None:
    meter = Tally()
    completion = call(hello, meter)
    price = HostModel(["gpt-4o"], hello).price("gpt-4o")
    assert price is not None
    usage = Usage(12, 3, price.cost_usd(12, 3))
    assert (meter.marks, meter.usages) == ("rs", [usage])
    assert (completion.text, completion.usage, completion.finish_reason) == (
        "Hello!", usage, "stop",
    )  # fmt: skip


def test_a_call_that_does_not_fit_the_budget_is_not_made() -> None:
    with pytest.raises(BudgetError, match="could cost more"):
        call(failing(AssertionError()), Budget(limit_usd=0.5, worst_usd=1.0))


@pytest.mark.parametrize(
    ("error", "kind", "mark"),
    [
        (Answered(401), "unauthorised", "f"),
        (Answered(400), "rejected", "f"),
        (Answered(408), "timeout", "f"),
        (Answered(429), "rate_limited", "f"),
        (Answered(503), "server_error", "f"),
        (ReadTimeout("slow"), "timeout", "u"),
        (APIConnectionError("gone"), "connection", "u"),
        (ConnectionResetError("gone"), "connection", "u"),
        (KeyError("choices"), "bad_response", "u"),
        (CallError("as it was", kind="empty", model="gpt-4o"), "empty", "u"),
    ],
)
def test_a_failure_is_named_and_charged_unless_it_surely_was_not_billed(
    error: Exception, kind: str, mark: str
) -> None:
    meter = Tally()
    with pytest.raises(CallError, match=str(error).strip("'")) as failed:
        call(failing(error), meter)
    assert failed.value.kind == kind
    assert failed.value.model == "gpt-4o"
    assert meter.marks == f"r{mark}"


def test_a_call_ends_with_its_time() -> None:
    meter = Tally()
    with pytest.raises(CallError) as failed:
        call(forever, meter, timeout_s=0.01)
    assert failed.value.kind == "timeout"
    assert meter.marks == "ru"


def test_a_call_that_is_cancelled_is_settled() -> None:
    async def cancel() -> Tally:
        meter = Tally()
        calling = asyncio.ensure_future(
            HostModel(["gpt-4o"], forever).complete(REQUEST, meter=meter)
        )
        await asyncio.sleep(0)
        calling.cancel()
        await asyncio.wait([calling])
        assert calling.cancelled()
        return meter

    assert asyncio.run(cancel()).marks == "ru"


def test_an_unknown_model_is_not_asked() -> None:
    meter = Tally()
    with pytest.raises(CallError, match=r"no model 'gpt-4o' was given; given: gpt-9") as failed:
        asyncio.run(HostModel(["gpt-9"], hello).complete(REQUEST, meter=meter))
    assert (failed.value.kind, meter.marks) == ("unknown_model", "")


def test_text_is_told_once_it_is_there() -> None:
    pieces: list[str] = []
    asyncio.run(HostModel(["gpt-4o"], hello).complete(REQUEST, on_text=pieces.append))
    assert pieces == ["Hello!"]


def test_unknown_tokens_and_prices_make_the_cost_unknown() -> None:
    async def mute(request: ChatRequest) -> Said:
        return Said("Hello!")

    meter = Tally()
    assert call(mute, meter).usage == Usage(None, None, None)
    unpriced = ChatRequest("gpt-9", REQUEST.messages, 100)
    completion = asyncio.run(HostModel(["gpt-9"], hello).complete(unpriced))
    assert completion.usage == Usage(12, 3, None)


def test_a_budget_and_a_deadline_hold_in_a_host() -> None:
    async def ask(request: ChatRequest) -> Said:
        system, user = request.messages
        return Said(say(request.model, system.content, user.content), 100, 50)

    plan = PLANS["examples/plan.json"]

    def run(ask: AskModel, **options: float) -> Run:
        llm = HostModel(plan.models, ask)
        return asyncio.run(run_in_host(plan, QUERY, llm, options))  # type: ignore[arg-type]

    assert run(ask, budget_usd=1.0).usage.cost_usd
    with pytest.raises(ExecutionError, match="budget: "):
        run(ask, budget_usd=1e-6)
    with pytest.raises(ExecutionError, match="deadline: "):
        run(forever, deadline_s=0.05)
