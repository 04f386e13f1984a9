"""The best message length is what trying each by itself finds."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from masrouter.delegation.calibration.choosing import Goal
from masrouter.delegation.calibration.lengths import best_length

QUERY = st.tuples(
    st.integers(1, 6), *[st.integers(0, 4)] * 4
)  # length, score and cost below, score and cost from there on, in quarters


@given(
    st.lists(QUERY, min_size=2, max_size=12),
    st.sampled_from([Goal(0.0), Goal(0.25), Goal(cost_weight=0.5)]),
    st.data(),
)
def test_a_length_is_found_as_by_trying_each(
    queries: list[tuple[int, ...]], goal: Goal, data: st.DataObject
) -> None:
    length, *quarters = np.array(queries).T
    low_score, low_cost, high_score, high_cost = (column / 4 for column in quarters)
    rows = np.array(
        data.draw(st.lists(st.integers(0, len(queries) - 1), min_size=1, unique=True)), np.int64
    )
    tried = [0, *sorted(set(length.tolist()))[1:], math.inf]
    against = float(high_score[rows].mean())
    score = [np.where(length >= n, high_score, low_score)[rows].mean() for n in tried]
    cost = [np.where(length >= n, high_cost, low_cost)[rows].mean() for n in tried]
    wanted = tried[goal.best(np.array(score), np.array(cost), against)]
    below, above = (low_score, low_cost), (high_score, high_cost)
    assert best_length(length, below, above, rows, goal, against) == wanted
