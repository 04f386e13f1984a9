"""The figures of a live evaluation, from runs made by hand: pass@k, pairs, and what is missing."""

from __future__ import annotations

import io
import json
from fractions import Fraction
from itertools import combinations
from math import comb
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from masrouter.collection import Store
from masrouter.collection.store import insert
from masrouter.errors import CollectionError, EvaluationError
from masrouter.evaluation.live import (
    Arm,
    LiveDesign,
    LiveEvaluation,
    LiveRuns,
    compare,
    live_json,
    live_markdown,
    pass_at_k,
    pin_settings,
    print_live,
    read_runs,
    verdicts,
)
from masrouter.problems import Number, Problem
from masrouter.types import Agent, Plan

SMALL, LARGE = (Plan("io", (Agent("assistant", m),)) for m in ("gpt-4o-mini", "gpt-4o"))


def problems(count: int, dataset: str = "sums") -> tuple[Problem, ...]:
    return tuple(
        Problem(
            f"{dataset}/{i}",
            f"{dataset}: {i} and {i}?",
            dataset,
            "math",
            Number(Fraction(2 * i)),
            "x",
        )
        for i in range(count)
    )


def routed(first: int, count: int) -> Arm:
    """SMALL for the first problems, LARGE for the others."""
    return Arm("routed", (SMALL,) * first + (LARGE,) * (count - first))


def runs_of(score: Any, **changes: Any) -> LiveRuns:
    """Runs with these scores (A, n, R), NaN for one that is not finished."""
    score = np.array(score, dtype=np.float64)
    finished = np.isfinite(score)
    plain = np.where(finished, 1.0, np.nan)
    values: dict[str, Any] = {
        "failed": np.zeros(score.shape, dtype=np.bool_),
        "cost_usd": plain,
        "tokens": plain * 100,
        "latency_s": plain * 2,
        "answers": np.full(score.shape, None, dtype=object),
        "errors": np.full(score.shape, None, dtype=object),
    }
    return LiveRuns(finished=finished, score=score, **(values | changes))


# pass@k


@given(st.integers(1, 9), st.data())
def test_pass_at_k_is_the_share_of_draws_with_a_right_sample(n: int, data: st.DataObject) -> None:
    c, k = data.draw(st.integers(0, n)), data.draw(st.integers(1, n))
    draws = list(combinations([True] * c + [False] * (n - c), k))
    share = sum(map(any, draws)) / len(draws)
    assert pass_at_k(n, np.array([c]), k)[0] == pytest.approx(share, abs=1e-12)


def test_pass_at_k_of_many_samples_needs_no_huge_number() -> None:
    found = pass_at_k(2000, np.array([0, 1, 1000, 1901, 2000]), 100)
    exact = [1 - Fraction(comb(2000 - c, 100), comb(2000, 100)) for c in (0, 1, 1000, 1901, 2000)]
    np.testing.assert_allclose(found, [float(value) for value in exact], rtol=1e-12)
    assert found[0] == 0.0
    assert found[-2] == found[-1] == 1.0


@pytest.mark.parametrize(
    ("samples", "correct", "k", "message"),
    [
        (4, [1], 5, "pass@5 needs at least 5 runs of each problem, and there are 4: ask for --rep"),
        (4, [1], 0, "k: expected at least 1, got 0"),
        (4, [5], 1, "expected 0 to 4 right samples"),
        (0, [], 1, "at least one sample"),
    ],
)
def test_pass_at_k_refuses_what_makes_no_sense(
    samples: int, correct: list[int], k: int, message: str
) -> None:
    with pytest.raises(EvaluationError, match=message):
        pass_at_k(samples, np.array(correct, dtype=np.int64), k)


