"""What may be called: whatever form a name has, it comes through one gate."""

from __future__ import annotations

import pytest
from tests.delegation.offered import (
    CATALOG,
    KEY,
    SETTINGS,
    TRANSLATOR,
    names,
    options,
    providers,
    refusal,
)

from masrouter.delegation.naming.offers import offers_of
from masrouter.delegation.naming.settings import Settings
from masrouter.errors import ConfigError
from masrouter.llms import OpenAICompatible
from masrouter.types import Agent, Plan


@pytest.fixture(autouse=True)
def no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(KEY, raising=False)


TEAM = Plan("debate", (Agent(None, "gpt-4o --provider openrouter"), Agent(None, "flash")))


def limited(**lists: tuple[str, ...]) -> Settings:
    return Settings(
        aliases={**SETTINGS.aliases, "strong": "openrouter/gpt-4o", "stronger": "strong"},
        tiers={"large": "strong", "small": "flash"},
        plans={"team": TEAM},
        **lists,
    )


@pytest.mark.parametrize(
    "refused", ["openrouter/gpt-4o", "gpt-4o", "strong", "large", "gpt-4o --provider openrouter"]
)
@pytest.mark.parametrize(
    "name",
    [
        "openrouter/gpt-4o",
        "gpt-4o --provider openrouter",
        "gpt-4o --provider=openrouter",
        "openrouter/gpt-4o --provider openrouter",
        "strong",
        "stronger",
        "large",
        "team",
    ],
)
def test_what_is_refused_by_any_name_is_refused_by_every_name(refused: str, name: str) -> None:
    known = names(limited(refused=(refused,)), has_router=True)
    error = refusal(known, name)
    assert error.type == "not_allowed"
    assert "the settings refuse it" in error.message
    assert not {"openrouter/gpt-4o", "strong", "large", "team"} & set(error.nearest)
    assert known.resolve("flash", budgeted=True).kind == "model"
    assert not known.usable("openrouter/gpt-4o", budgeted=False)


def test_a_bare_name_refuses_every_providers_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY, "sk-test")
    by_name = names(Settings(refused=("gpt-4o",)))
    assert refusal(by_name, "openai/gpt-4o").type == "not_allowed"
    assert refusal(by_name, "openrouter/gpt-4o").type == "not_allowed"
    assert by_name.resolve("openrouter/openai/gpt-4o", budgeted=True).kind == "model"
    by_id = names(Settings(refused=("openai/gpt-4o",)))
    assert refusal(by_id, "openai/gpt-4o").nearest[0] == "openrouter/gpt-4o"


def test_a_provider_is_refused_as_a_whole() -> None:
    known = names(Settings(refused=("openrouter/*",)))
    for name in ("openrouter/llama", "llama", "stepfun/step-3.5-flash --provider openrouter"):
        assert refusal(known, name).type == "not_allowed"
    assert known.resolve("ollama/llama3.2:3b", budgeted=False).kind == "model"


def test_all_workers_are_allowed_or_refused_at_once() -> None:
    known = names(Settings(allowed=("openrouter/*", "workers/*"), refused=("finder",)))
    assert known.resolve("translator", budgeted=True).kind == "worker"
    assert known.resolve("llama", budgeted=True).kind == "model"
    for name in ("finder", "ollama/llama3.2:3b"):
        assert refusal(known, name).type == "not_allowed"
    without = names(Settings(refused=("workers/*",)))
    assert refusal(without, "translator").type == "not_allowed"
    assert without.resolve("llama", budgeted=True).kind == "model"
    # Settings serve where there are no workers too.
    assert names(Settings(allowed=("llama", "workers/*")), workers=())


def test_a_provider_that_is_called_workers_is_meant_by_its_name() -> None:
    llm = OpenAICompatible(
        "http://127.0.0.1:9/v1", "k", name="workers", models={"gpt-4o": options(5)}
    )
    found = offers_of(llm, Settings(allowed=("workers/*",)), CATALOG, [TRANSLATOR])
    assert {offer.id: offer.refused is None for offer in found} == {
        "workers/gpt-4o": True,
        "translator": False,
    }
    with pytest.raises(ConfigError, match=r"name models, tiers, `provider/\*` or workers$"):
        offers_of(llm, Settings(allowed=("nobody/*",)), CATALOG, [TRANSLATOR])


def test_another_name_of_a_refused_model_is_refused_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY, "sk-test")
    whole = names(Settings(refused=("openai/o3",)))
    assert refusal(whole, "openai/o3-high").type == "not_allowed"
    one_way = names(Settings(refused=("openai/o3-high",)))
    assert one_way.resolve("openai/o3", budgeted=True).kind == "model"
    by_own_name = names(Settings(refused=("meta-llama/llama-3.3-70b-instruct:free",)))
    assert refusal(by_own_name, "llama").type == "not_allowed"


def test_plans_workers_and_auto_may_be_refused() -> None:
    known = names(limited(refused=("team", "translator", "auto")), has_router=True)
    for name in ("team", "translator", "auto"):
        assert refusal(known, name).type == "not_allowed"
    assert refusal(names(Settings(refused=("auto",))), "auto").type == "no_router"


