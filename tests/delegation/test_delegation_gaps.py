"""Problems with a needed part cut out."""

from __future__ import annotations

import re
from collections import Counter
from fractions import Fraction
from pathlib import Path

import pytest

from masrouter.delegation.calibration.gaps import Gap, all_gaps, one_gap, some_gaps
from masrouter.errors import ConfigError
from masrouter.problems import Choice, CodeTests, Number, Problem, read_problems

DATA = Path(__file__).resolve().parents[2] / "data" / "problems"


def sum_of(query: str, name: str = "p") -> Problem:
    return Problem(name, query, "sums", "math", Number(Fraction(1)), "Answer: 1")


def test_a_sentence_with_a_number_goes_and_the_question_stays() -> None:
    problem = sum_of("Ann likes pears. She buys 3 pears. How many has she?")
    assert all_gaps(problem) == (Gap("Ann likes pears. How many has she?", "She buys 3 pears."),)


def test_options_go_where_the_question_points_to_them() -> None:
    query = "Which of these is a prime?\nA) 4\nB) 5"
    problem = Problem("p", query, "d", "knowledge", Choice("B", ("4", "5")), "Answer: B")
    assert all_gaps(problem) == (Gap("Which of these is a prime?", "A) 4\nB) 5"),)


def test_of_a_program_its_description_goes_and_the_signature_stays() -> None:
    query = 'def inc(x: int) -> int:\n    """Return x plus one."""\n'
    problem = Problem("p", query, "d", "code", CodeTests(query, "inc", ""), "x")
    assert all_gaps(problem) == (Gap("def inc(x: int) -> int:", "Return x plus one."),)


def test_where_nothing_can_be_cut_there_is_no_gap() -> None:
    problem = sum_of("What is 3 plus 4?")
    assert all_gaps(problem) == ()
    assert one_gap(problem) is None
    assert some_gaps([problem], 1.0) == {}


def test_gap_and_rest_are_the_words_of_the_whole_problem() -> None:
    def words(text: str) -> Counter[str]:
        return Counter(re.findall(r"\w+", text))

    found = 0
    for problem in read_problems(DATA):
        for gap in all_gaps(problem):
            found += 1
            assert words(gap.query) + words(gap.lacks) == words(problem.query)
            assert gap.lacks in problem.query
    assert found > 500


def test_a_share_is_drawn_problem_by_problem_and_always_the_same() -> None:
    problems = [
        sum_of(f"Ann has 5 pears. She eats 1. How many are left, {n}?", f"p{n}") for n in range(400)
    ]
    drawn = some_gaps(problems, 0.25, seed=3)
    assert 70 < len(drawn) < 130
    first = some_gaps(problems[:50], 0.25, seed=3)
    assert first == {name: gap for name, gap in drawn.items() if name in first}
    assert first != some_gaps(problems[:50], 0.25, seed=4)
    assert len({gap.lacks == "She eats 1." for gap in drawn.values()}) == 2


def test_no_two_queries_are_the_same_text() -> None:
    problems = [sum_of(f"It has {n} legs. How old is it?", f"p{n}") for n in range(3)]
    assert list(some_gaps(problems, 1.0)) == ["p0"]
    assert some_gaps([*problems, sum_of("How old is it?", "bare")], 1.0) == {}


@pytest.mark.parametrize("share", [-0.1, 1.5, float("nan")])
def test_a_share_outside_its_range_is_refused(share: float) -> None:
    with pytest.raises(ConfigError, match="expected a share"):
        some_gaps([], share)
