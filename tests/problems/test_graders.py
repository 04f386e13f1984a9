"""Graders: what counts as right, what as wrong, and what cannot be judged."""

from __future__ import annotations

import gzip
import json
from fractions import Fraction
from pathlib import Path

import pytest

from masrouter.errors import ProblemError
from masrouter.problems import Choice, CodeTests, Number, read_problems
from masrouter.sandbox import Sandbox

SHARED = Path(__file__).parents[2] / "../shared/problems"

PROMPT = '''import math
from typing import List

FACTOR = 2


def area(side: float) -> float:
    return side * side


def areas(sides: List[float]) -> List[float]:
    """The area of each square, rounded down.

    >>> areas([1.5])
    [2]
    """
'''
TEST = """
def check(candidate):
    assert candidate([]) == []
    assert candidate([1.5, 3]) == [2, 9]
    assert candidate([2]) == [area(2)]
"""
TASK = CodeTests(PROMPT, "areas", TEST)
BODY = "return [math.floor(area(side)) for side in sides]"

RIGHT = {
    "the whole program": f"```python\n{PROMPT}    {BODY}\n```",
    "the function alone": f"```python\ndef areas(sides: List[float]):\n    {BODY}\n```",
    "the body": f"    {BODY}\n",
    "the body, not indented": BODY,
    "the body in a block": f"It is short:\n```python\n{BODY}\n```",
    "prose without fences": f"I would write\n\ndef areas(sides):\n    {BODY}\n\nand be done.",
    "helpers of its own": "```python\nfrom math import floor as down\n\ndef square(s):\n"
    "    return s*s\n```\nand\n"
    "```python\ndef areas(sides):\n    return [down(square(s)) for s in sides]\n```",
    "a future import": "```python\nfrom __future__ import annotations\n"
    f"def areas(sides: List[float]):\n    {BODY}\n```",
}  # fmt: skip


@pytest.mark.parametrize("answer", RIGHT.values(), ids=RIGHT.keys())
def test_right_programs_pass_in_any_form(answer: str, sandbox: Sandbox) -> None:
    grade = TASK.grade(answer, sandbox)
    assert (grade.score, grade.source) == (1.0, "tests"), grade


WRONG = {
    "a wrong result": ("def areas(sides):\n    return [s * s for s in sides]", "failed: "),
    "an exception": ("def areas(sides):\n    return sides[0]", "exception: "),
    "another name": ("def area_list(sides):\n    return sides", "does not define areas"),
    "a method": ("class Solution:\n    def areas(self, sides):\n        pass", "does not define"),
    "a name that nobody gives": ("def areas(sides):\n    return np.floor(sides)", "exception: "),
    "no return": ("def areas(sides):\n    pass", "failed: "),
}  # fmt: skip


@pytest.mark.parametrize(("code", "detail"), WRONG.values(), ids=WRONG.keys())
def test_wrong_programs_fail_with_a_reason(code: str, detail: str, sandbox: Sandbox) -> None:
    grade = TASK.grade(f"```python\n{code}\n```", sandbox)
    assert (grade.score, grade.source) == (0.0, "tests")
    assert detail in grade.detail


def test_a_program_cannot_change_the_helpers_of_its_test(sandbox: Sandbox) -> None:
    code = "def area(side):\n    return 7\n\ndef areas(sides):\n    return [7 for s in sides]"
    assert TASK.grade(f"```python\n{code}\n```", sandbox).score == 0.0


def test_an_infinite_loop_is_stopped_and_scored_zero() -> None:
    from masrouter.sandbox import Limits

    code = "```python\ndef areas(sides):\n    while True:\n        pass\n```"
    with Sandbox(Limits(wall_s=1.0, cpu_s=1.0)) as short:
        grade = TASK.grade(code, short)
    assert grade.score == 0.0
    assert grade.detail.startswith("timeout")


@pytest.mark.parametrize("answer", ["", "I do not know.", "Answer: 42", "```\n???\n```"])
def test_an_answer_without_code_has_failed(answer: str, sandbox: Sandbox) -> None:
    grade = TASK.grade(answer, sandbox)
    assert (grade.score, grade.detail) == (0.0, "no Python code in the answer")


def test_code_is_not_judged_without_a_sandbox() -> None:
    with pytest.raises(ProblemError, match=r"pass a masrouter\.sandbox\.Sandbox"):
        TASK.grade(RIGHT["the body"], None)


