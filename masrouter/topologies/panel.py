"""Panel: independent answers, and a judge that weighs where they disagree.

The last seat judges. In a team of two, where one answer alone would leave nothing to weigh, it
answers as well.

Source: the aggregation of Wang et al., arXiv 2406.04692 (mixture of agents), in one layer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from masrouter.topologies.prompts import prompt, question
from masrouter.topologies.rules import check_seats
from masrouter.topologies.steps import answer_of, independent_answers
from masrouter.topologies.team import Team, TeamError
from masrouter.topologies.votes import Tally, tally
from masrouter.types import Plan

_JUDGE = (
    "Weigh the answers above where they disagree. Agreement alone proves nothing: solve what is "
    "disputed yourself, find the reasoning that fails, and give the final answer to the question "
    "in full."
)


@dataclass(frozen=True)
class Panel:
    """A round in parallel, then one call of the judge, which agreement makes needless.

    At least half of those who answer must; where the judge fails, the vote stands.
    """

    name: ClassVar[str] = "panel"
    version: ClassVar[int] = 1

    def check(self, plan: Plan) -> None:
        """Two agents or more."""
        check_seats(plan, 2)

    async def answer(self, team: Team) -> str:
        """The answer that all gave, or the judge's."""
        judge = len(team.agents) - 1
        replies = await independent_answers(team, range(judge if judge > 1 else 2))
        votes = tally(replies)
        team.note(f"answers: {votes.told()}")
        if votes.agreed:
            team.note("no judge: all answers are the same")
            return votes.winner.text
        text = prompt(
            question(team.query),
            *(answer_of(team, reply, reader=judge) for reply in replies),
            _counts(votes),
            _JUDGE,
        )
        try:
            return (await team.ask(judge, text, step="judge")).text
        except TeamError:
            team.note(f"the judge failed: vote, {votes.votes} of {votes.count} for the answer")
            return votes.winner.text


def _counts(votes: Tally) -> str:
    told = votes.told()
    return f"{told[0].upper()}{told[1:]}."
