"""Choosing when to delegate on logged samples, and what that choice is worth on others."""

from __future__ import annotations

import asyncio
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.delegation.scripted import DOWN, Said, ScriptedModel
from typer.testing import CliRunner

from masrouter.cli_deliberate import app
from masrouter.delegation.delegator import Delegator
from masrouter.delegation.deliberation.agreement import Rule
from masrouter.delegation.deliberation.calibration import Calibration, Goal, calibrate, replay
from masrouter.delegation.deliberation.deliberating import deliberate
from masrouter.delegation.deliberation.missing import MissingRule
from masrouter.delegation.deliberation.sampled import (
    Sample,
    SampledQuery,
    StrongOutcome,
    collect_samples,
    read_samples,
    writing_samples,
)
from masrouter.delegation.deliberation.thresholds import Thresholds
from masrouter.delegation.tasks import DelegationError, Grading, Task, TaskResult
from masrouter.errors import ConfigError, EvaluationError, LogError
from masrouter.llms.chat import ChatRequest

DATA = Path(__file__).resolve().parents[2] / "data" / "problems"
CHEAP, DEAR = 0.001, 0.1


def sampled(name: str, answers: str, *, strong: float = 1.0, query: str = "?") -> SampledQuery:
    """A query with a sample a letter: `r` is right, `.` failed, any other letter is wrong."""
    return SampledQuery(
        query_id=name,
        query=query,
        samples=tuple(
            Sample("" if one == "." else f"Answer: {ord(one)}", float(one == "r"), CHEAP)
            for one in answers
        ),
        strong=StrongOutcome(strong, DEAR),
    )


