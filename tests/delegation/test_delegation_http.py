"""A batch over three providers that are real HTTP servers, each with a key of its own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from tests.llms.faulty_server import Behaviour, Exchange, FaultyServer, answer, completion, status

from masrouter.delegation.delegator import Delegator
from masrouter.delegation.episodes.log import EpisodeLog, read_episodes
from masrouter.delegation.naming.settings import Settings
from masrouter.delegation.query import read_query
from masrouter.delegation.tasks import Batch, Task
from masrouter.execution import Ledger
from masrouter.llms import Providers
from masrouter.router import Router

NAMES = ("alpha", "beta", "gamma")


def keyed(key: str, behave: Behaviour) -> Behaviour:
    """A provider that knows one key and refuses every other."""

    async def checked(exchange: Exchange) -> None:
        sent = exchange.received.headers.get("authorization")
        await (behave if sent == f"Bearer {key}" else status(401, "wrong key"))(exchange)

    return checked


def signed(name: str) -> Behaviour:
    """An answer that says whose it is, by a model that calls itself otherwise than it was asked."""

    async def behave(exchange: Exchange) -> None:
        exchange.bill(1)
        await exchange.respond(200, completion(f"I am {name}", f"{name}-v2"))

    return behave


def met(barrier: threading.Barrier, behave: Behaviour) -> Behaviour:
    """An answer that comes only when every server has a request in hand at the same time."""

    async def wait(exchange: Exchange) -> None:
        try:
            await asyncio.to_thread(barrier.wait, 10)
        except threading.BrokenBarrierError:
            await status(400, "the others never came")(exchange)
            return
        await behave(exchange)

    return wait


@pytest.fixture
def servers(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, FaultyServer]]:
    with ExitStack() as running:
        for name in NAMES:
            monkeypatch.setenv(f"{name.upper()}_KEY", f"key-of-{name}")
        yield {
            name: running.enter_context(
                FaultyServer(otherwise=keyed(f"key-of-{name}", signed(name)))
            )
            for name in NAMES
        }


@pytest.fixture
def providers(servers: dict[str, FaultyServer], tmp_path: Path) -> Providers:
    file = tmp_path / "providers.yaml"
    entries = [
        f"""
  {name}:
    base_url: {server.base_url}
    api_key_env: {name.upper()}_KEY
    input_usd_per_mtok: {server.input_usd_per_mtok}
    output_usd_per_mtok: {server.output_usd_per_mtok}
    retry: {{tries: 1}}
    models: {{{name}-model:, "shared:free":, {name}-large:}}"""
        for name, server in servers.items()
    ]
    file.write_text("providers:" + "".join(entries), encoding="utf-8")
    return Providers.load(file)


def delegated(
    llm: Providers, *tasks: Task, settings: Settings | None = None, **options: object
) -> Batch:
    async def work() -> Batch:
        async with llm:
            return await Delegator(llm, settings).delegate_tasks(tasks, **options)  # type: ignore[arg-type]

    return asyncio.run(work())


def test_three_providers_work_at_the_same_time_each_with_its_own_key(
    servers: dict[str, FaultyServer], providers: Providers
) -> None:
    barrier = threading.Barrier(3)
    for name, server in servers.items():
        server.otherwise = keyed(f"key-of-{name}", met(barrier, answer(f"I am {name}")))
    batch = delegated(providers, *(Task("Who?", model=f"{name}/{name}-model") for name in NAMES))
    assert [result.answer for result in batch.results] == [f"I am {name}" for name in NAMES]
    for name, server in servers.items():
        assert [call.headers["authorization"] for call in server.calls] == [f"Bearer key-of-{name}"]


def test_a_provider_that_is_down_fails_its_own_task_alone(
    servers: dict[str, FaultyServer], providers: Providers
) -> None:
    servers["beta"].__exit__(None, None, None)
    try:
        batch = delegated(
            providers, *(Task("Who?", model=f"{name}-model") for name in NAMES), budget_usd=0.5
        )
    finally:
        servers["beta"].__enter__()
    first, down, last = batch.results
    assert (first.answer, last.answer) == ("I am alpha", "I am gamma")
    error = down.to_json()["error"]
    assert (error["type"], error["asked"], error["retryable"]) == ("provider", "beta-model", True)
    assert "beta/beta-model" in error["message"]
    assert down.usage.cost_usd == 0


@pytest.mark.parametrize(
    ("behave", "retryable"),
    [
        (status(500, "on fire"), True),
        (status(429, "slow down"), True),
        (status(403, "not you"), False),
        (status(400, "bad words"), False),
    ],
)
def test_what_a_provider_answers_is_told_to_its_own_task(
    servers: dict[str, FaultyServer], providers: Providers, behave: Behaviour, retryable: bool
) -> None:
    servers["gamma"].otherwise = behave
    good, bad = delegated(
        providers, Task("Who?", model="alpha-model"), Task("Who?", model="gamma-model")
    ).results
    assert good.answer == "I am alpha"
    assert bad.error is not None
    assert (bad.error.type, bad.error.retryable) == ("provider", retryable)
    assert "key-of-gamma" not in str(bad.to_json())


def test_a_key_that_is_not_set_is_found_before_anything_is_sent(
    servers: dict[str, FaultyServer], providers: Providers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("BETA_KEY")
    good, bad = delegated(
        providers, Task("Who?", model="alpha-model"), Task("Who?", model="beta-model")
    ).results
    assert good.answer == "I am alpha"
    assert bad.error is not None
    assert bad.error.type == "no_credential"
    assert "BETA_KEY" in bad.error.message
    assert servers["beta"].calls == []


def test_every_form_of_a_model_reaches_the_provider_that_is_meant(
    servers: dict[str, FaultyServer], providers: Providers
) -> None:
    settings = Settings(aliases={"quick": "beta/beta-model"}, tiers={"small": "quick"})
    asked = {
        "alpha/alpha-model": "alpha",
        "alpha-large": "alpha",
        "shared:free --provider gamma": "gamma",
        "gamma/shared:free": "gamma",
        "quick": "beta",
        "small": "beta",
    }
    batch = delegated(providers, *(Task("Who?", model=name) for name in asked), settings=settings)
    assert [r.answer for r in batch.results] == [f"I am {name}" for name in asked.values()]
    assert [r.models for r in batch.results] == [(f"{name}-v2",) for name in asked.values()]
    assert {call.model for call in servers["gamma"].calls} == {"shared:free"}


def test_an_answer_of_one_provider_reaches_another_that_needs_it(
    servers: dict[str, FaultyServer], providers: Providers
) -> None:
    delegated(
        providers,
        Task("Sum up.", model="beta-model", needs=("read",)),
        Task("Read.", model="alpha-model", id="read"),
    )
    (call,) = servers["beta"].calls
    assert dict(read_query(call.messages[-1][1]).results) == {"read": "I am alpha"}


def test_the_budget_holds_for_what_the_servers_bill(
    servers: dict[str, FaultyServer], providers: Providers
) -> None:
    for name, server in servers.items():
        server.otherwise = keyed(f"key-of-{name}", answer("word" * 500))
    tasks = [Task("Write.", model=f"{NAMES[i % 3]}-model", max_tokens=600) for i in range(12)]
    batch = delegated(providers, *tasks, budget_usd=0.006)
    billed = sum(server.billed_usd for server in servers.values())
    assert billed <= 0.006
    assert batch.usage.cost_usd == pytest.approx(billed)
    kinds = {result.error.type for result in batch.failed if result.error is not None}
    assert kinds == {"budget"}
    assert 0 < len(batch.failed) < 12


def test_cancelling_ends_the_calls_of_all_providers(
    servers: dict[str, FaultyServer], providers: Providers
) -> None:
    for server in servers.values():
        server.latency_s = 30

    async def work() -> Ledger:
        outer = Ledger(1.0)
        async with providers:
            tasks = [Task("Who?", model=f"{name}-model") for name in NAMES]
            batch = asyncio.create_task(Delegator(providers).delegate_tasks(tasks, within=outer))
            while not all(server.in_flight for server in servers.values()):
                await asyncio.sleep(0.005)
            batch.cancel()
            with pytest.raises(asyncio.CancelledError):
                await batch
        return outer

    assert asyncio.run(work()).reserved_usd == 0


def test_auto_calls_the_routers_models_by_the_names_that_they_have_here(
    router: Router,
    servers: dict[str, FaultyServer],
    texts: list[str],
    tmp_path: Path,
) -> None:
    """Two providers list the same model, so that its bare name is no call; an alias says which."""
    models = sorted({model for plan in router.plans for model in plan.models})
    file = tmp_path / "both.yaml"
    entries = [
        f"""
  {name}:
    base_url: {servers[name].base_url}
    api_key_env: {name.upper()}_KEY
    models: {{{", ".join(f"{model}:" for model in models)}}}"""
        for name in NAMES[:2]
    ]
    file.write_text("providers:" + "".join(entries), encoding="utf-8")
    settings = Settings(aliases={model: f"beta/{model}" for model in models})
    log = EpisodeLog(tmp_path / "episodes.jsonl")

    async def work() -> Batch:
        async with Providers.load(file) as llm:
            delegator = Delegator(llm, settings, router=router, episodes=log)
            return await delegator.delegate_tasks([Task(text, model="auto") for text in texts[:4]])

    batch = asyncio.run(work())
    assert not batch.failed
    assert servers["alpha"].calls == []
    for result in batch.results:
        assert result.plan is not None
        assert all(model.startswith("beta/") for model in result.plan.models)
    (episode,) = read_episodes(log.path).episodes
    logged = {node.query: node.plan for node in episode.nodes}
    assert logged == {text: router.route(text).plan for text in texts[:4]}
