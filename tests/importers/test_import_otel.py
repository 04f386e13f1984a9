"""OpenTelemetry GenAI spans become records: agents, remote agents, messages, evaluations."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.importers.samples import (
    TRACE,
    Data,
    agent,
    any_value,
    attributes,
    bring,
    chat,
    evaluation,
    events,
    lines,
    messages,
    span,
    spans,
)

from masrouter.errors import LogError
from masrouter.importers import Format
from masrouter.types import Agent, Usage

OTEL = Format.otel


def team() -> list[Data]:
    """A planner that hands over to a solver, under a workflow and a plain function's span."""
    return [
        span(5, chat("gpt-4o-mini", "Solve it."), parent=4, start=5, end=8),
        span(4, agent("solver", **{"gen_ai.request.model": "gpt-4o-mini"}), parent=6, start=4),
        span(6, {"code.function.name": "solve"}, parent=2, start=4),
        span(3, chat("gpt-4", "Plan it."), parent=2, start=1, end=3),
        span(2, agent("planner", **{"team": "chain"}), parent=1, start=1, end=8),
        span(1, agent("desk", **{"gen_ai.input.messages": messages("Book a trip")}), end=9),
    ]


def test_a_chat_span_becomes_a_run(tmp_path: Path) -> None:
    (record,) = bring(OTEL, lines(tmp_path / "t.jsonl", [spans(span(1, chat()))])).logs
    assert record.run_id == f"otel:{TRACE}"
    assert record.query == "Weather in Paris?"
    assert record.plan.topology == "io"
    assert record.plan.agents == (Agent(None, "gpt-4"),)
    assert record.usage == Usage(52, 47, None)
    assert (record.latency_s, record.timestamp) == (1.0, "2018-12-13T14:51:00Z")


def test_agents_become_a_team_and_their_spans_count_no_tokens_twice(tmp_path: Path) -> None:
    rows = team()
    summed = {"gen_ai.usage.input_tokens": 104, "gen_ai.usage.output_tokens": 94}
    rows[1]["attributes"] += attributes(summed)
    imported = bring(OTEL, lines(tmp_path / "t.jsonl", [spans(*rows)]), topology_key="team")
    (record,) = imported.logs
    assert str(record.plan) == "chain(planner@gpt-4, solver@gpt-4o-mini)"
    assert record.query == "Book a trip"
    assert record.agent_usage == (Usage(52, 47), Usage(52, 47))
    assert record.latency_s == 9.0
    assert imported.report.ignored == {"span without gen_ai attributes": 1}


def test_a_remote_agent_without_calls_below_is_a_call(tmp_path: Path) -> None:
    found = agent("clerk") | {
        "gen_ai.request.model": "gpt-4",
        "gen_ai.usage.input_tokens": 8,
        "gen_ai.input.messages": messages("Hello"),
    }
    (record,) = bring(OTEL, lines(tmp_path / "t.jsonl", [spans(span(1, found))])).logs
    assert record.plan.agents == (Agent("clerk", "gpt-4"),)
    assert record.usage == Usage(8, None, None)


def test_spans_of_a_trace_come_from_any_line_and_file_and_twice(tmp_path: Path) -> None:
    rows = team()
    first = lines(tmp_path / "a.json", [spans(*rows[:2]), spans(*rows[2:4])])
    second = tmp_path / "b.json"
    second.write_text(json.dumps(spans(*rows[3:]), indent=1))
    imported = bring(OTEL, [first, second], topology_key="team")
    (record,) = imported.logs
    assert str(record.plan) == "chain(planner@gpt-4, solver@gpt-4o-mini)"
    assert imported.report.duplicates == 1


def test_messages_that_come_as_events_are_the_query(tmp_path: Path) -> None:
    details = {
        "eventName": "gen_ai.client.inference.operation.details",
        "traceId": TRACE.upper(),
        "spanId": f"{1:016x}",
        "attributes": attributes(chat(text="Tell me a joke")),
    }
    rows = [events(details), spans(span(1, chat(text=None)))]
    imported = bring(OTEL, lines(tmp_path / "t.jsonl", rows))
    assert next(iter(imported.logs)).query == "Tell me a joke"
    assert imported.report.rows_in_records == 2


