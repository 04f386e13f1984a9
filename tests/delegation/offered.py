"""A world of models for tests of names: three providers, of which one has no key."""

from __future__ import annotations

from collections.abc import Sequence

from masrouter.catalog import Catalog
from masrouter.delegation.naming.names import Names
from masrouter.delegation.naming.offers import offers_of
from masrouter.delegation.naming.settings import Settings
from masrouter.delegation.tasks import DelegationError, TaskError
from masrouter.delegation.workers.worker import Worker
from masrouter.llms import ModelOptions, OpenAICompatible, Price, Providers
from masrouter.types import Agent, Plan

CATALOG = Catalog.default()

KEY = "MASROUTER_TEST_ABSENT_KEY"
"""The variable of the provider without a key."""

TRANSLATOR = Worker(
    name="translator", description="Translates English to German.", run=str, usd_per_call=0.001
)
UNPRICED_WORKER = Worker(name="finder", description="Finds passages.", run=str)

CAREFUL = Plan("debate", (Agent("critic", "llama"), Agent(None, "flash")))
"""Its models are a bare name and an alias."""


def options(price: float | None, own_name: str | None = None) -> ModelOptions:
    """A model that costs so much per million tokens, prompt or completion."""
    known = None if price is None else Price(price, price, "provider file")
    return ModelOptions(name=own_name, price=known)


def providers() -> Providers:
    """openai has no key, openrouter has one, ollama needs none and nobody knows its prices."""
    return Providers(
        OpenAICompatible(
            "http://127.0.0.1:9/v1",
            name="openai",
            api_key_env=KEY,
            models={"gpt-4o": options(5), "o3": options(9), "o3-high": options(9, "o3")},
        ),
        OpenAICompatible(
            "http://127.0.0.1:9/v1",
            "a-key",
            name="openrouter",
            models={
                "gpt-4o": options(6),
                "openai/gpt-4o": options(7),
                "stepfun/step-3.5-flash": options(1),
                "stepfun/step-3.5-flash:free": options(0),
                "llama": options(2, "meta-llama/llama-3.3-70b-instruct:free"),
            },
        ),
        OpenAICompatible(
            "http://127.0.0.1:9/v1",
            name="ollama",
            models={"llama3.2:3b": options(None), "qwen3:thinking": options(None)},
        ),
    )


SETTINGS = Settings(
    aliases={"flash": "stepfun/step-3.5-flash --provider openrouter", "best": "openai/o3"},
    plans={"careful": CAREFUL},
)


def names(
    settings: Settings = SETTINGS,
    *,
    workers: Sequence[Worker] = (TRANSLATOR, UNPRICED_WORKER),
    has_router: bool = False,
) -> Names:
    """Of the three providers."""
    llm = providers()
    offers = offers_of(llm, settings, CATALOG, workers)
    return Names(settings, offers, has_router=has_router, llm=llm)


def refusal(known: Names, name: str, *, budgeted: bool = False) -> TaskError:
    """The error that a task's name gets; a test fails where it gets none."""
    try:
        target = known.resolve(name, budgeted=budgeted)
    except DelegationError as error:
        return error.error
    raise AssertionError(f"{name!r} led to {target.plan}")
