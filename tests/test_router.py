"""Routing as an application meets it: constraints, money, alternatives, draws and reasons."""

from __future__ import annotations

import asyncio
import math
import socket
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, NoReturn

import numpy as np
import pytest
import torch

from masrouter.catalog import Catalog
from masrouter.encoder import HashingEncoder
from masrouter.errors import CatalogError, CheckpointError, ConstraintError, PlanError, RoutingError
from masrouter.logs import Logs
from masrouter.router import Router
from masrouter.types import Agent, LogRecord, Plan, RoutingDecision, Usage
from masrouter_train.config import TrainConfig
from masrouter_train.fit import fit
from masrouter_train.synthetic import SyntheticWorld

QUERY = "Write a Rust function that groups orders by price and returns the 7 largest groups."


def test_where_the_critic_decides_the_choice_has_the_best_expected_utility(
    router: Router, texts: list[str]
) -> None:
    """Compared on raw scores, as `explain` shows them; fallbacks are the safe plan's."""
    decided = 0
    for weight in [node.cost_weight for node in router.state.gate.nodes]:
        for text in texts[:6]:
            explained = router.explain(text, cost_weight=weight)
            if explained.decision.fallback:
                continue
            decided += 1
            assert explained.plans[0].plan == explained.decision.plan
            shown = [f.utility for f in explained.plans if f.utility is not None]
            assert shown == sorted(shown, reverse=True)
            assert len(explained.plans) == len(router.plans)
    assert decided > 12


def test_parts_of_a_prediction_add_up_to_it(router: Router, texts: list[str]) -> None:
    for text in texts[:6]:
        explained = router.explain(text)
        (chosen,) = (f for f in explained.plans if f.plan == explained.decision.plan)
        assert set(explained.parts) == {"plan", "statistics", "domain", "text"}
        assert sum(explained.parts.values()) == pytest.approx(chosen.score, abs=1e-4)
        printed = str(explained)
        assert str(explained.decision.plan) in printed.splitlines()[0]
        for reason in explained.decision.reasons:
            assert reason in printed


def test_alternatives_are_a_frontier(router: Router, texts: list[str]) -> None:
    several = 0
    for text in texts:
        decision = router.route(text, k=5, cost_weight=20.0)
        others = decision.alternatives
        assert len(others) <= 5
        assert decision.plan not in [o.plan for o in others]
        costs = [o.expected_cost_usd for o in others]
        scores = [o.expected_score for o in others]
        assert costs == sorted(costs)  # type: ignore[type-var]
        # Nobody pays more for less; calibration ends at 0.005 and 0.995, where scores may be equal.
        assert scores == sorted(scores)
        several += len(others) > 1
    assert several > 5
    assert router.route(QUERY, k=0).alternatives == ()


def test_no_plan_beats_an_alternative_on_both_counts(router: Router, texts: list[str]) -> None:
    for text in texts[:5]:
        explained = router.explain(text, k=5, cost_weight=20.0)
        figures = {f.plan: f for f in explained.plans}
        for other in explained.decision.alternatives:
            mine = figures[other.plan]
            assert mine.cost_usd is not None
            for f in explained.plans:
                assert f.cost_usd is not None
                assert not (f.cost_usd < mine.cost_usd and f.score >= mine.score)


def close(one: RoutingDecision, other: RoutingDecision) -> None:
    """The same choice; numbers may differ in the last digits with the shape of the batch."""
    assert (one.plan, one.fallback, one.domain) == (other.plan, other.fallback, other.domain)
    assert one.expected_score == pytest.approx(other.expected_score, rel=1e-4)
    assert one.expected_cost_usd == pytest.approx(other.expected_cost_usd, rel=1e-4)
    assert one.evidence.nearest == pytest.approx(other.evidence.nearest, rel=1e-4)
    assert one.stage_probabilities.topology == pytest.approx(
        other.stage_probabilities.topology, rel=1e-4
    )
    assert [a.plan for a in one.alternatives] == [a.plan for a in other.alternatives]


def test_a_batch_is_its_queries_one_by_one(router: Router, texts: list[str]) -> None:
    options: dict[str, Any] = {"cost_weight": 15.0, "max_agents": 2}
    together = router.route_batch(texts, **options)
    for text, decision in zip(texts, together, strict=True):
        close(router.route(text, **options), decision)

    async def all_at_once() -> list[RoutingDecision]:
        return list(await asyncio.gather(*(router.aroute(t, **options) for t in texts)))

    for one, other in zip(asyncio.run(all_at_once()), together, strict=True):
        close(one, other)


