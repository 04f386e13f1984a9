"""Ways of working on the same queries, side by side: what each gave, and one less the others."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields
from typing import Any, Protocol

import numpy as np

from masrouter.delegation.calibration.measuring import (
    Floats,
    Ints,
    Measured,
    mean_of,
    saved,
    told_json,
)


class Worked(Protocol):
    """What a way of working gave on n queries."""

    @property
    def score(self) -> Floats:
        """(n,)."""

    @property
    def cost(self) -> Floats:
        """US dollars, (n,)."""


@dataclass(frozen=True, slots=True)
class Compared:
    """One way on all queries, each judged by the choice made without it."""

    name: str
    score: Measured
    cost_usd: Measured
    """A query."""

    def to_json(self) -> dict[str, Any]:
        """JSON-ready."""
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        return {
            name: told_json(value) if isinstance(value, Measured) else value
            for name, value in values.items()
        }


@dataclass(frozen=True, slots=True)
class Against:
    """What was chosen less another way, query by query."""

    name: str
    score: Measured
    """Difference of scores."""
    cost_saved: Measured
    """1 - cost / the other's cost; negative where what was chosen costs more, NaN where the other
    costs nothing."""

    def to_json(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "name": self.name,
            "score": told_json(self.score),
            "saved": told_json(self.cost_saved),
        }


def compared(one: Worked, counts: Floats) -> tuple[Measured, Measured]:
    """Its mean score and cost; counts: of `measuring.resampled_groups`."""
    return mean_of(one.score, counts), mean_of(one.cost, counts)


def against(
    mine: Worked, ways: Mapping[str, Worked], counts: Floats, *, without: Collection[str]
) -> tuple[Against, ...]:
    """`mine` less each way but those `without`."""
    return tuple(
        Against(name, mean_of(mine.score - one.score, counts), saved(mine.cost, one.cost, counts))
        for name, one in ways.items()
        if name not in without
    )


def folds_of(group: Ints, folds: int, seed: int) -> Ints:
    """The fold of each query, (n,); queries of one group are never parted."""
    rng = np.random.default_rng(seed)
    fold: Ints = rng.permutation(np.arange(group.max() + 1) % folds)[group]
    return fold
