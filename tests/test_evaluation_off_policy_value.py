"""A policy's value from randomised logs: intervals against known truth, verdicts, refusals."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from tests.off_policy_world import Drawn, Logging, OffPolicyWorld

from masrouter.errors import EvaluationError
from masrouter.evaluation.off_policy.policy_value import PolicyValue, estimate_policy
from masrouter.evaluation.off_policy.support import not_identified, plan_probe
from masrouter.outcomes import Outcomes
from masrouter.types import Agent, Plan
from masrouter_train.synthetic import SyntheticWorld

COST_WEIGHT = 20.0


def value(drawn: Drawn, **options: object) -> PolicyValue:
    settings = {"embeddings": drawn.embeddings, "cost_weight": COST_WEIGHT, "resamples": 200}
    return estimate_policy(drawn.rounds, drawn.chosen, **{**settings, **options})


@pytest.fixture(scope="module")
def few() -> OffPolicyWorld:
    return OffPolicyWorld(few=True)


@pytest.fixture(scope="module")
def many() -> OffPolicyWorld:
    return OffPolicyWorld(few=False)


@pytest.fixture(scope="module")
def one(few: OffPolicyWorld) -> tuple[Drawn, PolicyValue]:
    drawn = few.draw(600, 0, "uniform")
    return drawn, value(drawn)


def test_intervals_cover_the_truth_with_few_plans(few: OffPolicyWorld) -> None:
    truth = few.truth(COST_WEIGHT)[2]
    values = [value(few.draw(300, seed, "uniform")) for seed in range(60)]
    levels = [v.verdict.level for v in values]
    assert levels.count("identified") >= 54
    for name in ("ips", "snips", "dr", "switch-dr", "stagewise-dr"):
        covered = sum(truth in v.estimates[name].utility.interval for v in values if v.estimates)
        assert covered >= 51, name  # at 95 %, chance leaves fewer in 3 of 1000 cases

    def error(name: str) -> float:
        return float(np.mean([(v.estimates[name].utility.value - truth) ** 2 for v in values]))

    assert error("dr") < error("ips")


@pytest.mark.slow
@pytest.mark.parametrize("draws", [1, 4])
def test_intervals_cover_the_truth_with_many_plans_and_repeated_draws(
    many: OffPolicyWorld, draws: int
) -> None:
    truth = many.truth(COST_WEIGHT)[2]
    values = [value(many.draw(6000 // draws, seed, "uniform", draws=draws)) for seed in range(60)]
    for name in ("ips", "snips", "dr", "switch-dr", "stagewise-dr"):
        covered = sum(truth in v.estimates[name].utility.interval for v in values if v.estimates)
        assert covered >= 51, name


@pytest.mark.parametrize("logging", ["one topology missing", "one task fixed"])
@pytest.mark.parametrize("seed", range(3))
def test_without_support_there_is_no_estimate(
    few: OffPolicyWorld, logging: Logging, seed: int
) -> None:
    made = value(few.draw(900, seed, logging))
    assert made.verdict.level == "not identified"
    assert made.estimates == {}
    assert made.best is None
    assert made.difference is None
    assert made.verdict.support_share < 0.75
    assert made.verdict.probe is not None
    assert made.verdict.probe.runs > 1000
    assert made.logged.score.value > 0  # what the logs do know


def test_never_taking_the_targets_plans_is_said_in_words(few: OffPolicyWorld) -> None:
    made = value(few.draw(900, 0, "one topology missing"))
    said = " ".join(made.verdict.reasons)
    assert "was never logged: its score there could be anything" in said
    assert "weights average" in said
    assert made.verdict.probe is not None
    assert made.verdict.probe.cost_usd is None  # nobody knows what a plan costs that never ran
    assert "cost unknown" in str(made.verdict.probe)


def test_few_matched_rounds_are_weak_and_fewer_are_nothing(many: OffPolicyWorld) -> None:
    weak = value(many.draw(1500, 1, "uniform"))
    assert weak.verdict.level == "weak"
    assert weak.best == "dr"
    assert "fewer than 50" in " ".join(weak.verdict.reasons)
    assert weak.verdict.probe is not None
    nothing = value(many.draw(200, 0, "uniform"))
    assert nothing.verdict.level == "not identified"
    assert nothing.estimates == {}


def test_where_whole_plans_are_too_rare_the_topology_still_has_a_value(
    many: OffPolicyWorld,
) -> None:
    """The value of the target's topologies, the rest drawn as in the logs."""
    drawn = [many.draw(400, seed, "uniform") for seed in range(20)]
    values = [value(d) for d in drawn]
    assert {v.verdict.level for v in values} <= {"not identified", "weak"}
    topology = np.array([plan.topology for plan in many.plans])
    truth = np.mean([many.success[k, topology == topology[t]].mean()
                     for k, t in enumerate(many.target)])  # fmt: skip
    covered = 0
    for v in values:
        first = v.prefixes[0]
        assert first.up_to == "topology"
        assert first.verdict.level == "identified"
        assert first.value is not None
        covered += truth in first.value.score.interval
    assert covered >= 16


