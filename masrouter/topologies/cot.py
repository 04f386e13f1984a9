"""Chain of thought: one agent reasons step by step in one call, then answers.

Source: Wei et al., arXiv 2201.11903; without examples as in Kojima et al., arXiv 2205.11916.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from masrouter.topologies.prompts import STEP_BY_STEP, prompt, question
from masrouter.topologies.rules import check_seats
from masrouter.topologies.team import Team
from masrouter.types import Plan


@dataclass(frozen=True)
class ChainOfThought:
    """One call. Nothing can be lost: where it fails, there is no answer."""

    name: ClassVar[str] = "cot"
    version: ClassVar[int] = 1

    def check(self, plan: Plan) -> None:
        """Exactly one agent."""
        check_seats(plan, 1, 1)

    async def answer(self, team: Team) -> str:
        """The agent's reply."""
        text = prompt(question(team.query), STEP_BY_STEP)
        return (await team.ask(0, text, step="answer")).text
