"""What `masrouter deliberate` keeps and shows: a file of samples that is gone on with, tables."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from masrouter.delegation.calibration.agreement import Calibration, Row
from masrouter.delegation.calibration.asking import AskingCalibration
from masrouter.delegation.calibration.measuring import Measured
from masrouter.delegation.calibration.sampled import SampledQuery, read_samples, writing_samples
from masrouter.delegation.deliberation.agreement import Rule
from masrouter.errors import ConfigError, LogError
from masrouter.logs.lines import BadLine, parse_line
from masrouter.printable import printable

Write = Callable[[SampledQuery], None]
_MEANS = {
    "whole": "the best that delegates the whole task",
    "step": "the best that delegates the step alone",
    "always": "the strong worker",
    "never": "one cheap sample",
    "length": "the strong worker from so many characters on",
    "vote": "the samples' most frequent answer, never delegated",
    "coin": "always or never at random, at deliberate's cost",
    "short": "asks below so many characters",
    "answered": "as ask, where every question is answered",
}
"""What the rows of the tables are."""
WIDTH = 150
"""Columns that the tables need; a narrower terminal wraps them."""


def setting_path(out: Path) -> Path:
    """Where it stands how a file of samples was made."""
    return out.with_name(f"{out.name}.setting.json")


def kept_samples(out: Path, setting: Mapping[str, Any]) -> tuple[SampledQuery, ...]:
    """The queries that an earlier run of the same setting left in a file; none for a new file.

    A last line that was cut off in the middle is taken off the file, and said. Raises ConfigError
    for a file that was made otherwise, or of which nothing says how, LogError for a damaged one.
    """
    if not out.exists():
        return ()
    path = setting_path(out)
    try:
        before = parse_line(path.read_bytes())
    except FileNotFoundError:
        raise ConfigError(
            f"--out: {out} exists already, and {path} is not there to say how it was made; give "
            "another name"
        ) from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror or error}") from error
    except BadLine as bad:
        raise ConfigError(f"{path}: {bad}; give --out another name") from None
    for name, value in setting.items():
        if before.get(name) != value:
            raise ConfigError(
                f"--out: {out} was made with {name} = {printable(repr(before.get(name)))}, and now "
                f"it is {value!r}; give another name, or ask for the same"
            )
    with out.open("rb+") as file:
        data = file.read()
        if torn := len(data) - (data.rfind(b"\n") + 1):
            file.truncate(len(data) - torn)
            typer.echo(f"note: {out}: a last line that was cut off is taken away", err=True)
    return read_samples(out) if data.count(b"\n") else ()


@contextlib.contextmanager
def writing_on(out: Path, setting: Mapping[str, Any]) -> Iterator[Write]:
    """Add queries to a file of samples, or begin one with its setting beside it.

    Raises LogError where it cannot be written.
    """
    if not out.exists():
        try:
            with writing_samples(out) as write:
                _write_setting(out, setting)
                yield write
        finally:
            if not out.exists():  # nothing came, and it is gone again
                setting_path(out).unlink(missing_ok=True)
        return
    try:
        with out.open("a", encoding="utf-8") as file:

            def add(query: SampledQuery) -> None:
                file.write(json.dumps(query.to_json()) + "\n")
                file.flush()

            yield add
    except OSError as error:
        raise LogError(f"{out}: cannot be written: {error.strerror or error}") from error


def _write_setting(out: Path, setting: Mapping[str, Any]) -> None:
    path = setting_path(out)
    try:
        path.write_text(json.dumps(setting, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise LogError(f"{path}: cannot be written: {error.strerror or error}") from error


@contextlib.contextmanager
def progress(total: int, done: int) -> Iterator[Callable[[], None]]:
    """A bar on standard error, one step for each call; nothing where that is no terminal."""
    console = Console(stderr=True)
    with Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
    ) as bar:
        queries = bar.add_task("queries", total=total, completed=done)
        yield lambda: bar.advance(queries)


def print_deliberating(found: Calibration) -> None:
    """What deliberating gives against the plain policies, and what was chosen."""
    table = _table("delegated", "deliberate scores more", "and saves")
    against = {one.name: one for one in found.against}
    for row in found.rows:
        other = against.get(row.name)
        table.add_row(
            row.name,
            told(row.score, ".3f"),
            told(row.cost_usd, ".6f"),
            f"{row.delegated:.1%}",
            "" if other is None else told(other.score, "+.3f"),
            "" if other is None else told(other.cost_saved, ".1%"),
        )
    console = _console()
    console.print(table)
    length = found.length
    characters = "never delegates" if length is None else f"from {length} characters"
    by_fold = ", ".join(map(rule_text, found.chosen))
    console.print(
        f"chosen on all {found.queries} queries: {rule_text(found.rule)} samples must agree (by "
        f"fold: {by_fold}); length: {characters}. 95 % intervals over queries, each judged by a "
        f"choice made without it.\n{_legend(found.rows)}",
        soft_wrap=True,
    )


def print_asking(found: AskingCalibration) -> None:
    """What asking first gives against the plain policies, and what was chosen."""
    table = _table("delegated", "asked", "asking scores more", "and saves")
    against = {one.name: one for one in found.against}
    for row in found.rows:
        other = against.get(row.name)
        table.add_row(
            row.name,
            told(row.score, ".3f"),
            told(row.cost_usd, ".6f"),
            f"{row.delegated:.1%}",
            f"{row.asked:.1%}",
            "" if other is None else told(other.score, "+.3f"),
            "" if other is None else told(other.cost_saved, ".1%"),
        )
    console = _console()
    judged = "with its questions answered" if found.answered else "which scores nothing"
    console.print(f"\nMissing information: asking first, {judged}, against answering")
    console.print(table)
    weighed = ", ".join(f"{kind} {weight:.2f}" for kind, weight in found.rule.weights.items())
    console.print(
        f"chosen on all queries, {found.lacking} of which are known to lack something and "
        f"{found.whole} nothing: ask from a score of {found.rule.threshold:.2f} on (by fold: "
        f"{', '.join(f'{rule.threshold:.2f}' for rule in found.chosen)}), signals {weighed}; "
        f"precision {told(found.precision, '.2f')}, recall {told(found.recall, '.2f')}. "
        + (
            "A model's own word is worth its price."
            if "model" in found.rule.weights
            else "A model's own word is not worth its price, or was not logged (--check)."
        )
        + f"\n{_legend(found.rows)}",
        soft_wrap=True,
    )


def rule_text(rule: Rule) -> str:
    """`2 of 3`, and where it delegates the step alone `2 of 3 at the step (alike 0.5)`."""
    text = f"{rule.needed} of {rule.samples}"
    return text if rule.at == "task" else f"{text} at the step (alike {rule.alike:g})"


def told(measured: Measured, form: str) -> str:
    """A mean with its interval; a dash where nothing could be measured."""
    low, high = measured.interval.low, measured.interval.high
    if math.isnan(measured.mean):
        return "-"
    return f"{measured.mean:{form}} ({low:{form}} to {high:{form}})"


def _legend(rows: Sequence[Row]) -> str:
    return "; ".join(f"{row.name}: {_MEANS[row.name]}" for row in rows if row.name in _MEANS)


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("rule")
    for name in ("score", "US$ a query", *columns):
        table.add_column(name, justify="right")
    return table


def _console() -> Console:
    return Console(highlight=False, width=max(Console().width, WIDTH))
