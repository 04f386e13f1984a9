"""Two steps that several topologies share: answer independently, answer after reading the others.

Both keep the order of the seats, and both can lose members.
"""

from __future__ import annotations

from collections.abc import Sequence

from masrouter.topologies.prompts import STEP_BY_STEP, prompt, question, work_of
from masrouter.topologies.rules import at_least_half
from masrouter.topologies.team import Ask, Reply, Team


async def independent_answers(
    team: Team, agents: Sequence[int], *, step: str = "answer", temperature: float | None = None
) -> list[Reply]:
    """Each of `agents` answers the question without reading the others.

    Raises TeamError where fewer than half of them answer.
    """
    text = prompt(question(team.query), STEP_BY_STEP)
    asks = [Ask(agent, text, step, temperature=temperature) for agent in agents]
    replies = await team.ask_all(asks, quorum=at_least_half(len(asks)))
    return [reply for reply in replies if reply is not None]


async def revised_answers(
    team: Team, replies: Sequence[Reply], *, step: str, instruction: str
) -> list[Reply]:
    """Each author answers again after reading all; where one fails, its earlier answer stays."""
    asks = [
        Ask(
            mine.agent,
            prompt(
                question(team.query),
                answer_of(team, mine, reader=mine.agent),
                *(answer_of(team, other) for other in replies if other is not mine),
                instruction,
            ),
            step,
        )
        for mine in replies
    ]
    again = await team.ask_all(asks, quorum=0)
    return [new or old for new, old in zip(again, replies, strict=True)]


def answer_of(team: Team, reply: Reply, *, reader: int | None = None) -> str:
    """A reply as an answer that another agent, or its author, is to read."""
    role = team.agents[reply.agent].role
    return work_of("answer", reply.text, author=reply.agent, role=role, reader=reader)