def test_the_difference_is_target_minus_logged(one: tuple[Drawn, PolicyValue]) -> None:
    drawn, made = one
    assert made.difference is not None
    assert made.best == "dr"
    best = made.estimates["dr"]
    assert made.difference.score.value == pytest.approx(best.score.value - made.logged.score.value)
    assert best.cost is not None
    assert made.logged.cost is not None
    assert best.utility.value == pytest.approx(best.score.value - COST_WEIGHT * best.cost.value)
    assert made.logged.score.value == pytest.approx(drawn.rounds.score.mean())


def test_the_same_question_has_the_same_answer(one: tuple[Drawn, PolicyValue]) -> None:
    drawn, made = one
    again = value(drawn)
    assert again.estimates["dr"].utility.interval == made.estimates["dr"].utility.interval
    assert again.verdict == made.verdict
    by_plan = estimate_policy(
        drawn.rounds,
        [drawn.rounds.plans[i] for i in drawn.chosen],
        embeddings=drawn.embeddings,
        cost_weight=COST_WEIGHT,
        resamples=200,
    )
    assert by_plan.estimates["dr"].utility.value == made.estimates["dr"].utility.value


def test_a_plan_that_was_never_logged_can_share_a_topology_with_the_logs(
    many: OffPolicyWorld,
) -> None:
    drawn = many.draw(2000, 0, "uniform")
    new = Plan("chain", (Agent("assistant", "a"), Agent("critic", "never seen")))
    made = estimate_policy(
        drawn.rounds, [new] * 2000, embeddings=None, cost_weight=0.0, resamples=100
    )
    assert made.verdict.level == "not identified"
    assert [p.up_to for p in made.prefixes if p.value] == ["topology", "model 1"]
    unknown = estimate_policy(
        drawn.rounds, np.full(2000, -1), embeddings=None, cost_weight=0.0, resamples=100
    )
    assert unknown.verdict.support_share == 0.0
    assert unknown.prefixes == ()


def test_without_stage_propensities_there_is_no_stagewise_estimate(few: OffPolicyWorld) -> None:
    drawn = few.draw(300, 0, "uniform")
    made = value(replace(drawn, rounds=replace(drawn.rounds, stages=None)))
    assert "stagewise-dr" not in made.estimates
    assert made.prefixes == ()


def test_unknown_outcomes_are_counted_and_many_of_them_make_it_weak(few: OffPolicyWorld) -> None:
    drawn = few.draw(900, 0, "uniform")
    rounds = drawn.rounds

    def without(rows: np.ndarray) -> PolicyValue:
        score = np.where(rows, np.nan, rounds.score)
        return value(replace(drawn, rounds=replace(rounds, score=score, failed=rows)))

    rare = without(np.arange(900) % 90 == 0)
    assert rare.verdict.level == "identified"
    said = " ".join(rare.verdict.reasons)
    assert "10 of 900 rounds have no known outcome (10 ended in an error)" in said
    often = without(np.arange(900) % 5 == 0)
    assert often.verdict.level == "weak"


def test_propensities_that_are_too_small_are_found_out(few: OffPolicyWorld) -> None:
    drawn = few.draw(900, 0, "uniform")
    wrong = replace(drawn.rounds, propensity=drawn.rounds.propensity / 2, stages=None)
    made = value(replace(drawn, rounds=wrong))
    assert made.verdict.level == "not identified"
    assert "too small to be right" in " ".join(made.verdict.reasons)


def test_dr_and_snips_that_disagree_make_it_weak(few: OffPolicyWorld) -> None:
    """Propensities that are wrong by task, though weights average 1: SNIPS believes them."""
    drawn = few.draw(6000, 0, "uniform")
    rounds = drawn.rounds
    worst = few.success[np.arange(3), few.target].argmin()
    worst_name = ("code", "math", "knowledge")[worst]
    task = np.array(rounds.tasks)[rounds.query]
    propensity = rounds.propensity * np.where(task == worst_name, 0.6, 1.5)
    tilted = replace(rounds, propensity=propensity, stages=None)
    made = value(replace(drawn, rounds=tilted))
    assert made.verdict.level == "weak"
    assert "DR and SNIPS differ" in " ".join(made.verdict.reasons)


