"""Delegate the step at which samples part, and let the cheap model go on behind it.

    samples in numbered steps -> agreed: their answer
                              -> they part at step n: the strong worker, on step n alone
        -> samples that say the same there stay; new ones go on behind it -> agreed: their answer
                                                                          -> the whole task

A step costs much less than an answer where the strong worker does not think at length before
either; for one that does, delegating the whole task is cheaper. `calibrate` tries both on a log
(tests/benchmarks/bench_deliberate.py has figures for simulated models of both kinds).

Source: SAND (Xia et al., arXiv 2507.07441), which deliberates at the action on which an agent's
samples differ and trains on it; here nothing is trained, and a stronger worker decides.
Not here: the rule that says when samples agree (`agreement`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from masrouter.delegation.deliberation.agreement import Rule, Verdict
from masrouter.delegation.deliberation.calls import Calls, HandedStep
from masrouter.delegation.deliberation.steps import Parted, Step, part, read_next_step, read_steps
from masrouter.delegation.tasks import Task
from masrouter.sections import section
from masrouter.topologies.prompts import prompt

WORK_IN_STEPS = (
    "Work in numbered steps, one line each, each with what it comes to; then give the answer in "
    "the form that the task asks for."
)
NEXT_STEP = "Do not do the whole task: give only the next step, in one line, with what it comes to."
DONE = "These steps are done already. Take them as they are, and go on behind them:"


def in_steps(task: Task, done: Sequence[str] = ()) -> Task:
    """The task in numbered steps, behind those that are done."""
    return replace(task, goal=f"{task.goal}\n\n{WORK_IN_STEPS}", context=_behind(task, done))


def only_next_step(task: Task, done: Sequence[str]) -> Task:
    """The step behind those that are done, alone. It is no answer: nothing grades it."""
    goal = f"{task.goal}\n\n{NEXT_STEP}"
    return replace(task, goal=goal, context=_behind(task, done), grade=None)


def _behind(task: Task, done: Sequence[str]) -> str:
    if not done:
        return task.context
    numbered = "\n".join(f"{number}. {step}" for number, step in enumerate(done, 1))
    return prompt(task.context, DONE, section("steps_so_far", numbered))


def place_to_hand(steps: Sequence[Sequence[Step]], rule: Rule) -> Parted | None:
    """Where samples part, by the steps of each; None where there is no step to hand over.

    That is where too few show steps, or all that agree have none left: their answers part.
    """
    place = part(steps, rule.needed, rule.alike)
    if place is None or all(len(steps[at]) <= len(place.agreed) for at in place.group):
        return None
    return place


def votes_behind(
    steps: Sequence[Sequence[Step]], place: Parted, step: Step, rule: Rule
) -> tuple[int, ...]:
    """Which samples, by position, took the same step there: their answers still count."""
    number = len(place.agreed)
    return tuple(
        at
        for at in place.group
        if len(steps[at]) > number and steps[at][number].says(step, rule.alike)
    )


async def hand_over_step(calls: Calls, cheap: str, strong: str, rule: Rule) -> Verdict | None:
    """The verdict behind the step at which the samples part, which the strong worker took.

    None where there is no step to hand over, or none comes back.
    """
    drawn = [result for result in calls.voting if result.answer is not None]
    steps = [read_steps(text) for text in calls.texts]
    place = place_to_hand(steps, rule)
    if place is None:
        return None
    done = [step.text for step in place.agreed]
    said = await calls.ask(strong, "step", only_next_step(calls.task, done))
    step = read_next_step(said.answer or "", place.agreed)
    number = len(done) + 1
    calls.handed.append(HandedStep(number, None if step is None else step.text, said))
    if step is None:
        return None
    votes = [drawn[at] for at in votes_behind(steps, place, step, rule)]
    verdict = await calls.sample(cheap, rule, in_steps(calls.task, [*done, step.text]), votes)
    return replace(verdict, reason=f"{verdict.reason}; step {number} is the strong worker's")
