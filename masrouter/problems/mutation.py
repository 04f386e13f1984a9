"""Wrong answers for problems that come without any, so that a simulated provider can err in them.

Programs: the reference with one small fault (a comparison, a constant, an operator, a condition, a
bound, a return too early), kept where the problem's own tests fail it. Numbers: values on the way
to the answer and near misses. Choices: the other options. The same problem always gets the same.

Not here: what real models get wrong. Mutants are plausible, they are no sample of any model.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
from collections.abc import Iterable, Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, TypeGuard

from masrouter.answers import answer_key, extract_code
from masrouter.answers.syntax import parse
from masrouter.answers.values import numbers_in
from masrouter.errors import ProblemError
from masrouter.problems.faults import faulty_programs
from masrouter.problems.formats import fenced
from masrouter.problems.problem import LETTERS, Choice, CodeTests, Number, Problem
from masrouter.problems.programs import helpers_of, whole_program
from masrouter.sandbox import Limits

if TYPE_CHECKING:
    from masrouter.sandbox import Sandbox

VERSION = 1
"""Of the method; another one derives other answers, and finds none in a cache."""
WANTED = 3
MOST_TRIED = 40
LIMITS = Limits(wall_s=30.0, cpu_s=1.0)
"""CPU time decides, not the clock: a mutant must be judged alike on a busy machine."""


def with_wrong_answers(
    problem: Problem, sandbox: Sandbox | None, *, cache: Path | None = None
) -> Problem:
    """The problem, with wrong answers derived from its reference where it has none.

    sandbox: runs mutants of programs against the tests. cache: a folder that keeps what was derived
    for programs, since judging them takes a second a problem; a damaged file there is derived anew.

    Raises ProblemError where no wrong answer can be derived.
    """
    if problem.wrong:
        return problem
    grader = problem.grader
    if isinstance(grader, Number):
        wrong = _numbers(problem, grader)
    elif isinstance(grader, Choice):
        letters = LETTERS[: len(grader.choices)]
        wrong = tuple(f"Answer: {letter}" for letter in letters if letter != grader.answer)
    elif sandbox is None:
        raise ProblemError(
            f"{_where(problem)}: deriving wrong programs needs a masrouter.sandbox.Sandbox"
        )
    else:
        wrong = _cached_programs(problem, grader, sandbox, cache)
    if not wrong:
        raise ProblemError(
            f"{_where(problem)}: no wrong answer could be derived from the reference; give some "
            "(wrong_solutions for code, wrong_answers for numbers)"
        )
    return replace(problem, wrong=wrong)


def _cached_programs(
    problem: Problem, grader: CodeTests, sandbox: Sandbox, cache: Path | None
) -> tuple[str, ...]:
    if cache is None:
        return _programs(problem, grader, sandbox)
    parts = [VERSION, problem.problem_id, problem.query, problem.reference, repr(grader)]
    text = json.dumps(parts).encode("ascii")
    file = cache / f"{hashlib.sha256(text).hexdigest()[:32]}.json"
    with contextlib.suppress(OSError, ValueError, RecursionError):
        kept = json.loads(file.read_bytes())
        if _is_kept(kept, problem.reference):
            return tuple(kept)
    wrong = _programs(problem, grader, sandbox)
    with contextlib.suppress(OSError):  # without a cache it only takes longer
        cache.mkdir(parents=True, exist_ok=True)
        new = file.with_suffix(f".{os.getpid()}")
        new.write_text(json.dumps(wrong), encoding="ascii")
        new.replace(file)
    return wrong


def _is_kept(data: object, reference: str) -> TypeGuard[list[str]]:
    """Whether it can be what `_programs` gave: answers, each another one, none the right one."""
    if not isinstance(data, list) or not 0 < len(data) <= WANTED:
        return False
    if not all(isinstance(item, str) and item.startswith("```") for item in data):
        return False
    return len({answer_key(item) for item in (reference, *data)}) == len(data) + 1


def _programs(problem: Problem, grader: CodeTests, sandbox: Sandbox) -> tuple[str, ...]:
    """Up to WANTED programs that run and give wrong results; then such as raise, if need be."""
    program = extract_code(problem.reference, grader.entry_point)
    if program is None:
        raise ProblemError(f"{_where(problem)}: its reference holds no program")
    keys = {answer_key(problem.reference)}
    failed: list[str] = []
    raised: list[str] = []
    for number, mutant in enumerate(_mutants(program, grader.entry_point, problem.problem_id)):
        answer = fenced(mutant)
        if answer_key(answer) in keys:
            continue
        try:
            reason = _reason(answer, grader, sandbox)
        except ProblemError as error:
            raise ProblemError(f"{_where(problem)}: {error}") from error
        if reason in ("failed", "exception"):
            # What hangs or is killed is a mistake of the mutation more than a model's.
            keys.add(answer_key(answer))
            (failed if reason == "failed" else raised).append(answer)
        if len(failed) == WANTED or (number >= MOST_TRIED and failed + raised):
            break
    return tuple((failed + raised)[:WANTED])


def _mutants(program: str, entry_point: str, problem_id: str) -> Iterator[str]:
    """Faulty programs, one of each kind in turn, in an order of the problem's own."""
    rng = _stream(problem_id)
    kinds: dict[str, list[str]] = {}
    for kind, mutant in faulty_programs(program, entry_point):
        kinds.setdefault(kind, []).append(mutant)
    for mutants in kinds.values():
        rng.shuffle(mutants)
    order = list(kinds)
    rng.shuffle(order)
    while order:
        for kind in [*order]:
            yield kinds[kind].pop()
            if not kinds[kind]:
                order.remove(kind)
    # Where no small fault shows: a function that does nothing, then one that refuses everything.
    for end in ("return None", "raise ValueError(args, kwargs)"):
        yield f"{program.rstrip()}\n\n\ndef {entry_point}(*args, **kwargs):\n    {end}\n"


