"""What the cascade minimises, against sums written out by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from masrouter_train.objectives import (
    CascadeLoss,
    grid_loss,
    observational_loss,
    randomised_loss,
    restrict,
    teacher,
)


def policy(b: int, c: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(b, c, generator=generator, dtype=torch.float64).log_softmax(1)


def some_available(b: int, c: int, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    available = torch.rand(b, c, generator=generator) < 0.6
    available[torch.arange(b), torch.arange(b) % c] = True
    return available


def uniform(b: int, c: int) -> Tensor:
    return torch.full((b, c), 1 / c, dtype=torch.float64)


def test_a_restricted_policy_sums_to_one_over_what_is_available() -> None:
    log_p, available = policy(6, 5), some_available(6, 5)
    inside = restrict(log_p, available)
    assert (inside[~available] == -torch.inf).all()
    torch.testing.assert_close(inside.exp().sum(1), torch.ones(6, dtype=torch.float64))
    for row in range(6):  # ratios between available plans are kept
        at = available[row].nonzero()[:, 0]
        difference = (inside - log_p)[row, at]
        torch.testing.assert_close(difference, difference[:1].expand_as(difference))
    assert torch.equal(restrict(log_p, torch.ones_like(available)).argmax(1), log_p.argmax(1))


def test_the_teacher_prefers_the_better_plan_by_temperature() -> None:
    predicted = torch.tensor([[0.5, 0.6, float("nan")]])
    available = torch.tensor([[True, True, False]])
    scale = torch.ones(1)
    warm, cold = (teacher(predicted, available, scale, t) for t in (1.0, 0.01))
    assert warm[0, 1] / warm[0, 0] == pytest.approx(2.718281828**0.1)
    assert cold[0].tolist() == pytest.approx([0, 1, 0], abs=1e-4)
    assert float(warm.sum()) == pytest.approx(1)
    doubled = teacher(predicted, available, 2 * scale, 0.5)
    torch.testing.assert_close(doubled, warm)


def grid(log_p: Tensor, utility: Tensor, available: Tensor, **changes: Any) -> CascadeLoss:
    b, c = log_p.shape
    options: dict[str, Any] = {
        "target": uniform(b, c), "scale": torch.ones(b, dtype=torch.float64),
        "ranking": 0.0, "entropy": 0.0, "shift": 1,
    }  # fmt: skip
    options |= changes
    return grid_loss(
        log_p, options.pop("target"), utility, available, options.pop("scale"), **options
    )


def test_grid_utility_is_the_expected_utility_of_a_draw() -> None:
    b, c = 4, 5
    log_p, available = policy(b, c), some_available(b, c)
    generator = torch.Generator().manual_seed(3)
    utility = torch.rand(b, c, generator=generator, dtype=torch.float64)
    scale = torch.tensor([1.0, 2.0, 4.0, 1.0], dtype=torch.float64)
    by_hand = 0.0
    for row in range(b):
        mass = sum(float(log_p[row, k].exp()) for k in range(c) if available[row, k])
        for k in range(c):
            if available[row, k]:
                p = float(log_p[row, k].exp()) / mass
                by_hand += p * float(utility[row, k]) / float(scale[row]) / b
    hidden = torch.where(available, utility, torch.nan)  # what is not available is not known
    loss = grid(log_p, hidden, available, scale=scale)
    assert float(loss.utility) == pytest.approx(-by_hand)


def test_terms_are_weighted_and_add_up() -> None:
    log_p, available = policy(4, 5), some_available(4, 5)
    utility = torch.rand(4, 5, dtype=torch.float64)
    target = restrict(policy(4, 5, 9), available).exp()
    one = grid(log_p, utility, available, ranking=0.3, entropy=0.01, target=target)
    two = grid(log_p, utility, available, ranking=0.6, entropy=0.02, target=target)
    assert float(two.preference) == pytest.approx(2 * float(one.preference))
    assert float(two.entropy) == pytest.approx(2 * float(one.entropy))
    inside = restrict(log_p, available)
    p = inside.exp()
    known = torch.where(available, inside, 0.0)
    assert float(one.entropy) == pytest.approx(0.01 * float((p * known).sum(1).mean()))
    assert float(one.distillation) == pytest.approx(-float((target * known).sum(1).mean()))
    parts = (one.distillation, one.utility, one.preference, one.entropy)
    assert float(one.total) == pytest.approx(sum(map(float, parts)))


def descend(loss_of: Callable[[Tensor], Tensor], c: int, steps: int = 200) -> Tensor:
    """Probabilities after plain gradient descent from the uniform policy."""
    logits = torch.zeros(1, c, dtype=torch.float64, requires_grad=True)
    for _ in range(steps):
        (gradient,) = torch.autograd.grad(loss_of(logits.log_softmax(1)), logits)
        logits = (logits - 2.0 * gradient).detach().requires_grad_(True)
    return logits.softmax(1)[0].detach()


@pytest.mark.parametrize("term", ["utility", "preference"])
def test_grid_gradients_move_towards_the_better_plan(term: str) -> None:
    utility = torch.tensor([[0.1, 0.9, 0.5, 2.0]], dtype=torch.float64)
    available = torch.tensor([[True, True, True, False]])

    def loss(log_p: Tensor) -> Tensor:
        parts = [
            getattr(grid(log_p, utility, available, ranking=1.0, shift=shift), term)
            for shift in (1, 2, 3)
        ]
        total: Tensor = sum(parts)  # type: ignore[assignment]
        return total

    p = descend(loss, 4)
    inside = p[:3] / p[:3].sum()
    assert inside[1] > inside[2] > inside[0]
    assert inside[1] > 0.7


def test_ranking_is_indifferent_between_equal_plans() -> None:
    log_p = policy(3, 4)
    loss = grid(log_p, torch.ones(3, 4, dtype=torch.float64), torch.ones(3, 4).bool(), ranking=1.0)
    assert float(loss.preference) == 0


def randomised(log_p: Tensor, predicted: Tensor, **changes: Any) -> CascadeLoss:
    b, c = log_p.shape
    options: dict[str, Any] = {
        "target": uniform(b, c), "available": torch.ones(b, c, dtype=torch.bool),
        "scale": torch.ones(b, dtype=torch.float64), "logged": torch.zeros(b, dtype=torch.long),
        "reward": torch.ones(b, dtype=torch.float64),
        "propensity": torch.full((b,), 0.5, dtype=torch.float64),
        "advantage_temperature": 0.2, "weight_clip": 1e9, "entropy": 0.0,
    }  # fmt: skip
    options |= changes
    return randomised_loss(
        log_p, options.pop("target"), predicted, options.pop("available"), options.pop("scale"),
        options.pop("logged"), options.pop("reward"), options.pop("propensity"), **options,
    )  # fmt: skip


def test_doubly_robust_is_unbiased_with_a_wrong_critic_and_right_propensities() -> None:
    """Enumerate every logged plan: the expectation over the logging policy is the true value."""
    c = 4
    log_p = policy(1, c)
    truth = torch.tensor([[0.2, 0.9, 0.4, 0.6]], dtype=torch.float64)
    logging = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64)
    scale = torch.tensor([2.5], dtype=torch.float64)
    value = float((log_p.exp() * truth).sum() / scale)
    for wrong in (torch.zeros(1, c), torch.tensor([[5.0, -3.0, 0.5, 1.0]]), truth):
        expected = 0.0
        for plan in range(c):
            loss = randomised(
                log_p, wrong.double(), logged=torch.tensor([plan]), reward=truth[:, plan],
                propensity=logging[plan : plan + 1], scale=scale,
            )  # fmt: skip
            expected += float(logging[plan]) * -float(loss.utility)
        assert expected == pytest.approx(value)


def test_doubly_robust_is_right_with_a_right_critic_whatever_the_propensities() -> None:
    log_p = policy(1, 3)
    truth = torch.tensor([[0.2, 0.9, 0.4]], dtype=torch.float64)
    for plan in range(3):
        loss = randomised(
            log_p, truth, logged=torch.tensor([plan]), reward=truth[:, plan],
            propensity=torch.tensor([0.01], dtype=torch.float64),
        )  # fmt: skip
        assert -float(loss.utility) == pytest.approx(float((log_p.exp() * truth).sum()))


def test_the_gradient_of_doubly_robust_is_unbiased_too() -> None:
    c = 3
    truth = torch.tensor([[0.2, 0.9, 0.4]], dtype=torch.float64)
    wrong = torch.tensor([[0.8, 0.1, 0.3]], dtype=torch.float64)
    logging = torch.tensor([0.2, 0.3, 0.5], dtype=torch.float64)
    logits = torch.tensor([[0.3, -0.2, 0.1]], dtype=torch.float64, requires_grad=True)
    exact = -(logits.softmax(1) * truth).sum()
    (right,) = torch.autograd.grad(exact, logits)
    found = torch.zeros_like(right)
    for plan in range(c):
        loss = randomised(
            logits.log_softmax(1), wrong, logged=torch.tensor([plan]), reward=truth[:, plan],
            propensity=logging[plan : plan + 1],
        )  # fmt: skip
        found += logging[plan] * torch.autograd.grad(loss.utility, logits)[0]
    torch.testing.assert_close(found, right)


def test_clipped_weights_bound_what_one_run_says() -> None:
    log_p = torch.log(torch.tensor([[0.9, 0.1]], dtype=torch.float64))
    q = torch.zeros(1, 2, dtype=torch.float64)
    rare = torch.tensor([1e-6], dtype=torch.float64)
    clipped = randomised(log_p, q, propensity=rare, weight_clip=20.0)
    assert -float(clipped.utility) == pytest.approx(20.0)
    assert -float(randomised(log_p, q, propensity=rare).utility) == pytest.approx(9e5)


def test_likelihood_is_weighted_by_advantage() -> None:
    """A run better than expected pulls harder than one worse than expected."""
    q = torch.full((1, 2), 0.5, dtype=torch.float64)
    pull = []
    for reward in (1.0, 0.5, 0.0):
        logits = torch.zeros(1, 2, dtype=torch.float64, requires_grad=True)
        loss = randomised(
            logits.log_softmax(1), q, reward=torch.tensor([reward], dtype=torch.float64)
        )
        (gradient,) = torch.autograd.grad(loss.preference, logits)
        pull.append(-float(gradient[0, 0]))
    assert pull[0] > pull[1] > pull[2] > 0
    assert pull[0] / pull[1] == pytest.approx(2.718281828 ** (0.5 / 0.2))


def test_a_run_outside_the_tree_teaches_only_what_the_critic_says() -> None:
    log_p, q = policy(2, 3), torch.rand(2, 3, dtype=torch.float64)
    outside = randomised(
        log_p, q, logged=torch.tensor([-1, -1]), reward=torch.tensor([99.0, -99.0]).double()
    )
    assert -float(outside.utility) == pytest.approx(float((log_p.exp() * q).sum(1).mean()))
    assert float(outside.preference) == 0


@pytest.mark.parametrize("kind", ["grid", "randomised", "observational"])
def test_unavailable_plans_leave_no_trace_in_loss_or_gradient(kind: str) -> None:
    """Whatever is unknown of them (NaN), nothing becomes NaN, and nothing pulls on them."""
    b, c = 5, 6
    available = some_available(b, c)
    available[0] = False
    available[0, 2] = True  # one plan alone
    generator = torch.Generator().manual_seed(5)
    nan = torch.full((b, c), torch.nan, dtype=torch.float64)
    value = torch.where(available, torch.rand(b, c, generator=generator).double(), nan)
    scale = torch.ones(b, dtype=torch.float64)
    target = teacher(value, available, scale, 0.1)
    assert not target[~available].any()
    logits = torch.randn(b, c, generator=generator).double().requires_grad_(True)
    log_p = logits.log_softmax(1)
    if kind == "grid":
        loss = grid(log_p, value, available, ranking=1.0, entropy=0.1, target=target, shift=2)
    elif kind == "randomised":
        loss = randomised(
            log_p, value, available=available, target=target, entropy=0.1, weight_clip=20.0,
            logged=torch.tensor([2, 1, 2, 3, -1]),  # some of them not available
        )  # fmt: skip
    else:
        loss = observational_loss(log_p, target, available, entropy=0.1)
    for part in ("distillation", "utility", "preference", "entropy", "total"):
        assert torch.isfinite(getattr(loss, part)), part
    (gradient,) = torch.autograd.grad(loss.total, logits)
    assert torch.isfinite(gradient).all()
    inside = torch.where(available, gradient, 0.0).abs().sum()
    assert inside > 0
    torch.testing.assert_close(  # restricting removes all mass but that of available plans
        gradient[~available], torch.zeros_like(gradient[~available]), atol=1e-9, rtol=0
    )


def test_observational_logs_teach_the_pessimistic_critic_alone() -> None:
    log_p, available = policy(3, 4), some_available(3, 4)
    target = restrict(policy(3, 4, 7), available).exp()
    loss = observational_loss(log_p, target, available, entropy=0.0)
    assert float(loss.utility) == float(loss.preference) == 0
    assert float(loss.total) == pytest.approx(float(loss.distillation))
