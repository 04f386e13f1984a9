"""The outcome model: heads, their loss, and what fitting leaves in them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from masrouter.candidates import Candidates, KernelWeights
from masrouter.critic import Critic, FoldedCritic, jackknife_error
from masrouter.encoder import HashingEncoder
from masrouter.features import FeatureScales, text_statistics
from masrouter.outcomes import Outcomes
from masrouter_train import fit_critic as fitting
from masrouter_train.config import CriticConfig
from masrouter_train.fit_critic import CONSTANT_SCALE, FittedCritic, fit_critic, squared_errors
from masrouter_train.progress import Progress
from masrouter_train.ridge import Cells
from masrouter_train.synthetic import SyntheticWorld

ENCODER = HashingEncoder(24)
CONFIG = CriticConfig(
    ladder=(FeatureScales(), FeatureScales(0.1, 1.0), FeatureScales(0.2, 1.0, 0.3)),
    cost_ladder=(FeatureScales(), FeatureScales(1.0, 1.0, 0.3)),
    folds=3,
)


@pytest.fixture(scope="module")
def outcomes(world: SyntheticWorld) -> Outcomes:
    return Outcomes.from_logs(world.grid_logs(150, 3, plans=world.plans[:10]))


def fitted_on(outcomes: Outcomes, world: SyntheticWorld, config: CriticConfig) -> FittedCritic:
    return fit_critic(
        outcomes,
        ENCODER.encode(outcomes.queries),
        Candidates.from_catalog(world.catalog(), outcomes.plans, ENCODER),
        np.arange(outcomes.n_plans),
        config,
        seed=0,
        progress=Progress(),
    )


@pytest.fixture(scope="module")
def fitted(outcomes: Outcomes, world: SyntheticWorld) -> FittedCritic:
    return fitted_on(outcomes, world, CONFIG)


def noise_of(outcomes: Outcomes) -> float:
    """Variance of scores around their plan's mean."""
    score = outcomes.dense("score")
    return float(np.nanmean((score - np.nanmean(score, axis=0)) ** 2))


