"""What a router was given after training, and what a few probe runs say of it.

    q(x, a) = phi(x)' W z(a) + psi(x)' V n(a)

W is what training learned (`critic`) and stays as it is. n(a) holds the columns that training did
not have: one for each new name, as `candidates.plan_features` makes them for learned names, and one
for each new plan; it is zero for every older plan, so that nothing changes there. psi(x) is phi(x)
about the mean query. The entries of V are independent and Gaussian before the probes, with one
deviation for each block of psi, of names and of plans, times a common factor that the probes choose
(`_stretch`). Given that, their posterior is exact: that of a Gaussian process whose covariance is a
sum of products of linear kernels over queries and over plans (Rasmussen & Williams 2006, chapter 2;
Bonilla et al., NeurIPS 2007). Its variance is what a new candidate's intervals are made of.

A checkpoint keeps the probes and the priors; V follows from them.
Not here: where probes and priors come from (`adaptation`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from masrouter.candidates import Candidates, KernelWeights, PlanIndex, own_columns

SAME_QUERY = 0.4
"""Correlation of what is left over when two plans answer the same query: 0.2 to 0.5 on real logs.
Without it, three plans on one query would count as three queries."""
PRODUCTS = 4_000_000
"""Of queries, plans and probes at once: bounds the memory of variances."""
STRETCHES = (1.0, 1.5, 2.0, 3.0, 4.5, 7.0, 10.0, 15.0)
TAIL = 4.0
"""How a description's error may exceed what was measured; see `_stretch`."""


@dataclass(frozen=True)
class Addition:
    """Plans that were added in one step, the names that are new in them, and n probe cells.

    A cell is one plan on one query; runs that were repeated are its mean. F query features, H heads
    of the critic in their order.
    """

    title: str
    """What was added, such as `model gpt-5`; empty for plans without a profile of their own."""
    topologies: tuple[str, ...]
    roles: tuple[str, ...]
    models: tuple[str, ...]
    plans: int
    mean_phi: Tensor  # (F,) of the training queries, about which psi is centred
    deviations: Tensor  # (H, 2, BLOCKS) prior deviations in V: columns of names, and of plans
    noise: Tensor  # (H,) variance of a cell
    phi: Tensor  # (n, F)
    query: Tensor  # (n,) int32, equal for cells of the same query
    plan: Tensor  # (n,) int32, position among the plans of this addition
    targets: Tensor  # (n, 4) see `tensor_layout.TARGETS`; NaN where it is not known

    def columns(
        self, index: PlanIndex, own: PlanIndex, candidates: Candidates, weights: KernelWeights
    ) -> PlanColumns:
        """n(a) of any plans. `own`: the plans of this addition."""
        names = name_columns(index, candidates, weights, self.topologies, self.roles, self.models)
        plans = math.sqrt(weights.own) * own_columns(index, own, candidates.ordered)
        return PlanColumns(names, plans)

    def config(self) -> dict[str, Any]:
        """JSON part of the state."""
        return {
            "title": self.title,
            "topologies": list(self.topologies),
            "roles": list(self.roles),
            "models": list(self.models),
            "plans": self.plans,
        }

    def tensors(self, position: int) -> dict[str, NDArray[Any]]:
        """Arrays of the state. Unknown targets travel beside a mask: files hold no NaN."""
        parts = {
            name: getattr(self, name).numpy()
            for name in ("mean_phi", "deviations", "noise", "phi", "query", "plan")
        }
        parts["targets"] = torch.nan_to_num(self.targets, nan=0.0).numpy()
        parts["targets_known"] = torch.isfinite(self.targets).numpy()
        return {f"additions.{position}.{name}": value for name, value in parts.items()}

    @classmethod
    def from_state(
        cls, config: Mapping[str, Any], tensors: Mapping[str, NDArray[Any]], position: int
    ) -> Addition:
        """What `config` and `tensors` wrote."""
        part = {
            name: torch.from_numpy(tensors[f"additions.{position}.{name}"])
            for name in ("mean_phi", "deviations", "noise", "phi", "query", "plan")
        }
        known = torch.from_numpy(tensors[f"additions.{position}.targets_known"])
        targets = torch.from_numpy(tensors[f"additions.{position}.targets"])
        return cls(
            title=config["title"],
            topologies=tuple(config["topologies"]),
            roles=tuple(config["roles"]),
            models=tuple(config["models"]),
            plans=config["plans"],
            targets=torch.where(known, targets, torch.tensor(math.nan)),
            **part,
        )


