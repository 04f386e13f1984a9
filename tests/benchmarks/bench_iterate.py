"""Asking for what a draft lacks: rounds of drafts and a look-up, against a look-up up front.

    python -m tests.benchmarks.bench_iterate [--model gpt-4o-mini] [--max-problems N]

Each problem of the project out of which a needed part can be cut, with that gap. All the parts that
were cut lie in one store, and a worker looks up there what is nearest to a request (embeddings of
all-MiniLM-L6-v2: the search is real, the model that asks is simulated; that it names what stands
around the gap, and notices about every second one, is assumed). Rounds, how many parts a look-up
gives, and how near a request must be to the worker's description are chosen on four fifths of the
problems and judged on the last. Then the same problems whole, where nothing needs to be asked for,
and whether descriptions alone lead requests to the look-up. Prints Markdown.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from tests.benchmarks.graded import grader

from masrouter.cli_deliberating import told
from masrouter.delegation.calibration.gaps import Gap, one_gap
from masrouter.delegation.calibration.measuring import Floats, mean_of, resampled
from masrouter.delegation.delegator import Delegator
from masrouter.delegation.deliberation.iterating import Find, Iteration, by_description, iterate
from masrouter.delegation.tasks import Grade, Task, TaskResult
from masrouter.delegation.workers.matching import MEASURED, MatchingRule, match_workers
from masrouter.delegation.workers.worker import Takes, Worker
from masrouter.encoder import Encoder, load_encoder
from masrouter.encoder.memo import MemoEncoder
from masrouter.execution.ledger import total_usage
from masrouter.llms.simulated import SimulatedProvider
from masrouter.problems import Problem, read_problems, simulated_task
from masrouter.problems.simulation import gapped_task
from masrouter.sandbox import Sandbox
from masrouter.sections import section

DATA = Path(__file__).resolve().parents[2] / "data" / "problems"
ROUNDS = (1, 2, 3, 4)
NEAREST = (1, 3)
TAKES: tuple[Takes, ...] = ("goal", "all")
THRESHOLDS = (0.0, 0.1, 0.2, MEASURED.threshold)
FOLDS = 5


def _worker(name: str, description: str, example: str) -> Worker:
    return Worker(
        name=name, description=description, run=str, usd_per_call=0.0, examples=(example,)
    )


OTHERS = (
    _worker("translator", "Translates English texts into German.", "Put this letter into German."),
    _worker("summary", "Summarises long documents in a few sentences.", "Summarise the report."),
    _worker("sums", "Works out an arithmetic expression such as 3 * (4 + 5).", "What is 17 * 23?"),
    _worker("units", "Converts units of length, weight and heat.", "How many km are 5 miles?"),
)
"""Workers that know nothing of the parts."""


class Notes:
    """The parts that were cut, and a look-up among them."""

    def __init__(self, parts: Sequence[str], encoder: Encoder) -> None:
        self.parts = parts
        self.encoder = encoder
        self.vectors = encoder.encode(list(parts))  # (N, D)

    def look_up(self, request: str, count: int) -> str:
        """The `count` nearest parts, nearest first."""
        near = self.vectors @ self.encoder.encode([request])[0]  # (N,)
        return "\n\n".join(self.parts[at] for at in np.argsort(-near)[:count])

    def worker(self, count: int, takes: Takes) -> Worker:
        """The look-up as a worker; free, as a table on one's own machine is."""
        return Worker(
            name="notes",
            description="Looks up in notes what is said about a person, a thing or a function.",
            run=partial(self.look_up, count=count),
            takes=takes,
            usd_per_call=0.0,
            max_concurrency=8,
            examples=(
                "what the price of a ticket is",
                "what is said about the tower and its height",
                "the description of parse_date",
            ),
        )


@dataclass(frozen=True)
class Outcome:
    """What one way of working gave on one problem."""

    score: float
    cost_usd: float
    found: bool
    """Whether the part that was cut was brought back."""
    requests: int = 0


Outcomes = dict[str, list[Outcome]]
"""By way of working, problem by problem."""


async def in_order(
    count: int, one: Callable[[int], Awaitable[list[Outcome]]]
) -> list[list[Outcome]]:
    """Some at a time, so that nothing waits for the slowest."""
    slots = asyncio.Semaphore(8)

    async def in_slot(at: int) -> list[Outcome]:
        async with slots:
            return await one(at)

    return list(await asyncio.gather(*(in_slot(at) for at in range(count))))


async def graded(
    results: Sequence[TaskResult], answer: str | None, grade: Grade, part: str
) -> Outcome:
    """The outcome of an answer that took `results`."""
    grading = None if answer is None else await asyncio.to_thread(grade, answer)
    asked = [one for one in results if one.models == ("notes",)]
    return Outcome(
        0.0 if grading is None else grading.score,
        total_usage([one.usage for one in results]).cost_usd or 0.0,
        any(part in (one.answer or "") for one in asked),
        len(asked),
    )


