"""Replaying observational and randomised logs: bounds, and estimates that hold the truth."""

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

from masrouter.evaluation.off_policy.policy_value import estimate_policy
from masrouter.evaluation.off_policy.rounds import LoggedRounds
from masrouter.evaluation.replay import replay
from masrouter.evaluation.replay.types import Replay
from masrouter.router import Router
from masrouter_train.synthetic import SyntheticWorld

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
