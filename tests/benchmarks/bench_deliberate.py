"""Delegating where samples disagree: against always, never and by message length.

    python -m tests.benchmarks.bench_deliberate [--pair gpt-4o-mini:o3-mini ...] [--samples 5]
        [--max-problems N] [--out samples.jsonl]

The project's problems by the cheap model several times, freely and in numbered steps, and by the
strong one once, through a `Delegator` and the simulated provider; with the strong model's steps
where samples part, and samples that go on behind them. A rule chosen on four fifths of the problems
is judged on the last. Then the same rule at work (`deliberate`, new samples). What the table says
of agreement and of steps is what the simulation assumes of them, not a measurement of these models.
Prints Markdown.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import numpy as np
from tests.benchmarks.graded import grader, print_compared

from masrouter.cli_deliberating import told
from masrouter.delegation.calibration.agreement import Calibration, Goal, calibrate
from masrouter.delegation.calibration.collecting import collect_samples
from masrouter.delegation.calibration.measuring import mean_of, resampled
from masrouter.delegation.calibration.replaying import rules_of
from masrouter.delegation.calibration.sampled import SampledQuery, writing_samples
from masrouter.delegation.delegator import Delegator
from masrouter.delegation.deliberation.agreement import Rule
from masrouter.delegation.deliberation.deliberating import Deliberation, deliberate
from masrouter.delegation.tasks import Task
from masrouter.llms.simulated import SimulatedProvider
from masrouter.problems import Problem, read_problems, simulated_task
from masrouter.sandbox import Sandbox

DATA = Path(__file__).resolve().parents[2] / "data" / "problems"
PAIRS = ("gpt-4o-mini:o3-mini", "gpt-4o-mini:gpt-4.1")
"""A strong model that thinks first, so that a step costs it nearly as much as an answer; and one
that does not."""


async def in_order(count: int, one: Callable[[int], Awaitable[Deliberation]]) -> list[Deliberation]:
    """Some at a time, so that nothing waits for the slowest."""
    slots = asyncio.Semaphore(8)

    async def in_slot(at: int) -> Deliberation:
        async with slots:
            return await one(at)

    return list(await asyncio.gather(*(in_slot(at) for at in range(count))))


def mean(values: Sequence[float], form: str) -> str:
    """With the 95 % percentile interval of a bootstrap over problems."""
    return told(mean_of(np.array(values, float), resampled(len(values), 2000, 0)), form)


def said(rule: Rule) -> str:
    """In a few words."""
    at = f", at the step (alike {rule.alike})" if rule.at == "step" else ""
    return f"{rule.needed} of {rule.samples}{at}"


def print_table(found: Calibration) -> None:
    print_compared(
        found.rows, found.against, unit="problem", chosen="deliberate",
        shares={"delegated": "delegated", "a step": "handed"},
    )  # fmt: skip
    print(
        f"\nChosen on all: {said(found.rule)} (by fold: {'; '.join(map(said, found.chosen))}); by "
        f"length: {'never' if found.length is None else f'from {found.length} characters'}. "
        "`whole` and `step`: chosen among the rules that delegate the whole task, or a step, "
        "alone. `vote`: the samples' most frequent answer, never delegated; `coin`: always or "
        "never at random, at deliberate's cost."
    )


def print_steps(queries: Sequence[SampledQuery]) -> None:
    """Whether samples in steps are as good, as dear and as much of one mind as free ones."""
    free = [np.mean([one.score for one in query.samples]) for query in queries]
    stepped = [np.mean([one.score for one in query.stepped]) for query in queries]
    usd = [[np.mean([one.cost_usd or 0.0 for one in s]) for s in (q.samples, q.stepped)]
           for q in queries]  # fmt: skip
    more = [b - a for a, b in zip(free, stepped, strict=True)]
    dearer = [b - a for a, b in usd]
    partings = [len(query.partings) for query in queries]
    print(
        f"\nOne sample in numbered steps against a free one: accuracy {mean(more, '+.4f')} more, "
        f"US$ {mean(dearer, '+.7f')} more. {np.mean([n > 0 for n in partings]):.1%} of the "
        f"problems have a parting that some rule reaches, {np.mean(partings):.2f} each."
    )
    parted = [(query, parting) for query in queries for parting in query.partings]
    if parted:
        step_usd = np.mean([parting.step.cost_usd or 0.0 for _, parting in parted])
        strong_usd = np.mean([query.strong.cost_usd or 0.0 for query, _ in parted])
        behind = np.mean([one.score for _, parting in parted for one in parting.samples])
        before = np.mean([one.score for query, _ in parted for one in query.stepped])
        print(
            f"There a step of the strong model costs US$ {step_usd:.6f}, its answer "
            f"{strong_usd:.6f}; samples behind the step are right {behind:.1%} of the time, "
            f"samples in steps without it {before:.1%}."
        )


async def print_at_work(
    tasks: Sequence[Task], rule: Rule, delegator: Delegator, cheap: str, strong: str
) -> None:
    """A rule with new samples."""
    runs = await in_order(
        len(tasks),
        lambda at: deliberate(
            tasks[at], cheap=cheap, strong=strong, rule=rule, delegator=delegator, seed=10**6 + at
        ),
    )
    scores = [await asyncio.to_thread(_score, run) for run in runs]
    costs = [run.usage.cost_usd or 0.0 for run in runs]
    share = sum(run.outcome == "delegated" for run in runs) / len(runs)
    handed = sum(bool(run.handed) for run in runs) / len(runs)
    print(
        f"\nAt work with new samples, {said(rule)}: accuracy {mean(scores, '.3f')}, "
        f"US$ {mean(costs, '.6f')} a problem, {share:.1%} delegated, a step of {handed:.1%}, "
        f"{sum(len(run.samples) for run in runs) / len(runs):.2f} samples a problem."
    )


def _score(run: Deliberation) -> float:
    grade = run.task.grade
    graded = None if grade is None or run.answer is None else grade(run.answer)
    return 0.0 if graded is None else graded.score


async def bench(arguments: argparse.Namespace, problems: Sequence[Problem]) -> None:
    provider = SimulatedProvider(map(simulated_task, problems), seed=arguments.world)
    delegator = Delegator(provider)
    with Sandbox() as sandbox:
        tasks = [
            Task(p.query, id=p.problem_id, kind=p.task, grade=grader(p, sandbox)) for p in problems
        ]
        for pair in arguments.pair:
            cheap, _, strong = pair.partition(":")
            queries = await collect_samples(
                tasks, cheap=cheap, strong=strong, delegator=delegator, samples=arguments.samples,
                steps=True,
            )  # fmt: skip
            if arguments.out is not None:
                path = arguments.out
                with writing_samples(path.with_stem(f"{path.stem}-{strong}")) as write:
                    for query in queries:
                        write(query)
            goal = Goal(arguments.tolerance, arguments.cost_weight)
            found = calibrate(queries, goal=goal)
            wanted = (
                f"to lose at most {goal.tolerance} accuracy against always delegating"
                if goal.cost_weight is None
                else f"by accuracy less {goal.cost_weight} a US dollar"
            )
            print(
                f"### {cheap} and {strong} (simulated)\n\n{len(problems)} problems, "
                f"{found.folds}-fold; rules chosen {wanted}.\n"
            )
            print_table(found)
            print_steps(queries)
            await print_at_work(tasks, found.rule, delegator, cheap, strong)
            if found.rule.at == "task":
                rules = rules_of(arguments.samples, stop_early=True, at_step=True)
                step = calibrate(queries, goal=goal, rules=rules).rule
                await print_at_work(tasks, step, delegator, cheap, strong)
            print()


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--pair", nargs="+", default=PAIRS, metavar="CHEAP:STRONG")
    parser.add_argument("--max-problems", type=int, default=None, help="drawn with seed 0")
    parser.add_argument("--samples", type=int, default=5, help="of the cheap model, a problem")
    parser.add_argument("--tolerance", type=float, default=0.01)
    parser.add_argument("--cost-weight", type=float, default=None, help="accuracy a US dollar")
    parser.add_argument("--world", type=int, default=0, help="seed of the simulation")
    parser.add_argument("--out", type=Path, default=None, help="keep the samples here, by pair")
    arguments = parser.parse_args()
    problems = list(read_problems(DATA))
    if arguments.max_problems is not None:
        random.Random(0).shuffle(problems)
        problems = problems[: arguments.max_problems]
    asyncio.run(bench(arguments, problems))
    return 0


if __name__ == "__main__":
    sys.exit(main())
