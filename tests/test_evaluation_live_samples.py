"""Samples for human-eval: prompt + completion + test gives the grader's verdict.

Its script joins them so (openai/human-eval, human_eval/execution.py, `check_program`); here the
sandbox runs what it would run.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from masrouter.errors import EvaluationError, SandboxError
from masrouter.evaluation.live import completion_of, write_samples
from masrouter.problems import CodeTests, Problem, read_problems
from masrouter.sandbox import Sandbox

SHARED = Path(__file__).parents[1] / "../shared/problems"
PROMPT = (
    "from typing import List\n\n\n"
    "def double(x: int) -> int:\n    return 2 * x\n\n\n"
    "def doubled(values: List[int]) -> List[int]:\n"
    '    """Each value twice as large.\n    >>> doubled([1, 2])\n    [2, 4]\n    """\n'
)
TEST = (
    "def check(candidate):\n    assert candidate([1, 2]) == [2, 4]\n"
    "    assert candidate([]) == []\n"
)
GRADER = CodeTests(PROMPT, "doubled", TEST)
BARE = CodeTests("def doubled(values):\n", "doubled", TEST)
COMMENTED = CodeTests("def doubled(values):\n    # Each value twice as large.\n", "doubled", TEST)
UNENDED = CodeTests(PROMPT.rstrip("\n"), "doubled", TEST)

ANSWERS = {
    "only a body": "    return [double(v) for v in values]\n",
    "a body in a block": "```python\n    return [double(v) for v in values]\n```",
    "a body that is not indented": "```python\nreturn [2 * v for v in values]\n```",
    "the whole function": (
        "Here it is:\n\n```python\ndef doubled(values):\n    return [2 * v for v in values]\n```\n"
    ),
    "the prompt and the body": f"```python\n{PROMPT}    return [double(v) for v in values]\n```",
    "imports of its own": (
        "```python\nimport operator\nfrom functools import partial\n\n"
        "def doubled(values):\n    return list(map(partial(operator.mul, 2), values))\n```"
    ),
    "the prompt's imports and functions": (
        "```python\ndef doubled(values: List[int]) -> List[int]:\n"
        "    return [double(v) for v in values]\n```"
    ),
    "a function beside it": (
        "```python\ndef twice(x):\n    return x + x\n\n\ndef doubled(values):\n"
        "    return [twice(v) for v in values]\n```"
    ),
    "a future import": (
        '```python\n"""All of it."""\nfrom __future__ import annotations\n\n\n'
        "def doubled(values: list[Unknown], *rest: Nobody) -> Nothing:\n"
        "    found: Unheard = [2 * v for v in values]\n    return found\n```"
    ),
    "a main part": (
        "```python\ndef doubled(values):\n    return [2 * v for v in values]\n\n\n"
        'if __name__ == "__main__":\n    print(doubled([1]))\n```'
    ),
    "wrong": "```python\ndef doubled(values):\n    return [3 * v for v in values]\n```",
    "a wrong body": "    return values\n",
    "another name": "```python\ndef tripled(values):\n    return [2 * v for v in values]\n```",
    "an error": "```python\ndef doubled(values):\n    return undefined\n```",
    "no code": "I would multiply every value by two.",
    "nothing": "",
}


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    try:
        opened = Sandbox()
    except SandboxError as error:
        pytest.skip(f"no sandbox here: {error}")
    with opened:
        yield opened


def passes(grader: CodeTests, completion: str, sandbox: Sandbox) -> bool:
    """What the script would say: one text, run in a namespace with nothing else in it."""
    text = f"{grader.prompt}{completion}\n{grader.test}\ncheck({grader.entry_point})"
    program = f"def run():\n    exec({text!r}, {{}})\n"
    return sandbox.judge(program, "def check(candidate):\n    candidate()\n", "run").passed


@pytest.mark.parametrize("name", ANSWERS)
def test_a_sample_is_judged_as_its_answer_was(name: str, sandbox: Sandbox) -> None:
    answer = ANSWERS[name]
    graded = GRADER.grade(answer, sandbox).score == 1.0
    wrong = {"wrong", "a wrong body", "another name", "an error", "no code", "nothing"}
    assert graded == (name not in wrong)
    assert passes(GRADER, completion_of(GRADER, answer), sandbox) == graded


@pytest.mark.parametrize("grader", [BARE, COMMENTED, UNENDED])
@pytest.mark.parametrize("name", ["the whole function", "a body in a block", "wrong", "no code"])
def test_prompts_of_other_forms_are_continued_too(
    name: str, grader: CodeTests, sandbox: Sandbox
) -> None:
    answer = ANSWERS[name].replace("double(v)", "2 * v")
    graded = grader.grade(answer, sandbox).score == 1.0
    assert graded == (name in ("the whole function", "a body in a block"))
    assert passes(grader, completion_of(grader, answer), sandbox) == graded


def test_no_answer_at_all_fails_whatever_the_test_is(sandbox: Sandbox) -> None:
    idle = CodeTests(
        'def idle():\n    """Do nothing."""\n', "idle", "def check(c):\n    assert c() is None\n"
    )
    assert passes(idle, "", sandbox)
    assert not passes(idle, completion_of(idle, None), sandbox)


def test_a_body_is_written_as_the_rest_of_the_prompt() -> None:
    assert completion_of(GRADER, ANSWERS["only a body"]) == ANSWERS["only a body"].rstrip("\n")
    whole = completion_of(GRADER, ANSWERS["the prompt and the body"])
    assert whole.strip() == "return [double(v) for v in values]"


def test_samples_are_one_object_a_line_with_two_keys(tmp_path: Path) -> None:
    problem = Problem("Set/0", PROMPT, "set", "code", GRADER, "")
    sums = tmp_path / "sums.jsonl"
    sums.write_text('{"question": "1 + 1?", "answer": "2"}\n')
    (other,) = read_problems(sums)
    path = tmp_path / "samples.jsonl"
    answers = [(problem, ANSWERS["wrong"]), (other, "Answer: 2"), (problem, None), (problem, "é")]
    assert write_samples(path, answers) == 3
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [set(row) for row in rows] == [{"task_id", "completion"}] * 3
    assert {row["task_id"] for row in rows} == {"Set/0"}
    with pytest.raises(EvaluationError, match="cannot be written"):
        write_samples(tmp_path / "none" / "samples.jsonl", [])


@pytest.mark.slow
@pytest.mark.skipif(not SHARED.is_dir(), reason="the public sets are not here")
def test_all_of_human_eval_is_judged_alike_right_and_wrong(sandbox: Sandbox) -> None:
    from masrouter.cli_models import erring

    problems = erring(read_problems(SHARED / "HumanEval.jsonl.gz"))
    for problem in problems:
        assert isinstance(problem.grader, CodeTests)
        for answer, right in [(problem.reference, True), *((w, False) for w in problem.wrong)]:
            completion = completion_of(problem.grader, answer)
            assert passes(problem.grader, completion, sandbox) == right, problem.problem_id
