"""`auto` in a batch: the router's choices, beside named tasks and within their budget."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests.delegation.scripted import ScriptedModel

from masrouter.delegation.delegator import Delegator, delegate_tasks
from masrouter.delegation.naming.settings import Settings
from masrouter.delegation.tasks import Batch, Task, TaskRouted
from masrouter.llms.chat import Price
from masrouter.router import Router


def delegated(llm: ScriptedModel, *tasks: Task, **options: Any) -> Batch:
    return delegate_tasks(tasks, llm=llm, **options)


def models_of(router: Router) -> list[str]:
    return sorted({model for plan in router.plans for model in plan.models})


def prices_of(router: Router, times: float = 1.0) -> dict[str, Price | None]:
    """Those of its catalog, so many times as high."""
    found: dict[str, Price | None] = {}
    for model in models_of(router):
        entry = router.catalog.resolve_model(model)
        read, written = entry.input_usd_per_mtok, entry.output_usd_per_mtok
        assert read is not None
        assert written is not None
        found[model] = Price(times * read, times * written, "test")
    return found


def expected_usd(batch: Batch) -> float:
    """What the router expected its own choices to cost."""
    decisions = [result.decision for result in batch.results if result.decision is not None]
    return sum(decision.expected_cost_usd or 0.0 for decision in decisions)


@pytest.fixture
def team_llm(router: Router) -> ScriptedModel:
    """Answers for every model that the router knows, at the prices that it knows."""
    return ScriptedModel(dict.fromkeys(models_of(router), "4"), prices_of(router))


def test_auto_is_what_the_router_decides(
    router: Router, team_llm: ScriptedModel, texts: list[str]
) -> None:
    batch = delegated(team_llm, *(Task(t, model="auto") for t in texts[:6]), router=router)
    for text, result in zip(texts, batch.results, strict=False):
        decision = router.route(text)
        assert result.error is None
        assert result.plan == decision.plan
        assert result.decision is not None
        assert result.decision.plan == decision.plan
        assert set(result.models) <= set(decision.plan.models)


def test_auto_reckons_with_the_prices_that_are_paid_here(
    router: Router, team_llm: ScriptedModel, texts: list[str]
) -> None:
    tasks = [Task(text, model="auto", max_tokens=1) for text in texts[:8]]
    budget = expected_usd(delegated(team_llm, *tasks, router=router, budget_usd=10.0))
    dear = ScriptedModel(team_llm.replies, prices_of(router, 10.0))
    learned = router.expect(*router.read(texts[:8]), 0.0).cost
    batch = delegated(dear, *tasks, router=router, budget_usd=budget)
    for row, result in enumerate(batch.results):
        if result.decision is not None:
            known = float(learned[row, router.plans.index(result.decision.plan)])
            assert result.decision.expected_cost_usd == pytest.approx(10 * known, rel=1e-4)
    assert 0 < expected_usd(batch) <= budget


def test_a_cost_weight_is_passed_on_to_the_router(
    router: Router, team_llm: ScriptedModel, texts: list[str]
) -> None:
    batch = delegated(
        team_llm, *(Task(t, model="auto") for t in texts), router=router, cost_weight=1e6,
        settings=Settings(max_tasks=len(texts)),
    )  # fmt: skip
    assert [r.plan for r in batch.results] == [router.route(t, cost_weight=1e6).plan for t in texts]


def test_auto_and_named_tasks_share_one_budget(
    router: Router, team_llm: ScriptedModel, texts: list[str]
) -> None:
    autos = [Task(text, model="auto", max_tokens=1) for text in texts[:8]]
    rich = delegated(team_llm, *autos, router=router, budget_usd=10.0)
    budget = 1.01 * expected_usd(rich)  # as much as all of them can use
    known = next(plan for plan in router.plans if plan.topology == "cot")
    settings = Settings(plans={"named": known})
    named = [Task(text, model="named", max_tokens=1) for text in texts[8:12]]
    read = router.read(texts[8:12])
    committed = float(router.expect(*read, 0.0).cost[:, router.plans.index(known)].sum())
    both = delegated(team_llm, *named, *autos, router=router, budget_usd=budget, settings=settings)
    assert not any(result.error for result in both.results[:4])
    assert 0 < committed < budget
    assert expected_usd(both) <= budget - committed
    assert (both.usage.cost_usd or 0) + both.charged_usd <= budget


def test_a_named_task_commits_what_it_will_take_and_not_all_that_it_could(
    router: Router, team_llm: ScriptedModel, texts: list[str]
) -> None:
    prices = {**team_llm.prices, "stranger": Price(3.0, 15.0, "test")}
    llm = ScriptedModel({**team_llm.replies, "stranger": "4"}, prices)
    autos = [Task(text, model="auto", max_tokens=1) for text in texts[:4]]
    rich = delegated(llm, *autos, router=router, budget_usd=10.0)
    named = [Task(text, model="stranger") for text in texts[4:8]]  # of 2,048 tokens at most
    budget = 0.1 + expected_usd(rich)
    batch = delegated(llm, *named, *autos, router=router, budget_usd=budget)
    assert not batch.failed


def test_a_task_whose_needs_cannot_come_takes_no_part_of_the_budget(
    router: Router, team_llm: ScriptedModel, texts: list[str]
) -> None:
    wanted = [Task(text, model="auto", max_tokens=1) for text in texts[:3]]
    rich = delegated(team_llm, *wanted, router=router, budget_usd=10.0)
    budget = 0.5 * expected_usd(rich)
    alone = delegated(team_llm, *wanted, router=router, budget_usd=budget)
    lost = [
        Task("look", model="nobody", id="gone"),
        Task("look", model="auto", needs=[["a list"]]),  # type: ignore[arg-type]
        Task(texts[4], model="auto", max_tokens=1, id="next", needs=("gone",)),
        Task(texts[5], model="auto", max_tokens=1, needs=("next",)),
        Task(texts[6], model="synthetic-large", needs=("next",)),
    ]
    both = delegated(team_llm, *lost, *wanted, router=router, budget_usd=budget)
    kinds = [result.error and result.error.type for result in both.results]
    assert kinds == ["unknown_model", "invalid_task", "needs", "needs", "needs", None, None, None]
    assert [r.plan for r in both.results[5:]] == [r.plan for r in alone.results]


def test_a_task_that_the_budget_does_not_reach_has_an_error_of_its_own(
    router: Router, team_llm: ScriptedModel, texts: list[str]
) -> None:
    batch = delegated(
        team_llm, *(Task(t, model="auto") for t in texts[:4]), router=router, budget_usd=1e-9
    )
    assert [r.error and r.error.type for r in batch.results] == ["budget"] * 4
    assert team_llm.requests == []


def test_auto_takes_no_plan_with_a_model_that_cannot_be_called_here(
    router: Router, texts: list[str]
) -> None:
    llm = ScriptedModel({"synthetic-small": "4", "synthetic-coder": "4"})
    batch = delegated(llm, *(Task(t, model="auto") for t in texts[:6]), router=router)
    assert not batch.failed
    assert all(r.plan and set(r.plan.models) <= set(llm.models) for r in batch.results)


def test_auto_does_not_call_another_model_that_an_alias_puts_in_its_place(
    router: Router, texts: list[str]
) -> None:
    llm = ScriptedModel({"big": "4"})
    elsewhere = Settings(aliases={"synthetic-large": "big"})
    (result,) = delegated(
        llm, Task(texts[0], model="auto"), router=router, settings=elsewhere
    ).results
    assert result.error is not None
    assert result.error.type == "no_plan"
    assert llm.requests == []


def test_auto_without_a_router_says_so() -> None:
    (result,) = delegated(ScriptedModel({"mini": "4"}), Task("a", model="auto")).results
    assert result.error is not None
    assert result.error.type == "no_router"


def test_a_router_at_fault_fails_its_own_tasks_alone(
    router: Router, team_llm: ScriptedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    delegator = Delegator(team_llm, router=router)

    def broken(*_: object, **__: object) -> None:
        raise OSError("/home/user/secret")

    monkeypatch.setattr("masrouter.delegation.delegator.Auto.choose", broken)
    named, auto = asyncio.run(
        delegator.delegate_tasks([Task("a", model="synthetic-small"), Task("b", model="auto")])
    ).results
    assert named.answer == "4"
    assert auto.error is not None
    assert auto.error.type == "internal"
    assert "secret" not in auto.error.message


def test_it_is_told_who_will_do_a_task(
    router: Router, team_llm: ScriptedModel, texts: list[str]
) -> None:
    events: list[Any] = []
    delegated(
        team_llm, Task(texts[0], model="auto"), Task("b", model="synthetic-small"),
        router=router, on_event=events.append,
    )  # fmt: skip
    routed = {event.id: event for event in events if isinstance(event, TaskRouted)}
    assert routed["task-1"].target.kind == "auto"
    assert routed["task-1"].decision is not None
    assert routed["task-1"].plan == router.route(texts[0]).plan
    assert routed["task-2"].decision is None
    assert routed["task-2"].target.kind == "model"
