"""What the cascade learns from each kind of log. Pure functions of tensors; typed losses.

    grid           exact expected utility over the logged plans of each query, plus a ranking term
    randomised     doubly robust value with clipped weights, plus advantage-weighted likelihood
    observational  the pessimistic critic alone, over supported plans

and, for each, distillation of the critic's shrunken preferences. Nothing is sampled: every
expectation is a sum over the plans of the tree.

Shapes: B queries, C plans. Utilities are divided by `scale` (B,) = 1 + cost weight * typical cost,
so that every trade-off weighs the same.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid


@dataclass(frozen=True)
class CascadeLoss:
    """Terms of the objective, each () and already weighted; `total` is minimised."""

    distillation: Tensor
    utility: Tensor
    """Minus the expected (grid) or estimated (randomised) utility."""
    preference: Tensor
    """Ranking on grids, advantage-weighted likelihood on randomised logs, 0 elsewhere."""
    entropy: Tensor

    @property
    def total(self) -> Tensor:
        return self.distillation + self.utility + self.preference + self.entropy


def restrict(log_p: Tensor, available: Tensor) -> Tensor:
    """The policy among available plans, -inf elsewhere: (B, C), (B, C) bool -> (B, C)."""
    masked = log_p.masked_fill(~available, -math.inf)
    return masked - masked.logsumexp(1, keepdim=True)


def teacher(predicted: Tensor, available: Tensor, scale: Tensor, temperature: float) -> Tensor:
    """Softmax of the critic's utility among available plans: (B, C)."""
    scaled = predicted / (temperature * scale[:, None])
    return scaled.masked_fill(~available, -math.inf).softmax(1)


def grid_loss(
    log_p: Tensor,
    target: Tensor,
    utility: Tensor,
    available: Tensor,
    scale: Tensor,
    *,
    ranking: float,
    entropy: float,
    shift: int,
) -> CascadeLoss:
    """Logs that hold every plan's outcome.

    Args:
        log_p: (B, C) of the cascade. target: (B, C) of the teacher. utility: (B, C) logged.
        shift: 1..C-1; each plan is ranked against the one `shift` places on.
    """
    log_p = restrict(log_p, available)
    p = log_p.exp()
    gained = torch.where(available, utility, 0.0) / scale[:, None]
    expected = (p * gained).sum(1).mean()
    other_log_p, other_gained = log_p.roll(shift, 1), gained.roll(shift, 1)
    pair = available & available.roll(shift, 1)
    difference = torch.where(pair, gained - other_gained, 0.0)
    margin = torch.where(pair, log_p, 0.0) - torch.where(pair, other_log_p, 0.0)
    ranked = -(difference.abs() * logsigmoid(margin * difference.sign())).sum(1)
    ranked = ranked / pair.sum(1).clamp_min(1)
    return CascadeLoss(
        distillation=_cross_entropy(target, log_p, available),
        utility=-expected,
        preference=ranking * ranked.mean(),
        entropy=-entropy * _entropy(log_p, available),
    )


def randomised_loss(
    log_p: Tensor,
    target: Tensor,
    predicted: Tensor,
    available: Tensor,
    scale: Tensor,
    logged: Tensor,
    reward: Tensor,
    propensity: Tensor,
    *,
    advantage_temperature: float,
    weight_clip: float,
    entropy: float,
) -> CascadeLoss:
    """Logs of one drawn plan a query, whose probability is known.

        DR:  sum_a pi(a|x) q(x,a) + min(pi(a_i|x) / p_i, clip) (u_i - q(x, a_i))
        AWL: -min(exp(A_i / tau), clip) log pi(a_i|x),  A_i = u_i - sum_a pi(a|x) q(x,a)

    DR: Dudik, Langford & Li, arXiv 1103.4601. AWL: Peng et al., arXiv 1910.00177.

    Args:
        predicted: (B, C) cross-fitted critic. logged: (B,) plan, -1 where it is not in the tree
            (its run taught the critic only). reward: (B,) utility of the logged run.
        propensity: (B,).
    """
    log_p = restrict(log_p, available)
    p = log_p.exp()
    q = torch.where(available, predicted, 0.0) / scale[:, None]
    value = (p * q).sum(1)  # (B,)
    here = logged >= 0
    at = logged.clamp_min(0)[:, None]
    p_logged = p.gather(1, at)[:, 0]
    surprise = reward / scale - q.gather(1, at)[:, 0]
    weight = (p_logged / propensity).clamp(max=weight_clip)
    correction = torch.where(here, weight * surprise, 0.0)
    advantage = (reward / scale - value.detach()) / advantage_temperature
    likelihood = advantage.exp().clamp(max=weight_clip) * log_p.gather(1, at)[:, 0].clamp_min(-30)
    awl = -torch.where(here, likelihood, 0.0).mean()
    return CascadeLoss(
        distillation=_cross_entropy(target, log_p, available),
        utility=-(value + correction).mean(),
        preference=0.05 * awl,
        entropy=-entropy * _entropy(log_p, available),
    )


def observational_loss(
    log_p: Tensor, target: Tensor, available: Tensor, *, entropy: float
) -> CascadeLoss:
    """Logs whose choices nobody can explain: only the pessimistic teacher is trusted."""
    log_p = restrict(log_p, available)
    zero = log_p.new_zeros(())
    return CascadeLoss(
        distillation=_cross_entropy(target, log_p, available),
        utility=zero,
        preference=zero,
        entropy=-entropy * _entropy(log_p, available),
    )


def _cross_entropy(target: Tensor, log_p: Tensor, available: Tensor) -> Tensor:
    return -(target * torch.where(available, log_p, 0.0)).sum(1).mean()


def _entropy(log_p: Tensor, available: Tensor) -> Tensor:
    return -(log_p.exp() * torch.where(available, log_p, 0.0)).sum(1).mean()
