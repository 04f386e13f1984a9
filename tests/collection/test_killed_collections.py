"""`kill -9` at random moments: nothing acknowledged is lost or doubled, nothing is paid again."""

from __future__ import annotations

import random
import re
import signal
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.collection.children import (
    Children,
    calls_cut_off,
    calls_in,
    counting_server,
    digest,
    recorded_runs,
)
from tests.collection.worlds import PLANS, exported

from masrouter.collection import status
from masrouter.errors import CollectionError

PROBLEMS = 10
RUNS = PROBLEMS * len(PLANS)
CONCURRENCY = 6
MOST_IN_FLIGHT = CONCURRENCY * 3


@pytest.fixture(scope="module")
def children() -> Iterator[Children]:
    with Children() as started:
        yield started


def begun(file: Path) -> bool:
    """Whether the collector lived long enough to make its file."""
    try:
        status(file)
    except CollectionError as error:
        if re.search("no such file|empty, no collection", str(error)):
            return False
        raise
    return True


@dataclass
class Figures:
    """What the kills of a test came to."""

    kills: int = 0
    runs: int = 0
    calls: int = 0
    in_flight: int = 0
    repeated: int = 0


def killed_collection(
    folder: Path, children: Children, kills: int, chance: random.Random, figures: Figures
) -> None:
    """One collection, killed until it is complete or `kills` is reached, then completed."""
    file = folder / "killed.sqlite"
    job = {"file": str(file), "problems": PROBLEMS, "settings": {"concurrency": CONCURRENCY}}
    acknowledged: dict[str, str] = {}
    with counting_server(chance.randrange(2**32)) as server:
        job["base_url"] = server.base_url
        while figures.kills < kills:
            session = children.run(job, kill_after_s=chance.uniform(0.02, 0.6))
            if session.status == 0:
                break
            assert session.status == -signal.SIGKILL
            figures.kills += 1
            if not begun(file):
                assert not session.finished
                continue
            there = recorded_runs(file)
            assert set(session.finished) <= set(there)
            assert not set(session.finished) & set(acknowledged)
            assert acknowledged.items() <= there.items()
            acknowledged = there
            assert calls_in(file, "sent").total() <= MOST_IN_FLIGHT
        last = children.run(job)
        assert last.status == 0
        served = Counter(map(digest, server.calls))
        billed_usd = server.billed_usd
    assert last.said == f"ended {RUNS} of {RUNS}"
    assert acknowledged.items() <= recorded_runs(file).items()
    assert len(recorded_runs(file)) == RUNS

    answered, in_flight = calls_in(file, "answered"), calls_cut_off(file)
    assert not calls_in(file, "sent")
    assert served - (answered + in_flight) == Counter()
    assert answered - served == Counter()
    spending = status(file).spending
    assert spending.known_usd <= billed_usd + 1e-12
    assert billed_usd <= spending.most_usd + 1e-12
    assert (spending.possible_usd > 0) == bool(in_flight)
    figures.runs += RUNS
    figures.calls += answered.total()
    figures.in_flight += in_flight.total()
    figures.repeated += served.total() - answered.total()


def killed_collections(folder: Path, children: Children, kills: int, seed: int) -> Figures:
    chance, figures = random.Random(seed), Figures()
    undisturbed = folder / "undisturbed.sqlite"
    with counting_server(seed) as server:
        job = {"file": str(undisturbed), "problems": PROBLEMS, "base_url": server.base_url}
        assert children.run(job).status == 0
    expected = exported(undisturbed)
    while figures.kills < kills:
        part = folder / str(figures.kills)
        part.mkdir()
        killed_collection(part, children, kills, chance, figures)
        assert exported(part / "killed.sqlite") == expected
    return figures


def test_kills_at_random_moments_lose_no_run_and_repay_nothing(
    tmp_path: Path, children: Children
) -> None:
    figures = killed_collections(tmp_path, children, kills=8, seed=1)
    assert figures.kills == 8
    assert figures.repeated <= figures.in_flight


@pytest.mark.slow
def test_fifty_kills_at_random_moments_lose_no_run_and_repay_nothing(
    tmp_path: Path, children: Children
) -> None:
    figures = killed_collections(tmp_path, children, kills=50, seed=2)
    assert figures.kills == 50
    assert figures.repeated <= figures.in_flight
    print(figures)


def test_the_budget_holds_across_kills(tmp_path: Path, children: Children) -> None:
    file, chance, budget = tmp_path / "killed.sqlite", random.Random(3), 0.02
    settings = {"concurrency": CONCURRENCY, "budget_usd": budget, "max_tokens": 100}
    job = {"file": str(file), "problems": PROBLEMS, "settings": settings}
    with counting_server(3) as server:
        job["base_url"] = server.base_url
        kills = 0
        while True:
            session = children.run(job, kill_after_s=chance.uniform(0.2, 0.6))
            if begun(file):
                assert server.billed_usd <= status(file).spending.most_usd + 1e-12 <= budget + 1e-12
            if session.status != -signal.SIGKILL:
                break
            kills += 1
        assert "the budget of 0.02 US$" in session.said
        assert kills >= 2
        settings["budget_usd"] = 1.0
        assert children.run(job).status == 0
        assert server.billed_usd <= status(file).spending.most_usd
