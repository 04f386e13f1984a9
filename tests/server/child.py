"""A server in a process of its own: the real app over a checkpoint and simulated models.

    python -m tests.server.child CHECKPOINT [--delay S] [--records FILE] [--limits JSON]

Prints its URL once it listens. `--delay` is how long each call of a model takes.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from masrouter.llms.chat import ChatRequest, Completion, Meter, Price
from masrouter.types import Usage

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Delayed:
    """A chat model that answers anything, after a while."""

    delay_s: float

    def price(self, model: str) -> Price | None:
        return Price(1.0, 2.0, "test")

    async def complete(
        self,
        request: ChatRequest,
        *,
        timeout_s: float | None = None,
        meter: Meter | None = None,
        on_text: Callable[[str], None] | None = None,
    ) -> Completion:
        usage = Usage(20, 10, 4e-5)
        if meter is not None:
            meter.reserve()
        await asyncio.sleep(self.delay_s)
        if meter is not None:
            meter.settle(usage)
        if on_text is not None:
            on_text("an answer")
        return Completion("an answer", usage, request.model, "stop")


@dataclass(frozen=True)
class Child:
    """A server that runs."""

    url: str
    process: subprocess.Popen[str]

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def memory_mb(self, what: str = "VmRSS") -> float:
        """Resident memory; `VmHWM` is the most that it ever was."""
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith(what + ":"):
                return int(line.split()[1]) / 1024
        raise AssertionError(f"no {what}")


@contextlib.contextmanager
def child(checkpoint: Path, *options: str) -> Iterator[Child]:
    """Start one, and end it whatever happens."""
    command = [sys.executable, "-m", "tests.server.child", str(checkpoint), *options]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environment
    ) as process:
        try:
            assert process.stdout is not None
            url = process.stdout.readline().strip()
            assert url.startswith("http://"), "the server did not start"
            yield Child(url, process)
        finally:
            process.kill()


def main() -> None:
    from masrouter.router import Router
    from masrouter.server import Limits, ServerSettings, Service, create_app
    from masrouter.server.running import serve
    from masrouter.server.telemetry import Telemetry

    parser = argparse.ArgumentParser()
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--delay", type=float, default=0.0)
    parser.add_argument("--records", default="memory")
    parser.add_argument("--limits", type=json.loads, default={})
    parser.add_argument("--backend")
    given = parser.parse_args()
    settings = ServerSettings(
        port=0,
        limits=Limits(**given.limits),
        records=given.records if given.records in ("memory", "none") else Path(given.records),
    )
    options = {} if given.backend is None else {"backend": given.backend}
    router = Router.from_pretrained(given.checkpoint, **options)
    service = Service(router, llm=Delayed(given.delay), settings=settings, telemetry=Telemetry())
    serve(create_app(service), settings, on_started=lambda url: print(url, flush=True))


if __name__ == "__main__":
    main()
