"""The outcome model: expected score, cost and tokens of any plan on any query.

    q(x, a) = phi(x)' W z(a)

phi(x) is [1, statistics, domain probabilities, text] (`features`), z(a) describes the plan by its
parts (`candidates.plan_features`). The row of W that meets the constant is the plan effect; the
rows of statistics and domain are the domain-by-plan effect; the rows of the embedding the
text-by-plan effect. Each part is shrunk on its own, and one that did not pay on held-out queries is
exactly zero. W is the posterior mean under a Kronecker prior (a multi-task Gaussian process in
weight space: Bonilla et al., NeurIPS 2007); `masrouter_train.ridge` finds it.

Not here: fitting, and the choice of a plan.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from masrouter.additions import Addition, PlanColumns, Posterior
from masrouter.candidates import (
    Candidates,
    KernelWeights,
    PlanIndex,
    plan_feature_width,
    plan_features,
)
from masrouter.features import FeatureScales
from masrouter.query_features import QueryFeatures
from masrouter.tensor_layout import TARGETS

LOG_CLIP = 20.0
"""Bound of predicted logarithms, so that exp stays finite whatever the text."""


@dataclass(frozen=True)
class CriticLoss:
    """Penalised squared error of one head; `total` is what fitting minimises."""

    error: Tensor  # () sum over known cells of (y - q)^2 / noise
    penalty: Tensor  # () sum of squared weights, each in units of its prior deviation

    @property
    def total(self) -> Tensor:
        return self.error + self.penalty


class BilinearHead(nn.Module):
    """phi' W z for M members: member 0 saw all training queries, each other missed one fold.

    Shapes: B queries, F features, P plans, G plan features.
    """

    def __init__(self, members: int, features: int, plan_features: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(members, features, plan_features))

    def forward(self, phi: Tensor, plans: Tensor, member: int = 0) -> Tensor:
        """One member on every pair: phi (B, F), plans (P, G) -> (B, P)."""
        return phi @ (self.weight[member] @ plans.T)

    def loss(
        self, phi: Tensor, plans: Tensor, target: Tensor, prior: Tensor, scales: Tensor,
        noise: float,
    ) -> CriticLoss:  # fmt: skip
        """Of member 0: squared error on known cells, and the distance from the prior mean.

        Args:
            phi: (B, F). plans: (P, G). target: (B, P), NaN where not known.
            prior: (F, G) the plan effect alone, which the other parts correct.
            scales: (F,) prior deviations; a feature of scale 0 is off and costs nothing.
            noise: variance of a cell.
        """
        known = torch.isfinite(target)
        residual = torch.where(known, torch.nan_to_num(target) - self(phi, plans), 0.0)
        on = scales > 0
        moved = (self.weight[0] - prior)[on] / scales[on][:, None]
        return CriticLoss(residual.square().sum() / noise, moved.square().sum())

    def fold(self, plans: Tensor) -> Tensor:
        """W z(a), to be computed once for plans (P, G) that stay the same -> (M, F, P)."""
        return self.weight @ plans.T


class Critic(nn.Module):
    """Heads over shared features: a score head for each shrinkage that the gate may use, one for
    cost and two for tokens."""

    def __init__(
        self,
        query_features: QueryFeatures,
        candidates: Candidates,
        known: PlanIndex,
        *,
        score_scales: Sequence[FeatureScales],
        log_heads: Sequence[str],
        members: int,
        kernel: KernelWeights,
    ) -> None:
        super().__init__()
        self.query_features = query_features
        self.candidates = candidates
        self.known = known
        self.kernel = kernel
        self.members = members
        self.score_scales = tuple(score_scales)
        self.log_heads = tuple(log_heads)
        width = plan_feature_width(candidates, len(known))
        names = [self.score_head(i) for i in range(len(self.score_scales))] + list(log_heads)
        self.heads = nn.ModuleDict(
            {name: BilinearHead(members, query_features.width, width) for name in names}
        )
        # exp(E[log c]) is below E[c]: one factor a plan sets the mean right (Duan 1983, smearing).
        self.log_bias = nn.ParameterDict(
            {name: nn.Parameter(torch.zeros(len(known))) for name in log_heads}
        )

    def head(self, name: str) -> BilinearHead:
        """One head by its name in `heads`."""
        head = self.heads[name]
        assert isinstance(head, BilinearHead)
        return head

    @staticmethod
    def score_head(position: int) -> str:
        """The module name of a score head."""
        return f"score_{position}"

    def describe(self, index: PlanIndex) -> Tensor:
        """Plans -> z, (P, G)."""
        return plan_features(index, self.candidates, self.kernel, self.known)

    def phi(self, embeddings: Tensor, statistics: Tensor) -> Tensor:
        """(B, E), (B, S) -> (B, F)."""
        features: Tensor = self.query_features(embeddings, statistics)
        return features

    def config(self) -> dict[str, Any]:
        """What, beside tensors, rebuilds this module."""
        return {
            "dimension": self.query_features.dimension,
            "domains": list(self.query_features.domains),
            "score_scales": [asdict(scales) for scales in self.score_scales],
            "log_heads": list(self.log_heads),
            "members": self.members,
            "kernel": asdict(self.kernel),
        }


@dataclass(frozen=True)
class _Learned:
    """An addition, and by head what its probes taught."""

    addition: Addition
    plans: PlanIndex
    posteriors: dict[str, Posterior]


@dataclass(frozen=True)
class _Group:
    """Plans that came at one time. Products are made group by group, so that what is predicted of
    a plan is the same to the last bit whatever was added after it."""

    folded: dict[str, Tensor]  # head -> (M, F, P)
    open: tuple[tuple[dict[str, Posterior], PlanColumns], ...]
    """What additions left open: their posteriors by head, and their columns of these plans."""

    @classmethod
    def of(
        cls,
        folded: dict[str, Tensor],
        left: tuple[tuple[dict[str, Posterior], PlanColumns], ...],
    ) -> _Group:
        """Members lie beside each other for each feature, so that all are one product."""
        beside = {name: part.transpose(0, 1).contiguous() for name, part in folded.items()}
        return cls({name: part.transpose(0, 1) for name, part in beside.items()}, left)

    def members(self, phi: Tensor, name: str) -> Tensor:
        """Every member but the first: (B, F) -> (M - 1, B, P)."""
        rest = self.folded[name][1:]
        members, _, plans = rest.shape
        together = phi @ rest.transpose(0, 1).flatten(1)  # (B, (M - 1) P), a view of the weights
        return together.reshape(-1, members, plans).transpose(0, 1)

    def variance(self, phi: Tensor, name: str, *, before: bool) -> Tensor:
        """(B, F) -> (B, P)."""
        total = phi.new_zeros(phi.shape[0], self.folded[name].shape[2])
        for posteriors, columns in self.open:
            posterior = posteriors[name]
            part = posterior.prior if before else posterior.variance
            total = total + part(phi, columns)
        return total


class FoldedCritic:
    """The critic for a fixed list of plans: every head's W z(a) is multiplied out once.

    A call is then one small matrix product a head, whatever the number of queries.
    """

    def __init__(
        self,
        critic: Critic,
        index: PlanIndex,
        known_position: Tensor,
        additions: Sequence[Addition] = (),
    ) -> None:
        """`known_position` (P,): position among the critic's own plans, -1 for a plan that the
        logs do not hold (it gets the mean bias). The plans of `additions` are the last ones."""
        self.critic = critic
        ends = [len(index) - sum(a.plans for a in additions)]
        for addition in additions:
            ends.append(ends[-1] + addition.plans)
        learned: list[_Learned] = []
        with torch.no_grad():
            self._groups = [self._group(index.at(torch.arange(ends[0])), learned)]
            for addition, (start, end) in zip(additions, pairwise(ends), strict=True):
                plans = index.at(torch.arange(start, end))
                learned.append(self._learn(addition, plans, learned))
                self._groups.append(self._group(plans, learned))
        self._bias = {}
        for name, bias in critic.log_bias.items():
            mean = bias.detach().mean()
            own = bias.detach()[known_position.clamp_min(0)]
            self._bias[name] = torch.where(known_position >= 0, own, mean)  # (P,)

    def score(self, phi: Tensor, head: int, member: int = 0) -> Tensor:
        """(B, F) -> (B, P)."""
        return self.mean(phi, Critic.score_head(head), member)

    def mean(self, phi: Tensor, name: str, member: int = 0) -> Tensor:
        """What a head predicts, in the units that it learned: (B, F) -> (B, P)."""
        return _beside([phi @ group.folded[name][member] for group in self._groups])

    def members(self, phi: Tensor, name: str) -> Tensor:
        """Every member but the first: (B, F) -> (M - 1, B, P)."""
        return _beside([group.members(phi, name) for group in self._groups])

    def exponential(self, phi: Tensor, name: str) -> Tensor:
        """Expected value of a head that learned logarithms: (B, F) -> (B, P)."""
        logs = self.mean(phi, name) + self._bias[name]
        return logs.clamp(-LOG_CLIP, LOG_CLIP).exp()

    def variance(self, phi: Tensor, name: str, *, before: bool = False) -> Tensor:
        """What is open beside the members' spread: (B, F) -> (B, P), 0 for trained plans.

        `before`: what was open before any probe.
        """
        return _beside([g.variance(phi, name, before=before) for g in self._groups])

    def has(self, name: str) -> bool:
        return name in self.critic.heads

    def _group(self, plans: PlanIndex, learned: Sequence[_Learned]) -> _Group:
        critic = self.critic
        z = critic.describe(plans)
        folded = {name: critic.head(name).fold(z) for name in critic.heads}
        rest = []
        for other in learned:
            columns = other.addition.columns(plans, other.plans, critic.candidates, critic.kernel)
            if columns.empty:
                continue
            rest.append((other.posteriors, columns))
            if len(other.addition.phi) == 0:
                continue  # nothing was learned beside the description
            for name, posterior in other.posteriors.items():
                folded[name] = folded[name] + posterior.fold(columns)
        return _Group.of(folded, tuple(rest))

    def _learn(self, addition: Addition, plans: PlanIndex, before: Sequence[_Learned]) -> _Learned:
        """From what is predicted of the addition's plans without its probes."""
        critic = self.critic
        folded = self._group(plans, before).folded
        columns = addition.columns(plans, plans, critic.candidates, critic.kernel)
        posteriors = {}
        for position, name in enumerate(critic.heads):
            target = addition.targets[:, TARGETS.index(name) if name in TARGETS else 0]
            cells = torch.isfinite(target)
            phi, plan = addition.phi[cells], addition.plan[cells].long()
            predicted = (phi.T * folded[name][:, :, plan]).sum(1)  # (M, n)
            posteriors[name] = Posterior.learn(
                torch.stack(
                    [
                        critic.query_features.column_scales(FeatureScales(*blocks), constant)
                        for constant, *blocks in addition.deviations[position].tolist()
                    ]
                ),
                float(addition.noise[position]),
                addition.mean_phi,
                phi,
                columns.at(plan),
                addition.query[cells],
                target[cells] - predicted,
            )
        return _Learned(addition, plans, posteriors)


def _beside(parts: Sequence[Tensor]) -> Tensor:
    """Groups of plans as one, (..., P) each; a router without additions copies nothing."""
    return parts[0] if len(parts) == 1 else torch.cat(list(parts), -1)


def jackknife_error(members: Tensor) -> Tensor:
    """Standard error from M - 1 estimates that each missed one fold: (M - 1, ...) -> (...).

    Delete-a-group jackknife (Shao & Tu 1995, section 2.3): (m - 1) / m * sum (t_k - mean)^2.
    """
    m = len(members)
    deviation = members - members.mean(0, keepdim=True)
    return ((m - 1) / m * deviation.square().sum(0)).sqrt()
