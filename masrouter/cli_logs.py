"""`masrouter logs`: look at logs, check them, convert them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from masrouter.cli_import import import_command
from masrouter.evaluation.teams import render_teams, team_table
from masrouter.logs import LogReport, LogStats, convert, iter_logs, log_stats, read_logs
from masrouter.logs.read import Progress as OnProgress

app = typer.Typer(
    name="logs",
    help="Bring logs from elsewhere, look at them, check them against the schema, convert them.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)
app.command("import")(import_command)

Sources = Annotated[
    list[Path],
    typer.Argument(
        metavar="PATH...",
        help="Log files (.jsonl, .jsonl.gz, .parquet) or folders of them.",
        show_default=False,
    ),
]
Strict = Annotated[
    bool, typer.Option("--strict", help="Stop at the first bad row instead of counting it.")
]
Rejects = Annotated[
    Path | None,
    typer.Option(
        "--rejects", metavar="FILE", help="Write each bad row and its reason to this JSONL file."
    ),
]
AsJson = Annotated[
    bool, typer.Option("--json", help="Print JSON to stdout, and nothing else there.")
]


@app.command()
def stats(
    paths: Sources, strict: Strict = False, rejects: Rejects = None, as_json: AsJson = False
) -> None:
    """Say what logs hold: rows, queries, plans, scores, costs, and which kind of logs they are.

    Examples:

        masrouter logs stats logs/

        masrouter logs stats runs.jsonl old.parquet --json
    """
    with _progress("reading") as progress:
        logs = read_logs(paths, strict=strict, rejects=rejects, progress=progress)
    found = log_stats(logs)
    if as_json:
        _print_json({"stats": found.to_json(), "report": logs.report.to_json()})
    else:
        _print_stats(found)
    _print_report(logs.report)
    for warning in found.warnings:
        _note(f"warning: {warning}", "yellow")


@app.command()
def check(
    paths: Sources, strict: Strict = False, rejects: Rejects = None, as_json: AsJson = False
) -> None:
    """Check logs against the schema; exit code 1 when a row breaks it.

    Every bad row is counted, and the first ones are shown as `file:line: field: why`. A query id
    that comes with two different texts is told too, and its rows are kept.

    Examples:

        masrouter logs check logs/

        masrouter logs check runs.jsonl --rejects bad.jsonl

        masrouter logs check runs.jsonl --strict --json
    """
    with _progress("checking") as progress:
        reader = iter_logs(paths, strict=strict, rejects=rejects, progress=progress)
        for _ in reader:
            pass
    report = reader.report
    if as_json:
        _print_json(report.to_json())
    else:
        kept = f"{report.rows_kept:,} of {report.rows_read:,} rows kept"
        verdict = "[green]ok[/green]" if report.ok else "[red]bad rows[/red]"
        Console(highlight=False).print(f"{verdict}: {kept} from {len(report.files)} file(s)")
    _print_report(report)
    if not report.ok:
        raise typer.Exit(1)


@app.command("convert")
def convert_logs(
    sources: Sources,
    to: Annotated[
        Path,
        typer.Option(
            "--to",
            "-o",
            metavar="FILE",
            help="The file to write; its name (.jsonl, .jsonl.gz, .parquet) says its format.",
            show_default=False,
        ),
    ],
    strict: Strict = False,
    rejects: Rejects = None,
    as_json: AsJson = False,
) -> None:
    """Join logs into one JSONL or Parquet file; a run that stands twice is written once.

    The file appears when it is complete. Bad rows are left out and reported; `--rejects` keeps
    them.

    Examples:

        masrouter logs convert runs/ --to runs.parquet

        masrouter logs convert runs.parquet --to runs.jsonl.gz --strict
    """
    with _progress("converting") as progress:
        report = convert(sources, to, strict=strict, rejects=rejects, progress=progress)
    if as_json:
        _print_json({"destination": str(to)} | report.to_json())
    else:
        Console(highlight=False).print(f"wrote {report.rows_kept:,} rows to {escape(str(to))}")
    _print_report(report)


@app.command()
def teams(
    paths: Sources,
    least_runs: Annotated[
        int, typer.Option(help="Leave out topologies with models of fewer scored runs.")
    ] = 50,
    strict: Strict = False,
    rejects: Rejects = None,
    as_json: AsJson = False,
) -> None:
    """Compare teams with single agents: accuracy and cost by topology and models.

    Each team stands beside the best single agent on one of its own models, over the same problems:
    what it gains, on which share of the problems it does worse, and what it costs more.

    Examples:

        masrouter logs teams data/logs/

        masrouter logs teams runs.parquet --least-runs 20 --json
    """
    with _progress("reading") as progress:
        logs = read_logs(paths, strict=strict, rejects=rejects, progress=progress)
    found = team_table(logs, least_runs=least_runs)
    if as_json:
        _print_json(asdict(found))
    else:
        # Narrower, the table cuts the models' names.
        console = Console(highlight=False)
        Console(highlight=False, width=max(console.width, 150)).print(render_teams(found))
    _print_report(logs.report)
    if found.rare_teams:
        _note(
            f"not shown: {found.rare_runs:,} runs of {found.rare_teams:,} topologies with models "
            f"that have fewer than {least_runs} runs",
            "yellow",
        )
    if found.unscored_runs:
        _note(f"not counted: {found.unscored_runs:,} runs without a score", "yellow")


@contextmanager
def _progress(verb: str) -> Iterator[OnProgress]:
    """A bar on stderr; rich shows none where stderr is no terminal."""
    console = Console(stderr=True)
    columns = (TextColumn(verb), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(verb, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _print_json(data: Mapping[str, Any]) -> None:
    typer.echo(json.dumps(data, indent=2, ensure_ascii=False))


def _note(text: str, style: str = "") -> None:
    Console(stderr=True, highlight=False).print(text, style=style, markup=False, soft_wrap=True)


def _print_report(report: LogReport) -> None:
    for line in report.lines():
        _note(line, "yellow")


def _print_stats(found: LogStats) -> None:
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold")
    table.add_column()
    mean = "unknown" if found.mean_score is None else f"{found.mean_score:.3f}"
    cost = "unknown" if found.total_cost_usd is None else f"{found.total_cost_usd:,.4f} US$"
    rows = [
        ("rows", f"{found.rows:,}"),
        ("queries", f"{found.queries:,}"),
        ("plans", f"{found.plans:,} (coverage of queries x plans {found.coverage:.1%})"),
        ("kind", f"{found.kind}: {found.why}"),
        ("mean score", f"{mean} (known for {found.score_known:.1%})"),
        ("score sources", _listed(found.score_sources)),
        ("cost", f"{cost} in all (known for {found.cost_known:.1%})"),
        ("tokens", f"known for {found.tokens_known:.1%}"),
        ("propensity", f"known for {found.propensity_known:.1%}"),
        ("errors", f"{found.errors:,}"),
        ("datasets", _listed(found.datasets)),
        ("tasks", _listed(found.tasks)),
        ("topologies", _listed(found.topologies)),
        ("roles", _listed(found.roles)),
        ("models", _listed(found.models)),
        ("team sizes", _listed({str(k): v for k, v in found.team_sizes.items()})),
        ("policies", _listed(found.policies)),
        ("time", f"{found.first_time} to {found.last_time}" if found.first_time else "unknown"),
    ]
    for name, value in rows:
        table.add_row(name, escape(value))
    Console(highlight=False).print(table)


def _listed(counts: Mapping[str, int], most: int = 12) -> str:
    shown = [f"{name} {rows:,}" for name, rows in list(counts.items())[:most]]
    rest = len(counts) - len(shown)
    return ", ".join(shown) + (f" and {rest} more" if rest else "") if shown else "none"