def test_names_of_earlier_conventions_are_read(tmp_path: Path) -> None:
    found = {
        "gen_ai.system": "openai",
        "gen_ai.request.model": "gpt-4",
        "gen_ai.usage.prompt_tokens": 5,
        "gen_ai.usage.completion_tokens": 6,
    }
    prompt = json.dumps([{"role": "user", "content": "Old question"}])
    event = {"name": "gen_ai.content.prompt", "attributes": attributes({"gen_ai.prompt": prompt})}
    logged = {
        "traceId": "b" * 32,
        "spanId": f"{2:016x}",
        "attributes": attributes({"event.name": "gen_ai.user.message"}),
        "body": any_value({"content": "Newer question"}),
    }
    rows = [
        spans(span(1, found, events=[event]), span(2, chat(text=None), trace="b" * 32)),
        events(logged),
    ]
    first, second = bring(OTEL, lines(tmp_path / "t.jsonl", rows)).logs
    assert (first.query, second.query) == ("Old question", "Newer question")
    assert first.usage == Usage(5, 6, None)


@pytest.mark.parametrize(
    ("changes", "found", "error"),
    [
        ({"status": {"code": 2, "message": "quota"}}, {}, "quota"),
        ({"status": {"code": 2}}, {"error.type": "timeout"}, "timeout"),
        ({"status": {"code": 2, "message": "slow"}}, {"error.type": "timeout"}, "timeout: slow"),
        ({"status": {"code": 1}}, {}, None),
    ],
)
def test_a_failed_span_is_kept_with_its_error(
    tmp_path: Path, changes: Data, found: Data, error: str | None
) -> None:
    row = span(1, chat(**{"gen_ai.usage.input_tokens": None}, **found), **changes)
    (record,) = bring(OTEL, lines(tmp_path / "t.jsonl", [spans(row)])).logs
    assert record.error == error
    assert record.usage.prompt_tokens is None


def test_evaluations_join_by_span_trace_and_response(tmp_path: Path) -> None:
    rows: list[Any] = [spans(span(1, chat()))]
    response = {"gen_ai.response.id": "chatcmpl-9J3uIL87gldCFtiIbyaOvTeYBRA3l"}
    alone = evaluation(1.0, **response)
    del alone["traceId"]
    for event in (evaluation(1.0), evaluation(1.0, number=1), alone):
        path = lines(tmp_path / "t.jsonl", [*rows, events(event)])
        with pytest.raises(LogError, match="nothing says what scored it"):
            bring(OTEL, path)
        (record,) = bring(OTEL, path, score_source="judge").logs
        assert (record.score, record.score_source) == (1.0, "judge")


def test_an_evaluation_on_the_span_itself_is_read(tmp_path: Path) -> None:
    event = {
        "name": "gen_ai.evaluation.result",
        "timeUnixNano": "1544712670000000000",
        "attributes": evaluation(4.0)["attributes"],
    }
    path = lines(tmp_path / "t.jsonl", [spans(span(1, chat(), events=[event]))])
    with pytest.raises(LogError, match="scores go from 4 to 4"):
        bring(OTEL, path, score_source="judge")
    imported = bring(OTEL, path, score_source="judge", score_range=(1, 5))
    assert next(iter(imported.logs)).score == 0.75
    assert imported.report.rows_in_records == 2


def test_an_evaluation_of_one_agent_is_not_the_teams(tmp_path: Path) -> None:
    rows = [spans(*team()), events(evaluation(0.0, number=5), evaluation(1.0, number=1))]
    imported = bring(
        OTEL, lines(tmp_path / "t.jsonl", rows), topology_key="team", score_source="judge"
    )
    assert next(iter(imported.logs)).score == 1.0
    assert imported.report.rejected == 1


def test_labels_of_evaluations_need_a_worth(tmp_path: Path) -> None:
    label = {"gen_ai.evaluation.score.label": "pass"}
    path = lines(tmp_path / "t.jsonl", [spans(span(1, chat())), events(evaluation(None, **label))])
    given = {"score_source": "judge", "score_labels": {"pass": 1.0}}
    assert next(iter(bring(OTEL, path, **given).logs)).score == 1.0
    assert next(iter(bring(OTEL, path, score_source="judge").logs)).score is None


def test_parts_that_are_no_text_are_told(tmp_path: Path) -> None:
    parts = [
        {"type": "text", "content": "What is in the attached data?"},
        {"type": "blob", "modality": "image", "mime_type": "image/png", "content": "aGVsbG8="},
    ]
    # On spans the conventions allow the messages as JSON text.
    found = chat(text=None) | {
        "gen_ai.input.messages": json.dumps([{"role": "user", "parts": parts}])
    }
    imported = bring(OTEL, lines(tmp_path / "t.jsonl", [spans(span(1, found))]))
    assert next(iter(imported.logs)).query == "What is in the attached data?"
    assert imported.report.notes == {"parts of queries that are no text, left out: blob": 1}