def _reason(answer: str, grader: CodeTests, sandbox: Sandbox) -> str:
    """Why the tests do not pass an answer, as they will be run on it later; "passed" if they do."""
    code = extract_code(answer, grader.entry_point)
    program = code and whole_program(code, grader.prompt, grader.entry_point)
    if not program or parse(program) is None:
        return "crashed"
    helpers = helpers_of(grader.prompt, grader.entry_point)
    verdict = sandbox.judge(
        program, grader.test, grader.entry_point, helpers=helpers, limits=LIMITS
    )
    return verdict.reason


def _numbers(problem: Problem, grader: Number) -> tuple[str, ...]:
    """Two values on the way to the answer, where there are, and near misses."""
    rng = _stream(problem.problem_id)
    right = grader.answer
    read = numbers_in(f"{problem.reference}\n{problem.query}")
    way = _fitting((value for _, value in read if value is not None), grader)
    rng.shuffle(way)
    step = Fraction(1, 10**grader.decimals)
    near = _fitting(
        (right + step, right - step, right * 10, right / 2, right * 2, right + 10 * step, -right),
        grader,
    )
    rng.shuffle(near)
    return tuple(f"Answer: {text}" for text in dict.fromkeys([*way[:2], *near]))[: WANTED + 1]


def _fitting(values: Iterable[Fraction], grader: Number) -> list[str]:
    """Values that can be written as the answer is and are graded wrong, each once."""
    texts: dict[str, None] = {}
    for value in values:
        whole = value * 10**grader.decimals
        if (grader.answer.denominator == 1 or grader.decimals) and whole.denominator != 1:
            continue  # another kind of number than is asked for
        if value < 0 <= grader.answer and grader.answer != 0:
            continue
        text = Number(value, grader.decimals).text
        if len(text) <= 40 and grader.grade(f"Answer: {text}").score == 0.0:
            texts[text] = None
    return list(texts)


def _stream(problem_id: str) -> random.Random:
    key = f"{VERSION}\x1f{problem_id}".encode("utf-8", "surrogatepass")
    return random.Random(int.from_bytes(hashlib.sha256(key).digest()[:16], "big"))


def _where(problem: Problem) -> str:
    return problem.source or problem.problem_id
