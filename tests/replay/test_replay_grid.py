"""Replaying grid logs: every figure is a look-up, and cautions are told."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from tests.replay.replay_samples import (
    QUICK,
    Records,
    choices,
    logs,
    shown,
    strict,
    value,
)

from masrouter.errors import ConstraintError, EvaluationError, LogError, RoutingError
from masrouter.evaluation.replay import Limits, replay
from masrouter.evaluation.replay.report import to_markdown
from masrouter.logs import Logs
from masrouter.router import Router
from masrouter.types import Agent, Plan, Usage

# Grid


def test_a_grid_replay_is_the_look_up_that_one_does_by_hand(router: Router, grid: Records) -> None:
    current = grid[0].plan
    found = replay(logs(grid), router, current_plan=current, resamples=QUICK)
    chosen = choices(router, grid)
    run = {(r.query_id, r.plan): r for r in grid}
    ours = [run[q, plan] for q, plan in chosen.items()]
    theirs = [run[q, current] for q in chosen]
    against = found.comparisons[0]
    assert against.reference.startswith(str(current))
    assert against.score is not None
    assert against.cost is not None
    assert value(against.score.router) == pytest.approx(np.mean([r.score for r in ours]))
    assert value(against.score.reference) == pytest.approx(np.mean([r.score for r in theirs]))
    paid, would = (sum(r.usage.cost_usd for r in side) for side in (theirs, ours))  # type: ignore[misc]
    assert value(against.saved) == pytest.approx(1 - would / paid)
    change = [a.score - b.score for a, b in zip(ours, theirs, strict=True)]  # type: ignore[operator]
    assert against.worse == sum(c < 0 for c in change)
    assert against.better == sum(c > 0 for c in change)
    assert against.same == sum(plan == current for plan in chosen.values())
    assert value(against.score.difference) == pytest.approx(np.mean(change))
    assert found.verdict.level == "looked up"
    assert sum(choice.queries for choice in found.choices) == 60
    strict(found)


def test_parts_add_up_to_the_whole(router: Router, grid: Records) -> None:
    found = replay(logs(grid), router, resamples=QUICK)
    for parts in (found.by_domain,):
        assert sum(part.queries for part in parts) == found.queries
        pairs = [p.comparison.score for p in parts if p.comparison and p.comparison.score]
        total = sum(value(p.router) * p.router.queries for p in pairs)
        whole = found.comparisons[0].score
        assert whole is not None
        assert total == pytest.approx(value(whole.router) * whole.router.queries)
    assert {part.name for part in found.by_domain} == {r.task for r in grid}


def test_plans_that_were_not_run_have_no_support_and_no_score(
    router: Router, grid: Records
) -> None:
    chosen = choices(router, grid)
    lost = set(sorted(chosen)[:10])
    holed = [r for r in grid if not (r.query_id in lost and r.plan == chosen[r.query_id])]
    found = replay(logs(holed), router, resamples=QUICK)
    pair = found.comparisons[0].score
    assert pair is not None
    by_hand = [r.score for r in holed if r.plan == chosen[r.query_id]]
    bounds = found.comparisons[0].score_bounds
    assert bounds is not None
    assert bounds.low == pytest.approx(sum(by_hand) / 60)  # type: ignore[arg-type]
    assert bounds.high == pytest.approx((sum(by_hand) + 10) / 60)  # type: ignore[arg-type]
    assert sum(choice.no_support for choice in found.choices) == 10
    assert sum(part.no_support for part in found.by_domain) == 10
    assert found.verdict.support_share == pytest.approx(50 / 60)
    assert pair.difference.queries + pair.left_out == 60
    assert "no support in your logs for 10 queries" in found.verdict.reasons[1]


def test_a_grid_that_never_ran_the_routers_plans_identifies_nothing(
    router: Router, grid: Records
) -> None:
    known = set(choices(router, grid).values())
    others = [r for r in grid if r.plan not in known]
    found = replay(logs(others), router, resamples=QUICK)
    assert found.verdict.level == "not identified"
    assert all(comparison.score is None for comparison in found.comparisons)
    assert found.verdict.probe is not None
    assert {choice.logged_runs for choice in found.choices} == {0}
    for case in (*found.savings, *found.harms):
        assert case.support.startswith("no support in your logs")
        assert case.predicted
    assert "no support in your logs" in shown(found)


def test_an_unknown_cost_is_left_out_and_never_zero(router: Router, grid: Records) -> None:
    current = grid[0].plan
    unpriced = set(sorted({r.query_id for r in grid})[:15])
    some = [
        replace(r, usage=replace(r.usage, cost_usd=None))
        if r.plan == current and r.query_id in unpriced
        else r
        for r in grid
    ]
    found = replay(logs(some), router, current_plan=current, resamples=QUICK)
    cost = found.comparisons[0].cost
    assert cost is not None
    assert cost.left_out == 15
    known = [r.usage.cost_usd for r in some if r.plan == current and r.usage.cost_usd is not None]
    assert value(cost.reference) == pytest.approx(np.mean(known))
    assert any("15 logged outcomes" in note and "no cost" in note for note in found.notes)
    free = [replace(r, usage=Usage()) for r in grid]
    with pytest.raises(EvaluationError, match="replay at cost weight 0"):
        replay(logs(free), router)
    blind = replay(
        logs(free), router, limits=Limits(cost_weight=0.0), current_plan=current, resamples=QUICK
    )
    assert blind.comparisons[0].cost is None
    assert blind.comparisons[0].saved is None
    assert blind.savings == ()
    assert "unknown amount" in shown(blind)


def test_the_plan_that_is_run_today_must_be_in_the_logs(
    router: Router, grid: Records, seen_once: Records
) -> None:
    near = replace(grid[0].plan, topology=grid[0].plan.topology + "x")
    with pytest.raises(EvaluationError, match=r"was never run.*did you mean"):
        replay(logs(grid), router, current_plan=near)
    with pytest.raises(EvaluationError, match="leave the current plan out"):
        replay(logs(seen_once), router, current_plan=grid[0].plan)


def test_harms_and_savings_are_real_where_they_were_looked_up(
    router: Router, grid: Records
) -> None:
    found = replay(logs(grid), router, current_plan=grid[0].plan, top=100, resamples=QUICK)
    run = {(r.query_id, r.plan): r for r in grid}
    against = found.comparisons[0]
    assert len(found.harms) == against.worse
    for case in found.harms:
        before = run[case.query_id, grid[0].plan]
        after = run[case.query_id, case.router_plan]
        assert case.harm == pytest.approx((before.score or 0) - (after.score or 0))
        assert not case.predicted
        assert case.found_cost_usd == after.usage.cost_usd
    saved = [case.saving_usd or 0 for case in found.savings]
    assert saved == sorted(saved, reverse=True)
    assert len({case.query_id for case in found.savings}) == len(found.savings)
    assert all(case.query_id in {r.query_id for r in grid} for case in found.savings)


def test_where_nothing_changes_it_says_so(router: Router, grid: Records) -> None:
    chosen = choices(router, grid)
    plan = next(iter(chosen.values()))
    same = [r for r in grid if chosen[r.query_id] == plan]
    found = replay(logs(same), router, current_plan=plan, resamples=QUICK)
    assert "nothing saved, and nothing broken" in " ".join(shown(found).split())
    assert found.disagreements == 0
    assert (found.savings, found.harms) == ((), ())


def test_a_grid_without_scores_is_refused(router: Router, grid: Records) -> None:
    with pytest.raises(EvaluationError, match="no run of these logs has a score"):
        replay(logs([replace(r, score=None) for r in grid]), router)


def test_support_counts_runs_of_the_plan_on_other_queries_alike(
    router: Router, grid: Records
) -> None:
    found = replay(logs(grid), router, current_plan=grid[0].plan, resamples=QUICK)
    texts = {r.query_id: r.query for r in grid}
    vectors = dict(zip(texts, router.encoder.encode(list(texts.values())), strict=True))
    for case in found.savings:
        alike = {
            name
            for name, vector in vectors.items()
            if name != case.query_id
            and vector @ vectors[case.query_id] >= router.state.evidence.similar
        }
        plan = case.router_plan
        assert case.similar_runs == sum(r.plan == plan and r.query_id in alike for r in grid)
        assert case.logged_runs == sum(r.plan == plan for r in grid)


# Cautions


def test_training_queries_are_told_loudly_and_fresh_ones_are_not(
    router: Router, grid_logs: Logs, grid: Records
) -> None:
    trained = replay(grid_logs, router, resamples=QUICK)
    assert any("100 of 100 queries are (nearly) in" in line for line in trained.cautions)
    assert "CAUTION" in shown(trained)
    assert "masrouter evaluate" in to_markdown(trained)
    assert replay(logs(grid), router, resamples=QUICK).cautions == ()


def test_names_that_match_nothing_are_told(router: Router, grid: Records) -> None:
    renamed = [
        replace(r, plan=Plan(r.plan.topology, tuple(Agent(a.role, f"{a.model}-v2") for a in
                                                    r.plan.agents)))
        for r in grid
    ]  # fmt: skip
    found = replay(logs(renamed), router, resamples=QUICK)
    assert any("none of the router's" in line for line in found.cautions)
    assert found.verdict.level == "not identified"


def test_refused_queries_are_counted_and_in_no_figure(router: Router, grid: Records) -> None:
    texts = sorted({(r.query_id, r.query) for r in grid})
    cheapest = []
    for _, text in texts:
        with pytest.raises(ConstraintError, match="raise max_cost_usd") as refused:
            router.route(text, max_cost_usd=1e-9)
        cheapest.append(float(str(refused.value).split("expected to cost ")[1].split(" ")[0]))
    cap = float(np.median(cheapest))
    found = replay(logs(grid), router, limits=Limits(max_cost_usd=cap), resamples=QUICK)
    routed = sum(choice.queries for choice in found.choices)
    assert 0 < routed < 60
    assert any(line.startswith(f"{60 - routed} of 60 queries are refused") for line in
               found.cautions)  # fmt: skip
    pair = found.comparisons[0].score
    assert pair is not None
    assert pair.difference.queries + pair.left_out == routed
    with pytest.raises(ConstraintError, match="raise max_cost_usd"):
        replay(logs(grid), router, limits=Limits(max_cost_usd=1e-9))
    with pytest.raises(RoutingError, match="unknown to this router"):
        replay(logs(grid), router, limits=Limits(models=("nobody",)))


def test_blank_queries_are_told_and_not_routed(router: Router, grid: Records) -> None:
    blank = {r.query_id for r in grid[:8]}
    found = replay(
        logs([replace(r, query="  ") if r.query_id in blank else r for r in grid]), router,
        resamples=QUICK,
    )  # fmt: skip
    assert any("have no text to route on" in line for line in found.cautions)
    assert sum(choice.queries for choice in found.choices) == 60 - len(blank)
    with pytest.raises(LogError, match="no query of the logs has a text"):
        replay(logs([replace(r, query=" ") for r in grid]), router)
