"""What is offered: every kind of chat model, workers, plans, prices, keys, and names that clash."""

from __future__ import annotations

from typing import Any, cast

import pytest
from tests.delegation.offered import (
    CAREFUL,
    CATALOG,
    KEY,
    SETTINGS,
    TRANSLATOR,
    UNPRICED_WORKER,
    options,
    providers,
)
from tests.delegation.scripted import ScriptedModel

from masrouter.catalog import Catalog, ModelEntry
from masrouter.delegation.naming.offers import Offer, offers_of
from masrouter.delegation.naming.settings import Settings
from masrouter.delegation.workers.worker import Worker
from masrouter.errors import CallError, ConfigError
from masrouter.hosts.calling import HostModel
from masrouter.llms import ModelOptions, OpenAICompatible, Price, Providers
from masrouter.llms.simulated import SimulatedProvider
from masrouter.router import Router
from masrouter.types import Agent, Plan

URL = "http://127.0.0.1:9/v1"


@pytest.fixture(autouse=True)
def no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(KEY, raising=False)


def by_id(llm: Any, settings: Settings = Settings(), **more: Any) -> dict[str, Offer]:  # noqa: B008
    return {o.id: o for o in offers_of(llm, settings, **{"catalog": CATALOG, **more})}


def one_provider(**prices: float | None) -> OpenAICompatible:
    return OpenAICompatible(URL, "k", name="p", models={m: options(p) for m, p in prices.items()})


def test_models_workers_plans_and_auto_are_offered_in_this_order() -> None:
    router = cast(Router, object())
    found = offers_of(providers(), SETTINGS, workers=[TRANSLATOR, UNPRICED_WORKER], router=router)
    assert [(offer.id, offer.kind, offer.provider) for offer in found] == [
        ("openai/gpt-4o", "model", "openai"),
        ("openai/o3", "model", "openai"),
        ("openai/o3-high", "model", "openai"),
        ("openrouter/gpt-4o", "model", "openrouter"),
        ("openrouter/openai/gpt-4o", "model", "openrouter"),
        ("openrouter/stepfun/step-3.5-flash", "model", "openrouter"),
        ("openrouter/stepfun/step-3.5-flash:free", "model", "openrouter"),
        ("openrouter/llama", "model", "openrouter"),
        ("ollama/llama3.2:3b", "model", "ollama"),
        ("ollama/qwen3:thinking", "model", "ollama"),
        ("translator", "worker", None),
        ("finder", "worker", None),
        ("careful", "plan", None),
        ("auto", "auto", None),
    ]


def test_an_offer_says_all_that_is_known() -> None:
    entry = ModelEntry("llama", "Open weights; drafts.", context_window=131_072)
    found = by_id(
        providers(),
        Settings(aliases={"l": "llama", "m": "l"}, tiers={"mine": "m"}),
        catalog=Catalog({"llama": entry}, {}, {}),
    )
    assert found["openrouter/llama"] == Offer(
        id="openrouter/llama",
        kind="model",
        provider="openrouter",
        name="llama",
        own_name="meta-llama/llama-3.3-70b-instruct:free",
        aliases=("l", "m"),
        tiers=("mine",),
        description="Open weights; drafts.",
        context_window=131_072,
        price=Price(2, 2, "provider file"),
    )
    unknown = found["ollama/llama3.2:3b"]
    assert (unknown.description, unknown.context_window, unknown.price) == ("", None, None)


def test_a_key_that_is_not_set_is_said_and_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    missing = by_id(providers())["openai/gpt-4o"].credential
    assert missing == (
        f"the environment variable {KEY} is not set or empty; set it to the provider's key"
    )
    monkeypatch.setenv(KEY, "sk-secrét")
    wrong = by_id(providers())["openai/gpt-4o"].credential
    assert wrong is not None
    assert "holds characters that no key has" in wrong
    assert "secr" not in wrong
    monkeypatch.setenv(KEY, "sk-fine")
    assert by_id(providers())["openai/gpt-4o"].credential is None


def test_a_client_says_what_is_wrong_with_a_models_key_before_any_call() -> None:
    llm = providers()
    missing = f"openai/gpt-4o: the environment variable {KEY} is not set"
    for problem in (
        llm.credential_problem("openai/gpt-4o"),
        llm.endpoints["openai"].credential_problem("gpt-4o"),
        llm.endpoints["openai"].credential_problem("openai/gpt-4o"),
    ):
        assert problem is not None
        assert problem.startswith(missing)
    assert llm.credential_problem("llama") is None
    assert llm.credential_problem("ollama/anything") is None
    with pytest.raises(CallError) as raised:
        llm.credential_problem("nobody/anything")
    assert raised.value.kind == "unknown_model"


