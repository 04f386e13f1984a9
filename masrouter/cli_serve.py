"""`masrouter serve`: a router over HTTP; `masrouter served`: what it kept, as a log."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from masrouter.catalog import Catalog
from masrouter.cli_models import (
    SIMULATED,
    ServingModel,
    chat_model,
    check_served,
    servable,
    some_problems,
    unserved,
)
from masrouter.cli_options import CatalogPaths
from masrouter.errors import ConfigError
from masrouter.router import Router

if TYPE_CHECKING:
    from masrouter.server import Service

served_app = typer.Typer(
    name="served",
    help="What a server kept of its decisions and their outcomes.",
    no_args_is_help=True,
)
RecordsFile = Annotated[
    Path, typer.Argument(metavar="RECORDS", help="The file of `masrouter serve --records`.")
]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")]


def serve_command(
    checkpoint: Annotated[
        str | None, typer.Option("--checkpoint", "-c", help="A checkpoint folder or hub id.")
    ] = None,
    providers: Annotated[
        str | None,
        typer.Option(
            "--providers",
            "--llm",
            help="A providers YAML file, or `simulated`. Without, decisions alone are served.",
        ),
    ] = None,
    simulated: Annotated[
        bool, typer.Option("--simulated", help="The same as `--llm simulated`.")
    ] = False,
    problems: Annotated[
        list[Path] | None, typer.Option(help="What the simulated models know (repeat the option).")
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="A YAML file with settings; options here go before it.")
    ] = None,
    host: Annotated[
        str | None, typer.Option(help="Where to listen; beyond this machine only with a key.")
    ] = None,
    port: Annotated[int | None, typer.Option(help="0 takes a free one. [default: 8484]")] = None,
    budget_usd: Annotated[
        float | None, typer.Option(help="Most that all requests together may spend.")
    ] = None,
    exploration: Annotated[
        float | None, typer.Option(help="Share of decisions to draw at random, 0 to 1.")
    ] = None,
    records: Annotated[
        str | None,
        typer.Option(help="Where decisions and outcomes are kept: a file, `memory`, or `none`."),
    ] = None,
    keep_days: Annotated[
        float | None, typer.Option(help="Delete records that are older. They are kept else.")
    ] = None,
    backend: Annotated[
        str | None, typer.Option(help="What routes: torch, onnx or openvino.")
    ] = None,
    catalog: CatalogPaths = None,
    new_key: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Print a fresh API key and its YAML, and do no more."),
    ] = None,
) -> None:
    """Serve a router over HTTP: decisions, an OpenAI-compatible endpoint, a playground page.

    \b
    masrouter serve -c checkpoints/default                  decide alone; the page is at /
    masrouter serve -c mine/ --providers providers.yaml --budget-usd 20 --records served.sqlite
    masrouter serve -c mine/ --llm simulated --problems data/problems --exploration 0.2
    masrouter serve --new-key alice >> keys.txt             a key, for `keys:` of --config
    MASROUTER_SERVER_KEY=... masrouter serve -c mine/ --host 0.0.0.0

    \b
    curl http://127.0.0.1:8484/v1/decision -H 'Content-Type: application/json' \\
      -d '{"query": "Write a function that merges two sorted lists"}'

    It listens on this machine alone unless a key is set, and writes nothing to a disk unless
    --records names a file. Ctrl-C, or SIGTERM, ends it once every request is answered.

    \b
    A settings file (all keys are optional):
      host: 0.0.0.0
      keys:
        - {name: alice, sha256: 2c26b46b68ffc68ff99b453c1d304134..., budget_usd: 5}
      budget_usd: 100
      exploration: 0.05
      records: served.sqlite
      keep_days: 90
      plans:
        cheap: {topology: io, agents: [{role: null, model: gpt-4o-mini}]}
      limits: {max_concurrent: 64, max_queued: 256, request_timeout_s: 300}
    """
    from masrouter.server import Service, create_app
    from masrouter.server.running import serve
    from masrouter.server.settings import ServerSettings, records_place
    from masrouter.server.telemetry import Telemetry
    from masrouter.server.tracing import Tracing

    if new_key is not None:
        _print_new_key(new_key)
        return
    if checkpoint is None:
        raise ConfigError("name a router with --checkpoint; checkpoints/default comes with it")
    given = {
        "host": host,
        "port": port,
        "budget_usd": budget_usd,
        "exploration": exploration,
        "records": None if records is None else records_place(records),
        "keep_days": keep_days,
    }
    settings = ServerSettings.load(
        config,
        environment=os.environ,
        **{name: value for name, value in given.items() if value is not None},
    )
    known = Catalog.load(*catalog or ())
    options: dict[str, Any] = {} if backend is None else {"backend": backend}
    router = Router.from_pretrained(checkpoint, catalog=known if catalog else None, **options)
    llm = _model(providers, simulated, problems or (), known)
    lost: dict[str, str] = {}
    if llm is not None:
        servable(llm, router)
        lost = unserved(llm, (name for plan in router.plans for name in plan.models))
        check_served(llm, settings.plans.values())
    service = Service(
        router,
        llm=llm,
        settings=settings,
        catalog=known,
        unserved=tuple(lost),
        telemetry=Telemetry(),
        tracing=Tracing.configured(),
    )
    app = create_app(service)
    what = _what(providers, simulated)
    serve(app, settings, on_started=lambda url: typer.echo(_started(service, url, what)))
    if service.records.lost:
        typer.echo(f"{service.records.lost} records could not be written", err=True)


def _model(
    providers: str | None, simulated: bool, problems: Sequence[Path], catalog: Catalog
) -> ServingModel | None:
    if simulated and providers not in (None, SIMULATED):
        raise ConfigError("--simulated and --providers: give one of them")
    chosen = SIMULATED if simulated else providers
    if problems and chosen != SIMULATED:
        raise ConfigError("--problems: only simulated models are told what to know")
    if chosen is None:
        return None
    if chosen == SIMULATED and not problems:
        raise ConfigError(
            "simulated models answer what they were told: name problem sets with --problems, "
            "such as data/problems"
        )
    return chat_model(chosen, some_problems(problems, None) if problems else (), catalog)


def _what(providers: str | None, simulated: bool) -> str:
    if simulated or providers == SIMULATED:
        return "simulated models"
    return "none: decisions alone" if providers is None else str(providers)


def _started(service: Service, url: str, models: str) -> str:
    """What is served, where, to whom, for how much, and what is kept."""
    settings, router = service.settings, service.router
    names = ", ".join(entry.name for entry in settings.keys)
    fixed = "".join(f", masrouter/{name}" for name in settings.plans)
    out = f"; without {', '.join(service.unserved)}" if service.unserved else ""
    total = "no limit" if settings.budget_usd is None else f"${settings.budget_usd:g} in all"
    own = "".join(
        f", {entry.name} ${entry.budget_usd:g}"
        for entry in settings.keys
        if entry.budget_usd is not None
    )
    spent = service.budgets.spent()
    before = f"; ${spent:.4f} spent before, by the records" if spent else ""
    share = settings.exploration
    lines = [
        f"serving {router.checkpoint or 'a router'} ({len(router.plans)} plans) at {url}",
        f"  page         {url}/" if settings.playground else "  page         off",
        f"  models       {models}{out}",
        f"  asked as     masrouter/auto{fixed}",
        f"  keys         {names or 'none: this machine alone is answered'}",
        f"  budget       {total}{own}{before}",
        f"  exploration  {f'{share:.4g} of the decisions are drawn' if share else 'off'}",
        f"  records      {_records(service)}",
        "Ctrl-C ends it once every request is answered.",
    ]
    return "\n".join(lines)


def _records(service: Service) -> str:
    place, days = service.settings.records, service.settings.keep_days
    if place == "none":
        return "none: nothing is kept, and no outcome can be posted"
    what = "queries, plans, costs and outcomes; no answer"
    if place == "memory":
        return f"in memory until the end: {what}"
    return f"{place}: {what}; {'for good' if days is None else f'for {days:g} days'}"


def _print_new_key(name: str) -> None:
    from masrouter.server.keys import KeyEntry, key_digest, new_key
    from masrouter.strict_yaml import dump_strict

    key = new_key()
    entry = KeyEntry(name, key_digest(key))
    typer.echo(f"# The key of {name}, shown once: {key}")
    typer.echo("# For the file of --config, which holds its hash alone:")
    text = dump_strict({"keys": [{"name": entry.name, "sha256": entry.sha256}]})
    typer.echo(text, nl=False)


@served_app.command("export")
def export_command(
    records: RecordsFile,
    destination: Annotated[Path, typer.Argument(help="A .jsonl, .jsonl.gz or .parquet file.")],
    since: Annotated[
        str | None, typer.Option(help="Only decisions from then on: 2026-01-31, or with a time.")
    ] = None,
    scored: Annotated[bool, typer.Option(help="Only decisions with a score.")] = False,
    randomised: Annotated[
        bool,
        typer.Option(help="Only decisions with a propensity: what was served with exploration."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Write the records as a log of schema 1, also while the server runs.

    \b
    masrouter served export served.sqlite served.parquet
    masrouter logs check served.parquet
    masrouter train --logs served.parquet --out next/

    The file is replaced as a whole. Decisions of sessions and of fixed plans have no propensity;
    --randomised leaves them out, so that off-policy estimates can weigh the rest.
    """
    from masrouter.server.served_log import export

    done = export(
        records,
        destination,
        since=None if since is None else _moment(since),
        scored=scored,
        randomised=randomised,
    )
    if as_json:
        typer.echo(json.dumps(asdict(done) | {"path": str(done.path)}))
        return
    typer.echo(
        f"wrote {done.path}: {done.rows:,} decisions, {done.scored:,} with a score, "
        f"{done.rows - done.scored:,} without an outcome yet, "
        f"{done.with_propensity:,} with a propensity"
    )
    if done.left_out:
        typer.echo(f"left out {done.left_out:,}")


@served_app.command("show")
def show_command(records: RecordsFile, as_json: AsJson = False) -> None:
    """Count what the records hold, also while the server runs.

    \b
    masrouter served show served.sqlite
    """
    from masrouter.server.served_log import summary

    found = summary(records)
    if as_json:
        typer.echo(json.dumps(asdict(found)))
        return
    mean = "" if found.mean_score is None else f", mean score {found.mean_score:.4f}"
    typer.echo(f"decisions  {found.decisions:,} from {found.first or '-'} to {found.last or '-'}")
    typer.echo(f"           {found.with_propensity:,} with a propensity")
    for policy, count in found.policies:
        typer.echo(f"           {count:,} by {policy}")
    typer.echo(f"runs       {found.runs:,}, {found.failed:,} without an answer")
    typer.echo(f"outcomes   {found.outcomes:,}, {found.scored:,} with a score{mean}")
    for name, usd in found.spent_usd:
        typer.echo(f"spent      ${usd:.6f} by {name}")
    typer.echo(f"on disk    {found.megabytes:.1f} MB")


def _moment(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigError(
            f"--since: expected a date or time such as 2026-01-31T12:00:00Z, got {text!r}"
        ) from None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
