"""The final value of an answer, when two answers are the same, and texts made to do harm."""

from __future__ import annotations

import ast
import time
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from masrouter.answers import (
    answer_key,
    extract_choice,
    extract_code,
    extract_number,
    final_answer,
)

GOOD = "def f(x):\n    return x + 1"
OLD = "def f(x):\n    return x"


def fenced(code: str, tag: str = "python") -> str:
    return f"```{tag}\n{code}\n```"


NUMBERS: list[tuple[str, str | None]] = [
    ("Answer: 42", "42"),
    ("answer : 42", "42"),
    ("**Answer:** 42", "42"),
    ("**Answer: 42**", "42"),
    ("### Final Answer: 42", "42"),
    ("Final answer:\n\n**17**", "17"),
    ("It is 5. Answer: 42. Good luck with the other 3!", "42"),
    ("The answer is 42.", "42"),
    ("so \\boxed{42} is it", "42"),
    ("$$\\boxed{\\frac{3}{4}}$$", "3/4"),
    ("The final answer is $\\boxed{70{,}000}$.", "70000"),
    ("16 - 3 - 4 = 9\n#### 18", "18"),
    ("#### Step 2\nso 7 apples", "7"),
    ("Answer: $1,234,567.50", "2469135/2"),
    ("Answer: 12 000", "12000"),
    ("Answer: 12’000", "12000"),
    ("Answer: Janet makes **$18** every day.", "18"),
    ("The answer is thus **18**", "18"),
    ("Answer: $70 thousand", "70000"),
    ("Answer: 1.5 million people", "1500000"),
    ("Answer: 70k", "70000"),
    ("Answer: negative 5", "-5"),
    ("Answer: minus 5 degrees", "-5"),
    ("Answer - 18", "18"),
    ("Answer = 18", "18"),
    ("<answer>18</answer>", "18"),
    ("Answer: 90 minutes (or 1.5 hours)", "90"),
    ("Answer: 18. It holds for 2 or 3 of them.", "18"),
    ("Step \\boxed{9}, which doubled is \\boxed{18}", "18"),
    ("Answer: 12\u202f000", "12000"),
    ("Answer: 1_000", "1000"),
    ("Answer: $\\$12\\,000$", "12000"),
    ("Answer: €3.50", "7/2"),
    ("Answer: -$3.50", "-7/2"),
    ("Answer: $-3.50", "-7/2"),
    ("Answer: 15%", "15"),
    ("Answer: 15 \\%", "15"),
    ("Answer: 5kg", "5"),
    ("Answer: 20 km/h", "20"),
    ("Answer: 100 cm^2", "100"),
    ("Answer: $100\\text{ m}^3$", "100"),
    ("Answer: 3/4", "3/4"),
    ("Answer: 3/4 of a litre", "3/4"),
    ("Answer: \\dfrac{-3}{4}", "-3/4"),
    ("Answer: -\\frac34", "-3/4"),
    ("Answer: 1 1/2 hours", "3/2"),
    ("Answer: 3/4 = 0.75", "3/4"),
    ("Answer: x = 5", "5"),
    ("Answer: 9 * 2 = $18", "18"),
    ("Answer: about 2.5e3", "2500"),
    ("Answer: 2.5 × 10^3", "2500"),
    ("Answer: $2.5 \\times 10^{-1}$", "1/4"),
    ("Answer: −5", "-5"),
    ("Answer: - 5", "-5"),
    ("Answer: .5", "1/2"),
    ("Answer: +7", "7"),
    ("Answer: 0042", "42"),
    ("Answer: 18 (9 * 2)", "18"),
    ("Answer: the 3rd one costs 7", "7"),
    ("She has **18** apples after 2 days.", "18"),
    ("9*2 = $18 every day", "18"),
    ("1. 16 eggs.\n2. She earns 18.\n3. Done.", "18"),
    ("First 3, then 4, so 7", "7"),
    ("Total: 7.", "7"),
    ("<think>Answer: 3</think>It is 4.", "4"),
    ("Answer: 3\nWait, that is wrong.\nAnswer: 4", "4"),
    ("x2 and H2O", None),
    ("Answer: 3 or 4", None),
    ("Answer: 3 and 4", None),
    ("Answer: 3 red apples or 4 green apples", None),
    ("Answer: 3 (or maybe 4)", None),
    ("Answer: 3, maybe 4", None),
    ("Answer: 3. Or 4.", None),
    ("Answer: x = 3 or x = 4", None),
    ("Answer: 3 | 4", None),
    ("Answer: 3 4", None),
    ("Answer: (3)(4)", None),
    ("Answer: 3 + 4", None),
    ("Answer: 3 * 4", None),
    ("Answer: 3 × 4", None),
    ("Answer: 3 \\cdot 4", None),
    ("Answer: not 3", None),
    ("Answer: 3²", None),
    ("Answer: 3x", None),
    ("\\boxed{3} or \\boxed{4}", None),
    ("$\\boxed{3}$, $\\boxed{4}$", None),
    ("It is 3 or 4.", None),
    ("Answer: 2, 3", None),
    ("Answer: 3-5", None),
    ("Answer: 3 to 5 days", None),
    ("Answer: 3:30", None),
    ("Answer: 5 ± 1", None),
    ("Answer: 2\\sqrt{3}", None),
    ("Answer: 2^10", None),
    ("Answer: 5!", None),
    ("Answer: 3π", None),
    ("Answer: 5/0", None),
    ("Answer: \\frac{1}{0}", None),
    ("Answer: 1e999999999", None),
    ("Answer: 10^999999999", None),
    ("Answer: " + "9" * 5000, None),
    ("Answer: none", None),
    ("No idea.", None),
    ("", None),
]


