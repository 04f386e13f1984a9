"""What a request may ask of a router: constraints and money are honoured, or refused by name."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from masrouter.errors import ConstraintError, RoutingError
from masrouter.router import Router
from masrouter.types import Plan, RoutingDecision

MODELS = ("synthetic-large", "synthetic-medium", "synthetic-small", "synthetic-coder")
QUERY = "Write a Rust function that groups orders by price and returns the 7 largest groups."


def meets(plan: Plan, request: dict[str, Any]) -> bool:
    return (
        len(plan.agents) <= request.get("max_agents", 99)
        and plan.topology in request.get("topologies", {plan.topology})
        and set(plan.models) <= set(request.get("models", plan.models))
        and not set(plan.models) & set(request.get("exclude_models", ()))
    )


def spoken(router: Router, drawn: dict[str, Any]) -> dict[str, Any]:
    """The request without names that the router does not know, and without empty lists."""
    names = {m for plan in router.plans for m in plan.models}
    names |= {plan.topology for plan in router.plans}
    kept = {
        field: [v for v in value if v in names] if isinstance(value, list) else value
        for field, value in drawn.items()
    }
    return {field: value for field, value in kept.items() if value != []}


requests = st.fixed_dictionaries(
    {},
    optional={
        "max_agents": st.integers(1, 4),
        "models": st.lists(st.sampled_from(MODELS), min_size=1, max_size=3, unique=True),
        "exclude_models": st.lists(st.sampled_from(MODELS), max_size=3, unique=True),
        "topologies": st.lists(
            st.sampled_from(("io", "cot", "chain", "debate", "reflection")),
            min_size=1, max_size=3, unique=True,
        ),
        "max_cost_usd": st.floats(1e-4, 0.05),
        "cost_weight": st.sampled_from([0.0, 1.0, 30.0, 2000.0]),
        "sample": st.booleans(),
    },
)  # fmt: skip


def answer(router: Router, text: str, options: dict[str, Any]) -> RoutingDecision | str:
    """The decision, or why there is none."""
    try:
        return router.route(text, seed=3, **options)
    except ConstraintError as error:
        return str(error)


@settings(max_examples=80, deadline=None)
@given(requests, st.integers(0, 10))
def test_any_request_is_honoured_or_refused_by_name(
    router: Router, texts: list[str], drawn: dict[str, Any], which: int
) -> None:
    options = spoken(router, drawn)
    decision = answer(router, texts[which], options)
    if isinstance(decision, str):
        assert any(name in decision for name in options if name not in ("cost_weight", "sample"))
        fits = [plan for plan in router.plans if meets(plan, options)]
        if fits:  # then only money can be in the way
            assert "max_cost_usd" in decision
            dearer = answer(router, texts[which], dict(options, max_cost_usd=1e6))
            assert isinstance(dearer, RoutingDecision)
            assert dearer.plan in fits
        return
    for plan in (decision.plan, *(other.plan for other in decision.alternatives)):
        assert plan in router.plans
        assert meets(plan, options)
    if "max_cost_usd" in options:
        budget = options["max_cost_usd"] * (1 + 1e-6)
        for scored in (decision, *decision.alternatives):
            assert scored.expected_cost_usd is not None
            assert scored.expected_cost_usd <= budget
    if not options.get("sample"):
        assert decision.propensity == 1.0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_agents": 1, "topologies": ["debate"]}, r"max_agents=1.*relax max_agents"),
        ({"topologies": ["debate"], "models": ["synthetic-medium"]}, "(topologies|models)=.*relax"),
        ({"exclude_models": ["synthetic-large", "synthetic-medium", "synthetic-small"],
          "topologies": ["chain"]}, "exclude_models=.*relax exclude_models"),
        ({"max_cost_usd": 1e-9}, "max_cost_usd=1e-09: the cheapest allowed .* raise max_cost"),
    ],
)  # fmt: skip
def test_impossible_requests_say_what_to_relax(
    router: Router, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConstraintError, match=message):
        router.route(QUERY, **options)


def test_the_budget_that_is_advised_is_enough(router: Router) -> None:
    with pytest.raises(ConstraintError) as refused:
        router.route(QUERY, max_cost_usd=1e-9)
    advised = float(str(refused.value).split("cost ")[1].split(" US")[0])
    assert router.route(QUERY, max_cost_usd=advised * 1.0001).plan in router.plans


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cost_weight": 1.0, "willingness_to_pay": 1.0}, "say the same thing: give one"),
        ({"cost_weight": -1.0}, "cost_weight"),
        ({"cost_weight": math.nan}, "cost_weight"),
        ({"cost_weight": math.inf}, "cost_weight"),
        ({"cost_weight": 1e39}, "cost_weight"),
        ({"cost_weight": "a"}, "cost_weight"),
        ({"cost_weight": True}, "cost_weight"),
        ({"willingness_to_pay": 0.0}, "willingness_to_pay"),
        ({"willingness_to_pay": 1e-320}, "willingness_to_pay"),
        ({"willingness_to_pay": "x"}, "willingness_to_pay"),
        ({"max_cost_usd": 0.0}, "max_cost_usd"),
        ({"max_cost_usd": math.nan}, "max_cost_usd"),
        ({"max_cost_usd": "1"}, "max_cost_usd"),
        ({"max_agents": 0}, "max_agents"),
        ({"max_agents": "3"}, "max_agents"),
        ({"max_agents": 1.5}, "max_agents"),
        ({"models": []}, "models"),
        ({"topologies": []}, "topologies"),
        ({"models": "synthetic-small"}, "models: expected a list of names"),
        ({"models": ["gpt-9"]}, "models: 'gpt-9' is unknown to this router; it knows .*small"),
        ({"models": [3]}, "models: 3 is unknown"),
        ({"exclude_models": ["gpt-9"]}, "exclude_models: 'gpt-9' is unknown"),
        ({"topologies": ["ring"]}, "topologies: 'ring' is unknown.*chain"),
        ({"k": -1}, "k: expected"),
        ({"k": "3"}, "k: expected"),
        ({"sample": True, "seed": "x"}, "seed"),
        ({"sample": True, "seed": 2**70}, "seed"),
    ],
)
def test_options_that_cannot_be_meant_are_refused(
    router: Router, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(RoutingError, match=message):
        router.route(QUERY, **options)


@pytest.mark.parametrize("query", ["", "  \n", None, 3, b"bytes"])
def test_only_text_can_be_routed(router: Router, query: Any) -> None:
    with pytest.raises(RoutingError, match="query 0: expected text"):
        router.route(query)
    with pytest.raises(RoutingError, match="query 1: expected text"):
        router.route_batch([QUERY, query])


def test_a_batch_is_a_list(router: Router) -> None:
    with pytest.raises(RoutingError, match="got one string; use route"):
        router.route_batch(QUERY)
    assert router.route_batch([]) == []


@pytest.mark.parametrize(
    "query", ["x" * 300_000, "\ud800 lone", "\x00", "٣٤٥ арбуз 😀", "\u202e" * 5]
)
def test_any_text_is_routed(router: Router, query: str) -> None:
    decision = router.route(query)
    assert decision.plan in router.plans
    assert 0 <= decision.expected_score <= 1


def test_without_trade_off_the_checkpoints_own_is_taken_and_with_a_budget_none(
    router: Router,
) -> None:
    assert router.route(QUERY).cost_weight == router.state.default_cost_weight > 0
    assert router.route(QUERY, max_cost_usd=1.0).cost_weight == 0
    assert router.route(QUERY, max_cost_usd=1.0, cost_weight=5.0).cost_weight == 5.0
    assert router.route(QUERY, willingness_to_pay=0.25).cost_weight == pytest.approx(4.0)
    assert (
        router.route(QUERY, willingness_to_pay=0.25).plan
        == router.route(QUERY, cost_weight=4.0).plan
    )


def test_dearer_money_buys_cheaper_teams(router: Router, texts: list[str]) -> None:
    means = []
    for weight in (0.0, 10.0, 100.0, 1000.0, 1e5):
        decisions = router.route_batch(texts, cost_weight=weight)
        means.append(np.mean([d.expected_cost_usd for d in decisions]))
    assert means[0] > means[-1]
    assert means[-1] == min(means)
