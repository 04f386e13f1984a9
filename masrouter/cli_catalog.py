"""`masrouter catalog`: the models, roles and topologies that plans are made of."""

from __future__ import annotations

import json
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from masrouter.catalog import Catalog, ModelEntry, RoleEntry, TopologyEntry
from masrouter.errors import CatalogError
from masrouter.strict_yaml import did_you_mean

app = typer.Typer(
    name="catalog",
    help="Show the models, roles and topologies that plans are made of, and check your own files.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)


class Section(StrEnum):
    """The parts of a catalog."""

    MODELS = "models"
    ROLES = "roles"
    TOPOLOGIES = "topologies"


Extra = Annotated[
    list[Path] | None,
    typer.Option(
        "--catalog",
        metavar="PATH",
        help="A YAML file or a folder of them that extends the default catalog; repeatable.",
        show_default=False,
    ),
]
AsJson = Annotated[
    bool, typer.Option("--json", help="Print JSON to stdout, and nothing else there.")
]


@app.command("list")
def list_entries(
    section: Annotated[
        Section | None,
        typer.Argument(help="Only this part of the catalog.", show_default=False),
    ] = None,
    catalog: Extra = None,
    as_json: AsJson = False,
) -> None:
    """List what the catalog holds, with prices in US dollars per million tokens.

    Examples:

        masrouter catalog list

        masrouter catalog list models --catalog my_prices.yaml --json
    """
    loaded = Catalog.load(*(catalog or []))
    sections = [section] if section is not None else list(Section)
    if as_json:
        data = {
            str(part): [asdict(entry) for entry in _entries(loaded, part).values()]
            for part in sections
        }
        typer.echo(json.dumps(data, indent=2, ensure_ascii=False))
        return
    console = Console(highlight=False)
    for part in sections:
        console.print(_table(loaded, part))


@app.command()
def show(
    name: Annotated[
        str, typer.Argument(help="A model (or one of its aliases), a role or a topology.")
    ],
    catalog: Extra = None,
    as_json: AsJson = False,
) -> None:
    """Show all that the catalog knows of a name; a name of several parts shows each.

    Examples:

        masrouter catalog show gpt-4o-mini

        masrouter catalog show debate --json
    """
    loaded = Catalog.load(*(catalog or []))
    found: dict[str, Any] = {}
    names: list[str] = []
    for part in Section:
        entries = _entries(loaded, part)
        names += entries
        if name in entries:
            found[part.value] = asdict(entries[name])
    if Section.MODELS not in found:
        aliases = [alias for entry in loaded.models.values() for alias in entry.aliases]
        names += aliases
        if name in aliases:
            found[Section.MODELS] = asdict(loaded.resolve_model(name))
    if not found:
        raise CatalogError(f"{name!r} is not in the catalog{did_you_mean(name, names)}")
    if as_json:
        typer.echo(json.dumps(found, indent=2, ensure_ascii=False))
        return
    console = Console(highlight=False)
    for part_name, entry in found.items():
        table = Table(title=part_name, show_header=False, box=None, title_justify="left")
        table.add_column(style="bold")
        table.add_column()
        for key, value in entry.items():
            table.add_row(key, escape(_shown(value)))
        console.print(table)


@app.command()
def check(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="A catalog file, or a folder of them.")
    ],
    as_json: AsJson = False,
) -> None:
    """Check a catalog file of your own as an extension of the default catalog.

    The first fault is told as `file:line: key: why`, with exit code 1.

    Example:

        masrouter catalog check my_models.yaml
    """
    default, extended = Catalog.default(), Catalog.load(file)
    changes: dict[str, dict[str, list[str]]] = {}
    for part in Section:
        before, after = _entries(default, part), _entries(extended, part)
        changes[part.value] = {
            "added": [name for name in after if name not in before],
            "changed": [n for n in after if n in before and after[n] != before[n]],
        }
    unpriced = [
        name
        for name in changes[Section.MODELS]["added"] + changes[Section.MODELS]["changed"]
        if extended.models[name].cost_usd(0, 0) is None
    ]
    if as_json:
        data = {"ok": True, "file": str(file), "changes": changes, "unpriced_models": unpriced}
        typer.echo(json.dumps(data, indent=2, ensure_ascii=False))
    else:
        console = Console(highlight=False)
        console.print(f"[green]ok[/green]: {escape(str(file))}")
        for part_name, change in changes.items():
            for verb, entries in change.items():
                if entries:
                    console.print(f"  {part_name} {verb}: {escape(', '.join(entries))}")
    if unpriced:
        Console(stderr=True, highlight=False).print(
            f"note: no price for {', '.join(unpriced)}: their cost is unknown, "
            "and a budget refuses them",
            style="yellow",
            markup=False,
        )


def _entries(
    catalog: Catalog, section: Section
) -> dict[str, ModelEntry] | dict[str, RoleEntry] | dict[str, TopologyEntry]:
    if section is Section.MODELS:
        return dict(catalog.models)
    if section is Section.ROLES:
        return dict(catalog.roles)
    return dict(catalog.topologies)


def _table(catalog: Catalog, section: Section) -> Table:
    table = Table(title=section.value, title_justify="left")
    if section is Section.MODELS:
        table.add_column("model", no_wrap=True)
        for name in ("provider", "US$/M in", "US$/M out", "context"):
            table.add_column(name, justify="left" if name == "provider" else "right")
        for m in catalog.models.values():
            cells = (m.provider, m.input_usd_per_mtok, m.output_usd_per_mtok, m.context_window)
            table.add_row(escape(m.name), *(escape(_shown(cell)) for cell in cells))
    elif section is Section.ROLES:
        for name in ("role", "domain", "description"):
            table.add_column(name)
        for r in catalog.roles.values():
            domain = "any" if r.domain is None else r.domain
            table.add_row(escape(r.name), escape(domain), escape(r.description))
    else:
        for name in ("topology", "agents", "order matters", "description"):
            table.add_column(name)
        for t in catalog.topologies.values():
            size = (
                str(t.min_agents)
                if t.min_agents == t.max_agents
                else (f"{t.min_agents} to {t.max_agents}")
            )
            table.add_row(escape(t.name), size, "yes" if t.ordered else "no", escape(t.description))
    return table


def _shown(value: object) -> str:
    if value is None:
        return "unknown"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, tuple | list):
        return ", ".join(map(str, value)) or "none"
    return str(value)
