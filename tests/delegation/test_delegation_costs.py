"""What tasks weigh on a batch's budget before any has run."""

from __future__ import annotations

import asyncio

import pytest
from tests.delegation.scripted import ScriptedModel

from masrouter.catalog import Catalog
from masrouter.delegation.automatic.costs import committed_usd, most_call_usd
from masrouter.delegation.naming.model_names import callable_models, learned_names, renamed
from masrouter.delegation.naming.names import Names
from masrouter.delegation.naming.offers import offers_of
from masrouter.delegation.naming.settings import Settings
from masrouter.execution import Ledger, aexecute
from masrouter.llms import ModelOptions, OpenAICompatible, Providers
from masrouter.llms.chat import Price
from masrouter.router import Router
from masrouter.types import Agent, Plan

CATALOG = Catalog.default()
QUERY = "What is the capital of France?"


@pytest.mark.parametrize("topology", ["io", "cot"])
def test_a_single_call_fits_what_is_said_to_be_the_most_it_can_cost(topology: str) -> None:
    llm = ScriptedModel({"one": "Paris"}, prices={"one": Price(3.0, 9.0, "test")})
    plan = Plan(topology, (Agent("critic", "one"),))
    most = most_call_usd(llm, CATALOG, {QUERY: 100}, otherwise=5)(QUERY, plan)
    assert most is not None

    async def run() -> float:
        ledger = Ledger(most)  # it would be refused if it could cost more
        await aexecute(plan, QUERY, llm=llm, within=ledger, max_tokens=100)
        return ledger.spent_usd

    assert 0 < asyncio.run(run()) < most
    assert most < 3 * Price(3.0, 9.0, "test").cost_usd(len(QUERY) + 2000, 100)


def test_a_plan_of_unknown_price_has_no_known_most() -> None:
    llm = ScriptedModel({"one": "4", "two": "4"}, prices={"two": None})
    plan = Plan("debate", (Agent(None, "one"), Agent(None, "two")))
    assert most_call_usd(llm, CATALOG, {}, 10)(QUERY, plan) is None


def test_what_is_committed_is_what_the_router_expects_where_it_knows_the_plan(
    router: Router,
) -> None:
    known = next(plan for plan in router.plans if plan.topology == "cot")
    here = renamed(known, {model: f"openai/{model}" for model in known.models})
    learned = {f"openai/{model}": model for model in known.models}
    unknown = Plan("debate", (Agent(None, "other"), Agent(None, "other")))
    llm = ScriptedModel({"other": "4"}, {"other": Price(1.0, 2.0, "test")})
    read = router.read([QUERY])
    expected = float(router.expect(*read, 0.0).cost[0, router.plans.index(known)])
    assert committed_usd(llm, router, [], {}, lambda *_: 0.25) == 0.0
    assert committed_usd(llm, router, [(QUERY, here)], learned, lambda *_: 0.25) == expected

    def of_unknown(most_usd: float | None) -> float:
        both = [(QUERY, here), (QUERY, unknown)]
        return committed_usd(llm, router, both, learned, lambda *_: most_usd) - expected

    tokens = router.expect(*read, 0.0).completion_tokens[0]
    assert 0 < of_unknown(0.25) < 2 * 3 * tokens.max() * 2.0 / 1e6  # as teams mostly do
    assert of_unknown(1e-9) == pytest.approx(2e-9)  # and at most what two calls can cost
    assert of_unknown(None) == 0.0


def test_a_routers_model_is_called_by_the_id_that_it_has_here(router: Router) -> None:
    small, large, *_ = models = sorted({m for plan in router.plans for m in plan.models})
    llm = Providers(
        OpenAICompatible(
            "http://127.0.0.1:9/v1", api_key="k", name="a",
            models={small: ModelOptions(), "mine": ModelOptions(name=large)},
        ),
        OpenAICompatible(
            "http://127.0.0.1:9/v1", api_key="k", name="b", models={small: ModelOptions()}
        ),
    )  # fmt: skip

    def names(**settings: object) -> Names:
        given = Settings(**settings)  # type: ignore[arg-type]
        return Names(given, offers_of(llm, given, CATALOG, (), router), has_router=True, llm=llm)

    # Two providers list the small one, so that its name alone is no call.
    assert callable_models(names(), router, budgeted=False) == {large: "a/mine"}
    chosen = names(aliases={small: f"b/{small}"})
    assert callable_models(chosen, router, budgeted=False) == {large: "a/mine", small: f"b/{small}"}
    elsewhere = names(aliases={models[2]: "a/mine"})
    assert callable_models(elsewhere, router, budgeted=False) == {large: "a/mine"}
    assert callable_models(names(refused=("a/mine",)), router, budgeted=False) == {}
    assert learned_names(names(), router, CATALOG) == {
        f"a/{small}": small, f"b/{small}": small, "a/mine": large,
    }  # fmt: skip
