"""How a replay looks: rich tables in a terminal, and Markdown.

Not here: what is said (`words`), the HTML page (`masrouter.reporting.replay_page`).
"""

from __future__ import annotations

import re

from rich.console import Console, JustifyMethod
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from masrouter.evaluation.replay.telling import Told
from masrouter.evaluation.replay.types import Replay
from masrouter.evaluation.replay.words import Section, words
from masrouter.printable import on_one_line, printable

QUERY_SHOWN = 280
"""Characters of a query that are shown."""
WIDTH = 100
_LEVELS = {"looked up": "green", "identified": "green", "weak": "yellow", "not identified": "red"}


def print_replay(replay: Replay, console: Console) -> None:
    """Everything, readable at 100 columns."""
    told = words(replay)

    def say(text: str, style: str = "", indent: int = 0) -> None:
        # Text, not markup: names and queries come from outside.
        console.print(Padding(Text(_line(text), style=style), (0, 0, 0, indent)))

    say(told.title, "bold")
    say(told.about, "dim")
    console.print()
    for caution in told.cautions:
        say(f"CAUTION: {caution}", "bold yellow")
    say(told.answer[0], "bold")
    say(told.verdict, _LEVELS[replay.verdict.level])
    for line in told.answer[1:]:
        say(line)
    for section in told.sections:
        console.print()
        say(section.title, "bold")
        for line in section.lines:
            say(line, "dim")
        if section.rows:
            console.print(_table(section, console.width))
    for found in (told.savings, told.harms):
        console.print()
        say(found.title, "bold")
        if found.line:
            say(found.line, "dim")
        for case in found.cases:
            _say_case(case, console)
    if told.notes:
        console.print()
    for note in told.notes:
        say(f"note: {note}", "dim")


def _table(section: Section, width: int) -> Table:
    widths = (max(map(len, column)) for column in zip(section.header, *section.rows, strict=True))
    gap = 2 if sum(widths) + 2 * len(section.header) <= width else 1
    table = Table(box=None, padding=(0, gap, 0, 0), header_style="italic")
    for i, name in enumerate(section.header):
        justify: JustifyMethod = "left" if i < section.texts else "right"
        table.add_column(Text(name), justify=justify, overflow="fold")
    for row in section.rows:
        table.add_row(*(Text(_line(cell)) for cell in row))
    return table


def _say_case(case: Told, console: Console) -> None:
    console.print(Padding(Text(_line(case.head), style="cyan"), (0, 0, 0, 2)))
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(style="dim")
    grid.add_column(overflow="fold")
    grid.add_row(Text("query"), Text(on_one_line(case.query, QUERY_SHOWN)))
    for what, said in case.lines:
        grid.add_row(Text(what), Text(_line(said)))
    console.print(Padding(grid, (0, 0, 1, 4)))


def to_markdown(replay: Replay) -> str:
    """The same as Markdown. Nothing that comes from the logs is markup."""
    told = words(replay)
    lines = [f"# {_plain(told.title)}", "", _plain(told.about)]
    lines += [x for caution in told.cautions for x in ("", f"> **Caution:** {_plain(caution)}")]
    lines += ["", f"**{_plain(told.answer[0])}**", "", _plain(told.verdict)]
    lines += [x for line in told.answer[1:] for x in ("", _plain(line))]
    for section in told.sections:
        lines += ["", f"## {_plain(section.title)}"]
        lines += [x for line in section.lines for x in ("", _plain(line))]
        if section.rows:
            rule = ["---" if i < section.texts else "---:" for i in range(len(section.header))]
            lines += ["", _row(section.header), "|" + "|".join(rule) + "|"]
            lines += [_row(row) for row in section.rows]
    for found in (told.savings, told.harms):
        lines += ["", f"## {found.title}"]
        if found.line:
            lines += ["", found.line]
        for case in found.cases:
            lines += [
                "",
                f"### {_plain(case.head)}",
                "",
                f"> {_plain(on_one_line(case.query, QUERY_SHOWN))}",
                "",
            ]
            lines += [f"- {f'{what}: ' if what else ''}{_plain(said)}" for what, said in case.lines]
    if told.notes:
        lines += ["", "## Notes", "", *(f"- {_plain(note)}" for note in told.notes)]
    return "\n".join(lines) + "\n"


def _line(text: str) -> str:
    """On one line, with its spaces."""
    return printable(text.replace("\n", " ").replace("\t", " "))


def _row(cells: tuple[str, ...]) -> str:
    return "| " + " | ".join(_plain(cell) for cell in cells) + " |"


def _plain(text: str) -> str:
    """Text in which nothing is markup: neither Markdown's own nor HTML."""
    line = _line(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_\[\]|#~])", r"\\\1", line)