@pytest.mark.parametrize("share", [1.0, 0.4])
@pytest.mark.parametrize(("tolerance", "flat"), [(None, 0.05), (1e-6, 0.001)])
def test_fitting_ends_where_the_typed_loss_is_least(
    outcomes: Outcomes, world: SyntheticWorld, share: float, tolerance: float | None, flat: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Nearly, with the tolerance that fitting uses; as nearly as asked for with a smaller one."""
    if tolerance is not None:
        monkeypatch.setattr(fitting, "TOLERANCE", tolerance)
    keep = np.random.default_rng(0).random(len(outcomes.score)) < share
    some = outcomes._cells_at(np.flatnonzero(keep))
    fitted = fitted_on(some, world, CONFIG)
    critic = fitted.critic
    head = critic.heads[Critic.score_head(2)]
    scales = critic.query_features.column_scales(critic.score_scales[2], CONSTANT_SCALE)
    phi = critic.query_features(
        fitted.inputs.embeddings, fitted.inputs.statistics, fitted.inputs.domains
    )
    target = torch.from_numpy(some.dense("score")).float()
    prior = critic.heads[Critic.score_head(0)].weight[0].detach()
    z = critic.describe(critic.known)
    head.weight.requires_grad_(True)
    loss = head.loss(phi, z, target, prior, scales, noise_of(some))
    (gradient,) = torch.autograd.grad(loss.total, head.weight)
    at_prior = head.weight.detach().clone()
    at_prior[0] = prior
    before = head.weight.detach().clone()
    head.weight.data.copy_(at_prior)
    start = head.loss(phi, z, target, prior, scales, noise_of(some))
    (steep,) = torch.autograd.grad(start.total, head.weight)
    head.weight.data.copy_(before)
    head.weight.requires_grad_(False)
    assert start.penalty == 0
    assert loss.total < start.total
    on = scales > 0
    here, there = ((g[0] * scales[:, None])[on].norm() for g in (gradient, steep))
    assert here < flat * there  # the gradient in units of each weight's own scale
    assert not gradient[1:].any()  # the loss is of the member that saw all queries


def test_a_part_that_is_off_has_no_weight(fitted: FittedCritic) -> None:
    critic = fitted.critic
    assert critic.score_scales[0] == FeatureScales()
    assert not critic.heads["score_0"].weight[:, 1:].any()
    text = 1 + 10 + len(critic.query_features.domains)
    assert critic.score_scales[1].text == 0
    assert not critic.heads["score_1"].weight[:, text:].any()
    assert critic.heads["score_1"].weight[:, 1:text].any()
    assert critic.heads["score_2"].weight[:, text:].any()


def test_the_plan_effect_alone_is_near_each_plans_mean(
    fitted: FittedCritic, outcomes: Outcomes
) -> None:
    critic = fitted.critic
    phi = fitted.critic.phi(fitted.inputs.embeddings[:3], fitted.inputs.statistics[:3])
    score = critic.heads["score_0"](phi, critic.describe(critic.known))
    torch.testing.assert_close(score[:1].expand(3, -1), score)
    np.testing.assert_allclose(score[0], np.nanmean(outcomes.dense("score"), 0), atol=0.05)


def test_a_folded_critic_predicts_what_the_heads_do(fitted: FittedCritic) -> None:
    critic = fitted.critic
    phi = critic.phi(fitted.inputs.embeddings, fitted.inputs.statistics)
    folded = FoldedCritic(critic, critic.known, torch.arange(len(critic.known)))
    z = critic.describe(critic.known)
    for head in range(len(critic.score_scales)):
        for member in (0, 2):
            torch.testing.assert_close(
                folded.score(phi, head, member),
                critic.heads[Critic.score_head(head)](phi, z, member),
                atol=1e-4, rtol=1e-4,
            )  # fmt: skip
    assert folded.members(phi, "score_1").shape == (3, len(phi), len(critic.known))


def test_cost_is_right_on_average_and_differs_between_queries(
    fitted: FittedCritic, outcomes: Outcomes
) -> None:
    critic = fitted.critic
    phi = critic.phi(fitted.inputs.embeddings, fitted.inputs.statistics)
    folded = FoldedCritic(critic, critic.known, torch.arange(len(critic.known)))
    cost = folded.exponential(phi, "log_cost").numpy()
    logged = outcomes.dense("cost")
    np.testing.assert_allclose(cost.mean(0), logged.mean(0), rtol=0.15)
    each = np.corrcoef(np.log(cost).ravel(), np.log(logged).ravel())[0, 1]
    within = [np.corrcoef(cost[:, p], logged[:, p])[0, 1] for p in range(outcomes.n_plans)]
    assert each > 0.9
    assert np.mean(within) > 0.3  # this query's cost, not the plan's mean


def test_predictions_used_for_choosing_are_out_of_fold(
    fitted: FittedCritic, outcomes: Outcomes
) -> None:
    """A held-out prediction comes from the member that missed the query's fold."""
    critic, inputs = fitted.critic, fitted.inputs
    phi = critic.query_features(inputs.embeddings, inputs.statistics, inputs.domains)
    z = critic.describe(critic.known)
    for head, held_out in enumerate(fitted.scores):
        module = critic.heads[Critic.score_head(head)]
        for fold in range(3):
            rows = inputs.fold == fold
            torch.testing.assert_close(
                held_out.grid[rows], module(phi, z, 1 + fold)[rows], atol=1e-4, rtol=1e-3
            )
        at_cells = held_out.grid.numpy()[outcomes.query, outcomes.plan]
        np.testing.assert_allclose(held_out.cells, at_cells, atol=1e-4, rtol=1e-3)
    assert torch.bincount(inputs.fold).tolist() == [50, 50, 50]


def test_a_query_does_not_teach_its_own_held_out_prediction(
    outcomes: Outcomes, world: SyntheticWorld, fitted: FittedCritic
) -> None:
    flipped = outcomes.score.copy()
    flipped[outcomes.query == 0] = 1 - flipped[outcomes.query == 0]
    other = fitted_on(replace(outcomes, score=flipped), world, CONFIG)
    # Noise, the plan effects of other folds: the changed query enters them by its own cells only.
    torch.testing.assert_close(
        other.scores[1].grid[0], fitted.scores[1].grid[0], atol=0.02, rtol=0.05
    )
    mate = (fitted.inputs.fold != fitted.inputs.fold[0]).nonzero()[0, 0]
    moved = (other.scores[2].grid[mate] - fitted.scores[2].grid[mate]).abs().max()
    assert moved > 0


def test_a_plan_that_is_not_logged_is_predicted_by_its_parts(
    fitted: FittedCritic, world: SyntheticWorld
) -> None:
    critic = fitted.critic
    new = replace(world.plans[0], agents=world.plans[0].agents[::-1])
    assert new not in world.plans
    index = critic.candidates.index_plans([*world.plans[:10], new])
    position = torch.tensor([*range(10), -1])
    folded = FoldedCritic(critic, index, position)
    phi = critic.phi(fitted.inputs.embeddings[:5], fitted.inputs.statistics[:5])
    score, cost = folded.score(phi, 2), folded.exponential(phi, "log_cost")
    assert torch.isfinite(score).all()
    assert torch.isfinite(cost).all()
    assert (score[:, -1] - score[:, 0]).abs().max() < 1
    known = FoldedCritic(critic, critic.known, torch.arange(10))
    torch.testing.assert_close(score[:, :10], known.score(phi, 2))


def test_the_jackknife_is_that_of_a_mean() -> None:
    """For the mean of m equal groups it is the usual standard error of the groups' mean."""
    rng = np.random.default_rng(0)
    groups = torch.from_numpy(rng.normal(size=(8, 5)))  # (m, statistics)
    without = (groups.sum(0, keepdim=True) - groups) / 7
    expected = groups.std(0, correction=1) / 8**0.5
    torch.testing.assert_close(jackknife_error(without), expected)


def test_errors_ignore_what_shifts_all_plans_of_a_query_alike() -> None:
    """Three queries of two cells, one of one cell, one without any."""
    cells = Cells(
        torch.tensor([0, 0, 1, 1, 2, 2, 3]), torch.tensor([0, 1, 0, 1, 0, 1, 0]),
        torch.tensor([0.0, 1, 1, 0, 1, 0, 1]), 5, 2,
    )  # fmt: skip
    shifted = cells.target + torch.tensor([5.0, 5, -3, -3, 0, 0, 0])
    torch.testing.assert_close(squared_errors(shifted, cells), torch.zeros(5))
    half = torch.full((7,), 0.5)
    torch.testing.assert_close(
        squared_errors(half, cells), torch.tensor([0.5, 0.5, 0.5, 0.25, 0.0])
    )


def test_logs_of_one_domain_without_costs_are_fitted_by_score_alone(
    outcomes: Outcomes, world: SyntheticWorld
) -> None:
    unknown = np.full(len(outcomes.score), np.nan)
    bare = replace(
        outcomes, cost=unknown, prompt_tokens=unknown, completion_tokens=unknown,
        datasets=("one",) * outcomes.n_queries, tasks=(None,) * outcomes.n_queries,
    )  # fmt: skip
    fitted = fitted_on(bare, world, CONFIG)
    assert fitted.critic.log_heads == ()
    assert fitted.cost is None
    assert fitted.critic.query_features.domains == ()
    phi = fitted.critic.phi(fitted.inputs.embeddings, fitted.inputs.statistics)
    assert torch.isfinite(fitted.critic.heads["score_2"](phi, fitted.critic.describe(
        fitted.critic.known))).all()  # fmt: skip


def test_free_calls_and_odd_texts_stay_finite(outcomes: Outcomes, world: SyntheticWorld) -> None:
    cost = np.where(outcomes.plan == 0, 0.0, outcomes.cost)
    fitted = fitted_on(replace(outcomes, cost=cost), world, CONFIG)
    critic = fitted.critic
    folded = FoldedCritic(critic, critic.known, torch.arange(10))
    odd = ["", "x" * 200_000, "\n" * 500, "0" * 5000]
    phi = critic.phi(torch.from_numpy(ENCODER.encode(odd)), torch.from_numpy(text_statistics(odd)))
    for value in (folded.exponential(phi, "log_cost"), folded.score(phi, 2)):
        assert torch.isfinite(value).all()
    assert folded.exponential(phi, "log_cost")[:, 0].max() < 1e-4


def test_the_kernel_says_how_much_is_shared(outcomes: Outcomes, world: SyntheticWorld) -> None:
    """With no weight on what plans share, each stands on its own runs."""
    alone = KernelWeights(topology=0.0, count=0.0, roles=0.0, models=0.0, position=0.0, own=1.0)
    fitted = fitted_on(outcomes, world, replace(CONFIG, kernel=alone))
    z = fitted.critic.describe(fitted.critic.known)
    gram = z @ z.T
    torch.testing.assert_close(gram, torch.ones(10, 10) + torch.eye(10))
