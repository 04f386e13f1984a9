"""Which model a task gets: precedence, every form of a name, and what may not be called."""

from __future__ import annotations

from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.delegation.offered import (
    KEY,
    SETTINGS,
    TRANSLATOR,
    names,
    providers,
    refusal,
)
from tests.delegation.scripted import ScriptedModel

from masrouter.delegation.naming.names import Names
from masrouter.delegation.naming.offers import offers_of
from masrouter.delegation.naming.settings import Settings
from masrouter.delegation.tasks import DelegationError, Source
from masrouter.errors import ConfigError
from masrouter.types import Agent, Plan


@pytest.fixture(autouse=True)
def no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(KEY, raising=False)


def model_of(known: Names, name: str, *, budgeted: bool = False) -> str:
    """The one model that a name leads to."""
    target = known.resolve(name, budgeted=budgeted)
    assert target.plan is not None
    (agent,) = target.plan.agents
    assert agent.role is None
    return agent.model


# Precedence


@pytest.mark.parametrize(
    ("task", "call", "default", "source", "model"),
    [
        ("llama", "flash", "openrouter/gpt-4o", "task", "openrouter/llama"),
        (None, "flash", "openrouter/gpt-4o", "call", "openrouter/stepfun/step-3.5-flash"),
        (None, None, "openrouter/gpt-4o", "default", "openrouter/gpt-4o"),
        (None, None, None, "parent", "ollama/llama3.2:3b"),
    ],
)
def test_the_task_comes_before_the_call_the_default_and_the_parent(
    task: str | None, call: str | None, default: str | None, source: Source, model: str
) -> None:
    known = names(Settings(default=default, aliases=SETTINGS.aliases))
    target = known.resolve(task, call, "llama3.2:3b", budgeted=False)
    assert (target.source, target.kind) == (source, "model")
    assert target.plan == Plan("cot", (Agent(None, model),))


@pytest.mark.parametrize("bad", ["gpt-9", "openai/gpt-4o", "auto", "", " "])
def test_a_name_that_is_no_use_never_gives_way_to_the_next(bad: str) -> None:
    known = names(Settings(default="llama"))
    with pytest.raises(DelegationError) as of_task:
        known.resolve(bad, "llama", "llama", budgeted=False)
    with pytest.raises(DelegationError) as of_call:
        known.resolve(None, bad, "llama", budgeted=False)
    assert str(of_task.value).startswith(f"the task's model {bad!r}: ")
    assert str(of_call.value).startswith(f"the call's model {bad!r}: ")


def test_a_default_that_is_no_use_does_not_give_way_to_the_parent() -> None:
    with pytest.raises(DelegationError, match=r"^the configured default model 'auto': there is no"):
        names(Settings(default="auto")).resolve(parent="llama", budgeted=False)


def test_a_parent_that_nobody_offers_is_said_to_be_the_parents() -> None:
    with pytest.raises(DelegationError, match=r"^the parent's model 'claude-opus-4': nothing has"):
        names().resolve(parent="claude-opus-4", budgeted=False)


def test_where_nobody_names_a_model_the_error_says_whom_to_tell() -> None:
    with pytest.raises(DelegationError, match="nobody named a model: give `model`") as raised:
        names().resolve(budgeted=False)
    assert raised.value.error.asked is None
    assert raised.value.error.nearest


# Forms


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("openrouter/gpt-4o", "openrouter/gpt-4o"),
        ("openrouter/stepfun/step-3.5-flash", "openrouter/stepfun/step-3.5-flash"),
        ("openrouter/stepfun/step-3.5-flash:free", "openrouter/stepfun/step-3.5-flash:free"),
        ("ollama/qwen3:thinking", "ollama/qwen3:thinking"),
        # bare: one provider alone lists it
        ("llama3.2:3b", "ollama/llama3.2:3b"),
        ("stepfun/step-3.5-flash", "openrouter/stepfun/step-3.5-flash"),
        ("stepfun/step-3.5-flash:free", "openrouter/stepfun/step-3.5-flash:free"),
        # the provider's own name
        ("meta-llama/llama-3.3-70b-instruct:free", "openrouter/llama"),
        ("openrouter/meta-llama/llama-3.3-70b-instruct:free", "openrouter/llama"),
        ("meta-llama/llama-3.3-70b-instruct:free --provider openrouter", "openrouter/llama"),
        # a provider switch
        ("stepfun/step-3.5-flash --provider openrouter", "openrouter/stepfun/step-3.5-flash"),
        ("gpt-4o --provider openrouter", "openrouter/gpt-4o"),
        ("openai/gpt-4o --provider openrouter", "openrouter/openai/gpt-4o"),
        ("openrouter/openai/gpt-4o --provider openrouter", "openrouter/openai/gpt-4o"),
        ("gpt-4o   --provider \t openrouter", "openrouter/gpt-4o"),
        ("gpt-4o --provider=openrouter", "openrouter/gpt-4o"),
        # aliases and tiers
        ("flash", "openrouter/stepfun/step-3.5-flash"),
        (" flash\n", "openrouter/stepfun/step-3.5-flash"),
        ("small", "openrouter/stepfun/step-3.5-flash:free"),
        ("large", "openrouter/openai/gpt-4o"),
    ],
)
def test_a_model_is_named_in_any_form(name: str, model: str) -> None:
    assert model_of(names(), name) == model


