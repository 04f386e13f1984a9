"""Names that lead nowhere: each mistake says what it is, and which names do work."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.delegation.offered import CATALOG, KEY, names, options, refusal
from tests.delegation.scripted import ScriptedModel

from masrouter.delegation.naming.names import Names
from masrouter.delegation.naming.offers import offers_of
from masrouter.delegation.naming.settings import Settings
from masrouter.delegation.policies.specs import Deliberate
from masrouter.delegation.tasks import DelegationError
from masrouter.llms import OpenAICompatible, Providers
from masrouter.types import Agent, Plan

URL = "http://127.0.0.1:9/v1"


@pytest.fixture(autouse=True)
def no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(KEY, raising=False)


@pytest.mark.parametrize(
    ("name", "why", "nearest"),
    [
        # a colon as if it were the slash
        (
            "openrouter:gpt-4o",
            "a colon is part of a model's id and never stands behind a provider; write "
            "`openrouter/gpt-4o` or `gpt-4o --provider openrouter`",
            ["openrouter/gpt-4o", "gpt-4o --provider openrouter"],
        ),
        (
            "openrouter:stepfun/step-3.5-flash:free",
            "write `openrouter/stepfun/step-3.5-flash:free` or",
            ["openrouter/stepfun/step-3.5-flash:free"],
        ),
        ("openrouter: llama", "write `openrouter/llama` or", ["openrouter/llama"]),
        ("openrouter:flash", "write `openrouter/model` or `model --provider", ["flash"]),
        ("azure:llama", "a colon is part of a model's id", ["llama"]),
        ("openrouter:gpt-5", "write `openrouter/model` or", ["openrouter/gpt-4o"]),
        # a model that is another than the one with the same beginning
        ("llama:free", "nothing has this name", ["openrouter/llama"]),
        ("llama3.2", "nothing has this name", ["ollama/llama3.2:3b"]),
        # a provider switch that cannot be meant
        ("gpt-4o --provider", "there is no provider behind --provider", ["openrouter/gpt-4o"]),
        ("--provider openrouter", "there is no model before --provider", []),
        ("--provider", "there is no model before --provider", []),
        ("--provider=openrouter", "there is no model before --provider", []),
        (
            "gpt-4o --provider azure",
            "there is no provider 'azure', only 'openai', 'openrouter', 'ollama'",
            ["gpt-4o --provider openrouter"],
        ),
        (
            "llama --provider openai --provider openrouter",
            "--provider stands more than once",
            ["llama --provider openrouter"],
        ),
        (
            "llama --provider openrouter --provider openai",
            "--provider stands more than once",
            ["llama --provider openrouter"],
        ),
        ("gpt-4o --provider --provider", "there is no provider behind --provider", []),
        (
            "llama --provider ollama",
            "provider 'ollama' does not list 'llama'",
            ["openrouter/llama"],
        ),
        (
            "openai/llama --provider openrouter",
            "provider 'openrouter' does not list 'openai/llama'",
            ["openrouter/llama"],
        ),
        (
            "flash --provider openrouter",
            "goes with a model's id, and 'flash' is an alias",
            ["flash"],
        ),
        ("small --provider openrouter", "goes with a model's id, and 'small' is a tier", ["small"]),
        ("careful --provider openrouter", "and 'careful' is a plan; leave", ["careful"]),
        ("translator --provider openrouter", "and 'translator' is a worker", ["translator"]),
        ("auto --provider openrouter", "and 'auto' is the router", []),
        # several, or none
        (
            "gpt-4o",
            "several models go by it; name one: openai/gpt-4o, openrouter/gpt-4o",
            ["openrouter/gpt-4o"],
        ),
        (
            "openai/stepfun/step-3.5-flash",
            "provider 'openai' does not list 'stepfun/step-3.5-flash'",
            ["openrouter/stepfun/step-3.5-flash"],
        ),
        ("openrouter/", "the model is missing", []),
        ("/gpt-4o", "there is no provider '', only", ["openrouter/gpt-4o"]),
        ("anthropic/llama", "there is no provider 'anthropic', only 'openai'", ["llama"]),
        # letters, spaces, typing errors
        ("Flash", "letters' case counts, and 'flash' is there", ["flash"]),
        (
            "OpenRouter/GPT-4o",
            "letters' case counts, and 'openrouter/gpt-4o'",
            ["openrouter/gpt-4o"],
        ),
        ("step 3.5 flash", "a name has no spaces, but for `model --provider provider`", ["flash"]),
        ("translater", "nothing has this name", ["translator"]),
        ("stepfun/step-3.5-flsh", "nothing", ["stepfun/step-3.5-flash"]),
        ("claude-flash", "nothing has this name", ["flash"]),
    ],
)
def test_what_leads_nowhere_says_why_and_what_works(
    name: str, why: str, nearest: list[str]
) -> None:
    known = names()
    error = refusal(known, name)
    assert (error.type, error.asked, error.retryable) == ("unknown_model", name, False)
    assert error.message.startswith(f"the task's model {name!r}: ")
    assert why in error.message or why == "nothing"
    assert list(error.nearest[: len(nearest)]) == nearest
    assert error.message.endswith(f"; names that work: {', '.join(error.nearest)}")


@pytest.mark.parametrize(
    ("name", "why", "asked"),
    [
        ("", "it is empty", ""),
        (" \n\t", "it is empty", "' \\n\\t'"),
        ("a\x1b[31mred", "it holds characters that cannot be shown", "'a\\x1b[31mred'"),
        ("a\nb", "it holds characters that cannot be shown", "'a\\nb'"),
        ("half\ud800", "it holds characters that cannot be shown", "'half\\ud800'"),
        ("\u202eopenai", "it holds characters that cannot be shown", "'\\u202eopenai'"),
        ("x" * 100_000, "it has 100000 characters, and a name at most 200", None),
        ("a:" * 90, "nothing has this name", "a:" * 90),
    ],
)
def test_a_name_that_is_none_is_shown_harmlessly(name: str, why: str, asked: str | None) -> None:
    error = refusal(names(), name)
    assert error.type == "unknown_model"
    assert why in error.message
    assert error.message.isprintable()
    assert len(error.message) < 600
    assert error.asked is not None
    assert error.asked == asked or (asked is None and len(error.asked) < 200)
    assert error.nearest
    json.dumps(error.to_json(), ensure_ascii=False).encode()


def test_the_nearest_names_are_of_different_things_but_for_both_ways_to_write_one() -> None:
    nearest = refusal(names(), "openrouter:llama").nearest
    assert nearest[:2] == ("openrouter/llama", "llama --provider openrouter")
    assert not {"llama", "meta-llama/llama-3.3-70b-instruct:free"} & set(nearest)
    nearest = refusal(names(), "step 3.5 flash").nearest
    assert nearest[0] == "flash"
    same = {"stepfun/step-3.5-flash", "openrouter/stepfun/step-3.5-flash"}
    assert not same & set(nearest)


def test_a_colon_behind_a_models_own_name_is_taken_for_no_providers() -> None:
    error = refusal(names(), "llama:flash")
    assert "nothing has this name" in error.message
    assert "colon" not in error.message


def test_an_own_name_that_two_models_share_is_asked_about() -> None:
    models = {"low": options(1, "o3"), "high": options(2, "o3")}
    llm = OpenAICompatible("http://127.0.0.1:9/v1", "k", name="p", models=models)
    known = Names(Settings(), offers_of(llm, Settings(), CATALOG), has_router=False)
    for name in ("o3", "p/o3", "o3 --provider p"):
        assert refusal(known, name).nearest[:2] == ("p/low", "p/high")


@pytest.mark.parametrize("name", [5, True, ["flash"], {"model": "flash"}])
def test_a_name_that_is_no_text_is_an_invalid_task(name: Any) -> None:
    error = refusal(names(), name)
    assert error.type == "invalid_task"
    assert f"expected a name, got {type(name).__name__}" in error.message


def test_without_any_model_the_error_says_so() -> None:
    known = Names(Settings(), offers_of(ScriptedModel({}), Settings()), has_router=False)
    error = refusal(known, "gpt-4o")
    assert error.message.endswith("the chat model lists no models that could be named")
    assert error.nearest == ()


def without_keys(settings: Settings = Settings(), **keys: str) -> Names:  # noqa: B008
    """Two providers, p with two models and q with one; keys: those that are set."""
    llm = Providers(
        OpenAICompatible(URL, **key(keys, "p"), models={"a": options(1), "b": options(2)}),
        OpenAICompatible(URL, **key(keys, "q"), models={"c": options(3)}),
    )
    return Names(settings, offers_of(llm, settings, CATALOG), has_router=False, llm=llm)


def key(keys: dict[str, str], name: str) -> dict[str, Any]:
    return {"name": name, "api_key": keys[name]} if name in keys else {
        "name": name, "api_key_env": KEY,
    }  # fmt: skip


@pytest.mark.parametrize("tier", ["small", "medium", "large"])
def test_a_tier_that_no_key_lets_be_is_no_wrong_name(tier: str) -> None:
    why = f"the environment variable {KEY} is not set or empty; set it to the provider's key"
    error = refusal(without_keys(), tier)
    assert (error.type, error.nearest) == ("no_credential", ())
    assert error.message == (
        f"the task's model {tier!r}: it is a tier, and none of the 3 models can be called: "
        f"p: {why}; q: {why}"
    )
    assert without_keys(q="k").resolve(tier, budgeted=True).plan is not None
    assert refusal(without_keys(), "smal").type == "unknown_model"
    assert refusal(without_keys(Settings(tiers={"x": "a"})), tier).type == "unknown_model"
    # What the settings refuse does not count, and gets in by no key.
    of_q = refusal(without_keys(Settings(refused=("p/*",)), p="k"), tier)
    assert f"the only model cannot be called: q: {why}" in of_q.message


def test_a_tier_without_keys_is_said_of_what_is_made_of_it_too() -> None:
    settings = Settings(
        aliases={"fast": "small"},
        plans={"team": Plan("io", (Agent(None, "small"),))},
        policies={"careful": Deliberate(cheap="small", strong="large")},
    )
    known = without_keys(settings)
    for name in ("fast", "team", "careful"):
        error = refusal(known, name)
        assert error.type == "no_credential"
        assert "it is a tier, and none of the 3 models can be called: p: " in error.message


@pytest.mark.parametrize(
    ("name", "key"),
    [("local/llama", "llama"), ("local/qwen3:8b", "qwen3:8b"), ("x, y --provider local", '"x, y"')],
)
def test_of_a_provider_that_lists_no_models_it_says_how_to_give_one(name: str, key: str) -> None:
    local = OpenAICompatible(URL, "k", name="local")
    llm = Providers(local, OpenAICompatible(URL, "k", name="p", models={"a": options(1)}))
    known = Names(Settings(), offers_of(llm, Settings(), CATALOG), has_router=False, llm=llm)
    error = refusal(known, name)
    assert error.type == "unknown_model"
    assert (
        f"provider 'local' lists no models: add `models: {{{key}: }}` to it in the providers file, "
        "or set `unlisted: true` in the settings"
    ) in error.message
    assert "provider 'p' does not list 'llama'" in refusal(known, "p/llama").message


def test_names_to_begin_with_stand_by_size() -> None:
    models = {"dear": options(3), "cheap": options(1), "middling": options(2)}
    llm = OpenAICompatible(URL, "k", name="p", models=models)
    aliased = Settings(aliases={"x": "y", "y": "p/z"}, unlisted=True)
    for given in (Settings(), aliased):
        known = Names(given, offers_of(llm, given, CATALOG), has_router=False, llm=llm)
        assert refusal(known, "wholly-other").nearest[:3] == ("small", "medium", "large")
        with pytest.raises(DelegationError, match=r"\(one of small, medium, large[,)]"):
            known.resolve(budgeted=False)
