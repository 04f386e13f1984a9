"""Baselines: they learn what there is to learn, and never choose what they must not."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import RidgeCV

from masrouter.evaluation.baselines import (
    BestFixedPlan,
    BestFixedPlanAdjusted,
    BestSingleModel,
    CheapestPlan,
    CheapFirst,
    MessageLength,
    RandomPlan,
    default_baselines,
    plan_effects,
)
from masrouter.evaluation.learners import Chooser, Learner, NotApplicable, Queries
from masrouter.evaluation.linear import ALPHAS, fit_cost, fit_probability, fit_ridge
from masrouter.evaluation.predictors import (
    KMeansClusters,
    Logistic,
    NearestNeighbours,
    NeuralNetwork,
    Ridge,
)
from masrouter.logs import LogKind
from masrouter.outcomes import Outcomes
from masrouter.types import Agent, Plan

WEIGHTS = (0.0, 1.0, 100.0)
BY_TEXT = (NearestNeighbours(), KMeansClusters(), Ridge(), Logistic(), NeuralNetwork())


def outcomes(
    score: np.ndarray, cost: np.ndarray, sizes: list[int] | None = None, length: int = 0
) -> Outcomes:
    """A grid from matrices (N, P); NaN in both is no cell. Plan p has sizes[p] agents."""
    query, plan = np.nonzero(np.isfinite(score) | np.isfinite(cost))
    n, plans = score.shape
    sizes = sizes or [1] * plans
    return Outcomes(
        query_ids=tuple(f"q{i:05d}" for i in range(n)),
        queries=tuple("x" * (length or 1 + 7 * i % 50) for i in range(n)),
        datasets=tuple("ab"[i % 2] for i in range(n)),
        tasks=(None,) * n,
        plans=tuple(Plan("io", (Agent(None, f"m{p}"),) * sizes[p]) for p in range(plans)),
        query=query,
        plan=plan,
        score=score[query, plan],
        cost=cost[query, plan],
        prompt_tokens=np.full(len(query), np.nan),
        completion_tokens=np.full(len(query), np.nan),
        propensity=np.full(len(query), np.nan),
        runs=np.ones(len(query), dtype=np.int64),
        kind=LogKind.GRID,
        why="made by hand",
    )


def two_domains(n: int = 300, seed: int = 0) -> tuple[Outcomes, np.ndarray]:
    """Plan 0 solves one side of the embeddings, plan 1 the other, plan 2 half of each, dearly."""
    rng = np.random.default_rng(seed)
    side = rng.integers(0, 2, n)
    x = rng.normal(size=(n, 8)) * 0.3
    x[:, 0] += np.where(side == 1, 1.0, -1.0)
    chance = np.stack([0.1 + 0.8 * side, 0.9 - 0.8 * side, np.full(n, 0.5)], axis=1)
    score = (rng.random((n, 3)) < chance).astype(np.float64)
    cost = np.array([0.001, 0.001, 0.01]) * rng.lognormal(0, 0.2, (n, 1))
    return outcomes(score, cost, sizes=[1, 1, 3]), x.astype(np.float32)


def fit(learner: Learner, train: Outcomes, x: np.ndarray) -> Chooser:
    return learner.fit(train, x, cost_weights=WEIGHTS, seed=0)


def ask(chooser: Chooser, data: Outcomes, x: np.ndarray, weight: float = 0.0) -> np.ndarray:
    everything = np.ones((data.n_queries, data.n_plans), dtype=bool)
    return chooser.choose(Queries(data.queries, x), weight, everything)


@pytest.mark.parametrize("learner", BY_TEXT, ids=lambda learner: learner.name)
def test_learners_that_read_the_text_route_by_it(learner: Learner) -> None:
    train, x = two_domains()
    test, z = two_domains(seed=1)
    chosen = ask(fit(learner, train, x), test, z)
    right = (chosen == 0) == (z[:, 0] > 0)
    assert (right & (chosen < 2)).mean() > 0.95


@pytest.mark.parametrize("learner", default_baselines(), ids=lambda learner: learner.name)
@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=4, deadline=None)
def test_no_learner_chooses_a_plan_that_is_not_available(learner: Learner, seed: int) -> None:
    rng = np.random.default_rng(seed)
    n, plans = int(rng.integers(12, 60)), int(rng.integers(2, 6))
    score = np.where(rng.random((n, plans)) < 0.6, rng.random((n, plans)).round(1), np.nan)
    cost = np.where(np.isnan(score), np.nan, rng.lognormal(-5, 1, (n, plans)))
    cost[rng.random((n, plans)) < 0.1] = np.nan
    score[0], cost[0] = 1.0, 0.01  # every plan has one cell at least
    data = outcomes(score, cost)
    x = rng.normal(size=(n, 4)).astype(np.float32)
    chooser = fit(learner, data, x)
    available = rng.random((n, plans)) < 0.3
    available[np.arange(n), rng.integers(0, plans, n)] = True
    for weight in WEIGHTS:
        chosen = chooser.choose(Queries(data.queries, x), weight, available)
        assert chosen.shape == (n,)
        assert available[np.arange(n), chosen].all()
        again = chooser.choose(Queries(data.queries, x), weight, available)
        np.testing.assert_array_equal(chosen, again)


@pytest.mark.parametrize("learner", default_baselines(), ids=lambda learner: learner.name)
def test_no_learner_chooses_a_plan_that_training_never_saw(learner: Learner) -> None:
    data, x = two_domains(120)
    score, cost = data.dense("score"), data.dense("cost")
    score[:, 1], cost[:, 1] = np.nan, np.nan
    chooser = fit(learner, outcomes(score, cost, sizes=[1, 1, 3]), x)
    for weight in WEIGHTS:
        assert (ask(chooser, data, x, weight) != 1).all()
    only = np.zeros((120, 3), dtype=bool)
    only[:, 1] = True  # nothing else to choose
    assert (chooser.choose(Queries(data.queries, x), 0.0, only) == 1).all()


def test_fixed_plans_by_hand() -> None:
    score = np.array([[0.0, 1.0, 1.0], [1.0, 0.0, 1.0], [0.0, 1.0, 1.0]])
    cost = np.array([[0.01, 0.02, 0.5]] * 3)
    data, x = outcomes(score, cost, sizes=[1, 1, 3]), np.eye(3, dtype=np.float32)
    assert (ask(fit(CheapestPlan(), data, x), data, x) == 0).all()
    best = fit(BestFixedPlan(), data, x)
    assert (ask(best, data, x, 0.0) == 2).all()
    assert (ask(best, data, x, 1.0) == 1).all()
    assert (ask(best, data, x, 100.0) == 0).all()
    assert (ask(fit(BestSingleModel(), data, x), data, x) == 1).all()
    lacks = np.array([[True, True, False]] * 3)
    assert (best.choose(Queries(data.queries, x), 0.0, lacks) == 1).all()


def test_the_adjusted_fixed_plan_is_not_misled_by_easy_queries() -> None:
    easy, hard = 40, 40
    score = np.zeros((easy + hard, 2))
    score[:easy, 0], score[:easy, 1] = 0.9, 1.0
    score[easy:, 0], score[easy:, 1] = 0.1, 0.2
    cost = np.full(score.shape, 0.01)
    score[easy:, 0] = np.where(np.arange(hard) < 30, np.nan, 0.1)  # the worse plan, mostly on easy
    cost[np.isnan(score)] = np.nan
    data, x = outcomes(score, cost), np.zeros((easy + hard, 2), dtype=np.float32)
    x[:, 0] = 1.0
    assert (ask(fit(BestFixedPlan(), data, x), data, x) == 0).all()
    assert (ask(fit(BestFixedPlanAdjusted(), data, x), data, x) == 1).all()


def test_plan_effects_are_differences_of_means_on_a_full_grid() -> None:
    values = np.random.default_rng(0).random((30, 4))
    np.testing.assert_allclose(plan_effects(values), values.mean(axis=0) - values.mean(), atol=1e-9)
    holes = np.concatenate([values, np.full((30, 1), np.nan)], axis=1)
    assert np.isnan(plan_effects(holes)[4])


def test_both_fixed_plans_agree_on_a_full_grid() -> None:
    data, x = two_domains()
    plain, adjusted = fit(BestFixedPlan(), data, x), fit(BestFixedPlanAdjusted(), data, x)
    for weight in WEIGHTS:
        np.testing.assert_array_equal(ask(plain, data, x, weight), ask(adjusted, data, x, weight))


def test_thresholds_split_where_it_pays() -> None:
    length = np.arange(100)
    score = np.stack([(length < 60) * 1.0, np.ones(100)], axis=1)  # the cheap plan fails long texts
    data = outcomes(score, np.array([[0.01, 0.2]] * 100))
    texts = tuple("x" * n for n in length)
    data = Outcomes(**{**data.__dict__, "queries": texts})
    x = np.stack([np.ones(100), (length - 60) / 20], axis=1).astype(np.float32)
    for learner in (MessageLength(), CheapFirst()):
        chosen = ask(fit(learner, data, x), data, x, 1.0)
        assert abs(int((chosen == 0).sum()) - 60) <= 4


def test_a_threshold_on_noise_does_no_harm_in_training() -> None:
    data, x = two_domains()
    for weight in WEIGHTS:
        utility = data.utility(weight)
        rows = np.arange(data.n_queries)
        best = utility[rows, ask(fit(BestFixedPlan(), data, x), data, x, weight)].mean()
        chosen = ask(fit(MessageLength(), data, x), data, x, weight)
        assert utility[rows, chosen].mean() >= best - 1e-12


def test_learners_without_meaning_say_so() -> None:
    data, x = two_domains(60)
    free = outcomes(data.dense("score"), np.full((60, 3), np.nan), sizes=[2, 2, 3])
    for learner in (CheapestPlan(), MessageLength(), CheapFirst()):
        with pytest.raises(NotApplicable, match="no cost is known"):
            fit(learner, free, x)
    with pytest.raises(NotApplicable, match="no plan with a single agent"):
        fit(BestSingleModel(), free, x)
    assert (ask(fit(Ridge(), free, x), free, x) < 3).all()


def test_random_is_uniform_and_repeats_with_its_seed() -> None:
    data, x = two_domains(3000)
    chosen = ask(fit(RandomPlan(), data, x), data, x)
    np.testing.assert_allclose(np.bincount(chosen) / 3000, 1 / 3, atol=0.04)
    np.testing.assert_array_equal(chosen, ask(fit(RandomPlan(), data, x), data, x))


def test_many_plans_make_the_logistic_models_smaller_and_the_notes_say_so() -> None:
    data, x = two_domains(100)
    small = fit(Logistic(components_above=2, components=4), data, x)
    assert "4 principal components" in small.notes[0]  # type: ignore[attr-defined]
    assert fit(Logistic(), data, x).notes == ()  # type: ignore[attr-defined]
    right = (ask(small, data, x) == 0) == (x[:, 0] > 0)
    assert right.mean() > 0.95


def test_ridge_is_scikit_learns_with_values_missing() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(80, 12))
    y = x @ rng.normal(size=(12, 3)) + rng.normal(size=(80, 3)) * [0.5, 3.0, 10.0]
    y[:20, 0] = np.nan
    model = fit_ridge(x, y)
    for column in range(3):
        rows = np.isfinite(y[:, column])
        reference = RidgeCV(alphas=ALPHAS).fit(x[rows], y[rows, column])
        assert model.alpha[column] == pytest.approx(reference.alpha_)
        np.testing.assert_allclose(model.predict(x)[:, column], reference.predict(x), rtol=1e-6)
    shared = fit_ridge(x, y, shared=True)
    assert len(set(shared.alpha.tolist())) == 1


def test_ridge_falls_back_to_the_mean_and_to_unknown() -> None:
    x = np.random.default_rng(0).normal(size=(30, 3))
    y = np.full((30, 3), np.nan)
    y[:3, 0] = [1.0, 2.0, 3.0]  # too few
    y[:, 1] = 0.7  # constant
    predicted = fit_ridge(x, y).predict(x)
    np.testing.assert_allclose(predicted[:, 0], 2.0)
    np.testing.assert_allclose(predicted[:, 1], 0.7)
    assert np.isnan(predicted[:, 2]).all()


def test_predicted_costs_stay_in_range_and_keep_the_mean() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 5))
    cost = np.stack([np.exp(x[:, 0] - 6), np.zeros(200), np.full(200, np.nan)], axis=1)
    cost[0, 0] = 0.0
    model = fit_cost(x, cost)
    predicted = model.predict(x)
    np.testing.assert_allclose(predicted[:, 0].mean(), cost[:, 0].mean())
    assert np.corrcoef(predicted[:, 0], cost[:, 0])[0, 1] > 0.95
    assert (model.predict(100 * x)[:, 0] > 0).all()
    assert (predicted[:, 1] == 0).all()
    assert np.isnan(predicted[:, 2]).all()


def test_probability_of_shares_of_success() -> None:
    x = np.random.default_rng(0).normal(size=(400, 2))
    p = 1 / (1 + np.exp(-x[:, 0]))
    fitted = fit_probability(x, p, c=100.0)
    np.testing.assert_allclose(fitted.predict(x), p, atol=0.01)
    always = fit_probability(x, np.ones(400))
    np.testing.assert_allclose(always.predict(x), 400.5 / 401)


@pytest.mark.parametrize("learner", BY_TEXT, ids=lambda learner: learner.name)
def test_logs_without_any_score_leave_the_first_available_plan(learner: Learner) -> None:
    data, x = two_domains(60)
    unscored = outcomes(np.full((60, 3), np.nan), data.dense("cost"))
    assert (ask(fit(learner, unscored, x), data, x) == 0).all()
