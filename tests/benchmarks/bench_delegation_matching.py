"""How well `match_workers` finds the worker of a request, what that saves, and its default rule.

    python -m tests.benchmarks.bench_delegation_matching

Labelled: 100 requests to 10 workers, written for this project, a fifth of which fit none. Accuracy
is the share of requests given to the right worker, or rightly to none.

Measured: 150 requests with right answers for the six workers of examples/workers.yaml, which really
run, among them 24 that only look like theirs; and 150 of data/problems, which are a chat model's.
Each is run on its nearest worker and on the chat model, and graded. The chat model is simulated:
its accuracy and tokens are assumptions, the workers' outcomes are not. A worker that fails (most
refuse what they do not understand) is followed by the chat model; the tables without falling back
count that as a wrong answer.

The default rule: the one with which the largest share of requests ends well, both sets counting
alike, judged on folds of both that the choice did not see; beside it the choice on labels alone.
The measured set falls back; of labelled requests a wrong worker is wrong, since many workers, such
as translators, never refuse.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tests.delegation.matching_requests import DESCRIPTIONS, EXAMPLES, REQUESTS
from tests.delegation.matching_work import work_requests

from masrouter.delegation.calibration.matching import (
    MatchingCalibration,
    calibrate_matching,
)
from masrouter.delegation.calibration.matching_outcomes import (
    MatchedRequest,
    collect_matching,
    matched_requests,
)
from masrouter.delegation.calibration.measuring import Measured
from masrouter.delegation.delegator import Delegator
from masrouter.delegation.tasks import Grade, Grading, Task
from masrouter.delegation.workers.matching import MEASURED, match_workers
from masrouter.delegation.workers.worker import Worker
from masrouter.delegation.workers.worker_file import read_worker_file
from masrouter.encoder import Encoder, load_encoder
from masrouter.llms.simulated import SimulatedProvider
from masrouter.problems import Grader, read_problems, simulated_task
from masrouter.sandbox import Sandbox
from masrouter.types import LogRecord

ROOT = Path(__file__).resolve().parents[2]
PROBLEMS = {"math": 60, "knowledge": 60, "code": 30}
WEIGHTS = (0.0, 0.25, 0.5, 0.75, 1.0)
THRESHOLDS = tuple(round(float(at), 2) for at in np.arange(-0.3, 0.7, 0.01))
FOLDS, DIVISIONS = 10, 20
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """N requests, with what is known of them before a rule is chosen; all (N,)."""

    name: str
    cosine: Floats
    chat: Floats
    matched: Floats
    """How well it ends where the nearest worker is taken,"""
    unmatched: Floats
    """and where it is not."""
    share: float = 1.0
    """Of its set: views of the same requests count once together."""

    def ends(self, weight: float, threshold: float) -> Floats:
        """How well each request ends under a rule."""
        fits = self.cosine - weight * self.chat >= threshold
        return np.where(fits, self.matched, self.unmatched)


def labelled(encoder: Encoder, *, examples: bool) -> View:
    """Well ends what is given to the right worker, or rightly to none."""
    workers = [
        Worker(
            name=name, description=text, run=str, examples=EXAMPLES[name] if examples else ()
        )
        for name, text in DESCRIPTIONS.items()
    ]  # fmt: skip
    asked = [text for text, _ in REQUESTS]
    found = match_workers(asked, workers, encoder)
    right = [who for _, who in REQUESTS]
    return View(
        f"labelled, {'descriptions and 3 examples' if examples else 'descriptions'}",
        np.array([one.cosines[one.nearest] for one in found]),
        np.array([one.chat for one in found]),
        np.array([float(one.nearest == who) for one, who in zip(found, right, strict=True)]),
        np.array([float(who is None) for who in right]),
        share=0.5,
    )


def measured(found: Sequence[MatchedRequest], name: str) -> View:
    """Well ends what is answered rightly, if need be by the model after a worker that failed."""
    return View(
        name,
        np.array([one.cosine for one in found]),
        np.array([one.chat for one in found]),
        np.array([one.tried(fall_back=True).score for one in found]),
        np.array([one.otherwise.score for one in found]),
    )


GRID = tuple((weight, at) for weight in WEIGHTS for at in THRESHOLDS)


def held_out(views: Sequence[View], on: Sequence[View]) -> tuple[Floats, tuple[float, float]]:
    """(views, divisions): how well requests end under rules chosen without them, on the views `on`;
    and weight and threshold as they are chosen on all of those."""
    ends = [np.stack([view.ends(*pair) for pair in GRID]) for view in views]  # (rules, N) each
    shares = np.array([view.share if view in on else 0.0 for view in views])
    numbers = np.random.default_rng(0)
    held = np.zeros((len(views), DIVISIONS))
    for division in range(DIVISIONS):
        folds = [numbers.permutation(len(view.chat)) % FOLDS for view in views]
        for k in range(FOLDS):
            seen = [e[:, fold != k].mean(1) for e, fold in zip(ends, folds, strict=True)]
            at = int((shares @ np.stack(seen)).argmax())
            for row, (e, fold) in enumerate(zip(ends, folds, strict=True)):
                held[row, division] += e[at, fold == k].sum() / len(fold)
    return held, GRID[int((shares @ np.stack([e.mean(1) for e in ends])).argmax())]


def print_default(views: Sequence[View]) -> None:
    """What is shipped, and what a choice on both sets gives, held out."""
    labels, by_labels = held_out(views, views[:-1])
    both, by_both = held_out(views, views)
    shipped = MEASURED.chat_weight, MEASURED.threshold
    pairs = {"chosen on labels": by_labels, "on both sets": by_both, "shipped": shipped}
    told = "; ".join(f"{name} {weight}, {at:.2f}" for name, (weight, at) in pairs.items())
    print(f"\n### The default rule (chat weight, threshold): {told}\n")
    print(
        "| end well | nearest | never | shipped | by labels, held out | by both, held out | best |"
    )
    print("|---|---:|---:|---:|---:|---:|---:|")
    for view, one, two in zip(views, labels, both, strict=True):
        best = np.maximum(view.matched, view.unmatched).mean()
        print(
            f"| {view.name} | {view.matched.mean():.3f} | {view.unmatched.mean():.3f} | "
            f"{view.ends(*shipped).mean():.3f} | {one.mean():.3f} (sd {one.std():.3f}) | "
            f"{two.mean():.3f} (sd {two.std():.3f}) | {best:.3f} |"
        )


def told(value: Measured, form: str) -> str:
    low, high = value.interval.low, value.interval.high
    return f"{value.mean:{form}} ({low:{form}} to {high:{form}})"


def print_table(found: MatchingCalibration, title: str) -> None:
    print(f"\n### {title}: {found.requests} requests, {found.folds}-fold\n")
    print("| | accuracy | US$ a request | to workers | match: accuracy more | US$ more |")
    print("|---|---|---|---:|---|---|")
    against = {one.name: one for one in found.against}
    for row in found.rows:
        one = against.get(row.name)
        more = ("", "") if one is None else (told(one.score, "+.3f"), told(one.cost_usd, "+.6f"))
        print(
            f"| {row.name} | {told(row.score, '.3f')} | {told(row.cost_usd, '.6f')} | "
            f"{row.matched:.1%} | {more[0]} | {more[1]} |"
        )
    folds = ", ".join(f"{rule.threshold:.3f}/{rule.chat_weight}" for rule in found.chosen)
    print(
        f"\nThreshold/chat weight chosen on all: {found.rule.threshold:.3f}/"
        f"{found.rule.chat_weight} (by fold: {folds}); by length: to workers up to "
        f"{found.length} characters. Failed runs: {found.failed[0]} of workers, "
        f"{found.failed[1]} of the model."
    )


def graded(grader: Grader, sandbox: Sandbox) -> Grade:
    def grade(answer: str) -> Grading:
        judged = grader.grade(answer, sandbox)
        return Grading(judged.score, judged.source)

    return grade


async def outcomes(
    workers: Sequence[Worker], encoder: Encoder, models: Sequence[str]
) -> dict[str, tuple[LogRecord, ...]]:
    """Of each chat model the records of all measured requests, run both ways."""
    own = work_requests()
    drawn = random.Random(0)
    every = list(read_problems(ROOT / "data" / "problems"))
    others = [
        problem
        for kind, count in PROBLEMS.items()
        for problem in drawn.sample([one for one in every if one.task == kind], count)
    ]
    provider = SimulatedProvider(
        [*(one.simulated() for one in own), *(simulated_task(one) for one in others)]
    )
    delegator = Delegator(provider, workers=workers)
    print(
        f"Measured: {len(own)} requests for workers "
        f"({dict(Counter(one.worker or 'distractors' for one in own))}), {len(others)} problems"
    )
    with Sandbox() as sandbox:
        tasks = [Task(one.text, grade=graded(one.grader, sandbox)) for one in own]
        tasks += [Task(one.query, grade=graded(one.grader, sandbox)) for one in others]
        return {
            model: await collect_matching(
                tasks, workers, encoder, delegator=delegator, otherwise=model
            )
            for model in models
        }


def print_workers(workers: Sequence[Worker]) -> None:
    by_name = {worker.name: worker for worker in workers}
    right: Counter[str] = Counter()
    asked: Counter[str] = Counter()
    for one in work_requests():
        if one.worker is None:
            continue
        asked[one.worker] += 1
        try:
            answer = by_name[one.worker].run(one.text)
        except ValueError:
            continue  # it says that it does not understand
        assert isinstance(answer, str)
        right[one.worker] += int(one.grader.grade(answer, None).score)
    shares = ", ".join(f"{name} {right[name]} of {count}" for name, count in asked.items())
    print(f"Rightly answered by the worker that each request is for: {shares}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--models", nargs="+", default=["gpt-4o-mini", "o3-mini"])
    models = parser.parse_args().models
    encoder = load_encoder()
    workers = read_worker_file(ROOT / "examples" / "workers.yaml")
    print_workers(workers)
    views = [labelled(encoder, examples=False), labelled(encoder, examples=True)]
    records = asyncio.run(outcomes(workers, encoder, models))
    for model, found in records.items():
        for falls, how in ((True, "falling back"), (False, "without falling back")):
            calibration = calibrate_matching(
                found, workers, encoder, otherwise=model, fall_back=falls
            )
            print_table(calibration, f"or {model} (simulated), {how}")
    first = records[models[0]]
    views.append(
        measured(
            matched_requests(first, workers, encoder, otherwise=models[0]),
            f"measured, or {models[0]}, falling back",
        )
    )
    print_default(views)
    return 0


if __name__ == "__main__":
    sys.exit(main())
