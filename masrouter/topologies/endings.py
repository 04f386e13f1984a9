"""Reads the lines that agents were told to end with: verdicts, what is missing, who does what.

The texts are untrusted and often decorated (`**Verdict: stands**`). Where a line is not there,
that is what is said; nothing is guessed from the rest of the text.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from masrouter.answers.blocks import FENCED

Verdict = Literal["stands", "wrong"]

_LEAD = r"^[ \t>*_#`-]{0,8}"
_FLAGS = re.IGNORECASE | re.MULTILINE
_VERDICT = re.compile(_LEAD + r"verdict[*_` \t]{0,4}:[*_` \t]{0,4}(stands|wrong)\b", _FLAGS)
_MISSING = re.compile(_LEAD + r"missing[*_` \t]{0,4}:(.*)$", _FLAGS)
_SUBTASK = re.compile(_LEAD + r"subtask[ \t]{0,4}\d{1,2}[*_` \t]{0,4}[:.)](.*)$", _FLAGS)
_DELEGATE = re.compile(
    # No `>`: a lead that quotes what a worker wrote hands out nothing by it.
    r"^[ \t*_#`-]{0,8}delegate to agent[ \t]{0,4}(\d{1,2})[*_` \t]{0,4}[:.](.*)$",
    _FLAGS,
)
_NOTHING = re.compile(r"(nothing( is missing| else)?|none|n/a)", re.IGNORECASE)


def read_verdict(text: str) -> Verdict | None:
    """The last line `Verdict: stands` or `Verdict: wrong`; None where there is no such line."""
    found = _VERDICT.findall(text)
    if not found:
        return None
    return "stands" if found[-1].lower() == "stands" else "wrong"


@dataclass(frozen=True, slots=True)
class Draft:
    """An answer, and what its author says it lacks."""

    answer: str
    """Without the lines about what is missing."""
    missing: tuple[str, ...]
    stated: bool
    """False where the author did not say whether anything is missing."""


def read_draft(text: str) -> Draft:
    """Part the `Missing: ...` lines at the end of a text from the answer before them."""
    lines = text.rstrip().split("\n")
    named: list[str] = []
    while lines and (found := _MISSING.match(lines[-1])):
        named.append(found[1].strip(" \t*_`"))
        lines.pop()
        while lines and not lines[-1].strip():
            lines.pop()
    missing = tuple(item for item in reversed(named) if not _is_nothing(item))
    # A text of such lines alone is kept whole: an empty answer would be none.
    answer = ("\n".join(lines) if named else text) or text
    return Draft(answer, missing, stated=bool(named))


def _is_nothing(item: str) -> bool:
    return not item or _NOTHING.fullmatch(item.rstrip(" .!")) is not None


def read_subtasks(text: str) -> tuple[str, ...]:
    """The texts behind `Subtask 1:`, `Subtask 2:`, ... with the lines that follow each."""
    marks = list(_SUBTASK.finditer(text))
    ends = [*(mark.start() for mark in marks[1:]), len(text)][: len(marks)]
    found = (
        (mark[1].strip(" \t*_`") + text[mark.end() : end]).strip()
        for mark, end in zip(marks, ends, strict=True)
    )
    return tuple(task for task in found if task)


@dataclass(frozen=True, slots=True)
class Delegations:
    """What a lead hands out."""

    before: str
    """Its text up to the first such line."""
    parts: tuple[tuple[int, str], ...]
    """Index of the agent, as in `plan.agents`, and what it is asked; -1 and up."""


def read_delegations(text: str) -> Delegations:
    """The texts behind `Delegate to agent 2: ...` with the lines that follow each.

    What is quoted, or stands within a fenced block that begins with something else, hands out
    nothing; nor does a text without a word, such as `...`.
    """
    marks = list(_DELEGATE.finditer(FENCED.sub(_masked, text)))
    ends = [*(mark.start() for mark in marks[1:]), len(text)][: len(marks)]
    said = [
        (mark.start(), int(mark[1]) - 1, (mark[2].strip(" \t*_`") + text[mark.end() : end]).strip())
        for mark, end in zip(marks, ends, strict=True)
    ]
    parts = [part for part in said if any(map(str.isalnum, part[2]))]
    before = text[: parts[0][0]].strip() if parts else text
    return Delegations(before, tuple((agent, asked) for _, agent, asked in parts))


def _masked(block: re.Match[str]) -> str:
    """As many characters as a fenced block has; the block itself where such a line begins it."""
    if _DELEGATE.match(block[0].partition("\n")[2].lstrip()):
        return block[0]
    return "x" * len(block[0])
