"""Repeated runs split in two, and operating points chosen on training queries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from masrouter.errors import EvaluationError
from masrouter.evaluation.baselines import (
    BEST_FIXED,
    ORACLE,
    BestFixedPlan,
    CheapestPlan,
    MessageLength,
)
from masrouter.evaluation.crossval import cross_validate, split_queries
from masrouter.evaluation.learners import Learner
from masrouter.evaluation.operating_point import (
    REFERENCE,
    Coin,
    Curve,
    Paired,
    Point,
    Realised,
    cheapest_at_accuracy,
    coin_at_equal_accuracy,
    coin_at_equal_cost,
    compare,
    fitted_cost,
    nested_cross_validate,
)
from masrouter.evaluation.split_runs import split_runs
from masrouter.logs import Logs
from masrouter.outcomes import Outcomes
from masrouter.types import Agent, LogRecord, Plan, Usage

PLANS = tuple(Plan("io", (Agent("solver", f"m{i}"),)) for i in range(4))


def record(query: int, plan: int, run: int, score: float, cost: float | None = 0.01) -> LogRecord:
    return LogRecord(
        run_id=f"{query}-{plan}-{run}",
        query_id=f"q{query:04d}",
        query=f"question {query}",
        dataset="made up",
        plan=PLANS[plan],
        score=score,
        score_source="tests",
        usage=Usage(cost_usd=cost),
        seed=run,
        policy="grid",
    )


def lucky(queries: int = 120, runs: int = 4, seed: int = 0) -> Logs:
    """Four plans that all succeed half of the time, whatever the query: nothing to choose."""
    rng = np.random.default_rng(seed)
    return Logs.from_records(
        record(q, p, r, float(rng.integers(0, 2)))
        for q in range(queries)
        for p in range(4)
        for r in range(runs)
    )


def crossing(queries: int = 120, runs: int = 4) -> Logs:
    """As `lucky`, with a plan in each query that always succeeds and three that always fail."""
    return Logs.from_records(
        record(q, p, r, float(p == q % 4))
        for q in range(queries)
        for p in range(4)
        for r in range(runs)
    )


@settings(max_examples=25, deadline=None)
@given(
    runs=st.lists(st.lists(st.integers(0, 5), min_size=4, max_size=4), min_size=1, max_size=6),
    seed=st.integers(0, 2**31),
)
def test_every_run_is_in_exactly_one_half(runs: list[list[int]], seed: int) -> None:
    rows = [
        record(q, p, r, 1.0)
        for q, counts in enumerate(runs)
        for p, count in enumerate(counts)
        for r in range(count)
    ]
    if max(max(counts) for counts in runs) < 2:
        return
    logs = Logs.from_records(rows)
    try:
        halves = split_runs(logs, seed=seed)
    except EvaluationError:
        return  # every cell has its runs in one half: nothing can be chosen here and scored there
    assert halves.in_choose.shape == (len(rows),)
    logged = np.zeros((len(runs), 4))
    for q, counts in enumerate(runs):
        logged[q] = counts
    for query, plan, first, second in zip(
        halves.choose.query, halves.choose.plan, halves.choose.runs, halves.score.runs, strict=True
    ):
        q = int(halves.choose.query_ids[query][1:])
        p = PLANS.index(halves.choose.plans[plan])
        assert first >= 1
        assert second >= 1
        assert first + second == logged[q, p]
    kept = len(halves.choose.score)
    assert kept == int((logged > 0).sum()) or any("left out" in note for note in halves.notes)


def test_halves_share_queries_plans_and_cells_and_differ_by_one_run_at_most() -> None:
    halves = split_runs(lucky(runs=5), seed=3)
    choose, score = halves.choose, halves.score
    assert choose.query_ids == score.query_ids
    assert choose.plans == score.plans == PLANS
    assert np.array_equal(choose.query, score.query)
    assert np.array_equal(choose.plan, score.plan)
    assert set((choose.runs - score.runs).tolist()) == {-1, 1}
    assert halves.notes == ()


def test_means_of_the_halves_are_means_of_their_own_rows() -> None:
    logs = lucky(queries=20)
    halves = split_runs(logs, seed=1)
    table = logs.to_pandas()
    for half, rows in ((halves.choose, halves.in_choose), (halves.score, ~halves.in_choose)):
        own = Outcomes.from_logs(logs.select(rows))
        assert np.array_equal(half.score, own.score)
        assert half.runs.sum() == rows.sum()
    assert halves.in_choose.sum() * 2 == len(table)


def test_the_split_depends_on_the_seed_and_not_on_the_order_of_rows() -> None:
    logs = lucky(queries=30)
    backwards = Logs.from_records(reversed(list(logs)))
    same = split_runs(logs, seed=5)
    assert np.array_equal(same.in_choose, split_runs(logs, seed=5).in_choose)
    assert np.array_equal(same.in_choose, split_runs(backwards, seed=5).in_choose[::-1])
    assert not np.array_equal(same.in_choose, split_runs(logs, seed=6).in_choose)


def test_runs_of_one_number_stay_together_under_every_plan() -> None:
    logs = lucky(queries=40, runs=5)
    halves = split_runs(logs, seed=2)
    where: dict[tuple[str, int | None], bool] = {}
    for row, mine in zip(logs, halves.in_choose.tolist(), strict=True):
        assert where.setdefault((row.query_id, row.seed), mine) == mine


@pytest.mark.parametrize("number", [None, 7])
def test_seeds_that_do_not_tell_runs_apart_are_replaced_by_the_order_of_runs(
    number: int | None,
) -> None:
    rows = [replace(row, seed=number) for row in lucky(queries=10)]
    halves = split_runs(Logs.from_records(rows), seed=0)
    assert set(halves.choose.runs.tolist()) == {2}
    assert set(halves.score.runs.tolist()) == {2}


def test_choosing_and_scoring_on_the_same_runs_is_optimistic_and_the_split_is_not() -> None:
    logs = lucky(queries=300)
    halves = split_runs(logs, seed=0)
    embeddings = np.zeros((300, 2), np.float32)
    same_runs = cross_validate(halves.choose, embeddings, [BestFixedPlan()], seeds=(0,))
    other_runs = halves.score_choices(same_runs)
    assert same_runs.score(ORACLE).mean(axis=2)[0, 0] > 0.8  # luck: every plan is a coin
    assert other_runs.score(ORACLE).mean(axis=2)[0, 0] == pytest.approx(0.5, abs=0.06)
    assert "scored on the other" in other_runs.protocol


def test_what_repeats_survives_the_split() -> None:
    halves = split_runs(crossing(), seed=0)
    cv = cross_validate(halves.choose, np.zeros((120, 2), np.float32), [BestFixedPlan()])
    ceiling = halves.score_choices(cv).score(ORACLE)
    assert (ceiling == 1.0).all()


def test_choices_of_another_split_are_refused() -> None:
    logs = lucky()
    one, other = split_runs(logs, seed=0), split_runs(logs, seed=1)
    cv = cross_validate(one.choose, np.zeros((120, 2), np.float32), [BestFixedPlan()], seeds=(0,))
    with pytest.raises(EvaluationError, match="not made on the half to choose from"):
        other.score_choices(cv)


def test_plans_with_too_few_runs_are_left_out_and_named() -> None:
    rows = [row for row in lucky(queries=20) if row.plan != PLANS[1] or row.seed == 0]
    halves = split_runs(Logs.from_records(rows), seed=0, min_runs=4)
    assert PLANS[1] not in halves.choose.plans
    assert any("20 cells" in note for note in halves.notes)
    assert any("left out whole" in note and "m1" in note for note in halves.notes)


def test_logs_without_repeated_runs_cannot_be_split() -> None:
    with pytest.raises(EvaluationError, match="no query was run twice"):
        split_runs(lucky(queries=5, runs=1))
    with pytest.raises(EvaluationError, match="min_runs: expected at least 2"):
        split_runs(lucky(queries=5), min_runs=1)


def test_an_operating_point_at_equal_accuracy_is_the_cheapest_that_is_not_below() -> None:
    curve = Curve(np.array([0.9, 0.85, 0.8, 0.3]), np.array([9.0, 4.0, 2.0, 1.0]))
    assert cheapest_at_accuracy(curve, 0.8) == 2
    assert cheapest_at_accuracy(curve, 0.95) == 0  # none is: the best there is


@pytest.mark.parametrize(
    ("reference", "accuracy", "cost"),
    [
        # Between the second and the third corner; the reference is below the hull.
        (Point(0.7, 6.0), Coin(2, 1, 0.5), Coin(1, 0, 0.6)),
        # Beyond the curve's best: only the reference itself has its accuracy.
        (Point(0.95, 12.0), Coin(0, REFERENCE, 0.0), Coin(0, REFERENCE, 0.0)),
        # Worse than the cheapest point: that one is cheaper and better.
        (Point(0.2, 3.0), Coin(3, 3, 1.0), Coin(2, 1, 0.5)),
        # A corner itself.
        (Point(0.8, 4.0), Coin(2, 1, 0.0), Coin(2, 1, 0.0)),
        # Better and cheaper than all: the reference alone.
        (Point(0.95, 0.5), Coin(REFERENCE, REFERENCE, 1.0), Coin(REFERENCE, REFERENCE, 1.0)),
        # Dearer than every point and no better: the dearest corner, in full.
        (Point(0.9, 20.0), Coin(1, 0, 0.0), Coin(0, 0, 1.0)),
    ],
)
def test_coins_have_the_accuracy_or_the_cost_of_the_reference_on_the_hull(
    reference: Point, accuracy: Coin, cost: Coin
) -> None:
    curve = Curve(np.array([0.9, 0.8, 0.6, 0.3]), np.array([9.0, 4.0, 2.0, 1.0]))
    for coin, wanted in (
        (coin_at_equal_accuracy(curve, reference), accuracy),
        (coin_at_equal_cost(curve, reference), cost),
    ):
        assert (coin.first, coin.second) == (wanted.first, wanted.second)
        assert coin.share == pytest.approx(wanted.share)


@settings(max_examples=100, deadline=None)
@given(
    points=st.lists(
        st.tuples(st.floats(0, 1), st.floats(0.001, 10)), min_size=1, max_size=8, unique=True
    ),
    at=st.tuples(st.floats(0, 1), st.floats(0.001, 10)),
)
def test_on_the_training_means_a_coin_never_loses_against_the_reference(
    points: list[tuple[float, float]], at: tuple[float, float]
) -> None:
    score, cost = (np.array(values) for values in zip(*points, strict=True))
    reference = Point(*at)
    for coin in (
        coin_at_equal_accuracy(Curve(score, cost), reference),
        coin_at_equal_cost(Curve(score, cost), reference),
    ):
        assert 0.0 <= coin.share <= 1.0
        mean = [
            coin.share * np.append(values, own)[coin.first]
            + (1.0 - coin.share) * np.append(values, own)[coin.second]
            for values, own in ((score, reference.score), (cost, reference.cost))
        ]
        assert mean[0] >= reference.score - 1e-6
        assert mean[1] <= reference.cost + 1e-6


def by_length(queries: int = 160) -> tuple[Outcomes, np.ndarray]:
    """Long texts need the dear plan (m1), short ones do not: length tells all there is to know."""
    rows = []
    for q in range(queries):
        hard = q % 2 == 0
        for p, cost in ((0, 0.01), (1, 0.1)):
            right = (p == 1 or not hard) and q % 10 < 8  # a fifth is beyond both
            row = record(q, p, 0, float(right), cost)
            rows.append(replace(row, query=f"question {q:03d}" + " long" * 20 * hard))
    outcomes = Outcomes.from_logs(Logs.from_records(rows))
    return outcomes, np.zeros((queries, 2), np.float32)


def test_nested_choice_of_a_cost_weight_saves_what_there_is_to_save() -> None:
    outcomes, x = by_length()
    learners: list[Learner] = [BestFixedPlan(), MessageLength(), CheapestPlan()]
    weights = (0.0, 1.0, 5.0, 1000.0)
    nested = nested_cross_validate(outcomes, x, learners, cost_weights=weights, inner_folds=3)
    reference = nested.at(BEST_FIXED, np.zeros(5, np.int64))
    chosen = []
    for fold in range(5):
        fixed, curve = nested.curve(BEST_FIXED, fold), nested.curve("message length", fold)
        chosen.append(cheapest_at_accuracy(curve, fixed.score[0]))
    result = compare(
        Paired(outcomes.query_ids, nested.at("message length", np.array(chosen)), reference)
    )
    assert result.saved_interval is not None
    assert 0.0 in result.score_interval
    assert result.cost_saved == pytest.approx(0.45, abs=0.05)  # half the queries at a tenth
    assert 0.0 < result.saved_interval.low < result.saved_interval.high


def test_a_coin_gives_every_query_its_share_of_both_points() -> None:
    outcomes, x = by_length(40)
    nested = nested_cross_validate(outcomes, x, [BestFixedPlan()], cost_weights=(0.0, 1000.0))
    reference = Realised(np.full(40, 0.5), np.full(40, 0.02))
    dear, cheap = (nested.at(BEST_FIXED, np.full(5, i)) for i in (0, 1))
    mixed = nested.tossed(BEST_FIXED, [Coin(0, 1, 0.25)] * 5, reference)
    assert mixed.cost == pytest.approx(0.25 * dear.cost + 0.75 * cheap.cost)
    assert mixed.score == pytest.approx(0.25 * dear.score + 0.75 * cheap.score)
    rows = np.array([3, 7, 8])
    part = Realised(reference.score[rows], reference.cost[rows])
    some = nested.tossed(BEST_FIXED, [Coin(REFERENCE, 0, 0.5)] * 5, part, rows)
    assert some.cost == pytest.approx([(0.02 + 0.1) / 2] * 3)


def test_the_fitted_cost_is_that_of_the_plan_that_was_taken() -> None:
    outcomes, x = by_length(40)
    assert fitted_cost(outcomes, x, BestFixedPlan()) == pytest.approx(0.1)
    assert fitted_cost(outcomes, x, CheapestPlan()) == pytest.approx(0.01)


def test_inner_cross_validations_never_hold_a_query_of_their_fold() -> None:
    outcomes, x = by_length(40)
    nested = nested_cross_validate(outcomes, x, [BestFixedPlan()], cost_weights=(0.0, 1.0), folds=4)
    for fold, cv in enumerate(nested.inner):
        held_out = {outcomes.query_ids[i] for i in np.flatnonzero(nested.fold == fold)}
        assert held_out.isdisjoint(cv.outcomes.query_ids)
        assert len(held_out) + cv.outcomes.n_queries == 40


def test_a_query_id_that_is_met_twice_is_held_out_once() -> None:
    outcomes, x = by_length(40)
    twice = replace(outcomes, query_ids=tuple(f"q{i // 2}" for i in range(40)))
    nested = nested_cross_validate(twice, x, [BestFixedPlan()], cost_weights=(0.0,))
    assert np.array_equal(nested.fold, split_queries(twice.query_ids, 5, 0))
    assert (nested.fold[::2] == nested.fold[1::2]).all()


def test_the_curve_of_some_rows_is_the_mean_over_these_training_queries() -> None:
    outcomes, x = by_length(40)
    nested = nested_cross_validate(outcomes, x, [BestFixedPlan()], cost_weights=(0.0, 1000.0))
    rows = np.arange(0, 40, 2)  # the hard ones
    train = np.flatnonzero(nested.fold != 0)
    own = nested.inner[0].cost(BEST_FIXED)[0][:, np.isin(train, rows)]
    assert np.array_equal(nested.curve(BEST_FIXED, 0, rows).cost, own.mean(axis=1))
    assert nested.curve(BEST_FIXED, 0, rows).cost == pytest.approx([0.1, 0.01])


def paired(ids: Sequence[str], gain: float, cost: float, reference_cost: float) -> Paired:
    n = len(ids)
    reference = Realised(np.full(n, 0.5), np.full(n, reference_cost))
    return Paired(tuple(ids), Realised(np.full(n, 0.5 + gain), np.full(n, cost)), reference)


def test_parts_of_a_comparison_weigh_the_same_whatever_their_size() -> None:
    small = paired([f"a{i}" for i in range(30)], 0.2, 0.05, 0.1)
    large = paired([f"b{i}" for i in range(900)], 0.0, 0.1, 0.1)
    result = compare(small, large, resamples=200)
    assert result.score_difference == pytest.approx(0.1)
    assert result.cost_saved == pytest.approx(0.25)
    assert result.queries == 930
    assert result.score_interval.low == pytest.approx(0.1)


def test_the_interval_of_cost_saved_covers_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(200):
        cost = rng.lognormal(0.0, 0.5, 80)
        reference = rng.lognormal(np.log(2.0), 0.5, 80)
        scores = np.full(80, 0.5)
        part = Paired(
            tuple(f"q{i}" for i in range(80)), Realised(scores, cost), Realised(scores, reference)
        )
        interval = compare(part, resamples=200).saved_interval
        assert interval is not None
        covered += 0.5 in interval
    assert 0.88 <= covered / 200 <= 0.99


def test_unknown_costs_leave_the_saving_unknown() -> None:
    part = paired([f"q{i}" for i in range(20)], 0.1, 0.05, 0.1)
    cost = part.chosen.cost.copy()
    cost[3] = np.nan
    result = compare(replace(part, chosen=replace(part.chosen, cost=cost)))
    assert result.cost is None
    assert result.cost_saved is None
    assert result.saved_interval is None
    assert result.score_difference == pytest.approx(0.1)


def test_a_comparison_refuses_unknown_scores_and_no_parts() -> None:
    part = paired(["a", "b"], np.nan, 0.1, 0.1)
    with pytest.raises(EvaluationError, match="a score is unknown"):
        compare(part)
    with pytest.raises(EvaluationError, match="at least one part"):
        compare()
