"""What the simulated provider knows: questions with a right answer and plausible wrong ones."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from masrouter.answers import answer_key
from masrouter.errors import ConfigError

RIGHT = 0
"""Index of the right answer; wrong answers are 1, 2, ..."""


@dataclass(frozen=True)
class SimulatedTask:
    """One question that the provider can be asked."""

    query: str
    """Exactly as it stands in a prompt's <question>, where more may follow it."""
    domain: str
    """`code`, `math`, `knowledge`."""
    difficulty: float
    """1 (nearly every model gets it) to 5 (few do); 3 is a published benchmark's middle."""
    right: str
    """A right answer as a model would write it."""
    wrong: tuple[str, ...]
    """Wrong ones; at least one."""
    whole: str = ""
    """The question with the part that `query` lacks; empty where it lacks none."""
    lacks: str = ""
    """The part that was cut out, which a prompt may give elsewhere."""
    _keys: Mapping[str, int] = field(init=False, repr=False, compare=False)
    _hints: tuple[str, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not self.wrong:
            raise ConfigError(f"simulated task {self.query[:60]!r}: it needs a wrong answer too")
        if bool(self.whole.strip()) != bool(self.lacks.strip()):
            raise ConfigError(
                f"simulated task {self.query[:60]!r}: a question with a gap needs `whole`, the "
                "question without it, and `lacks`, the part that was cut; any other has neither"
            )
        answers = (self.right, *self.wrong)
        keys: dict[str, int] = {}
        for index, text in enumerate(answers):
            # Should two texts say the same, the earlier keeps the key: right stands before wrong.
            keys.setdefault(answer_key(text), index)
        object.__setattr__(self, "_keys", keys)
        object.__setattr__(self, "_hints", tuple(_hint(i, answers) for i in range(len(answers))))

    @property
    def key(self) -> str:
        """What chance goes by: a question with a gap is the same task as the whole one."""
        return self.whole or self.query

    @property
    def has_options(self) -> bool:
        """Whether its answers are letters of options."""
        return all(key.startswith("option ") for key in self._keys)

    def lacks_still(self, given: Iterable[str]) -> bool:
        """Whether its question has a gap that none of the texts given fills, whatever their layout.

        The part counts as given where it stands in a text word for word.
        """
        part = " ".join(self.lacks.split())
        return bool(part) and not any(part in " ".join(text.split()) for text in given)

    def answer(self, index: int) -> str:
        """Text of an answer: RIGHT, or a wrong one from 1."""
        return self.right if index == RIGHT else self.wrong[index - 1]

    def index_of(self, text: str) -> int | None:
        """Which known answer a text gives; None for any other."""
        return self._keys.get(answer_key(text))

    def hint(self, index: int) -> str:
        """A line that gives an answer's idea away, and no other's."""
        return self._hints[index]

    def hints_in(self, text: str) -> tuple[int, int]:
        """(right, wrong): how many hints at the right answer and at wrong ones a text holds."""
        # A hint ends its line: in the middle of one it may be part of the question, or of another.
        ends = [line.rstrip() for line in text.splitlines()]
        found = [
            index
            for index, hint in enumerate(self._hints)
            if any(line == hint or line.endswith(f": {hint}") for line in ends)
        ]
        right = found.count(RIGHT)
        return right, len(found) - right


def _hint(index: int, answers: tuple[str, ...]) -> str:
    """The longest line of an answer that no other answer has.

    Where each line stands in some other answer too, as in programs with a mistake each, it is all
    lines that not every other answer has: together, no other has them. Where that says nothing, or
    two answers have the same lines in another order, it is the whole answer.
    """
    lines = [_lines(text) for text in answers]
    mine = lines.pop(index)
    own = [line for line in mine if len(line) > 3 and not any(line in other for other in lines)]
    if own:
        return max(own, key=len)
    telling = [line for line in mine if not all(line in other for other in lines)]
    unordered = any(set(mine) == set(other) for other in lines)
    return " / ".join(mine if unordered or not telling else telling)


def _lines(text: str) -> list[str]:
    """Lines and sentences; indented as they are, which in a program may be the difference."""
    parts = [part.rstrip() for part in re.split(r"\n|(?<=[.;]) ", text)]
    return [part for part in parts if part and not part.startswith("```")]
