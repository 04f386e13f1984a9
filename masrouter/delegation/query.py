"""A subtask as one text: its goal, its context and the results it needs, and the way back.

A goal alone is its own text, as the router was trained on. What comes with it stands in marked
parts behind it, so that no result can pass for an instruction of the goal.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from masrouter.sections import Section, read_sections, section


@dataclass(frozen=True, slots=True)
class TaskQuery:
    """The parts of a subtask's text."""

    goal: str
    context: str = ""
    results: Mapping[str, str] = field(default_factory=dict)
    """Answers of the tasks it needs, by their ids."""


def task_query(goal: str, context: str = "", results: Mapping[str, str] | None = None) -> str:
    """The text of a subtask; `read_query` gives its parts back.

    results: by ids of one line each. A goal that looks like a part itself is marked as well.
    """
    parts = TaskQuery(goal, context, dict(results or {}))
    behind = [section("context", context)] if context else []
    behind += [section("result", text, task=id) for id, text in parts.results.items()]
    plain = "\n\n".join([goal, *behind])
    if read_query(plain) == parts:
        return plain
    return "\n\n".join([section("goal", goal), *behind])


def read_query(text: str) -> TaskQuery:
    """The parts of a text of `task_query`, alone or as the question of a topology's message.

    Any other text is a goal.
    """
    parts = read_sections(text)
    if parts and parts[0].name != "goal":
        asked = next((part for part in parts if part.name == "question"), None)
        if asked is not None:
            text, parts = asked.text, read_sections(asked.text)
    end = len(text)
    results: dict[str, str] = {}
    while parts and parts[-1].name == "result" and set(parts[-1].attributes) == {"task"}:
        start = _start(text, end, parts[-1])
        if start is None or parts[-1].attributes["task"] in results:
            break
        results[parts[-1].attributes["task"]] = parts[-1].text
        end = start
        parts.pop()
    context = ""
    if parts and parts[-1].name == "context" and not parts[-1].attributes:
        start = _start(text, end, parts[-1])
        if start is not None:
            context = parts.pop().text
            end = start
    goal = text[:end]
    if len(parts) == 1 and goal == section("goal", parts[0].text):
        goal = parts[0].text
    return TaskQuery(goal, context, dict(reversed(results.items())))


def _start(text: str, end: int, part: Section) -> int | None:
    """Where a part and the gap before it begin, if `text[:end]` ends with them."""
    marked = "\n\n" + section(part.name, part.text, **part.attributes)
    return end - len(marked) if text.endswith(marked, 0, end) else None
