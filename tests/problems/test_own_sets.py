"""The problem sets that come with the project: counts, grades, and every answer judged."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from masrouter.problems import Choice, CodeTests, Problem, read_problems
from masrouter.problems.examples import shown_examples
from masrouter.sandbox import Sandbox

ROOT = Path(__file__).parents[2]
SHARED = ROOT / "../shared/problems"
SETS = {"code": 150, "math": 200, "knowledge": 200}
"""Tasks, each in a file of its own, with the least that it holds."""


@pytest.fixture(scope="module")
def problems() -> tuple[Problem, ...]:
    return read_problems(*(ROOT / f"data/problems/{task}.jsonl" for task in SETS))


def test_every_set_is_large_and_graded_from_easy_to_hard(problems: tuple[Problem, ...]) -> None:
    for task, least in SETS.items():
        mine = [p for p in problems if p.task == task]
        assert {p.dataset for p in mine} == {task}
        assert len(mine) >= least
        grades = Counter(p.difficulty for p in mine)
        assert set(grades) == {1, 2, 3, 4, 5}
        assert min(grades.values()) >= len(mine) / 10
        assert all(p.problem_id.startswith(f"{task}/") and p.topics for p in mine)
        assert len({topic for p in mine for topic in p.topics}) >= 10


def test_every_problem_has_wrong_answers_beside_the_right_one(
    problems: tuple[Problem, ...],
) -> None:
    for problem in problems:
        answers = [problem.reference, *problem.wrong]
        assert len(answers) >= 4, problem.problem_id
        assert len(set(answers)) == len(answers), problem.problem_id


def test_every_question_is_asked_once(problems: tuple[Problem, ...]) -> None:
    asked = Counter(map(words, problems))
    assert [text for text, times in asked.items() if times > 1] == []


def test_right_options_are_spread_over_the_letters(problems: tuple[Problem, ...]) -> None:
    graders = [p.grader for p in problems if isinstance(p.grader, Choice)]
    letters = Counter(grader.answer for grader in graders)
    assert set(letters) == set("ABCD")
    assert max(letters.values()) <= 0.35 * len(graders)
    lengths = [len(g.choices[ord(g.answer) - 65]) == max(map(len, g.choices)) for g in graders]
    assert sum(lengths) <= 0.6 * len(graders)  # the longest option is no way to guess


def test_most_code_problems_show_examples(problems: tuple[Problem, ...]) -> None:
    code = [p for p in problems if p.task == "code"]
    shown = [p for p in code if shown_examples(p.query)]
    assert 0.4 * len(code) <= len(shown) < len(code)


def test_values_and_options_are_graded_as_they_claim(problems: tuple[Problem, ...]) -> None:
    faults = [fault for p in problems if p.task != "code" for fault in disagreements(p, None)]
    assert faults == []


@pytest.mark.parametrize("step", [25, pytest.param(1, marks=pytest.mark.slow)])
def test_programs_are_graded_as_they_claim(
    problems: tuple[Problem, ...], sandbox: Sandbox, step: int
) -> None:
    """A few of them day by day, all of them in the slow tier."""
    code = [p for p in problems if isinstance(p.grader, CodeTests)][::step]
    with ThreadPoolExecutor(2) as pool:
        found = pool.map(lambda problem: disagreements(problem, sandbox), code)
        assert [fault for faults in found for fault in faults] == []


def words(problem: Problem) -> str:
    """The question without what layout and, in a program, the name of the function add."""
    text = problem.query
    if isinstance(problem.grader, CodeTests):
        text = text.split('"""', 1)[-1].replace(problem.grader.entry_point, "f")
    return " ".join(text.split()).casefold()


def disagreements(problem: Problem, sandbox: Sandbox | None) -> list[str]:
    right = problem.grader.grade(problem.reference, sandbox)
    found = [] if right.score == 1 else [f"{problem.problem_id}: {right.detail}"]
    for index, answer in enumerate(problem.wrong):
        wrong = problem.grader.grade(answer, sandbox)
        if wrong.score != 0 or wrong.detail.startswith(("timeout", "no ", "the code in")):
            found.append(f"{problem.problem_id}: wrong answer {index}: {wrong.detail}")
    return found


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared problem sets are not here")
def test_no_question_is_one_of_the_public_sets(problems: tuple[Problem, ...]) -> None:
    public = read_problems(SHARED)
    texts = {words(p) for p in public}
    assert [p.problem_id for p in problems if words(p) in texts] == []