def test_settings_describe_a_model_of_each_provider_a_plan_and_a_worker() -> None:
    described = {"gpt-4o": "General.", "careful": "Two readers.", "translator": "To German."}
    settings = Settings(aliases=SETTINGS.aliases, plans=SETTINGS.plans, descriptions=described)
    found = by_id(providers(), settings, workers=[TRANSLATOR])
    for name in ("openai/gpt-4o", "openrouter/gpt-4o"):
        assert found[name].description == "General."
    assert found["careful"].description == "Two readers."
    assert found["translator"].description == "To German."
    with pytest.raises(ConfigError, match="descriptions: gpt-5: nothing has this name"):
        by_id(providers(), Settings(descriptions={"gpt-5": "Unknown."}))


def test_one_endpoint_a_simulated_provider_and_a_frameworks_models_are_listed() -> None:
    assert list(by_id(one_provider(a=1, b=2))) == ["p/a", "p/b"]
    simulated = SimulatedProvider([])
    found = by_id(simulated)
    assert list(found) == list(simulated.models)
    assert found["gpt-4o-mini"].provider is None
    assert found["gpt-4o-mini"].context_window == 128_000

    async def ask(request: object) -> Any: ...

    host = by_id(HostModel(["gpt-4o", "mine"], ask))
    assert list(host) == ["gpt-4o", "mine"]
    assert host["gpt-4o"].price is not None
    assert host["mine"].price is None


def test_a_worker_is_offered_with_its_description_and_price() -> None:
    worker = Worker(
        name="summary",
        description="Summarises.",
        run=str,
        input_usd_per_mtok=1,
        output_usd_per_mtok=2,
        context_window=1024,
    )
    found = by_id(providers(), workers=[worker])["summary"]
    assert (found.kind, found.provider, found.name) == ("worker", None, "summary")
    assert (found.description, found.context_window) == ("Summarises.", 1024)
    assert found.price is not None
    assert (found.price.input_usd_per_mtok, found.price.output_usd_per_mtok) == (1, 2)


def test_a_plan_is_offered_with_what_stands_in_its_way() -> None:
    seats = {"keyless": "best", "barred": "openrouter/gpt-4o", "lost": "gpt-9"}
    plans = {name: Plan("io", (Agent(None, model),)) for name, model in seats.items()}
    settings = Settings(
        aliases=SETTINGS.aliases,
        plans={**plans, "careful": CAREFUL},
        refused=("openrouter/gpt-4o",),
    )
    found = by_id(providers(), settings)
    assert (found["careful"].credential, found["careful"].refused) == (None, None)
    assert found["careful"].plan == CAREFUL
    assert KEY in (found["keyless"].credential or "")
    assert found["barred"].refused == "its model 'openrouter/gpt-4o': the settings refuse it"
    assert found["lost"].credential == "its model 'gpt-9': nothing has this name"


def test_models_that_only_the_settings_name_are_offered_where_they_need_not_be_listed() -> None:
    settings = Settings(
        unlisted=True,
        default="ollama/d",
        aliases={"fast": "gpt-4o-mini --provider openrouter", "same": "fast"},
        plans={"team": Plan("io", (Agent(None, "ollama/qwen3:8b"),))},
    )
    listed = list(by_id(providers()))
    found = by_id(providers(), settings)
    new = ["openrouter/gpt-4o-mini", "ollama/qwen3:8b", "ollama/d"]
    assert list(found) == [*listed, *new, "team"]
    assert found[new[0]].aliases == ("fast", "same")
    assert found[new[0]].context_window == 128_000
    assert found["team"].credential is None


# Tiers by price


def tiers(llm: Any, settings: Settings = Settings(), **more: Any) -> dict[str, str]:  # noqa: B008
    found = offers_of(llm, settings, CATALOG, **more)
    return {tier: offer.id for offer in found for tier in offer.tiers}


@pytest.mark.parametrize(
    ("prices", "small", "medium", "large"),
    [
        ({"a": 3, "b": 1, "c": 2}, "b", "c", "a"),
        ({"a": 4, "b": 1, "c": 2, "d": 3}, "b", "c", "a"),
        ({"a": 2, "b": 1}, "b", "b", "a"),
        ({"a": 2}, "a", "a", "a"),
        ({"b": 1, "a": 1, "c": 1}, "a", "b", "c"),
        ({"a": 0, "b": 5, "c": None}, "a", "a", "b"),
    ],
)
def test_tiers_follow_from_prices(
    prices: dict[str, float | None], small: str, medium: str, large: str
) -> None:
    assert tiers(one_provider(**prices)) == {
        "small": f"p/{small}",
        "medium": f"p/{medium}",
        "large": f"p/{large}",
    }


