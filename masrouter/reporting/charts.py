"""Figures as SVG for pages and as SVG and PNG files, drawn by matplotlib.

    chart = draw("frontier", "Score over cost", lambda axes: axes.plot(x, y))
    chart.inline()       # Markup for a page: colours are CSS variables, ids are the chart's own
    chart.write(folder)  # frontier.svg, frontier.png

Text stays text, so that it can be read aloud, searched and scaled. The same data give the same
bytes. Nothing in a name is markup: neither HTML nor matplotlib's mathematics.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup, escape

from masrouter.errors import EvaluationError
from masrouter.reporting.palette import COLOURS, INK, LINE, MUTED

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SIZE = (4.2, 3.1)
"""Inches: at the width of a phone a point is then about 1.1 pixels."""
FONT = 9.5

Painter = Callable[["Axes"], object]


@dataclass(frozen=True)
class Chart:
    """A drawn figure."""

    name: str
    """Of its files and its id on a page."""
    label: str
    """What it shows, for those who cannot see it."""
    svg: str
    png: bytes

    def inline(self) -> Markup:
        """The SVG as part of a page."""
        body = self.svg[self.svg.index("<svg") :]
        for pattern in (r"<metadata>.*?</metadata>", r"<style.*?</style>", r"<!--.*?-->"):
            body = re.sub(pattern, "", body, flags=re.DOTALL)
        body = _TAG.sub(lambda tag: _adapt(tag.group(), self.name), body)
        label = escape(self.label)
        # Our own drawing, in which matplotlib escaped every text.
        return Markup(body.replace("<svg ", f'<svg role="img" aria-label="{label}" ', 1))

    def write(self, folder: Path) -> None:
        """`name`.svg and `name`.png in a folder."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{self.name}.svg").write_text(self.svg, encoding="utf-8")
        (folder / f"{self.name}.png").write_bytes(self.png)


def draw(
    name: str, label: str, paint: Painter, *, size: tuple[float, float] = SIZE, grid: bool = True
) -> Chart:
    """Let `paint` draw on fresh axes.

    `name` (letters, digits, hyphens) must be its own on the page. Raises EvaluationError where
    matplotlib is not installed.
    """
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9-]*", name):
        raise EvaluationError(f"chart: name: expected letters, digits and hyphens, got {name!r}")
    try:
        from matplotlib import rc_context
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise EvaluationError(
            "drawing figures needs matplotlib: pip install 'masrouter[report]'"
        ) from error
    with rc_context(_SETTINGS | {"svg.hashsalt": name}), warnings.catch_warnings():
        # A browser has fonts for scripts that matplotlib's own font lacks.
        warnings.filterwarnings("ignore", message="Glyph .* missing from", category=UserWarning)
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots()
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(visible=grid)
        paint(axes)
        vector, raster = io.StringIO(), io.BytesIO()
        figure.savefig(vector, format="svg", metadata={"Date": None, "Creator": None})
        figure.set_layout_engine("none")  # places are found; finding them again takes as long
        figure.savefig(raster, format="png", dpi=200, facecolor="white")
    return Chart(name, label, vector.getvalue(), raster.getvalue())


_SETTINGS: dict[Any, Any] = {
    "text.parse_math": False,
    "svg.fonttype": "none",
    "font.size": FONT,
    "axes.titlesize": FONT,
    "axes.labelsize": FONT,
    "xtick.labelsize": FONT,
    "ytick.labelsize": FONT,
    "legend.fontsize": FONT,
    "legend.frameon": False,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
    "text.color": INK.light,
    "axes.labelcolor": INK.light,
    "axes.edgecolor": MUTED.light,
    "xtick.color": MUTED.light,
    "ytick.color": MUTED.light,
    "xtick.labelcolor": INK.light,
    "ytick.labelcolor": INK.light,
    "grid.color": LINE.light,
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "lines.linewidth": 1.2,
}

_TAG = re.compile(r"<[^>]*>")  # in attributes and texts ">" is escaped
_REFERENCE = re.compile(r'( id="| xlink:href="#| href="#|url\(#)')
_VARIABLES = {colour.light: f"var(--{colour.name})" for colour in COLOURS}
_HEX = re.compile(r"#[0-9a-f]{6}")


def _adapt(tag: str, name: str) -> str:
    """One tag of a standalone SVG for a page: ids of its own, colours of the page."""
    tag = _REFERENCE.sub(rf"\g<1>{name}-", tag)
    if tag.startswith("<svg"):
        tag = re.sub(r' (width|height)="[^"]*"', "", tag)
    tag = re.sub(r"font-family: [^;\"]*;?", "", tag)
    # Some attributes hold a colour directly, where a variable would mean nothing.
    return re.sub(
        r'style="[^"]*"',
        lambda style: _HEX.sub(lambda c: _VARIABLES.get(c.group(), c.group()), style.group()),
        tag,
    )
