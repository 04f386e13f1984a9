"""The commands `masrouter train` and `masrouter synth`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from masrouter.catalog import Catalog
from masrouter.errors import ConfigError
from masrouter_train.fit import fit
from masrouter_train.options import (
    CatalogPaths,
    EncoderName,
    LogPaths,
    RecipePath,
    Strict,
    Without,
    config_of,
    read,
)
from masrouter_train.progress import Progress
from masrouter_train.synthetic import write_world


def train(
    logs: LogPaths,
    out: Annotated[Path, typer.Option("--out", "-o", help="The checkpoint folder to write.")],
    recipe: RecipePath = None,
    catalog: CatalogPaths = None,
    encoder: EncoderName = None,
    seed: Annotated[int | None, typer.Option(help="In place of the recipe's.")] = None,
    without: Without = None,
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
    masrouter train --logs my_logs/ --out ablated --without topology --without text
    """
    config = config_of(recipe, seed, encoder, accelerator, devices, without or ())
    if resume and run_folder is None:
        raise ConfigError("--resume needs --run-folder: the folder of the run to continue")
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    table = read(logs, strict, console)
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
