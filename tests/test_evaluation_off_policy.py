"""Off-policy estimators: exact cases, and coverage of the truth in a tabular bandit."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from masrouter.errors import EvaluationError
from masrouter.evaluation import off_policy
from masrouter.evaluation.off_policy import Estimate
from masrouter.evaluation.off_policy.resampling import ClusterBootstrap

REWARD = np.array([1.0, 0.0, 1.0, 1.0])
PROPENSITY = np.array([0.5, 0.25, 0.5, 0.1])
TARGET = np.array([1.0, 0.5, 0.0, 0.8])


@dataclass
class Rounds:
    reward: np.ndarray
    propensity: np.ndarray
    target: np.ndarray
    q_logged: np.ndarray
    q_target: np.ndarray
    truth: float


def draw(seed: int, n: int = 600, critic_error: float = 0.0) -> Rounds:
    """Three contexts, four actions, known success rates."""
    world = np.random.default_rng(7)
    success = world.uniform(0.1, 0.9, (3, 4))
    logging = world.dirichlet(np.full(4, 3.0), 3)
    target = world.dirichlet(np.full(4, 1.0), 3)
    critic = success + critic_error
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 3, n)
    a = (rng.random((n, 1)) > logging[x].cumsum(axis=1)).sum(axis=1).clip(max=3)
    return Rounds(
        reward=(rng.random(n) < success[x, a]).astype(np.float64),
        propensity=logging[x, a],
        target=target[x, a],
        q_logged=critic[x, a],
        q_target=(target[x] * critic[x]).sum(axis=1),
        truth=float((target * success).sum(axis=1).mean()),
    )


def test_values_by_hand() -> None:
    w = TARGET / PROPENSITY  # 2, 2, 0, 8
    ips = off_policy.ips(REWARD, PROPENSITY, TARGET)
    assert ips.value == pytest.approx(10 / 4)
    assert ips.max_weight == pytest.approx(8.0)
    assert ips.effective_sample_size == pytest.approx(12**2 / 72)
    np.testing.assert_allclose(ips.per_round, w * REWARD)
    assert off_policy.snips(REWARD, PROPENSITY, TARGET).value == pytest.approx(10 / 12)
    q, qbar = np.full(4, 0.5), np.array([0.2, 0.4, 0.6, 0.8])
    assert off_policy.dm(qbar).value == pytest.approx(0.5)
    dr = off_policy.dr(REWARD, PROPENSITY, TARGET, q, qbar)
    assert dr.value == pytest.approx(0.5 + (2 * 0.5 - 2 * 0.5 + 8 * 0.5) / 4)


def test_clipping_caps_weights_and_switching_leaves_the_round_to_the_critic() -> None:
    q, qbar = np.full(4, 0.5), np.full(4, 0.5)
    clipped = off_policy.dr(REWARD, PROPENSITY, TARGET, q, qbar, clip=3.0)
    assert clipped.value == pytest.approx(0.5 + 3 * 0.5 / 4)
    assert clipped.max_weight == 3.0
    switched = off_policy.dr(REWARD, PROPENSITY, TARGET, q, qbar, switch=3.0)
    assert switched.value == pytest.approx(0.5)
    assert switched.max_weight == 2.0
    assert off_policy.ips(REWARD, PROPENSITY, TARGET, clip=1.0).value == pytest.approx(0.5)


def test_the_logging_policy_itself_earns_the_mean_reward() -> None:
    for estimate in (
        off_policy.ips(REWARD, PROPENSITY, PROPENSITY),
        off_policy.snips(REWARD, PROPENSITY, PROPENSITY),
        off_policy.dr(REWARD, PROPENSITY, PROPENSITY, np.full(4, 0.3), np.full(4, 0.3)),
    ):
        assert estimate.value == pytest.approx(0.75)
        assert estimate.effective_sample_size == pytest.approx(4.0)


def test_snips_moves_with_a_shift_of_the_reward_and_ips_does_not() -> None:
    r = draw(0)
    shifted = off_policy.snips(r.reward + 5, r.propensity, r.target)
    assert shifted.value == pytest.approx(
        off_policy.snips(r.reward, r.propensity, r.target).value + 5
    )


RESAMPLES = ClusterBootstrap(np.arange(600), resamples=400)
ESTIMATORS = {
    "dm": lambda r: off_policy.dm(r.q_target, bootstrap=RESAMPLES),
    "ips": lambda r: off_policy.ips(r.reward, r.propensity, r.target, bootstrap=RESAMPLES),
    "snips": lambda r: off_policy.snips(r.reward, r.propensity, r.target, bootstrap=RESAMPLES),
    "dr": lambda r: off_policy.dr(
        r.reward, r.propensity, r.target, r.q_logged, r.q_target, bootstrap=RESAMPLES
    ),
    "switch": lambda r: off_policy.dr(
        r.reward, r.propensity, r.target, r.q_logged, r.q_target, switch=4.0, bootstrap=RESAMPLES
    ),
}


@pytest.mark.parametrize("name", ESTIMATORS)
def test_intervals_cover_the_truth(name: str) -> None:
    rounds = [draw(seed) for seed in range(200)]
    hits = sum(r.truth in ESTIMATORS[name](r).interval for r in rounds)
    # Of 200 draws at 95 %, chance leaves 180 to 198 in 999 of 1000 cases.
    assert 180 <= hits <= 198


def test_dr_survives_a_wrong_critic_and_dm_does_not() -> None:
    rounds = [draw(seed, critic_error=0.2) for seed in range(100)]
    covered = sum(r.truth in ESTIMATORS["dr"](r).interval for r in rounds)
    assert covered >= 88
    assert sum(r.truth in ESTIMATORS["dm"](r).interval for r in rounds) == 0


def test_a_good_critic_narrows_the_interval() -> None:
    def width(estimate: Estimate) -> float:
        return estimate.interval.high - estimate.interval.low

    r = draw(1)
    assert width(ESTIMATORS["dr"](r)) < width(ESTIMATORS["ips"](r))
    assert width(ESTIMATORS["snips"](r)) < width(ESTIMATORS["ips"](r))


def test_drs_error_is_below_that_of_ips() -> None:
    rounds = [draw(seed) for seed in range(100)]

    def error(name: str) -> float:
        return float(np.mean([(ESTIMATORS[name](r).value - r.truth) ** 2 for r in rounds]))

    assert error("dr") < error("ips")


def test_rounds_of_one_query_are_not_taken_for_independent() -> None:
    """Each query's rounds copied four times tell nothing new: the interval must not shrink."""
    r = draw(2, n=150)
    once = off_policy.ips(
        r.reward, r.propensity, r.target, bootstrap=ClusterBootstrap(np.arange(150))
    )
    copied = [np.tile(column, 4) for column in (r.reward, r.propensity, r.target)]
    query = np.tile(np.arange(150), 4)
    fourfold = off_policy.ips(*copied, bootstrap=ClusterBootstrap(query))
    assert fourfold.interval.high == pytest.approx(once.interval.high, rel=1e-5)
    naive = off_policy.ips(*copied)
    width = once.interval.high - once.interval.low
    assert naive.interval.high - naive.interval.low < 0.6 * width