def agreeing_log(count: int = 60) -> list[SampledQuery]:
    """Where the cheap model is right its samples agree; where it is not they differ."""
    easy = [sampled(f"easy-{n}", "rrr", query="short") for n in range(count // 2)]
    hard = [sampled(f"hard-{n}", "wxy", query="short") for n in range(count // 2)]
    return [*easy, *hard]


def test_a_rule_gives_and_costs_what_its_samples_and_the_strong_worker_do() -> None:
    log = [sampled("a", "rrr"), sampled("b", "wwr"), sampled("c", "wxy"), sampled("d", "..r")]
    found = replay(log, Rule(3, 2 / 3))
    assert found.score.tolist() == [1, 0, 1, 1]
    assert found.delegated.tolist() == [0, 0, 1, 1]
    agreed, parted = 3 * CHEAP, 3 * CHEAP + DEAR
    assert found.cost.tolist() == pytest.approx([agreed, agreed, parted, parted])
    assert replay(log, Rule(3, 1.0)).delegated.tolist() == [0, 1, 1, 1]
    early = replay(log, Rule(3, 2 / 3, stop_early=True))
    assert early.score.tolist() == found.score.tolist()
    assert early.cost.tolist() == pytest.approx(
        [2 * CHEAP, 2 * CHEAP, 3 * CHEAP + DEAR, 2 * CHEAP + DEAR]
    )
    vote = replay(log, Rule(3, 1.0), delegate=False)
    assert vote.score.tolist() == [1, 0, 0, 1]
    assert vote.cost.tolist() == pytest.approx([3 * CHEAP] * 4)


@given(
    st.text(alphabet="rwx.", min_size=5, max_size=5),
    st.integers(2, 5),
    st.floats(0.1, 1.0),
    st.booleans(),
)
@settings(max_examples=25, deadline=None)
def test_a_log_is_judged_as_the_policy_would_have_acted(
    answers: str, samples: int, threshold: float, stop_early: bool
) -> None:
    rule = Rule(samples, threshold, stop_early)
    log = sampled("a", answers)
    replies: list[Said] = [DOWN if not one.text else one.text for one in log.samples]

    def say(request: ChatRequest) -> Said:
        return replies.pop(0)

    llm = ScriptedModel({"small": say, "big": "Answer: strong"})
    live = asyncio.run(
        deliberate("?", cheap="small", strong="big", rule=rule, delegator=Delegator(llm))
    )
    found = replay([log], rule)
    assert (live.outcome == "delegated") == bool(found.delegated[0])
    assert found.cost[0] == pytest.approx(
        len(live.samples) * CHEAP + (DEAR if live.outcome == "delegated" else 0)
    )
    if live.outcome == "agreed":
        assert found.score[0] == float(live.answer == f"Answer: {ord('r')}")


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


def test_the_same_log_and_seed_give_the_same_figures() -> None:
    one, other = calibrate(agreeing_log(), seed=3), calibrate(agreeing_log(), seed=3)
    assert one == other
    assert json.loads(json.dumps(one.to_json(), allow_nan=False)) == one.to_json()


@pytest.mark.parametrize(
    ("log", "options", "why"),
    [
        (agreeing_log(10), {}, "10 queries are too few"),
        (agreeing_log(), {"folds": 1}, "folds: expected 2"),
        (agreeing_log(), {"rules": [Rule(4)]}, "wants 4 samples, and a query has 3"),
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


def test_samples_come_back_from_a_file_as_they_went(tmp_path: Path) -> None:
    log = [*agreeing_log(4), SampledQuery("ü", "é\n?", (Sample("", 0.0, None),) * 2,
                                          StrongOutcome(0.5, 0.0), "math")]  # fmt: skip
    with writing_samples(tmp_path / "s.jsonl") as write:
        for query in log:
            write(query)
    assert list(read_samples(tmp_path / "s.jsonl")) == log
    with pytest.raises(LogError, match="exists already"), writing_samples(tmp_path / "s.jsonl"):
        raise AssertionError("nothing can be written")


GOOD = {
    "query_id": "a",
    "query": "?",
    "samples": [{"text": "x", "score": 1, "cost_usd": 0.1}] * 2,
    "strong": {"score": 0, "cost_usd": None},
}


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"query_id": ""}, "query_id: expected non-empty text"),
        ({"query": 3}, "query: expected non-empty text"),
        ({"samples": []}, "samples: expected a list of 2 to 64"),
        ({"samples": [{"text": "x", "score": 1, "cost_usd": 0.1}, 3]}, r"samples\[1\]: expected"),
        ({"samples": [{"text": 1, "score": 1, "cost_usd": 0}] * 2}, r"samples\[0\].text"),
        ({"samples": [{"text": "x", "score": 2, "cost_usd": 0}] * 2}, r"samples\[0\].score"),
        ({"samples": [{"text": "x", "score": 1, "cost_usd": -1}] * 2}, r"samples\[0\].cost_usd"),
        ({"samples": [{"text": "x", "score": 1}] * 2}, "cost_usd: expected US dollars"),
        ({"strong": {"score": True, "cost_usd": 0}}, "strong.score"),
        ({"strong": None}, "strong: expected an object"),
        ({"strong": {"score": 1, "cost_usd": 0, "model": "x"}}, "unknown key 'model'"),
        ({"scores": 1}, "unknown key 'scores'"),
        ({"task": 4}, "task: expected non-empty text"),
    ],
)
def test_a_bad_line_is_told_by_file_line_and_field(
    change: dict[str, Any], why: str, tmp_path: Path
) -> None:
    path = tmp_path / "s.jsonl"
    path.write_text(f"{json.dumps(GOOD)}\n{json.dumps({**GOOD, 'query_id': 'b', **change})}\n")
    with pytest.raises(LogError, match=rf"s\.jsonl:2: .*{why}"):
        read_samples(path)


def test_what_is_no_file_of_samples_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "s.jsonl"
    with pytest.raises(LogError, match="cannot be read"):
        read_samples(path)
    path.write_text("\n")
    with pytest.raises(LogError, match="no samples there"):
        read_samples(path)
    path.write_text(f"{json.dumps(GOOD)}\n{json.dumps(GOOD)}\n")
    with pytest.raises(LogError, match=r"'a' stands already at .*s\.jsonl:1"):
        read_samples(path)
    path.write_text('{"query_id": NaN\n')
    with pytest.raises(LogError, match=r"s\.jsonl:1: line"):
        read_samples(path)


def graded(answer: str) -> Grading:
    return Grading(float(answer == "Answer: 4"), "exact_match")


def test_samples_are_collected_through_a_delegator_and_graded() -> None:
    def say(request: ChatRequest) -> Said:
        return DOWN if "broken" in request.messages[-1].content else "Answer: 4"

    llm = ScriptedModel({"small": say, "big": "Answer: 5"})
    tasks = [Task("Add.", id="a", kind="math", grade=graded), Task("broken", id="b", grade=graded)]
    failed: list[TaskResult] = []
    one, other = asyncio.run(
        collect_samples(
            tasks, cheap="small", strong="big", delegator=Delegator(llm), samples=3,
            on_failure=failed.append,
        )
    )  # fmt: skip
    assert sorted(result.id for result in failed) == ["b-sample-1", "b-sample-2", "b-sample-3"]
    assert (one.query_id, one.query, one.task) == ("a", "Add.", "math")
    assert [(s.text, s.score) for s in one.samples] == [("Answer: 4", 1.0)] * 3
    assert one.strong.score == 0.0
    assert all(sample.cost_usd for sample in one.samples)
    assert [(s.text, s.score) for s in other.samples] == [("", 0.0)] * 3
    assert len({request.seed for request in llm.requests}) == 8


def test_what_was_paid_for_is_kept_where_the_money_runs_out() -> None:
    llm = ScriptedModel({"small": "Answer: 4", "big": "Answer: 4"})
    tasks = [Task(f"Add {n}.", id=str(n), max_tokens=4, grade=graded) for n in range(30)]
    kept: list[SampledQuery] = []

    def collect(budget_usd: float | None) -> tuple[SampledQuery, ...]:
        kept.clear()
        delegator = Delegator(llm)
        return asyncio.run(
            collect_samples(
                tasks, cheap="small", strong="big", delegator=delegator, samples=2,
                budget_usd=budget_usd, max_concurrency=2, on_query=kept.append,
            )
        )  # fmt: skip

    whole = collect(None)
    assert tuple(kept) == whole
    cost = sum(s.cost_usd or 0.0 for one in whole for s in (*one.samples, one.strong))
    with pytest.raises(DelegationError, match="budget"):
        collect(0.5 * cost)
    assert 3 < len(kept) < 30
    assert set(kept) <= set(whole)


def test_a_file_is_there_query_by_query_and_not_for_nothing(tmp_path: Path) -> None:
    path = tmp_path / "s.jsonl"
    samples = (Sample("half a \ud800 pair", 1.0, 0.1),) * 2
    one = SampledQuery("a", "q", samples, StrongOutcome(1.0, 0.2))
    with writing_samples(path) as write:
        write(one)
        assert read_samples(path) == (one,)
    assert read_samples(path) == (one,)
    with writing_samples(tmp_path / "t.jsonl"):
        assert (tmp_path / "t.jsonl").exists()
    assert not (tmp_path / "t.jsonl").exists()
    lost = tmp_path / "no folder" / "s.jsonl"
    with pytest.raises(LogError, match="cannot be written"), writing_samples(lost):
        raise AssertionError("nothing can be written")


def test_collecting_stops_where_a_name_leads_nowhere_or_nobody_can_grade() -> None:
    delegator = Delegator(ScriptedModel({"small": "Answer: 4"}))
    task = Task("Add.", id="a", grade=graded)

    def collect(*tasks: Task, strong: str = "small") -> None:
        asyncio.run(collect_samples(tasks, cheap="small", strong=strong, delegator=delegator))

    with pytest.raises(DelegationError, match="big"):
        collect(task, strong="big")
    with pytest.raises(ConfigError, match="an id of its own"):
        collect(task, task)
    with pytest.raises(ConfigError, match="needs a grader"):
        collect(Task("Add.", id="a"))
    with pytest.raises(ConfigError, match="gave no grade"):
        collect(Task("Add.", id="a", grade=lambda answer: None))


def test_thresholds_come_back_from_a_file_as_they_went(tmp_path: Path) -> None:
    path = tmp_path / "thresholds.json"
    found = calibrate(agreeing_log())
    kept = Thresholds(found.rule, MissingRule({"bare": 0.5}, 0.5), found.to_json())
    kept.save(path)
    assert Thresholds.load(path) == kept
    Thresholds(Rule(3, 2 / 3)).save(path)
    assert Thresholds.load(path).rule.needed == 2
    assert Thresholds.load(path).missing is None


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"format": "other"}, "format: expected 'masrouter.delegation.thresholds'"),
        ({"version": 2}, "version: this masrouter reads version 1"),
        ({"extra": 1}, "file: unknown key 'extra'"),
        ({"rule": {"samples": 3, "threshold": 1}}, "rule: stop_early: not there"),
        ({"rule": {"samples": 1, "threshold": 1, "stop_early": True}}, "samples: expected"),
        ({"rule": {"samples": 3, "threshold": 2, "stop_early": True}}, "threshold: expected"),
        ({"rule": {"samples": 3, "threshold": 1, "stop_early": 0}}, "stop_early: expected true"),
        ({"missing": {"weights": [], "threshold": 1}}, "weights: expected an object"),
        ({"missing": {"weights": {"x": 1}, "threshold": 1}}, "no signal 'x'"),
        ({"chosen_on": None}, "chosen_on: expected an object"),
    ],
)
def test_a_file_of_thresholds_that_is_none_is_refused(
    change: dict[str, Any], why: str, tmp_path: Path
) -> None:
    path = tmp_path / "thresholds.json"
    Thresholds(Rule()).save(path)
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(ConfigError, match=rf"thresholds\.json: .*{why}"):
        Thresholds.load(path)


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
    told = json.loads(call("report", samples, "--json").stdout)
    assert told["rule"] == {"samples": rule.samples, "needed": rule.needed}
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
