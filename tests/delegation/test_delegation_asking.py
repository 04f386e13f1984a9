"""When asking first pays, by logged outcomes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from tests.delegation.scripted import ScriptedModel

from masrouter.delegation.calibration.asking import AskingCalibration, calibrate_asking
from masrouter.delegation.calibration.asking_outcomes import replay_asking
from masrouter.delegation.calibration.missing_labels import LabelledGoal
from masrouter.delegation.calibration.sampled import Check, Sample, SampledQuery, StrongOutcome
from masrouter.delegation.delegator import Delegator
from masrouter.delegation.deliberation.agreement import Rule
from masrouter.delegation.deliberation.missing import MissingRule, check_missing
from masrouter.delegation.tasks import Task
from masrouter.errors import EvaluationError

RULE = Rule(2, 1.0)
SAMPLE_USD, STRONG_USD, CHECK_USD = 0.001, 0.01, 0.0001


def query(
    number: int,
    text: str,
    *,
    lacks: bool | None,
    right: bool,
    agree: bool = True,
    named: bool | None = None,
    group: str | None = None,
) -> SampledQuery:
    """Two samples that agree or not; right or wrong whoever answers."""
    said = ["Answer: 1", "Answer: 1" if agree else "Answer: 2"]
    return SampledQuery(
        query_id=f"q{number}",
        query=text,
        samples=tuple(Sample(one, float(right), SAMPLE_USD) for one in said),
        strong=StrongOutcome(float(right), STRONG_USD),
        lacks=lacks,
        group=group,
        check=None if named is None else Check(named, CHECK_USD),
    )


def gapped(count: int, *, first: int = 0, **more: Any) -> list[SampledQuery]:
    """Queries with a place left to be filled, which no answer gets right."""
    options: dict[str, Any] = {"lacks": True, "right": False, "agree": False, **more}
    return [query(n, f"Pay {{{{name}}}} {n}.", **options) for n in range(first, first + count)]


def whole(count: int, *, first: int = 1000, **more: Any) -> list[SampledQuery]:
    options: dict[str, Any] = {"lacks": False, "right": True, **more}
    return [query(n, f"What is {n} and {n}?", **options) for n in range(first, first + count)]


def calibrated(queries: Sequence[SampledQuery], **options: Any) -> AskingCalibration:
    return calibrate_asking(queries, rule=RULE, resamples=100, **options)


def row(found: AskingCalibration, name: str) -> Any:
    return next(one for one in found.rows if one.name == name)


def test_money_that_would_bring_nothing_is_not_spent() -> None:
    found = calibrated([*gapped(10), *whole(30)])
    asking, plain = row(found, "ask"), row(found, "deliberate")
    assert (asking.score.mean, plain.score.mean) == (0.75, 0.75)
    # Ten queries of two samples and the strong worker each, of forty.
    per_gap = 2 * SAMPLE_USD + STRONG_USD
    assert plain.cost_usd.mean == pytest.approx((10 * per_gap + 30 * 2 * SAMPLE_USD) / 40)
    assert asking.cost_usd.mean == pytest.approx(30 * 2 * SAMPLE_USD / 40)
    assert (asking.asked, plain.asked, asking.delegated) == (0.25, 0.0, 0.0)
    saving = next(one for one in found.against if one.name == "deliberate")
    assert saving.score.mean == 0.0
    assert saving.cost_saved.mean == pytest.approx(10 * per_gap / (10 * per_gap + 0.06))
    assert (found.precision.mean, found.recall.mean) == (1.0, 1.0)
    assert found.rule.weights["placeholder"] == 11 / 12
    assert found.rule.asks(["placeholder"])
    assert "model" not in found.rule.weights


def test_lucky_guesses_are_not_given_away_beyond_the_tolerance() -> None:
    queries = [*gapped(10, right=True), *whole(30)]
    kept = calibrated(queries)
    assert row(kept, "ask").asked == 0.0
    assert not kept.rule.asks(["placeholder"])
    assert kept.to_json()["precision"]["mean"] is None
    given = calibrated(queries, tolerance=0.3)
    assert row(given, "ask").asked == 0.25
    assert row(given, "ask").score.mean == 0.75
    by_worth = calibrated(queries, cost_weight=1000.0)
    assert row(by_worth, "ask").asked == 0.25


def test_a_models_word_is_weighed_like_any_other_signal_and_paid_where_it_pays() -> None:
    plain = [query(n, f"Say word {n}.", lacks=True, right=False, agree=False, named=True)
             for n in range(10)]  # fmt: skip
    found = calibrated([*plain, *whole(30, named=False)])
    assert found.rule.weights["model"] == 11 / 12
    assert found.rule.asks(["model"])
    # The check is paid for on every query, also where nothing is missing.
    assert row(found, "ask").cost_usd.mean == pytest.approx(CHECK_USD + 30 * 2 * SAMPLE_USD / 40)
    assert row(found, "ask").score.mean == 0.75


def test_a_models_word_that_is_wrong_too_often_is_not_paid_for() -> None:
    lacking = [query(n, f"Say word {n}.", lacks=True, right=False, named=True) for n in range(5)]
    found = calibrated([*lacking, *whole(30, named=True)])
    assert "model" not in found.rule.weights
    assert {count.kind: (count.lacking, count.whole) for count in found.signals if count.found} == {
        "model": (5, 30)
    }
    assert row(found, "ask").cost_usd.mean == row(found, "deliberate").cost_usd.mean


def test_a_word_that_some_queries_lack_is_not_considered() -> None:
    lacking = [query(n, f"Say {n}.", lacks=True, right=False, named=True) for n in range(10)]
    found = calibrated([*lacking, *whole(30)])
    assert "model" not in found.rule.weights
    assert row(found, "ask").asked == 0.0


def test_queries_without_a_label_count_in_the_outcomes_and_not_in_the_weights() -> None:
    unknown = gapped(10, first=500, lacks=None, right=True)
    found = calibrated([*gapped(10), *whole(30), *unknown])
    assert (found.lacking, found.whole, found.unknown) == (10, 30, 10)
    assert found.rule.weights["placeholder"] == 11 / 12
    assert row(found, "ask").asked == 0.0  # half of those it would ask about are answered right


def test_labelled_tasks_without_outcomes_count_in_the_weights_alone() -> None:
    labelled = [LabelledGoal(f"Pay <your landlord> {n}.", False) for n in range(11)]
    found = calibrated([*gapped(10), *whole(30)], labelled=labelled)
    assert found.rule.weights["placeholder"] == 11 / 23
    assert found.lacking + found.whole + found.unknown == 40


def test_a_signal_that_no_task_shows_keeps_its_usual_weight() -> None:
    found = calibrated([*gapped(10), *whole(30)])
    assert found.rule.weights["reference"] == MissingRule().weights["reference"]


def test_what_an_answered_question_would_bring_is_told_where_the_log_has_it() -> None:
    groups = [replace(one, group=f"g{n}") for n, one in enumerate(gapped(10))]
    pairs = [replace(one, group=f"g{n}") for n, one in enumerate(whole(10))]
    found = calibrated([*groups, *pairs, *whole(20, first=2000)])
    answered, asking = row(found, "answered"), row(found, "ask")
    assert answered.score.mean == 1.0
    assert asking.score.mean == 0.75
    assert answered.cost_usd.mean == pytest.approx(2 * SAMPLE_USD)
    alone = calibrated([*gapped(10), *whole(30)])
    assert "answered" not in [one.name for one in alone.rows]


def test_what_comes_of_answers_can_be_chosen_for() -> None:
    gaps = [replace(one, group=f"g{n}", query=f"Say {n}.")
            for n, one in enumerate(gapped(10, right=True, named=True))]  # fmt: skip
    pairs = [replace(one, group=f"g{n}") for n, one in enumerate(whole(10, named=False))]
    queries = [*gaps, *pairs, *whole(20, first=2000, named=False)]
    # Guesses are right and dear: who is asked gives them up, unless the answer brings them back.
    assert row(calibrated(queries), "ask").asked == 0.0
    found = calibrated(queries, answered=True)
    assert found.rule.asks(["model"])
    assert (row(found, "ask").score.mean, row(found, "answered").score.mean) == (0.75, 1.0)
    paid = CHECK_USD + 2 * SAMPLE_USD
    assert row(found, "answered").cost_usd.mean == pytest.approx(paid)
    against = next(one for one in found.against if one.name == "deliberate")
    assert against.score.mean == 0.0
    plain = row(found, "deliberate").cost_usd.mean
    assert against.cost_saved.mean == pytest.approx(1 - paid / plain)
    assert found.to_json()["answered"] is True
    with pytest.raises(EvaluationError, match="'q0': the log does not say what an answered"):
        calibrated([*gapped(10), *whole(30)], answered=True)


def test_message_length_is_given_the_same_chance() -> None:
    short = [query(n, f"Do {n:02d}.", lacks=True, right=False, agree=False) for n in range(10)]
    long = [query(n, f"What is {n:04d} plus one hundred?", lacks=False, right=True)
            for n in range(10, 40)]  # fmt: skip
    found = calibrated([*short, *long])
    assert row(found, "short").asked == 0.25
    assert row(found, "short").score.mean == 0.75
    assert row(found, "length").cost_usd.mean == pytest.approx(SAMPLE_USD)  # delegating never pays
    assert row(found, "always").cost_usd.mean == pytest.approx(STRONG_USD)
    assert row(found, "never").cost_usd.mean == pytest.approx(SAMPLE_USD)


def test_a_log_is_judged_as_the_check_would_have_acted() -> None:
    named = {n: n % 3 == 0 for n in range(15)}
    queries = [
        query(n, text, lacks=n % 2 == 0, right=False, named=named[n])
        for n in named
        for text in [f"Pay {{{{name}}}} {n}." if n % 5 == 0 else f"Then it is sold {n}."]
    ]
    for rule in (
        MissingRule({"placeholder": 0.9, "middle": 0.2, "model": 0.6}, 0.65),
        MissingRule({"placeholder": 0.3, "model": 0.6}, 0.7),
        MissingRule({"middle": 0.9}, 0.5),
    ):
        found = replay_asking(queries, rule, deliberating=RULE)
        for at, one in enumerate(queries):
            said = "Missing: the name" if named[at] else "Missing: nothing"
            llm = ScriptedModel({"small": said})
            check = asyncio.run(
                check_missing(Task(one.query), delegator=Delegator(llm), model="small", rule=rule)
            )
            spent = CHECK_USD * len(llm.requests)
            plain = 0.0 if check.missing else 2 * SAMPLE_USD
            assert found.asked[at] == check.missing
            assert found.cost[at] == pytest.approx(spent + plain)


def test_a_word_that_is_not_logged_cannot_be_replayed() -> None:
    with pytest.raises(EvaluationError, match="'q1000': the rule asks a model"):
        replay_asking(whole(2), MissingRule({"model": 1.0}, 0.5), deliberating=RULE)


def test_a_group_is_never_parted() -> None:
    groups = [replace(one, group=f"g{n % 3}") for n, one in enumerate([*gapped(10), *whole(30)])]
    assert calibrated(groups, folds=3).folds == 3
    with pytest.raises(EvaluationError, match="folds: expected 2 to 3, got 4"):
        calibrated(groups, folds=4)


def test_the_same_log_and_seed_give_the_same_figures_ready_for_json() -> None:
    queries = [*gapped(10, named=True), *whole(30, named=False)]
    first = calibrated(queries).to_json()
    assert first == calibrated(queries).to_json()
    told = json.loads(json.dumps(first, allow_nan=False))
    assert told["lacking"] == 10
    assert [one["name"] for one in told["rows"]] == [
        "ask", "deliberate", "always", "never", "length", "short",
    ]  # fmt: skip
    assert told["signals"] == {"placeholder": [10, 0], "model": [10, 0]}
    assert len(told["chosen"]) == 5


@pytest.mark.parametrize(
    ("queries", "why"),
    [
        (whole(40), "40 of 40 queries say whether they lack something, and 0 of these do; log 20"),
        ([*gapped(5), *whole(5)], "log 20 or more"),
        ([*gapped(5), *whole(40, lacks=None)], "5 of 45 queries say"),
        ([*gapped(5), *[replace(q, check=Check(True, None)) for q in whole(20)]], "unknown cost"),
    ],
)
def test_logs_that_cannot_answer_are_refused(queries: list[SampledQuery], why: str) -> None:
    with pytest.raises(EvaluationError, match=why):
        calibrated(queries)


def test_a_rule_that_wants_more_samples_than_are_logged_is_refused() -> None:
    with pytest.raises(EvaluationError, match="the rule wants 3 samples, and 2 are logged"):
        calibrate_asking([*gapped(10), *whole(30)], rule=Rule(3, 1.0))


def test_an_unknown_cost_of_steps_is_told_where_a_rule_goes_by_steps() -> None:
    log = [
        SampledQuery(
            f"q{n}", "?", (Sample("Answer: 1", 1, 0.1),) * 2, StrongOutcome(1, 1),
            lacks=n % 2 == 0, stepped=(Sample("1. 1 = 1", 1, None),) * 2,
        )
        for n in range(20)
    ]  # fmt: skip
    with pytest.raises(EvaluationError, match="'q0': an unknown cost"):
        calibrate_asking(log, rule=Rule(2, at="step"))
    calibrate_asking(log, rule=Rule(2))


def test_the_length_of_a_message_counts_what_it_was_given_with() -> None:
    """Only the strong model knows what stands in a context, and is asked by length alone."""
    rules = []
    for context in ("", "a" * 50):
        log = [
            SampledQuery(
                f"q{n}", "?", (Sample("Answer: 1", float(n % 2), 0.1),) * 2, StrongOutcome(1, 1),
                lacks=n % 4 == 1, context="" if n % 2 else context,
            )
            for n in range(40)
        ]  # fmt: skip
        found = calibrate_asking(log, rule=Rule(2), cost_weight=0.01)
        rules.append(next(row for row in found.rows if row.name == "length"))
    assert rules[1].delegated == 0.5
    assert rules[1].score.mean == 1.0
    assert rules[0].delegated == 1.0
