"""What a cold start hands to a router: a profile, logged outcomes as probe runs, known embeddings.

Not here: what is measured (`cold_start`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from masrouter.catalog import Catalog, ModelEntry
from masrouter.encoder import Encoder
from masrouter.evaluation.learners import Embeddings
from masrouter.outcomes import Outcomes
from masrouter.types import LogRecord, Plan, Usage


class Remembering:
    """An encoder that has read the queries already."""

    def __init__(self, encoder: Encoder, texts: Sequence[str], embeddings: Embeddings) -> None:
        self._encoder = encoder
        self._rows = {text: i for i, text in enumerate(texts)}
        self._embeddings = embeddings

    @property
    def identity(self) -> str:
        return self._encoder.identity

    @property
    def dimension(self) -> int:
        return self._encoder.dimension

    def encode(self, texts: Sequence[str], *, progress: bool = False) -> Embeddings:
        if texts and all(text in self._rows for text in texts):
            return self._embeddings[[self._rows[text] for text in texts]]
        return self._encoder.encode(texts, progress=progress)


def addable(plan: Plan, base: Sequence[Plan], model: str) -> bool:
    """Whether the model is all that is new in it."""
    agents = [agent for other in base for agent in other.agents]
    return (
        plan.topology in {other.topology for other in base}
        and {agent.role for agent in plan.agents} <= {None, *(agent.role for agent in agents)}
        and {agent.model for agent in plan.agents} <= {model, *(agent.model for agent in agents)}
        and len(plan.agents) <= max(len(other.agents) for other in base)
    )


def profile_of(catalog: Catalog, model: str) -> ModelEntry:
    """The entry under the name that the logs use."""
    return replace(catalog.resolve_model(model), name=model, aliases=())


def record_of(outcomes: Outcomes, cell: int) -> LogRecord:
    """A cell as one run."""
    query, plan = int(outcomes.query[cell]), int(outcomes.plan[cell])
    prompt, completion, cost = (
        float(column[cell]) if np.isfinite(column[cell]) else None
        for column in (outcomes.prompt_tokens, outcomes.completion_tokens, outcomes.cost)
    )
    return LogRecord(
        run_id=f"{query}-{plan}",
        query_id=outcomes.query_ids[query],
        query=outcomes.queries[query],
        dataset=outcomes.datasets[query],
        plan=outcomes.plans[plan],
        score=float(outcomes.score[cell]),
        score_source="logged",
        usage=Usage(
            None if prompt is None else round(prompt),
            None if completion is None else round(completion),
            cost,
        ),
    )
