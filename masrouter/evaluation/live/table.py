"""How a live evaluation looks: tables in the terminal, Markdown, JSON, and what follows in words.

Not here: any number that is not already in the LiveEvaluation.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich import box
from rich.console import Console, JustifyMethod
from rich.table import Table
from rich.text import Text

from masrouter.evaluation.live.figures import (
    FEWEST_PROBLEMS,
    ArmResult,
    Difference,
    LiveEvaluation,
    Measured,
    Part,
)

DASH = "–"
WIDE = 140
"""Columns from which an interval has room beside its mean; below, it stands under it."""


@dataclass(frozen=True, slots=True)
class Sheet:
    """A table as text."""

    title: str
    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def print_live(evaluation: LiveEvaluation, console: Console, notes: Sequence[str] = ()) -> None:
    """The tables, what follows from them, and notes."""

    def cell(i: int, text: str) -> Text:  # Text, not markup: names come from outside
        return Text(text if i == 0 or console.width >= WIDE else text.replace(" (", "\n(", 1))

    for sheet in sheets(evaluation):
        table = Table(title=Text(sheet.title), caption=Text(sheet.caption), box=box.SIMPLE)
        table.collapse_padding, table.pad_edge = True, False
        for i, name in enumerate(sheet.header):
            # Folded: no digit is ever cut off.
            justify: JustifyMethod = "left" if i == 0 else "right"
            table.add_column(cell(i, name), justify=justify, overflow="fold")
        for row in sheet.rows:
            table.add_row(*(cell(i, text) for i, text in enumerate(row)))
        console.print(table)
    for line in verdicts(evaluation):
        console.print(Text(line))
    for note in notes:
        console.print(Text(f"note: {note}", style="dim"))


def live_markdown(evaluation: LiveEvaluation, notes: Sequence[str] = ()) -> str:
    """The same as Markdown."""
    blocks = []
    for sheet in sheets(evaluation):
        lines = ["| " + " | ".join(sheet.header) + " |"]
        lines.append("|" + "---|" + "---:|" * (len(sheet.header) - 1))
        lines += ["| " + " | ".join(map(_escaped, row)) + " |" for row in sheet.rows]
        blocks.append("\n".join([f"## {_escaped(sheet.title)}", "", *lines, "", sheet.caption]))
    said = [*verdicts(evaluation), *(f"Note: {note}" for note in notes)]
    blocks.append("\n".join(f"- {_escaped(line)}" for line in said))
    return "\n\n".join(blocks) + "\n"


def live_json(evaluation: LiveEvaluation, **more: Any) -> str:
    """Everything, as strict JSON, with `more` beside it; what is not known is null."""
    data = {"kind": "live", "complete": evaluation.complete, **more, **asdict(evaluation)}
    return json.dumps(data, indent=2, allow_nan=False) + "\n"


def sheets(evaluation: LiveEvaluation) -> list[Sheet]:
    """Arms on all problems, differences to the first arm, and both by data set where several."""
    ks, whole = evaluation.ks, evaluation.parts[0]
    done = sum(arm.finished for arm in whole.arms)
    planned = sum(arm.planned for arm in whole.arms)
    state = "" if evaluation.complete else f" [INCOMPLETE: {done} of {planned} runs]"
    about = f"{whole.problems} problems, {_times(evaluation.repeats)} each"
    first = whole.arms[0].arm
    found = [
        Sheet(
            f"Live evaluation{state}",
            f"{about}. Means with 95 % bootstrap intervals over problems ({evaluation.resamples} "
            "draws). A run without an answer counts as wrong. Cost is of 1,000 runs, tokens "
            "of one; latency is the median run's (mean), without routing; in brackets, runs where "
            f"known if not all. No interval below {FEWEST_PROBLEMS} problems, or where all are "
            f"alike. {DASH} while runs are missing.",
            _arm_header("arm", ks),
            tuple((arm.arm, *_arm_cells(arm, ks)) for arm in whole.arms),
        )
    ]
    if whole.differences:
        found.append(
            Sheet(
                f"{first} less each fixed plan{state}",
                "Paired by problem; * marks a 95 % interval without 0. `same plan`: problems on "
                "which both take the same plan, so that the same runs serve both.",
                _difference_header("against", ks),
                tuple((d.arm, *_difference_cells(d, ks)) for d in whole.differences),
            )
        )
    if len(evaluation.parts) > 1:
        parts = evaluation.parts[1:]
        found.append(
            Sheet(
                f"By data set{state}",
                "As above.",
                _arm_header("data set: arm", ks),
                tuple(
                    (f"{_name(part)}: {arm.arm}", *_arm_cells(arm, ks))
                    for part in parts
                    for arm in part.arms
                ),
            )
        )
        rows = tuple(
            (f"{_name(part)}: {d.arm}", *_difference_cells(d, ks))
            for part in parts
            for d in part.differences
        )
        if rows:
            header = _difference_header("data set: against", ks)
            title = f"{first} less each fixed plan, by data set{state}"
            found.append(Sheet(title, "As above.", header, rows))
    return found


def verdicts(evaluation: LiveEvaluation) -> list[str]:
    """What the intervals say of the first arm on all problems, a line for each other arm."""
    whole = evaluation.parts[0]
    first, k = whole.arms[0].arm, evaluation.ks[0]
    lines = []
    for d in whole.differences:
        if d.pass_at is None or d.cost_usd is None:
            lines.append(f"{first} against {d.arm}: no verdict, runs are missing")
            continue
        if d.same_plan == whole.problems:
            lines.append(f"{first} against {d.arm}: the same plan on every problem, the same runs")
            continue
        score = _said(d.pass_at[k], "score", "right more often", "right less often")
        cost = _said(d.cost_usd, "cost", "dearer", "cheaper")
        if 0 < d.cost_usd.runs < whole.problems:
            cost += f" (of the {d.cost_usd.runs} of {whole.problems} problems where all is known)"
        lines.append(f"{first} against {d.arm}: {score}; {cost}")
    return lines


def _said(difference: Measured, what: str, more: str, less: str) -> str:
    if difference.mean is None:
        return f"{what} unknown"
    if difference.runs < FEWEST_PROBLEMS:
        return f"no verdict on {what} from fewer than {FEWEST_PROBLEMS} problems"
    if difference.interval is None:
        same = difference.mean == 0
        return f"the same {what} on every problem" if same else f"{what}: no interval"
    if 0.0 in difference.interval:
        return f"no difference in {what} can be told"
    return more if difference.mean > 0 else less


def _arm_header(first: str, ks: tuple[int, ...]) -> tuple[str, ...]:
    passes = (f"pass@{k} (95 %)" for k in ks)
    return first, "runs", "no answer", *passes, "cost of 1,000 (95 %)", "tokens", "latency"


def _arm_cells(arm: ArmResult, ks: tuple[int, ...]) -> tuple[str, ...]:
    runs = str(arm.finished) if arm.complete else f"{arm.finished} of {arm.planned}"
    head = (runs, str(arm.failed))
    if arm.pass_at is None or arm.cost_usd is None or arm.tokens is None or arm.latency_s is None:
        return (*head, *[DASH] * (len(ks) + 3))
    median, mean = arm.latency_median_s, arm.latency_s.mean
    clock = "unknown"
    if median is not None and mean is not None:
        clock = f"{median:.2f} s ({mean:.2f})"
    return (
        *head,
        *(_score(arm.pass_at[k]) for k in ks),
        _dollars(arm.cost_usd) + _known(arm.cost_usd, arm.planned),
        _count(arm.tokens) + _known(arm.tokens, arm.planned),
        clock + _known(arm.latency_s, arm.planned),
    )


def _difference_header(first: str, ks: tuple[int, ...]) -> tuple[str, ...]:
    return first, *(f"pass@{k}" for k in ks), "cost of 1,000", "tokens", "latency", "same plan"


def _difference_cells(d: Difference, ks: tuple[int, ...]) -> tuple[str, ...]:
    if d.pass_at is None or d.cost_usd is None or d.tokens is None or d.latency_s is None:
        return (*[DASH] * (len(ks) + 3), str(d.same_plan))
    return (
        *(_score(d.pass_at[k], "+") + _star(d.pass_at[k]) for k in ks),
        _dollars(d.cost_usd, "+") + _star(d.cost_usd),
        _count(d.tokens, "+") + _star(d.tokens),
        _seconds(d.latency_s) + _star(d.latency_s),
        str(d.same_plan),
    )


def _star(value: Measured) -> str:
    return "" if value.interval is None or 0.0 in value.interval else "*"


def _known(value: Measured, planned: int) -> str:
    """How many runs are behind a figure, where not all are."""
    return "" if value.runs == planned or value.mean is None else f" [{value.runs} of {planned}]"


def _score(value: Measured, sign: str = "") -> str:
    return _figure(value, f"{sign}.3f")


def _dollars(value: Measured, sign: str = "") -> str:
    """Of 1,000 runs: a single one costs a fraction of a cent."""
    return _figure(value, f"{sign},.{_decimals(value)}f", "$", times=1000.0)


def _decimals(value: Measured) -> int:
    """Places at which 1,000 times the value shows three digits, two at least."""
    ends = () if value.interval is None else (value.interval.low, value.interval.high)
    size = max(abs(part) for part in (value.mean or 0.0, *ends)) * 1000.0
    return max(2, 2 - math.floor(math.log10(size))) if size > 1e-9 else 2


def _count(value: Measured, sign: str = "") -> str:
    return _figure(value, f"{sign},.0f", interval=bool(sign))


def _seconds(value: Measured) -> str:
    return _figure(value, "+.2f", unit=" s")


def _figure(
    value: Measured,
    form: str,
    currency: str = "",
    *,
    unit: str = "",
    interval: bool = True,
    times: float = 1.0,
) -> str:
    if value.mean is None:
        return "unknown"
    mean = f"{value.mean * times:{form}}"
    sign = mean[0] if mean[0] in "+-" else ""
    text = f"{sign}{currency}{mean.removeprefix(sign)}{unit}"
    if not interval or value.interval is None:
        return text
    low, high = (f"{end * times:{form}}" for end in (value.interval.low, value.interval.high))
    return f"{text} ({low} to {high})"


def _name(part: Part) -> str:
    return f"{part.dataset} ({part.problems})"


def _times(repeats: int) -> str:
    return "1 run" if repeats == 1 else f"{repeats} runs"


def _escaped(text: str) -> str:
    """Names come from outside: a Markdown renderer may pass HTML on."""
    for old, new in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ("|", "\\|")):
        text = text.replace(old, new)
    return " ".join(text.split())
