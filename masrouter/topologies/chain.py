"""Chain: agents work one after another, and the last answers.

What is handed on is the work as it stands: plans until there is an answer, then the latest answer
with the critiques of it. A role decides what its seat hands over (`roles.hands_over`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from masrouter.topologies.prompts import STEP_BY_STEP, prompt, question, seat, work_of
from masrouter.topologies.roles import Work, hands_over
from masrouter.topologies.rules import check_seats
from masrouter.topologies.team import Kind, Reply, Team, TeamError
from masrouter.types import Plan

_PLAN = (
    "Prepare the work of the agent that comes after you: hand over what your role gives, in short, "
    "and leave the answer to that agent."
)
_CRITIQUE = (
    "Judge the answer above for the agent that comes after you. Name each fault, the gravest "
    "first, with how to mend it, and end with a line `Verdict: stands` or `Verdict: wrong`."
)
_ANSWER = (
    "Take up the work above, which may hold mistakes: use what is right, mend what is wrong, and "
    "answer the question in full."
)


@dataclass(frozen=True)
class Chain:
    """One call after another.

    A seat that fails is skipped, and the next takes up what there is; where the last fails, the
    latest answer stands. Without any answer there is none.
    """

    name: ClassVar[str] = "chain"
    version: ClassVar[int] = 1

    def check(self, plan: Plan) -> None:
        """Two agents or more."""
        check_seats(plan, 2)

    async def answer(self, team: Team) -> str:
        """The last agent's reply."""
        work: list[str] = []
        latest: Reply | None = None
        for agent, member in enumerate(team.agents):
            last = agent == len(team.agents) - 1
            gives = hands_over(member.role, last=last, answered=latest is not None)
            text = prompt(question(team.query), *work, _instruction(gives, started=bool(work)))
            kind: Kind = gives
            try:
                reply = await team.ask(agent, text, step=gives, kind=kind)
            except TeamError:
                team.note(f"{seat(agent)} failed and was skipped")
                continue
            if gives == "answer":
                latest = reply
                work.clear()
            work.append(work_of(gives, reply.text, author=agent, role=member.role))
        if latest is None:
            raise team.error("no agent of the chain answered")
        if latest.agent != len(team.agents) - 1:
            team.note(f"the answer of {seat(latest.agent)} stands, as the last agent failed")
        return latest.text


def _instruction(gives: Work, *, started: bool) -> str:
    if gives == "plan":
        return _PLAN
    if gives == "critique":
        return _CRITIQUE
    return _ANSWER if started else STEP_BY_STEP
