"""Does it pay to share a batch's budget, and not to split it equally?

    python -m tests.benchmarks.bench_delegation_budget [--batches 24] [--size 8]

The project's problems are handed out in random batches, once for each budget and each way to spend
it:

- shared: `auto` for all tasks of the batch, under the batch's one budget;
- equal: `auto` for each task alone, under an equal share of the budget;
- cheapest: the plan that the router expects to be the cheapest on the mean problem, for all tasks.

In the first table all goes through `Delegator`, under a ledger. It holds a call's worst cost until
the call has ended, which an equal share can seldom do, and so spends less of its budget. The second
table leaves that out: the same options are divided by their expected costs alone, and teams run
without a ledger.

Teams really run, on the simulated provider, and answers are graded by the problems' own graders; a
task without an answer counts as wrong. Models are simulated (data/README.md), and
`checkpoints/default` was trained on runs of these very problems: this measures the division of a
budget, neither models nor how well a router does on new problems. Intervals are 95 %, over batches,
drawn in pairs.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from masrouter.answers.code import extract_code
from masrouter.delegation.automatic.allocation import Allocation, allocate, equal_split
from masrouter.delegation.automatic.auto import Auto, Candidate
from masrouter.delegation.delegator import Delegator
from masrouter.delegation.naming.settings import Settings
from masrouter.delegation.tasks import Task, TaskResult
from masrouter.errors import ExecutionError
from masrouter.execution import aexecute
from masrouter.llms.simulated import SimulatedProvider
from masrouter.problems import CodeTests, Problem, read_problems
from masrouter.problems.simulation import simulated_task
from masrouter.router import Router
from masrouter.sandbox import Sandbox
from masrouter.types import Plan

ROOT = Path(__file__).parents[2]
BUDGETS = (0.004, 0.012, 0.04, 0.16)
"""US dollars for a batch of eight."""
EXPECTED = (0.0006, 0.0012, 0.0025, 0.005, 0.02)
"""The same where nothing is held."""
DRAWS = 4000


@dataclass(frozen=True)
class Spent:
    """What became of one batch."""

    score: float
    """Mean over its tasks."""
    cost_usd: float
    refused: int = 0
    """Tasks that were not begun,"""
    stopped: int = 0
    """and those that gave no answer."""


class Graded:
    """The problems' graders; a program that has been judged is not judged again."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox
        self._known: dict[tuple[str, str], float] = {}

    def score(self, problem: Problem, answer: str | None) -> float:
        if answer is None:
            return 0.0
        grader = problem.grader
        told = answer
        if isinstance(grader, CodeTests):
            told = extract_code(answer, grader.entry_point) or ""
        key = problem.problem_id, told
        if key not in self._known:
            self._known[key] = grader.grade(answer, self._sandbox).score
        return self._known[key]


class Delegating:
    """The first table: through `Delegator`, under a ledger."""

    ways = ("shared", "equal", "cheapest")
    budgets = BUDGETS

    def __init__(self, delegator: Delegator, graded: Graded) -> None:
        self._delegator = delegator
        self._graded = graded

    async def spend(self, way: str, batch: Sequence[Problem], budget: float) -> Spent:
        tasks = [Task(problem.query) for problem in batch]
        results: list[TaskResult] = []
        if way == "equal":
            share = budget / len(tasks)
            for task in tasks:
                one = await self._delegator.delegate_task(task, model="auto", budget_usd=share)
                results.append(one)
        else:
            model = "auto" if way == "shared" else "cheapest"
            whole = await self._delegator.delegate_tasks(tasks, model=model, budget_usd=budget)
            results += whole.results
        scores = [self._graded.score(p, r.answer) for p, r in zip(batch, results, strict=True)]
        cost = sum(result.usage.cost_usd or 0.0 for result in results)
        assert cost <= budget
        return Spent(
            score=sum(scores) / len(scores),
            cost_usd=cost,
            refused=sum(result.run is None for result in results),
            stopped=sum(result.run is not None and result.answer is None for result in results),
        )


