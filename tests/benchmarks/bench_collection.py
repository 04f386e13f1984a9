"""How fast runs are collected where the provider takes no time, and what recording a call costs.

    python tests/benchmarks/bench_collection.py --problems 100

Runs a grid with the simulated provider three ways: the teams alone, collected into a file on the
disk, and collected into one in memory (/dev/shm). Prints runs and calls a second, and the overhead
of a call: the time beyond the teams alone, shared by all calls.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from masrouter.catalog import Catalog  # noqa: E402
from masrouter.collection import Assignment, Settings, Store, collect, grid  # noqa: E402
from masrouter.collection import read_plan_file as read_plans  # noqa: E402
from masrouter.collection.store import reading  # noqa: E402
from masrouter.errors import ExecutionError  # noqa: E402
from masrouter.execution import aexecute  # noqa: E402
from masrouter.llms import ChatModel  # noqa: E402
from masrouter.llms.simulated import SimulatedProvider  # noqa: E402
from masrouter.problems import read_problems, simulated_task  # noqa: E402


def teams_alone(runs: Sequence[Assignment], llm: ChatModel, catalog: Catalog, width: int) -> float:
    """Seconds that the teams take without a collector."""

    async def work(queue: list[Assignment]) -> None:
        while queue:
            run = queue.pop()
            try:
                await aexecute(run.plan, run.problem.query, llm=llm, catalog=catalog, seed=run.seed)
            except ExecutionError:
                continue

    async def main() -> None:
        queue = list(runs)
        await asyncio.gather(*(work(queue) for _ in range(width)))

    start = time.perf_counter()
    asyncio.run(main())
    return time.perf_counter() - start


def collected(
    runs: Sequence[Assignment], llm: ChatModel, catalog: Catalog, width: int, folder: str | None
) -> tuple[float, int, float]:
    """Seconds, calls and megabytes of collecting into a new file in `folder`."""
    with tempfile.TemporaryDirectory(dir=folder) as place:
        file = Path(place) / "bench.sqlite"
        with Store(file) as store:
            settings = Settings(concurrency=width)
            start = time.perf_counter()
            ended = asyncio.run(
                collect(
                    runs, llm=llm, store=store, catalog=catalog, sandbox=None, settings=settings
                )
            )
            seconds = time.perf_counter() - start
        if not ended.complete:
            raise SystemExit(f"not complete: {ended}")
        with reading(file) as connection:
            (calls,) = connection.execute("SELECT COUNT(*) FROM calls").fetchone()
        return seconds, calls, file.stat().st_size / 1e6


def main() -> None:
    """Run the three ways and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--problems", type=int, default=40)
    parser.add_argument("--concurrency", type=int, nargs="+", default=[1, 8, 64])
    options = parser.parse_args()
    catalog = Catalog.default()
    problems = read_problems(ROOT / "data/problems/math.jsonl")[: options.problems]
    runs = list(grid(problems, read_plans(ROOT / "data/plans.yaml", catalog).plans))
    llm = SimulatedProvider(map(simulated_task, problems), catalog=catalog)
    print(f"{len(runs)} runs of {len(problems)} problems")
    print(f"{'':<24}{'runs/s':>9}{'calls/s':>9}{'ms/call over':>14}{'MB':>7}")
    for width in options.concurrency:
        alone = teams_alone(runs, llm, catalog, width)
        print(f"{f'teams alone, {width} at once':<24}{len(runs) / alone:>9.0f}")
        for name, folder in (("on disk", tempfile.gettempdir()), ("in memory", "/dev/shm")):
            if not Path(folder).is_dir():
                continue
            seconds, calls, size = collected(runs, llm, catalog, width, folder)
            over = 1000 * (seconds - alone) / calls
            print(
                f"{f'  {name}':<24}{len(runs) / seconds:>9.0f}{calls / seconds:>9.0f}"
                f"{over:>14.2f}{size:>7.1f}"
            )


if __name__ == "__main__":
    main()
