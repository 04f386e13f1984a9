"""Replaying logs through a router: each kind of logs, with known truth."""

from __future__ import annotations

import io
import json
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from rich.console import Console

from masrouter.errors import ConstraintError, EvaluationError, LogError, RoutingError
from masrouter.evaluation.off_policy.policy_value import estimate_policy
from masrouter.evaluation.off_policy.rounds import LoggedRounds
from masrouter.evaluation.replay import Limits, replay
from masrouter.evaluation.replay.parts import NO_TIME, spans
from masrouter.evaluation.replay.report import print_replay, to_markdown
from masrouter.evaluation.replay.types import Measured, Replay
from masrouter.logs import Logs
from masrouter.reporting.replay_page import replay_page
from masrouter.router import Router
from masrouter.types import Agent, LogRecord, Plan, Usage
from masrouter_train.synthetic import SyntheticWorld

QUICK = 200
"""Bootstrap draws where intervals are not the point."""
Records = list[LogRecord]


@pytest.fixture(scope="module")
def grid(world: SyntheticWorld, some_plans: tuple[Plan, ...]) -> Records:
    """Queries that the router has not seen, each under every plan that it knows."""
    return list(world.grid_logs(60, 5, plans=some_plans))


@pytest.fixture(scope="module")
def seen_once(grid: Records) -> Records:
    """One run a query and no probabilities: what most people have."""
    rng = np.random.default_rng(0)
    by_query = runs_by_query(grid)
    return [by_query[q][rng.integers(len(by_query[q]))] for q in sorted(by_query)]


def runs_by_query(records: Sequence[LogRecord]) -> dict[str, Records]:
    found: dict[str, Records] = defaultdict(list)
    for record in records:
        found[record.query_id].append(record)
    return found


def logs(records: Sequence[LogRecord]) -> Logs:
    return Logs.from_records(records)


def choices(router: Router, records: Sequence[LogRecord]) -> dict[str, Plan]:
    """What serving would choose, by query id."""
    texts = {record.query_id: record.query for record in records}
    decisions = router.route_batch(list(texts.values()))
    return {name: decision.plan for name, decision in zip(texts, decisions, strict=True)}


def value(measured: Measured | None) -> float:
    assert measured is not None
    return measured.value


def shown(found: Replay) -> str:
    out = io.StringIO()
    print_replay(found, Console(file=out, width=100, highlight=False))
    return out.getvalue()


def strict(found: Replay) -> dict[str, object]:
    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    data = json.loads(found.to_json(), parse_constant=refuse)
    assert isinstance(data, dict)
    return data


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


# Observational


def test_observational_logs_give_no_estimate_for_the_router(
    router: Router, seen_once: Records
) -> None:
    found = replay(logs(seen_once), router, resamples=QUICK)
    assert found.kind == "observational"
    assert found.verdict.level == "not identified"
    assert found.comparisons == ()
    assert all(part.comparison is None for part in (*found.by_domain, *found.over_time))
    text = shown(found)
    assert "Not identified" in text
    assert "PREDICTED" in text
    assert "would have paid" not in text
    assert found.verdict.probe is not None
    assert "propensity" in text


def test_where_the_router_agrees_the_outcomes_are_the_logged_ones(
    router: Router, seen_once: Records
) -> None:
    found = replay(logs(seen_once), router, resamples=QUICK)
    chosen = choices(router, seen_once)
    same = [r for r in seen_once if r.plan == chosen[r.query_id]]
    other = [r for r in seen_once if r.plan != chosen[r.query_id]]
    agreement = found.agreement
    assert agreement is not None
    assert value(agreement.share) == pytest.approx(len(same) / len(seen_once))
    assert value(agreement.agreed.score) == pytest.approx(np.mean([r.score for r in same]))
    assert value(agreement.disagreed.cost) == pytest.approx(
        np.mean([r.usage.cost_usd for r in other])
    )
    assert value(found.logged.score) == pytest.approx(np.mean([r.score for r in seen_once]))
    assert found.disagreements == len(other)
    assert found.sensitivity is not None
    worst = found.sensitivity.worst_case
    assert worst.low == pytest.approx(sum(r.score or 0 for r in same) / len(seen_once))
    assert worst.high - worst.low == pytest.approx(len(other) / len(seen_once))


