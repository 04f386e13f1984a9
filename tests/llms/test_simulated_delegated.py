"""A known question with more behind it, as a delegated task has it."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.llms.simulated_asking import (
    CHEAP,
    LETTERS,
    NUMBERS,
    STRONG,
    ask,
    programming,
    share_right,
)

from masrouter.delegation.delegator import Delegator
from masrouter.delegation.deliberation.missing import ASK
from masrouter.delegation.query import task_query
from masrouter.delegation.tasks import Task
from masrouter.errors import CallError
from masrouter.execution import aexecute
from masrouter.llms.simulated import SimulatedProvider, SimulatedTask
from masrouter.llms.simulated.questions import Questions
from masrouter.sections import section
from masrouter.types import Agent, Plan

KNOWN = NUMBERS[0]


@pytest.mark.parametrize(
    "text",
    [
        f"{KNOWN.query}\n\nGive the number alone.",
        task_query(KNOWN.query, "The barn is old."),
        task_query(KNOWN.query, "", {"a": "Nothing was found."}),
        task_query(f"{KNOWN.query}\n\nBe brief.", "The barn is old.", {"a": "None.", "b": ""}),
        task_query(f"{KNOWN.query}\n\n{section('note', 'x')}", "It is old."),
        section("goal", KNOWN.query),
        task_query(ASK, section("task", KNOWN.query)),
    ],
)
def test_more_behind_a_question_leaves_it_known(text: str) -> None:
    asked = Questions([KNOWN, NUMBERS[1]]).read(text)
    assert asked is not None
    assert asked.task is KNOWN


@settings(deadline=None, max_examples=100)
@given(st.text(max_size=80), st.text(max_size=80))
def test_no_context_and_no_result_hides_the_question(context: str, result: str) -> None:
    text = task_query(KNOWN.query, context, {"a": result})
    asked = Questions([KNOWN, NUMBERS[1]]).read(text)
    assert asked is not None
    assert asked.task is KNOWN
    assert any(part.name == "result" and part.text == result for part in asked.parts)


@pytest.mark.parametrize("more", [" And why?", "\nAnd why?", "?"])
def test_a_question_that_only_begins_like_a_known_one_is_refused(more: str) -> None:
    with pytest.raises(CallError, match="knows 44 questions") as caught:
        ask(SimulatedProvider(NUMBERS), KNOWN.query + more)
    assert caught.value.kind == "rejected"


def test_the_longer_of_two_known_questions_is_meant() -> None:
    longer = SimulatedTask(
        f"{KNOWN.query}\n\nHow many in twice the time?", "math", 3, "Answer: 400", ("Answer: 1",)
    )
    questions = Questions([KNOWN, longer])
    for said, meant in ((longer.query, longer), (f"{KNOWN.query}\n\nHow many then?", KNOWN)):
        asked = questions.read(f"{said}\n\nBe brief.")
        assert asked is not None
        assert asked.task is meant


def test_an_instruction_and_a_context_that_say_nothing_leave_the_ability_as_it_is() -> None:
    alone = share_right(NUMBERS, model=CHEAP)
    more = share_right(NUMBERS, lambda t: f"{t.query}\n\nBe brief.", lambda t: "It is old.")
    assert abs(share_right(NUMBERS, model=CHEAP, context=lambda t: "It is old.") - alone) < 0.1
    assert abs(more - share_right(NUMBERS)) < 0.1


def test_a_right_result_of_another_task_helps_and_a_wrong_one_misleads() -> None:
    def shares(name: str) -> list[float]:
        hints = ((lambda t, k=k: section(name, f"Result: {t.hint(k)}")) for k in (0, 1))
        return [share_right(NUMBERS, context=hint) for hint in hints]

    for name in ("result", "found"):
        right, wrong = shares(name)
        assert right > wrong + 0.1


def test_a_whole_team_works_on_a_delegated_question() -> None:
    provider = SimulatedProvider(NUMBERS)
    plan = Plan("debate", (Agent(None, CHEAP), Agent("critic", STRONG), Agent(None, CHEAP)))
    run = asyncio.run(aexecute(plan, task_query(KNOWN.query, "It is old."), llm=provider))
    assert run.answer is not None
    assert KNOWN.index_of(run.answer) is not None


def test_a_program_is_known_with_a_task_behind_it() -> None:
    known = programming(3)
    delegator = Delegator(SimulatedProvider([known]))
    task = Task(f"{known.query}\n\nKeep it short.", "It is for a till.", model=STRONG)
    result = asyncio.run(delegator.delegate_task(task))
    assert result.answer is not None
    assert known.index_of(result.answer) is not None


def test_who_is_asked_for_a_part_of_a_task_does_not_do_the_whole() -> None:
    provider = SimulatedProvider(LETTERS)
    context = f"This is for a larger task.\n\n{section('task', LETTERS[0].query)}"
    text = ask(provider, "Which coast is meant?", context=context, model=STRONG).text
    assert text.splitlines()[-1].startswith("Result: ")


def test_parts_within_a_context_are_read_on_their_own() -> None:
    context = f"Known so far.\n\n{section('found', 'It rains.')}\n\nThat is all."
    asked = Questions([KNOWN]).read(task_query(KNOWN.query, context))
    assert asked is not None
    assert [part.name for part in asked.parts] == ["context", "found"]
    assert "It rains." not in asked.parts[0].text
    assert asked.parts[1].text == "It rains."
