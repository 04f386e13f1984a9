"""The learning curve of a model that joins after training: what is hidden, and what probes buy."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from masrouter.encoder import HashingEncoder
from masrouter.errors import EvaluationError
from masrouter.evaluation.cold_start import ColdStart, Fit, cold_start
from masrouter.evaluation.cold_start_report import cold_start_json, cold_start_markdown
from masrouter.evaluation.learners import Embeddings
from masrouter.logs import LogKind
from masrouter.outcomes import Outcomes
from masrouter.router import Router
from masrouter.types import Agent, Plan
from masrouter_train.config import TrainConfig
from masrouter_train.fit import TrainingData, fit_outcomes

OutcomesOf = Callable[..., Outcomes]
MODELS = ("large", "medium", "small", "newcomer")
TEAM = Plan("debate", (Agent(None, "large"), Agent(None, "newcomer")))
ODD = Plan("duel", (Agent(None, "newcomer"),))
PLANS = (*(Plan("io", (Agent(None, model),)) for model in MODELS), TEAM, ODD)
N = 160


@pytest.fixture(scope="module")
def outcomes(outcomes_of: OutcomesOf) -> Outcomes:
    """The newcomer is wrong on nearly everything, which its name does not say."""
    rng = np.random.default_rng(0)
    chance = np.array([0.9, 0.65, 0.45, 0.05, 0.4, 0.1])
    score = (rng.random((N, len(PLANS))) < chance).astype(float)
    cost = np.array([4e-3, 2e-3, 1e-3, 1e-3, 5e-3, 1e-3]) * rng.uniform(0.8, 1.2, (N, len(PLANS)))
    return outcomes_of(score, cost, plans=PLANS, texts=[f"question number {i}" for i in range(N)])


class Spy:
    """Trains, and remembers on what."""

    def __init__(self, config: TrainConfig, encoder: HashingEncoder) -> None:
        self.config = replace(config, controller=replace(config.controller, enabled=False))
        self.encoder = encoder
        self.trained: list[Outcomes] = []

    def __call__(
        self, train: Outcomes, embeddings: Embeddings, weights: tuple[float, ...], seed: int
    ) -> Router:
        self.trained.append(train)
        return fit_outcomes(
            TrainingData(train, embeddings), replace(self.config, seed=seed),
            encoder=self.encoder, cost_weights=weights,
        )  # fmt: skip


@pytest.fixture(scope="module")
def spy(config: TrainConfig, encoder: HashingEncoder) -> Spy:
    return Spy(config, encoder)


def curve(outcomes: Outcomes, fit: Fit, encoder: HashingEncoder) -> ColdStart:
    (result,) = cold_start(
        outcomes, encoder.encode(outcomes.queries), fit,
        models=["newcomer"], probes=(64, 0, 8), folds=2, draws=2, cost_weights=(0.0, 50.0),
    )  # fmt: skip
    return result


@pytest.fixture(scope="module")
def result(outcomes: Outcomes, spy: Spy, encoder: HashingEncoder) -> ColdStart:
    return curve(outcomes, spy, encoder)


def test_training_sees_neither_the_model_nor_the_held_out_queries(
    result: ColdStart, spy: Spy
) -> None:
    everything, without = spy.trained[0::2], spy.trained[1::2]
    assert all(train.n_plans == len(PLANS) for train in everything)
    for train in without:
        assert all("newcomer" not in plan.models for plan in train.plans)
    for trained in (everything, without):
        assert [train.n_queries for train in trained] == [N // 2, N // 2]
        assert not set(trained[0].query_ids) & set(trained[1].query_ids)


def test_stages_go_from_nothing_to_everything(result: ColdStart) -> None:
    assert [point.name for point in result.points] == [
        "without", "0 probes", "8 probes", "64 probes", "trained with it",
    ]  # fmt: skip
    assert [point.probes for point in result.points] == [None, 0, 8, 64, None]
    first = result.points[0]
    assert (first.squared_error, first.log_loss, first.plan_error) == (None, None, None)
    assert first.gain.mean == 0.0
    assert first.taken == (0.0, 0.0)
    assert result.plans == (PLANS[3],)
    assert any("2 plans of newcomer hold another name" in note for note in result.notes)


def test_probes_undo_what_a_description_promised(result: ColdStart) -> None:
    errors = [point.squared_error.mean for point in result.points if point.squared_error]
    assert errors[0] > 0.3  # taken for a model like the others
    assert errors == sorted(errors, reverse=True)
    assert errors[2] < 0.6 * errors[0]
    gaps = [point.plan_error for point in result.points[1:] if point.plan_error is not None]
    assert gaps == sorted(gaps, reverse=True)
    for point in result.points:
        assert point.gain.interval.low <= point.gain.mean <= point.gain.interval.high
    assert result.points[3].taken == (0.0, 0.0)


def test_the_same_seed_gives_the_same_curve(
    result: ColdStart, outcomes: Outcomes, spy: Spy, encoder: HashingEncoder
) -> None:
    assert curve(outcomes, spy, encoder) == result


def test_the_report_says_every_stage(result: ColdStart) -> None:
    text = cold_start_markdown([result])
    assert text.startswith("**newcomer joins after training (1 plans)**")
    for start in ("| without |", "| description |", "| 64 probes |", "| trained with it |"):
        assert sum(line.startswith(start) for line in text.splitlines()) == 1
    (data,) = json.loads(cold_start_json([result]))
    assert [point["probes"] for point in data["points"]] == [None, 0, 8, 64, None]


def test_what_cannot_be_answered_is_refused(
    outcomes: Outcomes, spy: Spy, encoder: HashingEncoder
) -> None:
    x = encoder.encode(outcomes.queries)
    refused: tuple[tuple[dict[str, Any], str], ...] = (
        ({"models": ["nobody"]}, "model 'nobody' is in no plan"),
        ({"probes": (1000,)}, "whole numbers from 0 to 512"),
        ({"probes": ()}, "probes: expected"),
        ({"probes": (100,), "models": ["newcomer"], "folds": 2}, "100 probes asked for, .* has 80"),
        ({"draws": 0}, "draws: expected at least 1"),
    )
    for options, why in refused:
        with pytest.raises(EvaluationError, match=why):
            cold_start(outcomes, x, spy, **options)
    with pytest.raises(EvaluationError, match="in every plan"):
        cold_start(outcomes.plans_at([3, 4, 5]), x, spy, models=["newcomer"])
    with pytest.raises(EvaluationError, match="none can be added by itself"):
        cold_start(outcomes.plans_at([0, 1, 5]), x, spy, models=["newcomer"])
    with pytest.raises(EvaluationError, match="grid logs"):
        cold_start(replace(outcomes, kind=LogKind.RANDOMISED), x, spy)
    with pytest.raises(EvaluationError, match="embeddings: expected"):
        cold_start(outcomes, x[:-1], spy)
