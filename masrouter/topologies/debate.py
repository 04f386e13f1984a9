"""Debate: agents with opposing answers defend or concede, until they agree or a vote decides.

The positions are the distinct answers of the first round. Nobody is told to defend what nobody
believes: where all agree at once, there is nothing to debate.

Source: Du et al., arXiv 2305.14325; the defend-or-concede instruction is this project's own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from masrouter.answers import answer_key
from masrouter.topologies.rules import check_count, check_seats
from masrouter.topologies.steps import independent_answers, revised_answers
from masrouter.topologies.team import Team
from masrouter.topologies.votes import tally
from masrouter.types import Plan

_DEBATE = (
    "The answers above disagree, so not all of them are right. Defend your answer against the "
    "others by naming the first step at which each of them fails, or concede to the one that "
    "convinces you and say what was wrong in yours. Then answer the question in full."
)


@dataclass(frozen=True)
class Debate:
    """One round of positions, then rounds of debate in parallel.

    At least half of the seats must take a position; after that, a seat that fails keeps the
    position it held. On equal votes the earlier position wins.
    """

    name: ClassVar[str] = "debate"
    version: ClassVar[int] = 1
    rounds: int = 2
    """Of debate, after the round of positions."""

    def __post_init__(self) -> None:
        check_count("debate: rounds", self.rounds, least=1)

    def check(self, plan: Plan) -> None:
        """Two agents or more."""
        check_seats(plan, 2)

    async def answer(self, team: Team) -> str:
        """The answer agreed on, or the most frequent one at the end."""
        replies = await independent_answers(team, range(len(team.agents)), step="position")
        positions = list(dict.fromkeys(answer_key(reply.text) for reply in replies))
        votes = tally(replies, positions=positions)
        if votes.agreed or len(replies) == 1:
            team.note(f"no debate: {votes.told()}")
            return votes.winner.text
        for number in range(1, self.rounds + 1):
            step = f"round {number}"
            replies = await revised_answers(team, replies, step=step, instruction=_DEBATE)
            votes = tally(replies, positions=positions)
            team.note(f"{step}: {votes.told()}")
            if votes.agreed:
                team.note(f"consensus after {step}")
                return votes.winner.text
        team.note(f"vote: {votes.votes} of {votes.count} for the answer; {votes.told()}")
        return votes.winner.text
