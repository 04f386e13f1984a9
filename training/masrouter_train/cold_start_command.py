"""The command `masrouter cold-start`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console

from masrouter.catalog import Catalog
from masrouter.encoder import load_encoder
from masrouter.encoder.embedding_cache import EmbeddingCache
from masrouter.evaluation.cold_start import PROBES, cold_start
from masrouter.evaluation.cold_start_report import (
    cold_start_json,
    cold_start_markdown,
    print_cold_start,
)
from masrouter.evaluation.learners import Embeddings
from masrouter.outcomes import Outcomes
from masrouter.router import Router
from masrouter_train.fit import TrainingData, fit_outcomes
from masrouter_train.options import (
    CatalogPaths,
    EncoderName,
    LogPaths,
    RecipePath,
    Strict,
    config_of,
    read,
)
from masrouter_train.progress import Progress

TABLE_WIDTH = 150


def cold_start_command(
    logs: LogPaths,
    model: Annotated[
        list[str] | None, typer.Option(help="The model that joins (repeat); each in turn if none.")
    ] = None,
    probes: Annotated[
        list[int] | None,
        typer.Option(help="How many probe runs (repeat); 0, 8, 16, 32, 64 and 128 if none."),
    ] = None,
    folds: Annotated[int, typer.Option(help="Parts that queries are split into.")] = 5,
    draws: Annotated[int, typer.Option(help="Random sets of probes in each fold.")] = 3,
    queries: Annotated[
        int | None, typer.Option(help="Only a random sample of so many queries.", min=20)
    ] = None,
    seed: Annotated[int, typer.Option(help="Of folds, probes and sample.", min=0)] = 0,
    recipe: RecipePath = None,
    catalog: CatalogPaths = None,
    encoder: EncoderName = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Folder for cold_start.json and cold_start.md."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="JSON on standard output.")] = False,
    strict: Strict = False,
) -> None:
    """A new model comes out: what is its description worth to a router, and what each probe run?

    For each model the router is trained without its plans, told of it by its catalog entry
    (`Router.add_model`), given more and more runs of its plans, and at last trained with all of
    them. Queries are held out throughout. Grid logs only.

    \b
    masrouter cold-start --logs my_logs/ --model gpt-4.1-mini
    masrouter cold-start --logs runs.parquet --probes 0 --probes 32 --out report/
    """
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    config = config_of(recipe, seed, encoder, None, None)
    # The cascade plays no part in what `route` chooses, so it is not trained.
    config = replace(config, controller=replace(config.controller, enabled=False))
    outcomes = Outcomes.from_logs(read(logs, strict, console))
    if queries is not None and queries < outcomes.n_queries:
        order = np.random.default_rng(seed).permutation(outcomes.n_queries)
        outcomes = outcomes.queries_at(np.sort(order[:queries]))
    text_encoder = load_encoder(config.encoder, cache=EmbeddingCache())
    names = Catalog.load(*catalog) if catalog else Catalog.default()

    def fit(train: Outcomes, x: Embeddings, weights: tuple[float, ...], seed: int) -> Router:
        return fit_outcomes(
            TrainingData(train, x),
            replace(config, seed=seed),
            catalog=names,
            encoder=text_encoder,
            cost_weights=weights,
        )

    embeddings = text_encoder.encode(outcomes.queries, progress=True)
    with Progress(console).counted("training") as count:
        results = cold_start(
            outcomes,
            embeddings,
            fit,
            catalog=names,
            models=model,
            probes=probes or PROBES,
            folds=folds,
            draws=draws,
            seed=seed,
            progress=count,
        )
    if as_json:
        typer.echo(cold_start_json(results))
    else:
        width = max(Console().width, TABLE_WIDTH)
        print_cold_start(results, Console(highlight=False, width=width))
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        (out / "cold_start.json").write_text(cold_start_json(results) + "\n", encoding="utf-8")
        (out / "cold_start.md").write_text(cold_start_markdown(results), encoding="utf-8")
