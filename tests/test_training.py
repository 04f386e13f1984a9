"""From logs to a router: the three kinds of logs, what cannot be learned from, and seeds."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from rich.console import Console

from masrouter.encoder import HashingEncoder
from masrouter.errors import ConfigError, TrainingError
from masrouter.features import FeatureScales
from masrouter.gate import FIXED
from masrouter.logs import Logs
from masrouter.outcomes import Outcomes
from masrouter.router import Router
from masrouter.types import Agent, LogRecord, Plan, Usage
from masrouter_train.config import ControllerConfig, CriticConfig, GateConfig, TrainConfig
from masrouter_train.fit import TrainingData, fit, fit_outcomes
from masrouter_train.progress import Progress
from masrouter_train.synthetic import SyntheticWorld

A, B, C = (Plan("io", (Agent(None, model),)) for model in ("gpt-4o", "gpt-4o-mini", "gpt-4"))


def record(number: int, plan: Plan, **changes: object) -> LogRecord:
    made = LogRecord(
        run_id=f"{number}/{plan}",
        query_id=f"q{number:04d}",
        query=f"question {number} about {'code' if number % 2 else 'poems'}",
        dataset="set",
        plan=plan,
        score=1.0,
        score_source="tests",
        usage=Usage(100, 10, 0.001),
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def same_weights(one: Router, other: Router) -> bool:
    pairs = [
        (one.state.controller.state_dict(), other.state.controller.state_dict()),
        (one.state.critic.state_dict(), other.state.critic.state_dict()),
    ]
    return all(torch.equal(a[k], b[k]) for a, b in pairs for k in a)


@pytest.mark.parametrize("kind", ["grid", "randomised", "observational"])
def test_each_kind_of_log_trains_a_router_that_knows_it(
    kind: str, world: SyntheticWorld, config: TrainConfig, encoder: HashingEncoder
) -> None:
    logs = {
        "grid": lambda: world.grid_logs(60, 2, plans=world.plans[:6]),
        "randomised": lambda: world.randomised_logs(400, 2, policy="epsilon"),
        "observational": lambda: world.observational_logs(200, 2),
    }[kind]()
    console = Console(file=io.StringIO(), width=200)
    router = fit(logs, config, catalog=world.catalog(), encoder=encoder, progress=Progress(console))
    said = console.file.getvalue()  # type: ignore[attr-defined]
    assert f"{kind} logs: " in said
    assert router.state.training["kind"] == kind
    assert router.state.training["why"]
    tensors = {**router.state.controller.state_dict(), **router.state.critic.state_dict()}
    assert all(torch.isfinite(t).all() for t in tensors.values())
    for weight in (0.0, 20.0):
        decision = router.route(world.sample_queries(1, 5).texts[0], cost_weight=weight)
        assert decision.plan in router.plans
        assert 0 <= decision.expected_score <= 1
        assert decision.expected_cost_usd is not None
    drawn = router.route("Compute 3 + 4.", sample=True, seed=0)
    assert 0 < drawn.propensity <= 1
    if kind == "observational":
        assert router.state.gate.default >= 0
        assert "observational" in " ".join(
            router.route(Outcomes.from_logs(logs).queries[0]).reasons
        )


def test_the_cascade_learns_what_the_logs_say(
    world: SyntheticWorld, encoder: HashingEncoder
) -> None:
    """A plan that is always right and costs nothing more is what greedy and samples take."""
    rows = [
        record(i, plan, score=score) for i in range(60)
        for plan, score in ((A, 0.2), (B, 1.0), (C, 0.1))
    ]  # fmt: skip
    config = TrainConfig(
        critic=CriticConfig(ladder=(FeatureScales(), FeatureScales(0.1, 1.0)), folds=3),
        gate=GateConfig(nodes=3),
        controller=ControllerConfig(width=16, epochs=20, batch_size=16, patience=20),
    )
    router = fit(Logs.from_records(rows), config, encoder=encoder)
    plans = [router.route(f"question {i}", sample=True, seed=i).plan for i in range(30)]
    assert plans.count(B) >= 25
    decision = router.route("question 3")
    assert decision.plan == B
    assert decision.stage_probabilities.models[0] > 0.8


def test_a_router_is_its_logs_its_settings_and_its_seed(
    world: SyntheticWorld, config: TrainConfig, encoder: HashingEncoder, tmp_path: Path
) -> None:
    logs = world.grid_logs(40, 2, plans=world.plans[:5])
    ids, routers = [], []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        torch.manual_seed(hash(name) % 1000)  # whatever was drawn before does not matter
        before = torch.random.get_rng_state()
        router = fit(logs, replace(config, seed=seed), catalog=world.catalog(), encoder=encoder)
        assert torch.equal(torch.random.get_rng_state(), before)
        ids.append(router.save_pretrained(tmp_path / name))
        routers.append(router)
    assert ids[0] == ids[1] != ids[2]
    assert same_weights(routers[0], routers[1])
    assert not same_weights(routers[0], routers[2])


def test_the_order_of_rows_does_not_change_the_router(
    world: SyntheticWorld, config: TrainConfig, encoder: HashingEncoder
) -> None:
    logs = world.grid_logs(40, 2, plans=world.plans[:5])
    order = pa.array(np.random.default_rng(0).permutation(len(logs)))
    shuffled = Logs.from_records(list(Logs(logs.table.take(order))))
    one, other = (
        fit(rows, config, catalog=world.catalog(), encoder=encoder) for rows in (logs, shuffled)
    )
    assert same_weights(one, other)


def test_without_the_cascade_everything_else_is_the_same(
    world: SyntheticWorld, config: TrainConfig, encoder: HashingEncoder
) -> None:
    logs = world.grid_logs(40, 2, plans=world.plans[:5])
    off = replace(config, controller=replace(config.controller, enabled=False))
    one, other = (fit(logs, c, catalog=world.catalog(), encoder=encoder) for c in (config, off))
    text = world.sample_queries(1, 5).texts[0]
    assert one.route(text).plan == other.route(text).plan
    assert one.route(text).expected_score == other.route(text).expected_score
    assert other.state.metrics["cascade_held_out_utility"] is None


def test_whatever_is_trained_can_be_saved_and_read_again(
    config: TrainConfig, encoder: HashingEncoder, tmp_path: Path
) -> None:
    """Odd names, free runs, one text for all, a team of ten: what logs may hold, a router may."""
    odd = Plan("ein Kreis: {a} #1", (Agent("größe 'x'", "weird/name:v1\u202e"),) * 10)
    rows = [
        record(i, plan, dataset=f"set {i % 2} é:#", task="a b", query="the same text",
               usage=Usage(0, 0, cost), score=float((i + k) % 3 == 0))
        for i in range(50) for k, (plan, cost) in enumerate(((A, 0.0), (odd, 1e-9)))
    ]  # fmt: skip
    router = fit(Logs.from_records(rows), config, encoder=encoder)
    identity = router.save_pretrained(tmp_path / "odd")
    again = Router.from_pretrained(tmp_path / "odd")
    assert again.checkpoint == identity
    for text in ("the same text", "another"):
        assert replace(again.route(text), checkpoint="") == router.route(text)
    assert str(again.explain("the same text"))
    assert again.route("the same text", topologies=[odd.topology]).plan == odd


def too_few() -> Iterator[LogRecord]:
    return (record(i, plan) for i in range(9) for plan in (A, B))


def one_plan() -> Iterator[LogRecord]:
    return (record(i, A) for i in range(30))


def no_scores() -> Iterator[LogRecord]:
    return (record(i, plan, score=None, error="no grader") for i in range(30) for plan in (A, B))


def one_scored_plan() -> Iterator[LogRecord]:
    for i in range(30):
        yield record(i, A)
        yield record(i, B, score=None, error="timeout")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (too_few, "9 queries: at least 10 are needed"),
        (one_plan, r"one plan only .*gpt-4o"),
        (no_scores, "no run has a score"),
        (one_scored_plan, r"one plan only|only one plan"),
    ],
)
def test_what_cannot_be_learned_from_is_refused(
    rows: object, message: str, config: TrainConfig, encoder: HashingEncoder
) -> None:
    with pytest.raises(TrainingError, match=message):
        fit(Logs.from_records(rows()), config, encoder=encoder)  # type: ignore[operator]


def test_ten_queries_are_enough_to_try(config: TrainConfig, encoder: HashingEncoder) -> None:
    rows = [record(i, p, score=float((i + k) % 2)) for i in range(10) for k, p in enumerate((A, B))]
    router = fit(Logs.from_records(rows), config, encoder=encoder)
    assert router.route("question 3").plan in (A, B)


def test_scores_that_never_vary_are_learned_too(
    config: TrainConfig, encoder: HashingEncoder
) -> None:
    rows = [record(i, p, usage=Usage(100, 10, cost)) for i in range(30)
            for p, cost in ((A, 0.01), (B, 0.001))]  # fmt: skip
    router = fit(Logs.from_records(rows), config, encoder=encoder)
    assert router.route("question 3", cost_weight=10).plan == B
    assert router.route("question 3", cost_weight=10).expected_score > 0.9


def test_logs_without_costs_route_by_score_and_say_why_they_cannot_weigh_cost(
    config: TrainConfig, encoder: HashingEncoder
) -> None:
    rows = [record(i, p, score=s, usage=Usage()) for i in range(30) for p, s in ((A, 1.0), (B, 0))]
    router = fit(Logs.from_records(rows), config, encoder=encoder)
    assert [node.cost_weight for node in router.state.gate.nodes] == [0.0]
    decision = router.route("question 3")
    assert decision.plan == A
    assert decision.cost_weight == 0
    assert decision.expected_cost_usd is None
    assert decision.cost_interval is None


def test_use_cost_off_trains_at_cost_weight_zero(
    config: TrainConfig, encoder: HashingEncoder
) -> None:
    rows = [record(i, p, score=float(i % 2)) for i in range(20) for p in (A, B)]
    router = fit(Logs.from_records(rows), replace(config, use_cost=False), encoder=encoder)
    assert [node.cost_weight for node in router.state.gate.nodes] == [0.0]
    assert router.route("question").cost_weight == 0


def test_names_beyond_the_catalog_are_said(config: TrainConfig, encoder: HashingEncoder) -> None:
    stranger = Plan("huddle", (Agent("bard", "llama-unheard-of"),))
    rows = [record(i, p, score=float(i % 2)) for i in range(20) for p in (A, stranger)]
    console = Console(file=io.StringIO(), width=300)
    router = fit(Logs.from_records(rows), config, encoder=encoder, progress=Progress(console))
    said = console.file.getvalue()  # type: ignore[attr-defined]
    for name in ("model llama-unheard-of", "role bard", "topology huddle"):
        assert name in said
        assert name in router.state.training["names_not_in_catalog"]


def test_queries_of_unknown_cost_do_not_stop_training(
    world: SyntheticWorld, config: TrainConfig, encoder: HashingEncoder
) -> None:
    """A batch may hold only queries that no cost weight above 0 can teach."""
    o = Outcomes.from_logs(world.grid_logs(40, 2, plans=world.plans[:4]))
    o = replace(o, cost=np.where(o.query < 20, np.nan, o.cost))
    lone = replace(config, controller=replace(config.controller, batch_size=1, epochs=2))
    router = fit_outcomes(
        TrainingData(o, encoder.encode(o.queries)), lone, catalog=world.catalog(), encoder=encoder
    )
    assert all(torch.isfinite(t).all() for t in router.state.controller.state_dict().values())


def test_rows_without_propensity_are_left_out_of_the_weights(
    world: SyntheticWorld, config: TrainConfig, encoder: HashingEncoder
) -> None:
    logs = world.randomised_logs(300, 3)
    name = "propensity"
    given = logs.numbers(name).copy()
    given[:2] = np.nan
    column = logs.table.schema.get_field_index(name)
    table = logs.table.set_column(
        column, logs.table.schema.field(name), pa.array(given, from_pandas=True)
    )
    router = fit(Logs(table), config, catalog=world.catalog(), encoder=encoder)
    assert router.state.training["kind"] == "randomised"
    assert np.isfinite(router.state.gate.mean_score).all()
    assert all(torch.isfinite(t).all() for t in router.state.controller.state_dict().values())


def test_only_the_most_run_plans_are_candidates_where_there_are_too_many(
    world: SyntheticWorld, config: TrainConfig, encoder: HashingEncoder
) -> None:
    logs = world.randomised_logs(300, 3, policy="epsilon")
    outcomes = Outcomes.from_logs(logs)
    runs = np.bincount(outcomes.plan, minlength=outcomes.n_plans)
    router = fit(logs, replace(config, max_candidates=4), catalog=world.catalog(), encoder=encoder)
    assert len(router.plans) == 4
    least = min(runs[outcomes.plans.index(plan)] for plan in router.plans)
    others = [r for r, plan in zip(runs, outcomes.plans, strict=True) if plan not in router.plans]
    assert least >= max(others)
    assert router.route("Compute 3 + 4.").plan in router.plans


@pytest.mark.parametrize(
    "settings",
    [
        {"controller": {"batch_size": 0}}, {"controller": {"epochs": 0}},
        {"controller": {"width": 0}}, {"controller": {"temperature": 0}},
        {"controller": {"validation_share": 1}}, {"controller": {"learning_rate": 0}},
        {"critic": {"folds": 1}}, {"critic": {"folds": 100}},
        {"critic": {"kernel": {"any_plan": 0}}}, {"critic": {"kernel": {"topology": -1}}},
        {"gate": {"nodes": 0}}, {"seed": -1}, {"seed": True}, {"seed": "0"},
        {"max_candidates": 1}, {"max_evidence": 0},
        {"gate": {"speed": 1}}, {"gate": 3},
    ],
)  # fmt: skip
def test_settings_that_cannot_work_are_refused_before_any_work(settings: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=next(iter(settings))):
        TrainConfig.from_mapping(settings)


def test_settings_made_in_code_are_checked_like_those_of_a_recipe() -> None:
    with pytest.raises(ConfigError, match="batch_size"):
        ControllerConfig(batch_size=0)
    with pytest.raises(ConfigError, match="folds"):
        CriticConfig(folds=100)


def test_settings_are_read_back_from_json(config: TrainConfig) -> None:
    assert TrainConfig.from_mapping(config.to_json()) == config


def test_a_router_without_text_or_domain_has_no_such_part(
    world: SyntheticWorld, config: TrainConfig, encoder: HashingEncoder
) -> None:
    critic = replace(config.critic, use_text=False, use_domain=False)
    router = fit(
        world.grid_logs(40, 2, plans=world.plans[:4]), replace(config, critic=critic),
        catalog=world.catalog(), encoder=encoder,
    )  # fmt: skip
    scales = router.state.critic.score_scales
    assert all(s.text == 0 and s.domain == 0 for s in scales)
    assert all(node.head in range(FIXED, len(scales)) for node in router.state.gate.nodes)


def test_a_plan_that_was_lucky_once_does_not_replace_one_that_is_known(
    config: TrainConfig, encoder: HashingEncoder, tmp_path: Path
) -> None:
    """A served log: nearly all runs are of one plan; others were drawn a few times."""
    known, lucky, cheap = (
        Plan("cot", (Agent(None, "gpt-4o"),)),
        Plan("io", (Agent(None, "gpt-4o-mini"),)),
        Plan("cot", (Agent(None, "gpt-4o-mini"),)),
    )
    runs = [
        record(n, known, run_id=f"k{n}", score=float(n % 5 > 0), propensity=0.97,
               usage=Usage(100, 10, 0.001))
        for n in range(300)
    ]  # fmt: skip
    for plan, number, score in ((lucky, 7, 1.0), (cheap, 8, 1.0), (cheap, 9, 0.0)):
        runs.append(
            record(number, plan, run_id=f"l{number}", score=score, propensity=0.01,
                   usage=Usage(100, 10, 0.00001))
        )  # fmt: skip
    router = fit(Logs.from_records(runs), config, encoder=encoder)
    assert router.state.training["kind"] == "randomised"
    assert router.route("question 17 about code", cost_weight=0.0).plan == known
    router.save_pretrained(tmp_path / "made")
    again = Router.from_pretrained(tmp_path / "made", encoder=encoder)
    assert again.route("question 17 about code", cost_weight=0.0).plan == known
