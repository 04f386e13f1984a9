"""Off-policy estimators: exact cases, and coverage of the truth in a tabular bandit."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from masrouter.errors import EvaluationError
from masrouter.evaluation import off_policy
from masrouter.evaluation.off_policy import Estimate

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


ESTIMATORS = {
    "dm": lambda r: off_policy.dm(r.q_target),
    "ips": lambda r: off_policy.ips(r.reward, r.propensity, r.target),
    "snips": lambda r: off_policy.snips(r.reward, r.propensity, r.target),
    "dr": lambda r: off_policy.dr(r.reward, r.propensity, r.target, r.q_logged, r.q_target),
    "switch": lambda r: off_policy.dr(
        r.reward, r.propensity, r.target, r.q_logged, r.q_target, switch=4.0
    ),
}


@pytest.mark.parametrize("name", ESTIMATORS)
def test_intervals_cover_the_truth(name: str) -> None:
    rounds = [draw(seed) for seed in range(100)]
    hits = sum(r.truth in ESTIMATORS[name](r).interval for r in rounds)
    assert 90 <= hits <= 100


def test_dr_survives_a_wrong_critic_and_dm_does_not() -> None:
    rounds = [draw(seed, critic_error=0.2) for seed in range(100)]
    covered = sum(r.truth in ESTIMATORS["dr"](r).interval for r in rounds)
    assert covered >= 90
    assert sum(r.truth in ESTIMATORS["dm"](r).interval for r in rounds) == 0


def test_a_good_critic_narrows_the_interval() -> None:
    def width(estimate: Estimate) -> float:
        return estimate.interval.high - estimate.interval.low

    r = draw(1)
    assert width(ESTIMATORS["dr"](r)) < width(ESTIMATORS["ips"](r))
    assert width(ESTIMATORS["snips"](r)) < width(ESTIMATORS["ips"](r))


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
