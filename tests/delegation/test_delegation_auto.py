"""`auto`: the router's own decisions, divided over a batch by one budget."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest

from masrouter.delegation.automatic.auto import Auto
from masrouter.delegation.tasks import DelegationError
from masrouter.encoder import HashingEncoder
from masrouter.errors import RoutingError
from masrouter.router import Router
from masrouter.types import Plan, RoutingDecision

Chosen = Sequence[RoutingDecision | DelegationError]
PLENTY = 1e6


@pytest.fixture(scope="module")
def models(router: Router) -> set[str]:
    return {model for plan in router.plans for model in plan.models}


@pytest.fixture(scope="module")
def auto(router: Router, models: set[str]) -> Auto:
    return Auto(router, models)


@pytest.fixture(scope="module")
def batch(texts: list[str]) -> list[str]:
    return texts[:8]


def decisions(chosen: Chosen) -> list[RoutingDecision]:
    return [found for found in chosen if isinstance(found, RoutingDecision)]


def errors(chosen: Chosen) -> list[DelegationError]:
    return [found for found in chosen if isinstance(found, DelegationError)]


def expected_cost(chosen: Chosen) -> float:
    return math.fsum(found.expected_cost_usd or 0.0 for found in decisions(chosen))


def expected_score(router: Router, queries: Sequence[str], chosen: Chosen) -> float:
    """Calibrated, by one head for all; a task that goes without scores nothing."""
    expected = router.expect(*router.read(queries), 0.0)
    scores = router.state.calibrate(expected.score, expected.head)
    column = {plan: i for i, plan in enumerate(router.plans)}
    return math.fsum(
        float(scores[row, column[found.plan]])
        for row, found in enumerate(chosen)
        if isinstance(found, RoutingDecision)
    )


def cheapest_of_all(auto: Auto, queries: Sequence[str]) -> float:
    """What the batch takes where every task has its cheapest option."""
    return math.fsum(
        min(candidate.option.cost_usd for candidate in found) for found in auto.options(queries)
    )


def test_without_a_budget_every_task_gets_what_the_router_decides(
    auto: Auto, router: Router, batch: list[str]
) -> None:
    for weight in (None, 0.0, 20.0):
        routed = router.route_batch(batch, cost_weight=weight)
        chosen = auto.choose(batch, cost_weight=weight)
        assert [d.plan for d in decisions(chosen)] == [d.plan for d in routed]
        assert [d.cost_weight for d in decisions(chosen)] == [d.cost_weight for d in routed]


def test_a_plan_under_a_budget_is_the_routers_own_decision_at_some_cost_weight(
    auto: Auto, router: Router, batch: list[str]
) -> None:
    least = cheapest_of_all(auto, batch)
    seen: set[Plan] = set()
    for budget in (0.7 * least, 1.5 * least, 5 * least, 50 * least):
        for query, found in zip(batch, auto.choose(batch, budget_usd=budget), strict=True):
            if isinstance(found, RoutingDecision):
                again = router.route(query, cost_weight=found.cost_weight)
                assert found.plan == again.plan
                assert found.expected_score == pytest.approx(again.expected_score, rel=1e-4)
                seen.add(found.plan)
    assert len(seen) > 2


def test_expected_costs_stay_within_the_budget_and_beat_equal_shares(
    auto: Auto, router: Router, batch: list[str]
) -> None:
    least = cheapest_of_all(auto, batch)
    gains = []
    for factor in (0.4, 1.2, 4.0, 100.0):
        budget = factor * least
        chosen = auto.choose(batch, budget_usd=budget)
        assert expected_cost(chosen) <= budget * (1 + 1e-9)
        share = budget / len(batch)
        equal = [auto.choose([query], budget_usd=share)[0] for query in batch]
        gain = expected_score(router, batch, chosen) - expected_score(router, batch, equal)
        assert gain >= -1e-6
        gains.append(gain)
    assert max(gains) > 0.05


def test_more_budget_is_expected_to_buy_more(auto: Auto, router: Router, batch: list[str]) -> None:
    least = cheapest_of_all(auto, batch)
    scores = [
        expected_score(router, batch, auto.choose(batch, budget_usd=factor * least))
        for factor in (0.25, 1.0, 4.0, 1000.0)
    ]
    assert scores == sorted(scores)
    assert scores[0] < scores[-1]


def test_what_cannot_be_afforded_is_refused_task_by_task(auto: Auto, batch: list[str]) -> None:
    budget = 0.5 * cheapest_of_all(auto, batch)
    chosen = auto.choose(batch, budget_usd=budget)
    assert decisions(chosen)
    assert errors(chosen)
    for refused in errors(chosen):
        assert refused.error.type == "budget"
        assert refused.error.asked == "auto"
        assert f"{budget:.6g} US$ for the batch" in refused.error.message
        assert "cheapest plan is expected to cost" in refused.error.message
    assert any("budget: " in reason for reason in decisions(chosen)[0].reasons)


def test_no_money_at_all_refuses_every_task(auto: Auto, batch: list[str]) -> None:
    for arguments in ({"budget_usd": 0.0}, {"budget_usd": 1.0, "committed_usd": 2.0}):
        chosen = auto.choose(batch, **arguments)
        assert [failure.error.type for failure in errors(chosen)] == ["budget"] * len(batch)


def test_what_others_are_going_to_cost_is_not_spent_twice(auto: Auto, batch: list[str]) -> None:
    least = cheapest_of_all(auto, batch)
    alone = auto.choose(batch, budget_usd=3 * least)
    beside = auto.choose(batch, budget_usd=7 * least, committed_usd=4 * least)
    assert [d.plan for d in decisions(alone)] == [d.plan for d in decisions(beside)]
    assert "committed" in decisions(beside)[0].reasons[-1]


def test_a_cost_weight_holds_however_much_money_there_is(
    auto: Auto, router: Router, batch: list[str]
) -> None:
    weight = 4 * router.state.default_cost_weight
    chosen = auto.choose(batch, budget_usd=PLENTY, cost_weight=weight)
    assert len(decisions(chosen)) == len(batch)
    assert min(d.cost_weight for d in decisions(chosen)) >= weight
    assert expected_cost(chosen) < expected_cost(auto.choose(batch, budget_usd=PLENTY))


def test_only_plans_that_can_be_called_and_run_here_are_chosen(
    router: Router, batch: list[str]
) -> None:
    plan = min(router.plans, key=lambda plan: (len(plan.models), len(plan.agents)))
    few = Auto(router, {*plan.models, "a-model-that-no-plan-has"})
    for budget in (None, PLENTY):
        for found in decisions(few.choose(batch, budget_usd=budget)):
            assert set(found.plan.models) <= set(plan.models)
    models = {model for plan in router.plans for model in plan.models}
    one_shape = Auto(router, models, topologies=[plan.topology, "a-topology-of-nobody"])
    assert {d.plan.topology for d in decisions(one_shape.choose(batch))} == {plan.topology}


@pytest.mark.parametrize(
    "nothing", [{"callable_models": ["gpt-unheard-of"]}, {"topologies": ["seance"]}]
)
@pytest.mark.parametrize("budget", [None, PLENTY])
def test_where_no_plan_can_be_run_every_task_is_told_so(
    router: Router,
    models: set[str],
    nothing: dict[str, Any],
    budget: float | None,
    batch: list[str],
) -> None:
    auto = Auto(router, **({"callable_models": models} | nothing))
    chosen = auto.choose(batch, budget_usd=budget)
    assert [failure.error.type for failure in errors(chosen)] == ["no_plan"] * len(batch)
    assert "can be run: none" in str(errors(chosen)[0]) or "called here: none" in str(
        errors(chosen)[0]
    )


def test_a_task_without_a_text_is_its_own_error(auto: Auto, batch: list[str]) -> None:
    for budget in (None, PLENTY):
        chosen = auto.choose([batch[0], " \n", batch[1]], budget_usd=budget)
        assert isinstance(chosen[0], RoutingDecision)
        assert isinstance(chosen[1], DelegationError)
        assert chosen[1].error.type == "invalid_task"
        assert isinstance(chosen[2], RoutingDecision)
    assert auto.choose([], budget_usd=1.0) == []


def test_a_plan_whose_call_could_not_be_reserved_is_not_chosen(
    router: Router, models: set[str], batch: list[str]
) -> None:
    """A ledger holds a call's worst cost; what is left must be able to."""
    dear = {d.plan for d in decisions(Auto(router, models).choose(batch, budget_usd=PLENTY))}

    def most(query: str, plan: Plan) -> float:
        return 2.0 if plan in dear else 0.0

    holding = Auto(router, models, most_call_usd=most)
    assert not {d.plan for d in decisions(holding.choose(batch, budget_usd=1.0))} & dear
    assert {d.plan for d in decisions(holding.choose(batch, budget_usd=PLENTY))} <= dear