def test_a_tier_of_ones_own_leads_where_it_says_and_the_usual_ones_are_gone() -> None:
    known = names(Settings(tiers={"tiny": "flash"}, aliases={"flash": "llama"}))
    assert model_of(known, "tiny") == "openrouter/llama"
    assert refusal(known, "small").type == "unknown_model"


def test_an_alias_leads_through_others_to_anything() -> None:
    settings = Settings(
        aliases={"a": "b", "b": "c --provider openrouter", "me": "auto", "team": "t", "w": "x"},
        plans={"t": Plan("io", (Agent(None, "llama"),))},
    )
    known = names(settings, has_router=True)
    assert known.resolve("me", budgeted=True).plan is None
    assert known.resolve("team", budgeted=True).kind == "plan"
    error = refusal(known, "a")
    assert "leads to 'b', and that leads nowhere: it leads to 'c --provider" in error.message
    assert "provider 'openrouter' does not list 'c'" in error.message


def test_a_fixed_plan_runs_on_the_models_that_its_names_lead_to() -> None:
    target = names().resolve("careful", budgeted=True)
    assert target.kind == "plan"
    critic, other = Agent("critic", "openrouter/llama"), "openrouter/stepfun/step-3.5-flash"
    assert target.plan == Plan("debate", (critic, Agent(None, other)))


def test_a_worker_is_named_by_its_name_and_asked_directly() -> None:
    target = names().resolve("translator", budgeted=True)
    assert (target.kind, target.plan) == ("worker", TRANSLATOR.plan)


def test_auto_is_left_to_the_router() -> None:
    target = names(has_router=True).resolve("auto", budgeted=True)
    assert (target.kind, target.plan, target.asked) == ("auto", None, "auto")


def test_auto_without_a_router_is_an_error() -> None:
    offers = names(has_router=True).offers
    assert refusal(Names(SETTINGS, offers, has_router=False), "auto").type == "no_router"
    error = refusal(names(), "auto")
    assert error.type == "no_router"
    assert "there is no router; give a trained checkpoint" in error.message


def test_a_chat_model_without_providers_is_asked_by_bare_names() -> None:
    llm = ScriptedModel({"gpt-4o": "4", "qwen:thinking": "5"})
    known = Names(Settings(topology="io"), offers_of(llm, Settings()), has_router=False)
    assert known.resolve("qwen:thinking", budgeted=True).plan == Plan(
        "io", (Agent(None, "qwen:thinking"),)
    )
    error = refusal(known, "gpt-4o --provider openai")
    assert "there are no providers here" in error.message
    assert error.nearest == ("gpt-4o",)


# What may not or cannot be called


@pytest.mark.parametrize(
    "name", ["openai/o3-high", "o3-high", "best", "o3 --provider openai", "openai/gpt-4o"]
)
def test_a_model_without_a_key_says_which_variable_to_set(name: str) -> None:
    error = refusal(names(), name)
    assert error.type == "no_credential"
    assert f"the environment variable {KEY} is not set or empty" in error.message


def test_a_tier_whose_model_has_no_key_does_not_slip_to_another() -> None:
    known = names(Settings(tiers={"small": "llama", "large": "openai/o3"}))
    error = refusal(known, "large")
    assert error.type == "no_credential"
    assert "the task's model 'large': it leads to 'openai/o3', and there: " in error.message


def test_a_key_that_is_set_mends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY, "sk-test")
    assert model_of(names(), "best") == "openai/o3"


def test_an_unknown_price_is_refused_under_a_budget_alone() -> None:
    known = names()
    assert model_of(known, "llama3.2:3b") == "ollama/llama3.2:3b"
    error = refusal(known, "llama3.2:3b", budgeted=True)
    assert error.type == "unknown_price"
    assert "there is a budget, and its price is unknown" in error.message
    assert known.resolve("finder", budgeted=False).kind == "worker"
    assert refusal(known, "finder", budgeted=True).type == "unknown_price"


def test_the_same_model_of_another_provider_is_nearest() -> None:
    assert refusal(names(), "openai/gpt-4o").nearest[0] == "openrouter/gpt-4o"