def test_a_budget_is_kept_for_each_query_of_a_batch(router: Router, texts: list[str]) -> None:
    """Each query has its own list of plans that it can pay."""
    free = [d.expected_cost_usd for d in router.route_batch(texts, cost_weight=0)]
    budget = float(np.median([c for c in free if c is not None]))
    for text, decision in zip(texts, router.route_batch(texts, max_cost_usd=budget), strict=True):
        assert decision.expected_cost_usd is not None
        assert decision.expected_cost_usd <= budget * (1 + 1e-6)
        close(router.route(text, max_cost_usd=budget), decision)


def test_routing_is_pure(router: Router, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> NoReturn:
        raise AssertionError("routing opened a socket")

    monkeypatch.setattr(socket, "socket", refuse)
    before = torch.random.get_rng_state()
    assert router.route(QUERY) == router.route(QUERY)
    assert router.route(QUERY, sample=True, seed=4) == router.route(QUERY, sample=True, seed=4)
    router.route(QUERY, sample=True)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_draw_says_how_probable_it_was(router: Router, texts: list[str]) -> None:
    plans = set()
    for seed in range(20):
        decision = router.route(texts[seed], sample=True, seed=seed)
        s = decision.stage_probabilities
        assert len(s.roles) == len(s.models) == len(decision.plan.agents)
        product = math.prod((s.topology, s.count, *s.roles, *s.models))
        assert decision.propensity == pytest.approx(product)
        assert 0 < decision.propensity <= 1
        assert not decision.fallback
        plans.add(decision.plan)
    assert len(plans) > 2


def test_a_draw_has_the_probability_that_the_cascade_gives_the_plan(router: Router) -> None:
    """Among the plans that the request allows."""
    allowed = [p for p in router.plans if len(p.agents) <= 2]
    chance: dict[Plan, float] = {}
    for seed in range(60):
        drawn = router.route(QUERY, max_agents=2, sample=True, seed=seed)
        assert chance.setdefault(drawn.plan, drawn.propensity) == pytest.approx(drawn.propensity)
    assert set(chance) <= set(allowed)
    assert sum(chance.values()) <= 1 + 1e-5
    assert len(chance) > 1
    only = router.route(QUERY, topologies=["chain"], sample=True, seed=0)
    assert only.stage_probabilities.topology == pytest.approx(1)  # nothing else was allowed


def test_draws_follow_their_probabilities(router: Router) -> None:
    n = 1500
    decisions = router.route_batch([QUERY] * n, sample=True, seed=11, k=0)
    count: dict[Plan, int] = {}
    chance: dict[Plan, float] = {}
    for d in decisions:
        count[d.plan] = count.get(d.plan, 0) + 1
        chance[d.plan] = d.propensity
    for plan, p in chance.items():
        assert abs(count[plan] / n - p) < 4.5 * math.sqrt(p * (1 - p) / n) + 1 / n


def test_a_text_unlike_anything_logged_gets_the_safe_plan(router: Router) -> None:
    decision = router.route("zzqx vvkj wwpf qqq")
    assert decision.fallback
    assert any("unlike anything logged" in reason for reason in decision.reasons)
    assert any("it is the best fixed plan" in reason for reason in decision.reasons)
    assert decision.evidence.nearest < router.state.evidence.thin
    assert decision.plan == router.route("zzqx! vvkj? wwpf; qqq").plan
    assert len(router.route("zzqx vvkj", max_agents=1).plan.agents) == 1


def test_a_logged_query_finds_itself(router: Router, grid_logs: Logs) -> None:
    text = next(iter(grid_logs)).query
    decision = router.route(text)
    assert not decision.fallback
    assert decision.evidence.nearest == pytest.approx(1, abs=1e-2)
    assert decision.evidence.similar_queries >= 1
    assert decision.evidence.similar_runs_of_plan >= 1
    assert decision.evidence.runs_of_plan == 100


def test_intervals_hold_their_estimate(router: Router, texts: list[str]) -> None:
    for decision in router.route_batch(texts, cost_weight=0):
        assert decision.expected_score in decision.score_interval
        assert 0 <= decision.score_interval.low <= decision.score_interval.high <= 1
        assert decision.cost_interval is not None
        assert decision.expected_cost_usd in decision.cost_interval
        assert decision.cost_interval.low > 0


def test_expected_tokens_are_told(router: Router) -> None:
    for scored in router.route(QUERY, k=5).alternatives:
        assert scored.expected_prompt_tokens is not None
        assert scored.expected_completion_tokens is not None
        assert scored.expected_prompt_tokens > 10
        assert scored.expected_completion_tokens > 1


def test_sixteen_threads_get_what_one_gets(router: Router, texts: list[str]) -> None:
    jobs = [
        (text, {"max_agents": agents, "cost_weight": weight, "sample": sample, "seed": 5})
        for text in texts[:8]
        for agents in (1, 2, 3)
        for weight in (0.0, 50.0)
        for sample in (False, True)
    ]
    alone = [router.route(text, **options) for text, options in jobs]
    with ThreadPoolExecutor(16) as pool:
        together = list(pool.map(lambda job: router.route(job[0], **job[1]), jobs * 2))
    assert together == alone * 2


@pytest.fixture
def wider_catalog(world: SyntheticWorld) -> Catalog:
    catalog = world.catalog()
    twin = replace(catalog.models["synthetic-large"], name="brand-new", aliases=())
    return replace(catalog, models={**catalog.models, "brand-new": twin})


def test_a_new_model_is_routed_to_by_its_description(
    router: Router, wider_catalog: Catalog
) -> None:
    new = Plan("io", (Agent("assistant", "brand-new"),))
    wider = router.with_plans([new], wider_catalog)
    assert new in wider.plans
    assert new not in router.plans
    decision = wider.route(QUERY, models=["brand-new"], cost_weight=10.0)
    assert decision.plan == new
    assert 0 <= decision.expected_score <= 1
    assert decision.expected_cost_usd is not None  # tokens of its parts at its own price
    assert decision.evidence.runs_of_plan == 0
    assert wider.route(QUERY, exclude_models=["brand-new"]).plan == router.route(QUERY).plan
    drawn = wider.route(QUERY, models=["brand-new"], sample=True, seed=0)
    assert drawn.plan == new
    assert drawn.propensity == pytest.approx(1)
    with pytest.raises(RoutingError, match="brand-new"):
        router.route(QUERY, models=["brand-new"])  # the first router is as it was


def test_a_new_plan_competes_where_the_critic_decides(
    router: Router, wider_catalog: Catalog
) -> None:
    """The twin of a model is expected to do about what the model does."""
    new = Plan("io", (Agent("assistant", "brand-new"),))
    old = Plan("io", (Agent("assistant", "synthetic-large"),))
    wider = router.with_plans([new], wider_catalog)
    scores = {f.plan: f.score for f in wider.explain(QUERY, cost_weight=0).plans}
    assert abs(scores[new] - scores[old]) < 0.3
    for plan in router.plans:
        before = {f.plan: f.score for f in router.explain(QUERY, cost_weight=0).plans}
        assert scores[plan] == pytest.approx(before[plan], abs=1e-5)


def test_new_plans_need_an_entry_and_must_fit(router: Router) -> None:
    with pytest.raises(CatalogError, match="nowhere"):
        router.with_plans([Plan("io", (Agent("assistant", "nowhere"),))])
    with pytest.raises(CatalogError, match="juggler"):
        router.with_plans([Plan("io", (Agent("juggler", "synthetic-small"),))])
    with pytest.raises(PlanError, match="4 agents"):
        router.with_plans([Plan("debate", (Agent("assistant", "synthetic-small"),) * 4)])


def test_a_router_with_plans_by_description_is_not_saved(
    router: Router, wider_catalog: Catalog, tmp_path: Any
) -> None:
    wider = router.with_plans([Plan("io", (Agent("assistant", "brand-new"),))], wider_catalog)
    with pytest.raises(CheckpointError, match="train on logs that hold them"):
        wider.save_pretrained(tmp_path / "wider")
    assert not (tmp_path / "wider").exists()


def test_known_plans_are_not_added_twice(router: Router) -> None:
    assert router.with_plans(router.plans).plans == router.plans


def priced(world: SyntheticWorld, **prices: float | None) -> Catalog:
    catalog = world.catalog()
    models = dict(catalog.models)
    for name, factor in prices.items():
        entry = models[f"synthetic-{name}"]
        new = [
            None if factor is None or p is None else factor * p
            for p in (entry.input_usd_per_mtok, entry.output_usd_per_mtok)
        ]
        models[entry.name] = replace(entry, input_usd_per_mtok=new[0], output_usd_per_mtok=new[1])
    return replace(catalog, models=models)


def test_a_price_change_scales_the_cost_without_training(
    router: Router, world: SyntheticWorld, texts: list[str]
) -> None:
    dearer = Router(
        router.state.with_catalog(priced(world, small=3, medium=3, large=3, coder=3)),
        router.encoder,
    )
    for one, other in zip(
        router.route_batch(texts, cost_weight=30.0),
        dearer.route_batch(texts, cost_weight=10.0),
        strict=True,
    ):
        if one.plan == other.plan:
            assert one.expected_cost_usd is not None
            assert other.expected_cost_usd == pytest.approx(3 * one.expected_cost_usd, rel=1e-4)
            assert other.expected_score == pytest.approx(one.expected_score, abs=0.3)
    only = {"models": ["synthetic-large"], "topologies": ["io"], "cost_weight": 0.0}
    apart = Router(router.state.with_catalog(priced(world, small=3)), router.encoder)
    assert apart.route(QUERY, **only).expected_cost_usd == pytest.approx(
        router.route(QUERY, **only).expected_cost_usd
    )


def test_money_is_never_guessed(config: TrainConfig, encoder: HashingEncoder) -> None:
    """Logs without costs, models without a price: a budget names them."""
    rows = [
        LogRecord(f"{i}-{m}", f"q{i}", f"question {i}", "set", Plan("io", (Agent(None, m),)),
                  float(m == "mystery"), "tests", Usage(100, 20, 0.001 if m == "gpt-4o" else None))
        for i in range(30) for m in ("mystery", "gpt-4o")
    ]  # fmt: skip
    router = fit(Logs.from_records(rows), config, encoder=encoder)
    free = router.route("question 3", cost_weight=0)
    assert free.plan.models == ("mystery",)
    assert free.expected_cost_usd is None
    assert free.cost_interval is None
    for options in ({"max_cost_usd": 1.0}, {"cost_weight": 1.0}):
        assert router.route("question 3", **options).plan.models == ("gpt-4o",)
        with pytest.raises(ConstraintError, match=r"known cost.*mystery"):
            router.route("question 3", models=["mystery"], **options)
    entry = replace(Catalog.default().models["gpt-4o"], name="mystery", aliases=())
    catalog = Catalog.empty()
    today = Router(router.state.with_catalog(replace(catalog, models={"mystery": entry})), encoder)
    decision = today.route("question 3", models=["mystery"], max_cost_usd=1.0)
    expected = entry.cost_usd(100, 20)
    assert decision.expected_cost_usd == pytest.approx(expected, rel=0.1)


@pytest.fixture(scope="module")
def observed(config: TrainConfig, encoder: HashingEncoder) -> Router:
    """1,000 runs of two plans of score 0.1, and 4 of a third that were all right."""
    rng = np.random.default_rng(0)
    plans = [Plan("io", (Agent(None, m),)) for m in ("gpt-4o", "gpt-4o-mini", "gpt-4")]
    rows = []
    for i in range(1004):
        plan = plans[2] if i >= 1000 else plans[int(i % 3 == 0)]
        score = 1.0 if i >= 1000 else float(rng.random() < 0.1)
        rows.append(
            LogRecord(f"r{i}", f"q{i}", f"question {i}", "set", plan, score, "tests",
                      Usage(10, 10, 0.001))
        )  # fmt: skip
    off = replace(config, controller=replace(config.controller, enabled=False))
    return fit(Logs.from_records(rows), off, encoder=encoder)


def test_observational_logs_promise_nothing_beyond_their_support(observed: Router) -> None:
    for number in (1, 50, 1002):
        assert observed.route(f"question {number}", cost_weight=0).plan.models != ("gpt-4",)
    new = Plan("cot", (Agent(None, "gpt-4"),))
    wider = observed.with_plans([new])
    assert wider.route("question 1", cost_weight=0).plan != new


def test_observational_logs_stay_with_the_logged_default_unless_surely_better(
    observed: Router,
) -> None:
    decisions = [observed.route(f"question {i}", cost_weight=0) for i in range(20)]
    default = observed.plans[observed.state.gate.default]
    assert default.models == ("gpt-4o",)
    assert all(d.plan == default for d in decisions)
    assert observed.route("question 1", models=["gpt-4"]).plan.models == ("gpt-4",)  # if asked for


def test_a_cascade_that_was_not_trained_is_not_drawn_from(observed: Router) -> None:
    with pytest.raises(RoutingError, match="cascade was not trained; route without sample"):
        observed.route("question 1", sample=True)


def test_reasons_name_what_was_asked(router: Router) -> None:
    decision = router.route(QUERY, max_agents=2, exclude_models=["synthetic-large"])
    said = "\n".join(decision.reasons)
    assert "max_agents=2" in said
    assert "synthetic-large" in said
    assert "cost weight" in said
    assert "similar logged queries" in said