@pytest.mark.parametrize(("text", "value"), NUMBERS, ids=[repr(t)[:40] for t, _ in NUMBERS])
def test_the_final_number(text: str, value: str | None) -> None:
    assert extract_number(text) == (None if value is None else Fraction(value))


@given(
    value=st.fractions(max_denominator=1000).filter(lambda v: abs(v) < 10**12),
    before=st.sampled_from(["", "We get 7 and 8.\n", "**Step 3:** 1/2\n", "#### 5\n"]),
    form=st.sampled_from(
        ["Answer: {}", "**Answer:** {}.", "Answer: ${}$", "\\boxed{{{}}}", "#### {}"]
    ),
    after=st.sampled_from(["", "\n", "\nI hope that helps."]),
)
def test_a_marked_number_is_recovered_exactly(
    value: Fraction, before: str, form: str, after: str
) -> None:
    assert extract_number(before + form.format(value) + after) == value


@given(st.integers(-(10**15), 10**15), st.integers(0, 4))
def test_thousands_and_decimals_are_read_back(value: int, places: int) -> None:
    exact = Fraction(value, 10**places)
    digits = f"{abs(value):0{places + 1}d}"
    whole, decimals = digits[: len(digits) - places], digits[len(digits) - places :]
    sign = "-" if value < 0 else ""
    text = f"{sign}${int(whole):,}{'.' if places else ''}{decimals}"
    assert extract_number(f"Answer: {text}") == exact


CHOICES: list[tuple[str, str | None]] = [
    ("B", "B"),
    ("(B)", "B"),
    ("B.", "B"),
    ("**B**", "B"),
    ("B) the second", "B"),
    ("**C) Paris**", "C"),
    ("Answer: B", "B"),
    ("Answer: b", "B"),
    ("Answer: (b)", "B"),
    ("Answer: **C. Paris**", "C"),
    ("Answer: A", "A"),
    ("Answer: A, because B is wrong", "A"),
    ("Answer: A.", "A"),
    ("Final answer: option D", "D"),
    ("\\boxed{D}", "D"),
    ("$\\boxed{\\text{D}}$", "D"),
    ("\\boxed{\\text{(C)}}", "C"),
    ("the answer is option B", "B"),
    ("The correct answer is (C).", "C"),
    ("The answer is A.", "A"),
    ("The answer is B because C and D fail.", "B"),
    ("Option C is the correct answer, A is not.", "C"),
    ("I think B is correct.", "B"),
    ("The correct option is B.", "B"),
    ("The best choice is (B).", "B"),
    ("I choose B.", "B"),
    ("I would go with option B.", "B"),
    ("It's B", "B"),
    ("[B]", "B"),
    ("Answer: {B}", "B"),
    ("<answer>B</answer>", "B"),
    ("Answer: London (B)", "B"),
    ("Answer: B (not A or C)", "B"),
    ("(A) is wrong, so (B).", "B"),
    ("A) one\nB) two\nC) three\n\nC", "C"),
    ("<think>Answer: A</think>\nAnswer: B", "B"),
    ("Answer: A\nNo.\nAnswer: D", "D"),
    ("Only (B) fits.", "B"),
    ("A", "A"),
    ("A cat sat on it.", None),
    ("Answer: A cat", None),
    ("The answer is a cat.", None),
    ("Answer: A or B", None),
    ("Answer: A and C", None),
    ("Answer: E", None),
    ("Answer: Berlin", None),
    ("(A) or (B), hard to say", None),
    ("Answer: B, maybe C", None),
    ("Answer: B. Or C.", None),
    ("Answer: (B) (C)", None),
    ("Answer: (B), (C)", None),
    ("Answer: B - C", None),
    ("Answer: B) London / A) Paris", None),
    ("Answer: B. London; also C", None),
    ("Answer: not B", None),
    ("**A**\n**B**", None),
    ("D\nC\nA\nB", None),
    ("A. B. C. D.", None),
    ("(B) is wrong.", None),
    ("Option B is not correct.", None),
    ("**B** is wrong.", None),
    ("\\boxed{A} and \\boxed{B}", None),
    ("**A** and **B** both fit", None),
    ("A) one\nB) two", None),
    ("No idea.", None),
    ("", None),
]


@pytest.mark.parametrize(("text", "letter"), CHOICES)
def test_the_final_option(text: str, letter: str | None) -> None:
    assert extract_choice(text) == letter


