"""Part a long text so that each part fits a model, at the best place there is; nothing is lost.

Parts end at lines, else at sentences, else at words, else between characters.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from masrouter.errors import ConfigError

Fits = Callable[[str], bool]
"""Whether a model takes a text at once. A part of a text that fits has to fit, too."""

_LINES = re.compile(r"[^\n]*\n+|[^\n]+")
_SENTENCES = re.compile(r"(?:(?![.!?…。！？]\s).)+(?:[.!?…。！？]\s+)?|[.!?…。！？]\s+", re.DOTALL)
_WORDS = re.compile(r"\S+\s*|\s+")


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a text; `before + core + after` of all of them, in order, is the text."""

    before: str
    """Blank."""
    core: str
    """Neither begins nor ends with a blank; may be empty."""
    after: str
    """Blank."""


def part_text(text: str, fits: Fits, *, keep_lines: bool) -> list[Piece]:
    """As few parts as packing them in order gives, each of which fits.

    keep_lines: no part goes beyond the end of a line.
    Raises ConfigError where a single character does not fit.
    """
    lines = _LINES.findall(text)
    groups = [[line] for line in lines] if keep_lines else [lines]
    parts = [part for group in groups for part in _packed(group, fits)]
    return [_piece(part) for part in parts]


def _packed(units: list[str], fits: Fits) -> Iterator[str]:
    """Neighbours joined as long as they fit; what does not fit alone is parted further."""
    part = ""
    for unit in _fitting(units, fits):
        # A blank unit always fits; to try it would copy all the blanks before it again.
        if part and not unit.isspace() and not fits((part + unit).strip()):
            yield part
            part = ""
        part += unit
    if part:
        yield part


def _fitting(units: list[str], fits: Fits) -> Iterator[str]:
    for unit in units:
        if fits(unit.strip()):
            yield unit
            continue
        for smaller in _SENTENCES, _WORDS:
            within = smaller.findall(unit)
            if len(within) > 1:
                yield from _fitting(within, fits)
                break
        else:
            yield from _fitting(_halves(unit), fits)


def _halves(unit: str) -> list[str]:
    core = unit.strip()
    if len(core) < 2:
        raise ConfigError(f"the model cannot take even {core!r} at once; allow it longer parts")
    middle = unit.index(core[0]) + len(core) // 2
    return [unit[:middle], unit[middle:]]


def _piece(part: str) -> Piece:
    core = part.strip()
    if not core:
        return Piece(part, "", "")
    start = part.index(core)
    return Piece(part[:start], core, part[start + len(core) :])
