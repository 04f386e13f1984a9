"""What `masrouter deliberate` shows: what was chosen, beside the plain ways of working."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.table import Table

from masrouter.delegation.calibration.agreement import Calibration, Row
from masrouter.delegation.calibration.asking import AskingCalibration
from masrouter.delegation.calibration.compared import Against, Compared
from masrouter.delegation.calibration.measuring import Measured
from masrouter.delegation.deliberation.agreement import Rule

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
_WIDTH = 170
"""Columns that the tables need; a narrower terminal wraps them."""


def print_deliberating(found: Calibration) -> None:
    """What deliberating gives against the plain policies, and what was chosen."""
    steps = any(row.handed for row in found.rows)
    table = compared_table(
        found.rows,
        savings(found.against),
        unit="query",
        shares={"delegated": "delegated", **({"a step": "handed"} if steps else {})},
        last=("deliberate scores more", "and saves"),
    )
    console = wide_console()
    console.print(table)
    length = found.length
    characters = "never delegates" if length is None else f"from {length} characters"
    by_fold = ", ".join(map(rule_text, found.chosen))
    rule = found.rule
    whose = "the task" if rule.at == "task" else "the step"
    alike = "" if rule.at == "task" else f" (alike from {rule.alike:g})"
    console.print(
        f"chosen on all {found.queries} queries: {rule.needed} of {rule.samples} samples must "
        f"agree, else {whose} is delegated{alike} (by fold: {by_fold}); length: {characters}. "
        "95 % intervals over queries, each judged by a choice made without it.\n"
        f"{_legend(found.rows)}",
        soft_wrap=True,
    )


def print_asking(found: AskingCalibration, *, checked: bool) -> None:
    """What asking first gives against the plain policies, and what was chosen.

    checked: every query of the log has the cheap model's own word on what is missing.
    """
    table = compared_table(
        found.rows,
        savings(found.against),
        unit="query",
        shares={"delegated": "delegated", "asked": "asked"},
        last=("asking scores more", "and saves"),
    )
    if "model" in found.rule.weights:
        word = "is worth its price"
    elif checked:
        word = "is not worth its price here"
    else:
        word = "was not logged for every query: collect --check logs it"
    console = wide_console()
    judged = "with its questions answered" if found.answered else "which scores nothing"
    console.print(f"\nMissing information: asking first, {judged}, against answering")
    console.print(table)
    weighed = ", ".join(f"{kind} {weight:.2f}" for kind, weight in found.rule.weights.items())
    console.print(
        f"chosen on all queries, {found.lacking} of which are known to lack something and "
        f"{found.whole} nothing: ask from a score of {found.rule.threshold:.2f} on (by fold: "
        f"{', '.join(f'{rule.threshold:.2f}' for rule in found.chosen)}), signals {weighed}; "
        f"precision {told(found.precision, '.2f')}, recall {told(found.recall, '.2f')}. "
        "How is deliberated was chosen on all of them, the same for ask, deliberate and short. "
        f"A model's own word {word}.\n{_legend(found.rows)}",
        soft_wrap=True,
    )


def rule_text(rule: Rule) -> str:
    """`2 of 3`, and where it delegates the step alone `2 of 3 at the step (alike from 0.5)`."""
    text = f"{rule.needed} of {rule.samples}"
    return text if rule.at == "task" else f"{text} at the step (alike from {rule.alike:g})"


def told(measured: Measured, form: str) -> str:
    """A mean with its interval; a dash where nothing could be measured."""
    low, high = measured.interval.low, measured.interval.high
    if math.isnan(measured.mean):
        return "-"
    return f"{measured.mean:{form}} ({low:{form}} to {high:{form}})"


def told_saving(saved: Measured) -> str:
    """A share of the other's cost that is saved; as its multiple where more than it is spent."""
    if not saved.mean < -0.005:  # less would be told as 1.00x, which says nothing
        return told(saved, "z.1%")
    form = ".2f" if saved.mean > -1 else ".1f"
    mean, high, low = (1 - x for x in (saved.mean, saved.interval.low, saved.interval.high))
    return f"costs {mean:{form}}x ({low:{form}}x to {high:{form}}x)"


def _legend(rows: Sequence[Row]) -> str:
    return "; ".join(f"{row.name}: {_MEANS[row.name]}" for row in rows if row.name in _MEANS)


def compared_table(
    rows: Sequence[Compared],
    beside: Mapping[str, tuple[str, str]],
    *,
    unit: str,
    shares: Mapping[str, str],
    last: tuple[str, str],
    meanings: Mapping[str, str] | None = None,
) -> Table:
    """Ways of working, one a row.

    unit: what a cost is of. shares: by column, the field of a row that it shows. last: the columns
    of what is `beside`, by the names of rows; a row that is not there is what was chosen.
    """
    table = Table(box=None, pad_edge=False)
    table.add_column("rule")
    for name in ("score", f"US$ a {unit}", *shares, *last):
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(
            row.name if meanings is None else meanings[row.name],
            told(row.score, ".3f"),
            told(row.cost_usd, ".6f"),
            *(f"{getattr(row, share):.1%}" for share in shares.values()),
            *beside.get(row.name, ("", "")),
        )
    return table


def savings(against: Sequence[Against]) -> dict[str, tuple[str, str]]:
    """By name: how much more is scored, and what is saved."""
    return {one.name: (told(one.score, "+z.3f"), told_saving(one.cost_saved)) for one in against}


def wide_console() -> Console:
    """Wide enough for such a table, also where nobody looks at it."""
    return Console(highlight=False, width=max(Console().width, _WIDTH))