def test_the_worst_case_holds_the_truth_of_a_confounded_world(
    world: SyntheticWorld, router: Router
) -> None:
    found = replay(world.observational_logs(500, 3), router, resamples=QUICK)
    truth, _ = true_means(world, router, 500, 3)
    assert found.sensitivity is not None
    assert truth in found.sensitivity.worst_case_with_chance
    ranges = [(g.gamma, g.score.high - g.score.low) for g in found.sensitivity.gammas]
    widths = [width for _, width in sorted(ranges)]
    assert widths == sorted(widths)


def test_repeated_traffic_weighs_by_its_runs_and_queries_are_what_is_drawn(
    router: Router, seen_once: Records
) -> None:
    busy = seen_once[0]
    often = [replace(busy, run_id=f"again-{i}") for i in range(140)]
    found = replay(logs([*seen_once, *often]), router, resamples=QUICK)
    scores = [r.score for r in (*seen_once, *often)]
    assert found.logged.score is not None
    assert found.logged.score.value == pytest.approx(np.mean(scores))
    assert found.logged.score.queries == 60
    ends = found.logged.score.interval
    assert ends is not None
    # 200 independent runs would have an interval of less than half this width.
    assert ends.high - ends.low > 2 * 3.92 * np.std(scores) / np.sqrt(len(scores))


# Randomised


def true_means(
    world: SyntheticWorld, router: Router, queries: int, seed: int
) -> tuple[float, float]:
    """What the router's choices on these queries are expected to score and to cost, exactly."""
    drawn = world.sample_queries(queries, seed)
    chosen = world.positions([d.plan for d in router.route_batch(list(drawn.texts))])
    at = np.arange(queries), chosen
    return float(world.expected_score(drawn)[at].mean()), float(
        world.expected_cost(drawn)[at].mean()
    )


@pytest.fixture(scope="module")
def randomised(world: SyntheticWorld, router: Router) -> Replay:
    return replay(world.randomised_logs(1200, 9), router, resamples=QUICK)


def test_the_intervals_of_a_randomised_replay_cover_the_truth(
    world: SyntheticWorld, router: Router, randomised: Replay
) -> None:
    score, cost = true_means(world, router, 1200, 9)
    assert randomised.kind == "randomised"
    assert randomised.verdict.level in ("identified", "weak")
    [against] = randomised.comparisons
    for pair, truth in ((against.score, score), (against.cost, cost)):
        assert pair is not None
        assert pair.router.interval is not None
        assert truth in pair.router.interval
        change = value(pair.router) - value(pair.reference)
        assert value(pair.difference) == pytest.approx(change)
    assert against.saved is not None
    assert against.saved.interval is None  # a ratio: that of the difference in cost is there
    strict(randomised)
    text = " ".join(shown(randomised).split())
    assert "instead of the logged policy the router would have paid" in text


def test_what_is_estimated_is_the_routers_own_choices(
    world: SyntheticWorld, router: Router, randomised: Replay
) -> None:
    records = world.randomised_logs(1200, 9)
    rounds = LoggedRounds.from_logs(records)
    chosen = choices(router, list(records))
    by_hand = estimate_policy(
        rounds,
        [chosen[name] for name in rounds.query_ids],
        embeddings=router.encoder.encode(rounds.texts),
        cost_weight=randomised.cost_weight,
        resamples=QUICK,
    )
    pair = randomised.comparisons[0].utility
    assert pair is not None
    assert by_hand.best is not None
    assert value(pair.router) == pytest.approx(by_hand.estimates[by_hand.best].utility.value)
    agreed = sum(record.plan == chosen[record.query_id] for record in records)
    assert randomised.agreement is not None
    assert value(randomised.agreement.share) == pytest.approx(agreed / 1200)