@pytest.mark.parametrize("chance", [0.0, 0.1, 0.5, 0.93])
def test_pass_at_k_is_unbiased(chance: float) -> None:
    """Over all that n samples may be, its mean is the chance that one of k is right."""
    n = 7
    right = np.arange(n + 1)
    often = [comb(n, c) * chance**c * (1 - chance) ** (n - c) for c in right]
    for k in range(1, n + 1):
        mean = float(np.dot(often, pass_at_k(n, right, k)))
        assert mean == pytest.approx(1 - (1 - chance) ** k, abs=1e-12)


# The design


def test_arms_with_the_same_plan_share_the_run() -> None:
    some = problems(10)
    design = LiveDesign(some, (routed(6, 10), Arm.fixed(LARGE, 10), Arm.fixed(SMALL, 10)), 3)
    assert len(design.assignments()) == 10 * 2 * 3
    ids = design.run_ids(_catalog())
    assert ids.shape == (3, 10, 3)
    assert len(set(ids.ravel())) == 10 * 2 * 3
    assert (ids[0, :6] == ids[2, :6]).all()
    assert (ids[0, 6:] == ids[1, 6:]).all()
    assert (ids[0, :6] != ids[1, :6]).all()


def test_a_design_that_cannot_be_meant_is_refused() -> None:
    some, arm = problems(3), Arm.fixed(SMALL, 3)
    for arms, repeats, message in (
        ((), 1, "needs problems and arms"),
        ((arm,), 0, "repeats: expected at least 1"),
        ((arm, arm), 1, "the same name"),
        ((Arm("routed", (SMALL,)),), 1, "1 plans for 3 problems"),
    ):
        with pytest.raises(EvaluationError, match=message):
            LiveDesign(some, arms, repeats)


# The figures


def test_means_and_differences_are_taken_problem_by_problem() -> None:
    design = LiveDesign(problems(12), (routed(0, 12), Arm.fixed(SMALL, 12)), 2)
    score = np.zeros((2, 12, 2))
    score[0, :9] = 1.0
    score[0, 9, 0] = 1.0
    score[1, :6, 0] = 1.0
    cost = np.ones((2, 12, 2))
    cost[1] = 3.0
    cost[1, 0] = 4.0
    found = compare(design, runs_of(score, cost_usd=cost), ks=(2, 1))
    (whole,) = found.parts
    first, second = whole.arms
    assert found.ks == (1, 2)
    assert found.complete
    assert first.pass_at is not None
    assert second.pass_at is not None
    assert first.pass_at[1].mean == pytest.approx(9.5 / 12)
    assert first.pass_at[2].mean == pytest.approx(10 / 12)
    assert second.pass_at[1].mean == pytest.approx(3 / 12)
    assert second.pass_at[2].mean == pytest.approx(6 / 12)
    (difference,) = whole.differences
    assert difference.pass_at is not None
    assert difference.cost_usd is not None
    gap = difference.pass_at[1]
    assert gap.mean == pytest.approx(6.5 / 12)
    assert gap.interval is not None
    assert 0 < gap.interval.low < 6.5 / 12 < gap.interval.high < 1
    assert difference.cost_usd.mean == pytest.approx(-(2 * 11 + 3) / 12)
    assert verdicts(found) == [f"routed against {SMALL}: right more often; cheaper"]


def test_pairs_make_intervals_narrow() -> None:
    """Problems differ much, arms little: unpaired, the interval would hold 0 by far."""
    rng = np.random.default_rng(0)
    cost = rng.uniform(1, 100, (1, 40, 1)) + np.array([0.0, 1.0])[:, None, None]
    cost[1] += rng.uniform(0, 0.1, (40, 1))
    design = LiveDesign(problems(40), (routed(0, 40), Arm.fixed(SMALL, 40)))
    (whole,) = compare(design, runs_of(np.ones((2, 40, 1)), cost_usd=cost)).parts
    gap = whole.differences[0].cost_usd
    assert gap is not None
    assert gap.interval is not None
    assert -1.1 < gap.interval.low < gap.interval.high < -1.0
    alone = whole.arms[0].cost_usd
    assert alone is not None
    assert alone.interval is not None
    assert alone.interval.high - alone.interval.low > 5


