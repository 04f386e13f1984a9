"""The command `masrouter evaluate`."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console

from masrouter.catalog import Catalog
from masrouter.embedding_cache import EmbeddingCache
from masrouter.encoder import load_encoder
from masrouter.errors import MasRouterError
from masrouter.evaluation.baselines import BestFixedPlan, default_baselines
from masrouter.evaluation.crossval import (
    CrossValidation,
    cross_validate,
    leave_one_dataset_out,
    leave_one_model_out,
)
from masrouter.evaluation.learners import Learner
from masrouter.evaluation.report import plot_frontier, print_report, to_json, to_markdown
from masrouter.evaluation.summary import Evaluation, summarise
from masrouter.outcomes import Outcomes
from masrouter_train.learner import RouterLearner
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

REPORT_WIDTH = 140


class Left(StrEnum):
    """What to leave out of training."""

    DATASET = "dataset"
    MODEL = "model"


def evaluate(
    logs: LogPaths,
    folds: Annotated[int, typer.Option(help="Parts that queries are split into.")] = 5,
    seeds: Annotated[int, typer.Option(help="Independent splits.")] = 3,
    leave_out: Annotated[
        Left | None,
        typer.Option(help="Instead of folds: train without each data set, or each model, in turn."),
    ] = None,
    recipe: RecipePath = None,
    catalog: CatalogPaths = None,
    encoder: EncoderName = None,
    cost_weight: Annotated[
        list[float] | None,
        typer.Option(help="Trade-offs to judge (repeat); 0 and six up to 2 / median cost if none."),
    ] = None,
    cascade: Annotated[
        bool, typer.Option(help="Also judge the cascade alone, without the critic (slower).")
    ] = False,
    baselines: Annotated[
        bool, typer.Option(help="Judge all baselines, not the best fixed plan alone.")
    ] = True,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Folder for evaluation.json, table.md, frontier.png."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="JSON on standard output.")] = False,
    strict: Strict = False,
) -> None:
    """What would a router have got and paid on your logs, against what simple rules would have?

    Trains on part of the queries and looks the choices up on the rest, so the logs must be a grid
    (each query run under several plans). Unfinished work in --out is resumed.

    \b
    masrouter evaluate --logs my_logs/
    masrouter evaluate --logs runs.parquet --folds 5 --seeds 3 --out report/
    masrouter evaluate --logs runs.parquet --leave-out model
    """
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    config = config_of(recipe, None, encoder, None, None)
    outcomes = Outcomes.from_logs(read(logs, strict, console))
    progress = Progress(console)
    progress.say(f"{outcomes.kind} logs: {outcomes.why}")
    for note in outcomes.notes:
        progress.say(f"note: {note}")
    text_encoder = load_encoder(config.encoder, cache=EmbeddingCache())
    embeddings = text_encoder.encode(outcomes.queries, progress=True)
    names = Catalog.load(*catalog) if catalog else None
    learners: list[Learner] = [RouterLearner(config, text_encoder, names)]
    if cascade:
        learners.append(RouterLearner(config, text_encoder, names, cascade=True))
    learners += default_baselines() if baselines else (BestFixedPlan(),)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
    data = ", ".join(path.stem or str(path) for path in logs)
    for name, result in _validate(
        outcomes, embeddings, learners, folds, seeds, leave_out, cost_weight, out, progress
    ).items():
        title = f"{data}, without {name}" if name else data
        synthetic = any("synthetic" in dataset for dataset in outcomes.datasets)
        _report(summarise(result, data=title, synthetic=synthetic), out, name, as_json)


def _validate(
    outcomes: Outcomes,
    embeddings: NDArray[np.float32],
    learners: list[Learner],
    folds: int,
    seeds: int,
    leave_out: Left | None,
    cost_weights: list[float] | None,
    out: Path | None,
    progress: Progress,
) -> dict[str, CrossValidation]:
    """Results by what was left out; the empty name is plain folds."""
    units = out / "units.jsonl" if out is not None else None
    with progress.counted("evaluating") as count:
        options = {"cost_weights": cost_weights, "progress": count, "checkpoint_file": units}
        if leave_out is Left.DATASET:
            result = leave_one_dataset_out(outcomes, embeddings, learners, **options)  # type: ignore[arg-type]
            return {"each data set in turn": result}
        if leave_out is Left.MODEL:
            return leave_one_model_out(outcomes, embeddings, learners, folds=folds, **options)  # type: ignore[arg-type]
        result = cross_validate(
            outcomes,
            embeddings,
            learners,
            folds=folds,
            seeds=tuple(range(seeds)),
            **options,  # type: ignore[arg-type]
        )
    return {"": result}


def _report(evaluation: Evaluation, out: Path | None, name: str, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(json.loads(to_json(evaluation))))
    else:
        # Narrower, the tables lose digits; a terminal wraps, a file does not care.
        width = max(Console().width, REPORT_WIDTH)
        print_report(evaluation, Console(highlight=False, width=width))
    if out is None:
        return
    folder = out / _file_name(name) if name else out
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "evaluation.json").write_text(to_json(evaluation), encoding="utf-8")
    tables = [to_markdown(evaluation, view) for view in ("cost weights", "summary")]
    (folder / "table.md").write_text("\n\n".join(tables) + "\n", encoding="utf-8")
    try:
        plot_frontier(evaluation, folder / "frontier.png")
    except MasRouterError as error:
        typer.echo(f"no plot: {error}", err=True)


def _file_name(name: str) -> str:
    return "without-" + "".join(c if c.isalnum() or c in "-_." else "-" for c in name)
