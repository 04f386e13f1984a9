"""The networks of a router run by torch: what training made, and what an export is made from.

Three small modules hold all that is asked of the networks in a decision. `TorchScorer` runs them as
they are; `exporting` writes the same modules as graphs. So there is one copy of the formulas.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from masrouter.additions import PRODUCTS
from masrouter.critic import Critic, FoldedCritic, jackknife_error
from masrouter.gate import Floats32, Ints
from masrouter.networks import fold
from masrouter.plan_steps import open_depths
from masrouter.query_features import QueryFeatures
from masrouter.router_state import RouterState
from masrouter.scorer import Reading, Scores

ROWS = 256
MOST_LOG_ERROR = 5.0
"""Bound of the standard error of a logarithm of a cost, so that its factor stays finite."""


class ReadQueries(nn.Module):
    """Queries -> features, state of the cascade, and what is expected to be spent on each plan.

    Shapes: B queries, E embedding, S statistics, D domains, F features, W state, C plans.
    """

    learned_cost: Tensor  # (C,) plans whose costs were logged

    def __init__(self, state: RouterState, folded: FoldedCritic) -> None:
        super().__init__()
        features = state.critic.query_features
        assert isinstance(features, QueryFeatures)
        self.features = features
        self.controller = state.controller
        self.folded = folded
        self.added = bool(state.networks.added)
        known = torch.from_numpy(np.isfinite(state.gate.mean_cost))
        self.register_buffer("learned_cost", known)
        self.amounts = tuple(name for name in AMOUNTS if folded.has(name))

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of what `forward` returns."""
        domains = ("domains",) if self.features.domains else ()
        amounts = (AMOUNTS[name] for name in self.amounts)
        return ("phi", *domains, "state", "cost_factor", *amounts)

    def forward(
        self, embeddings: Tensor, statistics: Tensor, cost_weight: Tensor
    ) -> tuple[Tensor, ...]:
        """(B, E), (B, S), (B,) -> see `outputs`."""
        features = self.features
        domains = features.domain_probabilities(embeddings, statistics)  # (B, D)
        phi = features(embeddings, statistics, domains)  # (B, F)
        state = self.controller.encode(embeddings, features.standardise(statistics), cost_weight)
        amounts = (self.folded.exponential(phi, name) for name in self.amounts)
        factor = self.cost_factor(phi)
        if features.domains:
            return phi, domains, state, factor, *amounts
        return phi, state, factor, *amounts

    def cost_factor(self, phi: Tensor) -> Tensor:
        """Multiplicative standard error of cost: (B, F) -> (B, C), at least 1.

        For plans that came after training it holds what descriptions and probes leave open beside
        the members' spread, of the head that learned costs or else of expected tokens.
        """
        folded = self.folded
        if folded.has("log_cost"):
            error = jackknife_error(folded.members(phi, "log_cost"))
        else:
            error = torch.zeros_like(folded.score(phi, 0))
        factor = error.clamp(max=MOST_LOG_ERROR).exp()
        if not self.added:
            return factor
        left = torch.zeros_like(error)
        if folded.has("log_completion_tokens"):
            left = folded.variance(phi, "log_completion_tokens")
        if folded.has("log_cost"):
            left = torch.where(self.learned_cost, folded.variance(phi, "log_cost"), left)
        wider = (factor.log().square() + left).sqrt().clamp(max=MOST_LOG_ERROR).exp()
        return torch.where(left > 0, wider, factor)


AMOUNTS = {
    "log_cost": "cost",
    "log_prompt_tokens": "prompt_tokens",
    "log_completion_tokens": "completion_tokens",
}
"""Heads of logarithms, and the fields of `Reading` that they fill."""


class ScorePlans(nn.Module):
    """One score head of the critic and its standard error: (B, F) -> (B, C) twice."""

    def __init__(self, state: RouterState, folded: FoldedCritic, head: int) -> None:
        super().__init__()
        self.folded = folded
        self.added = bool(state.networks.added)
        self.head = head

    def forward(self, phi: Tensor) -> tuple[Tensor, Tensor]:
        name = Critic.score_head(self.head)
        score = self.folded.mean(phi, name)
        error = jackknife_error(self.folded.members(phi, name))
        if self.added:  # plans of the training logs keep their errors
            left = self.folded.variance(phi, name)
            error = torch.where(left > 0, (error.square() + left).sqrt(), error)
        return score, error


class FollowPaths(nn.Module):
    """The cascade along one path a query: states (B, W), steps (B, L) -> logits of each open
    stage."""

    def __init__(self, state: RouterState, depths: Sequence[int]) -> None:
        super().__init__()
        self.controller = state.controller
        self.prepared = state.controller.prepare()
        self.depths = tuple(depths)

    def forward(self, state: Tensor, steps: Tensor) -> tuple[Tensor, ...]:
        return self.controller.path_logits(state, self.prepared, steps, self.depths)


class TorchScorer:
    """See `scorer.Scorer`."""

    backend = "torch"

    def __init__(self, state: RouterState) -> None:
        with torch.inference_mode():
            self.folded = fold(state.networks, state.plans)
            self.reading = ReadQueries(state, self.folded)
            self.heads = [
                ScorePlans(state, self.folded, head) for head in range(len(state.networks.heads))
            ]
            self.depths = open_depths(state.networks.names.steps(state.plans))
            self.paths = FollowPaths(state, self.depths)
        probes = max((added.probes for added in state.networks.added), default=0)
        self.rows = max(1, min(ROWS, PRODUCTS // max(1, probes * len(state.plans))))

    @torch.inference_mode()
    def read(self, embeddings: Floats32, statistics: Floats32, cost_weight: float) -> Reading:
        weight = torch.full((len(embeddings),), cost_weight)
        found = self.reading(torch.from_numpy(embeddings), torch.from_numpy(statistics), weight)
        names = self.reading.outputs
        return Reading.of({k: v.numpy() for k, v in zip(names, found, strict=True)})

    @torch.inference_mode()
    def score(self, phi: Floats32, head: int) -> Scores:
        score, error = self.heads[head](torch.from_numpy(phi))
        return Scores(score.numpy(), error.numpy())

    @torch.inference_mode()
    def logits(self, state: Floats32, steps: Ints) -> Mapping[int, Floats32]:
        found = self.paths(torch.from_numpy(state), torch.from_numpy(steps))
        return {depth: part.numpy() for depth, part in zip(self.depths, found, strict=True)}
