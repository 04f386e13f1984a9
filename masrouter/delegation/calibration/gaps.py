"""Problems with a needed part cut out: queries of which it is known what they lack.

    math, knowledge   a sentence goes that is not the question itself; of math, one with a number
    knowledge         the options go, where the question points to them
    code              what the function is to do goes; its signature stays

A cut is only made where something goes with it that the answer should rest on: numbers for a
number, options for a choice, the description of a program. Whether an answer can still be found
without it is not looked into: some sentences of a story say little.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from masrouter.errors import ConfigError
from masrouter.problems import CodeTests, Number, Problem

_SENTENCE = re.compile(r"(?<=[.!?])\s+(?=[A-Z0-9'\"(])")
_OPTION = re.compile(r"^[A-J]\) ", re.MULTILINE)
_POINTS_TO_OPTIONS = re.compile(
    r"\bwhich (?:of|one|statement|option|sentence|conclusion|pair|word|answer)\b", re.IGNORECASE
)
_DOCSTRING = re.compile(r'"""(.*?)"""', re.DOTALL)


@dataclass(frozen=True, slots=True, order=True)
class Gap:
    """A query without a part that it needs."""

    query: str
    lacks: str
    """The part that was cut."""


def all_gaps(problem: Problem) -> tuple[Gap, ...]:
    """All that can be cut out of a problem, one at a time, in a fixed order; often none."""
    cut = _of_program if isinstance(problem.grader, CodeTests) else _of_text
    return tuple(sorted(set(cut(problem))))


def one_gap(problem: Problem, seed: int = 0) -> Gap | None:
    """One of them; None where nothing can be cut. The same whatever other problems there are."""
    found = all_gaps(problem)
    # A text as the seed is hashed the same way on every machine.
    return random.Random(f"{seed} {problem.problem_id}").choice(found) if found else None


def some_gaps(problems: Sequence[Problem], share: float, seed: int = 0) -> dict[str, Gap]:
    """By problem id, a gap for about a share of the problems: of all of them where share is 1.

    Each problem is drawn by itself: with more problems the same ones are drawn of these. Where two
    come to the same text, or to that of a whole problem, the first stays. Raises ConfigError for a
    share outside [0, 1].
    """
    if not 0 <= share <= 1:
        raise ConfigError(f"gaps: expected a share in [0, 1], got {share!r}")
    taken = {problem.query for problem in problems}
    found: dict[str, Gap] = {}
    for problem in problems:
        if random.Random(f"{seed} of {problem.problem_id}").random() >= share:
            continue
        cut = one_gap(problem, seed)
        if cut is not None and cut.query not in taken:
            taken.add(cut.query)
            found[problem.problem_id] = cut
    return found


def _of_text(problem: Problem) -> Iterator[Gap]:
    options = _OPTION.search(problem.query)
    stem = problem.query if options is None else problem.query[: options.start()]
    rest = problem.query[len(stem) :]
    if rest and _POINTS_TO_OPTIONS.search(stem):
        yield Gap(stem.strip(), rest.strip())
    sentences = _SENTENCE.split(stem.strip())
    for at, sentence in enumerate(sentences):
        asks = sentence.rstrip().endswith("?") or at == len(sentences) - 1
        tells = re.search(r"\d", sentence) if isinstance(problem.grader, Number) else True
        if len(sentences) > 1 and not asks and tells:
            kept = " ".join(sentences[:at] + sentences[at + 1 :])
            yield Gap(f"{kept}\n{rest}".strip(), sentence.strip())


def _of_program(problem: Problem) -> Iterator[Gap]:
    found = _DOCSTRING.search(problem.query)
    if found is not None and found[1].strip():
        yield Gap(problem.query[: found.start()].rstrip(), found[1].strip())