class Dividing:
    """The second table: by expected cost alone, without a ledger."""

    ways = ("shared", "equal")
    budgets = EXPECTED

    def __init__(self, auto: Auto, llm: SimulatedProvider, graded: Graded) -> None:
        self._auto = auto
        self._llm = llm
        self._graded = graded
        self._known: dict[tuple[str, Plan], Spent] = {}
        self._options: dict[tuple[str, ...], list[list[Candidate]]] = {}

    async def spend(self, way: str, batch: Sequence[Problem], budget: float) -> Spent:
        queries = tuple(problem.query for problem in batch)
        if queries not in self._options:
            self._options[queries] = self._auto.options(queries)
        tasks = self._options[queries]
        options = [[candidate.option for candidate in task] for task in tasks]
        divide = allocate if way == "shared" else equal_split
        divided: Allocation = divide(options, budget)
        done = [
            await self._run(problem, task[position].decision.plan)
            for problem, task, position in zip(batch, tasks, divided.chosen, strict=True)
            if position is not None
        ]
        return Spent(
            score=sum(one.score for one in done) / len(batch),
            cost_usd=sum(one.cost_usd for one in done),
            refused=len(batch) - len(done),
            stopped=sum(one.stopped for one in done),
        )

    async def _run(self, problem: Problem, plan: Plan) -> Spent:
        key = problem.problem_id, plan
        if key not in self._known:
            try:
                run = await aexecute(plan, problem.query, llm=self._llm)
            except ExecutionError as error:
                run = error.run
            self._known[key] = Spent(
                self._graded.score(problem, run.answer),
                run.usage.cost_usd or 0.0,
                stopped=run.answer is None,
            )
        return self._known[key]


def cheapest_plan(router: Router, problems: Sequence[Problem]) -> Plan:
    """Of least expected cost on the mean problem."""
    expected = router.expect(*router.read([problem.query for problem in problems]), 0.0)
    return router.plans[int(np.nanargmin(expected.cost.mean(0)))]


def interval(values: NDArray[np.float64]) -> str:
    """The mean over batches and its interval."""
    drawn = np.random.default_rng(0).integers(0, len(values), (DRAWS, len(values)))
    low, high = np.percentile(values[drawn].mean(1), [2.5, 97.5])
    return f"{values.mean():+.4f} ({low:+.4f} to {high:+.4f})"


def table(spending: Delegating | Dividing, batches: Sequence[Sequence[Problem]]) -> None:
    size = len(batches[0])
    tasks = len(batches) * size
    print("| budget | way | accuracy | cost a batch | refused | no answer | shared less this |")
    print("|--:|---|--:|--:|--:|--:|---|")
    for full in spending.budgets:
        budget = full * size / 8
        scores: dict[str, NDArray[np.float64]] = {}
        for way in spending.ways:
            found = [asyncio.run(spending.spend(way, batch, budget)) for batch in batches]
            scores[way] = np.array([spent.score for spent in found])
            cost = np.mean([spent.cost_usd for spent in found])
            refused = sum(spent.refused for spent in found) / tasks
            stopped = sum(spent.stopped for spent in found) / tasks
            gain = "" if way == "shared" else interval(scores["shared"] - scores[way])
            print(
                f"| ${budget:g} | {way} | {scores[way].mean():.4f} | ${cost:.5f} "
                f"| {refused:.1%} | {stopped:.1%} | {gain} |",
                flush=True,
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--batches", type=int, default=24)
    parser.add_argument("--size", type=int, default=8, help="tasks of a batch")
    parser.add_argument("--checkpoint", type=Path, default=ROOT / "checkpoints/default")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    begun = time.perf_counter()
    problems = read_problems(ROOT / "data/problems")
    order = np.random.default_rng(options.seed).permutation(len(problems))
    count = min(options.batches, len(problems) // options.size)
    batches = [
        [problems[i] for i in order[start : start + options.size]]
        for start in range(0, count * options.size, options.size)
    ]
    asked = [problem for batch in batches for problem in batch]
    router = Router.from_pretrained(options.checkpoint, memo=len(asked))
    cheapest = cheapest_plan(router, asked)
    llm = SimulatedProvider([simulated_task(problem) for problem in asked])
    delegator = Delegator(llm, Settings(plans={"cheapest": cheapest}), router=router)
    print(f"{count} batches of {options.size} problems; cheapest plan: {cheapest}", flush=True)
    with Sandbox() as sandbox:
        graded = Graded(sandbox)
        print("\nUnder a ledger:\n")
        table(Delegating(delegator, graded), batches)
        print("\nBy expected cost alone:\n")
        table(Dividing(Auto(router, llm.models), llm, graded), batches)
    print(f"\n{time.perf_counter() - begun:.0f} s")


if __name__ == "__main__":
    main()
