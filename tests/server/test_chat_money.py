"""Chat completions and money: what a key, the server and a request may spend, and what is kept."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.server.chat_samples import (
    COST_USD,
    KEYS,
    PLANS,
    Spoken,
    chat,
    key_of,
)
from tests.server.serving import MakeService, ask, post

from masrouter.errors import CallError
from masrouter.llms.chat import ChatRequest
from masrouter.server import Limits, Service
from masrouter.types import Usage

PATH = "/v1/chat/completions"
QUESTION = "What is 1 plus 5?"


def test_a_call_that_the_budget_of_its_key_cannot_cover_is_not_sent(
    serving: Callable[..., Service], spoken: Spoken
) -> None:
    service = serving(keys=KEYS)
    dear = chat(model="masrouter/io", max_tokens=2000)
    answer = post(service, PATH, dear, **key_of("ann"))
    error = answer.json()["error"]
    assert (answer.status_code, error["type"]) == (429, "insufficient_quota")
    assert error["code"] == "budget_exceeded"
    assert "retry-after" not in answer.headers
    assert spoken.asked == []
    assert post(service, PATH, dear, **key_of("bob")).status_code == 200
    cheap = chat(model="masrouter/io", max_tokens=20)
    assert post(service, PATH, cheap, **key_of("ann")).status_code == 200
    assert service.budgets.spent("ann") == pytest.approx(COST_USD)


def test_the_budget_of_all_holds_for_each(serving: Callable[..., Service], spoken: Spoken) -> None:
    service = serving(budget_usd=0.0005, keys=KEYS)
    body = chat(model="masrouter/io", max_tokens=2000)
    assert post(service, PATH, body, **key_of("bob")).status_code == 429
    assert spoken.asked == []


def test_a_request_that_may_cost_more_than_it_allows_itself_is_told_so(
    serving: Callable[..., Service], spoken: Spoken
) -> None:
    body = chat(model="masrouter/io", masrouter={"max_cost_usd": 0.001})
    answer = post(serving(), PATH, body)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (400, "max_cost_exceeded")
    assert error["param"] == "masrouter.max_cost_usd"
    assert spoken.asked == []
    assert post(serving(), PATH, {**body, "max_tokens": 5}).status_code == 200


def test_a_long_conversation_counts_in_the_worst_cost(
    serving: Callable[..., Service], spoken: Spoken
) -> None:
    """One byte may be a token: 2,000 of an earlier turn cost 0.002 US$ at worst."""
    body = chat(model="masrouter/io", max_tokens=5, masrouter={"max_cost_usd": 0.0015})
    assert post(serving(), PATH, body).status_code == 200
    spoken.asked.clear()
    body["messages"] = [{"role": "user", "content": "x" * 2000}, *body["messages"]]
    assert post(serving(), PATH, body).json()["error"]["code"] == "max_cost_exceeded"
    assert spoken.asked == []


def test_an_unknown_price_is_refused_by_name_where_there_is_a_budget(
    make_service: MakeService,
) -> None:
    spoken = Spoken(price_of=lambda model: None, usage=Usage(20, 10))
    body = chat(model="masrouter/chain")
    assert post(make_service(llm=spoken, plans=PLANS), PATH, body).status_code == 200
    spoken.asked.clear()
    for given in ({"budget_usd": 1.0}, {}):
        own = {} if given else {"masrouter": {"max_cost_usd": 1.0}}
        service = make_service(llm=spoken, plans=PLANS, **given)
        answer = post(service, PATH, {**body, **own})
        error = answer.json()["error"]
        assert (answer.status_code, error["code"]) == (400, "price_unknown")
        assert "gpt-4o-mini, gpt-4o" in error["message"]
    assert spoken.asked == []


def test_200_requests_at_once_spend_no_more_than_there_is(
    serving: Callable[..., Service], spoken: Spoken
) -> None:
    limits = Limits(max_concurrent=200, queue_timeout_s=0.2)
    service = serving(budget_usd=100.5 * COST_USD, keys=KEYS[1:], limits=limits)
    bodies = [chat(model="masrouter/io", max_tokens=5, seed=seed) for seed in range(200)]

    async def all_at_once(client: httpx.AsyncClient) -> list[httpx.Response]:
        return list(await asyncio.gather(*(client.post(PATH, json=body) for body in bodies)))

    answers = ask(service, all_at_once, **key_of("bob"))
    told = [answer.status_code for answer in answers]
    assert set(told) <= {200, 429}
    assert told.count(200) == len(spoken.asked)
    assert 0 < len(spoken.asked) * COST_USD <= 100.5 * COST_USD
    assert service.budgets.spent() == pytest.approx(len(spoken.asked) * COST_USD)
    assert service.budgets.reserved() == 0
    assert service.budgets.spent("bob") == service.budgets.spent()


def test_what_was_spent_before_a_restart_counts(
    serving: Callable[..., Service], tmp_path: Path
) -> None:
    given = {"records": tmp_path / "served.sqlite", "budget_usd": 0.001}
    first = serving(**given)
    for _ in range(3):
        body = chat(model="masrouter/samples", max_tokens=20)
        assert post(first, PATH, body).status_code == 200
    first.records.close()
    again = serving(**given)
    assert again.budgets.spent("anonymous") == pytest.approx(9 * COST_USD)


def test_failed_runs_are_recorded_with_what_they_cost(
    make_service: MakeService,
) -> None:
    def says(request: ChatRequest) -> Any:
        if request.model == "gpt-4o":
            raise CallError("no", kind="rejected", model="gpt-4o")
        yield "a plan"

    service = make_service(llm=Spoken(says=says), plans=PLANS)
    assert post(service, PATH, chat(model="masrouter/chain")).status_code == 502
    assert service.records.spending() == {"anonymous": pytest.approx(COST_USD)}
