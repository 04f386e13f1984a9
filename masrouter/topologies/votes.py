"""Counts which answers agree, by what they say and not by how they say it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from masrouter.answers import answer_key
from masrouter.topologies.prompts import seats
from masrouter.topologies.team import Reply


@dataclass(frozen=True, slots=True)
class Tally:
    """Replies by answer, the most frequent first."""

    groups: tuple[tuple[Reply, ...], ...]

    @property
    def winner(self) -> Reply:
        """The first reply with the most frequent answer."""
        return self.groups[0][0]

    @property
    def votes(self) -> int:
        """How many gave the most frequent answer."""
        return len(self.groups[0])

    @property
    def count(self) -> int:
        """How many voted."""
        return sum(map(len, self.groups))

    @property
    def agreed(self) -> bool:
        """True when several gave answers and all are the same."""
        return len(self.groups) == 1 and self.votes > 1

    def told(self) -> str:
        """`agents 1 and 3 agree; agent 2 differs`."""
        if len(self.groups) == 1 and self.votes == 1:
            return f"{seats([self.winner.agent])} alone answered"
        parts = []
        for group in self.groups:
            names = seats(sorted(reply.agent for reply in group))
            parts.append(f"{names} agree" if len(group) > 1 else f"{names} differs")
        return "; ".join(parts)


def tally(replies: Sequence[Reply], *, positions: Sequence[str] = ()) -> Tally:
    """Group replies by `answer_key`. On equal votes the earlier position comes first.

    positions: keys in the order in which they were first held; then comes the order of `replies`.
    """
    groups: dict[str, list[Reply]] = {}
    for reply in replies:
        groups.setdefault(answer_key(reply.text), []).append(reply)
    rank = {key: place for place, key in enumerate(dict.fromkeys([*positions, *groups]))}
    order = sorted(groups, key=lambda key: (-len(groups[key]), rank[key]))
    return Tally(tuple(tuple(groups[key]) for key in order))
