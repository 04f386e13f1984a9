"""Rows of logs as rounds, and the resampling and the critic that work on them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.off_policy_world import OffPolicyWorld

from masrouter.errors import EvaluationError
from masrouter.evaluation.off_policy.outcome_model import PairFeatures, cross_fit
from masrouter.evaluation.off_policy.resampling import ClusterBootstrap
from masrouter.evaluation.off_policy.rounds import (
    LoggedRounds,
    choice_path,
    prefix_codes,
    stage_name,
)
from masrouter.logs import Logs
from masrouter.types import Agent, LogRecord, Plan, Usage
from masrouter_train.synthetic import SyntheticWorld

SOLO = Plan("io", (Agent("assistant", "small"),))
PAIR = Plan("chain", (Agent("assistant", "small"), Agent(None, "large")))
STAGES = {"topology": 0.5, "count": 1.0, "roles": [0.5, 0.5], "models": [0.5, 0.25]}


def record(number: int, **changes: Any) -> LogRecord:
    made = LogRecord(
        run_id=f"run-{number}",
        query_id=f"q{number // 2}",
        query=f"What is {number // 2} + 1?",
        dataset="sums",
        plan=PAIR,
        score=1.0,
        score_source="exact_match",
        usage=Usage(10, 20, 0.01),
        propensity=0.5 * 0.5 * 0.5 * 0.5 * 0.25,
        stage_propensities=STAGES,
        policy="uniform",
        timestamp="2026-03-01T12:00:00Z",
    )
    return replace(made, **changes)


def test_rows_become_rounds_and_repeated_draws_stay_apart() -> None:
    solo = {
        "plan": SOLO,
        "propensity": 0.25,
        "stage_propensities": {"topology": 0.5, "count": 1.0, "roles": [1.0], "models": [0.5]},
    }
    logs = Logs.from_records(
        [
            record(0),
            record(1),
            record(2, **solo, score=None, error="timeout", usage=Usage(), timestamp=None),
            record(3, task="math"),
        ]
    )
    rounds = LoggedRounds.from_logs(logs)
    assert rounds.query_ids == ("q0", "q1")
    assert rounds.texts == ("What is 0 + 1?", "What is 1 + 1?")
    assert rounds.query.tolist() == [0, 0, 1, 1]
    assert [rounds.plans[i] for i in rounds.plan] == [PAIR, PAIR, SOLO, PAIR]
    assert rounds.failed.tolist() == [False, False, True, False]
    np.testing.assert_array_equal(rounds.score, [1.0, 1.0, np.nan, 1.0])
    np.testing.assert_array_equal(rounds.cost, [0.01, 0.01, np.nan, 0.01])
    assert rounds.stages is not None
    np.testing.assert_allclose(rounds.stages[0], [0.5, 1.0, 0.5, 0.5, 0.5, 0.25])
    np.testing.assert_allclose(rounds.stages[2], [0.5, 1.0, 1.0, 0.5, 1.0, 1.0])
    np.testing.assert_allclose(rounds.stages.prod(axis=1), rounds.propensity)
    assert rounds.timestamps[0] == np.datetime64("2026-03-01T12:00:00")
    assert np.isnat(rounds.timestamps[2])
    assert rounds.positions([SOLO, Plan("io", (Agent(None, "small"),))]).tolist() == [
        rounds.plans.index(SOLO),
        -1,
    ]


def test_a_few_rows_without_a_propensity_are_left_out_and_said() -> None:
    rows = [record(i) for i in range(200)]
    rows[7] = replace(rows[7], propensity=None, stage_propensities=None)
    rounds = LoggedRounds.from_logs(Logs.from_records(rows))
    assert len(rounds) == 199
    assert "1 of 200 rows have no propensity and are left out" in rounds.notes[0]


def test_rounds_without_stages_have_none_and_say_so() -> None:
    rows = [record(0), record(1, stage_propensities=None)]
    rounds = LoggedRounds.from_logs(Logs.from_records(rows))
    assert rounds.stages is None
    assert "1 of 2 rounds have no stage_propensities" in rounds.notes[0]


def test_logs_without_propensities_are_refused_with_what_to_do() -> None:
    rows = [record(i, propensity=None, stage_propensities=None) for i in range(4)]
    with pytest.raises(EvaluationError, match=r"observational.*masrouter collect --plans random"):
        LoggedRounds.from_logs(Logs.from_records(rows))
    with pytest.raises(EvaluationError, match=r"grid.*masrouter evaluate"):
        LoggedRounds.from_logs(SyntheticWorld(0).grid_logs(5, seed=0))


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        (
            {**STAGES, "topology": 0.4},
            "'run-1'.*their product is 0.0125, but propensity is 0.01562",
        ),
        ({**STAGES, "models": [0.5]}, "'run-1'.*2 roles, but 1 models"),
        (
            {"topology": 0.5, "count": 1.0, "roles": [0.5], "models": [0.5]},
            "'run-1'.*each of 2 agents, got 2",
        ),
        ({"topology": 0.5}, "'run-1'.*count: expected a probability, got None"),
        ({**STAGES, "roles": 0.25}, "roles: expected a list with one probability an agent"),
        ({**STAGES, "roles": [[0.5], [0.5]]}, "roles: expected a list with one probability"),
    ],
)
def test_stages_that_do_not_fit_their_row_are_refused_by_name(
    stages: dict[str, Any], message: str
) -> None:
    logs = Logs.from_records([record(0), record(1, stage_propensities=stages)])
    with pytest.raises(EvaluationError, match=message):
        LoggedRounds.from_logs(logs)


def test_synthetic_logs_of_both_policies_are_read_with_their_stages() -> None:
    world = SyntheticWorld(0)
    for policy in ("uniform", "epsilon"):
        rounds = LoggedRounds.from_logs(world.randomised_logs(50, 1, policy=policy))  # type: ignore[arg-type]
        assert rounds.stages is not None
        np.testing.assert_allclose(rounds.stages.prod(axis=1), rounds.propensity)


def test_a_plans_path_is_its_choices_in_the_order_of_the_cascade() -> None:
    assert choice_path(PAIR) == ("chain", 2, "assistant", "small", None, "large")
    assert [stage_name(t) for t in range(6)] == [
        "topology", "count", "role 1", "model 1", "role 2", "model 2",
    ]  # fmt: skip


NAMES = st.sampled_from(["a", "b"])
PLANS = st.builds(
    Plan, NAMES, st.lists(st.builds(Agent, NAMES, NAMES), min_size=1, max_size=3).map(tuple)
)


@settings(max_examples=60, deadline=None)
@given(st.lists(PLANS, min_size=1, max_size=6))
def test_prefix_codes_agree_exactly_where_paths_do(plans: list[Plan]) -> None:
    codes = prefix_codes(plans)
    for i, one in enumerate(plans):
        for j, other in enumerate(plans):
            for t in range(codes.shape[1]):
                same = choice_path(one)[: t + 1] == choice_path(other)[: t + 1]
                assert (codes[i, t] == codes[j, t]) == same
    assert (codes[-1] == -1).all()


def test_the_bootstrap_is_reproducible_and_its_seed_matters() -> None:
    values, ones = np.random.default_rng(0).random(300), np.ones(300)
    first = ClusterBootstrap(np.arange(300), seed=1).interval(values, ones)
    assert first == ClusterBootstrap(np.arange(300), seed=1).interval(values, ones)
    assert first != ClusterBootstrap(np.arange(300), seed=2).interval(values, ones)


def test_large_bootstraps_that_keep_nothing_give_the_same_interval(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    values, ones = np.random.default_rng(0).random(300), np.ones(300)
    kept = ClusterBootstrap(np.arange(300), resamples=200).interval(values, ones)
    monkeypatch.setattr("masrouter.evaluation.off_policy.resampling._KEPT_COUNTS", 0)
    drawn = ClusterBootstrap(np.arange(300), resamples=200).interval(values, ones)
    assert drawn.low == pytest.approx(kept.low, rel=1e-6)


def test_the_interval_of_a_mean_is_close_to_students() -> None:
    values = np.random.default_rng(3).normal(size=400)
    made = ClusterBootstrap(np.arange(400)).interval(values, np.ones(400))
    half = 1.97 * values.std(ddof=1) / 20
    assert made.high - values.mean() == pytest.approx(half, rel=0.08)


def test_a_critics_prediction_does_not_know_the_outcome_of_its_own_query() -> None:
    drawn = OffPolicyWorld(few=True).draw(80, 0, "uniform", draws=3)
    rounds = drawn.rounds
    features = PairFeatures(rounds, rounds.plans, drawn.embeddings)

    def fit(score: np.ndarray) -> np.ndarray:
        made = cross_fit(features, rounds, drawn.chosen, score, log=False, seed=0)
        return np.stack([made.logged, made.target, made.blind])[:, rounds.query == 5]

    turned = np.where(rounds.query == 5, 1 - rounds.score, rounds.score)
    # The penalties see every fold; here they are the same either way, and nothing else leaks.
    np.testing.assert_allclose(fit(turned), fit(rounds.score), atol=1e-9)


def test_the_critic_tells_good_plans_from_bad_ones_on_other_queries() -> None:
    world = OffPolicyWorld(few=False)
    drawn = world.draw(4000, 0, "uniform")
    rounds = drawn.rounds
    features = PairFeatures(rounds, rounds.plans, drawn.embeddings)
    made = cross_fit(features, rounds, drawn.chosen, rounds.score, log=False, seed=0)
    error = np.mean((made.logged - rounds.score) ** 2)
    blind = np.mean((made.blind - rounds.score) ** 2)
    assert error < blind < rounds.score.var()
    assert made.target_by_stage.shape == (4000, 6)
    np.testing.assert_array_equal(made.target_by_stage[:, -1], made.target)
    cost = cross_fit(features, rounds, drawn.chosen, rounds.cost, log=True, seed=0)
    assert cost.target.mean() == pytest.approx(world.truth(0.0)[1], rel=0.1)
    assert (cost.logged > 0).all()


def test_a_critic_wants_known_rewards_and_fitting_embeddings() -> None:
    drawn = OffPolicyWorld(few=True).draw(20, 0, "uniform")
    rounds = drawn.rounds
    with pytest.raises(EvaluationError, match="one row for each of 20 queries"):
        PairFeatures(rounds, rounds.plans, drawn.embeddings[:5])
    features = PairFeatures(rounds, rounds.plans, None)
    unknown = np.full(20, np.nan)
    unknown[0] = 1.0
    with pytest.raises(EvaluationError, match="at least 2 queries, got 1"):
        cross_fit(features, rounds, drawn.chosen, unknown, log=False, seed=0)
