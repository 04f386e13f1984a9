"""Which known task a question is about, and what else the question says.

A question is known word for word, or it is a known one with more behind it, as a delegated task
has it: an instruction in a paragraph of its own, marked parts (`<context>`, `<result>`), all of it
behind a goal that may be marked itself. A known question can also be the `<task>` that a prompt
asks something about. A text that only begins like a known question is another question.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from masrouter.llms.simulated.tasks import SimulatedTask
from masrouter.sections import Section, read_sections, section


@dataclass(frozen=True, slots=True)
class Asked:
    """A known task, and the rest of its question."""

    task: SimulatedTask
    instruction: str = ""
    """What the question says outside its parts, but for the task itself."""
    parts: tuple[Section, ...] = ()
    """Marked parts of the question; those within a context follow it, and are no more in it."""
    about: bool = False
    """True where the task is a part of the question, which asks something about it."""


class Questions:
    """The tasks that are known, by their questions."""

    def __init__(self, tasks: Iterable[SimulatedTask]) -> None:
        self._tasks = {task.query: task for task in tasks}
        # A question with more behind it is cut at the lengths that there are: no search by text.
        self._lengths = sorted({len(query) for query in self._tasks}, reverse=True)

    def __len__(self) -> int:
        return len(self._tasks)

    def read(self, text: str) -> Asked | None:
        """The task that a question is about; None for a question that is not known."""
        task = self._tasks.get(text)
        if task is not None:
            return Asked(task)
        goal, behind = _goal(text)
        task = self._begun(goal)
        if task is not None:
            said, parts = _parted(goal[len(task.query) :] + behind)
            return Asked(task, said, parts)
        said, parts = _parted(text)
        for part in parts:
            if part.name == "task" and (task := self._begun(part.text)) is not None:
                rest = tuple(other for other in parts if other is not part)
                return Asked(task, said, rest, about=True)
        return None

    def _begun(self, text: str) -> SimulatedTask | None:
        """The longest known question that a text is, or begins with as its first paragraphs."""
        for length in self._lengths:
            if length == len(text) or text.startswith("\n\n", length):
                task = self._tasks.get(text[:length])
                if task is not None:
                    return task
        return None


def _goal(text: str) -> tuple[str, str]:
    """The goal of a delegated task's text without its marks, and what follows it."""
    if text.startswith("<goal>"):
        first = next(iter(read_sections(text)), None)
        marked = None if first is None else section(first.name, first.text)
        if first is not None and marked is not None and text.startswith(marked):
            return first.text, text[len(marked) :]
    return text, ""


def _parted(text: str, *, open_contexts: bool = True) -> tuple[str, tuple[Section, ...]]:
    """What a text says outside its marked parts, and the parts; a context's parts behind it."""
    outside: list[str] = []
    parts: list[Section] = []
    at = 0
    for part in read_sections(text):
        marked = section(part.name, part.text, **part.attributes)
        start = text.find(marked, at)
        if start >= 0:
            outside.append(text[at:start])
            at = start + len(marked)
        if part.name == "context" and open_contexts:
            said, inner = _parted(part.text, open_contexts=False)
            parts += [Section(part.name, said, part.attributes), *inner]
        else:
            parts.append(part)
    return "".join((*outside, text[at:])).strip(), tuple(parts)
