"""Runs collections in child processes, for tests that kill them.

Everything is imported once; each line of standard input, a JSON object, forks a child that runs a
collection to its end. Lines of standard output: `started PID`, `finished RUN_ID` for each run that
was acknowledged, `ended TEXT` or `stopped TEXT`, `exited STATUS`.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

import httpx2  # noqa: F401  # imported here, once, and not by each child at its first call
import openai  # noqa: F401
from tests.collection.worlds import CATALOG, PLANS, PRICE, sums

from masrouter.collection import Progress, Settings, Store, collect, grid
from masrouter.errors import MasRouterError
from masrouter.llms import ModelOptions, OpenAICompatible, RetryPolicy


def say(text: str) -> None:
    # One write of a short line to a pipe is never torn.
    os.write(1, (" ".join(text.split()) + "\n").encode())


def run(job: dict[str, Any]) -> int:
    if job.get("file_bytes"):
        resource.setrlimit(resource.RLIMIT_FSIZE, (job["file_bytes"], job["file_bytes"]))
    assignments = list(grid(sums(job["problems"]), PLANS, seeds=job.get("seeds", 1)))

    def report(progress: Progress) -> None:
        if progress.run_id is not None:
            say(f"finished {progress.run_id}")

    async def main(store: Store) -> Progress:
        retry = RetryPolicy(first_wait_s=0.01, longest_wait_s=0.05, tries=3)
        options = ModelOptions(price=PRICE)
        async with OpenAICompatible(job["base_url"], "key", options=options, retry=retry) as llm:
            return await collect(
                assignments,
                llm=llm,
                store=store,
                catalog=CATALOG,
                sandbox=None,
                settings=Settings(**job.get("settings", {})),
                report=report,
            )

    try:
        with Store(job["file"], disk_reserve_mib=job.get("reserve_mib", 0.0)) as store:
            ended = asyncio.run(main(store))
        if ended.stopped is not None:
            say(f"stopped {ended.stopped} (unsaved: {store.unsaved})")
            return 1
    except MasRouterError as error:
        say(f"stopped {error}")
        return 1
    say(f"ended {ended.before + ended.done} of {ended.planned}")
    return 0


def serve() -> None:
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            status = 70
            try:
                status = run(json.loads(line))
            finally:
                os._exit(status)
        say(f"started {child}")
        _, status = os.waitpid(child, 0)
        say(f"exited {os.waitstatus_to_exitcode(status)}")


if __name__ == "__main__":
    serve()
