"""Escalate: the cheap agent first; where its samples disagree, the stronger one.

Agents are in order, cheap to strong. All but the last are sampled several times, and agreement of
the samples is taken as a sign that the answer is right; for code whose query shows examples,
passing them is. A stronger agent starts afresh, unswayed by what was not trusted.

Source: cascades as in Chen et al., arXiv 2305.05176, with consistency as the acceptance test as in
Yue et al., arXiv 2310.03094.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from masrouter.topologies.prompts import STEP_BY_STEP, prompt, question, seat
from masrouter.topologies.rules import check_count, check_seats
from masrouter.topologies.team import Ask, Reply, Team, TeamError
from masrouter.topologies.votes import tally
from masrouter.types import Plan


@dataclass(frozen=True)
class Escalate:
    """Stages one after another, the samples of a stage in parallel.

    A stage with fewer samples left than must agree is passed over. Where the last agent fails,
    the most frequent answer of the latest stage stands; without any there is none.
    """

    name: ClassVar[str] = "escalate"
    version: ClassVar[int] = 1
    samples: int = 3
    agreement: int = 3
    """How many of the samples must agree, or pass the shown examples."""
    temperature: float = 0.7

    def __post_init__(self) -> None:
        check_count("escalate: samples", self.samples, least=2)
        check_count("escalate: agreement", self.agreement, least=2, most=self.samples)

    def check(self, plan: Plan) -> None:
        """Two agents or more."""
        check_seats(plan, 2)

    async def answer(self, team: Team) -> str:
        """The answer of the first stage that is accepted, or the last agent's."""
        text = prompt(question(team.query), STEP_BY_STEP)
        kept: list[Reply] = []
        for agent in range(len(team.agents) - 1):
            samples = await self._sampled(team, agent, text)
            accepted = await self._accepted(team, agent, samples)
            if accepted is not None:
                return accepted.text
            kept = samples or kept
        last = len(team.agents) - 1
        try:
            return (await team.ask(last, text, step="answer")).text
        except TeamError:
            if not kept:
                raise team.error("no stage gave an answer") from None
        votes = tally(kept)
        team.note(
            f"{seat(last)} failed: the vote of {seat(votes.winner.agent)}'s samples stands, "
            f"{votes.votes} of {votes.count}"
        )
        return votes.winner.text

    async def _sampled(self, team: Team, agent: int, text: str) -> list[Reply]:
        asks = [
            Ask(agent, text, f"sample {number}", temperature=self.temperature)
            for number in range(1, self.samples + 1)
        ]
        return [reply for reply in await team.ask_all(asks, quorum=0) if reply is not None]

    async def _accepted(self, team: Team, agent: int, samples: Sequence[Reply]) -> Reply | None:
        if len(samples) < self.agreement:
            team.note(f"{seat(agent)}: {len(samples)} of {self.samples} samples came, passed over")
            return None
        votes = tally(samples)
        reports = [await team.report_examples(reply.text) for reply in samples]
        if any(report is not None for report in reports):
            passing = [
                reply
                for reply, report in zip(samples, reports, strict=True)
                if report is not None and report.passed
            ]
            taken = len(passing) >= self.agreement
            told = f"{len(passing)} of {len(samples)} samples pass the shown examples"
            chosen = tally(passing).winner if taken else None
        else:
            taken = votes.votes >= self.agreement
            told = f"{votes.votes} of {votes.count} samples agree"
            chosen = votes.winner if taken else None
        team.note(f"{seat(agent)}: {told}, {'accepted' if taken else 'not enough'}")
        return chosen
