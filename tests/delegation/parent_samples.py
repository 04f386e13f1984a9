"""A scripted parent with its worker, and what it was told."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from tests.delegation.scripted import Reply, ScriptedModel

from masrouter.delegation.delegator import Delegator
from masrouter.delegation.naming.settings import Settings
from masrouter.delegation.parent import ParentRun, run_parent
from masrouter.llms import (
    ChatRequest,
    Completion,
    ToolCall,
)
from masrouter.types import Usage

JSON = dict[str, Any]


def calls(
    *wanted: tuple[str, JSON | str], text: str = "", finish: str = "tool_calls"
) -> Completion:
    """A completion that calls tools."""
    made = tuple(
        ToolCall(f"c{n}", name, given if isinstance(given, str) else json.dumps(given))
        for n, (name, given) in enumerate(wanted)
    )
    return Completion(text, Usage(), "boss", finish, tool_calls=made)


def one(goal: str = "Add up.", **more: Any) -> Completion:
    return calls(("delegate_task", {"goal": goal, **more}))


def several(*tasks: JSON, **more: Any) -> Completion:
    return calls(("delegate_tasks", {"tasks": list(tasks), **more}))


def heard(request: ChatRequest) -> list[JSON]:
    """What a parent was told since it last spoke."""
    told: list[JSON] = []
    for message in request.messages:
        if message.speaker == "tool":
            told.append(json.loads(message.content))
        else:
            told.clear()
    return told


def turns_of(request: ChatRequest) -> int:
    return sum(message.speaker == "assistant" for message in request.messages)


def boss(*said: Reply, small: Reply = "42", **more: Any) -> ScriptedModel:
    """A parent that says these things in turn, and a worker."""
    return ScriptedModel({"boss": list(said), "tiny": small, **more})


def run(llm: Any, goal: str = "What is it?", **options: Any) -> ParentRun:
    own = options.pop("settings", Settings(default="tiny"))
    delegator = Delegator(llm, own, episodes=options.pop("episodes", None))
    return asyncio.run(
        run_parent(goal, model=options.pop("model", "boss"), delegator=delegator, **options)
    )


def errors(done: ParentRun) -> list[JSON | None]:
    """The error of each answer of a tool, as the parent read it."""
    return [told["error"] for turn in done.turns for told in turn.answers]