def test_intervals_are_of_problems_and_of_pairs_whatever_the_repeats() -> None:
    """Repeats of a problem are one unit, and both arms of a pair are drawn together: by hand."""
    rng = np.random.default_rng(3)
    score = rng.integers(0, 2, (2, 25, 1)).astype(float)
    (once,) = compare(LiveDesign(problems(25), _two(25)), runs_of(score)).parts
    (often,) = compare(
        LiveDesign(problems(25), _two(25), 4), runs_of(np.repeat(score, 4, axis=2))
    ).parts
    assert once.arms[0].pass_at is not None
    assert often.arms[0].pass_at is not None
    assert once.arms[0].pass_at[1].interval == often.arms[0].pass_at[1].interval
    assert once.differences[0].pass_at is not None
    assert once.differences[0].pass_at == often.differences[0].pass_at
    gap = score[0, :, 0] - score[1, :, 0]
    drawn = [gap[rng.integers(0, 25, 25)].mean() for _ in range(20_000)]
    found = once.differences[0].pass_at[1].interval
    assert found is not None
    np.testing.assert_allclose(
        [found.low, found.high], np.percentile(drawn, [2.5, 97.5]), atol=0.041
    )


def test_what_is_alike_on_every_problem_or_of_few_problems_has_no_interval() -> None:
    for count, score in ((30, 1.0), (9, None)):
        design = LiveDesign(problems(count), (routed(0, count), Arm.fixed(SMALL, count)))
        rows = np.resize([0.0, 1.0, 1.0, 0.0, 1.0], (2, count, 1)) if score is None else None
        runs = runs_of(np.full((2, count, 1), score) if rows is None else rows)
        found = compare(design, runs)
        (whole,) = found.parts
        few = "no verdict on score from fewer than 10 problems"
        said = "the same score on every problem" if count == 30 else few
        assert said in verdicts(found)[0]
        assert whole.arms[0].pass_at is not None
        assert whole.arms[0].pass_at[1].interval is None
        assert whole.differences[0].pass_at is not None
        assert whole.differences[0].pass_at[1].interval is None


def test_runs_without_an_answer_count_as_wrong_and_are_counted() -> None:
    failed = np.zeros((1, 10, 1), dtype=np.bool_)
    failed[0, :3] = True
    score = np.where(failed, 0.0, 1.0)
    design = LiveDesign(problems(10), (routed(0, 10),))
    (whole,) = compare(design, runs_of(score, failed=failed)).parts
    (arm,) = whole.arms
    assert arm.failed == 3
    assert arm.pass_at is not None
    assert arm.pass_at[1].mean == pytest.approx(0.7)


def test_an_unknown_cost_stays_unknown() -> None:
    design = LiveDesign(problems(12), (routed(0, 12), Arm.fixed(SMALL, 12)))
    cost = np.ones((2, 12, 1))
    cost[0, :2] = np.nan
    cost[1] = np.nan
    found = compare(design, runs_of(np.ones((2, 12, 1)), cost_usd=cost))
    (whole,) = found.parts
    first, second = (arm.cost_usd for arm in whole.arms)
    assert first is not None
    assert second is not None
    assert (first.mean, first.runs) == (1.0, 10)
    assert (second.mean, second.interval, second.runs) == (None, None, 0)
    text = live_markdown(found)
    assert "$1,000.00 [10 of 12]" in text
    assert "unknown" in text
    assert "cost unknown" in verdicts(found)[0]
    assert json.loads(live_json(found))["parts"][0]["arms"][1]["cost_usd"]["mean"] is None


