"""What a policy would earn, estimated from the rounds that another policy logged.

Each round i has a reward r_i, the probability p_i with which the logging policy took the logged
action, the probability pi_i that the target policy gives to it, and, from a critic fitted on other
rounds, q_i for the logged action and qbar_i = sum over a of pi(a | x_i) q(x_i, a), its mean under
the target policy. The weight is w_i = pi_i / p_i.

Intervals are 95 %, value +- 1.96 standard errors. They cover chance in the rounds; they do not
cover a wrong propensity, nor (for `dm`, or where weights were clipped or switched off) a wrong
critic. Rounds must be independent: average repeated runs of a query first.
Not here: looking choices up in grid logs (`crossval`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from masrouter.errors import EvaluationError
from masrouter.outcomes import Floats
from masrouter.types import Interval


@dataclass(frozen=True)
class Estimate:
    """An estimated mean reward of the target policy."""

    per_round: Floats  # (n,) whose mean is the value
    value: float
    interval: Interval
    effective_sample_size: float
    """(sum w)^2 / sum w^2 (Kish, 1965): rounds that would tell as much if all weighed the same."""
    max_weight: float
    """Largest weight used."""


def dm(q_target: Floats) -> Estimate:
    """Direct method: mean of qbar_i. As right as the critic; no weights, so all count as 1.

    `q_target` (n,). Source: Dudik et al. 2014, arXiv 1503.02834, section 2.1.
    """
    _check(q_target=q_target)
    return _estimate(q_target, q_target, np.ones(len(q_target)))


def ips(
    reward: Floats, propensity: Floats, target: Floats, *, clip: float | None = None
) -> Estimate:
    """Inverse propensity score: mean of w_i r_i, all (n,); unbiased without clipping.

    `clip` caps weights: less variance, some bias. Source: arXiv 1503.02834, section 2.2.
    """
    weight = _weights(reward, propensity, target, clip)
    per_round = weight * reward
    return _estimate(per_round, per_round, weight)


def snips(
    reward: Floats, propensity: Floats, target: Floats, *, clip: float | None = None
) -> Estimate:
    """Self-normalised IPS: sum w_i r_i / sum w_i, all (n,); consistent, and bounded like rewards.

    The interval is the delta method's: the influence of a round is w_i (r_i - value) / mean(w).
    Raises EvaluationError where every weight is 0: the target policy never takes a logged action.
    Source: Swaminathan and Joachims, NeurIPS 2015, "The Self-Normalized Estimator for
    Counterfactual Learning"; interval after Owen, "Monte Carlo theory", 2013, section 9.2.
    """
    weight = _weights(reward, propensity, target, clip)
    mean = float(weight.mean())
    if mean == 0.0:
        raise EvaluationError(
            "snips: the target policy gives probability 0 to every logged action: no support"
        )
    per_round = weight * reward / mean
    influence = per_round - weight / mean * per_round.mean()
    return _estimate(per_round, influence, weight)


def dr(
    reward: Floats,
    propensity: Floats,
    target: Floats,
    q_logged: Floats,
    q_target: Floats,
    *,
    clip: float | None = None,
    switch: float | None = None,
) -> Estimate:
    """Doubly robust: mean of qbar_i + w_i (r_i - q_i), all (n,).

    Unbiased where either the propensities or the critic are right. `clip` caps weights; `switch`
    sets a weight above it to 0, so that such a round is left to the critic. At most one of them.
    Source: Dudik et al. 2011, 2014, arXiv 1503.02834, section 3; switching: Wang, Agarwal and
    Dudik 2017, arXiv 1612.01205, section 4.
    """
    if clip is not None and switch is not None:
        raise EvaluationError("dr: give clip or switch, not both")
    weight = _weights(reward, propensity, target, clip)
    _check(reward=reward, q_logged=q_logged, q_target=q_target)
    if switch is not None:
        if not switch > 0:
            raise EvaluationError(f"dr: switch: expected a number above 0, got {switch!r}")
        weight = np.where(weight <= switch, weight, 0.0)
    per_round = q_target + weight * (reward - q_logged)
    return _estimate(per_round, per_round, weight)


def _weights(reward: Floats, propensity: Floats, target: Floats, clip: float | None) -> Floats:
    _check(reward=reward, propensity=propensity, target=target)
    if (propensity <= 0).any() or (propensity > 1).any():
        raise EvaluationError(
            "propensity: expected probabilities in (0, 1], got "
            f"{propensity.min():g} to {propensity.max():g}; only rounds of known propensity count"
        )
    if (target < 0).any() or (target > 1).any():
        raise EvaluationError(
            f"target: expected probabilities in [0, 1], got {target.min():g} to {target.max():g}"
        )
    if clip is not None and not clip > 0:
        raise EvaluationError(f"clip: expected a number above 0, got {clip!r}")
    weight = target / propensity
    return weight if clip is None else np.minimum(weight, clip)


def _check(**arrays: Floats) -> None:
    lengths = {name: array.shape for name, array in arrays.items()}
    if len(set(lengths.values())) > 1 or any(len(shape) != 1 for shape in lengths.values()):
        raise EvaluationError(f"off-policy: expected (n,) arrays of one length, got {lengths}")
    for name, array in arrays.items():
        if len(array) < 2:
            raise EvaluationError(f"{name}: expected at least 2 rounds, got {len(array)}")
        if not np.isfinite(array).all():
            raise EvaluationError(f"{name}: expected finite numbers, got NaN or infinity")


def _estimate(per_round: Floats, influence: Floats, weight: Floats) -> Estimate:
    value = float(per_round.mean())
    error = 1.96 * float(influence.std(ddof=1)) / float(np.sqrt(len(per_round)))
    total = float((weight**2).sum())
    return Estimate(
        per_round=per_round,
        value=value,
        interval=Interval(value - error, value + error),
        effective_sample_size=float(weight.sum()) ** 2 / total if total > 0 else 0.0,
        max_weight=float(weight.max()),
    )
