"""Problems' graders for tasks that are asked many times."""

from __future__ import annotations

from masrouter.answers import answer_key
from masrouter.delegation.tasks import Grade, Grading
from masrouter.problems import Problem
from masrouter.sandbox import Sandbox


def grader(problem: Problem, sandbox: Sandbox) -> Grade:
    """The problem's grader; answers that say the same are judged once."""
    known: dict[str, Grading] = {}

    def grade(answer: str) -> Grading:
        key = answer_key(answer)
        if key not in known:
            judged = problem.grader.grade(answer, sandbox)
            known[key] = Grading(judged.score, judged.source)
        return known[key]

    return grade
