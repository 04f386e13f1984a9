"""The parts that the prompts of all topologies are made of.

What an agent wrote stands in a section of its own (`masrouter.sections`), so that it cannot pass
for anything else. What a topology asks for stands in the topology's file.
"""

from __future__ import annotations

from masrouter.catalog import Catalog
from masrouter.errors import PlanError
from masrouter.sections import section
from masrouter.strict_yaml import did_you_mean
from masrouter.types import Agent

CONVENTION = (
    "If the answer is a program, give it in one fenced block. If it is a single value or an "
    "option, end with a line `Answer: ...`."
)
"""How answers are given; it ends every system prompt."""

STEP_BY_STEP = "Think step by step, then answer the question."

DEFAULT_ROLE = "assistant"
"""The role of a seat that names none."""


def system_prompt(agent: Agent, catalog: Catalog) -> str:
    """The prompt of an agent's role and the convention of answers.

    A seat without a role is an `assistant`; a catalog without one leaves the convention alone.
    Raises PlanError for a role that the catalog does not know, or knows by its name only.
    """
    if agent.role is None:
        entry = catalog.roles.get(DEFAULT_ROLE)
        return f"{entry.prompt}\n\n{CONVENTION}" if entry and entry.prompt else CONVENTION
    entry = catalog.roles.get(agent.role)
    if entry is None:
        near = did_you_mean(agent.role, catalog.roles)
        raise PlanError(f"plan: role {agent.role!r} is not in the catalog{near}")
    if not entry.prompt:
        raise PlanError(
            f"plan: role {agent.role!r} has no prompt; give it one in a catalog file "
            f"(roles.{agent.role}.prompt), or leave the role out"
        )
    return f"{entry.prompt}\n\n{CONVENTION}"


def prompt(*parts: str) -> str:
    """Parts of a user message, with an empty line between them. Empty ones are left out."""
    return "\n\n".join(part for part in parts if part)


def question(query: str) -> str:
    """The query, verbatim."""
    return section("question", query)


def seat(agent: int) -> str:
    """What a seat is called in prompts and notes: `agent 1` is the first."""
    return f"agent {agent + 1}"


def seats(agents: list[int]) -> str:
    """`agent 2`, or `agents 1, 2 and 4`."""
    names = [str(agent + 1) for agent in agents]
    if len(names) == 1:
        return f"agent {names[0]}"
    return f"agents {', '.join(names[:-1])} and {names[-1]}"


def work_of(
    name: str, text: str, *, author: int, role: str | None, reader: int | None = None, **more: str
) -> str:
    """What an agent wrote, as a section for another, or for itself (`from="you"`)."""
    marks = {"from": "you" if author == reader else seat(author)}
    if role is not None:
        marks["role"] = role
    return section(name, text, **marks, **more)
