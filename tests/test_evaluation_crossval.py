"""Cross-validation, its summary and its report, through the public functions."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from masrouter.errors import EvaluationError
from masrouter.evaluation.baselines import (
    BEST_FIXED,
    CHEAPEST,
    ORACLE,
    BestFixedPlan,
    BestSingleModel,
    CheapestPlan,
    default_baselines,
)
from masrouter.evaluation.crossval import (
    cross_validate,
    default_cost_weights,
    leave_one_dataset_out,
    leave_one_model_out,
    split_queries,
)
from masrouter.evaluation.learners import Chooser, Queries
from masrouter.evaluation.predictors import Logistic, Ridge
from masrouter.evaluation.report import print_report, to_json, to_markdown
from masrouter.evaluation.summary import Evaluation, summarise
from masrouter.logs import LogKind
from masrouter.outcomes import Outcomes
from masrouter.types import Agent, Plan

SIZES = [1, 1, 3, 2]


def world(n: int = 90, seed: int = 0, missing: float = 0.0) -> tuple[Outcomes, np.ndarray]:
    """Two domains; plans 0 and 1 are good at one each, the teams 2 and 3 at both, for more."""
    rng = np.random.default_rng(seed)
    side = rng.integers(0, 2, n)
    x = rng.normal(size=(n, 6)) * 0.3
    x[:, 0] += np.where(side == 1, 1.0, -1.0)
    flat = np.full(n, 0.8)
    chance = np.stack([0.2 + 0.6 * side, 0.8 - 0.6 * side, flat, flat - 0.1], axis=1)
    score = (rng.random((n, 4)) < chance).astype(np.float64)
    cost = np.array([0.001, 0.0012, 0.01, 0.006]) * rng.lognormal(0, 0.3, (n, 4))
    keep = rng.random((n, 4)) >= missing
    query, plan = np.nonzero(keep)
    return Outcomes(
        query_ids=tuple(f"q{i:04d}" for i in range(n)),
        queries=tuple(f"{'long ' * int(s)}question {i}" for i, s in enumerate(side)),
        datasets=tuple("left" if s else "right" for s in side),
        tasks=(None,) * n,
        plans=tuple(Plan("chain", (Agent(None, f"m{p}"),) * size) for p, size in enumerate(SIZES)),
        query=query,
        plan=plan,
        score=score[keep],
        cost=cost[keep],
        prompt_tokens=np.full(len(query), np.nan),
        completion_tokens=np.full(len(query), np.nan),
        propensity=np.full(len(query), np.nan),
        runs=np.ones(len(query), dtype=np.int64),
        kind=LogKind.GRID,
        why="made by hand",
    ), x.astype(np.float32)


@dataclass
class Spy:
    """Chooses the first available plan, and remembers what it was shown."""

    name: str = "spy"
    trained: list[set[str]] = field(default_factory=list)
    asked: list[set[str]] = field(default_factory=list)
    plans: list[set[int]] = field(default_factory=list)

    def fit(
        self, train: Outcomes, embeddings: np.ndarray, *, cost_weights: Sequence[float], seed: int
    ) -> Chooser:
        assert len(embeddings) == train.n_queries
        assert train.n_plans == 4
        self.trained.append(set(train.queries))
        self.plans.append(set(train.plan.tolist()))
        return self

    def choose(self, queries: Queries, cost_weight: float, available: np.ndarray) -> np.ndarray:
        assert len(queries.embeddings) == len(queries.texts) == len(available)
        self.asked.append(set(queries.texts))
        return available.argmax(axis=1)


@dataclass(frozen=True)
class Stubborn:
    """Always chooses the same plan, available or not."""

    plan: int
    name: str = "stubborn"

    def fit(self, train: Outcomes, embeddings: np.ndarray, **_: object) -> Stubborn:
        return self

    def choose(self, queries: Queries, cost_weight: float, available: np.ndarray) -> np.ndarray:
        return np.full(len(available), self.plan)


@pytest.fixture(scope="module")
def evaluation() -> Evaluation:
    data, x = world(150, missing=0.1)
    return summarise(
        cross_validate(data, x, default_baselines(), folds=3, seeds=(0, 1)),
        data="two domains",
        synthetic=True,
    )


def test_folds_are_even_and_depend_on_ids_alone() -> None:
    ids = [f"q{i}" for i in range(23)]
    fold = split_queries(ids, 5, seed=1)
    assert sorted(np.bincount(fold)) == [4, 4, 5, 5, 5]
    order = np.random.default_rng(0).permutation(23)
    np.testing.assert_array_equal(split_queries([ids[i] for i in order], 5, seed=1), fold[order])
    assert (split_queries(ids, 5, seed=2) != fold).any()
    twice = split_queries(ids + ids, 5, seed=1)
    np.testing.assert_array_equal(twice[:23], twice[23:])
    with pytest.raises(EvaluationError, match="folds: expected 2 to 23"):
        split_queries(ids, 24, seed=0)


def test_default_cost_weights_follow_the_median_cost() -> None:
    data, _ = world()
    weights = default_cost_weights(data)
    assert len(weights) == 7
    assert weights[0] == 0.0
    assert weights[-1] == pytest.approx(2 / np.median(data.cost))
    assert weights[1] == pytest.approx(weights[-1] / 300)
    assert default_cost_weights(replace(data, cost=data.cost * np.nan)) == (0.0,)


def test_training_never_sees_a_test_query() -> None:
    data, x = world()
    spy = Spy()
    cross_validate(data, x, [spy], folds=3, seeds=(0, 1), cost_weights=(0.0, 1.0))
    assert len(spy.trained) == 6
    for unit, trained in enumerate(spy.trained):
        asked = set.union(*spy.asked[2 * unit : 2 * unit + 2])
        assert not trained & asked
        assert trained | asked == set(data.queries)


def test_choices_are_looked_up_and_the_oracle_is_never_beaten() -> None:
    data, x = world(missing=0.2)
    cv = cross_validate(data, x, [BestFixedPlan(), Ridge(), Logistic()], folds=3, seeds=(0,))
    score, cost = data.dense("score"), data.dense("cost")
    chosen = cv.chosen[cv.index("ridge"), 0, 3]
    rows = np.flatnonzero(chosen >= 0)
    np.testing.assert_array_equal(cv.score("ridge")[0, 3, rows], score[rows, chosen[rows]])
    weight = cv.cost_weights[3]
    np.testing.assert_allclose(
        cv.utility("ridge")[0, 3, rows],
        score[rows, chosen[rows]] - weight * cost[rows, chosen[rows]],
    )
    for name in cv.learners:
        gap = cv.utility(ORACLE) - cv.utility(name)
        assert (gap[np.isfinite(gap)] >= 0).all()


def test_queries_without_a_known_outcome_are_left_out_and_counted() -> None:
    data, x = world()
    cost = data.cost.copy()
    cost[data.query < 7] = np.nan
    score = data.score.copy()
    score[data.query == 50] = np.nan
    cv = cross_validate(
        replace(data, cost=cost, score=score), x, [BestFixedPlan()], seeds=(0,),
        cost_weights=(0.0, 10.0),
    )  # fmt: skip
    chosen = cv.chosen[0, 0]
    assert np.flatnonzero(chosen[0] < 0).tolist() == [50]
    assert np.flatnonzero(chosen[1] < 0).tolist() == [*range(7), 50]
    assert any("10: 8 of 90 queries have no plan" in note for note in cv.notes)
    at = summarise(cv).learner(BEST_FIXED).at
    assert [result.queries for result in at] == [89, 82]
    assert at[0].cost is None


def test_a_learner_that_does_not_apply_is_left_out_with_a_note() -> None:
    data, x = world()
    teams = replace(data, plans=tuple(Plan(f"t{p}", (Agent(None, "m"),) * 2) for p in range(4)))
    cv = cross_validate(teams, x, [BestFixedPlan(), BestSingleModel()], seeds=(0,))
    assert cv.learners == (BEST_FIXED, ORACLE)
    assert any("best single model: no plan with a single agent" in note for note in cv.notes)


def test_a_finished_unit_is_not_done_again(tmp_path: Path) -> None:
    data, x = world()
    file = tmp_path / "work" / "units.jsonl"
    learners = [BestFixedPlan(), Ridge()]
    first = cross_validate(data, x, learners, folds=3, seeds=(0,), checkpoint_file=file)
    lines = file.read_text().splitlines(keepends=True)
    assert len(lines) == 1 + 6
    file.write_text("".join(lines[:4]) + lines[4][:25])  # cut off while writing
    spy = Spy()
    again = cross_validate(data, x, [*learners, spy], folds=3, seeds=(0,), checkpoint_file=file)
    np.testing.assert_array_equal(again.chosen[[0, 1, 3]], first.chosen)
    np.testing.assert_array_equal(again.expected[1], first.expected[1])
    assert len(spy.trained) == 3
    cross_validate(data, x, [*learners, spy], folds=3, seeds=(0,), checkpoint_file=file)
    assert len(spy.trained) == 3
    with pytest.raises(EvaluationError, match=r"units.jsonl:1: .* other data"):
        cross_validate(data, x, learners, folds=4, seeds=(0,), checkpoint_file=file)
    with pytest.raises(EvaluationError, match="other data"):
        cross_validate(data, -x, learners, folds=3, seeds=(0,), checkpoint_file=file)
    file.write_text(lines[0].replace('"version": 2', '"version": 1') + lines[1])
    with pytest.raises(EvaluationError, match=r"units.jsonl:1: .* version 1; .* version 2"):
        cross_validate(data, x, learners, folds=3, seeds=(0,), checkpoint_file=file)
    file.write_text(lines[0] + '{"seed": 0}\n')
    with pytest.raises(EvaluationError, match=r"units.jsonl:2: not a line"):
        cross_validate(data, x, learners, folds=3, seeds=(0,), checkpoint_file=file)


@dataclass
class Reader(Spy):
    """Says of every other query that it is `right`."""

    name: str = "reader"

    def predicted_domains(self, queries: Queries) -> tuple[str, ...]:
        return tuple("right" if int(text.split()[-1]) % 2 else "rest" for text in queries.texts)


@dataclass
class Forgetful(Spy):
    name: str = "forgetful"

    def predicted_domains(self, queries: Queries) -> tuple[str, ...]:
        return ("right",)


def test_predicted_domains_are_kept_and_taken_up_again(tmp_path: Path) -> None:
    data, x = world()
    file = tmp_path / "units.jsonl"
    first = cross_validate(
        data, x, [Reader(), BestFixedPlan()], folds=3, seeds=(0, 1), checkpoint_file=file
    )
    assert list(first.domains) == ["reader"]
    told = first.domains["reader"]
    assert told.shape == (2, 90)
    assert told[:, 3].tolist() == ["right", "right"]
    assert told[:, 4].tolist() == ["rest", "rest"]
    reader = Reader()
    again = cross_validate(
        data, x, [reader, BestFixedPlan()], folds=3, seeds=(0, 1), checkpoint_file=file
    )
    assert reader.trained == []
    np.testing.assert_array_equal(again.domains["reader"], told)
    with pytest.raises(EvaluationError, match="forgetful: expected 45 predicted domains, got 1"):
        cross_validate(data, x, [Forgetful()], folds=2, seeds=(0,))


def test_progress_is_told_for_every_unit() -> None:
    data, x = world()
    told: list[tuple[int, int, str]] = []
    cross_validate(
        data, x, [BestFixedPlan(), CheapestPlan()], folds=2, seeds=(0,),
        progress=lambda *what: told.append(what),
    )  # fmt: skip
    assert [(done, total) for done, total, _ in told] == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert told[0][2] == f"seed 0 fold 0: {BEST_FIXED}"


def test_leaving_a_dataset_out_trains_on_the_others() -> None:
    data, x = world()
    spy = Spy()
    cv = leave_one_dataset_out(data, x, [spy], cost_weights=(0.0,))
    for trained, asked, name in zip(spy.trained, spy.asked, ["left", "right"], strict=True):
        of = dict(zip(data.queries, data.datasets, strict=True))
        assert {of[text] for text in asked} == {name}
        assert name not in {of[text] for text in trained}
    assert (cv.chosen >= 0).all()
    with pytest.raises(EvaluationError, match="needs two of them"):
        leave_one_dataset_out(replace(data, datasets=("one",) * 90), x, [spy])


def test_leaving_a_model_out_hides_its_plans_in_training_only() -> None:
    data, x = world()
    spy = Spy()
    results = leave_one_model_out(
        data, x, [spy, BestFixedPlan(), Ridge()], folds=2, cost_weights=(0.0,)
    )
    assert list(results) == ["m0", "m1", "m2", "m3"]
    assert spy.plans == [{0, 1, 2, 3} - {p} for p in range(4) for _ in range(2)]
    cv = results["m2"]
    assert (cv.chosen[cv.index("spy")] == 0).all()
    assert not (cv.chosen[[cv.index(BEST_FIXED), cv.index("ridge")]] == 2).any()
    assert (cv.chosen[cv.index(ORACLE)] == 2).any()
    with pytest.raises(EvaluationError, match="'m9' is in no plan"):
        leave_one_model_out(data, x, [spy], models=["m9"])
    alone = replace(data, plans=tuple(Plan(f"t{p}", (Agent(None, "m"),)) for p in range(4)))
    with pytest.raises(EvaluationError, match="every plan has it"):
        leave_one_model_out(alone, x, [spy])


def test_wrong_questions_are_refused() -> None:
    data, x = world(missing=0.3)
    with pytest.raises(EvaluationError, match=r"grid logs only; these are randomised"):
        cross_validate(replace(data, kind=LogKind.RANDOMISED), x, [BestFixedPlan()])
    with pytest.raises(EvaluationError, match=r"embeddings: expected \(90, E\)"):
        cross_validate(data, x[:5], [BestFixedPlan()])
    with pytest.raises(EvaluationError, match="embeddings: expected finite"):
        cross_validate(data, x * np.nan, [BestFixedPlan()])
    with pytest.raises(EvaluationError, match="names must differ"):
        cross_validate(data, x, [BestFixedPlan(), BestFixedPlan()])
    with pytest.raises(EvaluationError, match="expected finite numbers >= 0"):
        cross_validate(data, x, [BestFixedPlan()], cost_weights=(-1.0,))
    free = replace(data, cost=data.cost * np.nan)
    with pytest.raises(EvaluationError, match="known cost"):
        cross_validate(free, x, [BestFixedPlan()], cost_weights=(1.0,))
    for plan in (0, 4):
        with pytest.raises(EvaluationError, match=f"stubborn: chose plan {plan} for query"):
            cross_validate(data, x, [Stubborn(plan)], folds=2, seeds=(0,))  # type: ignore[list-item]
    cv = cross_validate(data, x, [CheapestPlan()], folds=2, seeds=(0,))
    with pytest.raises(EvaluationError, match="must be among the learners"):
        summarise(cv)


def test_the_summary_holds_together(evaluation: Evaluation) -> None:
    names = [result.name for result in evaluation.learners]
    assert names[0] == ORACLE
    assert set(names) == {learner.name for learner in default_baselines()} | {ORACLE}
    fixed, oracle = evaluation.learner(BEST_FIXED), evaluation.learner(ORACLE)
    assert fixed.difference == 0.0
    assert fixed.interval.low == fixed.interval.high == 0.0
    assert [at.oracle_gap_share for at in oracle.at] == pytest.approx([1.0] * 7)
    for result in evaluation.learners:
        assert result.difference in result.interval
        for at in result.at:
            assert at.difference in at.interval
            assert at.cost is not None
            assert at.utility == pytest.approx(at.score - at.cost_weight * at.cost)
        assert result.aiq is not None
        assert 0.0 <= result.aiq <= 1.0
        assert len(result.curve) == 7
    assert evaluation.learner("ridge").difference > 0.0
    assert evaluation.learner("ridge").interval.low > 0.0
    assert evaluation.learner("logistic").at[0].brier is not None
    assert evaluation.learner(CHEAPEST).at[0].harmful_collaboration == pytest.approx(0.0, abs=0.05)
    assert evaluation.learner(CHEAPEST).apgr == pytest.approx(0.0, abs=0.02)
    assert evaluation.anchors is not None
    assert evaluation.anchors.strong_score > evaluation.anchors.weak_score


def test_logs_without_costs_are_summarised_by_score_alone() -> None:
    data, x = world()
    cv = cross_validate(
        replace(data, cost=data.cost * np.nan), x, default_baselines()[:4], folds=2, seeds=(0,)
    )
    result = summarise(cv)
    assert result.cost_weights == (0.0,)
    assert result.anchors is None
    assert result.learner(BEST_FIXED).aiq is None
    assert "no cost is known" in " ".join(result.notes)
    assert json.loads(to_json(result))["learners"][0]["at"][0]["cost"] is None
    assert "–" in to_markdown(result, "summary")


def test_the_report_says_what_it_shows(evaluation: Evaluation) -> None:
    out = io.StringIO()
    print_report(evaluation, Console(file=out, width=180))
    text = out.getvalue()
    for word in ("synthetic data", "two domains", "AIQ", "APGR", BEST_FIXED, ORACLE, "bootstrap"):
        assert word in text
    markdown = to_markdown(evaluation)
    rows = [line for line in markdown.splitlines() if line.startswith("|")]
    assert len(rows) == 2 + len(evaluation.learners)
    assert len({row.count("|") for row in rows}) == 1
    assert rows[2].startswith("| oracle | +")
    assert "synthetic data" in markdown
    data = json.loads(to_json(evaluation))
    assert data["learners"][0]["name"] == ORACLE
    assert data["learners"][0]["difference"] == evaluation.learners[0].difference