def test_costs_are_compared_where_every_run_of_both_arms_is_known() -> None:
    """A run that fails late is dear, and often nobody knows how dear: the rest would flatter."""
    design = LiveDesign(problems(20), _two(20), 3)
    cost = np.ones((2, 20, 3))
    cost[0] = 2.0 + np.arange(20)[:, None] / 100
    cost[0, :4, 1:] = np.nan
    cost[0, :4, 0] = 0.1
    found = compare(design, runs_of(np.ones((2, 20, 3)), cost_usd=cost))
    (whole,) = found.parts
    gap, first = whole.differences[0].cost_usd, whole.arms[0].cost_usd
    assert gap is not None
    assert first is not None
    assert (first.runs, gap.runs) == (52, 16)
    assert gap.mean == pytest.approx(1.0 + np.arange(4, 20).mean() / 100)
    assert verdicts(found)[0].endswith("dearer (of the 16 of 20 problems where all is known)")


def test_missing_runs_leave_a_part_without_figures() -> None:
    some = (*problems(10, "first"), *problems(10, "second"))
    design = LiveDesign(some, (routed(0, 20), Arm.fixed(SMALL, 20)))
    score = np.ones((2, 20, 1))
    score[1, 13] = np.nan
    found = compare(design, runs_of(score))
    assert not found.complete
    whole, first, second = found.parts
    assert whole.arms[0].pass_at is not None
    assert whole.arms[1].pass_at is None
    assert whole.differences[0].pass_at is None
    assert first.differences[0].pass_at is not None
    assert second.differences[0].cost_usd is None
    assert verdicts(found) == [f"routed against {SMALL}: no verdict, runs are missing"]
    text = live_markdown(found)
    assert "INCOMPLETE: 39 of 40 runs" in text
    assert "| 19 of 20 | 0 | – |" in text


def test_the_same_plan_everywhere_is_said() -> None:
    design = LiveDesign(problems(10), (routed(10, 10), Arm.fixed(SMALL, 10)))
    found = compare(design, runs_of(np.ones((2, 10, 1))))
    assert found.parts[0].differences[0].same_plan == 10
    assert "the same plan on every problem" in verdicts(found)[0]


# How it looks


def shown(found: LiveEvaluation, width: int = 220) -> str:
    console = Console(file=io.StringIO(), width=width, force_terminal=False)
    print_live(found, console, ["[red]a note[/red]"])
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_names_are_shown_as_they_are() -> None:
    some = (*problems(10, "[bold]x|y[/bold]"), *problems(10, "<script>"))
    design = LiveDesign(some, (routed(0, 20), Arm("[link]<b>|", (SMALL,) * 20)))
    found = compare(design, runs_of(np.ones((2, 20, 1))))
    text = shown(found)
    assert "[bold]x|y[/bold] (10): routed" in text
    assert "[link]<b>|" in text
    assert "[red]a note[/red]" in text
    markdown = live_markdown(found)
    assert "<script>" not in markdown
    assert "&lt;script&gt;" in markdown
    assert "x\\|y" in markdown


def test_a_terminal_of_100_columns_shows_every_digit() -> None:
    rng = np.random.default_rng(1)
    design = LiveDesign(problems(40), _two(40), 3)
    cost = rng.uniform(0.0001, 0.0009, (2, 40, 3))
    found = compare(design, runs_of(rng.integers(0, 2, (2, 40, 3)), cost_usd=cost), ks=(1, 3))
    text = shown(found, 100)
    assert max(map(len, text.splitlines())) <= 100
    assert "…" not in text
    first = found.parts[0].arms[0]
    assert first.pass_at is not None
    assert first.cost_usd is not None
    assert first.cost_usd.mean is not None
    for figure in (first.pass_at[1].mean, first.pass_at[3].mean):
        assert f" {figure:.3f} " in text
    assert f" ${1000 * first.cost_usd.mean:.3f} " in text
    for width in (60, 140):
        assert max(map(len, shown(found, width).splitlines())) <= width


