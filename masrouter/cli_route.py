"""`masrouter route`."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from masrouter.catalog import Catalog
from masrouter.cli_options import (
    CatalogPaths,
    Checkpoint,
    CostWeight,
    ExcludedModels,
    MaxAgents,
    MaxCost,
    Models,
    RunBy,
    Topologies,
    Willingness,
    as_backend,
)
from masrouter.errors import RoutingError
from masrouter.reporting.query_page import write_query_page
from masrouter.router import Router
from masrouter.types import RoutingDecision, ScoredPlan


def route(
    checkpoint: Checkpoint,
    queries: Annotated[
        list[str] | None,
        typer.Argument(help="Queries; `-` reads one a line from standard input."),
    ] = None,
    cost_weight: CostWeight = None,
    willingness_to_pay: Willingness = None,
    max_cost_usd: MaxCost = None,
    max_agents: MaxAgents = None,
    models: Models = None,
    exclude_models: ExcludedModels = None,
    topologies: Topologies = None,
    alternatives: Annotated[int, typer.Option("-k", help="Alternatives to show.")] = 3,
    sample: Annotated[
        bool, typer.Option(help="Draw from the cascade and say with what probability.")
    ] = False,
    seed: Annotated[int | None, typer.Option(help="Of the draw.")] = None,
    catalog: CatalogPaths = None,
    backend: RunBy = "torch",
    explain: Annotated[bool, typer.Option(help="Show every plan's figures.")] = False,
    report: Annotated[
        Path | None, typer.Option(help="Write why these teams, drawn, as one HTML file.")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object a query on standard output.")
    ] = False,
) -> None:
    """Which team should answer? Nothing is run and nothing leaves the machine.

    \b
    masrouter route -c checkpoints/mine "Write a function that merges two sorted lists"
    masrouter route -c mine/ --max-cost-usd 0.002 --exclude-model gpt-4 "Summarise this: ..."
    masrouter route -c mine/ --report why.html "Prove that ..."
    cat queries.txt | masrouter route -c mine/ --backend onnx --json -
    """
    texts = _read(queries or [])
    router = Router.from_pretrained(
        checkpoint,
        backend=as_backend(backend),
        catalog=Catalog.load(*catalog) if catalog else None,
    )
    options = {
        "cost_weight": cost_weight,
        "willingness_to_pay": willingness_to_pay,
        "max_cost_usd": max_cost_usd,
        "max_agents": max_agents,
        "models": models or None,
        "exclude_models": exclude_models or (),
        "topologies": topologies or None,
        "k": alternatives,
        "sample": sample,
        "seed": seed,
    }
    if report is None and (as_json or not explain):
        decisions = router.route_batch(texts, **options)  # type: ignore[arg-type]
    else:
        explanations = [router.explain(text, **options) for text in texts]
        decisions = [explanation.decision for explanation in explanations]
        if report is not None:
            write_query_page(explanations, report, queries=texts)
            typer.echo(f"wrote {report}", err=True)
        if explain and not as_json:
            for explanation in explanations:
                typer.echo(str(explanation))
            return
    for text, decision in zip(texts, decisions, strict=True):
        if as_json:
            typer.echo(json.dumps({"query": text, **asdict(decision)}, allow_nan=False))
        else:
            # Narrower, the table cuts the plans' names.
            _show(text, decision, Console(highlight=False, width=max(Console().width, 120)))


def _read(queries: list[str]) -> list[str]:
    texts: list[str] = []
    for query in queries:
        if query == "-":
            texts += [line.rstrip("\n") for line in sys.stdin if line.strip()]
        else:
            texts.append(query)
    if not texts:
        raise RoutingError("no query: give one as an argument, or `-` to read standard input")
    return texts


def _show(text: str, decision: RoutingDecision, console: Console) -> None:
    shown = text if len(text) <= 100 else text[:97] + "..."
    console.print(shown.replace("\n", " "), style="bold", markup=False)
    console.print(f"  -> {decision.plan}", style="green", markup=False)
    for reason in decision.reasons:
        console.print(f"     {reason}", markup=False)
    table = Table(box=None, padding=(0, 2, 0, 5))
    for column in ("expected score", "95 %", "expected cost", "plan"):
        table.add_column(column, justify="left" if column == "plan" else "right")
    rows: tuple[RoutingDecision | ScoredPlan, ...] = (decision, *decision.alternatives)
    for row in rows:
        cost = row.expected_cost_usd
        table.add_row(
            f"{row.expected_score:.3f}",
            f"{row.score_interval.low:.2f}-{row.score_interval.high:.2f}",
            "unknown" if cost is None else f"${cost:.6f}",
            str(row.plan) + ("  (chosen)" if row is decision else ""),
        )
    console.print(table)
