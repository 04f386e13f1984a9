"""The cascade over a router's own plans: how probable each choice of a plan is, and draws.

A stage is a softmax over the choices that lead to an allowed plan: those of the allowed plans which
agree with what was chosen so far. Not here: the network that gives the logits (`controller`, run
by a `scorer`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from masrouter.gate import Bools, Floats32, Ints
from masrouter.plan_steps import open_depths
from masrouter.scorer import Scorer
from masrouter.types import StageProbabilities

MASKS_KEPT = 4096


class Cascade:
    """The C plans that a scorer's cascade may compose. Thread-safe: only masks are cached."""

    def __init__(self, steps: Ints, scorer: Scorer) -> None:
        """`steps` (C, L) of the plans; see `plan_steps`."""
        self._steps = steps
        self._counts = (steps[:, 1] + 1).tolist()
        self._scorer = scorer
        self._open = open_depths(steps)
        self._choices = int(steps.max(initial=0)) + 1
        self._masks: dict[tuple[bytes, int], Bools] = {}

    def stages(self, state: Floats32, allowed: Bools, chosen: Ints) -> list[StageProbabilities]:
        """The probabilities of the chosen plans' stages: (B, W), (B, C) bool, (B,) -> B of them."""
        plans = chosen.tolist()
        p = np.ones((len(plans), self._steps.shape[1]))  # (B, L)
        if self._open:
            steps = self._steps[chosen]  # (B, L)
            rows = np.arange(len(plans))
            masks = np.stack([self._mask(*pair) for pair in zip(allowed, plans, strict=True)])
            for depth, logits in self._scorer.logits(state, steps).items():
                taken = steps[:, depth]
                width = min(logits.shape[1], self._choices)  # no plan takes what lies beyond
                stage = _softmax(logits[:, :width], masks[:, depth, :width])
                p[:, depth] = np.where(taken >= 0, stage[rows, taken.clip(0)], 1.0)
        return self._named(p, plans)

    def draw(
        self, state: Floats32, allowed: Bools, generator: np.random.Generator
    ) -> tuple[list[StageProbabilities], list[int]]:
        """The cascade's own choices and how probable each was: (B, W), (B, C) bool -> B of each."""
        b, stages = len(state), self._steps.shape[1]
        chance = generator.random((b, stages))  # a draw of one query moves no other's
        p = np.ones((b, stages))
        taken = np.full((b, stages), -1, dtype=np.int64)
        left = allowed.copy()  # (B, C) plans that agree with what was chosen
        for depth in range(stages):
            choices = self._steps[:, depth]  # (C,)
            if depth in self._open:
                stage = self._distribution(state, taken, left, depth)  # (B, K)
                # The last choice of any chance catches what rounding leaves of the sum.
                last = stage.shape[1] - 1 - (stage[:, ::-1] > 0).argmax(1)
                drawn = (stage.cumsum(1) <= chance[:, depth, None]).sum(1)
                drawn = np.minimum(drawn, last)
                ended = (left & (choices >= 0)).sum(1) == 0
                p[:, depth] = np.where(ended, 1.0, stage[np.arange(b), drawn])
                taken[:, depth] = np.where(ended, -1, drawn)
            else:
                taken[:, depth] = choices[left.argmax(1)]
            left &= choices == taken[:, depth, None]
        plans = left.argmax(1).tolist()
        return self._named(p, plans), plans

    def finite(self, state: Floats32) -> bool:
        """Whether every plan has logits after one state (1, W)."""
        for start in range(0, len(self._steps), 256):
            steps = self._steps[start : start + 256]
            logits = self._scorer.logits(np.repeat(state, len(steps), 0), steps)
            if not all(np.isfinite(values).all() for values in logits.values()):
                return False
        return True

    def _mask(self, allowed: Bools, plan: int) -> Bools:
        """(L, choices) that are open to a plan's path where these plans (C,) are allowed."""
        key = allowed.tobytes(), plan
        found = self._masks.get(key)
        if found is None:
            steps = self._steps[allowed]  # (A, L)
            same = np.logical_and.accumulate(steps == self._steps[plan], axis=1)
            along = np.ones_like(same)  # (A, L) plans that agree with all choices before
            along[:, 1:] = same[:, :-1]
            rows, depths = np.nonzero(along & (steps >= 0))
            found = np.zeros((steps.shape[1], self._choices), dtype=np.bool_)
            found[depths, steps[rows, depths]] = True
            if len(self._masks) >= MASKS_KEPT:
                self._masks.clear()
            self._masks[key] = found
        return found

    def _distribution(
        self, state: Floats32, taken: Ints, left: Bools, depth: int
    ) -> NDArray[np.float64]:
        """Of the choices at a depth: (B, K). A row of zeros where no plan is that long."""
        logits = self._scorer.logits(state, taken)[depth]
        choices = self._steps[:, depth]
        rows, plans = np.nonzero(left & (choices >= 0))
        mask = np.zeros(logits.shape, dtype=np.bool_)
        mask[rows, choices[plans]] = True
        return _softmax(logits, mask)

    def _named(self, p: NDArray[np.float64], plans: Sequence[int]) -> list[StageProbabilities]:
        stages = []
        for row, plan in zip(p.tolist(), plans, strict=True):
            end = 2 + 2 * self._counts[plan]
            stages.append(
                StageProbabilities(row[0], row[1], tuple(row[2:end:2]), tuple(row[3:end:2]))
            )
        return stages


def _softmax(logits: Floats32, mask: Bools) -> NDArray[np.float64]:
    """Over the choices of the mask: (B, K) each. A row without any is zero."""
    open_ = np.where(mask, logits.astype(np.float64), -math.inf)
    top = open_.max(1, keepdims=True)
    weight = np.exp(open_ - np.where(np.isfinite(top), top, 0.0))
    total = weight.sum(1, keepdims=True)
    share: NDArray[np.float64] = weight / np.where(total > 0, total, 1.0)
    return share
