"""Which names come nearest to one that is wrong."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from difflib import SequenceMatcher

MOST = 5
_SIMILAR = 0.6
"""Of the letters of both; `difflib` calls this a close match."""
_PART = 0.7
"""A name whose words all stand in the other: `claude-haiku` and `haiku`."""


def nearest(asked: str, groups: Iterable[Sequence[str]]) -> tuple[str, ...]:
    """The `MOST` names most like `asked`, best first, one of each group: the names of one thing.

    Letters' case does not count, nor, where that brings them nearer, what stands before a slash.
    """
    wanted = _ends(asked)
    matcher = SequenceMatcher(autojunk=False)
    scored: list[tuple[float, int, str]] = []
    for order, names in enumerate(groups):
        # Of equal ones the first: a group has its most exact name there.
        likeness = [_likeness(matcher, wanted, name) for name in names]
        best = max(likeness, default=0.0)
        if best >= _SIMILAR:
            scored.append((-best, order, names[likeness.index(best)]))
    return tuple(name for _, _, name in sorted(scored)[:MOST])


def _likeness(matcher: SequenceMatcher[str], wanted: Sequence[str], name: str) -> float:
    best = 0.0
    for one in wanted:
        matcher.set_seq2(one)
        for other in _ends(name):
            matcher.set_seq1(other)
            if _words(one) <= _words(other) or _words(other) <= _words(one):
                best = max(best, _PART)
            bound = max(best, _SIMILAR)
            if min(matcher.real_quick_ratio(), matcher.quick_ratio()) >= bound:
                best = max(best, matcher.ratio())
    return best


def _words(name: str) -> frozenset[str]:
    return frozenset(re.findall(r"[^\W_]+", name)) or frozenset((name,))


def _ends(name: str) -> list[str]:
    """A name, and what stands behind its last slash."""
    whole = name.casefold()
    return list(dict.fromkeys([whole, whole.rpartition("/")[2]]))
