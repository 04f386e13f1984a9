"""A world of models for tests of the tools, and a call as a language model makes it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any

from tests.delegation.scripted import ScriptedModel

from masrouter.delegation.delegator import Delegator
from masrouter.delegation.naming.settings import Settings
from masrouter.delegation.tools.calling import call_tool
from masrouter.llms.chat import Price
from masrouter.router import Router

MODELS = ("synthetic-small", "synthetic-coder", "synthetic-medium", "synthetic-large")
PRICES = {
    "synthetic-small": Price(0.1, 0.2, "test"),
    "synthetic-coder": Price(0.3, 0.6, "test"),
    "synthetic-medium": Price(1.0, 2.0, "test"),
    "synthetic-large": Price(5.0, 10.0, "test"),
}


def model(**replies: Any) -> ScriptedModel:
    said = {name: f"answer of {name}" for name in MODELS}
    return ScriptedModel({**said, **replies}, prices=PRICES)


def delegator(
    llm: ScriptedModel | None = None, options: Settings | None = None, router: Router | None = None
) -> Delegator:
    return Delegator(llm or model(), options, router=router)


def call(
    name: str, arguments: str | Mapping[str, Any], to: Delegator | None = None, **options: Any
) -> dict[str, Any]:
    answer = asyncio.run(call_tool(to or delegator(), name, arguments, **options))
    json.dumps(answer, allow_nan=False, ensure_ascii=False).encode()
    return answer


def errors_in(answer: Mapping[str, Any]) -> list[str]:
    results = answer.get("results", [answer])
    return [one["error"]["type"] for one in results if one.get("error") is not None]
