"""A query as numbers: its embedding, a few counts of its text, and its predicted domain."""

from __future__ import annotations

import math
import string
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

STATISTICS = (
    "log_characters",
    "log_words",
    "log_lines",
    "digit_share",
    "operator_share",
    "non_ascii_share",
    "capital_share",
    "log_word_length",
    "has_code",
    "has_question",
)
_DIGITS = string.digits.encode()
_CAPITALS = string.ascii_uppercase.encode()
_OPERATORS = b"=+-*/^<>%"
_CODE_MARKS = ("def ", "class ", "import ", "return ", "#include", "function ", "```", "();")


def text_statistics(texts: Sequence[str]) -> NDArray[np.float32]:
    """Counts that an embedding of bounded length loses; (N, 10) in the order of STATISTICS."""
    rows = np.zeros((len(texts), len(STATISTICS)), dtype=np.float32)
    for i, text in enumerate(texts):
        n = max(len(text), 1)
        words = max(len(text.split()), 1)
        shares = _count_characters(text)
        rows[i] = (
            math.log1p(n),
            math.log1p(words),
            math.log1p(text.count("\n")),
            shares.digits / n,
            shares.operators / n,
            shares.non_ascii / n,
            shares.capitals / n,
            math.log1p(n / words),
            float(any(mark in text for mark in _CODE_MARKS)),
            float("?" in text),
        )
    return rows


class _Characters(NamedTuple):
    digits: int
    operators: int
    non_ascii: int
    capitals: int


def _count_characters(text: str) -> _Characters:
    if text.isascii():  # the same counts at the speed of bytes
        raw = text.encode("ascii")
        digits, operators, capitals = (
            len(raw) - len(raw.translate(None, kind)) for kind in (_DIGITS, _OPERATORS, _CAPITALS)
        )
        return _Characters(digits, operators, 0, capitals)
    return _Characters(
        digits=sum(map(str.isdigit, text)),
        operators=sum(map(text.count, _OPERATORS.decode())),
        non_ascii=sum(ord(c) > 127 for c in text),
        capitals=sum(map(str.isupper, text)),
    )


@dataclass(frozen=True)
class FeatureScales:
    """Prior standard deviation of the weights of each block; 0 switches a block off.

    A smaller scale is a stronger shrinkage of that part towards the plan's own effect.
    """

    statistics: float = 0.0
    domain: float = 0.0
    text: float = 0.0

    @property
    def name(self) -> str:
        parts = [
            f"{part} {getattr(self, part):g}"
            for part in ("statistics", "domain", "text")
            if getattr(self, part)
        ]
        return " + ".join(["plan", *parts])


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
        inputs = self.classifier_inputs(embeddings, statistics)
        return (inputs @ self.domain_weight + self.domain_bias).softmax(1)

    def forward(
        self, embeddings: Tensor, statistics: Tensor, domains: Tensor | None = None
    ) -> Tensor:
        """phi(x): (B, F). `domains` replaces the predicted probabilities (cross-fitting)."""
        if domains is None:
            domains = self.domain_probabilities(embeddings, statistics)
        return torch.cat(
            [
                torch.ones(len(embeddings), 1, dtype=embeddings.dtype, device=embeddings.device),
                self.standardise(statistics) / math.sqrt(len(STATISTICS)),
                domains,
                embeddings - self.text_mean,
            ],
            1,
        )

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
