"""What a batch is checked for before anybody works: each task gets an id, and a fault of its own.

Here is what can be said of the tasks, and of a call's options, alone. Which model a name means is
`naming`'s business.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from masrouter.delegation.naming.settings import MOST_NAME
from masrouter.delegation.tasks import DelegationError, ErrorType, Task, TaskError
from masrouter.errors import ConfigError
from masrouter.execution.dispatch import check_deadline
from masrouter.selection import number
from masrouter.topologies.rules import check_count

MOST_TOKENS = 1_000_000_000
"""Completion tokens of an answer: more is no number that anybody could mean, or pay for."""


@dataclass(frozen=True, slots=True)
class Taken:
    """A task as it was taken in."""

    id: str
    task: Task
    error: TaskError | None
    """Why nobody can work on it; None where it is sound."""


def take_in(
    tasks: Sequence[Task], *, max_tasks: int, max_goal_characters: int
) -> tuple[Taken, ...]:
    """Tasks with their ids, each with its own fault where it has one.

    max_goal_characters: of a goal and its context together. An id that is given twice is a fault
    of all that carry it; so is a circle of needs.

    Raises ConfigError for what is no list of tasks, and DelegationError of type `limit` for too
    many of them.
    """
    if isinstance(tasks, Task | str) or not isinstance(tasks, Sequence):
        raise ConfigError(f"tasks: expected a list of tasks, got {type(tasks).__name__}")
    for index, task in enumerate(tasks):
        if not isinstance(task, Task):
            raise ConfigError(f"tasks[{index}]: expected a Task, got {type(task).__name__}")
    if len(tasks) > max_tasks:
        why = f"{len(tasks)} tasks, and {max_tasks} are allowed at once; hand them out in parts"
        raise DelegationError(TaskError("limit", why, asked=str(len(tasks))))
    ids = [f"task-{index}" if task.id is None else task.id for index, task in enumerate(tasks, 1)]
    faults = [_fault(task, max_goal_characters) for task in tasks]
    times = Counter(id for id in ids if isinstance(id, str))
    for index, id in enumerate(ids):
        if not isinstance(id, str) or _name_fault("id", id) is not None:
            ids[index] = f"task-{index + 1}"
        elif faults[index] is None and times[id] > 1:
            why = f"the id {id!r} is given to {times[id]} tasks; name them apart"
            faults[index] = _invalid(why, id)
    needs = {id: task.needs for id, task, why in zip(ids, tasks, faults, strict=True) if not why}
    for index, id in enumerate(ids):
        if faults[index] is None:
            faults[index] = _needs_fault(id, needs, ids)
    return tuple(Taken(*parts) for parts in zip(ids, tasks, faults, strict=True))


def check_options(
    deadline_s: float | None, cost_weight: float | None, max_concurrency: int | None, seed: int
) -> None:
    """Raises ConfigError, or RoutingError for a cost weight, for what cannot be meant."""
    check_deadline(deadline_s)
    if cost_weight is not None:
        number("cost_weight", cost_weight, at_least=0.0)
    if max_concurrency is not None:
        check_count("max_concurrency", max_concurrency, least=1)
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise ConfigError(f"seed: expected a whole number, got {seed!r}")


def _fault(task: Task, max_goal_characters: int) -> TaskError | None:
    """What is wrong with a task by itself."""
    if not isinstance(task.goal, str) or not task.goal.strip():
        return _invalid(f"goal: expected a text that says what to do, got {task.goal!r:.40}")
    if not isinstance(task.context, str):
        return _invalid(f"context: expected a text, got {type(task.context).__name__}")
    for part, text in (("goal", task.goal), ("context", task.context)):
        if not _is_unicode(text):
            return _invalid(f"{part}: holds half of a surrogate pair; send valid Unicode")
    size = len(task.goal) + len(task.context)
    if size > max_goal_characters:
        why = f"goal and context have {size} characters, and {max_goal_characters} are allowed"
        return TaskError("limit", f"{why}; shorten them, or split the task", asked=str(size))
    for part, name in (("id", task.id), ("model", task.model), ("kind", task.kind)):
        if name is not None and (problem := _name_fault(part, name)):
            return _invalid(problem)
    if not isinstance(task.needs, tuple) or not all(isinstance(id, str) for id in task.needs):
        return _invalid(f"needs: expected ids of other tasks, got {task.needs!r:.80}")
    tokens = task.max_tokens
    whole = isinstance(tokens, int) and not isinstance(tokens, bool)
    if tokens is not None and not (whole and 1 <= tokens <= MOST_TOKENS):
        why = (
            f"max_tokens: expected a number of tokens from 1 to {MOST_TOKENS:,}, got {tokens!r:.40}"
        )
        return _invalid(why, f"{tokens!r:.40}")
    if task.grade is not None and not callable(task.grade):
        return _invalid(f"grade: expected a function of the answer, got {task.grade!r:.80}")
    return None


def _name_fault(part: str, name: object) -> str | None:
    if not isinstance(name, str) or not name.strip():
        return f"{part}: expected a name, got {name!r:.40}"
    if len(name) > MOST_NAME or not name.isprintable():
        return f"{part}: expected one line of at most {MOST_NAME} characters, got {name!r:.40}"
    return None


def _needs_fault(id: str, needs: Mapping[str, tuple[str, ...]], ids: list[str]) -> TaskError | None:
    """`needs`: of the tasks that are sound so far; a task that is not fails those that need it."""
    for needed in needs[id]:
        if needed not in ids:
            others = [other for other in ids if other != id]
            near = get_close_matches(needed[:MOST_NAME], others, n=3)
            why = f"needs: there is no task {needed!r:.80} in this batch; its tasks are "
            return _invalid(why + ", ".join(ids), needed[:MOST_NAME], tuple(near))
    circle = _circle(id, needs)
    if circle is not None:
        why = f"needs go in a circle: {' -> '.join(circle)}; no task can wait for itself"
        return _invalid(why, " -> ".join(circle))
    return None


def _circle(id: str, needs: Mapping[str, tuple[str, ...]]) -> tuple[str, ...] | None:
    """The shortest way from a task back to itself, along what each needs."""
    before: dict[str, str] = {}
    reached = [id]
    for here in reached:  # breadth first: it grows as it is gone through
        for needed in needs.get(here, ()):
            if needed == id:
                way = [here]
                while way[-1] != id:
                    way.append(before[way[-1]])
                return (*reversed(way), id)
            if needed not in before:
                before[needed] = here
                reached.append(needed)
    return None


def _is_unicode(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _invalid(why: str, asked: str | None = None, near: tuple[str, ...] = ()) -> TaskError:
    kind: ErrorType = "invalid_task"
    return TaskError(kind, why, asked, near)