def test_options_beyond_those_offered_are_none() -> None:
    assert extract_choice("Answer: E", "ABCDE") == "E"
    assert extract_choice("Answer: C", "AB") is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Answer: Paris.", "Paris"),
        ("**Answer:** `Paris`", "Paris"),
        ("The answer is Paris. It is a city.", "Paris"),
        ('Answer: "Paris"', "Paris"),
        ("Answer:\nParis", "Paris"),
        ("\\boxed{a_{1}}", "a_{1}"),
        ("Answer: $\\boxed{x+1}$", "x+1"),
        ("\\boxed{3} so in words:\nAnswer: three", "three"),
        ("Answer:\n```python\nx = 1\n```", None),
        ("Nothing is marked here.", None),
        ("#### A heading", None),
    ],
)
def test_what_stands_behind_the_mark(text: str, said: str | None) -> None:
    assert final_answer(text) == said


SAME = [
    (fenced(GOOD), "Here:\n" + fenced("def f(x):\n    # one more\n    return (x+1)")),
    (fenced(GOOD), fenced('def f(x):\n    """Add one."""\n    return x + 1', "")),
    ("Answer: 1,000", "so it is \\boxed{1000}"),
    ("Answer: 0.5", "Answer: 1/2"),
    ("x = 5", "Answer: 5 apples"),
    ("Answer: B", "The answer is (B)."),
    ("B", "**B**"),
    ("Answer: New  York.", "The answer is **new york**"),
    ("Yes, it does.", "yes it does"),
    (fenced("print(6 * 7)") + "\nAnswer: 42", "Answer: 42"),
]
DIFFERENT = [
    (fenced(GOOD), fenced(OLD)),
    (fenced(GOOD), fenced(GOOD.replace("x", "y"))),
    ("Answer: 5", "Answer: -5"),
    ("Answer: B", "Answer: C"),
    ("Answer: 3 or 4", "Answer: 3"),
    ("Answer: Paris", "Answer: London"),
    ("Yes", "No"),
    ("2 > 1", "2 < 1"),
]


@pytest.mark.parametrize(("one", "other"), SAME)
def test_answers_that_say_the_same_have_one_key(one: str, other: str) -> None:
    assert answer_key(one) == answer_key(other)


@pytest.mark.parametrize(("one", "other"), DIFFERENT)
def test_answers_that_differ_have_two_keys(one: str, other: str) -> None:
    assert answer_key(one) != answer_key(other)


@settings(max_examples=200, deadline=None)
@given(st.text(st.sampled_from("`~ \n\tdef(x):1+Answer=$\\boxed{}*B)./-e9#>python"), max_size=200))
def test_any_text_is_read_without_an_exception(text: str) -> None:
    program = extract_code(text, "f")
    assert program is None or ast.parse(program)
    number = extract_number(text)
    assert number is None or isinstance(number, Fraction)
    assert extract_choice(text) in {None, *"ABCD"}
    assert answer_key(text) == answer_key(text + "\n")


@pytest.mark.parametrize(
    "text",
    [
        "import x y\n" * 18_000,
        "```python\n(\n" * 16_000,
        "```python\n(\n```\n" * 12_000,
        "```\nx=1\n```\n" * 16_000,
        "```" + " " * 190_000,
        "Answer: \n" * 22_000,
        "the answer is " * 14_000,
        "*" * 199_000,
        "Answer: " + "$" * 190_000,
        "(" * 199_000,
        " " * 199_000 + "x",
        "\\boxed{" * 28_000,
        "1" * 199_000,
        "1," * 99_000,
        "def f():\n" * 22_000,
        "x = 1\n y = 2\n" * 14_000,
        "```python\nimport " + "a." * 90_000 + "b\n```",
    ],
    ids=lambda text: repr(text[:12]),
)
def test_text_made_to_waste_time_does_not(text: str) -> None:
    begun = time.process_time()
    extract_code(text, "f")
    extract_number(text)
    extract_choice(text)
    answer_key(text)
    assert time.process_time() - begun < 20  # minutes, where a search is quadratic


@pytest.mark.parametrize("levels", [300, 330, 900, 990, pytest.param(3000, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "form",
    [
        "def f(x):\n    raise {}1",
        "if 0:\n    pass\n{}\ndef f(x): return 1",
        "x = a{}\ndef f(x): return 1",
    ],
)
def test_deep_code_is_no_error_of_the_reader(form: str, levels: int) -> None:
    part = {"raise": "-", "if 0:": "elif 0:\n    pass\n"}
    text = fenced(form.format(next((v for k, v in part.items() if k in form), ".b") * levels))
    program = extract_code(text, "f")
    assert program is None or "def f(x)" in program
    assert answer_key(text)


@pytest.mark.parametrize("statement", ["raise", "return"])
def test_an_integer_too_long_to_print_is_no_error_of_the_reader(statement: str) -> None:
    text = fenced(f"def f(x):\n    {statement} 0x{'9' * 5000}")
    assert extract_code(text, "f")
    assert answer_key(text).startswith("code ")
