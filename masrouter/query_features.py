"""A query as features: its embedding, standardised counts of its text, and its predicted domain."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from masrouter.features import STATISTICS, FeatureScales


class QueryFeatures(nn.Module):
    """Maps (embedding, statistics) to phi(x) = [1, statistics, domain probabilities, text].

    Shapes: B queries, E embedding, S statistics, D domains; F = 1 + S + D + E.
    Every constant is a buffer fitted on training queries (see masrouter_train.fit_critic).
    """

    statistics_mean: Tensor  # (S,)
    statistics_std: Tensor  # (S,)
    text_mean: Tensor  # (E,)
    domain_weight: Tensor  # (E + S, D)
    domain_bias: Tensor  # (D,)

    EMBEDDING_SCALE = 3.0
    """Balances embedding (unit norm) and standardised statistics in the domain classifier."""

    def __init__(self, dimension: int, domains: Sequence[str]) -> None:
        super().__init__()
        self.dimension = dimension
        self.domains = tuple(domains)
        s, d = len(STATISTICS), len(self.domains)
        self.register_buffer("statistics_mean", torch.zeros(s))
        self.register_buffer("statistics_std", torch.ones(s))
        self.register_buffer("text_mean", torch.zeros(dimension))
        self.register_buffer("domain_weight", torch.zeros(dimension + s, d))
        self.register_buffer("domain_bias", torch.zeros(d))

    @property
    def width(self) -> int:
        """F."""
        return 1 + len(STATISTICS) + len(self.domains) + self.dimension

    def standardise(self, statistics: Tensor) -> Tensor:
        """(B, S) to zero mean and unit deviation on training queries, clipped to 5 deviations."""
        return ((statistics - self.statistics_mean) / self.statistics_std).clamp(-5, 5)

    def classifier_inputs(self, embeddings: Tensor, statistics: Tensor) -> Tensor:
        """What the domain classifier reads: (B, E + S)."""
        return torch.cat([self.EMBEDDING_SCALE * embeddings, self.standardise(statistics)], 1)

    def domain_probabilities(self, embeddings: Tensor, statistics: Tensor) -> Tensor:
        """P(domain | text), multinomial logistic regression: (B, D)."""
        if not self.domains:
            return embeddings[:, :0]
        inputs = self.classifier_inputs(embeddings, statistics)
        return (inputs @ self.domain_weight + self.domain_bias).softmax(1)

    def forward(
        self, embeddings: Tensor, statistics: Tensor, domains: Tensor | None = None
    ) -> Tensor:
        """phi(x): (B, F). `domains` replaces the predicted probabilities (cross-fitting)."""
        if domains is None:
            domains = self.domain_probabilities(embeddings, statistics)
        blocks = [
            torch.ones_like(embeddings[:, :1]),
            self.standardise(statistics) / math.sqrt(len(STATISTICS)),
            *([domains] if self.domains else []),
            embeddings - self.text_mean,
        ]
        return torch.cat(blocks, 1)

    def column_scales(self, scales: FeatureScales, constant: float) -> Tensor:
        """(F,) prior deviation of each column of phi."""
        return torch.cat(
            [
                torch.full((1,), constant),
                torch.full((len(STATISTICS),), scales.statistics),
                torch.full((len(self.domains),), scales.domain),
                torch.full((self.dimension,), scales.text),
            ]
        )
