"""Delegating where samples disagree: against always, never and by message length.

    python -m tests.benchmarks.bench_deliberate [--cheap gpt-4o-mini] [--strong o3-mini]
        [--max-problems N] [--samples 5] [--out samples.jsonl]

The project's problems by the cheap model several times and by the strong one once, through a
`Delegator` and the simulated provider; a rule chosen on four fifths of the problems is judged on
the last. Then the same rule at work (`deliberate`, new samples), with and without handing over the
steps on which samples agree; and how often a goal that lacks a needed sentence is noticed. What the
table says of agreement is what the simulation assumes of it, not a measurement of these models.
Prints Markdown.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from tests.delegation.lacking import WRITTEN, lacking_goals
from tests.delegation.ordinary_goals import LACKING, WHOLE

from masrouter.answers import answer_key
from masrouter.delegation.delegator import Delegator
from masrouter.delegation.deliberation.calibration import Calibration, Goal, Measured, calibrate
from masrouter.delegation.deliberation.deliberating import Deliberation, deliberate, handed_over
from masrouter.delegation.deliberation.missing_labels import LabelledGoal, calibrate_missing
from masrouter.delegation.deliberation.sampled import collect_samples, writing_samples
from masrouter.delegation.query import read_query
from masrouter.delegation.tasks import Grade, Grading, Task
from masrouter.llms.chat import ChatRequest, Completion, Message, Meter, Price
from masrouter.llms.simulated import SimulatedProvider
from masrouter.problems import Problem, read_problems, simulated_task
from masrouter.sandbox import Sandbox
from masrouter.sections import read_sections, section

DATA = Path(__file__).resolve().parents[2] / "data" / "problems"


class ContextAware:
    """The simulated provider knows questions word for word: context is shown to it beside them."""

    def __init__(self, inner: SimulatedProvider) -> None:
        self.inner = inner
        self.models = inner.models

    def price(self, model: str) -> Price | None:
        return self.inner.price(model)

    async def complete(
        self,
        request: ChatRequest,
        *,
        timeout_s: float | None = None,
        meter: Meter | None = None,
        on_text: Callable[[str], None] | None = None,
    ) -> Completion:
        shown = tuple(_beside(message) for message in request.messages)
        return await self.inner.complete(
            replace(request, messages=shown), timeout_s=timeout_s, meter=meter, on_text=on_text
        )


def _beside(message: Message) -> Message:
    """A message whose question has its context behind it, as the simulation reads results."""
    parts = read_sections(message.content) if message.speaker == "user" else []
    asked = next((part.text for part in parts if part.name == "question"), None)
    query = None if asked is None else read_query(asked)
    if asked is None or query is None or not query.context:
        return message
    said = f"{section('question', query.goal)}\n\n{section('result', query.context)}"
    return replace(message, content=message.content.replace(section("question", asked), said))


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


async def in_order(count: int, one: Callable[[int], Awaitable[Deliberation]]) -> list[Deliberation]:
    """Some at a time, so that nothing waits for the slowest."""
    slots = asyncio.Semaphore(8)

    async def in_slot(at: int) -> Deliberation:
        async with slots:
            return await one(at)

    return list(await asyncio.gather(*(in_slot(at) for at in range(count))))


def mean(values: Sequence[float], resamples: int = 2000) -> str:
    """With the 95 % percentile interval of a bootstrap over problems."""
    known = np.array(values)
    rng = np.random.default_rng(0)
    drawn = known[rng.integers(0, len(known), (resamples, len(known)))].mean(axis=1)
    low, high = np.percentile(drawn, [2.5, 97.5])
    return f"{known.mean():+.4f} ({low:+.4f} to {high:+.4f})"


def told(measured: Measured, form: str) -> str:
    low, high = measured.interval.low, measured.interval.high
    return f"{measured.mean:{form}} ({low:{form}} to {high:{form}})"


def print_table(found: Calibration) -> None:
    print("| | accuracy | US$ a problem | delegated | deliberate: accuracy more | cost saved |")
    print("|---|---|---|---:|---|---|")
    against = {one.name: one for one in found.against}
    for row in found.rows:
        more = against.get(row.name)
        cells = (
            ("", "") if more is None else (told(more.score, "+.3f"), told(more.cost_saved, ".1%"))
        )
        print(
            f"| {row.name} | {told(row.score, '.3f')} | {told(row.cost_usd, '.6f')} | "
            f"{row.delegated:.1%} | {cells[0]} | {cells[1]} |"
        )


async def at_work(
    tasks: Sequence[Task], found: Calibration, delegator: Delegator, cheap: str, strong: str
) -> None:
    """The rule chosen above, with new samples; then its strong calls again, with agreed steps."""
    runs = await in_order(
        len(tasks),
        lambda at: deliberate(
            tasks[at],
            cheap=cheap,
            strong=strong,
            rule=found.rule,
            delegator=delegator,
            seed=10**6 + at,
        ),
    )
    scores = [await asyncio.to_thread(_score, run) for run in runs]
    costs = [run.usage.cost_usd or 0.0 for run in runs]
    share = sum(run.outcome == "delegated" for run in runs) / len(runs)
    print(
        f"\nThe rule chosen on all of them, at work with new samples: accuracy {mean(scores)}, "
        f"US$ {mean(costs)} a problem, {share:.1%} delegated, "
        f"{sum(len(run.samples) for run in runs) / len(runs):.2f} samples a problem."
    )
    parted = [run for run in runs if run.strong is not None and run.verdict and run.verdict.agreed]
    if len(parted) < 10:
        print("Handing over agreed steps: too few delegated problems have any.")
        return
    print(
        f"Of the delegated, {len(parted)} have steps on which samples agree, on average "
        f"{sum(len(run.verdict.agreed) for run in parted if run.verdict) / len(parted):.1f}."
    )
    again = []
    for run in parted:
        assert run.verdict is not None
        context = handed_over("", run.verdict.agreed)
        task = replace(run.task, model=strong, context=context)
        again.append(await delegator.delegate_task(task, seed=7))
    more = [
        (new.grading.score if new.grading else 0.0) - _strong_score(run)
        for new, run in zip(again, parted, strict=True)
    ]
    dearer = [
        (new.usage.cost_usd or 0.0) - (run.strong.usage.cost_usd or 0.0)
        for new, run in zip(again, parted, strict=True)
        if run.strong
    ]
    print(
        f"Handed over to the strong worker: accuracy {mean(more)}, US$ {mean(dearer)} a problem "
        "more. The simulation's samples restate the question until they part, so that there is "
        "little in such steps; real models' steps may be worth more, or lead astray."
    )


def _score(run: Deliberation) -> float:
    grade = run.task.grade
    graded = None if grade is None or run.answer is None else grade(run.answer)
    return 0.0 if graded is None else graded.score


def _strong_score(run: Deliberation) -> float:
    grading = None if run.strong is None else run.strong.grading
    return 0.0 if grading is None else grading.score


def print_missing(problems: Sequence[Problem]) -> None:
    cut = lacking_goals(problems)
    tasks = {problem.problem_id: problem.task for problem in problems}
    found = calibrate_missing([*cut, *WRITTEN])
    harder = calibrate_missing([g for g in cut if tasks[g.group or ""] != "code"] + [*WRITTEN])
    print(
        f"\nMissing information, by the text alone: {len(cut) // 2} problems whole and with a "
        f"needed part cut out, {len(WRITTEN)} written goals; {found.folds}-fold. Together "
        f"precision {told(found.precision, '.2f')}, recall {told(found.recall, '.2f')}; without "
        f"programs, which are easily told, precision {told(harder.precision, '.2f')}, recall "
        f"{told(harder.recall, '.2f')}. With the rule chosen on all of them:\n"
    )
    print("| | lacking | noticed | whole | asked about needlessly |")
    print("|---|---:|---:|---:|---:|")
    ordinary = [LabelledGoal(goal, True) for goal in LACKING]
    ordinary += [LabelledGoal(goal, False) for goal in WHOLE]
    groups = {"written": list(WRITTEN), "ordinary, not chosen on": ordinary}
    for goal in cut:
        groups.setdefault(tasks[goal.group or ""], []).append(goal)
    for name, goals in groups.items():
        asked = [found.rule.asks(goal.kinds()) for goal in goals]
        lacking = [one for one, goal in zip(asked, goals, strict=True) if goal.lacks]
        whole = [one for one, goal in zip(asked, goals, strict=True) if not goal.lacks]
        print(f"| {name} | {len(lacking)} | {sum(lacking)} | {len(whole)} | {sum(whole)} |")
    counts = ", ".join(
        f"{one.kind} {one.lacking}/{one.lacking + one.whole}" for one in found.signals if one.found
    )
    weights = ", ".join(f"{kind} {weight:.3f}" for kind, weight in found.rule.weights.items())
    print(
        f"\nSignals (lacking / all that show it): {counts}. Weights: {weights}; threshold "
        f"{found.rule.threshold:.3f}. A model's own word on what is missing is not measured: the "
        "simulated provider knows nothing of questions with a gap."
    )


async def bench(arguments: argparse.Namespace, problems: Sequence[Problem]) -> None:
    provider = SimulatedProvider([simulated_task(p) for p in problems], seed=arguments.world)
    delegator = Delegator(ContextAware(provider))
    with Sandbox() as sandbox:
        tasks = [
            Task(p.query, id=p.problem_id, kind=p.task, grade=grader(p, sandbox)) for p in problems
        ]
        queries = await collect_samples(
            tasks, cheap=arguments.cheap, strong=arguments.strong, delegator=delegator,
            samples=arguments.samples,
        )  # fmt: skip
        if arguments.out is not None:
            with writing_samples(arguments.out) as write:
                for query in queries:
                    write(query)
        goal = Goal(tolerance=arguments.tolerance)
        found = calibrate(queries, goal=goal)
        print(
            f"### {len(problems)} problems, {arguments.cheap} and {arguments.strong} (simulated), "
            f"{found.folds}-fold; rules chosen to lose at most {arguments.tolerance} accuracy "
            "against always delegating\n"
        )
        print_table(found)
        rules = ", ".join(f"{rule.needed} of {rule.samples}" for rule in found.chosen)
        length = "never" if found.length is None else f"from {found.length} characters"
        print(
            f"\nChosen on all: {found.rule.needed} of {found.rule.samples} must agree (by fold: "
            f"{rules}); by length: {length}. `vote`: the samples' most frequent answer, never "
            "delegated; `coin`: always or never at random, at deliberate's cost."
        )
        await at_work(tasks, found, delegator, arguments.cheap, arguments.strong)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--cheap", default="gpt-4o-mini")
    parser.add_argument("--strong", default="o3-mini")
    parser.add_argument("--max-problems", type=int, default=None, help="drawn with seed 0")
    parser.add_argument("--samples", type=int, default=5, help="of the cheap model, a problem")
    parser.add_argument("--tolerance", type=float, default=0.01)
    parser.add_argument("--world", type=int, default=0, help="seed of the simulation")
    parser.add_argument("--out", type=Path, default=None, help="keep the samples here")
    arguments = parser.parse_args()
    problems = list(read_problems(DATA))
    if arguments.max_problems is not None:
        random.Random(0).shuffle(problems)
        problems = problems[: arguments.max_problems]
    asyncio.run(bench(arguments, problems))
    print_missing(problems)
    return 0


if __name__ == "__main__":
    sys.exit(main())
