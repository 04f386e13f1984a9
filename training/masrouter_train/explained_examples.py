"""Explain a few queries of an evaluation with a router that has not seen them, and time it.

Not here: which queries (`masrouter.evaluation.examples`), how they look (`masrouter.reporting`).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from masrouter.encoder import load_encoder
from masrouter.errors import RoutingError
from masrouter.evaluation.crossval import CrossValidation, split_queries
from masrouter.evaluation.examples import choose_examples, example, most_varied
from masrouter.evaluation.routing_cost import measure_routing
from masrouter.evaluation.summary import Evaluation
from masrouter.logs import Logs
from masrouter_train.learner import RouterLearner

TIMED = 50
"""Queries that are routed to see what routing takes."""


def with_examples(
    evaluation: Evaluation,
    cv: CrossValidation,
    embeddings: NDArray[np.float32],
    learner: RouterLearner,
    logs: Logs,
    *,
    folds: int,
) -> Evaluation:
    """The evaluation with examples and with what routing takes.

    `cv` is from `cross_validate` with `folds` parts. The router of one of them, on which it chose
    the most different plans, is trained again, as it was there; examples are among the queries that
    it had not seen.
    """
    outcomes, seed = cv.outcomes, cv.seeds[0]
    fold = split_queries(outcomes.query_ids, folds, seed)
    parts = [np.flatnonzero(fold == part) for part in range(folds)]
    held_out = parts[most_varied(cv, learner.name, parts)]
    train = np.setdiff1d(np.arange(outcomes.n_queries), held_out)
    chosen = choose_examples(cv, learner.name, held_out)
    router = learner.fit(
        outcomes.queries_at(train), embeddings[train], cost_weights=cv.cost_weights, seed=seed
    ).router
    examples, notes = [], []
    for c in chosen:
        try:
            why = router.explain(outcomes.queries[c.query], cost_weight=c.cost_weight)
        except RoutingError as error:
            notes.append(f"query {outcomes.query_ids[c.query]!r} cannot be explained: {error}")
            continue
        examples.append(example(outcomes, c, why))
    step = max(1, outcomes.n_queries // TIMED)
    routing = measure_routing(
        router,
        load_encoder(learner.config.encoder),  # without the cache, which would do the work
        [text for text in outcomes.queries[::step] if text.strip()][:TIMED],
        run_cost_usd=_median(outcomes.cost),
        run_latency_s=_median(logs.table.column("latency_s").to_numpy(zero_copy_only=False)),
    )
    return replace(
        evaluation,
        examples=tuple(examples),
        example_queries=len(held_out),
        routing=routing,
        notes=(*evaluation.notes, *notes),
    )


def _median(values: NDArray[np.float64]) -> float | None:
    known = np.asarray(values, dtype=np.float64)
    known = known[np.isfinite(known)]
    return float(np.median(known)) if len(known) else None
