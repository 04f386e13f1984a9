"""From log rows to cells of (query, plan): means, unknowns, selections that keep their order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from masrouter.errors import LogError
from masrouter.logs import LogKind, Logs
from masrouter.outcomes import Outcomes
from masrouter.types import Agent, LogRecord, Plan, Usage

A, B, C = (Plan("io", (Agent(None, model),)) for model in "abc")


def record(query: str, plan: Plan, run: int = 0, **changes: object) -> LogRecord:
    made = LogRecord(
        run_id=f"{query}/{plan}/{plan.agents}/{run}",
        query_id=query,
        query=f"the text of {query}",
        dataset="set",
        plan=plan,
        score=1.0,
        score_source="tests",
        usage=Usage(100, 10, 0.001),
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def grid(queries: Sequence[str], plans: Sequence[Plan]) -> Iterator[LogRecord]:
    for query in queries:
        for plan in plans:
            yield record(query, plan)


def outcomes(records: object) -> Outcomes:
    return Outcomes.from_logs(Logs.from_records(records))  # type: ignore[arg-type]


def test_repeated_runs_are_one_cell_with_their_mean() -> None:
    rows = [
        *grid(["q1", "q2"], [A, B]),
        record("q1", A, 1, score=0.0, usage=Usage(300, 30, 0.003)),
    ]
    o = outcomes(rows)
    assert o.kind is LogKind.GRID
    assert (o.n_queries, o.n_plans, len(o.score)) == (2, 2, 4)
    at = (0, o.plans.index(A))
    assert o.dense("score")[at] == 0.5
    assert o.dense("cost")[at] == pytest.approx(0.002)
    assert o.dense("prompt_tokens")[at] == 200
    assert o.dense("completion_tokens")[at] == 20
    assert o.runs.tolist() == [2, 1, 1, 1]


def test_what_is_not_known_is_nan_and_a_mean_is_over_known_runs_only() -> None:
    rows = [
        *grid(["q1", "q2"], [A, B]),
        record("q1", A, 1, score=None, error="timeout", usage=Usage(None, None, 0.005)),
        record("q2", C, score=None, error="timeout", usage=Usage()),
    ]
    o = outcomes(rows)
    a, c = o.plans.index(A), o.plans.index(C)
    assert o.dense("score")[0, a] == 1.0  # the failed run has no score to count as 0
    assert o.dense("cost")[0, a] == pytest.approx(0.003)
    assert o.dense("prompt_tokens")[0, a] == 100
    assert np.isnan(o.dense("score")[:, c]).all()
    assert np.isnan(o.dense("cost")[:, c]).all()
    assert o.runs[(o.query == 0) & (o.plan == a)] == 1
    assert o.runs[(o.query == 1) & (o.plan == c)] == 0
    assert any("2 rows without a score" in note for note in o.notes)


def test_cells_are_sorted_and_each_stands_once() -> None:
    rows = list(grid([f"q{i}" for i in range(5)], [A, B, C]))
    o = outcomes(rows[::2] + rows[1::2])
    pairs = list(zip(o.query.tolist(), o.plan.tolist(), strict=True))
    assert pairs == sorted(set(pairs))
    assert len(pairs) == 15


def test_the_order_of_rows_does_not_matter() -> None:
    rows = [
        record(f"q{i}", plan, score=(i * 7 + j) % 3 / 2)
        for i in range(12)
        for j, plan in enumerate((A, B))
    ]
    forwards, backwards = outcomes(rows), outcomes(rows[::-1])
    assert forwards.query_ids == backwards.query_ids == tuple(sorted(forwards.query_ids))
    assert forwards.queries == backwards.queries
    assert forwards.plans == backwards.plans
    np.testing.assert_array_equal(forwards.dense("score"), backwards.dense("score"))


def test_a_selection_of_rows_gives_the_queries_that_are_left() -> None:
    """A selection keeps the dictionary of all texts; what it no longer uses is no query."""
    rows = [record(f"q{i}", p, score=float(i % 2)) for i in range(10) for p in (A, B)]
    logs = Logs.from_records(rows)
    ids = [row.query_id for row in logs]
    keep = np.array([query in ("q3", "q5", "q8") for query in ids])
    o = Outcomes.from_logs(logs.select(keep))
    assert o.query_ids == ("q3", "q5", "q8")
    assert o.queries == tuple(f"the text of {q}" for q in o.query_ids)
    np.testing.assert_array_equal(o.dense("score"), [[1, 1], [1, 1], [0, 0]])


def test_shuffled_arrow_rows_keep_texts_with_their_outcomes() -> None:
    rows = [record(f"q{i:02d}", p, score=float(i % 4 == 0)) for i in range(20) for p in (A, B)]
    table = Logs.from_records(rows).table
    order = np.random.default_rng(0).permutation(table.num_rows)
    o = Outcomes.from_logs(Logs(table.take(pa.array(order))))
    for i, query in enumerate(o.query_ids):
        assert o.queries[i] == f"the text of {query}"
        assert o.dense("score")[i].tolist() == [float(int(query[1:]) % 4 == 0)] * 2


def test_sizes_decided_while_running_are_one_plan() -> None:
    two, three = (Plan("debate", (Agent(None, "a"),) * n) for n in (2, 3))
    rows = [r for i in range(6) for r in grid([f"q{i}"], [A, B, three if i < 4 else two])]
    o = outcomes(rows)
    assert set(o.plans) == {three, A, B}
    assert np.isfinite(o.dense("score")).all()
    assert any("team sizes [2, 3] were decided while running" in note for note in o.notes)


def test_sizes_that_one_query_compares_stay_plans_of_their_own() -> None:
    two, three = (Plan("debate", (Agent(None, "a"),) * n) for n in (2, 3))
    rows = [*grid([f"q{i}" for i in range(6)], [A, two]), record("q0", three)]
    o = outcomes(rows)
    assert {two, three} <= set(o.plans)
    assert not any("decided while running" in note for note in o.notes)


def test_teams_of_one_size_in_another_order_are_not_sizes_decided_while_running() -> None:
    ab, ba = (Plan("chain", tuple(Agent(None, m) for m in order)) for order in ("ab", "ba"))
    rows = [r for i in range(10) for r in grid([f"q{i}"], [A, B, ab if i < 5 else ba])]
    o = outcomes(rows)
    assert o.kind is LogKind.GRID
    assert {ab, ba} <= set(o.plans)


def test_a_size_fixed_for_a_whole_data_set_was_a_choice() -> None:
    two, three = (Plan("debate", (Agent(None, "a"),) * n) for n in (2, 3))
    rows = [
        replace(r, dataset="left" if i < 6 else "right")
        for i in range(12)
        for r in grid([f"q{i}"], [A, B, two if i < 6 else three])
    ]
    o = outcomes(rows)
    assert {two, three} <= set(o.plans)


def test_only_grid_logs_merge_sizes() -> None:
    two, three = (Plan("debate", (Agent(None, "a"),) * n) for n in (2, 3))
    drawn = [record(f"q{i}", (A, two, three)[i % 3], propensity=1 / 3) for i in range(30)]
    o = outcomes(drawn)
    assert o.kind is LogKind.RANDOMISED
    assert set(o.plans) == {A, two, three}
    np.testing.assert_allclose(o.propensity, 1 / 3)
    observed = [replace(row, propensity=None) for row in drawn]
    o = outcomes(observed)
    assert o.kind is LogKind.OBSERVATIONAL
    assert set(o.plans) == {A, two, three}


def test_logs_without_rows_are_refused() -> None:
    with pytest.raises(LogError, match="no valid rows"):
        outcomes([])


def test_utility_counts_cost_only_where_it_weighs() -> None:
    free = {"usage": Usage(100, 10, None)}
    rows = [record("q1", A, score=1.0), record("q1", B, score=0.5, **free), *grid(["q2"], [A, B])]
    o = outcomes(rows)
    a, b = o.plans.index(A), o.plans.index(B)
    assert o.utility(0.0)[0, b] == 0.5
    assert np.isnan(o.utility(10.0)[0, b])
    assert o.utility(10.0)[0, a] == pytest.approx(1.0 - 10 * 0.001)
    assert o.has_costs
    assert not outcomes(record(q, p, **free) for q in ("q1", "q2") for p in (A, B)).has_costs


cells = st.integers(2, 7).flatmap(
    lambda n: st.integers(2, 5).flatmap(
        lambda p: st.tuples(
            st.just(n), st.just(p), st.lists(st.booleans(), min_size=n * p, max_size=n * p)
        )
    )
)


def sparse(n: int, p: int, known: list[bool]) -> Outcomes:
    mask = np.array(known).reshape(n, p)
    query, plan = np.nonzero(mask)
    value = (query * 10 + plan) / 100.0
    return Outcomes(
        query_ids=tuple(f"q{i}" for i in range(n)),
        queries=tuple(f"text {i}" for i in range(n)),
        datasets=tuple(f"set {i % 2}" for i in range(n)),
        tasks=(None,) * n,
        plans=tuple(Plan("io", (Agent(None, f"m{i}"),)) for i in range(p)),
        query=query.astype(np.int64),
        plan=plan.astype(np.int64),
        score=value,
        cost=value + 1,
        prompt_tokens=value + 2,
        completion_tokens=value + 3,
        propensity=value + 4,
        runs=np.ones(len(query), dtype=np.int64),
        kind=LogKind.GRID,
        why="",
    )


@settings(max_examples=60, deadline=None)
@given(cells, st.randoms(use_true_random=False), st.booleans())
def test_choosing_queries_is_choosing_rows_of_the_matrix(
    shape: tuple[int, int, list[bool]], random: object, as_mask: bool
) -> None:
    o = sparse(*shape)
    keep = random.sample(range(o.n_queries), random.randint(0, o.n_queries))  # type: ignore[attr-defined]
    if as_mask:
        keep.sort()
        chosen = o.queries_at(np.isin(np.arange(o.n_queries), keep))
    else:
        chosen = o.queries_at(keep)
    assert chosen.query_ids == tuple(o.query_ids[i] for i in keep)
    assert chosen.queries == tuple(o.queries[i] for i in keep)
    assert chosen.datasets == tuple(o.datasets[i] for i in keep)
    assert chosen.plans == o.plans
    for column in ("score", "cost", "prompt_tokens", "completion_tokens", "propensity"):
        np.testing.assert_array_equal(chosen.dense(column), o.dense(column)[keep])
    order = chosen.query * max(o.n_plans, 1) + chosen.plan
    assert (np.diff(order) > 0).all()


@settings(max_examples=60, deadline=None)
@given(cells, st.randoms(use_true_random=False), st.booleans())
def test_choosing_plans_is_choosing_columns_of_the_matrix(
    shape: tuple[int, int, list[bool]], random: object, as_mask: bool
) -> None:
    o = sparse(*shape)
    keep = random.sample(range(o.n_plans), random.randint(1, o.n_plans))  # type: ignore[attr-defined]
    if as_mask:
        keep.sort()
        chosen = o.plans_at(np.isin(np.arange(o.n_plans), keep))
    else:
        chosen = o.plans_at(keep)
    assert chosen.plans == tuple(o.plans[i] for i in keep)
    assert chosen.query_ids == o.query_ids
    for column in ("score", "cost", "prompt_tokens", "completion_tokens", "propensity"):
        np.testing.assert_array_equal(chosen.dense(column), o.dense(column)[:, keep])
    order = chosen.query * chosen.n_plans + chosen.plan
    assert (np.diff(order) > 0).all()
