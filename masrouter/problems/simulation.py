"""Problems as tasks of the simulated provider."""

from __future__ import annotations

from dataclasses import replace

from masrouter.errors import ProblemError
from masrouter.llms.simulated import SimulatedTask
from masrouter.problems.problem import Problem

MIDDLE = 3
"""Difficulty of a problem that states none."""


def simulated_task(problem: Problem) -> SimulatedTask:
    """What the simulated provider has to know of a problem: right and wrong answers.

    Raises ProblemError for a problem without wrong answers: the provider could not err in it.
    """
    if not problem.wrong:
        raise ProblemError(
            f"{problem.source or problem.problem_id}: the simulated provider needs wrong answers "
            "too; give some (wrong_solutions for code, wrong_answers for numbers), or derive them "
            "with masrouter.problems.with_wrong_answers"
        )
    return SimulatedTask(
        query=problem.query,
        domain=problem.task,
        difficulty=MIDDLE if problem.difficulty is None else problem.difficulty,
        right=problem.reference,
        wrong=problem.wrong,
    )


def gapped_task(problem: Problem, query: str, lacks: str) -> SimulatedTask:
    """The same problem asked with a gap: `query` is its text without the part `lacks`.

    A prompt that gives the part, as context, a result or something found, makes it the whole
    problem again. Raises ProblemError as `simulated_task`, and ConfigError for an empty part.
    """
    return replace(simulated_task(problem), query=query, whole=problem.query, lacks=lacks)
