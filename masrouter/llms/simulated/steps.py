"""Work in steps: the paths to a task's answers, and how each step is worded.

An assumption, not a measurement. The right answer is reached in so many steps, more for harder
tasks. Each wrong answer has a path that follows the right one up to a step at which it parts, drawn
evenly over all steps and fixed by the task, and never comes back: paths form a tree, and a step
behind its parting belongs to one answer. Who is shown steps goes on behind the last of them.

A step of mathematics comes to a number, which differs from path to path; a program's or a fact's
step says words only. The same step is worded anew from sample to sample, and another path's step
takes up many of the same words. Of the project's 370 programs and facts, two wordings of a step
share 0.67 of their words in the mean (Jaccard; a tenth 0.50 or less), steps of two paths at the
same place 0.26 (a tenth 0.50 or more): they overlap on purpose, so that where to draw the line is
worth asking. Behind the last step there is one more, which sums up.
"""

from __future__ import annotations

import math
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from masrouter.answers import extract_choice, final_answer
from masrouter.answers.values import number_in
from masrouter.llms.simulated.judgement import draws
from masrouter.llms.simulated.tasks import RIGHT, SimulatedTask

_CORE = 9
"""Words that a step's wordings are made of."""
_DROPPED = 0.08
"""Share of them that a wording leaves out."""
_TAKEN_UP = (0.2, 0.9)
"""Between which shares of the right step's words a wrong path's step at its place takes up."""

_FRAMES = (
    "Take {} together",
    "Look at {} first",
    "It follows from {}",
    "Now bring in {} as well",
    "Keep {} in mind",
    "This leaves {}",
)
VARIANTS = len(_FRAMES)
"""Wordings of one step."""
_SPARE = (
    "amount", "bound", "case", "cause", "condition", "detail", "effect", "end", "form", "group",
    "kind", "limit", "list", "meaning", "order", "part", "place", "range", "reason", "rule",
    "sense", "share", "side", "source", "start", "state", "term", "unit", "use", "whole",
)  # fmt: skip
"""For tasks that have too few words of their own."""
_NO_CONTENT = frozenset((
    "about", "after", "again", "all", "also", "and", "answer", "any", "are", "back", "been",
    "before", "both", "but", "can", "choice", "could", "did", "does", "down", "each", "every",
    "exactly", "for", "from", "gives", "had", "has", "have", "her", "his", "how", "into", "its",
    "less", "many", "may", "more", "most", "much", "must", "none", "nor", "not", "only", "option",
    "other", "others", "our", "over", "own", "return", "same", "she", "should", "some", "such",
    "than", "that", "the", "their", "them", "then", "there", "these", "they", "this", "those",
    "was", "were", "what", "when", "where", "which", "while", "who", "whose", "why", "will",
    "with", "would", "you", "your",
))  # fmt: skip
_LINE = re.compile(r"\s*(?:\d{1,3}[.)]\s+)?(.*\S)")


@dataclass(frozen=True, slots=True)
class Node:
    """A step of the tree: the `at`-th of the path to an answer, RIGHT before any parting."""

    answer: int
    at: int


