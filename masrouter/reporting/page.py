"""Templates to one self-contained HTML file: no script, no font, no image from elsewhere.

A page extends `base.html.j2` (blocks `title` and `content`) and takes its pieces from the macros:

    {% extends "base.html.j2" %}
    {% from "macros.html.j2" import figure, table %}

Everything is escaped: names, queries and notes come from logs that anybody may have written. Only
`Chart.inline()` is markup.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

import masrouter
from masrouter.reporting.number_formats import (
    dollars,
    fixed,
    percent,
    seconds,
    signed,
    spread,
    weight,
)
from masrouter.reporting.palette import COLOURS


def render(template: str, **context: object) -> str:
    """The page that a template of this package makes of a context.

    Filters for numbers are those of `number_formats`. Raises jinja2.UndefinedError where the
    template needs what the context lacks.
    """
    return _environment().get_template(template).render(**context)


def write_page(path: Path, template: str, **context: object) -> None:
    """`render` to a file; folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(render(template, **context), encoding="utf-8")


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).with_name("templates")),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(
        dollars=dollars,
        percent=percent,
        signed=signed,
        fixed=fixed,
        seconds=seconds,
        spread=spread,
        weight=weight,
    )
    environment.globals.update(colours=COLOURS, version=masrouter.__version__)
    return environment
