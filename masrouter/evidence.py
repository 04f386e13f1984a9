"""The logged cases behind a decision: nearest training queries and how often each plan was run."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from masrouter.types import Evidence


@dataclass(frozen=True)
class EvidenceStore:
    """Q training queries as half-precision embeddings, and the runs of C plans on them."""

    embeddings: Tensor  # (Q, E) float16, unit norm
    cell_query: Tensor  # (R,) int32, sorted
    cell_plan: Tensor  # (R,) int32
    cell_runs: Tensor  # (R,) int32
    similar: float
    """Cosine from which a logged query counts as similar."""
    thin: float
    """Cosine to the nearest logged query below which a query is unlike anything logged."""

    def tensors(self) -> dict[str, Tensor]:
        names = ("embeddings", "cell_query", "cell_plan", "cell_runs")
        return {f"evidence.{name}": getattr(self, name) for name in names}

    @classmethod
    def build(
        cls,
        embeddings: Tensor,
        query: Tensor,
        plan: Tensor,
        runs: Tensor,
        *,
        at_most: int,
        seed: int,
    ) -> EvidenceStore:
        """Keep at most `at_most` training queries (a seeded sample), and set the thresholds.

        A query is thinly supported if it is farther from every kept query than 99 % of the kept
        queries are from each other; similar are those within the nearest 1 % of pairs.
        """
        n = len(embeddings)
        generator = torch.Generator().manual_seed(seed)
        kept = torch.randperm(n, generator=generator)[:at_most].sort().values
        position = torch.full((n,), -1, dtype=torch.long)
        position[kept] = torch.arange(len(kept))
        cells = position[query] >= 0
        vectors = embeddings[kept]
        sample = torch.randperm(len(vectors), generator=generator)[:1000]
        cosine = vectors[sample] @ vectors.T  # (<=1000, Q)
        cosine[torch.arange(len(sample)), sample] = -1.0
        nearest = cosine.max(1).values
        pairs = cosine.flatten()
        pairs = pairs[torch.randperm(len(pairs), generator=generator)[:100_000]]
        return cls(
            vectors.half(),
            position[query[cells]].int(),
            plan[cells].int(),
            runs[cells].int(),
            similar=float(pairs.quantile(0.99)) if len(vectors) > 1 else 0.9,
            thin=float(nearest.quantile(0.01)) if len(vectors) > 1 else 0.0,
        )


class EvidenceIndex:
    """The store, unpacked for look-ups."""

    def __init__(self, store: EvidenceStore, plan_runs: Tensor) -> None:
        """`plan_runs` (C,): runs of each plan in the whole logs."""
        self.store = store
        self._vectors = store.embeddings.float()
        self._plan_runs = plan_runs

    def nearest(self, embeddings: Tensor) -> Tensor:
        """Cosine of the nearest logged query: (B, E) -> (B,)."""
        return torch.cat([(part @ self._vectors.T).max(1).values for part in embeddings.split(512)])

    def look_up(self, embedding: Tensor, plan: int) -> Evidence:
        """Evidence for one plan on one query, (E,)."""
        cosine = self._vectors @ embedding  # (Q,)
        similar = cosine >= self.store.similar
        here = similar[self.store.cell_query.long()] & (self.store.cell_plan == plan)
        return Evidence(
            similar_queries=int(similar.sum()),
            similar_runs_of_plan=int(self.store.cell_runs[here].sum()),
            similarity=self.store.similar,
            nearest=float(cosine.max()),
            runs_of_plan=int(self._plan_runs[plan]) if plan >= 0 else 0,
        )
