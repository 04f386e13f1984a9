"""`masrouter replay`: what a router would have saved and broken on logged traffic."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from masrouter.catalog import Catalog
from masrouter.cli_models import read_plan
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
from masrouter.encoder import load_encoder
from masrouter.encoder.embedding_cache import EmbeddingCache
from masrouter.errors import EvaluationError
from masrouter.evaluation.replay import Limits, replay
from masrouter.evaluation.replay.report import WIDTH, print_replay, to_markdown
from masrouter.evaluation.replay.types import Replay
from masrouter.logs import read_logs
from masrouter.reporting.replay_page import write_replay
from masrouter.router import Router


def replay_command(
    logs: LogPaths,
    checkpoint: Checkpoint,
    current_plan: Annotated[
        str | None,
        typer.Option(help="Grid logs: what you run today, such as 'cot(gpt-4o)', to compare with."),
    ] = None,
    cost_weight: CostWeight = None,
    willingness_to_pay: Willingness = None,
    max_cost_usd: MaxCost = None,
    max_agents: MaxAgents = None,
    models: Models = None,
    exclude_models: ExcludedModels = None,
    topologies: Topologies = None,
    catalog: CatalogPaths = None,
    top: Annotated[
        int, typer.Option("-k", help="Biggest savings and biggest harms to show.", min=0)
    ] = 5,
    resamples: Annotated[
        int, typer.Option(help="Bootstrap draws of the intervals.", min=100)
    ] = 2000,
    seed: Annotated[int, typer.Option(help="Of the draws.", min=0)] = 0,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Folder for replay.json, replay.md, replay.html."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="JSON on standard output.")] = False,
    strict: Strict = False,
) -> None:
    """On your own traffic, what would a router have saved, and what would it have broken?

    Nothing is run and nothing leaves the machine. How much can be said depends on the logs: grid
    logs are looked up, randomised logs (with propensities) give estimates, and for observational
    logs it is said what is real, what is predicted, and what nobody can tell.

    \b
    masrouter replay --logs my_logs/ --checkpoint checkpoints/mine
    masrouter replay -l runs.parquet -c mine/ --current-plan "cot(gpt-4o)" --out report/
    masrouter replay -l runs.parquet -c mine/ --max-cost-usd 0.002 --json
    """
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    limits = Limits(
        cost_weight=cost_weight,
        willingness_to_pay=willingness_to_pay,
        max_cost_usd=max_cost_usd,
        max_agents=max_agents,
        models=tuple(models) if models else None,
        exclude_models=tuple(exclude_models or ()),
        topologies=tuple(topologies) if topologies else None,
    )
    current = None if current_plan is None else read_plan(current_plan)
    if out is not None:
        _make(out)
    rows = read_logs(logs, strict=strict)
    for line in rows.report.lines() if not rows.report.ok else ():
        console.print(line, markup=False)
    router = Router.from_pretrained(checkpoint, catalog=Catalog.load(*catalog) if catalog else None)
    # The same encoder with a cache: a second replay of long logs embeds nothing.
    cached = load_encoder(router.state.encoder_name, cache=EmbeddingCache())
    if cached.identity == router.encoder.identity:
        router = Router(router.state, cached, checkpoint=router.checkpoint)
    with _bars(console) as progress:
        found = replay(
            rows, router, limits=limits, current_plan=current, top=top, resamples=resamples,
            seed=seed, progress=progress,
        )  # fmt: skip
    _show(found, as_json)
    if out is not None:
        (out / "replay.json").write_text(found.to_json() + "\n", encoding="utf-8")
        (out / "replay.md").write_text(to_markdown(found), encoding="utf-8")
        write_replay(out / "replay.html", found)
        console.print(f"wrote {out / 'replay.html'}, replay.md and replay.json", markup=False)


def _show(found: Replay, as_json: bool) -> None:
    if as_json:
        typer.echo(found.to_json())
    else:
        # Narrower, the tables break numbers; a terminal wraps, a file does not care.
        print_replay(found, Console(highlight=False, width=max(Console().width, WIDTH)))


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise EvaluationError(f"--out: {folder} cannot be made: {error.strerror}") from error


@contextmanager
def _bars(console: Console) -> Iterator[Callable[[int, int, str], None]]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeElapsedColumn(), console=console, transient=True) as bars:
        tasks: dict[str, int] = {}

        def show(done: int, total: int, what: str) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=total)
            bars.update(tasks[what], completed=done, total=total)  # type: ignore[arg-type]

        yield show
