"""What the tests of live evaluation share: a small router of models that the simulation plays."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import pytest

from masrouter.encoder import HashingEncoder
from masrouter.features import FeatureScales
from masrouter.logs import read_logs
from masrouter.logs.schema import record_to_json
from masrouter_train.config import ControllerConfig, CriticConfig, GateConfig, TrainConfig
from masrouter_train.fit import fit

ROOT = Path(__file__).parents[1]
LADDER = (FeatureScales(), FeatureScales(0.1, 1.0))
PROBLEMS = ROOT / "data/problems"


def small_checkpoint(factory: pytest.TempPathFactory) -> Path:
    """A checkpoint on a part of the project's logs, their smaller teams; made once."""
    folder = factory.getbasetemp() / "small-checkpoint"
    if (folder / "checkpoint").exists():
        return folder / "checkpoint"
    folder.mkdir()
    lines = []
    for record in read_logs(ROOT / "data/logs/grid.parquet"):
        if len(record.plan.agents) > 2 or sum(record.query_id.encode()) % 7:
            continue
        lines.append(json.dumps(record_to_json(record)))
    logs = folder / "logs.jsonl"
    logs.write_text("\n".join(lines) + "\n")
    config = TrainConfig(
        encoder="hashing-32",
        critic=CriticConfig(LADDER, LADDER, folds=3),
        gate=GateConfig(nodes=4),
        controller=ControllerConfig(width=16, epochs=2, batch_size=64, patience=2),
    )
    fit(read_logs(logs), config, encoder=HashingEncoder(32)).save_pretrained(folder / "checkpoint")
    return folder / "checkpoint"


class Command(Protocol):
    """A command in a process of its own."""

    returncode: Any

    def send_signal(self, number: int, /) -> None: ...

    def communicate(self) -> tuple[str, str]:
        """Wait for its end: what it wrote to standard output and error."""


def environment(cache: Path) -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200", "MASROUTER_CACHE": str(cache)}


def whole_process(cache: Path, *arguments: str) -> Command:
    """`masrouter` as it is started from a shell."""
    return subprocess.Popen(
        [sys.executable, "-m", "masrouter.cli", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(cache),
    )


class Children:
    """Starts commands one after another as children of one process. Use as a context manager."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __enter__(self) -> Self:
        self._driver = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("live_driver.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment(self._folder),
        )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._driver.communicate(timeout=60)

    def start(self, cache: Path, *arguments: str) -> Command:
        assert self._driver.stdin is not None
        child = Child(self._driver, self._folder / "output", self._folder / "errors")
        job = {"arguments": arguments, "output": str(child.output), "errors": str(child.errors)}
        self._driver.stdin.write(json.dumps(job) + "\n")
        self._driver.stdin.flush()
        child.pid = int(child.told("started"))
        return child


@dataclass
class Child:
    driver: subprocess.Popen[str]
    output: Path
    errors: Path
    pid: int = 0
    returncode: int | None = None

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def communicate(self) -> tuple[str, str]:
        self.returncode = int(self.told("exited"))
        return self.output.read_text(), self.errors.read_text()

    def told(self, word: str) -> str:
        assert self.driver.stdout is not None
        for line in self.driver.stdout:
            if line.startswith(word):
                return line.split()[1]
        raise AssertionError("the driver has died")


def wait_for(condition: Callable[[], bool], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.002)


def figures(folder: Path) -> dict[str, Any]:
    """evaluation.json without what the clock and lost calls decide."""
    data: dict[str, Any] = json.loads((folder / "evaluation.json").read_text())
    del data["spending"]
    return without_clock(data)


def without_clock(data: Any) -> Any:
    if isinstance(data, dict):
        kept = {k: v for k, v in data.items() if not k.startswith("latency")}
        return {k: without_clock(v) for k, v in kept.items()}
    return [without_clock(item) for item in data] if isinstance(data, list) else data


def table_without_clock(folder: Path) -> list[list[str]]:
    """Cells of table.md but those of the columns `latency`."""
    rows: list[list[str]] = []
    clock: int | None = None
    for line in (folder / "table.md").read_text().splitlines():
        cells = [cell.strip() for cell in line.split(" | ")]
        if line.startswith("| "):
            if "latency" in line:
                clock = next(i for i, cell in enumerate(cells) if cell.startswith("latency"))
            assert clock is not None
            del cells[clock]
        rows.append(cells)
    return rows


def samples(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("samples-*.jsonl"))}
