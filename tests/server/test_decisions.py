"""Decisions over HTTP: what is decided, how it explores, what a body may be."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import random
import threading
import tracemalloc
from collections import Counter
from dataclasses import replace
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel
from tests.server.serving import LOCAL, MakeService, RunningServer, ask, post

from masrouter.errors import ConfigError
from masrouter.router import Router
from masrouter.server import Limits, Service
from masrouter.server.api_errors import ApiError
from masrouter.server.chat_request import ChatBody
from masrouter.server.exploration import Explorer
from masrouter.server.keys import KeyEntry, key_digest
from masrouter.server.request_body import body_schema, parse_json
from masrouter.server.schemas import DecisionRequest, OutcomeRequest
from masrouter.types import Agent, Plan

QUERY = "What is 1 plus 5?"
SECRET = "pssst-zebra"
"""Stands in hostile bodies; no answer may repeat it."""


def decided(service: Service, **body: Any) -> dict[str, Any]:
    reply = post(service, "/v1/decision", {"query": QUERY} | body)
    assert reply.status_code == 200, reply.text
    found: dict[str, Any] = reply.json()
    return found


def refused(service: Service, **body: Any) -> dict[str, Any]:
    reply = post(service, "/v1/decision", {"query": QUERY} | body)
    assert reply.status_code == 400, reply.text
    error: dict[str, Any] = reply.json()["error"]
    assert error["type"] == "invalid_request_error"
    return error


def test_a_decision_is_the_routers_with_figures_and_reasons(
    make_service: MakeService, served_router: Router
) -> None:
    found = decided(make_service(llm=None), options={"cost_weight": 10.0, "k": 2})
    own = served_router.route(QUERY, cost_weight=10.0, k=2)
    assert found["plan"] == own.plan.to_json()
    assert found["expected_score"] == own.expected_score
    assert found["score_interval"] == [own.score_interval.low, own.score_interval.high]
    assert found["expected_cost_usd"] == own.expected_cost_usd
    assert found["reasons"] == list(own.reasons)
    others = [plan.plan.to_json() for plan in own.alternatives]
    assert [plan["plan"] for plan in found["alternatives"]] == others
    assert found["checkpoint"] == found["policy"] == served_router.checkpoint
    assert (found["propensity"], found["explored"], found["sticky"]) == (1.0, False, False)
    assert found["id"].startswith("dec_")
    assert len(found["id"]) == 36
    assert found["plans"] is None


def test_a_batch_is_answered_in_order_each_with_an_id(make_service: MakeService) -> None:
    service = make_service(limits=Limits(max_batch=3))
    queries = ["Prove it.", QUERY, "def f(x): ..."]
    found = decided(service, query=queries, options={"cost_weight": 3.0})
    assert found["object"] == "list"
    assert len({one["id"] for one in found["data"]}) == 3
    single = [decided(service, query=q, options={"cost_weight": 3.0}) for q in queries]
    assert [one["plan"] for one in found["data"]] == [one["plan"] for one in single]
    assert refused(service, query=[QUERY] * 4)["code"] == "batch_too_large"


def test_explaining_tells_the_figures_of_every_plan(
    make_service: MakeService, served_router: Router
) -> None:
    found = decided(make_service(), explain=True, options={"cost_weight": 10.0})
    told = [json.dumps(one["plan"]) for one in found["plans"]]
    assert sorted(told) == sorted(json.dumps(plan.to_json()) for plan in served_router.plans)
    utilities = [one["utility"] for one in found["plans"]]
    assert utilities == sorted(utilities, reverse=True)


def test_the_options_bind_the_decision(make_service: MakeService) -> None:
    service = make_service()
    cheap = decided(service, options={"max_cost_usd": 0.00005})
    assert cheap["expected_cost_usd"] <= 0.00005
    lone = decided(service, options={"max_agents": 1, "exclude_models": ["gpt-4o-mini"]})
    assert [a["model"] for a in lone["plan"]["agents"]] != ["gpt-4o-mini"]
    assert len(lone["plan"]["agents"]) == 1
    chosen = decided(service, options={"models": ["gpt-4o-mini"], "topologies": ["io"]})
    assert chosen["plan"] == {
        "topology": "io",
        "agents": [{"role": None, "model": "gpt-4o-mini"}],
    }


def test_what_cannot_be_met_or_is_not_known_is_told_with_candidates(
    make_service: MakeService,
) -> None:
    service = make_service(limits=Limits(max_query_characters=50))
    error = refused(service, options={"max_cost_usd": 1e-12})
    assert error["code"] == "no_plan_within_constraints"
    assert "max_cost_usd" in error["message"]
    error = refused(service, options={"models": [SECRET]})
    assert (error["code"], error["param"]) == ("unknown_name", "models")
    assert "gpt-4o-mini" in error["message"]
    assert SECRET not in error["message"]
    assert refused(service, query=" \n ")["code"] == "empty_query"
    assert refused(service, query="x" * 51)["code"] == "query_too_long"
    assert refused(service, query=[QUERY], explain=True)["param"] == "explain"


def test_models_that_nobody_serves_are_never_decided_for(
    served_router: Router,
) -> None:
    free = served_router.route(QUERY).plan
    service = Service(served_router, unserved=free.models)
    found = decided(service, query=[QUERY] * 3)
    assert all(
        seat["model"] not in free.models for one in found["data"] for seat in one["plan"]["agents"]
    )
    service.records.close()


def test_fixed_plans_that_no_team_could_run_are_told_at_the_start(
    make_service: MakeService,
) -> None:
    for plan, told in (
        (Plan("unheard-of", (Agent(None, "gpt-4o"),)), "plans: mine: .*unheard-of"),
        (Plan("debate", (Agent(None, "gpt-4o"),)), "plans: mine: .*debate"),
    ):
        with pytest.raises(ConfigError, match=told):
            make_service(plans={"mine": plan})


def test_a_session_keeps_its_first_plan_while_the_options_allow_it(
    make_service: MakeService,
) -> None:
    service = make_service(exploration=0.5)

    async def talk(client: httpx.AsyncClient) -> list[dict[str, Any]]:
        found = []
        for options in (
            {"cost_weight": 0.0},
            {"cost_weight": 10_000.0},
            {"max_cost_usd": 0.000012},
            {},
        ):
            reply = await client.post("/v1/decision", json={"query": QUERY, "options": options})
            found.append(reply.json())
        return found

    first, second, third, fourth = ask(service, talk, **{"x-masrouter-session": "chat 7"})
    assert not first["sticky"]
    assert first["propensity"] is not None
    assert second["plan"] == first["plan"]
    assert (second["sticky"], second["policy"], second["propensity"]) == (True, "session", None)
    assert second["expected_cost_usd"] == pytest.approx(first["expected_cost_usd"])
    assert "kept" in second["reasons"][0]
    assert third["plan"] != first["plan"]  # the session's costs more than this turn may
    assert not third["sticky"]
    assert fourth["plan"] == third["plan"]
    assert fourth["sticky"]


def test_of_requests_that_begin_a_session_at_once_the_first_names_its_team(
    make_service: MakeService,
) -> None:
    service = make_service(exploration=1.0)
    put: list[Plan] = []
    keep = service.sessions.put

    def kept(caller: str, session: str, plan: Plan) -> None:
        put.append(plan)
        keep(caller, session, plan)

    service.sessions.put = kept  # type: ignore[method-assign]

    async def work(client: httpx.AsyncClient) -> list[httpx.Response]:
        asked = (client.post("/v1/decision", json={"query": QUERY}) for _ in range(16))
        return [*await asyncio.gather(*asked), await client.post(
            "/v1/decision", json={"query": QUERY}
        )]  # fmt: skip

    *first, later = ask(service, work, **{"x-masrouter-session": "s"})
    plans = {json.dumps(reply.json()["plan"]) for reply in first}
    assert len(plans) > 1  # they were under way together, and drew
    assert len(put) == 1
    assert later.json()["sticky"]
    assert Plan.from_json(later.json()["plan"]) == put[0]


def test_a_session_belongs_to_its_key_and_to_single_queries(make_service: MakeService) -> None:
    keys = tuple(KeyEntry(name, key_digest(name)) for name in ("ann", "bob"))
    service = make_service(keys=keys)
    headers = {"x-masrouter-session": "s"}
    for key, sticky in (("ann", False), ("ann", True), ("bob", False)):
        reply = post(
            service, "/v1/decision", {"query": QUERY}, authorization=f"Bearer {key}", **headers
        )
        assert reply.json()["sticky"] is sticky
    for body, header in (({"query": [QUERY]}, "s"), ({"query": QUERY}, "x" * 129)):
        reply = post(
            service, "/v1/decision", body, **{"x-api-key": "ann", "x-masrouter-session": header}
        )
        assert reply.status_code == 400
        assert "x-masrouter-session" in reply.json()["error"]["message"]


def test_exploration_tells_the_probability_that_plans_really_come_with(
    served_router: Router,
) -> None:
    explorer = Explorer(served_router, 0.6, random.Random(4))
    count = 2000
    found = explorer.route([QUERY] * count, {"cost_weight": 10.0})
    seen = Counter(one.decision.plan for one in found)
    told = {one.decision.plan: one.propensity for one in found}
    assert len(seen) > 5
    for one in found:
        propensity = told[one.decision.plan]
        assert propensity is not None
        # The same plan on the same query has one probability, whether it was drawn or chosen.
        assert one.propensity == pytest.approx(propensity)
        assert one.stages is not None
        steps = [one.stages["topology"], one.stages["count"]]
        steps += [*one.stages["roles"], *one.stages["models"]]
        assert math.prod(steps) == pytest.approx(propensity)
    for plan, times in seen.items():
        p = told[plan]
        assert p is not None
        assert abs(times / count - p) < 5 * math.sqrt(p * (1 - p) / count), plan
    # A choice that is never drawn would leave the rest of the mass unaccounted for.
    assert sum(p for p in told.values() if p is not None) == pytest.approx(1.0, abs=0.05)
    choice = served_router.route(QUERY, cost_weight=10.0).plan
    assert (told[choice] or 0.0) >= 0.4


def test_without_exploration_every_decision_is_the_choice(served_router: Router) -> None:
    found = Explorer(served_router, 0.0).route([QUERY] * 20, {"cost_weight": 10.0})
    choice = served_router.route(QUERY, cost_weight=10.0)
    assert all(one.decision.plan == choice.plan and not one.drawn for one in found)
    assert {one.propensity for one in found} == {1.0}


def test_exploration_needs_a_trained_cascade(served_router: Router) -> None:
    state = replace(served_router.state, cascade_trained=False)
    untrained = Router(state, served_router.encoder)
    with pytest.raises(ConfigError, match=r"exploration: 0\.1 .* cascade was not trained"):
        Explorer(untrained, 0.1)
    assert Explorer(untrained, 0.0).route([QUERY], {})


def test_while_a_query_is_routed_the_server_answers_others(make_service: MakeService) -> None:
    service = make_service()
    begun, go_on = threading.Event(), threading.Event()
    slow = service.router

    class Waiting:
        def __getattr__(self, name: str) -> Any:
            return getattr(slow, name)

        def route_batch(self, *given: Any, **options: Any) -> Any:
            begun.set()
            assert go_on.wait(20)
            return slow.route_batch(*given, **options)

    service._explorer = Explorer(Waiting(), 0.0)  # type: ignore[arg-type]

    async def work(client: httpx.AsyncClient) -> tuple[int, int]:
        deciding = asyncio.create_task(client.post("/v1/decision", json={"query": QUERY}))
        while not begun.is_set():
            await asyncio.sleep(0.001)
        health = await client.get("/health")
        assert not deciding.done()
        go_on.set()
        return health.status_code, (await deciding).status_code

    assert ask(service, work) == (200, 200)


HOSTILE = {
    "no JSON": b"{" + SECRET.encode(),
    "nothing": b"",
    "not UTF-8": b'{"query": "\xff' + SECRET.encode() + b'"}',
    "binary": bytes(range(256)),
    "NaN": b'{"query": "q", "options": {"cost_weight": NaN}}',
    "Infinity": b'{"query": "q", "options": {"cost_weight": -Infinity}}',
    "overflow": b'{"query": "q", "options": {"cost_weight": 1e999}}',
    "huge integer": b'{"query": "q", "options": {"k": ' + b"9" * 5000 + b"}}",
    "large integer": b'{"query": "q", "options": {"cost_weight": ' + b"9" * 29 + b"}}",
    "deep": b"[" * 100_000,
    "deep and closed": b'{"query": ' + b"[" * 90 + b"]" * 90 + b"}",
    "half of a pair": b'{"query": "' + SECRET.encode() + b' \\ud83d"}',
    "half of a pair in a key": b'{"\\udc00' + SECRET.encode() + b'": 1}',
    "twice": b'{"query": "a", "query": "' + SECRET.encode() + b'"}',
    "an unknown field": b'{"query": "q", "' + SECRET.encode() + b'": 1}',
    "an unknown option": b'{"query": "q", "options": {"' + SECRET.encode() + b'": 1}}',
    "a number as text": b'{"query": "q", "options": {"cost_weight": "1' + SECRET.encode() + b'"}}',
    "a truth as number": b'{"query": "q", "options": {"k": true}}',
    "a list": b'["' + SECRET.encode() + b'"]',
    "null": b"null",
    "no queries": b'{"query": []}',
    "a number among queries": b'{"query": ["q", 3]}',
    "both trade-offs": b'{"query": "q", "options": {"cost_weight": 1, "willingness_to_pay": 1}}',
    "a negative weight": b'{"query": "q", "options": {"cost_weight": -1}}',
    "no models": b'{"query": "q", "options": {"models": []}}',
    "too many alternatives": b'{"query": "q", "options": {"k": 100000}}',
}


def test_hostile_bodies_are_refused_without_being_repeated(make_service: MakeService) -> None:
    service = make_service()

    async def work(client: httpx.AsyncClient) -> dict[str, httpx.Response]:
        kind = {"content-type": "application/json"}
        return {
            name: await client.post("/v1/decision", content=body, headers=kind)
            for name, body in HOSTILE.items()
        }

    for name, reply in ask(service, work).items():
        assert reply.status_code == 400, name
        error = reply.json()["error"]
        assert set(error) == {"message", "type", "param", "code"}
        assert error["type"] == "invalid_request_error"
        assert SECRET not in reply.text
        assert error["message"]


@pytest.mark.parametrize(
    ("model", "data"),
    [
        (DecisionRequest, {"query": [1] * 20_000}),
        (DecisionRequest, {"query": [""] * 20_000}),
        (DecisionRequest, {"query": "q"} | {f"x{i}": 1 for i in range(20_000)}),
        (ChatBody, {"model": "m", "messages": [1] * 20_000}),
        (ChatBody, {"model": "m", "messages": [{"x": 1}] * 20_000}),
    ],
)
def test_a_body_full_of_faults_is_not_read_to_its_end(model: type[BaseModel], data: Any) -> None:
    # Faults take far more memory than the body that they are in, and the event loop waits.
    tracemalloc.start()
    try:
        with pytest.raises(ApiError) as refusal:
            parse_json(json.dumps(data).encode(), model)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert refusal.value.status == 400
    assert most < 8_000_000  # the faults of all items are several times as much


def test_messages_name_the_field(make_service: MakeService) -> None:
    service = make_service()
    error = refused(service, options={"max_cost_usd": 0})
    assert error["param"] == "options.max_cost_usd"
    assert error["message"].startswith("options.max_cost_usd: input should be greater than 0")
    error = refused(service, options={"kk": 1})
    assert error["message"].startswith("options: an unknown field; known are cost_weight, ")
    assert refused(service, optoins={})["message"].startswith("the body: an unknown field")


def test_only_json_is_read_so_that_no_page_can_post_a_form(served_app: RunningServer) -> None:
    url = f"{served_app.base_url}/v1/decision"
    for kind in ("text/plain", "application/x-www-form-urlencoded", ""):
        reply = httpx.post(url, content=b'{"query": "q"}', headers={"content-type": kind})
        assert reply.status_code == 415
        assert reply.json()["error"]["code"] == "unsupported_media_type"
    good = {"content-type": "Application/JSON; charset=utf-8"}
    assert httpx.post(url, content=b'{"query": "q"}', headers=good).status_code == 200


def test_paths_and_methods_that_are_not_there_are_told_in_the_same_shape(
    make_service: MakeService,
) -> None:
    async def work(client: httpx.AsyncClient) -> list[httpx.Response]:
        return [await client.get(f"/{SECRET}"), await client.delete("/v1/decision")]

    unknown, wrong = ask(make_service(), work)
    assert (unknown.status_code, unknown.json()["error"]["code"]) == (404, "not_found")
    assert (wrong.status_code, wrong.json()["error"]["code"]) == (405, "method_not_allowed")
    assert wrong.headers["allow"] == "POST"
    assert SECRET not in unknown.text


def test_a_fault_of_the_server_tells_nothing_of_itself(make_service: MakeService) -> None:
    service = make_service()

    class Broken:
        def route(self, *_: object) -> None:
            raise RuntimeError(SECRET)

    service._explorer = Broken()  # type: ignore[assignment]
    reply = post(service, "/v1/decision", {"query": QUERY})
    assert (reply.status_code, reply.json()["error"]["code"]) == (500, "internal_error")
    assert SECRET not in reply.text


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)
OPTIONS = st.dictionaries(st.sampled_from(["k", "models", "cost_weight"]), JSON)
NEARLY = st.fixed_dictionaries(
    {"query": JSON},
    optional={"options": JSON | OPTIONS, "dataset": JSON, "decision_id": JSON, "score": JSON},
)


@settings(max_examples=80, deadline=None)
@given(st.binary() | (JSON | NEARLY).map(lambda value: json.dumps(value).encode()))
def test_any_body_is_read_or_refused_in_bounded_words(body: bytes) -> None:
    for model in (DecisionRequest, OutcomeRequest):
        with contextlib.suppress(ApiError):
            assert isinstance(parse_json(body, model), model)
            continue
        with pytest.raises(ApiError) as refusal:
            parse_json(body, model)
        assert refusal.value.status == 400
        assert 0 < len(refusal.value.message) < 1000


def test_the_openapi_schema_describes_bodies_and_failures(make_service: MakeService) -> None:
    reply = ask(make_service(), lambda client: client.get("/openapi.json"))
    schema = reply.json()
    operation = schema["paths"]["/v1/decision"]["post"]
    body = operation["requestBody"]["content"]["application/json"]["schema"]
    assert body["properties"]["options"]["properties"]["k"]["maximum"] == 50
    assert {"200", "400", "401", "413", "429"} <= set(operation["responses"])
    assert "422" not in json.dumps(sorted(operation["responses"]))
    assert "securitySchemes" not in schema["components"]
    assert "$ref" not in json.dumps(body_schema(DecisionRequest))
    keyed = make_service(keys=(KeyEntry("ann", key_digest("k")),))
    reply = ask(keyed, lambda client: client.get("/openapi.json"))
    assert reply.json()["paths"]["/v1/decision"]["post"]["security"]
    assert LOCAL not in reply.text
