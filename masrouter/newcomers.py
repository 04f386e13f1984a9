"""What routing does otherwise where plans came after training: wider errors, and ties told apart.

Without additions, nothing.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from masrouter.critic import Critic, FoldedCritic
from masrouter.gate import choose
from masrouter.router_state import RouterState
from masrouter.selection import Expected


def widened(state: RouterState, critic: FoldedCritic, expected: Expected, phi: Tensor) -> Expected:
    """With what descriptions and probes leave open beside the members' spread: phi (B, F).

    Plans of the training logs keep their errors.
    """
    if not state.additions:
        return expected
    open_score = critic.variance(phi, Critic.score_head(expected.head))  # (B, C)
    error = (expected.score_error.square() + open_score).sqrt()
    # A cost comes from the head that learned costs, or else from expected tokens.
    open_log = torch.zeros_like(open_score)
    if critic.has("log_completion_tokens"):
        open_log = critic.variance(phi, "log_completion_tokens")
    if critic.has("log_cost"):
        learned = torch.isfinite(state.gate.mean_cost)
        open_log = torch.where(learned, critic.variance(phi, "log_cost"), open_log)
    factor = (expected.cost_factor.log().square() + open_log).sqrt().clamp(max=5).exp()
    return replace(
        expected,
        score_error=torch.where(open_score > 0, error, expected.score_error),
        cost_factor=torch.where(open_log > 0, factor, expected.cost_factor),
    )


def told_apart(
    state: RouterState, chosen: Tensor, expected: Expected, allowed: Tensor, cost_weight: float
) -> Tensor:
    """Fixed plans (B,), by what is expected of them where nothing that is allowed was ever run.

    `allowed` (B, C) bool. The gate knows such plans no better than one another.
    """
    if not state.additions:
        return chosen
    run = torch.isfinite(state.gate.fixed_utility(cost_weight))[chosen]
    utility = expected.score - cost_weight * expected.cost if cost_weight else expected.score
    return torch.where(run, chosen, choose(utility, allowed))