class Paths:
    """The paths to a task's answers. `seed` names the simulated world."""

    def __init__(self, task: SimulatedTask, seed: int, *, steps: int) -> None:
        """steps: of each path, before the one that sums up; at least 1."""
        self._task = task
        self.steps = steps
        self._partings = {
            k: draws(seed, "parting", task.key, k).randint(1, steps)
            for k in range(1, len(task.wrong) + 1)
        }
        self._vocabulary = content_words(task.key)
        said = [final_answer(task.answer(k)) for k in range(len(task.wrong) + 1)]
        results = [None if text is None else number_in(text) for text in said]
        self._results = (
            [result for result in results if result is not None] if task.domain == "math" else []
        )
        self._wordings: dict[Node, list[str]] = {}
        self._known: dict[str, Node] | None = None
        self._counts = len(self._results) == len(results)

    def node(self, answer: int, at: int) -> Node:
        """The step of an answer's path, from 1 to `steps` + 1."""
        parted = answer != RIGHT and at >= self._partings[answer]
        return Node(answer if parted else RIGHT, at)

    def behind(self, node: Node) -> frozenset[int]:
        """Answers to which paths lead over a step."""
        if node.answer != RIGHT:
            return frozenset((node.answer,))
        later = (k for k, parting in self._partings.items() if parting > node.at)
        return frozenset((RIGHT, *later))

    def last(self, lines: Sequence[str]) -> Node | None:
        """The last of some lines that is a step of this task; None where none is."""
        if self._known is None:
            answers, places = range(len(self._task.wrong) + 1), range(1, self.steps + 2)
            nodes = dict.fromkeys(self.node(k, at) for k in answers for at in places)
            self._known = {_folded(said): node for node in nodes for said in self.wordings(node)}
        known = self._known
        found = (known.get(_folded(line)) for line in reversed(lines))
        return next((node for node in found if node is not None), None)

    def lines(self, answer: int, rng: random.Random, *, behind: int) -> list[str]:
        """Numbered steps of an answer's path, behind so many."""
        return [self.line(answer, at, rng) for at in range(behind + 1, self.steps + 1)]

    def line(self, answer: int, at: int, rng: random.Random) -> str:
        """One numbered step; behind the last, the one that sums up."""
        node = self.node(answer, min(at, self.steps + 1))
        return f"{at}. {self.wordings(node)[rng.randrange(VARIANTS)]}"

    def wordings(self, node: Node) -> list[str]:
        """All wordings of a step, each on one line; numbers come last, behind a `=`."""
        if node in self._wordings:
            return self._wordings[node]
        core = self._core(node)
        ending = f": {self._sum(node)}" if self._counts else "."
        found: list[str] = []
        for variant, frame in enumerate(_FRAMES):
            rng = draws("wording", self._task.key, node.answer, node.at, variant)
            words = [word for word in core if rng.random() >= _DROPPED]
            rng.shuffle(words)
            half = len(words) // 2
            named = f"{' '.join(words[:half])} and {' '.join(words[half:])}"
            found.append(frame.format(named) + ending)
        self._wordings[node] = found
        return found

    def _core(self, node: Node) -> list[str]:
        """Words that the step is about."""
        rng = draws("words", self._task.key, RIGHT, node.at)
        right = _some(rng, self._vocabulary, _CORE, ())
        if node.answer == RIGHT:
            return right
        rng = draws("words", self._task.key, node.answer, node.at)
        share = rng.uniform(*_TAKEN_UP)
        kept = [word for word in right if rng.random() < share]
        own = _own_words(self._task, node.answer)
        return kept + _some(rng, own + self._vocabulary, _CORE - len(kept), right)

    def _sum(self, node: Node) -> str:
        """The calculation of a step of mathematics."""
        value = self._value(node)
        before = self._value(self._before(node)) if node.at > 1 else Fraction(self._given(node))
        change = value - before
        if not change or before.denominator > 1 or value.denominator > 1:
            return f"so far it comes to = {value}"
        return f"{before} {'+' if change > 0 else '-'} {abs(change)} = {value}"

    def _before(self, node: Node) -> Node:
        return self.node(node.answer, node.at - 1)

    def _given(self, node: Node) -> int:
        return draws("given", self._task.key, node.answer).randint(2, 60)

    def _value(self, node: Node) -> Fraction:
        """What a step comes to: no two paths' steps at the same place come to the same."""
        if node.at >= self.steps:
            return self._results[node.answer]
        # So far apart that no two answers' numbers meet, whatever is drawn.
        count = len(self._results)
        drawn = draws("value", self._task.key, node.answer, node.at).randint(1, 40)
        return Fraction(drawn * count + node.answer)


def steps_of(task: SimulatedTask, rates: Sequence[tuple[str, float]]) -> int:
    """Steps of a task's paths: two, and so many more for each grade of its difficulty."""
    return 2 + math.ceil(dict(rates).get(task.domain, 0.5) * max(task.difficulty, 1.0))


def _own_words(task: SimulatedTask, answer: int) -> list[str]:
    """Words that belong to an answer: of the option that it names, else of what sets it apart."""
    text = task.answer(answer)
    letter = extract_choice(text, "ABCDEFGHIJ")
    option = None if letter is None else re.search(rf"(?m)^{letter}\) (.+)$", task.key)
    return content_words(option[1] if option else task.hint(answer))


def content_words(text: str) -> list[str]:
    """Its words that say something, each once, in order; none with a digit."""
    words = re.findall(r"[a-z]{3,}", text.lower())
    return [word for word in dict.fromkeys(words) if word not in _NO_CONTENT]


def _some(rng: random.Random, words: Sequence[str], count: int, taken: Sequence[str]) -> list[str]:
    """So many of the words, none that is taken; spare ones where they do not suffice."""
    fresh = [word for word in dict.fromkeys(words) if word not in taken]
    if len(fresh) < count:
        spare = [word for word in _SPARE if word not in fresh and word not in taken]
        fresh += rng.sample(spare, min(count - len(fresh), len(spare)))
    return rng.sample(fresh, min(count, len(fresh)))


def _folded(line: str) -> str:
    """A line without its number, whatever its case and layout."""
    found = _LINE.match(line)
    return " ".join((found[1] if found else "").casefold().split()).rstrip(".")
