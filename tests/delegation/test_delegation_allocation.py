"""One budget over a batch, against every division there is on instances small enough."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from masrouter.delegation.automatic.allocation import Allocation, Option, allocate, equal_split

SLACK = 1e-9

cents = st.integers(0, 40).map(lambda n: n / 100)
values = st.integers(0, 20).map(lambda n: n / 20)
plain = st.builds(Option, value=values, cost_usd=cents)
holding = st.builds(Option, value=values, cost_usd=cents, hold_usd=cents)
budgets = st.integers(0, 120).map(lambda n: n / 100)


def batches(option: st.SearchStrategy[Option]) -> st.SearchStrategy[list[list[Option]]]:
    return st.lists(st.lists(option, max_size=4), max_size=4)


def taken(options: Sequence[Sequence[Option]], found: Allocation) -> list[Option]:
    return [
        task[position]
        for task, position in zip(options, found.chosen, strict=True)
        if position is not None
    ]


def fits(chosen: Sequence[Option], budget: float) -> bool:
    """Whether the costs fit, and what each has to hold beside the others' costs."""
    total = math.fsum(option.cost_usd for option in chosen)
    return total <= budget + SLACK and all(
        total - option.cost_usd + option.hold_usd <= budget + SLACK for option in chosen
    )


def best_of_all(options: Sequence[Sequence[Option]], budget: float) -> float:
    """By trying every division."""
    return max(
        math.fsum(option.value for option in chosen)
        for picks in itertools.product(*([None, *task] for task in options))
        if fits(chosen := [option for option in picks if option is not None], budget)
    )


def largest_step(options: Sequence[Sequence[Option]]) -> float:
    return max((option.value for task in options for option in task), default=0.0)


@settings(max_examples=300, deadline=None)
@given(batches(plain), budgets)
def test_the_division_is_the_best_but_for_what_a_step_is_worth(
    options: list[list[Option]], budget: float
) -> None:
    found = allocate(options, budget)
    best = best_of_all(options, budget)
    assert fits(taken(options, found), budget)
    assert found.cost_usd <= budget + SLACK
    assert found.value == pytest.approx(math.fsum(o.value for o in taken(options, found)))
    assert found.value <= best + SLACK <= found.bound + 2 * SLACK
    assert found.value >= found.bound - largest_step(options) - SLACK


@settings(max_examples=200, deadline=None)
@given(batches(holding), budgets)
def test_what_calls_hold_stays_free_beside_what_the_others_cost(
    options: list[list[Option]], budget: float
) -> None:
    found = allocate(options, budget)
    assert fits(taken(options, found), budget)
    assert found.value <= best_of_all(options, budget) + SLACK <= found.bound + 2 * SLACK


@settings(max_examples=200, deadline=None)
@given(batches(holding), budgets)
def test_an_equal_split_is_never_better(options: list[list[Option]], budget: float) -> None:
    shared, equal = allocate(options, budget), equal_split(options, budget)
    assert fits(taken(options, equal), budget)
    assert shared.value >= equal.value - SLACK


@settings(max_examples=200, deadline=None)
@given(batches(plain), budgets, budgets)
def test_more_money_never_lowers_the_bound(
    options: list[list[Option]], one: float, other: float
) -> None:
    less, more = sorted((one, other))
    assert allocate(options, less).bound <= allocate(options, more).bound + SLACK


def test_money_goes_where_it_buys_most() -> None:
    easy = [Option(0.9, 0.01), Option(0.92, 0.10)]
    hard = [Option(0.1, 0.01), Option(0.8, 0.10)]
    shared, equal = allocate([easy, hard], 0.12), equal_split([easy, hard], 0.12)
    assert shared.chosen == (0, 1)
    assert equal.chosen == (0, 0)
    assert shared.value == pytest.approx(1.7)
    assert shared.price == pytest.approx(0.02 / 0.09)


def test_a_task_that_cannot_be_afforded_goes_without_and_the_others_do_not() -> None:
    found = allocate([[Option(0.9, 5.0)], [Option(0.5, 0.01)]], 0.02)
    assert found.chosen == (None, 0)


def test_what_is_left_over_is_used_though_it_is_on_no_hull() -> None:
    options = [[Option(0.5, 0.10), Option(0.55, 0.15), Option(1.0, 0.20)]]
    assert allocate(options, 0.15).chosen == (1,)


def test_options_that_cost_nothing_need_no_budget() -> None:
    found = allocate([[Option(0.3, 0.0), Option(0.9, 0.01)], [Option(0.4, 0.0)]], 0.0)
    assert found.chosen == (0, 0)
    assert (found.value, found.cost_usd) == (pytest.approx(0.7), 0.0)


def test_a_budget_of_exactly_the_costs_is_enough() -> None:
    thirds = [[Option(1.0, 0.1)] for _ in range(3)]  # 0.1 + 0.1 + 0.1 > 0.3 in floats
    assert allocate(thirds, 0.3).chosen == (0, 0, 0)


def test_where_all_have_what_they_can_use_another_dollar_buys_nothing() -> None:
    assert allocate([[Option(0.5, 0.1)]], 1.0).price == 0.0
    assert allocate([], 1.0).chosen == ()
    assert allocate([[]], 1.0).chosen == (None,)


def test_a_plan_whose_call_cannot_be_reserved_is_not_taken() -> None:
    cheap, team = Option(0.5, 0.01, hold_usd=0.02), Option(0.9, 0.02, hold_usd=0.5)
    assert allocate([[cheap, team]], 0.4).chosen == (0,)
    assert allocate([[cheap, team]], 0.6).chosen == (1,)


def test_many_different_holds_are_still_kept() -> None:
    options = [[Option(0.5, 0.01, hold_usd=0.01 + n / 1000)] for n in range(100)]
    found = allocate(options, 0.5)
    assert fits(taken(options, found), 0.5)
    assert found.value >= equal_split(options, 0.5).value


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -1.0])
def test_money_that_cannot_be_meant_is_refused(wrong: float) -> None:
    with pytest.raises(ValueError, match="expected"):
        allocate([], wrong)
    with pytest.raises(ValueError, match="cost_usd: expected a finite number"):
        Option(0.5, wrong)