async def by_rounds(run: Iteration, grade: Grade, part: str) -> list[Outcome]:
    """What it gave with each number of rounds: a longer run begins as a shorter one does."""
    found = []
    for rounds in ROUNDS:
        done = run.rounds[:rounds]
        results = [] if run.ahead is None else [run.ahead]
        results += [one.result for one in done]
        results += [request for one in done[: rounds - 1] for request in one.requests]
        draft = next((one.draft for one in reversed(done) if one.draft is not None), None)
        answer = None if draft is None else draft.answer
        found.append(await graded(results, answer, grade, part))
    return found


@dataclass(frozen=True)
class Setting:
    """A way of iterating, but for its rounds."""

    count: int
    """Parts that a look-up gives."""
    takes: Takes
    """Whether the look-up reads the request alone, or the question with it."""
    ahead: bool
    """Whether the question is looked up before the first draft."""
    threshold: float | None = None
    """How near a request must be to the worker's description; None asks it whatever is missing."""

    def __str__(self) -> str:
        reads = "the request and the question" if self.takes == "all" else "the request alone"
        near = "" if self.threshold is None else f", from {self.threshold:g} on"
        return f"{'ahead, ' if self.ahead else ''}{self.count} nearest, by {reads}{near}"


SETTINGS = (
    *(
        Setting(count, takes, ahead)
        for ahead in (False, True)
        for takes in TAKES
        for count in NEAREST
    ),
    *(Setting(3, "goal", False, threshold) for threshold in THRESHOLDS),
)


async def iterated(
    setting: Setting,
    queries: Sequence[str],
    gaps: Sequence[Gap],
    grades: Sequence[Grade],
    llm: SimulatedProvider,
    model: str,
    notes: Notes,
    asked: set[str],
) -> list[list[Outcome]]:
    """By number of rounds, the outcomes of one setting; what was asked for goes to `asked`."""
    worker = notes.worker(setting.count, setting.takes)
    delegator = Delegator(llm, workers=[worker])
    find: Find | None = None
    if setting.threshold is not None:
        rule = MatchingRule(setting.threshold, MEASURED.chat_weight, MEASURED.encoder)
        find = by_description([worker], notes.encoder, rule=rule)

    async def one(at: int) -> list[Outcome]:
        run = await iterate(
            Task(queries[at]), delegator=delegator, model=model, rounds=max(ROUNDS), find=find,
            subtask="notes" if find is None else None, ahead="notes" if setting.ahead else None,
        )  # fmt: skip
        asked.update(request.goal for each in run.rounds for request in each.requests)
        return await by_rounds(run, grades[at], gaps[at].lacks)

    runs = await in_order(len(queries), one)
    return [[run[place] for run in runs] for place in range(len(ROUNDS))]


async def plain(
    queries: Sequence[str],
    gaps: Sequence[Gap],
    grades: Sequence[Grade],
    delegator: Delegator,
    model: str,
    context: Callable[[str], str],
) -> list[Outcome]:
    """One answer each, with a context that is looked up before."""

    async def one(at: int) -> list[Outcome]:
        given = context(queries[at])
        result = await delegator.delegate_task(Task(queries[at], given, model=model))
        done = await graded([result], result.answer, grades[at], gaps[at].lacks)
        return [Outcome(done.score, done.cost_usd, gaps[at].lacks in given)]

    return [outcome for (outcome,) in await in_order(len(queries), one)]


def chosen(
    found: Mapping[str, Sequence[Outcome]], seed: int = 0
) -> tuple[list[Outcome], list[str]]:
    """Fold by fold what the setting gives that was best on the others, and the settings' names.

    Best: the cheapest of those whose accuracy is within 0.005 of the highest.
    """
    names = list(found)
    score = np.array([[one.score for one in found[name]] for name in names])  # (S, N)
    cost = np.array([[one.cost_usd for one in found[name]] for name in names])
    n = score.shape[1]
    fold = np.random.default_rng(seed).permutation(np.arange(n) % FOLDS)
    held: list[Outcome | None] = [None] * n
    picked = []
    for k in range(FOLDS):
        means = score[:, fold != k].mean(1)
        enough = means >= means.max() - 0.005
        best = int(np.where(enough, cost[:, fold != k].mean(1), np.inf).argmin())
        picked.append(names[best])
        for at in np.flatnonzero(fold == k).tolist():
            held[at] = found[names[best]][at]
    return [one for one in held if one is not None], picked


