"""What a rule is chosen for, and which of several is chosen."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from masrouter.delegation.calibration.measuring import Floats
from masrouter.errors import EvaluationError


@dataclass(frozen=True, slots=True)
class Goal:
    """What a rule is chosen for; one of the two."""

    tolerance: float | None = 0.01
    """Cheapest whose mean score is at most so much below what it is held against; where none is,
    the best."""
    cost_weight: float | None = None
    """Highest mean of score - cost_weight * cost; where it is given, it counts."""

    def __post_init__(self) -> None:
        given = self.tolerance if self.cost_weight is None else self.cost_weight
        if given is None or not math.isfinite(given) or given < 0:
            raise EvaluationError(
                f"calibration: expected a tolerance or a cost weight >= 0, got {given!r}"
            )

    def to_json(self) -> dict[str, float | None]:
        """JSON-ready."""
        tolerance = None if self.cost_weight is not None else self.tolerance
        return {"tolerance": tolerance, "cost_weight": self.cost_weight}

    def best(self, score: Floats, cost: Floats, against: float) -> int:
        """Which of n rules it is, the first of equals.

        score, cost: their means, (n,) each. against: the mean score that may be missed by the
        tolerance.
        """
        if self.cost_weight is not None:
            return int(np.lexsort((cost, -(score - self.cost_weight * cost)))[0])
        assert self.tolerance is not None
        enough = score >= against - self.tolerance - 1e-12
        if enough.any():
            return int(np.lexsort((-score, np.where(enough, cost, np.inf)))[0])
        return int(np.lexsort((cost, -score))[0])
