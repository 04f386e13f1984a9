"""The colours of pages and figures, for light and dark screens.

Figures are drawn in the light colours; on a page each becomes a CSS variable, so that one figure
reads well on both. Hues are apart for colour-blind readers too, and never the only difference.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Colour:
    """One colour, `var(--name)` on a page."""

    name: str
    light: str
    dark: str


INK = Colour("ink", "#1b1f24", "#e6e8eb")
MUTED = Colour("muted", "#57606b", "#a0a8b2")
LINE = Colour("line", "#d5d9de", "#3a424d")
PAPER = Colour("paper", "#fefefe", "#1c2128")
ROUTER = Colour("router", "#c1121f", "#ff7b72")
FIXED = Colour("fixed", "#1d4e89", "#79b8ff")
ORACLE_COLOUR = Colour("oracle", "#6f7782", "#8d96a1")
GOOD = Colour("good", "#1a7f37", "#56d364")
BAD = Colour("bad", "#b35900", "#f0a35e")

SERIES = (
    Colour("series-0", "#3d6fb6", "#6ea8fe"),
    Colour("series-1", "#e08a1e", "#f2b35d"),
    Colour("series-2", "#2a9d8f", "#4fd1c1"),
    Colour("series-3", "#8d5fa8", "#c297dd"),
    Colour("series-4", "#c75b7a", "#f08fac"),
    Colour("series-5", "#7a8b2f", "#b6cc5a"),
    Colour("series-6", "#8a6a4f", "#c9a585"),
    Colour("series-7", "#3f8fb0", "#7cc8e6"),
    Colour("series-8", "#b0453a", "#e88b80"),
    Colour("series-9", "#5a5fc4", "#9da2f5"),
)
OTHERS = Colour("others", "#a9b0b8", "#6a737d")

COLOURS = (INK, MUTED, LINE, PAPER, ROUTER, FIXED, ORACLE_COLOUR, GOOD, BAD, *SERIES, OTHERS)
