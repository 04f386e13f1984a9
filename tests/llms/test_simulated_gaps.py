"""Questions that lack a needed part: guessing, noticing, and the part given elsewhere."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from dataclasses import replace

import pytest
from tests.llms.simulated_asking import (
    CHEAP,
    LETTERS,
    NUMBERS,
    STRONG,
    THINKER,
    ask,
    programming,
    share_right,
)

from masrouter.delegation.delegator import Delegator
from masrouter.delegation.deliberation.iterating import END, iterate
from masrouter.delegation.deliberation.missing import MissingRule, check_missing
from masrouter.delegation.tasks import Task
from masrouter.delegation.workers import Worker
from masrouter.errors import ConfigError
from masrouter.llms.simulated import SimulatedProvider, SimulatedTask
from masrouter.llms.simulated.judgement import Weights
from masrouter.problems import Number, Problem
from masrouter.problems.simulation import gapped_task, simulated_task
from masrouter.sections import section

ALWAYS = Weights(gap_noticed=30.0, gap_alarm=-30.0)
NEVER = Weights(gap_noticed=-30.0, gap_alarm=-30.0)
NOTHING = "Missing: nothing"


def cut(task: SimulatedTask) -> SimulatedTask:
    """The same without its middle sentence."""
    first, second, third = task.query.split(". ", 2)
    return replace(task, query=f"{first}. {third}", whole=task.query, lacks=f"{second}.")


CUT = [cut(task) for task in NUMBERS]
CUT_LETTERS = [cut(task) for task in LETTERS]


def ending(text: str) -> str:
    return text.splitlines()[-1]


def words_of(text: str) -> set[str]:
    """Its longer words."""
    return set(re.findall(r"[a-z]{4,}", text.lower()))


def told_to_end(task: SimulatedTask) -> str:
    return f"{task.query}\n\n{END}"


def share(found: list[bool]) -> float:
    return sum(found) / len(found)


def test_without_the_part_nobody_does_better_than_guess() -> None:
    for model in (CHEAP, THINKER):
        assert share_right(CUT, model=model) < 0.12
        assert 0.1 < share_right(CUT_LETTERS, model=model) < 0.4


@pytest.mark.parametrize(
    "context",
    [
        lambda task: task.lacks,
        lambda task: f"It is known: {task.lacks} And the barn is old.",
        lambda task: section("found", task.lacks.replace(" ", "\n  "), request="hens"),
        lambda task: section("given", task.lacks),
    ],
    ids=["context", "within", "found", "given"],
)
def test_the_part_given_elsewhere_makes_the_task_whole(
    context: Callable[[SimulatedTask], str],
) -> None:
    whole = share_right(NUMBERS, model=STRONG)
    assert abs(share_right(CUT, context=context, model=STRONG) - whole) < 0.12
    assert whole > 0.6


def test_the_part_may_come_as_a_result_of_another_task() -> None:
    provider = SimulatedProvider(CUT)
    found = [
        task.index_of(ask(provider, task.query, results={"a": task.lacks}, model=STRONG).text) == 0
        for task in CUT
    ]
    assert share(found) > 0.6


def test_the_part_may_be_told_in_a_paragraph_behind_the_question() -> None:
    told = share_right(CUT, lambda task: f"{task.query}\n\n{task.lacks}", model=STRONG)
    assert told > 0.6


def test_another_part_does_not_help() -> None:
    assert share_right(CUT, context=lambda task: "Each hen lays no egg.", model=STRONG) < 0.12


def test_a_gap_is_noticed_more_often_than_one_is_imagined() -> None:
    provider = SimulatedProvider([*CUT, *NUMBERS])

    def missed(tasks: list[SimulatedTask], context: Callable[[SimulatedTask], str]) -> float:
        texts = [ask(provider, told_to_end(t), context=context(t), model=CHEAP).text for t in tasks]
        assert all(ending(text).startswith("Missing: ") for text in texts)
        return share([ending(text) != NOTHING for text in texts])

    assert 0.25 < missed(CUT, lambda task: "") < 0.85
    assert missed(NUMBERS, lambda task: "") < 0.2
    assert missed(CUT, lambda task: task.lacks) < 0.2


def test_how_often_it_is_noticed_is_a_weight() -> None:
    for weights, expected in ((ALWAYS, 1.0), (NEVER, 0.0)):
        provider = SimulatedProvider(CUT, weights=weights)
        texts = [ask(provider, told_to_end(task)).text for task in CUT[:20]]
        assert share([ending(text) != NOTHING for text in texts]) == expected


def test_a_team_that_iterates_names_the_gap_too() -> None:
    provider = SimulatedProvider(CUT, weights=ALWAYS)
    say = "Answer. End with a line `Missing: ...` or `Missing: nothing`."
    text = ask(provider, CUT[0].query, say=say).text
    assert ending(text).startswith("Missing: ")
    assert ending(text) != NOTHING


def test_what_is_missing_is_named_by_what_stands_around_it_and_not_by_what_was_cut() -> None:
    for task in (CUT[0], CUT_LETTERS[0]):
        provider = SimulatedProvider([task], weights=ALWAYS)
        asked = words_of(task.query)
        for seed in range(30):
            text = ask(provider, told_to_end(task), seed=seed).text
            named = [line for line in text.splitlines() if line.startswith("Missing: ")]
            words = words_of(" ".join(named))
            assert len(words & asked) >= 2
            assert not words & (words_of(task.lacks) - asked)


def test_a_program_without_its_description_and_a_question_without_options_are_named_so() -> None:
    known = programming(4)
    signature, _, description = known.query.partition("\n    ")
    program = replace(known, query=signature, whole=known.query, lacks=description.strip())
    question, _, options = LETTERS[0].query.partition("\n")
    choice = replace(LETTERS[0], query=question, whole=LETTERS[0].query, lacks=options)
    provider = SimulatedProvider([program, choice], weights=ALWAYS)
    assert "add_4" in ending(ask(provider, told_to_end(program)).text)
    named = ending(ask(provider, told_to_end(choice)).text)
    assert named.startswith(("Missing: the options", "Missing: the list of answers"))


def test_who_is_asked_what_is_missing_says_only_that() -> None:
    delegator = Delegator(SimulatedProvider([*CUT, *NUMBERS], weights=ALWAYS))
    rule = MissingRule({"model": 1.0}, 0.9)
    for task, context, lacks in (
        (CUT[0], "", True), (NUMBERS[0], "", False), (CUT[0], CUT[0].lacks, False),
    ):  # fmt: skip
        check = asyncio.run(
            check_missing(Task(task.query, context), delegator=delegator, model=CHEAP, rule=rule)
        )
        assert check.missing == lacks
        assert check.result is not None
        assert check.result.answer is not None
        lines = check.result.answer.splitlines()
        assert all(line.startswith("Missing: ") for line in lines)


def test_a_colleague_who_is_asked_for_the_part_cannot_know_it() -> None:
    provider = SimulatedProvider(CUT)
    context = f"This is for a larger task.\n\n{section('task', CUT[0].query)}"
    text = ask(provider, "How many eggs does a hen lay?", context=context, model=THINKER).text
    assert "cannot know" in text


def test_who_iterates_and_asks_whoever_knows_is_right_as_often_as_on_the_whole() -> None:
    known = CUT[:10]
    right: list[bool] = []
    for task in known:
        notes = Worker(
            name="notes",
            description="Looks things up.",
            run=lambda _, task=task: task.lacks,
            usd_per_call=0,
        )
        provider = SimulatedProvider([task], weights=ALWAYS)
        found = asyncio.run(
            iterate(
                task.query,
                delegator=Delegator(provider, workers=[notes]),
                model=STRONG,
                find=lambda asked: ["notes"] * len(asked),
            )
        )
        assert found.stopped == "done"
        assert found.answer is not None
        right.append(task.index_of(found.answer) == 0)
    assert share(right) > 0.6


def test_half_of_a_gap_is_refused() -> None:
    for half in ({"whole": "All of it."}, {"lacks": "It."}):
        with pytest.raises(ConfigError, match="needs `whole`"):
            replace(NUMBERS[0], **half)


def test_a_problem_with_a_gap_is_the_same_task_as_the_whole_problem() -> None:
    problem = Problem(
        "eggs", "Two hens lay. Each lays 3. How many eggs?", "demo", "math",
        Number(6),  # type: ignore[arg-type]
        "Answer: 6", ("Answer: 5",),
    )  # fmt: skip
    task = gapped_task(problem, "Two hens lay. How many eggs?", "Each lays 3.")
    assert task.key == simulated_task(problem).key == problem.query
    assert replace(task, query=problem.query, whole="", lacks="") == simulated_task(problem)
