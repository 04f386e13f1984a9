"""`masrouter export`: logs and routing decisions in the formats of the field's benchmarks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from masrouter.catalog import Catalog
from masrouter.cli_options import (
    CatalogPaths,
    Checkpoint,
    CostWeight,
    ExcludedModels,
    LogPaths,
    MaxAgents,
    MaxCost,
    Models,
    Strict,
    Topologies,
    Willingness,
)
from masrouter.errors import EvaluationError
from masrouter.evaluation.exports import (
    RouteOptions,
    arena_predictions,
    bench_results,
    read_arena_queries,
    read_names,
    routed_result,
    router_bench_table,
    write_arena_config,
    write_arena_predictions,
    write_bench,
    write_router_bench,
)
from masrouter.evaluation.exports.routing import Progress as OnProgress
from masrouter.logs import read_logs
from masrouter.outcomes import Outcomes
from masrouter.router import Router

app = typer.Typer(
    name="export",
    help="Write logs and decisions in the formats of routing benchmarks.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

NamesFile = Annotated[
    Path | None,
    typer.Option(
        "--names",
        help="YAML from masrouter's names to theirs, one a line: `gpt-4o: openai/gpt-4o`.",
    ),
]


@app.command("routerbench")
def export_router_bench(
    logs: LogPaths,
    out: Annotated[Path, typer.Option("--out", "-o", help="The .csv or .parquet to write.")],
    names: NamesFile = None,
    strict: Strict = False,
) -> None:
    """Grid logs as RouterBench's wide table: of each query, every plan's score and cost.

    A plan of one agent is called by its model where no other plan has that model alone. Unknown
    scores and costs are empty.

    \b
    masrouter export routerbench --logs my_logs/ --out table.csv
    """
    table = router_bench_table(_outcomes(logs, strict), _names(names))
    write_router_bench(table, out)
    _say(*(f"note: {note}" for note in table.notes))
    _say(f"wrote {len(table.frame)} queries and {len(table.models)} models to {out}")


@app.command("llmrouterbench")
def export_llm_router_bench(
    logs: LogPaths,
    out: Annotated[
        Path, typer.Option("--out", "-o", help="The folder to write below: its results/bench.")
    ],
    checkpoint: Annotated[
        str | None,
        typer.Option(
            "--checkpoint", "-c", help="A router to write as one more model: what it chooses."
        ),
    ] = None,
    name: Annotated[str, typer.Option(help="What the router is called.")] = "masrouter",
    split: Annotated[str, typer.Option(help="The split that the queries are said to be.")] = "test",
    names: NamesFile = None,
    cost_weight: CostWeight = None,
    willingness_to_pay: Willingness = None,
    max_cost_usd: MaxCost = None,
    max_agents: MaxAgents = None,
    models: Models = None,
    exclude_models: ExcludedModels = None,
    topologies: Topologies = None,
    catalog: CatalogPaths = None,
    strict: Strict = False,
) -> None:
    """Grid logs as LLMRouterBench's result files: a file a data set and plan, a record a query.

    With a checkpoint, the router is one more model, with the records of the plans that it chooses.
    Give logs that it was not trained on: else its results are in sample.

    \b
    masrouter export llmrouterbench --logs my_logs/ --out results/bench
    masrouter export llmrouterbench --logs unseen/ --out results/bench \\
        --checkpoint checkpoints/mine --cost-weight 20
    """
    outcomes = _outcomes(logs, strict)
    found = bench_results(outcomes, split=split, names=_names(names))
    results, notes = list(found.results), list(found.notes)
    if checkpoint is not None:
        router = _router(checkpoint, catalog)
        options = _options(
            cost_weight, willingness_to_pay, max_cost_usd, max_agents, models, exclude_models,
            topologies,
        )  # fmt: skip
        with _progress() as progress:
            routed = routed_result(
                router, outcomes, options, name=name, split=split, progress=progress
            )
        results += routed.results
        notes += routed.notes
    paths = write_bench(results, out)
    _say(*(f"note: {note}" for note in notes), f"wrote {len(paths)} files below {out}")


@app.command("routerarena")
def export_router_arena(
    checkpoint: Checkpoint,
    queries: Annotated[
        Path,
        typer.Option(
            "--queries",
            "-q",
            help="Its queries (.json, .jsonl, .csv, .parquet; `global index`, `prompt_formatted`).",
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="The prediction file to write.")],
    config: Annotated[
        Path | None, typer.Option(help="Also write its config file: the router's name and models.")
    ] = None,
    names: NamesFile = None,
    cost_weight: CostWeight = None,
    willingness_to_pay: Willingness = None,
    max_cost_usd: MaxCost = None,
    max_agents: MaxAgents = None,
    models: Models = None,
    exclude_models: ExcludedModels = None,
    topologies: Topologies = None,
    catalog: CatalogPaths = None,
) -> None:
    """RouterArena's prediction file: for each of its queries, the model that should answer.

    RouterArena asks one model once, so a decision for a team is refused; --max-agents 1 keeps to
    single agents. Nothing is run: RouterArena's own scripts ask the models and grade.

    \b
    masrouter export routerarena -c checkpoints/mine --max-agents 1 --names names.yaml \\
        --queries dataset/router_data.json \\
        --out router_inference/predictions/mine.json --config router_inference/config/mine.json
    """
    if config is not None and config.stem != out.stem:
        raise EvaluationError(
            f"--config: RouterArena goes by the file's name, which must be that of --out: "
            f"{out.stem}.json, not {config.name}"
        )
    asked = read_arena_queries(queries)
    options = _options(
        cost_weight, willingness_to_pay, max_cost_usd, max_agents, models, exclude_models,
        topologies,
    )  # fmt: skip
    router = _router(checkpoint, catalog)
    with _progress() as progress:
        found = arena_predictions(router, asked, options, names=_names(names), progress=progress)
    write_arena_predictions(found, out)
    if config is not None:
        write_arena_config(found, config)
    _say(*(f"note: {note}" for note in found.notes))
    _say(f"wrote {len(found.entries)} predictions of {len(found.models)} models to {out}")


def _options(
    cost_weight: float | None,
    willingness_to_pay: float | None,
    max_cost_usd: float | None,
    max_agents: int | None,
    models: list[str] | None,
    exclude_models: list[str] | None,
    topologies: list[str] | None,
) -> RouteOptions:
    """Options that were not given are lists to typer, and no constraint."""
    return RouteOptions(
        cost_weight,
        willingness_to_pay,
        max_cost_usd,
        max_agents,
        tuple(models) if models else None,
        tuple(exclude_models or ()),
        tuple(topologies) if topologies else None,
    )


def _outcomes(paths: list[Path], strict: bool) -> Outcomes:
    logs = read_logs(paths, strict=strict)
    if not logs.report.ok:
        _say(*logs.report.lines())
    return Outcomes.from_logs(logs)


def _names(path: Path | None) -> dict[str, str] | None:
    return None if path is None else read_names(path)


def _router(checkpoint: str, catalog: list[Path] | None) -> Router:
    return Router.from_pretrained(checkpoint, catalog=Catalog.load(*catalog) if catalog else None)


@contextmanager
def _progress() -> Iterator[OnProgress]:
    """A bar on stderr; rich shows none where stderr is no terminal."""
    columns = (TextColumn("routing"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("routing", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _say(*lines: str) -> None:
    console = Console(stderr=True, highlight=False)
    for line in lines:
        console.print(line, markup=False, soft_wrap=True)
