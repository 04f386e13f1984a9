"""Asking for what is missing instead of answering: what it saves, and what it loses.

    python -m tests.benchmarks.bench_asking [--cheap gpt-4o-mini] [--strong o3-mini]
        [--max-problems N] [--gaps 0.3] [--samples 3]

The project's problems, and a share of them once more with a needed part cut out (about every fifth
query then), by the simulated provider. Asking scores 0 on a query and costs what the check cost; a
rule chosen on four fifths of the problems is judged on the last. How often a simulated model
notices a gap is an assumption: the choice is made again for models that notice less and more. Then
how many labelled goals are noticed by the text alone. Prints Markdown.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypedDict

from tests.benchmarks.graded import grader, print_compared
from tests.delegation.lacking import WRITTEN
from tests.delegation.ordinary_goals import LACKING, WHOLE

from masrouter.cli_deliberating import told
from masrouter.delegation.calibration.asking import AskingCalibration, calibrate_asking
from masrouter.delegation.calibration.collecting import Label, collect_samples
from masrouter.delegation.calibration.gaps import Gap, all_gaps, some_gaps
from masrouter.delegation.calibration.missing_labels import LabelledGoal
from masrouter.delegation.calibration.sampled import Check, SampledQuery, writing_samples
from masrouter.delegation.delegator import Delegator
from masrouter.delegation.deliberation.agreement import Rule
from masrouter.delegation.deliberation.missing import MissingRule, check_missing
from masrouter.delegation.tasks import Task
from masrouter.llms.simulated import SimulatedProvider
from masrouter.llms.simulated.judgement import Weights
from masrouter.problems import Problem, read_problems, simulated_task
from masrouter.problems.simulation import gapped_task
from masrouter.sandbox import Sandbox


class Goals(TypedDict, total=False):
    """What a rule is chosen for."""

    tolerance: float
    answered: bool


DATA = Path(__file__).resolve().parents[2] / "data" / "problems"
GOALS: Mapping[str, Goals] = {
    "at most 0.005 lost": {"tolerance": 0.005},
    "at most 0.02 lost": {"tolerance": 0.02},
    "questions are answered": {"answered": True},
}
NOTICING = {"less": -1.5, "as assumed": 0.0, "more": 1.5}
"""Added to the log-odds that a simulated model notices a gap, and taken off its false alarms."""


def provider(
    problems: Sequence[Problem], gaps: Mapping[str, Gap], more: float
) -> SimulatedProvider:
    """The problems, whole and with their gaps; `more` log-odds of telling these apart."""
    tasks = [simulated_task(problem) for problem in problems]
    for problem in problems:
        if problem.problem_id in gaps:
            gap = gaps[problem.problem_id]
            tasks.append(gapped_task(problem, gap.query, gap.lacks))
    usual = Weights()
    weights = replace(usual, gap_noticed=usual.gap_noticed + more, gap_alarm=usual.gap_alarm - more)
    return SimulatedProvider(tasks, weights=weights)


async def logged(
    problems: Sequence[Problem],
    gaps: Mapping[str, Gap],
    cheap: str,
    strong: str,
    samples: int,
) -> tuple[SampledQuery, ...]:
    """Every problem whole, and some with a gap as well; the cheap model's word on each."""
    with Sandbox() as sandbox:
        tasks: list[Task] = []
        labels: dict[str, Label] = {}
        for problem in problems:
            name, grade = problem.problem_id, grader(problem, sandbox)
            forms = [(name, problem.query)]
            if name in gaps:
                forms.append((f"{name}-gap", gaps[name].query))
            for at, (id, query) in enumerate(forms):
                tasks.append(Task(query, id=id, kind=problem.task, grade=grade))
                labels[id] = Label(at == 1, name)
        return await collect_samples(
            tasks, cheap=cheap, strong=strong, samples=samples, labels=labels, check=True,
            delegator=Delegator(provider(problems, gaps, 0.0)),
        )  # fmt: skip


async def checked(
    queries: Sequence[SampledQuery], cheap: str, llm: SimulatedProvider
) -> list[SampledQuery]:
    """The same log with another provider's word on what is missing."""
    delegator, slots = Delegator(llm), asyncio.Semaphore(8)

    async def word(query: SampledQuery) -> SampledQuery:
        async with slots:
            found = await check_missing(
                Task(query.query), delegator=delegator, model=cheap,
                rule=MissingRule.by_model_alone(),
            )  # fmt: skip
        assert found.result is not None
        return replace(query, check=Check(found.missing, found.result.usage.cost_usd))

    return list(await asyncio.gather(*map(word, queries)))


def print_table(found: AskingCalibration) -> None:
    print_compared(
        found.rows, found.against, unit="query", chosen="asking first",
        shares={"delegated": "delegated", "asked": "asked"},
    )  # fmt: skip