def test_json_holds_every_figure_and_what_is_put_beside_it() -> None:
    design = LiveDesign(problems(12), (routed(4, 12), Arm.fixed(SMALL, 12)), 5)
    rng = np.random.default_rng(1)
    found = compare(design, runs_of(rng.integers(0, 2, (2, 12, 5))), ks=(1, 5))
    data = json.loads(live_json(found, checkpoint="abc"))
    assert (data["kind"], data["complete"], data["checkpoint"]) == ("live", True, "abc")
    assert data["arms"][0]["plans"] == {str(LARGE): 8, str(SMALL): 4}
    assert set(data["parts"][0]["arms"][0]["pass_at"]) == {"1", "5"}
    assert data["parts"][0]["differences"][0]["same_plan"] == 4


# What a collection holds


def _two(count: int) -> tuple[Arm, Arm]:
    return routed(0, count), Arm.fixed(SMALL, count)


def _catalog() -> Any:
    from masrouter.catalog import Catalog

    return Catalog.default()


def test_runs_are_found_in_a_collection(tmp_path: Any) -> None:
    design = LiveDesign(problems(3), (routed(1, 3), Arm.fixed(LARGE, 3)))
    ids = design.run_ids(_catalog())
    rows: dict[str, tuple[dict[str, Any], str | None]] = {
        ids[0, 0, 0]: ({"score": 1.0, "cost_usd": 0.5, "prompt_tokens": 1,
                        "completion_tokens": 2, "latency_s": 4.0}, "Answer: 0"),
        ids[0, 1, 0]: ({"score": None, "cost_usd": None, "prompt_tokens": 1, "error": "it is down",
                        "completion_tokens": None, "latency_s": None}, None),
        "of another plan": ({"score": 1.0}, "x"),
    }  # fmt: skip
    path = tmp_path / "runs.sqlite"
    with Store(path) as store:
        for run_id, (record, answer) in rows.items():
            row = {"run_id": run_id, "prompt_version": "", "record": json.dumps(record)}
            store.post(insert("runs", row | {"answer": answer})).result()
    runs = read_runs(path, design, _catalog())
    assert runs.finished[:, :, 0].tolist() == [[True, True, False], [False, True, False]]
    assert runs.failed.sum() == 2
    assert runs.score[0, :2, 0].tolist() == [1.0, 0.0]
    assert (runs.cost_usd[0, 0, 0], runs.tokens[0, 0, 0], runs.latency_s[0, 0, 0]) == (0.5, 3, 4)
    assert np.isnan([runs.cost_usd[0, 1, 0], runs.tokens[0, 1, 0], runs.score[0, 2, 0]]).all()
    assert runs.answers[0, 0, 0] == "Answer: 0"
    assert runs.errors[0, :, 0].tolist() == [None, "it is down", None]


def test_a_collection_is_held_to_its_settings_and_its_problems(tmp_path: Any) -> None:
    design = LiveDesign(problems(3), (routed(1, 3),))
    with Store(tmp_path / "collected.sqlite") as store:
        row = {"run_id": "x", "prompt_version": "", "record": "{}", "answer": "1"}
        store.post(insert("runs", row)).result()
        with pytest.raises(EvaluationError, match="holds runs of `masrouter collect`"):
            pin_settings(store, design, provider="real", deadline="none")
        assert not store.read("SELECT * FROM pins")
    more = LiveDesign(problems(5), (routed(0, 5), Arm.fixed(SMALL, 5)), 2)
    with Store(tmp_path / "runs.sqlite") as store:
        pin_settings(store, design, provider="real", deadline="none")
        pin_settings(store, more, provider="real", deadline="none")
        with pytest.raises(CollectionError, match="deadline none, now it is 3 s"):
            pin_settings(store, design, provider="real", deadline="3 s")
        other = Problem("sums/1", "sums: 1 and 1?", "sums", "math", Number(Fraction(3)), "x")
        changed = LiveDesign((other,), (routed(1, 1),))
        with pytest.raises(EvaluationError, match="'problem sums/1' as it was before its question"):
            pin_settings(store, changed, provider="real", deadline="none")
