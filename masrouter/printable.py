"""Somebody else's text on a terminal: nothing in it may drive the terminal or reorder a line."""

from __future__ import annotations

import unicodedata

_DRIVING = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
_KEPT = "\n\t\N{ZERO WIDTH JOINER}"


def printable(text: str) -> str:
    """The text with a replacement character for each that controls, formats or is half of a pair.

    New lines and tabs stay, and what joins an emoji.
    """
    return "".join(
        "\N{REPLACEMENT CHARACTER}" if unicodedata.category(c) in _DRIVING and c not in _KEPT else c
        for c in text
    )


def on_one_line(text: str, most: int) -> str:
    """The same on one line of at most `most` characters."""
    line = printable(" ".join(text.split()))
    return line if len(line) <= most else f"{line[: most - 3]}..."