def test_each_domain_of_randomised_logs_has_a_verdict_of_its_own(randomised: Replay) -> None:
    assert len(randomised.by_domain) > 1
    assert sum(part.runs for part in randomised.by_domain) == 1200
    for part in randomised.by_domain:
        assert (part.comparison is None) == (part.level == "not identified")
        assert part.why


def test_randomised_logs_without_the_routers_plans_identify_nothing(
    world: SyntheticWorld, router: Router
) -> None:
    known = set(router.plans)
    others = [r for r in world.randomised_logs(300, 9) if r.plan not in known]
    found = replay(logs(others), router, resamples=QUICK)
    assert found.kind == "randomised"
    assert found.verdict.level == "not identified"
    assert found.comparisons == ()
    assert found.verdict.probe is not None
    assert {choice.logged_runs for choice in found.choices} == {0}
    text = shown(found)
    assert "Not identified" in text
    assert "would have paid" not in text


def test_a_span_with_too_few_rounds_says_so_instead_of_a_number(
    world: SyntheticWorld, router: Router
) -> None:
    records = list(world.randomised_logs(300, 9))
    alone = replace(records[0], timestamp="2025-03-01T00:00:00Z")
    rest = [replace(r, timestamp="2025-01-01T00:00:00Z") for r in records[1:]]
    found = replay(logs([alone, *rest]), router, resamples=QUICK)
    last = found.over_time[-1]
    assert (last.runs, last.level, last.comparison) == (1, "not identified", None)
    assert f"{last.name}: not identified" in " ".join(shown(found).split())


# Time and domains


def stamped(records: Records, step: timedelta, zone: str = "+00:00") -> Records:
    start = datetime(2025, 1, 1, tzinfo=UTC)
    order = {name: i for i, name in enumerate(sorted({r.query_id for r in records}))}
    return [
        replace(
            r, timestamp=(start + order[r.query_id] * step).strftime("%Y-%m-%dT%H:%M:%S") + zone
        )
        for r in records
    ]


@pytest.mark.parametrize(
    ("step", "what", "first"),
    [
        (timedelta(hours=6), "days", "2025-01-01"),
        (timedelta(days=2), "weeks (from Monday)", "2024-12-30"),
        (timedelta(days=9), "months", "2025-01"),
        (timedelta(days=60), "years", "2025"),
    ],
)
def test_spans_follow_from_the_timestamps(
    router: Router, seen_once: Records, step: timedelta, what: str, first: str
) -> None:
    found = replay(logs(stamped(seen_once, step)), router, resamples=QUICK)
    assert found.times.startswith(what)
    assert found.over_time[0].name == first
    assert [part.name for part in found.over_time] == sorted(p.name for p in found.over_time)
    assert sum(part.runs for part in found.over_time) == 60


def test_a_time_of_another_zone_is_told_in_utc(router: Router, seen_once: Records) -> None:
    found = replay(logs(stamped(seen_once, timedelta(0), "+14:00")), router, resamples=QUICK)
    assert [part.name for part in found.over_time] == ["2024-12-31"]


def test_logs_without_times_say_so_and_some_without_stand_apart(
    router: Router, seen_once: Records
) -> None:
    found = replay(logs(seen_once), router, resamples=QUICK)
    assert found.over_time == ()
    assert "no timestamps" in shown(found)
    half = stamped(seen_once[:30], timedelta(hours=6)) + seen_once[30:]
    parts = replay(logs(half), router, resamples=QUICK).over_time
    assert parts[-1].name == NO_TIME
    assert parts[-1].runs == 30


def test_no_moment_is_in_two_spans() -> None:
    days = np.datetime64("2025-01-01", "s") + np.arange(0, 4000, 10).astype("timedelta64[D]")
    for end in (2, 15, 90, 400):
        cut = spans(days[:end])
        assert (cut.label >= 0).all()
        assert len(set(cut.label.tolist())) == len(cut.names)
        assert (np.diff(cut.label) >= 0).all()


