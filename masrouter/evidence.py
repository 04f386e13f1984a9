"""The logged cases behind a decision: nearest training queries and how often each plan was run."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from masrouter.gate import Bools, Floats32
from masrouter.types import Evidence

SAME = 0.9995
"""Cosine, in half precision, from which two queries are taken for one."""


@dataclass(frozen=True)
class EvidenceStore:
    """Q training queries as half-precision embeddings, and the runs of C plans on them."""

    embeddings: NDArray[np.float16]  # (Q, E) unit norm
    cell_query: NDArray[np.int32]  # (R,) sorted
    cell_plan: NDArray[np.int32]  # (R,)
    cell_runs: NDArray[np.int32]  # (R,)
    similar: float
    """Cosine from which a logged query counts as similar."""
    thin: float
    """Cosine to the nearest logged query below which a query is unlike anything logged."""

    def tensors(self) -> dict[str, NDArray[Any]]:
        names = ("embeddings", "cell_query", "cell_plan", "cell_runs")
        return {f"evidence.{name}": getattr(self, name) for name in names}

    def extended(
        self,
        embeddings: Floats32,
        query: NDArray[np.int32],
        plan: NDArray[np.int32],
        runs: NDArray[np.int32],
    ) -> EvidenceStore:
        """With more queries (q, E) and the runs of plans on them, (r,) each; thresholds stay.

        A query that is there already is not stored again.
        """
        if len(query) == 0:
            return self
        vectors = embeddings.astype(np.float16)
        like = vectors.astype(np.float32) @ self.embeddings.astype(np.float32).T  # (q, Q)
        nearest = like.argmax(1)
        new = like.max(1) < SAME
        position = np.where(new, len(self.embeddings) + new.cumsum() - 1, nearest)
        cell_query = np.concatenate([self.cell_query, position[query].astype(np.int32)])
        order = cell_query.argsort(kind="stable")
        return replace(
            self,
            embeddings=np.concatenate([self.embeddings, vectors[new]]),
            cell_query=cell_query[order],
            cell_plan=np.concatenate([self.cell_plan, plan])[order],
            cell_runs=np.concatenate([self.cell_runs, runs])[order],
        )


class EvidenceIndex:
    """The store, unpacked for look-ups."""

    def __init__(self, store: EvidenceStore, plan_runs: Floats32) -> None:
        """`plan_runs` (C,): runs of each plan in the whole logs."""
        self.store = store
        self._vectors = np.ascontiguousarray(store.embeddings.T, dtype=np.float32)  # (E, Q)
        self._plan_runs = [int(runs) for runs in plan_runs]
        # Cells by plan, so that a look-up reads those of one plan.
        order = store.cell_plan.argsort(kind="stable")
        self._query = store.cell_query[order].astype(np.int64)
        self._runs = store.cell_runs[order].astype(np.int64)
        cells = np.bincount(store.cell_plan, minlength=len(plan_runs))
        self._start = [0, *cells.cumsum().tolist()]

    def cosines(self, embeddings: Floats32) -> Floats32:
        """Likeness to every logged query: (B, E) -> (B, Q)."""
        return embeddings @ self._vectors

    def look_up(self, similar: Bools, nearest: float, plan: int) -> Evidence:
        """Evidence for one plan on one query; `similar` (Q,) are the logged queries like it."""
        mine = slice(self._start[plan], self._start[plan + 1])
        return Evidence(
            similar_queries=int(np.count_nonzero(similar)),
            similar_runs_of_plan=int(self._runs[mine][similar[self._query[mine]]].sum()),
            similarity=self.store.similar,
            nearest=nearest,
            runs_of_plan=self._plan_runs[plan],
        )
