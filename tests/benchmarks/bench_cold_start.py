"""What a probe is worth when a model joins after training: Markdown tables.

    python tests/benchmarks/bench_cold_start.py --logs FILE [--model NAME ...] [--queries N]

For each model (all that some plan does without, if none is named) the router is trained without its
plans, told of it by its catalog entry, then given 8 to 128 runs of its plans, and at last trained
with all of them; queries are held out throughout. Grid logs only. The cascade plays no part in what
`route` chooses, so it is not trained.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from rich.console import Console

from masrouter import Catalog, read_logs
from masrouter.embedding_cache import EmbeddingCache
from masrouter.encoder import load_encoder
from masrouter.evaluation.cold_start import PROBES, cold_start
from masrouter.evaluation.cold_start_report import cold_start_json, cold_start_markdown
from masrouter.evaluation.learners import Embeddings
from masrouter.outcomes import Outcomes
from masrouter.router import Router
from masrouter_train.config import TrainConfig
from masrouter_train.fit import TrainingData, fit_outcomes


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--logs", type=Path, required=True, action="append")
    parser.add_argument("--model", action="append", help="may be given again; all if none")
    parser.add_argument("--catalog", type=Path, help="descriptions and prices of the models")
    parser.add_argument("--encoder", default="all-MiniLM-L6-v2")
    parser.add_argument("--queries", type=int, help="a random sample of this many")
    parser.add_argument("--probes", type=int, nargs="+", default=list(PROBES))
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="where to write every number")
    arguments = parser.parse_args()
    outcomes = Outcomes.from_logs(read_logs(arguments.logs))
    if arguments.queries is not None and arguments.queries < outcomes.n_queries:
        order = np.random.default_rng(arguments.seed).permutation(outcomes.n_queries)
        outcomes = outcomes.queries_at(np.sort(order[: arguments.queries]))
    encoder = load_encoder(arguments.encoder, cache=EmbeddingCache())
    catalog = Catalog.default() if arguments.catalog is None else Catalog.load(arguments.catalog)
    config = TrainConfig(encoder=arguments.encoder)
    config = replace(config, controller=replace(config.controller, enabled=False))

    def fit(
        train: Outcomes, embeddings: Embeddings, weights: tuple[float, ...], seed: int
    ) -> Router:
        return fit_outcomes(
            TrainingData(train, embeddings),
            replace(config, seed=seed),
            catalog=catalog,
            encoder=encoder,
            cost_weights=weights,
        )

    log, start = Console(stderr=True), time.monotonic()
    results = cold_start(
        outcomes,
        encoder.encode(outcomes.queries),
        fit,
        catalog=catalog,
        models=arguments.model,
        probes=arguments.probes,
        folds=arguments.folds,
        draws=arguments.draws,
        seed=arguments.seed,
        progress=lambda done, total, what: log.print(
            f"{time.monotonic() - start:6.0f} s  {done}/{total}  {what}", markup=False
        ),
    )
    print(cold_start_markdown(results))
    if arguments.json is not None:
        arguments.json.write_text(cold_start_json(results), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
