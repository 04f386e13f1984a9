"""The shapes of a line in a problem file, told apart by their keys.

    code       task_id, prompt, entry_point, canonical_solution, test        (HumanEval, MBPP)
    number     question, answer ("18", "2.50", "3/4", or a text that ends in "#### 18", as GSM8K)
    choice     question, choices, answer (a letter)

and in each: id, dataset, difficulty, topics, and answers that are wrong. Unknown keys are refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

from masrouter.problems.problem import LETTERS, Choice, CodeTests, Number, Problem, Task
from masrouter.problems.programs import whole_program
from masrouter.strict_yaml import describe, did_you_mean

_SHARED = ("dataset", "difficulty", "topics")
_CODE = ("task_id", "prompt", "entry_point", "canonical_solution", "test", "wrong_solutions")
_NUMBER = ("id", "question", "answer", "solution", "wrong_answers")
_CHOICE = ("id", "question", "choices", "answer", "explanation")

_VALUE = re.compile(r"[-+]?(?:\d{1,300}/\d{1,300}|\d{1,300}(?:\.(\d{1,100}))?)", re.ASCII)
_CALCULATOR = re.compile(r"<<[^<>]*>>")


class BadField(Exception):
    """A field of a line is wrong; the reader adds where it stands."""

    def __init__(self, name: str, why: str) -> None:
        super().__init__(f"{name}: {why}")


def problem_of(data: Mapping[str, Any], *, dataset: str, line: int, source: str) -> Problem:
    """One line's problem; raises BadField.

    dataset: used where the line names none, also for the id of a line without one.
    """
    if "prompt" in data or "entry_point" in data:
        fields = _code(_Fields(data, _CODE))
    elif "choices" in data:
        fields = _choice(_Fields(data, _CHOICE))
    elif "question" in data:
        fields = _number(_Fields(data, _NUMBER))
    else:
        raise BadField(
            "line", "no known kind of problem; expected the keys prompt, entry_point, "
            "canonical_solution and test, or question and answer, or question, choices and answer",
        )  # fmt: skip
    rest = _Fields(data, tuple(data))
    name = rest.text("dataset") if "dataset" in data else dataset
    return Problem(
        problem_id=fields.pop("problem_id") or f"{name}/{line}",
        dataset=name,
        difficulty=rest.difficulty(),
        topics=tuple(rest.texts("topics")),
        source=source,
        **fields,
    )


class _Fields:
    """Typed access to a line's fields."""

    def __init__(self, data: Mapping[str, Any], allowed: Sequence[str]) -> None:
        for key in data:
            if key not in allowed and key not in _SHARED:
                hint = did_you_mean(key, (*allowed, *_SHARED))
                raise BadField(key, f"unknown key{hint}")
        self._data = data

    def text(self, name: str, *, blank: bool = False) -> str:
        value = self._data.get(name)
        if not isinstance(value, str) or not (blank or value.strip()):
            raise BadField(name, f"expected {'' if blank else 'non-empty '}text, got {_got(value)}")
        if not _is_unicode(value):
            raise BadField(name, "half of a surrogate pair, which is no text")
        return value

    def optional(self, name: str) -> str:
        return self.text(name, blank=True) if self._data.get(name) is not None else ""

    def texts(self, name: str) -> list[str]:
        value = self._data.get(name)
        if value is None:
            return []
        if not isinstance(value, list):
            raise BadField(name, f"expected a list of texts, got {_got(value)}")
        whole = [_Fields({f"{name}[{i}]": item}, (f"{name}[{i}]",)) for i, item in enumerate(value)]
        return [item.text(f"{name}[{i}]") for i, item in enumerate(whole)]

    def difficulty(self) -> int | None:
        value = self._data.get("difficulty")
        if value is None or (type(value) is int and 1 <= value <= 5):
            return value
        raise BadField("difficulty", f"expected an integer from 1 to 5, got {_got(value)}")

    def get(self, name: str) -> Any:
        return self._data.get(name)


