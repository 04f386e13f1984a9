"""Calls of tools in the chat completions format: what of them is sent back, and what is read.

Pure. Nothing is said here about whether a call can be done: its tool may not exist, its arguments
may be no JSON. Who answers the call tells the model so.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from masrouter.llms.chat import Message, ToolCall

MOST_CALLS = 128
"""In one answer; more are a model that does not end."""


def well_formed(text: str) -> str:
    """Text that UTF-8 can hold: halves of a pair are joined, or replaced where one is alone."""
    if text.isascii():
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def sent_calls(calls: Sequence[ToolCall]) -> list[dict[str, Any]]:
    """The calls of an earlier answer, as they go back to the model that made them.

    Providers refuse a name that no tool can have, even where their own model made it up: it is
    written with underscores then.
    """
    return [
        {
            "id": well_formed(call.id),
            "type": "function",
            "function": {
                "name": re.sub(r"[^a-zA-Z0-9_-]", "_", call.name)[:64],
                "arguments": well_formed(call.arguments),
            },
        }
        for call in calls
    ]


def with_own_ids(
    calls: Sequence[ToolCall], conversation: Sequence[Message]
) -> tuple[ToolCall, ...]:
    """The calls, each with an id that no other of the conversation has.

    Some providers give none, or the same again and again. Nine letters and digits are what the
    strictest take.
    """
    taken = {call.id for message in conversation for call in message.tool_calls}
    kept = []
    for call in calls:
        if not call.id or call.id in taken:
            call = replace(call, id=_free_id(taken))
        taken.add(call.id)
        kept.append(call)
    return tuple(kept)


def _free_id(taken: Collection[str]) -> str:
    number = len(taken) + 1
    while f"call{number:05}" in taken:
        number += 1
    return f"call{number:05}"


@dataclass(slots=True)
class _Call:
    id: str = ""
    name: str = ""
    arguments: list[str] = field(default_factory=list)


@dataclass(slots=True)
class CallsRead:
    """Puts calls together, from a whole `tool_calls` or from the deltas of a stream.

    A delta belongs to the call of its `index`. Where a provider leaves that out, or gives all the
    same, a name with an id of its own begins a new call, and what has no name goes on with the
    last.
    """

    streamed: bool = False
    problem: str | None = None
    """Why the calls cannot be used, from the first thing that is wrong."""
    size: int = 0
    """Characters of all names and arguments so far."""
    _calls: list[_Call] = field(default_factory=list)
    _by_index: dict[int, _Call] = field(default_factory=dict)

    def take(self, called: Any) -> None:
        """Add the `tool_calls` of a message or delta."""
        if not isinstance(called, list):
            self._note(f"expected a list, got {type(called).__name__}")
            return
        for item in called:
            function = item.get("function") if isinstance(item, Mapping) else None
            if not isinstance(function, Mapping):
                self._note("a call without a function")
                return
            self._add(item, function)

    def calls(self, *, whole: bool) -> tuple[ToolCall, ...]:
        """What was called; an id is empty where none was given.

        whole: the answer was not cut off, so that no arguments mean that there are none.
        """
        nothing = "{}" if whole else ""
        return tuple(
            ToolCall(
                call.id,
                well_formed(call.name),
                well_formed("".join(call.arguments)).strip() or nothing,
            )
            for call in self._calls
        )

    def _add(self, item: Mapping[str, Any], function: Mapping[str, Any]) -> None:
        given = item.get("id")
        call_id = well_formed(given) if isinstance(given, str) else ""
        name = function.get("name")
        if name is not None and not isinstance(name, str):
            self._note(f"a function's name that is no text but {type(name).__name__}")
            return
        call = self._begun(item.get("index"), call_id, name or "")
        if call is None:
            return
        call.id = call.id or call_id
        if name and name != call.name:  # some repeat it in every delta
            call.name += name
            self.size += len(name)
        arguments = function.get("arguments")
        if isinstance(arguments, Mapping):
            # Some servers parse them; written again they are the same.
            try:
                arguments = json.dumps(arguments, ensure_ascii=False)
            except RecursionError:
                self._note("arguments that are nested too deep")
                return
        if isinstance(arguments, str):
            call.arguments.append(arguments)
            self.size += len(arguments)
        elif arguments is not None:
            self._note(f"arguments that are no text but {type(arguments).__name__}")

    def _begun(self, index: Any, call_id: str, name: str) -> _Call | None:
        """The call that a piece belongs to, None where there can be none."""
        numbered = isinstance(index, int) and not isinstance(index, bool)
        there: _Call | None = None
        if self.streamed and numbered:
            there = self._by_index.get(index)
            again = there is not None and (call_id in ("", there.id) or not there.id)
        elif self.streamed and self._calls:
            there = self._calls[-1]
            again = call_id != "" and call_id == there.id
        if there is not None and (again or not name):
            return there
        if not name:
            self._note("a call without a name")
            return None
        if len(self._calls) == MOST_CALLS:
            self._note(f"more than {MOST_CALLS} calls in one answer")
            return None
        call = _Call()
        self._calls.append(call)
        if numbered:
            self._by_index[index] = call
        return call

    def _note(self, problem: str) -> None:
        self.problem = self.problem or problem
