"""Collections in child processes that can be killed, and what a server was asked meanwhile."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.collection.worlds import said
from tests.llms.faulty_server import FaultyServer, Received, answer

from masrouter.collection.store import reading
from masrouter.llms import ChatRequest, Message

DRIVER = Path(__file__).with_name("driver.py")


def counting_server(seed: int) -> FaultyServer:
    """Answers every request in its own way, within 2 to 20 ms."""
    chance = random.Random(seed)

    def reply(received: Received) -> str:
        return said(received.model, received.messages, received.body.get("seed"))

    return FaultyServer(otherwise=answer(reply), latency_s=lambda: chance.uniform(0.002, 0.02))


def digest(received: Received) -> str:
    """The digest of the request that a server has received."""
    body = received.body
    messages = tuple(Message(role, text) for role, text in received.messages)  # type: ignore[arg-type]
    return ChatRequest(
        received.model, messages, body["max_tokens"], body.get("temperature"), body.get("seed")
    ).digest()


@dataclass
class Session:
    """One child's life."""

    finished: list[str] = field(default_factory=list)
    """Run ids that it acknowledged."""
    said: str = ""
    """Why it stopped, or how it ended."""
    status: int | None = None
    """Exit code, or minus the signal that killed it."""


class Children:
    """Starts collections one after another. Use as a context manager."""

    def __enter__(self) -> Self:
        self._driver = subprocess.Popen(
            [sys.executable, str(DRIVER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._driver.communicate(timeout=60)
        assert self._driver.returncode == 0

    def run(self, job: dict[str, Any], *, kill_after_s: float | None = None) -> Session:
        """Run a collection to its end, or until it is killed."""
        assert self._driver.stdin is not None
        assert self._driver.stdout is not None
        self._driver.stdin.write(json.dumps(job) + "\n")
        self._driver.stdin.flush()
        session, timer = Session(), threading.Timer(0, lambda: None)
        for line in self._driver.stdout:
            word, _, rest = line.strip().partition(" ")
            if word == "started" and kill_after_s is not None:
                timer = threading.Timer(kill_after_s, _kill, [int(rest)])
                timer.start()
            elif word == "finished":
                session.finished.append(rest)
            elif word in ("ended", "stopped"):
                session.said = line.strip()
            elif word == "exited":
                timer.cancel()
                session.status = int(rest)
                return session
        raise AssertionError("the driver has died")


def _kill(child: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(child, signal.SIGKILL)


def recorded_runs(file: Path) -> dict[str, str]:
    """The log record of each run in a collection."""
    with reading(file) as connection:
        return dict(connection.execute("SELECT run_id, record FROM runs").fetchall())


def calls_in(file: Path, state: str) -> Counter[str]:
    """How often each request stands in a collection in this state."""
    with reading(file) as connection:
        rows = connection.execute("SELECT digest FROM calls WHERE state = ?", [state]).fetchall()
        return Counter(row["digest"] for row in rows)


def calls_cut_off(file: Path) -> Counter[str]:
    """How often each request was in flight when a collector was killed, by the money put aside."""
    with reading(file) as connection:
        rows = connection.execute("SELECT digest, lost_usd / worst_usd FROM calls").fetchall()
    found: Counter[str] = Counter()
    for name, times in rows:
        assert abs(times - round(times)) < 1e-6
        found[name] += round(times)
    return found