def test_one_name_for_all_gives_way_to_predicted_domains(
    router: Router, seen_once: Records
) -> None:
    nameless = [replace(r, dataset="traffic", task=None) for r in seen_once]
    found = replay(logs(nameless), router, resamples=QUICK)
    assert found.domains.startswith("predicted by the router")
    assert {p.name for p in found.by_domain} <= set(router.state.critic.query_features.domains)
    assert sum(part.runs for part in found.by_domain) == 60


def test_too_few_queries_have_no_interval(router: Router, grid: Records) -> None:
    few = set(sorted({r.query_id for r in grid})[:9])
    found = replay(logs([r for r in grid if r.query_id in few]), router, resamples=QUICK)
    pair = found.comparisons[-1].score
    assert pair is not None
    assert pair.difference.interval is None
    assert pair.router.interval is None
    strict(found)


# How it looks

Show = Callable[[Replay], str]
HOSTILE = "<script>alert(1)</script> [bold red]x[/] **y** | z \x1b[31m\u202e `c`"


@pytest.fixture(scope="module")
def hostile(router: Router, grid: Records) -> Replay:
    """Markup of every sort wherever logs have text."""
    records = [
        replace(
            r, query=f"{HOSTILE} {r.query}", query_id=f"<b>{r.query_id}", dataset=HOSTILE,
            task=f"<i>{r.task}",
        )
        for r in grid
    ]  # fmt: skip
    return replay(logs(stamped(records, timedelta(days=1))), router, resamples=QUICK)


def test_nothing_from_the_logs_is_markup_on_the_page(hostile: Replay) -> None:
    page = replay_page(hostile)
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)" in page
    assert "<b>synthetic" not in page
    assert "<i>" not in page
    assert "http" not in page.split("</style>")[1].replace("http://www.w3.org/", "")
    assert page.count("<svg") == 2


def test_nothing_from_the_logs_is_markup_in_markdown_or_the_terminal(hostile: Replay) -> None:
    markdown, text = to_markdown(hostile), shown(hostile)
    assert "<script" not in markdown
    assert "\\*\\*y\\*\\*" in markdown
    assert "[bold red]x[/]" in text.replace("\n", " ")
    for out in (markdown, text):
        assert "\x1b[31m" not in out
        assert "\u202e" not in out


@pytest.mark.parametrize("show", [shown, to_markdown, replay_page])
@pytest.mark.parametrize("kind", ["grid", "observational"])
def test_every_view_tells_the_verdict_the_figures_and_what_to_read(
    router: Router, grid: Records, seen_once: Records, kind: str, show: Show
) -> None:
    found = replay(logs(grid if kind == "grid" else seen_once), router, resamples=QUICK)
    text = " ".join(show(found).split())
    assert found.verdict.level in text
    for title in ("By domain", "Over time", "Plans that the router takes", "Biggest savings"):
        assert title in text
    assert found.savings[0].query_id in text
    assert "synthetic data" in text


def test_the_terminal_report_fits_into_100_columns(hostile: Replay) -> None:
    assert max(map(len, shown(hostile).splitlines())) <= 100


def test_a_page_without_matplotlib_says_what_to_install(
    router: Router, seen_once: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("masrouter.reporting.replay_page.find_spec", lambda name: None)
    page = replay_page(replay(logs(seen_once), router, resamples=QUICK))
    assert "masrouter[report]" in page
    assert "<svg" not in page


def test_progress_is_told_and_ends(router: Router, grid: Records) -> None:
    told: list[tuple[int, int, str]] = []
    replay(logs(grid), router, resamples=QUICK, progress=lambda *step: told.append(step))
    last = {what: (done, total) for done, total, what in told}
    assert last["routing"] == (60, 60)
    assert all(done == total for done, total in last.values())


@pytest.mark.parametrize("wrong", [{"top": -1}, {"resamples": 5}])
def test_what_cannot_be_meant_is_refused(
    router: Router, grid: Records, wrong: dict[str, int]
) -> None:
    with pytest.raises(EvaluationError, match=next(iter(wrong))):
        replay(logs(grid), router, **wrong)  # type: ignore[arg-type]


def test_empty_logs_are_refused(router: Router) -> None:
    with pytest.raises(LogError, match="no valid rows"):
        replay(logs([]), router)
