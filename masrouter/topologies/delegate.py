"""Delegate: the lead works itself, and hands single parts to the others as it sees fit.

Unlike `orchestrate`, where the work is always split, the lead may answer at once, and after reading
results may hand out more. Whether it delegates is read from its reply, so any chat model can lead.

Source: a controller that calls other models as tools, as in Shen et al., arXiv 2303.17580.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from masrouter.sections import section
from masrouter.topologies.endings import read_delegations
from masrouter.topologies.prompts import prompt, question, seat, work_of
from masrouter.topologies.rules import check_count, check_seats
from masrouter.topologies.subtasks import WORK, result
from masrouter.topologies.team import Ask, Team
from masrouter.types import Plan

_MAY_DELEGATE = (
    "Work on the question step by step and answer it. A part that another agent does better, or "
    "that you are not sure of, you may hand out: end with lines `Delegate to agent 2: ...`, one "
    "for each part, with all that it needs, since the agent sees the question and your line and "
    "nothing else. You are then given the results and go on. A reply without such a line is taken "
    "as your answer."
)
_ANSWER = (
    "No more can be handed out. The results above may hold mistakes: check them against each other "
    "and against the question, mend what is wrong, and answer the question in full, step by step."
)


@dataclass(frozen=True)
class Delegate:
    """Turns of the lead, with the parts that it hands out done in parallel between them.

    The lead cannot be lost. A part that fails is told to it, and so is one for an agent that does
    not exist.
    """

    name: ClassVar[str] = "delegate"
    version: ClassVar[int] = 1
    rounds: int = 2
    """How often parts may be handed out."""
    most_subtasks: int = 6
    """In one round."""

    def __post_init__(self) -> None:
        check_count("delegate: rounds", self.rounds, least=1)
        check_count("delegate: most_subtasks", self.most_subtasks, least=1)

    def check(self, plan: Plan) -> None:
        """Two agents or more: a lead and its workers."""
        check_seats(plan, 2)

    async def answer(self, team: Team) -> str:
        """The lead's first reply that hands out nothing."""
        shown = [question(team.query), section("agents", _workers(team))]
        done = 0
        for number in range(1, self.rounds + 1):
            reply = await team.ask(0, prompt(*shown, _MAY_DELEGATE), step=f"turn {number}")
            wanted = read_delegations(reply.text)
            if not wanted.parts:
                team.note(f"the lead answers after {done} delegated parts")
                return reply.text
            lead = team.agents[0].role
            shown.append(work_of("plan", reply.text, author=0, role=lead, reader=0))
            shown += await self._results(team, wanted.parts, done)
            done += len(wanted.parts)
        reply = await team.ask(0, prompt(*shown, _ANSWER), step="answer")
        team.note(f"the lead answers after {done} delegated parts")
        return read_delegations(reply.text).before or reply.text

    async def _results(
        self, team: Team, parts: tuple[tuple[int, str], ...], done: int
    ) -> list[str]:
        """What became of each part, for the lead to read."""
        told: dict[int, str] = {}
        asks: list[Ask] = []
        numbers: list[int] = []
        for number, (agent, text) in enumerate(parts, done + 1):
            if not 1 <= agent < len(team.agents):
                told[number] = f"Subtask {number} was not done: there is no {seat(agent)} to ask."
            elif len(asks) == self.most_subtasks:
                told[number] = f"Subtask {number} was not done: it is one too many at once."
            else:
                body = prompt(question(team.query), section("subtask", text), WORK)
                asks.append(Ask(agent, body, f"subtask {number}", kind="subtask"))
                numbers.append(number)
        replies = await team.ask_all(asks, quorum=0)
        for number, ask, reply in zip(numbers, asks, replies, strict=True):
            if reply is None:
                told[number] = f"Subtask {number} was not done: {seat(ask.agent)} failed."
            else:
                told[number] = result(team, reply, number)
        lost = len(parts) - sum(reply is not None for reply in replies)
        team.note(f"{len(parts)} parts handed out" + (f", {lost} not done" if lost else ""))
        return [told[number] for number in sorted(told)]


def _workers(team: Team) -> str:
    seats = list(enumerate(team.agents))[1:]
    return "\n".join(f"{seat(i)}: {agent.role or 'assistant'}" for i, agent in seats)