def test_unknown_costs_are_no_zero(few: OffPolicyWorld) -> None:
    drawn = few.draw(300, 0, "uniform")
    free = replace(drawn, rounds=replace(drawn.rounds, cost=np.full(300, np.nan)))
    with pytest.raises(EvaluationError, match="no two queries have a known cost"):
        value(free)
    made = value(free, cost_weight=0.0)
    assert made.logged.cost is None
    assert made.guess.cost is None
    assert made.estimates["dr"].cost is None
    assert made.estimates["dr"].utility.value == made.estimates["dr"].score.value


def test_a_cost_known_in_a_few_rounds_is_not_estimated(few: OffPolicyWorld) -> None:
    drawn = few.draw(600, 1, "uniform")
    cost = np.where(np.arange(600) < 20, drawn.rounds.cost, np.nan)
    made = value(replace(drawn, rounds=replace(drawn.rounds, cost=cost)), cost_weight=0.0)
    assert made.verdict.level == "identified"
    assert made.logged.cost is not None
    assert made.estimates["dr"].cost is None
    assert made.difference is not None
    assert made.difference.cost is None
    assert "known in 20 of 600 rounds: too few" in " ".join(made.notes)


def test_what_is_no_policy_is_refused(few: OffPolicyWorld) -> None:
    drawn = few.draw(100, 0, "uniform")
    cases = [
        (drawn.chosen[:5], "a plan for each of 100 queries, got 5"),
        (np.full(100, 4), "-1 to 3"),
        (np.full(100, 0.5), "whole numbers or plans"),
    ]
    for chosen, message in cases:
        with pytest.raises(EvaluationError, match=message):
            value(replace(drawn, chosen=chosen))
    with pytest.raises(EvaluationError, match="cost_weight: expected a number from 0 on"):
        value(drawn, cost_weight=float("nan"))
    unscored = replace(drawn, rounds=replace(drawn.rounds, score=np.full(100, np.nan)))
    with pytest.raises(EvaluationError, match="no round has a known score"):
        value(unscored)


def test_a_probes_size_follows_from_the_wanted_width_and_its_cost_from_known_costs() -> None:
    score = np.array([0.0, 1.0] * 50)  # variance 1/4
    cost = np.full(100, 0.01)
    probe = plan_probe(score, cost, 0.03, half_width=0.05)
    assert probe.runs == pytest.approx(2 * (1.96 / 0.05) ** 2 * 0.5, abs=2)
    assert probe.cost_usd == pytest.approx(probe.runs / 2 * 0.04)
    assert plan_probe(score, cost, None).cost_usd is None
    assert plan_probe(score, np.full(100, np.nan), 0.03).cost_usd is None
    with pytest.raises(EvaluationError, match="half_width"):
        plan_probe(score, cost, None, half_width=0.0)


def test_a_probe_of_the_said_size_reaches_the_said_width() -> None:
    rng = np.random.default_rng(0)
    probe = plan_probe((rng.random(500) < 0.7).astype(float), np.full(500, 0.01), 0.02)
    arms = rng.random(probe.runs) < 0.5
    scores = (rng.random(probe.runs) < np.where(arms, 0.75, 0.7)).astype(float)
    error = np.sqrt(scores[arms].var() / arms.sum() + scores[~arms].var() / (~arms).sum())
    assert 1.96 * error <= 0.021


def test_observational_logs_identify_nothing_and_get_a_probe() -> None:
    outcomes = Outcomes.from_logs(SyntheticWorld(0).observational_logs(200, 0))
    chosen = np.zeros(outcomes.n_queries, dtype=np.int64)
    verdict = not_identified(outcomes, chosen)
    assert verdict.level == "not identified"
    assert "no propensities" in verdict.reasons[0]
    assert verdict.effective_sample_size is None
    assert verdict.support_share == 1.0
    assert verdict.probe is not None
    assert verdict.probe.cost_usd is not None
    unknown = not_identified(outcomes, np.full(outcomes.n_queries, -1))
    assert unknown.support_share == 0.0
    assert unknown.probe is not None
    assert unknown.probe.cost_usd is None
    with pytest.raises(EvaluationError, match="a plan for each of 200 queries"):
        not_identified(outcomes, chosen[:3])
