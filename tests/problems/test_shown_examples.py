"""The examples that a question shows: found in its text, run against an answer."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

from masrouter.errors import SandboxError
from masrouter.problems import ShownExamples, read_problems
from masrouter.problems.examples import shown_examples
from masrouter.sandbox import Sandbox, Verdict
from masrouter.topologies.team import ExampleReport

SHARED = Path(__file__).parents[2] / "../shared/problems"

QUERY = '''from typing import List


def total(numbers: List[int], start: int = 0) -> int:
    """The sum. total(numbers) never fails; total(x) is what you get.

    >>> total([1, 2])
    3
    >>> total([1,
    ...        2], start=4)
    7
    >>> total(range(3))
    3
    >>> total([])  # nothing
    0
    total([5]) == 5
    total([6]) ➞ 6
    * total([7]) => 7.
    total([8]) returns 8
    total([9]) -> 4 + 5
    """
'''
ANSWER = "```python\ndef total(numbers, start=0):\n    return {}\n```"


def report(sandbox: Sandbox, query: str, answer: str) -> ExampleReport | None:
    return asyncio.run(ShownExamples(sandbox).report(query, answer))


def test_calls_with_literals_are_examples() -> None:
    shown = shown_examples(QUERY)
    assert shown is not None
    name, examples = shown
    assert name == "total"
    assert [(e.args, e.kwargs, e.expected) for e in examples] == [
        (([1, 2],), {}, 3),
        (([5],), {}, 5),
        (([6],), {}, 6),
        (([7],), {}, 7),
        (([8],), {}, 8),
    ]


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (">>> f('a')\n    'b'", "b"),
        (">>> f('a')\n    [1,\n     2]", [1, 2]),
        ('f("a") ==> true', True),
        ("f('a') should return None.", None),
        ("f('(')=={'x': (1, 2.5)}", {"x": (1, 2.5)}),
        (">>> f('a') == 3", 3),
        ("f('a')  # returns -1", -1),
        ("For example:\n    - f('a') → {1, 2}", {1, 2}),
    ],
)
def test_forms_of_an_example(shown: str, expected: object) -> None:
    found = shown_examples(f'def f(x):\n    """Do it.\n\n    {shown}\n    """\n')
    assert found is not None
    assert [e.expected for e in found[1]] == [expected]


@pytest.mark.parametrize(
    "query",
    [
        "What is 2 + 2?",
        "Write a function f such that f(2) == 3.",
        'def f(x):\n    """Nothing shown. f(x) is f of x."""\n',
        'def f(x):\n    """\n    >>> f(open("/etc/passwd"))\n    3\n    """\n',
        'def f(x):\n    """\n    >>> f(2)\n    <object at 0x1>\n    >>> f(3)\n    """\n',
        'def f(x):\n    """\n    >>> f(0)\n    Traceback (most recent call last):\n    E\n"""\n',
        'def f(x):\n    """g.f(2) == 3 and ff(2) == 3"""\n',
        "def f(x:\n",
        "def f(" * 5000,
    ],
)  # fmt: skip
def test_a_query_that_shows_no_examples_has_no_report(query: str, sandbox: Sandbox) -> None:
    assert report(sandbox, query, ANSWER.format("0")) is None


def test_a_right_answer_passes_its_examples(sandbox: Sandbox) -> None:
    found = report(sandbox, QUERY, ANSWER.format("start + sum(numbers)"))
    assert found == ExampleReport(True, "All 5 examples of the question pass.")


def test_a_wrong_answer_is_told_what_came_instead(sandbox: Sandbox) -> None:
    found = report(sandbox, QUERY, ANSWER.format("max(numbers) if len(numbers) > 1 else 5"))
    assert found is not None
    assert not found.passed
    assert found.text.split("\n") == [
        "total([1, 2]): expected 3, got 2",
        "total([6]): expected 6, got 5",
        "total([7]): expected 7, got 5",
        "total([8]): expected 8, got 5",
    ]


def test_an_answer_that_raises_is_told_so(sandbox: Sandbox) -> None:
    found = report(sandbox, QUERY, ANSWER.format("numbers[9]"))
    assert found is not None
    assert not found.passed
    assert "total([1, 2]): expected 3, got IndexError: " in found.text


def test_an_answer_without_the_function_fails(sandbox: Sandbox) -> None:
    for answer in ("I cannot.", "```python\ndef other():\n    return 1\n```"):
        assert report(sandbox, QUERY, answer) == ExampleReport(
            False, "The answer has no program that defines total."
        )


def test_floats_are_compared_as_they_are_shown(sandbox: Sandbox) -> None:
    query = 'def third(x):\n    """\n    >>> third(1)\n    [0.3333333333]\n    """\n'
    answer = "```python\ndef third(x):\n    return [x / 3]\n```"
    found = report(sandbox, query, answer)
    assert found is not None
    assert found.passed


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared problem sets are not here")
def test_most_public_problems_show_examples_and_their_solutions_pass_them(sandbox: Sandbox) -> None:
    problems = read_problems(SHARED / "HumanEval.jsonl.gz")
    shown = [p for p in problems if shown_examples(p.query)]
    assert len(shown) >= 130
    # The prompts of these show results that their own tests contradict.
    mistaken = {"HumanEval/47", "HumanEval/116", "HumanEval/148"}
    assert mistaken <= {p.problem_id for p in shown}
    for problem in shown[::8]:
        found = report(sandbox, problem.query, problem.reference)
        assert found is not None
        assert found.passed is (problem.problem_id not in mistaken), problem.problem_id


def test_a_run_whose_time_is_over_does_not_wait_for_a_program_that_does_not_end() -> None:
    let_go, ended = threading.Event(), threading.Event()

    class Slow:
        def judge(self, program: str, test: str, entry_point: str) -> Verdict:
            let_go.wait(30)
            ended.set()
            return Verdict(True, "passed", "", 30.0)

    async def in_time() -> None:
        async with asyncio.timeout(0.1):
            await ShownExamples(Slow()).report(QUERY, ANSWER)  # type: ignore[arg-type]

    try:
        with pytest.raises(TimeoutError):
            asyncio.run(in_time())
        assert not ended.is_set()
    finally:
        let_go.set()
    assert ended.wait(30)


def test_what_the_sandbox_raises_reaches_the_caller() -> None:
    class Broken:
        def judge(self, program: str, test: str, entry_point: str) -> Verdict:
            raise SandboxError("closed")

    with pytest.raises(SandboxError, match="closed"):
        asyncio.run(ShownExamples(Broken()).report(QUERY, ANSWER))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "example",
    [
        "f(1) == 0x" + "f" * 5000,
        "f(0x" + "f" * 5000 + ") == 1",
        "f(1e999) == 1",
        "f(1) == 1e999",
        "f(" + "[" * 150 + "]" * 150 + ") == 1",
    ],
    ids=["long result", "long argument", "infinite argument", "infinite result", "deep argument"],
)
def test_an_example_that_cannot_be_written_down_or_passed_on_is_none(
    example: str, sandbox: Sandbox
) -> None:
    query = f'def f(x):\n    """One.\n\n    {example}\n    """\n'
    assert report(sandbox, query, "```python\ndef f(x):\n    return 1\n```") is None
