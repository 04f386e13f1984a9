"""A provider that misbehaves, over real HTTP: one row a run, never more spent than the budget."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.collection.worlds import CATALOG, PRICE, SMALL, exported, sums
from tests.llms import faulty_server as web
from tests.llms.faulty_server import Behaviour, FaultyServer, answer, completion, raw, status

from masrouter.collection import Assignment, Progress, Settings, Store, collect, grid
from masrouter.errors import BudgetError, CollectionError
from masrouter.llms import Breaker, ModelOptions, OpenAICompatible, Providers, RetryPolicy
from masrouter.types import Agent, Plan

GOOD = completion("the answer", "m")

SCRIPTS: dict[str, Sequence[Behaviour]] = {
    "well": [answer()],
    "429 once": [status(429, headers={"retry-after": "0"}), answer()],
    "429 for ever": [status(429)],
    "no credit": [status(429, code="insufficient_quota")],
    "500 once": [status(500), answer()],
    "500 for ever": [status(500)],
    "503 for ever": [status(503)],
    "400": [status(400)],
    "402": [status(402)],
    "404": [status(404)],
    "413": [status(413, "too long")],
    "422": [status(422)],
    "redirect": [raw("", code=302, headers={"location": "/elsewhere"})],
    "html": [raw("<html>", "text/html")],
    "html once": [raw("<html>", "text/html"), answer()],
    "empty body": [raw("")],
    "cut json": [raw(json.dumps(GOOD)[:60])],
    "other json": [raw([1, 2])],
    "no choices": [raw({**GOOD, "choices": []})],
    "null text": [answer("")],
    "refusal": [raw(completion(None, "m", refusal="no"))],
    "tool calls": [raw(completion(None, "m", tool_calls=[{"id": "1"}]))],
    "length": [raw(completion("", "m", finish_reason="length"))],
    "filter": [raw(completion(None, "m", finish_reason="content_filter"))],
    "error in 200": [raw({"error": {"code": 502, "message": "down"}})],
    "no usage": [answer(usage="absent")],
    "absurd usage": [answer(usage={"prompt_tokens": -3, "completion_tokens": "many"})],
    "lone surrogate": [raw(json.dumps(GOOD).replace("the answer", "\\ud83d 2"))],
    "reset": [web.reset()],
    "reset once": [web.reset(), answer()],
    "closed": [web.shut()],
    "cut off": [web.cut()],
    "hang": [web.hang()],
    "stall": [web.cut("stall")],
    "drip": [web.drip(0.2)],
}
ENDS_WELL = {
    "well", "429 once", "500 once", "html once", "no usage", "absurd usage", "lone surrogate",
    "reset once",
}  # fmt: skip
SLOW = {"hang", "stall", "drip"}
PATIENT = RetryPolicy(tries=3, first_wait_s=0.01, longest_wait_s=0.02)
IMPATIENT = replace(PATIENT, attempt_timeout_s=0.4, stall_timeout_s=0.3)
"""For those that never answer: on a busy machine a good answer may take as long."""


def misbehaving(faults: Sequence[str]) -> list[Assignment]:
    """Each fault alone, and in a team with two members that answer."""
    plans = []
    for fault in faults:
        names = (f"{'impatient' if fault in SLOW else 'patient'}/{fault}", *["patient/well"] * 2)
        agents = tuple(Agent("assistant", name) for name in names)
        plans += [Plan("io", agents[:1]), Plan("self_consistency", agents)]
    return list(grid(sums(1), plans))


def provider(server: FaultyServer) -> Providers:
    return Providers(
        *(
            OpenAICompatible(
                server.base_url,
                "key",
                name=name,
                options=ModelOptions(price=PRICE),
                retry=retry,
                breaker=Breaker(failures=10**6),
            )
            for name, retry in (("patient", PATIENT), ("impatient", IMPATIENT))
        )
    )


def gather_from(
    server: FaultyServer, file: Path, assignments: Sequence[Assignment], **settings: Any
) -> Progress:
    async def main(store: Store) -> Progress:
        async with provider(server) as llm:
            return await collect(
                assignments,
                llm=llm,
                store=store,
                catalog=CATALOG,
                sandbox=None,
                settings=Settings(max_tokens=100, **settings),
            )

    with Store(file, disk_reserve_mib=0) as store:
        return asyncio.run(main(store))


def records(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in exported(file).splitlines()]


def test_each_behaviour_is_one_row_with_a_score_or_a_typed_error(tmp_path: Path) -> None:
    file, assignments = tmp_path / "some.sqlite", misbehaving(list(SCRIPTS))
    assert len(SCRIPTS) >= 30
    with FaultyServer(script=SCRIPTS) as server:
        ended = gather_from(server, file, assignments, concurrency=70, budget_usd=1.0)
    assert ended.complete
    assert server.billed_usd <= ended.spending.most_usd + 1e-12 <= 1.0
    found = records(file)
    assert len(found) == len(assignments) == 2 * len(SCRIPTS)
    for record in found:
        fault = record["agents"][0]["model"].split("/")[1]
        if record["topology"] == "self_consistency" or fault in ENDS_WELL:
            assert record["score"] is not None
            assert record.get("error") is None
        else:
            assert record.get("score") is None
            assert record["error"].startswith("team: agent 1")
            assert f"/{fault}: " in record["error"]
    assert Counter(record["topology"] for record in found) == {
        "io": len(SCRIPTS),
        "self_consistency": len(SCRIPTS),
    }


@pytest.mark.parametrize("budget", [0.0008, 0.002, 0.005, 0.012])
def test_no_more_is_spent_than_the_budget_whatever_the_provider_does(
    tmp_path: Path, budget: float
) -> None:
    faults = ["well", "html", "reset", "429 once", "no usage", "length", "cut off", "500 for ever"]
    file, assignments = tmp_path / "some.sqlite", misbehaving(faults)
    with FaultyServer(script=SCRIPTS) as server:
        ended = gather_from(server, file, assignments, concurrency=4, budget_usd=budget)
        assert ended.stopped is not None
        assert f"the budget of {budget:g} US$ is used up" in ended.stopped
        assert server.billed_usd <= ended.spending.most_usd + 1e-12 <= budget + 1e-12
        again = gather_from(server, file, assignments, concurrency=4, budget_usd=budget)
        assert again.stopped is not None
        assert server.billed_usd <= again.spending.most_usd + 1e-12 <= budget + 1e-12
        last = gather_from(server, file, assignments, concurrency=4, budget_usd=1.0)
        assert last.complete
        assert server.billed_usd <= last.spending.most_usd + 1e-12
    assert len(records(file)) == len(assignments)


@pytest.mark.parametrize("number", [401, 403])
def test_a_refused_key_stops_the_collection_and_names_the_provider(
    tmp_path: Path, number: int
) -> None:
    script = {"refused": [status(number, "bad key")], "well": [answer()]}
    plans = [Plan("io", (Agent(None, f"patient/{name}"),)) for name in ("well", "refused")]
    with FaultyServer(script=script) as server:
        with pytest.raises(CollectionError, match="every run would fail: patient/refused: HTTP"):
            gather_from(server, tmp_path / "some.sqlite", list(grid(sums(50), plans)))
        assert len(server.calls) <= 20


def test_a_budget_with_a_model_of_unknown_price_is_refused_by_its_name(tmp_path: Path) -> None:
    async def main(store: Store) -> None:
        known = {SMALL: ModelOptions(price=PRICE)}
        async with OpenAICompatible("http://127.0.0.1:9/v1", "key", models=known) as llm:
            plans = [Plan("io", (Agent(None, name),)) for name in (SMALL, "secret", "mystery")]
            await collect(
                grid(sums(1), plans),
                llm=llm,
                store=store,
                catalog=CATALOG,
                sandbox=None,
                settings=Settings(budget_usd=5.0),
            )

    with (
        Store(tmp_path / "some.sqlite") as store,
        pytest.raises(BudgetError, match="5: no price is known for 'mystery', 'secret'; give"),
    ):
        asyncio.run(main(store))
