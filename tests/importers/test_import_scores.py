"""Scores of side files: joined by id, never chosen or scaled without being told how."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.importers.samples import bring, lines, payload

from masrouter.errors import LogError
from masrouter.importers import Format, Imported


def scored(folder: Path, table: str, rows: list[Any] | None = None, **options: Any) -> Imported:
    calls = lines(folder / "calls.jsonl", rows or [payload("a"), payload("b")])
    (folder / "scores.csv").write_text(table)
    return bring(Format.litellm, calls, scores=[folder / "scores.csv"], **options)


def outcomes(imported: Imported) -> list[tuple[float | None, str]]:
    return [(record.score, record.score_source) for record in imported.logs]


def test_scores_join_by_trace_and_by_call(tmp_path: Path) -> None:
    imported = scored(tmp_path, "id,score\ntrace-a,1\nb,0.25\n", score_source="tests")
    assert outcomes(imported) == [(1.0, "tests"), (0.25, "tests")]
    assert imported.report.scored == 2


def test_a_run_without_a_score_is_kept(tmp_path: Path) -> None:
    imported = scored(tmp_path, "id,score,score_source\na,true,human\n")
    assert outcomes(imported) == [(1.0, "human"), (None, "none")]


def test_scores_that_match_nothing_are_listed(tmp_path: Path) -> None:
    imported = scored(tmp_path, "id,score\nnowhere,1\n,1\nb,\n", score_source="tests")
    assert imported.report.rejected == 3
    wanted = f"{tmp_path / 'scores.csv'}:2: score: matches no trace and no call, id 'nowhere'"
    assert wanted in imported.report.examples


def test_a_scale_that_is_not_a_share_must_be_named(tmp_path: Path) -> None:
    table = "id,score\na,1\nb,4\n"
    with pytest.raises(LogError, match="scores go from 1 to 4, not from 0 to 1"):
        scored(tmp_path, table, score_source="human")
    imported = scored(tmp_path, table, score_source="human", score_range=(1.0, 5.0))
    assert outcomes(imported) == [(0.0, "human"), (0.75, "human")]
    imported = scored(tmp_path, table, score_source="human", score_range=(1.0, 3.0))
    assert imported.report.rejected == 1


def test_what_scored_must_be_named(tmp_path: Path) -> None:
    with pytest.raises(LogError, match=r"scores\.csv:2: score 'score': nothing says what scored"):
        scored(tmp_path, "id,score\na,1\n")


def test_several_names_need_a_choice(tmp_path: Path) -> None:
    table = "id,score,name\na,1,good\na,0,polite\nb,0,good\n"
    with pytest.raises(LogError, match=r"several names: 'good' \(2\), 'polite' \(1\)"):
        scored(tmp_path, table, score_source="tests")
    with pytest.raises(LogError, match="no score is named 'god'; there are 'good'"):
        scored(tmp_path, table, score_source="tests", score_name="god")
    imported = scored(tmp_path, table, score_source="tests", score_name="good")
    assert [score for score, _ in outcomes(imported)] == [1.0, 0.0]
    assert imported.report.ignored == {"score of another name: polite": 1}


def test_labels_are_worth_what_is_said(tmp_path: Path) -> None:
    table = "id,score\na,up\nb,sideways\n"
    imported = scored(tmp_path, table, score_source="human", score_labels={"up": 1.0})
    assert [score for score, _ in outcomes(imported)] == [1.0, None]
    assert "a label is no number; say what it is worth" in imported.report.examples[0]


def test_scores_that_contradict_each_other_are_not_chosen_from(tmp_path: Path) -> None:
    table = "id,score\na,1\ntrace-a,0\nb,1\ntrace-b,1\n"
    imported = scored(tmp_path, table, score_source="tests")
    assert [score for score, _ in outcomes(imported)] == [None, 1.0]
    assert imported.report.rejected == 2
    assert "its run has scores that differ, and none is taken" in imported.report.examples[0]


def test_the_score_of_a_part_is_not_the_runs(tmp_path: Path) -> None:
    rows = [payload("1", trace_id="t"), payload("2", trace_id="t", model="gpt-4o")]
    table = "id,score\n2,1\n"
    imported = scored(tmp_path, table, rows, score_source="tests", topology="chain")
    assert outcomes(imported) == [(None, "tests")]
    assert "no run has just the calls that it judges" in imported.report.examples[0]
    imported = scored(tmp_path, table, rows, score_source="tests", runs="call")
    assert [score for score, _ in outcomes(imported)] == [None, 1.0]


def test_a_score_file_of_other_columns_is_rejected_row_by_row(tmp_path: Path) -> None:
    imported = scored(tmp_path, "run,rating\na,1\nb,0\n")
    assert imported.report.rejected == 2
    assert "expected the columns id and score" in imported.report.examples[0]
