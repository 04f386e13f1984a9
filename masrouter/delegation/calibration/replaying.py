"""What a rule would have given and cost on logged samples: `deliberate` without its calls.

The log holds what every call would have answered, in the order of drawing, so that a replay is what
the policy would have done with these answers, call by call.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from masrouter.answers import answer_key
from masrouter.delegation.calibration.measuring import Floats
from masrouter.delegation.calibration.sampled import Parting, Sample, SampledQuery
from masrouter.delegation.deliberation.agreement import Rule
from masrouter.delegation.deliberation.steps import (
    Parted,
    Step,
    as_step,
    read_next_step,
    read_steps,
)
from masrouter.delegation.deliberation.stepwise import place_to_hand, votes_behind
from masrouter.errors import EvaluationError

ALIKES = (0.3, 0.5, 0.7, 0.9)
"""How alike steps must be to say the same: the shares that are tried."""


@dataclass(frozen=True, slots=True)
class Outcomes:
    """What a rule gives on each of n queries."""

    score: Floats  # (n,)
    cost: Floats  # (n,) US dollars
    delegated: Floats  # (n,) 1 where the strong worker was asked for an answer, else 0
    handed: Floats  # (n,) 1 where it was asked for a step, else 0


@dataclass(frozen=True, slots=True)
class Answers:
    """Samples with what they say."""

    samples: tuple[Sample, ...]
    keys: tuple[str | None, ...]
    """What each answers (`masrouter.answers.answer_key`); None of a blank one."""
    steps: tuple[tuple[Step, ...], ...]
    """None of a blank one."""

    @classmethod
    def read(cls, samples: Sequence[Sample]) -> Answers:
        """Of samples in the order of their drawing."""
        said = [sample.text if sample.text.strip() else None for sample in samples]
        return cls(
            tuple(samples),
            tuple(None if text is None else answer_key(text) for text in said),
            tuple(() if text is None else read_steps(text) for text in said),
        )


@dataclass(frozen=True, slots=True)
class Drawn:
    """How samples were drawn until the verdict was settled."""

    tried: int
    winner: int | None
    """The first sample with the most frequent answer; None where none says anything."""
    agreed: bool


@dataclass(frozen=True, slots=True)
class ReadParting:
    """A parting with what is behind it."""

    logged: Parting
    step: Step | None
    """None where the strong worker's reply gives none."""
    behind: Answers


@dataclass(frozen=True, slots=True)
class ReadQuery:
    """A query whose answers were read once for all rules."""

    logged: SampledQuery
    plain: Answers
    stepped: Answers
    partings: Mapping[tuple[str, ...], ReadParting]
    """By the steps agreed on."""

    @classmethod
    def read(cls, query: SampledQuery) -> ReadQuery:
        """The query as it stands in the log."""
        return cls(
            query,
            Answers.read(query.samples),
            Answers.read(query.stepped),
            {
                logged.steps: ReadParting(
                    logged,
                    read_next_step(logged.step.text, [as_step(step) for step in logged.steps]),
                    Answers.read(logged.samples),
                )
                for logged in query.partings
            },
        )


def draw(keys: Sequence[str | None], rule: Rule, votes: int = 0) -> Drawn:
    """Draw as a rule does: all at once, or no more than could settle it.

    keys: what samples answer, in the order of drawing; the first `votes` are there already.
    """
    tried = votes
    while True:
        count = Counter(key for key in keys[:tried] if key is not None)
        # On equal votes the first answer wins, as a Counter keeps its order.
        winner, most = count.most_common(1)[0] if count else (None, 0)
        more = rule.wanting(most, tried) if rule.stop_early else rule.samples - tried
        if not more:
            first = None if winner is None else keys.index(winner)
            return Drawn(tried, first, most >= rule.needed)
        tried += more


def place_of(stepped: Answers, rule: Rule) -> tuple[Drawn, Parted | None]:
    """How samples in steps are drawn, and where they part; None where no step is handed over."""
    drawn = draw(stepped.keys, rule)
    if drawn.agreed:
        return drawn, None
    return drawn, place_to_hand(stepped.steps[: drawn.tried], rule)


def replay(
    queries: Sequence[SampledQuery | ReadQuery], rule: Rule, *, delegate: bool = True
) -> Outcomes:
    """What `deliberate` would have given on each query with the logged samples, in their order.

    delegate: False takes the most frequent answer whatever its votes; without any the score is 0.
    Raises EvaluationError where the log does not hold what the rule would have asked for.
    """
    found = blank(len(queries))
    for at, query in enumerate(queries):
        read = ReadQuery.read(query) if isinstance(query, SampledQuery) else query
        _act(read, rule, delegate, found, at)
    return found


def _act(query: ReadQuery, rule: Rule, delegate: bool, found: Outcomes, at: int) -> None:
    answers = query.stepped if rule.at == "step" else query.plain
    _check(query, answers, rule.samples)
    drawn = draw(answers.keys, rule)
    costs = [known(sample.cost_usd) for sample in answers.samples[: drawn.tried]]
    samples = answers.samples
    if delegate and not drawn.agreed and rule.at == "step":
        _, place = place_of(answers, rule)
        if place is not None:
            parting = _parting(query, place)
            found.handed[at] = 1.0
            costs.append(known(parting.logged.step.cost_usd))
            if parting.step is not None:
                steps = answers.steps[: drawn.tried]
                votes = votes_behind(steps, place, parting.step, rule)
                _check(query, parting.behind, rule.samples - len(votes))
                samples = (*(answers.samples[vote] for vote in votes), *parting.behind.samples)
                keys = (*(answers.keys[vote] for vote in votes), *parting.behind.keys)
                drawn = draw(keys, rule, len(votes))
                new = parting.behind.samples[: drawn.tried - len(votes)]
                costs += [known(sample.cost_usd) for sample in new]
    if drawn.winner is not None and (drawn.agreed or not delegate):
        found.score[at] = samples[drawn.winner].score
    elif delegate:
        found.score[at] = query.logged.strong.score
        costs.append(known(query.logged.strong.cost_usd))
        found.delegated[at] = 1.0
    found.cost[at] = math.fsum(costs)


def _parting(query: ReadQuery, place: Parted) -> ReadParting:
    steps = tuple(step.text for step in place.agreed)
    if steps not in query.partings:
        raise EvaluationError(
            f"calibration: query {query.logged.query_id!r}: nothing is logged of what comes behind "
            f"{len(steps)} agreed steps; collect the samples again, with steps"
        )
    return query.partings[steps]


def _check(query: ReadQuery, answers: Answers, wanted: int) -> None:
    if wanted > len(answers.samples):
        raise EvaluationError(
            f"calibration: a rule wants {wanted} samples, and query {query.logged.query_id!r} has "
            f"{len(answers.samples)}"
        )


def blank(n: int) -> Outcomes:
    """Of n queries, to be filled."""
    return Outcomes(np.zeros(n), np.zeros(n), np.zeros(n), np.zeros(n))


def known(cost: float | None) -> float:
    """A cost of which it was checked that it is known."""
    assert cost is not None
    return cost


def rules_of(samples: int, *, stop_early: bool, at_step: bool = False) -> tuple[Rule, ...]:
    """Every number of samples up to so many, with every number of them that must agree.

    at_step: those that delegate a step, with each of `ALIKES`; else the whole task.
    """
    whole = [
        Rule(n, needed / n, stop_early) for n in range(2, samples + 1) for needed in range(2, n + 1)
    ]
    if not at_step:
        return tuple(whole)
    return tuple(replace(rule, at="step", alike=alike) for rule in whole for alike in ALIKES)
