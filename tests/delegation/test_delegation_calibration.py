"""Choosing when to delegate on logged samples, and what that choice is worth on others."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.delegation.sampled_logs import CHEAP, DEAR, sampled
from typer.testing import CliRunner

from masrouter.cli_deliberate import app
from masrouter.delegation.calibration.agreement import Calibration, calibrate
from masrouter.delegation.calibration.choosing import Goal
from masrouter.delegation.calibration.measuring import told_json
from masrouter.delegation.calibration.sampled import (
    Parting,
    Sample,
    SampledQuery,
    StepOutcome,
    StrongOutcome,
    read_samples,
)
from masrouter.delegation.deliberation.agreement import Rule
from masrouter.delegation.deliberation.thresholds import Thresholds
from masrouter.errors import ConfigError, EvaluationError

DATA = Path(__file__).resolve().parents[2] / "data" / "problems"


def agreeing_log(count: int = 60) -> list[SampledQuery]:
    """Where the cheap model is right its samples agree; where it is not they differ."""
    easy = [sampled(f"easy-{n}", "rrr", query="short") for n in range(count // 2)]
    hard = [sampled(f"hard-{n}", "wxy", query="short") for n in range(count // 2)]
    return [*easy, *hard]


def by_name(found: Calibration) -> dict[str, Any]:
    return {row.name: row for row in found.rows}


def test_where_agreement_tells_all_of_the_score_is_kept_for_half_the_cost() -> None:
    found = calibrate(agreeing_log(), goal=Goal(tolerance=0.0))
    rows = by_name(found)
    assert rows["deliberate"].score.mean == 1.0
    assert rows["deliberate"].delegated == pytest.approx(0.5)
    assert rows["always"].score.mean == 1.0
    assert rows["never"].score.mean == pytest.approx(0.5)
    assert rows["vote"].score.mean == pytest.approx(0.5)
    assert rows["length"].delegated == 1.0  # all queries are of one length
    assert found.rule.needed == 2
    against = {one.name: one for one in found.against}
    assert against["always"].score.mean == 0.0
    saved = against["always"].cost_saved
    assert 0.3 < saved.interval.low < saved.mean == pytest.approx(0.48)
    assert against["never"].cost_saved.mean < 0
    assert against["coin"].cost_saved.mean == pytest.approx(0.0, abs=1e-9)
    assert against["coin"].score.interval.low > 0


def test_where_agreement_tells_nothing_the_figures_do_not_pretend_it_does() -> None:
    log = [
        sampled(f"{''.join(answers)}-{n}", "".join(answers), strong=n % 2)
        for answers in itertools.product("rw", repeat=3)
        for n in range(20)
    ]
    against = {one.name: one for one in calibrate(log).against}
    assert 0 in against["coin"].score.interval


def test_length_is_given_the_same_chance() -> None:
    easy = [sampled(f"easy-{n}", "rwx", query="short") for n in range(40)]
    hard = [sampled(f"hard-{n}", "wxr", query="a longer one") for n in range(40)]
    found = calibrate([*easy, *hard], goal=Goal(tolerance=0.0))
    rows = by_name(found)
    assert found.length == len("a longer one")
    assert (rows["length"].score.mean, rows["length"].delegated) == (1.0, 0.5)
    assert rows["deliberate"].delegated == 1.0  # no two samples agree anywhere
    assert {one.name: one for one in found.against}["length"].cost_saved.mean < 0


def test_a_cost_weight_chooses_by_what_score_is_worth() -> None:
    log = [sampled(f"a-{n}", "wwr") for n in range(30)] + [
        sampled(f"b-{n}", "rrr") for n in range(30)
    ]
    assert calibrate(log, goal=Goal(cost_weight=0.0)).rule.needed == 3
    assert calibrate(log, goal=Goal(cost_weight=1000.0)).rule.needed == 2


def test_every_figure_is_of_queries_that_its_choice_has_not_seen() -> None:
    """On one fold alone a wrong pair agrees: the rule of the others lets it through there."""
    log = agreeing_log(40)
    fold = np.random.default_rng(0).permutation(np.arange(40) % 5)
    odd = [sampled(q.query_id, "wwy") if fold[n] == 0 else q for n, q in enumerate(log)]
    found = calibrate(odd, goal=Goal(tolerance=0.0), rules=[Rule(3, 2 / 3), Rule(3, 1.0)])
    assert [rule.needed for rule in found.chosen] == [2, 3, 3, 3, 3]
    assert by_name(found)["deliberate"].score.mean == pytest.approx(1 - 8 / 40)


def stepped_log(count: int = 40, *, step_usd: float) -> list[SampledQuery]:
    """Half of it parts at a step; the strong worker's step puts the cheap model right."""
    said = ("1. 1 + 1 = 2\nAnswer: 2", "1. 1 + 1 = 3\nAnswer: 3")
    hard = tuple(Sample(text, float(text is said[0]), CHEAP) for text in said)
    parting = Parting((), StepOutcome("1 + 1 = 2", step_usd), hard[:1])
    return [
        SampledQuery(
            f"{n}", "?", (hard[0], hard[n % 2]), StrongOutcome(1.0, DEAR),
            stepped=(hard[0], hard[n % 2]), partings=(parting,) if n % 2 else (),
        )
        for n in range(count)
    ]  # fmt: skip


