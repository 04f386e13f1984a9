"""Iterate: a draft names what it lacks, and the next round fills it.

The agents take turns, one a round. For code, the examples that the query itself shows are run on
each draft, and a draft that passes them is taken.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from masrouter.sections import section
from masrouter.topologies.endings import Draft, read_draft
from masrouter.topologies.prompts import prompt, question, seat, work_of
from masrouter.topologies.rules import check_count, check_seats
from masrouter.topologies.team import ExampleReport, Team, TeamError
from masrouter.types import Plan

_END = (
    "Then end with lines `Missing: ...`, one for each thing that the answer lacks or that you are "
    "not sure of, or with the one line `Missing: nothing`."
)
_DRAFT = f"Think step by step, then answer the question. {_END}"
_IMPROVE = (
    "Improve the answer above: supply what is missing, mend what is wrong, leave what is right, "
    f"and answer the question in full. {_END}"
)


@dataclass(frozen=True)
class _Written:
    agent: int
    draft: Draft
    report: ExampleReport | None


@dataclass(frozen=True)
class Iterate:
    """One call a round, until nothing is missing, the shown examples pass, or rounds are used up.

    Every agent has a turn at least. A turn that fails is skipped; without any draft there is no
    answer.
    """

    name: ClassVar[str] = "iterate"
    version: ClassVar[int] = 1
    rounds: int = 3

    def __post_init__(self) -> None:
        check_count("iterate: rounds", self.rounds, least=1)

    def check(self, plan: Plan) -> None:
        """One agent or more."""
        check_seats(plan, 1)

    async def answer(self, team: Team) -> str:
        """The latest draft, without its lines about what is missing."""
        written: _Written | None = None
        for number in range(max(self.rounds, len(team.agents))):
            agent, step = number % len(team.agents), f"round {number + 1}"
            try:
                reply = await team.ask(agent, _text(team, written, agent), step=step)
            except TeamError:
                team.note(f"{step}: {seat(agent)} failed and was skipped")
                continue
            draft = read_draft(reply.text)
            written = _Written(agent, draft, await team.report_examples(draft.answer))
            done = _accepted(written)
            if done:
                team.note(f"{step}: taken, {done}")
                break
            team.note(f"{step}: {_lack(written)}")
        if written is None:
            raise team.error("no draft was written")
        return written.draft.answer


def _accepted(written: _Written) -> str:
    """Why a draft is taken; empty where it is not."""
    if written.report is not None:
        return "the shown examples pass" if written.report.passed else ""
    draft = written.draft
    return "nothing is missing" if draft.stated and not draft.missing else ""


def _lack(written: _Written) -> str:
    if written.report is not None:
        return "a shown example fails"
    if not written.draft.stated:
        return "it does not say whether anything is missing"
    return f"{len(written.draft.missing)} named as missing"


def _text(team: Team, written: _Written | None, reader: int) -> str:
    if written is None:
        return prompt(question(team.query), _DRAFT)
    role = team.agents[written.agent].role
    draft, report = written.draft, written.report
    return prompt(
        question(team.query),
        work_of("answer", draft.answer, author=written.agent, role=role, reader=reader),
        section("missing", "\n".join(draft.missing)) if draft.missing else "",
        section("test_report", report.text) if report is not None else "",
        _IMPROVE,
    )
