"""The logged cases behind a decision: nearest training queries and how often each plan was run."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from masrouter.types import Evidence

SAME = 0.9995
"""Cosine, in half precision, from which two queries are taken for one."""


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
            similar=_cosine(pairs.quantile(0.99)) if len(vectors) > 1 else 0.9,
            thin=_cosine(nearest.quantile(0.01)) if len(vectors) > 1 else 0.0,
        )

    def extended(
        self, embeddings: Tensor, query: Tensor, plan: Tensor, runs: Tensor
    ) -> EvidenceStore:
        """With more queries (q, E) and the runs of plans on them, (r,) each; thresholds stay.

        A query that is there already is not stored again.
        """
        if len(query) == 0:
            return self
        vectors = embeddings.half()
        like = vectors.float() @ self.embeddings.float().T  # (q, Q)
        nearest = like.max(1)
        new = nearest.values < SAME
        position = torch.where(new, len(self.embeddings) + new.cumsum(0) - 1, nearest.indices)
        cell_query = torch.cat([self.cell_query, position[query.long()].int()])
        order = cell_query.argsort(stable=True)
        return replace(
            self,
            embeddings=torch.cat([self.embeddings, vectors[new]]),
            cell_query=cell_query[order],
            cell_plan=torch.cat([self.cell_plan, plan.int()])[order],
            cell_runs=torch.cat([self.cell_runs, runs.int()])[order],
        )


def _cosine(value: Tensor) -> float:
    """Rounding can take the product of equal unit vectors past 1."""
    return min(max(float(value), -1.0), 1.0)


class EvidenceIndex:
    """The store, unpacked for look-ups."""

    def __init__(self, store: EvidenceStore, plan_runs: Tensor) -> None:
        """`plan_runs` (C,): runs of each plan in the whole logs."""
        self.store = store
        self._vectors = store.embeddings.float().T.contiguous()  # (E, Q)
        self._plan_runs = plan_runs.tolist()
        # Cells by plan, so that a look-up reads those of one plan.
        order = store.cell_plan.long().argsort(stable=True)
        self._query = store.cell_query.long()[order]
        self._runs = store.cell_runs[order]
        cells = torch.bincount(store.cell_plan.long(), minlength=len(plan_runs))
        self._start = [0, *cells.cumsum(0).tolist()]

    def cosines(self, embeddings: Tensor) -> Tensor:
        """Likeness to every logged query: (B, E) -> (B, Q)."""
        return embeddings @ self._vectors

    def look_up(self, cosine: Tensor, plan: int) -> Evidence:
        """Evidence for one plan on one query, whose cosines are (Q,)."""
        similar = cosine >= self.store.similar
        mine = slice(self._start[plan], self._start[plan + 1])
        return Evidence(
            similar_queries=int(similar.sum()),
            similar_runs_of_plan=int(self._runs[mine][similar[self._query[mine]]].sum()),
            similarity=self.store.similar,
            nearest=float(cosine.max()),
            runs_of_plan=int(self._plan_runs[plan]),
        )