def test_a_step_is_delegated_where_it_is_cheaper_than_the_whole_task_and_only_there() -> None:
    found = calibrate(stepped_log(step_usd=0.01), goal=Goal(tolerance=0.0))
    assert found.rule.at == "step"
    rows = by_name(found)
    assert [row.name for row in found.rows] == [
        "deliberate", "whole", "step", "always", "never", "length", "vote", "coin",
    ]  # fmt: skip
    assert (rows["deliberate"].score.mean, rows["whole"].score.mean) == (1.0, 1.0)
    assert (rows["step"].delegated, rows["step"].handed) == (0.0, 0.5)
    assert (rows["whole"].delegated, rows["whole"].handed) == (0.5, 0.0)
    assert rows["step"].cost_usd.mean == pytest.approx(2.5 * CHEAP + 0.005)
    against = {one.name: one for one in found.against}
    assert against["step"].cost_saved.mean == 0.0
    assert against["whole"].cost_saved.interval.low > 0
    assert {one["at"] for one in found.to_json()["chosen"]} == {"step"}
    dear = calibrate(stepped_log(step_usd=DEAR), goal=Goal(tolerance=0.0))
    assert dear.rule.at == "task"
    assert by_name(dear)["deliberate"] == replace(by_name(dear)["whole"], name="deliberate")


def test_samples_in_steps_of_some_queries_only_are_refused() -> None:
    log = [*stepped_log(step_usd=0.01), *agreeing_log()]
    with pytest.raises(EvaluationError, match="40 of 100 queries were collected with steps, and"):
        calibrate(log)
    assert calibrate(log, rules=[Rule(2)]).rule == Rule(2)


def test_queries_of_one_group_are_chosen_on_and_drawn_together() -> None:
    """Each query twice in a group says no more than each once: the intervals must know."""
    once = agreeing_log(40)
    twice = [
        replace(query, query_id=f"{query.query_id}-{n}", group=query.query_id)
        for query in once
        for n in range(2)
    ]
    one, other = calibrate(once), calibrate(twice)
    for row, same in zip(one.rows, other.rows, strict=True):
        assert told_json(same.score) == pytest.approx(told_json(row.score))
        assert told_json(same.cost_usd) == pytest.approx(told_json(row.cost_usd))
    with pytest.raises(EvaluationError, match="folds: expected 2 to 1, got 5"):
        calibrate([replace(query, group="all") for query in once])


def test_the_length_of_a_message_counts_what_it_was_given_with() -> None:
    easy = [sampled(f"easy-{n}", "rwx", query="?") for n in range(40)]
    hard = [replace(sampled(f"hard-{n}", "wxr"), context="a" * 9) for n in range(40)]
    assert calibrate([*easy, *hard], goal=Goal(tolerance=0.0)).length == 10


