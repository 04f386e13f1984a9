"""Options of routing that several commands take, with one meaning and one help text."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from masrouter.errors import ConfigError
from masrouter.loading import BACKENDS, Backend

LogPaths = Annotated[
    list[Path], typer.Option("--logs", "-l", help="Log files or folders (repeat the option).")
]
Checkpoint = Annotated[
    str, typer.Option("--checkpoint", "-c", help="A checkpoint folder or hub id.")
]
CostWeight = Annotated[
    float | None,
    typer.Option(help="Score units that a US dollar is worth; 0 looks at the score alone."),
]
Willingness = Annotated[
    float | None, typer.Option(help="The same, as US dollars for a whole unit of score.")
]
MaxCost = Annotated[float | None, typer.Option(help="Budget of a query.")]
MaxAgents = Annotated[int | None, typer.Option(help="Largest team; 1 keeps to single agents.")]
Models = Annotated[
    list[str] | None, typer.Option("--model", help="Only these models (repeat the option).")
]
ExcludedModels = Annotated[
    list[str] | None,
    typer.Option("--exclude-model", help="Not these models (repeat the option)."),
]
Topologies = Annotated[
    list[str] | None,
    typer.Option("--topology", help="Only these topologies (repeat the option)."),
]
RunBy = Annotated[
    str,
    typer.Option(
        "--backend",
        help="What runs encoder and networks: torch; onnx or openvino, which are faster and need "
        "no torch where `masrouter optimize` has been run.",
    ),
]
CatalogPaths = Annotated[list[Path] | None, typer.Option(help="YAML files with today's prices.")]
Strict = Annotated[bool, typer.Option(help="Stop at the first bad row.")]


def as_backend(name: str) -> Backend:
    """What `--backend` names; raises ConfigError where it is none."""
    for backend in BACKENDS:
        if backend == name:
            return backend
    raise ConfigError(f"--backend: expected {', '.join(BACKENDS)}, got {name!r}")
