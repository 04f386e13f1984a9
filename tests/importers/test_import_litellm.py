"""LiteLLM payloads become records: what a call cost, what a trace is, what is not known."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from tests.importers.samples import bring, failure, lines, payload

from masrouter.errors import LogError
from masrouter.importers import Format
from masrouter.types import Agent, LogRecord, Usage

LITELLM = Format.litellm


def records(path: Path, *rows: Any, **options: Any) -> list[LogRecord]:
    return list(bring(LITELLM, lines(path / "calls.jsonl", rows), **options).logs)


def test_a_call_becomes_a_run_of_one_agent(tmp_path: Path) -> None:
    (record,) = records(tmp_path, payload("a"), task="math")
    assert record.run_id == "litellm:trace-a"
    assert (record.query, record.dataset, record.task) == ("What is 2 + 2?", "d", "math")
    assert record.plan.topology == "io"
    assert record.plan.agents == (Agent(None, "gpt-4o-mini"),)
    assert record.usage == Usage(20, 10, 0.0006)
    assert record.agent_usage == (Usage(20, 10),)
    assert (record.latency_s, record.timestamp) == (1.5, "2025-01-01T00:00:00Z")
    assert (record.score, record.score_source, record.error) == (None, "none", None)


def test_the_same_text_has_the_same_id_in_every_import(tmp_path: Path) -> None:
    first, second = records(tmp_path, payload("a", "Hi\r\nyou "), payload("b", "Hi\nyou"))
    assert first.query == second.query == "Hi\nyou"
    assert first.query_id == second.query_id
    (other,) = records(tmp_path, payload("c", "Hi you"))
    assert other.query_id != first.query_id


@pytest.mark.parametrize(
    ("changes", "cost"),
    [
        ({"response_cost": 0.25}, 0.25),
        ({"response_cost": None}, None),
        ({"response_cost": 0.0}, None),
        ({"response_cost": 0.0, "cache_hit": True}, 0.0),
        ({"response_cost": 0.0, "model_map_information": {"model_map_value": None}}, None),
        (
            {
                "response_cost": 0.0,
                "model_map_information": {
                    "model_map_key": "ollama/llama3",
                    "model_map_value": {"input_cost_per_token": 0.0, "output_cost_per_token": 0.0},
                },
            },
            0.0,
        ),
        (
            {
                "response_cost": 0.0,
                "response_cost_failure_debug_info": {"error_str": "not mapped"},
                "model_map_information": {
                    "model_map_value": {"input_cost_per_token": 0, "output_cost_per_token": 0}
                },
            },
            None,
        ),
    ],
)
def test_a_cost_of_zero_is_believed_only_with_a_reason(
    tmp_path: Path, changes: dict[str, Any], cost: float | None
) -> None:
    (record,) = records(tmp_path, payload("a", **changes))
    assert record.usage.cost_usd == cost


def test_a_call_without_usage_has_unknown_tokens(tmp_path: Path) -> None:
    (record,) = records(tmp_path, payload("a", prompt_tokens=0, completion_tokens=0))
    assert record.usage == Usage(None, None, 0.0006)


def test_a_failed_call_is_kept_with_its_error_and_nothing_that_is_unknown(tmp_path: Path) -> None:
    imported = bring(LITELLM, lines(tmp_path / "a.jsonl", [failure("a")]))
    (record,) = imported.logs
    assert record.error == "litellm.RateLimitError: 429"
    assert record.score is None
    assert record.usage == Usage(None, None, None)
    assert imported.report.failed == 1


def test_retries_of_the_same_seat_are_one_run(tmp_path: Path) -> None:
    rows = [failure("a1", trace_id="t", endTime=1735689600.2), payload("a2", trace_id="t")]
    rows[1] |= {"startTime": 1735689600.5}
    (record,) = records(tmp_path, *rows)
    assert record.plan.topology == "io"
    assert (record.error, record.usage.cost_usd) == (None, None)
    assert record.latency_s == 1.5


def test_agents_of_a_trace_become_a_team_in_speaking_order(tmp_path: Path) -> None:
    def said(call: str, at: float, who: str, model: str) -> dict[str, Any]:
        metadata = {"requester_metadata": {"agent": who, "team": {"shape": "debate"}}}
        times = {"startTime": 1735689600.0 + at, "endTime": 1735689601.0 + at}
        return payload(call, trace_id="t", metadata=metadata, model=model, **times)

    rows = [
        said("3", 4, "critic", "gpt-4o"),
        said("1", 0, "solver", "gpt-4o-mini"),
        said("2", 2, "critic", "gpt-4o"),
        said("4", 6, "critic", "gpt-4o-mini"),
    ]
    (record,) = records(tmp_path, *rows, agent_key="agent", topology_key="team.shape")
    assert str(record.plan) == "debate(solver@gpt-4o-mini, critic@gpt-4o, critic@gpt-4o-mini)"
    assert record.agent_usage == (Usage(20, 10), Usage(40, 20), Usage(20, 10))
    assert record.usage.prompt_tokens == 80
    assert record.usage.cost_usd == pytest.approx(0.0024)
    assert record.latency_s == 7.0


def test_a_team_without_a_topology_is_listed_and_not_guessed(tmp_path: Path) -> None:
    rows = [payload("1", trace_id="t"), payload("2", trace_id="t", model="gpt-4o"), payload("3")]
    path = lines(tmp_path / "a.jsonl", rows)
    imported = bring(LITELLM, path)
    assert len(imported.logs) == 1
    assert imported.report.rejected == 2
    assert imported.report.examples[0].startswith(
        f"{path}:1: topology: several calls and no topology named: pass --topology"
    )
    assert imported.report.examples[1].startswith(f"{path}:2: topology: ")
    taken = bring(LITELLM, path, topology="chain")
    assert [str(r.plan) for r in taken.logs] == ["chain(gpt-4o-mini, gpt-4o)", "io(gpt-4o-mini)"]
    assert taken.report.notes == {"teams where calls name no agent: a seat for each model": 1}
    assert len(bring(LITELLM, path, runs="call").logs) == 3


def test_one_part_of_a_team_that_is_unknown_makes_the_total_unknown(tmp_path: Path) -> None:
    rows = [
        payload("1", trace_id="t"),
        payload("2", trace_id="t", model="x", response_cost=0, completion_tokens=None),
    ]
    (record,) = records(tmp_path, *rows, topology="chain")
    assert record.usage == Usage(40, None, None)
    assert record.agent_usage == (Usage(20, 10), Usage(20, None))


def test_randomised_logs_bring_their_propensities(tmp_path: Path) -> None:
    metadata = {"spend_logs_metadata": {"p": 0.25, "who": "uniform"}}
    row = payload("a", metadata=metadata, request_tags=["dataset:faq", "qid: q7"])
    (record,) = records(
        tmp_path, row, dataset=None, dataset_key="dataset", query_id_key="qid",
        propensity_key="p", policy_key="who", seed_key="model_parameters.seed",
    )  # fmt: skip
    assert (record.propensity, record.policy, record.seed) == (0.25, "uniform", 7)
    assert (record.dataset, record.query_id) == ("faq", "q7")


def test_metadata_that_disagree_within_a_run_are_rejected(tmp_path: Path) -> None:
    rows = [payload(c, trace_id="t", request_tags=[f"team:{c}"]) for c in "ab"]
    imported = bring(LITELLM, lines(tmp_path / "a.jsonl", rows), topology_key="team")
    assert imported.report.rejected == 2
    assert "rows of one run say different things, 'a' and 'b'" in imported.report.examples[0]


def test_other_kinds_of_calls_are_ignored_by_name(tmp_path: Path) -> None:
    rows = [payload("a"), payload("b", call_type="aembedding"), payload("c", call_type="rerank")]
    report = bring(LITELLM, lines(tmp_path / "a.jsonl", rows)).report
    assert report.ignored == {"call_type aembedding": 1, "call_type rerank": 1}


def test_malformed_rows_are_listed_and_none_is_lost(tmp_path: Path) -> None:
    rows: list[Any] = [
        payload("a"),
        '{"id": "cut off',
        "[1, 2]",
        payload("b", prompt_tokens=-1),
        payload("c", status="maybe"),
        payload("d", model=None),
        payload("e", messages=[{"role": "user", "content": [{"type": "image_url"}]}]),
        payload("f", messages="redacted-by-litellm"),
        payload("g", startTime="yesterday"),
        payload("h", response_cost="NaN"),
        {"call_type": "completion"},
        payload("a"),
        payload("a", model="gpt-4o"),
    ]
    path = lines(tmp_path / "a.jsonl", rows)
    rejects = tmp_path / "bad.jsonl"
    report = bring(LITELLM, path, rejects=rejects).report
    told = [json.loads(line) for line in rejects.read_text().splitlines()]
    # The call whose id came again with another content makes its own run unsure too.
    assert {int(item["where"]) for item in told} == {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 13}
    assert report.duplicates == 1
    by_line = {int(item["where"]): item for item in told}
    assert (by_line[3]["field"], by_line[3]["why"]) == ("line", "expected a JSON object")
    assert by_line[4]["field"] == "prompt_tokens"
    assert by_line[6]["field"] == "model"
    assert by_line[7]["detail"] == "only parts of type image_url"
    assert by_line[8]["why"] == "the text was redacted before it was logged"
    assert by_line[9]["detail"] == "got 'yesterday'"
    assert json.loads(by_line[4]["raw"])["prompt_tokens"] == -1


def test_a_run_with_a_bad_row_is_not_taken_for_whole(tmp_path: Path) -> None:
    rows = [payload("1", trace_id="t"), payload("2", trace_id="t", completion_tokens="many")]
    path = lines(tmp_path / "a.jsonl", rows)
    report = bring(LITELLM, path, topology="chain").report
    assert (report.records, report.rejected) == (0, 2)
    assert report.examples[1] == f"{path}:1: trace: a row of this run was rejected, at {path}:2"


def test_strict_stops_at_the_first_bad_row(tmp_path: Path) -> None:
    path = lines(tmp_path / "a.jsonl", [payload("a"), payload("b", prompt_tokens=-1)])
    with pytest.raises(LogError, match=r"a\.jsonl:2: prompt_tokens: expected an integer >= 0"):
        bring(LITELLM, path, strict=True)


def test_unread_fields_and_unpriced_models_are_told(tmp_path: Path) -> None:
    rows = [payload("a", surprise=1), payload("b", model="my-own")]
    names = {"gpt-4o-mini": "gpt-4o"}
    imported = bring(LITELLM, lines(tmp_path / "a.jsonl", rows), models=names)
    assert imported.report.unmapped_fields["surprise"] == 1
    assert imported.report.unmapped_fields["api_base"] == 2
    assert "model" not in imported.report.unmapped_fields
    assert imported.report.unpriced_models == {"my-own": 1}
    assert {record.plan.models for record in imported.logs} == {("gpt-4o",), ("my-own",)}


def test_a_folder_of_one_payload_a_file_is_read_as_s3_has_it(tmp_path: Path) -> None:
    folder = tmp_path / "2025-01-01"
    folder.mkdir()
    (folder / "a.json").write_text(json.dumps(payload("a"), indent=2))
    (folder / "b.json").write_text(json.dumps([payload("b"), payload("c")]))
    with gzip.open(folder / "d.jsonl.gz", "wt") as file:
        file.write(json.dumps({"standard_logging_object": payload("d")}) + "\n")
    (folder / "e.json").write_text('{"id": ')
    imported = bring(LITELLM, tmp_path)
    assert [record.run_id[-1] for record in imported.logs] == ["a", "b", "c", "d"]
    assert imported.report.examples[0].startswith(f"{folder / 'e.json'}:document: document: not ")


def test_a_damaged_archive_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(json.dumps(payload("a")).encode())[:-9])
    with pytest.raises(LogError, match="gzip stream is damaged"):
        bring(LITELLM, path)


def test_a_dataset_must_be_named(tmp_path: Path) -> None:
    with pytest.raises(LogError, match="no dataset: give"):
        bring(LITELLM, lines(tmp_path / "a.jsonl", [payload("a")]), dataset=None)


def test_a_text_that_was_cut_off_is_no_query(tmp_path: Path) -> None:
    end = "...truncated by litellm, this logger does not support large content"
    row = payload("a", messages="[{'role': 'user', 'content': 'Sum up: " + "x" * 50 + end)
    report = bring(LITELLM, lines(tmp_path / "a.jsonl", [row])).report
    assert (report.records, report.rejected) == (0, 1)
    assert "the text was cut off before it was logged" in report.examples[0]


def test_a_fallback_to_another_model_is_no_team(tmp_path: Path) -> None:
    rows = [
        failure("a", trace_id="t", model="gpt-4o"),
        payload("b", trace_id="t", startTime=1735689601.0),
    ]
    path = lines(tmp_path / "a.jsonl", rows)
    report = bring(LITELLM, path, topology="chain").report
    assert (report.records, report.rejected) == (0, 2)
    assert "every call of a model failed, and its agent asked another" in report.examples[0]
    both = lines(tmp_path / "b.jsonl", [rows[0], failure("b", trace_id="t")])
    assert bring(LITELLM, both, topology="chain").report.rejected == 2
    assert [r.error is None for r in bring(LITELLM, path, runs="call").logs] == [False, True]
    for row, who in zip(rows, ("solver", "critic"), strict=True):
        row["request_tags"] = [f"who:{who}"]
    (record,) = records(tmp_path, *rows, topology="chain", agent_key="who")
    assert str(record.plan) == "chain(solver@gpt-4o, critic@gpt-4o-mini)"


def test_the_order_of_files_does_not_change_who_speaks_first(tmp_path: Path) -> None:
    rows = [payload(c, trace_id="t", model=f"model-{c}") for c in "ab"]
    forth, back = (records(tmp_path, *r, topology="debate") for r in (rows, rows[::-1]))
    assert forth == back
    for row in rows:
        row["startTime"] = None
    report = bring(LITELLM, lines(tmp_path / "a.jsonl", rows), topology="debate").report
    assert report.notes["teams without start times: in the order of the files"] == 1


def test_a_bucket_of_names_without_a_suffix_is_read_and_other_files_are_told(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "2025-01-01"
    folder.mkdir()
    (folder / "chatcmpl-9J3").write_text(json.dumps(payload("a")))
    (folder / "b.log").write_text(json.dumps(payload("b")))
    imported = bring(LITELLM, tmp_path)
    assert [record.run_id for record in imported.logs] == ["litellm:trace-a"]
    assert imported.report.notes == {"files of the folders not read, as their names end in .log": 1}


def test_a_number_is_not_read_where_only_python_reads_one(tmp_path: Path) -> None:
    report = bring(LITELLM, lines(tmp_path / "a.jsonl", [payload("a", response_cost="1_0")])).report
    assert "response_cost: expected a finite number" in report.examples[0]


def test_a_key_that_holds_no_name_is_told_by_its_field(tmp_path: Path) -> None:
    row = payload("a", metadata={"requester_metadata": {"q": [1]}})
    report = bring(LITELLM, lines(tmp_path / "a.jsonl", [row]), query_id_key="q").report
    assert "query_id: expected text or null, got [1]" in report.examples[0]


def test_rejects_do_not_overwrite_the_scores(tmp_path: Path) -> None:
    path = lines(tmp_path / "a.jsonl", [payload("a")])
    scores = tmp_path / "scores.csv"
    scores.write_text("id,score\na,1\n")
    with pytest.raises(LogError, match="the rejects file is one of the inputs"):
        bring(LITELLM, path, scores=[scores], rejects=scores, score_source="tests")
    assert scores.read_text() == "id,score\na,1\n"