def test_the_same_log_and_seed_give_the_same_figures() -> None:
    one, other = calibrate(agreeing_log(), seed=3), calibrate(agreeing_log(), seed=3)
    assert one == other
    assert json.loads(json.dumps(one.to_json(), allow_nan=False)) == one.to_json()


@pytest.mark.parametrize(
    ("log", "options", "why"),
    [
        (agreeing_log(10), {}, "10 queries are too few"),
        (agreeing_log(), {"folds": 1}, "folds: expected 2"),
        (agreeing_log(), {"rules": [Rule(4)]}, "wants 4 samples, and query 'easy-0' has 3"),
        (
            [*agreeing_log(), SampledQuery("u", "?", (Sample("a", 1, None),) * 2,
                                           StrongOutcome(1, 1))],
            {},
            "'u': an unknown cost",
        ),
    ],
)  # fmt: skip
def test_logs_that_cannot_answer_are_refused(
    log: list[SampledQuery], options: dict[str, Any], why: str
) -> None:
    with pytest.raises(EvaluationError, match=why):
        calibrate(log, **options)


@pytest.mark.parametrize("goal", [(-0.1, None), (None, None), (0.0, float("nan"))])
def test_goals_that_cannot_be_are_refused(goal: tuple[float | None, float | None]) -> None:
    with pytest.raises(EvaluationError, match="tolerance or a cost weight"):
        Goal(*goal)


def test_the_command_collects_calibrates_and_reports(tmp_path: Path) -> None:
    samples, thresholds = tmp_path / "samples.jsonl", tmp_path / "thresholds.json"
    problems = str(DATA / "math.jsonl")
    run = CliRunner()

    def call(*words: str | Path) -> Any:
        result = run.invoke(app, list(map(str, words)), catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result

    names = ("--cheap", "gpt-4o-mini", "--strong", "o3-mini")
    call("collect", "-p", problems, *names, "-o", samples, "--limit", "30", "--samples", "3")
    assert len(read_samples(samples)) == 30
    shown = call("calibrate", samples, "-o", thresholds)
    assert "deliberate" in shown.output
    rule = Thresholds.load(thresholds).rule
    assert rule is not None
    told = json.loads(call("report", samples, "--json").stdout)
    assert (told["rule"]["samples"], told["rule"]["needed"]) == (rule.samples, rule.needed)
    assert [row["name"] for row in told["rows"]] == [
        "deliberate", "always", "never", "length", "vote", "coin",
    ]  # fmt: skip
    again = run.invoke(app, ["collect", "-p", problems, *names, "-o", str(samples)])
    assert isinstance(again.exception, ConfigError)


def test_a_provider_that_is_down_is_told_and_makes_no_log_to_calibrate_on(tmp_path: Path) -> None:
    providers = tmp_path / "providers.yaml"
    providers.write_text(
        "providers:\n  gone: {base_url: 'http://127.0.0.1:9/v1', api_key_env: null, "
        "retry: {tries: 1}, models: {m: , n: }}\n"
    )
    problems = tmp_path / "sums.jsonl"
    problems.write_text('{"question": "What is 17 + 25?", "answer": "42"}\n')
    out = tmp_path / "s.jsonl"
    done = CliRunner().invoke(
        app,
        ["collect", "-p", str(problems), "--llm", str(providers), "--cheap", "m", "--strong", "n",
         "--samples", "2", "-o", str(out)],
    )  # fmt: skip
    assert isinstance(done.exception, ConfigError)
    assert "most calls failed" in str(done.exception)
    assert "3 calls failed and count as wrong answers; the first: " in done.stderr


def test_against_what_costs_nothing_no_share_is_saved() -> None:
    free = [
        replace(query, samples=tuple(replace(one, cost_usd=0.0) for one in query.samples))
        for query in agreeing_log()
    ]
    found = calibrate(free)
    told = {one["name"]: one["saved"] for one in found.to_json()["against"]}
    assert told["never"] == {"mean": None, "low": None, "high": None}
    assert told["always"]["mean"] > 0