@pytest.mark.parametrize(
    ("number", "answer", "score"),
    [
        (Number(Fraction(18)), "Answer: 18", 1.0),
        (Number(Fraction(18)), "Answer: 18.0", 1.0),
        (Number(Fraction(18)), "Answer: 18.001", 0.0),
        (Number(Fraction(18)), "Answer: -18", 0.0),
        (Number(Fraction(18)), "Answer: 36/2", 1.0),
        (Number(Fraction(3, 4)), "Answer: 0.75", 1.0),
        (Number(Fraction(1, 3)), "Answer: 0.333", 0.0),
        (Number(Fraction("2.35"), 2), "Answer: 2.35", 1.0),
        (Number(Fraction("2.35"), 2), "Answer: 2.3444", 0.0),
        (Number(Fraction("2.35"), 2), "Answer: 2.3456", 1.0),
        (Number(Fraction("2.35"), 2), "Answer: 2.345", 0.0),
        (Number(Fraction("2.35"), 2), "Answer: 2.4", 0.0),
        (Number(Fraction("2.50"), 2), "Answer: 5/2", 1.0),
        (Number(Fraction(10**30 + 1)), f"Answer: {10**30}", 0.0),
        (Number(Fraction(10**30 + 1)), f"Answer: {10**30 + 1}", 1.0),
    ],
)
def test_numbers_are_compared_exactly_or_to_the_places_given(
    number: Number, answer: str, score: float
) -> None:
    grade = number.grade(answer)
    assert (grade.score, grade.source) == (score, "exact_match")


@pytest.mark.parametrize("answer", ["", "None of it.", "Answer: 3 or 4", "Answer: 1e999999999"])
def test_an_answer_without_one_number_has_failed(answer: str) -> None:
    grade = Number(Fraction(3)).grade(answer)
    assert (grade.score, grade.detail) == (0.0, "no single number in the answer")


@pytest.mark.parametrize(
    ("value", "decimals", "text"),
    [("18", 0, "18"), ("-3/4", 0, "-3/4"), ("2.5", 2, "2.50"), ("-0.05", 2, "-0.05")],
)
def test_a_number_is_written_as_it_was(value: str, decimals: int, text: str) -> None:
    assert Number(Fraction(value), decimals).text == text


ANIMALS = Choice("B", ("A cat", "a dog.", "The cat and the dog", "Neither"))


@pytest.mark.parametrize(
    ("answer", "score"),
    [
        ("Answer: B", 1.0),
        ("Answer: B) a dog", 1.0),
        ("Answer: a dog", 1.0),
        ("A dog", 1.0),
        ("The answer is **A dog**.", 1.0),
        ("Answer: A cat", 0.0),
        ("Answer: neither", 0.0),
        ("Answer: B a dog", 1.0),
        ("Answer: a dog (B)", 1.0),
        ("Answer: 'a dog'", 1.0),
        ("Answer: A a cat", 0.0),
        ("Answer: C", 0.0),
    ],
)
def test_a_choice_by_letter_or_by_words(answer: str, score: float) -> None:
    grade = ANIMALS.grade(answer)
    assert (grade.score, grade.source) == (score, "exact_match")
    assert "no single option" not in grade.detail


def test_an_option_that_is_a_letter_or_a_digit() -> None:
    assert Choice("A", ("3", "4")).grade("Answer: 3").score == 1.0
    assert Choice("A", ("B", "A")).grade("Answer: A").score == 1.0
    assert Choice("A", ("B", "A")).grade("Answer: B").score == 0.0


@pytest.mark.parametrize(
    "answer", ["", "A bird", "Answer: A or B", "Answer: E", "Both (A) and (B)"]
)
def test_an_answer_without_one_option_has_failed(answer: str) -> None:
    grade = ANIMALS.grade(answer)
    assert (grade.score, grade.detail) == (0.0, "no single option in the answer")


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared problem sets are not here")
def test_every_public_number_grades_its_own_answer() -> None:
    problems = read_problems(SHARED / "gsm8k_test.jsonl")
    assert len(problems) == 1319
    assert [p.problem_id for p in problems if p.grader.grade(p.reference, None).score != 1] == []


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared problem sets are not here")
def test_public_programs_pass_as_continuations_of_their_prompts(sandbox: Sandbox) -> None:
    with gzip.open(SHARED / "HumanEval.jsonl.gz", "rt", encoding="utf-8") as file:
        rows = {row["task_id"]: row for row in map(json.loads, file)}
    problems = read_problems(SHARED / "HumanEval.jsonl.gz")
    assert len(problems) == 164
    for problem in problems[::8]:
        assert problem.grader.grade(rows[problem.problem_id]["canonical_solution"], sandbox).score


@pytest.mark.slow
@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared problem sets are not here")
def test_every_public_program_passes_its_tests(sandbox: Sandbox) -> None:
    sets = read_problems(SHARED / "HumanEval.jsonl.gz", SHARED / "mbpp_test.jsonl")
    failed = []
    for problem in sets:
        try:
            passed = problem.grader.grade(problem.reference, sandbox).score == 1
        except ProblemError:
            passed = False
        failed += [] if passed else [problem.problem_id]
    # Two tests mean the program where they call `check`, which is the test itself; one passes on
    # an object of the program's own class, and one expects what the program only prints.
    assert failed == ["MBPP/56", "MBPP/349", "MBPP/367", "MBPP/436"]