def print_rows(rows: Mapping[str, Sequence[Outcome]], than: str) -> None:
    first = rows[than]
    counts = resampled(len(first), 2000, 0)

    def of(values: Sequence[float]) -> Floats:
        return np.array(values, dtype=np.float64)

    print(f"| | accuracy | less {than} | US$ a problem | part found | look-ups a problem |")
    print("|---|---|---|---|---:|---:|")
    base = of([one.score for one in first])
    for name, outcomes in rows.items():
        score = of([one.score for one in outcomes])
        cost = of([one.cost_usd for one in outcomes])
        print(
            f"| {name} | {told(mean_of(score, counts), '.3f')} | "
            f"{told(mean_of(score - base, counts), '+.3f')} | "
            f"{told(mean_of(cost, counts), '.6f')} | "
            f"{np.mean([one.found for one in outcomes]):.1%} | "
            f"{np.mean([one.requests for one in outcomes]):.2f} |"
        )


def print_grid(found: Mapping[Setting, Sequence[Sequence[Outcome]]]) -> None:
    """Every setting: accuracy, and how many parts are found, by rounds."""
    rounds = "".join(f" {number} rounds |" for number in ROUNDS)
    print(f"\n| accuracy (parts found) |{rounds} US$, {ROUNDS[1]} rounds |")
    print("|---|" + "---|" * len(ROUNDS) + "---:|")
    for setting, by_round in found.items():
        cells = [
            f"{np.mean([one.score for one in outcomes]):.3f} "
            f"({np.mean([one.found for one in outcomes]):.0%})"
            for outcomes in by_round
        ]
        cost = np.mean([one.cost_usd for one in by_round[1]])
        print(f"| {setting} | {' | '.join(cells)} | {cost:.6f} |")


def print_matched(requests: Sequence[str], notes: Notes) -> None:
    """Whether descriptions alone lead a request to the look-up, with others beside it."""
    workers = [notes.worker(1, "goal"), *OTHERS]
    matches = match_workers(requests, workers, notes.encoder)
    others = match_workers(requests, OTHERS, notes.encoder)
    print(
        f"\nOf {len(requests)} different requests {sum(m.nearest == 'notes' for m in matches)} "
        f"are nearest to the look-up's description among {len(workers)} workers, and the usual "
        f"threshold gives it {sum(m.worker == 'notes' for m in matches)}. Without it, it gives "
        f"{sum(m.worker is not None for m in others)} to the others, which could do none."
    )


async def bench(arguments: argparse.Namespace, problems: Sequence[Problem]) -> None:
    cut = [(problem, gap) for problem in problems if (gap := one_gap(problem)) is not None]
    gaps = [gap for _, gap in cut]
    tasks = [simulated_task(problem) for problem, _ in cut]
    tasks += [gapped_task(problem, gap.query, gap.lacks) for problem, gap in cut]
    llm = SimulatedProvider(tasks, seed=arguments.world)
    notes = Notes([gap.lacks for gap in gaps], MemoEncoder(load_encoder()))
    model, wholes = arguments.model, [problem.query for problem, _ in cut]
    with Sandbox() as sandbox:
        grades = [grader(problem, sandbox) for problem, _ in cut]

        async def ways(queries: Sequence[str], settings: Sequence[Setting]) -> None:
            once = partial(plain, queries, gaps, grades, Delegator(llm), model)
            asked: set[str] = set()
            found = {
                setting: await iterated(setting, queries, gaps, grades, llm, model, notes, asked)
                for setting in settings
            }
            rows = {"never asked": await once(lambda query: "")}
            for count in NEAREST:
                rows[f"looked up ahead, {count} nearest"] = await once(
                    lambda query, count=count: section("found", notes.look_up(query, count))
                )
            for ahead in (False, True):
                those = {
                    f"{rounds} rounds, {setting}": outcomes
                    for setting, by_round in found.items()
                    if setting.ahead == ahead
                    for rounds, outcomes in zip(ROUNDS, by_round, strict=True)
                }
                name = f"iterate{', looked up ahead' if ahead else ''}, chosen"
                rows[name], picked = chosen(those)
                print(f"{name}, by fold: {'; '.join(picked)}.\n")
            if queries is not wholes:
                whole = partial(plain, wholes, gaps, grades, Delegator(llm), model)
                rows["the whole problem"] = await whole(lambda query: "")
            print_rows(rows, "never asked")
            print_grid(found)
            print_matched(sorted(asked), notes)

        print(f"### {len(cut)} problems with a gap, {model} (simulated)\n")
        await ways([gap.query for gap in gaps], SETTINGS)
        print("\n### The same problems whole: what is asked for needlessly\n")
        await ways(wholes, [one for one in SETTINGS if one.threshold is None and one.count == 3])


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--model", default="gpt-4o-mini", help="writes the drafts")
    parser.add_argument("--max-problems", type=int, default=None, help="drawn with seed 0")
    parser.add_argument("--world", type=int, default=0, help="seed of the simulation")
    arguments = parser.parse_args()
    problems = list(read_problems(DATA))
    if arguments.max_problems is not None:
        random.Random(0).shuffle(problems)
        problems = problems[: arguments.max_problems]
    asyncio.run(bench(arguments, problems))
    return 0


if __name__ == "__main__":
    sys.exit(main())
