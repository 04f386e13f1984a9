"""Ablations: what is held is held everywhere, and the table compares router with router."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from masrouter.encoder import HashingEncoder
from masrouter.errors import EvaluationError, MasRouterError, TrainingError
from masrouter.evaluation.baselines import BEST_FIXED, BestFixedPlan
from masrouter.evaluation.crossval import CrossValidation, cross_validate
from masrouter.evaluation.learners import Queries
from masrouter.logs import LogKind, Logs
from masrouter.logs.write import write_parquet
from masrouter.outcomes import Outcomes
from masrouter.router import Router
from masrouter.types import Agent, Plan
from masrouter_train.ablate_command import ablate
from masrouter_train.ablation import (
    ablated_learners,
    ablation_table,
    ablations_to_json,
    ablations_to_markdown,
    shown_weights,
)
from masrouter_train.commands import train
from masrouter_train.config import Ablation, CriticConfig, GateConfig, TrainConfig
from masrouter_train.fit import TrainingData, fit, fit_outcomes
from masrouter_train.held_parts import HeldParts, best_fixed
from masrouter_train.learner import ROUTER, RouterLearner
from masrouter_train.synthetic import SyntheticWorld

STAGES = (Ablation.TOPOLOGY, Ablation.ROLES, Ablation.MODELS)
ENCODER = HashingEncoder(32)
SMALL = TrainConfig(
    encoder="hashing-32",
    critic=CriticConfig(folds=2),
    gate=GateConfig(nodes=3),
)


def team(topology: str, *seats: tuple[str | None, str]) -> Plan:
    return Plan(topology, tuple(Agent(role, model) for role, model in seats))


ONE = team("cot", (None, "a"))
PLANS = (
    ONE,
    team("cot", (None, "b")),
    team("io", (None, "a")),
    team("vote", (None, "a"), (None, "a"), (None, "a")),
    team("chain", ("planner", "a"), ("solver", "b")),
    team("chain", ("solver", "a"), ("planner", "a")),
)


def held(*parts: Ablation) -> HeldParts:
    return HeldParts.of(TrainConfig().without(*parts))


def without_cascade(config: TrainConfig) -> TrainConfig:
    return replace(config, controller=replace(config.controller, enabled=False))


@pytest.fixture
def outcomes(outcomes_of: Any) -> Outcomes:
    """Sixty queries in two domains, a chain for each; the best fixed plan is `cot(a)`."""
    rng = np.random.default_rng(0)
    side = np.arange(60) % 2
    chance = np.stack(
        [np.full(60, p) for p in (0.88, 0.7, 0.6, 0.75)] + [0.97 * side, 0.97 - 0.97 * side], axis=1
    )
    score = (rng.random((60, 6)) < chance).astype(np.float64)
    cost = np.array([0.001, 0.004, 0.0001, 0.006, 0.008, 0.009]) * rng.lognormal(0, 0.1, (60, 6))
    made: Outcomes = outcomes_of(
        score,
        cost,
        plans=PLANS,
        texts=[f"{'prove' if s else 'write'} this number {i}" for i, s in enumerate(side)],
        datasets=["proofs" if s else "programs" for s in side],
    )
    return made


@pytest.fixture(scope="module")
def validated(world: SyntheticWorld, config: TrainConfig, grid_logs: Logs) -> CrossValidation:
    outcomes = Outcomes.from_logs(grid_logs)
    parts = (Ablation.TOPOLOGY, Ablation.COST, Ablation.TEXT)
    return cross_validate(
        outcomes,
        ENCODER.encode(outcomes.queries),
        ablated_learners(config, ENCODER, world.catalog(), parts),
        folds=2,
        seeds=(0,),
        cost_weights=(0.0, 5.0, 40.0),
    )


# Settings


@pytest.mark.parametrize("part", Ablation)
def test_an_ablation_is_one_setting_that_is_false(part: Ablation) -> None:
    def flat(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in config.items():
            inner = isinstance(value, dict)
            found |= flat(value, f"{prefix}{key}.") if inner else {prefix + key: value}
        return found

    whole, ablated = flat(TrainConfig().to_json()), flat(TrainConfig().without(part).to_json())
    assert {k for k in whole if whole[k] != ablated[k]} == {part.setting}
    assert whole[part.setting] is True
    assert ablated[part.setting] is False


def test_several_parts_can_be_switched_off_together() -> None:
    config = TrainConfig().without(Ablation.TEXT, Ablation.DOMAIN, Ablation.MODELS)
    assert not config.critic.use_text
    assert not config.critic.use_domain
    assert not config.choose_models
    assert config.choose_topology


# What agrees with the best fixed plan


@pytest.mark.parametrize(
    ("part", "same"),
    [
        (Ablation.TOPOLOGY, (0, 1)),
        (Ablation.ROLES, (0, 1, 2, 3)),
        (Ablation.MODELS, (0, 2, 3, 5)),
        (Ablation.COST, (0, 1, 2, 3, 4, 5)),
    ],
)
def test_plans_agree_in_what_is_held_and_the_count_is_free(
    part: Ablation, same: tuple[int, ...]
) -> None:
    assert tuple(i for i, plan in enumerate(PLANS) if held(part).agree(plan, ONE)) == same


def test_roles_are_compared_as_a_set() -> None:
    assert held(Ablation.ROLES).agree(PLANS[4], PLANS[5])
    assert not held(Ablation.MODELS).agree(PLANS[4], PLANS[5])


def test_the_best_fixed_plan_is_the_one_of_the_cost_weight(outcomes: Outcomes) -> None:
    known = np.arange(outcomes.n_plans)
    assert [best_fixed(outcomes, known, weight) for weight in (0.0, 500.0)] == [0, 2]
    # Only among those that can be chosen.
    assert best_fixed(outcomes, np.array([1, 4]), 0.0) == 1


def test_on_observational_logs_the_plan_with_most_runs_is_the_fixed_one(
    outcomes_of: Any,
) -> None:
    score = np.array([[np.nan, 0.5], [np.nan, 0.5], [1.0, np.nan]])
    lucky = outcomes_of(score, plans=PLANS[:2], kind=LogKind.OBSERVATIONAL)
    assert best_fixed(lucky, np.arange(2), 0.0) == 1


def test_on_randomised_logs_rare_draws_count_for_more(outcomes_of: Any) -> None:
    score = np.array([[1.0, np.nan], [0.0, np.nan], [np.nan, 0.6]])
    p = np.array([[0.9, np.nan], [0.1, np.nan], [np.nan, 0.5]])
    drawn = outcomes_of(score, plans=PLANS[:2], kind=LogKind.RANDOMISED, propensity=p)
    # The plain mean is 0.5; weighted by 1 / propensity it is 0.1.
    assert best_fixed(drawn, np.arange(2), 0.0) == 1
    even = replace(drawn, propensity=np.array([0.1, 0.9, 0.5]))
    assert best_fixed(even, np.arange(2), 0.0) == 0


# Training


@pytest.mark.parametrize("part", STAGES)
def test_a_router_without_a_stage_chooses_only_plans_that_agree(
    part: Ablation, grid_logs: Logs, config: TrainConfig, world: SyntheticWorld
) -> None:
    config = without_cascade(config).without(part)
    router = fit(grid_logs, config, catalog=world.catalog(), encoder=ENCODER)
    logged = Outcomes.from_logs(grid_logs).plans
    rule = HeldParts.of(config)
    assert set(router.plans) == {p for p in logged if rule.agree(p, router.plans[0])}
    assert len(router.plans) < len(logged)
    for weight in (0.0, 3.0, 100.0):
        decided = router.route("Prove that 2 + 2 = 4.", cost_weight=weight).plan
        assert rule.agree(decided, router.plans[0])


def test_holding_what_leaves_one_plan_is_refused_where_a_cascade_is_trained(
    outcomes: Outcomes,
) -> None:
    one = SMALL.without(Ablation.TOPOLOGY, Ablation.MODELS)
    data = TrainingData(outcomes, ENCODER.encode(outcomes.queries))
    with pytest.raises(TrainingError, match=r"topology .*, models .*, only .* nothing to choose"):
        fit_outcomes(data, one, encoder=ENCODER)
    router = fit_outcomes(data, without_cascade(one), encoder=ENCODER)
    assert len(router.plans) == 1


def test_runs_of_plans_that_cannot_be_chosen_still_teach(outcomes: Outcomes) -> None:
    held_at = without_cascade(SMALL.without(Ablation.TOPOLOGY))
    x = ENCODER.encode(outcomes.queries)
    router = fit_outcomes(TrainingData(outcomes, x), held_at, encoder=ENCODER)
    position = [outcomes.plans.index(plan) for plan in router.plans]
    alone = outcomes.plans_at(position)
    narrow = fit_outcomes(TrainingData(alone, x), held_at, encoder=ENCODER)
    assert narrow.plans == router.plans
    query = outcomes.queries[0]
    assert router.route(query).expected_score != narrow.route(query).expected_score


# The learner


def test_plans_that_were_held_out_do_not_come_back_as_unseen_ones(outcomes: Outcomes) -> None:
    config = SMALL.without(Ablation.MODELS)
    blind = outcomes.plans_at([0, 1, 2, 4, 5])
    # Plan 3 is in the evaluation without a training cell; it agrees in the models, 1 and 4 do not.
    train = replace(
        outcomes,
        **{
            name: getattr(outcomes, name)[outcomes.plan != 3]
            for name in (
                "query", "plan", "score", "cost", "prompt_tokens", "completion_tokens",
                "propensity", "runs",
            )
        },
    )  # fmt: skip
    assert len(train.score) == len(blind.score)
    learner = RouterLearner(config, ENCODER, label="ablated")
    x = ENCODER.encode(outcomes.queries)
    chooser = learner.fit(train, x, cost_weights=(0.0, 50.0), seed=0)
    assert set(chooser.router.plans) == {PLANS[i] for i in (0, 2, 3, 5)}  # type: ignore[attr-defined]


def test_a_query_without_any_of_its_plans_gets_its_first_one_and_is_counted(
    outcomes: Outcomes,
) -> None:
    learner = RouterLearner(SMALL.without(Ablation.TOPOLOGY), ENCODER, label="without topology")
    x = ENCODER.encode(outcomes.queries)
    chooser = learner.fit(outcomes, x, cost_weights=(50.0,), seed=0)
    available = np.ones((3, 6), dtype=np.bool_)
    available[1] = [False, False, False, True, True, True]
    chosen = chooser.choose(Queries(outcomes.queries[:3], x[:3]), 50.0, available)
    assert chosen[1] == 3
    assert {PLANS[i].topology for i in chosen[[0, 2]]} == {"cot"}
    told, counted = chooser.notes  # type: ignore[attr-defined]
    assert told == "without topology: held at topology cot; it chooses from 2 of 6 plans"
    assert "in 1 of 3 choices" in counted


def test_a_router_without_the_cost_term_chooses_alike_at_every_cost_weight(
    outcomes: Outcomes,
) -> None:
    learner = RouterLearner(SMALL.without(Ablation.COST), ENCODER)
    x = ENCODER.encode(outcomes.queries)
    chooser = learner.fit(outcomes, x, cost_weights=(0.0, 500.0), seed=0)
    queries, everything = Queries(outcomes.queries, x), np.ones((60, 6), dtype=np.bool_)
    free = chooser.choose(queries, 0.0, everything)
    np.testing.assert_array_equal(chooser.choose(queries, 500.0, everything), free)
    whole = RouterLearner(SMALL, ENCODER).fit(outcomes, x, cost_weights=(0.0, 500.0), seed=0)
    assert not np.array_equal(whole.choose(queries, 500.0, everything), free)


# The table


def test_the_table_has_the_paired_differences_of_the_choices(validated: CrossValidation) -> None:
    table = ablation_table(validated, resamples=300)
    names = [row.name for row in table.rows]
    assert names == [ROUTER, "without topology", "without cost", "without text", BEST_FIXED]
    for row in table.rows:
        gap = (validated.utility(row.name) - validated.utility(ROUTER))[0]  # (W, N)
        assert row.difference == pytest.approx(np.nanmean(gap, axis=1).mean())
        fixed = (validated.utility(row.name) - validated.utility(BEST_FIXED))[0]
        assert row.to_fixed == pytest.approx(np.nanmean(fixed, axis=1).mean())
        for w, at in enumerate(row.at):
            assert at.difference == pytest.approx(np.nanmean(gap[w]))
            assert at.interval.low - 1e-9 <= at.difference <= at.interval.high + 1e-9
            assert at.score == pytest.approx(np.nanmean(validated.score(row.name)[0, w]))
        assert row.interval.low - 1e-9 <= row.difference <= row.interval.high + 1e-9
    full, fixed_row = table.rows[0], table.rows[-1]
    assert full.difference == full.changed == 0.0
    assert fixed_row.to_fixed == 0.0
    assert fixed_row.difference == pytest.approx(-full.to_fixed)


def test_the_router_without_cost_pays_the_same_at_every_cost_weight(
    validated: CrossValidation,
) -> None:
    row = next(r for r in ablation_table(validated, resamples=50).rows if r.name == "without cost")
    assert len({at.cost for at in row.at}) == 1
    assert row.changed > 0


def test_a_held_stage_is_said_in_the_notes(validated: CrossValidation) -> None:
    notes = " / ".join(ablation_table(validated, resamples=50).notes)
    assert "without topology: held at topology" in notes


def test_the_table_is_strict_json_and_escaped_markdown(validated: CrossValidation) -> None:
    table = ablation_table(validated, data="a|b", synthetic=True, resamples=50)
    data = json.loads(ablations_to_json(table))
    assert [row["name"] for row in data["rows"]] == [row.name for row in table.rows]
    lines = ablations_to_markdown(table).splitlines()
    assert all(line.count("|") == lines[0].count("|") for line in lines[:7])
    assert "[synthetic data]" in ablations_to_markdown(table)
    assert "score, cost at 40" in lines[0]


def test_the_shown_cost_weights_are_the_ends_and_the_middle() -> None:
    assert shown_weights((0.0, 1, 2, 3, 4, 5, 6)) == (0, 3, 6)
    assert shown_weights((0.0,)) == (0,)
    assert shown_weights((0.0, 1.0)) == (0, 1)


def test_a_table_needs_the_full_router(validated: CrossValidation) -> None:
    x = ENCODER.encode(validated.outcomes.queries)
    alone = cross_validate(validated.outcomes, x, [BestFixedPlan()], folds=2, seeds=(0,))
    with pytest.raises(EvaluationError, match=f"no learner '{ROUTER}'"):
        ablation_table(alone)


# The command


def invoke(*arguments: object, command: Callable[..., None] = ablate) -> tuple[int, str]:
    app = typer.Typer()
    app.command()(command)
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    if isinstance(result.exception, MasRouterError):
        return 1, str(result.exception)
    return result.exit_code, result.stdout


@pytest.fixture(scope="module")
def logs(world: SyntheticWorld, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("logs") / "grid.parquet"
    write_parquet(world.grid_logs(40, 1, plans=world.plans[:6]), path)
    return path


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recipe") / "small.yaml"
    path.write_text("encoder: hashing-32\ncritic: {folds: 2, ladder: [{}, {domain: 1.0}]}\n")
    return path


def test_the_command_writes_what_it_prints_and_goes_on_where_it_was(
    logs: Path, recipe: Path, tmp_path: Path
) -> None:
    arguments = (
        "--logs", logs, "--recipe", recipe, "--only", "models", "--only", "domain",
        "--folds", 2, "--seeds", 1, "--out", tmp_path, "--json",
    )  # fmt: skip
    code, said = invoke(*arguments)
    assert code == 0, said
    printed = json.loads(said)
    assert printed == json.loads((tmp_path / "ablation.json").read_text())
    names = [ROUTER, "without models", "without domain", BEST_FIXED]
    assert [row["name"] for row in printed["rows"]] == names
    assert (tmp_path / "ablation.md").read_text().startswith("| router |")
    (units,) = tmp_path.glob("units-*.jsonl")
    work = units.read_bytes()
    assert len(work.splitlines()) == 1 + 2 * len(names)
    lines = work.splitlines(keepends=True)
    units.write_bytes(b"".join(lines[:-3]))
    code, again = invoke(*arguments)
    assert code == 0
    assert json.loads(again) == printed
    assert len(units.read_bytes().splitlines()) == len(lines)


def test_train_takes_the_parts_that_are_switched_off(
    logs: Path, recipe: Path, tmp_path: Path
) -> None:
    quick = tmp_path / "quick.yaml"
    quick.write_text(recipe.read_text() + "controller: {enabled: false}\n")
    code, said = invoke(
        "--logs", logs, "--recipe", quick, "--out", tmp_path / "ablated",
        "--without", "topology", "--without", "text", command=train,
    )  # fmt: skip
    assert code == 0, said
    router = Router.from_pretrained(tmp_path / "ablated", encoder=ENCODER)
    assert len({plan.topology for plan in router.plans}) == 1
    settings = router.state.training["config"]
    assert settings["choose_topology"] is settings["critic"]["use_text"] is False
    assert settings["choose_models"] is settings["gate"]["shrink"] is True
    code, said = invoke("--logs", logs, "--out", tmp_path, "--without", "luck", command=train)
    assert code == 2


def test_work_of_other_settings_is_not_taken_up(logs: Path, recipe: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.yaml"
    other.write_text(recipe.read_text() + "max_evidence: 30\n")
    for path in (recipe, other):
        code, said = invoke(
            "--logs", logs, "--recipe", path, "--only", "domain", "--folds", 2, "--out", tmp_path
        )
        assert code == 0, said
        assert "without domain" in said
    assert len(list(tmp_path.glob("units-*.jsonl"))) == 2


def test_logs_that_are_no_grid_are_refused(
    world: SyntheticWorld, recipe: Path, tmp_path: Path
) -> None:
    path = tmp_path / "drawn.parquet"
    write_parquet(world.randomised_logs(60, 2), path)
    code, said = invoke("--logs", path, "--recipe", recipe)
    assert code == 1
    assert "randomised" in said
