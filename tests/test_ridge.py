"""The exact solver of the critic's heads, against a direct solution of the same equations."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from masrouter_train import ridge
from masrouter_train.ridge import Cells, plan_effects, solve_ridge


def problem(
    n: int, f: int, p: int, r: int, share: float, seed: int
) -> tuple[torch.Tensor, torch.Tensor, Cells]:
    """Random features and a random share of the grid; at least one cell is known."""
    rng = np.random.default_rng(seed)
    known = rng.random((n, p)) < share
    known[rng.integers(n), rng.integers(p)] = True
    query, plan = np.nonzero(known)
    order = rng.permutation(len(query))  # nothing may hang on the order of cells
    cells = Cells(
        torch.from_numpy(query[order]),
        torch.from_numpy(plan[order]),
        torch.from_numpy(rng.normal(size=len(query))),
        n,
        p,
    )
    return (
        torch.from_numpy(rng.normal(size=(n, f))),
        torch.from_numpy(rng.normal(size=(p, r))),
        cells,
    )


def direct(
    phi: torch.Tensor, plans: torch.Tensor, cells: Cells, noise: float
) -> NDArray[np.float64]:
    """One row of kron(phi_i, l_a) a cell, solved with numpy."""
    left, right = phi.numpy()[cells.query.numpy()], plans.numpy()[cells.plan.numpy()]
    x = np.einsum("rf,rp->rfp", left, right).reshape(len(left), -1)
    precision = x.T @ x / noise + np.eye(x.shape[1])
    solution = np.linalg.solve(precision, x.T @ cells.target.numpy() / noise)
    return solution.reshape(phi.shape[1], plans.shape[1])


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 25), st.integers(1, 6), st.integers(1, 7), st.integers(1, 5),
    st.sampled_from([0.1, 0.4, 0.9, 1.0]), st.sampled_from([0.02, 0.2, 3.0]), st.integers(0, 99),
)  # fmt: skip
def test_the_solution_is_the_direct_one(
    n: int, f: int, p: int, r: int, share: float, noise: float, seed: int
) -> None:
    phi, plans, cells = problem(n, f, p, r, share, seed)
    solution = solve_ridge(phi, plans, cells, noise, tolerance=1e-10, max_steps=1000)
    np.testing.assert_allclose(
        solution.weights.numpy(), direct(phi, plans, cells, noise), atol=1e-6
    )


def test_the_default_tolerance_is_close_enough_in_single_precision() -> None:
    phi, plans, cells = problem(200, 20, 12, 8, 0.3, 5)
    exact = direct(phi, plans, cells, 0.2)
    single = Cells(cells.query, cells.plan, cells.target.float(), 200, 12)
    solution = solve_ridge(phi.float(), plans.float(), single, 0.2)
    assert solution.residual <= 1e-3
    error = np.abs(solution.weights.numpy() - exact).max() / np.abs(exact).max()
    assert error < 0.02


def test_gathered_cells_give_what_masked_ones_give(monkeypatch: pytest.MonkeyPatch) -> None:
    for seed, share in enumerate((0.05, 0.5, 1.0)):
        phi, plans, cells = problem(40, 5, 9, 4, share, seed)
        dense = solve_ridge(phi, plans, cells, 0.3, tolerance=1e-9)
        with monkeypatch.context() as patch:
            patch.setattr(ridge, "DENSE_CELLS", 0)
            gathered = solve_ridge(phi, plans, cells, 0.3, tolerance=1e-9)
        torch.testing.assert_close(gathered.weights, dense.weights, atol=1e-7, rtol=1e-6)


def test_a_complete_grid_takes_hardly_a_step_and_a_sparse_one_few() -> None:
    phi, plans, cells = problem(120, 30, 20, 10, 1.0, 1)
    assert solve_ridge(phi, plans, cells, 0.2, tolerance=1e-6).steps <= 2
    phi, plans, cells = problem(400, 30, 20, 10, 0.05, 1)
    assert 0 < solve_ridge(phi, plans, cells, 0.2).steps <= 60


def test_much_noise_shrinks_to_nothing_and_little_noise_fits() -> None:
    phi, plans, cells = problem(30, 4, 5, 3, 1.0, 2)
    truth = torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    target = (phi @ truth @ plans.T)[cells.query, cells.plan]
    exact = Cells(cells.query, cells.plan, target, 30, 5)
    quiet = solve_ridge(phi, plans, exact, 1e-6, tolerance=1e-9).weights
    torch.testing.assert_close(quiet, truth, atol=1e-4, rtol=1e-4)
    assert solve_ridge(phi, plans, exact, 1e9).weights.abs().max() < 1e-5


def test_nothing_to_explain_gives_no_weights() -> None:
    phi, plans, cells = problem(10, 3, 4, 2, 0.5, 0)
    flat = Cells(cells.query, cells.plan, torch.zeros_like(cells.target), 10, 4)
    solution = solve_ridge(phi, plans, flat, 0.2)
    assert not solution.weights.any()
    assert solution.steps == 0


def test_cells_of_some_queries_are_renumbered() -> None:
    _, _, cells = problem(12, 2, 5, 2, 0.5, 3)
    keep = torch.arange(12) % 3 != 0
    some = cells.at_queries(keep)
    assert some.n_queries == int(keep.sum())
    kept = keep.nonzero()[:, 0]
    before = {
        (int(q), int(p)): float(y)
        for q, p, y in zip(cells.query, cells.plan, cells.target, strict=True)
        if keep[q]
    }
    after = {
        (int(kept[q]), int(p)): float(y)
        for q, p, y in zip(some.query, some.plan, some.target, strict=True)
    }
    assert before == after


def runs(*per_plan: list[float]) -> Cells:
    plan = torch.tensor([p for p, scores in enumerate(per_plan) for _ in scores])
    target = torch.tensor([y for scores in per_plan for y in scores], dtype=torch.float64)
    return Cells(torch.arange(len(target)), plan, target, len(target), len(per_plan))


def test_a_plan_with_many_runs_keeps_its_mean_and_one_with_few_is_drawn_to_the_others() -> None:
    plans = torch.eye(4, dtype=torch.float64)
    cells = runs([1.0, 0.9] * 100, [0.1, 0.0] * 100, [1.0, 0.9], [0.5] * 100)
    mean, weights = plan_effects(plans, cells, noise=0.2)
    effect = mean + plans @ weights
    assert effect[0] == pytest.approx(0.95, abs=0.02)
    assert effect[1] == pytest.approx(0.05, abs=0.02)
    assert 0.5 < effect[2] < 0.8  # its two runs say 0.95, the grand mean 0.5
    assert mean == pytest.approx(float(cells.target.mean()))


def test_a_plan_without_runs_has_the_effect_of_its_parts() -> None:
    """Columns: two shared parts, and one own column a plan."""
    parts = torch.tensor([[1, 0], [1, 0], [0, 1], [0, 1], [1, 0], [0, 1]], dtype=torch.float64)
    own = torch.eye(6, dtype=torch.float64)[:, :4] * 0.3
    plans = torch.cat([parts, own], 1)
    cells = runs([0.9] * 50, [0.8] * 50, [0.2] * 50, [0.3] * 50, [], [])
    mean, weights = plan_effects(plans, cells, noise=0.1)
    effect = mean + plans @ weights
    assert effect[4] > 0.7
    assert effect[5] < 0.4