def test_what_is_no_call_is_ignored_by_name(tmp_path: Path) -> None:
    rows = [
        spans(
            span(1, chat()),
            span(2, {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "get_weather"}),
            span(3, {"gen_ai.operation.name": "embeddings", "gen_ai.request.model": "ada"}),
        ),
        events({"eventName": "gen_ai.choice"}, {"body": any_value("started")}),
        {"resourceMetrics": []},
    ]
    report = bring(OTEL, lines(tmp_path / "t.jsonl", rows)).report
    assert report.ignored == {
        "span of operation execute_tool": 1,
        "span of operation embeddings": 1,
        "event gen_ai.choice": 1,
        "log record not of GenAI": 1,
        "metrics": 1,
    }
    assert report.unmapped_fields["gen_ai.request.top_p"] == 1
    assert "gen_ai.request.model" not in report.unmapped_fields


def test_a_cost_attribute_is_read_where_it_is_named(tmp_path: Path) -> None:
    path = lines(tmp_path / "t.jsonl", [spans(span(1, chat(**{"gen_ai.usage.cost": 0.5})))])
    (record,) = bring(OTEL, path, cost_key="gen_ai.usage.cost").logs
    assert record.usage.cost_usd == 0.5


def test_malformed_rows_are_listed_and_none_is_lost(tmp_path: Path) -> None:
    rows: list[Any] = [
        spans(span(1, chat())),
        spans(span(2, chat(), traceId="")),
        spans(span(3, chat(), trace="c" * 32, startTimeUnixNano="soon")),
        spans(span(4, chat(**{"gen_ai.usage.input_tokens": "many"}), trace="d" * 32)),
        spans(span(5, chat(**{"gen_ai.request.model": None, "gen_ai.response.model": None}))),
        spans("no span"),
        {"resourceSpans": {"not": "a list"}},
        {"resourceSpans": ["no object"]},
        {"something": "else"},
        events(evaluation(None)),
        events(evaluation(1.0, number=77)),
        spans(span(6, {}, attributes="none")),
        "{",
    ]
    path = lines(tmp_path / "t.jsonl", rows)
    report = bring(OTEL, path, score_source="judge").report
    # A call of the one good trace names no model, so that the run is not whole either.
    assert (report.records, report.rejected) == (0, 13)
    told = "\n".join(report.examples)
    place = "resourceSpans[0] scopeSpans[0] spans[0]"
    assert f"{path}:2 {place}: traceId: expected an id, got none" in told
    assert f"{path}:4 {place}: gen_ai.usage.input_tokens: expected an integer >= 0" in told
    assert f"{path}:5 {place}: gen_ai.request.model: a call names no model" in told
    assert f"{path}:7 resourceSpans: row: expected resourceSpans or resourceLogs" in told
    assert f"{path}:8 resourceSpans[0]: row: expected" in told


def test_the_last_message_by_time_is_the_query(tmp_path: Path) -> None:
    def said(at: int, text: str) -> Data:
        return {
            "timeUnixNano": str(at),
            "traceId": TRACE,
            "spanId": f"{1:016x}",
            "eventName": "gen_ai.user.message",
            "body": any_value({"content": text}),
        }

    rows = [events(said(20, "And now?"), said(10, "Hello"), said(10, "Hello"))]
    path = lines(tmp_path / "t.jsonl", [*rows, spans(span(1, chat(text=None)))])
    imported = bring(OTEL, path)
    assert next(iter(imported.logs)).query == "And now?"
    note = "queries that follow earlier turns, which the text does not show"
    assert imported.report.notes == {note: 1}


def test_a_chat_span_inside_one_of_the_same_tokens_counts_once(tmp_path: Path) -> None:
    rows = spans(span(1, chat()), span(2, {"code.function.name": "f"}, parent=1))
    more = spans(span(3, chat("gpt-4-0613"), parent=2))
    (record,) = bring(OTEL, lines(tmp_path / "t.jsonl", [rows, more])).logs
    assert str(record.plan) == "io(gpt-4-0613)"
    assert record.usage == Usage(52, 47, None)
