"""Asking for what a draft lacks: rounds of drafts and a look-up, against always, never and length.

    python -m tests.benchmarks.bench_iterate [--model gpt-4o-mini] [--max-problems N]

Each problem of the project out of which a needed part can be cut, with that gap and whole. All the
parts that were cut lie in one store, and a worker looks up there what is nearest to a request
(embeddings of all-MiniLM-L6-v2: the search is real, the models that ask are simulated; that they
name what stands around the gap, and notice about every second one, is assumed). Rounds, requests a
round and whether the goal is looked up first are chosen by `calibrate_iterating` on four fifths of
the problems and judged on the last: of those with a gap (once more without a look-up ahead), of the
same ones whole, and of both together. Then whether descriptions alone lead requests to the look-up.
Prints Markdown.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from tests.benchmarks.graded import grader, print_compared

from masrouter.delegation.calibration.gaps import one_gap
from masrouter.delegation.calibration.iterating import IteratingCalibration, calibrate_iterating
from masrouter.delegation.calibration.iterations import IteratedQuery, collect_iterations
from masrouter.delegation.delegator import Delegator
from masrouter.delegation.deliberation.iterating_rule import IteratingRule
from masrouter.delegation.tasks import Task
from masrouter.delegation.workers.matching import match_workers
from masrouter.delegation.workers.worker import Takes, Worker
from masrouter.encoder import Encoder, load_encoder
from masrouter.encoder.memo import MemoEncoder
from masrouter.llms.simulated import SimulatedProvider
from masrouter.problems import Problem, read_problems, simulated_task
from masrouter.problems.simulation import gapped_task
from masrouter.sandbox import Sandbox

DATA = Path(__file__).resolve().parents[2] / "data" / "problems"
ROUNDS = 4
REQUESTS = (1, 2, 4)
NEAREST = 3
"""Parts that a look-up gives."""


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

    def __init__(self, parts: Sequence[str], encoder: Encoder, takes: Takes) -> None:
        self.parts = parts
        self.encoder = encoder
        self.vectors = encoder.encode(list(parts))  # (N, D)
        self.asked: set[str] = set()
        """All that drafts asked for."""
        self.worker = Worker(
            name="notes",
            description="Looks up in notes what is said about a person, a thing or a function.",
            run=self.look_up,
            takes=takes,
            usd_per_call=0.0,  # as a table on one's own machine is
            max_concurrency=8,
            examples=(
                "what the price of a ticket is",
                "what is said about the tower and its height",
                "the description of parse_date",
            ),
        )

    def look_up(self, request: str) -> str:
        """The parts nearest to a request, nearest first."""
        near = self.vectors @ self.encoder.encode([request])[0]  # (N,)
        return "\n\n".join(self.parts[at] for at in np.argsort(-near)[:NEAREST])

    def find(self, requests: Sequence[str]) -> list[str]:
        """Who is asked: always the look-up."""
        self.asked.update(requests)
        return [self.worker.name] * len(requests)


def print_rows(found: IteratingCalibration) -> None:
    print_compared(
        found.rows, found.against, unit="problem", chosen="iterate",
        shares={"more may be asked for": "asking"},
    )  # fmt: skip
    by_fold = "; ".join(map(rule_text, found.chosen))
    length = "never" if found.length is None else f"from {found.length} characters on"
    print(
        f"\nChosen on all: {rule_text(found.rule)} (by fold: {by_fold}). Length: {length}, "
        f"{rule_text(found.length_rule)}."
    )


def rule_text(rule: IteratingRule) -> str:
    return f"{rule.rounds} rounds, {rule.requests} requests{', ahead' if rule.ahead else ''}"


def print_grid(log: Sequence[IteratedQuery]) -> None:
    """Every way: its accuracy and its cost."""
    print("\n| accuracy (US$) |" + "".join(f" {n} rounds |" for n in range(1, ROUNDS + 1)))
    print("|---|" + "---|" * ROUNDS)
    for ahead in (False, True):
        for requests in REQUESTS:
            cells = []
            for rounds in range(1, ROUNDS + 1):
                rule = IteratingRule(rounds, requests if rounds > 1 else 1, ahead)
                ways = [way for query in log for way in query.ways if way.rule == rule]
                cost = np.mean([way.cost_usd or 0.0 for way in ways])
                cells.append(f"{np.mean([way.score for way in ways]):.3f} ({cost:.6f})")
            name = f"{requests} requests{', looked up ahead' if ahead else ''}"
            print(f"| {name} | {' | '.join(cells)} |")


def _not_ahead(query: IteratedQuery) -> IteratedQuery:
    return replace(query, ways=tuple(way for way in query.ways if not way.ahead))


def print_matched(requests: Sequence[str], notes: Notes) -> None:
    """Whether descriptions alone lead a request to the look-up, with others beside it."""
    workers = [notes.worker, *OTHERS]
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
    known = [simulated_task(problem) for problem, _ in cut]
    known += [gapped_task(problem, gap.query, gap.lacks) for problem, gap in cut]
    notes = Notes([gap.lacks for _, gap in cut], MemoEncoder(load_encoder()), arguments.takes)
    llm = SimulatedProvider(known, seed=arguments.world)
    start = time.perf_counter()
    with Sandbox() as sandbox:
        tasks: list[Task] = []
        groups: dict[str, str] = {}
        for problem, gap in cut:
            grade = grader(problem, sandbox)
            for kind, query in (("gap", gap.query), ("whole", problem.query)):
                name = f"{problem.problem_id} {kind}"
                groups[name] = problem.problem_id
                tasks.append(Task(query, id=name, kind=problem.task, grade=grade))
        log = await collect_iterations(
            tasks, delegator=Delegator(llm, workers=[notes.worker]), model=arguments.model,
            strong=arguments.strong, subtask=None, find=notes.find, ahead="notes",
            rounds=ROUNDS, requests=REQUESTS, groups=groups,
        )  # fmt: skip
    collected = time.perf_counter()
    gapped = [query for query in log if query.query_id.endswith(" gap")]
    whole = [query for query in log if query.query_id.endswith(" whole")]
    models = f"{arguments.model}, always: {arguments.strong} (simulated)"
    for title, queries in (
        (f"{len(gapped)} problems with a gap, {models}", gapped),
        ("The same where nothing can be looked up ahead", [_not_ahead(query) for query in gapped]),
        ("The same problems whole: what is asked for needlessly", whole),
        ("Both together", log),
    ):
        print(f"### {title}\n")
        print_rows(calibrate_iterating(queries))
        if any(way.ahead for way in queries[0].ways):
            print_grid(queries)
        print()
    print_matched(sorted(notes.asked), notes)
    done = time.perf_counter()
    print(f"\nCollecting took {collected - start:.0f} s, choosing {done - collected:.0f} s.")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--model", default="gpt-4o-mini", help="writes the drafts")
    parser.add_argument("--strong", default="o3-mini", help="is always asked, once")
    parser.add_argument(
        "--takes", default="all", choices=["goal", "all"],
        help="what a look-up reads: the request alone, or the question with it",
    )  # fmt: skip
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
