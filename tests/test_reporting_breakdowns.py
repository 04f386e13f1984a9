"""What a report takes apart: mixes, calibration, domains, intervals, examples; and the command."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.reporting_samples import FOLDS, full, grid, plans_named, validated

from masrouter import cli
from masrouter.evaluation import metrics
from masrouter.evaluation.baselines import BEST_FIXED, CHEAPEST, ORACLE
from masrouter.evaluation.calibration import calibrate
from masrouter.evaluation.choices import NO_ROLE, mix_of
from masrouter.evaluation.domains import by_domain, confusion, domain_names
from masrouter.evaluation.examples import choose_examples, most_varied
from masrouter.evaluation.frontier_intervals import frontier_intervals
from masrouter.evaluation.summary import summarise
from masrouter.types import Agent, Plan

SINGLE = Plan("io", (Agent(None, "small"),))
PAIR = Plan("debate", (Agent("critic", "small"), Agent(None, "large")))


def test_a_mix_counts_choices_and_seats() -> None:
    mix = mix_of(np.array([[0, 1], [1, -1]]), (SINGLE, PAIR))
    assert mix is not None
    assert mix.topologies == pytest.approx({"debate": 2 / 3, "io": 1 / 3})
    assert mix.counts == pytest.approx({"1": 1 / 3, "2": 2 / 3})
    assert mix.roles == pytest.approx({NO_ROLE: 3 / 5, "critic": 2 / 5})
    assert mix.models == pytest.approx({"small": 3 / 5, "large": 2 / 5})
    assert mix.plan == PAIR
    assert mix.plan_share == pytest.approx(2 / 3)
    assert mix_of(np.array([-1, -1]), (SINGLE, PAIR)) is None


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(-1, 5), min_size=1, max_size=40))
def test_the_shares_of_a_mix_sum_to_one(chosen: list[int]) -> None:
    mix = mix_of(np.array(chosen), plans_named([f"name {i}" for i in range(6)]))
    if mix is None:
        assert max(chosen) < 0
        return
    for shares in (mix.topologies, mix.counts, mix.roles, mix.models):
        assert sum(shares.values()) == pytest.approx(1.0)


def test_calibration_of_a_known_forecast() -> None:
    expected = np.array([[0.2, 0.2, 0.8, 0.8, np.nan]] * 2)
    realised = np.array([[0.0, 0.0, 1.0, 0.0, 1.0], [0.0, 1.0, 1.0, 1.0, 1.0]])
    told = calibrate(expected, realised, resamples=200, seed=0)
    assert told is not None
    assert [(b.choices, b.queries) for b in told.bins] == [(4, 2), (4, 2)]
    assert [b.expected for b in told.bins] == pytest.approx([0.2, 0.8])
    assert [b.realised for b in told.bins] == pytest.approx([0.25, 0.75])
    assert told.error == pytest.approx(0.05)
    assert told.choices == 8
    for b in told.bins:
        assert b.realised in b.interval
    assert calibrate(expected * np.nan, realised, resamples=200, seed=0) is None


def test_calibration_intervals_do_not_narrow_with_copies_of_a_query() -> None:
    rng = np.random.default_rng(0)
    expected = np.full((1, 80), 0.5)
    realised = (rng.random((1, 80)) < 0.5).astype(np.float64)
    once = calibrate(expected, realised, resamples=400, seed=0)
    often = calibrate(
        np.repeat(expected, 7, axis=0), np.repeat(realised, 7, axis=0), resamples=400, seed=0
    )
    assert once is not None
    assert often is not None
    assert often.bins[0].choices == 7 * once.bins[0].choices
    assert often.bins[0].interval.low == pytest.approx(once.bins[0].interval.low)
    assert often.bins[0].interval.high == pytest.approx(once.bins[0].interval.high)


def test_domains_are_compared_with_what_was_predicted() -> None:
    cv, _, _ = validated()
    told = cv.domains["masrouter"].copy()
    names = sorted(set(cv.outcomes.datasets))
    told[:] = np.array(cv.outcomes.datasets)
    told[0, [i for i, d in enumerate(cv.outcomes.datasets) if d == names[0]][:5]] = names[1]
    wrong = confusion(replace(cv, domains={"masrouter": told}), "masrouter", resamples=200, seed=0)
    assert wrong is not None
    assert wrong.domains == tuple(names)
    size = dict(zip(wrong.domains, wrong.queries, strict=True))
    n = cv.outcomes.n_queries
    assert wrong.accuracy == pytest.approx(1 - 5 / n)
    assert wrong.accuracy in wrong.interval
    assert wrong.share[0][wrong.predicted.index(names[1])] == pytest.approx(5 / size[names[0]])
    assert [sum(row) for row in wrong.share] == pytest.approx([1.0] * len(names))
    assert wrong.largest == pytest.approx(max(size.values()) / n)
    assert confusion(cv, BEST_FIXED, resamples=200, seed=0) is None


def test_the_rest_is_right_for_a_domain_too_rare_to_be_told_apart() -> None:
    cv, _, _ = validated()
    names = sorted(set(cv.outcomes.datasets))
    told = np.array([[name if name != names[0] else "other" for name in cv.outcomes.datasets]])
    right = confusion(replace(cv, domains={"masrouter": told}), "masrouter", resamples=50, seed=0)
    assert right is not None
    assert right.accuracy == 1.0


def test_a_domain_s_difference_is_that_of_its_queries() -> None:
    cv, _, _ = validated()
    evaluation = summarise(cv, resamples=200)
    names = domain_names(cv.outcomes)
    assert names is not None
    rows = names == evaluation.learner("ridge").domains[0].domain
    for result in evaluation.learners:
        own = (cv.utility(result.name) - cv.utility(BEST_FIXED))[0]  # (W, N)
        largest = result.domains[0]
        assert largest.queries == rows.sum() == max(d.queries for d in result.domains)
        assert largest.difference == pytest.approx(own[:, rows].mean())
        assert largest.difference in largest.interval
        shares = [d.queries * d.difference for d in result.domains]
        assert sum(shares) / cv.outcomes.n_queries == pytest.approx(result.difference)


def test_one_domain_is_not_taken_apart() -> None:
    outcomes, _ = grid(plans=plans_named(["a", "b", "c"]))
    assert domain_names(outcomes) is None
    nothing = np.zeros((2, 1, outcomes.n_queries))
    assert by_domain(None, nothing, nothing, nothing, 0, resamples=10, seed=0) == [(), ()]


def curves(n: int = 300) -> tuple[np.ndarray, np.ndarray]:
    """Three learners at two points: the cheapest plan, a fixed plan, and one as good for half."""
    rng = np.random.default_rng(0)
    luck = rng.random(n)
    cost = np.empty((3, 2, n))
    score = np.empty((3, 2, n))
    for i, (price, chance) in enumerate([(0.01, 0.3), (0.1, 0.7), (0.05, 0.72)]):
        cost[i] = price * rng.lognormal(0, 0.1, n)
        score[i] = luck < chance
    return cost, score


def test_frontier_intervals_hold_the_measure_and_exclude_what_is_not_so() -> None:
    cost, score = curves()
    found = frontier_intervals(cost, score, 0, 1, seed=0)
    assert found is not None
    weak, fixed, better = found
    means = cost.mean(axis=2), score.mean(axis=2)
    anchors = metrics.Anchors(
        float(means[0][0, 0]), float(means[1][0, 0]), float(means[0][1, 0]), float(means[1][1, 0])
    )
    saved = metrics.cost_saved(means[0][2], means[1][2], anchors)
    assert better.cost_saved is not None
    assert saved is not None
    assert saved in better.cost_saved
    assert better.cost_saved.low > 0.4
    assert better.cost_saved_share == 1.0
    assert better.cost_saved_beyond_fixed is not None
    assert better.cost_saved_beyond_fixed.low > 0.3
    assert fixed.cost_saved_beyond_fixed is not None
    assert 0.0 in fixed.cost_saved_beyond_fixed
    # What is never reached has neither a value nor an interval.
    assert weak.cost_saved is None
    assert weak.cost_saved_share == 0.0


def test_a_score_reached_by_luck_alone_has_no_interval_of_cost() -> None:
    cost, score = curves()
    order = np.random.default_rng(1).permutation(score.shape[2])
    score[2] = score[1][:, order]  # as good as the fixed plan, so better in half the draws
    found = frontier_intervals(cost, score, 0, 1, seed=0)
    assert found is not None
    assert 0.05 < found[2].cost_saved_share < 0.95
    assert found[2].cost_saved is None
    assert found[2].accuracy_gained is not None


def test_frontiers_that_cannot_be_drawn_have_no_intervals() -> None:
    cost, score = curves(10)
    assert frontier_intervals(cost, score, None, 1, seed=0) is None
    assert frontier_intervals(cost[:, :0], score[:, :0], 0, 1, seed=0) is None
    assert frontier_intervals(cost[..., :0], score[..., :0], 0, 1, seed=0) is None


def test_intervals_hold_their_measures_in_a_whole_evaluation() -> None:
    for result in full().learners:
        for at in result.at:
            if at.harmful_collaboration is not None:
                assert at.harmful_interval is not None
                assert at.harmful_collaboration in at.harmful_interval
        assert result.frontier is not None
        if result.aiq is not None and result.name not in (ORACLE, CHEAPEST):
            assert result.frontier.aiq is not None
            assert result.frontier.aiq.low - 0.02 < result.aiq < result.frontier.aiq.high + 0.02


def test_examples_are_the_largest_gains_and_losses_among_the_queries_named() -> None:
    cv, _, learner = validated()
    among = np.arange(0, cv.outcomes.n_queries, 2)
    found = choose_examples(cv, learner.name, among)
    at = found[0].cost_weight
    w = cv.cost_weights.index(at)
    difference = (cv.utility(learner.name) - cv.utility(BEST_FIXED))[0, w]
    assert {c.query for c in found} <= set(among.tolist())
    assert len({c.query for c in found}) == len(found) == 8
    kinds = [c.kind for c in found]
    assert kinds == ["gain"] * 3 + ["loss"] * 3 + ["typical"] * 2
    best = np.sort(difference[among])
    assert [c.difference for c in found[:3]] == pytest.approx(best[::-1][:3].tolist())
    assert [c.difference for c in found[3:6]] == pytest.approx(best[:3].tolist())
    for c in found:
        chosen = cv.chosen[cv.index(learner.name), 0, w, c.query]
        assert c.plan == cv.outcomes.plans[chosen]


def test_examples_come_from_the_part_with_the_most_different_choices() -> None:
    cv, _, learner = validated()
    chosen = cv.chosen.copy()
    chosen[cv.index(learner.name)] = 0
    chosen[cv.index(learner.name), 0, 2, [20, 21, 22]] = [1, 2, 3]
    varied = replace(cv, chosen=chosen)
    assert most_varied(varied, learner.name, [np.arange(10), np.arange(15, 30)]) == 1
    assert (
        choose_examples(varied, learner.name, np.arange(15, 30))[0].cost_weight
        == (cv.cost_weights[2])
    )


def test_a_learner_that_never_departs_has_typical_examples_only() -> None:
    cv, _, _ = validated()
    found = choose_examples(cv, BEST_FIXED, np.arange(10))
    assert [c.kind for c in found] == ["typical", "typical"]
    assert {c.difference for c in found} == {0.0}


def test_examples_are_explained_as_they_were_decided_and_were_not_trained_on() -> None:
    evaluation = full()
    cv, _, _ = validated()
    assert evaluation.example_queries == cv.outcomes.n_queries // FOLDS
    for example in evaluation.examples:
        decision = example.explanation.decision
        assert decision.plan == example.validated_plan or decision.fallback
        # The query itself would be its own nearest neighbour.
        assert decision.evidence.nearest < 0.999
        assert {run.plan for run in example.logged} == set(cv.outcomes.plans)
        scores = [run.score for run in example.logged if run.score is not None]
        assert scores == sorted(scores, reverse=True)


def test_what_routing_takes_is_measured() -> None:
    routing = full().routing
    assert routing is not None
    assert routing.queries == 50
    assert routing.plans == 8
    assert routing.encode_s > 0.0
    assert routing.decide_s > 0.0
    assert routing.api_usd == 0.0
    assert routing.run_cost_usd is not None


Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """The console script's entry point: exit code, standard output, standard error."""

    def command(*arguments: str | Path) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["masrouter", *map(str, arguments)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as left:
            cli.main()
        captured = capfd.readouterr()
        return int(left.value.code or 0), captured.out, captured.err

    return command


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "--logs (looks choices up) or --problems (runs them)"),
        (("--logs", "a", "--problems", "b"), "not both"),
        (("--logs", "a", "--checkpoint", "c"), "--checkpoint belongs to --problems"),
        (("--logs", "a", "--dry-run"), "--dry-run belongs to --problems"),
        (("--problems", "b", "--folds", "5"), "--folds belongs to --logs"),
        (("--problems", "b", "--no-report"), "--report belongs to --logs"),
    ],
)
def test_options_that_would_do_nothing_are_refused(
    run: Run, arguments: tuple[str, ...], words: str
) -> None:
    code, _, err = run("evaluate", *arguments)
    assert code != 0
    assert words in " ".join(err.split())


def test_evaluate_writes_the_report_beside_its_figures(run: Run, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    world, out = tmp_path / "world", tmp_path / "out"
    assert run("synth", "--out", world, "--queries", "40")[0] == 0
    command = (
        "evaluate", "--logs", world, "--catalog", world / "catalog.yaml", "--folds", "2",
        "--seeds", "1", "--no-baselines", "--encoder", "hashing-64", "--out", out,
    )  # fmt: skip
    code, _, err = run(*command, "--note", "made for a test", "--cost-weight", "10")
    assert code == 0, err
    assert f"wrote {out / 'report.html'}" in err.replace("\n", "")
    text = (out / "report.html").read_text(encoding="utf-8")
    assert "made for a test" in text
    assert "Synthetic data." in text
    data = json.loads((out / "evaluation.json").read_text(encoding="utf-8"))
    assert data["examples"]
    assert (out / "table.md").exists()
    assert (out / "figures" / "ranking.svg").exists()
    (out / "report.html").unlink()
    code, _, err = run(*command, "--no-report", "--cost-weight", "10")
    assert code == 0, err
    assert not (out / "report.html").exists()
