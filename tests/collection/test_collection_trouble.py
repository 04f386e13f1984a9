"""Collecting with graders, clients and settings that misbehave: nothing is lost or miscounted."""

from __future__ import annotations

import asyncio
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.collection.worlds import (
    LARGE,
    PLANS,
    SMALL,
    Scripted,
    gather,
    records,
    rows,
    sums,
    team,
)

from masrouter.collection import Settings, Spending, Store, grid
from masrouter.collection.store import reading
from masrouter.errors import CallError, CollectionError, PlanError, ProblemError
from masrouter.llms import ChatRequest, Completion
from masrouter.types import Agent, Plan, Usage

ALL = list(grid(sums(6), PLANS))
TRIO = [team("self_consistency", SMALL, SMALL, LARGE)]


class Broken:
    """A grader that cannot judge."""

    def grade(self, answer: str, sandbox: object) -> None:
        raise ProblemError("this cannot be judged")


def test_a_grader_that_fails_stops_with_its_error_and_the_others_are_kept(file: Path) -> None:
    problems = list(sums(6))
    problems[3] = replace(problems[3], grader=Broken())  # type: ignore[arg-type]
    with pytest.raises(ProblemError, match="this cannot be judged"):
        gather(file, list(grid(problems, PLANS[:2])), Scripted(lambda *_: 0.001))
    kept = len(rows(file, "runs"))
    assert all(row["state"] == "answered" for row in rows(file, "calls"))
    ended = gather(file, list(grid(sums(6), PLANS[:2])), Scripted())
    assert (ended.before, ended.complete) == (kept, True)


def test_a_client_with_a_bug_is_a_row_with_its_name(file: Path) -> None:
    ended = gather(file, ALL[:3], Scripted(lambda *_: ZeroDivisionError("a bug")))
    assert ended.failed == 3
    assert all("ZeroDivisionError" in record["error"] for record in records(file))


def test_half_of_a_surrogate_pair_in_a_reply_or_an_error_is_replaced(file: Path) -> None:
    odd = CallError("bad \ud800 byte", kind="rejected", model="m")
    gather(file, ALL[:1], Scripted(lambda *_: "half \ud83d\nAnswer: 2"))
    gather(file, ALL[1:2], Scripted(lambda *_: odd))
    found = {record.get("error") for record in records(file)}
    assert len(found) == 2
    assert any("bad ? byte" in str(error) for error in found)
    assert rows(file, "runs")[0]["answer"] == "half ?\nAnswer: 2"


def test_absurd_token_counts_are_unknown(file: Path) -> None:
    llm = Scripted(prompt_tokens=10**30, known_price=None)
    ended = gather(file, ALL[:2], llm)
    assert ended.done == 2
    assert all(record.get("prompt_tokens") is None for record in records(file))
    assert all(record["completion_tokens"] == 50 for record in records(file))


def test_a_reply_of_many_megabytes_is_kept_whole(file: Path) -> None:
    text = "word " * 2**20 + "\nAnswer: 2"
    ended = gather(file, ALL[:2], Scripted(lambda *_: text))
    assert ended.failed == 0
    assert [row["answer"] for row in rows(file, "runs")] == [text] * 2


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        (Plan("delegation", (Agent(None, SMALL),)), "not one that can be executed"),
        (Plan("io", (Agent(None, SMALL),) * 2), "agents"),
        (Plan("io", (Agent("nobody", SMALL),)), "role 'nobody' is not in the catalog"),
    ],
)
def test_a_plan_that_no_team_could_run_is_refused_before_anything_is_sent(
    file: Path, plan: Plan, message: str
) -> None:
    llm = Scripted()
    with pytest.raises(PlanError, match=message):
        gather(file, [*ALL, *grid(sums(1), [plan])], llm)
    assert not llm.asked


