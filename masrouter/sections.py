"""Marked parts of a prompt: <question>...</question>, <answer from="agent 2">...</answer>.

A team passes messages on, and what one agent wrote is untrusted text to the next. Marks say where
each part begins and ends; a mark inside a part is defused, so that no text can leave its part.
"""

from __future__ import annotations

import html
import re
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass, field

_NAME = re.compile(r"[a-z][a-z_]*")
_OPEN = re.compile(r'<([a-z][a-z_]*)((?: [a-z_]+="[^"<>]*")*)>\n')
_CLOSE = re.compile(r"\n</([a-z][a-z_]*)>")
_ATTRIBUTE = re.compile(r' ([a-z_]+)="([^"<>]*)"')


@dataclass(frozen=True, slots=True)
class Section:
    """One marked part of a prompt."""

    name: str
    text: str
    attributes: Mapping[str, str] = field(default_factory=dict)


def section(name: str, text: str, **attributes: str) -> str:
    """`text` as a part of a prompt, on lines of its own. `read_sections` gives it back unchanged.

    `name` and the keys of `attributes` are lower-case words with underscores.
    """
    for word in (name, *attributes):
        if not _NAME.fullmatch(word):
            raise ValueError(f"a section's names are lower-case words, got {word!r}")
    marks = "".join(
        f' {key}="{html.escape(value)}"'.replace("\n", " ") for key, value in attributes.items()
    )
    return f"<{name}{marks}>\n{_defused(text)}\n</{name}>"


def read_sections(prompt: str) -> list[Section]:
    """The outermost marked parts of a prompt, in order. Unclosed parts are not parts."""
    found: list[Section] = []
    # Found once for all: to look for each mark's end would take time in the square of the length.
    ends: dict[str, list[int]] = {}
    for end in _CLOSE.finditer(prompt):
        ends.setdefault(end[1], []).append(end.start())
    at = 0
    while opening := _OPEN.search(prompt, at):
        name = opening[1]
        own = ends.get(name, [])
        place = bisect_left(own, opening.end() - 1)
        if place == len(own):
            at = opening.end()
            continue
        closing = own[place]
        text = prompt[opening.end() : closing]
        attributes = {key: html.unescape(value) for key, value in _ATTRIBUTE.findall(opening[2])}
        found.append(Section(name, _restored(text), attributes))
        at = closing + len(name) + 4
    return found


# A backslash behind `</` cannot be read as a closing mark; more are added where some stood before.
def _defused(text: str) -> str:
    return re.sub(r"</(\\*)([a-z])", r"</\\\1\2", text)


def _restored(text: str) -> str:
    return re.sub(r"</\\(\\*)([a-z])", r"</\1\2", text)