def test_three_prompt_tokens_weigh_as_one_completion_token() -> None:
    def priced(read: float, written: float) -> ModelOptions:
        return ModelOptions(price=Price(read, written, "provider file"))

    models = {"reads": priced(2.0, 1.0), "writes": priced(1.0, 3.5)}
    llm = OpenAICompatible(URL, "k", name="p", models=models)
    assert tiers(llm)["small"] == "p/writes"  # 6.5 against 7


def test_only_models_that_may_and_can_be_called_for_a_known_price_have_a_tier() -> None:
    llm, workers = providers(), [TRANSLATOR]
    assert tiers(llm, workers=workers)["large"] == "openrouter/openai/gpt-4o"
    limited = Settings(refused=("openrouter/openai/gpt-4o", "stepfun/step-3.5-flash:free"))
    assert tiers(llm, limited) == {
        "small": "openrouter/stepfun/step-3.5-flash",
        "medium": "openrouter/llama",
        "large": "openrouter/gpt-4o",
    }
    assert tiers(one_provider(a=None)) == {}


def test_a_name_that_means_something_else_is_no_tier_by_price() -> None:
    assert tiers(ScriptedModel({"small": "1", "other": "2"})) == {
        "medium": "other",
        "large": "small",
    }
    assert set(tiers(one_provider(a=1, medium=2), Settings(aliases={"large": "a"}))) == {"small"}


# Names that clash


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"aliases": {"openai/o3": "llama"}}, "aliases: openai/o3: this is the name of a model"),
        ({"aliases": {"llama": "openai/o3"}}, "aliases: llama: this is the name of openrouter/lla"),
        ({"aliases": {"gpt-4o": "openai/o3"}}, "this is the name of openai/gpt-4o, openrouter/gpt"),
        ({"aliases": {"gpt-4o": "gone"}}, "this is the name of openai/gpt-4o, openrouter/gpt"),
        ({"aliases": {"openai/gpt-5": "llama"}}, "this reads as a model of openai; take another"),
        (
            {"aliases": {"meta-llama/llama-3.3-70b-instruct:free": "o3"}},
            "the name of openrouter",
        ),
        ({"aliases": {"translator": "llama"}}, "translator: this is the name of a worker"),
        ({"tiers": {"llama": "openai/o3"}}, "tiers: llama: this is the name of openrouter/llama"),
        ({"plans": {"llama": CAREFUL}}, "plan llama: this is the name of openrouter/llama"),
        ({"plans": {"openai/x": CAREFUL}}, "plan openai/x: this reads as a model of openai"),
        ({"plans": {"translator": CAREFUL}}, "plan 'translator': the name is given twice"),
        ({"plans": {"p": Plan("debate", (Agent(None, "a"),))}}, "plans: p: agents: "),
        ({"plans": {"p": Plan("oi", (Agent(None, "a"),))}}, "plans: p: topology 'oi' is not one"),
        ({"plans": {"p": Plan("io", (Agent("critik", "a"),))}}, "plans: p: .*'critik'"),
    ],
)
def test_a_name_that_would_take_anothers_place_is_refused(
    given: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        offers_of(providers(), Settings(**given), CATALOG, [TRANSLATOR])


def test_an_alias_may_settle_which_provider_a_bare_name_means() -> None:
    settings = Settings(aliases={"gpt-4o": "openrouter/gpt-4o", "llama": "openrouter/llama"})
    found = by_id(providers(), settings)
    assert found["openrouter/gpt-4o"].aliases == ("gpt-4o",)
    assert found["openrouter/llama"].aliases == ("llama",)


@pytest.mark.parametrize("name", ["llama", "auto"])
def test_a_worker_takes_no_other_things_name(name: str) -> None:
    worker = Worker(name=name, description="Something.", run=str)
    with pytest.raises(ConfigError, match=f"worker {name}: this is the "):
        offers_of(providers(), Settings(), CATALOG, [worker])


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("a\x1b", "'a.x1b': nobody could ask for it: it holds characters that cannot be shown"),
        (" a", "' a': nobody could ask for it: it has spaces around it"),
        ("a  b", "nobody could ask for it: it has spaces around it, or several in a row"),
        ("a" * 300, "it has 300 characters, and a name at most 200"),
        ("auto", "'auto': nobody could ask for it: this is the router's own name"),
    ],
)
def test_a_listed_model_that_nobody_could_name_is_refused(name: str, why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        offers_of(ScriptedModel({name: "1"}), Settings(), CATALOG)


def test_a_provider_that_lists_a_model_with_and_without_its_own_name_is_refused() -> None:
    llm = Providers(OpenAICompatible(URL, name="p", models={"a": options(1), "p/a": options(2)}))
    with pytest.raises(ConfigError, match="provider 'p' lists 'a' and 'p/a': the latter"):
        offers_of(llm, Settings())