def _code(fields: _Fields) -> dict[str, Any]:
    prompt, test = fields.text("prompt"), fields.text("test")
    entry_point = fields.text("entry_point")
    if not entry_point.isidentifier():
        raise BadField("entry_point", f"expected a function's name, got {_got(entry_point)}")
    solutions = {"canonical_solution": fields.text("canonical_solution")}
    for index, wrong in enumerate(fields.texts("wrong_solutions")):
        solutions[f"wrong_solutions[{index}]"] = wrong
    answers = []
    for name, solution in solutions.items():
        program = whole_program(solution, prompt, entry_point)
        if program is None:
            raise BadField(
                name, f"no Python that defines {entry_point!r}, alone or behind the prompt"
            )
        answers.append(fenced(program))
    return _parts(
        fields.text("task_id"), prompt, "code", CodeTests(prompt, entry_point, test), answers
    )


def fenced(program: str) -> str:
    """A program as an answer gives it: in a block of Python."""
    ticks = max((len(run) for run in re.findall(r"`{3,}", program)), default=2) + 1
    end = "" if program.endswith("\n") else "\n"
    return f"{'`' * ticks}python\n{program}{end}{'`' * ticks}"


def _number(fields: _Fields) -> dict[str, Any]:
    question = fields.text("question")
    value = fields.get("answer")
    answer = str(value) if type(value) is int and abs(value) < 10**300 else fields.text("answer")
    worked, marked, last = answer.rpartition("####")
    grader = _number_of("answer", last)
    solution = fields.optional("solution") or (_CALCULATOR.sub("", worked) if marked else "")
    wrong = fields.texts("wrong_answers")
    for index, text in enumerate(wrong):
        _number_of(f"wrong_answers[{index}]", text)
    right = f"{solution.strip()}\n\nAnswer: {grader.text}".lstrip("\n")
    answers = [right, *(f"Answer: {text.strip()}" for text in wrong)]
    return _parts(_identity(fields), question, "math", grader, answers)


def _number_of(name: str, text: str) -> Number:
    plain = text.strip().replace("$", "").replace("\u2212", "-")
    plain = re.sub(r"(?<=\d),(?=\d{3}(?:\D|\Z))", "", plain)
    match = _VALUE.fullmatch(plain)
    if match is None or re.fullmatch(r".*/0+", plain):
        raise BadField(name, f"expected an integer, a decimal or a fraction a/b, got {_got(text)}")
    return Number(Fraction(plain), decimals=len(match[1] or ""))


def _choice(fields: _Fields) -> dict[str, Any]:
    question, choices = fields.text("question"), fields.texts("choices")
    if not 2 <= len(choices) <= len(LETTERS):
        raise BadField("choices", f"expected 2 to {len(LETTERS)} options, got {len(choices)}")
    if len({" ".join(choice.casefold().split()) for choice in choices}) < len(choices):
        raise BadField("choices", "two options say the same")
    letters = LETTERS[: len(choices)]
    answer = fields.text("answer")
    if answer not in tuple(letters):
        raise BadField("answer", f"expected a letter from A to {letters[-1]}, got {_got(answer)}")
    options = [f"{letter}) {choice}" for letter, choice in zip(letters, choices, strict=True)]
    explanation = fields.optional("explanation").strip()
    answers = [f"{explanation}\n\nAnswer: {answer}".lstrip("\n")]
    answers += [f"Answer: {letter}" for letter in letters if letter != answer]
    grader = Choice(answer, tuple(choices))
    return _parts(_identity(fields), "\n".join([question, *options]), "knowledge", grader, answers)


def _identity(fields: _Fields) -> str | None:
    return None if fields.get("id") is None else fields.text("id")


def _parts(
    problem_id: str | None,
    query: str,
    task: Task,
    grader: CodeTests | Number | Choice,
    answers: Sequence[str],
) -> dict[str, Any]:
    return {
        "problem_id": problem_id,
        "query": query,
        "task": task,
        "grader": grader,
        "reference": answers[0],
        "wrong": tuple(answers[1:]),
    }


def _got(value: object) -> str:
    return "nothing" if value is None else describe(value)


def _is_unicode(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
