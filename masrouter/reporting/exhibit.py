"""A figure with the words and the numbers that belong to it; and how names fit into figures."""

from __future__ import annotations

import re
from dataclasses import dataclass

from masrouter.reporting.charts import Chart


@dataclass(frozen=True)
class Exhibit:
    """What one card of a page shows."""

    chart: Chart
    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    """The data behind the figure, for those who cannot or will not read it off."""


def named(text: str, longest: int = 30) -> str:
    """A name as a figure can show it: one line, shortened in the middle, never hidden.

    matplotlib hides what begins with an underscore, and SVG allows no control characters.
    """
    line = " ".join(re.sub(r"[\x00-\x1f\x7f-\x9f\ufffe\uffff\ud800-\udfff]", " ", text).split())
    if len(line) > longest:
        head = (longest - 1) * 2 // 3
        line = f"{line[:head]}…{line[len(line) - (longest - 1 - head) :]}"
    return "\u200a" + line if line.startswith("_") else line or "(empty)"
