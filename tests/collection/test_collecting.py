"""Collecting: each run ends in one row, resuming repays nothing, trouble stops in good order."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.collection.worlds import (
    CATALOG,
    LARGE,
    PLANS,
    SMALL,
    Scripted,
    exported,
    failing,
    gather,
    sums,
    team,
)

from masrouter.catalog import Catalog
from masrouter.collection import Assignment, Progress, Settings, Spending, Store, collect, grid
from masrouter.collection.store import reading
from masrouter.errors import CallError, CollectionError, PlanError, ProblemError
from masrouter.llms import ChatRequest, Completion
from masrouter.types import Agent, Plan, Usage

ALL = list(grid(sums(6), PLANS))
TRIO = [team("self_consistency", SMALL, SMALL, LARGE)]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "some.sqlite"


def records(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in exported(file).splitlines()]


def rows(file: Path, table: str) -> list[dict[str, Any]]:
    with reading(file) as connection:
        return [dict(row) for row in connection.execute(f"SELECT * FROM {table}")]


def test_every_run_of_a_design_is_collected_once(file: Path) -> None:
    llm = Scripted()
    ended = gather(file, [*ALL, *ALL[:5]], llm)
    assert (ended.planned, ended.done, ended.before, ended.failed) == (len(ALL), len(ALL), 0, 0)
    assert ended.complete
    assert ended.stopped is None
    assert ended.spending.known_usd == pytest.approx(llm.billed_usd)
    assert len({record["run_id"] for record in records(file)}) == len(ALL)
    assert {record["score"] for record in records(file)} == {0.0, 1.0}


def test_the_same_collection_again_sends_nothing(file: Path) -> None:
    gather(file, ALL, Scripted())
    before = exported(file)
    llm = Scripted()
    ended = gather(file, ALL, llm)
    assert (ended.before, ended.done) == (len(ALL), 0)
    assert not llm.asked
    assert exported(file) == before


def test_more_problems_are_added_to_what_is_there(file: Path) -> None:
    gather(file, list(grid(sums(3), PLANS)), Scripted())
    ended = gather(file, ALL, Scripted())
    assert (ended.before, ended.done) == (3 * len(PLANS), 3 * len(PLANS))


def test_two_collections_of_a_design_are_the_same_bytes_whatever_their_concurrency(
    tmp_path: Path,
) -> None:
    one, other = tmp_path / "one.sqlite", tmp_path / "other.sqlite"
    gather(one, ALL, Scripted(), concurrency=1)
    gather(other, ALL, Scripted(lambda request, _: (request.seed or 0) % 7 / 1000), concurrency=9)
    assert exported(one) == exported(other)


def test_concurrency_is_of_runs(file: Path) -> None:
    singles = list(grid(sums(30), PLANS[:2]))
    llm = Scripted(lambda *_: 0.002)
    gather(file, singles, llm, concurrency=5)
    assert llm.peak == 5


def test_a_changed_role_prompt_is_another_run(file: Path, tmp_path: Path) -> None:
    (tmp_path / "roles.yaml").write_text("roles: {assistant: {prompt: Be quick.}}\n")
    changed = Catalog.load(tmp_path / "roles.yaml")
    gather(file, ALL, Scripted())
    llm = Scripted()
    with Store(file) as store:
        ended = asyncio.run(collect(ALL, llm=llm, store=store, catalog=changed, sandbox=None))
    assert (ended.before, ended.done) == (0, len(ALL))
    assert len(records(file)) == 2 * len(ALL)


def begin(
    file: Path, runs: list[Assignment], llm: Scripted, until: Callable[[Store], bool], cancel: bool
) -> Progress | None:
    """Collect until something is so, then stop, in good order or at once (None)."""

    async def main(store: Store) -> Progress | None:
        stop = asyncio.Event()
        settings = Settings(concurrency=4)
        work = asyncio.create_task(
            collect(
                runs,
                llm=llm,
                store=store,
                catalog=CATALOG,
                sandbox=None,
                settings=settings,
                stop=stop,
            )
        )
        while not until(store):
            await asyncio.sleep(0.001)
        stop.set()
        if cancel:
            work.cancel()
        await asyncio.wait([work])
        return None if work.cancelled() else work.result()

    with Store(file, disk_reserve_mib=0) as store:
        return asyncio.run(main(store))


def test_stopping_finishes_the_runs_under_way_and_begins_no_other(
    file: Path, tmp_path: Path
) -> None:
    llm = Scripted(lambda *_: 0.001)
    ended = begin(file, ALL, llm, lambda store: len(store.finished()) >= 5, cancel=False)
    assert ended is not None
    assert ended.stopped == "interrupted"
    assert 5 <= ended.done < len(ALL)
    assert not ended.complete
    assert {row["state"] for row in rows(file, "calls")} == {"answered"}
    assert ended.spending.possible_usd == 0
    gather(file, ALL, llm)
    fresh = Scripted()
    gather(tmp_path / "fresh.sqlite", ALL, fresh)
    assert llm.asked == fresh.asked
    assert exported(file) == exported(tmp_path / "fresh.sqlite")


def test_cancelling_keeps_what_was_paid_for_and_counts_what_was_cut_off(
    file: Path, tmp_path: Path
) -> None:
    llm = Scripted(lambda request, _: 60.0 if request.model == LARGE else None)
    # In the end each of the four runs under way waits for a large model.
    assert begin(file, ALL, llm, lambda store: llm.under_way >= 4, cancel=True) is None
    states = {row["state"] for row in rows(file, "calls")}
    assert states == {"answered", "failed"}
    cut_off = [row for row in rows(file, "calls") if row["state"] == "failed"]
    assert all(row["lost_usd"] == row["worst_usd"] for row in cut_off if row["attempts"])
    llm.behave = None
    fresh = Scripted()
    gather(tmp_path / "fresh.sqlite", ALL, fresh)
    ended = gather(file, ALL, llm)
    assert ended.complete
    assert (llm.asked - fresh.asked).total() == sum(bool(row["attempts"]) for row in cut_off)
    assert ended.spending.known_usd == pytest.approx(llm.billed_usd)
    assert ended.spending.possible_usd == pytest.approx(sum(row["lost_usd"] for row in cut_off))
    assert exported(file) == exported(tmp_path / "fresh.sqlite")


def test_a_team_that_loses_a_member_still_gives_one_row(file: Path) -> None:
    def behave(request: ChatRequest, before: int) -> object:
        return failing("server_error") if request.model == LARGE else None

    ended = gather(file, list(grid(sums(4), TRIO)), Scripted(behave))
    assert (ended.done, ended.failed) == (4, 0)
    assert all(record["score"] is not None for record in records(file))


def test_a_team_below_its_quorum_is_one_row_with_its_error(file: Path) -> None:
    def behave(request: ChatRequest, before: int) -> object:
        return failing("server_error") if request.model == SMALL else None

    ended = gather(file, list(grid(sums(4), TRIO)), Scripted(behave))
    assert (ended.done, ended.failed) == (4, 4)
    assert len(records(file)) == 4
    for record in records(file):
        assert record.get("score") is None
        assert record["error"].startswith("team: 2 of 3 calls failed")
        assert record["cost_usd"] > 0  # the member that answered


def test_a_run_past_its_deadline_is_one_row_with_its_error(file: Path) -> None:
    singles = list(grid(sums(3), PLANS[:1]))
    ended = gather(file, singles, Scripted(lambda *_: 5.0), deadline_s=0.05)
    assert (ended.done, ended.failed) == (3, 3)
    assert all(record["error"].startswith("deadline: ") for record in records(file))
    assert all(record.get("cost_usd") is None for record in records(file))
    assert ended.spending.possible_usd > 0


def test_failed_runs_are_run_again_only_when_asked(file: Path) -> None:
    down = Scripted(lambda request, _: failing("server_error"))
    singles = list(grid(sums(4), PLANS[:2]))
    gather(file, singles, down)
    idle = Scripted()
    assert gather(file, singles, idle).before == 8
    assert not idle.asked
    ended = gather(file, singles, Scripted(), retry_failed=True)
    assert (ended.done, ended.failed, ended.before) == (8, 0, 0)
    assert len(records(file)) == 8
    assert all(record.get("error") is None for record in records(file))


def test_retrying_asks_again_for_empty_and_billed_failures_too_and_keeps_their_cost(
    file: Path,
) -> None:
    singles = list(grid(sums(2), PLANS[:1]))
    llm = Scripted(
        lambda request, before: (
            None
            if before
            else ("   ", failing("bad_response"))[len(request.messages[-1].content) % 2]
        )
    )
    assert gather(file, singles, llm).failed == 2
    ended = gather(file, singles, llm, retry_failed=True)
    assert ended.failed == 0
    assert ended.spending.known_usd == pytest.approx(llm.billed_usd)
    assert llm.asked.total() == 4
    one_call = llm.billed_usd / 4
    assert [record["cost_usd"] for record in records(file)] == pytest.approx([one_call] * 2)


def test_a_failure_that_was_billed_is_not_paid_again_when_its_run_is_resumed(file: Path) -> None:
    """One member fails at a cost, another answers, the third is cut off by a stop."""
    seeds: list[int | None] = []
    trio = list(grid(sums(1), TRIO))
    gather(file.with_name("probe.sqlite"), trio, Scripted(lambda r, _: seeds.append(r.seed)))

    def behave(request: ChatRequest, before: int) -> object:
        if request.seed == seeds[0]:
            return failing("bad_response")
        return 60.0 if request.seed == seeds[2] and not before else None

    llm = Scripted(behave)

    def two_have_ended(store: Store) -> bool:
        rows = store.read("SELECT COUNT(*) FROM calls WHERE state <> 'sent'")
        return bool(rows[0][0] == 2) and llm.under_way == 1

    assert begin(file, trio, llm, two_have_ended, cancel=True) is None
    ended = gather(file, trio, llm)
    assert (ended.done, ended.failed) == (1, 0)
    assert sorted(llm.asked.values()) == [1, 1, 2]
    assert ended.spending.known_usd == pytest.approx(llm.billed_usd)
    assert ended.spending.possible_usd > 0


@pytest.mark.parametrize("kind", ["unauthorised", "unknown_model"])
def test_what_would_fail_every_run_stops_at_once_and_loses_nothing(file: Path, kind: Any) -> None:
    def behave(request: ChatRequest, before: int) -> object:
        if request.model == LARGE:
            return failing(kind)
        return 0.05

    llm = Scripted(behave)
    singles = list(grid(sums(20), [team("io", SMALL), team("io", LARGE)]))
    with pytest.raises(CollectionError, match=r"every run would fail: m: a failure for the test"):
        gather(file, singles, llm, concurrency=6)
    assert llm.asked.total() <= 6
    # The others under way were finished, and no row was made of what failed.
    made = rows(file, "runs")
    assert len(made) == sum(row["state"] == "answered" for row in rows(file, "calls"))
    assert all(row["answer"] is not None for row in made)
    llm.behave = None
    assert gather(file, singles, llm).complete


def test_a_provider_that_is_down_is_waited_for(file: Path) -> None:
    said: list[str | None] = []

    def behave(request: ChatRequest, before: int) -> object:
        return failing("circuit_open") if before < 2 else None

    with Store(file) as store:
        ended = asyncio.run(
            collect(
                ALL[:10],
                llm=Scripted(behave),
                store=store,
                catalog=CATALOG,
                sandbox=None,
                settings=Settings(pauses_s=(0.01, 0.01, 0.01)),
                report=lambda progress: said.append(progress.waiting),
            )
        )
    assert (ended.done, ended.failed) == (10, 0)
    assert "m: a failure for the test; trying again in 0.01 s" in said


def test_a_provider_that_stays_down_ends_the_collection_and_resuming_completes(
    file: Path,
) -> None:
    down = Scripted(lambda request, _: failing("circuit_open") if request.model == LARGE else None)
    with pytest.raises(CollectionError, match="the provider stays down: m: a failure"):
        gather(file, ALL, down, pauses_s=(0.01,))
    assert all(row["answer"] is not None for row in rows(file, "runs"))
    assert gather(file, ALL, Scripted()).complete


def test_a_stop_while_a_provider_is_down_leaves_the_run_for_later(file: Path) -> None:
    async def main(store: Store) -> Progress:
        stop = asyncio.Event()
        return await collect(
            ALL,
            llm=Scripted(lambda *_: failing("circuit_open")),
            store=store,
            catalog=CATALOG,
            sandbox=None,
            settings=Settings(pauses_s=(60.0,)),
            stop=stop,
            report=lambda progress: stop.set() if progress.waiting else None,
        )

    with Store(file) as store:
        ended = asyncio.run(main(store))
    assert (ended.done, ended.stopped) == (0, "interrupted")


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
