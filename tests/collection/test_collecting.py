"""Collecting: each run ends in one row, resuming repays nothing, trouble stops in good order."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
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
    records,
    rows,
    sums,
    team,
)

from masrouter.catalog import Catalog
from masrouter.collection import Assignment, Progress, Settings, Store, collect, grid
from masrouter.errors import CollectionError
from masrouter.llms import ChatRequest

ALL = list(grid(sums(6), PLANS))
TRIO = [team("self_consistency", SMALL, SMALL, LARGE)]


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
    llm = Scripted(lambda *_: 0.05)  # far longer than it takes to record a call
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
