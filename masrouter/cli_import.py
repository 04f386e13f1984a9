"""`masrouter logs import`: turn logs that people already have into log records."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from masrouter.catalog import Catalog
from masrouter.errors import LogError
from masrouter.importers import Format, ImportOptions, ImportReport, import_logs, read_model_map
from masrouter.importers.rows import Progress as OnProgress
from masrouter.logs import write_jsonl, write_parquet

_OUTCOMES, _RUNS = "Outcomes", "Runs"


class Runs(StrEnum):
    """What one record is made of."""

    trace = "trace"
    call = "call"


def _key(what: str) -> typer.models.OptionInfo:
    option: typer.models.OptionInfo = typer.Option(
        metavar="KEY", help=f"Metadata key of {what}.", rich_help_panel=_RUNS
    )
    return option


def import_command(
    source: Annotated[
        Format, typer.Argument(metavar="FORMAT", help="litellm, langfuse, otel or table.")
    ],
    inputs: Annotated[
        list[Path],
        typer.Argument(
            metavar="INPUT...",
            help="Files (.jsonl, .json, .csv, also .gz; .parquet) or folders of them.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            "-o",
            metavar="FILE",
            help="The log to write (.jsonl, .jsonl.gz or .parquet).",
            show_default=False,
        ),
    ],
    mapping: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="What a table's columns are (YAML); for table alone."),
    ] = None,
    dataset: Annotated[
        str | None, typer.Option(help="Where the queries come from.", rich_help_panel=_RUNS)
    ] = None,
    dataset_key: Annotated[str | None, _key("the dataset")] = None,
    task: Annotated[
        str | None, typer.Option(help="Domain: code, math, knowledge.", rich_help_panel=_RUNS)
    ] = None,
    task_key: Annotated[str | None, _key("the task")] = None,
    runs: Annotated[
        Runs, typer.Option(help="A run is a whole trace, or each call.", rich_help_panel=_RUNS)
    ] = Runs.trace,
    topology: Annotated[
        str | None,
        typer.Option(help="How the agents of a run of several calls talk.", rich_help_panel=_RUNS),
    ] = None,
    topology_key: Annotated[str | None, _key("the topology")] = None,
    agent_key: Annotated[str | None, _key("who made a call")] = None,
    query_id_key: Annotated[str | None, _key("the query's id")] = None,
    cost_key: Annotated[str | None, _key("what a call cost in US$")] = None,
    policy: Annotated[
        str | None, typer.Option(help="Who picked the plans.", rich_help_panel=_RUNS)
    ] = None,
    policy_key: Annotated[str | None, _key("who picked the plan")] = None,
    propensity_key: Annotated[
        str | None, _key("the probability with which the plan was picked")
    ] = None,
    seed_key: Annotated[str | None, _key("the run's seed")] = None,
    scores: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE",
            help="Scores by trace or call: columns id, score (score_source, name).",
            rich_help_panel=_OUTCOMES,
        ),
    ] = None,
    score_name: Annotated[
        str | None,
        typer.Option(help="Which score is the outcome.", rich_help_panel=_OUTCOMES),
    ] = None,
    score_source: Annotated[
        str | None,
        typer.Option(
            help="What scored, where the export does not say: tests, judge, human.",
            rich_help_panel=_OUTCOMES,
        ),
    ] = None,
    score_range: Annotated[
        tuple[float, float] | None,
        typer.Option(
            metavar="LOW HIGH",
            help="The scores' scale, where it is not 0 to 1.",
            rich_help_panel=_OUTCOMES,
        ),
    ] = None,
    score_label: Annotated[
        list[str] | None,
        typer.Option(
            metavar="LABEL=VALUE",
            help="What a label is worth, from 0 to 1.",
            rich_help_panel=_OUTCOMES,
        ),
    ] = None,
    model_map: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="YAML: names there to names of the catalog."),
    ] = None,
    catalog: Annotated[
        list[Path] | None, typer.Option(metavar="PATH", help="Catalog files of your own.")
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Stop at the first bad row.")] = False,
    rejects: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write every rejected row and its reason here (JSONL)."),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the account as JSON to stdout.")
    ] = False,
) -> None:
    """Turn logs of LiteLLM, Langfuse or OpenTelemetry, or a table, into log records.

    Nothing is guessed: what cannot be mapped is listed with its place and its reason, and every row
    is accounted for. A run of one call is the topology io; one of several calls needs --topology or
    --topology-key. A KEY is a name in the metadata, a path (metadata.team) or a tag (team:x).

    Examples:

        masrouter logs import litellm s3/ --dataset support --scores thumbs.csv --out a.parquet

        masrouter logs import langfuse export/ --dataset support --score-name correct --out b.jsonl

        masrouter logs import otel spans.jsonl --dataset support --topology-key team --out c.jsonl

        masrouter logs import table runs.csv --mapping columns.yaml --out d.parquet
    """
    if not out.name.endswith((".jsonl", ".jsonl.gz", ".parquet")):
        raise LogError(f"{out}: expected a name that ends in .jsonl, .jsonl.gz or .parquet")
    if rejects is not None:
        _make_folder(rejects)
    if out.resolve() in {path.resolve() for path in (*inputs, *(scores or ()))}:
        raise LogError(f"{out}: the log to write is one of the inputs; name another")
    options = ImportOptions(
        dataset=dataset,
        dataset_key=dataset_key,
        task=task,
        task_key=task_key,
        runs=runs.value,
        topology=topology,
        topology_key=topology_key,
        agent_key=agent_key,
        query_id_key=query_id_key,
        cost_key=cost_key,
        policy=policy,
        policy_key=policy_key,
        propensity_key=propensity_key,
        seed_key=seed_key,
        score_name=score_name,
        score_source=score_source,
        score_range=score_range,
        score_labels=_labels(score_label or ()),
        models=read_model_map(model_map) if model_map else {},
    )
    with _progress() as progress:
        imported = import_logs(
            source,
            inputs,
            options,
            mapping=mapping,
            scores=scores or (),
            catalog=Catalog.load(*catalog) if catalog else None,
            strict=strict,
            rejects=rejects,
            progress=progress,
        )
    _tell(imported.report)
    if not len(imported.logs):
        raise LogError("no row became a record, so nothing was written; the lines above say why")
    _make_folder(out)
    write = write_parquet if out.name.endswith(".parquet") else write_jsonl
    write(imported.logs, out)
    if as_json:
        told = {"destination": str(out)} | imported.report.to_json()
        typer.echo(json.dumps(told, indent=2, ensure_ascii=False))
    else:
        done = f"wrote {len(imported.logs):,} records to {out}"
        Console(highlight=False).print(done, markup=False, soft_wrap=True)


def _make_folder(file: Path) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        why = error.strerror or error
        raise LogError(f"{file}: the folder {file.parent} cannot be made: {why}") from error


def _labels(pairs: Sequence[str]) -> dict[str, float]:
    labels: dict[str, float] = {}
    for pair in pairs:
        label, equals, value = pair.rpartition("=")
        try:
            labels[label] = float(value)
        except ValueError:
            equals = ""
        if not equals or not label:
            raise LogError(f"--score-label: expected LABEL=VALUE such as good=1, got {pair!r}")
    return labels


@contextmanager
def _progress() -> Iterator[OnProgress]:
    """A bar on stderr; rich shows none where stderr is no terminal."""
    columns = (TextColumn("reading"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("reading", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _tell(report: ImportReport) -> None:
    console = Console(stderr=True, highlight=False)
    for line in report.lines():
        console.print(line, markup=False, soft_wrap=True)
