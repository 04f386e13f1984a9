"""Does the loop pay? Serve, post outcomes, train on the served log; then ask problems never served.

    python -m tests.benchmarks.bench_served_loop [--requests 3000] [--splits 4]

For each split of the problems: a first router learns from ten problems under every plan.
`masrouter serve` runs it in a process of its own with simulated models and an exploration rate;
clients send problems to `/v1/chat/completions`, grade each answer with the problem's own grader,
and post the grade to `/v1/outcomes`. The served log is exported and a second router is trained on
it, as the README says. Both are then asked for problems that neither has seen, and what their plans
score and cost there is looked up in `data/logs/grid.parquet`, beside a router that was trained on
every plan for every problem of the traffic, which no served log can hold. Models are simulated
(data/README.md): this measures the loop, not models.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from masrouter.logs import Logs, read_logs
from masrouter.outcomes import Outcomes
from masrouter.problems import Problem, read_problems
from masrouter.router import Router
from masrouter.sandbox import Sandbox
from masrouter_train import ControllerConfig, TrainConfig, fit

ROOT = Path(__file__).parents[2]
COST_WEIGHTS = (0.0, 10.0, 30.0, 100.0, 300.0)
"""Score units per US dollar; 10 is ten cents for a whole unit of score."""
CLIENTS = 8
DRAWS = 4000


@dataclass(frozen=True)
class Split:
    """Positions of problems: the first router's, those of the traffic, and the held-out ones."""

    first: tuple[int, ...]
    traffic: tuple[int, ...]
    held_out: tuple[int, ...]

    @classmethod
    def draw(cls, problems: Sequence[Problem], first: int, held_out: int, seed: int) -> Split:
        """The traffic holds the first router's problems too; held-out ones are in neither."""
        order = np.random.default_rng(seed).permutation(len(problems)).tolist()
        kept = order[held_out:]
        return cls(tuple(kept[:first]), tuple(kept), tuple(order[:held_out]))


def serve(checkpoint: Path, records: Path, exploration: float) -> tuple[subprocess.Popen[str], str]:
    """A server process, and the address that it says."""
    process = subprocess.Popen(
        [
            sys.executable, "-m", "masrouter.cli", "serve", "--checkpoint", str(checkpoint),
            "--llm", "simulated", "--problems", str(ROOT / "data/problems"), "--port", "0",
            "--exploration", str(exploration), "--records", str(records),
        ],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env=os.environ | {"NO_COLOR": "1"},
    )  # fmt: skip
    assert process.stdout is not None
    said = []
    for line in process.stdout:
        said.append(line)
        found = re.search(r"http://[\d.]+:\d+", line)
        if found:
            return process, found[0]
    raise RuntimeError("the server did not start:\n" + "".join(said))


def ask(
    client: httpx.Client, problem: Problem, seed: int, sandbox: Sandbox, cost_weight: float
) -> bool:
    """One request and its outcome; whether an answer came."""
    body = {
        "model": "masrouter/auto",
        "messages": [{"role": "user", "content": problem.query}],
        "seed": seed,
        "masrouter": {
            "dataset": problem.dataset,
            "task": problem.task,
            "cost_weight": cost_weight,
        },
    }
    for _ in range(100):
        reply = client.post("/v1/chat/completions", json=body)
        if reply.status_code != 429:
            break
        time.sleep(float(reply.headers["retry-after"]))
    if reply.status_code != 200:  # the team gave no answer: the server recorded why
        return False
    grade = problem.grader.grade(reply.json()["choices"][0]["message"]["content"], sandbox)
    outcome = {
        "decision_id": reply.headers["x-masrouter-decision-id"],
        "score": grade.score,
        "score_source": grade.source,
    }
    client.post("/v1/outcomes", json=outcome).raise_for_status()
    return True


def utilities(router: Router, outcomes: Outcomes, weight: float) -> NDArray[np.float64]:
    """Held-out utility (N,) of the plans that a router takes: looked up, run by nobody again."""
    plans = {plan: i for i, plan in enumerate(outcomes.plans)}
    cell = {(q, p): i for i, (q, p) in enumerate(zip(outcomes.query, outcomes.plan, strict=True))}
    decisions = router.route_batch(list(outcomes.queries), cost_weight=weight)
    rows = [cell[query, plans[d.plan]] for query, d in enumerate(decisions)]
    score = np.nan_to_num(outcomes.score[rows])  # a run without an answer is not right
    return np.asarray(score - weight * outcomes.cost[rows])


def interval(gains: dict[str, list[float]], seed: int) -> tuple[float, float, float]:
    """Mean over problems, each of which several splits may hold out, and its 95 % interval."""
    totals = np.array([(sum(found), len(found)) for found in gains.values()])  # (P, 2)
    drawn = np.random.default_rng(seed).integers(0, len(totals), (DRAWS, len(totals)))
    sums = totals[drawn].sum(1)  # (draws, 2)
    low, high = np.percentile(sums[:, 0] / sums[:, 1], [2.5, 97.5])
    return float(totals[:, 0].sum() / totals[:, 1].sum()), float(low), float(high)


