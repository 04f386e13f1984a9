"""Orchestrate: the lead decomposes, workers answer in parallel, the lead integrates.

Workers do not see each other's work; what comes back is the short account that each ends with.

Source: decomposition as in Khot et al., arXiv 2210.02406, in one level and in parallel.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from masrouter.sections import section
from masrouter.topologies.endings import read_subtasks
from masrouter.topologies.prompts import prompt, question, seat, work_of
from masrouter.topologies.rules import check_count, check_seats
from masrouter.topologies.subtasks import WORK, result
from masrouter.topologies.team import Ask, Team
from masrouter.types import Plan

_WHOLE = "Answer the whole question."
_JOIN = (
    "Join the results above, which may hold mistakes: check them against each other and against "
    "the question, mend what is wrong, and answer the question in full."
)


@dataclass(frozen=True)
class Orchestrate:
    """A call of the lead, one of a worker for each subtask in parallel, a call of the lead.

    The lead cannot be lost. Of the results one must come; the lead is told which did not.
    """

    name: ClassVar[str] = "orchestrate"
    version: ClassVar[int] = 1
    most_subtasks: int = 6
    """Whatever the number of workers; with fewer workers some do several."""

    def __post_init__(self) -> None:
        check_count("orchestrate: most_subtasks", self.most_subtasks, least=2)

    def check(self, plan: Plan) -> None:
        """Two agents or more: a lead and its workers."""
        check_seats(plan, 2)

    async def answer(self, team: Team) -> str:
        """The lead's answer, made of the results."""
        workers = range(1, len(team.agents))
        most = min(self.most_subtasks, max(2, len(workers)))
        split = await team.ask(
            0, prompt(question(team.query), _split(most)), step="split", kind="plan"
        )
        found = read_subtasks(split.text)
        if not found:
            team.note("the lead named no subtask: every worker answers the whole question")
        if len(found) > most:
            team.note(f"the lead named {len(found)} subtasks, of which {most} are done")
        subtasks = found[:most] or (_WHOLE,) * len(workers)
        asks = [
            Ask(
                workers[index % len(workers)],
                prompt(question(team.query), section("subtask", subtask), WORK),
                f"subtask {index + 1}",
                kind="subtask",
            )
            for index, subtask in enumerate(subtasks)
        ]
        replies = await team.ask_all(asks, quorum=1)
        lost = [index for index, reply in enumerate(replies) if reply is None]
        for index in lost:
            team.note(f"subtask {index + 1} of {seat(asks[index].agent)} failed")
        text = prompt(
            question(team.query),
            work_of("plan", _listed(subtasks), author=0, role=team.agents[0].role, reader=0),
            *(result(team, reply, index + 1) for index, reply in enumerate(replies) if reply),
            *(f"Subtask {index + 1} was not done; do it yourself." for index in lost),
            _JOIN,
        )
        return (await team.ask(0, text, step="join")).text


def _split(most: int) -> str:
    return (
        f"Split the work on the question into at most {most} subtasks that others can do at the "
        "same time, without seeing each other's work. Give each all that it needs. Write each as "
        "a line `Subtask 1: ...`, numbered from 1, and nothing else."
    )


def _listed(subtasks: tuple[str, ...]) -> str:
    return "\n".join(f"Subtask {number}: {text}" for number, text in enumerate(subtasks, 1))
