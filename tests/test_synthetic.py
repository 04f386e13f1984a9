"""The synthetic world: its truth is exact, its logs are what they say, and all is labelled."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from masrouter.catalog import Catalog
from masrouter.errors import ConfigError
from masrouter.logs import LogKind, Logs, detect_kind, log_stats, read_logs
from masrouter.outcomes import Outcomes
from masrouter_train.synthetic import SyntheticWorld, write_world
from masrouter_train.synthetic_logs import stage_propensities
from masrouter_train.synthetic_text import DOMAINS, LEVELS, SyntheticQueries

Draw = Callable[[SyntheticWorld, int], Logs]
KINDS: dict[LogKind, Draw] = {
    LogKind.GRID: lambda world, seed: world.grid_logs(60, seed),
    LogKind.RANDOMISED: lambda world, seed: world.randomised_logs(300, seed),
    LogKind.OBSERVATIONAL: lambda world, seed: world.observational_logs(300, seed),
}
each_kind = pytest.mark.parametrize("kind", list(KINDS))


@pytest.fixture(scope="module")
def world() -> SyntheticWorld:
    return SyntheticWorld()


@pytest.fixture(scope="module")
def queries(world: SyntheticWorld) -> SyntheticQueries:
    return world.sample_queries(1000, seed=3)


def cost_weights(world: SyntheticWorld, queries: SyntheticQueries) -> list[float]:
    top = 2 / float(np.median(world.expected_cost(queries)))
    return [0.0, *np.geomspace(top / 300, top, 6).tolist()]


@each_kind
def test_a_seed_decides_everything(kind: LogKind) -> None:
    first = KINDS[kind](SyntheticWorld(seed=1), 5)
    again = KINDS[kind](SyntheticWorld(seed=1), 5)
    assert first.table.equals(again.table)
    for other in (KINDS[kind](SyntheticWorld(seed=1), 6), KINDS[kind](SyntheticWorld(seed=2), 5)):
        assert not first.table.equals(other.table)


def test_kinds_of_one_seed_share_their_queries(world: SyntheticWorld) -> None:
    grid, randomised = world.grid_logs(60, 4), world.randomised_logs(60, 4)
    assert set(grid.codes("query").values) == set(randomised.codes("query").values)
    assert not set(grid.codes("run_id").values) & set(randomised.codes("run_id").values)


def test_texts_are_distinct_and_show_domain_and_level(queries: SyntheticQueries) -> None:
    assert len(set(queries.texts)) == len(queries) == 1000
    assert sorted(queries.ids) == list(queries.ids)
    assert set(queries.domain) == set(range(len(DOMAINS)))
    assert set(queries.level) == set(range(LEVELS))
    assert not any("{" in text or "}" in text for text in queries.texts)
    words = [queries.words[queries.level == level].mean() for level in range(LEVELS)]
    assert words == sorted(words)


@each_kind
def test_the_kind_is_told_from_the_logs(world: SyntheticWorld, kind: LogKind) -> None:
    assert detect_kind(KINDS[kind](world, 0)).kind is kind


@each_kind
def test_everything_is_labelled_synthetic(world: SyntheticWorld, kind: LogKind) -> None:
    stats = log_stats(KINDS[kind](world, 0))
    assert all(name.startswith("synthetic-") for name in (*stats.datasets, *stats.models))
    assert set(stats.score_sources) == {"synthetic"}
    assert set(stats.tasks) == set(DOMAINS)
    assert stats.cost_known == stats.tokens_known == stats.score_known == 1.0


@each_kind
def test_written_worlds_read_back_without_rejects(kind: LogKind, tmp_path: Path) -> None:
    written = write_world(tmp_path / "new", kind, queries=40, seed=2)
    logs = read_logs(tmp_path / "new", strict=True)
    assert written.logs.name == f"synthetic-{kind}.parquet"
    assert logs.report.rows_kept == logs.report.rows_read == len(logs) > 0
    assert logs.report.duplicates == 0
    assert sorted(p.name for p in written.logs.parent.iterdir()) == [
        "catalog.yaml",
        written.logs.name,
    ]
    catalog, new = Catalog.load(written.catalog).with_names_from(logs.plan_index().plans)
    assert new == ()
    for record in logs:
        assert record.usage.cost_usd == pytest.approx(
            sum(
                catalog.cost_usd(agent.model, usage.prompt_tokens, usage.completion_tokens) or 0
                for agent, usage in zip(record.plan.agents, record.agent_usage, strict=True)
            )
        )
        tokens = [u.prompt_tokens or 0 for u in record.agent_usage]
        assert record.usage.prompt_tokens == sum(tokens)
        assert min(tokens) > 0


def test_a_written_world_holds_the_rows_of_the_sampler(
    world: SyntheticWorld, tmp_path: Path
) -> None:
    written = write_world(tmp_path, "randomised", queries=50, seed=9, policy="epsilon")
    expected = list(world.randomised_logs(50, 9, policy="epsilon"))
    assert list(read_logs(written.logs)) == expected


def test_an_unknown_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="expected grid, randomised, observational, got 'dense'"):
        write_world(tmp_path, "dense", queries=5, seed=0)
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_the_way_is_refused(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("mine")
    with pytest.raises(ConfigError, match="taken: cannot be written"):
        write_world(tmp_path / "taken", "grid", queries=5, seed=0)


def test_a_grid_covers_every_query_and_plan(world: SyntheticWorld) -> None:
    outcomes = Outcomes.from_logs(world.grid_logs(50, 0))
    assert outcomes.plans == world.plans
    assert np.isfinite(outcomes.dense("score")).all()
    assert outcomes.query_ids == world.sample_queries(50, 0).ids
    some = world.plans[3:6]
    assert Outcomes.from_logs(world.grid_logs(50, 0, plans=some)).plans == some


@pytest.mark.parametrize("policy", ["uniform", "epsilon"])
def test_propensities_are_those_of_the_draws(world: SyntheticWorld, policy: str) -> None:
    n = 4000
    queries = world.sample_queries(n, 1)
    chances = world.propensities(queries, policy)  # type: ignore[arg-type]
    np.testing.assert_allclose(chances.sum(1), 1)
    logs = world.randomised_logs(n, 1, policy=policy, runs_per_query=2)  # type: ignore[arg-type]
    index = logs.plan_index()
    plan = world.positions(index.plans)[index.row_plan]
    np.testing.assert_array_equal(logs.numbers("propensity"), chances[np.repeat(range(n), 2), plan])
    drawn = np.bincount(plan, minlength=len(world.plans)) / (2 * n)
    error = np.sqrt(chances.mean(0) / (2 * n))
    assert (np.abs(drawn - chances.mean(0)) < 4 * error).all()


def test_stage_propensities_multiply_to_the_plans_own(world: SyntheticWorld) -> None:
    for record in world.randomised_logs(200, 2, policy="epsilon"):
        stages = record.stage_propensities
        assert stages is not None
        assert len(stages["roles"]) == len(stages["models"]) == len(record.plan.agents)
        product = stages["topology"] * stages["count"]
        product *= np.prod(stages["roles"]) * np.prod(stages["models"])
        assert product == pytest.approx(record.propensity)


def test_stage_propensities_are_marginals_of_the_policy(world: SyntheticWorld) -> None:
    chances = np.random.default_rng(0).dirichlet(np.ones(len(world.plans)))
    stages = stage_propensities(world.plans, chances)
    for topology in {plan.topology for plan in world.plans}:
        same = [i for i, plan in enumerate(world.plans) if plan.topology == topology]
        assert {round(stages[i]["topology"], 12) for i in same} == {
            round(float(chances[same].sum()), 12)
        }
    never = stage_propensities(world.plans, np.eye(len(world.plans))[0])
    assert never[0]["topology"] == 1
    assert never[1] == {}


def test_observational_logs_hide_how_plans_were_picked(world: SyntheticWorld) -> None:
    queries = world.sample_queries(3000, 0)
    logs = world.observational_logs(3000, 0)
    assert not np.isfinite(logs.numbers("propensity")).any()
    assert logs.table.column("stage_propensities").null_count == len(logs)
    index = logs.plan_index()
    assert len(index.plans) < len(world.plans) / 2
    # Confounded: at the same level, dearer plans met what is harder than it reads.
    cost = world.expected_cost(queries)
    plan = world.positions(index.plans)[index.row_plan]
    dear = cost[np.arange(3000), plan] > np.median(cost)
    for level in range(LEVELS):
        residual = queries.residual[queries.level == level]
        at = dear[queries.level == level]
        assert residual[at].mean() - residual[~at].mean() > 0.3


def test_expected_scores_and_costs_are_exact() -> None:
    """Against the means of logged runs, by domain and by level, within 4 standard errors.

    The hidden residual is large here, so that forgetting to integrate it out would show.
    """
    world = SyntheticWorld(residual_deviation=2.0)
    queries = world.sample_queries(4000, 7)
    outcomes = Outcomes.from_logs(world.grid_logs(4000, 7))
    surprise = {
        "score": outcomes.dense("score") - world.expected_score(queries),
        "cost": outcomes.dense("cost") - world.expected_cost(queries),
    }
    for name, difference in surprise.items():
        for group in (queries.domain, queries.level):
            for value in np.unique(group):
                part = difference[group == value]  # (n, P)
                error = part.std(0) / np.sqrt(len(part))
                assert (np.abs(part.mean(0)) < 4 * error).all(), (name, value)
    at_average = SyntheticWorld(residual_deviation=0.0).expected_score(queries)
    bias = (outcomes.dense("score") - at_average)[queries.level == 0].mean(0)
    assert (bias < -0.05).sum() > len(world.plans) / 2


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_text_is_worth_reading_at_every_cost_weight(seed: int) -> None:
    world = SyntheticWorld(seed)
    queries = world.sample_queries(1500, 8)
    for weight in cost_weights(world, queries):
        fixed = world.value(queries, world.best_fixed_plan(weight), weight)
        best = world.value(queries, world.best_text_policy(queries, weight), weight)
        assert best - fixed >= 0.03
        sampled = np.random.default_rng(0).integers(len(world.plans), size=len(queries))
        assert world.value(queries, sampled, weight) < best


def test_the_best_plan_crosses_over(world: SyntheticWorld, queries: SyntheticQueries) -> None:
    """By domain, by level, by cost weight; and a team harms where a single agent was right."""
    free, dear, *_ = (
        world.best_text_policy(queries, w) for w in (0.0, 5 * world.middle_cost_weight())
    )
    code_by_level = {int(free[queries.level == level][0]) for level in range(LEVELS)}
    by_domain = {int(free[queries.domain == d][0]) for d in range(len(DOMAINS))}
    assert len(code_by_level) > 1
    assert len(by_domain) > 1
    assert (free != dear).mean() > 0.5
    teams = np.array([len(plan.agents) > 1 for plan in world.plans])
    assert teams[dear].mean() < teams[free].mean() < 0.9
    single = [
        i for i, plan in enumerate(world.plans) if str(plan) == "io(assistant@synthetic-large)"
    ]
    debate = [
        i
        for i, plan in enumerate(world.plans)
        if plan.topology == "debate" and plan.agents[0].model == "synthetic-large"
    ]
    easy = (queries.domain == list(DOMAINS).index("knowledge")) & (queries.level == 0)
    score = world.expected_score(queries)[easy]
    assert (score[:, single] > score[:, debate] + 0.05).all()


def test_a_foreign_plan_is_refused(world: SyntheticWorld) -> None:
    plan = replace(world.plans[0], topology="orchestrate")
    with pytest.raises(ConfigError, match="is not one of its plans"):
        world.grid_logs(5, 0, plans=[plan])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epsilon": 0.0}, "epsilon: expected above 0 to 1, got 0.0"),
        ({"residual_deviation": -1.0}, "residual_deviation: expected 0 to 10, got -1.0"),
        ({"seed": -1}, "seed: expected at least 0"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        SyntheticWorld(**settings).sample_queries(1, 0)  # type: ignore[arg-type]


def test_an_unknown_policy_and_no_queries_are_refused(world: SyntheticWorld) -> None:
    with pytest.raises(ConfigError, match="expected uniform or epsilon, got 'greedy'"):
        world.randomised_logs(5, 0, policy="greedy")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="queries: expected at least 1, got 0"):
        world.grid_logs(0, 0)


def test_stages_are_json(world: SyntheticWorld) -> None:
    text = world.randomised_logs(1, 0).table.column("stage_propensities")[0].as_py()
    assert set(json.loads(text)) == {"topology", "count", "roles", "models"}
