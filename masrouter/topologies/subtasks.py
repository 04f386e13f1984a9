"""What orchestrate and delegate share: how a worker is asked, and how its result is handed on."""

from __future__ import annotations

from masrouter.topologies.prompts import work_of
from masrouter.topologies.team import Reply, Team

WORK = (
    "Do the subtask; the question is only its context. Give a short account of the work, with all "
    "that whoever joins the results needs, and end with a line `Result: ...`."
)


def result(team: Team, reply: Reply, number: int) -> str:
    """A worker's account of subtask `number`, as a section for the lead."""
    role = team.agents[reply.agent].role
    return work_of("result", reply.text, author=reply.agent, role=role, subtask=str(number))
