"""Problem sets and their graders: code, numbers, multiple choice."""

from masrouter.problems.examples import ShownExamples
from masrouter.problems.mutation import with_wrong_answers
from masrouter.problems.problem import Choice, CodeTests, Grade, Grader, Number, Problem
from masrouter.problems.reading import read_problems
from masrouter.problems.simulation import simulated_task

__all__ = [
    "Choice",
    "CodeTests",
    "Grade",
    "Grader",
    "Number",
    "Problem",
    "ShownExamples",
    "read_problems",
    "simulated_task",
    "with_wrong_answers",
]
