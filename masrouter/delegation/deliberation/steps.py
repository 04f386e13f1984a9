"""The steps of a sample's work: how they are read, when two say the same, and where samples part.

By rules, since to ask a model whether two steps agree would cost as much as another sample: numbers
by value, words by how many are shared.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from masrouter.answers import final_answer
from masrouter.answers.blocks import FENCED
from masrouter.answers.code import without_reasoning
from masrouter.answers.values import numbers_in

MOST_STEPS = 200
_LONGEST = 40_000
"""Characters of a sample that are searched for steps."""
ALIKE = 0.5
"""Steps without numbers say the same where they share this part of their words (Jaccard)."""
_OPENER_WORDS = 12
"""A first line of at most so many words, without a number, opens the work and is no step."""

_ITEM = re.compile(
    r"^[ \t>]*(?:[*_]{0,2}step[ \t]+\d{1,3}[*_]{0,2}[ \t]*[:.)-]|\d{1,3}[.)](?=\s)|[-*•+](?=\s))"
    r"[*_ \t]*",
    re.IGNORECASE,
)
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[\"'(A-Z0-9])")
_SMALL = frozenset((
    "a", "an", "and", "are", "as", "at", "be", "by", "for", "from", "has", "have", "in", "is", "it",
    "its", "of", "on", "or", "so", "that", "the", "then", "there", "these", "this", "to", "was",
    "we", "will", "with",
))  # fmt: skip


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a sample's work."""

    text: str
    """As it was written, without its number or bullet."""
    values: frozenset[Fraction | None]
    """What it comes to: the numbers behind its last `=`, else all its numbers."""
    words: frozenset[str]

    @property
    def says_anything(self) -> bool:
        """Whether there is anything to compare."""
        return bool(self.values or self.words)

    def says(self, other: Step, alike: float = ALIKE) -> bool:
        """Whether both come to the same: by numbers where there are any, else by words.

        alike: the part of their words that they must share then.
        """
        if self.values or other.values:
            return self.values == other.values
        either = len(self.words | other.words)
        return not either or len(self.words & other.words) >= alike * either


@dataclass(frozen=True, slots=True)
class Parted:
    """Where samples part."""

    agreed: tuple[Step, ...]
    """The steps before it, as one of the samples that agree on them has them."""
    group: tuple[int, ...]
    """The samples that agree on them, by position."""


def part(steps: Sequence[Sequence[Step]], needed: int, alike: float = ALIKE) -> Parted | None:
    """Where samples part, by the steps of each; None where fewer than `needed` show any.

    They are compared in order; a sample that parted once does not come back.
    """
    group = [at for at, own in enumerate(steps) if own]
    if len(group) < needed:
        return None
    place = 0
    while True:
        kinds: list[list[int]] = []
        for at in group:
            if len(steps[at]) > place:
                step = steps[at][place]
                same = (kind for kind in kinds if steps[kind[0]][place].says(step, alike))
                kind = next(same, None)
                if kind is None:
                    kinds.append([at])
                else:
                    kind.append(at)
        largest = max(kinds, key=len, default=[])
        if len(largest) < needed:
            return Parted(tuple(steps[group[0]][:place]), tuple(group))
        group = largest
        place += 1


def read_steps(text: str) -> tuple[Step, ...]:
    """The steps of an answer's work: numbered or bulleted items, else its lines and sentences.

    Programs and the line that gives the answer are no steps, nor is a short first line without a
    number (`Let me work this out.`).
    """
    lines = [line for line in _work(text) if final_answer(line) is None]
    items = _items(lines)
    if len(items) >= 2:
        steps = [as_step(item) for item in items[:MOST_STEPS]]
    else:
        bare = [_ITEM.sub("", line, count=1) for line in lines]
        sentences = [part for line in bare for part in _SENTENCE_END.split(line)]
        steps = [as_step(part) for part in sentences[: MOST_STEPS + 1]]
        if len(steps) > 1 and _is_opener(steps[0]):
            del steps[0]
    return tuple(step for step in steps[:MOST_STEPS] if step.says_anything)


def read_next_step(text: str, behind: Sequence[Step] = ()) -> Step | None:
    """The one step of a reply that was to give the next alone; None where it gives none.

    That is the first numbered or bulleted item, else the first line that is no opener. A reply
    that begins with the steps `behind` which it stands gives the one after them, and one that only
    gives the answer has it for a step.
    """
    lines = _work(text)
    work = [line for line in lines if final_answer(line) is None] or lines
    items = _items(work)
    steps = [step for step in map(as_step, items or work) if step.says_anything]
    if not items and len(steps) > 1 and _is_opener(steps[0]):
        del steps[0]
    again = len(steps) > len(behind) and all(map(Step.says, steps, behind))
    return next(iter(steps[len(behind) if again else 0 :]), None)


def _work(text: str) -> list[str]:
    """The lines of an answer without its programs."""
    work = FENCED.sub("\n", without_reasoning(text[:_LONGEST]))
    return [line for line in work.split("\n") if line.strip()]


def _items(lines: Sequence[str]) -> list[str]:
    """Numbered or bulleted items with the lines that follow each, without their marks."""
    marks = [at for at, line in enumerate(lines) if _ITEM.match(line)]
    ends = [*marks[1:], len(lines)]
    return [
        _ITEM.sub("", " ".join(lines[at:end]), count=1)
        for at, end in zip(marks, ends, strict=False)
    ]


def _is_opener(step: Step) -> bool:
    return not step.values and len(step.text.split()) <= _OPENER_WORDS


def as_step(text: str) -> Step:
    said = " ".join(text.split())
    result = said.rpartition("=")[2]
    values = numbers_in(result) or numbers_in(said)
    words = re.findall(r"\w+", unicodedata.normalize("NFKC", said).casefold())
    return Step(
        said,
        frozenset(value for _, value in values),
        frozenset(word for word in words if word not in _SMALL),
    )
