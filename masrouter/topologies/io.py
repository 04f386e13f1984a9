"""Input, output: one agent answers in one call and is told nothing about how to think."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from masrouter.topologies.prompts import prompt, question
from masrouter.topologies.rules import check_seats
from masrouter.topologies.team import Team
from masrouter.types import Plan


@dataclass(frozen=True)
class InputOutput:
    """One call. Nothing can be lost: where it fails, there is no answer."""

    name: ClassVar[str] = "io"
    version: ClassVar[int] = 1

    def check(self, plan: Plan) -> None:
        """Exactly one agent."""
        check_seats(plan, 1, 1)

    async def answer(self, team: Team) -> str:
        """The agent's reply."""
        text = prompt(question(team.query), "Answer the question.")
        return (await team.ask(0, text, step="answer")).text