def test_another_limit_of_tokens_needs_another_collection(file: Path) -> None:
    gather(file, ALL[:2], Scripted(), max_tokens=100)
    with pytest.raises(CollectionError, match="was collected with max_tokens 100, now it is by"):
        gather(file, ALL, Scripted())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"concurrency": 0}, "concurrency: expected at least 1, got 0"),
        ({"budget_usd": -1.0}, "budget: expected US dollars >= 0, got -1.0"),
        ({"budget_usd": float("nan")}, "budget: expected US dollars"),
        ({"deadline_s": 0.0}, "deadline: expected seconds > 0"),
        ({"max_tokens": 0}, "max_tokens: expected at least 1"),
    ],
)
def test_a_bad_setting_is_told(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(CollectionError, match=message):
        Settings(**settings)


def test_every_reply_is_on_the_disk_before_the_team_reads_it(file: Path) -> None:
    """The second member of a chain is asked: what the first one said stands in the file."""
    found: list[int] = []

    def behave(request: ChatRequest, before: int) -> object:
        with reading(file) as connection:
            (answered,) = connection.execute(
                "SELECT COUNT(*) FROM calls WHERE state = 'answered'"
            ).fetchone()
            (sent,) = connection.execute(
                "SELECT COUNT(*) FROM calls WHERE state = 'sent' AND digest = ?",
                [request.digest()],
            ).fetchone()
        found.append(answered)
        assert sent == 1
        return None

    ended = gather(
        file, list(grid(sums(3), [team("chain", SMALL, LARGE)])), Scripted(behave), concurrency=1
    )
    assert ended.failed == 0
    assert found == [0, 1, 2, 3, 4, 5]


class Retrying(Scripted):
    """Its first attempt ends as `first` says, the second well; looks into the file before each."""

    def __init__(self, file: Path, first: str) -> None:
        super().__init__()
        self.file, self.first = file, first
        self.put_aside: list[float] = []
        """By earlier attempts, as the file says before each attempt."""

    async def complete(self, request: ChatRequest, **options: Any) -> Completion:
        meter = options["meter"]
        for attempt in (1, 2):
            meter.reserve()
            with reading(self.file) as connection:
                (state, lost, spent) = connection.execute(
                    "SELECT state, lost_usd, spent_usd FROM calls"
                ).fetchone()
            assert state == "sent"
            self.put_aside.append(lost + spent)
            if attempt == 1 and self.first == "unknown":
                meter.settle(None)
            elif attempt == 1 and self.first == "billed":
                meter.settle(Usage(10, 5, 0.125))
            elif attempt == 1:
                meter.release()
        meter.settle(Usage(100, 50, 0.25))
        return Completion("Answer: 2", Usage(100, 50, 0.25), request.model, "stop", attempts=2)


@pytest.mark.parametrize(
    ("first", "known", "cost", "tokens"),
    [
        ("free", 0.25, 0.25, 100),
        ("billed", 0.375, 0.375, 110),
        ("unknown", 0.25, None, None),
    ],
)
def test_attempts_that_were_billed_before_a_retry_count_and_are_on_the_disk_before_it(
    file: Path, first: str, known: float, cost: float | None, tokens: int | None
) -> None:
    llm = Retrying(file, first)
    ended = gather(file, ALL[:1], llm)
    (call,) = rows(file, "calls")
    possible = call["worst_usd"] if first == "unknown" else 0.0
    assert ended.spending == Spending(known, possible, 0)
    assert llm.put_aside == [0.0, known - 0.25 + possible]
    (record,) = records(file)
    assert record.get("cost_usd") == cost
    assert record.get("prompt_tokens") == tokens
    # Taken up after a kill that came before the run was recorded, it reads the same.
    with Store(file) as store:
        asyncio.run(store.write(("DELETE FROM runs", ())))
    idle = Scripted()
    again = gather(file, ALL[:1], idle)
    assert not idle.asked
    assert again.spending == ended.spending
    assert records(file) == [record]


class Unmetered(Scripted):
    """A client that asks no meter."""

    async def complete(self, request: ChatRequest, **options: Any) -> Completion:
        return Completion("Answer: 2", Usage(100, 50, 0.25), request.model, "stop")


def test_a_client_that_asks_no_meter_is_counted_and_keeps_no_budget(file: Path) -> None:
    ended = gather(file, ALL[:2], Unmetered(), concurrency=1)
    assert ended.done == 2
    assert ended.spending.known_usd == 0.5
    other = file.with_name("other.sqlite")
    refused = gather(other, ALL[:2], Unmetered(), concurrency=1, budget_usd=9.0)
    assert refused.done == 0
    assert "its client answered without asking the meter" in str(refused.stopped)
    assert refused.spending.known_usd == 0.25


def test_calls_of_unknown_price_are_counted_and_no_budget_is_promised_after_them(
    file: Path,
) -> None:
    ended = gather(file, ALL[:2], Scripted(known_price=None))
    assert ended.spending == Spending(0.0, 0.0, 2)
    with pytest.raises(CollectionError, match=r"2 calls of earlier sessions have an unknown cost"):
        gather(file, ALL, Scripted(), budget_usd=5.0)


def test_a_folder_that_vanishes_stops_sending(tmp_path: Path) -> None:
    file = tmp_path / "gone" / "some.sqlite"
    file.parent.mkdir()
    llm = Scripted(lambda *_: shutil.rmtree(file.parent, ignore_errors=True))
    ended = gather(file, ALL, llm, concurrency=2)
    assert ended.done <= 2
    assert "No such file or directory" in str(ended.stopped)
    assert llm.asked.total() <= 4
