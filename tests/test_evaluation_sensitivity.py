"""Ranges of a policy's score on observational logs: they hold the truth and are no wider."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from masrouter.errors import EvaluationError
from masrouter.evaluation.sensitivity import FEWEST_SEEN, covered_share, score_ranges

one_group = st.lists(st.floats(0, 1), min_size=FEWEST_SEEN, max_size=40)


def ranges(score, seen, group, gammas, draws=20):
    score, seen = np.asarray(score, dtype=float), np.asarray(seen, dtype=bool)
    found = score_ranges(
        score, seen, np.asarray(group), np.arange(len(score)), tuple(gammas), draws=draws
    )
    return [(r.value.low, r.value.high) for r in found]


@settings(max_examples=30, deadline=None)
@given(seen=one_group, unseen=st.integers(0, 30), gamma=st.floats(1.01, 10))
def test_a_bounded_tilt_is_the_linear_programme_of_its_definition(
    seen: list[float], unseen: int, gamma: float
) -> None:
    k, n = len(seen), len(seen) + unseen
    score = seen + [0.5] * unseen
    flags = [True] * k + [False] * unseen
    [(low, high)] = ranges(score, flags, [0] * n, [gamma])
    ends = []
    for sign in (1, -1):
        solved = linprog(
            sign * np.array(seen) / k, A_eq=[np.ones(k) / k], b_eq=[1],
            bounds=[(1 / gamma, gamma)] * k,
            options={"dual_feasibility_tolerance": 1e-10, "primal_feasibility_tolerance": 1e-10},
        )  # fmt: skip
        ends.append((sum(seen) + unseen * sign * solved.fun) / n)
    assert (low, high) == pytest.approx(ends, abs=1e-7)


@given(seen=one_group, unseen=st.integers(1, 30))
def test_more_hidden_causes_never_narrow_a_range(seen: list[float], unseen: int) -> None:
    flags = [True] * len(seen) + [False] * unseen
    score = seen + [0.0] * unseen
    found = ranges(score, flags, [0] * len(score), [1.2, 2.0, 50.0, None], draws=2)
    for (low, high), (wider_low, wider_high) in pairwise(found):
        assert wider_low <= low + 1e-9
        assert high <= wider_high + 1e-9


def test_the_worst_case_counts_what_nobody_saw_as_0_or_as_1() -> None:
    score = [1.0, 0.0, 1.0, 1.0]
    [found] = ranges(score, [True, True, True, False], [0, 0, 1, 1], [None])
    assert found == pytest.approx((0.5, 0.75))


def test_a_group_with_little_to_see_keeps_its_worst_case() -> None:
    seen = [True] * (FEWEST_SEEN - 1) + [False]
    score = [1.0] * FEWEST_SEEN
    low, high = ranges(score, seen, [0] * FEWEST_SEEN, [1.5])[0]
    assert (low, high) == pytest.approx((1 - 1 / FEWEST_SEEN, 1.0))
    assert covered_share(np.array(seen), np.zeros(FEWEST_SEEN, dtype=np.int64)) == 0


@pytest.mark.parametrize("gamma", [1.5, 3.0])
def test_the_truth_is_inside_when_hidden_causes_are_as_strong_as_assumed(gamma: float) -> None:
    rng = np.random.default_rng(0)
    n = 40_000
    hidden = rng.random(n) < 0.5
    outcome = (rng.random(n) < np.where(hidden, 0.2, 0.9)).astype(float)
    # Odds of the plan that differ by gamma, so each is within gamma of the whole group's.
    odds = np.where(hidden, np.sqrt(gamma), 1 / np.sqrt(gamma))
    seen = rng.random(n) < odds / (1 + odds)
    low, high = ranges(outcome, seen, np.zeros(n, dtype=np.int64), [gamma], draws=2)[0]
    assert low < outcome.mean() < high
    naive = outcome[seen].mean()
    assert abs(naive - outcome.mean()) > 0.02  # what a point estimate would have got wrong


def test_chance_widens_a_range_and_draws_whole_queries() -> None:
    score = np.tile([1.0, 0.0], 30)
    seen = np.ones(60, dtype=bool)
    group = np.zeros(60, dtype=np.int64)
    alone = score_ranges(score, seen, group, np.arange(60), (None,))[0]
    assert alone.with_chance.low < 0.5 < alone.with_chance.high
    paired = score_ranges(score, seen, group, np.repeat(np.arange(30), 2), (None,))[0]
    assert paired.with_chance.low == paired.with_chance.high == 0.5


@pytest.mark.parametrize("gamma", [1.0, 0.5, float("nan")])
def test_no_point_estimate_is_to_be_had(gamma: float) -> None:
    with pytest.raises(EvaluationError, match="above 1"):
        ranges([0.0, 1.0], [True, True], [0, 0], [gamma])
