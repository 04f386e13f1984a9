"""Self-consistency: independent samples of reasoning; the most frequent answer wins.

Source: Wang et al., arXiv 2203.11171. Here every seat is one sample, on a model of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from masrouter.topologies.rules import check_seats
from masrouter.topologies.steps import independent_answers
from masrouter.topologies.team import Team
from masrouter.topologies.votes import tally
from masrouter.types import Plan


@dataclass(frozen=True)
class SelfConsistency:
    """One round in parallel. At least half of the seats must answer."""

    name: ClassVar[str] = "self_consistency"
    version: ClassVar[int] = 1
    temperature: float = 0.7

    def check(self, plan: Plan) -> None:
        """One agent or more."""
        check_seats(plan, 1)

    async def answer(self, team: Team) -> str:
        """The first reply with the most frequent answer; the earlier seat's on equal votes."""
        agents = range(len(team.agents))
        replies = await independent_answers(team, agents, temperature=self.temperature)
        votes = tally(replies)
        team.note(f"vote: {votes.votes} of {votes.count} for the answer; {votes.told()}")
        return votes.winner.text
