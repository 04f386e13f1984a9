"""How fast a router decides, and how fast and in how much memory it is trained.

    python tests/benchmarks/bench_router.py [--logs LOGS ...]

Three measurements, each beside its target; the exit code is 1 where one is missed:

- the cascade alone, from an embedded query to the greedy plan, on one thread, in a space like that
  of the published MasRouter code (6 topologies, up to 6 agents, 26 roles, 5 models);
- `Router.route` from text to decision, against the encoder's own time on the same text in the same
  loop (all-MiniLM-L6-v2, one thread, nothing cached, a router of the synthetic world);
- with --logs, training in a fresh process whose embeddings are cached: time and peak memory.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch

from masrouter.candidates import Candidates
from masrouter.catalog import Catalog
from masrouter.controller import Controller
from masrouter.encoder import HashingEncoder, SentenceTransformerEncoder, load_encoder
from masrouter.encoder.embedding_cache import EmbeddingCache
from masrouter.features import STATISTICS
from masrouter.logs import read_logs
from masrouter.outcomes import Outcomes
from masrouter.plan_space import PlanTree
from masrouter.types import Agent, Plan
from masrouter_train.config import TrainConfig
from masrouter_train.fit import TrainingData, fit, fit_outcomes
from masrouter_train.synthetic import SyntheticWorld

DIMENSION = 384
"""Of all-MiniLM-L6-v2."""
TOPOLOGIES = ("self_consistency", "chain", "full_graph", "debate", "reflection", "panel")


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    what: str
    measured: float
    target: float
    unit: str

    @property
    def met(self) -> bool:
        return self.measured <= self.target

    def __str__(self) -> str:
        verdict = "ok" if self.met else "MISSED"
        return f"{self.what:<58}{self.measured:>10.2f}{self.target:>10.2f} {self.unit:<5}{verdict}"


def masrouter_space(plans: int, seed: int = 0) -> tuple[Plan, ...]:
    """Random distinct teams of the size of the published action space."""
    chance = random.Random(seed)
    roles = [f"role-{i}" for i in range(26)]
    models = [f"model-{i}" for i in range(5)]
    made: dict[Plan, None] = {}
    while len(made) < plans:
        size = 1 + len(made) % 6
        seats = tuple(Agent(chance.choice(roles), chance.choice(models)) for _ in range(size))
        made[Plan(chance.choice(TOPOLOGIES), seats)] = None
    return tuple(made)


def median_ms(work: Callable[[], object], repeats: int) -> float:
    """Median wall time of a call in milliseconds, after a warm-up."""
    for _ in range(3):
        work()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(1000 * (time.perf_counter() - start))
    return statistics.median(times)


def cascade() -> list[Row]:
    """State and greedy decoding of embedded queries, candidates prepared once."""
    plans = masrouter_space(200)
    catalog, _ = Catalog.default().with_names_from(plans)
    candidates = Candidates.from_catalog(catalog, plans, HashingEncoder(DIMENSION))
    torch.manual_seed(0)
    controller = Controller(DIMENSION, candidates, reference_cost=0.001).requires_grad_(False)
    tree = PlanTree.build(candidates.index_plans(plans), controller.sizes)
    rows = []
    with torch.inference_mode():
        prepared = controller.prepare()
        for queries, target, repeats in ((1, 2.0, 300), (4096, 150.0, 20)):
            x = torch.nn.functional.normalize(torch.randn(queries, DIMENSION), dim=1)
            s, weight = torch.randn(queries, len(STATISTICS)), torch.full((queries,), 10.0)

            def decide(
                x: torch.Tensor = x, s: torch.Tensor = s, weight: torch.Tensor = weight
            ) -> torch.Tensor:
                return controller.greedy(controller.encode(x, s, weight), prepared, tree)

            name = f"cascade, {queries} embedded quer{'y' if queries == 1 else 'ies'}, 200 plans"
            rows.append(Row(name, median_ms(decide, repeats), target, "ms"))
    return rows


def end_to_end(queries: int) -> list[Row]:
    """`route` beside `encode` on the same texts, in turn first and second."""
    world = SyntheticWorld(0)
    encoder = SentenceTransformerEncoder()
    router = fit(world.grid_logs(300, 1), TrainConfig(), catalog=world.catalog(), encoder=encoder)
    encode: list[float] = []
    route: list[float] = []

    def timed(times: list[float], work: Callable[[], object], warm: bool) -> None:
        start = time.perf_counter()
        work()
        if warm:
            times.append(1000 * (time.perf_counter() - start))

    for number, text in enumerate(world.sample_queries(queries + 10, 9).texts):
        works: list[tuple[list[float], Callable[[], object]]] = [
            (encode, partial(encoder.encode, [text])),
            (route, partial(router.route, text)),
        ]
        for times, work in works if number % 2 else works[::-1]:
            timed(times, work, number >= 10)  # the first few load the model and the tree of plans
    alone, whole = statistics.median(encode), statistics.median(route)
    print(f"encoder alone {alone:.2f} ms, route {whole:.2f} ms (medians of {queries} texts)")
    return [Row("route, as a multiple of the encoder's own time", whole / alone, 1.3, "x")]


def train_child(logs: list[str]) -> None:
    """Train on cached embeddings and print the figures as JSON. Runs in its own process."""
    start = time.perf_counter()
    outcomes = Outcomes.from_logs(read_logs(logs))
    encoder = load_encoder(cache=EmbeddingCache())
    embeddings = encoder.encode(outcomes.queries)
    ready = time.perf_counter()
    fit_outcomes(TrainingData(outcomes, embeddings), TrainConfig(), encoder=encoder)
    done = time.perf_counter()
    figures = {
        "cells": len(outcomes.score),
        "queries": outcomes.n_queries,
        "plans": outcomes.n_plans,
        "read_s": ready - start,
        "fit_s": done - ready,
        "peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9,
    }
    print(json.dumps(figures))


def embed_child(logs: list[str]) -> None:
    """Fill the cache of embeddings and print how long it took. Runs in its own process."""
    outcomes = Outcomes.from_logs(read_logs(logs))
    encoder = load_encoder(cache=EmbeddingCache())
    start = time.perf_counter()
    encoder.encode(outcomes.queries)
    print(json.dumps({"embed_s": time.perf_counter() - start}))


def training(logs: list[str]) -> list[Row]:
    """Time and memory of training on log files, in fresh processes."""
    found: dict[str, float] = {}
    for step in ("--embed-child", "--train-child"):
        command = [sys.executable, __file__, step, "--logs", *logs]
        result = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        found |= json.loads(result.stdout.splitlines()[-1])
    print(
        f"{found['cells']:,} cells of {found['queries']:,} queries and {found['plans']} plans; "
        f"embedding what was not cached took {found['embed_s']:.1f} s, "
        f"reading {found['read_s']:.1f} s"
    )
    return [
        Row("training, reading and cached embeddings included",
            found["read_s"] + found["fit_s"], 300.0, "s"),
        Row("peak memory of training", found["peak_gb"], 2.0, "GB"),
    ]  # fmt: skip


def main() -> None:
    """Measure and print the table; exit code 1 where a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--logs", nargs="+", default=[], help="log files to train on")
    parser.add_argument("--queries", type=int, default=200, help="texts of the end-to-end loop")
    parser.add_argument("--train-child", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--embed-child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.train_child or options.embed_child:
        (train_child if options.train_child else embed_child)(options.logs)
        return
    torch.set_num_threads(1)
    rows = [*cascade(), *end_to_end(options.queries)]
    if options.logs:
        rows += training(options.logs)
    print(f"\n{'':<58}{'measured':>10}{'target':>10}")
    for row in rows:
        print(row)
    raise SystemExit(0 if all(row.met for row in rows) else 1)


if __name__ == "__main__":
    main()