def test_a_call_that_nothing_can_hold_is_refused_and_says_how_much_it_takes(
    router: Router, models: set[str], batch: list[str]
) -> None:
    chosen = Auto(router, models, most_call_usd=lambda *_: 2.5).choose(batch, budget_usd=1.0)
    assert len(errors(chosen)) == len(batch)
    assert "2.5 US$ must be free for a call's worst cost" in str(errors(chosen)[0])


def test_a_query_is_embedded_once_for_all_cost_weights(
    router: Router, models: set[str], batch: list[str]
) -> None:
    embedded: list[str] = []

    class Counting(HashingEncoder):
        def encode(self, texts: Sequence[str], *, progress: bool = False) -> Any:
            embedded.extend(texts)
            return super().encode(texts, progress=progress)

    Auto(router.with_encoder(Counting(32)), models).choose(batch, budget_usd=1.0)
    assert sorted(embedded) == sorted(batch)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"budget_usd": -1.0}, "budget_usd"),
        ({"budget_usd": math.nan}, "budget_usd"),
        ({"budget_usd": 1.0, "committed_usd": math.inf}, "committed_usd"),
        ({"cost_weight": -2.0}, "cost_weight"),
    ],
)
def test_an_argument_that_cannot_be_meant_is_refused(
    auto: Auto, batch: list[str], arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(RoutingError, match=message):
        auto.choose(batch, **arguments)
