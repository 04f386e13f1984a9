"""What running a team adds to its calls, and how well calls run at once.

    python tests/benchmarks/bench_execution.py --calls 2000

The model's latency is simulated. Overhead is the time of calls that answer at once, one after
another and many at once, trace, ledger and events included; concurrency is the time of 64 calls,
each of a latency of its own, against the slowest of them. Exit code 1 where a call costs 2 ms or
more, or where 64 calls take a quarter longer than the slowest.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
from collections.abc import Callable
from dataclasses import replace

from masrouter.catalog import Catalog
from masrouter.execution import aexecute
from masrouter.llms import ChatRequest, Completion, Meter, Price
from masrouter.types import Agent, Plan, Usage

SEATS = 64
QUERY = "What is the least number of weighings that finds the false coin among twelve? " * 8


class Sleeper:
    """A ChatModel that sleeps for `latency_s(seat)` and then answers."""

    def __init__(self, latency_s: Callable[[int], float]) -> None:
        self._latency_s = latency_s

    def price(self, model: str) -> Price | None:
        return Price(1.0, 2.0, "benchmark")

    async def complete(
        self,
        request: ChatRequest,
        *,
        timeout_s: float | None = None,
        meter: Meter | None = None,
        on_text: Callable[[str], None] | None = None,
    ) -> Completion:
        assert meter is not None
        meter.reserve()
        await asyncio.sleep(self._latency_s(int(request.model)))
        usage = Usage(200, 100)
        meter.settle(usage)
        return Completion("It takes three.\nAnswer: 3", usage, request.model, "stop")


def catalog() -> Catalog:
    """The default one, with room for 64 samples."""
    usual = Catalog.default()
    wide = replace(usual.topologies["self_consistency"], max_agents=SEATS)
    return replace(usual, topologies={**usual.topologies, "self_consistency": wide})


def run_s(seats: int, latency_s: Callable[[int], float], *, max_concurrency: int) -> float:
    """Seconds that a team of `seats` samples takes."""
    plan = Plan("self_consistency", tuple(Agent("mathematician", str(i)) for i in range(seats)))
    shelf = catalog()

    async def timed() -> float:
        start = time.perf_counter()
        await aexecute(
            plan, QUERY, llm=Sleeper(latency_s), catalog=shelf, budget_usd=10.0, deadline_s=600,
            max_concurrency=max_concurrency, on_event=lambda event: None,
        )  # fmt: skip
        return time.perf_counter() - start

    return asyncio.run(timed())


def main() -> None:
    """Print the figures; exit code 1 where one is over its limit."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--calls", type=int, default=2000, help="calls to take the overhead of")
    parser.add_argument("--limit-ms", type=float, default=2.0, help="most overhead of a call")
    options = parser.parse_args()
    over = False
    for name, most in (("one after another", 1), ("64 at once", SEATS)):
        rounds = max(1, options.calls // SEATS)
        each = [run_s(SEATS, lambda _: 0.0, max_concurrency=most) for _ in range(rounds)]
        overhead_ms = 1000 * statistics.median(each) / SEATS
        over |= overhead_ms >= options.limit_ms
        print(f"overhead a call, {name:<18}{overhead_ms:>8.3f} ms  ({rounds * SEATS} calls)")
    one = 1000 * statistics.median(run_s(1, lambda _: 0.0, max_concurrency=1) for _ in range(50))
    over |= one >= options.limit_ms
    print(f"a whole run of one call{'':<12}{one:>8.3f} ms")
    slowest = 0.5
    took = run_s(SEATS, lambda seat: slowest * (seat + 1) / SEATS, max_concurrency=SEATS)
    over |= took > 1.25 * slowest
    print(f"64 calls of up to {slowest:.3f} s took {took:.3f} s, one after another {16.25:.2f} s")
    raise SystemExit(1 if over else 0)


if __name__ == "__main__":
    main()