def print_choice(found: AskingCalibration) -> None:
    weights = ", ".join(f"{kind} {weight:.2f}" for kind, weight in found.rule.weights.items())
    counts = ", ".join(
        f"{one.kind} {one.lacking}/{one.lacking + one.whole}" for one in found.signals if one.found
    )
    folds = ", ".join(
        f"{rule.threshold:.2f}{' with the model' if 'model' in rule.weights else ''}"
        for rule in found.chosen
    )
    print(
        f"\nChosen on all: threshold {found.rule.threshold:.2f} (by fold: {folds}), weights "
        f"{weights}. Signals (lacking / all that show it): {counts}. Precision "
        f"{told(found.precision, '.2f')}, recall {told(found.recall, '.2f')}.\n"
    )


def print_labelled(problems: Sequence[Problem], rule: MissingRule) -> None:
    """What the text alone tells of goals without outcomes."""
    print("| by the text alone | lacking | noticed | whole | asked about needlessly |")
    print("|---|---:|---:|---:|---:|")
    groups = {
        "written": list(WRITTEN),
        "ordinary, not chosen on": [
            *(LabelledGoal(goal, True) for goal in LACKING),
            *(LabelledGoal(goal, False) for goal in WHOLE),
        ],
    }
    for problem in problems:
        goals = groups.setdefault(problem.task, [])
        goals.append(LabelledGoal(problem.query, False))
        goals += [LabelledGoal(gap.query, True) for gap in all_gaps(problem)]
    for name, goals in groups.items():
        asked = [rule.asks(goal.kinds()) for goal in goals]
        lacking = [one for one, goal in zip(asked, goals, strict=True) if goal.lacks]
        whole = [one for one, goal in zip(asked, goals, strict=True) if not goal.lacks]
        print(f"| {name} | {len(lacking)} | {sum(lacking)} | {len(whole)} | {sum(whole)} |")


async def bench(arguments: argparse.Namespace, problems: Sequence[Problem]) -> None:
    gaps = some_gaps(problems, arguments.gaps)
    queries = await logged(problems, gaps, arguments.cheap, arguments.strong, arguments.samples)
    if arguments.out is not None:
        with writing_samples(arguments.out) as write:
            for query in queries:
                write(query)
    rule = Rule()
    print(
        f"### {len(problems)} problems and {len(gaps)} of them with a gap as well "
        f"({len(gaps) / len(queries):.0%} of the queries), {arguments.cheap} and "
        f"{arguments.strong} (simulated), {rule.needed} of {rule.samples} samples must agree\n"
    )
    logs = {
        name: queries
        if not more
        else await checked(queries, arguments.cheap, provider(problems, gaps, more))
        for name, more in NOTICING.items()
    }
    usual = calibrate_asking(queries, rule=rule, labelled=WRITTEN)
    print("Chosen to lose at most 0.005 accuracy by asking:\n")
    print_table(usual)
    print_choice(usual)
    print_labelled(problems, usual.rule)
    print("\nThe same with the default rule:\n")
    print_labelled(problems, MissingRule())
    print_settings(logs, rule)


def print_settings(logs: Mapping[str, Sequence[SampledQuery]], rule: Rule) -> None:
    """The choice for models that notice less and more, and for other goals."""
    print(
        "\n| the model notices | gaps named | whole, but something named | chosen for | "
        "a model's word | threshold | asked | accuracy more than deliberating | cost saved | "
        "precision | recall | accuracy, if answered |"
    )
    print("|---|---:|---:|---|---|---:|---:|---|---|---|---|---:|")
    for name, log in logs.items():
        lacking = [query for query in log if query.lacks]
        whole = [query for query in log if not query.lacks]
        for goal, options in GOALS.items():
            found = calibrate_asking(log, rule=rule, labelled=WRITTEN, **options)
            rows = {row.name: row for row in found.rows}
            against = next(one for one in found.against if one.name == "deliberate")
            folds = sum("model" in one.weights for one in found.chosen)
            print(
                f"| {name} | {sum(map(names, lacking))} of {len(lacking)} | "
                f"{sum(map(names, whole))} of {len(whole)} | {goal} | in {folds} of {found.folds} "
                f"folds | {found.rule.threshold:.2f} | {rows['ask'].asked:.1%} | "
                f"{told(against.score, '+.3f')} | {told(against.cost_saved, '.1%')} | "
                f"{told(found.precision, '.2f')} | {told(found.recall, '.2f')} | "
                f"{rows['answered'].score.mean:.3f} |"
            )


def names(query: SampledQuery) -> bool:
    """Whether the model named something as missing."""
    return query.check is not None and query.check.named


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--cheap", default="gpt-4o-mini")
    parser.add_argument("--strong", default="o3-mini")
    parser.add_argument("--max-problems", type=int, default=None, help="drawn with seed 0")
    parser.add_argument("--samples", type=int, default=3, help="of the cheap model, a query")
    parser.add_argument("--gaps", type=float, default=0.3, help="share of problems cut as well")
    parser.add_argument("--out", type=Path, default=None, help="keep the samples here")
    arguments = parser.parse_args()
    problems = list(read_problems(DATA))
    if arguments.max_problems is not None:
        random.Random(0).shuffle(problems)
        problems = problems[: arguments.max_problems]
    asyncio.run(bench(arguments, problems))
    return 0


if __name__ == "__main__":
    sys.exit(main())