def test_matched_rounds_that_all_score_one_do_not_make_a_point_of_the_interval() -> None:
    reward = np.array([1.0] * 6 + [0.0] * 60)
    target = np.array([1.0] * 6 + [0.0] * 60)
    estimate = off_policy.snips(reward, np.full(66, 0.1), target)
    assert estimate.value == 1.0
    assert estimate.interval.low == pytest.approx(1 - 3 / 6)  # the rule of three


def test_a_reward_that_never_varies_has_no_doubt() -> None:
    estimate = off_policy.on_policy(np.full(50, 0.01))
    assert estimate.interval.low == pytest.approx(0.01)
    assert estimate.interval.high == pytest.approx(0.01)


def test_the_difference_is_paired_with_the_logged_rounds() -> None:
    r = draw(3)
    same = off_policy.ips(r.reward, r.propensity, r.propensity)
    assert off_policy.difference(same, r.reward).value == pytest.approx(0.0)
    assert off_policy.difference(same, r.reward).interval.high == pytest.approx(0.0)
    dr = off_policy.dr(r.reward, r.propensity, r.target, r.q_logged, r.q_target)
    apart = off_policy.difference(dr, r.reward)
    assert apart.value == pytest.approx(dr.value - r.reward.mean())


def test_the_switching_threshold_leaves_little_weight_to_the_critic() -> None:
    propensity = np.concatenate([np.full(100, 0.5), [0.2], [0.01]])
    target = np.ones(102)  # weights 2, 5, 100
    assert off_policy.switch_threshold(propensity, target) == pytest.approx(100.0)
    assert off_policy.switch_threshold(propensity, target, share=0.335) == pytest.approx(5.0)
    assert off_policy.switch_threshold(propensity, target, share=0.5) == pytest.approx(2.0)
    assert off_policy.switch_threshold(propensity, np.zeros(102)) == float("inf")


def stages(seed: int, n: int = 600) -> dict[str, np.ndarray]:
    """Two choices of two: the target takes 1, then 1 or 0 by a coin of its own."""
    rng = np.random.default_rng(seed)
    p = np.array([[0.4, 0.6], [0.7, 0.3]])
    first = (rng.random(n) < p[0, 1]).astype(int)
    second = (rng.random(n) < p[1, 1]).astype(int)
    success = np.array([[0.1, 0.3], [0.8, 0.5]])
    return {
        "reward": (rng.random(n) < success[first, second]).astype(np.float64),
        "stage_propensity": np.stack([p[0, first], p[1, second]], axis=1),
        "stage_target": np.stack([first.astype(float), np.full(n, 0.5)], axis=1),
        "first": first,
        "second": second,
    }


