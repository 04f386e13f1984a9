"""Requests a second and their latency, over HTTP, on this machine.

    python -m tests.benchmarks.bench_server [--checkpoint checkpoints/default] [--backend onnx]
        [--requests 400] [--crowd]

The server is a process of its own, the load generator is this one; they share the machine's cores,
so that what the generator takes the server lacks. Models answer at once: what is measured is the
server. Queries are those of data/problems; `new` ones differ in every request, `repeated` ones come
from a set of 64. Latencies are those of requests that were answered with 200, as the client sees
them: queueing included. `--crowd` is 1,000 clients with 10 requests each, first impatient (a 429 is
an answer), then patient (it asks again when Retry-After says so).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import time
from collections.abc import Callable
from pathlib import Path

from tests.server.child import Child, child
from tests.server.load import Outcome, Request, load

from masrouter.problems import read_problems

ROOT = Path(__file__).parents[2]
Make = Callable[[int], Request]


def requests_of(path: str, queries: list[str], *, new: bool) -> Make:
    """The n-th request to an endpoint."""

    def make(index: int) -> Request:
        few = queries if new else queries[:64]
        query = few[index % len(few)] + (f"\n\n(variant {index})" if new else "")
        if path == "/v1/decision":
            return path, json.dumps({"query": query}).encode()
        said = [{"role": "user", "content": query}]
        return path, json.dumps({"model": "masrouter/auto", "messages": said}).encode()

    return make


def row(name: str, clients: int, outcome: Outcome) -> None:
    ok, busy = outcome.statuses[200], outcome.statuses[429]
    others = outcome.answered - ok - busy
    print(
        f"| {name} | {clients:,} | {ok / outcome.elapsed_s:,.0f} "
        f"| {outcome.quantile(0.5) * 1e3:,.1f} | {outcome.quantile(0.99) * 1e3:,.1f} "
        f"| {ok:,} | {busy:,} | {others:,} | {len(outcome.broken) + outcome.refused:,} |",
        flush=True,
    )


def measure(server: Child, queries: list[str], requests: int) -> None:
    print("| endpoint | clients | 200s a second | p50 ms | p99 ms | 200 | 429 | other | broken |")
    print("|---|---|---|---|---|---|---|---|---|")
    offset = 0
    for path in ("/v1/decision", "/v1/chat/completions"):
        for kind in ("new", "repeated"):
            make = requests_of(path, queries, new=kind == "new")
            asyncio.run(load(server.url, clients=8, requests=10, make=make))  # warm
            for clients in (1, 32, 256):
                each = max(1, requests // clients if clients > 1 else requests // 4)
                each = max(each, 4)
                offset += 100_000
                start = offset
                outcome = asyncio.run(
                    load(
                        server.url,
                        clients=clients,
                        requests=each,
                        make=lambda index, make=make, start=start: make(start + index),
                    )
                )
                row(f"{path}, {kind} queries", clients, outcome)


def crowd(server: Child, queries: list[str]) -> None:
    print("\n| 1,000 clients x 10 | clients | 200s a second | p50 ms | p99 ms | 200 | 429 | other "
          "| broken |")  # fmt: skip
    print("|---|---|---|---|---|---|---|---|---|")
    for path in ("/v1/decision", "/v1/chat/completions"):
        make = requests_of(path, queries, new=False)
        for patient in (False, True):
            outcome = asyncio.run(
                load(server.url, clients=1000, requests=10, make=make, patient=patient)
            )
            row(f"{path}, {'patient' if patient else 'impatient'}", 1000, outcome)
            if outcome.without_retry_after:
                print(f"{outcome.without_retry_after} of the 429s have no Retry-After")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--checkpoint", type=Path, default=ROOT / "checkpoints/default")
    parser.add_argument("--backend")
    parser.add_argument("--requests", type=int, default=400, help="a row, about")
    parser.add_argument("--crowd", action="store_true")
    given = parser.parse_args()
    queries = [problem.query for problem in read_problems(ROOT / "data/problems")]
    options = () if given.backend is None else ("--backend", given.backend)
    began = time.perf_counter()
    with child(given.checkpoint, *options) as server:
        print(
            f"{given.checkpoint.name}, backend {given.backend or 'default'}, "
            f"{os.cpu_count()} cores for server and load generator together; "
            f"listens after {time.perf_counter() - began:.1f} s, {server.memory_mb():.0f} MB\n"
        )
        measure(server, queries, given.requests)
        if given.crowd:
            crowd(server, queries)
        print(f"\nmemory at most {server.memory_mb('VmHWM'):.0f} MB")


if __name__ == "__main__":
    main()
