"""Wrong answers that are derived: really wrong, plausible, and the same every time."""

from __future__ import annotations

import ast
import json
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from masrouter.answers import answer_key, extract_code
from masrouter.cli import build_app
from masrouter.errors import ProblemError
from masrouter.problems import (
    Choice,
    CodeTests,
    Number,
    Problem,
    read_problems,
    simulated_task,
    with_wrong_answers,
)
from masrouter.problems.faults import faulty_programs
from masrouter.sandbox import Sandbox

ROOT = Path(__file__).parents[2]
CLIMB = {
    "task_id": "climb",
    "prompt": 'def climb(steps: int) -> list:\n    """Even numbers from 0 to steps."""\n',
    "entry_point": "climb",
    "canonical_solution": "    found = []\n    at = 0\n    while at <= steps:\n"
    "        found.append(at)\n        at += 2\n    return found\n",
    "test": "def check(candidate):\n    assert candidate(4) == [0, 2, 4]\n"
    "    assert candidate(5) == [0, 2, 4]\n    assert candidate(-1) == []\n",
}

SAME = {
    "task_id": "self",
    "prompt": 'def same(x):\n    """The argument."""\n',
    "entry_point": "same",
    "canonical_solution": "    return x\n",
    "test": "def check(candidate):\n    assert candidate(3) == 3\n",
}


@pytest.fixture(scope="module")
def bare() -> list[Problem]:
    """Some programming problems of the project, without their wrong answers."""
    problems = read_problems(ROOT / "data/problems/code.jsonl")[::80]
    assert len(problems) == 2
    return [replace(problem, wrong=()) for problem in problems]


def written(folder: Path, *lines: dict[str, object]) -> Path:
    path = folder / "set.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_wrong_programs_run_and_fail_the_tests(bare: list[Problem], sandbox: Sandbox) -> None:
    for problem in bare:
        derived = with_wrong_answers(problem, sandbox)
        assert 2 <= len(derived.wrong) <= 3
        answers = (derived.reference, *derived.wrong)
        assert len(set(map(answer_key, answers))) == len(answers)
        for wrong in derived.wrong:
            grade = problem.grader.grade(wrong, sandbox)
            assert grade.score == 0.0
            assert grade.detail.startswith(("failed", "exception"))
        assert replace(derived, wrong=()) == problem
        assert simulated_task(derived).wrong == derived.wrong


def test_the_same_problem_gets_the_same_wrong_programs(
    bare: list[Problem], sandbox: Sandbox
) -> None:
    again = with_wrong_answers(bare[0], sandbox)
    assert again.wrong == with_wrong_answers(bare[0], sandbox).wrong


def test_a_program_that_hangs_is_no_wrong_answer(tmp_path: Path, sandbox: Sandbox) -> None:
    (problem,) = read_problems(written(tmp_path, CLIMB))
    assert isinstance(problem.grader, CodeTests)
    program = extract_code(problem.reference, "climb")
    assert program is not None
    hanging = "at -= 2"
    assert any(hanging in mutant for _, mutant in faulty_programs(program, "climb"))
    derived = with_wrong_answers(problem, sandbox)
    assert derived.wrong
    assert not any(hanging in wrong for wrong in derived.wrong)


def test_a_fault_is_one_place_of_a_program_that_still_parses() -> None:
    program = (
        "def f(items, n=2):\n"
        '    """Says ä."""\n'
        "    total = 0  # kept\n"
        "    for i in range(len(items)):\n"
        "        if items[i] > n and not items[i] == 'ö':\n"
        "            total += items[i] * 2\n"
        "    return sorted([total, max(items[1:])], reverse=True)\n"
    )
    found = list(faulty_programs(program, "f"))
    kinds = {kind for kind, _ in found}
    assert kinds >= {
        "comparison", "constant", "operator", "condition", "bound", "call", "early return",
    }  # fmt: skip
    shapes = {ast.dump(ast.parse(mutant)) for _, mutant in found}
    assert len(shapes) == len(found) > 20
    assert ast.dump(ast.parse(program)) not in shapes
    for _, mutant in found:
        before, after = program.splitlines(), mutant.splitlines()
        same = sum(line in after for line in before)
        assert same >= len(before) - 1
        assert "# kept" in mutant
    assert list(faulty_programs("def f(:", "f")) == []


def test_where_no_small_fault_shows_a_function_that_does_nothing_is_wrong(
    tmp_path: Path, sandbox: Sandbox
) -> None:
    (problem,) = read_problems(written(tmp_path, SAME))
    wrong = with_wrong_answers(problem, sandbox).wrong
    assert len(wrong) == 2
    assert "return None" in wrong[0]
    assert all(problem.grader.grade(answer, sandbox).score == 0.0 for answer in wrong)


