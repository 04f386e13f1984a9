"""The commands `masrouter train`, `masrouter evaluate` and `masrouter synth`."""

from __future__ import annotations

import json
from dataclasses import replace
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
from masrouter.errors import ConfigError, MasRouterError
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
from masrouter.logs import Logs, read_logs
from masrouter.outcomes import Outcomes
from masrouter_train.config import TrainConfig
from masrouter_train.fit import fit
from masrouter_train.learner import RouterLearner
from masrouter_train.progress import Progress
from masrouter_train.synthetic import write_world

LogPaths = Annotated[
    list[Path], typer.Option("--logs", "-l", help="Log files or folders (repeat the option).")
]
RecipePath = Annotated[
    Path | None, typer.Option("--recipe", "-r", help="Settings in YAML (training/recipes/).")
]
CatalogPaths = Annotated[
    list[Path] | None, typer.Option("--catalog", help="YAML files that extend the catalog.")
]
EncoderName = Annotated[
    str | None,
    typer.Option(help="all-MiniLM-L6-v2, hashing-256 (no model needed), a folder or a hub name."),
]
Strict = Annotated[bool, typer.Option(help="Stop at the first bad row.")]


REPORT_WIDTH = 140


class Left(StrEnum):
    """What to leave out of training."""

    DATASET = "dataset"
    MODEL = "model"


def train(
    logs: LogPaths,
    out: Annotated[Path, typer.Option("--out", "-o", help="The checkpoint folder to write.")],
    recipe: RecipePath = None,
    catalog: CatalogPaths = None,
    encoder: EncoderName = None,
    seed: Annotated[int | None, typer.Option(help="In place of the recipe's.")] = None,
    run_folder: Annotated[
        Path | None,
        typer.Option(help="CSV and TensorBoard logs and resumable state; none if left out."),
    ] = None,
    resume: Annotated[bool, typer.Option(help="Continue the run in --run-folder.")] = False,
    accelerator: Annotated[
        str | None, typer.Option(help="Lightning's: cpu, gpu, auto, ...")
    ] = None,
    devices: Annotated[str | None, typer.Option(help="Lightning's: a number or auto.")] = None,
    strict: Strict = False,
) -> None:
    """Learn a router from outcome logs and write a checkpoint.

    The kind of log (grid, randomised, observational) is detected and said. What does not pay on
    held-out queries is switched off, so the router starts at the best fixed plan.

    \b
    masrouter train --logs my_logs/ --out checkpoints/mine
    masrouter train --logs runs.parquet --out mine --run-folder runs/1   # Ctrl-C, then:
    masrouter train --logs runs.parquet --out mine --run-folder runs/1 --resume
    """
    config = _config(recipe, seed, encoder, accelerator, devices)
    if resume and run_folder is None:
        raise ConfigError("--resume needs --run-folder: the folder of the run to continue")
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    table = _read(logs, strict, console)
    router = fit(
        table,
        config,
        catalog=Catalog.load(*catalog) if catalog else None,
        run_folder=run_folder,
        resume=resume,
        progress=Progress(console),
    )
    identity = router.save_pretrained(out)
    console.print(f"wrote {out} (checkpoint {identity})")
    console.print(f'try: masrouter route --checkpoint {out} "your query"')


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
    config = _config(recipe, None, encoder, None, None)
    outcomes = Outcomes.from_logs(_read(logs, strict, console))
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


def synth(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for logs and catalog.")],
    kind: Annotated[str, typer.Option(help="grid, randomised or observational.")] = "grid",
    queries: Annotated[int, typer.Option(help="Number of queries.")] = 2000,
    seed: Annotated[int, typer.Option(help="Of everything that is drawn.")] = 0,
) -> None:
    """Write synthetic logs of a made-up world whose truth is known, to try the other commands.

    \b
    masrouter synth --out /tmp/world --queries 500
    masrouter evaluate --logs /tmp/world --catalog /tmp/world/catalog.yaml
    """
    write_world(out, kind, queries, seed)
    typer.echo(f"wrote synthetic {kind} logs and catalog.yaml to {out}", err=True)


def _config(
    recipe: Path | None,
    seed: int | None,
    encoder: str | None,
    accelerator: str | None,
    devices: str | None,
) -> TrainConfig:
    config = TrainConfig.from_recipe(recipe) if recipe else TrainConfig()
    if seed is not None:
        config = replace(config, seed=seed)
    if encoder is not None:
        config = replace(config, encoder=encoder)
    if accelerator is not None:
        config = replace(config, accelerator=accelerator)
    if devices is not None:
        config = replace(config, devices=int(devices) if devices.isdigit() else devices)
    return config


def _read(paths: list[Path], strict: bool, console: Console) -> Logs:
    table = read_logs(paths, strict=strict)
    if not table.report.ok:
        for line in table.report.lines():
            console.print(line, markup=False)
    return table


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
