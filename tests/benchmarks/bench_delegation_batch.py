"""A batch of tasks over three providers behind real HTTP: its time beside its slowest task's.

    python -m tests.benchmarks.bench_delegation_batch [--latencies 0.2,0.35,0.5] [--tasks 12]

Each provider is a server on this machine with a key and a latency of its own. Both runs stand in
one table: one task a provider, and many tasks spread over them; then a provider that is down.
"""

from __future__ import annotations

import argparse
import asyncio
from contextlib import ExitStack

from tests.llms.faulty_server import FaultyServer

from masrouter.delegation import Batch, Delegator, Settings, Task
from masrouter.llms import ModelOptions, OpenAICompatible, Providers


def endpoint(number: int, server: FaultyServer) -> OpenAICompatible:
    """The provider `p0`, `p1`, ... with its one model."""
    return OpenAICompatible(
        server.base_url, f"key-{number}", name=f"p{number}", models={"m": ModelOptions()}
    )


async def handed_out(providers: Providers, count: int, providers_there: int) -> Batch:
    delegator = Delegator(providers, Settings(max_tasks=count, max_concurrency=count))
    tasks = [Task("Who?", model=f"p{i % providers_there}/m") for i in range(count)]
    return await delegator.delegate_tasks(tasks)


async def measure(latencies: list[float], count: int) -> None:
    with ExitStack() as running:
        servers = [
            running.enter_context(FaultyServer(latency_s=lambda s=s: s))  # type: ignore[misc]
            for s in latencies
        ]
        providers = Providers(*(endpoint(i, server) for i, server in enumerate(servers)))
        there = len(latencies)
        async with providers:
            await handed_out(providers, there, there)  # the SDK is imported, connections are made
            print("| tasks | batch | slowest task | sum of the tasks | failed |")
            print("|--:|--:|--:|--:|--:|")
            for tasks in (there, count):
                show(await handed_out(providers, tasks, there))
            servers[0].__exit__(None, None, None)
            show(await handed_out(providers, there, there))
            servers[0].__enter__()


def show(batch: Batch) -> None:
    times = [result.latency_s for result in batch.results]
    print(
        f"| {len(times)} | {batch.latency_s:.3f} s | {max(times):.3f} s | {sum(times):.3f} s "
        f"| {len(batch.failed)} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--latencies", default="0.2,0.35,0.5", help="seconds, one a provider")
    parser.add_argument("--tasks", type=int, default=12)
    given = parser.parse_args()
    asyncio.run(measure([float(s) for s in given.latencies.split(",")], given.tasks))


if __name__ == "__main__":
    main()
