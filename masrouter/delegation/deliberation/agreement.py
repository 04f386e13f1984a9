"""Whether samples of a cheap model agree, and at which step they part.

That independent samples agree is taken as a sign that their answer is right: self-consistency
(Wang et al., arXiv 2203.11171), as the acceptance test of a cascade (Yue et al., arXiv 2310.03094).
It is a sign, no proof: a model that errs the same way each time agrees with itself. Where samples
show their steps, the verdict names the first on which they differ, as SAND (Xia et al., arXiv
2507.07441) deliberates only where an agent's sampled actions differ; whether the steps before it
are handed on is its user's choice (`deliberate(hand_over=True)`), which did not pay when measured.

Not here: who is asked (`deliberating`), and which rule pays (`calibration`).
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from masrouter.answers import final_answer
from masrouter.answers.blocks import FENCED
from masrouter.answers.code import without_reasoning
from masrouter.answers.values import numbers_in
from masrouter.errors import ConfigError
from masrouter.topologies.team import Reply
from masrouter.topologies.votes import tally

MOST_STEPS = 200
_LONGEST = 40_000
"""Characters of a sample that are searched for steps."""
_ALIKE = 0.5
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
class Rule:
    """When samples count as agreeing.

    The default is the most cautious of three samples: all must agree. What pays is found on logs
    (`calibrate`): on the 580 problems of `data/problems` with simulated models, two of three.
    """

    samples: int = 3
    """How many are asked for."""
    threshold: float = 1.0
    """Share of them that must give the same answer, in (0, 1]."""
    stop_early: bool = False
    """True asks no further once the rest cannot change the verdict: fewer calls, more waiting."""

    def __post_init__(self) -> None:
        if isinstance(self.samples, bool) or not isinstance(self.samples, int) or self.samples < 2:
            raise ConfigError(
                f"rule: samples: expected a number >= 2 (one sample agrees with itself), "
                f"got {self.samples!r}"
            )
        check_threshold(self.threshold)

    @property
    def needed(self) -> int:
        """How many samples must agree; 2 at least."""
        return votes_needed(self.samples, self.threshold)

    def wanting(self, votes: int, tried: int) -> int:
        """The fewest further samples that could make `votes` enough after `tried` ones.

        0 where more cannot change the verdict.
        """
        wanting = self.needed - votes
        return wanting if 0 < wanting <= self.samples - tried else 0


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a sample's work."""

    text: str
    """As it was written, without its number or bullet."""
    values: frozenset[Fraction | None]
    """What it comes to: the numbers behind its last `=`, else all its numbers."""
    words: frozenset[str]

    def says(self, other: Step) -> bool:
        """Whether both come to the same: by numbers where there are any, else by words."""
        if self.values or other.values:
            return self.values == other.values
        either = len(self.words | other.words)
        return not either or len(self.words & other.words) >= _ALIKE * either


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether to delegate, and why."""

    delegate: bool
    agreement: float
    """Share of the samples asked for that give the most frequent answer, in [0, 1]."""
    votes: int
    asked: int
    """Samples asked for; those that failed or say nothing agree with none."""
    answer: str | None
    """The first sample with the most frequent answer; None where no sample says anything."""
    step: int | None
    """When to delegate: the first step, from 1, on which too few samples agree; the answer counts
    as the last step. None where samples show no steps, or none is needed."""
    agreed: tuple[str, ...]
    """The steps before it, as one of the samples that agree on them wrote them."""
    reason: str


def should_delegate(
    samples: Sequence[str],
    *,
    threshold: float = 1.0,
    asked: int | None = None,
    passed: Sequence[bool] | None = None,
) -> Verdict:
    """Whether samples of a cheap model agree too little to trust them, and where they part.

    threshold: share of the samples that must give the same answer (`masrouter.answers.answer_key`:
    programs by their syntax, numbers by value, options by letter, all else by its words, so that
    free text seldom agrees). At least two must, whatever the share.
    asked: how many samples were asked for, where some failed; None takes all of `samples`.
    passed: the outcome of a check of each sample, such as the examples that a question shows. Then
    only samples that passed count, and all of them agree.

    Raises ConfigError for a threshold outside (0, 1], for no samples asked for, for fewer asked
    than came, and for outcomes of another number of samples.
    """
    check_threshold(threshold)
    asked = len(samples) if asked is None else asked
    if asked < 1 or asked < len(samples):
        raise ConfigError(
            f"should_delegate: expected asked >= 1 and >= the {len(samples)} samples that came, "
            f"got {asked}"
        )
    if passed is not None and len(passed) != len(samples):
        raise ConfigError(
            f"should_delegate: passed: {len(passed)} outcomes for {len(samples)} samples"
        )
    needed = votes_needed(asked, threshold)
    said = [Reply(i, "sample", text) for i, text in enumerate(samples) if text.strip()]
    if passed is not None:
        right = [reply for reply in said if passed[reply.agent]]
        votes = len(right)
        answer = (right or said)[0].text if said else None
        told = f"{votes} of {asked} samples passed the check, {needed} must"
    else:
        count = tally(said) if said else None
        votes = count.votes if count else 0
        answer = count.winner.text if count else None
        told = f"{votes} of {asked} samples agree, {needed} must"
    delegate = votes < needed
    step, agreed = (
        parting([reply.text for reply in said], threshold=threshold, asked=asked)
        if delegate
        else (None, ())
    )
    at = "" if step is None else f"; they part at step {step}"
    return Verdict(delegate, votes / asked, votes, asked, answer, step, agreed, told + at)


def votes_needed(asked: int, threshold: float) -> int:
    """How many of `asked` samples a share is; 2 at least."""
    # A share such as 2/3 is not exact in binary: without the small allowance 2 of 3 would miss it.
    return max(2, math.ceil(threshold * asked - 1e-9))


def parting(
    samples: Sequence[str], *, threshold: float = 1.0, asked: int | None = None
) -> tuple[int | None, tuple[str, ...]]:
    """The first step, from 1, on which fewer samples agree than must, and the steps before it.

    The steps are compared in order; a sample that parted once does not come back. Where the steps
    agree to the end, it is the answer that parts: the step behind the last. (None, ()) where too
    few samples show any steps.
    """
    asked = len(samples) if asked is None else asked
    needed = votes_needed(asked, threshold)
    group = [steps for steps in map(read_steps, samples) if steps]
    if len(group) < needed:
        return None, ()
    at = 0
    while True:
        kinds: list[list[tuple[Step, ...]]] = []
        for steps in group:
            if len(steps) > at:
                same = next((kind for kind in kinds if kind[0][at].says(steps[at])), None)
                if same is None:
                    kinds.append([steps])
                else:
                    same.append(steps)
        largest = max(kinds, key=len, default=[])
        if len(largest) < needed:
            return at + 1, tuple(step.text for step in group[0][:at])
        group = largest
        at += 1


def read_steps(text: str) -> tuple[Step, ...]:
    """The steps of an answer's work: numbered or bulleted items, else its lines and sentences.

    Programs and the line that gives the answer are no steps, nor is a short first line without a
    number (`Let me work this out.`).
    """
    work = FENCED.sub("\n", without_reasoning(text[:_LONGEST]))
    lines = [line for line in work.split("\n") if line.strip() and final_answer(line) is None]
    marks = [at for at, line in enumerate(lines) if _ITEM.match(line)]
    if len(marks) >= 2:
        ends = [*marks[1:], len(lines)]
        items = [" ".join(lines[at:end]) for at, end in zip(marks, ends, strict=True)]
        steps = [_step(_ITEM.sub("", item, count=1)) for item in items[:MOST_STEPS]]
    else:
        sentences = [part for line in lines for part in _SENTENCE_END.split(line)]
        steps = [_step(part) for part in sentences[: MOST_STEPS + 1]]
        if len(steps) > 1 and not steps[0].values and len(steps[0].text.split()) <= _OPENER_WORDS:
            del steps[0]
    return tuple(step for step in steps[:MOST_STEPS] if step.values or step.words)


def _step(text: str) -> Step:
    said = " ".join(text.split())
    result = said.rpartition("=")[2]
    values = numbers_in(result) or numbers_in(said)
    words = re.findall(r"\w+", unicodedata.normalize("NFKC", said).casefold())
    return Step(
        said,
        frozenset(value for _, value in values),
        frozenset(word for word in words if word not in _SMALL),
    )


def check_threshold(threshold: float) -> None:
    """Raises ConfigError for a share outside (0, 1]."""
    number = isinstance(threshold, int | float) and not isinstance(threshold, bool)
    if not number or not 0 < threshold <= 1:
        raise ConfigError(
            f"threshold: expected a share of the samples in (0, 1], got {threshold!r}"
        )
