"""Options that several commands take, and what they mean."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from masrouter.logs import Logs, read_logs
from masrouter_train.config import Ablation, TrainConfig

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

Without = Annotated[
    list[Ablation] | None,
    typer.Option(help="Switch a part off, to see what it is worth (repeat the option)."),
]


def config_of(
    recipe: Path | None,
    seed: int | None,
    encoder: str | None,
    accelerator: str | None,
    devices: str | None,
    without: Sequence[Ablation] = (),
) -> TrainConfig:
    """The recipe's settings, or the defaults, with those of the command line in their place."""
    config = TrainConfig.from_recipe(recipe) if recipe else TrainConfig()
    if seed is not None:
        config = replace(config, seed=seed)
    if encoder is not None:
        config = replace(config, encoder=encoder)
    if accelerator is not None:
        config = replace(config, accelerator=accelerator)
    if devices is not None:
        config = replace(config, devices=int(devices) if devices.isdigit() else devices)
    return config.without(*without)


def read(paths: list[Path], strict: bool, console: Console) -> Logs:
    table = read_logs(paths, strict=strict)
    if not table.report.ok:
        for line in table.report.lines():
            console.print(line, markup=False)
    return table
