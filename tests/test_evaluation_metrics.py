"""Metrics: known answers, invariances and bounds."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from masrouter.errors import EvaluationError
from masrouter.evaluation import metrics
from masrouter.evaluation.metrics import Anchors

GAP = Anchors(weak_cost=1.0, weak_score=0.4, strong_cost=3.0, strong_score=0.8)

points = st.lists(
    st.tuples(
        st.floats(0, 10, allow_subnormal=False).map(lambda x: round(x, 6)),
        st.floats(0, 1, allow_subnormal=False).map(lambda x: round(x, 6)),
    ),
    min_size=1,
    max_size=12,
)


def test_utility_pays_for_cost_and_ignores_an_unknown_one_at_weight_0() -> None:
    score, cost = np.array([1.0, 0.5]), np.array([0.1, np.nan])
    np.testing.assert_allclose(metrics.utility(score, cost, 2.0), [0.8, np.nan])
    np.testing.assert_array_equal(metrics.utility(score, cost, 0.0), score)


def test_the_hull_drops_what_a_coin_between_others_beats() -> None:
    curve = metrics.hull(np.array([1.0, 2.0, 3.0, 4.0]), np.array([0.2, 0.25, 0.6, 0.5]))
    np.testing.assert_allclose(curve.cost, [1.0, 3.0])
    np.testing.assert_allclose(curve.score, [0.2, 0.6])
    assert curve.score_at(2.0) == pytest.approx(0.4)
    assert curve.score_at(9.0) == pytest.approx(0.6)
    assert np.isnan(curve.score_at(0.5))
    assert curve.cost_of(0.4) == pytest.approx(2.0)
    assert curve.cost_of(0.61) is None


@given(points)
@settings(max_examples=200, deadline=None)
def test_the_hull_is_rising_concave_and_above_every_point(raw: list[tuple[float, float]]) -> None:
    cost, score = np.array(raw).T
    curve = metrics.hull(cost, score)
    assert (np.diff(curve.cost) > 0).all()
    assert (np.diff(curve.score) > 0).all()
    slopes = np.diff(curve.score) / np.diff(curve.cost)
    assert (np.diff(slopes) <= 1e-9 * np.abs(slopes[:-1])).all()
    for x, y in raw:
        assert curve.score_at(x) >= y - 1e-9
    again = metrics.hull(cost[::-1], score[::-1])
    np.testing.assert_array_equal(again.cost, curve.cost)


@given(points)
@settings(max_examples=200, deadline=None)
def test_aiq_lies_between_0_and_the_best_score(raw: list[tuple[float, float]]) -> None:
    cost, score = np.array(raw).T
    value = metrics.aiq(cost, score, 0.5, 4.0)
    assert value is not None
    assert -1e-12 <= value <= score.max() + 1e-12


def test_aiq_of_known_curves() -> None:
    # From (0, 0) straight to (2, 1), then flat: mean over [1, 3] is (0.75 + 1) / 2.
    assert metrics.aiq(np.array([2.0]), np.array([1.0]), 1.0, 3.0) == pytest.approx(0.875)
    assert metrics.aiq(np.array([0.0]), np.array([0.7]), 0.0, 5.0) == pytest.approx(0.7)
    assert metrics.aiq(np.array([1.0]), np.array([0.7]), 2.0, 2.0) is None


def test_gap_metrics_of_a_coin_between_weak_and_strong() -> None:
    cost, score = np.array([3.0]), np.array([0.8])  # the strong plan alone, mixed with the weak
    assert metrics.pgr(0.6, GAP) == pytest.approx(0.5)
    assert metrics.apgr(cost, score, GAP) == pytest.approx(0.5)
    assert metrics.cpt(cost, score, GAP, 0.5) == pytest.approx(0.5)
    assert metrics.cpt(cost, score, GAP, 0.8) == pytest.approx(0.8)
    assert metrics.cost_saved(cost, score, GAP) == pytest.approx(0.0)
    assert metrics.accuracy_gained(cost, score, GAP) == pytest.approx(0.0)


def test_gap_metrics_of_a_router_that_is_as_good_for_less() -> None:
    cost, score = np.array([2.0, 3.0]), np.array([0.8, 0.9])
    assert metrics.apgr(cost, score, GAP) == pytest.approx(0.5 * 0.5 + 0.5 * 1.125)
    assert metrics.cpt(cost, score, GAP, 0.5) == pytest.approx(0.25)
    assert metrics.cost_saved(cost, score, GAP) == pytest.approx(1 / 3)
    assert metrics.accuracy_gained(cost, score, GAP) == pytest.approx(0.1)


def test_gap_metrics_are_undefined_without_a_gap_or_out_of_reach() -> None:
    flat = Anchors(weak_cost=1.0, weak_score=0.8, strong_cost=1.0, strong_score=0.8)
    cost, score = np.array([2.0]), np.array([0.5])
    assert metrics.pgr(0.5, flat) is None
    assert metrics.apgr(cost, score, flat) is None
    assert metrics.cpt(cost, score, flat, 0.5) is None
    assert metrics.cpt(cost, score, GAP, 0.8) is None
    assert metrics.cost_saved(cost, score, GAP) is None
    assert metrics.accuracy_gained(np.array([4.0]), np.array([0.9]), GAP) is None


@given(points, st.floats(0.01, 100))
@settings(max_examples=100, deadline=None)
def test_gap_metrics_do_not_depend_on_the_currency(
    raw: list[tuple[float, float]], rate: float
) -> None:
    cost, score = np.array(raw).T
    other = Anchors(rate * GAP.weak_cost, GAP.weak_score, rate * GAP.strong_cost, GAP.strong_score)
    assert metrics.apgr(rate * cost, score, other) == pytest.approx(metrics.apgr(cost, score, GAP))


def test_oracle_gap_share() -> None:
    assert metrics.oracle_gap_share(0.6, 0.5, 0.9) == pytest.approx(0.25)
    assert metrics.oracle_gap_share(0.5, 0.5, 0.5) is None


def test_calibration_of_a_known_forecast() -> None:
    expected = np.array([0.1, 0.1, 0.9, 0.9])
    outcome = np.array([0.0, 0.0, 1.0, 0.0])
    assert metrics.calibration_error(expected, outcome, bins=2) == pytest.approx(0.25)
    assert metrics.brier(expected, outcome) == pytest.approx((0.01 + 0.01 + 0.01 + 0.81) / 4)
    assert metrics.calibration_error(outcome, outcome) == 0.0


def test_calibration_error_ignores_the_order_of_queries() -> None:
    rng = np.random.default_rng(0)
    expected = rng.integers(0, 5, 200) / 5
    outcome = rng.random(200)
    order = rng.permutation(200)
    assert metrics.calibration_error(expected, outcome) == pytest.approx(
        metrics.calibration_error(expected[order], outcome[order])
    )


def test_calibration_error_is_small_for_true_probabilities_and_large_for_wrong_ones() -> None:
    rng = np.random.default_rng(0)
    p = rng.random(20_000)
    outcome = (rng.random(20_000) < p).astype(np.float64)
    assert metrics.calibration_error(p, outcome) < 0.02
    assert metrics.calibration_error(1 - p, outcome) > 0.4


@pytest.mark.parametrize(
    ("expected", "message"),
    [(np.zeros(3), "two \\(n,\\) arrays"), (np.array([np.nan, 0.0]), "finite")],
)
def test_calibration_refuses_what_does_not_fit(expected: np.ndarray, message: str) -> None:
    with pytest.raises(EvaluationError, match=message):
        metrics.calibration_error(expected, np.zeros(2))


def test_harmful_collaboration_case_by_case() -> None:
    single = np.array([True, True, False])  # plan 2 is a team
    score = np.array(
        [
            [1.0, 0.0, 1.0],  # one agent was right for less
            [0.0, 0.0, 1.0],  # only the team was right
            [1.0, 0.0, 1.0],  # one agent was right, but for more
            [1.0, 0.0, 0.0],  # one agent chosen
            [1.0, 1.0, 1.0],  # the team's cost is unknown
            [np.nan, np.nan, 1.0],  # nothing is known of the single agents
            [1.0, 1.0, 1.0],  # nothing chosen
        ]
    )
    cost = np.array(
        [
            [1.0, 1.0, 3.0],
            [1.0, 1.0, 3.0],
            [4.0, 1.0, 3.0],
            [1.0, 1.0, 3.0],
            [1.0, 1.0, np.nan],
            [1.0, 1.0, 3.0],
            [1.0, 1.0, 3.0],
        ]
    )
    chosen = np.array([2, 2, 2, 0, 2, 2, -1])
    told = metrics.harmful_collaboration(chosen, score, cost, single)
    np.testing.assert_array_equal(told, [1, 0, 0, 0, np.nan, 0, np.nan])


@given(st.integers(0, 2**32 - 1), st.integers(5, 60))
@settings(max_examples=30, deadline=None)
def test_a_bootstrap_interval_contains_the_mean(seed: int, n: int) -> None:
    values = np.random.default_rng(seed).normal(size=n)
    assert values.mean() in metrics.paired_bootstrap(values, resamples=2000, seed=1)


def test_a_bootstrap_interval_covers_the_truth_about_19_times_in_20() -> None:
    rng = np.random.default_rng(0)
    hits = sum(
        0.3 in metrics.paired_bootstrap(rng.binomial(1, 0.3, 200).astype(float), seed=i)
        for i in range(200)
    )
    assert 180 <= hits <= 199


def test_seeds_are_averaged_within_a_query_and_do_not_narrow_the_interval() -> None:
    values = np.random.default_rng(0).normal(size=100)
    once = metrics.paired_bootstrap(values)
    again = metrics.paired_bootstrap(np.tile(values, (5, 1)))
    # A mean of equal seeds may differ from each of them in the last digit.
    assert (again.low, again.high) == pytest.approx((once.low, once.high))


def test_bootstrap_draws_are_paired_and_leave_unknown_values_out() -> None:
    values = np.random.default_rng(0).normal(size=(50, 1))
    both = metrics.bootstrap_means(np.concatenate([values, values + 2.0], axis=1), resamples=300)
    np.testing.assert_allclose(both[:, 1] - both[:, 0], 2.0)
    holes = np.concatenate([values, np.full((50, 1), np.nan)])
    means = metrics.bootstrap_means(holes, resamples=300)
    assert np.isfinite(means).all()
    assert abs(means.mean() - values.mean()) < 0.1


def test_bootstrap_repeats_with_its_seed() -> None:
    values = np.random.default_rng(0).normal(size=40)
    assert metrics.paired_bootstrap(values, seed=3) == metrics.paired_bootstrap(values, seed=3)
    assert metrics.paired_bootstrap(values, seed=3) != metrics.paired_bootstrap(values, seed=4)


def test_bootstrap_refuses_nothing_known() -> None:
    with pytest.raises(EvaluationError, match="no difference is known"):
        metrics.paired_bootstrap(np.full(5, np.nan))
