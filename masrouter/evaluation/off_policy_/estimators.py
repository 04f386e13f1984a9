"""What a policy would earn, estimated from the rounds that another policy logged.

Axes: n rounds, T stages of the cascade. Round i has a reward r_i, the probability p_i with which
the logging policy took the logged action, the probability pi_i that the target policy gives to it
(1 or 0 where the target is deterministic), and, from a critic fitted on other queries' rounds, q_i
for the logged action and qbar_i = sum over a of pi(a | x_i) q(x_i, a), its mean under the target
policy. The weight is w_i = pi_i / p_i.

An estimate is its per-round values; its value is their mean, and its 95 % interval comes from
resampling the queries that the rounds belong to (`ClusterBootstrap`). Intervals cover chance in the
rounds; they do not cover a wrong propensity, nor (for `dm`, or where weights were clipped or
switched off) a wrong critic.
Not here: whether the logs identify anything (`support`), the critic (`outcome_model`), looking
choices up in grid logs (`crossval`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from masrouter.errors import EvaluationError
from masrouter.evaluation.resampling import ClusterBootstrap
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


def on_policy(reward: Floats, *, bootstrap: ClusterBootstrap | None = None) -> Estimate:
    """Mean of r_i, (n,): what the logging policy itself earned."""
    _check(reward=reward)
    return _mean(reward, np.ones(len(reward)), _span(reward), bootstrap)


def dm(q_target: Floats, *, bootstrap: ClusterBootstrap | None = None) -> Estimate:
    """Direct method: mean of qbar_i. As right as the critic; no weights, so all count as 1.

    `q_target` (n,). The interval is over queries for this critic; its error is not in it.
    Source: Dudik et al. 2014, arXiv 1503.02834, section 2.1.
    """
    _check(q_target=q_target)
    return _mean(q_target, np.ones(len(q_target)), _span(q_target), bootstrap)


def ips(
    reward: Floats,
    propensity: Floats,
    target: Floats,
    *,
    clip: float | None = None,
    bootstrap: ClusterBootstrap | None = None,
) -> Estimate:
    """Inverse propensity score: mean of w_i r_i, all (n,); unbiased without clipping.

    `clip` caps weights: less variance, some bias. Source: arXiv 1503.02834, section 2.2.
    """
    weight = _weights(reward, propensity, target, clip)
    return _mean(weight * reward, weight, _span(reward), bootstrap)


def snips(
    reward: Floats,
    propensity: Floats,
    target: Floats,
    *,
    clip: float | None = None,
    bootstrap: ClusterBootstrap | None = None,
) -> Estimate:
    """Self-normalised IPS: sum w_i r_i / sum w_i, all (n,); consistent, and bounded like rewards.

    A ratio: both sums are resampled together.
    Raises EvaluationError where every weight is 0: the target policy never takes a logged action.
    Source: Swaminathan and Joachims, NeurIPS 2015, "The Self-Normalized Estimator for
    Counterfactual Learning".
    """
    weight = _weights(reward, propensity, target, clip)
    mean = float(weight.mean())
    if mean == 0.0:
        raise EvaluationError(
            "snips: the target policy gives probability 0 to every logged action: no support"
        )
    return _estimate(weight * reward / mean, weight / mean, weight, _span(reward), bootstrap)


def dr(
    reward: Floats,
    propensity: Floats,
    target: Floats,
    q_logged: Floats,
    q_target: Floats,
    *,
    clip: float | None = None,
    switch: float | None = None,
    bootstrap: ClusterBootstrap | None = None,
) -> Estimate:
    """Doubly robust: mean of qbar_i + w_i (r_i - q_i), all (n,).

    Unbiased where either the propensities or the critic are right. `clip` caps weights; `switch`
    sets a weight above it to 0, so that such a round is left to the critic (SWITCH-DR). At most one
    of them. Source: Dudik et al. 2011, 2014, arXiv 1503.02834, section 3; switching: Wang, Agarwal
    and Dudik 2017, arXiv 1612.01205, section 4.
    """
    _check_limits("dr", clip, switch)
    weight = _weights(reward, propensity, target, clip)
    _check(reward=reward, q_logged=q_logged, q_target=q_target)
    if switch is not None:
        weight = np.where(weight <= switch, weight, 0.0)
    per_round = q_target + weight * (reward - q_logged)
    return _mean(per_round, weight, _span(reward), bootstrap)


def switch_threshold(propensity: Floats, target: Floats, *, share: float = 0.05) -> float:
    """A threshold for `dr(switch=...)`: the lowest that leaves at most `share` of all weight, (n,),
    to the critic, so that the bias is at most that share of the critic's error there.

    The tuning of arXiv 1612.01205, section 4.3, wants the propensities of all actions. With those
    of the logged ones alone its bound on the squared bias, (mean of the weights left out times the
    range of rewards)^2, is never below the variance that leaving them out saves. Infinite where the
    target takes no logged action.
    """
    weight = np.sort(_weights(target, propensity, target, None))
    if not weight[-1] > 0:
        return float("inf")
    above = weight.sum() - weight.cumsum()  # of all that come after it in order
    last = np.append(weight[1:] > weight[:-1], True)  # of its equals
    return float(weight[last & (above <= share * weight.sum())][0])


def stagewise_dr(
    reward: Floats,
    stage_propensity: Floats,
    stage_target: Floats,
    q_logged: Floats,
    q_target: Floats,
    *,
    clip: float | None = None,
    switch: float | None = None,
    bootstrap: ClusterBootstrap | None = None,
) -> Estimate:
    """Stagewise doubly robust for the cascade; `reward` is (n,), all others are (n, T).

    A plan is a path of T choices a_1 .. a_T and the reward comes at its end. With the weight of a
    prefix rho_t = prod over s <= t of pi(a_s | x, a_<s) / p(a_s | x, a_<s), a value model Q_t of
    each prefix and V_t = sum over a of pi(a | x, a_<t) Q_t(x, a_<t, a), the per-round value is

        V_1 + sum over t of rho_t (V_{t+1} - Q_t),   V_{T+1} = r.

    This unrolls the recursion of Jiang and Li, ICML 2016, arXiv 1511.03722, equation 10, without
    discount. Unbiased for any Q_t where the propensities are right. With one critic for all stages
    and a deterministic target the middle terms cancel, and it is `dr`.

    `stage_propensity`, `stage_target`: of the logged choices; 1 after a plan's last choice.
    `q_logged`: Q_t of the logged prefix. `q_target`: V_t after the logged prefix.
    `clip` caps each rho_t; `switch` leaves a round to the models from the first stage on at which
    rho_t exceeds it.
    """
    _check_limits("stagewise_dr", clip, switch)
    shapes = {a.shape for a in (stage_propensity, stage_target, q_logged, q_target)}
    if len(shapes) > 1 or stage_propensity.ndim != 2 or len(stage_propensity) != len(reward):
        raise EvaluationError(
            f"stagewise_dr: expected rewards (n,) and arrays (n, T), got {reward.shape} and "
            f"{sorted(shapes)}"
        )
    for t in range(stage_propensity.shape[1]):
        _weights(reward, stage_propensity[:, t], stage_target[:, t], None)
        _check(q_logged=q_logged[:, t], q_target=q_target[:, t])
    rho = np.asarray((stage_target / stage_propensity).cumprod(axis=1), np.float64)  # (n, T)
    if clip is not None:
        rho = np.minimum(rho, clip)
    if switch is not None:
        rho = np.where(np.maximum.accumulate(rho, axis=1) <= switch, rho, 0.0)
    after = np.concatenate([q_target[:, 1:], reward[:, None]], axis=1)  # (n, T) V_{t+1}
    per_round = q_target[:, 0] + (rho * (after - q_logged)).sum(axis=1)
    return _mean(per_round, rho[:, -1], _span(reward), bootstrap)


def difference(
    estimate: Estimate, reward: Floats, *, bootstrap: ClusterBootstrap | None = None
) -> Estimate:
    """An estimate minus what the logging policy earned on the same rounds, paired, (n,)."""
    _check(per_round=estimate.per_round, reward=reward)
    per_round = estimate.per_round - reward
    bootstrap = _default(bootstrap, len(reward))
    interval = bootstrap.interval(
        per_round,
        np.ones(len(reward)),
        span=_span(per_round),
        effective=estimate.effective_sample_size,
    )
    return Estimate(
        per_round,
        float(per_round.mean()),
        interval,
        estimate.effective_sample_size,
        estimate.max_weight,
    )


def effective_sample_size(weight: Floats) -> float:
    """(sum w)^2 / sum w^2, (n,); 0 where every weight is 0. Source: Kish, 1965."""
    total = float((weight**2).sum())
    return float(weight.sum()) ** 2 / total if total > 0 else 0.0


def _check_limits(name: str, clip: float | None, switch: float | None) -> None:
    if clip is not None and switch is not None:
        raise EvaluationError(f"{name}: give clip or switch, not both")
    for what, limit in (("clip", clip), ("switch", switch)):
        if limit is not None and not limit > 0:
            raise EvaluationError(f"{name}: {what}: expected a number above 0, got {limit!r}")


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


def _span(reward: Floats) -> float:
    return float(reward.max() - reward.min())


def _default(bootstrap: ClusterBootstrap | None, n: int) -> ClusterBootstrap:
    """Without one, each round is of a query of its own."""
    if bootstrap is None:
        return ClusterBootstrap(np.arange(n))
    if len(bootstrap.cluster) != n:
        raise EvaluationError(
            f"bootstrap: it has {len(bootstrap.cluster)} rounds, the estimate has {n}"
        )
    return bootstrap


def _mean(
    per_round: Floats, weight: Floats, span: float, bootstrap: ClusterBootstrap | None
) -> Estimate:
    return _estimate(per_round, np.ones(len(per_round)), weight, span, bootstrap)


def _estimate(
    per_round: Floats,
    denominator: Floats,
    weight: Floats,
    span: float,
    bootstrap: ClusterBootstrap | None,
) -> Estimate:
    bootstrap = _default(bootstrap, len(per_round))
    effective = effective_sample_size(weight)
    return Estimate(
        per_round=per_round,
        value=float(per_round.mean()),
        interval=bootstrap.interval(per_round, denominator, span=span, effective=effective),
        effective_sample_size=effective,
        max_weight=float(weight.max()),
    )
