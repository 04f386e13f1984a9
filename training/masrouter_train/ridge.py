"""Ridge regression with a Kronecker prior: the weights of every critic head, exactly.

    minimise over V (F, r):   sum over known cells (i, a) (y_ia - phi_i' V l_a)^2 / noise + ||V||^2

This is the posterior mean of a multi-task Gaussian process whose covariance is the product of a
linear kernel over queries (Phi Phi') and one over plans (L L'): Bonilla, Chai & Williams,
"Multi-task Gaussian Process Prediction", NeurIPS 2007. The normal equations are solved by conjugate
gradients. The preconditioner is the exact inverse for a complete grid (one eigendecomposition a
side), so that a grid takes one or two steps and a sparse log a few dozen.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

DENSE_CELLS = 30_000_000
"""Above this many (query, plan) pairs, cells are gathered one by one instead of masked."""


@dataclass(frozen=True)
class Cells:
    """R known cells of N queries and P plans."""

    query: Tensor  # (R,)
    plan: Tensor  # (R,)
    target: Tensor  # (R,)
    n_queries: int
    n_plans: int

    def at_queries(self, keep: Tensor) -> Cells:
        """Only the queries where `keep` (N,) holds, renumbered."""
        position = torch.cumsum(keep.long(), 0) - 1
        rows = keep[self.query]
        return Cells(
            position[self.query[rows]],
            self.plan[rows],
            self.target[rows],
            int(keep.sum()),
            self.n_plans,
        )


@dataclass(frozen=True)
class RidgeSolution:
    weights: Tensor  # (F, r)
    steps: int
    residual: float
    """Preconditioned residual relative to the start."""


def solve_ridge(
    phi: Tensor,
    plans: Tensor,
    cells: Cells,
    noise: float,
    *,
    tolerance: float = 1e-3,
    max_steps: int = 200,
) -> RidgeSolution:
    """The V that minimises the objective above.

    phi (N, F) and plans (P, r) already carry their prior deviations, so that the penalty is plain.
    """
    density = torch.bincount(cells.plan, minlength=cells.n_plans).to(phi) / max(len(phi), 1)
    a, axes_a = torch.linalg.eigh(phi.T @ phi)
    b, axes_b = torch.linalg.eigh(plans.T @ (plans * density[:, None]))
    a, b = a.clamp_min(0), b.clamp_min(0)
    scale = 1 + a[:, None] * b / noise  # (F, r) exact inverse of a complete grid
    apply, right = _normal_equations(phi @ axes_a, plans @ axes_b, cells, noise)
    x = right / scale
    r = right - apply(x)
    z = r / scale
    p, rz = z, float((r * z).sum())
    start = max(float((right * right / scale).sum()), 1e-30)
    steps = 0
    while steps < max_steps and rz > tolerance**2 * start:
        ap = apply(p)
        alpha = rz / float((p * ap).sum())
        x, r = x + alpha * p, r - alpha * ap
        z = r / scale
        fresh = float((r * z).sum())
        p, rz = z + fresh / rz * p, fresh
        steps += 1
    return RidgeSolution(axes_a @ x @ axes_b.T, steps, max(rz, 0.0) ** 0.5 / start**0.5)


def _normal_equations(
    phi: Tensor, plans: Tensor, cells: Cells, noise: float
) -> tuple[Callable[[Tensor], Tensor], Tensor]:
    """(V -> A V, right-hand side) of the normal equations, (F, r) each."""
    if cells.n_queries * cells.n_plans <= DENSE_CELLS:
        mask = torch.zeros(cells.n_queries, cells.n_plans, dtype=phi.dtype)
        mask[cells.query, cells.plan] = 1
        target = torch.zeros_like(mask)
        target[cells.query, cells.plan] = cells.target.to(phi.dtype)

        def dense(v: Tensor) -> Tensor:
            return v + phi.T @ ((mask * (phi @ v @ plans.T)) @ plans) / noise

        return dense, phi.T @ (target @ plans) / noise

    rows = plans[cells.plan]  # (R, r)

    def back(values: Tensor) -> Tensor:
        gathered = torch.zeros(cells.n_queries, plans.shape[1], dtype=phi.dtype)
        gathered.index_add_(0, cells.query, values[:, None] * rows)
        return phi.T @ gathered / noise

    def sparse(v: Tensor) -> Tensor:
        return v + back(((phi @ v)[cells.query] * rows).sum(1))

    return sparse, back(cells.target.to(phi.dtype))


def plan_effects(plans: Tensor, cells: Cells, noise: float) -> tuple[float, Tensor]:
    """The grand mean and each plan's effect as weights over plan features: (), (r,).

    An empirical-Bayes ridge of plan means on plan features: a plan with many runs keeps its own
    mean, one with few leans on the parts that it shares with others, one with none is all theirs.
    """
    runs = torch.bincount(cells.plan, minlength=cells.n_plans).to(plans.dtype)  # (P,)
    sums = torch.zeros_like(runs).index_add_(0, cells.plan, cells.target.to(plans.dtype))
    grand = float(sums.sum() / runs.sum().clamp_min(1))
    seen = runs > 0
    deviation = sums[seen] / runs[seen] - grand
    spread = float((deviation.square() * runs[seen]).sum() / runs[seen].sum())
    prior = max(spread / float(plans[seen].square().sum(1).mean()), 1e-6)
    x = plans[seen]
    precision = x.T @ (x * runs[seen][:, None]) / noise
    precision += torch.eye(plans.shape[1], dtype=plans.dtype) / prior
    weights = torch.linalg.solve(precision, x.T @ (runs[seen] * deviation) / noise)
    return grand, weights