def at(logs: Logs, queries: set[str]) -> Logs:
    """The rows of some queries."""
    texts = logs.codes("query")
    wanted = np.array([text in queries for text in texts.values], dtype=bool)
    return logs.select(wanted[texts.rows])


def drive(
    problems: Sequence[Problem], order: Sequence[int], address: str, cost_weight: float
) -> int:
    """Send the traffic and post its outcomes; how many requests were answered."""
    console = Console(stderr=True)
    with (
        Sandbox() as sandbox,
        httpx.Client(base_url=address, timeout=120) as client,
        ThreadPoolExecutor(CLIENTS) as pool,
    ):
        asked = [
            pool.submit(ask, client, problems[i], seed, sandbox, cost_weight)
            for seed, i in enumerate(order)
        ]
        done = track(asked, "requests", console=console, total=len(asked))
        return sum(future.result() for future in done)


def loop(
    problems: Sequence[Problem], grid: Logs, split: Split, seed: int, options: argparse.Namespace
) -> tuple[Router, Router, Router]:
    """The first router, the one trained on what it served, and the one that saw everything."""
    folder = options.out / f"split-{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    first = fit(at(grid, {problems[i].query for i in split.first}), TrainConfig(seed=0))
    first.save_pretrained(folder / "first")
    records, log = folder / "served.sqlite", folder / "served.jsonl"
    for old in folder.glob("served.*"):
        old.unlink()
    server, address = serve(folder / "first", records, options.exploration)
    order = np.random.default_rng(seed).choice(split.traffic, options.requests).tolist()
    begun = time.perf_counter()
    answered = drive(problems, order, address, options.cost_weight)
    took = time.perf_counter() - begun
    server.send_signal(signal.SIGTERM)
    assert server.wait(60) == 0
    exported = [sys.executable, "-m", "masrouter.cli", "served", "export", str(records), str(log)]
    subprocess.run(exported, check=True, stdout=sys.stderr)
    served = read_logs(log)
    print(
        f"split {seed}: {options.requests:,} requests in {took:.0f} s, {answered:,} answered, "
        f"graded and posted; {len(served):,} rows served",
        flush=True,
    )
    second = fit(served, TrainConfig(seed=0))
    second.save_pretrained(folder / "second")
    everything = TrainConfig(seed=0, controller=ControllerConfig(enabled=False))
    return first, second, fit(at(grid, {problems[i].query for i in split.traffic}), everything)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--requests", type=int, default=3000)
    parser.add_argument("--splits", type=int, default=4)
    parser.add_argument("--exploration", type=float, default=0.5)
    parser.add_argument("--cost-weight", type=float, default=10.0, help="of the requests")
    parser.add_argument("--first", type=int, default=10, help="problems that the first router saw")
    parser.add_argument("--held-out", type=int, default=180)
    parser.add_argument("--out", type=Path, default=ROOT / "runs/served-loop")
    options = parser.parse_args()
    problems = read_problems(ROOT / "data/problems")
    grid = read_logs(ROOT / "data/logs/grid.parquet")
    weights = sorted({*COST_WEIGHTS, options.cost_weight})
    names = ("first", "second", "everything")
    found: dict[tuple[str, float], dict[str, list[float]]] = {
        (name, weight): {} for name in names for weight in weights
    }
    for seed in range(options.splits):
        split = Split.draw(problems, options.first, options.held_out, seed)
        held = Outcomes.from_logs(at(grid, {problems[i].query for i in split.held_out}))
        for name, router in zip(names, loop(problems, grid, split, seed, options), strict=True):
            for weight in weights:
                values = utilities(router, held, weight).tolist()
                for query, value in zip(held.queries, values, strict=True):
                    found[name, weight].setdefault(query, []).append(value)
    print(
        f"\nUtility on {options.held_out} held-out problems in each of {options.splits} splits; "
        f"exploration {options.exploration:g}, served at cost weight {options.cost_weight:g}.\n"
    )
    print("| cost weight | first | second | gain [95 %] | everything |\n|--:|--:|--:|--:|--:|")
    for weight in weights:
        means = [interval(found[name, weight], 0)[0] for name in names]
        before, after = found["first", weight], found["second", weight]
        gains = {
            query: [b - a for a, b in zip(before[query], after[query], strict=True)]
            for query in before
        }
        mean, low, high = interval(gains, 0)
        served = " (served)" if weight == options.cost_weight else ""
        print(
            f"| {weight:g}{served} | {means[0]:.4f} | {means[1]:.4f} "
            f"| {mean:+.4f} ({low:+.4f} to {high:+.4f}) | {means[2]:.4f} |"
        )


if __name__ == "__main__":
    main()