@dataclass(frozen=True)
class PlanColumns:
    """n(a) of P plans."""

    names: Tensor  # (P, J)
    plans: Tensor  # (P, K)

    def at(self, rows: Tensor) -> PlanColumns:
        """Only these plans."""
        return PlanColumns(self.names[rows], self.plans[rows])

    @property
    def parts(self) -> tuple[Tensor, Tensor]:
        """Both, in the order of `Addition.deviations`."""
        return self.names, self.plans

    @property
    def empty(self) -> bool:
        """These plans have nothing of the addition."""
        return not bool(self.names.any() or self.plans.any())


def name_columns(
    index: PlanIndex,
    candidates: Candidates,
    weights: KernelWeights,
    topologies: Sequence[str] = (),
    roles: Sequence[str] = (),
    models: Sequence[str] = (),
) -> Tensor:
    """The identity columns of these names, (P, J): half of a block of `candidates.plan_features`,
    whose other half, the description, is known already."""
    ordered = torch.tensor(candidates.ordered, dtype=torch.float32)[index.topology]  # (P,)
    seat = (index.model >= 0).float()  # (P, K)
    share = seat / seat.sum(1, keepdim=True)
    last = index.model[torch.arange(len(index)), index.count - 1]  # (P,)
    columns = [torch.zeros(len(index), 0)]
    for name in topologies:
        is_it = (index.topology == candidates.topologies.index(name, "topology")).float()
        columns.append(math.sqrt(weights.topology / 2) * is_it[:, None])
    for name in roles:
        is_it = (index.role == candidates.roles.index(name, "role")).float() * share
        columns.append(math.sqrt(weights.roles / 2) * is_it.sum(1, keepdim=True))
    for name in models:
        at = candidates.models.index(name, "model")
        is_it = (index.model == at).float() * share
        columns.append(math.sqrt(weights.models / 2) * is_it.sum(1, keepdim=True))
        ends = torch.stack([index.model[:, 0] == at, last == at], 1) * ordered[:, None]  # (P, 2)
        columns.append(math.sqrt(weights.position) / 2 * ends)
    return torch.cat(columns, 1)