def test_stagewise_dr_with_one_critic_and_a_deterministic_target_is_dr() -> None:
    s = stages(0)
    target = np.stack([s["first"] == 1, s["second"] == 1], axis=1).astype(float)
    q = np.full((600, 2), 0.6)
    by_stage = off_policy.stagewise_dr(s["reward"], s["stage_propensity"], target, q, q)
    whole = off_policy.dr(
        s["reward"], s["stage_propensity"].prod(1), target.prod(1), q[:, 0], q[:, 0]
    )
    np.testing.assert_allclose(by_stage.per_round, whole.per_round)
    assert by_stage.interval.low == pytest.approx(whole.interval.low)


def test_stagewise_dr_covers_a_stochastic_target_with_wrong_value_models() -> None:
    truth = 0.5 * 0.8 + 0.5 * 0.5
    wrong = np.full((600, 2), 0.2)  # of every choice, and so of their mean under any target
    hits = 0
    for seed in range(200):
        s = stages(seed)
        estimate = off_policy.stagewise_dr(
            s["reward"],
            s["stage_propensity"],
            s["stage_target"],
            wrong,
            wrong,
            bootstrap=RESAMPLES,
        )
        hits += truth in estimate.interval
    assert 180 <= hits <= 198


def test_stagewise_switching_leaves_a_round_to_the_models_from_the_first_large_weight_on() -> None:
    propensity = np.array([[0.5, 0.1], [0.5, 0.5]])
    target = np.ones((2, 2))
    q = np.array([[0.3, 0.4], [0.3, 0.4]])
    reward = np.ones(2)
    estimate = off_policy.stagewise_dr(reward, propensity, target, q, q, switch=5.0)
    # rho is 2, 20 and 2, 4: the first round ends after its first stage.
    np.testing.assert_allclose(estimate.per_round, [0.3 + 2 * 0.1, 0.3 + 2 * 0.1 + 4 * (1.0 - 0.4)])
    clipped = off_policy.stagewise_dr(reward, propensity, target, q, q, clip=5.0)
    np.testing.assert_allclose(clipped.per_round[0], 0.3 + 2 * 0.1 + 5 * 0.6)


def test_stagewise_dr_wants_arrays_of_one_shape() -> None:
    with pytest.raises(EvaluationError, match=r"arrays \(n, T\)"):
        off_policy.stagewise_dr(
            np.ones(3), np.ones((3, 2)), np.ones((3, 1)), *[np.ones((3, 2))] * 2
        )


def test_a_bootstrap_of_other_rounds_or_of_one_query_is_refused() -> None:
    with pytest.raises(EvaluationError, match="it has 600 rounds, the estimate has 4"):
        off_policy.dm(np.ones(4), bootstrap=RESAMPLES)
    with pytest.raises(EvaluationError, match="at least 2 queries"):
        ClusterBootstrap(np.zeros(4, dtype=np.int64))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"propensity": np.array([0.5, 0.0, 0.5, 0.1])}, "propensity: expected probabilities"),
        ({"propensity": np.array([0.5, 1.5, 0.5, 0.1])}, "propensity: expected probabilities"),
        ({"target": np.array([0.5, -0.1, 0.5, 0.1])}, "target: expected probabilities"),
        ({"reward": np.array([np.nan, 0.0, 1.0, 1.0])}, "reward: expected finite"),
        ({"reward": np.array([0.0, 1.0])}, "arrays of one length"),
        ({"clip": 0.0}, "clip: expected a number above 0"),
        ({"clip": 1.0, "switch": 1.0}, "clip or switch, not both"),
        ({"switch": -1.0}, "switch: expected a number above 0"),
    ],
)
def test_bad_input_is_refused_by_name(change: dict[str, object], message: str) -> None:
    given: dict[str, object] = {
        "reward": REWARD,
        "propensity": PROPENSITY,
        "target": TARGET,
        "q_logged": REWARD,
        "q_target": REWARD,
    }
    with pytest.raises(EvaluationError, match=message):
        off_policy.dr(**{**given, **change})  # type: ignore[arg-type]


def test_no_support_and_too_few_rounds_are_refused() -> None:
    with pytest.raises(EvaluationError, match="no support"):
        off_policy.snips(REWARD, PROPENSITY, np.zeros(4))
    assert off_policy.ips(REWARD, PROPENSITY, np.zeros(4)).effective_sample_size == 0.0
    with pytest.raises(EvaluationError, match="at least 2 rounds"):
        off_policy.dm(np.ones(1))
