"""What the shipped roles hand over when others come after them: an answer, a plan, a critique."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

Work = Literal["answer", "plan", "critique"]

_HANDS_OVER: Mapping[str, Work] = {
    "planner": "plan",
    "algorithmist": "plan",
    "retriever": "plan",
    "test_writer": "plan",
    "critic": "critique",
    "code_reviewer": "critique",
    "proof_checker": "critique",
}


def hands_over(role: str | None, *, last: bool, answered: bool) -> Work:
    """What a seat gives to those after it. The last one always answers.

    answered: whether there is an answer yet; where there is none, a critic writes one itself.
    Roles that are not listed here answer.
    """
    work: Work = "answer" if role is None or last else _HANDS_OVER.get(role, "answer")
    return "answer" if work == "critique" and not answered else work
