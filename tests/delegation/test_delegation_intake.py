"""What a batch is checked for before anybody works."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from masrouter.delegation.intake import Taken, take_in
from masrouter.delegation.tasks import DelegationError, ErrorType, Task
from masrouter.errors import ConfigError


def taken(*tasks: Task) -> tuple[Taken, ...]:
    return take_in(tasks, max_tasks=50, max_goal_characters=1000)


def faults(*tasks: Task) -> list[str | None]:
    return [each.error and each.error.message for each in taken(*tasks)]


def test_tasks_are_named_by_position_where_they_have_no_name() -> None:
    assert [each.id for each in taken(Task("a"), Task("b", id="mine"), Task("c"))] == [
        "task-1", "mine", "task-3",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("task", "kind", "message"),
    [
        (Task(""), "invalid_task", "goal: expected a text that says what to do, got ''"),
        (Task(" \n"), "invalid_task", "goal: expected a text"),
        (Task(7), "invalid_task", "goal: expected a text that says what to do, got 7"),  # type: ignore[arg-type]
        (Task("a\ud800"), "invalid_task", "goal: holds half of a surrogate pair"),
        (Task("a", "\udfff"), "invalid_task", "context: holds half of a surrogate pair"),
        (Task("a", None), "invalid_task", "context: expected a text, got NoneType"),  # type: ignore[arg-type]
        (Task("a" * 600, "b" * 401), "limit", "have 1001 characters, and 1000 are allowed"),
        (Task("a", id=""), "invalid_task", "id: expected a name, got ''"),
        (Task("a", id="two\nlines"), "invalid_task", "id: expected one line of at most 200"),
        (Task("a", id="x" * 201), "invalid_task", "id: expected one line of at most 200"),
        (Task("a", model=" "), "invalid_task", "model: expected a name"),
        (Task("a", model=3), "invalid_task", "model: expected a name, got 3"),  # type: ignore[arg-type]
        (Task("a", kind=""), "invalid_task", "kind: expected a name"),
        (Task("a", needs=["b"]), "invalid_task", "needs: expected ids of other tasks"),  # type: ignore[arg-type]
        (Task("a", needs="bc"), "invalid_task", "needs: expected ids of other tasks"),  # type: ignore[arg-type]
        (Task("a", max_tokens=0), "invalid_task", "max_tokens: expected a number of tokens from 1"),
        (Task("a", max_tokens=10**400), "invalid_task", "max_tokens: expected a number of tokens"),
        (Task("a", max_tokens=True), "invalid_task", "max_tokens: expected a number"),
        (Task("a", grade=3), "invalid_task", "grade: expected a function"),  # type: ignore[arg-type]
    ],
)
def test_a_task_that_cannot_be_meant_has_an_error_and_the_others_have_none(
    task: Task, kind: ErrorType, message: str
) -> None:
    first, faulty, last = taken(Task("fine"), task, Task("fine, too"))
    assert first.error is None
    assert last.error is None
    assert faulty.error is not None
    assert faulty.error.type == kind
    assert message in faulty.error.message


def test_an_id_that_is_given_twice_is_a_fault_of_both() -> None:
    one, other, needing, fine = taken(
        Task("a", id="x"), Task("b", id="x"), Task("c", needs=("x",)), Task("d")
    )
    assert one.error == other.error
    assert one.error is not None
    assert one.error.message == "the id 'x' is given to 2 tasks; name them apart"
    assert needing.error is None  # it fails when what it needs has failed
    assert fine.error is None


def test_an_unknown_need_names_those_that_come_near() -> None:
    _, faulty = taken(Task("a", id="summary"), Task("b", needs=("sumary",)))
    assert faulty.error is not None
    assert faulty.error.asked == "sumary"
    assert faulty.error.nearest == ("summary",)
    assert "there is no task 'sumary' in this batch; its tasks are summary, task-2" in str(
        faulty.error.message
    )


def test_a_circle_of_needs_is_shown_to_each_task_in_it_and_to_no_other() -> None:
    assert faults(
        Task("1", id="a", needs=("b",)),
        Task("2", id="b", needs=("c", "d")),
        Task("3", id="c", needs=("a",)),
        Task("4", id="d"),
        Task("5", id="e", needs=("a",)),
        Task("6", id="f", needs=("f",)),
    ) == [
        "needs go in a circle: a -> b -> c -> a; no task can wait for itself",
        "needs go in a circle: b -> c -> a -> b; no task can wait for itself",
        "needs go in a circle: c -> a -> b -> c; no task can wait for itself",
        None,
        None,
        "needs go in a circle: f -> f; no task can wait for itself",
    ]


@given(st.lists(st.lists(st.integers(0, 6), max_size=3), min_size=1, max_size=7))
def test_what_is_left_without_a_fault_can_be_put_in_an_order(needs: list[list[int]]) -> None:
    tasks = [
        Task("do", id=str(i), needs=tuple(str(j) for j in below if j < len(needs)))
        for i, below in enumerate(needs)
    ]
    waiting = {each.id: set(each.task.needs) for each in taken(*tasks) if each.error is None}
    done = {each.id for each in taken(*tasks) if each.error is not None}
    while ready := {id for id, below in waiting.items() if below <= done}:
        done |= ready
        waiting = {id: below for id, below in waiting.items() if id not in ready}
    assert not waiting


def test_too_many_tasks_are_refused_as_a_whole() -> None:
    with pytest.raises(DelegationError, match="51 tasks, and 50 are allowed at once") as refused:
        taken(*(Task("a") for _ in range(51)))
    assert refused.value.error.type == "limit"


@pytest.mark.parametrize("tasks", [Task("a"), "a", [{"goal": "a"}], ["a"], 3])
def test_what_is_no_list_of_tasks_is_refused(tasks: Any) -> None:
    with pytest.raises(ConfigError, match=r"^tasks(\[0\])?: expected a"):
        take_in(tasks, max_tasks=5, max_goal_characters=10)
