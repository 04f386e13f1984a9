"""Which training queries a router keeps as evidence, and what it takes for similar."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from masrouter.evidence import EvidenceStore


def keep_evidence(
    embeddings: NDArray[np.float32],
    query: NDArray[np.int64],
    plan: NDArray[np.int64],
    runs: NDArray[np.int64],
    *,
    at_most: int,
    seed: int,
) -> EvidenceStore:
    """Keep at most `at_most` training queries (a seeded sample), and set the thresholds.

    A query is thinly supported if it is farther from every kept query than 99 % of the kept
    queries are from each other; similar are those within the nearest 1 % of pairs.

    Args:
        embeddings: (N, E). query, plan, runs: (R,) of each cell.
    """
    n = len(embeddings)
    generator = torch.Generator().manual_seed(seed)
    kept = torch.randperm(n, generator=generator)[:at_most].sort().values
    position = np.full(n, -1, dtype=np.int64)
    position[kept.numpy()] = np.arange(len(kept))
    cells = position[query] >= 0
    vectors = torch.from_numpy(embeddings)[kept]
    sample = torch.randperm(len(vectors), generator=generator)[:1000]
    cosine = vectors[sample] @ vectors.T  # (<=1000, Q)
    cosine[torch.arange(len(sample)), sample] = -1.0
    nearest = cosine.max(1).values
    pairs = cosine.flatten()
    pairs = pairs[torch.randperm(len(pairs), generator=generator)[:100_000]]
    return EvidenceStore(
        vectors.half().numpy(),
        position[query[cells]].astype(np.int32),
        plan[cells].astype(np.int32),
        runs[cells].astype(np.int32),
        similar=_cosine(pairs.quantile(0.99)) if len(vectors) > 1 else 0.9,
        thin=_cosine(nearest.quantile(0.01)) if len(vectors) > 1 else 0.0,
    )


def _cosine(value: Tensor) -> float:
    """Rounding can take the product of equal unit vectors past 1."""
    return min(max(float(value), -1.0), 1.0)