@dataclass(frozen=True)
class Posterior:
    """V of one head given the probes that know its target; n of them, M members.

    Every member explains what its own W left over by the same linear rule, so that the members'
    spread shrinks as probes come, and `variance` says what none of them knows.
    """

    weights: tuple[Tensor, Tensor]  # (M, F, J), (M, F, K) in units of phi, not of psi
    scales: Tensor  # (2, F) prior deviations of the rows, stretched (see `_stretch`)
    mean_phi: Tensor  # (F,)
    psi: Tensor  # (n, F) of the probes
    columns: PlanColumns  # of the probes' plans, n rows
    whitener: Tensor  # (n, n) a root of the inverse covariance of the cells

    @classmethod
    def learn(
        cls,
        scales: Tensor,
        noise: float,
        mean_phi: Tensor,
        phi: Tensor,
        columns: PlanColumns,
        query: Tensor,
        residual: Tensor,
    ) -> Posterior:
        """Condition on residuals (M, n): what each member's prediction missed on the probes.

        Args:
            scales: (2, F). noise: variance of a cell, of which SAME_QUERY is shared by a query.
            phi: (n, F). columns: of the n plans. query: (n,).
        """
        psi = _about(phi, mean_phi)
        prior = torch.zeros(len(phi), len(phi), dtype=torch.float64)
        for scale, part in zip(scales, columns.parts, strict=True):
            scaled = psi * scale
            prior += (scaled @ scaled.T).double() * (part @ part.T).double()
        same = (query[:, None] == query[None, :]).double()
        own = torch.eye(len(phi), dtype=torch.float64)
        factor = torch.linalg.cholesky(noise * ((1 - SAME_QUERY) * own + SAME_QUERY * same))
        # In coordinates where noise is 1 and independent, and the prior covariance is diagonal.
        white = torch.linalg.solve_triangular(factor, own, upper=False)
        values, axes = torch.linalg.eigh(white @ prior @ white.T)
        values, white = values.clamp_min(0), axes.T @ white  # (n,), (n, n)
        seen = residual.double() @ white.T  # (M, n)
        stretch = _stretch(values, seen[0])
        whitener = white / (1 + stretch**2 * values).sqrt()[:, None]
        dual = ((residual.double() @ whitener.T) @ whitener).float()  # (M, n)
        scales = stretch * scales
        weights = []
        for scale, part in zip(scales, columns.parts, strict=True):
            if len(phi) == 0:
                nothing = torch.zeros(1, 1, 1)
                weights.append(nothing.expand(len(residual), len(scale), part.shape[1]))
                continue
            rows = (psi * scale.square()).T @ (dual[:, :, None] * part)  # (M, F, j)
            rows[:, 0] -= (mean_phi[1:, None] * rows[:, 1:]).sum(1)
            weights.append(rows)
        return cls((weights[0], weights[1]), scales, mean_phi, psi, columns, whitener.float())

    def fold(self, columns: PlanColumns) -> Tensor:
        """V n(a) of P plans -> (M, F, P), as `critic.BilinearHead.fold`."""
        names, plans = self.weights
        return names @ columns.names.T + plans @ columns.plans.T

    def prior(self, phi: Tensor, columns: PlanColumns) -> Tensor:
        """Variance of psi(x)' V n(a) before the probes: (B, F), P plans -> (B, P)."""
        psi = _about(phi, self.mean_phi)
        total = phi.new_zeros(phi.shape[0], len(columns.names))
        for scale, part in zip(self.scales, columns.parts, strict=True):
            total = total + (psi * scale).square().sum(1)[:, None] * part.square().sum(1)
        return total

    def variance(self, phi: Tensor, columns: PlanColumns) -> Tensor:
        """The same after them: what the probes leave open, (B, F), P plans -> (B, P)."""
        prior = self.prior(phi, columns)
        if len(self.psi) == 0:
            return prior
        psi = _about(phi, self.mean_phi)
        rows = max(1, PRODUCTS // (len(columns.names) * len(self.psi)))
        if psi.shape[0] <= rows:  # an export allows no more
            return (prior - self._known(psi, columns)).clamp_min(0)
        known = [self._known(part, columns) for part in torch.split(psi, rows)]
        return (prior - torch.cat(known)).clamp_min(0)

    def _known(self, psi: Tensor, columns: PlanColumns) -> Tensor:
        """What the probes tell of the variance: (B, F), P plans -> (B, P), by way of (B, P, n)."""
        like = torch.zeros(())
        parts = zip(self.scales, columns.parts, self.columns.parts, strict=True)
        for scale, mine, theirs in parts:
            queries = (psi * scale) @ (self.psi * scale).T  # (B, n)
            like = like + queries[:, None] * (mine @ theirs.T)  # (B, P, n)
        return (like @ self.whitener.T).square().sum(2)


def _stretch(values: Tensor, seen: Tensor) -> float:
    """By what the prior deviations are multiplied: root mean square over STRETCHES.

    Descriptions mislead seldom, and then badly: a deviation is s times what was measured with a
    weight that falls as s ** -TAIL (a discrete Student prior), times how well it explains the
    probes, whose coordinates `seen` (n,) have the variances 1 + s^2 `values` (n,).
    """
    s = torch.tensor(STRETCHES, dtype=torch.float64)
    spread = 1 + s.square()[:, None] * values  # (S, n)
    likelihood = -0.5 * (seen.square() / spread + spread.log()).sum(1)  # (S,)
    share = (likelihood - TAIL * s.log()).softmax(0)
    return float((share * s.square()).sum().sqrt())


def _about(phi: Tensor, mean: Tensor) -> Tensor:
    """phi (B, F) about the mean query; its constant stays 1."""
    return torch.cat([phi[:, :1], phi[:, 1:] - mean[1:]], 1)
