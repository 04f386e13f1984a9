"""Full graph: all answer, all read all, all revise, and a vote decides.

Source: multi-agent refinement as in Du et al., arXiv 2305.14325, on a complete graph.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from masrouter.topologies.rules import check_count, check_seats
from masrouter.topologies.steps import independent_answers, revised_answers
from masrouter.topologies.team import Team
from masrouter.topologies.votes import tally
from masrouter.types import Plan

_REVISE = (
    "Other agents answered the same question; their answers stand above and may be wrong. Compare "
    "their reasoning with yours, mend what is wrong in yours, and answer the question in full."
)


@dataclass(frozen=True)
class FullGraph:
    """Rounds in parallel, until all agree or the rounds are used up.

    At least half of the seats must answer in the first round; after it, a seat that fails keeps
    its earlier answer.
    """

    name: ClassVar[str] = "full_graph"
    version: ClassVar[int] = 1
    rounds: int = 2
    """With the first, in which nobody reads anybody."""

    def __post_init__(self) -> None:
        check_count("full_graph: rounds", self.rounds, least=1)

    def check(self, plan: Plan) -> None:
        """Two agents or more."""
        check_seats(plan, 2)

    async def answer(self, team: Team) -> str:
        """The first reply with the most frequent answer of the last round."""
        replies = await independent_answers(team, range(len(team.agents)))
        votes = tally(replies)
        for number in range(2, self.rounds + 1):
            if votes.agreed or len(replies) == 1:
                break
            step = f"round {number}"
            replies = await revised_answers(team, replies, step=step, instruction=_REVISE)
            votes = tally(replies)
            team.note(f"{step}: {votes.told()}")
        team.note(f"vote: {votes.votes} of {votes.count} for the answer; {votes.told()}")
        return votes.winner.text
