"""Settings with policies, an encoder of three words, workers and models for tests of policies."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tests.delegation.scripted import ScriptedModel

from masrouter.delegation.delegator import Delegator
from masrouter.delegation.deliberation.agreement import Rule
from masrouter.delegation.deliberation.missing import MissingRule
from masrouter.delegation.naming.settings import Settings
from masrouter.delegation.policies.specs import Deliberate, Iterate, Match
from masrouter.delegation.query import read_query
from masrouter.delegation.tasks import Batch, Task
from masrouter.delegation.workers.matching import MatchingRule
from masrouter.delegation.workers.worker import Worker
from masrouter.llms.chat import ChatRequest

TWO_OF_THREE = Rule(3, 0.6)
MATCHING = MatchingRule(threshold=0.5, chat_weight=0.0, encoder="words")
SETTINGS = Settings(
    aliases={"thought": "careful"},
    policies={
        "careful": Deliberate(
            cheap="small", strong="big", rule=TWO_OF_THREE, missing=MissingRule()
        ),
        "researched": Iterate(
            model="small", subtask="big", rounds=2, requests=2, matching=MATCHING
        ),
        "fitting": Match(otherwise="small", matching=MATCHING),
        "strict": Match(otherwise="small", matching=MATCHING, fall_back=False),
        "only": Match(otherwise="weather", matching=MATCHING),
        "routed": Deliberate(cheap="small", strong="auto", rule=TWO_OF_THREE),
    },
)  # fmt: skip


class Words:
    """An encoder for tests: a text is which of a few words it holds."""

    identity = "words"
    dimension = 3
    _WORDS = ("translate", "weather", "write")

    def encode(self, texts: Sequence[str], *, progress: bool = False) -> NDArray[np.float32]:
        held = [[float(word in text.casefold()) for word in self._WORDS] for text in texts]
        rows = np.array(held, dtype=np.float32)
        norms = np.linalg.norm(rows, axis=1, keepdims=True)
        unit: NDArray[np.float32] = (rows / np.maximum(norms, 1e-9)).astype(np.float32)
        return unit


TRANSLATOR = Worker(
    name="translator", description="Can translate.", run=lambda text: f"<{text}>", usd_per_call=0.5
)
WEATHER = Worker(
    name="weather", description="Says the weather.", run=lambda _: "rain", usd_per_call=0.25,
    takes="goal",
)  # fmt: skip


def _refuse(text: str) -> str:
    raise OSError("no paper")


REFUSING = replace(TRANSLATOR, run=_refuse, usd_per_call=0.0)


async def slowly(text: str) -> str:
    await asyncio.sleep(30)
    return text


def delegated(llm: ScriptedModel, *tasks: Task, **options: Any) -> Batch:
    workers = options.pop("workers", ())
    delegator = Delegator(
        llm, options.pop("settings", SETTINGS), workers=workers, encoder=Words(),
        router=options.pop("router", None), episodes=options.pop("episodes", None),
    )  # fmt: skip
    return asyncio.run(delegator.delegate_tasks(tasks, **options))


def agreeing(**more: Any) -> ScriptedModel:
    return ScriptedModel({"small": "Answer: 4", "big": "Answer: 5", **more})


def parting(**more: Any) -> ScriptedModel:
    """A cheap model that never says the same twice; others as they are told."""
    return ScriptedModel({"small": in_turn(*map(str, range(10, 50))), "big": "Answer: 5", **more})


def in_turn(*answers: str) -> Callable[[ChatRequest], str]:
    """Answers one by one, also to requests that come at once."""
    left = iter(answers)
    return lambda _: f"Answer: {next(left)}"


def seen(llm: ScriptedModel, model: str) -> list[Any]:
    return [read_query(request.messages[-1].content) for request in llm.requests_of(model)]