@given(
    st.one_of(
        st.integers(-(10**9), 10**9).map(lambda n: Number(Fraction(n))),
        st.integers(-(10**6), 10**6).map(lambda n: Number(Fraction(n, 100), decimals=2)),
        st.fractions(-99, 99, max_denominator=9).map(Number),
    ),
    st.text(st.sampled_from("1234567890 .,and$%/-"), max_size=60),
)
def test_a_wrong_number_is_never_the_right_one(grader: Number, working: str) -> None:
    reference = f"{working}\n\nAnswer: {grader.text}"
    problem = Problem("n", f"How many {working}?", "set", "math", grader, reference)
    derived = with_wrong_answers(problem, None)
    assert len(derived.wrong) >= 2
    assert len(set(derived.wrong)) == len(derived.wrong) <= 4
    for wrong in derived.wrong:
        grade = grader.grade(wrong)
        assert grade.score == 0.0
        assert "no single number" not in grade.detail
    assert with_wrong_answers(problem, None) == derived


def test_numbers_on_the_way_to_the_answer_are_wrong_answers(tmp_path: Path) -> None:
    line = {
        "question": "She lays 16 eggs, eats 3, bakes 4, and sells the rest for $2. How much?",
        "answer": "She sells 16 - 3 - 4 = <<16-3-4=9>>9 eggs.\nThat is 9 * 2 = 18.\n#### 18",
    }
    (problem,) = read_problems(written(tmp_path, line))
    values = {wrong.removeprefix("Answer: ") for wrong in with_wrong_answers(problem, None).wrong}
    assert len(values & {"16", "3", "4", "9", "2"}) >= 2
    assert values & {"17", "19", "36", "180", "28"}


def test_the_other_options_are_the_wrong_ones() -> None:
    grader = Choice("B", ("one", "two", "three"))
    problem = Problem("c", "Which?", "set", "knowledge", grader, "Answer: B")
    assert with_wrong_answers(problem, None).wrong == ("Answer: A", "Answer: C")


def test_a_problem_with_wrong_answers_stays_as_it_is() -> None:
    for problem in read_problems(ROOT / "data/problems"):
        assert with_wrong_answers(problem, None) is problem


def test_a_test_at_fault_is_told_with_its_place(tmp_path: Path, sandbox: Sandbox) -> None:
    (problem,) = read_problems(written(tmp_path, SAME | {"test": "def test():\n    pass\n"}))
    with pytest.raises(ProblemError, match=r"set\.jsonl:1: the problem cannot be judged"):
        with_wrong_answers(problem, sandbox)


def test_programs_need_a_sandbox_and_the_simulation_needs_wrong_answers(
    bare: list[Problem],
) -> None:
    with pytest.raises(ProblemError, match="deriving wrong programs needs a"):
        with_wrong_answers(bare[0], None)
    with pytest.raises(ProblemError, match="or derive them with"):
        simulated_task(bare[0])


def test_what_was_derived_is_kept_and_damage_is_derived_anew(
    tmp_path: Path, sandbox: Sandbox
) -> None:
    (problem,) = read_problems(written(tmp_path, SAME))
    cache = tmp_path / "cache"
    derived = with_wrong_answers(problem, sandbox, cache=cache)
    (file,) = cache.iterdir()
    closed = Sandbox()
    closed.close()
    assert with_wrong_answers(problem, closed, cache=cache) == derived
    right = json.dumps([problem.reference])
    for damage in ("", "[1]", "{}", '["text"]', right, json.dumps([*derived.wrong] * 2)):
        file.write_text(damage)
        assert with_wrong_answers(problem, sandbox, cache=cache) == derived
    other = replace(problem, query=problem.query + " Quickly.")
    with_wrong_answers(other, sandbox, cache=cache)
    assert len(list(cache.iterdir())) == 2


def test_simulated_teams_answer_sets_that_come_without_wrong_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sandbox: Sandbox
) -> None:
    monkeypatch.setenv("MASROUTER_CACHE", str(tmp_path / "cache"))
    path = written(tmp_path, SAME, {"question": "How much is 3 and 4?", "answer": "7"})
    done = CliRunner().invoke(
        build_app(), ["run", "--plan", "cot(gpt-4o)", "--problems", str(path)]
    )
    assert done.exit_code == 0, done.output
    assert "2 of 2 problems come without wrong answers" in done.stderr
    assert "derived by mutation" in done.stderr
    assert "of 2 graded answers are right" in done.stdout
    assert len(list((tmp_path / "cache/mutants").iterdir())) == 1
