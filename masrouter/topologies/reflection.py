"""Reflection: an answer, a critique of it, a revision.

The first agent answers and revises; the others criticise, or the first itself where it is alone.
For code there is a report of the examples that the query itself shows, and of no other test.

Source: Madaan et al., arXiv 2303.17651 (self-refine), with critics of their own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from masrouter.sections import section
from masrouter.topologies.endings import read_verdict
from masrouter.topologies.prompts import STEP_BY_STEP, prompt, question, seats, work_of
from masrouter.topologies.rules import check_count, check_seats
from masrouter.topologies.steps import answer_of
from masrouter.topologies.team import Ask, ExampleReport, Reply, Team, TeamError
from masrouter.types import Plan

_CRITIQUE = (
    "Check the answer above. Name each fault, the gravest first, with how to mend it; do not "
    "write the answer again. End with a line `Verdict: stands` or `Verdict: wrong`."
)
_REVISE = (
    "Revise your answer: mend what the remarks above show to be wrong, leave what is right, and "
    "answer the question in full."
)


@dataclass(frozen=True)
class Reflection:
    """Rounds of critique, in parallel where there are several critics, and revision.

    It stops when every critic says that the answer stands and no shown example fails. Without a
    draft there is no answer; where all critics or the revision fail, the draft stands. A revision
    that breaks an example which the draft passed is not taken.
    """

    name: ClassVar[str] = "reflection"
    version: ClassVar[int] = 1
    rounds: int = 2

    def __post_init__(self) -> None:
        check_count("reflection: rounds", self.rounds, least=1)

    def check(self, plan: Plan) -> None:
        """One to three agents: an author and up to two critics."""
        check_seats(plan, 1, 3)

    async def answer(self, team: Team) -> str:
        """The last revision that could be made."""
        draft = await team.ask(0, prompt(question(team.query), STEP_BY_STEP), step="draft")
        report = await team.report_examples(draft.text)
        for number in range(1, self.rounds + 1):
            critiques = await _critiques(team, draft, report, number)
            failing = report is not None and not report.passed
            if not critiques and not failing:
                team.note(f"round {number}: no critique came, the answer stands")
                break
            wrong = [c.agent for c in critiques if read_verdict(c.text) != "stands"]
            if not wrong and not failing:
                team.note(f"round {number}: the critique says that the answer stands")
                break
            why = [f"found wrong by {seats(wrong)}"] if wrong else []
            why += ["a shown example fails"] if failing else []
            team.note(f"round {number}: {', '.join(why)}")
            try:
                revised = await _revision(team, draft, critiques, report, number)
            except TeamError:
                team.note(f"round {number}: the revision failed, the answer before it stands")
                break
            again = await team.report_examples(revised.text)
            if report and again and report.passed and not again.passed:
                team.note(f"round {number}: the revision breaks a shown example and is not taken")
                break
            draft, report = revised, again
        return draft.text


async def _critiques(
    team: Team, draft: Reply, report: ExampleReport | None, number: int
) -> list[Reply]:
    critics = range(1, len(team.agents)) if len(team.agents) > 1 else range(1)
    asks = [
        Ask(
            critic,
            prompt(
                question(team.query),
                answer_of(team, draft, reader=critic),
                _report_section(report),
                _CRITIQUE,
            ),
            f"critique {number}",
            kind="critique",
        )
        for critic in critics
    ]
    return [reply for reply in await team.ask_all(asks, quorum=0) if reply is not None]


async def _revision(
    team: Team, draft: Reply, critiques: list[Reply], report: ExampleReport | None, number: int
) -> Reply:
    remarks = (
        work_of("critique", c.text, author=c.agent, role=team.agents[c.agent].role, reader=0)
        for c in critiques
    )
    text = prompt(
        question(team.query),
        answer_of(team, draft, reader=0),
        *remarks,
        _report_section(report),
        _REVISE,
    )
    return await team.ask(0, text, step=f"revision {number}")


def _report_section(report: ExampleReport | None) -> str:
    return "" if report is None else section("test_report", report.text)
