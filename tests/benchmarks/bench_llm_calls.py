"""Concurrent calls of a provider with a simulated latency, and what the client itself costs.

    python -m tests.benchmarks.bench_llm_calls [--calls 64] [--latency 0.3]

Prints the time of all calls at once next to the slowest single one, and the client's overhead per
call, one after another and all at once, against a server on this machine without latency.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import time

from tests.llms.faulty_server import FaultyServer

from masrouter.llms import ChatRequest, OpenAICompatible
from masrouter.llms.chat import messages

REQUEST = ChatRequest("m", messages("Be kind.", "Hello"), 100)


async def timed(endpoint: OpenAICompatible, calls: int) -> tuple[float, float]:
    """Seconds of all calls at once, and of the slowest."""
    start = time.perf_counter()
    done = await asyncio.gather(*(endpoint.complete(REQUEST) for _ in range(calls)))
    return time.perf_counter() - start, max(one.latency_s for one in done)


async def measure(calls: int, latency_s: float) -> None:
    draw = random.Random(0)
    with FaultyServer(latency_s=lambda: latency_s * draw.uniform(0.5, 1)) as server:
        async with OpenAICompatible(server.base_url) as endpoint:
            await endpoint.complete(REQUEST)
            for name in ("connections made first", "connections there"):
                whole, slowest = await timed(endpoint, calls)
                print(
                    f"{calls} calls at once, {latency_s:g} s at most, {name}: {whole:.3f} s, "
                    f"slowest {slowest:.3f} s, ratio to the latency {whole / latency_s:.2f} "
                    f"(peak in flight {server.peak})"
                )
    with FaultyServer() as server:
        async with OpenAICompatible(server.base_url) as endpoint:
            await endpoint.complete(REQUEST)
            start = time.perf_counter()
            for _ in range(100):
                await endpoint.complete(REQUEST)
            print(f"one after another: {(time.perf_counter() - start) * 10:.2f} ms a call")
            whole, _ = await timed(endpoint, 4 * calls)
            print(f"{4 * calls} at once: {whole / (4 * calls) * 1e3:.2f} ms a call")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--calls", type=int, default=64)
    parser.add_argument("--latency", type=float, default=0.3)
    given = parser.parse_args()
    asyncio.run(measure(given.calls, given.latency))


if __name__ == "__main__":
    main()
