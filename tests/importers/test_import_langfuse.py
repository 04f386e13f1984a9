"""Langfuse exports become records: blob storage files, API pages, whole traces."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.importers.samples import Data, bring, langfuse_score, lines, observation

from masrouter.errors import LogError
from masrouter.importers import Format
from masrouter.types import Agent, LogRecord, Usage

LANGFUSE = Format.langfuse


def team(trace: str = "t1") -> list[Data]:
    """A researcher and a writer under one root, on two models, with a tool between."""

    def under(parent: str, name: str, second: float, **changes: Any) -> Data:
        kind = changes.pop("kind", "GENERATION")
        return observation(name, kind, trace, second, parent_observation_id=parent, **changes)

    ask = json.dumps({"messages": [{"role": "user", "content": "Why is the sky blue?"}]})
    return [
        observation("root", "SPAN", trace, 0, input=ask, end_time="2025-01-01 00:00:09.000000"),
        under("root", "writer", 5, kind="AGENT"),
        under("writer", "g3", 6, provided_model_name="gpt-4o-mini"),
        under("root", "researcher", 1, kind="AGENT"),
        under("researcher", "g1", 1.5),
        under("researcher", "search", 2, kind="TOOL"),
        under("researcher", "g2", 3, total_cost=0.0001),
    ]


def test_a_generation_becomes_a_run(tmp_path: Path) -> None:
    (record,) = bring(LANGFUSE, lines(tmp_path / "o.jsonl", [observation("g")])).logs
    assert record.run_id == "langfuse:t1"
    assert record.query == "Name a prime."
    assert record.plan.topology == "io"
    assert record.plan.agents == (Agent(None, "gpt-4o"),)
    assert record.usage == Usage(12, 3, 0.00006)
    assert (record.latency_s, record.timestamp) == (1.0, "2025-01-01T00:00:00Z")


def test_agents_become_a_team_in_speaking_order(tmp_path: Path) -> None:
    imported = bring(LANGFUSE, lines(tmp_path / "o.jsonl", team()), topology="chain")
    (record,) = imported.logs
    assert str(record.plan) == "chain(researcher@gpt-4o, writer@gpt-4o-mini)"
    assert record.query == "Why is the sky blue?"
    assert record.agent_usage == (Usage(24, 6), Usage(12, 3))
    assert record.usage.cost_usd == pytest.approx(0.00022)
    assert record.latency_s == 9.0
    assert imported.report.rows_in_records == 7


def test_cached_input_counts_as_langfuse_counts_it(tmp_path: Path) -> None:
    usage = {"input": 10, "input_cached_tokens": 90, "output": 5, "output_reasoning": 7, "total": 1}
    row = observation("g", usage_details=usage)
    (record,) = bring(LANGFUSE, lines(tmp_path / "o.jsonl", [row])).logs
    assert record.usage == Usage(100, 12, 0.00006)


def test_a_model_without_a_price_has_an_unknown_cost(tmp_path: Path) -> None:
    row = observation("g", total_cost=0, cost_details={}, model_id="")
    imported = bring(LANGFUSE, lines(tmp_path / "o.jsonl", [row]))
    assert next(iter(imported.logs)).usage.cost_usd is None
    assert sum(imported.report.notes.values()) == 1
    free = observation("g", total_cost=0, cost_details={"input": 0, "output": 0})
    (record,) = bring(LANGFUSE, lines(tmp_path / "o.jsonl", [free])).logs
    assert record.usage.cost_usd == 0.0


def test_an_error_is_kept_without_a_score(tmp_path: Path) -> None:
    row = observation("g", level="ERROR", status_message="overloaded", usage_details={})
    (record,) = bring(LANGFUSE, lines(tmp_path / "o.jsonl", [row])).logs
    assert (record.error, record.score) == ("overloaded", None)
    assert record.usage.prompt_tokens is None


def test_an_evaluators_calls_are_no_part_of_the_team(tmp_path: Path) -> None:
    rows = [
        observation("g"),
        observation("e", "EVALUATOR", second=2),
        observation("judge", second=3, parent_observation_id="e", provided_model_name="gpt-4o"),
        observation("event", "EVENT", second=4),
    ]
    imported = bring(LANGFUSE, lines(tmp_path / "o.jsonl", rows))
    (record,) = imported.logs
    assert record.plan.topology == "io"
    assert imported.report.ignored == {"row of an evaluator": 2, "EVENT observation": 1}


@pytest.mark.parametrize(("source", "wanted"), [("ANNOTATION", "human"), ("EVAL", "judge")])
def test_a_scores_source_is_what_langfuse_documents(
    tmp_path: Path, source: str, wanted: str
) -> None:
    rows = [observation("g"), langfuse_score("t1", 0.5, source=source)]
    (record,) = bring(LANGFUSE, lines(tmp_path / "o.jsonl", rows)).logs
    assert (record.score, record.score_source) == (0.5, wanted)


def test_a_score_by_api_does_not_say_who_scored(tmp_path: Path) -> None:
    path = lines(tmp_path / "o.jsonl", [observation("g"), langfuse_score("t1", 1, source="API")])
    with pytest.raises(LogError, match="nothing says what scored it"):
        bring(LANGFUSE, path)
    (record,) = bring(LANGFUSE, path, score_source="tests").logs
    assert (record.score, record.score_source) == (1.0, "tests")


def test_scores_of_the_whole_run_are_told_from_those_of_a_part(tmp_path: Path) -> None:
    whole = langfuse_score("t1", 1.0, observation_id="root")
    part = langfuse_score("t1", 0.0, observation_id="g1")
    path = lines(tmp_path / "o.jsonl", [*team(), whole, part])
    imported = bring(LANGFUSE, path, topology="chain")
    (record,) = imported.logs
    assert record.score == 1.0
    assert imported.report.rejected == 1
    assert "part 'g1'" in imported.report.examples[0]


def test_scores_without_a_value_and_of_sessions_are_ignored_by_name(tmp_path: Path) -> None:
    rows = [
        observation("g"),
        langfuse_score("t1", 0, "note", data_type="TEXT", string_value="good"),
        langfuse_score(None, 1, session_id="s1"),
        langfuse_score("t1", 1, data_type="BOOLEAN", string_value="True"),
    ]
    imported = bring(LANGFUSE, lines(tmp_path / "o.jsonl", rows))
    assert next(iter(imported.logs)).score == 1.0
    wanted = {"score of type TEXT": 1, "score of a session or dataset run": 1}
    assert imported.report.ignored == wanted


def test_a_category_is_worth_what_is_said_and_not_its_index(tmp_path: Path) -> None:
    category = langfuse_score("t1", 1, data_type="CATEGORICAL", string_value="poor")
    path = lines(tmp_path / "o.jsonl", [observation("g"), category])
    assert next(iter(bring(LANGFUSE, path).logs)).score is None
    assert next(iter(bring(LANGFUSE, path, score_labels={"poor": 0.0}).logs)).score == 0.0


def api_trace() -> Data:
    """GET /api/public/traces/{id}: camelCase, observations and scores inside."""
    return {
        "id": "t9",
        "timestamp": "2025-01-01T00:00:00.000Z",
        "name": "answer",
        "input": "How many moons has Mars?",
        "output": "2",
        "sessionId": None,
        "release": None,
        "version": None,
        "userId": None,
        "metadata": {"shape": "reflection"},
        "tags": ["set:astro"],
        "public": False,
        "htmlPath": "/project/p1/traces/t9",
        "latency": 2.5,
        "totalCost": 0.002,
        "observations": [
            {
                "id": f"o{index}",
                "traceId": "t9",
                "type": "GENERATION",
                "name": "llm",
                "startTime": f"2025-01-01T00:00:0{index}.000Z",
                "endTime": f"2025-01-01T00:00:0{index + 1}.500Z",
                "model": "gpt-4o",
                "input": [{"role": "user", "content": "You are asked: how many moons?"}],
                "usage": {"input": 10, "output": 2, "total": 12, "unit": "TOKENS"},
                "calculatedTotalCost": 0.001,
                "level": "DEFAULT",
                "parentObservationId": None,
                "metadata": {"langgraph_node": node},
            }
            for index, node in enumerate(["solver", "critic"])
        ],
        "scores": [
            {
                "id": "s1",
                "traceId": "t9",
                "name": "correct",
                "value": 1,
                "stringValue": "True",
                "dataType": "BOOLEAN",
                "source": "EVAL",
                "observationId": None,
                "timestamp": "2025-01-01T00:01:00.000Z",
            }
        ],
    }


def test_a_whole_trace_of_the_api_is_taken_apart(tmp_path: Path) -> None:
    path = tmp_path / "trace.json"
    path.write_text(json.dumps(api_trace(), indent=1))
    imported = bring(
        LANGFUSE, path, dataset=None, dataset_key="set", topology_key="shape",
        agent_key="langgraph_node",
    )  # fmt: skip
    (record,) = imported.logs
    assert str(record.plan) == "reflection(solver@gpt-4o, critic@gpt-4o)"
    assert (record.query, record.dataset) == ("How many moons has Mars?", "astro")
    assert (record.score, record.score_source) == (1.0, "judge")
    assert record.usage == Usage(20, 4, 0.002)
    assert imported.report.rows_read == 4


def test_pages_of_the_api_are_taken_apart(tmp_path: Path) -> None:
    whole = api_trace()
    meta = {"page": 1, "limit": 50, "totalItems": 2, "totalPages": 1}
    path = tmp_path / "observations.json"
    path.write_text(json.dumps({"data": whole["observations"], "meta": meta}))
    other = tmp_path / "traces.json"
    ids = {"observations": ["o0", "o1"], "scores": ["s1"]}
    other.write_text(json.dumps({"data": [whole | ids], "meta": meta}))
    imported = bring(LANGFUSE, [path, other], topology="chain")
    (record,) = imported.logs
    assert record.query == "How many moons has Mars?"
    assert (imported.report.rows_read, imported.report.rejected) == (3, 0)


def test_every_file_type_of_a_blob_export_gives_the_same_records(tmp_path: Path) -> None:
    rows = [*team("t1"), *team("t2"), langfuse_score("t2", 0.5)]

    def imported(path: Path) -> list[LogRecord]:
        return list(bring(LANGFUSE, path, topology="chain").logs)

    wanted = imported(lines(tmp_path / "o.jsonl", rows))
    assert [record.score for record in wanted] == [None, 0.5]
    (tmp_path / "o.json").write_text(json.dumps(rows))
    assert imported(tmp_path / "o.json") == wanted
    folder = tmp_path / "csv"
    folder.mkdir()
    for name, part in (("observations.csv", rows[:-1]), ("scores.csv", rows[-1:])):
        with (folder / name).open("w", newline="") as file:
            writer = csv.DictWriter(file, list(part[0]))
            writer.writeheader()
            for row in part:
                cells = {
                    k: json.dumps(v) if isinstance(v, dict | list | bool) else v
                    for k, v in row.items()
                }
                writer.writerow(cells)
    assert imported(folder) == wanted
    columns = {name: [row[name] for row in rows[:-1]] for name in rows[0] if name != "metadata"}
    usage = pa.array(
        [list(value.items()) for value in columns.pop("usage_details")],
        pa.map_(pa.string(), pa.int64()),
    )
    table = pa.table({n: pa.array(v) for n, v in columns.items() if n != "tool_definitions"})
    pq.write_table(table.append_column("usage_details", usage), tmp_path / "o.parquet")
    found = imported(tmp_path / "o.parquet")
    assert [r.agent_usage for r in found] == [r.agent_usage for r in wanted]
    assert [r.plan for r in found] == [r.plan for r in wanted]


def test_an_unreadable_root_input_is_told_and_the_first_message_taken(tmp_path: Path) -> None:
    root = observation("root", "SPAN", input='{"args": [1], "kwargs": {}}')
    row = observation("g", second=1, parent_observation_id="root")
    imported = bring(LANGFUSE, lines(tmp_path / "o.jsonl", [root, row]))
    assert next(iter(imported.logs)).query == "Name a prime."
    assert list(imported.report.notes) == [
        "the outermost input is no text: the first call's user message was taken"
    ]


def test_malformed_rows_are_listed_and_none_is_lost(tmp_path: Path) -> None:
    rows: list[Any] = [
        observation("g"),
        observation("x", "DREAM", "t2"),
        observation("y", trace="t3", usage_details={"input": "many"}),
        observation("z", trace="t4", provided_model_name=""),
        observation("", trace="t5"),
        observation("w", trace=""),
        {"hello": "world"},
        "null",
        langfuse_score("t1", 0.5, source="ORACLE"),
        langfuse_score("t77", 0.5),
        observation("lonely", "SPAN", "t6"),
        observation("g"),
    ]
    path = lines(tmp_path / "o.jsonl", rows)
    report = bring(LANGFUSE, path).report
    assert (report.records, report.duplicates, report.rejected) == (1, 1, 9)
    assert report.ignored == {"row of a trace without a model call": 1}
    assert f"{path}:2: type: not a type of observation, got 'DREAM'" in report.examples
    assert f"{path}:10: score: matches no trace, id 't77'" in report.examples
    assert f"{path}:7: row: neither an observation, a score nor a trace, keys ['hello']" in (
        report.examples
    )


def test_a_circle_of_parents_ends(tmp_path: Path) -> None:
    rows = [
        observation("a", "AGENT", parent_observation_id="b"),
        observation("b", "AGENT", parent_observation_id="a"),
        observation("g", parent_observation_id="a"),
    ]
    (record,) = bring(LANGFUSE, lines(tmp_path / "o.jsonl", rows)).logs
    assert record.plan.agents == (Agent("a", "gpt-4o"),)


def test_an_evaluation_that_ran_later_is_no_part_of_the_runs_time(tmp_path: Path) -> None:
    rows = [
        observation("e", "EVALUATOR", second=50, metadata={"set": "judging"}),
        observation("judge", second=51, parent_observation_id="e"),
        observation("g", second=2, metadata={"set": "faq"}),
    ]
    path = lines(tmp_path / "o.jsonl", rows)
    (record,) = bring(LANGFUSE, path, dataset=None, dataset_key="set").logs
    assert (record.latency_s, record.timestamp) == (1.0, "2025-01-01T00:00:02Z")
    assert record.dataset == "faq"


def test_two_accounts_of_one_call_count_once(tmp_path: Path) -> None:
    outer = observation("outer", provided_model_name="openai/gpt-4o")
    inner = observation("inner", second=0.1, parent_observation_id="outer")
    imported = bring(LANGFUSE, lines(tmp_path / "o.jsonl", [outer, inner]))
    (record,) = imported.logs
    assert str(record.plan) == "io(gpt-4o)"
    assert record.usage == Usage(12, 3, 0.00006)
    assert record.latency_s == 1.1
    assert imported.report.notes == {"calls around calls of the same tokens, which count once": 1}
    assert len(bring(LANGFUSE, tmp_path / "o.jsonl", runs="call").logs) == 1


def test_calls_inside_a_call_of_other_tokens_are_not_summed(tmp_path: Path) -> None:
    rows = [
        observation("outer", usage_details={"input": 40, "output": 3}),
        observation("inner", second=0.1, parent_observation_id="outer"),
    ]
    path = lines(tmp_path / "o.jsonl", rows)
    report = bring(LANGFUSE, path, topology="chain").report
    assert (report.records, report.rejected) == (0, 2)
    assert "a call stands around others, and its tokens are not theirs" in report.examples[0]


def test_calls_as_runs_keep_their_agent_and_their_traces_dataset(tmp_path: Path) -> None:
    trace = {"id": "t1", "timestamp": "2025-01-01T00:00:00Z", "tags": ["set:faq"], "input": "Q"}
    rows = [*team(), trace]
    path = lines(tmp_path / "o.jsonl", rows)
    found = list(bring(LANGFUSE, path, runs="call", dataset=None, dataset_key="set").logs)
    plans = ["io(researcher@gpt-4o)", "io(researcher@gpt-4o)", "io(writer@gpt-4o-mini)"]
    assert [str(record.plan) for record in found] == plans
    assert {record.dataset for record in found} == {"faq"}
    assert {record.query for record in found} == {"Name a prime."}


def test_a_parent_that_is_not_in_the_files_is_told(tmp_path: Path) -> None:
    row = observation("g", parent_observation_id="elsewhere")
    report = bring(LANGFUSE, lines(tmp_path / "o.jsonl", [row])).report
    assert report.notes == {"runs with rows whose parent is not in the files": 1}


def test_scores_that_are_no_list_are_told(tmp_path: Path) -> None:
    trace = {"id": "t1", "timestamp": "2025-01-01T00:00:00Z", "scores": {"correct": [1]}}
    report = bring(LANGFUSE, lines(tmp_path / "o.jsonl", [observation("g"), trace])).report
    assert report.unmapped_fields["scores"] == 1


def test_both_kinds_of_observation_files_of_one_export_are_the_same_rows(tmp_path: Path) -> None:
    enriched = observation("g")
    traced = ("user_id", "session_id", "trace_name", "tags", "release")
    legacy = {name: value for name, value in enriched.items() if name not in traced}
    imported = bring(LANGFUSE, lines(tmp_path / "o.jsonl", [enriched, legacy]))
    assert (imported.report.records, imported.report.duplicates) == (1, 1)


def test_calls_that_stand_in_each_other_are_listed(tmp_path: Path) -> None:
    rows = [
        observation("a", parent_observation_id="b"),
        observation("b", parent_observation_id="a"),
        observation("c"),
    ]
    report = bring(LANGFUSE, lines(tmp_path / "o.jsonl", rows), topology="chain").report
    assert (report.records, report.rejected) == (0, 3)
    assert "a call stands under itself" in report.examples[0]
