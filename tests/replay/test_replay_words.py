"""What a replay says first, and that it never says more than its logs hold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from masrouter.evaluation.replay import replay
from masrouter.evaluation.replay.report import to_markdown
from masrouter.evaluation.replay.types import Replay
from masrouter.evaluation.replay.words import words
from masrouter.logs import Logs
from masrouter.reporting.replay_page import replay_page
from masrouter.router import Router
from masrouter.types import LogRecord, Plan
from masrouter_train.synthetic import SyntheticWorld

Records = list[LogRecord]


@pytest.fixture(scope="module")
def grid(world: SyntheticWorld, some_plans: tuple[Plan, ...]) -> Records:
    return list(world.grid_logs(40, 5, plans=some_plans))


@pytest.fixture(scope="module")
def randomised(world: SyntheticWorld, router: Router) -> Replay:
    return replay(world.randomised_logs(1200, 9), router, resamples=200)


def replayed(records: Sequence[LogRecord], router: Router, top: int = 5) -> Replay:
    return replay(Logs.from_records(records), router, resamples=200, top=top)


def answer(found: Replay) -> str:
    return " ".join(words(found).answer)


def priced(record: LogRecord, cost: float | None) -> LogRecord:
    return replace(record, usage=replace(record.usage, cost_usd=cost))


def taken(router: Router, records: Records) -> dict[str, Plan]:
    texts = {record.query_id: record.query for record in records}
    decisions = router.route_batch(list(texts.values()))
    return {name: decision.plan for name, decision in zip(texts, decisions, strict=True)}


def test_the_answer_comes_before_how_it_was_found(router: Router, grid: Records) -> None:
    found = replayed(grid, router)
    told = words(found)
    for text in (replay_page(found), to_markdown(found)):
        lead, verdict = text.find("the router would have paid"), text.find("what it got there")
        assert 0 < lead < verdict
    assert told.answer[0].startswith("Looked up: instead of")


def test_runs_that_cost_nothing_are_not_of_unknown_cost(router: Router, grid: Records) -> None:
    text = answer(replayed([priced(r, 0.0) for r in grid], router))
    assert "unknown amount" not in text
    assert "paid the same" in text


def test_paying_where_the_reference_paid_nothing_is_told_in_dollars(
    router: Router, grid: Records
) -> None:
    free = max(grid, key=lambda r: (r.score or 0.0, str(r.plan))).plan
    records = [priced(r, 0.0 if r.plan == free else 1.0) for r in grid]
    found = replay(Logs.from_records(records), router, current_plan=free, resamples=200)
    assert found.comparisons[0].saved is None
    assert "more" in answer(found)
    assert "unknown amount" not in answer(found)


def test_a_saving_says_on_how_many_queries_costs_are_known(router: Router, grid: Records) -> None:
    unpriced = set(sorted({r.query_id for r in grid})[:15])
    records = [priced(r, None) if r.query_id in unpriced else r for r in grid]
    assert "on the 25 queries where both costs are known" in answer(replayed(records, router))


def test_a_difference_that_may_be_chance_is_called_so(router: Router, grid: Records) -> None:
    rng = np.random.default_rng(0)
    records = [replace(r, score=float(rng.integers(2))) for r in grid]
    found = replay(Logs.from_records(records), router, current_plan=grid[0].plan, resamples=200)
    pair = found.comparisons[0].score
    assert pair is not None
    assert pair.difference.interval is not None
    assert pair.difference.interval.low < 0 < pair.difference.interval.high
    assert "may be chance)" in words(found).answer[0].split("scored")[1]


def test_an_estimated_saving_has_an_interval_and_counts_runs(randomised: Replay) -> None:
    paid = words(randomised).answer[0].split("scored")[0]
    assert "(95 %: " in paid
    assert "for 1,000 runs" in paid


def test_where_nothing_was_looked_up_no_sentence_sounds_as_if(
    router: Router, grid: Records
) -> None:
    known = set(taken(router, grid).values())
    found = replayed([r for r in grid if r.plan not in known], router)
    told = words(found)
    assert told.answer[0].startswith("Not identified: these logs cannot say what the router would")
    assert "would have paid" not in answer(found)
    assert "looked up, not predicted" not in told.verdict
    assert "none of 40 queries" in told.verdict


def test_outcomes_that_are_not_there_are_not_called_real(
    world: SyntheticWorld, router: Router
) -> None:
    known = set(router.plans)
    others = [r for r in world.randomised_logs(300, 9) if r.plan not in known]
    found = replayed(others, router)
    assert f"on none of {len(others):,} runs" in answer(found)
    assert "those outcomes are real" not in answer(found)


def test_harms_that_nobody_can_tell_are_not_told_as_none(
    world: SyntheticWorld, router: Router
) -> None:
    known = set(router.plans)
    others = [r for r in world.randomised_logs(300, 9) if r.plan not in known]
    found = replayed(others, router)
    queries = len({r.query_id for r in others})
    assert (found.harm.found, found.harm.unknown) == (0, queries)
    for text in (replay_page(found), to_markdown(found)):
        assert f"On {queries:,} of {queries:,} queries where the plans differ" in text
        assert "None." not in text


def test_the_lists_say_how_many_they_leave_out(router: Router, grid: Records) -> None:
    found = replayed(grid, router, top=2)
    assert found.saving.found > 2
    assert f"Biggest savings (2 of {found.saving.found})" in replay_page(found)
    none = words(replayed(grid, router, top=0))
    assert none.savings.title == f"Biggest savings (0 of {found.saving.found})"


def test_a_looked_up_saving_does_not_lend_its_certainty_to_a_predicted_score(
    router: Router, grid: Records
) -> None:
    chosen = taken(router, grid)
    records = [replace(r, score=None) if r.plan == chosen[r.query_id] else r for r in grid]
    current = next(p for p in router.plans if p not in set(chosen.values()))
    found = replay(Logs.from_records(records), router, current_plan=current, resamples=200)
    heads = [case.head for case in words(found).savings.cases if ", score" in case.head]
    assert heads
    for head in heads:
        assert "(found), score" in head
        assert "(predicted)" in head.split(", score")[1]


def test_only_grid_logs_count_queries_without_support(
    world: SyntheticWorld, router: Router, grid: Records, randomised: Replay
) -> None:
    header = {s.title: s.header for s in words(randomised).sections}["Plans that the router takes"]
    assert "without support" not in header
    told = words(replayed(grid, router)).sections
    assert "without support" in {s.title: s.header for s in told}["Plans that the router takes"]


def test_estimates_count_the_queries_of_known_outcome(
    world: SyntheticWorld, router: Router
) -> None:
    records = list(world.randomised_logs(1200, 9))
    failed = {r.query_id for r in records[:100]}
    records = [replace(r, score=None, error="x") if r.query_id in failed else r for r in records]
    [against] = replayed(records, router).comparisons
    assert against.score is not None
    assert against.cost is not None
    assert against.score.difference.queries == 1200 - len(failed)
    assert against.score.left_out == len(failed)
    assert against.cost.difference.queries == 1200


def test_words_of_the_field_are_explained_where_they_are_used(randomised: Replay) -> None:
    told = words(randomised)
    assert "target" in " ".join((told.verdict, *told.answer))
    assert "the target is the router" in answer(randomised)
    assert any(note.startswith("read as randomised logs") for note in told.notes)
