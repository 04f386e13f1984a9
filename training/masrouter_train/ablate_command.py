"""The command `masrouter ablate`."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from masrouter.catalog import Catalog
from masrouter.encoder import load_encoder
from masrouter.encoder.embedding_cache import EmbeddingCache
from masrouter.evaluation.crossval import cross_validate
from masrouter.outcomes import Outcomes
from masrouter_train.ablation import (
    ablated_learners,
    ablation_table,
    ablations_to_json,
    ablations_to_markdown,
    render_ablations,
)
from masrouter_train.config import Ablation, TrainConfig
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

TABLE_WIDTH = 190


def ablate(
    logs: LogPaths,
    only: Annotated[
        list[Ablation] | None,
        typer.Option(help="Switch only these parts off (repeat the option); all if none."),
    ] = None,
    folds: Annotated[int, typer.Option(help="Parts that queries are split into.")] = 5,
    seeds: Annotated[int, typer.Option(help="Independent splits.")] = 1,
    recipe: RecipePath = None,
    catalog: CatalogPaths = None,
    encoder: EncoderName = None,
    cost_weight: Annotated[
        list[float] | None,
        typer.Option(help="Trade-offs to judge (repeat); 0 and six up to 2 / median cost if none."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Folder for ablation.json and ablation.md."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="JSON on standard output.")] = False,
    strict: Strict = False,
) -> None:
    """What is each part of the router worth on your logs?

    Trains the router as it is, and once without each part: the choice of the topology, of the roles
    and of the models (each then held at that of the best fixed plan at the default trade-off), the
    cost, the text's embedding, its domain, the shrinkage to the fixed plan. All are judged on the
    same held-out queries, against the whole router and against the best fixed plan. The logs must
    be a grid. Unfinished work in --out is resumed.

    \b
    masrouter ablate --logs my_logs/
    masrouter ablate --logs runs.parquet --only models --only text --out ablations/
    """
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    config = config_of(recipe, None, encoder, None, None)
    outcomes = Outcomes.from_logs(read(logs, strict, console))
    progress = Progress(console)
    progress.say(f"{outcomes.kind} logs: {outcomes.why}")
    text_encoder = load_encoder(config.encoder, cache=EmbeddingCache())
    embeddings = text_encoder.encode(outcomes.queries, progress=True)
    names = Catalog.load(*catalog) if catalog else None
    parts = tuple(dict.fromkeys(only)) if only else tuple(Ablation)
    learners = ablated_learners(config, text_encoder, names, parts)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
    with progress.counted("ablating") as count:
        result = cross_validate(
            outcomes,
            embeddings,
            learners,
            folds=folds,
            seeds=tuple(range(seeds)),
            cost_weights=cost_weight or None,
            progress=count,
            checkpoint_file=out / _units_name(config, catalog or []) if out else None,
        )
    found = ablation_table(
        result,
        data=", ".join(path.stem or str(path) for path in logs),
        synthetic=any("synthetic" in dataset for dataset in outcomes.datasets),
    )
    if as_json:
        typer.echo(json.dumps(json.loads(ablations_to_json(found))))
    else:
        # Narrower, the table loses digits; a terminal wraps, a file does not care.
        stdout = Console(highlight=False, width=max(Console().width, TABLE_WIDTH))
        stdout.print(render_ablations(found))
        for note in found.notes:
            stdout.print(Text(f"note: {note}", style="dim"))
    if out is not None:
        (out / "ablation.json").write_text(ablations_to_json(found), encoding="utf-8")
        (out / "ablation.md").write_text(ablations_to_markdown(found), encoding="utf-8")


def _units_name(config: TrainConfig, catalog: list[Path]) -> str:
    """Finished work goes by the learner's name: other settings get a file of their own."""
    digest = hashlib.sha256(json.dumps(config.to_json(), sort_keys=True).encode())
    for path in catalog:
        digest.update(path.read_bytes())
    return f"units-{digest.hexdigest()[:12]}.jsonl"
