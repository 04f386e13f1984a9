"""Live evaluation over HTTP: interrupted, killed and resumed, the table is the undisturbed one."""

from __future__ import annotations

import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from tests.live_samples import (
    PROBLEMS,
    ROOT,
    Children,
    Command,
    figures,
    samples,
    small_checkpoint,
    table_without_clock,
    wait_for,
    whole_process,
)
from tests.llms.simulated_server import SimulatedServer

from masrouter.catalog import Catalog
from masrouter.cli_models import erring
from masrouter.collection import export, status
from masrouter.llms.simulated import SimulatedProvider
from masrouter.problems import Problem, read_problems, simulated_task

HUMAN_EVAL = ROOT / "../shared/problems/HumanEval.jsonl.gz"
CONCURRENCY = 4

Start = Callable[..., Command]
"""From a cache folder and arguments."""


def serving(problems: Sequence[Problem], latency_s: float) -> SimulatedServer:
    provider = SimulatedProvider(map(simulated_task, problems), catalog=Catalog.default())
    return SimulatedServer(provider, latency_s=latency_s)


def command(folder: Path, server: SimulatedServer, *more: str) -> tuple[str, ...]:
    providers = server.write_providers(folder.with_suffix(".yaml"))
    return ("--llm", str(providers), "-o", str(folder), *more)


def ended(start: Start, cache: Path, *arguments: str) -> str:
    """Run the command to its end; what it printed."""
    process = start(cache, *arguments)
    output, errors = process.communicate()
    assert process.returncode == 0, errors
    return output


def interrupted_and_undisturbed(
    tmp_path: Path,
    problems: Sequence[Problem],
    options: Sequence[str],
    start: Start,
    *,
    latency_s: float,
    seed: int,
) -> str:
    """Evaluate twice, the second time stopped by Ctrl-C and then by `kill -9`; the first's table.

    Both moments are drawn at random among the calls that the whole takes.
    """
    chance, cache = random.Random(seed), tmp_path / "cache"
    whole, torn = tmp_path / "whole", tmp_path / "torn"
    options = ("evaluate", *options, "--concurrency", str(CONCURRENCY))
    with serving(problems, latency_s) as server:
        started = time.monotonic()
        table = ended(start, cache, *options, *command(whole, server))
        took_s, undisturbed = time.monotonic() - started, server.asked
    calls = undisturbed.total()

    with serving(problems, latency_s) as server:
        arguments = (*options, *command(torn, server))
        first = start(cache, *arguments)
        at_first = chance.randrange(calls // 20, calls * 9 // 20)
        wait_for(lambda: server.calls >= at_first, 3000)
        first.send_signal(signal.SIGINT)
        output, errors = first.communicate()
        assert first.returncode == 130, errors
        assert "interrupted; run the same command again to go on" in errors
        assert "INCOMPLETE" in output
        assert status(torn / "runs.sqlite").spending.possible_usd == 0
        assert not figures(torn)["complete"]

        second = start(cache, *arguments)
        at_second = chance.randrange(calls // 2, calls * 9 // 10)
        wait_for(lambda: server.calls >= at_second, 3000)
        second.send_signal(signal.SIGKILL)
        second.communicate()
        assert second.returncode == -signal.SIGKILL

        assert "INCOMPLETE" not in ended(start, cache, *arguments)
        repeated = server.asked - undisturbed
    assert undisturbed - server.asked == Counter()
    # What was under way at the kill is lost, and asked once more; nothing else is.
    assert repeated.total() <= CONCURRENCY * 4
    assert figures(torn) == figures(whole)
    assert table_without_clock(torn) == table_without_clock(whole)
    assert samples(torn) == samples(whole)
    logs = []
    for folder in (whole, torn):
        export(folder / "runs.sqlite", folder / "logs.jsonl", clock=False)
        logs.append((folder / "logs.jsonl").read_bytes())
    assert logs[0] == logs[1]
    print(
        f"{calls} calls, undisturbed in {took_s:.0f} s; Ctrl-C after {at_first} calls, kill -9 "
        f"after {at_second}, {repeated.total()} calls made twice"
    )
    return table


def some_lines(folder: Path) -> Path:
    """Two problems of programs and six of numbers."""
    lines = [
        line
        for name, count in (("code", 2), ("math", 6))
        for line in (PROBLEMS / f"{name}.jsonl").read_text().splitlines()[:count]
    ]
    path = folder / "some.jsonl"
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.mark.slow
def test_an_evaluation_that_is_interrupted_twice_gives_the_same_table(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path, checkpoint = some_lines(tmp_path), small_checkpoint(tmp_path_factory)
    options = (
        "--problems", str(path), "--repeats", "2", "--checkpoint", str(checkpoint),
        "--plan", "chain(gpt-4o-mini, gpt-4o)",
    )  # fmt: skip
    problems = read_problems(path)
    with Children(tmp_path) as children:
        table = interrupted_and_undisturbed(
            tmp_path, problems, options, children.start, latency_s=0.05, seed=1
        )
    assert "routed less each fixed plan" in table
    assert samples(tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.skipif(not HUMAN_EVAL.is_file(), reason="HumanEval is not here")
def test_the_default_checkpoint_on_all_problems_and_human_eval_gives_the_same_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MASROUTER_CACHE", str(tmp_path / "cache"))
    problems = read_problems(PROBLEMS, HUMAN_EVAL)
    assert len(problems) == 580 + 164
    options = (
        "--problems", str(PROBLEMS), "--problems", str(HUMAN_EVAL),
        "--checkpoint", str(ROOT / "checkpoints/default"),
    )  # fmt: skip
    table = interrupted_and_undisturbed(
        tmp_path, erring(problems), options, whole_process, latency_s=0.0, seed=2
    )
    print(table)