@pytest.mark.parametrize(
    ("seat", "budgeted", "type_", "why"),
    [
        ("best", False, "no_credential", f"its model 'best': the environment variable {KEY}"),
        ("llama3.2:3b", True, "unknown_price", "its model 'llama3.2:3b': there is a budget"),
        ("openrouter/gpt-4o", False, "not_allowed", "its model 'openrouter/gpt-4o': the settings"),
        ("gpt-9", False, "unknown_model", "its model 'gpt-9': nothing has this name"),
        ("gpt-4o", False, "unknown_model", "its model 'gpt-4o': several models go by it"),
        ("auto", False, "unknown_model", "its model 'auto' is none: a seat takes a model"),
        ("other", False, "unknown_model", "its model 'other' is none: a seat takes a model"),
    ],
)
def test_a_plan_is_refused_for_any_of_its_models(
    seat: str, budgeted: bool, type_: str, why: str
) -> None:
    plan = Plan("debate", (Agent(None, "llama"), Agent("critic", "flash"), Agent(None, seat)))
    known = names(
        Settings(
            aliases=SETTINGS.aliases,
            plans={"team": plan, "other": Plan("io", (Agent(None, "llama"),))},
            refused=("openrouter/gpt-4o",),
        ),
        has_router=True,
    )
    error = refusal(known, "team", budgeted=budgeted)
    assert error.type == type_
    assert f"the task's model 'team': {why}" in error.message
    assert "team" not in error.nearest


def test_models_of_the_routers_plans_are_usable_where_they_may_and_can_be_called() -> None:
    known = names(Settings(refused=("openrouter/gpt-4o",)), has_router=True)
    asked = ["llama", "gpt-4o", "openrouter/gpt-4o", "o3", "llama3.2:3b", "translator", "auto", "x"]
    assert [known.usable(name, budgeted=True) for name in asked] == [
        True, False, False, False, False, True, False, False,
    ]  # fmt: skip
    assert known.usable("llama3.2:3b", budgeted=False)


# Models that no file lists


def test_a_model_that_is_not_listed_may_be_named_where_the_settings_say_so() -> None:
    known = names(Settings(unlisted=True, aliases={"best": "openrouter/o9"}))
    assert model_of(known, "best") == "openrouter/o9"
    for name in ("best --provider openrouter", "small --provider ollama", "auto --provider ollama"):
        assert "goes with a model's id" in refusal(known, name).message
    assert model_of(known, "ollama/qwen3:8b") == "ollama/qwen3:8b"
    assert model_of(known, "qwen/qwen3:free --provider openrouter") == "openrouter/qwen/qwen3:free"
    assert refusal(known, "ollama/qwen3:8b", budgeted=True).type == "unknown_price"
    assert refusal(known, "openai/gpt-5").type == "no_credential"
    assert refusal(known, "qwen3:8b").type == "unknown_model"
    assert refusal(known, "openrouter/a b").type == "unknown_model"
    assert refusal(known, "flush --provider openrouter x").type == "unknown_model"
    colon = refusal(known, "openrouter:qwen/qwen3")
    assert colon.nearest[:2] == ("openrouter/qwen/qwen3", "qwen/qwen3 --provider openrouter")


def test_unlisted_models_need_the_chat_model() -> None:
    settings = Settings(unlisted=True)
    with pytest.raises(ConfigError, match="unlisted: needs the chat model"):
        Names(settings, offers_of(providers(), settings), has_router=False)


def test_a_chat_model_that_lists_nothing_takes_any_name_where_the_settings_say_so() -> None:
    class Opaque(ScriptedModel):
        models = None  # type: ignore[assignment]

    settings = Settings(unlisted=True)
    llm = Opaque({"gpt-4o": "4"})
    known = Names(settings, offers_of(llm, settings), has_router=False, llm=llm)
    assert model_of(known, "gpt-4o", budgeted=True) == "gpt-4o"
    assert refusal(known, "auto").type == "no_router"


# Properties

_WORLDS: dict[str, tuple[Settings, bool]] = {
    "plain": (SETTINGS, False),
    "limited": (Settings(allowed=("openrouter/*", "translator"), refused=("gpt-4o",)), False),
    "unlisted": (Settings(unlisted=True, refused=("openrouter/gpt-4o",)), True),
}


@cache
def world(name: str) -> Names:
    settings, has_router = _WORLDS[name]
    return names(settings, has_router=has_router)


_PARTS = st.sampled_from(
    ["openai", "openrouter", "ollama", "gpt-4o", "stepfun/step-3.5-flash", "llama3.2:3b", "llama",
     "flash", "best", "small", "careful", "translator", "auto", ":free", ":", "/", "-", ".", " ",
     " --provider ", " --provider=", "--provider", "GPT", "O3", "o3-high", "\t", "\x00", "é", "*"]
)  # fmt: skip
_ASKED = st.lists(_PARTS, max_size=6).map("".join) | st.text(max_size=30)


@given(of=st.sampled_from(sorted(_WORLDS)), asked=_ASKED, budgeted=st.booleans())
def test_every_name_that_is_offered_instead_resolves(of: str, asked: str, budgeted: bool) -> None:
    known = world(of)
    try:
        target = known.resolve(asked, budgeted=budgeted)
    except DelegationError as raised:
        error = raised.error
        assert error.message.isprintable()
        assert error.asked is not None
        assert error.asked.isprintable()
        assert 1 <= len(error.nearest) <= 5
        assert len(set(error.nearest)) == len(error.nearest)
        found = [known.resolve(name, budgeted=budgeted) for name in error.nearest]
        things = [(t.kind, t.plan) for t in found if "--provider" not in t.asked]
        assert all(things.count(thing) == 1 for thing in things)
    else:
        assert target.source == "task"
        assert target.asked == " ".join(asked.split())
