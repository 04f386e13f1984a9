"""A problem with its grader: code judged by tests, a number, an option.

Code is never run here but by the sandbox that is passed in.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING, Literal, Protocol

from masrouter.answers import extract_choice, extract_code, extract_number, final_answer
from masrouter.errors import ProblemError
from masrouter.problems.programs import helpers_of, whole_program

if TYPE_CHECKING:
    from masrouter.sandbox import Sandbox

Task = Literal["code", "math", "knowledge"]
LETTERS = "ABCDEFGHIJ"


@dataclass(frozen=True, slots=True)
class Grade:
    """What an answer is worth."""

    score: float
    """1 right, 0 wrong."""
    source: Literal["tests", "exact_match"]
    """What scored it, as a log's `score_source`."""
    detail: str
    """Why, in a line or two."""


class Grader(Protocol):
    """Judges answers to one problem."""

    def grade(self, answer: str, sandbox: Sandbox | None) -> Grade:
        """Grade the full text of an answer.

        An answer without code, number or option has failed: score 0. Raises ProblemError where
        the grader cannot judge, SandboxError where code cannot be contained.
        """


@dataclass(frozen=True, slots=True)
class CodeTests:
    """A program is right where it passes the tests: `check(candidate)` in `test`."""

    prompt: str
    entry_point: str
    test: str

    def grade(self, answer: str, sandbox: Sandbox | None) -> Grade:
        """Run the program in the answer, with what it lacks of the prompt, against the tests."""
        if sandbox is None:
            raise ProblemError(
                f"the tests of {self.entry_point!r} cannot be run: pass a masrouter.sandbox.Sandbox"
            )
        code = extract_code(answer, self.entry_point)
        if code is None:
            return Grade(0.0, "tests", "no Python code in the answer")
        program = whole_program(code, self.prompt, self.entry_point)
        if program is None:
            return Grade(0.0, "tests", f"the code in the answer does not define {self.entry_point}")
        helpers = helpers_of(self.prompt, self.entry_point)
        verdict = sandbox.judge(program, self.test, self.entry_point, helpers=helpers)
        if verdict.passed:
            return Grade(1.0, "tests", "all tests passed")
        return Grade(0.0, "tests", f"{verdict.reason}: {verdict.detail}")


@dataclass(frozen=True, slots=True)
class Number:
    """A number is right where it equals `answer`, exactly or to `decimals` places."""

    answer: Fraction
    decimals: int = 0
    """Places that the reference gives; 0 asks for equality."""

    def grade(self, answer: str, sandbox: Sandbox | None = None) -> Grade:
        """Compare the final number in the answer; it may carry more places than asked for."""
        given = extract_number(answer)
        if given is None:
            return Grade(0.0, "exact_match", "no single number in the answer")
        # Less than half a unit of the last place; an exact half would round to either side.
        half = Fraction(1, 2 * 10**self.decimals)
        right = abs(given - self.answer) < half if self.decimals else given == self.answer
        found = _shown(given)
        detail = f"{found} is right" if right else f"expected {self.text}, got {found}"
        return Grade(float(right), "exact_match", detail)

    @property
    def text(self) -> str:
        """The answer as it is written: `18`, `3/4`, `2.50`."""
        if not self.decimals:
            return str(self.answer)
        digits = f"{abs(self.answer.numerator) * 10**self.decimals // self.answer.denominator}"
        digits = digits.rjust(self.decimals + 1, "0")
        sign = "-" if self.answer < 0 else ""
        return f"{sign}{digits[: -self.decimals]}.{digits[-self.decimals :]}"


@dataclass(frozen=True, slots=True)
class Choice:
    """An option is right where it is `answer`: a letter, or that option's words."""

    answer: str
    choices: tuple[str, ...]

    def grade(self, answer: str, sandbox: Sandbox | None = None) -> Grade:
        """Compare the final option in the answer."""
        given = self._by_words(answer) or extract_choice(answer, LETTERS[: len(self.choices)])
        if given is None:
            return Grade(0.0, "exact_match", "no single option in the answer")
        right = given == self.answer
        detail = f"{given} is right" if right else f"expected {self.answer}, got {given}"
        return Grade(float(right), "exact_match", detail)

    def _by_words(self, answer: str) -> str | None:
        """The letter of the option whose words, with its letter or not, are all that it says."""
        said = _words(final_answer(answer) or answer)
        if said.upper() in tuple(LETTERS):
            return None  # a letter names an option, whatever the options say
        same = [
            letter
            for letter, choice in zip(LETTERS, self.choices, strict=False)
            if said in (words := _words(choice), f"{letter.lower()} {words}")
        ]
        return same[0] if len(same) == 1 else None


@dataclass(frozen=True, slots=True)
class Problem:
    """A question with a known answer."""

    problem_id: str
    query: str
    """What the router sees and the team gets."""
    dataset: str
    task: Task
    grader: CodeTests | Number | Choice
    reference: str
    """A full right answer, as a model would write it."""
    wrong: tuple[str, ...] = ()
    """Full answers that are wrong."""
    difficulty: int | None = None
    """1 easy to 5 hard."""
    topics: tuple[str, ...] = ()
    source: str = field(default="", compare=False)
    """`file:line` that it was read from."""


def _words(text: str) -> str:
    folded = unicodedata.normalize("NFKC", text).casefold()
    plain = " ".join(folded.replace("*", " ").split()).removesuffix(".")
    return plain[1:-1] if re.fullmatch(r"'[^']+'", plain) else plain


def _shown(value: Fraction) -> str:
    text = str(value)
    return text if len(text) <= 40 else f"{text[:40]}..."
