"""What is counted, what may be a label, and who may read it."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from prometheus_client.parser import text_string_to_metric_families
from tests.server.serving import MakeService, ask

from masrouter.execution import aexecute
from masrouter.llms.simulated import SimulatedProvider
from masrouter.server import Limits
from masrouter.server.keys import KeyEntry, key_digest
from masrouter.server.limits import LimitsMiddleware
from masrouter.server.telemetry import MOST_NAMES, OTHER, Telemetry
from masrouter.types import Agent, Call, Plan, Run, Usage

KEY = "mr-a-key-for-tests-of-metrics"
SECRET = "a text that no label may hold"
Samples = dict[tuple[str, tuple[str, ...]], float]


def samples(telemetry: Telemetry | str) -> Samples:
    """Values by name and the values of labels, in the order of their names."""
    text = telemetry if isinstance(telemetry, str) else telemetry.exposition().decode()
    return {
        (one.name, tuple(one.labels[name] for name in sorted(one.labels))): one.value
        for family in text_string_to_metric_families(text)
        for one in family.samples
        if not one.name.endswith(("_created", "_bucket"))
    }


def a_run(**given: Any) -> Run:
    plan = Plan("chain", (Agent(None, "large"), Agent(None, "small")))
    calls = (
        Call(0, "draft", "large", (("user", SECRET),), SECRET, Usage(100, 20, 0.5), 0.0, 1.0, 1),
        Call(1, "edit", "small", (), "x", Usage(7, None, None), 1.0, 1.0, 1),
        Call(1, "edit", "small", (), None, Usage(), 2.0, 1.0, 3, f"timeout: {SECRET}"),
    )
    values: dict[str, Any] = {
        "plan": plan, "query": SECRET, "answer": "x", "usage": Usage(), "agent_usage": (),
        "calls": calls, "latency_s": 3.0,
    }  # fmt: skip
    return Run(**{**values, **given})


def test_a_run_counts_its_calls_tokens_and_costs_by_model() -> None:
    telemetry = Telemetry()
    telemetry.run(a_run())
    telemetry.run(a_run(answer=None, error=f"deadline: {SECRET}"))
    found = samples(telemetry)
    assert found["masrouter_runs_total", ("answered", "chain")] == 1
    assert found["masrouter_runs_total", ("deadline", "chain")] == 1
    assert found["masrouter_run_seconds_sum", ("chain",)] == 6
    assert found["masrouter_tokens_total", ("input", "large")] == 200
    assert found["masrouter_tokens_total", ("output", "large")] == 40
    assert found["masrouter_tokens_total", ("input", "small")] == 14
    assert found["masrouter_cost_usd_total", ("large",)] == 1.0
    assert found["masrouter_unpriced_calls_total", ("small",)] == 4
    assert found["masrouter_calls_total", ("timeout", "small")] == 2
    assert found["masrouter_errors_total", ("deadline",)] == 1
    assert SECRET not in telemetry.exposition().decode()


def test_a_run_of_the_real_runtime_counts(simulated: SimulatedProvider) -> None:
    plan = Plan("io", (Agent(None, simulated.models[0]),))
    run = asyncio.run(aexecute(plan, "What is 1 plus 5?", llm=simulated))
    telemetry = Telemetry()
    telemetry.run(run)
    found = samples(telemetry)
    assert found["masrouter_cost_usd_total", plan.models] == pytest.approx(run.usage.cost_usd)


def test_nobody_can_make_up_new_series() -> None:
    telemetry = Telemetry()
    for index in range(5 * MOST_NAMES):
        telemetry.run(a_run(plan=Plan(f"t{index}", (Agent(None, f"m{index}"),)), calls=()))
        telemetry.outcome(f"source {index}")
        telemetry.error(f"kind{index}")
        scope = {"method": f"M{index}", "path": f"/{index}"}
        telemetry.request(scope, 404, 0.1)
    telemetry.outcome("human")
    found = samples(telemetry)
    assert found["masrouter_http_requests_total", (OTHER, "unmatched", "404")] == 5 * MOST_NAMES
    assert found["masrouter_outcomes_total", (OTHER,)] == 5 * MOST_NAMES
    assert found["masrouter_outcomes_total", ("human",)] == 1
    assert len(found) < 8 * MOST_NAMES


def test_two_servers_of_one_process_do_not_share_counters() -> None:
    one, other = Telemetry(), Telemetry()
    one.outcome("human")
    assert ("masrouter_outcomes_total", ("human",)) not in samples(other)


def test_requests_are_counted_by_template_and_status_refused_ones_too() -> None:
    telemetry = Telemetry()
    app = FastAPI()

    @app.post("/v1/things/{name}")
    async def thing(name: str) -> str:
        return name

    @app.post("/v1/decision")
    async def failing() -> None:
        raise RuntimeError("unexpected")

    limits = Limits(max_body_bytes=100)
    app.add_middleware(LimitsMiddleware, limits=limits, meter=telemetry)

    async def main() -> None:
        transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            for name in (SECRET, "b"):
                await client.post(f"/v1/things/{name}")
            await client.post("/v1/decision", content=b"x" * 101)
            await client.post("/v1/decision")
            await client.get("/nothing/of/the/kind")

    asyncio.run(main())
    found = samples(telemetry)
    assert found["masrouter_http_requests_total", ("POST", "/v1/things/{name}", "200")] == 2
    assert found["masrouter_http_requests_total", ("POST", "/v1/decision", "413")] == 1
    assert found["masrouter_http_requests_total", ("POST", "/v1/decision", "500")] == 1
    assert found["masrouter_http_requests_total", ("GET", "unmatched", "404")] == 1
    assert found["masrouter_http_request_seconds_count", ("/v1/decision",)] == 2
    assert found["masrouter_requests_running", ("work",)] == 0


def test_what_is_read_when_asked_for_is_there() -> None:
    telemetry = Telemetry()
    telemetry.watch_budgets(lambda: {"alice": 1.5, "bob": None})
    telemetry.watch_memo(lambda: (30, 10))
    found = samples(telemetry)
    assert found["masrouter_budget_left_usd", ("alice",)] == 1.5
    assert ("masrouter_budget_left_usd", ("bob",)) not in found
    assert found["masrouter_embeddings_total", ("memo",)] == 30
    assert found["masrouter_embeddings_total", ("encoder",)] == 10


def test_the_server_tells_of_its_own_work(make_service: MakeService) -> None:
    service = make_service(budget_usd=5.0)
    service.telemetry = Telemetry()

    async def work(client: httpx.AsyncClient) -> str:
        decided = await client.post("/v1/decision", json={"query": SECRET})
        body = {"decision_id": decided.json()["id"], "score": 1.0}
        assert (await client.post("/v1/outcomes", json=body)).status_code == 200
        return (await client.get("/metrics")).text

    text = ask(service, work)
    found = samples(text)
    assert found["masrouter_http_requests_total", ("POST", "/v1/decision", "200")] == 1
    decisions = {key: n for key, n in found.items() if key[0] == "masrouter_decisions_total"}
    assert (list(decisions.values()), {by for _, (by, _) in decisions}) == ([1], {"router"})
    assert found["masrouter_outcomes_total", ("human",)] == 1
    assert found["masrouter_budget_left_usd", ("anonymous",)] == 5.0
    assert SECRET not in text


@pytest.mark.parametrize(
    ("headers", "status"), [({}, 401), ({"authorization": f"Bearer {KEY}"}, 200)]
)
def test_where_there_are_keys_the_counters_need_one(
    make_service: MakeService, headers: dict[str, str], status: int
) -> None:
    service = make_service(keys=(KeyEntry("watcher", key_digest(KEY)),))
    service.telemetry = Telemetry()
    assert ask(service, lambda client: client.get("/metrics"), **headers).status_code == status


def test_health_and_readiness_need_no_key(make_service: MakeService) -> None:
    service = make_service(keys=(KeyEntry("watcher", key_digest(KEY)),))
    for path, word in (("/health", "ok"), ("/ready", "ready")):
        answer = ask(service, lambda client, path=path: client.get(path))
        assert (answer.status_code, answer.json()) == (200, {"status": word})
