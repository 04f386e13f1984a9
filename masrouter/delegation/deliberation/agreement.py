"""Whether samples of a cheap model agree, and at which step they part.

That independent samples agree is taken as a sign that their answer is right: self-consistency
(Wang et al., arXiv 2203.11171), as the acceptance test of a cascade (Yue et al., arXiv 2310.03094).
It is a sign, no proof: a model that errs the same way each time agrees with itself. Where samples
show their steps, the verdict names the first on which they differ, as SAND (Xia et al., arXiv
2507.07441) deliberates only where an agent's sampled actions differ; whether that step alone is
delegated is the rule's choice (`Rule.at`).

Not here: what a step is (`steps`), who is asked (`deliberating`, `stepwise`), and which rule pays
(`calibration`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from masrouter.delegation.deliberation.steps import ALIKE, part, read_steps
from masrouter.errors import ConfigError
from masrouter.topologies.team import Reply
from masrouter.topologies.votes import tally

MOST_SAMPLES = 64
"""That a rule may ask for: a file of thresholds must not send any number of calls."""
THRESHOLD = 2 / 3
"""Share of the samples that must agree, where nothing else was calibrated."""


@dataclass(frozen=True, slots=True)
class Rule:
    """When samples count as agreeing.

    The default: two of three is what calibration chose on data/problems for a strong model that
    thinks first (tests/benchmarks; simulated models); it was measured with `stop_early`, without
    which all samples are paid at once. For other models, `calibrate` on their own log.
    """

    samples: int = 3
    """How many are asked for."""
    threshold: float = THRESHOLD
    """Share of them that must give the same answer, in (0, 1]."""
    stop_early: bool = False
    """True asks no further once the rest cannot change the verdict: fewer calls, more waiting."""
    at: Literal["task", "step"] = "task"
    """What is delegated where samples part: the whole task, or the step at which they part, behind
    which the cheap model goes on (`stepwise`). A step pays where it costs the strong worker much
    less than an answer, so not where it thinks at length first; `calibrate` tries both."""
    alike: float = ALIKE
    """Steps without numbers say the same where they share this part of their words, in (0, 1]."""

    def __post_init__(self) -> None:
        number = isinstance(self.samples, int) and not isinstance(self.samples, bool)
        if not number or not 2 <= self.samples <= MOST_SAMPLES:
            raise ConfigError(
                f"rule: samples: expected a number >= 2 (one sample agrees with itself) and "
                f"<= {MOST_SAMPLES}, got {self.samples!r}"
            )
        check_share("threshold", self.threshold)
        if self.at not in ("task", "step"):
            raise ConfigError(f"rule: at: expected 'task' or 'step', got {self.at!r}")
        if not isinstance(self.stop_early, bool):
            raise ConfigError(f"rule: stop_early: expected true or false, got {self.stop_early!r}")
        check_share("alike", self.alike)

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
    threshold: float = THRESHOLD,
    asked: int | None = None,
    passed: Sequence[bool] | None = None,
    alike: float = ALIKE,
) -> Verdict:
    """Whether samples of a cheap model agree too little to trust them, and where they part.

    threshold: share of the samples that must give the same answer (`masrouter.answers.answer_key`:
    programs by their syntax, numbers by value, options by letter, all else by its words, so that
    free text seldom agrees). At least two must, whatever the share.
    asked: how many samples were asked for, where some failed; None takes all of `samples`.
    passed: the outcome of a check of each sample, such as the examples that a question shows. Then
    only samples that passed count, and all of them agree.
    alike: the part of their words that steps without numbers share where they say the same.

    Raises ConfigError for a share outside (0, 1], for no samples asked for, for fewer asked than
    came, and for outcomes of another number of samples.
    """
    verdict = verdict_of(samples, threshold=threshold, asked=asked, passed=passed)
    return with_parting(verdict, samples, threshold=threshold, alike=alike)


def verdict_of(
    samples: Sequence[str],
    *,
    threshold: float = THRESHOLD,
    asked: int | None = None,
    passed: Sequence[bool] | None = None,
) -> Verdict:
    """As `should_delegate`, by the answers alone: where the samples part is not looked for."""
    check_share("threshold", threshold)
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
    return Verdict(votes < needed, votes / asked, votes, asked, answer, None, (), told)


def with_parting(
    verdict: Verdict, samples: Sequence[str], *, threshold: float, alike: float
) -> Verdict:
    """A verdict of `verdict_of` on these samples, with the step at which they part."""
    check_share("alike", alike)
    if not verdict.delegate:
        return verdict
    step, agreed = parting(samples, threshold=threshold, asked=verdict.asked, alike=alike)
    if step is None:
        return verdict
    reason = f"{verdict.reason}; they part at step {step}"
    return replace(verdict, step=step, agreed=agreed, reason=reason)


def votes_needed(asked: int, threshold: float) -> int:
    """How many of `asked` samples a share is; 2 at least."""
    # A share such as 2/3 is not exact in binary: without the small allowance 2 of 3 would miss it.
    return max(2, math.ceil(threshold * asked - 1e-9))


def parting(
    samples: Sequence[str],
    *,
    threshold: float = THRESHOLD,
    asked: int | None = None,
    alike: float = ALIKE,
) -> tuple[int | None, tuple[str, ...]]:
    """The first step, from 1, on which fewer samples agree than must, and the steps before it.

    Where the steps agree to the end, it is the answer that parts: the step behind the last.
    (None, ()) where too few samples show any steps.
    """
    asked = len(samples) if asked is None else asked
    place = part([read_steps(text) for text in samples], votes_needed(asked, threshold), alike)
    if place is None:
        return None, ()
    return len(place.agreed) + 1, tuple(step.text for step in place.agreed)


def check_share(name: str, share: float) -> None:
    """Raises ConfigError for a share outside (0, 1]."""
    number = isinstance(share, int | float) and not isinstance(share, bool)
    if not number or not 0 < share <= 1:
        raise ConfigError(f"{name}: expected a share in (0, 1], got {share!r}")