@pytest.mark.parametrize(
    "allowed", ["stepfun/step-3.5-flash", "flash", "small", "openrouter/stepfun/step-3.5-flash"]
)
def test_where_something_is_allowed_nothing_else_is(allowed: str) -> None:
    known = names(limited(allowed=(allowed,)), has_router=True)
    for name in ("small", "flash", "openrouter/stepfun/step-3.5-flash"):
        assert known.resolve(name, budgeted=True).kind == "model"
    for name in ("llama", "strong", "translator", "team", "llama3.2:3b", "openai/o3"):
        error = refusal(known, name)
        assert error.type == "not_allowed"
        assert "it is not among what the settings allow" in error.message
        assert all(known.resolve(near, budgeted=False) for near in error.nearest)
    # The router stays, with the models that may be called.
    assert known.resolve("auto", budgeted=True).kind == "auto"
    assert not known.usable("llama", budgeted=True)


def test_a_plan_may_run_where_all_of_its_models_may() -> None:
    known = names(limited(allowed=("flash", "openrouter/gpt-4o")))
    assert known.resolve("team", budgeted=True).kind == "plan"


def test_what_is_refused_stays_so_whatever_is_allowed() -> None:
    known = names(Settings(allowed=("openrouter/*",), refused=("llama",)))
    assert refusal(known, "llama").type == "not_allowed"
    assert known.resolve("openrouter/gpt-4o", budgeted=True).kind == "model"


@pytest.mark.parametrize(
    "name",
    ["openrouter/openai/o1", "OpenAI/o1 --provider openrouter", "openrouter/OPENAI/O1"],
)
def test_a_refused_model_that_is_not_listed_cannot_be_named_in_other_letters(name: str) -> None:
    for refused in ("openrouter/openai/o1", "o1"):
        settings = Settings(
            unlisted=True, aliases={"o1": "openrouter/openai/o1"}, refused=(refused,)
        )
        known = names(settings)
        assert refusal(known, name).type == "not_allowed"
        assert refusal(known, "o1").type == "not_allowed"
        assert known.resolve("openrouter/openai/o4", budgeted=False).kind == "model"


@pytest.mark.parametrize(
    "name", ["openrouter/GPT-4o", "openrouter/META-llama/Llama-3.3-70b-instruct:free"]
)
def test_a_listed_model_that_is_refused_is_not_reached_as_one_that_is_not_listed(name: str) -> None:
    known = names(Settings(unlisted=True, refused=("openrouter/gpt-4o", "llama")))
    assert refusal(known, name).type == "not_allowed"


def test_a_bare_name_that_nobody_lists_is_refused_at_every_provider() -> None:
    known = names(Settings(unlisted=True, refused=("gpt-5",)))
    for name in ("openrouter/gpt-5", "ollama/GPT-5", "gpt-5 --provider openrouter"):
        assert refusal(known, name).type == "not_allowed"
    listed_by_one = names(Settings(unlisted=True, refused=("llama",)))
    assert refusal(listed_by_one, "ollama/llama").type == "not_allowed"


def test_of_what_is_not_listed_too_only_what_is_allowed_may_be_called() -> None:
    settings = Settings(
        unlisted=True,
        aliases={"old": "openrouter/old"},
        allowed=("ollama/*", "openrouter/openai/o1", "old"),
    )
    known = names(settings)
    assert known.resolve("openrouter/old", budgeted=False).kind == "model"
    assert known.resolve("ollama/anything", budgeted=False).kind == "model"
    assert known.resolve("openai/o1 --provider openrouter", budgeted=False).kind == "model"
    for name in ("openrouter/openai/O1", "openrouter/openai/o1:free", "openrouter/llama"):
        assert refusal(known, name).type == "not_allowed"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (limited(refused=("openai/gpt4o",)), "refused: openai/gpt4o: this leads to nothing"),
        (
            limited(allowed=("gpt4o",)),
            r"allowed: gpt4o: this leads to nothing that is offered; name models, tiers, "
            r"`provider/\*`, workers or `workers/\*`$",
        ),
        (limited(refused=("azure/*",)), r"refused: azure/\*: there is no such provider, only op"),
        (limited(allowed=("worker/*",)), r"only openai, .*, workers or `workers/\*`$"),
        (limited(allowed=("team",)), "allowed: team: name models instead"),
        (limited(allowed=("auto",)), "allowed: auto: this leads to nothing"),
        (Settings(refused=("large",)), "refused: large: this tier follows from prices, and from"),
        (
            Settings(unlisted=True, allowed=("azure/gpt-5",)),
            "allowed: azure/gpt-5: this leads to nothing",
        ),
    ],
)
def test_an_entry_that_means_nothing_is_a_mistake(settings: Settings, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        offers_of(providers(), settings, CATALOG, [TRANSLATOR])


def test_offers_say_what_may_not_be_called() -> None:
    found = {offer.id: offer.refused for offer in names(limited(refused=("strong",))).offers}
    assert found["openrouter/gpt-4o"] == "the settings refuse it"
    assert found["team"] == ("its model 'gpt-4o --provider openrouter': the settings refuse it")
    assert found["openrouter/llama"] is None
